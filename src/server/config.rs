//! The settings of `basalt server`: default < config file < environment < flags < what is changed while it runs.
//!
//! Every setting has one name: `--cache-size` on the command line is `cache-size` in the TOML file
//! and `BASALT_CACHE_SIZE` in the environment, with the same values. [`SETTINGS`] is the table of them. An unknown
//! key of the file is refused with the nearest name. An unknown variable is not: container platforms make variables
//! of their own from the name of a service.
//!
//! Not here: what a running server does with a change (`live`), what is in the files that settings name.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use tracing::level_filters::LevelFilter;

use crate::service::admission::Budgets;

pub mod document;
pub mod live;
mod table;
mod value;

pub use table::{Group, SETTINGS, Setting, find};
pub use value::{Kind, Value};

/// Where the server listens when nothing else is said, and where commands look for it.
pub const DEFAULT_ADDR: &str = "127.0.0.1:20160";

/// The variable that names the config file.
pub const FILE_VARIABLE: &str = "BASALT_CONFIG";

/// Where a value comes from; a later one wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was said.
    Default,
    /// This config file.
    File(PathBuf),
    /// An environment variable.
    Environment,
    /// A flag.
    Flag,
    /// Changed while the server runs; lost with it.
    Online,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Environment => f.write_str("environment"),
            Self::Flag => f.write_str("flag"),
            Self::Online => f.write_str("online"),
        }
    }
}

/// What the key browser of the web page shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Browse {
    /// Nothing.
    Off,
    /// Keys and the sizes of their values.
    #[default]
    Keys,
    /// Keys and values.
    Values,
}

impl Browse {
    /// Its words, from the least to the most.
    const WORDS: &'static [&'static str] = &["off", "keys", "values"];

    fn of(word: &str) -> Self {
        match word {
            "off" => Self::Off,
            "keys" => Self::Keys,
            "values" => Self::Values,
            other => unreachable!("the table takes {other:?} for a word of it"),
        }
    }

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Keys => "keys",
            Self::Values => "values",
        }
    }
}

/// The files of certificates and keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain of this server; TLS is on with it.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// Authorities of clients; with them a client must show a certificate.
    pub client_ca: Option<PathBuf>,
    /// Authorities of the stores of the cluster.
    pub peer_ca: Option<PathBuf>,
}

/// How much at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Open gRPC connections.
    pub connections: usize,
    /// Requests at a time on one of them.
    pub streams: u32,
    /// Bytes of the headers of one request.
    pub header_len: u32,
    /// What all requests share.
    pub budgets: Budgets,
}

/// The settings of a server, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The data directory.
    pub path: PathBuf,
    /// Where gRPC is served, `HOST:PORT`.
    pub addr: String,
    /// Where the status pages are served, `HOST:PORT`.
    pub status_addr: String,
    /// Least important events that are logged.
    pub log_level: LevelFilter,
    /// Bytes of decompressed blocks kept in memory.
    pub cache_bytes: usize,
    /// Bytes of a memtable before it is written to a table, in each column family.
    pub write_buffer_bytes: usize,
    /// Where the server may write backups.
    pub backup_dir: Option<PathBuf>,
    /// Which store of its cluster this is.
    pub store_id: Option<u64>,
    /// Where others reach the founders of the cluster; empty for a standalone store.
    pub initial_cluster: BTreeMap<u64, String>,
    /// What the founders call their cluster.
    pub cluster_name: Option<String>,
    /// Where others reach this store, if it is not where it listens.
    pub advertise_addr: Option<String>,
    /// A store of the cluster that this one joins.
    pub join: Option<String>,
    /// Certificates and keys.
    pub tls: TlsFiles,
    /// Who may do what.
    pub auth_file: Option<PathBuf>,
    /// Plain text beyond this machine is meant so.
    pub insecure: bool,
    /// The status pages are plain text whatever the rest is.
    pub status_plain: bool,
    /// What the key browser shows.
    pub browse: Browse,
    /// How much at a time.
    pub limits: Limits,
    /// The settings that some layer has set: their values, and the highest layer.
    said: BTreeMap<&'static str, (Value, Origin)>,
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Self {
            path: PathBuf::new(),
            addr: String::new(),
            status_addr: String::new(),
            log_level: LevelFilter::INFO,
            cache_bytes: 0,
            write_buffer_bytes: 0,
            backup_dir: None,
            store_id: None,
            initial_cluster: BTreeMap::new(),
            cluster_name: None,
            advertise_addr: None,
            join: None,
            tls: TlsFiles::default(),
            auth_file: None,
            insecure: false,
            status_plain: false,
            browse: Browse::default(),
            limits: Limits::default(),
            said: BTreeMap::new(),
        };
        for setting in SETTINGS {
            if let Some(value) = default_of(setting) {
                (setting.take)(&mut config, &value);
            }
        }
        config
    }
}

