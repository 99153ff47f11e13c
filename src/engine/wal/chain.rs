//! The recovery plan: which segments, and which of their bytes, are the log.
//!
//! Pure reading: nothing is changed, and only one segment is in memory at a time. The rule (FORMAT.md,
//! section 3.4; docs/adr/0002):
//!
//! 1. The chain is the segment with the highest number and a good header, and its predecessors down to
//!    the position the manifest names. A segment whose way down is broken by a bad header was never
//!    synced, or the evidence of step 3 says otherwise; then the next lower one heads the chain.
//! 2. Along the chain, records are taken in order up to where the next segment begins. The first bad one
//!    ends the log, and so does a segment that begins above the end of its predecessor.
//! 3. Every position that any good header claims durable must lie below the end found: in records and
//!    segment headers taken, behind the end, in segments off the chain, and in the mark. Such claims are
//!    true for ever, because no cut goes below them. One above the end is `Corruption`.
//!
//! What the callers of this module must hold, so that a plain crash never looks like damage:
//! - the directory is synced before the first byte is written to a new or renamed segment, before the
//!   manifest names it, and before [`plan`] reads it;
//! - a segment is reused for a new number only once the manifest's oldest number is above its old one:
//!   those in [`RecoveredLog::off_chain`] are removed, never reused;
//! - new numbers are above all numbers in the directory.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    mark::{Mark, MarkFound},
    reader::{Records, Stop, search_behind},
    record::{Bad, FileSeed, RecordKind},
    segment::{BadHeader, HEADER_LEN, SegmentHeader, SegmentKind},
};
use crate::{
    error::{Error, Result},
    faults::{Fault, Faults},
    filename::{self, FileKind},
    fs::{Fs, ReadMode},
    key::SequenceNumber,
};

/// Where segments are read from.
pub(crate) trait SegmentSource {
    /// Numbers of the segments there, in any order.
    fn numbers(&self) -> Result<Vec<u64>>;
    /// Path of a segment, for errors.
    fn path(&self, number: u64) -> PathBuf;
    /// The first [`HEADER_LEN`] bytes of a segment, or all of a shorter one.
    fn head(&self, number: u64) -> Result<Vec<u8>>;
    /// All bytes of a segment.
    fn bytes(&self, number: u64) -> Result<Vec<u8>>;
}

/// The segments of a database directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DirSegments<'a> {
    /// The disk.
    pub(crate) fs: &'a dyn Fs,
    /// The database directory.
    pub(crate) dir: &'a Path,
}

impl SegmentSource for DirSegments<'_> {
    fn numbers(&self) -> Result<Vec<u64>> {
        let names = self
            .fs
            .list_dir(self.dir)
            .map_err(|e| Error::io("list", self.dir, e))?;
        let number = |name: &String| match filename::parse(name) {
            Some(FileKind::Log(number)) => Some(number),
            _ => None,
        };
        Ok(names.iter().filter_map(number).collect())
    }

    fn path(&self, number: u64) -> PathBuf {
        filename::log(self.dir, number)
    }

    fn head(&self, number: u64) -> Result<Vec<u8>> {
        let path = self.path(number);
        let file = self
            .fs
            .open(&path, ReadMode::Pread)
            .map_err(|e| Error::io("open", &path, e))?;
        let len = usize::try_from(file.len()).map_or(HEADER_LEN, |len| len.min(HEADER_LEN));
        let mut head = vec![0; len];
        file.read_at(0, &mut head)
            .map_err(|e| Error::io("read", &path, e))?;
        Ok(head)
    }

    fn bytes(&self, number: u64) -> Result<Vec<u8>> {
        let path = self.path(number);
        self.fs.read(&path).map_err(|e| Error::io("read", path, e))
    }
}

/// What the manifest and the mark say of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// The database's id.
    pub(crate) db: u64,
    /// Number of the oldest segment needed.
    pub(crate) oldest: u64,
    /// Log position at which it begins.
    pub(crate) base: u64,
    /// The mark.
    pub(crate) mark: MarkFound,
    /// Planted faults.
    pub(crate) faults: Faults,
}

/// A segment of the log, and how much of it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TakenSegment {
    /// File number.
    pub(crate) number: u64,
    /// Log position of its first record.
    pub(crate) base: u64,
    /// Offset in the file behind the last record that counts.
    pub(crate) end: u64,
}

impl TakenSegment {
    /// Log position of an offset in the file.
    pub(crate) fn position(&self, offset: u64) -> u64 {
        // Whoever forged a base near the end of all numbers gets no overflow from us.
        self.base.saturating_add(offset - HEADER_LEN as u64)
    }
}

