//! Pairwise dots on a GPU.
//!
//! ```text
//! forward    a unit makes 2 x 2 pairs:        fields 2a + 1, 2a + 2  by  2b, 2b + 1,   b <= a
//! backward   a unit makes 4 fields' gradients of one vector of columns, going over all fields
//! ```
//!
//! A group holds one to four rows in shared memory where they fit in 24 KiB, so that each is read from memory once; rows
//! that do not fit are read from memory, which is slow. Forward, even fields come first there and fields are an odd number
//! of vectors apart, so that neighbouring units read from different banks. Backward, the pairs' gradients are written out as
//! the symmetric matrix that they are half of.

use cubecl::prelude::*;

use super::shape::{DOTS, Shape};
use crate::{
    Buffer, Device, Result,
    als::tiles::tile_row,
    buffer::cube::{Gpu, Queue, cubes, vector_width},
};

const UNITS: usize = 128;
/// Bytes of shared memory of a group: every device has a third more.
const SHARED_BYTES: usize = 24 << 10;
const MAX_ROWS: usize = 4;
/// Fields that a unit makes the gradients of.
const OWN: usize = 4;

/// What a kernel knows before it is compiled.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
struct Plan {
    fields: usize,
    /// Vectors of a field.
    row_vectors: usize,
    /// Vectors from one field to the next in shared memory.
    stride: usize,
    /// Rows that a group handles.
    at_once: usize,
    /// Whether they are in shared memory.
    staged: bool,
}

impl Plan {
    /// `extra`: bytes of shared memory a row, beside its own.
    fn new(shape: Shape, width: usize, extra: usize) -> Self {
        let row_vectors = shape.dim / width;
        let stride = row_vectors + (row_vectors + 1) % 2;
        let row_bytes = shape.fields.saturating_mul(stride * width * 4).saturating_add(extra);
        let at_once = (SHARED_BYTES / row_bytes).clamp(1, MAX_ROWS);
        Self { fields: shape.fields, row_vectors, stride, at_once, staged: row_bytes <= SHARED_BYTES }
    }

    /// Vectors of a group's rows in shared memory.
    fn vectors(self) -> usize {
        if self.staged { self.at_once * self.fields * self.stride } else { 1 }
    }

    /// Tiles of 2 x 2 pairs of a row.
    fn tiles(self) -> usize {
        let pairs = self.fields / 2;
        pairs * (pairs + 1) / 2
    }

    /// Blocks of fields whose gradients a unit makes.
    fn blocks(self) -> usize {
        self.fields.div_ceil(OWN)
    }

    /// The symmetric matrices of a group's rows in shared memory, each field's row rounded up to whole blocks.
    fn coefficients(self) -> usize {
        if self.staged { self.at_once * self.fields * self.blocks() * OWN } else { 1 }
    }
}

pub(super) fn dots<R: Gpu>(x: &Buffer<f32>, shape: Shape, device: Device) -> Result<Buffer<f32>> {
    shape.check_gpu(DOTS)?;
    let queue = Queue::<R>::new(device)?;
    // Every pair is in one tile of one row.
    let out = queue.unwritten::<f32>(shape.rows.saturating_mul(shape.pairs()), "dots of pairs")?;
    if !out.is_empty() {
        let width = vector_width(shape.dim);
        let plan = Plan::new(shape, width, 0);
        dots_kernel::launch::<R>(
            &queue.client,
            cubes(&queue.client, shape.rows.div_ceil(plan.at_once)),
            CubeDim::new_1d(UNITS as u32),
            width,
            queue.vector_arg(DOTS, x, width)?,
            queue.arg(DOTS, &out)?,
            shape.rows as u32,
            plan,
        );
    }
    Ok(out)
}

