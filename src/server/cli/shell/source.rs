//! What a shell looks at: a server or cluster over the client ([`Remote`]), or a directory that no server has open, to
//! be read only ([`Directory`]).

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::mpsc,
    time::{Duration, Instant},
};

use basalt_client::{Batch, Client, KeyRange, Pair};
use basalt_engine::{ColumnFamily, Db, Options, ReadOptions};
use basalt_proto::basaltpb::{ExplainRequest, StatusRequest};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use crate::{
    cli::explain::as_text,
    cli::{
        Done, Failure,
        admin::{put_engine, table},
        client::{Server, Target},
    },
    replicated::family_word,
    storage::{
        FAMILIES,
        data_dir::{self, Mode},
        engine_status, explain_open,
    },
};

/// What completion asks for. It is never an error: what does not come is not offered.
pub(super) trait Keys {
    /// The first keys of a family that begin with `prefix`, in order: at most `most`, those that come `within`.
    fn keys(&self, family: &str, prefix: &[u8], most: usize, within: Duration) -> Vec<Vec<u8>>;

    /// The column families.
    fn families(&self) -> Vec<String>;
}

/// Which pairs are wanted.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) family: String,
    pub(super) range: KeyRange,
    pub(super) reverse: bool,
    pub(super) keys_only: bool,
}

/// Some pairs, and the range that goes on behind them where there is more.
pub(super) struct Page {
    pub(super) pairs: Vec<Pair>,
    pub(super) rest: Option<KeyRange>,
}

/// What commands are done on. Errors are one sentence each.
pub(super) trait Source: Keys {
    /// What it is called, for the first line of an interactive run.
    fn name(&self) -> String;

    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Bytes>, Failure>;

    /// At most `limit` pairs (one at least).
    fn page(&self, wanted: &Wanted, limit: u64) -> Result<Page, Failure>;

    fn count(&self, family: &str, range: KeyRange) -> Result<u64, Failure>;

    /// Why nothing can be written here, if so.
    fn check_writable(&self) -> Done;

    /// Does all of a batch or nothing.
    fn write(&self, batch: Batch) -> Done;

    fn explain(&self, family: &str, key: &[u8]) -> Result<String, Failure>;

    fn status(&self) -> Result<String, Failure>;
}

/// A server, or a cluster.
pub(super) struct Remote {
    client: Client,
    /// Connections live on it, between commands too: it has a thread of its own.
    runtime: Runtime,
    /// Whether Ctrl-C gives up a request and not the shell.
    is_interactive: bool,
}

impl Remote {
    /// Connects, so that a server that is not there is told at once.
    pub(super) fn open(target: &Target, is_interactive: bool) -> Result<Self, Failure> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| Failure::world(format!("cannot begin: {error}")))?;
        let client = target.client()?;
        runtime.block_on(client.node())?;
        Ok(Self {
            client,
            runtime,
            is_interactive,
        })
    }

    fn ask<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        self.runtime.block_on(async {
            if !self.is_interactive {
                return work.await;
            }
            tokio::select! {
                answer = work => answer,
                _ = tokio::signal::ctrl_c() => Err(Failure::world(format!("given up; {what}"))),
            }
        })
    }

    fn read<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        self.ask("nothing was changed", work)
    }
}

impl Keys for Remote {
    fn keys(&self, family: &str, prefix: &[u8], most: usize, within: Duration) -> Vec<Vec<u8>> {
        // The client's own deadline would have it avoid a server that is only slow to complete.
        let client = self.client.family(family).deadline(None);
        let mut scan = client
            .scan(KeyRange::prefix(prefix))
            .keys_only(true)
            .limit(most as u64)
            .start();
        let mut keys = Vec::new();
        let gather = async {
            while let Ok(Some(pair)) = scan.next().await {
                keys.push(pair.key.to_vec());
            }
        };
        // What has come until then is offered.
        let _ = self
            .runtime
            .block_on(async { tokio::time::timeout(within, gather).await });
        keys
    }

    fn families(&self) -> Vec<String> {
        FAMILIES.map(str::to_owned).to_vec()
    }
}

