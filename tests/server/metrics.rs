//! The names of figures that `docs/metrics.md` promises are those that servers print.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    signals::page,
    support::{Running, data_dir, run},
};

/// Requests are shown from the first one on.
fn put_one(server: &Running) {
    let (code, _, stderr) = run(&["put", "k", "v", "--addr", &server.addr]);
    assert_eq!(code, 0, "{stderr}");
}

/// Names in the tables of a part of the document.
fn promised(text: &str) -> BTreeSet<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split_once('`'));
    names.map(|(name, _)| name.to_owned()).collect()
}

/// Names of what a page shows, as they stand in front of its figures; a histogram's without an end.
fn printed(page: &str) -> BTreeSet<String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let types = types.filter_map(|line| line.split_once(' '));
    let name = |(name, kind): (&str, &str)| match kind {
        "counter" => format!("{name}_total"),
        _ => name.to_owned(),
    };
    types.map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_document_promises_is_what_servers_print() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let document = fs::read_to_string(document).unwrap();
    let (every_server, stores) = document
        .split_once("## A store of a cluster")
        .expect("a part of its own");
    let (every_server, stores) = (promised(every_server), promised(stores));
    assert!(every_server.len() > 10 && stores.len() > 40);

    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    put_one(&server);
    assert_eq!(
        printed(&page(&server.status_addr, "/metrics").await),
        every_server
    );
    server.stop();

    let (_root, dir) = data_dir();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let founder = format!("1={}", free.local_addr().unwrap());
    let alone = ["--store-id", "1", "--initial-cluster", &founder];
    let server = Running::start_with(&dir, &alone);
    put_one(&server);
    let text = page(&server.status_addr, "/metrics").await;
    let all: BTreeSet<_> = every_server.union(&stores).cloned().collect();
    assert_eq!(printed(&text), all);
    // And they count; some once a tick.
    let began = Instant::now();
    for line in [
        "basalt_store_regions 1",
        "basalt_store_leaders 1",
        "basalt_store_campaigns_total 1",
        "basalt_store_elections_won_total 1",
        "basalt_store_leader_changes_total 1",
        "basalt_store_propose_to_commit_seconds_count 1",
        "basalt_store_queue_refused_total{queue=\"store\"} 0",
    ] {
        loop {
            let text = page(&server.status_addr, "/metrics").await;
            if text.lines().any(|found| found == line) {
                break;
            }
            let late = began.elapsed() > Duration::from_secs(10);
            assert!(!late, "{line} is missing in\n{text}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    server.stop();
}
