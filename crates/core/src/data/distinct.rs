//! How many different pairs have been seen, about, in 16 KiB: a HyperLogLog sketch.
//!
//! Each pair is hashed; the first 14 bits choose a register, which keeps the longest run of zeros that the rest began with.
//! The standard error is `1.04 / sqrt(16,384)`, under one percent.
//!
//! Source: Flajolet, Fusy, Gandouet, Meunier 2007.

const REGISTER_BITS: u32 = 14;

/// A sketch of a set of pairs.
pub(super) struct DistinctPairs {
    registers: Vec<u8>,
}

impl DistinctPairs {
    pub(super) fn new() -> Self {
        Self { registers: vec![0; 1 << REGISTER_BITS] }
    }

    /// Adds a pair; one that is there already changes nothing.
    #[inline]
    pub(super) fn insert(&mut self, user: u32, item: u32) {
        let hash = mix(u64::from(user) << 32 | u64::from(item));
        let register = &mut self.registers[(hash >> (64 - REGISTER_BITS)) as usize];
        // The bit set at the end stops a run of zeros that has no other end.
        let zeros = (hash << REGISTER_BITS | 1 << (REGISTER_BITS - 1)).leading_zeros() as u8 + 1;
        if zeros > *register {
            *register = zeros;
        }
    }

    /// Returns the estimated number of different pairs.
    pub(super) fn estimate(&self) -> f64 {
        let m = self.registers.len() as f64;
        let sum: f64 = self.registers.iter().map(|&zeros| (-f64::from(zeros)).exp2()).sum();
        let raw = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty = self.registers.iter().filter(|&&zeros| zeros == 0).count();
        // Few pairs leave registers empty, and counting those is more exact.
        if raw <= 2.5 * m && empty > 0 { m * (m / empty as f64).ln() } else { raw }
    }
}

/// Spreads a number over 64 bits (the finalizer of SplitMix64).
pub(super) fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_do_not_count() {
        for n in [10u32, 1_000, 50_000, 400_000] {
            let mut pairs = DistinctPairs::new();
            for _ in 0..3 {
                (0..n).for_each(|i| pairs.insert(i / 100, i % 100));
            }
            let error = pairs.estimate() / f64::from(n) - 1.0;
            assert!(error.abs() < 0.03, "{n}: {error}");
        }
    }
}
