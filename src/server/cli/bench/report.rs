//! What a bench has measured: figures, the table of them, the histogram file and the drawing.

use std::{
    fmt::{self, Write as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use basalt_client::Error;
use clap::ValueEnum as _;
use hdrhistogram::Histogram;
use serde_json::json;

use super::{BenchArgs, Workload};
use crate::cli::{Done, output::Cell};

/// Longest latency that is told apart, in nanoseconds.
const MAX_LATENCY_NANOS: u64 = 60_000_000_000;

/// Figures that a client and who watches it share; each change is whole.
pub(super) fn lock(figures: &Mutex<Figures>) -> MutexGuard<'_, Figures> {
    figures.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Latencies in nanoseconds, and what failed.
#[derive(Clone)]
pub(super) struct Figures {
    pub(super) puts: Histogram<u64>,
    pub(super) reads: Histogram<u64>,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// Values that are not what was written.
    pub(super) wrong: u64,
    pub(super) first_wrong: Option<String>,
}

impl Figures {
    pub(super) fn new() -> Self {
        let histogram =
            Histogram::new_with_bounds(1, MAX_LATENCY_NANOS, 3).expect("the bounds are in order");
        Self {
            puts: histogram.clone(),
            reads: histogram,
            errors: 0,
            first_error: None,
            wrong: 0,
            first_wrong: None,
        }
    }

    pub(super) fn record(
        &mut self,
        is_put: bool,
        took: Duration,
        done: Result<Result<(), String>, Error>,
    ) {
        match done {
            Ok(is_right) => {
                let histogram = match is_put {
                    true => &mut self.puts,
                    false => &mut self.reads,
                };
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(MAX_LATENCY_NANOS);
                histogram.saturating_record(nanos);
                if let Err(what) = is_right {
                    self.wrong += 1;
                    self.first_wrong.get_or_insert(what);
                }
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| error.to_string());
            }
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        let same = "all histograms have the same bounds";
        self.puts.add(&other.puts).expect(same);
        self.reads.add(&other.reads).expect(same);
        self.errors += other.errors;
        self.wrong += other.wrong;
        let first = |own: &mut Option<String>, other: &Option<String>| {
            if own.is_none() {
                own.clone_from(other);
            }
        };
        first(&mut self.first_error, &other.first_error);
        first(&mut self.first_wrong, &other.first_wrong);
    }

    fn all(&self) -> Histogram<u64> {
        let mut all = self.puts.clone();
        all.add(&self.reads)
            .expect("all histograms have the same bounds");
        all
    }
}

fn micros(nanos: u64) -> u64 {
    (nanos + 500) / 1000
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a bench are far below 2^53"
)]
fn rate(count: u64, took: Duration) -> f64 {
    (count as f64 / took.as_secs_f64().max(1e-9)).round()
}

/// What one second was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Second {
    ops: f64,
    p50_us: u64,
    p99_us: u64,
}

impl Second {
    /// What came between two looks.
    pub(super) fn between(before: &Figures, now: &Figures, took: Duration) -> Self {
        let mut all = now.all();
        all.subtract(before.all())
            .expect("what was counted stays counted");
        Self {
            ops: rate(all.len(), took),
            p50_us: micros(all.value_at_quantile(0.5)),
            p99_us: micros(all.value_at_quantile(0.99)),
        }
    }
}

impl fmt::Display for Second {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ops,
            p50_us,
            p99_us,
        } = self;
        write!(f, "{ops} ops/s, p50 {p50_us} us, p99 {p99_us} us")
    }
}

/// The table, a row an operation.
pub(super) fn print(figures: &Figures, args: &BenchArgs, took: Duration) -> Done {
    let output = args.output.open();
    let reads = match args.workload {
        Workload::Scan => "scan",
        _ => "get",
    };
    let rows = [("put", &figures.puts), (reads, &figures.reads)];
    let mut cells = Vec::new();
    for (name, histogram) in rows {
        if histogram.is_empty() {
            continue;
        }
        let at = |quantile: f64| micros(histogram.value_at_quantile(quantile));
        let (p50, p99, p999) = (at(0.5), at(0.99), at(0.999));
        let (count, max) = (histogram.len(), micros(histogram.max()));
        let per_second = rate(count, took);
        if output.is_json() {
            output.json(&json!({
                "op": name, "count": count, "ops_per_second": per_second, "p50_us": p50,
                "p99_us": p99, "p999_us": p999, "max_us": max, "errors": figures.errors,
                "threads": args.threads, "value_bytes": args.value_size,
                "seconds": took.as_secs_f64(),
                "wrong": args.check.then_some(figures.wrong),
            }))?;
        }
        let mut row = vec![Cell::from(name), count.into()];
        row.push(Cell::Text(per_second.to_string()));
        row.extend([p50, p99, p999, max].map(Cell::from));
        cells.push(row);
    }
    if output.is_json() {
        return Ok(());
    }
    let names = [
        "op", "count", "ops/s", "p50 us", "p99 us", "p99.9 us", "max us",
    ];
    output.table_with_head(&names, &cells)?;
    if args.check && figures.wrong == 0 {
        let text = format!(
            "every value is what was written ({} reads)\n",
            figures.reads.len()
        );
        crate::cli::print(text.as_bytes())?;
    }
    Ok(())
}

