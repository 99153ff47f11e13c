//! Operations that write.

use std::sync::mpsc;

use basalt_engine::{ColumnFamily, Error, WriteBatch, WriteOptions};
use basalt_testkit::{Change, FamilyId, Value};

use crate::world::{Pending, Submitted, Waiting, World};

impl World {
    /// True or false for logged families; unlogged writes are never synced.
    pub(crate) fn sync(&mut self, logged: bool) -> WriteOptions {
        WriteOptions {
            sync: logged && self.rng.one_in(8),
        }
    }

    /// Takes note of a batch that has its place: its last sequence number and what it does.
    pub(crate) fn note(&mut self, seq: u64, logged: bool, changes: Vec<Change>) {
        assert!(seq > self.submitted, "sequence numbers ascend");
        self.submitted = seq;
        self.history(logged).push(seq, changes.clone());
        self.pending.push_back(Pending { seq, changes });
    }

    /// Takes note of a batch that was acknowledged.
    fn note_written(&mut self, logged: bool, options: WriteOptions, changes: Vec<Change>) {
        self.note(self.submitted + changes.len() as u64, logged, changes);
        if options.sync {
            self.synced = self.submitted;
        }
    }

    pub(crate) fn put(&mut self) {
        let cf = self.any_family();
        let (key, value) = (
            self.keys.known(&mut self.rng),
            self.keys.value(&mut self.rng),
        );
        let options = self.sync(cf.is_logged());
        self.db.put(&cf, &key, &value, options).expect("a put");
        self.note_written(
            cf.is_logged(),
            options,
            vec![Change::Put(cf.id(), key, value)],
        );
        self.counts.puts += 1;
    }

    /// An operand for `key`, where the family takes it and the value is not long already.
    fn draw_operand(&mut self, cf: &ColumnFamily, key: &[u8]) -> Option<Value> {
        let published = self.published.map(cf.id());
        let len = published
            .and_then(|map| map.get(key))
            .map_or(0, |value| value.len());
        if cf.options().merge_operator.is_none() || len > 2000 {
            return None;
        }
        let value = self.keys.value(&mut self.rng);
        Some(value[..value.len().min(24)].into())
    }

    pub(crate) fn merge(&mut self) {
        let cf = self.any_family();
        let key = self.keys.known(&mut self.rng);
        let Some(operand) = self.draw_operand(&cf, &key) else {
            return self.put();
        };
        let options = self.sync(cf.is_logged());
        self.db
            .merge(&cf, &key, &operand, options)
            .expect("a merge");
        let change = Change::Merge(cf.id(), key, operand);
        self.note_written(cf.is_logged(), options, vec![change]);
        self.counts.merges += 1;
    }

    pub(crate) fn delete(&mut self) {
        let cf = self.any_family();
        let key = self.keys.any(&mut self.rng);
        let options = self.sync(cf.is_logged());
        self.db.delete(&cf, &key, options).expect("a delete");
        self.note_written(cf.is_logged(), options, vec![Change::Delete(cf.id(), key)]);
        self.counts.deletes += 1;
    }

    pub(crate) fn delete_range(&mut self) {
        let cf = self.any_family();
        let (start, end) = self.keys.pair(&mut self.rng);
        let options = self.sync(cf.is_logged());
        self.db
            .delete_range(&cf, &start, &end, options)
            .expect("a range delete");
        if start < end {
            let change = Change::DeleteRange(cf.id(), start, end);
            self.note_written(cf.is_logged(), options, vec![change]);
            self.counts.range_deletes += 1;
        }
    }

    /// A batch of up to `most` operations over `families`, and what it does.
    pub(crate) fn draw_batch(
        &mut self,
        families: &[ColumnFamily],
        most: usize,
    ) -> (WriteBatch, Vec<Change>) {
        let mut batch = WriteBatch::new();
        let mut changes = Vec::new();
        for _ in 0..self.rng.index(most + 1) {
            let cf = self.rng.pick(families).clone();
            match self.rng.below(10) {
                0 | 1 => {
                    let key = self.keys.any(&mut self.rng);
                    batch.delete(&cf, &key);
                    changes.push(Change::Delete(cf.id(), key));
                }
                2 => {
                    let (start, end) = self.keys.pair(&mut self.rng);
                    batch.delete_range(&cf, &start, &end);
                    if start < end {
                        changes.push(Change::DeleteRange(cf.id(), start, end));
                    }
                }
                3 if most > 6 => {
                    let run = self.keys.run(&mut self.rng, 20).to_vec();
                    for key in run {
                        let value = self.keys.value(&mut self.rng);
                        batch.put(&cf, &key, &value);
                        changes.push(Change::Put(cf.id(), key, value));
                    }
                }
                4 | 5 if cf.options().merge_operator.is_some() => {
                    let key = self.keys.known(&mut self.rng);
                    let Some(operand) = self.draw_operand(&cf, &key) else {
                        continue;
                    };
                    batch.merge(&cf, &key, &operand);
                    changes.push(Change::Merge(cf.id(), key, operand));
                }
                _ => {
                    let key = self.keys.known(&mut self.rng);
                    let value = self.keys.value(&mut self.rng);
                    batch.put(&cf, &key, &value);
                    changes.push(Change::Put(cf.id(), key, value));
                }
            }
        }
        assert_eq!(batch.len(), changes.len());
        (batch, changes)
    }

