//! Negatives of a launch's samples: they hang on no factor, so all are drawn before the walk, a unit each.

use cubecl::prelude::*;

use crate::{
    negative::cube::pick_weighted,
    pairwise_update::OnPositive,
    philox::cube::{CubeDraws, below, block},
};

/// No column, no row.
pub(super) const NONE: u32 = u32::MAX;

/// Words that describe what a launch walks of a cell: the first entry, the one past the last, how many entries the launch
/// has before them, the first of the cell's columns in the pool, how many there are, and the address of the first entry's
/// first sample in two words.
pub(super) const CELL_WORDS: usize = 7;

/// Draws that are positives of their row before a negative is given up.
const MAX_TRIES: u32 = 16;

/// How negatives are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rule {
    /// By weight, or alike.
    pub(super) weighted: bool,
    pub(super) on_positive: OnPositive,
}

impl Rule {
    fn tries(self) -> u32 {
        if self.on_positive == OnPositive::Redraw { MAX_TRIES } else { 1 }
    }

    fn keeps(self) -> bool {
        self.on_positive == OnPositive::Keep
    }
}

/// Writes a column, or [`NONE`], for each of `draws_each` draws of each sample of the launch; a unit one.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel's operands and numbers")]
pub(super) fn draw_kernel(
    entries: &Array<u32>,
    pool: &Array<u32>,
    cells: &Array<u32>,
    negatives: &mut Array<u32>,
    draws: CubeDraws,
    n_columns: u32,
    n_cells: u32,
    per_positive: u32,
    draws_each: u32,
    #[comptime] rule: Rule,
) {
    if ABSOLUTE_POS < negatives.len() {
        let sample = ABSOLUTE_POS as u32 / draws_each;
        let t = ABSOLUTE_POS as u32 % draws_each;
        let entry = sample / per_positive;
        // The last cell that begins at or before the entry.
        let mut low = 0u32;
        let mut high = n_cells;
        while low + 1 < high {
            let middle = low + (high - low) / 2;
            if cells[middle as usize * CELL_WORDS + 2] <= entry {
                low = middle;
            } else {
                high = middle;
            }
        }
        let cell = low as usize * CELL_WORDS;
        let before = cells[cell + 2];
        let at = cells[cell] + entry - before;
        let in_cell = sample - before * per_positive;
        let address_low = cells[cell + 5] + in_cell;
        let address_high = cells[cell + 6] + select(address_low < in_cell, 1u32, 0u32);
        negatives[ABSOLUTE_POS] = draw(
            entries,
            pool,
            cells[cell + 3],
            cells[cell + 4],
            &draws,
            n_columns,
            at,
            address_low,
            address_high,
            t,
            rule,
        );
    }
}

/// Draws a negative for the positive at entry `at`, from try `t` on, by the rule for positives, out of the `n` columns of
/// the pool from `first` on; `low` and `high` are the sample's address.
#[cube]
#[expect(clippy::too_many_arguments, reason = "what a draw depends on")]
fn draw(
    entries: &Array<u32>,
    pool: &Array<u32>,
    first: u32,
    n: u32,
    draws: &CubeDraws,
    n_columns: u32,
    at: u32,
    low: u32,
    high: u32,
    t: u32,
    #[comptime] rule: Rule,
) -> u32 {
    let row = entries[at as usize * 2];
    let positive = entries[at as usize * 2 + 1];
    let mut words = Array::<u32>::new(4usize);
    let mut found = NONE.runtime();
    let mut next = t * comptime!(rule.tries());
    let end = next + comptime!(rule.tries());
    while next < end {
        let slot = if comptime!(rule.weighted) {
            // Two to a block.
            block(&mut words, draws, low, high, next / 2);
            let second = next % 2 == 1;
            let word_0 = select(second, words[2], words[0]);
            let word_1 = select(second, words[3], words[1]);
            pick_weighted(pool, word_0, word_1, n_columns + first, n_columns, n)
        } else {
            // Four to a block.
            block(&mut words, draws, low, high, next / 4);
            let place = next % 4;
            let even = select(place == 0, words[0], words[2]);
            let odd = select(place == 1, words[1], words[3]);
            below(select(place % 2 == 1, odd, even), n)
        };
        let other = pool[(first + slot) as usize];
        let refused = if comptime!(rule.keeps()) {
            other == positive
        } else {
            is_positive(entries, at, row, positive, other)
        };
        if refused {
            next += 1;
        } else {
            found = other;
            next = end;
        }
    }
    found
}

/// Whether `other` is a positive of `row`, whose entries stand around `at`, columns ascending.
///
/// Strides that double lead past it, halves back: the run's ends need not be known.
#[cube]
fn is_positive(entries: &Array<u32>, at: u32, row: u32, positive: u32, other: u32) -> bool {
    let right = other > positive;
    let n = select(right, entries.len() as u32 / 2 - at, at + 1);
    let mut low = 0u32;
    let mut high = 1u32;
    while is_before(entries, at, high, n, row, other, right) {
        low = high;
        high *= 2;
    }
    while low + 1 < high {
        let middle = low + (high - low) / 2;
        if is_before(entries, at, middle, n, row, other, right) {
            low = middle;
        } else {
            high = middle;
        }
    }
    let mut found = other == positive;
    if high < n {
        let place = select(right, at + high, at - high) as usize;
        found = found || (entries[place * 2] == row && entries[place * 2 + 1] == other);
    }
    found
}

/// Whether the entry `away` from `at` is one of `row` and lies before `other`, seen from `at`.
#[cube]
fn is_before(entries: &Array<u32>, at: u32, away: u32, n: u32, row: u32, other: u32, right: bool) -> bool {
    let mut before = false;
    if away < n {
        let place = select(right, at + away, at - away) as usize;
        let column = entries[place * 2 + 1];
        before = entries[place * 2] == row && select(right, column < other, column > other);
    }
    before
}
