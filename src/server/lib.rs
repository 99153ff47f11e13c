//! The Basalt server: the gRPC services of TinyKV over the storage engine, status pages, and the
//! command line.
//!
//! Not here: how data is stored (`basalt_engine`), messages (`basalt_proto`).

pub mod cli;
pub mod config;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod serve;
pub mod service;
pub mod state;
pub mod status_pages;
pub mod storage;
pub mod stubs;
