//! The first pass of `cube.rs` on matrix units, for rows of f16: scores near the exact ones, and how near.
//!
//! ```text
//! q = s (h + l + e)      s a power of two with |q_i| < s, h and l of f16, |e_i| <= 2^-25
//! s' = s (h · y + l · y) + bias                     products exact, sums in f32
//! |s' - score| <= slack(q)
//! ```
//!
//! Every partial sum of a score is at most `|q| |y|`. A matrix unit may cut where it should round, so each of its `2 dim`
//! additions is off by `2^-23` of that; the chain that the exact score is, by `2^-24` each of `dim` times; the bias counts in both.
//! So the k-th best of the exact scores is at least the k-th best group less the slack, and whatever can be among them has an `s'` of
//! at least that less the slack once more. The passes that follow score exactly, so that answers are the same to the bit.
//!
//! # Cost
//! `4 queries rows dim` operations of matrix units, in tiles of 128 queries by 64 rows, whose sums go through shared memory once for the
//! filters and the best of each group. The queries stay in shared memory for all of a tile's groups.

use cubecl::{cmma, prelude::*};
use half::f16;

use super::{
    OP, TopkQuery,
    cube_rows::{is_allowed, key, write_best},
};
use crate::{
    Buffer, Result, RowType, Table,
    buffer::cube::{Gpu, Queue},
    matrix_unit::{self, UNIT, put, zeros},
    table::bound::{Bound, load_row},
};

const UNITS: usize = 256;
const TILE_QUERIES: usize = 128;
const TILE_ROWS: usize = 64;
/// Queries and rows that a unit looks at.
const OWN_QUERIES: usize = 8;
const OWN_ROWS: usize = 4;
/// Numbers between two queries of a tile's scores, four more than it has.
const SCORE_STRIDE: usize = TILE_ROWS + 4;
/// Queries, rows and sums of a warp's share of a tile.
const WARP_SIDE: usize = 32;
const WARPS_PER_ROW: usize = TILE_ROWS / WARP_SIDE;

/// Columns as matrix units take them, the last ones zero.
fn depth(dim: usize) -> usize {
    dim.next_multiple_of(UNIT)
}

/// Numbers between two rows of operands: neighbours begin in other banks.
fn stride(dim: usize) -> usize {
    depth(dim) + 8
}

fn shared_bytes(dim: usize) -> usize {
    2 * (2 * TILE_QUERIES + TILE_ROWS) * stride(dim) + 4 * TILE_QUERIES * SCORE_STRIDE
}

/// Whether the pass runs on the device for such a table.
pub(super) fn fits<R: Gpu>(queue: &Queue<R>, table: &Table) -> bool {
    table.row_type() == RowType::F16 && matrix_unit::fits(queue, RowType::F16, shared_bytes(table.dim()))
}

/// Queries as the pass takes them.
pub(super) struct Operands {
    /// `[queries, depth]`: `h`, and `l` behind all of it.
    halves: Buffer<f16>,
    /// `[queries]`: `s`.
    scales: Buffer<f32>,
    /// `[queries]`.
    pub(super) slack: Buffer<f32>,
}

