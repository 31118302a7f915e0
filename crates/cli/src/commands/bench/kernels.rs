//! Every kernel at named sizes; those of deep models in `deep_kernels.rs`. A kernel is one entry of [`KERNELS`] and the function that it names.
//!
//! Bytes and operations are those that the work needs at least: each operand read and each result written once, unless
//! the rows of a table are gathered, which counts a row each time. What a kernel really moves and does is more.

use recmill_core::Dataset;
use recmill_kernels::{
    AlsSystem, Device, Direction, Measure, Mode, Negatives, Optimizer, PairwiseEpoch, PairwiseLoss,
    PairwiseState, RatingEpoch, RatingFactors, RowIndices, RowType, SimilarityOptions, SparseRows, Table,
    TopkAnswers, TopkPrepared, TopkQuery, TopkScratch, als_block, als_cg, als_cholesky, als_loss, gather_at,
    gram,
    negative::{Distribution, negative_on},
    pairwise_epoch,
    philox::{Draws, unit},
    rating_epoch, scatter_add, score_topk, similarity_on, spd_inverse,
};

use super::{Result, timing};

/// A kernel's name, and what measures it.
pub(super) type Kernel = (&'static str, fn(&Ground<'_>) -> Result<Measured>);

/// In the order in which they are measured.
pub(super) const KERNELS: &[Kernel] = &[
    ("gather", gather_rows),
    ("scatter_add", scatter_rows),
    ("gram", |ground| gram_of(ground, RowType::F32)),
    ("gram_f16", |ground| gram_of(ground, RowType::F16)),
    ("als_cg", cg),
    ("als_cholesky", cholesky),
    ("als_block", block),
    ("als_loss", loss),
    ("pairwise_update", pairwise),
    ("rating_update", rating),
    ("negative", negatives),
    ("score_topk", topk),
    ("score_topk_million", topk_of_a_million),
    ("score_topk_million_f16", topk_of_a_million_halves),
    ("similarity", similar),
    ("spd_inverse", inverse),
];

/// Rows of users that solvers work on.
const MOST_ROWS: usize = 20_000;
/// Rows that are gathered.
const GATHERED: usize = 1 << 20;

/// What all kernels are measured on.
pub(super) struct Ground<'a> {
    pub(super) device: Device,
    pub(super) data: &'a Dataset,
    pub(super) factors: usize,
    /// Whether the device does only so much in a second: the processor, or one that pretends to be a GPU.
    pub(super) slow: bool,
}

/// What was measured, and what the work consists of.
pub(super) struct Measured {
    pub(super) shape: String,
    pub(super) seconds: f64,
    /// Bytes and operations.
    pub(super) bytes: f64,
    pub(super) operations: f64,
    /// What is done, and its unit in the plural.
    pub(super) done: (f64, &'static str),
}

impl Ground<'_> {
    pub(super) fn table(&self, rows: usize, seed: u64) -> Result<Table> {
        let host = random_table(rows, self.factors, seed)?;
        Ok(match self.device {
            Device::Cpu => host,
            device => host.try_copy(device, "a bench")?,
        })
    }

    pub(super) fn time(&self, mut work: impl FnMut() -> recmill_kernels::Result<()>) -> Result<f64> {
        timing::median(self.device, || Ok(work()?))
    }

    /// The first rows of the data.
    fn rows(&self) -> SparseRows<'_> {
        let rows = all_rows(self.data);
        let n = rows.n_rows().min(MOST_ROWS);
        let indptr = &rows.indptr[..=n];
        let nnz = indptr[n] as usize;
        SparseRows { indptr, indices: &rows.indices[..nnz], values: &rows.values[..nnz] }
    }
}

fn all_rows(data: &Dataset) -> SparseRows<'_> {
    let csr = data.by_user();
    SparseRows { indptr: csr.indptr(), indices: csr.indices(), values: csr.values() }
}

/// Values between -0.1 and 0.1, the same on every run.
fn random_table(rows: usize, dim: usize, seed: u64) -> Result<Table> {
    let mut table = Table::zeros(rows as u64, dim, Device::Cpu, "a bench")?;
    let mut words = vec![0; dim];
    for (first, values) in table.f32_chunks_mut() {
        for (row, values) in values.chunks_exact_mut(dim).enumerate() {
            Draws::new(seed, first + row as u64).fill(0, &mut words);
            values.iter_mut().zip(&words).for_each(|(value, &word)| *value = 0.2 * unit(word) - 0.1);
        }
    }
    Ok(table)
}

