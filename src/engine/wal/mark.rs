//! The mark: the last acknowledged positions of log and manifest, beside them (FORMAT.md, section 6).
//!
//! It is overwritten in place after each sync and not synced itself: after the death of the process it is
//! exact, after a power cut it may be older than the truth, never newer. So it is evidence that a
//! position was durable, and its absence proves nothing.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use byteorder::{ByteOrder, LittleEndian};

use crate::{
    error::{Error, Result},
    fs::LogFile,
    key::SequenceNumber,
    wal::segment::SegmentKind,
};

/// Bytes of a mark: less than a sector, so that it is old or new, never half.
pub(crate) const MARK_LEN: usize = 64;

const MAGIC: &[u8; 8] = b"BSLTMRK1";
const FLAG_SYNC_FAILED: u32 = 1;

/// What a mark says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The database's random id.
    pub(crate) db: u64,
    /// A sync of the log failed: only what stands below `position` may be trusted to be durable.
    pub(crate) sync_failed: bool,
    /// The log segment that holds the last byte known durable, with its header; 0: none yet.
    pub(crate) segment: u64,
    /// Log position known durable.
    pub(crate) position: u64,
    /// Last acknowledged synced sequence number.
    pub(crate) seq: SequenceNumber,
    /// Number of the manifest; 0: none yet.
    pub(crate) manifest: u64,
    /// Bytes of the manifest known durable.
    pub(crate) manifest_offset: u64,
}

/// True where the bytes are those of a log segment: then files were exchanged, and the segment that stands here is
/// missing from the log together with the only witness of it.
pub(crate) fn is_a_segment(bytes: &[u8]) -> bool {
    bytes.starts_with(SegmentKind::Log.magic())
}

/// What an open found of the mark. Only a good one is evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MarkFound {
    /// There is no file, or nothing was ever written to it.
    Absent,
    /// It is damaged, or of another database.
    Unreadable,
    /// It can be believed.
    Good(Mark),
}

impl MarkFound {
    /// Judges the bytes of the file `MARK` of database `db`; `None`: there is no such file.
    pub(crate) fn read(bytes: Option<&[u8]>, db: u64) -> Self {
        let Some(bytes) = bytes else {
            return Self::Absent;
        };
        match Mark::decode(bytes) {
            Some(mark) if mark.db == db => Self::Good(mark),
            None if bytes.iter().take(MARK_LEN).all(|&byte| byte == 0) => Self::Absent,
            _ => Self::Unreadable,
        }
    }

    /// The mark, when it can be believed.
    pub(crate) fn good(&self) -> Option<&Mark> {
        match self {
            Self::Good(mark) => Some(mark),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

impl Mark {
    /// Bytes of the mark.
    pub(crate) fn encode(&self) -> [u8; MARK_LEN] {
        let mut bytes = [0; MARK_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        let flags = u32::from(self.sync_failed) * FLAG_SYNC_FAILED;
        LittleEndian::write_u32(&mut bytes[12..16], flags);
        LittleEndian::write_u64(&mut bytes[16..24], self.db);
        LittleEndian::write_u64(&mut bytes[24..32], self.segment);
        LittleEndian::write_u64(&mut bytes[32..40], self.position);
        LittleEndian::write_u64(&mut bytes[40..48], self.manifest);
        LittleEndian::write_u64(&mut bytes[48..56], self.manifest_offset);
        LittleEndian::write_u64(&mut bytes[56..64], self.seq.0);
        let crc = crc32fast::hash(&bytes[12..]);
        LittleEndian::write_u32(&mut bytes[8..12], crc);
        bytes
    }

    /// The mark at the start of `bytes`; `None` when it is not one this version knows.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<MARK_LEN>()?;
        let crc = LittleEndian::read_u32(&bytes[8..12]);
        let flags = LittleEndian::read_u32(&bytes[12..16]);
        let seq = SequenceNumber(LittleEndian::read_u64(&bytes[56..64]));
        if &bytes[..8] != MAGIC
            || crc != crc32fast::hash(&bytes[12..])
            || flags & !FLAG_SYNC_FAILED != 0
            || seq > SequenceNumber::MAX
        {
            return None;
        }
        Some(Self {
            db: LittleEndian::read_u64(&bytes[16..24]),
            sync_failed: flags & FLAG_SYNC_FAILED != 0,
            segment: LittleEndian::read_u64(&bytes[24..32]),
            position: LittleEndian::read_u64(&bytes[32..40]),
            seq,
            manifest: LittleEndian::read_u64(&bytes[40..48]),
            manifest_offset: LittleEndian::read_u64(&bytes[48..56]),
        })
    }
}

/// The mark's file. Calls may come from any thread; each overwrites the mark as a whole, and no position
/// ever goes back.
#[derive(Debug)]
pub(crate) struct MarkFile {
    file: Arc<dyn LogFile>,
    path: PathBuf,
    state: Mutex<Mark>,
}

impl MarkFile {
    /// Takes over `file`, whose capacity is at least [`MARK_LEN`]. Nothing is written before the first
    /// news. `start` is what recovery has proved, of this database.
    pub(crate) fn new(file: Arc<dyn LogFile>, path: &Path, start: Mark) -> Self {
        Self {
            file,
            path: path.into(),
            state: Mutex::new(start),
        }
    }

    /// The log is durable below `position`, and that includes the header of `segment`, in which the last
    /// of these bytes stand; `seq` is the last sequence number below.
    ///
    /// # Errors
    /// The system's refusal of the write.
    pub(crate) fn log_synced(
        &self,
        segment: u64,
        position: u64,
        seq: SequenceNumber,
    ) -> Result<()> {
        let mut mark = self.lock();
        if (position, segment) >= (mark.position, mark.segment) {
            mark.segment = segment;
            mark.position = position;
        }
        mark.seq = mark.seq.max(seq);
        self.write(&mark)
    }

    /// The first `offset` bytes of manifest `number` are durable, and so is the `CURRENT` that names it:
    /// an open that finds an older manifest in use takes that for damage.
    ///
    /// # Errors
    /// The system's refusal of the write.
    pub(crate) fn manifest_synced(&self, number: u64, offset: u64) -> Result<()> {
        let mut mark = self.lock();
        if (number, offset) >= (mark.manifest, mark.manifest_offset) {
            mark.manifest = number;
            mark.manifest_offset = offset;
        }
        self.write(&mark)
    }

    /// A sync of the log failed: the next open must copy everything above the mark's position.
    /// Stands until the database is opened anew.
    ///
    /// # Errors
    /// The system's refusal of the write.
    pub(crate) fn sync_failed(&self) -> Result<()> {
        let mut mark = self.lock();
        mark.sync_failed = true;
        self.write(&mark)
    }

    /// Makes the mark itself durable: at a clean close, and after recovery has sealed a cut.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn sync(&self) -> Result<()> {
        let _state = self.lock();
        self.file
            .sync()
            .map_err(|e| Error::io("sync", &self.path, e))
    }

    fn write(&self, mark: &Mark) -> Result<()> {
        self.file
            .write_at(0, &mark.encode())
            .map_err(|e| Error::io("write", &self.path, e))
    }

    fn lock(&self) -> MutexGuard<'_, Mark> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    const MARK: Mark = Mark {
        db: 7,
        sync_failed: true,
        segment: 12,
        position: 3456,
        seq: SequenceNumber(99),
        manifest: 11,
        manifest_offset: 2222,
    };

    #[derive(Debug, Default)]
    struct Memory(Mutex<Vec<u8>>);

    impl LogFile for Memory {
        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            assert_eq!(offset, 0);
            *self.0.lock().expect("not poisoned") = data.to_vec();
            Ok(())
        }
        fn sync(&self) -> io::Result<()> {
            Err(io::Error::other("no disk"))
        }
        fn capacity(&self) -> u64 {
            64
        }
    }

