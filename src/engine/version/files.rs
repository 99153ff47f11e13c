//! Opening the tables of a database's directory.

use std::{path::PathBuf, sync::Arc};

use super::{TableMeta, TableOpener};
use crate::{
    cache::BlockCache,
    error::{Error, Result},
    filename,
    fs::{Fs, ReadMode},
    table::{Table, TableIdentity},
};

/// The tables of one directory, read in one mode through one cache.
pub(crate) struct TableFiles {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    mode: ReadMode,
    cache: Arc<BlockCache>,
}

impl TableFiles {
    /// Tables in `dir` of `fs`.
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        dir: PathBuf,
        mode: ReadMode,
        cache: Arc<BlockCache>,
    ) -> Self {
        Self {
            fs,
            dir,
            mode,
            cache,
        }
    }
}

impl TableOpener for TableFiles {
    fn open(&self, table: &TableMeta) -> Result<Arc<Table>> {
        let path = filename::table(&self.dir, table.number);
        let file = self
            .fs
            .open(&path, self.mode)
            .map_err(|error| Error::io("open", &path, error))?;
        let identity = TableIdentity {
            table_id: table.info.table_id,
            size: table.info.size,
        };
        let cache = Arc::clone(&self.cache);
        Table::open(
            file,
            &path,
            table.number,
            &identity,
            table.global_seq,
            cache,
        )
        .map(Arc::new)
    }
}
