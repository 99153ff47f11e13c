//! Bytes of a simulated file: pages shared between copies, copied when written.
//!
//! A copy of a whole file costs one counter; that is what makes a crash image at each of many
//! thousand boundaries affordable. Bytes behind the length are always zero, so growing shows zeros.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a page, the unit of sharing.
const PAGE: usize = 4096;

/// Bytes of a sector, the unit of tearing.
pub(super) const SECTOR: usize = 512;

/// A file's bytes. Clones share them until one is written.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: usize,
    pages: Arc<Pages>,
}

#[derive(Default)]
struct Pages {
    /// `None` is a page of zeros.
    list: Vec<Option<Arc<Page>>>,
    /// All bytes in one piece, made for the first reader that maps the file.
    flat: OnceLock<Arc<[u8]>>,
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        // A clone is made to be changed, so what was derived from the bytes is left behind.
        Self {
            list: self.list.clone(),
            flat: OnceLock::new(),
        }
    }
}

struct Page {
    bytes: [u8; PAGE],
    hash: OnceLock<u64>,
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes,
            hash: OnceLock::new(),
        }
    }
}

static ZERO_PAGE: Page = Page {
    bytes: [0; PAGE],
    hash: OnceLock::new(),
};

impl Page {
    fn hash(&self) -> u64 {
        *self.hash.get_or_init(|| xxh3_64(&self.bytes))
    }
}

impl Content {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Cuts, or grows with zeros.
    pub(super) fn set_len(&mut self, len: usize) {
        if len == self.len {
            return;
        }
        let pages = self.pages_mut();
        pages.list.resize(len.div_ceil(PAGE), None);
        let used = len % PAGE;
        if used != 0
            && let Some(Some(last)) = pages.list.last_mut()
        {
            let last = Arc::make_mut(last);
            last.hash = OnceLock::new();
            last.bytes[used..].fill(0);
        }
        self.len = len;
    }

    /// Overwrites; the range lies within the length.
    pub(super) fn write(&mut self, mut offset: usize, mut data: &[u8]) {
        assert!(
            offset + data.len() <= self.len,
            "write to {offset} beyond {}",
            self.len
        );
        let pages = self.pages_mut();
        while !data.is_empty() {
            let at = offset % PAGE;
            let (now, rest) = data.split_at(data.len().min(PAGE - at));
            let page = pages.list[offset / PAGE].get_or_insert_with(|| Arc::new(ZERO_PAGE.clone()));
            let page = Arc::make_mut(page);
            page.hash = OnceLock::new();
            page.bytes[at..at + now.len()].copy_from_slice(now);
            offset += now.len();
            data = rest;
        }
    }

    /// Fills `buf`; `UnexpectedEof` where the file ends before.
    pub(super) fn read(&self, offset: usize, mut buf: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buf.len())
            .is_none_or(|end| end > self.len)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut offset = offset;
        while !buf.is_empty() {
            let at = offset % PAGE;
            let count = buf.len().min(PAGE - at);
            let (now, rest) = buf.split_at_mut(count);
            match &self.pages.list[offset / PAGE] {
                Some(page) => now.copy_from_slice(&page.bytes[at..at + count]),
                None => now.fill(0),
            }
            offset += count;
            buf = rest;
        }
        Ok(())
    }

    /// The sectors `first..end` as they are now, zeros behind the length.
    pub(super) fn sectors(&self, first: usize, end: usize) -> Arc<[u8]> {
        let mut images = vec![0; (end - first) * SECTOR];
        let start = first * SECTOR;
        let there = self.len.saturating_sub(start).min(images.len());
        self.read(start, &mut images[..there])
            .expect("the range was cut to the length");
        images.into()
    }

    /// All bytes in one piece.
    pub(super) fn flat(&self) -> Arc<[u8]> {
        // The length belongs to the bytes: it changes only together with the pages.
        let flat = self.pages.flat.get_or_init(|| {
            let mut bytes = vec![0; self.len];
            self.read(0, &mut bytes).expect("exactly the length");
            bytes.into()
        });
        Arc::clone(flat)
    }

    /// A hash of length and bytes; each page is hashed once, whatever the number of copies.
    pub(super) fn hash_into(&self, hasher: &mut Xxh3) {
        hasher.update(&(self.len as u64).to_le_bytes());
        for page in &self.pages.list {
            let hash = page.as_deref().unwrap_or(&ZERO_PAGE).hash();
            hasher.update(&hash.to_le_bytes());
        }
    }

    fn pages_mut(&mut self) -> &mut Pages {
        let pages = Arc::make_mut(&mut self.pages);
        pages.flat = OnceLock::new();
        pages
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::SplitMix64;

    fn hash(content: &Content) -> u64 {
        let mut hasher = Xxh3::new();
        content.hash_into(&mut hasher);
        hasher.digest()
    }

    #[test]
    fn content_behaves_as_a_vector_and_copies_stay_as_they_were() {
        let mut random = SplitMix64(5);
        let mut draw = |bound: usize| usize::try_from(random.below(bound as u64)).unwrap();
        let mut content = Content::default();
        let mut model: Vec<u8> = Vec::new();
        let mut copies = Vec::new();
        for round in 0..2000 {
            match draw(4) {
                0 => {
                    let len = draw(20_000);
                    content.set_len(len);
                    model.resize(len, 0);
                }
                1 => copies.push((content.clone(), model.clone())),
                _ if !model.is_empty() => {
                    let offset = draw(model.len());
                    let len = draw(9000).min(model.len() - offset);
                    let data: Vec<u8> = (0..len)
                        .map(|i| u8::try_from((i + round) % 255).unwrap())
                        .collect();
                    content.write(offset, &data);
                    model[offset..offset + len].copy_from_slice(&data);
                }
                _ => {}
            }
            assert_eq!(*content.flat(), *model, "round {round}");
        }
        for (content, model) in &copies {
            assert_eq!(*content.flat(), **model);
            let mut fresh = Content::default();
            fresh.set_len(model.len());
            fresh.write(0, model);
            assert_eq!(
                hash(content),
                hash(&fresh),
                "the hash follows from length and bytes alone"
            );
        }
    }

    #[test]
    fn the_hash_tells_lengths_and_bytes_apart() {
        let mut content = Content::default();
        let empty = hash(&content);
        content.set_len(1);
        let zero = hash(&content);
        content.write(0, &[1]);
        let one = hash(&content);
        assert!(empty != zero && zero != one && empty != one);
    }

    #[test]
    fn reading_and_sectors_end_with_the_file() {
        let mut content = Content::default();
        content.set_len(700);
        content.write(0, &[7; 700]);
        assert_eq!(
            content.read(690, &mut [0; 11]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        assert_eq!(
            content.read(usize::MAX, &mut [0; 1]).unwrap_err().kind(),
            io::ErrorKind::UnexpectedEof
        );
        let sectors = content.sectors(1, 3);
        assert_eq!(sectors.len(), 1024);
        assert!(sectors[..188].iter().all(|byte| *byte == 7));
        assert!(sectors[188..].iter().all(|byte| *byte == 0));
    }
}
