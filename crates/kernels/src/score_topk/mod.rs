//! Score x mask x top-k: the best `k` rows of a table for each query, without the queries x rows matrix.
//!
//! ```text
//! score[q, i] = bias[i] + Σ_d vector[q, d] * table[i, d]        one chain of fused multiply-adds, d = 0, 1, ..
//! answer[q]   = the k allowed i with the highest score, best first; equal scores by tie_hash(tie_key, i)
//! ```
//!
//! # Layout
//!
//! | name         | shape         | type                 | constraint                                         |
//! |--------------|---------------|----------------------|----------------------------------------------------|
//! | `table`      | `[rows, dim]` | f32, f16, bf16, int8 | in any number of chunks; at most `u32::MAX` rows   |
//! | `bias`       | `[rows]`      | f32                  | optional                                           |
//! | `vector`     | `[dim]`       | f32                  | one a query                                        |
//! | `exclude`    | any           | u32                  | ascending                                          |
//! | `candidates` | any           | u32                  | ascending, `< rows`; where given, only these count |
//! | `allow`      | `[rows / 64]` | u64                  | one bit a row, lowest first, rounded up            |
//!
//! # Guarantees
//!
//! The order is total (score, then hash, then index) and a score is one fixed chain of operations, so an answer has
//! the same bits alone, in any batch, on any number of threads and at every SIMD level.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod batch;
#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "gpu")]
mod cube_matrix;
#[cfg(feature = "gpu")]
mod cube_rows;
mod pass;
mod portable;
mod prepared;
mod quantized;
mod rows;
mod scan;
mod select;
mod tile;

pub use batch::TopkScratch;
pub use prepared::TopkPrepared;
pub use select::tie_hash;

use crate::{Device, Error, Result, Table, buffer::on_gpu};
use select::Best;

/// Bytes that answers take on a GPU beside the table and the queries, at most.
pub const TOPK_BYTES_ON_GPU: u64 = 112 << 20;
const OP: &str = "score_topk";

/// One question: the `k` rows of the table that score highest with `vector`, among those the filters leave.
#[derive(Clone, Copy, Debug)]
pub struct TopkQuery<'a> {
    /// `[dim]`: what every row is multiplied with.
    pub vector: &'a [f32],
    /// Rows to answer with, at most.
    pub k: usize,
    /// Rows that must not be in the answer, ascending.
    pub exclude: &'a [u32],
    /// Where given, the only rows that may be in the answer, ascending; no other row is scored.
    pub candidates: Option<&'a [u32]>,
    /// Where given, one bit a row, 64 to a word, lowest first: only rows whose bit is set may be in the answer.
    pub allow: Option<&'a [u64]>,
    /// Orders rows of equal score, by [`tie_hash`].
    pub tie_key: u64,
}

impl<'a> TopkQuery<'a> {
    /// Asks for the `k` best rows for `vector`, with no filter.
    pub fn new(vector: &'a [f32], k: usize) -> Self {
        Self { vector, k, exclude: &[], candidates: None, allow: None, tie_key: 0 }
    }

    /// Returns the most rows that the answer can have.
    fn room(&self, rows: usize) -> usize {
        self.k.min(self.candidates.map_or(rows, <[u32]>::len))
    }

    /// Returns what tells, of rows that come ascending, which ones `exclude` and `allow` leave.
    fn filter(&self) -> Filter<'a> {
        Filter { exclude: self.exclude, allow: self.allow }
    }

    /// Calls `each` with every one of `rows` rows that all filters leave, ascending.
    fn each_allowed(&self, rows: usize, mut each: impl FnMut(u32) -> Result<()>) -> Result<()> {
        let mut filter = self.filter();
        let mut consider = |index| if filter.admits(index) { each(index) } else { Ok(()) };
        match self.candidates {
            Some(candidates) => candidates.iter().try_for_each(|&index| consider(index)),
            None => (0..rows as u32).try_for_each(consider),
        }
    }
}

