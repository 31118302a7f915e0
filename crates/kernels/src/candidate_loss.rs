//! The loss of rows that score many candidates, one of which is right, and its gradient; on the CPU.
//!
//! ```text
//! softmax     l = ln Σ_c exp(s_c) - s_t                                      ∂s_c = p_c - [c = t]      p = softmax(s)
//! logistic    l = a ln(1 + exp(-s_t)) + b Σ_{c ≠ t} ln(1 + exp(s_c))         ∂s_t = -a σ(-s_t)   ∂s_c = b σ(s_c)
//! pairwise    l = b Σ_{c ≠ t} ln(1 + exp(s_c - s_t))                         ∂s_c = b σ(s_c - s_t)   ∂s_t = -Σ ∂s_c
//! contrastive l = 1 - s_t + b Σ_{c ≠ t} max(0, s_c - m)                      ∂s_t = -1   ∂s_c = b [s_c > m]
//! ```
//!
//! `t` is a row's target. Candidates that are hidden from a row, such as what its user has had, count in no sum, unless they are the
//! target; nor do those behind the common ones, which are there to be targets. What corrects for how often a candidate is drawn (log-Q) is part of the scores.
//!
//! | name     | shape                | type | |
//! |----------|----------------------|------|---|
//! | `scores` | `[rows, candidates]` | f32  | in: `s`; out: `scale ∂s` |
//! | `losses` | `[rows]`             | f32  | `l` |
//!
//! # Cost
//! Memory-bound, two passes over `scores` and one exponential a score.
//!
//! # Determinism
//! The same bits for any number of threads; a row's result has the same bits alone and in any batch. A score that is NaN or infinite
//! makes its row's loss NaN.
//!
//! # Source
//! Hidasi et al. 2016 for softmax over sampled items; Petrov, Macdonald 2023 (gSASRec) for a logistic loss whose positive part is scaled;
//! Rendle et al. 2009 (BPR) for pairs; Mao et al. 2021 (SimpleX) for the contrastive loss of cosines.

use rayon::prelude::*;

use crate::{
    Error, Result,
    exp::{LogSum, exp_of_negative},
    lanes::{fold, plus},
    simd::{self, Kernel, Level, Simd, dispatch},
};

const OP: &str = "candidate_loss";
/// Values that one task goes over, about.
const TASK_VALUES: usize = 1 << 16;

/// Which loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CandidateLoss {
    /// Which of the candidates is right.
    Softmax,
    /// Of each candidate whether it is right.
    Logistic {
        /// `a`: what the target counts.
        positive: f32,
        /// `b`: what each other candidate counts.
        negative: f32,
    },
    /// Of each other candidate whether it stands below the target.
    Pairwise {
        /// `b`: what each other candidate counts.
        negative: f32,
    },
    /// How near the target is, and how far each other candidate is above a margin.
    Contrastive {
        /// `b`: what each other candidate counts.
        negative: f32,
        /// `m`: up to here a candidate is no loss.
        margin: f32,
    },
}

/// What rows choose from.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// Candidates a row.
    pub n: usize,
    /// How many of them, the first ones, all rows choose from; the others are each a candidate only where they are right.
    pub common: usize,
    /// The candidate that is right, of each row.
    pub targets: &'a [u32],
    /// Whose hidden candidates are a row's: a number below `hidden.len()`; empty where nothing is hidden from anyone.
    pub groups: &'a [u32],
    /// The candidates that are hidden from the rows of each group.
    pub hidden: &'a [Vec<u32>],
}

impl Candidates<'_> {
    fn check(&self, scores: usize, losses: usize) -> Result<()> {
        let rows = self.targets.len();
        let shape = |what, expected, got| Err(Error::Shape { op: OP, what, expected, got });
        if scores != rows * self.n {
            return shape("scores", rows * self.n, scores);
        }
        if self.common > self.n {
            return shape("common candidates", self.n, self.common);
        }
        if losses != rows {
            return shape("losses", rows, losses);
        }
        if !self.groups.is_empty() && self.groups.len() != rows {
            return shape("groups", rows, self.groups.len());
        }
        let out_of = |rows: usize, (position, index): (usize, u32)| {
            Err(Error::IndexOutOfRange { op: OP, position, rows: rows as u64, index: u64::from(index) })
        };
        let bad = |values: &[u32], limit: usize| {
            values.iter().position(|&value| value as usize >= limit).map(|at| (at, values[at]))
        };
        if let Some(bad) = bad(self.targets, self.n) {
            return out_of(self.n, bad);
        }
        if let Some(bad) = bad(self.groups, self.hidden.len()) {
            return out_of(self.hidden.len(), bad);
        }
        match self.hidden.iter().find_map(|hidden| bad(hidden, self.n)) {
            Some(bad) => out_of(self.n, bad),
            None => Ok(()),
        }
    }
}

