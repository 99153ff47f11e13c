//! The gRPC services: TinyKV's, Basalt's own administration, and what stands before them.

pub mod admin;
pub mod admission;
mod bodies;
pub mod tinykv;

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

/// Sorts an error by how a client is told: `Ok(text)` goes into the `error` field of the answer, a
/// status is the gRPC status of the call.
fn told(error: &Error) -> Result<String, Status> {
    match error {
        Error::InvalidArgument(_) => Err(Status::invalid_argument(error.to_string())),
        Error::Busy(_) => Err(Status::resource_exhausted(error.to_string())),
        Error::Stopped => Err(Status::unavailable(error.to_string())),
        Error::Store { .. } => Ok(error.to_string()),
    }
}
