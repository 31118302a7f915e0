//! Products of small matrices with tall ones, on a GPU.
//!
//! ```text
//! multiply   out[r, j]     = Σ_k a[first + r, k] m[k, j]            a: [.., dim]   m: [dim, dim]
//! ```
//!
//! # Cost
//! `2 rows dim²` operations. A cube of 256 units makes a tile of 64 x 64 sums, 4 x 4 a unit; both operands pass through
//! shared memory 16 columns at a time, so that a value is read from there 16 times and from memory `dim / 64` times.
//! A sum is one chain over `k`, whatever the tile: a row has the same bits alone and in any batch.

use cubecl::prelude::*;

use crate::{
    Buffer, Result,
    buffer::cube::{Gpu, Queue},
};

/// Rows and columns of a tile, and columns of the operands in shared memory at once.
const TILE: usize = 64;
const DEPTH: usize = 16;
/// A unit's sums are `OWN x OWN`.
const OWN: usize = 4;
const UNITS: usize = (TILE / OWN) * (TILE / OWN);

/// Writes rows `first .. first + rows` of `a`, times `m`, to the first rows of `out`.
pub(crate) fn multiply<R: Gpu>(
    op: &'static str,
    queue: &Queue<R>,
    (a, first): (&Buffer<f32>, usize),
    rows: usize,
    (m, dim): (&Buffer<f32>, usize),
    out: &Buffer<f32>,
) -> Result<()> {
    let across = dim.div_ceil(TILE);
    // Tiles of rows go along x and, where there are more than an axis holds, along z.
    let down = rows.div_ceil(TILE);
    let x = down.min(65_535);
    multiply_kernel::launch::<R>(
        &queue.client,
        CubeCount::Static(x as u32, across as u32, down.div_ceil(x.max(1)) as u32),
        CubeDim::new_1d(UNITS as u32),
        queue.arg(op, a)?,
        queue.arg(op, m)?,
        queue.arg(op, out)?,
        first as u32,
        rows as u32,
        dim,
    );
    Ok(())
}

#[cube(launch)]
fn multiply_kernel(
    a: &Array<f32>,
    m: &Array<f32>,
    out: &mut Array<f32>,
    first: u32,
    rows: u32,
    #[comptime] dim: usize,
) {
    // Four longer than a tile, so that units that store one row's columns meet different banks.
    let stride = comptime!(TILE + 4);
    let mut a_tile = SharedMemory::<f32>::new(DEPTH * (TILE + 4));
    let mut m_tile = SharedMemory::<f32>::new(DEPTH * TILE);
    let row_tile = (CUBE_POS_X + CUBE_POS_Z * CUBE_COUNT_X) as usize * TILE;
    let column_tile = CUBE_POS_Y as usize * TILE;
    let unit = UNIT_POS as usize;
    let unit_row = unit / (TILE / OWN) * OWN;
    let unit_column = unit % (TILE / OWN) * OWN;
    let rows = rows as usize;

    let mut sums = Array::<f32>::new(OWN * OWN);
    #[unroll]
    for at in 0..OWN * OWN {
        sums[at] = 0.0;
    }
    let steps = comptime!(dim.div_ceil(DEPTH));
    for step in 0..steps {
        let from = step * DEPTH;
        // Neighbouring units read neighbouring columns of a row of `a`, and of a row of `m`.
        #[unroll]
        for pass in 0..DEPTH * TILE / UNITS {
            let at = pass * UNITS + unit;
            let (row, k) = (row_tile + at / DEPTH, from + at % DEPTH);
            let mut value = 0.0;
            if row < rows && k < dim {
                value = a[(first as usize + row) * dim + k];
            }
            a_tile[at % DEPTH * stride + at / DEPTH] = value;
            let (k, column) = (from + at / TILE, column_tile + at % TILE);
            let mut value = 0.0;
            if k < dim && column < dim {
                value = m[k * dim + column];
            }
            m_tile[at] = value;
        }
        sync_cube();
        #[unroll]
        for k in 0..DEPTH {
            #[unroll]
            for i in 0..OWN {
                let left = a_tile[k * stride + unit_row + i];
                #[unroll]
                for j in 0..OWN {
                    sums[i * OWN + j] = fma(left, m_tile[k * TILE + unit_column + j], sums[i * OWN + j]);
                }
            }
        }
        sync_cube();
    }
    #[unroll]
    for i in 0..OWN {
        #[unroll]
        for j in 0..OWN {
            let (row, column) = (row_tile + unit_row + i, column_tile + unit_column + j);
            if row < rows && column < dim {
                out[row * dim + column] = sums[i * OWN + j];
            }
        }
    }
}
