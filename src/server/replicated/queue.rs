//! `Queue`: Raft messages on their way to one store.
//!
//! The store loop puts in and never waits: what has no room is dropped, which Raft expects. One task at a time
//! takes out, as a stream. Not here: connections (`link`).

use std::{
    collections::{BTreeSet, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use basalt_proto::raft_serverpb::RaftMessage;
use futures_core::Stream;
use prost::Message as _;
use tokio::sync::Notify;

use crate::limits::{MAX_PEER_QUEUE_BYTES, MAX_PEER_QUEUE_MESSAGES};

/// Region and peer that a message was for.
pub(super) type Addressee = (u64, u64);

#[derive(Debug, Default)]
struct State {
    messages: VecDeque<(RaftMessage, usize)>,
    bytes: usize,
    /// Messages were dropped since there was room last.
    overflows: bool,
    waker: Option<Waker>,
}

/// A bounded queue with one reader.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Told when the store behind it is up again.
    pub(super) nudge: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while the lock is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a message in.
    ///
    /// # Errors
    ///
    /// `Some` addressee for the first message that finds no room, `None` for those behind it.
    pub(super) fn offer(&self, message: RaftMessage) -> Result<(), Option<Addressee>> {
        let len = message.encoded_len();
        let mut state = self.lock();
        let is_full = state.messages.len() >= MAX_PEER_QUEUE_MESSAGES
            || state.bytes + len > MAX_PEER_QUEUE_BYTES;
        if is_full {
            let is_first = !state.overflows;
            state.overflows = true;
            return Err(is_first.then(|| addressee(&message)));
        }
        state.bytes += len;
        state.messages.push_back((message, len));
        Ok(())
    }

    /// Wakes the reader.
    pub(super) fn flush(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Drops everything; for whom it was.
    pub(super) fn clear(&self) -> BTreeSet<Addressee> {
        let mut state = self.lock();
        state.bytes = 0;
        state.overflows = false;
        let dropped = std::mem::take(&mut state.messages);
        drop(state);
        dropped
            .iter()
            .map(|(message, _)| addressee(message))
            .collect()
    }

    /// Messages and bytes that wait.
    #[must_use]
    pub(super) fn len(&self) -> (usize, usize) {
        let state = self.lock();
        (state.messages.len(), state.bytes)
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<RaftMessage> {
        let mut state = self.lock();
        match state.messages.pop_front() {
            Some((message, len)) => {
                state.bytes -= len;
                state.overflows = false;
                Poll::Ready(message)
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Waits until there is something to take.
    pub(super) async fn filled(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if state.messages.is_empty() {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }
}

fn addressee(message: &RaftMessage) -> Addressee {
    let peer = message.to_peer.map_or(0, |peer| peer.id);
    (message.region_id, peer)
}

/// The messages of a queue; it never ends by itself.
#[derive(Debug)]
pub(super) struct Outgoing(pub(super) Arc<Queue>);

impl Stream for Outgoing {
    type Item = RaftMessage;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RaftMessage>> {
        self.0.poll_take(cx).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use basalt_proto::metapb::Peer;

    use super::*;

    fn message(region_id: u64, len: usize) -> RaftMessage {
        RaftMessage {
            region_id,
            to_peer: Some(Peer { id: 7, store_id: 2 }),
            start_key: vec![0; len].into(),
            ..RaftMessage::default()
        }
    }

    #[test]
    fn it_is_bounded_in_messages_and_in_bytes_and_tells_of_the_first_drop() {
        for (len, room) in [
            (0, MAX_PEER_QUEUE_MESSAGES),
            (1 << 20, (MAX_PEER_QUEUE_BYTES >> 20) - 1),
        ] {
            let queue = Queue::default();
            for _ in 0..room {
                queue.offer(message(3, len)).unwrap();
            }
            let first = queue.offer(message(3, 1 << 20)).unwrap_err();
            assert_eq!(first, Some((3, 7)));
            let second = queue.offer(message(3, 1 << 20)).unwrap_err();
            assert_eq!(second, None);
            assert_eq!(queue.clear().len(), 1);
            assert_eq!(queue.len(), (0, 0));
            queue.offer(message(3, len)).unwrap();
        }
    }

    #[tokio::test]
    async fn messages_come_out_in_their_order_once_it_is_flushed() {
        let queue = Arc::new(Queue::default());
        let reader = Arc::clone(&queue);
        let read = tokio::spawn(async move {
            let mut seen = Vec::new();
            let mut outgoing = Outgoing(reader);
            while seen.len() < 3 {
                let next = std::future::poll_fn(|cx| Pin::new(&mut outgoing).poll_next(cx));
                seen.push(next.await.unwrap().region_id);
            }
            seen
        });
        for region in 1..=3 {
            tokio::task::yield_now().await;
            queue.offer(message(region, 0)).unwrap();
            queue.flush();
        }
        assert_eq!(read.await.unwrap(), [1, 2, 3]);
    }
}
