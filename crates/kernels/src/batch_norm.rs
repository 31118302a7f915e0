//! Batch normalization of columns, and what follows it: with the statistics of the rows at hand, or with known ones; on the CPU.
//!
//! ```text
//! x̂ = (x - μ) / √(v + ε)          y = act(γ x̂ + β)          act = identity or max(0, ·)
//! in training:  μ = Σ_rows x / n   v = Σ_rows (x - μ)² / n
//!
//! g' = g where act passes, else 0   ∂γ = Σ g' x̂   ∂β = Σ g'   ∂x = γ / √(v + ε) (g' - ∂β / n - x̂ ∂γ / n)
//! ```
//!
//! | name                        | shape           | type |
//! |-----------------------------|-----------------|------|
//! | `x`, `y`, their gradients   | `[rows, width]` | f32  |
//! | `γ`, `β`, `μ`, `v`          | `[width]`       | f32  |
//!
//! # Cost
//! Memory-bound. Statistics and output: `x` read three times, `y` written; backward: `x`, `y`, `g` read twice, `∂x` written.
//!
//! # Determinism
//! The same bits for any number of threads and at every vector level: columns are summed in f32 over 64 rows, and in f64 over
//! those sums. With known statistics a row's result has the same bits alone and in any batch.
//!
//! NaN and infinity go into the column's statistics and so into all rows: a loss that is not finite shows them.
//!
//! # Source
//! Ioffe, Szegedy 2015, "Batch normalization", algorithms 1 and 2.

use rayon::prelude::*;

use crate::{
    Activation, Error, Result,
    simd::{self, Kernel, Level, Simd, dispatch},
};

const OP: &str = "batch_norm";
/// Rows that one task goes over.
const TASK_ROWS: usize = 64;

/// The parameters of the operation.
#[derive(Clone, Copy, Debug)]
pub struct BatchNorm<'a> {
    /// `γ`.
    pub scale: &'a [f32],
    /// `β`.
    pub shift: &'a [f32],
    /// `ε`; commonly 1e-5.
    pub epsilon: f32,
    /// What follows.
    pub activation: Activation,
}

/// Where the gradients of [`batch_norm`] go.
#[derive(Debug)]
pub struct BatchNormGradients<'a> {
    /// Of `x`.
    pub x: &'a mut [f32],
    /// Of `γ`.
    pub scale: &'a mut [f32],
    /// Of `β`.
    pub shift: &'a mut [f32],
}

/// The mean and the variance of each column.
#[derive(Clone, Copy, Debug)]
pub struct ColumnStatistics<'a> {
    /// `μ`.
    pub mean: &'a [f32],
    /// `v`.
    pub variance: &'a [f32],
}

