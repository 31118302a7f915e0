//! The kernels for 512-bit registers: a panel is one of them.
//!
//! A block of 14 queries x 2 panels keeps 28 sums in registers; each step loads two lines of the panels and one number
//! of each query for 28 multiply-adds, so that both multiply units stay busy. Thresholds are compared in registers, and
//! the sums are stored only when a lane passes.

#![expect(
    unsafe_code,
    reason = "vector instructions that the caller has checked for, and loads without bounds checks"
)]
#![expect(clippy::needless_range_loop, reason = "several arrays of registers share an index")]

use std::arch::x86_64::*;

use super::tile::{CodeBlock, FloatBlock, LANES, Lanes, MAX_WIDTH, Maxima, NO_MAXIMA, SEED_GROUPS, Sink};

/// 1.5 * 2²³: an integer below 2²² in magnitude added to its bits is added to its value.
const MAGIC: f32 = 12_582_912.0;

pub(super) fn float_block(block: &FloatBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    float_any::<false>(block, &mut { NO_MAXIMA }, thresholds, sink);
}

pub(super) fn float_maxima(block: &FloatBlock<'_>, maxima: &mut Maxima) {
    float_any::<true>(block, maxima, &mut [0.0; MAX_WIDTH], &mut |_, _, _, _| 0.0);
}

pub(super) fn code_block(block: &CodeBlock<'_>, thresholds: &mut [f32; MAX_WIDTH], sink: &mut Sink<'_>) {
    match block.bias {
        None => code_any::<false, false>(block, &mut { NO_MAXIMA }, thresholds, sink),
        Some(_) => code_any::<true, false>(block, &mut { NO_MAXIMA }, thresholds, sink),
    }
}

pub(super) fn code_maxima(block: &CodeBlock<'_>, maxima: &mut Maxima) {
    match block.bias {
        None => code_any::<false, true>(block, maxima, &mut [0.0; MAX_WIDTH], &mut |_, _, _, _| 0.0),
        Some(_) => code_any::<true, true>(block, maxima, &mut [0.0; MAX_WIDTH], &mut |_, _, _, _| 0.0),
    }
}

fn float_any<const SEED: bool>(
    block: &FloatBlock<'_>,
    maxima: &mut Maxima,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    // SAFETY: `Level::Avx512` is only chosen where the processor has avx512f, avx512bw, avx512dq and avx512vl.
    unsafe {
        match block.width {
            1 => float_run::<1, 4, SEED>(block, maxima, thresholds, sink),
            2 => float_run::<2, 4, SEED>(block, maxima, thresholds, sink),
            4 => float_run::<4, 4, SEED>(block, maxima, thresholds, sink),
            8 => float_run::<8, 2, SEED>(block, maxima, thresholds, sink),
            _ => float_run::<14, 2, SEED>(block, maxima, thresholds, sink),
        }
    }
}

fn code_any<const BIAS: bool, const SEED: bool>(
    block: &CodeBlock<'_>,
    maxima: &mut Maxima,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    // SAFETY: callers have asked `tile::most_in_int8`, which asks the processor for avx512vnni beside `Level::Avx512`.
    unsafe {
        match block.width {
            1 => code_run::<1, 4, BIAS, SEED>(block, maxima, thresholds, sink),
            2 => code_run::<2, 4, BIAS, SEED>(block, maxima, thresholds, sink),
            4 => code_run::<4, 4, BIAS, SEED>(block, maxima, thresholds, sink),
            8 => code_run::<8, 2, BIAS, SEED>(block, maxima, thresholds, sink),
            _ => code_run::<14, 2, BIAS, SEED>(block, maxima, thresholds, sink),
        }
    }
}

pub(super) fn pack(rows: &[&[f32]; LANES], panel: &mut [Lanes]) {
    assert!(rows.iter().all(|row| row.len() == panel.len()));
    // SAFETY: as in `float_block`.
    unsafe { pack_rows(rows, panel) }
}

pub(super) fn dots(rows: &[&[f32]; LANES], query: &[f32], start: [f32; LANES]) -> [f32; LANES] {
    assert!(rows.iter().all(|row| row.len() == query.len()));
    // SAFETY: as in `float_block`.
    unsafe { dot_rows(rows, query, start) }
}

