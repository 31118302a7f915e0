//! The walk: a cube (a work group) visits the entries of a cell one after the other, its units side by side along a row.
//!
//! A unit holds values `unit, unit + units, ..` of the row and of both columns in registers, and reads and writes no
//! others, so nothing has to be made visible to a neighbour; what units have in common is summed by a plane's own
//! instructions or in shared memory, and every unit then goes the same way. A bias is unit 0's. Adagrad's sums are read by
//! all units before they meet in a sum and written by all after it, each the same number.

use cubecl::prelude::*;

use super::{
    draw::{CELL_WORDS, NONE},
    row::{column_place, dot_to, load, row_place, store},
    shape::{Loss, Rates, Shape, Sizes},
    step::{Tally, add_loss, is_finite, pair, single, violated},
};

/// Words of a cell's result: loss (f32), samples, skipped, the row that is not finite or [`NONE`].
pub(super) const STAT_WORDS: usize = 4;

/// Visits a cell's entries.
///
/// `state` holds the biases, then Adagrad's sums of columns, of biases, of rows, as far as there are any; `negatives` the
/// draws of each sample in turn.
#[cube(launch_unchecked)]
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
                single(
                    &mut p,
                    &mut q,
                    state,
                    row,
                    column,
                    1.0,
                    &rates,
                    &sizes,
                    &mut shared,
                    &mut tally,
                    shape,
                );
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
                                    &mut p,
                                    &mut q,
                                    &mut o,
                                    state,
                                    row,
                                    column,
                                    other,
                                    weight,
                                    &rates,
                                    &sizes,
                                    &mut shared,
                                    shape,
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
                                &mut p,
                                &mut o,
                                state,
                                row,
                                other,
                                -1.0,
                                &rates,
                                &sizes,
                                &mut shared,
                                &mut tally,
                                shape,
                            );
                        } else {
                            pair(
                                &mut p,
                                &mut q,
                                &mut o,
                                state,
                                row,
                                column,
                                other,
                                &rates,
                                &sizes,
                                &mut shared,
                                &mut tally,
                                shape,
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

/// The `k`-th harmonic number, to 0.6% for `k` = 1 and better beyond.
#[cube]
fn harmonic(k: u32) -> f32 {
    let k = f32::cast_from(k);
    f32::ln(k) + 0.577_215_7 + 0.5 / k - 1.0 / (12.0 * k * k)
}
