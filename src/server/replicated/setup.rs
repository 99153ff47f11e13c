//! What a data directory and the settings mean together: a standalone store, a store of a cluster that is there, a
//! founder, or one that joins.
//!
//! Promises: nothing is written before the sockets are bound; a directory is never used against what it states, and
//! a setting that contradicts it is refused by name.
//!
//! Not here: flags and files (`config`), the store at work (`Cluster`).

use std::{collections::BTreeMap, sync::Arc};

use basalt_proto::basaltpb::{HelloRequest, MembersRequest, StoreInfo};
use tokio::runtime::Handle;

use super::{
    Cluster, Dialer, Directory, cluster_id, draw,
    hello::{self, Unmet},
    members::MAX_STORE_ID,
};
use crate::{
    config::Config,
    limits::PEER_ANSWER_TIMEOUT,
    storage::{
        EngineSettings,
        data_dir::{self, Identity, Layout, Mode, Phase},
    },
    stubs::basaltpb::admin_client::AdminClient,
};

/// How many ids a store that joins tries, where it may choose and others join at the same time.
const JOIN_TRIES: usize = 8;

/// What a server is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Alone on its machine.
    Standalone,
    /// What the directory says it is, with this address for others.
    Restart(Identity, Option<String>),
    /// One of the founders of a cluster.
    Found {
        /// Its id.
        store_id: u64,
        /// All of them: where others reach them.
        founders: BTreeMap<u64, String>,
    },
    /// New in a cluster that is there.
    Join {
        /// A store of it.
        through: String,
        /// The id it wants; `None`: the next free one.
        store_id: Option<u64>,
    },
}

/// Why a server cannot be what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A setting is wrong.
    Setting(String),
    /// The world is not as it should be.
    World(String),
}

fn setting<T>(what: impl Into<String>) -> Result<T, Refused> {
    Err(Refused::Setting(what.into()))
}

/// A plan, and where the server listens: from the settings, else from what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What it is to be.
    pub plan: Plan,
    /// Where gRPC is served.
    pub addr: String,
    /// Where the status pages are served.
    pub status_addr: String,
}

/// Decides. Reads the directory and writes nothing.
///
/// # Errors
///
/// [`Refused`], in one sentence.
pub fn plan(config: &Config) -> Result<Planned, Refused> {
    let mode = data_dir::read_mode(&config.path).map_err(Refused::World)?;
    let plan = match mode {
        Some(Mode::Standalone) => {
            if let Some(key) = config.cluster_setting() {
                return Err(Refused::World(format!(
                    "{} holds a standalone store, so --{key} makes no sense; use another --path",
                    config.path.display()
                )));
            }
            Plan::Standalone
        }
        Some(Mode::Replicated(identity)) => {
            check_contrary(config, &identity)?;
            let moved = config.advertise_addr.clone();
            let moved =
                moved.or_else(|| config.addr_if_said().filter(|addr| *addr != identity.addr));
            Plan::Restart(identity, moved)
        }
        None => fresh(config)?,
    };
    let advertised = match &plan {
        Plan::Standalone => None,
        Plan::Restart(identity, _) => Some(identity.addr.clone()),
        Plan::Found { store_id, founders } => founders.get(store_id).cloned(),
        Plan::Join { .. } => None,
    };
    let said = config.addr_if_said();
    let addr = said.or(advertised).unwrap_or_else(|| config.addr.clone());
    let status_addr = config.status_addr_if_said().unwrap_or_else(|| match &plan {
        Plan::Standalone => config.status_addr.clone(),
        Plan::Restart(identity, _) => identity.status_addr.clone(),
        Plan::Found { .. } | Plan::Join { .. } => beside(&addr),
    });
    Ok(Planned {
        plan,
        addr,
        status_addr,
    })
}

/// The status address that goes with an address: the port twenty above, as in the defaults.
fn beside(addr: &str) -> String {
    let parts = addr.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match parts {
        Some((host, 0)) => format!("{host}:0"),
        Some((host, port)) => format!("{host}:{}", port.checked_add(20).unwrap_or(0)),
        None => "127.0.0.1:0".to_owned(),
    }
}

