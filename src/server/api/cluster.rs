//! The whole cluster on one page: what its stores say of themselves and of the regions, put together.
//!
//! Promises: of a region, what its leader says goes; of a peer, how far it has applied is its own word and how far it lags
//! its leader's; who gave no answer is shown with the reason.

use std::collections::BTreeMap;

use basalt_proto::basaltpb::{RegionStatus, State, StatusResponse};
use serde::Serialize;

use crate::{
    replicated::Seen,
    state::{hex, state_word},
};

/// Stores and regions.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Survey {
    pub(super) stores: Vec<StoreView>,
    pub(super) regions: Vec<RegionView>,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct StoreView {
    pub(super) id: u64,
    pub(super) address: String,
    /// It is the one that answers here.
    pub(super) this: bool,
    pub(super) removed: bool,
    /// It has said how it fares.
    pub(super) reachable: bool,
    /// Why it has not; null where it has, or was not asked.
    pub(super) why: Option<String>,
    pub(super) version: Option<String>,
    pub(super) state: Option<&'static str>,
    pub(super) reason: Option<String>,
    pub(super) uptime_seconds: Option<u64>,
    /// Regions with a peer there, and those it leads.
    pub(super) regions: Option<usize>,
    pub(super) leads: Option<usize>,
}

/// One region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct RegionView {
    pub(super) id: u64,
    /// Hex digits; empty: from the first key on.
    pub(super) start_key: String,
    /// Hex digits; empty: to the last key.
    pub(super) end_key: String,
    /// The store that leads it; null where nobody says that it does.
    pub(super) leader: Option<u64>,
    pub(super) term: u64,
    pub(super) committed: u64,
    pub(super) last_index: u64,
    pub(super) log_bytes: u64,
    pub(super) peers: Vec<PeerView>,
    /// What is not as it should be.
    pub(super) reasons: Vec<String>,
}

/// One copy of a region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct PeerView {
    pub(super) id: u64,
    pub(super) store_id: u64,
    /// `leader`, `follower`, `learner`, ...; null where neither it nor its leader has said.
    pub(super) role: Option<String>,
    pub(super) learner: bool,
    /// It serves, or its leader hears of it.
    pub(super) alive: bool,
    pub(super) applied: Option<u64>,
    /// The last entry that its leader knows it to have.
    pub(super) matched: Option<u64>,
    /// Entries that the leader has and it is not known to have.
    pub(super) lag: Option<u64>,
    /// How it is sent to: `replicate`, `probe`, `snapshot`.
    pub(super) progress: Option<String>,
}

fn serves(status: &StatusResponse) -> bool {
    !matches!(status.state(), State::Fenced | State::Starting)
}

impl Survey {
    /// What this store and the others (with this one among them, unasked) say.
    pub(super) fn of(own: &StatusResponse, seen: &[Seen]) -> Self {
        let others = seen.iter().filter_map(|one| match &one.answer {
            Some(Ok(status)) => Some((one.store.store_id, status)),
            _ => None,
        });
        let reports: Vec<(u64, &StatusResponse)> =
            [(own.store_id, own)].into_iter().chain(others).collect();
        let stores = seen.iter().map(|one| {
            let id = one.store.store_id;
            let this = id == own.store_id;
            let status = reports
                .iter()
                .find(|(of, _)| *of == id)
                .map(|(_, status)| *status);
            let failed = one.answer.as_ref().and_then(|answer| answer.as_ref().err());
            let leads = |status: &StatusResponse| {
                let regions = status.regions.iter();
                regions.filter(|region| region.role == "leader").count()
            };
            let reason = status.map(|status| status.reason.clone());
            StoreView {
                id,
                address: one.store.address.clone(),
                this,
                removed: one.store.removed,
                reachable: status.is_some(),
                why: failed.cloned(),
                version: status.map(|status| status.version.clone()),
                state: status.map(|status| state_word(status.state())),
                reason: reason.filter(|reason| !reason.is_empty()),
                uptime_seconds: status.map(|status| status.uptime_seconds),
                regions: status.map(|status| status.regions.len()),
                leads: status.map(leads),
            }
        });
        let mut regions: BTreeMap<u64, Vec<(u64, &RegionStatus)>> = BTreeMap::new();
        for (store, status) in reports.iter().filter(|(_, status)| serves(status)) {
            for report in &status.regions {
                let id = report.region.as_ref().map_or(0, |region| region.id);
                regions.entry(id).or_default().push((*store, report));
            }
        }
        let regions = regions
            .into_iter()
            .map(|(id, reports)| region(id, &reports));
        Self {
            stores: stores.collect(),
            regions: regions.collect(),
        }
    }
}

