//! An epoch of `pairwise_update` on a GPU: the cells, the draws and the order of the CPU.
//!
//! Cells are dealt on the host. A round is two launches: every sample's negative is drawn ([`draw`]), then a work group a
//! cell walks its entries ([`walk`]). Racing walks pieces of the cells instead, all at once.

mod draw;
mod plan;
mod row;
mod shape;
mod step;
mod tables;
#[cfg(test)]
mod tests;
mod walk;

use std::ops::Range;

use cubecl::prelude::*;
use rayon::prelude::*;

use self::{
    draw::{CELL_WORDS, Rule, draw_kernel},
    plan::{Group, Limits, Piece, draws_each, plan},
    shape::{Loss, RatesLaunch, Shape, SizesLaunch},
    tables::Side,
    walk::{STAT_WORDS, walk_kernel},
};
use super::{
    Mode, OP, Optimizer, PairwiseEpoch, PairwiseLoss, PairwiseState, PairwiseStats, alias, deal, stream,
    train::{harmonic, mean},
    weights,
};
use crate::{
    Buffer, Device, Error, Result, Table,
    buffer::cube::{Gpu, Queue},
    cells::Cells,
};

/// Entries that a task of the host copies.
const TASK_ENTRIES: usize = 1 << 14;

pub(super) fn on_cube<R: Gpu>(
    epoch: &PairwiseEpoch,
    row_factors: &Table,
    column_factors: &Table,
    column_bias: Option<&mut [f32]>,
    state: &mut PairwiseState,
    device: Device,
) -> Result<PairwiseStats> {
    let queue = Queue::<R>::new(device)?;
    let limits = Limits::of(&queue, device)?;
    within(&queue, epoch, [row_factors, column_factors], column_bias, state, limits)
}

fn within<R: Gpu>(
    queue: &Queue<R>,
    epoch: &PairwiseEpoch,
    [row_factors, column_factors]: [&Table; 2],
    column_bias: Option<&mut [f32]>,
    state: &mut PairwiseState,
    limits: Limits,
) -> Result<PairwiseStats> {
    let (n_rows, n_columns) = (row_factors.rows() as usize, column_factors.rows() as usize);
    let sides = [
        Side::new(row_factors, "row factors", 0, limits.scratch)?,
        Side::new(column_factors, "column factors", n_rows, limits.scratch)?,
    ];
    let whole = sides.iter().all(Side::is_whole);
    let cells = match epoch.mode {
        Mode::Hogwild if whole && epoch.rows.nnz() as u64 <= limits.entries => deal(epoch, n_columns, 1)?,
        _ => deal(epoch, n_columns, super::blocks(epoch, n_columns))?,
    };
    let groups = plan(&cells, &sides, epoch, limits);
    let n_cells = groups.iter().flat_map(|group| &group.launches).map(Vec::len).sum::<usize>();
    if n_cells == 0 {
        return Ok(PairwiseStats::default());
    }
    let (units, plane) = limits.units(row_factors.dim());
    let shape = Shape {
        dim: row_factors.dim(),
        units,
        plane,
        loss: match epoch.loss {
            PairwiseLoss::Bpr => Loss::Bpr,
            PairwiseLoss::Warp { .. } => Loss::Warp,
            PairwiseLoss::Logistic => Loss::Logistic,
        },
        adagrad: epoch.optimizer == Optimizer::Adagrad,
        biased: column_bias.is_some(),
        placed: sides.each_ref().map(|side| side.fits.is_some()),
    };
    let places = match shape.placed {
        [false, false] => vec![0],
        _ => places(&cells, n_rows, n_columns),
    };
    let numbers = numbers(column_bias.as_deref(), state, shape.adagrad);
    let mut job = Job {
        queue,
        epoch,
        cells: &cells,
        shape,
        rule: Rule {
            weighted: epoch.negatives.popularity_exponent != 0.0,
            on_positive: epoch.negatives.on_positive,
        },
        sides,
        n_rows,
        n_columns,
        state: queue.upload(&numbers, "the state of an epoch")?,
        pool: queue.upload(&pool(epoch, &cells, n_columns)?, "columns to draw from")?,
        places: queue.upload(&places, "places in scratch")?,
        stats: queue.unwritten(n_cells * STAT_WORDS, "losses of cells")?,
    };
    if whole {
        job.gather([0..n_rows, 0..n_columns])?;
    }
    let mut done = 0;
    for group in &groups {
        if !whole {
            job.gather(group.places.clone())?;
        }
        done += job.walk(group, done)?;
        if !whole {
            job.scatter(group.places.clone())?;
        }
    }
    if whole {
        job.scatter([0..n_rows, 0..n_columns])?;
    }
    let stats = of_cells(&job.stats.to_vec()?)?;
    take_back(&job.state.to_vec()?, column_bias, state, shape.adagrad);
    Ok(mean(stats))
}

