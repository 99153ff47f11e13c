//! Seams for the tests of the format: a value file in memory, and the pointers into it.
//!
//! Hidden from the documentation and no promise to anyone; the engine does not use them.

use std::{path::Path, sync::Arc};

use super::{Place, ValueFileRecord, ValueFiles, ValuePointer, ValueWriter};
use crate::{
    fs::{Fs, ReadMode, SimFs},
    options::Compression,
    slice::PinLedger,
};

/// A pointer: number of the file, offset, bytes as stored, bytes of the value, checksum of the record.
pub type Pointer = (u64, u64, u32, u32, u32);

const NUMBER: u64 = 8;

/// The bytes of value file 8 with the random number `id` that holds `values`, and the encoded pointers to them.
///
/// # Panics
/// Never: the disk is a simulated one without faults.
#[must_use]
pub fn file(id: u64, values: &[&[u8]]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let fs = SimFs::new();
    let path = Path::new("/values");
    let file = fs.create(path).expect("no faults");
    let mut writer = ValueWriter::new(file, path.into(), NUMBER, id, Compression::Lz4);
    let pointers = values.iter().map(|value| {
        let mut bytes = Vec::new();
        let pointer = writer.add(value).expect("no faults");
        pointer.encode_to(&mut bytes);
        bytes
    });
    let pointers = pointers.collect();
    writer.finish().expect("no faults");
    (fs.read(path).expect("just written"), pointers)
}

/// The value that a pointer into such a file stands for; `None` where that is damaged.
///
/// # Panics
/// Never: the disk is a simulated one without faults.
#[must_use]
pub fn read(id: u64, bytes: &[u8], pointer: &[u8]) -> Option<Vec<u8>> {
    let fs = SimFs::new();
    let mut file = fs.create(Path::new("/000008.val")).expect("no faults");
    file.append(bytes).expect("no faults");
    let record = ValueFileRecord {
        number: NUMBER,
        id,
        size: bytes.len() as u64,
        crc: 0,
    };
    let all = Arc::<ValueFiles>::default();
    let file = all.share(record).expect("the only one");
    let place = Place {
        fs: &*fs,
        dir: Path::new("/"),
        mode: ReadMode::Pread,
    };
    let pointer = ValuePointer::decode(pointer)?;
    let value = file.read(&place, pointer, &PinLedger::new(0)).ok()?;
    Some(value.to_vec())
}

/// The pointer that `bytes` are.
#[must_use]
pub fn pointer(bytes: &[u8]) -> Option<Pointer> {
    let pointer = ValuePointer::decode(bytes)?;
    Some((
        pointer.file,
        pointer.offset,
        pointer.stored,
        pointer.len,
        pointer.crc,
    ))
}
