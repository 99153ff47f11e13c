//! What Basalt adds to TinyKV's Raft messages, and that neither side minds: bytes of TinyKV decode
//! here with every extension at its default, and ours decode there with every extension skipped.
//!
//! TinyKV's side is a view written by hand with the fields that it has; `FORMAT.md` says what the
//! extensions mean, with examples that are run.

use basalt_proto::eraftpb;
use prost::Message;
use prost::bytes::Bytes;

use crate::messages::hex;

/// The facts of the schema that TinyKV does not have.
pub(crate) const EXTENSIONS: [&str; 54] = [
    "enum eraftpb.ConfChangeTransition",
    "field eraftpb.ConfChangeSingle 1 change_type eraftpb.ConfChangeType singular",
    "field eraftpb.ConfChangeSingle 2 node_id uint64 singular",
    "field eraftpb.ConfChangeV2 1 transition eraftpb.ConfChangeTransition singular",
    "field eraftpb.ConfChangeV2 2 changes eraftpb.ConfChangeSingle repeated",
    "field eraftpb.ConfChangeV2 3 context bytes singular",
    "field eraftpb.ConfState 2 learners uint64 repeated",
    "field eraftpb.ConfState 3 voters_outgoing uint64 repeated",
    "field eraftpb.ConfState 4 learners_next uint64 repeated",
    "field eraftpb.ConfState 5 auto_leave bool singular",
    "field eraftpb.Message 11 reject_hint uint64 singular",
    "field eraftpb.Message 12 context bytes singular",
    "field eraftpb.Message 13 vote uint64 singular",
    "field eraftpb.Message 14 responses eraftpb.Message repeated",
    "field eraftpb.Message 15 session uint64 singular",
    "field eraftpb.Message 16 last_index uint64 singular",
    "field eraftpb.Message 17 known_commit uint64 singular",
    "field eraftpb.Message 18 known_commit_term uint64 singular",
    "field eraftpb.Message 19 needs_no_answer bool singular",
    "field raft_cmdpb.DeleteRangeRequest 1 cf string singular",
    "field raft_cmdpb.DeleteRangeRequest 2 start_key bytes singular",
    "field raft_cmdpb.DeleteRangeRequest 3 end_key bytes singular",
    "field raft_cmdpb.Request 20 delete_range raft_cmdpb.DeleteRangeRequest singular",
    "field raft_cmdpb.Response 20 delete_range raft_cmdpb.DeleteRangeResponse singular",
    "field raft_serverpb.RaftLocalState 4 peer_id uint64 singular",
    "field raft_serverpb.RaftMessage 20 members metapb.Peer repeated",
    "field raft_serverpb.RegionLocalState 3 peer_id uint64 singular",
    "field raft_serverpb.RegionLocalState 4 conf_state eraftpb.ConfState singular",
    "field raft_serverpb.SnapshotIntent 1 peer_id uint64 singular",
    "field raft_serverpb.SnapshotIntent 2 snapshot eraftpb.Snapshot singular",
    "message eraftpb.ConfChangeSingle",
    "message eraftpb.ConfChangeV2",
    "message raft_cmdpb.DeleteRangeRequest",
    "message raft_cmdpb.DeleteRangeResponse",
    "message raft_serverpb.SnapshotIntent",
    "value eraftpb.ConfChangeTransition 0 TransitionAuto",
    "value eraftpb.ConfChangeTransition 1 TransitionJointImplicit",
    "value eraftpb.ConfChangeTransition 2 TransitionJointExplicit",
    "value eraftpb.ConfChangeType 2 UpdateNode",
    "value eraftpb.ConfChangeType 3 AddLearnerNode",
    "value eraftpb.EntryType 2 EntryConfChangeV2",
    "value eraftpb.MessageType 15 MsgReadIndex",
    "value eraftpb.MessageType 16 MsgReadIndexResp",
    "value eraftpb.MessageType 17 MsgPreVote",
    "value eraftpb.MessageType 18 MsgPreVoteResp",
    "value eraftpb.MessageType 19 MsgStorageAppend",
    "value eraftpb.MessageType 20 MsgStorageAppendResp",
    "value eraftpb.MessageType 21 MsgStorageApply",
    "value eraftpb.MessageType 22 MsgStorageApplyResp",
    "value eraftpb.MessageType 23 MsgForgetLeader",
    "value eraftpb.MessageType 24 MsgUnreachable",
    "value eraftpb.MessageType 25 MsgSnapStatus",
    "value eraftpb.MessageType 26 MsgCheckQuorum",
    "value raft_cmdpb.CmdType 20 DeleteRange",
];