/// The log as it is to be replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredLog {
    pub(super) db: u64,
    pub(super) faults: Faults,
    /// The segments that count, oldest first.
    pub(crate) segments: Vec<TakenSegment>,
    /// Log position behind the last record.
    pub(crate) end: u64,
    /// Log position up to which the log is proved durable; records above it are the tail that must be
    /// copied into a new segment before the database opens.
    pub(crate) proved: u64,
    /// Sequence number of the first operation of the last record; zero without records.
    pub(crate) last_seq: SequenceNumber,
    /// What the next segment's header says under `previous`. Never a segment whose header may not be
    /// durable, so not always the last one: those after it hold no proved byte.
    pub(crate) previous: u64,
    /// Bytes of records recognised behind the end: the cut, to be reported.
    pub(crate) dropped_bytes: u64,
    /// Segments from the oldest on that are no part of the log: cut away, or prepared and never used.
    /// To be removed once open has succeeded, and not reused.
    pub(crate) off_chain: Vec<u64>,
    /// What was found of the mark.
    pub(crate) mark: MarkFound,
}

impl RecoveredLog {
    /// True where records stand above the proved position, or something recognisable behind the end: the
    /// new segment that `tail::copy_tail` builds must be durable before the database opens.
    pub(crate) fn needs_seal(&self) -> bool {
        self.dropped_bytes > 0 || self.proved < self.end
    }

    /// The planted fault [`Fault::ReplayStaleRecord`] is on.
    pub(crate) fn believes_stale(&self) -> bool {
        self.faults.is(Fault::ReplayStaleRecord)
    }

