//! The document that a run leaves: tables in Markdown, with what a reader needs to judge them.

use std::fmt::Write;

use crate::{
    load::{KEYS, PER_CONNECTION, Slice},
    wire::{KEY, Kind, Op, VALUE},
};

/// One workload: for each round, a slice of each kind.
pub struct Measured {
    pub op: Op,
    pub clients: usize,
    pub slices: Vec<Vec<Slice>>,
}

/// Seconds of each write with its sync.
#[derive(Default)]
pub struct Disk {
    pub appends: Vec<f64>,
    pub overwrites: Vec<f64>,
}

/// Puts while syncs were counted.
pub struct Syncs {
    pub kind: Kind,
    pub clients: usize,
    pub slice: Slice,
}

/// How the run was made, and what belongs to no workload.
pub struct Run<'a> {
    pub kinds: &'a [Kind],
    pub etcd: Option<String>,
    pub rounds: usize,
    pub seconds: f64,
    /// Share of a core, for each kind.
    pub idle: Vec<f64>,
    pub disk: Disk,
    pub syncs: Option<Vec<Syncs>>,
}

pub fn document(run: &Run, rows: &[Measured]) -> String {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let etcd = run.etcd.as_deref().unwrap_or("etcd, not installed");
    let (rounds, seconds) = (run.rounds, run.seconds);
    let _ = write!(
        text,
        "\
# Three stores beside etcd

Three `basalt server` processes and three of etcd on one machine, with their data on one disk; both sides run all the time and take turns
being asked, slice by slice, and who is first changes each round. One process, on one thread, has all clients: each asks the leader, over gRPC, and
asks again as soon as it has its answer; {PER_CONNECTION} of them share a connection. Keys have {KEY} bytes ({KEYS} of them, all written before), values {VALUE} bytes that do not
compress. A put is answered when a majority has it on disk; a get is linearizable on both sides (`RawGet`, and `Range` without `serializable`). An
empty call is gRPC's health check at the same server.

Made by the following commands; `benches/peers/README.md` says what they need.

```text
cargo build --release
cd benches/peers && cargo run --release --bin stores -- --write ../../docs/benchmarks/cluster.md
```

{cores} cores, {etcd} as Debian ships it, with its defaults; Basalt with its own. {rounds} rounds of {seconds} s for each row and side; figures are medians over the rounds. \"times\" is Basalt's rate over
etcd's in the same round, in brackets the smallest and the largest.

## Requests a second

",
    );
    speed(&mut text, run, rows);
    text.push_str("\n## CPU time of a request\n\n");
    text.push_str(
        "All three servers together (user and system, as the kernel counts them), the clients' own beside it; microseconds. \"times\" \
         is etcd's over Basalt's: above\n1, Basalt spends less.\n\n",
    );
    cpu(&mut text, run, rows);
    for (kind, share) in run.kinds.iter().zip(&run.idle) {
        let _ = write!(
            text,
            "\nAsked for nothing, the three of {} take {:.1} % of a core.",
            kind.name(),
            share * 100.0
        );
    }
    text.push_str("\n\n## The disk\n\n");
    disk(&mut text, run);
    text.push_str(
        "\n## What to keep in mind\n\n\
         - Six servers and the clients share the cores, so where the disk does not decide, the CPU does: rates are not those of three machines. \
           The CPU time of a request carries over better.\n\
         - The thread of the clients is a limit too: rows where its CPU time times the rate nears one second a second say little about the servers.\n\
         - All three logs of a side are on one disk, and so are those of the other side, which is idle but for heartbeats.\n\
         - A slower disk, or a file system with a journal to write, makes a sync longer for both, and brings ratios of few clients nearer to 1.\n\
         - There is no network: on a real one both sides pay the same for it, which brings ratios of one client nearer to 1.\n\
         - etcd keeps every version of a key until it is told to compact, and Basalt only the newest: etcd does more for a put.\n\
         - etcd confirms linearizable reads, a batch at a time, by a round of heartbeats. A leader of Basalt answers them under its lease, without asking \
           anybody: that is linearizable as long as clocks run at about the same speed, which etcd does not need.\n\
         - etcd is older than its newest: it is what Debian ships.\n",
    );
    text
}

