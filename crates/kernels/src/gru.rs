//! A gated recurrent unit over sequences of any lengths, forward and backward; on the CPU.
//!
//! ```text
//! s   = h U + c                      h: the state before the row, 0 at a sequence's beginning
//! r   = σ(x_r + s_r)                 how much of the state the new one is made of
//! z   = σ(x_z + s_z)                 how much of it stays
//! n   = tanh(x_n + r s_n)
//! h'  = n + z (h - n)
//!
//! ∂a_n = g (1 - z) (1 - n²)     ∂a_z = g (h - n) z (1 - z)     ∂a_r = ∂a_n s_n r (1 - r)          g: all that reaches h'
//! ∂x   = (∂a_r, ∂a_z, ∂a_n)     ∂s = (∂a_r, ∂a_z, ∂a_n r)      ∂h = g z + ∂s Uᵗ       ∂U = Σ_rows hᵗ ∂s      ∂c = Σ_rows ∂s
//! ```
//!
//! | name                      | shape              | type | |
//! |---------------------------|--------------------|------|---|
//! | `x`, `∂x`                 | `[rows, 3 width]`  | f32  | what comes from below for `r`, for `z`, for `n`: a linear layer's output |
//! | `weight` `U`, `bias` `c`  | `[width, 3 width]`, `[3 width]` | f32  | in the same order |
//! | `states`, their gradient  | `[rows, width]`    | f32  | the state after each row |
//! | `first`                   | `[sequences, width]` | f32  | the state before each sequence's first row; zeros where there is none |
//! | `ends`                    | `[sequences]`      | u32  | sequence `s` is the rows from `ends[s - 1]` (0 for the first) to `ends[s]` |
//!
//! # How
//! Four sequences of like lengths go side by side, so that a row of `U` is read once for four states; sequences lie behind each other without
//! padding. Backward, `s` of all rows is one product, since all states are known, and so are the gradients of `U` and `c`.
//!
//! # Cost
//! `3 width²` multiply-adds a row, backward three times that.
//!
//! # Determinism
//! The same bits for any number of threads. A state has the same bits alone, in any batch, and where its sequence was begun before and goes
//! on from `first`. NaN and infinity make NaN of the states behind them.
//!
//! # Source
//! Cho et al. 2014, "Learning phrase representations using RNN encoder-decoder"; with `r` behind the product, as cuDNN and PyTorch have it.

use rayon::prelude::*;

use crate::{
    Activation, Error, Linear, LinearGradients, LinearScratch, Products, Result,
    exp::{exp_of_negative, madd},
    lanes::LANES,
    linear, linear_backward,
    sequences::Sequences,
    simd::{self, Kernel, Level, Simd, dispatch},
};

const OP: &str = "gru";
/// Sequences that go side by side.
const TILE: usize = 4;

/// The parameters of the operation, and which rows are a sequence.
#[derive(Clone, Copy, Debug)]
pub struct Gru<'a> {
    /// Where each sequence's rows end.
    pub ends: &'a [u32],
    /// Values of a state.
    pub width: usize,
    /// `U`.
    pub weight: &'a [f32],
    /// `c`.
    pub bias: &'a [f32],
}

/// Where the gradients of [`gru`] go; all of it is overwritten.
#[derive(Debug)]
pub struct GruGradients<'a> {
    /// Of `x`.
    pub x: &'a mut [f32],
    /// Of `U`.
    pub weight: &'a mut [f32],
    /// Of `c`.
    pub bias: &'a mut [f32],
}