/// What is left of a query's filters for the rows that follow.
struct Filter<'a> {
    exclude: &'a [u32],
    allow: Option<&'a [u64]>,
}

impl Filter<'_> {
    /// Returns whether `index`, which is above all asked about before, may be in the answer.
    fn admits(&mut self, index: u32) -> bool {
        while let [first, rest @ ..] = self.exclude
            && *first < index
        {
            self.exclude = rest;
        }
        let allowed = self.allow.is_none_or(|words| words[index as usize / 64] >> (index % 64) & 1 == 1);
        allowed && self.exclude.first() != Some(&index)
    }
}

/// Answers to a batch of queries, used again from batch to batch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopkAnswers {
    /// Query `q`'s answer is `ends[q - 1] .. ends[q]` of `indices` and `scores`.
    pub ends: Vec<usize>,
    /// Row indices, best first.
    pub indices: Vec<u32>,
    /// The score of each index.
    pub scores: Vec<f32>,
}

impl TopkAnswers {
    /// Returns the indices and scores that answer query `query`, best first; nothing past the last query.
    pub fn answer(&self, query: usize) -> (&[u32], &[f32]) {
        let Some(&end) = self.ends.get(query) else { return (&[], &[]) };
        let start = if query == 0 { 0 } else { self.ends[query - 1] };
        (&self.indices[start..end], &self.scores[start..end])
    }

    /// Returns how many queries are answered.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Returns whether no query is answered.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the answers and keeps the memory.
    pub fn clear(&mut self) {
        self.ends.clear();
        self.indices.clear();
        self.scores.clear();
    }

    /// Makes room for `room` more rows in one more answer, and returns where it begins.
    fn extend(&mut self, room: usize) -> Result<usize> {
        let begin = self.ends.last().copied().unwrap_or(0);
        reserve(&mut self.ends, 1)?;
        reserve(&mut self.indices, room)?;
        reserve(&mut self.scores, room)?;
        self.indices.resize(begin + room, 0);
        self.scores.resize(begin + room, 0.0);
        Ok(begin)
    }

    /// Ends the answer that begins at `begin` after `count` rows.
    fn end(&mut self, begin: usize, count: usize) {
        self.indices.truncate(begin + count);
        self.scores.truncate(begin + count);
        self.ends.push(begin + count);
    }
}

