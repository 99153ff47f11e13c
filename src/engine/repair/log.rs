//! The log taken across its damage: which segments were the log, and which records of them are whole.

use std::{collections::BTreeMap, path::Path};

use super::read_past;
use crate::{
    append::AppendFamily,
    batch::{FamilyId, Operation, Operations},
    coding::{put_slice, put_u32, put_varint},
    error::{Error, Result},
    faults::Faults,
    filename,
    fs::Fs,
    key::SequenceNumber,
    wal::{
        reader::{search_behind, whole_records},
        record::{FileSeed, HEADER_LEN as RECORD_HEADER_LEN, Record, RecordKind, encode_header},
        segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    },
};

/// A prefix of an append family that has entries missing, and where its last run of entries begins.
pub(super) type Broken = (FamilyId, Box<[u8]>, u64);

/// A record that is whole.
#[derive(Clone, Copy, Debug)]
struct Whole {
    offset: usize,
    seq: u64,
    /// Sequence number of its last operation.
    last: u64,
}

/// A segment of the log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) number: u64,
    records: Vec<Whole>,
    /// Bytes that were the log and are no whole record stand before, between or behind the records.
    pub(super) damaged: bool,
}

impl Segment {
    pub(super) fn records(&self) -> u64 {
        self.records.len() as u64
    }
}

/// The log as far as it can be read.
#[derive(Debug, Default)]
pub(super) struct SalvagedLog {
    /// The segments that count, oldest first.
    pub(super) segments: Vec<Segment>,
    /// A log position above all that any file speaks of.
    pub(super) above: u64,
    /// Last sequence number in it.
    pub(super) last_seq: u64,
    /// Where records are missing, for people.
    pub(super) holes: Vec<String>,
}

/// Looks through the segments `numbers` (ascending) of database `db`. `position` is the highest that is known to be durable.
pub(super) fn salvage(
    fs: &dyn Fs,
    dir: &Path,
    db: u64,
    numbers: &[u64],
    position: u64,
) -> Result<SalvagedLog> {
    let mut headers: BTreeMap<u64, Option<SegmentHeader>> = BTreeMap::new();
    for &number in numbers {
        let bytes = read(fs, dir, number)?;
        let header = SegmentHeader::decode(&bytes, SegmentKind::Log).ok();
        let header = header.filter(|header| header.db == db && header.number == number);
        headers.insert(number, header);
    }
    let chain = chain(&headers);
    let mut log = SalvagedLog {
        above: position,
        ..SalvagedLog::default()
    };
    // Where the next segment begins, as far as the one before tells; and how far the log is said to be durable.
    let mut begins = None;
    let mut claimed = position;
    for (at, &number) in chain.iter().enumerate() {
        let bytes = read(fs, dir, number)?;
        let header = headers[&number];
        let next = chain.get(at + 1).and_then(|next| headers[next]);
        let base = header.map(|header| header.base).or(begins);
        let limit = base.zip(next).and_then(|(base, next)| {
            let len = usize::try_from(next.base.checked_sub(base)?).ok()?;
            len.checked_add(HEADER_LEN)
        });
        let (mut segment, end) = look_through(&bytes, db, number, header, limit, &mut claimed);
        let base_or_none = base.unwrap_or(0);
        log.above = log
            .above
            .max(base_or_none + bytes.len() as u64)
            .max(claimed);
        let is_named = next.is_some_and(|next| next.previous == number);
        if header.is_none() && segment.records.is_empty() && !is_named {
            // Made ahead and never used, or kept to be used again.
            continue;
        }
        segment.damaged |= header.is_none() && limit.is_none();
        begins = base
            .filter(|_| !segment.damaged)
            .map(|base| base + (end - HEADER_LEN) as u64);
        log.segments.push(segment);
    }
    // A segment whose end nobody tells goes on at most until the next one begins: what was cut away there has numbers
    // that were given out again.
    let mut lowest = u64::MAX;
    for segment in log.segments.iter_mut().rev() {
        segment.records.retain(|record| record.last < lowest);
        if let Some(first) = segment.records.first() {
            lowest = first.seq;
        }
    }
    let mut before = 0;
    for segment in &log.segments {
        let last = segment.records.last().map_or(before, |record| record.last);
        if segment.damaged {
            log.holes.push(format!(
                "{:06}.log: records are missing, at or after sequence number {before}; {} are whole, up to {last}",
                segment.number,
                segment.records.len()
            ));
        }
        before = last;
    }
    log.last_seq = before;
    let end = begins.unwrap_or(0);
    if log.holes.is_empty() && end < claimed {
        log.holes.push(format!(
            "the log was durable up to position {claimed} and ends at {end}: what stood between is lost, after sequence number {before}"
        ));
    }
    Ok(log)
}

