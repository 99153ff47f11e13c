//! `basalt force-single`: the last resort for a lost majority. It makes a stopped store the only member of its cluster.
//!
//! What it changes: in each region the members, to this store's peer alone, and the version of the membership, by a
//! jump that no change of the old members can meet; in the file of known stores, that all others were removed. The
//! store then takes everything in its log for decided. Not here: how a region's state is kept (`basalt_raftstore`).

use std::{fmt::Write as _, path::PathBuf};

use basalt_engine::{Db, Options, WriteBatch, WriteOptions};
use basalt_proto::{metapb::Region, raft_serverpb::RegionLocalState};
use basalt_raftstore::{Engines, peers, states};
use clap::Args;

use super::{Done, Failure, print};
use crate::{
    replicated::Directory,
    storage::{
        data_dir::{self, Identity, Layout, Mode, Phase},
        explain_open,
    },
};

/// How far the version of a membership jumps: further than the lost members can have gone on meanwhile.
const JUMP: u64 = 1 << 16;

#[derive(Debug, Args)]
pub(super) struct ForceSingleArgs {
    /// Data directory of the store, which must be stopped
    #[arg(long, value_name = "DIR")]
    path: PathBuf,
    /// The other stores are lost for good, and what only they had may be lost with them
    #[arg(long)]
    yes: bool,
}

pub(super) fn run(args: &ForceSingleArgs) -> Done {
    let shown = args.path.display();
    let identity = match data_dir::read_mode(&args.path).map_err(Failure::world)? {
        Some(Mode::Replicated(identity)) if identity.phase == Phase::Serving => identity,
        Some(Mode::Replicated(_)) => {
            return Err(Failure::world(format!(
                "{shown} holds a store that has no data"
            )));
        }
        _ => {
            return Err(Failure::world(format!(
                "{shown} holds no store of a cluster"
            )));
        }
    };
    if !args.yes {
        return Err(Failure::usage(format!(
            "this makes store {} the only member of its cluster; it may lose the newest acknowledged writes, and must \
             not be done while a majority can come back: say --yes if that is what you want",
            identity.store_id
        )));
    }
    let layout = Layout::of(&args.path);
    let directory = Directory::open(layout.members(), identity.store_id).map_err(Failure::world)?;
    let done = rewrite(&layout, &identity)?;
    // Those that come back all the same are told that they were removed.
    for store_id in directory.others() {
        directory.remove(store_id).map_err(Failure::world)?;
    }
    print(done.as_bytes())
}

fn rewrite(layout: &Layout, identity: &Identity) -> Result<String, Failure> {
    let existing = || Options {
        create_if_missing: false,
        ..Options::default()
    };
    let open = |path: PathBuf| {
        Db::open(path, existing()).map_err(|error| Failure::world(explain_open(&error)))
    };
    let failed = |error: basalt_raftstore::Error| Failure::world(error.to_string());
    let engines = Engines::new(open(layout.kv())?, open(layout.raft())?).map_err(failed)?;
    let mut batch = WriteBatch::new();
    let mut text = String::new();
    for peer in peers(&engines).map_err(failed)? {
        let state = states::region_state(&engines, peer.region).map_err(failed)?;
        // One that waits for its first snapshot has nothing that could be recovered.
        let Some(state) = state else { continue };
        let state = alone(state, identity.store_id);
        states::put_region_state(&engines, &mut batch, peer.region, &state);
        let _ = writeln!(
            text,
            "region {}: store {} is its only member",
            peer.region, identity.store_id
        );
    }
    if text.is_empty() {
        return Err(Failure::world("the store has no region".to_owned()));
    }
    let engine = |error: basalt_engine::Error| Failure::world(error.to_string());
    engines
        .kv
        .write(batch, WriteOptions::NO_SYNC)
        .map_err(engine)?;
    engines.flush_kv().map_err(failed)?;
    engines.raft.clone().close().map_err(engine)?;
    engines.kv.clone().close().map_err(engine)?;
    Ok(text)
}

/// The state of a region whose only member is the peer of this store.
fn alone(state: RegionLocalState, store_id: u64) -> RegionLocalState {
    let old = state.region.unwrap_or_default();
    let mut epoch = old.region_epoch.unwrap_or_default();
    epoch.conf_ver += JUMP;
    let peers = old.peers.into_iter();
    let region = Region {
        peers: peers.filter(|peer| peer.store_id == store_id).collect(),
        region_epoch: Some(epoch),
        ..old
    };
    states::normal(&region, &states::all_vote(&region), state.peer_id)
}

#[cfg(test)]
mod tests {
    use basalt_proto::metapb::{Peer, RegionEpoch};

    use super::*;

    #[test]
    fn only_the_peer_of_the_store_is_left_and_the_range_stays() {
        let peers = (1..=3).map(|id| Peer {
            id: id + 10,
            store_id: id,
        });
        let region = Region {
            id: 1,
            start_key: "a".into(),
            end_key: "z".into(),
            region_epoch: Some(RegionEpoch {
                conf_ver: 4,
                version: 2,
            }),
            peers: peers.collect(),
        };
        let state = states::normal(&region, &states::all_vote(&region), 12);
        let after = alone(state, 2);
        let conf_state = after.conf_state.unwrap();
        assert_eq!((conf_state.nodes, after.peer_id), (vec![12], 12));
        let after = after.region.unwrap();
        assert_eq!(after.peers.len(), 1);
        let epoch = after.region_epoch.unwrap();
        assert_eq!((epoch.conf_ver, epoch.version), (4 + JUMP, 2));
        assert_eq!(
            (&after.start_key[..], &after.end_key[..]),
            (&b"a"[..], &b"z"[..])
        );
    }
}
