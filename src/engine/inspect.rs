//! `inspect`: what a single file of a database says, whatever state it is in.
//!
//! A file is known by its magic, not by its name: log segments, manifests, the mark, `CURRENT`, tables, value files and
//! `BACKUP-` files, also copies of them in a directory of backups. Nothing beside the file is looked at, so nothing is said
//! of what only the whole directory knows: which files are needed, and whether the end of a log is torn or damaged
//! ([`verify_dir`](crate::verify_dir)).
//!
//! Promises: any bytes are answered, without a panic and without more memory than a few times the file's; what is told was
//! under a right checksum; where reading ended is said by its offset.

use std::path::Path;

use crate::{
    backup::describe_backup_file,
    error::{Error, Result},
    fs::{Fs, ReadMode},
    wal::{current, segment::SegmentKind},
};

mod log;
mod rows;

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FileType {
    /// A segment of the write-ahead log; the store of append families, too.
    LogSegment,
    /// A manifest: which tables there are.
    Manifest,
    /// The mark: the last acknowledged positions.
    Mark,
    /// `CURRENT`: which manifest is in use.
    Current,
    /// A sorted table.
    Table,
    /// A file of large values.
    ValueFile,
    /// A `BACKUP-` file.
    Backup,
    /// None of them.
    Unknown,
}

impl FileType {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::LogSegment => "log segment",
            Self::Manifest => "manifest",
            Self::Mark => "mark",
            Self::Current => "current",
            Self::Table => "table",
            Self::ValueFile => "value file",
            Self::Backup => "backup",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing that a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// A number.
    Number(u64),
    /// A random id; shown as hex digits.
    Id(u64),
    /// Words.
    Text(String),
    /// A key or a value.
    Bytes(Vec<u8>),
}