/// The Raft messages as TinyKV has them. Enums are plain numbers: their bytes are the same, and an
/// unknown one is kept.
mod tinykv {
    use prost::bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Entry {
        #[prost(int32, tag = "1")]
        pub(crate) entry_type: i32,
        #[prost(uint64, tag = "2")]
        pub(crate) term: u64,
        #[prost(uint64, tag = "3")]
        pub(crate) index: u64,
        #[prost(bytes = "bytes", tag = "4")]
        pub(crate) data: Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct ConfState {
        #[prost(uint64, repeated, tag = "1")]
        pub(crate) nodes: Vec<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct SnapshotMetadata {
        #[prost(message, optional, tag = "1")]
        pub(crate) conf_state: Option<ConfState>,
        #[prost(uint64, tag = "2")]
        pub(crate) index: u64,
        #[prost(uint64, tag = "3")]
        pub(crate) term: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Snapshot {
        #[prost(bytes = "bytes", tag = "1")]
        pub(crate) data: Bytes,
        #[prost(message, optional, tag = "2")]
        pub(crate) metadata: Option<SnapshotMetadata>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Message {
        #[prost(int32, tag = "1")]
        pub(crate) msg_type: i32,
        #[prost(uint64, tag = "2")]
        pub(crate) to: u64,
        #[prost(uint64, tag = "3")]
        pub(crate) from: u64,
        #[prost(uint64, tag = "4")]
        pub(crate) term: u64,
        #[prost(uint64, tag = "5")]
        pub(crate) log_term: u64,
        #[prost(uint64, tag = "6")]
        pub(crate) index: u64,
        #[prost(message, repeated, tag = "7")]
        pub(crate) entries: Vec<Entry>,
        #[prost(uint64, tag = "8")]
        pub(crate) commit: u64,
        #[prost(message, optional, tag = "9")]
        pub(crate) snapshot: Option<Snapshot>,
        #[prost(bool, tag = "10")]
        pub(crate) reject: bool,
    }
}

/// What TinyKV sees of a message.
fn seen_by_tinykv(message: &eraftpb::Message) -> tinykv::Message {
    let entry = |entry: &eraftpb::Entry| tinykv::Entry {
        entry_type: entry.entry_type,
        term: entry.term,
        index: entry.index,
        data: entry.data.clone(),
    };
    let metadata = |metadata: &eraftpb::SnapshotMetadata| tinykv::SnapshotMetadata {
        conf_state: metadata
            .conf_state
            .as_ref()
            .map(|membership| tinykv::ConfState {
                nodes: membership.nodes.clone(),
            }),
        index: metadata.index,
        term: metadata.term,
    };
    tinykv::Message {
        msg_type: message.msg_type,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        entries: message.entries.iter().map(entry).collect(),
        commit: message.commit,
        snapshot: message.snapshot.as_ref().map(|snapshot| tinykv::Snapshot {
            data: snapshot.data.clone(),
            metadata: snapshot.metadata.as_ref().map(metadata),
        }),
        reject: message.reject,
    }
}

/// A message with every field that TinyKV has, and no extension.
fn plain() -> eraftpb::Message {
    let entry = |entry_type, index, data: &'static str| eraftpb::Entry {
        entry_type,
        term: 299,
        index,
        data: Bytes::from_static(data.as_bytes()),
    };
    let metadata = eraftpb::SnapshotMetadata {
        conf_state: Some(eraftpb::ConfState {
            nodes: vec![1, 150, 3],
            ..Default::default()
        }),
        index: 1 << 39,
        term: 200,
    };
    eraftpb::Message {
        msg_type: eraftpb::MessageType::MsgSnapshot.into(),
        to: 2,
        from: 1,
        term: 300,
        log_term: 299,
        index: 1 << 40,
        entries: vec![entry(1, (1 << 40) + 1, "change"), entry(0, u64::MAX, "")],
        commit: (1 << 40) - 1,
        snapshot: Some(Box::new(eraftpb::Snapshot {
            data: Bytes::from_static(b"state"),
            metadata: Some(metadata),
        })),
        reject: true,
        ..Default::default()
    }
}

/// The same with every extension.
fn extended() -> eraftpb::Message {
    let mut message = plain();
    message.reject_hint = 12;
    message.context = Bytes::from_static(b"CampaignTransfer");
    message.vote = 3;
    message.responses = vec![plain(), eraftpb::Message::default()];
    message.session = 1 << 30;
    message.last_index = u64::MAX;
    message.known_commit = 9;
    message.known_commit_term = 4;
    message.needs_no_answer = true;
    let snapshot = message.snapshot.as_mut().expect("it has one");
    let metadata = snapshot.metadata.as_mut().expect("it has one");
    let membership = metadata.conf_state.as_mut().expect("it has one");
    membership.learners = vec![4, 500];
    membership.voters_outgoing = vec![1, 2];
    membership.learners_next = vec![2];
    membership.auto_leave = true;
    message
}

#[test]
fn a_message_of_tinykv_decodes_with_every_extension_at_its_default_and_encodes_the_same() {
    let wire = seen_by_tinykv(&plain()).encode_to_vec();
    let decoded = eraftpb::Message::decode(wire.as_slice()).expect("it decodes");
    assert_eq!(decoded, plain());
    assert_eq!(decoded.encode_to_vec(), wire);
}

#[test]
fn tinykv_skips_every_extension_of_a_message() {
    let wire = extended().encode_to_vec();
    let decoded = tinykv::Message::decode(wire.as_slice()).expect("it decodes");
    assert_eq!(decoded, seen_by_tinykv(&plain()));
    let back = eraftpb::Message::decode(wire.as_slice()).expect("it decodes");
    assert_eq!(back, extended(), "and they were in it");
}

#[test]
fn tinykv_keeps_the_number_of_a_kind_that_it_does_not_know() {
    use eraftpb::{EntryType, MessageType};

    for kind in (15..=26).map(|number| MessageType::try_from(number).expect("an extension")) {
        let message = eraftpb::Message {
            msg_type: kind.into(),
            to: 2,
            entries: vec![eraftpb::Entry {
                entry_type: EntryType::EntryConfChangeV2.into(),
                ..Default::default()
            }],
            ..Default::default()
        };
        let wire = message.encode_to_vec();
        let decoded = tinykv::Message::decode(wire.as_slice()).expect("it decodes");
        assert_eq!(decoded.msg_type, i32::from(kind));
        assert_eq!((decoded.to, decoded.entries[0].entry_type), (2, 2));
        assert_eq!(decoded.encode_to_vec(), wire);
    }
}

/// A ConfChangeV2 of one change is no ConfChange: only the type of the entry tells them apart.
#[test]
fn conf_change_v2_has_its_transition_changes_and_context_in_fields_1_2_3() {
    let change = |kind: eraftpb::ConfChangeType, node_id| eraftpb::ConfChangeSingle {
        change_type: kind.into(),
        node_id,
    };
    let changes = eraftpb::ConfChangeV2 {
        transition: eraftpb::ConfChangeTransition::TransitionJointExplicit.into(),
        changes: vec![
            change(eraftpb::ConfChangeType::AddNode, 4),
            change(eraftpb::ConfChangeType::AddLearnerNode, 150),
        ],
        context: Bytes::from_static(b"why"),
    };
    let wire = hex("0802  12 02 1004  12 05 0803 109601  1a 03 776879");
    assert_eq!(Bytes::from(changes.encode_to_vec()), wire);
    let decoded = eraftpb::ConfChangeV2::decode(wire).expect("it decodes");
    assert_eq!(decoded, changes);
    assert!(
        eraftpb::ConfChangeV2::default().encode_to_vec().is_empty(),
        "leaving a joint configuration takes no byte"
    );
}
