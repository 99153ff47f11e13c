//! Votes and commit indexes of a set of voters, as pure functions of what each voter said.

mod joint;
mod majority;
#[cfg(test)]
mod tests;

use std::fmt;

pub use joint::JointConfig;
pub use majority::MajorityConfig;

/// What the votes so far decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoteResult {
    /// Either may still come.
    Pending,
    /// A majority can no longer be reached.
    Lost,
    /// A majority has said yes.
    Won,
}

impl fmt::Display for VoteResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "VotePending",
            Self::Lost => "VoteLost",
            Self::Won => "VoteWon",
        })
    }
}
