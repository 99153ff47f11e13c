//! What is picked, as text: see `version/tests.rs` for how versions are written.

use super::*;
use crate::faults::Faults;
use crate::{
    key::RangeTombstone,
    options::Compression,
    version::{Version, tests::version},
};

/// A base level of 100 KiB, tables of 10 KiB, four tables in L0, no compression.
fn options() -> CfOptions {
    CfOptions {
        table_bytes: 10 << 10,
        base_level_bytes: 100 << 10,
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    }
}

/// Everything besides the tables; nothing running, no snapshots, visible at 1000.
struct World {
    options: CfOptions,
    boundaries: Vec<SequenceNumber>,
    running: Vec<Target>,
    cursors: Cursors,
    /// Table number, start, end, sequence number.
    tombstones: Vec<(u64, &'static str, &'static str, u64)>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            options: options(),
            boundaries: vec![SequenceNumber(1000)],
            running: Vec::new(),
            cursors: Cursors::default(),
            tombstones: Vec::new(),
        }
    }
}

impl World {
    fn with_snapshots(seqs: &[u64]) -> Self {
        let mut world = Self::default();
        world
            .boundaries
            .splice(..0, seqs.iter().copied().map(SequenceNumber));
        world
    }

    fn context<R>(&self, ask: impl FnOnce(&PickContext<'_>) -> R) -> R {
        ask(&PickContext {
            oldest_time: 0,
            faults: Faults::default(),
            boundaries: &self.boundaries,
            running: &self.running,
            cursors: &self.cursors,
            tombstones: &|table| {
                let own = self
                    .tombstones
                    .iter()
                    .filter(|(number, ..)| *number == table.number);
                let all = own.map(|&(_, start, end, seq)| RangeTombstone {
                    start: start.into(),
                    end: end.into(),
                    seq: SequenceNumber(seq),
                });
                Some(Arc::new(Tombstones::new(all.collect())))
            },
        })
    }

    fn pick(&self, text: &str) -> String {
        self.pick_from(version(text))
    }

    fn pick_from(&self, version: Version) -> String {
        self.context(|context| pick(&Arc::new(version), &self.options, context))
            .map_or("nothing".into(), |compaction| shown(&compaction))
    }

    /// One step of a manual compaction of `start..=end`.
    fn manual(&self, text: &str, level: usize, start: &str, end: &str) -> String {
        self.manual_upto(SequenceNumber::MAX, text, level, start, end)
    }

    /// The same where only what was written up to `upto` has to go down.
    fn manual_upto(
        &self,
        upto: SequenceNumber,
        text: &str,
        level: usize,
        start: &str,
        end: &str,
    ) -> String {
        let span = KeySpan {
            start: start.as_bytes(),
            end: std::ops::Bound::Included(end.as_bytes()),
        };
        let version = Arc::new(version(text));
        match self
            .context(|context| pick_range(&version, &self.options, context, span, upto, level))
        {
            ManualPick::Work(compaction) => shown(&compaction),
            ManualPick::Busy => "busy".into(),
            ManualPick::Done => "done".into(),
        }
    }
}

/// `Reason Kind L0[9 8] L6[3] -> L6`.
fn shown(compaction: &Compaction) -> String {
    let mut text = format!("{:?} {:?}", compaction.reason, compaction.kind);
    for of_level in compaction.inputs.chunk_by(|(a, _), (b, _)| a == b) {
        let numbers: Vec<_> = of_level
            .iter()
            .map(|(_, table)| table.number.to_string())
            .collect();
        text += &format!(" L{}[{}]", of_level[0].0, numbers.join(" "));
    }
    match compaction.kind {
        Kind::Drop => text,
        _ => text + &format!(" -> L{}", compaction.output_level),
    }
}

/// A full L6 with tables of 100 KiB, so that L5 is the base level.
const L6: &str = "L6: 901[a..e]x100 902[f..j]x100 903[k..o]x100 904[p..t]x100 905[u..z]x100";

#[test]
fn l0_is_merged_when_it_has_enough_tables_or_bytes() {
    let world = World::default();
    assert_eq!(world.pick("L0: 3[a..c] 2[b..d] 1[a..z]"), "nothing");
    assert_eq!(
        world.pick("L0: 4[a..b] 3[a..c] 2[b..d] 1[a..z]"),
        "L0Full Merge L0[4 3 2 1] -> L6"
    );
    assert_eq!(
        world.pick("L0: 2[a..b] 1[b..z]x90"),
        "L0Full Merge L0[2 1] -> L6"
    );
    assert_eq!(world.pick("L0: 2[a..b] 1[b..z]x80"), "nothing");
}

#[test]
fn l0_goes_with_everything_that_overlaps_one_through_the_other_and_the_oldest_first() {
    let world = World::default();
    // 4 overlaps 2, which overlaps 1; 3 and 5 stand apart.
    assert_eq!(
        world.pick("L0: 5[x..z] 4[d..f] 3[m..n] 2[b..d] 1[a..b]\n L6: 11[a..a] 12[e..g] 13[h..i]"),
        "L0Full Merge L0[4 2 1] L6[11 12] -> L6"
    );
    assert_eq!(
        world.pick("L0: 5[x..z] 4[d..f] 3[m..n] 2[b..d) 1[d..e]"),
        "L0Full Merge L0[4 1] -> L6",
        "an exclusive end does not overlap"
    );
}

#[test]
fn a_lone_table_of_l0_moves_unless_it_would_be_compressed() {
    let mut world = World::default();
    let text = "L0: 4[x..z] 3[m..n] 2[d..e] 1[a..b]";
    assert_eq!(world.pick(text), "L0Full Move L0[1] -> L6");
    world.options.compression[6] = Compression::Lz4;
    assert_eq!(world.pick(text), "L0Full Merge L0[1] -> L6");
}

#[test]
fn the_base_level_rises_as_the_last_level_grows() {
    let targets = |text: &str| {
        let targets = LevelTargets::of(&version(text), &options());
        (targets.base, targets.bytes.map(|bytes| bytes >> 10))
    };
    assert_eq!(targets("").0, 6);
    assert_eq!(targets("L6: 1[a..b]x100").0, 6);
    assert_eq!(targets(L6), (5, [100, 100, 100, 100, 100, 100, 500]));
    let (base, bytes) = targets("L6: 1[a..b]x50000");
    assert_eq!((base, &bytes[3..]), (3, &[100, 500, 5000, 50000][..]));
    assert_eq!(
        targets("L3: 2[a..b]x10\n L6: 1[a..b]x100").0,
        3,
        "never below a used level"
    );
    assert_eq!(
        targets("L5: 2[a..b]x50000").0,
        3,
        "the largest level sets the scale"
    );
}

#[test]
fn a_full_level_sheds_the_table_that_rewrites_least() {
    let world = World::default();
    // 1 overlaps two tables below, 2 one, 3 one and is larger.
    let text = format!("L5: 1[d..g]x40 2[k..l]x40 3[m..n]x50\n{L6}");
    assert_eq!(world.pick(&text), "LevelFull Merge L5[3] L6[903] -> L6");
    let small = format!("L5: 1[d..g]x30 2[k..l]x30 3[m..n]x40\n{L6}");
    assert_eq!(
        world.pick(&small),
        "nothing",
        "the target is reached, not exceeded"
    );
}

#[test]
fn tables_full_of_deletes_go_first() {
    // With a snapshot, so that the deletes are not garbage in themselves.
    let world = World::with_snapshots(&[0]);
    let text = format!("L5: 1[a..b]x50d80 2[k..l]x60 3[p..q]x60\n{L6}");
    assert_eq!(world.pick(&text), "LevelFull Merge L5[1] L6[901] -> L6");
}

#[test]
fn neighbours_that_rewrite_nothing_more_come_along() {
    let world = World::with_snapshots(&[0]);
    let text = format!("L5: 1[a..b]x15 2[c..d]x15 3[d2..e]x15 4[k..l]x60\n{L6}");
    assert_eq!(
        world.pick(&text),
        "LevelFull Merge L5[4] L6[903] -> L6",
        "the largest frees the most for the same rewrite"
    );
    let text = format!("L5: 1[a..b]x30d100 2[c..d]x5 3[d2..e]x10 4[k..l]x60\n{L6}");
    assert_eq!(
        world.pick(&text),
        "LevelFull Merge L5[1 2] L6[901] -> L6",
        "up to four tables' bytes"
    );
}

#[test]
fn equally_good_tables_take_turns() {
    let mut world = World::default();
    let text = format!("L5: 1[a..b]x40 2[f..g]x40 3[k..l]x40\n{L6}");
    let mut order = Vec::new();
    for _ in 0..4 {
        let v = Arc::new(version(&text));
        let picked = world
            .context(|c| pick(&v, &world.options, c))
            .expect("the level is full");
        order.push(picked.inputs[0].1.number);
        world.cursors.advance(&picked);
    }
    assert_eq!(order, [1, 2, 3, 1]);
}

#[test]
fn a_move_is_refused_where_it_would_pile_up_overlap_or_keep_garbage() {
    let world = World::with_snapshots(&[0]);
    // L6 of 5000 KiB: L4 is the base level; L5 is empty under the table picked.
    let wide = "L6: 901[a..m]x50 902[n..z]x4950";
    assert_eq!(
        world.pick(&format!("L4: 1[a..b]x120 \n{wide}")),
        "LevelFull Move L4[1] -> L5"
    );
    assert_eq!(
        world.pick(&format!("L4: 1[a..p]x120 \n{wide}")),
        "LevelFull Merge L4[1] -> L5",
        "more than ten tables' bytes lie below"
    );
    let deletes = "L5: 1[a..b]x120d5 2[k..l]x30\n L6: 901[f..g]x200";
    assert_eq!(
        World::default().pick(deletes),
        "LevelFull Merge L5[1] -> L6",
        "the deletes would go if it were rewritten"
    );
    assert_eq!(
        world.pick(deletes),
        "LevelFull Move L5[1] -> L6",
        "a snapshot needs them"
    );
}

#[test]
fn two_compactions_share_no_table_and_no_place() {
    let mut world = World::default();
    let busy_below = L6.replace("903[k..o]x100", "903[k..o]x100*");
    assert_eq!(
        world.pick(&format!(
            "L5: 1[d..g]x40 2[k..l]x40 3[m..n]x50\n{busy_below}"
        )),
        "LevelFull Merge L5[1] L6[901 902] -> L6"
    );
    assert_eq!(
        world.pick(&format!("L5: 1[d..g]x40 2[k..l]x40 3[m..n]x50*\n{L6}")),
        "nothing",
        "what is left without the busy table is within the target"
    );
    assert_eq!(
        world.pick(&format!("L5: 1[d..g]x60 2[k..l]x80 3[m..n]x50*\n{L6}")),
        "LevelFull Merge L5[2] L6[903] -> L6"
    );
    let range = |start: &'static [u8], end: &'static [u8]| KeySpan {
        start,
        end: std::ops::Bound::Included(end),
    };
    world.running = vec![Target {
        level: 6,
        range: range(b"i", b"o").to_range(),
    }];
    assert_eq!(
        world.pick(&format!("L5: 1[a..b]x60 2[k..l]x80\n{L6}")),
        "LevelFull Merge L5[1] L6[901] -> L6",
        "others write into [i, o]"
    );
    world.running = vec![Target {
        level: 6,
        range: range(b"d", b"o").to_range(),
    }];
    assert_eq!(
        world.pick(&format!("L5: 1[a..b]x60 2[k..l]x80\n{L6}")),
        "nothing",
        "901 reaches in"
    );
}

#[test]
fn l0_has_one_compaction_at_a_time_and_keeps_the_base_level_from_starting_more() {
    let world = World::default();
    let busy_l0 = "L0: 5[a..b] 4[a..b] 3[a..b] 2[a..b] 1[m..n]*";
    assert_eq!(world.pick(busy_l0), "nothing");
    let l0 = "L0: 8[a..z] 7[a..b] 6[a..b] 5[a..b] 4[a..b] 3[a..b]";
    assert_eq!(
        world.pick(&format!(
            "{l0}\n L5: 101[a..b]x60 102[k..l]x60 103[p..q]*\n{L6}"
        )),
        "nothing",
        "L0 waits for 103, and 101 and 102 must not start meanwhile"
    );
    assert_eq!(
        world.pick(&format!(
            "{l0}\n L5: 101[a..b]x90 102[k..l]x90 103[p..q]*\n{L6}"
        )),
        "LevelFull Merge L5[101] L6[901] -> L6",
        "unless the base level is in more need"
    );
}

#[test]
fn tables_under_a_newer_range_delete_are_dropped_from_every_level() {
    let mut world = World {
        tombstones: vec![(20, "c", "k", 205), (20, "k", "p", 203)],
        ..World::default()
    };
    let text = "L0: 21[d..e] 20[c..p)t2 19[d..f] 18[b..d]\n L5: 5[c..d] 6[m..q]\n L6: 7[d..e] 8[g..m] 9[n..p]";
    // 21 is newer, 18, 6 and 9 reach out of the range.
    assert_eq!(world.pick(text), "RangeDelete Drop L0[19] L5[5] L6[7 8]");
    world.tombstones = vec![(20, "c", "k", 205), (20, "k2", "p", 203)];
    assert_eq!(
        world.pick(text),
        "RangeDelete Drop L0[19] L5[5] L6[7]",
        "a gap in the range"
    );
}

#[test]
fn a_snapshot_between_a_table_and_its_range_delete_keeps_the_table() {
    let text = "L0: 20[c..p)t1\n L6: 7[d..e]#50-60 8[f..g]#1-9";
    let world = |snapshots: &[u64]| World {
        tombstones: vec![(20, "c", "p", 205)],
        ..World::with_snapshots(snapshots)
    };
    assert_eq!(world(&[]).pick(text), "RangeDelete Drop L6[7 8]");
    assert_eq!(world(&[205]).pick(text), "RangeDelete Drop L6[7 8]");
    assert_eq!(
        world(&[49]).pick(text),
        "RangeDelete Drop L6[7]",
        "8 is seen at 49"
    );
    assert_eq!(world(&[204]).pick(text), "nothing");
    assert_eq!(
        world(&[50]).pick(text),
        "nothing",
        "part of 7 is seen at 50"
    );
    let mut not_yet = world(&[]);
    not_yet.boundaries = vec![SequenceNumber(204)];
    assert_eq!(
        not_yet.pick(text),
        "nothing",
        "the range delete is not visible yet"
    );
    assert_eq!(
        world(&[]).pick("L0: 20[c..p)t1\n L6: 7[d..e]#50-206"),
        "nothing",
        "not all older"
    );
}

#[test]
fn deletes_that_hide_nothing_are_cleaned_and_tables_of_deletes_sink() {
    let world = World::default();
    assert_eq!(
        world.pick("L6: 1[a..b] 2[c..d]d1"),
        "Garbage Merge L6[2] -> L6"
    );
    assert_eq!(
        world.pick("L5: 1[a..b]d1\n L6: 2[c..d]"),
        "Garbage Merge L5[1] -> L5"
    );
    assert_eq!(world.pick("L5: 1[a..b]d49\n L6: 2[b..d]"), "nothing");
    assert_eq!(
        world.pick("L5: 1[a..b]d50\n L6: 2[b..d]"),
        "Garbage Merge L5[1] L6[2] -> L6"
    );
    assert_eq!(world.pick("L6: 2[c..d]d1*"), "nothing");
    assert_eq!(
        World::with_snapshots(&[4]).pick("L6: 2[c..d]d1#3-5"),
        "nothing"
    );
    assert_eq!(
        World::with_snapshots(&[5]).pick("L6: 2[c..d]t1#3-5"),
        "Garbage Merge L6[2] -> L6"
    );
    let old_versions = "L6: 2[c..d]h1#3-5";
    assert_eq!(World::with_snapshots(&[4]).pick(old_versions), "nothing");
    assert_eq!(world.pick(old_versions), "Garbage Merge L6[2] -> L6");
}

#[test]
fn a_range_is_compacted_level_by_level_down_to_clean_tables() {
    let world = World::default();
    let text =
        "L0: 13[x..z] 12[c..e] 11[a..d]\n L5: 5[a..b] 6[g..h] 7[i..j]*\n L6: 8[a..c] 9[h..k]d3";
    assert_eq!(
        world.manual(text, 0, "e", "f"),
        "Manual Merge L0[12 11] L5[5] -> L5"
    );
    assert_eq!(world.manual(text, 0, "g", "h"), "done");
    assert_eq!(world.manual(text, 3, "a", "z"), "done");
    assert_eq!(
        world.manual(text, 5, "b", "z"),
        "Manual Merge L5[5 6] L6[8 9] -> L6"
    );
    assert_eq!(world.manual(text, 5, "i", "z"), "busy");
    assert_eq!(world.manual(text, 5, "k", "z"), "done");
    assert_eq!(world.manual(text, 6, "a", "z"), "Manual Merge L6[9] -> L6");
    assert_eq!(world.manual(text, 6, "a", "d"), "done");
    assert_eq!(world.manual("L0: 2[a..b]*", 0, "a", "z"), "busy");
    assert_eq!(
        world.manual("L4: 2[a..b]\n L6: 3[c..d]", 4, "a", "z"),
        "Manual Move L4[2] -> L5"
    );
}

#[test]
fn a_range_is_compacted_without_the_tables_of_later_writes_unless_they_are_in_the_way() {
    let world = World::default();
    let manual = |text, level| world.manual_upto(SequenceNumber(130), text, level, "a", "z");
    let l0 = "L0: 15[a..c] 14[x..z] 13[b..d] 12[e..f]\n L6: 8[a..k]";
    assert_eq!(manual(l0, 0), "Manual Merge L0[15 13 12] L6[8] -> L6");
    assert_eq!(manual("L0: 15[a..c] 14[x..z]\n L6: 8[a..k]", 0), "done");
    let l5 = "L5: 5[a..b]#140-150 6[g..h]#130-150 7[i..j]#131-150\n L6: 8[a..k]";
    assert_eq!(manual(l5, 5), "Manual Merge L5[6] L6[8] -> L6");
}

#[test]
fn an_ingested_table_goes_below_everything_it_does_not_overlap_and_out_of_others_way() {
    let v = version("L0: 9[a..c]\n L5: 5[e..g]\n L6: 8[i..k]");
    let span = |start: &'static [u8], end: &'static [u8]| KeySpan {
        start,
        end: std::ops::Bound::Included(end),
    };
    let running = [
        Target {
            level: 6,
            range: span(b"p", b"q").to_range(),
        },
        Target {
            level: 5,
            range: span(b"p", b"p").to_range(),
        },
    ];
    let level = |start, end| ingest_level(&v, &running, span(start, end));
    assert_eq!(level(b"b", b"d"), 0);
    assert_eq!(level(b"d", b"e"), 4);
    assert_eq!(level(b"h", b"i"), 5);
    assert_eq!(level(b"m", b"n"), 6);
    assert_eq!(level(b"q", b"r"), 5);
    assert_eq!(level(b"n", b"p"), 4);
}

#[test]
fn claimed_tables_are_free_again_when_the_compaction_is_dropped() {
    let v = Arc::new(version("L0: 4[a..b] 3[a..c] 2[b..d] 1[a..z]"));
    let world = World::default();
    let mut compaction = world
        .context(|c| pick(&v, &world.options, c))
        .expect("L0 is full");
    assert!(
        v.level(0).iter().all(|table| !table.is_being_compacted()),
        "picking marks nothing"
    );
    compaction.claim();
    assert!(v.level(0).iter().all(|table| table.is_being_compacted()));
    assert!(world.context(|c| pick(&v, &world.options, c)).is_none());
    drop(compaction);
    assert!(v.level(0).iter().all(|table| !table.is_being_compacted()));
}

#[test]
fn pending_bytes_grow_with_what_is_above_the_targets() {
    let pending = |text: &str| super::super::pending_bytes(&version(text), &options()) >> 10;
    assert_eq!(pending(L6), 0);
    assert_eq!(pending(&format!("L5: 1[a..z]x100\n{L6}")), 0);
    // 100 KiB too much, and half of L6 with it.
    assert_eq!(pending(&format!("L5: 1[a..z]x200\n{L6}")), 350);
    assert_eq!(pending("L0: 4[a..b] 3[a..c] 2[b..d] 1[a..z]"), 40);
    assert_eq!(pending("L0: 3[a..c] 2[b..d] 1[a..z]"), 0);
}
