//! Large values in a repair: which value files are sound, and what can be read of the others.
//!
//! A row that points into a sound file stays as it is. One that points into another gets its value back into the table,
//! where that can be read, and is lost where not; so nothing that is kept needs a file that is put aside.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    filename,
    fs::{Fs, ReadMode, ReadableFile},
    key::{InternalKey, ValueKind, pack_trailer, trailer_seq},
    values::{Place, ValueFileRecord, ValueFiles, ValuePointer, ValueUse, id_of, salvage_value},
    version::TableRecord,
};

/// Most records of a file in which a flipped bit is looked for.
const MAX_MENDS: u32 = 64;

/// The value files that the manifest tells of.
#[derive(Clone, Debug, Default)]
pub(super) struct KnownValues {
    /// Those that are as they were written.
    sound: BTreeMap<u64, ValueFileRecord>,
    /// The others.
    broken: BTreeMap<u64, ValueFileRecord>,
}

impl KnownValues {
    /// Reads the file of `record`, unless that was done; `tell` gets the bytes of each step.
    ///
    /// # Errors
    /// Those of `tell`.
    pub(super) fn look(
        &mut self,
        fs: &dyn Fs,
        dir: &Path,
        record: ValueFileRecord,
        tell: impl FnMut(u64) -> Result<()>,
    ) -> Result<()> {
        if self.knows(record.number) {
            return Ok(());
        }
        let place = Place {
            fs,
            dir,
            mode: ReadMode::Pread,
        };
        let alone = Arc::<ValueFiles>::default();
        let file = alone.share(record).expect("nobody else has files there");
        match file.verify(&place, tell) {
            Ok(()) => self.sound.insert(record.number, record),
            Err(Error::Corruption { .. } | Error::Io { .. }) => {
                self.broken.insert(record.number, record)
            }
            Err(error) => return Err(error),
        };
        Ok(())
    }

    /// True for a file that the manifest tells of.
    pub(super) fn knows(&self, number: u64) -> bool {
        self.sound.contains_key(&number) || self.broken.contains_key(&number)
    }

    /// Numbers of all files that the manifest tells of.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.sound.keys().chain(self.broken.keys()).copied()
    }

    /// True where all rows of a table can stay as they are.
    pub(super) fn are_sound(&self, table: &TableRecord) -> bool {
        let mut needed = table.values.iter();
        needed.all(|used| self.sound.get(&used.file.number) == Some(&used.file))
    }

    /// The record that the manifest has of rows that need `bytes` of each file.
    pub(super) fn uses(&self, needs: &BTreeMap<u64, u64>) -> Vec<ValueUse> {
        let needs = needs.iter().filter_map(|(number, &bytes)| {
            let file = *self.sound.get(number)?;
            let bytes = bytes.min(file.size);
            Some(ValueUse { file, bytes })
        });
        needs.collect()
    }
}

/// A file that is not sound, or of which no manifest tells.
struct Doubtful {
    /// Its random number and itself, as far as they are known.
    file: Option<(u64, Arc<dyn ReadableFile>)>,
    mends: u32,
    good: BTreeSet<u64>,
    lost: BTreeSet<u64>,
}

/// Puts values back into rows.
pub(super) struct Placer<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    known: &'a KnownValues,
    doubtful: BTreeMap<u64, Doubtful>,
    /// Bytes that the rows so far need of sound files, by number.
    pub(super) needs: BTreeMap<u64, u64>,
    /// Rows so far that pointed somewhere.
    pub(super) pointers: u64,
}

impl<'a> Placer<'a> {
    pub(super) fn new(fs: &'a dyn Fs, dir: &'a Path, known: &'a KnownValues) -> Self {
        Self {
            fs,
            dir,
            known,
            doubtful: BTreeMap::new(),
            needs: BTreeMap::new(),
            pointers: 0,
        }
    }

    /// Hands on a row as it is to be written; false for a row whose value is lost.
    ///
    /// # Errors
    /// Those of `take`.
    pub(super) fn place(
        &mut self,
        key: InternalKey<'_>,
        value: &[u8],
        take: impl FnOnce(InternalKey<'_>, &[u8]) -> Result<()>,
    ) -> Result<bool> {
        if key.kind() != Some(ValueKind::Pointer) {
            return take(key, value).map(|()| true);
        }
        self.pointers += 1;
        let Some(pointer) = ValuePointer::decode(value) else {
            return Ok(false);
        };
        if self.known.sound.contains_key(&pointer.file) {
            *self.needs.entry(pointer.file).or_default() += u64::from(pointer.stored);
            return take(key, value).map(|()| true);
        }
        let Some(value) = self.salvaged(pointer) else {
            return Ok(false);
        };
        let whole = InternalKey {
            user_key: key.user_key,
            trailer: pack_trailer(trailer_seq(key.trailer), ValueKind::Put),
        };
        take(whole, &value).map(|()| true)
    }

    fn salvaged(&mut self, pointer: ValuePointer) -> Option<Vec<u8>> {
        let (fs, dir, known) = (self.fs, self.dir, self.known);
        let open = || {
            let path = filename::values(dir, pointer.file);
            let file = fs.open(&path, ReadMode::Pread).ok()?;
            let id = match known.broken.get(&pointer.file) {
                Some(record) => record.id,
                None => id_of(&*file)?,
            };
            Some((id, file))
        };
        let from = self
            .doubtful
            .entry(pointer.file)
            .or_insert_with(|| Doubtful {
                file: open(),
                mends: MAX_MENDS,
                good: BTreeSet::new(),
                lost: BTreeSet::new(),
            });
        let value = from
            .file
            .as_ref()
            .and_then(|(id, file)| salvage_value(&**file, *id, pointer, &mut from.mends));
        let list = if value.is_some() {
            &mut from.good
        } else {
            &mut from.lost
        };
        list.insert(pointer.offset);
        value
    }

    /// Of the values in files that are not sound, by number: how many were read, and how many could not.
    pub(super) fn counts(&self) -> impl Iterator<Item = (u64, (u64, u64))> {
        self.doubtful.iter().map(|(&number, from)| {
            let counts = (from.good.len() as u64, from.lost.len() as u64);
            (number, counts)
        })
    }
}
