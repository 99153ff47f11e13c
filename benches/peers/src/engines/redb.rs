//! redb as a [`Store`]. What is not durable stays in the process until something durable comes: less than the others
//! promise.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::{
    data::Key,
    store::{Pair, Settings, Store},
};

const KEYS: TableDefinition<'static, &[u8], &[u8]> = TableDefinition::new("keys");

pub struct Redb {
    db: Database,
}

impl Redb {
    pub fn open(dir: &Path, settings: Settings) -> Self {
        let db = Database::builder()
            .set_cache_size(settings.cache)
            .create(dir.join("file"))
            .expect("open");
        let this = Self { db };
        this.write(true, |_| ());
        this
    }

    fn write(&self, durable: bool, fill: impl FnOnce(&mut redb::Table<'_, &[u8], &[u8]>)) {
        let mut write = self.db.begin_write().expect("a transaction");
        let durability = if durable {
            Durability::Immediate
        } else {
            Durability::None
        };
        write.set_durability(durability).expect("a durability");
        fill(&mut write.open_table(KEYS).expect("a table"));
        write.commit().expect("a commit");
    }
}

impl Store for Redb {
    fn put(&self, key: &Key, value: &[u8], durable: bool) {
        self.write(durable, |table| {
            table.insert(key.as_slice(), value).expect("put");
        });
    }

    fn put_all(&self, pairs: &[Pair], durable: bool) {
        self.write(durable, |table| {
            for (key, value) in pairs {
                table.insert(key.as_slice(), value.as_slice()).expect("put");
            }
        });
    }

    fn get(&self, key: &Key, see: &mut dyn FnMut(&[u8])) -> bool {
        let read = self.db.begin_read().expect("a transaction");
        let table = read.open_table(KEYS).expect("a table");
        let value = table.get(key.as_slice()).expect("get");
        if let Some(value) = &value {
            see(value.value());
        }
        value.is_some()
    }

    fn walk(&self, from: Option<&Key>, backward: bool, see: &mut dyn FnMut(&[u8], &[u8]) -> bool) {
        let read = self.db.begin_read().expect("a transaction");
        let table = read.open_table(KEYS).expect("a table");
        let key = from.map(Key::as_slice);
        let mut entries = match (key, backward) {
            (None, _) => table.range::<&[u8]>(..),
            (Some(key), false) => table.range(key..),
            (Some(key), true) => table.range(..=key),
        }
        .expect("a range");
        loop {
            let next = if backward {
                entries.next_back()
            } else {
                entries.next()
            };
            let Some(entry) = next else { break };
            let (key, value) = entry.expect("an entry");
            if !see(key.value(), value.value()) {
                break;
            }
        }
    }

    fn remove(&self, from: &Key, to: &Key) {
        self.write(false, |table| {
            let range = from.as_slice()..to.as_slice();
            table.retain_in(range, |_, _| false).expect("a range");
        });
    }

    fn settle(&self) {
        self.write(true, |_| ());
    }

    fn close(self: Box<Self>) {
        self.settle();
    }
}
