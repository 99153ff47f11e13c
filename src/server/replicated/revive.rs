//! A backup of a store's data becomes a store again: the first one of a new cluster, or a standalone one.
//!
//! A backup is of kvdb alone. A member's log, term and vote are promises to the others, which a copy of an older moment
//! would break; so what is restored never comes back as the member it was (`docs/adr/0019`). In a new cluster every region has
//! one peer, with a log that begins at the state that was restored; others join and get snapshots.
//!
//! Promises: the directory states its mode last; without it no server takes it.

use std::path::Path;

use basalt_engine::{CfOptions, Db, Ingest, Options, ReadOptions, TableWriter, WriteBatch};
use basalt_engine::{ColumnFamily, WriteOptions};
use basalt_proto::{
    metapb::{Peer, Region},
    raft_serverpb::StoreIdent,
};
use basalt_raftstore::{DATA_FAMILIES, Engines, bootstrap, keys, peers, states};

use super::{Directory, checksum, draw, hello};
use crate::storage::{
    FAMILIES,
    data_dir::{self, Identity, Layout, Mode, Phase},
    explain_open,
};

/// The only store of the new cluster.
const STORE: u64 = 1;
/// Bytes of a table that rows are copied into.
const TABLE_BYTES: u64 = 64 << 20;

/// How far a region of a restored store was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) region: u64,
    pub(crate) applied: u64,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn open(path: &Path, options: Options) -> Result<Db, String> {
    Db::open(path, options).map_err(|error| explain_open(&error))
}

/// Makes `dir`, whose `kv` is a restored kvdb, the first store of a new cluster.
///
/// # Errors
///
/// One sentence.
pub(crate) fn as_cluster(
    dir: &Path,
    name: &str,
    addr: &str,
    status_addr: &str,
) -> Result<(Identity, Vec<Point>), String> {
    let layout = Layout::of(dir);
    let (kv, raft) = (layout.kv(), layout.raft());
    let existing = Options {
        create_if_missing: false,
        ..Options::default()
    };
    let kv = open(&kv, existing)?;
    let raft = open(&raft, Engines::raft_options(Options::default()))?;
    let engines = Engines::new(kv, raft).map_err(text)?;
    let incarnation = draw()?;
    // Not that of the founders: what was restored is another history.
    let cluster_id = checksum(format!("{name}\nrestored {:016x}\n", draw()?).as_bytes()).max(1);
    let points = found_again(&engines)?;
    let ident = StoreIdent {
        cluster_id,
        store_id: STORE,
    };
    bootstrap(&engines, &ident, None).map_err(text)?;
    engines.raft.clone().close().map_err(text)?;
    engines.kv.clone().close().map_err(text)?;
    let identity = Identity {
        cluster_id,
        cluster_name: name.to_owned(),
        store_id: STORE,
        incarnation,
        phase: Phase::Serving,
        addr: addr.to_owned(),
        status_addr: status_addr.to_owned(),
    };
    let own = hello::introduction(STORE, addr, incarnation);
    Directory::create(layout.members(), STORE, vec![own])?;
    data_dir::write_mode(dir, &Mode::Replicated(identity.clone()))?;
    Ok((identity, points))
}

