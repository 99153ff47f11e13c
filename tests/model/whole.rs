//! Operations on a whole database or family: flush, compaction, checkpoint, ingest, verify.

use basalt_engine::{ColumnFamily, Db, Ingest, TableFile, WriteOptions};
use basalt_testkit::Change;

use crate::{
    choose,
    world::{World, compare, give_operators, remove_dir},
};

impl World {
    /// Lets some background work happen.
    pub(crate) fn run_jobs(&mut self) {
        for _ in 0..=self.rng.index(3) {
            if !self.place.executor().help() {
                break;
            }
        }
    }

    pub(crate) fn flush(&mut self) {
        let cf = self.any_family();
        let before = self.submitted;
        if self.rng.one_in(4) {
            self.db.flush_all().expect("a flush");
        } else {
            self.db.flush(&cf).expect("a flush");
        }
        self.catch_up();
        let stats = self.db.stats();
        let found = stats
            .families
            .iter()
            .find(|f| f.id == cf.id())
            .expect("alive");
        assert_eq!(found.immutable_memtables, 0, "flushed up to {before}");
        if !cf.is_logged() && !self.hunting {
            self.unlogged.forget_before(self.db.flushed_seq(&cf).0);
        }
    }

    pub(crate) fn compact_range(&mut self) {
        let cf = self.any_family();
        let (_, options) = self.keys.bounds(&mut self.rng);
        let (from, to) = (options.lower.as_deref(), options.upper.as_deref());
        self.db.compact_range(&cf, from, to).expect("a compaction");
        self.counts.compact_ranges += 1;
        if from.is_none() && to.is_none() && self.snapshots.is_empty() && self.iters.is_empty() {
            let stats = self.db.stats();
            let found = stats
                .families
                .iter()
                .find(|f| f.id == cf.id())
                .expect("alive");
            let above: usize = found.levels[..basalt_engine::LEVELS - 1]
                .iter()
                .map(|l| l.tables)
                .sum();
            assert_eq!(above, 0, "all of it is in the last level");
        }
    }

    pub(crate) fn verify(&mut self) {
        let report = self.db.verify().expect("a good disk");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        self.counts.verifications += 1;
    }

    pub(crate) fn checkpoint(&mut self) {
        let path = self.new_path("checkpoint");
        self.db.checkpoint(&path).expect("a checkpoint");
        self.catch_up();
        assert!(
            self.pending.is_empty(),
            "a checkpoint holds all that was submitted"
        );
        let fs = self.place.fs();
        let options = choose::options(&mut self.rng, fs.clone(), self.place.executor());
        let copy = Db::open(&path, options).expect("a checkpoint opens");
        give_operators(&copy);
        compare(&copy, &self.published, None, self.rng.one_in(2));
        let report = copy.verify().expect("a good disk");
        assert!(report.damage.is_empty(), "{:?}", report.damage);
        if self.rng.one_in(2) {
            // It lives its own life; what it writes and removes is not seen here.
            let cf = copy.default_cf();
            copy.put(&cf, b"of the copy", b"alone", WriteOptions::NO_SYNC)
                .expect("a put");
            copy.compact_range(&cf, None, None).expect("a compaction");
        }
        copy.close().expect("a clean close");
        remove_dir(&*fs, &path);
        self.counts.checkpoints += 1;
    }

    pub(crate) fn ingest(&mut self) {
        let class = self.one_class();
        let logged = class[0].is_logged();
        let mut request = Ingest::new();
        let mut changes = Vec::new();
        for _ in 0..self.rng.index(3) {
            let cf = self.rng.pick(&class).clone();
            let (start, end) = self.keys.pair(&mut self.rng);
            request.delete_range(&cf, &start, &end);
            if start < end {
                changes.push(Change::DeleteRange(cf.id(), start, end));
            }
        }
        let before_tables = changes.len();
        let mut paths = Vec::new();
        for cf in &class {
            if self.rng.one_in(2) {
                for (table, entries) in self.draw_tables(cf) {
                    paths.push(table.path().to_path_buf());
                    request.table(cf, table);
                    changes.extend(entries);
                }
            }
        }
        let (batch, last) = if self.rng.one_in(2) {
            self.draw_batch(&class, 4)
        } else {
            Default::default()
        };
        let is_empty = changes.is_empty() && last.is_empty();
        let numbers = before_tables + 1 + last.len();
        changes.extend(last);
        request.batch(batch);
        let seq = self.db.ingest(request).expect("an ingest").0;
        let fs = self.place.fs();
        for path in paths {
            fs.remove_file(&path).expect("the source stays");
        }
        if is_empty {
            return;
        }
        assert_eq!(
            seq,
            self.submitted + numbers as u64,
            "one number an operation, one for the tables"
        );
        self.note(seq, logged, changes);
        self.catch_up();
        assert!(
            self.pending.is_empty(),
            "an ingest is published with all before it"
        );
        let flushed = self.db.flushed_seq(&class[0]).0;
        if logged {
            self.synced = seq;
        } else {
            assert!(flushed >= seq, "an ingest is durable");
        }
        self.counts.ingests += 1;
    }

    /// Up to three tables for `cf` that do not overlap, with what they do.
    fn draw_tables(&mut self, cf: &ColumnFamily) -> Vec<(TableFile, Vec<Change>)> {
        let keys = self.keys.run(&mut self.rng, 60).to_vec();
        let mut made = Vec::new();
        for part in keys.chunks(keys.len().div_ceil(3)) {
            let path = self.new_path("table");
            let mut writer = self.db.table_writer(cf, &path).expect("a writer");
            let mut entries = Vec::new();
            for key in part {
                if self.rng.one_in(5) {
                    writer.delete(key).expect("an entry");
                    entries.push(Change::Delete(cf.id(), key.clone()));
                } else {
                    let value = self.keys.value(&mut self.rng);
                    writer.put(key, &value).expect("an entry");
                    entries.push(Change::Put(cf.id(), key.clone(), value));
                }
            }
            made.push((writer.finish().expect("a table"), entries));
        }
        made
    }
}
