//! Snapshots between stores: a `tinykvpb.TinyKv/Snapshot` stream each, the message first, then its files.
//!
//! Before one is made its receiver is asked whether it has room for it: a stream of the message alone, without a
//! snapshot in it.
//!
//! Promises: all snapshots that a store sends take at most [`SNAPSHOT_BYTES_PER_SECOND`] together, so that the
//! traffic that keeps a cluster alive has room; files are read and written off the async runtime.
//!
//! Not here: what is in the files and whether they are whole (`basalt_raftstore`).

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use basalt_proto::raft_serverpb::{Done, RaftMessage, SnapshotChunk};
use basalt_raft::eraftpb::MessageType;
use basalt_raftstore::snapshot::{Incoming, SnapshotError, SnapshotStore};
use futures_core::Stream;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tonic::{Code, Status, Streaming};

use super::link::Links;
use crate::{
    limits::{
        MAX_SNAPSHOTS_SENT, PEER_ANSWER_TIMEOUT, SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHUNKS_AHEAD,
        SNAPSHOT_SILENCE,
    },
    stubs::tinykvpb::tiny_kv_client::TinyKvClient,
};

/// Turns and speed of the snapshots that a store sends.
#[derive(Debug)]
pub(super) struct Pace {
    turns: Semaphore,
    /// When the next bytes may go.
    next: Mutex<Option<Instant>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(MAX_SNAPSHOTS_SENT),
            next: Mutex::new(None),
        }
    }
}

impl Pace {
    /// When `len` bytes more may go.
    fn book(&self, len: usize) -> Instant {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let start = next.unwrap_or(now).max(now);
        let nanos = u64::try_from(len)
            .unwrap_or(u64::MAX)
            .saturating_mul(1_000_000_000);
        *next = Some(start + Duration::from_nanos(nanos / SNAPSHOT_BYTES_PER_SECOND));
        start
    }
}

/// Chunks that a thread of the blocking pool has read.
struct Chunks(mpsc::Receiver<SnapshotChunk>);

impl Stream for Chunks {
    type Item = SnapshotChunk;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<SnapshotChunk>> {
        self.0.poll_recv(cx)
    }
}

/// Sends a `MsgSnapshot` with its files; whether the other store has it.
pub(super) async fn send(links: &Arc<Links>, message: RaftMessage) -> bool {
    let began = Instant::now();
    let region = message.region_id;
    let store = message.to_peer.map_or(0, |peer| peer.store_id);
    match try_send(links, store, message).await {
        Ok(bytes) => {
            let traffic = &links.traffic;
            traffic
                .snapshot_sent_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            traffic.snapshot_sending.observe(began.elapsed());
            tracing::info!(region, store, bytes, "sent a snapshot");
            true
        }
        Err(why) => {
            tracing::warn!(region, store, why, "could not send a snapshot");
            false
        }
    }
}

async fn try_send(links: &Arc<Links>, store_id: u64, message: RaftMessage) -> Result<u64, String> {
    let defect = || "reading it met a defect of this program".to_owned();
    let turn = links.pace.turns.acquire().await;
    let _turn = turn.map_err(|_| defect())?;
    let files = links.snapshots.get().cloned();
    let files = files.ok_or_else(|| "the store does not run".to_owned())?;
    let snapshot = message
        .message
        .as_ref()
        .and_then(|inner| inner.snapshot.clone());
    let snapshot = snapshot.ok_or_else(|| "the message is no snapshot".to_owned())?;
    let channel = links.dial(store_id).await?;

    let (give, chunks) = mpsc::channel(SNAPSHOT_CHUNKS_AHEAD);
    let pacing = Arc::clone(links);
    let runtime = tokio::runtime::Handle::current();
    let reading = tokio::task::spawn_blocking(move || {
        let first = SnapshotChunk {
            message: Some(message),
            ..SnapshotChunk::default()
        };
        // Nobody takes more: the other store has all of it, or the stream is broken.
        let gone = |bytes| Ok::<u64, SnapshotError>(bytes);
        if give.blocking_send(first).is_err() {
            return gone(0);
        }
        let mut bytes = 0;
        for chunk in files.chunks(&snapshot)? {
            let data = chunk?;
            bytes += data.len() as u64;
            let due = pacing.pace.book(data.len());
            runtime.block_on(tokio::time::sleep_until(due));
            let chunk = SnapshotChunk {
                message: None,
                data,
            };
            if give.blocking_send(chunk).is_err() {
                return gone(bytes);
            }
        }
        Ok(bytes)
    });
    let request = links.sealed(store_id, Chunks(chunks));
    let mut client = TinyKvClient::new(channel).max_encoding_message_size(usize::MAX);
    let taken = client.snapshot(request).await;
    let read = reading.await.map_err(|_| defect())?;
    // What was wrong here explains what the other store says.
    let bytes = read.map_err(|error| error.to_string())?;
    match taken {
        Ok(_) => Ok(bytes),
        Err(status) => {
            links.note(&status);
            Err(status.message().to_owned())
        }
    }
}

