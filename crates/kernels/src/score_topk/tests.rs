//! Both variants against the definition and against each other, bit for bit.

use proptest::prelude::*;

use super::*;
use crate::{
    RowType,
    conformance::{Numbers, on_threads},
    simd::{levels, with_level},
};

/// Tables that are hard on bounds and on ties.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Nothing special.
    Plain,
    /// Values -1, 0, 1: most scores are equal to many others.
    Ties,
    /// Rows that differ from one another in their last bits only.
    Close,
    /// Norms over twelve orders of magnitude, and zero rows.
    Skewed,
    /// Norms beyond what is quantized.
    Huge,
    /// So small that products underflow.
    Tiny,
    /// Nothing but zeros.
    Zeros,
}

const KINDS: [Kind; 7] =
    [Kind::Plain, Kind::Ties, Kind::Close, Kind::Skewed, Kind::Huge, Kind::Tiny, Kind::Zeros];

fn values(kind: Kind, rows: usize, dim: usize, numbers: &mut Numbers) -> Vec<f32> {
    let base: Vec<f32> = (0..dim).map(|_| numbers.unit()).collect();
    let mut values = Vec::with_capacity(rows * dim);
    for _ in 0..rows {
        let scale = match kind {
            Kind::Skewed => [0.0, 1e-6, 1e-3, 1.0, 1e3, 1e6][numbers.below(6)],
            Kind::Huge => 1e15,
            Kind::Tiny => 1e-30,
            Kind::Zeros => 0.0,
            _ => 1.0,
        };
        for &base in &base {
            values.push(match kind {
                Kind::Ties => numbers.below(3) as f32 - 1.0,
                Kind::Close => base * (1.0 + numbers.below(3) as f32 * f32::EPSILON),
                _ => scale * (numbers.unit() + numbers.unit() / 300.0),
            });
        }
    }
    values
}

/// Everything a call needs, owned.
struct Problem {
    dim: usize,
    rows: usize,
    table: Vec<f32>,
    bias: Option<Vec<f32>>,
    vectors: Vec<f32>,
    excludes: Vec<Vec<u32>>,
    candidates: Vec<u32>,
    allow: Vec<u64>,
    k: usize,
}

impl Problem {
    fn new(kind: Kind, rows: usize, dim: usize, n_queries: usize, k: usize, seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let table = values(kind, rows, dim, &mut numbers);
        let mut vectors = values(kind, n_queries, dim, &mut numbers);
        if n_queries > 2 {
            vectors[..dim].fill(0.0);
            // The best score is that of a row with itself, so that the largest bound counts.
            vectors[dim..2 * dim].copy_from_slice(&table[..dim]);
        }
        let bias = (seed % 3 == 1).then(|| (0..rows).map(|_| numbers.unit()).collect());
        let some = |numbers: &mut Numbers, one_in: usize| -> Vec<u32> {
            (0..rows as u32).filter(|_| numbers.below(one_in) == 0).collect()
        };
        let excludes = (0..n_queries).map(|q| some(&mut numbers, 1 + q % 7 * 3)).collect();
        let candidates = some(&mut numbers, 5);
        let allow = (0..rows.div_ceil(64)).map(|_| numbers.bits()).collect();
        Self { dim, rows, table, bias, vectors, excludes, candidates, allow, k }
    }

    fn queries(&self) -> Vec<TopkQuery<'_>> {
        let vectors = self.vectors.chunks_exact(self.dim).zip(&self.excludes).enumerate();
        vectors
            .map(|(q, (vector, exclude))| TopkQuery {
                vector,
                k: if q % 11 == 10 { self.rows } else { self.k },
                exclude: if q % 2 == 1 { exclude } else { &[] },
                candidates: (q % 9 == 8).then_some(&self.candidates),
                allow: (q % 5 == 4).then_some(&self.allow),
                tie_key: q as u64 / 2,
            })
            .collect()
    }

    fn table(&self, chunk_rows: u32) -> Table {
        Table::from_f32_in_chunks(&self.table, self.dim, chunk_rows, Device::Cpu, "a test").unwrap()
    }

    fn answers(&self, table: &Table, prepared: &TopkPrepared) -> TopkAnswers {
        let mut out = TopkAnswers::default();
        let bias = self.bias.as_deref();
        score_topk(table, prepared, bias, &self.queries(), &mut TopkScratch::default(), &mut out).unwrap();
        out
    }
}

