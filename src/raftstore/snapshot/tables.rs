//! The table files of a snapshot as they are on the disk: their sums, and that they keep to the region.

use std::{io::ErrorKind::NotFound, path::Path, sync::Arc};

use basalt_engine::{
    Error, TableFile,
    coding::Reader,
    fs::{Fs, ReadMode, ReadableFile},
};
use basalt_proto::metapb::Region;

use super::{
    SNAPSHOT_CHUNK, SnapshotError,
    description::FileSum,
    error::{Result, io},
};

/// Length and checksum of a file.
pub(super) fn checksum(fs: &dyn Fs, path: &Path) -> Result<FileSum> {
    let file = open_file(fs, path)?;
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; SNAPSHOT_CHUNK];
    let mut offset = 0;
    while offset < file.len() {
        let part = chunk(&*file, path, offset, &mut buffer)?;
        crc.update(part);
        offset += part.len() as u64;
    }
    Ok(FileSum {
        bytes: offset,
        checksum: crc.finalize(),
    })
}

/// Demands that a file is what was announced.
pub(super) fn demand(path: &Path, found: &FileSum, wanted: FileSum) -> Result<()> {
    if *found == wanted {
        return Ok(());
    }
    Err(SnapshotError::Damaged(format!(
        "{}: {} bytes with checksum {:08x}, not {} bytes with {:08x}",
        path.display(),
        found.bytes,
        found.checksum,
        wanted.bytes,
        wanted.checksum,
    )))
}

/// Opens a file for reading; one that is not there is [`SnapshotError::Missing`].
pub(super) fn open_file(fs: &dyn Fs, path: &Path) -> Result<Arc<dyn ReadableFile>> {
    fs.open(path, ReadMode::Pread)
        .map_err(|error| match error.kind() {
            NotFound => SnapshotError::Missing(format!("{} is not there", path.display())),
            _ => io("open", path)(error),
        })
}

/// The bytes of a file from `offset` on, as many as `buffer` takes.
pub(super) fn chunk<'a>(
    file: &dyn ReadableFile,
    path: &Path,
    offset: u64,
    buffer: &'a mut [u8],
) -> Result<&'a [u8]> {
    let left = usize::try_from(file.len() - offset).unwrap_or(usize::MAX);
    let len = left.min(buffer.len());
    let part = &mut buffer[..len];
    file.read_at(offset, part).map_err(io("read", path))?;
    Ok(part)
}

/// Opens a table of rows of `region`, and verifies all of it.
pub(super) fn open(fs: &Arc<dyn Fs>, path: &Path, region: &Region) -> Result<TableFile> {
    let damaged = |error: Error| match error {
        Error::Corruption { .. } | Error::InvalidArgument(_) => {
            SnapshotError::Damaged(error.to_string())
        }
        error => SnapshotError::Engine(error),
    };
    let table = TableFile::open(fs, path).map_err(damaged)?;
    let (smallest, largest) = span(&**fs, path)?;
    let Region {
        start_key, end_key, ..
    } = region;
    let behind = !end_key.is_empty() && largest[..] >= end_key[..];
    if smallest[..] < start_key[..] || behind {
        return Err(SnapshotError::Damaged(format!(
            "{}: a key outside the range of region {}",
            path.display(),
            region.id
        )));
    }
    Ok(table)
}

/// Smallest and largest key of a verified table without range deletes, as its properties say
/// (FORMAT.md, 4.6 and 4.7): the engine checks them, and does not tell them.
fn span(fs: &dyn Fs, path: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    const FOOTER: u64 = 80;
    const PROPERTIES: usize = 56; // their place in the footer
    let no_table = || SnapshotError::Damaged(format!("{} is no table", path.display()));
    let file = open_file(fs, path)?;
    let read = |offset, bytes: &mut [u8]| file.read_at(offset, bytes).map_err(io("read", path));
    let footer_at = file.len().checked_sub(FOOTER).ok_or_else(no_table)?;
    let mut footer = [0; PROPERTIES + 12];
    read(footer_at, &mut footer)?;
    let mut reader = Reader::new(&footer[PROPERTIES..]);
    let place = reader.u64().zip(reader.u32()).ok_or_else(no_table)?;
    let (offset, len) = place;
    if offset.saturating_add(len.into()) > footer_at {
        return Err(no_table());
    }
    let mut properties = vec![0; usize::try_from(len).map_err(|_| no_table())?];
    read(offset, &mut properties)?;
    let mut reader = Reader::new(&properties);
    let ends = (|| {
        const COUNTS: usize = 6; // of blocks, entries, deletes, range deletes; two sequence numbers
        reader.u32().filter(|version| *version == 1)?;
        for _ in 0..COUNTS {
            reader.varint()?;
        }
        reader.u8().filter(|exclusive| *exclusive == 0)?;
        Some((reader.slice()?.to_vec(), reader.slice()?.to_vec()))
    })();
    ends.ok_or_else(no_table)
}
