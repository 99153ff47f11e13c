//! What a crash leaves: the three simple ways, and random ones of several shapes.

use crate::executor::SplitMix64;

/// What is left of a simulated disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Power is cut and everything that was not synced is lost: bytes, lengths, directory entries.
    LoseUnsynced,
    /// Power is cut and everything that was written had reached the disk.
    KeepAll,
    /// Power is cut; each unsynced sector, length and directory entry is kept or lost. The seed draws,
    /// for each file and for the entries, one of several shapes: all, none, nearly all, nearly none, half,
    /// or all up to some point.
    Random {
        /// The same seed on the same disk gives the same image.
        seed: u64,
    },
    /// The process dies and the system lives on: everything written is there, and what was not
    /// synced may still be lost by a power cut of the image.
    ProcessDeath,
}

/// What is kept of one list of unsynced changes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Keep {
    None,
    All,
    Some(Choice),
}

/// One decision after the other.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    /// Each is kept in so many of eight cases.
    Coin { of_eight: u64 },
    /// The first so many are kept.
    Prefix { left: u64 },
}

impl Keep {
    /// A shape for a list that takes `decisions` decisions.
    pub(super) fn draw(decisions: usize, random: &mut SplitMix64) -> Self {
        match random.below(8) {
            0 => Self::None,
            1 => Self::All,
            2 | 3 => Self::Some(Choice::Prefix {
                left: random.below(decisions as u64 + 1),
            }),
            4 => Self::Some(Choice::Coin { of_eight: 7 }),
            5 => Self::Some(Choice::Coin { of_eight: 1 }),
            _ => Self::Some(Choice::Coin { of_eight: 4 }),
        }
    }

    pub(super) fn keeps(&mut self, random: &mut SplitMix64) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Some(choice) => choice.keeps(random),
        }
    }
}

impl Choice {
    pub(super) fn keeps(&mut self, random: &mut SplitMix64) -> bool {
        match self {
            Self::Coin { of_eight } => random.below(8) < *of_eight,
            Self::Prefix { left } => {
                let keeps = *left > 0;
                *left = left.saturating_sub(1);
                keeps
            }
        }
    }
}
