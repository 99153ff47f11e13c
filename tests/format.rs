//! FORMAT.md is true: each of its hex examples is what the encoder gives and what the decoder takes, and each table
//! of bytes has an example.
//!
//! The fields are stated here once more, as the comments of the example state them. No flipped bit and no cut of
//! an example decodes to the same fields, so every byte of it means something.
//!
//! Not here: hostile bytes in general (beside the code), damage of whole stores (`corruption`).

#[path = "format/append.rs"]
mod append;
#[path = "format/backup.rs"]
mod backup;
#[path = "format/rows.rs"]
mod rows;
#[path = "format/values.rs"]
mod value_files;
#[path = "format/zstd.rs"]
mod zstd;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    path::Path,
    sync::Arc,
};

use basalt_engine::{
    CfOptions, Compression, Db, LEVELS, Options, SequenceNumber, WriteBatch, WriteOptions,
    batch::{Operation, Operations},
    coding::{Reader, put_slice, put_varint},
    executor::SimExecutor,
    fs::{ReadMode, SimFs},
    key::{InternalKey, ValueKind},
    testing::{table, version, wal},
};
use basalt_proto::{eraftpb, metapb, raft_serverpb};
use basalt_raftstore::keys::{Key, LOG_KEY_LEN, STATE_KEY_LEN};
use bytes::Bytes;
use prost::Message;

const DB: u64 = 0x0102_0304_0506_0708;
const TABLE_ID: u64 = 0x1122_3344_5566_7788;

/// The examples that are read below; there are no others.
const EXAMPLES: [&str; 31] = [
    "varints",
    "current",
    "log-segment",
    "write-batch",
    "append-batch",
    "append-packed",
    "append-options",
    "merge-batch",
    "rows-edit",
    "internal-key",
    "lz4-block",
    "zstd-block",
    "table-data-block",
    "table-second-data-block",
    "table-range-tombstone-block",
    "table-filter-block",
    "table-index-block",
    "table-properties-block",
    "table-footer",
    "value-file",
    "value-pointer",
    "manifest",
    "version-edit",
    "mark",
    "raft-append",
    "raft-conf-state",
    "raft-conf-change-v2",
    "peer-keys",
    "peer-raft-state",
    "peer-region-state",
    "backup",
];

/// The blocks of the example table as they stand in the file.
const TABLE: [&str; 7] = [
    "table-data-block",
    "table-second-data-block",
    "table-range-tombstone-block",
    "table-filter-block",
    "table-index-block",
    "table-properties-block",
    "table-footer",
];

/// A section of the document.
#[derive(Debug, Default)]
struct Section {
    heading: String,
    /// It has a table whose rows are bytes of a file.
    has_table: bool,
    /// Examples in it, and those that it names.
    examples: Vec<String>,
}

/// FORMAT.md, as far as it can be checked.
#[derive(Debug, Default)]
struct Document {
    examples: BTreeMap<String, Vec<u8>>,
    sections: Vec<Section>,
}

impl Document {
    fn read() -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/FORMAT.md");
        let text =
            std::fs::read_to_string(path).expect("FORMAT.md is at the root of the repository");
        let mut document = Self::default();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(fence) = line.strip_prefix("```") {
                let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
                if let Some(name) = fence.strip_prefix("hex") {
                    document.add_example(name.trim(), &body);
                }
            } else if line.starts_with('#') {
                document.sections.push(Section {
                    heading: line.trim_start_matches('#').trim().to_owned(),
                    ..Section::default()
                });
            } else if let Some(section) = document.sections.last_mut() {
                section.has_table |= ["| offset |", "| field |", "| tag |"]
                    .iter()
                    .any(|head| line.starts_with(head));
                if line.starts_with("Example: ") {
                    let names = line.split('`').skip(1).step_by(2);
                    section.examples.extend(names.map(str::to_owned));
                }
            }
        }
        document
    }

    fn add_example(&mut self, name: &str, body: &[&str]) {
        let digits = body.iter().flat_map(|line| {
            let (hex, _) = line.split_once('#').unwrap_or((line, ""));
            hex.split_whitespace()
        });
        let bytes = digits.map(|pair| {
            assert_eq!(pair.len(), 2, "example {name}: {pair:?} is no byte");
            u8::from_str_radix(pair, 16)
                .unwrap_or_else(|_| panic!("example {name}: {pair:?} is no byte"))
        });
        let old = self.examples.insert(name.to_owned(), bytes.collect());
        assert!(old.is_none(), "two examples are named {name}");
        let section = self.sections.last_mut().expect("the document has a title");
        section.examples.push(name.to_owned());
    }
}

