//! Numbers that others computed on public data, by the same protocols. Needs the folder named by `RECMILL_DATA`.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "a test says that it was skipped")]

use std::{path::PathBuf, sync::Arc};

use recmill_core::{
    Dataset, Recommender,
    data::{ReadOptions, read_dataset},
    evaluate::EvaluateOptions,
    features::{Examples, Features, SchemaOptions, infer_schema},
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

#[test]
fn columns_of_public_files_are_what_their_authors_meant() {
    let Some(data) = folder("") else { return };
    let read = ReadOptions::default();
    let kinds = |file: &str, label: &[&str]| {
        let paths = [data.join(file).to_str().unwrap().to_owned()];
        let label = label.iter().map(|name| (*name).to_owned()).collect();
        let options = SchemaOptions { label, ..SchemaOptions::default() };
        let (schema, report) = infer_schema(&paths, &read, &options).unwrap();
        let kinds: Vec<_> =
            schema.columns.iter().map(|column| (column.name.clone(), column.kind.name())).collect();
        (kinds, schema, report, paths)
    };
    let (frappe, schema, report, paths) = kinds("frappe/train.csv", &[]);
    assert_eq!(frappe[0], ("label".to_owned(), "label"));
    assert!(frappe[1..].iter().all(|(_, kind)| *kind == "categorical"), "{frappe:?}");
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    let (features, fitted) = Features::fit(&schema, &paths, &read).unwrap();
    assert_eq!((fitted.rows, fitted.labels[0].rows, features.fields().len()), (202_005, 202_005, 10));
    let (examples, met) = Examples::read(&features, &paths, &read, 0).unwrap();
    assert_eq!((examples.len(), met.missing), (202_005, vec![0; 10]));
    let (adult, schema, _, _) = kinds("adult/train.csv", &[]);
    let numeric = ["age", "fnlwgt", "education_num", "capital_gain", "capital_loss", "hours_per_week"];
    for (name, kind) in &adult {
        let expected = match name.as_str() {
            "label" => "label",
            name if numeric.contains(&name) => "numeric",
            _ => "categorical",
        };
        assert_eq!(*kind, expected, "{name}");
    }
    assert!(schema.missing.contains(&"?".to_owned()));
    let (fraud, _, report, _) = kinds("fraud-sim/transactions.csv", &["TX_FRAUD"]);
    let ids = ["CUSTOMER_ID", "TERMINAL_ID"];
    for (name, kind) in &fraud {
        let expected = match name.as_str() {
            "TX_FRAUD" => "label",
            "TX_DATETIME" => "time",
            "TRANSACTION_ID" => "ignore",
            name if ids.contains(&name) => "categorical",
            _ => "numeric",
        };
        assert_eq!(*kind, expected, "{name}");
    }
    // The scenario of a fraud is known only with the fraud.
    let warned: Vec<&str> = report.warnings.iter().map(|warning| warning.column.as_str()).collect();
    assert_eq!(warned, ["TRANSACTION_ID", "TX_FRAUD_SCENARIO"]);
}
