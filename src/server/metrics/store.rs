//! The figures of a replicated store: what its loops count, and its traffic with other stores.
//!
//! Not here: what is counted and how it is called (`basalt_raftstore::metrics`).

use std::{
    fmt,
    sync::{Arc, Weak, atomic::Ordering},
};

use basalt_raftstore::metrics::{Figure, Histogram, Value};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter},
};

use super::{number, value};
use crate::replicated::{Cluster, Links};

/// What a bound is divided by to be in the unit of its name.
const BYTES: f64 = 1.0;
const NANOS: f64 = 1e9;

/// Shows the loops of a store.
pub(super) struct LoopCollector(pub(super) Weak<Cluster>);

/// Shows the traffic of a store with the others.
pub(super) struct PeerCollector(pub(super) Weak<Cluster>);

impl fmt::Debug for LoopCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LoopCollector")
    }
}

impl fmt::Debug for PeerCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PeerCollector")
    }
}

/// A number of the text format. (Beyond 2^53 the last digits are lost, and nobody counts so far.)
#[expect(clippy::cast_precision_loss, reason = "sums and bounds for people")]
fn float(value: u64, unit: f64) -> f64 {
    value as f64 / unit
}

fn put_histogram(encoder: &mut MetricEncoder<'_>, histogram: &Histogram, unit: f64) -> fmt::Result {
    let bound = |bound| match bound {
        u64::MAX => f64::MAX,
        bound => float(bound, unit),
    };
    let buckets: Vec<(f64, u64)> = histogram
        .buckets()
        .map(|(upper, count)| (bound(upper), count))
        .collect();
    // Of the same look at the buckets: others count meanwhile.
    let count = buckets.iter().map(|(_, count)| count).sum();
    let sum = float(histogram.sum(), unit);
    encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
}

fn kind(value: Value<'_>) -> MetricType {
    match value {
        Value::Counter(_) => MetricType::Counter,
        Value::Gauge(_) => MetricType::Gauge,
        Value::Sizes(_) | Value::Durations(_) => MetricType::Histogram,
    }
}

fn put_value(mut encoder: MetricEncoder<'_>, of: Value<'_>) -> fmt::Result {
    match of {
        Value::Counter(count) => ConstCounter::new(count).encode(encoder),
        Value::Gauge(now) => value(now).encode(encoder),
        Value::Sizes(sizes) => put_histogram(&mut encoder, sizes, BYTES),
        Value::Durations(durations) => put_histogram(&mut encoder, durations, NANOS),
    }
}

/// Shows figures of one name.
fn put_figures(encoder: &mut DescriptorEncoder<'_>, figures: &[Figure<'_>]) -> fmt::Result {
    let Some(first) = figures.first() else {
        return Ok(());
    };
    let mut metric = encoder.encode_descriptor(first.name, first.help, None, kind(first.value))?;
    for figure in figures {
        match figure.label {
            Some(label) => put_value(metric.encode_family(&[label])?, figure.value)?,
            None => return put_value(metric, figure.value),
        }
    }
    Ok(())
}

impl Collector for LoopCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cluster) = self.0.upgrade() else {
            return Ok(());
        };
        let Some(handle) = cluster.links.handle() else {
            // Its loops do not run yet.
            return Ok(());
        };
        let figures = handle.metrics().figures();
        for alike in figures.chunk_by(|one, other| one.name == other.name) {
            put_figures(&mut encoder, alike)?;
        }
        Ok(())
    }
}

impl Collector for PeerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(cluster) = self.0.upgrade() else {
            return Ok(());
        };
        let encoder = &mut encoder;
        put_traffic(encoder, &cluster.links)?;
        number(
            encoder,
            "fenced",
            "1 while the store serves nothing until it is restarted",
            u64::from(cluster.fenced().is_some()),
        )
    }
}

fn put_traffic(encoder: &mut DescriptorEncoder<'_>, links: &Arc<Links>) -> fmt::Result {
    let (messages, bytes) = links.waiting();
    let waiting = [
        (
            "raft_messages_waiting",
            "Raft messages that wait to be sent",
            messages,
        ),
        (
            "raft_bytes_waiting",
            "Bytes of Raft messages that wait to be sent",
            bytes,
        ),
        (
            "snapshots_waiting",
            "Snapshots that are being sent, or wait for their turn",
            links.snapshots_waiting(),
        ),
    ];
    for (name, help, of) in waiting {
        number(encoder, name, help, of as u64)?;
    }
    let traffic = &links.traffic;
    let counted = [
        (
            "raft_messages_sent",
            "Raft messages put on their way",
            &traffic.sent,
        ),
        (
            "raft_messages_dropped",
            "Raft messages dropped",
            &traffic.dropped,
        ),
        (
            "raft_messages_received",
            "Raft messages taken in",
            &traffic.received,
        ),
        (
            "snapshots_sent",
            "Snapshots sent whole",
            &traffic.snapshots_sent,
        ),
        (
            "snapshots_failed",
            "Snapshots that could not be sent",
            &traffic.snapshots_failed,
        ),
        (
            "snapshots_received",
            "Snapshots received whole",
            &traffic.snapshots_received,
        ),
        (
            "snapshots_refused",
            "Snapshots of other stores that were not taken in, for want of room or of sense",
            &traffic.snapshots_refused,
        ),
        (
            "snapshots_not_received",
            "Snapshots of other stores that broke off or came damaged, or that the disk here did not take",
            &traffic.snapshots_not_received,
        ),
        (
            "snapshot_sent_bytes",
            "Bytes of the files of snapshots that were sent whole",
            &traffic.snapshot_sent_bytes,
        ),
        (
            "snapshot_received_bytes",
            "Bytes of the files of snapshots that were received whole",
            &traffic.snapshot_received_bytes,
        ),
    ];
    for (name, help, of) in counted {
        let counter = ConstCounter::new(of.load(Ordering::Relaxed));
        counter.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
    }
    let timed = [
        (
            "snapshot_sending_seconds",
            "Time in which a snapshot was sent, with its wait for a turn",
            &traffic.snapshot_sending,
        ),
        (
            "snapshot_receiving_seconds",
            "Time in which a snapshot was received and made durable",
            &traffic.snapshot_receiving,
        ),
    ];
    for (name, help, of) in timed {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
        put_histogram(&mut metric, of.nanos(), NANOS)?;
    }
    Ok(())
}
