//! Cursors over sorted runs against one sorted list.

use std::cell::RefCell;

use super::*;
use crate::{
    error::Error,
    iter::model::{Entry, History, Random, VecIter, shown, walk},
    key::{SequenceNumber, ValueKind},
};

#[derive(Default)]
struct Run {
    tables: Vec<(Vec<u8>, Vec<u8>, Vec<Entry>)>,
    opened: RefCell<Vec<usize>>,
    broken: Option<usize>,
}

impl RunSource for &Run {
    type Iter = VecIter;

    fn len(&self) -> usize {
        self.tables.len()
    }

    fn smallest(&self, index: usize) -> &[u8] {
        &self.tables[index].0
    }

    fn largest(&self, index: usize) -> &[u8] {
        &self.tables[index].1
    }

    fn open(&self, index: usize) -> Result<VecIter> {
        self.opened.borrow_mut().push(index);
        if self.broken == Some(index) {
            return Err(Error::corruption("table", 0, "planted"));
        }
        Ok(VecIter::new(self.tables[index].2.clone()))
    }
}

/// Cuts entries into tables between user keys. Bounds are sometimes wider than the entries, up to the
/// next table's first key, as range deletes make them; some tables hold no entry at all.
fn cut(random: &mut Random, all: &[Entry]) -> Run {
    let mut run = Run::default();
    let mut rest = all.chunk_by(|a, b| a.user_key == b.user_key).peekable();
    while let Some(first) = rest.next() {
        let mut table = first.to_vec();
        while rest.peek().is_some() && !random.one_in(3) {
            table.extend_from_slice(rest.next().unwrap());
        }
        let (smallest, mut largest) = (
            first[0].user_key.clone(),
            table.last().unwrap().user_key.clone(),
        );
        if let Some(next) = rest.peek() {
            let next = next[0].user_key.clone();
            if random.one_in(3) {
                largest = next;
            } else if random.one_in(4) && [&largest[..], b"\0"].concat() < next {
                let empty = [&largest[..], b"\0"].concat();
                run.tables.push((smallest, largest, table));
                run.tables.push((empty, next, Vec::new()));
                continue;
            }
        }
        run.tables.push((smallest, largest, table));
    }
    run
}

fn put(key: &str, seq: usize) -> Entry {
    Entry::new(key.as_bytes(), seq, ValueKind::Put)
}

fn three_tables() -> Run {
    let table = |a: &str, b: &str| (a.into(), b.into(), vec![put(a, 1), put(b, 2)]);
    Run {
        tables: vec![table("a", "c"), table("e", "g"), table("i", "k")],
        ..Run::default()
    }
}

#[test]
fn a_run_walks_as_one_sorted_list_in_both_directions() {
    for seed in 1..300 {
        let random = &mut Random::new(seed);
        let writes = random.below(150);
        let mut all = History::new(random, writes).entries;
        all.sort_by(|a, b| a.key().cmp(&b.key()));
        let run = cut(random, &all);
        let mut level = LevelIter::new(&run);
        walk(
            &mut level,
            &all,
            random,
            200,
            &format!("seed {seed}, {} tables", run.tables.len()),
        );
    }
}

#[test]
fn a_table_is_opened_only_when_the_cursor_comes_to_it() {
    let run = three_tables();
    let mut level = LevelIter::new(&run);
    assert!(run.opened.borrow().is_empty());
    level
        .seek(InternalKey::seek_to(b"f", SequenceNumber::MAX))
        .unwrap();
    level
        .seek(InternalKey::seek_to(b"e", SequenceNumber::MAX))
        .unwrap();
    assert_eq!(
        (shown(&level), run.opened.borrow().as_slice()),
        (Some(put("e", 1)), &[1][..])
    );
    level.next().unwrap();
    assert_eq!(*run.opened.borrow(), [1]);
    level.next().unwrap();
    assert_eq!(
        (shown(&level), run.opened.borrow().as_slice()),
        (Some(put("i", 1)), &[1, 2][..])
    );
    level
        .seek(InternalKey::seek_to(b"z", SequenceNumber::MAX))
        .unwrap();
    assert!(!level.valid() && run.opened.borrow().len() == 2);
}

#[test]
fn a_table_that_does_not_open_is_an_error_and_the_rest_stays_readable() {
    let run = Run {
        broken: Some(1),
        ..three_tables()
    };
    let mut level = LevelIter::new(&run);
    level.seek_to_first().unwrap();
    level.next().unwrap();
    assert!(level.next().unwrap_err().is_corruption() && !level.valid());
    level
        .seek(InternalKey::seek_to(b"i", SequenceNumber::MAX))
        .unwrap();
    assert_eq!(shown(&level), Some(put("i", 1)));
}

#[test]
fn an_empty_run_holds_nothing() {
    let run = Run::default();
    let mut level = LevelIter::new(&run);
    level.seek_to_first().unwrap();
    assert!(!level.valid());
    level.seek_to_last().unwrap();
    assert!(!level.valid());
    level
        .seek(InternalKey::seek_to(b"", SequenceNumber::MAX))
        .unwrap();
    assert!(!level.valid());
}
