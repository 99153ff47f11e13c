//! What happened: a hash over every event, by which two runs of a seed are compared, and the last
//! events as text. Text is only made where somebody will read it: a seed that fails is run again.

use std::collections::VecDeque;

use basalt_raft::{eraftpb::Message, reference_name};

/// The events of a run.
pub(crate) struct Trace {
    hash: u64,
    events: u64,
    kept: usize,
    last: VecDeque<String>,
}

impl Trace {
    /// Keeps the text of the last `kept` events.
    pub(crate) fn new(kept: usize) -> Self {
        Self {
            hash: 0xCBF2_9CE4_8422_2325,
            events: 0,
            kept,
            last: VecDeque::new(),
        }
    }

    /// An event: the numbers that make it up, and its text.
    pub(crate) fn event(&mut self, numbers: &[u64], text: impl FnOnce() -> String) {
        for number in numbers {
            self.hash = mix(self.hash, *number);
        }
        self.events += 1;
        if self.kept > 0 {
            if self.last.len() == self.kept {
                self.last.pop_front();
            }
            self.last
                .push_back(format!("{:>6} {}", self.events, text()));
        }
    }

    /// A hash over all events.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The last events, oldest first.
    pub(crate) fn text(&self) -> String {
        let lines: Vec<&str> = self.last.iter().map(String::as_str).collect();
        lines.join("\n")
    }
}

/// One step of a hash that is fast and good enough to tell runs and logs apart.
pub(crate) fn mix(hash: u64, number: u64) -> u64 {
    (hash.rotate_left(23) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// A hash over `bytes`.
pub(crate) fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let hash = mix(hash, bytes.len() as u64);
    bytes.chunks(8).fold(hash, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    })
}

/// The numbers that tell messages apart.
pub(crate) fn message_numbers(m: &Message) -> [u64; 8] {
    [
        m.from << 32 | m.to,
        m.msg_type.unsigned_abs().into(),
        m.term,
        m.log_term,
        m.index,
        m.commit,
        u64::from(m.reject) << 32 | m.entries.len() as u64,
        m.session,
    ]
}

/// A message in one line.
pub(crate) fn message_text(m: &Message) -> String {
    let mut text = format!(
        "{}->{} {} term {} log {}/{} commit {}",
        m.from,
        m.to,
        reference_name(m.msg_type()),
        m.term,
        m.log_term,
        m.index,
        m.commit
    );
    if m.reject {
        text += &format!(" rejected, hint {}", m.reject_hint);
    }
    if m.session > 0 {
        text += &format!(" session {}", m.session);
    }
    if let (Some(first), Some(last)) = (m.entries.first(), m.entries.last()) {
        text += &format!(
            " entries {}/{}..={}/{}",
            first.term, first.index, last.term, last.index
        );
    }
    if let Some(metadata) = m.snapshot.as_ref().and_then(|s| s.metadata.as_ref()) {
        text += &format!(" snapshot {}/{}", metadata.term, metadata.index);
    }
    if !m.context.is_empty() {
        text += &format!(" context {:x?}", m.context.as_ref());
    }
    text
}
