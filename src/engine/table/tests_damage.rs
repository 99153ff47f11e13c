//! Tables with damage: an error or the right answer, and never a panic.

use std::{panic::catch_unwind, sync::Arc};

use super::{
    block::{BlockView, Bucket, Entry, Place},
    filter::FilterShape,
    format::{
        FOOTER_LEN, Footer, LZ4, Properties, ZSTD, check_block, decode_tombstones, decompress,
    },
    index::Index,
    test_files::{Random, Row, build, build_with, key_of, open},
    *,
};
use crate::{
    error::{Error, Result},
    iter::InternalIterator,
    key::{InternalKey, RangeTombstone, ValueKind, pack_trailer},
    options::{CfOptions, Compression, LEVELS},
    tombstones::Tombstones,
};

/// The codecs of this build.
const CODECS: &[Compression] = if cfg!(feature = "zstd") {
    &[Compression::None, Compression::Lz4, Compression::Zstd]
} else {
    &[Compression::None, Compression::Lz4]
};

/// A small table with everything in it.
fn small_table(compression: Compression) -> (Vec<u8>, TableInfo, Vec<Row>, Tombstones) {
    let mut rows: Vec<Row> = Vec::new();
    for i in 0..30_u64 {
        let key = format!("key{:03}", i / 3).into_bytes();
        let kind = if i % 7 == 0 {
            ValueKind::Delete
        } else {
            ValueKind::Put
        };
        let value = if kind == ValueKind::Put {
            vec![b'x'; 10]
        } else {
            Vec::new()
        };
        rows.push((key, pack_trailer(SequenceNumber(100 - i), kind), value));
    }
    let tombstones = [
        ("key001", "key004", 7),
        ("key003", "key009", 50),
        ("z", "zz", 1),
    ]
    .map(|(start, end, seq)| RangeTombstone {
        start: start.into(),
        end: end.into(),
        seq: SequenceNumber(seq),
    });
    let options = CfOptions {
        block_bytes: 200,
        restart_interval: 3,
        compression: [compression; LEVELS],
        ..CfOptions::default()
    };
    let (bytes, info) = build(&rows, &tombstones, &options, 0).expect("memory");
    (bytes, info, rows, Tombstones::new(tombstones.to_vec()))
}

/// Reads everything a reader can; true where all of it is right, an error where damage was found.
fn read_all(
    bytes: &[u8],
    info: &TableInfo,
    rows: &[Row],
    dead: &Tombstones,
    mapped: bool,
) -> Result<bool> {
    let table = open(bytes.to_vec(), info.identity(), mapped, None)?;
    let mut right = **table.tombstones() == *dead && table.info(info.crc) == *info;
    let mut result = Ok(());
    for row in rows {
        match table.get(key_of(row), key_hash(&row.0)) {
            Ok(Some((trailer, value))) => right &= trailer == row.1 && *value == *row.2,
            Ok(None) => right = false,
            Err(error) => result = Err(error),
        }
    }
    for absent in ["", "key", "key0031", "zzz"].map(str::as_bytes) {
        match table.get(
            InternalKey::seek_to(absent, SequenceNumber::MAX),
            key_hash(absent),
        ) {
            Ok(found) => right &= found.is_none(),
            Err(error) => result = Err(error),
        }
    }
    for forward in [true, false] {
        if let Err(error) = scan(&table, rows, forward, &mut right) {
            result = Err(error);
        }
    }
    // Every right answer was right, whether or not others were refused.
    assert!(right, "a wrong answer");
    result.map(|()| right)
}

/// Walks over the table; `right` turns false at a row that is not the expected one.
fn scan(table: &Arc<Table>, rows: &[Row], forward: bool, right: &mut bool) -> Result<()> {
    let mut iter = table.iter();
    if forward {
        iter.seek_to_first()?;
    } else {
        iter.seek_to_last()?;
    }
    for i in 0..rows.len() {
        let row = &rows[if forward { i } else { rows.len() - 1 - i }];
        *right &= iter.valid() && iter.key() == key_of(row) && iter.value() == row.2;
        if !iter.valid() {
            return Ok(());
        }
        if forward { iter.next()? } else { iter.prev()? }
    }
    *right &= !iter.valid();
    Ok(())
}

#[test]
fn every_flipped_bit_is_found_by_readers_and_by_verify() {
    for &compression in CODECS {
        let (bytes, info, rows, dead) = small_table(compression);
        assert!(read_all(&bytes, &info, &rows, &dead, true).expect("sound table"));
        assert!((500..4000).contains(&info.size), "{}", info.size);
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            for mapped in [true, false] {
                let read = read_all(&bad, &info, &rows, &dead, mapped);
                let error = read.expect_err("every byte of a table is read");
                assert!(error.is_corruption(), "bit {bit}: {error}");
            }
            if let Ok(table) = open(bad, info.identity(), true, None) {
                let error = table.verify(info.crc).expect_err("verify reads everything");
                let Error::Corruption { offset, .. } = error else {
                    panic!("bit {bit}: {error}")
                };
                assert!(offset <= bit as u64 / 8, "bit {bit}: {error}");
            }
        }
    }
}

