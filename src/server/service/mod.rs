//! The gRPC services: TinyKV's, Basalt's own administration, and what stands before them.

pub mod admin;
pub mod admission;
mod backups;
mod bodies;
pub(crate) mod front;
pub mod gate;
mod insight;
pub mod kv;
mod method;
pub mod peers;
mod streams;
pub mod tinykv;

pub(crate) use backups::{describe, now};
pub(crate) use insight::{engine_figures, explained};

use basalt_proto::errorpb;
use tonic::Status;

use crate::storage::{Error, Result as StorageResult};

/// Runs `work`, which may wait for a disk, off the async runtime.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> StorageResult<T> + Send + 'static,
) -> Result<StorageResult<T>, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|_| {
        // The panic itself has been reported where it happened.
        Status::internal("the request met a defect of the server")
    })
}

/// What an answer says in its fields of an error; neither is set where all is well.
#[derive(Debug, Default)]
struct Told {
    region_error: Option<errorpb::Error>,
    error: String,
}

/// Sorts an error by how a client is told: in fields of the answer, or as the gRPC status of the call.
fn told(error: Error) -> Result<Told, Status> {
    let text = error.to_string();
    match error {
        Error::InvalidArgument(_) => Err(Status::invalid_argument(text)),
        Error::Busy(_) => Err(Status::resource_exhausted(text)),
        Error::Deadline => Err(Status::deadline_exceeded(text)),
        Error::Starting(_) | Error::Stopped => Err(Status::unavailable(text)),
        Error::Region(error) => Ok(Told {
            region_error: Some(*error),
            error: String::new(),
        }),
        Error::Store { .. } => Ok(Told {
            region_error: None,
            error: text,
        }),
    }
}
