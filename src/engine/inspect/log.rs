//! Log segments, manifests and the mark: files of records under headers.

use super::{Fact, Facts, Gathered, InspectOptions, shortened};
use crate::{
    batch::{Operation, Operations},
    faults::Faults,
    key::SequenceNumber,
    version::{ManifestState, VersionEdit},
    wal::{
        mark::Mark,
        reader::{Records, search_behind},
        record::{FileSeed, Record, RecordKind},
        segment::{HEADER_LEN, SegmentHeader, SegmentKind},
    },
};

/// The header of a segment or manifest; `None` where there is none that checks.
fn header(gathered: &mut Gathered, bytes: &[u8], kind: SegmentKind) -> Option<SegmentHeader> {
    let header = match SegmentHeader::decode(bytes, kind) {
        Ok(header) => header,
        Err(bad) => {
            gathered.broken(0, bad.text());
            return None;
        }
    };
    let version = bytes
        .first_chunk::<HEADER_LEN>()
        .map_or(0, SegmentHeader::version);
    gathered.number("format_version", u64::from(version));
    gathered.id("database", header.db);
    gathered.number("number", header.number);
    Some(header)
}

/// Says where reading ended.
///
/// In a log segment bytes behind the end that are no records of this file are no damage by themselves: a file that is
/// used again keeps those of its former life, and a crash leaves half a write.
fn end(gathered: &mut Gathered, bytes: &[u8], records: &Records<'_>, seed: FileSeed, is_log: bool) {
    let stop = records.stop();
    gathered.number("end", stop.offset as u64);
    let Some(bad) = stop.bad else { return };
    let rest = bytes.get(stop.offset..).unwrap_or_default();
    let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
        return;
    };
    let behind = search_behind(bytes, stop.offset, seed);
    if behind.records > 0 {
        gathered.number("records_behind_the_end", behind.records);
    } else if is_log {
        gathered.number("unknown_bytes_behind_the_end", last as u64 + 1);
        return;
    }
    gathered.broken(stop.offset as u64, bad.text());
}

/// A log segment.
pub(super) fn segment(mut gathered: Gathered, bytes: &[u8]) -> Gathered {
    let Some(found) = header(&mut gathered, bytes, SegmentKind::Log) else {
        return gathered;
    };
    gathered.number("base", found.base);
    gathered.number("previous", found.previous);
    gathered.number("synced_before", found.synced);
    let seed = FileSeed::new(found.db, found.number, Faults::default());
    let mut records = Records::new(
        bytes,
        HEADER_LEN,
        seed,
        RecordKind::Batch,
        None,
        SequenceNumber::ZERO,
    );
    let (mut first, mut operations) = (None, 0_u64);
    for record in records.by_ref() {
        first.get_or_insert(record.header.seq);
        operations += u64::from(Operations::new(record.payload).map_or(0, |all| all.remaining()));
        gathered.record(record.offset, |options| batch(&record, options));
    }
    let last = records.last_seq();
    gathered.number("batches", gathered.inspection.record_count);
    gathered.number("operations", operations);
    if let Some(first) = first {
        gathered.number("first_seq", first.0);
        gathered.number("last_batch_seq", last.0);
    }
    end(&mut gathered, bytes, &records, seed, true);
    gathered
}

/// A batch: where it stands in the order of writes, and its operations.
fn batch(record: &Record<'_>, options: &InspectOptions) -> Facts {
    let mut facts = vec![
        ("seq", Fact::Number(record.header.seq.0)),
        ("synced", Fact::Text(record.header.sync.to_string())),
        ("bytes", Fact::Number(record.payload.len() as u64)),
    ];
    let Some(operations) = Operations::new(record.payload) else {
        facts.push(("damage", Fact::Text("no batch".to_owned())));
        return facts;
    };
    // A batch may have a million; those beyond are counted by the segment.
    for operation in operations.take(options.records.max(1)) {
        match operation {
            Ok((family, operation)) => {
                facts.push(("family", Fact::Number(u64::from(family))));
                put_operation(&mut facts, &operation, options);
            }
            Err(what) => facts.push(("damage", Fact::Text(what.to_owned()))),
        }
    }
    facts
}

