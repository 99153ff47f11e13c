//! The receiving end of the other stores' streams: who is let in, and what becomes of what they send.
//!
//! Promises: nothing of a foreign cluster, of a store whose disk has changed, of a removed store, or for another
//! store reaches the store loop; an incarnation is durable here before the first message of it is taken in.

use std::sync::{Arc, atomic::Ordering};

use basalt_proto::{
    basaltpb::StoreInfo,
    raft_serverpb::{Done, RaftMessage, SnapshotChunk},
};
use basalt_raft::{NONE, eraftpb::MessageType, is_local_thread};
use basalt_raftstore::StoreHandle;
use tonic::{Request, Status, Streaming, metadata::MetadataMap};

use super::{Card, Cluster, Refusal, snapshot};

/// Whether a message is one that the store `from` could send: from a peer of it, and to one, of a region. Proposals
/// are made where they are checked and never sent on.
fn makes_sense(message: &RaftMessage, from: u64) -> bool {
    let is_id = |id: u64| id != NONE && !is_local_thread(id);
    let sender = message.from_peer.unwrap_or_default();
    let to = message.to_peer.unwrap_or_default();
    let inner = message.message.as_ref();
    let is_proposal = inner.is_some_and(|inner| inner.msg_type() == MessageType::MsgPropose);
    message.region_id != 0
        && !is_proposal
        && sender.store_id == from
        && is_id(sender.id)
        && is_id(to.id)
}

impl Cluster {
    /// Takes in the Raft messages of another store until its stream ends.
    ///
    /// # Errors
    ///
    /// Why the sender is refused, or the failure of its stream.
    pub async fn take_messages(
        self: Arc<Self>,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Done, Status> {
        let from = self.let_in(request.metadata()).await?;
        // It is up: what waits for it need not wait longer.
        self.links.nudge(from);
        let mut messages = request.into_inner();
        let mut stopping = self.stopping();
        loop {
            let message = tokio::select! {
                message = messages.message() => message?,
                _ = stopping.wait_for(|stop| *stop) => None,
            };
            let Some(message) = message else {
                return Ok(Done {});
            };
            let traffic = &self.links.traffic;
            traffic.received.fetch_add(1, Ordering::Relaxed);
            if !makes_sense(&message, from) || !self.loop_handle()?.raft_message(message) {
                traffic.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Takes in a snapshot of another store, and then its message; or says whether there is room for one.
    ///
    /// # Errors
    ///
    /// Why it is refused, or the failure of its stream or of the disk here.
    pub async fn take_snapshot(
        self: Arc<Self>,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Done, Status> {
        let from = self.let_in(request.metadata()).await?;
        let files = self.opened().map(|open| open.snapshots);
        let files = files.ok_or_else(|| Status::unavailable("the store is stopped"))?;
        let mut stopping = self.stopping();
        let message = tokio::select! {
            message = snapshot::receive(&self.links, files, request.into_inner()) => message?,
            _ = stopping.wait_for(|stop| *stop) => {
                return Err(Status::unavailable("the store is stopping"));
            }
        };
        let Some(message) = message else {
            return Ok(Done {});
        };
        let region = message.region_id;
        if !makes_sense(&message, from) {
            return Err(Status::invalid_argument(
                "the message is none that a store sends",
            ));
        }
        if !self.loop_handle()?.raft_message(message) {
            return Err(Status::resource_exhausted(
                "too many messages wait for the store",
            ));
        }
        tracing::info!(region, store = from, "received a snapshot");
        Ok(snapshot::count_received(&self.links))
    }

    fn loop_handle(&self) -> Result<&StoreHandle, Status> {
        self.handle()
            .map_err(|error| Status::unavailable(error.to_string()))
    }

    /// Checks who sends; the sender's id.
    async fn let_in(self: &Arc<Self>, metadata: &MetadataMap) -> Result<u64, Status> {
        let identity = self.identity();
        let nobody = "a stream between stores says of which cluster and store it is";
        let card = Card::read(metadata).ok_or_else(|| Status::failed_precondition(nobody))?;
        let refused = |refusal: Refusal| {
            tracing::warn!(
                store = card.store_id,
                why = refusal.text(),
                "refused a store"
            );
            Err(refusal.to_status())
        };
        if card.cluster_id != identity.cluster_id {
            return refused(Refusal::foreign(card.cluster_id, identity.cluster_id));
        }
        if card.target != identity.store_id {
            return refused(Refusal::target(card.target, identity.store_id));
        }
        if !self.directory.knows(card.store_id, card.incarnation) {
            // A store that nobody has told of: it says where it is when it says hello.
            let address = self.directory.get(card.store_id).map(|store| store.address);
            let Some(address) = address else {
                let what = format!("store {} is not known here yet", card.store_id);
                return Err(Status::unavailable(what));
            };
            let sender = StoreInfo {
                store_id: card.store_id,
                incarnation: card.incarnation,
                address,
                ..StoreInfo::default()
            };
            let admitted = self
                .blocking(move |cluster| Ok(cluster.directory.admit(&sender)))
                .await;
            match admitted {
                Ok(Ok(())) => {}
                Ok(Err(refusal)) => return refused(refusal),
                Err(what) => return refused(Refusal::Disk(what)),
            }
        }
        self.loop_handle()?;
        Ok(card.store_id)
    }
}
