//! What entries are applied to: a count and a hash, by which the nodes are compared.

/// How much of an entry goes into the hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hashing {
    /// Index, length, the first and last eight bytes (which tell the proposals apart): where time is
    /// taken, so that it is not the hash's.
    #[default]
    Ends,
    /// Every byte.
    Whole,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StateMachine {
    hashing: Hashing,
    last_index: u64,
    proposals: u64,
    hash: u64,
}

impl StateMachine {
    pub fn set_hashing(&mut self, hashing: Hashing) {
        self.hashing = hashing;
    }

    /// Applies the next entry. The empty one of an election is no proposal.
    pub fn apply(&mut self, index: u64, data: &[u8]) {
        assert_eq!(index, self.last_index + 1, "entries come in order");
        self.last_index = index;
        if data.is_empty() {
            return;
        }
        self.proposals += 1;
        self.mix(index);
        self.mix(data.len() as u64);
        match self.hashing {
            Hashing::Ends => {
                self.mix(word(&data[..8]));
                self.mix(word(&data[data.len() - 8..]));
            }
            Hashing::Whole => data.chunks(8).for_each(|chunk| self.mix(word(chunk))),
        }
    }

    fn mix(&mut self, word: u64) {
        self.hash = (self.hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    pub fn last_index(&self) -> u64 {
        self.last_index
    }

    pub fn proposals(&self) -> u64 {
        self.proposals
    }
}

/// Up to eight bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
