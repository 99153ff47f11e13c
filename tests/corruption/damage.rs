//! Damage in larger pieces: files removed, lengthened, swapped and older; blocks, records and sectors out of place.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    cases::{Case, Change, Expect, Image, blocks_of, records_of},
    store::{Store, files, kind},
};

const SECTOR: usize = 512;

/// Each file removed.
pub(crate) fn removed(image: &Image<'_>) -> Vec<Case> {
    (0..image.files.len())
        .map(|file| Case::new(image, file, Change::Remove { file }, 0))
        .collect()
}

/// Each file with something behind its end.
pub(crate) fn lengthened(image: &Image<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for file in 0..image.files.len() {
        let old = image.bytes(file);
        let start = &old[..old.len().min(200)];
        for (what, tail) in [
            ("a zero", &[0][..]),
            ("a newline", b"\n"),
            ("64 times 0xff", &[0xff; 64]),
            ("a sector of zeros", &[0; SECTOR]),
            ("its own beginning", start),
            ("its own content", old),
        ] {
            let bytes = [old, tail].concat();
            let mut case = Case::put(image, file, bytes, format!("with {what} behind it"));
            // Behind the last edit that counts, a torn one may stand.
            if matches!(image.kind(file), "MANIFEST" | "log") {
                case.expect = Expect::NoEffect;
            }
            cases.push(case);
        }
    }
    cases
}

/// Each two files with each other's content, and each with a copy of the other's.
pub(crate) fn swapped(image: &Image<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for a in 0..image.files.len() {
        for b in (0..image.files.len()).filter(|&b| b != a) {
            let bytes = image.bytes(b).to_vec();
            let why = format!("with the content of {}", image.path(b).display());
            let over = Case::put(image, a, bytes, why);
            let back = Case::put(image, b, image.bytes(a).to_vec(), "exchanged".to_owned());
            if a < b {
                let expect = over.expect.max(back.expect);
                cases.push(Case {
                    change: Change::All(vec![over.change.clone(), back.change]),
                    kind: over.kind,
                    expect,
                });
            }
            cases.push(over);
        }
    }
    cases
}

/// Each file as it was at each earlier moment, and files of earlier moments that are gone.
pub(crate) fn older(image: &Image<'_>, store: &Store) -> Vec<Case> {
    let mut cases = Vec::new();
    let mut seen = BTreeSet::new();
    let current = |files: &[(PathBuf, Vec<u8>)]| {
        let file = files.iter().position(|(path, _)| kind(path) == "CURRENT");
        file.expect("there is one")
    };
    let file = current(&image.files);
    for (number, moment) in store.moments.iter().enumerate() {
        // An older CURRENT together with the manifest that it names: only the mark knows better.
        let old = files(moment);
        let (path, bytes) = &old[current(&old)];
        if image.bytes(file) != bytes {
            let mut changes = vec![put(path, bytes, number)];
            let manifests = old.iter().filter(|(path, _)| kind(path) == "MANIFEST");
            changes.extend(manifests.map(|(path, bytes)| put(path, bytes, number)));
            cases.push(Case {
                change: Change::All(changes),
                kind: "CURRENT",
                expect: Expect::Error,
            });
        }
        for (path, bytes) in old {
            if !seen.insert((path.clone(), bytes.clone())) {
                continue;
            }
            let why = format!("as at moment {number}");
            match image.files.iter().position(|(name, _)| *name == path) {
                Some(file) if image.bytes(file) == bytes => {}
                Some(file) => cases.push(Case::put(image, file, bytes, why)),
                // Back from the dead: tables, segments and manifests that nothing names.
                None => cases.push(Case {
                    kind: kind(&path),
                    change: Change::Put { path, bytes, why },
                    expect: Expect::NoEffect,
                }),
            }
        }
    }
    cases
}

fn put(path: &Path, bytes: &[u8], moment: usize) -> Change {
    Change::Put {
        path: path.to_owned(),
        bytes: bytes.to_vec(),
        why: format!("as at moment {moment}"),
    }
}

/// Each block of each table in the place of every other, of the same table and of others; and two exchanged.
pub(crate) fn blocks(image: &Image<'_>) -> Vec<Case> {
    let tables: Vec<usize> = (0..image.files.len())
        .filter(|&file| image.kind(file) == "table")
        .collect();
    let mut all = Vec::new();
    for &file in &tables {
        let bytes = image.bytes(file);
        let mut blocks = blocks_of(bytes);
        blocks.push((bytes.len() - 80, bytes.len()));
        all.extend(blocks.into_iter().map(|place| (file, place)));
    }
    let mut cases = Vec::new();
    for &(file, (start, end)) in &all {
        let old = image.bytes(file);
        for &(from, (first, last)) in &all {
            if (from, first) == (file, start) {
                continue;
            }
            let other = &image.bytes(from)[first..last];
            let why = format!(
                "with block {first}..{last} of {} at {start}..{end}",
                image.path(from).display()
            );
            // In place, as far as it goes: no other byte moves.
            let mut bytes = old.to_vec();
            let len = other.len().min(end - start);
            bytes[start..start + len].copy_from_slice(&other[..len]);
            if bytes != old {
                cases.push(Case::put(image, file, bytes, why.clone()));
            }
            // Exchanged within one table, so that all bytes are there.
            if from == file && start < first {
                let (here, there) = (&old[start..end], &old[first..last]);
                let bytes = [&old[..start], there, &old[end..first], here, &old[last..]].concat();
                cases.push(Case::put(image, file, bytes, format!("{why}, exchanged")));
            }
        }
    }
    cases
}

