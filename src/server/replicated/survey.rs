//! A look at the whole cluster from one store: every store is asked how it fares, all at once and within a short time.
//!
//! Promises: who does not answer is told with the reason; nothing is kept, and nothing is asked of stores that were removed.
//!
//! Not here: what is made of the answers (`api::cluster`).

use std::sync::Arc;

use basalt_proto::basaltpb::{StatusRequest, StatusResponse, StoreInfo};
use tokio::task::JoinSet;

use super::Cluster;
use crate::{limits::PEER_ANSWER_TIMEOUT, stubs::basaltpb::admin_client::AdminClient};

/// A store, and what it has answered or why it has not; nothing where it was not asked.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) store: StoreInfo,
    pub(crate) answer: Option<Result<StatusResponse, String>>,
}

impl Cluster {
    /// What every other store says of itself, by id.
    pub(crate) async fn survey(self: &Arc<Self>) -> Vec<Seen> {
        let own = self.store_id();
        let mut asking = JoinSet::new();
        for store in self.directory.all() {
            let cluster = Arc::clone(self);
            asking.spawn(async move {
                let is_asked = store.store_id != own && !store.removed;
                let answer = match is_asked {
                    true => Some(cluster.ask_status(&store.address).await),
                    false => None,
                };
                Seen { store, answer }
            });
        }
        let mut seen = asking.join_all().await;
        seen.sort_by_key(|one| one.store.store_id);
        seen
    }

    async fn ask_status(&self, address: &str) -> Result<StatusResponse, String> {
        let asking = async {
            let channel = self.links.dialer.dial(address).await?;
            let answer = AdminClient::new(channel).status(StatusRequest {}).await;
            answer.map_err(|status| format!("{address}: {}", status.message()))
        };
        let asked = tokio::time::timeout(PEER_ANSWER_TIMEOUT, asking).await;
        let answer = asked.unwrap_or_else(|_| Err(format!("{address} gives no answer")))?;
        Ok(answer.into_inner())
    }
}
