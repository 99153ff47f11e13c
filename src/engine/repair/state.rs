//! A manifest read past its damage: what its records, wherever they stand, say of families and tables.

use std::collections::{BTreeMap, BTreeSet};

use super::{FamilyPlan, TablePlan};
use crate::{
    batch::FamilyId,
    faults::Faults,
    key::SequenceNumber,
    options::CfOptions,
    version::{LogStart, TableRecord, VersionEdit},
    wal::{
        mark::Mark,
        reader::{mend_records, whole_records},
        record::{FileSeed, RecordKind},
        segment::{BadHeader, HEADER_LEN, SegmentHeader, SegmentKind, VERSION_TABLES},
    },
};

/// A family as far as it is known.
#[derive(Clone, Debug)]
pub(super) struct KnownFamily {
    pub(super) name: String,
    pub(super) options: CfOptions,
    pub(super) flushed: SequenceNumber,
    /// Level and record of each table, by number.
    pub(super) tables: BTreeMap<u64, (usize, TableRecord)>,
}

impl KnownFamily {
    /// The same with what is to become of its tables.
    pub(super) fn plan(&self, tables: Vec<TablePlan>, merge: bool) -> FamilyPlan {
        FamilyPlan {
            name: self.name.clone(),
            options: self.options.clone(),
            flushed: self.flushed,
            tables,
            merge,
        }
    }
}

/// What a manifest says.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    pub(super) db: Option<u64>,
    pub(super) next_file_number: u64,
    pub(super) last_seq: u64,
    pub(super) log: Option<LogStart>,
    pub(super) next_family_id: FamilyId,
    pub(super) families: BTreeMap<FamilyId, KnownFamily>,
    /// Edits were lost: tables may have come and gone that it does not tell of.
    pub(super) lossy: bool,
    /// Its format version: the newest where that cannot be read.
    pub(super) format: u32,
    /// Its header is bad, or flipped bits were put right.
    pub(super) damaged: bool,
    /// Edits read.
    pub(super) edits: u64,
    dropped: BTreeSet<FamilyId>,
}

/// Reads manifest `number`. `db` is what other files say of the database's id. `None` where no edit can be read.
///
/// # Errors
/// The version, where it is one that is not known.
pub(super) fn read(
    bytes: &[u8],
    number: u64,
    db: Option<u64>,
    mark: Option<&Mark>,
) -> Result<Option<Known>, BadHeader> {
    let header = match SegmentHeader::decode(bytes, SegmentKind::Manifest) {
        Err(bad @ BadHeader::Version(_)) => return Err(bad),
        header => header.ok().filter(|header| header.number == number),
    };
    let Some(db) = header.map(|header| header.db).or(db) else {
        return Ok(None);
    };
    let version = bytes.first_chunk().map(SegmentHeader::version);
    let mut known = Known {
        format: version
            .filter(|_| header.is_some())
            .unwrap_or(VERSION_TABLES),
        ..Known::default()
    };
    let mut end = HEADER_LEN;
    let seed = FileSeed::new(db, number, Faults::default());
    let mut bytes = bytes.to_vec();
    let mended = mend_records(&mut bytes, HEADER_LEN, seed);
    known.damaged = header.is_none() || mended > 0;
    for record in whole_records(&bytes, HEADER_LEN, seed, RecordKind::Edit) {
        let Ok(edit) = VersionEdit::decode(record.payload) else {
            continue;
        };
        known.lossy |= record.offset != end as u64;
        end = usize::try_from(record.end()).unwrap_or(usize::MAX);
        known.fold(edit);
    }
    if known.edits == 0 {
        return Ok(None);
    }
    let is_durable = |mark: &&Mark| mark.db == db && mark.manifest == number;
    let durable = mark
        .filter(is_durable)
        .map_or(0, |mark| mark.manifest_offset);
    known.lossy |= known.db.is_none() || (end as u64) < durable;
    // Whatever stands behind the last good edit and looks like one was an edit.
    let behind = crate::wal::reader::search_behind(&bytes, end, seed);
    known.lossy |= behind.synced > end as u64;
    known.db = Some(db);
    Ok(Some(known))
}

impl Known {
    fn fold(&mut self, edit: VersionEdit) {
        self.edits += 1;
        self.db = self.db.or(edit.db_id);
        self.next_file_number = self
            .next_file_number
            .max(edit.next_file_number.unwrap_or(0));
        self.last_seq = self.last_seq.max(edit.last_seq.map_or(0, |seq| seq.0));
        self.next_family_id = self.next_family_id.max(edit.next_family_id.unwrap_or(0));
        self.log = edit.log.or(self.log);
        for id in edit.dropped {
            self.families.remove(&id);
            self.dropped.insert(id);
        }
        for created in edit.created {
            let family = self.family(created.id);
            family.name = created.name;
            family.options = created.options;
        }
        for (id, options) in edit.options {
            if let Some(family) = self.alive(id) {
                family.options = options;
            }
        }
        for (id, seq) in edit.flushed {
            if let Some(family) = self.alive(id) {
                family.flushed = family.flushed.max(seq);
            }
        }
        for removed in edit.removed {
            if let Some(family) = self.alive(removed.family) {
                family.tables.remove(&removed.number);
            }
        }
        for added in edit.added {
            if let Some(family) = self.alive(added.family) {
                let table = (added.level, added.table);
                family.tables.insert(table.1.number, table);
            }
        }
    }

    /// A family that an edit names: created, where the edit that did so is lost.
    fn alive(&mut self, id: FamilyId) -> Option<&mut KnownFamily> {
        (!self.dropped.contains(&id)).then(|| self.family(id))
    }

    /// A family; one that nothing is known of gets a name by its id.
    pub(super) fn family(&mut self, id: FamilyId) -> &mut KnownFamily {
        self.next_family_id = self.next_family_id.max(id.saturating_add(1));
        self.families.entry(id).or_insert_with(|| KnownFamily {
            name: if id == 0 {
                crate::db::DEFAULT_CF.to_owned()
            } else {
                format!("recovered-{id}")
            },
            options: CfOptions::default(),
            flushed: SequenceNumber::ZERO,
            tables: BTreeMap::new(),
        })
    }

    /// True for a family that was dropped.
    pub(super) fn is_dropped(&self, id: FamilyId) -> bool {
        self.dropped.contains(&id)
    }
}
