//! The kernels for 256-bit registers: a panel is two of them.
//!
//! There is no instruction here that multiplies bytes into 32-bit sums. The one for pairs of bytes wants one side unsigned
//! and keeps 16 bits, which `|e| c` with the sign of `e` moved to `c` fits: codes are within 127, so a pair is at most
//! 2 * 127 * 127. That is as many instructions as f32 takes, on a quarter of the bytes: worth it where memory is what
//! few queries wait for.

#![expect(unsafe_code, reason = "vector instructions that the caller has checked for")]

use std::arch::x86_64::*;

use super::{
    portable,
    tile::{CodeBlock, FloatBlock, LANES, Lanes, MAX_WIDTH, Maxima, NO_MAXIMA, SEED_GROUPS, Sink},
};

/// 1.5 * 2²³: an integer below 2²² in magnitude added to its bits is added to its value.
const MAGIC: f32 = 12_582_912.0;

pub(super) fn float_block(block: &FloatBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    // SAFETY: `Level::Avx2` is only chosen where the processor has avx2 and fma.
    unsafe {
        match block.width {
            1 => run::<1>(block, thresholds, sink),
            2 => run::<2>(block, thresholds, sink),
            4 => run::<4>(block, thresholds, sink),
            _ => run::<6>(block, thresholds, sink),
        }
    }
}

pub(super) fn code_block(block: &CodeBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    code_any::<false>(block, &mut { NO_MAXIMA }, thresholds, sink);
}

pub(super) fn code_maxima(block: &CodeBlock<'_>, maxima: &mut Maxima) {
    code_any::<true>(block, maxima, &mut [0.0; MAX_WIDTH], &mut |_, _, _, _| 0.0);
}

fn code_any<const SEED: bool>(
    block: &CodeBlock<'_>,
    maxima: &mut Maxima,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    // SAFETY: as in `float_block`.
    unsafe {
        match block.width {
            1 => code_run::<1, SEED>(block, maxima, thresholds, sink),
            _ => code_run::<2, SEED>(block, maxima, thresholds, sink),
        }
    }
}

pub(super) fn dots(rows: &[&[f32]; LANES], query: &[f32], start: [f32; LANES]) -> [f32; LANES] {
    #[target_feature(enable = "avx2,fma")]
    fn inner(rows: &[&[f32]; LANES], query: &[f32], start: [f32; LANES]) -> [f32; LANES] {
        portable::dots(rows, query, start)
    }
    // SAFETY: as in `float_block`.
    unsafe { inner(rows, query, start) }
}

#[target_feature(enable = "avx2,fma")]
fn run<const W: usize>(block: &FloatBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    assert_eq!(block.width, W);
    assert_eq!(block.queries.len(), block.dim * W);
    for (at, panel) in block.panels.chunks_exact(block.dim).enumerate() {
        let start = block.bias.map_or([0.0; LANES], |bias| bias[at].0);
        let (low, high) = load(&start);
        let mut sums = [(low, high); W];
        for (values, queries) in panel.iter().zip(block.queries.chunks_exact(W)) {
            let (low, high) = load(&values.0);
            for q in 0..W {
                let query = _mm256_set1_ps(queries[q]);
                sums[q] = (_mm256_fmadd_ps(query, low, sums[q].0), _mm256_fmadd_ps(query, high, sums[q].1));
            }
        }
        for q in 0..W {
            let threshold = _mm256_set1_ps(thresholds[q]);
            let mask = |sum| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(sum, threshold)) as u16;
            let passed = (mask(sums[q].0) | mask(sums[q].1) << 8) & block.open[q][at];
            if passed != 0 {
                let mut scores = [0.0; LANES];
                // SAFETY: `scores` holds two registers.
                unsafe {
                    _mm256_storeu_ps(scores.as_mut_ptr(), sums[q].0);
                    _mm256_storeu_ps(scores.as_mut_ptr().add(8), sums[q].1);
                }
                thresholds[q] = sink(q, at, passed, &scores);
            }
        }
    }
}

#[target_feature(enable = "avx2")]
fn load(values: &[f32; LANES]) -> (__m256, __m256) {
    // SAFETY: `values` holds two registers.
    unsafe { (_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))) }
}

