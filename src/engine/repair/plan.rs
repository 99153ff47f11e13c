//! Finding out what is to be done: the manifest past its damage, tables block by block, the log across its holes.
//!
//! Nothing is changed here.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
};

use super::{
    FamilyPlan, Fate, FileReport, KnownValues, LogPlan, Plan, RepairOptions, RepairReport, STRAY,
    TablePlan, act, log, log_name, read_past,
    state::{self, Known},
    table_name,
    values::Placer,
    values_name,
};
use crate::{
    batch::FamilyId,
    cache::BlockCache,
    db::DEFAULT_CF,
    error::{Error, Result},
    filename::{self, FileKind},
    fs::{Fs, ReadMode},
    options::{CfOptions, Options},
    progress::Pace,
    table::{Table, TableIdentity, file_crc, salvage},
    tombstones::Tombstones,
    version::{TableMeta, TableRecord, Version},
    wal::{
        current,
        mark::{self, Mark, MarkFound},
        segment::{HEADER_LEN, SegmentHeader, SegmentKind, VERSION_TABLES},
    },
};

/// Everything in the directory, by kind.
#[derive(Default)]
struct Files {
    manifests: Vec<u64>,
    logs: Vec<u64>,
    tables: Vec<u64>,
    values: Vec<u64>,
}

pub(super) struct Planner<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) dir: &'a Path,
    pub(super) options: &'a Options,
    repair: &'a RepairOptions,
    files: Files,
    pub(super) mark: Option<Mark>,
    report: RepairReport,
    aside: Vec<String>,
    /// Sound value files that a table needs that is kept.
    needed_values: BTreeSet<u64>,
    /// Of the values in value files that are not sound: how many were read, and how many could not.
    counts: BTreeMap<u64, (u64, u64)>,
}

impl Plan {
    pub(super) fn make(dir: &Path, options: &Options, repair: &RepairOptions) -> Result<Self> {
        let fs = &*options.fs;
        let mut files = Files::default();
        let names = fs
            .list_dir(dir)
            .map_err(|e| Error::io("list directory", dir, e))?;
        for name in &names {
            match filename::parse(name) {
                Some(FileKind::Manifest(number)) => files.manifests.push(number),
                Some(FileKind::Log(number)) => files.logs.push(number),
                Some(FileKind::Table(number)) => files.tables.push(number),
                Some(FileKind::Values(number)) => files.values.push(number),
                _ => {}
            }
        }
        files.manifests.sort_unstable();
        files.logs.sort_unstable();
        files.tables.sort_unstable();
        files.values.sort_unstable();
        let mut planner = Planner {
            fs,
            dir,
            options,
            repair,
            files,
            mark: None,
            report: RepairReport::default(),
            aside: Vec::new(),
            needed_values: BTreeSet::new(),
            counts: BTreeMap::new(),
        };
        planner.plan()
    }
}