/// A region by what the stores say of it, of whom there is one at least.
fn region(id: u64, reports: &[(u64, &RegionStatus)]) -> RegionView {
    // One that was cut off may still believe that it leads; it does so in an older term.
    let leader = reports.iter().filter(|(_, report)| report.role == "leader");
    let leader = leader.max_by_key(|(_, report)| report.term);
    let newest = reports.iter().max_by_key(|(_, report)| report.term);
    let (_, best) = leader.or(newest).expect("there is a report");
    let borders = best.region.clone().unwrap_or_default();
    let peers = borders.peers.iter().map(|peer| {
        let own = reports.iter().find(|(store, _)| *store == peer.store_id);
        let own = own.map(|(_, report)| *report);
        let is_leader = leader.is_some_and(|(store, _)| *store == peer.store_id);
        let followed = leader.and_then(|(_, report)| {
            let mut followers = report.followers.iter();
            followers.find(|one| one.peer.is_some_and(|of| of.id == peer.id))
        });
        let matched = match is_leader {
            true => Some(best.last_index),
            false => followed.map(|one| one.matched),
        };
        let learner = followed.map_or_else(
            || own.is_some_and(|own| own.is_learner),
            |one| one.is_learner,
        );
        let role = match learner {
            true => Some("learner".to_owned()),
            false => own
                .map(|own| own.role.clone())
                .or_else(|| followed.map(|_| "follower".to_owned())),
        };
        PeerView {
            id: peer.id,
            store_id: peer.store_id,
            role,
            learner,
            alive: own.is_some() || followed.is_some_and(|one| one.active),
            applied: own.map(|own| own.applied),
            matched,
            lag: matched.map(|matched| best.last_index.saturating_sub(matched)),
            progress: followed.map(|one| one.state.clone()),
        }
    });
    let mut reasons: Vec<String> = Vec::new();
    for (store, report) in reports {
        reasons.extend(
            report
                .reasons
                .iter()
                .map(|what| format!("store {store}: {what}")),
        );
    }
    RegionView {
        id,
        start_key: hex(&borders.start_key),
        end_key: hex(&borders.end_key),
        leader: leader.map(|(store, _)| *store),
        term: best.term,
        committed: best.committed,
        last_index: best.last_index,
        log_bytes: best.log_bytes,
        peers: peers.collect(),
        reasons,
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::{
        basaltpb::{FollowerStatus, StoreInfo},
        metapb::{Peer, Region},
    };

    use super::*;

    fn peer(id: u64) -> Peer {
        Peer {
            id: 10 + id,
            store_id: id,
        }
    }

    fn report(store: u64, role: &str, term: u64, applied: u64) -> StatusResponse {
        let region = Region {
            id: 1,
            peers: (1..=3).map(peer).collect(),
            ..Region::default()
        };
        let follower = |id: u64, matched: u64, active: bool| FollowerStatus {
            peer: Some(peer(id)),
            matched,
            state: "replicate".to_owned(),
            active,
            is_learner: false,
        };
        let followers = match role {
            "leader" => vec![follower(1, 98, true), follower(3, 40, false)],
            _ => Vec::new(),
        };
        let mut status = StatusResponse {
            store_id: store,
            regions: vec![RegionStatus {
                region: Some(region),
                peer: Some(peer(store)),
                role: role.to_owned(),
                term,
                applied,
                last_index: 100,
                followers,
                ..RegionStatus::default()
            }],
            ..StatusResponse::default()
        };
        status.set_state(State::Serving);
        status
    }

    fn seen(id: u64, answer: Option<Result<StatusResponse, String>>) -> Seen {
        Seen {
            store: StoreInfo {
                store_id: id,
                ..StoreInfo::default()
            },
            answer,
        }
    }

    #[test]
    fn the_leader_of_the_newest_term_says_who_lags_and_each_peer_what_it_has_applied() {
        let own = report(1, "follower", 7, 97);
        let survey = Survey::of(
            &own,
            &[
                seen(1, None),
                seen(2, Some(Ok(report(2, "leader", 7, 100)))),
                seen(3, Some(Err("no answer".to_owned()))),
            ],
        );
        let region = &survey.regions[0];
        assert_eq!((region.leader, region.term), (Some(2), 7));
        let peers: Vec<_> = region
            .peers
            .iter()
            .map(|one| (one.store_id, one.alive, one.applied, one.lag))
            .collect();
        assert_eq!(
            peers,
            [
                (1, true, Some(97), Some(2)),
                (2, true, Some(100), Some(0)),
                (3, false, None, Some(60))
            ]
        );
        let reachable: Vec<_> = survey.stores.iter().map(|one| one.reachable).collect();
        assert_eq!(reachable, [true, true, false]);
        assert_eq!(survey.stores[2].why.as_deref(), Some("no answer"));
        assert_eq!(survey.stores[1].leads, Some(1));
    }

    #[test]
    fn a_leader_of_an_older_term_is_none_and_without_any_there_is_none() {
        let own = report(1, "leader", 6, 97);
        let newer = seen(2, Some(Ok(report(2, "leader", 7, 100))));
        let survey = Survey::of(&own, &[seen(1, None), newer]);
        assert_eq!(survey.regions[0].leader, Some(2));
        let own = report(1, "candidate", 8, 97);
        let survey = Survey::of(&own, &[seen(1, None), seen(2, None), seen(3, None)]);
        assert_eq!(survey.regions[0].leader, None);
        let alive: Vec<_> = survey.regions[0]
            .peers
            .iter()
            .map(|one| one.alive)
            .collect();
        assert_eq!(alive, [true, false, false]);
    }
}
