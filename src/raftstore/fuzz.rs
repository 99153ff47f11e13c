//! Bodies of the fuzz targets of a store's own bytes: keys, records, and what comes with a snapshot.
//!
//! Hidden from the documentation and no promise to anyone; see `basalt_engine::testing::fuzz`, whose rules are the same.

use std::fmt::Debug;

use basalt_proto::{
    eraftpb::{Entry, Snapshot},
    raft_cmdpb::RaftCmdRequest,
    raft_serverpb::{
        RaftApplyState, RaftLocalState, RaftMessage, RegionLocalState, SnapshotIntent, StoreIdent,
    },
};
use prost::Message;

use crate::{keys::Key, snapshot::fuzz as snapshot};

/// What a target does with bytes: true where they were taken for what they claim to be.
pub type Body = fn(&[u8]) -> bool;

/// Every target of this crate, by name.
pub const TARGETS: [(&str, Body); 4] = [
    ("store-key", key),
    ("store-record", record),
    ("snapshot-meta", snapshot::meta),
    ("snapshot-name", snapshot::name),
];

fn key(data: &[u8]) -> bool {
    let Some(key) = Key::decode(data) else {
        return false;
    };
    assert_eq!(key.encode(), data, "one spelling");
    true
}

/// A stored record or message; the first byte says of which kind.
fn record(data: &[u8]) -> bool {
    let Some((&kind, data)) = data.split_first() else {
        return false;
    };
    match kind % 8 {
        0 => again::<RaftLocalState>(data),
        1 => again::<RaftApplyState>(data),
        2 => again::<RegionLocalState>(data),
        3 => again::<SnapshotIntent>(data),
        4 => again::<StoreIdent>(data),
        5 => again::<Entry>(data),
        6 => again::<RaftCmdRequest>(data),
        _ => again::<RaftMessage>(data) && again::<Snapshot>(data),
    }
}

/// What is taken is taken for the same once it was written again.
fn again<M: Message + Default + PartialEq + Debug>(data: &[u8]) -> bool {
    let Ok(message) = M::decode(data) else {
        return false;
    };
    let bytes = message.encode_to_vec();
    assert_eq!(M::decode(&bytes[..]).as_ref(), Ok(&message));
    true
}
