//! An epoch of stochastic updates without locks: rows and columns are cut into blocks, disjoint cells run in parallel.
//!
//! ```text
//!            columns ->        round 0     round 1     round 2
//!   row block 0                # . .       . # .       . . #
//!   row block 1                . # .       . . #       # . .
//!   row block 2                . . #       # . .       . # .
//! ```
//!
//! An update at (row, column) changes that row's and that column's numbers. The cells of one round share neither rows
//! nor columns, so they run at once without seeing each other, and what each computes is fixed by the rounds before:
//! the result has the same bits for every number of threads. The number of blocks comes from the size of the data
//! ([`block_count`]), and each epoch deals rows and columns to blocks anew by the seed.
//!
//! # Cost
//! Dealing reads the matrix twice and writes [`Cells::bytes`]. A cell's rows and columns are a `1 / blocks` of the
//! tables, which lets them stay in the processor's cache.
//!
//! # Source
//! Gemulla, Nijkamp, Haas, Sismanis 2011, "Large-scale matrix factorization with distributed SGD" (strata).

use std::ops::Range;

use rayon::prelude::*;

use crate::{
    Device, Result, SparseRows,
    memory::{self, Reservation},
    philox::{self, Draws},
};

/// One stored value, dealt to its cell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Entry<T> {
    pub(crate) row: u32,
    pub(crate) column: u32,
    pub(crate) value: T,
}

/// The stored values of a sparse matrix, dealt to `blocks x blocks` cells for one epoch.
pub(crate) struct Cells<T> {
    blocks: usize,
    /// Block after block, shuffled.
    columns: Vec<u32>,
    row_blocks: Vec<RowBlock<T>>,
    /// Rows, block after block, shuffled, and where each block of them lies.
    #[cfg(feature = "gpu")]
    rows: (Vec<u32>, Vec<Range<usize>>),
    _reservation: Reservation,
}

struct RowBlock<T> {
    /// Column block after column block; within one, all entries of a row stand together, columns ascending.
    entries: Vec<Entry<T>>,
    /// Where each column block begins, and the end.
    ends: Vec<usize>,
    /// Position of the first entry among those of all row blocks: the address of its random draws.
    first: u64,
}

/// Parts that a single block is dealt in.
const PARTS: usize = 64;

/// What one task works on.
pub(crate) struct Cell<'a, T> {
    pub(crate) entries: &'a [Entry<T>],
    /// Position of the first entry among all of the epoch.
    pub(crate) first: u64,
    /// The columns of the cell's column block.
    pub(crate) columns: &'a [u32],
    pub(crate) column_block: usize,
}

/// Returns how many blocks rows and columns are cut into: a power of two up to 64 that leaves a block 128 columns and 32
/// rows, and a cell 512 values, where there are as many.
pub(crate) fn block_count(n_rows: usize, n_columns: usize, nnz: usize) -> usize {
    let most = (n_rows / 32).min(n_columns / 128).min((nnz / 512).isqrt()).clamp(1, 64);
    1 << most.ilog2()
}

impl<T: Copy + Default + Send + Sync> Cells<T> {
    /// Deals the values that `keep` maps to something, rows and columns in an order drawn from `draws`.
    ///
    /// Row blocks hold about as many values each, column blocks as many columns.
    pub(crate) fn deal(
        rows: SparseRows,
        n_columns: usize,
        blocks: usize,
        draws: [Draws; 2],
        keep: impl Fn(f32) -> Option<T> + Sync,
    ) -> Result<Self> {
        let reservation =
            memory::reserve(Device::Cpu, "the cells of an epoch", Self::bytes(rows.nnz(), n_columns))?;
        let mut order: Vec<u32> = (0..rows.n_rows() as u32).collect();
        philox::shuffle(&mut order, draws[0]);
        let mut columns: Vec<u32> = (0..n_columns as u32).collect();
        philox::shuffle(&mut columns, draws[1]);
        let mut block_of = vec![0u8; n_columns];
        for block in 0..blocks {
            for &column in &columns[part(n_columns, blocks, block)] {
                block_of[column as usize] = block as u8;
            }
        }
        let cuts = cut_rows(rows, &order, blocks);
        let deal = |range: &Range<usize>| deal_rows(rows, &order[range.clone()], &block_of, blocks, &keep);
        let mut row_blocks: Vec<RowBlock<T>> = match blocks {
            1 => vec![deal_whole(rows, &order, &keep)],
            _ => cuts.par_iter().map(deal).collect(),
        };
        let mut first = 0;
        for block in &mut row_blocks {
            block.first = first;
            first += block.entries.len() as u64;
        }
        Ok(Self {
            blocks,
            columns,
            row_blocks,
            #[cfg(feature = "gpu")]
            rows: (order, cuts),
            _reservation: reservation,
        })
    }

