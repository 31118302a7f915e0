//! Rows of a table by index, and rows added back to a table by index.
//!
//! ```text
//! gather        out[p, :] = table[indices[p], :]
//! scatter_add   table[indices[p], :] += rows[p, :]      p ascending, so that repeats add up in one order
//! ```
//!
//! # Layout
//!
//! | name      | shape         | type                        | constraint                                    |
//! |-----------|---------------|-----------------------------|-----------------------------------------------|
//! | `table`   | `[rows, dim]` | f32, f16, bf16, int8 (CPU); f32, f16, bf16 (GPU); f32 (scatter_add) | in any number of chunks |
//! | `indices` | `[n]`         | u32, on the host            | every one `< rows`; any order, may repeat     |
//! | `rows`    | `[n, dim]`    | f32                         | row-major                                     |
//! | output    | `[n, dim]`    | f32                         | row-major, fully written                      |
//!
//! # Cost
//!
//! Memory-bound: `gather` reads and writes `4 n dim` bytes. On a GPU it is launched once a chunk, and each launch reads
//! all indices: a unit owns one output value and writes it in the launch whose chunk holds its row, so there are no
//! atomics. `scatter_add` sorts the indices first: `n log n`.

use std::cmp::Reverse;

#[cfg(feature = "gpu")]
use cubecl::prelude::*;
use rayon::prelude::*;

#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::Instance;
use crate::{Buffer, Device, Error, Result, RowType, Table, buffer::on_gpu};
#[cfg(feature = "gpu")]
use crate::{
    buffer::cube::{Gpu, Queue, cubes},
    row_words::{RowWords, n_rows, widen},
};

const GATHER: &str = "gather";
const SCATTER: &str = "scatter_add";

/// Values that one task of the CPU copies or adds.
const TASK_VALUES: usize = 1 << 14;

/// Copies the rows that `indices` name, in their order, to a buffer on the table's device.
///
/// # Shapes
/// - `table`: `[rows, dim]`; `indices`: `[n]`
/// - returns: `[n, dim]` f32
///
/// # Errors
/// [`Error::IndexOutOfRange`]; on a GPU [`Error::RowType`] for int8 rows and [`Error::Parameter`] for 16-bit rows of an odd
/// dimension; [`Error::OutOfMemory`] and [`Error::BufferTooLarge`] for the result.
pub fn gather(table: &Table, indices: &[u32]) -> Result<Buffer<f32>> {
    check_indices(GATHER, table, indices)?;
    match table.device() {
        Device::Cpu => on_cpu(table, indices),
        device => gather_at(table, &RowIndices::new(indices, device)?),
    }
}

/// Indices of rows that lie on a device, for rows that are gathered again and again.
#[derive(Debug)]
pub struct RowIndices {
    indices: Buffer<u32>,
    /// The largest, and where it stands first.
    largest: Option<(u32, usize)>,
}

impl RowIndices {
    /// Copies `indices` to `device`.
    ///
    /// # Errors
    /// As [`Buffer::from_slice`].
    pub fn new(indices: &[u32], device: Device) -> Result<Self> {
        let largest = indices.iter().copied().zip(0..).max_by_key(|&(index, at)| (index, Reverse(at)));
        Ok(Self { indices: Buffer::from_slice(indices, device, "indices of gathered rows")?, largest })
    }
}

/// As [`gather`], by indices that lie on the table's device already.
///
/// # Errors
/// As [`gather`]; [`Error::MixedDevices`] when they lie elsewhere.
pub fn gather_at(table: &Table, indices: &RowIndices) -> Result<Buffer<f32>> {
    let rows = table.rows();
    if let Some((index, position)) = indices.largest.filter(|&(index, _)| u64::from(index) >= rows) {
        return Err(Error::IndexOutOfRange { op: GATHER, position, rows, index: index.into() });
    }
    match (table.device(), indices.indices.cpu()) {
        (Device::Cpu, Some(indices)) => on_cpu(table, indices),
        (Device::Cpu, None) => Err(Error::MixedDevices { op: GATHER }),
        (device, _) => on_gpu!(GATHER, device, R => on_cube::<R>(table, &indices.indices, device)),
    }
}

