//! Rows and queries in 8 bits, and a bound on what that costs.
//!
//! A first pass over int8 codes needs a quarter of the multiply-adds. It decides nothing by itself: it finds, for each
//! row, a number that the row's f32 score cannot pass. Rows whose bound stays below the k-th best exact score so far
//! cannot be in the answer; all others are scored again in f32. So ids and scores are those of plain f32 scoring.
//!
//! # The bound
//!
//! | symbol        | is                                                                                          |
//! |---------------|---------------------------------------------------------------------------------------------|
//! | `y`, `q`      | a row and a query, f32, of dimension `d`; `b` the row's bias                                 |
//! | `s`, `c`      | the row's scale (f32) and codes: integers in -127 ..= 127 near `y / s`                       |
//! | `r`           | `y - s c`, the row's residual                                                                |
//! | `t`, `e`      | a number above 0 for the query, and its codes: integers in -127 ..= 127 near `t q`           |
//! | `g`           | `t q - e`, the query's residual                                                              |
//! | `u`           | 2⁻²⁴, the rounding unit of f32                                                              |
//! | `f`           | the score as `score_topk` computes it: a chain of `d` fused multiply-adds that begins with b |
//!
//! 1. *Rounding of the score.* Each of the `d` steps multiplies what stands by at most `1 + u` and may lose 2⁻¹⁵⁰ where
//!    it underflows. So `|f - (b + q·y)| <= γ (|b| + Σ|q_i y_i|) + d 2⁻¹⁴⁹` with `γ = d u / (1 - d u)`, and
//!    `Σ|q_i y_i| <= |q| |y|` (Cauchy-Schwarz).
//! 2. *Quantization.* `t q·y = e·y + g·y = s (e·c) + e·r + g·y <= s (e·c) + |e| |r| + |g| |y|` (Cauchy-Schwarz).
//! 3. Together: `t (f - b) <= s (e·c) + |e| |r| + (|g| + γ t |q|) |y| + t γ |b| + t d 2⁻¹⁴⁹`.
//!
//! `e·c` is an integer, and exact: `|e| |c| < 2²²` is ensured by the choice of `t`. The kernel adds it to the bits of
//! 1.5·2²³ and so has the f32 `F = 1.5·2²³ + e·c` without a conversion. With `h = |e| |r| + (|g| + γ t |q|) |y| + 2 s +
//! 2⁻⁶⁴` it computes `o = h - 1.5·2²³ s` and `U = F s + o`, each with one rounding: off by at most `u (1.5·2²³ s + h)`
//! and `u (2²² s + h + s)`, that is by less than `1.1 s + 2.1 u h`. The factors of `h` are made larger by 2⁻¹⁸ when they are
//! rounded to f32, which pays for `2.1 u h` and for the three roundings of `h` itself; the `2 s` pays for `1.1 s`; the
//! 2⁻⁶⁴ pays for everything that underflows, since `d <= 4096` and `t < 2⁵⁸`. So `U >= t (f - b) - t γ |b|`.
//!
//! A row is kept when `U >= θ - t' (b + β |b|)`, where `θ` is `t T` made smaller by 2⁻¹⁸ of its magnitude, `T` the k-th best
//! exact score, `t'` is `t` in f32, and `β >= γ + 2⁻¹⁸` pays for `t γ |b|` and for the roundings of the right side. Hence
//! `f >= T` implies that the row is kept; equal scores are kept too, so that the tie hash decides among them.
//!
//! The same numbers with `-h` in place of `h` bound scores from below. The first tile is passed over once for those: the
//! k-th largest lower bound of k different rows is at most `t T`, so the scan begins with a threshold.
//!
//! Queries, tables and biases whose magnitudes leave 2⁻⁴⁰ .. 2⁴⁰ are scored in plain f32 instead.

use super::tile::{LANES, Lanes};

/// Codes of one panel: four dimensions of each of its rows, the bytes of a row side by side.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct CodeLine(pub(super) [i8; 4 * LANES]);

/// What the codes of one panel mean.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(super) struct PanelScales {
    /// The bits of 1.5·2²³, less 128 Σ c: a query's codes come with 128 added, to be unsigned.
    pub(super) start: [i32; LANES],
    /// `s`.
    pub(super) scale: Lanes,
    /// `|r|`, rounded up.
    pub(super) residual: Lanes,
    /// `|y|`, rounded up.
    pub(super) norm: Lanes,
}

/// A run of panels in codes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codes<'a> {
    /// Lines a panel has: a quarter of the dimension, rounded up.
    pub(super) steps: usize,
    /// `[n_panels, steps]`.
    pub(super) lines: &'a [CodeLine],
    /// `[n_panels]`.
    pub(super) scales: &'a [PanelScales],
}

