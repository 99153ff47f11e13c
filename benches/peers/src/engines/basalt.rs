//! Basalt's engine as a [`Store`].

use std::{cell::RefCell, path::Path};

use basalt_engine::{CfOptions, ColumnFamily, Db, Options, ReadOptions, WriteBatch, WriteOptions};

use crate::{
    data::Key,
    store::{Pair, Settings, Store},
};

pub struct Basalt {
    db: Db,
    family: ColumnFamily,
}

thread_local! {
    /// Where values are copied to, as a caller would who reads often.
    static VALUE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Basalt {
    pub fn open(dir: &Path, settings: Settings) -> Self {
        let options = Options {
            block_cache_bytes: settings.cache,
            max_log_bytes: (4 * settings.memtable).max(512 << 20) as u64,
            memtable_budget_bytes: (4 * settings.memtable).max(512 << 20),
            ..Options::default()
        };
        let db = Db::open(dir, options).expect("open");
        let family = CfOptions {
            write_buffer_bytes: settings.memtable,
            ..CfOptions::default()
        };
        let family = db.open_cf("default", family).expect("a family");
        Self { db, family }
    }
}

impl Store for Basalt {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        let options = WriteOptions { sync: durable };
        self.db.put(&self.family, key, value, options).expect("put");
    }

    fn put_all(&self, pairs: &[Pair], durable: bool) {
        let mut batch = WriteBatch::new();
        for (key, value) in pairs {
            batch.put(&self.family, key, value);
        }
        let options = WriteOptions { sync: durable };
        self.db.write(batch, options).expect("a batch");
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(&[u8])) -> bool {
        VALUE.with_borrow_mut(|value| {
            let found = self.db.get_into(&self.family, key, value).expect("get");
            if found {
                see(value);
            }
            found
        })
    }

    fn walk(&self, from: Option<&Key>, backward: bool, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let options = ReadOptions::default();
        let mut cursor = self.db.iter(&self.family, &options).expect("a cursor");
        match (from, backward) {
            (None, false) => cursor.seek_to_first(),
            (None, true) => cursor.seek_to_last(),
            (Some(key), false) => cursor.seek(key),
            (Some(key), true) => cursor.seek_for_prev(key),
        }
        .expect("seek");
        while cursor.valid() && see(cursor.key(), cursor.value()) {
            let moved = if backward {
                cursor.prev()
            } else {
                cursor.next()
            };
            moved.expect("a step");
        }
    }

    fn remove(&self, from: &Key, to: &Key) {
        let options = WriteOptions::NO_SYNC;
        let done = self.db.delete_range(&self.family, from, to, options);
        done.expect("a range delete");
    }

    fn settle(&self) {
        self.db.flush_all().expect("flush");
        let done = self.db.wait_for_background_work();
        done.expect("background work");
    }

    fn close(self: Box<Self>) {
        self.db.close().expect("close");
    }
}
