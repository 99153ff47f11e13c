//! The service `basaltpb.Peers`: what stores say to each other beside Raft. A standalone server refuses it.
//!
//! Not here: what is made of it (`replicated::hello`).

use std::sync::Arc;

use basalt_proto::basaltpb::{HelloRequest, HelloResponse};
use tonic::{Request, Response, Status};

use crate::{replicated::Cluster, stubs::basaltpb::peers_server::Peers};

/// The service.
#[derive(Debug)]
pub struct PeersService(Option<Arc<Cluster>>);

impl PeersService {
    /// The service of a store of a cluster, or of none.
    #[must_use]
    pub fn new(cluster: Option<Arc<Cluster>>) -> Self {
        Self(cluster)
    }
}

#[tonic::async_trait]
impl Peers for PeersService {
    async fn hello(
        &self,
        request: Request<HelloRequest>,
    ) -> Result<Response<HelloResponse>, Status> {
        let standalone = "this server is standalone; it belongs to no cluster";
        let cluster = self.0.as_ref();
        let cluster = cluster.ok_or_else(|| Status::failed_precondition(standalone))?;
        let answer = cluster.hello(request.into_inner()).await?;
        Ok(Response::new(answer))
    }
}
