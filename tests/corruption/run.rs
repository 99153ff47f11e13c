//! Runs cases on all cores, judges each, and counts.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{
    cases::{Case, Expect, Image},
    examine::{Depth, Outcome, examine, path_of},
};

/// A case that takes longer hangs. One takes about a millisecond.
const HANGS: Duration = Duration::from_secs(60);

/// Failures after which a run gives up.
const ENOUGH: usize = 12;

/// Counts of one kind of file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Cases done.
    pub(crate) cases: u64,
    /// Open refused.
    pub(crate) refused: u64,
    /// Open went well, and reads named the damage.
    pub(crate) read: u64,
    /// Open went well, no read met the damage, and `verify` named it.
    pub(crate) verified: u64,
    /// Every answer right.
    pub(crate) no_effect: u64,
}

/// Counts of a run, by state and kind of file.
#[derive(Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<(&'static str, &'static str), Count>);

impl Tally {
    /// Adds another run's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        for (key, count) in &other.0 {
            let sum = self.0.entry(*key).or_default();
            sum.cases += count.cases;
            sum.refused += count.refused;
            sum.read += count.read;
            sum.verified += count.verified;
            sum.no_effect += count.no_effect;
        }
    }

    /// All counts together.
    pub(crate) fn total(&self) -> Count {
        let mut sum = Self::default();
        for count in self.0.values() {
            sum.add(&Self(BTreeMap::from([(("", ""), *count)])));
        }
        sum.0.into_values().next().unwrap_or_default()
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = |state: &str, kind: &str, count: &Count| {
            let Count {
                cases,
                refused,
                read,
                verified,
                no_effect,
            } = count;
            writeln!(
                f,
                "  {state:7} {kind:9} {cases:8} cases: {refused:7} refused, {read:7} met by reads, {verified:7} by verify, {no_effect:7} without effect"
            )
        };
        for ((state, kind), count) in &self.0 {
            line(state, kind, count)?;
        }
        line("all", "", &self.total())
    }
}

/// Where a worker is: when the case began (milliseconds, 0: none), and its index.
#[derive(Default)]
struct At {
    since: AtomicU64,
    index: AtomicUsize,
}

/// Runs cases `0..count` of `make`, examined as deep as `depth` says.
///
/// # Panics
///
/// When any of them ends otherwise than it must, with the list of those.
pub(crate) fn run(
    name: &str,
    image: &Image<'_>,
    count: usize,
    depth: impl Fn(usize) -> Depth + Sync,
    make: impl Fn(usize) -> Case + Sync,
) -> Tally {
    run_with(name, image, count, make, |index, case| {
        examine(&image.damaged(&case.change), image.truth, depth(index))
            .and_then(|outcome| judge(image, case, outcome))
    })
}

/// Runs cases `0..count` of `make`, each judged by `examine`.
///
/// # Panics
///
/// As for [`run`].
pub(crate) fn run_with(
    name: &str,
    image: &Image<'_>,
    count: usize,
    make: impl Fn(usize) -> Case + Sync,
    examine: impl Fn(usize, &Case) -> Result<Outcome, String> + Sync,
) -> Tally {
    let started = Instant::now();
    let workers = std::thread::available_parallelism().map_or(2, usize::from);
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let (tally, failures) = (Mutex::new(Tally::default()), Mutex::new(Vec::new()));
    let places: Vec<At> = (0..workers).map(|_| At::default()).collect();
    let now = || u64::try_from(started.elapsed().as_millis()).expect("a short run") + 1;
    let work = |at: &At| {
        let mut mine = Tally::default();
        while !stop.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                break;
            }
            at.index.store(index, Ordering::Relaxed);
            at.since.store(now(), Ordering::Relaxed);
            let case = make(index);
            match examine(index, &case) {
                Ok(outcome) => mine.count(image.name, case.kind, &outcome),
                Err(lie) => {
                    let mut failures = failures.lock().expect("workers do not panic");
                    failures.push(format!(
                        "case {index}, {}: {lie}",
                        image.spell(&case.change)
                    ));
                    stop.store(failures.len() >= ENOUGH, Ordering::Relaxed);
                }
            }
        }
        at.since.store(0, Ordering::Relaxed);
        tally.lock().expect("workers do not panic").add(&mine);
    };
    std::thread::scope(|scope| {
        let (done, end) = mpsc::channel::<()>();
        scope.spawn(|| watch(name, end, &places, now));
        let handles: Vec<_> = places.iter().map(|at| scope.spawn(|| work(at))).collect();
        for handle in handles {
            handle.join().expect("examinations catch panics");
        }
        drop(done);
    });
    let failures = failures.into_inner().expect("workers do not panic");
    assert!(
        failures.is_empty(),
        "{name}, {}, {} failures:\n{}",
        image.name,
        failures.len(),
        failures.join("\n")
    );
    let tally = tally.into_inner().expect("workers do not panic");
    println!(
        "{name}, {}: {count} cases in {:.1} s",
        image.name,
        started.elapsed().as_secs_f64()
    );
    tally
}

impl Tally {
    fn count(&mut self, state: &'static str, kind: &'static str, outcome: &Outcome) {
        let count = self.0.entry((state, kind)).or_default();
        count.cases += 1;
        match outcome {
            Outcome::Refused(_) => count.refused += 1,
            Outcome::Noticed { by_reads: true, .. } => count.read += 1,
            Outcome::Noticed { .. } => count.verified += 1,
            Outcome::NoEffect => count.no_effect += 1,
        }
    }
}

/// Ends the process when a case hangs: no other way ends a thread.
fn watch(name: &str, end: mpsc::Receiver<()>, places: &[At], now: impl Fn() -> u64) {
    while let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(Duration::from_secs(1)) {
        for at in places {
            let since = at.since.load(Ordering::Relaxed);
            if since > 0 && u128::from(now().saturating_sub(since)) > HANGS.as_millis() {
                let index = at.index.load(Ordering::Relaxed);
                eprintln!("{name}: case {index} hangs");
                std::process::abort();
            }
        }
    }
}

/// Compares the outcome with what must come.
fn judge(image: &Image<'_>, case: &Case, outcome: Outcome) -> Result<Outcome, String> {
    match (case.expect, &outcome) {
        (Expect::Error, Outcome::NoEffect) => return Err("not noticed".to_owned()),
        (Expect::NoEffect, Outcome::Refused(_) | Outcome::Noticed { .. }) => {
            return Err(format!("noticed, but nothing is wrong: {outcome:?}"));
        }
        _ => {}
    }
    if let (Expect::Error, Some(target)) = (case.expect, image.target(&case.change)) {
        for error in outcome.errors() {
            let name = target.file_name().unwrap_or_default().to_string_lossy();
            if path_of(error) != target && !error.to_string().contains(&*name) {
                return Err(format!("the error names another file: {error}"));
            }
        }
    }
    Ok(outcome)
}