/// What the codes of one query mean.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueryScale {
    /// `t`.
    pub(super) inverse: f64,
    /// `|e|`, rounded up.
    pub(super) code_norm: f32,
    /// `|g| + γ t |q|`, rounded up.
    pub(super) residual: f32,
}

/// The underflow that a bound has room for.
pub(super) const SLACK: f32 = 1.0 / (1u64 << 63) as f32 / 2.0;

/// The largest dimension that is quantized.
pub(super) const MAX_DIM: usize = 4096;

/// The magnitudes, 2^-40 and 2^40, between which norms and biases have to stay.
const RANGE: std::ops::RangeInclusive<f64> = 1.0 / (1u64 << 40) as f64..=(1u64 << 40) as f64;

/// More than any product of code norms may be.
const DOT_LIMIT: f64 = 4_194_304.0;

const UP: f64 = 1.0 + 1.0 / (1u64 << 18) as f64;
const MAGIC_BITS: i32 = 0x4b40_0000;

/// Returns whether a table or a query of this Euclidean norm is quantized.
pub(super) fn in_range(norm: f64) -> bool {
    RANGE.contains(&norm)
}

/// Returns `β`.
pub(super) fn bias_slack(dim: usize) -> f32 {
    ((gamma(dim) + 1.0 / (1u64 << 18) as f64) * UP) as f32
}

/// Returns `θ` for a k-th best score of `score`.
#[inline]
pub(super) fn threshold(score: f32, inverse: f64) -> f32 {
    let score = f64::from(score);
    if score.is_finite() { ((score - score.abs() * (UP - 1.0)) * inverse) as f32 } else { score as f32 }
}

/// Returns the factor by which a computed score may pass `|q| |y| + |b|`, and a little more.
pub(super) fn norm_slack(dim: usize) -> f64 {
    (1.0 + gamma(dim)) * UP
}

/// Rounds a number of small magnitude to an integer by its last bits: a tenth of the time of a call into libm.
fn round(value: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    (value + SHIFT) - SHIFT
}

fn gamma(dim: usize) -> f64 {
    let du = (dim + 1) as f64 / (1u64 << 24) as f64;
    du / (1.0 - du).max(0.5)
}

/// Writes the codes of `row` to lane `lane` of a panel, and returns the norm of the codes.
pub(super) fn quantize_row(
    row: &[f32],
    lane: usize,
    lines: &mut [CodeLine],
    scales: &mut PanelScales,
) -> f64 {
    let largest = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let scale = largest / 127.0;
    let (mut code_sum, mut code_squares, mut residual, mut norm) = (0i32, 0.0, 0.0, 0.0);
    for (d, &value) in row.iter().enumerate() {
        let value = f64::from(value);
        let ratio = if scale > 0.0 { value / f64::from(scale) } else { 0.0 };
        let code = round(ratio).clamp(-127.0, 127.0);
        lines[d / 4].0[4 * lane + d % 4] = code as i8;
        code_sum += code as i32;
        code_squares += code * code;
        residual += (value - f64::from(scale) * code).powi(2);
        norm += value * value;
    }
    scales.start[lane] = MAGIC_BITS - 128 * code_sum;
    scales.scale.0[lane] = scale;
    scales.residual.0[lane] = (residual.sqrt() * UP) as f32;
    scales.norm.0[lane] = (norm.sqrt() * UP) as f32;
    code_squares.sqrt()
}

/// Writes the codes of `query`, each plus 128, to `codes`, four to a word.
///
/// `max_code_norm` is the largest norm of the codes of any row; `None` where the query has to be scored in plain f32.
pub(super) fn quantize_query(
    query: &[f32],
    norm: f64,
    max_code_norm: f64,
    codes: &mut [u32],
) -> Option<QueryScale> {
    if !in_range(norm) {
        return None;
    }
    let largest = query.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    let room = 0.9 * DOT_LIMIT / (norm * max_code_norm.max(1.0));
    let inverse = (127.0 / f64::from(largest)).min(room);
    let (mut code_squares, mut residual) = (0.0, 0.0);
    for (word, values) in codes.iter_mut().zip(query.chunks(4)) {
        let mut bytes = [128u8; 4];
        for (byte, &value) in bytes.iter_mut().zip(values) {
            let scaled = f64::from(value) * inverse;
            let code = round(scaled).clamp(-127.0, 127.0);
            *byte = (code + 128.0) as u8;
            code_squares += code * code;
            residual += (scaled - code).powi(2);
        }
        *word = u32::from_le_bytes(bytes);
    }
    let code_norm = code_squares.sqrt();
    if code_norm * max_code_norm >= DOT_LIMIT {
        return None;
    }
    let residual = residual.sqrt() + gamma(query.len()) * inverse * norm;
    Some(QueryScale { inverse, code_norm: (code_norm * UP) as f32, residual: (residual * UP) as f32 })
}
