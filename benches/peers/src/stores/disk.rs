//! The disk alone: what it takes until a few bytes are durable, with nobody else at it.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Instant,
};

use crate::{report::Disk, wire::VALUE};

/// Syncs of each kind a round.
const SYNCS: usize = 200;

/// What statfs calls tmpfs and ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

pub fn is_in_memory(dir: &Path) -> bool {
    let found = rustix::fs::statfs(dir).expect("the kind of a file system");
    IN_MEMORY.contains(&(found.f_type as i64))
}

/// Writes and syncs: over bytes that are there, and at the end of a file.
pub fn measure(dir: &Path, disk: &mut Disk) {
    let path = dir.join("sync");
    let file = File::create(&path).expect("a file");
    let block = [7; VALUE];
    let timed = |at: usize, into: &mut Vec<f64>| {
        let start = Instant::now();
        file.write_all_at(&block, (at * VALUE) as u64)
            .expect("a write");
        file.sync_data().expect("a sync");
        into.push(start.elapsed().as_secs_f64());
    };
    for at in 0..SYNCS {
        timed(at, &mut disk.appends);
    }
    for at in 0..SYNCS {
        timed(at, &mut disk.overwrites);
    }
    let _ = fs::remove_file(path);
}
