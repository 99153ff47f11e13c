//! How transcripts print what nodes hand out: entries, messages, work, errors. The names are the reference's.

use std::fmt::Write as _;

use basalt_raft::{
    Error, LOCAL_APPEND_THREAD, LOCAL_APPLY_THREAD, MembershipChange, NONE, Ready, StorageError,
    eraftpb::{
        ConfChangeSingle, ConfChangeType, ConfState, Entry, EntryType, HardState, Message,
        Snapshot, SnapshotMetadata,
    },
    reference_name,
};

/// Bytes as Go quotes them with `%q`.
pub(crate) fn quoted(data: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in data.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(&mut text, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

fn quote_char(text: &mut String, c: char) {
    let _ = match c {
        '"' | '\\' => write!(text, "\\{c}"),
        '\x07' => write!(text, "\\a"),
        '\x08' => write!(text, "\\b"),
        '\x0c' => write!(text, "\\f"),
        '\n' => write!(text, "\\n"),
        '\r' => write!(text, "\\r"),
        '\t' => write!(text, "\\t"),
        '\x0b' => write!(text, "\\v"),
        '\0'..' ' | '\x7f' => write!(text, "\\x{:02x}", u32::from(c)),
        _ if c == '\'' || c.escape_debug().count() == 1 => write!(text, "{c}"),
        _ if u32::from(c) <= 0xffff => write!(text, "\\u{:04x}", u32::from(c)),
        _ => write!(text, "\\U{:08x}", u32::from(c)),
    };
}

/// Changes as `v1 l2 r3 u4`.
pub(crate) fn changes(changes: &[ConfChangeSingle]) -> String {
    let one = |change: &ConfChangeSingle| {
        let kind = match change.change_type() {
            ConfChangeType::AddNode => 'v',
            ConfChangeType::AddLearnerNode => 'l',
            ConfChangeType::RemoveNode => 'r',
            ConfChangeType::UpdateNode => 'u',
        };
        format!("{kind}{}", change.node_id)
    };
    changes.iter().map(one).collect::<Vec<_>>().join(" ")
}

pub(crate) fn entry(entry: &Entry) -> String {
    let (kind, data) = match entry.entry_type() {
        EntryType::EntryNormal => ("EntryNormal", quoted(&entry.data)),
        kind => {
            let name = match kind {
                EntryType::EntryConfChange => "EntryConfChange",
                _ => "EntryConfChangeV2",
            };
            let text = match MembershipChange::decode(kind, entry.data.clone()) {
                Ok(change) => changes(&change.into_v2().changes),
                Err(error) => error.to_string(),
            };
            (name, text)
        }
    };
    let space = if data.is_empty() { "" } else { " " };
    format!("{}/{} {kind}{space}{data}", entry.term, entry.index)
}

/// Each on a line.
pub(crate) fn entries(entries: &[Entry]) -> String {
    entries.iter().map(|one| entry(one) + "\n").collect()
}

fn target(id: u64) -> String {
    match id {
        NONE => "None".to_owned(),
        LOCAL_APPEND_THREAD => "AppendThread".to_owned(),
        LOCAL_APPLY_THREAD => "ApplyThread".to_owned(),
        _ => format!("{id:x}"),
    }
}

/// The metadata of a snapshot that is one.
pub(crate) fn metadata(snapshot: &Snapshot) -> Option<&SnapshotMetadata> {
    let metadata = snapshot.metadata.as_ref();
    metadata.filter(|metadata| metadata.index > 0)
}

/// Numbers or bytes as Go prints a slice.
fn list<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(" "))
}

fn conf_state(state: &ConfState) -> String {
    format!(
        "Voters:{} VotersOutgoing:{} Learners:{} LearnersNext:{} AutoLeave:{}",
        list(&state.nodes),
        list(&state.voters_outgoing),
        list(&state.learners),
        list(&state.learners_next),
        state.auto_leave
    )
}

fn snapshot(metadata: &SnapshotMetadata) -> String {
    let members = metadata.conf_state.clone().unwrap_or_default();
    format!(
        "Index:{} Term:{} ConfState:{}",
        metadata.index,
        metadata.term,
        conf_state(&members)
    )
}

/// A message, over several lines where it carries more than one entry, a snapshot or responses.
pub(crate) fn message(m: &Message) -> String {
    indented_message("", m)
}

