//! The arithmetic of one comparison: scores, the loss and its slope, and the step of three rows.
//!
//! Everything is inlined into a function compiled once per instruction set (`train`), where the fixed arrays of 16
//! sums become one or two vector registers. `FMA` says whether that set multiplies and adds in one rounding.

use crate::{
    exp::{exp_of_negative, madd},
    lanes::sum,
};

/// `|a|^2`.
#[inline(always)]
pub(super) fn square<const FMA: bool>(a: &[f32]) -> f32 {
    sum::<FMA, 1>([a], |[a]| (a, a))
}

/// `p . (i - j)`.
#[inline(always)]
pub(super) fn difference<const FMA: bool>(p: &[f32], i: &[f32], j: &[f32]) -> f32 {
    sum::<FMA, 3>([p, &i[..p.len()], &j[..p.len()]], |[p, i, j]| (p, i - j))
}

/// `|i - j|^2`.
#[inline(always)]
pub(super) fn square_of_difference<const FMA: bool>(i: &[f32], j: &[f32]) -> f32 {
    sum::<FMA, 2>([i, &j[..i.len()]], |[i, j]| (i - j, i - j))
}

/// Moves the three rows by slope `z` with step sizes `s = [row, positive, negative]` and L2 weight `l2`.
#[inline(always)]
pub(super) fn move_three<const FMA: bool>(
    p: &mut [f32],
    i: &mut [f32],
    j: &mut [f32],
    z: f32,
    s: [f32; 3],
    l2: f32,
) {
    let n = p.len();
    let (i, j) = (&mut i[..n], &mut j[..n]);
    let shrink = s.map(|s| 1.0 - s * l2);
    let pull = s.map(|s| s * z);
    for at in 0..n {
        let (a, b, c) = (p[at], i[at], j[at]);
        p[at] = madd::<FMA>(pull[0], b - c, a * shrink[0]);
        i[at] = madd::<FMA>(pull[1], a, b * shrink[1]);
        j[at] = madd::<FMA>(-pull[2], a, c * shrink[2]);
    }
}

/// Moves a row and a column by slope `z` with step sizes `s = [row, column]` and L2 weight `l2`.
#[inline(always)]
pub(crate) fn move_two<const FMA: bool>(p: &mut [f32], i: &mut [f32], z: f32, s: [f32; 2], l2: f32) {
    let n = p.len();
    let i = &mut i[..n];
    let shrink = s.map(|s| 1.0 - s * l2);
    let pull = s.map(|s| s * z);
    for at in 0..n {
        let (a, b) = (p[at], i[at]);
        p[at] = madd::<FMA>(pull[0], b, a * shrink[0]);
        i[at] = madd::<FMA>(pull[1], a, b * shrink[1]);
    }
}

/// Returns `1 / (1 + exp(x))`, the slope of `ln(1 + exp(-x))` downwards, and `exp(-|x|)`.
#[inline(always)]
pub(super) fn slope<const FMA: bool>(x: f32) -> (f32, f32) {
    let t = exp_of_negative::<FMA>(-x.abs());
    (if x > 0.0 { t / (1.0 + t) } else { 1.0 / (1.0 + t) }, t)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slope_is_the_derivative_of_the_loss() {
        let loss = |x: f64| (-x).exp().ln_1p();
        for x in [-30.0f32, -3.0, -0.1, 0.0, 0.1, 2.0, 30.0] {
            let numeric = (loss(f64::from(x) - 1e-5) - loss(f64::from(x) + 1e-5)) / 2e-5;
            assert!((f64::from(slope::<true>(x).0) - numeric).abs() < 1e-6, "{x}");
        }
    }

    #[test]
    fn sums_of_any_length() {
        for n in [0, 1, 15, 16, 17, 31, 32, 33, 64, 100] {
            let row = |k: usize| (0..n).map(|i| ((i * k) % 7) as f32 - 3.0).collect::<Vec<f32>>();
            let (p, i, j) = (row(1), row(2), row(3));
            let exact = |f: &dyn Fn(usize) -> f32| (0..n).map(f).sum::<f32>();
            assert_eq!(difference::<false>(&p, &i, &j), exact(&|k| p[k] * (i[k] - j[k])));
            assert_eq!(square_of_difference::<true>(&i, &j), exact(&|k| (i[k] - j[k]).powi(2)));
            assert_eq!(square::<true>(&p), exact(&|k| p[k] * p[k]));
        }
    }
}
