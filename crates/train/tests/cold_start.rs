//! Whoever comes after training is placed by their features alone.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod examples;

use std::sync::{Arc, atomic::AtomicBool};

use recmill_core::{
    Answer, AnswerSource, Ask, AskWorkspace, Dataset, Error, IdMap, Recommender, Side, Who,
    data::{Attributes, OnBadRow, ReadOptions},
    directory::{Config, ModelDirectory, Saved, Verify, save},
    features::Described,
    models::{ModelConfig, Retriever, TwoTowerConfig},
};
use recmill_train::Training;

use examples::{checkerboard, dataset};

const USERS: usize = 40;
const ITEMS: usize = 24;

/// Writes a file and reads its rows: those of `ids`, or all.
fn attributes(text: &str, ids: Option<&IdMap>) -> Attributes {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("columns.csv");
    fs_err::write(&path, text).unwrap();
    let (path, options) = (path.display().to_string(), ReadOptions::default());
    match ids {
        Some(ids) => Attributes::read(&path, ids, &options).unwrap().0,
        None => Attributes::read_all(&path, &options).unwrap().0,
    }
}

/// Columns that tell the kinds of a checkerboard: a town and an age for users, genres for items.
struct Columns {
    users: Attributes,
    items: Attributes,
}

impl Columns {
    fn of(data: &Dataset) -> Self {
        let (mut users, mut items) = ("user,town,age\n".to_owned(), "item,genres\n".to_owned());
        for user in 0..data.n_users() {
            let town = if user % 2 == 0 { "Oslo" } else { "Bergen" };
            users += &format!("u{user},{town},{}\n", 20 + user % 2 * 30 + user % 7);
        }
        for item in 0..data.n_items() {
            let genres = if item % 2 == 0 { "drama|long" } else { "comedy|long" };
            items += &format!("i{item},{genres}\n");
        }
        Self { users: attributes(&users, Some(&data.users)), items: attributes(&items, Some(&data.items)) }
    }

    fn described(&self) -> [Described; 2] {
        [("users", &self.users), ("items", &self.items)]
            .map(|(what, side)| Described::fit(side.table(), what, OnBadRow::Fail).unwrap().0.unwrap())
    }
}

fn configs() -> [ModelConfig; 2] {
    let small = TwoTowerConfig {
        factors: 8,
        batch_size: 64,
        n_negatives: 8,
        learning_rate: 0.01,
        iterations: 25,
        id_dropout: 0.3,
        ..TwoTowerConfig::default()
    };
    let hidden = TwoTowerConfig { hidden: vec![16], hard_negatives: 1, ..small.clone() };
    [ModelConfig::TwoTower(small), ModelConfig::TwoTower(hidden)]
}

fn train(config: &ModelConfig, data: &Dataset, described: Option<&[Described; 2]>) -> Box<dyn Retriever> {
    let [users, items] = described.map_or([None, None], |[users, items]| [Some(users), Some(items)]);
    let training = Training { users, items, ..Training::new(config, data) };
    training.run(None, &AtomicBool::new(false), &mut ()).unwrap().model
}

fn ids(ids: &IdMap) -> Arc<IdMap> {
    Arc::new(ids.clone())
}

fn copy(data: &Dataset) -> Dataset {
    let by_user = data.by_user().clone();
    let order = (0..data.n_users()).flat_map(|user| data.order(user).to_vec()).collect();
    Dataset::new(data.users.clone(), data.items.clone(), by_user, None, order).unwrap()
}

fn recommender(model: Box<dyn Retriever>, data: &Dataset) -> Recommender {
    Recommender::new(model, ids(&data.users), ids(&data.items), Arc::new(copy(data)), 0).unwrap()
}

fn ask(recommender: &Recommender, user: &str, k: usize) -> Answer {
    let ask = Ask { allow_seen: true, ..Ask::new(Who::User(user), k) };
    recommender.ask(&[ask], &mut AskWorkspace::default()).unwrap().remove(0)
}

