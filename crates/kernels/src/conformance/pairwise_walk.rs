//! The definition of a deterministic epoch of `pairwise_update`: naive, single-threaded, in f64.
//!
//! Deals the cells and addresses the draws as the kernel's head says; scores, slopes, ranks and steps are written from
//! their formulas, one vector at a time.

use crate::{
    OnPositive, Optimizer, PairwiseEpoch, PairwiseLoss, Result,
    cells::{Cells, block_count},
    negative::{AliasTable, Distribution, popularity},
    philox::Draws,
};

/// Draws of WARP closer to the hinge than this could fall on either side of it in f32.
pub(super) const MARGIN: f64 = 4e-5;

/// Draws that are positives of their row before a negative is given up.
const MAX_TRIES: u64 = 16;
/// Keeps Adagrad from dividing by zero.
const LEAST: f64 = 1e-12;

/// A model in f64, with Adagrad's sums.
pub(super) struct Exact {
    dim: usize,
    /// Row factors, column factors, column biases, and the sums of each; nothing where there is none.
    numbers: [Vec<f64>; 6],
}

/// What an epoch did.
#[derive(Debug)]
pub(super) struct ExactStats {
    pub(super) loss: f64,
    pub(super) samples: u64,
    pub(super) skipped: u64,
    /// How close the closest draw of WARP was to the hinge.
    pub(super) margin: f64,
}

/// What a cell holds.
struct Dealt {
    /// The address of the first positive's draws.
    first: u64,
    /// `[row, column]`.
    positives: Vec<[u32; 2]>,
    pool: Pool,
}

/// Where a cell's negatives come from.
struct Pool {
    columns: Vec<u32>,
    distribution: Distribution,
    draws: Draws,
}

impl Pool {
    /// Draw `t` of sample `sample`: a block of four words serves four uniform draws or two by weight.
    fn pick(&self, sample: u64, t: u64) -> u32 {
        let words = match self.distribution {
            Distribution::Uniform(_) => {
                let block = self.draws.nth_try(t / 4).block(sample);
                [block[t as usize % 4], 0]
            }
            Distribution::Weighted(_) => {
                let block = self.draws.nth_try(t / 2).block(sample);
                [block[t as usize % 2 * 2], block[t as usize % 2 * 2 + 1]]
            }
        };
        self.columns[self.distribution.pick(words) as usize]
    }

    /// Draws a negative of `row` for `positive`, from try `t` on.
    fn draw(&self, epoch: &PairwiseEpoch<'_>, [row, positive]: [u32; 2], sample: u64, t: u64) -> Option<u32> {
        let (columns, values) = epoch.rows.row(row as usize);
        let is_positive = |column| columns.iter().zip(values).any(|(&c, &value)| c == column && value > 0.0);
        let rule = epoch.negatives.on_positive;
        let tries = if rule == OnPositive::Redraw { MAX_TRIES } else { 1 };
        (t * tries..(t + 1) * tries).map(|t| self.pick(sample, t)).find(|&column| match rule {
            OnPositive::Keep => column != positive,
            OnPositive::Redraw | OnPositive::Skip => !is_positive(column),
        })
    }
}

impl Exact {
    /// Starts from row factors, column factors, column biases, and Adagrad's sums of each.
    pub(super) fn new(numbers: [Vec<f32>; 6], dim: usize) -> Self {
        Self { dim, numbers: numbers.map(|part| part.into_iter().map(f64::from).collect()) }
    }

    pub(super) fn numbers(&self) -> &[Vec<f64>; 6] {
        &self.numbers
    }

    /// Runs one epoch.
    pub(super) fn walk(&mut self, epoch: &PairwiseEpoch<'_>) -> Result<ExactStats> {
        let mut stats = ExactStats { loss: 0.0, samples: 0, skipped: 0, margin: f64::INFINITY };
        let per_positive = u64::from(epoch.negatives.per_positive);
        for cell in cells(epoch, self.numbers[1].len() / self.dim)? {
            for (at, &[row, column]) in cell.positives.iter().enumerate() {
                if epoch.loss == PairwiseLoss::Logistic {
                    self.logistic(epoch, row, &[(column, 1.0)], &mut stats);
                }
                for n in 0..per_positive {
                    let sample = (cell.first + at as u64) * per_positive + n;
                    let draw = |t: u32, stats: &mut ExactStats| {
                        let drawn = cell.pool.draw(epoch, [row, column], sample, t.into());
                        stats.skipped += u64::from(drawn.is_none());
                        drawn
                    };
                    match epoch.loss {
                        PairwiseLoss::Warp { max_draws } => {
                            stats.samples += 1;
                            self.warp(epoch, [row, column], max_draws, draw, &mut stats);
                        }
                        PairwiseLoss::Bpr => {
                            if let Some(negative) = draw(0, &mut stats) {
                                self.logistic(epoch, row, &[(column, 1.0), (negative, -1.0)], &mut stats);
                            }
                        }
                        PairwiseLoss::Logistic => {
                            if let Some(negative) = draw(0, &mut stats) {
                                self.logistic(epoch, row, &[(negative, -1.0)], &mut stats);
                            }
                        }
                    }
                }
            }
        }
        stats.loss /= stats.samples.max(1) as f64;
        Ok(stats)
    }

