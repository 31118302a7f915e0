//! Layer normalization: every row by its own mean and variance, on the CPU.
//!
//! ```text
//! x̂ = (x - μ) / √(v + ε)     y = γ x̂ + β     μ = Σ_columns x / width     v = Σ_columns (x - μ)² / width
//!
//! h = γ g     ∂x = (h - Σ h / width - x̂ Σ h x̂ / width) / √(v + ε)     ∂γ = Σ_rows g x̂     ∂β = Σ_rows g
//! ```
//!
//! | name                      | shape           | type |
//! |---------------------------|-----------------|------|
//! | `x`, `y`, their gradients | `[rows, width]` | f32  |
//! | `γ`, `β`                  | `[width]`       | f32  |
//!
//! # Cost
//! Memory-bound: `x` read once and `y` written; backward `x` and `g` read once and `∂x` written. Nothing is kept between the two: a row's
//! mean and variance are computed again.
//!
//! # Determinism
//! The same bits for any number of threads: a row's sums are its own, and those over rows are taken over 64 rows at a time and then
//! in order. A row's result has the same bits alone and in any batch.
//!
//! NaN and infinity go into all of their row: a loss that is not finite shows them.
//!
//! # Source
//! Ba, Kiros, Hinton 2016, "Layer normalization".

use rayon::prelude::*;

use crate::{
    Result,
    batch_norm::check_columns,
    lanes::sum,
    simd::{self, Kernel, Simd, dispatch},
};

const OP: &str = "layer_norm";
/// Rows that one task goes over.
const TASK_ROWS: usize = 64;

/// The parameters of the operation.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// `γ`.
    pub scale: &'a [f32],
    /// `β`.
    pub shift: &'a [f32],
    /// `ε`; commonly 1e-5.
    pub epsilon: f32,
}

/// Where the gradients of [`layer_norm`] go.
#[derive(Debug)]
pub struct LayerNormGradients<'a> {
    /// Of `x`.
    pub x: &'a mut [f32],
    /// Of `γ`.
    pub scale: &'a mut [f32],
    /// Of `β`.
    pub shift: &'a mut [f32],
}

impl LayerNorm<'_> {
    fn check(&self, columns: &[(&'static str, usize)], values: &[(&'static str, usize)]) -> Result<()> {
        let width = self.scale.len();
        check_columns(OP, width, &[("shift", self.shift.len())], &[])?;
        check_columns(OP, width, columns, values)
    }
}

/// Normalizes every row.
///
/// # Shapes
/// - `x`, `y`: `[rows, width]`
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn layer_norm(norm: &LayerNorm<'_>, x: &[f32], y: &mut [f32]) -> Result<()> {
    norm.check(&[], &[("x", x.len()), ("y", y.len())])?;
    let (level, task) = (simd::level(), TASK_ROWS * norm.scale.len().max(1));
    y.par_chunks_mut(task).zip(x.par_chunks(task)).for_each(|(y, x)| {
        dispatch(level, Forward { norm, x, y });
    });
    Ok(())
}

/// Writes the gradients of [`layer_norm`], whose output's gradient is `gradient`.
///
/// # Shapes
/// - `x`, `gradient`: `[rows, width]`; `into` as the operands
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn layer_norm_backward(
    norm: &LayerNorm<'_>,
    x: &[f32],
    gradient: &[f32],
    into: LayerNormGradients<'_>,
) -> Result<()> {
    let columns = [("gradient of scale", into.scale.len()), ("gradient of shift", into.shift.len())];
    let values = [("x", x.len()), ("gradient", gradient.len()), ("gradient of x", into.x.len())];
    norm.check(&columns, &values)?;
    let (level, task) = (simd::level(), TASK_ROWS * norm.scale.len().max(1));
    let rows = x.par_chunks(task).zip(gradient.par_chunks(task));
    let sums: Vec<Vec<f32>> = into
        .x
        .par_chunks_mut(task)
        .zip(rows)
        .map(|(of_x, (x, gradient))| dispatch(level, Backward { norm, x, gradient, of_x }))
        .collect();
    let width = norm.scale.len();
    for (column, (scale, shift)) in into.scale.iter_mut().zip(into.shift).enumerate() {
        let sum = |at: usize| sums.iter().map(|sums| f64::from(sums[at])).sum::<f64>() as f32;
        (*scale, *shift) = (sum(column), sum(width + column));
    }
    Ok(())
}

/// A row's mean, and `1 / √(v + ε)`.
#[inline(always)]
fn statistics(x: &[f32], epsilon: f32) -> (f32, f32) {
    let share = 1.0 / x.len().max(1) as f32;
    let mean = sum::<false, 1>([x], |[x]| (x, 1.0)) * share;
    let variance = sum::<false, 1>([x], |[x]| (x - mean, x - mean)) * share;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

struct Forward<'a> {
    norm: &'a LayerNorm<'a>,
    x: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let width = self.norm.scale.len().max(1);
        for (x, y) in self.x.chunks_exact(width).zip(self.y.chunks_exact_mut(width)) {
            let (mean, inverse) = statistics(x, self.norm.epsilon);
            let columns = self.norm.scale.iter().zip(self.norm.shift);
            for ((x, y), (scale, shift)) in x.iter().zip(y).zip(columns) {
                *y = scale * ((x - mean) * inverse) + shift;
            }
        }
    }
}

