//! The log: events on standard error, as text on a terminal and as JSON in a pipe.
//!
//! Promises: no keys and no values in it, ours or a library's; libraries are heard from `warn` on; the level can
//! change while the server runs, and what is below it costs one look at a number; refusals of callers are noted at
//! every level.

pub mod recent;

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    Registry,
    filter::Targets,
    layer::SubscriberExt as _,
    reload::{self, Handle},
    util::SubscriberInitExt as _,
};

/// Where refusals of callers are noted, beside what else is logged: one line each, whatever the level.
pub const AUDIT: &str = "basalt::audit";

static FILTER: OnceLock<Handle<Targets, Registry>> = OnceLock::new();

fn filter(level: LevelFilter) -> Targets {
    // HTTP/2 libraries print frames, which hold keys and values, at their lower levels.
    Targets::new()
        .with_target("basalt", level)
        .with_target(AUDIT, level.max(LevelFilter::WARN))
        .with_default(level.min(LevelFilter::WARN))
}

/// Begins to log what is at least as important as `level`. A second call changes nothing.
pub fn init(level: LevelFilter) {
    let (filter, handle) = reload::Layer::new(filter(level));
    let registry = tracing_subscriber::registry()
        .with(filter)
        .with(recent::Recent);
    let layer = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let set = if io::stderr().is_terminal() {
        registry
            .with(layer.with_ansi(std::env::var_os("NO_COLOR").is_none()))
            .try_init()
    } else {
        registry.with(layer.json().flatten_event(true)).try_init()
    };
    // A logger that is set already is a test's; it stays.
    if set.is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// From now on what is at least as important as `level` is logged.
pub fn set_level(level: LevelFilter) {
    if let Some(handle) = FILTER.get() {
        // It fails when the logger is gone, and then nobody logs.
        let _ = handle.modify(|now| *now = filter(level));
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn refusals_are_noted_at_every_level_and_libraries_never_in_detail() {
        for level in [
            LevelFilter::OFF,
            LevelFilter::ERROR,
            LevelFilter::INFO,
            LevelFilter::TRACE,
        ] {
            let filter = filter(level);
            assert!(filter.would_enable(AUDIT, &Level::WARN), "{level}");
            let own = filter.would_enable("basalt_server::serve", &Level::WARN);
            assert_eq!(own, level >= LevelFilter::WARN, "{level}");
            assert!(!filter.would_enable("h2::codec", &Level::DEBUG), "{level}");
        }
    }
}