/// Asks another store whether it would take in a snapshot now.
pub(super) async fn ask_for_room(links: &Arc<Links>, message: RaftMessage) -> bool {
    let region = message.region_id;
    let store = message.to_peer.map_or(0, |peer| peer.store_id);
    let asking = async {
        let channel = links.dial(store).await?;
        let (give, chunks) = mpsc::channel(1);
        let question = SnapshotChunk {
            message: Some(message),
            ..SnapshotChunk::default()
        };
        // There is room for one, and its reader is there.
        let _ = give.try_send(question);
        drop(give);
        let request = links.sealed(store, Chunks(chunks));
        let answer = TinyKvClient::new(channel).snapshot(request).await;
        answer.map(drop).map_err(|status| {
            links.note(&status);
            status.message().to_owned()
        })
    };
    let answer = tokio::time::timeout(PEER_ANSWER_TIMEOUT, asking).await;
    match answer.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
        Ok(()) => true,
        Err(why) => {
            tracing::info!(region, store, why, "no room for a snapshot");
            false
        }
    }
}

/// Receives a snapshot; its message, once its files are durable here. Nothing, where it was only asked whether
/// there is room for one, and there is.
pub(super) async fn receive(
    links: &Links,
    files: Arc<SnapshotStore>,
    chunks: Streaming<SnapshotChunk>,
) -> Result<Option<RaftMessage>, Status> {
    let began = Instant::now();
    let traffic = &links.traffic;
    let mut bytes = 0;
    let received = try_receive(files, chunks, &mut bytes).await;
    match &received {
        Ok(None) => {}
        Ok(Some(_)) => {
            traffic
                .snapshot_received_bytes
                .fetch_add(bytes, Ordering::Relaxed);
            traffic.snapshot_receiving.observe(began.elapsed());
        }
        Err(status) => {
            let is_refusal = matches!(
                status.code(),
                Code::ResourceExhausted | Code::InvalidArgument
            );
            let count = match is_refusal {
                true => &traffic.snapshots_refused,
                false => &traffic.snapshots_not_received,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    received
}

async fn try_receive(
    files: Arc<SnapshotStore>,
    mut chunks: Streaming<SnapshotChunk>,
    bytes: &mut u64,
) -> Result<Option<RaftMessage>, Status> {
    let first = next(&mut chunks).await?;
    let message = first.and_then(|chunk| chunk.message);
    let message =
        message.ok_or_else(|| Status::invalid_argument("a snapshot begins with its message"))?;
    if asks_for_room(&message) {
        let room = files.room_for(message.region_id);
        return room.map(|()| None).map_err(|error| told(&error));
    }
    let mut receiver = match files.receive(&message).map_err(|error| told(&error))? {
        Incoming::Present => return Ok(Some(message)),
        Incoming::Wanted(receiver) => receiver,
    };
    while let Some(chunk) = next(&mut chunks).await? {
        *bytes += chunk.data.len() as u64;
        receiver = blocking(move || {
            receiver.push(&chunk.data)?;
            Ok(receiver)
        })
        .await?;
    }
    blocking(move || receiver.finish()).await?;
    Ok(Some(message))
}

/// Whether a message is the question for room: a snapshot's, without one.
fn asks_for_room(message: &RaftMessage) -> bool {
    let inner = message.message.as_ref();
    inner.is_some_and(|inner| {
        inner.msg_type() == MessageType::MsgSnapshot && inner.snapshot.is_none()
    })
}

/// The next chunk. A sender that falls silent must not hold files for ever.
async fn next(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    let next = tokio::time::timeout(SNAPSHOT_SILENCE, chunks.message()).await;
    next.map_err(|_| Status::deadline_exceeded("the snapshot does not go on"))?
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, Status> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| Status::internal("taking it in met a defect of this program"))?;
    done.map_err(|error| told(&error))
}

fn told(error: &SnapshotError) -> Status {
    let text = error.to_string();
    match error {
        SnapshotError::Busy(_) => Status::resource_exhausted(text),
        SnapshotError::Refused(_) => Status::invalid_argument(text),
        SnapshotError::Damaged(_) => Status::data_loss(text),
        _ => Status::internal(text),
    }
}

/// Counts a snapshot that has come in whole.
pub(super) fn count_received(links: &Links) -> Done {
    links
        .traffic
        .snapshots_received
        .fetch_add(1, Ordering::Relaxed);
    Done {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_senders_share_one_speed() {
        let pace = Pace::default();
        let second = usize::try_from(SNAPSHOT_BYTES_PER_SECOND).unwrap();
        let first = pace.book(second);
        let later = pace.book(1);
        assert_eq!(later - first, Duration::from_secs(1));
        assert!(first <= Instant::now(), "the first one goes at once");
    }
}
