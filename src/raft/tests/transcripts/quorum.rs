//! The commands of quorum transcripts: `committed` draws who has acknowledged what and says what is committed, `vote`
//! says how an election stands. Each result is compared with those of other ways to find it.

use std::{collections::BTreeMap, fmt::Write as _};

use basalt_raft::quorum::{JointConfig, MajorityConfig};

use crate::datadriven::Step;

/// What each voter said, in the order of `voters`, each once.
fn assigned(step: &Step, key: &str, voters: &[u64]) -> Result<BTreeMap<u64, u64>, String> {
    let mut unique: Vec<u64> = Vec::new();
    for id in voters {
        if !unique.contains(id) {
            unique.push(*id);
        }
    }
    let said: Vec<u64> = step
        .options()
        .filter(|(name, _)| *name == key)
        .map(|(_, value)| match value {
            "_" => 0,
            "n" => 1,
            "y" => 2,
            _ => {
                let index = value
                    .parse()
                    .unwrap_or_else(|_| panic!("no index: {value}"));
                assert!(index > 0, "0 cannot be told from nothing");
                index
            }
        })
        .collect();
    if said.len() != unique.len() {
        return Err(format!(
            "error: mismatched input (explicit or _) for voters {unique:?}: {said:?}"
        ));
    }
    let pairs = unique.into_iter().zip(said);
    Ok(pairs.filter(|(_, value)| *value > 0).collect())
}

fn config(step: &Step, key: &str) -> Vec<u64> {
    let values = step.options().filter(|(name, _)| *name == key);
    let ids = values.filter(|(_, value)| *value != "zero");
    ids.map(|(_, value)| value.parse().unwrap_or_else(|_| panic!("no id: {value}")))
        .collect()
}

/// Runs a step.
pub(crate) fn run(step: &Step) -> String {
    let (ids, outgoing_ids) = (config(step, "cfg"), config(step, "cfgj"));
    let is_joint = step.option("cfgj").is_some();
    let joint = JointConfig {
        incoming: ids.iter().copied().collect(),
        outgoing: outgoing_ids.iter().copied().collect(),
    };
    let key = if step.command == "vote" {
        "votes"
    } else {
        "idx"
    };
    let voters = [ids, outgoing_ids].concat();
    let said = match assigned(step, key, &voters) {
        Ok(said) => said,
        Err(error) => return error,
    };
    match step.command.as_str() {
        "committed" if is_joint => joint_commit(&joint, &said),
        "committed" => majority_commit(&joint.incoming, &said),
        "vote" => vote(&joint, is_joint, &said),
        other => panic!("unknown command: {other}"),
    }
}

fn swapped(joint: &JointConfig) -> JointConfig {
    JointConfig {
        incoming: joint.outgoing.clone(),
        outgoing: joint.incoming.clone(),
    }
}

fn index_text(index: u64) -> String {
    if index == u64::MAX {
        return "\u{221e}".to_owned();
    }
    index.to_string()
}

fn majority_commit(config: &MajorityConfig, said: &BTreeMap<u64, u64>) -> String {
    let mut text = diagram(config, said);
    let committed = |config: &MajorityConfig, said: &BTreeMap<u64, u64>| {
        config.committed_index(|id| said.get(&id).copied())
    };
    let index = committed(config, said);
    let mut compare = |other: u64, how: &str| {
        if other != index {
            let _ = writeln!(text, "{} <-- {how}", index_text(other));
        }
    };
    compare(by_counting(config, said), "via alternative computation");
    for (outgoing, how) in [
        (MajorityConfig::default(), "via zero-joint quorum"),
        (config.clone(), "via self-joint quorum"),
    ] {
        let joint = JointConfig {
            incoming: config.clone(),
            outgoing,
        };
        compare(joint.committed_index(|id| said.get(&id).copied()), how);
    }
    // Whoever is below the result does not matter to it.
    for (id, acked) in said.iter().filter(|(_, acked)| **acked < index) {
        for lower in [acked - 1, 0] {
            let mut said = said.clone();
            said.insert(*id, lower);
            let how = format!("overlaying {id}->{lower}");
            compare(committed(config, &said), &how);
        }
    }
    let _ = writeln!(text, "{}", index_text(index));
    text
}

/// The largest acknowledged index that a majority has, found by counting for each.
fn by_counting(config: &MajorityConfig, said: &BTreeMap<u64, u64>) -> u64 {
    if config.is_empty() {
        return u64::MAX;
    }
    let acked = |id: &u64| said.get(id).copied().unwrap_or(0);
    let ids = config.ids();
    let on_majority = |index: u64| {
        let count = ids.iter().filter(|id| acked(id) >= index).count();
        count > ids.len() / 2
    };
    let indexes = ids.iter().map(acked).filter(|index| on_majority(*index));
    indexes.max().unwrap_or(0)
}

fn joint_commit(joint: &JointConfig, said: &BTreeMap<u64, u64>) -> String {
    let acked = |id: u64| said.get(&id).copied();
    let mut text = diagram(&joint.ids(), said);
    let index = joint.committed_index(acked);
    let other = swapped(joint).committed_index(acked);
    if other != index {
        let _ = writeln!(text, "{} <-- via symmetry", index_text(other));
    }
    let _ = writeln!(text, "{}", index_text(index));
    text
}

fn vote(joint: &JointConfig, is_joint: bool, said: &BTreeMap<u64, u64>) -> String {
    let votes = |id: u64| said.get(&id).map(|vote| *vote == 2);
    if !is_joint {
        return format!("{}\n", joint.incoming.vote_result(votes));
    }
    let mut text = String::new();
    let result = joint.vote_result(votes);
    let other = swapped(joint).vote_result(votes);
    if other != result {
        let _ = writeln!(text, "{other} <-- via symmetry");
    }
    let _ = writeln!(text, "{result}");
    text
}

/// Each voter with a bar as long as there are voters behind it, and the index it has acknowledged.
fn diagram(config: &MajorityConfig, said: &BTreeMap<u64, u64>) -> String {
    if config.is_empty() {
        return "<empty majority quorum>".to_owned();
    }
    let width = config.len();
    let index_of = |id: &u64| said.get(id).copied().unwrap_or(0);
    let mut text = format!("{:width$}    idx\n", "");
    for id in config.ids() {
        let index = index_of(id);
        let behind = config.ids().iter().filter(|other| index_of(other) < index);
        let bar = match said.get(id) {
            Some(_) => format!("{}>", "x".repeat(behind.count())),
            None => "?".to_owned(),
        };
        let columns = width + 1;
        let _ = writeln!(text, "{bar:columns$} {index:5}    (id={id})");
    }
    text
}
