//! What a column is taken for, with the reason and what is warned about.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod feature_files;

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, ListBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMillisecondArray,
};
use feature_files::Files;
use recmill_core::data::{MemorySource, ReadOptions, Source, Sources};
use recmill_core::features::{
    ColumnKind, Encoding, Examples, FeatureBatch, Features, NumericTransform, Schema, SchemaOptions,
    SchemaReport, infer_schema, infer_sources,
};

fn guess(text: &str, options: &SchemaOptions) -> (Schema, SchemaReport) {
    infer_schema(&Files::of("f.csv", text).paths(), &ReadOptions::default(), options).unwrap()
}

fn kind(schema: &Schema, name: &str) -> &'static str {
    schema.column(name).unwrap().kind.name()
}

fn why<'a>(report: &'a SchemaReport, name: &str) -> &'a str {
    &report.guesses.iter().find(|guess| guess.column == name).unwrap().why
}

/// A label that follows from nothing in the row.
fn by_chance(row: u32) -> u32 {
    row.wrapping_mul(2_654_435_761) >> 17 & 1
}

/// 400 rows of columns whose values `of` computes.
fn table(header: &str, of: impl Fn(u32) -> String) -> String {
    (0..400).fold(format!("{header}\n"), |text, row| text + &of(row) + "\n")
}

#[test]
fn bare_numeric_codes_are_categories() {
    let text = table("label,a,b,c,d", |row| {
        let code = |first: u32, n: u32| first + row * 7_919 % n;
        format!(
            "{},{},{},{},{}",
            by_chance(row),
            code(5_039, 7),
            code(10_231, 150),
            7_001 + row % 2 * 90_000,
            code(1_000, 40)
        )
    });
    let (schema, report) = guess(&text, &SchemaOptions::default());
    for name in ["a", "b", "c", "d"] {
        assert_eq!(kind(&schema, name), "categorical", "{}", why(&report, name));
    }
    assert_eq!(
        why(&report, "a"),
        "whole numbers that look like codes: 100% are 1,000 or more, 7 different in 400 rows"
    );
    assert_eq!(report.guesses[1].flag, "--numeric a");
    assert!(report.warnings.is_empty(), "{:?}", report.warnings);
}

#[test]
fn counts_and_amounts_are_numbers() {
    let text = table("label,age,salary,gain,price,big", |row| {
        let gain = if row % 40 == 0 { 5_000 + row } else { 0 };
        let (label, age) = (row * 13 % 7 % 2, 17 + row * 31 % 70);
        format!(
            "{label},{age},{},{gain},{}.25,{}",
            1_000 * (row * 17 % 90),
            row % 50,
            row * 104_729 % 999_983
        )
    });
    let (schema, report) = guess(&text, &SchemaOptions::default());
    for name in ["age", "salary", "gain", "price", "big"] {
        assert_eq!(kind(&schema, name), "numeric", "{name}: {}", why(&report, name));
    }
    assert_eq!(why(&report, "age"), "whole numbers from 17 to 86, 70 different");
    assert_eq!(report.guesses[1].flag, "--categorical age");
    let ColumnKind::Numeric(gain) = schema.column("gain").unwrap().kind else { panic!() };
    assert_eq!(gain.transform, NumericTransform::Log, "{}", why(&report, "gain"));
}

#[test]
fn headers_of_ids_make_whole_numbers_categories() {
    let text = table("label,user,movieId,shop_id,ID_count,paid,zip", |row| {
        let label = row * 13 % 7 % 2;
        format!(
            "{label},{},{},{},{},{},0{}",
            row % 20,
            row % 30,
            row % 9,
            row % 8,
            row % 2 == 0,
            1_000 + row % 11
        )
    });
    let (schema, report) = guess(&text, &SchemaOptions::default());
    let kinds: Vec<&str> = schema.columns.iter().map(|column| column.kind.name()).collect();
    let category = "categorical";
    assert_eq!(kinds, ["label", category, category, category, "numeric", category, category]);
    assert_eq!(why(&report, "zip"), "numbers with zeros before, 11 different");
    assert_eq!(why(&report, "paid"), "text, 2 different");
}

