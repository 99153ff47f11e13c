//! The table of settings: the one place that says which there are.
//!
//! Flags, variables, keys of the config file, validation, `basalt config` and `docs/configuration.md` come from it.
//!
//! Promises: names are unique and stay; a default parses.

use super::{Browse, Config, Kind, Value};

/// One setting of a server.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name: `--NAME`, `NAME = ...` in the file; the variable is [`Setting::variable`].
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// Its value where nothing is said; empty: none.
    pub default: &'static str,
    /// Where it belongs, in help and documents.
    pub group: Group,
    /// Takes effect in a running server; else at the next start.
    pub online: bool,
    /// One sentence.
    pub meaning: &'static str,
    /// Takes its value into a configuration.
    pub(super) take: fn(&mut Config, &Value),
}

/// Settings that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Where data is and how much memory it gets.
    Storage,
    /// Where the server listens.
    Network,
    /// The cluster that a store belongs to.
    Cluster,
    /// Certificates and rights.
    Security,
    /// How much at a time, and for how long.
    Limits,
    /// The log.
    Log,
}

impl Group {
    /// Its heading.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Storage => "Storage",
            Self::Network => "Network",
            Self::Cluster => "Cluster",
            Self::Security => "Security",
            Self::Limits => "Limits",
            Self::Log => "Log",
        }
    }
}

impl Setting {
    /// The name of its environment variable.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("BASALT_{}", self.name.replace('-', "_").to_uppercase())
    }
}

