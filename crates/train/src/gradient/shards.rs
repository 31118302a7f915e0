//! Embedding tables whose rows are shared out over the ranks: how a batch gets rows that others hold, and steps them.
//!
//! ```text
//! row g           is row g / N of rank g mod N, so that the frequent rows of each field are spread evenly
//!
//! ask             the batch's distinct rows, by who holds them                    all_to_all
//! answer          their values, a table at a time                                 all_to_all
//! look up         in a small table of what came back
//! step            the gradient's sum over each distinct row, to who holds it      all_to_all
//!                 and there the optimizer's step over what all ranks sent
//! ```

use std::ops::Range;

use recmill_core::{
    features::{FeatureBatch, FieldValues},
    rankers::{Lookup, look_up},
};
use recmill_kernels::{Bags, Buffer, Device, Segment, SparseStep, Table, embedding_bag_backward, gather};

use super::{
    collective::{Collective, all_to_all},
    tables::TableSteps,
};
use crate::Result;

/// How many of `rows` rows rank `rank` of `size` holds.
pub(super) fn own_rows(rows: u64, rank: usize, size: usize) -> u64 {
    (rows + (size - 1 - rank) as u64) / size as u64
}

/// Returns the rows of `whole` that this rank holds.
pub(super) fn shard_of(whole: &Table, ranks: &dyn Collective, what: &'static str) -> Result<Table> {
    let (rank, size) = (ranks.rank() as u64, ranks.size());
    let mut values = Vec::new();
    let mut row = vec![0.0; whole.dim()];
    for at in (rank..whole.rows()).step_by(size) {
        whole.read_row(at, &mut row)?;
        values.extend_from_slice(&row);
    }
    of_rows(&values, whole, what)
}

/// Puts the shards of all ranks together: the whole table on rank 0, the rank's own rows on the others.
pub(super) fn gather_shards(shard: Table, ranks: &dyn Collective, what: &'static str) -> Result<Table> {
    let size = ranks.size();
    if size == 1 {
        return Ok(shard);
    }
    let mut parts = vec![Vec::new(); size];
    parts[0] = shard.to_f32()?;
    let shards = all_to_all(ranks, &parts)?;
    if ranks.rank() > 0 {
        return Ok(shard);
    }
    let dim = shard.dim();
    let mut values = vec![0.0f32; shards.iter().map(Vec::len).sum()];
    for (rank, rows) in shards.iter().enumerate() {
        for (at, row) in rows.chunks(dim).enumerate() {
            values[(at * size + rank) * dim..][..dim].copy_from_slice(row);
        }
    }
    of_rows(&values, &shard, what)
}

/// Makes a table of rows of the type of `like`, which has stored all of these values before.
fn of_rows(values: &[f32], like: &Table, what: &'static str) -> Result<Table> {
    Ok(Table::from_f32(values, like.dim(), Device::Cpu, what)?.to_row_type(like.row_type(), what)?)
}

/// The rows of a batch, as they lie at their ranks.
pub(super) struct Fetch<'a> {
    ranks: &'a dyn Collective,
    /// The batch's categories, with indices into the distinct rows.
    batch: FeatureBatch,
    /// By who holds them: which of the distinct rows.
    places: Vec<Vec<u32>>,
    /// By who asked: rows of this rank.
    wanted: Vec<Vec<u32>>,
    n_distinct: usize,
}

impl<'a> Fetch<'a> {
    /// Asks the ranks for the rows of `batch`; field `f` has rows `rows_of(f)` of the whole tables.
    pub(super) fn new(
        ranks: &'a dyn Collective,
        batch: &FeatureBatch,
        rows_of: impl Fn(usize) -> Range<u64>,
    ) -> Result<Self> {
        let all = |field: usize, values: &FieldValues| -> Vec<u64> {
            let first = rows_of(field).start;
            values.indices.iter().map(|&index| first + u64::from(index)).collect()
        };
        let by_field: Vec<Vec<u64>> =
            batch.fields.iter().enumerate().map(|(field, values)| all(field, values)).collect();
        let mut distinct: Vec<u64> = by_field.concat();
        distinct.sort_unstable();
        distinct.dedup();
        let size = ranks.size() as u64;
        let (mut places, mut asked) = (vec![Vec::new(); size as usize], vec![Vec::new(); size as usize]);
        for (place, row) in distinct.iter().enumerate() {
            places[(row % size) as usize].push(place as u32);
            asked[(row % size) as usize].push((row / size) as u32);
        }
        let place_of = |row: &u64| distinct.partition_point(|other| other < row) as u32;
        let fields = batch.fields.iter().zip(&by_field).map(|(values, rows)| FieldValues {
            indices: rows.iter().map(place_of).collect(),
            offsets: values.offsets.clone(),
        });
        Ok(Self {
            batch: FeatureBatch { rows: batch.rows, fields: fields.collect(), ..FeatureBatch::default() },
            places,
            wanted: all_to_all(ranks, &asked)?,
            n_distinct: distinct.len(),
            ranks,
        })
    }

    /// Looks the batch up in the table that `shard` is this rank's part of.
    pub(super) fn look_up(&self, shard: &Table) -> Result<Lookup> {
        let dim = shard.dim();
        let answer = |rows: &Vec<u32>| -> Result<Vec<f32>> { Ok(gather(shard, rows)?.to_vec()?) };
        let answers = self.wanted.iter().map(answer).collect::<Result<Vec<_>>>()?;
        let answers = all_to_all(self.ranks, &answers)?;
        // One row more than none, since a table has rows.
        let mut values = vec![0.0; self.n_distinct.max(1) * dim];
        for (places, rows) in self.places.iter().zip(&answers) {
            for (&place, row) in places.iter().zip(rows.chunks(dim)) {
                values[place as usize * dim..][..dim].copy_from_slice(row);
            }
        }
        let fetched = Table::from_f32(&values, dim, Device::Cpu, "rows of other ranks")?;
        Ok(look_up(&fetched, &self.batch, |_| 0..fetched.rows())?)
    }

    /// Steps the rows of `shard` that any rank has looked up, by the gradients of what they were given.
    pub(super) fn step(
        &self,
        shard: &mut Table,
        steps: &mut TableSteps,
        bags: &Bags,
        segment: &Segment,
        gradient: &Buffer<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        let dim = shard.dim();
        let by_position = embedding_bag_backward(bags, gradient)?.swap_remove(0).into_vec()?;
        let segment = segment.to_host()?;
        let mut sums = vec![0.0; self.n_distinct * dim];
        for (&place, positions) in segment.unique.iter().zip(segment.offsets.windows(2)) {
            let sum = &mut sums[place as usize * dim..][..dim];
            for &position in &segment.positions[positions[0] as usize..positions[1] as usize] {
                for (sum, value) in sum.iter_mut().zip(&by_position[position as usize * dim..]) {
                    *sum += value;
                }
            }
        }
        let of = |places: &Vec<u32>| -> Vec<f32> {
            places.iter().flat_map(|&place| &sums[place as usize * dim..][..dim]).copied().collect()
        };
        let sent: Vec<Vec<f32>> = self.places.iter().map(of).collect();
        let received = all_to_all(self.ranks, &sent)?;
        steps.step_rows(shard, &self.wanted.concat(), received.concat(), step)
    }
}
