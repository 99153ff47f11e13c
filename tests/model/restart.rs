//! The ends of a database's life and what must be there afterwards.

use std::{collections::VecDeque, sync::Arc};

use basalt_engine::{
    ColumnFamily, Db, Error, ReadOptions,
    executor::SimExecutor,
    fs::{SimFs, sim::Survival},
    verify_dir,
};
use basalt_testkit::{FamilyId, History, Map, Model, Value};

use crate::{
    choose,
    world::{Pending, Place, Waiting, World, check_files, compare},
};

/// What is left where the process dies.
struct Image {
    fs: Arc<SimFs>,
    executor: Arc<SimExecutor>,
}

impl World {
    /// Ends the database in one of the ways there are, opens it again and compares.
    pub(crate) fn restart(&mut self) {
        self.catch_up();
        // The place of each unlogged family that must have been reached.
        let flushed = self.unlogged_flushed(&self.db);
        let unlogged_at = self.submitted;
        let image = self.die();
        if image.is_none() {
            self.end_cleanly();
        }
        self.harvest();
        for (snapshot, _) in std::mem::take(&mut self.snapshots) {
            drop(snapshot);
        }
        self.iters.clear();
        self.tickets.clear();
        let executor_seed = self.rng.next_u64();
        let image = image.map(|fs| Image {
            fs,
            executor: Arc::new(SimExecutor::new(executor_seed)),
        });
        let died = image.is_some();
        self.reopen(image);

        let reached = self.unlogged_flushed(&self.db);
        assert!(
            reached >= flushed,
            "a flush was taken back: {reached}, was {flushed}"
        );
        self.counts.deaths_with_loss += u64::from(died && reached < unlogged_at);
        let base = self.unlogged.at(reached);
        for (id, family) in base.families() {
            self.published.set_map(id, Arc::clone(&family.map));
        }
        self.unlogged = History::new(base);
        self.find_logged(died);
        self.submitted = self.db.last_seq().0;
        self.check_after_open();
    }

    /// Up to where the unlogged families are in tables: one point for all of them, whatever their age.
    fn unlogged_flushed(&self, db: &Db) -> u64 {
        let unlogged = self.families.iter().filter(|(cf, _)| !cf.is_logged());
        unlogged
            .filter_map(|(cf, _)| db.cf(cf.name()).ok())
            .map(|cf| db.flushed_seq(&cf).0)
            .max()
            .unwrap_or(0)
    }

    /// Takes the disk as the death of the process leaves it, in one of three cases.
    fn die(&mut self) -> Option<Arc<SimFs>> {
        let Place::Sim { fs, .. } = &self.place else {
            return None;
        };
        self.rng.one_in(3).then(|| fs.crash(Survival::ProcessDeath))
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
        for (seq, waiting) in std::mem::take(&mut self.tickets) {
            let heard = match waiting {
                Waiting::Ticket(ticket) => ticket.poll().expect("close answers all"),
                Waiting::Callback(receiver) => receiver.recv().expect("close answers all"),
            };
            assert_eq!(heard.expect("a good disk").0, seq);
        }
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
    fn reopen(&mut self, image: Option<Image>) {
        let (place, old_place) = match image {
            Some(Image { fs, executor }) => (Some(Place::Sim { fs, executor }), true),
            None => (None, false),
        };
        // A database has to be there while the old one goes: an empty one on a disk of its own.
        let spare = Place::sim(0);
        let nothing = choose::options(&mut self.rng, spare.fs(), spare.executor());
        let nothing = Db::open("/nothing", nothing).expect("a new database");
        let old = std::mem::replace(&mut self.db, nothing);
        drop(old);
        if old_place {
            self.dropped.clear();
            self.counts.deaths += 1;
        }
        if let Some(place) = place {
            self.place = place;
        }
        let options = self.db_options();
        self.db = Db::open(self.dir(), options).expect("it opens");
        self.listen();
        for (cf, options) in &mut self.families {
            let id = cf.id();
            *cf = self.db.cf(cf.name()).expect("it is kept");
            assert_eq!(cf.id(), id);
            assert_eq!(*cf.options(), *options, "options are kept");
        }
    }

    /// Which of the submitted logged batches are there: all where the end was clean, else the first so many.
    fn find_logged(&mut self, died: bool) {
        let mut unsure: VecDeque<Pending> = std::mem::take(&mut self.pending)
            .into_iter()
            .filter(|batch| batch.logged)
            .collect();
        assert!(died || unsure.is_empty());
        let there = logged_maps(&self.db);
        while !is_same(&there, &self.published) {
            let Some(batch) = unsure.pop_front() else {
                compare(&self.db, &self.published, None, false);
                unreachable!("the comparison differs");
            };
            for change in &batch.changes {
                self.published.apply(change);
            }
        }
    }

    fn check_after_open(&mut self) {
        compare(&self.db, &self.published, None, self.rng.one_in(2));
        self.counts.comparisons += 1;
        if self.rng.one_in(4) {
            let at = self.rng.index(self.families.len());
            self.change_options(at);
        }
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
