//! What happened, as sums over all runs: a run in which nothing happens proves nothing.

use std::fmt;

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// How often what happened.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Counts {
            $($(#[$doc])* pub(crate) $name: u64,)+
        }

        impl Counts {
            /// Adds those of another run.
            pub(crate) fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            /// Every number with its name.
            pub(crate) fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counts! {
    /// Runs.
    runs,
    /// Events.
    events,
    /// Ticks of virtual time, until the end of each run.
    ticks,
    /// Messages delivered.
    delivered,
    /// Messages lost.
    lost,
    /// Messages delivered twice.
    duplicated,
    /// Elections won.
    elections,
    /// Entries committed.
    commits,
    /// Snapshots taken over by a node.
    snapshots_restored,
    /// Snapshots that did not arrive, and whose sender was told so.
    snapshots_failed,
    /// Logs compacted.
    compactions,
    /// Membership changes that were applied and changed something.
    membership_changes,
    /// Those that led into a joint configuration.
    joint_configurations,
    /// Membership changes that did not fit when they were applied.
    changes_refused,
    /// Members whose data was given back and that were added again.
    members_reborn,
    /// Processes that died.
    crashes,
    /// Processes that started with unsynced writes lost.
    restarts_with_loss,
    /// Leadership that went to whom it was to be handed to.
    transfers,
    /// Reads answered.
    reads,
    /// Those that a lease answered at once.
    lease_reads,
    /// Reads that were asked for through a follower and answered.
    follower_reads,
    /// Reads asked of a node that leads, while somebody has led in a later term.
    reads_at_deposed_leaders,
    /// Appends handed to a storage thread.
    async_appends,
    /// Those that were handed over while others were not durable.
    async_appends_in_flight,
    /// Messages held back until a term was durable.
    held_messages,
    /// Partitions.
    partitions,
    /// Nodes that stood still for a while.
    pauses,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, number) in self.all() {
            writeln!(f, "{number:>12} {}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
