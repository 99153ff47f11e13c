//! One engine at one workload: rounds in slices of a few milliseconds, so that engines can take turns
//! and whatever disturbs the machine hits all of them.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::{
    allocations,
    cluster::{Cluster, Node},
    state_machine::{Hashing, StateMachine},
};

/// What is proposed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Bytes of a proposal.
    pub payload: usize,
    /// Proposals a round.
    pub per_round: u64,
}

/// What some rounds took, a proposal: all three nodes and the driver together.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    pub wall: f64,
    /// Of this thread.
    pub cpu: f64,
}

/// Per proposal.
#[derive(Clone, Copy, Debug)]
pub struct Allocations {
    pub calls: f64,
    pub bytes: f64,
}

/// An engine at a workload.
pub trait Bench {
    fn name(&self) -> &'static str;

    /// Seconds a proposal, over `rounds` rounds.
    fn slice(&mut self, rounds: u64) -> Cost;

    /// Allocations over `rounds` rounds.
    fn count(&mut self, rounds: u64) -> Allocations;

    /// The state of the nodes, which all of them share: applied proposals and their hash.
    fn state(&mut self) -> StateMachine;
}

struct Engine<N: Node> {
    cluster: Cluster<N>,
    workload: Workload,
    template: Vec<u8>,
    /// Made so far.
    proposals: u64,
}

/// A fresh cluster of engine `N`; `hashing` says how thoroughly the nodes are compared.
pub fn engine<N: Node + 'static>(workload: Workload, hashing: Hashing) -> Box<dyn Bench> {
    let mut cluster = Cluster::<N>::new();
    for state_machine in cluster.state_machines() {
        state_machine.set_hashing(hashing);
    }
    // No payload compresses to another by chance: 251 is prime, and no size is a multiple of it.
    let bytes = (0..251_u8).cycle();
    Box::new(Engine {
        cluster,
        workload,
        template: bytes.take(workload.payload).collect(),
        proposals: 0,
    })
}

impl<N: Node> Engine<N> {
    fn round(&mut self) {
        let (template, proposals) = (&self.template, &mut self.proposals);
        self.cluster.round((0..self.workload.per_round).map(|_| {
            let mut payload = template.clone();
            payload[..8].copy_from_slice(&proposals.to_le_bytes());
            *proposals += 1;
            payload
        }));
    }

    fn rounds(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.round();
        }
    }
}

impl<N: Node> Bench for Engine<N> {
    fn name(&self) -> &'static str {
        N::NAME
    }

    fn slice(&mut self, rounds: u64) -> Cost {
        let proposals = (rounds * self.workload.per_round) as f64;
        let (start, cpu) = (Instant::now(), cpu_time());
        self.rounds(rounds);
        let (wall, cpu) = (start.elapsed(), cpu_time() - cpu);
        Cost {
            wall: wall.as_secs_f64() / proposals,
            cpu: cpu.as_secs_f64() / proposals,
        }
    }

    fn count(&mut self, rounds: u64) -> Allocations {
        let proposals = (rounds * self.workload.per_round) as f64;
        let (calls, bytes) = allocations::during(|| self.rounds(rounds));
        Allocations {
            calls: calls as f64 / proposals,
            bytes: bytes as f64 / proposals,
        }
    }

    fn state(&mut self) -> StateMachine {
        let [one, two, three] = self.cluster.state_machines();
        assert_eq!(one, two, "{}: nodes 1 and 2", N::NAME);
        assert_eq!(one, three, "{}: nodes 1 and 3", N::NAME);
        assert_eq!(one.proposals(), self.proposals, "{}: applied", N::NAME);
        one.clone()
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).expect("time since the thread began");
    let nanos = u32::try_from(time.tv_nsec).expect("less than a second");
    Duration::new(seconds, nanos)
}
