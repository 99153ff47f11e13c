//! The document that a run leaves: tables in Markdown, with what a reader needs to judge them.

use std::{fmt::Write, process::Command};

use crate::bench::{Allocations, Workload};

/// One engine's figures in a row: medians over the slices, a proposal.
#[derive(Clone, Debug)]
pub struct Figures {
    pub name: &'static str,
    /// Seconds.
    pub wall: f64,
    /// Seconds of CPU.
    pub cpu: f64,
    pub allocations: Allocations,
}

/// A workload on all engines, ours last.
#[derive(Clone, Debug)]
pub struct Row {
    pub workload: Workload,
    pub engines: Vec<Figures>,
    /// For each peer: first quartile, median, third quartile of how many times its proposals a
    /// second ours makes, each slice held against the one beside it.
    pub times: Vec<[f64; 3]>,
}

/// How the run was made.
pub struct Run {
    pub command: String,
    pub codec: &'static str,
    pub passes: usize,
    /// A pass.
    pub slices: usize,
}

pub fn document(run: &Run, rows: &[Row]) -> String {
    let mut text = String::new();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let rustc = rustc();
    let _ = write!(
        text,
        "\
# The Raft core beside raft-rs

Three nodes on one thread, logs in memory, messages handed over as values. A round: n proposals to the leader, each by itself, then
messages until all three nodes have applied all of them and nothing is left to do. Both engines have the same driver, payloads made
anew for each proposal, pre-vote and check-quorum on, 1 MiB a message, 4,096 messages in flight, no other limit, no log lines. Ours batches
appends, and so does raft-rs (`batch_append`). After each slice of rounds the state machines of all nodes of all engines are compared.

Made by the following command; `benches/peers/README.md` says what it needs.

```text
{command}
```

raft-rs is the crate `raft` 0.7.0 with the messages of {codec}. It runs twice: with a log in memory that takes entries as they are
handed out, as ours does (\"raft-rs\"), and with the one that comes with it (\"raft-rs, MemStorage\"), which copies each entry and locks at each
call. A round takes six messages in ours, where appends that only tell the commit index are not answered, and eight in raft-rs.

{cores} cores, {rustc}, `lto = \"thin\"`, `codegen-units = 1` for all. Medians over {passes} passes through all rows with {slices} slices of about 2 ms
each; the engines take turns, slice by slice. \"times\" is how many proposals ours makes while the peer makes one: the median over pairs of neighbouring slices, in brackets the quartiles.

## Proposals a second

",
        command = run.command,
        codec = run.codec,
        passes = run.passes,
        slices = run.slices,
    );
    speed(&mut text, rows);
    text.push_str("\n## A proposal's share of CPU time and allocations\n\n");
    text.push_str(
        "All three nodes and the driver together; two of the allocations are the payload itself and the counter of its \
         sharers. Allocations\nare counted in a pass of their own.\n\n",
    );
    costs(&mut text, rows);
    text
}

fn speed(text: &mut String, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let (ours, peers) = first.engines.split_last().expect("engines");
    let mut head = "| payload | a round |".to_owned();
    let mut rule = "|---:|---:|".to_owned();
    for engine in peers.iter().chain([ours]) {
        let _ = write!(head, " {}, k/s |", engine.name);
        rule.push_str("---:|");
    }
    for peer in peers {
        let _ = write!(head, " times {} |", peer.name);
        rule.push_str("---:|");
    }
    let _ = writeln!(text, "{head}\n{rule}");
    for row in rows {
        let Workload { payload, per_round } = row.workload;
        let _ = write!(text, "| {payload} B | {per_round} |");
        for engine in &row.engines {
            let _ = write!(text, " {:.0} |", 1e-3 / engine.wall);
        }
        for [low, median, high] in &row.times {
            let _ = write!(text, " **{median:.2}** ({low:.2}-{high:.2}) |");
        }
        text.push('\n');
    }
}

fn costs(text: &mut String, rows: &[Row]) {
    let Some(first) = rows.first() else { return };
    let mut head = "| payload | a round |".to_owned();
    let mut rule = "|---:|---:|".to_owned();
    for what in ["CPU us", "allocations", "bytes"] {
        for engine in &first.engines {
            let _ = write!(head, " {what}, {} |", engine.name);
            rule.push_str("---:|");
        }
        if what == "CPU us" {
            let _ = write!(head, " times {} |", first.engines[0].name);
            rule.push_str("---:|");
        }
    }
    let _ = writeln!(text, "{head}\n{rule}");
    for row in rows {
        let Workload { payload, per_round } = row.workload;
        let _ = write!(text, "| {payload} B | {per_round} |");
        for engine in &row.engines {
            let _ = write!(text, " {:.3} |", engine.cpu * 1e6);
        }
        if let (Some(peer), Some(ours)) = (row.engines.first(), row.engines.last()) {
            let _ = write!(text, " {:.2} |", peer.cpu / ours.cpu);
        }
        for engine in &row.engines {
            let _ = write!(text, " {:.2} |", engine.allocations.calls);
        }
        for engine in &row.engines {
            let _ = write!(text, " {:.0} |", engine.allocations.bytes);
        }
        text.push('\n');
    }
}

/// `rustc 1.95.0`, of the compiler that a build here uses.
fn rustc() -> String {
    let output = Command::new("rustc").arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let words: Vec<&str> = text.split_whitespace().take(2).collect();
    words.join(" ")
}
