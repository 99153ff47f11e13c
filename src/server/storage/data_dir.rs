//! The data directory of a server: what may be in it, and the file that states its mode.
//!
//! ```text
//! DIR/MODE    text, two lines: `format 1` and `mode standalone`; written once, by rename
//! DIR/kv/     the engine's directory: user data
//! ```
//! Promises: a directory that holds anything else than a Basalt store is refused, never written to;
//! a crash at any moment of the first start leaves a directory that the next start takes.
//!
//! Not here: who may use the directory at a time; the engine's lock on `kv/` decides that.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Name of the file that states the mode.
const MODE_FILE: &str = "MODE";
/// Name of the engine's directory.
const KV_DIR: &str = "kv";
/// Version of the layout of a data directory.
const FORMAT: u32 = 1;
/// The mode this version can serve.
const STANDALONE: &str = "standalone";
/// A mode file is two short lines; anything longer is not one.
const MODE_FILE_MAX_LEN: u64 = 4096;

/// Checks `dir`, makes it a standalone data directory when it is missing or empty, and answers the
/// path of the engine's directory.
///
/// # Errors
///
/// One sentence for the user: the directory cannot be read or written, or it holds something else.
pub fn prepare(dir: &Path) -> Result<PathBuf, String> {
    let shown = dir.display();
    fs::create_dir_all(dir)
        .map_err(|error| format!("cannot create the data directory {shown}: {error}"))?;
    match read_mode(dir)? {
        Some(()) => {}
        None => {
            refuse_foreign(dir)?;
            write_mode(dir)
                .map_err(|error| format!("cannot write to the data directory {shown}: {error}"))?;
        }
    }
    Ok(dir.join(KV_DIR))
}

/// The engine's directory of a path given by the user: `dir/kv` of a data directory, else the path
/// itself, which may be an engine's directory.
///
/// # Errors
///
/// One sentence when `dir` cannot be read, is neither, or states a mode unknown here.
pub fn locate(dir: &Path) -> Result<PathBuf, String> {
    let listing = fs::read_dir(dir);
    listing.map_err(|error| format!("cannot read {}: {error}", dir.display()))?;
    if read_mode(dir)?.is_some() {
        return Ok(dir.join(KV_DIR));
    }
    // A look only: opening an engine would leave its lock file in a stranger's directory.
    if !dir.join("CURRENT").exists() {
        return Err(format!(
            "{} is no data directory and no engine's directory: it holds neither {MODE_FILE} nor CURRENT",
            dir.display()
        ));
    }
    Ok(dir.to_path_buf())
}

/// `None` without a mode file, an error when it states anything but what this version serves.
fn read_mode(dir: &Path) -> Result<Option<()>, String> {
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
    let mut lines = text.lines();
    let format = lines.next().and_then(|line| line.strip_prefix("format "));
    let mode = lines.next().and_then(|line| line.strip_prefix("mode "));
    let (Some(format), Some(mode), None) = (format, mode, lines.next()) else {
        return Err(format!(
            "{} is not a Basalt data directory: its {MODE_FILE} file is not one of Basalt's",
            dir.display()
        ));
    };
    if format != FORMAT.to_string() {
        return Err(format!(
            "{} has directory format {format}, this version knows format {FORMAT} only",
            dir.display()
        ));
    }
    if mode != STANDALONE {
        return Err(format!(
            "{} holds a {mode} store, this version serves {STANDALONE} stores only",
            dir.display()
        ));
    }
    Ok(Some(()))
}

/// An error when a directory without a mode file holds anything that a first start does not leave.
fn refuse_foreign(dir: &Path) -> Result<(), String> {
    let unreadable =
        |error: io::Error| format!("cannot read the data directory {}: {error}", dir.display());
    for entry in fs::read_dir(dir).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let name = name.to_string_lossy();
        let left_by_us = name.starts_with(MODE_FILE) && name.ends_with(".tmp");
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

/// Writes the mode file so that it is there whole or not at all, also after power loss.
fn write_mode(dir: &Path) -> io::Result<()> {
    let temporary = dir.join(format!("{MODE_FILE}.{}.tmp", std::process::id()));
    let mut file = File::create(&temporary)?;
    write!(file, "format {FORMAT}\nmode {STANDALONE}\n")?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(MODE_FILE))?;
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
            assert_eq!(locate(&dir).unwrap(), dir.join("kv"));
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
            ("format 1\nmode replicated\n", "holds a replicated store"),
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
        assert_eq!(locate(root.path()).unwrap(), root.path());
    }
}
