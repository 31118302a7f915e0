//! Self-attention over sequences of any lengths, each position to itself and those before it; on the CPU.
//!
//! ```text
//! for each sequence and head:   p_ij = softmax over j ≤ i of (q_i · k_j / √d)      y_i = Σ_{j ≤ i} p_ij v_j
//!
//! ∂p_ij = g_i · v_j    ∂s_ij = p_ij (∂p_ij - Σ_j p_ij ∂p_ij)
//! ∂q_i = Σ_j ∂s_ij k_j / √d       ∂k_j = Σ_i ∂s_ij q_i / √d       ∂v_j = Σ_i p_ij g_i
//! ```
//!
//! With dropout the weights that values are taken by are `m_ij p_ij`, and `∂p_ij` is `m_ij (g_i · v_j)`.
//!
//! | name            | shape              | type | |
//! |-----------------|--------------------|------|---|
//! | `qkv`, gradient | `[rows, 3 width]`  | f32  | queries, keys, values of all heads: `q` of head 0, of head 1, ..; then `k`; then `v` |
//! | `y`, `g`        | `[rows, width]`    | f32  | the heads side by side, `d = width / heads` values each |
//! | `ends`          | `[sequences]`      | u32  | sequence `s` is the rows from `ends[s - 1]` (0 for the first) to `ends[s]` |
//! | `kept`          | see [`n_attention_weights`]   | f32  | `m`: sequence after sequence, in one head after head, in one row after row, `i + 1` values |
//!
//! Sequences lie behind each other without padding, so that a batch costs what it holds.
//!
//! # Cost
//! `2 n² width` multiply-adds a sequence of `n` rows, backward five halves of that; the weights are computed again there, so that nothing but
//! `qkv` is kept.
//!
//! # Determinism
//! The same bits for any number of threads, and for a sequence alone and in any batch. A row's result does not depend on rows behind it.
//!
//! # Source
//! Vaswani et al. 2017, "Attention is all you need"; Kang, McAuley 2018 for the mask.

use rayon::prelude::*;

use crate::{
    Error, Result,
    exp::{exp_of_negative, madd},
    lanes::dot,
    sequences::Sequences,
    simd::{self, Kernel, Level, Simd, dispatch},
};

const OP: &str = "causal_attention";

/// The shape of the operation.
#[derive(Clone, Copy, Debug)]
pub struct CausalAttention<'a> {
    /// Where each sequence's rows end.
    pub ends: &'a [u32],
    /// Values of a row of `y`.
    pub width: usize,
    /// Heads, which share the width evenly.
    pub heads: usize,
    /// What each weight is multiplied by after the softmax: dropout's mask. Not read by [`causal_attention_last`].
    pub kept: Option<&'a [f32]>,
}

/// Returns how many weights there are: `heads n (n + 1) / 2` for a sequence of `n` rows.
pub fn n_attention_weights(ends: &[u32], heads: usize) -> usize {
    Sequences(ends).lengths().map(|n| kept_of(n, heads)).sum()
}

fn kept_of(n: usize, heads: usize) -> usize {
    heads * n * (n + 1) / 2
}

impl<'a> CausalAttention<'a> {
    fn sequences(&self) -> Sequences<'_> {
        Sequences(self.ends)
    }

    fn check(&self, joined: &[(&'static str, usize)], plain: &[(&'static str, usize)]) -> Result<()> {
        if self.heads == 0 || !self.width.is_multiple_of(self.heads) {
            let expected = "a divisor of the width";
            return Err(Error::Parameter { op: OP, what: "heads", expected, got: self.heads as f64 });
        }
        self.sequences().check(OP)?;
        if let Some(kept) = self.kept {
            let (expected, got) = (n_attention_weights(self.ends, self.heads), kept.len());
            if got != expected {
                return Err(Error::Shape { op: OP, what: "kept", expected, got });
            }
        }
        let of = |width: usize| self.sequences().rows() * width;
        for (values, expected) in [(joined, of(3 * self.width)), (plain, of(self.width))] {
            if let Some(&(what, got)) = values.iter().find(|(_, got)| *got != expected) {
                return Err(Error::Shape { op: OP, what, expected, got });
            }
        }
        Ok(())
    }

    /// Cuts the mask into those of the sequences; nothing for each where there is none.
    fn cut_kept(&self) -> Vec<Option<&'a [f32]>> {
        let mut rest = self.kept;
        let lengths = self.sequences().lengths().map(|n| kept_of(n, self.heads));
        lengths
            .map(|len| {
                let (own, after) = rest?.split_at(len);
                rest = Some(after);
                Some(own)
            })
            .collect()
    }
}

