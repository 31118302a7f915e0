//! The GPU's share of `negative`: a unit an output, rows cut where their columns fill a buffer.

use cubecl::prelude::*;

use super::{AliasTable, Distribution, MAX_TRIES, OP, full};
use crate::{
    Buffer, Device, Error, Result, SparseRows,
    buffer::cube::{Gpu, Queue},
    philox::{
        Draws,
        cube::{CubeDraws, below, block},
    },
};

/// What a kernel counts its outputs below.
const MAX_OUTPUTS: u64 = 1 << 32;

impl AliasTable {
    /// Returns, of each slot, how many words keep it, and its alias: what [`pick_weighted`] reads.
    pub(crate) fn parts(&self) -> (&[u32], &[u32]) {
        (&self.keep, &self.alias)
    }
}

pub(super) fn on_cube<R: Gpu>(
    rows: SparseRows,
    distribution: &Distribution,
    per_row: usize,
    draws: Draws,
    device: Device,
) -> Result<Buffer<u32>> {
    let queue = Queue::<R>::new(device)?;
    let what = "negatives";
    let n_outputs = (rows.n_rows() as u64).saturating_mul(per_row as u64);
    if n_outputs >= MAX_OUTPUTS {
        let (asked, limit) = (n_outputs.saturating_mul(4), 4 * (MAX_OUTPUTS - 1));
        return Err(Error::BufferTooLarge { device, what, asked, limit });
    }
    let out = queue.unwritten::<u32>(n_outputs as usize, what)?;
    if out.is_empty() {
        return Ok(out);
    }
    let alias = match distribution {
        Distribution::Uniform(_) => queue.unwritten(1, "an alias table")?,
        Distribution::Weighted(table) => {
            let (keep, alias) = table.parts();
            queue.upload(&[keep, alias].concat(), "an alias table")?
        }
    };
    let first_full = queue.upload(&[u32::MAX], "the first full row")?;
    let most = device.max_buffer_bytes()? / 4;
    let mut first = 0;
    while first < rows.n_rows() {
        let n = rows_within(rows.indptr, first, most);
        let part = &rows.indptr[first..=first + n];
        let ends: Vec<u32> = part.iter().map(|end| (end - part[0]) as u32).collect();
        let columns = &rows.indices[part[0] as usize..part[n] as usize];
        let (ends, columns) = (queue.upload(&ends, "row ends")?, queue.upload(columns, "columns of rows")?);
        let cube_dim = CubeDim::new_1d(256);
        negative_kernel::launch::<R>(
            &queue.client,
            cubecl::calculate_cube_count_elemwise(&queue.client, n * per_row, cube_dim),
            cube_dim,
            queue.arg(OP, &ends)?,
            queue.arg(OP, &columns)?,
            queue.arg(OP, &alias)?,
            queue.arg(OP, &out)?,
            queue.arg(OP, &first_full)?,
            draws.to_cube(),
            first as u32,
            n as u32,
            per_row as u32,
            distribution.n_columns(),
            MAX_TRIES as u32,
            matches!(distribution, Distribution::Weighted(_)),
        );
        first += n;
    }
    match first_full.to_vec()?[..] {
        [u32::MAX] => Ok(out),
        [row, ..] => Err(full(row as usize)),
        [] => Ok(out),
    }
}

/// How many rows from `first` on have at most `most` columns and row ends; one at least.
fn rows_within(indptr: &[u64], first: usize, most: u64) -> usize {
    let begin = indptr[first];
    let ends = &indptr[first + 1..];
    let by_columns = ends.partition_point(|&end| end - begin <= most);
    by_columns.min(most as usize - 1).clamp(1, ends.len())
}

/// Draws the outputs of rows `first_row .. first_row + n_rows`; a row without a column to draw lowers `first_full`.
#[cube(launch)]
#[expect(clippy::too_many_arguments, reason = "a kernel's operands and numbers")]
fn negative_kernel(
    ends: &Array<u32>,
    columns: &Array<u32>,
    alias: &Array<u32>,
    out: &mut Array<u32>,
    first_full: &mut Array<Atomic<u32>>,
    draws: CubeDraws,
    first_row: u32,
    n_rows: u32,
    per_row: u32,
    n_columns: u32,
    max_tries: u32,
    #[comptime] weighted: bool,
) {
    let at = ABSOLUTE_POS as u32;
    if at < n_rows * per_row {
        let row = at / per_row;
        let begin = ends[row as usize];
        let end = ends[row as usize + 1];
        // Outputs are below 2^32, so their counters are too.
        let counter = first_row * per_row + at;
        let mut column = 0u32;
        let mut t = 0u32;
        let mut found = false;
        if end - begin < n_columns {
            while t < max_tries {
                let mut words = Array::<u32>::new(4usize);
                block(&mut words, &draws, counter, 0u32, t);
                column = if comptime!(weighted) {
                    pick_weighted(alias, words[0], words[1], 0u32, n_columns, n_columns)
                } else {
                    below(words[0], n_columns)
                };
                if is_among(columns, begin, end, column) {
                    t += 1;
                } else {
                    found = true;
                    t = max_tries;
                }
            }
        }
        if !found {
            first_full[0].fetch_min(first_row + row);
        }
        out[counter as usize] = column;
    }
}

/// [`AliasTable::pick`] of the `n` slots whose words stand at `first`, and their aliases `apart` words on.
#[cube]
pub(crate) fn pick_weighted(
    table: &Array<u32>,
    word_0: u32,
    word_1: u32,
    first: u32,
    apart: u32,
    n: u32,
) -> u32 {
    let slot = below(word_0, n);
    let keep = table[(first + slot) as usize];
    let alias = table[(first + apart + slot) as usize];
    select(word_1 < keep, slot, alias)
}

/// Whether `columns[begin .. end]`, ascending, has `column`.
#[cube]
fn is_among(columns: &Array<u32>, begin: u32, end: u32, column: u32) -> bool {
    let mut low = begin;
    let mut high = end;
    while low < high {
        let middle = low + (high - low) / 2;
        if columns[middle as usize] < column {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    let mut found = false;
    if low < end {
        found = columns[low as usize] == column;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::rows_within;

    #[test]
    fn rows_are_cut_where_a_buffer_is_full() {
        let indptr = [7, 9, 9, 12, 30, 31];
        assert_eq!(rows_within(&indptr, 0, 100), 5);
        assert_eq!(rows_within(&indptr, 0, 5), 3);
        assert_eq!(rows_within(&indptr, 0, 4), 2);
        assert_eq!(rows_within(&indptr, 3, 4), 1);
        assert_eq!(rows_within(&indptr, 4, 4), 1);
        assert_eq!(rows_within(&indptr, 0, 3), 2);
    }
}
