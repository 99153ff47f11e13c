//! Manifests on a real directory: written, damaged, torn, and refused after a failure.

use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    sync::{Arc, Mutex},
};

use super::{
    chain::{DirSegments, SegmentSource},
    current,
    manifest_file::{Manifest, ManifestWriter},
    mark::{Mark, MarkFound},
    segment::HEADER_LEN,
};
use crate::{
    error::{Error, Result},
    faults::{Fault, Faults},
    fs::{Fs, RealFs, WritableFile},
};

const DB: u64 = 77;

/// A directory with manifest 3, whose payloads are `edits`, and its bytes.
fn written(edits: &[&[u8]]) -> (tempfile::TempDir, PathBuf, Vec<u8>, u64) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut writer =
        ManifestWriter::create(&RealFs, dir.path(), 3, DB, 1, Faults::default()).expect("created");
    for edit in edits {
        writer.append(edit).expect("appended");
    }
    let path = dir.path().join("MANIFEST-000003");
    let bytes = RealFs.read(&path).expect("readable");
    assert_eq!(writer.synced(), bytes.len() as u64);
    (dir, path, bytes, writer.synced())
}

fn mark(manifest: u64, manifest_offset: u64) -> Vec<u8> {
    let mark = Mark {
        db: DB,
        manifest,
        manifest_offset,
        ..Mark::default()
    };
    mark.encode().to_vec()
}

/// Payloads and dropped bytes.
fn read(bytes: &[u8], mark: Option<&[u8]>) -> Result<(Vec<Vec<u8>>, u64)> {
    let path = Path::new("MANIFEST-000003");
    let manifest = Manifest::read(path, bytes, 3, mark, Faults::default())?;
    assert_eq!(manifest.db, DB);
    let payloads = manifest.payloads().map(|(_, bytes)| bytes.to_vec());
    Ok((payloads.collect(), manifest.dropped_bytes))
}

#[test]
fn the_format_version_tells_whether_there_are_append_families() {
    for format in [1, 2, 3] {
        let dir = tempfile::tempdir().expect("a directory");
        let faults = Faults::default();
        let mut writer =
            ManifestWriter::create(&RealFs, dir.path(), 3, DB, format, faults).expect("created");
        writer.append(b"state").expect("appended");
        let path = dir.path().join("MANIFEST-000003");
        let bytes = RealFs.read(&path).expect("readable");
        assert_eq!(bytes[12], u8::try_from(format).unwrap());
        let manifest = Manifest::read(&path, &bytes, 3, None, faults).expect("good");
        assert_eq!(manifest.format, format);
    }
}

#[test]
fn edits_come_back_in_order_with_their_offsets() {
    let (_dir, path, bytes, _) = written(&[b"state", b"", b"edit"]);
    let manifest = Manifest::read(&path, &bytes, 3, None, Faults::default()).expect("whole");
    let first = HEADER_LEN as u64 + 32;
    let offsets: Vec<u64> = manifest.payloads().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, [first, first + 5 + 32, first + 5 + 32 + 32]);
    assert_eq!(manifest.mark, MarkFound::Absent);
    let (payloads, dropped) = read(&bytes, None).expect("whole");
    assert_eq!(payloads, [&b"state"[..], b"", b"edit"]);
    assert_eq!(dropped, 0);
}

#[test]
fn every_flipped_bit_of_an_acknowledged_manifest_is_noticed() {
    let (_dir, _, good, synced) = written(&[b"state", b"edit one", b"edit two"]);
    let mark = mark(3, synced);
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let error = read(&bytes, Some(&mark)).expect_err("damaged");
        assert!(error.is_corruption(), "bit {bit}: {error}");
        // Without the mark, the last edit alone can pass for one that was never acknowledged.
        if let Ok((payloads, dropped)) = read(&bytes, None) {
            assert_eq!((payloads.len(), dropped), (2, 40), "bit {bit}");
        }
    }
}

#[test]
fn every_cut_of_a_manifest_is_noticed_or_drops_an_edit_that_never_counted() {
    let (_dir, _, good, synced) = written(&[b"state", b"edit one", b"edit two"]);
    let acknowledged = mark(3, synced - 40);
    let last = good.len() - 40;
    for len in 0..good.len() {
        match read(&good[..len], Some(&acknowledged)) {
            Ok((payloads, dropped)) => {
                assert!(len >= last, "cut to {len}");
                assert_eq!((payloads.len(), dropped), (2, (len - last) as u64));
            }
            Err(error) => assert!(error.is_corruption() && len < last, "cut to {len}: {error}"),
        }
    }
}

#[test]
fn a_manifest_that_is_not_the_one_asked_for_is_refused() {
    let (_dir, path, bytes, _) = written(&[b"state"]);
    let other = Manifest::read(&path, &bytes, 4, None, Faults::default());
    assert!(other.expect_err("another number").is_corruption());
    let newer = read(&bytes, Some(&mark(5, 100)));
    assert!(
        newer
            .expect_err("CURRENT is older than the mark")
            .is_corruption()
    );
    assert!(
        read(&bytes, Some(&mark(2, 9999))).is_ok(),
        "the mark is older than CURRENT"
    );
}