impl Gru<'_> {
    fn sequences(&self) -> Sequences<'_> {
        Sequences(self.ends)
    }

    fn check(&self, gates: &[(&'static str, usize)], states: &[(&'static str, usize)]) -> Result<()> {
        let w = self.width;
        if w == 0 {
            return Err(Error::Parameter { op: OP, what: "width", expected: "at least 1", got: 0.0 });
        }
        self.sequences().check(OP)?;
        let rows = self.sequences().rows();
        let parameters = [("weight", self.weight.len(), 3 * w * w), ("bias", self.bias.len(), 3 * w)];
        let gates = gates.iter().map(|&(what, got)| (what, got, rows * 3 * w));
        let states = states.iter().map(|&(what, got)| (what, got, rows * w));
        let mut all = parameters.into_iter().chain(gates).chain(states);
        match all.find(|&(_, got, expected)| got != expected) {
            Some((what, got, expected)) => Err(Error::Shape { op: OP, what, expected, got }),
            None => Ok(()),
        }
    }

    /// The sequences that have rows, the longest first.
    fn by_length<T>(&self, each: impl IntoIterator<Item = T>) -> Vec<(usize, T)> {
        let mut all: Vec<(usize, T)> = each.into_iter().enumerate().collect();
        all.retain(|&(at, _)| !self.sequences().at(at).is_empty());
        all.sort_by_key(|&(at, _)| std::cmp::Reverse(self.sequences().at(at).len()));
        all
    }
}

/// Writes the state after each row.
///
/// # Shapes
/// - `x`: `[rows, 3 width]`; `first`: `[sequences, width]`; `states`: `[rows, width]`
///
/// # Errors
/// [`Error::Shape`]; [`Error::Parameter`] for a width of 0.
pub fn gru(of: &Gru<'_>, x: &[f32], first: Option<&[f32]>, states: &mut [f32]) -> Result<()> {
    of.check(&[("x", x.len())], &[("states", states.len())])?;
    let expected = of.ends.len() * of.width;
    if let Some(got) = first.map(<[f32]>::len).filter(|&got| got != expected) {
        return Err(Error::Shape { op: OP, what: "first", expected, got });
    }
    let level = simd::level();
    let mut sequences = of.by_length(of.sequences().cut(states, of.width));
    sequences.par_chunks_mut(TILE).for_each(|tile| match level {
        Level::Portable => dispatch(level, Forward::<false> { of, x, first, tile }),
        _ => dispatch(level, Forward::<true> { of, x, first, tile }),
    });
    Ok(())
}

/// Writes the gradients of [`gru`], which gave `states` from zeros, and whose output's gradient is `gradient`.
///
/// # Shapes
/// - `x`: `[rows, 3 width]`; `states`, `gradient`: `[rows, width]`; `into` as the operands
///
/// # Errors
/// As [`gru`], and as [`linear`].
pub fn gru_backward(
    of: &Gru<'_>,
    x: &[f32],
    states: &[f32],
    gradient: &[f32],
    into: GruGradients<'_>,
    scratch: &mut LinearScratch,
) -> Result<()> {
    let w = of.width;
    of.check(
        &[("x", x.len()), ("gradient of x", into.x.len())],
        &[("states", states.len()), ("gradient", gradient.len())],
    )?;
    // The state before each row.
    let mut before = vec![0.0; states.len()];
    for rows in (0..of.ends.len()).map(|at| of.sequences().at(at)).filter(|rows| !rows.is_empty()) {
        before[(rows.start + 1) * w..rows.end * w]
            .copy_from_slice(&states[rows.start * w..(rows.end - 1) * w]);
    }
    let layer = Linear {
        inputs: w,
        outputs: 3 * w,
        weight: of.weight,
        bias: Some(of.bias),
        activation: Activation::Identity,
        products: Products::F32,
    };
    let mut sums = vec![0.0; x.len()];
    linear(&layer, &before, &mut sums, scratch)?;
    let mut transposed = vec![0.0; of.weight.len()];
    for (k, row) in of.weight.chunks_exact(3 * w).enumerate() {
        row.iter().enumerate().for_each(|(column, &u)| transposed[column * w + k] = u);
    }
    let level = simd::level();
    let both = of.sequences().cut(into.x, 3 * w).into_iter().zip(of.sequences().cut(&mut sums, 3 * w));
    let mut sequences = of.by_length(both);
    sequences.par_chunks_mut(TILE).for_each(|tile| {
        let (before, transposed) = (&before[..], &transposed[..]);
        match level {
            Level::Portable => {
                dispatch(level, Backward::<false> { of, x, before, transposed, gradient, tile })
            }
            _ => dispatch(level, Backward::<true> { of, x, before, transposed, gradient, tile }),
        }
    });
    let into = LinearGradients { weight: into.weight, bias: Some(into.bias), x: None };
    // What an identity gave is not looked at.
    linear_backward(&layer, &before, x, &mut sums, into, scratch)
}