fn read(fs: &dyn Fs, dir: &Path, number: u64) -> Result<Vec<u8>> {
    read_past(fs, &filename::log(dir, number))
}

/// The segments that were the log, oldest first: the newest, and what leads down from it, past bad headers.
fn chain(headers: &BTreeMap<u64, Option<SegmentHeader>>) -> Vec<u64> {
    let newest = headers.iter().rev().find(|(_, header)| header.is_some());
    let Some((&newest, _)) = newest else {
        return headers.keys().copied().collect();
    };
    // Above it stands what was never begun, or has lost its header.
    let mut chain: Vec<u64> = headers.range(newest + 1..).rev().map(|(&n, _)| n).collect();
    let mut at = newest;
    loop {
        chain.push(at);
        let before = match headers[&at] {
            Some(header) if headers.contains_key(&header.previous) => Some(header.previous),
            Some(header) if header.previous == 0 => None,
            // Missing, or nobody tells: the next one below.
            _ => headers.range(..at).next_back().map(|(&n, _)| n),
        };
        match before {
            Some(before) if before < at => at = before,
            _ => break,
        }
    }
    chain.reverse();
    chain
}

fn look_through(
    bytes: &[u8],
    db: u64,
    number: u64,
    header: Option<SegmentHeader>,
    limit: Option<usize>,
    claimed: &mut u64,
) -> (Segment, usize) {
    let seed = FileSeed::new(db, number, Faults::default());
    *claimed = (*claimed).max(header.map_or(0, |header| header.synced));
    let mut segment = Segment {
        number,
        records: Vec::new(),
        damaged: false,
    };
    let within = &bytes[..limit.unwrap_or(usize::MAX).min(bytes.len())];
    let mut end = HEADER_LEN;
    let mut last = 0;
    for record in whole_records(within, HEADER_LEN, seed, RecordKind::Batch) {
        *claimed = (*claimed).max(record.header.synced);
        let Some(count) = count(&record) else {
            continue;
        };
        let seq = record.header.seq.0;
        let offset = usize::try_from(record.offset).expect("it lies in memory");
        segment.damaged |= offset != end;
        end = offset + RECORD_HEADER_LEN + record.payload.len();
        if seq <= last {
            continue;
        }
        last = seq + count.saturating_sub(1);
        segment.records.push(Whole { offset, seq, last });
    }
    let behind = search_behind(within, end, seed);
    segment.damaged |= behind.records > 0 || limit.is_some_and(|limit| end != limit);
    *claimed = (*claimed).max(behind.synced);
    (segment, end)
}

/// Number of operations of a batch; `None` where they do not decode.
fn count(record: &Record<'_>) -> Option<u64> {
    let operations = Operations::new(record.payload)?;
    let count = u64::from(operations.remaining());
    operations
        .into_iter()
        .all(|operation| operation.is_ok())
        .then_some(count)
}

impl SalvagedLog {
    /// True where records are missing.
    pub(super) fn has_holes(&self) -> bool {
        !self.holes.is_empty()
    }

