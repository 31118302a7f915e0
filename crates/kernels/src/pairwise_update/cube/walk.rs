//! The walk: a cube (a work group) visits the entries of a cell one after the other, its units side by side along a row.
//!
//! A unit holds values `unit, unit + units, ..` of the row and of both columns in registers, and reads and writes no
//! others, so nothing has to be made visible to a neighbour; what units have in common is summed by a plane's own
//! instructions or in shared memory, and every unit then goes the same way. A bias is unit 0's. Adagrad's sums are read by
//! all units before they meet in a sum and written by all after it, each the same number.

use cubecl::prelude::*;

use super::draw::{CELL_WORDS, NONE};

/// Words of a cell's result: loss (f32), samples, skipped, the row that is not finite or [`NONE`].
pub(super) const STAT_WORDS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Loss {
    Bpr,
    Warp,
    Logistic,
}

/// What a walk is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Shape {
    pub(super) dim: usize,
    /// Units of a cube: a power of two.
    pub(super) units: usize,
    /// The units are one plane.
    pub(super) plane: bool,
    pub(super) loss: Loss,
    pub(super) adagrad: bool,
    pub(super) biased: bool,
    /// Rows, columns lie in a scratch table at the places that `places` gives them.
    pub(super) placed: [bool; 2],
}

impl Shape {
    /// Values of a row that a unit holds.
    fn values(self) -> usize {
        self.dim.div_ceil(self.units)
    }

    /// As many of them as every unit has.
    fn whole(self) -> usize {
        self.dim / self.units
    }

    fn has_rest(self) -> bool {
        !self.dim.is_multiple_of(self.units)
    }

    fn rows_placed(self) -> bool {
        self.placed[0]
    }

    fn columns_placed(self) -> bool {
        self.placed[1]
    }

    fn is(self, loss: Loss) -> bool {
        self.loss == loss
    }

    fn steps(self) -> usize {
        self.units.ilog2() as usize
    }

    /// Sums that a step needs: a score, and for Adagrad two squares.
    fn sums(self) -> usize {
        if self.adagrad { 3 } else { 1 }
    }

    fn shared(self) -> usize {
        if self.plane { 1 } else { self.sums() * self.units }
    }
}

/// The numbers of a step.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Rates {
    rate: f32,
    l2: f32,
    bias_l2: f32,
    /// What Adagrad's sums begin with: of rows and columns, of biases.
    least: f32,
    bias_least: f32,
    /// The harmonic number of all columns.
    harmonic: f32,
}

/// Where things are.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Sizes {
    n_rows: u32,
    n_columns: u32,
    /// Places that the scratch tables begin at.
    first_row: u32,
    first_column: u32,
    n_cells: u32,
    /// Where the results of the launch's cells begin.
    first_stat: u32,
    per_positive: u32,
    /// Draws of a sample: 1, and for WARP as many as it may need.
    draws_each: u32,
}

/// Visits a cell's entries.
///
/// `state` holds the biases, then Adagrad's sums of columns, of biases, of rows, as far as there are any; `negatives` the
/// draws of each sample in turn.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel's operands and numbers")]
pub(super) fn walk_kernel(
    rows: &mut Array<f32>,
    columns: &mut Array<f32>,
    state: &mut Array<f32>,
    entries: &Array<u32>,
    negatives: &Array<u32>,
    cells: &Array<u32>,
    places: &Array<u32>,
    stats: &mut Array<u32>,
    rates: Rates,
    sizes: Sizes,
    #[comptime] shape: Shape,
) {
    let mut shared = SharedMemory::<f32>::new(comptime!(shape.shared()));
    let mut p = Array::<f32>::new(comptime!(shape.values()));
    let mut q = Array::<f32>::new(comptime!(shape.values()));
    let mut o = Array::<f32>::new(comptime!(shape.values()));
    let mut tally = Tally { loss: 0.0, lost: 0.0, samples: 0u32, skipped: 0u32, bad: NONE.runtime() };

    let cell = CUBE_POS;
    if cell < sizes.n_cells as usize {
        let begin = cells[cell * CELL_WORDS];
        let end = cells[cell * CELL_WORDS + 1];
        let before = cells[cell * CELL_WORDS + 2];
        let mut row = NONE.runtime();
        let mut row_at = 0usize;
        let mut at = begin;
        while at < end {
            let next = entries[at as usize * 2];
            let column = entries[at as usize * 2 + 1];
            if next != row {
                if row != NONE {
                    store(rows, row_at, &p, shape);
                }
                row = next;
                row_at = row_place(places, row, &sizes, shape) * comptime!(shape.dim);
                load(rows, row_at, &mut p, shape);
            }
            let column_at = column_place(places, column, &sizes, shape) * comptime!(shape.dim);
            load(columns, column_at, &mut q, shape);
            if comptime!(shape.is(Loss::Logistic)) {
                single(&mut p, &mut q, state, row, column, 1.0, &rates, &sizes, &mut shared, &mut tally, shape);
            }
            for n in 0..sizes.per_positive {
                let sample = (before + at - begin) * sizes.per_positive + n;
                if comptime!(shape.is(Loss::Warp)) {
                    let own = dot_to(&p, &q, state, column, &mut shared, shape);
                    tally.samples += 1;
                    if !is_finite(own) {
                        tally.bad = row;
                    }
                    let mut t = select(is_finite(own), 0u32, sizes.draws_each);
                    while t < sizes.draws_each {
                        let other = negatives[(sample * sizes.draws_each + t) as usize];
                        if other == NONE {
                            tally.skipped += 1;
                            t += 1;
                        } else {
                            let other_at = column_place(places, other, &sizes, shape) * comptime!(shape.dim);
                            load(columns, other_at, &mut o, shape);
                            let apart = own - dot_to(&p, &o, state, other, &mut shared, shape);
                            if !is_finite(apart) {
                                tally.bad = row;
                                t = sizes.draws_each;
                            } else if apart < 1.0 {
                                let rank = u32::max((sizes.n_columns - 1) / (t + 1), 1u32);
                                let weight = harmonic(rank) / rates.harmonic;
                                add_loss(&mut tally, weight * (1.0 - apart));
                                violated(
                                    &mut p, &mut q, &mut o, state, row, column, other, weight, &rates, &sizes,
                                    &mut shared, shape,
                                );
                                store(columns, other_at, &o, shape);
                                t = sizes.draws_each;
                            } else {
                                t += 1;
                            }
                        }
                    }
                } else {
                    let other = negatives[sample as usize];
                    if other == NONE {
                        tally.skipped += 1;
                    } else {
                        let other_at = column_place(places, other, &sizes, shape) * comptime!(shape.dim);
                        load(columns, other_at, &mut o, shape);
                        if comptime!(shape.is(Loss::Logistic)) {
                            single(
                                &mut p, &mut o, state, row, other, -1.0, &rates, &sizes, &mut shared, &mut tally,
                                shape,
                            );
                        } else {
                            pair(
                                &mut p, &mut q, &mut o, state, row, column, other, &rates, &sizes, &mut shared,
                                &mut tally, shape,
                            );
                        }
                        store(columns, other_at, &o, shape);
                    }
                }
            }
            store(columns, column_at, &q, shape);
            at = select(tally.bad == NONE, at + 1, end);
        }
        if row != NONE {
            store(rows, row_at, &p, shape);
        }
        if UNIT_POS == 0 {
            let to = (sizes.first_stat as usize + cell) * STAT_WORDS;
            stats[to] = u32::reinterpret(tally.loss);
            stats[to + 1] = tally.samples;
            stats[to + 2] = tally.skipped;
            stats[to + 3] = tally.bad;
        }
    }
}

