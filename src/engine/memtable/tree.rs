//! The order of a memtable as a tree: handles that many threads insert into and read at a time.
//!
//! Readers take no lock and write to nothing that is shared. An entry goes to the end of its leaf, under the leaf's
//! own lock, and is there once the leaf's length says so; leaves are put in order when they are read. A full leaf is
//! replaced by two, and the node above it by a copy that names both. Who came to an old node before reads on in it:
//! all that was in is there, and what is inserted later has a number that is published later than that reader's. Old
//! nodes are freed once nobody is pinned who may stand in one.
//!
//! Keys of a node lie between its bounds, so that they begin with what the bounds have in common. The eight bytes
//! behind that are kept beside each other in the node, and decide nearly every comparison.

#![expect(
    unsafe_code,
    reason = "nodes are read while others are put in their place, without a lock or a count"
)]

use std::{
    hint,
    ops::Bound,
    ptr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

use crossbeam_epoch::{self as epoch, Guard};

use super::{
    Handle,
    leaf::{LEAF, Leaf, Part, Pushed, head},
};

/// Most children of a node above the leaves. Small in tests, for trees of some height.
const FANOUT: usize = if cfg!(test) { 4 } else { 64 };

/// Handles in order.
pub(super) struct Tree {
    /// Null before the first entry. Any thread may follow it: what is shared of nodes is atomic, or does not change once
    /// it is reached, or (the slots of a leaf) is read only below a length that was raised after they were written.
    root: AtomicPtr<Inner>,
    len: AtomicUsize,
    /// Held while nodes are replaced.
    splitting: Mutex<()>,
    /// Bytes of the nodes in the tree.
    node_bytes: AtomicUsize,
    /// Bytes of nodes that were replaced and are not freed yet; shared with what frees them.
    waiting_bytes: Arc<AtomicUsize>,
}

/// What `Inner::children` point at: `Leaf` or `Inner`, as `Inner::height` says.
enum Node {}

/// A node above leaves. Only `children` change once it is in the tree, each for one that has the same bounds.
struct Inner {
    /// 1 where the children are leaves.
    height: usize,
    /// Bytes that all keys below have in common.
    skip: usize,
    len: usize,
    /// `head` of each separator.
    heads: [u64; FANOUT],
    /// At or below all entries of the child of that index, and above all of the child before. The first is below all.
    separators: [Handle; FANOUT],
    children: [AtomicPtr<Node>; FANOUT],
}

/// Where a search came to.
struct Place<'g> {
    leaf: &'g Leaf,
    /// The separators around the leaf, in the nodes that have them: none at the ends of the tree.
    low: Option<(&'g Inner, usize)>,
    high: Option<(&'g Inner, usize)>,
}

/// Bytes that all keys between two bounds begin with.
fn common(low: Option<&Handle>, high: Option<&Handle>) -> usize {
    let (Some(low), Some(high)) = (low, high) else {
        return 0;
    };
    let pairs = low.user_key().iter().zip(high.user_key());
    pairs.take_while(|(a, b)| a == b).count()
}

impl Tree {
    /// Bytes for each entry beside key and value: a handle and its head in a leaf that is full to two thirds, and its
    /// share of the nodes above.
    pub(super) const NODE_BYTES: usize = 50;

    /// An empty tree, which has allocated nothing.
    pub(super) fn new() -> Self {
        Self {
            root: AtomicPtr::new(ptr::null_mut()),
            len: AtomicUsize::new(0),
            splitting: Mutex::new(()),
            node_bytes: AtomicUsize::new(0),
            waiting_bytes: Arc::default(),
        }
    }

    /// Number of entries.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Memory in use, as far as entries justify it: a first leaf that is nearly empty does not make a memtable full.
    #[inline]
    pub(super) fn bytes(&self) -> usize {
        let nodes = self.node_bytes.load(Ordering::Relaxed);
        let first = size_of::<Leaf>() + size_of::<Inner>();
        // Leaves that are filled downwards are half full, so that a number of entries says too little.
        (self.len() * Self::NODE_BYTES).max(nodes.saturating_sub(first))
    }

    /// Memory allocated, with what waits to be freed.
    pub(super) fn allocated(&self) -> usize {
        self.node_bytes.load(Ordering::Relaxed) + self.waiting_bytes.load(Ordering::Relaxed)
    }

    /// Frees a node that is out of the tree once nobody can stand in it, and counts it until then.
    ///
    /// # Safety
    ///
    /// `node` was a box, cannot be reached from the tree any more, and is given here once.
    unsafe fn retire<T: 'static>(&self, node: *mut T, guard: &Guard) {
        let bytes = size_of::<T>();
        self.node_bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Arc::clone(&self.waiting_bytes);
        // SAFETY: the caller vouches for the node; who was pinned may still read it until the closure runs.
        unsafe {
            guard.defer_unchecked(move || {
                drop(Box::from_raw(node));
                waiting.fetch_sub(bytes, Ordering::Relaxed);
            });
        }
    }

    fn count_nodes(&self, bytes: usize) {
        self.node_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Number of leaves.
    #[cfg(test)]
    pub(super) fn leaves(&self) -> usize {
        fn below(inner: &Inner) -> usize {
            if inner.height == 1 {
                return inner.len;
            }
            let children = inner.children[..inner.len].iter();
            // SAFETY: above the lowest height children are nodes of this type; they stay while the caller is pinned.
            let below_child = |child: &AtomicPtr<Node>| unsafe {
                below(&*child.load(Ordering::Acquire).cast::<Inner>())
            };
            children.map(below_child).sum()
        }
        let guard = &epoch::pin();
        self.root(guard).map_or(0, below)
    }

    /// Adds an entry, which is not in yet. What it points at must stay until the tree is dropped.
    pub(super) fn insert(&self, handle: Handle) {
        let guard = &epoch::pin();
        loop {
            let Some(root) = self.root(guard) else {
                self.plant(guard);
                continue;
            };
            match root.place(&handle, false).leaf.push(handle) {
                Pushed::Done => break,
                Pushed::Full => self.split(&handle, guard),
                Pushed::Dead => hint::spin_loop(),
            }
        }
        // Relaxed: who learns of the entry by its published number sees it counted.
        self.len.fetch_add(1, Ordering::Relaxed);
    }

    /// The first entry at or after `target`, if it is of the same user key.
    #[inline]
    pub(super) fn first_version(&self, target: &Handle) -> Option<Handle> {
        let guard = &epoch::pin();
        let mut from = *target;
        loop {
            let place = self.root(guard)?.place(&from, false);
            let found = place.leaf.first_version(target);
            if found.is_some() {
                return found;
            }
            // Versions of a key may go on in the next leaf.
            from = place.high()?;
            if from.user_key() != target.user_key() {
                return None;
            }
        }
    }

    /// Puts some neighbours into `into`, in order, from the first entry within `bound` on; none where there is none.
    pub(super) fn copy_forward(&self, bound: Bound<&Handle>, into: &mut Vec<Handle>) {
        let guard = &epoch::pin();
        into.clear();
        let mut bound = bound.cloned();
        while let Some(root) = self.root(guard) {
            let least = Handle::least();
            let (target, strict) = match &bound {
                Bound::Unbounded => (&least, false),
                Bound::Included(target) => (target, false),
                Bound::Excluded(target) => (target, true),
            };
            let place = root.place(target, false);
            place.leaf.copy(into, Part::From(target, strict));
            match place.high() {
                Some(next) if into.is_empty() => bound = Bound::Included(next),
                _ => return,
            }
        }
    }

    /// Puts some neighbours into `into`, in order, up to the last entry within `bound`; none where there is none.
    pub(super) fn copy_backward(&self, bound: Bound<&Handle>, into: &mut Vec<Handle>) {
        let guard = &epoch::pin();
        into.clear();
        let mut bound = bound.cloned();
        while let Some(root) = self.root(guard) {
            let (place, part) = match &bound {
                Bound::Unbounded => (root.last_place(), Part::All),
                Bound::Included(target) => (root.place(target, false), Part::UpTo(target, false)),
                Bound::Excluded(target) => (root.place(target, true), Part::UpTo(target, true)),
            };
            place.leaf.copy(into, part);
            match place.low() {
                Some(before) if into.is_empty() => bound = Bound::Excluded(before),
                _ => return,
            }
        }
    }

    fn root<'g>(&self, _pinned: &'g Guard) -> Option<&'g Inner> {
        // SAFETY: null, or a node that is freed, once it was replaced, no sooner than all who were pinned then.
        unsafe { self.root.load(Ordering::Acquire).as_ref() }
    }

    /// Makes the first leaf.
    #[cold]
    fn plant(&self, guard: &Guard) {
        let _alone = self.alone();
        if self.root(guard).is_none() {
            let leaf = Leaf::new(&[], 0, 0).cast();
            let root = Inner::new(1, 0, &[(Handle::least(), leaf)]);
            self.root.store(root, Ordering::Release);
            self.count_nodes(size_of::<Leaf>() + size_of::<Inner>());
        }
    }

    fn alone(&self) -> std::sync::MutexGuard<'_, ()> {
        // Nodes are put in place last, so that a panic leaves the tree as it was.
        self.splitting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for `handle` in its leaf, if there is none.
    #[cold]
    fn split(&self, handle: &Handle, guard: &Guard) {
        let _alone = self.alone();
        let mut way = Vec::new();
        let Some(root) = self.root(guard) else { return };
        let place = root.place_by(&mut way, handle);
        let leaf = place.leaf;
        let mut dead = leaf.lock();
        if leaf.len() < LEAF {
            return;
        }
        let mut entries = Vec::with_capacity(LEAF);
        let (heads, handles) = leaf.entries();
        let all = 0..handles.len();
        leaf.in_order(heads, handles, all, |head, handle| {
            entries.push((head, handle));
        });
        let (low, high) = (place.low(), place.high());
        let follows = entries.last().is_some_and(|(_, last)| last < handle);
        let is_last = follows && leaf.may_keep();
        let (above, at) = way[way.len() - 1];
        let kept = above.children[at].load(Ordering::Relaxed);
        // Where entries come in order, leaves stay full. The old leaf loses the keys from `handle` on, of which it has
        // none and, full as it is, takes none.
        let (first, second) = if is_last {
            let second = Leaf::new(&[], 0, common(Some(handle), high.as_ref()));
            (kept, (*handle, second.cast()))
        } else {
            let (left, right) = entries.split_at(LEAF / 2);
            let (_, middle) = right[0];
            let first = Leaf::new(left, leaf.skip, common(low.as_ref(), Some(&middle)));
            let second = Leaf::new(right, leaf.skip, common(Some(&middle), high.as_ref()));
            (first.cast(), (middle, second.cast()))
        };
        let replaced = self.replace(&way, first, second);
        self.count_nodes(size_of::<Leaf>() * if is_last { 1 } else { 2 });
        if !is_last {
            *dead = true;
            // SAFETY: it is out of the tree and no longer reached from it.
            unsafe { self.retire(kept.cast::<Leaf>(), guard) };
        }
        drop(dead);
        for node in replaced {
            // SAFETY: as above.
            unsafe { self.retire(node, guard) };
        }
    }

    /// Puts two children in the place of the one that `way` leads to. Gives the nodes that are out of the tree for it.
    fn replace(
        &self,
        way: &[(&Inner, usize)],
        mut first: *mut Node,
        mut second: (Handle, *mut Node),
    ) -> Vec<*mut Inner> {
        let mut replaced = Vec::new();
        for (depth, &(inner, at)) in way.iter().enumerate().rev() {
            let above = depth.checked_sub(1).map(|above| way[above]);
            replaced.push(match above {
                None => self.root.load(Ordering::Relaxed),
                Some((above, at)) => above.children[at].load(Ordering::Relaxed).cast(),
            });
            let (low, high) = bounds(&way[..depth]);
            let (left, right) = inner.with(at, first, second, low.as_ref(), high.as_ref());
            self.count_nodes(size_of::<Inner>() * (1 + usize::from(right.is_some())));
            match right {
                None => {
                    match above {
                        None => self.root.store(left, Ordering::Release),
                        Some((above, at)) => {
                            above.children[at].store(left.cast(), Ordering::Release);
                        }
                    }
                    return replaced;
                }
                Some((separator, right)) => {
                    (first, second) = (left.cast(), (separator, right.cast()));
                }
            }
        }
        let height = way.first().map_or(1, |(root, _)| root.height + 1);
        let root = Inner::new(height, 0, &[(Handle::least(), first), second]);
        self.count_nodes(size_of::<Inner>());
        self.root.store(root, Ordering::Release);
        replaced
    }
}

