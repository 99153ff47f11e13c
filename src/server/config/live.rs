//! `Live`: the settings of a running server, and what may change of them.
//!
//! ```text
//! SIGHUP, Admin/Configure --> read the layers again --> online settings take effect
//!                                                  \--> the others are named: they need a restart
//! ```
//! Promises: what is refused changes nothing; a change made while the server runs stays on top of every layer until
//! it ends; files that do not parse leave everything as it is.
//!
//! Not here: who takes the values (`apply`), certificates and rights ([`Reload`]).

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Config, Origin, SETTINGS, Setting, default_of, find, unknown_key};

/// What a server was started with, so that it can be read again.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    /// Settings of the command line.
    pub flags: Vec<(&'static str, OsString)>,
    /// The file of `--config`.
    pub file: Option<PathBuf>,
}

impl Layers {
    /// The settings that files, environment and flags say now.
    ///
    /// # Errors
    ///
    /// As [`Config::load`].
    pub fn load(&self) -> Result<Config, String> {
        Config::load(&self.flags, self.file.as_deref(), |name| {
            std::env::var_os(name)
        })
    }
}

/// Something that is kept in files beside the config file.
pub trait Reload: Send + Sync {
    /// Reads them again; what does not fit is refused and the old stays. A word for what has changed, if it has.
    ///
    /// # Errors
    ///
    /// Why it is refused, with the file.
    fn reload(&self) -> Result<Option<&'static str>, String>;
}

/// What became of reading everything again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reread {
    /// Settings that have changed.
    pub changed: Vec<&'static str>,
    /// Settings that differ from those in force and wait for a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such setting, or the value is none for it.
    Wrong(String),
    /// It takes effect at the next start only.
    NeedsRestart(String),
}

struct State {
    config: Config,
    online: BTreeMap<&'static str, String>,
}

/// The settings of a running server.
pub struct Live {
    layers: Layers,
    state: Mutex<State>,
    apply: Box<dyn Fn(&Config) + Send + Sync>,
    kept: Vec<Arc<dyn Reload>>,
}