impl Source for Remote {
    fn name(&self) -> String {
        let node = self.runtime.block_on(self.client.node());
        node.map_or_else(|_| "a server".to_owned(), |node| node.addr().to_owned())
    }

    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        let client = self.client.family(family);
        self.read(async { Ok(client.get(key).await?) })
    }

    fn page(&self, wanted: &Wanted, limit: u64) -> Result<Page, Failure> {
        let client = self.client.family(&wanted.family);
        // One more than is given says whether there is more.
        let mut scan = client
            .scan(wanted.range.clone())
            .reverse(wanted.reverse)
            .keys_only(wanted.keys_only)
            .limit(limit.saturating_add(1))
            .start();
        self.read(async {
            let mut page = Page {
                pairs: Vec::new(),
                rest: None,
            };
            let mut rest = scan.rest();
            while let Some(pair) = scan.next().await? {
                if page.pairs.len() as u64 == limit {
                    page.rest = Some(rest);
                    break;
                }
                page.pairs.push(pair);
                rest = scan.rest();
            }
            Ok(page)
        })
    }

    fn count(&self, family: &str, range: KeyRange) -> Result<u64, Failure> {
        let client = self.client.family(family);
        self.read(async { Ok(client.count(range).await?) })
    }

    fn check_writable(&self) -> Done {
        Ok(())
    }

    fn write(&self, batch: Batch) -> Done {
        let client = &self.client;
        self.ask("the write may be done or not", async {
            Ok(client.write(batch).await?)
        })
    }

    fn explain(&self, family: &str, key: &[u8]) -> Result<String, Failure> {
        let request = ExplainRequest {
            cf: family.to_owned(),
            key: key.to_vec().into(),
        };
        self.read(async {
            let server = Server::from(self.client.node().await?);
            let response = server.ask(server.admin().explain(request)).await?;
            Ok(as_text(&response))
        })
    }

    fn status(&self) -> Result<String, Failure> {
        self.read(async {
            let server = Server::from(self.client.node().await?);
            let status = server.ask(server.admin().status(StatusRequest {})).await?;
            Ok(table(server.addr(), &status))
        })
    }
}

/// A directory that no server has open.
pub(super) struct Directory {
    dir: PathBuf,
    db: Db,
    /// The users' families, by the names that clients know.
    families: Vec<(String, ColumnFamily)>,
    mode: &'static str,
}

impl Directory {
    /// Opens a data directory, or an engine's directory, to read it.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let mode = data_dir::read_mode(dir).map_err(Failure::world)?;
        let engines = data_dir::locate(dir).map_err(Failure::world)?;
        let engine = engines.first().expect("a directory has an engine at least");
        let options = Options {
            create_if_missing: false,
            ..Options::default()
        };
        let db = Db::open_read_only(engine, options).map_err(|error| {
            let hint = match &error {
                basalt_engine::Error::Locked { .. } => {
                    "; a running server is looked at with: basalt shell --addr HOST:PORT"
                }
                _ => "",
            };
            Failure::world(format!("{}{hint}", explain_open(&error)))
        })?;
        let is_replicated = matches!(mode, Some(Mode::Replicated(_)));
        let known = db
            .list_cfs()
            .into_iter()
            .filter(|family| !family.is_append());
        let named = known.filter_map(|family| {
            let name = match is_replicated {
                true => family_word(family.name())?.to_owned(),
                false => family.name().to_owned(),
            };
            Some((name, family))
        });
        Ok(Self {
            dir: dir.to_owned(),
            families: named.collect(),
            db,
            mode: match mode {
                Some(Mode::Standalone) => "standalone",
                Some(Mode::Replicated(_)) => "a store of a cluster, which may be behind the others",
                None => "an engine's directory",
            },
        })
    }

    fn family(&self, name: &str) -> Result<&ColumnFamily, Failure> {
        let found = self.families.iter().find(|(known, _)| known == name);
        let names = || Keys::families(self).join(", ");
        found.map(|(_, family)| family).ok_or_else(|| {
            Failure::usage(format!(
                "there is no family {name:?}; there are {}",
                names()
            ))
        })
    }
}