/// The setting of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// Every setting, group by group.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "path",
        kind: Kind::Path,
        default: "./basalt-data",
        group: Group::Storage,
        online: false,
        meaning: "Data directory",
        take: |config, value| config.path = value.path(),
    },
    Setting {
        name: "cache-size",
        kind: Kind::Size(0, 1024 * GIB),
        default: "128MiB",
        group: Group::Storage,
        online: false,
        meaning: "Memory for decompressed blocks",
        take: |config, value| config.cache_bytes = value.bytes(),
    },
    Setting {
        name: "write-buffer-size",
        kind: Kind::Size(64 * KIB, GIB),
        default: "64MiB",
        group: Group::Storage,
        online: false,
        meaning: "Memory of a memtable before it is written to a table, per column family",
        take: |config, value| config.write_buffer_bytes = value.bytes(),
    },
    Setting {
        name: "backup-dir",
        kind: Kind::Path,
        default: "",
        group: Group::Storage,
        online: false,
        meaning: "Directory of backups that `basalt backup` may have the server write, list, verify and remove; without it, it does none of these",
        take: |config, value| config.backup_dir = Some(value.path()),
    },
    Setting {
        name: "addr",
        kind: Kind::Address,
        default: super::DEFAULT_ADDR,
        group: Group::Network,
        online: false,
        meaning: "Address of the gRPC services",
        take: |config, value| config.addr = value.text(),
    },
    Setting {
        name: "status-addr",
        kind: Kind::Address,
        default: "127.0.0.1:20180",
        group: Group::Network,
        online: false,
        meaning: "Address of the web page, and of /livez, /readyz, /health, /status and /metrics",
        take: |config, value| config.status_addr = value.text(),
    },
    Setting {
        name: "store-id",
        kind: Kind::Count(1, u64::MAX),
        default: "",
        group: Group::Cluster,
        online: false,
        meaning: "Which store of its cluster this is",
        take: |config, value| config.store_id = Some(value.count()),
    },
    Setting {
        name: "initial-cluster",
        kind: Kind::Founders,
        default: "",
        group: Group::Cluster,
        online: false,
        meaning: "The stores that found the cluster, and where each is reached, as 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT",
        take: |config, value| {
            if let Value::Founders(founders) = value {
                config.initial_cluster.clone_from(founders);
            }
        },
    },
    Setting {
        name: "cluster-name",
        kind: Kind::Name,
        default: "",
        group: Group::Cluster,
        online: false,
        meaning: "What the founders call their cluster, `basalt` unless said: clusters of different names never mix",
        take: |config, value| config.cluster_name = Some(value.text()),
    },
    Setting {
        name: "advertise-addr",
        kind: Kind::Address,
        default: "",
        group: Group::Cluster,
        online: false,
        meaning: "Where others reach this store, if not at --addr",
        take: |config, value| config.advertise_addr = Some(value.text()),
    },
    Setting {
        name: "join",
        kind: Kind::Address,
        default: "",
        group: Group::Cluster,
        online: false,
        meaning: "Join the cluster of this store with an empty directory, and wait to be added",
        take: |config, value| config.join = Some(value.text()),
    },
    Setting {
        name: "tls-cert",
        kind: Kind::Path,
        default: "",
        group: Group::Security,
        online: false,
        meaning: "Certificate chain of this server (PEM); with it, everything is served over TLS. The file is read again when it changes",
        take: |config, value| config.tls.cert = Some(value.path()),
    },
    Setting {
        name: "tls-key",
        kind: Kind::Path,
        default: "",
        group: Group::Security,
        online: false,
        meaning: "Private key of --tls-cert (PEM)",
        take: |config, value| config.tls.key = Some(value.path()),
    },
    Setting {
        name: "tls-client-ca",
        kind: Kind::Path,
        default: "",
        group: Group::Security,
        online: false,
        meaning: "Authorities that sign the certificates of clients (PEM); with it, every client must show one",
        take: |config, value| config.tls.client_ca = Some(value.path()),
    },
    Setting {
        name: "tls-peer-ca",
        kind: Kind::Path,
        default: "",
        group: Group::Security,
        online: false,
        meaning: "Authorities that sign the certificates of the stores of the cluster (PEM); a cluster with TLS needs it, and only stores should have such certificates",
        take: |config, value| config.tls.peer_ca = Some(value.path()),
    },
    Setting {
        name: "auth-file",
        kind: Kind::Path,
        default: "",
        group: Group::Security,
        online: false,
        meaning: "Who may do what (TOML, see docs/operations/security.md); with it, everything else is denied. The file is read again when it changes",
        take: |config, value| config.auth_file = Some(value.path()),
    },
    Setting {
        name: "insecure",
        kind: Kind::Switch,
        default: "false",
        group: Group::Security,
        online: false,
        meaning: "Serve plain text also on an address that other machines reach",
        take: |config, value| config.insecure = value.is_on(),
    },
    Setting {
        name: "status-plain",
        kind: Kind::Switch,
        default: "false",
        group: Group::Security,
        online: false,
        meaning: "Serve the status pages as plain text although --tls-cert is set, for probes and collectors that have no certificate",
        take: |config, value| config.status_plain = value.is_on(),
    },
    Setting {
        name: "status-browse",
        kind: Kind::Choice(Browse::WORDS),
        default: "keys",
        group: Group::Security,
        online: true,
        meaning: "What the key browser of the web page shows: nothing, keys, or keys and values. Without --auth-file only to callers on this machine, with it only what their rights allow",
        take: |config, value| config.browse = Browse::of(&value.text()),
    },
    Setting {
        name: "max-connections",
        kind: Kind::Count(1, 65_536),
        default: "4096",
        group: Group::Limits,
        online: false,
        meaning: "Open gRPC connections; one more is closed at once",
        take: |config, value| config.limits.connections = value.number(),
    },
    Setting {
        name: "max-streams-per-connection",
        kind: Kind::Count(1, 65_536),
        default: "256",
        group: Group::Limits,
        online: false,
        meaning: "Requests at a time on one connection; more wait in the client",
        take: |config, value| config.limits.streams = value.small(),
    },
    Setting {
        name: "max-header-size",
        kind: Kind::Size(4 * KIB, MIB),
        default: "16KiB",
        group: Group::Limits,
        online: false,
        meaning: "Headers of one request",
        take: |config, value| config.limits.header_len = value.small(),
    },
    Setting {
        name: "max-requests-in-flight",
        kind: Kind::Count(1, 1_000_000),
        default: "8192",
        group: Group::Limits,
        online: true,
        meaning: "Requests of clients being worked on; one more is answered RESOURCE_EXHAUSTED",
        take: |config, value| config.limits.budgets.requests = value.number(),
    },
    Setting {
        name: "max-request-bytes-in-flight",
        kind: Kind::Size(16 * MIB, 64 * GIB),
        default: "256MiB",
        group: Group::Limits,
        online: true,
        meaning: "Bytes of all requests being worked on; one that would pass them is answered RESOURCE_EXHAUSTED",
        take: |config, value| config.limits.budgets.request_bytes = value.bytes(),
    },
    Setting {
        name: "max-answer-bytes-in-flight",
        kind: Kind::Size(16 * MIB, 64 * GIB),
        default: "128MiB",
        group: Group::Limits,
        online: true,
        meaning: "Bytes of all answers that clients have not taken; one that would pass them is answered RESOURCE_EXHAUSTED",
        take: |config, value| config.limits.budgets.answer_bytes = value.bytes(),
    },
    Setting {
        name: "request-timeout",
        kind: Kind::Time(10, HOUR),
        default: "10s",
        group: Group::Limits,
        online: true,
        meaning: "Time for a request that states no deadline",
        take: |config, value| config.limits.budgets.request_time = value.time(),
    },
    Setting {
        name: "answer-timeout",
        kind: Kind::Time(SECOND, HOUR),
        default: "1m",
        group: Group::Limits,
        online: true,
        meaning: "Time a client has to take a long answer",
        take: |config, value| config.limits.budgets.answer_time = value.time(),
    },
    Setting {
        name: "log-level",
        kind: Kind::Level,
        default: "info",
        group: Group::Log,
        online: true,
        meaning: "Least important events that are logged; refusals of callers (basalt::audit) always are",
        take: |config, value| config.log_level = value.level(),
    },
    Setting {
        name: "slow-request-time",
        kind: Kind::Time(1, HOUR),
        default: "1s",
        group: Group::Log,
        online: true,
        meaning: "Requests that take longer are logged, with the time of each stage",
        take: |config, value| config.limits.budgets.slow_time = value.time(),
    },
];
