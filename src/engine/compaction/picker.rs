//! Which tables to compact next: a pure function of a version and of what is running.
//!
//! In this order: tables that lie under a range delete are dropped; the level that exceeds its target
//! most sheds tables, those first that rewrite the least for what they free; tables whose deletes have
//! nothing left to do are cleaned. Two compactions never share a table, nor put tables into the same
//! keys of a level. L0 has one compaction at a time, because its tables overlap.

use std::{collections::HashSet, sync::Arc};

use super::{
    Compaction, Kind, Reason, Target, garbage, is_bottom, is_settled,
    levels::{LevelTargets, score},
    overlap_limit,
};
use crate::{
    clock::Life,
    faults::{Fault, Faults},
    key::SequenceNumber,
    options::{CfOptions, LEVELS},
    tombstones::Tombstones,
    values::crowded,
    version::{KeySpan, TableMeta, Version},
};

type Tables = Vec<Arc<TableMeta>>;

/// What the picker has to know besides the tables.
pub(crate) struct PickContext<'a> {
    /// Sequence numbers in use by snapshots, ascending, and at the end the one visible now.
    pub(crate) boundaries: &'a [SequenceNumber],
    /// The earliest time of a reader, in milliseconds.
    pub(crate) oldest_time: u64,
    pub(crate) faults: Faults,
    /// Where running compactions of this family put their outputs.
    pub(crate) running: &'a [Target],
    /// Where the last compactions of this family took place.
    pub(crate) cursors: &'a Cursors,
    /// The range tombstones of a table that has some; `None` where they cannot be had now.
    pub(crate) tombstones: &'a dyn Fn(&TableMeta) -> Option<Arc<Tombstones>>,
}

/// The key behind the last compaction of each level, so that equally good tables take turns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cursors([Vec<u8>; LEVELS]);

impl Cursors {
    /// Notes that `compaction` was chosen.
    pub(crate) fn advance(&mut self, compaction: &Compaction) {
        if let Some((level, table)) = compaction
            .inputs
            .iter()
            .rev()
            .find(|(level, _)| *level == compaction.level)
        {
            self.0[*level].clone_from(&table.info.largest);
        }
    }
}

/// The most useful compaction that can start now.
pub(crate) fn pick(
    version: &Arc<Version>,
    options: &CfOptions,
    context: &PickContext<'_>,
) -> Option<Compaction> {
    let picker = Picker {
        version,
        options,
        context,
        targets: LevelTargets::of(version, options),
    };
    picker
        .pick_drop()
        .or_else(|| picker.pick_expired())
        .or_else(|| picker.pick_by_score())
        .or_else(|| picker.pick_garbage())
        .or_else(|| picker.pick_half_expired())
        .or_else(|| picker.pick_values())
}

/// The next step of compacting a range by hand.
#[derive(Debug)]
pub(crate) enum ManualPick {
    /// Do this, and ask again.
    Work(Compaction),
    /// A running compaction is in the way: ask again when one has ended.
    Busy,
    /// Nothing is left to do on this level: go on with the next.
    Done,
}

/// The next step of compacting the tables of `level` that overlap `span` one level down, or of cleaning
/// those of the last level. Tables that hold nothing up to `upto` are left alone, so that it comes to an end
/// while writes go on. A caller that asks for each level from 0 until it is done has merged everything
/// written up to there into the last level, without deletes that no snapshot needs.
pub(crate) fn pick_range(
    version: &Arc<Version>,
    options: &CfOptions,
    context: &PickContext<'_>,
    span: KeySpan<'_>,
    upto: SequenceNumber,
    level: usize,
) -> ManualPick {
    let picker = Picker {
        version,
        options,
        context,
        targets: LevelTargets::of(version, options),
    };
    let tables = version.tables_overlapping(level, span);
    if level == LEVELS - 1 {
        return picker.pick_range_in_last(&tables);
    }
    let is_old = |table: &&Arc<TableMeta>| table.min_seq() <= upto;
    let neighbours = tables.iter().skip_while(|table| !is_old(table));
    let tables: Tables = if level == 0 {
        tables.iter().filter(is_old).cloned().collect()
    } else {
        neighbours.take_while(is_old).cloned().collect()
    };
    if tables.is_empty() {
        return ManualPick::Done;
    }
    let picked = if level == 0 {
        picker.l0_compaction(tables, Reason::Manual)
    } else {
        picker.level_compaction(level, tables, Reason::Manual)
    };
    picked.map_or(ManualPick::Busy, ManualPick::Work)
}