#[test]
fn ids_and_leaks_are_warned_about() {
    let text = table("row_id,name,label,outcome,score,amount", |row| {
        let label = u32::from(row % 5 == 0);
        let outcome = if label == 1 { "paid" } else { "open" };
        format!("{},n{},{label},{outcome},{}.5,{}", row * 7 % 1_000, row, label * 100 + row % 90, row % 17)
    });
    let (schema, report) = guess(&text, &SchemaOptions::default());
    assert_eq!((kind(&schema, "row_id"), kind(&schema, "name")), ("ignore", "ignore"));
    assert_eq!((kind(&schema, "outcome"), kind(&schema, "score")), ("categorical", "numeric"));
    let warned: Vec<&str> = report.warnings.iter().map(|warning| warning.column.as_str()).collect();
    assert_eq!(warned, ["row_id", "name", "outcome", "score"]);
    assert!(report.warnings[0].what.contains("--categorical row_id"), "{:?}", report.warnings[0]);
    assert!(report.warnings[2].what.contains("--ignore outcome"), "{:?}", report.warnings[2]);
    // Asked for, an id is a feature; the warning stays.
    let asked = SchemaOptions { categorical: vec!["NAME".into()], ..SchemaOptions::default() };
    let (schema, report) = guess(&text, &asked);
    assert_eq!(kind(&schema, "name"), "categorical");
    assert!(report.warnings.iter().any(|warning| warning.column == "name"));
}

#[test]
fn flags_decide_before_any_guess() {
    let text = table("y,who,x,z,when,w", |row| {
        format!("{},{},{},{},{},{}", row % 4, row % 9, row % 7, row % 2, 86_400 * row, row % 3)
    });
    let options = SchemaOptions {
        label: vec!["z".into()],
        categorical: vec!["x".into()],
        numeric: vec!["WHO".into()],
        ignore: vec!["1".into()],
        group: Some("who".into()),
        weight: Some("w".into()),
        time: Some("when".into()),
        min_count: Some(5),
        ..SchemaOptions::default()
    };
    let (schema, report) = guess(&text, &options);
    let kinds: Vec<&str> = schema.columns.iter().map(|column| column.kind.name()).collect();
    assert_eq!(kinds, ["ignore", "numeric", "categorical", "label", "time", "weight"]);
    assert_eq!(schema.group.as_deref(), Some("who"));
    assert_eq!(why(&report, "x"), "named by --categorical");
    let ColumnKind::Categorical(Encoding::Vocabulary { min_count, .. }) = schema.column("x").unwrap().kind
    else {
        panic!()
    };
    assert_eq!(min_count, 5);
    let files = Files::of("f.csv", &text);
    let told = |options: &SchemaOptions| {
        let error = infer_schema(&files.paths(), &ReadOptions::default(), options).unwrap_err();
        files.without_folder(&error.to_string())
    };
    let twice =
        SchemaOptions { categorical: vec!["x".into()], numeric: vec!["x".into()], ..Default::default() };
    assert_eq!(told(&twice), "numeric: expected one flag for each column, found `x`");
    let unknown = SchemaOptions { label: vec!["clicked".into()], ..Default::default() };
    assert_eq!(told(&unknown), "f.csv: no column `clicked` among `y, who, x, z, when, w`");
}

#[test]
fn what_counts_as_missing_can_be_said() {
    let text = table("label,x,c", |row| {
        let x = if row % 10 == 0 { "-".to_owned() } else { (row % 30).to_string() };
        format!("{},{x},{}", by_chance(row), ["a", "?", "b"][row as usize % 3])
    });
    let (schema, report) = guess(&text, &SchemaOptions::default());
    assert_eq!(kind(&schema, "x"), "categorical");
    assert!(report.warnings[0].what.contains("but also `-`"), "{:?}", report.warnings);
    let options = SchemaOptions { missing: vec!["-".into()], ..SchemaOptions::default() };
    let (schema, _) = guess(&text, &options);
    assert_eq!((kind(&schema, "x"), &schema.missing[..]), ("numeric", &["-".to_owned()][..]));
    let files = Files::of("f.csv", &text);
    let (features, _) = Features::fit(&schema, &files.paths(), &ReadOptions::default()).unwrap();
    // `?` is a category like any other now.
    assert_eq!(features.vocabularies().next().unwrap().1.iter().collect::<Vec<_>>(), ["?", "a", "b"]);
}

#[test]
fn a_column_that_says_nothing_is_left_out() {
    let text = table("label,empty,same,x", |row| format!("{},,7,{}", row % 2, row % 5));
    let (schema, report) = guess(&text, &SchemaOptions::default());
    assert_eq!((kind(&schema, "empty"), kind(&schema, "same")), ("ignore", "ignore"));
    assert_eq!(why(&report, "same"), "the same value in every row");
    let (schema, report) =
        guess(&table("a,b", |row| format!("{},{}", row % 3, row % 5)), &SchemaOptions::default());
    assert!(schema.labels().next().is_none());
    assert!(report.warnings.iter().any(|warning| warning.what.contains("--label")));
}

