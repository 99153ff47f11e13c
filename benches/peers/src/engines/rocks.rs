//! RocksDB as a [`Store`].

use std::path::Path;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use crate::{
    data::Key,
    store::{Pair, Settings, Store},
};

/// What the bindings call for write buffer managers, of which there are none here; the system's library is older.
#[cfg(feature = "rocksdb-system")]
#[unsafe(no_mangle)]
extern "C" fn rocksdb_write_buffer_manager_destroy(_: *mut std::ffi::c_void) {
    std::process::abort();
}

pub struct Rocks {
    db: DB,
}

fn writing(durable: bool) -> WriteOptions {
    let mut options = WriteOptions::default();
    options.set_sync(durable);
    options
}

impl Rocks {
    pub fn open(dir: &Path, settings: Settings) -> Self {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(&Cache::new_lru_cache(settings.cache));
        table.set_bloom_filter(10.0, false);
        table.set_block_size(4096);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::Lz4);
        options.set_write_buffer_size(settings.memtable);
        options.set_max_write_buffer_number(4);
        options.set_max_background_jobs(2);
        let db = DB::open(&options, dir).expect("open");
        Self { db }
    }
}

impl Store for Rocks {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        let done = self.db.put_opt(key, value, &writing(durable));
        done.expect("put");
    }

    fn put_all(&self, pairs: &[Pair], durable: bool) {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        let done = self.db.write_opt(batch, &writing(durable));
        done.expect("a batch");
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(&[u8])) -> bool {
        let value = self.db.get_pinned(key).expect("get");
        if let Some(value) = &value {
            see(value);
        }
        value.is_some()
    }

    fn walk(&self, from: Option<&Key>, backward: bool, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let mut cursor = self.db.raw_iterator();
        match (from, backward) {
            (None, false) => cursor.seek_to_first(),
            (None, true) => cursor.seek_to_last(),
            (Some(key), false) => cursor.seek(key),
            (Some(key), true) => cursor.seek_for_prev(key),
        }
        while let Some((key, value)) = cursor.item()
            && see(key, value)
        {
            if backward {
                cursor.prev();
            } else {
                cursor.next();
            }
        }
        cursor.status().expect("a walk");
    }

    fn remove(&self, from: &Key, to: &Key) {
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        let done = self.db.write_opt(batch, &writing(false));
        done.expect("a range delete");
    }

    fn settle(&self) {
        self.db.flush().expect("flush");
        // The call that waits for compactions is missing in the versions that systems ship.
        let is_zero = |name| self.db.property_int_value(name).expect("a property") == Some(0);
        while ![
            "rocksdb.mem-table-flush-pending",
            "rocksdb.num-running-flushes",
            "rocksdb.compaction-pending",
            "rocksdb.num-running-compactions",
        ]
        .into_iter()
        .all(is_zero)
        {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    fn close(self: Box<Self>) {}
}
