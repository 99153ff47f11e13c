//! What the clients of a bench do, and the check of what they read.
//!
//! A checked value begins with the number of its key and a version; each key has one client that writes it, and its
//! versions go up by one. What a read finds has to be of the key it asked for, whole, not older than what was
//! acknowledged before the read began, and not newer than what was sent before it ended: what a linearizable register
//! with one writer allows.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use basalt_client::{Client, Error, KeyRange};
use bytes::Bytes;

use super::{
    BenchArgs, Workload,
    report::{Figures, lock},
};

/// Key of the number of keys that were loaded.
pub(super) const LOADED: &str = "bench/loaded";
/// Bytes of a checked value before those that do not change.
pub(super) const HEAD_LEN: usize = 16;

/// How far the versions of a key are.
#[derive(Debug, Default)]
struct Versions {
    sent: AtomicU64,
    acknowledged: AtomicU64,
}

/// What every client does.
#[derive(Debug)]
pub(super) struct Plan {
    workload: Workload,
    pub(super) cf: String,
    pub(super) keys: u64,
    threads: u64,
    seed: u64,
    scan_limit: u32,
    value: Bytes,
    /// Of each key, where values are checked.
    versions: Vec<Versions>,
}

impl Plan {
    pub(super) fn new(args: &BenchArgs) -> Self {
        let checked = if args.check { args.keys } else { 0 };
        Self {
            workload: args.workload,
            cf: args.cf.clone(),
            keys: args.keys,
            threads: args.threads,
            seed: args.seed,
            scan_limit: args.scan_limit,
            value: random_bytes(args.value_size, args.seed),
            versions: (0..checked).map(|_| Versions::default()).collect(),
        }
    }

    pub(super) fn is_checked(&self) -> bool {
        !self.versions.is_empty()
    }

    fn key(number: u64) -> Bytes {
        // Neighbours in number are far apart in order, so that loading is no append either.
        format!("bench/{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into()
    }

    fn versions(&self, number: u64) -> Option<&Versions> {
        self.versions.get(usize::try_from(number).ok()?)
    }

    /// Sets a key; of a checked one its only writer does.
    pub(super) async fn put(&self, client: &Client, number: u64) -> Result<(), Error> {
        let Some(versions) = self.versions(number) else {
            return client.put(Self::key(number), self.value.clone()).await;
        };
        let version = versions.sent.fetch_add(1, Ordering::SeqCst) + 1;
        let mut value = Vec::with_capacity(self.value.len());
        value.extend_from_slice(&number.to_be_bytes());
        value.extend_from_slice(&version.to_be_bytes());
        value.extend_from_slice(&self.value[HEAD_LEN..]);
        client.put(Self::key(number), value).await?;
        versions.acknowledged.store(version, Ordering::SeqCst);
        Ok(())
    }

    /// Reads a key; the inner error is what is wrong with its value.
    async fn get(&self, client: &Client, number: u64) -> Result<Result<(), String>, Error> {
        let acknowledged = |versions: &Versions| versions.acknowledged.load(Ordering::SeqCst);
        let oldest = self.versions(number).map(acknowledged);
        let found = client.get(Self::key(number)).await?;
        let Some(value) = found else {
            return Ok(Err(format!("key {number} is missing")));
        };
        Ok(match oldest {
            None => Ok(()),
            Some(oldest) => self.check(number, &value, oldest),
        })
    }

    fn check(&self, number: u64, value: &[u8], oldest: u64) -> Result<(), String> {
        let Some((head, rest)) = value.split_first_chunk::<HEAD_LEN>() else {
            return Err(format!("key {number} has a value of {} bytes", value.len()));
        };
        let (of, version) = head.split_at(8);
        let read = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte))
        };
        let (of, version) = (read(of), read(version));
        let sent = self.versions(number);
        let newest = sent.map_or(0, |versions| versions.sent.load(Ordering::SeqCst));
        if of != number || rest != &self.value[HEAD_LEN..] {
            return Err(format!("key {number} has a value that nobody wrote"));
        }
        if version < oldest || version > newest {
            return Err(format!(
                "key {number} has version {version}, where {oldest} was acknowledged and {newest} sent"
            ));
        }
        Ok(())
    }

    async fn scan(&self, client: &Client, number: u64) -> Result<Result<(), String>, Error> {
        let range = KeyRange::between(Self::key(number), "bench0");
        let mut scan = client.scan(range).limit(self.scan_limit.into()).start();
        let mut last: Option<Bytes> = None;
        while let Some(pair) = scan.next().await? {
            if last.is_some_and(|last| last >= pair.key) {
                return Ok(Err("a scan is out of order".to_owned()));
            }
            last = Some(pair.key);
        }
        Ok(Ok(()))
    }

    /// One client, until it is over.
    pub(super) async fn work(
        &self,
        client: &Client,
        own: u64,
        over: &AtomicBool,
        figures: &Mutex<Figures>,
    ) {
        let mut random = Random::new(self.seed + own);
        while !over.load(Ordering::Relaxed) {
            let is_put = random.below(20) < self.workload.writes();
            let mut number = random.below(self.keys);
            if is_put && self.is_checked() {
                // Its own ones.
                number = number - number % self.threads + own;
                if number >= self.keys {
                    continue;
                }
            }
            let began = Instant::now();
            let done = match (is_put, self.workload) {
                (true, _) => self.put(client, number).await.map(Ok),
                (false, Workload::Scan) => self.scan(client, number).await,
                (false, _) => self.get(client, number).await,
            };
            let took = began.elapsed();
            let has_failed = done.is_err();
            lock(figures).record(is_put, took, done);
            if has_failed {
                // A server that refuses is not asked in a tight loop.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// Small and fast random numbers (xorshift64*); nothing here is a secret.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        // The upper bits are the better ones.
        (self.next() >> 16) % bound
    }
}

/// Bytes that do not compress.
fn random_bytes(len: u64, seed: u64) -> Bytes {
    let mut random = Random::new(seed);
    (0..len).map(|_| random.next().to_be_bytes()[0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_sees_what_is_stale_torn_or_of_another_key() {
        let value = random_bytes(32, 7);
        let plan = Plan {
            workload: Workload::Mixed,
            cf: String::new(),
            keys: 2,
            threads: 1,
            seed: 1,
            scan_limit: 1,
            value: value.clone(),
            versions: vec![Versions::default(), Versions::default()],
        };
        plan.versions[1].sent.store(5, Ordering::SeqCst);
        let of = |number: u64, version: u64| {
            let head = [number.to_be_bytes(), version.to_be_bytes()].concat();
            [&head[..], &value[HEAD_LEN..]].concat()
        };
        assert_eq!(plan.check(1, &of(1, 4), 4), Ok(()));
        assert_eq!(plan.check(1, &of(1, 5), 4), Ok(()));
        assert!(
            plan.check(1, &of(1, 3), 4)
                .unwrap_err()
                .contains("version 3")
        );
        assert!(plan.check(1, &of(1, 6), 4).unwrap_err().contains("5 sent"));
        assert!(plan.check(1, &of(0, 4), 4).is_err(), "of another key");
        let mut torn = of(1, 4);
        torn[31] ^= 1;
        assert!(plan.check(1, &torn, 4).is_err());
        assert!(plan.check(1, b"short", 4).is_err());
    }
}
