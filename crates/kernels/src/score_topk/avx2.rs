//! The f32 kernel for 256-bit registers: a panel is two of them.

#![expect(unsafe_code, reason = "vector instructions that the caller has checked for")]

use std::arch::x86_64::*;

use super::{
    portable,
    tile::{FloatBlock, LANES, MAX_WIDTH, Sink},
};

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