fn fresh(config: &Config) -> Result<Plan, Refused> {
    let founders = &config.initial_cluster;
    if let Some(through) = &config.join {
        if !founders.is_empty() {
            return setting("--join and --initial-cluster exclude each other");
        }
        return Ok(Plan::Join {
            through: through.clone(),
            store_id: config.store_id,
        });
    }
    if founders.is_empty() {
        return match config.cluster_setting() {
            Some(key) => setting(format!("--{key} needs --initial-cluster, or --join")),
            None => Ok(Plan::Standalone),
        };
    }
    let Some(store_id) = config.store_id else {
        return setting("--initial-cluster needs --store-id: which of its stores this is");
    };
    let Some(own) = founders.get(&store_id) else {
        return setting(format!("--initial-cluster has no store {store_id}"));
    };
    if let Some(advertised) = config.advertise_addr.as_ref().filter(|addr| *addr != own) {
        return setting(format!(
            "--advertise-addr is {advertised}, and --initial-cluster says {own} of store {store_id}"
        ));
    }
    Ok(Plan::Found {
        store_id,
        founders: founders.clone(),
    })
}

/// Settings that contradict what the directory states.
fn check_contrary(config: &Config, identity: &Identity) -> Result<(), Refused> {
    let shown = config.path.display();
    let contrary = |what: String| Err(Refused::World(what));
    if let Some(asked) = config.store_id.filter(|asked| *asked != identity.store_id) {
        return contrary(format!(
            "{shown} holds store {}, not store {asked}",
            identity.store_id
        ));
    }
    let name = &identity.cluster_name;
    let said = config.cluster_name.as_ref();
    if let Some(asked) = said.filter(|asked| *asked != name) {
        return contrary(format!(
            "{shown} holds a store of the cluster {name:?}, not {asked:?}"
        ));
    }
    if !config.initial_cluster.is_empty()
        && cluster_id(name, &config.initial_cluster) != identity.cluster_id
    {
        return contrary(format!(
            "{shown} holds a store of a cluster with other founders than --initial-cluster says"
        ));
    }
    Ok(())
}

/// What a cluster's founders call it unless they say so.
pub const DEFAULT_CLUSTER_NAME: &str = "basalt";

/// Makes the store of a plan that is not standalone; the directory is one of ours afterwards. Blocks on the disk.
///
/// # Errors
///
/// [`Refused`], in one sentence.
pub async fn prepare(
    config: &Config,
    planned: &Planned,
    dialer: Dialer,
) -> Result<Arc<Cluster>, Refused> {
    let layout = Layout::of(&config.path);
    let settings = EngineSettings {
        cache_bytes: config.cache_bytes,
        write_buffer_bytes: config.write_buffer_bytes,
    };
    let world = Refused::World;
    let ways = (dialer.clone(), Handle::current());
    let (identity, stores) = match &planned.plan {
        Plan::Standalone => return setting("a standalone store belongs to no cluster"),
        Plan::Restart(identity, moved) => {
            let directory = Directory::open(layout.members(), identity.store_id).map_err(world)?;
            if let Some(address) = moved {
                directory.move_to(address).map_err(world)?;
            }
            let next = Identity {
                addr: planned.addr.clone(),
                status_addr: planned.status_addr.clone(),
                ..identity.clone()
            };
            if next != *identity {
                let mode = Mode::Replicated(next.clone());
                data_dir::write_mode(&config.path, &mode).map_err(world)?;
            }
            return Ok(Cluster::new(layout, settings, next, false, directory, ways));
        }
        Plan::Found { store_id, founders } => {
            data_dir::claim(&config.path).map_err(world)?;
            found(config, *store_id, founders)?
        }
        Plan::Join { through, store_id } => {
            data_dir::claim(&config.path).map_err(world)?;
            let address = config.advertise_addr.clone();
            let address = address.unwrap_or_else(|| planned.addr.clone());
            join(&dialer, through, *store_id, &address).await?
        }
    };
    let identity = Identity {
        addr: planned.addr.clone(),
        status_addr: planned.status_addr.clone(),
        ..identity
    };
    // The mode comes last: a directory that states it has everything else.
    let directory =
        Directory::create(layout.members(), identity.store_id, stores).map_err(world)?;
    data_dir::write_mode(&config.path, &Mode::Replicated(identity.clone())).map_err(world)?;
    Ok(Cluster::new(
        layout, settings, identity, true, directory, ways,
    ))
}

