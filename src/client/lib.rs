//! A client of Basalt, for one server or a cluster: async ([`Client`]) or not ([`blocking::Client`]).
//!
//! ```no_run
//! # async fn example() -> Result<(), basalt_client::Error> {
//! use basalt_client::{Batch, Client, KeyRange};
//!
//! let client = Client::connect(["127.0.0.1:20160"]).await?;
//! client.put("user/1", "Ada").await?;
//! assert_eq!(client.get("user/1").await?.as_deref(), Some(&b"Ada"[..]));
//! assert_eq!(client.get("user/2").await?, None);
//!
//! // All of it or nothing, also in a cluster.
//! let batch = Batch::new().put("user/2", "Grace").delete("user/1");
//! client.write(batch).await?;
//!
//! let mut users = client.scan(KeyRange::prefix("user/")).start();
//! while let Some(pair) = users.next().await? {
//!     println!("{:?} {:?}", pair.key, pair.value);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What it does for its caller:
//!
//! - **It finds the leader.** Any of a cluster's addresses will do; answers that name another leader are followed, and
//!   while there is none it waits.
//! - **It keeps deadlines.** Each call ends within [`Config::deadline`], retries included; servers learn it too.
//! - **It retries, within a budget** ([`Budget`]): when a server is gone, full, or not the leader any more. While most
//!   requests fail it retries few of them, lest it make things worse.
//! - **It does not guess.** Reads may be repeated freely. A put or a delete leads to the same state when it is done
//!   twice, but whoever writes the same key meanwhile could see the older value come back; so a write is sent again only
//!   where the server surely has not taken it, else the call ends in [`Error::Open`]. Where nobody else writes the same
//!   keys, [`Client::repeating_writes`] has writes repeated like reads.
//!
//! Promises: what is acknowledged survives power loss (of a majority, in a cluster); what a read shows is not older than
//! anything that was acknowledged before it was asked for; a [`Batch`] is done whole or not at all.
//!
//! Not here: transactions over several calls; regions (a cluster is one).

mod batch;
pub mod blocking;
mod budget;
mod client;
mod config;
mod error;
mod node;
mod range;
mod retry;
mod scan;
pub mod tls;

pub use batch::Batch;
pub use budget::Budget;
pub use client::{Client, Member};
pub use config::Config;
pub use error::Error;
pub use node::{Carrier, Node, is_loopback};
pub use range::KeyRange;
pub use retry::Kind;
pub use scan::{Pair, Scan, ScanOptions};

/// The result of a call.
pub type Result<T, E = Error> = std::result::Result<T, E>;
