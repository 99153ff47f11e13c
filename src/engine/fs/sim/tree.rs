//! Directories of the simulated disk: the entries readers see, the durable ones, and the changes in
//! between.
//!
//! A crash keeps or loses each pending change, under two rules that every journaling file system
//! obeys: a rename is one change (its target appears and its source goes, or neither), and changes that
//! touch one name are kept up to some point (a later one never without an earlier one).
//! Changes of different names are independent, also when they are about the same file.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    io,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use super::survival::Keep;
use crate::executor::SplitMix64;

pub(super) type Id = u64;

/// Id of the directory `/`.
pub(super) const ROOT: Id = 0;

/// What an entry names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir(Id),
    File(Id),
}

/// A directory and a name in it.
pub(super) type Place = (Id, Arc<str>);

type Entries = BTreeMap<Arc<str>, Node>;

#[derive(Clone, Debug, Default)]
struct Dir {
    live: Entries,
    durable: Entries,
}

#[derive(Clone, Debug)]
struct Change {
    kind: ChangeKind,
    /// A sync of the directory failed since: no later one will make it durable.
    unknown: bool,
}

#[derive(Clone, Debug)]
enum ChangeKind {
    Add(Place, Node),
    Remove(Place),
    Rename { from: Place, to: Place, node: Node },
}

