//! How large each level should be, computed from the bottom up.
//!
//! The largest level sets the scale: each level above it may have a `level_multiplier`th of it, up to the
//! first that would be no larger than `base_level_bytes`: the base level, where L0 is merged into.
//! So about nine tenths of the data are in the last level, however much there is. Levels between L0 and the
//! base level are empty.

use crate::{
    options::{CfOptions, LEVELS},
    version::Version,
};

/// Bytes that each level should not exceed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LevelTargets {
    /// The level that L0 is merged into.
    pub(crate) base: usize,
    /// Bytes; only of meaning from `base` on.
    pub(crate) bytes: [u64; LEVELS],
}

impl LevelTargets {
    /// The targets that fit the tables of `version`.
    pub(crate) fn of(version: &Version, options: &CfOptions) -> Self {
        let last = LEVELS - 1;
        let floor = options.base_level_bytes.max(1);
        let multiplier = options.level_multiplier.max(2);
        let largest = (1..LEVELS)
            .map(|level| version.level_bytes(level))
            .max()
            .unwrap_or(0);
        let first_used = (1..LEVELS)
            .find(|&level| !version.level(level).is_empty())
            .unwrap_or(last);
        let mut bytes = [floor; LEVELS];
        let mut wanted = largest;
        let mut base = last;
        bytes[last] = largest.max(floor);
        while base > 1 && (wanted > floor || base > first_used) {
            base -= 1;
            wanted /= multiplier;
            bytes[base] = wanted.max(floor);
        }
        Self { base, bytes }
    }
}

/// How far the tables are from where they should be, in thousandths of a target; work is due above
/// a thousand. Tables of running compactions are left out: they are taken care of.
pub(super) fn score(
    version: &Version,
    options: &CfOptions,
    targets: &LevelTargets,
    level: usize,
) -> u64 {
    let idle = version
        .level(level)
        .iter()
        .filter(|table| !table.is_being_compacted());
    if level > 0 {
        let bytes = idle.fold(0, |sum: u64, table| sum.saturating_add(table.info.size));
        return share(bytes, targets.bytes[level]);
    }
    if version
        .level(0)
        .iter()
        .any(|table| table.is_being_compacted())
    {
        return 0;
    }
    let trigger = options.l0_compaction_trigger.max(1) as u64;
    let by_count = share(version.level(0).len() as u64, trigger);
    // Reaching the trigger is enough, where a level has to exceed its target.
    by_count
        .max(share(version.level_bytes(0), options.base_level_bytes))
        .saturating_add(1)
}

/// `part` in thousandths of `whole`, rounded up: more than the whole is more than a thousand.
fn share(part: u64, whole: u64) -> u64 {
    u64::try_from((u128::from(part) * 1000).div_ceil(u128::from(whole.max(1)))).unwrap_or(u64::MAX)
}

/// Bytes that compaction has to rewrite before every level is within its target: what backpressure goes by.
pub(crate) fn pending_bytes(version: &Version, options: &CfOptions) -> u64 {
    let targets = LevelTargets::of(version, options);
    let mut debt = 0_u64;
    // Bytes that come down from the level above.
    let mut incoming = 0_u64;
    if version.level(0).len() >= options.l0_compaction_trigger {
        incoming = version.level_bytes(0);
        debt = incoming.saturating_add(version.level_bytes(targets.base));
    }
    for level in targets.base..LEVELS - 1 {
        let bytes = version.level_bytes(level).saturating_add(incoming);
        incoming = bytes.saturating_sub(targets.bytes[level]);
        // Each byte that goes down takes its share of the next level with it.
        let next = u128::from(version.level_bytes(level + 1)) * u128::from(incoming)
            / u128::from(bytes.max(1));
        debt = debt
            .saturating_add(incoming)
            .saturating_add(u64::try_from(next).unwrap_or(u64::MAX));
    }
    debt
}