fn failed(error: basalt_engine::Error) -> Failure {
    Failure::world(error.to_string())
}

/// The bounds of a cursor.
fn bounds(range: &KeyRange) -> ReadOptions {
    let bound = |key: &Bytes| (!key.is_empty()).then(|| key.to_vec());
    ReadOptions {
        lower: bound(&range.start),
        upper: bound(&range.end),
        ..ReadOptions::default()
    }
}

impl Keys for Directory {
    fn keys(&self, family: &str, prefix: &[u8], most: usize, within: Duration) -> Vec<Vec<u8>> {
        let Ok(family) = self.family(family) else {
            return Vec::new();
        };
        let (db, family) = (self.db.clone(), family.clone());
        let options = ReadOptions::default().prefix(prefix);
        let until = Instant::now() + within;
        // On a thread of its own, which a slow disk may hold up: it is left behind, and ends with what it waits for.
        let (found, keys) = mpsc::channel();
        std::thread::spawn(move || {
            for pair in db.range(&family, &options).into_iter().flatten().take(most) {
                let Ok((key, _)) = pair else { return };
                // Nobody waits any more.
                if Instant::now() >= until || found.send(key).is_err() {
                    return;
                }
            }
        });
        let next = || {
            keys.recv_timeout(until.saturating_duration_since(Instant::now()))
                .ok()
        };
        std::iter::from_fn(next).collect()
    }

    fn families(&self) -> Vec<String> {
        self.families.iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Source for Directory {
    fn name(&self) -> String {
        format!("{}, to read only", self.dir.display())
    }

    fn get(&self, family: &str, key: &[u8]) -> Result<Option<Bytes>, Failure> {
        let value = self.db.get(self.family(family)?, key).map_err(failed)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn page(&self, wanted: &Wanted, limit: u64) -> Result<Page, Failure> {
        let mut page = Page {
            pairs: Vec::new(),
            rest: None,
        };
        if wanted.range.is_empty() {
            return Ok(page);
        }
        let family = self.family(&wanted.family)?;
        let options = bounds(&wanted.range);
        let mut range = self.db.range(family, &options).map_err(failed)?;
        loop {
            let next = if wanted.reverse {
                range.next_back()
            } else {
                range.next()
            };
            let Some(next) = next else {
                return Ok(page);
            };
            let (key, value) = next.map_err(failed)?;
            if page.pairs.len() as u64 == limit {
                let mut rest = wanted.range.clone();
                match (wanted.reverse, page.pairs.last()) {
                    (true, Some(last)) => rest.end = last.key.clone(),
                    _ => rest.start = key.into(),
                }
                page.rest = Some(rest);
                return Ok(page);
            }
            let value = match wanted.keys_only {
                true => Bytes::new(),
                false => Bytes::copy_from_slice(&value),
            };
            page.pairs.push(Pair {
                key: key.into(),
                value,
            });
        }
    }

    fn count(&self, family: &str, range: KeyRange) -> Result<u64, Failure> {
        if range.is_empty() {
            return Ok(0);
        }
        let options = bounds(&range);
        let pairs = self
            .db
            .range(self.family(family)?, &options)
            .map_err(failed)?;
        let mut count = 0;
        for pair in pairs {
            pair.map_err(failed)?;
            count += 1;
        }
        Ok(count)
    }

    fn check_writable(&self) -> Done {
        let shown = self.dir.display();
        Err(Failure::world(format!(
            "READ_ONLY: {shown} is open to be read; what changes it goes through its server"
        )))
    }

    fn write(&self, _batch: Batch) -> Done {
        self.check_writable()
    }

    fn explain(&self, family: &str, key: &[u8]) -> Result<String, Failure> {
        let family = self.family(family)?;
        let explained = self.db.explain(family, key, &ReadOptions::default());
        Ok(format!("{}\n", explained.map_err(failed)?))
    }

    fn status(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let _ = writeln!(text, "directory  {}", self.dir.display());
        let _ = writeln!(text, "mode       {}", self.mode);
        put_engine(&mut text, "kv", &engine_status(self.db.stats()));
        Ok(text)
    }
}