    /// Hands on each record that counts, in order.
    pub(super) fn records(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        db: u64,
        mut take: impl FnMut(u64, &Record<'_>) -> Result<()>,
    ) -> Result<()> {
        for segment in &self.segments {
            let bytes = read(fs, dir, segment.number)?;
            let seed = FileSeed::new(db, segment.number, Faults::default());
            for whole in &segment.records {
                let record = crate::wal::record::decode_at(&bytes, whole.offset, seed);
                let record = record.map_err(|bad| {
                    let path = filename::log(dir, segment.number);
                    Error::corruption(path, whole.offset as u64, bad.text())
                })?;
                take(segment.number, &record)?;
            }
        }
        Ok(())
    }

    /// Families that the records name, and of append families the length of their prefixes.
    pub(super) fn families(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        db: u64,
    ) -> Result<BTreeMap<FamilyId, Option<usize>>> {
        let mut families = BTreeMap::new();
        self.records(fs, dir, db, |_, record| {
            let operations = Operations::new(record.payload).expect("it was decoded before");
            for operation in operations {
                let (id, operation) = operation.expect("it was decoded before");
                let prefix = prefix_of(&operation).map(<[u8]>::len);
                families.insert(id, prefix);
            }
            Ok(())
        })?;
        Ok(families)
    }

    /// For each prefix of the append families (id, bytes of prefix) that has entries missing: where its last run of
    /// entries begins.
    pub(super) fn broken_prefixes(
        &self,
        fs: &dyn Fs,
        dir: &Path,
        db: u64,
        families: &[(FamilyId, usize)],
    ) -> Result<Vec<Broken>> {
        let made = families
            .iter()
            .map(|&(id, len)| (id, AppendFamily::new(id, len)));
        let made: BTreeMap<FamilyId, AppendFamily> = made.collect();
        let mut position = 1;
        self.records(fs, dir, db, |_, record| {
            let operations = Operations::new(record.payload).expect("it was decoded before");
            for (seq, operation) in (record.header.seq.0..).zip(operations) {
                let (id, operation) = operation.expect("it was decoded before");
                if let Some(family) = made.get(&id) {
                    // An operation of another class counts for nothing, here and at an open.
                    let _ = family.replay(&operation, SequenceNumber(seq), position);
                }
            }
            position += record.header.record_len();
            Ok(())
        })?;
        let mut broken = Vec::new();
        for (&id, family) in &made {
            broken.extend(
                family
                    .broken()
                    .into_iter()
                    .map(|(prefix, at)| (id, prefix, at)),
            );
        }
        Ok(broken)
    }
}

fn prefix_of<'a>(operation: &Operation<'a>) -> Option<&'a [u8]> {
    match *operation {
        Operation::Append { prefix, .. }
        | Operation::AppendPacked { prefix, .. }
        | Operation::TruncateFront { prefix, .. }
        | Operation::TruncateBack { prefix, .. }
        | Operation::Rewrite { prefix, .. } => Some(prefix),
        _ => None,
    }
}

/// Where the new log begins and ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewLog {
    pub(super) first: u64,
    pub(super) base: u64,
    pub(super) last: u64,
    pub(super) end: u64,
    pub(super) last_seq: u64,
}

