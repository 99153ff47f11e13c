//! The live manifest: edits are written, synced, and only then take effect.
//!
//! The manifest's mutex is held across its sync on purpose: edits have one order, and nothing on the path of a
//! read or a write takes it. After a failed write the file's tail is unknown: the database is read-only, and
//! only a new manifest (`resume`, or the next open) takes edits again.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    error::{Error, Result},
    filename,
    fs::Fs,
    version::{ManifestState, ObsoleteTables, VersionEdit},
    wal::manifest_file::ManifestWriter,
};

/// The state of the database and the file that keeps it.
pub(crate) struct Manifest {
    current: Mutex<Current>,
    obsolete: Arc<ObsoleteTables>,
}

pub(crate) struct Current {
    pub(crate) state: ManifestState,
    pub(crate) writer: ManifestWriter,
}

impl Manifest {
    pub(crate) fn new(state: ManifestState, writer: ManifestWriter) -> Self {
        Self {
            current: Mutex::new(Current { state, writer }),
            obsolete: Arc::default(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tables that nobody uses any more.
    pub(crate) fn obsolete(&self) -> &Arc<ObsoleteTables> {
        &self.obsolete
    }
}

impl Current {
    /// Makes `edit` durable and applies it. Tables that leave are removed once nobody reads them.
    pub(crate) fn apply(
        &mut self,
        edit: &VersionEdit,
        obsolete: &Arc<ObsoleteTables>,
    ) -> Result<()> {
        let mut next = self.state.clone();
        let gone = next.apply(edit).map_err(|why| {
            // Our own edit does not fit our own state: nothing was written, and nothing must be.
            Error::io(
                "edit",
                format!("MANIFEST-{:06}", self.writer.number()),
                std::io::Error::other(why),
            )
        })?;
        self.writer.append(&edit.encode())?;
        self.state = next;
        for table in gone {
            table.mark_obsolete(obsolete);
        }
        Ok(())
    }
}

/// Removes files of tables; a file that is gone already is fine.
pub(crate) fn remove_tables(fs: &dyn Fs, dir: &Path, numbers: &[u64]) -> Result<()> {
    remove_files(
        fs,
        numbers.iter().map(|&number| filename::table(dir, number)),
    )
}

/// Removes value files; a file that is gone already is fine.
pub(crate) fn remove_value_files(fs: &dyn Fs, dir: &Path, numbers: &[u64]) -> Result<()> {
    remove_files(
        fs,
        numbers.iter().map(|&number| filename::values(dir, number)),
    )
}

fn remove_files(fs: &dyn Fs, paths: impl Iterator<Item = PathBuf>) -> Result<()> {
    for path in paths {
        match fs.remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", path, error));
            }
            _ => {}
        }
    }
    Ok(())
}
