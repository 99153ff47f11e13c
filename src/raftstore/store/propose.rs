//! Commands: whether they may be done here and now, and how they get into the log; reads, which do not.
//!
//! Checks come in TinyKV's order: store, leader, peer, term, epoch, keys. What fails one of them surely
//! never applies.

use std::time::Duration;

use basalt_engine::MAX_KEY_LEN;
use basalt_proto::{
    metapb::Region,
    raft_cmdpb::{
        AdminCmdType, AdminRequest, AdminResponse, CmdType, RaftCmdRequest, RaftCmdResponse,
        RaftRequestHeader, RaftResponseHeader, Request, TransferLeaderResponse,
    },
};
use basalt_raft::{
    DropReason, Error as RaftError,
    eraftpb::{ConfChange, ConfChangeType},
};
use bytes::Bytes;
use prost::Message as _;

use super::{
    Store, hand_over_to,
    peer::{Peer, Proposed, Reading},
};
use crate::{
    Callback, CommandError, Proposal, Read, Target,
    command::{self, check_key},
    faults::Fault,
};

/// Bytes of a command as it stands in the log: 9 MiB, so that a message with it stays below the 10 MiB that a
/// server takes.
pub const MAX_COMMAND_LEN: usize = 9 << 20;

impl Store {
    /// Takes a write or an admin command.
    pub(super) fn propose(&mut self, proposal: Proposal) {
        let Proposal {
            mut request,
            since,
            deadline,
            callback,
        } = proposal;
        if deadline <= self.now {
            // It never was in a log.
            return callback.fail(CommandError::DeadlineExceeded);
        }
        if let Some(error) = self.stalled() {
            return callback.fail(error);
        }
        let header = request.header.take().unwrap_or_default();
        let region_id = match header.region_id {
            0 => first_key(&request).and_then(|key| self.region_with(key)),
            id => Some(id),
        };
        let found = region_id.and_then(|region_id| self.peers.get_mut(&region_id));
        let Some(peer) = found else {
            return callback.fail(CommandError::RegionNotFound {
                region_id: header.region_id,
            });
        };
        let (store_id, faults) = (self.config.store_id, self.config.faults);
        let header = match checked(peer, store_id, header, request.admin_request.as_ref()) {
            Ok(header) => header,
            Err(error) => return callback.fail(error),
        };
        if let Err(error) = check_keys(peer.region(), &request) {
            return callback.fail(error);
        }
        request.header = Some(header);
        peer.is_dirty = true;
        if let Some(admin) = &request.admin_request {
            match admin.cmd_type() {
                AdminCmdType::TransferLeader => return transfer(peer, admin, callback),
                AdminCmdType::ChangePeer => {
                    return change_peer(peer, request, (since, deadline), callback);
                }
                AdminCmdType::CompactLog => {
                    if let Err(error) = check_truncation(peer, admin) {
                        return callback.fail(error);
                    }
                }
                AdminCmdType::Split | AdminCmdType::InvalidAdmin => {
                    let what = "this admin command is not known here".to_owned();
                    return callback.fail(CommandError::Invalid(what));
                }
            }
        } else if request.requests.is_empty() {
            let what = "a command without requests".to_owned();
            return callback.fail(CommandError::Invalid(what));
        }
        let data = command::encode(&request);
        if data.len() > MAX_COMMAND_LEN {
            let what = format!("a command of {} bytes, limit {MAX_COMMAND_LEN}", data.len());
            return callback.fail(CommandError::Invalid(what));
        }
        let proposed = peer.raw.propose(data);
        if faults.is(Fault::AnswerBeforeCommit) && request.admin_request.is_none() {
            let mut early = RaftCmdResponse::default();
            early
                .responses
                .resize(request.requests.len(), Default::default());
            return callback.tell(Ok(early));
        }
        placed(peer, proposed, (since, deadline), callback);
    }