fn default_of(setting: &Setting) -> Option<Value> {
    let text = Some(setting.default).filter(|text| !text.is_empty())?;
    let parsed = setting.kind.parse(text.into());
    Some(parsed.expect("the defaults of the table parse"))
}

impl Config {
    /// Puts the layers together: the defaults, the file `--config` or `BASALT_CONFIG` names, the
    /// environment (`env` answers a variable), the flags.
    ///
    /// # Errors
    ///
    /// One sentence that names the layer, the setting and what is wrong with it.
    pub fn load(
        flags: &[(&'static str, OsString)],
        config_flag: Option<&Path>,
        env: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, String> {
        let mut config = Self::default();
        let variable = env(FILE_VARIABLE).map(PathBuf::from);
        if let Some(file) = config_flag.or(variable.as_deref()) {
            config.read_file(file)?;
        }
        for setting in SETTINGS {
            let name = setting.variable();
            if let Some(value) = env(&name) {
                config
                    .set(setting, value, Origin::Environment)
                    .map_err(|what| format!("variable {name}: {what}"))?;
            }
        }
        for (key, value) in flags {
            let setting = find(key).ok_or_else(|| unknown_key(key))?;
            config
                .set(setting, value.clone(), Origin::Flag)
                .map_err(|what| format!("flag --{key}: {what}"))?;
        }
        Ok(config)
    }

    /// The first setting that was set and only a store of a cluster has.
    #[must_use]
    pub fn cluster_setting(&self) -> Option<&'static str> {
        let mut cluster = SETTINGS.iter().filter(|one| one.group == Group::Cluster);
        let said = cluster.find(|one| self.said.contains_key(one.name));
        said.map(|one| one.name)
    }

    /// Where gRPC is served, if that was set.
    #[must_use]
    pub fn addr_if_said(&self) -> Option<String> {
        let said = self.said.contains_key("addr");
        said.then(|| self.addr.clone())
    }

    /// Where the status pages are served, if that was set.
    #[must_use]
    pub fn status_addr_if_said(&self) -> Option<String> {
        let said = self.said.contains_key("status-addr");
        said.then(|| self.status_addr.clone())
    }

    /// The value of a setting as it is shown, and where it comes from; empty where there is none.
    #[must_use]
    pub fn shown(&self, setting: &Setting) -> (String, Origin) {
        match self.said.get(setting.name) {
            Some((value, origin)) => (value.to_string(), origin.clone()),
            None => {
                let value = default_of(setting).map(|value| value.to_string());
                (value.unwrap_or_default(), Origin::Default)
            }
        }
    }

    fn read_file(&mut self, file: &Path) -> Result<(), String> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read the config file {shown}: {error}"))?;
        let table = parse_toml(&text).map_err(|what| format!("config file {shown}, {what}"))?;
        for (key, value) in table {
            let Some(setting) = find(&key) else {
                return Err(format!("config file {shown}: {}", unknown_key(&key)));
            };
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Boolean(is_on) => is_on.to_string(),
                other => {
                    let kind = other.type_str();
                    return Err(format!(
                        "config file {shown}: {key} cannot be of type {kind}"
                    ));
                }
            };
            self.set(setting, value.into(), Origin::File(file.to_path_buf()))
                .map_err(|what| format!("config file {shown}: {key}: {what}"))?;
        }
        Ok(())
    }

