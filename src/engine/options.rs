//! Options of a database, a column family, a write and a read: unit, default and effect of each.

use std::{ops::Bound, sync::Arc, time::Duration};

use crate::{
    clock::{Clock, SystemClock},
    compaction_filter::{CompactionFilter, FilterSetting},
    error::{Error, Result},
    executor::{Executor, ThreadPool},
    fs::{Fs, ReadMode, RealFs},
    key::MAX_VALUE_LEN,
    limiter::RateLimiter,
    memory::SharedMemory,
    merge::{MAX_MERGE_OPERATOR_NAME_LEN, MergeOperator, MergeSetting},
    snapshot::Snapshot,
    wal::segment::{VERSION, VERSION_APPEND, VERSION_TABLES},
};

/// Number of levels of a column family: L0 (tables as flushed, may overlap) and six below.
pub const LEVELS: usize = 7;

/// Settings of one open database. None of them is stored: they may differ from open to open. Which of them may change
/// while it is open is said at [`Db::set_options`](crate::Db::set_options).
#[derive(Clone, Debug)]
pub struct Options {
    /// Create the database when the directory holds none (default true).
    pub create_if_missing: bool,
    /// Refuse to open an existing database (default false).
    pub error_if_exists: bool,
    /// How table files are read (default mapped).
    pub read_mode: ReadMode,
    /// Bytes of decompressed blocks kept (default 128 MiB). Uncompressed blocks of mapped tables are
    /// read in place and take nothing of it.
    pub block_cache_bytes: usize,
    /// Bytes that values handed out may hold in place, in maps and blocks (default 256 MiB); beyond, they are
    /// copies.
    pub max_pinned_bytes: usize,
    /// Smallest and largest log segment in bytes (default 1 MiB and 32 MiB): each new one is four times
    /// as large as the last in between.
    pub log_segment_bytes: (u64, u64),
    /// Bytes of log that may be kept for unflushed memtables (default 512 MiB); above, the memtable
    /// that holds the oldest segment is flushed.
    pub max_log_bytes: u64,
    /// Bytes of a manifest after which a new one is begun (default 16 MiB).
    pub max_manifest_bytes: u64,
    /// Obsolete log segments kept for reuse (default 2), where they take at most an eighth of what tables and log take, or 4 MiB.
    pub recycled_segments: usize,
    /// Compactions at a time (default 2).
    pub max_compactions: usize,
    /// Bytes of the file that is given up on a full disk so that deletes and compaction can go on
    /// (default 1 MiB; 0 keeps none).
    pub reserve_bytes: u64,
    /// Bytes of memory of memtables, block cache, what open tables keep beside it, blocks pinned by values, indexes of
    /// append families, and their newest batches (at most a sixteenth of it) together (default `usize::MAX`: no bound but those of the parts). Near it the block
    /// cache gives way first, then the largest memtable is flushed, and then writes wait for that flush. It holds within
    /// a tenth, buffers of jobs and cursors left out, as long as what cannot give way leaves memtables an eighth of it.
    pub memory_budget_bytes: usize,
    /// Memory shared with other databases of this process (default none). With it `memory_budget_bytes`,
    /// `block_cache_bytes` and `max_pinned_bytes` are its, and not those beside it here.
    pub shared_memory: Option<SharedMemory>,
    /// Memory of all memtables together in bytes (default 512 MiB): beyond, the largest is flushed, and
    /// writes wait while there is something to flush. Looked at every 64 batches.
    pub memtable_budget_bytes: usize,
    /// Bound on the bytes a second that flushes, compactions and checkpoints write (default none). Databases may share one.
    pub rate_limiter: Option<RateLimiter>,
    /// Bytes after which a table that is written is synced on the way (default 0: only at its end), so that no sync has a
    /// whole table to write.
    pub bytes_per_sync: u64,
    /// Of each thread's gets, seeks and writes one in so many is timed, or (gets) looked at for what filters and caches did
    /// (default 1,024; 0: none; with a simulated executor 0, because what a thread did before is no part of a seed).
    pub stats_sampling: u32,
    /// The disk (default [`RealFs`]).
    pub fs: Arc<dyn Fs>,
    /// Bytes of dead entries and records in full log segments above which append families have live entries
    /// written forward (default 256 MiB), where at most a quarter of the oldest segments is live. So the log has
    /// dead bytes up to this, or three times what is live, whichever is more.
    pub max_log_garbage_bytes: u64,
    /// Bytes of log segments that snapshots, iterators and slices of append families may hold after nothing
    /// else needs them (default 1 GiB); beyond, what holds the oldest of them answers `Expired`.
    pub max_pinned_log_bytes: u64,
    /// Bytes of the newest batches of append families that are kept in memory as they were written, for reads (default
    /// 64 MiB, as a memtable has; 0 keeps none; a sixteenth of the memory budget where that is less). It holds the batch
    /// that is over it, and no older one.
    pub append_tail_bytes: usize,
    /// Threads, time and randomness (default: four threads of this database's own: two for compactions,
    /// one for flushes, one for log syncs).
    pub executor: Arc<dyn Executor>,
    /// What rows with a time to live are measured by (default [`SystemClock`]).
    pub clock: Arc<dyn Clock>,
    /// Planted faults, for the tests of the tests; all off by default.
    #[doc(hidden)]
    pub faults: crate::faults::Faults,
}

