//! The key browser: a page of keys of this store's own copy, in order.
//!
//! Promises: it reads, and never asks other stores: a follower shows what it has applied, which may be behind. At most
//! [`MAX_KEYS`] keys, [`MAX_SHOWN`] bytes of each key and value; no more than the caller's rights and the setting
//! `status-browse` allow.

use axum::http::StatusCode;
use basalt_engine::{ReadOptions, prefix_end};
use serde::Serialize;

use super::{
    Query,
    access::{Caller, Refused},
};
use crate::{
    config::Browse,
    limits::MAX_KEY_LEN,
    state::hex,
    storage::{Storage, family},
};

/// Keys of one page.
pub(super) const MAX_KEYS: u64 = 200;
/// Keys of a page where nothing is said.
const USUAL_KEYS: u64 = 50;
/// Bytes that are shown of a key or a value.
const MAX_SHOWN: usize = 1024;

/// What is asked for, and allowed.
pub(super) struct Wanted {
    cf: &'static str,
    from: Vec<u8>,
    /// First key not shown any more.
    end: Option<Vec<u8>>,
    limit: usize,
    with_values: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Page {
    cf: &'static str,
    /// `keys` or `values`.
    shows: &'static str,
    keys: Vec<Key>,
    /// Where the next page begins, in hex; null at the end.
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Key {
    /// Hex digits of its first bytes.
    key: String,
    key_bytes: usize,
    value_bytes: usize,
    /// Hex digits of its first bytes; null where values are not shown.
    value: Option<String>,
}

fn bytes(query: &Query, name: &str) -> Result<Vec<u8>, Refused> {
    let text = query.get(name).unwrap_or_default();
    let wrong = || Refused::wrong(format!("{name} is in hex digits, two a byte"));
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    if text.len() > 2 * (MAX_KEY_LEN + 1) {
        return Err(Refused::wrong(format!(
            "{name} is longer than a key may be"
        )));
    }
    let pairs = (0..text.len()).step_by(2);
    let bytes = pairs.map(|at| u8::from_str_radix(&text[at..at + 2], 16));
    bytes.collect::<Result<_, _>>().map_err(|_| wrong())
}

impl Wanted {
    /// Keys of a family that begin with `prefix`, from `from` on.
    pub(super) fn of(query: &Query, browse: Browse, caller: &Caller) -> Result<Self, Refused> {
        if browse == Browse::Off {
            return Err(Refused::forbidden(
                "the key browser is off here (setting status-browse)",
            ));
        }
        let cf = family(query.get("cf").unwrap_or_default());
        let cf = cf.map_err(|error| Refused::wrong(error.to_string()))?;
        let (from, prefix) = (bytes(query, "from")?, bytes(query, "prefix")?);
        let from = from.max(prefix.clone());
        let granted = caller.scan_end(cf, &from)?;
        let ends = [prefix_end(&prefix), granted];
        let limit = query.number("limit", USUAL_KEYS)?.clamp(1, MAX_KEYS);
        Ok(Self {
            cf,
            from,
            end: ends.into_iter().flatten().min(),
            limit: usize::try_from(limit).expect("it is clamped"),
            with_values: browse == Browse::Values,
        })
    }
}

fn head(bytes: &[u8]) -> String {
    hex(&bytes[..bytes.len().min(MAX_SHOWN)])
}

/// Reads the page. Blocks on the disk.
pub(super) fn read(storage: &dyn Storage, wanted: &Wanted) -> Result<Page, Refused> {
    let mut found = None;
    storage.engines(&mut |view| {
        if view.name != "kv" || found.is_some() {
            return;
        }
        let families = view.db.list_cfs();
        let mut families = families.into_iter();
        let family = families.find(|one| (view.word)(one.name()) == Some(wanted.cf));
        found = family.map(|family| (view.db.clone(), family));
    });
    let unable = |why: String| Refused::new(StatusCode::SERVICE_UNAVAILABLE, why);
    let (db, family) = found.ok_or_else(|| unable("the store is not open".to_owned()))?;
    let options = ReadOptions {
        lower: Some(wanted.from.clone()),
        upper: wanted.end.clone(),
        ..ReadOptions::default()
    };
    let failed = |error: basalt_engine::Error| unable(error.to_string());
    let mut page = Page {
        cf: wanted.cf,
        shows: if wanted.with_values { "values" } else { "keys" },
        keys: Vec::new(),
        next: None,
    };
    for pair in db.range(&family, &options).map_err(failed)? {
        let (key, value) = pair.map_err(failed)?;
        if page.keys.len() == wanted.limit {
            page.next = Some(hex(&key));
            break;
        }
        page.keys.push(Key {
            key: head(&key),
            key_bytes: key.len(),
            value_bytes: value.len(),
            value: wanted.with_values.then(|| head(&value)),
        });
    }
    Ok(page)
}
