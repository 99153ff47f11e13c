//! The way back: a backup becomes a database in an empty directory.
//!
//! Promises: what is restored is byte for byte what was backed up, or there is an error; a restore that did not end leaves
//! a directory that no open takes for a database (`RESTORING`).

use std::path::Path;

use super::{
    Backup, BackupInfo, Catalog, Copied,
    copy::{Writing, copy_checked, write_whole},
    no_backup, sync_dir,
};
use crate::{
    checkpoint::write_mark,
    error::{Error, Result},
    faults::Fault,
    filename,
    fs::Fs,
    key::SequenceNumber,
    options::Options,
    progress::Pacing,
    recovery::{create_directory, lock_directory, share_directory},
    values::needed_by,
    wal::{current, mark::Mark},
};

/// Restores backup `id` of `dir` (`None`: the newest) into `target`, which is empty or absent. Each byte is checked on its
/// way. When this returns, `target` is durable and opens. After an error `target` is empty but for its `LOCK`, as far as
/// the disk allows; else, and after a crash, it holds `RESTORING` and every open refuses it by that name.
///
/// # Errors
///
/// `Corruption` where a file of the backup is damaged; `InvalidArgument` where there is no such backup or `target` is not
/// empty; `Locked`, `Cancelled`, `Io`.
pub fn restore_backup(
    dir: impl AsRef<Path>,
    id: Option<u64>,
    target: impl AsRef<Path>,
    options: &Options,
    pacing: &Pacing,
) -> Result<BackupInfo> {
    let (fs, dir, target) = (&*options.fs, dir.as_ref(), target.as_ref());
    let _shared = share_directory(fs, dir)?;
    let backup = find(fs, dir, id)?;
    create_directory(fs, target)?;
    check_empty(fs, target)?;
    let _lock = lock_directory(fs, target)?;
    // Another restore may have begun, and ended, before the lock was ours.
    check_empty(fs, target)?;
    let restored = restore(&backup, dir, target, options, pacing);
    if let Err(error) = restored {
        // The files first: while one of them is there, so is the note.
        let _ = undo(fs, target);
        return Err(error);
    }
    Ok(backup.info())
}

fn find(fs: &dyn Fs, dir: &Path, id: Option<u64>) -> Result<Backup> {
    let mut catalog = Catalog::read(fs, dir)?;
    let newest = catalog.backups.keys().chain(&catalog.unreadable).max();
    let Some(id) = id.or(newest.copied()) else {
        let what = format!("there is no backup in {}", dir.display());
        return Err(Error::invalid(what));
    };
    if let Some(at) = catalog.unreadable.iter().position(|&bad| bad == id) {
        return Err(catalog.damage.swap_remove(at));
    }
    catalog
        .backups
        .remove(&id)
        .ok_or_else(|| no_backup(dir, id))
}

fn check_empty(fs: &dyn Fs, target: &Path) -> Result<()> {
    let names = fs
        .list_dir(target)
        .map_err(|e| Error::io("list directory", target, e))?;
    match names.iter().find(|name| *name != filename::LOCK) {
        Some(name) => Err(Error::invalid(format!(
            "{} is not empty: it holds {name:?}",
            target.display()
        ))),
        None => Ok(()),
    }
}

fn restore(
    backup: &Backup,
    dir: &Path,
    target: &Path,
    options: &Options,
    pacing: &Pacing,
) -> Result<()> {
    let fs = &*options.fs;
    let note = target.join(filename::RESTORING);
    if !options.faults.is(Fault::RestoreUnmarked) {
        let text = format!("backup {}\n", backup.record.id);
        let mut file = fs
            .create(&note)
            .map_err(|e| Error::io("create", &note, e))?;
        file.append(text.as_bytes())
            .map_err(|e| Error::io("write", &note, e))?;
        file.sync().map_err(|e| Error::io("sync", &note, e))?;
        sync_dir(fs, target)?;
    }
    let mut pace = pacing.begin(&*options.executor, backup.info().bytes);
    let how = Writing {
        unsynced: options.faults.is(Fault::RestoreUnsynced),
        ..Writing::default()
    };
    pace.turn_to("tables")?;
    for (_, family) in backup.state.families() {
        for (_, table) in family.version.tables() {
            let copied = Copied::of_table(&table.info);
            let from = dir.join(copied.file_name());
            let to = filename::table(target, table.number);
            copy_checked(fs, &from, &to, &copied, &mut pace, &how)?;
        }
    }
    pace.turn_to("values")?;
    for (number, file) in needed_by(&backup.state) {
        let copied = Copied::of_values(&file.record);
        let from = dir.join(copied.file_name());
        let to = filename::values(target, number);
        copy_checked(fs, &from, &to, &copied, &mut pace, &how)?;
    }
    pace.turn_to("log")?;
    let record = &backup.record;
    for segment in &record.segments {
        let copied = Copied::of_segment(segment);
        let from = dir.join(copied.file_name());
        let to = filename::log(target, segment.number);
        copy_checked(fs, &from, &to, &copied, &mut pace, &how)?;
    }
    let manifest = filename::manifest(target, record.manifest_number);
    write_whole(fs, &manifest, &record.manifest)?;
    let mark = Mark {
        db: record.db,
        sync_failed: false,
        segment: record.segments.last().map_or(0, |last| last.number),
        position: record.end,
        seq: SequenceNumber(record.seq),
        manifest: record.manifest_number,
        manifest_offset: record.manifest.len() as u64,
    };
    write_mark(fs, target, mark)?;
    sync_dir(fs, target)?;
    current::write(fs, target, record.manifest_number)?;
    if !options.faults.is(Fault::RestoreUnmarked) {
        fs.remove_file(&note)
            .map_err(|e| Error::io("remove", &note, e))?;
        sync_dir(fs, target)?;
    }
    Ok(())
}

/// Empties the directory again.
fn undo(fs: &dyn Fs, target: &Path) -> std::io::Result<()> {
    let _ = fs.remove_file(&target.join(filename::CURRENT));
    for name in fs.list_dir(target)? {
        if name != filename::LOCK && name != filename::RESTORING {
            fs.remove_file(&target.join(name))?;
        }
    }
    fs.sync_dir(target)?;
    match fs.remove_file(&target.join(filename::RESTORING)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => fs.sync_dir(target),
    }
}
