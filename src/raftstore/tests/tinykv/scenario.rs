//! `Scenario`: TinyKV's `GenericTest`. Clients put and scan for a while, in what the scenario does to them;
//! then every value must be there, once and in order.

use basalt_raftstore::faults::Faults;
use basalt_testkit::{
    Replay, Rng, Seeds,
    history::{Operation, Outcome, Row, Tally},
    long_factor,
};

use super::{
    cluster::{Cluster, ELECTION},
    counts::Counts,
    wish::Wish,
    world::{MILLI, SECOND},
};

/// Seeds of each test.
const RUNS: u64 = 3;

const STORES: usize = 5;
const ITERATIONS: usize = 3;

/// How long clients go on in an iteration.
const PERIOD: u64 = 5 * SECOND;

/// What all clients together pause between two requests, on average: it bounds the work, not the time.
const THINK: u64 = 6 * MILLI;

/// Messages that one of TinyKV's filters drops, and the most that are lost together, per mille.
const DROPPED: u64 = 101;
const MOST_DROPPED: u64 = 600;

/// The parameters of `GenericTest`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scenario {
    pub(crate) clients: u64,
    pub(crate) unreliable: bool,
    pub(crate) restarts: bool,
    pub(crate) partitions: bool,
    pub(crate) gc_limit: Option<u64>,
    /// A rule that the stores break.
    pub(crate) faults: Faults,
}

/// A client: what it has put, in order, and what it waits for.
struct Client {
    id: u64,
    put: Vec<Row>,
    wish: Option<Wish>,
    rests_until: u64,
}

fn key(client: u64, number: usize) -> String {
    format!("{client} {number:08}")
}

/// All keys of a client are in this range.
fn bounds(client: u64) -> (String, String) {
    (key(client, 0), key(client, 99_999_999))
}

