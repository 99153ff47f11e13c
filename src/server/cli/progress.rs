//! How long work tells how far it is: a bar on a terminal, few plain lines in a pipe, JSON lines for scripts.
//!
//! ```text
//! --progress auto | bar | plain | json | none
//! {"task":"backup create","phase":"tables","done":1048576,"total":4194304,"unit":"bytes",
//!  "per_second":8388608,"seconds_left":0.4,"elapsed_seconds":0.1,"state":"running"}
//! ```
//! Promises: all of it goes to standard error, so that standard output is data alone; work shorter than
//! [`PLAIN_EVERY`] says nothing in a pipe; `json` gives at least one line, the last one with `"state"` `done` or
//! `failed`, at most [`JSON_PER_SECOND`] a second beside those that begin a phase; an unknown `total` and what
//! follows from it is `null`.
//!
//! Not here: what the work prints when it is done.

use std::{
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use basalt_engine::ProgressStep;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// Pause between the lines in a pipe.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// Most JSON lines a second.
const JSON_PER_SECOND: u32 = 10;
/// Work is at least so old before its rate is told: a quotient of two tiny numbers is noise.
const RATE_AFTER: Duration = Duration::from_millis(50);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum How {
    /// A bar on a terminal, else plain lines
    #[default]
    Auto,
    /// A bar with rate and time left
    Bar,
    /// A line every five seconds
    Plain,
    /// JSON lines on standard error
    Json,
    /// Nothing
    None,
}

/// The flag of every command that may take long.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(super) struct ProgressArgs {
    /// How progress is shown, on standard error
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    progress: How,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    /// Shown as KiB, MiB, GiB.
    Bytes,
    /// Keys, rows, files: shown as they are.
    Items,
}

impl ProgressArgs {
    /// Says nothing.
    pub(super) fn none() -> Self {
        Self {
            progress: How::None,
        }
    }

    /// Begins work called `task`, which counts `unit`.
    pub(super) fn begin(self, task: &'static str, unit: Unit) -> Work {
        let how = match self.progress {
            How::Auto if io::stderr().is_terminal() => How::Bar,
            How::Auto => How::Plain,
            how => how,
        };
        let bar =
            (how == How::Bar).then(|| ProgressBar::new_spinner().with_style(style(unit, false)));
        if let Some(bar) = &bar {
            bar.set_prefix(task);
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        Work(Arc::new(Shared {
            how,
            bar,
            began: Instant::now(),
            meter: Mutex::new(Meter::new(task, unit)),
        }))
    }
}

/// One piece of long work; clones are the same work. Dropped without an end, it has failed.
#[derive(Clone)]
pub(super) struct Work(Arc<Shared>);

struct Shared {
    how: How,
    bar: Option<ProgressBar>,
    began: Instant,
    meter: Mutex<Meter>,
}

impl Work {
    /// It is at `done` of `total` in `phase`; a `total` of 0 is not known. Numbers of a phase never go back.
    pub(super) fn at(&self, phase: &str, done: u64, total: u64) {
        let now = self.0.began.elapsed();
        let mut meter = self.0.meter();
        let begins = meter.set(phase, done, total);
        match self.0.how {
            How::Bar => self.0.draw(&meter),
            How::Plain => {
                if meter.is_due(now, PLAIN_EVERY) {
                    say(&meter.plain(now));
                }
            }
            How::Json => {
                if begins || meter.is_due(now, Duration::from_secs(1) / JSON_PER_SECOND) {
                    meter.told = now;
                    say(&meter.json(now, "running"));
                }
            }
            How::Auto | How::None => {}
        }
    }

    /// What the engine tells of its work.
    pub(super) fn engine(&self) -> Arc<dyn basalt_engine::Progress> {
        let work = self.clone();
        Arc::new(move |step: ProgressStep| {
            work.at(step.what, step.done, step.total);
            ControlFlow::Continue(())
        })
    }

    /// It is done: the bar goes, so that what is printed stands alone.
    pub(super) fn done(&self) {
        self.0.end("done");
    }
}

impl Shared {
    fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, meter: &Meter) {
        let Some(bar) = &self.bar else { return };
        if meter.total > 0 && bar.length() != Some(meter.total) {
            bar.set_style(style(meter.unit, true));
            bar.set_length(meter.total);
        }
        bar.set_message(meter.phase.clone());
        bar.set_position(meter.done);
    }