/// Latencies by percentile, as plotters of HdrHistogram read them: microseconds, share, count, 1/(1-share).
pub(super) fn histogram(figures: &Figures) -> String {
    let mut text = String::new();
    for (name, histogram) in [("put", &figures.puts), ("read", &figures.reads)] {
        if histogram.is_empty() {
            continue;
        }
        let _ = writeln!(
            text,
            "# {name}\n{:>12} {:>14} {:>12} {:>16}",
            "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
        );
        for step in histogram.iter_quantiles(5) {
            let share = step.quantile_iterated_to();
            let count = histogram.count_between(0, step.value_iterated_to());
            let inverse = 1.0 / (1.0 - share);
            let value = micros(step.value_iterated_to());
            let _ = writeln!(
                text,
                "{value:>12} {share:>14.6} {count:>12} {inverse:>16.2}"
            );
        }
        let _ = writeln!(
            text,
            "#[Mean = {:.1}, Max = {}, Total count = {}]\n",
            histogram.mean() / 1000.0,
            micros(histogram.max()),
            histogram.len()
        );
    }
    text
}

/// Width and height of one of the drawings, in pixels.
const PLOT: (f64, f64) = (720.0, 160.0);

/// Throughput and latency over time, in one picture that needs nothing else.
pub(super) fn svg(seconds: &[Second], args: &BenchArgs, figures: &Figures) -> String {
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds of a bench are far below 2^53"
    )]
    let latency = |of: fn(&Second) -> u64| seconds.iter().map(|one| of(one) as f64).collect();
    let throughput: Vec<f64> = seconds.iter().map(|one| one.ops).collect();
    let (p50, p99): (Vec<f64>, Vec<f64>) = (latency(|one| one.p50_us), latency(|one| one.p99_us));
    let workload = args.workload.to_possible_value();
    let workload = workload.map_or_else(String::new, |value| value.get_name().to_owned());
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 800 500\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>basalt bench {workload}</title>\n<rect width=\"800\" height=\"500\" fill=\"white\"/>\n\
         <text x=\"50\" y=\"24\" font-size=\"16\">basalt bench {workload}: {} threads, values of {} bytes, {} keys, {} errors</text>\n",
        args.threads, args.value_size, args.keys, figures.errors
    );
    plot(
        &mut text,
        60.0,
        "requests a second",
        &[("", "#1f6feb", &throughput)],
    );
    let lines = [("p50", "#1a7f37", &p50), ("p99", "#cf222e", &p99)];
    plot(&mut text, 280.0, "latency in microseconds", &lines);
    text.push_str("<text x=\"400\" y=\"490\" text-anchor=\"middle\">seconds</text>\n</svg>\n");
    text
}

fn plot(text: &mut String, top: f64, title: &str, lines: &[(&str, &str, &Vec<f64>)]) {
    let (width, height) = PLOT;
    let all = lines.iter().flat_map(|(_, _, values)| values.iter());
    let most = all.copied().fold(1.0, f64::max);
    let bottom = top + height;
    let _ = writeln!(
        text,
        "<text x=\"50\" y=\"{}\">{title}</text>\n\
         <line x1=\"50\" y1=\"{bottom}\" x2=\"{}\" y2=\"{bottom}\" stroke=\"#888\"/>\n\
         <line x1=\"50\" y1=\"{top}\" x2=\"{}\" y2=\"{top}\" stroke=\"#ddd\"/>\n\
         <text x=\"46\" y=\"{}\" text-anchor=\"end\">{most}</text>\n\
         <text x=\"46\" y=\"{bottom}\" text-anchor=\"end\">0</text>",
        top - 8.0,
        50.0 + width,
        50.0 + width,
        top + 4.0
    );
    for (index, (name, colour, values)) in lines.iter().enumerate() {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a bench has far fewer than 2^53 seconds"
        )]
        let x = |at: usize| 50.0 + width * at as f64 / (values.len().max(2) - 1) as f64;
        let points = values.iter().enumerate();
        let points =
            points.map(|(at, value)| format!("{:.1},{:.1}", x(at), bottom - height * value / most));
        let points: Vec<String> = points.collect();
        #[expect(clippy::cast_precision_loss, reason = "there are two lines")]
        let legend = 50.0 + width - 40.0 * index as f64;
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n\
             <text x=\"{legend}\" y=\"{}\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            top - 8.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_what_came_between_two_looks() {
        let mut before = Figures::new();
        before.record(true, Duration::from_millis(50), Ok(Ok(())));
        let mut now = before.clone();
        for _ in 0..10 {
            now.record(false, Duration::from_micros(100), Ok(Ok(())));
        }
        let second = Second::between(&before, &now, Duration::from_secs(2));
        assert_eq!(second.ops, 5.0);
        assert!((99..=101).contains(&second.p50_us) && (99..=101).contains(&second.p99_us));
        let text = histogram(&now);
        assert!(
            text.contains("# put") && text.contains("Total count = 10"),
            "{text}"
        );
    }
}