/// Writes the log anew: a segment for each old one, and one that cuts off what the append families cannot keep.
/// All are durable when this returns.
pub(super) fn write(
    fs: &dyn Fs,
    dir: &Path,
    db: u64,
    log: &SalvagedLog,
    broken: &[Broken],
    last_seq: u64,
    new_number: &mut dyn FnMut() -> u64,
) -> Result<NewLog> {
    let mut writer = Writer {
        fs,
        dir,
        db,
        previous: 0,
        position: log.above + 1,
        made: None,
        written: Vec::new(),
    };
    let base = writer.position;
    let (mut first, mut from) = (None, None);
    log.records(fs, dir, db, |number, record| {
        if from != Some(number) {
            from = Some(number);
            writer.begin(new_number())?;
            first = first.or(Some(writer.previous));
        }
        writer.put(record.header.sync, record.header.seq, record.payload)
    })?;
    let mut last_seq = last_seq.max(log.last_seq);
    if !broken.is_empty() || first.is_none() {
        writer.begin(new_number())?;
        first = first.or(Some(writer.previous));
    }
    if !broken.is_empty() {
        let mut payload = Vec::new();
        put_u32(
            &mut payload,
            u32::try_from(broken.len()).unwrap_or(u32::MAX),
        );
        for (family, prefix, index) in broken {
            payload.push(crate::batch::TRUNCATE_FRONT);
            put_varint(&mut payload, u64::from(*family));
            put_slice(&mut payload, prefix);
            put_varint(&mut payload, *index);
        }
        writer.put(true, SequenceNumber(last_seq + 1), &payload)?;
        last_seq += broken.len() as u64;
    }
    let end = writer.finish()?;
    writer.name_all()?;
    Ok(NewLog {
        first: first.expect("a segment was begun"),
        base,
        last: writer.previous,
        end,
        last_seq,
    })
}

struct Writer<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    db: u64,
    /// Number of the segment in the making, or of the last one.
    previous: u64,
    position: u64,
    made: Option<Made>,
    /// Segments that are whole and do not have their names yet.
    written: Vec<std::path::PathBuf>,
}

struct Made {
    file: Box<dyn crate::fs::WritableFile>,
    path: std::path::PathBuf,
    seed: FileSeed,
    base: u64,
    offset: u64,
}

impl Writer<'_> {
    fn begin(&mut self, number: u64) -> Result<()> {
        self.finish()?;
        let path = filename::temporary(&filename::log(self.dir, number));
        let mut file = self
            .fs
            .create(&path)
            .map_err(|e| Error::io("create", &path, e))?;
        let header = SegmentHeader {
            db: self.db,
            number,
            base: self.position,
            previous: self.previous,
            synced: self.position,
        };
        file.append(&header.encode(SegmentKind::Log))
            .map_err(|e| Error::io("write", &path, e))?;
        self.previous = number;
        self.made = Some(Made {
            file,
            path,
            seed: FileSeed::new(self.db, number, Faults::default()),
            base: self.position,
            offset: HEADER_LEN as u64,
        });
        Ok(())
    }

    fn put(&mut self, sync: bool, seq: SequenceNumber, payload: &[u8]) -> Result<()> {
        let made = self.made.as_mut().expect("a segment was begun");
        let len = u32::try_from(payload.len()).expect("it was in a record");
        let crc = crc32fast::hash(payload);
        let kind = RecordKind::Batch;
        let header = encode_header(made.seed, made.offset, len, crc, kind, sync, made.base, seq);
        for part in [&header[..], payload] {
            made.file
                .append(part)
                .map_err(|e| Error::io("write", &made.path, e))?;
            made.offset += part.len() as u64;
            self.position += part.len() as u64;
        }
        Ok(())
    }

    /// Makes the segment durable; answers where the log ends.
    fn finish(&mut self) -> Result<u64> {
        if let Some(mut made) = self.made.take() {
            made.file
                .sync()
                .map_err(|e| Error::io("sync", &made.path, e))?;
            self.written.push(made.path);
        }
        Ok(self.position)
    }

    /// Gives the segments their names, the last one first, each durably: whoever is cut off here, and looks again, finds the
    /// old log and the end of the new one, or all of the new one.
    fn name_all(&mut self) -> Result<()> {
        for temporary in self.written.drain(..).rev() {
            self.fs
                .rename(&temporary, &temporary.with_extension(""))
                .map_err(|e| Error::io("rename", &temporary, e))?;
            self.fs
                .sync_dir(self.dir)
                .map_err(|e| Error::io("sync directory", self.dir, e))?;
        }
        Ok(())
    }
}