    #[test]
    fn a_mark_comes_back_and_every_flipped_bit_makes_it_unreadable() {
        let good = MARK.encode();
        assert_eq!(MarkFound::read(Some(&good), 7), MarkFound::Good(MARK));
        for bit in 0..MARK_LEN * 8 {
            let mut bytes = good;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                MarkFound::read(Some(&bytes), 7),
                MarkFound::Unreadable,
                "bit {bit}"
            );
        }
    }

    #[test]
    fn a_mark_of_another_database_is_unreadable_and_an_unwritten_one_absent() {
        assert_eq!(
            MarkFound::read(Some(&MARK.encode()), 8),
            MarkFound::Unreadable
        );
        assert_eq!(MarkFound::read(Some(&[0; 512]), 7), MarkFound::Absent);
        assert_eq!(MarkFound::read(Some(&[]), 7), MarkFound::Absent);
        assert_eq!(MarkFound::read(None, 7), MarkFound::Absent);
        assert_eq!(
            MarkFound::read(Some(&MARK.encode()[..63]), 7),
            MarkFound::Unreadable
        );
    }

    #[test]
    fn positions_never_go_back_and_each_call_writes_the_whole_mark() {
        let memory = Arc::new(Memory::default());
        let start = Mark {
            db: 7,
            ..Mark::default()
        };
        let file = MarkFile::new(memory.clone(), Path::new("MARK"), start);
        let written = || Mark::decode(&memory.0.lock().expect("not poisoned")).expect("whole");
        file.log_synced(3, 100, SequenceNumber(5)).expect("written");
        file.log_synced(2, 90, SequenceNumber(4)).expect("written");
        let mark = written();
        assert_eq!(
            (mark.segment, mark.position, mark.seq),
            (3, 100, SequenceNumber(5))
        );
        file.manifest_synced(9, 50).expect("written");
        file.manifest_synced(8, 70).expect("written");
        assert_eq!((written().manifest, written().manifest_offset), (9, 50));
        file.manifest_synced(10, 1).expect("written");
        file.sync_failed().expect("written");
        file.log_synced(2, 100, SequenceNumber(5)).expect("written");
        assert_eq!(written().segment, 3, "nor does the segment at one position");
        file.log_synced(4, 100, SequenceNumber(5)).expect("written");
        let mark = written();
        assert_eq!(
            (mark.manifest, mark.manifest_offset, mark.segment),
            (10, 1, 4)
        );
        assert!(mark.sync_failed, "the flag stands until the next open");
        assert!(file.sync().is_err());
    }
}