/// Row numbers in no order.
pub(super) fn random_indices(n: usize, rows: usize) -> Vec<u32> {
    let mut words = vec![0; n];
    Draws::new(7, 0).fill(0, &mut words);
    words.iter().map(|word| ((u64::from(*word) * rows as u64) >> 32) as u32).collect()
}

fn gather_rows(ground: &Ground<'_>) -> Result<Measured> {
    // More bytes than a cache holds.
    let (rows, d) = (if ground.slow { 100_000 } else { 2_000_000 }, ground.factors);
    let table = ground.table(rows, 1)?;
    let n = if ground.slow { GATHERED / 8 } else { GATHERED };
    let indices = RowIndices::new(&random_indices(n, rows), ground.device)?;
    let seconds = ground.time(|| gather_at(&table, &indices).map(drop))?;
    Ok(Measured {
        shape: format!("{n} of {rows} x {d}"),
        seconds,
        bytes: (8 * n * d + 4 * n) as f64,
        operations: 0.0,
        done: (n as f64, "rows"),
    })
}

fn scatter_rows(ground: &Ground<'_>) -> Result<Measured> {
    let (rows, n, d) = (100_000, GATHERED / 8, ground.factors);
    let mut table = ground.table(rows, 1)?;
    let (indices, added) = (random_indices(n, rows), vec![0.0; n * d]);
    let seconds = ground.time(|| scatter_add(&mut table, &indices, &added))?;
    Ok(Measured {
        shape: format!("{n} to {rows} x {d}"),
        seconds,
        bytes: (12 * n * d) as f64,
        operations: (n * d) as f64,
        done: (n as f64, "rows"),
    })
}

fn gram_of(ground: &Ground<'_>, row_type: RowType) -> Result<Measured> {
    let (rows, d, what) = (ground.data.n_users(), ground.factors, "a bench");
    let table = random_table(rows, d, 1)?.to_row_type(row_type, what)?.try_copy(ground.device, what)?;
    let seconds = ground.time(|| gram(&table).map(drop))?;
    Ok(Measured {
        shape: format!("{rows} x {d}"),
        seconds,
        bytes: (row_type.bytes() as usize * rows * d) as f64,
        // Symmetric: a multiply and an add for each of d (d + 1) / 2 sums a row.
        operations: (rows * d * (d + 1)) as f64,
        done: (rows as f64, "rows"),
    })
}

