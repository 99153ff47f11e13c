//! [`Client`]: the calls, and the way each of them takes to whichever store leads.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use basalt_proto::{
    basaltpb::{
        BatchRequest, BatchResponse, MembersRequest, MembersResponse, ScanRequest, ScanResponse,
    },
    errorpb,
    kvrpcpb::{
        RawDeleteRequest, RawDeleteResponse, RawGetRequest, RawGetResponse, RawPutRequest,
        RawPutResponse,
    },
    metapb::Peer,
};
use bytes::Bytes;
use tonic::{Response, Status};

use crate::{
    Batch, Budget, Config, Error, KeyRange, Node, Result, ScanOptions,
    retry::{Kind, Step, pause, step},
};

/// The least time for one answer of several that may be asked for.
const LEAST_TIME: Duration = Duration::from_secs(1);

/// A store of a cluster, as another one knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub store_id: u64,
    /// Where it is, `HOST:PORT`.
    pub addr: String,
}

/// A client of one server or one cluster. Cheap to clone: clones share connections, the leader, and the retry budget.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
    cf: Arc<str>,
    deadline: Option<Duration>,
    repeats_writes: bool,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    budget: Budget,
    state: Mutex<State>,
}

/// What is known of the servers.
#[derive(Debug, Default)]
struct State {
    /// Whom requests go to.
    node: Option<Node>,
    /// Where each store is.
    stores: BTreeMap<u64, String>,
    /// Who was silent last.
    avoided: Option<String>,
    /// Connections, by address; they mend themselves.
    nodes: BTreeMap<String, Node>,
}

