//! `Wish`: something that a client wants done, asked for again until it is, as TinyKV's test client does.
//! Each attempt is an operation of the history.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use basalt_proto::raft_cmdpb::{CmdType, DeleteRequest, PutRequest, RaftCmdRequest, Request};
use basalt_raftstore::{Callback, CommandError, RegionSnapshot, Target};
use basalt_testkit::history::{History, Operation, OperationId, Outcome, Row};
use bytes::Bytes;

use super::{
    cluster::{Cluster, sound},
    world::{MILLI, SECOND},
};

/// How long one attempt waits, by the store's clock.
const TIMEOUT: Duration = Duration::from_secs(1);

/// The same by the world's, with what clocks differ and a pause of the store loop.
const LATE: u64 = 2 * SECOND;

/// How long a wish may take, whatever happens.
const PATIENCE: u64 = 10 * SECOND;

/// Who asks one store once.
const OTHER: u64 = 1_001;

type Answers = Arc<Mutex<Vec<(OperationId, Result<Outcome, CommandError>)>>>;

/// What clients have asked for and seen.
#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) history: History,
    answers: Answers,
    done: HashMap<OperationId, Result<Outcome, CommandError>>,
    /// Which store each client takes for the leader's.
    leaders: HashMap<u64, usize>,
}

/// What a wish waits for.
enum Waits {
    For(OperationId),
    /// Its next attempt.
    Until(u64),
}

/// Something that a client wants.
pub(crate) struct Wish {
    client: u64,
    family: &'static str,
    pub(crate) operation: Operation,
    since: u64,
    attempts: u32,
    waits: Waits,
}

/// A write of one key.
fn write(family: &str, operation: &Operation) -> RaftCmdRequest {
    let cf = family.to_owned();
    let request = match operation.clone() {
        Operation::Put { key, value } => Request {
            cmd_type: CmdType::Put.into(),
            put: Some(PutRequest {
                cf,
                key: key.into(),
                value: value.into(),
            }),
            ..Request::default()
        },
        Operation::Delete { key } => Request {
            cmd_type: CmdType::Delete.into(),
            delete: Some(DeleteRequest {
                cf,
                key: key.into(),
            }),
            ..Request::default()
        },
        Operation::Get { .. } | Operation::Scan { .. } => Request::default(),
    };
    RaftCmdRequest {
        requests: vec![request],
        ..RaftCmdRequest::default()
    }
}

/// What a view of the region says.
fn read(
    family: &str,
    operation: &Operation,
    view: &RegionSnapshot,
) -> Result<Outcome, CommandError> {
    match operation {
        Operation::Scan { start, end, limit } => {
            let failed = |error: basalt_engine::Error| CommandError::Fenced(error.to_string());
            let mut rows: Vec<Row> = Vec::new();
            for row in view.range(family, start)?.take(*limit) {
                let (key, value) = row.map_err(failed)?;
                if end.as_ref().is_some_and(|end| key[..] >= end[..]) {
                    break;
                }
                rows.push((key.to_vec(), value.to_vec()));
            }
            Ok(Outcome::Rows(rows))
        }
        Operation::Get { key } => {
            let value = view.get(family, key)?;
            Ok(Outcome::Value(value.map(|value| value.to_vec())))
        }
        Operation::Put { .. } | Operation::Delete { .. } => Ok(Outcome::Written),
    }
}

impl Cluster {
    pub(crate) fn wish(&self, client: u64, family: &'static str, operation: Operation) -> Wish {
        Wish {
            client,
            family,
            operation,
            since: self.world.now,
            attempts: 0,
            waits: Waits::Until(self.world.now),
        }
    }

