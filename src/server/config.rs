//! The settings of `basalt server`: default < config file < environment < flags.
//!
//! Every setting has one name: `--cache-size` on the command line is `cache-size` in the TOML file
//! and `BASALT_CACHE_SIZE` in the environment, with the same values. An unknown key of the file is
//! refused with the nearest name. An unknown variable is not: container platforms make variables of
//! their own from the name of a service.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    path::{Path, PathBuf},
};

use tracing::level_filters::LevelFilter;

use crate::{
    replicated::{MAX_ADDRESS_LEN, setup::parse_founders},
    storage::data_dir::MAX_CLUSTER_NAME_LEN,
};

/// Where the server listens when nothing else is said, and where commands look for it.
pub const DEFAULT_ADDR: &str = "127.0.0.1:20160";

/// Names of the settings, as flags and as keys of the config file.
const KEYS: [&str; 11] = [
    "path",
    "addr",
    "status-addr",
    "log-level",
    "cache-size",
    "write-buffer-size",
    "store-id",
    "initial-cluster",
    "cluster-name",
    "advertise-addr",
    "join",
];

/// Those of them that only a store of a cluster has.
const CLUSTER_KEYS: [&str; 5] = [
    "store-id",
    "initial-cluster",
    "cluster-name",
    "advertise-addr",
    "join",
];

/// Bytes of the smallest and the largest write buffer.
const WRITE_BUFFER_RANGE: (u64, u64) = (64 << 10, 1 << 30);
/// Bytes of the largest block cache.
const MAX_CACHE_BYTES: u64 = 1 << 40;

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
    /// The settings that some layer has set.
    said: BTreeSet<&'static str>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PathBuf::from("./basalt-data"),
            addr: DEFAULT_ADDR.to_owned(),
            status_addr: "127.0.0.1:20180".to_owned(),
            log_level: LevelFilter::INFO,
            cache_bytes: 128 << 20,
            write_buffer_bytes: 64 << 20,
            store_id: None,
            initial_cluster: BTreeMap::new(),
            cluster_name: None,
            advertise_addr: None,
            join: None,
            said: BTreeSet::new(),
        }
    }
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
        let variable = env("BASALT_CONFIG").map(PathBuf::from);
        if let Some(file) = config_flag.or(variable.as_deref()) {
            config.read_file(file)?;
        }
        for key in KEYS {
            let name = variable_name(key);
            if let Some(value) = env(&name) {
                config
                    .set(key, value)
                    .map_err(|what| format!("variable {name}: {what}"))?;
            }
        }
        for (key, value) in flags {
            config
                .set(key, value.clone())
                .map_err(|what| format!("flag --{key}: {what}"))?;
        }
        Ok(config)
    }

    /// The first setting that was set and only a store of a cluster has.
    #[must_use]
    pub fn cluster_setting(&self) -> Option<&'static str> {
        CLUSTER_KEYS.into_iter().find(|key| self.said.contains(key))
    }

    /// Where gRPC is served, if that was set.
    #[must_use]
    pub fn addr_if_said(&self) -> Option<String> {
        self.said.contains("addr").then(|| self.addr.clone())
    }

    /// Where the status pages are served, if that was set.
    #[must_use]
    pub fn status_addr_if_said(&self) -> Option<String> {
        let said = self.said.contains("status-addr");
        said.then(|| self.status_addr.clone())
    }

    fn read_file(&mut self, file: &Path) -> Result<(), String> {
        let shown = file.display();
        let text = std::fs::read_to_string(file)
            .map_err(|error| format!("cannot read the config file {shown}: {error}"))?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error
                .span()
                .map_or(1, |span| text[..span.start].lines().count().max(1));
            format!(
                "config file {shown}, line {line}: {}",
                error.message().replace('\n', " ")
            )
        })?;
        for (key, value) in table {
            if !KEYS.contains(&key.as_str()) {
                return Err(format!("config file {shown}: {}", unknown_key(&key)));
            }
            let value = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                other => {
                    let kind = other.type_str();
                    return Err(format!(
                        "config file {shown}: {key} cannot be of type {kind}"
                    ));
                }
            };
            self.set(&key, value.into())
                .map_err(|what| format!("config file {shown}: {key}: {what}"))?;
        }
        Ok(())
    }

    /// Sets one setting from its text; the error says what is wrong with the value.
    fn set(&mut self, key: &str, value: OsString) -> Result<(), String> {
        self.said.extend(KEYS.iter().find(|known| **known == key));
        if key == "path" {
            if value.is_empty() {
                return Err("an empty path names no directory".to_owned());
            }
            self.path = value.into();
            return Ok(());
        }
        let value = value
            .into_string()
            .map_err(|_| "the value is not UTF-8 text".to_owned())?;
        match key {
            "addr" => self.addr = check_addr(value)?,
            "status-addr" => self.status_addr = check_addr(value)?,
            "log-level" => self.log_level = parse_level(&value)?,
            "cache-size" => self.cache_bytes = parse_size(&value, (0, MAX_CACHE_BYTES))?,
            "write-buffer-size" => {
                self.write_buffer_bytes = parse_size(&value, WRITE_BUFFER_RANGE)?;
            }
            "store-id" => self.store_id = Some(parse_store_id(&value)?),
            "initial-cluster" => self.initial_cluster = parse_founders(&value, check_addr)?,
            "cluster-name" => self.cluster_name = Some(check_name(value)?),
            "advertise-addr" => self.advertise_addr = Some(check_addr(value)?),
            "join" => self.join = Some(check_addr(value)?),
            _ => unreachable!("callers take keys from KEYS"),
        }
        Ok(())
    }
}

