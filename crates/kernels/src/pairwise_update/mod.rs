//! One epoch of pairwise or logistic learning of factors from positives: BPR, WARP, logistic matrix factorization.
//!
//! ```text
//! x(r, c) = p_r . q_c + b_c                      i: a column that row r has a value in,   j: one that it has none in
//!
//! BPR       minimize  ln(1 + exp(-d)),                     d = x(r, i) - x(r, j)
//! WARP      minimize  L(rank) / L(n) * max(0, 1 - d),      j = first draw with d < 1 after t draws, rank = (n - 1) / t
//! logistic  minimize  ln(1 + exp(-x(r, i))) + Σ_j ln(1 + exp(x(r, j)))
//!
//! with z = -∂loss/∂d:
//! p_r += s_r (z (q_i - q_j) - λ p_r)      q_i += s_i ( z p_r - λ q_i)      b_i += s (z - λ b_i)
//!                                         q_j += s_j (-z p_r - λ q_j)      b_j -= s (z + λ b_j)
//! ```
//! L(k) is the k-th harmonic number. `s` is the learning rate, for Adagrad divided by the root of the sum of squares of
//! all gradients so far: of each bias, and of the mean square of each whole row ("row-wise"), L2 left out but for λ², which
//! every sum begins with.
//!
//! # Layout
//!
//! | name             | shape                 | type  | constraint                                    |
//! |------------------|-----------------------|-------|-----------------------------------------------|
//! | `rows`           | `[n_rows, n_columns]` | CSR   | values above 0 are positives, others are not  |
//! | `row_factors`    | `[n_rows, dim]`       | f32   | read and written                              |
//! | `column_factors` | `[n_columns, dim]`    | f32   | read and written                              |
//! | `column_bias`    | `[n_columns]`         | f32   | read and written                              |
//! | `state`          | 1 value a row, column | f32   | read and written by Adagrad                   |
//!
//! # Cost
//! A triple reads and writes three rows: `24 * dim` bytes and `14 * dim` operations. Beside its operands an epoch holds
//! [`pairwise_epoch_bytes`] in the host's memory.
//!
//! On a GPU the walk of a cell is one chain, in which a triple waits for two rows, a sum over units, an exponential; a round
//! has as many chains as blocks, a plane or a work group each. Negatives hang on no factor and are drawn beside them, all of
//! a launch at once. Per epoch 8 bytes a positive and 16 a cell cross the bus, biases and Adagrad's sums both ways. There a
//! launch holds 8 bytes a positive of a round and 4 a draw, of which WARP makes `max_draws` for each sample. A table of several
//! chunks is copied to one scratch table and back: once an epoch (`16 * dim` bytes a row) where a scratch may be as large, and
//! otherwise by every launch with the rows of its blocks. Racing walks up to 16,384 pieces of 32 to 1,024 positives at once,
//! as long as that is fewer pieces than columns.
//!
//! # Determinism
//! [`Mode::Deterministic`] gives the same bits for every number of threads: rows and columns are cut into blocks, and
//! cells of disjoint blocks run in parallel (`cells`). The price: the negatives of a positive come from its own
//! column block, `1 / blocks` of all columns, dealt anew each epoch. Over epochs every pair can meet; within
//! one, a column is drawn in proportion to the positives that its block happens to hold, so the block of a column with a
//! share `f` of all positives is drawn `1 + (blocks - 1) f` times as often: 5% more for `f` = 0.3% and 16 blocks.
//! Each positive is visited once an epoch. [`Mode::Hogwild`] draws from all columns, races, and repeats nothing.
//!
//! A GPU deals the same cells, makes the same draws and walks in the same order, so that what it learns is what the CPU
//! learns up to rounding, and has the same bits in every run and for tables in chunks of any size.
//!
//! # Source
//! Rendle, Freudenthaler, Gantner, Schmidt-Thieme 2009 (BPR); Weston, Bengio, Usunier 2011 (WARP); Johnson 2014
//! (logistic); Duchi, Hazan, Singer 2011 (Adagrad); Niu, Recht, Ré, Wright 2011 (Hogwild).

#[cfg(feature = "gpu")]
mod cube;
pub(crate) mod step;

#[cfg(test)]
mod tests;
mod train;

