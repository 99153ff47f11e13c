//! What must hold: at each look, and when everything is over.

use std::{collections::HashMap, fmt};

use basalt_engine::ReadOptions;
use basalt_proto::raft_serverpb::{PeerState, RaftMessage};
use basalt_raft::eraftpb::MessageType;
use basalt_raftstore::{RegionStatus, StoreStatus, states};
use basalt_testkit::history::{Limits, Verdict, check};

use super::world::{Check, Event, MILLI, SECOND, World};

/// A property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Invariant {
    /// At most one store leads in a term.
    OneLeader,
    /// purged <= truncated <= applied <= committed <= last.
    Order,
    /// What clients saw has an explanation.
    Linearizable,
    /// Each request is answered once, in time.
    AnsweredOnce,
    /// A store stops serving only for a reason.
    NoFence,
    /// A store can be started with what a crash has left.
    Restarts,
    /// What a store says, its disk knows.
    DurableBeforeSent,
    /// When nothing goes wrong any more, everybody comes to have the same.
    Converges,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OneLeader => "one leader a term",
            Self::Order => "purged, truncated, applied, committed, last",
            Self::Linearizable => "linearizable history",
            Self::AnsweredOnce => "answered once and in time",
            Self::NoFence => "no store stops by itself",
            Self::Restarts => "a crashed store starts again",
            Self::DurableBeforeSent => "durable before it is said",
            Self::Converges => "convergence",
        })
    }
}

/// A property that does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) invariant: Invariant,
    pub(crate) what: String,
}

impl Violation {
    pub(crate) fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self {
            invariant,
            what: what.into(),
        }
    }
}

/// What is known of a run.
#[derive(Debug, Default)]
pub(crate) struct Oracle {
    /// Who led in each term.
    leaders: HashMap<u64, usize>,
    /// Since when everything was kind.
    pub(crate) kind_since: u64,
}

/// Family, key and value.
type Row = (usize, Vec<u8>, Vec<u8>);

/// How long everybody may take to come to have the same, when nothing goes wrong.
const PATIENCE: u64 = 60 * SECOND;

impl Oracle {
    pub(crate) fn cannot_start(&self, n: usize, why: &str) -> Check {
        let what = format!("store {} does not start: {why}", n + 1);
        Err(Violation::new(Invariant::Restarts, what))
    }

    pub(crate) fn terms(&self) -> u64 {
        self.leaders.len() as u64
    }
}

impl World {
    /// Looks at all stores.
    pub(crate) fn look(&mut self) -> Check {
        self.nobody_hangs()?;
        let statuses: Vec<(usize, StoreStatus)> = self.statuses();
        for (n, status) in &statuses {
            for region in &status.regions {
                self.in_order(*n, region)?;
                if region.role == "leader" {
                    let leader = *self.oracle.leaders.entry(region.term).or_insert(*n);
                    if leader != *n {
                        let what = format!(
                            "stores {} and {} lead in term {}",
                            leader + 1,
                            n + 1,
                            region.term
                        );
                        return Err(Violation::new(Invariant::OneLeader, what));
                    }
                }
            }
        }
        if self.kind {
            self.look_whether_rested(&statuses)?;
        }
        let delay = if self.kind { 200 * MILLI } else { 50 * MILLI };
        self.after(delay, Event::Look);
        Ok(())
    }

    /// A message leaves a store: its term is durable, and what it acknowledges is. (raftdb shows what is
    /// durable, for all that a store writes there is synced.)
    pub(crate) fn may_be_said(&self, n: usize, message: &RaftMessage) -> Check {
        let (Some(running), Some(m)) = (&self.nodes[n].running, &message.message) else {
            return Ok(());
        };
        let kind = m.msg_type();
        let of_no_term = matches!(kind, MessageType::MsgPreVote | MessageType::MsgPreVoteResp);
        if of_no_term || m.term == 0 {
            return Ok(());
        }
        let state = states::raft_state(&running.engines, message.region_id)
            .ok()
            .flatten();
        // Where the peer is no more, a refusal tells what it had applied, and promises nothing.
        let region = states::region_state(&running.engines, message.region_id);
        let region = region.ok().flatten();
        if m.reject && region.is_some_and(|region| region.state() == PeerState::Tombstone) {
            return Ok(());
        }
        let state = state.unwrap_or_default();
        let durable = state.hard_state.unwrap_or_default();
        let acknowledges = kind == MessageType::MsgAppendResponse && !m.reject;
        // A later term may have cut what it speaks of.
        let has = !acknowledges || durable.term > m.term || m.index <= state.last_index;
        if durable.term >= m.term && has {
            return Ok(());
        }
        let what = format!("store {} says {m:?}, durable is {state:?}", n + 1);
        Err(Violation::new(Invariant::DurableBeforeSent, what))
    }

