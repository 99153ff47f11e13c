//! The service `basaltpb.Admin`: looking into a running server, and maintenance of its storage.
//!
//! Not here: what the figures mean (`/proto/basaltpb.proto`).

use std::sync::Arc;

use basalt_proto::basaltpb::{
    CompactRequest, CompactResponse, FlushRequest, FlushResponse, StatusRequest, StatusResponse,
};
use tonic::{Request, Response, Status};

use super::{blocking, told};
use crate::{
    state::ServerState,
    storage::{Result as StorageResult, Storage, family},
    stubs::basaltpb::admin_server::Admin,
};

/// The service.
pub struct AdminService {
    storage: Arc<dyn Storage>,
    state: Arc<ServerState>,
}

impl AdminService {
    /// The service over `storage`, with the state of its server.
    #[must_use]
    pub fn new(storage: Arc<dyn Storage>, state: Arc<ServerState>) -> Self {
        Self { storage, state }
    }

    async fn maintain(
        &self,
        work: impl FnOnce(&dyn Storage) -> StorageResult<()> + Send + 'static,
    ) -> Result<(), Status> {
        let storage = Arc::clone(&self.storage);
        let done = blocking(move || work(&*storage)).await?;
        // These answers have no field for a text.
        done.or_else(|error| Err(Status::failed_precondition(told(&error)?)))
    }
}

fn check_family(name: &str) -> Result<&'static str, Status> {
    family(name).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.state.status()))
    }

    async fn flush(
        &self,
        request: Request<FlushRequest>,
    ) -> Result<Response<FlushResponse>, Status> {
        let cf = request.into_inner().cf;
        let cf = if cf.is_empty() {
            None
        } else {
            Some(check_family(&cf)?)
        };
        self.maintain(move |storage| storage.flush(cf)).await?;
        Ok(Response::new(FlushResponse {}))
    }

    async fn compact(
        &self,
        request: Request<CompactRequest>,
    ) -> Result<Response<CompactResponse>, Status> {
        let CompactRequest {
            cf,
            start_key,
            end_key,
        } = request.into_inner();
        let cf = check_family(&cf)?;
        self.maintain(move |storage| {
            let start = (!start_key.is_empty()).then_some(&start_key[..]);
            let end = (!end_key.is_empty()).then_some(&end_key[..]);
            storage.compact(cf, start, end)
        })
        .await?;
        Ok(Response::new(CompactResponse {}))
    }
}
