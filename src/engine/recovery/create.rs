//! The directory of a database: made, locked, listed, and filled with an empty database.

use std::{io, path::Path};

use crate::{
    db::DEFAULT_CF,
    error::{Error, Result},
    filename::{self, FileKind},
    fs::{FileLock, Fs},
    key::SequenceNumber,
    options::{CfOptions, Options},
    version::{FamilyCreated, LogStart, VersionEdit},
    wal::segment::VERSION as SEGMENT_VERSION,
    wal::{
        current,
        manifest_file::ManifestWriter,
        mark::MARK_LEN,
        segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    },
};

/// Makes sure that there is a directory, that it is ours alone, and that its entries are durable.
pub(super) fn prepare_directory(
    fs: &dyn Fs,
    dir: &Path,
    options: &Options,
) -> Result<Box<dyn FileLock>> {
    if options.create_if_missing {
        create_directory(fs, dir)?;
    } else if let Err(error) = fs.list_dir(dir) {
        return Err(Error::io("open directory", dir, error));
    }
    let lock = lock_directory(fs, dir)?;
    fs.sync_dir(dir)
        .map_err(|e| Error::io("sync directory", dir, e))?;
    Ok(lock)
}

/// Makes sure that there is a directory, and that the names on the way to it are durable: each is, before
/// anything is put below it. So only the last one that is there may still be in doubt.
pub(crate) fn create_directory(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let sync_parent = |dir: &Path| {
        let parent = parent(dir);
        fs.sync_dir(parent)
            .map_err(|e| Error::io("sync directory", parent, e))
    };
    let mut missing: Vec<&Path> = Vec::new();
    for dir in dir.ancestors().filter(|dir| !dir.as_os_str().is_empty()) {
        match fs.list_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(dir),
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(Error::io("list directory", dir, error));
            }
            _ => break,
        }
    }
    let deepest = missing.last().map_or(dir, |top| parent(top));
    match sync_parent(deepest) {
        // Somebody else's directory, who has seen to it.
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
        synced => synced?,
    }
    for dir in missing.into_iter().rev() {
        fs.create_dir_all(dir)
            .map_err(|e| Error::io("create directory", dir, e))?;
        if let Err(error) = sync_parent(dir) {
            // A second sync would prove nothing for the name, so the next open must make it anew.
            let _ = fs.remove_dir(dir);
            return Err(error);
        }
    }
    fs.create_dir_all(dir)
        .map_err(|e| Error::io("create directory", dir, e))
}

/// The directory that holds the entry of `dir`.
pub(crate) fn parent(dir: &Path) -> &Path {
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => dir,
    }
}

pub(crate) fn lock_directory(fs: &dyn Fs, dir: &Path) -> Result<Box<dyn FileLock>> {
    fs.lock(&dir.join(filename::LOCK)).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            Error::Locked {
                path: dir.to_path_buf(),
            }
        } else {
            Error::io("lock", dir.join(filename::LOCK), error)
        }
    })
}

/// Keeps writers out of a directory that is only read, and others like us in; no lock where there is no `LOCK`.
pub(crate) fn share_directory(fs: &dyn Fs, dir: &Path) -> Result<Option<Box<dyn FileLock>>> {
    fs.list_dir(dir)
        .map_err(|e| Error::io("open directory", dir, e))?;
    fs.lock_shared(&dir.join(filename::LOCK)).map_err(|error| {
        if error.kind() == io::ErrorKind::WouldBlock {
            Error::Locked {
                path: dir.to_path_buf(),
            }
        } else {
            Error::io("lock", dir.join(filename::LOCK), error)
        }
    })
}

/// Refuses a directory into which a restore was begun and not finished.
pub(crate) fn check_restored(fs: &dyn Fs, dir: &Path) -> Result<()> {
    let path = dir.join(filename::RESTORING);
    match fs.file_len(&path) {
        Ok(_) => {
            let what =
                "a restore into it was not finished (RESTORING); remove it and restore again";
            Err(Error::NotADatabase {
                path: dir.to_path_buf(),
                what: what.into(),
            })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("look for", path, error)),
    }
}