use crate::{
    Device, Error, Result, SparseRows, Table,
    buffer::on_gpu,
    cells::{Cells, block_count},
    negative::{AliasTable, popularity},
    philox::Draws,
    shared_rows::SharedRows,
};

const OP: &str = "pairwise_update";

/// What a positive and its negatives are compared by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PairwiseLoss {
    /// Bayesian personalised ranking: the logistic loss of the difference.
    Bpr,
    /// Weighted approximate-rank pairwise: the hinge loss of the first violating negative, by estimated rank.
    Warp {
        /// Draws before the positive counts as ranked well enough.
        max_draws: u32,
    },
    /// The logistic loss of the positive and of each negative by itself.
    Logistic,
}

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Optimizer {
    /// The learning rate is the step size.
    Sgd,
    /// The learning rate is divided by the root of the row's summed mean square gradients.
    Adagrad,
}

/// What happens to a draw that is a positive of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnPositive {
    /// Drawn again, up to 16 times, then skipped.
    Redraw,
    /// Left out and counted.
    Skip,
    /// Used as a negative, unless it is the very positive it is compared with.
    Keep,
}

/// How negatives are drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Negatives {
    /// Columns are drawn by their number of values to this power; 0 draws all columns alike.
    pub popularity_exponent: f32,
    /// Negatives for each positive.
    pub per_positive: u32,
    /// What happens to a draw that is a positive of its row.
    pub on_positive: OnPositive,
}

impl Default for Negatives {
    fn default() -> Self {
        Self { popularity_exponent: 0.0, per_positive: 1, on_positive: OnPositive::Redraw }
    }
}

/// How threads, and a GPU's work groups, share the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The same bits for every number of threads, and in every run on one device.
    Deterministic,
    /// Threads race for columns: every run differs, and an update may be lost.
    Hogwild,
}

/// One epoch's data and settings.
#[derive(Clone, Copy, Debug)]
pub struct PairwiseEpoch<'a> {
    /// Values above 0 are positives.
    pub rows: SparseRows<'a>,
    /// What is minimized.
    pub loss: PairwiseLoss,
    /// How a gradient becomes a step.
    pub optimizer: Optimizer,
    /// Step size.
    pub learning_rate: f32,
    /// L2 weight of the factors, per visit.
    pub regularization: f32,
    /// L2 weight of the column biases, per visit.
    pub bias_regularization: f32,
    /// How negatives are drawn.
    pub negatives: Negatives,
    /// Fixes every draw and order, together with `epoch`.
    pub seed: u64,
    /// Number of the epoch: no two epochs of a training may share it.
    pub epoch: u64,
    /// How threads share the tables.
    pub mode: Mode,
}

/// Adagrad's sums, to be kept from epoch to epoch and in checkpoints; empty for SGD.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PairwiseState {
    /// Summed mean square gradient of each row's factors: `[n_rows]`.
    pub rows: Vec<f32>,
    /// Summed mean square gradient of each column's factors: `[n_columns]`.
    pub columns: Vec<f32>,
    /// Summed square gradient of each column's bias: `[n_columns]`.
    pub biases: Vec<f32>,
}

impl PairwiseState {
    /// Returns the state before the first epoch.
    pub fn new(optimizer: Optimizer, n_rows: usize, n_columns: usize) -> Self {
        let mut state = Self::default();
        state.extend(optimizer, n_rows, n_columns);
        state
    }

    /// Appends the state of new rows and columns up to the given numbers.
    pub fn extend(&mut self, optimizer: Optimizer, n_rows: usize, n_columns: usize) {
        if optimizer == Optimizer::Adagrad {
            self.rows.resize(n_rows, 0.0);
            self.columns.resize(n_columns, 0.0);
            self.biases.resize(n_columns, 0.0);
        }
    }
}

/// What an epoch did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PairwiseStats {
    /// Mean loss of the samples, each taken before its own step; L2 is not counted.
    pub loss: f64,
    /// Positives compared with a negative.
    pub samples: u64,
    /// Draws left out because they were positives of their row.
    pub skipped: u64,
}

