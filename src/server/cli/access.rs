//! How a command speaks to a server: TLS, a certificate of its own, a token.
//!
//! Promises: a token is read from a file, never from the command line, where everybody sees it; it does not leave
//! this machine in plain text.

use std::{
    fs,
    path::{Path, PathBuf},
};

use basalt_client::Config;
use clap::Args;

use super::{Failure, client::Access, contexts::Context};
use crate::tls::{self, Connector};

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
    /// Flags, else variables, else the context.
    pub(super) fn get(&self, context: &Context) -> Result<Access, Failure> {
        let file = |flag: &Option<PathBuf>, variable: &str, own: &Option<PathBuf>| {
            let variable = || std::env::var_os(variable).map(PathBuf::from);
            flag.clone().or_else(variable).or_else(|| own.clone())
        };
        let name = self.tls_server_name.clone();
        let name = name.or_else(|| std::env::var("BASALT_TLS_SERVER_NAME").ok());
        let name = name.or_else(|| context.tls_server_name.clone());
        let token = file(&self.token_file, "BASALT_TOKEN_FILE", &context.token_file);
        let token = token.map(|file| read_token(&file)).transpose()?;
        let cert = file(&self.tls_cert, "BASALT_TLS_CERT", &context.tls_cert);
        let key = file(&self.tls_key, "BASALT_TLS_KEY", &context.tls_key);
        let Some(ca) = file(&self.tls_ca, "BASALT_TLS_CA", &context.tls_ca) else {
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

fn read_token(file: &Path) -> Result<String, Failure> {
    let shown = file.display();
    let text = fs::read_to_string(file);
    let text = text.map_err(|error| Failure::usage(format!("cannot read {shown}: {error}")))?;
    let token = text.trim().to_owned();
    Config::new([""])
        .token(&token)
        .map_err(|error| Failure::usage(format!("{shown} holds no token: {error}")))?;
    Ok(token)
}
