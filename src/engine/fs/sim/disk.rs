//! The state of a simulated disk: directories, files, room and locks. No hooks, no failures but those of
//! the calls themselves.

use std::{collections::BTreeMap, io, path::Path};

use xxhash_rust::xxh3::Xxh3;

use super::{
    file::File,
    survival::{Keep, Survival},
    tree::{Id, Node, Tree},
};
use crate::executor::SplitMix64;

/// The holder of a lock that shares it with nobody.
const EXCLUSIVE: usize = usize::MAX;

pub(super) struct Disk {
    pub(super) tree: Tree,
    files: BTreeMap<Id, File>,
    next_id: Id,
    pub(super) capacity: Option<u64>,
    /// Files that are locked, and by how many; [`EXCLUSIVE`]: by one that shares with nobody.
    locks: BTreeMap<Id, usize>,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            tree: Tree::new(),
            files: BTreeMap::new(),
            next_id: 1,
            capacity: None,
            locks: BTreeMap::new(),
        }
    }

    /// The disk after a crash: another one, on which nothing is open or locked.
    pub(super) fn survivor(&self, how: Survival) -> Self {
        let mut random = SplitMix64(if let Survival::Random { seed } = how {
            seed
        } else {
            0
        });
        let keep = |decisions: usize, random: &mut SplitMix64| match how {
            Survival::LoseUnsynced => Keep::None,
            Survival::KeepAll | Survival::ProcessDeath => Keep::All,
            Survival::Random { .. } => Keep::draw(decisions, random),
        };
        let mut image = Self {
            next_id: self.next_id,
            capacity: self.capacity,
            ..Self::new()
        };
        if how == Survival::ProcessDeath {
            image.tree = self.tree.clone();
            for id in image.tree.all_files() {
                let mut file = self.files[&id].clone();
                file.handles = 0;
                image.files.insert(id, file);
            }
        } else {
            let entries = keep(self.tree.undecided(), &mut random);
            image.tree = self.tree.survivor(entries, &mut random);
            for id in image.tree.all_files() {
                let file = &self.files[&id];
                let keep = keep(file.undecided(), &mut random);
                image.files.insert(id, file.survivor(keep, &mut random));
            }
        }
        image
    }

    /// A hash of all names and contents that readers see.
    pub(super) fn hash(&self) -> u64 {
        let mut hasher = Xxh3::new();
        self.tree.walk(&mut |path, node| {
            let path = path.as_os_str().as_encoded_bytes();
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path);
            match node {
                Node::Dir(_) => hasher.update(b"d"),
                Node::File(id) => {
                    hasher.update(b"f");
                    self.files[&id].live().hash_into(&mut hasher);
                }
            }
        });
        hasher.digest()
    }

    pub(super) fn file(&self, id: Id) -> &File {
        self.files
            .get(&id)
            .expect("a file with a name or a handle is kept")
    }

    pub(super) fn file_mut(&mut self, id: Id) -> &mut File {
        self.files
            .get_mut(&id)
            .expect("a file with a name or a handle is kept")
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let (place, existing) = self.tree.place(path)?;
        match existing {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => {
                let id = self.new_id();
                self.tree.add_dir(place, id);
                Ok(())
            }
        }
    }

    /// The file at `path`, made when missing.
    pub(super) fn create(&mut self, path: &Path) -> io::Result<Id> {
        let (place, existing) = self.tree.place(path)?;
        match existing {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => {
                let id = self.new_id();
                self.files.insert(id, File::default());
                self.tree.add(place, Node::File(id));
                Ok(id)
            }
        }
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.tree.find(from)?;
        let (from_place, _) = self.tree.place(from)?;
        let (to_place, existing) = self.tree.place(to)?;
        match (node, existing) {
            // Two names of one file: the call does nothing, as POSIX has it.
            (_, Some(existing)) if existing == node => return Ok(()),
            (Node::File(_), None | Some(Node::File(_))) => {}
            (Node::File(_), Some(Node::Dir(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Dir(_), None) if !to.starts_with(from) => {}
            (Node::Dir(_), _) => return Err(io::ErrorKind::InvalidInput.into()),
        }
        self.tree.rename(from_place, to_place, node);
        Ok(())
    }

    pub(super) fn link(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let id = self.tree.find_file(from)?;
        let (place, existing) = self.tree.place(to)?;
        if existing.is_some() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.tree.add(place, Node::File(id));
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.tree.find_file(path)?;
        let (place, _) = self.tree.place(path)?;
        self.tree.remove(place);
        self.collect();
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.tree.find_dir(path)?;
        if !self.tree.is_empty(dir) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (place, _) = self.tree.place(path)?;
        self.tree.remove(place);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.tree.find_dir(path)?;
        self.tree.sync(dir);
        self.collect();
        Ok(())
    }

    pub(super) fn fail_sync_dir(&mut self, path: &Path) {
        if let Ok(dir) = self.tree.find_dir(path) {
            self.tree.fail_sync(dir);
        }
    }

    /// Writes as much of `data` as there is room for; `StorageFull` when that is not all.
    pub(super) fn write(&mut self, id: Id, offset: usize, data: &[u8]) -> io::Result<()> {
        let len = self.file(id).len();
        let more = (offset + data.len()).saturating_sub(len);
        let room = self.room_for(more);
        let fits = data.len() - (more - room).min(data.len());
        self.file_mut(id).write(offset, &data[..fits]);
        if fits < data.len() {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    /// Grows a file with zeros that have room behind them.
    pub(super) fn grow(&mut self, id: Id, len: usize) -> io::Result<()> {
        let more = len.saturating_sub(self.file(id).len());
        if self.room_for(more) < more {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if more > 0 {
            self.file_mut(id).set_len(len);
        }
        Ok(())
    }

    /// How many of `more` bytes fit.
    fn room_for(&self, more: usize) -> usize {
        match self.capacity {
            Some(capacity) if more > 0 => {
                let room = capacity.saturating_sub(self.used());
                usize::try_from(room).unwrap_or(usize::MAX).min(more)
            }
            _ => more,
        }
    }

    /// Bytes of all files that have a name or an open handle.
    pub(super) fn used(&self) -> u64 {
        let named = self.tree.live_files();
        let files = self.files.iter();
        let taken = files.filter(|(id, file)| file.handles > 0 || named.contains(id));
        taken.map(|(_, file)| file.len() as u64).sum()
    }

    /// False when the file is locked already.
    pub(super) fn lock(&mut self, id: Id) -> bool {
        let free = !self.locks.contains_key(&id);
        if free {
            self.locks.insert(id, EXCLUSIVE);
        }
        free
    }

    /// False when somebody holds the file for himself.
    pub(super) fn lock_shared(&mut self, id: Id) -> bool {
        let holders = self.locks.entry(id).or_default();
        let free = *holders != EXCLUSIVE;
        *holders += usize::from(free);
        free
    }

    pub(super) fn unlock(&mut self, id: Id) {
        match self.locks.get_mut(&id) {
            Some(holders) if *holders != EXCLUSIVE && *holders > 1 => *holders -= 1,
            _ => {
                self.locks.remove(&id);
            }
        }
    }

    pub(super) fn close(&mut self, id: Id) {
        self.file_mut(id).handles -= 1;
        if self.file(id).handles == 0 {
            self.collect();
        }
    }

    /// Makes everything durable.
    pub(super) fn settle(&mut self) {
        self.tree.settle();
        self.files.values_mut().for_each(File::settle);
        self.collect();
    }

    /// Forgets files that nothing can bring back: no handle, no entry, no pending entry.
    fn collect(&mut self) {
        let named = self.tree.all_files();
        self.files
            .retain(|id, file| file.handles > 0 || named.contains(id));
    }

    fn new_id(&mut self) -> Id {
        self.next_id += 1;
        self.next_id
    }
}
