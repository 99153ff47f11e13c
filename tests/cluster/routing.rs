//! Requests that name a region, and requests at the limits, over the wire.

use basaltkv::{
    proto::{
        errorpb,
        kvrpcpb::{Context, RawGetRequest, RawPutRequest, RawScanRequest},
        metapb::{Peer, RegionEpoch},
    },
    server::{
        limits::{MAX_ANSWER_LEN, MAX_VALUE_LEN},
        stubs::tinykvpb::tiny_kv_client::TinyKvClient,
    },
};
use tonic::transport::Channel;

use crate::processes::Cluster;

async fn client(addr: &str) -> TinyKvClient<Channel> {
    let client = TinyKvClient::connect(format!("http://{addr}"))
        .await
        .unwrap();
    client
        .max_decoding_message_size(MAX_ANSWER_LEN)
        .max_encoding_message_size(usize::MAX)
}

/// A cluster, and its leader and a follower.
async fn cluster() -> (Cluster, u64, u64) {
    let start = || {
        let cluster = Cluster::start();
        let leader = cluster.leader();
        (cluster, leader)
    };
    let (cluster, leader) = tokio::task::spawn_blocking(start).await.unwrap();
    let id = |id: usize| u64::try_from(id).unwrap();
    (cluster, id(leader), id(leader % 3 + 1))
}

fn addr(cluster: &Cluster, store: u64) -> &str {
    cluster.addr(usize::try_from(store).unwrap())
}

/// What a get and a put with this context are answered: the same.
async fn refusal(addr: &str, context: Context) -> errorpb::Error {
    let mut client = client(addr).await;
    let get = RawGetRequest {
        context: Some(context),
        ..RawGetRequest::default()
    };
    let read = client.raw_get(get).await.unwrap().into_inner();
    let put = RawPutRequest {
        context: Some(context),
        ..RawPutRequest::default()
    };
    let written = client.raw_put(put).await.unwrap().into_inner();
    assert_eq!((read.error.as_str(), written.error.as_str()), ("", ""));
    assert_eq!(read.region_error, written.region_error);
    read.region_error.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_names_a_region_is_checked_against_it_and_refused_typed() {
    let (cluster, leader, follower) = cluster().await;
    let here = Context {
        region_id: 1,
        region_epoch: Some(RegionEpoch {
            conf_ver: 1,
            version: 1,
        }),
        // A founder's peer has the id of its store.
        peer: Some(Peer {
            id: leader,
            store_id: leader,
        }),
        term: 0,
    };
    let at = addr(&cluster, leader);
    let get = RawGetRequest {
        context: Some(here),
        ..RawGetRequest::default()
    };
    let answer = client(at).await.raw_get(get).await.unwrap().into_inner();
    assert!(answer.region_error.is_none() && answer.not_found);

    let error = refusal(
        at,
        Context {
            region_id: 99,
            ..here
        },
    )
    .await;
    assert_eq!(error.region_not_found.unwrap().region_id, 99);
    let epoch = Some(RegionEpoch {
        conf_ver: 1,
        version: 7,
    });
    let error = refusal(
        at,
        Context {
            region_epoch: epoch,
            ..here
        },
    )
    .await;
    let current = error.epoch_not_match.unwrap().current_regions;
    assert_eq!((current[0].id, current[0].peers.len()), (1, 3));

    let elsewhere = addr(&cluster, follower);
    let error = refusal(elsewhere, here).await;
    let stores = error.store_not_match.unwrap();
    assert_eq!(stores.request_store_id, leader);
    assert_eq!(stores.actual_store_id, follower);
    for peer in [
        None,
        Some(Peer {
            id: follower,
            store_id: follower,
        }),
    ] {
        let error = refusal(elsewhere, Context { peer, ..here }).await;
        let known = error.not_leader.unwrap();
        assert_eq!((known.region_id, known.leader), (1, here.peer));
    }
    let error = refusal(elsewhere, Context::default()).await;
    assert_eq!(error.not_leader.unwrap().leader, here.peer);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_largest_value_goes_through_the_log_and_a_scan_sees_it() {
    let (cluster, leader, _) = cluster().await;
    let mut client = client(addr(&cluster, leader)).await;
    let put = RawPutRequest {
        key: vec![7; 65_535].into(),
        value: vec![1; MAX_VALUE_LEN].into(),
        ..RawPutRequest::default()
    };
    let answer = client.raw_put(put).await.unwrap().into_inner();
    assert_eq!((answer.region_error, answer.error.as_str()), (None, ""));
    let scan = RawScanRequest {
        limit: 10,
        ..RawScanRequest::default()
    };
    let answer = client.raw_scan(scan).await.unwrap().into_inner();
    assert_eq!(answer.kvs.len(), 1);
    assert_eq!(answer.kvs[0].value.len(), MAX_VALUE_LEN);
    let follower = usize::try_from(leader % 3 + 1).unwrap();
    tokio::task::block_in_place(|| cluster.catches_up(follower));
}