#[target_feature(enable = "avx2,fma")]
fn code_run<const W: usize, const SEED: bool>(
    block: &CodeBlock<'_>,
    maxima: &mut Maxima,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    let codes = &block.codes;
    assert_eq!(block.width, W);
    assert_eq!(block.queries.len(), codes.steps * W);
    assert_eq!(codes.lines.len(), codes.scales.len() * codes.steps);
    let (ones, unbiased) = (_mm256_set1_epi16(1), _mm256_set1_epi8(-128));
    let sign = if SEED { -1.0 } else { 1.0 };
    for (at, lines) in codes.lines.chunks_exact(codes.steps).enumerate() {
        let mut sums = [[_mm256_castps_si256(_mm256_set1_ps(MAGIC)); 2]; W];
        for (line, queries) in lines.iter().zip(block.queries.chunks_exact(W)) {
            // SAFETY: a line is two registers.
            let values = unsafe {
                let line = line.0.as_ptr();
                [_mm256_loadu_si256(line.cast()), _mm256_loadu_si256(line.add(32).cast())]
            };
            for q in 0..W {
                // A query's codes come with 128 added.
                let query = _mm256_xor_si256(_mm256_set1_epi32(queries[q].cast_signed()), unbiased);
                let magnitude = _mm256_abs_epi8(query);
                for (sum, values) in sums[q].iter_mut().zip(values) {
                    let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(values, query));
                    *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
                }
            }
        }
        let bounds = bounds(block, at, sign);
        for q in 0..W {
            let inverse = _mm256_set1_ps(block.inverse_scale[q]);
            let threshold = _mm256_set1_ps(thresholds[q]);
            let mut passed = 0;
            for (half, (sum, bound)) in sums[q].iter().zip(&bounds).enumerate() {
                let product = _mm256_fmadd_ps(_mm256_castsi256_ps(*sum), bound.scale, bound.offset);
                if SEED {
                    let reached = _mm256_fmadd_ps(bound.bias, inverse, product);
                    raise(&mut maxima[q][at % SEED_GROUPS], half, reached, block.open[q][at]);
                } else {
                    let threshold = _mm256_fnmadd_ps(bound.bias, inverse, threshold);
                    let mask = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(product, threshold)) as u16;
                    passed |= mask << (8 * half);
                }
            }
            let passed = passed & block.open[q][at];
            if passed != 0 {
                thresholds[q] = sink(q, at, passed, &[0.0; LANES]);
            }
        }
    }
}

/// What turns half a panel's products into bounds: `scale * product + offset`, and the bias.
struct Bound {
    scale: __m256,
    offset: __m256,
    bias: __m256,
}

/// Upper bounds where `sign` is 1, lower bounds where it is -1, for the two halves of panel `at`.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn bounds(block: &CodeBlock<'_>, at: usize, sign: f32) -> [Bound; 2] {
    let panel = &block.codes.scales[at];
    let set = |value: f32| _mm256_set1_ps(value);
    let halves = |lanes: &Lanes| <[__m256; 2]>::from(load(&lanes.0));
    let (scales, norms, residuals) = (halves(&panel.scale), halves(&panel.norm), halves(&panel.residual));
    let biases = block.bias.map_or([_mm256_setzero_ps(); 2], |bias| halves(&bias[at]));
    std::array::from_fn(|half| {
        let (scale, bias) = (scales[half], biases[half]);
        let rounding = _mm256_fmadd_ps(set(2.0), scale, set(block.slack));
        let norms = _mm256_fmadd_ps(set(block.residual), norms[half], rounding);
        let margin = _mm256_fmadd_ps(set(block.code_norm), residuals[half], norms);
        let margin = _mm256_mul_ps(set(sign), margin);
        let magnitude = _mm256_andnot_ps(set(-0.0), bias);
        Bound {
            scale,
            offset: _mm256_fnmadd_ps(set(MAGIC), scale, margin),
            bias: _mm256_fmadd_ps(magnitude, set(sign * block.bias_slack), bias),
        }
    })
}

/// Raises the lanes of half a panel that are open to what they reach.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn raise(lanes: &mut Lanes, half: usize, reached: __m256, open: u16) {
    let mut values = [0.0; 8];
    // SAFETY: `values` is one register.
    unsafe { _mm256_storeu_ps(values.as_mut_ptr(), reached) };
    for (lane, (largest, value)) in lanes.0[8 * half..][..8].iter_mut().zip(values).enumerate() {
        if open >> (8 * half + lane) & 1 == 1 {
            *largest = largest.max(value);
        }
    }
}