    /// Goes on with a wish; what came of it once it is done.
    pub(crate) fn pursue(&mut self, wish: &mut Wish) -> Option<Outcome> {
        let now = self.world.now;
        assert!(
            now < wish.since + PATIENCE,
            "request timeout: client {}, {}, {} attempts",
            wish.client,
            wish.operation,
            wish.attempts
        );
        match wish.waits {
            Waits::Until(then) if then <= now => {
                self.attempt(wish);
                None
            }
            Waits::Until(_) => None,
            Waits::For(id) => match self.asked.done.remove(&id) {
                None => {
                    let record = self.asked.history.record(id);
                    assert!(now < record.invoked + LATE, "{record} was never answered");
                    None
                }
                Some(Ok(outcome)) => Some(outcome),
                Some(Err(error)) => {
                    wish.waits = Waits::Until(now + self.learn(wish.client, &error));
                    None
                }
            },
        }
    }

    /// One store is asked, once; what it answers.
    pub(crate) fn ask_at(
        &mut self,
        n: usize,
        family: &'static str,
        operation: Operation,
    ) -> Result<Outcome, CommandError> {
        self.asked.leaders.insert(OTHER, n);
        let mut wish = self.wish(OTHER, family, operation);
        self.attempt(&mut wish);
        let Waits::For(id) = wish.waits else {
            panic!("store {} is off", n + 1);
        };
        let until = self.world.now + LATE;
        loop {
            self.step();
            if let Some(answer) = self.asked.done.remove(&id) {
                return answer;
            }
            assert!(self.world.now < until, "{} has no answer", wish.operation);
        }
    }

    /// Where to ask next, and in how long.
    fn learn(&mut self, client: u64, error: &CommandError) -> u64 {
        let known = match error {
            CommandError::NotLeader { leader, .. } => {
                leader.and_then(|peer| usize::try_from(peer.store_id).ok())
            }
            _ => None,
        };
        let next = known.map_or_else(|| self.rng.index(self.world.nodes.len()), |id| id - 1);
        self.asked.leaders.insert(client, next);
        match error {
            CommandError::NotLeader { .. } if known.is_some() => MILLI,
            CommandError::NotLeader { .. }
            | CommandError::StaleCommand
            | CommandError::DeadlineExceeded => 20 * MILLI,
            _ => 100 * MILLI,
        }
    }

    fn attempt(&mut self, wish: &mut Wish) {
        let n = *self.asked.leaders.entry(wish.client).or_default();
        wish.attempts += 1;
        let Some(running) = &self.world.nodes[n].running else {
            let error = CommandError::Fenced("it is off".to_owned());
            wish.waits = Waits::Until(self.world.now + self.learn(wish.client, &error));
            return;
        };
        let (family, operation) = (wish.family, wish.operation.clone());
        let now = self.world.now;
        let id = self
            .asked
            .history
            .invoke(wish.client, now, operation.clone());
        let answers = Arc::clone(&self.asked.answers);
        let put = move |answer| {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push((id, answer));
        };
        let handle = running.handle.clone();
        if operation.is_write() {
            let request = write(family, &operation);
            let tell = Callback::new(move |answer: Result<_, _>| {
                put(answer.map(|_| Outcome::Written));
            });
            handle.propose(request, TIMEOUT, tell);
        } else {
            let key = match &operation {
                Operation::Get { key } | Operation::Scan { start: key, .. } => key.clone(),
                Operation::Put { .. } | Operation::Delete { .. } => Vec::new(),
            };
            let tell = Callback::new(move |answer: Result<RegionSnapshot, _>| {
                put(answer.and_then(|view| read(family, &operation, &view)));
            });
            handle.read(Target::Key(Bytes::from(key)), TIMEOUT, tell);
        }
        wish.waits = Waits::For(id);
        sound(self.world.wake(n));
    }

    /// Writes down what was answered since.
    pub(crate) fn take_answers(&mut self) {
        let answers = {
            let mut answers = self.asked.answers.lock();
            let answers = answers.as_deref_mut();
            answers.map(std::mem::take).unwrap_or_default()
        };
        for (id, answer) in answers {
            let outcome = match &answer {
                Ok(outcome) => outcome.clone(),
                Err(CommandError::StaleCommand | CommandError::DeadlineExceeded) => {
                    Outcome::Unknown
                }
                Err(_) => Outcome::Failed,
            };
            let now = self.world.now;
            self.asked.history.complete(id, now, outcome);
            self.asked.done.insert(id, answer);
        }
    }
}
