//! Normal equations on a GPU: a cube a row, or a cube a piece of a long row.
//!
//! A row of at most [`PIECE`] entries is formed and solved by one cube ([`solve_rows()`]). A longer one is cut into pieces, which
//! any number of cubes sum at once ([`sum_pieces()`]); one cube a row then adds their sums in order and solves
//! ([`solve_sums()`]). So no row holds the device up, and neither a row's entries nor its sums have to fit: what a batch leaves
//! unfinished is carried to the next as one matrix.
//!
//! # Cost
//! Bytes an entry: 8 and its fixed row, from device memory once. Bytes a row: `4 dim²` of gram (from a cache), 16 and
//! `4 dim` of solution. In flight: a cube a row, of 32 to 256 units with 2 to 5 tiles each. The matrix is in shared memory up
//! to about 100 dimensions where there are 32 KiB and 300 where there are 227; beyond, each cube has a matrix in device
//! memory and the cubes walk over the rows: right, and slow.

use cubecl::prelude::*;

use crate::{
    AlsSystem, Buffer, Result, Rows, Table,
    als::{
        entries::{Batch, Batches, Entries, Failures, Fixed, Layout, Limits, batch_bytes, no_failure},
        tiles::{
            Four, Shape, add_products, barrier, begin, factor, is_finite, load_rows, matrix_of, substitute,
            target, tiled, weight, with_ridge,
        },
    },
    buffer::cube::{Gpu, Queue},
};

use super::OP;

/// Entries of a piece: its sums are a few per cent of its rows' bytes, and a row of millions keeps every core busy.
const PIECE: usize = 1024;
/// Cubes at once where the matrix is in device memory.
const CUBES: usize = 512;

/// Solves every row; `most_entries` of a batch and one piece at a time where it is given, for tests.
pub(super) fn solve<R: Gpu>(
    system: &AlsSystem<'_>,
    solution: &mut Table,
    most_entries: Option<usize>,
) -> Result<()> {
    let device = solution.device();
    let queue = &Queue::<R>::new(device)?;
    let dim = system.fixed.dim();
    let layout = Layout { dim, block: dim };
    let hardware = queue.client.properties().hardware.clone();
    let shape = Shape::new(dim.div_ceil(4), hardware.max_shared_memory_size, 0);
    let matrix_bytes = 16 * Shape::vectors(shape.tiles);
    let fixed = Fixed::new(OP, queue, system, layout);
    let mut limits = fixed.limits(device, PIECE, matrix_bytes)?;
    if let Some(entries) = most_entries {
        limits = Limits { entries, pieces: 1, ..limits };
    }
    let resident = (batch_bytes(device)? as usize / matrix_bytes).clamp(1, CUBES);
    let run = Run {
        queue,
        system,
        fixed,
        shape,
        cube_dim: CubeDim::new_1d(shape.units(hardware.max_units_per_cube)),
        // Each axis of a launch has a limit, and one axis is enough: the cubes walk over the rows.
        most_cubes: if shape.in_shared { 65_535 } else { resident },
        gram: queue.upload(&tiled(system.gram, dim, 0..dim, shape.tiles), "the gram matrix in tiles")?,
        carried: queue.zeros(4 * Shape::vectors(shape.tiles), "sums of a row that goes on")?,
    };
    let chunks: Vec<(u64, &Rows)> = solution.chunks().collect();
    let mut failures = Failures::new(OP);
    for batch in Batches::new(system, solution.chunk_rows(), limits) {
        let (first_row, rows) = chunks[batch.chunk];
        let word = no_failure(queue)?;
        if let Rows::F32(x) = rows {
            run.batch(&batch, x, &word)?;
        }
        failures.after(word, first_row)?;
    }
    failures.finish()
}

/// What every batch uses.
struct Run<'a, R: Gpu> {
    queue: &'a Queue<R>,
    system: &'a AlsSystem<'a>,
    fixed: Fixed<'a, R>,
    shape: Shape,
    cube_dim: CubeDim,
    most_cubes: usize,
    gram: Buffer<f32>,
    carried: Buffer<f32>,
}

