//! The service `basaltpb.Admin`: looking into a running server, maintenance of its storage and of its cluster.
//!
//! Not here: what the figures mean (`/proto/basaltpb.proto`).

use std::sync::Arc;

use basalt_proto::basaltpb::{
    AddMemberRequest, ChangeMembersResponse, CompactRequest, CompactResponse, ConfigureRequest,
    ConfigureResponse, FlushRequest, FlushResponse, MembersRequest, MembersResponse,
    RemoveMemberRequest, SettingInfo, StatusRequest, StatusResponse, TransferLeaderRequest,
};
use tonic::{Request, Response, Status};

use super::{blocking, told};
use crate::{
    config::live::{Live, Refused},
    replicated::Cluster,
    state::ServerState,
    storage::{Result as StorageResult, Storage, family},
    stubs::basaltpb::admin_server::Admin,
};

/// The service.
pub struct AdminService {
    storage: Arc<dyn Storage>,
    state: Arc<ServerState>,
    /// Absent in a standalone server.
    cluster: Option<Arc<Cluster>>,
    live: Arc<Live>,
}

impl AdminService {
    /// The service over `storage`, with the state of its server.
    #[must_use]
    pub fn new(
        storage: Arc<dyn Storage>,
        state: Arc<ServerState>,
        cluster: Option<Arc<Cluster>>,
        live: Arc<Live>,
    ) -> Self {
        Self {
            storage,
            state,
            cluster,
            live,
        }
    }

    fn cluster(&self) -> Result<Arc<Cluster>, Status> {
        self.cluster.clone().ok_or_else(|| {
            Status::failed_precondition("this server is standalone; it belongs to no cluster")
        })
    }

    async fn maintain(
        &self,
        work: impl FnOnce(&dyn Storage) -> StorageResult<()> + Send + 'static,
    ) -> Result<(), Status> {
        let storage = Arc::clone(&self.storage);
        let done = blocking(move || work(&*storage)).await?;
        // These answers have no field for a text.
        done.or_else(|error| Err(Status::failed_precondition(told(error)?.error)))
    }
}

/// Changes settings, or reads their files again, and shows them all.
fn configure(live: &Live, request: ConfigureRequest) -> Result<ConfigureResponse, Status> {
    let mut response = ConfigureResponse::default();
    if request.reload {
        let told = live.reread().map_err(Status::failed_precondition)?;
        let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect();
        response.changed = names(told.changed);
        response.needs_restart = names(told.needs_restart);
    }
    let changes = request.changes.into_iter();
    let changes: Vec<_> = changes.map(|change| (change.name, change.value)).collect();
    let changed = live.change(&changes).map_err(|refused| match refused {
        Refused::Wrong(what) => Status::invalid_argument(what),
        Refused::NeedsRestart(what) => Status::failed_precondition(what),
    })?;
    response
        .changed
        .extend(changed.into_iter().map(str::to_owned));
    let settings = live.settings().into_iter();
    let settings = settings.map(|(setting, value, origin)| SettingInfo {
        name: setting.name.to_owned(),
        value,
        origin: origin.to_string(),
        online: setting.online,
    });
    response.settings = settings.collect();
    Ok(response)
}

/// The answer to a change of the cluster: where to go on is in it, what is in the way is a status.
fn changed(
    done: StorageResult<ChangeMembersResponse>,
) -> Result<Response<ChangeMembersResponse>, Status> {
    let response = match done {
        Ok(response) => response,
        Err(error) => {
            let told = told(error)?;
            if told.region_error.is_none() {
                return Err(Status::failed_precondition(told.error));
            }
            ChangeMembersResponse {
                region_error: told.region_error,
                done: Vec::new(),
            }
        }
    };
    Ok(Response::new(response))
}

fn check_family(name: &str) -> Result<&'static str, Status> {
    family(name).map_err(|error| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(self.state.status().await))
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

    async fn members(
        &self,
        _: Request<MembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        Ok(Response::new(self.cluster()?.members()))
    }

    async fn add_member(
        &self,
        request: Request<AddMemberRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        changed(self.cluster()?.add_member(request.into_inner()).await)
    }

    async fn remove_member(
        &self,
        request: Request<RemoveMemberRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        changed(self.cluster()?.remove_member(request.into_inner()).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        changed(self.cluster()?.transfer_leader(request.into_inner()).await)
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureResponse>, Status> {
        let live = Arc::clone(&self.live);
        let request = request.into_inner();
        // Files are read.
        let done = blocking(move || Ok(configure(&live, request))).await?;
        let done = done.map_err(|error| Status::internal(error.to_string()))?;
        done.map(Response::new)
    }
}