fn speed(text: &mut String, run: &Run, rows: &[Measured]) {
    text.push_str("| | clients |");
    let mut rule = "|---|---:|".to_owned();
    for what in ["a second", "median, us", "99 of 100, us"] {
        for kind in run.kinds {
            let _ = write!(text, " {}, {what} |", kind.name());
            rule.push_str("---:|");
        }
        if what == "a second" {
            text.push_str(" times |");
            rule.push_str("---:|");
        }
    }
    let _ = writeln!(text, "\n{rule}");
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.op.name(), row.clients);
        for place in 0..run.kinds.len() {
            let _ = write!(text, " {:.0} |", of(row, place, Slice::rate));
        }
        let _ = write!(
            text,
            " {} |",
            times(row, |etcd, ours| ours.rate() / etcd.rate())
        );
        for what in [
            (|slice: &Slice| slice.median * 1e6) as fn(&Slice) -> f64,
            |slice| slice.high * 1e6,
        ] {
            for place in 0..run.kinds.len() {
                let _ = write!(text, " {:.0} |", of(row, place, what));
            }
        }
        text.push('\n');
    }
    let failures = |place: usize| -> u64 {
        let slices = rows.iter().flat_map(|row| &row.slices);
        slices.map(|slices| slices[place].failures).sum()
    };
    for (place, kind) in run.kinds.iter().enumerate() {
        let count = failures(place);
        if count > 0 {
            let _ = write!(text, "\n{count} requests to {} failed.", kind.name());
        }
    }
    if (0..run.kinds.len()).all(|place| failures(place) == 0) {
        text.push_str("\nNo request failed.");
    }
    text.push('\n');
}

fn cpu(text: &mut String, run: &Run, rows: &[Measured]) {
    text.push_str("| | clients |");
    let mut rule = "|---|---:|".to_owned();
    for what in ["servers", "clients"] {
        for kind in run.kinds {
            let _ = write!(text, " {}, {what} |", kind.name());
            rule.push_str("---:|");
        }
        if what == "servers" {
            text.push_str(" times |");
            rule.push_str("---:|");
        }
    }
    let _ = writeln!(text, "\n{rule}");
    for row in rows {
        let _ = write!(text, "| {} | {} |", row.op.name(), row.clients);
        for place in 0..run.kinds.len() {
            let _ = write!(text, " {:.0} |", of(row, place, server_cpu) * 1e6);
        }
        let ratio = times(row, |etcd, ours| server_cpu(etcd) / server_cpu(ours));
        let _ = write!(text, " {ratio} |");
        for place in 0..run.kinds.len() {
            let cpu = of(row, place, |slice| slice.client_cpu / slice.requests as f64);
            let _ = write!(text, " {:.0} |", cpu * 1e6);
        }
        text.push('\n');
    }
}

fn disk(text: &mut String, run: &Run) {
    let _ = writeln!(
        text,
        "{VALUE} bytes written and synced (`fdatasync`), with nobody else at the disk: {:.0} us at the end of a file, {:.0} us over bytes that are there (medians).",
        median(run.disk.appends.clone()) * 1e6,
        median(run.disk.overwrites.clone()) * 1e6
    );
    let Some(syncs) = &run.syncs else {
        text.push_str("\nSyncs of a put were not counted: strace is not installed.\n");
        return;
    };
    text.push_str(
        "\nSyncs of a put (`fsync`, `fdatasync`, `msync`, `sync_file_range`), counted by strace in servers of their own; they stop at these calls only, \
         and may be slower for it.\n\n\
         | clients | | puts a second, traced | syncs a put, leader | syncs a put, each other |\n|---:|---|---:|---:|---:|\n",
    );
    for Syncs {
        kind,
        clients,
        slice,
    } in syncs
    {
        let puts = slice.requests as f64;
        let (leader, others) = slice.syncs;
        let _ = writeln!(
            text,
            "| {clients} | {} | {:.0} | {:.2} | {:.2} |",
            kind.name(),
            slice.rate(),
            leader as f64 / puts,
            others as f64 / puts / 2.0
        );
    }
}

fn server_cpu(slice: &Slice) -> f64 {
    slice.server_cpu / slice.requests as f64
}

fn of(row: &Measured, place: usize, figure: impl Fn(&Slice) -> f64) -> f64 {
    median(
        row.slices
            .iter()
            .map(|slices| figure(&slices[place]))
            .collect(),
    )
}

/// `1.25 (1.20-1.31)`; a dash where there is nothing to compare with.
fn times(row: &Measured, ratio: impl Fn(&Slice, &Slice) -> f64) -> String {
    let pairs = row.slices.iter().map(|slices| match slices.as_slice() {
        [etcd, ours] => Some(ratio(etcd, ours)),
        _ => None,
    });
    let Some(mut ratios) = pairs.collect::<Option<Vec<f64>>>() else {
        return "-".to_owned();
    };
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[0], ratios[ratios.len() - 1]);
    format!("**{:.2}** ({low:.2}-{high:.2})", median(ratios))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