/// Measures `solve` on the first users; `cost` gives its bytes and operations from rows, values and factors.
fn solver(
    ground: &Ground<'_>,
    cost: impl Fn(f64, f64, f64) -> [f64; 2],
    mut solve: impl FnMut(&AlsSystem<'_>, &mut Table) -> recmill_kernels::Result<()>,
) -> Result<Measured> {
    let (rows, fixed) = (ground.rows(), ground.table(ground.data.n_items(), 2)?);
    let (n, nnz, d) = (rows.n_rows(), rows.nnz(), ground.factors);
    let gram = recmill_kernels::gram(&fixed)?;
    let ridge = vec![1.0; n];
    let system =
        AlsSystem { rows, fixed: &fixed, gram: &gram, base: 0.0, scale: 1.0, offset: 1.0, ridge: &ridge };
    let mut solution = ground.table(n, 1)?;
    let seconds = ground.time(|| solve(&system, &mut solution))?;
    let [bytes, operations] = cost(n as f64, nnz as f64, d as f64);
    let shape = format!("{n} rows, {nnz} values, {d} factors");
    Ok(Measured { shape, seconds, bytes, operations, done: (nnz as f64, "values") })
}

fn cg(ground: &Ground<'_>) -> Result<Measured> {
    const STEPS: usize = 3;
    // The first residual and every step multiply by the gram matrix and go once through a row's gathered rows.
    let passes = (STEPS + 1) as f64;
    let cost = |n: f64, nnz: f64, d: f64| {
        [passes * (4.0 * d + 8.0) * nnz, passes * (2.0 * n * d * d + 4.0 * nnz * d)]
    };
    solver(ground, cost, |system, solution| als_cg(system, solution, STEPS))
}

fn cholesky(ground: &Ground<'_>) -> Result<Measured> {
    // The lower half of the normal matrix, d (d + 1) a value, then its factor, d^3 / 3 a row.
    let cost = |n: f64, nnz: f64, d: f64| [(4.0 * d + 8.0) * nnz, nnz * d * (d + 1.0) + n * d * d * d / 3.0];
    solver(ground, cost, als_cholesky)
}

fn block(ground: &Ground<'_>) -> Result<Measured> {
    const BLOCK: usize = 64;
    let b = BLOCK as f64;
    let cost = |n: f64, nnz: f64, d: f64| {
        [3.0 * 4.0 * d * nnz, nnz * d * (b + 6.0) + n * (2.0 * d * d + d * b * b / 3.0)]
    };
    solver(ground, cost, |system, solution| als_block(system, solution, BLOCK))
}

fn loss(ground: &Ground<'_>) -> Result<Measured> {
    let cost = |n: f64, nnz: f64, d: f64| [(4.0 * d + 8.0) * nnz, 2.0 * nnz * d + 2.0 * n * d * d];
    solver(ground, cost, |system, solution| als_loss(system, solution).map(drop))
}

fn pairwise(ground: &Ground<'_>) -> Result<Measured> {
    let rows = ground.rows();
    let (n, n_items, nnz, d) = (rows.n_rows(), ground.data.n_items(), rows.nnz(), ground.factors);
    let (mut users, mut items) = (ground.table(n, 1)?, ground.table(n_items, 2)?);
    let mut state = PairwiseState::new(Optimizer::Sgd, n, n_items);
    let mut epoch = PairwiseEpoch {
        rows,
        loss: PairwiseLoss::Bpr,
        optimizer: Optimizer::Sgd,
        learning_rate: 0.05,
        regularization: 0.002,
        bias_regularization: 0.002,
        negatives: Negatives::default(),
        seed: 1,
        epoch: 0,
        mode: Mode::Deterministic,
    };
    let seconds = ground.time(|| {
        epoch.epoch += 1;
        pairwise_epoch(&epoch, &mut users, &mut items, None, &mut state).map(drop)
    })?;
    Ok(Measured {
        shape: format!("{n} x {n_items}, {nnz} positives, {d} factors, bpr"),
        seconds,
        // Three rows are read and written.
        bytes: (24 * nnz * d) as f64,
        operations: (14 * nnz * d) as f64,
        done: (nnz as f64, "updates"),
    })
}

fn rating(ground: &Ground<'_>) -> Result<Measured> {
    let rows = ground.rows();
    let (n, n_items, nnz, d) = (rows.n_rows(), ground.data.n_items(), rows.nnz(), ground.factors);
    let (mut users, mut items) = (ground.table(n, 1)?, ground.table(n_items, 2)?);
    let (mut row_bias, mut column_bias) = (vec![0.0; n], vec![0.0; n_items]);
    let mut epoch = RatingEpoch {
        rows,
        mean: 3.0,
        learning_rate: 0.01,
        regularization: 0.02,
        bias_regularization: 0.02,
        seed: 1,
        epoch: 0,
    };
    let seconds = ground.time(|| {
        epoch.epoch += 1;
        let mut factors = RatingFactors {
            row_factors: &mut users,
            column_factors: &mut items,
            row_bias: &mut row_bias,
            column_bias: &mut column_bias,
        };
        rating_epoch(&epoch, &mut factors).map(drop)
    })?;
    Ok(Measured {
        shape: format!("{n} x {n_items}, {nnz} ratings, {d} factors"),
        seconds,
        bytes: (16 * nnz * d) as f64,
        operations: (10 * nnz * d) as f64,
        done: (nnz as f64, "updates"),
    })
}

fn negatives(ground: &Ground<'_>) -> Result<Measured> {
    const PER_ROW: usize = 64;
    let (rows, n_items) = (ground.rows(), ground.data.n_items());
    let drawn = rows.n_rows() * PER_ROW;
    let uniform = Distribution::Uniform(n_items as u32);
    let mut stream = 0;
    let seconds = ground.time(|| {
        stream += 1;
        negative_on(ground.device, rows, &uniform, PER_ROW, Draws::new(0, stream)).map(drop)
    })?;
    Ok(Measured {
        shape: format!("{PER_ROW} of {n_items} for each of {} rows", rows.n_rows()),
        seconds,
        bytes: (4 * drawn) as f64,
        operations: 0.0,
        done: (drawn as f64, "draws"),
    })
}

fn topk(ground: &Ground<'_>) -> Result<Measured> {
    topk_of(ground, ground.data.n_items(), 4096, RowType::F32)
}

fn topk_of_a_million(ground: &Ground<'_>) -> Result<Measured> {
    topk_of(ground, 1_000_000, if ground.slow { 64 } else { 4096 }, RowType::F32)
}

/// Rows of half the bytes, whose first look matrix units take where there are some.
fn topk_of_a_million_halves(ground: &Ground<'_>) -> Result<Measured> {
    topk_of(ground, 1_000_000, if ground.slow { 64 } else { 4096 }, RowType::F16)
}

fn topk_of(ground: &Ground<'_>, n_items: usize, n_queries: usize, rows: RowType) -> Result<Measured> {
    const K: usize = 10;
    let d = ground.factors;
    let (what, vectors) = ("a bench", random_table(n_queries, d, 1)?.to_f32()?);
    let items = random_table(n_items, d, 2)?.to_row_type(rows, what)?.try_copy(ground.device, what)?;
    let prepared = TopkPrepared::new(&items)?;
    let queries: Vec<TopkQuery<'_>> =
        vectors.chunks_exact(d).map(|vector| TopkQuery::new(vector, K)).collect();
    let (mut scratch, mut answers) = (TopkScratch::default(), TopkAnswers::default());
    let seconds =
        ground.time(|| score_topk(&items, &prepared, None, &queries, &mut scratch, &mut answers))?;
    Ok(Measured {
        shape: format!("{K} of {n_items} items for {n_queries} users, {d} factors of {rows:?}"),
        seconds,
        bytes: (rows.bytes() as usize * d * n_items + 4 * d * n_queries) as f64,
        operations: 2.0 * n_queries as f64 * n_items as f64 * d as f64,
        done: (n_queries as f64, "users"),
    })
}

fn similar(ground: &Ground<'_>) -> Result<Measured> {
    let by_row = ground.rows();
    let csr = recmill_core::Csr::new(
        ground.data.n_items(),
        by_row.indptr.to_vec(),
        by_row.indices.to_vec(),
        by_row.values.to_vec(),
    )?
    .transpose();
    let by_column = SparseRows { indptr: csr.indptr(), indices: csr.indices(), values: csr.values() };
    let options = SimilarityOptions {
        measure: Measure::Cosine,
        k: 20,
        shrink: 0.0,
        row_damping: 0.0,
        column_damping: 0.5,
        direction: Direction::From,
    };
    let seconds = ground.time(|| similarity_on(ground.device, by_column, by_row, &options).map(drop))?;
    // Every pair of values of a row.
    let pairs: f64 = (0..by_row.n_rows()).map(|row| (by_row.row_len(row) as f64).powi(2)).sum();
    Ok(Measured {
        shape: format!("{} x {}, {} values", by_row.n_rows(), ground.data.n_items(), by_row.nnz()),
        seconds,
        bytes: 8.0 * pairs,
        operations: 2.0 * pairs,
        done: (ground.data.n_items() as f64, "items"),
    })
}

fn inverse(ground: &Ground<'_>) -> Result<Measured> {
    const N: usize = 1024;
    // A gram matrix with a ridge. The inverse of an inverse is the matrix again, so nothing is copied between runs.
    let mut values = gram(&random_table(2 * N, N, 3)?)?;
    values.iter_mut().step_by(N + 1).for_each(|diagonal| *diagonal += 2.0);
    let mut matrix = Table::from_f32(&values, N, ground.device, "a bench")?;
    let seconds = ground.time(|| spd_inverse(&mut matrix))?;
    let n = N as f64;
    Ok(Measured {
        shape: format!("{N} x {N}"),
        seconds,
        bytes: 8.0 * n * n,
        operations: 2.0 * n.powi(3),
        done: (1.0, "matrices"),
    })
}
