//! The best `k` of a stream of scores, in one total order.

use std::cmp::Ordering;

/// Returns the number that orders `index` among equal scores: the same on every device, different for every `key`.
///
/// # Source
/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014) over the key and the index.
#[inline]
pub fn tie_hash(key: u64, index: u32) -> u64 {
    let mut z = key.wrapping_add((u64::from(index) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Orders two (score, index) pairs, the better first; the scores are finite.
#[inline]
pub(super) fn order(key: u64, a: (f32, u32), b: (f32, u32)) -> Ordering {
    // partial_cmp and not total_cmp: -0.0 and 0.0 are one score.
    match b.0.partial_cmp(&a.0) {
        Some(Ordering::Equal) | None => {
            tie_hash(key, a.1).cmp(&tie_hash(key, b.1)).then_with(|| a.1.cmp(&b.1))
        }
        Some(unequal) => unequal,
    }
}

/// The best so far, in room for `scores.len()` of them: a heap whose root is the worst.
///
/// What is in the end kept does not depend on the order of the offers, because [`order`] is total.
pub(super) struct Best<'a> {
    key: u64,
    len: usize,
    scores: &'a mut [f32],
    indices: &'a mut [u32],
}

impl<'a> Best<'a> {
    /// Starts with the `len` pairs that are in the slices already, as an earlier `Best` left them.
    pub(super) fn resume(key: u64, len: usize, scores: &'a mut [f32], indices: &'a mut [u32]) -> Self {
        Self { key, len, scores, indices }
    }

    /// Returns how many pairs there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the score below which an offer is refused.
    #[inline]
    pub(super) fn threshold(&self) -> f32 {
        if self.len < self.scores.len() {
            f32::NEG_INFINITY
        } else {
            self.scores.first().copied().unwrap_or(f32::INFINITY)
        }
    }

    /// Takes the pair if it is among the best so far.
    #[inline]
    pub(super) fn offer(&mut self, score: f32, index: u32) {
        let offered = (score, index);
        if self.len < self.scores.len() {
            let mut at = self.len;
            self.len += 1;
            while at > 0 && self.worse(offered, self.pair((at - 1) / 2)) {
                self.put(at, self.pair((at - 1) / 2));
                at = (at - 1) / 2;
            }
            self.put(at, offered);
        } else if self.len > 0 && score >= self.scores[0] && self.worse(self.pair(0), offered) {
            self.sink(0, self.len, offered);
        }
    }

    /// Sorts the pairs, best first; no offer may follow.
    pub(super) fn sort(&mut self) {
        for len in (1..self.len).rev() {
            let worst = self.pair(0);
            let last = self.pair(len);
            self.sink(0, len, last);
            self.put(len, worst);
        }
    }

    /// Puts `pair` where it belongs below `at` in a heap of `len`.
    fn sink(&mut self, mut at: usize, len: usize, pair: (f32, u32)) {
        loop {
            let mut child = 2 * at + 1;
            if child >= len {
                break;
            }
            if child + 1 < len && self.worse(self.pair(child + 1), self.pair(child)) {
                child += 1;
            }
            if !self.worse(self.pair(child), pair) {
                break;
            }
            self.put(at, self.pair(child));
            at = child;
        }
        self.put(at, pair);
    }

    fn worse(&self, a: (f32, u32), b: (f32, u32)) -> bool {
        order(self.key, a, b) == Ordering::Greater
    }

    fn pair(&self, at: usize) -> (f32, u32) {
        (self.scores[at], self.indices[at])
    }

    fn put(&mut self, at: usize, (score, index): (f32, u32)) {
        self.scores[at] = score;
        self.indices[at] = index;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_best_are_those_of_a_full_sort(
            scores in prop::collection::vec(prop::sample::select(vec![-1.0f32, -0.0, 0.0, 0.5, 0.75, 2.0]), 0..200),
            k in 0usize..220,
            key: u64,
        ) {
            let k = k.min(scores.len());
            let (mut best_scores, mut best_indices) = (vec![0.0; k], vec![0; k]);
            let mut best = Best::resume(key, 0, &mut best_scores, &mut best_indices);
            for (index, &score) in (0..).zip(&scores) {
                best.offer(score, index);
            }
            best.sort();
            let mut all: Vec<(f32, u32)> = scores.iter().copied().zip(0..).collect();
            all.sort_by(|&a, &b| order(key, a, b));
            prop_assert_eq!(best_indices, all[..k].iter().map(|pair| pair.1).collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_hash_is_the_documented_one() {
        assert_eq!(tie_hash(0, 0), 0xe220_a839_7b1d_cdaf, "the first number of SplitMix64 from 0");
        assert_eq!(tie_hash(0, 1), 0x6e78_9e6a_a1b9_65f4);
        assert_ne!(tie_hash(1, 0), tie_hash(0, 0));
    }
}