/// Adds `rows` to the rows of `table` that `indices` name.
///
/// # Shapes
/// - `table`: `[rows, dim]` f32; `indices`: `[n]`; `rows`: `[n, dim]`
///
/// # Errors
/// [`Error::Shape`], [`Error::IndexOutOfRange`]; [`Error::RowType`] unless the table's rows are f32;
/// [`Error::NotOnDevice`] for a GPU or mapped rows. Nothing has been added when one is returned.
///
/// # Determinism
/// What is added to a row is added in the order of the indices, for any number of threads.
pub fn scatter_add(table: &mut Table, indices: &[u32], rows: &[f32]) -> Result<()> {
    let dim = table.dim();
    if rows.len() != indices.len().saturating_mul(dim) {
        return Err(Error::Shape {
            op: SCATTER,
            what: "rows",
            expected: indices.len() * dim,
            got: rows.len(),
        });
    }
    check_indices(SCATTER, table, indices)?;
    if table.row_type() != RowType::F32 {
        return Err(not_f32(SCATTER, table));
    }
    if table.f32_chunks_mut().count() != table.chunks().len() {
        return Err(Error::NotOnDevice { op: SCATTER, device: table.device() });
    }
    // Sorted by row and, within a row, by position: each task gets whole rows, and repeats in their order.
    let mut order: Vec<(u32, usize)> = indices.iter().copied().zip(0..).collect();
    order.par_sort_unstable();
    let mut tasks = Vec::new();
    let mut rest = &order[..];
    for (first, mut values) in table.f32_chunks_mut() {
        let mut first = first as usize;
        while !values.is_empty() {
            let n_rows = (values.len() / dim).min((TASK_VALUES / dim).max(1));
            let (own, later) = values.split_at_mut(n_rows * dim);
            let (adds, after) =
                rest.split_at(rest.partition_point(|&(row, _)| (row as usize) < first + n_rows));
            tasks.push((first, own, adds));
            (first, values, rest) = (first + n_rows, later, after);
        }
    }
    tasks.into_par_iter().for_each(|(first, own, adds)| {
        for &(row, position) in adds {
            let to = &mut own[(row as usize - first) * dim..][..dim];
            to.iter_mut().zip(&rows[position * dim..]).for_each(|(sum, &value)| *sum += value);
        }
    });
    Ok(())
}

/// The definition of [`gather`]: naive, one row after the other.
///
/// # Errors
/// [`Error::NotOnDevice`] for a GPU.
pub fn gather_reference(table: &Table, indices: &[u32]) -> Result<Vec<f32>> {
    let mut out = vec![0.0; indices.len() * table.dim()];
    for (to, &index) in out.chunks_exact_mut(table.dim()).zip(indices) {
        table.read_row(index.into(), to)?;
    }
    Ok(out)
}

