//! The evaluation protocols against numbers counted by hand.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::sync::Arc;

use recmill_core::{
    AnswerSource, Ask, AskWorkspace, Csr, Dataset, IdMap, Recommender, UserIndex, Who,
    evaluate::{EvaluateOptions, GroupOptions, UnknownUsers},
    models::{MostPopular, MostPopularConfig, Svd, SvdConfig, SvdFactors, ValueRange},
};
use recmill_kernels::{Buffer, Device, Table};

fn dataset(rows: &[(&str, &str, f32)]) -> Dataset {
    let (mut users, mut items) = (IdMap::default(), IdMap::default());
    let mut cells: Vec<(u32, u32, f32)> = rows
        .iter()
        .map(|&(user, item, value)| {
            (users.get_or_insert(user).unwrap(), items.get_or_insert(item).unwrap(), value)
        })
        .collect();
    cells.sort_by_key(|&(user, item, _)| (user, item));
    cells.dedup_by_key(|cell| (cell.0, cell.1));
    let mut indptr = vec![0u64; users.len() + 1];
    cells.iter().for_each(|cell| indptr[cell.0 as usize + 1] += 1);
    (0..users.len()).for_each(|user| indptr[user + 1] += indptr[user]);
    let order = indptr.windows(2).flat_map(|ends| 0..(ends[1] - ends[0]) as u32).collect();
    let (indices, values) = cells.iter().map(|cell| (cell.1, cell.2)).unzip();
    let csr = Csr::new(items.len(), indptr, indices, values).unwrap();
    Dataset::new(users, items, csr, None, order).unwrap()
}

/// Popularity: a 4, b 3, c 2, d 1; u4 has everything but d.
fn training() -> Dataset {
    dataset(&[
        ("u1", "a", 1.0),
        ("u2", "a", 1.0),
        ("u2", "b", 1.0),
        ("u3", "a", 1.0),
        ("u3", "b", 1.0),
        ("u3", "d", 1.0),
        ("u4", "a", 1.0),
        ("u4", "b", 1.0),
        ("u4", "c", 1.0),
        ("u5", "c", 1.0),
    ])
}

fn popular(data: Dataset) -> Recommender {
    let model = MostPopular::fit(MostPopularConfig::default(), data.by_user()).unwrap();
    let Dataset { users, items, .. } = &data;
    let (users, items) = (Arc::new(users.clone()), Arc::new(items.clone()));
    let history = Arc::new(data.by_user().clone());
    Recommender::new(Box::new(model), users, items, history, 0).unwrap()
}

fn at(k: &[usize]) -> EvaluateOptions {
    EvaluateOptions { k: k.to_vec(), ..EvaluateOptions::default() }
}

fn close(got: Option<f64>, expected: f64) {
    let got = got.unwrap();
    assert!((got - expected).abs() < 1e-12, "{got} is not {expected}");
}

#[test]
fn full_ranks_the_catalogue_minus_the_history() {
    // u1 has a, so b c d remain in this order: hits at 1 and 3. u2 has a and b: c is first. u3 has a b d: c is all.
    let test =
        dataset(&[("u1", "b", 1.0), ("u1", "d", 1.0), ("u2", "c", 1.0), ("u3", "c", 1.0), ("u3", "a", 1.0)]);
    let found = popular(training()).evaluate(&test, None, &at(&[1, 3])).unwrap();
    assert_eq!((found.users, found.unknown_users, found.unknown_item_rows), (3, 0, 0));
    close(found.metrics.get("recall@1"), (0.5 + 1.0 + 0.5) / 3.0);
    close(found.metrics.get("recall@3"), (1.0 + 1.0 + 0.5) / 3.0);
    close(found.metrics.get("precision@3"), (2.0 / 3.0 + 1.0 / 3.0 + 1.0 / 3.0) / 3.0);
    close(found.metrics.get("hr@1"), 1.0);
    let best_of_two = 1.0 + 1.0 / 3f64.log2();
    close(found.metrics.get("ndcg@3"), (1.5 / best_of_two + 1.0 + 1.0 / best_of_two) / 3.0);
    close(found.metrics.get("map@3"), ((1.0 + 2.0 / 3.0) / 2.0 + 1.0 + 0.5) / 3.0);
    close(found.metrics.get("mrr@3"), 1.0);
    close(found.metrics.get("coverage@1"), 0.5);
    close(found.metrics.get("coverage@3"), 0.75);
    let names: Vec<_> = found.metrics.iter().map(|(name, _)| name).collect();
    assert_eq!(names[..4], ["recall@1", "recall@3", "precision@1", "precision@3"]);
    assert_eq!(names.len(), 14);
}

