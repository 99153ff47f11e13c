//! Files of background work, written no faster than the rate limiter lets, and synced in bounded steps.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    fs::WritableFile,
    limiter::{IoPriority, RateLimiter},
};

/// How fast a job writes. The default is as fast as it can.
#[derive(Clone, Debug, Default)]
pub(crate) struct WritePace {
    pub(crate) limiter: Option<RateLimiter>,
    pub(crate) priority: Option<IoPriority>,
    /// Bytes after which a file is synced on the way; 0: only at its end.
    pub(crate) bytes_per_sync: u64,
    /// Once true nothing waits for the limiter any more.
    pub(crate) stop: Arc<AtomicBool>,
}

impl WritePace {
    /// Has `file` written at this pace.
    pub(crate) fn wrap(&self, file: Box<dyn WritableFile>) -> Box<dyn WritableFile> {
        if self.limiter.is_none() && self.bytes_per_sync == 0 {
            return file;
        }
        Box::new(PacedFile {
            file,
            pace: self.clone(),
            unsynced: 0,
        })
    }
}

#[derive(Debug)]
struct PacedFile {
    file: Box<dyn WritableFile>,
    pace: WritePace,
    unsynced: u64,
}

impl WritableFile for PacedFile {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        if let (Some(limiter), Some(priority)) = (&self.pace.limiter, self.pace.priority) {
            let stop = || self.pace.stop.load(Ordering::Acquire);
            limiter.acquire_unless(priority, data.len() as u64, stop);
        }
        self.file.append(data)?;
        self.unsynced += data.len() as u64;
        if self.pace.bytes_per_sync > 0 && self.unsynced >= self.pace.bytes_per_sync {
            self.sync()?;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.unsynced = 0;
        self.file.sync()
    }
}
