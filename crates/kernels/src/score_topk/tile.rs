//! The innermost loops: a block of queries against a run of panels, in registers.
//!
//! A panel is [`LANES`] rows side by side, so that one vector register holds one dimension of all of them and a row's
//! sum is one chain of fused multiply-adds in its own lane, whatever the width of the registers. A kernel reports the
//! lanes that pass their query's threshold and are open to it, and nothing else: the matrix of scores is never written.
//!
//! | level    | f32 block                    | int8 block                         |
//! |----------|------------------------------|------------------------------------|
//! | avx512   | 14 queries x 2 panels        | 14 queries x 2 panels, with VNNI   |
//! | avx2     | 6 queries x 1 panel          | 2 queries x 1 panel, for few       |
//! | portable | 4 queries x 1 panel          | none: f32                          |

#[cfg(target_arch = "x86_64")]
use super::{avx2, avx512};
use super::{portable, quantized::Codes};
use crate::simd::Level;

/// Rows in a panel.
pub(super) const LANES: usize = 16;

/// The most queries that any kernel takes at once.
pub(super) const MAX_WIDTH: usize = 14;

/// Queries that wait for memory more than for arithmetic: at eight, f32 is as fast (26,744 rows of 64, EPYC with AVX2).
const FEW: usize = 8;

/// One number of every row of a panel.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct Lanes(pub(super) [f32; LANES]);

/// What of each panel a query may be answered with: one bit a lane.
pub(super) type Open<'a> = [&'a [u16]; MAX_WIDTH];

/// For each query of a block, [`SEED_GROUPS`] x [`LANES`] scores of different rows, none of them excluded.
pub(super) type Maxima = [[Lanes; SEED_GROUPS]; MAX_WIDTH];

/// Where maxima begin.
pub(super) const NO_MAXIMA: Maxima = [[Lanes([f32::NEG_INFINITY; LANES]); SEED_GROUPS]; MAX_WIDTH];

/// Panels whose maxima are kept apart.
pub(super) const SEED_GROUPS: usize = 4;

/// A hit: query of the block, panel of the run, lanes that pass, their scores (f32 kernels). Returns the new threshold.
pub(super) type Sink<'a> = dyn FnMut(usize, usize, u16, &[f32; LANES]) -> f32 + 'a;

/// Queries against panels of f32.
pub(super) struct FloatBlock<'a> {
    pub(super) dim: usize,
    /// `[n_panels, dim]`.
    pub(super) panels: &'a [Lanes],
    /// `[n_panels]`: what each row's sum begins with.
    pub(super) bias: Option<&'a [Lanes]>,
    /// `[dim, width]`, where `width` is one of [`widths`].
    pub(super) queries: &'a [f32],
    pub(super) width: usize,
    pub(super) open: Open<'a>,
}

/// Queries against panels of int8.
pub(super) struct CodeBlock<'a> {
    /// Four codes of every row of a panel a line.
    pub(super) codes: Codes<'a>,
    /// `[n_panels]`.
    pub(super) bias: Option<&'a [Lanes]>,
    /// `[steps, width]`: four codes of a query, each plus 128.
    pub(super) queries: &'a [u32],
    pub(super) width: usize,
    /// `[width]`: 1 / the scale of each query.
    pub(super) inverse_scale: [f32; MAX_WIDTH],
    /// The largest code norm and residual of the block's queries, see `quantized.rs`.
    pub(super) code_norm: f32,
    pub(super) residual: f32,
    pub(super) slack: f32,
    pub(super) bias_slack: f32,
    pub(super) open: Open<'a>,
}

/// Returns the block widths there are kernels for, ascending.
pub(super) fn widths(level: Level) -> &'static [usize] {
    match level {
        Level::Avx512 => &[1, 2, 4, 8, 14],
        Level::Avx2 => &[1, 2, 4, 6],
        Level::Portable => &[1, 4],
    }
}

/// Returns the least width that takes `n` queries, or the largest there is.
pub(super) fn width_for(level: Level, n: usize) -> usize {
    let widths = widths(level);
    widths.iter().copied().find(|&width| width >= n).unwrap_or(widths[widths.len() - 1])
}

/// As [`width_for`], for the int8 kernels.
pub(super) fn code_width_for(level: Level, n: usize) -> usize {
    match level {
        Level::Avx2 => n.min(2),
        level => width_for(level, n),
    }
}

/// Returns the most queries of a group that are worth a first pass in int8; 0 where there is no kernel for it.
pub(super) fn most_in_int8(level: Level) -> usize {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if is_x86_feature_detected!("avx512vnni") => usize::MAX,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => FEW,
        _ => 0,
    }
}

/// Reports every open lane whose score is at least its query's threshold.
pub(super) fn float_block(
    level: Level,
    block: &FloatBlock<'_>,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::float_block(block, thresholds, sink),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::float_block(block, thresholds, sink),
        _ => portable::float_block(block, thresholds, sink),
    }
}

/// Reports every open lane whose upper bound is at least its query's threshold; only where [`most_in_int8`] is not 0.
pub(super) fn code_block(
    level: Level,
    block: &CodeBlock<'_>,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::code_block(block, thresholds, sink),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::code_block(block, thresholds, sink),
        _ => {
            let _ = (block, thresholds, sink);
        }
    }
}

/// Raises `maxima` to the scores of the open lanes where there is a kernel for it; each lane of `SEED_GROUPS` panels in
/// turn has its own maximum, so that the k-th largest of them is a score that k rows reach.
pub(super) fn float_maxima(level: Level, block: &FloatBlock<'_>, maxima: &mut Maxima) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::float_maxima(block, maxima),
        _ => {
            let _ = (block, maxima);
        }
    }
}

/// As [`float_maxima`], with lower bounds of the scores in units of each query's scale; only where [`most_in_int8`] is
/// not 0.
pub(super) fn code_maxima(level: Level, block: &CodeBlock<'_>, maxima: &mut Maxima) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::code_maxima(block, maxima),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::code_maxima(block, maxima),
        _ => {
            let _ = (block, maxima);
        }
    }
}

/// Returns the k-th largest of a query's maxima; minus infinity where there are not enough to tell.
pub(super) fn seed(maxima: &[Lanes; SEED_GROUPS], k: usize) -> f32 {
    let mut all = [0.0f32; SEED_GROUPS * LANES];
    all.copy_from_slice(bytemuck::cast_slice(maxima));
    match k {
        0 => f32::INFINITY,
        k if k > all.len() => f32::NEG_INFINITY,
        k => *all.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a)).1,
    }
}

/// Lays [`LANES`] rows side by side: `panel[d]` gets dimension `d` of each.
pub(super) fn pack(level: Level, rows: &[&[f32]; LANES], panel: &mut [Lanes]) {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::pack(rows, panel),
        _ => portable::pack(rows, panel),
    }
}

/// Returns the scores of `query` with [`LANES`] rows, whose sums begin with `start`: the bits of [`float_block`].
pub(super) fn dots(level: Level, rows: &[&[f32]; LANES], query: &[f32], start: [f32; LANES]) -> [f32; LANES] {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => avx512::dots(rows, query, start),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => avx2::dots(rows, query, start),
        _ => portable::dots(rows, query, start),
    }
}

/// Asks the processor to fetch `row`.
#[inline]
pub(super) fn prefetch(row: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    avx512::prefetch(row);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}