fn put_operation(facts: &mut Facts, operation: &Operation<'_>, options: &InspectOptions) {
    let word =
        |facts: &mut Facts, word: &str| facts.push(("operation", Fact::Text(word.to_owned())));
    let key = |facts: &mut Facts, key: &[u8]| facts.push(("key", Fact::Bytes(key.to_vec())));
    let value = |facts: &mut Facts, value: &[u8]| {
        facts.push(("value_bytes", Fact::Number(value.len() as u64)));
        facts.push(("value", shortened(value, options)));
    };
    let indexes = |facts: &mut Facts, first: u64, count: Option<usize>| {
        facts.push(("index", Fact::Number(first)));
        if let Some(count) = count {
            facts.push(("entries", Fact::Number(count as u64)));
        }
    };
    match operation {
        Operation::Put { key: at, value: of } => {
            word(facts, "put");
            key(facts, at);
            value(facts, of);
        }
        Operation::Delete { key: at } => {
            word(facts, "delete");
            key(facts, at);
        }
        Operation::Merge { key: at, operand } => {
            word(facts, "merge");
            key(facts, at);
            value(facts, operand);
        }
        Operation::DeleteRange { start, end } => {
            word(facts, "delete_range");
            key(facts, start);
            facts.push(("end_key", Fact::Bytes(end.to_vec())));
        }
        Operation::Append {
            prefix,
            first,
            values,
        } => {
            word(facts, "append");
            key(facts, prefix);
            indexes(facts, *first, Some(values.len()));
        }
        Operation::AppendPacked {
            prefix,
            first,
            block,
        } => {
            word(facts, "append_packed");
            key(facts, prefix);
            indexes(facts, *first, usize::try_from(block.count()).ok());
        }
        Operation::Rewrite {
            prefix,
            first,
            values,
        } => {
            word(facts, "rewrite");
            key(facts, prefix);
            indexes(facts, *first, Some(values.len()));
        }
        Operation::TruncateFront { prefix, index } => {
            word(facts, "truncate_front");
            key(facts, prefix);
            indexes(facts, *index, None);
        }
        Operation::TruncateBack { prefix, index } => {
            word(facts, "truncate_back");
            key(facts, prefix);
            indexes(facts, *index, None);
        }
    }
}

/// A manifest: its edits, and what they come to.
pub(super) fn manifest(mut gathered: Gathered, bytes: &[u8]) -> Gathered {
    let Some(found) = header(&mut gathered, bytes, SegmentKind::Manifest) else {
        return gathered;
    };
    let seed = FileSeed::new(found.db, found.number, Faults::default());
    let mut records = Records::new(
        bytes,
        HEADER_LEN,
        seed,
        RecordKind::Edit,
        None,
        SequenceNumber::ZERO,
    );
    let mut state = ManifestState::default();
    for record in records.by_ref() {
        match VersionEdit::decode(record.payload) {
            Ok(change) => {
                gathered.record(record.offset, |_| edit(&change));
                if let Err(what) = state.apply(&change) {
                    gathered.broken(record.offset, format!("an edit that does not fit: {what}"));
                }
            }
            Err(what) => gathered.broken(record.offset, what),
        }
    }
    gathered.number("edits", gathered.inspection.record_count);
    gathered.number("next_file_number", state.next_file_number);
    gathered.number("last_seq", state.last_seq.0);
    if let Some(log) = state.log {
        gathered.number("log_segment", log.segment);
        gathered.number("log_base", log.base);
    }
    for (id, family) in state.families() {
        let tables = family.version.tables().count();
        let bytes: u64 = family
            .version
            .tables()
            .map(|(_, table)| table.info.size)
            .fold(0, u64::saturating_add);
        gathered.text(
            "family",
            format!(
                "{id} {:?}: {tables} tables, {bytes} bytes, flushed up to {}{}",
                family.name,
                family.flushed_seq.0,
                if family.options.logged {
                    ""
                } else {
                    ", not logged"
                }
            ),
        );
    }
    end(&mut gathered, bytes, &records, seed, false);
    gathered
}

fn edit(edit: &VersionEdit) -> Facts {
    let mut facts = Vec::new();
    let mut text = |name, what: String| facts.push((name, Fact::Text(what)));
    for family in &edit.created {
        text("family_created", format!("{} {:?}", family.id, family.name));
    }
    for id in &edit.dropped {
        text("family_dropped", id.to_string());
    }
    for (id, _) in &edit.options {
        text("family_options", id.to_string());
    }
    for (id, seq) in &edit.flushed {
        text("family_flushed", format!("{id} up to {}", seq.0));
    }
    for table in &edit.removed {
        text(
            "table_removed",
            format!(
                "{:06} of family {} L{}",
                table.number, table.family, table.level
            ),
        );
    }
    for table in &edit.added {
        let record = &table.table;
        text(
            "table_added",
            format!(
                "{:06} of family {} L{}: {} bytes, {} entries",
                record.number, table.family, table.level, record.info.size, record.info.entries
            ),
        );
    }
    if let Some(log) = edit.log {
        text(
            "log_from",
            format!("segment {} at {}", log.segment, log.base),
        );
    }
    if let Some(number) = edit.next_file_number {
        facts.push(("next_file_number", Fact::Number(number)));
    }
    if let Some(seq) = edit.last_seq {
        facts.push(("last_seq", Fact::Number(seq.0)));
    }
    facts
}

/// The mark.
pub(super) fn mark(mut gathered: Gathered, bytes: &[u8]) -> Gathered {
    let Some(mark) = Mark::decode(bytes) else {
        gathered.broken(0, "the mark fails its checksum");
        return gathered;
    };
    gathered.id("database", mark.db);
    gathered.text("sync_failed", mark.sync_failed.to_string());
    gathered.number("log_segment", mark.segment);
    gathered.number("log_position", mark.position);
    gathered.number("last_synced_seq", mark.seq.0);
    gathered.number("manifest", mark.manifest);
    gathered.number("manifest_bytes", mark.manifest_offset);
    gathered
}
