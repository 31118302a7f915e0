//! ALS by normal equations: each row's system is formed and solved exactly by Cholesky.
//!
//! ```text
//! A = gram + ridge I + Σ a_i y_i y_iᵀ = L Lᵀ      L z = Σ b_i y_i      Lᵀ x = z
//! ```
//!
//! Layout: [`AlsSystem`]; the previous content of `solution` is not read.
//!
//! # Cost
//!
//! `nnz dim (dim + 1) + rows dim³ / 3` operations. On a GPU see `cube.rs`: a cube a row, the interactions streamed.
//!
//! # Source
//!
//! Hu, Koren, Volinsky 2008.

mod cpu;
#[cfg(feature = "gpu")]
mod cube;

use crate::{AlsSystem, Device, Error, Result, Table, als, buffer::on_gpu};

const OP: &str = "als_cholesky";

/// Solves each row of `solution` exactly; a row without entries becomes zero.
///
/// # Errors
/// [`Error::Shape`], [`Error::RowType`], [`Error::IndexOutOfRange`], [`Error::NotOnDevice`] before any work;
/// [`Error::NotFinite`] and [`Error::NotPositiveDefinite`] with the first such row, other rows being updated by then.
///
/// # Determinism
/// A row's result has the same bits alone and in any batch, for any number of threads, and on a GPU for any size of batch.
pub fn als_cholesky(system: &AlsSystem<'_>, solution: &mut Table) -> Result<()> {
    system.check(OP, solution)?;
    match solution.device() {
        Device::Cpu => cpu::solve(system, solution),
        device => on_gpu!(OP, device, R => cube::solve::<R>(system, solution, None)),
    }
}

/// As [`als_cholesky`], with batches of few entries on a GPU: what every size of batch must agree with.
pub(crate) fn als_cholesky_in_batches(
    system: &AlsSystem<'_>,
    solution: &mut Table,
    most_entries: usize,
) -> Result<()> {
    system.check(OP, solution)?;
    match solution.device() {
        Device::Cpu => cpu::solve(system, solution),
        device => on_gpu!(OP, device, R => cube::solve::<R>(system, solution, Some(most_entries))),
    }
}

/// The definition: naive, in f64. Returns the solution, row-major.
///
/// # Errors
/// As [`als_cholesky`], save the check of the solution's shape.
pub fn als_cholesky_reference(system: &AlsSystem<'_>) -> Result<Vec<f64>> {
    let dim = system.fixed.dim();
    let mut out = Vec::with_capacity(system.rows.n_rows() * dim);
    for row in 0..system.rows.n_rows() {
        match system.rows.row_len(row) {
            0 => out.extend(std::iter::repeat_n(0.0, dim)),
            _ => out.extend(exact_f64(system, row)?),
        }
    }
    Ok(out)
}

fn exact_f64(system: &AlsSystem<'_>, row: usize) -> Result<Vec<f64>> {
    let (mut matrix, target) = als::row_system_f64(system, row)?;
    solve_f64(&mut matrix, target).ok_or(Error::NotPositiveDefinite { op: OP, row: row as u64 })
}

/// Solves `matrix x = x` in place of `x`, `matrix` symmetric and overwritten by its factor; `None` when it is not positive
/// definite. NaN passes through, to be found in the result.
pub(crate) fn solve_f64(matrix: &mut [f64], mut x: Vec<f64>) -> Option<Vec<f64>> {
    let dim = x.len();
    for j in 0..dim {
        for i in j..dim {
            let sum: f64 = (0..j).map(|k| matrix[i * dim + k] * matrix[j * dim + k]).sum();
            let rest = matrix[i * dim + j] - sum;
            if i == j {
                if rest <= 0.0 {
                    return None;
                }
                matrix[j * dim + j] = rest.sqrt();
            } else {
                matrix[i * dim + j] = rest / matrix[j * dim + j];
            }
        }
    }
    for i in 0..dim {
        let sum: f64 = (0..i).map(|k| matrix[i * dim + k] * x[k]).sum();
        x[i] = (x[i] - sum) / matrix[i * dim + i];
    }
    for i in (0..dim).rev() {
        let sum: f64 = (i + 1..dim).map(|k| matrix[k * dim + i] * x[k]).sum();
        x[i] = (x[i] - sum) / matrix[i * dim + i];
    }
    Some(x)
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    als::instances_of(OP, als_cholesky)
}
