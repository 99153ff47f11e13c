//! The ends of a database's life and what must be there afterwards.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

use basalt_engine::{
    CfOptions, ColumnFamily, Db, Error, MergeSetting, ReadOptions, WriteOptions,
    executor::SimExecutor,
    fs::{SimFs, sim::Survival},
    verify_dir,
};
use basalt_testkit::{FamilyId, History, Map, Model, Value};

use crate::{
    choose,
    world::{Place, World, check_files, compare},
};

/// A disk as a crash leaves it, and what must be on it.
struct Death {
    image: Arc<SimFs>,
    executor: Arc<SimExecutor>,
    /// Logged writes up to here were acknowledged in a way that survives this crash.
    logged: u64,
    /// Unlogged writes up to here were in tables.
    unlogged: u64,
}

impl World {
    /// Ends the database in one of the ways there are, opens it again and compares.
    pub(crate) fn restart(&mut self) {
        let death = match self.rng.below(6) {
            0 => self.die(),
            1 | 2 => self.die_midway(),
            _ => None,
        };
        self.catch_up();
        let died = death.is_some();
        let logged = death.as_ref().map_or(self.submitted, |death| death.logged);
        let unlogged = death
            .as_ref()
            .map_or_else(|| self.unlogged_flushed(), |death| death.unlogged);
        let last = self.submitted;
        if !died {
            self.end_cleanly();
        }
        self.harvest();
        self.snapshots.clear();
        self.iters.clear();
        self.tickets.clear();
        self.pending.clear();
        self.reopen(death);

        let reached = self.unlogged_flushed();
        assert!(
            reached >= unlogged,
            "a flush was taken back: {reached}, was {unlogged}"
        );
        self.counts.deaths_with_unlogged_loss += u64::from(died && reached < last);
        let state = self.unlogged.at(reached);
        self.take_over(&state);
        self.unlogged = History::new(state);
        let (state, lost) = self.find_logged(logged);
        self.take_over(&state);
        self.counts.deaths_with_logged_loss += u64::from(lost > 0);
        assert!(died || lost == 0, "all of it survives a clean end");
        self.logged = History::new(state);
        self.submitted = self.db.last_seq().0;
        self.synced = self.submitted;
        compare(&self.db, &self.published, None, self.rng.one_in(2));
        self.counts.comparisons += 1;
        if self.rng.one_in(4) {
            let at = self.rng.index(self.families.len());
            self.change_options(at);
        }
    }

    /// Makes the families of `state` what is published.
    fn take_over(&mut self, state: &Model) {
        for (id, family) in state.families() {
            self.published.set_map(id, Arc::clone(&family.map));
        }
    }

    /// Up to where the unlogged families are in tables: one point for all of them, whatever their age.
    fn unlogged_flushed(&self) -> u64 {
        self.flushed(false)
    }

    fn flushed(&self, logged: bool) -> u64 {
        let class = self
            .families
            .iter()
            .filter(|(cf, _)| cf.is_logged() == logged);
        class
            .map(|(cf, _)| self.db.flushed_seq(cf).0)
            .max()
            .unwrap_or(0)
    }

    /// What survives `how` if it comes now: up to which logged write, and which unlogged one.
    fn surviving(&mut self, how: Survival) -> (u64, u64) {
        let logged = match how {
            // What is visible is acknowledged.
            Survival::ProcessDeath | Survival::KeepAll => self.db.last_seq().0,
            _ => self.synced.max(self.flushed(true)),
        };
        (logged, self.unlogged_flushed())
    }

    fn draw_survival(&mut self) -> Survival {
        match self.rng.below(8) {
            0..=3 => Survival::ProcessDeath,
            4 => Survival::LoseUnsynced,
            5 => Survival::KeepAll,
            _ => Survival::Random {
                seed: self.rng.next_u64(),
            },
        }
    }

    /// Takes the disk as a crash between two operations leaves it.
    fn die(&mut self) -> Option<Death> {
        let Place::Sim { fs, .. } = &self.place else {
            return None;
        };
        let fs = Arc::clone(fs);
        let how = self.draw_survival();
        let (logged, unlogged) = self.surviving(how);
        self.counts.deaths += 1;
        Some(Death {
            image: fs.crash(how),
            executor: Arc::new(SimExecutor::new(self.rng.next_u64())),
            logged,
            unlogged,
        })
    }

