//! kill -9 under eight writers, again and again on one directory: no acknowledged write is lost,
//! none comes back changed, and nothing is there that nobody wrote.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::support::{Client, Running, data_dir};

const WRITERS: u64 = 8;
const KILLS: u64 = 12;

/// What one writer knows: everything it was told, and the one write it was not told about.
#[derive(Clone, Debug, Default)]
struct Known {
    /// Number of the next write.
    next: u64,
    /// Keys and their acknowledged state; `None` is deleted.
    acked: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// The write whose outcome is open: key and state.
    open: Option<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Write `number` of `writer`: mostly new keys, some overwritten, some deleted; values of 16 bytes to 4 KiB.
fn operation(writer: u64, number: u64) -> (Vec<u8>, Option<Vec<u8>>) {
    let slot = match number % 4 {
        0 => format!("{writer}/hot/{}", number % 16),
        _ => format!("{writer}/new/{number:08}"),
    };
    let deletes = number % 16 == 12;
    let mut value = format!("{writer}:{number}:").into_bytes();
    let len = 16 + (number * 37 % 4080);
    value.resize(usize::try_from(len).unwrap(), b'.');
    (slot.into_bytes(), (!deletes).then_some(value))
}

/// Writes until the server is gone.
async fn write(client: Client, writer: u64, mut known: Known, acks: Arc<AtomicU64>) -> Known {
    loop {
        let (key, value) = operation(writer, known.next);
        known.next += 1;
        known.open = Some((key.clone(), value.clone()));
        let outcome = match &value {
            Some(value) => client.put("default", &key, value).await,
            None => client.delete("default", &key).await,
        };
        match outcome {
            Ok(error) => assert_eq!(error, ""),
            Err(_) => return known,
        }
        known.acked.insert(key, value);
        known.open = None;
        acks.fetch_add(1, Ordering::Relaxed);
    }
}

/// Compares what is there with what `known` allows, and settles what was open.
fn check(writer: u64, known: &mut Known, found: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let prefix = format!("{writer}/").into_bytes();
    let mut mine: BTreeMap<_, _> = found
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .collect();
    if let Some((key, value)) = known.open.take() {
        let got = mine.get(&key).map(|value| (*value).clone());
        let before = known.acked.get(&key).cloned().flatten();
        assert!(
            got == value || got == before,
            "writer {writer}: an unacknowledged write is neither done nor undone"
        );
        known.acked.insert(key, got);
    }
    for (key, value) in &known.acked {
        let shown = key.escape_ascii();
        assert_eq!(
            mine.remove(key),
            value.as_ref(),
            "writer {writer}: {shown} is lost or changed"
        );
    }
    assert!(
        mine.is_empty(),
        "writer {writer}: {} keys that nobody wrote",
        mine.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_eight_writers_loses_no_acknowledged_write() {
    let (_root, dir) = data_dir();
    let mut known = vec![Known::default(); 8];
    let mut total = 0;
    for round in 0..KILLS {
        // Small buffers, so that kills meet flushes and compactions too.
        let server = Running::start_with(&dir, &["--write-buffer-size", "256KiB"]);
        let acks = Arc::new(AtomicU64::new(0));
        let mut writers = Vec::new();
        for (writer, known) in (0..WRITERS).zip(known.drain(..)) {
            let client = server.client().await;
            writers.push(tokio::spawn(write(
                client,
                writer,
                known,
                Arc::clone(&acks),
            )));
        }
        // Each round goes on a little longer than the one before.
        let wanted = 100 + 150 * round;
        let began = Instant::now();
        while acks.load(Ordering::Relaxed) < wanted {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{acks:?} of {wanted} acks"
            );
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        server.kill();
        for writer in writers {
            known.push(writer.await.unwrap());
        }
        total += acks.load(Ordering::Relaxed);

        let server = Running::start_with(&dir, &["--write-buffer-size", "256KiB"]);
        let pairs = server.client().await.all("default").await;
        let found: BTreeMap<_, _> = pairs.into_iter().collect();
        for (writer, known) in (0..WRITERS).zip(&mut known) {
            check(writer, known, &found);
        }
        // Half of the rounds go on after a second kill of a server that has only read.
        if round % 2 == 0 {
            server.kill();
        } else {
            server.stop();
        }
    }
    let open = known.iter().filter(|known| known.open.is_some()).count();
    assert_eq!(open, 0);
    println!("{KILLS} kills, {total} acknowledged writes, all there");
    let (code, stdout, _) = crate::support::run(&["check", dir.to_str().unwrap()]);
    assert_eq!(code, 0, "{stdout}");
}
