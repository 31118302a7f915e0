//! Cases of score_topk.

use super::{Case, Failure, Numbers, Outcome, on_threads, refused, same_bits};
use crate::{
    Device, Error, RowType, Table, TopkAnswers, TopkPrepared, TopkQuery, TopkScratch, score_topk,
    score_topk_reference,
};

pub(super) const CASES: &[Case] = &[
    Case { name: "score_topk/sizes", run: sizes },
    Case { name: "score_topk/chunks, row types", run: layouts },
    Case { name: "score_topk/filters", run: filters },
    Case { name: "score_topk/many rows of f16", run: many_halves },
    Case { name: "score_topk/same bits alone, in a batch, on any threads", run: same_alone },
    Case { name: "score_topk/refusals", run: refusals },
];

fn other(what: String) -> impl FnOnce(Error) -> Failure {
    move |got| Failure::Refused { what, got }
}

/// Answers with both kinds of preparation; `None` where the device has no such operation.
fn answers(
    table: &Table,
    bias: Option<&[f32]>,
    queries: &[TopkQuery<'_>],
) -> Result<Option<[TopkAnswers; 2]>, Error> {
    let mut both = [TopkAnswers::default(), TopkAnswers::default()];
    for (prepare, out) in [TopkPrepared::plain, TopkPrepared::new].into_iter().zip(&mut both) {
        let prepared = match prepare(table) {
            Err(Error::NotOnDevice { .. }) => return Ok(None),
            prepared => prepared?,
        };
        score_topk(table, &prepared, bias, queries, &mut TopkScratch::default(), out)?;
    }
    Ok(Some(both))
}

/// Compares counts, rows and the bits of the scores.
fn same(what: impl Fn() -> String, got: &TopkAnswers, expected: &TopkAnswers) -> Result<(), Failure> {
    let counts = |answers: &TopkAnswers| answers.ends.iter().map(|&end| end as f32).collect::<Vec<_>>();
    let rows = |answers: &TopkAnswers| answers.indices.iter().map(|&row| row as f32).collect::<Vec<_>>();
    same_bits(|| format!("{}, counts", what()), &counts(got), &counts(expected))?;
    same_bits(|| format!("{}, rows", what()), &rows(got), &rows(expected))?;
    same_bits(|| format!("{}, scores", what()), &got.scores, &expected.scores)
}

fn sizes(device: Device) -> Result<Outcome, Failure> {
    for (rows, dim, n_queries, k) in [
        (0, 1, 2, 3),
        (1, 1, 1, 1),
        (1, 7, 3, 5),
        (31, 16, 5, 31),
        (32, 31, 13, 10),
        (33, 32, 14, 40),
        (640, 33, 15, 10),
        (2_049, 64, 29, 10),
        (4_500, 5, 300, 7),
        (66_000, 2, 3, 100),
    ] {
        let what = || format!("{rows} rows, dim {dim}, {n_queries} queries, k {k}");
        let mut numbers = Numbers::new((rows * 31 + dim) as u64);
        let values: Vec<f32> = (0..rows * dim).map(|_| numbers.unit()).collect();
        let table = Table::from_f32_in_chunks(&values, dim, 1 << 20, device, "a conformance case");
        let table = table.map_err(other(what()))?;
        let bias: Vec<f32> = (0..rows).map(|_| numbers.unit()).collect();
        let vectors: Vec<f32> = (0..n_queries * dim).map(|_| numbers.unit()).collect();
        let queries: Vec<_> = vectors
            .chunks_exact(dim)
            .map(|vector| TopkQuery { tie_key: 5, ..TopkQuery::new(vector, k) })
            .collect();
        for bias in [None, Some(&bias[..])] {
            let Some(both) = answers(&table, bias, &queries).map_err(other(what()))? else {
                return Ok(Outcome::NotOnDevice);
            };
            let expected = score_topk_reference(&values, dim, bias, &queries);
            for got in both {
                same(what, &got, &expected)?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn layouts(device: Device) -> Result<Outcome, Failure> {
    let (rows, dim) = (1_300, 24);
    let mut numbers = Numbers::new(11);
    let vectors: Vec<f32> = (0..20 * dim).map(|_| numbers.unit()).collect();
    let queries: Vec<_> = vectors.chunks_exact(dim).map(|vector| TopkQuery::new(vector, 9)).collect();
    for chunk_rows in [64, 1_024, 2_048] {
        for row_type in [RowType::F32, RowType::F16, RowType::Bf16] {
            let what = || format!("{row_type:?} in chunks of {chunk_rows}");
            let mut numbers = Numbers::new(12);
            let wide = numbers.table(rows, dim, chunk_rows, Device::Cpu).map_err(other(what()))?;
            let values = wide.to_f32().map_err(other(what()))?;
            let table = wide
                .to_row_type(row_type, "a conformance case")
                .and_then(|table| table.try_copy(device, "a conformance case"))
                .map_err(other(what()))?;
            let both = match answers(&table, None, &queries) {
                // Not every GPU computes with halves.
                Err(Error::RowType { .. }) if row_type != RowType::F32 && device != Device::Cpu => continue,
                both => both.map_err(other(what()))?,
            };
            let Some(both) = both else { return Ok(Outcome::NotOnDevice) };
            for got in both {
                same(what, &got, &score_topk_reference(&values, dim, None, &queries))?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// Queries over small integers, so that many scores are equal, under every combination of filters.
struct Filtered {
    vectors: Vec<f32>,
    exclude: Vec<u32>,
    candidates: Vec<u32>,
    allow: Vec<u64>,
}

impl Filtered {
    const DIM: usize = 6;

    fn new(rows: usize) -> Self {
        let mut numbers = Numbers::new(21);
        Self {
            vectors: (0..16 * Self::DIM).map(|_| numbers.below(3) as f32 - 1.0).collect(),
            exclude: (0..rows as u32).filter(|row| row % 3 == 0).collect(),
            candidates: (0..rows as u32).filter(|row| row % 7 < 3).collect(),
            allow: (0..rows.div_ceil(64)).map(|_| numbers.bits()).collect(),
        }
    }

    fn queries(&self) -> Vec<TopkQuery<'_>> {
        let vectors = self.vectors.chunks_exact(Self::DIM).enumerate();
        vectors
            .map(|(q, vector)| TopkQuery {
                vector,
                k: if q % 2 == 0 { 8 } else { usize::MAX },
                exclude: if q & 2 != 0 { &self.exclude } else { &[] },
                candidates: (q & 4 != 0).then_some(&self.candidates),
                allow: (q & 8 != 0).then_some(&self.allow),
                tie_key: q as u64,
            })
            .collect()
    }
}

fn filters(device: Device) -> Result<Outcome, Failure> {
    let rows = 1_100;
    let mut numbers = Numbers::new(22);
    let values: Vec<f32> = (0..rows * Filtered::DIM).map(|_| numbers.below(3) as f32 - 1.0).collect();
    let what = || "filters".to_owned();
    let table = Table::from_f32_in_chunks(&values, Filtered::DIM, 256, device, "a conformance case");
    let table = table.map_err(other(what()))?;
    let filtered = Filtered::new(rows);
    let Some(both) = answers(&table, None, &filtered.queries()).map_err(other(what()))? else {
        return Ok(Outcome::NotOnDevice);
    };
    let expected = score_topk_reference(&values, Filtered::DIM, None, &filtered.queries());
    for got in both {
        same(what, &got, &expected)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

/// Rows of f16, several in each group of the first pass, under vectors of several magnitudes, biases and filters: what devices
/// with matrix units take another way. A vector's numbers have more digits than a half, and sums are exact in any order.
fn many_halves(device: Device) -> Result<Outcome, Failure> {
    let n_queries = 150;
    for (rows, dim, k) in [(20_000, 40, 10), (9_001, 64, 150), (17_000, 7, 3)] {
        let what = |bias: bool| format!("{rows} rows, dim {dim}, k {k}, bias {bias}");
        let mut numbers = Numbers::new((rows * 13 + dim) as u64);
        let values: Vec<f32> = (0..rows * dim).map(|_| numbers.below(5) as f32 / 2.0 - 1.0).collect();
        let table = Table::from_f32(&values, dim, Device::Cpu, "a conformance case")
            .and_then(|table| table.to_row_type(RowType::F16, "a conformance case"))
            .and_then(|table| table.try_copy(device, "a conformance case"))
            .map_err(other(what(false)))?;
        let bias: Vec<f32> = (0..rows).map(|_| numbers.unit()).collect();
        let vectors: Vec<f32> = (0..n_queries * dim)
            .map(|at| [1.0, 0.125, 4.0, 0.0][at / dim % 4] * (numbers.unit() + numbers.unit() / 128.0))
            .collect();
        let exclude: Vec<u32> = (0..rows as u32).filter(|row| row % 5 < 2).collect();
        let allow: Vec<u64> = (0..rows.div_ceil(64)).map(|_| numbers.bits()).collect();
        let queries: Vec<_> = vectors
            .chunks_exact(dim)
            .enumerate()
            .map(|(q, vector)| TopkQuery {
                exclude: if q & 1 != 0 { &exclude } else { &[] },
                allow: (q & 2 != 0).then_some(&allow),
                tie_key: 3,
                ..TopkQuery::new(vector, k)
            })
            .collect();
        for bias in [None, Some(&bias[..])] {
            let both = match answers(&table, bias, &queries) {
                Err(Error::RowType { .. }) if device != Device::Cpu => continue,
                both => both.map_err(other(what(bias.is_some())))?,
            };
            let Some(both) = both else { return Ok(Outcome::NotOnDevice) };
            let expected = score_topk_reference(&values, dim, bias, &queries);
            for got in both {
                same(|| what(bias.is_some()), &got, &expected)?;
            }
        }
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn same_alone(device: Device) -> Result<Outcome, Failure> {
    let (rows, dim) = (3_000, 32);
    let what = || "same bits".to_owned();
    let mut numbers = Numbers::new(31);
    let table = numbers.table(rows, dim, 1 << 20, device).map_err(other(what()))?;
    let vectors: Vec<f32> = (0..300 * dim).map(|_| numbers.unit()).collect();
    let queries: Vec<_> = vectors.chunks_exact(dim).map(|vector| TopkQuery::new(vector, 10)).collect();
    let Some([together, _]) = answers(&table, None, &queries).map_err(other(what()))? else {
        return Ok(Outcome::NotOnDevice);
    };
    for threads in [1, 2, 5] {
        let Some(both) = on_threads(threads, || answers(&table, None, &queries)).map_err(other(what()))?
        else {
            return Ok(Outcome::NotOnDevice);
        };
        for got in both {
            same(|| format!("{threads} threads"), &got, &together)?;
        }
    }
    for (q, query) in queries.iter().enumerate().step_by(17) {
        let Some([alone, _]) = answers(&table, None, &[*query]).map_err(other(what()))? else {
            return Ok(Outcome::NotOnDevice);
        };
        same_bits(|| format!("query {q} alone"), &alone.scores, together.answer(q).1)?;
    }
    Ok(Outcome::Agrees { worst: 0.0 })
}

fn refusals(device: Device) -> Result<Outcome, Failure> {
    let what = || "refusals".to_owned();
    let table = Table::from_f32(&[1.0; 12], 3, device, "a conformance case").map_err(other(what()))?;
    let long = TopkQuery::new(&[1.0; 4], 1);
    if answers(&table, None, &[]).map_err(other(what()))?.is_none() {
        return Ok(Outcome::NotOnDevice);
    }
    refused("a long vector", answers(&table, None, &[long]), |error| matches!(error, Error::Shape { .. }))?;
    let nan = TopkQuery::new(&[1.0, f32::NAN, 1.0], 1);
    refused("NaN in a query", answers(&table, None, &[nan]), |error| {
        matches!(error, Error::NotFinite { row: 0, .. })
    })?;
    let bad = Table::from_f32(&[1.0, 1.0, f32::INFINITY], 1, device, "a conformance case");
    let bad = bad.map_err(other(what()))?;
    refused("infinity in the table", answers(&bad, None, &[]), |error| {
        matches!(error, Error::NotFinite { row: 2, .. })
    })?;
    Ok(Outcome::Agrees { worst: 0.0 })
}
