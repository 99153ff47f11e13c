//! The way of a get whose newest entry is an operand: it collects operands down to their base.
//!
//! Apart from `read.rs` and cold, so that families without operands pay nothing. A place is asked again for each older
//! version in it, so that a get that may not wait can be answered too.

use crate::{
    batch::WriteBatch,
    column_family::{ColumnFamily, ReadState},
    db::{Db, DbInner},
    error::{Error, Result},
    key::{InternalKey, SequenceNumber, ValueKind, trailer_kind, trailer_seq},
    merge::Chain,
    options::{LEVELS, WriteOptions},
    read::Take,
    slice::PinnedSlice,
    table::key_hash,
    version::TableOpener,
};

/// What is known of a key on the way down.
struct Search {
    chain: Chain,
    /// The newest range delete over the key so far.
    covered: SequenceNumber,
    base: Base,
}

enum Base {
    /// Look deeper.
    Unknown,
    None,
    Value(PinnedSlice),
    /// What points to it.
    Pointer(PinnedSlice),
}

impl Search {
    /// Takes the versions of a place, the newest first, until the base is known. `get` answers the newest version at or
    /// below a number.
    fn place(
        &mut self,
        at: SequenceNumber,
        mut get: impl FnMut(SequenceNumber) -> Result<Option<(u64, PinnedSlice)>>,
    ) -> Result<()> {
        let mut from = at;
        while let Some((trailer, value)) = get(from)? {
            let seq = trailer_seq(trailer);
            if seq < self.covered {
                break;
            }
            match trailer_kind(trailer) {
                Some(ValueKind::Merge) => self.chain.push(trailer, &value),
                Some(ValueKind::Pointer) => {
                    self.base = Base::Pointer(value);
                    return Ok(());
                }
                Some(ValueKind::Put) => {
                    self.base = Base::Value(value);
                    return Ok(());
                }
                Some(ValueKind::Delete) => {
                    self.base = Base::None;
                    return Ok(());
                }
                None => {
                    return Err(Error::invalid(
                        "an entry of a kind this version does not know",
                    ));
                }
            }
            let Some(older) = seq.0.checked_sub(1) else {
                break;
            };
            from = SequenceNumber(older);
        }
        // Deeper places are older than the range delete too.
        if self.covered > SequenceNumber::ZERO {
            self.base = Base::None;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        !matches!(self.base, Base::Unknown)
    }
}

impl Db {
    /// Changes the value of `key` by `operand`, as the family's merge operator says, without reading it.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` where the family has no merge operator, or has not been given it since the database was opened
    /// ([`Db::open_cf`]); else as for [`Db::write`].
    pub fn merge(
        &self,
        cf: &ColumnFamily,
        key: &[u8],
        operand: &[u8],
        options: WriteOptions,
    ) -> Result<()> {
        let mut batch = WriteBatch::with_room(key.len() + operand.len());
        batch.merge(cf, key, operand);
        self.write(batch, options).map(|_| ())
    }
}

impl DbInner {
    /// The value of `key`, whose newest entry in `state` at `seq` is an operand.
    #[cold]
    pub(crate) fn get_merged<T: Take>(
        &self,
        cf: &ColumnFamily,
        state: &ReadState,
        key: &[u8],
        seq: SequenceNumber,
        take: &mut T,
    ) -> Result<T::Output> {
        let merger = cf.inner.merger();
        let merger = merger.ok_or_else(|| {
            let what = format!(
                "an operand in column family {:?}, which has no merge operator",
                cf.name()
            );
            Error::corruption(&self.dir, 0, what)
        })?;
        merger.check_given().map_err(Error::invalid)?;
        let search = self.search(state, key, seq, T::WAITS)?;
        let base = match search.base {
            Base::Value(value) => Some(value),
            Base::Pointer(pointer) if T::WAITS => Some(self.tables.value(&pointer)?),
            Base::Pointer(_) => {
                return Err(Error::Busy("a value file may have to be read".to_owned()));
            }
            Base::None | Base::Unknown => None,
        };
        let mut result = Vec::new();
        merger.full(key, base.as_deref(), &search.chain, &mut result)?;
        Ok(take.bytes(&result))
    }

    fn search(
        &self,
        state: &ReadState,
        key: &[u8],
        seq: SequenceNumber,
        waits: bool,
    ) -> Result<Search> {
        let mut search = Search {
            chain: Chain::default(),
            covered: SequenceNumber::ZERO,
            base: Base::Unknown,
        };
        for slot in state.memtables() {
            let memtable = &slot.memtable;
            search.covered = search.covered.max(memtable.covering_seq(key, seq));
            search.place(seq, |at| {
                let found = memtable.get(InternalKey::seek_to(key, at));
                Ok(found.map(|(trailer, value)| (trailer, PinnedSlice::copied(value))))
            })?;
            if search.is_done() {
                return Ok(search);
            }
        }
        let hash = key_hash(key);
        let version = &state.version;
        let deeper = (1..LEVELS).filter_map(|level| version.find(level, key));
        for meta in version.newest_with(key).chain(deeper) {
            let table = match meta.open_table() {
                Some(table) => table,
                None if waits => meta.table(&*self.tables)?,
                None => return Err(Error::Busy("a table is not open yet".to_owned())),
            };
            search.covered = search
                .covered
                .max(table.tombstones().covering_seq(key, seq));
            search.place(seq, |at| {
                let seek = InternalKey::seek_to(key, at);
                if waits {
                    table.get(seek, hash)
                } else {
                    table.try_get(seek, hash)
                }
            })?;
            if search.is_done() {
                break;
            }
        }
        Ok(search)
    }
}
