//! The Gram matrix on a GPU.
//!
//! The rows are cut into segments, a multiple of 256 rows each and at most 256 of them, by their number alone. A cube
//! makes a tile of 64 x 64 sums of one segment, 4 x 4 a unit, from rows in shared memory 16 at a time; every 256 rows it
//! adds its f32 sums to a total with the rounding error carried along (Kahan). A second kernel adds the segments up in
//! order, in the same way. Only tiles on and above the diagonal are made. Rows of 16 bits go through matrix units where the
//! device has them (`cube_matrix.rs`).
//!
//! # Cost
//! `rows dim (dim + 64)` operations; a row is read `dim / 64` times; `segments dim²` partial sums are written and read.

use cubecl::prelude::*;

use super::{OP, cube_matrix};
use crate::{
    Device, Result, RowType, Table,
    buffer::cube::{Gpu, Queue, cubes},
    table::bound::{Bound, RowFloat, load_row, with_row_type},
};

pub(super) const TILE: usize = 64;
const DEPTH: usize = 16;
pub(super) const OWN: usize = 4;
pub(super) const UNITS: usize = (TILE / OWN) * (TILE / OWN);
/// Rows summed in plain f32.
pub(super) const EXACT_ROWS: usize = 256;
const MAX_SEGMENTS: usize = 256;
/// Bytes of all partial sums, at most.
const PARTIAL_BYTES: usize = 64 << 20;

/// Returns `YᵀY`, `[dim, dim]`; what is not finite in it has not been looked for.
pub(super) fn on_cube<R: Gpu>(table: &Table, device: Device) -> Result<Vec<f32>> {
    let dim = table.dim();
    if table.rows() == 0 {
        return Ok(vec![0.0; dim * dim]);
    }
    let queue = Queue::<R>::new(device)?;
    let bound = Bound::new(OP, &queue, table)?;
    let by_matrix_units = cube_matrix::fits(&queue, table);
    with_row_type!(OP, table, F => launch::<R, F>(&queue, &bound, table.rows() as usize, dim, by_matrix_units))
}

fn launch<R: Gpu, F: RowFloat>(
    queue: &Queue<R>,
    bound: &Bound<'_, R>,
    rows: usize,
    dim: usize,
    by_matrix_units: bool,
) -> Result<Vec<f32>> {
    let most = (PARTIAL_BYTES / (4 * dim * dim)).clamp(1, MAX_SEGMENTS);
    let segment = rows.div_ceil(most).next_multiple_of(EXACT_ROWS);
    let segments = rows.div_ceil(segment);
    let partials = queue.zeros::<f32>(segments * dim * dim, "partial sums of a Gram matrix")?;
    let tiles = dim.div_ceil(TILE) as u32;
    let count = CubeCount::Static(segments as u32, tiles, tiles);
    let (client, cube) = (&queue.client, CubeDim::new_1d(UNITS as u32));
    let (rows, segment, to) = (rows as u32, segment as u32, queue.arg(OP, &partials)?);
    let (shift, vectors) = (bound.shift, bound.row_vectors);
    if by_matrix_units {
        let table = bound.args::<F, _>(OP)?;
        cube_matrix::partial_matrix_kernel::launch::<F, R>(
            client,
            count,
            cube,
            bound.width,
            table,
            to,
            shift,
            rows,
            segment,
            vectors,
        );
    } else {
        let table = bound.args::<F, _>(OP)?;
        partial_kernel::launch::<F, R>(
            client,
            count,
            cube,
            bound.width,
            table,
            to,
            shift,
            rows,
            segment,
            vectors,
        );
    }
    let out = queue.unwritten::<f32>(dim * dim, "a Gram matrix")?;
    total_kernel::launch::<R>(
        &queue.client,
        cubes(&queue.client, (dim * dim).div_ceil(256)),
        CubeDim::new_1d(256),
        queue.arg(OP, &partials)?,
        queue.arg(OP, &out)?,
        segments as u32,
        dim,
    );
    out.to_vec()
}