/// The lowest level that takes a table of `span`, newer than everything in `version`, without a merge.
pub(crate) fn ingest_level(version: &Version, running: &[Target], span: KeySpan<'_>) -> usize {
    let free = (0..LEVELS)
        .take_while(|&level| !version.overlaps(level, span))
        .count();
    let taken = |level: usize| {
        running
            .iter()
            .any(|target| target.level == level && target.range.span().overlaps(span))
    };
    (1..free).rev().find(|&level| !taken(level)).unwrap_or(0)
}

struct Picker<'a> {
    version: &'a Arc<Version>,
    options: &'a CfOptions,
    context: &'a PickContext<'a>,
    targets: LevelTargets,
}

impl Picker<'_> {
    /// Tables under range deletes that are newer than all of them, where no snapshot stands between: under those of one table
    /// of L0, or of all tables of another level together.
    fn pick_drop(&self) -> Option<Compaction> {
        let mut dead: Vec<(usize, Arc<TableMeta>)> = Vec::new();
        let mut known: HashSet<u64> = HashSet::new();
        for (level, over) in self
            .version
            .tables()
            .filter(|(_, table)| table.info.tombstones > 0)
        {
            let below = (level + 1..LEVELS).flat_map(|lower| {
                let run = self.version.run(lower, over.span()).iter();
                run.map(move |table| (lower, table))
            });
            // In L0 the tables after it are older.
            let newest_first = self.version.level(0).iter();
            let older = newest_first.skip_while(|table| table.number != over.number);
            let candidates = older.skip(1).map(|table| (0, table)).chain(below);
            for (lower, table) in candidates {
                if !table.is_being_compacted()
                    && !known.contains(&table.number)
                    && self.is_under(table, level, over)
                {
                    known.insert(table.number);
                    dead.push((lower, Arc::clone(table)));
                }
            }
        }
        self.drop_whole(dead, Reason::RangeDelete)
    }

    fn drop_whole(&self, dead: Vec<(usize, Arc<TableMeta>)>, reason: Reason) -> Option<Compaction> {
        let level = dead.first()?.0;
        Some(Compaction {
            kind: Kind::Drop,
            reason,
            level,
            output_level: level,
            inputs: dead,
            version: Arc::clone(self.version),
            claimed: false,
        })
    }

    /// Tables all of whose rows are past their time for every reader, and that hide nothing: what they overlap further down
    /// goes with them.
    fn pick_expired(&self) -> Option<Compaction> {
        let ttl = self.options.ttl_millis()?;
        let life = Life::at(self.context.oldest_time, ttl);
        let is_over = |table: &TableMeta| {
            let times = table.info.times;
            times.is_some_and(|(_, newest)| life.is_over(newest))
        };
        let mut dead: Vec<(usize, Arc<TableMeta>)> = Vec::new();
        let mut known: HashSet<u64> = HashSet::new();
        for level in (0..LEVELS).rev() {
            // The oldest of L0 come first: those before them are above.
            for table in self.version.level(level).iter().rev() {
                if table.is_being_compacted() || !is_over(table) {
                    continue;
                }
                let is_dead = |below: &Arc<TableMeta>| known.contains(&below.number);
                let lower = (level.max(1)..LEVELS)
                    .filter(|&lower| lower > level)
                    .all(|lower| self.version.run(lower, table.span()).iter().all(is_dead));
                let older = self.version.level(0).iter();
                let mut older = older
                    .skip_while(|other| other.number != table.number)
                    .skip(1);
                if lower
                    && older.all(|other| !other.span().overlaps(table.span()) || is_dead(other))
                {
                    known.insert(table.number);
                    dead.push((level, Arc::clone(table)));
                }
            }
        }
        self.drop_whole(dead, Reason::Expired)
    }

    /// A table with nothing below it, half of whose rows may be past their time.
    fn pick_half_expired(&self) -> Option<Compaction> {
        let ttl = self.options.ttl_millis()?;
        let life = Life::at(self.context.oldest_time, ttl);
        self.version.tables().find_map(|(level, table)| {
            let (oldest, newest) = table.info.times?;
            let due = life.is_over(oldest) && life.is_over(oldest.midpoint(newest));
            if !due || level == 0 || !is_bottom(self.version, level, table.span()) {
                return None;
            }
            self.compaction(level, level, vec![Arc::clone(table)], Reason::Expired)
        })
    }

    /// True where no reader sees anything of `table` because of the range deletes of `over`, a table of `level`; below
    /// L0 with those of its neighbours.
    fn is_under(&self, table: &TableMeta, level: usize, over: &Arc<TableMeta>) -> bool {
        // The first reader that sees anything of the table must see the range deletes too.
        let boundaries = self.context.boundaries;
        let first = if self.context.faults.is(Fault::DropSeenBySnapshot) {
            boundaries.len().saturating_sub(1)
        } else {
            boundaries.partition_point(|&seq| seq < table.min_seq())
        };
        let Some(&reader) = boundaries.get(first) else {
            return false;
        };
        let mut key = table.info.smallest.clone();
        loop {
            let here = if level == 0 {
                Some(over)
            } else {
                self.version.find(level, &key)
            };
            let Some(here) = here.filter(|here| here.info.tombstones > 0) else {
                return false;
            };
            let Some(tombstones) = (self.context.tombstones)(here) else {
                return false;
            };
            let Some(cover) = tombstones.cover(&key, reader) else {
                return false;
            };
            if cover.seq <= table.max_seq() {
                return false;
            }
            if table.span().ends_before(cover.end) {
                return true;
            }
            key = cover.end.to_vec();
        }
    }

    fn pick_by_score(&self) -> Option<Compaction> {
        let mut due: Vec<(u64, usize)> = (0..LEVELS - 1)
            .map(|level| {
                (
                    score(self.version, self.options, &self.targets, level),
                    level,
                )
            })
            .filter(|&(score, level)| score > 1000 && !self.version.level(level).is_empty())
            .collect();
        due.sort_by_key(|&(score, level)| (std::cmp::Reverse(score), level));
        let mut l0_waits = false;
        for (_, level) in due {
            // What L0 waits for is that the base level comes to rest.
            if l0_waits && level == self.targets.base {
                continue;
            }
            let picked = if level == 0 {
                self.pick_l0()
            } else {
                self.pick_from_level(level)
            };
            if picked.is_some() {
                return picked;
            }
            l0_waits |= level == 0;
        }
        None
    }

    /// The oldest table of L0 with all that overlap it.
    fn pick_l0(&self) -> Option<Compaction> {
        let oldest = Arc::clone(self.version.level(0).last()?);
        self.l0_compaction(vec![oldest], Reason::L0Full)
    }

    /// `tables` of L0, all tables of L0 that overlap them, one through the other, and what they overlap in
    /// the base level. `None` while L0 or one of these is busy.
    fn l0_compaction(&self, mut tables: Tables, reason: Reason) -> Option<Compaction> {
        if self
            .version
            .level(0)
            .iter()
            .any(|table| table.is_being_compacted())
        {
            return None;
        }
        loop {
            let hull = KeySpan::hull(tables.iter().map(|table| table.span()))?;
            let all = self.version.tables_overlapping(0, hull);
            let grown = all.len() > tables.len();
            tables = all;
            if !grown {
                return self.compaction(0, self.targets.base, tables, reason);
            }
        }
    }

    /// The table of `level` that frees the most for what has to be rewritten, with neighbours that
    /// rewrite no more.
    fn pick_from_level(&self, level: usize) -> Option<Compaction> {
        let tables = self.version.level(level);
        let cursor = &self.context.cursors.0[level];
        let turn = tables.partition_point(|table| table.info.smallest < *cursor);
        let mut best: Option<(u64, usize)> = None;
        for at in (turn..tables.len()).chain(0..turn) {
            let Some(cost) = self.cost(level, &tables[at]) else {
                continue;
            };
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, at));
            }
        }
        let (_, at) = best?;
        self.level_compaction(level, self.with_neighbours(level, at), Reason::LevelFull)
    }

    /// Bytes to rewrite in thousandths of what the table frees; deletes count, since they free what they
    /// hide. `None` where the table cannot be taken now.
    fn cost(&self, level: usize, table: &TableMeta) -> Option<u64> {
        let below = self.version.run(level + 1, table.span());
        if table.is_being_compacted()
            || below.iter().any(|table| table.is_being_compacted())
            || self.is_taken(level + 1, table.span())
        {
            return None;
        }
        let rewritten = below
            .iter()
            .fold(0_u128, |sum, table| sum + u128::from(table.info.size));
        let info = &table.info;
        let dead = u128::from(garbage(table));
        let all = u128::from(info.entries) + u128::from(info.tombstones);
        let size = u128::from(info.size);
        let freed = size + 4 * size * dead / all.max(1);
        Some(u64::try_from(rewritten * 1000 / freed.max(1)).unwrap_or(u64::MAX))
    }

    /// The table at `at`, and tables beside it as long as the same tables below are rewritten.
    fn with_neighbours(&self, level: usize, at: usize) -> Tables {
        let tables = self.version.level(level);
        let below = self.version.run(level + 1, tables[at].span()).len();
        let limit = self.options.table_bytes.saturating_mul(4);
        let (mut from, mut to) = (at, at + 1);
        let fits = |from: usize, to: usize| {
            let chosen = &tables[from..to];
            let bytes = chosen
                .iter()
                .fold(0, |sum: u64, t| sum.saturating_add(t.info.size));
            let hull = KeySpan::hull(chosen.iter().map(|table| table.span()));
            bytes <= limit
                && chosen.iter().all(|table| !table.is_being_compacted())
                && hull.is_some_and(|hull| {
                    self.version.run(level + 1, hull).len() == below
                        && !self.is_taken(level + 1, hull)
                })
        };
        while to < tables.len() && fits(from, to + 1) {
            to += 1;
        }
        while from > 0 && fits(from - 1, to) {
            from -= 1;
        }
        tables[from..to].to_vec()
    }

    /// The first of `tables`, neighbours of `level`, up to a bound on their bytes, one level down; `None` when
    /// something is in the way of the first.
    fn level_compaction(&self, level: usize, tables: Tables, reason: Reason) -> Option<Compaction> {
        let limit = self.options.table_bytes.saturating_mul(16);
        let mut bytes = 0_u64;
        let mut fit = 0;
        while fit < tables.len() && (fit == 0 || bytes < limit) && !tables[fit].is_being_compacted()
        {
            bytes = bytes.saturating_add(tables[fit].info.size);
            fit += 1;
        }
        // Where a table below is busy, fewer tables may do.
        (1..=fit)
            .rev()
            .find_map(|count| self.compaction(level, level + 1, tables[..count].to_vec(), reason))
    }

    /// `upper` of `level` into `output_level`, with what they overlap there, if nothing is in the way.
    fn compaction(
        &self,
        level: usize,
        output_level: usize,
        upper: Tables,
        reason: Reason,
    ) -> Option<Compaction> {
        let hull = KeySpan::hull(upper.iter().map(|table| table.span()))?;
        let lower = if output_level == level {
            &[]
        } else {
            self.version.run(output_level, hull)
        };
        // What they overlap may reach further, into keys where another compaction puts its tables.
        let reach = KeySpan::hull(lower.iter().map(|table| table.span()).chain([hull]))?;
        let busy = |table: &Arc<TableMeta>| table.is_being_compacted();
        if upper.iter().any(busy) || lower.iter().any(busy) || self.is_taken(output_level, reach) {
            return None;
        }
        let kind = if lower.is_empty() && self.may_move(level, output_level, &upper, hull) {
            Kind::Move
        } else {
            Kind::Merge
        };
        let inputs = upper
            .iter()
            .map(|table| (level, Arc::clone(table)))
            .chain(lower.iter().map(|table| (output_level, Arc::clone(table))))
            .collect();
        Some(Compaction {
            kind,
            reason,
            level,
            output_level,
            inputs,
            version: Arc::clone(self.version),
            claimed: false,
        })
    }

    /// True where rewriting `upper`, which overlap nothing in `output_level`, would gain nothing.
    fn may_move(
        &self,
        level: usize,
        output_level: usize,
        upper: &Tables,
        hull: KeySpan<'_>,
    ) -> bool {
        let cleans = is_bottom(self.version, output_level, hull)
            && upper.iter().any(|table| self.is_cleanable(table));
        let overlapped = if output_level + 1 < LEVELS {
            upper
                .iter()
                .map(|table| bytes_of(self.version.run(output_level + 1, table.span())))
                .max()
                .unwrap_or(0)
        } else {
            0
        };
        // On the way out of L0 each row meets the filter and each operand what it is about.
        let looks_at_rows =
            self.options.compaction_filter.is_some() || self.options.merge_operator.is_some();
        level != output_level
            && (level > 0 || (upper.len() == 1 && !looks_at_rows))
            && self.options.compression[level] == self.options.compression[output_level]
            && overlapped <= overlap_limit(self.options)
            && !cleans
    }

    /// True where a rewrite at the bottom would remove all garbage of the table.
    fn is_cleanable(&self, table: &TableMeta) -> bool {
        garbage(table) > 0 && is_settled(table, self.context.boundaries)
    }

    /// What is of no use any more is rewritten away; tables of little else than deletes go down to
    /// what they hide.
    fn pick_garbage(&self) -> Option<Compaction> {
        let cleanable =
            |table: &Arc<TableMeta>| !table.is_being_compacted() && self.is_cleanable(table);
        (1..LEVELS).rev().find_map(|level| {
            self.version
                .level(level)
                .iter()
                .filter(|table| cleanable(table))
                .find_map(|table| {
                    let one = vec![Arc::clone(table)];
                    if is_bottom(self.version, level, table.span()) {
                        self.compaction(level, level, one, Reason::Garbage)
                    } else if garbage(table).saturating_mul(2) >= table.info.entries {
                        self.compaction(level, level + 1, one, Reason::Garbage)
                    } else {
                        None
                    }
                })
        })
    }

    /// A table that needs the value file with the most garbage, of those that are mostly garbage: rewritten where it
    /// is, it needs that file no more. Tables of L0 are left to what L0 is due.
    fn pick_values(&self) -> Option<Compaction> {
        let crowded = crowded(self.version);
        let mut files: Vec<_> = crowded
            .into_iter()
            .map(|(file, garbage)| (garbage, file))
            .collect();
        files.sort_unstable_by(|a, b| b.cmp(a));
        let needs = |table: &TableMeta, number: u64| {
            (table.values.iter()).any(|(file, _)| file.record.number == number)
        };
        files.iter().find_map(|&(_, file)| {
            let tables = self.version.tables().filter(|&(level, _)| level > 0);
            tables
                .filter(|(_, table)| !table.is_being_compacted() && needs(table, file))
                .find_map(|(level, table)| {
                    self.compaction(level, level, vec![Arc::clone(table)], Reason::Values)
                })
        })
    }

    fn pick_range_in_last(&self, tables: &Tables) -> ManualPick {
        let Some(table) = tables.iter().find(|table| self.is_cleanable(table)) else {
            return ManualPick::Done;
        };
        let last = LEVELS - 1;
        self.compaction(last, last, vec![Arc::clone(table)], Reason::Manual)
            .map_or(ManualPick::Busy, ManualPick::Work)
    }

    /// True where a running compaction puts tables into keys of `span` in `level`.
    fn is_taken(&self, level: usize, span: KeySpan<'_>) -> bool {
        self.context
            .running
            .iter()
            .any(|target| target.level == level && target.range.span().overlaps(span))
    }
}

fn bytes_of(tables: &[Arc<TableMeta>]) -> u64 {
    tables
        .iter()
        .fold(0, |sum: u64, table| sum.saturating_add(table.info.size))
}

#[cfg(test)]
#[path = "picker_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "picker_random_tests.rs"]
mod random_tests;
