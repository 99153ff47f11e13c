//! What can be read of a damaged value file: each value whose record checks, whatever is wrong around it.

use super::{ValuePointer, file::record_crc};
use crate::{
    fs::ReadableFile,
    table::{RAW, check_block, decompress},
    wal::reader::{MAX_MENDED, flip_one},
};

/// Bytes of a record behind the value: the codec and the checksum.
const TRAILER_LEN: usize = 5;

/// The value that `pointer` stands for, in a `file` with the random number `id`; `None` where it cannot be read.
///
/// One flipped bit of a small record is put right, where `mends` says that this may be tried once more.
pub(crate) fn salvage_value(
    file: &dyn ReadableFile,
    id: u64,
    pointer: ValuePointer,
    mends: &mut u32,
) -> Option<Vec<u8>> {
    let end = pointer.offset.checked_add(u64::from(pointer.stored))?;
    let stored = usize::try_from(pointer.stored).ok()?;
    if end > file.len() || stored < TRAILER_LEN {
        return None;
    }
    let mut record = vec![0; stored];
    file.read_at(pointer.offset, &mut record).ok()?;
    let is_right = |bytes: &[u8]| {
        record_crc(bytes) == pointer.crc && check_block(id, pointer.offset, bytes).is_ok()
    };
    if !is_right(&record) {
        if stored > MAX_MENDED || *mends == 0 {
            return None;
        }
        *mends -= 1;
        if !flip_one(&mut record, 0..stored, is_right) {
            return None;
        }
    }
    let codec = check_block(id, pointer.offset, &record).ok()?;
    record.truncate(stored - TRAILER_LEN);
    let value = if codec == RAW {
        record
    } else {
        decompress(codec, &record).ok()?.slice.to_vec()
    };
    (value.len() as u64 == u64::from(pointer.len)).then_some(value)
}
