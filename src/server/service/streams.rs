//! Long work that tells a client how far it is: a thread that works, and a stream of what it says.
//!
//! Promises: the last message is the outcome; who goes away, or a server that is told to stop, ends the work at its
//! next step; a client that does not read holds nothing up but its own last message.

use std::{
    ops::ControlFlow,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use basalt_engine::{Progress, ProgressStep};
use basalt_proto::basaltpb::WorkStep;
use futures_core::Stream;
use tokio::sync::mpsc;
use tonic::Status;

/// Messages that wait for a client.
const WAITING: usize = 4;
/// Pause between two steps that are told.
const STEP_EVERY: Duration = Duration::from_millis(100);

/// What a call with a stream of answers answers.
pub(super) type EventStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The messages of a channel.
struct Events<T>(mpsc::Receiver<Result<T, Status>>);

impl<T> Stream for Events<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// Tells steps of work to a client.
struct Told<T> {
    sender: mpsc::Sender<Result<T, Status>>,
    wrap: fn(WorkStep) -> T,
    /// True once the server is to stop.
    stop: Box<dyn Fn() -> bool + Send + Sync>,
    last: Mutex<Option<Instant>>,
}

impl<T: Send + 'static> Progress for Told<T> {
    fn at(&self, step: ProgressStep) -> ControlFlow<()> {
        if self.sender.is_closed() || (self.stop)() {
            return ControlFlow::Break(());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_none_or(|last| last.elapsed() >= STEP_EVERY) {
            *last = Some(Instant::now());
            let step = WorkStep {
                what: step.what.to_owned(),
                done: step.done,
                total: step.total,
            };
            // One that finds no room is followed by others.
            let _ = self.sender.try_send(Ok((self.wrap)(step)));
        }
        ControlFlow::Continue(())
    }
}

/// Runs `work`, which may block, off the async runtime; what it tells and what it answers is the stream.
pub(super) fn watched<T: Send + 'static>(
    wrap: fn(WorkStep) -> T,
    stop: impl Fn() -> bool + Send + Sync + 'static,
    work: impl FnOnce(Arc<dyn Progress>) -> Result<T, Status> + Send + 'static,
) -> EventStream<T> {
    let (sender, receiver) = mpsc::channel(WAITING);
    let told = Told {
        sender: sender.clone(),
        wrap,
        stop: Box::new(stop),
        last: Mutex::new(None),
    };
    tokio::task::spawn_blocking(move || {
        let outcome = work(Arc::new(told));
        // Nobody waits for it: then nobody is told.
        let _ = sender.blocking_send(outcome);
    });
    Box::pin(Events(receiver))
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    fn step(done: u64) -> ProgressStep {
        // The engine alone makes steps; one of its own work is asked for.
        let seen = Arc::new(Mutex::new(None));
        let dir = tempfile::tempdir().unwrap();
        let db = basalt_engine::Db::open(dir.path(), basalt_engine::Options::default()).unwrap();
        db.close().unwrap();
        let note = Arc::clone(&seen);
        let pacing = basalt_engine::Pacing::told(Arc::new(move |step: ProgressStep| {
            *note.lock().unwrap() = Some(step);
            ControlFlow::Continue(())
        }));
        basalt_engine::verify_dir_with(dir.path(), &basalt_engine::Options::default(), &pacing)
            .unwrap();
        let mut step = seen.lock().unwrap().unwrap();
        step.done = done;
        step
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_message_is_the_outcome_however_little_is_read() {
        let at = step(1);
        let mut stream = watched(
            |step| step.done,
            || false,
            move |progress| {
                for _ in 0..1000 {
                    assert!(progress.at(at).is_continue());
                }
                Ok(7)
            },
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut seen = Vec::new();
        while let Some(message) = stream.next().await {
            seen.push(message.unwrap());
        }
        assert_eq!(seen.last(), Some(&7));
        assert!(seen.len() <= WAITING + 1, "{seen:?}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn who_goes_away_and_a_stop_end_the_work() {
        let at = step(1);
        for leaves in [true, false] {
            let (tell, ended) = tokio::sync::oneshot::channel();
            let stream = watched(
                |step| step.done,
                move || !leaves,
                move |progress| {
                    while progress.at(at).is_continue() {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    let _ = tell.send(());
                    Ok(0)
                },
            );
            if leaves {
                drop(stream);
            }
            let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
            ended.expect("it ends").unwrap();
        }
    }
}
