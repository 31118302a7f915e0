//! The rows' equations on a GPU: rows streamed to the device in blocks, and one pass over the entries of a block.
//!
//! ```text
//! task = (row, up to 256 of its entries)          a row of 1,000 entries is four tasks, a row of none is none
//! s_i = y_iᵀ v      w_i = a_i s_i      (first pass: b_i - a_i s_i)      partial[task, :] = Σ w_i y_i
//! ```
//!
//! Factors stay on the device; interactions need not fit: a block is as many whole rows as its buffers have room for. A
//! row is cut into tasks by its own entries alone, and its partial sums are added up in order, so that a row has the same
//! bits alone and in any block.
//!
//! # Cost
//! A pass moves `nnz (4 dim + 8)` bytes (`2 dim` for half rows) and does `4 nnz dim` operations. One cube of 128 units
//! does a task: its fixed rows pass through shared memory, a tile of up to 32 at a time, read from memory once and from
//! there twice, for the products and for the sum; neighbouring units read neighbouring vectors of a row. Nothing crosses
//! units but through shared memory, so that no plane operation is asked for.

use cubecl::prelude::*;

use super::AlsSystem;
use crate::{
    Buffer, Result,
    buffer::cube::{Gpu, Queue, cubes},
    memory,
    table::bound::{Bound, RowFloat, load_row},
};

/// Entries of a task, at most.
const TASK: usize = 256;
const UNITS: usize = 128;
/// Bytes of shared memory that a tile of fixed rows takes, at most: a quarter of what the smallest devices have is left.
const TILE_BYTES: usize = 20 << 10;
/// Bytes that a block's buffers take together, at most.
const BLOCK_BYTES: usize = 1 << 30;

/// Vectors a row that a solver holds beside a block's entries.
const VECTORS: usize = 3;

/// Returns the bytes that a side's solver holds on a GPU beside the factors, for rows of `dim` values: the largest block.
pub(crate) fn block_bytes(n_rows: u64, nnz: u64, dim: u64) -> u64 {
    let tasks = nnz / TASK as u64 + n_rows;
    (8 * nnz + tasks * (4 * dim + 12) + n_rows * (12 * dim + 8)).min(BLOCK_BYTES as u64)
}

/// What all blocks of a side have in common.
pub(crate) struct Side<'a, R: Gpu> {
    pub(crate) op: &'static str,
    pub(crate) queue: &'a Queue<R>,
    pub(crate) system: &'a AlsSystem<'a>,
    pub(crate) fixed: &'a Bound<'a, R>,
    pub(crate) gram: Buffer<f32>,
    pub(crate) dim: usize,
}

/// Some rows on the device.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) first: usize,
    pub(crate) n_rows: usize,
    n_tasks: usize,
    columns: Buffer<u32>,
    values: Buffer<f32>,
    /// Row of the block, first entry and number of entries of each task.
    tasks: Buffer<u32>,
    /// Where each row's tasks begin, and the end: `[n_rows + 1]`.
    pub(crate) ends: Buffer<u32>,
}

impl Block {
    /// Returns the bytes that it takes.
    pub(crate) fn bytes(&self) -> u64 {
        let words = 2 * self.columns.len() + self.tasks.len() + self.ends.len();
        4 * words as u64
    }
}

/// Returns the bytes that all blocks of a side take at most.
pub(crate) fn kept_bytes(n_rows: u64, nnz: u64) -> u64 {
    let tasks = nnz / TASK as u64 + n_rows;
    // Every block has one end more than rows, and at least one row.
    8 * nnz + 12 * tasks + 8 * n_rows
}

/// What a pass makes of an entry with product `s`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub(crate) enum Weigh {
    /// `b - a s`
    Residual,
    /// `a s`
    Product,
}

impl<'a, R: Gpu> Side<'a, R> {
    pub(crate) fn new(
        op: &'static str,
        queue: &'a Queue<R>,
        system: &'a AlsSystem<'a>,
        fixed: &'a Bound<'a, R>,
    ) -> Result<Self> {
        let gram = queue.upload(system.gram, "the Gram matrix")?;
        Ok(Self { op, queue, system, fixed, gram, dim: system.fixed.dim() })
    }

