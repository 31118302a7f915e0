//! ALS by conjugate gradients: a few steps a row from the row's previous solution, never forming the normal matrix.
//!
//! ```text
//! r = Σ b_i y_i - A x;  p = r;  ρ = rᵀr            A v = gram v + ridge v + Σ a_i (y_iᵀ v) y_i
//! repeat `steps` times:  q = A p;  α = ρ / pᵀq;  x += α p;  r -= α q;  ρ' = rᵀr;  p = r + (ρ'/ρ) p;  ρ = ρ'
//! ```
//!
//! Layout: [`AlsSystem`]; `solution` holds the previous factors and receives the new ones.
//!
//! # Cost
//!
//! `(steps + 1) (4 nnz dim + 2 rows dim²)` operations.
//!
//! # Source
//!
//! Takács, Pilászy, Tikk 2011; the system as in Hu, Koren, Volinsky 2008.

mod batch;
mod cpu;
#[cfg(feature = "gpu")]
mod cube;
mod long;
mod pass;
mod step;

use crate::{AlsKept, AlsSystem, Device, Error, Result, Table, als, buffer::on_gpu};

const OP: &str = "als_cg";

/// Improves each row of `solution` by `steps` conjugate gradient steps; a row without entries becomes zero.
///
/// # Errors
/// [`Error::Shape`], [`Error::RowType`], [`Error::IndexOutOfRange`], [`Error::NotOnDevice`] before any work;
/// [`Error::NotFinite`] and [`Error::NotPositiveDefinite`] with the first such row, other rows being updated by then.
///
/// # Determinism
/// A row's result has the same bits alone and in any batch, for any number of threads.
pub fn als_cg(system: &AlsSystem<'_>, solution: &mut Table, steps: usize) -> Result<()> {
    als_cg_keeping(system, solution, steps, &mut AlsKept::nothing())
}

/// As [`als_cg`], in the same bits; on a GPU, what `kept` has of the system's rows is not sent again.
///
/// # Errors
/// As [`als_cg`].
pub fn als_cg_keeping(
    system: &AlsSystem<'_>,
    solution: &mut Table,
    steps: usize,
    kept: &mut AlsKept<'_>,
) -> Result<()> {
    system.check(OP, solution)?;
    match solution.device() {
        Device::Cpu => cpu::solve(system, solution, steps),
        device => on_gpu!(OP, device, R => cube::solve::<R>(system, solution, steps, kept, device)),
    }
}

/// The definition: naive, in f64. Returns the new solution, row-major.
///
/// # Errors
/// As [`als_cg`].
pub fn als_cg_reference(system: &AlsSystem<'_>, solution: &Table, steps: usize) -> Result<Vec<f64>> {
    system.check(OP, solution)?;
    let dim = solution.dim();
    let mut out = Vec::with_capacity(system.rows.n_rows() * dim);
    let mut x = vec![0.0; dim];
    for row in 0..system.rows.n_rows() {
        solution.read_row(row as u64, &mut x)?;
        match system.rows.row_len(row) {
            0 => out.extend(std::iter::repeat_n(0.0, dim)),
            _ => out.extend(cg_f64(system, row, &x, steps)?),
        }
    }
    Ok(out)
}

fn cg_f64(system: &AlsSystem<'_>, row: usize, start: &[f32], steps: usize) -> Result<Vec<f64>> {
    let (matrix, target) = als::row_system_f64(system, row)?;
    let dim = start.len();
    let multiply = |v: &[f64]| (0..dim).map(|i| dot(&matrix[i * dim..][..dim], v)).collect::<Vec<f64>>();
    let mut x: Vec<f64> = start.iter().map(|&x| f64::from(x)).collect();
    let mut r: Vec<f64> = target.iter().zip(multiply(&x)).map(|(b, ax)| b - ax).collect();
    let mut p = r.clone();
    let mut rho = dot(&r, &r);
    for _ in 0..steps {
        if rho < 1e-24 {
            break;
        }
        let q = multiply(&p);
        let curvature = dot(&p, &q);
        if curvature <= 0.0 {
            return Err(Error::NotPositiveDefinite { op: OP, row: row as u64 });
        }
        let alpha = rho / curvature;
        for d in 0..dim {
            x[d] += alpha * p[d];
            r[d] -= alpha * q[d];
        }
        let next = dot(&r, &r);
        for d in 0..dim {
            p[d] = r[d] + next / rho * p[d];
        }
        rho = next;
    }
    Ok(x)
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    als::instances_of(OP, |system, solution| als_cg(system, solution, 3))
}
