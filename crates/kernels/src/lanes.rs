//! Folds over rows in sixteen lanes, which a compiler holds in one or two vector registers; in one order on every machine.
//!
//! Everything is inlined into functions that are compiled once per instruction set. `FMA` says whether that set multiplies and adds in
//! one rounding.

use crate::exp::madd;

pub(crate) const LANES: usize = 16;

/// What all lanes together give: halves onto halves, the order that vector registers fold in.
#[inline(always)]
fn together(mut lanes: [f32; LANES], mut with: impl FnMut(f32, f32) -> f32) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = with(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

/// `start` with `of` of each value, lane by lane, and all lanes together.
#[inline(always)]
pub(crate) fn fold(
    values: &[f32],
    start: f32,
    of: impl Fn(f32) -> f32,
    mut with: impl FnMut(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole {
        for lane in 0..LANES {
            lanes[lane] = with(lanes[lane], of(values[lane]));
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(rest) {
        *lane = with(*lane, of(value));
    }
    together(lanes, with)
}

/// The sum over rows of one length of the products of the two factors that `term` gives for one value of each row.
///
/// Whole blocks are taken as arrays, and one sum at a time: with a check of bounds at every value, or with several sums side
/// by side, the compiler makes an instruction of each value instead of eight or sixteen.
#[inline(always)]
pub(crate) fn sum<const FMA: bool, const R: usize>(
    rows: [&[f32]; R],
    term: impl Fn([f32; R]) -> (f32, f32),
) -> f32 {
    let mut sums = [0.0f32; LANES];
    let blocks = rows.map(|row| row.as_chunks::<LANES>());
    for at in 0..blocks[0].0.len() {
        let values = blocks.map(|(whole, _)| &whole[at]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            let (a, b) = term(values.map(|values| values[lane]));
            *sum = madd::<FMA>(a, b, *sum);
        }
    }
    for (lane, sum) in sums.iter_mut().enumerate().take(blocks[0].1.len()) {
        let (a, b) = term(blocks.map(|(_, rest)| rest[lane]));
        *sum = madd::<FMA>(a, b, *sum);
    }
    together(sums, plus)
}

#[inline(always)]
pub(crate) fn plus(a: f32, b: f32) -> f32 {
    a + b
}

/// `a . b`.
#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    sum::<FMA, 2>([a, &b[..a.len()]], |[a, b]| (a, b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_of_any_length() {
        for n in [0, 1, 15, 16, 17, 31, 32, 33, 64, 100] {
            let row = |k: usize| (0..n).map(|i| ((i * k) % 7) as f32 - 3.0).collect::<Vec<f32>>();
            let (p, q) = (row(1), row(2));
            assert_eq!(dot::<true>(&p, &q), (0..n).map(|k| p[k] * q[k]).sum::<f32>());
            assert_eq!(
                sum::<false, 2>([&p, &q], |[p, q]| (p - q, 2.0)),
                (0..n).map(|k| 2.0 * (p[k] - q[k])).sum::<f32>()
            );
            let moved = fold(&p, 0.0, |p| p + 3.0, plus);
            assert_eq!(moved, p.iter().map(|p| p + 3.0).sum::<f32>());
            assert_eq!(
                fold(&p, f32::NEG_INFINITY, |p| p, f32::max),
                p.iter().copied().fold(f32::NEG_INFINITY, f32::max)
            );
        }
    }
}
