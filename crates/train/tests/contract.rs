//! What every model promises, whatever it is: one test over all of them.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod examples;

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use recmill_core::{
    Batch, Dataset, ItemIndex, Query, Row, UserIndex, Workspace,
    models::{ModelConfig, Retriever, open},
};
use recmill_train::{EpochRecord, Training, Validation};

use examples::{all_models, bytes, checkerboard, history, reads_order, taste_groups};

fn train(config: &ModelConfig, data: &Dataset) -> Box<dyn Retriever> {
    Training::new(config, data).run(None, &AtomicBool::new(false), &mut ()).unwrap().model
}

/// A user as the model is asked about them: by index where it has users, by history where it has none.
fn question(model: &dyn Retriever, data: &Dataset, user: usize) -> Query {
    if model.n_users() > 0 {
        Query::User(UserIndex(user as u32))
    } else {
        Query::History(history(data, user))
    }
}

/// Asks for what the user has not had yet.
fn unseen(query: Query, data: &Dataset, user: usize, k: usize) -> Row {
    let exclude = data.by_user().row(user).0.iter().map(|&item| ItemIndex(item)).collect();
    Row { exclude, ..Row::new(query, k) }
}

fn answers(model: &dyn Retriever, rows: Vec<Row>) -> Vec<(Vec<ItemIndex>, Vec<f32>)> {
    let mut workspace = Workspace::default();
    let n = rows.len();
    model.score(&Batch { rows }, &mut workspace).unwrap();
    (0..n).map(|row| workspace.answer(row)).map(|(items, scores)| (items.to_vec(), scores.to_vec())).collect()
}

#[test]
fn the_withheld_item_of_a_checkerboard_comes_first() {
    // A checkerboard has no order.
    let orderless = |config: &&ModelConfig| config.name() != "most-popular" && !reads_order(config);
    for config in all_models().iter().filter(orderless) {
        let (data, withheld) = checkerboard(40, 24, matches!(config, ModelConfig::Svd(_)));
        let model = train(config, &data);
        let mut found = 0;
        for (user, &item) in withheld.iter().enumerate() {
            let known = unseen(question(&*model, &data, user), &data, user, 1);
            let folded_in = unseen(Query::History(history(&data, user)), &data, user, 1);
            for (items, _) in answers(&*model, vec![known, folded_in]) {
                found += usize::from(items[0] == item);
            }
        }
        // warp pushes down whatever scores as high as what the user had, the withheld item included.
        let least = if config.name() == "warp" { 2 * withheld.len() * 9 / 10 } else { 2 * withheld.len() };
        assert!(found >= least, "{}: {found}", config.name());
    }
}

#[test]
fn a_model_of_sequences_says_what_comes_next() {
    // Half of the users go around a circle of items, the others the other way.
    const CIRCLE: usize = 12;
    let walk = |user: usize, n: usize| -> Vec<usize> {
        let step = if user.is_multiple_of(2) { 1 } else { CIRCLE - 1 };
        (0..n).map(|at| (user / 2 + at * step) % CIRCLE).collect()
    };
    let walks: Vec<Vec<usize>> = (0..8 * CIRCLE).map(|user| walk(user, 7)).collect();
    let data = examples::walks(CIRCLE, &walks);
    for config in all_models().iter().filter(|config| reads_order(config)) {
        let model = train(config, &data);
        assert!(model.reads_order());
        let history = |items: &[usize]| items.iter().map(|&item| (ItemIndex(item as u32), 1.0)).collect();
        let mut found = 0;
        for user in 0..2 * CIRCLE {
            let future = walk(user, 6);
            let mut exclude: Vec<ItemIndex> =
                future[..5].iter().map(|&item| ItemIndex(item as u32)).collect();
            exclude.sort();
            let row = Row { exclude, ..Row::new(Query::History(history(&future[..5])), 1) };
            found += usize::from(answers(&*model, vec![row])[0].0[0].at() == future[5]);
        }
        assert!(found >= 2 * CIRCLE * 9 / 10, "{}: {found}", config.objective());
    }
}

#[test]
fn a_batch_answers_as_its_rows_alone() {
    let data = taste_groups(200, 60);
    for config in all_models() {
        let model = train(&config, &data);
        let rows: Vec<Row> = (0..40)
            .map(|user| match user % 3 {
                0 => unseen(question(&*model, &data, user), &data, user, 7),
                1 => Row::new(Query::History(history(&data, user)), 100),
                _ => Row::new(Query::Item(ItemIndex(user as u32)), 5),
            })
            .collect();
        let together = answers(&*model, rows.clone());
        for (row, expected) in rows.into_iter().zip(together) {
            assert_eq!(answers(&*model, vec![row]), [expected], "{}", config.name());
        }
    }
}