    /// The last word, once.
    fn end(&self, state: &'static str) {
        let mut meter = self.meter();
        if std::mem::replace(&mut meter.has_ended, true) {
            return;
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if self.how == How::Json {
            say(&meter.json(self.began.elapsed(), state));
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.end("failed");
    }
}

/// A line on standard error; nobody has to read it.
fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn style(unit: Unit, has_total: bool) -> ProgressStyle {
    let template = match (unit, has_total) {
        (Unit::Bytes, true) => {
            "{prefix}: {msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} left"
        }
        (Unit::Items, true) => {
            "{prefix}: {msg} [{bar:30}] {human_pos}/{human_len} {per_sec} {eta} left"
        }
        (Unit::Bytes, false) => "{prefix}: {spinner} {msg} {binary_bytes} {binary_bytes_per_sec}",
        (Unit::Items, false) => "{prefix}: {spinner} {msg} {human_pos} {per_sec}",
    };
    let style = ProgressStyle::with_template(template).expect("a template of our own");
    style.progress_chars("=> ")
}

/// How far the work is and when that was told last.
#[derive(Debug)]
struct Meter {
    task: &'static str,
    unit: Unit,
    phase: String,
    done: u64,
    /// 0 = not known.
    total: u64,
    /// When a line was written last, since the beginning.
    told: Duration,
    has_ended: bool,
}

impl Meter {
    fn new(task: &'static str, unit: Unit) -> Self {
        Self {
            task,
            unit,
            phase: String::new(),
            done: 0,
            total: 0,
            told: Duration::ZERO,
            has_ended: false,
        }
    }

    /// Takes a step over; true where it begins a phase.
    fn set(&mut self, phase: &str, done: u64, total: u64) -> bool {
        let begins = self.phase != phase;
        if begins {
            phase.clone_into(&mut self.phase);
        }
        self.done = done;
        self.total = total;
        begins
    }

    /// True at most once in each `every`.
    fn is_due(&mut self, now: Duration, every: Duration) -> bool {
        let due = now.saturating_sub(self.told) >= every;
        if due {
            self.told = now;
        }
        due
    }

    /// Units a second since the beginning, and seconds left, where they can be told.
    fn rate(&self, now: Duration) -> (Option<u64>, Option<f64>) {
        if now < RATE_AFTER || self.done == 0 {
            return (None, None);
        }
        let rate = u128::from(self.done) * 1_000_000 / now.as_micros();
        let rate = u64::try_from(rate).unwrap_or(u64::MAX).max(1);
        let left = self.total.checked_sub(self.done).filter(|_| self.total > 0);
        let left = left.map(|left| (left as f64 / rate as f64 * 10.0).round() / 10.0);
        (Some(rate), left)
    }

    fn json(&self, now: Duration, state: &str) -> String {
        let (per_second, seconds_left) = self.rate(now);
        let line = Line {
            task: self.task,
            phase: &self.phase,
            done: self.done,
            total: Some(self.total).filter(|total| *total > 0),
            unit: self.unit,
            per_second,
            seconds_left,
            elapsed_seconds: (now.as_secs_f64() * 1000.0).round() / 1000.0,
            state,
        };
        serde_json::to_string(&line).expect("text and finite numbers")
    }

    fn plain(&self, now: Duration) -> String {
        let shown = |count: u64| match self.unit {
            Unit::Bytes => super::output::size(count),
            Unit::Items => count.to_string(),
        };
        let mut line = format!("{}: {} {}", self.task, self.phase, shown(self.done));
        if self.total > 0 {
            let percent = u128::from(self.done) * 100 / u128::from(self.total);
            line.push_str(&format!(" of {} ({percent} %)", shown(self.total)));
        }
        let (rate, left) = self.rate(now);
        if let Some(rate) = rate {
            line.push_str(&format!(", {}/s", shown(rate)));
        }
        if let Some(left) = left {
            line.push_str(&format!(", {left:.0} s left"));
        }
        line
    }
}

#[derive(Serialize)]
struct Line<'a> {
    task: &'a str,
    phase: &'a str,
    done: u64,
    total: Option<u64>,
    unit: Unit,
    per_second: Option<u64>,
    seconds_left: Option<f64>,
    elapsed_seconds: f64,
    state: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn meter(done: u64, total: u64) -> Meter {
        let mut meter = Meter::new("backup create", Unit::Bytes);
        assert!(meter.set("tables", done, total));
        assert!(!meter.set("tables", done, total), "the phase goes on");
        meter
    }

    #[test]
    fn a_line_has_rate_and_time_left_and_null_where_they_are_not_known() {
        let parse = |line: String| serde_json::from_str::<Value>(&line).unwrap();
        let line = parse(meter(1 << 20, 4 << 20).json(Duration::from_millis(500), "running"));
        let expected = json!({
            "task": "backup create", "phase": "tables", "done": 1 << 20, "total": 4 << 20, "unit": "bytes",
            "per_second": 2 << 20, "seconds_left": 1.5, "elapsed_seconds": 0.5, "state": "running",
        });
        assert_eq!(line, expected);
        for (meter, now) in [(meter(7, 0), 500), (meter(0, 7), 500), (meter(7, 9), 1)] {
            let line = parse(meter.json(Duration::from_millis(now), "running"));
            assert_eq!(line["seconds_left"], Value::Null, "{line}");
        }
        let line = parse(meter(7, 0).json(Duration::from_secs(1), "failed"));
        assert_eq!(
            (&line["total"], &line["state"]),
            (&Value::Null, &json!("failed"))
        );
    }

    #[test]
    fn a_plain_line_says_what_a_bar_would() {
        let line = meter(1 << 20, 4 << 20).plain(Duration::from_millis(500));
        let expected = "backup create: tables 1.0 MiB of 4.0 MiB (25 %), 2.0 MiB/s, 2 s left";
        assert_eq!(line, expected);
        let all = meter(u64::MAX, u64::MAX).plain(Duration::from_secs(1));
        assert!(all.contains("(100 %)"), "{all}");
        let line = meter(5, 0).plain(Duration::ZERO);
        assert_eq!(line, "backup create: tables 5 B");
        let mut rows = Meter::new("import", Unit::Items);
        rows.set("rows", 5, 10);
        assert_eq!(rows.plain(Duration::ZERO), "import: rows 5 of 10 (50 %)");
    }

    #[test]
    fn lines_come_no_more_often_than_they_are_due() {
        let mut meter = meter(1, 2);
        let due: Vec<u64> = (0..=21)
            .filter(|second| meter.is_due(Duration::from_secs(*second), PLAIN_EVERY))
            .collect();
        assert_eq!(due, [5, 10, 15, 20]);
    }
}
