//! Files of a store, and memory of this process, as the system sees them.

use std::{
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
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

/// Memory of this process that is not mapped files, in MiB, as it is now.
fn own() -> f64 {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|rest| rest.trim().split(' ').next());
    number.and_then(|kib| kib.parse().ok()).unwrap_or(0.0) / 1024.0
}

/// Looks at the memory of this process again and again.
pub struct Peak {
    ended: Arc<AtomicBool>,
    looking: JoinHandle<f64>,
}

impl Peak {
    pub fn begin() -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        let looking = thread::spawn(move || {
            let mut most = own();
            while !seen.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(5));
                most = most.max(own());
            }
            most
        });
        Self { ended, looking }
    }

    /// The most that was seen, in MiB; mapped files are not in it.
    pub fn end(self) -> f64 {
        self.ended.store(true, Ordering::Relaxed);
        self.looking.join().expect("it only looks")
    }
}
