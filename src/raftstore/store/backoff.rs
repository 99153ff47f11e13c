//! `Backoff`: pauses between tries at something that fails, each twice as long as the one before.

use std::time::Duration;

/// First and longest pause before a snapshot that could not be made, or sent, is tried again. Nodes ask for one
/// at each heartbeat.
const SNAPSHOT_PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// What is known of tries at making a snapshot, or at sending one to a peer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    until: Duration,
}

impl Backoff {
    /// Whether it may be tried now.
    pub(super) fn may_try(&self, now: Duration) -> bool {
        self.failures == 0 || now >= self.until
    }

    /// It has failed.
    pub(super) fn failed(&mut self, now: Duration) {
        let (first, longest) = SNAPSHOT_PAUSE;
        let times = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.until = now + first.saturating_mul(times).min(longest);
        self.failures = self.failures.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let (mut backoff, mut now) = (Backoff::default(), Duration::from_secs(9));
        assert!(backoff.may_try(now));
        let mut pauses = Vec::new();
        for _ in 0..40 {
            backoff.failed(now);
            let began = now;
            while !backoff.may_try(now) {
                now += Duration::from_millis(250);
            }
            pauses.push((now - began).as_millis());
        }
        assert_eq!(pauses[..6], [250, 500, 1_000, 2_000, 4_000, 8_000]);
        assert!(pauses[6..].iter().all(|pause| *pause == 8_000));
    }
}
