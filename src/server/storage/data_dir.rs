//! The data directory of a server: what may be in it, and the file that states its mode.
//!
//! ```text
//! DIR/MODE       text, a fact a line; written by rename (FORMAT.md, section 7)
//! DIR/MEMBERS    text: the stores that a replicated store knows (`replicated::directory`)
//! DIR/kv/        an engine's directory: user data
//! DIR/raft/      an engine's directory: Raft logs; of a replicated store only
//! DIR/snap/      snapshots on their way; of a replicated store only
//! ```
//! Promises: a directory that holds anything else than a Basalt store is refused, never written to;
//! a crash at any moment of the first start leaves a directory that the next start takes; a
//! directory of one mode is never used in the other.
//!
//! Not here: who may use the directory at a time; the engine's lock on `kv/` decides that.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::replicated::checksum;

/// Name of the file that states the mode.
const MODE_FILE: &str = "MODE";
/// Name of the file of known stores.
const MEMBERS_FILE: &str = "MEMBERS";
/// Name of the directory of the engine of user data.
const KV_DIR: &str = "kv";
/// Name of the directory of the engine of Raft logs.
const RAFT_DIR: &str = "raft";
/// Name of the directory of snapshots.
const SNAP_DIR: &str = "snap";
/// Version of the layout of a data directory.
const FORMAT: u32 = 1;
const STANDALONE: &str = "standalone";
const REPLICATED: &str = "replicated";
/// A mode file is a few short lines; anything longer is not one.
const MODE_FILE_MAX_LEN: u64 = 4096;

/// Bytes of the longest name of a cluster.
pub const MAX_CLUSTER_NAME_LEN: usize = 64;

/// How far a replicated store has come in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A founder that has not yet exchanged incarnations with every other one: it has never voted.
    Forming,
    /// It has joined a cluster and was given nothing yet.
    Joining,
    /// It may have voted: its two engines hold promises.
    Serving,
    /// It was removed from its cluster for good.
    Removed,
}

const PHASES: [(Phase, &str); 4] = [
    (Phase::Forming, "forming"),
    (Phase::Joining, "joining"),
    (Phase::Serving, "serving"),
    (Phase::Removed, "removed"),
];

/// Who a replicated store is. Everything but the phase and the addresses stays as it is for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster_id: u64,
    /// What its founders have called it.
    pub cluster_name: String,
    /// The store; not 0.
    pub store_id: u64,
    /// Drawn when the directory was formatted; not 0.
    pub incarnation: u64,
    /// How far it has come.
    pub phase: Phase,
    /// Where it listened last, so that a restart needs no flags.
    pub addr: String,
    /// Where its status pages were last.
    pub status_addr: String,
}

/// What a data directory states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// One engine on one machine.
    Standalone,
    /// One store of a cluster.
    Replicated(Identity),
}

/// Where the parts of a data directory are.
#[derive(Clone, Debug)]
pub struct Layout(PathBuf);

