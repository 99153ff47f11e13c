//! `Directory`: the stores that a store knows: where each is reached, and which disk it had when it was first
//! seen.
//!
//! Kept in the file `MEMBERS` of the data directory (FORMAT.md, section 7). Promises: an incarnation that was
//! taken in is durable when the call returns, and is never replaced; an address is replaced only by a newer one
//! of the same store. A store whose incarnation has changed comes with another disk: what it promised is gone,
//! so it is refused.
//!
//! Not here: who asks whom (`hello`), who votes (Raft).

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use basalt_proto::basaltpb::StoreInfo;

use super::{Refusal, checksum};
use crate::storage::data_dir::{parse_hex, write_whole};

/// Version of the file.
const FORMAT: &str = "format 1";
/// Stores that a directory holds, with those that were removed.
pub const MAX_STORES: usize = 10_000;
/// Bytes of the longest address that is taken in.
pub const MAX_ADDRESS_LEN: usize = 300;

/// The known stores.
#[derive(Debug)]
pub struct Directory {
    file: PathBuf,
    own: u64,
    stores: Mutex<BTreeMap<u64, StoreInfo>>,
}

impl Directory {
    /// A directory of these stores, written to `file`.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn create(file: PathBuf, own: u64, stores: Vec<StoreInfo>) -> Result<Self, String> {
        let stores = stores.into_iter().map(|store| (store.store_id, store));
        let directory = Self {
            file,
            own,
            stores: Mutex::new(stores.collect()),
        };
        directory.save(&directory.lock())?;
        Ok(directory)
    }

    /// The directory in `file`.
    ///
    /// # Errors
    ///
    /// One sentence when it cannot be read, or is damaged.
    pub fn open(file: PathBuf, own: u64) -> Result<Self, String> {
        let text = fs::read_to_string(&file)
            .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let stores = parse(&text).filter(|stores| stores.contains_key(&own));
        let stores = stores.ok_or_else(|| format!("{} is damaged", file.display()))?;
        Ok(Self {
            file,
            own,
            stores: Mutex::new(stores),
        })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, StoreInfo>> {
        // Each change of the map is one call.
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, stores: &BTreeMap<u64, StoreInfo>) -> Result<(), String> {
        write_whole(&self.file, &show(stores)).map_err(|error: io::Error| {
            let shown = self.file.display();
            format!("cannot write {shown}: {error}")
        })
    }

    /// Every known store, in the order of their ids.
    #[must_use]
    pub fn all(&self) -> Vec<StoreInfo> {
        self.lock().values().cloned().collect()
    }

    /// One store.
    #[must_use]
    pub fn get(&self, store_id: u64) -> Option<StoreInfo> {
        self.lock().get(&store_id).cloned()
    }

    /// This store.
    #[must_use]
    pub fn own(&self) -> StoreInfo {
        self.get(self.own).unwrap_or_default()
    }

    /// Where a store is reached, unless it was removed.
    #[must_use]
    pub fn address(&self, store_id: u64) -> Option<String> {
        let stores = self.lock();
        let store = stores.get(&store_id).filter(|store| !store.removed)?;
        Some(store.address.clone())
    }

    /// The ids of the other stores that were not removed.
    #[must_use]
    pub fn others(&self) -> Vec<u64> {
        let stores = self.lock();
        let others = stores
            .values()
            .filter(|store| store.store_id != self.own && !store.removed);
        others.map(|store| store.store_id).collect()
    }

    /// Whether a store is known with just this incarnation, so that nothing has to be written.
    #[must_use]
    pub fn knows(&self, store_id: u64, incarnation: u64) -> bool {
        let stores = self.lock();
        stores
            .get(&store_id)
            .is_some_and(|store| store.incarnation == incarnation && !store.removed)
    }

    /// Takes in a store that says who it is. May block on the disk.
    ///
    /// # Errors
    ///
    /// [`Refusal::Wiped`] and [`Refusal::Removed`]; [`Refusal::Disk`].
    pub fn admit(&self, sender: &StoreInfo) -> Result<(), Refusal> {
        if sender.store_id == 0
            || sender.incarnation == 0
            || sender.store_id == self.own
            || !is_address(&sender.address)
        {
            return Err(Refusal::Target(format!(
                "what store {} says of itself makes no sense to store {}",
                sender.store_id, self.own
            )));
        }
        let mut stores = self.lock();
        if let Some(known) = stores.get(&sender.store_id) {
            if known.incarnation != 0 && known.incarnation != sender.incarnation {
                return Err(Refusal::wiped(sender.store_id));
            }
            if known.removed {
                return Err(Refusal::removed(sender.store_id));
            }
        } else if stores.len() >= MAX_STORES {
            return Err(Refusal::Disk(format!(
                "{MAX_STORES} stores are known already"
            )));
        }
        let mut next = stores.clone();
        let known = next.entry(sender.store_id).or_default();
        known.store_id = sender.store_id;
        known.incarnation = sender.incarnation;
        take_address(known, sender);
        self.replace(&mut stores, next).map_err(Refusal::Disk)
    }

    /// Takes in what another store knows. May block on the disk.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn merge(&self, known: &[StoreInfo]) -> Result<(), String> {
        let mut stores = self.lock();
        let mut next = stores.clone();
        for theirs in known {
            let usable = theirs.store_id != 0 && is_address(&theirs.address);
            if theirs.store_id == self.own || !usable {
                continue;
            }
            if !next.contains_key(&theirs.store_id) && next.len() >= MAX_STORES {
                break;
            }
            let ours = next.entry(theirs.store_id).or_default();
            ours.store_id = theirs.store_id;
            if ours.incarnation == 0 {
                ours.incarnation = theirs.incarnation;
            }
            ours.removed |= theirs.removed;
            take_address(ours, theirs);
        }
        self.replace(&mut stores, next)
    }

    /// Notes that a store was removed for good. May block on the disk.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn remove(&self, store_id: u64) -> Result<(), String> {
        let mut stores = self.lock();
        let mut next = stores.clone();
        if let Some(store) = next.get_mut(&store_id) {
            store.removed = true;
        }
        self.replace(&mut stores, next)
    }

    /// Notes where this store is reached now. May block on the disk.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub fn move_to(&self, address: &str) -> Result<(), String> {
        let mut stores = self.lock();
        let mut next = stores.clone();
        if let Some(own) = next.get_mut(&self.own)
            && own.address != address
        {
            address.clone_into(&mut own.address);
            own.address_version += 1;
        }
        self.replace(&mut stores, next)
    }

    fn replace(
        &self,
        stores: &mut BTreeMap<u64, StoreInfo>,
        next: BTreeMap<u64, StoreInfo>,
    ) -> Result<(), String> {
        if *stores != next {
            self.save(&next)?;
            *stores = next;
        }
        Ok(())
    }
}