    /// Takes the disk as a crash in the midst of an operation leaves it, between any two changes of the disk.
    fn die_midway(&mut self) -> Option<Death> {
        let Place::Sim { fs, .. } = &self.place else {
            return None;
        };
        let fs = Arc::clone(fs);
        let how = self.draw_survival();
        let changes_left = AtomicU64::new(self.rng.below(120));
        let taken: Arc<Mutex<Option<Arc<SimFs>>>> = Arc::default();
        let slot = Arc::clone(&taken);
        fs.set_observer(Some(Arc::new(move |fs, _, _| {
            // The last change that is waited for finds zero left; the ones after it find more than ever.
            if changes_left.fetch_sub(1, Ordering::Relaxed) == 0 {
                *slot.lock().expect("no panic holds it") = Some(fs.crash(how));
            }
        })));
        self.hunting = true;
        let mut death = None;
        for _ in 0..400 {
            let (logged, unlogged) = self.surviving(how);
            crate::plain_operation(self);
            self.counts.operations += 1;
            if let Some(image) = taken.lock().expect("no panic holds it").take() {
                death = Some(Death {
                    image,
                    executor: Arc::new(SimExecutor::new(self.rng.next_u64())),
                    logged,
                    unlogged,
                });
                break;
            }
        }
        self.hunting = false;
        fs.set_observer(None);
        self.counts.deaths_midway += u64::from(death.is_some());
        death
    }

    /// Closes the database, or lets its last handle go, with iterators alive or not.
    fn end_cleanly(&mut self) {
        self.dropped.clear();
        let keep_iters = self.rng.one_in(2);
        if !keep_iters {
            for iter in std::mem::take(&mut self.iters) {
                self.retire(iter, false);
            }
        }
        if self.rng.one_in(3) {
            // `reopen` drops the last handle.
            for iter in std::mem::take(&mut self.iters) {
                self.retire(iter, false);
            }
            self.settle_all();
            self.counts.dropped_reopens += 1;
            return;
        }
        self.db.clone().close().expect("a clean close");
        let visible = self.db.last_seq().0;
        self.catch_up_to(visible);
        assert!(self.pending.is_empty(), "close finishes what was submitted");
        self.hear_all();
        let refused = Db::open(self.dir(), self.db_options());
        assert!(
            matches!(refused, Err(Error::Locked { .. })),
            "handles are alive: {refused:?}"
        );
        for iter in std::mem::take(&mut self.iters) {
            self.retire(iter, true);
        }
        self.snapshots.clear();
        // What an iterator held at the close goes at the next open.
        if keep_iters {
            self.counts.clean_reopens += 1;
            return;
        }
        check_files(&*self.place.fs(), &self.dir(), &self.db.stats());
        self.counts.clean_reopens += 1;
    }

    fn db_options(&mut self) -> basalt_engine::Options {
        choose::options(&mut self.rng, self.place.fs(), self.place.executor())
    }

    /// Replaces the database by one opened on what is left.
    fn reopen(&mut self, death: Option<Death>) {
        // A database has to be there while the old one goes: an empty one on a disk of its own.
        let spare = Place::sim(0);
        let nothing = choose::options(&mut self.rng, spare.fs(), spare.executor());
        let nothing = Db::open("/nothing", nothing).expect("a new database");
        drop(std::mem::replace(&mut self.db, nothing));
        if let Some(Death {
            image, executor, ..
        }) = death
        {
            self.dropped.clear();
            self.place = Place::Sim {
                fs: image,
                executor,
            };
        }
        let options = self.db_options();
        self.db = Db::open(self.dir(), options).expect("it opens");
        self.listen();
        for (cf, options) in &mut self.families {
            let id = cf.id();
            *cf = self.db.cf(cf.name()).expect("it is kept");
            assert_eq!(cf.id(), id);
            // These two are not stored.
            let kind = std::mem::take(&mut options.memtable);
            let defaults = CfOptions::default();
            let large =
                std::mem::replace(&mut options.large_value_bytes, defaults.large_value_bytes);
            let operator = options.merge_operator.take();
            let mut kept = CfOptions::clone(&cf.options());
            let name = kept.merge_operator.take();
            assert_eq!(kept, *options, "options are kept");
            let named = |setting: &Option<MergeSetting>| {
                setting.as_ref().map(|setting| setting.name().to_owned())
            };
            assert_eq!(
                named(&name),
                named(&operator),
                "the operator's name is kept"
            );
            if let Some(name) = name {
                assert!(!name.is_given(), "its code is not");
                let refused = [
                    self.db.merge(cf, b"k", b"v", WriteOptions::NO_SYNC),
                    self.db.open_cf(cf.name(), options.clone()).map(|_| ()),
                ];
                for refused in refused {
                    assert!(
                        matches!(refused, Err(Error::InvalidArgument(_))),
                        "{refused:?}"
                    );
                    self.counts.merge_refusals += 1;
                }
            }
            options.merge_operator = operator;
            if options.merge_operator.is_some() || self.rng.one_in(2) {
                (options.memtable, options.large_value_bytes) = (kind, large);
                let again = self.db.open_cf(cf.name(), options.clone());
                assert!(again.expect("the same class").id() == cf.id());
            }
        }
    }