#[test]
fn groups_of_users_and_items_add_up_to_the_whole() {
    // u1 has had one item, u2 two, u3 three; a is the head, b the middle, c and d the tail.
    let test =
        dataset(&[("u1", "b", 1.0), ("u1", "d", 1.0), ("u2", "c", 1.0), ("u3", "c", 1.0), ("u3", "a", 1.0)]);
    let model = popular(training());
    let groups = GroupOptions { activity_groups: 2, ..GroupOptions::default() };
    let found = model.evaluate_groups(&test, None, &at(&[1, 3]), &groups).unwrap();
    assert_eq!(found.all, model.evaluate(&test, None, &at(&[1, 3])).unwrap());
    assert_eq!(found, model.evaluate_popular_groups(&test, None, &at(&[1, 3]), &groups).unwrap());

    let activity: Vec<_> =
        found.by_activity.iter().map(|group| (group.least, group.most, group.users)).collect();
    assert_eq!(activity, [(1, 1, 1), (2, 3, 2)]);
    close(found.by_activity[0].metrics.get("recall@1"), 0.5);
    close(found.by_activity[1].metrics.get("recall@1"), 0.75);

    let [head, middle, tail] = &found.by_popularity[..] else { panic!("three bands") };
    let sizes =
        |group: &recmill_core::evaluate::PopularityGroup| (group.items, group.interactions, group.test_rows);
    assert_eq!([sizes(head), sizes(middle), sizes(tail)], [(1, 4, 1), (1, 3, 1), (2, 3, 3)]);
    for (group, name, expected) in [
        (head, "recall@3", 0.0), // u3 has had it, so it is never recommended.
        (middle, "recall@1", 1.0),
        (tail, "recall@1", 2.0 / 3.0),
        (tail, "recall@3", 1.0),
        (middle, "places@1", 1.0 / 3.0),
        (tail, "places@3", 5.0 / 6.0),
        (head, "coverage@3", 0.0),
        (tail, "coverage@1", 0.5),
    ] {
        close(group.metrics.get(name), expected);
    }
}

#[test]
fn candidates_that_the_model_does_not_know_are_of_no_band() {
    let model = popular(training());
    let test = dataset(&[("u1", "new", 1.0)]);
    let candidates = dataset(&[("u1", "a", 1.0), ("u1", "new", 1.0)]);
    let found = model.evaluate_groups(&test, Some(&candidates), &at(&[2]), &GroupOptions::default()).unwrap();
    close(found.all.metrics.get("recall@2"), 1.0);
    assert!(found.by_popularity.iter().all(|group| group.test_rows == 0));
    assert!(found.by_popularity.iter().all(|group| group.metrics.get("recall@2").is_none()));
    close(found.by_popularity[0].metrics.get("places@2"), 1.0);
}

#[test]
fn the_first_and_the_last_score_of_lists() {
    let model = popular(training());
    let users = model.sample_users(10, 0).unwrap();
    assert_eq!(users, (0..5).map(UserIndex).collect::<Vec<_>>());
    let few = model.sample_users(2, 7).unwrap();
    assert!(few.len() == 2 && few == model.sample_users(2, 7).unwrap());
    // u1 is given b and c, u4 d alone, u5 a and b.
    let scores = model.top_scores(&[UserIndex(0), UserIndex(3), UserIndex(4)], 2).unwrap();
    assert_eq!((scores.first, scores.last), (vec![3.0, 1.0, 4.0], vec![2.0, 1.0, 3.0]));
}

#[test]
fn unknown_items_are_misses_and_unknown_users_are_left_out_or_zero() {
    let test = dataset(&[("u1", "b", 1.0), ("u1", "new", 1.0), ("stranger", "a", 1.0), ("u2", "c", 0.0)]);
    let model = popular(training());
    let found = model.evaluate(&test, None, &at(&[2])).unwrap();
    assert_eq!(
        (found.users, found.unknown_users, found.unknown_item_rows),
        (1, 1, 1),
        "a value of 0 is not relevant"
    );
    close(found.metrics.get("recall@2"), 0.5);
    let options = EvaluateOptions { unknown_users: UnknownUsers::Zero, ..at(&[2]) };
    let found = model.evaluate(&test, None, &options).unwrap();
    assert_eq!((found.users, found.unknown_users), (2, 1));
    close(found.metrics.get("recall@2"), 0.25);

    let strangers = dataset(&[("stranger", "a", 1.0)]);
    let error = model.evaluate(&strangers, None, &at(&[2])).unwrap_err();
    assert_eq!(error.to_string(), "no test user can be evaluated, `1` are unknown");
}

