//! Numbers that others computed on public data, by the same protocols. Needs the folder named by `RECMILL_DATA`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a test says that it was skipped")]

use std::{path::PathBuf, sync::Arc};

use recmill_core::{
    Dataset, Recommender,
    data::{ReadOptions, read_dataset},
    evaluate::EvaluateOptions,
    models::{MostPopular, MostPopularConfig},
};

fn folder(name: &str) -> Option<PathBuf> {
    let Some(data) = std::env::var_os("RECMILL_DATA") else {
        println!("skipped: RECMILL_DATA does not name the folder of public data");
        return None;
    };
    Some(PathBuf::from(data).join(name))
}

fn read(path: PathBuf) -> Dataset {
    read_dataset(&[path.to_str().unwrap().to_owned()], &ReadOptions::default(), None).unwrap().0
}

#[test]
fn most_popular_on_movielens_with_given_candidates() {
    let Some(folder) = folder("ml1m-ncf") else { return };
    let data = read(folder.join("train.csv"));
    let model = MostPopular::fit(MostPopularConfig::default(), data.by_user()).unwrap();
    let history = Arc::new(data.by_user().clone());
    let (users, items) = (Arc::new(data.users.clone()), Arc::new(data.items.clone()));
    let model = Recommender::new(Box::new(model), users, items, history, 0).unwrap();
    let (test, candidates) = (read(folder.join("test.csv")), read(folder.join("candidates.csv")));
    let options = EvaluateOptions { k: vec![10], ..EvaluateOptions::default() };
    let found = model.evaluate(&test, Some(&candidates), &options).unwrap();
    assert_eq!((found.users, found.unknown_users), (6040, 0));
    // .4538 / .2545 by an independent computation, .4533 / .2542 as published: equal counts are ordered at random.
    let metric = |name| found.metrics.get(name).unwrap();
    assert!((metric("hr@10") - 0.4538).abs() < 0.0015, "{:?}", found.metrics);
    assert!((metric("ndcg@10") - 0.2545).abs() < 0.0015, "{:?}", found.metrics);
}
