//! Keys, values and chance: the same for every engine, made from an index alone, so that whoever reads an entry can
//! check it whole.

/// Bytes of a key.
pub const KEY: usize = 16;
pub type Key = [u8; KEY];

/// Bytes at the start of a value that say whose it is, and its version.
const HEAD: usize = 12;
/// Bytes that do not compress, from which values are cut.
const NOISE: usize = 1 << 16;

/// Spreads numbers over 64 bits, one to one.
pub fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The key of an index, anywhere among all keys.
pub fn scattered(index: u64) -> Key {
    let high = spread(index);
    let number = (u128::from(high) << 64) | u128::from(spread(!high));
    number.to_be_bytes()
}

/// The key of an index, in the order of indices.
pub fn ordered(index: u64) -> Key {
    u128::from(index).to_be_bytes()
}

/// A key that no index below 2^40 has.
pub fn absent(chance: &mut Chance) -> Key {
    scattered((1 << 41) | chance.below(1 << 40))
}

/// Numbers that look random and repeat from run to run.
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(spread(seed) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        spread(self.0)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// In `0.0..1.0`.
    pub fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// What values are made of: half of one is noise, and the other half the same noise again.
pub struct Values {
    noise: Vec<u8>,
}

impl Values {
    pub fn new() -> Self {
        let mut chance = Chance::new(0);
        let noise = (0..NOISE / 8)
            .flat_map(|_| chance.next().to_le_bytes())
            .collect();
        Self { noise }
    }

    fn half(&self, index: u64, version: u32, len: usize) -> &[u8] {
        let at = spread(index ^ (u64::from(version) << 40)) as usize % (NOISE - len);
        &self.noise[at..at + len]
    }

    /// Puts version `version` of the value of `index` into `out`.
    pub fn make(&self, index: u64, version: u32, len: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&index.to_le_bytes());
        out.extend_from_slice(&version.to_le_bytes());
        let half = self.half(index, version, (len - HEAD).div_ceil(2));
        out.extend_from_slice(half);
        out.extend_from_slice(&half[..len - out.len()]);
    }

    /// The version of a value of `index`, if it is one to the last byte.
    pub fn version(&self, index: u64, len: usize, value: &[u8]) -> Option<u32> {
        let (head, body) = value.split_at_checked(HEAD)?;
        if value.len() != len || head[..8] != index.to_le_bytes() {
            return None;
        }
        let version = u32::from_le_bytes(head[8..].try_into().ok()?);
        let half = self.half(index, version, body.len().div_ceil(2));
        let (first, second) = body.split_at(half.len());
        (first == half && *second == half[..second.len()]).then_some(version)
    }

    /// The index that a value says it is of.
    pub fn index(value: &[u8]) -> Option<u64> {
        Some(u64::from_le_bytes(*value.first_chunk()?))
    }
}

/// Chooses few numbers often: Zipf's law, by the method of Gray and others.
pub struct Zipf {
    count: u64,
    zeta: f64,
    alpha: f64,
    eta: f64,
    second: f64,
}

impl Zipf {
    const SKEW: f64 = 0.99;

    pub fn new(count: u64) -> Self {
        let zeta: f64 = (1..=count).map(|n| (n as f64).powf(-Self::SKEW)).sum();
        let second = 0.5_f64.powf(Self::SKEW);
        let eta =
            (1.0 - (2.0 / count as f64).powf(1.0 - Self::SKEW)) / (1.0 - (1.0 + second) / zeta);
        Self {
            count,
            zeta,
            alpha: 1.0 / (1.0 - Self::SKEW),
            eta,
            second,
        }
    }

    /// 0 is the most frequent.
    pub fn rank(&self, chance: &mut Chance) -> u64 {
        let share = chance.share();
        let at = share * self.zeta;
        if at < 1.0 {
            return 0;
        }
        if at < 1.0 + self.second {
            return 1;
        }
        let rank = self.count as f64 * (self.eta * share - self.eta + 1.0).powf(self.alpha);
        (rank as u64).min(self.count - 1)
    }

    /// The frequent ones lie anywhere.
    pub fn scattered(&self, chance: &mut Chance) -> u64 {
        spread(self.rank(chance)) % self.count
    }
}
