//! What happened in runs, counted.

use std::fmt;

macro_rules! counts {
    ($($name:ident),+ $(,)?) => {
        /// How often each thing happened.
        #[derive(Clone, Copy, Debug, Default)]
        pub(crate) struct Counts {
            $(pub(crate) $name: u64,)+
        }

        impl Counts {
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }
        }

        impl fmt::Display for Counts {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "{:>12} {}", self.$name, stringify!($name).replace('_', " "))?;)+
                Ok(())
            }
        }
    };
}

counts! {
    runs,
    simulated_seconds,
    events,
    starts,
    messages,
    lost,
    doubled,
    written,
    read,
    failed,
    unknown,
    crashes,
    pauses,
    partitions,
    slow_disks,
    bad_disks,
    fenced,
    transfers,
    member_changes,
    flushes,
    terms,
    truncations,
    snapshots_sent,
    snapshots_broken,
}
