//! The Basalt server: the gRPC services of TinyKV over the storage engine, status pages, and the
//! command line.
//!
//! Not here: how data is stored (`basalt_engine`), how it is replicated (`basalt_raftstore`), messages
//! (`basalt_proto`).

pub mod api;
pub mod auth;
pub mod cli;
pub mod config;
mod connections;
mod doctor;
mod figures;
#[doc(hidden)]
pub mod fuzz;
pub mod insight;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod replicated;
pub mod serve;
pub mod service;
pub mod state;
pub mod status_pages;
pub mod storage;
pub mod stubs;
pub mod tls;
mod web;