/// Changes `row_factors`, `column_factors` and `column_bias` by one epoch over all positives.
///
/// Runs on the current rayon pool; with both tables on one GPU there, the biases and the state being copied to it and back.
/// On an error the operands hold part of an epoch.
///
/// # Shapes
/// - `epoch.rows`: `[n_rows, n_columns]`; `row_factors`: `[n_rows, dim]`; `column_factors`: `[n_columns, dim]`
/// - `column_bias`: `[n_columns]`, or nothing to learn none
///
/// # Errors
/// [`Error::Shape`], [`Error::Parameter`], [`Error::RowType`], [`Error::MixedDevices`], those of [`SparseRows::check`]
/// for operands that do not fit; [`Error::OutOfMemory`], [`Error::BufferTooLarge`], [`Error::DeviceLost`];
/// [`Error::NotFinite`] with the first row whose score is NaN or infinite.
///
/// # Determinism
/// See the head of this file.
pub fn pairwise_epoch(
    epoch: &PairwiseEpoch,
    row_factors: &mut Table,
    column_factors: &mut Table,
    column_bias: Option<&mut [f32]>,
    state: &mut PairwiseState,
) -> Result<PairwiseStats> {
    check(epoch, row_factors, column_factors, column_bias.as_deref(), state)?;
    if row_factors.device() != column_factors.device() {
        return Err(Error::MixedDevices { op: OP });
    }
    match row_factors.device() {
        Device::Cpu => on_cpu(epoch, row_factors, column_factors, column_bias, state),
        device => on_gpu!(OP, device, R => {
            cube::on_cube::<R>(epoch, row_factors, column_factors, column_bias, state, device)
        }),
    }
}

fn on_cpu(
    epoch: &PairwiseEpoch,
    row_factors: &mut Table,
    column_factors: &mut Table,
    column_bias: Option<&mut [f32]>,
    state: &mut PairwiseState,
) -> Result<PairwiseStats> {
    let dim = row_factors.dim();
    let n_columns = column_factors.rows() as usize;
    let job = train::Job {
        epoch,
        dim,
        n_columns,
        row_factors: SharedRows::new(OP, "row factors", row_factors)?,
        column_factors: SharedRows::new(OP, "column factors", column_factors)?,
        column_bias: column_bias.map(SharedRows::of_slice),
        state: (epoch.optimizer == Optimizer::Adagrad).then(|| {
            [&mut state.rows, &mut state.columns, &mut state.biases].map(|s| SharedRows::of_slice(s))
        }),
        draws: stream(epoch, 2),
    };
    match epoch.mode {
        Mode::Deterministic => train::by_cells(&job),
        Mode::Hogwild => train::racing(&job),
    }
}

/// Returns the bytes that an epoch allocates beside its operands on the CPU. With a GPU they are those of the host for
/// [`Mode::Deterministic`], whatever the mode, and the entries of a round.
pub fn pairwise_epoch_bytes(mode: Mode, n_rows: u64, n_columns: u64, nnz: u64) -> u64 {
    let weights = 13 * n_columns;
    match mode {
        Mode::Deterministic => Cells::<()>::bytes(nnz as usize, n_columns as usize) + 4 * n_rows + weights,
        Mode::Hogwild => 4 * n_rows + weights,
    }
}

/// Stream `purpose` of an epoch; 2^8 purposes and 2^32 epochs.
fn stream(epoch: &PairwiseEpoch, purpose: u64) -> Draws {
    Draws::new(epoch.seed, ((epoch.epoch & 0xffff_ffff) << 8) | purpose)
}

/// The blocks that a deterministic epoch cuts rows and columns into.
fn blocks(epoch: &PairwiseEpoch, n_columns: usize) -> usize {
    block_count(epoch.rows.n_rows(), n_columns, epoch.rows.nnz())
}

fn deal(epoch: &PairwiseEpoch, n_columns: usize, blocks: usize) -> Result<Cells<()>> {
    let rows = epoch.rows;
    let draws = [stream(epoch, 0), stream(epoch, 1)];
    Cells::deal(rows, n_columns, blocks, draws, |value| (value > 0.0).then_some(()))
}

/// The weights of all columns, where negatives are drawn by popularity.
fn weights(epoch: &PairwiseEpoch, n_columns: usize) -> Option<Vec<f32>> {
    let exponent = epoch.negatives.popularity_exponent;
    (exponent != 0.0).then(|| popularity(epoch.rows, n_columns, exponent))
}

