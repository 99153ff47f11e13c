//! What engines and methods have counted, and how a get goes, as clients are told.
//!
//! Not here: the figures themselves (`crate::figures`).

use basalt_engine::{BlockSource, Explanation, Outcome, Place, Stats, Step};
use basalt_proto::basaltpb::{
    EngineStats, ExplainResponse, ExplainStep, FamilyFigures, Figure, LevelStatus, RegionRate,
    StatusResponse,
};

use crate::{
    figures::{ENGINE, FAMILY, Shape},
    storage::OpenEngine,
};

/// How a get goes.
pub(crate) fn explained(explanation: &Explanation) -> ExplainResponse {
    let (outcome, value_len) = match explanation.outcome {
        Outcome::Found(len) => ("found", len as u64),
        Outcome::Deleted => ("deleted", 0),
        Outcome::RangeDeleted => ("range deleted", 0),
        Outcome::Expired => ("expired", 0),
        _ => ("absent", 0),
    };
    ExplainResponse {
        seq: explanation.seq.0,
        steps: explanation.steps.iter().map(step).collect(),
        outcome: outcome.to_owned(),
        value_len,
    }
}

fn step(step: &Step) -> ExplainStep {
    let (place, level, number) = match step.place {
        Place::Memtable => ("memtable", 0, 0),
        Place::Frozen(at) => ("frozen memtable", 0, at as u64),
        Place::Table { level, number } => ("table", u32::try_from(level).unwrap_or(0), number),
        _ => ("log", 0, 0),
    };
    let filter = match step.filter {
        Some(true) => "perhaps",
        Some(false) => "no",
        None => "",
    };
    let (block, block_bytes) = match step.block {
        Some((BlockSource::Map, bytes)) => ("map", bytes as u64),
        Some((BlockSource::Cache, bytes)) => ("cache", bytes as u64),
        Some((_, bytes)) => ("file", bytes as u64),
        None => ("", 0),
    };
    let (met, seq, value_len) = match step.met {
        Some(met) => match met.value_len {
            Some(len) => ("value", met.seq.0, len as u64),
            None => ("delete", met.seq.0, 0),
        },
        None => ("", 0, 0),
    };
    ExplainStep {
        place: place.to_owned(),
        level,
        number,
        filter: filter.to_owned(),
        block: block.to_owned(),
        block_bytes,
        range_delete_seq: step.range_delete.map_or(0, |seq| seq.0),
        met: met.to_owned(),
        seq,
        value_len,
    }
}

/// The figures of an engine.
pub(super) fn engine(engine: &OpenEngine) -> EngineStats {
    engine_figures(engine.name, &engine.db.stats())
}

/// The same of a database that is open anyhow.
pub(crate) fn engine_figures(name: &str, stats: &Stats) -> EngineStats {
    let families = stats.families.iter().map(|family| {
        let levels = (0..).zip(&family.levels).map(|(level, stats)| LevelStatus {
            level,
            table_count: stats.tables as u64,
            table_bytes: stats.bytes,
        });
        let mut figures = vec![
            figure(
                "memtable_bytes",
                (family.memtable_bytes + family.immutable_bytes) as u64,
            ),
            figure("immutable_memtables", family.immutable_memtables as u64),
        ];
        figures.extend(all(FAMILY, family));
        FamilyFigures {
            name: family.name.clone(),
            figures,
            levels: levels.collect(),
            stall: family.stall.clone().unwrap_or_default(),
        }
    });
    let mut figures = vec![figure("last_sequence", stats.last_seq.0)];
    figures.extend(all(ENGINE, stats));
    EngineStats {
        name: name.to_owned(),
        figures,
        families: families.collect(),
        stall: stats.stall.clone().unwrap_or_default(),
        read_only: stats
            .read_only
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
    }
}

fn figure(name: &str, value: u64) -> Figure {
    Figure {
        name: name.to_owned(),
        value,
    }
}

fn all<T>(shapes: &[Shape<T>], of: &T) -> Vec<Figure> {
    shapes
        .iter()
        .map(|shape| figure(shape.name, (shape.of)(of)))
        .collect()
}

/// How far the regions are.
pub(super) fn regions(status: &StatusResponse) -> Vec<RegionRate> {
    let regions = status.regions.iter();
    let rate = |region: &basalt_proto::basaltpb::RegionStatus| RegionRate {
        region_id: region.region.as_ref().map_or(0, |region| region.id),
        applied: region.applied,
        leader_store_id: region.leader.map_or(0, |leader| leader.store_id),
    };
    regions.map(rate).collect()
}
