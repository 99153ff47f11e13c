//! What callers ask of a store, and what they are answered: each exactly once.
//!
//! [`CommandError`] says what is known of a command that was not done: all but
//! [`CommandError::StaleCommand`] and [`CommandError::DeadlineExceeded`] mean that it surely never applies.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use basalt_engine::{ColumnFamily, DbIter, DbRange, PinnedSlice, ReadOptions, Snapshot};
use basalt_proto::{
    errorpb,
    metapb::{Peer, Region},
    raft_cmdpb::{CmdType, RaftCmdRequest, RaftRequestHeader, Request},
};
use bytes::{Buf as _, Bytes};
use prost::Message as _;

use crate::{Engines, Result};

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum CommandError {
    /// This store does not lead the region.
    NotLeader {
        /// The region.
        region_id: u64,
        /// Who does, if known.
        leader: Option<Peer>,
    },
    /// No peer of the region is here.
    RegionNotFound {
        /// The region; 0 where no region here has the key.
        region_id: u64,
    },
    /// A key lies outside of the region.
    KeyNotInRegion {
        /// The key.
        key: Bytes,
        /// The region that was asked.
        region: Box<Region>,
    },
    /// The region is not as the caller knows it.
    EpochNotMatch {
        /// As it is.
        regions: Vec<Region>,
    },
    /// The request is for another store.
    StoreNotMatch {
        /// Whom it names.
        asked: u64,
        /// Who this is.
        actual: u64,
    },
    /// The command was overtaken: it may have been applied or not.
    StaleCommand,
    /// The answer took too long: it may have been applied or not, or may still be.
    DeadlineExceeded,
    /// Too much waits already; try again later.
    Busy(String),
    /// The command makes no sense here; the text says why.
    Invalid(String),
    /// The store has stopped serving; the text says why.
    Fenced(String),
}

impl CommandError {
    /// TinyKV's form of it, where there is one; else only its message is filled.
    #[must_use]
    pub fn to_errorpb(&self) -> errorpb::Error {
        let mut error = errorpb::Error {
            message: self.to_string(),
            ..errorpb::Error::default()
        };
        match self.clone() {
            Self::NotLeader { region_id, leader } => {
                error.not_leader = Some(errorpb::NotLeader { region_id, leader });
            }
            Self::RegionNotFound { region_id } => {
                error.region_not_found = Some(errorpb::RegionNotFound { region_id });
            }
            Self::KeyNotInRegion { key, region } => {
                error.key_not_in_region = Some(errorpb::KeyNotInRegion {
                    key,
                    region_id: region.id,
                    start_key: region.start_key,
                    end_key: region.end_key,
                });
            }
            Self::EpochNotMatch { regions } => {
                error.epoch_not_match = Some(errorpb::EpochNotMatch {
                    current_regions: regions,
                });
            }
            Self::StoreNotMatch { asked, actual } => {
                error.store_not_match = Some(errorpb::StoreNotMatch {
                    request_store_id: asked,
                    actual_store_id: actual,
                });
            }
            Self::StaleCommand => error.stale_command = Some(errorpb::StaleCommand {}),
            Self::DeadlineExceeded | Self::Busy(_) | Self::Invalid(_) | Self::Fenced(_) => {}
        }
        error
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLeader {
                region_id,
                leader: Some(leader),
            } => write!(
                f,
                "region {region_id} is led by peer {} on store {}",
                leader.id, leader.store_id
            ),
            Self::NotLeader { region_id, .. } => {
                write!(f, "no leader of region {region_id} is known")
            }
            Self::RegionNotFound { region_id: 0 } => f.write_str("no region here has the key"),
            Self::RegionNotFound { region_id } => write!(f, "region {region_id} is not here"),
            Self::KeyNotInRegion { region, .. } => {
                write!(f, "the key lies outside of region {}", region.id)
            }
            Self::EpochNotMatch { .. } => f.write_str("the region has changed"),
            Self::StoreNotMatch { asked, actual } => {
                write!(f, "this is store {actual}, not {asked}")
            }
            Self::StaleCommand => {
                f.write_str("the command was overtaken and may have been applied or not")
            }
            Self::DeadlineExceeded => {
                f.write_str("no answer in time; the command may have been applied or not")
            }
            Self::Busy(what) => write!(f, "the store is busy: {what}"),
            Self::Invalid(what) => f.write_str(what),
            Self::Fenced(why) => write!(f, "the store has stopped: {why}"),
        }
    }
}

impl std::error::Error for CommandError {}

/// First byte of a command in the log that begins with its version; no protobuf message begins so.
const VERSIONED: u8 = 0;
/// The newest version of commands that there is: 2 has ranges of deletes.
const VERSION: u8 = 2;

/// A command as it stands in the log. One that older stores would take for another begins with its version: they cannot
/// read it, and stop, where skipping it would leave them with other data than the rest.
pub(crate) fn encode(request: &RaftCmdRequest) -> Bytes {
    let is_new = |one: &Request| one.cmd_type() == CmdType::DeleteRange;
    if !request.requests.iter().any(is_new) {
        return Bytes::from(request.encode_to_vec());
    }
    let mut bytes = Vec::with_capacity(request.encoded_len() + 2);
    bytes.extend([VERSIONED, VERSION]);
    request
        .encode(&mut bytes)
        .expect("a vector takes everything");
    Bytes::from(bytes)
}

