//! Bodies of the fuzz targets of snapshot files: the meta file and the names.

use basalt_proto::eraftpb::Snapshot;
use prost::Message;

use super::{
    Description, MAX_SNAPSHOT_BYTES,
    names::Name,
    receive::{META_MAGIC, read_meta},
};

/// A meta file, under a right checksum.
pub(crate) fn meta(data: &[u8]) -> bool {
    let crc = crc32fast::hash(data);
    let file = [&META_MAGIC[..], &crc.to_le_bytes(), data].concat();
    let Some(description) = read_meta(&file) else {
        return false;
    };
    let total: u64 = description.present().map(|(_, sum)| sum.bytes).sum();
    assert!(total <= MAX_SNAPSHOT_BYTES, "{total} bytes of files");
    let snapshot = Snapshot::decode(data).expect("it was decoded");
    let again = Description::of(&snapshot).expect("it was taken");
    assert_eq!(again.key, description.key);
    let mut other = file;
    let at = other.len() - 1;
    other[at] ^= 1;
    assert!(read_meta(&other).is_none(), "a flip is seen");
    true
}

/// The name of a file in the directory of snapshots.
pub(crate) fn name(data: &[u8]) -> bool {
    let Some(name) = std::str::from_utf8(data).ok().and_then(Name::parse) else {
        return false;
    };
    if name != Name::Temporary {
        assert_eq!(name.to_string().as_bytes(), data, "one spelling");
    }
    true
}
