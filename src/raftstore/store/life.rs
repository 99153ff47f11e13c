//! How a store and its peers begin and end.

use basalt_engine::{WriteBatch, WriteOptions};
use basalt_proto::{metapb, raft_serverpb::StoreIdent};
use basalt_raft::{Config, RawNode, ReadMode, eraftpb::Snapshot};
use prost::Message as _;

use super::{Peer, Store, backoff::Backoff, figures::take_counts, raft_failed};
use crate::{
    ApplyTask, CommandError, Engines, Error, Installed, Membership, PeerAt, PeerStorage, Result,
    faults::Fault, keys, peers, states,
};

/// The founders' first region has this id.
pub const FIRST_REGION: u64 = 1;

/// Makes two empty databases those of a store; of a founding one with its peer of the first region. It is
/// durable when this returns. Doing it again, after a crash in the middle, is fine.
///
/// # Errors
///
/// [`Error::Misuse`] where they are another store's, or no peer of the region is on this store;
/// [`Error::Engine`].
pub fn bootstrap(
    engines: &Engines,
    ident: &StoreIdent,
    founding: Option<&Membership>,
) -> Result<()> {
    match store_ident(engines)? {
        Some(known) if known != *ident => {
            let what = format!(
                "the directory is store {}'s of cluster {}",
                known.store_id, known.cluster_id
            );
            return Err(Error::misuse(0, what));
        }
        Some(_) => return Ok(()),
        None => {}
    }
    // The ident comes last: whoever finds it finds everything.
    if let Some(membership) = founding {
        let region = &membership.region;
        let own = region.peers.iter().find(|p| p.store_id == ident.store_id);
        let own = own.ok_or_else(|| {
            Error::misuse(region.id, "no peer of the first region is on this store")
        })?;
        if states::region_state(engines, region.id)?.is_none() {
            PeerStorage::create(engines, membership, own.id)?;
        }
    }
    let mut batch = WriteBatch::new();
    batch.put(&engines.local, &keys::STORE_IDENT, &ident.encode_to_vec());
    engines.kv.write(batch, WriteOptions::NO_SYNC)?;
    engines.flush_kv()
}

/// Whose databases these are; `None` where nobody's yet.
///
/// # Errors
///
/// [`Error::Corruption`] for bytes that are no ident; [`Error::Engine`].
pub fn store_ident(engines: &Engines) -> Result<Option<StoreIdent>> {
    let Some(bytes) = engines.kv.get(&engines.local, &keys::STORE_IDENT)? else {
        return Ok(None);
    };
    let ident = StoreIdent::decode(&bytes[..]);
    let wrong = |error| Error::corruption(0, format!("the store's ident does not decode: {error}"));
    ident.map(Some).map_err(wrong)
}

impl Store {
    /// Opens the peers that the engines have. One that waits for its first snapshot is not among them; the
    /// next message for it makes it again.
    pub(super) fn load_peers(&mut self) -> Result<()> {
        for PeerAt { region, peer } in peers(&self.engines)? {
            let meta = metapb::Peer {
                id: peer,
                store_id: self.config.store_id,
            };
            self.open_peer(region, meta)?;
        }
        self.sweep_snapshots();
        Ok(())
    }

    fn open_peer(&mut self, region_id: u64, meta: metapb::Peer) -> Result<()> {
        let cache = self.config.entry_cache_bytes;
        let mut storage = PeerStorage::open(self.engines.clone(), region_id, meta.id, cache)?;
        if let Some(snapshot) = storage.pending_snapshot().cloned() {
            let tables = self.snapshots.tables(&snapshot)?;
            let mut batch = WriteBatch::new();
            storage.install(tables, &mut batch)?;
            self.engines.raft.write(batch, WriteOptions::SYNC)?;
            // What is left of them goes with a later sweep.
            let _ = self.snapshots.release(&snapshot);
        }
        let config = self.raft_config(&storage);
        let log_bytes = storage.estimated_log_bytes()?;
        let raw = RawNode::new(config, storage).map_err(raft_failed)?;
        let mut peer = Peer::new(meta, raw, self.now);
        peer.log_bytes = log_bytes;
        self.add_peer(peer);
        Ok(())
    }

    /// A peer of a region that is not known yet: it waits for a snapshot. False, and there is none, where a newer one
    /// has been here.
    pub(super) fn add_waiting_peer(&mut self, region_id: u64, meta: metapb::Peer) -> Result<bool> {
        match self.open_peer(region_id, meta) {
            Err(Error::Tombstone { .. } | Error::OtherPeer { .. }) => Ok(false),
            done => done.map(|()| true),
        }
    }

    fn add_peer(&mut self, peer: Peer) {
        let region_id = peer.region_id();
        if let Some(membership) = peer.raw.storage().membership() {
            self.apply.push(ApplyTask::Register {
                peer_id: peer.meta.id,
                state: *peer.raw.storage().apply_state(),
                membership: Box::new(membership.clone()),
            });
            let start = membership.region.start_key.clone();
            self.ranges.insert(start, region_id);
        }
        self.peers.insert(region_id, peer);
    }