/// Equal, with scores compared by their bits.
fn assert_same(got: &TopkAnswers, expected: &TopkAnswers, what: &str) {
    assert_eq!(got.ends, expected.ends, "{what}");
    for q in 0..got.len() {
        assert_eq!(got.answer(q).0, expected.answer(q).0, "{what}, query {q}");
    }
    let bits = |answers: &TopkAnswers| answers.scores.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(got), bits(expected), "{what}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn both_variants_are_the_definition_bit_for_bit(
        kind in prop::sample::select(&KINDS[..]),
        rows in prop::sample::select(vec![1usize, 15, 63, 64, 65, 700, 1024, 1500, 5000]),
        dim in prop::sample::select(vec![1usize, 3, 4, 15, 16, 17, 33]),
        n_queries in 1usize..40,
        k in 0usize..20,
        seed: u64,
    ) {
        let problem = Problem::new(kind, rows, dim, n_queries, k, seed);
        let expected =
            score_topk_reference(&problem.table, dim, problem.bias.as_deref(), &problem.queries());
        let table = problem.table(256);
        for (name, prepared) in
            [("plain", TopkPrepared::plain(&table)), ("prepared", TopkPrepared::new(&table))]
        {
            assert_same(&problem.answers(&table, &prepared.unwrap()), &expected, name);
        }
    }
}

#[test]
fn every_level_and_thread_count_gives_the_same_bits() {
    for kind in KINDS {
        let problem = Problem::new(kind, 3000, 20, 600, 10, 4);
        let table = problem.table(1 << 20);
        let prepared = TopkPrepared::new(&table).unwrap();
        let expected = problem.answers(&table, &prepared);
        for level in levels() {
            for threads in [1, 2, 5] {
                let got = on_threads(threads, || with_level(level, || problem.answers(&table, &prepared)));
                assert_same(&got, &expected, &format!("{kind:?} at {} on {threads} threads", level.name()));
            }
        }
    }
}

#[test]
fn few_queries_have_the_bits_of_the_definition_at_every_level() {
    for kind in KINDS {
        for n in [1, 2, 3, 4, 5] {
            let problem = Problem::new(kind, 5000, 22, n, 10, n as u64);
            let table = problem.table(1 << 20);
            let prepared = TopkPrepared::new(&table).unwrap();
            let expected =
                score_topk_reference(&problem.table, 22, problem.bias.as_deref(), &problem.queries());
            for level in levels() {
                let got = with_level(level, || problem.answers(&table, &prepared));
                assert_same(&got, &expected, &format!("{kind:?}, {n} queries at {}", level.name()));
            }
        }
    }
}

/// Codes of 127 and -127 everywhere: the largest products of bytes that there are.
#[test]
fn rows_and_queries_of_largest_codes_are_not_lost() {
    let (rows, dim) = (4000, 64);
    let signs = |n: usize, key: u32| -> Vec<f32> {
        let sign = |at: usize| (at as u32).wrapping_mul(2_654_435_761).wrapping_add(key) >> 13 & 1;
        (0..n).map(|at| if sign(at) == 0 { 1.0 } else { -1.0 }).collect()
    };
    let values = signs(rows * dim, 7);
    let table = Table::from_f32(&values, dim, Device::Cpu, "a test").unwrap();
    let prepared = TopkPrepared::new(&table).unwrap();
    for vector in [vec![1.0; dim], vec![-1.0; dim], values[9 * dim..10 * dim].to_vec()] {
        let queries = [TopkQuery::new(&vector, 10)];
        let expected = score_topk_reference(&values, dim, None, &queries);
        for level in levels() {
            let mut out = TopkAnswers::default();
            let mut scratch = TopkScratch::default();
            with_level(level, || score_topk(&table, &prepared, None, &queries, &mut scratch, &mut out))
                .unwrap();
            assert_same(&out, &expected, level.name());
        }
    }
}

