//! Repair: a damaged directory becomes a database again, of everything in it that can be read (docs/adr/0014).
//!
//! ```text
//! look      verify; sound: nothing is done
//! plan      manifest past its damage, tables block by block, log across its holes; nothing is changed
//! act       damaged files get a second name in lost/ -> new tables, log, manifest, CURRENT, MARK -> old names go
//! ```
//! Promises: what verifies is left alone; nothing readable is dropped, and nothing is deleted: what is not kept is in `lost/`;
//! a crash at any point leaves what a repair can begin with again, or the repaired database. What cannot be told is said.

use std::{collections::BTreeMap, fmt, path::Path};

use crate::{
    batch::FamilyId,
    error::{Error, Result},
    filename::{self, FileKind},
    fs::Fs,
    key::SequenceNumber,
    options::{CfOptions, LEVELS, Options},
    progress::Pacing,
    recovery,
    verify::verify_unlocked,
    version::{LogStart, TableRecord},
};

mod act;
mod log;
mod plan;
mod state;
mod values;

use act::act;
use plan::Planner;
use values::KnownValues;

/// Name of the folder, below the database's, that what is put aside goes to.
pub const LOST: &str = "lost";

/// How a directory is repaired.
#[derive(Clone, Debug, Default)]
pub struct RepairOptions {
    /// Only find out what would be done (default false).
    pub dry_run: bool,
    /// The one family that tables belong to of which no manifest that can be read tells (default `None`: they are put aside).
    /// All of its tables are then merged by sequence number; rows may show again that were deleted before the newest of them.
    pub family_of_strays: Option<String>,
    /// Whom to tell, and how fast it may go: bytes read.
    pub pacing: Pacing,
}

/// What becomes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fate {
    /// It stays as it is.
    Kept,
    /// What can be read of it is written anew, and it goes to `lost/`: `good` of `of` blocks or records (`None`: nobody knows of
    /// how many).
    Salvaged {
        /// Blocks or records that check.
        good: u64,
        /// How many there are.
        of: Option<u64>,
    },
    /// It goes to `lost/`.
    PutAside {
        /// Why.
        why: String,
    },
    /// It should be there and is not.
    Missing,
}

/// A file and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReport {
    /// Its name in the directory.
    pub name: String,
    /// What becomes of it.
    pub fate: Fate,
}

/// What a repair did, or would do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RepairReport {
    /// The database is sound: nothing was done.
    pub sound: bool,
    /// The files that make the database, or did, in order of their names.
    pub files: Vec<FileReport>,
    /// What is lost for certain, or cannot be told.
    pub doubts: Vec<String>,
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match &self.fate {
            Fate::Kept => write!(f, "{name}: kept"),
            Fate::Salvaged { good, of: Some(of) } => write!(f, "{name}: {good} of {of} parts kept"),
            Fate::Salvaged { good, of: None } => write!(f, "{name}: {good} parts kept"),
            Fate::PutAside { why } => write!(f, "{name}: put aside ({why})"),
            Fate::Missing => write!(f, "{name}: missing"),
        }
    }
}

impl fmt::Display for RepairReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.sound {
            return write!(f, "sound");
        }
        for file in &self.files {
            writeln!(f, "{file}")?;
        }
        for doubt in &self.doubts {
            writeln!(f, "note: {doubt}")?;
        }
        Ok(())
    }
}

