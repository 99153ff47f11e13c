//! Every limit of the server that is no setting, with its unit. Those that are stand in the table of settings
//! (`config/table.rs`). README repeats those that clients meet.

use std::time::Duration;

/// Longest key in bytes.
pub const MAX_KEY_LEN: usize = basalt_engine::key::MAX_KEY_LEN;

/// Longest value in bytes.
pub const MAX_VALUE_LEN: usize = 8 * 1024 * 1024;

/// Longest request message in bytes, as in TinyKV.
pub const MAX_REQUEST_LEN: usize = 10 * 1024 * 1024;

/// Bytes from which the answer of a scan is cut short. One pair always fits.
pub const MAX_SCAN_ANSWER_LEN: usize = 8 * 1024 * 1024;

/// Longest message this crate's own clients accept: a full scan answer and some.
pub const MAX_ANSWER_LEN: usize = 16 * 1024 * 1024;

/// Streams of gRPC health at a time: one for each client that looks whether its connection is good.
pub const MAX_HEALTH_WATCHES: usize = 4096;

/// Open connections to the status pages.
pub const MAX_STATUS_CONNECTIONS: usize = 64;

/// Requests that were reset before they were accepted, on one connection.
pub const MAX_PENDING_RESETS: usize = 20;

/// Bytes of unread request bodies, of one request and of one connection.
pub const STREAM_WINDOW_LEN: u32 = 1024 * 1024;
/// See [`STREAM_WINDOW_LEN`].
pub const CONNECTION_WINDOW_LEN: u32 = 4 * 1024 * 1024;

/// Bytes a request counts for beside its message: its state, and an answer of up to this size.
pub const REQUEST_BASE_LEN: usize = 16 * 1024;

/// Scans that run at a time; others wait within their deadline.
pub const MAX_RUNNING_SCANS: usize = 16;

/// Threads for calls that may wait for a disk.
pub const BLOCKING_THREADS: usize = 64;

/// Time for one command of a change of members.
pub const MEMBER_COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time a write waits for a store that is behind, whatever its deadline.
pub const MAX_BUSY_WAIT: Duration = Duration::from_secs(1);

/// Time a new connection has for its first byte.
pub const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(10);

/// Time a TLS handshake may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two looks at whether files of certificates or rights have changed.
pub const FILES_LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Time a status connection may be silent.
pub const STATUS_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Silence after which a gRPC connection is asked whether it is alive, and the time it has to answer.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// Time that requests in flight have to finish once the server drains.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Raft messages that wait for one other store; more are dropped.
pub const MAX_PEER_QUEUE_MESSAGES: usize = 4096;

/// Bytes of the Raft messages that wait for one other store; more are dropped.
pub const MAX_PEER_QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// First and longest pause before another store is tried again.
pub const PEER_BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Time for a connection to another store to come about.
pub const PEER_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Silence after which another store is asked whether it is alive, and the time it has to answer.
pub const PEER_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
/// See [`PEER_KEEPALIVE_INTERVAL`].
pub const PEER_KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(4);

/// Time for one answer of another store to what it is asked beside Raft.
pub const PEER_ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Snapshots that a store sends at a time; others wait.
pub const MAX_SNAPSHOTS_SENT: usize = 2;

/// Snapshots that wait to be sent, with those being sent; one more fails at once and is tried again.
pub const MAX_SNAPSHOTS_WAITING: usize = 32;

/// Bytes a second of all snapshots that a store sends.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 100 * 1024 * 1024;

/// Chunks of a snapshot that are read ahead of the network.
pub const SNAPSHOT_CHUNKS_AHEAD: usize = 4;

/// Time between two chunks of a snapshot being received.
pub const SNAPSHOT_SILENCE: Duration = Duration::from_secs(30);

/// Between two rounds in which a store tells the others whom it knows.
pub const GOSSIP_INTERVAL: Duration = Duration::from_secs(10);

/// Time that leadership has to go to others before a server drains.
pub const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(2);

/// Entries that a learner may be behind and still be made a voter.
pub const MAX_PROMOTION_LAG: u64 = 1000;

/// Stores that may found a cluster.
pub const MAX_FOUNDERS: usize = 9;