    /// Draws until a negative violates the margin, and steps by its estimated rank.
    fn warp(
        &mut self,
        epoch: &PairwiseEpoch<'_>,
        [row, column]: [u32; 2],
        max_draws: u32,
        draw: impl Fn(u32, &mut ExactStats) -> Option<u32>,
        stats: &mut ExactStats,
    ) {
        let harmonic = |k: usize| (1..=k).map(|i| 1.0 / i as f64).sum::<f64>();
        let n_columns = self.numbers[1].len() / self.dim;
        for t in 0..max_draws {
            let Some(negative) = draw(t, stats) else { continue };
            let signs = [(column, 1.0), (negative, -1.0)];
            let apart = self.score(row, &signs);
            stats.margin = stats.margin.min((1.0 - apart).abs());
            if apart < 1.0 {
                let rank = ((n_columns - 1) / (t as usize + 1)).max(1);
                let weight = harmonic(rank) / harmonic(n_columns);
                stats.loss += weight * (1.0 - apart);
                self.step(epoch, row, &signs, weight);
                return;
            }
        }
    }

    /// Steps by the logistic loss of the score's signed sum.
    fn logistic(
        &mut self,
        epoch: &PairwiseEpoch<'_>,
        row: u32,
        signs: &[(u32, f64)],
        stats: &mut ExactStats,
    ) {
        let x = self.score(row, signs);
        stats.samples += 1;
        stats.loss += (-x).exp().ln_1p();
        self.step(epoch, row, signs, 1.0 / (1.0 + x.exp()));
    }

    /// `Σ sign (p_r . q_c + b_c)`.
    fn score(&self, row: u32, signs: &[(u32, f64)]) -> f64 {
        let [rows, columns, bias, ..] = &self.numbers;
        let p = &rows[row as usize * self.dim..][..self.dim];
        let one = |&(column, sign): &(u32, f64)| {
            let q = &columns[column as usize * self.dim..][..self.dim];
            let dot: f64 = p.iter().zip(q).map(|(a, b)| a * b).sum();
            sign * (dot + bias.get(column as usize).unwrap_or(&0.0))
        };
        signs.iter().map(one).sum()
    }

    /// Moves the row, the columns and their biases by slope `z`; every gradient is taken before any of the moves.
    fn step(&mut self, epoch: &PairwiseEpoch<'_>, row: u32, signs: &[(u32, f64)], z: f64) {
        let dim = self.dim;
        let [rows, columns, bias, row_sums, column_sums, bias_sums] = &mut self.numbers;
        let (l2, bias_l2) = (f64::from(epoch.regularization), f64::from(epoch.bias_regularization));
        let rate = |sums: &mut [f64], at: u32, square: f64, l2: f64| match epoch.optimizer {
            Optimizer::Sgd => f64::from(epoch.learning_rate),
            Optimizer::Adagrad => {
                sums[at as usize] += square;
                f64::from(epoch.learning_rate) / (sums[at as usize] + (l2 * l2).max(LEAST)).sqrt()
            }
        };
        let mean_square = |gradient: &[f64]| gradient.iter().map(|g| g * g).sum::<f64>() / dim as f64;
        let p = rows[row as usize * dim..][..dim].to_vec();
        let mut gradient = vec![0.0; dim];
        for &(column, sign) in signs {
            let q = &mut columns[column as usize * dim..][..dim];
            gradient.iter_mut().zip(&*q).for_each(|(g, q)| *g += z * sign * q);
            let pull: Vec<f64> = p.iter().map(|p| z * sign * p).collect();
            let rate_of_column = rate(column_sums, column, mean_square(&pull), l2);
            q.iter_mut().zip(pull).for_each(|(q, pull)| *q += rate_of_column * (pull - l2 * *q));
            if !bias.is_empty() {
                let rate_of_bias = rate(bias_sums, column, z * z, bias_l2);
                let b = &mut bias[column as usize];
                *b += rate_of_bias * (z * sign - bias_l2 * *b);
            }
        }
        let rate_of_row = rate(row_sums, row, mean_square(&gradient), l2);
        let p = &mut rows[row as usize * dim..][..dim];
        p.iter_mut().zip(gradient).for_each(|(p, g)| *p += rate_of_row * (g - l2 * *p));
    }
}

/// The cells of an epoch in the order of a single thread.
fn cells(epoch: &PairwiseEpoch<'_>, n_columns: usize) -> Result<Vec<Dealt>> {
    let rows = epoch.rows;
    let stream = |purpose| Draws::new(epoch.seed, ((epoch.epoch & 0xffff_ffff) << 8) | purpose);
    let blocks = block_count(rows.n_rows(), n_columns, rows.nnz());
    let dealt = Cells::deal(rows, n_columns, blocks, [stream(0), stream(1)], |v| (v > 0.0).then_some(()))?;
    let exponent = epoch.negatives.popularity_exponent;
    let weights = popularity(rows, n_columns, exponent);
    dealt.run(
        || (),
        |(), cell| {
            let columns = cell.columns.to_vec();
            let mut own: Vec<f32> = columns.iter().map(|&column| weights[column as usize]).collect();
            if own.iter().all(|&weight| weight == 0.0) {
                own.fill(1.0);
            }
            let distribution = match exponent == 0.0 || columns.is_empty() {
                true => Distribution::Uniform(columns.len() as u32),
                false => Distribution::Weighted(AliasTable::new(&own)?),
            };
            let positives = cell.entries.iter().map(|entry| [entry.row, entry.column]).collect();
            let pool = Pool { columns, distribution, draws: stream(2) };
            Ok(Dealt { first: cell.first, positives, pool })
        },
    )
}
