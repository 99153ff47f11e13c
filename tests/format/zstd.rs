//! The example of a block of zstd, which only builds with that feature read.

use basalt_engine::{CfOptions, Compression, LEVELS, fs::ReadMode, testing::table};

use super::{TABLE_ID, decode_table, encode_table, example, spell};

/// Another version of zstd may compress to other bytes: then the example is renewed, and the old one must decode still.
#[test]
fn block_of_zstd() {
    let stated = example("zstd-block");
    let decoded = table::decompress(2, &stated);
    let lz4 = table::decompress(1, &example("lz4-block"));
    assert!(lz4.is_some());
    assert_eq!(decoded, lz4.filter(|_| cfg!(feature = "zstd")));
    if !cfg!(feature = "zstd") {
        return;
    }
    let content = table::Content {
        entries: vec![(b"k".to_vec(), 1, Some(vec![b'x'; 100]))],
        tombstones: Vec::new(),
    };
    let options = CfOptions {
        compression: [Compression::Zstd; LEVELS],
        ..CfOptions::default()
    };
    let written = encode_table(&options, &content);
    let (block, rest) = written.split_at(stated.len());
    assert_eq!(spell(block), spell(&stated));
    assert_eq!(rest[0], 2, "the trailer says zstd");
    let read = decode_table(&written, ReadMode::Mapped);
    assert_eq!(read, Some((TABLE_ID, content)));
}