    /// Cuts rows `first .. n_rows` into blocks that end where a chunk of `chunk_rows` does, and have room for [`VECTORS`] of `dim`
    /// values a row beside the entries.
    pub(crate) fn blocks(&self, first: usize, chunk_rows: usize) -> Result<Vec<(usize, usize)>> {
        let device = self.system.fixed.device();
        let most = BLOCK_BYTES.min(memory::available(device) as usize / 2).max(1 << 20);
        let buffer = device.max_buffer_bytes()? as usize;
        let row_bytes = 4 * self.dim;
        let indptr = self.system.rows.indptr;
        let mut blocks = Vec::new();
        let (mut first, n_rows) = (first, self.system.rows.n_rows());
        while first < n_rows {
            let chunk_end = n_rows.min((first / chunk_rows + 1) * chunk_rows);
            let mut end = first;
            let (mut tasks, mut bytes) = (0, 0);
            while end < chunk_end {
                let entries = (indptr[end + 1] - indptr[first]) as usize;
                tasks += ((indptr[end + 1] - indptr[end]) as usize).div_ceil(TASK);
                bytes =
                    8 * entries + tasks * (row_bytes + 12) + (end + 1 - first) * (VECTORS * row_bytes + 8);
                let largest = (4 * entries).max(tasks * row_bytes).max((end + 1 - first) * row_bytes);
                if end > first && (bytes > most || largest > buffer) {
                    break;
                }
                end += 1;
            }
            debug_assert!(bytes > 0);
            blocks.push((first, end));
            first = end;
        }
        Ok(blocks)
    }

    /// Copies rows `first .. end` to the device.
    pub(crate) fn block(&self, (first, end): (usize, usize)) -> Result<Block> {
        let (rows, queue) = (self.system.rows, self.queue);
        let entries = rows.indptr[first] as usize..rows.indptr[end] as usize;
        let mut tasks = Vec::new();
        let mut ends = vec![0];
        for row in first..end {
            let (from, to) = (rows.indptr[row] as usize, rows.indptr[row + 1] as usize);
            for at in (from..to).step_by(TASK) {
                tasks.extend([row - first, at - entries.start, TASK.min(to - at)].map(|n| n as u32));
            }
            ends.push((tasks.len() / 3) as u32);
        }
        let n_tasks = tasks.len() / 3;
        Ok(Block {
            first,
            n_rows: end - first,
            n_tasks,
            columns: queue.upload(&rows.indices[entries.clone()], "columns of a block of rows")?,
            values: queue.upload(&rows.values[entries], "values of a block of rows")?,
            tasks: queue.upload(&tasks, "tasks of a block of rows")?,
            ends: queue.upload(&ends, "ends of a block's rows")?,
        })
    }

    /// Copies the ridges of a block's rows to the device.
    pub(crate) fn ridge(&self, block: &Block) -> Result<Buffer<f32>> {
        let rows = block.first..block.first + block.n_rows;
        self.queue.upload(&self.system.ridge[rows], "ridges of a block of rows")
    }

    /// Makes room for what a pass over `block` writes: `[n_tasks, dim]`.
    pub(crate) fn partials(&self, block: &Block) -> Result<Buffer<f32>> {
        self.queue.unwritten(block.n_tasks * self.dim, "partial sums of a block of rows")
    }

    /// Goes once through the entries of `block`: `partials` are what its rows' vectors, rows `first ..` of `vectors`, give.
    pub(crate) fn pass<F: RowFloat>(
        &self,
        block: &Block,
        weigh: Weigh,
        (vectors, first): (&Buffer<f32>, usize),
        partials: &Buffer<f32>,
    ) -> Result<()> {
        let (queue, op, width) = (self.queue, self.op, self.fixed.width);
        if block.n_tasks == 0 {
            return Ok(());
        }
        pass_kernel::launch::<F, R>(
            &queue.client,
            cubes(&queue.client, block.n_tasks),
            CubeDim::new_1d(UNITS as u32),
            width,
            self.fixed.args::<F, _>(op)?,
            queue.arg(op, &block.columns)?,
            queue.arg(op, &block.values)?,
            queue.arg(op, &block.tasks)?,
            queue.vector_arg(op, vectors, width)?,
            queue.vector_arg(op, partials, width)?,
            first as u32,
            block.n_tasks as u32,
            self.fixed.shift,
            self.system.base,
            self.system.scale,
            self.system.offset,
            weigh == Weigh::Residual,
            self.fixed.row_vectors,
            tile(self.dim, width),
        );
        Ok(())
    }

    /// Returns the loss of every entry's pair under the rows of `vectors`, a sum a task.
    pub(crate) fn losses<F: RowFloat>(
        &self,
        block: &Block,
        (vectors, first): (&Buffer<f32>, usize),
    ) -> Result<Vec<f32>> {
        let (queue, op, width) = (self.queue, self.op, self.fixed.width);
        let out = queue.unwritten::<f32>(block.n_tasks, "losses of a block of rows")?;
        if block.n_tasks == 0 {
            return Ok(Vec::new());
        }
        loss_kernel::launch::<F, R>(
            &queue.client,
            cubes(&queue.client, block.n_tasks),
            CubeDim::new_1d(UNITS as u32),
            width,
            self.fixed.args::<F, _>(op)?,
            queue.arg(op, &block.columns)?,
            queue.arg(op, &block.values)?,
            queue.arg(op, &block.tasks)?,
            queue.vector_arg(op, vectors, width)?,
            queue.arg(op, &out)?,
            first as u32,
            block.n_tasks as u32,
            self.fixed.shift,
            self.system.base,
            self.system.scale,
            self.system.offset,
            self.fixed.row_vectors,
            tile(self.dim, width),
        );
        out.to_vec()
    }
}

