//! The document that a run leaves: tables in Markdown, with what a reader needs to judge them.

use std::fmt::Write;

use crate::{
    measure::Figure,
    rows::{Against, LIMITS, ROWS, Row},
    store::Kind,
    work::Size,
};

/// What one engine did in one round; the machine itself has no kind.
pub struct Found {
    pub kind: Option<Kind>,
    pub round: usize,
    pub figure: Figure,
}

impl Found {
    pub fn line(&self) -> String {
        let kind = self.kind.map_or("machine", Kind::name);
        format!("{kind}\t{}\t{}", self.round, self.figure.line())
    }

    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.splitn(3, '\t');
        let kind = words.next()?;
        Some(Self {
            kind: if kind == "machine" {
                None
            } else {
                Some(Kind::of(kind)?)
            },
            round: words.next()?.parse().ok()?,
            figure: Figure::parse(words.next()?)?,
        })
    }
}

pub struct Run<'a> {
    pub kinds: &'a [Kind],
    pub size: &'a Size,
    pub found: Vec<Found>,
}

impl Run<'_> {
    fn figures<'a>(&'a self, kind: Option<Kind>, row: &'a Row) -> impl Iterator<Item = &'a Found> {
        let of_row = move |found: &&Found| found.kind == kind && found.figure.row == row.name;
        self.found.iter().filter(of_row)
    }

    /// Median over the rounds; not a number where there is none.
    fn median(&self, kind: Option<Kind>, row: &Row, of: impl Fn(&Figure) -> f64) -> f64 {
        median(
            self.figures(kind, row)
                .map(|found| of(&found.figure))
                .collect(),
        )
    }

    /// In how many times Basalt is better than the best of those that `against` names, in each round, ascending.
    pub fn times(&self, row: &Row, against: Against) -> Vec<f64> {
        let is_meant = |kind: Kind| match against {
            Against::Lsm => kind.is_lsm(),
            Against::All => !matches!(kind, Kind::Basalt | Kind::BasaltPlain),
            Against::RocksDb => kind == Kind::RocksDb,
        };
        let ours = self.figures(Some(Kind::Basalt), row);
        let mut times: Vec<f64> = ours
            .filter_map(|ours| {
                let theirs = self.found.iter().filter(|found| {
                    found.round == ours.round
                        && found.figure.row == row.name
                        && found.kind.is_some_and(is_meant)
                });
                let times = theirs.map(|theirs| {
                    let ratio = ours.figure.value / theirs.figure.value;
                    if row.less { ratio.recip() } else { ratio }
                });
                times.min_by(f64::total_cmp)
            })
            .collect();
        times.sort_by(f64::total_cmp);
        times
    }
}

pub fn document(run: &Run<'_>) -> String {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (entries, seconds) = (run.size.entries, run.size.seconds);
    let rounds = |name: &str| {
        let of_row = |found: &&Found| found.kind == Some(Kind::Basalt) && found.figure.row == name;
        run.found.iter().filter(of_row).count()
    };
    let (rounds, synced) = (rounds("get, one thread"), rounds("one synced writer"));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("-").to_owned();
    let without = if Kind::ALL.contains(&Kind::RocksDb) {
        ""
    } else {
        "\nRocksDB was not in this run: aims against it, and \"LSM\", which is the better of it and fjall, are taken against fjall alone or left open.\n"
    };
    let _ = write!(
        text,
        "\
# The engine beside its peers

The same work by every engine, through the same driver, in one run: engines take turns, group by group, and who is first changes with the round. Each group is done by a process of
its own with empty files. Keys have 16 bytes, values 100 bytes (1 KiB for YCSB, 400 bytes for space) of which half compresses. Every answer is checked: gets byte by byte, walks for
order and in samples byte by byte, full scans for completeness.

```text
cd benches/peers && cargo run --release --bin engines -- --write ../../docs/benchmarks/engine.md
```

{cores} cores, {entries} entries, {seconds} s for each row without an end of its own, {rounds} rounds ({synced} where the disk is waited for); medians over the rounds. \"times\" is how many
times better Basalt is than the best of those the aim is set against, in the same round, in brackets the smallest and the largest; below its aim a row is not bold.
A load of {load} when this was written, all processes counted: far above two, rates are those of a machine that is wanted elsewhere, and the medians of an operation, further below, say more.
`benches/peers/README.md` has the settings. LMDB and redb promise less for what is not synced: a commit of redb's then stays in the process, and LMDB has no log.
{without}
## What each did

"
    );
    figures(&mut text, run);
    text.push_str("\n## Time of an operation\n\nMicroseconds: median, 99 of 100.\n\n");
    pairs(&mut text, run, |figure| (figure.median, figure.high), "");
    text.push_str("\n## Bytes written, by byte of keys and values\n\nBy the end of the row, without what goes on in the background after it.\n\n");
    pairs(&mut text, run, |figure| (figure.written, f64::NAN), "");
    text.push_str("\n## Memory\n\nMiB at the end of a row: of the process's own, its caches among it; mapped pages of files.\n\n");
    pairs(
        &mut text,
        run,
        |figure| (figure.own, figure.mapped),
        "fill random, one writer|get, four threads|readers beside a writer: gets|disk space after overwrites",
    );
    text.push_str("\n## The machine\n\n| | | median, us | 99 of 100, us |\n|---|---:|---:|---:|\n");
    for row in &LIMITS {
        let of = |of: fn(&Figure) -> f64| run.median(None, row, of);
        let (value, median, high) = (of(|f| f.value), of(|f| f.median), of(|f| f.high));
        let _ = writeln!(
            text,
            "| {}, {} | {} | {} | {} |",
            row.name,
            row.unit,
            number(value),
            number(median),
            number(high)
        );
    }
    text
}