    /// Takes a read.
    pub(super) fn read(&mut self, read: Read) {
        let Read {
            target,
            deadline,
            callback,
        } = read;
        if let Some(error) = self.stalled() {
            return callback.fail(error);
        }
        let (region_id, header) = match target {
            Target::Region(header) => (Some(header.region_id), header),
            Target::Key(key) => (self.region_with(&key), RaftRequestHeader::default()),
        };
        let found = region_id.and_then(|region_id| self.peers.get_mut(&region_id));
        let Some(peer) = found else {
            return callback.fail(CommandError::RegionNotFound {
                region_id: header.region_id,
            });
        };
        if let Err(error) = checked(peer, self.config.store_id, header, None) {
            return callback.fail(error);
        }
        if peer.reads.len() >= self.config.inbox_limit {
            // With a lease each is granted at once, and waits for what is committed to be applied.
            let what = "too many reads wait for entries to be applied".to_owned();
            return callback.fail(CommandError::Busy(what));
        }
        peer.is_dirty = true;
        self.last_context += 1;
        let context = self.last_context;
        let skips = self.config.faults.is(Fault::ReadWithoutIndex);
        peer.reads.push(Reading {
            context,
            index: skips.then_some(0),
            deadline,
            callback,
        });
        if skips {
            return;
        }
        let asked = peer
            .raw
            .read_index(Bytes::copy_from_slice(&context.to_be_bytes()));
        if asked.is_err()
            && let Some(read) = peer.reads.pop()
        {
            let what = "too many reads wait for the leader's confirmation".to_owned();
            read.callback.fail(CommandError::Busy(what));
        }
    }
}

/// The header of a command as this region's state completes it.
fn checked(
    peer: &Peer,
    store_id: u64,
    header: RaftRequestHeader,
    admin: Option<&AdminRequest>,
) -> Result<RaftRequestHeader, CommandError> {
    if let Some(asked) = header.peer.filter(|asked| asked.store_id != store_id) {
        return Err(CommandError::StoreNotMatch {
            asked: asked.store_id,
            actual: store_id,
        });
    }
    let region_id = peer.region_id();
    let Some(region) = peer.region().filter(|_| peer.leaving.is_none()) else {
        return Err(CommandError::RegionNotFound { region_id });
    };
    if !peer.leads() {
        return Err(peer.not_leader());
    }
    if header.peer.is_some_and(|asked| asked.id != peer.meta.id) {
        let what = format!(
            "the peer here is {}, not the one that is asked",
            peer.meta.id
        );
        return Err(CommandError::Invalid(what));
    }
    let term = peer.raw.raft().term();
    if header.term != 0 && term > header.term.saturating_add(1) {
        return Err(CommandError::StaleCommand);
    }
    let epoch = header.region_epoch.or(region.region_epoch);
    let header = RaftRequestHeader {
        region_id,
        peer: Some(peer.meta),
        region_epoch: epoch,
        term,
    };
    check_epoch(region, &header, admin)?;
    Ok(header)
}

/// Whether a command was made for the region as it is: data by its range, changes of members by its members.
pub(crate) fn check_epoch(
    region: &Region,
    header: &RaftRequestHeader,
    admin: Option<&AdminRequest>,
) -> Result<(), CommandError> {
    let asked = header.region_epoch.unwrap_or_default();
    let ours = region.region_epoch.unwrap_or_default();
    let (version, members) = match admin.map(AdminRequest::cmd_type) {
        None => (true, false),
        Some(AdminCmdType::ChangePeer) => (false, true),
        Some(AdminCmdType::Split | AdminCmdType::TransferLeader) => (true, true),
        Some(AdminCmdType::CompactLog | AdminCmdType::InvalidAdmin) => (false, false),
    };
    let differs =
        (version && asked.version != ours.version) || (members && asked.conf_ver != ours.conf_ver);
    if differs {
        let regions = vec![region.clone()];
        return Err(CommandError::EpochNotMatch { regions });
    }
    Ok(())
}