/// Fixed rows of a tile: a power of two up to 32 whose rows, each a vector longer than it is, have room.
fn tile(dim: usize, width: usize) -> usize {
    let fits = (TILE_BYTES / (4 * (dim + width))).clamp(1, 32);
    1 << fits.ilog2()
}

/// Puts fixed rows `done .. done + tile` of a task into shared memory, and their products with `vector` into `products`.
#[cube]
fn multiply_tile<F: Float, N: Size>(
    fixed: &Sequence<Array<Vector<F, N>>>,
    columns: &Array<u32>,
    first: usize,
    n: usize,
    rows: &mut SharedMemory<Vector<f32, N>>,
    vector: &SharedMemory<Vector<f32, N>>,
    parts: &mut SharedMemory<f32>,
    shift: u32,
    #[comptime] row_vectors: usize,
    #[comptime] tile: usize,
) {
    // A row in shared memory is one vector longer, so that units that walk down different rows meet different banks.
    let stride = comptime!(row_vectors + 1);
    let unit = UNIT_POS as usize;
    let passes = comptime!((tile * row_vectors).div_ceil(UNITS));
    for pass in 0..passes {
        let at = pass * UNITS + unit;
        let (entry, vector) = (at / row_vectors, at % row_vectors);
        if entry < n {
            let column = columns[first + entry];
            rows[entry * stride + vector] = load_row::<F, N>(fixed, column, vector, shift, row_vectors);
        }
    }
    sync_cube();
    // Unit (part, entry) multiplies its part of the entry's row.
    let n_parts = comptime!(UNITS / tile);
    let part_vectors = comptime!(row_vectors.div_ceil(UNITS / tile));
    let (entry, part) = (unit % tile, unit / tile);
    let mut sum = Vector::<f32, N>::zeroed();
    if entry < n && part < n_parts {
        for at in 0..part_vectors {
            let at = part * part_vectors + at;
            if at < row_vectors {
                sum += rows[entry * stride + at] * vector[at];
            }
        }
    }
    let mut product = 0.0;
    #[unroll]
    for lane in 0..N::value() {
        product += sum[lane];
    }
    parts[part * tile + entry] = product;
    sync_cube();
}

/// The product of entry `entry` of the tile: its parts in order.
#[cube]
fn product(parts: &SharedMemory<f32>, entry: usize, #[comptime] tile: usize) -> f32 {
    let mut sum = 0.0;
    #[unroll]
    for part in 0..comptime!(UNITS / tile) {
        sum += parts[part * tile + entry];
    }
    sum
}

