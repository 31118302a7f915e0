//! The order in which samples are learned from: a permutation that is computed, not stored.
//!
//! ```text
//! place -> sample:   a Feistel network of 4 rounds over the next power of 4, walked until it lands below n
//! ```
//!
//! It depends on (seed, epoch) alone, so any rank and any thread finds any place's sample by itself, and training goes on in
//! the middle of an epoch from nothing but the place.
//!
//! Source: Luby, Rackoff 1988; cycle walking: Black, Rogaway 2002.

use recmill_kernels::philox::philox4x32;

/// A permutation of `0 .. n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    n: u64,
    /// Bits of each half.
    half: u32,
    key: [u32; 2],
    epoch: u32,
}

impl Order {
    /// The order of `n` samples in `epoch` under `seed`.
    pub fn new(n: u64, seed: u64, epoch: u32) -> Self {
        let bits = 64 - n.saturating_sub(1).leading_zeros();
        Self { n, half: bits.div_ceil(2).max(1), key: [seed as u32, (seed >> 32) as u32], epoch }
    }

    /// Returns the sample at `place`, which is below `n`.
    pub fn sample(&self, place: u64) -> u64 {
        let mut at = place;
        loop {
            at = self.mix(at);
            // The network permutes 0 .. 4^half, which is below 4 n: a few turns at most, on average less than 4.
            if at < self.n {
                return at;
            }
        }
    }

    fn mix(&self, at: u64) -> u64 {
        let mask = (1u64 << self.half) - 1;
        let (mut left, mut right) = (at >> self.half, at & mask);
        for round in 0..4 {
            let counter = [right as u32, (right >> 32) as u32, self.epoch, 0x4f72_6400 + round];
            let words = philox4x32(counter, self.key);
            let mixed = (u64::from(words[0]) | u64::from(words[1]) << 32) & mask;
            (left, right) = (right, left ^ mixed);
        }
        left << self.half | right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_comes_once() {
        for n in [1, 2, 3, 4, 5, 16, 17, 1000, 4097] {
            let order = Order::new(n, 7, 3);
            let mut seen: Vec<u64> = (0..n).map(|place| order.sample(place)).collect();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..n), "{n}");
        }
    }

    #[test]
    fn epochs_and_seeds_have_orders_of_their_own() {
        let order = |seed, epoch| -> Vec<u64> {
            let order = Order::new(1000, seed, epoch);
            (0..1000).map(|place| order.sample(place)).collect()
        };
        let first = order(0, 1);
        assert_eq!(first, order(0, 1));
        for other in [order(0, 2), order(1, 1)] {
            let same = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(same < 10, "{same} of 1000 stand where they stood");
        }
        // Neighbours are torn apart: about a third of the mean distance of two random places would be suspicious.
        let apart: u64 = first.windows(2).map(|pair| pair[0].abs_diff(pair[1])).sum();
        assert!((250_000..420_000).contains(&apart), "{apart}");
    }
}
