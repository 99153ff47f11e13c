//! [`Scan`]: the pairs of a range, one after the other; the next page is on its way while one is read.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use basalt_proto::basaltpb::{ScanRequest, ScanResponse};
use bytes::Bytes;
use futures_core::Stream;
use tokio::task::JoinHandle;

use crate::{Client, Error, KeyRange, Result};

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// Its value; empty in a scan for keys only.
    pub value: Bytes,
}

/// What a scan shall give; [`ScanOptions::start`] begins it.
#[derive(Clone, Debug)]
#[must_use]
pub struct ScanOptions {
    client: Client,
    request: ScanRequest,
    limit: Option<u64>,
}

impl ScanOptions {
    pub(crate) fn new(client: Client, range: KeyRange) -> Self {
        Self {
            request: client.page_of(range),
            client,
            limit: None,
        }
    }

    /// From the last key of the range to the first.
    pub fn reverse(mut self, reverse: bool) -> Self {
        self.request.reverse = reverse;
        self
    }

    /// Without values: they are not read and not sent.
    pub fn keys_only(mut self, keys_only: bool) -> Self {
        self.request.keys_only = keys_only;
        self
    }

    /// At most so many pairs.
    pub fn limit(mut self, limit: u64) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Begins; the first page is asked for when the first pair is.
    pub fn start(self) -> Scan {
        let rest = KeyRange {
            start: self.request.start_key.clone(),
            end: self.request.end_key.clone(),
        };
        Scan {
            is_done: self.limit == Some(0) || rest.is_empty(),
            client: self.client,
            next: self.request,
            left: self.limit.unwrap_or(u64::MAX),
            page: VecDeque::new(),
            ahead: None,
            rest,
        }
    }
}

/// Pairs in the order of their keys. Each page is one moment; pages after it are of later ones, so that what is written
/// meanwhile is shown or not, key by key.
///
/// It is a `Stream` too. Dropped, it asks for nothing more.
#[derive(Debug)]
#[must_use]
pub struct Scan {
    client: Client,
    /// What is asked for next, but for its limit.
    next: ScanRequest,
    /// Pairs that are not asked for yet.
    left: u64,
    page: VecDeque<Pair>,
    ahead: Option<Ahead>,
    /// Nothing more is asked for.
    is_done: bool,
    rest: KeyRange,
}

/// A page that is on its way, given up with its scan.
#[derive(Debug)]
struct Ahead(JoinHandle<Result<ScanResponse>>);

impl Drop for Ahead {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Scan {
    /// The next pair; `None` at the end.
    ///
    /// # Errors
    ///
    /// As for every call of a client. The scan is over then; a new one over [`Scan::rest`] goes on.
    pub async fn next(&mut self) -> Result<Option<Pair>> {
        poll_fn(|cx| self.poll_pair(cx)).await.transpose()
    }

    /// The part of the range that is behind (in reverse: before) what was given so far: a scan over it goes on.
    #[must_use]
    pub fn rest(&self) -> KeyRange {
        self.rest.clone()
    }

    fn ask(&mut self) -> Ahead {
        let limit = u32::try_from(self.left).unwrap_or(u32::MAX);
        let limit = limit.min(self.client.page_len());
        let request = ScanRequest {
            limit,
            ..self.next.clone()
        };
        let client = self.client.clone();
        Ahead(tokio::spawn(async move { client.page(request).await }))
    }

    fn take_in(&mut self, page: ScanResponse) {
        self.left = self.left.saturating_sub(page.pairs.len() as u64);
        self.page.extend(page.pairs.into_iter().map(|pair| Pair {
            key: pair.key,
            value: pair.value,
        }));
        self.is_done = !page.more || self.left == 0;
        match self.next.reverse {
            true => self.next.end_key = page.next_key,
            false => self.next.start_key = page.next_key,
        }
    }

    fn poll_pair(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Pair>>> {
        loop {
            if self.ahead.is_none() && !self.is_done {
                self.ahead = Some(self.ask());
            }
            if let Some(pair) = self.page.pop_front() {
                match self.next.reverse {
                    true => self.rest.end = pair.key.clone(),
                    false => self.rest.start = [&pair.key[..], &[0]].concat().into(),
                }
                return Poll::Ready(Some(Ok(pair)));
            }
            let Some(ahead) = &mut self.ahead else {
                return Poll::Ready(None);
            };
            let came = ready!(Pin::new(&mut ahead.0).poll(cx));
            self.ahead = None;
            let came = came.unwrap_or_else(|_| {
                let reason = "the runtime has ended".to_owned();
                let addr = "this client".to_owned();
                Err(Error::Other { addr, reason })
            });
            match came {
                Ok(page) => self.take_in(page),
                Err(error) => {
                    self.is_done = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl Stream for Scan {
    type Item = Result<Pair>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Pair>>> {
        self.poll_pair(cx)
    }
}
