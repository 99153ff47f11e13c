//! Version edits: round trips and hostile bytes. (The example of FORMAT.md: `tests/format.rs`.)

use super::*;

pub(super) fn sample() -> VersionEdit {
    let info = TableInfo {
        table_id: 0x1122_3344_5566_7788,
        size: 4096,
        crc: 0xdead_beef,
        smallest: b"apple".to_vec(),
        largest: b"pear".to_vec(),
        largest_exclusive: true,
        entries: 300,
        deletes: 2,
        tombstones: 1,
        min_seq: SequenceNumber(5),
        max_seq: SequenceNumber(310),
        times: None,
    };
    let table = TableRecord {
        number: 9,
        info,
        hidden: 4,
        global_seq: Some(SequenceNumber(400)),
        values: Vec::new(),
    };
    VersionEdit {
        db_id: Some(0x0102_0304_0506_0708),
        next_file_number: Some(12),
        last_seq: Some(SequenceNumber(400)),
        log: Some(LogStart {
            segment: 7,
            base: 1000,
        }),
        next_family_id: Some(3),
        created: vec![FamilyCreated {
            id: 2,
            name: "lock".into(),
            options: CfOptions::unlogged(),
        }],
        dropped: vec![1],
        options: vec![(
            0,
            CfOptions {
                table_bytes: 1 << 40,
                ..CfOptions::default()
            },
        )],
        flushed: vec![(0, SequenceNumber(310))],
        removed: vec![TableRemoved {
            family: 0,
            level: 6,
            number: 4,
        }],
        added: vec![TableAdded {
            family: 0,
            level: 0,
            table,
        }],
    }
}

#[test]
fn an_edit_comes_back_with_and_without_each_field() {
    assert_eq!(VersionEdit::decode(&[]), Ok(VersionEdit::default()));
    let full = sample();
    for field in 0..11 {
        let mut edit = full.clone();
        match field {
            0 => edit.db_id = None,
            1 => edit.next_file_number = None,
            2 => edit.last_seq = None,
            3 => edit.log = None,
            4 => edit.next_family_id = None,
            5 => edit.created.clear(),
            6 => edit.dropped.push(77),
            7 => edit.options.clear(),
            8 => edit.flushed.clear(),
            9 => edit.removed.push(TableRemoved {
                family: 1,
                level: 0,
                number: 1 << 60,
            }),
            _ => edit.added[0].table.global_seq = None,
        }
        assert_ne!(edit, full);
        assert_eq!(
            VersionEdit::decode(&edit.encode()),
            Ok(edit),
            "field {field}"
        );
    }
}

#[test]
fn every_option_is_kept_but_for_the_kind_of_memtable() {
    let mut options = CfOptions {
        append_prefix_bytes: None,
        merge_operator: None,
        compaction_filter: None,
        ttl: None,
        logged: false,
        write_buffer_bytes: 1,
        memtable: MemtableKind::SkipList,
        large_value_bytes: None,
        max_immutable_memtables: 2,
        block_bytes: 3,
        restart_interval: 4,
        filter_bits_per_key: 5,
        compression: [Compression::None; LEVELS],
        table_bytes: 6,
        base_level_bytes: 7,
        level_multiplier: 8,
        l0_compaction_trigger: 9,
        l0_slowdown_trigger: 10,
        l0_stop_trigger: 11,
    };
    options.compression[3] = Compression::Lz4;
    options.compression[6] = Compression::Zstd;
    let kept = decode_options(&encode_options(&options)).unwrap();
    assert_eq!(kept, options.stored());
    options.memtable = MemtableKind::default();
    options.large_value_bytes = CfOptions::default().large_value_bytes;
    assert_eq!(kept, options);
    let plain = encode_options(&options);
    assert_eq!(decode_options(&plain), Some(options.clone()));
    for bytes in [0, 11, 1024] {
        options.append_prefix_bytes = Some(bytes);
        let append = encode_options(&options);
        assert!(
            append.starts_with(&plain),
            "plain families stay as they were"
        );
        assert_eq!(decode_options(&append), Some(options.clone()));
    }
    assert_eq!(decode_options(&[&plain[..], &[15, 1]].concat()), None);
    assert_eq!(
        decode_options(&[&plain[..], &[14, 1, 14, 1]].concat()),
        None
    );
}

#[test]
fn a_cut_edit_is_refused_or_lacks_whole_fields_at_its_end() {
    let bytes = sample().encode();
    let mut whole = 0;
    for len in 0..bytes.len() {
        // What is accepted must be a list of whole fields: encoding it gives the same bytes.
        if let Ok(edit) = VersionEdit::decode(&bytes[..len]) {
            assert_eq!(edit.encode(), bytes[..len]);
            whole += 1;
        }
    }
    assert_eq!(
        whole, 11,
        "a cut between two fields is not visible here, every other one is"
    );
}

#[test]
fn any_change_of_a_byte_is_refused_or_decodes_to_what_it_says() {
    let bytes = sample().encode();
    let mut accepted = 0;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            if let Ok(edit) = VersionEdit::decode(&bad) {
                assert_eq!(edit.encode(), bad, "byte {at}, bit {bit}");
                accepted += 1;
            }
        }
    }
    assert!(accepted > 0 && accepted < bytes.len() * 8);
}

#[test]
fn random_bytes_never_panic_and_what_is_accepted_is_canonical() {
    // A fixed linear congruential generator: the bytes need no quality, only variety.
    let mut state = 0x5eed_u64;
    let mut byte = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    for round in 0..20_000_usize {
        let bytes: Vec<u8> = (0..round % 40)
            .map(|at| if at == 0 { byte() % 12 } else { byte() })
            .collect();
        if let Ok(edit) = VersionEdit::decode(&bytes) {
            assert_eq!(edit.encode(), bytes);
        }
    }
}

#[test]
fn refusals_name_the_field() {
    let refuse = |bytes: &[u8]| VersionEdit::decode(bytes).expect_err("bad bytes");
    assert_eq!(
        refuse(&[2, 9, 99]),
        "version edit, field at byte 2: unknown tag 99"
    );
    assert_eq!(
        refuse(&[2, 9, 2, 9]),
        "version edit, field at byte 2: tag 2 after tag 2"
    );
    assert_eq!(
        refuse(&[3, 9, 2, 9]),
        "version edit, field at byte 2: tag 2 after tag 3"
    );
    assert!(
        refuse(&[10, 0, 7, 1]).contains("tag 10"),
        "a level too deep"
    );
}
