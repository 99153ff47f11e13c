//! Backups: many copies of a database in one directory, which share what did not change (docs/adr/0014, FORMAT.md 10).
//!
//! ```text
//! BACKUP-000001          one file a backup: what it is, its manifest, the log segments it has
//! <id>-<crc>-<size>.sst  tables, shared by identity
//! <id>-<crc>-<size>.val  value files, shared by identity
//! <n>-<len>-<hash>.log   log segments, shared by content
//! ```
//! Promises: a backup is complete or absent, whatever happens while it is made; what it names is never removed or
//! written again; nothing is taken into it whose bytes do not check. Writers of the database wait only while its point is
//! taken. Not here: the bytes of a `BACKUP-` file (`record`), the way back (`restore`).

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    checkpoint::Point,
    db::{Db, DbInner},
    error::{Error, Result},
    faults::{Fault, Faults},
    filename,
    fs::Fs,
    limiter::IoPriority,
    options::Options,
    progress::{Pace, Pacing},
    recovery::{create_directory, lock_directory, share_directory},
    values::needed_by,
    version::ManifestState,
};

mod copy;
mod record;
mod restore;
pub mod testing;

use copy::{Copied, Writing, check_copy, copy_checked, copy_segment, write_whole};
use record::{BackupRecord, CopiedSegment, FileName};
pub use restore::restore_backup;

/// Longest description of a backup in bytes.
pub const MAX_BACKUP_DESCRIPTION_LEN: usize = 4096;

/// How a backup is made.
#[derive(Clone, Debug, Default)]
pub struct BackupOptions {
    /// What it is for, in the caller's words (default empty; at most [`MAX_BACKUP_DESCRIPTION_LEN`] bytes).
    pub description: String,
    /// Seconds since 1970 that it is dated with (default 0: the engine has no clock).
    pub time: u64,
    /// Flush all families first, so that less log is copied (default false: the log is copied as it is). Families that are
    /// not logged are flushed in any case.
    pub flush: bool,
    /// Whom to tell, and how fast it may go: bytes copied, of those there are to copy.
    pub pacing: Pacing,
}

impl BackupOptions {
    /// The defaults, dated with `time`.
    #[must_use]
    pub fn dated(time: u64) -> Self {
        Self {
            time,
            ..Self::default()
        }
    }
}

/// A backup as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupInfo {
    /// Its number in its directory: one above the highest there was when it was made.
    pub id: u64,
    /// Seconds since 1970.
    pub time: u64,
    /// The caller's words.
    pub description: String,
    /// Sequence number of the last write in it.
    pub seq: u64,
    /// Bytes of tables, value files and log that a restore writes.
    pub bytes: u64,
    /// Bytes of them that were copied for this backup; the rest was there.
    pub new_bytes: u64,
    /// Tables.
    pub tables: u64,
    /// Value files.
    pub value_files: u64,
    /// Log segments.
    pub log_segments: u64,
    /// Names of the column families.
    pub families: Vec<String>,
}

/// What a directory of backups holds.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackupList {
    /// Its backups, oldest first.
    pub backups: Vec<BackupInfo>,
    /// `BACKUP-` files that cannot be read.
    pub damage: Vec<Error>,
}

/// What `verify_backups` read, and the damage it found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct BackupReport {
    /// Backups checked.
    pub backups: u64,
    /// Files read, each once.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that is not as it was written.
    pub damage: Vec<Error>,
}

/// The backups in `dir`. A directory without any is an empty list.
///
/// # Errors
///
/// `Locked` while a backup is made or removed there; `Io`. Damage is in the list.
pub fn list_backups(dir: impl AsRef<Path>, options: &Options) -> Result<BackupList> {
    let (fs, dir) = (&*options.fs, dir.as_ref());
    let _lock = share_directory(fs, dir)?;
    let catalog = Catalog::read(fs, dir)?;
    let mut list = BackupList {
        damage: catalog.damage,
        ..BackupList::default()
    };
    for backup in catalog.backups.values() {
        list.backups.push(backup.info());
    }
    Ok(list)
}

