//! The client crate against a standalone server.

use std::time::{Duration, Instant};

use basaltkv::client::{Batch, Client, Config, Error, KeyRange, blocking};

use crate::support::{Running, basalt, data_dir};

#[tokio::test(flavor = "multi_thread")]
async fn calls_do_what_they_say_and_errors_say_what_to_do() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = Client::connect([server.addr.clone()]).await.unwrap();
    client.put("a", "1").await.unwrap();
    client.put("empty", "").await.unwrap();
    assert_eq!(client.get("a").await.unwrap().unwrap(), "1");
    assert_eq!(client.get("empty").await.unwrap().unwrap(), "");
    assert_eq!(client.get("b").await.unwrap(), None);
    client.delete("a").await.unwrap();
    client.delete("a").await.unwrap();
    assert_eq!(client.get("a").await.unwrap(), None);

    let lock = client.family("lock");
    lock.put("a", "in lock").await.unwrap();
    assert_eq!(client.get("a").await.unwrap(), None);
    let batch = Batch::new().put("b", "2").family("lock").delete("a");
    client.write(batch).await.unwrap();
    assert_eq!(lock.get("a").await.unwrap(), None);
    assert_eq!(client.get("b").await.unwrap().unwrap(), "2");
    client.write(Batch::new()).await.unwrap();

    let error = client.put(vec![0; 70_000], "v").await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    assert!(!error.is_transient() && !error.may_be_done());
    let error = client.family("x").get("a").await.unwrap_err();
    assert!(
        error.to_string().contains("default, write, lock"),
        "{error}"
    );
    assert_eq!(client.members().await.unwrap(), []);

    let nobody = Client::connect(["127.0.0.1:1"]).await.unwrap_err();
    assert!(matches!(nobody, Error::Unavailable { .. }) && nobody.is_transient());
    let both = Client::connect(["127.0.0.1:1".to_owned(), server.addr.clone()]);
    assert_eq!(both.await.unwrap().get("b").await.unwrap().unwrap(), "2");
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_of_many_pages_give_each_key_once_both_ways() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = Client::new(Config::new([server.addr.clone()]).page(7));
    let mut batch = Batch::new();
    for number in 0..100 {
        batch.add_put(format!("k{number:03}"), format!("v{number}"));
    }
    client.write(batch).await.unwrap();
    for reverse in [false, true] {
        for limit in [0, 1, 6, 7, 8, 99, 100, 101] {
            let mut scan = client
                .scan(KeyRange::prefix("k"))
                .reverse(reverse)
                .limit(limit)
                .start();
            let mut keys = Vec::new();
            while let Some(pair) = scan.next().await.unwrap() {
                keys.push(String::from_utf8(pair.key.to_vec()).unwrap());
            }
            let mut all: Vec<String> = (0..100).map(|number| format!("k{number:03}")).collect();
            if reverse {
                all.reverse();
            }
            all.truncate(usize::try_from(limit).unwrap());
            assert_eq!(keys, all, "{reverse} {limit}");
            // What is left is the rest.
            let left = client.count(scan.rest()).await.unwrap();
            assert_eq!(left, 100u64.saturating_sub(limit), "{reverse} {limit}");
        }
    }
    let mut scan = client.scan(KeyRange::all()).keys_only(true).start();
    let first = scan.next().await.unwrap().unwrap();
    assert_eq!((&first.key[..], &first.value[..]), (&b"k000"[..], &b""[..]));
    client
        .delete_range(KeyRange::between("k010", "k090"))
        .await
        .unwrap();
    assert_eq!(client.count(KeyRange::all()).await.unwrap(), 20);
    client
        .delete_range(KeyRange::between("b", "a"))
        .await
        .unwrap();
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_ends_a_call_at_its_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let config = Config::new([addr]).connect_timeout(Duration::from_millis(300));
    let client = Client::new(config.deadline(Duration::from_millis(300)));
    let began = Instant::now();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_started_again_is_found_again_within_the_deadline() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let addr = server.addr.clone();
    // A machine that does other things starts a process late.
    let patience = Duration::from_secs(60);
    let client = Client::new(Config::new([addr.clone()]).patience(patience));
    client.put("k", "v").await.unwrap();
    server.kill();
    let hasty = client.deadline(Some(Duration::from_millis(300)));
    let error = hasty.get("k").await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    // It was reached before, so it is waited for.
    let patient = client.deadline(Some(patience));
    let waiting = tokio::spawn(async move { patient.get("k").await });
    let dir = dir.to_str().unwrap();
    let args = [
        "server",
        "--path",
        dir,
        "--addr",
        &addr,
        "--status-addr",
        "127.0.0.1:0",
    ];
    let mut again = basalt(&args).spawn().unwrap();
    let found = waiting.await.unwrap();
    again.kill().unwrap();
    again.wait().unwrap();
    let found = found.unwrap();
    assert_eq!(found.unwrap(), "v", "what was acknowledged is there");
}

#[test]
fn the_blocking_client_does_the_same_without_async() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = blocking::Client::connect([server.addr.clone()]).unwrap();
    client.put("k/1", "v").unwrap();
    client
        .write(Batch::new().put("k/2", "w").put("k/3", "x"))
        .unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            std::thread::spawn(move || client.get("k/1").unwrap().unwrap())
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().unwrap(), "v");
    }
    let keys: Vec<_> = client
        .scan(KeyRange::prefix("k/"))
        .map(|pair| pair.unwrap().key)
        .collect();
    assert_eq!(keys, ["k/1", "k/2", "k/3"]);
    client.delete_range(KeyRange::prefix("k/")).unwrap();
    assert_eq!(client.count(KeyRange::all()).unwrap(), 0);
    client.put("k", "v").unwrap();
    client.delete("k").unwrap();
    assert_eq!(client.get("k").unwrap(), None);
    server.stop();
}
