//! [`Error`]: why a call was not done, sorted by what its caller can do.

use std::{fmt, time::Duration};

/// Why a call was not done. A key that is not there is no error: [`crate::Client::get`] answers `None`.
///
/// All but [`Error::Open`] and [`Error::Deadline`] mean that a write surely was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The client was set up wrongly: an address, a certificate, a token.
    Config(String),
    /// The server refuses the request for what it is: a key that is too long, an unknown family. It will not go well
    /// later either.
    InvalidArgument(String),
    /// The server does not know who asks.
    Unauthenticated(String),
    /// Who asks may not do that.
    PermissionDenied(String),
    /// No server can be reached, or none that serves.
    Unavailable {
        /// The addresses that were tried, with commas.
        addrs: String,
        /// What was the matter with the last one.
        reason: String,
    },
    /// No TLS connection comes about.
    Tls {
        /// The server.
        addr: String,
        /// Why, as far as it is known.
        reason: String,
    },
    /// The server speaks TLS, and the client does not.
    WantsTls {
        /// The server.
        addr: String,
    },
    /// No store led for as long as the client waited.
    NoLeader {
        /// How long that was.
        waited: Duration,
        /// What the last store said.
        reason: String,
    },
    /// The deadline passed. A write may be done, or may still be.
    Deadline {
        /// The server that did not answer.
        addr: String,
        /// The time that it had.
        after: Duration,
    },
    /// The servers have too much to do; the client has given up trying again.
    Overloaded(String),
    /// A write may be done or not: the connection broke, or leadership changed, before its answer.
    Open(String),
    /// The store cannot: its disk, its files or its state forbid it. The text begins with a code word (`READ_ONLY`,
    /// `DISK_FULL`, `CORRUPTION`, `IO`, `FENCED`, `INTERNAL`).
    Store(String),
    /// The server does not have this call.
    Unimplemented {
        /// The server.
        addr: String,
        /// What it says.
        reason: String,
    },
    /// Anything else that a server says.
    Other {
        /// The server.
        addr: String,
        /// The gRPC code's name and text.
        reason: String,
    },
}

impl Error {
    /// Whether the same call may go well later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::NoLeader { .. }
                | Self::Deadline { .. }
                | Self::Overloaded(_)
                | Self::Open(_)
        )
    }

    /// Whether a write that ended so may be done all the same.
    #[must_use]
    pub fn may_be_done(&self) -> bool {
        matches!(self, Self::Deadline { .. } | Self::Open(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(what) | Self::Store(what) => f.write_str(what),
            Self::InvalidArgument(what) => write!(f, "the server refuses this: {what}"),
            Self::Unauthenticated(what) | Self::PermissionDenied(what) => f.write_str(what),
            Self::Unavailable { addrs, reason } => match addrs.contains(',') {
                true => write!(f, "no server answers at any of {addrs} ({reason})"),
                false => write!(f, "no server answers at {addrs} ({reason})"),
            },
            Self::Tls { addr, reason } => write!(f, "cannot speak TLS with {addr}: {reason}"),
            Self::WantsTls { addr } => write!(f, "{addr} speaks TLS"),
            Self::NoLeader { waited, reason } => {
                let seconds = waited.as_secs();
                write!(f, "no leader was found in {seconds} s: {reason}")
            }
            Self::Deadline { addr, after } => {
                write!(f, "{addr} gave no answer in {} s", after.as_secs_f32())
            }
            Self::Overloaded(what) => write!(f, "the server is overloaded: {what}"),
            Self::Open(what) => write!(f, "{what}: the write may be done or not"),
            Self::Unimplemented { addr, reason } => {
                write!(f, "{addr} is no Basalt server of this version: {reason}")
            }
            Self::Other { addr, reason } => write!(f, "{addr} answers {reason}"),
        }
    }
}

impl std::error::Error for Error {}
