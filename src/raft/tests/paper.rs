//! Rules of Raft beyond TinyKV's claims, each as somebody outside sees it: the thesis (D. Ongaro,
//! "Consensus: Bridging Theory and Practice", 2014) and what implementations learned since.
//!
//! Nodes have the default settings, so pre-vote, check-quorum and batching are on, unless a test says
//! otherwise. TinyKV's own claims are in `tinykv.rs`; what no list of rules foresees is the business
//! of the random schedules.

#[path = "paper/asynchronous.rs"]
mod asynchronous;
#[path = "paper/campaigns.rs"]
mod campaigns;
#[path = "paper/flow.rs"]
mod flow;
#[path = "paper/handover.rs"]
mod handover;
#[path = "paper/hostile.rs"]
mod hostile;
#[path = "paper/joint.rs"]
mod joint;
#[path = "paper/leases.rs"]
mod leases;
#[path = "paper/limits.rs"]
mod limits;
#[path = "paper/members.rs"]
mod members;
#[path = "paper/mended.rs"]
mod mended;
#[path = "paper/mixed.rs"]
mod mixed;
#[path = "tinykv/network.rs"]
mod network;
#[path = "tinykv/parts.rs"]
mod parts;
#[path = "paper/reads.rs"]
mod reads;
#[path = "paper/ready.rs"]
mod ready;
#[path = "paper/snapshots.rs"]
mod snapshots;
