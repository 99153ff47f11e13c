//! Carrying a plan out: second names in `lost/`, new files, the switch, and then the old names go.

use std::{collections::BTreeMap, io, path::Path, sync::Arc};

use super::{
    FamilyPlan, KnownValues, LOST, LogPlan, Plan, Planner, RepairOptions, TablePlan, log,
    state::Known, values::Placer,
};
use crate::{
    append::Appends,
    batch::FamilyId,
    cache::BlockCache,
    checkpoint::write_mark,
    db::next_instance,
    error::{Error, Result},
    faults::Faults,
    filename,
    fs::{Fs, ReadMode},
    ingest::link_or_copy,
    iter::{InternalIterator, merging::MergingIter},
    key::SequenceNumber,
    log_files::{LiveSegment, LogFiles},
    numbers::FileNumbers,
    options::{LEVELS, Options},
    recovery::{self, Found, RecoveryReport, create_directory},
    table::{Table, TableBuilder, TableIdentity, TableIter, salvage},
    tombstones::Tombstones,
    version::{FamilyCreated, LogStart, ManifestState, TableAdded, TableRecord, VersionEdit},
    wal::{
        chain::{self, DirSegments, Wanted},
        current,
        manifest_file::ManifestWriter,
        mark::{Mark, MarkFound},
    },
};

/// True where the log can be read from `start` on as an open would, and has all entries of append families.
pub(super) fn log_is_sound(
    planner: &Planner<'_>,
    known: &Known,
    families: &BTreeMap<FamilyId, FamilyPlan>,
    db: u64,
    start: LogStart,
) -> Result<bool> {
    let (fs, dir) = (planner.fs, planner.dir);
    let wanted = Wanted {
        db,
        oldest: start.segment,
        base: start.base,
        mark: planner.mark.map_or(MarkFound::Absent, MarkFound::Good),
        faults: Faults::default(),
    };
    let is_damage = |error: Error| match error {
        // What the device does not give is damage too.
        Error::Corruption { .. } | Error::Io { .. } => Ok(false),
        error => Err(error),
    };
    let log = match chain::plan(&DirSegments { fs, dir }, &wanted) {
        Ok(log) => log,
        Err(error) => return is_damage(error),
    };
    let mut edit = edit_of(db, known.next_family_id.max(1), families);
    edit.next_file_number = Some(known.next_file_number.max(start.segment + 1));
    edit.last_seq = Some(SequenceNumber(known.last_seq));
    edit.log = Some(start);
    let mut state = ManifestState::default();
    if state.apply(&edit).is_err() {
        return Ok(false);
    }
    let mut found = Found {
        manifest_number: 0,
        edits: 0,
        manifest_bytes: 0,
        state,
        log,
        files: Vec::new(),
        report: RecoveryReport::default(),
    };
    let replayed = recovery::make_families(&found.state, next_instance());
    if let Err(error) = recovery::replay(fs, dir, &mut found, &replayed, &mut |_| Ok(())) {
        return is_damage(error);
    }
    let numbers = Arc::new(FileNumbers::new(u64::MAX / 2));
    let logs = LogFiles::new(dir, planner.options, numbers);
    for segment in &found.log.segments {
        logs.push_live(LiveSegment {
            number: segment.number,
            base: segment.base,
            file: None,
        });
    }
    Ok(Appends::recovered(&replayed, &logs, found.log.end).is_ok())
}

/// The families, without tables.
fn edit_of(
    db: u64,
    next_family_id: FamilyId,
    families: &BTreeMap<FamilyId, FamilyPlan>,
) -> VersionEdit {
    let mut edit = VersionEdit {
        db_id: Some(db),
        next_family_id: Some(next_family_id),
        ..VersionEdit::default()
    };
    for (&id, family) in families {
        edit.created.push(FamilyCreated {
            id,
            name: family.name.clone(),
            options: family.options.clone(),
        });
    }
    edit
}

struct Actor<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    options: &'a Options,
    values: &'a KnownValues,
    next: u64,
}