fn check_keys(region: Option<&Region>, request: &RaftCmdRequest) -> Result<(), CommandError> {
    let Some(region) = region else {
        return Ok(());
    };
    for request in &request.requests {
        check_request(region, request)?;
    }
    Ok(())
}

/// Whether a request is one that a store can do. Asked before it is proposed, and again where it is applied:
/// an entry that kvdb refuses would stop every replica for good.
pub(crate) fn check_request(region: &Region, request: &Request) -> Result<(), CommandError> {
    let Some(key) = key_of(request) else {
        let what = "a command that is neither a get, a put nor a delete".to_owned();
        return Err(CommandError::Invalid(what));
    };
    check_key(region, key)?;
    let range = request.delete_range.as_ref();
    let end = range.map_or(&[][..], |range| &range.end_key);
    let is_range = request.cmd_type() == CmdType::DeleteRange;
    let ends_here = region.end_key.is_empty() || (!end.is_empty() && end <= &region.end_key[..]);
    if is_range && !ends_here {
        return Err(CommandError::KeyNotInRegion {
            key: Bytes::copy_from_slice(end),
            region: Box::new(region.clone()),
        });
    }
    let longest = key.len().max(end.len());
    if longest > MAX_KEY_LEN {
        let what = format!("a key of {longest} bytes, limit {MAX_KEY_LEN}");
        return Err(CommandError::Invalid(what));
    }
    let cf = crate::apply::family_of(request);
    if !cf.is_empty() && !crate::DATA_FAMILIES.contains(&cf) {
        return Err(CommandError::Invalid(format!("no column family {cf:?}")));
    }
    Ok(())
}

/// The key that a request is about; the first one of a range.
pub(crate) fn key_of(request: &Request) -> Option<&[u8]> {
    match request.cmd_type() {
        CmdType::Get => request.get.as_ref().map(|get| &get.key[..]),
        CmdType::Put => request.put.as_ref().map(|put| &put.key[..]),
        CmdType::Delete => request.delete.as_ref().map(|delete| &delete.key[..]),
        CmdType::DeleteRange => {
            let range = request.delete_range.as_ref();
            range.map(|range| &range.start_key[..])
        }
        CmdType::Snap | CmdType::Invalid => None,
    }
}

fn first_key(request: &RaftCmdRequest) -> Option<&[u8]> {
    match request.requests.first() {
        Some(first) => key_of(first),
        // An admin command without a region is for the first one.
        None => request.admin_request.as_ref().map(|_| &[][..]),
    }
}

/// A proposal is in the log, or surely is not.
fn placed(
    peer: &mut Peer,
    proposed: basalt_raft::Result<()>,
    (since, deadline): (Duration, Duration),
    callback: Callback<RaftCmdResponse>,
) {
    match proposed {
        Ok(()) => {
            let index = peer.raw.raft().log().last_index();
            let term = peer.raw.raft().term();
            peer.remember(Proposed {
                index,
                term,
                since,
                deadline,
                callback,
            });
        }
        Err(RaftError::ProposalDropped(DropReason::QuotaExceeded)) => {
            let what = "too many bytes are proposed and not applied yet".to_owned();
            callback.fail(CommandError::Busy(what));
        }
        Err(RaftError::ProposalDropped(_)) => callback.fail(peer.not_leader()),
        Err(error) => callback.fail(CommandError::Invalid(error.to_string())),
    }
}

/// A truncation becomes the start of every replica's log: index and term must be those of an entry that is
/// applied.
fn check_truncation(peer: &Peer, admin: &AdminRequest) -> Result<(), CommandError> {
    let compact = admin.compact_log.unwrap_or_default();
    let storage = peer.raw.storage();
    let known = storage.truncation_at(compact.compact_index);
    if known.is_ok_and(|known| known.term == compact.compact_term) {
        return Ok(());
    }
    let what = "a truncation at an entry that is not applied here, or not of this term";
    Err(CommandError::Invalid(what.to_owned()))
}

