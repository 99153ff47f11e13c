//! The day after: read-only opens, backups, restores, exports and repairs, held against a model, cut at every boundary
//! between two changes of a simulated disk, and damaged.
//!
//! `BASALT_BASE=n` draws other seeds; each failure names its seed.

#[path = "backup_and_repair/backup.rs"]
mod backup;
#[path = "backup_and_repair/cuts.rs"]
mod cuts;
#[path = "backup_and_repair/export.rs"]
mod export;
#[path = "backup_and_repair/read_only.rs"]
mod read_only;
#[path = "backup_and_repair/repair.rs"]
mod repair;
#[path = "backup_and_repair/store.rs"]
mod store;
