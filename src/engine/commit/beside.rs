//! The sync of the log before a flush, while writers go on: whoever drives keeps all others waiting, so what takes long and
//! no writer has asked for is not done as the driver.

use super::Commit;
use crate::{error::Error, faults::Fault};

impl Commit {
    /// Makes the log durable up to `position`, if all of that is written, while writers go on: a flush has much to sync,
    /// and whoever drives keeps all others waiting. What fails is told by the queue.
    pub(crate) fn sync_beside_writers(&self, position: u64) {
        let (segments, target, last_seq) = {
            let queue = self.lock();
            let is_due = queue.synced < position && position <= queue.written;
            if !is_due || queue.failed.is_some() || self.faults.is(Fault::EarlyAck) {
                return;
            }
            // Of a later segment not even the header may be written.
            let target = queue.written;
            let begun = queue.unsynced.iter().filter(|s| s.base < target);
            // What is published now is written, or needs no log.
            (begun.cloned().collect::<Vec<_>>(), target, self.visible())
        };
        let skip = if self.faults.is(Fault::SkipOlderSegmentSync) {
            segments.len().saturating_sub(1)
        } else {
            0
        };
        for segment in &segments[skip..] {
            // One that others have synced may be another segment already.
            let is_unsynced = || {
                let queue = self.lock();
                queue.unsynced.iter().any(|s| s.number == segment.number)
            };
            if let Err(error) = segment.sync_if(is_unsynced)
                && !self.faults.is(Fault::IgnoreSyncError)
            {
                self.note_failed_sync();
                let error = Error::io("sync", format!("{:06}.log", segment.number), error);
                self.fail(error);
                return;
            }
        }
        // As each sync that may be acknowledged: `sync_all` asks for none where all is synced.
        if let Some(last) = segments.last()
            && let Err(error) = self.mark.log_synced(last.number, target, last_seq)
        {
            self.fail(error);
            return;
        }
        let mut queue = self.lock();
        if queue.failed.is_none() {
            self.note_synced(&mut queue, target, &segments);
        }
        if queue.waiting > 0 {
            self.changed.notify_all();
        }
    }
}
