//! What the machine itself can do, in the same run: nobody is faster than this.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    sync::{Condvar, Mutex},
    time::Instant,
};

use crate::{
    data::{Chance, KEY, Key, Values, scattered},
    measure::{Figure, drive},
    work::{Size, VALUE},
};

/// Bytes of a log record of one put, about.
const RECORD: usize = KEY + VALUE + 25;
/// Bytes of the file that is synced: written before, so that no sync has to tell of new blocks.
const PREFILLED: usize = 64 << 20;

/// Measures all of it.
pub fn run(dir: &Path, size: &Size, tell: &dyn Fn(Figure)) {
    fs::create_dir_all(dir).expect("a directory");
    let record = [7; RECORD];
    let path = dir.join("raw");
    let file = File::create(&path).expect("a file");
    let done = drive(1, size.seconds, |_| {
        |turn| {
            let at = turn * RECORD as u64;
            file.write_all_at(&record, at).expect("a write");
            Some(1)
        }
    });
    tell(Figure::new("write call", done.rate()).times(&done.times));

    file.set_len(0).expect("an empty file");
    for at in 0..PREFILLED >> 20 {
        let block = vec![1; 1 << 20];
        file.write_all_at(&block, (at as u64) << 20)
            .expect("a write");
    }
    file.sync_all().expect("sync");
    for threads in [1, 16] {
        let log = Log::new(&file);
        let done = drive(threads, size.seconds, |_| {
            |_| {
                log.append(&record);
                Some(1)
            }
        });
        let name = format!("write and fdatasync, {threads} at once");
        tell(Figure::new(&name, done.rate()).times(&done.times));
    }
    crate::files::forget(dir);
    let file = File::open(&path).expect("a file");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("advice");
    let done = drive(4, size.seconds / 2.0, |thread| {
        let (mut chance, mut page) = (Chance::new(9 + thread as u64), vec![0; 4096]);
        let file = &file;
        move |_| {
            let at = chance.below(PREFILLED as u64 / 4096) * 4096;
            file.read_exact_at(&mut page, at).expect("a read");
            Some(1)
        }
    });
    let figure = Figure::new("read of 4 KiB from the disk, 4 threads", done.rate());
    tell(figure.times(&done.times));
    let _ = fs::remove_file(path);

    let values = Values::new();
    let mut value = Vec::new();
    let mut tree: BTreeMap<Key, Box<[u8]>> = BTreeMap::new();
    let start = Instant::now();
    for index in 0..size.entries {
        values.make(index, 0, VALUE, &mut value);
        tree.insert(scattered(index), value.as_slice().into());
    }
    let rate = size.entries as f64 / start.elapsed().as_secs_f64();
    tell(Figure::new("BTreeMap, insert", rate));
    let done = drive(1, size.seconds, |_| {
        let mut chance = Chance::new(3);
        let tree = &tree;
        move |_| {
            let key = scattered(chance.below(size.entries));
            assert_eq!(tree[&key].len(), VALUE);
            Some(1)
        }
    });
    tell(Figure::new("BTreeMap, get", done.rate()).times(&done.times));
}

/// A log of nothing but records, whose waiting writers share a sync: the least that a group commit takes.
struct Log<'a> {
    file: &'a File,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    pending: Vec<u8>,
    /// Records taken, and those that are durable.
    taken: u64,
    durable: u64,
    end: u64,
    busy: bool,
}

impl<'a> Log<'a> {
    fn new(file: &'a File) -> Self {
        Self {
            file,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn append(&self, record: &[u8]) {
        let mut state = self.state.lock().expect("the state");
        state.pending.extend_from_slice(record);
        state.taken += 1;
        let mine = state.taken;
        while state.durable < mine {
            if state.busy {
                state = self.changed.wait(state).expect("the state");
                continue;
            }
            state.busy = true;
            let (bytes, upto) = (std::mem::take(&mut state.pending), state.taken);
            let at = if state.end as usize + bytes.len() > PREFILLED {
                0
            } else {
                state.end
            };
            state.end = at + bytes.len() as u64;
            drop(state);
            self.file.write_all_at(&bytes, at).expect("a write");
            self.file.sync_data().expect("a sync");
            state = self.state.lock().expect("the state");
            (state.busy, state.durable) = (false, upto);
            self.changed.notify_all();
        }
    }
}
