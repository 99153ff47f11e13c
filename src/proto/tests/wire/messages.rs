//! Messages whose bytes were worked out by hand from the protobuf encoding.

use basalt_proto::{eraftpb, errorpb, kvrpcpb, metapb, raft_cmdpb, raft_serverpb, schedulerpb};
use prost::Message;
use prost::bytes::Bytes;

/// Bytes from hex with blanks between groups.
pub(crate) fn hex(text: &str) -> Bytes {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| u8::try_from(c.to_digit(16).expect("a hex digit")).expect("below 16"))
        .collect();
    assert_eq!(digits.len() % 2, 0, "whole bytes");
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// `message` encodes to exactly the bytes of `wire`, and they decode to it.
#[track_caller]
fn check<M: Message + Default + PartialEq + std::fmt::Debug>(message: M, wire: &str) {
    let bytes = hex(wire);
    assert_eq!(Bytes::from(message.encode_to_vec()), bytes, "encoded");
    assert_eq!(
        M::decode(bytes).expect("the bytes decode"),
        message,
        "decoded"
    );
}

#[test]
fn raw_get_request_has_context_key_and_cf_in_fields_1_2_3() {
    let context = kvrpcpb::Context {
        region_id: 1,
        region_epoch: Some(metapb::RegionEpoch {
            conf_ver: 2,
            version: 300,
        }),
        peer: Some(metapb::Peer { id: 4, store_id: 5 }),
        term: 6, // field 5: number 4 is unused
    };
    check(
        kvrpcpb::RawGetRequest {
            context: Some(context),
            key: Bytes::from_static(b"key"),
            cf: "write".to_owned(),
        },
        "0a 11  0801  12 05 0802 10ac02  1a 04 0804 1005  2806
         12 03 6b6579
         1a 05 7772697465",
    );
}

#[test]
fn raw_get_response_tells_a_missing_key_by_field_4_and_an_empty_value_by_nothing() {
    check(
        kvrpcpb::RawGetResponse {
            not_found: true,
            ..Default::default()
        },
        "2001",
    );
    check(kvrpcpb::RawGetResponse::default(), "");
}

#[test]
fn raw_put_request_has_the_value_before_the_cf() {
    check(
        kvrpcpb::RawPutRequest {
            context: None,
            key: Bytes::from_static(&[0x00, 0xff]),
            value: Bytes::from_static(b"v"),
            cf: "lock".to_owned(),
        },
        "12 02 00ff  1a 01 76  22 04 6c6f636b",
    );
}

#[test]
fn raw_scan_response_repeats_pairs_with_key_in_field_2() {
    let pair = |key: &'static [u8], value: &'static [u8]| kvrpcpb::KvPair {
        error: None,
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
    };
    check(
        kvrpcpb::RawScanResponse {
            kvs: vec![pair(b"a", b"1"), pair(b"b", b"")],
            ..Default::default()
        },
        "1a 06 1201 61 1a01 31  1a 03 1201 62",
    );
}

#[test]
fn region_error_skips_number_6() {
    check(
        errorpb::Error {
            message: "no".to_owned(),
            not_leader: Some(errorpb::NotLeader {
                region_id: 7,
                leader: None,
            }),
            stale_command: Some(errorpb::StaleCommand {}),
            store_not_match: Some(errorpb::StoreNotMatch {
                request_store_id: 1,
                actual_store_id: 2,
            }),
            ..Default::default()
        },
        "0a 02 6e6f  12 02 0807  3a 00  42 04 0801 1002",
    );
}

#[test]
fn conf_state_packs_its_nodes() {
    check(
        eraftpb::ConfState {
            nodes: vec![1, 150, 3],
            ..Default::default()
        },
        "0a 04 01 9601 03",
    );
    // Readers must take the unpacked form too, which older writers use.
    let unpacked = eraftpb::ConfState::decode(hex("0801 089601 0803")).expect("it decodes");
    assert_eq!(unpacked.nodes, [1, 150, 3]);
}

