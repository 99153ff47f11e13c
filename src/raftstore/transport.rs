//! `Transport`: how a store reaches the others.
//!
//! Nothing here blocks or fails: a message may be lost, and Raft sends again. What cannot be delivered is
//! said to the store loop afterwards ([`crate::StoreMessage::Unreachable`],
//! [`crate::StoreMessage::SnapshotSent`], [`crate::StoreMessage::Room`]). Messages to one store that do arrive should keep their order, as
//! lost order costs retries. Not here: addresses, identities of clusters and stores; those who implement it
//! check them before anything reaches the loop.

use basalt_proto::raft_serverpb::RaftMessage;

/// Sends messages to other stores.
pub trait Transport: Send {
    /// Queues a message to `to_peer.store_id`; dropped where the queue is full.
    fn send(&mut self, message: RaftMessage);

    /// Asks whether a store would take a snapshot, before one is made: a `MsgSnapshot` without a snapshot. The
    /// answer must be told by [`crate::StoreMessage::Room`], also where nobody was reached.
    fn ask_for_room(&mut self, message: RaftMessage);

    /// Queues a `MsgSnapshot` with its files. How it ended must be told by
    /// [`crate::StoreMessage::SnapshotSent`], also where it was never tried.
    fn send_snapshot(&mut self, message: RaftMessage);

    /// The turn is over: what is queued goes out.
    fn flush(&mut self);
}