    /// Sets one setting from its text.
    ///
    /// # Errors
    ///
    /// What is wrong with the value.
    pub(crate) fn set(
        &mut self,
        setting: &'static Setting,
        text: OsString,
        origin: Origin,
    ) -> Result<(), String> {
        let value = setting.kind.parse(text)?;
        (setting.take)(self, &value);
        self.said.insert(setting.name, (value, origin));
        Ok(())
    }
}

/// A TOML document; what is wrong with it begins with its line.
///
/// # Errors
///
/// `line N: ...`, on one line.
pub(crate) fn parse_toml(text: &str) -> Result<toml::Table, String> {
    text.parse().map_err(|error: toml::de::Error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("line {line}: {}", error.message().replace('\n', " "))
    })
}

/// What is said of a key that is none.
#[must_use]
pub(crate) fn unknown_key(key: &str) -> String {
    let names: Vec<&str> = SETTINGS.iter().map(|setting| setting.name).collect();
    let mut text = format!("unknown key {key:?}");
    match nearest(key, &names) {
        Some(known) => {
            let _ = write!(text, "; did you mean {known:?}?");
        }
        None => {
            let _ = write!(text, "; there are {}", names.join(", "));
        }
    }
    text
}

/// The one of `names` that is meant by a word a few slips away from it.
pub(crate) fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let near = names.iter().map(|known| (distance(word, known), *known));
    let (distance, known) = near.min()?;
    (distance <= 3).then_some(known)
}

