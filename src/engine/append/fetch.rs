//! Reading entries: from the tail where they are there, else from their segments, each verified.
//!
//! A reader remembers where the last entry was: the batch of the tail, the block that was decompressed, and what was
//! read ahead. All that it reads was written before it was made, so bytes that are read ahead of an entry are those of
//! the entries behind it.

use std::{ops::Range, sync::Arc};

use byteorder::{ByteOrder, LittleEndian};

use crate::{error::Result, log_files::LogFiles};

use super::{
    Entry, Form, Kept, LogBytes, LogSegment, Segments, ValueCrc,
    pack::{BODY_MAX, Block, HEAD_LEN},
    tail::TailPlace,
};

/// Bytes of a value's checksum.
const CRC_LEN: usize = 4;

/// Bytes that a second read in a row brings with it, and most bytes that a later one does.
const AHEAD_FROM: usize = 4 << 10;
const AHEAD_MAX: usize = 128 << 10;

/// What it takes to read entries: the segments, how far the log is durable, and where the last entry was.
#[derive(Debug)]
pub(crate) struct LogReader {
    segments: Arc<Segments>,
    logs: Arc<LogFiles>,
    /// Whether the tail may answer.
    uses_tail: bool,
    near: TailPlace,
    kept: Option<Arc<Kept>>,
    /// The last block decompressed, and its log position: the next entry is mostly in it too.
    block: Option<(u64, Block)>,
    window: Window,
}

/// Bytes of the log from a position on, read by a call.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
    /// Bytes that the last read was to bring with it.
    ahead: usize,
}

/// Where the value of the last entry is.
#[derive(Debug, Default)]
pub(crate) enum Place {
    #[default]
    Nowhere,
    /// In the batch of the tail that the reader was at.
    Kept(Range<usize>),
    /// In the block that it was at.
    Block(Range<usize>),
    /// In what it read ahead.
    Window(Range<usize>),
    /// In place, in a map.
    Bytes(LogBytes),
}

impl LogReader {
    pub(crate) fn new(segments: Arc<Segments>, logs: Arc<LogFiles>) -> Self {
        Self {
            segments,
            logs,
            uses_tail: true,
            near: TailPlace::default(),
            kept: None,
            block: None,
            window: Window::default(),
        }
    }

    /// One that reads what is in the files.
    pub(crate) fn without_tail(mut self) -> Self {
        self.uses_tail = false;
        self
    }

    /// The value of an entry, verified; `None` where neither tail nor segments hold it.
    pub(crate) fn value(
        &mut self,
        crc: &ValueCrc,
        index: u64,
        entry: Entry,
    ) -> Result<Option<LogBytes>> {
        let place = self.locate(crc, index, entry)?;
        Ok(place.map(|place| self.bytes(place)))
    }

    /// The value at a place that [`LogReader::locate`] has just given.
    pub(crate) fn at<'a>(&'a self, place: &'a Place) -> &'a [u8] {
        match place {
            Place::Nowhere => &[],
            Place::Kept(range) => {
                let kept = self.kept.as_ref().expect("it was there");
                &kept.bytes()[range.clone()]
            }
            Place::Block(range) => {
                let (_, block) = self.block.as_ref().expect("it was there");
                &block.bytes().slice[range.clone()]
            }
            Place::Window(range) => &self.window.bytes[range.clone()],
            Place::Bytes(bytes) => bytes,
        }
    }

    /// The same, of its own.
    fn bytes(&self, place: Place) -> LogBytes {
        match place {
            Place::Kept(range) => {
                LogBytes::Kept(Arc::clone(self.kept.as_ref().expect("it was there")), range)
            }
            Place::Block(range) => {
                let (_, block) = self.block.as_ref().expect("it was there");
                LogBytes::Block(block.bytes().clone(), range)
            }
            Place::Bytes(bytes) => bytes,
            Place::Nowhere | Place::Window(_) => LogBytes::Owned(self.at(&place).to_vec()),
        }
    }

    /// Finds the value of an entry, and verifies what comes from a file; `None` where neither tail nor segments
    /// hold it.
    #[inline]
    pub(crate) fn locate(
        &mut self,
        crc: &ValueCrc,
        index: u64,
        entry: Entry,
    ) -> Result<Option<Place>> {
        if self.uses_tail
            && let Some(place) = self.in_tail(entry)
        {
            return Ok(Some(place));
        }
        self.in_segment(crc, index, entry)
    }

    #[inline]
    fn in_tail(&mut self, entry: Entry) -> Option<Place> {
        let (pos, form) = (entry.pos(), entry.tag().form());
        if let Form::Packed { at, .. } = form
            && let Some((last, block)) = &self.block
            && *last == pos
        {
            return block.value(at).map(Place::Block);
        }
        let is_there = |kept: &Arc<Kept>| kept.holds(pos);
        if !self.kept.as_ref().is_some_and(is_there) {
            self.kept = self.logs.tail.find(pos, &mut self.near);
        }
        let kept = self.kept.as_ref()?;
        match form {
            Form::Plain { len } => kept.value(pos, len).map(Place::Kept),
            Form::Packed { at, .. } => {
                let block = kept.block(pos)?;
                let range = block.value(at)?;
                self.block = Some((pos, block.clone()));
                Some(Place::Block(range))
            }
        }
    }