/// `out = begin + rows · weight`, for up to [`TILE`] rows; `begin` is a row that all begin with.
#[inline(always)]
fn products<const FMA: bool>(n: usize, rows: &[f32], weight: &[f32], begin: &[f32], out: &mut [f32]) {
    match n {
        1 => products_of::<FMA, 1>(rows, weight, begin, out),
        2 => products_of::<FMA, 2>(rows, weight, begin, out),
        3 => products_of::<FMA, 3>(rows, weight, begin, out),
        _ => products_of::<FMA, TILE>(rows, weight, begin, out),
    }
}

#[inline(always)]
fn products_of<const FMA: bool, const ROWS: usize>(
    rows: &[f32],
    weight: &[f32],
    begin: &[f32],
    out: &mut [f32],
) {
    let columns = begin.len();
    let inputs = weight.len() / columns;
    let rows: [&[f32]; ROWS] = std::array::from_fn(|row| &rows[row * inputs..][..inputs]);
    let whole = columns / LANES * LANES;
    for column in (0..whole).step_by(LANES) {
        let mut sums = [*chunk(begin, column); ROWS];
        for (k, of_k) in weight.chunks_exact(columns).enumerate() {
            let of_k = chunk(of_k, column);
            for row in 0..ROWS {
                let value = rows[row][k];
                for lane in 0..LANES {
                    sums[row][lane] = madd::<FMA>(value, of_k[lane], sums[row][lane]);
                }
            }
        }
        for (row, sums) in sums.iter().enumerate() {
            out[row * columns + column..][..LANES].copy_from_slice(sums);
        }
    }
    for column in whole..columns {
        for (row, values) in rows.iter().enumerate() {
            let mut sum = begin[column];
            for (k, value) in values.iter().enumerate() {
                sum = madd::<FMA>(*value, weight[k * columns + column], sum);
            }
            out[row * columns + column] = sum;
        }
    }
}

/// The values from `at` on that stay in registers together.
#[inline(always)]
fn chunk(values: &[f32], at: usize) -> &[f32; LANES] {
    match values[at..].first_chunk() {
        Some(chunk) => chunk,
        None => &[0.0; LANES],
    }
}

/// `1 / (1 + exp(-x))`; NaN for what is not finite.
#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    let power = exp_of_negative::<FMA>(-x.abs());
    let share = 1.0 / (1.0 + power);
    (if x >= 0.0 { share } else { power * share }) + x * 0.0
}

/// The hyperbolic tangent; NaN for what is not finite.
#[inline(always)]
fn tanh<const FMA: bool>(x: f32) -> f32 {
    let power = exp_of_negative::<FMA>(-2.0 * x.abs());
    ((1.0 - power) / (1.0 + power)).copysign(x) + x * 0.0
}

/// The three parts of a row of `3 width` values.
#[inline(always)]
fn parts(row: &[f32], width: usize) -> [&[f32]; 3] {
    let (first, rest) = row.split_at(width);
    let (second, third) = rest.split_at(width);
    [first, second, &third[..width]]
}

#[inline(always)]
fn parts_mut(row: &mut [f32], width: usize) -> [&mut [f32]; 3] {
    let (first, rest) = row.split_at_mut(width);
    let (second, third) = rest.split_at_mut(width);
    [first, second, &mut third[..width]]
}