/// Reads and checks every byte of backup `id` in `dir`, or of all of them.
///
/// # Errors
///
/// `InvalidArgument` where there is no backup `id`; `Locked`, `Io`, `Cancelled`. Damage is in the report.
pub fn verify_backups(
    dir: impl AsRef<Path>,
    id: Option<u64>,
    options: &Options,
    pacing: &Pacing,
) -> Result<BackupReport> {
    let (fs, dir) = (&*options.fs, dir.as_ref());
    let _lock = share_directory(fs, dir)?;
    let mut catalog = Catalog::read(fs, dir)?;
    if let Some(id) = id {
        let unreadable = catalog.unreadable.iter().position(|&bad| bad == id);
        let damage = unreadable.map(|at| catalog.damage.swap_remove(at));
        if damage.is_none() && !catalog.backups.contains_key(&id) {
            return Err(no_backup(dir, id));
        }
        catalog.backups.retain(|&other, _| other == id);
        catalog.damage = damage.into_iter().collect();
    }
    let mut report = BackupReport {
        backups: catalog.backups.len() as u64,
        damage: std::mem::take(&mut catalog.damage),
        ..BackupReport::default()
    };
    let mut files: BTreeMap<String, Copied> = BTreeMap::new();
    for backup in catalog.backups.values() {
        files.extend(backup.files());
    }
    let total = files
        .values()
        .fold(0, |sum: u64, copied| sum.saturating_add(copied.len()));
    let mut pace = pacing.begin(&*options.executor, total);
    pace.turn_to("backup")?;
    for (name, copied) in files {
        report.files += 1;
        report.bytes += copied.len();
        match check_copy(fs, &dir.join(name), &copied, &mut pace) {
            Ok(()) => {}
            Err(error) if error.is_corruption() => report.damage.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// Removes backup `id` from `dir`, and what no other backup there has; answers the bytes that this has freed.
///
/// # Errors
///
/// `InvalidArgument` where there is no backup `id`; `Locked`, `Io`. After an error it is gone or still whole.
pub fn delete_backup(dir: impl AsRef<Path>, id: u64, options: &Options) -> Result<u64> {
    let (fs, dir) = (&*options.fs, dir.as_ref());
    let _lock = lock_existing(fs, dir)?;
    let mut catalog = Catalog::read(fs, dir)?;
    let unreadable = catalog.unreadable.iter().position(|&bad| bad == id);
    if catalog.backups.remove(&id).is_none() {
        let at = unreadable.ok_or_else(|| no_backup(dir, id))?;
        catalog.unreadable.remove(at);
        catalog.damage.remove(at);
    }
    catalog.remove(fs, dir, &[id], options.faults)
}

/// Removes all but the newest `keep` backups of those in `dir` that can be read, and what only they had; answers the bytes
/// that this has freed.
///
/// # Errors
///
/// As for [`delete_backup`].
pub fn purge_backups(dir: impl AsRef<Path>, keep: usize, options: &Options) -> Result<u64> {
    let (fs, dir) = (&*options.fs, dir.as_ref());
    let _lock = lock_existing(fs, dir)?;
    let mut catalog = Catalog::read(fs, dir)?;
    let mut ids: Vec<u64> = catalog.backups.keys().copied().collect();
    ids.truncate(ids.len().saturating_sub(keep));
    catalog.backups.retain(|id, _| !ids.contains(id));
    catalog.remove(fs, dir, &ids, options.faults)
}

fn lock_existing(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn crate::fs::FileLock>> {
    fs.list_dir(dir)
        .map_err(|e| Error::io("open directory", dir, e))?;
    lock_directory(fs, dir)
}

fn no_backup(dir: &Path, id: u64) -> Error {
    Error::invalid(format!("there is no backup {id} in {}", dir.display()))
}

/// A backup that can be read.
struct Backup {
    record: BackupRecord,
    state: ManifestState,
}

impl Backup {
    fn read(fs: &dyn Fs, dir: &Path, id: u64) -> Result<Self> {
        let path = dir.join(record::file_name(id));
        let bytes = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
        let backup = Self::decode(&bytes, &path)?;
        if backup.record.id != id {
            let what = format!("it is backup {}", backup.record.id);
            return Err(Error::corruption(path, 0, what));
        }
        Ok(backup)
    }

    fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let record = BackupRecord::decode(bytes, path)?;
        let state = record.state(path)?;
        Ok(Self { record, state })
    }

    /// The files it needs.
    fn files(&self) -> impl Iterator<Item = (String, Copied)> {
        let tables = self.state.families().flat_map(|(_, family)| {
            let tables = family.version.tables();
            let tables = tables.map(|(_, table)| Copied::of_table(&table.info));
            tables.collect::<Vec<_>>()
        });
        let values = needed_by(&self.state).into_values();
        let values = values.map(|file| Copied::of_values(&file.record));
        let segments = self.record.segments.iter().map(Copied::of_segment);
        tables
            .chain(values)
            .chain(segments)
            .map(|copied| (copied.file_name(), copied))
    }

    fn info(&self) -> BackupInfo {
        let record = &self.record;
        let (mut tables, mut bytes, mut families) = (0, 0_u64, Vec::new());
        for (_, family) in self.state.families() {
            families.push(family.name.clone());
            for (_, table) in family.version.tables() {
                tables += 1;
                bytes = table.info.size.saturating_add(bytes);
            }
        }
        // Whoever forged a size gets no overflow from us.
        let values = needed_by(&self.state);
        bytes = values
            .values()
            .fold(bytes, |sum, file| sum.saturating_add(file.record.size));
        bytes = record
            .segments
            .iter()
            .fold(bytes, |sum, s| sum.saturating_add(s.len));
        BackupInfo {
            id: record.id,
            time: record.time,
            description: record.description.clone(),
            seq: record.seq,
            bytes,
            new_bytes: record.new_bytes,
            tables,
            value_files: values.len() as u64,
            log_segments: record.segments.len() as u64,
            families,
        }
    }
}

/// What a `BACKUP-` file says: the backup, and the files that it needs, with their lengths.
///
/// # Errors
/// `Corruption`; `NotADatabase` for a format that is not known.
pub(crate) fn describe_backup_file(
    bytes: &[u8],
    path: &Path,
) -> Result<(BackupInfo, Vec<(String, u64)>)> {
    let backup = Backup::decode(bytes, path)?;
    let files = backup.files().map(|(name, copied)| (name, copied.len()));
    Ok((backup.info(), files.collect()))
}

/// What a directory of backups holds.
struct Catalog {
    backups: BTreeMap<u64, Backup>,
    /// Numbers of `BACKUP-` files that cannot be read, and why, in the same order.
    unreadable: Vec<u64>,
    damage: Vec<Error>,
    /// Everything there, and what it is.
    names: Vec<(String, Option<FileName>)>,
}

impl Catalog {
    fn read(fs: &dyn Fs, dir: &Path) -> Result<Self> {
        let names = fs
            .list_dir(dir)
            .map_err(|e| Error::io("list directory", dir, e))?;
        let mut catalog = Self {
            backups: BTreeMap::new(),
            unreadable: Vec::new(),
            damage: Vec::new(),
            names: names
                .into_iter()
                .map(|name| (record::parse(&name), name))
                .map(|(kind, name)| (name, kind))
                .collect(),
        };
        catalog.names.sort();
        refuse_database(dir, catalog.names.iter().map(|(name, _)| name))?;
        for (_, kind) in &catalog.names {
            let Some(FileName::Backup(id)) = *kind else {
                continue;
            };
            match Backup::read(fs, dir, id) {
                Ok(backup) => {
                    catalog.backups.insert(id, backup);
                }
                // One of a later format is as unknown as a damaged one.
                Err(error @ (Error::Corruption { .. } | Error::NotADatabase { .. })) => {
                    catalog.unreadable.push(id);
                    catalog.damage.push(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(catalog)
    }

    /// The number of the next backup.
    fn next_id(&self) -> Result<u64> {
        let known = self.names.iter().filter_map(|(_, kind)| match kind {
            Some(FileName::Backup(id) | FileName::UnfinishedBackup(id)) => Some(*id),
            _ => None,
        });
        let next = known.max().unwrap_or(0).checked_add(1);
        next.ok_or_else(|| Error::invalid("a backup has the highest number there is"))
    }

    /// Names of the files that the readable backups need.
    fn needed(&self) -> HashSet<String> {
        let backups = self.backups.values();
        backups
            .flat_map(Backup::files)
            .map(|(name, _)| name)
            .collect()
    }

    /// Removes the `BACKUP-` files `ids`, which this does not hold any more, and then what nobody needs.
    fn remove(&self, fs: &dyn Fs, dir: &Path, ids: &[u64], faults: Faults) -> Result<u64> {
        let mut freed = 0;
        let files_first = faults.is(Fault::BackupFilesBeforeRecord);
        if files_first {
            freed = self.remove_unused(fs, dir, faults)?;
        }
        for &id in ids {
            let path = dir.join(record::file_name(id));
            fs.remove_file(&path)
                .map_err(|e| Error::io("remove", path, e))?;
        }
        // Only once no power cut can bring them back may what they name go.
        sync_dir(fs, dir)?;
        if !files_first {
            freed = self.remove_unused(fs, dir, faults)?;
        }
        Ok(freed)
    }

    /// Removes files that are not whole.
    fn remove_unfinished(&self, fs: &dyn Fs, dir: &Path) -> Result<()> {
        for (name, kind) in &self.names {
            if matches!(
                kind,
                Some(FileName::UnfinishedBackup(_) | FileName::Unfinished)
            ) {
                let path = dir.join(name);
                fs.remove_file(&path)
                    .map_err(|e| Error::io("remove", path, e))?;
            }
        }
        Ok(())
    }

    /// Removes what no backup needs: after a removal, and what a crash has left. Not where a `BACKUP-` file cannot be
    /// read, for nobody knows what it needs.
    fn remove_unused(&self, fs: &dyn Fs, dir: &Path, faults: Faults) -> Result<u64> {
        if !self.unreadable.is_empty() {
            return Ok(0);
        }
        let mut needed = self.needed();
        if faults.is(Fault::BackupRemovesShared) {
            needed.clear();
        }
        let mut freed = 0;
        for (name, kind) in &self.names {
            let unused = match kind {
                Some(FileName::Shared) => !needed.contains(name),
                Some(FileName::UnfinishedBackup(_) | FileName::Unfinished) => true,
                _ => false,
            };
            if unused {
                let path = dir.join(name);
                let len = fs.file_len(&path).unwrap_or(0);
                match fs.remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", path, error));
                    }
                    _ => freed += len,
                }
            }
        }
        Ok(freed)
    }
}

/// Refuses the directory of a database.
fn refuse_database<'a>(dir: &Path, names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    let of_a_database =
        |name: &&String| filename::parse(name).is_some_and(|kind| kind != filename::FileKind::Lock);
    match names.into_iter().find(of_a_database) {
        Some(name) => Err(Error::invalid(format!(
            "{} holds {name}: a database, and no backups",
            dir.display()
        ))),
        None => Ok(()),
    }
}

fn sync_dir(fs: &dyn Fs, dir: &Path) -> Result<()> {
    fs.sync_dir(dir)
        .map_err(|e| Error::io("sync directory", dir, e))
}

impl Db {
    /// Makes a backup of this moment in `dir`, which holds any number of backups, of this database or others, and nothing
    /// else; it is created when missing. What an earlier backup there has is not copied again. Writes go on meanwhile.
    /// When this returns, the backup is durable; after an error or a crash there is none.
    ///
    /// # Errors
    ///
    /// `Corruption` where bytes of the database do not check: then there is no backup. `InvalidArgument` for a directory of
    /// something else, `Locked` while somebody else uses it, `Cancelled`, `Io`; `ReadOnly` where families that are not
    /// logged cannot be flushed. A failure of the backup's disk does not close the database for writing.
    pub fn backup(&self, dir: impl AsRef<Path>, options: &BackupOptions) -> Result<BackupInfo> {
        self.inner.backup(dir.as_ref(), options)
    }
}

/// What a backup is made of and into.
struct Target<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    faults: Faults,
    /// Files that may be shared: durable, and of their length.
    there: HashSet<String>,
    /// What a backup that did not end has left.
    leftovers: HashSet<String>,
    new_bytes: u64,
}

impl DbInner {
    fn backup(self: &Arc<Self>, dir: &Path, options: &BackupOptions) -> Result<BackupInfo> {
        if options.description.len() > MAX_BACKUP_DESCRIPTION_LEN {
            return Err(Error::invalid(format!(
                "a description of {} bytes, limit {MAX_BACKUP_DESCRIPTION_LEN}",
                options.description.len()
            )));
        }
        let fs = &*self.options.fs;
        create_directory(fs, dir)?;
        let found = fs
            .list_dir(dir)
            .map_err(|e| Error::io("list directory", dir, e))?;
        refuse_database(dir, &found)?;
        let is_ours = |name: &String| record::parse(name).is_some();
        if let Some(foreign) = found.iter().find(|name| !is_ours(name))
            && !found.iter().any(is_ours)
        {
            let dir = dir.display();
            return Err(Error::invalid(format!(
                "{dir} holds {foreign:?}, and no backups"
            )));
        }
        let _lock = lock_directory(fs, dir)?;
        let catalog = Catalog::read(fs, dir)?;
        let faults = self.options.faults;
        let id = catalog.next_id()?;
        catalog.remove_unfinished(fs, dir)?;
        // What an earlier call has put there and not synced may be there only for now.
        sync_dir(fs, dir)?;

        if options.flush {
            self.flush_families(&self.families())?;
        }
        self.flush_unlogged()?;
        let _pin = self.logs.pin();
        // The state keeps its tables from being removed until the end of this call.
        let point = self
            .take_point()
            .map_err(|error| self.note_failure(error))?;
        let mut target = Target {
            fs,
            dir,
            faults,
            there: catalog.shareable(fs, dir),
            leftovers: catalog.leftovers(),
            new_bytes: 0,
        };
        let mut pace = options.pacing.begin(&*self.options.executor, 0);
        let segments = self.copy_point_to(&mut target, &point, &mut pace)?;
        sync_dir(fs, dir)?;
        let number = point.state.next_file_number.max(self.numbers.peek());
        let mut state = point.state.clone();
        state.next_file_number = number + 1;
        let record = BackupRecord {
            id,
            time: options.time,
            description: options.description.clone(),
            db: self.id,
            seq: point.seq.0,
            end: point.end,
            new_bytes: target.new_bytes,
            manifest_number: number,
            manifest: record::manifest_bytes(&state, number, self.id)?,
            segments,
        };
        let path = dir.join(record::file_name(record.id));
        write_whole(fs, &path, &record.encode())?;
        sync_dir(fs, dir).inspect_err(|_| {
            // Whether its name is durable will never be known, so it must not be found and believed.
            let _ = fs.remove_file(&path);
        })?;
        let made = Backup { record, state };
        let info = made.info();
        // It is made, whatever becomes of what nobody needs.
        let mut catalog = catalog;
        catalog.backups.insert(info.id, made);
        let _ = catalog.remove_unused(fs, dir, faults);
        Ok(info)
    }

    /// Copies tables, value files and log of the point, as far as they are not there.
    fn copy_point_to(
        &self,
        target: &mut Target<'_>,
        point: &Point,
        pace: &mut Pace<'_>,
    ) -> Result<Vec<CopiedSegment>> {
        let mut files: BTreeMap<String, (PathBuf, Copied)> = BTreeMap::new();
        let mut want = |from: PathBuf, copied: Copied, target: &mut Target<'_>| {
            let name = copied.file_name();
            if !target.has(&name, &copied)? {
                files.insert(name, (from, copied));
            }
            Ok::<_, Error>(())
        };
        for (_, family) in point.state.families() {
            for (_, table) in family.version.tables() {
                let from = filename::table(&self.dir, table.number);
                want(from, Copied::of_table(&table.info), target)?;
            }
        }
        for (number, file) in needed_by(&point.state) {
            let from = filename::values(&self.dir, number);
            want(from, Copied::of_values(&file.record), target)?;
        }
        pace.expect(files.values().map(|(_, copied)| copied.len()).sum());
        pace.expect((0..point.segments.len()).map(|at| point.len(at)).sum());
        pace.turn_to("tables")?;
        let how = Writing {
            unsynced: target.faults.is(Fault::BackupUnsyncedCopy),
            pace: self.pace(IoPriority::Backup),
        };
        for (name, (from, copied)) in files {
            let to = target.dir.join(name);
            copy_checked(target.fs, &from, &to, &copied, pace, &how)?;
            target.new_bytes += copied.len();
        }
        pace.turn_to("log")?;
        let mut segments = Vec::new();
        for at in 0..point.segments.len() {
            let bytes = self.checked_segment(target.fs, point, at)?;
            let (number, base) = (point.segments[at].number, point.segments[at].base);
            let segment = CopiedSegment::of(number, base, &bytes);
            let copied = Copied::of_segment(&segment);
            let name = copied.file_name();
            if target.has(&name, &copied)? {
                pace.advance(segment.len)?;
            } else {
                copy_segment(target.fs, &target.dir.join(&name), &bytes, pace, &how)?;
                target.new_bytes += segment.len;
                target.there.insert(name);
            }
            segments.push(segment);
        }
        Ok(segments)
    }
}

impl Catalog {
    /// Files that a new backup may share: named by one that is complete, and of their length.
    fn shareable(&self, fs: &dyn Fs, dir: &Path) -> HashSet<String> {
        let mut there = HashSet::new();
        for (name, copied) in self.backups.values().flat_map(Backup::files) {
            if fs
                .file_len(&dir.join(&name))
                .is_ok_and(|len| len == copied.len())
            {
                there.insert(name);
            }
        }
        there
    }

    /// Files that no backup names that can be read: a backup that did not end has left them, whole and synced.
    fn leftovers(&self) -> HashSet<String> {
        let needed = self.needed();
        let shared = self
            .names
            .iter()
            .filter(|(_, kind)| *kind == Some(FileName::Shared));
        let names = shared.map(|(name, _)| name);
        names
            .filter(|name| !needed.contains(*name))
            .cloned()
            .collect()
    }
}

impl Target<'_> {
    /// True where the backup need not copy this file.
    fn has(&mut self, name: &str, copied: &Copied) -> Result<bool> {
        if self.there.contains(name) {
            return Ok(true);
        }
        let path = self.dir.join(name);
        let is_whole = self.leftovers.contains(name)
            && self.fs.file_len(&path).is_ok_and(|len| len == copied.len());
        if !is_whole {
            return Ok(false);
        }
        if !self.faults.is(Fault::BackupSharesLeftovers) {
            // The sync of its name may have failed; only a name that is made anew can be made durable.
            let temporary = filename::temporary(&path);
            for (from, to) in [(&path, &temporary), (&temporary, &path)] {
                self.fs
                    .rename(from, to)
                    .map_err(|e| Error::io("rename", from, e))?;
            }
        }
        self.there.insert(name.to_owned());
        Ok(true)
    }
}