impl Layout {
    /// Those of `dir`.
    #[must_use]
    pub fn of(dir: &Path) -> Self {
        Self(dir.to_path_buf())
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The engine of user data.
    #[must_use]
    pub fn kv(&self) -> PathBuf {
        self.0.join(KV_DIR)
    }

    /// The engine of Raft logs.
    #[must_use]
    pub fn raft(&self) -> PathBuf {
        self.0.join(RAFT_DIR)
    }

    /// Snapshots on their way.
    #[must_use]
    pub fn snap(&self) -> PathBuf {
        self.0.join(SNAP_DIR)
    }

    /// The file of known stores.
    #[must_use]
    pub fn members(&self) -> PathBuf {
        self.0.join(MEMBERS_FILE)
    }
}

/// Checks `dir`, makes it a standalone data directory when it is missing or empty, and answers the
/// path of the engine's directory.
///
/// # Errors
///
/// One sentence for the user: the directory cannot be read or written, or it holds something else.
pub fn prepare(dir: &Path) -> Result<PathBuf, String> {
    create(dir)?;
    match read_mode(dir)? {
        Some(Mode::Standalone) => {}
        Some(Mode::Replicated(identity)) => {
            return Err(format!(
                "{} holds store {} of a replicated cluster, no standalone store",
                dir.display(),
                identity.store_id
            ));
        }
        None => {
            refuse_foreign(dir)?;
            write_mode(dir, &Mode::Standalone)?;
        }
    }
    Ok(Layout::of(dir).kv())
}

/// Creates `dir` where it is missing, and checks that it is free to become a data directory.
///
/// # Errors
///
/// One sentence: it cannot be created or read, or it holds something.
pub fn claim(dir: &Path) -> Result<(), String> {
    create(dir)?;
    refuse_foreign(dir)
}

fn create(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    fs::create_dir_all(dir)
        .map_err(|error| format!("cannot create the data directory {shown}: {error}"))
}

/// The engines' directories of a path given by the user: those of a data directory, else the path
/// itself, which may be an engine's directory.
///
/// # Errors
///
/// One sentence when `dir` cannot be read, is neither, or states a mode unknown here.
pub fn locate(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let listing = fs::read_dir(dir);
    listing.map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    let layout = Layout::of(dir);
    match read_mode(dir)? {
        Some(Mode::Standalone) => return Ok(vec![layout.kv()]),
        Some(Mode::Replicated(_)) => return Ok(vec![layout.kv(), layout.raft()]),
        None => {}
    }
    // A look only: opening an engine would leave its lock file in a stranger's directory.
    if !dir.join("CURRENT").exists() {
        return Err(format!(
            "{} is no data directory and no engine's directory: it holds neither {MODE_FILE} nor CURRENT",
            dir.display()
        ));
    }
    Ok(vec![dir.to_path_buf()])
}

/// What `dir` states; `None` when it is missing or has no mode file.
///
/// # Errors
///
/// One sentence when the file cannot be read, is none of ours, or states what is unknown here.
pub fn read_mode(dir: &Path) -> Result<Option<Mode>, String> {
    let path = dir.join(MODE_FILE);
    let shown = path.display();
    let text = match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
        Ok(metadata) if !metadata.is_file() || metadata.len() > MODE_FILE_MAX_LEN => String::new(),
        Ok(_) => fs::read(&path)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .map_err(|error| format!("cannot read {shown}: {error}"))?,
    };
    let foreign = || {
        format!(
            "{} is not a Basalt data directory: its {MODE_FILE} file is not one of Basalt's",
            dir.display()
        )
    };
    let mut lines = text.lines();
    let format = lines.next().and_then(|line| line.strip_prefix("format "));
    let mode = lines.next().and_then(|line| line.strip_prefix("mode "));
    let (Some(format), Some(mode)) = (format, mode) else {
        return Err(foreign());
    };
    if format != FORMAT.to_string() {
        return Err(format!(
            "{} has directory format {format}, this version knows format {FORMAT} only",
            dir.display()
        ));
    }
    let rest: Vec<&str> = lines.collect();
    match mode {
        STANDALONE if rest.is_empty() => Ok(Some(Mode::Standalone)),
        REPLICATED => {
            let damaged = || format!("{shown} is damaged");
            let (check, rest) = rest.split_last().ok_or_else(damaged)?;
            let body = text
                .strip_suffix(&format!("{check}\n"))
                .ok_or_else(damaged)?;
            let sum = check.strip_prefix("check ").and_then(parse_hex);
            if sum != Some(checksum(body.as_bytes())) {
                return Err(damaged());
            }
            let identity = parse_identity(rest).ok_or_else(damaged)?;
            Ok(Some(Mode::Replicated(identity)))
        }
        STANDALONE => Err(foreign()),
        _ => Err(format!(
            "{} holds a {mode} store, this version serves {STANDALONE} and {REPLICATED} stores only",
            dir.display()
        )),
    }
}

/// The names of an identity's lines, in their order; behind them comes the check of the whole file.
const LINES: [&str; 7] = [
    "cluster",
    "name",
    "store",
    "incarnation",
    "phase",
    "addr",
    "status-addr",
];

