//! Who may do what: tokens and certificate names, their roles, and what a role grants.
//!
//! ```text
//! authorization: Bearer TOKEN --\
//!                                +--> Who --> may(right, family, key)? --> handler
//! certificate of the connection-/
//! ```
//! Promises: once a file of rights is there, whatever it does not grant is denied; tokens are kept as SHA-256 only; a
//! file that does not parse leaves the rights as they were; a refusal is one line of the audit log, without keys,
//! values or tokens.
//!
//! Not here: certificates themselves (`tls`), what each method needs (`service::admission`).

use std::{
    collections::{BTreeMap, HashMap},
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
};

use serde::Deserialize;
use tonic::Status;

use crate::{
    config::{live::Reload, parse_toml},
    logging::AUDIT,
    storage::family,
    tls::Identity,
};

/// Longest file of rights.
const MAX_FILE_LEN: u64 = 4 << 20;
/// Longest token in bytes; a longer one is none.
pub const MAX_TOKEN_LEN: usize = 512;
/// Shortest token that `basalt token` makes, in bytes of randomness.
pub const TOKEN_RANDOM_LEN: usize = 32;

/// What can be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Right {
    /// Get and scan.
    Read,
    /// Put and delete.
    Write,
    /// Everything of the administration.
    Admin,
}

impl Right {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }
}

/// Something that is allowed: on keys of a family that begin with a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    can: Vec<Right>,
    /// `None`: all of them.
    cf: Option<&'static str>,
    prefix: Vec<u8>,
}

impl Grant {
    fn covers(&self, right: Right, cf: &str, key: &[u8]) -> bool {
        self.can.contains(&right)
            && self.cf.is_none_or(|own| own == cf)
            && key.starts_with(&self.prefix)
    }
}

/// A caller that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// What the log calls it.
    name: String,
    grants: Vec<Grant>,
    /// Another store.
    is_peer: bool,
}

impl Who {
    /// Another store of the cluster.
    fn peer() -> Self {
        Self {
            name: "a store of the cluster".to_owned(),
            grants: Vec::new(),
            is_peer: true,
        }
    }

    /// What the log calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is another store.
    #[must_use]
    pub fn is_peer(&self) -> bool {
        self.is_peer
    }

    /// Whether it has a right on one key.
    #[must_use]
    pub fn may(&self, right: Right, cf: &str, key: &[u8]) -> bool {
        self.grants.iter().any(|grant| grant.covers(right, cf, key))
    }

    /// Whether it has the right to administrate.
    #[must_use]
    pub fn may_administrate(&self) -> bool {
        self.grants
            .iter()
            .any(|grant| grant.can.contains(&Right::Admin))
    }

    /// Whether it may read and write every key of every family.
    #[must_use]
    pub fn may_everything(&self) -> bool {
        let whole = |right: Right| {
            self.grants.iter().any(|grant| {
                grant.can.contains(&right) && grant.cf.is_none() && grant.prefix.is_empty()
            })
        };
        whole(Right::Read) && whole(Right::Write)
    }

    /// Where a scan from `start` has to end: the first key behind the widest grant that has its start. Nothing where no
    /// grant has; `Some(None)` where it may go on to the last key.
    #[must_use]
    pub fn scan_end(&self, cf: &str, start: &[u8]) -> Option<Option<Vec<u8>>> {
        let grants = self.grants.iter();
        let covering = grants.filter(|grant| grant.covers(Right::Read, cf, start));
        let widest = covering.min_by_key(|grant| grant.prefix.len())?;
        Some(behind(&widest.prefix))
    }
}