/// The command that [`encode`] has written, here or on another store.
///
/// # Errors
///
/// Why it is none that this store knows.
pub(crate) fn decode(mut data: Bytes) -> Result<RaftCmdRequest, String> {
    if data.first() == Some(&VERSIONED) {
        match data.get(1) {
            Some(&VERSION) => data.advance(2),
            version => {
                let version = version.copied().unwrap_or_default();
                return Err(format!(
                    "it has version {version}, this store knows up to {VERSION}; it needs a newer one"
                ));
            }
        }
    }
    RaftCmdRequest::decode(data).map_err(|error| error.to_string())
}

/// Who waits for an answer. It is told once: if by nobody else, then [`CommandError::StaleCommand`] when it
/// is dropped.
pub struct Callback<T> {
    waiting: Waiting<T>,
    /// Whoever waits looks at nothing of the answer but whether there is one.
    is_brief: bool,
}

/// Takes an answer.
type Tell<T> = Box<dyn FnOnce(Result<T, CommandError>) + Send>;

enum Waiting<T> {
    Alone(Option<Tell<T>>),
    /// An [`Expiry`] may come first.
    Shared(Arc<Mutex<Option<Tell<T>>>>),
}

impl<T> Callback<T> {
    /// Calls `tell` with the answer. It must be short, for it runs on a thread of the store.
    #[must_use]
    pub fn new(tell: impl FnOnce(Result<T, CommandError>) + Send + 'static) -> Self {
        Self {
            waiting: Waiting::Alone(Some(Box::new(tell))),
            is_brief: false,
        }
    }

    /// The same for somebody who does not care what the answer says where there is one: it need not be made.
    #[must_use]
    pub fn acknowledged(tell: impl FnOnce(Result<(), CommandError>) + Send + 'static) -> Self
    where
        T: 'static,
    {
        let mut callback = Self::new(move |answer: Result<T, _>| tell(answer.map(drop)));
        callback.is_brief = true;
        callback
    }

    /// Nobody waits.
    #[must_use]
    pub fn none() -> Self {
        Self {
            waiting: Waiting::Alone(None),
            is_brief: false,
        }
    }

    /// Whether nobody ever waited. One that may have been answered elsewhere counts as waited for.
    pub(crate) fn is_none(&self) -> bool {
        matches!(self.waiting, Waiting::Alone(None))
    }

    /// Whether anybody looks at the answer.
    pub(crate) fn is_looked_at(&self) -> bool {
        !self.is_none() && !self.is_brief
    }

    /// Answers.
    pub fn tell(mut self, answer: Result<T, CommandError>) {
        if let Some(tell) = self.take() {
            tell(answer);
        }
    }

    /// Answers that it was not done.
    pub fn fail(self, error: CommandError) {
        self.tell(Err(error));
    }

    /// It goes where it may be held up; what stays behind can still end the waiting.
    pub(crate) fn with_expiry(mut self) -> (Self, Expiry<T>) {
        let shared = Arc::new(Mutex::new(self.take()));
        let there = Self {
            waiting: Waiting::Shared(Arc::clone(&shared)),
            is_brief: self.is_brief,
        };
        (there, Expiry(shared))
    }

    fn take(&mut self) -> Option<Tell<T>> {
        match &mut self.waiting {
            Waiting::Alone(tell) => tell.take(),
            Waiting::Shared(tell) => tell.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

impl<T> Drop for Callback<T> {
    fn drop(&mut self) {
        if let Some(tell) = self.take() {
            tell(Err(CommandError::StaleCommand));
        }
    }
}

impl<T> fmt::Debug for Callback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Callback").finish_non_exhaustive()
    }
}

/// Ends the waiting for a [`Callback`] that is elsewhere; dropped, it does nothing.
pub(crate) struct Expiry<T>(Arc<Mutex<Option<Tell<T>>>>);

impl<T> Expiry<T> {
    /// Answers, where nobody has.
    pub(crate) fn fail(self, error: CommandError) {
        let tell = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(tell) = tell {
            tell(Err(error));
        }
    }
}

impl<T> fmt::Debug for Expiry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Expiry").finish_non_exhaustive()
    }
}

/// Which region a command is for.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// As the caller says, who may know it by an older state.
    Region(RaftRequestHeader),
    /// Whichever has this key now.
    Key(Bytes),
}

/// What a region holds at one moment. Reads of it may block on a disk. Cheap to clone.
#[derive(Clone, Debug)]
pub struct RegionSnapshot(Arc<View>);

/// Shared by the reads that are answered together.
#[derive(Debug)]
struct View {
    region: Arc<Region>,
    engines: Engines,
    snapshot: Snapshot,
}

