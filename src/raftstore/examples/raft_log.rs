//! What a Raft log costs in raftdb: saves as a store loop makes them, reads of entries that are not cached, and an open
//! of what is left. Meant for counting (`valgrind --tool=callgrind`), for which its work is the same each time.
//!
//! `raft_log save DIR TURNS ENTRIES BYTES REGIONS` saves so many entries of so many bytes (half of them random) a turn
//! to each region, one synced batch a turn; logs are truncated at 20,000 entries to half of that. `raft_log read DIR
//! REGIONS` reads all that is stored, cached nowhere. `raft_log open DIR REGIONS` only opens.

use std::{error::Error, fs, path::Path, time::Instant};

use basalt_engine::{Db, Options, WriteBatch, WriteOptions};
use basalt_proto::{
    metapb::{Peer, Region, RegionEpoch},
    raft_serverpb::RaftApplyState,
};
use basalt_raft::{
    NO_LIMIT, Storage,
    eraftpb::{Entry, HardState},
};
use basalt_raftstore::{Applied, Engines, Membership, PeerStorage, Save, states};

/// Applied entries at which a log is truncated.
const KEPT: u64 = 20_000;
/// Turns between two writes of the apply loop.
const APPLY_EVERY: u64 = 16;

type Done<T = ()> = Result<T, Box<dyn Error>>;

fn engines(dir: &Path) -> Done<Engines> {
    let raft = Engines::raft_options(Options {
        block_cache_bytes: 8 << 20,
        ..Options::default()
    });
    let kv = Db::open(dir.join("kv"), Options::default())?;
    let raft = Db::open(dir.join("raft"), raft)?;
    Ok(Engines::new(kv, raft)?)
}

fn membership(region: u64) -> Membership {
    let region = Region {
        id: region,
        region_epoch: Some(RegionEpoch {
            conf_ver: 1,
            version: 1,
        }),
        peers: vec![Peer { id: 1, store_id: 1 }],
        ..Region::default()
    };
    Membership {
        conf_state: states::all_vote(&region),
        region,
    }
}

/// Bytes half of which no compression can spare.
fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut value = vec![b'v'; bytes];
    for byte in value.iter_mut().step_by(2) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *byte = state.to_le_bytes()[3];
    }
    value
}

fn apply(engines: &Engines, peer: &mut PeerStorage, index: u64) -> Done {
    let mut state = RaftApplyState {
        applied_index: index,
        ..*peer.apply_state()
    };
    if index + 1 - peer.first_index()? >= KEPT {
        state.truncated_state = Some(peer.truncation_at(index - KEPT / 2)?);
    }
    let mut batch = WriteBatch::new();
    states::put_apply_state(engines, &mut batch, peer.region_id(), &state);
    let seq = engines.kv.write(batch, WriteOptions::NO_SYNC)?;
    peer.applied(Applied {
        state,
        membership: None,
        seq,
    })?;
    Ok(())
}

fn save(dir: &Path, turns: u64, entries: u64, bytes: usize, regions: u64) -> Done {
    let engines = engines(dir)?;
    let mut peers = Vec::new();
    for region in 1..=regions {
        PeerStorage::create(&engines, &membership(region), 1)?;
        peers.push(PeerStorage::open(engines.clone(), region, 1, 1 << 20)?);
    }
    let values: Vec<_> = (0..1024).map(|number| value(number, bytes)).collect();
    let mut number = 0;
    let began = Instant::now();
    for turn in 0..turns {
        let mut batch = WriteBatch::new();
        let mut saves = Vec::new();
        for peer in &mut peers {
            let next = peer.last_index()? + 1;
            let log: Vec<Entry> = (next..next + entries)
                .map(|index| {
                    number += 1;
                    Entry {
                        index,
                        term: 6,
                        data: values[number % values.len()].clone().into(),
                        ..Entry::default()
                    }
                })
                .collect();
            let save = Save {
                hard_state: Some(HardState {
                    term: 6,
                    vote: 1,
                    commit: next - 1,
                }),
                entries: &log,
                ..Save::default()
            };
            saves.push(peer.save(&save, &mut batch)?);
        }
        if turn % 1024 == 1023 {
            engines.flush_kv()?;
            peers.iter_mut().for_each(|peer| {
                peer.compact_log(&mut batch);
            });
        }
        engines.raft.write(batch, WriteOptions::SYNC)?;
        for (peer, save) in peers.iter_mut().zip(saves) {
            peer.published(save);
            if turn % APPLY_EVERY == APPLY_EVERY - 1 {
                let last = peer.last_index()?;
                apply(&engines, peer, last)?;
            }
        }
    }
    let took = began.elapsed();
    let stats = engines.raft.stats();
    let user = turns * entries * regions * bytes as u64;
    let memtables: usize = stats
        .families
        .iter()
        .map(|family| family.memtable_bytes + family.immutable_bytes)
        .sum();
    println!(
        "saved {user} bytes in {took:.2?}; log {} in {} segments, flushed {}, compacted {}, memtables {memtables}",
        stats.log_bytes, stats.log_segments, stats.flushed_bytes, stats.compacted_bytes_written
    );
    for family in stats.families.iter().filter_map(|family| family.append) {
        println!("index: {family:?}, rewritten {}", stats.log_rewritten_bytes);
    }
    print_memory()?;
    let (raft, kv) = (engines.raft.clone(), engines.kv.clone());
    drop((peers, engines));
    raft.close()?;
    kv.close()?;
    println!("directory {}", directory_bytes(&dir.join("raft"))?);
    Ok(())
}

fn print_memory() -> Done {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name));
    for name in ["VmHWM", "VmRSS", "RssAnon"] {
        println!("{}", line(name).unwrap_or_default());
    }
    Ok(())
}

fn directory_bytes(dir: &Path) -> Done<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn read(dir: &Path, regions: u64) -> Done {
    let engines = engines(dir)?;
    let mut count = 0;
    let mut took = std::time::Duration::ZERO;
    for region in 1..=regions {
        let peer = PeerStorage::open(engines.clone(), region, 1, 0)?;
        let (mut low, end) = (peer.first_index()?, peer.last_index()? + 1);
        let began = Instant::now();
        while low < end {
            let high = end.min(low + 256);
            let read = peer.entries(low, high, NO_LIMIT)?;
            count += read.len();
            low = high;
        }
        took += began.elapsed();
    }
    println!("read {count} entries in {took:.2?}");
    Ok(())
}

fn open(dir: &Path, regions: u64) -> Done {
    let began = Instant::now();
    let engines = engines(dir)?;
    for region in 1..=regions {
        PeerStorage::open(engines.clone(), region, 1, 0)?;
    }
    println!(
        "opened in {:.2?}: {:?}",
        began.elapsed(),
        engines.raft.recovery()
    );
    print_memory()
}

fn main() -> Done {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number =
        |at: usize| -> Done<u64> { Ok(args.get(at).ok_or("a number is missing")?.parse()?) };
    let dir = Path::new(args.get(1).ok_or("no directory")?);
    match args.first().map(String::as_str) {
        Some("save") => {
            let bytes = usize::try_from(number(4)?)?;
            save(dir, number(2)?, number(3)?, bytes, number(5)?)
        }
        Some("read") => read(dir, number(2)?),
        Some("open") => open(dir, number(2)?),
        _ => Err("save, read or open".into()),
    }
}