#[cube(launch)]
fn partial_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    partials: &mut Array<f32>,
    shift: u32,
    rows: u32,
    segment: u32,
    #[comptime] row_vectors: usize,
) {
    let width = N::value();
    let dim = comptime!(row_vectors * width);
    let mut left = SharedMemory::<f32>::new(DEPTH * TILE);
    let mut right = SharedMemory::<f32>::new(DEPTH * TILE);
    let unit = UNIT_POS as usize;
    let (left_tile, right_tile) = (CUBE_POS_Y as usize * TILE, CUBE_POS_Z as usize * TILE);
    let unit_left = unit / (TILE / OWN) * OWN;
    let unit_right = unit % (TILE / OWN) * OWN;
    let begin = CUBE_POS_X * segment;
    let end = u32::min(begin + segment, rows);

    if left_tile <= right_tile {
        let mut sums = Array::<f32>::new(OWN * OWN);
        let mut totals = Array::<f32>::new(OWN * OWN);
        let mut lost = Array::<f32>::new(OWN * OWN);
        #[unroll]
        for at in 0..OWN * OWN {
            sums[at] = 0.0;
            totals[at] = 0.0;
            lost[at] = 0.0;
        }
        let steps = (end - begin).div_ceil(DEPTH as u32);
        for step in 0..steps {
            let from = begin + step * DEPTH as u32;
            let tiles = (left_tile, right_tile);
            stage::<F, f32, N>(
                table,
                &mut left,
                &mut right,
                from,
                end,
                tiles,
                shift,
                DEPTH,
                TILE,
                row_vectors,
            );
            sync_cube();
            #[unroll]
            for k in 0..DEPTH {
                #[unroll]
                for i in 0..OWN {
                    let a = left[k * TILE + unit_left + i];
                    #[unroll]
                    for j in 0..OWN {
                        sums[i * OWN + j] = fma(a, right[k * TILE + unit_right + j], sums[i * OWN + j]);
                    }
                }
            }
            sync_cube();
            if (step + 1) % (EXACT_ROWS / DEPTH) as u32 == 0 || step + 1 == steps {
                #[unroll]
                for at in 0..OWN * OWN {
                    carry(&mut totals, &mut lost, at, sums[at]);
                    sums[at] = 0.0;
                }
            }
        }
        put_totals(partials, &totals, left_tile + unit_left, right_tile + unit_right, dim);
    }
}

/// Puts the next `depth` rows into shared memory, their columns of both tiles.
#[cube]
pub(super) fn stage<F: Float, S: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    left: &mut SharedMemory<S>,
    right: &mut SharedMemory<S>,
    from: u32,
    end: u32,
    tiles: (usize, usize),
    shift: u32,
    #[comptime] depth: usize,
    #[comptime] stride: usize,
    #[comptime] row_vectors: usize,
) {
    let width = N::value();
    let vectors = comptime!(TILE / width);
    let passes = comptime!((depth * (TILE / width)).div_ceil(UNITS));
    #[unroll]
    for pass in 0..passes {
        let at = pass * UNITS + UNIT_POS as usize;
        if at < depth * vectors {
            let row = from + (at / vectors) as u32;
            let column = at % vectors;
            let to = at / vectors * stride + column * width;
            store::<F, S, N>(table, left, to, row, end, tiles.0 / width + column, shift, row_vectors);
            store::<F, S, N>(table, right, to, row, end, tiles.1 / width + column, shift, row_vectors);
        }
    }
}

/// Adds to a total, with what rounding has lost of it so far.
#[cube]
pub(super) fn carry(totals: &mut Array<f32>, lost: &mut Array<f32>, at: usize, sum: f32) {
    let value = sum - lost[at];
    let total = totals[at] + value;
    lost[at] = (total - totals[at]) - value;
    totals[at] = total;
}

/// Writes a unit's totals, from row and column on, to the segment's sums.
#[cube]
pub(super) fn put_totals(
    partials: &mut Array<f32>,
    totals: &Array<f32>,
    first_row: usize,
    first_column: usize,
    #[comptime] dim: usize,
) {
    #[unroll]
    for i in 0..OWN {
        #[unroll]
        for j in 0..OWN {
            let (row, column) = (first_row + i, first_column + j);
            if row < dim && column < dim {
                partials[CUBE_POS_X as usize * dim * dim + row * dim + column] = totals[i * OWN + j];
            }
        }
    }
}

/// Puts vector `at` of row `row` into shared memory; zeros past the last row and the last vector.
#[cube]
fn store<F: Float, S: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    shared: &mut SharedMemory<S>,
    to: usize,
    row: u32,
    end: u32,
    at: usize,
    shift: u32,
    #[comptime] row_vectors: usize,
) {
    let mut vector = Vector::<f32, N>::zeroed();
    if row < end && at < row_vectors {
        vector = load_row::<F, N>(table, row, at, shift, row_vectors);
    }
    #[unroll]
    for lane in 0..N::value() {
        shared[to + lane] = S::cast_from(vector[lane]);
    }
}

/// The segments in order, for the value at or above the diagonal, whose mirror image is the same sum.
#[cube(launch)]
fn total_kernel(partials: &Array<f32>, out: &mut Array<f32>, segments: u32, #[comptime] dim: usize) {
    if ABSOLUTE_POS < dim * dim {
        let (row, column) = (ABSOLUTE_POS / dim, ABSOLUTE_POS % dim);
        let at = usize::min(row, column) * dim + usize::max(row, column);
        let mut total = 0.0;
        let mut lost = 0.0;
        for segment in 0..segments {
            let value = partials[segment as usize * dim * dim + at] - lost;
            let next = total + value;
            lost = (next - total) - value;
            total = next;
        }
        out[ABSOLUTE_POS] = total;
    }
}
