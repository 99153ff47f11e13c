//! Tables and value files: blocks, each under a checksum that is bound to its place.

use super::{Fact, Facts, Gathered, InspectOptions, shortened};
use crate::{
    fs::ReadableFile,
    key::{InternalKey, ValueKind, trailer_kind, trailer_seq},
    table::{Described, describe, find_block, walk},
    values::{FILE_HEADER_LEN, ValuePointer, id_of},
};

/// Whether the last bytes are those of a table.
pub(super) fn is_table(file: &dyn ReadableFile) -> bool {
    let mut magic = [0; 8];
    let Some(at) = file.len().checked_sub(8) else {
        return false;
    };
    file.read_at(at, &mut magic).is_ok() && &magic == b"BSLTSST1"
}

/// A table.
pub(super) fn table(mut gathered: Gathered, file: &dyn ReadableFile) -> Gathered {
    let len = file.len();
    let Described {
        table_id,
        facts,
        broken,
    } = describe(file);
    let Some(table_id) = table_id else {
        // Every checksum is bound to the table's id, and that stands in the footer.
        let (offset, what) = broken.unwrap_or((len, "it has no footer".to_owned()));
        gathered.broken(offset, what);
        return gathered;
    };
    gathered.id("table", table_id);
    for (name, number) in facts.numbers {
        gathered.number(name, number);
    }
    if let Some((smallest, largest)) = facts.bounds {
        gathered.bytes("smallest_key", &smallest);
        gathered.bytes(
            if facts.is_exclusive {
                "below_key"
            } else {
                "largest_key"
            },
            &largest,
        );
    }
    if let Some((offset, what)) = broken {
        gathered.broken(offset, what);
    }
    let mut rows = 0_u64;
    let walked = walk(file, table_id, |key, value| {
        gathered.record(rows, |options| row(key, value, options));
        rows += 1;
        Ok(())
    });
    // Its only errors are those of the closure, which has none.
    let Ok(walked) = walked else { return gathered };
    gathered.number("rows_read", rows);
    gathered.number("blocks_read", walked.good);
    if let Some(tombstones) = &walked.tombstones {
        for tombstone in tombstones.all() {
            gathered.record(rows, |_| {
                vec![
                    ("operation", Fact::Text("delete_range".to_owned())),
                    ("key", Fact::Bytes(tombstone.start.to_vec())),
                    ("end_key", Fact::Bytes(tombstone.end.to_vec())),
                    ("seq", Fact::Number(tombstone.seq.0)),
                ]
            });
        }
    }
    match (walked.blocks, walked.first_bad) {
        (_, Some(offset)) => {
            let bad = walked.blocks.map_or(1, |all| all - walked.good);
            gathered.broken(
                offset,
                format!("{bad} data blocks fail their checksum, the first of them here"),
            );
        }
        (None, None) => gathered.broken(
            len,
            "the index fails its checksum; blocks were found by theirs",
        ),
        (Some(_), None) => {}
    }
    if walked.tombstones.is_none() {
        gathered.broken(len, "the range deletes fail their checksum");
    }
    gathered
}

fn row(key: InternalKey<'_>, value: &[u8], options: &InspectOptions) -> Facts {
    let kind = trailer_kind(key.trailer);
    let word = match kind {
        Some(ValueKind::Delete) => "delete",
        Some(ValueKind::Put) => "put",
        Some(ValueKind::Merge) => "merge",
        Some(ValueKind::Pointer) => "put_large",
        None => "unknown",
    };
    let mut facts = vec![
        ("key", Fact::Bytes(key.user_key.to_vec())),
        ("seq", Fact::Number(trailer_seq(key.trailer).0)),
        ("operation", Fact::Text(word.to_owned())),
    ];
    if kind == Some(ValueKind::Pointer) {
        if let Some(pointer) = ValuePointer::decode(value) {
            facts.push(("value_bytes", Fact::Number(u64::from(pointer.len))));
            facts.push(("value_file", Fact::Number(pointer.file)));
            facts.push(("value_at", Fact::Number(pointer.offset)));
        }
    } else if kind != Some(ValueKind::Delete) {
        facts.push(("value_bytes", Fact::Number(value.len() as u64)));
        facts.push(("value", shortened(value, options)));
    }
    facts
}

/// Bytes of a value that are read while its end is looked for.
const MAX_SOUGHT: u64 = 4 << 20;

/// A value file. Its records say no length: each is found by its checksum.
pub(super) fn values(mut gathered: Gathered, file: &dyn ReadableFile) -> Gathered {
    let Some(id) = id_of(file) else {
        gathered.broken(0, "file header fails its checksum");
        return gathered;
    };
    gathered.id("value_file", id);
    let mut offset = FILE_HEADER_LEN as u64;
    let mut stored = 0;
    while offset < file.len() {
        let want = (file.len() - offset).min(MAX_SOUGHT);
        let mut bytes = vec![0; usize::try_from(want).unwrap_or(0)];
        if file.read_at(offset, &mut bytes).is_err() {
            gathered.broken(offset, "the device does not give these bytes");
            break;
        }
        let Some((len, value)) = find_block(id, offset, &bytes) else {
            let what = if want == MAX_SOUGHT {
                "a value of more than 4 MiB, or damage"
            } else {
                "no record that checks"
            };
            gathered.broken(offset, what);
            break;
        };
        gathered.record(offset, |options| {
            vec![
                ("stored_bytes", Fact::Number(len as u64)),
                ("value_bytes", Fact::Number(value.len() as u64)),
                ("value", shortened(&value, options)),
            ]
        });
        stored += len as u64;
        offset += len as u64;
    }
    gathered.number("values", gathered.inspection.record_count);
    gathered.number("value_stored_bytes", stored);
    gathered
}