impl Live {
    /// The settings `config` of a server that was started with `layers`. `apply` takes those that can change into
    /// the running server; `kept` is what lies in other files.
    #[must_use]
    pub fn new(
        layers: Layers,
        config: Config,
        kept: Vec<Arc<dyn Reload>>,
        apply: impl Fn(&Config) + Send + Sync + 'static,
    ) -> Self {
        let online = BTreeMap::new();
        Self {
            layers,
            state: Mutex::new(State { config, online }),
            apply: Box::new(apply),
            kept,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every setting with its value and its origin.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static Setting, String, Origin)> {
        let state = self.lock();
        let shown = SETTINGS.iter().map(|setting| {
            let (value, origin) = state.config.shown(setting);
            (setting, value, origin)
        });
        shown.collect()
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> Config {
        self.lock().config.clone()
    }

    /// Reads all layers and all files again. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What is wrong, in one sentence: the settings are as before where it is one of theirs, else each file that does
    /// not fit is.
    pub fn reread(&self) -> Result<Reread, String> {
        let mut told = Reread::default();
        let mut state = self.lock();
        let mut next = self.layers.load()?;
        for (name, text) in &state.online {
            let setting = find(name).ok_or_else(|| unknown_key(name))?;
            next.set(setting, text.into(), Origin::Online)?;
        }
        for setting in SETTINGS {
            let (was, _) = state.config.shown(setting);
            let (is, _) = next.shown(setting);
            if setting.online {
                state.config.adopt(setting, &next);
            }
            if was != is {
                let list = match setting.online {
                    true => &mut told.changed,
                    false => &mut told.needs_restart,
                };
                list.push(setting.name);
            }
        }
        (self.apply)(&state.config);
        drop(state);
        let mut refused = Vec::new();
        for kept in &self.kept {
            match kept.reload() {
                Ok(changed) => told.changed.extend(changed),
                Err(what) => refused.push(what),
            }
        }
        match refused.is_empty() {
            true => Ok(told),
            false => Err(refused.join("; ")),
        }
    }

    /// Changes settings of the running server: all of them or none.
    ///
    /// # Errors
    ///
    /// [`Refused`], by name.
    pub fn change(&self, changes: &[(String, String)]) -> Result<Vec<&'static str>, Refused> {
        let mut state = self.lock();
        let mut config = state.config.clone();
        let mut changed = Vec::new();
        for (name, text) in changes {
            let setting = find(name).ok_or_else(|| Refused::Wrong(unknown_key(name)))?;
            let set = config.set(setting, text.into(), Origin::Online);
            set.map_err(|what| Refused::Wrong(format!("{name}: {what}")))?;
            if !setting.online {
                return Err(Refused::NeedsRestart(format!(
                    "{name} needs a restart: set it in the config file, the environment or a flag"
                )));
            }
            changed.push((setting.name, text));
        }
        state.config = config;
        for (name, text) in &changed {
            state.online.insert(name, (*text).clone());
        }
        (self.apply)(&state.config);
        Ok(changed.into_iter().map(|(name, _)| name).collect())
    }
}

impl Config {
    /// Takes one setting over from another configuration.
    fn adopt(&mut self, setting: &Setting, other: &Self) {
        match other.said.get(setting.name) {
            Some((value, origin)) => {
                (setting.take)(self, value);
                self.said
                    .insert(setting.name, (value.clone(), origin.clone()));
            }
            None => {
                self.said.remove(setting.name);
                if let Some(value) = default_of(setting) {
                    (setting.take)(self, &value);
                }
            }
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    struct Fixture {
        file: PathBuf,
        _dir: tempfile::TempDir,
        live: Live,
        seen: Arc<Mutex<Config>>,
    }

    fn fixture(text: &str) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("basalt.toml");
        fs::write(&file, text).unwrap();
        let layers = Layers {
            flags: Vec::new(),
            file: Some(file.clone()),
        };
        let config = layers.load().unwrap();
        let seen = Arc::new(Mutex::new(config.clone()));
        let tell = Arc::clone(&seen);
        let live = Live::new(layers, config, Vec::new(), move |config| {
            tell.lock().unwrap().clone_from(config);
        });
        Fixture {
            file,
            _dir: dir,
            live,
            seen,
        }
    }

    impl Fixture {
        fn slow(&self) -> Duration {
            self.seen.lock().unwrap().limits.budgets.slow_time
        }

        fn origin(&self, name: &str) -> String {
            let settings = self.live.settings();
            let found = settings.into_iter().find(|(one, ..)| one.name == name);
            found.unwrap().2.to_string()
        }
    }

    #[test]
    fn a_file_read_again_changes_what_can_change_and_names_the_rest() {
        let server = fixture("slow-request-time = \"2s\"\ncache-size = \"1MiB\"\n");
        fs::write(
            &server.file,
            "cache-size = \"2MiB\"\nlog-level = \"debug\"\n",
        )
        .unwrap();
        let told = server.live.reread().unwrap();
        assert_eq!(told.changed, ["log-level", "slow-request-time"]);
        assert_eq!(told.needs_restart, ["cache-size"]);
        assert_eq!(server.slow(), Duration::from_secs(1), "back at its default");
        assert_eq!(server.seen.lock().unwrap().cache_bytes, 1 << 20);
        assert_eq!(server.origin("slow-request-time"), "default");
    }

    #[test]
    fn a_file_that_does_not_parse_changes_nothing() {
        let server = fixture("slow-request-time = \"2s\"\n");
        fs::write(&server.file, "slow-request-time = \"3s\"\nlog-level = 7\n").unwrap();
        assert!(server.live.reread().unwrap_err().contains("log-level"));
        assert_eq!(server.slow(), Duration::from_secs(2));
    }

    #[test]
    fn changes_are_made_all_or_none_and_stay_above_the_file() {
        let server = fixture("slow-request-time = \"2s\"\n");
        let change = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect();
            server.live.change(&pairs)
        };
        let slow = ("slow-request-time", "5s");
        for (pairs, words) in [
            (
                &[slow, ("cache-size", "1MiB")][..],
                "cache-size needs a restart",
            ),
            (&[slow, ("log-lvel", "warn")], "did you mean \"log-level\"?"),
            (&[slow, ("log-level", "loud")], "log-level: \"loud\" is not"),
        ] {
            let (Refused::Wrong(what) | Refused::NeedsRestart(what)) = change(pairs).unwrap_err();
            assert!(what.contains(words), "{what}");
            assert_eq!(server.slow(), Duration::from_secs(2), "{what}");
        }
        assert_eq!(change(&[slow]).unwrap(), ["slow-request-time"]);
        assert_eq!(server.slow(), Duration::from_secs(5));
        fs::write(&server.file, "slow-request-time = \"3s\"\n").unwrap();
        assert_eq!(server.live.reread().unwrap().changed, [""; 0]);
        assert_eq!(server.slow(), Duration::from_secs(5));
        assert_eq!(server.origin("slow-request-time"), "online");
    }
}
