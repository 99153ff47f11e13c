//! The linearizability checker against what is known: cases written by hand, histories of an atomic store, the same
//! with one event changed, and slow oracles that try every order.
//!
//! - `BASALT_SEED=0x...` runs one case of a random test.
//! - `BASALT_LONG=n` runs `n` times as many.

#[path = "history/bad.rs"]
mod bad;
#[path = "history/changes.rs"]
mod changes;
#[path = "history/good.rs"]
mod good;
#[path = "history/oracle.rs"]
mod oracle;
#[path = "history/random.rs"]
mod random;
#[path = "history/recording.rs"]
mod recording;
#[path = "history/script.rs"]
mod script;
#[path = "history/speed.rs"]
mod speed;
#[path = "history/store.rs"]
mod store;