/// The separators around the node that a way leads to.
fn bounds(way: &[(&Inner, usize)]) -> (Option<Handle>, Option<Handle>) {
    let (mut low, mut high) = (None, None);
    for &(inner, at) in way {
        if at > 0 {
            low = Some(inner.separators[at]);
        }
        if at + 1 < inner.len {
            high = Some(inner.separators[at + 1]);
        }
    }
    (low, high)
}

impl Drop for Tree {
    fn drop(&mut self) {
        let root = *self.root.get_mut();
        if !root.is_null() {
            // SAFETY: the tree is the only owner of the nodes in it, and nobody reads it any more.
            unsafe { free(root) };
        }
    }
}

/// Frees a node with all below.
///
/// # Safety
///
/// Nobody may reach any of them.
unsafe fn free(inner: *mut Inner) {
    // SAFETY: every node was a box of its type, is in the tree once, and is freed once.
    unsafe {
        let mut inner = Box::from_raw(inner);
        let (height, len) = (inner.height, inner.len);
        for child in &mut inner.children[..len] {
            let child = *child.get_mut();
            if height == 1 {
                drop(Box::from_raw(child.cast::<Leaf>()));
            } else {
                free(child.cast());
            }
        }
    }
}

impl Place<'_> {
    fn low(&self) -> Option<Handle> {
        self.low.map(|(inner, at)| inner.separators[at])
    }

    fn high(&self) -> Option<Handle> {
        self.high.map(|(inner, at)| inner.separators[at])
    }
}