    /// Reads one segment again and hands on its records, each with its log position.
    ///
    /// # Errors
    /// Those of `take`, the system's, and `Corruption` where the file is no longer what the plan saw.
    pub(crate) fn replay(
        &self,
        source: &dyn SegmentSource,
        segment: &TakenSegment,
        mut take: impl FnMut(u64, &super::record::Record<'_>) -> Result<()>,
    ) -> Result<()> {
        let bytes = source.bytes(segment.number)?;
        let seed = FileSeed::new(self.db, segment.number, self.faults);
        let (kind, zero) = (RecordKind::Batch, SequenceNumber::ZERO);
        let mut records = Records::new(&bytes, HEADER_LEN, seed, kind, Some(segment.end), zero);
        for record in records.by_ref() {
            take(segment.position(record.offset), &record)?;
        }
        match records.stop() {
            Stop { bad: None, .. } => Ok(()),
            Stop {
                offset,
                bad: Some(bad),
            } => {
                let what = format!("{}, in a second reading", bad.text());
                Err(Error::corruption(
                    source.path(segment.number),
                    offset as u64,
                    what,
                ))
            }
        }
    }
}

/// Plans the recovery of a log.
///
/// # Errors
/// `Corruption` where something durable is damaged or missing, `NotADatabase` for a segment of an unknown
/// format version, else the system's.
pub(crate) fn plan(source: &dyn SegmentSource, wanted: &Wanted) -> Result<RecoveredLog> {
    let headers = read_headers(source, wanted)?;
    let (chain, broken) = find_chain(source, wanted, &headers)?;
    let mut walk = Walk::new(wanted);
    walk.along(source, wanted, &chain)?;
    walk.search_rest(source, wanted, &headers)?;
    let known = walk
        .claimed
        .max(wanted.mark.good().map_or(0, |mark| mark.position));
    let believe_any_end = wanted.faults.is(Fault::CutBelowSynced);
    if walk.end < known && !believe_any_end {
        let broken = lost_marked_segment(source, wanted, &headers)?.or(broken);
        return Err(walk.damage(source, wanted, broken, known));
    }
    if let Some(mark) = wanted.mark.good().filter(|_| !believe_any_end) {
        walk.check_marked_segment(source, wanted, mark)?;
    }
    Ok(walk.finish(wanted, &headers, known))
}

/// The segment that the mark names, when its header, which was durable, is bad.
fn lost_marked_segment(
    source: &dyn SegmentSource,
    wanted: &Wanted,
    headers: &Headers,
) -> Result<Option<Broken>> {
    let Some(mark) = wanted.mark.good().filter(|m| m.segment >= wanted.oldest) else {
        return Ok(None);
    };
    let number = mark.segment;
    match headers.get(&number) {
        Some(Ok(_)) => Ok(None),
        Some(Err(bad)) => Ok(Some(Broken { number, bad: *bad })),
        None => {
            let what = format!("missing; durable up to position {}", mark.position);
            Err(Error::corruption(source.path(number), 0, what))
        }
    }
}

/// Headers of all segments that may be needed, by file number.
type Headers = BTreeMap<u64, Result<SegmentHeader, BadHeader>>;

/// Where the way down from a good header is broken.
#[derive(Clone, Copy, Debug)]
struct Broken {
    number: u64,
    bad: BadHeader,
}

fn read_headers(source: &dyn SegmentSource, wanted: &Wanted) -> Result<Headers> {
    let mut headers = Headers::new();
    for number in source
        .numbers()?
        .into_iter()
        .filter(|&number| number >= wanted.oldest)
    {
        let header = SegmentHeader::decode(&source.head(number)?, SegmentKind::Log);
        let damage = |what: String| Err(Error::corruption(source.path(number), 0, what));
        let header = match header {
            Err(bad @ BadHeader::Version(_)) => return Err(bad.error(&source.path(number))),
            Ok(header) if header.db != wanted.db => {
                return damage("segment of another database".into());
            }
            // A reused file was obsolete before, so a header of its former life is older than all
            // that is needed; any other misplaced one is a file moved by other hands.
            Ok(header) if header.number != number && header.number >= wanted.oldest => {
                return damage(format!("header of segment {}", header.number));
            }
            Ok(header) if header.number != number => Err(BadHeader::Checksum),
            header => header,
        };
        headers.insert(number, header);
    }
    Ok(headers)
}

/// The chain, oldest first (empty: no segment leads to the oldest one), and the highest break above it.
fn find_chain(
    source: &dyn SegmentSource,
    wanted: &Wanted,
    headers: &Headers,
) -> Result<(Vec<SegmentHeader>, Option<Broken>)> {
    let mut broken = None;
    for header in headers.values().rev().flatten() {
        match way_down(source, wanted, headers, *header)? {
            Ok(chain) => return Ok((chain, broken)),
            Err(at) => broken = broken.or(Some(at)),
        }
    }
    // The oldest segment's name was durable before the manifest named it.
    if !headers.contains_key(&wanted.oldest) {
        let what = "the oldest log segment needed is missing";
        return Err(Error::corruption(source.path(wanted.oldest), 0, what));
    }
    Ok((Vec::new(), broken))
}

/// The chain that ends with `head`, oldest first, or where it breaks.
fn way_down(
    source: &dyn SegmentSource,
    wanted: &Wanted,
    headers: &Headers,
    head: SegmentHeader,
) -> Result<Result<Vec<SegmentHeader>, Broken>> {
    let mut chain = vec![head];
    let mut at = head;
    while at.base != wanted.base {
        let damage = |what: String| Err(Error::corruption(source.path(at.number), 0, what));
        if at.number == wanted.oldest || at.base < wanted.base {
            return damage(format!(
                "begins at {}, the manifest's log at {}",
                at.base, wanted.base
            ));
        }
        if at.previous >= at.number || at.previous < wanted.oldest {
            return damage(format!("names segment {} as the one before", at.previous));
        }
        match headers.get(&at.previous) {
            Some(Ok(before)) if before.base <= at.base => at = *before,
            Some(Ok(before)) => {
                return damage(format!("begins at {}, before its predecessor", before.base));
            }
            Some(Err(bad)) => {
                return Ok(Err(Broken {
                    number: at.previous,
                    bad: *bad,
                }));
            }
            // Its name was durable before the first byte of its successor was written.
            None => {
                let what = format!("missing; segment {} follows it", at.number);
                return Err(Error::corruption(source.path(at.previous), 0, what));
            }
        }
        chain.push(at);
    }
    chain.reverse();
    Ok(Ok(chain))
}

/// State of the walk along the chain.
#[derive(Debug)]
struct Walk {
    taken: Vec<TakenSegment>,
    end: u64,
    last_seq: SequenceNumber,
    /// Where and why the last segment taken ended.
    stop: Option<Stop>,
    /// The segment that begins above the end of its predecessor.
    gap: bool,
    /// Highest position claimed durable by any header of a segment or record.
    claimed: u64,
    dropped_bytes: u64,
    /// A segment that follows the end and holds records under a bad header.
    headless: Option<Broken>,
}

impl Walk {
    fn new(wanted: &Wanted) -> Self {
        Self {
            taken: Vec::new(),
            end: wanted.base,
            last_seq: SequenceNumber::ZERO,
            stop: None,
            gap: false,
            claimed: 0,
            dropped_bytes: 0,
            headless: None,
        }
    }

