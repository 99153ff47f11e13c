//! basalt-engine
