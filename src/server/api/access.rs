//! `Access`: who may look at what on the status address.
//!
//! | asked for | with a file of rights | without one |
//! |---|---|---|
//! | the state of the server | anybody who is known | anybody |
//! | log, settings | the right `admin` | anybody |
//! | keys | the right `read` on them | callers on this machine |
//! | profiles | the right `admin` | callers on this machine |
//!
//! A browser carries requests of strangers: a page that names this server by a host name of its own (DNS rebinding), or that
//! merely refers to it, is refused by the headers `Host` and `Sec-Fetch-Site`. Refusals of callers are in the audit log.
//!
//! Not here: rights on keys (`keys`), certificates (`tls`).

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{ConnectInfo, FromRequestParts, connect_info::Connected},
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, HOST, WWW_AUTHENTICATE},
        request,
    },
    response::{IntoResponse, Response},
    serve::IncomingStream,
};
use serde::Serialize;

use super::Json;
use crate::{
    auth::{Auth, Refusal, Right, Who},
    listen::Listener,
    tls::{self, SecureListener},
};

/// What is asked for, by what it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// The state of the server.
    Look,
    /// Its log and its settings.
    Settings,
    /// Data.
    Keys,
    /// Work of the process itself.
    Debug,
}

/// The other end of a connection to the status address.
#[derive(Clone, Debug)]
pub struct Remote {
    addr: SocketAddr,
    /// Over TLS: what its certificate has shown.
    caller: Option<Arc<tls::Caller>>,
}

impl Connected<IncomingStream<'_, Listener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        Self {
            addr: *stream.remote_addr(),
            caller: None,
        }
    }
}

impl Connected<IncomingStream<'_, SecureListener>> for Remote {
    fn connect_info(stream: IncomingStream<'_, SecureListener>) -> Self {
        Self {
            addr: *stream.remote_addr(),
            caller: Some(Arc::clone(stream.io().caller())),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Remote {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, Refused> {
        let info = parts.extensions.get::<ConnectInfo<Self>>();
        info.map(|info| info.0.clone()).ok_or_else(Refused::defect)
    }
}

/// Why a request is not answered.
#[derive(Debug)]
pub struct Refused {
    code: StatusCode,
    why: String,
}

#[derive(Serialize)]
struct RefusedJson {
    error: String,
}

impl Refused {
    pub(super) fn new(code: StatusCode, why: String) -> Self {
        Self { code, why }
    }

    /// The request is no good.
    pub(super) fn wrong(why: String) -> Self {
        Self::new(StatusCode::BAD_REQUEST, why)
    }

    pub(super) fn forbidden(why: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, why.into())
    }

    /// What happened has been reported where it did.
    pub(super) fn defect() -> Self {
        let why = "the request met a defect of the server".to_owned();
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, why)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.code, Json(RefusedJson { error: self.why })).into_response();
        if self.code == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Whoever was let in; nothing of him where nobody is asked who he is.
pub(super) struct Caller(Option<Arc<Who>>);

impl Caller {
    /// Where a scan from `start` has to end; nothing where it may go on to the last key.
    pub(super) fn scan_end(&self, cf: &str, start: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let Some(who) = &self.0 else {
            return Ok(None);
        };
        who.scan_end(cf, start).ok_or_else(|| {
            let refusal = refusal(Ask::Keys, Some(who.name()), None);
            Refused::forbidden(refusal.right(Right::Read, cf).message())
        })
    }
}

fn refusal(ask: Ask, who: Option<&str>, remote: Option<SocketAddr>) -> Refusal<'_> {
    Refusal {
        method: match ask {
            Ask::Look => "status page",
            Ask::Settings => "status page: settings",
            Ask::Keys => "status page: keys",
            Ask::Debug => "status page: profile",
        },
        who,
        remote,
    }
}

/// Who may look.
#[derive(Clone, Debug)]
pub struct Access {
    auth: Option<Arc<Auth>>,
    /// The host of the status address as it was set.
    host: String,
}

impl Access {
    /// By a file of rights, if there is one; the pages are served at `addr` (`HOST:PORT`).
    #[must_use]
    pub fn new(auth: Option<Arc<Auth>>, addr: &str) -> Self {
        Self {
            auth,
            host: host_of(addr).to_owned(),
        }
    }