impl<R: Gpu> Run<'_, R> {
    fn batch(&self, batch: &Batch, x: &Buffer<f32>, failure: &Buffer<u32>) -> Result<()> {
        let Self { queue, shape, cube_dim, .. } = *self;
        let vectors = Shape::vectors(shape.tiles);
        let uploaded = self.fixed.upload(self.system, batch)?;
        let (n_short, n_long) = (batch.short.len() / 4, batch.long.len() / 4);
        let cubes = |n: usize| n.min(self.most_cubes);
        let count = |n: usize| CubeCount::Static(n as u32, 1, 1);
        let at_once = if shape.in_shared { 0 } else { cubes(n_short).max(cubes(n_long)) };
        let scratch = queue.unwritten::<f32>(at_once * 4 * vectors, "matrices of the cubes")?;
        let dim = self.system.fixed.dim() as u32;
        if n_short > 0 {
            let tasks = queue.upload(&batch.short, "a batch's rows")?;
            solve_rows::launch::<R>(
                &queue.client,
                count(cubes(n_short)),
                cube_dim,
                self.fixed.arg(self.system, &uploaded)?,
                queue.arg(OP, &tasks)?,
                queue.vector_arg(OP, &self.gram, 4)?,
                queue.vector_arg(OP, &scratch, 4)?,
                queue.arg(OP, x)?,
                queue.arg(OP, failure)?,
                dim,
                shape,
            );
        }
        if n_long > 0 {
            let n_pieces = batch.pieces.len() / 2;
            let pieces = queue.upload(&batch.pieces, "pieces of long rows")?;
            let sums = queue.unwritten::<f32>(n_pieces * 4 * vectors, "sums of pieces of long rows")?;
            sum_pieces::launch::<R>(
                &queue.client,
                count(n_pieces.min(65_535)),
                cube_dim,
                self.fixed.arg(self.system, &uploaded)?,
                queue.arg(OP, &pieces)?,
                queue.vector_arg(OP, &sums, 4)?,
                shape,
            );
            let tasks = queue.upload(&batch.long, "a batch's long rows")?;
            solve_sums::launch::<R>(
                &queue.client,
                count(cubes(n_long)),
                cube_dim,
                queue.vector_arg(OP, &sums, 4)?,
                queue.arg(OP, &tasks)?,
                queue.vector_arg(OP, &self.gram, 4)?,
                queue.vector_arg(OP, &self.carried, 4)?,
                queue.vector_arg(OP, &scratch, 4)?,
                queue.arg(OP, x)?,
                queue.arg(OP, failure)?,
                dim,
                u32::from(batch.goes_on),
                u32::from(batch.unfinished),
                shape,
            );
        }
        Ok(())
    }
}

/// Adds the entries `begin .. end` to the matrix. A barrier is behind it.
#[cube]
fn add_entries(
    entries: &Entries,
    begin: u32,
    end: u32,
    matrix: &mut SliceMut<Four>,
    rows: &mut SharedMemory<Four>,
    weights: &mut SharedMemory<f32>,
    #[comptime] shape: Shape,
) {
    let tiles = comptime!(shape.tiles);
    let mut at = begin as usize;
    while at < end as usize {
        let n = usize::min(end as usize - at, shape.at_once);
        load_rows(entries, at, n, 0, tiles, rows, tiles);
        let mut entry = UNIT_POS as usize;
        while entry < n {
            let a = weight(entries, at + entry);
            weights[entry] = a;
            let mut four = Four::new(0.0);
            four[0] = target(entries, at + entry, a);
            rows[entry * (tiles + 1) + tiles] = four;
            entry += CUBE_DIM as usize;
        }
        barrier(shape.in_shared);
        add_products(matrix, rows, weights, n, tiles);
        barrier(shape.in_shared);
        at += n;
    }
}

/// Solves the matrix and writes row `row` of the solution; zeros where there are no entries, and nothing of a system that
/// is not positive definite. With `columns` 0 it does nothing, or writes the zeros. A barrier is behind it.
#[cube]
fn finish(
    matrix: &mut SliceMut<Four>,
    columns: usize,
    empty: bool,
    row: u32,
    dim: u32,
    solution: &mut Array<f32>,
    failure: &mut Array<Atomic<u32>>,
    #[comptime] shape: Shape,
) {
    let mut z = SharedMemory::<f32>::new(comptime!(4 * shape.tiles));
    let mut x = SharedMemory::<f32>::new(comptime!(4 * shape.tiles));
    let failed = factor(matrix, columns, shape);
    substitute(matrix, columns, &mut z, &mut x, shape.tiles);
    if failed == 1 {
        if UNIT_POS == 0 {
            failure[0].fetch_min(2 * row);
        }
    } else if empty || columns > 0 {
        let mut at = UNIT_POS;
        while at < dim {
            let value = select(empty, f32::new(0.0), x[at as usize]);
            if !is_finite(value) {
                failure[0].fetch_min(2 * row + 1);
            }
            solution[(row * dim + at) as usize] = value;
            at += CUBE_DIM;
        }
    }
    sync_cube();
}

