//! What answers are made of: top-k of scores, similar columns, rows by index, events of a session.
#![expect(clippy::unwrap_used, reason = "a bench that cannot run ends")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use recmill_benches::{
    ceilings::Ceilings,
    factors::{numbers, table},
    interactions::Interactions,
    measure::measure,
};
use recmill_core::{
    Batch, ItemIndex, Workspace,
    dense::Initial,
    models::{Gru4RecConfig, Retriever, SasRecConfig, SequenceConfig, SequenceModel, Sessions},
};
use recmill_kernels::{
    Direction, Measure, Result, SimilarityOptions, Table, TopkAnswers, TopkPrepared, TopkQuery, TopkScratch,
    gather, gather_reference, philox::Draws, philox::below, scatter_add, scatter_add_reference, score_topk,
    score_topk_reference, similarity, similarity_reference,
};

/// The items of MovieLens-20M.
const N_ITEMS: usize = 26_744;
const EXCLUDED: usize = 100;
const K: usize = 10;

/// `n` indices below `rows`, spread over all of them.
fn indices(n: usize, rows: usize, stream: u64) -> Vec<u32> {
    let draws = Draws::new(0, stream);
    (0..n as u64).map(|at| below(draws.word(at), rows as u32)).collect()
}

/// Preparation by name.
type Prepare = fn(&Table) -> Result<TopkPrepared>;

fn topk(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    for dim in [64, 128] {
        let items = table(N_ITEMS, dim, 1).unwrap();
        let vectors = numbers(256 * dim, 2);
        let excluded: Vec<Vec<u32>> = (0..256)
            .map(|query| {
                let mut rows = indices(EXCLUDED, N_ITEMS, query);
                rows.sort_unstable();
                rows
            })
            .collect();
        let queries: Vec<TopkQuery<'_>> = vectors
            .chunks_exact(dim)
            .zip(&excluded)
            .map(|(vector, exclude)| TopkQuery { exclude, ..TopkQuery::new(vector, K) })
            .collect();
        let preparations: [(&str, Prepare); 2] =
            [("plain", TopkPrepared::plain), ("prepared", TopkPrepared::new)];
        for (name, prepare) in preparations {
            let prepared = prepare(&items).unwrap();
            let (mut scratch, mut answers) = (TopkScratch::default(), TopkAnswers::default());
            score_topk(&items, &prepared, None, &queries[..3], &mut scratch, &mut answers).unwrap();
            let expected = score_topk_reference(&items.to_f32().unwrap(), dim, None, &queries[..3]);
            assert_eq!(answers, expected);
            for n in [1, 256] {
                // As if every query scored every item in f32 from memory: what preparation saves shows as a higher share.
                let cost = (2 * n * N_ITEMS * dim) as f64;
                let shape =
                    format!("{K} of {N_ITEMS}, dim {dim}, {n} queries, {EXCLUDED} excluded, {name}/cpu");
                measure(criterion, ceilings, &format!("score_topk/{shape}"), (cost, 2.0 * cost), || {
                    score_topk(&items, &prepared, None, &queries[..n], &mut scratch, &mut answers).unwrap();
                    black_box(&answers);
                });
            }
        }
    }
}

fn similar(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let by_row = Interactions::long_tailed(8000, 5000, 60);
    let by_column = by_row.transposed();
    let direction = Direction::From;
    for (name, measure_of) in
        [("cosine", Measure::Cosine), ("rp3beta", Measure::Rp3beta { alpha: 0.8, beta: 0.4 })]
    {
        let options = SimilarityOptions {
            measure: measure_of,
            k: 100,
            shrink: 0.0,
            row_damping: 0.0,
            column_damping: 0.5,
            direction,
        };
        check_similar(&options);
        let rows = by_row.rows();
        let additions: f64 = (0..rows.n_rows()).map(|row| (rows.row_len(row) as f64).powi(2)).sum();
        // Index and value are read, and the sum is read and written.
        let cost = (2.0 * additions, 16.0 * additions);
        let shape = format!("8000x5000, {} entries, k 100, {name}/cpu", by_row.indices.len());
        measure(criterion, ceilings, &format!("similarity/{shape}"), cost, || {
            black_box(similarity(by_column.rows(), by_row.rows(), &options).unwrap());
        });
    }
}

