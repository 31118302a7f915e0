//! Alternating least squares: the system that each row of one side solves while the other side is fixed, and its loss.
//!
//! ```text
//! a_i = base + scale |v_i|     b_i = offset + a_i where v_i > 0, else 0   over the entries (i, v_i) of row r
//! (gram + Σ a_i y_i y_iᵀ + ridge_r I) x = Σ b_i y_i
//!
//! loss(x) = xᵀ gram x + Σ (a_i s_i² - 2 b_i s_i + b_i) + ridge_r xᵀx      s_i = xᵀ y_i
//! ```
//!
//! `gram` is `YᵀY` times the weight of unobserved pairs. Confidence `c + α v` over preference 1 is `base = c - 1`, `scale = α`,
//! `offset = 1`, weight 1; weight `v` over an unobserved weight `w` is `base = 0`, `scale = 1`, `offset = 0`, weight `w`. A
//! value that is not positive has preference 0 with its confidence.
//!
//! # Layout
//!
//! | name       | shape              | type           | constraint                          |
//! |------------|--------------------|----------------|-------------------------------------|
//! | `rows`     | `[n_rows, n_columns]` | sparse      | see [`SparseRows`]                  |
//! | `fixed`    | `[n_columns, dim]` | f32, f16, bf16 | `Y`                                 |
//! | `gram`     | `[dim, dim]`       | f32            | symmetric                           |
//! | `ridge`    | `[n_rows]`         | f32            |                                     |
//! | solution   | `[n_rows, dim]`    | f32            | `X`; not mapped                     |
//!
//! # Source
//!
//! Hu, Koren, Volinsky 2008, eq. (3)-(5); Rendle et al. 2021 for the unobserved weight.

#[cfg(feature = "gpu")]
pub(crate) mod cube;
#[cfg(feature = "gpu")]
pub(crate) mod entries;
pub(crate) mod fixed;
mod kept;
mod loss;
#[cfg(feature = "gpu")]
mod loss_cube;
pub(crate) mod normal;
pub(crate) mod schedule;
#[cfg(feature = "gpu")]
pub(crate) mod tiles;

#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::{Instance, table_of};
pub use kept::{AlsKept, als_kept_bytes};

use crate::{Device, Error, Result, RowType, SparseRows, Table, buffer::on_gpu};

/// One side's normal equations while the other side is fixed.
///
/// # Shapes
/// See the module's table.
#[derive(Clone, Copy, Debug)]
pub struct AlsSystem<'a> {
    /// What each row observed.
    pub rows: SparseRows<'a>,
    /// The other side's factors, `[n_columns, dim]`: f32, f16 or bf16.
    pub fixed: &'a Table,
    /// The unobserved weight times `YᵀY`, `[dim, dim]`.
    pub gram: &'a [f32],
    /// What an observed pair weighs beside its value, on top of the unobserved weight; below 0 it weighs less than that.
    pub base: f32,
    /// What a value is multiplied by to give its weight on top of the unobserved one.
    pub scale: f32,
    /// What an observed pair's target has on top of its weight.
    pub offset: f32,
    /// The regularization of each row, `[n_rows]`.
    pub ridge: &'a [f32],
}

