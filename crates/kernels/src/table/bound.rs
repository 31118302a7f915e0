//! A table on a GPU as a kernel reads it: all of its chunks bound at once, a row found by shift and mask.
//!
//! A kernel has few bindings, so at most [`MAX_BOUND_CHUNKS`] chunks are bound. A table of more is copied, on the device, to
//! larger chunks for as long as the operation runs; what does not fit into that many is refused.

use bytemuck::Pod;
use cubecl::prelude::*;

use super::{MAX_BOUND_CHUNKS, Rows, Table, check_repacked, repacked_shift};
use crate::{
    Buffer, Error, Result, RowType,
    buffer::cube::{Gpu, Queue, cubes, vector_width},
};

/// The rows of a table, ready to be bound.
pub(crate) struct Bound<'a, R: Gpu> {
    queue: &'a Queue<R>,
    chunks: Chunks<'a>,
    /// Row `r` is row `r & ((1 << shift) - 1)` of chunk `r >> shift`.
    pub(crate) shift: u32,
    pub(crate) width: usize,
    /// Vectors of `width` values a row.
    pub(crate) row_vectors: usize,
}

enum Chunks<'a> {
    Own(Vec<Rows>),
    Of(&'a Table),
}

/// Runs `$work` with `$float` naming the type of the rows of `$bound`.
macro_rules! with_row_type {
    ($op:expr, $table:expr, $float:ident => $work:expr) => {
        match $table.row_type() {
            $crate::RowType::F32 => {
                type $float = f32;
                $work
            }
            $crate::RowType::F16 => {
                type $float = half::f16;
                $work
            }
            $crate::RowType::Bf16 => {
                type $float = half::bf16;
                $work
            }
            got => Err($crate::Error::RowType { op: $op, what: "table", expected: RowType::F32, got }),
        }
    };
}
pub(crate) use with_row_type;

impl<'a, R: Gpu> Bound<'a, R> {
    /// Makes `table` ready for the kernels of `op`.
    ///
    /// # Errors
    /// [`Error::RowType`] for int8 and for what the device does not compute with; [`Error::Parameter`] for a table that
    /// is too large; those of an allocation.
    pub(crate) fn new(op: &'static str, queue: &'a Queue<R>, table: &'a Table) -> Result<Self> {
        let supported = |row_type| match row_type {
            RowType::F32 => true,
            RowType::F16 => queue.client.properties().supports_type(half::f16::as_type_native_unchecked()),
            RowType::Bf16 => queue.client.properties().supports_type(half::bf16::as_type_native_unchecked()),
            RowType::Int8 => false,
        };
        if !supported(table.row_type()) {
            let got = table.row_type();
            return Err(Error::RowType { op, what: "table", expected: RowType::F32, got });
        }
        let width = vector_width(table.dim());
        let mut bound = Self {
            queue,
            chunks: Chunks::Of(table),
            shift: table.shift,
            width,
            row_vectors: table.dim() / width,
        };
        if table.chunks.len() > MAX_BOUND_CHUNKS {
            let shift = repacked_shift(table.rows);
            let bytes = table.dim() as u64 * table.row_type().bytes();
            check_repacked(op, shift, bytes, table.device())?;
            let packed = with_row_type!(op, table, F => bound.pack::<F>(op, table, shift))?;
            (bound.chunks, bound.shift) = (Chunks::Own(packed), shift);
        }
        Ok(bound)
    }

    /// Returns all chunks as one argument of a kernel; a table without rows has none.
    pub(crate) fn args<F, A>(&self, op: &'static str) -> Result<SequenceArg<R, A>>
    where
        F: RowFloat,
        A: LaunchArg<RuntimeArg<R> = ArrayArg<R>>,
    {
        let chunks = match &self.chunks {
            Chunks::Own(chunks) => chunks,
            Chunks::Of(table) => &table.chunks,
        };
        let mut args = SequenceArg::new();
        for chunk in chunks {
            let values = F::values(chunk).ok_or(Error::MixedDevices { op })?;
            args.push(self.queue.vector_arg(op, values, self.width)?);
        }
        Ok(args)
    }

    /// Copies the chunks to chunks of `1 << shift` rows.
    fn pack<F: RowFloat>(&self, op: &'static str, table: &Table, shift: u32) -> Result<Vec<Rows>> {
        let what = "a table in fewer chunks";
        let mut packed = Vec::new();
        let per_packed = 1usize << (shift - table.shift);
        for chunks in table.chunks.chunks(per_packed) {
            let len = chunks.iter().map(Rows::values).sum();
            let to = self.queue.unwritten::<F>(len, what)?;
            let mut first = 0;
            for chunk in chunks {
                let from = F::values(chunk).ok_or(Error::MixedDevices { op })?;
                copy_kernel::launch::<F, R>(
                    &self.queue.client,
                    cubes(&self.queue.client, from.len().div_ceil(256)),
                    CubeDim::new_1d(256),
                    self.queue.arg(op, from)?,
                    self.queue.arg(op, &to)?,
                    first,
                );
                first += from.len() as u32;
            }
            packed.push(F::rows(to));
        }
        Ok(packed)
    }
}

/// A number type that rows on a GPU are stored in.
pub(crate) trait RowFloat: Float + CubeElement + Pod {
    /// Returns the values of rows of this type.
    fn values(rows: &Rows) -> Option<&Buffer<Self>>;
    /// Makes rows of values.
    fn rows(values: Buffer<Self>) -> Rows;
}

macro_rules! row_float {
    ($float:ty, $variant:ident) => {
        impl RowFloat for $float {
            fn values(rows: &Rows) -> Option<&Buffer<Self>> {
                match rows {
                    Rows::$variant(buffer) => Some(buffer),
                    _ => None,
                }
            }

            fn rows(values: Buffer<Self>) -> Rows {
                Rows::$variant(values)
            }
        }
    };
}
row_float!(f32, F32);
row_float!(half::f16, F16);
row_float!(half::bf16, Bf16);

/// Vector `at` of row `row` of a bound table, as f32.
#[cube]
pub(crate) fn load_row<F: Float, N: Size>(
    chunks: &Sequence<Array<Vector<F, N>>>,
    row: u32,
    at: usize,
    shift: u32,
    #[comptime] row_vectors: usize,
) -> Vector<f32, N> {
    let mut value = Vector::<f32, N>::zeroed();
    let chunk = row >> shift;
    let index = (row - (chunk << shift)) as usize * row_vectors + at;
    #[unroll]
    for c in 0..chunks.len() {
        if chunk == c as u32 {
            value = Vector::cast_from(chunks[c][index]);
        }
    }
    value
}

#[cube(launch)]
fn copy_kernel<F: Float>(from: &Array<F>, to: &mut Array<F>, first: u32) {
    if ABSOLUTE_POS < from.len() {
        to[first as usize + ABSOLUTE_POS] = from[ABSOLUTE_POS];
    }
}