impl Planner<'_> {
    fn file(&mut self, name: String, fate: Fate) {
        if matches!(fate, Fate::PutAside { .. } | Fate::Salvaged { .. }) {
            self.aside.push(name.clone());
        }
        self.report.files.push(FileReport { name, fate });
    }

    fn doubt(&mut self, what: impl Into<String>) {
        self.report.doubts.push(what.into());
    }

    fn plan(&mut self) -> Result<Plan> {
        let total: u64 = {
            let tables = self.files.tables.iter();
            let tables = tables.map(|&number| filename::table(self.dir, number));
            let values = self.files.values.iter();
            let values = values.map(|&number| filename::values(self.dir, number));
            tables
                .chain(values)
                .map(|path| self.fs.file_len(&path).unwrap_or(0))
                .sum()
        };
        let mut pace = self.repair.pacing.begin(&*self.options.executor, total);
        pace.turn_to("repair")?;
        let db = self.database()?;
        let new_mark = self.read_mark(db)?;
        let (known, manifest) = self.manifest(db)?;
        let is_lost = manifest.is_none();
        let mut known = known;
        let db = known
            .db
            .or(db)
            .unwrap_or_else(|| self.options.executor.random());
        self.stray_tables(&mut known, is_lost, &mut pace)?;
        let values = self.look_at_values(&known, &mut pace)?;
        let mut families = self.tables(&known, &values, &mut pace)?;
        self.value_files(&values, is_lost || known.lossy);
        let log = self.log(&mut known, &mut families, db, is_lost)?;
        self.check_levels(&mut families);
        let Files {
            manifests,
            logs,
            tables,
            values: value_files,
        } = &self.files;
        let numbers = [manifests, logs, tables, value_files];
        let highest = numbers.into_iter().filter_map(|all| all.last()).max();
        let next = highest.map_or(1, |highest| highest + 1);
        let mark = self
            .mark
            .map_or(0, |mark| mark.segment.max(mark.manifest) + 1);
        self.report.files.sort_by(|a, b| a.name.cmp(&b.name));
        self.aside.sort();
        self.aside.dedup();
        Ok(Plan {
            db,
            next_file_number: known.next_file_number.max(next).max(mark),
            next_family_id: known.next_family_id.max(1),
            last_seq: known.last_seq,
            // No older engine may take for its own what nobody knows the format of.
            format: if is_lost {
                VERSION_TABLES
            } else {
                known.format
            },
            families,
            values,
            new_mark: new_mark || matches!(log, LogPlan::Rewrite { .. }),
            log,
            aside: std::mem::take(&mut self.aside),
            report: std::mem::take(&mut self.report),
        })
    }

    /// The database's id, as far as logs and manifests tell.
    fn database(&self) -> Result<Option<u64>> {
        let logs = self.files.logs.iter();
        let logs = logs.map(|&n| (filename::log(self.dir, n), SegmentKind::Log));
        let manifests = self.files.manifests.iter();
        let manifests =
            manifests.map(|&n| (filename::manifest(self.dir, n), SegmentKind::Manifest));
        let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
        for (path, kind) in manifests.chain(logs) {
            let file = self
                .fs
                .open(&path, ReadMode::Pread)
                .map_err(|e| Error::io("open", &path, e))?;
            let mut head = [0; HEADER_LEN];
            if file.read_at(0, &mut head).is_ok()
                && let Ok(header) = SegmentHeader::decode(&head, kind)
            {
                *votes.entry(header.db).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|&(_, votes)| votes);
        if most.is_some() {
            return Ok(most.map(|(db, _)| db));
        }
        let mark = self.fs.read(&self.dir.join(filename::MARK)).ok();
        Ok(mark
            .and_then(|bytes| Mark::decode(&bytes))
            .map(|mark| mark.db))
    }

    /// Reads the mark; true where another one must be written.
    fn read_mark(&mut self, db: Option<u64>) -> Result<bool> {
        let path = self.dir.join(filename::MARK);
        match self.fs.read(&path) {
            Ok(bytes) if mark::is_a_segment(&bytes) => {
                let why = "it is a log segment".into();
                self.file(filename::MARK.into(), Fate::PutAside { why });
                Ok(true)
            }
            Ok(bytes) => {
                let found = MarkFound::read(Some(&bytes), db.unwrap_or(0));
                self.mark = found.good().copied();
                Ok(false)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io("read", path, error)),
        }
    }

    /// What the manifest says, and its number; nothing where none can be read.
    fn manifest(&mut self, db: Option<u64>) -> Result<(Known, Option<u64>)> {
        let named = match current::read(self.fs, self.dir) {
            Ok(named) => named,
            Err(Error::Corruption { what, .. }) => {
                self.file(filename::CURRENT.into(), Fate::PutAside { why: what });
                None
            }
            Err(error) => return Err(error),
        };
        let mut candidates: Vec<u64> = self.files.manifests.iter().rev().copied().collect();
        // The one in use first; another one only where it cannot be read.
        candidates.sort_by_key(|&number| Some(number) != named);
        let mut chosen: Option<(Known, u64)> = None;
        for number in candidates {
            let path = filename::manifest(self.dir, number);
            let name = filename::manifest_name(number);
            if chosen.is_some() {
                let why = "another manifest is in use".into();
                self.file(name, Fate::PutAside { why });
                continue;
            }
            let bytes = read_past(self.fs, &path)?;
            match state::read(&bytes, number, db, self.mark.as_ref()) {
                Err(bad) => return Err(bad.error(&path)),
                Ok(Some(known)) => {
                    let of = (!known.lossy).then_some(known.edits);
                    let good = known.edits;
                    if known.lossy {
                        self.doubt(
                            "edits of the manifest are lost: tables may be listed that were compacted away, and rows show again",
                        );
                    }
                    let fate = if known.lossy || known.damaged {
                        Fate::Salvaged { good, of }
                    } else {
                        Fate::Kept
                    };
                    self.file(name, fate);
                    chosen = Some((known, number));
                }
                Ok(None) => {
                    let why = "no edit in it can be read".into();
                    self.file(name, Fate::PutAside { why });
                }
            }
        }
        let newest = self.mark.map_or(0, |mark| mark.manifest);
        if let Some(named) = named.filter(|named| !self.files.manifests.contains(named)) {
            self.file(filename::manifest_name(named), Fate::Missing);
        }
        match chosen {
            Some((mut known, number)) => {
                if number < newest || named.is_some_and(|named| number < named) {
                    known.lossy = true;
                    self.doubt(format!(
                        "manifest {number} is older than the one that was in use"
                    ));
                }
                Ok((known, Some(number)))
            }
            None => {
                self.doubt("no manifest can be read: which family a table belongs to is written nowhere else");
                Ok((Known::default(), None))
            }
        }
    }

    /// Tables that no manifest tells of.
    fn stray_tables(
        &mut self,
        known: &mut Known,
        is_lost: bool,
        pace: &mut Pace<'_>,
    ) -> Result<()> {
        let listed = |number: &u64| {
            known
                .families
                .values()
                .any(|f| f.tables.contains_key(number))
        };
        let strays: Vec<u64> = self
            .files
            .tables
            .iter()
            .copied()
            .filter(|n| !listed(n))
            .collect();
        if !is_lost && !known.lossy {
            // What a compaction has done with, or had not finished: the next open removes it.
            return Ok(());
        }
        let Some(name) = self.repair.family_of_strays.as_deref() else {
            if !strays.is_empty() {
                self.doubt(format!(
                    "{} tables that no manifest tells of are put aside; name their family to have them taken in",
                    strays.len()
                ));
            }
            for number in strays {
                let why = "no manifest tells of it".into();
                self.file(table_name(number), Fate::PutAside { why });
            }
            return Ok(());
        };
        let found = known
            .families
            .iter()
            .find(|(_, family)| family.name == name);
        let id = match found {
            Some((&id, _)) => id,
            None if name == DEFAULT_CF => 0,
            None => known.next_family_id.max(1),
        };
        let family = known.family(id);
        name.clone_into(&mut family.name);
        if family.options.append_prefix_bytes.is_some() {
            return Err(Error::invalid(format!(
                "{name:?} is an append family, which has no tables"
            )));
        }
        let mut taken = Vec::new();
        let lives = known.family(id).options.ttl.is_some();
        for number in strays {
            match self.stray_record(number, pace)? {
                // As for an ingest: the time behind values is part of what they are.
                Some(TableRecord { info, .. })
                    if info.entries > info.deletes && info.times.is_some() != lives =>
                {
                    let why = format!(
                        "its rows have a time to live and those of {name:?} have none, or the other way round"
                    );
                    self.file(table_name(number), Fate::PutAside { why });
                }
                Some(record) => taken.push(record),
                None => {
                    let why =
                        "its footer or properties cannot be read, and no manifest tells of it"
                            .into();
                    self.file(table_name(number), Fate::PutAside { why });
                }
            }
        }
        if !taken.is_empty() {
            self.doubt(format!(
                "{} tables that no manifest tells of are merged into {name:?} by sequence number: rows that were deleted may show again",
                taken.len()
            ));
        }
        for record in taken {
            let family = known.family(id);
            family.flushed = family.flushed.max(record.info.max_seq);
            known.last_seq = known.last_seq.max(record.info.max_seq.0);
            known
                .family(id)
                .tables
                .insert(record.number, (STRAY, record));
        }
        Ok(())
    }

    /// What a table of which no manifest tells says of itself.
    fn stray_record(&self, number: u64, pace: &mut Pace<'_>) -> Result<Option<TableRecord>> {
        let path = filename::table(self.dir, number);
        let file = self
            .fs
            .open(&path, ReadMode::Pread)
            .map_err(|e| Error::io("open", &path, e))?;
        let opened = TableIdentity::read(&*file, &path).and_then(|identity| {
            let cache = BlockCache::new(0);
            let table = Table::open(Arc::clone(&file), &path, number, &identity, None, cache)?;
            let crc = file_crc(&*file, &path)?;
            Ok(table.info(crc))
        });
        match opened {
            Ok(info) => {
                pace.advance(info.size)?;
                Ok(Some(TableRecord {
                    number,
                    info,
                    hidden: 0,
                    global_seq: None,
                    values: Vec::new(),
                }))
            }
            Err(Error::Corruption { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks through the tables that are listed.
    fn tables(
        &mut self,
        known: &Known,
        values: &KnownValues,
        pace: &mut Pace<'_>,
    ) -> Result<BTreeMap<FamilyId, FamilyPlan>> {
        let mut families = BTreeMap::new();
        for (&id, family) in &known.families {
            let mut tables = Vec::new();
            let mut merge = false;
            for (level, record) in family.tables.values() {
                let is_stray = *level == STRAY;
                merge |= is_stray;
                let level = if is_stray { 0 } else { *level };
                if let Some(rewrite) = self.table(&family.name, record, is_stray, values, pace)? {
                    tables.push(TablePlan {
                        level,
                        record: record.clone(),
                        rewrite,
                    });
                }
            }
            families.insert(id, family.plan(tables, merge));
        }
        Ok(families)
    }

    /// Looks through a table: false, it stays; true, it is written anew; nothing, it is gone.
    fn table(
        &mut self,
        family: &str,
        record: &TableRecord,
        is_stray: bool,
        values: &KnownValues,
        pace: &mut Pace<'_>,
    ) -> Result<Option<bool>> {
        let number = record.number;
        let path = filename::table(self.dir, number);
        let span = format!(
            "{family:?} from \"{}\" to \"{}\"",
            record.info.smallest.escape_ascii(),
            record.info.largest.escape_ascii()
        );
        let file = match self.fs.open(&path, ReadMode::Pread) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.file(table_name(number), Fate::Missing);
                self.doubt(format!(
                    "table {number} is missing: rows of {span} are lost, and older ones may show again"
                ));
                return Ok(None);
            }
            Err(error) => return Err(Error::io("open", path, error)),
        };
        let identity = TableIdentity {
            table_id: record.info.table_id,
            size: record.info.size,
        };
        let cache = BlockCache::new(0);
        let sound = Table::open(Arc::clone(&file), &path, number, &identity, None, cache).and_then(
            |table| {
                table.verify_told(record.info.crc, |bytes| pace.advance(bytes))?;
                Ok(table.info(record.info.crc) == record.info)
            },
        );
        match &sound {
            // What a stray points to is written nowhere but in its rows.
            Ok(true) if values.are_sound(record) && !is_stray => {
                let needed = record.values.iter().map(|used| used.file.number);
                self.needed_values.extend(needed);
                self.file(table_name(number), Fate::Kept);
                return Ok(Some(false));
            }
            Ok(_) | Err(Error::Corruption { .. } | Error::Io { .. }) => {}
            Err(_) => return sound.map(Some),
        }
        let mut rows = 0_u64;
        let mut placer = Placer::new(self.fs, self.dir, values);
        let found = salvage(&*file, identity.table_id, |key, value| {
            rows += u64::from(placer.place(key, value, |_, _| Ok(()))?);
            Ok(())
        })?;
        let is_sound = matches!(sound, Ok(true));
        self.needed_values.extend(placer.needs.keys());
        for (number, (good, lost)) in placer.counts() {
            let sum = self.counts.entry(number).or_default();
            *sum = (sum.0 + good, sum.1 + lost);
        }
        if is_sound && placer.pointers == 0 {
            self.file(table_name(number), Fate::Kept);
            return Ok(Some(false));
        }
        let tombstones = found.tombstones.as_ref();
        if record.info.tombstones > 0 && tombstones.is_none_or(Tombstones::is_empty) {
            self.doubt(format!(
                "range deletes of {span} are lost: what they hid shows again"
            ));
        }
        if rows < record.info.entries {
            self.doubt(format!(
                "{} of {} rows of {span} are lost, and older ones may show again",
                record.info.entries - rows,
                record.info.entries
            ));
        }
        if rows == 0 && tombstones.is_none_or(Tombstones::is_empty) {
            let why = "nothing in it can be read".into();
            self.file(table_name(number), Fate::PutAside { why });
            return Ok(None);
        }
        self.file(
            table_name(number),
            Fate::Salvaged {
                good: found.good,
                of: found.blocks,
            },
        );
        Ok(Some(true))
    }

    /// Reads the value files that the listed tables need.
    fn look_at_values(&self, known: &Known, pace: &mut Pace<'_>) -> Result<KnownValues> {
        let mut values = KnownValues::default();
        let tables = known.families.values().flat_map(|f| f.tables.values());
        for used in tables.flat_map(|(_, record)| &record.values) {
            values.look(self.fs, self.dir, used.file, |bytes| pace.advance(bytes))?;
        }
        Ok(values)
    }

    /// What becomes of the value files, once it is known what the tables need.
    fn value_files(&mut self, values: &KnownValues, are_strays_possible: bool) {
        for number in values.numbers().collect::<Vec<_>>() {
            if !self.files.values.contains(&number) {
                self.file(values_name(number), Fate::Missing);
            }
        }
        for number in self.files.values.clone() {
            let put_aside = |why: &str| Fate::PutAside { why: why.into() };
            let fate = match self.counts.get(&number) {
                _ if self.needed_values.contains(&number) => Fate::Kept,
                Some(&(good, lost)) if good > 0 => Fate::Salvaged {
                    good,
                    of: Some(good + lost),
                },
                Some(_) => put_aside("nothing that is needed of it can be read"),
                None if values.knows(number) => put_aside("no table that is kept needs it"),
                None if are_strays_possible => put_aside("no manifest tells of it"),
                // The next open removes it, as it does with such tables.
                None => continue,
            };
            self.file(values_name(number), fate);
        }
    }

    /// What is to be done with the log; adds families that only it tells of.
    fn log(
        &mut self,
        known: &mut Known,
        families: &mut BTreeMap<FamilyId, FamilyPlan>,
        db: u64,
        is_lost: bool,
    ) -> Result<LogPlan> {
        if let Some(start) = known.log.filter(|_| !is_lost)
            && act::log_is_sound(self, known, families, db, start)?
        {
            for &number in self.files.logs.iter().filter(|&&n| n >= start.segment) {
                self.report.files.push(FileReport {
                    name: log_name(number),
                    fate: Fate::Kept,
                });
            }
            return Ok(LogPlan::Keep(start));
        }
        let oldest = known.log.map_or(0, |start| start.segment);
        let mut numbers = self.files.logs.clone();
        numbers.retain(|&number| number >= oldest);
        if known.log.is_some() && !numbers.contains(&oldest) {
            self.file(log_name(oldest), Fate::Missing);
            self.doubt(format!(
                "log segment {oldest} is missing, with all that it had"
            ));
        }
        let position = self.mark.map_or(0, |mark| mark.position);
        let position = position.max(known.log.map_or(0, |start| start.base));
        let log = log::salvage(self.fs, self.dir, db, &numbers, position)?;
        for segment in &log.segments {
            let of = (!segment.damaged).then(|| segment.records());
            let good = segment.records();
            self.file(log_name(segment.number), Fate::Salvaged { good, of });
        }
        let taken: Vec<u64> = log.segments.iter().map(|segment| segment.number).collect();
        for &number in numbers.iter().filter(|number| !taken.contains(number)) {
            let why = "it is no part of the log any more".into();
            self.file(log_name(number), Fate::PutAside { why });
        }
        for hole in &log.holes {
            self.report.doubts.push(hole.clone());
        }
        let before = known.next_family_id;
        for (id, prefix) in log.families(self.fs, self.dir, db)? {
            let is_new = is_lost || (known.lossy && id >= before);
            if families.contains_key(&id) || known.is_dropped(id) || !is_new {
                continue;
            }
            let family = known.family(id);
            if let Some(bytes) = prefix {
                family.options = CfOptions::append(bytes);
            }
            self.report.doubts.push(format!(
                "family {id} is known from the log alone; it is named {:?}",
                family.name
            ));
            families.insert(id, family.plan(Vec::new(), false));
        }
        let appends = families
            .iter()
            .filter_map(|(&id, family)| Some((id, family.options.append_prefix_bytes?)));
        let appends: Vec<_> = appends.collect();
        let broken = log.broken_prefixes(self.fs, self.dir, db, &appends)?;
        for (id, prefix, index) in &broken {
            let name = &families[id].name;
            self.report.doubts.push(format!(
                "{name:?}: entries of prefix \"{}\" are missing; kept from index {index} on",
                prefix.escape_ascii()
            ));
        }
        if log.has_holes() && !appends.is_empty() {
            self.doubt("entries of append families before a hole in the log may have been cut or replaced by what is lost");
        }
        Ok(LogPlan::Rewrite { log, broken })
    }

    /// Families whose tables do not fit together any more are merged.
    fn check_levels(&mut self, families: &mut BTreeMap<FamilyId, FamilyPlan>) {
        for family in families.values_mut() {
            let added: Vec<_> = family
                .tables
                .iter()
                .map(|table| {
                    let meta = TableMeta::new(table.record.clone());
                    (table.level, Arc::new(meta))
                })
                .collect();
            let fits = Version::default().with_changes(&added, &[]);
            if let Err(why) = fits
                && !family.merge
            {
                family.merge = true;
                self.report.doubts.push(format!(
                    "tables of {:?} are merged by sequence number: {why}",
                    family.name
                ));
            }
        }
    }
}
