//! [`Config`]: where the servers are, and how a client speaks with them.

use std::{sync::Arc, time::Duration};

use http::HeaderValue;

use crate::{Error, Result, tls::Connector};

/// Longest token in bytes.
const MAX_TOKEN_LEN: usize = 512;

/// How a [`crate::Client`] is set up.
///
/// ```
/// use std::time::Duration;
/// use basalt_client::Config;
///
/// let config = Config::new(["10.0.0.1:20160", "10.0.0.2:20160"])
///     .deadline(Duration::from_secs(2))
///     .token("basalt-0123")?;
/// # Ok::<(), basalt_client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) endpoints: Vec<String>,
    pub(crate) tls: Option<Connector>,
    pub(crate) token: Option<Arc<HeaderValue>>,
    pub(crate) deadline: Duration,
    pub(crate) patience: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) keepalive: Option<(Duration, Duration)>,
    pub(crate) page: u32,
}

impl Config {
    /// Servers at these addresses, `HOST:PORT`: one, or any of a cluster's.
    #[must_use]
    pub fn new<S: Into<String>>(endpoints: impl IntoIterator<Item = S>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            tls: None,
            token: None,
            deadline: Duration::from_secs(10),
            patience: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            keepalive: Some((Duration::from_secs(60), Duration::from_secs(20))),
            page: 1000,
        }
    }

    /// Speaks TLS: [`Connector::from_pem`] makes one.
    #[must_use]
    pub fn tls(mut self, tls: Connector) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Sends this token with every request; never in plain text to another machine.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for what is no token: one word of at most 512 plain characters.
    pub fn token(mut self, token: &str) -> Result<Self> {
        let is_plain = token.bytes().all(|byte| byte.is_ascii_graphic());
        let wrong = || {
            Error::Config(format!(
                "a token is one word of at most {MAX_TOKEN_LEN} plain characters"
            ))
        };
        if token.is_empty() || !is_plain || token.len() > MAX_TOKEN_LEN {
            return Err(wrong());
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| wrong())?;
        header.set_sensitive(true);
        self.token = Some(Arc::new(header));
        Ok(self)
    }

    /// Time for a call with all its retries: 10 s if nothing else is said.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Time for which a leader, or a server that serves, is looked for: 10 s if nothing else is said.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Time for a connection to come about: 5 s if nothing else is said.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// A silent connection is asked every `interval` whether it is alive, and given up after `timeout` without an
    /// answer: 60 s and 20 s if nothing else is said. Without, a connection that was cut is noticed by deadlines only.
    #[must_use]
    pub fn keepalive(mut self, times: Option<(Duration, Duration)>) -> Self {
        self.keepalive = times;
        self
    }

    /// Pairs that a scan asks for at a time: 1,000 if nothing else is said. Servers cut a page at 8 MiB too.
    #[must_use]
    pub fn page(mut self, pairs: u32) -> Self {
        self.page = pairs.max(1);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_plain_word_and_is_not_shown() {
        let config = Config::new(["a:1"]).token("basalt-secret").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        for wrong in ["", "two words", "line\n", "\u{fc}", &"x".repeat(513)] {
            assert!(Config::new(["a:1"]).token(wrong).is_err(), "{wrong:?}");
        }
    }
}