/// Asks for every cache line of `row`.
#[inline]
pub(super) fn prefetch(row: &[f32]) {
    for line in row.chunks(LANES) {
        // SAFETY: prefetching has no effect that a program can see, and every x86-64 processor has SSE.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn float_run<const W: usize, const P: usize, const SEED: bool>(
    block: &FloatBlock<'_>,
    maxima: &mut Maxima,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    let dim = block.dim;
    let n_panels = block.panels.len() / dim;
    assert!(block.width == W && block.queries.len() == dim * W && n_panels.is_multiple_of(P));
    assert!(block.open[..W].iter().all(|open| open.len() >= n_panels));
    assert!(block.bias.is_none_or(|bias| bias.len() >= n_panels));
    let mut scores = [[Lanes::default(); P]; W];
    for at in (0..n_panels).step_by(P) {
        let mut sums = [[_mm512_setzero_ps(); P]; W];
        if let Some(bias) = block.bias {
            for p in 0..P {
                let start = load(&bias[at + p]);
                for sums in &mut sums {
                    sums[p] = start;
                }
            }
        }
        let panels = &block.panels[at * dim..][..P * dim];
        let mut queries = block.queries.as_ptr();
        for d in 0..dim {
            // SAFETY: `p * dim + d < P * dim`; `queries` advances by `W` for each of `dim` dimensions of `dim * W`.
            unsafe {
                let values: [__m512; P] = std::array::from_fn(|p| load(panels.get_unchecked(p * dim + d)));
                for q in 0..W {
                    let query = _mm512_set1_ps(*queries.add(q));
                    for p in 0..P {
                        sums[q][p] = _mm512_fmadd_ps(query, values[p], sums[q][p]);
                    }
                }
                queries = queries.add(W);
            }
        }
        if SEED {
            for q in 0..W {
                for p in 0..P {
                    // SAFETY: every open list has been checked to reach `n_panels`.
                    let open = unsafe { *block.open[q].get_unchecked(at + p) };
                    let largest = &mut maxima[q][(at + p) % SEED_GROUPS];
                    store(largest, _mm512_mask_max_ps(load(largest), open, load(largest), sums[q][p]));
                }
            }
            continue;
        }
        let mut masks = [[0u16; P]; W];
        let mut any = 0;
        for q in 0..W {
            let threshold = _mm512_set1_ps(thresholds[q]);
            for p in 0..P {
                // SAFETY: every open list has been checked to reach `n_panels`.
                let open = unsafe { *block.open[q].get_unchecked(at + p) };
                masks[q][p] = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(open, sums[q][p], threshold);
                any |= masks[q][p];
            }
        }
        if any != 0 {
            for q in 0..W {
                for p in 0..P {
                    store(&mut scores[q][p], sums[q][p]);
                }
            }
            for q in 0..W {
                for p in 0..P {
                    if masks[q][p] != 0 {
                        thresholds[q] = sink(q, at + p, masks[q][p], &scores[q][p].0);
                    }
                }
            }
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn code_run<const W: usize, const P: usize, const BIAS: bool, const SEED: bool>(
    block: &CodeBlock<'_>,
    maxima: &mut Maxima,
    thresholds: &mut [f32; MAX_WIDTH],
    sink: &mut Sink<'_>,
) {
    let codes = &block.codes;
    let (steps, n_panels) = (codes.steps, codes.scales.len());
    assert!(block.width == W && block.queries.len() == steps * W && n_panels.is_multiple_of(P));
    assert!(codes.lines.len() == n_panels * steps);
    assert!(block.open[..W].iter().all(|open| open.len() >= n_panels));
    assert!(!BIAS || block.bias.is_some_and(|bias| bias.len() >= n_panels));
    for at in (0..n_panels).step_by(P) {
        let mut sums = [[_mm512_setzero_si512(); P]; W];
        for p in 0..P {
            // SAFETY: `start` is one whole register.
            let start = unsafe { _mm512_loadu_si512(codes.scales[at + p].start.as_ptr().cast()) };
            for sums in &mut sums {
                sums[p] = start;
            }
        }
        let lines = &codes.lines[at * steps..][..P * steps];
        let mut queries = block.queries.as_ptr();
        for step in 0..steps {
            // SAFETY: `p * steps + step < P * steps`, a line is one register, and `queries` advances by `W` for each
            // of `steps` steps of `steps * W`.
            unsafe {
                let values: [__m512i; P] = std::array::from_fn(|p| {
                    _mm512_loadu_si512(std::ptr::from_ref(lines.get_unchecked(p * steps + step)).cast())
                });
                for q in 0..W {
                    let query = _mm512_set1_epi32((*queries.add(q)).cast_signed());
                    for p in 0..P {
                        sums[q][p] = _mm512_dpbusd_epi32(sums[q][p], query, values[p]);
                    }
                }
                queries = queries.add(W);
            }
        }
        if SEED {
            let bounds = Bounds::<P>::new::<BIAS>(block, at, -1.0);
            for q in 0..W {
                for p in 0..P {
                    let products = _mm512_castsi512_ps(sums[q][p]);
                    let mut bound = _mm512_fmadd_ps(products, bounds.scales[p], bounds.offsets[p]);
                    if BIAS {
                        let inverse = _mm512_set1_ps(block.inverse_scale[q]);
                        bound = _mm512_fmadd_ps(bounds.biases[p], inverse, bound);
                    }
                    // SAFETY: every open list has been checked to reach `n_panels`.
                    let open = unsafe { *block.open[q].get_unchecked(at + p) };
                    let largest = &mut maxima[q][(at + p) % SEED_GROUPS];
                    store(largest, _mm512_mask_max_ps(load(largest), open, load(largest), bound));
                }
            }
            continue;
        }
        let bounds = Bounds::<P>::new::<BIAS>(block, at, 1.0);
        let mut masks = [[0u16; P]; W];
        let mut any = 0;
        for q in 0..W {
            let threshold = _mm512_set1_ps(thresholds[q]);
            for p in 0..P {
                let products = _mm512_castsi512_ps(sums[q][p]);
                let bound = _mm512_fmadd_ps(products, bounds.scales[p], bounds.offsets[p]);
                let threshold = if BIAS {
                    _mm512_fnmadd_ps(bounds.biases[p], _mm512_set1_ps(block.inverse_scale[q]), threshold)
                } else {
                    threshold
                };
                // SAFETY: every open list has been checked to reach `n_panels`.
                let open = unsafe { *block.open[q].get_unchecked(at + p) };
                masks[q][p] = _mm512_mask_cmp_ps_mask::<_CMP_GE_OQ>(open, bound, threshold);
                any |= masks[q][p];
            }
        }
        if any != 0 {
            for q in 0..W {
                for p in 0..P {
                    if masks[q][p] != 0 {
                        thresholds[q] = sink(q, at + p, masks[q][p], &[0.0; LANES]);
                    }
                }
            }
        }
    }
}

/// What turns the products with panels into bounds: `scale * product + offset`, and the bias.
struct Bounds<const P: usize> {
    scales: [__m512; P],
    offsets: [__m512; P],
    biases: [__m512; P],
}

impl<const P: usize> Bounds<P> {
    /// Upper bounds where `sign` is 1, lower bounds where it is -1.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
    #[inline]
    fn new<const BIAS: bool>(block: &CodeBlock<'_>, at: usize, sign: f32) -> Self {
        let zeros = [_mm512_setzero_ps(); P];
        let mut bounds = Self { scales: zeros, offsets: zeros, biases: zeros };
        for p in 0..P {
            let panel = &block.codes.scales[at + p];
            let scale = load(&panel.scale);
            let rounding = _mm512_fmadd_ps(_mm512_set1_ps(2.0), scale, _mm512_set1_ps(block.slack));
            let norms = _mm512_fmadd_ps(_mm512_set1_ps(block.residual), load(&panel.norm), rounding);
            let margin = _mm512_fmadd_ps(_mm512_set1_ps(block.code_norm), load(&panel.residual), norms);
            let margin = _mm512_mul_ps(_mm512_set1_ps(sign), margin);
            bounds.scales[p] = scale;
            bounds.offsets[p] = _mm512_fnmadd_ps(_mm512_set1_ps(MAGIC), scale, margin);
            if BIAS && let Some(bias) = block.bias {
                let bias = load(&bias[at + p]);
                let slack = _mm512_set1_ps(sign * block.bias_slack);
                bounds.biases[p] = _mm512_fmadd_ps(_mm512_abs_ps(bias), slack, bias);
            }
        }
        bounds
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn pack_rows(rows: &[&[f32]; LANES], panel: &mut [Lanes]) {
    let mut begin = 0;
    for lines in panel.chunks_mut(LANES) {
        // SAFETY: every row is as long as the panel, so `lines.len()` values stand at `begin`.
        let columns = unsafe { columns(rows, begin, lines.len()) };
        for (line, column) in lines.iter_mut().zip(columns) {
            store(line, column);
        }
        begin += LANES;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn dot_rows(rows: &[&[f32]; LANES], query: &[f32], start: [f32; LANES]) -> [f32; LANES] {
    let mut sums = load(&Lanes(start));
    for (block, query) in query.chunks(LANES).enumerate() {
        // SAFETY: every row is as long as the query, so `query.len()` values stand at this block.
        let columns = unsafe { columns(rows, block * LANES, query.len()) };
        for (&query, column) in query.iter().zip(columns) {
            sums = _mm512_fmadd_ps(_mm512_set1_ps(query), column, sums);
        }
    }
    let mut scores = Lanes::default();
    store(&mut scores, sums);
    scores.0
}

/// Transposes values `begin .. begin + n` of 16 rows: column `d` holds value `begin + d` of each; `n <= 16`.
///
/// # Safety
/// Every row has at least `begin + n` values.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
#[inline]
unsafe fn columns(rows: &[&[f32]; LANES], begin: usize, n: usize) -> [__m512; LANES] {
    let there = if n >= LANES { 0xffff } else { (1u16 << n) - 1 };
    let mut r = [_mm512_setzero_ps(); LANES];
    for (r, row) in r.iter_mut().zip(rows) {
        // SAFETY: only `n` values are read, which the caller vouches for.
        *r = unsafe { _mm512_maskz_loadu_ps(there, row.as_ptr().add(begin)) };
    }
    // Within each 128-bit quarter: 4 x 4 blocks. `quads[4 * g + j]` holds dimension 4 * quarter + j of rows 4g .. 4g + 4.
    let mut quads = [_mm512_setzero_ps(); LANES];
    for g in 0..4 {
        let (a, b, c, d) = (r[4 * g], r[4 * g + 1], r[4 * g + 2], r[4 * g + 3]);
        let (ab_low, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        let (cd_low, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        quads[4 * g] = low_pairs(ab_low, cd_low);
        quads[4 * g + 1] = high_pairs(ab_low, cd_low);
        quads[4 * g + 2] = low_pairs(ab_high, cd_high);
        quads[4 * g + 3] = high_pairs(ab_high, cd_high);
    }
    // Across quarters: quarter `i` of the four groups becomes one register.
    let mut columns = [_mm512_setzero_ps(); LANES];
    for j in 0..4 {
        let (a, b, c, d) = (quads[j], quads[4 + j], quads[8 + j], quads[12 + j]);
        let ab_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(a, b);
        let ab_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(a, b);
        let cd_even = _mm512_shuffle_f32x4::<0b10_00_10_00>(c, d);
        let cd_odd = _mm512_shuffle_f32x4::<0b11_01_11_01>(c, d);
        columns[j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_even, cd_even);
        columns[4 + j] = _mm512_shuffle_f32x4::<0b10_00_10_00>(ab_odd, cd_odd);
        columns[8 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_even, cd_even);
        columns[12 + j] = _mm512_shuffle_f32x4::<0b11_01_11_01>(ab_odd, cd_odd);
    }
    columns
}

#[target_feature(enable = "avx512f")]
#[inline]
fn low_pairs(a: __m512, b: __m512) -> __m512 {
    _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn high_pairs(a: __m512, b: __m512) -> __m512 {
    _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b)))
}

#[target_feature(enable = "avx512f")]
#[inline]
fn load(lanes: &Lanes) -> __m512 {
    // SAFETY: `Lanes` is one register.
    unsafe { _mm512_loadu_ps(lanes.0.as_ptr()) }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn store(lanes: &mut Lanes, values: __m512) {
    // SAFETY: `Lanes` is one register.
    unsafe { _mm512_storeu_ps(lanes.0.as_mut_ptr(), values) }
}
