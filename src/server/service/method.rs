//! The methods that there are, as far as admission cares: names, deadlines, what their callers have to be.
//!
//! Promises: a name is one of our own, never the client's text; a method that is not known to look at keys itself needs
//! the right to all of them.

use std::time::{Duration, Instant};

use axum::http;

use super::gate::Need;

/// The transport answers `CANCELLED` at a client's own deadline; ours comes this much earlier.
const DEADLINE_MARGIN: Duration = Duration::from_millis(2);

/// The method of a request as far as admission cares.
pub(super) struct Method {
    /// A name of our own, never the client's text.
    pub(super) name: &'static str,
    /// Of the services of data, TinyKV's and ours: what draining and limits are for.
    pub(super) is_tinykv: bool,
    pub(super) kind: Kind,
}

/// What is counted of a request, and for how long it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One request of a client, one answer.
    Request,
    /// A stream between stores.
    Peer,
    /// A question of gRPC health. Anybody may ask it, so it takes nothing from what others need.
    Check,
    /// A stream of gRPC health. So does this one; it lasts until its client goes.
    Watch,
    /// A stream of reflection; it lasts until its client goes.
    Reflection,
}

impl Kind {
    /// Whether it counts as a request in flight, with its bytes.
    pub(super) fn is_in_flight(self) -> bool {
        matches!(self, Self::Request | Self::Reflection)
    }

    /// Whether its answer ends only when somebody ends it.
    pub(super) fn lasts(self) -> bool {
        matches!(self, Self::Watch | Self::Reflection)
    }
}

impl Method {
    pub(super) fn of(path: &str) -> Self {
        let name = |known: &[&'static str], service: &str| {
            let method = path.strip_prefix(service)?;
            known.iter().copied().find(|name| *name == method)
        };
        if let Some(name) = name(&TINYKV_METHODS, "/tinykvpb.TinyKv/") {
            return Self {
                name,
                is_tinykv: true,
                kind: match PEER_METHODS.contains(&name) {
                    true => Kind::Peer,
                    false => Kind::Request,
                },
            };
        }
        if let Some(name) = name(&KV_METHODS, "/basaltpb.Kv/") {
            return Self {
                name,
                is_tinykv: true,
                kind: Kind::Request,
            };
        }
        let ours = name(&ADMIN_METHODS, "/basaltpb.Admin/");
        let ours = ours.or_else(|| name(&["Hello"], "/basaltpb.Peers/"));
        let (name, kind) = match ours {
            Some(name) => (name, Kind::Request),
            None if path.starts_with("/grpc.health.") => match path.ends_with("/Watch") {
                true => ("Health", Kind::Watch),
                false => ("Health", Kind::Check),
            },
            None if path.starts_with("/grpc.reflection.") => ("Reflection", Kind::Reflection),
            None => ("unknown", Kind::Request),
        };
        Self {
            name,
            is_tinykv: false,
            kind,
        }
    }

    /// When the client stops waiting: what it says, else ours. Maintenance and streams of the
    /// standard services may take as long as they take.
    pub(super) fn deadline(&self, headers: &http::HeaderMap, usual: Duration) -> Option<Instant> {
        if self.kind == Kind::Peer {
            return None;
        }
        let timeout = match headers
            .get("grpc-timeout")
            .and_then(|text| parse_timeout(text.as_bytes()))
        {
            Some(timeout) => timeout.saturating_sub(DEADLINE_MARGIN.min(timeout / 2)),
            None if self.is_tinykv || self.kind == Kind::Check => usual,
            None => return None,
        };
        Instant::now().checked_add(timeout)
    }
}

impl Method {
    /// What its caller has to be. Whatever is not known to look at keys itself needs the right to all of them.
    pub(super) fn need(&self) -> Need {
        match self.name {
            _ if self.kind == Kind::Peer => Need::Peer,
            "Hello" => Need::Peer,
            "RawGet" | "RawPut" | "RawDelete" | "RawScan" | "Batch" | "Scan" => Need::Keys,
            _ if self.is_tinykv => Need::Everything,
            "Health" => Need::Nothing,
            "Reflection" | "Members" => Need::Known,
            "Status" => Need::Look,
            "unknown" => Need::Known,
            _ => Need::Administration,
        }
    }
}

const TINYKV_METHODS: [&str; 14] = [
    "RawGet",
    "RawPut",
    "RawDelete",
    "RawScan",
    "KvGet",
    "KvScan",
    "KvPrewrite",
    "KvCommit",
    "KvCheckTxnStatus",
    "KvBatchRollback",
    "KvResolveLock",
    "Raft",
    "Snapshot",
    "Coprocessor",
];

/// Basalt's own service of data.
const KV_METHODS: [&str; 2] = ["Batch", "Scan"];

/// Those of TinyKV's that other stores call.
const PEER_METHODS: [&str; 2] = ["Raft", "Snapshot"];

const ADMIN_METHODS: [&str; 13] = [
    "Status",
    "Flush",
    "Compact",
    "Members",
    "AddMember",
    "RemoveMember",
    "TransferLeader",
    "Configure",
    "CompactWatched",
    "Backup",
    "Explain",
    "Stats",
    "Examine",
];

/// The time of a `grpc-timeout` header: up to eight digits and a unit. Anything else is no timeout.
fn parse_timeout(text: &[u8]) -> Option<Duration> {
    let (unit, digits) = text.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits
        .iter()
        .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Some(Duration::from_secs(count * 3600)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'S' => Some(Duration::from_secs(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_header_is_digits_and_a_unit_and_nothing_else() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("7n", Some(Duration::from_nanos(7))),
            ("0S", Some(Duration::ZERO)),
            ("", None),
            ("S", None),
            ("123456789S", None),
            ("-1S", None),
            ("1.5S", None),
            ("1s", None),
        ] {
            assert_eq!(parse_timeout(text.as_bytes()), expected, "{text:?}");
        }
    }

    /// The quick way of `front` goes by them.
    #[test]
    fn no_two_methods_have_one_name() {
        let mut names = [&TINYKV_METHODS[..], &ADMIN_METHODS, &KV_METHODS].concat();
        names.extend(["Hello", "Health", "Reflection", "unknown"]);
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None);
    }

    #[test]
    fn a_path_of_the_clients_own_is_counted_as_unknown() {
        assert_eq!(Method::of("/tinykvpb.TinyKv/RawGet").name, "RawGet");
        assert_eq!(Method::of("/basaltpb.Admin/Flush").name, "Flush");
        let scan = Method::of("/basaltpb.Kv/Scan");
        assert!(scan.name == "Scan" && scan.is_tinykv && scan.need() == Need::Keys);
        assert_eq!(Method::of("/grpc.health.v1.Health/Check").name, "Health");
        for path in [
            "/tinykvpb.TinyKv/RawGetx",
            "/tinykvpb.TinyKv/",
            "/x",
            "",
            "/basaltpb.Admin/RawGet",
        ] {
            assert_eq!(Method::of(path).name, "unknown", "{path}");
        }
    }
}
