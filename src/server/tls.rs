//! TLS: certificates from files, both ends of a connection, and what is said when one does not come about.
//!
//! ```text
//! files --> Loaded --> accept: SecureListener --> Caller (names, store or client) --> service::admission
//!             |
//!             +------> connect: Connector --> another store; the command line's server
//! ```
//! Promises: TLS 1.3 only; a certificate or key that does not fit is refused by file and reason, at the start and when
//! the files change (then the old ones stay); connections that stand are never touched by a change. A caller that is
//! turned away learns no more than TLS tells it; the log has the reason.
//!
//! Not here: who may do what (`auth`).

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, UnixTime, pem::PemObject as _},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::config::{TlsFiles, live::Reload};

mod accept;
mod names;

pub use accept::{Caller, Identity, SecureConnection, SecureListener};
pub(crate) use basalt_client::tls::{Connector, explain};
pub use names::Subject;

/// What is spoken in a gRPC connection, as TLS names it.
const H2: &[u8] = b"h2";
/// The same of a status page.
const HTTP1: &[u8] = b"http/1.1";

/// Longest file of certificates or of a key.
const MAX_FILE_LEN: u64 = 1 << 20;

/// Certificates that end within this time are warned of.
const SOON: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A chain with its key.
pub(crate) type Chain = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// What the files hold at one moment.
pub(crate) struct Loaded {
    pub(crate) grpc: Arc<ServerConfig>,
    pub(crate) pages: Arc<ServerConfig>,
    /// How other stores are reached, where there may be some.
    pub(crate) to_peers: Option<Arc<ClientConfig>>,
    /// Who is a store.
    pub(crate) peers: Option<Arc<dyn ClientCertVerifier>>,
    /// When the certificate of this server ends.
    not_after: SystemTime,
}

/// The certificates of a server.
pub struct Tls {
    files: Files,
    loaded: RwLock<Arc<Loaded>>,
    /// The files as they were when they were last read, whatever came of it.
    stamp: Mutex<Vec<Stamp>>,
}

/// The files that a server with TLS has.
#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    peer_ca: Option<PathBuf>,
}

/// What tells that a file has changed: its length, when it was written, and which it is.
type Stamp = Option<(u64, SystemTime, u64)>;

impl Files {
    fn all(&self) -> impl Iterator<Item = &PathBuf> {
        let own = [Some(&self.cert), Some(&self.key)];
        let authorities = [self.client_ca.as_ref(), self.peer_ca.as_ref()];
        own.into_iter().chain(authorities).flatten()
    }

    fn stamp(&self) -> Vec<Stamp> {
        self.all().map(|path| stamp(path)).collect()
    }
}

/// What tells that a file has changed.
pub(crate) fn stamp(path: &Path) -> Stamp {
    use std::os::unix::fs::MetadataExt as _;
    let data = fs::metadata(path).ok()?;
    Some((data.len(), data.modified().ok()?, data.ino()))
}

impl Tls {
    /// Reads the files that the settings name; nothing where TLS is off. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Which setting or which file is wrong, and how.
    pub fn load(files: &TlsFiles) -> Result<Option<Arc<Self>>, String> {
        let (cert, key) = match (&files.cert, &files.key) {
            (None, None) => {
                let authorities = [
                    ("tls-client-ca", &files.client_ca),
                    ("tls-peer-ca", &files.peer_ca),
                ];
                return match authorities.iter().find(|(_, file)| file.is_some()) {
                    Some((name, _)) => Err(format!("--{name} needs --tls-cert and --tls-key")),
                    None => Ok(None),
                };
            }
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (Some(_), None) => return Err("--tls-cert needs --tls-key".to_owned()),
            (None, Some(_)) => return Err("--tls-key needs --tls-cert".to_owned()),
        };
        let files = Files {
            cert,
            key,
            client_ca: files.client_ca.clone(),
            peer_ca: files.peer_ca.clone(),
        };
        let stamp = Mutex::new(files.stamp());
        let loaded = RwLock::new(Arc::new(read(&files)?));
        Ok(Some(Arc::new(Self {
            files,
            loaded,
            stamp,
        })))
    }

    /// What new connections use.
    pub(crate) fn now(&self) -> Arc<Loaded> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&loaded)
    }

    /// How other stores are reached.
    pub(crate) fn to_peers(&self) -> Arc<ClientConfig> {
        let loaded = self.now();
        let config = loaded.to_peers.as_ref();
        Arc::clone(config.expect("a cluster with TLS was refused without --tls-peer-ca"))
    }

    /// Whether stores are told from clients.
    #[must_use]
    pub fn knows_peers(&self) -> bool {
        self.files.peer_ca.is_some()
    }

    /// Why the certificate cannot be used now, if so.
    #[must_use]
    pub fn expired(&self) -> Option<String> {
        let file = self.files.cert.display();
        let ended = SystemTime::now() >= self.now().not_after;
        ended.then(|| format!("the certificate of {file} has expired"))
    }

    /// When the certificate of the server ends.
    pub(crate) fn ends(&self) -> SystemTime {
        self.now().not_after
    }

    /// Reads the files again if one of them has changed since. Blocks on the disk.
    ///
    /// # Errors
    ///
    /// Why the new ones are refused; once for each change.
    pub fn look(&self) -> Result<Option<&'static str>, String> {
        let stamp = self.files.stamp();
        let mut last = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == stamp {
            return Ok(None);
        }
        *last = stamp;
        let loaded = read(&self.files);
        let loaded =
            loaded.map_err(|what| format!("the certificates stay as they were: {what}"))?;
        *self.loaded.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        Ok(Some("certificates"))
    }
}

