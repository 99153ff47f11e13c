//! Compaction filters: the caller's code that looks at rows while they are rewritten anyway (docs/adr/0013).

use std::{fmt, sync::Arc};

/// A row that a compaction writes.
#[derive(Clone, Copy, Debug)]
pub struct FilterRow<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// The level that it is written to, 1 to 6.
    pub level: usize,
}

/// What becomes of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterDecision {
    /// It stays.
    Keep,
    /// It goes, as if it had been deleted when it was written: nothing older comes back.
    Remove,
    /// Its value becomes what was put into `changed`.
    Change,
}

/// Looks at rows as compactions come across them.
///
/// It is asked for the newest version of a key, where that is a value and no snapshot sees it, in compactions (not in flushes, nor where
/// a table only moves). When that comes to pass is not promised: a row may be read for long before it is filtered, and be
/// asked for again. It is called on background threads, several at a time; a panic keeps the row.
pub trait CompactionFilter: Send + Sync {
    /// Decides about `row`; `changed` comes empty.
    fn filter(&self, row: &FilterRow<'_>, changed: &mut Vec<u8>) -> FilterDecision;
}

/// The compaction filter of a family's options.
#[derive(Clone)]
pub struct FilterSetting(Arc<dyn CompactionFilter>);

impl FilterSetting {
    /// This filter.
    #[must_use]
    pub fn new(filter: Arc<dyn CompactionFilter>) -> Self {
        Self(filter)
    }

    pub(crate) fn get(&self) -> &dyn CompactionFilter {
        &*self.0
    }
}

impl PartialEq for FilterSetting {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for FilterSetting {}

impl fmt::Debug for FilterSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilterSetting")
    }
}
