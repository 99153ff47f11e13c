//! The filter block: a Bloom filter in lines of 64 bytes. All bits of a key are in one line, so a lookup
//! touches one cache line (FORMAT.md, filter block).

use std::ops::Range;

use super::{KeyHash, format::Damage, scale};

/// Bytes of a line.
const LINE: usize = 64;
/// Most bits set for a key.
const MAX_PROBES: u8 = 8;
/// Most lines of a filter (1 GiB less a line, so that the block stays below its limit); beyond,
/// keys crowd.
const MAX_LINES: usize = (1 << 24) - 1;

/// Collects the hashes of a table's keys.
#[derive(Default)]
pub(super) struct FilterBuilder {
    hashes: Vec<KeyHash>,
}

impl FilterBuilder {
    /// Adds a key. Versions of one key come one after the other and count once.
    pub(super) fn add(&mut self, hash: KeyHash) {
        if self.hashes.last() != Some(&hash) {
            self.hashes.push(hash);
        }
    }

    /// Bytes the filter would have now.
    pub(super) fn size(&self, bits_per_key: usize) -> usize {
        self.hashes.len().saturating_mul(bits_per_key) / 8
    }

    /// The block, for the given offset in the file: its lines begin at a multiple of their length there.
    pub(super) fn finish(&self, bits_per_key: usize, offset: u64) -> Vec<u8> {
        let bits = self.hashes.len().saturating_mul(bits_per_key);
        let lines = bits.div_ceil(LINE * 8).clamp(1, MAX_LINES);
        let probes = (bits_per_key.saturating_mul(6) + 5) / 10;
        let probes = u8::try_from(probes)
            .unwrap_or(MAX_PROBES)
            .clamp(1, MAX_PROBES);
        let head = 1 + padding(offset);
        let mut block = vec![0; head + lines * LINE];
        block[0] = probes;
        let lines = u32::try_from(lines).expect("at most MAX_LINES");
        for &hash in &self.hashes {
            let at = head + scale(hash.high(), lines) * LINE;
            let line = &mut block[at..at + LINE];
            for bit in bits_of(hash, probes) {
                line[bit / 8] |= 1 << (bit % 8);
            }
        }
        block
    }
}

/// Zeros behind the first byte of a filter block at `offset`, so that the lines after them are aligned.
fn padding(offset: u64) -> usize {
    let line = LINE as u64;
    let after_first = (offset % line + 1) % line;
    usize::try_from((line - after_first) % line).expect("less than a line")
}

/// The bits of a key within its line.
#[inline]
fn bits_of(hash: KeyHash, probes: u8) -> impl Iterator<Item = usize> {
    let mut mixed = hash.low();
    (0..probes).map(move |_| {
        mixed = mixed.wrapping_mul(0x9e37_79b9);
        (mixed >> (32 - 9)) as usize
    })
}

/// Where the lines of a filter block are, once it has been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct FilterShape {
    probes: u8,
    head: usize,
    lines: u32,
}

impl FilterShape {
    /// Checks the frame of a filter block that stands at `offset`.
    pub(super) fn parse(block: &[u8], offset: u64) -> Result<Self, Damage> {
        let head = 1 + padding(offset);
        let probes = *block.first().ok_or("filter is empty")?;
        if probes == 0 || probes > MAX_PROBES {
            return Err("filter with an impossible number of probes");
        }
        let lines = block.len().saturating_sub(head);
        if lines == 0 || !lines.is_multiple_of(LINE) || lines / LINE > MAX_LINES {
            return Err("filter is not made of whole lines");
        }
        if block[1..head].iter().any(|&byte| byte != 0) {
            return Err("filter with a padding that is not zero");
        }
        let lines = u32::try_from(lines / LINE).expect("at most MAX_LINES");
        Ok(Self {
            probes,
            head,
            lines,
        })
    }

    /// False where no entry of the table has the key.
    #[inline]
    pub(super) fn may_contain(&self, block: &[u8], hash: KeyHash) -> bool {
        let at = self.head + scale(hash.high(), self.lines) * LINE;
        let range: Range<usize> = at..at + LINE;
        let line = &block[range];
        bits_of(hash, self.probes).all(|bit| line[bit / 8] & (1 << (bit % 8)) != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::key_hash;

    #[test]
    fn every_key_is_found_and_few_others_are() {
        for (bits, at_most) in [(1, 0.75), (4, 0.25), (10, 0.02), (16, 0.004), (100, 0.001)] {
            for keys in [1_u32, 7, 100, 20_000] {
                let mut builder = FilterBuilder::default();
                (0..keys).for_each(|key| builder.add(key_hash(&key.to_be_bytes())));
                for offset in [0, 1, 63, 64, 4_000_005] {
                    let block = builder.finish(bits, offset);
                    let shape = FilterShape::parse(&block, offset).unwrap();
                    assert_eq!((offset + shape.head as u64) % 64, 0);
                    let hit = |key: u32| shape.may_contain(&block, key_hash(&key.to_be_bytes()));
                    assert!((0..keys).all(hit), "{bits} bits, {keys} keys");
                    let wrong = (1 << 30..(1 << 30) + 10_000)
                        .filter(|&key| hit(key))
                        .count();
                    let rate = wrong as f64 / 10_000.0;
                    assert!(
                        keys < 1000 || rate < at_most,
                        "{bits} bits, {keys} keys: {rate}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_is_refused() {
        let block = FilterBuilder::default().finish(10, 63);
        assert_eq!(block.len(), 65);
        assert!(FilterShape::parse(&block, 63).is_ok());
        assert!(
            FilterShape::parse(&block, 62).is_err(),
            "another place has another padding"
        );
        assert!(FilterShape::parse(&block[..64], 63).is_err());
        assert!(FilterShape::parse(&block[..1], 63).is_err());
        assert!(FilterShape::parse(&[], 63).is_err());
        for probes in [0, 9, 255] {
            let mut bad = block.clone();
            bad[0] = probes;
            assert!(FilterShape::parse(&bad, 63).is_err());
        }
        let mut bad = FilterBuilder::default().finish(10, 0);
        bad[5] = 1;
        assert!(FilterShape::parse(&bad, 0).is_err());
    }
}
