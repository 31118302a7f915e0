//! Block coordinate descent on a GPU: a cube a row.
//!
//! A row's `x` is in shared memory, and the product `s_i = y_iᵀ x` of each of its entries in device memory. A block of dimensions
//! takes one pass over the entries: each is brought up to date with the change of the block before, and then adds to the
//! block's matrix and gradient in tiles ([`tiles`](crate::als::tiles)).
//!
//! # Cost
//! Bytes an entry: its fixed row three times (the first products, a block's own columns, and once more for their change),
//! 8 and `8 blocks` of products. Bytes a row: `4 dim²` of gram twice, from a cache. In flight: a cube of 32 units a row for
//! blocks of up to 32. A row is one cube's work and lies whole in a batch: a row of 100,000 entries takes as long as 100,000
//! entries of a single core, some milliseconds, in which the other cores go on with other rows.

use cubecl::prelude::*;

use crate::{
    AlsSystem, Buffer, Result, Rows, Table,
    als::{
        entries::{Batches, Entries, Failures, Fixed, Layout, batch_bytes, no_failure},
        tiles::{
            Four, Shape, add_products, barrier, begin, factor, is_finite, load_rows, matrix_of, substitute,
            target, tiled, weight,
        },
    },
    buffer::cube::{Gpu, Queue},
};

use super::OP;

/// Cubes at once where the matrix is in device memory.
const CUBES: usize = 512;

pub(super) fn solve<R: Gpu>(system: &AlsSystem<'_>, solution: &mut Table, block: usize) -> Result<()> {
    let device = solution.device();
    let queue = &Queue::<R>::new(device)?;
    let dim = system.fixed.dim();
    let layout = Layout { dim, block: block.min(dim) };
    let (block, tiles) = (layout.block, layout.block_vectors());
    let hardware = queue.client.properties().hardware.clone();
    let shape = Shape::new(tiles, hardware.max_shared_memory_size, 4 * (dim + 4 * tiles));
    let vectors = Shape::vectors(tiles);
    let fixed = Fixed::new(OP, queue, system, layout);
    let limits = fixed.limits(device, usize::MAX, 0)?;
    let most_cubes = match shape.in_shared {
        // Each axis of a launch has a limit, and one axis is enough: the cubes walk over the rows.
        true => 65_535,
        false => (batch_bytes(device)? as usize / (16 * vectors)).clamp(1, CUBES),
    };
    let blocks: Vec<f32> = (0..layout.blocks())
        .flat_map(|at| tiled(system.gram, dim, at * block..dim.min((at + 1) * block), tiles))
        .collect();
    let blocks = queue.upload(&blocks, "the gram matrix's blocks in tiles")?;
    let gram = queue.upload(system.gram, "the gram matrix")?;
    let chunks: Vec<(u64, &Rows)> = solution.chunks().collect();
    let mut failures = Failures::new(OP);
    for batch in Batches::new(system, solution.chunk_rows(), limits) {
        let (first_row, rows) = chunks[batch.chunk];
        let Rows::F32(x) = rows else { continue };
        let word = no_failure(queue)?;
        let uploaded = fixed.upload(system, &batch)?;
        let products: Buffer<f32> = queue.unwritten(batch.entries.len(), "products of a batch's entries")?;
        let tasks = queue.upload(&batch.short, "a batch's rows")?;
        let cubes = (batch.short.len() / 4).min(most_cubes);
        let at_once = if shape.in_shared { 0 } else { cubes };
        let scratch: Buffer<f32> = queue.unwritten(at_once * 4 * vectors, "matrices of the cubes")?;
        sweep_rows::launch::<R>(
            &queue.client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(shape.units(hardware.max_units_per_cube)),
            fixed.arg(system, &uploaded)?,
            queue.arg(OP, &tasks)?,
            queue.arg(OP, &gram)?,
            queue.vector_arg(OP, &blocks, 4)?,
            queue.arg(OP, &products)?,
            queue.vector_arg(OP, &scratch, 4)?,
            queue.arg(OP, x)?,
            queue.arg(OP, &word)?,
            block as u32,
            dim,
            shape,
        );
        failures.after(word, first_row)?;
    }
    failures.finish()
}