/// Levenshtein distance: insertions, removals and replacements of a character from `a` to `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no_env(_: &str) -> Option<OsString> {
        None
    }

    fn load_file(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("basalt.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&[], Some(&file), no_env)
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let config = Config::load(&[], None, no_env).unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.addr, "127.0.0.1:20160");
        assert_eq!(config.status_addr, "127.0.0.1:20180");
        assert_eq!(config.path, Path::new("./basalt-data"));
    }

    #[test]
    fn flags_win_over_the_environment_and_it_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("basalt.toml");
        let text = "path = \"from-file\"\naddr = \"file:1\"\ncache-size = \"1MiB\"\n\
                    write-buffer-size = 65536\nlog-level = \"debug\"\n";
        std::fs::write(&file, text).unwrap();
        let env = |name: &str| match name {
            "BASALT_CONFIG" => Some(file.clone().into()),
            "BASALT_ADDR" => Some("env:2".into()),
            "BASALT_CACHE_SIZE" => Some("2MiB".into()),
            _ => None,
        };
        let flags = [("cache-size", "3MiB".into())];
        let config = Config::load(&flags, None, env).unwrap();
        assert_eq!(config.path, Path::new("from-file"));
        assert_eq!(config.addr, "env:2");
        assert_eq!(config.cache_bytes, 3 << 20);
        assert_eq!(config.write_buffer_bytes, 65536);
        assert_eq!(config.log_level, LevelFilter::DEBUG);
        assert_eq!(config.status_addr, Config::default().status_addr);
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_name() {
        let refusal = load_file("status_addr = \"h:1\"\n").unwrap_err();
        assert!(refusal.ends_with("unknown key \"status_addr\"; did you mean \"status-addr\"?"));
        let refusal = load_file("colour = 1\n").unwrap_err();
        assert!(refusal.contains("there are path, cache-size,"), "{refusal}");
    }

    #[test]
    fn a_bad_value_is_refused_in_one_sentence_that_names_its_place() {
        for (text, expected) in [
            ("addr = \"nowhere\"", "addr: \"nowhere\" is not an address"),
            ("addr = \":1\"", "is not an address"),
            ("addr = \"a:1,b:2\"", "is not an address"),
            ("advertise-addr = \"a b:1\"", "is not an address"),
            ("store-id = 0", "is not a number from 1 on"),
            ("insecure = 1", "neither true nor false"),
            ("request-timeout = 5", "is not a time"),
            ("initial-cluster = \"1=a\"", "is not an address"),
            ("cluster-name = \"\"", "is no name of a cluster"),
            ("cluster-name = \" x\"", "is no name of a cluster"),
            ("addr = \"h:70000\"", "is not an address"),
            ("log-level = \"loud\"", "is not a level"),
            ("cache-size = \"1MB\"", "is not a size"),
            ("cache-size = -1", "is not a size"),
            ("cache-size = \"+1\"", "is not a size"),
            ("cache-size = \"99999999999GiB\"", "is not a size"),
            ("cache-size = \"1025GiB\"", "outside of 0 to"),
            ("write-buffer-size = 1", "outside of 65536 to"),
            ("path = [1]", "path cannot be of type array"),
            ("path = \"\"", "empty path"),
            ("\n\npath = ", "line 3"),
        ] {
            let refusal = load_file(text).unwrap_err();
            assert!(refusal.contains(expected), "{text:?} gave {refusal:?}");
            assert!(!refusal.contains('\n'), "{refusal:?}");
            assert!(refusal.contains("basalt.toml"), "{refusal:?}");
        }
        let refusal = Config::load(&[], Some(Path::new("/no/such/file")), no_env).unwrap_err();
        assert!(
            refusal.starts_with("cannot read the config file /no/such/file"),
            "{refusal}"
        );
        let flags = [("log-level", "x".into())];
        let refusal = Config::load(&flags, None, no_env).unwrap_err();
        assert!(refusal.starts_with("flag --log-level: "), "{refusal}");
        let env = |name: &str| (name == "BASALT_STATUS_ADDR").then(|| "x".into());
        let refusal = Config::load(&[], None, env).unwrap_err();
        assert!(
            refusal.starts_with("variable BASALT_STATUS_ADDR: "),
            "{refusal}"
        );
    }

    #[test]
    fn names_are_unique_plain_and_their_defaults_parse() {
        for (index, setting) in SETTINGS.iter().enumerate() {
            let name = setting.name;
            let is_plain = name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'-');
            assert!(is_plain && !name.is_empty(), "{name}");
            assert!(
                SETTINGS[..index].iter().all(|other| other.name != name),
                "{name}"
            );
            assert!(!setting.meaning.ends_with('.'), "{name}");
            let (shown, origin) = Config::default().shown(setting);
            assert_eq!((shown.as_str(), origin), (setting.default, Origin::Default));
        }
    }

    #[test]
    fn the_origin_is_the_highest_layer_that_says_something() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("basalt.toml");
        std::fs::write(
            &file,
            "insecure = true\nlog-level = \"warn\"\naddr = \"f:1\"\n",
        )
        .unwrap();
        let env = |name: &str| (name == "BASALT_LOG_LEVEL").then(|| "error".into());
        let flags = [("addr", "g:1".into())];
        let config = Config::load(&flags, Some(&file), env).unwrap();
        for (name, value, origin) in [
            ("insecure", "true", Origin::File(file.clone())),
            ("log-level", "error", Origin::Environment),
            ("addr", "g:1", Origin::Flag),
            ("cache-size", "128MiB", Origin::Default),
            ("join", "", Origin::Default),
        ] {
            assert_eq!(
                config.shown(find(name).unwrap()),
                (value.to_owned(), origin),
                "{name}"
            );
        }
        assert!(config.insecure && config.log_level == LevelFilter::ERROR);
    }

    #[test]
    fn the_distance_of_two_words_counts_single_changes() {
        for (a, b, expected) in [
            ("", "", 0),
            ("path", "path", 0),
            ("pth", "path", 1),
            ("ptah", "path", 2),
            ("", "abc", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a:?} {b:?}");
            assert_eq!(distance(b, a), expected, "{b:?} {a:?}");
        }
    }
}
