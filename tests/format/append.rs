//! The examples of append families: operations in a batch, and options in a manifest.

use std::sync::Arc;

use basalt_engine::{
    CfOptions, Db, Options, WriteBatch,
    batch::{Operation, Operations, Values},
    executor::SimExecutor,
    fs::SimFs,
    testing::{append, version},
};

use crate::{as_stated, check};

#[test]
fn append_batch() {
    /// Family, kind, prefix, index, and values with sequence number and checksum.
    type Row = (u32, char, Vec<u8>, u64, Vec<(u64, u32, Vec<u8>)>);
    let crc = |prefix: &[u8], index: u64, value: &[u8]| {
        let bytes = [
            &1_u32.to_le_bytes()[..],
            prefix,
            &index.to_le_bytes(),
            value,
        ];
        crc32fast::hash(&bytes.concat())
    };
    let value =
        |seq, prefix: &[u8], index, value: &[u8]| (seq, crc(prefix, index, value), value.to_vec());
    let fields: Vec<Row> = vec![
        (
            1,
            'a',
            b"p1".to_vec(),
            300,
            vec![value(0, b"p1", 300, b"a"), value(0, b"p1", 301, b"bc")],
        ),
        (1, 'f', b"p1".to_vec(), 42, vec![]),
        (1, 'b', b"p2".to_vec(), 9, vec![]),
        (1, 'r', b"p2".to_vec(), 5, vec![value(800, b"p2", 5, b"v")]),
    ];
    let executor = Arc::new(SimExecutor::new(1));
    let db = Db::open("/db", Options::with(SimFs::new(), executor)).expect("an empty disk");
    let cf = db
        .create_cf("log", CfOptions::append(2))
        .expect("a sound disk");
    let mut batch = WriteBatch::new();
    batch.append(&cf, b"p1", 300, &[&b"a"[..], b"bc"]);
    batch.truncate_front(&cf, b"p1", 42);
    batch.truncate_back(&cf, b"p2", 9);
    append::rewrite(&mut batch, &cf, b"p2", 5, &[(800, b"v")]);
    let encoded = append::encoded(batch);
    check("append-batch", &fields, &encoded, |bytes| {
        let values = |values: Values<'_>| {
            let values = values.iter().map(|v| (v.seq.0, v.crc, v.bytes.to_vec()));
            values.collect::<Vec<_>>()
        };
        let operations = Operations::new(bytes)?.map(|operation| {
            let (family, operation) = operation.ok()?;
            let (kind, prefix, index, values) = match operation {
                Operation::Append {
                    prefix,
                    first,
                    values: all,
                } => ('a', prefix, first, values(all)),
                Operation::Rewrite {
                    prefix,
                    first,
                    values: all,
                } => ('r', prefix, first, values(all)),
                Operation::TruncateFront { prefix, index } => ('f', prefix, index, vec![]),
                Operation::TruncateBack { prefix, index } => ('b', prefix, index, vec![]),
                _ => return None,
            };
            Some((family, kind, prefix.to_vec(), index, values))
        });
        operations.collect()
    });
}

#[test]
fn append_packed() {
    let values = vec![vec![b'a'; 100], vec![b'b'; 60]];
    let executor = Arc::new(SimExecutor::new(1));
    let db = Db::open("/db", Options::with(SimFs::new(), executor)).expect("an empty disk");
    let cf = db
        .create_cf("log", CfOptions::append(2))
        .expect("a sound disk");
    let mut batch = WriteBatch::new();
    append::packed(&mut batch, &cf, b"p1", 300, &values);
    let encoded = append::encoded(batch);
    let crc = |body: &[u8]| {
        let bytes = [
            &1_u32.to_le_bytes()[..],
            b"p1",
            &300_u64.to_le_bytes(),
            body,
        ];
        crc32fast::hash(&bytes.concat())
    };
    let fields = (1, b"p1".to_vec(), 300, true, values);
    check("append-packed", &fields, &encoded, |bytes| {
        let (family, operation) = Operations::new(bytes)?
            .collect::<Result<Vec<_>, _>>()
            .ok()?
            .pop()?;
        let Operation::AppendPacked {
            prefix,
            first,
            block,
        } = operation
        else {
            return None;
        };
        let is_right = crc(block.body) == block.crc;
        Some((family, prefix.to_vec(), first, is_right, block.values()?))
    });
}

#[test]
fn append_options() {
    let fields = version::Edit {
        created: vec![(1, "log".to_owned(), as_stated(CfOptions::append(11)))],
        ..version::Edit::default()
    };
    let encoded = version::encode_edit(&fields);
    check("append-options", &fields, &encoded, version::decode_edit);
}
