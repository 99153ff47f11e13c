//! `Node`: a store on real threads: the store loop, the apply loop, the background workers. The store loop may be run by
//! somebody else ([`StoreLoop`]), as by a server's event loop.
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
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use crate::{
    Applier, Error, Inbox, Result, Store, StoreHandle, StoreMessage, Worker, Workers, store::Parts,
};

/// A store at work.
#[derive(Debug)]
pub struct Node {
    handle: StoreHandle,
    inbox: Arc<Inbox<StoreMessage>>,
    fenced: Arc<OnceLock<String>>,
    threads: Vec<JoinHandle<()>>,
    /// Closed when the store loop has ended.
    store: Receiver<Infallible>,
}

/// How long a loop sleeps at most when nothing is asked of it.
const IDLE: Duration = Duration::from_secs(1);

/// The store loop, for whoever runs it: a thread, or a task of an event loop, where it costs no change of threads to
/// hand it something.
#[derive(Debug)]
pub struct StoreLoop {
    store: Store,
    fenced: Arc<OnceLock<String>>,
    _ended: Sender<Infallible>,
}

impl StoreLoop {
    /// Has `wake` called whenever there is something to do after there was nothing. It must be short.
    pub fn on_work(&self, wake: impl Fn() + Send + Sync + 'static) {
        self.store.inbox().on_filled(wake);
    }

    /// Does what waits. Answers for how long it may rest if nothing comes before; `None` when it has ended.
    #[must_use]
    pub fn turn(&mut self) -> Option<Duration> {
        match catch_unwind(AssertUnwindSafe(|| self.store.turn())) {
            // Before the rest: one that is stopped counts as fenced too.
            Ok(()) if self.store.is_stopped() => None,
            Ok(()) => {
                if let Some(why) = self.store.fenced() {
                    // It goes on answering, with its reason, until it is told to stop.
                    self.fenced.get_or_init(|| why.to_owned());
                }
                Some(self.store.idle())
            }
            Err(panic) => {
                let why = defect("basalt-store", &*panic);
                self.fenced.get_or_init(|| why);
                // Nobody is left to answer: what waits is told so as it is dropped.
                drop(self.store.inbox().close());
                None
            }
        }
    }

    /// Takes turns until it has ended, and blocks between them.
    pub fn run(mut self) {
        while let Some(idle) = self.turn() {
            self.store.inbox().wait(idle);
        }
    }
}

impl Drop for StoreLoop {
    /// Whoever runs it may go before it was told to stop, as a runtime that ends: nobody is left to answer then.
    fn drop(&mut self) {
        drop(self.store.inbox().close());
    }
}

impl Node {
    /// Opens a store and starts its loops, each on a thread of its own.
    ///
    /// # Errors
    ///
    /// As for [`Store::open`]; [`Error::Misuse`] where a thread cannot be started.
    pub fn start(parts: Parts) -> Result<Self> {
        let (mut node, store_loop) = Self::start_but_store_loop(parts)?;
        let started = node.spawn_thread("basalt-store", move || store_loop.run());
        match started {
            Ok(()) => Ok(node),
            Err(error) => {
                // Those that have started end again.
                node.stop();
                Err(error)
            }
        }
    }

    /// The same, but for the store loop: the caller is to call its [`StoreLoop::turn`] until it has ended.
    ///
    /// # Errors
    ///
    /// As for [`Node::start`].
    pub fn start_but_store_loop(parts: Parts) -> Result<(Self, StoreLoop)> {
        let (store, applier, workers) = Store::open(parts)?;
        let (ended, until) = channel();
        let fenced = Arc::new(OnceLock::new());
        let mut node = Self {
            handle: store.handle(),
            inbox: store.inbox(),
            fenced: Arc::clone(&fenced),
            threads: Vec::new(),
            store: until,
        };
        let store_loop = StoreLoop {
            store,
            fenced,
            _ended: ended,
        };
        if let Err(error) = node.spawn_loops(applier, workers) {
            drop(store_loop);
            node.stop();
            return Err(error);
        }
        Ok((node, store_loop))
    }

    fn spawn_loops(&mut self, applier: Applier, workers: Workers) -> Result<()> {
        self.spawn("basalt-apply", applier, |applier: &mut Applier| {
            applier.inbox().wait(IDLE);
            applier.turn();
            !applier.is_stopped()
        })?;
        let Workers { snapshots, flushes } = workers;
        for (name, worker) in [("basalt-snapshot", snapshots), ("basalt-flush", flushes)] {
            self.spawn(name, worker, |worker: &mut Worker| {
                worker.inbox().wait(IDLE);
                worker.turn();
                !worker.is_stopped()
            })?;
        }
        Ok(())
    }

    /// Runs a loop as long as `step` says so.
    fn spawn<L: Send + 'static>(
        &mut self,
        name: &'static str,
        mut inner: L,
        mut step: impl FnMut(&mut L) -> bool + Send + 'static,
    ) -> Result<()> {
        let (inbox, fenced) = (Arc::clone(&self.inbox), Arc::clone(&self.fenced));
        self.spawn_thread(name, move || {
            loop {
                match catch_unwind(AssertUnwindSafe(|| step(&mut inner))) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(panic) => {
                        let why = defect(name, &*panic);
                        fenced.get_or_init(|| why.clone());
                        inbox.push(StoreMessage::Failed(why));
                        return;
                    }
                }
            }
        })
    }

    fn spawn_thread(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<()> {
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
        // Nothing is ever sent: it fails as soon as the loop is gone.
        let _ = self.store.recv();
    }
}

fn defect(name: &str, panic: &(dyn Any + Send)) -> String {
    format!("{name} met a defect: {}", text_of(panic))
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}
