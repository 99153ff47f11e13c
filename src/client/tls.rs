//! TLS of a client: whom it trusts, who it is, and how its connections come about.
//!
//! Promises: TLS 1.3 only; what is wrong with a certificate is said when it is read, not when it is used.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

#[path = "connect.rs"]
mod connect;
#[path = "explain.rs"]
mod explain;

pub use connect::Connector;
pub use explain::explain;

/// What is spoken in a connection, as TLS names it.
const H2: &[u8] = b"h2";

impl Connector {
    /// Trusts the authorities in `roots` (PEM); is known by the certificate chain and key in `own` (PEM), if given; the
    /// server's certificate is for `name`, else for the host of its address.
    ///
    /// # Errors
    ///
    /// What is wrong with which of them.
    pub fn from_pem(
        roots: &[u8],
        own: Option<(&[u8], &[u8])>,
        name: Option<String>,
    ) -> Result<Self, String> {
        let read = |pem: &[u8], what: &str| {
            let all = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let all = all.ok().filter(|all| !all.is_empty());
            all.ok_or_else(|| format!("{what} hold no certificate (PEM)"))
        };
        let mut store = RootCertStore::empty();
        for certificate in read(roots, "the authorities")? {
            let added = store.add(certificate);
            added.map_err(|error| format!("a certificate is no authority: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(store);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let chain = read(chain, "the client's certificates")?;
                let key = PrivateKeyDer::from_pem_slice(key);
                let key = key.map_err(|_| "the key is no private key (PEM)".to_owned())?;
                let made = builder.with_client_auth_cert(chain, key);
                made.map_err(|error| format!("the client's certificate: {error}"))?
            }
        };
        config.alpn_protocols = vec![H2.to_vec()];
        Ok(Self::new(Arc::new(config), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_certificate_is_said_when_it_is_read() {
        let error = Connector::from_pem(b"none", None, None).unwrap_err();
        assert!(error.contains("authorities hold no certificate"), "{error}");
    }
}
