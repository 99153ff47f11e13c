//! Opens a damaged disk, reads everything in every way, and judges: an error, no effect, or a lie.
//!
//! A lie is a wrong or missing row without an error, an error that is not damage or does not name a file of the store,
//! a panic anywhere (also one that a background job survives), a huge allocation, or a refused open that changed
//! the disk.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
};

use basalt_engine::{
    ColumnFamily, Db, DbIter, Error, Fault, Faults, ReadOptions, WriteOptions,
    executor::SimExecutor,
    fs::{ReadMode, SimFs},
    verify_dir,
};

use super::store::{DIR, Rows, Truth, options};

/// No allocation for a store of a few KiB is larger.
pub(crate) const LARGEST_ALLOCATION: usize = 2 << 20;

/// What the damage did.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Open refused.
    Refused(Error),
    /// Open went well; reads, or `verify` alone, met these errors. All other reads were right.
    Noticed { errors: Vec<Error>, by_reads: bool },
    /// Every answer was right, and `verify` found nothing.
    NoEffect,
}

impl Outcome {
    /// The errors.
    pub(crate) fn errors(&self) -> &[Error] {
        match self {
            Self::Refused(error) => std::slice::from_ref(error),
            Self::Noticed { errors, .. } => errors,
            Self::NoEffect => &[],
        }
    }
}

/// How far to go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Depth {
    /// How tables are read.
    pub(crate) mode: ReadMode,
    /// Check the closed store with `verify_dir` first.
    pub(crate) offline: bool,
    /// A planted fault of the engine.
    pub(crate) fault: Fault,
    /// After reading: write, flush and compact everything, read again, close, and read once more.
    pub(crate) go_on: bool,
}

thread_local! {
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// Told of each allocation.
pub(crate) fn note_allocation(bytes: usize) {
    // Gone only while the thread ends.
    let _ = LARGEST.try_with(|largest| largest.set(largest.get().max(bytes)));
}

/// Keeps the text of each panic during an examination, also of those that are caught.
pub(crate) fn watch_panics() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if WATCHED.get() {
            PANIC.set(Some(info.to_string()));
        } else {
            before(info);
        }
    }));
}

/// Does `work` and answers what it does; `Err` for a panic in it, or below it, or a huge allocation.
pub(crate) fn watched<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    LARGEST.set(0);
    PANIC.set(None);
    WATCHED.set(true);
    let result = work();
    WATCHED.set(false);
    if let Some(text) = PANIC.take() {
        return Err(format!("a panic: {text}"));
    }
    let largest = LARGEST.get();
    if largest > LARGEST_ALLOCATION {
        return Err(format!("an allocation of {largest} bytes"));
    }
    Ok(result)
}

/// Examines a disk; `Err` tells the lie.
pub(crate) fn examine(disk: &Arc<SimFs>, truth: &Truth, depth: Depth) -> Result<Outcome, String> {
    let outcome = watched(|| catch_unwind(AssertUnwindSafe(|| examine_all(disk, truth, depth))))?
        .map_err(|_| "a panic that said nothing".to_owned())??;
    for error in outcome.errors() {
        let (Error::Corruption { path, .. } | Error::NotADatabase { path, .. }) = error else {
            return Err(format!("not an error of damage: {error:?}"));
        };
        if !path.starts_with(DIR) {
            return Err(format!("an error about no file of the store: {error}"));
        }
    }
    Ok(outcome)
}

fn examine_all(disk: &Arc<SimFs>, truth: &Truth, depth: Depth) -> Result<Outcome, String> {
    let executor = Arc::new(SimExecutor::new(11));
    let before = disk.hash();
    // Without a LOCK, whoever comes makes one.
    let locked = disk.files().iter().any(|path| path.ends_with("LOCK"));
    let offline = depth.offline.then(|| {
        let options = options(disk, &executor, depth.mode);
        verify_dir(DIR, &options)
    });
    if depth.offline && locked && disk.hash() != before {
        return Err("verify_dir changed the disk".to_owned());
    }
    let outcome = open_and_read(disk, truth, depth, &executor, before, locked)?;
    if let Some(offline) = offline {
        agree(&offline, &outcome)?;
    }
    executor.abandon();
    Ok(outcome)
}

fn open_and_read(
    disk: &Arc<SimFs>,
    truth: &Truth,
    depth: Depth,
    executor: &Arc<SimExecutor>,
    before: u64,
    locked: bool,
) -> Result<Outcome, String> {
    let open = || {
        let mut options = options(disk, executor, depth.mode);
        options.faults = Faults(depth.fault);
        Db::open(DIR, options)
    };
    let db = match open() {
        Ok(db) => db,
        Err(error) => {
            if locked && disk.hash() != before {
                return Err(format!("a refused open changed the disk: {error}"));
            }
            return Ok(Outcome::Refused(error));
        }
    };
    let mut noticed = read_all(&db, truth)?;
    let read = noticed.len();
    noticed.extend(verify(&db)?);
    if read > 0 && noticed.len() == read {
        return Err(format!("verify found nothing, reads did: {:?}", noticed[0]));
    }
    if depth.go_on {
        go_on(&db, truth)?;
        // What was noticed stays noticed: merging must not launder it, and a reopen must not either.
        drop(db);
        match open() {
            Ok(db) => {
                let again = [read_all(&db, truth)?, verify(&db)?].concat();
                if noticed.is_empty() != again.is_empty() {
                    return Err(format!(
                        "noticed before merging: {noticed:?}, and after: {again:?}"
                    ));
                }
            }
            Err(error) if noticed.is_empty() => {
                return Err(format!("the second open failed: {error}"));
            }
            Err(_) => {}
        }
    }
    Ok(if noticed.is_empty() {
        Outcome::NoEffect
    } else {
        Outcome::Noticed {
            errors: noticed,
            by_reads: read > 0,
        }
    })
}