fn figures(text: &mut String, run: &Run<'_>) {
    text.push_str("| | |");
    let mut rule = "|---|---|".to_owned();
    for kind in run.kinds {
        let _ = write!(text, " {} |", kind.name());
        rule.push_str("---:|");
    }
    let _ = writeln!(text, " times | aim |\n{rule}---:|---|");
    for row in &ROWS {
        let _ = write!(text, "| {} | {} |", row.name, row.unit);
        for kind in run.kinds {
            let value = run.median(Some(*kind), row, |figure| figure.value);
            let _ = write!(text, " {} |", number(value));
        }
        let Some((aim, against)) = row.aim else {
            text.push_str(" | |\n");
            continue;
        };
        let times = run.times(row, against);
        let shown = match times.as_slice() {
            [] => "-".to_owned(),
            [low, .., high] => {
                let median = times[times.len() / 2];
                format!("{} ({low:.2}-{high:.2})", bold(median, aim))
            }
            [only] => bold(*only, aim),
        };
        let _ = writeln!(text, " {shown} | {aim} x {} |", against.name());
    }
}

fn bold(times: f64, aim: f64) -> String {
    if times >= aim {
        format!("**{times:.2}**")
    } else {
        format!("{times:.2}")
    }
}

/// A table of pairs, of the rows named in `only` (all, where it is empty) that have any.
fn pairs(text: &mut String, run: &Run<'_>, of: impl Fn(&Figure) -> (f64, f64), only: &str) {
    text.push_str("| |");
    let mut rule = "|---|".to_owned();
    for kind in run.kinds {
        let _ = write!(text, " {} |", kind.name());
        rule.push_str("---:|");
    }
    let _ = writeln!(text, "\n{rule}");
    for row in &ROWS {
        if !only.is_empty() && !only.split('|').any(|name| name == row.name) {
            continue;
        }
        let pair = |kind: &Kind| {
            let first = run.median(Some(*kind), row, |figure| of(figure).0);
            let second = run.median(Some(*kind), row, |figure| of(figure).1);
            (first, second)
        };
        let pairs: Vec<_> = run.kinds.iter().map(pair).collect();
        if pairs.iter().all(|(first, _)| first.is_nan()) {
            continue;
        }
        let _ = write!(text, "| {} |", row.name);
        for (first, second) in pairs {
            let _ = match second.is_nan() {
                true => write!(text, " {} |", number(first)),
                false => write!(text, " {}, {} |", number(first), number(second)),
            };
        }
        text.push('\n');
    }
}

/// Three digits that count.
pub fn number(value: f64) -> String {
    if value.is_nan() {
        return "-".to_owned();
    }
    match value.abs() {
        1e6.. => format!("{:.2} M", value / 1e6),
        1e4.. => format!("{:.0} K", value / 1e3),
        1e3.. => format!("{:.1} K", value / 1e3),
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        1.0.. => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| !value.is_nan());
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
