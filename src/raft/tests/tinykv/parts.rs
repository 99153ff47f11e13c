//! What claims are told with: settings, entries, logs, messages and membership changes, each in one
//! short call.

use basalt_raft::eraftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, HardState, Message, MessageType, Snapshot,
    SnapshotMetadata,
};
use basalt_raft::{Config, MemStorage};

/// TinyKV's rules: no pre-vote, no check-quorum, and each append a message of its own.
pub(crate) fn tinykv_config(id: u64) -> Config {
    Config {
        pre_vote: false,
        check_quorum: false,
        batch_appends: false,
        commit_by_vote: false,
        ..Config::new(id)
    }
}

/// An entry without data.
pub(crate) fn entry(index: u64, term: u64) -> Entry {
    entry_with(index, term, "")
}

/// An entry with data.
pub(crate) fn entry_with(index: u64, term: u64, data: &'static str) -> Entry {
    Entry {
        index,
        term,
        data: data.into(),
        ..Entry::default()
    }
}

/// Entries from index 1 on with these terms.
pub(crate) fn entries(terms: &[u64]) -> Vec<Entry> {
    let numbered = (1..).zip(terms);
    numbered.map(|(index, term)| entry(index, *term)).collect()
}

/// The log of a voter of `voters`: entries of these terms, and what it had promised.
pub(crate) fn stored(voters: &[u64], terms: &[u64], hard_state: HardState) -> MemStorage {
    let mut storage = MemStorage::with_voters(voters);
    storage.append(entries(terms));
    storage.set_hard_state(hard_state);
    storage
}

/// A term without a vote and without a commit index.
pub(crate) fn in_term(term: u64) -> HardState {
    HardState {
        term,
        ..HardState::default()
    }
}

/// A message without content.
pub(crate) fn message(kind: MessageType, from: u64, to: u64, term: u64) -> Message {
    Message {
        msg_type: kind.into(),
        from,
        to,
        term,
        ..Message::default()
    }
}

/// What a follower answers that takes this append.
pub(crate) fn accept(append: &Message) -> Message {
    assert_eq!(append.msg_type(), MessageType::MsgAppend);
    Message {
        index: append.index + append.entries.len() as u64,
        session: append.session,
        ..message(
            MessageType::MsgAppendResponse,
            append.to,
            append.from,
            append.term,
        )
    }
}

/// A snapshot of an empty state machine.
pub(crate) fn snapshot(index: u64, term: u64, voters: &[u64]) -> Snapshot {
    Snapshot {
        metadata: Some(SnapshotMetadata {
            index,
            term,
            conf_state: Some(ConfState {
                nodes: voters.to_vec(),
                ..ConfState::default()
            }),
        }),
        ..Snapshot::default()
    }
}

/// The change of one member.
pub(crate) fn change(change_type: ConfChangeType, node_id: u64) -> ConfChange {
    ConfChange {
        change_type: change_type.into(),
        node_id,
        ..ConfChange::default()
    }
}

// Here so that everything above is used by each crate that includes it.
#[test]
fn what_is_made_is_what_was_asked_for() {
    let config = tinykv_config(7);
    assert_eq!(config.id, 7);
    assert!(!config.pre_vote && !config.check_quorum && !config.batch_appends);
    assert_eq!(entries(&[1, 3]), [entry(1, 1), entry(2, 3)]);
    assert_eq!(entry_with(2, 3, "data").data, "data");
    let storage = stored(&[1, 2], &[4], in_term(4));
    assert_eq!(storage.hard_state().term, 4);

    let append = Message {
        index: 5,
        entries: vec![entry(6, 2)],
        session: 3,
        ..message(MessageType::MsgAppend, 1, 2, 9)
    };
    let taken = accept(&append);
    assert_eq!(taken.msg_type(), MessageType::MsgAppendResponse);
    assert_eq!((taken.from, taken.to, taken.term), (2, 1, 9));
    assert_eq!((taken.index, taken.session), (6, 3));

    let place = snapshot(3, 2, &[1]).metadata.expect("a place in the log");
    assert_eq!((place.index, place.term), (3, 2));
    let add = change(ConfChangeType::AddNode, 3);
    assert_eq!(
        (add.change_type(), add.node_id),
        (ConfChangeType::AddNode, 3)
    );
}
