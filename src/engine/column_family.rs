//! `ColumnFamily`: the handle of a named key space, with its options and what readers need to read it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{batch::FamilyId, options::CfOptions};

/// A handle of a column family. Cheap to clone, without a lifetime; a handle of a dropped family
/// answers every call with `NoSuchColumnFamily`.
#[derive(Clone)]
pub struct ColumnFamily {
    pub(crate) inner: Arc<Family>,
}

pub(crate) struct Family {
    pub(crate) id: FamilyId,
    pub(crate) name: String,
    pub(crate) options: CfOptions,
    pub(crate) dropped: AtomicBool,
}

impl ColumnFamily {
    /// Number of the family within its database; never reused.
    #[must_use]
    pub fn id(&self) -> FamilyId {
        self.inner.id
    }

    /// Name of the family.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Its options.
    #[must_use]
    pub fn options(&self) -> &CfOptions {
        &self.inner.options
    }

    /// True once the family was dropped.
    #[must_use]
    pub fn is_dropped(&self) -> bool {
        self.inner.dropped.load(Ordering::Acquire)
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl fmt::Debug for ColumnFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ColumnFamily({} {:?})", self.inner.id, self.inner.name)
    }
}
