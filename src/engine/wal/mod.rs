//! The write-ahead log on disk: segments of checksummed records, the plan by which an open reads them
//! back, the mark of what was acknowledged, and the manifest, which is a file of the same records.
//!
//! Promises: what the evidence on disk proves durable is read back whole or is `Corruption`; what it
//! does not prove is read back as a prefix. Nothing here decides when to write or to sync the log
//! (`commit`), what a batch or an edit means (`batch`, `version`), or which files are removed
//! (`recovery`). FORMAT.md, sections 2, 3, 5 and 6, has every byte.

pub(crate) mod chain;
pub(crate) mod current;
pub(crate) mod manifest_file;
pub(crate) mod mark;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod tail;
pub mod testing;

#[cfg(test)]
mod chain_tests;
#[cfg(test)]
mod manifest_tests;
#[cfg(test)]
mod tail_tests;
#[cfg(test)]
mod test_log;