struct Forward<'a, 'v, const FMA: bool> {
    of: &'a Gru<'a>,
    x: &'a [f32],
    first: Option<&'a [f32]>,
    /// Sequences, the longest first, and where their states go.
    tile: &'a mut [(usize, &'v mut [f32])],
}

impl<const FMA: bool> Kernel for Forward<'_, '_, FMA> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { of, x, first, tile } = self;
        let w = of.width;
        let (mut h, mut sums) = (vec![0.0; TILE * w], vec![0.0; TILE * 3 * w]);
        if let Some(first) = first {
            for (&mut (at, _), h) in tile.iter_mut().zip(h.chunks_exact_mut(w)) {
                h.copy_from_slice(&first[at * w..(at + 1) * w]);
            }
        }
        let longest = tile.first().map_or(0, |(_, states)| states.len() / w);
        for step in 0..longest {
            let active = tile.iter().take_while(|(_, states)| step < states.len() / w).count();
            products::<FMA>(active, &h, of.weight, of.bias, &mut sums);
            let rows = h.chunks_exact_mut(w).zip(sums.chunks_exact(3 * w));
            for ((at, states), (h, sums)) in tile[..active].iter_mut().zip(rows) {
                let row = of.sequences().at(*at).start + step;
                let [x_r, x_z, x_n] = parts(&x[row * 3 * w..(row + 1) * 3 * w], w);
                let [s_r, s_z, s_n] = parts(sums, w);
                for i in 0..w {
                    let r = sigmoid::<FMA>(x_r[i] + s_r[i]);
                    let z = sigmoid::<FMA>(x_z[i] + s_z[i]);
                    let n = tanh::<FMA>(madd::<FMA>(r, s_n[i], x_n[i]));
                    h[i] = madd::<FMA>(z, h[i] - n, n);
                }
                states[step * w..(step + 1) * w].copy_from_slice(h);
            }
        }
    }
}

/// Where the gradients of a sequence's `x` go, and its `s`, which become their gradients.
type Scanned<'v> = (&'v mut [f32], &'v mut [f32]);

struct Backward<'a, 'v, const FMA: bool> {
    of: &'a Gru<'a>,
    x: &'a [f32],
    before: &'a [f32],
    transposed: &'a [f32],
    gradient: &'a [f32],
    tile: &'a mut [(usize, Scanned<'v>)],
}

impl<const FMA: bool> Kernel for Backward<'_, '_, FMA> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { of, x, before, transposed, gradient, tile } = self;
        let w = of.width;
        // `g z`, and `∂s` of the rows of a step, then `∂h`.
        let (mut stays, mut of_sums, mut of_h) =
            (vec![0.0; TILE * w], vec![0.0; TILE * 3 * w], vec![0.0; TILE * w]);
        let none = vec![0.0; w];
        let longest = tile.first().map_or(0, |(at, _)| of.sequences().at(*at).len());
        for step in (0..longest).rev() {
            let active = tile.iter().take_while(|(at, _)| step < of.sequences().at(*at).len()).count();
            for (place, (at, (of_x, sums))) in tile[..active].iter_mut().enumerate() {
                let row = of.sequences().at(*at).start + step;
                let own = step * 3 * w..(step + 1) * 3 * w;
                let [x_r, x_z, x_n] = parts(&x[row * 3 * w..(row + 1) * 3 * w], w);
                let [to_r, to_z, to_n] = parts_mut(&mut of_x[own.clone()], w);
                let sums = &mut sums[own];
                let [s_r, s_z, s_n] = parts_mut(sums, w);
                let (before, gradient) = (&before[row * w..][..w], &gradient[row * w..][..w]);
                let (of_h, stays) = (&of_h[place * w..][..w], &mut stays[place * w..][..w]);
                for i in 0..w {
                    let r = sigmoid::<FMA>(x_r[i] + s_r[i]);
                    let z = sigmoid::<FMA>(x_z[i] + s_z[i]);
                    let n = tanh::<FMA>(madd::<FMA>(r, s_n[i], x_n[i]));
                    let g = gradient[i] + of_h[i];
                    let of_n = g * (1.0 - z) * (1.0 - n * n);
                    let of_z = g * (before[i] - n) * z * (1.0 - z);
                    let of_r = of_n * s_n[i] * r * (1.0 - r);
                    stays[i] = g * z;
                    (to_r[i], to_z[i], to_n[i]) = (of_r, of_z, of_n);
                    (s_r[i], s_z[i], s_n[i]) = (of_r, of_z, of_n * r);
                }
                of_sums[place * 3 * w..(place + 1) * 3 * w].copy_from_slice(sums);
            }
            products::<FMA>(active, &of_sums, transposed, &none, &mut of_h);
            for (of_h, stays) in of_h.iter_mut().zip(&stays).take(active * w) {
                *of_h += stays;
            }
        }
    }
}

