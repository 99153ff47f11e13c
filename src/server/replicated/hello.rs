//! How stores meet: `basaltpb.Peers/Hello`, said by a founder to every other one before it votes, by a store that
//! joins, and by every store to all others now and then, so that addresses and removals get around.
//!
//! Not here: what is kept of it (`Directory`).

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use basalt_proto::basaltpb::{HelloRequest, HelloResponse, StoreInfo};
use tokio::task::JoinSet;
use tonic::{Code, Status};

use super::{Cluster, Dialer, Refusal};
use crate::{
    limits::PEER_ANSWER_TIMEOUT, storage::data_dir::Phase,
    stubs::basaltpb::peers_client::PeersClient,
};

/// Between two rounds of a founder that waits for others.
const ROUND: Duration = Duration::from_millis(200);
/// Between two lines of the log that say whom it waits for.
const REPORT: Duration = Duration::from_secs(3);

/// Why a hello came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unmet {
    /// It was refused: asking again changes nothing.
    Refused(Refusal),
    /// It may go better later.
    Later(String),
}

impl Cluster {
    /// Answers a hello. The sender's incarnation is durable here once it is answered.
    ///
    /// # Errors
    ///
    /// The refusal, as it is told.
    pub async fn hello(self: &Arc<Self>, request: HelloRequest) -> Result<HelloResponse, Status> {
        let identity = self.identity();
        let refused = |refusal: Refusal| Err(refusal.to_status());
        if request.cluster_id != identity.cluster_id {
            return refused(Refusal::foreign(request.cluster_id, identity.cluster_id));
        }
        let target = request.target_store_id;
        if target != 0 && target != identity.store_id {
            return refused(Refusal::target(target, identity.store_id));
        }
        let sender = request.sender.unwrap_or_default();
        let store_id = sender.store_id;
        let taken = self
            .blocking(move |cluster| {
                let admitted = cluster.directory.admit(&sender);
                if admitted.is_ok() {
                    cluster.directory.merge(&request.known)?;
                }
                Ok(admitted)
            })
            .await;
        match taken {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => {
                tracing::warn!(store = store_id, why = refusal.text(), "refused a store");
                return refused(refusal);
            }
            Err(what) => return refused(Refusal::Disk(what)),
        }
        self.links.nudge(store_id);
        Ok(HelloResponse {
            responder: Some(self.directory.own()),
            known: self.directory.all(),
        })
    }

    /// Says hello to one store and takes in what it answers.
    pub(super) async fn greet(self: &Arc<Self>, store_id: u64) -> Result<(), Unmet> {
        let address = self.directory.address(store_id);
        let address = address.ok_or_else(|| Unmet::Later("its address is not known".to_owned()))?;
        let request = HelloRequest {
            cluster_id: self.identity().cluster_id,
            sender: Some(self.directory.own()),
            target_store_id: store_id,
            known: self.directory.all(),
        };
        let answer = greet(&self.links.dialer, &address, request).await?;
        let responder = answer.responder.unwrap_or_default();
        if responder.store_id != store_id {
            let refusal = Refusal::target(store_id, responder.store_id);
            return Err(Unmet::Later(format!("{address}: {}", refusal.text())));
        }
        let taken = self
            .blocking(move |cluster| {
                let admitted = cluster.directory.admit(&responder);
                if admitted.is_ok() {
                    cluster.directory.merge(&answer.known)?;
                }
                Ok(admitted)
            })
            .await;
        // It is the other one that is not who it was.
        let taken = taken.map_err(Unmet::Later)?;
        taken.map_err(|refusal| Unmet::Later(refusal.text().to_owned()))
    }

    /// Says hello to all other stores at once; why it came to nothing, of those where it did.
    pub(super) async fn greet_all(self: &Arc<Self>, stores: &[u64]) -> BTreeMap<u64, Unmet> {
        let mut greetings = JoinSet::new();
        for &store_id in stores {
            let cluster = Arc::clone(self);
            greetings.spawn(async move { (store_id, cluster.greet(store_id).await) });
        }
        let mut unmet = BTreeMap::new();
        while let Some(greeted) = greetings.join_next().await {
            if let Ok((store_id, Err(why))) = greeted {
                unmet.insert(store_id, why);
            }
        }
        unmet
    }