impl Client {
    /// A client that is set up and has not spoken with anybody yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let deadline = Some(config.deadline);
        Self {
            shared: Arc::new(Shared {
                config,
                budget: Budget::new(Instant::now()),
                state: Mutex::default(),
            }),
            cf: Arc::from(""),
            deadline,
            repeats_writes: false,
        }
    }

    /// A client that has reached one of `endpoints`, `HOST:PORT` each, in plain text.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for what is no address, [`Error::Unavailable`] where nobody answers.
    pub async fn connect<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self> {
        let client = Self::new(Config::new(endpoints));
        client.node().await?;
        Ok(client)
    }

    /// The same client for another column family: `default`, `write` or `lock`.
    #[must_use]
    pub fn family(&self, name: &str) -> Self {
        Self {
            cf: name.into(),
            ..self.clone()
        }
    }

    /// The same client with another deadline of its calls; `None`: they take as long as they take.
    #[must_use]
    pub fn deadline(&self, deadline: Option<Duration>) -> Self {
        Self {
            deadline,
            ..self.clone()
        }
    }

    /// The same client whose writes are sent again where it is open whether they were done.
    ///
    /// Done twice they lead to the same state, but a write of somebody else to the same key in between would be undone:
    /// for keys that nobody else writes.
    #[must_use]
    pub fn repeating_writes(&self) -> Self {
        Self {
            repeats_writes: true,
            ..self.clone()
        }
    }

    fn writing(&self) -> Kind {
        match self.repeats_writes {
            true => Kind::Repeatable,
            false => Kind::Once,
        }
    }

    /// The value of a key; `None` where it is not there.
    ///
    /// # Errors
    ///
    /// As for every call: [`Error`] says what its caller can do.
    pub async fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        let request = RawGetRequest {
            context: None,
            key: Bytes::copy_from_slice(key.as_ref()),
            cf: self.cf.to_string(),
        };
        let send =
            |node: &Node, within| node.unary("/tinykvpb.TinyKv/RawGet", request.clone(), within);
        let error_of = |answer: &mut RawGetResponse| answer.region_error.take();
        let answer = self.ask(Kind::Repeatable, send, error_of).await?;
        check(&answer.error)?;
        Ok((!answer.not_found).then_some(answer.value))
    }

    /// Sets a key; an empty value is a value.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        let request = RawPutRequest {
            context: None,
            key: key.into(),
            value: value.into(),
            cf: self.cf.to_string(),
        };
        let send =
            |node: &Node, within| node.unary("/tinykvpb.TinyKv/RawPut", request.clone(), within);
        let error_of = |answer: &mut RawPutResponse| answer.region_error.take();
        let answer = self.ask(self.writing(), send, error_of).await?;
        check(&answer.error)
    }

    /// Removes a key; one that is absent is fine.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        let request = RawDeleteRequest {
            context: None,
            key: key.into(),
            cf: self.cf.to_string(),
        };
        let send =
            |node: &Node, within| node.unary("/tinykvpb.TinyKv/RawDelete", request.clone(), within);
        let error_of = |answer: &mut RawDeleteResponse| answer.region_error.take();
        let answer = self.ask(self.writing(), send, error_of).await?;
        check(&answer.error)
    }

    /// Removes every key of a range, at one moment.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn delete_range(&self, range: KeyRange) -> Result<()> {
        self.write(Batch::new().family(&self.cf).delete_range(range))
            .await
    }

    /// Does all changes of a batch or none. The families are the batch's own.
    ///
    /// # Errors
    ///
    /// As for every call; [`Error::InvalidArgument`] for one that is too large.
    pub async fn write(&self, batch: Batch) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let request = BatchRequest {
            changes: batch.changes,
        };
        let send = |node: &Node, within| node.unary("/basaltpb.Kv/Batch", request.clone(), within);
        let error_of = |answer: &mut BatchResponse| answer.region_error.take();
        let answer = self.ask(self.writing(), send, error_of).await?;
        check(&answer.error)
    }

    /// The pairs of a range, to be shaped and started.
    pub fn scan(&self, range: KeyRange) -> ScanOptions {
        ScanOptions::new(self.clone(), range)
    }

    /// How many keys a range has. Long ranges are counted in pages, each at its own moment.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn count(&self, range: KeyRange) -> Result<u64> {
        let mut request = self.page_of(range);
        request.count_only = true;
        let mut count = 0;
        loop {
            let page = self.page(request.clone()).await?;
            count += page.count;
            if !page.more {
                return Ok(count);
            }
            request.start_key = page.next_key;
        }
    }

    /// The stores of the cluster, as the one that is spoken with knows them; of one server: none.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn members(&self) -> Result<Vec<Member>> {
        let send =
            |node: &Node, within| node.unary("/basaltpb.Admin/Members", MembersRequest {}, within);
        let asked = self.ask(Kind::Repeatable, send, |_: &mut MembersResponse| None);
        match asked.await {
            Ok(answer) => Ok(members(answer)),
            // One server alone is no cluster.
            Err(Error::Other { reason, .. }) if reason.starts_with("FAILED_PRECONDITION") => {
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }

    /// A request for the pairs of a range.
    pub(crate) fn page_of(&self, range: KeyRange) -> ScanRequest {
        ScanRequest {
            cf: self.cf.to_string(),
            start_key: range.start,
            end_key: range.end,
            ..ScanRequest::default()
        }
    }

    pub(crate) fn page_len(&self) -> u32 {
        self.shared.config.page
    }

    pub(crate) async fn page(&self, request: ScanRequest) -> Result<ScanResponse> {
        let send = |node: &Node, within| node.unary("/basaltpb.Kv/Scan", request.clone(), within);
        let error_of = |answer: &mut ScanResponse| answer.region_error.take();
        let answer = self.ask(Kind::Repeatable, send, error_of).await?;
        check(&answer.error)?;
        Ok(answer)
    }

    /// The server that requests go to; connects to the first of the addresses that answers, where there is none.
    ///
    /// # Errors
    ///
    /// Why none of them answers.
    pub async fn node(&self) -> Result<Node> {
        if let Some(node) = self.lock().node.clone() {
            return Ok(node);
        }
        let avoided = self.lock().avoided.clone();
        let node = self
            .first_of(&self.known_behind(avoided.as_deref()))
            .await?;
        self.lock().node = Some(node.clone());
        Ok(node)
    }

    /// The known addresses, those behind `addr` first, `addr` itself last.
    fn known_behind(&self, addr: Option<&str>) -> Vec<String> {
        let mut known = self.shared.config.endpoints.clone();
        for addr in self.lock().stores.values() {
            if !known.contains(addr) {
                known.push(addr.clone());
            }
        }
        let here = addr.and_then(|addr| known.iter().position(|known| known == addr));
        let next = here.map_or(0, |here| here + 1);
        let count = known.len();
        known.rotate_left(next % count.max(1));
        known
    }

    /// A server was silent: the next request goes to another one, if there is one.
    fn avoid(&self, node: &Node) {
        let mut state = self.lock();
        if state
            .node
            .as_ref()
            .is_some_and(|own| own.addr() == node.addr())
        {
            state.node = None;
            state.avoided = Some(node.addr().to_owned());
        }
    }

    /// Asks whichever store leads, by a call of any service: what the calls above are made of.
    ///
    /// `send` sends it to a server, which may be told how long it is waited for; `error_of` takes the error out of an
    /// answer that says that another store, or none, leads.
    ///
    /// # Errors
    ///
    /// As for every call.
    pub async fn ask<T, F>(
        &self,
        kind: Kind,
        send: impl Fn(&Node, Option<Duration>) -> F,
        error_of: impl Fn(&mut T) -> Option<errorpb::Error>,
    ) -> Result<T>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let config = &self.shared.config;
        let began = Instant::now();
        let mut until = began + config.patience;
        let mut attempt = 0;
        // Once it was reached, one that is gone is waited for; else its address may be wrong.
        let was_reached = self.lock().node.is_some();
        loop {
            let left = self
                .deadline
                .map(|deadline| deadline.saturating_sub(began.elapsed()));
            let node = match self.node().await {
                Ok(node) => node,
                Err(error) if !was_reached || !error.is_transient() => return Err(error),
                Err(error) => {
                    if !self.may_go_on(until, left) {
                        return Err(error);
                    }
                    self.wait(&mut attempt, left).await;
                    continue;
                }
            };
            let asked = Instant::now();
            // Another server may answer what can be asked twice; one that is silent gets half of the time.
            let is_asked_twice = kind == Kind::Repeatable && !self.is_alone();
            let within = left.map(|left| match is_asked_twice {
                true => (left / 2).max(LEAST_TIME).min(left),
                false => left,
            });
            let sent = send(&node, within);
            let answer = match within {
                None => sent.await,
                Some(within) => match tokio::time::timeout(within, sent).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        self.avoid(&node);
                        if within < left.unwrap_or_default() && self.may_go_on(until, left) {
                            continue;
                        }
                        return Err(Error::Deadline {
                            addr: node.addr().to_owned(),
                            after: within,
                        });
                    }
                },
            };
            if asked.elapsed() >= Duration::from_millis(500) {
                // It was at work, not looking for somebody.
                until = Instant::now() + config.patience;
            }
            let waited = config.patience;
            match answer {
                Ok(answer) => {
                    let mut answer = answer.into_inner();
                    let Some(error) = error_of(&mut answer) else {
                        self.shared.budget.give();
                        return Ok(answer);
                    };
                    if error.stale_command.is_some() && kind == Kind::Once {
                        let text = "leadership changed meanwhile".to_owned();
                        return Err(Error::Open(text));
                    }
                    if self.is_over(until, left) {
                        let reason = error.message;
                        return Err(Error::NoLeader { waited, reason });
                    }
                    if !self.follow(&node, &error).await {
                        self.wait(&mut attempt, left).await;
                    }
                }
                Err(status) => {
                    let step = step(&status, kind);
                    let error = match (step, node.error(&status)) {
                        (_, Error::Deadline { addr, .. }) => {
                            let after = asked.elapsed();
                            return Err(Error::Deadline { addr, after });
                        }
                        // Whatever ended it, the write may be there.
                        (Step::Open, error) if kind == Kind::Once => {
                            return Err(Error::Open(error.to_string()));
                        }
                        (_, error) => error,
                    };
                    let may_go_on = match step {
                        Step::Open | Step::Fail => false,
                        Step::GoOn if matches!(error, Error::WantsTls { .. }) => false,
                        Step::GoOn if self.is_alone() && !was_reached => false,
                        Step::GoOn | Step::Wait => self.may_go_on(until, left),
                    };
                    if !may_go_on {
                        return Err(error);
                    }
                    self.wait(&mut attempt, left).await;
                    if step == Step::GoOn {
                        self.go_on(&node).await;
                    }
                }
            }
        }
    }

    /// Whether the time for looking is over.
    fn is_over(&self, until: Instant, left: Option<Duration>) -> bool {
        Instant::now() >= until || left.is_some_and(|left| left.is_zero())
    }

    fn may_go_on(&self, until: Instant, left: Option<Duration>) -> bool {
        !self.is_over(until, left) && self.shared.budget.take(Instant::now())
    }

    async fn wait(&self, attempt: &mut u32, left: Option<Duration>) {
        let pause = left.map_or(pause(*attempt), |left| pause(*attempt).min(left));
        *attempt += 1;
        tokio::time::sleep(pause).await;
    }

    /// Whether nobody else is known who could be asked.
    fn is_alone(&self) -> bool {
        self.shared.config.endpoints.len() < 2 && self.lock().stores.len() < 2
    }

    /// Goes to the store that an error names; false where it names none that is another.
    async fn follow(&self, from: &Node, error: &errorpb::Error) -> bool {
        if error.region_not_found.is_some() {
            // A store that waits to be added, or that lost its peer: others have the region.
            self.learn(from).await;
            self.go_on(from).await;
            return false;
        }
        let leader = error.not_leader.as_ref().and_then(|error| error.leader);
        let store = leader.map(|Peer { store_id, .. }| store_id);
        let is_unknown = |stores: &BTreeMap<u64, String>| {
            stores.is_empty() || store.is_some_and(|store| !stores.contains_key(&store))
        };
        let learns = is_unknown(&self.lock().stores);
        if learns {
            self.learn(from).await;
        }
        let addr = store.and_then(|store| self.lock().stores.get(&store).cloned());
        match addr {
            Some(addr) if addr != from.addr() => match self.reach(&addr).await {
                Ok(node) => {
                    self.lock().node = Some(node);
                    true
                }
                Err(_) => {
                    self.go_on(from).await;
                    false
                }
            },
            // It leads and does not know it yet, or nobody does.
            _ => false,
        }
    }

    /// Goes to the next known address behind `from` that answers, where nobody has gone on already.
    async fn go_on(&self, from: &Node) {
        let is_here = |node: &Node| node.addr() == from.addr();
        if !self.lock().node.as_ref().is_none_or(is_here) {
            return;
        }
        let known = self.known_behind(Some(from.addr()));
        if let Ok(node) = self.first_of(&known).await {
            self.lock().node = Some(node);
        }
    }

    /// Learns where the stores are.
    async fn learn(&self, node: &Node) {
        let within = Duration::from_secs(2);
        let asking = node.unary("/basaltpb.Admin/Members", MembersRequest {}, Some(within));
        if let Ok(Ok(answer)) = tokio::time::timeout(within, asking).await {
            let stores = members(answer.into_inner()).into_iter();
            self.lock().stores = stores.map(|store| (store.store_id, store.addr)).collect();
        }
    }

    /// The first of some servers that answers.
    async fn first_of(&self, addrs: &[String]) -> Result<Node> {
        let mut failure = Error::Config("no address of a server is given".to_owned());
        for addr in addrs {
            match self.reach(addr).await {
                Ok(node) => return Ok(node),
                Err(error @ Error::Config(_)) => return Err(error),
                Err(Error::Unavailable { reason, .. }) => {
                    // A certificate that is not taken is no dead server.
                    if !matches!(failure, Error::Tls { .. }) {
                        let addrs = addrs.join(", ");
                        failure = Error::Unavailable { addrs, reason };
                    }
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// The connection to a server, a new one where there is none yet.
    async fn reach(&self, addr: &str) -> Result<Node> {
        if let Some(node) = self.lock().nodes.get(addr) {
            return Ok(node.clone());
        }
        let node = Node::connect(addr, &self.shared.config).await?;
        self.lock().nodes.insert(addr.to_owned(), node.clone());
        Ok(node)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of it is one assignment.
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stores that are members.
fn members(answer: MembersResponse) -> Vec<Member> {
    let stores = answer.stores.into_iter().filter(|store| !store.removed);
    let member = |store: basalt_proto::basaltpb::StoreInfo| Member {
        store_id: store.store_id,
        addr: store.address,
    };
    stores.map(member).collect()
}

/// The error that an answer carries in its field, if any.
fn check(error: &str) -> Result<()> {
    match error.is_empty() {
        true => Ok(()),
        false => Err(Error::Store(error.to_owned())),
    }
}
