//! Clients: each asks for one thing at a time, of the store that it takes for the leader's, and writes down
//! what it is told.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use basalt_engine::PinnedSlice;
use basalt_proto::raft_cmdpb::{
    CmdType, DeleteRequest, PutRequest, RaftCmdRequest, RaftCmdResponse, Request,
};
use basalt_raftstore::{Callback, CommandError, RegionSnapshot, Target};
use basalt_testkit::history::{History, Operation, OperationId, Outcome};
use bytes::Bytes;

use super::{
    invariants::{Invariant, Violation},
    world::{Check, Event, MILLI, SECOND, World},
};

/// Families that clients use: which one follows from the key.
const FAMILIES: [&str; 3] = ["default", "write", "lock"];

/// What a store answered.
enum Answer {
    Written(Box<Result<RaftCmdResponse, CommandError>>),
    Read(Result<RegionSnapshot, CommandError>),
    Got(Result<Option<PinnedSlice>, CommandError>),
}

type Answers = Arc<Mutex<Vec<(OperationId, Answer)>>>;

/// An operation on its way.
struct Asked {
    client: usize,
    store: usize,
    life: u32,
    deadline: u64,
}

pub(crate) struct Clients {
    /// Which store each takes for the leader's.
    leaders: Vec<usize>,
    answers: Answers,
    asked: HashMap<OperationId, Asked>,
    values: u64,
    pub(crate) history: History,
    /// The time of keys: they are others every few seconds, so that the history of each stays short.
    era: u64,
}

impl Clients {
    pub(crate) fn new(count: usize) -> Self {
        Self {
            leaders: vec![0; count],
            answers: Answers::default(),
            asked: HashMap::new(),
            values: 0,
            history: History::new(),
            era: 0,
        }
    }
}

fn family_of(key: &[u8]) -> &'static str {
    FAMILIES[usize::from(*key.last().unwrap_or(&0)) % 3]
}