/// The alias table of `columns`; alike where none of them has a value.
fn alias(weights: &[f32], columns: &[u32]) -> Result<AliasTable> {
    let mut weights: Vec<f32> = columns.iter().map(|&column| weights[column as usize]).collect();
    if weights.iter().all(|&w| w == 0.0) {
        weights.fill(1.0);
    }
    AliasTable::new(&weights)
}

fn check(
    epoch: &PairwiseEpoch,
    row_factors: &Table,
    column_factors: &Table,
    column_bias: Option<&[f32]>,
    state: &PairwiseState,
) -> Result<()> {
    let (n_rows, n_columns) = (epoch.rows.n_rows(), column_factors.rows() as usize);
    let shape = |what, expected, got| match expected == got {
        true => Ok(()),
        false => Err(Error::Shape { op: OP, what, expected, got }),
    };
    shape("row factors", n_rows, row_factors.rows() as usize)?;
    shape("dim of the column factors", row_factors.dim(), column_factors.dim())?;
    if let Some(bias) = column_bias {
        shape("column bias", n_columns, bias.len())?;
    }
    if epoch.optimizer == Optimizer::Adagrad {
        shape("state of the rows", n_rows, state.rows.len())?;
        shape("state of the columns", n_columns, state.columns.len())?;
        shape("state of the biases", n_columns, state.biases.len())?;
    }
    if n_rows >= 1 << 31 || n_columns >= 1 << 31 {
        let got = n_rows.max(n_columns) as f64;
        return Err(Error::Parameter { op: OP, what: "rows and columns", expected: "below 2^31", got });
    }
    let positive = |what, value: f32, least: bool| match value.is_finite()
        && value >= 0.0
        && (least || value > 0.0)
    {
        true => Ok(()),
        false if least => Err(Error::Parameter { op: OP, what, expected: "at least 0", got: value.into() }),
        false => Err(Error::Parameter { op: OP, what, expected: "above 0", got: value.into() }),
    };
    positive("learning_rate", epoch.learning_rate, false)?;
    positive("regularization", epoch.regularization, true)?;
    positive("bias_regularization", epoch.bias_regularization, true)?;
    positive("per_positive", epoch.negatives.per_positive as f32, false)?;
    if let PairwiseLoss::Warp { max_draws } = epoch.loss {
        positive("max_draws", max_draws as f32, false)?;
    }
    if !epoch.negatives.popularity_exponent.is_finite() {
        let got = epoch.negatives.popularity_exponent.into();
        return Err(Error::Parameter { op: OP, what: "popularity_exponent", expected: "finite", got });
    }
    epoch.rows.check(OP, n_columns as u64)
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    let of = |(loss, optimizer, mode, dim): (PairwiseLoss, Optimizer, Mode, usize)| {
        let label = format!("pairwise_update, {loss:?}, {optimizer:?}, {mode:?}, dim {dim}");
        crate::cuda_sources::Instance::new(label, move |device| {
            let (indptr, indices, values) = ([0, 2, 3], [0, 4, 1], [1.0; 3]);
            let epoch = PairwiseEpoch {
                rows: SparseRows { indptr: &indptr, indices: &indices, values: &values },
                loss,
                optimizer,
                learning_rate: 0.1,
                regularization: 0.01,
                bias_regularization: 0.01,
                negatives: Negatives { popularity_exponent: 0.5, ..Negatives::default() },
                seed: 1,
                epoch: 1,
                mode,
            };
            let mut row_factors = Table::zeros(2, dim, device, "an instance")?;
            let mut column_factors = Table::zeros(5, dim, device, "an instance")?;
            let mut state = PairwiseState::new(optimizer, 2, 5);
            let bias = &mut [0.0; 5][..];
            pairwise_epoch(&epoch, &mut row_factors, &mut column_factors, Some(bias), &mut state).map(drop)
        })
    };
    [
        (PairwiseLoss::Bpr, Optimizer::Adagrad, Mode::Deterministic, 128),
        (PairwiseLoss::Bpr, Optimizer::Sgd, Mode::Hogwild, 64),
        (PairwiseLoss::Warp { max_draws: 8 }, Optimizer::Sgd, Mode::Deterministic, 33),
        (PairwiseLoss::Logistic, Optimizer::Adagrad, Mode::Deterministic, 256),
    ]
    .map(of)
    .into()
}
