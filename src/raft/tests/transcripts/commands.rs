//! The commands of interaction transcripts. Those of the reference keep its options and answers. Our own are
//! `read-index`, `report-snapshot`, `wipe-node`, the option `from=` of `deliver-msgs`, and some of `add-nodes`.
//!
//! A command that is used wrongly panics: the file is wrong then, and not the node.

use std::str::FromStr;

use basalt_raft::{
    Config, MembershipChange, NO_LIMIT, ReadMode, SnapshotStatus,
    eraftpb::{
        ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
        MessageType, Snapshot,
    },
    reference_name,
};
use bytes::Bytes;

use crate::{
    datadriven::Step,
    environment::{Answer, Environment, Filter, Recipient, Thread},
};

fn parsed<T: FromStr>(text: &str) -> T {
    let value = text.parse();
    value.unwrap_or_else(|_| panic!("cannot make sense of `{text}`"))
}

/// The words as ids of nodes.
fn ids(step: &Step) -> Vec<u64> {
    step.words().map(parsed).collect()
}

fn first_id(step: &Step) -> u64 {
    parsed(step.words().next().expect("a node's id"))
}

fn two_ids(step: &Step) -> (u64, u64) {
    match ids(step)[..] {
        [first, second] => (first, second),
        _ => panic!("two ids are needed"),
    }
}

/// The word behind the id.
fn second_word(step: &Step) -> Bytes {
    let word = step.words().nth(1).expect("a word behind the id");
    Bytes::copy_from_slice(word.as_bytes())
}

/// Runs a step; the text is what it printed.
pub(crate) fn run(env: &mut Environment, step: &Step) -> String {
    env.output.take();
    let answer = handle(env, step);
    let mut text = env.output.take();
    if let Err(error) = answer {
        // Errors are shown even where nothing else is.
        text.push_str(&error);
    }
    if text.is_empty() {
        text.push_str("ok");
    }
    text
}

fn handle(env: &mut Environment, step: &Step) -> Answer {
    match step.command.as_str() {
        "_breakpoint" => Ok(()),
        "log-level" => {
            let level = step.words().next().expect("a level");
            env.output.set_level_by_name(level)
        }
        "add-nodes" => add_nodes(env, step),
        "stabilize" => stabilize(env, step),
        "deliver-msgs" => deliver(env, step),
        "process-ready" => each(env, step, "handling Ready", Environment::process_ready),
        "process-append-thread" => process_thread(env, step, Thread::Append),
        "process-apply-thread" => process_thread(env, step, Thread::Apply),
        "raft-state" => {
            print_states(env);
            Ok(())
        }
        "status" => {
            print_progress(env, first_id(step));
            Ok(())
        }
        "wipe-node" => env.wipe_node(first_id(step)),
        "raft-log" => env.print_log(first_id(step)),
        "compact" => {
            let (id, index) = two_ids(step);
            env.compact(id, index)
        }
        "send-snapshot" => {
            let (from, to) = two_ids(step);
            env.send_snapshot(from, to)
        }
        _ => handle_request(env, step),
    }
}

/// Commands that are one call of a node.
fn handle_request(env: &mut Environment, step: &Step) -> Answer {
    let named = |key| parsed(step.option(key).unwrap_or_else(|| panic!("no {key}=")));
    match step.command.as_str() {
        "campaign" => env.on(first_id(step), basalt_raft::RawNode::campaign),
        "propose" => env.on(first_id(step), |node| node.propose(second_word(step))),
        "propose-conf-change" => propose_conf_change(env, step),
        "read-index" => env.on(first_id(step), |node| node.read_index(second_word(step))),
        "tick-election" => env.tick(first_id(step), true),
        "tick-heartbeat" => env.tick(first_id(step), false),
        "set-randomized-election-timeout" => {
            let timeout = named("timeout");
            let node = &mut env.node(first_id(step)).raw;
            node.raft_mut().set_randomized_election_timeout(timeout);
            Ok(())
        }
        "transfer-leadership" => {
            let (from, to) = (named("from"), named("to"));
            env.on(from, |node| node.transfer_leader(to))
        }
        "forget-leader" => env.on(first_id(step), basalt_raft::RawNode::forget_leader),
        "report-unreachable" => {
            let (id, whom) = two_ids(step);
            env.on(id, |node| node.report_unreachable(whom))
        }
        "report-snapshot" => {
            let (id, whom) = two_ids(step);
            let status = match step.option("status") {
                Some("delivered") => SnapshotStatus::Delivered,
                Some("failed") => SnapshotStatus::Failed,
                other => panic!("no status of a snapshot: {other:?}"),
            };
            env.on(id, |node| node.report_snapshot(whom, status))
        }
        _ => Err("unknown command".to_owned()),
    }
}

