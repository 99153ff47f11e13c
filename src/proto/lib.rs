//! basalt-proto
