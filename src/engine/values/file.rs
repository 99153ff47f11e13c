//! A value file being read, and who still needs it.
//!
//! Layout (FORMAT.md, value file): a header of 32 bytes, then records back to back, each a value as it is or with
//! LZ4 and the trailer that blocks of tables have, bound to the file's random id and the offset.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock, PoisonError, RwLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use byteorder::{ByteOrder, LittleEndian};

use super::{ValueFileRecord, ValuePointer};
use crate::{
    error::{Error, Result},
    filename,
    fs::{Fs, ReadMode, ReadableFile},
    slice::{PinLedger, PinnedSlice},
    table::{RAW, check_block, decompress},
    version::ObsoleteTables,
};

/// First bytes of a value file.
const MAGIC: &[u8; 8] = b"BSLTVAL1";
/// Bytes before the first record.
pub(crate) const HEADER_LEN: usize = 32;
/// Bytes of the checksum that ends a record.
const CRC_LEN: usize = 4;
/// Bytes of the map that one bit of `populated` stands for.
const PAGE: u64 = 4096;

/// The header of the file with the random number `id`.
pub(super) fn header(id: u64) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    LittleEndian::write_u64(&mut bytes[8..16], id);
    let crc = crc32fast::hash(&bytes[..HEADER_LEN - CRC_LEN]);
    LittleEndian::write_u32(&mut bytes[HEADER_LEN - CRC_LEN..], crc);
    bytes
}

/// The random number in the header of a value file; `None` where it is none that checks.
pub(crate) fn id_of(file: &dyn ReadableFile) -> Option<u64> {
    let mut found = [0; HEADER_LEN];
    file.read_at(0, &mut found).ok()?;
    let id = LittleEndian::read_u64(&found[8..16]);
    (found == header(id)).then_some(id)
}

/// The checksum at the end of a record.
pub(super) fn record_crc(record: &[u8]) -> u32 {
    LittleEndian::read_u32(&record[record.len() - CRC_LEN..])
}

/// Where the value files of a database are, and how they are read.
pub(crate) struct Place<'a> {
    pub(crate) fs: &'a dyn Fs,
    pub(crate) dir: &'a Path,
    pub(crate) mode: ReadMode,
}

/// A value file that a table needs. Whoever reads holds it, through a version's tables; once the last of them is gone,
/// and gone from the manifest, it is removed.
pub(crate) struct ValueFile {
    pub(crate) record: ValueFileRecord,
    opened: OnceLock<Opened>,
    /// Set when a table that needed it has left the manifest: with the last such, the file is of no use.
    obsolete: OnceLock<Arc<ObsoleteTables>>,
    all: Weak<ValueFiles>,
}

struct Opened {
    file: Arc<dyn ReadableFile>,
    path: PathBuf,
    /// One bit for each page of the map that was brought into memory once.
    populated: Box<[AtomicU64]>,
}

impl ValueFile {
    /// Says that a table that needed it has left, by an edit that is durable.
    pub(crate) fn mark_obsolete(&self, queue: &Arc<ObsoleteTables>) {
        self.obsolete.get_or_init(|| Arc::clone(queue));
    }

    /// The value that `pointer`, which is into this file, stands for. Its checksum is verified.
    ///
    /// # Errors
    /// The disk's; `Corruption`.
    pub(crate) fn read(
        &self,
        place: &Place<'_>,
        pointer: ValuePointer,
        ledger: &Arc<PinLedger>,
    ) -> Result<PinnedSlice> {
        let opened = self.open(place)?;
        let damage = |what: &str| Error::corruption(&opened.path, pointer.offset, what);
        let stored =
            usize::try_from(pointer.stored).map_err(|_| damage("a record beyond memory"))?;
        let end = pointer.offset.checked_add(u64::from(pointer.stored));
        if end.is_none_or(|end| end > self.record.size) || pointer.offset < HEADER_LEN as u64 {
            return Err(damage("a table points outside of the file"));
        }
        let start = usize::try_from(pointer.offset).map_err(|_| damage("beyond memory"))?;
        let mut read = Vec::new();
        let bytes = match opened.file.map() {
            Some(map) => {
                opened.populate(pointer.offset, stored)?;
                &map[start..start + stored]
            }
            None => {
                read.resize(stored, 0);
                opened
                    .file
                    .read_at(pointer.offset, &mut read)
                    .map_err(|error| Error::io("read", &opened.path, error))?;
                &read
            }
        };
        let codec = check_block(self.record.id, pointer.offset, bytes).map_err(damage)?;
        if record_crc(bytes) != pointer.crc {
            return Err(damage("a table points to another record"));
        }
        // Codec and checksum.
        let payload = &bytes[..stored - CRC_LEN - 1];
        let value = if codec != RAW {
            let block = decompress(codec, payload).map_err(damage)?;
            let len = block.slice.len();
            PinnedSlice::of_block(&block, 0..len, ledger)
        } else if opened.file.map().is_some() {
            PinnedSlice::of_map(&opened.file, start..start + payload.len(), ledger)
        } else {
            PinnedSlice::copied(payload)
        };
        if value.len() as u64 != u64::from(pointer.len) {
            return Err(damage("a value of another length"));
        }
        Ok(value)
    }

