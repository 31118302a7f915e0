//! Stochastic rounding of f32 to 16 bits: up or down by chance, so that the mean of many roundings is the value.
//!
//! ```text
//! lo <= x < hi neighbours of the narrow type:    P(round to hi) = (x - lo) / (hi - lo)
//! ```
//!
//! A step of an optimizer is often smaller than half the distance of neighbours; rounded to nearest it would be lost every
//! time, here it is kept on average. The random word is Philox at an address: `(seed, step)` names the stream, row and
//! column the word in it ([`word_at`]). Integer arithmetic on the bits: the CPU and every GPU round alike.
//!
//! # Source
//! Gupta, Agrawal, Gopalakrishnan, Narayanan 2015, "Deep learning with limited numerical precision"; Salmon 2011 (Philox).

use half::{bf16, f16};

use crate::philox::Draws;

/// Returns the four words of columns `4 quad .. 4 quad + 4` of `row`, in rows of `dim` values.
#[inline(always)]
pub(crate) fn words_at(draws: Draws, row: u64, quad: usize, dim: usize) -> [u32; 4] {
    draws.block(row * dim.div_ceil(4) as u64 + quad as u64)
}

/// Rounds to bf16 by a random word.
#[inline(always)]
pub(crate) fn to_bf16(value: f32, word: u32) -> bf16 {
    // Carries from the low half with the probability that the low half is of a step; the sign is apart, so away from 0.
    bf16::from_bits((value.to_bits().wrapping_add(word >> 16) >> 16) as u16)
}

/// Rounds to f16 by a random word; beyond its range to infinity.
#[inline(always)]
pub(crate) fn to_f16(value: f32, word: u32) -> f16 {
    let bits = value.to_bits();
    let (sign, magnitude) = (bits >> 16 & 0x8000, bits & 0x7fff_ffff);
    let narrow = if magnitude >= 0x7f80_0000 {
        0x7c00 | u32::from(magnitude > 0x7f80_0000) << 9
    } else if magnitude >= 113 << 23 {
        (((magnitude + (word >> 19)) >> 13) - (112 << 10)).min(0x7c00)
    } else {
        // In steps of 2^-24: `fraction * 2^-shift`.
        let exponent = (magnitude >> 23).max(1);
        let fraction = (magnitude & 0x7f_ffff) | if magnitude >> 23 > 0 { 0x80_0000 } else { 0 };
        let shift = 126 - exponent;
        match shift {
            ..32 => (fraction + (word >> (32 - shift))) >> shift,
            32..56 => u32::from(word < fraction >> (shift - 32)),
            _ => 0,
        }
    };
    f16::from_bits((sign | narrow) as u16)
}

#[cfg(feature = "gpu")]
pub(crate) mod cube {
    //! The same on a GPU.

    use cubecl::prelude::*;

    use crate::row_words::{BF16, F16};

    /// Philox4x32-10, as [`crate::philox::philox4x32`].
    #[cube]
    pub(crate) fn philox(
        counter: Vector<u32, Const<4>>,
        key_low: u32,
        key_high: u32,
    ) -> Vector<u32, Const<4>> {
        let mut c0 = counter[0];
        let mut c1 = counter[1];
        let mut c2 = counter[2];
        let mut c3 = counter[3];
        let mut k0 = key_low;
        let mut k1 = key_high;
        for _ in 0..10u32 {
            let (low0, high0) = (c0 * 0xD251_1F53u32, c0.mul_hi(0xD251_1F53u32));
            let (low1, high1) = (c2 * 0xCD9E_8D57u32, c2.mul_hi(0xCD9E_8D57u32));
            c0 = high1 ^ c1 ^ k0;
            c1 = low1;
            c2 = high0 ^ c3 ^ k1;
            c3 = low0;
            k0 += 0x9E37_79B9u32;
            k1 += 0xBB67_AE85u32;
        }
        let mut out = Vector::<u32, Const<4>>::empty();
        out[0] = c0;
        out[1] = c1;
        out[2] = c2;
        out[3] = c3;
        out
    }

    /// The bits of the 16-bit number that `value` is rounded to.
    #[cube]
    pub(crate) fn narrow(value: f32, word: u32, #[comptime] format: u32) -> u32 {
        let bits = u32::reinterpret(value);
        if comptime!(format == BF16) {
            (bits + (word >> 16)) >> 16
        } else {
            comptime!(assert_eq!(format, F16));
            let (sign, magnitude) = ((bits >> 16) & 0x8000, bits & 0x7fff_ffff);
            let mut narrow = 0x7c00u32;
            if magnitude < 0x7f80_0000 {
                if magnitude >= 113 << 23 {
                    narrow = min(((magnitude + (word >> 19)) >> 13) - (112 << 10), 0x7c00);
                } else {
                    let exponent = max(magnitude >> 23, 1);
                    let mut fraction = magnitude & 0x7f_ffff;
                    if magnitude >> 23 > 0 {
                        fraction |= 0x80_0000;
                    }
                    let shift = 126 - exponent;
                    narrow = 0;
                    if shift < 32 {
                        narrow = (fraction + (word >> (32 - shift))) >> shift;
                    } else if shift < 56 {
                        narrow = u32::cast_from(word < (fraction >> (shift - 32)));
                    }
                }
            }
            sign | narrow
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of many roundings, and the two numbers they are.
    fn rounded(value: f32, round: impl Fn(f32, u32) -> f32) -> (f64, f32, f32) {
        let draws = Draws::new(5, 6);
        let all: Vec<f32> = (0..20_000).map(|at| round(value, draws.word(at))).collect();
        let mean = all.iter().map(|&v| f64::from(v)).sum::<f64>() / all.len() as f64;
        (mean, all.iter().copied().fold(f32::MAX, f32::min), all.iter().copied().fold(f32::MIN, f32::max))
    }

    #[test]
    fn the_mean_of_many_roundings_is_the_value() {
        for value in [1.001f32, -3.3, 1e-3, 6.2e-5, -6.2e-5, 1e-6, 3.3e-8, 65000.0, 1e-9] {
            let (mean, low, high) = rounded(value, |v, w| to_f16(v, w).to_f32());
            let step = f64::from(high - low).max(f64::from(f16::from_bits(1).to_f32()));
            assert!((mean - f64::from(value)).abs() < 0.02 * step, "f16 {value}: {mean}");
            assert!(
                low <= value && value <= high && high - low <= value.abs() / 1024.0 + 6e-8,
                "f16 {value}"
            );
        }
        for value in [1.001f32, -3.3, 1e-3, 3e38, -1e-30] {
            let (mean, low, high) = rounded(value, |v, w| to_bf16(v, w).to_f32());
            assert!((mean - f64::from(value)).abs() < 0.02 * f64::from(high - low), "bf16 {value}: {mean}");
            assert!(low <= value && value <= high && high - low <= value.abs() / 128.0, "bf16 {value}");
        }
    }

    #[test]
    fn what_needs_no_rounding_is_kept() {
        for word in [0, 1 << 31, u32::MAX] {
            for bits in 0..=u16::MAX {
                let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
                if half.is_finite() {
                    assert_eq!(to_f16(half.to_f32(), word), half, "{half}");
                }
                if brain.is_finite() {
                    assert_eq!(to_bf16(brain.to_f32(), word), brain, "{brain}");
                }
            }
            assert_eq!(to_f16(1e6, word), f16::INFINITY);
            assert!(to_f16(f32::NAN, word).is_nan());
        }
        assert_eq!(to_f16(65519.0, u32::MAX), f16::INFINITY);
        assert_eq!(to_f16(65519.0, 0), f16::MAX);
    }
}
