//! Bodies of the fuzz targets of the server's own texts: keys on the command line, founders, the file of known stores.
//!
//! Hidden from the documentation and no promise to anyone; see `basalt_engine::testing::fuzz`, whose rules are the same.

use crate::{cli::fuzz as cli, replicated::fuzz as replicated};

/// What a target does with bytes: true where they were taken for what they claim to be.
pub type Body = fn(&[u8]) -> bool;

/// Every target of this crate, by name.
pub const TARGETS: [(&str, Body); 3] = [
    ("key-text", cli::key_text),
    ("founders", replicated::founders),
    ("known-stores", replicated::known_stores),
];
