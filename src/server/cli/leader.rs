//! `Leader`: speaking to whichever store leads: it follows `not_leader`, waits while there is no leader, and goes on
//! to another address when a store is gone.
//!
//! Promises: a write is sent again only where the store before has surely not taken it; else the failure says that
//! its outcome is open. It gives up after [`PATIENCE`].

use std::{
    collections::BTreeMap,
    future::Future,
    time::{Duration, Instant},
};

use basalt_proto::{basaltpb::MembersRequest, errorpb, metapb::Peer};
use tonic::{Code, Response, Status};

use super::{
    Failure,
    client::{ANSWER_TIMEOUT, Access, Server, Target},
};

/// Time in which a leader is looked for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Before a store is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Whether asking twice could do something twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It changes nothing, or the same twice.
    Repeatable,
    /// It is done once, or its outcome is open.
    Once,
}

/// A way to the leader.
#[derive(Debug)]
pub(super) struct Leader {
    /// As the user gave them.
    addrs: Vec<String>,
    access: Access,
    /// Where each store is.
    stores: BTreeMap<u64, String>,
    server: Server,
}

impl Leader {
    /// Connects to the first address that answers.
    pub(super) async fn find(target: &Target) -> Result<Self, Failure> {
        Ok(Self {
            addrs: target.addrs.clone(),
            access: target.access.clone(),
            stores: BTreeMap::new(),
            server: Server::connect_any(target).await?,
        })
    }

    /// The store that is spoken with.
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Asks the leader; `within` a time, or for as long as it takes. `error_of` takes the region error out of an
    /// answer.
    pub(super) async fn ask<T, F>(
        &mut self,
        kind: Kind,
        within: Option<Duration>,
        send: impl Fn(&Server) -> F,
        error_of: impl Fn(&mut T) -> Option<errorpb::Error>,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let mut until = Instant::now() + PATIENCE;
        loop {
            let asked = Instant::now();
            let answer = match within {
                Some(time) => match tokio::time::timeout(time, send(&self.server)).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(self.server.silent(time)),
                },
                None => send(&self.server).await,
            };
            if asked.elapsed() >= PAUSE * 5 {
                // It was at work, not looking for somebody.
                until = Instant::now() + PATIENCE;
            }
            let why = match answer {
                Ok(answer) => {
                    let mut answer = answer.into_inner();
                    let Some(error) = error_of(&mut answer) else {
                        return Ok(answer);
                    };
                    if error.stale_command.is_some() && kind == Kind::Once {
                        let text = "leadership changed meanwhile: the write may be done or not";
                        return Err(Failure::world(text));
                    }
                    self.follow(&error).await;
                    error.message
                }
                Err(status) => {
                    // What a server says itself it says of a request that it has not taken.
                    let is_said = std::error::Error::source(&status).is_none();
                    let may_repeat = kind == Kind::Repeatable || is_said;
                    if status.code() != Code::Unavailable || !may_repeat || self.is_alone() {
                        return self.server.answer(Err(status));
                    }
                    self.go_on().await;
                    status.message().to_owned()
                }
            };
            if Instant::now() >= until {
                let seconds = PATIENCE.as_secs();
                return Err(Failure::world(format!(
                    "no leader was found in {seconds} s: {why}"
                )));
            }
        }
    }

    /// [`Leader::ask`] with the usual patience for one answer.
    pub(super) async fn ask_soon<T, F>(
        &mut self,
        kind: Kind,
        send: impl Fn(&Server) -> F,
        error_of: impl Fn(&mut T) -> Option<errorpb::Error>,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.ask(kind, Some(ANSWER_TIMEOUT), send, error_of).await
    }

    /// Whether nobody else is known who could be asked.
    fn is_alone(&self) -> bool {
        self.addrs.len() < 2 && self.stores.len() < 2
    }

    /// Goes to the store that an error names; waits where it names none.
    async fn follow(&mut self, error: &errorpb::Error) {
        if error.region_not_found.is_some() {
            // A store that waits to be added, or that lost its peer: others have the region.
            self.learn().await;
            return self.go_on().await;
        }
        let leader = error.not_leader.as_ref().and_then(|error| error.leader);
        let store = leader.map(|Peer { store_id, .. }| store_id);
        if self.stores.is_empty() || store.is_some_and(|store| !self.stores.contains_key(&store)) {
            self.learn().await;
        }
        let address = store.and_then(|store| self.stores.get(&store)).cloned();
        match address {
            Some(address) if address != self.server.addr() => {
                match Server::connect(&address, &self.access).await {
                    Ok(server) => self.server = server,
                    Err(_) => self.go_on().await,
                }
            }
            // It leads and does not know it yet, or nobody does.
            _ => tokio::time::sleep(PAUSE).await,
        }
    }

    /// Goes to the next known address that answers, after a pause.
    async fn go_on(&mut self) {
        tokio::time::sleep(PAUSE).await;
        let mut known = self.addrs.clone();
        for address in self.stores.values() {
            if !known.contains(address) {
                known.push(address.clone());
            }
        }
        let here = known.iter().position(|addr| addr == self.server.addr());
        let next = here.map_or(0, |here| here + 1);
        let count = known.len();
        known.rotate_left(next % count.max(1));
        let target = Target {
            addrs: known,
            access: self.access.clone(),
        };
        if let Ok(server) = Server::connect_any(&target).await {
            self.server = server;
        }
    }

    /// Learns where the stores are.
    async fn learn(&mut self) {
        let mut admin = self.server.admin();
        let asked = self.server.ask(admin.members(MembersRequest {})).await;
        if let Ok(members) = asked {
            let stores = members.stores.into_iter().filter(|store| !store.removed);
            self.stores = stores
                .map(|store| (store.store_id, store.address))
                .collect();
        }
    }
}
