//! What is done to the disk, case by case, and what must come of it.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use basalt_engine::{
    fs::{Fs, SimFs, sim::Survival},
    testing::wal::{decode_header, decode_mark, decode_record},
};

use super::store::{Store, Truth, files, kind};

/// Bytes of the header of a log segment or manifest.
const HEADER: usize = 64;

/// One state of the store, with what is known of its files.
pub(crate) struct Image<'a> {
    pub(crate) name: &'static str,
    pub(crate) disk: Arc<SimFs>,
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    pub(crate) truth: &'a Truth,
    /// How far the bytes of each live log segment count.
    pub(crate) live: BTreeMap<PathBuf, usize>,
}

/// What must come of a case; of several changes at once, the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Expect {
    /// Every answer right, nothing noticed.
    NoEffect,
    /// One of the two.
    Either,
    /// An error that names this file.
    Error,
}

/// One change of the disk.
#[derive(Clone)]
pub(crate) enum Change {
    /// The bits of the mask are flipped in a byte of file number `file`.
    Flip { file: usize, at: usize, mask: u8 },
    /// File number `file` is cut.
    Cut { file: usize, len: usize },
    /// A file has other bytes.
    Put {
        path: PathBuf,
        bytes: Vec<u8>,
        why: String,
    },
    /// A file is gone.
    Remove { file: usize },
    /// Several changes.
    All(Vec<Change>),
}

/// Damage, and what must come of it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) change: Change,
    /// The kind it is counted under.
    pub(crate) kind: &'static str,
    pub(crate) expect: Expect,
}

impl Case {
    /// A change of file number `file` from byte `at` on.
    pub(crate) fn new(image: &Image<'_>, file: usize, change: Change, at: usize) -> Self {
        Self {
            change,
            kind: image.kind(file),
            expect: image.expect_at(file, at),
        }
    }

    /// The same file with other bytes; what must come follows from the first byte that differs.
    pub(crate) fn put(image: &Image<'_>, file: usize, bytes: Vec<u8>, why: String) -> Self {
        let old = image.bytes(file);
        let same = old.iter().zip(&bytes).take_while(|(a, b)| a == b).count();
        let spare = image.kind(file) == "log" && !image.live.contains_key(image.path(file));
        let expect = if old == bytes {
            Expect::NoEffect
        } else if same < HEADER && (spare || image.kind(file) == "MARK") {
            // A live header in a file that is not in use, or a segment for a mark, tells of other hands.
            Expect::Either
        } else {
            image.expect_at(file, same)
        };
        let path = image.path(file).to_owned();
        Self {
            change: Change::Put { path, bytes, why },
            kind: image.kind(file),
            expect,
        }
    }
}

impl<'a> Image<'a> {
    pub(crate) fn new(name: &'static str, disk: &Arc<SimFs>, store: &'a Store) -> Self {
        let files = files(disk);
        let live = live_ends(&files, store.live_segments);
        Self {
            name,
            disk: disk.clone(),
            files,
            truth: &store.truth,
            live,
        }
    }

    pub(crate) fn path(&self, file: usize) -> &Path {
        &self.files[file].0
    }

    pub(crate) fn bytes(&self, file: usize) -> &[u8] {
        &self.files[file].1
    }

    pub(crate) fn kind(&self, file: usize) -> &'static str {
        kind(self.path(file))
    }

    /// Bytes of all files.
    pub(crate) fn total(&self) -> usize {
        self.files.iter().map(|(_, bytes)| bytes.len()).sum()
    }

    /// What must come of damage to the bytes from `at` on (a cut or a flip there).
    pub(crate) fn expect_at(&self, file: usize, at: usize) -> Expect {
        match self.kind(file) {
            "CURRENT" | "MANIFEST" | "table" | "values" => Expect::Error,
            "log" => match self.live.get(self.path(file)) {
                Some(&end) if at < end => Expect::Error,
                _ => Expect::NoEffect,
            },
            // The mark is only a witness, the others have no content.
            "MARK" | "RESERVE" | "LOCK" => Expect::NoEffect,
            other => panic!("no rule for {other}"),
        }
    }

    /// A copy of the disk with the damage done.
    pub(crate) fn damaged(&self, change: &Change) -> Arc<SimFs> {
        let disk = self.disk.crash(Survival::ProcessDeath);
        self.apply(&disk, change);
        disk
    }

    fn apply(&self, disk: &SimFs, change: &Change) {
        let sound = "the file is there";
        match change {
            Change::Flip { file, at, mask } => {
                disk.corrupt(self.path(*file), *at as u64, *mask)
                    .expect(sound);
            }
            Change::Cut { file, len } => {
                disk.truncate(self.path(*file), *len as u64).expect(sound);
            }
            Change::Put { path, bytes, .. } => disk.write_raw(path, bytes).expect(sound),
            Change::Remove { file } => disk.remove_file(self.path(*file)).expect(sound),
            Change::All(changes) => changes.iter().for_each(|change| self.apply(disk, change)),
        }
    }

    /// The file a change is about, when it is one.
    pub(crate) fn target(&self, change: &'a Change) -> Option<&Path> {
        match change {
            Change::Flip { file, .. } | Change::Cut { file, .. } | Change::Remove { file } => {
                Some(self.path(*file))
            }
            Change::Put { path, .. } => Some(path),
            Change::All(_) => None,
        }
    }

    pub(crate) fn spell(&self, change: &Change) -> String {
        Spelled(self, change).to_string()
    }
}