/// Gives each region one peer that has applied nothing but its first state, in one durable step.
fn found_again(engines: &Engines) -> Result<Vec<Point>, String> {
    let mut batch = WriteBatch::new();
    // Who the store was, tombstones of its regions: nothing of it is true of the new one.
    let all = keys::PREPARE_BOOTSTRAP[..1].to_vec();
    let end = vec![all[0] + 1];
    batch.delete_range(&engines.local, &all, &end);
    let mut points = Vec::new();
    let found = peers(engines).map_err(text)?;
    for (peer_id, at) in (1..).zip(found) {
        let state = states::region_state(engines, at.region).map_err(text)?;
        let applied = states::apply_state(engines, at.region).map_err(text)?;
        let (Some(state), Some(applied)) = (state, applied) else {
            return Err(format!("region {} of the backup has no state", at.region));
        };
        let old = state.region.unwrap_or_default();
        let mut epoch = old.region_epoch.unwrap_or_default();
        epoch.conf_ver += 1;
        let peer = Peer {
            id: peer_id,
            store_id: STORE,
        };
        let region = Region {
            peers: vec![peer],
            region_epoch: Some(epoch),
            ..old
        };
        let state = states::normal(&region, &states::all_vote(&region), peer_id);
        states::put_region_state(engines, &mut batch, at.region, &state);
        let initial = states::initial_apply_state(true);
        states::put_apply_state(engines, &mut batch, at.region, &initial);
        points.push(Point {
            region: at.region,
            applied: applied.applied_index,
        });
    }
    if points.is_empty() {
        return Err("the backup has no region".to_owned());
    }
    engines
        .kv
        .write(batch, WriteOptions::NO_SYNC)
        .map_err(text)?;
    engines.flush_kv().map_err(text)?;
    Ok(points)
}

/// Copies the rows of the restored kvdb in `from` into the engine of a new standalone store in `dir`, which states no mode
/// yet; `tell` gets the bytes so far.
///
/// # Errors
///
/// One sentence.
pub(crate) fn as_standalone(
    from: &Path,
    dir: &Path,
    mut tell: impl FnMut(u64),
) -> Result<Vec<Point>, String> {
    let source = Db::open_read_only(from, Options::default());
    let source = source.map_err(|error| explain_open(&error))?;
    let target = open(&Layout::of(dir).kv(), Options::default())?;
    let mut copied = 0;
    for (name, data) in FAMILIES.into_iter().zip(DATA_FAMILIES) {
        let to = target.open_cf(name, CfOptions::default()).map_err(text)?;
        let from = source.cf(&format!("data-{data}")).map_err(text)?;
        copy(&source, &from, &target, &to, dir, |bytes| {
            copied += bytes;
            tell(copied);
        })?;
    }
    let points = applied(&source)?;
    target.close().map_err(text)?;
    source.close().map_err(text)?;
    Ok(points)
}

/// How far the regions of a kvdb are that is open for reading alone.
fn applied(kv: &Db) -> Result<Vec<Point>, String> {
    use prost::Message as _;
    let local = kv.cf("local").map_err(text)?;
    let mut points = Vec::new();
    for row in kv.range(&local, &ReadOptions::default()).map_err(text)? {
        let (key, value) = row.map_err(text)?;
        if let Some(keys::Key::ApplyState(region)) = keys::Key::decode(&key) {
            let state = basalt_proto::raft_serverpb::RaftApplyState::decode(&value[..]);
            points.push(Point {
                region,
                applied: state.map_err(text)?.applied_index,
            });
        }
    }
    Ok(points)
}

/// Copies a family, table by table.
fn copy(
    source: &Db,
    from: &ColumnFamily,
    target: &Db,
    to: &ColumnFamily,
    dir: &Path,
    mut tell: impl FnMut(u64),
) -> Result<(), String> {
    let path = dir.join("restoring.sst.tmp");
    let mut writer: Option<TableWriter> = None;
    let ingest = |writer: TableWriter| {
        let table = writer.finish().map_err(text)?;
        let mut request = Ingest::new();
        request.table(to, table);
        target.ingest(request).map_err(text)?;
        std::fs::remove_file(&path).map_err(text)
    };
    for row in source.range(from, &ReadOptions::default()).map_err(text)? {
        let (key, value) = row.map_err(text)?;
        let mut table = match writer.take() {
            Some(table) => table,
            None => target.table_writer(to, &path).map_err(text)?,
        };
        table.put(&key, &value).map_err(text)?;
        tell((key.len() + value.len()) as u64);
        if table.bytes() >= TABLE_BYTES {
            ingest(table)?;
        } else {
            writer = Some(table);
        }
    }
    writer.map_or(Ok(()), ingest)
}