fn parse_identity(lines: &[&str]) -> Option<Identity> {
    let lines: &[&str; LINES.len()] = lines.try_into().ok()?;
    let mut values = [""; LINES.len()];
    for ((value, line), name) in values.iter_mut().zip(lines).zip(LINES) {
        *value = line.strip_prefix(name)?.strip_prefix(' ')?;
    }
    let [cluster, name, store, incarnation, phase, addr, status_addr] = values;
    let identity = Identity {
        cluster_id: parse_hex(cluster)?,
        cluster_name: name.to_owned(),
        store_id: store.parse().ok()?,
        incarnation: parse_hex(incarnation)?,
        phase: PHASES.iter().find(|(_, word)| *word == phase)?.0,
        addr: addr.to_owned(),
        status_addr: status_addr.to_owned(),
    };
    let is_whole = identity.store_id != 0 && identity.incarnation != 0;
    is_whole.then_some(identity)
}

/// A number as sixteen hex digits, which is how ids that nobody types are written.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    let is_plain = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| is_plain)
}

/// An error when a directory without a mode file holds anything that a first start does not leave.
fn refuse_foreign(dir: &Path) -> Result<(), String> {
    let unreadable =
        |error: io::Error| format!("cannot read the data directory {}: {error}", dir.display());
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        let left_by_us = name == MEMBERS_FILE
            || (name.ends_with(".tmp")
                && [MODE_FILE, MEMBERS_FILE]
                    .iter()
                    .any(|ours| name.starts_with(ours)));
        // The root of a fresh ext4 file system is an empty directory to its user.
        if !left_by_us && name != "lost+found" {
            return Err(format!(
                "{} is not a Basalt data directory: it has no {MODE_FILE} file but holds {name:?}",
                dir.display()
            ));
        }
    }
    Ok(())
}

/// Writes the mode file of `dir`.
///
/// # Errors
///
/// One sentence when the directory cannot be written.
pub fn write_mode(dir: &Path, mode: &Mode) -> Result<(), String> {
    let mut text = format!("format {FORMAT}\n");
    match mode {
        Mode::Standalone => text.push_str("mode standalone\n"),
        Mode::Replicated(identity) => {
            let phase = PHASES.iter().find(|(phase, _)| *phase == identity.phase);
            let phase = phase.map_or("", |(_, word)| *word);
            let _ = write!(
                text,
                "mode {REPLICATED}\ncluster {:016x}\nname {}\nstore {}\nincarnation {:016x}\n\
                 phase {phase}\naddr {}\nstatus-addr {}\n",
                identity.cluster_id,
                identity.cluster_name,
                identity.store_id,
                identity.incarnation,
                identity.addr,
                identity.status_addr,
            );
            let sum = checksum(text.as_bytes());
            let _ = writeln!(text, "check {sum:016x}");
        }
    }
    write_whole(&dir.join(MODE_FILE), &text).map_err(|error| {
        let shown = dir.display();
        format!("cannot write to the data directory {shown}: {error}")
    })
}