/// The bytes of an example.
fn example(name: &str) -> Vec<u8> {
    assert!(
        EXAMPLES.contains(&name),
        "{name} is missing in the list above"
    );
    let document = Document::read();
    let bytes = document.examples.get(name);
    bytes
        .unwrap_or_else(|| panic!("FORMAT.md has no example {name}"))
        .clone()
}

fn spell(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// The example is the encoding of `fields`, decodes to them, and nothing near it does.
#[track_caller]
fn check<T: PartialEq + Debug>(
    name: &str,
    fields: &T,
    encoded: &[u8],
    decode: impl Fn(&[u8]) -> Option<T>,
) {
    let stated = example(name);
    assert_eq!(
        spell(&stated),
        spell(encoded),
        "{name}: stated, and encoded"
    );
    assert_eq!(decode(&stated).as_ref(), Some(fields), "{name}");
    for bit in 0..stated.len() * 8 {
        let mut bytes = stated.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let near = decode(&bytes);
        assert_ne!(near.as_ref(), Some(fields), "{name} with bit {bit} flipped");
    }
    for len in 0..stated.len() {
        let near = decode(&stated[..len]);
        assert_ne!(near.as_ref(), Some(fields), "{name} cut to {len} bytes");
    }
}

#[test]
fn every_example_is_read_here_and_every_table_of_bytes_has_one() {
    let document = Document::read();
    let known: BTreeSet<_> = EXAMPLES.into_iter().collect();
    let there: BTreeSet<_> = document.examples.keys().map(String::as_str).collect();
    assert_eq!(known, there, "the examples of this test, and of FORMAT.md");
    let mut tables = 0;
    for section in &document.sections {
        tables += u32::from(section.has_table);
        assert!(
            !section.has_table || !section.examples.is_empty(),
            "section {:?} has a table of bytes and no example",
            section.heading
        );
        for name in &section.examples {
            assert!(
                there.contains(name.as_str()),
                "{:?} names {name}",
                section.heading
            );
        }
    }
    assert!(
        tables >= 15,
        "{tables} sections with tables of bytes: the headings are not found"
    );
}

#[test]
fn varints_and_slices() {
    type Fields = ([u64; 5], Vec<u8>, Vec<u8>);
    let fields: Fields = ([0, 127, 128, 300, u64::MAX], b"key".to_vec(), Vec::new());
    let mut encoded = Vec::new();
    for value in fields.0 {
        put_varint(&mut encoded, value);
    }
    put_slice(&mut encoded, &fields.1);
    put_slice(&mut encoded, &fields.2);
    check("varints", &fields, &encoded, |bytes| {
        let mut reader = Reader::new(bytes);
        let mut numbers = [0; 5];
        for number in &mut numbers {
            *number = reader.varint()?;
        }
        let slices = (reader.slice()?.to_vec(), reader.slice()?.to_vec());
        reader.is_empty().then_some((numbers, slices.0, slices.1))
    });
}

#[test]
fn current() {
    check(
        "current",
        &6,
        wal::encode_current(6).as_bytes(),
        wal::decode_current,
    );
}

/// A header, and the fields and payload of the record behind it.
type Framed = (wal::Header, (bool, bool, u64, u64), Vec<u8>);

fn encode_framed((header, (edit, sync, synced, seq), payload): &Framed) -> Vec<u8> {
    let record = wal::Record {
        edit: *edit,
        sync: *sync,
        synced: *synced,
        seq: *seq,
        payload,
    };
    let mut bytes = wal::encode_header(header);
    bytes.extend(wal::encode_record(header.db, header.number, 64, &record));
    bytes
}

fn decode_framed(bytes: &[u8], manifest: bool) -> Option<Framed> {
    let header = wal::decode_header(bytes, manifest)?;
    let record = wal::decode_record(header.db, header.number, 64, bytes)?;
    let fields = (record.edit, record.sync, record.synced, record.seq);
    Some((header, fields, record.payload.to_vec()))
}

#[test]
fn log_segment() {
    let header = wal::Header {
        manifest: false,
        db: DB,
        number: 7,
        base: 1000,
        previous: 5,
        synced: 900,
    };
    let payload = vec![1, 0, 0, 0, 1, 0, 1, b'k', 1, b'v'];
    let fields = (header, (false, true, 900, 42), payload);
    check("log-segment", &fields, &encode_framed(&fields), |bytes| {
        decode_framed(bytes, false)
    });
    assert_eq!(
        decode_framed(&example("log-segment"), true),
        None,
        "it is no manifest"
    );
}

#[test]
fn manifest() {
    let header = wal::Header {
        manifest: true,
        db: DB,
        number: 6,
        base: 0,
        previous: 0,
        synced: 0,
    };
    let edit = version::Edit {
        next_file_number: Some(12),
        ..version::Edit::default()
    };
    let fields = (header, (true, true, 0, 0), version::encode_edit(&edit));
    check("manifest", &fields, &encode_framed(&fields), |bytes| {
        decode_framed(bytes, true)
    });
    assert_eq!(
        decode_framed(&example("manifest"), false),
        None,
        "it is no segment"
    );
}

#[test]
fn mark() {
    let fields = wal::Mark {
        db: DB,
        sync_failed: true,
        segment: 7,
        position: 1042,
        seq: 42,
        manifest: 6,
        manifest_offset: 98,
    };
    check(
        "mark",
        &fields,
        &wal::encode_mark(&fields),
        wal::decode_mark,
    );
}

/// The payload of the first record in the log, which a database wrote.
fn logged_batch() -> Vec<u8> {
    let disk = SimFs::new();
    let executor = Arc::new(SimExecutor::new(1));
    let db = Db::open("/db", Options::with(disk.clone(), executor)).expect("an empty disk");
    let one = db
        .create_cf("one", CfOptions::default())
        .expect("a sound disk");
    let two = db
        .create_cf("two", CfOptions::default())
        .expect("a sound disk");
    assert_eq!((one.id(), two.id()), (1, 2));
    let mut batch = WriteBatch::new();
    batch.put(&db.default_cf(), b"k", b"v");
    batch.delete(&two, b"k1");
    batch.delete_range(&one, b"a", b"zz");
    db.write(batch, WriteOptions::SYNC).expect("a sound disk");
    let logs = disk
        .files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "log"));
    let mut payloads = logs.filter_map(|path| {
        let bytes = disk.read_raw(path).expect("it is listed");
        let header = wal::decode_header(&bytes, false)?;
        let record = wal::decode_record(header.db, header.number, 64, &bytes)?;
        Some(record.payload.to_vec())
    });
    payloads.next().expect("the batch is in a segment")
}