    fn in_segment(&mut self, crc: &ValueCrc, index: u64, entry: Entry) -> Result<Option<Place>> {
        let segments = Arc::clone(&self.segments);
        let Some((at, segment)) = segments.find(entry.pos()) else {
            return Ok(None);
        };
        // The next segment begins where this one ends: with everything before that durable, it stays as it is.
        let next = segments.0.get(at + 1).map(|next| next.base);
        let is_durable = next.is_some_and(|next| next <= self.logs.synced());
        let from = From {
            segment,
            next,
            is_durable,
        };
        let pos = entry.pos();
        let len = match entry.tag().form() {
            Form::Plain { len } => len,
            Form::Packed { at, .. } => {
                let damage = || segment.damage(pos, "a block of values is not as it was written");
                let first = index.checked_sub(at as u64).ok_or_else(damage)?;
                self.load_block(from, pos, |body| crc.of(first, body))?;
                let block = self.block.as_ref().map(|(_, block)| block);
                let range = block.and_then(|block| block.value(at));
                return Ok(Some(Place::Block(range.ok_or_else(damage)?)));
            }
        };
        let before = before_value(len);
        let place = self.read(from, pos, before + len)?;
        let bytes = self.at(&place);
        let stored = LittleEndian::read_u32(&bytes[..CRC_LEN]);
        if crc.of(index, &bytes[before..]) != stored {
            let what = format!("the value at index {index} fails its checksum");
            return Err(segment.damage(pos, &what));
        }
        Ok(Some(match place {
            Place::Window(range) => Place::Window(range.start + before..range.end),
            Place::Bytes(bytes) => Place::Bytes(bytes.behind(before)),
            other => other,
        }))
    }

    /// Makes the block at a log position the last one; there is none afterwards where that is damaged.
    fn load_block(
        &mut self,
        from: From<'_>,
        pos: u64,
        crc: impl FnOnce(&[u8]) -> u32,
    ) -> Result<()> {
        if self.block.as_ref().is_some_and(|(at, _)| *at == pos) {
            return Ok(());
        }
        self.block = None;
        let head = self.read(from, pos, HEAD_LEN)?;
        let head = self.at(&head);
        let stored = LittleEndian::read_u32(&head[..CRC_LEN]);
        let size = usize::try_from(LittleEndian::read_u32(&head[CRC_LEN..])).unwrap_or(usize::MAX);
        if size > BODY_MAX {
            return Ok(());
        }
        let body = self.read(from, pos + HEAD_LEN as u64, size)?;
        let body = self.at(&body);
        if crc(body) == stored {
            self.block = Block::unpack(body).map(|block| (pos, block));
        }
        Ok(())
    }

    /// `len` bytes from a log position on: in place, or with more behind them (before them, for who goes backward) in
    /// the window.
    fn read(&mut self, from: From<'_>, pos: u64, len: usize) -> Result<Place> {
        let From {
            segment,
            next,
            is_durable,
        } = from;
        if !segment.is_called(is_durable) {
            return Ok(Place::Bytes(segment.read(pos, len, is_durable)?));
        }
        let window = &mut self.window;
        let end = pos + len as u64;
        let held = window.start..window.start + window.bytes.len() as u64;
        if pos < held.start || end > held.end {
            // Only who walks wants what is beside.
            let is_near = pos < held.end.saturating_add(AHEAD_MAX as u64)
                && held.start < end.saturating_add(AHEAD_MAX as u64);
            let ahead = if is_near && !held.is_empty() {
                (window.ahead * 2).clamp(AHEAD_FROM, AHEAD_MAX)
            } else {
                0
            };
            window.ahead = ahead;
            let ahead = ahead as u64;
            let is_backward = pos < held.start;
            let limit = next.map_or_else(|| segment.room_end(), Ok)?;
            let (start, stop) = if is_backward {
                (end.saturating_sub(ahead).clamp(segment.base, pos), end)
            } else {
                (pos, pos.saturating_add(ahead).min(limit).max(end))
            };
            let bytes = usize::try_from(stop - start).unwrap_or(usize::MAX);
            let read = segment.read(start, bytes, false)?;
            window.bytes = match read {
                LogBytes::Owned(bytes) => bytes,
                other => other.to_vec(),
            };
            window.start = start;
        }
        let at = usize::try_from(pos - window.start).expect("within the window");
        Ok(Place::Window(at..at + len))
    }
}

/// A segment to read from.
#[derive(Clone, Copy)]
struct From<'a> {
    segment: &'a LogSegment,
    /// Where the next one begins.
    next: Option<u64>,
    is_durable: bool,
}

/// Bytes of the checksum and the length before a value of `len` bytes.
#[inline]
pub(super) fn before_value(len: usize) -> usize {
    CRC_LEN + len_of_len(len)
}

/// Bytes of a length as it stands before a slice.
fn len_of_len(len: usize) -> usize {
    let bits = usize::BITS - (len | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coding::put_varint;

    #[test]
    fn a_length_takes_as_many_bytes_as_it_is_written_with() {
        for len in [
            0,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            512 << 20,
        ] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, len as u64);
            assert_eq!(len_of_len(len), bytes.len(), "{len}");
        }
    }
}
