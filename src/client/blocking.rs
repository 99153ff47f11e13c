//! The same client for code without async: each call waits for its end.
//!
//! ```no_run
//! use basalt_client::{KeyRange, blocking::Client};
//!
//! let client = Client::connect(["127.0.0.1:20160"])?;
//! client.put("k", "v")?;
//! assert_eq!(client.get("k")?.as_deref(), Some(&b"v"[..]));
//! for pair in client.scan(KeyRange::all()) {
//!     println!("{:?}", pair?.key);
//! }
//! # Ok::<(), basalt_client::Error>(())
//! ```
//!
//! It must not be called from async code, whose thread it would hold up. A client is used by one thread at a time or by
//! several; connections rest while nobody calls.

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::{Batch, Config, Error, KeyRange, Pair, Result, ScanOptions};

/// See [`crate::Client`], whose calls these are.
#[derive(Clone, Debug)]
pub struct Client {
    runtime: Arc<Runtime>,
    inner: crate::Client,
}

impl Client {
    /// A client that is set up and has not spoken with anybody yet.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] where the system gives no runtime.
    pub fn new(config: Config) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Error::Config(format!("no runtime: {error}")))?;
        Ok(Self {
            runtime: Arc::new(runtime),
            inner: crate::Client::new(config),
        })
    }

    /// As [`crate::Client::connect`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn connect<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Result<Self> {
        let client = Self::new(Config::new(endpoints))?;
        client.runtime.block_on(client.inner.node())?;
        Ok(client)
    }

    /// As [`crate::Client::family`].
    #[must_use]
    pub fn family(&self, name: &str) -> Self {
        Self {
            inner: self.inner.family(name),
            runtime: Arc::clone(&self.runtime),
        }
    }

    /// As [`crate::Client::get`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Bytes>> {
        self.runtime.block_on(self.inner.get(key))
    }

    /// As [`crate::Client::put`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<()> {
        self.runtime.block_on(self.inner.put(key, value))
    }

    /// As [`crate::Client::delete`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn delete(&self, key: impl Into<Bytes>) -> Result<()> {
        self.runtime.block_on(self.inner.delete(key))
    }

    /// As [`crate::Client::delete_range`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn delete_range(&self, range: KeyRange) -> Result<()> {
        self.runtime.block_on(self.inner.delete_range(range))
    }

    /// As [`crate::Client::write`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn write(&self, batch: Batch) -> Result<()> {
        self.runtime.block_on(self.inner.write(batch))
    }

    /// As [`crate::Client::count`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn count(&self, range: KeyRange) -> Result<u64> {
        self.runtime.block_on(self.inner.count(range))
    }

    /// The pairs of a range.
    #[must_use]
    pub fn scan(&self, range: KeyRange) -> Scan {
        self.scan_with(self.inner.scan(range))
    }

    /// The pairs of a range, shaped by `options` of [`Client::as_async`].
    #[must_use]
    pub fn scan_with(&self, options: ScanOptions) -> Scan {
        Scan {
            runtime: Arc::clone(&self.runtime),
            inner: options.start(),
        }
    }

    /// The client that does the work, for its settings.
    #[must_use]
    pub fn as_async(&self) -> &crate::Client {
        &self.inner
    }
}

/// See [`crate::Scan`].
#[derive(Debug)]
pub struct Scan {
    runtime: Arc<Runtime>,
    inner: crate::Scan,
}

impl Scan {
    /// As [`crate::Scan::rest`].
    #[must_use]
    pub fn rest(&self) -> KeyRange {
        self.inner.rest()
    }
}

impl Iterator for Scan {
    type Item = Result<Pair>;

    fn next(&mut self) -> Option<Self::Item> {
        self.runtime.block_on(self.inner.next()).transpose()
    }
}