/// One epoch's operands on the device.
struct Job<'a, R: Gpu> {
    queue: &'a Queue<R>,
    epoch: &'a PairwiseEpoch<'a>,
    cells: &'a Cells<()>,
    shape: Shape,
    rule: Rule,
    sides: [Side<'a>; 2],
    n_rows: usize,
    n_columns: usize,
    state: Buffer<f32>,
    pool: Buffer<u32>,
    places: Buffer<u32>,
    stats: Buffer<u32>,
}

impl<R: Gpu> Job<'_, R> {
    fn gather(&mut self, places: [Range<usize>; 2]) -> Result<()> {
        for (side, range) in self.sides.iter_mut().zip(places) {
            side.gather(self.queue, &self.places, range.start, range.len())?;
        }
        Ok(())
    }

    fn scatter(&self, places: [Range<usize>; 2]) -> Result<()> {
        for (side, range) in self.sides.iter().zip(places) {
            side.scatter(self.queue, &self.places, range.start, range.len())?;
        }
        Ok(())
    }

    /// Draws for and walks the cells of `group`; their results go where `first_stat` begins. Returns how many there are.
    fn walk(&self, group: &Group, first_stat: usize) -> Result<usize> {
        let mut words = vec![0; 2 * group.n_entries];
        let mut begins = Vec::with_capacity(group.cells.len());
        let mut next = 0;
        for cell in &group.cells {
            let entries = self.cells.cell(cell[0], cell[1]).entries;
            let own = &mut words[2 * next..2 * (next + entries.len())];
            own.par_chunks_mut(2 * TASK_ENTRIES).zip(entries.par_chunks(TASK_ENTRIES)).for_each(
                |(to, from)| {
                    to.chunks_exact_mut(2).zip(from).for_each(|(to, from)| {
                        to.copy_from_slice(&[from.row, from.column]);
                    });
                },
            );
            begins.push(next);
            next += entries.len();
        }
        let entries = self.queue.upload(&words, "the entries of a round")?;
        let mut done = 0;
        for pieces in &group.launches {
            self.launch(group, &begins, &entries, pieces, first_stat + done)?;
            done += pieces.len();
        }
        Ok(done)
    }

    fn launch(
        &self,
        group: &Group,
        begins: &[usize],
        entries: &Buffer<u32>,
        pieces: &[Piece],
        first_stat: usize,
    ) -> Result<()> {
        let (queue, n_cells, per_positive) = (self.queue, pieces.len(), self.epoch.negatives.per_positive);
        let mut words = Vec::with_capacity(CELL_WORDS * n_cells);
        let mut n_entries = 0;
        for piece in pieces {
            let [row_block, column_block] = group.cells[piece.cell];
            let first = self.cells.cell(row_block, column_block).first;
            let columns = self.cells.column_range(column_block);
            let sample = (first + piece.entries.start as u64) * u64::from(per_positive);
            let begin = begins[piece.cell];
            let [begin, end] = [piece.entries.start, piece.entries.end].map(|at| begin + at);
            words.extend([begin, end, n_entries, columns.start, columns.len()].map(|word| word as u32));
            words.extend([sample as u32, (sample >> 32) as u32]);
            n_entries += end - begin;
        }
        let cells = queue.upload(&words, "the cells of a round")?;
        let draws_each = draws_each(self.epoch.loss);
        let each = u64::from(per_positive) * u64::from(draws_each);
        let n_draws = (n_entries as u64).saturating_mul(each);
        let negatives = queue.unwritten::<u32>(n_draws as usize, "the negatives of a round")?;
        let cube_dim = CubeDim::new_1d(128);
        draw_kernel::launch::<R>(
            &queue.client,
            cubecl::calculate_cube_count_elemwise(&queue.client, negatives.len(), cube_dim),
            cube_dim,
            queue.arg(OP, entries)?,
            queue.arg(OP, &self.pool)?,
            queue.arg(OP, &cells)?,
            queue.arg(OP, &negatives)?,
            stream(self.epoch, 2).to_cube(),
            self.n_columns as u32,
            n_cells as u32,
            per_positive,
            draws_each,
            self.rule,
        );
        let least = |l2: f32| (l2 * l2).max(1e-12);
        let (l2, bias_l2) = (self.epoch.regularization, self.epoch.bias_regularization);
        let [rows, columns] = &self.sides;
        let wide = n_cells.min(1 << 15) as u32;
        // SAFETY: rows and columns of the entries have passed `SparseRows::check`, and negatives are columns of the pool, so
        // each is a row of its table, or by `places` one of the scratch that was gathered for this group; `state` has a number
        // for each; a piece is a part of the entries, and results are as many as pieces.
        #[expect(unsafe_code, reason = "the walk is one long chain, and checks would be links of it")]
        unsafe {
            walk_kernel::launch_unchecked::<R>(
                &queue.client,
                CubeCount::Static(wide, (n_cells as u32).div_ceil(wide), 1),
                CubeDim::new_1d(self.shape.units as u32),
                queue.arg(OP, rows.buffer()?)?,
                queue.arg(OP, columns.buffer()?)?,
                queue.arg(OP, &self.state)?,
                queue.arg(OP, entries)?,
                queue.arg(OP, &negatives)?,
                queue.arg(OP, &cells)?,
                queue.arg(OP, &self.places)?,
                queue.arg(OP, &self.stats)?,
                RatesLaunch::new(
                    self.epoch.learning_rate,
                    l2,
                    bias_l2,
                    least(l2),
                    least(bias_l2),
                    harmonic(self.n_columns as u32),
                ),
                SizesLaunch::new(
                    self.n_rows as u32,
                    self.n_columns as u32,
                    group.places[0].start as u32,
                    group.places[1].start as u32,
                    n_cells as u32,
                    first_stat as u32,
                    per_positive,
                    draws_each,
                ),
                self.shape,
            );
        }
        Ok(())
    }
}

