//! `basalt member | region | transfer-leader`: the stores of a cluster and what they hold.

use std::{collections::BTreeMap, fmt::Write as _};

use basalt_proto::basaltpb::{
    AddMemberRequest, ChangeMembersResponse, MembersRequest, MembersResponse, RegionStatus,
    RemoveMemberRequest, State, StatusRequest, StatusResponse, StoreInfo, TransferLeaderRequest,
};
use clap::{Args, Subcommand};
use serde_json::json;
use tokio::task::JoinSet;
use tonic::{Response, Status};

use super::{
    Done, Failure, ServerAddr,
    admin::put_region,
    client::{Server, Target, block_on},
    leader::{Kind, Leader},
    output::size,
    print,
    text::hex,
};
use crate::state::{RegionJson, state_word};

/// A store, and where it is where nobody knows that yet.
#[derive(Clone, Debug, PartialEq, Eq)]
struct StoreArg {
    id: u64,
    address: String,
}

fn parse_store(text: &str) -> Result<StoreArg, String> {
    let (id, address) = text.split_once('=').unwrap_or((text, ""));
    let id = id.parse().ok().filter(|id| *id != 0);
    let id = id.ok_or_else(|| format!("{text:?} is not of the form ID or ID=HOST:PORT"))?;
    Ok(StoreArg {
        id,
        address: address.to_owned(),
    })
}

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// The stores of the cluster
    List(ListArgs),
    /// Make a store that waits (basalt server --join) a voter
    Add(AddArgs),
    /// Remove a store for good; its id is not used again
    Remove(RemoveArgs),
    /// Add one store, then remove another
    Replace(ReplaceArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    addr: ServerAddr,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The store, and its address unless it has joined already
    #[arg(value_name = "ID[=HOST:PORT]", value_parser = parse_store)]
    store: StoreArg,
    #[command(flatten)]
    addr: ServerAddr,
}

#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The store
    #[arg(value_name = "ID")]
    store: u64,
    /// Also where the stores that are left, and alive, are no majority
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    addr: ServerAddr,
}

#[derive(Debug, Args)]
pub(super) struct ReplaceArgs {
    /// The store that goes
    #[arg(value_name = "OLD")]
    old: u64,
    /// The store that comes, and its address unless it has joined already
    #[arg(value_name = "NEW[=HOST:PORT]", value_parser = parse_store)]
    new: StoreArg,
    /// Remove the old one even where the stores that are left, and alive, are no majority
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    addr: ServerAddr,
}

#[derive(Debug, Subcommand)]
pub(super) enum RegionCommand {
    /// Every region: its range, who leads it, how far it is
    List(ListArgs),
    /// One region as each of its stores sees it
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// The region
    #[arg(value_name = "ID")]
    region: u64,
    #[command(flatten)]
    addr: ServerAddr,
    /// Print JSON, a store a line
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct TransferArgs {
    /// The store that shall lead
    #[arg(value_name = "STORE")]
    store: u64,
    /// Only this region [default: all of them]
    #[arg(
        long,
        value_name = "ID",
        default_value_t = 0,
        hide_default_value = true
    )]
    region: u64,
    #[command(flatten)]
    addr: ServerAddr,
}

pub(super) fn member(command: &MemberCommand) -> Done {
    match command {
        MemberCommand::List(args) => list_members(args),
        MemberCommand::Add(args) => block_on(async {
            let mut leader = Leader::find(&args.addr.get()?).await?;
            add(&mut leader, &args.store).await
        }),
        MemberCommand::Remove(args) => block_on(async {
            let mut leader = Leader::find(&args.addr.get()?).await?;
            remove(&mut leader, args.store, args.force).await
        }),
        MemberCommand::Replace(args) => {
            if args.old == args.new.id {
                let text = "a store is replaced by one with another id: ids are not used again";
                return Err(Failure::usage(text));
            }
            block_on(async {
                let mut leader = Leader::find(&args.addr.get()?).await?;
                add(&mut leader, &args.new).await?;
                remove(&mut leader, args.old, args.force).await
            })
        }
    }
}

pub(super) fn region(command: &RegionCommand) -> Done {
    match command {
        RegionCommand::List(args) => list_regions(args),
        RegionCommand::Show(args) => show_region(args),
    }
}

