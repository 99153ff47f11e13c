//! FORMAT.md, section 10: a `BACKUP-` file.

use basalt_engine::testing::backup::{Record, decode, encode};

use super::{DB, check, example};

#[test]
fn backup() {
    let record = Record {
        id: 3,
        time: 1_800_000_000,
        description: "nightly".to_owned(),
        db: DB,
        seq: 400,
        end: 1042,
        new_bytes: 4202,
        manifest_number: 6,
        manifest: example("manifest"),
        segments: vec![(7, 1000, 106, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)],
    };
    check("backup", &record, &encode(&record), decode);
}
