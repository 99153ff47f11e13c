//! Copies that are checked on their way: tables, value files and log segments, into a directory of backups and out of it.
//!
//! A copy appears under its name by rename, whole and synced; its directory entry is the caller's to make durable.

use std::{io, path::Path};

use xxhash_rust::xxh3::Xxh3;

use super::record::CopiedSegment;
use crate::{
    error::{Error, Result},
    filename,
    fs::{Fs, ReadMode},
    paced,
    progress::Pace,
    table::TableInfo,
    values::ValueFileRecord,
};

/// A file of a backup by its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    Table { table_id: u64, crc: u32, size: u64 },
    Values { id: u64, crc: u32, size: u64 },
    Segment { number: u64, len: u64, hash: u128 },
}

impl Copied {
    pub(super) fn of_table(info: &TableInfo) -> Self {
        Self::Table {
            table_id: info.table_id,
            crc: info.crc,
            size: info.size,
        }
    }

    pub(super) fn of_values(file: &ValueFileRecord) -> Self {
        Self::Values {
            id: file.id,
            crc: file.crc,
            size: file.size,
        }
    }

    pub(super) fn of_segment(segment: &CopiedSegment) -> Self {
        Self::Segment {
            number: segment.number,
            len: segment.len,
            hash: segment.hash,
        }
    }

    /// Bytes of the file.
    pub(super) fn len(&self) -> u64 {
        match *self {
            Self::Table { size, .. } | Self::Values { size, .. } => size,
            Self::Segment { len, .. } => len,
        }
    }

    /// Its name among backups.
    pub(super) fn file_name(&self) -> String {
        match *self {
            Self::Table {
                table_id,
                crc,
                size,
            } => format!("{table_id:016x}-{crc:08x}-{size}.sst"),
            Self::Values { id, crc, size } => format!("{id:016x}-{crc:08x}-{size}.val"),
            Self::Segment { number, len, hash } => format!("{number:06}-{len}-{hash:032x}.log"),
        }
    }
}

/// How copies are written.
#[derive(Default)]
pub(super) struct Writing {
    /// Not synced: the planted faults.
    pub(super) unsynced: bool,
    /// The share of the database's rate limiter.
    pub(super) pace: paced::WritePace,
}

/// The checksum of what is copied, as it goes by.
enum Sum {
    Crc(crc32fast::Hasher),
    Hash(Box<Xxh3>),
}

impl Sum {
    fn of(copied: &Copied) -> Self {
        match copied {
            Copied::Table { .. } | Copied::Values { .. } => Self::Crc(crc32fast::Hasher::new()),
            Copied::Segment { .. } => Self::Hash(Box::new(Xxh3::new())),
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc(crc) => crc.update(bytes),
            Self::Hash(hash) => hash.update(bytes),
        }
    }

    fn fits(self, copied: &Copied) -> bool {
        match (self, copied) {
            (Self::Crc(sum), Copied::Table { crc, .. } | Copied::Values { crc, .. }) => {
                sum.finalize() == *crc
            }
            (Self::Hash(sum), Copied::Segment { hash, .. }) => sum.digest128() == *hash,
            _ => false,
        }
    }
}

/// Reads the file at `from`, hands its bytes to `take`, and checks that it is `copied`.
fn read_checked(
    fs: &dyn Fs,
    from: &Path,
    copied: &Copied,
    pace: &mut Pace<'_>,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let file = fs.open(from, ReadMode::Pread).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            Error::corruption(from, 0, "missing")
        } else {
            Error::io("open", from, error)
        }
    })?;
    let (len, expected) = (file.len(), copied.len());
    if len != expected {
        let what = format!("it has {len} bytes instead of {expected}");
        return Err(Error::corruption(from, len.min(expected), what));
    }
    let (mut sum, mut offset) = (Sum::of(copied), 0);
    let mut buffer = vec![0; pace.step_bytes()];
    while offset < len {
        let step =
            usize::try_from(len - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = &mut buffer[..step];
        file.read_at(offset, part)
            .map_err(|e| Error::io("read", from, e))?;
        sum.add(part);
        take(part)?;
        offset += step as u64;
        pace.advance(step as u64)?;
    }
    if sum.fits(copied) {
        Ok(())
    } else {
        Err(Error::corruption(
            from,
            0,
            "checksum of the whole file does not fit",
        ))
    }
}

/// Reads and checks a file of a backup.
pub(super) fn check_copy(
    fs: &dyn Fs,
    path: &Path,
    copied: &Copied,
    pace: &mut Pace<'_>,
) -> Result<()> {
    read_checked(fs, path, copied, pace, |_| Ok(()))
}

/// Copies a file that must be `copied`.
pub(super) fn copy_checked(
    fs: &dyn Fs,
    from: &Path,
    to: &Path,
    copied: &Copied,
    pace: &mut Pace<'_>,
    how: &Writing,
) -> Result<()> {
    whole(fs, to, how, |take| {
        read_checked(fs, from, copied, pace, take)
    })
}

/// Writes the bytes of a log segment, which were checked.
pub(super) fn copy_segment(
    fs: &dyn Fs,
    to: &Path,
    bytes: &[u8],
    pace: &mut Pace<'_>,
    how: &Writing,
) -> Result<()> {
    whole(fs, to, how, |take| {
        for part in bytes.chunks(pace.step_bytes()) {
            take(part)?;
            pace.advance(part.len() as u64)?;
        }
        Ok(())
    })
}

/// Writes a small file.
pub(super) fn write_whole(fs: &dyn Fs, to: &Path, bytes: &[u8]) -> Result<()> {
    let how = &Writing::default();
    whole(fs, to, how, |take| take(bytes))
}

/// Writes a file of what `fill` gives, under another name until it is whole and synced. After an error it is not there.
fn whole(
    fs: &dyn Fs,
    to: &Path,
    how: &Writing,
    fill: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()>,
) -> Result<()> {
    let temporary = filename::temporary(to);
    let file = fs
        .create(&temporary)
        .map_err(|e| Error::io("create", &temporary, e))?;
    let mut file = how.pace.wrap(file);
    let mut take = |bytes: &[u8]| {
        file.append(bytes)
            .map_err(|e| Error::io("write", &temporary, e))
    };
    let filled = fill(&mut take).and_then(|()| {
        if !how.unsynced {
            file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
        }
        Ok(())
    });
    drop(file);
    let placed = filled.and_then(|()| {
        fs.rename(&temporary, to)
            .map_err(|e| Error::io("rename", &temporary, e))
    });
    placed.inspect_err(|_| {
        // Its room may be what is missing; what stays is removed by the next backup.
        let _ = fs.remove_file(&temporary);
    })
}