/// Rows of ordinary length. A task is first entry, end, row of the chunk, ridge.
#[cube(launch)]
fn solve_rows(
    entries: &Entries,
    tasks: &Array<u32>,
    gram: &Array<Four>,
    scratch: &mut Array<Four>,
    solution: &mut Array<f32>,
    failure: &mut Array<Atomic<u32>>,
    dim: u32,
    #[comptime] shape: Shape,
) {
    let mut matrix = matrix_of(scratch, shape);
    let mut rows = SharedMemory::<Four>::new(comptime!(shape.at_once * (shape.tiles + 1)));
    let mut weights = SharedMemory::<f32>::new(shape.at_once);
    let mut task = CUBE_POS;
    while task < tasks.len() / 4 {
        let (first, end) = (tasks[4 * task], tasks[4 * task + 1]);
        begin(&mut matrix, gram, 0, f32::reinterpret(tasks[4 * task + 3]), dim, shape.tiles);
        barrier(shape.in_shared);
        add_entries(entries, first, end, &mut matrix, &mut rows, &mut weights, shape);
        let columns = select(first < end, shape.tiles, 0);
        finish(&mut matrix, columns, first == end, tasks[4 * task + 2], dim, solution, failure, shape);
        task += CUBE_COUNT;
    }
}

/// Pieces of long rows, each to a matrix of its own. A piece is first entry, end.
#[cube(launch)]
fn sum_pieces(entries: &Entries, pieces: &Array<u32>, sums: &mut Array<Four>, #[comptime] shape: Shape) {
    let n = comptime!(Shape::vectors(shape.tiles));
    let mut rows = SharedMemory::<Four>::new(comptime!(shape.at_once * (shape.tiles + 1)));
    let mut weights = SharedMemory::<f32>::new(shape.at_once);
    let mut shared = SharedMemory::<Four>::new(comptime!(if shape.in_shared { n } else { 1 }));
    let mut piece = CUBE_POS;
    while piece < pieces.len() / 2 {
        let mut matrix = if comptime!(shape.in_shared) {
            shared.to_slice_mut()
        } else {
            sums.slice_mut(piece * n, piece * n + n)
        };
        let mut at = UNIT_POS as usize;
        while at < n {
            matrix[at] = Four::new(0.0);
            at += CUBE_DIM as usize;
        }
        barrier(shape.in_shared);
        add_entries(
            entries,
            pieces[2 * piece],
            pieces[2 * piece + 1],
            &mut matrix,
            &mut rows,
            &mut weights,
            shape,
        );
        if comptime!(shape.in_shared) {
            let mut at = UNIT_POS as usize;
            while at < n {
                sums[piece * n + at] = shared[at];
                at += CUBE_DIM as usize;
            }
            sync_cube();
        }
        piece += CUBE_COUNT;
    }
}

/// Long rows from the sums of their pieces. A task is first piece, end, row of the chunk, ridge; the first task begins with
/// `carried` where it `goes_on`, and the last ends there where it is `unfinished`.
#[cube(launch)]
fn solve_sums(
    sums: &Array<Four>,
    tasks: &Array<u32>,
    gram: &Array<Four>,
    carried: &mut Array<Four>,
    scratch: &mut Array<Four>,
    solution: &mut Array<f32>,
    failure: &mut Array<Atomic<u32>>,
    dim: u32,
    goes_on: u32,
    unfinished: u32,
    #[comptime] shape: Shape,
) {
    let n = comptime!(Shape::vectors(shape.tiles));
    let mut matrix = matrix_of(scratch, shape);
    let mut task = CUBE_POS;
    while task < tasks.len() / 4 {
        let (first, end) = (tasks[4 * task] as usize, tasks[4 * task + 1] as usize);
        let ridge = f32::reinterpret(tasks[4 * task + 3]);
        let resumed = goes_on == 1 && task == 0;
        let kept = unfinished == 1 && task + 1 == tasks.len() / 4;
        let mut at = UNIT_POS as usize;
        while at < n {
            let mut sum = with_ridge(gram[at], at, ridge, dim, shape.tiles);
            if resumed {
                sum = carried[at];
            }
            for piece in first..end {
                sum += sums[piece * n + at];
            }
            if kept {
                carried[at] = sum;
            }
            matrix[at] = sum;
            at += CUBE_DIM as usize;
        }
        barrier(shape.in_shared);
        let columns = select(kept, 0, shape.tiles);
        finish(&mut matrix, columns, false, tasks[4 * task + 2], dim, solution, failure, shape);
        task += CUBE_COUNT;
    }
}