/// Attends in every sequence.
///
/// # Shapes
/// - `qkv`: `[rows, 3 width]`; `y`: `[rows, width]`
///
/// # Errors
/// [`Error::Shape`]; [`Error::Parameter`] for heads that do not divide the width.
pub fn causal_attention(of: &CausalAttention<'_>, qkv: &[f32], y: &mut [f32]) -> Result<()> {
    of.check(&[("qkv", qkv.len())], &[("y", y.len())])?;
    let level = simd::level();
    of.sequences().cut(y, of.width).into_par_iter().zip(of.cut_kept()).enumerate().for_each_init(
        Vec::new,
        |weights, (at, (y, kept))| {
            let rows = of.sequences().at(at);
            let qkv = &qkv[rows.start * 3 * of.width..rows.end * 3 * of.width];
            let own = Own { qkv, width: of.width, heads: of.heads, kept };
            match level {
                Level::Portable => dispatch(level, Forward::<false> { own, first: 0, y, weights }),
                _ => dispatch(level, Forward::<true> { own, first: 0, y, weights }),
            }
        },
    );
    Ok(())
}

/// As [`causal_attention`], but only the last row of each sequence is asked for, in the same bits; zeros where there is none.
///
/// Linear in a sequence's rows: what one more event costs where the keys and values of those before it are kept.
///
/// # Shapes
/// - `qkv`: `[rows, 3 width]`; `y`: `[sequences, width]`
///
/// # Errors
/// As [`causal_attention`].
pub fn causal_attention_last(of: &CausalAttention<'_>, qkv: &[f32], y: &mut [f32]) -> Result<()> {
    of.check(&[("qkv", qkv.len())], &[])?;
    let (expected, got) = (of.ends.len() * of.width, y.len());
    if got != expected {
        return Err(Error::Shape { op: OP, what: "y", expected, got });
    }
    let level = simd::level();
    y.par_chunks_mut(of.width.max(1)).enumerate().for_each_init(Vec::new, |weights, (at, y)| {
        let rows = of.sequences().at(at);
        y.fill(0.0);
        let Some(first) = rows.len().checked_sub(1) else { return };
        let qkv = &qkv[rows.start * 3 * of.width..rows.end * 3 * of.width];
        let own = Own { qkv, width: of.width, heads: of.heads, kept: None };
        match level {
            Level::Portable => dispatch(level, Forward::<false> { own, first, y, weights }),
            _ => dispatch(level, Forward::<true> { own, first, y, weights }),
        }
    });
    Ok(())
}

/// Writes the gradient of [`causal_attention`] with regard to `qkv`, whose output's gradient is `gradient`.
///
/// # Shapes
/// - `qkv`, `out`: `[rows, 3 width]`; `gradient`: `[rows, width]`
///
/// # Errors
/// As [`causal_attention`].
pub fn causal_attention_backward(
    of: &CausalAttention<'_>,
    qkv: &[f32],
    gradient: &[f32],
    out: &mut [f32],
) -> Result<()> {
    of.check(&[("qkv", qkv.len()), ("out", out.len())], &[("gradient", gradient.len())])?;
    let level = simd::level();
    of.sequences().cut(out, 3 * of.width).into_par_iter().zip(of.cut_kept()).enumerate().for_each_init(
        Vec::new,
        |weights, (at, (out, kept))| {
            let rows = of.sequences().at(at);
            let qkv = &qkv[rows.start * 3 * of.width..rows.end * 3 * of.width];
            let gradient = &gradient[rows.start * of.width..rows.end * of.width];
            let own = Own { qkv, width: of.width, heads: of.heads, kept };
            match level {
                Level::Portable => dispatch(level, Backward::<false> { own, gradient, out, weights }),
                _ => dispatch(level, Backward::<true> { own, gradient, out, weights }),
            }
        },
    );
    Ok(())
}

