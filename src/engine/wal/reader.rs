//! Reading the bytes of one segment or manifest: the good records from its start, and what can still be
//! recognised behind a bad one.
//!
//! Whether a bad record is damage or the torn end of the log is not decided here: that takes evidence
//! from the whole log (`chain`).

use byteorder::{ByteOrder, LittleEndian};

use super::record::{
    Bad, FileSeed, HEADER_LEN, Record, RecordKind, decode_at, decode_header, is_plausible,
};
use crate::key::SequenceNumber;

/// Where and why reading in order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// Offset in the file of the first byte not taken.
    pub(crate) offset: usize,
    /// What is wrong there; `None`: the limit was reached.
    pub(crate) bad: Option<Bad>,
}

/// The good records of a file in order, up to the first bad one or a limit.
#[derive(Clone, Debug)]
pub(crate) struct Records<'a> {
    bytes: &'a [u8],
    file: FileSeed,
    kind: RecordKind,
    /// Offset at which a later segment takes over; the record that ends there is the last.
    limit: Option<u64>,
    last_seq: SequenceNumber,
    stop: Stop,
}

impl<'a> Records<'a> {
    /// The records from `offset` on. In a log (`RecordKind::Batch`) sequence numbers must ascend from
    /// above `last_seq`; in a manifest they are all zero.
    pub(crate) fn new(
        bytes: &'a [u8],
        offset: usize,
        file: FileSeed,
        kind: RecordKind,
        limit: Option<u64>,
        last_seq: SequenceNumber,
    ) -> Self {
        Self {
            bytes,
            file,
            kind,
            limit,
            last_seq,
            stop: Stop { offset, bad: None },
        }
    }

    /// Where reading stands, and, once the iterator has ended, why it ended.
    pub(crate) fn stop(&self) -> Stop {
        self.stop
    }

    /// Sequence number of the last record taken.
    pub(crate) fn last_seq(&self) -> SequenceNumber {
        self.last_seq
    }

    fn check_next(&self) -> Result<Record<'a>, Bad> {
        let record = decode_at(self.bytes, self.stop.offset, self.file)?;
        if record.header.kind != self.kind {
            return Err(Bad::Kind);
        }
        let ascends = match self.kind {
            RecordKind::Batch => record.header.seq > self.last_seq || self.file.believes_stale(),
            RecordKind::Edit => record.header.seq == SequenceNumber::ZERO,
        };
        if !ascends {
            return Err(Bad::Sequence);
        }
        if self.limit.is_some_and(|limit| record.end() > limit) {
            return Err(Bad::Crosses);
        }
        Ok(record)
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let at_limit = self
            .limit
            .is_some_and(|limit| self.stop.offset as u64 >= limit);
        if self.stop.bad.is_some() || at_limit {
            return None;
        }
        match self.check_next() {
            Ok(record) => {
                self.stop.offset += HEADER_LEN + record.payload.len();
                self.last_seq = self.last_seq.max(record.header.seq);
                Some(record)
            }
            Err(bad) => {
                self.stop.bad = Some(bad);
                None
            }
        }
    }
}

/// What a search of bytes that are not taken in order has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Behind {
    /// Highest `synced` of a recognised header: that position was durable once.
    pub(crate) synced: u64,
    /// Bytes of recognised records, as far as they lie in the file.
    pub(crate) bytes: u64,
    /// Recognised headers.
    pub(crate) records: u64,
}

/// Looks at every offset from `from` on for headers written to this very place. A right header whose
/// payload is damaged counts: its `synced` is as true as before.
pub(crate) fn search_behind(bytes: &[u8], from: usize, file: FileSeed) -> Behind {
    // Where the kind stands in a header. It is never zero, so eight zeros there rule out eight offsets.
    const KIND: usize = 12;
    let mut found = Behind::default();
    let mut at = from;
    while let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
        if LittleEndian::read_u64(&window[KIND..KIND + 8]) == 0 {
            at += 8;
            continue;
        }
        if !is_plausible(window) {
            at += 1;
            continue;
        }
        let Ok(header) = decode_header(bytes, at, file) else {
            at += 1;
            continue;
        };
        let rest = bytes.len() - at;
        let len = usize::try_from(header.record_len()).map_or(rest, |len| len.min(rest));
        found.synced = found.synced.max(header.synced);
        found.bytes += len as u64;
        found.records += 1;
        at += len;
    }
    found
}

/// Puts single flipped bits right in the records from `from` on; answers how many. A record in which more is wrong stays
/// as it is, but for a chance of its bits to 2^32.
pub(crate) fn mend_records(bytes: &mut [u8], from: usize, file: FileSeed) -> u64 {
    let (mut at, mut mended) = (from, 0);
    while at < bytes.len() {
        let bad = match decode_at(bytes, at, file) {
            Ok(record) => {
                at += HEADER_LEN + record.payload.len();
                continue;
            }
            Err(bad) => bad,
        };
        let payload = decode_header(bytes, at, file)
            .ok()
            .map(|header| header.len as usize);
        let range = match (bad, payload) {
            (Bad::PayloadChecksum, Some(len)) if len <= MAX_MENDED => {
                at + HEADER_LEN..at + HEADER_LEN + len
            }
            (_, None) if bytes.len() - at >= HEADER_LEN => at..at + HEADER_LEN,
            _ => 0..0,
        };
        let is_right = |bytes: &[u8]| match payload {
            Some(_) => decode_at(bytes, at, file).is_ok(),
            None => decode_header(bytes, at, file).is_ok(),
        };
        if flip_one(bytes, range, is_right) {
            mended += 1;
            continue;
        }
        let mut later = (at + 1..bytes.len()).filter(|&next| {
            let window = bytes
                .get(next..)
                .and_then(<[u8]>::first_chunk::<HEADER_LEN>);
            window.is_some_and(is_plausible) && decode_header(bytes, next, file).is_ok()
        });
        match later.next() {
            Some(next) => at = next,
            None => break,
        }
    }
    mended
}