fn indented_message(indent: &str, m: &Message) -> String {
    let mut text = format!(
        "{indent}{}->{} {} Term:{} Log:{}/{}",
        target(m.from),
        target(m.to),
        reference_name(m.msg_type()),
        m.term,
        m.log_term,
        m.index
    );
    if m.reject {
        let _ = write!(text, " Rejected (Hint: {})", m.reject_hint);
    }
    if m.commit != 0 {
        let _ = write!(text, " Commit:{}", m.commit);
    }
    if m.vote != 0 {
        let _ = write!(text, " Vote:{}", m.vote);
    }
    match &m.entries[..] {
        [] => {}
        [one] => {
            let _ = write!(text, " Entries:[{}]", entry(one));
        }
        several => {
            text.push_str(" Entries:[");
            for one in several {
                let _ = write!(text, "\n{indent}  {}", entry(one));
            }
            let _ = write!(text, "\n{indent}]");
        }
    }
    if let Some(metadata) = m.snapshot.as_deref().and_then(metadata) {
        let _ = write!(text, "\n{indent}  Snapshot: {}", snapshot(metadata));
    }
    if !m.responses.is_empty() {
        text.push_str(" Responses:[");
        for response in &m.responses {
            let _ = write!(
                text,
                "\n{}",
                indented_message(&format!("{indent}  "), response)
            );
        }
        let _ = write!(text, "\n{indent}]");
    }
    text
}

fn hard_state(state: &HardState) -> String {
    let mut text = format!("Term:{}", state.term);
    if state.vote != 0 {
        let _ = write!(text, " Vote:{}", state.vote);
    }
    let _ = write!(text, " Commit:{}", state.commit);
    text
}

/// Work, without a line end where there is none.
pub(crate) fn ready(ready: &Ready) -> String {
    let mut text = String::new();
    if let Some(state) = &ready.soft_state {
        let _ = writeln!(text, "Lead:{} State:{}", state.leader, state.role);
    }
    if let Some(state) = &ready.hard_state {
        let _ = writeln!(text, "HardState {}", hard_state(state));
    }
    if !ready.read_states.is_empty() {
        let states = ready.read_states.iter();
        let states = states.map(|state| format!("{{{} {}}}", state.index, list(&state.context)));
        let states: Vec<String> = states.collect();
        let _ = writeln!(text, "ReadStates {}", list(&states));
    }
    if !ready.entries.is_empty() {
        let _ = write!(text, "Entries:\n{}", entries(&ready.entries));
    }
    if let Some(metadata) = ready.snapshot.as_deref().and_then(metadata) {
        let _ = writeln!(text, "Snapshot {}", snapshot(metadata));
    }
    if !ready.committed_entries.is_empty() {
        let _ = write!(
            text,
            "CommittedEntries:\n{}",
            entries(&ready.committed_entries)
        );
    }
    if !ready.messages.is_empty() {
        text.push_str("Messages:\n");
        for one in &ready.messages {
            let _ = writeln!(text, "{}", message(one));
        }
    }
    if text.is_empty() {
        return "<empty Ready>".to_owned();
    }
    format!("Ready MustSync={}:\n{text}", ready.must_sync)
}

/// An error as the reference words it, where it has one of the kind.
pub(crate) fn error(error: &Error) -> String {
    match error {
        Error::ProposalDropped(_) => "raft proposal dropped".to_owned(),
        Error::LocalMessage => "raft: cannot step raft local message".to_owned(),
        Error::PeerNotFound => "raft: cannot step as peer not found".to_owned(),
        Error::ConfChange(what) => (*what).to_owned(),
        Error::Storage(error) => storage_error(error),
        other => other.to_string(),
    }
}

/// As [`error`], for what storage says.
pub(crate) fn storage_error(error: &StorageError) -> String {
    match error {
        StorageError::Compacted => "requested index is unavailable due to compaction".to_owned(),
        StorageError::Unavailable => "requested entry at index is unavailable".to_owned(),
        StorageError::SnapshotTemporarilyUnavailable => {
            "snapshot is temporarily unavailable".to_owned()
        }
        StorageError::SnapshotOutOfDate => {
            "requested index is older than the existing snapshot".to_owned()
        }
        other => other.to_string(),
    }
}

mod tests {
    use super::*;

    #[test]
    fn bytes_are_quoted_as_go_quotes_them() {
        let cases: [(&[u8], &str); 5] = [
            (b"plain text'", r#""plain text'""#),
            (b"\"\\\n\t\r\x07\x08\x0b\x0c", r#""\"\\\n\t\r\a\b\v\f""#),
            (b"\0\x1f\x7f\xff", r#""\x00\x1f\x7f\xff""#),
            ("\u{e9}\u{20ac}".as_bytes(), "\"\u{e9}\u{20ac}\""),
            ("\u{200b}\u{e0001}".as_bytes(), r#""\u200b\U000e0001""#),
        ];
        for (data, expected) in cases {
            assert_eq!(quoted(data), expected);
        }
    }

    #[test]
    fn a_membership_change_that_cannot_be_read_is_shown_with_its_error() {
        let broken = Entry {
            entry_type: EntryType::EntryConfChangeV2.into(),
            term: 3,
            index: 7,
            data: b"\xff".to_vec().into(),
        };
        let text = entry(&broken);
        assert!(text.starts_with("3/7 EntryConfChangeV2 "), "{text}");
        assert!(text.len() > "3/7 EntryConfChangeV2 ".len(), "{text}");
    }
}
