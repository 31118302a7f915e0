//! Row-wise Adagrad on a GPU: a row's step needs all of the row's gradient, so its units share a work group.
//!
//! A work group of 256 units takes as many whole rows as fit; of a row with more than 256 vectors a unit takes several, and
//! sums their gradients twice instead of keeping them.

#![expect(unsafe_code, reason = "hot kernels without checked indexing")]

use cubecl::prelude::*;

use super::{
    OP,
    cube::{Inputs, gradient_of, store},
};
use crate::{
    Buffer, Result, Rows,
    buffer::cube::{Gpu, Queue},
    row_words::{is_finite, n_rows, widen},
};

const UNITS: usize = 256;

pub(super) fn launch<R: Gpu>(
    queue: &Queue<R>,
    inputs: &Inputs,
    first_row: u32,
    rows: &Rows,
    state: &Buffer<f32>,
    dim: usize,
    [initial, epsilon]: [f32; 2],
) -> Result<()> {
    let (words, step, t) = (inputs.words, inputs.step, inputs.t);
    let row_units = words.row_vectors.min(UNITS);
    let groups = inputs.n.div_ceil(UNITS / row_units);
    let cube_dim = CubeDim::new_1d(UNITS as u32);
    // SAFETY: as for the step of single values: rows are distinct, below the number found, and in this chunk, whose state
    // has a value for each; only the first unit of a row writes it.
    unsafe {
        row_wise_kernel::launch_unchecked::<R>(
            &queue.client,
            cubecl::calculate_cube_count_elemwise(&queue.client, groups * UNITS, cube_dim),
            cube_dim,
            words.width,
            words.words,
            words.arg(OP, queue, rows)?,
            queue.arg(OP, state)?,
            queue.vector_arg(OP, inputs.gradients, words.width)?,
            queue.arg(OP, inputs.segment.unique())?,
            queue.arg(OP, inputs.segment.offsets())?,
            queue.arg(OP, inputs.segment.positions())?,
            queue.arg(OP, &inputs.unread.found)?,
            queue.vector_arg(OP, inputs.partials, words.width)?,
            queue.arg(OP, inputs.reported)?,
            first_row,
            n_rows(rows, dim) as u32,
            step.learning_rate,
            step.l2,
            initial,
            epsilon,
            step.seed as u32,
            (step.seed >> 32) as u32,
            t as u32,
            (t >> 32) as u32,
            words.format,
            words.row_vectors,
            words.width,
            row_units,
        );
    }
    Ok(())
}

/// One or more vectors of one distinct row a unit.
#[cube(launch_unchecked)]
fn row_wise_kernel<N: Size, W: Size>(
    rows: &mut Array<Vector<u32, W>>,
    state: &mut Array<f32>,
    gradients: &Array<Vector<f32, N>>,
    unique: &Array<u32>,
    offsets: &Array<u32>,
    positions: &Array<u32>,
    found: &Array<u32>,
    partials: &Array<Vector<f32, N>>,
    reported: &mut Array<Atomic<u32>>,
    first_row: u32,
    n_rows: u32,
    rate: f32,
    l2: f32,
    initial: f32,
    epsilon: f32,
    seed_low: u32,
    seed_high: u32,
    step_low: u32,
    step_high: u32,
    #[comptime] format: u32,
    #[comptime] row_vectors: usize,
    #[comptime] width: usize,
    #[comptime] row_units: usize,
) {
    let mut squares = SharedMemory::<f32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let (in_group, own_lane) = (unit / row_units, unit % row_units);
    let slot = CUBE_POS * comptime!(UNITS / row_units) + in_group;
    let rounds = comptime!(row_vectors.div_ceil(row_units));
    let mut row = 0u32;
    let mut here = in_group < comptime!(UNITS / row_units) && slot < found[0] as usize;
    if here {
        row = unique[slot];
        here = row >= first_row && row - first_row < n_rows;
    }
    let mut g = Vector::<f32, N>::new(0.0);
    let mut before = f32::new(0.0);
    let mut own = f32::new(0.0);
    if here {
        let in_chunk = (row - first_row) as usize;
        before = state[in_chunk];
        for round in 0..rounds {
            let lane = round * row_units + own_lane;
            if lane < row_vectors {
                g = gradient_of::<N>(gradients, offsets, positions, partials, slot, lane, row_vectors);
                let w = widen::<N, W>(rows[in_chunk * row_vectors + lane], format);
                #[unroll]
                for k in 0..N::value() {
                    let decayed = g[k] + l2 * w[k];
                    own += decayed * decayed;
                }
            }
        }
    }
    squares[unit] = own;
    // From here on the row's state may be written: every unit of the row has read it.
    sync_cube();
    if here {
        let in_chunk = (row - first_row) as usize;
        let mut sum = f32::new(0.0);
        for other in 0..row_units {
            sum += squares[in_group * row_units + other];
        }
        let after = before + sum / f32::cast_from(comptime!((row_vectors * width) as u32));
        if is_finite(after) {
            if own_lane == 0 {
                state[in_chunk] = after;
            }
            let scale = rate / ((initial + after).sqrt() + epsilon);
            for round in 0..rounds {
                let lane = round * row_units + own_lane;
                if lane < row_vectors {
                    if comptime!(rounds > 1) {
                        g = gradient_of::<N>(
                            gradients,
                            offsets,
                            positions,
                            partials,
                            slot,
                            lane,
                            row_vectors,
                        );
                    }
                    let at = in_chunk * row_vectors + lane;
                    let mut w = widen::<N, W>(rows[at], format);
                    let mut all_finite = true;
                    #[unroll]
                    for k in 0..N::value() {
                        let new = w[k] - scale * (g[k] + l2 * w[k]);
                        if is_finite(new) {
                            w[k] = new;
                        } else {
                            all_finite = false;
                        }
                    }
                    if !all_finite {
                        reported[0].fetch_min(row);
                    }
                    store::<N, W>(
                        rows,
                        reported,
                        at,
                        w,
                        row,
                        lane,
                        seed_low,
                        seed_high,
                        step_low,
                        step_high,
                        format,
                        row_vectors,
                        width,
                    );
                }
            }
        } else if own_lane == 0 {
            reported[0].fetch_min(row);
        }
    }
}