/// The lists of a small matrix hold the similarities of the definition, the best first.
fn check_similar(options: &SimilarityOptions) {
    let by_row = Interactions::long_tailed(200, 300, 20);
    let by_column = by_row.transposed();
    let exact = similarity_reference(by_column.rows(), by_row.rows(), options).unwrap();
    let lists = similarity(by_column.rows(), by_row.rows(), options).unwrap();
    for column in 0..300 {
        let (others, values) = lists.rows().row(column);
        let best = exact[column * 300..(column + 1) * 300].iter().copied().fold(0.0, f64::max);
        assert!((f64::from(values.first().copied().unwrap_or(0.0)) - best).abs() <= 1e-5);
        for (&other, &value) in others.iter().zip(values) {
            assert!((f64::from(value) - exact[column * 300 + other as usize]).abs() <= 1e-5);
        }
    }
}

fn rows(criterion: &mut Criterion) {
    let ceilings = Ceilings::measure();
    let (n_rows, n) = (400_000, 100_000);
    for dim in [64, 128] {
        let mut table = table(n_rows, dim, 4).unwrap();
        let indices = indices(n, n_rows, 1000);
        let values = (n * dim) as f64;
        let shape = format!("{n} of {n_rows}, dim {dim}/cpu");

        let got = gather(&table, &indices).unwrap();
        assert_eq!(got.cpu().unwrap(), gather_reference(&table, &indices).unwrap());
        measure(criterion, ceilings, &format!("gather/{shape}"), (0.0, 8.0 * values), || {
            black_box(gather(&table, &indices).unwrap());
        });

        let added = numbers(n * dim, 5);
        let expected = scatter_add_reference(&table, &indices, &added).unwrap();
        scatter_add(&mut table, &indices, &added).unwrap();
        assert_eq!(table.to_f32().unwrap(), expected);
        measure(criterion, ceilings, &format!("scatter_add/{shape}"), (values, 12.0 * values), || {
            scatter_add(&mut table, &indices, &added).unwrap();
        });
    }
}

/// One more event of a session and its list, beside the list from the whole history.
fn session(criterion: &mut Criterion) {
    one_more(criterion, "sasrec", SasRecConfig::default(), |c, before| {
        let of_block = 4 * c.factors * c.factors + 2 * c.factors * (c.feed_forward + before);
        2 * c.layers * of_block
    });
    one_more(criterion, "gru4rec", Gru4RecConfig::default(), |c, _| {
        2 * c.hidden * (3 * (c.factors + c.hidden) + c.factors)
    });
}

/// `cost` says how many operations an event takes behind `before` others.
fn one_more<C: SequenceConfig>(
    criterion: &mut Criterion,
    name: &str,
    config: C,
    cost: impl Fn(&C, usize) -> usize,
) {
    const EVENTS: usize = 50;
    let ceilings = Ceilings::measure();
    let items = table(1000, config.settings().factors, 6).unwrap();
    let network = config.network(&mut Initial::new(0, &Default::default()));
    let model = SequenceModel::new(config.clone(), items, network).unwrap();
    let (mut before, mut live, mut whole) = (model.begin(), Workspace::default(), Workspace::default());
    let events = indices(EVENTS, 1000, 7);
    let (&last, earlier) = events.split_last().unwrap();
    earlier.iter().for_each(|&item| model.push(&mut before, ItemIndex(item), 1.0).unwrap());
    let one_more = |workspace: &mut Workspace| {
        let mut session = before.clone();
        model.push(&mut session, ItemIndex(last), 1.0).unwrap();
        let batch = Batch { rows: vec![session.row(K)] };
        model.answer(&[&session], &batch, workspace).unwrap();
        batch
    };
    let batch = one_more(&mut live);
    model.score(&batch, &mut whole).unwrap();
    assert_eq!(live.answer(0), whole.answer(0));
    let bytes = (4 * 1000 * config.settings().factors) as f64;
    let operations = cost(&config, EVENTS) as f64;
    let shape = format!("{name}, {K} of 1000 after {EVENTS} events");
    measure(criterion, ceilings, &format!("session/{shape}, one more/cpu"), (operations, bytes), || {
        black_box(one_more(&mut live));
    });
    let operations = (0..EVENTS).map(|before| cost(&config, before) as f64).sum();
    measure(criterion, ceilings, &format!("session/{shape}, whole/cpu"), (operations, bytes), || {
        model.score(&batch, &mut whole).unwrap();
        black_box(&whole);
    });
}

criterion_group!(benches, topk, similar, rows, session);
criterion_main!(benches);