/// [`gru`] in f64, from zeros.
pub fn gru_reference(of: &Gru<'_>, x: &[f64]) -> Vec<f64> {
    let w = of.width;
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let mut states = Vec::with_capacity(x.len() / 3);
    for rows in (0..of.ends.len()).map(|at| of.sequences().at(at)) {
        let mut h = vec![0.0; w];
        for x in x[rows.start * 3 * w..rows.end * 3 * w].chunks_exact(3 * w) {
            let sum = |column: usize| {
                let u = |k: usize| f64::from(of.weight[k * 3 * w + column]);
                (0..w).map(|k| h[k] * u(k)).sum::<f64>() + f64::from(of.bias[column])
            };
            h = (0..w)
                .map(|i| {
                    let (r, z) = (sigmoid(x[i] + sum(i)), sigmoid(x[w + i] + sum(w + i)));
                    let n = (x[2 * w + i] + r * sum(2 * w + i)).tanh();
                    n + z * (h[i] - n)
                })
                .collect();
            states.extend(&h);
        }
    }
    states
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{levels, with_level};

    fn some(n: usize, salt: u32) -> Vec<f32> {
        (0..n as u32).map(|i| ((i * 37 + salt * 101) % 61) as f32 / 20.0 - 1.5).collect()
    }

    #[test]
    fn two_rows_by_hand() {
        // Gates are half open, and the new value is tanh(x_n + s_n / 2).
        let of = Gru { ends: &[2], width: 1, weight: &[0.0, 0.0, 2.0], bias: &[0.0, 0.0, 1.0] };
        let mut states = [0.0; 2];
        gru(&of, &[0.0, 0.0, 0.5, 0.0, 0.0, -0.25], None, &mut states).unwrap();
        let first = 1f32.tanh() / 2.0;
        let second = ((-0.25 + (2.0 * first + 1.0) / 2.0).tanh() + first) / 2.0;
        assert!((states[0] - first).abs() < 1e-6 && (states[1] - second).abs() < 1e-6, "{states:?}");
        assert!(gru(&Gru { ends: &[2, 1], ..of }, &[0.0; 3], None, &mut [0.0]).is_err());
        assert!(gru(&of, &[0.0; 6], Some(&[0.0; 2]), &mut states).is_err());
        assert!(gru(&Gru { width: 0, weight: &[], bias: &[], ..of }, &[], None, &mut []).is_err());
        for strange in [f32::NAN, f32::INFINITY] {
            gru(&of, &[0.0, strange, 0.0, 0.0, 0.0, 0.0], None, &mut states).unwrap();
            assert!(states[0].is_nan() && states[1].is_nan());
        }
    }

    #[test]
    fn every_level_agrees_with_the_reference_and_with_finite_differences() {
        for level in levels() {
            for (ends, w) in
                [(&[][..], 3), (&[1], 1), (&[3, 3, 4], 4), (&[0, 2, 9, 13, 14, 19, 22], 6), (&[7, 12], 33)]
            {
                let (weight, bias) = (some(3 * w * w, 1), some(3 * w, 2));
                let weight: Vec<f32> = weight.iter().map(|u| u / (w as f32).sqrt()).collect();
                let of = Gru { ends, width: w, weight: &weight, bias: &bias };
                with_level(level, || agrees(&of));
            }
        }
    }

    fn agrees(of: &Gru<'_>) {
        let (n, w) = (of.sequences().rows() * of.width, of.width);
        let (x, weights) = (some(3 * n, 3), some(n, 4));
        let wide: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        let mut states = vec![0.0; n];
        gru(of, &x, None, &mut states).unwrap();
        for (ours, expected) in states.iter().zip(gru_reference(of, &wide)) {
            assert!((f64::from(*ours) - expected).abs() < 3e-6, "{ours} for {expected}");
        }
        for rows in (0..of.ends.len()).map(|at| of.sequences().at(at)).filter(|rows| !rows.is_empty()) {
            // Alone, and in two parts.
            let cut = rows.start + rows.len() / 2;
            let mut alone = vec![0.0; rows.len() * w];
            let (early, late) = alone.split_at_mut((cut - rows.start) * w);
            let part = |ends: &[u32], rows: std::ops::Range<usize>, first: &[f32], out: &mut [f32]| {
                let x = &x[rows.start * 3 * w..rows.end * 3 * w];
                gru(&Gru { ends, ..*of }, x, Some(first), out).unwrap();
            };
            part(&[early.len() as u32 / w as u32], rows.start..cut, &vec![0.0; w], early);
            let first = early.rchunks(w).next().map_or(vec![0.0; w], <[f32]>::to_vec);
            part(&[late.len() as u32 / w as u32], cut..rows.end, &first, late);
            assert_eq!(alone, states[rows.start * w..rows.end * w], "a sequence alone");
        }
        let (mut of_x, mut of_weight, mut of_bias) =
            (vec![0.0; 3 * n], vec![0.0; 3 * w * w], vec![0.0; 3 * w]);
        let into = GruGradients { x: &mut of_x, weight: &mut of_weight, bias: &mut of_bias };
        gru_backward(of, &x, &states, &weights, into, &mut LinearScratch::default()).unwrap();
        let weighed = |of: &Gru<'_>, x: &[f64]| {
            gru_reference(of, x).iter().zip(&weights).map(|(h, &w)| h * f64::from(w)).sum::<f64>()
        };
        let close = |ours: f32, expected: f64, what: &str| {
            assert!(
                (f64::from(ours) - expected).abs() < 2e-4 * (1.0 + expected.abs()),
                "{what}: {ours} {expected}"
            );
        };
        for at in (0..3 * n).step_by(5) {
            let moved = |by: f64| {
                let mut x = wide.clone();
                x[at] += by;
                weighed(of, &x)
            };
            close(of_x[at], (moved(1e-4) - moved(-1e-4)) / 2e-4, "x");
        }
        let apart = 1.0 / 512.0;
        for at in (0..3 * w * w).step_by(if w > 6 { 97 } else { 1 }) {
            let moved = |by: f32| {
                let mut weight = of.weight.to_vec();
                weight[at] += by;
                (f64::from(weight[at]), weighed(&Gru { weight: &weight, ..*of }, &wide))
            };
            let (more, less) = (moved(apart), moved(-apart));
            close(of_weight[at], (more.1 - less.1) / (more.0 - less.0), "weight");
        }
        for at in 0..3 * w {
            let moved = |by: f32| {
                let mut bias = of.bias.to_vec();
                bias[at] += by;
                (f64::from(bias[at]), weighed(&Gru { bias: &bias, ..*of }, &wide))
            };
            let (more, less) = (moved(apart), moved(-apart));
            close(of_bias[at], (more.1 - less.1) / (more.0 - less.0), "bias");
        }
    }
}
