//! A `BACKUP-` file: what a backup is, byte for byte (FORMAT.md, section 10), and the names in a directory of backups.

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use xxhash_rust::xxh3::xxh3_128;

use crate::{
    coding::{Reader, put_slice, put_u32, put_u64, put_varint},
    error::{Error, Result},
    faults::Faults,
    filename,
    fs::WritableFile,
    recovery,
    version::ManifestState,
    wal::manifest_file::{Manifest, ManifestWriter},
};

const MAGIC: &[u8; 8] = b"BSLTBAK1";
const VERSION: u32 = 1;
/// Bytes before what the checksum covers.
const CHECKED_FROM: usize = 12;

/// A log segment as a backup has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CopiedSegment {
    /// Number of its file in the database.
    pub(super) number: u64,
    /// Log position of its first record.
    pub(super) base: u64,
    /// Bytes of it that count, header included.
    pub(super) len: u64,
    /// XXH3 of these bytes.
    pub(super) hash: u128,
}

impl CopiedSegment {
    pub(super) fn of(number: u64, base: u64, bytes: &[u8]) -> Self {
        Self {
            number,
            base,
            len: bytes.len() as u64,
            hash: xxh3_128(bytes),
        }
    }
}

/// What a `BACKUP-` file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BackupRecord {
    pub(super) id: u64,
    /// Seconds since 1970.
    pub(super) time: u64,
    pub(super) description: String,
    /// The database's random id.
    pub(super) db: u64,
    /// Last sequence number.
    pub(super) seq: u64,
    /// Log position behind the last record.
    pub(super) end: u64,
    /// Bytes copied for this backup.
    pub(super) new_bytes: u64,
    pub(super) manifest_number: u64,
    /// All bytes of the manifest's file.
    pub(super) manifest: Vec<u8>,
    /// Oldest first.
    pub(super) segments: Vec<CopiedSegment>,
}

impl BackupRecord {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_u32(&mut out, 0);
        put_u32(&mut out, VERSION);
        put_varint(&mut out, self.id);
        put_varint(&mut out, self.time);
        put_slice(&mut out, self.description.as_bytes());
        put_u64(&mut out, self.db);
        put_varint(&mut out, self.seq);
        put_varint(&mut out, self.end);
        put_varint(&mut out, self.new_bytes);
        put_varint(&mut out, self.manifest_number);
        put_slice(&mut out, &self.manifest);
        put_varint(&mut out, self.segments.len() as u64);
        for segment in &self.segments {
            put_varint(&mut out, segment.number);
            put_varint(&mut out, segment.base);
            put_varint(&mut out, segment.len);
            out.extend_from_slice(&segment.hash.to_le_bytes());
        }
        let crc = crc32fast::hash(&out[CHECKED_FROM..]);
        out[8..CHECKED_FROM].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// What the file at `path` says.
    ///
    /// # Errors
    /// `Corruption`; `NotADatabase` for a version that is not known.
    pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<Self> {
        let damage = |what: &str| Error::corruption(path, 0, what);
        let mut reader = Reader::new(bytes);
        let head = bytes
            .get(..CHECKED_FROM)
            .ok_or_else(|| damage("cut short"))?;
        if &head[..8] != MAGIC {
            return Err(damage("it has no magic of a backup"));
        }
        if head[8..] != crc32fast::hash(&bytes[CHECKED_FROM..]).to_le_bytes() {
            return Err(damage("its checksum does not fit"));
        }
        let version = reader
            .u64()
            .and_then(|_| reader.u32())
            .and_then(|_| reader.u32());
        match version {
            Some(VERSION) => {}
            Some(version) => {
                return Err(Error::NotADatabase {
                    path: path.to_path_buf(),
                    what: format!("backup format version {version}, known is {VERSION}"),
                });
            }
            None => return Err(damage("cut short")),
        }
        Self::fields(&mut reader)
            .filter(|_| reader.is_empty())
            .ok_or_else(|| damage("fields under a right checksum that do not decode"))
    }

    fn fields(reader: &mut Reader<'_>) -> Option<Self> {
        let mut record = Self {
            id: reader.varint()?,
            time: reader.varint()?,
            description: String::from_utf8(reader.slice()?.to_vec()).ok()?,
            db: reader.u64()?,
            seq: reader.varint()?,
            end: reader.varint()?,
            new_bytes: reader.varint()?,
            manifest_number: reader.varint()?,
            manifest: reader.slice()?.to_vec(),
            segments: Vec::new(),
        };
        for _ in 0..reader.varint()? {
            record.segments.push(CopiedSegment {
                number: reader.varint()?,
                base: reader.varint()?,
                len: reader.varint()?,
                hash: u128::from(reader.u64()?) | u128::from(reader.u64()?) << 64,
            });
        }
        Some(record)
    }