impl Reload for Tls {
    fn reload(&self) -> Result<Option<&'static str>, String> {
        // Also where a change left no trace in the figures of the file.
        self.stamp
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.look()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.files).finish()
    }
}

fn read(files: &Files) -> Result<Loaded, String> {
    let (chain, key) = read_chain(&files.cert, &files.key)?;
    let shown = files.cert.display();
    let subject = Subject::of(&chain[0]).map_err(|what| format!("{shown}: {what}"))?;
    let now = SystemTime::now();
    if now < subject.not_before {
        return Err(format!("{shown}: the certificate is not valid yet"));
    }
    if now >= subject.not_after {
        return Err(format!("{shown}: the certificate has expired"));
    }
    if now + SOON >= subject.not_after {
        tracing::warn!(file = %shown, "the certificate of this server ends within 30 days");
    }
    let clients = files.client_ca.as_deref().map(read_roots).transpose()?;
    let peers = files.peer_ca.as_deref().map(read_roots).transpose()?;
    let who = verifier(clients.as_ref(), peers.as_ref())?;
    let own = (chain, key);
    let server = |protocol: &[u8]| -> Result<Arc<ServerConfig>, String> {
        let wrong = |error: rustls::Error| format!("{shown}: {error}");
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(wrong)?;
        let builder = match &who {
            Some(who) => builder.with_client_cert_verifier(Arc::clone(who)),
            None => builder.with_no_client_auth(),
        };
        let (chain, key) = (own.0.clone(), own.1.clone_key());
        let mut config = builder.with_single_cert(chain, key).map_err(wrong)?;
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Arc::new(config))
    };
    let (grpc, pages) = (server(H2)?, server(HTTP1)?);
    let to_peers = peers.as_ref().map(|roots| client(roots.clone(), Some(own)));
    let peers = peers.map(|roots| checker(roots, false)).transpose()?;
    Ok(Loaded {
        grpc,
        pages,
        to_peers: to_peers.transpose()?,
        peers,
        not_after: subject.not_after,
    })
}

/// Whose certificates are taken: those of clients and of stores; everybody must show one where clients have
/// authorities.
fn verifier(
    clients: Option<&RootCertStore>,
    peers: Option<&RootCertStore>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
    let mut roots = RootCertStore::empty();
    for some in [clients, peers].into_iter().flatten() {
        roots.extend(some.roots.iter().cloned());
    }
    if roots.is_empty() {
        return Ok(None);
    }
    checker(roots, clients.is_none()).map(Some)
}

fn checker(
    roots: RootCertStore,
    may_be_nobody: bool,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = match may_be_nobody {
        true => builder.allow_unauthenticated(),
        false => builder,
    };
    builder.build().map_err(|error| error.to_string())
}

/// How a client speaks TLS: whom it believes, and who it is.
///
/// # Errors
///
/// What is wrong with its own certificate.
pub(crate) fn client(
    roots: RootCertStore,
    own: Option<Chain>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match own {
        Some((chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(Arc::new(config))
}

/// Whether a certificate is a store's.
fn is_peer(loaded: &Loaded, chain: &[CertificateDer<'_>]) -> bool {
    match (&loaded.peers, chain) {
        (Some(peers), [own, between @ ..]) => peers
            .verify_client_cert(own, between, UnixTime::now())
            .is_ok(),
        _ => false,
    }
}

fn read_text(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let len = fs::metadata(path).map(|data| data.len());
    let len = len.map_err(|error| format!("cannot read {shown}: {error}"))?;
    if len > MAX_FILE_LEN {
        return Err(format!(
            "{shown} has {len} bytes, the limit is {MAX_FILE_LEN}"
        ));
    }
    fs::read(path).map_err(|error| format!("cannot read {shown}: {error}"))
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = path.display();
    let text = read_text(path)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| format!("{shown} is no PEM file: {error}"))?;
    if read.is_empty() {
        return Err(format!("{shown} has no certificate (PEM)"));
    }
    Ok(read)
}

/// The authorities of a file.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn read_roots(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(path)? {
        let added = roots.add(certificate);
        added.map_err(|error| {
            let shown = path.display();
            format!("{shown} has a certificate that is no authority: {error}")
        })?;
    }
    Ok(roots)
}

/// A chain and the key that belongs to it.
///
/// # Errors
///
/// What is wrong with which file.
pub(crate) fn read_chain(cert: &Path, key: &Path) -> Result<Chain, String> {
    let chain = read_certificates(cert)?;
    let (cert, file) = (cert.display(), key.display());
    let text = read_text(key)?;
    let key = PrivateKeyDer::from_pem_slice(&text);
    let key = key.map_err(|_| format!("{file} has no private key (PEM)"))?;
    let known = rustls::crypto::ring::sign::any_supported_type(&key);
    let known = known.map_err(|_| format!("{file} has a key of a kind that is not supported"))?;
    rustls::sign::CertifiedKey::new(chain.clone(), known)
        .keys_match()
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("the key of {file} does not belong to the certificate of {cert}")
            }
            other => format!("{cert}: {other}"),
        })?;
    Ok((chain, key))
}

#[cfg(test)]
pub(crate) mod tests;
