//! Range deletes in the order in which they come, and what each reader sees of them: one search, however they overlap.
//!
//! Of all range deletes over a key a reader sees the newest that it is old enough for. In order of their numbers each lies on
//! top of those before, so after each of them the line of the newest number over every key is a map from first keys to
//! numbers: a skyline. It is a tree that is never changed; the next one shares all of it but the paths to two keys. So every reader has a skyline
//! of its own number, and a lookup is a search for it and a search in it.
//!
//! Deletes that come out of order (writers insert beside each other) have the skylines above them made anew.

use std::{mem::size_of, sync::Arc};

use super::Cover;
use crate::key::{RangeTombstone, SequenceNumber};

/// Skylines that are copied together when one more is added.
const CHUNK: usize = 64;
/// Memory of a node beside its key, with what an allocation takes.
const NODE_BYTES: usize = size_of::<Node>() + 32;

/// The line of the newest range delete over each key. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Skyline {
    root: Link,
}

type Link = Option<Arc<Node>>;

/// From `key` to the next node's key the newest range delete is `seq`; zero: there is none.
struct Node {
    key: Arc<[u8]>,
    seq: SequenceNumber,
    /// Greater than that of the nodes below: what keeps the tree flat.
    priority: u64,
    left: Link,
    right: Link,
}

impl Skyline {
    /// This one with a range delete on top; and the nodes that were made for it.
    fn with(&self, start: &Arc<[u8]>, end: &Arc<[u8]>, seq: SequenceNumber) -> (Self, usize) {
        let mut made = 0;
        let (left, rest) = split(self.root.as_ref(), start, &mut made);
        let (middle, right) = split(rest.as_ref(), end, &mut made);
        let ends_on_a_node = first(right.as_ref()).is_some_and(|node| node.key == *end);
        let beneath = last(middle.as_ref()).or_else(|| last(left.as_ref()));
        let beneath = beneath.map_or(SequenceNumber::ZERO, |node| node.seq);
        let leaf = |key: &Arc<[u8]>, seq, salt| {
            Some(Arc::new(Node {
                key: Arc::clone(key),
                seq,
                priority: mix(seq.0 ^ salt),
                left: None,
                right: None,
            }))
        };
        let top = leaf(start, seq, 0);
        let right = if ends_on_a_node {
            right
        } else {
            // The salt is of this delete, so that no two nodes have the same priority for the same reason.
            join(leaf(end, beneath, seq.0 << 8 | 1), right, &mut made)
        };
        made += 2;
        let root = join(join(left, top, &mut made), right, &mut made);
        (Self { root }, made)
    }

    /// The last node at or before `user_key`, and the first one behind.
    fn around(&self, user_key: &[u8]) -> (Option<&Node>, Option<&Node>) {
        let (mut floor, mut next): (Option<&Node>, Option<&Node>) = (None, None);
        let mut at = self.root.as_deref();
        while let Some(node) = at {
            if &*node.key <= user_key {
                floor = Some(node);
                at = node.right.as_deref();
            } else {
                next = Some(node);
                at = node.left.as_deref();
            }
        }
        (floor, next)
    }

    /// The newest range delete over `user_key`, from where to where; `None` where there is none.
    pub(crate) fn cover(&self, user_key: &[u8]) -> Option<Cover<'_>> {
        let (floor, next) = self.around(user_key);
        let floor = floor.filter(|node| node.seq > SequenceNumber::ZERO)?;
        Some(Cover {
            start: &floor.key,
            end: &next.expect("a range delete ends at a node").key,
            seq: floor.seq,
        })
    }
}

