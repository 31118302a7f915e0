//! Solving one row against fixed item factors, for users that a model has no parameters for.
//!
//! [`solve`] and [`ridge_with_bias`] are exact: normal equations in f64 and a Cholesky factorization. [`pairwise`]
//! minimises the pairwise objective and [`logistic`] that of each pair by itself, both convex with the items fixed. All
//! of them visit the history in ascending order of its items, so the result depends on the history alone.

use recmill_kernels::Table;

use super::pair_factors::FoldIn;
use crate::{ItemIndex, Result};

/// Steps towards the minimum of an objective that has no closed form.
const STEPS: usize = 40;

/// Memory for one row's system, used again from row to row.
#[derive(Debug, Default)]
pub struct SolveScratch {
    matrix: Vec<f64>,
    right: Vec<f64>,
    row: Vec<f32>,
    positives: Vec<f32>,
    margins: Vec<f64>,
    weights: Vec<f64>,
}

/// The part of a row's system that does not depend on its pairs.
pub(crate) struct Problem<'a> {
    /// `[dim, dim]`.
    pub(crate) gram: &'a [f32],
    pub(crate) gram_weight: f32,
    pub(crate) ridge: f32,
}

/// Writes the `x` of `(gram_weight gram + Σ a y yᵀ + ridge I) x = Σ b y` for pairs `(item, (a, b))`.
pub(crate) fn solve(
    problem: &Problem<'_>,
    items: &Table,
    pairs: impl Iterator<Item = (ItemIndex, (f32, f32))>,
    scratch: &mut SolveScratch,
    x: &mut [f32],
) -> Result<()> {
    let dim = items.dim();
    scratch.reset(dim);
    for (sum, value) in scratch.matrix.iter_mut().zip(problem.gram) {
        *sum = f64::from(problem.gram_weight) * f64::from(*value);
    }
    for (item, (a, b)) in pairs {
        items.read_row(u64::from(item.0), &mut scratch.row)?;
        add_outer(&mut scratch.matrix, &scratch.row, f64::from(a));
        add(&mut scratch.right, &scratch.row, f64::from(b));
    }
    add_ridge(&mut scratch.matrix, dim, f64::from(problem.ridge));
    factorize(&mut scratch.matrix, dim);
    substitute(&scratch.matrix, &mut scratch.right)?;
    for (out, value) in x.iter_mut().zip(&scratch.right) {
        *out = *value as f32;
    }
    Ok(())
}

/// Writes the `x` and returns the bias `c` that minimise `Σ (t - c - x·y)² + ridge (c² + |x|²)` for pairs `(item, t)`.
pub(crate) fn ridge_with_bias(
    items: &Table,
    pairs: impl Iterator<Item = (ItemIndex, f32)>,
    ridge: f32,
    scratch: &mut SolveScratch,
    x: &mut [f32],
) -> Result<f32> {
    let dim = items.dim();
    scratch.reset(dim + 1);
    scratch.row[dim] = 1.0;
    for (item, target) in pairs {
        items.read_row(u64::from(item.0), &mut scratch.row[..dim])?;
        add_outer(&mut scratch.matrix, &scratch.row, 1.0);
        add(&mut scratch.right, &scratch.row, f64::from(target));
    }
    add_ridge(&mut scratch.matrix, dim + 1, f64::from(ridge));
    factorize(&mut scratch.matrix, dim + 1);
    substitute(&scratch.matrix, &mut scratch.right)?;
    for (out, value) in x.iter_mut().zip(&scratch.right) {
        *out = *value as f32;
    }
    Ok(scratch.right[dim] as f32)
}

/// Items that stand for the whole catalogue in the pairwise objective: evenly spread over it, gathered once.
#[derive(Debug)]
pub(crate) struct Negatives {
    items: Vec<u32>,
    /// `[items.len(), dim]`.
    rows: Vec<f32>,
    bias: Vec<f32>,
}

impl Negatives {
    pub(crate) fn gather(items: &Table, bias: &[f32], at_most: usize) -> Result<Self> {
        let n_items = items.rows() as usize;
        let n = at_most.min(n_items);
        let chosen: Vec<u32> = (0..n).map(|at| (at * n_items / n) as u32).collect();
        let mut rows = vec![0.0; n * items.dim()];
        for (&item, row) in chosen.iter().zip(rows.chunks_exact_mut(items.dim())) {
            items.read_row(u64::from(item), row)?;
        }
        let bias = chosen.iter().map(|&item| bias[item as usize]).collect();
        Ok(Self { items: chosen, rows, bias })
    }
}

