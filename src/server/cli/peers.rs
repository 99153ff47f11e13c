//! `basalt peer list`: every replica of every region, as its own store sees it.

use basalt_proto::basaltpb::{RegionStatus, StatusResponse};
use clap::{Args, Subcommand};

use super::{
    Done, ServerAddr,
    client::block_on,
    cluster::survey,
    output::{Cell, OutputArgs},
};

#[derive(Debug, Subcommand)]
pub(super) enum PeerCommand {
    /// Every peer: its store, its role, how far its log is committed and applied
    List(PeersArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  basalt peer list
  basalt peer list --region 1 --json")]
pub(super) struct PeersArgs {
    /// Only this region
    #[arg(long, value_name = "ID")]
    region: Option<u64>,
    #[command(flatten)]
    addr: ServerAddr,
    #[command(flatten)]
    output: OutputArgs,
}

const COLUMNS: [&str; 9] = [
    "region",
    "peer",
    "store",
    "role",
    "term",
    "committed",
    "applied",
    "last_index",
    "log_bytes",
];

pub(super) fn run(command: &PeerCommand) -> Done {
    let PeerCommand::List(args) = command;
    let target = args.addr.get()?;
    let (_, statuses) = block_on(survey(&target))?;
    let mut rows: Vec<_> = statuses
        .iter()
        .flat_map(|(store, status)| rows(*store, status))
        .filter(|(region, _)| args.region.is_none_or(|wanted| wanted == *region))
        .collect();
    rows.sort_by_key(|(region, _)| *region);
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    args.output.open().table(&COLUMNS, &rows, None)
}

fn rows(store: u64, status: &StatusResponse) -> impl Iterator<Item = (u64, Vec<Cell>)> {
    let regions = status.regions.iter();
    regions.map(move |peer| (id(peer), row(store, peer)))
}

fn id(peer: &RegionStatus) -> u64 {
    peer.region.as_ref().map_or(0, |region| region.id)
}

fn row(store: u64, peer: &RegionStatus) -> Vec<Cell> {
    let role = if peer.is_learner {
        "learner"
    } else {
        &peer.role
    };
    vec![
        Cell::Number(id(peer)),
        Cell::Number(peer.peer.map_or(0, |peer| peer.id)),
        Cell::Number(store),
        role.into(),
        Cell::Number(peer.term),
        Cell::Number(peer.committed),
        Cell::Number(peer.applied),
        Cell::Number(peer.last_index),
        Cell::Size(peer.log_bytes),
    ]
}