/// Things that a file says, by name.
pub type Facts = Vec<(&'static str, Fact)>;

/// A record of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InspectedRecord {
    /// Where it begins in the file; of rows of a table, where in their order (from 0).
    pub at: u64,
    /// What it says.
    pub facts: Facts,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Inspection {
    /// What it is.
    pub file_type: FileType,
    /// Bytes of the file.
    pub bytes: u64,
    /// Its header, properties and counts, in the order in which they stand.
    pub facts: Facts,
    /// The first of its records, as many as were asked for.
    pub records: Vec<InspectedRecord>,
    /// Records that were read, those of `records` among them.
    pub record_count: u64,
    /// Where reading ended before the end of the file, and why; `None` where all of it was read.
    pub broken: Option<(u64, String)>,
}

/// How much is told.
#[derive(Clone, Copy, Debug)]
pub struct InspectOptions {
    /// Most records (default 0).
    pub records: usize,
    /// Most bytes of each value (default 64); keys are told whole.
    pub value_bytes: usize,
}

impl Default for InspectOptions {
    fn default() -> Self {
        Self {
            records: 0,
            value_bytes: 64,
        }
    }
}

/// An inspection that goes on.
struct Gathered {
    inspection: Inspection,
    options: InspectOptions,
}

impl Gathered {
    fn new(file_type: FileType, bytes: u64, options: InspectOptions) -> Self {
        Self {
            inspection: Inspection {
                file_type,
                bytes,
                facts: Vec::new(),
                records: Vec::new(),
                record_count: 0,
                broken: None,
            },
            options,
        }
    }

    fn number(&mut self, name: &'static str, value: u64) {
        self.inspection.facts.push((name, Fact::Number(value)));
    }

    fn id(&mut self, name: &'static str, value: u64) {
        self.inspection.facts.push((name, Fact::Id(value)));
    }

    fn text(&mut self, name: &'static str, value: impl Into<String>) {
        self.inspection.facts.push((name, Fact::Text(value.into())));
    }

    fn bytes(&mut self, name: &'static str, value: &[u8]) {
        self.inspection
            .facts
            .push((name, Fact::Bytes(value.to_vec())));
    }

    /// Counts a record, and keeps it where there is room; `facts` is asked only then.
    fn record(&mut self, at: u64, facts: impl FnOnce(&InspectOptions) -> Facts) {
        self.inspection.record_count += 1;
        if self.inspection.records.len() < self.options.records {
            let facts = facts(&self.options);
            self.inspection.records.push(InspectedRecord { at, facts });
        }
    }

    /// The first break counts.
    fn broken(&mut self, offset: u64, what: impl Into<String>) {
        let broken = &mut self.inspection.broken;
        broken.get_or_insert_with(|| (offset, what.into()));
    }
}

/// The first bytes of a value.
fn shortened(value: &[u8], options: &InspectOptions) -> Fact {
    Fact::Bytes(value[..value.len().min(options.value_bytes)].to_vec())
}

/// Says what the file at `path` holds. All of it is read.
///
/// # Errors
///
/// `Io`; what is wrong with the bytes is in the answer.
pub fn inspect_file(fs: &dyn Fs, path: &Path, options: InspectOptions) -> Result<Inspection> {
    let open = || fs.open(path, ReadMode::Pread);
    let file = open().map_err(|error| Error::io("open", path, error))?;
    let len = file.len();
    let mut head = [0; 16];
    let head_len = head.len().min(usize::try_from(len).unwrap_or(head.len()));
    let head = &mut head[..head_len];
    file.read_at(0, head)
        .map_err(|error| Error::io("read", path, error))?;
    let whole = || {
        fs.read(path)
            .map_err(|error| Error::io("read", path, error))
    };
    let gathered = |kind| Gathered::new(kind, len, options);
    let done = if head.starts_with(SegmentKind::Log.magic()) {
        log::segment(gathered(FileType::LogSegment), &whole()?)
    } else if head.starts_with(SegmentKind::Manifest.magic()) {
        log::manifest(gathered(FileType::Manifest), &whole()?)
    } else if head.starts_with(b"BSLTMRK1") {
        log::mark(gathered(FileType::Mark), &whole()?)
    } else if head.starts_with(b"BSLTBAK1") {
        backup(gathered(FileType::Backup), &whole()?, path)
    } else if head.starts_with(b"BSLTVAL1") {
        rows::values(gathered(FileType::ValueFile), &*file)
    } else if head.starts_with(b"MANIFEST-") && len < 100 {
        let mut gathered = gathered(FileType::Current);
        match current::decode(&whole()?) {
            Some(number) => gathered.number("manifest", number),
            None => gathered.broken(0, "the line fails its checksum"),
        }
        gathered
    } else if rows::is_table(&*file) || path.extension().is_some_and(|ext| ext == "sst") {
        rows::table(gathered(FileType::Table), &*file)
    } else if path.extension().is_some_and(|ext| ext == "log")
        && whole()?.iter().all(|byte| *byte == 0)
    {
        // The next segment is prepared before it is needed.
        let mut gathered = gathered(FileType::LogSegment);
        gathered.text("state", "prepared, nothing was written yet");
        gathered
    } else {
        let mut gathered = gathered(FileType::Unknown);
        gathered.broken(
            0,
            "it begins with no magic of this engine, and does not end as a table",
        );
        gathered
    };
    Ok(done.inspection)
}

fn backup(mut gathered: Gathered, bytes: &[u8], path: &Path) -> Gathered {
    match describe_backup_file(bytes, path) {
        Ok((info, names)) => {
            gathered.number("id", info.id);
            gathered.number("time", info.time);
            gathered.text("description", info.description);
            gathered.number("last_seq", info.seq);
            gathered.number("restored_bytes", info.bytes);
            gathered.number("new_bytes", info.new_bytes);
            gathered.number("tables", info.tables);
            gathered.number("value_files", info.value_files);
            gathered.number("log_segments", info.log_segments);
            gathered.text("families", info.families.join(", "));
            for (at, (name, len)) in (0..).zip(names) {
                gathered.record(at, |_| {
                    vec![("file", Fact::Text(name)), ("bytes", Fact::Number(len))]
                });
            }
        }
        Err(Error::Corruption { what, .. } | Error::NotADatabase { what, .. }) => {
            gathered.broken(0, what);
        }
        Err(error) => gathered.broken(0, error.to_string()),
    }
    gathered
}