fn verify(db: &Db) -> Result<Vec<Error>, String> {
    db.verify()
        .map(|report| report.damage)
        .map_err(|error| format!("verify gave up: {error:?}"))
}

/// Flushes and compacts everything; damage may stop it, and nothing may be lost by it.
fn go_on(db: &Db, truth: &Truth) -> Result<(), String> {
    let written = db.put(&db.default_cf(), b"zzz", b"z", WriteOptions::SYNC);
    let removed = db.delete(&db.default_cf(), b"zzz", WriteOptions::SYNC);
    let mut results = vec![written, removed, db.flush_all()];
    results.extend(
        db.list_cfs()
            .iter()
            .map(|cf| db.compact_range(cf, None, None)),
    );
    for error in results.into_iter().filter_map(Result::err) {
        if !error.is_corruption() {
            return Err(format!("work on a damaged store: {error:?}"));
        }
    }
    read_all(db, truth).map(|_| ())
}

/// The offline check must find damage where the store has some that it can see without changing anything.
fn agree(
    offline: &basalt_engine::Result<basalt_engine::VerifyReport>,
    outcome: &Outcome,
) -> Result<(), String> {
    let sound = offline
        .as_ref()
        .is_ok_and(|report| report.damage.is_empty());
    match (sound, outcome) {
        (true, Outcome::NoEffect) | (false, Outcome::Refused(_) | Outcome::Noticed { .. }) => {
            Ok(())
        }
        _ => Err(format!(
            "verify_dir says {offline:?}, the open store {outcome:?}"
        )),
    }
}

/// Reads everything in every way; the errors, or the lie.
fn read_all(db: &Db, truth: &Truth) -> Result<Vec<Error>, String> {
    let mut errors = Vec::new();
    let names: Vec<String> = db
        .list_cfs()
        .iter()
        .map(|cf| cf.name().to_owned())
        .collect();
    let expected: Vec<&String> = truth.families.keys().collect();
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    if sorted != expected {
        return Err(format!("families {sorted:?}"));
    }
    for (name, rows) in &truth.families {
        let cf = db.cf(name).map_err(|error| error.to_string())?;
        scan(db, &cf, rows, true, &mut errors)?;
        scan(db, &cf, rows, false, &mut errors)?;
        gets(db, &cf, rows, &truth.absent, &mut errors)?;
    }
    Ok(errors)
}

fn scan(
    db: &Db,
    cf: &ColumnFamily,
    rows: &Rows,
    forward: bool,
    errors: &mut Vec<Error>,
) -> Result<(), String> {
    let mut cursor = match db.iter(cf, &ReadOptions::default()) {
        Ok(cursor) => cursor,
        Err(error) => {
            errors.push(error);
            return Ok(());
        }
    };
    let mut expected: Box<dyn Iterator<Item = (&Vec<u8>, &Vec<u8>)>> = if forward {
        Box::new(rows.iter())
    } else {
        Box::new(rows.iter().rev())
    };
    let mut moved = if forward {
        cursor.seek_to_first()
    } else {
        cursor.seek_to_last()
    };
    loop {
        if let Err(error) = moved {
            errors.push(error);
            return Ok(());
        }
        let found = cursor.valid().then(|| (cursor.key(), cursor.value()));
        let wanted = expected
            .next()
            .map(|(key, value)| (key.as_slice(), value.as_slice()));
        if found != wanted {
            let way = if forward { "forward" } else { "backward" };
            return Err(format!(
                "scan of {} {way}: {}, not {}",
                cf.name(),
                spell(found),
                spell(wanted)
            ));
        }
        if found.is_none() {
            return Ok(());
        }
        moved = step(&mut cursor, forward);
    }
}

fn step(cursor: &mut DbIter, forward: bool) -> basalt_engine::Result<()> {
    if forward {
        cursor.next()
    } else {
        cursor.prev()
    }
}

fn gets(
    db: &Db,
    cf: &ColumnFamily,
    rows: &Rows,
    absent: &[Vec<u8>],
    errors: &mut Vec<Error>,
) -> Result<(), String> {
    let present = rows
        .iter()
        .map(|(key, value)| (key.as_slice(), Some(value.as_slice())));
    let absent = absent.iter().map(|key| (key.as_slice(), None));
    for (key, wanted) in present.chain(absent) {
        match db.get(cf, key) {
            Ok(found) if found.as_deref() == wanted => {}
            Ok(found) => {
                return Err(format!(
                    "get of {} in {}: {:?}, not {:?}",
                    key.escape_ascii(),
                    cf.name(),
                    found
                        .as_deref()
                        .map(|value| value.escape_ascii().to_string()),
                    wanted.map(|value| value.escape_ascii().to_string()),
                ));
            }
            Err(error) => errors.push(error),
        }
    }
    Ok(())
}

fn spell(row: Option<(&[u8], &[u8])>) -> String {
    row.map_or("the end".to_owned(), |(key, value)| {
        format!("{}={}", key.escape_ascii(), value.escape_ascii())
    })
}

/// Path of an error's file.
pub(crate) fn path_of(error: &Error) -> &Path {
    match error {
        Error::Corruption { path, .. } | Error::NotADatabase { path, .. } => path,
        other => panic!("checked before: {other:?}"),
    }
}
