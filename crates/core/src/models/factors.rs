//! Scoring by the dot product of a vector with every item's factors, which als, bpr and svd share.
//!
//! Similar items are ranked by the cosine of their factors, without biases; a vector of length 0 has cosine 0.

use std::{mem, sync::OnceLock};

use bytemuck::cast_slice;
use rayon::prelude::*;
use recmill_kernels::{Buffer, Device, F32Rows, RowType, Table, TopkPrepared, TopkQuery, score_topk};

use super::{
    dense::{self, RowScratch},
    fold_in::Negatives,
};
use crate::{Batch, Error, ItemIndex, Query, Result, Row, Workspace};

/// The items' factors, their biases where the model has some, and what is derived from them once.
#[derive(Debug)]
pub(crate) struct FactorItems {
    table: Table,
    bias: Option<Buffer<f32>>,
    /// A copy of the table on the GPU that scores, where one does.
    on_gpu: Option<Table>,
    prepared: OnceLock<TopkPrepared>,
    gram: OnceLock<Vec<f32>>,
    norms: OnceLock<Vec<f32>>,
    negatives: OnceLock<Negatives>,
}

/// Refuses factors whose rows are not `factors` long.
pub(crate) fn check_tables(factors: usize, users: &Table, items: &Table) -> Result<()> {
    for (what, side, table) in [("user_factors", "factors", users), ("item_factors", "factors", items)] {
        if table.dim() != factors {
            return Err(Error::WrongSize { what, side, expected: factors, got: table.dim() });
        }
    }
    Ok(())
}