/// Answers every query with its `k` best rows of `table`, in `out`, whose former answers are forgotten.
///
/// `prepared` is what [`TopkPrepared`] derived from this very table; `bias` has one number a row. A query whose filters
/// leave fewer than `k` rows gets those.
///
/// # Errors
/// [`Error::Shape`], [`Error::IndexOutOfRange`], [`Error::Parameter`] when an operand does not fit;
/// [`Error::NotFinite`] naming the first query whose vector, or whose score with a row its filters leave, is NaN or
/// infinite; [`Error::RowType`] for rows that a GPU does not compute with; [`Error::DeviceLost`].
///
/// # Determinism
/// The same bits alone, in any batch, on any number of threads, at every SIMD level, and on every device that
/// multiplies and adds in one rounding.
pub fn score_topk(
    table: &Table,
    prepared: &TopkPrepared,
    bias: Option<&[f32]>,
    queries: &[TopkQuery<'_>],
    scratch: &mut TopkScratch,
    out: &mut TopkAnswers,
) -> Result<()> {
    check_table(table)?;
    check(table, prepared, bias)?;
    match table.device() {
        Device::Cpu => batch::answer(table, prepared, bias, queries, scratch, out),
        device => {
            for (row, query) in queries.iter().enumerate() {
                check_query(prepared.rows, prepared.dim, query, row as u64)?;
            }
            on_gpu!(OP, device, R => cube::answer::<R>(table, prepared.max_norm, bias, queries, out, device))
        }
    }
}

/// Appends to `out` the best of `scores`, one number a row, for models that produce a dense row of scores.
///
/// The filters, `k` and `tie_key` of `query` count as in [`score_topk`]; its `vector` is not read.
///
/// # Errors
/// [`Error::Shape`], [`Error::IndexOutOfRange`], [`Error::Parameter`] when a filter does not fit;
/// [`Error::NotFinite`] when a score that the filters leave is NaN or infinite: its row is the number of answers `out`
/// had before.
pub fn topk_of_scores(scores: &[f32], query: &TopkQuery<'_>, out: &mut TopkAnswers) -> Result<()> {
    let op = "topk_of_scores";
    check_filters(op, scores.len(), query)?;
    let row = out.len() as u64;
    let room = query.room(scores.len());
    let begin = out.extend(room)?;
    let (best_scores, best_indices) = (&mut out.scores[begin..], &mut out.indices[begin..]);
    let mut best = Best::resume(query.tie_key, 0, best_scores, best_indices);
    let offer = |best: &mut Best<'_>, index: u32| {
        let score = scores[index as usize];
        if !score.is_finite() {
            return Err(Error::NotFinite { op, what: "score", row });
        }
        best.offer(score, index);
        Ok(())
    };
    let all = match query.candidates {
        Some(_) => query.each_allowed(scores.len(), |index| offer(&mut best, index)),
        None => {
            let mut filter = query.filter();
            (0u32..).step_by(64).zip(scores.chunks(64)).try_for_each(|(first, scores)| {
                // Most runs of scores hold nothing above the k-th best so far; NaN is above nothing and below nothing.
                let threshold = best.threshold();
                let below = |&score: &f32| score < threshold && score > f32::NEG_INFINITY;
                if scores.iter().fold(true, |all, score| all & below(score)) {
                    return Ok(());
                }
                (first..).zip(scores).filter(|(_, score)| !below(score)).try_for_each(|(index, _)| {
                    if filter.admits(index) { offer(&mut best, index) } else { Ok(()) }
                })
            })
        }
    };
    best.sort();
    let count = best.len();
    match all {
        Ok(()) => out.end(begin, count),
        Err(_) => {
            out.indices.truncate(begin);
            out.scores.truncate(begin);
        }
    }
    all
}

