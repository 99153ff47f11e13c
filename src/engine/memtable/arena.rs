//! A bump arena: bytes are copied in, never move, and are freed all at once with the arena.
//!
//! Many threads may store at a time: the place is taken with one atomic addition, and a lock is taken
//! only to open the next chunk. Chunks double from 16 KiB to 1 MiB, so that a small memtable stays
//! small; what is large for the next chunk gets a chunk of its own.

#![expect(
    unsafe_code,
    reason = "hands out bytes of memory that several threads fill side by side"
)]

use std::{
    mem::MaybeUninit,
    ptr::{self, NonNull},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicPtr, AtomicUsize, Ordering},
    },
};

/// Capacity of the first chunk.
const FIRST_CHUNK: usize = 16 << 10;
/// Capacity at which chunks stop doubling.
const LAST_CHUNK: usize = 1 << 20;
/// What takes more than this share of the next chunk gets a chunk of its own.
const OVERSIZE_SHARE: usize = 4;

pub(super) struct Arena {
    /// The chunk being filled, one of `chunks`; null before the first.
    current: AtomicPtr<Chunk>,
    /// Bytes of all chunks but the current one.
    closed: AtomicUsize,
    chunks: Mutex<Chunks>,
}

struct Chunks {
    next_capacity: usize,
    /// Boxed, because `current` points at one while the vector grows.
    #[expect(
        clippy::vec_box,
        reason = "a chunk must not move: other threads point at it"
    )]
    all: Vec<Box<Chunk>>,
}

/// Memory of which the first `used` bytes are taken.
struct Chunk {
    data: NonNull<MaybeUninit<u8>>,
    capacity: usize,
    /// Above `capacity` once a store found too little room.
    used: AtomicUsize,
}

// SAFETY: `data` is owned by the chunk alone, as a `Box` would own it, and its bytes are reached
// only through `take`, which hands each of them out once.
unsafe impl Send for Chunk {}
// SAFETY: as above; `used` is atomic.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(capacity: usize) -> Box<Self> {
        let data = Box::leak(Box::<[u8]>::new_uninit_slice(capacity));
        Box::new(Self {
            data: NonNull::from(data).cast(),
            capacity,
            used: AtomicUsize::new(0),
        })
    }

    /// The place of `len` bytes that nobody else was or will be given; `None` when they do not fit.
    fn take(&self, len: usize) -> Option<NonNull<u8>> {
        // Relaxed: the addition alone makes the place unique. What is written there is published by
        // whoever publishes the pointer.
        let start = self.used.fetch_add(len, Ordering::Relaxed);
        if start.checked_add(len)? > self.capacity {
            return None;
        }
        // SAFETY: `start` is at most `capacity`, so the result is in or just past the allocation.
        Some(unsafe { self.data.add(start) }.cast())
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let whole = ptr::slice_from_raw_parts_mut(self.data.as_ptr(), self.capacity);
        // SAFETY: `new` leaked a box of exactly this pointer and length, and it is freed only here.
        drop(unsafe { Box::from_raw(whole) });
    }
}

