//! Raft logs: what a store of them has to offer, the stores there are, and the work.
//!
//! An engine for keys keeps an entry under region and index, both big-endian; raft-engine and Basalt's append family
//! know logs. Every entry that is fetched is checked: index, length, all bytes.

use std::path::Path;

use basalt_engine::{CfOptions, ColumnFamily, Db, Options, ReadOptions, WriteBatch, WriteOptions};

use crate::{
    data::{Chance, Key},
    files,
    measure::{Figure, bytes_written, drive},
    raft_engine::RaftEngine,
    store::{Kind, Pair, Settings, Store},
    work::Work,
};

/// Entries of a fetch.
const FETCHED: u64 = 1000;
/// Entries that a log keeps behind its newest where it is cut all the time, and after how many it is cut.
const KEPT: u64 = 2000;
const CUT_EACH: u64 = 500;

/// An open store of Raft logs.
pub trait RaftLog: Send + Sync {
    /// Appends entries to a region's log, the first of them at an index behind its last.
    fn append(&self, region: u64, first: u64, entries: &[Vec<u8>], durable: bool);
    /// Shows the entries from one index on and below another.
    fn fetch(&self, region: u64, from: u64, to: u64, see: &mut dyn FnMut(u64, &[u8]));
    /// Removes what is below `to`; nothing is below `from`.
    fn cut(&self, region: u64, from: u64, to: u64);
    /// What its owner has to call now and then.
    fn tend(&self) {}
    /// Waits until nothing goes on in the background.
    fn settle(&self);
}

fn open(kind: Kind, dir: &Path, durable: bool) -> Box<dyn RaftLog> {
    std::fs::create_dir_all(dir).expect("a directory");
    let settings = Settings {
        durable,
        ..Settings::default()
    };
    match kind {
        Kind::Basalt => Box::new(Append::open(dir)),
        Kind::RaftEngine => Box::new(RaftEngine::open(dir)),
        _ => Box::new(Plain(kind.open(dir, settings))),
    }
}

/// An engine for keys.
struct Plain(Box<dyn Store>);

fn key(region: u64, index: u64) -> Key {
    (u128::from(region) << 64 | u128::from(index)).to_be_bytes()
}

impl RaftLog for Plain {
    fn append(&self, region: u64, first: u64, entries: &[Vec<u8>], durable: bool) {
        let pairs = (first..).zip(entries);
        let pairs: Vec<Pair> = pairs
            .map(|(index, entry)| (key(region, index), entry.clone()))
            .collect();
        self.0.put_all(&pairs, durable);
    }

    fn fetch(&self, region: u64, from: u64, to: u64, see: &mut dyn FnMut(u64, &[u8])) {
        let end = key(region, to);
        self.0
            .walk(Some(&key(region, from)), false, &mut |key, entry| {
                let is_meant = key < end.as_slice();
                if is_meant {
                    let index = key[8..].try_into().expect("eight bytes");
                    see(u64::from_be_bytes(index), entry);
                }
                is_meant
            });
    }

    fn cut(&self, region: u64, from: u64, to: u64) {
        self.0.remove(&key(region, from), &key(region, to));
    }

    fn settle(&self) {
        self.0.settle();
    }
}

/// Basalt's append family.
struct Append {
    db: Db,
    family: ColumnFamily,
}

impl Append {
    fn open(dir: &Path) -> Self {
        let db = Db::open(dir, Options::default()).expect("open");
        let family = db.open_cf("log", CfOptions::append(8)).expect("a family");
        Self { db, family }
    }
}

impl RaftLog for Append {
    fn append(&self, region: u64, first: u64, entries: &[Vec<u8>], durable: bool) {
        let options = WriteOptions { sync: durable };
        let prefix = region.to_be_bytes();
        let done = self
            .db
            .append(&self.family, &prefix, first, entries, options);
        done.expect("an append");
    }

    fn fetch(&self, region: u64, from: u64, to: u64, see: &mut dyn FnMut(u64, &[u8])) {
        let options = ReadOptions {
            lower: Some(key(region, from).to_vec()),
            upper: Some(key(region, to).to_vec()),
            ..ReadOptions::default()
        };
        let mut cursor = self.db.iter(&self.family, &options).expect("a cursor");
        cursor.seek_to_first().expect("a seek");
        while cursor.valid() {
            let index = cursor.key()[8..].try_into().expect("eight bytes");
            see(u64::from_be_bytes(index), cursor.value());
            cursor.next().expect("a step");
        }
    }

    fn cut(&self, region: u64, _from: u64, to: u64) {
        let mut batch = WriteBatch::new();
        batch.truncate_front(&self.family, &region.to_be_bytes(), to);
        let done = self.db.write(batch, WriteOptions::NO_SYNC);
        done.expect("a truncation");
    }

    fn settle(&self) {
        self.db.sync().expect("a sync");
        crate::store::wait_until_still(|| {
            let stats = self.db.stats();
            (stats.log_segments, stats.log_rewritten_bytes)
        });
    }
}

/// What one row of appends is.
#[derive(Clone, Copy)]
struct Shape {
    regions: u64,
    batch: u64,
    len: usize,
    durable: bool,
}

impl Shape {
    fn name(&self) -> String {
        let Self {
            regions,
            batch,
            len,
            durable,
        } = self;
        let durable = if *durable { ", synced" } else { "" };
        format!("Raft append, {regions} regions, {batch} x {len} B{durable}")
    }
}

