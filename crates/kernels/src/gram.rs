//! The Gram matrix of a tall table.
//!
//! ```text
//! G = YᵀY        G[i, j] = Σ_r y[r, i] y[r, j]
//! ```
//!
//! | name   | shape         | type                 |
//! |--------|---------------|----------------------|
//! | table  | `[rows, dim]` | f32, f16, bf16       |
//! | output | `[dim, dim]`  | f32, exactly symmetric |
//!
//! # Cost
//!
//! `rows dim (dim + 1)` operations.

#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "gpu")]
mod cube_matrix;

use rayon::prelude::*;

#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::{Instance, table_of};
use crate::{
    Device, Error, Result, RowType, Table,
    als::fixed::{FixedRows, Gather},
    buffer::on_gpu,
    dense::{Syrk, Update},
    scratch::Scratch,
    simd::{self, Level, dispatch},
};

const OP: &str = "gram";

/// Rows that are summed in f32 before their sum is added to the f64 total.
const EXACT_ROWS: usize = 256;
/// Bytes of rows that an update takes at once: they stay in a first-level cache.
const UPDATE_BYTES: usize = 24 << 10;
/// Bytes of all f64 partial sums, and their number, at most. Both follow from the table alone, not from the threads.
const PARTIAL_BYTES: usize = 64 << 20;
const PARTIALS: usize = 64;

/// Returns `YᵀY` of `table`, row-major `[dim, dim]`.
///
/// # Errors
/// [`Error::RowType`] for int8, and for what a GPU does not compute with; [`Error::OutOfMemory`]; [`Error::NotFinite`] with the
/// first row of the table that holds NaN or infinity, or with the row of the result that overflowed.
///
/// # Determinism
/// The same bits for any number of threads and any chunks. On the CPU also for any type of rows that holds the same values; a GPU may add
/// up rows of 16 bits in another order than rows of f32.
pub fn gram(table: &Table) -> Result<Vec<f32>> {
    if table.row_type() == RowType::Int8 {
        return Err(Error::RowType { op: OP, what: "table", expected: RowType::F32, got: RowType::Int8 });
    }
    let dim = table.dim();
    let out = match table.device() {
        Device::Cpu => on_cpu(table),
        device => on_gpu!(OP, device, R => cube::on_cube::<R>(table, device)),
    }?;
    match out.iter().position(|v| !v.is_finite()) {
        None => Ok(out),
        Some(at) => Err(Error::NotFinite {
            op: OP,
            what: "table",
            row: not_finite(table)?.unwrap_or((at / dim) as u64),
        }),
    }
}

fn on_cpu(table: &Table) -> Result<Vec<f32>> {
    let (rows, dim) = (table.rows() as usize, table.dim());
    let elsewhere = Error::NotOnDevice { op: OP, device: table.device() };
    let fixed = FixedRows::new(table).ok_or(elsewhere)?;
    let level = simd::level();
    let most = (PARTIAL_BYTES / (8 * dim * dim)).clamp(1, PARTIALS);
    let part_rows = rows.div_ceil(most).next_multiple_of(EXACT_ROWS).max(EXACT_ROWS);
    let parts: Vec<Result<Vec<f64>>> = (0..rows.div_ceil(part_rows))
        .into_par_iter()
        .map(|part| part_sum(&fixed, dim, part * part_rows, rows.min((part + 1) * part_rows), level))
        .collect();
    let mut sum = vec![0.0; dim * dim];
    for part in parts {
        for (s, p) in sum.iter_mut().zip(part?) {
            *s += p;
        }
    }
    let mirrored = (0..dim * dim).map(|at| (at / dim, at % dim));
    Ok(mirrored.map(|(i, j)| sum[i.min(j) * dim + i.max(j)] as f32).collect())
}

/// The upper triangle of the products of rows `first .. end`.
fn part_sum(fixed: &FixedRows<'_>, dim: usize, first: usize, end: usize, level: Level) -> Result<Vec<f64>> {
    let width = dim.next_multiple_of(level.lanes());
    // Not a power of two, so that the rows do not compete for the same places of a cache.
    let stride = width + level.lanes();
    let at_once = (UPDATE_BYTES / (stride * 4)).clamp(8, EXACT_ROWS);
    let mut z = Scratch::new(at_once * stride)?;
    let mut c = Scratch::new(dim.next_multiple_of(8) * stride)?;
    let mut sum = vec![0.0; dim * dim];
    for exact in (first..end).step_by(EXACT_ROWS) {
        c.fill(0.0);
        let exact_end = end.min(exact + EXACT_ROWS);
        for from in (exact..exact_end).step_by(at_once) {
            let n = at_once.min(exact_end - from);
            let mut indices = [0; EXACT_ROWS];
            for (index, row) in indices.iter_mut().zip(from..from + n) {
                *index = row as u32;
            }
            let (indices, z) = (&indices[..n], &mut z[..n * stride]);
            let layout = (stride, width);
            dispatch(level, Gather { fixed, indices, ahead: &[], columns: 0..dim, to: z, layout });
            let update = Update::Add;
            dispatch(level, Syrk { z, z_stride: stride, c: &mut c, c_stride: stride, n: dim, update });
        }
        for (i, (sum, c)) in sum.chunks_exact_mut(dim).zip(c.chunks_exact(stride)).enumerate() {
            for (s, &c) in sum[i..].iter_mut().zip(&c[i..]) {
                *s += f64::from(c);
            }
        }
    }
    Ok(sum)
}

/// The first row of `table` that holds NaN or infinity.
fn not_finite(table: &Table) -> Result<Option<u64>> {
    for (first, rows) in table.chunks() {
        let values = rows.to_f32(table.dim())?;
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Ok(Some(first + (at / table.dim()) as u64));
        }
    }
    Ok(None)
}

/// The definition: naive, in f64.
///
/// # Errors
/// [`Error::NotOnDevice`].
pub fn gram_reference(table: &Table) -> Result<Vec<f64>> {
    let dim = table.dim();
    let (mut sum, mut y) = (vec![0.0; dim * dim], vec![0.0; dim]);
    for row in 0..table.rows() {
        table.read_row(row, &mut y)?;
        for i in 0..dim {
            for j in 0..dim {
                sum[i * dim + j] += f64::from(y[i]) * f64::from(y[j]);
            }
        }
    }
    Ok(sum)
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    let of = |(row_type, dim)| {
        Instance::new(format!("gram, {row_type:?}, dim {dim}"), move |device| {
            gram(&table_of(row_type, 1000, dim, device)?).map(drop)
        })
    };
    use RowType::{Bf16, F16, F32};
    [(F32, 64), (F32, 128), (F16, 128), (F16, 24), (Bf16, 64), (F32, 33)].map(of).into()
}
