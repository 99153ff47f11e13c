//! The examples of FORMAT.md, sections 2, 3, 5 and 6, against encoders and decoders.

use super::testing::{
    Header, Mark, Record, decode_current, decode_header, decode_mark, decode_record,
    encode_current, encode_header, encode_mark, encode_record,
};

const DB: u64 = 0x0102_0304_0506_0708;

const LOG: Header = Header {
    manifest: false,
    db: DB,
    number: 7,
    base: 1000,
    previous: 5,
    synced: 900,
};

const MANIFEST: Header = Header {
    manifest: true,
    db: DB,
    number: 6,
    base: 0,
    previous: 0,
    synced: 0,
};

const MARK: Mark = Mark {
    db: DB,
    sync_failed: true,
    segment: 7,
    position: 1042,
    seq: 42,
    manifest: 6,
    manifest_offset: 98,
};

/// The bytes of the fenced block `name` of FORMAT.md: hex digits, `#` begins a comment.
fn example(name: &str) -> Vec<u8> {
    let format = include_str!("../../../FORMAT.md");
    let fence = format!("```hex {name}\n");
    let (_, block) = format.split_once(&fence).expect("the example is there");
    let (block, _) = block.split_once("```").expect("the block ends");
    let digits: Vec<u8> = block
        .lines()
        .flat_map(|line| line.split('#').next().unwrap_or_default().bytes())
        .filter(u8::is_ascii_hexdigit)
        .collect();
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[track_caller]
fn assert_example(name: &str, encoded: &[u8]) {
    let spelled: Vec<String> = encoded.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(example(name), encoded, "encoded: {}", spelled.join(" "));
}

#[test]
fn the_example_of_a_log_segment_is_its_encoding_and_decodes() {
    let payload = [1, 0, 0, 0, 1, 0, 1, b'k', 1, b'v'];
    let record = Record {
        edit: false,
        sync: true,
        synced: 900,
        seq: 42,
        payload: &payload,
    };
    let mut file = encode_header(&LOG);
    file.extend(encode_record(DB, 7, 64, &record));
    assert_example("log-segment", &file);
    let file = example("log-segment");
    assert_eq!(decode_header(&file, false), Some(LOG));
    assert_eq!(decode_record(DB, 7, 64, &file), Some(record));
}

#[test]
fn the_example_of_a_manifest_is_its_encoding_and_decodes() {
    let record = Record {
        edit: true,
        sync: true,
        synced: 0,
        seq: 0,
        payload: &[2, 12],
    };
    let mut file = encode_header(&MANIFEST);
    file.extend(encode_record(DB, 6, 64, &record));
    assert_example("manifest", &file);
    let file = example("manifest");
    assert_eq!(decode_header(&file, true), Some(MANIFEST));
    assert_eq!(decode_record(DB, 6, 64, &file), Some(record));
}

#[test]
fn the_example_of_a_mark_is_its_encoding_and_decodes() {
    assert_example("mark", &encode_mark(&MARK));
    assert_eq!(decode_mark(&example("mark")), Some(MARK));
}

#[test]
fn the_example_of_current_is_its_encoding_and_decodes() {
    assert_example("current", encode_current(6).as_bytes());
    assert_eq!(decode_current(&example("current")), Some(6));
}