fn variable_name(key: &str) -> String {
    format!("BASALT_{}", key.replace('-', "_").to_uppercase())
}

/// `HOST:PORT`, as far as its form goes.
fn check_addr(value: String) -> Result<String, String> {
    // Lists of addresses are written with commas and equals signs.
    let is_plain = value.len() <= MAX_ADDRESS_LEN
        && value
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b'=');
    match value.rsplit_once(':') {
        Some((host, port)) if is_plain && !host.is_empty() && port.parse::<u16>().is_ok() => {
            Ok(value)
        }
        _ => Err(format!("{value:?} is not an address of the form HOST:PORT")),
    }
}

fn parse_store_id(value: &str) -> Result<u64, String> {
    let parsed = value.parse::<u64>().ok().filter(|id| *id != 0);
    parsed.ok_or_else(|| format!("{value:?} is no id of a store: a number from 1 on"))
}

/// A name that stands on one line of a file.
fn check_name(value: String) -> Result<String, String> {
    let is_plain = value
        .chars()
        .all(|char| char.is_ascii_graphic() || char == ' ');
    if value.trim() != value || value.is_empty() || !is_plain || value.len() > MAX_CLUSTER_NAME_LEN
    {
        return Err(format!(
            "{value:?} is no name of a cluster: 1 to {MAX_CLUSTER_NAME_LEN} plain characters"
        ));
    }
    Ok(value)
}

fn parse_level(value: &str) -> Result<LevelFilter, String> {
    Ok(match value {
        "off" => LevelFilter::OFF,
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "info" => LevelFilter::INFO,
        "debug" => LevelFilter::DEBUG,
        "trace" => LevelFilter::TRACE,
        _ => {
            let levels = "off, error, warn, info, debug or trace";
            return Err(format!("{value:?} is not a level: {levels}"));
        }
    })
}

/// A number of bytes: digits, and `KiB`, `MiB` or `GiB` behind them.
fn parse_size(value: &str, (least, most): (u64, u64)) -> Result<usize, String> {
    let units = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("", 1),
    ];
    let (digits, unit) = units
        .into_iter()
        .find_map(|(suffix, unit)| Some((value.strip_suffix(suffix)?, unit)))
        .expect("the empty suffix fits everything");
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let bytes = digits.parse::<u64>().ok().filter(|_| is_number);
    let Some(bytes) = bytes.and_then(|count| count.checked_mul(unit)) else {
        return Err(format!(
            "{value:?} is not a size such as 1048576, 512KiB, 64MiB or 2GiB"
        ));
    };
    if bytes < least || bytes > most {
        return Err(format!("{bytes} bytes is outside of {least} to {most}"));
    }
    usize::try_from(bytes).map_err(|_| format!("{bytes} bytes is more than this machine addresses"))
}

fn unknown_key(key: &str) -> String {
    let mut text = format!("unknown key {key:?}");
    let nearest = KEYS.iter().map(|known| (distance(key, known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 3 => {
            let _ = write!(text, "; did you mean {known:?}?");
        }
        _ => {
            let _ = write!(text, "; there are {}", KEYS.join(", "));
        }
    }
    text
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
        assert!(refusal.contains("there are path, addr,"), "{refusal}");
    }

    #[test]
    fn a_bad_value_is_refused_in_one_sentence_that_names_its_place() {
        for (text, expected) in [
            ("addr = \"nowhere\"", "addr: \"nowhere\" is not an address"),
            ("addr = \":1\"", "is not an address"),
            ("addr = \"a:1,b:2\"", "is not an address"),
            ("advertise-addr = \"a b:1\"", "is not an address"),
            ("store-id = 0", "is no id of a store"),
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
            ("path = true", "path cannot be of type boolean"),
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
