//! The examples of merges and of rows with a time to live: operations in a batch, options and tables in a manifest.

use std::{sync::Arc, time::Duration};

use basalt_engine::{
    ByteOrderOf, CfOptions, Db, Options, U64Add, WriteBatch,
    batch::{Operation, Operations},
    executor::SimExecutor,
    fs::SimFs,
    testing::{append, version},
};

use crate::{as_stated, check};

fn sums() -> CfOptions {
    CfOptions::default().merge_operator(Arc::new(U64Add(ByteOrderOf::LittleEndian)))
}

#[test]
fn merge_batch() {
    let fields = vec![
        (1, b"k".to_vec(), b"+1".to_vec()),
        (1, b"l".to_vec(), Vec::new()),
    ];
    let executor = Arc::new(SimExecutor::new(1));
    let db = Db::open("/db", Options::with(SimFs::new(), executor)).expect("an empty disk");
    let cf = db.create_cf("sums", sums()).expect("a sound disk");
    let mut batch = WriteBatch::new();
    batch.merge(&cf, b"k", b"+1");
    batch.merge(&cf, b"l", b"");
    let encoded = append::encoded(batch);
    check("merge-batch", &fields, &encoded, |bytes| {
        let operations = Operations::new(bytes)?.map(|operation| match operation.ok()? {
            (family, Operation::Merge { key, operand }) => {
                Some((family, key.to_vec(), operand.to_vec()))
            }
            _ => None,
        });
        operations.collect()
    });
}

#[test]
fn rows_edit() {
    let table = version::TableFields {
        number: 9,
        table_id: 0x1122_3344_5566_7788,
        size: 4096,
        crc: 0xdead_beef,
        smallest: b"apple".to_vec(),
        largest: b"pear".to_vec(),
        largest_exclusive: false,
        counts: [300, 2, 0],
        seqs: [5, 310],
        hidden: 4,
        global_seq: None,
        times: Some((1000, 2000)),
        values: Vec::new(),
    };
    let rows = as_stated(CfOptions::default().ttl(Duration::from_secs(60)));
    let sums = as_stated(sums());
    let edit = version::Edit {
        created: vec![(1, "sums".to_owned(), sums), (2, "rows".to_owned(), rows)],
        added: vec![(2, 0, table)],
        ..version::Edit::default()
    };
    let encoded = version::encode_edit(&edit);
    // What comes back has the operator's name alone.
    let fields = format!("{edit:?}").replace("u64add.le\")", "u64add.le\", not given)");
    check("rows-edit", &fields, &encoded, |bytes| {
        version::decode_edit(bytes).map(|edit| format!("{edit:?}"))
    });
}