#[test]
fn every_truncation_and_every_lengthening_is_refused() {
    let (bytes, info, ..) = small_table(Compression::None);
    for mapped in [true, false] {
        for len in 0..bytes.len() {
            let cut = bytes[..len].to_vec();
            let identity = TableIdentity {
                size: len as u64,
                ..info.identity()
            };
            // Also where the owner believes the new size.
            for identity in [info.identity(), identity] {
                let opened = open(cut.clone(), identity, mapped, None);
                assert!(opened.is_err_and(|error| error.is_corruption()), "{len}");
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(open(longer, info.identity(), mapped, None).is_err());
    }
}

#[test]
fn another_table_in_its_place_is_refused() {
    let (bytes, info, ..) = small_table(Compression::None);
    let identity = TableIdentity {
        table_id: info.table_id + 1,
        ..info.identity()
    };
    let Err(Error::Corruption { offset, what, .. }) = open(bytes, identity, true, None) else {
        panic!("opened");
    };
    assert_eq!(
        (offset, &*what),
        (info.size - FOOTER_LEN as u64, "footer of another table")
    );
}

#[test]
fn a_block_moved_to_another_place_is_refused() {
    let options = CfOptions {
        block_bytes: 1,
        compression: [Compression::None; LEVELS],
        ..CfOptions::default()
    };
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
    let rows: Vec<Row> = [b"a", b"b"]
        .map(|key| (key.to_vec(), trailer, b"value".to_vec()))
        .to_vec();
    let (mut bytes, info) = build(&rows, &[], &options, 0).expect("memory");
    let table = open(bytes.clone(), info.identity(), true, None).expect("sound table");
    let len = table.handle(0).stored_len();
    assert_eq!(table.handle(1).stored_len(), len);
    let (first, second) = bytes[..len * 2].split_at_mut(len);
    first.swap_with_slice(second);
    let table = open(bytes, info.identity(), true, None).expect("data is verified when touched");
    for row in &rows {
        let error = table
            .get(key_of(row), key_hash(&row.0))
            .expect_err("moved block");
        assert!(error.to_string().contains("checksum"), "{error}");
    }
}

/// Feeds some bytes to every decoder and walks over what comes out.
fn decode(bytes: &[u8], random: &mut Random) {
    if let Ok(view) = BlockView::parse(bytes) {
        let mut at = Place {
            key: 0,
            value: view.keys.len(),
        };
        while let Ok(entry) = Entry::decode(view.keys, at) {
            assert!(entry.next.key > at.key, "every entry takes bytes");
            at = entry.next;
        }
        let key = random.bytes(3);
        let target = InternalKey {
            user_key: &key,
            trailer: random.next(),
        };
        let rule = SeqRule::new(None);
        if let Ok(start) = view.restart_before(target, rule) {
            let _ = view
                .find_from(start, target, rule)
                .map(|found| found.map(|found| found.entry.at));
        }
        if let Bucket::At(start) = view.bucket(key_hash(&key)) {
            let _ = view
                .find_from(start, target, rule)
                .map(|found| found.map(|found| found.entry.at));
        }
        let end = Place {
            key: random.below(bytes.len() + 1),
            value: 0,
        };
        let _ = view.restart_below(end);
    }
    if let Ok(index) = Index::parse(bytes) {
        let key = random.bytes(2);
        let target = InternalKey {
            user_key: &key,
            trailer: random.next(),
        };
        let found = index
            .find(bytes, target, SeqRule::new(None))
            .expect("checked whole");
        assert!(found.is_none_or(|ordinal| ordinal < index.count()));
    }
    if let Ok(shape) = FilterShape::parse(bytes, random.next()) {
        shape.may_contain(bytes, key_hash(b"k"));
    }
    if let Ok((tombstones, stored)) = decode_tombstones(bytes, None) {
        assert!(tombstones.all().count() as u64 <= stored && stored <= bytes.len() as u64);
    }
    if let Ok(block) = decompress(LZ4, bytes) {
        assert!(block.slice.len() <= bytes.len() * 255);
    }
    if let Ok(block) = decompress(ZSTD, bytes) {
        assert!(block.slice.len() <= bytes.len() << 12);
    }
    let _ = Properties::decode(bytes);
    let _ = check_block(random.next(), random.next(), bytes);
    if let Some(footer) = bytes.first_chunk() {
        let _ = Footer::decode(footer, random.next());
    }
}

#[test]
fn decoders_take_any_bytes() {
    for seed in 0..200 {
        let outcome = catch_unwind(|| {
            let random = &mut Random(seed);
            for _ in 0..500 {
                let len = random.pick(&[0, 3, 6, 20, 100, 300]);
                let mut bytes = random.bytes(len);
                // Small numbers get further into the decoders than large ones.
                let below = random.pick(&[2, 5, 20, 128]);
                bytes.iter_mut().for_each(|byte| *byte %= below);
                decode(&bytes, random);
            }
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

/// Changes bytes of a table, and makes every block checksum and the footer fit again.
fn damage_under_the_checksums(bytes: &mut [u8], info: &TableInfo, random: &mut Random) {
    let footer_at = bytes.len() - FOOTER_LEN;
    let footer = bytes[footer_at..].first_chunk().expect("a footer");
    let footer = Footer::decode(footer, footer_at as u64).expect("sound table");
    let table = open(bytes.to_vec(), info.identity(), true, None).expect("sound table");
    let mut handles: Vec<_> = (0..table.data_blocks()).map(|i| table.handle(i)).collect();
    handles.extend(
        [
            footer.tombstones,
            footer.filter,
            Some(footer.index),
            Some(footer.properties),
        ]
        .into_iter()
        .flatten(),
    );
    let handle = random.pick(&handles);
    let start = usize::try_from(handle.offset).expect("small file");
    let body = start..start + handle.len();
    for _ in 0..=random.below(3) {
        let at = body.start + random.below(handle.len());
        bytes[at] = random.pick(&[
            0,
            1,
            2,
            0x7f,
            0x80,
            0xff,
            bytes[at] ^ 1,
            bytes[at].wrapping_add(1),
        ]);
    }
    let mut block = bytes[body.clone()].to_vec();
    let kind = bytes[body.end];
    format::seal_block(&mut block, 0, info.table_id, handle.offset, kind);
    bytes[start..start + handle.stored_len()].copy_from_slice(&block);
}

/// Reads all that is there, right or not.
fn exercise(table: &Arc<Table>, rows: &[Row]) {
    let mut iter = table.iter();
    for row in rows {
        let _ = table.get(key_of(row), key_hash(&row.0));
        let _ = iter.seek(key_of(row));
        let _ = iter.seek_for_prev(key_of(row));
        for _ in 0..rows.len() * 2 {
            if !iter.valid() || iter.prev().is_err() {
                break;
            }
        }
        let _ = iter.seek(key_of(row));
        let mut steps = 0;
        while iter.valid() && iter.next().is_ok() {
            steps += 1;
            assert!(steps < 10_000, "an iterator that never ends");
        }
    }
}

#[test]
fn damage_under_a_fitting_checksum_never_panics_and_verify_finds_it() {
    for &compression in CODECS {
        let (bytes, info, rows, _) = small_table(compression);
        let mut refused = 0;
        for seed in 0..3000 {
            let outcome = catch_unwind(|| {
                let mut bad = bytes.clone();
                damage_under_the_checksums(&mut bad, &info, &mut Random(seed));
                let same = bad == bytes;
                let crc = crc32fast::hash(&bad);
                let mut found = false;
                for mapped in [true, false] {
                    match open(bad.clone(), info.identity(), mapped, None) {
                        Ok(table) => {
                            exercise(&table, &rows);
                            found |= table.verify(crc).is_err();
                        }
                        Err(_) => found = true,
                    }
                }
                assert!(!(same && found), "a sound table was refused");
                found
            });
            refused += u32::from(outcome.unwrap_or_else(|_| panic!("seed {seed}")));
        }
        // Values and spare filter bits may be anything; most of the rest is structure.
        assert!(refused > 1500, "{refused} of 3000");
    }
}

#[test]
fn a_key_shared_beyond_its_neighbour_is_damage_to_an_iterator() {
    // One restart point; the second entry claims five bytes of a key of one.
    let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put).to_le_bytes();
    let mut block = vec![0, 1, 0];
    block.extend(trailer);
    block.push(b'a');
    block.extend([5, 1, 0]);
    block.extend(trailer);
    block.push(b'b');
    block.extend([0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
    let view = BlockView::parse(&block).expect("frame is sound");
    let target = InternalKey::seek_to(b"zz", SequenceNumber::MAX);
    let found = view.find_from(0, target, SeqRule::new(None));
    assert_eq!(
        found.expect_err("damage"),
        "entry shares more than there is"
    );
}

#[test]
fn a_table_with_zstd_is_read_with_the_feature_and_refused_by_name_without() {
    let options = CfOptions {
        compression: [Compression::Zstd; LEVELS],
        ..CfOptions::default()
    };
    let rows: Vec<Row> = (0..100)
        .map(|i| {
            let key = format!("key{i:03}").into_bytes();
            let trailer = pack_trailer(SequenceNumber(1), ValueKind::Put);
            (key, trailer, vec![b'x'; 100])
        })
        .collect();
    let (bytes, info) =
        build_with(&rows, &[], &options, 0, TableBuilder::claim_zstd).expect("memory");
    for mapped in [true, false] {
        match open(bytes.clone(), info.identity(), mapped, None) {
            Ok(table) => {
                assert!(cfg!(feature = "zstd") && table.has_zstd());
                exercise(&table, &rows);
                table.verify(crc32fast::hash(&bytes)).expect("sound");
                assert!(bytes.len() < 3000, "{} bytes", bytes.len());
            }
            Err(Error::NotADatabase { what, .. }) => {
                assert!(!cfg!(feature = "zstd") && what.contains("zstd"), "{what}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
