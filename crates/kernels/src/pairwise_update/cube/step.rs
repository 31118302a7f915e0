//! The steps of a walk: scores, the loss and its slope, and the moves of rows, biases and Adagrad's sums.

use cubecl::prelude::*;

use super::{
    row::{own_bias, reduce},
    shape::{Rates, Shape, Sizes},
};

/// What a cell did.
#[derive(CubeType)]
pub(super) struct Tally {
    /// Kahan's sum of losses, and what its last addition lost.
    pub(super) loss: f32,
    pub(super) lost: f32,
    pub(super) samples: u32,
    pub(super) skipped: u32,
    /// The row that is not finite.
    pub(super) bad: u32,
}

#[cube]
pub(super) fn add_loss(tally: &mut Tally, loss: f32) {
    let add = loss - tally.lost;
    let sum = tally.loss + add;
    tally.lost = (sum - tally.loss) - add;
    tally.loss = sum;
}

/// The slope at `x`, whose loss is counted; the row is kept, and false returned, when `x` is not finite.
#[cube]
fn count(tally: &mut Tally, x: f32, row: u32) -> bool {
    tally.samples += 1;
    let finite = is_finite(x);
    if finite {
        let t = f32::exp(-f32::abs(x));
        // ln(1 + t) loses a small t.
        let log = select(t < 1e-3, t * (1.0 - 0.5 * t), f32::ln(1.0 + t));
        add_loss(tally, f32::max(-x, 0.0) + log);
    } else {
        tally.bad = row;
    }
    finite
}

/// `1 / (1 + exp(x))`.
#[cube]
fn slope(x: f32) -> f32 {
    let t = f32::exp(-f32::abs(x));
    select(x > 0.0, t, 1.0) / (1.0 + t)
}

/// By its bits: a compiler may take it for granted that no number is anything else.
#[cube]
pub(super) fn is_finite(x: f32) -> bool {
    (u32::reinterpret(x) & 0x7f80_0000) != 0x7f80_0000
}

/// Steps of a row, a positive and a negative for BPR.
#[cube]
#[expect(clippy::too_many_arguments, reason = "inlined into the walk")]
pub(super) fn pair(
    p: &mut Array<f32>,
    q: &mut Array<f32>,
    o: &mut Array<f32>,
    state: &mut Array<f32>,
    row: u32,
    column: u32,
    other: u32,
    rates: &Rates,
    sizes: &Sizes,
    shared: &mut SharedMemory<f32>,
    tally: &mut Tally,
    #[comptime] shape: Shape,
) {
    let old = old_sums(state, row, column, other, sizes, shape);
    let mut sums = Array::<f32>::new(3usize);
    three_parts(p, q, o, &mut sums, shape);
    sums[0] += own_bias(state, column, shape) - own_bias(state, other, shape);
    reduce(&mut sums, shared, comptime!(shape.sums()), shape);
    if count(tally, sums[0], row) {
        let z = slope(sums[0]);
        step_three(p, q, o, state, &old, row, column, other, z, sums[1], sums[2], rates, sizes, shape);
    }
}

/// Steps of a row, a positive and a negative by WARP's weight.
#[cube]
#[expect(clippy::too_many_arguments, reason = "inlined into the walk")]
pub(super) fn violated(
    p: &mut Array<f32>,
    q: &mut Array<f32>,
    o: &mut Array<f32>,
    state: &mut Array<f32>,
    row: u32,
    column: u32,
    other: u32,
    weight: f32,
    rates: &Rates,
    sizes: &Sizes,
    shared: &mut SharedMemory<f32>,
    #[comptime] shape: Shape,
) {
    let old = old_sums(state, row, column, other, sizes, shape);
    let mut sums = Array::<f32>::new(3usize);
    if comptime!(shape.adagrad) {
        three_parts(p, q, o, &mut sums, shape);
        reduce(&mut sums, shared, comptime!(shape.sums()), shape);
    }
    step_three(p, q, o, state, &old, row, column, other, weight, sums[1], sums[2], rates, sizes, shape);
}

/// Adagrad's sums before a step.
#[derive(CubeType)]
struct Old {
    row: f32,
    column: f32,
    other: f32,
}

#[cube]
fn old_sums(
    state: &Array<f32>,
    row: u32,
    column: u32,
    other: u32,
    sizes: &Sizes,
    #[comptime] shape: Shape,
) -> Old {
    let mut old = Old { row: 0.0, column: 0.0, other: 0.0 };
    if comptime!(shape.adagrad) {
        old.row = state[row_sum(row, sizes, shape)];
        old.column = state[column_sum(column, sizes, shape)];
        old.other = state[column_sum(other, sizes, shape)];
    }
    old
}

#[cube]
fn column_sum(column: u32, sizes: &Sizes, #[comptime] shape: Shape) -> usize {
    if comptime!(shape.biased) { sizes.n_columns as usize + column as usize } else { column as usize }
}

#[cube]
fn bias_sum(column: u32, sizes: &Sizes, #[comptime] shape: Shape) -> usize {
    column_sum(column, sizes, shape) + sizes.n_columns as usize
}

#[cube]
fn row_sum(row: u32, sizes: &Sizes, #[comptime] shape: Shape) -> usize {
    column_sum(row, sizes, shape) + 2 * sizes.n_columns as usize
}