pub(super) fn list(fs: &dyn Fs, dir: &Path) -> Result<Vec<(String, Option<FileKind>)>> {
    let mut names = fs
        .list_dir(dir)
        .map_err(|e| Error::io("list directory", dir, e))?;
    names.sort();
    Ok(names
        .into_iter()
        .map(|name| (filename::parse(&name), name))
        .map(|(k, n)| (n, k))
        .collect())
}

/// Numbers of the files of a creation. Every open that succeeds goes on to higher ones.
const FIRST_MANIFEST: u64 = 1;
const FIRST_SEGMENT: u64 = 2;

/// Makes an empty database; answers the number of its manifest.
pub(super) fn create(dir: &Path, options: &Options) -> Result<u64> {
    let fs = &*options.fs;
    let files = list(fs, dir)?;
    check_nothing_lost(fs, dir, &files)?;
    if !options.create_if_missing {
        let what = "it holds no CURRENT".into();
        return Err(Error::NotADatabase {
            path: dir.to_path_buf(),
            what,
        });
    }
    for (name, kind) in &files {
        if !matches!(kind, Some(FileKind::Lock)) {
            let path = dir.join(name);
            fs.remove_file(&path)
                .map_err(|e| Error::io("remove", path, e))?;
        }
    }
    let db = options.executor.random();
    let (manifest, segment) = (FIRST_MANIFEST, FIRST_SEGMENT);
    let mark = dir.join(filename::MARK);
    let file = fs
        .open_log(&mark, MARK_LEN as u64)
        .map_err(|e| Error::io("create", &mark, e))?;
    file.sync().map_err(|e| Error::io("sync", &mark, e))?;
    let path = filename::log(dir, segment);
    let capacity = options.log_segment_bytes.0.max(HEADER_LEN as u64);
    let log = fs
        .open_log(&path, capacity)
        .map_err(|e| Error::io("create", &path, e))?;
    let header = SegmentHeader {
        db,
        number: segment,
        base: 0,
        previous: 0,
        synced: 0,
    };
    log.write_at(0, &header.encode(SegmentKind::Log))
        .map_err(|e| Error::io("write", &path, e))?;
    log.sync().map_err(|e| Error::io("sync", &path, e))?;
    let edit = VersionEdit {
        db_id: Some(db),
        next_file_number: Some(segment + 1),
        last_seq: Some(SequenceNumber::ZERO),
        log: Some(LogStart { segment, base: 0 }),
        next_family_id: Some(1),
        created: vec![FamilyCreated {
            id: 0,
            name: DEFAULT_CF.to_owned(),
            options: CfOptions::default(),
        }],
        ..VersionEdit::default()
    };
    let mut writer =
        ManifestWriter::create(fs, dir, manifest, db, SEGMENT_VERSION, options.faults)?;
    writer.append(&edit.encode())?;
    fs.sync_dir(dir)
        .map_err(|e| Error::io("sync directory", dir, e))?;
    current::write(fs, dir, manifest).inspect_err(|_| {
        // A second sync would prove nothing for the name, so the next open must create it anew.
        let _ = fs.remove_file(&dir.join(filename::CURRENT));
    })?;
    Ok(manifest)
}

/// Without CURRENT, only what an unfinished creation leaves may be there.
fn check_nothing_lost(fs: &dyn Fs, dir: &Path, files: &[(String, Option<FileKind>)]) -> Result<()> {
    for (name, kind) in files {
        let path = dir.join(name);
        match kind {
            None => {
                let what = format!("it holds no CURRENT, and {name:?}, which is not of a database");
                return Err(Error::NotADatabase {
                    path: dir.to_path_buf(),
                    what,
                });
            }
            Some(FileKind::Mark) => {
                let bytes = fs.read(&path).map_err(|e| Error::io("read", &path, e))?;
                if bytes.iter().any(|&byte| byte != 0) {
                    let what = "CURRENT is missing, and the mark shows that there was one";
                    return Err(Error::corruption(dir.join(filename::CURRENT), 0, what));
                }
            }
            Some(FileKind::Manifest(FIRST_MANIFEST) | FileKind::Log(FIRST_SEGMENT)) => {}
            Some(FileKind::Table(_) | FileKind::Manifest(_) | FileKind::Log(_)) => {
                let what = format!("CURRENT is missing, and there is {name}");
                return Err(Error::corruption(dir.join(filename::CURRENT), 0, what));
            }
            Some(_) => {}
        }
    }
    Ok(())
}
