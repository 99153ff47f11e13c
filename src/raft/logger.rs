//! Who is told what a node does: silent by default, and then nothing is formatted.

use std::fmt;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Details of replication.
    Debug,
    /// Elections, membership, snapshots.
    Info,
    /// Something is off and handled.
    Warn,
    /// Something is wrong in the caller or a peer.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Debug => "DEBUG",
            Self::Info => "INFO",
            Self::Warn => "WARN",
            Self::Error => "ERROR",
        })
    }
}

/// Takes the lines of a node. Ids are in hexadecimal.
pub trait Logger: Send + Sync {
    /// One line, without its end.
    fn log(&self, level: Level, line: fmt::Arguments<'_>);
}

macro_rules! log_at {
    ($logger:expr, $level:ident, $($arg:tt)+) => {
        if let Some(logger) = &$logger {
            logger.log($crate::Level::$level, format_args!($($arg)+));
        }
    };
}

macro_rules! debug { ($logger:expr, $($arg:tt)+) => { $crate::logger::log_at!($logger, Debug, $($arg)+) }; }
macro_rules! info { ($logger:expr, $($arg:tt)+) => { $crate::logger::log_at!($logger, Info, $($arg)+) }; }
macro_rules! warning { ($logger:expr, $($arg:tt)+) => { $crate::logger::log_at!($logger, Warn, $($arg)+) }; }
macro_rules! error { ($logger:expr, $($arg:tt)+) => { $crate::logger::log_at!($logger, Error, $($arg)+) }; }

pub(crate) use {debug, error, info, log_at, warning};