impl RegionSnapshot {
    pub(crate) fn new(region: Arc<Region>, engines: Engines) -> Self {
        let snapshot = engines.kv.snapshot();
        Self(Arc::new(View {
            region,
            engines,
            snapshot,
        }))
    }

    /// The region, as it was at that moment.
    #[must_use]
    pub fn region(&self) -> &Region {
        &self.0.region
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// [`CommandError::KeyNotInRegion`]; [`CommandError::Invalid`] for an unknown family; what the engine says,
    /// as [`CommandError::Fenced`].
    pub fn get(&self, cf: &str, key: &[u8]) -> Result<Option<PinnedSlice>, CommandError> {
        check_key(&self.0.region, key)?;
        let family = self.family(cf)?;
        let read = self.0.engines.kv.get_with(family, key, &self.options());
        read.map_err(|error| CommandError::Fenced(error.to_string()))
    }

    /// The pairs of a family from `start` on (empty: from the region's start) to the region's end.
    ///
    /// # Errors
    ///
    /// As for [`RegionSnapshot::get`].
    pub fn range(&self, cf: &str, start: &[u8]) -> Result<DbRange, CommandError> {
        let start = start.max(&self.0.region.start_key);
        let end = &self.0.region.end_key;
        let options = ReadOptions {
            lower: Some(start.to_vec()),
            upper: (!end.is_empty()).then(|| end.to_vec()),
            ..self.options()
        };
        let range = self.0.engines.kv.range(self.family(cf)?, &options);
        range.map_err(|error| CommandError::Fenced(error.to_string()))
    }

    /// A cursor over the pairs of a family in the region, both ways.
    ///
    /// # Errors
    ///
    /// As for [`RegionSnapshot::get`].
    pub fn iter(&self, cf: &str) -> Result<DbIter, CommandError> {
        let Region {
            start_key, end_key, ..
        } = self.region();
        let options = ReadOptions {
            lower: (!start_key.is_empty()).then(|| start_key.to_vec()),
            upper: (!end_key.is_empty()).then(|| end_key.to_vec()),
            ..self.options()
        };
        let iter = self.0.engines.kv.iter(self.family(cf)?, &options);
        iter.map_err(|error| CommandError::Fenced(error.to_string()))
    }

    fn options(&self) -> ReadOptions {
        ReadOptions {
            snapshot: Some(self.0.snapshot.clone()),
            ..ReadOptions::default()
        }
    }

    fn family(&self, cf: &str) -> Result<&ColumnFamily, CommandError> {
        data_family(&self.0.engines, cf)
    }
}

/// The users' family of this name; an empty one is `default`.
pub(crate) fn data_family<'a>(
    engines: &'a Engines,
    cf: &str,
) -> Result<&'a ColumnFamily, CommandError> {
    let name = if cf.is_empty() { "default" } else { cf };
    let place = crate::DATA_FAMILIES.iter().position(|known| *known == name);
    let place = place.ok_or_else(|| CommandError::Invalid(format!("no column family {name:?}")))?;
    Ok(&engines.data[place])
}

/// Whether a region has a key.
pub(crate) fn check_key(region: &Region, key: &[u8]) -> Result<(), CommandError> {
    if contains(region, key) {
        return Ok(());
    }
    Err(CommandError::KeyNotInRegion {
        key: Bytes::copy_from_slice(key),
        region: Box::new(region.clone()),
    })
}

pub(crate) fn contains(region: &Region, key: &[u8]) -> bool {
    key >= &region.start_key[..] && (region.end_key.is_empty() || key < &region.end_key[..])
}

#[cfg(test)]
mod tests {
    use basalt_proto::raft_cmdpb::{DeleteRangeRequest, PutRequest};

    use super::*;

    fn command(one: Request) -> RaftCmdRequest {
        RaftCmdRequest {
            requests: vec![one],
            ..RaftCmdRequest::default()
        }
    }

    #[test]
    fn what_older_stores_know_is_written_as_they_do_and_what_they_do_not_stops_them() {
        let put = command(Request {
            cmd_type: CmdType::Put.into(),
            put: Some(PutRequest {
                key: "k".into(),
                ..PutRequest::default()
            }),
            ..Request::default()
        });
        assert_eq!(encode(&put), put.encode_to_vec());
        assert_eq!(decode(encode(&put)), Ok(put));

        let range = command(Request {
            cmd_type: CmdType::DeleteRange.into(),
            delete_range: Some(DeleteRangeRequest {
                start_key: "a".into(),
                ..DeleteRangeRequest::default()
            }),
            ..Request::default()
        });
        let bytes = encode(&range);
        assert_eq!(bytes[..2], [0, 2]);
        assert!(
            RaftCmdRequest::decode(bytes.clone()).is_err(),
            "an older store must not skip it"
        );
        assert_eq!(decode(bytes.clone()), Ok(range));
        let mut newer = bytes.to_vec();
        newer[1] = 3;
        let error = decode(newer.into()).unwrap_err();
        assert!(error.contains("version 3"), "{error}");
        assert!(decode(Bytes::from_static(&[0])).is_err());
    }
}