/// The place of each row, then of each column, in the order that they were dealt in.
fn places(cells: &Cells<()>, n_rows: usize, n_columns: usize) -> Vec<u32> {
    let mut places = vec![0; n_rows + n_columns];
    let (rows, columns) = places.split_at_mut(n_rows);
    for (of, order) in [(rows, cells.row_order().0), (columns, cells.column_order())] {
        for (place, &id) in (0..).zip(order) {
            of[id as usize] = place;
        }
    }
    places
}

/// The columns, block after block; by weight, also how many words keep each one's slot, and its alias in the block.
fn pool(epoch: &PairwiseEpoch, cells: &Cells<()>, n_columns: usize) -> Result<Vec<u32>> {
    let mut pool = cells.column_order().to_vec();
    if let Some(weights) = weights(epoch, n_columns) {
        let blocks = 0..cells.blocks();
        let filled = blocks.into_par_iter().filter(|&block| !cells.columns(block).is_empty());
        let tables = filled.map(|block| alias(&weights, cells.columns(block))).collect::<Result<Vec<_>>>()?;
        tables.iter().for_each(|table| pool.extend(table.parts().0));
        tables.iter().for_each(|table| pool.extend(table.parts().1));
    }
    Ok(pool)
}

/// What `walk` calls state: biases, then Adagrad's sums of columns, of biases, of rows.
fn numbers(column_bias: Option<&[f32]>, state: &PairwiseState, adagrad: bool) -> Vec<f32> {
    let mut numbers = column_bias.unwrap_or_default().to_vec();
    if adagrad {
        for sums in [&state.columns, &state.biases, &state.rows] {
            numbers.extend(sums);
        }
    }
    if numbers.is_empty() {
        numbers.push(0.0);
    }
    numbers
}

fn take_back(numbers: &[f32], column_bias: Option<&mut [f32]>, state: &mut PairwiseState, adagrad: bool) {
    let mut rest = numbers;
    let mut take = |into: &mut [f32]| {
        let (own, after) = rest.split_at(into.len());
        into.copy_from_slice(own);
        rest = after;
    };
    if let Some(bias) = column_bias {
        take(bias);
    }
    if adagrad {
        for sums in [&mut state.columns, &mut state.biases, &mut state.rows] {
            take(sums);
        }
    }
}

/// The results of cells in their order, or the first that is not finite.
fn of_cells(words: &[u32]) -> Result<Vec<PairwiseStats>> {
    let cell = |words: &[u32]| match words[3] {
        draw::NONE => Ok(PairwiseStats {
            loss: f32::from_bits(words[0]).into(),
            samples: words[1].into(),
            skipped: words[2].into(),
        }),
        row => Err(Error::NotFinite { op: OP, what: "a score", row: row.into() }),
    };
    words.chunks_exact(STAT_WORDS).map(cell).collect()
}