/// Writes the `x` that minimises `Σ_i mean_j -ln σ(x·(y_i - y_j) + b_i - b_j) + n regularization / 2 |x|²` over the `n`
/// items `i` of positive value in the history and the negatives `j`, which where they are verified are not in it.
///
/// The second derivative of the loss is at most 1/4, so steps with that in place of the true curvature always descend
/// (Böhning, Lindsay 1988); the matrix is factorized once, and a step costs a pass over the pairs' margins.
pub(crate) fn pairwise(
    into: &FoldIn<'_>,
    regularization: f64,
    history: &[(ItemIndex, f32)],
    scratch: &mut SolveScratch,
    x: &mut [f32],
) -> Result<()> {
    let FoldIn { items, bias, negatives, verify_negatives } = *into;
    let dim = items.dim();
    x.fill(0.0);
    scratch.reset(dim);
    let SolveScratch { matrix, right, row, positives, margins, weights } = scratch;
    let taken = |item| verify_negatives && has(history, item);
    let free = negatives.items.iter().filter(|&&item| !taken(item)).count() as f64;
    let n = liked(history).count();
    if n == 0 || free == 0.0 {
        return Ok(());
    }
    read_rows(items, liked(history), positives)?;
    bound(matrix, (right, row), positives, negatives, taken);
    add_ridge(matrix, dim, n as f64 * regularization + 1e-6);
    factorize(matrix, dim);
    for _ in 0..STEPS {
        right.fill(0.0);
        add(right, x, -(n as f64) * regularization);
        margins.clear();
        margins.extend(
            negatives.rows.chunks_exact(dim).zip(&negatives.bias).map(|(y, b)| dot(x, y) + f64::from(*b)),
        );
        weights.clear();
        weights.resize(margins.len(), 0.0);
        for (y, item) in positives.chunks_exact(dim).zip(liked(history)) {
            let score = dot(x, y) + f64::from(bias[item.at()]);
            let mut of_positive = 0.0;
            for ((margin, weight), &item) in margins.iter().zip(&mut *weights).zip(&negatives.items) {
                if !taken(item) {
                    let wrong = 1.0 / (1.0 + (score - margin).exp()) / free;
                    *weight += wrong;
                    of_positive += wrong;
                }
            }
            add(right, y, of_positive);
        }
        for (y, weight) in negatives.rows.chunks_exact(dim).zip(&*weights) {
            add(right, y, -weight);
        }
        substitute(matrix, right)?;
        for (x, step) in x.iter_mut().zip(&*right) {
            *x += *step as f32;
        }
    }
    Ok(())
}

/// Writes the `x` that minimises `Σ_i -ln σ(s_i) + n per_positive mean_j -ln σ(-s_j) + n (1 + per_positive) regularization
/// / 2 |x|²` with `s = x·y + b`, over the `n` items `i` of positive value in the history and the negatives `j`, which where
/// they are verified are not in it; by steps as [`pairwise`] does.
pub(crate) fn logistic(
    into: &FoldIn<'_>,
    regularization: f64,
    per_positive: f64,
    history: &[(ItemIndex, f32)],
    scratch: &mut SolveScratch,
    x: &mut [f32],
) -> Result<()> {
    let FoldIn { items, bias, negatives, verify_negatives } = *into;
    let dim = items.dim();
    x.fill(0.0);
    scratch.reset(dim);
    let SolveScratch { matrix, right, positives, .. } = scratch;
    let free = || {
        let rows = negatives.rows.chunks_exact(dim).zip(&negatives.bias).zip(&negatives.items);
        rows.filter(|&(_, &item)| !(verify_negatives && has(history, item))).map(|((y, &bias), _)| (y, bias))
    };
    let (n, n_free) = (liked(history).count() as f64, free().count() as f64);
    if n == 0.0 || n_free == 0.0 {
        return Ok(());
    }
    let weight = n * per_positive / n_free;
    let ridge = n * (1.0 + per_positive) * regularization;
    read_rows(items, liked(history), positives)?;
    positives.chunks_exact(dim).for_each(|y| add_outer(matrix, y, 0.25));
    free().for_each(|(y, _)| add_outer(matrix, y, 0.25 * weight));
    add_ridge(matrix, dim, ridge + 1e-6);
    factorize(matrix, dim);
    for _ in 0..STEPS {
        right.fill(0.0);
        add(right, x, -ridge);
        for (y, item) in positives.chunks_exact(dim).zip(liked(history)) {
            let score = dot(x, y) + f64::from(bias[item.at()]);
            add(right, y, 1.0 / (1.0 + score.exp()));
        }
        for (y, bias) in free() {
            let score = dot(x, y) + f64::from(bias);
            add(right, y, -weight / (1.0 + (-score).exp()));
        }
        substitute(matrix, right)?;
        for (x, step) in x.iter_mut().zip(&*right) {
            *x += *step as f32;
        }
    }
    Ok(())
}