    pub(crate) fn write_batch(&mut self) {
        let families = self.one_class();
        let logged = families[0].is_logged();
        let (batch, changes) = self.draw_batch(&families, 12);
        let options = self.sync(logged);
        let seq = self.db.write(batch, options).expect("a write");
        if changes.is_empty() {
            assert!(seq.0 <= self.submitted);
            return;
        }
        assert_eq!(
            seq.0,
            self.submitted + changes.len() as u64,
            "one number an operation"
        );
        self.note_written(logged, options, changes);
        self.counts.batches += 1;
    }

    pub(crate) fn submit(&mut self) {
        let families = self.one_class();
        let logged = families[0].is_logged();
        let (batch, changes) = self.draw_batch(&families, 5);
        let options = self.sync(logged);
        let ticket = match self.db.submit(batch, options) {
            Ok(ticket) => ticket,
            Err(Error::Busy(_)) => {
                self.run_jobs();
                return;
            }
            Err(error) => panic!("submit: {error}"),
        };
        if changes.is_empty() {
            ticket.wait().expect("nothing to do");
            return;
        }
        let seq = self.submitted + changes.len() as u64;
        self.note(seq, logged, changes);
        let waiting = if self.rng.one_in(3) {
            let (sender, receiver) = mpsc::channel();
            ticket.on_done(move |result| {
                // Nobody listens any more where the process has died.
                let _ = sender.send(result);
            });
            Waiting::Callback(receiver)
        } else {
            Waiting::Ticket(ticket)
        };
        self.tickets.push(Submitted {
            seq,
            sync: options.sync,
            waiting,
        });
        self.counts.submits += 1;
    }

    /// Hears of one of the submitted batches.
    pub(crate) fn settle_one(&mut self) {
        if self.tickets.is_empty() {
            return;
        }
        let at = self.rng.index(self.tickets.len());
        let Submitted { seq, sync, waiting } = self.tickets.swap_remove(at);
        let again = |waiting| Submitted { seq, sync, waiting };
        let heard = match waiting {
            Waiting::Ticket(ticket) if self.rng.one_in(2) => match ticket.poll() {
                Some(result) => result,
                None => {
                    self.tickets.push(again(Waiting::Ticket(ticket)));
                    return;
                }
            },
            Waiting::Ticket(ticket) => ticket.wait(),
            Waiting::Callback(receiver) => match receiver.try_recv() {
                Ok(result) => result,
                Err(mpsc::TryRecvError::Empty) => {
                    self.tickets.push(again(Waiting::Callback(receiver)));
                    return;
                }
                Err(mpsc::TryRecvError::Disconnected) => panic!("a callback was dropped uncalled"),
            },
        };
        assert_eq!(heard.expect("a good disk").0, seq);
        assert!(
            self.db.last_seq().0 >= seq,
            "an acknowledged batch is published"
        );
        if sync {
            self.synced = self.synced.max(seq);
        }
        self.counts.tickets += 1;
    }

    /// Calls that must be refused and change nothing.
    pub(crate) fn refusals(&mut self) {
        let key = self.keys.known(&mut self.rng);
        let invalid = |result: basalt_engine::Result<()>| {
            assert!(
                matches!(result, Err(Error::InvalidArgument(_))),
                "{result:?}"
            );
        };
        let of_class = |logged: bool| {
            self.families
                .iter()
                .map(|(cf, _)| cf)
                .find(|cf| cf.is_logged() == logged)
                .cloned()
        };
        if let (Some(logged), Some(unlogged)) = (of_class(true), of_class(false)) {
            let mut batch = WriteBatch::new();
            batch.put(&logged, &key, b"x");
            batch.put(&unlogged, &key, b"x");
            invalid(self.db.write(batch, WriteOptions::NO_SYNC).map(|_| ()));
            invalid(self.db.put(&unlogged, &key, b"x", WriteOptions::SYNC));
            let other = basalt_engine::CfOptions::default();
            invalid(self.db.open_cf(unlogged.name(), other.clone()).map(|_| ()));
            invalid(self.db.create_cf(logged.name(), other).map(|_| ()));
        }
        invalid(self.db.drop_cf(&self.db.default_cf()));
        for cf in &self.dropped {
            let put = self.db.put(cf, &key, b"x", WriteOptions::NO_SYNC);
            assert!(matches!(put, Err(Error::NoSuchColumnFamily(_))), "{put:?}");
            let get = self.db.get(cf, &key);
            assert!(matches!(get, Err(Error::NoSuchColumnFamily(_))), "{get:?}");
        }
        let long = vec![0; basalt_engine::MAX_KEY_LEN + 1];
        invalid(
            self.db
                .put(&self.db.default_cf(), &long, b"", WriteOptions::NO_SYNC),
        );
        self.counts.refusals += 1;
    }

    /// Drops a family, or creates one under a name that may have been used before.
    pub(crate) fn create_or_drop(&mut self) {
        let names = ["a", "b", "c", "u", "v", "w"];
        let name = *self.rng.pick(&names);
        let found = self.families.iter().position(|(cf, _)| cf.name() == name);
        let Some(at) = found else {
            let logged = self.rng.one_in(2);
            self.create_family(name, logged);
            return;
        };
        if self.families.len() <= 3 {
            return;
        }
        let (cf, _) = self.families.remove(at);
        self.db.drop_cf(&cf).expect("a drop");
        self.forget_family(cf.id(), cf.is_logged());
        for iter in self.iters.iter_mut().filter(|iter| iter.family == cf.id()) {
            iter.family_dropped = true;
        }
        self.dropped.push(cf);
        self.dropped.truncate(4);
        self.counts.families_dropped += 1;
    }

    fn forget_family(&mut self, id: FamilyId, logged: bool) {
        self.published.drop_family(id);
        self.history(logged).drop_family(id);
    }
}
