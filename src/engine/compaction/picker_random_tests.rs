//! Picking on random versions, with several compactions under way and flushes in between: no two ever
//! meet, every version is good, and it comes to rest with every level within its target.

use super::*;
use crate::faults::Faults;
use crate::{
    compaction::pending_bytes, executor::SplitMix64, table::TableInfo, version::TableRecord,
};

/// Keys are numbers of four digits.
const KEYS: u64 = 10_000;

struct World {
    options: CfOptions,
    version: Arc<Version>,
    boundaries: Vec<SequenceNumber>,
    cursors: Cursors,
    running: Vec<Compaction>,
    rng: SplitMix64,
    next: u64,
    picked: usize,
    together: usize,
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:04}").into_bytes()
}

fn number(key: &[u8]) -> u64 {
    std::str::from_utf8(key)
        .expect("digits")
        .parse()
        .expect("digits")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = SplitMix64(seed);
        let options = CfOptions {
            table_bytes: 1000,
            base_level_bytes: 2000 + rng.below(20_000),
            level_multiplier: 2 + rng.below(9),
            l0_compaction_trigger: 1 + usize::try_from(rng.below(6)).expect("small"),
            ..CfOptions::default()
        };
        Self {
            options,
            version: Arc::default(),
            boundaries: vec![SequenceNumber(rng.below(200)), SequenceNumber(1_000_000)],
            cursors: Cursors::default(),
            running: Vec::new(),
            rng,
            next: 1,
            picked: 0,
            together: 0,
        }
    }

    fn table(
        &mut self,
        from: u64,
        to: u64,
        size: u64,
        deletes: u64,
        seqs: (u64, u64),
    ) -> Arc<TableMeta> {
        let info = TableInfo {
            table_id: self.next,
            size,
            crc: 0,
            smallest: key(from),
            largest: key(to),
            largest_exclusive: false,
            entries: 100,
            deletes,
            tombstones: 0,
            min_seq: SequenceNumber(seqs.0),
            max_seq: SequenceNumber(seqs.1),
            times: None,
        };
        self.next += 1;
        Arc::new(TableMeta::new(TableRecord {
            number: self.next - 1,
            info,
            hidden: 0,
            global_seq: None,
            values: Vec::new(),
        }))
    }

    fn change(&mut self, added: &[(usize, Arc<TableMeta>)], removed: &[(usize, u64)]) {
        let next = self
            .version
            .with_changes(added, removed)
            .expect("compactions never meet");
        next.check().expect("every version is good");
        self.version = Arc::new(next);
    }

    fn flush(&mut self) {
        let from = self.rng.below(KEYS);
        let width = if self.rng.below(4) == 0 { KEYS } else { 300 };
        let to = (from + self.rng.below(width)).min(KEYS - 1);
        let deletes = if self.rng.below(3) == 0 {
            self.rng.below(101)
        } else {
            0
        };
        let (size, seq) = (200 + self.rng.below(2000), self.next * 10);
        let table = self.table(from, to, size, deletes, (seq, seq + 9));
        self.change(&[(0, table)], &[]);
    }

    fn pick(&mut self) -> bool {
        let running: Vec<_> = self.running.iter().filter_map(Compaction::target).collect();
        let context = PickContext {
            oldest_time: 0,
            faults: Faults::default(),
            boundaries: &self.boundaries,
            running: &running,
            cursors: &self.cursors,
            tombstones: &|_| None,
        };
        let Some(mut compaction) = pick(&self.version, &self.options, &context) else {
            return false;
        };
        // Panics where another compaction has one of the tables.
        compaction.claim();
        let target = compaction.target().expect("nothing is dropped here");
        for other in &running {
            assert!(
                other.level != target.level || !other.range.span().overlaps(target.range.span()),
                "{target:?} meets {other:?}"
            );
        }
        self.cursors.advance(&compaction);
        self.running.push(compaction);
        self.picked += 1;
        self.together = self.together.max(self.running.len());
        true
    }

    /// Ends a running compaction with tables as a job would make them.
    fn end_one(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let at = usize::try_from(self.rng.below(self.running.len() as u64)).expect("small");
        let compaction = self.running.swap_remove(at);
        let inputs: Vec<_> = compaction
            .inputs
            .iter()
            .map(|(_, table)| Arc::clone(table))
            .collect();
        let removed: Vec<_> = compaction
            .inputs
            .iter()
            .map(|(level, table)| (*level, table.number))
            .collect();
        let outputs = match compaction.kind {
            Kind::Move => inputs,
            _ => self.merged(&compaction, &inputs),
        };
        let added: Vec<_> = outputs
            .into_iter()
            .map(|table| (compaction.output_level, table))
            .collect();
        self.change(&added, &removed);
    }

    /// Tables over the inputs' keys. At the bottom, deletes that every reader sees are gone.
    fn merged(&mut self, compaction: &Compaction, inputs: &Tables) -> Tables {
        let span = compaction.span();
        let from = number(span.start);
        let to = inputs
            .iter()
            .map(|table| number(&table.info.largest))
            .max()
            .expect("an input");
        let bytes: u64 = inputs.iter().map(|table| table.info.size).sum();
        let bytes = bytes - bytes * self.rng.below(30) / 100;
        let bottom = is_bottom(&compaction.version, compaction.output_level, span);
        let deletes = inputs
            .iter()
            .filter(|table| !(bottom && is_settled(table, &self.boundaries)))
            .map(|table| table.info.deletes)
            .max()
            .unwrap_or(0);
        let seqs = (
            inputs
                .iter()
                .map(|table| table.min_seq().0)
                .min()
                .expect("an input"),
            inputs
                .iter()
                .map(|table| table.max_seq().0)
                .max()
                .expect("an input"),
        );
        let count = bytes
            .div_ceil(self.options.table_bytes)
            .clamp(1, to - from + 1);
        let edge = |n: u64| from + (to - from + 1) * n / count;
        (0..count)
            .map(|n| {
                self.table(
                    edge(n),
                    edge(n + 1) - 1,
                    bytes.div_ceil(count),
                    deletes,
                    seqs,
                )
            })
            .collect()
    }
}

#[test]
fn random_compactions_never_meet_and_come_to_rest() {
    let (mut picked, mut together, mut levels) = (0, 0, 0);
    for seed in 0..150 {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..250 {
            match world.rng.below(4) {
                0 | 1 => world.flush(),
                2 => {
                    world.pick();
                }
                _ => world.end_one(),
            }
        }
        let mut left = 20_000;
        while world.pick() || !world.running.is_empty() {
            world.end_one();
            left -= 1;
            assert!(left > 0, "it never comes to rest:\n{:?}", world.version);
        }
        let targets = LevelTargets::of(&world.version, &world.options);
        assert!(world.version.level(0).len() < world.options.l0_compaction_trigger);
        for level in 1..LEVELS - 1 {
            let bytes = world.version.level_bytes(level);
            assert!(
                bytes <= targets.bytes[level],
                "level {level} has {bytes}, {targets:?}"
            );
        }
        assert_eq!(pending_bytes(&world.version, &world.options), 0);
        picked += world.picked;
        together = together.max(world.together);
        levels = levels.max(
            (1..LEVELS)
                .filter(|&l| !world.version.level(l).is_empty())
                .count(),
        );
    }
    println!("{picked} compactions, up to {together} at a time, up to {levels} levels below L0");
    assert!(picked > 5000 && together >= 4 && levels >= 4);
}