/// What a cell did.
#[derive(CubeType)]
struct Tally {
    /// Kahan's sum of losses, and what its last addition lost.
    loss: f32,
    lost: f32,
    samples: u32,
    skipped: u32,
    /// The row that is not finite.
    bad: u32,
}

#[cube]
fn add_loss(tally: &mut Tally, loss: f32) {
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
fn is_finite(x: f32) -> bool {
    (u32::reinterpret(x) & 0x7f80_0000) != 0x7f80_0000
}

/// Steps of a row, a positive and a negative for BPR.
#[cube]
#[expect(clippy::too_many_arguments, reason = "inlined into the walk")]
fn pair(
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
    if comptime!(shape.biased) {
        if UNIT_POS == 0 {
            sums[0] += state[column as usize] - state[other as usize];
        }
    }
    reduce(&mut sums, shared, comptime!(shape.sums()), shape);
    if count(tally, sums[0], row) {
        let z = slope(sums[0]);
        step_three(p, q, o, state, &old, row, column, other, z, sums[1], sums[2], rates, sizes, shape);
    }
}

/// Steps of a row, a positive and a negative by WARP's weight.
#[cube]
#[expect(clippy::too_many_arguments, reason = "inlined into the walk")]
fn violated(
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
    if comptime!(shape.biased) {
        sizes.n_columns as usize + column as usize
    } else {
        column as usize
    }
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
fn single(
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
    if comptime!(shape.biased) {
        if UNIT_POS == 0 {
            sums[0] += state[column as usize];
        }
    }
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

/// `p . q + b`, the same for every unit.
#[cube]
fn dot_to(
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
    if comptime!(shape.biased) {
        if UNIT_POS == 0 {
            sums[0] += state[column as usize];
        }
    }
    reduce(&mut sums, shared, 1usize, shape);
    sums[0]
}

/// Replaces `n` numbers of each unit by their sums over all units, added in one order.
#[cube]
fn reduce(
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
            half = half / 2;
        }
        #[unroll]
        for at in 0..n {
            sums[at] = shared[at * comptime!(shape.units)];
        }
        // Nobody writes the next sums before all have read these.
        sync_cube();
    }
}

/// The `k`-th harmonic number, to 0.6% for `k` = 1 and better beyond.
#[cube]
fn harmonic(k: u32) -> f32 {
    let k = f32::cast_from(k);
    f32::ln(k) + 0.577_215_7 + 0.5 / k - 1.0 / (12.0 * k * k)
}

#[cube]
fn row_place(places: &Array<u32>, row: u32, sizes: &Sizes, #[comptime] shape: Shape) -> usize {
    if comptime!(shape.rows_placed()) {
        (places[row as usize] - sizes.first_row) as usize
    } else {
        row as usize
    }
}

#[cube]
fn column_place(places: &Array<u32>, column: u32, sizes: &Sizes, #[comptime] shape: Shape) -> usize {
    if comptime!(shape.columns_placed()) {
        (places[(sizes.n_rows + column) as usize] - sizes.first_column) as usize
    } else {
        column as usize
    }
}

/// Reads this unit's values of the row that begins at `at`; zeros past its end.
#[cube]
fn load(table: &Array<f32>, at: usize, into: &mut Array<f32>, #[comptime] shape: Shape) {
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
fn store(table: &mut Array<f32>, at: usize, from: &Array<f32>, #[comptime] shape: Shape) {
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
