//! What a case is made of: options, keys and values, drawn so that small data exercises everything.

use std::{ops::Bound, sync::Arc};

use basalt_engine::{
    AppendWithDelimiter, CfOptions, Compression, LEVELS, MemtableKind, MergeSetting, Options,
    ReadOptions,
    executor::Executor,
    fs::{Fs, ReadMode},
};
use basalt_testkit::{Bounds, Rng, Value};

/// Options of a database. They need not be the same at each open.
pub(crate) fn options(rng: &mut Rng, fs: Arc<dyn Fs>, executor: Arc<dyn Executor>) -> Options {
    let smallest = *rng.pick(&[512, 4 << 10, 64 << 10]);
    Options {
        read_mode: *rng.pick(&[ReadMode::Mapped, ReadMode::Pread]),
        block_cache_bytes: *rng.pick(&[0, 4 << 10, 1 << 20]),
        log_segment_bytes: (smallest, smallest * *rng.pick(&[1, 8])),
        max_log_bytes: *rng.pick(&[2 << 10, 64 << 10, 1 << 30]),
        recycled_segments: rng.index(4),
        max_compactions: 1 + rng.index(3),
        reserve_bytes: *rng.pick(&[0, 4096]),
        max_manifest_bytes: *rng.pick(&[4 << 10, 64 << 20]),
        memtable_budget_bytes: *rng.pick(&[64 << 10, 1 << 30]),
        ..Options::with(fs, executor)
    }
}

/// The merge operator of families that have one: what the model's merges do.
pub(crate) fn comma() -> MergeSetting {
    MergeSetting::new(Arc::new(AppendWithDelimiter::new(b",")))
}

/// Options of a family: small buffers, tables and levels, so that few writes reach every level.
pub(crate) fn cf_options(rng: &mut Rng, logged: bool) -> CfOptions {
    let l0 = 1 + rng.index(6);
    let mut compression = [Compression::None; LEVELS];
    for level in &mut compression {
        let codecs = [Compression::None, Compression::Lz4, Compression::Zstd];
        *level = *rng.pick(&codecs[..2 + usize::from(cfg!(feature = "zstd"))]);
    }
    CfOptions {
        logged,
        write_buffer_bytes: *rng.pick(&[1 << 10, 4 << 10, 16 << 10, 64 << 10]),
        memtable: *rng.pick(&[MemtableKind::Tree, MemtableKind::SkipList]),
        max_immutable_memtables: 1 + rng.index(4),
        block_bytes: *rng.pick(&[64, 200, 1024, 4096]),
        restart_interval: *rng.pick(&[1, 2, 5, 16, 64]),
        filter_bits_per_key: *rng.pick(&[0, 1, 5, 10, 20]),
        compression,
        table_bytes: *rng.pick(&[1 << 10, 2 << 10, 8 << 10]),
        base_level_bytes: *rng.pick(&[1 << 10, 2 << 10, 16 << 10]),
        level_multiplier: *rng.pick(&[2, 2, 3, 10]),
        l0_compaction_trigger: l0,
        l0_slowdown_trigger: l0 + rng.index(8),
        l0_stop_trigger: l0 + 8 + rng.index(8),
        large_value_bytes: *rng.pick(&[None, Some(64), Some(64), Some(200), Some(4096)]),
        append_prefix_bytes: None,
        merge_operator: rng.one_in(2).then(comma),
        compaction_filter: None,
        ttl: None,
    }
}

/// The keys of a case. All come from a small set, so that they are met again.
pub(crate) struct Keys {
    all: Vec<Vec<u8>>,
    /// Share of long values.
    bulky: bool,
    written: u64,
}