struct Backward<'a> {
    norm: &'a LayerNorm<'a>,
    x: &'a [f32],
    gradient: &'a [f32],
    of_x: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    /// `∂γ` and `∂β` of these rows, one behind the other.
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Vec<f32> {
        let scale = self.norm.scale;
        let width = scale.len();
        let mut sums = vec![0.0; 2 * width];
        let (of_scale, of_shift) = sums.split_at_mut(width);
        let width = width.max(1);
        let rows = self.x.chunks_exact(width).zip(self.gradient.chunks_exact(width));
        for ((x, gradient), of_x) in rows.zip(self.of_x.chunks_exact_mut(width)) {
            let (mean, inverse) = statistics(x, self.norm.epsilon);
            let share = 1.0 / width as f32;
            let of_h = sum::<false, 2>([gradient, scale], |[g, scale]| (g, scale)) * share;
            let of_hx =
                sum::<false, 3>([x, gradient, scale], |[x, g, scale]| (g * scale, (x - mean) * inverse))
                    * share;
            let columns = scale.iter().zip(of_scale.iter_mut().zip(of_shift.iter_mut()));
            for (((x, g), of_x), (scale, (of_scale, of_shift))) in
                x.iter().zip(gradient).zip(of_x).zip(columns)
            {
                let normal = (x - mean) * inverse;
                *of_x = (g * scale - of_h - normal * of_hx) * inverse;
                *of_scale += g * normal;
                *of_shift += g;
            }
        }
        sums
    }
}

/// [`layer_norm`] in f64.
pub fn layer_norm_reference(norm: &LayerNorm<'_>, x: &[f64]) -> Vec<f64> {
    let width = norm.scale.len();
    let mut y = Vec::with_capacity(x.len());
    for x in x.chunks(width) {
        let mean = x.iter().sum::<f64>() / width as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
        let normal = |x: f64| (x - mean) / (variance + f64::from(norm.epsilon)).sqrt();
        let columns = norm.scale.iter().zip(norm.shift);
        y.extend(x.iter().zip(columns).map(|(&x, (&a, &b))| f64::from(a) * normal(x) + f64::from(b)));
    }
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{levels, with_level};

    fn some(n: usize, salt: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 37 + salt * 101) % 61) as f32 / 20.0 - 1.5).collect()
    }

    #[test]
    fn a_row_by_hand() {
        let norm = LayerNorm { scale: &[3.0, 1.0], shift: &[1.0, -7.0], epsilon: 0.0 };
        let mut y = [0.0; 2];
        layer_norm(&norm, &[1.0, 5.0], &mut y).unwrap();
        assert_eq!(y, [-2.0, -6.0]);
        assert!(layer_norm(&norm, &[1.0; 3], &mut [0.0; 3]).is_err());
    }

    #[test]
    fn every_level_agrees_with_the_reference_and_with_finite_differences() {
        for level in levels() {
            for (rows, width) in [(0, 3), (1, 1), (2, 3), (65, 17), (130, 64)] {
                with_level(level, || agrees(rows, width));
            }
        }
    }

    fn agrees(rows: usize, width: usize) {
        let (scale, shift, x, w) =
            (some(width, 1), some(width, 2), some(rows * width, 3), some(rows * width, 4));
        let norm = LayerNorm { scale: &scale, shift: &shift, epsilon: 1e-3 };
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mut y = vec![0.0; x.len()];
        layer_norm(&norm, &x, &mut y).unwrap();
        for (ours, expected) in y.iter().zip(layer_norm_reference(&norm, &wide)) {
            assert!((f64::from(*ours) - expected).abs() < 1e-4, "{ours} for {expected}");
        }
        let mut alone = vec![0.0; width];
        if rows > 1 {
            layer_norm(&norm, &x[width..2 * width], &mut alone).unwrap();
            assert_eq!(alone, y[width..2 * width], "a row alone");
        }
        let (mut of_x, mut of_scale, mut of_shift) = (vec![0.0; x.len()], vec![0.0; width], vec![0.0; width]);
        let into = LayerNormGradients { x: &mut of_x, scale: &mut of_scale, shift: &mut of_shift };
        layer_norm_backward(&norm, &x, &w, into).unwrap();
        let weighed = |norm: &LayerNorm<'_>, x: &[f64]| -> f64 {
            layer_norm_reference(norm, x).iter().zip(&w).map(|(y, &w)| y * f64::from(w)).sum()
        };
        for at in (0..x.len()).step_by(7) {
            let moved = |by: f64| {
                let mut x = wide.clone();
                x[at] += by;
                weighed(&norm, &x)
            };
            let expected = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((f64::from(of_x[at]) - expected).abs() < 1e-3 * (1.0 + expected.abs()), "x {at}");
        }
        // Linear in scale and shift: a step of 1 is exact.
        for at in 0..width {
            for (parameter, gradient) in [(&scale, &of_scale), (&shift, &of_shift)] {
                let mut more = parameter.clone();
                more[at] += 1.0;
                let of_more = match std::ptr::eq(parameter, &scale) {
                    true => LayerNorm { scale: &more, ..norm },
                    false => LayerNorm { shift: &more, ..norm },
                };
                let expected = weighed(&of_more, &wide) - weighed(&norm, &wide);
                assert!((f64::from(gradient[at]) - expected).abs() < 1e-3 * (1.0 + expected.abs()));
            }
        }
    }
}
