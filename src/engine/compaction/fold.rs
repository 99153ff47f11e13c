//! Which versions of a key are kept, and what operands become, entry by entry in the order of internal keys.
//!
//! Of all that a stripe says of a key only the newest can be seen. Where that is an operand, what it stands on
//! can be seen too, down to a base: the chain is held back until the base is found or the stripe ends, and then
//! written as one value, or as it was. Memory has a bound: a chain that grows beyond it is written as it is, and what comes
//! below is folded for itself.
//!
//! Not here: what is done with what is kept (`job`, `rows`).

use std::{path::PathBuf, sync::Arc};

use super::filter::Stripes;
use crate::{
    error::{Error, Result},
    faults::{Fault, Faults},
    key::{InternalKey, SequenceNumber, ValueKind, pack_trailer, trailer_kind, trailer_seq},
    merge::{Chain, Merger},
    slice::PinnedSlice,
    tombstones::Tombstones,
    version::TableOpener,
};

/// Bytes of operands held back, where each counts for `OPERAND_COST` more.
const MAX_CHAIN_BYTES: usize = 64 << 20;
const OPERAND_COST: usize = 32;

/// An entry that is kept.
pub(super) struct Kept<'a> {
    pub(super) key: InternalKey<'a>,
    pub(super) value: &'a [u8],
    /// Stripe of the entry; `None` above the last boundary.
    pub(super) stripe: Option<usize>,
    /// A later rewrite may find that it is not needed, or may be folded.
    pub(super) may_go: bool,
}

/// Where kept entries go.
pub(super) trait Sink {
    /// The next entries are of another user key.
    fn new_key(&mut self);
    /// The entry is kept. `is_bottom` answers whether nothing older of its user key lies below the outputs.
    fn keep(&mut self, entry: Kept<'_>, is_bottom: &mut dyn FnMut(&[u8]) -> bool) -> Result<()>;
}

/// Decides, and folds.
pub(super) struct Folder<'a> {
    stripes: &'a Stripes,
    /// Every range tombstone of the inputs.
    tombstones: &'a Tombstones,
    merger: Option<Arc<Merger>>,
    /// Reads values that entries point to.
    pointers: Option<&'a dyn TableOpener>,
    faults: Faults,
    user_key: Vec<u8>,
    started: bool,
    /// Stripe of the version of `user_key` seen last, and the first reader that sees it.
    stripe: Option<usize>,
    reader: SequenceNumber,
    /// All that this stripe has said so far are operands; those not yet written are in `chain`.
    open: bool,
    chain: Chain,
    result: Vec<u8>,
    /// Chains that the operator could not fold.
    pub(super) failures: u64,
}

impl<'a> Folder<'a> {
    pub(super) fn new(
        stripes: &'a Stripes,
        tombstones: &'a Tombstones,
        merger: Option<Arc<Merger>>,
        faults: Faults,
    ) -> Self {
        Self {
            stripes,
            tombstones,
            merger,
            pointers: None,
            faults,
            user_key: Vec::new(),
            started: false,
            stripe: None,
            reader: SequenceNumber::ZERO,
            open: false,
            chain: Chain::default(),
            result: Vec::new(),
            failures: 0,
        }
    }

    /// The same, with entries that point to their values.
    pub(super) fn reading(mut self, pointers: &'a dyn TableOpener) -> Self {
        self.pointers = Some(pointers);
        self
    }

    fn pointed(&self, pointer: &[u8]) -> Result<PinnedSlice> {
        let pointers = self.pointers.ok_or_else(|| {
            let what = "an entry points to a value where none can";
            Error::corruption(PathBuf::new(), 0, what)
        })?;
        pointers.value(pointer)
    }

    /// Takes the next entry. `is_bottom` is asked with ascending keys, and only where it decides.
    pub(super) fn take(
        &mut self,
        key: InternalKey<'_>,
        value: &[u8],
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        if !self.started || self.user_key != key.user_key {
            self.end_key(is_bottom, sink)?;
            self.started = true;
            self.user_key.clear();
            self.user_key.extend_from_slice(key.user_key);
            self.stripe = None;
            sink.new_key();
        }
        let whole = |stripe, may_go| Kept {
            key,
            value,
            stripe,
            may_go,
        };
        let Some((stripe, reader)) = self.stripes.of(key.seq()) else {
            return sink.keep(whole(None, true), is_bottom);
        };
        let across = self.open && self.faults.is(Fault::FoldAcrossSnapshot);
        if self.stripe != Some(stripe) && !across {
            if self.open {
                self.leave_stripe(key.seq(), is_bottom, sink)?;
            }
            (self.stripe, self.reader, self.open) = (Some(stripe), reader, false);
        } else if !self.open {
            return Ok(()); // hidden by a newer version in the same stripe
        }
        let is_covered = !self.tombstones.is_empty()
            && self.tombstones.covering_seq(key.user_key, reader) > key.seq();
        match (is_covered, key.kind()) {
            (true, _) if self.open => self.fold(None, None, is_bottom, sink),
            (true, _) => Ok(()),
            (false, Some(ValueKind::Merge)) => {
                self.open = true;
                let bytes = self.chain.bytes() + self.chain.len() * OPERAND_COST;
                if bytes + value.len() > MAX_CHAIN_BYTES {
                    self.keep_chain(true, is_bottom, sink)?;
                }
                self.chain.push(key.trailer, value);
                Ok(())
            }
            (false, Some(ValueKind::Delete)) if self.open => {
                self.fold(None, Some((key.trailer, value)), is_bottom, sink)
            }
            (false, Some(ValueKind::Pointer)) if self.open => {
                let base = self.pointed(value)?;
                self.fold(Some(&base), Some((key.trailer, value)), is_bottom, sink)
            }
            (false, _) if self.open => {
                self.fold(Some(value), Some((key.trailer, value)), is_bottom, sink)
            }
            (false, Some(ValueKind::Delete)) if stripe == 0 && is_bottom(key.user_key) => Ok(()),
            (false, _) => sink.keep(whole(Some(stripe), true), is_bottom),
        }
    }

