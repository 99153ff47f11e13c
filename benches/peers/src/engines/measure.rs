//! What a workload took: time by time of operations, bytes written, memory of the process.

use std::{
    fs,
    time::{Duration, Instant},
};

/// Buckets for each doubling of a time.
const FINE: usize = 32;

/// How many operations took how long, to 3 %.
#[derive(Clone)]
pub struct Times {
    counts: Vec<u64>,
    total: u64,
}

impl Times {
    pub fn new() -> Self {
        Self {
            counts: vec![0; 64 * FINE],
            total: 0,
        }
    }

    pub fn add(&mut self, time: Duration) {
        let nanos = (time.as_nanos() as u64).max(1);
        let top = nanos.ilog2() as usize;
        let below = nanos - (1 << top);
        let fine = (u128::from(below) * FINE as u128) >> top;
        self.counts[top * FINE + fine as usize] += 1;
        self.total += 1;
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, more) in self.counts.iter_mut().zip(&other.counts) {
            *mine += more;
        }
        self.total += other.total;
    }

    /// Microseconds that a share of the operations took at most; not a number where there was none.
    pub fn micros(&self, share: f64) -> f64 {
        let wanted = (self.total as f64 * share) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if *count > 0 && seen > wanted {
                let (top, fine) = (at / FINE, at % FINE);
                let nanos = (1_u128 << top) as f64 * (1.0 + (fine as f64 + 0.5) / FINE as f64);
                return nanos / 1000.0;
            }
        }
        f64::NAN
    }
}

/// One figure of one engine in one round, as a child tells it.
#[derive(Clone, Debug)]
pub struct Figure {
    pub row: String,
    /// What the row is about, in the row's unit.
    pub value: f64,
    pub median: f64,
    pub high: f64,
    /// Bytes written for each byte of keys and values; not a number where nothing was to be written.
    pub written: f64,
    /// Memory of the process's own, and mapped pages of files, in MiB.
    pub own: f64,
    pub mapped: f64,
}

impl Figure {
    pub fn new(row: &str, value: f64) -> Self {
        let (own, mapped) = memory();
        Self {
            row: row.to_owned(),
            value,
            median: f64::NAN,
            high: f64::NAN,
            written: f64::NAN,
            own,
            mapped,
        }
    }

    pub fn times(mut self, times: &Times) -> Self {
        (self.median, self.high) = (times.micros(0.5), times.micros(0.99));
        self
    }

    pub fn written(mut self, bytes: u64, payload: u64) -> Self {
        self.written = bytes as f64 / payload as f64;
        self
    }

    pub fn line(&self) -> String {
        let Self {
            row,
            value,
            median,
            high,
            written,
            own,
            mapped,
        } = self;
        format!("figure\t{row}\t{value}\t{median}\t{high}\t{written}\t{own}\t{mapped}")
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("figure\t")?.split('\t');
        let row = words.next()?.to_owned();
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            row,
            value: number()?,
            median: number()?,
            high: number()?,
            written: number()?,
            own: number()?,
            mapped: number()?,
        })
    }
}

/// Bytes this process has given to write calls and, where stores to maps go to the disk, to the disk.
pub fn bytes_written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap_or_default();
    let field = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().parse().ok()).unwrap_or(0)
    };
    field("write_bytes:").max(field("wchar:"))
}

/// MiB of this process's own, and of files in its maps.
pub fn memory() -> (f64, f64) {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().split(' ').next());
        number.and_then(|kib| kib.parse().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("RssAnon:"), field("RssFile:"))
}

/// What several threads did until the time was over or nothing was left.
pub struct Done {
    pub times: Times,
    pub units: u64,
    pub seconds: f64,
    pub bytes: u64,
}

impl Done {
    pub fn rate(&self) -> f64 {
        self.units as f64 / self.seconds
    }
}

/// Runs `work(thread, turn)` in `threads` threads until `limit` seconds are over or it has nothing left; it answers
/// how many units it did.
pub fn drive<W>(threads: usize, limit: f64, work: impl Fn(usize) -> W + Sync) -> Done
where
    W: FnMut(u64) -> Option<u64>,
{
    let before = bytes_written();
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(limit);
    let run = |thread: usize| {
        let mut work = work(thread);
        let (mut times, mut units) = (Times::new(), 0);
        let mut last = Instant::now();
        for turn in 0.. {
            let Some(done) = work(turn) else { break };
            units += done;
            let now = Instant::now();
            times.add(now - last);
            last = now;
            if now >= end {
                break;
            }
        }
        (times, units)
    };
    let mut times = Times::new();
    let mut units = 0;
    std::thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..threads).map(|t| scope.spawn(move || run(t))).collect();
        for thread in threads {
            let (mine, did) = thread.join().expect("a worker");
            times.merge(&mine);
            units += did;
        }
    });
    Done {
        times,
        units,
        seconds: start.elapsed().as_secs_f64(),
        bytes: bytes_written() - before,
    }
}
