//! What the observer of the disk and the callbacks of the engine share with the workload: before every change
//! of the disk, images of it as after a crash are taken and handed to the checker.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use basalt_engine::{
    Db,
    fs::{
        SimFs,
        sim::{Op, OpKind, Survival},
    },
};
use basalt_testkit::Rng;

use crate::{
    check::{Broken, Checker, DIR},
    expect::Expect,
    model::Model,
};

/// What a workload reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    Flush,
    Compaction,
    ManifestSwitch,
    Rotation,
    Recycling,
    LogRemoval,
    Ingest,
    Checkpoint,
    CreateFamily,
    DropFamily,
    UnloggedFlush,
    Resume,
    Oversize,
    Synced,
    Unsynced,
    Ticket,
    Reopen,
    Crash,
    RangeDelete,
    Failure,
}

/// Which images of which boundaries are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Images {
    /// All.
    All,
    /// One, to replay a failure.
    Only(u64, Option<Survival>),
    /// Those after a planted failure: at so many boundaries, then at every sixteenth.
    AfterFailure(u64),
}

/// What the observer and the callbacks of the engine share with the workload.
pub(crate) struct Shared {
    pub(crate) model: Mutex<Model>,
    pub(crate) checker: Arc<Checker>,
    /// Changes of the disk so far, over all lives of the database.
    pub(crate) boundary: AtomicU64,
    pub(crate) events: Mutex<BTreeMap<Event, u64>>,
    /// The database, to ask what readers see.
    pub(crate) db: Mutex<Option<Db>>,
    /// The life of the database; callbacks of an earlier one do not count.
    pub(crate) life: AtomicU64,
    /// The boundary of the first planted failure that was met.
    pub(crate) failed_at: Arc<AtomicU64>,
    pub(crate) images: Images,
    /// Every change of the disk is printed.
    pub(crate) trace: bool,
    pub(crate) name: String,
    pub(crate) seed: u64,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn count(&self, event: Event) {
        *lock(&self.events).entry(event).or_default() += 1;
    }

    pub(crate) fn broken(&self, why: impl std::fmt::Display) -> Broken {
        let boundary = self.boundary.load(Ordering::Relaxed);
        Broken(format!("at boundary {boundary}: {why}"))
    }

    /// Watches every change of `fs` from now on.
    pub(crate) fn watch(self: &Arc<Self>, fs: &SimFs) {
        let shared = Arc::downgrade(self);
        fs.set_observer(Some(Arc::new(move |fs: &SimFs, _, op: &Op| {
            if let Some(shared) = shared.upgrade() {
                shared.note(op);
                let boundary = shared.boundary.fetch_add(1, Ordering::Relaxed);
                if shared.trace {
                    println!("boundary {boundary}: {op}");
                }
                shared.cut(fs, boundary, &op.to_string());
            }
        })));
    }

    /// Takes images between two operations.
    pub(crate) fn images_now(&self, fs: &SimFs, what: &str) {
        let boundary = self.boundary.fetch_add(1, Ordering::Relaxed);
        self.cut(fs, boundary, what);
    }

    pub(crate) fn note(&self, op: &Op) {
        let name = |path: &std::path::Path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let inside = op.path.starts_with(DIR);
        let is_log = name(&op.path).ends_with(".log");
        match op.kind {
            OpKind::Rename
                if op.to.as_deref().is_some_and(|to| name(to) == "CURRENT") && inside =>
            {
                self.count(Event::ManifestSwitch);
            }
            OpKind::Rename if is_log && inside => self.count(Event::Recycling),
            OpKind::Remove if is_log => self.count(Event::LogRemoval),
            // A header with records behind it; an open writes one alone.
            OpKind::Write if is_log && inside && op.offset == 0 && op.len > 64 => {
                self.count(Event::Rotation);
                // One record that no usual segment has room for.
                if op.len > 4096 {
                    self.count(Event::Oversize);
                }
            }
            _ => {}
        }
    }

    /// Checks what a crash now would leave.
    pub(crate) fn cut(&self, fs: &SimFs, boundary: u64, op: &str) {
        if self.checker.is_broken() {
            return;
        }
        let visible = lock(&self.db).as_ref().map(|db| db.last_seq().0);
        let expect = {
            let mut model = lock(&self.model);
            if let Some(seq) = visible {
                model.published(seq);
            }
            Expect {
                // While it is being opened the mark may still be the one a power cut left.
                exact_mark: visible.is_some(),
                ..model.expect()
            }
        };
        let failed_at = self.failed_at.load(Ordering::Relaxed);
        let wanted = match self.images {
            Images::All => true,
            Images::Only(wanted, _) => wanted == boundary,
            Images::AfterFailure(count) => {
                let since = boundary.checked_sub(failed_at);
                since.is_some_and(|since| since < count || boundary.is_multiple_of(16))
            }
        };
        if !wanted {
            return;
        }
        let whole = if boundary % 8 == 7 {
            Survival::KeepAll
        } else {
            Survival::ProcessDeath
        };
        let torn = (0..self.checker.effort.torn).map(|n| Survival::Random {
            seed: Rng::new(self.seed ^ (boundary << 8) ^ n).next_u64(),
        });
        let (mut lost_hash, mut whole_hash) = (1, 2);
        for how in [whole, Survival::LoseUnsynced].into_iter().chain(torn) {
            if let Images::Only(_, Some(wanted)) = self.images
                && wanted != how
            {
                continue;
            }
            let is_torn = matches!(how, Survival::Random { .. });
            if is_torn && lost_hash == whole_hash {
                // Nothing is unsynced.
                continue;
            }
            let image = fs.crash(how);
            // Whoever opens a store on a full disk makes room first.
            image.set_capacity(None);
            match how {
                Survival::LoseUnsynced => lost_hash = image.hash(),
                Survival::Random { .. } => {}
                _ => whole_hash = image.hash(),
            }
            let trail = format!(
                "workload {}, seed {:#x}, boundary {boundary} (before {op}), {how:?}",
                self.name, self.seed
            );
            if let Err(broken) = self.checker.image(&image, how, &expect, &trail, 0) {
                let replay = format!(
                    "{broken}\n  replay: BASALT_CRASH='{}/{:#x}/{boundary}/{}' cargo test --test crash_recovery -- --nocapture",
                    self.name,
                    self.seed,
                    spell(how)
                );
                self.checker.report(Broken(replay));
                return;
            }
        }
    }
}

/// How a survival is spelled in `BASALT_CRASH`.
pub(crate) fn spell(how: Survival) -> String {
    match how {
        Survival::LoseUnsynced => "lose".to_owned(),
        Survival::KeepAll => "keep".to_owned(),
        Survival::ProcessDeath => "death".to_owned(),
        Survival::Random { seed } => format!("{seed:#x}"),
    }
}