impl Inner {
    /// A node over children, each with the separator before it, on the heap.
    fn new(height: usize, skip: usize, children: &[(Handle, *mut Node)]) -> *mut Self {
        let mut inner = Box::new(Self {
            height,
            skip,
            len: children.len(),
            heads: [0; FANOUT],
            separators: [Handle::least(); FANOUT],
            children: [const { AtomicPtr::new(ptr::null_mut()) }; FANOUT],
        });
        for (at, (separator, child)) in children.iter().enumerate() {
            if at > 0 {
                inner.separators[at] = *separator;
                inner.heads[at] = head(separator, skip);
            }
            *inner.children[at].get_mut() = *child;
        }
        Box::into_raw(inner)
    }

    /// A copy with `first` in the place of the child at `at`, and `second` behind it: as two, with the separator between
    /// them, where one cannot hold all. The bounds are this node's.
    fn with(
        &self,
        at: usize,
        first: *mut Node,
        second: (Handle, *mut Node),
        low: Option<&Handle>,
        high: Option<&Handle>,
    ) -> (*mut Self, Option<(Handle, *mut Self)>) {
        let mut children = Vec::with_capacity(FANOUT + 1);
        for index in 0..self.len {
            let child = self.children[index].load(Ordering::Relaxed);
            children.push((self.separators[index], child));
        }
        children[at].1 = first;
        children.insert(at + 1, second);
        if children.len() <= FANOUT {
            let mut copy = Box::new(Self {
                height: self.height,
                skip: self.skip,
                len: children.len(),
                heads: self.heads,
                separators: self.separators,
                children: [const { AtomicPtr::new(ptr::null_mut()) }; FANOUT],
            });
            copy.heads.copy_within(at + 1..self.len, at + 2);
            copy.separators.copy_within(at + 1..self.len, at + 2);
            copy.heads[at + 1] = head(&second.0, self.skip);
            copy.separators[at + 1] = second.0;
            for (slot, (_, child)) in copy.children.iter_mut().zip(&children) {
                *slot.get_mut() = *child;
            }
            return (Box::into_raw(copy), None);
        }
        // Where entries come in order, nodes stay full as leaves do.
        let cut = if at + 1 == self.len && high.is_none() {
            self.len
        } else {
            children.len() / 2
        };
        let (left, right) = children.split_at(cut);
        let middle = right[0].0;
        let left = Self::new(self.height, common(low, Some(&middle)), left);
        let right = Self::new(self.height, common(Some(&middle), high), right);
        (left, Some((middle, right)))
    }