pub(super) fn backward<R: Gpu>(
    x: &Buffer<f32>,
    shape: Shape,
    gradient: &Buffer<f32>,
    device: Device,
) -> Result<Buffer<f32>> {
    shape.check_gpu(DOTS)?;
    if gradient.is_empty() {
        return Buffer::zeros(x.len(), device, "gradients of dots");
    }
    let queue = Queue::<R>::new(device)?;
    // Every vector of every field is in one block of one row.
    let out = queue.unwritten::<f32>(x.len(), "gradients of dots")?;
    let width = vector_width(shape.dim);
    let matrix_bytes = 4 * shape.fields.saturating_mul(shape.fields.next_multiple_of(OWN));
    let plan = Plan::new(shape, width, matrix_bytes);
    backward_kernel::launch::<R>(
        &queue.client,
        cubes(&queue.client, shape.rows.div_ceil(plan.at_once)),
        CubeDim::new_1d(UNITS as u32),
        width,
        queue.vector_arg(DOTS, x, width)?,
        queue.arg(DOTS, gradient)?,
        queue.vector_arg(DOTS, &out, width)?,
        shape.rows as u32,
        plan,
    );
    Ok(out)
}

/// The place of a field among those of its row in shared memory: even ones first.
#[cube]
fn place(field: usize, #[comptime] fields: usize) -> usize {
    field / 2 + field % 2 * comptime!(fields.div_ceil(2))
}

/// Where a field of the group's row `row` begins: in shared memory, or in `x`.
#[cube]
fn begin(first_row: usize, row: usize, field: usize, #[comptime] plan: Plan) -> usize {
    if comptime!(plan.staged) {
        (row * plan.fields + place(field, plan.fields)) * plan.stride
    } else {
        ((first_row + row) * plan.fields + field) * plan.row_vectors
    }
}

#[cube]
fn read<N: Size>(
    x: &Array<Vector<f32, N>>,
    staged: &SharedMemory<Vector<f32, N>>,
    at: usize,
    #[comptime] plan: Plan,
) -> Vector<f32, N> {
    if comptime!(plan.staged) { staged[at] } else { x[at] }
}

/// Copies the group's rows to shared memory. No barrier is behind it.
#[cube]
fn stage<N: Size>(
    x: &Array<Vector<f32, N>>,
    staged: &mut SharedMemory<Vector<f32, N>>,
    first_row: usize,
    rows: usize,
    #[comptime] plan: Plan,
) {
    let row_len = comptime!(plan.fields * plan.row_vectors);
    let mut at = UNIT_POS as usize;
    while at < comptime!(plan.at_once * plan.fields * plan.row_vectors) {
        let row = at / row_len;
        let field = at % row_len / plan.row_vectors;
        if first_row + row < rows {
            let to = begin(first_row, row, field, plan) + at % plan.row_vectors;
            staged[to] = x[first_row * row_len + at];
        }
        at += UNITS;
    }
}

#[cube]
fn total<N: Size>(vector: Vector<f32, N>) -> f32 {
    let mut total = f32::new(0.0);
    #[unroll]
    for k in 0..N::value() {
        total += vector[k];
    }
    total
}

#[cube(launch)]
fn dots_kernel<N: Size>(x: &Array<Vector<f32, N>>, out: &mut Array<f32>, rows: u32, #[comptime] plan: Plan) {
    let mut staged = SharedMemory::<Vector<f32, N>>::new(comptime!(plan.vectors()));
    let rows = rows as usize;
    let fields = comptime!(plan.fields);
    let pairs = comptime!(plan.fields * (plan.fields - 1) / 2);
    let first_row = CUBE_POS * plan.at_once;
    if comptime!(plan.staged) {
        stage(x, &mut staged, first_row, rows, plan);
        sync_cube();
    }
    let mut at = UNIT_POS as usize;
    while at < comptime!(plan.at_once * plan.tiles()) {
        let row = at / comptime!(plan.tiles());
        let tile = at % comptime!(plan.tiles());
        if first_row + row < rows {
            // Of two fields there is one tile, a constant, with which cubecl would compute beyond what is computed.
            let a = if comptime!(plan.tiles() > 1) { tile_row(tile) } else { tile };
            let b = tile - a * (a + 1) / 2;
            let i = 2 * a + 1;
            let j = 2 * b;
            let second = i + 1 < fields;
            let i0 = begin(first_row, row, i, plan);
            let i1 = begin(first_row, row, select(second, i + 1, i), plan);
            let j0 = begin(first_row, row, j, plan);
            let j1 = begin(first_row, row, j + 1, plan);
            let mut s00 = Vector::<f32, N>::new(0.0);
            let mut s01 = Vector::<f32, N>::new(0.0);
            let mut s10 = Vector::<f32, N>::new(0.0);
            let mut s11 = Vector::<f32, N>::new(0.0);
            for column in 0..plan.row_vectors {
                let x0 = read(x, &staged, i0 + column, plan);
                let x1 = read(x, &staged, i1 + column, plan);
                let y0 = read(x, &staged, j0 + column, plan);
                let y1 = read(x, &staged, j1 + column, plan);
                s00 += x0 * y0;
                s01 += x0 * y1;
                s10 += x1 * y0;
                s11 += x1 * y1;
            }
            let to = (first_row + row) * pairs + i * (i - 1) / 2 + j;
            out[to] = total(s00);
            if j + 1 < i {
                out[to + 1] = total(s01);
            }
            if second {
                out[to + i] = total(s10);
                out[to + i + 1] = total(s11);
            }
        }
        at += UNITS;
    }
}