/// Spreads numbers over all of 64 bits.
fn mix(mut n: u64) -> u64 {
    n = (n ^ n >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ n >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ n >> 31
}

fn node(of: &Node, left: Link, right: Link, made: &mut usize) -> Link {
    *made += 1;
    Some(Arc::new(Node {
        key: Arc::clone(&of.key),
        seq: of.seq,
        priority: of.priority,
        left,
        right,
    }))
}

/// What is before `key`, and what is at or after it.
fn split(tree: Option<&Arc<Node>>, key: &[u8], made: &mut usize) -> (Link, Link) {
    let Some(root) = tree else {
        return (None, None);
    };
    if &*root.key < key {
        let (left, right) = split(root.right.as_ref(), key, made);
        (node(root, root.left.clone(), left, made), right)
    } else {
        let (left, right) = split(root.left.as_ref(), key, made);
        (left, node(root, right, root.right.clone(), made))
    }
}

/// One tree of two, all of `left` being before all of `right`.
fn join(left: Link, right: Link, made: &mut usize) -> Link {
    match (left, right) {
        (None, tree) | (tree, None) => tree,
        (Some(left), Some(right)) if left.priority >= right.priority => {
            let below = join(left.right.clone(), Some(right), made);
            node(&left, left.left.clone(), below, made)
        }
        (left, Some(right)) => {
            let below = join(left, right.left.clone(), made);
            node(&right, below, right.right.clone(), made)
        }
    }
}

fn first(tree: Option<&Arc<Node>>) -> Option<&Arc<Node>> {
    let mut at = tree?;
    while let Some(left) = &at.left {
        at = left;
    }
    Some(at)
}

fn last(tree: Option<&Arc<Node>>) -> Option<&Arc<Node>> {
    let mut at = tree?;
    while let Some(right) = &at.right {
        at = right;
    }
    Some(at)
}

/// A range delete, and the skyline with it on top.
#[derive(Clone)]
struct Step {
    start: Arc<[u8]>,
    end: Arc<[u8]>,
    seq: SequenceNumber,
    line: Skyline,
}

/// All range deletes of a memtable. It is never changed: the next one shares what it can.
#[derive(Clone, Default)]
pub(crate) struct Skylines {
    /// In order of their numbers; no chunk is empty.
    chunks: Vec<Arc<Vec<Step>>>,
}

impl Skylines {
    /// What a reader at `at` sees.
    pub(crate) fn at(&self, at: SequenceNumber) -> Option<&Skyline> {
        let newest = self.chunks.last()?.last()?;
        if newest.seq <= at {
            return Some(&newest.line);
        }
        let chunks = self.chunks.partition_point(|chunk| chunk[0].seq <= at);
        let chunk = &self.chunks[chunks.checked_sub(1)?];
        let steps = chunk.partition_point(|step| step.seq <= at);
        Some(&chunk[steps - 1].line)
    }

    /// These and one more, and the bytes that it takes.
    pub(crate) fn with(&self, start: &[u8], end: &[u8], seq: SequenceNumber) -> (Self, usize) {
        let mut next = self.clone();
        if start >= end {
            return (next, 0);
        }
        let mut later = Vec::new();
        while let Some(step) = next.pop_newer(seq) {
            later.push(step);
        }
        let mut bytes = 0;
        next.push(start.into(), end.into(), seq, &mut bytes);
        for step in later.into_iter().rev() {
            next.push(step.start, step.end, step.seq, &mut bytes);
        }
        (next, bytes)
    }

    /// Takes the newest delete off, if it is newer than `seq`.
    fn pop_newer(&mut self, seq: SequenceNumber) -> Option<Step> {
        let chunk = self.chunks.last_mut()?;
        let newest = chunk.last()?.clone();
        if newest.seq <= seq {
            return None;
        }
        if chunk.len() > 1 {
            Arc::make_mut(chunk).pop();
        } else {
            self.chunks.pop();
        }
        Some(newest)
    }

    fn push(&mut self, start: Arc<[u8]>, end: Arc<[u8]>, seq: SequenceNumber, bytes: &mut usize) {
        let newest = self.chunks.last().and_then(|chunk| chunk.last());
        let beneath = newest.map_or_else(Skyline::default, |step| step.line.clone());
        let (line, made) = beneath.with(&start, &end, seq);
        *bytes += made * NODE_BYTES + start.len() + end.len() + size_of::<Step>();
        let step = Step {
            start,
            end,
            seq,
            line,
        };
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => Arc::make_mut(chunk).push(step),
            _ => self.chunks.push(Arc::new(vec![step])),
        }
    }

    /// Every range delete, in order of numbers.
    pub(crate) fn all(&self) -> impl Iterator<Item = RangeTombstone> {
        self.chunks
            .iter()
            .flat_map(|chunk| chunk.iter())
            .map(|step| RangeTombstone {
                start: step.start.to_vec(),
                end: step.end.to_vec(),
                seq: step.seq,
            })
    }
}

/// Keys with the same newest range delete; its number is zero where there is none.
struct Stretch {
    start: Arc<[u8]>,
    end: Arc<[u8]>,
    seq: SequenceNumber,
}

/// Answers for keys that are near each other, as an iterator's are.
pub(crate) struct SkylineCursor {
    line: Skyline,
    /// Where the last key was.
    last: Option<Stretch>,
}

impl SkylineCursor {
    pub(crate) fn new(line: Skyline) -> Self {
        Self { line, last: None }
    }

    /// The newest range delete over `user_key`.
    pub(crate) fn covering(&mut self, user_key: &[u8]) -> Option<Cover<'_>> {
        let holds = |last: &Stretch| *last.start <= *user_key && *user_key < *last.end;
        if !self.last.as_ref().is_some_and(holds) {
            let (floor, next) = self.line.around(user_key);
            self.last = floor.zip(next).map(|(floor, next)| Stretch {
                start: Arc::clone(&floor.key),
                end: Arc::clone(&next.key),
                seq: floor.seq,
            });
        }
        let last = self.last.as_ref()?;
        (last.seq > SequenceNumber::ZERO).then_some(Cover {
            start: &last.start,
            end: &last.end,
            seq: last.seq,
        })
    }
}

#[cfg(test)]
#[path = "skyline_tests.rs"]
mod tests;
