//! Random messages: some as a correct peer would send them, most of them not.

use basalt_raft::{
    LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MAX_INDEX, MAX_TERM, MembershipChange, Role,
    eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeV2, ConfState, Entry, EntryType, Message,
        MessageType, Snapshot, SnapshotMetadata,
    },
};
use basalt_testkit::Rng;
use bytes::Bytes;

/// The node that a message is made for.
pub(crate) struct Aim {
    pub(crate) id: u64,
    pub(crate) role: Role,
    pub(crate) leader: u64,
    /// Whether it believes storage threads, which nobody else may speak for then.
    pub(crate) has_threads: bool,
    pub(crate) term: u64,
    pub(crate) first: u64,
    pub(crate) committed: u64,
    pub(crate) last: u64,
    pub(crate) last_term: u64,
}

fn number(rng: &mut Rng, bound: u64) -> i32 {
    i32::try_from(rng.below(bound)).expect("a small one")
}

fn term(rng: &mut Rng, aim: &Aim) -> u64 {
    match rng.below(60) {
        0 if rng.one_in(10) => MAX_TERM,
        0 => *rng.pick(&[0, MAX_TERM + 1, u64::MAX - 1, u64::MAX]),
        1 => aim.term + rng.below(3),
        2..6 => aim.term.saturating_sub(1),
        _ => aim.term,
    }
}

fn index(rng: &mut Rng, aim: &Aim) -> u64 {
    let near = [0, aim.first, aim.committed, aim.last];
    match rng.below(40) {
        0 if rng.one_in(10) => MAX_INDEX,
        0 => *rng.pick(&[MAX_INDEX + 1, u64::MAX - 1, u64::MAX]),
        1..4 => rng.below(aim.last + 10),
        4..16 => aim.last,
        16..24 => aim.committed,
        _ => (*rng.pick(&near) + rng.below(4)).saturating_sub(rng.below(4)),
    }
}

fn peer(rng: &mut Rng, aim: &Aim) -> u64 {
    match rng.below(30) {
        0 => aim.id,
        1 => 0,
        2 if !aim.has_threads => *rng.pick(&[LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD]),
        _ => rng.range(1..6),
    }
}

pub(crate) fn change(rng: &mut Rng) -> MembershipChange {
    // Kinds that nobody knows, and ids that are no node's, among them.
    let one = |rng: &mut Rng| ConfChangeSingle {
        change_type: number(rng, 5),
        node_id: *rng.pick(&[0, 1, 2, 2, 3, 3, 4, 4, 5, 5, LOCAL_APPEND_THREAD]),
    };
    if rng.one_in(2) {
        let ConfChangeSingle {
            change_type,
            node_id,
        } = one(rng);
        return MembershipChange::V1(ConfChange {
            change_type,
            node_id,
            context: Bytes::new(),
        });
    }
    let count = rng.below(4);
    MembershipChange::V2(ConfChangeV2 {
        transition: number(rng, 4),
        changes: (0..count).map(|_| one(rng)).collect(),
        context: Bytes::new(),
    })
}

pub(crate) fn entry(rng: &mut Rng) -> Entry {
    let mut entry = Entry {
        data: vec![b'x'; rng.len(0..60)].into(),
        ..Entry::default()
    };
    match rng.below(8) {
        0 => {
            entry.entry_type = number(rng, 5);
            entry.data = Bytes::from_static(b"junk");
        }
        1 | 2 => {
            let (kind, data) = change(rng).encode();
            (entry.entry_type, entry.data) = (kind.into(), data);
        }
        _ => entry.entry_type = EntryType::EntryNormal.into(),
    }
    entry
}

/// Entries behind (`index`, `term`), mostly in order.
fn entries(rng: &mut Rng, index: u64, term: u64, message_term: u64) -> Vec<Entry> {
    let count = rng.below(5);
    let mut of = term;
    let mut entries = Vec::new();
    for place in 1..=count {
        if rng.one_in(3) {
            of = message_term.max(of);
        }
        let mut entry = entry(rng);
        entry.index = index.wrapping_add(place);
        entry.term = of;
        match rng.below(60) {
            0 => entry.index = entry.index.wrapping_add(1),
            1 => entry.term = rng.below(message_term.saturating_add(2)),
            _ => {}
        }
        entries.push(entry);
    }
    entries
}

fn ids(rng: &mut Rng, one_in: u64) -> Vec<u64> {
    (1..6).filter(|_| rng.one_in(one_in)).collect()
}

fn snapshot(rng: &mut Rng, aim: &Aim, message_term: u64) -> Snapshot {
    let conf_state = match rng.below(8) {
        0 => None,
        1 => Some(ConfState {
            nodes: ids(rng, 2),
            learners: ids(rng, 3),
            voters_outgoing: ids(rng, 3),
            learners_next: ids(rng, 4),
            auto_leave: rng.one_in(2),
        }),
        2 => Some(ConfState {
            nodes: vec![1, 2, 4],
            voters_outgoing: vec![1, 2, 3],
            auto_leave: true,
            ..ConfState::default()
        }),
        _ => Some(ConfState {
            nodes: vec![1, 2, 3],
            learners: vec![4],
            ..ConfState::default()
        }),
    };
    let metadata = SnapshotMetadata {
        conf_state,
        index: if rng.one_in(2) {
            aim.last + rng.below(5)
        } else {
            index(rng, aim)
        },
        term: if rng.one_in(8) {
            rng.below(message_term.saturating_add(2))
        } else {
            message_term
        },
    };
    Snapshot {
        data: Bytes::from_static(b"state"),
        metadata: (!rng.one_in(20)).then_some(metadata),
    }
}