impl Keys {
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let count = *rng.pick(&[30, 200, 600, 2000]);
        let style = rng.below(4);
        let mut all: Vec<Vec<u8>> = (0..count).map(|at| key(rng, style, at)).collect();
        all.sort();
        all.dedup();
        Self {
            all,
            bulky: rng.one_in(4),
            written: 0,
        }
    }

    /// A key that writes use.
    pub(crate) fn known(&self, rng: &mut Rng) -> Vec<u8> {
        rng.pick(&self.all).clone()
    }

    /// A run of neighbouring keys, at most `most`.
    pub(crate) fn run(&self, rng: &mut Rng, most: usize) -> &[Vec<u8>] {
        let from = rng.index(self.all.len());
        let len = rng.len(1..most + 1).min(self.all.len() - from);
        &self.all[from..from + len]
    }

    /// Any key: known, or beside a known one.
    pub(crate) fn any(&self, rng: &mut Rng) -> Vec<u8> {
        let mut key = self.known(rng);
        match rng.below(8) {
            0 => key.push(rng.byte()),
            1 => key.push(0),
            2 => key.truncate(rng.len(0..key.len() + 1)),
            3 if rng.one_in(4) => key = vec![0xff; rng.index(4)],
            _ => {}
        }
        key
    }

    /// Two keys for a range delete: mostly close together.
    pub(crate) fn pair(&self, rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
        match rng.below(16) {
            0 => (self.any(rng), self.any(rng)),
            1 => (Vec::new(), vec![0xff; 5]),
            _ => {
                let run = self.run(rng, 12);
                (run[0].clone(), run[run.len() - 1].clone())
            }
        }
    }

    /// A value that no other write has, unless it is very short.
    pub(crate) fn value(&mut self, rng: &mut Rng) -> Value {
        self.written += 1;
        let len = match rng.below(if self.bulky { 40 } else { 400 }) {
            0 => rng.len(1000..9000),
            1..=8 => rng.len(100..400),
            9 | 10 => 0,
            _ => rng.len(6..32),
        };
        let mut value = self.written.to_le_bytes().to_vec();
        value.resize(len.max(value.len()), b'v');
        value.truncate(len);
        if rng.one_in(2) && len > 8 {
            rng.fill(&mut value[8..]);
        }
        value.into()
    }

    /// Bounds for an iterator, with the read options that say the same.
    pub(crate) fn bounds(&self, rng: &mut Rng) -> (Bounds, ReadOptions) {
        match rng.below(8) {
            0..=2 => (Bounds::default(), ReadOptions::default()),
            3 => {
                let key = self.known(rng);
                let prefix = &key[..rng.len(0..key.len() + 1)];
                (
                    Bounds::prefix(prefix),
                    ReadOptions::default().prefix(prefix),
                )
            }
            4 => {
                let (from, to) = (self.any(rng), self.any(rng));
                let after = |key: &[u8]| [key, &[0]].concat();
                let (lower, from) = match rng.below(3) {
                    0 => (Some(from.clone()), Bound::Included(from)),
                    1 => (Some(after(&from)), Bound::Excluded(from)),
                    _ => (None, Bound::Unbounded),
                };
                let (upper, to) = match rng.below(3) {
                    0 => (Some(after(&to)), Bound::Included(to)),
                    1 => (Some(to.clone()), Bound::Excluded(to)),
                    _ => (None, Bound::Unbounded),
                };
                let from = from.as_ref().map(Vec::as_slice);
                let to = to.as_ref().map(Vec::as_slice);
                let options = ReadOptions::default().range(from, to);
                (Bounds { lower, upper }, options)
            }
            _ => {
                let mut draw = || (!rng.one_in(4)).then(|| self.any(rng));
                let (lower, upper) = (draw(), draw());
                let bounds = match (lower, upper) {
                    // Mostly the right way round, not always.
                    (Some(a), Some(b)) if a > b && !rng.one_in(4) => Bounds {
                        lower: Some(b),
                        upper: Some(a),
                    },
                    (lower, upper) => Bounds { lower, upper },
                };
                let options = ReadOptions {
                    lower: bounds.lower.clone(),
                    upper: bounds.upper.clone(),
                    ..ReadOptions::default()
                };
                (bounds, options)
            }
        }
    }
}

fn key(rng: &mut Rng, style: u64, at: u64) -> Vec<u8> {
    match style {
        0 => format!("key{at:06}").into_bytes(),
        // Few letters, the extreme bytes among them: many keys are prefixes of others.
        1 => {
            let len = rng.index(8);
            (0..len)
                .map(|_| *rng.pick(&[0, b'a', b'b', 0xff]))
                .collect()
        }
        2 => format!("group{}/{:x}", at % 7, rng.below(1 << 20)).into_bytes(),
        _ => format!(
            "{}{at:04}{}",
            "long shared prefix ".repeat(5),
            "x".repeat(rng.index(60))
        )
        .into_bytes(),
    }
}