impl Default for Options {
    fn default() -> Self {
        Self::with(Arc::new(RealFs), Arc::new(ThreadPool::new(4)))
    }
}

impl Options {
    /// The defaults over a given disk and executor.
    #[must_use]
    pub fn with(fs: Arc<dyn Fs>, executor: Arc<dyn Executor>) -> Self {
        Self {
            create_if_missing: true,
            error_if_exists: false,
            read_mode: ReadMode::Mapped,
            block_cache_bytes: 128 << 20,
            max_pinned_bytes: 256 << 20,
            log_segment_bytes: (1 << 20, 32 << 20),
            max_log_bytes: 512 << 20,
            max_manifest_bytes: 16 << 20,
            recycled_segments: 2,
            max_compactions: 2,
            reserve_bytes: 1 << 20,
            memory_budget_bytes: usize::MAX,
            shared_memory: None,
            memtable_budget_bytes: 512 << 20,
            rate_limiter: None,
            bytes_per_sync: 0,
            stats_sampling: if executor.is_simulated() { 0 } else { 1024 },
            max_log_garbage_bytes: 256 << 20,
            max_pinned_log_bytes: 1 << 30,
            append_tail_bytes: 64 << 20,
            fs,
            executor,
            clock: Arc::new(SystemClock),
            faults: crate::faults::Faults::default(),
        }
    }
}

impl Options {
    /// Checks that every setting is in its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let (small, large) = self.log_segment_bytes;
        check(
            (MIN_SEGMENT_BYTES..=MAX_SEGMENT_BYTES).contains(&small)
                && small <= large
                && large <= MAX_SEGMENT_BYTES,
            || {
                format!(
                    "log_segment_bytes ({small}, {large}), range {MIN_SEGMENT_BYTES} to {MAX_SEGMENT_BYTES}, ascending"
                )
            },
        )?;
        check(self.memory_budget_bytes >= MIN_MEMORY_BUDGET, || {
            let bytes = self.memory_budget_bytes;
            format!("memory_budget_bytes {bytes}, least {MIN_MEMORY_BUDGET}")
        })?;
        check((1..=64).contains(&self.max_compactions), || {
            format!("max_compactions {}, range 1 to 64", self.max_compactions)
        })
    }
}

/// Least memory budget in bytes: a few memtables of some chunks.
const MIN_MEMORY_BUDGET: usize = 1 << 20;
/// Smallest log segment in bytes.
const MIN_SEGMENT_BYTES: u64 = 512;
/// Largest log segment in bytes that is not made for one oversize record.
const MAX_SEGMENT_BYTES: u64 = 1 << 32;

fn check(ok: bool, what: impl FnOnce() -> String) -> Result<()> {
    if ok {
        Ok(())
    } else {
        Err(Error::invalid(what()))
    }
}

/// How the blocks of a table are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As they are; read in place from the map.
    None,
    /// LZ4 block format; kept as is when that saves less than an eighth.
    Lz4,
    /// Zstandard: fewer bytes than LZ4, and several times its work at each reading and writing, so for the lowest levels.
    /// Only in builds with the feature `zstd`. Once a family has it, other builds and older ones refuse the database.
    Zstd,
}

/// Why a build without the feature refuses a table or a family.
pub(crate) const NO_ZSTD: &str =
    "compressed with zstd, and this build is without the feature `zstd`";

