//! fjall as a [`Store`].

use std::path::Path;

use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode,
    config::{
        BlockSizePolicy, BloomConstructionPolicy, CompressionPolicy, FilterPolicy,
        FilterPolicyEntry,
    },
};

use crate::{
    data::Key,
    store::{Pair, Settings, Store, wait_until_still},
};

pub struct Fjall {
    db: Database,
    keys: Keyspace,
}

impl Fjall {
    pub fn open(dir: &Path, settings: Settings) -> Self {
        let journal = (4 * settings.memtable).max(512 << 20) as u64;
        let db = Database::builder(dir)
            .cache_size(settings.cache as u64)
            .worker_threads(2)
            .max_journaling_size(journal)
            .open()
            .expect("open");
        let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(settings.memtable as u64)
                .data_block_size_policy(BlockSizePolicy::all(4096))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .filter_policy(FilterPolicy::all(bloom))
        };
        let keys = db.keyspace("keys", options).expect("a keyspace");
        Self { db, keys }
    }
}

impl Store for Fjall {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        if durable {
            let mut batch = self.db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&self.keys, *key, value);
            batch.commit().expect("put");
        } else {
            self.keys.insert(*key, value).expect("put");
        }
    }

    fn put_all(&self, pairs: &[Pair], durable: bool) {
        let mut batch = self.db.batch();
        if durable {
            batch = batch.durability(Some(PersistMode::SyncData));
        }
        for (key, value) in pairs {
            batch.insert(&self.keys, *key, value.as_slice());
        }
        batch.commit().expect("a batch");
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(&[u8])) -> bool {
        let value = self.keys.get(key).expect("get");
        if let Some(value) = &value {
            see(value);
        }
        value.is_some()
    }

    fn walk(&self, from: Option<&Key>, backward: bool, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let mut show = |guard: Guard| {
            let (key, value) = guard.into_inner().expect("an entry");
            see(&key, &value)
        };
        let key = from.map(Key::as_slice);
        match (key, backward) {
            (None, false) => self.keys.iter().all(&mut show),
            (None, true) => self.keys.iter().rev().all(&mut show),
            (Some(key), false) => self.keys.range(key..).all(&mut show),
            (Some(key), true) => self.keys.range(..=key).rev().all(&mut show),
        };
    }

    fn remove(&self, from: &Key, to: &Key) {
        let mut batch = self.db.batch();
        for guard in self.keys.range(from.as_slice()..to.as_slice()) {
            batch.remove(&self.keys, guard.key().expect("an entry"));
        }
        batch.commit().expect("a batch");
    }

    fn settle(&self) {
        self.keys.rotate_memtable_and_wait().expect("flush");
        // No call waits for compactions.
        wait_until_still(|| {
            let idle = self.db.outstanding_flushes() == 0 && self.db.active_compactions() == 0;
            (self.db.compactions_completed(), idle)
        });
    }

    fn close(self: Box<Self>) {
        self.db.persist(PersistMode::SyncAll).expect("close");
    }
}