#[test]
fn a_few_queries_over_many_rows_are_shared_among_threads_by_rows() {
    for (rows, kind) in [(70_000, Kind::Plain), (140_000, Kind::Ties)] {
        let problem = Problem::new(kind, rows, 18, 10, 12, 7);
        let table = problem.table(1 << 14);
        let prepared = TopkPrepared::new(&table).unwrap();
        let expected = score_topk_reference(&problem.table, 18, problem.bias.as_deref(), &problem.queries());
        for threads in [1, 2, 5] {
            let got = on_threads(threads, || problem.answers(&table, &prepared));
            assert_same(&got, &expected, &format!("{rows} rows on {threads} threads"));
        }
    }
}

#[test]
fn a_row_alone_is_the_row_in_a_batch() {
    let problem = Problem::new(Kind::Close, 2500, 24, 30, 10, 1);
    let table = problem.table(1 << 20);
    let prepared = TopkPrepared::new(&table).unwrap();
    let expected = problem.answers(&table, &prepared);
    let (mut scratch, mut out) = (TopkScratch::default(), TopkAnswers::default());
    for (q, query) in problem.queries().into_iter().enumerate() {
        score_topk(&table, &prepared, problem.bias.as_deref(), &[query], &mut scratch, &mut out).unwrap();
        assert_eq!(out.answer(0), expected.answer(q), "query {q}");
    }
}

#[test]
fn every_row_type_is_scored_as_its_f32_values() {
    let problem = Problem::new(Kind::Skewed, 1500, 16, 20, 10, 2);
    let small: Vec<f32> = problem.table.iter().map(|v| v.clamp(-60_000.0, 60_000.0)).collect();
    let wide = Table::from_f32_in_chunks(&small, 16, 512, Device::Cpu, "a test").unwrap();
    for row_type in [RowType::F16, RowType::Bf16] {
        let narrow = wide.to_row_type(row_type, "a test").unwrap();
        let values = narrow.to_f32().unwrap();
        let expected = score_topk_reference(&values, 16, problem.bias.as_deref(), &problem.queries());
        for prepared in [TopkPrepared::plain(&narrow), TopkPrepared::new(&narrow)] {
            let got = problem.answers(&narrow, &prepared.unwrap());
            assert_same(&got, &expected, &format!("{row_type:?}"));
        }
    }
}

#[test]
fn what_is_not_finite_is_named_with_its_row() {
    let dim = 4;
    let mut values = vec![0.5; 200 * dim];
    let table = Table::from_f32(&values, dim, Device::Cpu, "a test").unwrap();
    let prepared = TopkPrepared::new(&table).unwrap();
    let score = |bias: Option<&[f32]>, queries: &[TopkQuery<'_>]| {
        let (mut scratch, mut out) = (TopkScratch::default(), TopkAnswers::default());
        score_topk(&table, &prepared, bias, queries, &mut scratch, &mut out)
    };
    let good = TopkQuery::new(&[1.0; 4], 3);
    let nan = TopkQuery::new(&[1.0, f32::NAN, 0.0, 0.0], 3);
    let found = Error::NotFinite { op: OP, what: "query vector", row: 2 };
    assert_eq!(score(None, &[good, good, nan, nan]), Err(found));
    let mut bias = vec![0.0; 200];
    bias[7] = f32::INFINITY;
    assert_eq!(score(Some(&bias), &[good]), Err(Error::NotFinite { op: OP, what: "bias", row: 7 }));
    values[50 * dim] = f32::NEG_INFINITY;
    let bad = Table::from_f32(&values, dim, Device::Cpu, "a test").unwrap();
    let found = Error::NotFinite { op: OP, what: "table", row: 50 };
    assert_eq!(TopkPrepared::new(&bad).unwrap_err(), found);
}

