//! What the engine does with memory, disk bandwidth and options while it is open, and what it tells about itself.
//!
//! Through the public calls alone; what can be simulated runs on the simulated disk from a seed.

#[path = "resources/compression.rs"]
mod compression;
#[path = "resources/events.rs"]
mod events;
#[path = "resources/insight.rs"]
mod insight;
#[path = "resources/manual.rs"]
mod manual;
#[path = "resources/online.rs"]
mod online;
#[path = "resources/pacing.rs"]
mod pacing;

use std::sync::Arc;

use basalt_engine::{Options, executor::SimExecutor, fs::SimFs};

/// A simulated disk, and options for databases on it.
fn simulated(seed: u64) -> (Arc<SimFs>, Options) {
    let fs = SimFs::new();
    let options = Options::with(Arc::clone(&fs) as _, Arc::new(SimExecutor::new(seed)));
    (fs, options)
}
