//! `CURRENT`: one line that names the manifest in use and checks itself (FORMAT.md, section 2).

use std::{io, path::Path};

use crate::{
    error::{Error, Result},
    filename::{self, CURRENT},
    fs::Fs,
};

/// The text for manifest `number`.
pub(crate) fn encode(number: u64) -> String {
    let name = filename::manifest_name(number);
    let crc = crc32fast::hash(name.as_bytes());
    format!("{name} {crc:08x}\n")
}

/// The manifest a text names; `None` unless it is byte for byte what [`encode`] gives.
pub(crate) fn decode(text: &[u8]) -> Option<u64> {
    let text = str::from_utf8(text).ok()?;
    let digits = text.strip_prefix("MANIFEST-")?.split(' ').next()?;
    filename::number(digits).filter(|&number| encode(number) == text)
}

/// Points `CURRENT` at manifest `number`, which is whole and durable: written aside, synced, renamed, and
/// the directory synced.
///
/// # Errors
/// The system's. `CURRENT` then names the old manifest or the new one.
pub(crate) fn write(fs: &dyn Fs, dir: &Path, number: u64) -> Result<()> {
    let path = dir.join(CURRENT);
    let temporary = filename::temporary(&path);
    let mut file = fs
        .create(&temporary)
        .map_err(|e| Error::io("create", &temporary, e))?;
    file.append(encode(number).as_bytes())
        .map_err(|e| Error::io("write", &temporary, e))?;
    file.sync().map_err(|e| Error::io("sync", &temporary, e))?;
    drop(file);
    fs.rename(&temporary, &path)
        .map_err(|e| Error::io("rename", &path, e))?;
    fs.sync_dir(dir)
        .map_err(|e| Error::io("sync directory", dir, e))
}

/// The manifest in use; `None` when the directory has no `CURRENT`.
///
/// # Errors
/// `Corruption` or `NotADatabase` for any other text than ours, else the system's.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Option<u64>> {
    let path = dir.join(CURRENT);
    let text = match fs.read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    if let Some(number) = decode(&text) {
        return Ok(Some(number));
    }
    // Other stores of this family have the name alone on the line.
    let foreign = text
        .strip_prefix(b"MANIFEST-")
        .and_then(|rest| rest.strip_suffix(b"\n"));
    if foreign.is_some_and(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)) {
        let what = "CURRENT has no checksum; it is another store's".into();
        return Err(Error::NotADatabase { path, what });
    }
    Err(Error::corruption(
        path,
        0,
        "does not name a manifest with its checksum",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_comes_back_and_every_flipped_bit_cut_and_addition_is_noticed() {
        for number in [1, 999_999, 1_000_000, u64::MAX] {
            let good = encode(number).into_bytes();
            assert_eq!(decode(&good), Some(number));
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(decode(&bytes), None, "bit {bit} of {number}");
            }
            for len in 0..good.len() {
                assert_eq!(decode(&good[..len]), None, "{len} bytes of {number}");
            }
            assert_eq!(decode(&[&good[..], b"\n"].concat()), None);
        }
    }
}