impl Actor<'_> {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.fs
            .sync_dir(dir)
            .map_err(|e| Error::io("sync directory", dir, e))
    }

    fn builder(&mut self, family: &FamilyPlan, level: usize) -> Result<(u64, TableBuilder)> {
        let number = self.number();
        let path = filename::table(self.dir, number);
        let file = self
            .fs
            .create(&path)
            .map_err(|e| Error::io("create", &path, e))?;
        let id = self.options.executor.random();
        Ok((
            number,
            TableBuilder::new(file, path, id, &family.options, level),
        ))
    }

    /// Writes what can be read of a table anew.
    fn rewrite(&mut self, family: &FamilyPlan, table: &TablePlan) -> Result<TableRecord> {
        let old = &table.record;
        let path = filename::table(self.dir, old.number);
        let file = self
            .fs
            .open(&path, ReadMode::Pread)
            .map_err(|e| Error::io("open", &path, e))?;
        let (number, mut builder) = self.builder(family, table.level)?;
        let mut placer = Placer::new(self.fs, self.dir, self.values);
        let found = salvage(&*file, old.info.table_id, |key, value| {
            placer
                .place(key, value, |key, value| builder.add(key, value))
                .map(drop)
        })?;
        for tombstone in found.tombstones.iter().flat_map(Tombstones::all) {
            builder.add_tombstone(&tombstone);
        }
        let info = builder.finish()?;
        Ok(TableRecord {
            number,
            hidden: old.hidden.min(info.entries),
            global_seq: old.global_seq,
            values: self.values.uses(&placer.needs),
            info,
        })
    }

    /// One table of all rows of `tables`, which are sound.
    fn merge(&mut self, family: &FamilyPlan, tables: &[TableRecord]) -> Result<TableRecord> {
        let (mut runs, mut sets): (Vec<TableIter>, Vec<_>) = (Vec::new(), Vec::new());
        for record in tables {
            let path = filename::table(self.dir, record.number);
            let file = self
                .fs
                .open(&path, ReadMode::Pread)
                .map_err(|e| Error::io("open", &path, e))?;
            let identity = TableIdentity {
                table_id: record.info.table_id,
                size: record.info.size,
            };
            let (seq, cache) = (record.global_seq, BlockCache::new(0));
            let table = Arc::new(Table::open(
                file,
                &path,
                record.number,
                &identity,
                seq,
                cache,
            )?);
            sets.push(Arc::clone(table.tombstones()));
            runs.push(table.iter_once());
        }
        let (number, mut builder) = self.builder(family, LEVELS - 1)?;
        let mut placer = Placer::new(self.fs, self.dir, self.values);
        let mut iter = MergingIter::new(runs);
        iter.seek_to_first()?;
        while iter.valid() {
            // A table and what it was compacted into have the same rows.
            if builder.may_follow(iter.key()) {
                placer.place(iter.key(), iter.value(), |key, value| {
                    builder.add(key, value)
                })?;
            }
            iter.next()?;
        }
        let deletes = sets.iter().flat_map(|set| set.all()).collect();
        for tombstone in Tombstones::new(deletes).all() {
            builder.add_tombstone(&tombstone);
        }
        Ok(TableRecord {
            number,
            info: builder.finish()?,
            hidden: 0,
            global_seq: None,
            values: self.values.uses(&placer.needs),
        })
    }

    fn tables(&mut self, id: FamilyId, family: &FamilyPlan) -> Result<Vec<TableAdded>> {
        let mut added = Vec::new();
        for table in &family.tables {
            let record = if table.rewrite {
                self.rewrite(family, table)?
            } else {
                table.record.clone()
            };
            added.push(TableAdded {
                family: id,
                level: table.level,
                table: record,
            });
        }
        if !family.merge || added.is_empty() {
            return Ok(added);
        }
        let all: Vec<TableRecord> = added.into_iter().map(|added| added.table).collect();
        Ok(vec![TableAdded {
            family: id,
            level: LEVELS - 1,
            table: self.merge(family, &all)?,
        }])
    }
}

