//! The sums of a segment on matrix units, for rows of 16 bits: the first kernel of `cube.rs` in their terms.
//!
//! ```text
//! tile of G += Lᵀ R        L, R: 64 rows by the tile's 64 columns, as they are stored
//! ```
//!
//! Products are exact, and sums are f32 for 256 rows at a time, which is 16 additions of a matrix unit; where one cuts instead of rounding, a sum is
//! off by `2^-23` of itself in each. Then they are added to the totals as `cube.rs` does.
//!
//! # Cost
//! `rows dim (dim + 64)` operations of matrix units. A warp makes 16 x 32 sums: it loads three operands for two products.

use cubecl::{cmma, prelude::*};

use super::cube::{EXACT_ROWS, OWN, TILE, carry, put_totals, stage};
use crate::{
    Table,
    buffer::cube::{Gpu, Queue},
    matrix_unit::{self, UNIT, put, zeros},
};

/// Rows in shared memory at once.
const DEPTH: usize = 64;
/// Values between two rows of operands: neighbours begin in other banks.
const STRIDE: usize = TILE + 8;
/// Numbers between two rows of a tile's sums.
const SUM_STRIDE: usize = TILE + 4;
/// A tile's columns that a warp has sums of; of its rows it has 16.
const WARP_COLUMNS: usize = 2 * UNIT;
const WARPS_PER_ROW: usize = TILE / WARP_COLUMNS;

const SHARED_BYTES: usize = 2 * 2 * DEPTH * STRIDE + 4 * TILE * SUM_STRIDE;

/// Whether the kernel runs on the device for such a table.
pub(super) fn fits<R: Gpu>(queue: &Queue<R>, table: &Table) -> bool {
    matrix_unit::fits(queue, table.row_type(), SHARED_BYTES)
}

/// An operand: the next 16 rows of `tile`, and 16 of its columns, from `begin` on. On the left it is taken with its columns as rows.
#[cube]
fn operand<F: Float>(tile: &SharedMemory<F>, begin: usize, #[comptime] on_the_left: bool) -> cmma::Matrix<F> {
    let ident = comptime!(if on_the_left { cmma::MatrixIdent::A } else { cmma::MatrixIdent::B });
    let layout =
        comptime!(if on_the_left { cmma::MatrixLayout::ColMajor } else { cmma::MatrixLayout::RowMajor });
    let values = tile.slice(begin, begin + comptime!((UNIT - 1) * STRIDE + UNIT));
    cmma::Matrix::<F>::from_slice(ident, UNIT, UNIT, UNIT, layout, &values, comptime!(STRIDE as u32))
}

/// Cube (x, y, z) has segment x of the rows and tile (y, z) of the sums.
#[cube(launch)]
pub(super) fn partial_matrix_kernel<F: Float, N: Size>(
    table: &Sequence<Array<Vector<F, N>>>,
    partials: &mut Array<f32>,
    shift: u32,
    rows: u32,
    segment: u32,
    #[comptime] row_vectors: usize,
) {
    let width = N::value();
    let dim = comptime!(row_vectors * width);
    let mut left = SharedMemory::<F>::new_aligned(DEPTH * STRIDE, 32usize);
    let mut right = SharedMemory::<F>::new_aligned(DEPTH * STRIDE, 32usize);
    let mut tile = SharedMemory::<f32>::new_aligned(TILE * SUM_STRIDE, 32usize);
    let unit = UNIT_POS as usize;
    let (left_tile, right_tile) = (CUBE_POS_Y as usize * TILE, CUBE_POS_Z as usize * TILE);
    let unit_left = unit / (TILE / OWN) * OWN;
    let unit_right = unit % (TILE / OWN) * OWN;
    let warp = unit / 32;
    let warp_left = warp / WARPS_PER_ROW * UNIT;
    let warp_right = warp % WARPS_PER_ROW * WARP_COLUMNS;
    let begin = CUBE_POS_X * segment;
    let end = u32::min(begin + segment, rows);

    if left_tile <= right_tile {
        let mut totals = Array::<f32>::new(OWN * OWN);
        let mut lost = Array::<f32>::new(OWN * OWN);
        #[unroll]
        for at in 0..OWN * OWN {
            totals[at] = 0.0;
            lost[at] = 0.0;
        }
        for exact in 0..(end - begin).div_ceil(EXACT_ROWS as u32) {
            let sums = zeros();
            let sums_next = zeros();
            for step in 0..comptime!(EXACT_ROWS / DEPTH) {
                let from = begin + exact * EXACT_ROWS as u32 + step as u32 * DEPTH as u32;
                let tiles = (left_tile, right_tile);
                stage::<F, F, N>(
                    table,
                    &mut left,
                    &mut right,
                    from,
                    end,
                    tiles,
                    shift,
                    DEPTH,
                    STRIDE,
                    row_vectors,
                );
                sync_cube();
                #[unroll]
                for k in 0..comptime!(DEPTH / UNIT) {
                    let row = k * UNIT * STRIDE;
                    let of_left = operand::<F>(&left, row + warp_left, true);
                    let of_right = operand::<F>(&right, row + warp_right, false);
                    cmma::execute::<F, F, f32, f32>(&of_left, &of_right, &sums, &sums);
                    let of_right = operand::<F>(&right, row + warp_right + UNIT, false);
                    cmma::execute::<F, F, f32, f32>(&of_left, &of_right, &sums_next, &sums_next);
                }
                sync_cube();
            }
            put(&mut tile, &sums, warp_left * SUM_STRIDE + warp_right, SUM_STRIDE);
            put(&mut tile, &sums_next, warp_left * SUM_STRIDE + warp_right + UNIT, SUM_STRIDE);
            sync_cube();
            #[unroll]
            for i in 0..OWN {
                #[unroll]
                for j in 0..OWN {
                    let sum = tile[(unit_left + i) * SUM_STRIDE + unit_right + j];
                    carry(&mut totals, &mut lost, i * OWN + j, sum);
                }
            }
        }
        put_totals(partials, &totals, left_tile + unit_left, right_tile + unit_right, dim);
    }
}