impl Arena {
    /// An arena that has allocated nothing yet.
    pub(super) fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            closed: AtomicUsize::new(0),
            chunks: Mutex::new(Chunks {
                next_capacity: FIRST_CHUNK,
                all: Vec::new(),
            }),
        }
    }

    /// Copies `key` and right behind it `value`. The bytes stay where they are, unchanged, until the
    /// arena is dropped.
    pub(super) fn store(&self, key: &[u8], value: &[u8]) -> NonNull<u8> {
        let place = self.take(key.len() + value.len());
        // SAFETY: `take` gives `key.len() + value.len()` bytes to this call alone, so they overlap
        // neither the sources nor what any other thread writes or reads.
        unsafe {
            place.copy_from_nonoverlapping(NonNull::from(key).cast(), key.len());
            place
                .add(key.len())
                .copy_from_nonoverlapping(NonNull::from(value).cast(), value.len());
        }
        place
    }

    /// Bytes taken, with what was left over at the ends of closed chunks.
    pub(super) fn bytes(&self) -> usize {
        let in_current = self.current_chunk().map_or(0, |chunk| {
            chunk.used.load(Ordering::Relaxed).min(chunk.capacity)
        });
        self.closed.load(Ordering::Relaxed) + in_current
    }

    /// Bytes of all chunks.
    pub(super) fn allocated(&self) -> usize {
        let current = self.current_chunk().map_or(0, |chunk| chunk.capacity);
        self.closed.load(Ordering::Relaxed) + current
    }

    fn current_chunk(&self) -> Option<&Chunk> {
        // SAFETY: null, or a box in `chunks.all`, which only grows and lives as long as `self`.
        // Acquire pairs with the release that published it, after it was filled in.
        unsafe { self.current.load(Ordering::Acquire).as_ref() }
    }

    fn take(&self, len: usize) -> NonNull<u8> {
        loop {
            let seen = self.current_chunk();
            // What is large for any chunk is not tried: where it does not fit, the chunk is closed.
            if len <= LAST_CHUNK / OVERSIZE_SHARE
                && let Some(place) = seen.and_then(|chunk| chunk.take(len))
            {
                return place;
            }
            if let Some(place) = self.take_slowly(len, seen) {
                return place;
            }
        }
    }

    /// Opens a chunk of its own for what is large, else the next chunk; `None` when another thread
    /// opened one since `seen` was read.
    #[cold]
    fn take_slowly(&self, len: usize, seen: Option<&Chunk>) -> Option<NonNull<u8>> {
        let mut chunks = self.chunks.lock().unwrap_or_else(PoisonError::into_inner);
        if len > chunks.next_capacity / OVERSIZE_SHARE {
            let chunk = Chunk::new(len);
            let place = chunk.take(len).expect("a chunk of exactly this length");
            chunks.all.push(chunk);
            self.closed.fetch_add(len, Ordering::Relaxed);
            return Some(place);
        }
        let current = self.current_chunk();
        if current.map(ptr::from_ref) != seen.map(ptr::from_ref) {
            return None;
        }
        if let Some(chunk) = current {
            self.closed.fetch_add(chunk.capacity, Ordering::Relaxed);
        }
        let mut chunk = Chunk::new(chunks.next_capacity);
        chunks.next_capacity = (chunks.next_capacity * 2).min(LAST_CHUNK);
        let place = chunk.take(len).expect("a quarter of an empty chunk");
        let published = ptr::from_mut(&mut *chunk);
        chunks.all.push(chunk);
        self.current.store(published, Ordering::Release);
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use std::{slice, sync::Barrier, thread};

    use super::*;

    fn bytes_at(place: NonNull<u8>, len: usize) -> Vec<u8> {
        // SAFETY: the tests read what they stored, of an arena that is alive.
        unsafe { slice::from_raw_parts(place.as_ptr(), len) }.to_vec()
    }

    #[test]
    fn nothing_is_allocated_before_the_first_store_and_small_stores_count_their_bytes() {
        let arena = Arena::new();
        assert_eq!(arena.bytes(), 0);
        arena.store(b"key", b"value");
        assert_eq!(arena.bytes(), 8);
        let empty = arena.store(b"", b"");
        assert_eq!((arena.bytes(), bytes_at(empty, 0)), (8, vec![]));
    }

    #[test]
    fn an_oversize_store_leaves_the_current_chunk_open() {
        let arena = Arena::new();
        let before = arena.store(b"a", b"");
        let large = arena.store(b"k", &[7; 3 << 20]);
        let after = arena.store(b"b", b"");
        assert_eq!(bytes_at(large, 1 + (3 << 20))[1..], [7; 3 << 20]);
        assert_eq!(after.as_ptr() as usize, before.as_ptr() as usize + 1);
        assert_eq!(arena.bytes(), 3 + (3 << 20));
    }

    #[test]
    fn threads_that_store_side_by_side_each_find_their_bytes_unchanged() {
        let arena = Arena::new();
        let store_all = |thread: u8| {
            let mut stored = Vec::new();
            for round in 0..3000_usize {
                let key = vec![thread; round % 7];
                let value = vec![thread ^ 0x80; round % 600];
                let place = arena.store(&key, &value);
                stored.push((place.as_ptr() as usize, [key, value].concat()));
            }
            stored
        };
        let stored: Vec<_> = thread::scope(|scope| {
            let threads = [1, 2, 3, 4].map(|thread| scope.spawn(move || store_all(thread)));
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        let mut total = 0;
        for (place, expected) in stored {
            total += expected.len();
            let place = NonNull::new(place as *mut u8).unwrap();
            assert_eq!(bytes_at(place, expected.len()), expected);
        }
        assert!(
            (total..2 * total).contains(&arena.bytes()),
            "{} for {total}",
            arena.bytes()
        );
    }
    #[test]
    fn no_place_is_given_twice_to_threads_in_a_hurry() {
        const EACH: usize = 1_000_000;
        let arena = Arena::new();
        let start = Barrier::new(4);
        let take_all = || {
            start.wait();
            (0..EACH)
                .map(|_| arena.take(2).as_ptr() as usize)
                .collect::<Vec<_>>()
        };
        let mut places: Vec<_> = thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(take_all));
            threads
                .into_iter()
                .flat_map(|thread| thread.join().unwrap())
                .collect()
        });
        places.sort_unstable();
        assert_eq!(places.len(), 4 * EACH);
        assert!(
            places.windows(2).all(|pair| pair[0] + 2 <= pair[1]),
            "places overlap"
        );
    }
}
