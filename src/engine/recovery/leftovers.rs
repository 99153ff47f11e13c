//! What an open removes when its manifest is in use, and the file that it sets aside.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::Found;
use crate::{
    error::{Error, Result},
    filename::{self, FileKind},
    fs::Fs,
    log_files::LogFiles,
};

/// Removes what no part of the database needs. Called when the new manifest is in use.
pub(super) fn remove_orphans(
    fs: &dyn Fs,
    dir: &Path,
    found: &Found,
    manifest: u64,
    logs: &LogFiles,
) -> Result<()> {
    let live: Vec<u64> = logs.live().iter().map(|segment| segment.number).collect();
    for (name, kind) in &found.files {
        let orphan = match kind {
            Some(FileKind::Manifest(number)) => *number != manifest,
            Some(FileKind::Log(number)) => !live.contains(number),
            Some(FileKind::Table(number)) => !found.state.has_table(*number),
            Some(FileKind::Values(number)) => found.state.values.get(*number).is_none(),
            Some(FileKind::Temporary) => true,
            _ => false,
        };
        if orphan {
            let path: PathBuf = dir.join(name);
            match fs.remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("remove", path, error));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// Sets space aside for a full disk; without it only that help is missing.
pub(crate) fn make_reserve(fs: &dyn Fs, dir: &Path, bytes: u64) {
    let path = dir.join(filename::RESERVE);
    if bytes > 0 && fs.file_len(&path).unwrap_or(0) < bytes {
        let _ = fs.open_log(&path, bytes);
    }
}