/// The definition of [`scatter_add`]: the values of the table afterwards.
///
/// # Errors
/// As [`gather_reference`].
pub fn scatter_add_reference(table: &Table, indices: &[u32], rows: &[f32]) -> Result<Vec<f32>> {
    let (dim, mut out) = (table.dim(), table.to_f32()?);
    for (row, &index) in rows.chunks_exact(dim).zip(indices) {
        let to = &mut out[index as usize * dim..][..dim];
        to.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    Ok(out)
}

fn check_indices(op: &'static str, table: &Table, indices: &[u32]) -> Result<()> {
    let rows = table.rows();
    match indices.iter().position(|&index| u64::from(index) >= rows) {
        Some(position) => Err(Error::IndexOutOfRange { op, position, rows, index: indices[position].into() }),
        None => Ok(()),
    }
}

fn not_f32(op: &'static str, table: &Table) -> Error {
    Error::RowType { op, what: "table", expected: RowType::F32, got: table.row_type() }
}

fn on_cpu(table: &Table, indices: &[u32]) -> Result<Buffer<f32>> {
    let dim = table.dim();
    let mut out = Buffer::zeros(indices.len().saturating_mul(dim), Device::Cpu, "gathered rows")?;
    let at_once = (TASK_VALUES / dim).max(1);
    let values = out.cpu_mut().unwrap_or_default();
    values.par_chunks_mut(at_once * dim).zip(indices.par_chunks(at_once)).try_for_each(
        |(out, indices)| {
            let rows = out.chunks_exact_mut(dim).zip(indices);
            rows.into_iter().try_for_each(|(to, &index)| table.read_row(index.into(), to))
        },
    )?;
    Ok(out)
}

#[cfg(feature = "gpu")]
fn on_cube<R: Gpu>(table: &Table, indices: &Buffer<u32>, device: Device) -> Result<Buffer<f32>> {
    let (queue, dim) = (Queue::<R>::new(device)?, table.dim());
    let words = RowWords::of(GATHER, table)?;
    // Every row lies in one chunk, so every value is written by one launch.
    let out = queue.unwritten::<f32>(indices.len().saturating_mul(dim), "gathered rows")?;
    if indices.is_empty() {
        return Ok(out);
    }
    for (first, rows) in table.chunks() {
        let cube_dim = CubeDim::new_1d(256);
        let cube_count = cubes(&queue.client, (out.len() / words.width).div_ceil(256));
        gather_kernel::launch::<R>(
            &queue.client,
            cube_count,
            cube_dim,
            words.width,
            words.words,
            words.arg(GATHER, &queue, rows)?,
            queue.arg(GATHER, indices)?,
            queue.vector_arg(GATHER, &out, words.width)?,
            first as u32,
            n_rows(rows, dim) as u32,
            words.row_vectors,
            words.format,
        );
    }
    Ok(out)
}

/// One chunk's share: the outputs whose row is `first_row .. first_row + n_rows` of the table, a vector a unit.
#[cfg(feature = "gpu")]
#[cube(launch)]
fn gather_kernel<N: Size, W: Size>(
    chunk: &Array<Vector<u32, W>>,
    indices: &Array<u32>,
    out: &mut Array<Vector<f32, N>>,
    first_row: u32,
    n_rows: u32,
    #[comptime] row_vectors: usize,
    #[comptime] format: u32,
) {
    if ABSOLUTE_POS < out.len() {
        let row = indices[ABSOLUTE_POS / row_vectors];
        if row >= first_row && row - first_row < n_rows {
            let at = (row - first_row) as usize * row_vectors + ABSOLUTE_POS % row_vectors;
            out[ABSOLUTE_POS] = widen::<N, W>(chunk[at], format);
        }
    }
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    let of_dim = |dim: usize| {
        Instance::new(format!("gather, dim {dim}"), move |device| {
            gather(&Table::zeros(3, dim, device, "an instance")?, &[2, 0]).map(drop)
        })
    };
    let half = Instance::new("gather, dim 64, f16", |device| {
        gather(&crate::cuda_sources::table_of(RowType::F16, 3, 64, device)?, &[2, 0]).map(drop)
    });
    [64, 128, 50, 33].map(of_dim).into_iter().chain([half]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_order_of_their_indices() {
        let table =
            Table::from_f32_in_chunks(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 2, 2, Device::Cpu, "a test").unwrap();
        let out = gather(&table, &[2, 0, 2]).unwrap();
        assert_eq!(out.cpu().unwrap(), [5.0, 6.0, 1.0, 2.0, 5.0, 6.0]);
        assert_eq!(gather(&table, &[]).unwrap().len(), 0);
        let past = Error::IndexOutOfRange { op: GATHER, position: 1, rows: 3, index: 3 };
        assert_eq!(gather(&table, &[0, 3]).unwrap_err(), past);
        let indices = |indices: &[u32]| RowIndices::new(indices, Device::Cpu).unwrap();
        assert_eq!(gather_at(&table, &indices(&[1])).unwrap().cpu().unwrap(), [3.0, 4.0]);
        assert_eq!(gather_at(&table, &indices(&[0, 3, 3])).unwrap_err(), past);
        assert_eq!(gather_at(&table, &indices(&[])).unwrap().len(), 0);
    }

    #[test]
    fn repeats_add_up_and_a_refusal_changes_nothing() {
        let mut table = Table::from_f32_in_chunks(&[0.0; 6], 2, 2, Device::Cpu, "a test").unwrap();
        scatter_add(&mut table, &[2, 0, 2], &[1.0, 2.0, 3.0, 4.0, 10.0, 20.0]).unwrap();
        assert_eq!(table.to_f32().unwrap(), [3.0, 4.0, 0.0, 0.0, 11.0, 22.0]);
        assert!(scatter_add(&mut table, &[0, 7], &[1.0; 4]).is_err());
        assert!(scatter_add(&mut table, &[0], &[1.0; 4]).is_err());
        assert_eq!(table.to_f32().unwrap(), [3.0, 4.0, 0.0, 0.0, 11.0, 22.0]);
        let mut half = table.to_row_type(RowType::F16, "a test").unwrap();
        assert!(matches!(scatter_add(&mut half, &[0], &[1.0; 2]), Err(Error::RowType { .. })));
    }
}