/// Repairs the closed database in `path`; with `dry_run` only says how. A database that verifies is left as it is, byte for
/// byte. Everything in the report's plan is durable when this returns.
///
/// # Errors
///
/// `Locked` while it is open or read; `NotADatabase` where there are no files of one, of a format version that is not known, or a
/// restore was not finished; `InvalidArgument` for a `family_of_strays` that takes no tables; `Cancelled`, `Io`.
pub fn repair_dir(
    path: impl AsRef<Path>,
    options: &Options,
    repair: &RepairOptions,
) -> Result<RepairReport> {
    let (fs, dir) = (&*options.fs, path.as_ref());
    fs.list_dir(dir)
        .map_err(|e| Error::io("open directory", dir, e))?;
    // A plan changes nothing, not even the lock's file.
    let (mut shared, mut exclusive) = (None, None);
    if repair.dry_run {
        shared = recovery::share_directory(fs, dir)?;
    } else {
        exclusive = Some(recovery::lock_directory(fs, dir)?);
    }
    recovery::check_restored(fs, dir)?;
    match verify_unlocked(dir, options, &repair.pacing) {
        Ok(report) if report.damage.is_empty() => {
            return Ok(RepairReport {
                sound: true,
                ..RepairReport::default()
            });
        }
        // What the device does not give is damage too; what is wrong with the directory shows again.
        Ok(_) | Err(Error::Io { .. }) => {}
        Err(Error::NotADatabase { path, what }) => {
            // Without CURRENT it may be one all the same.
            let has_current = fs.file_len(&dir.join(filename::CURRENT)).is_ok();
            if has_current || !has_data(fs, dir)? {
                return Err(Error::NotADatabase { path, what });
            }
        }
        Err(error) => return Err(error),
    }
    let plan = Plan::make(dir, options, repair)?;
    if !repair.dry_run {
        act(dir, options, repair, &plan)?;
    }
    drop((shared.take(), exclusive.take()));
    Ok(plan.report)
}

/// Bytes that are read at a time where a device gives some and not others.
const SECTOR: usize = 4096;

/// All bytes of a file; zeros for those that the device does not give.
fn read_past(fs: &dyn Fs, path: &Path) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path, error);
    match fs.read(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {}
        read => return read.map_err(failed),
    }
    let file = fs.open(path, crate::fs::ReadMode::Pread).map_err(failed)?;
    let len =
        usize::try_from(file.len()).map_err(|_| failed(std::io::ErrorKind::OutOfMemory.into()))?;
    let mut bytes = vec![0; len];
    for (number, sector) in (0_u64..).zip(bytes.chunks_mut(SECTOR)) {
        if file.read_at(number * SECTOR as u64, sector).is_err() {
            sector.fill(0);
        }
    }
    Ok(bytes)
}

fn has_data(fs: &dyn Fs, dir: &Path) -> Result<bool> {
    let names = fs
        .list_dir(dir)
        .map_err(|e| Error::io("list directory", dir, e))?;
    Ok(names.iter().any(|name| {
        matches!(
            filename::parse(name),
            Some(
                FileKind::Manifest(_) | FileKind::Log(_) | FileKind::Table(_) | FileKind::Values(_)
            )
        )
    }))
}

/// What is to be done with the tables of a family.
struct FamilyPlan {
    name: String,
    options: CfOptions,
    flushed: SequenceNumber,
    tables: Vec<TablePlan>,
    /// All its tables become one.
    merge: bool,
}

struct TablePlan {
    level: usize,
    record: TableRecord,
    /// It is written anew.
    rewrite: bool,
}

/// What is to be done with the log.
enum LogPlan {
    /// It is sound, from here on.
    Keep(LogStart),
    Rewrite {
        log: log::SalvagedLog,
        broken: Vec<log::Broken>,
    },
}

struct Plan {
    db: u64,
    next_file_number: u64,
    next_family_id: FamilyId,
    last_seq: u64,
    /// Least format version of the manifest.
    format: u32,
    families: BTreeMap<FamilyId, FamilyPlan>,
    values: KnownValues,
    log: LogPlan,
    /// Names of files that go to `lost/`.
    aside: Vec<String>,
    /// The mark is no mark, or belongs to a log that is written anew.
    new_mark: bool,
    report: RepairReport,
}

/// The level of a table of which no manifest tells.
const STRAY: usize = LEVELS;

fn table_name(number: u64) -> String {
    name_of(&filename::table(Path::new(""), number))
}

fn values_name(number: u64) -> String {
    name_of(&filename::values(Path::new(""), number))
}

fn log_name(number: u64) -> String {
    name_of(&filename::log(Path::new(""), number))
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