/// What keeps the entries of a memtable in order. Reads and iterators see the same with each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemtableKind {
    /// A tree of leaves: the fastest, and about 50 bytes an entry beside key and value. An insert takes the lock of its
    /// leaf for well under a microsecond, and now and then one that all inserts share, to split a leaf.
    #[default]
    Tree,
    /// The skip list of `crossbeam-skiplist`: an insert takes no lock at all, so that a thread that is held up holds up
    /// no other. It waits for memory several times as often as the tree does; about 72 bytes an entry.
    SkipList,
}

/// Shortest and longest time to live.
const MIN_TTL: Duration = Duration::from_millis(1);
const MAX_TTL: Duration = Duration::from_secs(1 << 35);

/// Longest prefix of the keys of an append family in bytes.
pub const MAX_APPEND_PREFIX_BYTES: usize = 1024;

/// Settings of one column family. `logged` and `append_prefix_bytes` are fixed at creation, of `merge_operator` the name is once it
/// is there, of `ttl` whether it is there; `memtable` and `compaction_filter` are not stored; the rest is
/// stored with the family and may be changed at each open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CfOptions {
    /// Logged families survive a crash through the log; unlogged ones from their flush on
    /// (default true). Fixed at creation.
    pub logged: bool,
    /// Bytes of a memtable before it is frozen and flushed (default 64 MiB).
    pub write_buffer_bytes: usize,
    /// What keeps a memtable in order (default a tree). Not stored: it holds until the database is closed, for the
    /// memtables that are begun from then on. What an open finds in the log goes into trees.
    pub memtable: MemtableKind,
    /// Frozen memtables waiting for flush before writes wait (default 1; three took twice the memory, and fills were about
    /// as quick, `docs/adr/0010`).
    pub max_immutable_memtables: usize,
    /// Uncompressed bytes of a data block (default 4 KiB).
    pub block_bytes: usize,
    /// Keys between two restart points of a block (default 16).
    pub restart_interval: usize,
    /// Filter bits a key (default 10; 0 makes no filter).
    pub filter_bits_per_key: usize,
    /// Compression of each level (default LZ4).
    pub compression: [Compression; LEVELS],
    /// Largest table a compaction writes, in bytes (default 32 MiB).
    pub table_bytes: u64,
    /// Bytes of the first level below L0 (default 256 MiB); each further one is
    /// `level_multiplier` times larger.
    pub base_level_bytes: u64,
    /// Growth from level to level (default 10).
    pub level_multiplier: u64,
    /// L0 tables that start a compaction (default 4).
    pub l0_compaction_trigger: usize,
    /// L0 tables from which writes are slowed (default 20).
    pub l0_slowdown_trigger: usize,
    /// L0 tables at which writes wait (default 36).
    pub l0_stop_trigger: usize,
    /// Values of more bytes are kept in value files beside the tables, and compactions leave them where they are
    /// (default 4 KiB, 64 bytes to 512 MiB; `None` keeps all in tables). Not stored, as `memtable`; it counts for what flushes and
    /// compactions write from then on. They are compressed as the last level is.
    pub large_value_bytes: Option<usize>,
    /// `Some(n)`: an append family, whose keys are `n` bytes of prefix and a big-endian `u64` index
    /// (default `None`: a plain one). Fixed at creation. Of the other settings only `logged`, which must be
    /// true, and `compression[0]` matter then: whether small values of appends of 8 KiB and more are
    /// compressed together (in [`CfOptions::append`]: yes).
    pub append_prefix_bytes: Option<usize>,
    /// What merges of the family do (default `None`: it takes none). The name is stored and stays; see
    /// [`CfOptions::merge_operator`].
    pub merge_operator: Option<MergeSetting>,
    /// What looks at rows as compactions rewrite them (default `None`). Not stored: it is to be given by `open_cf` after each
    /// `Db::open`.
    pub compaction_filter: Option<FilterSetting>,
    /// How long rows live, in whole milliseconds (default `None`: for ever). Whether they do is fixed at creation; see
    /// [`CfOptions::ttl`].
    pub ttl: Option<Duration>,
}

impl Default for CfOptions {
    fn default() -> Self {
        Self {
            logged: true,
            write_buffer_bytes: 64 << 20,
            memtable: MemtableKind::default(),
            max_immutable_memtables: 1,
            block_bytes: 4096,
            restart_interval: 16,
            filter_bits_per_key: 10,
            compression: [Compression::Lz4; LEVELS],
            table_bytes: 32 << 20,
            base_level_bytes: 256 << 20,
            level_multiplier: 10,
            l0_compaction_trigger: 4,
            l0_slowdown_trigger: 20,
            l0_stop_trigger: 36,
            large_value_bytes: Some(LARGE_VALUE_BYTES),
            append_prefix_bytes: None,
            merge_operator: None,
            compaction_filter: None,
            ttl: None,
        }
    }
}