#[test]
fn a_label_by_its_header_must_be_one_by_its_values() {
    let (schema, report) =
        guess(&table("x,clicked", |row| format!("{},{}", row % 5, row % 3 == 0)), &SchemaOptions::default());
    assert_eq!((kind(&schema, "clicked"), report.warnings.len()), ("label", 0));
    let (schema, report) =
        guess(&table("x,y", |row| format!("{},{}", row % 5, row % 3)), &SchemaOptions::default());
    assert_eq!(kind(&schema, "y"), "numeric");
    assert!(
        report.warnings[0].what.starts_with("has the header of a label, but not 0 or 1"),
        "{:?}",
        report.warnings
    );
}

/// The same rows as text and as typed columns.
fn both_ways() -> (String, RecordBatch) {
    let (mut json, mut tags) = (String::new(), ListBuilder::new(StringBuilder::new()));
    for row in 0..300i64 {
        let these: Vec<String> = (0..row % 3).map(|tag| format!("t{}", (row + tag) % 5)).collect();
        let quoted: Vec<String> = these.iter().map(|tag| format!("\"{tag}\"")).collect();
        let price = if row % 7 == 0 { "null".to_owned() } else { format!("{}", (row % 11) as f64 / 2.0) };
        json += &format!(
            "{{\"label\":{},\"user_id\":{},\"new\":{},\"price\":{price},\"tags\":[{}],\"ts\":{},\"unused\":{{}}}}\n",
            row % 2,
            row % 13,
            row % 3 == 0,
            quoted.join(","),
            1_700_000_000 + row
        );
        these.iter().for_each(|tag| tags.values().append_value(tag));
        tags.append(true);
    }
    let rows = || 0..300i64;
    let prices = rows().map(|row| (row % 7 != 0).then_some((row % 11) as f64 / 2.0));
    let batch = RecordBatch::try_from_iter([
        ("label", Arc::new(Int64Array::from_iter_values(rows().map(|row| row % 2))) as ArrayRef),
        // Gaps make fractions of whole numbers.
        ("user_id", Arc::new(Float64Array::from_iter_values(rows().map(|row| (row % 13) as f64)))),
        ("new", Arc::new(BooleanArray::from_iter(rows().map(|row| Some(row % 3 == 0))))),
        ("price", Arc::new(Float64Array::from_iter(prices))),
        ("tags", Arc::new(tags.finish())),
        (
            "ts",
            Arc::new(TimestampMillisecondArray::from_iter_values(
                rows().map(|row| (1_700_000_000 + row) * 1_000),
            )),
        ),
        ("unused", Arc::new(StringArray::from_iter_values(rows().map(|_| "{}")))),
    ]);
    (json, batch.unwrap())
}

#[test]
fn typed_columns_and_json_lines_give_the_same_features() {
    let (json, batch) = both_ways();
    let files = Files::of("rows.jsonl", json);
    let sources = || {
        // Cut at an odd place: what a list's offsets begin with is no longer 0.
        let parts = vec![batch.slice(0, 101), batch.slice(101, 199)];
        Sources::of(vec![Box::new(MemorySource::new("memory", batch.schema(), parts)) as Box<dyn Source>])
    };
    let read = ReadOptions::default();
    let options = SchemaOptions::default();
    let (schema, report) = infer_schema(&files.paths(), &read, &options).unwrap();
    let (typed, _) = infer_sources(sources(), &read, &options).unwrap();
    assert_eq!(schema, typed, "{report:?}");
    let kinds: Vec<&str> = schema.columns.iter().map(|column| column.kind.name()).collect();
    assert_eq!(kinds, ["label", "categorical", "categorical", "numeric", "bag", "time", "ignore"]);
    let (features, _) = Features::fit(&schema, &files.paths(), &read).unwrap();
    assert_eq!(features, Features::fit_sources(&schema, sources(), &read).unwrap().0);
    let (text, told_of_text) = Examples::read(&features, &files.paths(), &read, 0).unwrap();
    let (typed, told_of_typed) = Examples::read_sources(&features, sources(), &read, 0).unwrap();
    assert_eq!(told_of_text, told_of_typed);
    let rows: Vec<u64> = (0..300).rev().collect();
    let (mut a, mut b) = (FeatureBatch::default(), FeatureBatch::default());
    text.gather(&rows, &mut a);
    typed.gather(&rows, &mut b);
    assert_eq!(a, b);
    // A batch that is filled again needs no other memory.
    let before =
        (a.numeric.as_ptr(), a.fields[0].indices.as_ptr(), a.fields[2].indices.as_ptr(), a.lines.as_ptr());
    text.gather(&rows, &mut a);
    let after =
        (a.numeric.as_ptr(), a.fields[0].indices.as_ptr(), a.fields[2].indices.as_ptr(), a.lines.as_ptr());
    assert_eq!(before, after);
}
