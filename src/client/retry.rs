//! What becomes of a call that did not go well: whether it is sent again, where, and after what pause.
//!
//! ```text
//! send --> answer ------------------------------------------------> done
//!   ^        | region error: not done          --> the leader it names, else a pause
//!   |        | the server refuses for now      --> budget? --> a pause
//!   |        | nothing was sent, or repeatable --> budget? --> the next address
//!   +--------+ else: open, or for the caller to mend ----------> error
//! ```

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

use tonic::{Code, Status};

use crate::node::is_unsent;

/// First and longest pause before a server is asked again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// Whether asking twice could do something twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It changes nothing, or the same twice.
    Repeatable,
    /// It is done once, or its outcome is open.
    Once,
}

/// What is next after a status that is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the same server again, later.
    Wait,
    /// Ask another one.
    GoOn,
    /// It is over, and surely not done.
    Fail,
    /// It is over, and may be done.
    Open,
}

pub(crate) fn step(status: &Status, kind: Kind) -> Step {
    // What a server says itself it says of a request that it has not taken.
    let is_said = std::error::Error::source(status).is_none();
    let may_repeat = kind == Kind::Repeatable || is_unsent(status);
    match status.code() {
        Code::ResourceExhausted if is_said => Step::Wait,
        Code::Unavailable if is_said || may_repeat => Step::GoOn,
        Code::Unavailable | Code::Cancelled | Code::DeadlineExceeded => Step::Open,
        // A connection that broke, under whatever code.
        _ if is_said => Step::Fail,
        _ if may_repeat => Step::GoOn,
        _ => Step::Open,
    }
}

/// The pause before the `attempt`-th retry: twice as long each time, and between half and all of that by chance, so
/// that clients that failed together do not come back together.
pub(crate) fn pause(attempt: u32) -> Duration {
    let full = PAUSE.0.saturating_mul(1 << attempt.min(10)).min(PAUSE.1);
    // The seeds of the standard hasher are random; nothing here is a secret.
    let random = RandomState::new().hash_one(attempt) % 1024;
    let half = full / 2;
    half + half * u32::try_from(random).unwrap_or(0) / 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_sent_again_only_where_it_surely_was_not_taken() {
        let said = |code| Status::new(code, "said by a server");
        let broken = |code| {
            let mut status = Status::from_error(Box::new(std::io::Error::other("cut")));
            status = Status::new(code, status.message());
            status.set_source(std::sync::Arc::new(std::io::Error::other("cut")));
            status
        };
        for (status, once, repeatable) in [
            (said(Code::Unavailable), Step::GoOn, Step::GoOn),
            (said(Code::ResourceExhausted), Step::Wait, Step::Wait),
            (said(Code::InvalidArgument), Step::Fail, Step::Fail),
            (said(Code::PermissionDenied), Step::Fail, Step::Fail),
            (said(Code::DeadlineExceeded), Step::Open, Step::Open),
            (broken(Code::Unavailable), Step::Open, Step::GoOn),
            (broken(Code::Unknown), Step::Open, Step::GoOn),
        ] {
            assert_eq!(step(&status, Kind::Once), once, "{status}");
            assert_eq!(step(&status, Kind::Repeatable), repeatable, "{status}");
        }
    }

    #[test]
    fn pauses_grow_within_their_bounds_and_differ() {
        for attempt in 0..40 {
            let full = PAUSE.0.saturating_mul(1 << attempt.min(10)).min(PAUSE.1);
            let pauses: Vec<_> = (0..20).map(|_| pause(attempt)).collect();
            assert!(pauses.iter().all(|one| *one >= full / 2 && *one <= full));
            assert!(pauses.iter().any(|one| *one != pauses[0]), "{pauses:?}");
        }
    }
}
