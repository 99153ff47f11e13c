//! How a command speaks to a server: TLS, a certificate of its own, a token.
//!
//! Promises: a token is read from a file, never from the command line, where everybody sees it; it does not leave
//! this machine in plain text.

use std::{fs, path::PathBuf, sync::Arc};

use axum::http::HeaderValue;
use clap::Args;

use super::{Failure, client::Access};
use crate::{
    auth::MAX_TOKEN_LEN,
    tls::{self, Connector},
};

#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub(super) struct AccessArgs {
    /// Speak TLS, and trust these authorities of servers (PEM) [default: $BASALT_TLS_CA]
    #[arg(long, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Certificate of this client (PEM) [default: $BASALT_TLS_CERT]
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key of --tls-cert (PEM) [default: $BASALT_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Name in the certificate of the server, if it is not the host of --addr [default: $BASALT_TLS_SERVER_NAME]
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// File with the token of this client [default: $BASALT_TOKEN_FILE]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

impl AccessArgs {
    pub(super) fn get(&self) -> Result<Access, Failure> {
        let file = |flag: &Option<PathBuf>, variable: &str| {
            flag.clone()
                .or_else(|| std::env::var_os(variable).map(PathBuf::from))
        };
        let name = self.tls_server_name.clone();
        let name = name.or_else(|| std::env::var("BASALT_TLS_SERVER_NAME").ok());
        let token = file(&self.token_file, "BASALT_TOKEN_FILE");
        let token = token.map(read_token).transpose()?;
        let cert = file(&self.tls_cert, "BASALT_TLS_CERT");
        let key = file(&self.tls_key, "BASALT_TLS_KEY");
        let Some(ca) = file(&self.tls_ca, "BASALT_TLS_CA") else {
            // Variables may be the server's.
            if self.tls_cert.is_some() || self.tls_key.is_some() || self.tls_server_name.is_some() {
                let text = "TLS needs --tls-ca: which authorities of servers to trust";
                return Err(Failure::usage(text));
            }
            return Ok(Access { tls: None, token });
        };
        let own = match (&cert, &key) {
            (Some(cert), Some(key)) => Some(tls::read_chain(cert, key).map_err(Failure::usage)?),
            (None, None) => None,
            _ => return Err(Failure::usage("--tls-cert and --tls-key need each other")),
        };
        let roots = tls::read_roots(&ca).map_err(Failure::usage)?;
        let config = tls::client(roots, own).map_err(Failure::usage)?;
        Ok(Access {
            tls: Some(Connector::new(config, name)),
            token,
        })
    }
}

fn read_token(file: PathBuf) -> Result<Arc<HeaderValue>, Failure> {
    let shown = file.display();
    let text = fs::read_to_string(&file);
    let text = text.map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    let token = text.trim();
    let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
    if token.is_empty() || !is_plain || token.len() > MAX_TOKEN_LEN {
        return Err(Failure::usage(format!(
            "{shown} holds no token: one word of at most {MAX_TOKEN_LEN} plain characters"
        )));
    }
    let header = HeaderValue::try_from(format!("Bearer {token}"));
    let mut header = header.map_err(|_| Failure::usage(format!("{shown} holds no token")))?;
    header.set_sensitive(true);
    Ok(Arc::new(header))
}