/// Values of more bytes are kept beside the tables, by default.
const LARGE_VALUE_BYTES: usize = 4096;
/// Range of `large_value_bytes`.
const MIN_LARGE_VALUE_BYTES: usize = 64;

impl CfOptions {
    /// Checks that every setting is in its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let range = |name: &str, value: u64, low: u64, high: u64| {
            check((low..=high).contains(&value), || {
                format!("{name} {value}, range {low} to {high}")
            })
        };
        range(
            "write_buffer_bytes",
            self.write_buffer_bytes as u64,
            1 << 10,
            1 << 36,
        )?;
        range(
            "max_immutable_memtables",
            self.max_immutable_memtables as u64,
            1,
            64,
        )?;
        range("block_bytes", self.block_bytes as u64, 64, 1 << 20)?;
        range(
            "large_value_bytes",
            self.large_value_bytes.unwrap_or(LARGE_VALUE_BYTES) as u64,
            MIN_LARGE_VALUE_BYTES as u64,
            MAX_VALUE_LEN as u64,
        )?;
        range("restart_interval", self.restart_interval as u64, 1, 256)?;
        range(
            "filter_bits_per_key",
            self.filter_bits_per_key as u64,
            0,
            64,
        )?;
        range("table_bytes", self.table_bytes, 1 << 10, 1 << 36)?;
        range("base_level_bytes", self.base_level_bytes, 1 << 10, 1 << 50)?;
        range("level_multiplier", self.level_multiplier, 2, 100)?;
        range(
            "l0_compaction_trigger",
            self.l0_compaction_trigger as u64,
            1,
            1 << 16,
        )?;
        if let Some(bytes) = self.append_prefix_bytes {
            check(self.logged, || {
                "an append family is logged: the log is all there is of it".to_owned()
            })?;
            check(!self.uses_zstd(), || {
                "compression of an append family is LZ4 or none".to_owned()
            })?;
            check(bytes <= MAX_APPEND_PREFIX_BYTES, || {
                format!("append_prefix_bytes {bytes}, range 0 to {MAX_APPEND_PREFIX_BYTES}")
            })?;
            check(self.merge_operator.is_none(), || {
                "an append family takes no merges".to_owned()
            })?;
        }
        if let Some(ttl) = self.ttl {
            check((MIN_TTL..=MAX_TTL).contains(&ttl), || {
                format!("ttl {ttl:?}, range {MIN_TTL:?} to {MAX_TTL:?}")
            })?;
            check(
                self.append_prefix_bytes.is_none() && self.merge_operator.is_none(),
                || {
                    "a family with a time to live has plain rows, without merges or appends"
                        .to_owned()
                },
            )?;
        }
        if let Some(merge) = &self.merge_operator {
            check(
                (1..=MAX_MERGE_OPERATOR_NAME_LEN).contains(&merge.name().len()),
                || {
                    let len = merge.name().len();
                    format!(
                        "name of a merge operator of {len} bytes, range 1 to {MAX_MERGE_OPERATOR_NAME_LEN}"
                    )
                },
            )?;
        }
        let (slow, stop) = (self.l0_slowdown_trigger, self.l0_stop_trigger);
        check(self.l0_compaction_trigger <= slow && slow <= stop, || {
            format!(
                "l0_slowdown_trigger {slow} and l0_stop_trigger {stop} must ascend from l0_compaction_trigger {}",
                self.l0_compaction_trigger
            )
        })
    }

    /// An append family whose keys have `prefix_bytes` bytes before the index (docs/adr/0009): the class for
    /// logs that are appended, and cut at both ends.
    #[must_use]
    pub fn append(prefix_bytes: usize) -> Self {
        Self {
            append_prefix_bytes: Some(prefix_bytes),
            ..Self::default()
        }
    }

    /// True where tables of some level are compressed with zstd.
    pub(crate) fn uses_zstd(&self) -> bool {
        self.compression.contains(&Compression::Zstd)
    }

    /// Refuses what this build cannot do.
    pub(crate) fn check_build(&self) -> Result<()> {
        check(!self.uses_zstd() || cfg!(feature = "zstd"), || {
            format!("compression: {NO_ZSTD}")
        })
    }

    /// The same with a merge operator, so that the family takes [`WriteBatch::merge`](crate::WriteBatch::merge). Its
    /// name is stored; the operator itself is to be given by `open_cf` after each `Db::open`. Until then
    /// merges, and reads of keys with operands, are refused, and compaction keeps operands as they are. A family
    /// without may be given one later; one that has one keeps it, and is opened with an operator of that name only.
    #[must_use]
    pub fn merge_operator(self, operator: Arc<dyn MergeOperator>) -> Self {
        Self {
            merge_operator: Some(MergeSetting::new(operator)),
            ..self
        }
    }

    /// The same with a compaction filter.
    #[must_use]
    pub fn compaction_filter(self, filter: Arc<dyn CompactionFilter>) -> Self {
        Self {
            compaction_filter: Some(FilterSetting::new(filter)),
            ..self
        }
    }

    /// The same where rows live for `ttl`, from the submission of their write on, by [`Options::clock`]. Once that is over
    /// reads do not see them, and compaction removes them; a table all of whose rows are over goes whole, unread.
    /// A read sees what is alive when it is called, an iterator what was when it was made, and a snapshot what was when
    /// it was taken, for as long as it is held. Values take eight bytes more. The length may change from open to open, for rows
    /// that are there too; what was removed does not come back.
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self {
            ttl: Some(ttl),
            ..self
        }
    }

    /// Milliseconds that rows live.
    pub(crate) fn ttl_millis(&self) -> Option<u64> {
        let millis = |ttl: Duration| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self.ttl.map(millis)
    }

    /// The least format version of the manifest of a database with such a family.
    pub(crate) fn least_format(&self) -> u32 {
        if self.merge_operator.is_some() || self.ttl.is_some() || self.uses_zstd() {
            VERSION_TABLES
        } else if self.append_prefix_bytes.is_some() {
            VERSION_APPEND
        } else {
            VERSION
        }
    }

    /// As they come back from a manifest: what is not stored is as by default.
    pub(crate) fn stored(&self) -> Self {
        Self {
            memtable: MemtableKind::default(),
            large_value_bytes: Some(LARGE_VALUE_BYTES),
            merge_operator: self.merge_operator.as_ref().map(MergeSetting::stored),
            compaction_filter: None,
            ttl: self.ttl_millis().map(Duration::from_millis),
            ..self.clone()
        }
    }

    /// The defaults of a family that is not logged.
    #[must_use]
    pub fn unlogged() -> Self {
        Self {
            logged: false,
            ..Self::default()
        }
    }
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteOptions {
    /// True: once it survives power loss. False: once it survives the death of the process
    /// (or, in an unlogged family, once it is visible).
    pub sync: bool,
}