/// The definition: every allowed row scored, all of them sorted, the first `k` kept.
pub fn score_topk_reference(
    table: &[f32],
    dim: usize,
    bias: Option<&[f32]>,
    queries: &[TopkQuery<'_>],
) -> TopkAnswers {
    let mut out = TopkAnswers::default();
    for query in queries {
        let mut all = Vec::new();
        for (index, row) in (0u32..).zip(table.chunks_exact(dim)) {
            let wanted = query.candidates.is_none_or(|candidates| candidates.contains(&index))
                && !query.exclude.contains(&index)
                && query.allow.is_none_or(|words| words[index as usize / 64] >> (index % 64) & 1 == 1);
            if wanted {
                let mut score = bias.map_or(0.0, |bias| bias[index as usize]);
                for (&q, &y) in query.vector.iter().zip(row) {
                    score = q.mul_add(y, score);
                }
                all.push((score, index));
            }
        }
        all.sort_by(|&a, &b| select::order(query.tie_key, a, b));
        all.truncate(query.k);
        out.indices.extend(all.iter().map(|pair| pair.1));
        out.scores.extend(all.iter().map(|pair| pair.0));
        out.ends.push(out.indices.len());
    }
    out
}

fn check_table(table: &Table) -> Result<()> {
    if table.rows() > u64::from(u32::MAX) {
        let got = table.rows() as usize;
        return Err(Error::Shape { op: OP, what: "table rows", expected: u32::MAX as usize, got });
    }
    Ok(())
}

fn check(table: &Table, prepared: &TopkPrepared, bias: Option<&[f32]>) -> Result<()> {
    let rows = table.rows() as usize;
    if (prepared.rows, prepared.dim) != (rows, table.dim()) {
        let (expected, got) = (rows * table.dim(), prepared.rows * prepared.dim);
        return Err(Error::Shape { op: OP, what: "prepared table", expected, got });
    }
    if let Some(bias) = bias {
        if bias.len() != rows {
            return Err(Error::Shape { op: OP, what: "bias", expected: rows, got: bias.len() });
        }
        if let Some(row) = bias.iter().position(|b| !b.is_finite()) {
            return Err(Error::NotFinite { op: OP, what: "bias", row: row as u64 });
        }
    }
    Ok(())
}

fn check_query(rows: usize, dim: usize, query: &TopkQuery<'_>, row: u64) -> Result<()> {
    if query.vector.len() != dim {
        return Err(Error::Shape { op: OP, what: "query vector", expected: dim, got: query.vector.len() });
    }
    if !query.vector.iter().all(|v| v.is_finite()) {
        return Err(Error::NotFinite { op: OP, what: "query vector", row });
    }
    check_filters(OP, rows, query)
}

fn reserve<T>(values: &mut Vec<T>, more: usize) -> Result<()> {
    values.try_reserve(more).map_err(|_| Error::OutOfMemory {
        device: Device::Cpu,
        what: "the answers of a batch",
        asked: (more as u64).saturating_mul(size_of::<T>() as u64),
        available: crate::memory::available(Device::Cpu),
    })
}

fn check_filters(op: &'static str, rows: usize, query: &TopkQuery<'_>) -> Result<()> {
    let ascending = |what, list: &[u32], strictly: bool| {
        let bad = list.windows(2).position(|pair| pair[0] > pair[1] || (strictly && pair[0] == pair[1]));
        bad.map_or(Ok(()), |at| {
            Err(Error::Parameter { op, what, expected: "ascending", got: f64::from(list[at + 1]) })
        })
    };
    ascending("exclude", query.exclude, false)?;
    if let Some(candidates) = query.candidates {
        ascending("candidates", candidates, true)?;
        if let Some(&last) = candidates.last()
            && last as usize >= rows
        {
            let (position, index) = (candidates.len() - 1, u64::from(last));
            return Err(Error::IndexOutOfRange { op, position, rows: rows as u64, index });
        }
    }
    match query.allow {
        Some(words) if words.len() < rows.div_ceil(64) => {
            Err(Error::Shape { op, what: "allow", expected: rows.div_ceil(64), got: words.len() })
        }
        _ => Ok(()),
    }
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<crate::cuda_sources::Instance> {
    use crate::{
        RowType,
        cuda_sources::{Instance, table_of},
    };
    const ROWS: u64 = 20_000;
    let of = |(row_type, dim, n_queries): (RowType, usize, usize)| {
        let label = format!("score_topk, {row_type:?}, dim {dim}, {n_queries} queries");
        Instance::new(label, move |device| {
            let table = table_of(row_type, ROWS, dim, device)?;
            let prepared = TopkPrepared::new(&table)?;
            let (vector, bias) = (vec![0.0; dim], vec![0.0; ROWS as usize]);
            let allow = vec![u64::MAX; ROWS.div_ceil(64) as usize];
            let plain = TopkQuery { exclude: &[3], ..TopkQuery::new(&vector, 10) };
            let filtered = TopkQuery { allow: Some(&allow), ..plain };
            let listed = TopkQuery { candidates: Some(&[1, 2]), ..plain };
            let (mut scratch, mut answers) = (TopkScratch::default(), TopkAnswers::default());
            for (query, bias) in [(plain, None), (filtered, Some(&bias[..])), (listed, Some(&bias[..]))] {
                score_topk(&table, &prepared, bias, &vec![query; n_queries], &mut scratch, &mut answers)?;
            }
            Ok(())
        })
    };
    [
        (RowType::F32, 64, 256),
        (RowType::F32, 128, 256),
        (RowType::F16, 128, 256),
        (RowType::F16, 64, 256),
        (RowType::F16, 33, 256),
        (RowType::F16, 128, 1),
        (RowType::F32, 128, 1),
        (RowType::F32, 33, 256),
    ]
    .map(of)
    .into()
}

#[cfg(test)]
mod tests;
