//! What the tests of all crates share: random numbers that follow from a seed, the line that replays a failed
//! case, the model that a database is compared with, and the check that what clients of a store saw is linearizable.
//!
//! A dev-dependency only. It knows nothing of the crates under test, so that a mistake there cannot hide here.

#![expect(
    clippy::missing_panics_doc,
    reason = "a panic is how a test kit says that a test is wrong"
)]

pub mod history;
mod model;
mod model_cursor;
mod rng;
mod seeds;

pub use model::{Change, FamilyId, History, Map, Model, ModelFamily, Value};
pub use model_cursor::{Bounds, ModelCursor};
pub use rng::Rng;
pub use seeds::{Replay, Seeds, long_factor};