/// The first key behind all that begin with `prefix`, if there is one.
fn behind(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

/// SHA-256 of a token.
type Hash = [u8; 32];

/// The hash under which a token is kept.
#[must_use]
pub fn hash(token: &[u8]) -> Hash {
    let digest = ring::digest::digest(&ring::digest::SHA256, token);
    let mut hash = [0; 32];
    hash.copy_from_slice(digest.as_ref());
    hash
}

/// The rights of one moment.
#[derive(Debug, Default)]
struct Table {
    tokens: HashMap<Hash, Arc<Who>>,
    certificates: BTreeMap<String, Arc<Who>>,
}

/// The rights of a server.
#[derive(Debug)]
pub struct Auth {
    file: PathBuf,
    table: RwLock<Arc<Table>>,
    peer: Arc<Who>,
    /// Of the file as it was last looked at; nothing where it is to be read whatever its stamp.
    stamp: Mutex<Option<Option<Stamp>>>,
}

/// See `tls::stamp`.
type Stamp = (u64, std::time::SystemTime, u64);

impl Auth {
    /// Reads a file of rights. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// What is wrong with it, by line or by name.
    pub fn load(file: &Path) -> Result<Arc<Self>, String> {
        let stamp = Mutex::new(Some(crate::tls::stamp(file)));
        let table = RwLock::new(Arc::new(read(file)?));
        Ok(Arc::new(Self {
            file: file.to_path_buf(),
            table,
            peer: Arc::new(Who::peer()),
            stamp,
        }))
    }

    /// Who a caller is: by its token, if it has one, else by its certificate.
    ///
    /// # Errors
    ///
    /// `UNAUTHENTICATED`, without a reason that helps to guess.
    pub(crate) fn who(
        &self,
        authorization: Option<&[u8]>,
        identity: Option<&Identity>,
    ) -> Result<Arc<Who>, Status> {
        let table = Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner));
        let unknown = |what: &str| Err(Status::unauthenticated(what));
        if let Some(header) = authorization {
            let token = header.strip_prefix(b"Bearer ");
            let token = token.or_else(|| header.strip_prefix(b"bearer "));
            let token = token.filter(|token| token.len() <= MAX_TOKEN_LEN);
            let known = token.and_then(|token| table.tokens.get(&hash(token)));
            return match known {
                Some(who) => Ok(Arc::clone(who)),
                None => unknown("UNKNOWN_TOKEN: the token is not known here"),
            };
        }
        let names = identity.map_or(&[][..], |identity| &identity.names);
        if let Some(who) = names.iter().find_map(|name| table.certificates.get(name)) {
            return Ok(Arc::clone(who));
        }
        if identity.is_some_and(|identity| identity.is_peer) {
            return Ok(Arc::clone(&self.peer));
        }
        match names.is_empty() {
            true => unknown(
                "NOT_AUTHENTICATED: this server wants a token (authorization: Bearer ..., basalt: --token-file) or a \
                 certificate that it knows",
            ),
            false => unknown("UNKNOWN_CERTIFICATE: no name of the certificate is known here"),
        }
    }

    /// Reads the file again if it has changed since. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Why it is refused, or missing; once for each change.
    pub fn look(&self) -> Result<Option<&'static str>, String> {
        let stamp = crate::tls::stamp(&self.file);
        let mut last = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == Some(stamp) {
            return Ok(None);
        }
        *last = Some(stamp);
        let table =
            read(&self.file).map_err(|what| format!("the rights stay as they were: {what}"))?;
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
        Ok(Some("rights"))
    }
}