/// Refuses `columns` that are not `width` long, and `values` that are not all of one number of rows of it.
pub(crate) fn check_columns(
    op: &'static str,
    width: usize,
    columns: &[(&'static str, usize)],
    values: &[(&'static str, usize)],
) -> Result<()> {
    if let Some(&(what, got)) = columns.iter().find(|&&(_, got)| got != width) {
        return Err(Error::Shape { op, what, expected: width, got });
    }
    let whole = values.first().map_or(0, |&(_, len)| len - len % width.max(1));
    match values.iter().find(|&&(_, got)| got != whole || (width == 0 && got > 0)) {
        Some(&(what, got)) => Err(Error::Shape { op, what, expected: whole, got }),
        None => Ok(()),
    }
}

impl BatchNorm<'_> {
    fn check(&self, columns: &[(&'static str, usize)], values: &[(&'static str, usize)]) -> Result<()> {
        let width = self.scale.len();
        check_columns(OP, width, &[("shift", self.shift.len())], &[])?;
        check_columns(OP, width, columns, values)
    }

    fn relu(&self) -> bool {
        self.activation == Activation::Relu
    }
}

/// Normalizes by the statistics of these rows, and returns those, too.
///
/// # Shapes
/// - `x`, `y`: `[rows, width]`; `mean`, `variance`: `[width]`, zeros for no rows
///
/// # Errors
/// [`Error::Shape`].
pub fn batch_norm(
    norm: &BatchNorm<'_>,
    x: &[f32],
    y: &mut [f32],
    mean: &mut [f32],
    variance: &mut [f32],
) -> Result<()> {
    norm.check(&[("mean", mean.len()), ("variance", variance.len())], &[("x", x.len()), ("y", y.len())])?;
    let (level, width) = (simd::level(), norm.scale.len());
    let share = 1.0 / (x.len() / width.max(1)).max(1) as f64;
    let rows = || x.par_chunks(TASK_ROWS * width.max(1));
    let sums = in_order(rows().map(|x| dispatch(level, Sums { x, width })));
    let average = |sums: &[f64], to: &mut [f32]| {
        to.fill(0.0);
        to.iter_mut().zip(sums).for_each(|(to, sum)| *to = (sum * share) as f32);
    };
    average(&sums, mean);
    let squares = in_order(rows().map(|x| dispatch(level, Squares { x, mean })));
    average(&squares, variance);
    apply(level, norm, x, ColumnStatistics { mean, variance }, y);
    Ok(())
}

/// Normalizes by statistics that are known.
///
/// # Shapes
/// - `x`, `y`: `[rows, width]`
///
/// # Errors
/// [`Error::Shape`].
pub fn normalize(
    norm: &BatchNorm<'_>,
    x: &[f32],
    statistics: ColumnStatistics<'_>,
    y: &mut [f32],
) -> Result<()> {
    let of = [("mean", statistics.mean.len()), ("variance", statistics.variance.len())];
    norm.check(&of, &[("x", x.len()), ("y", y.len())])?;
    apply(simd::level(), norm, x, statistics, y);
    Ok(())
}

/// Returns the gradients of [`batch_norm`], which gave `y` and the statistics.
///
/// # Shapes
/// - `x`, `y`, `gradient`, `into.x`: `[rows, width]`; the rest `[width]`
///
/// # Errors
/// [`Error::Shape`].
pub fn batch_norm_backward(
    norm: &BatchNorm<'_>,
    x: &[f32],
    statistics: ColumnStatistics<'_>,
    y: &[f32],
    gradient: &[f32],
    into: BatchNormGradients<'_>,
) -> Result<()> {
    let ColumnStatistics { mean, variance } = statistics;
    let columns = [
        ("mean", mean.len()),
        ("variance", variance.len()),
        ("the gradient of scale", into.scale.len()),
        ("the gradient of shift", into.shift.len()),
    ];
    let values =
        [("x", x.len()), ("y", y.len()), ("gradient", gradient.len()), ("the gradient of x", into.x.len())];
    norm.check(&columns, &values)?;
    let (level, width) = (simd::level(), norm.scale.len());
    let (task, relu) = (TASK_ROWS * width.max(1), norm.relu());
    let inverse = inverse_deviation(variance, norm.epsilon);
    let rows = x.par_chunks(task).zip(y.par_chunks(task)).zip(gradient.par_chunks(task));
    let sums = in_order(rows.map(|((x, y), gradient)| {
        dispatch(level, GradientSums { x, y, gradient, mean, inverse: &inverse, relu })
    }));
    let (of_scale, of_shift) = sums.split_at(sums.len() / 2);
    for (to, sums) in [(&mut *into.scale, of_scale), (&mut *into.shift, of_shift)] {
        to.fill(0.0);
        to.iter_mut().zip(sums).for_each(|(to, &sum)| *to = sum as f32);
    }
    let share = 1.0 / (x.len() / width.max(1)).max(1) as f32;
    let share_of = |sums: &[f32]| -> Vec<f32> { sums.iter().map(|sum| sum * share).collect() };
    let (of_scale, of_shift) = (share_of(into.scale), share_of(into.shift));
    let slope: Vec<f32> = norm.scale.iter().zip(&inverse).map(|(scale, inverse)| scale * inverse).collect();
    let rows = x.par_chunks(task).zip(y.par_chunks(task)).zip(gradient.par_chunks(task));
    rows.zip(into.x.par_chunks_mut(task)).for_each(|(((x, y), gradient), of_x)| {
        let columns = [mean, &inverse, &slope, &of_scale, &of_shift];
        dispatch(level, InputGradient { x, y, gradient, of_x, columns, relu });
    });
    Ok(())
}

fn inverse_deviation(variance: &[f32], epsilon: f32) -> Vec<f32> {
    variance.iter().map(|v| 1.0 / (v + epsilon).sqrt()).collect()
}

/// Adds what the tasks found, in their order.
fn in_order(parts: impl IndexedParallelIterator<Item = Vec<f32>>) -> Vec<f64> {
    let mut total: Vec<f64> = Vec::new();
    for part in parts.collect::<Vec<_>>() {
        total.resize(part.len(), 0.0);
        total.iter_mut().zip(part).for_each(|(total, part)| *total += f64::from(part));
    }
    total
}

fn apply(level: Level, norm: &BatchNorm<'_>, x: &[f32], statistics: ColumnStatistics<'_>, y: &mut [f32]) {
    let inverse = inverse_deviation(statistics.variance, norm.epsilon);
    let slope: Vec<f32> = norm.scale.iter().zip(&inverse).map(|(scale, inverse)| scale * inverse).collect();
    let offset: Vec<f32> = norm
        .shift
        .iter()
        .zip(slope.iter().zip(statistics.mean))
        .map(|(shift, (slope, mean))| shift - slope * mean)
        .collect();
    let task = TASK_ROWS * slope.len().max(1);
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
        dispatch(level, Line { x, y, slope: &slope, offset: &offset, relu: norm.relu() });
    });
}

struct Sums<'a> {
    x: &'a [f32],
    width: usize,
}