#[test]
fn write_batch() {
    /// First key, and the value or the end of a range.
    type Row = (u32, char, Vec<u8>, Vec<u8>);
    let fields: Vec<Row> = vec![
        (0, 'p', b"k".to_vec(), b"v".to_vec()),
        (2, 'd', b"k1".to_vec(), Vec::new()),
        (1, 'r', b"a".to_vec(), b"zz".to_vec()),
    ];
    check("write-batch", &fields, &logged_batch(), |bytes| {
        let operations = Operations::new(bytes)?.map(|operation| {
            let (family, operation) = operation.ok()?;
            let (kind, key, value) = match operation {
                Operation::Put { key, value } => ('p', key, value),
                Operation::Delete { key } => ('d', key, &[][..]),
                Operation::DeleteRange { start, end } => ('r', start, end),
                _ => return None,
            };
            Some((family, kind, key.to_vec(), value.to_vec()))
        });
        operations.collect()
    });
}

#[test]
fn internal_key() {
    let fields = (b"apple".to_vec(), 300, Some(ValueKind::Put));
    let mut encoded = Vec::new();
    InternalKey::new(b"apple", SequenceNumber(300), ValueKind::Put).encode_to(&mut encoded);
    check("internal-key", &fields, &encoded, |bytes| {
        let key = InternalKey::decode(bytes)?;
        Some((key.user_key.to_vec(), key.seq().0, key.kind()))
    });
}

/// Writes a table on a simulated disk: its bytes.
fn encode_table(options: &CfOptions, content: &table::Content) -> Vec<u8> {
    let (disk, path) = (SimFs::new(), Path::new("/000001.sst"));
    table::write(&*disk, path, TABLE_ID, options, content).expect("a sound disk");
    disk.read_raw(path).expect("just written")
}

