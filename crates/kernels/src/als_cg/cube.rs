//! Conjugate gradients on a GPU: all rows of a block take each step together.
//!
//! ```text
//! once:    dense = X gram       partials = Σ (b - a s) y       r = p = Σ partials - dense - ridge x      ρ = rᵀr
//! a step:  dense = P gram       partials = Σ a s y             q = dense + ridge p + Σ partials          then as in `mod`
//! ```
//!
//! The products with the Gram matrix are one product of tall matrices a step (`dense::cube`), the entries are a pass
//! (`als::cube`), and a last kernel, a cube of 64 units a row, adds up and moves the vectors.
//!
//! # Cost
//! As in `mod`; a step also reads and writes 8 vectors of `dim` values a row. A block holds r, p and the product: 3 vectors.

use cubecl::prelude::*;

use super::OP;
use crate::{
    AlsKept, AlsSystem, Buffer, Device, Error, Result, RowType, Rows, Table,
    als::cube::{Block, Side, Weigh},
    buffer::cube::{Gpu, Queue, cubes},
    dense::cube::multiply,
    table::bound::{Bound, RowFloat, with_row_type},
};

const UNITS: usize = 64;
/// No row.
const NONE: u32 = u32::MAX;

pub(super) fn solve<R: Gpu>(
    system: &AlsSystem<'_>,
    solution: &Table,
    steps: usize,
    kept: &mut AlsKept<'_>,
    device: Device,
) -> Result<()> {
    if system.rows.n_rows() == 0 {
        return Ok(());
    }
    let queue = Queue::<R>::new(device)?;
    let fixed = Bound::new(OP, &queue, system.fixed)?;
    with_row_type!(OP, system.fixed, F => solve_blocks::<R, F>(&queue, &fixed, system, solution, steps, kept))
}

/// The vectors of a block's rows.
struct State {
    ridge: Buffer<f32>,
    partials: Buffer<f32>,
    r: Buffer<f32>,
    p: Buffer<f32>,
    dense: Buffer<f32>,
    rho: Buffer<f32>,
    /// The first row that is not finite, and the first whose matrix is not positive definite.
    bad: Buffer<u32>,
}

fn solve_blocks<R: Gpu, F: RowFloat>(
    queue: &Queue<R>,
    fixed: &Bound<'_, R>,
    system: &AlsSystem<'_>,
    solution: &Table,
    steps: usize,
    kept: &mut AlsKept<'_>,
) -> Result<()> {
    let side = Side::new(OP, queue, system, fixed)?;
    let mut bad = Vec::new();
    side.each_block(solution, kept, |block| {
        bad.push((block.first, solve_block::<R, F>(&side, block, solution, steps)?));
        Ok(())
    })?;
    // Looked at when everything has been launched, so that the device is not waited for between blocks.
    for (first, bad) in bad {
        let bad = bad.to_vec()?;
        let row = |at: u32| (first + at as usize) as u64;
        if bad[0] != NONE && bad[0] <= bad[1] {
            return Err(Error::NotFinite { op: OP, what: "solution", row: row(bad[0]) });
        }
        if bad[1] != NONE {
            return Err(Error::NotPositiveDefinite { op: OP, row: row(bad[1]) });
        }
    }
    Ok(())
}

/// Takes every step of a block's rows; what went wrong with them is in what is returned.
fn solve_block<R: Gpu, F: RowFloat>(
    side: &Side<'_, R>,
    block: &Block,
    solution: &Table,
    steps: usize,
) -> Result<Buffer<u32>> {
    let queue = side.queue;
    let (rows, first) = solution.chunk_of(block.first as u64);
    let Rows::F32(x) = rows else {
        let got = solution.row_type();
        return Err(Error::RowType { op: OP, what: "solution", expected: RowType::F32, got });
    };
    let len = block.n_rows * side.dim;
    let state = State {
        ridge: side.ridge(block)?,
        partials: side.partials(block)?,
        r: queue.unwritten(len, "residuals of a block")?,
        p: queue.unwritten(len, "directions of a block")?,
        dense: queue.unwritten(len, "products of a block")?,
        rho: queue.unwritten(block.n_rows, "square residuals of a block")?,
        bad: queue.upload(&[NONE; 2], "rows that went wrong")?,
    };
    side.pass::<F>(block, Weigh::Residual, (x, first), &state.partials)?;
    multiply(OP, queue, (x, first), block.n_rows, (&side.gram, side.dim), &state.dense)?;
    move_rows(side, block, &state, (x, first), true, steps == 0)?;
    for step in 0..steps {
        side.pass::<F>(block, Weigh::Product, (&state.p, 0), &state.partials)?;
        multiply(OP, queue, (&state.p, 0), block.n_rows, (&side.gram, side.dim), &state.dense)?;
        move_rows(side, block, &state, (x, first), false, step + 1 == steps)?;
    }
    Ok(state.bad)
}

