//! The quick way refuses what tonic's refuses: every caller, with a token or a certificate or neither, in plain text and over
//! TLS, is told the same on both, each refusal is one line of the audit log on both, and nothing is changed or shown.

use prost::Message as _;

use super::{
    overload::Kept,
    quick::{ROUTED, Told, ask, framed, shapes},
    secure::{Secure, rights_in, with_rights},
    *,
};

/// What may be done by whom that asks.
#[derive(Clone, Copy, Debug)]
enum May {
    /// It is not known who he is.
    Nobody,
    /// Known, without a right to any key.
    Nothing,
    /// Read and write keys that begin with `app/`, in the family `default`.
    App,
    /// Read everything.
    Read,
    /// Read and write everything.
    All,
}

impl May {
    fn code(self, is_write: bool, cf: &str, key: &[u8]) -> Code {
        let is_allowed = match self {
            Self::Nobody => return Code::Unauthenticated,
            Self::Nothing => false,
            Self::App => cf != "write" && key.starts_with(b"app/"),
            Self::Read => !is_write,
            Self::All => true,
        };
        match is_allowed {
            true => Code::Ok,
            false => Code::PermissionDenied,
        }
    }
}

/// A way to a server, and what may be done on it.
struct Caller {
    name: &'static str,
    channel: Channel,
    /// Header `authorization`, if there is one.
    token: Option<&'static str>,
    may: May,
}

const TOKENS: [(&str, Option<&str>, May); 8] = [
    ("nobody", None, May::Nobody),
    ("a stranger", Some("Bearer token-x"), May::Nobody),
    ("no token in it", Some("Bearer "), May::Nobody),
    ("another scheme", Some("Basic token-all"), May::Nobody),
    ("an operator", Some("Bearer token-operator"), May::Nothing),
    ("an application", Some("Bearer token-app"), May::App),
    ("a reader", Some("Bearer token-reader"), May::Read),
    ("one who may all", Some("Bearer token-all"), May::All),
];

fn with_tokens(channel: &Channel) -> Vec<Caller> {
    let callers = TOKENS.iter().map(|&(name, token, may)| Caller {
        name,
        channel: channel.clone(),
        token,
        may,
    });
    callers.collect()
}

const STORED: &[u8] = b"what was there";

/// Keys that are there before, in each family.
const KEYS: [(&str, &[u8]); 4] = [
    ("", b"app/k"),
    ("default", b"other"),
    ("write", b"app/k"),
    ("", b"app"),
];

