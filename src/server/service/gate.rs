//! `Gate`: who is let in to which method, where a server has certificates or a file of rights.
//!
//! Promises: whoever is refused is noted in the audit log, with the reason; what he is told does not help to guess.
//!
//! Not here: rights on keys, which handlers ask for when they have the key (`InFlight::allow`).

use std::sync::Arc;

use axum::http::{HeaderValue, Request, header::AUTHORIZATION};
use tonic::Status;

use crate::{
    auth::{Auth, Refusal, Right, Who},
    tls::Caller,
};

/// What the caller of a method has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// Anybody.
    Nothing,
    /// Anybody who is known.
    Known,
    /// Somebody who is known; the handler looks at the keys.
    Keys,
    /// Somebody with the right to read and write all keys.
    Everything,
    /// Somebody who administrates, or another store.
    Look,
    /// Somebody who administrates.
    Administration,
    /// Another store.
    Peer,
}

/// Who is let in.
#[derive(Debug)]
pub struct Gate {
    auth: Option<Arc<Auth>>,
    /// Stores show certificates of their own authority.
    knows_peers: bool,
}

impl Gate {
    /// A gate by a file of rights, if there is one, that tells stores from clients by their certificates, if it can.
    /// Nothing, where neither is: everybody is let in.
    #[must_use]
    pub fn new(auth: Option<Arc<Auth>>, knows_peers: bool) -> Option<Self> {
        (auth.is_some() || knows_peers).then_some(Self { auth, knows_peers })
    }

    /// Whoever asks, where it matters who that is.
    pub(super) fn admit<B>(
        &self,
        method: &'static str,
        need: Need,
        request: &Request<B>,
    ) -> Result<Option<Arc<Who>>, Status> {
        let caller = request.extensions().get::<Arc<Caller>>();
        let identity = caller.and_then(|caller| caller.identity());
        let names = identity.map_or(&[][..], |identity| &identity.names);
        let mut refusal = Refusal {
            method,
            who: None,
            remote: caller.map(|caller| caller.remote),
        };
        match need {
            Need::Nothing => return Ok(None),
            Need::Peer if self.knows_peers => {
                if identity.is_some_and(|identity| identity.is_peer) {
                    return Ok(None);
                }
                let names = names.join(", ");
                refusal.who = Some(&*names).filter(|names| !names.is_empty());
                return Err(not_a_store(refusal));
            }
            _ => {}
        }
        let Some(auth) = &self.auth else {
            return Ok(None);
        };
        let token = request.headers().get(AUTHORIZATION);
        let who = auth.who(token.map(HeaderValue::as_bytes), identity);
        let who = who.inspect_err(|status| {
            let names = names.join(", ");
            let refusal = Refusal {
                who: Some(&*names).filter(|names| !names.is_empty()),
                ..refusal
            };
            refusal.note(status.message(), "");
        })?;
        refusal.who = Some(who.name());
        let is_allowed = match need {
            Need::Nothing | Need::Known | Need::Keys => true,
            Need::Everything => who.may_everything(),
            Need::Look => who.may_administrate() || who.is_peer(),
            Need::Administration => who.may_administrate(),
            // There is no way to know one: a cluster with rights has certificates.
            Need::Peer => false,
        };
        match is_allowed {
            true => Ok(Some(who)),
            false => Err(match need {
                Need::Everything => {
                    refusal.note("no right to all keys", "");
                    Status::permission_denied(
                        "NOT_ALLOWED: this method needs the rights read and write on every key of every family",
                    )
                }
                Need::Peer => not_a_store(refusal),
                _ => refusal.right(Right::Admin, ""),
            }),
        }
    }
}

fn not_a_store(refusal: Refusal<'_>) -> Status {
    refusal.note("no certificate of a store (--tls-peer-ca)", "");
    Status::permission_denied(
        "NOT_A_STORE: only stores of the cluster call this, with a certificate of theirs",
    )
}