    /// Returns the bytes that an epoch over `nnz` values holds beside its tables.
    pub(crate) fn bytes(nnz: usize, n_columns: usize) -> u64 {
        nnz as u64 * size_of::<Entry<T>>() as u64 + 5 * n_columns as u64
    }

    /// Returns the columns of block `block`.
    pub(crate) fn columns(&self, block: usize) -> &[u32] {
        &self.columns[part(self.columns.len(), self.blocks, block)]
    }

    /// Returns the number of column blocks, which is that of row blocks.
    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    /// Runs `work` on every cell, round by round, and stops after a round with an error.
    ///
    /// Results come in a fixed order, and so does the error that is returned when several cells fail. `scratch` is made
    /// once a thread or more often; `work` must leave it as it was.
    pub(crate) fn run<S, R: Send>(
        &self,
        scratch: impl Fn() -> S + Sync,
        work: impl Fn(&mut S, Cell<T>) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let mut results = Vec::with_capacity(self.blocks * self.blocks);
        for round in 0..self.blocks {
            let cells: Vec<Result<R>> = (0..self.blocks)
                .into_par_iter()
                .with_max_len(1)
                .map_init(&scratch, |scratch, block| {
                    work(scratch, self.cell(block, (block + round) % self.blocks))
                })
                .collect();
            for cell in cells {
                results.push(cell?);
            }
        }
        Ok(results)
    }

    /// Returns (row, column, value) in the order that a single thread would visit them.
    pub(crate) fn in_order(&self) -> impl Iterator<Item = (u32, u32, T)> {
        let cells = (0..self.blocks * self.blocks).flat_map(|at| {
            let (round, block) = (at / self.blocks, at % self.blocks);
            self.cell(block, (block + round) % self.blocks).entries
        });
        cells.map(|entry| (entry.row, entry.column, entry.value))
    }

    /// Returns the rows in the order that they were dealt in, and each block's part of it.
    #[cfg(feature = "gpu")]
    pub(crate) fn row_order(&self) -> (&[u32], &[Range<usize>]) {
        (&self.rows.0, &self.rows.1)
    }

    /// Returns the columns in the order that they were dealt in.
    #[cfg(feature = "gpu")]
    pub(crate) fn column_order(&self) -> &[u32] {
        &self.columns
    }

    /// Returns the part of [`Cells::column_order`] that is block `block`.
    #[cfg(feature = "gpu")]
    pub(crate) fn column_range(&self, block: usize) -> Range<usize> {
        part(self.columns.len(), self.blocks, block)
    }

    pub(crate) fn cell(&self, row_block: usize, column_block: usize) -> Cell<'_, T> {
        let block = &self.row_blocks[row_block];
        let range = block.ends[column_block]..block.ends[column_block + 1];
        Cell {
            first: block.first + range.start as u64,
            entries: &block.entries[range],
            columns: self.columns(column_block),
            column_block,
        }
    }
}

/// Part `at` of `0 .. len` cut into `parts` that differ by at most one.
fn part(len: usize, parts: usize, at: usize) -> Range<usize> {
    len * at / parts..len * (at + 1) / parts
}

