//! What the passes of `cube.rs` ask of one row on a GPU: its score, and whether the filters leave it.

use cubecl::prelude::*;

use crate::table::bound::load_row;

/// A score as a number of the same order, above 0; zeros of both signs are one. What is no number is above all others.
#[cube]
pub(super) fn key(score: f32) -> u32 {
    let bits = u32::reinterpret(score);
    let mut key = bits ^ 0x8000_0000u32;
    if bits >= 0x8000_0000u32 {
        key = bits ^ 0xffff_ffffu32;
    }
    if score == 0.0 {
        key = 0x8000_0000u32.runtime();
    }
    if bits & 0x7f80_0000u32 == 0x7f80_0000u32 {
        key = 0xffff_ffffu32.runtime();
    }
    key
}

/// The key of a score that is lower by `slack` than that of `limit`, and no less than what any row has; what is no number stays.
#[cube]
pub(super) fn lower(limit: u32, slack: f32) -> u32 {
    let mut bits = limit ^ 0x8000_0000u32;
    if limit < 0x8000_0000u32 {
        bits = limit ^ 0xffff_ffffu32;
    }
    let mut lowered = limit;
    // The keys of numbers: beside them there are 1, which all rows reach, and the highest of all.
    if limit > 0x007f_ffffu32 && limit < 0xff80_0000u32 {
        // By a little more, as the difference is rounded.
        let score = f32::reinterpret(bits);
        let less = score - slack * 1.01 - score.abs() * 2e-7;
        lowered = key(less);
        if lowered > limit {
            // Past the lowest number there is nothing that a row could miss.
            lowered = 1u32.runtime();
        }
    }
    lowered
}

#[cube]
pub(super) fn is_allowed(allow: &Array<u32>, row: u32, #[comptime] has_allow: bool) -> bool {
    if comptime!(has_allow) { (allow[(row / 32) as usize] >> (row % 32)) & 1 == 1 } else { true.runtime() }
}

/// Whether `row` is among `excluded[from .. to]`, which ascend.
#[cube]
pub(super) fn is_excluded(excluded: &Array<u32>, from: u32, to: u32, row: u32) -> bool {
    let mut low = from;
    let mut high = to;
    while low < high {
        let middle = (low + high) / 2;
        if excluded[middle as usize] < row {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut is = false;
    if low < to {
        is = excluded[low as usize] == row;
    }
    is
}

/// The chain of a row's score, with the vector at `first` of `vectors`.
#[cube]
pub(super) fn score_of<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    bias: &Array<f32>,
    vectors: &Array<f32>,
    first: usize,
    row: u32,
    shift: u32,
    #[comptime] has_bias: bool,
    #[comptime] row_vectors: usize,
) -> f32 {
    let mut score = 0.0;
    if comptime!(has_bias) {
        score = bias[row as usize];
    }
    for at in 0..row_vectors {
        let values = load_row::<F, N>(table, row, at, shift, row_vectors);
        #[unroll]
        for lane in 0..N::value() {
            score = fma(vectors[first + at * N::value() + lane], values[lane], score);
        }
    }
    score
}

/// Writes a unit's keys, of `own_queries` queries from `query` on by `own_rows` groups from `group` on.
#[cube]
pub(super) fn write_best(
    best: &mut Array<u32>,
    keys: &Array<u32>,
    query: usize,
    group: usize,
    n_queries: usize,
    n_groups: usize,
    #[comptime] own_queries: usize,
    #[comptime] own_rows: usize,
) {
    #[unroll]
    for i in 0..own_queries {
        #[unroll]
        for j in 0..own_rows {
            if query + i < n_queries && group + j < n_groups {
                best[(query + i) * n_groups + group + j] = keys[i * own_rows + j];
            }
        }
    }
}

#[cube(launch)]
pub(super) fn check_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    found: &mut Array<Atomic<u32>>,
    rows: u32,
    shift: u32,
    #[comptime] row_vectors: usize,
) {
    let row = ABSOLUTE_POS as u32;
    if row < rows {
        let mut wild = false;
        let mut square = 0.0;
        for at in 0..row_vectors {
            let values = load_row::<F, N>(table, row, at, shift, row_vectors);
            #[unroll]
            for lane in 0..N::value() {
                wild = wild || u32::reinterpret(values[lane]) & 0x7f80_0000 == 0x7f80_0000;
                square = fma(values[lane], values[lane], square);
            }
        }
        if wild {
            found[0].fetch_min(row);
        } else {
            // Numbers that are not negative have the order of their bits.
            found[1].fetch_max(u32::reinterpret(square));
        }
    }
}

#[cube(launch)]
pub(super) fn score_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    bias: &Array<f32>,
    vectors: &Array<f32>,
    wanted: &Array<u32>,
    owners: &Array<u32>,
    out: &mut Array<f32>,
    shift: u32,
    #[comptime] has_bias: bool,
    #[comptime] row_vectors: usize,
) {
    if ABSOLUTE_POS < out.len() {
        let row = wanted[ABSOLUTE_POS];
        let first = owners[ABSOLUTE_POS] as usize * row_vectors * N::value();
        out[ABSOLUTE_POS] = score_of::<F, N>(table, bias, vectors, first, row, shift, has_bias, row_vectors);
    }
}