#[test]
fn a_model_opened_from_its_parameters_answers_the_same() {
    let data = taste_groups(200, 60);
    for config in all_models() {
        let model = train(&config, &data);
        let opened = open(&config, model.parameters().unwrap(), data.n_users(), data.n_items()).unwrap();
        let rows: Vec<Row> = (0..20)
            .flat_map(|user| {
                let query = question(&*model, &data, user);
                [Row::new(query, 10), Row::new(Query::History(history(&data, user)), 10)]
            })
            .collect();
        assert_eq!(answers(&*model, rows.clone()), answers(&*opened, rows), "{}", config.name());
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_1_2_and_5_threads() {
    let data = taste_groups(300, 90);
    for config in all_models() {
        let run = |threads, seed| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let training = Training { seed, ..Training::new(&config, &data) };
                let trained = training.run(None, &AtomicBool::new(false), &mut ()).unwrap();
                let losses: Vec<_> = trained.epochs.iter().map(|epoch| epoch.loss).collect();
                (bytes(&trained.model.parameters().unwrap()), losses)
            })
        };
        let one = run(1, 3);
        assert!(one == run(2, 3), "{}: two threads differ from one", config.name());
        assert!(one == run(5, 3), "{}: five threads differ from one", config.name());
        if ["als", "bpr", "lmf", "warp", "mf", "neumf", "svd", "sasrec", "gru4rec", "two-tower"]
            .contains(&config.name())
        {
            assert!(one.0 != run(1, 4).0, "{}: the seed changes nothing", config.name());
        }
    }
}

#[test]
fn what_a_user_has_had_is_a_negative_of_theirs_only_where_that_is_asked_for() {
    // All have had all, each in another order: there are no negatives but their own.
    let orders: Vec<Vec<usize>> = (0..16).map(|user| (0..8).map(|at| (user + at) % 8).collect()).collect();
    let data = examples::walks(8, &orders);
    let mut found = 0;
    for config in all_models() {
        let first_loss = |verify: bool| {
            let mut json = serde_json::to_value(&config).unwrap();
            *json.get_mut("verify_negatives")? = verify.into();
            *json.get_mut("iterations")? = 1.into();
            let config = serde_json::from_value(json).unwrap();
            let trained = Training::new(&config, &data).run(None, &AtomicBool::new(false), &mut ()).unwrap();
            trained.epochs[0].loss
        };
        let (Some(verified), Some(as_they_come)) = (first_loss(true), first_loss(false)) else { continue };
        assert_ne!(verified, as_they_come, "{}", config.objective());
        found += 1;
    }
    assert!(found >= 8, "{found}");
}

/// Finds the second epoch the best.
struct TheSecond(u32);

impl Validation for TheSecond {
    fn metric(&self) -> &str {
        "second"
    }

    fn measure(&mut self, _: &dyn Retriever) -> recmill_train::Result<BTreeMap<String, f64>> {
        self.0 += 1;
        Ok(BTreeMap::from([("second".to_owned(), f64::from(u8::from(self.0 == 2)))]))
    }
}

#[test]
fn what_learns_from_what_users_took_refuses_data_where_nobody_took_anything() {
    let data = examples::dataset(2, 2, &[(0, 0, 0.0), (1, 1, -1.0)]);
    let learns_so =
        |config: &ModelConfig| ["bpr", "lmf", "warp", "mf", "neumf", "two-tower"].contains(&config.name());
    for config in all_models().iter().filter(|config| learns_so(config)) {
        let trained = Training::new(config, &data).run(None, &AtomicBool::new(false), &mut ());
        let refused = trained.err().map(|error| error.to_string());
        assert_eq!(
            refused.as_deref(),
            Some("the training data have no interactions of positive value"),
            "{}",
            config.name()
        );
    }
}

#[test]
fn the_epoch_that_is_kept_is_the_model_that_training_to_it_makes() {
    let data = taste_groups(100, 40);
    for config in all_models() {
        let of = |iterations: u32| {
            let mut json = serde_json::to_value(&config).unwrap();
            let epochs = json.get_mut("iterations")?;
            *epochs = iterations.into();
            Some(serde_json::from_value::<ModelConfig>(json).unwrap())
        };
        let (Some(two), Some(three)) = (of(2), of(3)) else { continue };
        let training = Training::new(&three, &data);
        let kept = training.run(Some(&mut TheSecond(0)), &AtomicBool::new(false), &mut ()).unwrap();
        assert_eq!((kept.kept_epoch, kept.epochs.len()), (2, 3), "{}", config.name());
        let bytes = |model: &dyn Retriever| bytes(&model.parameters().unwrap());
        assert!(bytes(&*kept.model) == bytes(&*train(&two, &data)), "{}", config.name());
    }
}

#[test]
fn the_loss_falls() {
    let data = taste_groups(300, 90);
    for config in all_models() {
        let mut records: Vec<EpochRecord> = Vec::new();
        Training::new(&config, &data).run(None, &AtomicBool::new(false), &mut records).unwrap();
        let losses: Vec<f64> = records.iter().filter_map(|record| record.loss).collect();
        match config {
            ModelConfig::Als(_) => {
                assert!(losses.windows(2).all(|pair| pair[1] <= pair[0] * (1.0 + 1e-6)), "als: {losses:?}");
                assert!(losses[losses.len() - 1] < 0.9 * losses[0], "als: {losses:?}");
            }
            ModelConfig::Bpr(_)
            | ModelConfig::Lmf(_)
            | ModelConfig::Warp(_)
            | ModelConfig::Mf(_)
            | ModelConfig::NeuMf(_)
            | ModelConfig::TwoTower(_)
            | ModelConfig::Svd(_) => {
                assert!(losses[losses.len() - 1] < 0.9 * losses[0], "{}: {losses:?}", config.name());
            }
            // There is no order in these data, so all it can learn is what is popular and what goes together.
            ModelConfig::SasRec(_) | ModelConfig::Gru4Rec(_) => {
                assert!(losses[losses.len() - 1] < 0.96 * losses[0], "{}: {losses:?}", config.name());
            }
            _ => assert!(losses.is_empty(), "{}: {losses:?}", config.name()),
        }
    }
}