/// A write of one key.
pub(crate) fn write(operation: &Operation) -> RaftCmdRequest {
    let request = match operation {
        Operation::Put { key, value } => Request {
            cmd_type: CmdType::Put.into(),
            put: Some(PutRequest {
                cf: family_of(key).to_owned(),
                key: key.clone().into(),
                value: value.clone().into(),
            }),
            ..Request::default()
        },
        Operation::Delete { key } => Request {
            cmd_type: CmdType::Delete.into(),
            delete: Some(DeleteRequest {
                cf: family_of(key).to_owned(),
                key: key.clone().into(),
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

/// What a client learns from an error.
fn outcome_of(error: &CommandError) -> Outcome {
    match error {
        CommandError::StaleCommand | CommandError::DeadlineExceeded => Outcome::Unknown,
        _ => Outcome::Failed,
    }
}

impl World {
    /// A client asks for something.
    pub(crate) fn client_acts(&mut self, client: usize) -> Check {
        if self.kind && self.now > self.oracle.kind_since + 10 * SECOND {
            return Ok(()); // So that all can come to have the same.
        }
        let era = self.now / (10 * SECOND);
        self.clients.era = era;
        let key = format!("{era}-{}", self.rng.below(self.plan.keys)).into_bytes();
        let operation = match self.rng.below(20) {
            0..9 => {
                self.clients.values += 1;
                Operation::put(key, format!("v{}", self.clients.values))
            }
            9..11 => Operation::delete(key),
            _ => Operation::get(key),
        };
        // They do not only ask whom they take for the leader: so one that was deposed is asked, too.
        if self.rng.one_in(4) {
            self.clients.leaders[client] = self.rng.index(self.nodes.len());
        }
        let mut n = self.clients.leaders[client];
        let is_paused = |n: usize| self.nodes[n].paused_until > self.now;
        if matches!(operation, Operation::Get { .. }) && self.rng.one_in(2) {
            // Of one whose loops stand still while another leads.
            n = (0..self.nodes.len()).find(|n| is_paused(*n)).unwrap_or(n);
        }
        let stands_still = is_paused(n);
        let Some(running) = &self.nodes[n].running else {
            self.client_goes_on(client, None);
            return Ok(());
        };
        let handle = running.handle.clone();
        let timeout = self.plan.config.request_timeout;
        let history = &mut self.clients.history;
        let id = history.invoke(client as u64, self.now, operation.clone());
        let answers = Arc::clone(&self.clients.answers);
        let put = move |answer| {
            let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.push((id, answer));
        };
        // Clocks run up to a fiftieth apart.
        let wait = timeout.as_nanos() / 50 * 52 + u128::from(SECOND);
        self.clients.asked.insert(
            id,
            Asked {
                client,
                store: n,
                life: self.nodes[n].life,
                deadline: self.now + u64::try_from(wait).unwrap_or(u64::MAX),
            },
        );
        if let Operation::Get { key } = &operation {
            let target = Target::Key(Bytes::copy_from_slice(key));
            // Two of three first look whether the store need be asked at all; also where its loops stand still,
            // for they need not be the only threads.
            let at_once = match self.rng.below(if stands_still { 2 } else { 3 }) {
                0 => handle
                    .try_get(&target, family_of(key), key)
                    .map(Answer::Got),
                1 => handle.try_read(&target).map(|view| Answer::Read(Ok(view))),
                _ => None,
            };
            if let Some(answer) = at_once {
                self.counts.read_at_once += 1;
                put(answer);
                return self.take_answers();
            }
            let callback = Callback::new(move |answer| put(Answer::Read(answer)));
            handle.read(target, timeout, callback);
        } else {
            let callback = Callback::new(move |answer| put(Answer::Written(Box::new(answer))));
            handle.propose(write(&operation), timeout, callback);
        }
        self.wake(n)
    }

    /// What a store has answered since the last look was never heard.
    pub(crate) fn forget_answers(&mut self, n: usize) {
        let answers = self.clients.answers.lock();
        let mut answers = answers.unwrap_or_else(PoisonError::into_inner);
        for (id, answer) in &mut *answers {
            if self
                .clients
                .asked
                .get(id)
                .is_some_and(|asked| asked.store == n)
            {
                *answer = Answer::Written(Box::new(Err(CommandError::StaleCommand)));
            }
        }
    }

    fn client_goes_on(&mut self, client: usize, leader: Option<u64>) {
        let stores = self.nodes.len();
        self.clients.leaders[client] = match leader {
            Some(store_id) => usize::try_from(store_id).unwrap_or(1) - 1,
            None => self.rng.index(stores),
        };
        let delay = match leader {
            Some(_) => MILLI,
            None => self.up_to(50 * MILLI),
        };
        self.after(delay, Event::Client(client));
    }

    /// Writes down what was answered since.
    pub(crate) fn take_answers(&mut self) -> Check {
        let answers = {
            let mut answers = self.clients.answers.lock();
            let answers = answers.as_deref_mut();
            answers.map(std::mem::take).unwrap_or_default()
        };
        for (id, answer) in answers {
            let Some(Asked { client, .. }) = self.clients.asked.remove(&id) else {
                return Err(Violation::new(
                    Invariant::AnsweredOnce,
                    format!("{} is answered twice", self.clients.history.record(id)),
                ));
            };
            let (outcome, error) = self.outcome(id, answer);
            self.counts.count(&outcome);
            let code = match outcome {
                Outcome::Failed => 30,
                Outcome::Unknown => 31,
                _ => 32,
            };
            let record = self.clients.history.record(id).to_string();
            self.note(client, code, || {
                format!("client: {record}: {outcome:?} {error:?}")
            });
            self.clients.history.complete(id, self.now, outcome);
            match error {
                Some(CommandError::NotLeader { leader, .. }) => {
                    self.client_goes_on(client, leader.map(|leader| leader.store_id));
                }
                Some(_) => self.client_goes_on(client, None),
                None => {
                    let delay = self.up_to(self.plan.think);
                    self.after(delay, Event::Client(client));
                }
            }
        }
        Ok(())
    }

    fn outcome(&self, id: OperationId, answer: Answer) -> (Outcome, Option<CommandError>) {
        match answer {
            Answer::Written(answer) => match *answer {
                Ok(_) => (Outcome::Written, None),
                Err(error) => (outcome_of(&error), Some(error)),
            },
            Answer::Read(Err(error)) | Answer::Got(Err(error)) => (outcome_of(&error), Some(error)),
            Answer::Got(Ok(value)) => (Outcome::Value(value.map(|value| value.to_vec())), None),
            Answer::Read(Ok(view)) => {
                let Operation::Get { key } = &self.clients.history.record(id).operation else {
                    return (Outcome::Unknown, None);
                };
                match view.get(family_of(key), key) {
                    Ok(value) => (Outcome::Value(value.map(|value| value.to_vec())), None),
                    Err(error) => (outcome_of(&error), Some(error)),
                }
            }
        }
    }

    /// Nobody may wait for long behind its deadline, at a store that lives.
    pub(crate) fn nobody_hangs(&mut self) -> Check {
        let mut gone = Vec::new();
        for (id, asked) in &self.clients.asked {
            let node = &self.nodes[asked.store];
            if node.life != asked.life || node.running.is_none() {
                gone.push(*id);
            } else if asked.deadline < self.now && node.paused_until + SECOND < self.now {
                return Err(Violation::new(
                    Invariant::AnsweredOnce,
                    format!("{} was never answered", self.clients.history.record(*id)),
                ));
            }
        }
        if let Some(id) = gone.first() {
            return Err(Violation::new(
                Invariant::AnsweredOnce,
                format!(
                    "{} was not answered when its store ended",
                    self.clients.history.record(*id)
                ),
            ));
        }
        Ok(())
    }

    /// How long a request may take, by any clock.
    pub(crate) fn patience(&self) -> Duration {
        self.plan.config.request_timeout
    }
}

impl super::counts::Counts {
    fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Written => self.written += 1,
            Outcome::Value(_) | Outcome::Rows(_) => self.read += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Unknown => self.unknown += 1,
        }
    }
}
