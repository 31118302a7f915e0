//! Similarities on the CPU: a column's products with all others in one accumulator, a thread a column.

use rayon::prelude::*;

use super::{Neighbours, SimilarityOptions, weights::Weights};
use crate::SparseRows;

/// Columns whose lists are held apart before they are joined.
const BLOCK: usize = 4096;

/// Returns the list of every column.
pub(super) fn lists(
    by_column: SparseRows,
    by_row: SparseRows,
    weights: &Weights,
    options: &SimilarityOptions,
) -> Neighbours {
    let n_columns = by_column.n_rows();
    let mut out = Neighbours { indptr: vec![0], ..Neighbours::default() };
    for first in (0..n_columns).step_by(BLOCK) {
        let lists: Vec<Vec<(f32, u32)>> = (first..n_columns.min(first + BLOCK))
            .into_par_iter()
            .with_max_len(8)
            .map_init(
                || Scratch::new(n_columns),
                |scratch, column| list(by_column, by_row, weights, options, scratch, column),
            )
            .collect();
        lists.iter().for_each(|list| out.push(list));
    }
    out
}

/// What a thread keeps from column to column.
struct Scratch {
    /// `Σ w x x` of the column at hand with every other; all zero between columns.
    dots: Vec<f32>,
    /// Columns that have been reached, some of them twice.
    reached: Vec<u32>,
    best: Vec<(f32, u32)>,
}

impl Scratch {
    fn new(n_columns: usize) -> Self {
        Self { dots: vec![0.0; n_columns], reached: Vec::new(), best: Vec::new() }
    }
}

fn list(
    by_column: SparseRows,
    by_row: SparseRows,
    weights: &Weights,
    options: &SimilarityOptions,
    scratch: &mut Scratch,
    column: usize,
) -> Vec<(f32, u32)> {
    let (rows, values) = by_column.row(column);
    let additions: u64 =
        rows.iter().map(|&r| by_row.indptr[r as usize + 1] - by_row.indptr[r as usize]).sum();
    // Beyond this it is cheaper to look at every column once than to remember which were reached.
    let every = additions as usize > scratch.dots.len() / 8;
    let Scratch { dots, reached, best } = scratch;
    for (&row, &v) in rows.iter().zip(values) {
        let range = by_row.indptr[row as usize] as usize..by_row.indptr[row as usize + 1] as usize;
        let others = &by_row.indices[range.clone()];
        let scale = weights.rows[row as usize] * weights.transform.x(column, v);
        if !every {
            reached.extend(others.iter().filter(|&&other| dots[other as usize] == 0.0));
        }
        match &weights.values {
            None => others.iter().for_each(|&other| dots[other as usize] += scale),
            Some(values) => {
                let terms = others.iter().zip(&values[range]);
                terms.for_each(|(&other, &x)| dots[other as usize] += scale * x);
            }
        }
    }
    dots[column] = 0.0;

    let (own, others, shrink) = weights.sides(options);
    let own = own[column];
    let similarity = |other: usize, dot: f32| dot / (own * others[other] + shrink);
    let mut best = Best { k: options.k.min(dots.len()), floor: 0.0, found: std::mem::take(best) };
    if every {
        for (other, dot) in dots.iter_mut().enumerate().filter(|(_, dot)| **dot != 0.0) {
            best.offer(similarity(other, *dot), other as u32);
            *dot = 0.0;
        }
    } else {
        for other in reached.drain(..) {
            let dot = std::mem::take(&mut dots[other as usize]);
            if dot != 0.0 {
                best.offer(similarity(other as usize, dot), other);
            }
        }
    }
    let list = best.sorted().to_vec();
    scratch.best = best.found;
    scratch.best.clear();
    list
}

/// The `k` best of what is offered, by value and then by lower index, in any order of offers.
pub(super) struct Best {
    pub(super) k: usize,
    /// What is not above this cannot be among the best.
    pub(super) floor: f32,
    pub(super) found: Vec<(f32, u32)>,
}

impl Best {
    #[inline]
    pub(super) fn offer(&mut self, value: f32, column: u32) {
        // Not `>`: an equal value of a lower index may belong to the best, and NaN must come out to be reported.
        if value < self.floor || value <= 0.0 {
            return;
        }
        self.found.push((value, column));
        if self.found.len() >= 2 * self.k + 64 {
            self.found.select_nth_unstable_by(self.k - 1, Self::order);
            self.found.truncate(self.k);
            self.floor = self.found[self.k - 1].0;
        }
    }

    fn order(a: &(f32, u32), b: &(f32, u32)) -> std::cmp::Ordering {
        b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
    }

    pub(super) fn sorted(&mut self) -> &[(f32, u32)] {
        if self.found.len() > self.k {
            self.found.select_nth_unstable_by(self.k - 1, Self::order);
            self.found.truncate(self.k);
        }
        self.found.sort_unstable_by(Self::order);
        &self.found
    }
}