    /// Index of the child that `target` belongs to: the last whose separator is at or below it, or, `strictly`, below.
    #[inline]
    fn child(&self, target: &Handle, strictly: bool) -> usize {
        let wanted = head(target, self.skip);
        let heads = &self.heads[1..self.len];
        let last = self.len - 1;
        if heads.last() == Some(&wanted) && self.separators[last] < *target {
            // Keys that come in order, with a long common start.
            return last;
        }
        let mut low = heads.partition_point(|&head| head < wanted);
        if heads.get(low) == Some(&wanted) {
            let mut high = low + heads[low..].partition_point(|&head| head == wanted);
            while low < high {
                let middle = low.midpoint(high);
                let order = self.separators[middle + 1].cmp(target);
                if order.is_lt() || order.is_eq() && !strictly {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
        }
        low
    }

    /// The leaf that `target` belongs to, or, `strictly`, what is right before it.
    #[inline]
    fn place(&self, target: &Handle, strictly: bool) -> Place<'_> {
        self.walk(|inner| inner.child(target, strictly))
    }

    fn last_place(&self) -> Place<'_> {
        self.walk(|inner| inner.len - 1)
    }

    /// As [`place`](Self::place), and notes the way.
    fn place_by<'a>(&'a self, way: &mut Vec<(&'a Self, usize)>, target: &Handle) -> Place<'a> {
        self.walk(|inner| {
            let at = inner.child(target, false);
            way.push((inner, at));
            at
        })
    }

    /// Goes down by what `choose` says.
    #[inline]
    fn walk<'a>(&'a self, mut choose: impl FnMut(&'a Self) -> usize) -> Place<'a> {
        let (mut inner, mut low, mut high) = (self, None, None);
        loop {
            let at = choose(inner);
            if at > 0 {
                low = Some((inner, at));
            }
            if at + 1 < inner.len {
                high = Some((inner, at + 1));
            }
            let child = inner.children[at].load(Ordering::Acquire);
            if inner.height == 1 {
                // SAFETY: a child of a node of this height is a leaf; it was whole when it was put there, and is freed
                // no sooner than this node's reader, who is pinned, is done.
                let leaf = unsafe { &*child.cast::<Leaf>() };
                return Place { leaf, low, high };
            }
            // SAFETY: as above; above the lowest height children are nodes of this type.
            inner = unsafe { &*child.cast::<Self>() };
        }
    }
}