/// A sequence's own queries, keys and values.
#[derive(Clone, Copy)]
struct Own<'a> {
    qkv: &'a [f32],
    width: usize,
    heads: usize,
    kept: Option<&'a [f32]>,
}

/// Which of the three of a row.
const QUERY: usize = 0;
const KEY: usize = 1;
const VALUE: usize = 2;

impl<'a> Own<'a> {
    #[inline(always)]
    fn rows(self) -> usize {
        self.qkv.len() / (3 * self.width)
    }

    /// Where `which` of a row lies for a head.
    #[inline(always)]
    fn place(self, row: usize, which: usize, head: usize) -> std::ops::Range<usize> {
        let dim = self.width / self.heads;
        let begin = (3 * row + which) * self.width + head * dim;
        begin..begin + dim
    }

    #[inline(always)]
    fn get(self, row: usize, which: usize, head: usize) -> &'a [f32] {
        &self.qkv[self.place(row, which, head)]
    }

    /// The mask of row `i`'s weights.
    #[inline(always)]
    fn kept(self, i: usize, head: usize) -> Option<&'a [f32]> {
        let begin = kept_of(self.rows(), 1) * head + kept_of(i, 1);
        self.kept.map(|kept| &kept[begin..=begin + i])
    }

    /// Writes the weights of row `i` for those up to it.
    #[inline(always)]
    fn weigh<const FMA: bool>(self, i: usize, head: usize, weights: &mut [f32]) {
        let weights = &mut weights[..=i];
        let query = self.get(i, QUERY, head);
        let scale = 1.0 / (query.len() as f32).sqrt();
        let mut most = f32::NEG_INFINITY;
        for (j, weight) in weights.iter_mut().enumerate() {
            *weight = dot::<FMA>(query, self.get(j, KEY, head)) * scale;
            most = if *weight > most { *weight } else { most };
        }
        let (mut sum, mut not_finite) = (0.0, 0.0);
        for weight in weights.iter_mut() {
            // An exponential that is bounded below would make a number of NaN.
            not_finite += *weight * 0.0;
            *weight = exp_of_negative::<FMA>(*weight - most);
            sum += *weight;
        }
        let share = 1.0 / sum + not_finite;
        weights.iter_mut().for_each(|weight| *weight *= share);
    }
}

/// `to += times * from`.
#[inline(always)]
fn add_times<const FMA: bool>(to: &mut [f32], times: f32, from: &[f32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = madd::<FMA>(times, *from, *to);
    }
}

struct Forward<'a, const FMA: bool> {
    own: Own<'a>,
    /// The row that `y` begins with.
    first: usize,
    y: &'a mut [f32],
    weights: &'a mut Vec<f32>,
}

impl<const FMA: bool> Kernel for Forward<'_, FMA> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { own, first, y, weights } = self;
        weights.clear();
        weights.resize(own.rows(), 0.0);
        y.fill(0.0);
        let dim = own.width / own.heads;
        for (i, y) in (first..).zip(y.chunks_exact_mut(own.width)) {
            for (head, y) in y.chunks_exact_mut(dim).enumerate() {
                own.weigh::<FMA>(i, head, weights);
                if let Some(kept) = own.kept(i, head) {
                    weights.iter_mut().zip(kept).for_each(|(weight, kept)| *weight *= kept);
                }
                for (j, &weight) in weights[..=i].iter().enumerate() {
                    add_times::<FMA>(y, weight, own.get(j, VALUE, head));
                }
            }
        }
    }
}