impl Operands {
    /// Returns nothing where a slack is no number.
    pub(super) fn new<R: Gpu>(
        queue: &Queue<R>,
        queries: &[TopkQuery<'_>],
        at: &[usize],
        (largest_norm, largest_bias): (f64, f64),
    ) -> Result<Option<Self>> {
        let dim = at.first().map_or(0, |&at| queries[at].vector.len());
        let depth = depth(dim);
        let mut halves = vec![f16::ZERO; 2 * at.len() * depth];
        let (high, low) = halves.split_at_mut(at.len() * depth);
        let (mut scales, mut slack) = (Vec::new(), Vec::new());
        let pairs = high.chunks_exact_mut(depth).zip(low.chunks_exact_mut(depth));
        for (&at, (high, low)) in at.iter().zip(pairs) {
            let scale = power_above(queries[at].vector);
            for ((&q, high), low) in queries[at].vector.iter().zip(high).zip(low) {
                let share = q / scale;
                *high = f16::from_f32(share);
                *low = f16::from_f32(share - high.to_f32());
            }
            scales.push(scale);
            slack.push(slack_of(queries[at].vector, scale, largest_norm, largest_bias));
        }
        if slack.iter().any(|slack| !slack.is_finite()) {
            return Ok(None);
        }
        Ok(Some(Self {
            halves: queue.upload(&halves, "vectors of the queries, in halves")?,
            scales: queue.upload(&scales, "scales of the queries")?,
            slack: queue.upload(&slack, "what scores may be off by")?,
        }))
    }
}

/// A power of two above every value's magnitude, such that a share of it is a number.
fn power_above(vector: &[f32]) -> f32 {
    let most = vector.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let exponent = (most.to_bits() >> 23).clamp(2, 253);
    f32::from_bits((exponent + 1) << 23)
}

fn slack_of(query: &[f32], scale: f32, largest_norm: f64, largest_bias: f64) -> f32 {
    let dim = query.len() as f64;
    let length = query.iter().map(|&q| f64::from(q) * f64::from(q)).sum::<f64>().sqrt();
    let [cut, rounded] = [-23, -24].map(|power| 2f64.powi(power));
    let sums =
        (2.0 * dim * cut + (dim + 2.0) * rounded) * length * largest_norm + (dim + 2.0) * cut * largest_bias;
    if length * largest_norm + largest_bias > 1e37 {
        // A near score may be no number where the exact one is.
        return f32::INFINITY;
    }
    let halves = f64::from(scale) * largest_norm * dim.sqrt() * rounded / 2.0;
    (1.01 * (sums + halves)) as f32
}

/// Writes the best of each group among near scores.
pub(super) fn best<R: Gpu>(
    queue: &Queue<R>,
    table: &Bound<'_, R>,
    operands: &Operands,
    (bias, has_bias): (&Buffer<f32>, bool),
    (allow, has_allow): (&Buffer<u32>, bool),
    best: &Buffer<u32>,
    [rows, n_queries, n_groups, dim]: [usize; 4],
) -> Result<()> {
    best_matrix_kernel::launch::<R>(
        &queue.client,
        CubeCount::Static(n_groups.div_ceil(TILE_ROWS) as u32, n_queries.div_ceil(TILE_QUERIES) as u32, 1),
        CubeDim::new_1d(UNITS as u32),
        table.width,
        table.args::<f16, _>(OP)?,
        queue.arg(OP, bias)?,
        queue.arg(OP, &operands.halves)?,
        queue.arg(OP, &operands.scales)?,
        queue.arg(OP, allow)?,
        queue.arg(OP, best)?,
        rows as u32,
        n_queries as u32,
        n_groups as u32,
        table.shift,
        has_bias,
        has_allow,
        depth(dim),
        stride(dim),
        table.row_vectors,
    );
    Ok(())
}

/// An operand: 16 queries' or rows' next 16 columns, from `begin` on.
#[cube]
fn operand(
    tile: &SharedMemory<f16>,
    begin: usize,
    #[comptime] of_rows: bool,
    #[comptime] stride: usize,
) -> cmma::Matrix<f16> {
    let ident = comptime!(if of_rows { cmma::MatrixIdent::B } else { cmma::MatrixIdent::A });
    let layout = comptime!(if of_rows { cmma::MatrixLayout::ColMajor } else { cmma::MatrixLayout::RowMajor });
    let values = tile.slice(begin, begin + comptime!((UNIT - 1) * stride + UNIT));
    cmma::Matrix::<f16>::from_slice(ident, UNIT, UNIT, UNIT, layout, &values, comptime!(stride as u32))
}

/// Cube (x, y) has groups `64 x ..` and queries `128 y ..`; a warp has 32 queries by 32 rows of a tile, a unit looks at 8 by 4.
#[cube(launch)]
fn best_matrix_kernel<N: Size>(
    table: &Sequence<Array<Vector<f16, N>>>,
    bias: &Array<f32>,
    halves: &Array<f16>,
    scales: &Array<f32>,
    allow: &Array<u32>,
    best: &mut Array<u32>,
    rows: u32,
    n_queries: u32,
    n_groups: u32,
    shift: u32,
    #[comptime] has_bias: bool,
    #[comptime] has_allow: bool,
    #[comptime] depth: usize,
    #[comptime] stride: usize,
    #[comptime] row_vectors: usize,
) {
    let width = N::value();
    let mut high = SharedMemory::<f16>::new_aligned(comptime!(TILE_QUERIES * stride), 32usize);
    let mut low = SharedMemory::<f16>::new_aligned(comptime!(TILE_QUERIES * stride), 32usize);
    let mut row_tile = SharedMemory::<f16>::new_aligned(comptime!(TILE_ROWS * stride), 32usize);
    let mut scores = SharedMemory::<f32>::new_aligned(comptime!(TILE_QUERIES * SCORE_STRIDE), 32usize);
    let unit = UNIT_POS as usize;
    let first_query = CUBE_POS_Y as usize * TILE_QUERIES;
    let first_group = CUBE_POS_X * TILE_ROWS as u32;
    let per_row = comptime!(TILE_ROWS / OWN_ROWS);
    let unit_query = unit / per_row * OWN_QUERIES;
    let unit_row = unit % per_row * OWN_ROWS;
    let warp = unit / 32;
    let warp_query = warp / WARPS_PER_ROW * WARP_SIDE;
    let warp_row = warp % WARPS_PER_ROW * WARP_SIDE;

    let n_queries = n_queries as usize;
    for pass in 0..comptime!((TILE_QUERIES * depth).div_ceil(UNITS)) {
        let at = pass * UNITS + unit;
        let (query, k) = (at / depth, at % depth);
        let mut of_high = f16::new(0.0);
        let mut of_low = f16::new(0.0);
        if first_query + query < n_queries {
            let place = (first_query + query) * depth + k;
            of_high = halves[place];
            of_low = halves[n_queries * depth + place];
        }
        high[query * stride + k] = of_high;
        low[query * stride + k] = of_low;
    }
    // Columns past the rows' own stay zero.
    for pass in 0..comptime!((TILE_ROWS * stride).div_ceil(UNITS)) {
        let at = pass * UNITS + unit;
        if at < comptime!(TILE_ROWS * stride) {
            row_tile[at] = f16::new(0.0);
        }
    }
    let mut keys = Array::<u32>::new(comptime!(OWN_QUERIES * OWN_ROWS));
    let mut own_scales = Array::<f32>::new(OWN_QUERIES);
    #[unroll]
    for i in 0..OWN_QUERIES {
        own_scales[i] = 0.0;
        if first_query + unit_query + i < n_queries {
            own_scales[i] = scales[first_query + unit_query + i];
        }
        #[unroll]
        for j in 0..OWN_ROWS {
            keys[i * OWN_ROWS + j] = 0;
        }
    }
    sync_cube();
    let members = rows.div_ceil(n_groups);
    for member in 0..members {
        let first_row = member * n_groups + first_group;
        for pass in 0..comptime!((TILE_ROWS * row_vectors).div_ceil(UNITS)) {
            let at = pass * UNITS + unit;
            let (row, vector) = (at / row_vectors, at % row_vectors);
            if row < TILE_ROWS {
                let mut values = Vector::<f32, N>::zeroed();
                if first_row + (row as u32) < rows {
                    values = load_row::<f16, N>(table, first_row + row as u32, vector, shift, row_vectors);
                }
                #[unroll]
                for lane in 0..width {
                    row_tile[row * stride + vector * width + lane] = f16::cast_from(values[lane]);
                }
            }
        }
        sync_cube();
        // One half of the warp's queries after the other, which leaves registers for a second group on the processor.
        for half in 0..comptime!(WARP_SIDE / UNIT) {
            let query = warp_query + half * UNIT;
            let sums = zeros();
            let sums_next = zeros();
            #[unroll]
            for step in 0..comptime!(depth / UNIT) {
                let k = step * UNIT;
                let right = operand(&row_tile, warp_row * stride + k, true, stride);
                let right_next = operand(&row_tile, (warp_row + UNIT) * stride + k, true, stride);
                let left = operand(&high, query * stride + k, false, stride);
                cmma::execute::<f16, f16, f32, f32>(&left, &right, &sums, &sums);
                cmma::execute::<f16, f16, f32, f32>(&left, &right_next, &sums_next, &sums_next);
                let rest = operand(&low, query * stride + k, false, stride);
                cmma::execute::<f16, f16, f32, f32>(&rest, &right, &sums, &sums);
                cmma::execute::<f16, f16, f32, f32>(&rest, &right_next, &sums_next, &sums_next);
            }
            put(&mut scores, &sums, query * SCORE_STRIDE + warp_row, SCORE_STRIDE);
            put(&mut scores, &sums_next, query * SCORE_STRIDE + warp_row + UNIT, SCORE_STRIDE);
        }
        sync_cube();
        #[unroll]
        for j in 0..OWN_ROWS {
            let group = first_group + (unit_row + j) as u32;
            let row = first_row + (unit_row + j) as u32;
            let mut leaves = false;
            if group < n_groups && row < rows {
                leaves = is_allowed(allow, row, has_allow);
            }
            if leaves {
                let mut start = 0.0;
                if comptime!(has_bias) {
                    start = bias[row as usize];
                }
                #[unroll]
                for i in 0..OWN_QUERIES {
                    let score = scores[(unit_query + i) * SCORE_STRIDE + unit_row + j];
                    let at = i * OWN_ROWS + j;
                    keys[at] = u32::max(keys[at], key(fma(score, own_scales[i], start)));
                }
            }
        }
    }
    let (query, group) = (first_query + unit_query, first_group as usize + unit_row);
    write_best(best, &keys, query, group, n_queries, n_groups as usize, OWN_QUERIES, OWN_ROWS);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_power_is_above_every_value_and_shares_of_it_are_numbers() {
        for (vector, expected) in
            [(&[0.75f32, -0.5][..], 1.0), (&[1.0], 2.0), (&[-3.0, 0.1], 4.0), (&[1e-3], 1.0 / 512.0)]
        {
            assert_eq!(power_above(vector), expected);
        }
        for vector in [[0.0], [f32::MAX], [f32::MIN_POSITIVE], [1e-45]] {
            let share = vector[0] / power_above(&vector);
            assert!(share.abs() <= 2.0 && share.is_finite(), "{vector:?}: {share}");
        }
    }

    #[test]
    fn two_halves_are_off_by_less_than_the_slack_says() {
        let query: Vec<f32> = (0..64).map(|i| ((i * 37 % 61) as f32 / 61.0 - 0.5) * 0.3).collect();
        let scale = power_above(&query);
        let row = vec![1.0f32; 64];
        let exact: f64 = query.iter().map(|&q| f64::from(q)).sum();
        let near: f64 = query
            .iter()
            .map(|&q| {
                let high = f16::from_f32(q / scale);
                let low = f16::from_f32(q / scale - high.to_f32());
                f64::from(scale) * (high.to_f64() + low.to_f64())
            })
            .sum();
        let slack = slack_of(&query, scale, (row.len() as f64).sqrt(), 0.0);
        assert!((exact - near).abs() < f64::from(slack), "{exact} {near} {slack}");
        assert!(slack < 1e-3, "{slack}");
    }
}