/// Carries out `plan`.
pub(super) fn act(
    dir: &Path,
    options: &Options,
    repair: &RepairOptions,
    plan: &Plan,
) -> Result<()> {
    let fs = &*options.fs;
    let mut actor = Actor {
        fs,
        dir,
        options,
        values: &plan.values,
        next: plan.next_file_number,
    };
    let mut aside = plan.aside.clone();
    let merged = plan.families.values().filter(|family| family.merge);
    for table in merged.flat_map(|family| &family.tables) {
        aside.push(super::table_name(table.record.number));
    }
    aside.sort();
    aside.dedup();
    put_aside(&actor, &aside)?;
    let mut edit = edit_of(plan.db, plan.next_family_id, &plan.families);
    if !plan
        .families
        .values()
        .any(|family| family.name == crate::db::DEFAULT_CF)
    {
        let taken = plan.families.contains_key(&0);
        let id = if taken { plan.next_family_id } else { 0 };
        edit.next_family_id = Some(plan.next_family_id.max(id + 1));
        edit.created.push(FamilyCreated {
            id,
            name: crate::db::DEFAULT_CF.to_owned(),
            options: crate::options::CfOptions::default(),
        });
    }
    let mut pace = repair.pacing.begin(&*options.executor, 0);
    pace.turn_to("write")?;
    for (&id, family) in &plan.families {
        let tables = actor.tables(id, family)?;
        for added in &tables {
            pace.advance(added.table.info.size)?;
        }
        edit.added.extend(tables);
        if family.options.append_prefix_bytes.is_none() {
            edit.flushed.push((id, family.flushed));
        }
    }
    let mut last_seq = plan.last_seq;
    for added in &edit.added {
        let seq = added.table.global_seq.unwrap_or(added.table.info.max_seq);
        last_seq = last_seq.max(seq.0);
    }
    last_seq = plan
        .families
        .values()
        .fold(last_seq, |last, family| last.max(family.flushed.0));
    let mut new_log = None;
    match &plan.log {
        LogPlan::Keep(start) => edit.log = Some(*start),
        LogPlan::Rewrite { log, broken } => {
            let mut number = || actor.number();
            let made = log::write(fs, dir, plan.db, log, broken, last_seq, &mut number)?;
            last_seq = last_seq.max(made.last_seq);
            edit.log = Some(LogStart {
                segment: made.first,
                base: made.base,
            });
            new_log = Some(made);
        }
    }
    edit.last_seq = Some(SequenceNumber(last_seq));
    let number = actor.number();
    edit.next_file_number = Some(actor.next);
    let refused = |why: String| Error::io("repair", dir, io::Error::other(why));
    let mut state = ManifestState::default();
    state.apply(&edit).map_err(refused)?;
    state.format = plan.format;
    let faults = Faults::default();
    let mut writer = ManifestWriter::create(fs, dir, number, plan.db, state.format, faults)?;
    writer.append(&state.to_edit().encode())?;
    actor.sync_dir(dir)?;
    current::write(fs, dir, number)?;
    if plan.new_mark {
        let (segment, position) = new_log.map_or((0, 0), |log| (log.last, log.end));
        let mark = Mark {
            db: plan.db,
            sync_failed: false,
            segment,
            position,
            seq: SequenceNumber(last_seq),
            manifest: number,
            manifest_offset: writer.synced(),
        };
        let path = dir.join(filename::MARK);
        match fs.remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path, error));
            }
            _ => {}
        }
        write_mark(fs, dir, mark)?;
        actor.sync_dir(dir)?;
    }
    for name in aside.iter().filter(|name| !is_rewritten(name)) {
        let path = dir.join(name);
        fs.remove_file(&path)
            .map_err(|e| Error::io("remove", path, e))?;
    }
    actor.sync_dir(dir)
}

/// Files whose names stand for something new by now.
fn is_rewritten(name: &str) -> bool {
    name == filename::CURRENT || name == filename::MARK
}

/// Gives files a second name in `lost/`, durably. What a repair that was cut off has put there is there.
fn put_aside(actor: &Actor<'_>, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let lost = actor.dir.join(LOST);
    create_directory(actor.fs, &lost)?;
    for name in names {
        let (from, to) = (actor.dir.join(name), lost.join(name));
        match actor.fs.file_len(&to) {
            Ok(_) if !is_rewritten(name) => {}
            Ok(_) | Err(_) => {
                let _ = actor.fs.remove_file(&to);
                // Under its name stands nothing that is not whole, or the next repair would take it for done.
                let begun = filename::temporary(&to);
                let _ = actor.fs.remove_file(&begun);
                link_or_copy(actor.fs, &from, &begun)?;
                actor
                    .fs
                    .rename(&begun, &to)
                    .map_err(|e| Error::io("rename", &begun, e))?;
            }
        }
    }
    actor.sync_dir(&lost)
}