/// Turns scores into their gradients times `scale`, and writes each row's loss.
///
/// # Errors
/// [`Error::Shape`]; [`Error::IndexOutOfRange`] for a target, a group or a hidden candidate that there is not.
pub fn candidate_loss(
    loss: CandidateLoss,
    candidates: &Candidates<'_>,
    scale: f32,
    scores: &mut [f32],
    losses: &mut [f32],
) -> Result<()> {
    candidates.check(scores.len(), losses.len())?;
    let level = simd::level();
    let n = candidates.n.max(1);
    let rows = (TASK_VALUES / n).max(1);
    scores.par_chunks_mut(rows * n).zip(losses.par_chunks_mut(rows)).enumerate().for_each(
        |(task, (scores, losses))| {
            let first = task * rows;
            match level {
                Level::Portable => {
                    dispatch(level, Rows::<false> { loss, candidates, scale, first, scores, losses })
                }
                _ => dispatch(level, Rows::<true> { loss, candidates, scale, first, scores, losses }),
            }
        },
    );
    Ok(())
}

struct Rows<'a, const FMA: bool> {
    loss: CandidateLoss,
    candidates: &'a Candidates<'a>,
    scale: f32,
    first: usize,
    scores: &'a mut [f32],
    losses: &'a mut [f32],
}

impl<const FMA: bool> Kernel for Rows<'_, FMA> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let of = self.candidates;
        for (at, (scores, loss)) in self.scores.chunks_exact_mut(of.n).zip(self.losses).enumerate() {
            let row = self.first + at;
            let target = of.targets[row] as usize;
            let hidden: &[u32] = of.groups.get(row).map_or(&[], |&group| &of.hidden[group as usize]);
            let own = scores[target];
            let bad = fold(scores, 0.0, |score| score * 0.0, plus);
            let (common, others) = scores.split_at_mut(of.common);
            others.fill(0.0);
            let hidden = hidden.iter().map(|&column| column as usize).filter(|&column| column < of.common);
            hidden
                .clone()
                .chain((target < of.common).then_some(target))
                .for_each(|column| common[column] = NEVER);
            let scale = self.scale;
            let (value, of_target) = match self.loss {
                CandidateLoss::Softmax => softmax::<FMA>(common, own, scale),
                CandidateLoss::Logistic { positive, negative } => {
                    let (others, _) = softplus::<FMA>(common, 0.0, negative * scale);
                    let (right, slope) = softplus::<FMA>(&mut [-own], 0.0, -positive * scale);
                    let value = f64::from(positive) * right + f64::from(negative) * others;
                    (value as f32, slope)
                }
                CandidateLoss::Pairwise { negative } => {
                    let (value, slopes) = softplus::<FMA>(common, own, negative * scale);
                    ((f64::from(negative) * value) as f32, -slopes)
                }
                CandidateLoss::Contrastive { negative, margin } => {
                    (1.0 - own + negative * above(common, margin, negative * scale), -scale)
                }
            };
            hidden.for_each(|column| common[column] = 0.0);
            scores[target] = of_target;
            *loss = value + bad;
        }
    }
}

/// The score of what is hidden: so low that its exponential is nothing.
const NEVER: f32 = -1e30;

/// The loss of a target that scores `own` against the others; they become their gradients, and the target's is returned.
#[inline(always)]
fn softmax<const FMA: bool>(others: &mut [f32], own: f32, scale: f32) -> (f32, f32) {
    let most = fold(others, own, |score| score, |most, score| if score > most { score } else { most });
    let of_own = exp_of_negative::<FMA>(own - most);
    others.iter_mut().for_each(|score| *score = exp_of_negative::<FMA>(*score - most));
    let sum = fold(others, 0.0, |value| value, plus);
    let share = scale / (sum + of_own);
    others.iter_mut().for_each(|score| *score *= share);
    // What is not the target, rather than 1 less what is: near 1 the difference would be rounding.
    ((sum + of_own).ln() - (own - most), -sum * share)
}