/// Writes a file so that it is there whole or not at all, also after power loss.
pub(crate) fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let temporary = format!("{}.{}.tmp", name.to_string_lossy(), std::process::id());
    let temporary = dir.join(temporary);
    let mut file = File::create(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()?;
    // The directory itself may be new; a parent that cannot be opened is not ours to judge.
    match dir.canonicalize()?.parent().map(File::open) {
        Some(Ok(parent)) => parent.sync_all(),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_or_empty_directory_becomes_one_of_ours_and_stays_so() {
        let root = tempfile::tempdir().unwrap();
        for name in ["deep/er/data", "."] {
            let dir = root.path().join("a").join(name);
            if name == "." {
                fs::remove_dir_all(root.path().join("a")).unwrap();
                fs::create_dir(root.path().join("a")).unwrap();
                fs::write(root.path().join("a/MODE.7.tmp"), "form").unwrap();
            }
            assert_eq!(prepare(&dir).unwrap(), dir.join("kv"));
            assert_eq!(prepare(&dir).unwrap(), dir.join("kv"));
            assert_eq!(locate(&dir).unwrap(), [dir.join("kv")]);
            let text = fs::read_to_string(dir.join("MODE")).unwrap();
            assert_eq!(text, "format 1\nmode standalone\n");
        }
    }

    #[test]
    fn a_foreign_directory_is_refused_and_left_as_it_was() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("thesis.txt"), "precious").unwrap();
        let refusal = prepare(root.path()).unwrap_err();
        assert!(refusal.contains("not a Basalt data directory"), "{refusal}");
        assert!(refusal.contains("thesis.txt"), "{refusal}");
        let names = fs::read_dir(root.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["thesis.txt"]);
    }

    #[test]
    fn another_mode_or_format_is_refused_by_name() {
        let root = tempfile::tempdir().unwrap();
        for (text, expected) in [
            ("format 1\nmode mirrored\n", "holds a mirrored store"),
            ("format 1\nmode replicated\n", "MODE is damaged"),
            ("format 2\nmode standalone\n", "directory format 2"),
            ("format 1\n", "is not one of Basalt's"),
            ("", "is not one of Basalt's"),
            (
                "format 1\nmode standalone\nmore\n",
                "is not one of Basalt's",
            ),
        ] {
            fs::write(root.path().join("MODE"), text).unwrap();
            let refusal = prepare(root.path()).unwrap_err();
            assert!(refusal.contains(expected), "{text:?} gave {refusal:?}");
            assert!(!refusal.contains('\n'), "one sentence: {refusal:?}");
        }
    }

    fn identity() -> Identity {
        Identity {
            cluster_id: 0x00de_adbe_ef00_0001,
            cluster_name: "green hills".to_owned(),
            store_id: 2,
            incarnation: 7,
            phase: Phase::Forming,
            addr: "127.0.0.1:1".to_owned(),
            status_addr: "127.0.0.1:2".to_owned(),
        }
    }

    #[test]
    fn an_identity_is_read_as_it_was_written_and_no_line_may_be_missing() {
        let root = tempfile::tempdir().unwrap();
        for (phase, word) in PHASES {
            let mode = Mode::Replicated(Identity {
                phase,
                ..identity()
            });
            write_mode(root.path(), &mode).unwrap();
            assert_eq!(read_mode(root.path()).unwrap(), Some(mode));
            let text = fs::read_to_string(root.path().join("MODE")).unwrap();
            assert!(text.contains(&format!("\nphase {word}\n")), "{text}");
            for missing in 2..text.lines().count() {
                let lines = text.lines().enumerate();
                let cut = lines.filter(|(line, _)| *line != missing);
                let cut: String = cut.map(|(_, line)| format!("{line}\n")).collect();
                fs::write(root.path().join("MODE"), cut).unwrap();
                let refusal = read_mode(root.path()).unwrap_err();
                assert!(refusal.contains("MODE is damaged"), "{refusal}");
            }
            for place in 0..text.len() {
                let mut bytes = text.clone().into_bytes();
                bytes[place] ^= 1;
                fs::write(root.path().join("MODE"), bytes).unwrap();
                assert!(read_mode(root.path()).is_err(), "byte {place}");
            }
        }
    }

    #[test]
    fn the_example_of_the_format_is_what_is_written() {
        let format = include_str!("../../../FORMAT.md");
        let example = format.split_once("```text mode\n").unwrap().1;
        let example = example.split_once("```").unwrap().0;
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("MODE"), example).unwrap();
        let mode = read_mode(root.path()).unwrap().unwrap();
        write_mode(root.path(), &mode).unwrap();
        let written = fs::read_to_string(root.path().join("MODE")).unwrap();
        assert_eq!(written, example);
    }

    #[test]
    fn a_replicated_store_is_not_served_as_a_standalone_one() {
        let root = tempfile::tempdir().unwrap();
        write_mode(root.path(), &Mode::Replicated(identity())).unwrap();
        let refusal = prepare(root.path()).unwrap_err();
        assert!(
            refusal.contains("store 2 of a replicated cluster"),
            "{refusal}"
        );
        let dirs = [root.path().join("kv"), root.path().join("raft")];
        assert_eq!(locate(root.path()).unwrap(), dirs);
    }

    #[test]
    fn a_path_that_is_a_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(
            prepare(&file)
                .unwrap_err()
                .contains("cannot create the data directory")
        );
        assert!(locate(&file).is_err());
        assert!(
            locate(root.path())
                .unwrap_err()
                .contains("neither MODE nor CURRENT")
        );
        fs::write(root.path().join("CURRENT"), "").unwrap();
        assert_eq!(locate(root.path()).unwrap(), [root.path()]);
    }
}