/// Which region a turn of the driver is for, and the index of the batch's first entry there.
fn place(turn: u64, regions: u64, batch: u64) -> (u64, u64) {
    (turn % regions, 1 + turn / regions * batch)
}

/// What makes the value of an entry: regions are few, and indexes small.
fn id(region: u64, index: u64) -> u64 {
    region << 32 | index
}

impl Work<'_> {
    /// All rows of Raft logs.
    pub fn logs(&self) {
        let mut made = 0;
        for durable in [false, true] {
            for len in [256, 4096] {
                for regions in [1, 100] {
                    for batch in [1, 16, 64] {
                        made += 1;
                        let dir = self.dir.join(format!("logs-{made}"));
                        self.append_log(
                            &dir,
                            Shape {
                                regions,
                                batch,
                                len,
                                durable,
                            },
                        );
                        let _ = std::fs::remove_dir_all(&dir);
                    }
                }
            }
        }
        for regions in [1, 100] {
            let dir = self.dir.join(format!("logs-cut-{regions}"));
            self.cut_log(&dir, regions);
        }
    }

    /// Appends, and where there are enough entries fetches the last thousand of each region.
    fn append_log(&self, dir: &Path, shape: Shape) {
        let Shape {
            regions,
            batch,
            len,
            durable,
        } = shape;
        let log = open(self.kind, dir, durable);
        // As much as a memtable takes, so that what is fetched is as new for all.
        let most = (48 << 20) / len as u64 / regions * regions;
        let (log, this) = (&*log, self);
        let done = drive(1, self.size.seconds, |_| {
            let mut entries = vec![Vec::new(); batch as usize];
            move |turn| {
                if turn * batch >= most {
                    return None;
                }
                let (region, first) = place(turn, regions, batch);
                for (entry, index) in entries.iter_mut().zip(first..) {
                    this.values.make(id(region, index), 0, len, entry);
                }
                log.append(region, first, &entries, durable);
                Some(batch)
            }
        });
        let figure = Figure::new(&shape.name(), done.rate()).times(&done.times);
        (self.tell)(figure.written(done.bytes, done.units * len as u64));

        let turns = done.units / batch;
        let per_region = turns / regions * batch;
        for region in [0, regions - 1] {
            let from = 1 + per_region.saturating_sub(FETCHED);
            self.fetch_checked(log, region, from, 1 + per_region, len);
        }
        if batch == 16 && !durable && per_region >= FETCHED {
            let from = 1 + per_region - FETCHED;
            let done = drive(1, self.size.seconds / 2.0, |_| {
                let mut chance = Chance::new(regions);
                move |_| {
                    let region = chance.below(regions);
                    Some(this.fetch_checked(log, region, from, from + FETCHED, len))
                }
            });
            let row = format!("Raft fetch of the last 1000, {regions} regions, {len} B");
            self.tell(&row, &done);
        }
    }

    /// Fetches entries, each of which must be there and right; answers how many. One in sixteen is compared whole.
    fn fetch_checked(&self, log: &dyn RaftLog, region: u64, from: u64, to: u64, len: usize) -> u64 {
        let mut next = from;
        log.fetch(region, from, to, &mut |index, entry| {
            assert_eq!(index, next, "the order of region {region}");
            assert_eq!(entry.len(), len, "entry {index} of region {region}");
            if index % 16 == 0 {
                let version = self.values.version(id(region, index), len, entry);
                assert_eq!(version, Some(0), "entry {index} of region {region}");
            }
            next += 1;
        });
        assert_eq!(next, to, "the end of region {region}");
        to - from
    }

    /// Appends while all but the newest entries are cut off: what a store does all the time.
    fn cut_log(&self, dir: &Path, regions: u64) {
        const LEN: usize = 256;
        const BATCH: u64 = 16;
        let before = bytes_written();
        let log = open(self.kind, dir, false);
        let (log, this) = (&*log, self);
        let done = drive(1, self.size.seconds * 2.0, |_| {
            let mut entries = vec![Vec::new(); BATCH as usize];
            let mut cut = vec![1; regions as usize];
            move |turn| {
                let (region, first) = place(turn, regions, BATCH);
                for (entry, index) in entries.iter_mut().zip(first..) {
                    this.values.make(id(region, index), 0, LEN, entry);
                }
                log.append(region, first, &entries, false);
                let from = &mut cut[region as usize];
                let to = (first + BATCH).saturating_sub(KEPT);
                if to >= *from + CUT_EACH {
                    log.cut(region, *from, to);
                    *from = to;
                    log.tend();
                }
                Some(BATCH)
            }
        });
        let row = |what: &str| format!("Raft append and cut, {regions} regions{what}");
        self.tell(&row(""), &done);
        let per_region = done.units / BATCH / regions * BATCH;
        for region in [0, regions - 1] {
            let from = 1 + per_region.saturating_sub(FETCHED);
            self.fetch_checked(log, region, from, 1 + per_region, LEN);
        }
        log.settle();
        let payload = (done.units * LEN as u64) as f64;
        let written = (bytes_written() - before) as f64 / payload;
        (self.tell)(Figure::new(&row(": bytes written"), written));
        let disk = files::bytes(dir) as f64 / f64::from(1 << 20);
        (self.tell)(Figure::new(&row(": disk"), disk));
    }
}