/// The entries of a row as the equations see them: columns, `a` and `b`.
impl AlsSystem<'_> {
    /// Returns `a` and `b` of an entry with value `value`.
    #[inline(always)]
    pub(crate) fn weights(&self, value: f32) -> (f32, f32) {
        let a = self.scale.mul_add(value.abs(), self.base);
        (a, if value > 0.0 { self.offset + a } else { 0.0 })
    }

    /// Checks every shape, type, device and index, before any work.
    pub(crate) fn check(&self, op: &'static str, solution: &Table) -> Result<()> {
        let shape = |what, expected: usize, got: usize| match expected == got {
            true => Ok(()),
            false => Err(Error::Shape { op, what, expected, got }),
        };
        let (n_rows, dim) = (self.rows.n_rows(), self.fixed.dim());
        shape("gram", dim * dim, self.gram.len())?;
        shape("ridge", n_rows, self.ridge.len())?;
        shape("solution", n_rows, solution.rows() as usize)?;
        shape("a row of the solution", dim, solution.dim())?;
        for (table, what) in [(self.fixed, "fixed"), (solution, "solution")] {
            let got = table.row_type();
            if got == RowType::Int8 || (what == "solution" && got != RowType::F32) {
                return Err(Error::RowType { op, what, expected: RowType::F32, got });
            }
        }
        if self.fixed.device() != solution.device() {
            return Err(Error::MixedDevices { op });
        }
        let parameters =
            [("base", self.base, f32::MIN), ("scale", self.scale, 0.0), ("offset", self.offset, f32::MIN)];
        for (what, value, least) in parameters {
            if !(value >= least && value <= f32::MAX) {
                let expected = if least == 0.0 { "finite and not negative" } else { "finite" };
                return Err(Error::Parameter { op, what, expected, got: f64::from(value) });
            }
        }
        self.rows.check_bounds(op, self.fixed.rows())
    }
}

/// Returns the loss of `solution` summed over its rows, in f64, with each row's ridge and without the fixed side's.
///
/// Add [`als_penalty`] of the fixed side for the whole objective.
///
/// # Errors
/// [`Error::Shape`], [`Error::RowType`], [`Error::IndexOutOfRange`] when the operands do not agree;
/// [`Error::NotFinite`] with the first row whose loss is NaN or infinite.
///
/// # Determinism
/// The same bits for any number of threads: the rows' losses are summed in order.
pub fn als_loss(system: &AlsSystem<'_>, solution: &Table) -> Result<f64> {
    als_loss_keeping(system, solution, &mut AlsKept::nothing())
}

/// As [`als_loss`], in the same bits; on a GPU, what `kept` has of the system's rows is not sent again.
///
/// # Errors
/// As [`als_loss`].
pub fn als_loss_keeping(system: &AlsSystem<'_>, solution: &Table, kept: &mut AlsKept<'_>) -> Result<f64> {
    let op = "als_loss";
    system.check(op, solution)?;
    let losses = match solution.device() {
        Device::Cpu => loss::row_losses(op, system, solution),
        device => on_gpu!(op, device, R => loss_cube::row_losses::<R>(op, system, solution, kept, device)),
    }?;
    match losses.iter().position(|loss| !loss.is_finite()) {
        None => Ok(losses.iter().sum()),
        Some(row) => Err(Error::NotFinite { op, what: "loss", row: row as u64 }),
    }
}

/// Returns the bytes that a solver holds on a GPU beside the factors, at most: a block of the rows.
pub fn als_block_bytes(n_rows: u64, nnz: u64, dim: u64) -> u64 {
    #[cfg(feature = "gpu")]
    return cube::block_bytes(n_rows, nnz, dim);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (n_rows, nnz, dim);
        0
    }
}

/// Returns the bytes that the Gram matrix of rows of `dim` values takes on a GPU while it is summed.
pub fn als_gram_bytes(dim: u64) -> u64 {
    // Partial sums, the total, and the copy that a solver reads.
    (4 * dim * dim * 256).min(64 << 20).max(4 * dim * dim) + 8 * dim * dim
}

/// Returns `Σ ridge_r |x_r|²` over the rows of `table`, in f64: what a fixed side adds to [`als_loss`].
///
/// # Errors
/// [`Error::Shape`] when there is not one ridge a row; [`Error::DeviceLost`].
pub fn als_penalty(table: &Table, ridge: &[f32]) -> Result<f64> {
    let op = "als_penalty";
    if ridge.len() as u64 != table.rows() {
        return Err(Error::Shape { op, what: "ridge", expected: table.rows() as usize, got: ridge.len() });
    }
    let mut sum = 0.0;
    for (first, rows) in table.chunks() {
        let values = rows.to_f32(table.dim())?;
        for (values, ridge) in values.chunks_exact(table.dim()).zip(&ridge[first as usize..]) {
            sum += f64::from(*ridge) * values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        }
    }
    Ok(sum)
}

