//! Any row of a table as f32, whatever it is stored in.

use half::slice::HalfFloatSliceExt;

use super::tile::LANES;
use crate::{Rows, Table};

/// A table on the CPU, read row by row.
#[derive(Clone, Copy)]
pub(super) struct RowReader<'a> {
    table: &'a Table,
    /// The values of a table that is one f32 chunk, as most are.
    whole: Option<&'a [f32]>,
}

impl<'a> RowReader<'a> {
    pub(super) fn new(table: &'a Table) -> Self {
        let mut chunks = table.chunks();
        let whole = match (chunks.next(), chunks.len()) {
            (Some((_, Rows::F32(buffer))), 0) => buffer.cpu(),
            _ => None,
        };
        Self { table, whole }
    }

    pub(super) fn dim(&self) -> usize {
        self.table.dim()
    }

    pub(super) fn n_rows(&self) -> usize {
        self.table.rows() as usize
    }

    /// Returns row `index`, through `spare` where it has to be converted or the table is not on the CPU (zeros).
    #[inline]
    pub(super) fn row<'b>(&'b self, index: u32, spare: &'b mut [f32]) -> &'b [f32] {
        let dim = self.dim();
        match self.whole {
            Some(values) => &values[index as usize * dim..][..dim],
            None => self.convert(index, &mut spare[..dim]),
        }
    }

    /// Asks the processor to fetch row `index`, which will be read soon.
    #[inline]
    pub(super) fn prefetch(&self, index: u32) {
        if let Some(values) = self.whole {
            super::tile::prefetch(&values[index as usize * self.dim()..][..self.dim()]);
        }
    }

    /// Returns the rows `indices`, the first again in place of those that miss; `spare` has room for [`LANES`] rows.
    #[inline]
    pub(super) fn rows<'b>(&'b self, indices: &[u32], spare: &'b mut [f32]) -> [&'b [f32]; LANES] {
        let mut rows: [&[f32]; LANES] = [&[]; LANES];
        for (row, (spare, at)) in rows.iter_mut().zip(spare.chunks_exact_mut(self.dim()).zip(0..)) {
            let index = indices.get(at).or(indices.first()).copied().unwrap_or(0);
            *row = self.row(index, spare);
        }
        rows
    }

    fn convert<'b>(&'b self, index: u32, spare: &'b mut [f32]) -> &'b [f32] {
        let dim = self.dim();
        let (chunk, at) = self.table.chunk_of(u64::from(index));
        let range = at * dim..(at + 1) * dim;
        match chunk {
            Rows::F32(buffer) => {
                if let Some(values) = buffer.cpu() {
                    return &values[range];
                }
            }
            Rows::F16(buffer) => {
                if let Some(values) = buffer.cpu() {
                    values[range].convert_to_f32_slice(spare);
                }
            }
            Rows::Bf16(buffer) => {
                if let Some(values) = buffer.cpu() {
                    values[range].convert_to_f32_slice(spare);
                }
            }
            Rows::Int8(buffer, scale) => {
                if let (Some(values), Some(scale)) = (buffer.cpu(), scale.cpu()) {
                    for (wide, &q) in spare.iter_mut().zip(&values[range]) {
                        *wide = f32::from(q) * scale[at];
                    }
                }
            }
        }
        spare
    }
}