pub(super) fn transfer(args: &TransferArgs) -> Done {
    block_on(async {
        let mut leader = Leader::find(&args.addr.get()?).await?;
        let request = TransferLeaderRequest {
            region_id: args.region,
            store_id: args.store,
        };
        let send = |server: &Server| {
            let mut admin = server.admin();
            async move { admin.transfer_leader(request).await }
        };
        change(&mut leader, send).await
    })
}

async fn add(leader: &mut Leader, store: &StoreArg) -> Done {
    let send = |server: &Server| {
        let mut admin = server.admin();
        let request = AddMemberRequest {
            store_id: store.id,
            address: store.address.clone(),
        };
        async move { admin.add_member(request).await }
    };
    change(leader, send).await
}

async fn remove(leader: &mut Leader, store_id: u64, force: bool) -> Done {
    let send = |server: &Server| {
        let mut admin = server.admin();
        let request = RemoveMemberRequest { store_id, force };
        async move { admin.remove_member(request).await }
    };
    change(leader, send).await
}

/// Asks for a change until it is done, wherever that is: it takes as long as a store needs to be filled.
async fn change<F>(leader: &mut Leader, send: impl Fn(&Server) -> F) -> Done
where
    F: Future<Output = Result<Response<ChangeMembersResponse>, Status>>,
{
    let error_of = |answer: &mut ChangeMembersResponse| answer.region_error.take();
    let answer = leader.ask(Kind::Repeatable, None, send, error_of).await?;
    let mut text = answer.done.join("\n");
    if text.is_empty() {
        text.push_str("nothing to do");
    }
    text.push('\n');
    print(text.as_bytes())
}

/// The stores, and how those fare that answer.
pub(super) async fn survey(
    target: &Target,
) -> Result<(MembersResponse, BTreeMap<u64, StatusResponse>), Failure> {
    let server = Server::connect_any(target).await?;
    let members = server
        .ask(server.admin().members(MembersRequest {}))
        .await?;
    let mut asking = JoinSet::new();
    for store in &members.stores {
        if store.removed {
            continue;
        }
        let (id, address) = (store.store_id, store.address.clone());
        let access = target.access.clone();
        asking.spawn(async move {
            let server = Server::connect(&address, &access).await?;
            let status = server.ask(server.admin().status(StatusRequest {})).await?;
            Ok::<_, Failure>((id, status))
        });
    }
    let mut statuses = BTreeMap::new();
    while let Some(asked) = asking.join_next().await {
        if let Ok(Ok((id, status))) = asked
            && status.store_id == id
        {
            statuses.insert(id, status);
        }
    }
    Ok((members, statuses))
}

/// What a store is at the moment, in a word.
fn condition(store: &StoreInfo, status: Option<&StatusResponse>) -> &'static str {
    match status {
        _ if store.removed => "removed",
        None => "unreachable",
        Some(status) if status.state() == State::Serving && status.regions.is_empty() => "waiting",
        Some(status) => state_word(status.state()),
    }
}

fn list_members(args: &ListArgs) -> Done {
    let (members, statuses) = block_on(survey(&args.addr.get()?))?;
    let mut text = String::new();
    if !args.json {
        let _ = writeln!(
            text,
            "cluster {} ({:016x})\n{:>5}  {:<24} {:<12} {:>7} {:>8}",
            members.cluster_name,
            members.cluster_id,
            "store",
            "address",
            "state",
            "regions",
            "leads"
        );
    }
    for store in &members.stores {
        let status = statuses.get(&store.store_id);
        let regions = status.map_or(&[][..], |status| &status.regions);
        let leads = regions.iter().filter(|region| region.role == "leader");
        let (held, leads) = (regions.len(), leads.count());
        let state = condition(store, status);
        let _ = if args.json {
            let row = json!({
                "store_id": store.store_id, "address": store.address, "state": state,
                "regions": held, "leads": leads,
                "reason": status.map(|status| &status.reason).filter(|reason| !reason.is_empty()),
            });
            writeln!(text, "{row}")
        } else {
            writeln!(
                text,
                "{:>5}  {:<24} {state:<12} {held:>7} {leads:>8}",
                store.store_id, store.address
            )
        };
    }
    print(text.as_bytes())
}

