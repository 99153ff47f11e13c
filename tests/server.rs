//! The real binary, over gRPC and on its command line: what it answers, what it refuses, and what
//! survives when it is killed.
//!
//! Every server listens on ports the system picks, so that tests run side by side.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "server/certificates.rs"]
mod certificates;
#[path = "server/support.rs"]
mod support;

#[path = "server/client.rs"]
mod client;
#[path = "server/commands.rs"]
mod commands;
#[path = "server/contexts.rs"]
mod contexts;
#[path = "server/data.rs"]
mod data;
#[path = "server/errors.rs"]
mod errors;
#[path = "server/kill.rs"]
mod kill;
#[path = "server/metrics.rs"]
mod metrics;
#[path = "server/mutated.rs"]
mod mutated;
#[path = "server/operations.rs"]
mod operations;
#[path = "server/security.rs"]
mod security;
#[path = "server/semantics.rs"]
mod semantics;
#[path = "server/settings.rs"]
mod settings;
#[path = "server/shell.rs"]
mod shell;
#[path = "server/signals.rs"]
mod signals;
#[path = "server/starting.rs"]
mod starting;
#[path = "server/status_api.rs"]
mod status_api;
