//! A value file, and the pointers that tables have in the place of its values.

use basalt_engine::testing::values;

use crate::{TABLE_ID, check};

#[test]
fn a_value_file_and_the_pointers_into_it_are_as_stated() {
    let rows: [&[u8]; 2] = [b"a value that stays as it is", &[b'v'; 90]];
    let (bytes, pointers) = values::file(TABLE_ID, &rows);
    let rows = rows.map(<[u8]>::to_vec).to_vec();
    check("value-file", &rows, &bytes, |bytes| {
        let read = |pointer: &Vec<u8>| values::read(TABLE_ID, bytes, pointer);
        pointers.iter().map(read).collect()
    });
    let fields = values::pointer(&pointers[1]).expect("just made");
    assert_eq!((fields.0, fields.3), (8, 90), "{fields:?}");
    check("value-pointer", &fields, &pointers[1], values::pointer);
}
