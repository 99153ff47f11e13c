//! What a node can tell about itself, for operators and tests.

use basalt_proto::eraftpb::HardState;

use crate::{
    SoftState,
    tracker::{Configuration, Progress},
};

/// A node at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// This node.
    pub id: u64,
    /// Leader and role.
    pub soft_state: SoftState,
    /// Term, vote, commit index.
    pub hard_state: HardState,
    /// What the state machine is known to have applied.
    pub applied: u64,
    /// The last index of the log.
    pub last_index: u64,
    /// The membership as applied.
    pub config: Configuration,
    /// Who leadership is being handed to, 0 for nobody.
    pub transferee: u64,
    /// Bytes of payload proposed here and not applied yet.
    pub uncommitted_bytes: u64,
    /// On a leader: the members by ascending id.
    pub progress: Vec<(u64, Progress)>,
}