    fn raft_config(&self, storage: &PeerStorage) -> Config {
        let quarantine =
            !self.config.freshly_formatted && !self.config.faults.is(Fault::NoQuarantine);
        let election_tick = self.config.election_ticks;
        Config {
            election_tick,
            heartbeat_tick: self.config.heartbeat_ticks,
            applied: storage.apply_state().applied_index,
            read_mode: ReadMode::LeaseBased,
            async_storage_writes: true,
            lazy_commits: self.config.lazy_commits,
            disable_proposal_forwarding: true,
            quarantine_ticks: if quarantine { election_tick } else { 0 },
            seed: self.config.seed,
            logger: self.logger.clone(),
            ..Config::new(storage.peer_id())
        }
    }

    /// A region has another range or other members than before.
    pub(super) fn region_changed(&mut self, region_id: u64, membership: &Membership) {
        self.ranges.retain(|_, id| *id != region_id);
        let region = &membership.region;
        self.ranges.insert(region.start_key.clone(), region_id);
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return;
        };
        peer.learn_members();
        if !region.peers.iter().any(|member| member.id == peer.meta.id) {
            peer.leaving.get_or_insert(region.clone());
        }
    }

    /// A snapshot is in kvdb. Its files may go when the end of the intent is durable.
    pub(super) fn installed(
        &mut self,
        region_id: u64,
        peer_id: u64,
        installed: Installed,
    ) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        if peer.meta.id != peer_id {
            return Ok(());
        }
        peer.is_dirty = true;
        let storage = peer.raw.storage_mut();
        storage.installed(installed, &mut self.batch)?;
        peer.log_bytes = 0;
        let membership = storage.membership().cloned();
        let Some((snapshot, responses)) = peer.installing.pop_front() else {
            return Ok(());
        };
        peer.note_snapshot("received", &snapshot, None, self.now);
        self.ended.push((self.turn + 1, snapshot));
        if let Some(membership) = membership {
            self.region_changed(region_id, &membership);
        }
        self.deliver(region_id, responses)
    }

    /// Removes a peer that is no member any more, once nothing of it is on its way.
    pub(super) fn remove_if_due(&mut self, region_id: u64) -> Result<()> {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return Ok(());
        };
        let Some(region) = peer.leaving.clone() else {
            return Ok(());
        };
        peer.fail_all(&CommandError::RegionNotFound { region_id });
        if !peer.is_at_rest() {
            return Ok(());
        }
        self.log(
            basalt_raft::Level::Info,
            format_args!("region {region_id}: the peer here was removed"),
        );
        self.apply.push(ApplyTask::Forget { region_id });
        self.ranges.retain(|_, id| *id != region_id);
        if let Some(mut peer) = self.peers.remove(&region_id) {
            take_counts(&mut peer, &self.metrics);
            if !self.config.faults.is(Fault::LocalLeaseNotEnded) {
                self.leases.end(&mut peer.lease);
            }
            self.says_first = true;
            peer.raw.into_storage().destroy(&region, &mut self.batch)?;
        }
        Ok(())
    }

    /// A snapshot was made.
    pub(super) fn generated(&mut self, region_id: u64, result: Result<Box<Snapshot>, String>) {
        let Some(peer) = self.peers.get_mut(&region_id) else {
            return;
        };
        peer.generating = None;
        peer.is_dirty = true;
        match result {
            Ok(snapshot) => {
                (peer.makes, peer.not_made) = (Backoff::default(), None);
                peer.note_snapshot("made", &snapshot, None, self.now);
                peer.raw.storage_mut().offer_snapshot(*snapshot);
            }
            Err(why) => {
                peer.makes.failed(self.now);
                peer.not_made = Some(why.clone());
                self.log(
                    basalt_raft::Level::Warn,
                    format_args!("region {region_id}: no snapshot: {why}"),
                );
            }
        }
    }

    /// Hands leadership over, where this store has it; whether there is anybody to take it.
    pub(super) fn hand_over(&mut self) -> bool {
        let mut is_handed = false;
        for peer in self.peers.values_mut().filter(|peer| peer.leads()) {
            is_handed |= hand_over_to(peer);
            peer.is_dirty = true;
        }
        is_handed
    }
}

/// Hands leadership to the voter whose log is closest, if there is another one.
pub(super) fn hand_over_to(peer: &mut Peer) -> bool {
    let own = peer.meta.id;
    let raft = peer.raw.raft();
    let voters = raft.progress().iter();
    let voters = voters.filter(|(id, progress)| *id != own && !progress.is_learner);
    // Right after a look at the quorum nobody is known to be there; the closest log is a good guess.
    let best = voters.max_by_key(|(_, progress)| (progress.recent_active, progress.matched));
    let Some((to, _)) = best else {
        return false;
    };
    // A target that cannot lead is ignored, and then nothing changes.
    let _ = peer.raw.transfer_leader(to);
    true
}