#[test]
fn candidates_are_a_set_with_the_history_and_unknown_items_last() {
    let model = popular(training());
    let test = dataset(&[("u1", "a", 1.0), ("u2", "new", 1.0), ("u3", "c", 1.0), ("u4", "a", 1.0)]);
    // u1's history a is ranked and first; u3's c stands behind a and b, listed twice; u4 has no candidates.
    let candidates = dataset(&[
        ("u1", "d", 1.0),
        ("u1", "a", 1.0),
        ("u2", "new", 1.0),
        ("u2", "d", 1.0),
        ("u3", "c", 1.0),
        ("u3", "a", 1.0),
        ("u3", "b", 1.0),
        ("u3", "newer", 1.0),
    ]);
    let found = model.evaluate(&test, Some(&candidates), &at(&[1, 2, 3])).unwrap();
    assert_eq!((found.users, found.users_without_candidates, found.unknown_item_rows), (3, 1, 1));
    close(found.metrics.get("hr@1"), 1.0 / 3.0);
    close(found.metrics.get("hr@2"), 2.0 / 3.0);
    close(found.metrics.get("hr@3"), 1.0);
}

#[test]
fn unknown_candidates_are_ordered_at_random_and_not_for_the_model() {
    let model = popular(training());
    let ids: Vec<String> = (0..400).map(|n| format!("new{n}")).collect();
    let test: Vec<_> =
        (0..5).map(|user| (["u1", "u2", "u3", "u4", "u5"][user], &ids[user][..], 1.0)).collect();
    let candidates: Vec<_> = ["u1", "u2", "u3", "u4", "u5"]
        .iter()
        .flat_map(|&user| ids.iter().map(move |id| (user, &id[..], 1.0)))
        .collect();
    let (test, candidates) = (dataset(&test), dataset(&candidates));
    let mut found = 0.0;
    for seed in 0..200 {
        let options = EvaluateOptions { seed, ..at(&[40]) };
        found += model.evaluate(&test, Some(&candidates), &options).unwrap().metrics.get("hr@40").unwrap();
    }
    // 40 of 400 places: a tenth, with a deviation of 0.0095 over 1,000 draws.
    assert!((found / 200.0 - 0.1).abs() < 0.04, "{}", found / 200.0);
}

#[test]
fn equal_scores_favour_nobody() {
    // Every item is as popular as any other, and the relevant one is the first of the file.
    let ids: Vec<String> = (0..100).map(|n| format!("i{n}")).collect();
    let rows: Vec<_> = ids.iter().map(|id| ("all", &id[..], 1.0)).chain([("other", "i0", 0.0)]).collect();
    let model = popular(dataset(&rows));
    let test = dataset(&[("other", "i1", 1.0)]);
    let mut found = 0.0;
    for seed in 0..500 {
        let options = EvaluateOptions { seed, ..at(&[10]) };
        found += model.evaluate(&test, None, &options).unwrap().metrics.get("hr@10").unwrap();
    }
    assert!((found / 500.0 - 0.1).abs() < 0.05, "{}", found / 500.0);
}

#[test]
fn the_result_has_the_same_bits_in_any_blocks_and_on_any_threads() {
    let rows: Vec<(String, String)> =
        (0..3000).map(|n: usize| (format!("u{}", n % 97), format!("i{}", n * n % 211))).collect();
    let rows: Vec<_> = rows.iter().map(|(user, item)| (&user[..], &item[..], 1.0)).collect();
    let (train, test): (Vec<_>, Vec<_>) = rows.iter().enumerate().partition(|(n, _)| n % 5 != 0);
    let only = |rows: Vec<(usize, &(_, _, f32))>| rows.into_iter().map(|(_, row)| *row).collect::<Vec<_>>();
    let (model, test) = (popular(dataset(&only(train))), dataset(&only(test)));
    let run = |threads, block_users| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let options = EvaluateOptions { block_users, ..at(&[5, 50]) };
        pool.install(|| model.evaluate(&test, None, &options).unwrap())
    };
    let once = run(1, 1000);
    assert_eq!(run(2, 7), once);
    assert_eq!(run(5, 1), once);
}