    /// The state in its manifest. `path` is that of the `BACKUP-` file.
    ///
    /// # Errors
    /// `Corruption`; `NotADatabase` for a format that is not known.
    pub(super) fn state(&self, path: &Path) -> Result<ManifestState> {
        let number = self.manifest_number;
        let manifest = Manifest::read(path, &self.manifest, number, None, Faults::default())?;
        let state = recovery::manifest_state(path, &manifest)?;
        let is_right = state.db_id == Some(self.db)
            && state.log.map(|log| (log.segment, log.base))
                == self
                    .segments
                    .first()
                    .map(|first| (first.number, first.base));
        let ascend = self
            .segments
            .is_sorted_by(|a, b| a.number < b.number && a.base <= b.base);
        if !is_right || !ascend {
            return Err(Error::corruption(
                path,
                0,
                "its parts contradict each other",
            ));
        }
        Ok(state)
    }
}

/// All bytes of a manifest that holds `state`.
pub(super) fn manifest_bytes(state: &ManifestState, number: u64, db: u64) -> Result<Vec<u8>> {
    let memory = Memory::default();
    let file = Box::new(memory.clone());
    let name = filename::manifest_name(number);
    let mut writer = ManifestWriter::over(
        file,
        name.as_ref(),
        number,
        db,
        state.format,
        Faults::default(),
    )?;
    writer.append(&state.to_edit().encode())?;
    Ok(std::mem::take(&mut *memory.bytes()))
}

/// A file in memory.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Memory {
    fn bytes(&self) -> std::sync::MutexGuard<'_, Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WritableFile for Memory {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.bytes().extend_from_slice(data);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A name in a directory of backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileName {
    Lock,
    Backup(u64),
    UnfinishedBackup(u64),
    /// A table, a value file or a log segment.
    Shared,
    Unfinished,
}

/// Name of the file of a backup.
pub(super) fn file_name(id: u64) -> String {
    format!("BACKUP-{id:06}")
}

/// What a name stands for; `None` for one that is never given here.
pub(super) fn parse(name: &str) -> Option<FileName> {
    if name == filename::LOCK {
        return Some(FileName::Lock);
    }
    if let Some(rest) = name.strip_suffix(".tmp") {
        return match parse(rest)? {
            FileName::Backup(id) => Some(FileName::UnfinishedBackup(id)),
            FileName::Shared => Some(FileName::Unfinished),
            _ => None,
        };
    }
    if let Some(digits) = name.strip_prefix("BACKUP-") {
        return filename::number(digits).map(FileName::Backup);
    }
    let (stem, end) = name.rsplit_once('.')?;
    let mut parts = stem.split('-');
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |text: &str, len| {
        text.len() == len && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    };
    let is_number = |text: &str| text.parse::<u64>().is_ok_and(|n| n.to_string() == text);
    let is_ours = match end {
        "sst" | "val" => is_hex(first, 16) && is_hex(second, 8) && is_number(third),
        "log" => filename::number(first).is_some() && is_number(second) && is_hex(third, 32),
        _ => false,
    };
    (is_ours && parts.next().is_none()).then_some(FileName::Shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back_and_foreign_ones_do_not() {
        for (name, kind) in [
            ("LOCK", FileName::Lock),
            ("BACKUP-000007", FileName::Backup(7)),
            ("BACKUP-000007.tmp", FileName::UnfinishedBackup(7)),
            ("1122334455667788-deadbeef-4096.sst", FileName::Shared),
            (
                "1122334455667788-deadbeef-4096.sst.tmp",
                FileName::Unfinished,
            ),
            (
                "000012-77-00112233445566778899aabbccddeeff.log",
                FileName::Shared,
            ),
        ] {
            assert_eq!(parse(name), Some(kind), "{name}");
        }
        for name in [
            "LOCK.tmp",
            "BACKUP-7",
            "BACKUP-000007.tmp.tmp",
            "1122334455667788-DEADBEEF-4096.sst",
            "1122334455667788-deadbeef-04096.sst",
            "1122334455667788-deadbeef-4096-1.sst",
            "../etc-deadbeef-1.sst",
            "000012-77-00112233445566778899aabbccddeeff.sst",
            "12-77-00112233445566778899aabbccddeeff.log",
            "CURRENT",
            "000001.sst",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
