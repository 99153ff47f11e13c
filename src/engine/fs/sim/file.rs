//! A simulated file: what readers see, what a power cut would leave, and the writes in between.
//!
//! A write is kept or lost sector by sector. Each sector written is remembered as the image of the
//! whole sector at that time, so any subset of them, taken in order, is a state a disk may be left in:
//! an older image of a sector, or a newer one, never a mixture. Lengths are remembered the same way.

use std::{collections::HashSet, sync::Arc};

use super::{
    content::{Content, SECTOR},
    survival::Keep,
};
use crate::executor::SplitMix64;

/// Sector images kept before older ones of the same sector are forgotten. Forgetting only takes
/// states away from what a power cut may leave; it keeps long unsynced runs in memory.
const THIN_AT: usize = 4096;

/// One file, whatever its names.
#[derive(Clone, Default)]
pub(super) struct File {
    /// What every reader sees.
    live: Content,
    /// What is on the disk for certain.
    durable: Content,
    /// Written and not synced, in order.
    pending: Vec<Write>,
    /// Written before a sync that failed: on the disk or not, and no later sync will tell.
    unknown: Vec<Write>,
    /// Sector images in `pending`, and the number at which they are thinned out.
    pending_sectors: usize,
    thin_at: usize,
    /// Open handles.
    pub(super) handles: usize,
}

#[derive(Clone)]
enum Write {
    /// Images of sectors from `first` on.
    Sectors { first: usize, images: Arc<[u8]> },
    /// The length changed to this.
    Len(usize),
}

impl File {
    pub(super) fn live(&self) -> &Content {
        &self.live
    }

    pub(super) fn len(&self) -> usize {
        self.live.len()
    }

    pub(super) fn set_len(&mut self, len: usize) {
        if len != self.live.len() {
            self.live.set_len(len);
            self.pending.push(Write::Len(len));
        }
    }

    pub(super) fn write(&mut self, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let end = offset + data.len();
        self.set_len(self.live.len().max(end));
        self.live.write(offset, data);
        let (first, end) = (offset / SECTOR, end.div_ceil(SECTOR));
        let images = self.live.sectors(first, end);
        self.pending.push(Write::Sectors { first, images });
        self.pending_sectors += end - first;
        if self.pending_sectors > self.thin_at.max(THIN_AT) {
            self.thin();
        }
    }

    /// A sync that worked: what is pending becomes durable, what is unknown stays so.
    pub(super) fn sync(&mut self) {
        if self.unknown.is_empty() {
            self.durable = self.live.clone();
        } else {
            self.forget_overwritten_unknown();
            let mut replay = Replay::on(&self.durable);
            for write in &self.pending {
                replay.apply(write);
            }
            self.durable = replay.finish();
        }
        self.pending.clear();
        self.pending_sectors = 0;
    }

    /// A sync that failed. The system takes the pages for clean from now on, so later syncs pass
    /// them over.
    pub(super) fn fail_sync(&mut self) {
        self.forget_overwritten_unknown();
        self.unknown
            .extend(self.pending.drain(..).flat_map(|write| match write {
                Write::Sectors { first, images } => single_sectors(first, &images),
                Write::Len(_) => vec![write],
            }));
        self.pending_sectors = 0;
    }

    /// Makes everything written durable, as if no sync had ever failed.
    pub(super) fn settle(&mut self) {
        self.durable = self.live.clone();
        self.pending.clear();
        self.unknown.clear();
        self.pending_sectors = 0;
    }

    /// Changes the stored bytes themselves, behind the back of all that was written.
    pub(super) fn damage(&mut self, change: impl Fn(&mut Content)) {
        change(&mut self.live);
        change(&mut self.durable);
    }

    /// The file after a power cut that keeps of the unsynced writes what `keep` says.
    pub(super) fn survivor(&self, keep: Keep, random: &mut SplitMix64) -> Self {
        let content = match keep {
            Keep::All => self.live.clone(),
            Keep::None => self.durable.clone(),
            Keep::Some(_) if self.pending.is_empty() && self.unknown.is_empty() => {
                self.durable.clone()
            }
            Keep::Some(mut choice) => {
                let mut replay = Replay::on(&self.durable);
                for write in self.unknown.iter().chain(&self.pending) {
                    match write {
                        Write::Len(_) if choice.keeps(random) => replay.apply(write),
                        Write::Len(_) => {}
                        Write::Sectors { first, images } => {
                            for (i, image) in images.chunks_exact(SECTOR).enumerate() {
                                if choice.keeps(random) {
                                    replay.apply_sector(first + i, image);
                                }
                            }
                        }
                    }
                }
                replay.finish()
            }
        };
        Self {
            live: content.clone(),
            durable: content,
            ..Self::default()
        }
    }

    /// Number of single decisions a random survival of this file takes.
    pub(super) fn undecided(&self) -> usize {
        self.unknown.len() + self.pending.len() + self.pending_sectors
    }

    /// Drops from `unknown` what `pending` writes anew: those are dirty again, so the next sync decides
    /// them.
    fn forget_overwritten_unknown(&mut self) {
        let mut sectors = HashSet::new();
        let mut len = false;
        for write in &self.pending {
            match write {
                Write::Sectors { first, images } => {
                    sectors.extend(*first..first + images.len() / SECTOR);
                }
                Write::Len(_) => len = true,
            }
        }
        self.unknown.retain(|write| match write {
            Write::Sectors { first, .. } => !sectors.contains(first),
            Write::Len(_) => !len,
        });
    }

    /// Keeps of each sector the newest image only, and of the lengths the last one and the cuts to
    /// nothing.
    fn thin(&mut self) {
        let mut seen = HashSet::new();
        let mut last_len = true;
        let mut kept = Vec::new();
        for write in self.pending.drain(..).rev() {
            match write {
                Write::Sectors { first, images } => {
                    let fresh = single_sectors(first, &images).into_iter().rev().filter(
                        |write| matches!(write, Write::Sectors { first, .. } if seen.insert(*first)),
                    );
                    kept.extend(fresh);
                }
                Write::Len(len) => {
                    if last_len || len == 0 {
                        kept.push(write);
                    }
                    last_len = false;
                }
            }
        }
        kept.reverse();
        self.pending = kept;
        self.pending_sectors = seen.len();
        self.thin_at = 2 * seen.len();
    }
}

fn single_sectors(first: usize, images: &[u8]) -> Vec<Write> {
    let sectors = images.chunks_exact(SECTOR).enumerate();
    sectors
        .map(|(i, image)| Write::Sectors {
            first: first + i,
            images: image.into(),
        })
        .collect()
}

/// Writes applied to durable content in order, some of them left out.
struct Replay {
    content: Content,
    len: usize,
}

impl Replay {
    fn on(durable: &Content) -> Self {
        Self {
            content: durable.clone(),
            len: durable.len(),
        }
    }

    fn apply(&mut self, write: &Write) {
        match write {
            Write::Sectors { first, images } => {
                for (i, image) in images.chunks_exact(SECTOR).enumerate() {
                    self.apply_sector(first + i, image);
                }
            }
            Write::Len(len) => {
                self.content.set_len(*len);
                self.len = *len;
            }
        }
    }

    /// A sector behind the length is written all the same: a later length may uncover it.
    fn apply_sector(&mut self, sector: usize, image: &[u8]) {
        let offset = sector * SECTOR;
        if self.content.len() < offset + image.len() {
            self.content.set_len(offset + image.len());
        }
        self.content.write(offset, image);
    }

    fn finish(mut self) -> Content {
        self.content.set_len(self.len);
        self.content
    }
}
