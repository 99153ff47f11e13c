//! Files of a store, and memory of this process, as the system sees them.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use rustix::fs::{Advice, fadvise};

/// All files below a directory.
fn all(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(all(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// Has the system forget what it has in memory of them. None of them may be in a map.
pub fn forget(dir: &Path) {
    for path in all(dir) {
        let Ok(file) = File::open(&path) else {
            continue;
        };
        let _ = file.sync_all();
        fadvise(&file, 0, None, Advice::DontNeed).expect("advice about a file");
    }
}

/// Has the system bring all of them into memory.
pub fn remember(dir: &Path) {
    let mut block = vec![0; 1 << 20];
    for path in all(dir) {
        let Ok(mut file) = File::open(&path) else {
            continue;
        };
        while file.read(&mut block).is_ok_and(|read| read > 0) {}
    }
}

/// Bytes on the disk.
pub fn bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let blocks = all(dir)
        .iter()
        .filter_map(|path| Some(fs::metadata(path).ok()?.blocks()))
        .sum::<u64>();
    blocks * 512
}

/// Most memory of this process so far, less what is mapped files, in MiB.
pub fn peak_own() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.trim().split(' ').next());
        number.and_then(|kib| kib.parse().ok()).unwrap_or(0.0) / 1024.0
    };
    field("VmHWM:") - field("RssFile:")
}