fn move_rows<R: Gpu>(
    side: &Side<'_, R>,
    block: &Block,
    state: &State,
    (x, first): (&Buffer<f32>, usize),
    begin: bool,
    last: bool,
) -> Result<()> {
    let queue = side.queue;
    move_kernel::launch::<R>(
        &queue.client,
        cubes(&queue.client, block.n_rows),
        CubeDim::new_1d(UNITS as u32),
        queue.arg(OP, &state.partials)?,
        queue.arg(OP, &block.ends)?,
        queue.arg(OP, &state.ridge)?,
        queue.arg(OP, &state.dense)?,
        queue.arg(OP, x)?,
        queue.arg(OP, &state.r)?,
        queue.arg(OP, &state.p)?,
        queue.arg(OP, &state.rho)?,
        queue.arg(OP, &state.bad)?,
        first as u32,
        block.n_rows as u32,
        begin,
        last,
        side.dim,
    );
    Ok(())
}

/// The sum of `value` over the units of a cube: halves onto halves.
#[cube]
fn total(value: f32, shared: &mut SharedMemory<f32>) -> f32 {
    let unit = UNIT_POS as usize;
    shared[unit] = value;
    sync_cube();
    let mut width = (UNITS / 2).runtime();
    while width > 0 {
        if unit < width {
            let other = shared[unit + width];
            shared[unit] += other;
        }
        sync_cube();
        width /= 2;
    }
    let sum = shared[0];
    sync_cube();
    sum
}

/// Whether a number is NaN or infinite, by its bits: a compiler may take for granted that none is.
#[cube]
fn is_wild(value: f32) -> bool {
    u32::reinterpret(value) & 0x7f80_0000 == 0x7f80_0000
}

#[cube(launch)]
fn move_kernel(
    partials: &Array<f32>,
    ends: &Array<u32>,
    ridge: &Array<f32>,
    dense: &Array<f32>,
    x: &mut Array<f32>,
    r: &mut Array<f32>,
    p: &mut Array<f32>,
    rho: &mut Array<f32>,
    bad: &mut Array<Atomic<u32>>,
    first: u32,
    n_rows: u32,
    #[comptime] begin: bool,
    #[comptime] last: bool,
    #[comptime] dim: usize,
) {
    let mut shared = SharedMemory::<f32>::new(UNITS);
    let row = CUBE_POS;
    let unit = UNIT_POS as usize;
    let own = comptime!(dim.div_ceil(UNITS));

    if row < n_rows as usize {
        let (begins, end) = (ends[row] as usize, ends[row + 1] as usize);
        let ridge = ridge[row];
        let x_row = (first as usize + row) * dim;
        let mut wild = false;
        if comptime!(begin) {
            let mut square = 0.0;
            #[unroll]
            for at in 0..own {
                let at = at * UNITS + unit;
                if at < dim {
                    let mut value = 0.0;
                    for task in begins..end {
                        value += partials[task * dim + at];
                    }
                    value -= dense[row * dim + at] + ridge * x[x_row + at];
                    if begins == end {
                        // A row without entries.
                        value = 0.0;
                        x[x_row + at] = 0.0;
                    }
                    r[row * dim + at] = value;
                    p[row * dim + at] = value;
                    square += value * value;
                    if comptime!(last) {
                        wild = wild || is_wild(x[x_row + at]);
                    }
                }
            }
            let square = total(square, &mut shared);
            wild = wild || is_wild(square);
            if unit == 0 {
                rho[row] = square;
            }
        } else {
            let before = rho[row];
            let mut curvature = 0.0;
            let mut q = Array::<f32>::new(own);
            #[unroll]
            for own_at in 0..own {
                let at = own_at * UNITS + unit;
                q[own_at] = 0.0;
                if at < dim {
                    let mut value = 0.0;
                    for task in begins..end {
                        value += partials[task * dim + at];
                    }
                    let direction = p[row * dim + at];
                    value += dense[row * dim + at] + ridge * direction;
                    q[own_at] = value;
                    curvature += direction * value;
                }
            }
            let curvature = total(curvature, &mut shared);
            // A row that has arrived, or whose matrix is not positive definite, takes a step of nothing: the barriers of
            // `total` stand outside every branch on data, as some compilers demand.
            let steps = before >= 1e-24 && curvature > 0.0;
            let mut alpha = 0.0;
            if steps {
                alpha = before / curvature;
            } else if before >= 1e-24 {
                if is_wild(curvature) {
                    wild = true;
                } else {
                    if unit == 0 {
                        bad[1].fetch_min(row as u32);
                    }
                }
            }
            let mut square = 0.0;
            #[unroll]
            for own_at in 0..own {
                let at = own_at * UNITS + unit;
                if steps && at < dim {
                    let moved = x[x_row + at] + alpha * p[row * dim + at];
                    x[x_row + at] = moved;
                    wild = wild || is_wild(moved);
                    let residual = r[row * dim + at] - alpha * q[own_at];
                    r[row * dim + at] = residual;
                    square += residual * residual;
                }
            }
            let square = total(square, &mut shared);
            if steps {
                let share = square / before;
                #[unroll]
                for own_at in 0..own {
                    let at = own_at * UNITS + unit;
                    if at < dim {
                        p[row * dim + at] = r[row * dim + at] + share * p[row * dim + at];
                    }
                }
                if unit == 0 {
                    rho[row] = square;
                }
            }
        }
        if wild {
            bad[0].fetch_min(row as u32);
        }
    }
}