/// What a correct peer might send now.
pub(crate) fn honest(rng: &mut Rng, aim: &Aim) -> Message {
    use MessageType as M;
    let mut m = Message {
        from: rng.range(2..4),
        to: aim.id,
        term: aim.term.max(1),
        ..Message::default()
    };
    let kind = match aim.role {
        Role::PreCandidate => {
            m.term = aim.term + 1;
            M::MsgPreVoteResp
        }
        Role::Candidate => M::MsgRequestVoteResponse,
        Role::Leader if rng.one_in(4) => {
            m.context = Bytes::copy_from_slice(&rng.below(4).to_be_bytes());
            M::MsgHeartbeatResponse
        }
        Role::Leader => {
            m.index = rng.range(aim.committed..aim.last + 1);
            M::MsgAppendResponse
        }
        Role::Follower if rng.one_in(30) => {
            m.from = if aim.leader == 0 { m.from } else { aim.leader };
            let state = ConfState {
                nodes: vec![1, 2, 3],
                learners: vec![4],
                ..ConfState::default()
            };
            let metadata = SnapshotMetadata {
                conf_state: Some(state),
                index: aim.last + 1 + rng.below(4),
                term: m.term,
            };
            m.snapshot = Some(Box::new(Snapshot {
                data: Bytes::from_static(b"state"),
                metadata: Some(metadata),
            }));
            M::MsgSnapshot
        }
        Role::Follower => {
            m.from = if aim.leader == 0 { m.from } else { aim.leader };
            (m.index, m.log_term) = (aim.last, aim.last_term);
            m.entries = entries(rng, m.index, m.log_term, m.term);
            m.commit = rng.range(aim.committed..aim.last + 4);
            M::MsgAppend
        }
    };
    m.msg_type = kind.into();
    m
}

/// One entry of the leader's term behind everything that the node has.
pub(crate) fn append(aim: &Aim) -> Message {
    Message {
        msg_type: MessageType::MsgAppend.into(),
        from: aim.leader,
        to: aim.id,
        term: aim.term,
        index: aim.last,
        log_term: aim.last_term,
        commit: aim.committed,
        entries: vec![Entry {
            index: aim.last + 1,
            term: aim.term,
            ..Entry::default()
        }],
        ..Message::default()
    }
}

/// Anything at all.
pub(crate) fn message(rng: &mut Rng, aim: &Aim) -> Message {
    use MessageType as M;
    let often = [
        M::MsgAppend,
        M::MsgAppend,
        M::MsgAppendResponse,
        M::MsgAppendResponse,
        M::MsgRequestVote,
        M::MsgRequestVoteResponse,
        M::MsgRequestVoteResponse,
        M::MsgPreVoteResp,
        M::MsgPreVoteResp,
        M::MsgHeartbeat,
        M::MsgHeartbeatResponse,
        M::MsgSnapshot,
    ];
    let kind = if rng.one_in(3) {
        number(rng, 28)
    } else {
        (*rng.pick(&often)).into()
    };
    let mut m = Message {
        msg_type: kind,
        from: peer(rng, aim),
        to: if rng.one_in(40) { rng.below(4) } else { aim.id },
        term: term(rng, aim),
        index: index(rng, aim),
        commit: index(rng, aim),
        reject: rng.one_in(6),
        reject_hint: index(rng, aim),
        log_term: if rng.one_in(3) {
            term(rng, aim)
        } else {
            aim.last_term
        },
        session: *rng.pick(&[0, 0, 1, 1, 2, 3]),
        last_index: *rng.pick(&[0, aim.last, aim.last, aim.last + 1]),
        vote: rng.below(4),
        known_commit: index(rng, aim),
        known_commit_term: term(rng, aim),
        ..Message::default()
    };
    m.context = match rng.below(8) {
        0 => Bytes::from_static(b"CampaignTransfer"),
        1 => Bytes::from_static(b"odd"),
        2..5 => Bytes::copy_from_slice(&rng.below(6).to_be_bytes()),
        _ => Bytes::new(),
    };
    match M::try_from(kind) {
        Ok(M::MsgAppend) => {
            m.entries = entries(rng, m.index, m.log_term, m.term);
            // An honest leader's, where the node can follow.
            if rng.one_in(2) {
                m.log_term = if m.index == aim.last {
                    aim.last_term
                } else {
                    m.log_term
                };
            }
        }
        Ok(M::MsgSnapshot) => {
            m.snapshot = (!rng.one_in(20)).then(|| Box::new(snapshot(rng, aim, m.term)));
        }
        Ok(M::MsgPropose) => m.entries = (0..rng.below(4)).map(|_| entry(rng)).collect(),
        Ok(M::MsgReadIndex | M::MsgReadIndexResp) => {
            m.entries = (0..*rng.pick(&[1, 1, 1, 0, 2]))
                .map(|_| entry(rng))
                .collect();
        }
        Ok(M::MsgStorageAppendResp) if rng.one_in(4) => {
            m.snapshot = Some(Box::new(snapshot(rng, aim, m.term)));
        }
        Ok(M::MsgStorageApplyResp) => m.entries = entries(rng, m.index, m.log_term, m.term),
        Ok(M::MsgRequestVote | M::MsgPreVote) if rng.one_in(4) => m.term = aim.term + 1,
        Ok(M::MsgPreVoteResp) if !m.reject => m.term = aim.term + 1,
        _ => {}
    }
    m
}