/// `Σ ln(1 + exp(s - from))`, and the sum of its slopes times `weight`, which the scores become.
#[inline(always)]
fn softplus<const FMA: bool>(scores: &mut [f32], from: f32, weight: f32) -> (f64, f32) {
    // ln(1 + exp(x)) = max(x, 0) + ln(1 + exp(-|x|))
    let above = fold(scores, 0.0, |score| (score - from).max(0.0), plus);
    let mut logs = LogSum::new();
    for score in scores.iter_mut() {
        let x = *score - from;
        let t = exp_of_negative::<FMA>(-x.abs());
        *score = if x > 0.0 { 1.0 } else { t } / (1.0 + t) * weight;
        logs.add(t);
    }
    (f64::from(above) + logs.total(), fold(scores, 0.0, |slope| slope, plus))
}

/// `Σ max(0, s - margin)`; the scores become its slopes times `weight`.
#[inline(always)]
fn above(scores: &mut [f32], margin: f32, weight: f32) -> f32 {
    let sum = fold(scores, 0.0, |score| (score - margin).max(0.0), plus);
    scores.iter_mut().for_each(|score| *score = if *score > margin { weight } else { 0.0 });
    sum
}

/// [`candidate_loss`] in f64: the losses.
pub fn candidate_loss_reference(
    loss: CandidateLoss,
    candidates: &Candidates<'_>,
    scores: &[f64],
) -> Vec<f64> {
    let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
    let of_row = |(row, scores): (usize, &[f64])| {
        let target = candidates.targets[row] as usize;
        let hidden = candidates.groups.get(row).map(|&group| &candidates.hidden[group as usize]);
        let others = (0..candidates.common)
            .filter(|&c| c != target && hidden.is_none_or(|hidden| !hidden.contains(&(c as u32))));
        match loss {
            CandidateLoss::Softmax => {
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let sum = others.chain([target]).map(|c| (scores[c] - most).exp()).sum::<f64>();
                sum.ln() + most - scores[target]
            }
            CandidateLoss::Logistic { positive, negative } => {
                let of_others = others.map(|c| softplus(scores[c])).sum::<f64>();
                f64::from(positive) * softplus(-scores[target]) + f64::from(negative) * of_others
            }
            CandidateLoss::Pairwise { negative } => {
                f64::from(negative) * others.map(|c| softplus(scores[c] - scores[target])).sum::<f64>()
            }
            CandidateLoss::Contrastive { negative, margin } => {
                let of_others = others.map(|c| (scores[c] - f64::from(margin)).max(0.0)).sum::<f64>();
                1.0 - scores[target] + f64::from(negative) * of_others
            }
        }
    };
    scores.chunks(candidates.n).enumerate().map(of_row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{levels, with_level};

    const LOSSES: [CandidateLoss; 4] = [
        CandidateLoss::Softmax,
        CandidateLoss::Logistic { positive: 0.3, negative: 0.25 },
        CandidateLoss::Pairwise { negative: 0.25 },
        CandidateLoss::Contrastive { negative: 0.25, margin: 0.44 },
    ];

    #[test]
    fn by_hand() {
        let of = Candidates { n: 3, common: 3, targets: &[1], groups: &[], hidden: &[] };
        let (mut scores, mut losses) = ([0.0; 3], [0.0]);
        candidate_loss(CandidateLoss::Softmax, &of, 3.0, &mut scores, &mut losses).unwrap();
        assert!((losses[0] - 3f32.ln()).abs() < 1e-6);
        for (ours, expected) in scores.iter().zip([1.0, -2.0, 1.0]) {
            assert!((ours - expected).abs() < 1e-6);
        }
        let loss = CandidateLoss::Logistic { positive: 2.0, negative: 0.5 };
        let mut scores = [0.0; 3];
        candidate_loss(loss, &of, 1.0, &mut scores, &mut losses).unwrap();
        assert!((losses[0] - 3.0 * 2f32.ln()).abs() < 1e-6);
        assert_eq!(scores, [0.25, -1.0, 0.25]);
        let (mut scores, loss) = ([0.0; 3], CandidateLoss::Pairwise { negative: 0.5 });
        candidate_loss(loss, &Candidates { common: 2, ..of }, 1.0, &mut scores, &mut losses).unwrap();
        assert!((losses[0] - 0.5 * 2f32.ln()).abs() < 1e-6);
        assert_eq!(scores, [0.25, -0.25, 0.0], "the third is no candidate of the first");
        let loss = CandidateLoss::Contrastive { negative: 0.5, margin: 0.25 };
        let mut scores = [0.75, 0.5, 0.0];
        candidate_loss(loss, &of, 1.0, &mut scores, &mut losses).unwrap();
        assert_eq!((losses[0], scores), (0.75, [0.5, -1.0, 0.0]));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for loss in LOSSES {
                candidate_loss(loss, &of, 1.0, &mut [0.0, 1.0, bad], &mut losses).unwrap();
                assert!(losses[0].is_nan(), "{bad} {loss:?}");
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let hidden = [vec![2], vec![3]];
        let of = Candidates { n: 3, common: 3, targets: &[1], groups: &[0], hidden: &hidden[..1] };
        let run = |of: Candidates<'_>, n: usize| {
            candidate_loss(CandidateLoss::Softmax, &of, 1.0, &mut vec![0.0; n], &mut [0.0])
        };
        assert!(run(of, 3).is_ok());
        assert!(run(of, 4).is_err());
        assert!(run(Candidates { targets: &[3], ..of }, 3).is_err());
        assert!(run(Candidates { groups: &[1], ..of }, 3).is_err());
        assert!(run(Candidates { groups: &[0, 0], ..of }, 3).is_err());
        assert!(run(Candidates { hidden: &hidden, ..of }, 3).is_err());
        assert!(run(Candidates { common: 4, ..of }, 3).is_err());
    }

    #[test]
    fn every_level_agrees_with_the_reference_and_with_finite_differences() {
        for (level, loss) in levels().flat_map(|level| LOSSES.map(|loss| (level, loss))) {
            for (rows, n) in [(0, 4), (1, 1), (3, 5), (2, 700), (300, 300)] {
                for common in [n, n / 2, 0] {
                    with_level(level, || agrees(loss, rows, n, common));
                }
            }
        }
    }

    fn agrees(loss: CandidateLoss, rows: usize, n: usize, common: usize) {
        let some = |i: usize| ((i * 37 + i / 61 * 13) % 61) as f32 / 10.0 - 3.0;
        let before: Vec<f32> = (0..rows * n).map(some).collect();
        let wide: Vec<f64> = before.iter().map(|&x| f64::from(x)).collect();
        let targets: Vec<u32> = (0..rows).map(|row| (row * 7 % n) as u32).collect();
        let groups: Vec<u32> = (0..rows).map(|row| (row % 2) as u32).collect();
        let hidden = [(0..n as u32).filter(|c| c % 3 == 0).collect(), Vec::new()];
        let of = Candidates { n, common, targets: &targets, groups: &groups, hidden: &hidden };
        let (mut scores, mut losses) = (before.clone(), vec![0.0; rows]);
        candidate_loss(loss, &of, 0.5, &mut scores, &mut losses).unwrap();
        for (ours, expected) in losses.iter().zip(candidate_loss_reference(loss, &of, &wide)) {
            assert!(
                (f64::from(*ours) - expected).abs() < 2e-6 * (1.0 + expected.abs()),
                "{ours} for {expected}"
            );
        }
        let pick = |at: usize| (at * 11) % (rows * n);
        for at in (0..20.min(rows * n)).map(pick) {
            let row = at / n;
            let moved = |by: f64| {
                let mut scores = wide[row * n..][..n].to_vec();
                scores[at % n] += by;
                let own = Candidates { targets: &targets[row..=row], groups: &groups[row..=row], ..of };
                candidate_loss_reference(loss, &own, &scores)[0]
            };
            let expected = 0.5 * (moved(1e-4) - moved(-1e-4)) / 2e-4;
            assert!(
                (f64::from(scores[at]) - expected).abs() < 1e-6 * (1.0 + expected.abs()),
                "{at}: {} for {expected}",
                scores[at]
            );
            let is_hidden = hidden[row % 2].contains(&((at % n) as u32)) || at % n >= common;
            let is_hidden = is_hidden && targets[row] as usize != at % n;
            assert!(!is_hidden || scores[at] == 0.0, "what is hidden has no gradient");
        }
        if rows > 1 {
            let own = Candidates { targets: &targets[1..2], groups: &groups[1..2], ..of };
            let (mut alone, mut loss_alone) = (before[n..2 * n].to_vec(), [0.0]);
            candidate_loss(loss, &own, 0.5, &mut alone, &mut loss_alone).unwrap();
            assert_eq!((&alone[..], loss_alone[0]), (&scores[n..2 * n], losses[1]), "a row alone");
        }
    }
}
