//! The service `basaltpb.Admin`: looking into a running server, maintenance of its storage and of its cluster.
//!
//! Not here: what the figures mean (`/proto/basaltpb.proto`).

use std::{path::PathBuf, sync::Arc};

use basalt_engine::{Pacing, ReadOptions};
use basalt_proto::basaltpb::{
    AddMemberRequest, BackedUpRegion, BackupAction, BackupEvent, BackupRequest,
    ChangeMembersResponse, CompactRequest, CompactResponse, ConfigureRequest, ConfigureResponse,
    ExamineRequest, ExamineResponse, ExplainRequest, ExplainResponse, FlushRequest, FlushResponse,
    MembersRequest, MembersResponse, RemoveMemberRequest, SettingInfo, StatsRequest, StatsResponse,
    StatusRequest, StatusResponse, TransferLeaderRequest, WorkEvent, work_event,
};
use tonic::{Request, Response, Status};

use super::{
    backups::{self, Job},
    blocking, insight,
    streams::{EventStream, watched},
    told,
};
use crate::{
    config::live::{Live, Refused},
    doctor::Examiner,
    replicated::Cluster,
    state::ServerState,
    storage::{self, OpenEngine, Result as StorageResult, Storage, family, open_engines},
    stubs::basaltpb::admin_server::Admin,
};

/// The service.
pub struct AdminService {
    storage: Arc<dyn Storage>,
    state: Arc<ServerState>,
    /// Absent in a standalone server.
    cluster: Option<Arc<Cluster>>,
    live: Arc<Live>,
    /// Absent in tests of what stands on a storage.
    examiner: Option<Arc<Examiner>>,
    /// Where backups may be written.
    backup_dir: Option<PathBuf>,
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
            examiner: None,
            backup_dir: None,
        }
    }

    /// The same, which looks for what is wrong by `examiner`, and writes backups into `backup_dir`.
    #[must_use]
    pub(crate) fn operating(self, examiner: Examiner, backup_dir: Option<PathBuf>) -> Self {
        Self {
            examiner: Some(Arc::new(examiner)),
            backup_dir,
            ..self
        }
    }

    /// The engine of user data.
    fn engine(&self) -> Result<OpenEngine, Status> {
        let engines = open_engines(&*self.storage);
        let engine = engines.into_iter().next();
        engine.ok_or_else(|| Status::unavailable("the store has no engine open"))
    }

    /// What is told of a backup that is made now: its regions, and who the store is.
    async fn described(&self) -> Result<(Vec<BackedUpRegion>, String), Status> {
        let Some(cluster) = &self.cluster else {
            return Ok((Vec::new(), "standalone".to_owned()));
        };
        let regions = match cluster.regions_of_a_backup().await {
            Ok(regions) => regions,
            Err(error) => return Err(Status::failed_precondition(told(error)?.error)),
        };
        let identity = cluster.identity();
        let who = format!(
            "store {} of cluster {:016x}",
            identity.store_id, identity.cluster_id
        );
        Ok((regions, who))
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

    type CompactWatchedStream = EventStream<WorkEvent>;
    type BackupStream = EventStream<BackupEvent>;

    async fn compact_watched(
        &self,
        request: Request<CompactRequest>,
    ) -> Result<Response<Self::CompactWatchedStream>, Status> {
        let CompactRequest {
            cf,
            start_key,
            end_key,
        } = request.into_inner();
        let cf = check_family(&cf)?;
        let engine = self.engine()?;
        let family = engine.family(cf).cloned();
        let family = family.ok_or_else(|| Status::internal("a family without a place"))?;
        let step = |step| WorkEvent {
            event: Some(work_event::Event::Step(step)),
        };
        let state = Arc::clone(&self.state);
        let stream = watched(
            step,
            move || state.is_draining(),
            move |progress| {
                let start = (!start_key.is_empty()).then_some(&start_key[..]);
                let end = (!end_key.is_empty()).then_some(&end_key[..]);
                let pacing = Pacing::told(progress);
                let done = engine.db.compact_range_with(&family, start, end, &pacing);
                match done.map_err(storage::Error::from) {
                    Ok(()) => Ok(WorkEvent {
                        event: Some(work_event::Event::Done(CompactResponse {})),
                    }),
                    Err(error) => Err(Status::failed_precondition(told(error)?.error)),
                }
            },
        );
        Ok(Response::new(stream))
    }

    async fn backup(
        &self,
        request: Request<BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let request = request.into_inner();
        let dir = backups::directory(self.backup_dir.as_deref())?;
        let db = self.engine()?.db;
        let (regions, who) = match request.action() {
            BackupAction::Create => self.described().await?,
            _ => Default::default(),
        };
        let job = Job {
            dir,
            request,
            db,
            regions,
            who,
        };
        let state = Arc::clone(&self.state);
        Ok(Response::new(job.start(move || state.is_draining())))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { cf, key } = request.into_inner();
        let cf = check_family(&cf)?;
        let engine = self.engine()?;
        let family = engine.family(cf).cloned();
        let family = family.ok_or_else(|| Status::internal("a family without a place"))?;
        let work = move || Ok(engine.db.explain(&family, &key, &ReadOptions::default())?);
        let explained = blocking(work).await?;
        match explained {
            Ok(explanation) => Ok(Response::new(insight::explained(&explanation))),
            Err(error) => Err(Status::failed_precondition(told(error)?.error)),
        }
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let status = self.state.status().await;
        let engines = open_engines(&*self.storage);
        let mut response = self.state.stats();
        response.regions = insight::regions(&status);
        response.engines = engines.iter().map(insight::engine).collect();
        Ok(Response::new(response))
    }

    async fn examine(
        &self,
        _: Request<ExamineRequest>,
    ) -> Result<Response<ExamineResponse>, Status> {
        let examiner = self.examiner.clone();
        let examiner = examiner.ok_or_else(|| Status::unavailable("nothing to look at"))?;
        let status = self.state.status().await;
        let found = blocking(move || Ok(examiner.examine(&status))).await?;
        match found {
            Ok(found) => Ok(Response::new(found)),
            Err(error) => Err(Status::failed_precondition(told(error)?.error)),
        }
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