#[test]
fn sampled_negatives_are_outside_the_whole_history_and_drawn_by_seed_and_user() {
    let ids: Vec<String> = (0..500).map(|n| format!("i{n}")).collect();
    let users: Vec<String> = (0..30).map(|n| format!("u{n}")).collect();
    let rows: Vec<_> = (0..30)
        .flat_map(|user| (0..40).map(move |n| (user, (user * 31 + n * 7) % 500)))
        .chain((0..500).map(|item| (0, item)))
        .map(|(user, item): (usize, usize)| (&users[user][..], &ids[item][..], 1.0))
        .collect();
    let training = dataset(&rows[..1200]);
    let model = popular(dataset(&rows[..1200]));
    let test_rows: Vec<_> =
        (1..30).map(|user| (&users[user][..], &ids[(user * 31 + 3) % 500][..], 1.0)).collect();
    let test = dataset(&test_rows);
    for n in [20, 400, 1000] {
        let drawn = model.sample_candidates(&test, n, None, 5).unwrap();
        assert_eq!(drawn.n_users(), 29);
        for (user, id) in drawn.users.iter().enumerate() {
            let row = drawn.by_user().row(user).0;
            let listed: Vec<&str> = row.iter().map(|&item| drawn.items.name(item).unwrap()).collect();
            let had = training.by_user().row(training.users.get(id).unwrap() as usize).0;
            let had: Vec<&str> = had.iter().map(|&item| training.items.name(item).unwrap()).collect();
            let tested = test.by_user().row(test.users.get(id).unwrap() as usize).0;
            let tested = test.items.name(tested[0]).unwrap();
            assert!(listed.contains(&tested), "the test item is ranked");
            assert!(listed.iter().all(|item| *item == tested || !had.contains(item)), "{id}");
            assert_eq!(listed.len(), 1 + n.min(training.n_items() - had.len() - 1), "{id}");
        }
        let again = model.sample_candidates(&test, n, None, 5).unwrap();
        assert_eq!(again.by_user(), drawn.by_user());
        let some = model.sample_candidates(&test, n, Some(4), 5).unwrap();
        assert_eq!(some.n_users(), 4);
        for (user, id) in some.users.iter().enumerate() {
            let of = |data: &Dataset, user: usize| -> Vec<String> {
                let mut items: Vec<_> = data
                    .by_user()
                    .row(user)
                    .0
                    .iter()
                    .map(|&item| data.items.name(item).unwrap().to_owned())
                    .collect();
                items.sort();
                items
            };
            assert_eq!(
                of(&some, user),
                of(&drawn, drawn.users.get(id).unwrap() as usize),
                "a user's draw is their own"
            );
        }
    }
    let other = model.sample_candidates(&test, 20, None, 6).unwrap();
    assert_ne!(other.by_user(), model.sample_candidates(&test, 20, None, 5).unwrap().by_user());
    let found = model.evaluate(&test, Some(&other), &at(&[10])).unwrap();
    assert_eq!(found.users, 29);
}

#[test]
fn given_histories_replace_what_is_removed_and_make_users_known() {
    let mut model = popular(training());
    let test = dataset(&[("u1", "a", 1.0), ("stranger", "b", 1.0)]);
    let before = model.evaluate(&test, None, &at(&[1])).unwrap();
    assert_eq!((before.users, before.unknown_users), (1, 1));
    close(before.metrics.get("hr@1"), 0.0);
    // u1 is said to have had b instead of a; the stranger had a, and something the model does not know.
    let history = dataset(&[("stranger", "a", 1.0), ("stranger", "new", 1.0), ("u1", "b", 1.0)]);
    assert_eq!(model.set_history(history).unwrap(), 1);
    let after = model.evaluate(&test, None, &at(&[1])).unwrap();
    assert_eq!((after.users, after.unknown_users), (2, 0));
    close(after.metrics.get("hr@1"), 1.0);
}

fn ratings() -> Recommender {
    let data = dataset(&[("u", "a", 4.0), ("v", "b", 2.0)]);
    let table = |values: &[f32]| Table::from_f32(values, 1, Device::Cpu, "factors").unwrap();
    let buffer = |values: &[f32]| Buffer::from_vec(values.to_vec(), "biases").unwrap();
    let factors = SvdFactors {
        user_factors: table(&[1.0, -1.0]),
        user_bias: buffer(&[0.5, -0.5]),
        item_factors: table(&[0.25, 1.0]),
        item_bias: buffer(&[0.25, 0.0]),
        range: ValueRange { mean: 3.0, min: 2.0, max: 4.0 },
    };
    let model = Svd::new(SvdConfig { factors: 1, ..SvdConfig::default() }, factors).unwrap();
    let (users, items) = (Arc::new(data.users.clone()), Arc::new(data.items.clone()));
    Recommender::new(Box::new(model), users, items, Arc::new(data.by_user().clone()), 0).unwrap()
}

