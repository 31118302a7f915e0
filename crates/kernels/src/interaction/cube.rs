//! Factorization machine and cross layer on a GPU.
//!
//! | kernel     | a unit                                                                    | reads                   |
//! |------------|---------------------------------------------------------------------------|-------------------------|
//! | fm         | every `lanes`-th vector of a row's columns, down all fields                | neighbours, neighbours  |
//! | fm, back   | one vector of a row's columns, down all fields twice                       | the second time cached  |
//! | cross      | one vector of each operand                                                | neighbours, neighbours  |
//!
//! A row's units of the first add up in shared memory, in order.

use cubecl::prelude::*;

use super::shape::{CROSS, FM, Shape};
use crate::{
    Buffer, Device, Result,
    buffer::cube::{Gpu, Queue, cubes, vector_width},
};

const UNITS: usize = 256;
/// Units that share a row, at most.
const MAX_LANES: usize = 32;

pub(super) fn fm<R: Gpu>(x: &Buffer<f32>, shape: Shape, device: Device) -> Result<Buffer<f32>> {
    shape.check_gpu(FM)?;
    let queue = Queue::<R>::new(device)?;
    // Every row is one unit's to write.
    let out = queue.unwritten::<f32>(shape.rows, "interactions")?;
    if shape.rows > 0 {
        let width = vector_width(shape.dim);
        let lanes = (shape.dim / width).next_power_of_two().min(MAX_LANES);
        fm_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, shape.rows.div_ceil(UNITS / lanes)),
            CubeDim::new_1d(UNITS as u32),
            width,
            queue.vector_arg(FM, x, width)?,
            queue.arg(FM, &out)?,
            shape.fields as u32,
            shape.dim / width,
            lanes,
        );
    }
    Ok(out)
}

pub(super) fn fm_backward<R: Gpu>(
    x: &Buffer<f32>,
    shape: Shape,
    gradient: &Buffer<f32>,
    device: Device,
) -> Result<Buffer<f32>> {
    shape.check_gpu(FM)?;
    let queue = Queue::<R>::new(device)?;
    // Every vector of a row's columns is one unit's to write, in all fields.
    let out = queue.unwritten::<f32>(x.len(), "gradients of interactions")?;
    if shape.rows > 0 {
        let width = vector_width(shape.dim);
        let units = shape.rows * (shape.dim / width);
        fm_backward_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, units.div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            width,
            queue.vector_arg(FM, x, width)?,
            queue.arg(FM, gradient)?,
            queue.vector_arg(FM, &out, width)?,
            shape.fields as u32,
            shape.dim / width,
        );
    }
    Ok(out)
}

pub(super) fn cross<R: Gpu>(
    x0: &Buffer<f32>,
    u: &Buffer<f32>,
    x: &Buffer<f32>,
    device: Device,
) -> Result<Buffer<f32>> {
    let queue = Queue::<R>::new(device)?;
    let out = queue.unwritten::<f32>(x0.len(), "a cross layer")?;
    if !out.is_empty() {
        let width = vector_width(out.len());
        cross_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, (out.len() / width).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            width,
            queue.vector_arg(CROSS, x0, width)?,
            queue.vector_arg(CROSS, u, width)?,
            queue.vector_arg(CROSS, x, width)?,
            queue.vector_arg(CROSS, &out, width)?,
        );
    }
    Ok(out)
}

pub(super) fn cross_backward<R: Gpu>(
    x0: &Buffer<f32>,
    u: &Buffer<f32>,
    gradient: &Buffer<f32>,
    device: Device,
) -> Result<(Buffer<f32>, Buffer<f32>)> {
    let queue = Queue::<R>::new(device)?;
    let of_x0 = queue.unwritten::<f32>(x0.len(), "gradients of a cross layer")?;
    let of_u = queue.unwritten::<f32>(x0.len(), "gradients of a cross layer")?;
    if !of_u.is_empty() {
        let width = vector_width(of_u.len());
        cross_backward_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, (of_u.len() / width).div_ceil(UNITS)),
            CubeDim::new_1d(UNITS as u32),
            width,
            queue.vector_arg(CROSS, x0, width)?,
            queue.vector_arg(CROSS, u, width)?,
            queue.vector_arg(CROSS, gradient, width)?,
            queue.vector_arg(CROSS, &of_x0, width)?,
            queue.vector_arg(CROSS, &of_u, width)?,
        );
    }
    Ok((of_x0, of_u))
}

#[cube(launch)]
fn fm_kernel<N: Size>(
    x: &Array<Vector<f32, N>>,
    out: &mut Array<f32>,
    fields: u32,
    #[comptime] row_vectors: usize,
    #[comptime] lanes: usize,
) {
    let mut totals = SharedMemory::<f32>::new(UNITS);
    let unit = UNIT_POS as usize;
    let lane = unit % lanes;
    let row = CUBE_POS * (UNITS / lanes) + unit / lanes;
    let mut total = f32::new(0.0);
    if row < out.len() {
        let from = row * fields as usize * row_vectors;
        let mut column = lane;
        while column < row_vectors {
            let mut sum = Vector::<f32, N>::new(0.0);
            let mut squares = Vector::<f32, N>::new(0.0);
            for field in 0..fields as usize {
                let value = x[from + field * row_vectors + column];
                sum += value;
                squares += value * value;
            }
            let of_columns = sum * sum - squares;
            #[unroll]
            for k in 0..N::value() {
                total += of_columns[k];
            }
            column += lanes;
        }
    }
    totals[unit] = total;
    sync_cube();
    if lane == 0 && row < out.len() {
        let mut sum = f32::new(0.0);
        for at in 0..lanes {
            sum += totals[unit + at];
        }
        out[row] = 0.5 * sum;
    }
}

#[cube(launch)]
fn fm_backward_kernel<N: Size>(
    x: &Array<Vector<f32, N>>,
    gradient: &Array<f32>,
    out: &mut Array<Vector<f32, N>>,
    fields: u32,
    #[comptime] row_vectors: usize,
) {
    let row = ABSOLUTE_POS / row_vectors;
    if row < gradient.len() {
        let from = row * fields as usize * row_vectors + ABSOLUTE_POS % row_vectors;
        let mut sum = Vector::<f32, N>::new(0.0);
        for field in 0..fields as usize {
            sum += x[from + field * row_vectors];
        }
        let g = Vector::<f32, N>::new(gradient[row]);
        for field in 0..fields as usize {
            let at = from + field * row_vectors;
            out[at] = g * (sum - x[at]);
        }
    }
}

#[cube(launch)]
fn cross_kernel<N: Size>(
    x0: &Array<Vector<f32, N>>,
    u: &Array<Vector<f32, N>>,
    x: &Array<Vector<f32, N>>,
    out: &mut Array<Vector<f32, N>>,
) {
    if ABSOLUTE_POS < out.len() {
        out[ABSOLUTE_POS] = x0[ABSOLUTE_POS] * u[ABSOLUTE_POS] + x[ABSOLUTE_POS];
    }
}

#[cube(launch)]
fn cross_backward_kernel<N: Size>(
    x0: &Array<Vector<f32, N>>,
    u: &Array<Vector<f32, N>>,
    gradient: &Array<Vector<f32, N>>,
    of_x0: &mut Array<Vector<f32, N>>,
    of_u: &mut Array<Vector<f32, N>>,
) {
    if ABSOLUTE_POS < of_u.len() {
        let g = gradient[ABSOLUTE_POS];
        of_x0[ABSOLUTE_POS] = g * u[ABSOLUTE_POS];
        of_u[ABSOLUTE_POS] = g * x0[ABSOLUTE_POS];
    }
}
