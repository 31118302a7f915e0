//! How every model answers, whatever its parameters: filters, order, batches, refusals, storage.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod parameters;

use std::sync::Arc;

use parameters::{N_ITEMS, N_USERS, models};
use recmill_core::{
    Batch, Error, ItemIndex, Query, Row, UserIndex, Workspace,
    models::{ModelConfig, Precision, Retriever, open},
    tie_key,
};

type Answer = (Vec<ItemIndex>, Vec<f32>);

fn answers(model: &dyn Retriever, rows: &[Row]) -> Vec<Answer> {
    let mut workspace = Workspace::default();
    model.score(&Batch { rows: rows.to_vec() }, &mut workspace).unwrap();
    (0..rows.len())
        .map(|row| workspace.answer(row))
        .map(|(items, scores)| (items.to_vec(), scores.to_vec()))
        .collect()
}

fn answer(model: &dyn Retriever, row: Row) -> Answer {
    answers(model, &[row]).remove(0)
}

fn history(seed: u32) -> Vec<(ItemIndex, f32)> {
    (0..5).map(|n| (ItemIndex((seed * 7 + n * 11) % N_ITEMS as u32), 1.0 + n as f32)).collect()
}

/// One question of each kind that `model` answers.
fn queries(model: &dyn Retriever, seed: u32) -> Vec<Query> {
    let mut queries = vec![Query::History(history(seed)), Query::Item(ItemIndex(seed % N_ITEMS as u32))];
    if model.n_users() > 0 {
        queries.push(Query::User(UserIndex(seed % N_USERS as u32)));
    }
    queries
}

fn bitmap(items: impl IntoIterator<Item = usize>) -> Arc<[u64]> {
    let mut words = vec![0u64; N_ITEMS.div_ceil(64)];
    items.into_iter().for_each(|item| words[item / 64] |= 1 << (item % 64));
    words.into()
}

#[test]
fn without_filters_every_item_is_ranked_once_best_first() {
    for (config, model) in models() {
        for query in queries(&*model, 3) {
            let (items, scores) = answer(&*model, Row::new(query.clone(), 10 * N_ITEMS));
            let itself = usize::from(matches!(query, Query::Item(_)));
            assert_eq!(items.len(), N_ITEMS - itself, "{} {query:?}", config.name());
            assert!(scores.windows(2).all(|pair| pair[0] >= pair[1]), "{}", config.name());
            let mut sorted = items.clone();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), items.len());
            if let Query::Item(item) = query {
                assert!(!items.contains(&item), "{}: an item is not similar to itself", config.name());
            }
            let (first, _) = answer(&*model, Row::new(query, 10));
            assert_eq!(
                first,
                items[..10],
                "{}: a shorter list is the beginning of a longer one",
                config.name()
            );
        }
    }
}

#[test]
fn filters_leave_out_items_and_change_nothing_else() {
    for (config, model) in models() {
        for query in queries(&*model, 4) {
            let key = tie_key(1, "4");
            let row = Row { tie_key: key, ..Row::new(query, N_ITEMS) };
            let (all, scores) = answer(&*model, row.clone());
            let even = |item: &ItemIndex| item.0.is_multiple_of(2);
            let expected = |keep: &dyn Fn(&ItemIndex) -> bool| -> Answer {
                all.iter()
                    .zip(&scores)
                    .filter(|(item, _)| keep(item))
                    .map(|(&item, &score)| (item, score))
                    .unzip()
            };
            let some: Vec<ItemIndex> =
                (0..N_ITEMS as u32).filter(|item| item % 3 == 0).map(ItemIndex).collect();

            let excluded = answer(&*model, Row { exclude: some.clone(), ..row.clone() });
            assert_eq!(excluded, expected(&|item| item.0 % 3 != 0), "{}: exclude", config.name());
            let allow = Some(bitmap((0..N_ITEMS).step_by(2)));
            let allowed = answer(&*model, Row { allow: allow.clone(), ..row.clone() });
            assert_eq!(allowed, expected(&even), "{}: allow", config.name());
            let listed = answer(&*model, Row { candidates: Some(some.clone()), ..row.clone() });
            assert_eq!(listed, expected(&|item| item.0 % 3 == 0), "{}: candidates", config.name());
            let exclude = vec![ItemIndex(0), ItemIndex(6)];
            let all_three = answer(&*model, Row { candidates: Some(some), allow, exclude, ..row.clone() });
            assert_eq!(all_three, expected(&|item| item.0 % 6 == 0 && item.0 > 6), "{}: all", config.name());
            let nothing = answer(&*model, Row { candidates: Some(Vec::new()), ..row });
            assert_eq!(nothing, (vec![], vec![]), "{}: no candidates", config.name());
        }
    }
}