impl WriteOptions {
    /// Acknowledged once it survives power loss.
    pub const SYNC: Self = Self { sync: true };
    /// Acknowledged once it survives the death of the process.
    pub const NO_SYNC: Self = Self { sync: false };
}

/// What a read or an iterator sees.
#[derive(Clone, Debug, Default)]
pub struct ReadOptions {
    /// The moment to read at (default: now).
    pub snapshot: Option<Snapshot>,
    /// First key of an iterator (default: the family's first).
    pub lower: Option<Vec<u8>>,
    /// First key after an iterator's last (default: none).
    pub upper: Option<Vec<u8>>,
}

impl ReadOptions {
    /// Reads at `snapshot`.
    #[must_use]
    pub fn at(snapshot: &Snapshot) -> Self {
        Self {
            snapshot: Some(snapshot.clone()),
            ..Self::default()
        }
    }

    /// Limits an iterator to the keys that begin with `prefix`.
    #[must_use]
    pub fn prefix(mut self, prefix: &[u8]) -> Self {
        self.lower = Some(prefix.to_vec());
        self.upper = prefix_end(prefix);
        self
    }

    /// Limits an iterator to a range of keys.
    #[must_use]
    pub fn range(mut self, lower: Bound<&[u8]>, upper: Bound<&[u8]>) -> Self {
        let after = |key: &[u8]| [key, &[0]].concat();
        self.lower = match lower {
            Bound::Included(key) => Some(key.to_vec()),
            Bound::Excluded(key) => Some(after(key)),
            Bound::Unbounded => None,
        };
        self.upper = match upper {
            Bound::Included(key) => Some(after(key)),
            Bound::Excluded(key) => Some(key.to_vec()),
            Bound::Unbounded => None,
        };
        self
    }
}

/// The first key after all keys that begin with `prefix`; `None` when there is none.
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let keep = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=keep].to_vec();
    end[keep] += 1;
    Some(end)
}
