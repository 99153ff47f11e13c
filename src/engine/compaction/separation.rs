//! Where the values of a job's outputs go: into the tables, or into value files that the tables point to.
//!
//! A value larger than the family's limit goes into a value file of the job. A pointer that the job meets is kept, and
//! with it the value file, unless that file is mostly garbage: then the value is written anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{Compaction, JobContext};
use crate::{
    error::{Error, Result},
    faults::Fault,
    filename,
    key::{InternalKey, ValueKind},
    options::LEVELS,
    slice::PinnedSlice,
    values::{VALUE_FILE_BYTES, ValueFileRecord, ValuePointer, ValueUse, ValueWriter, crowded},
    version::TableRecord,
};

/// What to write for an entry.
pub(super) enum Placed {
    /// What it says.
    AsIs,
    /// This pointer.
    Pointer(Vec<u8>),
    /// This value, which it pointed to.
    Value(PinnedSlice),
}

/// The value files of one job.
pub(super) struct Separation<'a> {
    context: &'a JobContext<'a>,
    /// Files that pointers may lead to, of the tables that are compacted.
    known: BTreeMap<u64, ValueFileRecord>,
    /// Those of them that are to be left.
    leaving: BTreeSet<u64>,
    current: Option<ValueWriter>,
    finished: Vec<ValueFileRecord>,
    /// Every file begun.
    pub(super) created: Vec<PathBuf>,
    /// Bytes that the current table needs, by file.
    needs: BTreeMap<u64, u64>,
    /// The same for each table finished.
    tables: Vec<BTreeMap<u64, u64>>,
    /// Bytes of values read to be written anew.
    pub(super) bytes_read: u64,
}

impl<'a> Separation<'a> {
    /// Of a job that meets no pointers.
    pub(super) fn of_flush(context: &'a JobContext<'a>) -> Self {
        Self {
            context,
            known: BTreeMap::new(),
            leaving: BTreeSet::new(),
            current: None,
            finished: Vec::new(),
            created: Vec::new(),
            needs: BTreeMap::new(),
            tables: Vec::new(),
            bytes_read: 0,
        }
    }

    /// Of a job with the inputs of `compaction`.
    pub(super) fn of_compaction(context: &'a JobContext<'a>, compaction: &Compaction) -> Self {
        let inputs = compaction
            .inputs
            .iter()
            .flat_map(|(_, table)| &table.values);
        let known: BTreeMap<_, _> = inputs
            .map(|(file, _)| (file.record.number, file.record))
            .collect();
        let leaving = if known.is_empty() {
            BTreeSet::new()
        } else {
            crowded(&compaction.version).into_keys().collect()
        };
        Self {
            known,
            leaving,
            ..Self::of_flush(context)
        }
    }

    /// Decides about one entry that is kept, and does what has to be done.
    ///
    /// # Errors
    ///
    /// The disk's; `Corruption` for a pointer that leads nowhere.
    pub(super) fn place(&mut self, key: InternalKey<'_>, value: &[u8]) -> Result<Placed> {
        match key.kind() {
            Some(ValueKind::Put) if self.is_large(value) => self.write(value).map(Placed::Pointer),
            Some(ValueKind::Pointer) => self.keep_or_leave(value),
            _ => Ok(Placed::AsIs),
        }
    }

    fn is_large(&self, value: &[u8]) -> bool {
        let options = self.context.options;
        // What is folded, and what has its time behind it, is looked at by compactions again and again.
        if options.ttl.is_some() || options.merge_operator.is_some() {
            return false;
        }
        options
            .large_value_bytes
            .is_some_and(|limit| value.len() > limit)
    }

    fn keep_or_leave(&mut self, bytes: &[u8]) -> Result<Placed> {
        let pointer = ValuePointer::decode(bytes).filter(|to| self.known.contains_key(&to.file));
        let Some(pointer) = pointer else {
            let what =
                "a table that is merged points to no value that it has; `verify` tells which";
            return Err(Error::corruption(self.context.dir, 0, what));
        };
        if !self.leaving.contains(&pointer.file) {
            if !self.context.faults.is(Fault::ForgetValueUse) {
                *self.needs.entry(pointer.file).or_default() += u64::from(pointer.stored);
            }
            return Ok(Placed::AsIs);
        }
        let value = self.context.opener.value(bytes)?;
        self.bytes_read += u64::from(pointer.stored);
        if self.is_large(&value) {
            self.write(&value).map(Placed::Pointer)
        } else {
            Ok(Placed::Value(value))
        }
    }

    /// Appends a value to the current file; answers the pointer to it.
    fn write(&mut self, value: &[u8]) -> Result<Vec<u8>> {
        let pointer = self.writer()?.add(value)?;
        *self.needs.entry(pointer.file).or_default() += u64::from(pointer.stored);
        let mut bytes = Vec::new();
        pointer.encode_to(&mut bytes);
        if let Some(writer) = self
            .current
            .take_if(|writer| writer.size() >= VALUE_FILE_BYTES)
        {
            self.finished.push(writer.finish()?);
        }
        Ok(bytes)
    }

    fn writer(&mut self) -> Result<&mut ValueWriter> {
        if self.current.is_none() {
            let context = self.context;
            let number = (context.new_file_number)();
            let path = filename::values(context.dir, number);
            let file = context
                .fs
                .create(&path)
                .map_err(|e| Error::io("create", &path, e))?;
            self.created.push(path.clone());
            let file = if context.faults.is(Fault::EditBeforeValues) {
                Box::new(super::job::NeverSynced(file))
            } else {
                file
            };
            let file = context.pace.wrap(file);
            let codec = context.options.compression[LEVELS - 1];
            let id = context.executor.random();
            self.current = Some(ValueWriter::new(file, path, number, id, codec));
        }
        Ok(self.current.as_mut().expect("made above"))
    }

    /// The table that was being written is whole.
    pub(super) fn end_table(&mut self) {
        self.tables.push(std::mem::take(&mut self.needs));
    }

    /// Finishes the files, and tells each of the job's tables which it needs.
    ///
    /// # Errors
    ///
    /// The disk's.
    pub(super) fn finish(&mut self, tables: &mut [TableRecord]) -> Result<()> {
        if let Some(writer) = self.current.take() {
            self.finished.push(writer.finish()?);
        }
        for file in &self.finished {
            self.known.insert(file.number, *file);
        }
        assert_eq!(tables.len(), self.tables.len(), "each table was ended");
        for (table, needs) in tables.iter_mut().zip(&self.tables) {
            let used = needs.iter().map(|(number, &bytes)| ValueUse {
                file: self.known[number],
                bytes,
            });
            table.values = used.collect();
        }
        Ok(())
    }

    /// Bytes of the files made; once finished.
    pub(super) fn bytes_written(&self) -> u64 {
        self.finished.iter().map(|file| file.size).sum()
    }

    /// Numbers of the files made; once finished.
    pub(super) fn made(&self) -> Vec<u64> {
        self.finished.iter().map(|file| file.number).collect()
    }
}
