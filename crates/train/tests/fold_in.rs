//! A user that came after training is answered from what they have had, as each model's file states it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod examples;

use std::sync::atomic::AtomicBool;

use recmill_core::{
    Batch, ItemIndex, Query, Row, UserIndex, Workspace,
    models::{AlsConfig, AlsSolver, ModelConfig, Retriever},
};
use recmill_train::Training;

use examples::{all_models, dataset, history, taste_groups};

fn answer(model: &dyn Retriever, query: Query, k: usize) -> (Vec<ItemIndex>, Vec<f32>) {
    let mut workspace = Workspace::default();
    model.score(&Batch { rows: vec![Row::new(query, k)] }, &mut workspace).unwrap();
    let (items, scores) = workspace.answer(0);
    (items.to_vec(), scores.to_vec())
}

#[test]
fn als_stores_what_folding_in_the_same_history_gives() {
    let liked = taste_groups(200, 60);
    let mut disliked = Vec::new();
    for user in 0..200 {
        for (item, value) in history(&liked, user) {
            disliked.push((user, item.at(), if value < 3.0 { -value } else { value }));
        }
    }
    let disliked = dataset(200, 60, &disliked);
    for solver in [AlsSolver::Cg, AlsSolver::Cholesky, AlsSolver::Block] {
        for weight in [None, Some(0.1)] {
            let config = AlsConfig {
                factors: 12,
                iterations: 4,
                solver,
                unobserved_weight: weight,
                ..AlsConfig::default()
            };
            let config = ModelConfig::Als(config);
            for data in [&liked, &disliked] {
                let model =
                    Training::new(&config, data).run(None, &AtomicBool::new(false), &mut ()).unwrap().model;
                for user in 0..200 {
                    let (items, stored) = answer(&*model, Query::User(UserIndex(user)), 60);
                    let (again, folded_in) =
                        answer(&*model, Query::History(history(data, user as usize)), 60);
                    for (item, stored) in items.iter().zip(stored) {
                        let folded_in = folded_in[again.iter().position(|other| other == item).unwrap()];
                        assert!(
                            (stored - folded_in).abs() < 1e-4,
                            "{solver:?} {weight:?} user {user}: {stored} {folded_in}"
                        );
                    }
                }
            }
        }
    }
}

/// Gradient descent ends near its optimum and not at it, so the lists agree in part: at least 6 of 10 on average.
#[test]
fn models_learnt_by_gradient_descent_give_lists_that_overlap() {
    let data = taste_groups(400, 90);
    for config in all_models()
        .iter()
        .filter(|config| ["bpr", "lmf", "warp", "mf", "neumf", "svd"].contains(&config.name()))
    {
        let model = Training::new(config, &data).run(None, &AtomicBool::new(false), &mut ()).unwrap().model;
        let mut common = 0;
        for user in 0..400 {
            let (stored, _) = answer(&*model, Query::User(UserIndex(user)), 10);
            let (folded_in, _) = answer(&*model, Query::History(history(&data, user as usize)), 10);
            common += stored.iter().filter(|item| folded_in.contains(item)).count();
        }
        let overlap = common as f64 / 4000.0;
        assert!(overlap > 0.6, "{}: {overlap}", config.name());
    }
}

#[test]
fn models_without_users_answer_everyone_from_their_history() {
    let data = taste_groups(100, 40);
    for name in ["item-knn", "ease", "most-popular"] {
        let config = ModelConfig::default_of(name).unwrap();
        let model = Training::new(&config, &data).run(None, &AtomicBool::new(false), &mut ()).unwrap().model;
        assert_eq!(model.n_users(), 0, "{name}");
    }
}