/// Most bytes under one checksum in which a flipped bit is looked for.
pub(crate) const MAX_MENDED: usize = 16 << 10;

/// Flips the one bit in `range` of `bytes` that makes them right; false, and all as it was, where there is none.
pub(crate) fn flip_one(
    bytes: &mut [u8],
    range: std::ops::Range<usize>,
    is_right: impl Fn(&[u8]) -> bool,
) -> bool {
    for at in range {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            if is_right(bytes) {
                return true;
            }
            bytes[at] ^= 1 << bit;
        }
    }
    false
}

/// Every record that is whole, wherever it stands from `from` on, in order: for those who read past damage.
pub(crate) fn whole_records(
    bytes: &[u8],
    from: usize,
    file: FileSeed,
    kind: RecordKind,
) -> impl Iterator<Item = Record<'_>> {
    let mut at = from;
    std::iter::from_fn(move || {
        while let Some(window) = bytes.get(at..).and_then(<[u8]>::first_chunk::<HEADER_LEN>) {
            if is_plausible(window)
                && let Ok(record) = decode_at(bytes, at, file)
                && record.header.kind == kind
            {
                at += HEADER_LEN + record.payload.len();
                return Some(record);
            }
            at += 1;
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{faults::Faults, wal::record::encode_record};

    fn seed(number: u64) -> FileSeed {
        FileSeed::new(42, number, Faults::default())
    }

    fn put(out: &mut Vec<u8>, number: u64, synced: u64, seq: u64, payload: &[u8]) {
        let offset = out.len() as u64;
        let seq = SequenceNumber(seq);
        encode_record(
            out,
            seed(number),
            offset,
            RecordKind::Batch,
            false,
            synced,
            seq,
            payload,
        );
    }

    fn read(bytes: &[u8], limit: Option<u64>) -> (Vec<u64>, Stop) {
        let zero = SequenceNumber::ZERO;
        let mut records = Records::new(bytes, 0, seed(1), RecordKind::Batch, limit, zero);
        let seqs = records.by_ref().map(|r| r.header.seq.0).collect();
        (seqs, records.stop())
    }

    #[test]
    fn reading_ends_at_the_first_bad_record_and_says_why() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, 0, 1, b"one");
        put(&mut bytes, 1, 0, 2, b"two");
        let end = bytes.len();
        assert_eq!(
            read(&bytes, None),
            (
                vec![1, 2],
                Stop {
                    offset: end,
                    bad: Some(Bad::Cut)
                }
            )
        );
        put(&mut bytes, 1, 0, 2, b"again");
        let stop = Stop {
            offset: end,
            bad: Some(Bad::Sequence),
        };
        assert_eq!(read(&bytes, None), (vec![1, 2], stop));
        bytes[36] ^= 1;
        let stop = Stop {
            offset: 35,
            bad: Some(Bad::HeaderChecksum),
        };
        assert_eq!(read(&bytes, None), (vec![1], stop));
    }

    #[test]
    fn a_limit_ends_reading_between_records_and_a_record_over_it_is_bad() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, 0, 1, b"one");
        put(&mut bytes, 1, 0, 2, b"two");
        assert_eq!(
            read(&bytes, Some(35)),
            (
                vec![1],
                Stop {
                    offset: 35,
                    bad: None
                }
            )
        );
        let stop = Stop {
            offset: 35,
            bad: Some(Bad::Crosses),
        };
        assert_eq!(read(&bytes, Some(69)), (vec![1], stop));
    }

    #[test]
    fn the_search_finds_every_record_behind_garbage_of_any_length() {
        for (gap, filler) in (0..40).flat_map(|gap| [(gap, 0x00), (gap, 0x01)]) {
            let mut bytes = vec![filler; gap];
            put(&mut bytes, 1, 60, 4, b"");
            put(&mut bytes, 1, 70, 5, b"payload");
            let damaged = bytes.len() - 1;
            put(&mut bytes, 1, 90, 6, b"cut");
            bytes[damaged] ^= 0x80;
            let len = bytes.len() - 1;
            let found = search_behind(&bytes[..len], 0, seed(1));
            assert_eq!(
                found,
                Behind {
                    synced: 90,
                    bytes: 32 + 39 + 34,
                    records: 3
                },
                "gap {gap}"
            );
        }
    }

    #[test]
    fn a_needle_is_found_behind_64_mib_of_a_former_life_and_zeros() {
        const SIZE: usize = 64 << 20;
        let mut stale = Vec::with_capacity(SIZE);
        while stale.len() + 100 < SIZE / 2 {
            let seq = stale.len() as u64 + 1;
            put(
                &mut stale,
                2,
                1 << 40,
                seq,
                b"a small record of a former life",
            );
        }
        stale.resize(SIZE - 100, 0);
        put(&mut stale, 1, 7, 1, b"the needle");
        let found = search_behind(&stale, 3, seed(1));
        assert_eq!(
            found,
            Behind {
                synced: 7,
                bytes: 42,
                records: 1
            }
        );
    }
}