/// This unit's part of `p . (q - o)`, and for Adagrad of `|q - o|^2` and `|p|^2`.
#[cube]
fn three_parts(
    p: &Array<f32>,
    q: &Array<f32>,
    o: &Array<f32>,
    sums: &mut Array<f32>,
    #[comptime] shape: Shape,
) {
    sums[0] = 0.0;
    sums[1] = 0.0;
    sums[2] = 0.0;
    #[unroll]
    for k in 0..comptime!(shape.values()) {
        let apart = q[k] - o[k];
        sums[0] = fma(p[k], apart, sums[0]);
        if comptime!(shape.adagrad) {
            sums[1] = fma(apart, apart, sums[1]);
            sums[2] = fma(p[k], p[k], sums[2]);
        }
    }
}

/// Moves three rows and two biases by slope `z`; `apart` is `|q - o|^2`, `square` is `|p|^2`.
#[cube]
#[expect(clippy::too_many_arguments, reason = "inlined into the walk")]
fn step_three(
    p: &mut Array<f32>,
    q: &mut Array<f32>,
    o: &mut Array<f32>,
    state: &mut Array<f32>,
    old: &Old,
    row: u32,
    column: u32,
    other: u32,
    z: f32,
    apart: f32,
    square: f32,
    rates: &Rates,
    sizes: &Sizes,
    #[comptime] shape: Shape,
) {
    let mut s_row = rates.rate;
    let mut s_column = rates.rate;
    let mut s_other = rates.rate;
    if comptime!(shape.adagrad) {
        let mean = z * z / comptime!(shape.dim as f32);
        let row_new = old.row + mean * apart;
        let column_new = old.column + mean * square;
        let other_new = old.other + mean * square;
        state[row_sum(row, sizes, shape)] = row_new;
        state[column_sum(column, sizes, shape)] = column_new;
        state[column_sum(other, sizes, shape)] = other_new;
        s_row = rates.rate / f32::sqrt(row_new + rates.least);
        s_column = rates.rate / f32::sqrt(column_new + rates.least);
        s_other = rates.rate / f32::sqrt(other_new + rates.least);
    }
    #[unroll]
    for k in 0..comptime!(shape.values()) {
        let a = p[k];
        let b = q[k];
        let c = o[k];
        p[k] = fma(s_row * z, b - c, a * (1.0 - s_row * rates.l2));
        q[k] = fma(s_column * z, a, b * (1.0 - s_column * rates.l2));
        o[k] = fma(-s_other * z, a, c * (1.0 - s_other * rates.l2));
    }
    move_bias(state, column, z, rates, sizes, shape);
    move_bias(state, other, -z, rates, sizes, shape);
}

/// Steps of one row and one column for the logistic loss of `sign * x`.
#[cube]
#[expect(clippy::too_many_arguments, reason = "inlined into the walk")]
pub(super) fn single(
    p: &mut Array<f32>,
    q: &mut Array<f32>,
    state: &mut Array<f32>,
    row: u32,
    column: u32,
    sign: f32,
    rates: &Rates,
    sizes: &Sizes,
    shared: &mut SharedMemory<f32>,
    tally: &mut Tally,
    #[comptime] shape: Shape,
) {
    let old = old_sums(state, row, column, column, sizes, shape);
    let mut sums = Array::<f32>::new(3usize);
    sums[0] = 0.0;
    sums[1] = 0.0;
    sums[2] = 0.0;
    #[unroll]
    for k in 0..comptime!(shape.values()) {
        sums[0] = fma(p[k], q[k], sums[0]);
        if comptime!(shape.adagrad) {
            sums[1] = fma(q[k], q[k], sums[1]);
            sums[2] = fma(p[k], p[k], sums[2]);
        }
    }
    sums[0] += own_bias(state, column, shape);
    reduce(&mut sums, shared, comptime!(shape.sums()), shape);
    let x = sign * sums[0];
    if count(tally, x, row) {
        let z = slope(x);
        let mut s_row = rates.rate;
        let mut s_column = rates.rate;
        if comptime!(shape.adagrad) {
            let mean = z * z / comptime!(shape.dim as f32);
            let row_new = old.row + mean * sums[1];
            let column_new = old.column + mean * sums[2];
            state[row_sum(row, sizes, shape)] = row_new;
            state[column_sum(column, sizes, shape)] = column_new;
            s_row = rates.rate / f32::sqrt(row_new + rates.least);
            s_column = rates.rate / f32::sqrt(column_new + rates.least);
        }
        let pull = sign * z;
        #[unroll]
        for k in 0..comptime!(shape.values()) {
            let a = p[k];
            let b = q[k];
            p[k] = fma(s_row * pull, b, a * (1.0 - s_row * rates.l2));
            q[k] = fma(s_column * pull, a, b * (1.0 - s_column * rates.l2));
        }
        move_bias(state, column, pull, rates, sizes, shape);
    }
}

#[cube]
#[expect(clippy::collapsible_if, reason = "one of them is known when the kernel is compiled")]
fn move_bias(
    state: &mut Array<f32>,
    column: u32,
    z: f32,
    rates: &Rates,
    sizes: &Sizes,
    #[comptime] shape: Shape,
) {
    if comptime!(shape.biased) {
        if UNIT_POS == 0 {
            let mut rate = rates.rate;
            if comptime!(shape.adagrad) {
                let at = bias_sum(column, sizes, shape);
                let sum = state[at] + z * z;
                state[at] = sum;
                rate = rates.rate / f32::sqrt(sum + rates.bias_least);
            }
            let old = state[column as usize];
            state[column as usize] = old + rate * (z - rates.bias_l2 * old);
        }
    }
}