    /// The state of the logged families: one after a write from `from` on. And the number of writes that it lacks.
    fn find_logged(&mut self, from: u64) -> (Model, usize) {
        let least = self.logged.last_up_to(from).unwrap_or(0);
        let last = self.db.last_seq().0;
        assert!(
            last >= least,
            "acknowledged writes keep their numbers: {last} < {least}"
        );
        let there = logged_maps(&self.db);
        let mut state = self.logged.at(from);
        let mut later = self.logged.after(from);
        while !is_same(&there, &state) {
            let Some(batch) = later.next() else {
                self.published = self.logged.at(from);
                eprintln!(
                    "the state is none after any write from {from} on; the difference to that one:"
                );
                compare(&self.db, &self.published, None, false);
                unreachable!("the comparison differs");
            };
            for change in batch {
                state.apply(change);
            }
        }
        let lost = later.count();
        (state, lost)
    }

    /// The last checks of an episode.
    pub(crate) fn finish(mut self) -> crate::counts::Counts {
        self.settle_all();
        for iter in std::mem::take(&mut self.iters) {
            self.retire(iter, false);
        }
        for (snapshot, model) in std::mem::take(&mut self.snapshots) {
            compare(&self.db, &model, Some(&snapshot), false);
        }
        self.compare_all();
        self.db.flush_all().expect("a flush");
        self.verify();
        self.db.clone().close().expect("a clean close");
        self.harvest();
        check_files(&*self.place.fs(), &self.dir(), &self.db.stats());
        let published: Model = self.published.clone();
        self.reopen(None);
        compare(&self.db, &published, None, true);
        assert_eq!(self.db.recovery().operations, 0, "all was flushed");
        self.db.clone().close().expect("a clean close");
        let stats = self.db.stats();
        check_files(&*self.place.fs(), &self.dir(), &stats);
        let names = self.place.fs().list_dir(&self.dir()).expect("a directory");
        let logs = names.iter().filter(|name| name.ends_with(".log")).count();
        // The one written, the one it follows, and the one prepared.
        assert!(
            logs <= 3 && stats.log_segments <= 2,
            "old logs are left: {names:?}"
        );
        let options = self.db_options();
        let dir = self.dir();
        let place = self.place;
        drop(self.db);
        let report = verify_dir(&dir, &options).expect("a good disk");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        drop(place);
        self.counts.episodes += 1;
        self.counts
    }
}

/// The entries of the logged families, by the id.
fn logged_maps(db: &Db) -> Vec<(FamilyId, Map)> {
    let logged = db.list_cfs().into_iter().filter(ColumnFamily::is_logged);
    logged
        .map(|cf| {
            let entries = db.range(&cf, &ReadOptions::default()).expect("a range");
            let entries = entries.map(|entry| {
                let (key, value) = entry.expect("a good disk");
                (key, Value::from(&*value))
            });
            (cf.id(), entries.collect())
        })
        .collect()
}

fn is_same(there: &[(FamilyId, Map)], model: &Model) -> bool {
    there
        .iter()
        .all(|(id, map)| model.map(*id).is_some_and(|wanted| **wanted == *map))
}
