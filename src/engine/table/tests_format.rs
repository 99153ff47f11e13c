//! The example table of FORMAT.md: its parts, one after the other, are what the builder writes and the
//! reader reads.

use std::sync::Arc;

use super::{
    block::{BlockView, Bucket, Entry, Place},
    format::decompress,
    test_files::{MemFile, Row, build, key_of, open},
    *,
};
use crate::{
    iter::InternalIterator,
    key::{RangeTombstone, ValueKind, pack_trailer},
    options::{CfOptions, Compression, LEVELS},
};

/// The blocks of the example, as they stand in the file.
const PARTS: [&str; 7] = [
    "table-data-block",
    "table-second-data-block",
    "table-range-tombstone-block",
    "table-filter-block",
    "table-index-block",
    "table-properties-block",
    "table-footer",
];

fn example(name: &str) -> Vec<u8> {
    let format = include_str!("../../../FORMAT.md");
    let (_, block) = format
        .split_once(&format!("```hex {name}\n"))
        .expect("the example is there");
    let (block, _) = block.split_once("```").expect("the block ends");
    let digits: Vec<u8> = block
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().bytes())
        .filter(u8::is_ascii_hexdigit)
        .collect();
    let byte = |pair: &[u8]| {
        u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits")
    };
    digits.chunks(2).map(byte).collect()
}

fn content() -> (Vec<Row>, Vec<RangeTombstone>, CfOptions) {
    let row = |key: &[u8], seq, value: Option<&[u8]>| {
        let kind = if value.is_some() {
            ValueKind::Put
        } else {
            ValueKind::Delete
        };
        let trailer = pack_trailer(SequenceNumber(seq), kind);
        (key.to_vec(), trailer, value.unwrap_or_default().to_vec())
    };
    let rows = vec![
        row(b"apple", 9, Some(b"red")),
        row(b"apricot", 5, None),
        row(b"banana", 7, Some(b"ripe")),
        row(b"banana", 3, Some(b"green")),
        row(b"damson", 300, Some(b"dark")),
    ];
    let tombstones = [
        ("avocado", "blueberry", 8),
        ("avocado", "blueberry", 4),
        ("m", "n", 6),
    ]
    .map(|(start, end, seq)| RangeTombstone {
        start: start.into(),
        end: end.into(),
        seq: SequenceNumber(seq),
    });
    let options = CfOptions {
        block_bytes: 125,
        restart_interval: 2,
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    };
    (rows, tombstones.to_vec(), options)
}

fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

#[test]
fn the_parts_of_the_example_are_what_the_builder_writes() {
    let (rows, tombstones, options) = content();
    let (bytes, _) = build(&rows, &tombstones, &options, 0).expect("memory");
    let stated: Vec<u8> = PARTS.into_iter().flat_map(example).collect();
    assert_eq!(stated, bytes, "written: {}", spell(&bytes));
}

#[test]
fn the_example_reads_as_the_document_says() {
    let (rows, tombstones, _) = content();
    let bytes: Vec<u8> = PARTS.into_iter().flat_map(example).collect();
    let file = MemFile::new(bytes.clone(), true);
    let identity = TableIdentity::read(&file, &test_files::path()).expect("the example is a table");
    let crc = crc32fast::hash(&bytes);
    let table = open(bytes, identity, true, None).expect("the example is a table");
    table.verify(crc).expect("the example is sound");
    let mut iter = table.iter();
    iter.seek_to_first().expect("the example is sound");
    for row in &rows {
        assert_eq!((iter.key(), iter.value()), (key_of(row), &*row.2));
        iter.next().expect("the example is sound");
    }
    assert!(!iter.valid());
    assert!(
        table.tombstones().all().eq(tombstones),
        "{:?}",
        table.tombstones()
    );
    assert_eq!(Arc::strong_count(&table), 2, "the iterator holds the table");
}

#[test]
fn the_compressed_example_is_a_block_of_one_entry() {
    let block = decompress(&example("lz4-block")).expect("the example is sound");
    let view = BlockView::parse(&block).expect("the example is sound");
    let entry = Entry::decode(view.keys, view.restart(0)).expect("the example is sound");
    assert_eq!((entry.shared, entry.suffix), (0, &b"k"[..]));
    assert_eq!(
        entry.trailer,
        pack_trailer(SequenceNumber(1), ValueKind::Put)
    );
    assert_eq!(block[entry.value()], [b'x'; 100]);
    assert_eq!(
        entry.next,
        Place {
            key: view.keys.len(),
            value: view.values_end
        }
    );
    assert_eq!(view.restarts(), 1);
    assert_eq!(
        view.bucket(key_hash(b"k")),
        Bucket::Unknown,
        "no hash index"
    );
}