/// Runs `f` for each id; with more than one each has its heading.
fn each(
    env: &mut Environment,
    step: &Step,
    heading: &str,
    f: impl Fn(&mut Environment, u64) -> Answer,
) -> Answer {
    let ids = ids(step);
    for id in &ids {
        if ids.len() > 1 {
            env.headed(*id, heading, |env| f(env, *id))?;
        } else {
            f(env, *id)?;
        }
    }
    Ok(())
}

fn process_thread(env: &mut Environment, step: &Step, thread: Thread) -> Answer {
    each(env, step, thread.heading(), |env, id| {
        env.process_thread(id, thread)
    })
}

fn stabilize(env: &mut Environment, step: &Step) -> Answer {
    let before = env.output.level();
    let mut answer = Ok(());
    if let Some(level) = step.option("log-level") {
        answer = env.output.set_level_by_name(level);
    }
    let answer = answer.and_then(|()| env.stabilize(&ids(step)));
    env.output.set_level(before);
    answer
}

fn deliver(env: &mut Environment, step: &Step) -> Answer {
    let mut recipients = Vec::new();
    for argument in &step.arguments {
        let drop = argument.key == "drop";
        if argument.values.is_empty() {
            let id = parsed(&argument.key);
            recipients.push(Recipient { id, drop });
        } else if drop {
            let ids = argument.values.iter().map(|id| parsed(id));
            recipients.extend(ids.map(|id| Recipient { id, drop }));
        }
    }
    let kind = step.option("type").map(|name| {
        let all = (0..64).filter_map(|kind| MessageType::try_from(kind).ok());
        let mut named = all.filter(|kind| reference_name(*kind) == name);
        named
            .next()
            .unwrap_or_else(|| panic!("no message is called {name}"))
    });
    let from = step.option("from").map(parsed);
    if env.deliver(Filter { kind, from }, &recipients) == 0 {
        env.output.write("no messages\n");
    }
    Ok(())
}

/// The reference's defaults and not ours.
fn reference_config() -> Config {
    Config {
        election_tick: 3,
        heartbeat_tick: 1,
        max_size_per_msg: NO_LIMIT,
        max_committed_size_per_ready: NO_LIMIT,
        max_uncommitted_size: NO_LIMIT,
        max_inflight_msgs: i32::MAX as usize,
        max_inflight_bytes: NO_LIMIT,
        check_quorum: false,
        pre_vote: false,
        batch_appends: false,
        commit_by_vote: false,
        step_down_on_removal: false,
        ..Config::new(1)
    }
}

