//! Basalt: a key-value store on its own log-structured engine, wire-compatible with TinyKV.
pub use basalt_engine as engine;
pub use basalt_proto as proto;
pub use basalt_server as server;
