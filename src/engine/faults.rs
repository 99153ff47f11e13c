//! Planted faults: run-time switches that make the engine wrong on purpose, so that the crash tests
//! can show that they would notice. All are off unless a test turns one on.

/// Which rule to break.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// Break none.
    #[default]
    None,
    /// Do not sync the directory after creating a table.
    NoDirSyncForTable,
    /// Do not sync the directory after creating a log segment.
    NoDirSyncForLog,
    /// Acknowledge a synced write before its sync.
    EarlyAck,
    /// Write the manifest edit before the table is synced.
    EditBeforeTable,
    /// Accept a record of a recycled segment's former life.
    ReplayStaleRecord,
    /// Let recovery leave the cut of the log open.
    NoSealOfCut,
    /// Remove old log segments before the manifest edit is durable.
    DeleteLogBeforeEdit,
    /// Rename CURRENT without syncing what it names.
    UnsyncedManifest,
    /// Sync only the newest of several unsynced segments.
    SkipOlderSegmentSync,
    /// Write a flush edit before the log is synced up to it.
    FlushBeforeLogSync,
    /// Treat a failed sync as good.
    IgnoreSyncError,
    /// Take any bad record as the end of the log, also below the synced offset.
    CutBelowSynced,
    /// Let the manifest give up log segments before what killed their last entries is synced.
    ReleaseBeforeKillSync,
    /// Let `resume` go on after a failure of the log that is the only copy of append families.
    ResumeUnfenced,
    /// Write entries forward without a look whether they are still live when that takes its place.
    RewriteUnchecked,
    /// Let append families give up log segments that unflushed memtables still need.
    ReleaseUnflushed,
    /// Write a log segment's file again while a snapshot holds it.
    ReuseHeldSegment,
    /// Let append families give up the segments of batches that are not published yet.
    FloorAbovePending,
    /// Write the manifest edit before a value file is synced.
    EditBeforeValues,
    /// Let a table that is merged forget which value files its outputs still need.
    ForgetValueUse,
    /// Refresh a cursor without a look whether its sources are still all there are.
    RefreshInPlace,
    /// Read the number that a refreshed cursor reads at after the look whether its sources are all there are.
    RefreshNumberLast,
    /// Give up the oldest log segment in which entries of append families are live.
    ReleaseLive,
    /// Write entries forward under another sequence number than that which appended them.
    RewriteRenumbered,
    /// Let compaction put operands together that a snapshot tells apart.
    FoldAcrossSnapshot,
    /// Let compaction filter and expire rows that a snapshot sees.
    FilterSeenBySnapshot,
    /// Let what a filter removes, and what is past its time, go without a delete where something older is below.
    RemoveWithoutDelete,
    /// Drop whole tables that a snapshot needs.
    DropSeenBySnapshot,
    /// Do not sync what is copied into a backup.
    BackupUnsyncedCopy,
    /// Share what an unfinished backup has left, under names whose sync may have failed.
    BackupSharesLeftovers,
    /// Remove the files of a backup before the removal of its name is durable.
    BackupFilesBeforeRecord,
    /// Remove files that other backups need.
    BackupRemovesShared,
    /// Do not sync what is restored.
    RestoreUnsynced,
    /// Restore without a note that it has not ended.
    RestoreUnmarked,
}

/// The fault that is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Fault);

impl Faults {
    /// True where `fault` is on.
    #[must_use]
    pub fn is(self, fault: Fault) -> bool {
        self.0 == fault
    }
}