struct Backward<'a, const FMA: bool> {
    own: Own<'a>,
    gradient: &'a [f32],
    out: &'a mut [f32],
    weights: &'a mut Vec<f32>,
}

impl<const FMA: bool> Kernel for Backward<'_, FMA> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { own, gradient, out, weights } = self;
        let (n, dim) = (own.rows(), own.width / own.heads);
        weights.clear();
        weights.resize(2 * n, 0.0);
        let (weights, of_weights) = weights.split_at_mut(n);
        out.fill(0.0);
        let scale = 1.0 / (dim as f32).sqrt();
        for (i, gradient) in gradient.chunks_exact(own.width).enumerate() {
            for (head, g) in gradient.chunks_exact(dim).enumerate() {
                own.weigh::<FMA>(i, head, weights);
                let kept = own.kept(i, head);
                let kept = |j: usize| kept.map_or(1.0, |kept| kept[j]);
                let mut mean = 0.0;
                for (j, (&weight, of_weight)) in weights[..=i].iter().zip(&mut *of_weights).enumerate() {
                    *of_weight = kept(j) * dot::<FMA>(g, own.get(j, VALUE, head));
                    mean = madd::<FMA>(weight, *of_weight, mean);
                }
                for j in 0..=i {
                    let of_score = weights[j] * (of_weights[j] - mean) * scale;
                    add_times::<FMA>(&mut out[own.place(i, QUERY, head)], of_score, own.get(j, KEY, head));
                    add_times::<FMA>(&mut out[own.place(j, KEY, head)], of_score, own.get(i, QUERY, head));
                    add_times::<FMA>(&mut out[own.place(j, VALUE, head)], kept(j) * weights[j], g);
                }
            }
        }
    }
}

