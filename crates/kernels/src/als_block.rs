//! ALS by block coordinate descent: each row solves exactly for `block` of its values at a time, the others held.
//!
//! ```text
//! for each block π of the row's dimensions, in order:
//!     g = (A x - Σ b_i y_i)_π        H = A_ππ        x_π -= H⁻¹ g        A = gram + ridge I + Σ a_i y_i y_iᵀ
//! ```
//!
//! Layout: [`AlsSystem`]; `solution` holds the previous factors and receives the new ones.
//!
//! # Cost
//!
//! `nnz dim (block + 6) + rows (2 dim² + dim block² / 3)` operations: linear in `dim` where Cholesky is quadratic.
//! On a GPU (`cube.rs`): a cube a row, and the interactions streamed.
//!
//! # Source
//!
//! Rendle et al. 2021 (iALS++).

mod cpu;
#[cfg(feature = "gpu")]
mod cube;

use crate::{AlsSystem, Device, Error, Result, Table, als, als_cholesky::solve_f64, buffer::on_gpu};

const OP: &str = "als_block";

/// Improves each row of `solution` by one sweep over its blocks; a row without entries becomes zero.
///
/// # Errors
/// [`Error::Parameter`] when `block` is zero; [`Error::Shape`], [`Error::RowType`], [`Error::IndexOutOfRange`],
/// [`Error::NotOnDevice`] before any work; [`Error::NotFinite`] and [`Error::NotPositiveDefinite`] with the first such
/// row, other rows being updated by then.
///
/// # Determinism
/// A row's result has the same bits alone and in any batch, for any number of threads.
pub fn als_block(system: &AlsSystem<'_>, solution: &mut Table, block: usize) -> Result<()> {
    check_block(block)?;
    system.check(OP, solution)?;
    match solution.device() {
        Device::Cpu => cpu::solve(system, solution, block),
        device => on_gpu!(OP, device, R => cube::solve::<R>(system, solution, block)),
    }
}

/// The definition: naive, in f64. Returns the new solution, row-major.
///
/// # Errors
/// As [`als_block`].
pub fn als_block_reference(system: &AlsSystem<'_>, solution: &Table, block: usize) -> Result<Vec<f64>> {
    check_block(block)?;
    system.check(OP, solution)?;
    let dim = solution.dim();
    let mut out = Vec::with_capacity(system.rows.n_rows() * dim);
    let mut x = vec![0.0; dim];
    for row in 0..system.rows.n_rows() {
        solution.read_row(row as u64, &mut x)?;
        match system.rows.row_len(row) {
            0 => out.extend(std::iter::repeat_n(0.0, dim)),
            _ => out.extend(block_f64(system, row, &x, block)?),
        }
    }
    Ok(out)
}

fn check_block(block: usize) -> Result<()> {
    match block {
        0 => Err(Error::Parameter { op: OP, what: "block", expected: "at least 1", got: 0.0 }),
        _ => Ok(()),
    }
}

fn block_f64(system: &AlsSystem<'_>, row: usize, start: &[f32], block: usize) -> Result<Vec<f64>> {
    let (matrix, target) = als::row_system_f64(system, row)?;
    let dim = start.len();
    let mut x: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();
    for first in (0..dim).step_by(block) {
        let end = dim.min(first.saturating_add(block));
        let rest = (first..end)
            .map(|i| target[i] - matrix[i * dim..][..dim].iter().zip(&x).map(|(a, x)| a * x).sum::<f64>())
            .collect();
        let mut hessian: Vec<f64> =
            (first..end).flat_map(|i| matrix[i * dim + first..i * dim + end].to_vec()).collect();
        let step =
            solve_f64(&mut hessian, rest).ok_or(Error::NotPositiveDefinite { op: OP, row: row as u64 })?;
        for (x, step) in x[first..end].iter_mut().zip(step) {
            *x += step;
        }
    }
    Ok(x)
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    als::instances_of(OP, |system, solution| als_block(system, solution, 32))
}