/// Methods with their messages on a key.
fn requests(cf: &str, key: &[u8]) -> [(&'static str, bool, Vec<u8>); 3] {
    let (key, cf) = (Bytes::copy_from_slice(key), cf.to_owned());
    let get = RawGetRequest {
        key: key.clone(),
        cf: cf.clone(),
        ..RawGetRequest::default()
    };
    let put = RawPutRequest {
        key: key.clone(),
        cf: cf.clone(),
        // Its second time makes no difference.
        value: Bytes::from_static(STORED),
        ..RawPutRequest::default()
    };
    let delete = RawDeleteRequest {
        key,
        cf,
        ..RawDeleteRequest::default()
    };
    [
        ("RawGet", false, framed(&get.encode_to_vec())),
        ("RawDelete", true, framed(&delete.encode_to_vec())),
        ("RawPut", true, framed(&put.encode_to_vec())),
    ]
}

fn code_of(told: &Told) -> Code {
    Code::from_bytes(told.0.as_deref().unwrap_or("").as_bytes())
}

/// Lines of the audit log, without their times.
fn audit(kept: &Kept) -> Vec<serde_json::Value> {
    let text = kept.text();
    let lines = text.lines().filter(|line| line.contains("basalt::audit"));
    let lines = lines.map(|line| {
        let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("timestamp");
        line
    });
    lines.collect()
}

fn stored(server: &Fixture, cf: &'static str, key: &[u8]) -> Option<Bytes> {
    let ctx = storage::Context {
        region: None,
        key: Bytes::copy_from_slice(key),
        deadline: Instant::now() + Duration::from_secs(60),
    };
    let cf = if cf.is_empty() { "default" } else { cf };
    let found = server.storage.get_at_once(&ctx, cf, key);
    found.expect("in memory").unwrap()
}

async fn fill(server: &Fixture) {
    for (cf, key) in KEYS {
        let put = storage::Modify::Put {
            cf: if cf.is_empty() { "default" } else { cf },
            key: Bytes::copy_from_slice(key),
            value: Bytes::from_static(STORED),
        };
        let ctx = storage::Context {
            region: None,
            key: Bytes::copy_from_slice(key),
            deadline: Instant::now() + Duration::from_secs(60),
        };
        server.storage.write(ctx, vec![put]).await.unwrap();
    }
}

/// Every caller, method and key, both ways. Returns how many requests were refused.
async fn assert_both_ways_refuse(server: &Fixture, callers: &[Caller], kept: &Kept) -> usize {
    fill(server).await;
    let mut refused = 0;
    for caller in callers {
        for (cf, key) in KEYS {
            for (method, is_write, message) in requests(cf, key) {
                let what = format!("{} calls {method} of {cf:?} {key:?}", caller.name);
                let expected = caller.may.code(is_write, cf, key);
                let mut told = Vec::new();
                for headers in [&[][..], &[ROUTED]] {
                    let token = caller.token.map(|token| ("authorization", token));
                    let headers: Vec<_> = headers.iter().copied().chain(token).collect();
                    let before = audit(kept).len();
                    // The frame of a whole message.
                    let frames = shapes(&message).swap_remove(0).1;
                    let answer = ask(&caller.channel, method, &headers, frames).await;
                    assert_eq!(code_of(&answer), expected, "{what}: {answer:?}");
                    let noted = audit(kept).split_off(before);
                    assert_eq!(noted.len(), usize::from(expected != Code::Ok), "{what}");
                    if expected != Code::Ok {
                        refused += 1;
                        assert_eq!(noted[0]["method"], method, "{what}");
                        let shown = answer.2.windows(STORED.len()).any(|part| part == STORED);
                        assert!(!shown, "{what}");
                        assert_eq!(stored(server, cf, key).as_deref(), Some(STORED), "{what}");
                    }
                    told.push((answer, noted));
                }
                assert_eq!(told[0], told[1], "{what}");
            }
        }
    }
    let text = kept.text();
    let secrets = TOKENS
        .iter()
        .filter_map(|(_, token, _)| token.as_ref()?.split_once(' '));
    for (_, secret) in secrets.filter(|(_, secret)| !secret.is_empty()) {
        assert!(!text.contains(secret), "a token is in the log");
    }
    refused
}

#[tokio::test]
async fn with_tokens_in_plain_text() {
    let kept = Kept::default();
    let _guard = kept.begin();
    let (server, _dir) = with_rights().await;
    let callers = with_tokens(&server.channel);
    let refused = assert_both_ways_refuse(&server, &callers, &kept).await;
    assert!(refused > 100, "{refused}");
}

#[tokio::test]
async fn with_tokens_and_with_certificates_over_tls() {
    let kept = Kept::default();
    let _guard = kept.begin();
    let dir = tempfile::tempdir().unwrap();
    let file = rights_in(&dir);
    let secure = Secure::with(|config, _| config.auth_file = Some(file)).await;
    let mut callers = Vec::new();
    for (name, own, may) in [
        ("alice", secure.clients.sign("alice", &[]), May::App),
        ("mallory", secure.clients.sign("mallory", &[]), May::Nobody),
        ("a store", secure.own.clone(), May::Nothing),
    ] {
        let channel = secure.connect(&secure.stores, Some(&own)).await.unwrap();
        callers.push(Caller {
            name,
            channel: channel.clone(),
            token: None,
            may,
        });
        // A token wins over the certificate, also where it is wrong.
        callers.extend(with_tokens(&channel).into_iter().skip(1));
    }
    let refused = assert_both_ways_refuse(&secure.server, &callers, &kept).await;
    assert!(refused > 100, "{refused}");
    let addresses = audit(&kept);
    let mut known = addresses.iter().filter(|line| line["remote"] != "unknown");
    assert!(known.next().is_some(), "a refusal over TLS has its address");
}

#[tokio::test]
async fn with_tokens_over_tls_that_asks_for_no_certificate() {
    let kept = Kept::default();
    let _guard = kept.begin();
    let dir = tempfile::tempdir().unwrap();
    let file = rights_in(&dir);
    let secure = Secure::with(|config, _| {
        config.auth_file = Some(file);
        config.tls.client_ca = None;
    })
    .await;
    let channel = secure.connect(&secure.stores, None).await.unwrap();
    let callers = with_tokens(&channel);
    let refused = assert_both_ways_refuse(&secure.server, &callers, &kept).await;
    assert!(refused > 100, "{refused}");
}

/// Whoever is not known is refused before anything of his message matters; whoever is known is told the same on both ways.
#[tokio::test]
async fn whatever_a_request_looks_like() {
    let kept = Kept::default();
    let _guard = kept.begin();
    let (server, _dir) = with_rights().await;
    fill(&server).await;
    let [_, (delete, _, message), _] = requests("", b"other");
    for (at, (shape, _)) in shapes(&message).into_iter().enumerate() {
        for (token, is_known) in [("Bearer token-x", false), ("Bearer token-app", true)] {
            let mut told = Vec::new();
            for headers in [&[][..], &[ROUTED]] {
                let token = [("authorization", token)];
                let headers: Vec<_> = headers.iter().copied().chain(token).collect();
                let before = audit(&kept).len();
                let frames = shapes(&message).swap_remove(at).1;
                let answer = ask(&server.channel, delete, &headers, frames).await;
                assert_ne!(code_of(&answer), Code::Ok, "{shape}: {answer:?}");
                if !is_known {
                    assert_eq!(code_of(&answer), Code::Unauthenticated, "{shape}");
                }
                told.push((answer, audit(&kept).split_off(before)));
            }
            assert_eq!(told[0], told[1], "{shape}, known: {is_known}");
        }
    }
    for (cf, key) in KEYS {
        assert_eq!(stored(&server, cf, key).as_deref(), Some(STORED));
    }
}