/// Returns the items of positive value in a history.
fn liked(history: &[(ItemIndex, f32)]) -> impl Iterator<Item = ItemIndex> {
    history.iter().filter(|&&(_, value)| value > 0.0).map(|&(item, _)| item)
}

/// Returns whether an item is in a history, whose items ascend.
fn has(history: &[(ItemIndex, f32)], item: u32) -> bool {
    history.binary_search_by_key(&item, |&(taken, _)| taken.0).is_ok()
}

/// Fills `out` with the factors of `of`, `[n, dim]`.
fn read_rows(items: &Table, of: impl Iterator<Item = ItemIndex>, out: &mut Vec<f32>) -> Result<()> {
    out.clear();
    for item in of {
        let start = out.len();
        out.resize(start + items.dim(), 0.0);
        items.read_row(u64::from(item.0), &mut out[start..])?;
    }
    Ok(())
}

/// Writes `1/4 Σ_i mean_j (y_i - y_j)(y_i - y_j)ᵀ` to the lower triangle of `matrix`; `mean` and `centred` are scratch.
fn bound(
    matrix: &mut [f64],
    (mean, centred): (&mut [f64], &mut [f32]),
    positives: &[f32],
    negatives: &Negatives,
    taken: impl Fn(u32) -> bool,
) {
    let dim = mean.len();
    // Σ_i mean_j (y_i - y_j)(..)ᵀ = Σ_i (y_i - m)(y_i - m)ᵀ + n mean_j (y_j - m)(y_j - m)ᵀ  with m = mean_j y_j
    let n = (positives.len() / dim) as f64;
    let free = || negatives.rows.chunks_exact(dim).zip(&negatives.items).filter(|&(_, &item)| !taken(item));
    let n_free = free().count() as f64;
    mean.fill(0.0);
    free().for_each(|(y, _)| add(mean, y, 1.0 / n_free));
    let mut add_centred = |y: &[f32], weight: f64| {
        for ((out, y), mean) in centred.iter_mut().zip(y).zip(&*mean) {
            *out = (f64::from(*y) - mean) as f32;
        }
        add_outer(matrix, centred, weight);
    };
    positives.chunks_exact(dim).for_each(|y| add_centred(y, 0.25));
    free().for_each(|(y, _)| add_centred(y, 0.25 * n / n_free));
}