#[test]
fn a_batch_answers_as_its_rows_alone_and_on_any_number_of_threads() {
    for (config, model) in models() {
        let rows: Vec<Row> = (0..70)
            .flat_map(|seed| queries(&*model, seed).into_iter().map(move |query| (seed, query)))
            .map(|(seed, query)| Row { tie_key: u64::from(seed), ..Row::new(query, 1 + seed as usize % 9) })
            .collect();
        let together = answers(&*model, &rows);
        for (row, expected) in rows.iter().zip(&together) {
            assert_eq!(&answer(&*model, row.clone()), expected, "{}", config.name());
        }
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert_eq!(pool.install(|| answers(&*model, &rows)), together, "{}", config.name());
        }
        let mut backwards = rows.clone();
        backwards.reverse();
        let mut workspace = Workspace::default();
        model.score(&Batch { rows }, &mut workspace).unwrap();
        model.score(&Batch { rows: backwards }, &mut workspace).unwrap();
        for (row, (items, scores)) in together.iter().rev().enumerate() {
            assert_eq!(
                workspace.answer(row),
                (&items[..], &scores[..]),
                "{}: a used workspace",
                config.name()
            );
        }
    }
}

#[test]
fn the_order_of_a_history_does_not_matter_and_repeats_add_up() {
    // For a model that says it reads the order, that order matters is the promise: crates/train/tests/contract.rs.
    for (config, model) in models().into_iter().filter(|(_, model)| !model.reads_order()) {
        let mut items = history(8);
        let expected = answer(&*model, Row::new(Query::History(items.clone()), 20));
        items.reverse();
        assert_eq!(
            answer(&*model, Row::new(Query::History(items.clone()), 20)),
            expected,
            "{}",
            config.name()
        );
        let (item, value) = items[2];
        items[2].1 = value / 2.0;
        items.push((item, value / 2.0));
        assert_eq!(answer(&*model, Row::new(Query::History(items), 20)), expected, "{}", config.name());
    }
}

#[test]
fn nobody_with_nothing_gets_an_answer_too() {
    for (config, model) in models() {
        let (items, _) = answer(&*model, Row::new(Query::History(Vec::new()), 5));
        assert_eq!(items.len(), 5, "{}", config.name());
    }
}

#[test]
fn equal_scores_are_ordered_by_the_key() {
    for (config, model) in models() {
        // Nothing is known of an empty history, so these models find everything alike.
        if !matches!(config, ModelConfig::Als(_) | ModelConfig::ItemKnn(_) | ModelConfig::Ease(_)) {
            continue;
        }
        let ask = |key| answer(&*model, Row { tie_key: key, ..Row::new(Query::History(Vec::new()), 20) }).0;
        assert_eq!(ask(1), ask(1));
        assert_ne!(ask(1), ask(2), "{}", config.name());
        assert_ne!(ask(1), (0..20).map(ItemIndex).collect::<Vec<_>>(), "{}", config.name());
    }
}

#[test]
fn what_a_model_does_not_have_is_refused_with_its_side() {
    for (config, model) in models() {
        let refuse = |row: Row| {
            let rows = vec![Row::new(Query::History(Vec::new()), 1), row];
            let mut workspace = Workspace::default();
            let error = model.score(&Batch { rows }, &mut workspace).unwrap_err();
            assert_eq!(workspace.n_rows(), 0, "nothing is answered");
            error.to_string()
        };
        let past = ItemIndex(N_ITEMS as u32);
        let expected = format!("row 1: the model has {N_ITEMS} items, there is no `{N_ITEMS}`");
        assert_eq!(refuse(Row::new(Query::Item(past), 1)), expected, "{}", config.name());
        assert_eq!(refuse(Row::new(Query::History(vec![(past, 1.0)]), 1)), expected);
        let row = Row::new(Query::Item(ItemIndex(0)), 1);
        assert_eq!(refuse(Row { exclude: vec![past], ..row.clone() }), expected);
        assert_eq!(refuse(Row { candidates: Some(vec![past]), ..row.clone() }), expected);
        let unsorted = refuse(Row { exclude: vec![ItemIndex(2), ItemIndex(1)], ..row.clone() });
        assert_eq!(unsorted, "row 1: excluded items must ascend");
        assert!(refuse(Row { allow: Some(vec![0].into()), ..row }).contains("allow bitmap"));
        assert!(refuse(Row::new(Query::History(vec![(ItemIndex(0), f32::NAN)]), 1)).contains("history"));

        let user = refuse(Row::new(Query::User(UserIndex(N_USERS as u32)), 1));
        match model.n_users() {
            0 => assert_eq!(user, "row 1: the model has no users of its own and answers from histories"),
            _ => assert_eq!(user, format!("row 1: the model has {N_USERS} users, there is no `{N_USERS}`")),
        }
    }
}