struct Spelled<'a>(&'a Image<'a>, &'a Change);

impl fmt::Display for Spelled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(image, change) = *self;
        match change {
            Change::Flip { file, at, mask } => {
                write!(
                    f,
                    "{} byte {at} xor {mask:#04x}",
                    image.path(*file).display()
                )
            }
            Change::Cut { file, len } => {
                write!(f, "{} cut to {len} bytes", image.path(*file).display())
            }
            Change::Put { path, why, .. } => write!(f, "{} {why}", path.display()),
            Change::Remove { file } => write!(f, "{} removed", image.path(*file).display()),
            Change::All(changes) => changes
                .iter()
                .try_for_each(|change| write!(f, "{}; ", Spelled(image, change))),
        }
    }
}

/// Number of a log segment or manifest, from its name.
fn number(path: &Path) -> u64 {
    let digits: String = path
        .file_name()
        .map_or("", |name| name.to_str().expect("text"))
        .chars()
        .filter(char::is_ascii_digit)
        .collect();
    digits.parse().expect("the name has a number")
}

/// The `count` live segments, each with the offset behind its last byte that counts: from the newest good header
/// down, as FORMAT.md 3.4 says.
fn live_ends(files: &[(PathBuf, Vec<u8>)], count: usize) -> BTreeMap<PathBuf, usize> {
    let by_kind = |wanted| files.iter().filter(move |(path, _)| kind(path) == wanted);
    let (_, mark) = by_kind("MARK").next().expect("every store has a mark");
    let db = decode_mark(mark).expect("written").db;
    let mut headers = BTreeMap::new();
    for (path, bytes) in by_kind("log") {
        if let Some(header) = decode_header(bytes, false)
            && header.db == db
            && header.number == number(path)
        {
            headers.insert(header.number, (header, path, bytes));
        }
    }
    let mut ends = BTreeMap::new();
    let mut next_base = None;
    let (mut at, _) = headers.last_key_value().expect("there is a segment");
    for _ in 0..count {
        let (header, path, bytes) = &headers[at];
        let end = match next_base {
            Some(base) => usize::try_from(base - header.base).expect("a small store") + HEADER,
            None => records(db, header.number, bytes)
                .last()
                .map_or(HEADER, |r| r.1),
        };
        ends.insert((*path).clone(), end);
        next_base = Some(header.base);
        at = &header.previous;
    }
    ends
}

/// Places of the records from the start of a segment or manifest on, as far as they are good.
pub(crate) fn records(db: u64, number: u64, bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut places = Vec::new();
    let mut at = HEADER;
    while let Some(record) = decode_record(db, number, at, bytes) {
        let end = at + 32 + record.payload.len();
        places.push((at, end));
        at = end;
    }
    places
}

/// Places of the records of a segment or manifest by what its own header says.
pub(crate) fn records_of(path: &Path, bytes: &[u8]) -> Vec<(usize, usize)> {
    match decode_header(bytes, kind(path) == "MANIFEST") {
        Some(header) => records(header.db, header.number, bytes),
        None => Vec::new(),
    }
}

/// Places of the blocks of a table, with their trailers (FORMAT.md 4.5 and 4.7).
pub(crate) fn blocks_of(bytes: &[u8]) -> Vec<(usize, usize)> {
    let footer = &bytes[bytes.len() - 80..];
    let word = |at: usize| {
        let word: [u8; 8] = footer[at..at + 8].try_into().expect("eight bytes");
        usize::try_from(u64::from_le_bytes(word)).expect("a small store")
    };
    let mut blocks = Vec::new();
    let index = &bytes[word(8)..word(8) + word(16)];
    let count_at = index.len() - 4;
    let word32 = |at: usize| {
        let word: [u8; 4] = index[at..at + 4].try_into().expect("four bytes");
        usize::try_from(u32::from_le_bytes(word)).expect("a small store")
    };
    let count = word32(count_at);
    for entry in 0..count {
        let mut at = word32(count_at - 4 * (count - entry));
        let len = varint(index, &mut at);
        at += len;
        varint(index, &mut at);
        let offset = varint(index, &mut at);
        blocks.push((offset, offset + varint(index, &mut at) + 5));
    }
    for at in [8, 24, 40] {
        if word(at + 8) > 0 {
            blocks.push((word(at), word(at) + word(at + 8) + 5));
        }
    }
    blocks.push((word(56), bytes.len() - 80));
    blocks
}

fn varint(bytes: &[u8], at: &mut usize) -> usize {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
