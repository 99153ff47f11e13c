//! What a run has done, and the least it must have done to mean anything.

use std::fmt;

use basalt_engine::LEVELS;

macro_rules! counts {
    ($($(#[doc = $doc:literal])* $name:ident: $least:expr,)*) => {
        /// How often each thing happened.
        #[derive(Clone, Debug, Default)]
        pub(crate) struct Counts {
            $($(#[doc = $doc])* pub(crate) $name: u64,)*
            /// Compactions and moves by the level they went to.
            pub(crate) compactions_into: [u64; LEVELS],
        }

        impl Counts {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                for (sum, more) in self.compactions_into.iter_mut().zip(other.compactions_into) {
                    *sum += more;
                }
            }

            /// What happened too seldom.
            pub(crate) fn too_few(&self) -> Vec<String> {
                let mut few = Vec::new();
                $(if self.$name < $least {
                    few.push(format!("{}: {}, at least {}", stringify!($name), self.$name, $least));
                })*
                for (level, &count) in self.compactions_into.iter().enumerate().skip(2) {
                    if count < 1_500 {
                        few.push(format!("compactions into level {level}: {count}, at least 1500"));
                    }
                }
                few
            }
        }

        impl fmt::Display for Counts {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12}  {}", self.$name, stringify!($name).replace('_', " "))?;)*
                for (level, count) in self.compactions_into.iter().enumerate().skip(1) {
                    writeln!(f, "{count:>12}  compactions into level {level}")?;
                }
                Ok(())
            }
        }
    };
}

counts! {
    /// Operations drawn and done.
    operations: 1_000_000,
    /// Whole databases, from creation to the last check.
    episodes: 100,
    puts: 200_000,
    deletes: 50_000,
    merges: 20_000,
    /// Merges and opens that a family refuses before its operator is given, or with another.
    merge_refusals: 100,
    range_deletes: 10_000,
    batches: 30_000,
    submits: 15_000,
    /// Submitted batches heard of.
    tickets: 15_000,
    gets: 100_000,
    multi_gets: 15_000,
    iterators: 7_000,
    iterator_moves: 200_000,
    ranges: 7_000,
    snapshots: 6_000,
    flushes: 20_000,
    compactions: 25_000,
    trivial_moves: 2_500,
    tables_dropped: 8_000,
    stalls: 300,
    compact_ranges: 1_000,
    checkpoints: 300,
    ingests: 2_000,
    families_created: 900,
    families_dropped: 500,
    options_changed: 1_000,
    refusals: 1_000,
    clean_reopens: 250,
    dropped_reopens: 120,
    deaths: 100,
    /// Deaths between two changes of the disk inside an operation.
    deaths_midway: 300,
    deaths_with_unlogged_loss: 300,
    deaths_with_logged_loss: 100,
    comparisons: 1_000,
    verifications: 350,
    iterators_across_flush: 5_000,
    iterators_across_compaction: 5_000,
    iterators_across_drop: 300,
    iterators_across_close: 500,
}