#[test]
fn a_model_opened_from_its_parameters_answers_the_same_bits() {
    for (config, model) in models() {
        let opened = open(&config, model.parameters().unwrap(), N_USERS, N_ITEMS).unwrap();
        let rows: Vec<Row> =
            (0..9).flat_map(|seed| queries(&*model, seed)).map(|query| Row::new(query, 12)).collect();
        assert_eq!(answers(&*opened, &rows), answers(&*model, &rows), "{}", config.name());
    }
}

#[test]
fn half_precision_answers_nearly_the_same() {
    for (mut config, model) in models() {
        match &mut config {
            ModelConfig::Als(config) => config.precision = Precision::F16,
            ModelConfig::Bpr(config) => config.precision = Precision::F16,
            ModelConfig::Lmf(config) => config.precision = Precision::F16,
            ModelConfig::Warp(config) => config.precision = Precision::F16,
            ModelConfig::Mf(config) => config.precision = Precision::F16,
            ModelConfig::NeuMf(config) => config.precision = Precision::F16,
            ModelConfig::Svd(config) => config.precision = Precision::F16,
            ModelConfig::Ease(config) => config.precision = Precision::F16,
            ModelConfig::SasRec(config) => config.precision = Precision::F16,
            ModelConfig::Gru4Rec(config) => config.precision = Precision::F16,
            ModelConfig::TwoTower(config) => config.precision = Precision::F16,
            _ => continue,
        }
        let half = open(&config, model.parameters().unwrap(), N_USERS, N_ITEMS).unwrap();
        let half = open(&config, half.parameters().unwrap(), N_USERS, N_ITEMS).unwrap();
        for query in queries(&*model, 2) {
            let (_, whole) = answer(&*model, Row::new(query.clone(), 5));
            let (_, half) = answer(&*half, Row::new(query, 5));
            for (whole, half) in whole.iter().zip(half) {
                assert!(
                    (whole - half).abs() < 0.02 * (1.0 + whole.abs()),
                    "{}: {whole} {half}",
                    config.name()
                );
            }
        }
    }
}

#[test]
fn opening_for_other_sizes_names_the_side() {
    for (config, model) in models() {
        let refuse =
            |users, items| open(&config, model.parameters().unwrap(), users, items).map(|_| ()).unwrap_err();
        match refuse(N_USERS, N_ITEMS + 1) {
            Error::WrongSize { side: "items", expected, got, .. } => {
                assert_eq!((expected, got), (N_ITEMS + 1, N_ITEMS))
            }
            other => panic!("{}: {other}", config.name()),
        }
        // Users and items swapped.
        assert!(
            matches!(refuse(N_ITEMS, N_USERS), Error::WrongSize { side: "items", .. }),
            "{}",
            config.name()
        );
        if model.n_users() > 0 {
            assert!(matches!(refuse(N_USERS - 1, N_ITEMS), Error::WrongSize { side: "users", .. }));
        }
        assert!(matches!(
            open(&config, Default::default(), N_USERS, N_ITEMS).map(|_| ()).unwrap_err(),
            Error::MissingParameter { .. }
        ));
    }
}

#[test]
fn similar_items_of_factor_models_are_those_of_highest_cosine() {
    for (config, model) in models() {
        let ModelConfig::Als(als) = &config else { continue };
        let factors = model.parameters().unwrap().take_table("item_factors").unwrap().to_f32().unwrap();
        let row = |item: usize| &factors[item * als.factors..][..als.factors];
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let (items, scores) = answer(&*model, Row::new(Query::Item(ItemIndex(5)), N_ITEMS));
        for (item, score) in items.iter().zip(scores) {
            let (a, b) = (row(5), row(item.at()));
            let cosine = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
            assert!((f64::from(score) - cosine).abs() < 1e-5, "{item:?}: {score} is not {cosine}");
        }
    }
}
