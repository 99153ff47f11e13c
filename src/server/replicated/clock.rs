//! `BootClock`: the time of a store loop, which counts on while the machine sleeps.
//!
//! A lease that stood still with a sleeping machine would outlive the election of another leader.

use std::time::Duration;

use basalt_raftstore::Clock;
use rustix::time::{ClockId, clock_gettime};

/// Time since the machine was started, with its sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

/// On macOS the monotonic clock is one that counts sleep.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::Boottime;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::Monotonic;

impl Clock for BootClock {
    fn now(&self) -> Duration {
        let time = clock_gettime(CLOCK);
        // Both parts are never negative on this clock.
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_goes_back() {
        let (first, second) = (BootClock.now(), BootClock.now());
        assert!(first > Duration::ZERO && second >= first);
    }
}