    /// Reads the whole file from the device and compares it with what was written; `tell` gets the bytes of each step.
    ///
    /// # Errors
    /// The disk's; `Corruption`.
    pub(crate) fn verify(
        &self,
        place: &Place<'_>,
        mut tell: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        /// Bytes read at a time.
        const CHUNK: usize = 1 << 20;
        let place = Place {
            mode: ReadMode::Pread,
            ..*place
        };
        let opened = Opened::new(&self.record, &place)?;
        let mut hasher = crc32fast::Hasher::new();
        let mut chunk = vec![0; CHUNK];
        let mut at = 0;
        while at < self.record.size {
            let len = usize::try_from(self.record.size - at).map_or(CHUNK, |left| left.min(CHUNK));
            opened
                .file
                .read_at(at, &mut chunk[..len])
                .map_err(|error| Error::io("read", &opened.path, error))?;
            hasher.update(&chunk[..len]);
            at += len as u64;
            tell(len as u64)?;
        }
        if hasher.finalize() == self.record.crc {
            return Ok(());
        }
        let what = "the file's checksum does not fit";
        Err(Error::corruption(&opened.path, 0, what))
    }

    fn open(&self, place: &Place<'_>) -> Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = Opened::new(&self.record, place)?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

impl Opened {
    fn new(record: &ValueFileRecord, place: &Place<'_>) -> Result<Self> {
        let path = filename::values(place.dir, record.number);
        let file = place.fs.open(&path, place.mode).map_err(|error| {
            if error.kind() == std::io::ErrorKind::NotFound {
                Error::corruption(&path, 0, "a value file that the manifest names is missing")
            } else {
                Error::io("open", &path, error)
            }
        })?;
        if file.len() != record.size {
            let what = format!("{} bytes instead of {}", file.len(), record.size);
            return Err(Error::corruption(&path, file.len().min(record.size), what));
        }
        let mut found = [0; HEADER_LEN];
        file.read_at(0, &mut found)
            .map_err(|error| Error::io("read", &path, error))?;
        if found != header(record.id) {
            return Err(Error::corruption(
                &path,
                0,
                "not the header of this value file",
            ));
        }
        let pages = if file.map().is_some() {
            record.size.div_ceil(PAGE)
        } else {
            0
        };
        let words = usize::try_from(pages.div_ceil(64)).unwrap_or(0);
        Ok(Self {
            file,
            path,
            populated: (0..words).map(|_| AtomicU64::new(0)).collect(),
        })
    }

    /// Has the system bring a range of the map into memory, unless it did so before.
    fn populate(&self, offset: u64, len: usize) -> Result<()> {
        let pages = offset / PAGE..(offset + len as u64).div_ceil(PAGE);
        let bit = |page: u64| {
            let word = usize::try_from(page / 64).expect("the map is in memory");
            (&self.populated[word], 1_u64 << (page % 64))
        };
        let is_set = |page: u64| {
            let (word, mask) = bit(page);
            word.load(Ordering::Relaxed) & mask != 0
        };
        if pages.clone().all(is_set) {
            return Ok(());
        }
        self.file
            .populate(offset, len)
            .map_err(|error| Error::io("read", &self.path, error))?;
        for page in pages {
            let (word, mask) = bit(page);
            word.fetch_or(mask, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Drop for ValueFile {
    fn drop(&mut self) {
        if let Some(all) = self.all.upgrade() {
            all.forget(self.record.number);
        }
        if let Some(queue) = self.obsolete.get() {
            queue.push_values(self.record.number);
        }
    }
}

impl fmt::Debug for ValueFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.record)
    }
}

/// The value files that some table of some version needs, by number.
#[derive(Default)]
pub(crate) struct ValueFiles {
    files: RwLock<HashMap<u64, Weak<ValueFile>>>,
}

impl ValueFiles {
    /// The file with this number.
    pub(crate) fn get(&self, number: u64) -> Option<Arc<ValueFile>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        files.get(&number)?.upgrade()
    }

    /// The file of `record`, the one that others hold already where there is one.
    ///
    /// # Errors
    /// Where they hold another file under this number.
    pub(crate) fn share(
        self: &Arc<Self>,
        record: ValueFileRecord,
    ) -> Result<Arc<ValueFile>, String> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files.get(&record.number).and_then(Weak::upgrade) {
            drop(files);
            return if file.record == record {
                Ok(file)
            } else {
                Err(format!("two value files have the number {}", record.number))
            };
        }
        let file = Arc::new(ValueFile {
            record,
            opened: OnceLock::new(),
            obsolete: OnceLock::new(),
            all: Arc::downgrade(self),
        });
        files.insert(record.number, Arc::downgrade(&file));
        Ok(file)
    }

    /// Forgets a file that nobody holds.
    fn forget(&self, number: u64) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if files
            .get(&number)
            .is_some_and(|file| file.strong_count() == 0)
        {
            files.remove(&number);
        }
    }
}

impl fmt::Debug for ValueFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_set().entries(files.keys()).finish()
    }
}