/// One sweep over the blocks of each row. A task is first entry, end, row of the chunk, ridge.
#[cube(launch)]
fn sweep_rows(
    entries: &Entries,
    tasks: &Array<u32>,
    gram: &Array<f32>,
    gram_blocks: &Array<Four>,
    products: &mut Array<f32>,
    scratch: &mut Array<Four>,
    solution: &mut Array<f32>,
    failure: &mut Array<Atomic<u32>>,
    block: u32,
    #[comptime] dim: usize,
    #[comptime] shape: Shape,
) {
    let tiles = comptime!(shape.tiles);
    let mut matrix = matrix_of(scratch, shape);
    let mut rows = SharedMemory::<Four>::new(comptime!(shape.at_once * (tiles + 1)));
    let mut weights = SharedMemory::<f32>::new(shape.at_once);
    let mut z = SharedMemory::<f32>::new(comptime!(4 * tiles));
    let mut change = SharedMemory::<f32>::new(comptime!(4 * tiles));
    let mut x = SharedMemory::<f32>::new(comptime!(dim + 4 * tiles));
    let block = block as usize;
    let unit = UNIT_POS as usize;
    let units = CUBE_DIM as usize;
    let mut task = CUBE_POS;
    while task < tasks.len() / 4 {
        let (first, end) = (tasks[4 * task] as usize, tasks[4 * task + 1] as usize);
        let (row, ridge) = (tasks[4 * task + 2], f32::reinterpret(tasks[4 * task + 3]));
        let n_blocks = select(first < end, (dim - 1) / block + 1, 0);
        let mut at = unit;
        while at < comptime!(dim + 4 * tiles) {
            let mut value = 0.0;
            if at < dim {
                value = solution[row as usize * dim + at];
            }
            x[at] = value;
            at += units;
        }
        sync_cube();
        let mut at = first;
        while at < end {
            let n = usize::min(end - at, shape.at_once);
            let mut product = 0.0;
            for b in 0..n_blocks {
                let width = usize::min(tiles, entries.row_vectors as usize - b * tiles);
                load_rows(entries, at, n, b * tiles, width, &mut rows, tiles);
                sync_cube();
                if unit < n {
                    product = dot(&rows, unit, &x, b * block, product, tiles);
                }
                sync_cube();
            }
            if unit < n {
                products[at + unit] = product;
            }
            at += n;
        }

        let mut failed = 0u32;
        for b in 0..n_blocks {
            let width = usize::min(tiles, entries.row_vectors as usize - b * tiles);
            let n_values = usize::min(block, dim - b * block);
            let of_block = b * comptime!(Shape::vectors(tiles));
            begin(&mut matrix, gram_blocks, of_block, ridge, n_values as u32, tiles);
            barrier(shape.in_shared);
            // What the right-hand side has before the entries: -(gram x + ridge x).
            let mut at = unit;
            while at < n_values {
                let i = b * block + at;
                let mut sum = ridge * x[i];
                for j in 0..dim {
                    sum = fma(gram[j * dim + i], x[j], sum);
                }
                let mut four = Four::new(0.0);
                four[0] = -sum;
                matrix[comptime!(4 * (tiles * (tiles + 1) / 2)) + at] = four;
                at += units;
            }
            barrier(shape.in_shared);
            let mut at = first;
            while at < end {
                let n = usize::min(end - at, shape.at_once);
                let mut product = 0.0;
                if unit < n {
                    product = products[at + unit];
                }
                // Loops of one turn or none, so that a barrier is in no branch.
                for _again in 0..select(b > 0, 1u32, 0u32) {
                    load_rows(entries, at, n, (b - 1) * tiles, tiles, &mut rows, tiles);
                    sync_cube();
                    if unit < n {
                        product = dot(&rows, unit, &change, 0, product, tiles);
                    }
                    sync_cube();
                }
                load_rows(entries, at, n, b * tiles, width, &mut rows, tiles);
                if unit < n {
                    products[at + unit] = product;
                    let a = weight(entries, at + unit);
                    weights[unit] = a;
                    let mut four = Four::new(0.0);
                    four[0] = fma(-a, product, target(entries, at + unit, a));
                    rows[unit * (tiles + 1) + tiles] = four;
                }
                barrier(shape.in_shared);
                add_products(&mut matrix, &rows, &weights, n, tiles);
                barrier(shape.in_shared);
                at += n;
            }
            failed |= factor(&mut matrix, tiles, shape);
            substitute(&matrix, tiles, &mut z, &mut change, tiles);
            let mut at = unit;
            while at < n_values {
                x[b * block + at] += change[at];
                at += units;
            }
            sync_cube();
        }

        if failed == 1 {
            if unit == 0 {
                failure[0].fetch_min(2 * row);
            }
        } else {
            let mut at = unit;
            while at < dim {
                let value = select(first < end, x[at], f32::new(0.0));
                if !is_finite(value) {
                    failure[0].fetch_min(2 * row + 1);
                }
                solution[row as usize * dim + at] = value;
                at += units;
            }
        }
        sync_cube();
        task += CUBE_COUNT;
    }
}

/// `sum` and the dot product of the row of entry `entry` in shared memory with `vector` from value `from` on.
#[cube]
fn dot(
    rows: &SharedMemory<Four>,
    entry: usize,
    vector: &SharedMemory<f32>,
    from: usize,
    sum: f32,
    #[comptime] tiles: usize,
) -> f32 {
    let mut total = sum;
    for v in 0..tiles {
        let four = rows[entry * (tiles + 1) + v];
        total = fma(four[0], vector[from + 4 * v], total);
        total = fma(four[1], vector[from + 4 * v + 1], total);
        total = fma(four[2], vector[from + 4 * v + 2], total);
        total = fma(four[3], vector[from + 4 * v + 3], total);
    }
    total
}