/// The gradient of the pair of two fields; zero for a field and itself.
#[cube]
fn coefficient(gradient: &Array<f32>, row: usize, i: usize, k: usize, #[comptime] fields: usize) -> f32 {
    let high = select(i > k, i, k);
    let low = select(i > k, k, i);
    let mut value = f32::new(0.0);
    if high > low && high < fields {
        value = gradient[row * comptime!(fields * (fields - 1) / 2) + high * (high - 1) / 2 + low];
    }
    value
}

#[cube(launch)]
fn backward_kernel<N: Size>(
    x: &Array<Vector<f32, N>>,
    gradient: &Array<f32>,
    out: &mut Array<Vector<f32, N>>,
    rows: u32,
    #[comptime] plan: Plan,
) {
    let mut staged = SharedMemory::<Vector<f32, N>>::new(comptime!(plan.vectors()));
    let mut coefficients = SharedMemory::<f32>::new(comptime!(plan.coefficients()));
    let rows = rows as usize;
    let fields = comptime!(plan.fields);
    let across = comptime!(plan.blocks() * OWN);
    let first_row = CUBE_POS * plan.at_once;
    if comptime!(plan.staged) {
        stage(x, &mut staged, first_row, rows, plan);
        let mut at = UNIT_POS as usize;
        while at < comptime!(plan.coefficients()) {
            let row = first_row + at / across / fields;
            if row < rows {
                coefficients[at] = coefficient(gradient, row, at % across, at / across % fields, fields);
            }
            at += UNITS;
        }
        sync_cube();
    }
    let units = comptime!(plan.blocks() * plan.row_vectors);
    let mut at = UNIT_POS as usize;
    while at < comptime!(plan.at_once * plan.blocks() * plan.row_vectors) {
        let row = at / units;
        let first = at % units / plan.row_vectors * OWN;
        let column = at % plan.row_vectors;
        if first_row + row < rows {
            let mut s0 = Vector::<f32, N>::new(0.0);
            let mut s1 = Vector::<f32, N>::new(0.0);
            let mut s2 = Vector::<f32, N>::new(0.0);
            let mut s3 = Vector::<f32, N>::new(0.0);
            for k in 0..fields {
                let other = read(x, &staged, begin(first_row, row, k, plan) + column, plan);
                if comptime!(plan.staged) {
                    let from = (row * fields + k) * across + first;
                    s0 += other * Vector::<f32, N>::new(coefficients[from]);
                    s1 += other * Vector::<f32, N>::new(coefficients[from + 1]);
                    s2 += other * Vector::<f32, N>::new(coefficients[from + 2]);
                    s3 += other * Vector::<f32, N>::new(coefficients[from + 3]);
                } else {
                    let row = first_row + row;
                    s0 += other * Vector::<f32, N>::new(coefficient(gradient, row, first, k, fields));
                    s1 += other * Vector::<f32, N>::new(coefficient(gradient, row, first + 1, k, fields));
                    s2 += other * Vector::<f32, N>::new(coefficient(gradient, row, first + 2, k, fields));
                    s3 += other * Vector::<f32, N>::new(coefficient(gradient, row, first + 3, k, fields));
                }
            }
            let to = ((first_row + row) * fields + first) * plan.row_vectors + column;
            out[to] = s0;
            if first + 1 < fields {
                out[to + plan.row_vectors] = s1;
            }
            if first + 2 < fields {
                out[to + 2 * plan.row_vectors] = s2;
            }
            if first + 3 < fields {
                out[to + 3 * plan.row_vectors] = s3;
            }
        }
        at += UNITS;
    }
}