    pub(crate) fn statuses(&self) -> Vec<(usize, StoreStatus)> {
        let nodes = self.nodes.iter().enumerate();
        let running = nodes.filter_map(|(n, node)| Some((n, node.running.as_ref()?)));
        running
            .map(|(n, running)| (n, running.store.status()))
            .collect()
    }

    fn in_order(&mut self, n: usize, region: &RegionStatus) -> Check {
        let steps = [
            region.flushed_truncated,
            region.truncated,
            region.applied,
            region.committed,
            region.last_index,
        ];
        // While a snapshot is being installed, the log is ahead of the data.
        let installs = region.reasons.iter().any(|why| why.contains("installed"));
        if installs || steps.is_sorted() {
            return Ok(());
        }
        let what = format!("store {}: {steps:?}", n + 1);
        Err(Violation::new(Invariant::Order, what))
    }

    /// A store has stopped serving: only a disk that was made to fail is a reason.
    pub(crate) fn on_fence(&mut self, n: usize, why: String) -> Check {
        if !self.nodes[n].disk_fails {
            let what = format!("store {} stops serving: {why}", n + 1);
            return Err(Violation::new(Invariant::NoFence, what));
        }
        self.counts.fenced += 1;
        self.note(n, 40, || format!("stops serving: {why}"));
        self.crash(n);
        Ok(())
    }

    fn look_whether_rested(&mut self, statuses: &[(usize, StoreStatus)]) -> Check {
        let Some(why) = self.restless(statuses) else {
            self.rested = true;
            return Ok(());
        };
        if self.now > self.oracle.kind_since + PATIENCE {
            let what = format!("{why}\n{statuses:#?}");
            return Err(Violation::new(Invariant::Converges, what));
        }
        Ok(())
    }

    fn restless(&self, statuses: &[(usize, StoreStatus)]) -> Option<String> {
        let regions = || {
            statuses
                .iter()
                .flat_map(|(n, s)| s.regions.iter().map(move |r| (*n, r)))
        };
        let Some((leader, led)) = regions()
            .filter(|(_, region)| region.role == "leader")
            .max_by_key(|(_, region)| region.term)
        else {
            return Some("nobody leads".to_owned());
        };
        if led.applied < led.last_index {
            return Some("the leader has not applied everything".to_owned());
        }
        let data = self.data_of(leader);
        for peer in &led.region.peers {
            let place = usize::try_from(peer.store_id).unwrap_or(1) - 1;
            let found = regions().find(|(n, region)| *n == place && region.peer.id == peer.id);
            let Some((n, region)) = found else {
                return Some(format!("peer {} is not there", peer.id));
            };
            if region.applied != led.applied || region.region != led.region {
                return Some(format!("peer {} is behind", peer.id));
            }
            if self.data_of(n) != data {
                return Some(format!("the data of peer {} differs", peer.id));
            }
        }
        for (_, region) in regions() {
            if !led
                .region
                .peers
                .iter()
                .any(|peer| peer.id == region.peer.id)
            {
                return Some(format!("peer {} was removed and is there", region.peer.id));
            }
        }
        None
    }

    /// Everything that users have written, as a store has it.
    fn data_of(&self, n: usize) -> Option<Vec<Row>> {
        let engines = &self.nodes[n].running.as_ref()?.engines;
        let mut rows = Vec::new();
        for (place, family) in engines.data.iter().enumerate() {
            for row in engines.kv.range(family, &ReadOptions::default()).ok()? {
                let (key, value) = row.ok()?;
                rows.push((place, key.to_vec(), value.to_vec()));
            }
        }
        Some(rows)
    }

    /// Whether what clients saw can be explained.
    pub(crate) fn check_history(&self) -> Check {
        match check(&self.clients.history, Limits::default()) {
            Verdict::Linearizable => Ok(()),
            verdict => Err(Violation::new(Invariant::Linearizable, verdict.to_string())),
        }
    }
}
