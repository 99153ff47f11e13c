//! Asking the store loop: its callbacks as futures, its errors in the server's words.

use std::time::{Duration, Instant};

use basalt_proto::{
    kvrpcpb,
    raft_cmdpb::{RaftCmdRequest, RaftRequestHeader},
};
use basalt_raftstore::{Callback, CommandError, RegionSnapshot, StoreHandle, StoreStatus, Target};
use tokio::sync::oneshot;

use super::Cluster;
use crate::storage::{Error, StoreCode};

/// Time that the store loop has to say how it fares.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// The region that a client means, as the store loop is told.
#[must_use]
pub(crate) fn header(region: kvrpcpb::Context) -> RaftRequestHeader {
    RaftRequestHeader {
        region_id: region.region_id,
        peer: region.peer,
        region_epoch: region.region_epoch,
        term: region.term,
    }
}

impl From<CommandError> for Error {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::DeadlineExceeded => Self::Deadline,
            CommandError::Busy(what) => Self::Busy(what),
            CommandError::Invalid(what) => Self::InvalidArgument(what),
            CommandError::Fenced(what) => Self::Store {
                code: StoreCode::Fenced,
                what,
            },
            routing => Self::Region(Box::new(routing.to_errorpb())),
        }
    }
}

impl Cluster {
    pub(crate) fn handle(&self) -> Result<&StoreHandle, Error> {
        if let Some(error) = self.unable() {
            return Err(error);
        }
        let starting = || Error::Starting(self.waits());
        self.links.handle().ok_or_else(starting)
    }

    /// Has a command done whose answer says no more than that it was.
    pub(crate) async fn propose(
        &self,
        request: RaftCmdRequest,
        deadline: Instant,
    ) -> Result<(), Error> {
        let (tell, told) = oneshot::channel();
        let callback = Callback::acknowledged(move |answer| drop(tell.send(answer)));
        self.handle()?.propose(request, left(deadline), callback);
        self.answer(told).await
    }

    /// A view of a region that has everything in it that was acknowledged before.
    pub(crate) async fn read(
        &self,
        target: Target,
        deadline: Instant,
    ) -> Result<RegionSnapshot, Error> {
        let (callback, told) = callback();
        self.handle()?.read(target, left(deadline), callback);
        self.answer(told).await
    }

    /// How the store fares; nothing where its loop does not run.
    pub async fn status(&self) -> Option<StoreStatus> {
        let (callback, told) = callback();
        self.handle().ok()?.status(callback);
        let told = tokio::time::timeout(STATUS_TIMEOUT, told).await;
        told.ok()?.ok()?.ok()
    }

    async fn answer<T>(&self, told: Told<T>) -> Result<T, Error> {
        // A callback is always called; one that is lost all the same leaves the outcome open.
        let answer = told.await.map_err(|_| Error::Deadline)?;
        answer.map_err(|error| match (error, *self.stopping().borrow()) {
            (CommandError::Fenced(_), true) => Error::Stopped,
            (error, _) => error.into(),
        })
    }
}

type Told<T> = oneshot::Receiver<Result<T, CommandError>>;

fn callback<T: Send + 'static>() -> (Callback<T>, Told<T>) {
    let (tell, told) = oneshot::channel();
    // Somebody who waits no longer has left the outcome open.
    (Callback::new(move |answer| drop(tell.send(answer))), told)
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[cfg(test)]
mod tests {
    use basalt_proto::metapb::Peer;

    use super::*;

    #[tokio::test]
    async fn a_callback_that_is_dropped_says_that_the_outcome_is_open() {
        let (callback, told) = callback::<()>();
        drop(callback);
        assert_eq!(told.await.unwrap(), Err(CommandError::StaleCommand));
    }

    #[test]
    fn routing_errors_reach_the_client_typed_and_others_as_what_they_are() {
        let leader = Some(Peer { id: 7, store_id: 2 });
        let error = CommandError::NotLeader {
            region_id: 1,
            leader,
        };
        let Error::Region(error) = error.into() else {
            panic!("a routing error")
        };
        assert_eq!(error.not_leader.unwrap().leader, leader);
        let Error::Region(error) = CommandError::StaleCommand.into() else {
            panic!("a routing error")
        };
        assert!(error.stale_command.is_some());
        assert_eq!(Error::from(CommandError::DeadlineExceeded), Error::Deadline);
        let fenced = Error::from(CommandError::Fenced("a defect".into()));
        assert_eq!(fenced.to_string(), "FENCED: a defect");
    }
}
