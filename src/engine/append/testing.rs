//! Seams for the tests of the format: the bytes of a batch with what only the engine itself writes.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them.

use crate::{ColumnFamily, SequenceNumber, WriteBatch};

use super::AppendKind;

/// Puts a rewrite of entries into a batch, each with the sequence number it keeps.
pub fn rewrite(
    batch: &mut WriteBatch,
    cf: &ColumnFamily,
    prefix: &[u8],
    first: u64,
    values: &[(u64, &[u8])],
) {
    let values = values
        .iter()
        .map(|&(seq, value)| (SequenceNumber(seq), value));
    batch.put_values(AppendKind::Rewrite, cf, prefix, first, values);
}

/// Puts an append of values into a batch as one block, however small it is; they must get smaller.
///
/// # Panics
/// Where they do not.
pub fn packed(
    batch: &mut WriteBatch,
    cf: &ColumnFamily,
    prefix: &[u8],
    first: u64,
    values: &[Vec<u8>],
) {
    let is_packed = batch.append_packed(cf, prefix, first, values);
    assert!(is_packed, "values that do not get smaller");
}

/// The bytes of a batch.
#[must_use]
pub fn encoded(mut batch: WriteBatch) -> Vec<u8> {
    batch.finish();
    batch.encoded().to_vec()
}