fn found(
    config: &Config,
    store_id: u64,
    founders: &BTreeMap<u64, String>,
) -> Result<(Identity, Vec<StoreInfo>), Refused> {
    let name = config
        .cluster_name
        .as_deref()
        .unwrap_or(DEFAULT_CLUSTER_NAME);
    let incarnation = draw().map_err(Refused::World)?;
    let stores = founders.iter().map(|(&id, address)| {
        let seen = if id == store_id { incarnation } else { 0 };
        hello::introduction(id, address, seen)
    });
    let identity = Identity {
        cluster_id: cluster_id(name, founders),
        cluster_name: name.to_owned(),
        store_id,
        incarnation,
        phase: Phase::Forming,
        addr: String::new(),
        status_addr: String::new(),
    };
    Ok((identity, stores.collect()))
}

/// Asks a store of a cluster for it, and introduces the new one there.
async fn join(
    dialer: &Dialer,
    through: &str,
    wanted: Option<u64>,
    address: &str,
) -> Result<(Identity, Vec<StoreInfo>), Refused> {
    let world = |what: String| Refused::World(format!("cannot join through {through}: {what}"));
    let incarnation = draw().map_err(Refused::World)?;
    let asking = async {
        let channel = dialer.dial(through).await?;
        let answer = AdminClient::new(channel).members(MembersRequest {}).await;
        answer.map_err(|status| status.message().to_owned())
    };
    let asked = tokio::time::timeout(PEER_ANSWER_TIMEOUT, asking).await;
    let asked = asked.unwrap_or_else(|_| Err("it gives no answer".to_owned()));
    let members = asked.map_err(world)?.into_inner();
    if members.cluster_id == 0 {
        return Err(world("it belongs to no cluster".to_owned()));
    }
    let largest = members.stores.iter().map(|store| store.store_id).max();
    let mut store_id = wanted.unwrap_or(largest.unwrap_or(0) + 1);
    let mut tries = 0;
    let known = loop {
        if store_id == 0 || store_id > MAX_STORE_ID {
            return Err(world(format!(
                "{store_id} is no id of a store: 1 to {MAX_STORE_ID}"
            )));
        }
        tries += 1;
        let request = HelloRequest {
            cluster_id: members.cluster_id,
            sender: Some(hello::introduction(store_id, address, incarnation)),
            target_store_id: members.store_id,
            known: Vec::new(),
        };
        match hello::greet(dialer, through, request).await {
            Ok(answer) => break answer.known,
            // Somebody else was quicker.
            Err(Unmet::Refused(_)) if wanted.is_none() && tries < JOIN_TRIES => store_id += 1,
            Err(why) => return Err(world(why.text().to_owned())),
        }
    };
    let own = hello::introduction(store_id, address, incarnation);
    let others = known.into_iter().filter(|store| store.store_id != store_id);
    let identity = Identity {
        cluster_id: members.cluster_id,
        cluster_name: members.cluster_name,
        store_id,
        incarnation,
        phase: Phase::Joining,
        addr: String::new(),
        status_addr: String::new(),
    };
    Ok((identity, others.chain([own]).collect()))
}

/// `1=HOST:PORT,2=HOST:PORT`.
///
/// # Errors
///
/// What is wrong with it.
pub fn parse_founders(
    value: &str,
    check_addr: impl Fn(String) -> Result<String, String>,
) -> Result<BTreeMap<u64, String>, String> {
    let mut founders = BTreeMap::new();
    for part in value.split(',') {
        let split = part.split_once('=');
        let parsed =
            split.and_then(|(id, addr)| Some((id.trim().parse::<u64>().ok()?, addr.trim())));
        let Some((id, addr)) = parsed else {
            return Err(format!("{part:?} is not of the form ID=HOST:PORT"));
        };
        if id == 0 || id > MAX_STORE_ID {
            return Err(format!("{id} is no id of a store: 1 to {MAX_STORE_ID}"));
        }
        let addr = check_addr(addr.to_owned())?;
        if addr.ends_with(":0") {
            return Err(format!("{addr}: others cannot reach port 0"));
        }
        if founders.values().any(|known| *known == addr) {
            return Err(format!("{addr} is there twice"));
        }
        if founders.insert(id, addr).is_some() {
            return Err(format!("store {id} is there twice"));
        }
    }
    let most = crate::limits::MAX_FOUNDERS;
    if founders.len() > most {
        return Err(format!("{} stores, the limit is {most}", founders.len()));
    }
    Ok(founders)
}

#[cfg(test)]
mod tests;
