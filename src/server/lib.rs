//! basalt-server

pub mod stubs;