/// Every region, as its leader shows it, or else as the store that is furthest does.
fn leaders_view(statuses: &BTreeMap<u64, StatusResponse>) -> BTreeMap<u64, RegionStatus> {
    let mut regions: BTreeMap<u64, RegionStatus> = BTreeMap::new();
    let rank = |region: &RegionStatus| (region.role == "leader", region.term, region.applied);
    for status in statuses.values().flat_map(|status| &status.regions) {
        let id = status.region.as_ref().map_or(0, |region| region.id);
        let best = regions.entry(id).or_insert_with(|| status.clone());
        if rank(status) > rank(best) {
            best.clone_from(status);
        }
    }
    regions
}

fn list_regions(args: &ListArgs) -> Done {
    let (_, statuses) = block_on(survey(&args.addr.get()?))?;
    let mut text = String::new();
    if !args.json {
        let _ = writeln!(
            text,
            "{:>6}  {:<16} {:<16} {:>6} {:<12} {:>6} {:>12} {:>10}",
            "region", "from", "to", "leader", "stores", "term", "applied", "log"
        );
    }
    for (id, status) in leaders_view(&statuses) {
        if args.json {
            let line = serde_json::to_string(&RegionJson::from(status));
            let line = line.map_err(|error| Failure::world(error.to_string()))?;
            let _ = writeln!(text, "{line}");
            continue;
        }
        let region = status.region.unwrap_or_default();
        let leader = status.leader.map(|leader| leader.store_id.to_string());
        let stores = region.peers.iter().map(|peer| peer.store_id.to_string());
        let bound = |key: &[u8]| match key {
            [] => "-".to_owned(),
            key => hex(key),
        };
        let _ = writeln!(
            text,
            "{id:>6}  {:<16} {:<16} {:>6} {:<12} {:>6} {:>12} {:>10}",
            bound(&region.start_key),
            bound(&region.end_key),
            leader.unwrap_or_else(|| "-".to_owned()),
            stores.collect::<Vec<_>>().join(","),
            status.term,
            status.applied,
            size(status.log_bytes),
        );
    }
    print(text.as_bytes())
}

fn show_region(args: &ShowArgs) -> Done {
    let (_, statuses) = block_on(survey(&args.addr.get()?))?;
    let mut text = String::new();
    for (store, status) in statuses {
        let mut regions = status.regions.into_iter();
        let found = regions.find(|status| {
            let region = status.region.as_ref();
            region.is_some_and(|region| region.id == args.region)
        });
        let Some(status) = found else { continue };
        if args.json {
            let region = serde_json::to_value(RegionJson::from(status));
            let region = region.map_err(|error| Failure::world(error.to_string()))?;
            let _ = writeln!(text, "{}", json!({ "store_id": store, "region": region }));
        } else {
            let _ = write!(
                text,
                "{}store {store}",
                if text.is_empty() { "" } else { "\n" }
            );
            put_region(&mut text, &status);
        }
    }
    if text.is_empty() {
        let id = args.region;
        return Err(Failure::world(format!(
            "no store that answers has region {id}"
        )));
    }
    print(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_a_number_and_may_have_its_address() {
        let store = parse_store("4=h:1").unwrap();
        assert_eq!((store.id, store.address.as_str()), (4, "h:1"));
        assert_eq!(parse_store("4").unwrap().address, "");
        for wrong in ["", "x", "0", "-1", "=h:1", "x=h:1"] {
            assert!(parse_store(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_region_is_shown_as_its_leader_sees_it() {
        let region = |role: &str, term, applied| RegionStatus {
            region: Some(basalt_proto::metapb::Region {
                id: 1,
                ..Default::default()
            }),
            role: role.to_owned(),
            term,
            applied,
            ..RegionStatus::default()
        };
        let statuses = [
            region("follower", 7, 30),
            region("leader", 7, 20),
            region("follower", 6, 40),
        ];
        let statuses = (1..).zip(statuses).map(|(store, region)| {
            let status = StatusResponse {
                regions: vec![region],
                ..StatusResponse::default()
            };
            (store, status)
        });
        assert_eq!(leaders_view(&statuses.collect())[&1].applied, 20);
    }
}
