//! Copying the tail: the records above the proved position, rewritten into a segment of their own.
//!
//! That segment is the seal of the cut. Its caller writes it under a temporary name, syncs it, renames it
//! and syncs the directory; so whoever finds it under its name finds it whole and durable, and it says
//! so: its header and records claim everything up to the tail's end.

use super::{
    chain::{RecoveredLog, SegmentSource, TakenSegment},
    record::{FileSeed, RecordKind, encode_header},
    segment::{HEADER_LEN, SegmentHeader, SegmentKind},
};
use crate::error::Result;

/// Hands the bytes of segment `number`, in order, to `sink`: header, then every record above the proved
/// position at its old log position. Without such records it is the header alone.
///
/// # Errors
/// Those of `sink`, the system's, and `Corruption` where a file is no longer what the plan saw.
pub(crate) fn copy_tail(
    log: &RecoveredLog,
    source: &dyn SegmentSource,
    number: u64,
    mut sink: impl FnMut(&[u8]) -> Result<()>,
) -> Result<TakenSegment> {
    let file = FileSeed::new(log.db, number, log.faults);
    let mut header = SegmentHeader {
        db: log.db,
        number,
        base: log.end,
        previous: log.previous,
        synced: log.end,
    };
    let mut offset = HEADER_LEN as u64;
    let mut begun = false;
    for segment in log
        .segments
        .iter()
        .filter(|s| s.position(s.end) > log.proved)
    {
        log.replay(source, segment, |position, record| {
            let old = record.header;
            if position + old.record_len() <= log.proved {
                return Ok(());
            }
            if !begun {
                header.base = position;
                sink(&header.encode(SegmentKind::Log))?;
                begun = true;
            }
            let (len, crc, kind) = (old.len, old.payload_crc, RecordKind::Batch);
            sink(&encode_header(
                file, offset, len, crc, kind, old.sync, log.end, old.seq,
            ))?;
            sink(record.payload)?;
            offset += old.record_len();
            Ok(())
        })?;
    }
    if !begun {
        sink(&header.encode(SegmentKind::Log))?;
    }
    Ok(TakenSegment {
        number,
        base: header.base,
        end: offset,
    })
}
