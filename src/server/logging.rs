//! The log: events on standard error, as text on a terminal and as JSON in a pipe.
//!
//! Promises: no keys and no values in it, ours or a library's; libraries are heard from `warn` on.

use std::io::{self, IsTerminal as _};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

/// Begins to log what is at least as important as `level`. A second call changes nothing.
pub fn init(level: LevelFilter) {
    // HTTP/2 libraries print frames, which hold keys and values, at their lower levels.
    let filter = Targets::new()
        .with_target("basalt", level)
        .with_default(level.min(LevelFilter::WARN));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // A logger that is set already is a test's; it stays.
    let _ = if io::stderr().is_terminal() {
        registry
            .with(layer.with_ansi(std::env::var_os("NO_COLOR").is_none()))
            .try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
}