fn decode_table(bytes: &[u8], mode: ReadMode) -> Option<(u64, table::Content)> {
    let (disk, path) = (SimFs::new(), Path::new("/000001.sst"));
    disk.write_raw(path, bytes).expect("an empty disk");
    table::read(&*disk, path, mode).ok()
}

fn table_content() -> (table::Content, CfOptions) {
    let entry = |key: &str, seq, value: Option<&str>| {
        (
            key.as_bytes().to_vec(),
            seq,
            value.map(|value| value.as_bytes().to_vec()),
        )
    };
    let tombstone =
        |start: &str, end: &str, seq| (start.as_bytes().to_vec(), end.as_bytes().to_vec(), seq);
    let content = table::Content {
        entries: vec![
            entry("apple", 9, Some("red")),
            entry("apricot", 5, None),
            entry("banana", 7, Some("ripe")),
            entry("banana", 3, Some("green")),
            entry("damson", 300, Some("dark")),
        ],
        tombstones: vec![
            tombstone("avocado", "blueberry", 8),
            tombstone("avocado", "blueberry", 4),
            tombstone("m", "n", 6),
        ],
    };
    let options = CfOptions {
        block_bytes: 125,
        restart_interval: 2,
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    };
    (content, options)
}

#[test]
fn table() {
    let (content, options) = table_content();
    let written = encode_table(&options, &content);
    let parts = TABLE.map(example);
    let stated = parts.concat();
    assert_eq!(spell(&stated), spell(&written), "stated, and written");
    // The parts are cut where the footer says.
    let footer = &parts[6];
    let word = |at: usize| {
        let word: [u8; 8] = footer[at..at + 8].try_into().expect("eight bytes");
        usize::try_from(u64::from_le_bytes(word)).expect("a small table")
    };
    let starts: Vec<usize> = parts
        .iter()
        .scan(0, |at, part| {
            *at += part.len();
            Some(*at - part.len())
        })
        .collect();
    for (part, field) in [(4, 8), (3, 24), (2, 40)] {
        let handle = (word(field), word(field + 8));
        assert_eq!(
            handle,
            (starts[part], parts[part].len() - 5),
            "{}",
            TABLE[part]
        );
    }
    assert_eq!(word(56), starts[5], "the properties");
    assert_eq!(footer.len(), 80);
    for mode in [ReadMode::Mapped, ReadMode::Pread] {
        assert_eq!(
            decode_table(&stated, mode),
            Some((TABLE_ID, content.clone()))
        );
        for bit in 0..stated.len() * 8 {
            let mut bytes = stated.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_table(&bytes, mode), None, "bit {bit} flipped");
        }
    }
}

#[test]
fn compressed_block() {
    let content = table::Content {
        entries: vec![(b"k".to_vec(), 1, Some(vec![b'x'; 100]))],
        tombstones: Vec::new(),
    };
    let options = CfOptions {
        compression: [Compression::Lz4; LEVELS],
        ..CfOptions::default()
    };
    let stated = example("lz4-block");
    let written = encode_table(&options, &content);
    let (block, rest) = written.split_at(stated.len());
    assert_eq!(
        spell(&stated),
        spell(block),
        "stated, and the first block written"
    );
    assert_eq!(rest[0], 1, "the trailer says LZ4");
    assert_eq!(
        decode_table(&written, ReadMode::Mapped),
        Some((TABLE_ID, content))
    );
}

/// Settings of FORMAT.md's examples.
fn as_stated(mut options: CfOptions) -> CfOptions {
    options.max_immutable_memtables = 3;
    if options.append_prefix_bytes.is_none() {
        options.compression[..2].fill(Compression::None);
    }
    options
}

