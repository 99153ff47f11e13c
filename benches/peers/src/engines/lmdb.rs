//! LMDB, through heed, as a [`Store`]. Its cache is the system's, whatever the settings say; what is not durable
//! goes to the system without waiting for the disk.

use std::{ops::Bound, path::Path};

use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithTls, types::Bytes};

use crate::{
    data::Key,
    store::{Pair, Settings, Store},
};

/// Bytes of addresses for the file to grow into.
const MAP: usize = 32 << 30;

pub struct Lmdb {
    env: &'static Env<WithTls>,
    keys: Database<'static, Bytes, Bytes>,
    durable: bool,
}

impl Lmdb {
    pub fn open(dir: &Path, settings: Settings) -> Self {
        let mut flags = EnvFlags::NO_READ_AHEAD;
        if !settings.durable {
            flags |= EnvFlags::NO_SYNC;
        }
        let mut options = EnvOpenOptions::new();
        options.map_size(MAP).max_dbs(2).max_readers(126);
        // SAFETY: the file is opened once, by this process alone, which keeps to the flags.
        let env = unsafe { options.flags(flags).open(dir) }.expect("open");
        // For ever: a process opens one store, or two one after the other.
        let env: &'static Env<WithTls> = Box::leak(Box::new(env));
        let write = env.write_txn().expect("a transaction");
        let keys = env.create_databases_and_commit(write, |databases, write| {
            let keys = databases.create_database::<Bytes, Bytes>(write, Some("keys"))?;
            Ok::<_, heed::Error>(CommitOrAbort::<_, ()>::Commit(keys))
        });
        let keys = keys.expect("a database").unwrap_commit();
        Self {
            env,
            keys,
            durable: settings.durable,
        }
    }

    fn write<'a>(&self, durable: bool, pairs: impl Iterator<Item = (&'a Key, &'a [u8])>) {
        let mut write = self.env.write_txn().expect("a transaction");
        for (key, value) in pairs {
            self.keys.put(&mut write, key, value).expect("put");
        }
        write.commit().expect("a commit");
        if durable && !self.durable {
            self.env.force_sync().expect("sync");
        }
    }
}

impl Store for Lmdb {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        self.write(durable, std::iter::once((key, value)));
    }

    fn put_all(&self, pairs: &[Pair], durable: bool) {
        let pairs = pairs.iter().map(|(key, value)| (key, value.as_slice()));
        self.write(durable, pairs);
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(&[u8])) -> bool {
        let read = self.env.read_txn().expect("a transaction");
        let value = self.keys.get(&read, key).expect("get");
        value.map(see).is_some()
    }

    fn walk(&self, from: Option<&Key>, backward: bool, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let read = self.env.read_txn().expect("a transaction");
        let end = from.map_or(Bound::Unbounded, |key| Bound::Included(key.as_slice()));
        let mut show = |entry: heed::Result<(&[u8], &[u8])>| {
            let (key, value) = entry.expect("an entry");
            see(key, value)
        };
        if backward {
            let range = (Bound::Unbounded, end);
            let mut entries = self.keys.rev_range(&read, &range).expect("a range");
            entries.all(&mut show);
        } else {
            let range = (end, Bound::Unbounded);
            let mut entries = self.keys.range(&read, &range).expect("a range");
            entries.all(&mut show);
        }
    }

    fn remove(&self, from: &Key, to: &Key) {
        let mut write = self.env.write_txn().expect("a transaction");
        let range = (
            Bound::Included(from.as_slice()),
            Bound::Excluded(to.as_slice()),
        );
        let removed = self.keys.delete_range(&mut write, &range);
        removed.expect("a range");
        write.commit().expect("a commit");
    }

    fn settle(&self) {
        self.env.force_sync().expect("sync");
    }

    fn close(self: Box<Self>) {
        self.env.force_sync().expect("sync");
        self.env.clone().prepare_for_closing();
    }
}