/// Hands leadership over; it is answered at once, whatever becomes of it.
fn transfer(peer: &mut Peer, admin: &AdminRequest, callback: Callback<RaftCmdResponse>) {
    let to = admin
        .transfer_leader
        .as_ref()
        .and_then(|transfer| transfer.peer);
    let Some(to) = to else {
        let what = "a transfer to nobody".to_owned();
        return callback.fail(CommandError::Invalid(what));
    };
    let is_voter = peer.raw.raft().configuration().voters.contains(to.id);
    if !is_voter {
        let what = format!("peer {} does not vote here", to.id);
        return callback.fail(CommandError::Invalid(what));
    }
    match peer.raw.transfer_leader(to.id) {
        Ok(()) => callback.tell(Ok(RaftCmdResponse {
            header: Some(RaftResponseHeader {
                current_term: peer.raw.raft().term(),
                ..RaftResponseHeader::default()
            }),
            admin_response: Some(AdminResponse {
                cmd_type: AdminCmdType::TransferLeader.into(),
                transfer_leader: Some(TransferLeaderResponse {}),
                ..AdminResponse::default()
            }),
            ..RaftCmdResponse::default()
        })),
        Err(error) => callback.fail(CommandError::Invalid(error.to_string())),
    }
}

/// Proposes one peer more or less.
fn change_peer(
    peer: &mut Peer,
    request: RaftCmdRequest,
    times: (Duration, Duration),
    callback: Callback<RaftCmdResponse>,
) {
    let admin = request.admin_request.as_ref();
    let change = admin.and_then(|admin| admin.change_peer.as_ref());
    let Some((kind, target)) = change.and_then(|change| Some((change.change_type(), change.peer?)))
    else {
        let what = "a change of no peer".to_owned();
        return callback.fail(CommandError::Invalid(what));
    };
    if target.id == 0 || target.store_id == 0 {
        let what = "a peer needs an id and a store".to_owned();
        return callback.fail(CommandError::Invalid(what));
    }
    if peer.raw.raft().log().applied() < peer.raw.raft().pending_change_at() {
        let what = "another change of the members is not applied yet".to_owned();
        return callback.fail(CommandError::Busy(what));
    }
    let members = peer.region().map(|region| region.peers.clone());
    let members = members.unwrap_or_default();
    let is_removal = kind == ConfChangeType::RemoveNode;
    let mut others = members.iter().filter(|member| member.id != target.id);
    if !is_removal && others.any(|member| member.store_id == target.store_id) {
        let what = format!("store {} has a peer of the region already", target.store_id);
        return callback.fail(CommandError::Invalid(what));
    }
    let is_new = members.iter().all(|member| member.id != target.id);
    if !is_removal && is_new && members.iter().any(|member| member.id > target.id) {
        // A store that has had a later peer would ignore it for ever, and its vote would be missing.
        let what = format!(
            "a new peer's id must be above all others', and {} is not",
            target.id
        );
        return callback.fail(CommandError::Invalid(what));
    }
    if is_removal && target.id == peer.meta.id && members.len() > 1 {
        // Whoever leads on does not need to learn from a dead peer that it is gone.
        if !hand_over_to(peer) {
            // Whoever asks would be sent in circles for ever.
            let what = format!(
                "peer {} is the only one that votes in region {}, so nobody could lead after it; make another one a \
                 voter first",
                target.id,
                peer.region_id()
            );
            return callback.fail(CommandError::Invalid(what));
        }
        return callback.fail(peer.not_leader());
    }
    let data = Bytes::from(request.encode_to_vec());
    let change = ConfChange {
        change_type: kind.into(),
        node_id: target.id,
        context: data,
    };
    let proposed = peer.raw.propose_conf_change(change);
    placed(peer, proposed, times, callback);
}