    /// Takes the records of the chain up to the end of the log.
    fn along(
        &mut self,
        source: &dyn SegmentSource,
        wanted: &Wanted,
        chain: &[SegmentHeader],
    ) -> Result<()> {
        for (index, header) in chain.iter().enumerate() {
            let next = chain.get(index + 1);
            let limit =
                next.map(|next| (next.base - header.base).saturating_add(HEADER_LEN as u64));
            let bytes = source.bytes(header.number)?;
            let seed = FileSeed::new(wanted.db, header.number, wanted.faults);
            let kind = RecordKind::Batch;
            let mut records = Records::new(&bytes, HEADER_LEN, seed, kind, limit, self.last_seq);
            self.claimed = self.claimed.max(header.synced);
            for record in records.by_ref() {
                self.claimed = self.claimed.max(record.header.synced);
            }
            let stop = records.stop();
            self.last_seq = records.last_seq();
            let end = stop.offset as u64;
            let taken = TakenSegment {
                number: header.number,
                base: header.base,
                end,
            };
            self.end = taken.position(end);
            self.taken.push(taken);
            if stop.bad.is_some() {
                let behind = search_behind(&bytes, stop.offset, seed);
                self.claimed = self.claimed.max(behind.synced);
                self.dropped_bytes += behind.bytes;
                self.stop = Some(stop);
                self.gap = next.is_some();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Searches every segment that was not taken for claims.
    fn search_rest(
        &mut self,
        source: &dyn SegmentSource,
        wanted: &Wanted,
        headers: &Headers,
    ) -> Result<()> {
        for (&number, header) in headers {
            if self.is_taken(number) {
                continue;
            }
            let bytes = source.bytes(number)?;
            let seed = FileSeed::new(wanted.db, number, wanted.faults);
            let found = search_behind(&bytes, HEADER_LEN, seed);
            self.claimed = self.claimed.max(found.synced);
            // Lower ones were cut away by an earlier recovery, which has reported them.
            let follows = self.taken.last().is_none_or(|last| number > last.number);
            if follows {
                self.dropped_bytes += found.bytes;
            }
            match *header {
                Ok(header) => self.claimed = self.claimed.max(header.synced),
                Err(bad) if follows && found.records > 0 => {
                    self.headless = self.headless.or(Some(Broken { number, bad }));
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn is_taken(&self, number: u64) -> bool {
        self.taken.iter().any(|taken| taken.number == number)
    }

    /// The log ends below a position known durable: names the most likely damaged place.
    fn damage(
        &self,
        source: &dyn SegmentSource,
        wanted: &Wanted,
        broken: Option<Broken>,
        known: u64,
    ) -> Error {
        let known = format!(
            "log is durable up to position {known}, readable up to {}",
            self.end
        );
        let bad_record = |stop: Stop, number| {
            let why = stop.bad.map_or("log ends", Bad::text);
            Error::corruption(
                source.path(number),
                stop.offset as u64,
                format!("{why}; {known}"),
            )
        };
        match (self.stop, self.taken.last(), broken.or(self.headless)) {
            (Some(stop), Some(last), None) => bad_record(stop, last.number),
            (Some(stop), Some(last), Some(_)) if self.gap => bad_record(stop, last.number),
            (_, _, Some(Broken { number, bad })) => {
                Error::corruption(source.path(number), 0, format!("{}; {known}", bad.text()))
            }
            _ => Error::corruption(
                source.path(wanted.oldest),
                0,
                format!("oldest segment has no good header; {known}"),
            ),
        }
    }

    /// A segment that the mark names was synced with its header, so it is in the chain, unless a later
    /// recovery's segment begins where it did.
    fn check_marked_segment(
        &self,
        source: &dyn SegmentSource,
        wanted: &Wanted,
        mark: &Mark,
    ) -> Result<()> {
        let replaced =
            |taken: &TakenSegment| taken.number > mark.segment && taken.base <= mark.position;
        if mark.segment < wanted.oldest
            || mark.position <= wanted.base
            || self.is_taken(mark.segment)
            || self.taken.iter().any(replaced)
        {
            return Ok(());
        }
        let what = format!("segment was durable up to position {}", mark.position);
        Err(Error::corruption(source.path(mark.segment), 0, what))
    }

    fn finish(self, wanted: &Wanted, headers: &Headers, known: u64) -> RecoveredLog {
        let mark = wanted.mark.good();
        // After a failed sync, pages may look written that are not: only what was acknowledged counts.
        let proved = match mark {
            Some(mark) if mark.sync_failed => mark.position,
            _ => known,
        };
        let proved = proved.clamp(wanted.base, self.end);
        // The next segment may only lean on a header that is durable: that of a segment with proved bytes.
        // Before any, nothing is needed of a predecessor.
        let previous = self
            .taken
            .iter()
            .rfind(|taken| taken.base < proved)
            .map_or(wanted.oldest, |taken| taken.number);
        let off_chain = headers
            .keys()
            .copied()
            .filter(|&number| !self.is_taken(number))
            .collect();
        RecoveredLog {
            db: wanted.db,
            faults: wanted.faults,
            end: self.end,
            proved,
            last_seq: self.last_seq,
            previous,
            dropped_bytes: self.dropped_bytes,
            off_chain,
            mark: wanted.mark,
            segments: self.taken,
        }
    }
}
