//! Raw calls mean what TinyKV's mean, and what was written is there after a restart.

use crate::support::{Running, data_dir};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_read_before_and_after_a_restart() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    assert_eq!(client.get("", b"k").await, None);
    for (cf, value) in [("", &b"default"[..]), ("write", b""), ("lock", b"\x00\xff")] {
        assert_eq!(client.put(cf, b"k", value).await.unwrap(), "");
    }
    for key in ["a", "b", "c", "d"] {
        client.put("default", key.as_bytes(), b"old").await.unwrap();
    }
    client.put("", b"b", b"new").await.unwrap();
    client.delete("", b"c").await.unwrap();
    assert_eq!(client.delete("", b"never there").await.unwrap(), "");
    client.put("", b"", b"empty key").await.unwrap();
    server.stop();

    let server = Running::start(&dir);
    let client = server.client().await;
    assert_eq!(client.get("default", b"k").await.unwrap(), b"default");
    assert_eq!(
        client.get("write", b"k").await.unwrap(),
        b"",
        "an empty value is a value"
    );
    assert_eq!(client.get("lock", b"k").await.unwrap(), b"\x00\xff");
    assert_eq!(client.get("write", b"a").await, None);
    let pairs = client.scan("", b"", 100).await.unwrap();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(key, value)| (&key[..], &value[..]))
        .collect();
    let expected: [(&[u8], &[u8]); 5] = [
        (b"", b"empty key"),
        (b"a", b"old"),
        (b"b", b"new"),
        (b"d", b"old"),
        (b"k", b"default"),
    ];
    assert_eq!(pairs, expected);
    assert_eq!(
        client.scan("", b"b", 1).await.unwrap(),
        [(b"b".to_vec(), b"new".to_vec())]
    );
    assert_eq!(
        client.scan("", b"c", 1).await.unwrap()[0].0,
        b"d",
        "an absent start"
    );
    assert_eq!(client.scan("", b"", 0).await.unwrap(), []);
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_of_one_key_leave_a_value_one_of_them_wrote() {
    let (_root, dir) = data_dir();
    let server = Running::start(&dir);
    let client = server.client().await;
    let writers: Vec<_> = (0..8u8)
        .map(|writer| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..50u8 {
                    assert_eq!(client.put("", b"k", &[writer, round]).await.unwrap(), "");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let last = client.get("", b"k").await.unwrap();
    assert!(
        last[0] < 8 && last[1] == 49,
        "the last value {last:?} is the last of its writer"
    );
    server.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_key_and_value_survive_a_restart() {
    use basaltkv::server::limits::{MAX_KEY_LEN, MAX_VALUE_LEN};
    let (_root, dir) = data_dir();
    let server = Running::start_with(&dir, &["--write-buffer-size", "64KiB"]);
    let client = server.client().await;
    let key = vec![b'k'; MAX_KEY_LEN];
    let value: Vec<u8> = (0..MAX_VALUE_LEN)
        .map(|at| (at % 251).to_le_bytes()[0])
        .collect();
    assert_eq!(client.put("", &key, &value).await.unwrap(), "");
    assert!(client.get("", &key).await.unwrap() == value);
    server.stop();
    let server = Running::start(&dir);
    let client = server.client().await;
    assert!(client.get("", &key).await.unwrap() == value);
    let pairs = client.scan("", b"", 2).await.unwrap();
    assert!(pairs.len() == 1 && pairs[0].0 == key && pairs[0].1 == value);
}
