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
    read_at_once,
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
    wiped,
    snapshots_sent,
    snapshots_broken,
}

impl Counts {
    /// What must have happened in a normal run, lest it proves little.
    pub(crate) fn demand(&self) {
        let hours = self.simulated_seconds / 3_600;
        assert!(hours >= 10, "{hours} simulated hours");
        let acted = (self.written + self.read) / self.simulated_seconds.max(1);
        assert!(acted >= 20, "{acted} operations a simulated second");
        for (name, seen, least) in [
            ("reads without asking the loop", self.read_at_once, 10_000),
            ("crashes", self.crashes, 1_000),
            ("pauses", self.pauses, 1_000),
            ("partitions", self.partitions, 1_000),
            ("bad disks", self.bad_disks, 300),
            ("transfers", self.transfers, 1_000),
            ("changes of members", self.member_changes, 1_000),
            ("snapshots sent", self.snapshots_sent, 1_000),
            ("terms", self.terms, 3_000),
        ] {
            assert!(seen >= least, "only {seen} {name}");
        }
    }
}