/// The definition of [`als_loss`]: naive, in f64.
///
/// # Errors
/// As [`als_loss`].
pub fn als_loss_reference(system: &AlsSystem<'_>, solution: &Table) -> Result<f64> {
    system.check("als_loss", solution)?;
    (0..system.rows.n_rows()).map(|row| row_loss(system, solution, row)).sum()
}

fn row_loss(system: &AlsSystem<'_>, solution: &Table, row: usize) -> Result<f64> {
    let dim = system.fixed.dim();
    let (mut x, mut y) = (vec![0.0; dim], vec![0.0; dim]);
    solution.read_row(row as u64, &mut x)?;
    let mut loss = 0.0;
    for i in 0..dim {
        for j in 0..dim {
            loss += f64::from(system.gram[i * dim + j]) * f64::from(x[i]) * f64::from(x[j]);
        }
        loss += f64::from(system.ridge[row]) * f64::from(x[i]) * f64::from(x[i]);
    }
    let (columns, values) = system.rows.row(row);
    for (&column, &value) in columns.iter().zip(values) {
        system.fixed.read_row(u64::from(column), &mut y)?;
        let s: f64 = x.iter().zip(&y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum();
        let (a, b) = system.weights(value);
        loss += f64::from(a) * s * s - 2.0 * f64::from(b) * s + f64::from(b);
    }
    Ok(loss)
}

/// A row's normal matrix `[dim, dim]` and right-hand side `[dim]`, in f64: what the references solve.
pub(crate) fn row_system_f64(system: &AlsSystem<'_>, row: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let dim = system.fixed.dim();
    let mut matrix: Vec<f64> = system.gram.iter().map(|&g| f64::from(g)).collect();
    let (mut target, mut y) = (vec![0.0; dim], vec![0.0; dim]);
    for d in 0..dim {
        matrix[d * dim + d] += f64::from(system.ridge[row]);
    }
    let (columns, values) = system.rows.row(row);
    for (&column, &value) in columns.iter().zip(values) {
        system.fixed.read_row(u64::from(column), &mut y)?;
        let (a, b) = system.weights(value);
        for i in 0..dim {
            target[i] += f64::from(b) * f64::from(y[i]);
            for j in 0..dim {
                matrix[i * dim + j] += f64::from(a) * f64::from(y[i]) * f64::from(y[j]);
            }
        }
    }
    Ok((matrix, target))
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    instances_of("als_loss", |system, solution| als_loss(system, solution).map(drop))
}

/// Calls of an operation on a system whose rows are empty, short, and so long that a GPU cuts them.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances_of(
    name: &'static str,
    run: fn(&AlsSystem<'_>, &mut Table) -> Result<()>,
) -> Vec<Instance> {
    const COLUMNS: u32 = 20_000;
    let of = move |(row_type, dim): (RowType, usize)| {
        Instance::new(format!("{name}, {row_type:?}, dim {dim}"), move |device| {
            let lengths = [0, 1, 40, u64::from(COLUMNS)];
            let indptr: Vec<u64> = lengths
                .iter()
                .scan(0, |end, length| {
                    *end += length;
                    Some(*end)
                })
                .collect();
            let indices: Vec<u32> = lengths[1..].iter().flat_map(|&length| 0..length as u32).collect();
            let values = vec![1.0; indices.len()];
            let fixed = &table_of(row_type, COLUMNS.into(), dim, device)?;
            let (gram, ridge) = (&vec![0.0; dim * dim][..], &[1.0; 3][..]);
            let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
            let system = AlsSystem { rows, fixed, gram, base: 0.0, scale: 1.0, offset: 1.0, ridge };
            run(&system, &mut table_of(RowType::F32, 3, dim, device)?)
        })
    };
    [(RowType::F32, 64), (RowType::F32, 128), (RowType::F16, 128), (RowType::F32, 256), (RowType::F32, 33)]
        .map(of)
        .into()
}