#[test]
fn a_manifest_without_its_first_record_is_corruption_and_cut_below_synced_opens_a_damaged_one() {
    let (_dir, path, bytes, synced) = written(&[b"state", b"edit"]);
    assert!(
        read(&bytes[..HEADER_LEN], None)
            .expect_err("no state")
            .is_corruption()
    );
    let faults = Faults(Fault::CutBelowSynced);
    let cut = &bytes[..bytes.len() - 1];
    let manifest = Manifest::read(&path, cut, 3, Some(&mark(3, synced)), faults).expect("fault");
    assert_eq!(manifest.payloads().count(), 1);
}

/// A file that counts its syncs and fails the one with number `fail_at`.
#[derive(Debug)]
struct Failing {
    syncs: Arc<AtomicUsize>,
    fail_at: usize,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl WritableFile for Failing {
    fn append(&mut self, data: &[u8]) -> io::Result<()> {
        self.bytes
            .lock()
            .expect("not poisoned")
            .extend_from_slice(data);
        Ok(())
    }
    fn sync(&mut self) -> io::Result<()> {
        let at = self.syncs.fetch_add(1, Ordering::Relaxed);
        if at == self.fail_at {
            Err(io::Error::other("worn out"))
        } else {
            Ok(())
        }
    }
}

fn failing_writer(fail_at: usize, fault: Fault) -> (ManifestWriter, Arc<AtomicUsize>) {
    let syncs = Arc::new(AtomicUsize::new(0));
    let file = Failing {
        syncs: syncs.clone(),
        fail_at,
        bytes: Arc::default(),
    };
    let path = Path::new("MANIFEST-000003");
    let writer = ManifestWriter::over(Box::new(file), path, 3, DB, 1, Faults(fault));
    (writer.expect("header written"), syncs)
}

#[test]
fn after_a_failed_sync_a_manifest_takes_no_further_edit() {
    let (mut writer, syncs) = failing_writer(1, Fault::None);
    writer.append(b"state").expect("first sync is good");
    let synced = writer.synced();
    for _ in 0..2 {
        let error = writer.append(b"edit").expect_err("failed");
        assert!(matches!(error, Error::Io { op: "sync", .. }), "{error}");
    }
    assert_eq!(
        syncs.load(Ordering::Relaxed),
        2,
        "the file is not synced again"
    );
    assert_eq!(writer.synced(), synced);
}

#[test]
fn the_planted_faults_skip_the_first_sync_or_its_failure() {
    let (mut writer, syncs) = failing_writer(0, Fault::UnsyncedManifest);
    writer.append(b"state").expect("not synced");
    assert_eq!(syncs.load(Ordering::Relaxed), 0);
    let (mut writer, syncs) = failing_writer(0, Fault::IgnoreSyncError);
    writer.append(b"state").expect("error ignored");
    assert_eq!(syncs.load(Ordering::Relaxed), 1);
}

#[test]
fn current_is_replaced_whole_and_anything_else_there_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let read = || current::read(&RealFs, dir.path());
    assert_eq!(read().expect("nothing there"), None);
    for number in [3, 1_000_000] {
        current::write(&RealFs, dir.path(), number).expect("written");
        assert_eq!(read().expect("ours"), Some(number));
    }
    assert_eq!(RealFs.list_dir(dir.path()).expect("listed"), ["CURRENT"]);
    std::fs::write(dir.path().join("CURRENT"), "MANIFEST-000005\n").expect("written");
    assert!(matches!(read(), Err(Error::NotADatabase { .. })));
    std::fs::write(dir.path().join("CURRENT"), "").expect("written");
    assert!(read().expect_err("empty").is_corruption());
}

#[test]
fn a_directorys_segments_are_found_by_name_and_read() {
    let dir = tempfile::tempdir().expect("a directory");
    for (name, len) in [
        ("000007.log", 100),
        ("000009.log", 3),
        ("000008.sst", 5),
        ("x.log", 1),
    ] {
        std::fs::write(dir.path().join(name), vec![len; usize::from(len)]).expect("written");
    }
    let source = DirSegments {
        fs: &RealFs,
        dir: dir.path(),
    };
    let mut numbers = source.numbers().expect("listed");
    numbers.sort_unstable();
    assert_eq!(numbers, [7, 9]);
    assert_eq!(source.head(7).expect("read"), [100; HEADER_LEN]);
    assert_eq!(source.head(9).expect("read"), [3; 3]);
    assert_eq!(source.bytes(7).expect("read"), [100; 100]);
    assert_eq!(source.path(9), dir.path().join("000009.log"));
    assert!(matches!(source.bytes(8), Err(Error::Io { op: "read", .. })));
}