/// A scan finds every value, once and in order.
fn is_all(client: u64, found: &[Row], put: &[Row]) {
    let difference = found.iter().zip(put).position(|(found, put)| found != put);
    let first = difference.unwrap_or_else(|| found.len().min(put.len()));
    let text = |rows: &[Row]| {
        let row = rows.get(first);
        row.map(|(key, value)| (text(key), text(value)))
    };
    assert!(
        found == put,
        "client {client} has put {} values and finds {}; the first difference: {:?}, not {:?}",
        put.len(),
        found.len(),
        text(found),
        text(put)
    );
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn concatenated(rows: &[Row]) -> String {
    rows.iter().map(|(_, value)| text(value)).collect()
}

impl Client {
    /// What it asks for next.
    fn draw(&self, rng: &mut Rng) -> Operation {
        if rng.one_in(2) {
            let number = self.put.len();
            let value = format!("x {} {number} y", self.id);
            Operation::put(key(self.id, number), value)
        } else {
            let (start, end) = bounds(self.id);
            Operation::scan(start, end, usize::MAX)
        }
    }

    /// A wish has come true.
    fn see(&mut self, operation: Operation, outcome: Outcome) {
        match (operation, outcome) {
            (Operation::Put { key, value }, Outcome::Written) => self.put.push((key, value)),
            (Operation::Scan { .. }, Outcome::Rows(rows)) => {
                if concatenated(&rows) != concatenated(&self.put) {
                    is_all(self.id, &rows, &self.put);
                    panic!("client {}: rows of another make", self.id);
                }
            }
            (operation, outcome) => panic!("{operation} ends with {outcome:?}"),
        }
    }
}

/// What the network does to a scenario's messages.
struct Weather {
    next: u64,
    filters: u32,
}

impl Scenario {
    fn is_chaos(&self) -> bool {
        self.unreliable || self.partitions
    }

    /// A new filter, a new partition, every 500 to 700 ms.
    fn change_weather(&self, cluster: &mut Cluster, weather: &mut Weather) {
        if self.partitions {
            cluster.heal();
            weather.filters = 0;
            let (one, other): (Vec<usize>, Vec<usize>) =
                (0..STORES).partition(|_| cluster.rng.one_in(2));
            cluster.part(&one, &other);
        }
        if self.unreliable {
            weather.filters += 1;
            let kept = (0..weather.filters).fold(1_000, |kept, _| kept * (1_000 - DROPPED) / 1_000);
            cluster.world.network.lost = (1_000 - kept).min(MOST_DROPPED);
        }
        weather.next = cluster.world.now + ELECTION + cluster.rng.below(200 * MILLI);
    }

    /// Clients go on for a while, and then end what they have begun.
    fn clients_act(&self, cluster: &mut Cluster) -> Vec<Client> {
        let began = cluster.world.now;
        let mut clients: Vec<Client> = (0..self.clients)
            .map(|id| Client {
                id,
                put: Vec::new(),
                wish: None,
                rests_until: began,
            })
            .collect();
        let mut weather = Weather {
            next: began + ELECTION,
            filters: 0,
        };
        let end = began + PERIOD;
        let mut healed = false;
        loop {
            let now = cluster.world.now;
            if self.is_chaos() && now < end && weather.next <= now {
                self.change_weather(cluster, &mut weather);
            }
            if now >= end && !healed {
                cluster.heal();
                healed = true;
            }
            for client in &mut clients {
                if client.wish.is_none() && now < end && client.rests_until <= now {
                    let operation = client.draw(&mut cluster.rng);
                    client.wish = Some(cluster.wish(client.id, "default", operation));
                }
                if let Some(wish) = &mut client.wish
                    && let Some(outcome) = cluster.pursue(wish)
                {
                    let operation = wish.operation.clone();
                    client.wish = None;
                    client.see(operation, outcome);
                    client.rests_until = now + cluster.rng.below(2 * THINK * self.clients);
                }
            }
            if healed && clients.iter().all(|client| client.wish.is_none()) {
                break;
            }
            cluster.step();
        }
        let waited = cluster.world.now - end;
        if self.is_chaos() && waited < ELECTION {
            cluster.pass(ELECTION - waited);
        }
        clients
    }

    /// One run.
    pub(crate) fn run(&self, seed: u64) -> (Counts, Tally) {
        let mut cluster = Cluster::start(seed, STORES, self.gc_limit, self.faults);
        for _ in 0..ITERATIONS {
            let clients = self.clients_act(&mut cluster);
            if self.restarts {
                cluster.restart_all();
            }
            for client in clients {
                let (start, end) = bounds(client.id);
                let found = cluster.scan(&start, &end);
                is_all(client.id, &found, &client.put);
                for (key, _) in &client.put {
                    cluster.delete("default", key);
                }
            }
            if let Some(limit) = self.gc_limit {
                cluster.pass(SECOND);
                cluster.logs_are_short(limit);
            }
        }
        cluster.end();
        (cluster.world.counts, cluster.asked.history.tally())
    }

    /// The scenario holds with several seeds, and what it is about has happened.
    pub(crate) fn holds(&self, test: &str) {
        let mut snapshots = 0;
        let seeds = Seeds::new(test, RUNS * long_factor());
        let is_replay = seeds.is_replay();
        for seed in seeds {
            let _replay = Replay::new("-p basalt-raftstore --test tinykv", test, seed);
            let began = std::time::Instant::now();
            let (counts, tally) = self.run(seed);
            println!(
                "{tally:?}, {} messages, {} lost, {} partitions, {} terms, {} starts, \
                 {} snapshots, {:?}",
                counts.messages,
                counts.lost,
                counts.partitions,
                counts.terms,
                counts.starts,
                counts.snapshots_sent,
                began.elapsed()
            );
            assert!(tally.written > 300 && tally.read > 150, "{tally:?}");
            assert_eq!(counts.lost > 0, self.is_chaos(), "{} lost", counts.lost);
            let starts = STORES * (1 + ITERATIONS * usize::from(self.restarts));
            assert_eq!(counts.starts, starts as u64);
            let partitions = if self.partitions { 18 } else { 0 };
            assert!(counts.partitions >= partitions, "{}", counts.partitions);
            snapshots += counts.snapshots_sent;
        }
        if self.partitions && self.gc_limit.is_some() && !is_replay {
            assert!(snapshots > 0, "nobody needed a snapshot");
        }
    }
}