impl ChangeKind {
    fn places(&self) -> impl Iterator<Item = &Place> {
        let (one, two) = match self {
            Self::Add(at, _) | Self::Remove(at) => (at, None),
            Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(one).chain(two)
    }

    fn touches(&self, dir: Id) -> bool {
        self.places().any(|place| place.0 == dir)
    }
}

/// All directories.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    dirs: BTreeMap<Id, Dir>,
    pending: Vec<Change>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            dirs: BTreeMap::from([(ROOT, Dir::default())]),
            pending: Vec::new(),
        }
    }

    /// What `path` names.
    pub(super) fn find(&self, path: &Path) -> io::Result<Node> {
        self.follow(&names(path)?)
    }

    fn follow(&self, names: &[&str]) -> io::Result<Node> {
        let mut node = Node::Dir(ROOT);
        for name in names {
            let Node::Dir(dir) = node else {
                return Err(io::ErrorKind::NotADirectory.into());
            };
            node = *self.dirs[&dir]
                .live
                .get(*name)
                .ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(node)
    }

    pub(super) fn find_dir(&self, path: &Path) -> io::Result<Id> {
        match self.find(path)? {
            Node::Dir(id) => Ok(id),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    pub(super) fn find_file(&self, path: &Path) -> io::Result<Id> {
        match self.find(path)? {
            Node::File(id) => Ok(id),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    /// Where the entry `path` is, or would be; and what it names, if it is there.
    pub(super) fn place(&self, path: &Path) -> io::Result<(Place, Option<Node>)> {
        let mut parents = names(path)?;
        let name = parents.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let Node::Dir(dir) = self.follow(&parents)? else {
            return Err(io::ErrorKind::NotADirectory.into());
        };
        Ok(((dir, name.into()), self.dirs[&dir].live.get(name).copied()))
    }

    pub(super) fn list(&self, dir: Id) -> Vec<String> {
        self.dirs[&dir]
            .live
            .keys()
            .map(ToString::to_string)
            .collect()
    }

    pub(super) fn is_empty(&self, dir: Id) -> bool {
        self.dirs[&dir].live.is_empty()
    }

    pub(super) fn add_dir(&mut self, place: Place, id: Id) {
        self.dirs.insert(id, Dir::default());
        self.add(place, Node::Dir(id));
    }

    pub(super) fn add(&mut self, place: Place, node: Node) {
        self.change(ChangeKind::Add(place, node));
    }

    pub(super) fn remove(&mut self, place: Place) {
        self.change(ChangeKind::Remove(place));
    }

    pub(super) fn rename(&mut self, from: Place, to: Place, node: Node) {
        self.change(ChangeKind::Rename { from, to, node });
    }

    fn change(&mut self, kind: ChangeKind) {
        apply(&mut self.dirs, &kind, |dir| &mut dir.live);
        self.pending.push(Change {
            kind,
            unknown: false,
        });
    }

    /// Makes the changes of `dir` durable, and those that they stand on.
    pub(super) fn sync(&mut self, dir: Id) {
        let mut places: HashSet<Place> = HashSet::new();
        let mut taken = vec![false; self.pending.len()];
        for (change, taken) in self.pending.iter().zip(&mut taken).rev() {
            let wanted = change.kind.touches(dir) && !change.unknown;
            if wanted || change.kind.places().any(|place| places.contains(place)) {
                *taken = true;
                places.extend(change.kind.places().cloned());
            }
        }
        let mut taken = taken.into_iter();
        let dirs = &mut self.dirs;
        self.pending.retain(|change| {
            let take = taken.next().expect("one mark for each change");
            if take {
                apply(dirs, &change.kind, |dir| &mut dir.durable);
            }
            !take
        });
    }

    /// A sync of `dir` that failed: whether its changes are durable is not known any more.
    pub(super) fn fail_sync(&mut self, dir: Id) {
        for change in &mut self.pending {
            change.unknown |= change.kind.touches(dir);
        }
    }

    /// Makes every change durable.
    pub(super) fn settle(&mut self) {
        self.pending.clear();
        for dir in self.dirs.values_mut() {
            dir.durable = dir.live.clone();
        }
    }

    /// The directories after a power cut that keeps of the pending changes what `keep` says. All is
    /// durable in them.
    pub(super) fn survivor(&self, mut keep: Keep, random: &mut SplitMix64) -> Self {
        let mut dirs = self.dirs.clone();
        if matches!(keep, Keep::All) {
            for dir in dirs.values_mut() {
                dir.durable = dir.live.clone();
            }
        } else {
            let mut lost: HashSet<&Place> = HashSet::new();
            for change in &self.pending {
                let stands_on_lost = change.kind.places().any(|place| lost.contains(place));
                if stands_on_lost || !keep.keeps(random) {
                    lost.extend(change.kind.places());
                } else {
                    apply(&mut dirs, &change.kind, |dir| &mut dir.durable);
                }
            }
            for dir in dirs.values_mut() {
                dir.live = dir.durable.clone();
            }
        }
        let mut tree = Self {
            dirs,
            pending: Vec::new(),
        };
        let mut reachable = BTreeSet::from([ROOT]);
        tree.walk(&mut |_, node| {
            if let Node::Dir(id) = node {
                reachable.insert(id);
            }
        });
        tree.dirs.retain(|id, _| reachable.contains(id));
        tree
    }

    /// Number of single decisions a random survival takes.
    pub(super) fn undecided(&self) -> usize {
        self.pending.len()
    }

    /// Calls `visit` with each entry that readers can reach: path and node, a directory before its
    /// entries, names in order.
    pub(super) fn walk(&self, visit: &mut dyn FnMut(&Path, Node)) {
        self.walk_dir(ROOT, &PathBuf::from("/"), visit);
    }

    fn walk_dir(&self, dir: Id, path: &Path, visit: &mut dyn FnMut(&Path, Node)) {
        for (name, node) in &self.dirs[&dir].live {
            let path = path.join(&**name);
            visit(&path, *node);
            if let Node::Dir(id) = node {
                self.walk_dir(*id, &path, visit);
            }
        }
    }

    /// Files that readers can reach.
    pub(super) fn live_files(&self) -> BTreeSet<Id> {
        let mut files = BTreeSet::new();
        self.walk(&mut |_, node| {
            if let Node::File(id) = node {
                files.insert(id);
            }
        });
        files
    }

    /// Files that any entry names, seen, durable or in between.
    pub(super) fn all_files(&self) -> BTreeSet<Id> {
        let entries = self
            .dirs
            .values()
            .flat_map(|dir| dir.live.values().chain(dir.durable.values()));
        let pending = self.pending.iter().filter_map(|change| match &change.kind {
            ChangeKind::Add(_, node) | ChangeKind::Rename { node, .. } => Some(node),
            ChangeKind::Remove(_) => None,
        });
        let nodes = entries.chain(pending);
        nodes
            .filter_map(|node| {
                if let Node::File(id) = node {
                    Some(*id)
                } else {
                    None
                }
            })
            .collect()
    }
}

/// Carries one change out on the entries that `side` picks.
fn apply(dirs: &mut BTreeMap<Id, Dir>, kind: &ChangeKind, side: fn(&mut Dir) -> &mut Entries) {
    let mut put = |(dir, name): &Place, node: Option<Node>| {
        let entries = side(dirs.get_mut(dir).expect("a directory is never forgotten"));
        match node {
            Some(node) => entries.insert(Arc::clone(name), node),
            None => entries.remove(name),
        };
    };
    match kind {
        ChangeKind::Add(at, node) => put(at, Some(*node)),
        ChangeKind::Remove(at) => put(at, None),
        ChangeKind::Rename { from, to, node } => {
            put(from, None);
            put(to, Some(*node));
        }
    }
}

/// The names along a path. The simulated process stands in `/`.
fn names(path: &Path) -> io::Result<Vec<&str>> {
    if path.as_os_str().is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?);
            }
            Component::ParentDir | Component::Prefix(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "no `..` on a simulated disk",
                ));
            }
        }
    }
    Ok(names)
}