/// Cuts `order` where the running number of values passes each multiple of a block's share.
fn cut_rows(rows: SparseRows, order: &[u32], blocks: usize) -> Vec<Range<usize>> {
    let mut cuts = Vec::with_capacity(blocks);
    let (mut start, mut passed) = (0, 0u64);
    for (at, &row) in order.iter().enumerate() {
        passed += rows.indptr[row as usize + 1] - rows.indptr[row as usize];
        if cuts.len() + 1 < blocks && passed * blocks as u64 >= rows.nnz() as u64 * (cuts.len() as u64 + 1) {
            cuts.push(start..at + 1);
            start = at + 1;
        }
    }
    cuts.push(start..order.len());
    cuts.resize(blocks, order.len()..order.len());
    cuts
}

/// As [`deal_rows`] for one block, by many threads.
fn deal_whole<'a, T: Copy + Default + Send + Sync>(
    rows: SparseRows<'a>,
    order: &[u32],
    keep: &'a (impl Fn(f32) -> Option<T> + Sync),
) -> RowBlock<T> {
    let kept = |&row: &u32| {
        let (columns, values) = rows.row(row as usize);
        let entry = move |(&column, &value): (&'a u32, &'a f32)| {
            keep(value).map(|value| Entry { row, column, value })
        };
        columns.iter().zip(values).filter_map(entry)
    };
    let parts: Vec<(Range<usize>, usize)> = cut_rows(rows, order, PARTS)
        .into_par_iter()
        .map(|range| (range.clone(), order[range].iter().flat_map(kept).count()))
        .collect();
    let n = parts.iter().map(|part| part.1).sum();
    let mut entries = vec![Entry { row: 0, column: 0, value: T::default() }; n];
    let mut rest = &mut entries[..];
    let mut tasks = Vec::with_capacity(parts.len());
    for (range, n) in parts {
        let (own, after) = rest.split_at_mut(n);
        tasks.push((range, own));
        rest = after;
    }
    tasks.into_par_iter().for_each(|(range, own)| {
        own.iter_mut().zip(order[range].iter().flat_map(kept)).for_each(|(to, entry)| *to = entry);
    });
    RowBlock { entries, ends: vec![0, n], first: 0 }
}