#[test]
fn raft_message_has_the_ten_fields_of_upstream_in_order() {
    let entry = eraftpb::Entry {
        entry_type: eraftpb::EntryType::EntryConfChange.into(),
        term: 5,
        index: 10,
        data: Bytes::from_static(&[0xde, 0xad]),
    };
    let metadata = eraftpb::SnapshotMetadata {
        conf_state: Some(eraftpb::ConfState {
            nodes: vec![1, 2],
            ..Default::default()
        }),
        index: 8,
        term: 4,
    };
    check(
        eraftpb::Message {
            msg_type: eraftpb::MessageType::MsgTimeoutNow.into(), // 12: number 10 is unused
            to: 2,
            from: 1,
            term: 5,
            log_term: 4,
            index: 9,
            entries: vec![entry],
            commit: 8,
            snapshot: Some(Box::new(eraftpb::Snapshot {
                data: Bytes::new(),
                metadata: Some(metadata),
            })),
            reject: true,
            ..Default::default()
        },
        "080c 1002 1801 2005 2804 3009
         3a 0a 0801 1005 180a 2202 dead
         4008
         4a 0c  12 0a  0a 04 0a 02 0102  1008 1804
         5001",
    );
}

#[test]
fn an_unknown_message_type_keeps_its_number() {
    let message = eraftpb::Message::decode(hex("080a")).expect("it decodes");
    assert_eq!(message.msg_type, 10);
    assert!(eraftpb::MessageType::try_from(message.msg_type).is_err());
    assert_eq!(Bytes::from(message.encode_to_vec()), hex("080a"));
}

#[test]
fn admin_request_has_split_in_field_10_with_packed_peer_ids() {
    check(
        raft_cmdpb::AdminRequest {
            cmd_type: raft_cmdpb::AdminCmdType::Split.into(),
            split: Some(raft_cmdpb::SplitRequest {
                split_key: Bytes::from_static(b"m"),
                new_region_id: 9,
                new_peer_ids: vec![10, 11, 12],
            }),
            ..Default::default()
        },
        "080a  52 0a 0a01 6d 1009 1a03 0a0b0c",
    );
}

#[test]
fn snapshot_data_has_its_meta_in_field_5() {
    let file = raft_serverpb::SnapshotCfFile {
        cf: "default".to_owned(),
        size: 0,
        checksum: 0xffff_ffff,
    };
    check(
        raft_serverpb::RaftSnapshotData {
            meta: Some(raft_serverpb::SnapshotMeta {
                cf_files: vec![file],
            }),
            ..Default::default()
        },
        "2a 11  0a 0f  0a 07 64656661756c74  18 ffffffff0f",
    );
}

#[test]
fn peer_state_tombstone_is_2() {
    check(
        raft_serverpb::RegionLocalState {
            state: raft_serverpb::PeerState::Tombstone.into(),
            peer_id: 0,
            conf_state: None,
            region: None,
        },
        "0802",
    );
}

#[test]
fn store_stats_go_on_at_number_15_with_two_byte_tags_from_16_on() {
    check(
        schedulerpb::StoreStats {
            store_id: 1,
            used_size: 2,
            interval: Some(schedulerpb::TimeInterval {
                start_timestamp: 3,
                end_timestamp: 4,
            }),
            op_latencies: vec![schedulerpb::RecordPair {
                key: "p".to_owned(),
                value: 5,
            }],
            ..Default::default()
        },
        "0801  5002  7a 04 0803 1004  9a01 05 0a01 70 1005",
    );
}

#[test]
fn a_negative_scan_limit_takes_ten_bytes() {
    check(
        schedulerpb::ScanRegionsRequest {
            limit: -1,
            ..Default::default()
        },
        "18 ffffffffffffffffff01",
    );
}

#[test]
fn decoding_from_a_shared_buffer_copies_no_byte_field() {
    let wire = hex("12 02 00ff 1a 03 616263");
    let request = kvrpcpb::RawPutRequest::decode(wire.clone()).expect("it decodes");
    assert_eq!(request.value, "abc");
    assert_eq!(request.value.as_ptr(), wire[6..].as_ptr());
}