#[test]
fn ratings_are_measured_wherever_the_model_predicts() {
    let model = ratings();
    // u, a: 3 + 0.5 + 0.25 + 0.25 = 4.   u, b: 4.5, clipped to 4.   v, new: 2.5.   stranger, a: 3.25.
    let pairs = [("u", "a"), ("u", "b"), ("v", "new"), ("stranger", "a"), ("stranger", "new")];
    let mut predicted = Vec::new();
    assert!(model.predict(&pairs, &mut predicted).unwrap());
    assert_eq!(predicted, [4.0, 4.0, 2.5, 3.25, 3.0]);
    let test = dataset(&[("u", "a", 4.0), ("u", "b", 3.0), ("v", "new", 2.5), ("stranger", "a", 2.25)]);
    let found = model.evaluate_ratings(&test).unwrap().unwrap();
    assert_eq!(
        (found.users, found.unknown_users, found.unknown_item_rows, found.predicted_rows),
        (3, 1, 1, 4)
    );
    close(found.metrics.get("rmse"), 0.5f64.sqrt());
    close(found.metrics.get("mae"), 0.5);
    assert!(popular(training()).evaluate_ratings(&test).unwrap().is_none(), "popularity is no rating");
}

#[test]
fn recommendations_of_a_rating_model_are_scored_by_the_rating() {
    let model = ratings();
    let ask = Ask { allow_seen: true, ..Ask::new(Who::User("u"), 2) };
    let answer = model.ask(&[ask], &mut AskWorkspace::default()).unwrap().remove(0);
    let scored: Vec<_> =
        answer.items.iter().map(|&(item, score)| (model.items().name(item.0).unwrap(), score)).collect();
    assert_eq!(scored, [("b", 4.5), ("a", 4.0)]);
}

#[test]
fn an_unknown_user_gets_what_is_popular_and_the_answer_says_so() {
    let model = popular(training());
    let asks = [
        Ask::new(Who::User("u1"), 2),
        Ask { exclude: vec!["a", "unheard"], ..Ask::new(Who::User("stranger"), 2) },
        Ask {
            candidates: Some(vec!["d", "unheard", "c", "d"]),
            ..Ask::new(Who::History(vec![("a", 1.0), ("lost", 1.0)]), 5)
        },
        Ask::new(Who::History(vec![("lost", 1.0)]), 1),
        Ask { allow: Some(vec![0b1000].into()), ..Ask::new(Who::User("u2"), 5) },
    ];
    let answers = model.ask(&asks, &mut AskWorkspace::default()).unwrap();
    let names = |at: usize| -> Vec<&str> {
        answers[at].items.iter().map(|&(item, _)| model.items().name(item.0).unwrap()).collect()
    };
    assert_eq!((names(0), answers[0].source), (vec!["b", "c"], AnswerSource::History));
    assert_eq!((names(1), answers[1].source), (vec!["b", "c"], AnswerSource::MostPopular));
    assert_eq!((names(2), answers[2].source), (vec!["c", "d"], AnswerSource::History));
    assert_eq!(answers[2].unknown_items, ["lost", "unheard"]);
    assert_eq!((names(3), answers[3].source), (vec!["a"], AnswerSource::MostPopular));
    let allowed = model.items().name(3).unwrap();
    assert_eq!(names(4), [allowed]);
    let error = model.ask(&[Ask::new(Who::Item("unheard"), 1)], &mut AskWorkspace::default()).unwrap_err();
    assert_eq!(error.to_string(), "the model does not know the item `unheard`");
}

#[test]
fn users_and_items_swapped_are_refused_with_the_side() {
    let data = training();
    let model = MostPopular::fit(MostPopularConfig::default(), data.by_user()).unwrap();
    let (users, items) = (Arc::new(data.users.clone()), Arc::new(data.items.clone()));
    let history = Arc::new(data.by_user().clone());
    let error = Recommender::new(Box::new(model), items, users, history, 0).unwrap_err();
    assert_eq!(error.to_string(), "model: expected 5 items, got `4`");
}