fn add_nodes(env: &mut Environment, step: &Step) -> Answer {
    let count = parsed(step.words().next().expect("a count of nodes"));
    let mut config = reference_config();
    let mut snapshot = Snapshot::default();
    for (key, value) in step.options() {
        match key {
            "voters" | "learners" | "index" => {
                let metadata = snapshot.metadata.get_or_insert_default();
                let members = metadata.conf_state.get_or_insert_default();
                match key {
                    "voters" => members.nodes.push(parsed(value)),
                    "learners" => members.learners.push(parsed(value)),
                    _ => {
                        metadata.index = parsed(value);
                        config.applied = metadata.index;
                    }
                }
            }
            "content" => snapshot.data = Bytes::copy_from_slice(value.as_bytes()),
            "inflight" => config.max_inflight_msgs = parsed(value),
            "async-storage-writes" => config.async_storage_writes = parsed(value),
            "prevote" => config.pre_vote = parsed(value),
            "checkquorum" => config.check_quorum = parsed(value),
            "max-committed-size-per-ready" => config.max_committed_size_per_ready = parsed(value),
            "disable-conf-change-validation" => {
                config.disable_conf_change_validation = parsed(value);
            }
            "step-down-on-removal" => config.step_down_on_removal = parsed(value),
            "read-only" => {
                config.read_mode = match value {
                    "safe" => ReadMode::Safe,
                    "lease-based" => ReadMode::LeaseBased,
                    _ => return Err(format!("invalid read-only option \"{value}\"")),
                }
            }
            // Our own from here on.
            "inflight-bytes" => config.max_inflight_bytes = parsed(value),
            "max-size-per-msg" => config.max_size_per_msg = parsed(value),
            "max-uncommitted-size" => config.max_uncommitted_size = parsed(value),
            "disable-proposal-forwarding" => config.disable_proposal_forwarding = parsed(value),
            "batch-appends" => config.batch_appends = parsed(value),
            _ => panic!("add-nodes has no option {key}"),
        }
    }
    env.add_nodes(count, &config, &snapshot)
}

/// Changes written as `v1 l2 r3 u4`.
pub(crate) fn changes(text: &str) -> Result<Vec<ConfChangeSingle>, String> {
    let one = |word: &str| {
        let (kind, id) = word.split_at_checked(1).unwrap_or((word, ""));
        let kind = match kind {
            _ if word.len() < 2 => return Err(format!("unknown token {word}")),
            "v" => ConfChangeType::AddNode,
            "l" => ConfChangeType::AddLearnerNode,
            "r" => ConfChangeType::RemoveNode,
            "u" => ConfChangeType::UpdateNode,
            _ => return Err(format!("unknown input: {word}")),
        };
        Ok(ConfChangeSingle {
            change_type: kind.into(),
            node_id: parsed(id),
        })
    };
    text.split_whitespace().map(one).collect()
}

fn propose_conf_change(env: &mut Environment, step: &Step) -> Answer {
    let mut v1 = false;
    let mut transition = ConfChangeTransition::TransitionAuto;
    for (key, value) in step.options() {
        match (key, value) {
            ("v1", _) => v1 = parsed(value),
            ("transition", "auto") => transition = ConfChangeTransition::TransitionAuto,
            ("transition", "implicit") => {
                transition = ConfChangeTransition::TransitionJointImplicit;
            }
            ("transition", "explicit") => {
                transition = ConfChangeTransition::TransitionJointExplicit;
            }
            ("transition", _) => return Err(format!("unknown transition {value}")),
            _ => return Err(format!("unknown command {key}")),
        }
    }
    let changes = changes(&step.input)?;
    let change: MembershipChange = if v1 {
        let [single] = &changes[..] else {
            return Err("v1 conf change can only have one operation and no transition".to_owned());
        };
        if transition != ConfChangeTransition::TransitionAuto {
            return Err("v1 conf change can only have one operation and no transition".to_owned());
        }
        ConfChange {
            change_type: single.change_type,
            node_id: single.node_id,
            ..ConfChange::default()
        }
        .into()
    } else {
        ConfChangeV2 {
            transition: transition.into(),
            changes,
            ..ConfChangeV2::default()
        }
        .into()
    };
    env.on(first_id(step), |node| node.propose_conf_change(change))
}

fn print_states(env: &Environment) {
    for node in &env.nodes {
        let raft = node.raw.raft();
        let votes = raft.configuration().voters.contains(raft.id());
        env.output.write(&format!(
            "{}: {} ({}) Term:{} Lead:{}\n",
            raft.id(),
            raft.role(),
            if votes { "Voter" } else { "Non-Voter" },
            raft.term(),
            raft.leader()
        ));
    }
}

fn print_progress(env: &mut Environment, id: u64) {
    let status = env.node(id).raw.status();
    for (id, progress) in status.progress {
        env.output.write(&format!("{id}: {progress}\n"));
    }
}
