//! The rows there are: unit, which way is better, and what Basalt aims at.

/// Whom an aim is set against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// The best of the log-structured peers.
    Lsm,
    /// The best of all peers.
    All,
    RocksDb,
}

impl Against {
    pub fn name(self) -> &'static str {
        match self {
            Self::Lsm => "LSM",
            Self::All => "the best",
            Self::RocksDb => "RocksDB",
        }
    }
}

/// One row.
pub struct Row {
    pub name: &'static str,
    pub unit: &'static str,
    /// True for seconds and bytes, false for rates.
    pub less: bool,
    /// Times better than `Against`, that Basalt is to be.
    pub aim: Option<(f64, Against)>,
}

const fn rate(name: &'static str, unit: &'static str, times: f64, against: Against) -> Row {
    Row {
        name,
        unit,
        less: false,
        aim: Some((times, against)),
    }
}

const fn cost(name: &'static str, unit: &'static str, times: f64, against: Against) -> Row {
    Row {
        name,
        unit,
        less: true,
        aim: Some((times, against)),
    }
}

const fn limit(name: &'static str, unit: &'static str) -> Row {
    Row {
        name,
        unit,
        less: false,
        aim: None,
    }
}

/// What the machine can do.
pub const LIMITS: [Row; 6] = [
    limit("write call", "1/s"),
    limit("write and fdatasync, 1 at once", "1/s"),
    limit("write and fdatasync, 16 at once", "1/s"),
    limit("read of 4 KiB from the disk, 4 threads", "1/s"),
    limit("BTreeMap, insert", "1/s"),
    limit("BTreeMap, get", "1/s"),
];

/// What the engines do.
pub const ROWS: [Row; 68] = {
    use Against::{All, Lsm, RocksDb};
    [
        rate("fill random, one writer", "entries/s", 1.5, Lsm),
        rate("fill random, four writers", "entries/s", 1.5, Lsm),
        rate("fill sequential", "entries/s", 1.5, Lsm),
        rate("fill in batches of 100", "entries/s", 1.6, Lsm),
        rate("get, one thread", "gets/s", 1.5, Lsm),
        rate("get, four threads", "gets/s", 1.5, Lsm),
        rate("get of absent keys", "gets/s", 1.0, All),
        rate("seek and 10 next", "entries/s", 1.5, Lsm),
        rate("seek and 100 next", "entries/s", 1.5, Lsm),
        rate("seek and 1000 next", "entries/s", 1.5, Lsm),
        rate("seek and 10 previous", "entries/s", 1.5, Lsm),
        rate("seek and 100 previous", "entries/s", 1.5, Lsm),
        rate("seek and 1000 previous", "entries/s", 1.5, Lsm),
        rate("full scan, forward", "entries/s", 2.0, Lsm),
        rate("full scan, backward", "entries/s", 2.0, Lsm),
        rate("readers beside a writer: gets", "gets/s", 1.4, Lsm),
        cost("readers beside a writer: p99 of a get", "us", 1.0, Lsm),
        rate("readers beside a writer: puts", "puts/s", 1.0, Lsm),
        rate(
            "get, small cache, files in the system's",
            "gets/s",
            1.4,
            Lsm,
        ),
        rate(
            "get, small cache, files on the disk only",
            "gets/s",
            1.0,
            Lsm,
        ),
        rate("one synced writer", "puts/s", 1.0, All),
        rate("16 synced writers", "puts/s", 1.3, RocksDb),
        rate("batches of 100, synced", "entries/s", 1.2, Lsm),
        rate("YCSB A", "operations/s", 1.3, Lsm),
        rate("YCSB B", "operations/s", 1.3, Lsm),
        rate("YCSB C", "operations/s", 1.3, Lsm),
        rate("YCSB D", "operations/s", 1.3, Lsm),
        rate("YCSB E", "operations/s", 2.0, Lsm),
        rate("YCSB F", "operations/s", 1.3, Lsm),
        cost("reopen after a kill", "s", 3.0, Lsm),
        cost("reopen after a close", "s", 1.0, Lsm),
        cost("disk space after overwrites", "of the data", 1.0, RocksDb),
        cost("write amplification", "of the data", 1.0, RocksDb),
        cost("peak memory of its own", "MiB", 1.0, RocksDb),
        rate("Raft append, 1 regions, 1 x 256 B", "entries/s", 1.2, All),
        rate("Raft append, 1 regions, 16 x 256 B", "entries/s", 1.2, All),
        rate("Raft append, 1 regions, 64 x 256 B", "entries/s", 1.2, All),
        rate("Raft append, 100 regions, 1 x 256 B", "entries/s", 1.2, All),
        rate(
            "Raft append, 100 regions, 16 x 256 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 64 x 256 B",
            "entries/s",
            1.2,
            All,
        ),
        rate("Raft append, 1 regions, 1 x 4096 B", "entries/s", 1.2, All),
        rate("Raft append, 1 regions, 16 x 4096 B", "entries/s", 1.2, All),
        rate("Raft append, 1 regions, 64 x 4096 B", "entries/s", 1.2, All),
        rate(
            "Raft append, 100 regions, 1 x 4096 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 16 x 4096 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 64 x 4096 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 1 regions, 1 x 256 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 1 regions, 16 x 256 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 1 regions, 64 x 256 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 1 x 256 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 16 x 256 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 64 x 256 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 1 regions, 1 x 4096 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 1 regions, 16 x 4096 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 1 regions, 64 x 4096 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 1 x 4096 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 16 x 4096 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft append, 100 regions, 64 x 4096 B, synced",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft fetch of the last 1000, 1 regions, 256 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft fetch of the last 1000, 100 regions, 256 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft fetch of the last 1000, 1 regions, 4096 B",
            "entries/s",
            1.2,
            All,
        ),
        rate(
            "Raft fetch of the last 1000, 100 regions, 4096 B",
            "entries/s",
            1.2,
            All,
        ),
        rate("Raft append and cut, 1 regions", "entries/s", 1.2, All),
        cost(
            "Raft append and cut, 1 regions: bytes written",
            "of the data",
            1.0,
            All,
        ),
        cost("Raft append and cut, 1 regions: disk", "MiB", 1.0, All),
        rate("Raft append and cut, 100 regions", "entries/s", 1.2, All),
        cost(
            "Raft append and cut, 100 regions: bytes written",
            "of the data",
            1.0,
            All,
        ),
        cost("Raft append and cut, 100 regions: disk", "MiB", 1.0, All),
    ]
};
