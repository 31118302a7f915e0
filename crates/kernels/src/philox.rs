//! Random numbers that are a function of their address: Philox4x32-10.
//!
//! ```text
//! block(seed, stream, counter) = philox(counter words: [counter lo, counter hi, stream lo, stream hi], key: seed)
//! ```
//!
//! Nothing is carried from one draw to the next, so any thread and any device computes any draw alone, and the draws are
//! the same whatever the order and the number of threads. Integer arithmetic only: the same bits everywhere.
//!
//! | what         | from          | range                                                                        |
//! |--------------|---------------|------------------------------------------------------------------------------|
//! | [`below`]    | one word      | `0 .. n`; a value's probability is off by less than `n / 2^32` of itself     |
//! | [`unit()`]   | one word      | `[0, 1)` in steps of `2^-24`                                                 |
//! | [`shuffle`]  | a word each   | a permutation                                                                |
//!
//! # Source
//! Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".

#[cfg(feature = "gpu")]
pub(crate) mod cube;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// Returns the four words at `counter` under `key`.
#[inline(always)]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for round in 0..10 {
        if round > 0 {
            k = [k[0].wrapping_add(WEYL[0]), k[1].wrapping_add(WEYL[1])];
        }
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(c[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(c[2]);
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
    }
    c
}

/// One stream of random words under a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draws {
    seed: u64,
    stream: u64,
}

impl Draws {
    /// Names stream `stream` of `seed`; two streams share no counter block.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream }
    }

    /// Names the sister stream of try `t`, for draws that are repeated until they fit; try 0 is the stream itself.
    ///
    /// Holds for streams below `2^40` and tries below `2^24`: they are the low and the high bits of one word.
    #[inline(always)]
    pub fn nth_try(self, t: u64) -> Self {
        Self { seed: self.seed, stream: self.stream ^ (t << 40) }
    }

    /// Returns the four words of block `counter`.
    #[inline(always)]
    pub fn block(self, counter: u64) -> [u32; 4] {
        let counter =
            [counter as u32, (counter >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        philox4x32(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// Returns word `at` of the stream: word `at % 4` of block `at / 4`.
    pub fn word(self, at: u64) -> u32 {
        self.block(at / 4)[(at % 4) as usize]
    }

    /// Writes words `first .. first + out.len()` of the stream; several times faster than one by one.
    pub fn fill(self, first: u64, out: &mut [u32]) {
        let head = ((4 - first % 4) % 4).min(out.len() as u64) as usize;
        let (lead, body) = out.split_at_mut(head);
        for (at, word) in lead.iter_mut().enumerate() {
            *word = self.word(first + at as u64);
        }
        let block = (first + head as u64) / 4;
        for (at, words) in body.chunks_mut(4).enumerate() {
            words.copy_from_slice(&self.block(block + at as u64)[..words.len()]);
        }
    }

    /// Writes the first two words of blocks `first .. first + out.len()`; in a function compiled for vector instructions
    /// several blocks are made at once.
    #[inline(always)]
    pub(crate) fn fill_first_words(self, first: u64, out: &mut [[u32; 2]]) {
        for (at, words) in out.iter_mut().enumerate() {
            let block = self.block(first + at as u64);
            *words = [block[0], block[1]];
        }
    }
}

/// Maps a random word to `0 .. n` by the high half of a product, without division.
///
/// Each value is hit by `2^32 / n` words, give or take one: its probability is off by less than `n / 2^32` of itself,
/// which is 0.03% at a million values. `n` is at least 1.
#[inline(always)]
pub fn below(word: u32, n: u32) -> u32 {
    ((u64::from(word) * u64::from(n)) >> 32) as u32
}

/// Maps a random word to `[0, 1)` in steps of `2^-24`.
#[inline(always)]
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Permutes `values` by the words of `draws` from 0 on (Fisher-Yates from the end).
///
/// Takes less than `2^32` values.
pub fn shuffle<T>(values: &mut [T], draws: Draws) {
    let mut words = [0; 256];
    for last in (1..values.len()).rev() {
        let step = values.len() - 1 - last;
        if step.is_multiple_of(words.len()) {
            draws.fill(step as u64, &mut words);
        }
        values.swap(last, below(words[step % words.len()], last as u32 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_random123() {
        // kat_vectors of the Random123 distribution, lines "philox4x32 10".
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox4x32(counter, key), expected);
        }
    }

    #[test]
    fn an_address_is_seed_stream_and_counter() {
        let draws = Draws::new(0x299f_31d0_a409_3822, 0x0370_7344_1319_8a2e);
        assert_eq!(draws.block(0x85a3_08d3_243f_6a88)[0], 0xd16c_fe09);
        for first in 0..9 {
            for len in 0..13 {
                let mut words = vec![0; len];
                draws.fill(first, &mut words);
                let one_by_one: Vec<u32> = (first..first + len as u64).map(|at| draws.word(at)).collect();
                assert_eq!(words, one_by_one, "{len} words from {first}");
            }
        }
        let mut words = [[0; 2]; 21];
        draws.fill_first_words(u64::from(u32::MAX) - 3, &mut words);
        for (at, &words) in words.iter().enumerate() {
            assert_eq!(words, draws.block(u64::from(u32::MAX) - 3 + at as u64)[..2]);
        }
        assert_ne!(draws.word(0), Draws::new(1, 0x0370_7344_1319_8a2e).word(0));
    }

    #[test]
    fn below_is_uniform_by_the_chi_squared_test() {
        let draws = Draws::new(7, 0);
        let (n, samples) = (37, 370_000);
        let mut counts = vec![0u32; n];
        (0..samples).for_each(|at| counts[below(draws.word(at), n as u32) as usize] += 1);
        let expected = samples as f64 / n as f64;
        let chi2: f64 = counts.iter().map(|&c| (f64::from(c) - expected).powi(2) / expected).sum();
        // 36 degrees of freedom: 99.99% of uniform samples lie below 75.
        assert!(chi2 < 75.0, "chi squared {chi2}");
        assert_eq!((below(0, 5), below(u32::MAX, 5), below(u32::MAX, 1)), (0, 4, 0));
        assert!(unit(u32::MAX) < 1.0);
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_moves_everything_everywhere() {
        for n in [0usize, 1, 2, 31, 256, 257, 1000] {
            let mut values: Vec<usize> = (0..n).collect();
            shuffle(&mut values, Draws::new(3, n as u64));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            assert!(sorted.into_iter().eq(0..n));
        }
        let mut first_place = [0; 4];
        for stream in 0..4000 {
            let mut values = [0, 1, 2, 3];
            shuffle(&mut values, Draws::new(5, stream));
            first_place[values[0]] += 1;
        }
        assert!(first_place.iter().all(|n| (850..1150).contains(n)), "{first_place:?}");
    }
}
