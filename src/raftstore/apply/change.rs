//! Changes of a region's members, as entries: what becomes of the region, and what the node is told.

use basalt_proto::{
    metapb::{self, Region},
    raft_cmdpb::{
        AdminCmdType, AdminResponse, ChangePeerRequest, ChangePeerResponse, RaftCmdRequest,
        RaftCmdResponse, RaftResponseHeader,
    },
};
use basalt_raft::{
    MembershipChange,
    confchange::next_conf_state,
    eraftpb::{ConfState, Entry},
    tracker::Configuration,
};

use super::{Applying, Machines, decode, refused_change};
use crate::{CommandError, Error, Membership, Result, states, store::check_epoch};

impl Machines {
    /// What a change says to the node, and to whoever asked for it. One that does not fit changes nothing,
    /// here as on every other replica.
    pub(super) fn apply_change(
        &mut self,
        region_id: u64,
        entry: &Entry,
    ) -> Result<(MembershipChange, Result<RaftCmdResponse, CommandError>)> {
        let change = MembershipChange::decode(entry.entry_type(), entry.data.clone());
        let change = change.map_err(|error| {
            let what = format!("the entry at index {}: {error}", entry.index);
            Error::corruption(region_id, what)
        })?;
        let context = match &change {
            MembershipChange::V1(change) => change.context.clone(),
            MembershipChange::V2(change) => change.context.clone(),
        };
        // The end of a joint membership has none.
        let request = decode(region_id, entry.index, context)?;
        let Some(applying) = self.regions.get_mut(&region_id) else {
            return Err(Error::misuse(region_id, "no such region"));
        };
        let next = match next_membership(applying, &change, &request) {
            Ok(next) => next,
            Err(error) => return Ok((refused_change(), Err(error))),
        };
        if next != applying.membership {
            applying.membership = next;
            let Membership { region, conf_state } = &applying.membership;
            let state = states::normal(region, conf_state, applying.peer_id);
            states::put_region_state(&self.engines, &mut self.batch, region_id, &state);
        }
        let response = RaftCmdResponse {
            header: Some(RaftResponseHeader {
                current_term: entry.term,
                ..RaftResponseHeader::default()
            }),
            admin_response: Some(AdminResponse {
                cmd_type: AdminCmdType::ChangePeer.into(),
                change_peer: Some(ChangePeerResponse {
                    region: Some(applying.membership.region.clone()),
                }),
                ..AdminResponse::default()
            }),
            ..RaftCmdResponse::default()
        };
        Ok((change, Ok(response)))
    }
}

fn next_membership(
    applying: &Applying,
    change: &MembershipChange,
    request: &RaftCmdRequest,
) -> Result<Membership, CommandError> {
    let Membership { region, conf_state } = &applying.membership;
    if let Some(header) = &request.header {
        check_epoch(region, header, request.admin_request.as_ref())?;
    }
    let next = next_conf_state(conf_state, change);
    let next = next.map_err(|error| CommandError::Invalid(error.to_string()))?;
    let admin = request.admin_request.as_ref();
    let asked = admin.and_then(|admin| admin.change_peer.as_ref());
    let peers = members(region, &next, asked)?;
    let mut region = region.clone();
    if next != *conf_state || peers != region.peers {
        let epoch = region.region_epoch.get_or_insert_default();
        epoch.conf_ver += 1;
        region.peers = peers;
    }
    Ok(Membership {
        region,
        conf_state: next,
    })
}

/// The peers of a region whose members are `state`'s: those it had, and the one that was asked for.
fn members(
    region: &Region,
    state: &ConfState,
    asked: Option<&ChangePeerRequest>,
) -> Result<Vec<metapb::Peer>, CommandError> {
    let members = Configuration::members_of(state);
    let known = region.peers.iter().copied();
    let mut peers: Vec<_> = known.filter(|peer| members.contains(peer.id)).collect();
    for id in members.ids() {
        if peers.iter().any(|peer| peer.id == *id) {
            continue;
        }
        let new = asked
            .and_then(|asked| asked.peer)
            .filter(|peer| peer.id == *id);
        let what = || CommandError::Invalid(format!("nobody says where peer {id} lives"));
        peers.push(new.ok_or_else(what)?);
    }
    Ok(peers)
}
