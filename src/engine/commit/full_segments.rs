//! Syncs of full segments, off the write path: what writers would otherwise wait for at their next sync.

use std::sync::atomic::Ordering;

use super::Commit;
use crate::{error::Error, key::SequenceNumber};

impl Commit {
    /// Syncs the segments that are full, off the write path. Their successors stay unsynced.
    pub(crate) fn sync_full_segments(&self) {
        loop {
            let (segment, end) = {
                let queue = self.lock();
                let [oldest, next, ..] = &queue.unsynced[..] else {
                    return;
                };
                if queue.failed.is_some() || queue.written < next.base {
                    return;
                }
                (oldest.clone(), next.base)
            };
            // Once others have synced it, its file may be another segment already, whose error would be told here.
            let is_unsynced = || {
                let queue = self.lock();
                queue.unsynced.iter().any(|s| s.number == segment.number)
            };
            // All of it is written, and the next segment has begun.
            segment.file.rest();
            let result = segment.sync_if(is_unsynced);
            if result.is_ok()
                && let Err(error) = self
                    .mark
                    .log_synced(segment.number, end, SequenceNumber::ZERO)
            {
                self.fail(error);
                return;
            }
            let mut queue = self.lock();
            match result {
                Ok(()) => {
                    // Somebody else may have synced it, and more, meanwhile.
                    if queue
                        .unsynced
                        .first()
                        .is_some_and(|first| first.number == segment.number)
                    {
                        queue.unsynced.remove(0);
                        queue.synced = queue.synced.max(end);
                        self.synced.store(queue.synced, Ordering::Release);
                        queue.synced_segment = queue.synced_segment.max(segment.number);
                    }
                }
                Err(error) => {
                    self.note_failed_sync();
                    let error = Error::io("sync", format!("{:06}.log", segment.number), error);
                    self.fail_locked(&mut queue, error);
                }
            }
            if queue.waiting > 0 {
                self.changed.notify_all();
            }
        }
    }
}