impl Kernel for Sums<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f32> {
        let mut sums = vec![0.0; self.width];
        for x in self.x.chunks_exact(self.width) {
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += x);
        }
        sums
    }
}

struct Squares<'a> {
    x: &'a [f32],
    mean: &'a [f32],
}

impl Kernel for Squares<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f32> {
        let mut sums = vec![0.0; self.mean.len()];
        for x in self.x.chunks_exact(self.mean.len()) {
            for ((sum, x), mean) in sums.iter_mut().zip(x).zip(self.mean) {
                *sum += (x - mean) * (x - mean);
            }
        }
        sums
    }
}

struct Line<'a> {
    x: &'a [f32],
    y: &'a mut [f32],
    slope: &'a [f32],
    offset: &'a [f32],
    relu: bool,
}

impl Kernel for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.slope.len();
        for (y, x) in self.y.chunks_exact_mut(width).zip(self.x.chunks_exact(width)) {
            for (((y, x), slope), offset) in y.iter_mut().zip(x).zip(self.slope).zip(self.offset) {
                let line = slope * x + offset;
                *y = if self.relu && line < 0.0 { 0.0 } else { line };
            }
        }
    }
}

struct GradientSums<'a> {
    x: &'a [f32],
    y: &'a [f32],
    gradient: &'a [f32],
    mean: &'a [f32],
    inverse: &'a [f32],
    relu: bool,
}

/// The gradient that an activation passes.
#[inline(always)]
fn passed(gradient: f32, y: f32, relu: bool) -> f32 {
    if relu && y <= 0.0 { 0.0 } else { gradient }
}

impl Kernel for GradientSums<'_> {
    /// Of the scale, and behind them of the shift.
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f32> {
        let width = self.mean.len();
        let mut sums = vec![0.0; 2 * width];
        let (of_scale, of_shift) = sums.split_at_mut(width);
        let rows = self.x.chunks_exact(width).zip(self.y.chunks_exact(width));
        for ((x, y), gradient) in rows.zip(self.gradient.chunks_exact(width)) {
            let columns = self.mean.iter().zip(self.inverse);
            let sums = of_scale.iter_mut().zip(of_shift.iter_mut());
            for ((((x, y), g), (mean, inverse)), sums) in x.iter().zip(y).zip(gradient).zip(columns).zip(sums)
            {
                let g = passed(*g, *y, self.relu);
                *sums.0 += g * (x - mean) * inverse;
                *sums.1 += g;
            }
        }
        sums
    }
}

struct InputGradient<'a> {
    x: &'a [f32],
    y: &'a [f32],
    gradient: &'a [f32],
    of_x: &'a mut [f32],
    /// `μ`, `1 / √(v + ε)`, `γ / √(v + ε)`, `∂γ / n`, `∂β / n`.
    columns: [&'a [f32]; 5],
    relu: bool,
}