/// The place of item `id` in the list of `user`, who may have had all of it.
fn place(recommender: &Recommender, user: &str, id: &str) -> usize {
    let item = recommender.items().index(id).unwrap();
    let answer = ask(recommender, user, ITEMS + 9);
    answer.items.iter().position(|(found, _)| found.0 == item).unwrap()
}

const NEW_USERS: &str = "user,town,age\nnew-0,Oslo,22\nu3,Oslo,21\nnew-1,Bergen,55\n";
const NEW_ITEMS: &str = "item,genres\nfresh-0,long|drama\nfresh-1,comedy|long\n";

#[test]
fn new_users_and_new_items_are_placed_by_their_columns() {
    let (data, _) = checkerboard(USERS, ITEMS, false);
    let columns = Columns::of(&data);
    for config in configs() {
        let model = train(&config, &data, Some(&columns.described()));
        let mut recommender = recommender(model, &data);
        let new =
            recommender.add(Side::Users, &attributes(NEW_USERS, None), "new", OnBadRow::Fail).unwrap().ids;
        assert_eq!(new.iter().collect::<Vec<_>>(), ["new-0", "new-1"], "u3 is known");
        for (user, kind) in [("new-0", 0), ("new-1", 1)] {
            let answer = ask(&recommender, user, ITEMS / 2);
            assert_eq!(answer.source, AnswerSource::Model);
            let wrong = answer.items.iter().filter(|(item, _)| item.0 % 2 != kind).count();
            assert_eq!(wrong, 0, "{user}: {:?} by {}", answer.items, config.objective());
        }
        let before = ask(&recommender, "u5", ITEMS);
        recommender.add(Side::Items, &attributes(NEW_ITEMS, None), "new", OnBadRow::Fail).unwrap();
        assert_eq!(recommender.items().name(ITEMS as u32), Some("fresh-0"));
        for (user, own, other) in
            [("u0", "fresh-0", "fresh-1"), ("u5", "fresh-1", "fresh-0"), ("new-1", "fresh-1", "fresh-0")]
        {
            // 13 items are of each kind now.
            let (own, other) = (place(&recommender, user, own), place(&recommender, user, other));
            assert!(own < 13 && other >= 13, "{user}: {own} and {other} by {}", config.objective());
        }
        let mut after = ask(&recommender, "u5", ITEMS + 2);
        after.items.retain(|(item, _)| item.at() < ITEMS);
        assert_eq!(after, before, "what was known stays as it was");
    }
}

#[test]
fn a_stored_model_places_them_the_same() {
    let (data, _) = checkerboard(USERS, ITEMS, false);
    let columns = Columns::of(&data);
    for config in configs() {
        let model = train(&config, &data, Some(&columns.described()));
        let folder = tempfile::tempdir().unwrap();
        let about = Config { model: serde_json::to_value(&config).unwrap(), ..Config::default() };
        let saved = Saved {
            config: &about,
            parameters: &model.parameters().unwrap(),
            dataset: &data,
            item_attributes: Some(columns.items.table()),
            user_attributes: Some(columns.users.table()),
            epochs: &[],
            features: None,
            classes: None,
        };
        save(folder.path(), &saved, 1).unwrap();
        let opened = ModelDirectory::open(folder.path(), Verify::Full).unwrap().recommender().unwrap();
        let answers = [recommender(model, &data), opened].map(|mut recommender| {
            recommender.add(Side::Users, &attributes(NEW_USERS, None), "new", OnBadRow::Fail).unwrap();
            recommender.add(Side::Items, &attributes(NEW_ITEMS, None), "new", OnBadRow::Fail).unwrap();
            ["u0", "new-0", "new-1"].map(|user| ask(&recommender, user, ITEMS))
        });
        assert_eq!(answers[0], answers[1]);
    }
}

