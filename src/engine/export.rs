//! Export: a range of a family as of a snapshot, as table files that `ingest` takes, here or elsewhere.
//!
//! Promise: the files appear under their names when all of them are durable, and `000001.sst` last of all: a directory
//! with that one has them all.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    column_family::ColumnFamily,
    db::Db,
    error::{Error, Result},
    filename,
    fs::Fs,
    ingest::{TableFile, TableWriter},
    limiter::IoPriority,
    options::ReadOptions,
    progress::{Pace, Pacing},
    recovery::create_directory,
};

/// How a range is exported.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// Bytes of a file after which another one is begun (default 256 MiB).
    pub file_bytes: u64,
    /// Whom to tell, and how fast it may go: bytes of keys and values, of about as many as there are.
    pub pacing: Pacing,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            file_bytes: 256 << 20,
            pacing: Pacing::default(),
        }
    }
}

/// Rows between two looks at the pace.
const ROWS_AT_A_TIME: u64 = 1024;

impl Db {
    /// Writes the rows of `cf` within the bounds and as of the snapshot of `range` (without one: as of now) into tables
    /// `000001.sst`, `000002.sst` ... in `dir`, which must be empty or absent; answers them in key order, to be given to
    /// [`Ingest::table`](crate::Ingest::table). Without a row there is no file. When this returns they are durable; after an error or a crash
    /// there is no `000001.sst`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an append family, which has no tables, or a directory that is not empty; `Corruption` or `Io`
    /// from what was read; `Io` from the directory; `Cancelled`.
    pub fn export(
        &self,
        cf: &ColumnFamily,
        range: &ReadOptions,
        dir: impl AsRef<Path>,
        options: &ExportOptions,
    ) -> Result<Vec<TableFile>> {
        self.inner.check_family(cf)?;
        if cf.is_append() {
            return Err(Error::invalid("an append family has no tables"));
        }
        let (fs, dir) = (&*self.inner.options.fs, dir.as_ref());
        create_directory(fs, dir)?;
        let there = fs
            .list_dir(dir)
            .map_err(|e| Error::io("list directory", dir, e))?;
        // What an export that did not end has left is in nobody's way.
        let is_left = |name: &String| filename::parse(name) == Some(filename::FileKind::Temporary);
        if let Some(name) = there.iter().find(|name| !is_left(name)) {
            let dir = dir.display();
            return Err(Error::invalid(format!(
                "{dir} is not empty: it holds {name:?}"
            )));
        }
        for name in &there {
            let path = dir.join(name);
            fs.remove_file(&path)
                .map_err(|e| Error::io("remove", path, e))?;
        }
        let mut written = 0;
        let exported = self.export_rows(cf, range, dir, options, &mut written);
        let placed = exported.and_then(|files| place(fs, dir, &files).map(|()| files));
        let files = placed.inspect_err(|_| {
            // Room for another try; what stays has a name that nobody takes for a table.
            for number in 1..=written {
                let path = filename::table(dir, number);
                let _ = fs.remove_file(&path);
                let _ = fs.remove_file(&filename::temporary(&path));
            }
        })?;
        Ok((1..)
            .zip(files)
            .map(|(number, file)| file.moved_to(filename::table(dir, number)))
            .collect())
    }

    fn export_rows(
        &self,
        cf: &ColumnFamily,
        range: &ReadOptions,
        dir: &Path,
        options: &ExportOptions,
        written: &mut u64,
    ) -> Result<Vec<TableFile>> {
        let mut iter = self.iter(cf, range)?;
        let inner = &self.inner;
        let within = inner.explain_range(cf, range.lower.as_deref(), range.upper.as_deref())?;
        let total = within.bytes();
        let mut pace: Pace<'_> = options.pacing.begin(&*inner.options.executor, total);
        pace.turn_to("rows")?;
        let (mut files, mut writer) = (Vec::new(), None::<TableWriter>);
        let (mut rows, mut bytes) = (0, 0);
        iter.seek_to_first()?;
        while iter.valid() {
            let table = match &mut writer {
                Some(table) => table,
                None => {
                    *written += 1;
                    let path = filename::temporary(&filename::table(dir, *written));
                    let pace = inner.pace(IoPriority::Backup);
                    writer.insert(inner.table_writer(cf, &path, &pace)?)
                }
            };
            table.put(iter.key(), iter.value())?;
            rows += 1;
            bytes += (iter.key().len() + iter.value().len()) as u64;
            if rows % ROWS_AT_A_TIME == 0 || bytes >= pace.step_bytes() as u64 {
                pace.advance(std::mem::take(&mut bytes))?;
            }
            if table.bytes() >= options.file_bytes {
                files.extend(writer.take().map(TableWriter::finish).transpose()?);
            }
            iter.next()?;
        }
        files.extend(writer.take().map(TableWriter::finish).transpose()?);
        pace.finish(bytes)?;
        Ok(files)
    }
}

/// Gives the files their names: each but the first durably, and then the first.
fn place(fs: &dyn Fs, dir: &Path, files: &[TableFile]) -> Result<()> {
    let sync = || {
        fs.sync_dir(dir)
            .map_err(|e| Error::io("sync directory", dir, e))
    };
    for (at, file) in files.iter().enumerate().rev() {
        let number = at as u64 + 1;
        if number == 1 {
            sync()?;
        }
        fs.rename(file.path(), &filename::table(dir, number))
            .map_err(|e| Error::io("rename", file.path(), e))?;
    }
    sync()
}

/// The files of an export in `dir`, in key order, each opened and verified; none where there is no export that ended.
///
/// # Errors
///
/// As for [`TableFile::open`]; `Corruption` where one is missing in between.
pub fn exported_files(fs: &Arc<dyn Fs>, dir: impl AsRef<Path>) -> Result<Vec<TableFile>> {
    let dir = dir.as_ref();
    let names = fs
        .list_dir(dir)
        .map_err(|e| Error::io("list directory", dir, e))?;
    let number = |name: &String| match filename::parse(name) {
        Some(filename::FileKind::Table(number)) => Some(number),
        _ => None,
    };
    let mut numbers: Vec<u64> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    if numbers.first() != Some(&1) {
        return Ok(Vec::new());
    }
    let path = |number: u64| -> PathBuf { filename::table(dir, number) };
    let mut files = Vec::new();
    for (expected, number) in (1..).zip(numbers) {
        if number != expected {
            return Err(Error::corruption(path(expected), 0, "missing in an export"));
        }
        files.push(
            TableFile::open(fs, &path(number)).map_err(|error| match error {
                Error::Io { ref source, .. } if source.kind() == io::ErrorKind::NotFound => {
                    Error::corruption(path(number), 0, "missing in an export")
                }
                error => error,
            })?,
        );
    }
    Ok(files)
}
