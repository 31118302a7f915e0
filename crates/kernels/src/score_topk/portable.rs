//! The kernels in plain Rust: arrays of one panel's width, which the compiler turns into what vectors there are.
//!
//! `f32::mul_add` is one rounding everywhere, so the bits are those of the vector instructions; a processor without
//! fused multiply-add emulates it, slowly.

use super::tile::{FloatBlock, LANES, Lanes, MAX_WIDTH, Sink};

pub(super) fn float_block(block: &FloatBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    match block.width {
        1 => run::<1>(block, thresholds, sink),
        _ => run::<4>(block, thresholds, sink),
    }
}

fn run<const W: usize>(block: &FloatBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    for (at, panel) in block.panels.chunks_exact(block.dim).enumerate() {
        let mut sums = [block.bias.map_or([0.0; LANES], |bias| bias[at].0); W];
        for (values, queries) in panel.iter().zip(block.queries.chunks_exact(W)) {
            for (sum, &query) in sums.iter_mut().zip(queries) {
                for (sum, &value) in sum.iter_mut().zip(&values.0) {
                    *sum = query.mul_add(value, *sum);
                }
            }
        }
        for (q, sum) in sums.iter().enumerate() {
            let passes = |mask: u16, lane: usize| mask | u16::from(sum[lane] >= thresholds[q]) << lane;
            let mask = (0..LANES).fold(0, passes) & block.open[q][at];
            if mask != 0 {
                thresholds[q] = sink(q, at, mask, sum);
            }
        }
    }
}

pub(super) fn pack(rows: &[&[f32]; LANES], panel: &mut [Lanes]) {
    for (d, values) in panel.iter_mut().enumerate() {
        values.0 = std::array::from_fn(|lane| rows[lane][d]);
    }
}

/// Always inlined, so that a caller compiled for more instructions gets them here.
#[inline(always)]
pub(super) fn dots(rows: &[&[f32]; LANES], query: &[f32], start: [f32; LANES]) -> [f32; LANES] {
    let rows: [&[f32]; LANES] = std::array::from_fn(|lane| &rows[lane][..query.len()]);
    let mut sums = start;
    for (d, &q) in query.iter().enumerate() {
        for (sum, row) in sums.iter_mut().zip(&rows) {
            *sum = q.mul_add(row[d], *sum);
        }
    }
    sums
}
