//! Seeds: where they come from, and the line that says how to run a failed case again.
//!
//! - `BASALT_SEED=0x...` runs the one case with this seed. That is what a failure prints.
//! - `BASALT_BASE=n` draws other seeds than the usual ones, so that a night of runs meets new cases.
//! - `BASALT_LONG=n` makes random tests `n` times as long.

use std::fmt;

use crate::Rng;

/// The seeds of a test's cases.
#[derive(Debug)]
pub struct Seeds {
    rng: Rng,
    only: Option<u64>,
    left: u64,
}

impl Seeds {
    /// Seeds for `cases` cases of the test `name`; another name gives others. With `BASALT_SEED` set it is one
    /// case with that seed.
    ///
    /// # Panics
    ///
    /// When a variable is set to something that is not a number.
    #[must_use]
    pub fn new(name: &str, cases: u64) -> Self {
        let base = number("BASALT_BASE").unwrap_or(0);
        let mixed = name.bytes().fold(base ^ 0xB5A1_7000, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        let only = number("BASALT_SEED");
        Self {
            rng: Rng::new(mixed),
            left: if only.is_some() { 1 } else { cases },
            only,
        }
    }

    /// True where one case is replayed, so that sums over all cases mean nothing.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.only.is_some()
    }
}

impl Iterator for Seeds {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        Some(self.only.unwrap_or_else(|| self.rng.next_u64()))
    }
}

/// How many times longer than usual random tests should be: `BASALT_LONG`, or 1.
///
/// # Panics
///
/// When it is not a number.
#[must_use]
pub fn long_factor() -> u64 {
    number("BASALT_LONG").unwrap_or(1).max(1)
}

/// Prints the command that replays a case, if the case panics while this is alive.
#[derive(Debug)]
pub struct Replay {
    command: String,
}

impl Replay {
    /// For the case with `seed` of the test function `test` in `target`: `--test model`, say, or `-p crate`.
    #[must_use]
    pub fn new(target: impl fmt::Display, test: &str, seed: u64) -> Self {
        Self {
            command: format!("BASALT_SEED={seed:#x} cargo test {target} {test} -- --nocapture"),
        }
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay this case: {}", self.command);
        }
    }
}

/// The number in an environment variable, decimal or with `0x` before it.
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    let parsed = text
        .strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| u64::from_str_radix(hex, 16));
    match parsed {
        Ok(number) => Some(number),
        Err(_) => panic!("{name} is {text:?}, which is not a number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tests_draw_different_seeds_and_each_the_same_ones_again() {
        let draw = |name| Seeds::new(name, 3).collect::<Vec<_>>();
        if Seeds::new("a", 3).is_replay() {
            return;
        }
        assert_eq!(draw("a"), draw("a"));
        assert_ne!(draw("a"), draw("b"));
        assert_eq!(draw("a").len(), 3);
    }
}
