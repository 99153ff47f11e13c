//! `Node`: a store on real threads: the store loop, the apply loop, the background workers.
//!
//! ```text
//! others --> StoreHandle --> [inbox] --> Store --> [inbox] --> Applier --> callbacks
//!                               ^          |                      |
//!                               |          +--> [inbox] --> Workers
//!                               +---------------------------------+
//! ```
//! A loop that fails, or panics, fences the store: the others end too, everybody who waits is told, and
//! [`Node::fenced`] says why; the process lives. Not here: what the loops do.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, OnceLock},
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    Applier, Error, Result, Store, StoreHandle, StoreMessage, Worker, Workers, store::Parts,
};

/// A store on threads of its own.
#[derive(Debug)]
pub struct Node {
    handle: StoreHandle,
    inbox: Arc<crate::Inbox<StoreMessage>>,
    fenced: Arc<OnceLock<String>>,
    threads: Vec<JoinHandle<()>>,
}

/// How long a loop sleeps at most when nothing is asked of it.
const IDLE: Duration = Duration::from_secs(1);

impl Node {
    /// Opens a store and starts its loops.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`]; [`Error::Misuse`] where a thread cannot be started.
    pub fn start(parts: Parts) -> Result<Self> {
        let (store, applier, workers) = Store::open(parts)?;
        let handle = store.handle();
        let inbox = store.inbox();
        let fenced = Arc::new(OnceLock::new());
        let mut node = Self {
            handle,
            inbox: Arc::clone(&inbox),
            fenced,
            threads: Vec::new(),
        };
        let started = node.spawn_loops(store, applier, workers);
        if let Err(error) = started {
            // Those that have started end again.
            node.stop();
            return Err(error);
        }
        Ok(node)
    }

    fn spawn_loops(&mut self, store: Store, applier: Applier, workers: Workers) -> Result<()> {
        self.spawn("basalt-store", store, move |store: &mut Store| {
            store.wait();
            store.turn();
            match store.fenced() {
                // Before the rest: one that is stopped counts as fenced too.
                _ if store.is_stopped() => Step::Stop,
                Some(why) => Step::Fenced(why.to_owned()),
                None => Step::Go,
            }
        })?;
        self.spawn("basalt-apply", applier, |applier: &mut Applier| {
            applier.inbox().wait(IDLE);
            applier.turn();
            if applier.is_stopped() {
                Step::Stop
            } else {
                Step::Go
            }
        })?;
        let Workers { snapshots, flushes } = workers;
        for (name, worker) in [("basalt-snapshot", snapshots), ("basalt-flush", flushes)] {
            self.spawn(name, worker, |worker: &mut Worker| {
                worker.inbox().wait(IDLE);
                worker.turn();
                if worker.is_stopped() {
                    Step::Stop
                } else {
                    Step::Go
                }
            })?;
        }
        Ok(())
    }

    fn spawn<L: Send + 'static>(
        &mut self,
        name: &str,
        mut inner: L,
        mut step: impl FnMut(&mut L) -> Step + Send + 'static,
    ) -> Result<()> {
        let (inbox, fenced) = (Arc::clone(&self.inbox), Arc::clone(&self.fenced));
        let loop_name = name.to_owned();
        let run = move || {
            loop {
                match catch_unwind(AssertUnwindSafe(|| step(&mut inner))) {
                    Ok(Step::Go) => {}
                    Ok(Step::Stop) => return,
                    Ok(Step::Fenced(why)) => {
                        // The store goes on answering, with its reason, until it is told to stop.
                        fenced.get_or_init(|| why);
                    }
                    Err(panic) => {
                        let why = format!("{loop_name} met a defect: {}", text_of(&*panic));
                        fenced.get_or_init(|| why.clone());
                        if loop_name == "basalt-store" {
                            // Nobody is left to answer: what waits is told so as it is dropped.
                            drop(inbox.close());
                        } else {
                            inbox.push(StoreMessage::Failed(why));
                        }
                        return;
                    }
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        let cannot = |error| Error::misuse(0, format!("cannot start the thread {name}: {error}"));
        self.threads.push(thread.map_err(cannot)?);
        Ok(())
    }

    /// Speaks to the store.
    #[must_use]
    pub fn handle(&self) -> StoreHandle {
        self.handle.clone()
    }

    /// Why the store has stopped serving, if it has.
    #[must_use]
    pub fn fenced(&self) -> Option<&str> {
        self.fenced.get().map(String::as_str)
    }

    /// Stops the loops; everybody who waits is told so. Blocks until they have ended.
    pub fn stop(self) {
        self.inbox.push(StoreMessage::Stop);
        for thread in self.threads {
            // A panic was told already.
            let _ = thread.join();
        }
    }
}

/// What a loop is to do next.
enum Step {
    Go,
    Stop,
    Fenced(String),
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