    /// After the last entry of a user key: also to be called after the last of all.
    pub(super) fn end_key(
        &mut self,
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        if !self.open {
            return Ok(());
        }
        // Below a range delete that is older than the operands there is nothing, as at the bottom.
        let covered = self.tombstones.covering_seq(&self.user_key, self.reader);
        if covered > SequenceNumber::ZERO || is_bottom(&self.user_key) {
            self.fold(None, None, is_bottom, sink)
        } else {
            self.fold_partially(is_bottom, sink)
        }
    }

    /// The next version, of number `next`, is in an older stripe.
    fn leave_stripe(
        &mut self,
        next: SequenceNumber,
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        if self.tombstones.covering_seq(&self.user_key, self.reader) > next {
            self.fold(None, None, is_bottom, sink)
        } else {
            self.fold_partially(is_bottom, sink)
        }
    }

    /// Writes the chain over `base` as one value; or, where that fails, as it is, and behind it the base's entry `raw`.
    fn fold(
        &mut self,
        base: Option<&[u8]>,
        raw: Option<(u64, &[u8])>,
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        self.open = false;
        let newest = self.chain.newest_first().next().map(|(trailer, _)| trailer);
        let merged = match (&self.merger, newest) {
            (Some(merger), Some(newest)) if merger.is_given() => {
                match merger.full(&self.user_key, base, &self.chain, &mut self.result) {
                    Ok(()) => Some(newest),
                    Err(_) => {
                        self.failures += 1;
                        None
                    }
                }
            }
            _ => None,
        };
        let Some(newest) = merged else {
            self.keep_chain(false, is_bottom, sink)?;
            let Some((trailer, value)) = raw else {
                return Ok(());
            };
            // A delete that has nothing left to do goes here as elsewhere: a table with one is rewritten for it.
            let is_delete = trailer_kind(trailer) == Some(ValueKind::Delete);
            if is_delete && self.stripe == Some(0) && is_bottom(&self.user_key) {
                return Ok(());
            }
            return self.emit(trailer, value, false, is_bottom, sink);
        };
        self.chain.clear();
        let result = std::mem::take(&mut self.result);
        let trailer = pack_trailer(trailer_seq(newest), ValueKind::Put);
        let kept = self.emit(trailer, &result, true, is_bottom, sink);
        self.result = result;
        kept
    }

    /// Writes the chain with neighbours put together where the operator can.
    fn fold_partially(
        &mut self,
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        self.open = false;
        let Some(merger) = self.merger.clone().filter(|merger| merger.is_given()) else {
            return self.keep_chain(false, is_bottom, sink);
        };
        let operands: Vec<(u64, &[u8])> = self.chain.newest_first().collect();
        // From the oldest on: each newer operand joins the last one made, or begins another.
        let mut made: Vec<(u64, Vec<u8>)> = Vec::new();
        for (trailer, operand) in operands.into_iter().rev() {
            if let Some((last, older)) = made.last_mut() {
                match merger.partial(&self.user_key, older, operand, &mut self.result) {
                    Ok(true) => {
                        *last = trailer;
                        std::mem::swap(older, &mut self.result);
                        continue;
                    }
                    Ok(false) => {}
                    Err(_) => self.failures += 1,
                }
            }
            made.push((trailer, operand.to_vec()));
        }
        self.chain.clear();
        for (trailer, operand) in made.into_iter().rev() {
            self.emit(trailer, &operand, true, is_bottom, sink)?;
        }
        Ok(())
    }

    /// Writes the chain as it is.
    fn keep_chain(
        &mut self,
        may_go: bool,
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let chain = std::mem::take(&mut self.chain);
        for (trailer, operand) in chain.newest_first() {
            self.emit(trailer, operand, may_go, is_bottom, sink)?;
        }
        self.chain = chain;
        self.chain.clear();
        Ok(())
    }

    fn emit(
        &self,
        trailer: u64,
        value: &[u8],
        may_go: bool,
        is_bottom: &mut dyn FnMut(&[u8]) -> bool,
        sink: &mut impl Sink,
    ) -> Result<()> {
        let key = InternalKey {
            user_key: &self.user_key,
            trailer,
        };
        sink.keep(
            Kept {
                key,
                value,
                stripe: self.stripe,
                may_go,
            },
            is_bottom,
        )
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
