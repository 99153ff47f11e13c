//! Three real `basalt server` processes as one store: what they serve, what the loss of one costs, whom they refuse,
//! and whether what clients saw is linearizable.
//!
//! Every cluster has ports and directories of its own, so that tests run side by side.

#![allow(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

#[path = "server/certificates.rs"]
mod certificates;
#[path = "cluster/devtools.rs"]
mod devtools;
#[path = "cluster/processes.rs"]
mod processes;

#[path = "cluster/browser.rs"]
mod browser;
#[path = "cluster/clients.rs"]
mod clients;
#[path = "cluster/data.rs"]
mod data;

#[path = "cluster/failures.rs"]
mod failures;
#[path = "cluster/forming.rs"]
mod forming;
#[path = "cluster/hostile.rs"]
mod hostile;
#[path = "cluster/members.rs"]
mod members;
#[path = "cluster/operations.rs"]
mod operations;
#[path = "cluster/routing.rs"]
mod routing;
#[path = "cluster/secure.rs"]
mod secure;