/// [`causal_attention`] in f64.
pub fn causal_attention_reference(of: &CausalAttention<'_>, qkv: &[f64]) -> Vec<f64> {
    let (width, dim) = (of.width, of.width / of.heads);
    let mut y = vec![0.0; of.sequences().rows() * width];
    for (rows, kept) in (0..of.ends.len()).map(|at| of.sequences().at(at)).zip(of.cut_kept()) {
        for (i, head) in rows.clone().flat_map(|i| (0..of.heads).map(move |head| (i, head))) {
            let get = |row: usize, which: usize| &qkv[(3 * row + which) * width + head * dim..][..dim];
            let score = |j: usize| {
                let dot: f64 = get(i, QUERY).iter().zip(get(j, KEY)).map(|(q, k)| q * k).sum();
                (dot / (dim as f64).sqrt()).exp()
            };
            let all: f64 = (rows.start..=i).map(score).sum();
            for j in rows.start..=i {
                // Rows before this one in the head, and heads before it, have their weights first.
                let (row, n) = (i - rows.start, rows.len());
                let place = head * n * (n + 1) / 2 + row * (row + 1) / 2 + (j - rows.start);
                let weight = kept.map_or(1.0, |kept| f64::from(kept[place])) * score(j) / all;
                for (at, v) in get(j, VALUE).iter().enumerate() {
                    y[i * width + head * dim + at] += weight * v;
                }
            }
        }
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
    fn two_rows_by_hand() {
        // Keys are equal, so the second row takes the mean of both values; the first has nothing but its own.
        let of = CausalAttention { ends: &[2], width: 1, heads: 1, kept: None };
        let mut y = [0.0; 2];
        causal_attention(&of, &[5.0, 1.0, 2.0, -3.0, 1.0, 4.0], &mut y).unwrap();
        assert_eq!(y, [2.0, 3.0]);
        // The first row's weight is left out, the second's are 1/2 and 1/2, of which one counts twice and one not at all.
        let kept = &[0.0, 2.0, 0.0][..];
        causal_attention(
            &CausalAttention { kept: Some(kept), ..of },
            &[5.0, 1.0, 2.0, -3.0, 1.0, 4.0],
            &mut y,
        )
        .unwrap();
        assert_eq!(y, [0.0, 2.0]);
        assert!(
            causal_attention(&CausalAttention { kept: Some(&kept[1..]), ..of }, &[0.0; 6], &mut y).is_err()
        );
        for heads in [0, 2] {
            assert!(causal_attention(&CausalAttention { heads, ..of }, &[0.0; 6], &mut y).is_err());
        }
        assert!(causal_attention(&CausalAttention { ends: &[2, 1], ..of }, &[0.0; 3], &mut [0.0]).is_err());
        let mut y = [0.0; 2];
        causal_attention(&of, &[f32::NAN, 1.0, 2.0, 1.0, 1.0, 1.0], &mut y).unwrap();
        assert!(y[0].is_nan() && y[1].is_finite());
    }

    #[test]
    fn every_level_agrees_with_the_reference_and_with_finite_differences() {
        for level in levels() {
            for (ends, width, heads) in [
                (&[][..], 4, 1),
                (&[1], 1, 1),
                (&[3, 3, 4], 4, 2),
                (&[0, 2, 9, 40], 6, 3),
                (&[33, 50], 32, 1),
            ] {
                let kept: Vec<f32> = (0..n_attention_weights(ends, heads))
                    .map(|at| if at * 7 % 5 < 2 { 0.0 } else { 1.5 })
                    .collect();
                let of = CausalAttention { ends, width, heads, kept: None };
                with_level(level, || agrees(&of));
                with_level(level, || agrees(&CausalAttention { kept: Some(&kept), ..of }));
            }
        }
    }

    fn agrees(of: &CausalAttention<'_>) {
        let n = of.sequences().rows() * of.width;
        let (qkv, w) = (some(3 * n, 1), some(n, 2));
        let wide: Vec<f64> = qkv.iter().map(|&x| f64::from(x)).collect();
        let mut y = vec![0.0; n];
        causal_attention(of, &qkv, &mut y).unwrap();
        for (ours, expected) in y.iter().zip(causal_attention_reference(of, &wide)) {
            assert!(
                (f64::from(*ours) - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                "{ours} for {expected}"
            );
        }
        for at in 0..of.ends.len() {
            let rows = of.sequences().at(at);
            let own = CausalAttention { ends: &[rows.len() as u32], kept: of.cut_kept()[at], ..*of };
            let mut alone = vec![0.0; rows.len() * of.width];
            causal_attention(&own, &qkv[rows.start * 3 * of.width..rows.end * 3 * of.width], &mut alone)
                .unwrap();
            assert_eq!(alone, y[rows.start * of.width..rows.end * of.width], "a sequence alone");
        }
        let mut last = vec![1.0; of.ends.len() * of.width];
        causal_attention_last(of, &qkv, &mut last).unwrap();
        let whole = CausalAttention { kept: None, ..*of };
        causal_attention(&whole, &qkv, &mut y).unwrap();
        for (at, last) in last.chunks_exact(of.width).enumerate() {
            let rows = of.sequences().at(at);
            let expected = match rows.is_empty() {
                true => vec![0.0; of.width],
                false => y[(rows.end - 1) * of.width..rows.end * of.width].to_vec(),
            };
            assert_eq!(last, expected, "the last row of sequence {at}");
        }
        let mut gradient = vec![0.0; 3 * n];
        causal_attention_backward(of, &qkv, &w, &mut gradient).unwrap();
        for at in (0..3 * n).step_by(5) {
            let moved = |by: f64| {
                let mut qkv = wide.clone();
                qkv[at] += by;
                let y = causal_attention_reference(of, &qkv);
                y.iter().zip(&w).map(|(y, &w)| y * f64::from(w)).sum::<f64>()
            };
            let expected = (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!((f64::from(gradient[at]) - expected).abs() < 1e-4 * (1.0 + expected.abs()), "{at}");
        }
    }
}
