//! A row of factors over the units of a cube: its values, and what units sum up together.

use cubecl::prelude::*;

use super::shape::{Shape, Sizes};

/// `p . q + b`, the same for every unit.
#[cube]
pub(super) fn dot_to(
    p: &Array<f32>,
    q: &Array<f32>,
    state: &Array<f32>,
    column: u32,
    shared: &mut SharedMemory<f32>,
    #[comptime] shape: Shape,
) -> f32 {
    let mut sums = Array::<f32>::new(1usize);
    sums[0] = 0.0;
    #[unroll]
    for k in 0..comptime!(shape.values()) {
        sums[0] = fma(p[k], q[k], sums[0]);
    }
    sums[0] += own_bias(state, column, shape);
    reduce(&mut sums, shared, 1usize, shape);
    sums[0]
}

/// Replaces `n` numbers of each unit by their sums over all units, added in one order.
#[cube]
pub(super) fn reduce(
    sums: &mut Array<f32>,
    shared: &mut SharedMemory<f32>,
    #[comptime] n: usize,
    #[comptime] shape: Shape,
) {
    if comptime!(shape.plane) {
        #[unroll]
        for at in 0..n {
            sums[at] = plane_sum(sums[at]);
        }
    } else {
        let unit = UNIT_POS as usize;
        #[unroll]
        for at in 0..n {
            shared[at * comptime!(shape.units) + unit] = sums[at];
        }
        sync_cube();
        let mut half = comptime!(shape.units / 2).runtime();
        #[unroll]
        for _ in 0..comptime!(shape.steps()) {
            if unit < half {
                #[unroll]
                for at in 0..n {
                    let to = at * comptime!(shape.units) + unit;
                    let add = shared[to + half];
                    shared[to] += add;
                }
            }
            sync_cube();
            half /= 2;
        }
        #[unroll]
        for at in 0..n {
            sums[at] = shared[at * comptime!(shape.units)];
        }
        // Nobody writes the next sums before all have read these.
        sync_cube();
    }
}

#[cube]
pub(super) fn row_place(places: &Array<u32>, row: u32, sizes: &Sizes, #[comptime] shape: Shape) -> usize {
    if comptime!(shape.rows_placed()) {
        (places[row as usize] - sizes.first_row) as usize
    } else {
        row as usize
    }
}

#[cube]
pub(super) fn column_place(
    places: &Array<u32>,
    column: u32,
    sizes: &Sizes,
    #[comptime] shape: Shape,
) -> usize {
    if comptime!(shape.columns_placed()) {
        (places[(sizes.n_rows + column) as usize] - sizes.first_column) as usize
    } else {
        column as usize
    }
}

/// Reads this unit's values of the row that begins at `at`; zeros past its end.
#[cube]
pub(super) fn load(table: &Array<f32>, at: usize, into: &mut Array<f32>, #[comptime] shape: Shape) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for k in 0..comptime!(shape.whole()) {
        into[k] = table[at + k * comptime!(shape.units) + unit];
    }
    if comptime!(shape.has_rest()) {
        let k = comptime!(shape.whole());
        let place = comptime!(shape.whole() * shape.units) + unit;
        into[k] = 0.0;
        if place < comptime!(shape.dim) {
            into[k] = table[at + place];
        }
    }
}

#[cube]
pub(super) fn store(table: &mut Array<f32>, at: usize, from: &Array<f32>, #[comptime] shape: Shape) {
    let unit = UNIT_POS as usize;
    #[unroll]
    for k in 0..comptime!(shape.whole()) {
        table[at + k * comptime!(shape.units) + unit] = from[k];
    }
    if comptime!(shape.has_rest()) {
        let k = comptime!(shape.whole());
        let place = comptime!(shape.whole() * shape.units) + unit;
        if place < comptime!(shape.dim) {
            table[at + place] = from[k];
        }
    }
}

/// The bias of `column` in unit 0, and nothing in the others: a part of a sum over units.
#[cube]
#[expect(clippy::collapsible_if, reason = "one of them is known when the kernel is compiled")]
pub(super) fn own_bias(state: &Array<f32>, column: u32, #[comptime] shape: Shape) -> f32 {
    let mut bias = 0.0f32;
    if comptime!(shape.biased) {
        if UNIT_POS == 0 {
            bias = state[column as usize];
        }
    }
    bias
}
