//! Bodies of the fuzz targets of what a store is told of others: founders, and the file of known stores.

use super::{
    checksum,
    directory::{parse, show},
    setup::parse_founders,
};

/// The value of `--initial-cluster`.
pub(crate) fn founders(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    let Ok(founders) = parse_founders(&text, Ok) else {
        return false;
    };
    let spelled: Vec<String> = founders
        .iter()
        .map(|(id, address)| format!("{id}={address}"))
        .collect();
    let again = parse_founders(&spelled.join(","), Ok);
    assert_eq!(again, Ok(founders), "the same founders");
    true
}

/// The file of known stores, under a right checksum.
pub(crate) fn known_stores(data: &[u8]) -> bool {
    let mut text = String::from_utf8_lossy(data).into_owned();
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let sum = checksum(text.as_bytes());
    text.push_str(&format!("check {sum:016x}\n"));
    let Some(stores) = parse(&text) else {
        return false;
    };
    assert!(parse(&show(&stores)) == Some(stores), "the same stores");
    true
}