#[test]
fn an_item_that_nobody_has_had_is_placed_as_a_new_one() {
    let (with_all, _) = checkerboard(USERS, ITEMS, false);
    let entries: Vec<_> = (0..USERS)
        .flat_map(|user| {
            examples::history(&with_all, user).into_iter().map(move |(item, value)| (user, item, value))
        })
        .filter(|(_, item, _)| item.at() != 6)
        .map(|(user, item, value)| (user, item.at(), value))
        .collect();
    let data = dataset(USERS, ITEMS, &entries);
    let columns = Columns::of(&data);
    let model = train(&configs()[0], &data, Some(&columns.described()));
    let mut recommender = recommender(model, &data);
    assert!(place(&recommender, "u0", "i6") < ITEMS / 2);
    assert!(place(&recommender, "u1", "i6") >= ITEMS / 2);

    // A cosine does not say how popular an item is; what nobody has had counts as much as the mean of the others.
    recommender.add(Side::Items, &attributes(NEW_ITEMS, None), "new", OnBadRow::Fail).unwrap();
    let biases =
        recommender.retriever().parameters().unwrap().take_f32("item_bias").unwrap().into_vec().unwrap();
    let count = |item: usize| entries.iter().filter(|&&(_, i, _)| i == item).count() as f64;
    let of = |item: usize| TwoTowerConfig::default().popularity_weight * count(item).ln_1p();
    let mean = (0..ITEMS).filter(|&item| item != 6).map(of).sum::<f64>() / (ITEMS - 1) as f64;
    assert!(mean > 1.0 && biases.len() == ITEMS + 2, "{mean}, {biases:?}");
    for (item, &bias) in biases.iter().enumerate() {
        let expected = if item == 6 || item >= ITEMS { mean } else { of(item) };
        assert!((f64::from(bias) - expected).abs() < 1e-5, "item {item}: {bias} for {expected}");
    }
}

#[test]
fn who_has_a_history_is_answered_from_that() {
    let (data, _) = checkerboard(USERS, ITEMS, false);
    let columns = Columns::of(&data);
    let model = train(&configs()[0], &data, Some(&columns.described()));
    let mut recommender = recommender(model, &data);
    recommender.add(Side::Users, &attributes(NEW_USERS, None), "new", OnBadRow::Fail).unwrap();
    // Of Oslo, and with the taste of Bergen.
    let mut users = IdMap::default();
    users.get_or_insert("new-0").unwrap();
    let by_user = recmill_core::Csr::new(ITEMS, vec![0, 3], vec![1, 3, 5], vec![1.0; 3]).unwrap();
    let given = Dataset::new(users, data.items.clone(), by_user, None, vec![0, 1, 2]).unwrap();
    recommender.set_history(given).unwrap();
    let answer = ask(&recommender, "new-0", 5);
    assert_eq!(answer.source, AnswerSource::History);
    assert!(answer.items.iter().all(|(item, _)| item.0 % 2 == 1), "{:?}", answer.items);
}

#[test]
fn what_was_not_learned_is_refused_by_name() {
    let (data, _) = checkerboard(USERS, ITEMS, false);
    let columns = Columns::of(&data);
    let ids_alone = train(&configs()[0], &data, None);
    let mut of_ids = recommender(ids_alone, &data);
    let refused = of_ids.add(Side::Items, &attributes(NEW_ITEMS, None), "new", OnBadRow::Fail).unwrap_err();
    assert!(matches!(refused, Error::NoFeatures { side: "items" }), "{refused}");
    assert_eq!(ask(&of_ids, "u0", ITEMS).items.len(), ITEMS);

    let mut with_columns = recommender(train(&configs()[0], &data, Some(&columns.described())), &data);
    let refused = with_columns
        .add(Side::Users, &attributes("user,town\nnew-0,Oslo\n", None), "new", OnBadRow::Fail)
        .unwrap_err();
    assert!(matches!(&refused, Error::NoSuchColumn { column, .. } if column == "age"), "{refused}");
    // A town that training did not have is one that nothing is known of.
    with_columns
        .add(Side::Users, &attributes("user,town,age\nnew-2,Rome,\n", None), "new", OnBadRow::Fail)
        .unwrap();
    assert_eq!(ask(&with_columns, "new-2", 3).items.len(), 3);
}
