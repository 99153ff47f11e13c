//! One node, given random messages that mostly should not be, over a storage that fails, by a
//! caller that repeats, forgets and crashes: nothing panics, nothing that was promised is taken
//! back, no entry that was handed out to be applied ever changes, and when all is well again the
//! node follows the next leader.
//!
//! The messages look as if they belonged: terms and indexes near the node's own, senders that
//! exist. Nothing is claimed here about a group: a peer that lies may mislead a node about what is
//! committed, once.

#[path = "abuse/messages.rs"]
mod messages;
#[path = "abuse/storage.rs"]
mod storage;
#[path = "abuse/world.rs"]
mod world;

use basalt_testkit::{Replay, Seeds, long_factor};

use world::{Counts, World};

const SEEDS: u64 = 600;
const EVENTS: u64 = 300;

#[test]
fn no_message_no_storage_error_and_no_call_makes_a_node_panic_or_take_anything_back() {
    let test = "no_message_no_storage_error_and_no_call_makes_a_node_panic_or_take_anything_back";
    let seeds = Seeds::new(test, SEEDS * long_factor());
    let replays = seeds.is_replay();
    let mut counts = Counts::default();
    for seed in seeds {
        let _replay = Replay::new("-p basalt-raft --test abuse", test, seed);
        let mut world = World::new(seed);
        for _ in 0..EVENTS {
            world.event(&mut counts);
        }
        world.recovers(&mut counts);
    }
    println!("{counts:?}");
    if replays {
        return;
    }
    let Counts {
        taken,
        refused,
        storage_errors,
        led,
        applied,
        snapshots,
        crashes,
        changes,
        ..
    } = counts;
    assert!(taken > 20_000 && refused > 20_000, "{counts:?}");
    assert!(storage_errors > 1_000 && crashes > 1_000, "{counts:?}");
    assert!(led > 1_000 && applied > 10_000, "{counts:?}");
    assert!(snapshots > 500 && changes > 500, "{counts:?}");
}