/// The newer address of a store; a store that nobody has given an address takes any.
fn take_address(ours: &mut StoreInfo, theirs: &StoreInfo) {
    if ours.address.is_empty() || theirs.address_version > ours.address_version {
        ours.address.clone_from(&theirs.address);
        ours.address_version = theirs.address_version;
    }
}

/// Whether an address can stand in the file.
fn is_address(address: &str) -> bool {
    !address.is_empty()
        && address.len() <= MAX_ADDRESS_LEN
        && !address.contains(|char: char| char.is_whitespace() || char.is_control())
}

pub(super) fn show(stores: &BTreeMap<u64, StoreInfo>) -> String {
    let mut text = format!("{FORMAT}\n");
    for store in stores.values() {
        let state = if store.removed { "removed" } else { "member" };
        let _ = writeln!(
            text,
            "store {} {state} {} {} {:016x}",
            store.store_id, store.address, store.address_version, store.incarnation
        );
    }
    let sum = checksum(text.as_bytes());
    let _ = writeln!(text, "check {sum:016x}");
    text
}

pub(super) fn parse(text: &str) -> Option<BTreeMap<u64, StoreInfo>> {
    let body = text.strip_suffix('\n')?;
    let (body, check) = body.rsplit_once('\n')?;
    let body = format!("{body}\n");
    let sum = parse_hex(check.strip_prefix("check ")?)?;
    if sum != checksum(body.as_bytes()) {
        return None;
    }
    let mut lines = body.lines();
    if lines.next()? != FORMAT {
        return None;
    }
    let stores = lines.map(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        let ["store", id, state, address, version, incarnation] = words[..] else {
            return None;
        };
        let removed = match state {
            "removed" => true,
            "member" => false,
            _ => return None,
        };
        let store_id = id.parse().ok()?;
        let store = StoreInfo {
            store_id,
            address: address.to_owned(),
            incarnation: parse_hex(incarnation)?,
            address_version: version.parse().ok()?,
            removed,
        };
        Some((store_id, store))
    });
    stores.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(store_id: u64, incarnation: u64) -> StoreInfo {
        StoreInfo {
            store_id,
            address: format!("10.0.0.{store_id}:20160"),
            incarnation,
            address_version: 0,
            removed: false,
        }
    }

    fn directory(dir: &tempfile::TempDir) -> Directory {
        let stores = vec![store(1, 11), store(2, 0), store(3, 0)];
        Directory::create(dir.path().join("MEMBERS"), 1, stores).unwrap()
    }

    #[test]
    fn what_was_taken_in_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let before = directory(&dir);
        before.admit(&store(2, 22)).unwrap();
        before.admit(&store(9, 99)).unwrap();
        before.remove(3).unwrap();
        let after = Directory::open(dir.path().join("MEMBERS"), 1).unwrap();
        assert_eq!(after.all(), before.all());
        assert!(after.knows(2, 22) && after.knows(9, 99));
        assert_eq!(after.others(), [2, 9]);
        assert_eq!((after.address(3), after.own()), (None, store(1, 11)));
    }

    #[test]
    fn a_changed_incarnation_is_refused_and_the_first_one_stays() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(&dir);
        directory.admit(&store(2, 22)).unwrap();
        let refusal = directory.admit(&store(2, 23)).unwrap_err();
        assert!(matches!(refusal, Refusal::Wiped(_)), "{refusal:?}");
        directory.merge(&[store(2, 24)]).unwrap();
        assert!(directory.knows(2, 22));
        directory.admit(&store(2, 22)).unwrap();
        let refusal = directory.admit(&store(1, 11)).unwrap_err();
        assert!(matches!(refusal, Refusal::Target(_)), "{refusal:?}");
    }

    #[test]
    fn the_newest_address_of_a_store_wins_whoever_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(&dir);
        let moved = StoreInfo {
            address: "elsewhere:1".into(),
            address_version: 2,
            ..store(2, 22)
        };
        directory.merge(&[moved.clone(), store(2, 22)]).unwrap();
        directory.admit(&store(2, 22)).unwrap();
        assert_eq!(directory.address(2).unwrap(), "elsewhere:1");
        directory.move_to("here:2").unwrap();
        directory.move_to("here:2").unwrap();
        assert_eq!(directory.own().address_version, 1);
    }

    #[test]
    fn a_removed_store_is_refused_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(&dir);
        directory.remove(2).unwrap();
        directory.merge(&[store(2, 22)]).unwrap();
        let refusal = directory.admit(&store(2, 22)).unwrap_err();
        assert!(matches!(refusal, Refusal::Removed(_)), "{refusal:?}");
    }

    #[test]
    fn no_flipped_bit_passes_and_no_cut() {
        let stores = [store(1, 11), store(2, 0)];
        let stores: BTreeMap<_, _> = stores.into_iter().map(|one| (one.store_id, one)).collect();
        let text = show(&stores);
        assert_eq!(parse(&text), Some(stores));
        for place in 0..text.len() {
            for bit in 0..8 {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= 1 << bit;
                let damaged = String::from_utf8(bytes);
                let passes = damaged.is_ok_and(|damaged| {
                    // The digits of the checksum itself may be of either case.
                    parse(&damaged).is_some() && !damaged.eq_ignore_ascii_case(&text)
                });
                assert!(!passes, "bit {bit} of byte {place}");
            }
            assert_eq!(parse(&text[..place]), None, "{place} bytes");
        }
    }

    #[test]
    fn the_example_of_the_format_is_what_is_written() {
        let format = include_str!("../../../FORMAT.md");
        let example = format.split_once("```text members\n").unwrap().1;
        let example = example.split_once("```").unwrap().0;
        let stores = parse(example).unwrap();
        assert_eq!(show(&stores), example);
        assert_eq!(stores[&2].address_version, 1);
        assert!(stores[&3].removed);
    }

    #[test]
    fn an_address_that_would_break_the_file_is_not_taken_in() {
        let dir = tempfile::tempdir().unwrap();
        let directory = directory(&dir);
        for address in ["", "a b:1", "a:1\nstore 7 member b:1 0 0", &"a".repeat(301)] {
            let bad = StoreInfo {
                address: address.into(),
                ..store(7, 7)
            };
            assert!(directory.admit(&bad).is_err(), "{address:?}");
            directory.merge(&[bad]).unwrap();
            assert_eq!(directory.get(7), None);
        }
    }
}