/// Records of the log and of the manifest left out, repeated, exchanged, and taken from other files.
pub(crate) fn records(image: &Image<'_>) -> Vec<Case> {
    let holders: Vec<usize> = (0..image.files.len())
        .filter(|&file| image.kind(file) == "MANIFEST" || image.live.contains_key(image.path(file)))
        .collect();
    let mut cases = Vec::new();
    for &file in &holders {
        let old = image.bytes(file);
        let places = records_of(image.path(file), old);
        for (number, &(start, end)) in places.iter().enumerate() {
            let (before, record, after) = (&old[..start], &old[start..end], &old[end..]);
            let mut add = |what: &str, bytes: Vec<u8>| {
                let why = format!("with record {number} {what}");
                cases.push(Case::put(image, file, bytes, why));
            };
            add("left out", [before, after].concat());
            add("zeroed", [before, &vec![0; end - start], after].concat());
            if let Some(&(_, next)) = places.get(number + 1) {
                let following = &old[end..next];
                add(
                    "after the next",
                    [before, following, record, &old[next..]].concat(),
                );
                add("twice", [before, record, record, &old[end..]].concat());
                add("over the next", {
                    let mut bytes = [before, record, record].concat();
                    bytes.extend_from_slice(old.get(bytes.len()..).unwrap_or_default());
                    bytes
                });
            }
            // All from here on gone: the end looks as after a crash, but it was durable.
            let mut bytes = old.to_vec();
            bytes[start..].fill(0);
            add("and all behind it zeroed", bytes);
        }
        for &from in holders.iter().filter(|&&from| from != file) {
            let other = image.bytes(from);
            for (first, last) in records_of(image.path(from), other) {
                for &(start, _) in places.iter().step_by(3) {
                    let mut bytes = old.to_vec();
                    let len = (last - first).min(old.len() - start);
                    bytes[start..start + len].copy_from_slice(&other[first..first + len]);
                    let from = image.path(from).display();
                    let why = format!("with the record at {first} of {from} at {start}");
                    cases.push(Case::put(image, file, bytes, why));
                }
            }
        }
    }
    cases
}

/// Each sector of each file zeroed, filled with ones, repeated from the one before, and moved to other files.
pub(crate) fn sectors(image: &Image<'_>) -> Vec<Case> {
    let mut cases = Vec::new();
    for file in 0..image.files.len() {
        let old = image.bytes(file);
        for start in (0..old.len()).step_by(SECTOR) {
            let end = (start + SECTOR).min(old.len());
            let mut fills = vec![("zeroed", vec![0; SECTOR]), ("of ones", vec![0xff; SECTOR])];
            if start > 0 {
                fills.push(("repeated from before", old[start - SECTOR..start].to_vec()));
            }
            for other in (0..image.files.len()).filter(|&other| other != file) {
                if let Some(sector) = image.bytes(other).get(start..start + SECTOR) {
                    fills.push(("of another file", sector.to_vec()));
                }
            }
            for (what, fill) in fills {
                let mut bytes = old.to_vec();
                bytes[start..end].copy_from_slice(&fill[..end - start]);
                if bytes != old {
                    let why = format!("with sector {start}..{end} {what}");
                    cases.push(Case::put(image, file, bytes, why));
                }
            }
        }
    }
    cases
}

/// Bytes that do not count (behind the end of a segment, segments prepared or recycled, the reserve), filled with
/// what may confuse: noise, and live records of other places.
pub(crate) fn stale(image: &Image<'_>) -> Vec<Case> {
    let mut records = Vec::new();
    for (path, bytes) in &image.files {
        if image.live.contains_key(path) || kind(path) == "MANIFEST" {
            let places = records_of(path, bytes);
            records.extend(places.into_iter().map(|(start, end)| &bytes[start..end]));
        }
    }
    let mut cases = Vec::new();
    for file in 0..image.files.len() {
        if !matches!(image.kind(file), "log" | "RESERVE") {
            continue;
        }
        let old = image.bytes(file);
        let end = image.live.get(image.path(file)).copied().unwrap_or(0);
        for (number, record) in records.iter().enumerate() {
            for gap in [0, 1, 40] {
                let at = end + gap;
                if at + record.len() <= old.len() {
                    let mut bytes = old.to_vec();
                    bytes[at..at + record.len()].copy_from_slice(record);
                    let why =
                        format!("with record {number} of the store in its stale bytes at {at}");
                    cases.push(Case::put(image, file, bytes, why));
                }
            }
        }
        for (what, fill) in [("zeros", 0), ("ones", 0xff), ("0x01", 1)] {
            let mut bytes = old.to_vec();
            bytes[end..].fill(fill);
            cases.push(Case::put(
                image,
                file,
                bytes,
                format!("stale bytes filled with {what}"),
            ));
        }
    }
    cases
}