    pub(super) fn admit(
        &self,
        remote: &Remote,
        headers: &HeaderMap,
        ask: Ask,
    ) -> Result<Caller, Refused> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if matches!(text("sec-fetch-site"), Some("cross-site" | "same-site")) {
            return Err(Refused::forbidden("a page of another origin asks for this"));
        }
        let Some(auth) = &self.auth else {
            let host = text(HOST.as_str()).map(host_of).unwrap_or_default();
            return self.without_rights(remote, host, ask);
        };
        let token = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let identity = remote.caller.as_ref().and_then(|caller| caller.identity());
        let who = auth.who(token, identity).map_err(|status| {
            refusal(ask, None, Some(remote.addr)).note(status.message(), "");
            Refused::new(StatusCode::UNAUTHORIZED, status.message().to_owned())
        })?;
        let is_allowed = match ask {
            Ask::Look | Ask::Keys => true,
            Ask::Settings | Ask::Debug => who.may_administrate(),
        };
        if !is_allowed {
            let refusal = refusal(ask, Some(who.name()), Some(remote.addr));
            let status = refusal.right(Right::Admin, "");
            return Err(Refused::forbidden(status.message()));
        }
        Ok(Caller(Some(who)))
    }

    fn without_rights(&self, remote: &Remote, host: &str, ask: Ask) -> Result<Caller, Refused> {
        let is_ours = host.eq_ignore_ascii_case("localhost")
            || host.eq_ignore_ascii_case(&self.host)
            || host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok();
        if !is_ours {
            return Err(Refused::forbidden(
                "this server is not known by that name; use its address, localhost, or the name of --status-addr",
            ));
        }
        let is_here = remote.addr.ip().to_canonical().is_loopback();
        if matches!(ask, Ask::Keys | Ask::Debug) && !is_here {
            return Err(Refused::forbidden(
                "without a file of rights (--auth-file) this is shown to callers on this machine only",
            ));
        }
        Ok(Caller(None))
    }
}

/// The host of `HOST:PORT`, or of a host alone.
fn host_of(addr: &str) -> &str {
    match addr.rsplit_once(':') {
        // The colons of an address of version 6 are inside of brackets.
        Some((host, port)) if !port.contains(']') => host,
        _ => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(from: &str, headers: &[(&'static str, &str)], ask: Ask) -> Result<(), String> {
        let access = Access::new(None, "db1.example:20180");
        let remote = Remote {
            addr: from.parse().unwrap(),
            caller: None,
        };
        let headers = headers.iter().map(|(name, value)| {
            let name = axum::http::HeaderName::from_static(name);
            (name, HeaderValue::from_str(value).unwrap())
        });
        let admitted = access.admit(&remote, &headers.collect(), ask);
        admitted.map(drop).map_err(|refused| refused.why)
    }

    #[test]
    fn without_rights_names_and_places_decide() {
        let here = "127.0.0.1:5000";
        for host in [
            "127.0.0.1:1",
            "localhost",
            "[::1]:80",
            "DB1.example:20180",
            "10.0.0.7",
        ] {
            assert_eq!(ask(here, &[("host", host)], Ask::Debug), Ok(()), "{host}");
        }
        for host in [
            "evil.example:1",
            "localhost.evil.example",
            "",
            "db1.example.com",
        ] {
            assert!(ask(here, &[("host", host)], Ask::Look).is_err(), "{host}");
        }
        assert!(ask(here, &[], Ask::Look).is_err(), "no host");
        let host = ("host", "127.0.0.1:1");
        for site in ["cross-site", "same-site"] {
            assert!(ask(here, &[host, ("sec-fetch-site", site)], Ask::Look).is_err());
        }
        for site in ["same-origin", "none"] {
            assert_eq!(
                ask(here, &[host, ("sec-fetch-site", site)], Ask::Keys),
                Ok(())
            );
        }
        for (from, is_here) in [
            ("10.1.1.1:9", false),
            ("[::1]:9", true),
            ("[::ffff:127.0.0.1]:9", true),
        ] {
            assert_eq!(ask(from, &[host], Ask::Settings), Ok(()));
            for private in [Ask::Keys, Ask::Debug] {
                assert_eq!(ask(from, &[host], private).is_ok(), is_here, "{from}");
            }
        }
    }
}