impl Kernel for InputGradient<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let [mean, inverse, slope, of_scale, of_shift] = self.columns;
        let width = mean.len();
        let rows = self.x.chunks_exact(width).zip(self.y.chunks_exact(width));
        let rows = rows.zip(self.gradient.chunks_exact(width)).zip(self.of_x.chunks_exact_mut(width));
        for (((x, y), gradient), of_x) in rows {
            let values = x.iter().zip(y).zip(gradient).zip(of_x);
            let columns = mean.iter().zip(inverse).zip(slope).zip(of_scale).zip(of_shift);
            for ((((x, y), g), of_x), ((((mean, inverse), slope), of_scale), of_shift)) in values.zip(columns)
            {
                let centred = passed(*g, *y, self.relu) - of_shift - (x - mean) * inverse * of_scale;
                *of_x = slope * centred;
            }
        }
    }
}

/// [`batch_norm`] in f64: the output, the means, the variances.
pub fn batch_norm_reference(norm: &BatchNorm<'_>, x: &[f32]) -> [Vec<f64>; 3] {
    let width = norm.scale.len();
    let n = (x.len() / width) as f64;
    let column = |c: usize| x.iter().skip(c).step_by(width).map(|&x| f64::from(x));
    let mean: Vec<f64> = (0..width).map(|c| column(c).sum::<f64>() / n).collect();
    let square = |c: usize| column(c).map(|x| (x - mean[c]).powi(2)).sum::<f64>() / n;
    let variance: Vec<f64> = (0..width).map(square).collect();
    let y = x.iter().enumerate().map(|(at, &x)| {
        let c = at % width;
        let normal = (f64::from(x) - mean[c]) / (variance[c] + f64::from(norm.epsilon)).sqrt();
        let line = f64::from(norm.scale[c]) * normal + f64::from(norm.shift[c]);
        if norm.activation == Activation::Relu { line.max(0.0) } else { line }
    });
    [y.collect(), mean, variance]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{levels, with_level};

    fn some(n: usize, salt: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 37 + salt * 101) % 61) as f32 / 20.0 - 1.5).collect()
    }

    fn of<'a>(scale: &'a [f32], shift: &'a [f32], activation: Activation) -> BatchNorm<'a> {
        BatchNorm { scale, shift, epsilon: 1e-5, activation }
    }

    /// `Σ y w`, whose gradient with regard to `y` is `w`.
    fn weighed(norm: &BatchNorm<'_>, x: &[f32], w: &[f32]) -> f64 {
        batch_norm_reference(norm, x)[0].iter().zip(w).map(|(y, &w)| y * f64::from(w)).sum()
    }

    #[test]
    fn two_rows_by_hand() {
        // Column 0: mean 2, variance 1. Column 1 does not vary: its rows are the shift.
        let norm = BatchNorm { epsilon: 3.0, ..of(&[3.0, 1.0], &[1.0, -7.0], Activation::Identity) };
        let (mut y, mut mean, mut variance) = ([0.0; 4], [0.0; 2], [0.0; 2]);
        batch_norm(&norm, &[1.0, 5.0, 3.0, 5.0], &mut y, &mut mean, &mut variance).unwrap();
        assert_eq!((mean, variance), ([2.0, 5.0], [1.0, 0.0]));
        assert_eq!(y, [-0.5, -7.0, 2.5, -7.0]);
        let relu = BatchNorm { activation: Activation::Relu, ..norm };
        let statistics = ColumnStatistics { mean: &mean, variance: &variance };
        normalize(&relu, &[1.0, 5.0, 5.0, 5.0], statistics, &mut y).unwrap();
        assert_eq!(y, [0.0, 0.0, 5.5, 0.0]);
    }

    #[test]
    fn every_level_agrees_with_the_reference_and_with_finite_differences() {
        for level in levels() {
            with_level(level, || {
                for (rows, width) in [(1, 1), (2, 3), (63, 17), (64, 16), (65, 33), (200, 5)] {
                    for activation in [Activation::Identity, Activation::Relu] {
                        agrees(rows, width, activation);
                    }
                }
            });
        }
    }

    fn agrees(rows: usize, width: usize, activation: Activation) {
        let (scale, shift, x, w) =
            (some(width, 1), some(width, 2), some(rows * width, 3), some(rows * width, 4));
        let norm = of(&scale, &shift, activation);
        let (mut y, mut mean, mut variance) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
        batch_norm(&norm, &x, &mut y, &mut mean, &mut variance).unwrap();
        let close = |ours: &[f32], expected: &[f64], tolerance: f64, what: &str| {
            for (at, (ours, expected)) in ours.iter().zip(expected).enumerate() {
                let off = (f64::from(*ours) - expected).abs();
                assert!(
                    off <= tolerance * (1.0 + expected.abs()),
                    "{what} {at} of {rows} x {width}: {ours} {expected}"
                );
            }
        };
        let [of_y, of_mean, of_variance] = batch_norm_reference(&norm, &x);
        close(&y, &of_y, 1e-5, "y");
        close(&mean, &of_mean, 1e-6, "mean");
        close(&variance, &of_variance, 1e-6, "variance");

        let (mut of_x, mut of_scale, mut of_shift) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
        let into = BatchNormGradients { x: &mut of_x, scale: &mut of_scale, shift: &mut of_shift };
        let statistics = ColumnStatistics { mean: &mean, variance: &variance };
        batch_norm_backward(&norm, &x, statistics, &y, &w, into).unwrap();
        if activation == Activation::Relu {
            // What max(0, x) does not pass is a gradient of 0: the same as no gradient before it.
            let passed: Vec<f32> = w.iter().zip(&y).map(|(&w, &y)| if y > 0.0 { w } else { 0.0 }).collect();
            let line = BatchNorm { activation: Activation::Identity, ..norm };
            let mut expected = [vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]];
            let [x_of, scale_of, shift_of] = &mut expected;
            let into = BatchNormGradients { x: x_of, scale: scale_of, shift: shift_of };
            batch_norm_backward(&line, &x, statistics, &y, &passed, into).unwrap();
            assert_eq!([of_x, of_scale, of_shift], expected);
            return;
        }
        if rows == 1 {
            // A single row is its own mean: nothing of it is left.
            assert!(of_x.iter().chain(&of_scale).all(|x| *x == 0.0));
            return;
        }
        let step = 1e-3f32;
        let slope = |loss: &dyn Fn(f32) -> f64| (loss(step) - loss(-step)) / f64::from(2.0 * step);
        let moved = |values: &[f32], at: usize, by: f32| {
            let mut values = values.to_vec();
            values[at] += by;
            values
        };
        for c in 0..width.min(3) {
            let by_scale = slope(&|by| weighed(&of(&moved(&scale, c, by), &shift, activation), &x, &w));
            let by_shift = slope(&|by| weighed(&of(&scale, &moved(&shift, c, by), activation), &x, &w));
            close(&of_scale[c..=c], &[by_scale], 2e-3, "of scale");
            close(&of_shift[c..=c], &[by_shift], 2e-3, "of shift");
            let by_x = slope(&|by| weighed(&norm, &moved(&x, c, by), &w));
            close(&of_x[c..=c], &[by_x], 2e-3, "of x");
        }
    }

    #[test]
    fn rows_do_not_depend_on_each_other_with_known_statistics() {
        let (width, x) = (19, some(19 * 70, 5));
        let (scale, shift, mean, variance) =
            (some(width, 1), some(width, 2), some(width, 3), vec![2.0; width]);
        let (norm, statistics) =
            (of(&scale, &shift, Activation::Relu), ColumnStatistics { mean: &mean, variance: &variance });
        let mut all = vec![0.0; x.len()];
        normalize(&norm, &x, statistics, &mut all).unwrap();
        for (x, expected) in x.chunks(width).zip(all.chunks(width)) {
            let mut y = vec![0.0; width];
            normalize(&norm, x, statistics, &mut y).unwrap();
            assert_eq!(y, expected);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_no_rows_are_none() {
        let norm = of(&[1.0, 1.0], &[0.0, 0.0], Activation::Identity);
        let run = |x: usize, y: usize, width: usize| {
            batch_norm(&norm, &vec![0.0; x], &mut vec![0.0; y], &mut vec![1.0; width], &mut vec![1.0; width])
        };
        assert!(run(4, 4, 2).is_ok() && run(0, 0, 2).is_ok());
        for (x, y, width) in [(4, 2, 2), (3, 3, 2), (4, 4, 1)] {
            assert!(matches!(run(x, y, width), Err(Error::Shape { op: OP, .. })), "{x} {y} {width}");
        }
    }
}
