//! The range deletes that an iterator asks: those of a set, of a memtable, or of a level of tables.

use std::sync::Arc;

use crate::{
    error::Result,
    key::SequenceNumber,
    tables::LevelCovers,
    tombstones::{Cover, Skyline, SkylineCursor, TombstoneCursor, Tombstones},
};

/// Answers which range delete is over a key, for one reader.
pub(crate) enum Covering {
    /// Of a table of L0.
    Set(TombstoneCursor),
    /// Of a memtable.
    Skyline(SkylineCursor),
    /// Of all tables of a level below L0.
    Level(Box<LevelCovers>),
}

impl Covering {
    /// What a reader at `at` sees of a set.
    pub(crate) fn set(set: Arc<Tombstones>, at: SequenceNumber) -> Self {
        Self::Set(TombstoneCursor::new(set, at))
    }

    /// What the reader of a skyline sees.
    pub(crate) fn skyline(line: Skyline) -> Self {
        Self::Skyline(SkylineCursor::new(line))
    }

    /// The newest visible range delete over `user_key`.
    ///
    /// # Errors
    ///
    /// From a table that had to be opened.
    fn covering(&mut self, user_key: &[u8]) -> Result<Option<Cover<'_>>> {
        match self {
            Self::Set(cursor) => Ok(cursor.covering(user_key)),
            Self::Skyline(cursor) => Ok(cursor.covering(user_key)),
            Self::Level(level) => level.covering(user_key),
        }
    }
}

/// The newest visible range delete over a key, of all there are.
pub(super) fn covering<'a>(all: &'a mut [Covering], user_key: &[u8]) -> Result<Option<Cover<'a>>> {
    let mut newest: Option<Cover<'a>> = None;
    for one in all {
        if let Some(cover) = one.covering(user_key)?
            && newest.is_none_or(|newest| cover.seq > newest.seq)
        {
            newest = Some(cover);
        }
    }
    Ok(newest)
}