#[cube(launch)]
fn pass_kernel<F: Float, N: Size>(
    fixed: &Sequence<Array<Vector<F, N>>>,
    columns: &Array<u32>,
    values: &Array<f32>,
    tasks: &Array<u32>,
    vectors: &Array<Vector<f32, N>>,
    partials: &mut Array<Vector<f32, N>>,
    vectors_first: u32,
    n_tasks: u32,
    shift: u32,
    base: f32,
    scale: f32,
    offset: f32,
    #[comptime] residual: bool,
    #[comptime] row_vectors: usize,
    #[comptime] tile: usize,
) {
    let stride = comptime!(row_vectors + 1);
    // Also holds, at the end, a sum of every group of units.
    let mut rows =
        SharedMemory::<Vector<f32, N>>::new(comptime!(usize::max(tile * (row_vectors + 1), UNITS)));
    let mut vector = SharedMemory::<Vector<f32, N>>::new(row_vectors);
    let mut parts = SharedMemory::<f32>::new(UNITS);
    let mut weights = SharedMemory::<f32>::new(tile);
    let task = CUBE_POS;
    let unit = UNIT_POS as usize;

    if task < n_tasks as usize {
        let row = tasks[3 * task];
        let first = tasks[3 * task + 1] as usize;
        let len = tasks[3 * task + 2] as usize;
        let own = comptime!(row_vectors.div_ceil(UNITS));
        #[unroll]
        for at in 0..own {
            let at = at * UNITS + unit;
            if at < row_vectors {
                vector[at] = vectors[(vectors_first + row) as usize * row_vectors + at];
            }
        }
        // Rows shorter than the units: several groups of units take every so manieth entry each.
        let groups = comptime!(if row_vectors < UNITS { UNITS / row_vectors } else { 1 });
        let group = if comptime!(row_vectors < UNITS) { unit / row_vectors } else { 0usize.runtime() };
        let mut sums = Array::<Vector<f32, N>>::new(own);
        #[unroll]
        for at in 0..own {
            sums[at] = Vector::<f32, N>::zeroed();
        }
        sync_cube();
        let tiles = len.div_ceil(tile);
        for at_tile in 0..tiles {
            let done = at_tile * tile;
            let n = usize::min(len - done, tile);
            multiply_tile::<F, N>(
                fixed,
                columns,
                first + done,
                n,
                &mut rows,
                &vector,
                &mut parts,
                shift,
                row_vectors,
                tile,
            );
            if unit < n {
                let s = product(&parts, unit, tile);
                let value = values[first + done + unit];
                let a = fma(scale, value.abs(), base);
                if comptime!(residual) {
                    let mut b = 0.0;
                    if value > 0.0 {
                        b = offset + a;
                    }
                    weights[unit] = b - a * s;
                } else {
                    weights[unit] = a * s;
                }
            }
            sync_cube();
            if comptime!(row_vectors < UNITS) {
                if group < groups {
                    let rounds = (n + groups - 1 - group) / groups;
                    for round in 0..rounds {
                        let entry = round * groups + group;
                        sums[0] +=
                            rows[entry * stride + unit % row_vectors] * Vector::<f32, N>::new(weights[entry]);
                    }
                }
            } else {
                for entry in 0..n {
                    #[unroll]
                    for at in 0..own {
                        let column = at * UNITS + unit;
                        if column < row_vectors {
                            sums[at] += rows[entry * stride + column] * Vector::<f32, N>::new(weights[entry]);
                        }
                    }
                }
            }
            sync_cube();
        }
        if comptime!(row_vectors < UNITS) {
            rows[unit] = sums[0];
            sync_cube();
            if unit < row_vectors {
                let mut sum = Vector::<f32, N>::zeroed();
                #[unroll]
                for group in 0..groups {
                    sum += rows[group * row_vectors + unit];
                }
                partials[task * row_vectors + unit] = sum;
            }
        } else {
            #[unroll]
            for at in 0..own {
                let column = at * UNITS + unit;
                if column < row_vectors {
                    partials[task * row_vectors + column] = sums[at];
                }
            }
        }
    }
}

#[cube(launch)]
fn loss_kernel<F: Float, N: Size>(
    fixed: &Sequence<Array<Vector<F, N>>>,
    columns: &Array<u32>,
    values: &Array<f32>,
    tasks: &Array<u32>,
    vectors: &Array<Vector<f32, N>>,
    losses: &mut Array<f32>,
    vectors_first: u32,
    n_tasks: u32,
    shift: u32,
    base: f32,
    scale: f32,
    offset: f32,
    #[comptime] row_vectors: usize,
    #[comptime] tile: usize,
) {
    let mut rows = SharedMemory::<Vector<f32, N>>::new(comptime!(tile * (row_vectors + 1)));
    let mut vector = SharedMemory::<Vector<f32, N>>::new(row_vectors);
    let mut parts = SharedMemory::<f32>::new(UNITS);
    let task = CUBE_POS;
    let unit = UNIT_POS as usize;

    if task < n_tasks as usize {
        let row = tasks[3 * task];
        let first = tasks[3 * task + 1] as usize;
        let len = tasks[3 * task + 2] as usize;
        #[unroll]
        for at in 0..comptime!(row_vectors.div_ceil(UNITS)) {
            let at = at * UNITS + unit;
            if at < row_vectors {
                vector[at] = vectors[(vectors_first + row) as usize * row_vectors + at];
            }
        }
        let mut sum = 0.0;
        sync_cube();
        let tiles = len.div_ceil(tile);
        for at_tile in 0..tiles {
            let done = at_tile * tile;
            let n = usize::min(len - done, tile);
            multiply_tile::<F, N>(
                fixed,
                columns,
                first + done,
                n,
                &mut rows,
                &vector,
                &mut parts,
                shift,
                row_vectors,
                tile,
            );
            if unit < n {
                let s = product(&parts, unit, tile);
                let value = values[first + done + unit];
                let a = fma(scale, value.abs(), base);
                let mut b = 0.0;
                if value > 0.0 {
                    b = offset + a;
                }
                sum += a * s * s - 2.0 * b * s + b;
            }
            sync_cube();
        }
        parts[unit] = sum;
        sync_cube();
        if unit == 0 {
            let mut total = 0.0;
            for at in 0..tile {
                total += parts[at];
            }
            losses[task] = total;
        }
    }
}