    /// A founder's first start: every other founder durably has its incarnation, and it has theirs, before it
    /// takes part in any vote. Else a disk that was wiped in between could vote twice and nobody would know.
    ///
    /// # Errors
    ///
    /// One sentence when another founder refuses it.
    pub(super) async fn meet_founders(self: &Arc<Self>) -> Result<(), String> {
        let mut missing = self.directory.others();
        let mut reported = Instant::now();
        let mut stopping = self.stopping();
        loop {
            let unmet = self.greet_all(&missing).await;
            for (store_id, why) in &unmet {
                if let Unmet::Refused(refusal) = why {
                    return Err(format!(
                        "store {store_id} refuses this one: {}",
                        refusal.text()
                    ));
                }
            }
            missing.retain(|store_id| unmet.contains_key(store_id));
            if missing.is_empty() {
                return Ok(());
            }
            let names: Vec<String> = missing.iter().map(u64::to_string).collect();
            let stores = names.join(", ");
            self.wait_for(format!(
                "it has not yet met every founder; missing: {stores}"
            ));
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                for (store, why) in &unmet {
                    let why = why.text();
                    tracing::warn!(store, why, "waiting for a store of --initial-cluster");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                _ = stopping.wait_for(|stop| *stop) => return Err("it was told to stop".to_owned()),
            }
        }
    }

    /// Tells all other stores whom this one knows. A refusal of this store has its consequence.
    pub(super) async fn gossip(self: &Arc<Self>) {
        let others = self.directory.others();
        for (store_id, why) in self.greet_all(&others).await {
            match why {
                Unmet::Refused(refusal) => self.refused_by_another(&refusal).await,
                Unmet::Later(why) => tracing::debug!(store = store_id, why, "no hello"),
            }
        }
    }

    /// Another store of this cluster does not speak with this one any more.
    ///
    /// Only what a store of the same cluster says of this disk ends it: somebody else who happens to answer at an
    /// address of ours (a cluster that was set up anew on the port of a dead store) must not.
    pub(super) async fn refused_by_another(self: &Arc<Self>, refusal: &Refusal) {
        let is_final = matches!(refusal, Refusal::Wiped(_) | Refusal::Removed(_));
        if !is_final || self.fenced().is_some() {
            return;
        }
        let was_removed = matches!(refusal, Refusal::Removed(_));
        let why = refusal.text().to_owned();
        // What cannot be written down is fenced all the same.
        let fencing = self.blocking(move |cluster| {
            let noted = match was_removed {
                true => cluster.enter(Phase::Removed),
                false => Ok(()),
            };
            cluster.fence(why);
            noted
        });
        if let Err(why) = fencing.await {
            tracing::warn!(why, "could not note that the store was removed");
        }
    }
}

impl Unmet {
    /// The reason.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Refused(refusal) => refusal.text(),
            Self::Later(why) => why,
        }
    }
}

/// Says hello at an address.
pub(super) async fn greet(
    dialer: &Dialer,
    address: &str,
    request: HelloRequest,
) -> Result<HelloResponse, Unmet> {
    let saying = async {
        let channel = dialer.dial(address).await.map_err(Unmet::Later)?;
        let answer = PeersClient::new(channel).hello(request).await;
        answer.map_err(|status| match Refusal::of_status(&status) {
            Some(refusal @ Refusal::Target(_)) => {
                Unmet::Later(format!("{address}: {}", refusal.text()))
            }
            Some(refusal) => Unmet::Refused(refusal),
            None if status.code() == Code::Unimplemented => {
                Unmet::Later(format!("{address} is no store of a Basalt cluster"))
            }
            None => Unmet::Later(format!("{address}: {}", status.message())),
        })
    };
    let said = tokio::time::timeout(PEER_ANSWER_TIMEOUT, saying).await;
    let said = said.unwrap_or_else(|_| Err(Unmet::Later(format!("{address} gives no answer"))));
    said.map(tonic::Response::into_inner)
}

/// What a store that joins says of itself.
#[must_use]
pub(super) fn introduction(store_id: u64, address: &str, incarnation: u64) -> StoreInfo {
    StoreInfo {
        store_id,
        address: address.to_owned(),
        incarnation,
        address_version: 0,
        removed: false,
    }
}