#[test]
fn a_score_that_overflows_is_an_error_unless_its_row_is_filtered_out() {
    let mut values = vec![1.0f32; 300 * 2];
    values[200..202].fill(3e38);
    let table = Table::from_f32(&values, 2, Device::Cpu, "a test").unwrap();
    let (mut scratch, mut out) = (TopkScratch::default(), TopkAnswers::default());
    for prepared in [TopkPrepared::plain(&table).unwrap(), TopkPrepared::new(&table).unwrap()] {
        let query = TopkQuery::new(&[2.0, 2.0], 3);
        let mut score = |query: TopkQuery<'_>| {
            score_topk(&table, &prepared, None, &[query], &mut scratch, &mut out)?;
            Ok(out.scores.clone())
        };
        assert_eq!(score(query), Err(Error::NotFinite { op: OP, what: "score", row: 0 }));
        assert_eq!(score(TopkQuery { exclude: &[100], ..query }), Ok(vec![4.0; 3]));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let table = Table::from_f32(&[0.0; 100 * 3], 3, Device::Cpu, "a test").unwrap();
    let prepared = TopkPrepared::new(&table).unwrap();
    let other = Table::from_f32(&[0.0; 3], 3, Device::Cpu, "a test").unwrap();
    let (mut scratch, mut out) = (TopkScratch::default(), TopkAnswers::default());
    let query = TopkQuery::new(&[0.0; 3], 2);
    let mut score = |table, bias: Option<&[f32]>, query| {
        score_topk(table, &prepared, bias, &[query], &mut scratch, &mut out).unwrap_err().to_string()
    };
    assert_eq!(score(&other, None, query), "score_topk: prepared table has 300 values, expected `3`");
    assert_eq!(score(&table, Some(&[0.0]), query), "score_topk: bias has 1 values, expected `100`");
    let short = TopkQuery { vector: &[0.0], ..query };
    assert_eq!(score(&table, None, short), "score_topk: query vector has 1 values, expected `3`");
    let unsorted = TopkQuery { exclude: &[2, 1], ..query };
    assert_eq!(score(&table, None, unsorted), "score_topk: exclude must be ascending, not `1`");
    let twice = TopkQuery { candidates: Some(&[2, 2]), ..query };
    assert_eq!(score(&table, None, twice), "score_topk: candidates must be ascending, not `2`");
    let past = TopkQuery { candidates: Some(&[2, 100]), ..query };
    assert_eq!(score(&table, None, past), "score_topk: index at position 1 is past the 100 rows: `100`");
    let few = TopkQuery { allow: Some(&[0]), ..query };
    assert_eq!(score(&table, None, few), "score_topk: allow has 1 values, expected `2`");
}

proptest! {
    #[test]
    fn a_dense_row_of_scores_is_sorted_as_the_definition_says(
        scores in prop::collection::vec(prop::sample::select(vec![-2.0f32, -1.0, 0.0, 0.25, 0.5, 3.0]), 1..400),
        k in 0usize..50,
        seed: u64,
    ) {
        let problem = Problem::new(Kind::Zeros, scores.len(), 1, 10, k, seed);
        for query in problem.queries() {
            let mut out = TopkAnswers::default();
            topk_of_scores(&scores, &query, &mut out).unwrap();
            let query = TopkQuery { vector: &[1.0], ..query };
            let expected = score_topk_reference(&scores, 1, None, &[query]);
            prop_assert_eq!(out, expected);
        }
    }
}

#[test]
fn a_dense_score_that_is_not_finite_counts_only_where_the_filters_leave_it() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut scores = vec![1.0; 200];
        scores[150] = bad;
        let mut out = TopkAnswers::default();
        let query = TopkQuery::new(&[], 2);
        topk_of_scores(&scores, &TopkQuery { exclude: &[150], ..query }, &mut out).unwrap();
        let error = topk_of_scores(&scores, &query, &mut out).unwrap_err();
        assert_eq!(error, Error::NotFinite { op: "topk_of_scores", what: "score", row: 1 });
        assert_eq!((out.len(), out.indices.len(), out.scores.len()), (1, 2, 2), "the answer before stays");
    }
}

#[test]
fn equal_scores_are_ordered_by_the_hash_also_at_the_cut() {
    let scores = [1.0; 100];
    let mut out = TopkAnswers::default();
    topk_of_scores(&scores, &TopkQuery { tie_key: 9, ..TopkQuery::new(&[], 3) }, &mut out).unwrap();
    let mut by_hash: Vec<u32> = (0..100).collect();
    by_hash.sort_by_key(|&index| tie_hash(9, index));
    assert_eq!(out.answer(0).0, &by_hash[..3]);
}