impl SolveScratch {
    fn reset(&mut self, dim: usize) {
        self.matrix.clear();
        self.matrix.resize(dim * dim, 0.0);
        self.right.clear();
        self.right.resize(dim, 0.0);
        self.row.clear();
        self.row.resize(dim, 0.0);
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

fn add(sums: &mut [f64], y: &[f32], weight: f64) {
    for (sum, value) in sums.iter_mut().zip(y) {
        *sum += weight * f64::from(*value);
    }
}

/// Adds `weight y yᵀ` to the lower triangle.
fn add_outer(matrix: &mut [f64], y: &[f32], weight: f64) {
    for (r, sums) in matrix.chunks_exact_mut(y.len()).enumerate() {
        add(&mut sums[..=r], y, weight * f64::from(y[r]));
    }
}

fn add_ridge(matrix: &mut [f64], dim: usize, ridge: f64) {
    for at in 0..dim {
        matrix[at * dim + at] += ridge;
    }
}

/// Replaces the lower triangle by its Cholesky factor.
///
/// A diagonal entry that rounding leaves at or below zero belongs to a direction that the history says nothing about;
/// its row of the solution is 0, as the least-norm solution has it.
fn factorize(matrix: &mut [f64], dim: usize) {
    for r in 0..dim {
        let (above, below) = matrix.split_at_mut(r * dim);
        let row = &mut below[..dim];
        for c in 0..r {
            let other = &above[c * dim..c * dim + c + 1];
            let value = row[c] - sum_of_products(&row[..c], &other[..c]);
            row[c] = if other[c] > 0.0 { value / other[c] } else { 0.0 };
        }
        row[r] = (row[r] - sum_of_products(&row[..r], &row[..r])).max(0.0).sqrt();
    }
}

/// Solves with the factor that [`factorize`] left; `right` becomes the solution.
fn substitute(factor: &[f64], right: &mut [f64]) -> Result<()> {
    let dim = right.len();
    for r in 0..dim {
        let (row, diagonal) = (&factor[r * dim..r * dim + r], factor[r * dim + r]);
        let value = right[r] - sum_of_products(row, &right[..r]);
        right[r] = if diagonal > 0.0 { value / diagonal } else { 0.0 };
    }
    for r in (0..dim).rev() {
        let (row, diagonal) = (&factor[r * dim..r * dim + r], factor[r * dim + r]);
        let value = if diagonal > 0.0 { right[r] / diagonal } else { 0.0 };
        right[r] = value;
        for (right, l) in right.iter_mut().zip(row) {
            *right -= l * value;
        }
    }
    if let Some(at) = right.iter().position(|value| !value.is_finite()) {
        let (op, what) = ("fold_in", "solution");
        return Err(recmill_kernels::Error::NotFinite { op, what, row: at as u64 }.into());
    }
    Ok(())
}

/// One order of summation, with eight sums so that the processor can add them side by side.
fn sum_of_products(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0f64; 8];
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use recmill_kernels::{Device, Table, philox::Draws};

    use super::*;

    const DIM: usize = 5;
    const N_ITEMS: usize = 30;

    /// Moves from the minimum found, along each axis, do not lower the objective: its slope is nothing there.
    fn assert_minimum(x: &[f32], objective: impl Fn(&[f64]) -> f64) {
        let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        assert!(x.iter().any(|x| x.abs() > 0.05), "{x:?}");
        for d in 0..DIM {
            let moved = |by: f64| {
                let mut x = x.clone();
                x[d] += by;
                objective(&x)
            };
            let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!(slope.abs() < 1e-3, "slope {slope} along {d}");
        }
    }

    #[test]
    fn what_is_found_step_by_step_minimises_the_objective_that_is_stated() {
        let numbers = |key: u64, n: usize| -> Vec<f32> {
            let bits = Draws::new(key, 0);
            (0..n).map(|at| bits.block(at as u64)[0] as f32 / u32::MAX as f32 * 2.0 - 1.0).collect()
        };
        let (rows, bias) = (numbers(1, N_ITEMS * DIM), numbers(2, N_ITEMS));
        let items = Table::from_f32(&rows, DIM, Device::Cpu, "a test").unwrap();
        let negatives = Negatives::gather(&items, &bias, 12).unwrap();
        // One of the history stands for the catalogue too, and one is disliked.
        let history =
            [(0, 1.0), (4, 2.0), (7, -1.0), (21, 1.0)].map(|(item, value)| (ItemIndex(item), value));
        let liked = [0usize, 4, 21];
        let score = |x: &[f64], item: usize| {
            let y = &rows[item * DIM..][..DIM];
            x.iter().zip(y).map(|(x, y)| x * f64::from(*y)).sum::<f64>() + f64::from(bias[item])
        };
        let loss = |margin: f64| (-margin).exp().ln_1p();
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>();
        let mut x = [0.0; DIM];
        let (lambda, per_positive) = (0.05, 3.0);

        for verify_negatives in [true, false] {
            let into = FoldIn { items: &items, bias: &bias, negatives: &negatives, verify_negatives };
            let had = |item: &usize| verify_negatives && [0, 4, 7, 21].contains(item);
            let free: Vec<usize> = (0..12).map(|at| at * N_ITEMS / 12).filter(|item| !had(item)).collect();

            pairwise(&into, lambda, &history, &mut SolveScratch::default(), &mut x).unwrap();
            assert_minimum(&x, |x| {
                let pairs = liked.iter().flat_map(|&i| free.iter().map(move |&j| (i, j)));
                let mean =
                    pairs.map(|(i, j)| loss(score(x, i) - score(x, j))).sum::<f64>() / free.len() as f64;
                mean + 3.0 * lambda / 2.0 * norm(x)
            });

            logistic(&into, lambda, per_positive, &history, &mut SolveScratch::default(), &mut x).unwrap();
            assert_minimum(&x, |x| {
                let positive: f64 = liked.iter().map(|&i| loss(score(x, i))).sum();
                let negative: f64 = free.iter().map(|&j| loss(-score(x, j))).sum();
                let weight = 3.0 * per_positive / free.len() as f64;
                positive + weight * negative + 3.0 * (1.0 + per_positive) * lambda / 2.0 * norm(x)
            });
        }
    }
}
