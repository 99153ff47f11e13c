//! `Leader`: calls of the administration that go to whichever store leads.
//!
//! Not here: how it is found (`basalt_client`).

use std::{future::Future, time::Duration};

use basalt_client::Client;
pub(super) use basalt_client::Kind;
use basalt_proto::errorpb;
use tonic::{Response, Status};

use super::{
    Failure,
    client::{Server, Target},
};

/// A way to the leader.
#[derive(Debug)]
pub(super) struct Leader(Client);

impl Leader {
    /// Connects to the first address that answers.
    pub(super) async fn find(target: &Target) -> Result<Self, Failure> {
        let client = target.client()?;
        client.node().await?;
        Ok(Self(client))
    }

    /// Asks the leader; `within` a time, or for as long as it takes. `error_of` takes the region error out of an
    /// answer.
    pub(super) async fn ask<T, F>(
        &mut self,
        kind: Kind,
        within: Option<Duration>,
        send: impl Fn(&Server) -> F,
        error_of: impl Fn(&mut T) -> Option<errorpb::Error>,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let client = self.0.deadline(within);
        let send = |node: &basalt_client::Node, _| send(&Server::from(node.clone()));
        Ok(client.ask(kind, send, error_of).await?)
    }
}