#[test]
fn version_edit() {
    let fields = version::Edit {
        db_id: Some(DB),
        next_file_number: Some(12),
        last_seq: Some(400),
        log: Some((7, 1000)),
        next_family_id: Some(3),
        created: vec![(2, "lock".to_owned(), as_stated(CfOptions::unlogged()))],
        dropped: vec![1],
        options: vec![(
            0,
            as_stated(CfOptions {
                table_bytes: 1 << 40,
                ..CfOptions::default()
            }),
        )],
        flushed: vec![(0, 310)],
        removed: vec![(0, 6, 4)],
        added: vec![(
            0,
            0,
            version::TableFields {
                number: 9,
                table_id: TABLE_ID,
                size: 4096,
                crc: 0xdead_beef,
                smallest: b"apple".to_vec(),
                largest: b"pear".to_vec(),
                largest_exclusive: true,
                counts: [300, 2, 1],
                seqs: [5, 310],
                hidden: 4,
                global_seq: Some(400),
                values: vec![(8, 0x0807_0605_0403_0201, 70_000, 0xfeed_f00d, 5000)],
                times: None,
            },
        )],
    };
    check(
        "version-edit",
        &fields,
        &version::encode_edit(&fields),
        version::decode_edit,
    );
}

#[track_caller]
fn check_message<M: Message + Default + PartialEq + Debug>(name: &str, fields: &M) {
    check(name, fields, &fields.encode_to_vec(), |bytes| {
        M::decode(bytes).ok()
    });
}

#[test]
fn raft_append() {
    let entry = eraftpb::Entry {
        entry_type: eraftpb::EntryType::EntryNormal.into(),
        term: 5,
        index: 10,
        data: Bytes::from_static(b"set"),
    };
    let append = eraftpb::Message {
        msg_type: eraftpb::MessageType::MsgAppend.into(),
        to: 2,
        from: 1,
        term: 5,
        log_term: 4,
        index: 9,
        entries: vec![entry],
        commit: 8,
        session: 3,
        ..eraftpb::Message::default()
    };
    check_message("raft-append", &append);
}

#[test]
fn raft_membership() {
    let membership = eraftpb::ConfState {
        nodes: vec![1, 2, 4],
        learners: vec![5, 300],
        voters_outgoing: vec![1, 2, 3],
        learners_next: vec![3],
        auto_leave: false,
    };
    check_message("raft-conf-state", &membership);

    let change = |kind: eraftpb::ConfChangeType, node_id| eraftpb::ConfChangeSingle {
        change_type: kind.into(),
        node_id,
    };
    let changes = eraftpb::ConfChangeV2 {
        transition: eraftpb::ConfChangeTransition::TransitionJointExplicit.into(),
        changes: vec![
            change(eraftpb::ConfChangeType::AddNode, 4),
            change(eraftpb::ConfChangeType::AddLearnerNode, 300),
        ],
        context: Bytes::from_static(b"why"),
    };
    check_message("raft-conf-change-v2", &changes);
}

#[test]
fn keys_of_a_peer() {
    let region = 300;
    let fields = vec![
        Some(Key::PrepareBootstrap),
        Some(Key::StoreIdent),
        Some(Key::Log { region, index: 6 }),
        Some(Key::RaftState(region)),
        Some(Key::ApplyState(region)),
        Some(Key::Intent(region)),
        Some(Key::RegionState(region)),
    ];
    let encoded: Vec<u8> = fields
        .iter()
        .flatten()
        .flat_map(|key| key.encode())
        .collect();
    check("peer-keys", &fields, &encoded, |mut bytes| {
        let lengths = [2, 2, LOG_KEY_LEN].into_iter();
        let mut keys = Vec::new();
        for len in lengths.chain([STATE_KEY_LEN; 4]) {
            let (key, rest) = bytes.split_at_checked(len)?;
            keys.push(Key::decode(key));
            bytes = rest;
        }
        bytes.is_empty().then_some(keys)
    });
}

#[test]
fn states_of_a_peer() {
    let raft = raft_serverpb::RaftLocalState {
        hard_state: Some(eraftpb::HardState {
            term: 7,
            vote: 2,
            commit: 6,
        }),
        last_index: 8,
        last_term: 7,
        peer_id: 300,
    };
    check_message("peer-raft-state", &raft);
    let region = raft_serverpb::RegionLocalState {
        state: raft_serverpb::PeerState::Normal.into(),
        region: Some(metapb::Region {
            id: 9,
            end_key: Bytes::from_static(b"z"),
            peers: vec![metapb::Peer {
                id: 300,
                store_id: 1,
            }],
            ..metapb::Region::default()
        }),
        peer_id: 300,
        conf_state: Some(eraftpb::ConfState {
            nodes: vec![300],
            ..eraftpb::ConfState::default()
        }),
    };
    check_message("peer-region-state", &region);
}
