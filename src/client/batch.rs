//! [`Batch`]: changes that are done together or not at all.

use basalt_proto::basaltpb::{Change, change::Kind};
use bytes::Bytes;

use crate::KeyRange;

/// Changes of any families, done in their order, whole or not at all.
///
/// A server takes at most 8.5 MiB of keys and values in one, with 32 bytes for each change.
///
/// ```
/// use basalt_client::{Batch, KeyRange};
///
/// let batch = Batch::new()
///     .delete_range(KeyRange::prefix("cart/7/"))
///     .put("order/7", "3 apples")
///     .family("write")
///     .put("order/7", "in another family");
/// assert_eq!(batch.len(), 3);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    pub(crate) changes: Vec<Change>,
    cf: String,
    bytes: usize,
}

impl Batch {
    /// Bytes of the changes of a batch that a server takes.
    pub const MAX_BYTES: usize = (8 << 20) + (512 << 10);
    /// Bytes that a change counts for beside its keys and its value.
    pub const CHANGE_BYTES: usize = 32;

    /// No changes, of the family `default`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is added from here on is of this family.
    #[must_use]
    pub fn family(mut self, name: &str) -> Self {
        self.set_family(name);
        self
    }

    /// `key` becomes `value`.
    #[must_use]
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.add_put(key, value);
        self
    }

    /// `key` goes; one that is absent is fine.
    #[must_use]
    pub fn delete(mut self, key: impl Into<Bytes>) -> Self {
        self.add_delete(key);
        self
    }

    /// Every key of a range goes.
    #[must_use]
    pub fn delete_range(mut self, range: KeyRange) -> Self {
        self.add_delete_range(range);
        self
    }

    /// [`Batch::family`] of a batch that stays where it is.
    pub fn set_family(&mut self, name: &str) {
        name.clone_into(&mut self.cf);
    }

    /// [`Batch::put`] into a batch that stays where it is.
    pub fn add_put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.add(Kind::Put, key.into(), value.into(), Bytes::new());
    }

    /// [`Batch::delete`] into a batch that stays where it is.
    pub fn add_delete(&mut self, key: impl Into<Bytes>) {
        self.add(Kind::Delete, key.into(), Bytes::new(), Bytes::new());
    }

    /// [`Batch::delete_range`] into a batch that stays where it is. A range that can have no key adds nothing.
    pub fn add_delete_range(&mut self, range: KeyRange) {
        if !range.is_empty() {
            self.add(Kind::DeleteRange, range.start, Bytes::new(), range.end);
        }
    }

    fn add(&mut self, kind: Kind, key: Bytes, value: Bytes, end_key: Bytes) {
        self.bytes += key.len() + value.len() + end_key.len() + Self::CHANGE_BYTES;
        self.changes.push(Change {
            kind: kind.into(),
            cf: self.cf.clone(),
            key,
            value,
            end_key,
        });
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// What counts against [`Batch::MAX_BYTES`].
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
