//! Tables as one buffer each: the table's own chunk where it has one, and otherwise a scratch table of the rows at hand.
//!
//! A table of several chunks is copied to scratch in the order that its rows were dealt in: once an epoch where it fits
//! into a buffer as a whole, and otherwise, for each launch, the rows of that launch's blocks, which stand together.

use cubecl::prelude::*;

use super::OP;
use crate::{
    Buffer, Error, Result, RowType, Rows, Table,
    buffer::cube::{Gpu, Queue, vector_width},
};

/// What a kernel's index reaches.
const MAX_VALUES: u64 = 1 << 32;

/// A table as walks see it.
pub(super) struct Side<'a> {
    table: &'a Table,
    /// Rows that fit into scratch at once; nothing where the table is one chunk.
    pub(super) fits: Option<usize>,
    scratch: Option<Buffer<f32>>,
    /// Where this table's places begin among all.
    first_place: u32,
    what: &'static str,
}

impl<'a> Side<'a> {
    /// Checks `table` and says how walks will see it; scratch holds `most` values.
    pub(super) fn new(table: &'a Table, what: &'static str, first_place: usize, most: u64) -> Result<Self> {
        if table.row_type() != RowType::F32 {
            return Err(Error::RowType { op: OP, what, expected: RowType::F32, got: table.row_type() });
        }
        for (_, chunk) in table.chunks() {
            if let Rows::F32(chunk) = chunk
                && chunk.len() as u64 >= MAX_VALUES
            {
                let (asked, limit) = (chunk.len() as u64 * 4, (MAX_VALUES - 1) * 4);
                return Err(Error::BufferTooLarge { device: table.device(), what, asked, limit });
            }
        }
        let most = most.min(MAX_VALUES - 1);
        let fits = (table.chunks().len() != 1).then_some((most / table.dim() as u64) as usize);
        Ok(Self { table, fits, scratch: None, first_place: first_place as u32, what })
    }

    /// Whether all rows are at hand in every launch.
    pub(super) fn is_whole(&self) -> bool {
        self.fits.is_none_or(|fits| fits as u64 >= self.table.rows())
    }

    /// Returns what a walk reads and writes.
    pub(super) fn buffer(&self) -> Result<&Buffer<f32>> {
        match (&self.scratch, self.table.chunks().next()) {
            (Some(scratch), _) => Ok(scratch),
            (None, Some((_, Rows::F32(chunk)))) => Ok(chunk),
            _ => Err(Error::MixedDevices { op: OP }),
        }
    }

    /// Brings the `n` rows at places `first ..` to scratch; nothing to do for a table of one chunk.
    pub(super) fn gather<R: Gpu>(
        &mut self,
        queue: &Queue<R>,
        places: &Buffer<u32>,
        first: usize,
        n: usize,
    ) -> Result<()> {
        if self.fits.is_none() {
            return Ok(());
        }
        let len = n.saturating_mul(self.table.dim());
        if self.scratch.as_ref().is_none_or(|scratch| scratch.len() != len) {
            self.scratch = None;
            self.scratch = Some(queue.unwritten(len, self.what)?);
        }
        self.copy(queue, places, first, n, true)
    }

    /// Takes them back to the table.
    pub(super) fn scatter<R: Gpu>(
        &self,
        queue: &Queue<R>,
        places: &Buffer<u32>,
        first: usize,
        n: usize,
    ) -> Result<()> {
        if self.fits.is_none() {
            return Ok(());
        }
        self.copy(queue, places, first, n, false)
    }

    fn copy<R: Gpu>(
        &self,
        queue: &Queue<R>,
        places: &Buffer<u32>,
        first: usize,
        n: usize,
        to_scratch: bool,
    ) -> Result<()> {
        let Some(scratch) = &self.scratch else { return Ok(()) };
        let dim = self.table.dim();
        let width = vector_width(dim);
        for (first_row, chunk) in self.table.chunks() {
            let Rows::F32(chunk) = chunk else { continue };
            let cube_dim = CubeDim::new_1d(256);
            copy_kernel::launch::<R>(
                &queue.client,
                cubecl::calculate_cube_count_elemwise(&queue.client, chunk.len() / width, cube_dim),
                cube_dim,
                width,
                queue.vector_arg(OP, chunk, width)?,
                queue.vector_arg(OP, scratch, width)?,
                queue.arg(OP, places)?,
                self.first_place + first_row as u32,
                first as u32,
                n as u32,
                dim / width,
                to_scratch,
            );
        }
        Ok(())
    }
}

/// Copies the rows of a chunk whose place is `first .. first + n` to or from scratch, a vector a unit.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel's operands and numbers")]
fn copy_kernel<N: Size>(
    chunk: &mut Array<Vector<f32, N>>,
    scratch: &mut Array<Vector<f32, N>>,
    places: &Array<u32>,
    first_row: u32,
    first: u32,
    n_places: u32,
    #[comptime] row_vectors: usize,
    #[comptime] to_scratch: bool,
) {
    if ABSOLUTE_POS < chunk.len() {
        let place = places[first_row as usize + ABSOLUTE_POS / row_vectors];
        if place >= first && place - first < n_places {
            let at = (place - first) as usize * row_vectors + ABSOLUTE_POS % row_vectors;
            if comptime!(to_scratch) {
                scratch[at] = chunk[ABSOLUTE_POS];
            } else {
                chunk[ABSOLUTE_POS] = scratch[at];
            }
        }
    }
}