fn deal_rows<T: Copy + Default>(
    rows: SparseRows,
    order: &[u32],
    block_of: &[u8],
    blocks: usize,
    keep: &impl Fn(f32) -> Option<T>,
) -> RowBlock<T> {
    let mut ends = vec![0usize; blocks + 1];
    for &row in order {
        let (columns, values) = rows.row(row as usize);
        for (&column, &value) in columns.iter().zip(values) {
            ends[block_of[column as usize] as usize + 1] += usize::from(keep(value).is_some());
        }
    }
    for block in 0..blocks {
        ends[block + 1] += ends[block];
    }
    let mut next = ends.clone();
    let mut entries = vec![Entry { row: 0, column: 0, value: T::default() }; ends[blocks]];
    for &row in order {
        let (columns, values) = rows.row(row as usize);
        for (&column, &value) in columns.iter().zip(values) {
            if let Some(value) = keep(value) {
                let at = &mut next[block_of[column as usize] as usize];
                entries[*at] = Entry { row, column, value };
                *at += 1;
            }
        }
    }
    RowBlock { entries, ends, first: 0 }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Mutex};

    use super::*;
    use crate::Error;

    fn matrix() -> (Vec<u64>, Vec<u32>, Vec<f32>) {
        let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
        for row in 0..100u32 {
            for column in (0..41).filter(|column| (row * 31 + column * 17) % 7 < row % 5) {
                indices.push(column);
                values.push(if column % 9 == 0 { -1.0 } else { row as f32 + column as f32 / 64.0 });
            }
            indptr.push(indices.len() as u64);
        }
        (indptr, indices, values)
    }

    fn deal(blocks: usize) -> Cells<f32> {
        let (indptr, indices, values) = matrix();
        let rows = SparseRows { indptr: &indptr, indices: &indices, values: &values };
        Cells::deal(rows, 41, blocks, [Draws::new(1, 0), Draws::new(1, 1)], |v| (v > 0.0).then_some(v))
            .unwrap()
    }

    #[test]
    fn every_kept_value_is_dealt_once_and_rows_stay_together() {
        let (_, _, values) = matrix();
        for blocks in [1, 2, 8, 41] {
            let cells = deal(blocks);
            #[cfg(feature = "gpu")]
            {
                let (order, cuts) = cells.row_order();
                assert_eq!((order.len(), cuts.len(), cuts[blocks - 1].end), (100, blocks, 100));
                for (at, cut) in cuts.iter().enumerate() {
                    let rows: HashSet<u32> = order[cut.clone()].iter().copied().collect();
                    let cell = cells.cell(at, 0);
                    assert!(cell.entries.iter().all(|entry| rows.contains(&entry.row)));
                }
            }
            let (seen, first) = (Mutex::new(Vec::new()), Mutex::new(HashSet::new()));
            cells
                .run(
                    || (),
                    |(), cell| {
                        let columns: HashSet<u32> = cell.columns.iter().copied().collect();
                        assert!(cell.entries.iter().all(|entry| columns.contains(&entry.column)));
                        let mut rows: Vec<u32> = cell.entries.iter().map(|entry| entry.row).collect();
                        rows.dedup();
                        assert_eq!(rows.len(), rows.iter().collect::<HashSet<_>>().len());
                        seen.lock().unwrap().extend_from_slice(cell.entries);
                        let addresses = cell.first..cell.first + cell.entries.len() as u64;
                        let mut all = first.lock().unwrap();
                        assert!(addresses.into_iter().all(|address| all.insert(address)));
                        Ok(())
                    },
                )
                .unwrap();
            let mut seen = seen.into_inner().unwrap();
            seen.sort_by_key(|entry| (entry.row, entry.column));
            let expected: Vec<f32> = values.iter().copied().filter(|&v| v > 0.0).collect();
            assert!(seen.iter().map(|entry| entry.value).eq(expected), "{blocks} blocks");
            assert!(seen.iter().all(|e| e.value == e.row as f32 + e.column as f32 / 64.0));
        }
    }

    #[test]
    fn cells_of_a_round_share_neither_rows_nor_columns() {
        let cells = deal(8);
        for round in 0..8 {
            let of_round: Vec<Cell<f32>> =
                (0..8).map(|block| cells.cell(block, (block + round) % 8)).collect();
            let mut columns = HashSet::new();
            assert!(of_round.iter().flat_map(|cell| cell.columns).all(|column| columns.insert(column)));
            let mut owner = std::collections::HashMap::new();
            for (at, cell) in of_round.iter().enumerate() {
                assert!(cell.entries.iter().all(|entry| *owner.entry(entry.row).or_insert(at) == at));
            }
        }
    }

    #[test]
    fn the_first_error_in_the_order_of_cells_is_returned() {
        let fail = |(): &mut (), cell: Cell<f32>| match cell.column_block {
            0 => Ok(()),
            block => Err(Error::NotFinite { op: "a test", what: "values", row: block as u64 }),
        };
        assert_eq!(
            deal(4).run(|| (), fail).unwrap_err(),
            Error::NotFinite { op: "a test", what: "values", row: 1 }
        );
    }

    #[test]
    fn block_counts_follow_the_size_of_the_data() {
        assert_eq!(block_count(0, 0, 0), 1);
        assert_eq!(block_count(943, 1682, 80_000), 8);
        assert_eq!(block_count(6040, 3704, 994_169), 16);
        assert_eq!(block_count(29_858, 40_981, 810_128), 32);
        assert_eq!(block_count(138_493, 26_744, 20_000_000), 64);
        assert_eq!(block_count(10, 1_000_000, 1_000_000), 1);
    }

    #[test]
    fn rows_are_cut_by_values_and_none_is_lost() {
        let indptr = [0, 5, 5, 6, 16, 17, 17];
        let rows = SparseRows { indptr: &indptr, indices: &[0; 17], values: &[1.0; 17] };
        let cuts = cut_rows(rows, &[0, 1, 2, 3, 4, 5], 3);
        assert_eq!(cuts, [0..3, 3..4, 4..6]);
        assert_eq!(cut_rows(rows, &[3], 3), [0..1, 1..1, 1..1]);
    }
}
