//! A log in memory for the tests of this room: written as the commit path writes it, and read back.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    chain::{RecoveredLog, SegmentSource, Wanted, plan},
    mark::{Mark, MarkFound},
    record::{FileSeed, RecordKind, encode_record},
    segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    tail::copy_tail,
};
use crate::{
    error::{Error, Result},
    faults::Faults,
    key::SequenceNumber,
};

pub(super) const DB: u64 = 0x0123_4567_89ab_cdef;

/// Segments by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory(pub(super) BTreeMap<u64, Vec<u8>>);

impl SegmentSource for Memory {
    fn numbers(&self) -> Result<Vec<u64>> {
        Ok(self.0.keys().copied().collect())
    }
    fn path(&self, number: u64) -> PathBuf {
        PathBuf::from(format!("{number:06}.log"))
    }
    fn head(&self, number: u64) -> Result<Vec<u8>> {
        let bytes = self.bytes(number)?;
        Ok(bytes[..bytes.len().min(HEADER_LEN)].to_vec())
    }
    fn bytes(&self, number: u64) -> Result<Vec<u8>> {
        Ok(self.0.get(&number).expect("listed").clone())
    }
}

/// A record as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) position: u64,
    pub(super) seq: u64,
    pub(super) payload: Vec<u8>,
}

/// A log being written.
#[derive(Clone, Debug)]
pub(super) struct Log {
    pub(super) files: Memory,
    /// What stood in a file before it became a segment.
    pub(super) former: Memory,
    pub(super) wanted: Wanted,
    /// All records written, in order.
    pub(super) written: Vec<Entry>,
    /// Segment being written, its base, and the offset reached in it.
    pub(super) active: (u64, u64, usize),
    pub(super) synced: u64,
    pub(super) seq: u64,
}

impl Log {
    /// A log whose only segment is 5, at `base`.
    pub(super) fn new(base: u64) -> Self {
        let mark = MarkFound::Good(Mark {
            db: DB,
            segment: 5,
            position: base,
            ..Mark::default()
        });
        let faults = Faults::default();
        let wanted = Wanted {
            db: DB,
            oldest: 5,
            base,
            mark,
            faults,
        };
        let mut log = Self {
            files: Memory::default(),
            former: Memory::default(),
            wanted,
            written: Vec::new(),
            active: (0, base, HEADER_LEN),
            synced: base,
            seq: 0,
        };
        log.rotate(5, 0);
        log
    }

    /// Goes on in segment `number`, made of `spare` zeros behind its header.
    pub(super) fn rotate(&mut self, number: u64, spare: usize) {
        self.rotate_onto(number, vec![0; HEADER_LEN + spare]);
    }

    /// Goes on in segment `number`, whose file has had a former life.
    pub(super) fn rotate_onto(&mut self, number: u64, mut bytes: Vec<u8>) {
        let (base, synced) = (self.end(), self.synced);
        let header = SegmentHeader {
            db: DB,
            number,
            base,
            previous: self.active.0,
            synced,
        };
        bytes[..HEADER_LEN].copy_from_slice(&header.encode(SegmentKind::Log));
        self.files.0.insert(number, bytes);
        self.active = (number, base, HEADER_LEN);
    }

    /// Log position behind the last record.
    pub(super) fn end(&self) -> u64 {
        self.active.1 + (self.active.2 - HEADER_LEN) as u64
    }

    /// Appends a record with a payload of `len` bytes.
    pub(super) fn append(&mut self, len: usize) {
        self.seq += 3;
        let payload: Vec<u8> = (0..len)
            .map(|i| (i as u64 * 7 + self.seq).to_le_bytes()[0])
            .collect();
        self.append_payload(payload);
    }

    pub(super) fn append_payload(&mut self, payload: Vec<u8>) {
        let (number, _, offset) = self.active;
        let mut bytes = Vec::new();
        let file = FileSeed::new(DB, number, self.wanted.faults);
        let (kind, seq) = (RecordKind::Batch, SequenceNumber(self.seq));
        encode_record(
            &mut bytes,
            file,
            offset as u64,
            kind,
            true,
            self.synced,
            seq,
            &payload,
        );
        self.written.push(Entry {
            position: self.end(),
            seq: self.seq,
            payload,
        });
        let segment = self.files.0.get_mut(&number).expect("active");
        let end = offset + bytes.len();
        if segment.len() < end {
            segment.resize(end, 0);
        }
        segment[offset..end].copy_from_slice(&bytes);
        self.active.2 = end;
    }

    /// Syncs everything written and says so in the mark.
    pub(super) fn sync(&mut self) {
        self.sync_without_mark();
        let (segment, position) = (self.active.0, self.synced);
        let seq = SequenceNumber(self.seq);
        let mark = Mark {
            db: DB,
            segment,
            position,
            seq,
            ..Mark::default()
        };
        self.wanted.mark = MarkFound::Good(mark);
    }

    pub(super) fn sync_without_mark(&mut self) {
        self.synced = self.end();
    }

    /// What recovery reads, and its plan.
    pub(super) fn read(&self) -> Result<(RecoveredLog, Vec<Entry>)> {
        read(&self.files, &self.wanted)
    }

    pub(super) fn bytes(&mut self, number: u64) -> &mut Vec<u8> {
        self.files
            .0
            .get_mut(&number)
            .expect("a segment of this log")
    }
}

/// What recovery reads of `files`, and its plan.
pub(super) fn read(files: &Memory, wanted: &Wanted) -> Result<(RecoveredLog, Vec<Entry>)> {
    let log = plan(files, wanted)?;
    let mut entries = Vec::new();
    for segment in &log.segments {
        log.replay(files, segment, |position, record| {
            let (seq, payload) = (record.header.seq.0, record.payload.to_vec());
            entries.push(Entry {
                position,
                seq,
                payload,
            });
            Ok(())
        })?;
    }
    let end = entries
        .last()
        .map_or(wanted.base, |e| e.position + 32 + e.payload.len() as u64);
    assert_eq!(end, log.end, "the plan's end is where the records end");
    assert!(log.proved <= log.end);
    Ok((log, entries))
}

/// Adds the segment that seals `log`, as a caller of `copy_tail` does.
pub(super) fn seal(files: &mut Memory, log: &RecoveredLog, number: u64) {
    let mut bytes = Vec::new();
    let sealed = copy_tail(log, files, number, |part| {
        bytes.extend_from_slice(part);
        Ok(())
    });
    let sealed = sealed.expect("the files are as planned");
    assert_eq!(sealed.end, bytes.len() as u64);
    assert_eq!(sealed.position(sealed.end), log.end);
    files.0.insert(number, bytes);
}

/// Path and offset of a corruption.
pub(super) fn place(error: &Error) -> (String, u64) {
    match error {
        Error::Corruption { path, offset, .. } => (path.display().to_string(), *offset),
        other => panic!("not a corruption: {other}"),
    }
}

/// A small generator of pseudo-random numbers (splitmix64), so that a seed replays a test.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).expect("below a usize")
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