impl FactorItems {
    pub(crate) fn new(table: Table, bias: Option<Buffer<f32>>) -> Result<Self> {
        if let Some(bias) = &bias
            && bias.len() as u64 != table.rows()
        {
            let (expected, got) = (table.rows() as usize, bias.len());
            return Err(Error::WrongSize { what: "item_bias", side: "items", expected, got });
        }
        Ok(Self {
            table,
            bias,
            on_gpu: None,
            prepared: OnceLock::new(),
            gram: OnceLock::new(),
            norms: OnceLock::new(),
            negatives: OnceLock::new(),
        })
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the biases; empty where the model has none.
    pub(crate) fn bias(&self) -> &[f32] {
        self.bias.as_ref().and_then(Buffer::cpu).unwrap_or(&[])
    }

    pub(crate) fn copy_bias(&self) -> Result<Buffer<f32>> {
        Ok(Buffer::from_slice(self.bias(), Device::Cpu, "item biases")?)
    }

    pub(crate) fn into_parts(self) -> (Table, Option<Buffer<f32>>) {
        (self.table, self.bias)
    }

    pub(crate) fn n_items(&self) -> usize {
        self.table.rows() as usize
    }

    /// Returns `YᵀY` of the factors, `[dim, dim]`; computed at the first call.
    pub(crate) fn gram(&self) -> Result<&[f32]> {
        once(&self.gram, || {
            let dim = self.table.dim();
            let mut sums = vec![0f64; dim * dim];
            let mut row = vec![0f32; dim];
            for item in 0..self.table.rows() {
                self.table.read_row(item, &mut row)?;
                for (a, sums) in row.iter().zip(sums.chunks_exact_mut(dim)) {
                    for (sum, b) in sums.iter_mut().zip(&row) {
                        *sum += f64::from(*a) * f64::from(*b);
                    }
                }
            }
            Ok(sums.into_iter().map(|sum| sum as f32).collect())
        })
        .map(Vec::as_slice)
    }

    /// Scores on `device` from now on.
    pub(crate) fn score_on(&mut self, device: Device) -> Result<()> {
        // A GPU keeps the type of the rows where it computes with it, and otherwise has them as f32.
        let copy = |table: &Table| -> Result<(Table, TopkPrepared)> {
            let table = table.try_copy(device, "item factors to score with")?;
            let prepared = TopkPrepared::new(&table)?;
            Ok((table, prepared))
        };
        self.prepared = OnceLock::new();
        self.on_gpu = None;
        if device == Device::Cpu {
            return Ok(());
        }
        let (table, prepared) = match copy(&self.table) {
            Err(Error::Kernel(recmill_kernels::Error::RowType { .. })) => {
                copy(&self.table.to_row_type(RowType::F32, "item factors to score with")?)?
            }
            copied => copied?,
        };
        self.on_gpu = Some(table);
        self.prepared = OnceLock::from(prepared);
        Ok(())
    }

    /// Returns the table that lists are scored from.
    fn scored(&self) -> &Table {
        self.on_gpu.as_ref().unwrap_or(&self.table)
    }

    fn prepared(&self) -> Result<&TopkPrepared> {
        once(&self.prepared, || Ok(TopkPrepared::new(self.scored())?))
    }

    /// Returns the length of each item's vector; computed at the first call.
    pub(crate) fn norms(&self) -> Result<&[f32]> {
        once(&self.norms, || {
            let mut row = vec![0f32; self.table.dim()];
            let mut norms = Vec::with_capacity(self.n_items());
            for item in 0..self.table.rows() {
                self.table.read_row(item, &mut row)?;
                norms.push(dot(&row, &row).sqrt());
            }
            Ok(norms)
        })
        .map(Vec::as_slice)
    }

    /// Returns `n` items spread over the catalogue; gathered at the first call.
    pub(crate) fn negatives(&self, n: usize) -> Result<&Negatives> {
        once(&self.negatives, || Negatives::gather(&self.table, self.bias(), n))
    }

    pub(crate) fn warm_up(&self) -> Result<()> {
        self.prepared()?;
        self.norms()?;
        Ok(())
    }

    /// Answers every row of `batch` from the vector that `fill` writes; what `fill` returns is added to the row's scores.
    /// It is not asked about rows that are about an item.
    pub(crate) fn score(
        &self,
        batch: &Batch,
        workspace: &mut Workspace,
        n_users: usize,
        fill: impl Fn(&Row, &mut RowScratch, &mut [f32]) -> Result<f32> + Sync,
    ) -> Result<()> {
        self.score_all(batch, workspace, n_users, |workspace| self.fill_vectors(&batch.rows, workspace, fill))
    }

    /// As [`FactorItems::score`], but all vectors are written at once, behind each other; those of rows about an item count for nothing.
    pub(crate) fn score_together(
        &self,
        batch: &Batch,
        workspace: &mut Workspace,
        fill: impl FnOnce(&[Row], &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        self.score_all(batch, workspace, 0, |workspace| {
            workspace.vectors.clear();
            workspace.vectors.resize(batch.rows.len() * self.table.dim(), 0.0);
            workspace.offsets.clear();
            workspace.offsets.resize(batch.rows.len(), 0.0);
            fill(&batch.rows, &mut workspace.vectors)
        })
    }

    fn score_all(
        &self,
        batch: &Batch,
        workspace: &mut Workspace,
        n_users: usize,
        fill: impl FnOnce(&mut Workspace) -> Result<()>,
    ) -> Result<()> {
        workspace.clear();
        dense::check(batch, n_users, self.n_items())?;
        fill(workspace)?;
        self.score_vectors(&batch.rows, workspace)?;
        if batch.rows.iter().any(about_item) {
            self.score_items(&batch.rows, workspace)?;
            self.merge(&batch.rows, workspace);
        } else {
            workspace.ends.extend_from_slice(&workspace.answers.ends);
            workspace.items.extend_from_slice(cast_slice(&workspace.answers.indices));
            workspace.scores.extend_from_slice(&workspace.answers.scores);
        }
        workspace.add_offsets();
        Ok(())
    }

    fn fill_vectors(
        &self,
        rows: &[Row],
        workspace: &mut Workspace,
        fill: impl Fn(&Row, &mut RowScratch, &mut [f32]) -> Result<f32> + Sync,
    ) -> Result<()> {
        let (dim, piece) = (self.table.dim(), dense::piece(rows.len()));
        workspace.vectors.clear();
        workspace.vectors.resize(rows.len() * dim, 0.0);
        workspace.offsets.clear();
        workspace.offsets.resize(rows.len(), 0.0);
        let lanes = dense::lanes(&mut workspace.lanes, rows.len());
        lanes
            .par_iter_mut()
            .zip(rows.par_chunks(piece))
            .zip(workspace.vectors.par_chunks_mut(piece * dim))
            .zip(workspace.offsets.par_chunks_mut(piece))
            .try_for_each(|(((lane, rows), vectors), offsets)| {
                for ((row, vector), offset) in rows.iter().zip(vectors.chunks_exact_mut(dim)).zip(offsets) {
                    if !about_item(row) {
                        *offset = fill(row, &mut lane.scratch, vector)?;
                    }
                }
                Ok(())
            })
    }

    fn score_vectors(&self, rows: &[Row], workspace: &mut Workspace) -> Result<()> {
        let prepared = self.prepared()?;
        let bias = self.bias.as_ref().and_then(Buffer::cpu);
        let mut queries: Vec<TopkQuery<'_>> = mem::take(&mut workspace.queries);
        let vectors = workspace.vectors.chunks_exact(self.table.dim());
        queries.extend(rows.iter().zip(vectors).map(|(row, vector)| match about_item(row) {
            true => TopkQuery { candidates: Some(&[]), ..TopkQuery::new(vector, 0) },
            false => dense::query(row, vector),
        }));
        let Workspace { topk, answers, .. } = workspace;
        let scored = score_topk(self.scored(), prepared, bias, &queries, topk, answers);
        workspace.queries = forget(queries);
        Ok(scored?)
    }

    fn score_items(&self, rows: &[Row], workspace: &mut Workspace) -> Result<()> {
        let f32_rows = self.table.f32_rows();
        dense::score_where(rows, workspace, self.n_items(), about_item, |row, scratch, scores| {
            let Query::Item(about) = row.query else { return Ok(()) };
            self.cosines(about, f32_rows.as_ref(), &mut scratch.row, scores)
        })
    }

    /// Writes the cosine of each item's vector and that of `about`; `f32_rows` are those of the table, and `scratch` is working memory.
    pub(super) fn cosines(
        &self,
        about: ItemIndex,
        f32_rows: Option<&F32Rows<'_>>,
        scratch: &mut Vec<f32>,
        scores: &mut [f32],
    ) -> Result<()> {
        let (norms, dim) = (self.norms()?, self.table.dim());
        scratch.resize(2 * dim, 0.0);
        let (vector, other) = scratch.split_at_mut(dim);
        self.table.read_row(u64::from(about.0), vector)?;
        for (item, (score, norm)) in scores.iter_mut().zip(norms).enumerate() {
            let product = match f32_rows {
                Some(rows) => dot(vector, rows.row(item)),
                None => {
                    self.table.read_row(item as u64, other)?;
                    dot(vector, other)
                }
            };
            let norm = norm * norms[about.at()];
            *score = if norm > 0.0 { product / norm } else { 0.0 };
        }
        Ok(())
    }

    /// Joins the answers of rows about users and rows about items in the order of the rows.
    fn merge(&self, rows: &[Row], workspace: &mut Workspace) {
        let piece = dense::piece(rows.len());
        let Workspace { lanes, answers, ends, items, scores, .. } = workspace;
        for (at, row) in rows.iter().enumerate() {
            let (found, of_found) = match about_item(row) {
                true => lanes[at / piece].answers.answer(at % piece),
                false => answers.answer(at),
            };
            items.extend(found.iter().map(|&item| ItemIndex(item)));
            scores.extend_from_slice(of_found);
            ends.push(items.len());
        }
    }
}

fn about_item(row: &Row) -> bool {
    matches!(row.query, Query::Item(_))
}

/// Returns what `cell` holds, which `make` makes at the first call; after an error the next call makes it again.
pub(super) fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    match cell.get() {
        Some(made) => Ok(made),
        None => {
            let made = make()?;
            Ok(cell.get_or_init(|| made))
        }
    }
}

/// Empties `queries` and keeps its memory for queries that borrow from somewhere else.
fn forget(mut queries: Vec<TopkQuery<'_>>) -> Vec<TopkQuery<'static>> {
    queries.clear();
    // Collecting an iterator over a vector into one of the same layout is done in place.
    queries.into_iter().map(|query| TopkQuery::new(&[], query.k)).collect()
}

/// One order of summation, with eight sums so that the processor can add them side by side.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let (a, b) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    let mut sums = [0f32; 8];
    for (a, b) in a.zip(b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.iter().sum::<f32>() + rest
}
