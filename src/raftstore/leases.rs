//! `Leases`: for how long which regions may be read here without asking the store loop.
//!
//! The store loop is the only writer: behind every step of a node it says until when that node's lease holds,
//! by the same count of ticks as its own reads go by; what ends a lease early (a transfer, another term, a
//! region that changes or leaves) is said before anything of it leaves the store. Readers look at a lease
//! **behind** their read of the engine. One that holds then held when they read, and nobody else can have
//! acknowledged a write meanwhile; what was acknowledged here is in the engine before its answer leaves. So
//! the read is linearizable, and if the region was emptied under it, its lease was ended before that.
//!
//! Not here: how long a lease is (`basalt_raft::Raft::local_reads_left`).

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use basalt_proto::{
    metapb::{Peer, Region},
    raft_cmdpb::RaftRequestHeader,
};
use bytes::Bytes;

use crate::{Target, command::contains};

/// The right to read a region here, as its node had it in one term and the region one state.
#[derive(Debug)]
pub(crate) struct Lease {
    region: Arc<Region>,
    peer: Peer,
    term: u64,
    /// When it ends, in nanoseconds of the store's clock. 0: it has ended for good.
    until: AtomicU64,
}

impl Lease {
    /// Whether it holds at `now`, a time that was asked for before the call.
    pub(crate) fn holds(&self, now: Duration) -> bool {
        now < Duration::from_nanos(self.until.load(Ordering::Acquire))
    }

    /// The region.
    pub(crate) fn region(&self) -> &Arc<Region> {
        &self.region
    }

    /// Whether a caller who names the region means it as it is. Whoever does not is told why by the store loop.
    fn is_meant(&self, header: &RaftRequestHeader) -> bool {
        let ours = self.region.region_epoch.unwrap_or_default();
        header.region_id == self.region.id
            && header.peer.is_none_or(|peer| peer == self.peer)
            && (header.term == 0 || header.term == self.term)
            && header
                .region_epoch
                .is_none_or(|epoch| epoch.version == ours.version)
    }
}

/// The leases of a store.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    /// By start key.
    by_start: RwLock<BTreeMap<Bytes, Arc<Lease>>>,
}

impl Leases {
    /// The lease under which `target` may be read, if one was given; whether it holds is to be asked behind the
    /// read.
    pub(crate) fn of(&self, target: &Target) -> Option<Arc<Lease>> {
        let by_start = self.by_start.read().unwrap_or_else(PoisonError::into_inner);
        match target {
            Target::Key(key) => {
                let up_to = (Bound::Unbounded, Bound::Included(&key[..]));
                let (_, lease) = by_start.range::<[u8], _>(up_to).next_back()?;
                contains(&lease.region, key).then(|| Arc::clone(lease))
            }
            Target::Region(header) => {
                let mut leases = by_start.values();
                leases.find(|lease| lease.is_meant(header)).cloned()
            }
        }
    }

    /// Says until when `region` may be read, which `peer` leads in `term`. `known` is what this said last.
    pub(crate) fn grant(
        &self,
        known: &mut Option<Arc<Lease>>,
        region: &Region,
        peer: Peer,
        term: u64,
        until: Duration,
    ) {
        let nanos = u64::try_from(until.as_nanos()).unwrap_or(u64::MAX);
        if let Some(lease) = known
            && (lease.term, lease.peer, &*lease.region) == (term, peer, region)
        {
            lease.until.store(nanos, Ordering::Release);
            return;
        }
        self.end(known);
        let lease = Arc::new(Lease {
            region: Arc::new(region.clone()),
            peer,
            term,
            until: AtomicU64::new(nanos),
        });
        *known = Some(Arc::clone(&lease));
        let mut by_start = self
            .by_start
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        by_start.insert(region.start_key.clone(), lease);
    }

    /// Ends a lease for good, also for those who have it in their hands.
    pub(crate) fn end(&self, known: &mut Option<Arc<Lease>>) {
        let Some(lease) = known.take() else {
            return;
        };
        lease.until.store(0, Ordering::Release);
        let mut by_start = self
            .by_start
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let start = &lease.region.start_key;
        if by_start
            .get(start)
            .is_some_and(|there| Arc::ptr_eq(there, &lease))
        {
            by_start.remove(start);
        }
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::metapb::RegionEpoch;

    use super::*;

    const PEER: Peer = Peer { id: 7, store_id: 3 };

    fn region(id: u64, start: &'static str, end: &'static str) -> Region {
        Region {
            id,
            start_key: Bytes::from(start),
            end_key: Bytes::from(end),
            region_epoch: Some(RegionEpoch {
                conf_ver: 1,
                version: 4,
            }),
            peers: vec![PEER],
        }
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn key(leases: &Leases, key: &'static str) -> Option<Arc<Lease>> {
        leases.of(&Target::Key(Bytes::from(key)))
    }

    #[test]
    fn a_lease_is_found_by_its_keys_and_ends_by_itself() {
        let (leases, mut b, mut d) = (Leases::default(), None, None);
        leases.grant(&mut b, &region(1, "b", "d"), PEER, 5, secs(10));
        leases.grant(&mut d, &region(2, "f", ""), PEER, 5, secs(10));
        for (at, found) in [("a", None), ("b", Some(1)), ("c", Some(1)), ("d", None)] {
            assert_eq!(key(&leases, at).map(|lease| lease.region.id), found, "{at}");
        }
        assert_eq!(key(&leases, "z").map(|lease| lease.region.id), Some(2));
        let lease = key(&leases, "b").unwrap();
        assert!(lease.holds(secs(9)));
        assert!(!lease.holds(secs(10)));
    }

    #[test]
    fn who_has_a_lease_in_hand_sees_it_renewed_and_ended() {
        let (leases, mut known) = (Leases::default(), None);
        leases.grant(&mut known, &region(1, "", ""), PEER, 5, secs(10));
        let in_hand = key(&leases, "k").unwrap();
        leases.grant(&mut known, &region(1, "", ""), PEER, 5, secs(20));
        assert!(in_hand.holds(secs(19)));
        // Another term is another lease.
        leases.grant(&mut known, &region(1, "", ""), PEER, 6, secs(30));
        assert!(!in_hand.holds(secs(1)));
        let in_hand = key(&leases, "k").unwrap();
        leases.end(&mut known);
        assert!(!in_hand.holds(secs(1)));
        assert!(key(&leases, "k").is_none());
    }

    #[test]
    fn who_names_a_region_must_mean_it_as_it_is() {
        let (leases, mut known) = (Leases::default(), None);
        leases.grant(&mut known, &region(1, "", ""), PEER, 5, secs(10));
        let header = RaftRequestHeader {
            region_id: 1,
            peer: Some(PEER),
            region_epoch: region(1, "", "").region_epoch,
            term: 5,
        };
        let find = |header: &RaftRequestHeader| leases.of(&Target::Region(*header));
        assert!(find(&header).is_some());
        let bare = RaftRequestHeader {
            region_id: 1,
            ..RaftRequestHeader::default()
        };
        assert!(find(&bare).is_some());
        let wrong = [
            RaftRequestHeader {
                region_id: 2,
                ..bare
            },
            RaftRequestHeader { term: 4, ..header },
            RaftRequestHeader {
                peer: Some(Peer { id: 8, store_id: 3 }),
                ..header
            },
            RaftRequestHeader {
                region_epoch: Some(RegionEpoch {
                    conf_ver: 1,
                    version: 3,
                }),
                ..header
            },
        ];
        for header in wrong {
            assert!(find(&header).is_none(), "{header:?}");
        }
    }
}