impl Reload for Auth {
    fn reload(&self) -> Result<Option<&'static str>, String> {
        let mut last = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        *last = None;
        drop(last);
        self.look()
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileForm {
    #[serde(default)]
    role: Vec<RoleForm>,
    #[serde(default)]
    token: Vec<TokenForm>,
    #[serde(default)]
    certificate: Vec<CertificateForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleForm {
    name: String,
    grants: Vec<GrantForm>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GrantForm {
    can: Vec<Right>,
    cf: Option<String>,
    prefix: Option<String>,
    prefix_hex: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenForm {
    name: String,
    sha256: String,
    roles: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CertificateForm {
    name: String,
    roles: Vec<String>,
}

fn read(file: &Path) -> Result<Table, String> {
    let shown = file.display();
    let len = fs::metadata(file).map(|data| data.len());
    let len = len.map_err(|error| format!("cannot read {shown}: {error}"))?;
    if len > MAX_FILE_LEN {
        return Err(format!(
            "{shown} has {len} bytes, the limit is {MAX_FILE_LEN}"
        ));
    }
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
    parse(&text).map_err(|what| format!("{shown}, {what}"))
}

fn parse(text: &str) -> Result<Table, String> {
    let form: FileForm = parse_toml(text)?
        .try_into()
        .map_err(|error: toml::de::Error| error.message().replace('\n', " "))?;
    let mut roles: BTreeMap<String, Vec<Grant>> = BTreeMap::new();
    for role in form.role {
        let name = role.name;
        let grants = role.grants.into_iter().map(|grant| {
            let granted = to_grant(grant);
            granted.map_err(|what| format!("role {name:?}: {what}"))
        });
        let grants = grants.collect::<Result<Vec<_>, _>>()?;
        if roles.insert(name.clone(), grants).is_some() {
            return Err(format!("role {name:?} is there twice"));
        }
    }
    let who = |kind: &str, name: &str, names: &[String]| -> Result<Arc<Who>, String> {
        let mut grants = Vec::new();
        for role in names {
            let known = roles.get(role);
            let known =
                known.ok_or_else(|| format!("{kind} {name:?}: there is no role {role:?}"))?;
            grants.extend(known.iter().cloned());
        }
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(format!("{name:?} is no name of a {kind}"));
        }
        let name = format!("{kind} {name}");
        let is_peer = false;
        Ok(Arc::new(Who {
            name,
            grants,
            is_peer,
        }))
    };
    let mut table = Table::default();
    for token in form.token {
        let name = &token.name;
        let bytes = from_hex(&token.sha256).and_then(|bytes| Hash::try_from(bytes).ok());
        let bytes = bytes.ok_or_else(|| format!("token {name:?}: sha256 is not 64 hex digits"))?;
        let known = who("token", name, &token.roles)?;
        if table.tokens.insert(bytes, known).is_some() {
            return Err(format!("token {name:?}: another one has the same hash"));
        }
    }
    for certificate in form.certificate {
        let name = certificate.name;
        let known = who("certificate", &name, &certificate.roles)?;
        if table.certificates.insert(name.clone(), known).is_some() {
            return Err(format!("certificate {name:?} is there twice"));
        }
    }
    Ok(table)
}

fn to_grant(form: GrantForm) -> Result<Grant, String> {
    let prefix = match (form.prefix, form.prefix_hex) {
        (Some(_), Some(_)) => return Err("prefix and prefix-hex exclude each other".to_owned()),
        (Some(text), None) => text.into_bytes(),
        (None, Some(hex)) => {
            from_hex(&hex).ok_or_else(|| format!("prefix-hex {hex:?} is not hex"))?
        }
        (None, None) => Vec::new(),
    };
    let cf = form.cf.map(|name| family(&name)).transpose();
    let cf = cf.map_err(|error| error.to_string())?;
    if form.can.is_empty() {
        return Err("a grant says what it can: read, write or admin".to_owned());
    }
    let is_limited = cf.is_some() || !prefix.is_empty();
    if is_limited && form.can.contains(&Right::Admin) {
        return Err("admin is a right on the whole server, not on a family or a prefix".to_owned());
    }
    Ok(Grant {
        can: form.can,
        cf,
        prefix,
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = (0..text.len()).step_by(2);
    pairs
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// Notes that somebody was turned away, and what he is told.
#[derive(Clone, Copy)]
pub(crate) struct Refusal<'a> {
    /// The method, by a name of our own.
    pub(crate) method: &'static str,
    /// Who it was, if known.
    pub(crate) who: Option<&'a str>,
    /// Where from, where the connection is known.
    pub(crate) remote: Option<std::net::SocketAddr>,
}

impl Refusal<'_> {
    /// The status of a caller without a right.
    pub(crate) fn right(self, right: Right, cf: &str) -> Status {
        let right = right.word();
        let status = Status::permission_denied(match cf {
            "" => format!("NOT_ALLOWED: this caller has no {right} right"),
            cf => {
                format!("NOT_ALLOWED: this caller has no {right} right on this key of family {cf}")
            }
        });
        self.note(&format!("no {right} right"), cf);
        status
    }

    /// Writes the line.
    pub(crate) fn note(self, why: &str, cf: &str) {
        let remote = self.remote.map(|remote| remote.to_string());
        tracing::warn!(
            target: AUDIT,
            method = self.method,
            who = self.who.unwrap_or("unknown"),
            remote = remote.as_deref().unwrap_or("unknown"),
            cf,
            why,
            "refused"
        );
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests;
