//! Merge operators: how operands become a value, whoever asks for it (docs/adr/0013).
//!
//! [`MergeOperator`] is the caller's code: it may fail and it may panic, and both end here as an error that names the key.
//! [`Merger`] is what a family knows of its operator: always the name, and the code once `open_cf` gave it. [`Chain`] holds
//! the operands of one key while its base is looked for.
//!
//! Not here: where operands are found (`merge/read.rs`, `iter::user`, `compaction::fold`).

use std::{
    any::Any,
    fmt,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    key::MAX_VALUE_LEN,
};

mod operators;
mod read;

pub use operators::{AppendWithDelimiter, ByteOrderOf, U64Add};

/// Longest name of a merge operator in bytes.
pub const MAX_MERGE_OPERATOR_NAME_LEN: usize = 255;

/// What a merge operator answers where it cannot merge; readers find it in [`Error::Merge`].
pub type MergeResult<T = ()> = std::result::Result<T, String>;

/// Makes a value of a key out of an older one and the operands of [`WriteBatch::merge`](crate::WriteBatch::merge).
///
/// It must be a function: the same bytes give the same result at each call, at any time and in any process, and merging
/// operands first and then the value must give what merging them one by one gives. It is called by readers, iterators,
/// flushes and compactions, on any thread. A failure or a panic is the reader's error; nothing is lost by it.
pub trait MergeOperator: Send + Sync {
    /// Its name, 1 to [`MAX_MERGE_OPERATOR_NAME_LEN`] bytes. It is stored with the family, which is then opened with an
    /// operator of this name only: change it whenever the meaning of operands changes.
    fn name(&self) -> &str;

    /// Puts into `result`, which comes empty, what `key` is after `operands` (the oldest first, at least one), where
    /// it was `existing` before; `None`: it was absent.
    ///
    /// # Errors
    ///
    /// Why they cannot be merged.
    fn full_merge(
        &self,
        key: &[u8],
        existing: Option<&[u8]>,
        operands: &[&[u8]],
        result: &mut Vec<u8>,
    ) -> MergeResult;

    /// Puts into `result`, which comes empty, one operand that stands for `older` and then `newer`, and answers true;
    /// or answers false where there is none. It saves space and reads; nothing depends on it.
    ///
    /// # Errors
    ///
    /// As false, and it is counted as a failure.
    fn partial_merge(
        &self,
        key: &[u8],
        older: &[u8],
        newer: &[u8],
        result: &mut Vec<u8>,
    ) -> MergeResult<bool> {
        let _ = (key, older, newer, result);
        Ok(false)
    }
}

/// The merge operator of a family's options: its name, and the operator where it was given.
#[derive(Clone)]
pub struct MergeSetting {
    name: Arc<str>,
    operator: Option<Arc<dyn MergeOperator>>,
}

impl MergeSetting {
    /// This operator.
    #[must_use]
    pub fn new(operator: Arc<dyn MergeOperator>) -> Self {
        Self {
            name: operator.name().into(),
            operator: Some(operator),
        }
    }

    /// Name of the operator.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// True where the operator itself is there, and not its name alone.
    #[must_use]
    pub fn is_given(&self) -> bool {
        self.operator.is_some()
    }

    /// As it comes back from a manifest.
    pub(crate) fn stored(&self) -> Self {
        Self::named(&self.name)
    }

    /// The name alone.
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            operator: None,
        }
    }
}

impl PartialEq for MergeSetting {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.operator, &other.operator) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same && self.name == other.name
    }
}

impl Eq for MergeSetting {}

impl fmt::Debug for MergeSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.is_given() { "" } else { ", not given" };
        write!(f, "MergeSetting({:?}{state})", self.name)
    }
}

/// The operator of one family, as those who merge see it.
#[derive(Clone, Debug)]
pub(crate) struct Merger {
    family: String,
    setting: MergeSetting,
}

impl Merger {
    pub(crate) fn new(family: &str, setting: &MergeSetting) -> Self {
        Self {
            family: family.to_owned(),
            setting: setting.clone(),
        }
    }

    /// That the operator was given.
    ///
    /// # Errors
    ///
    /// What to do, where it was not.
    pub(crate) fn check_given(&self) -> std::result::Result<(), String> {
        if self.setting.is_given() {
            return Ok(());
        }
        Err(format!(
            "column family {:?} has the merge operator {:?}, which was not given since the database was opened: see `Db::open_cf`",
            self.family, self.setting.name
        ))
    }

    /// True where the operator is there.
    pub(crate) fn is_given(&self) -> bool {
        self.setting.is_given()
    }

    /// The value of `key` after the operands of `chain` over `base`, in `result`.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the operator was not given; `Merge` with the key where it fails.
    pub(crate) fn full(
        &self,
        key: &[u8],
        base: Option<&[u8]>,
        chain: &Chain,
        result: &mut Vec<u8>,
    ) -> Result<()> {
        let Some(operator) = &self.setting.operator else {
            let what = self.check_given().expect_err("it was not given");
            return Err(Error::invalid(what));
        };
        let operands: Vec<&[u8]> = chain.oldest_first().collect();
        result.clear();
        contained(|| operator.full_merge(key, base, &operands, result))
            .and_then(|()| check_len(result))
            .map_err(|what| self.failure(key, &what))
    }

    /// One operand for `older` and then `newer`, in `result`; false where there is none.
    pub(crate) fn partial(
        &self,
        key: &[u8],
        older: &[u8],
        newer: &[u8],
        result: &mut Vec<u8>,
    ) -> Result<bool> {
        let Some(operator) = &self.setting.operator else {
            return Ok(false);
        };
        result.clear();
        contained(|| operator.partial_merge(key, older, newer, result))
            .and_then(|merged| check_len(result).map(|()| merged))
            .map_err(|what| self.failure(key, &what))
    }

    fn failure(&self, key: &[u8], what: &str) -> Error {
        Error::Merge {
            key: key.to_vec(),
            what: format!(
                "merge operator {:?} of column family {:?}: {what}",
                self.setting.name, self.family
            ),
        }
    }
}

/// Calls the caller's code; a panic is a failure.
pub(crate) fn contained<T>(call: impl FnOnce() -> MergeResult<T>) -> MergeResult<T> {
    // What the call could leave half done is a buffer that is not used then.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panic_text(&*panic)))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a text"))
}

fn check_len(result: &[u8]) -> MergeResult {
    if result.len() > MAX_VALUE_LEN {
        return Err(format!(
            "a result of {} bytes, limit {MAX_VALUE_LEN}",
            result.len()
        ));
    }
    Ok(())
}

/// Operands of one key, the newest first, with their trailers.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    bytes: Vec<u8>,
    operands: Vec<(u64, Range<usize>)>,
}

impl Chain {
    /// Adds the next older operand.
    pub(crate) fn push(&mut self, trailer: u64, operand: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(operand);
        self.operands.push((trailer, start..self.bytes.len()));
    }

    /// Takes all out, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.operands.clear();
    }

    /// Number of operands.
    pub(crate) fn len(&self) -> usize {
        self.operands.len()
    }

    /// Bytes of all operands.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Trailer and bytes, the newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let operands = self.operands.iter();
        operands.map(|(trailer, range)| (*trailer, &self.bytes[range.clone()]))
    }

    /// The operands, the oldest first.
    pub(crate) fn oldest_first(&self) -> impl Iterator<Item = &[u8]> {
        let operands = self.operands.iter().rev();
        operands.map(|(_, range)| &self.bytes[range.clone()])
    }
}

#[cfg(test)]
#[path = "merge/tests.rs"]
mod tests;
