//! Scoring by a row of scores for the whole catalogue at a time, for models whose scores are no product of two vectors.
//!
//! The rows of a batch are cut into contiguous pieces, a [`Lane`] each: a lane owns the scratch memory for one row and
//! the answers of its piece, so answers end up in the order of the rows and nothing is shared between threads.

use bytemuck::cast_slice;
use rayon::prelude::*;
use recmill_kernels::{TopkAnswers, TopkQuery, topk_of_scores};

use super::{fold_in::SolveScratch, neumf::NeuMfScratch};
use crate::{Batch, Error, ItemIndex, Query, Result, Row, Workspace};

/// A history in its normal form: items ascending, none twice.
#[derive(Debug, Default)]
pub(crate) struct HistoryScratch(Vec<(ItemIndex, f32)>);

impl HistoryScratch {
    /// Brings `history` into its normal form: the values of a repeated item are added.
    pub(crate) fn fill(&mut self, history: &[(ItemIndex, f32)]) -> &[(ItemIndex, f32)] {
        self.0.clear();
        self.0.extend_from_slice(history);
        if self.0.windows(2).any(|pair| pair[0].0 >= pair[1].0) {
            // By value too, so that the sum of a repeated item does not depend on the order it was given in.
            self.0.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
            self.0.dedup_by(|next, kept| {
                let same = next.0 == kept.0;
                if same {
                    kept.1 += next.1;
                }
                same
            });
        }
        &self.0
    }
}

/// What scoring one row needs besides its scores.
#[derive(Debug, Default)]
pub(crate) struct RowScratch {
    pub(crate) history: HistoryScratch,
    pub(crate) solve: SolveScratch,
    pub(crate) neumf: NeuMfScratch,
    pub(crate) row: Vec<f32>,
}

/// The scratch memory and the answers of a contiguous piece of a batch.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    pub(crate) scratch: RowScratch,
    scores: Vec<f32>,
    exclude: Vec<ItemIndex>,
    pub(crate) answers: TopkAnswers,
}

/// Refuses rows that name a user or an item that there is not, or whose filters are in no order.
pub(crate) fn check(batch: &Batch, n_users: usize, n_items: usize) -> Result<()> {
    let item_in_range = |row, item: ItemIndex| {
        if item.at() < n_items {
            return Ok(());
        }
        Err(Error::OutOfRange { side: "items", row, index: item.0, count: n_items })
    };
    for (row, question) in batch.rows.iter().enumerate() {
        match &question.query {
            Query::User(_) if n_users == 0 => return Err(Error::NeedsHistory { row }),
            Query::User(user) if user.at() >= n_users => {
                return Err(Error::OutOfRange { side: "users", row, index: user.0, count: n_users });
            }
            Query::User(_) => {}
            Query::Item(item) => item_in_range(row, *item)?,
            Query::History(history) => {
                for &(item, value) in history {
                    item_in_range(row, item)?;
                    if !value.is_finite() {
                        return Err(Error::Inconsistent { what: "value of a history", at: row as u64 });
                    }
                }
            }
        }
        let filters =
            [("excluded items", Some(&question.exclude)), ("candidates", question.candidates.as_ref())];
        for (what, list) in filters {
            let Some(list) = list else { continue };
            if let Some(&last) = list.last() {
                item_in_range(row, last)?;
            }
            if list.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(Error::Unsorted { what, row });
            }
        }
        if let Some(allow) = &question.allow
            && allow.len() != n_items.div_ceil(64)
        {
            let (expected, got) = (n_items.div_ceil(64), allow.len());
            return Err(Error::WrongSize { what: "allow bitmap", side: "words of items", expected, got });
        }
    }
    Ok(())
}

/// How many rows of a batch a lane answers.
pub(crate) fn piece(n_rows: usize) -> usize {
    // More pieces than threads, because rows differ in cost.
    n_rows.div_ceil(4 * rayon::current_num_threads()).max(1)
}

/// Returns a lane for each piece of `n_rows` rows.
pub(crate) fn lanes(all: &mut Vec<Lane>, n_rows: usize) -> &mut [Lane] {
    let n = n_rows.div_ceil(piece(n_rows));
    if all.len() < n {
        all.resize_with(n, Lane::default);
    }
    &mut all[..n]
}

/// Answers every row of `batch` from the scores that `fill` writes over zeros, one for each item.
pub(crate) fn score(
    batch: &Batch,
    workspace: &mut Workspace,
    (n_users, n_items): (usize, usize),
    fill: impl Fn(&Row, &mut RowScratch, &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    workspace.clear();
    check(batch, n_users, n_items)?;
    score_where(&batch.rows, workspace, n_items, |_| true, fill)?;
    let Workspace { lanes: all, ends, items, scores, .. } = workspace;
    for lane in lanes(all, batch.rows.len()) {
        let start = items.len();
        ends.extend(lane.answers.ends.iter().map(|end| start + end));
        items.extend_from_slice(cast_slice(&lane.answers.indices));
        scores.extend_from_slice(&lane.answers.scores);
    }
    Ok(())
}

/// Answers the rows that `wanted` picks in the lanes of `workspace`; a row that it does not pick has an empty answer.
pub(crate) fn score_where(
    rows: &[Row],
    workspace: &mut Workspace,
    n_items: usize,
    wanted: impl Fn(&Row) -> bool + Sync,
    fill: impl Fn(&Row, &mut RowScratch, &mut [f32]) -> Result<()> + Sync,
) -> Result<()> {
    let piece = piece(rows.len());
    let lanes = lanes(&mut workspace.lanes, rows.len());
    lanes.par_iter_mut().zip(rows.par_chunks(piece)).enumerate().try_for_each(|(at, (lane, rows))| {
        lane.answers.clear();
        for (place, row) in rows.iter().enumerate() {
            if wanted(row) {
                lane.scores.clear();
                lane.scores.resize(n_items, 0.0);
                fill(row, &mut lane.scratch, &mut lane.scores)?;
                lane.select(row).map_err(|error| in_row(error, at * piece + place))?;
            } else {
                lane.answers.ends.push(lane.answers.indices.len());
            }
        }
        Ok(())
    })
}

/// Names the row of the batch instead of the row of the lane.
fn in_row(error: recmill_kernels::Error, row: usize) -> Error {
    match error {
        recmill_kernels::Error::NotFinite { op, what, .. } => {
            recmill_kernels::Error::NotFinite { op, what, row: row as u64 }.into()
        }
        other => other.into(),
    }
}

impl Lane {
    fn select(&mut self, row: &Row) -> recmill_kernels::Result<()> {
        self.exclude.clear();
        self.exclude.extend_from_slice(&row.exclude);
        if let Query::Item(item) = row.query
            && let Err(place) = self.exclude.binary_search(&item)
        {
            self.exclude.insert(place, item);
        }
        let query = TopkQuery { exclude: cast_slice(&self.exclude), ..query(row, &[]) };
        topk_of_scores(&self.scores, &query, &mut self.answers)
    }
}

/// Returns what `row` asks of the kernels, with `vector` to multiply by.
pub(crate) fn query<'a>(row: &'a Row, vector: &'a [f32]) -> TopkQuery<'a> {
    TopkQuery {
        vector,
        k: row.k,
        exclude: cast_slice(&row.exclude),
        candidates: row.candidates.as_deref().map(cast_slice),
        allow: row.allow.as_deref(),
        tie_key: row.tie_key,
    }
}
