//! What training sees in a row is what serving sees in it; what cannot be used is told with its place.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod feature_files;

use feature_files::Files;
use proptest::prelude::*;
use recmill_core::data::{Lines, OnBadRow, ReadOptions, Rows, Sources};
use recmill_core::features::{
    ColumnKind, Encoder, Examples, FeatureBatch, FeatureReader, Features, LabelUse, Schema, SchemaOptions,
    TransformReport, infer_schema,
};

const SMALL: &str = "\
label,colour,genres,price,age
1,red,a|b,1.0,20
0,blue,b,3.0,30
1,red,,5.0,
0,green,a|c|a,3.0,40
0,red,b|b,,30
1,blue,c,3.0,30
";

const SMALL_SCHEMA: &str = r#"
[[columns]]
name = "label"
kind = "label"
[[columns]]
name = "colour"
kind = "categorical"
[[columns]]
name = "genres"
kind = "bag"
min_count = 1
[[columns]]
name = "price"
kind = "numeric"
[[columns]]
name = "age"
kind = "numeric"
transform = "as-is"
fill = "median"
"#;

fn fit(files: &Files, schema: &str) -> Features {
    let schema = Schema::from_toml("schema.toml", schema).unwrap();
    Features::fit(&schema, &files.paths(), &ReadOptions::default()).unwrap().0
}

fn all(features: &Features, files: &Files) -> FeatureBatch {
    let (examples, _) = Examples::read(features, &files.paths(), &ReadOptions::default(), u64::MAX).unwrap();
    let mut batch = FeatureBatch::default();
    examples.gather(&(0..examples.len() as u64).collect::<Vec<_>>(), &mut batch);
    batch
}

fn told(files: &Files, schema: &str) -> String {
    let schema = Schema::from_toml("schema.toml", schema).unwrap();
    let error = Features::fit(&schema, &files.paths(), &ReadOptions::default()).unwrap_err();
    files.without_folder(&error.to_string())
}

#[test]
fn rows_become_the_numbers_computed_by_hand() {
    let files = Files::of("small.csv", SMALL);
    let features = fit(&files, SMALL_SCHEMA);
    let [colour, genres] = features.fields() else { panic!("{:?}", features.fields()) };
    // `green` is there once and shares row 0; the others are sorted: blue 1, red 2.
    assert_eq!((colour.name(), colour.rows(), colour.is_bag()), ("colour", 3, false));
    assert_eq!((genres.name(), genres.rows(), genres.is_bag()), ("genres", 4, true));
    let batch = all(&features, &files);
    assert_eq!(batch.rows, 6);
    assert_eq!(batch.fields[0].indices, [2, 1, 2, 0, 2, 1]);
    assert_eq!(batch.fields[1].indices, [1, 2, 2, 1, 3, 1, 2, 2, 3]);
    assert_eq!(batch.fields[1].offsets.as_deref().unwrap(), [0, 2, 3, 3, 6, 8, 9]);
    // Prices 1 3 5 3 3: mean 3, variance 8/5; the missing one takes the mean. Ages 20 30 40 30 30: median 30.
    let unit = (5.0f32 / 8.0).sqrt();
    let expected = [-2.0 * unit, 20.0, 0.0, 30.0, 2.0 * unit, 30.0, 0.0, 40.0, 0.0, 30.0, 0.0, 30.0];
    for (got, expected) in batch.numeric.iter().zip(expected) {
        assert!((got - expected).abs() < 1e-6, "{:?}", batch.numeric);
    }
    assert_eq!(batch.labels, [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
    assert_eq!(batch.lines, [2, 3, 4, 5, 6, 7]);
    assert!(batch.weights.is_empty() && batch.groups.is_empty() && batch.times.is_empty());
}

#[test]
fn unseen_categories_and_missing_values_are_counted() {
    let features = fit(&Files::of("small.csv", SMALL), SMALL_SCHEMA);
    let asked =
        Files::of("asked.csv", "age,price,genres,colour\n?,7,x|a|y,violet\n50,NA,[\"c\"],red\n,3,,\n");
    let mut reader =
        FeatureReader::open(&features, &asked.paths(), &ReadOptions::default(), LabelUse::Ignored).unwrap();
    let mut batch = FeatureBatch::default();
    assert!(reader.next_batch(&mut batch).unwrap());
    assert_eq!(batch.fields[0].indices, [0, 2, 0]);
    assert_eq!(batch.fields[1].indices, [0, 1, 0, 3]);
    assert_eq!(batch.fields[1].offsets.as_deref().unwrap(), [0, 3, 4, 4]);
    assert_eq!(batch.numeric[1..], [30.0, 0.0, 50.0, 0.0, 30.0]);
    assert!(batch.labels.is_empty());
    assert!(!reader.next_batch(&mut batch).unwrap());
    let report = reader.report();
    assert_eq!((&report.unseen[..], &report.missing[..]), (&[1, 2][..], &[1, 1][..]));
    assert_eq!((report.rows, &report.missing_numbers[..]), (3, &[1, 2][..]));
}

#[test]
fn a_request_has_the_features_of_the_same_line_of_a_file() {
    let files = Files::of("small.csv", SMALL);
    let features = fit(&files, SMALL_SCHEMA);
    let body = r#"[{"colour":"red","genres":["a","b"],"price":1,"age":20,"label":1},
        {"colour":"blue","genres":"b","price":"3","age":30.0}, {"colour":"red","price":5,"age":null}]"#;
    let objects: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(body).unwrap();
    let rows = features.rows_of_json(&objects, "request").unwrap();
    let (mut batch, mut report) = (FeatureBatch::default(), TransformReport::default());
    features.transform(&rows, "request", &mut batch, &mut report).unwrap();
    let (examples, _) = Examples::read(&features, &files.paths(), &ReadOptions::default(), 0).unwrap();
    let mut expected = FeatureBatch::default();
    examples.gather(&[0, 1, 2], &mut expected);
    assert_eq!((batch.fields, batch.numeric), (expected.fields, expected.numeric));
    assert!(batch.labels.is_empty());
    let misspelt = serde_json::from_str(r#"[{"color":"red"}]"#).unwrap();
    let misspelt: Vec<serde_json::Map<String, serde_json::Value>> = misspelt;
    let told = features.rows_of_json(&misspelt, "request").unwrap_err().to_string();
    assert_eq!(told, "request: no column `color` among `colour, genres, price, age`");
}

#[test]
fn what_cannot_be_used_names_file_line_and_column() {
    let with = |line: &str| Files::of("f.csv", format!("{SMALL}{line}\n"));
    for (line, expected) in [
        (
            "1,red,a,cheap,30",
            "f.csv:8: column `price`: expected a number, or one of the texts for missing ones, found `cheap`",
        ),
        ("1,red,a,inf,30", "f.csv:8: column `price`: expected a number from -3.4e38 to 3.4e38, found `inf`"),
        ("2,red,a,1,30", "f.csv:8: column `label`: expected 0 or 1, found `2`"),
        (",red,a,1,30", "f.csv:8: column `label`: expected 0 or 1, found ``"),
        ("1,red,a", "f.csv:8: expected 5 fields, got 3, found `1,red,a`"),
    ] {
        assert_eq!(told(&with(line), SMALL_SCHEMA), expected);
    }
    let without = Files::of("f.csv", "label,colour,genres,price\n1,red,a,1\n");
    assert_eq!(told(&without, SMALL_SCHEMA), "f.csv: no column `age` among `label, colour, genres, price`");
    let constant = Files::of("f.csv", "label,colour,genres,price,age\n1,red,a,1,2\n1,blue,a,1,2\n");
    assert_eq!(
        told(&constant, SMALL_SCHEMA),
        "f.csv: column `label`: expected labels of both 0 and 1, found 2 rows with `1`"
    );
    let empty = Files::of("f.csv", "label,colour,genres,price,age\n");
    assert_eq!(told(&empty, SMALL_SCHEMA), "f.csv: expected rows, found none");
}

#[test]
fn bad_rows_that_are_left_out_leave_no_trace() {
    let bad = Files::of("f.csv", format!("{SMALL}1,violet,z,cheap,30\n1,violet,z\n0,violet,z,1,old\n"));
    let good = Files::of("f.csv", SMALL);
    let read = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
    let schema = Schema::from_toml("schema.toml", SMALL_SCHEMA).unwrap();
    let (features, report) = Features::fit(&schema, &bad.paths(), &read).unwrap();
    assert_eq!(features, fit(&good, SMALL_SCHEMA));
    let rows: Vec<u64> = report.bad_rows.iter().map(|bad| bad.rows).collect();
    assert_eq!((report.rows, rows), (6, vec![2, 1]));
    let (examples, report) = Examples::read(&features, &bad.paths(), &read, u64::MAX).unwrap();
    assert_eq!((examples.len(), report.rows), (6, 6));
    assert_eq!((report.unseen, report.missing), (vec![1, 0], vec![0, 1]));
    let mut batch = FeatureBatch::default();
    examples.gather(&[0, 1, 2, 3, 4, 5], &mut batch);
    assert_eq!(batch, all(&features, &good));
}

#[test]
fn spilled_examples_equal_those_in_memory() {
    let mut text = String::from("label,user,tags,x,w,ts\n");
    for row in 0..20_000u32 {
        let tags: Vec<String> = (0..row % 4).map(|tag| ((row * 7 + tag * 3) % 11).to_string()).collect();
        let line = format!(
            "{},u{},{},{}.5,{},{}\n",
            row % 2,
            row % 97,
            tags.join("|"),
            row % 13,
            row % 3,
            1_700_000_000 + row
        );
        text.push_str(&line);
        if row % 1000 == 0 {
            text.push('\n');
        }
    }
    let files = Files::of("f.csv", &text);
    let options = SchemaOptions {
        weight: Some("w".into()),
        group: Some("user".into()),
        bag: vec!["tags".into()],
        ..SchemaOptions::default()
    };
    let read = ReadOptions::default();
    let (schema, _) = infer_schema(&files.paths(), &read, &options).unwrap();
    assert_eq!(schema.time(), Some("ts"));
    let (features, _) = Features::fit(&schema, &files.paths(), &read).unwrap();
    let (memory, told_of_memory) = Examples::read(&features, &files.paths(), &read, u64::MAX).unwrap();
    let (spilled, told_of_file) = Examples::read(&features, &files.paths(), &read, 100_000).unwrap();
    assert!(spilled.is_spilled() && !memory.is_spilled());
    assert_eq!((spilled.len(), told_of_memory), (20_000, told_of_file));
    let rows: Vec<u64> = (0..20_000).map(|row| row * 7_919 % 20_000).chain([5, 5, 19_999]).collect();
    let (mut a, mut b) = (FeatureBatch::default(), FeatureBatch::default());
    for rows in rows.chunks(999) {
        memory.gather(rows, &mut a);
        spilled.gather(rows, &mut b);
        assert_eq!(a, b);
        assert_eq!((a.weights.len(), a.groups.len(), a.times.len()), (rows.len(), rows.len(), rows.len()));
    }
    memory.gather(&[3, 1_001, 1_001], &mut a);
    assert_eq!(a.fields[1].offsets.as_deref().unwrap(), [0, 3, 4, 5]);
    assert_eq!((a.times[1], a.weights[1], a.labels[1]), (1_700_001_001, 2.0, 1.0));
    // Two empty lines and the header stand before row 1,001.
    assert_eq!(a.lines, [6, 1_005, 1_005]);
    assert_eq!(memory.line(1_001).1, 1_005);
    assert!(memory.line(0).0.ends_with("f.csv"));
}

#[test]
fn a_holdout_depends_on_the_seed_alone() {
    let mut text = String::from("label,x\n");
    (0..10_000).for_each(|row| text.push_str(&format!("{},{}\n", row % 2, row % 50)));
    let files = Files::of("f.csv", &text);
    let features =
        fit(&files, "columns = [{name = \"label\", kind = \"label\"}, {name = \"x\", kind = \"numeric\"}]");
    let (examples, _) = Examples::read(&features, &files.paths(), &ReadOptions::default(), u64::MAX).unwrap();
    let (train, held_out) = examples.holdout(0.1, 7);
    assert_eq!(train.len() + held_out.len(), 10_000);
    assert!((900..1_100).contains(&held_out.len()), "{}", held_out.len());
    assert!(held_out.is_sorted() && train.is_sorted());
    assert_eq!((train, held_out.clone()), examples.holdout(0.1, 7));
    assert_ne!(held_out, examples.holdout(0.1, 8).1);
    assert_eq!(examples.holdout(0.0, 7).1, Vec::<u64>::new());
}

#[test]
fn quantiles_are_a_field_of_buckets() {
    let files = Files::of("f.csv", "label,x\n0,1\n1,2\n0,3\n1,4\n0,5\n1,6\n0,7\n1,8\n0,\n");
    let schema = "[[columns]]\nname = \"label\"\nkind = \"label\"\n[[columns]]\nname = \"x\"\nkind = \"numeric\"\n\
        transform = \"quantiles\"\nbuckets = 4\n";
    let features = fit(&files, schema);
    assert!(features.numeric().is_empty());
    assert_eq!(features.fields()[0].rows(), 5);
    let Encoder::Quantiles { bounds } = features.fields()[0].encoder() else { panic!() };
    assert_eq!(bounds, &[3.0, 5.0, 7.0]);
    assert_eq!(all(&features, &files).fields[0].indices, [1, 1, 2, 2, 3, 3, 4, 4, 0]);
}

#[test]
fn hashed_fields_need_no_vocabulary() {
    let files = Files::of("f.csv", "label,who\n0,abc\n1,\n0,never seen\n");
    let schema = "[[columns]]\nname = \"label\"\nkind = \"label\"\n[[columns]]\nname = \"who\"\nkind = \"categorical\"\n\
        hash_buckets = 1000\n";
    let features = fit(&files, schema);
    let batch = all(&features, &files);
    assert_eq!(features.fields()[0].rows(), 1000);
    assert_eq!(batch.fields[0].indices[..2], [0xb3dd_93fau32 % 1000, 0]);
    let text = serde_json::to_string(&features).unwrap();
    assert_eq!(serde_json::from_str::<Features>(&text).unwrap(), features);
    assert!(
        serde_json::from_str::<Features>(&text.replace("{\"buckets\":1000}", "{\"buckets\":0}")).is_err()
    );
}

#[test]
fn fitted_features_are_the_same_after_their_text_form() {
    let files = Files::of("small.csv", SMALL);
    let features = fit(&files, SMALL_SCHEMA);
    let text = serde_json::to_string(&features).unwrap();
    let read: Features = serde_json::from_str(&text).unwrap();
    assert_eq!(read, features);
    assert_eq!(all(&read, &files), all(&features, &files));
    // Vocabularies can be kept apart.
    let mut bare = features.without_vocabularies();
    assert_ne!(bare, features);
    for (field, vocabulary) in features.vocabularies() {
        let names: Vec<String> = vocabulary.iter().map(str::to_owned).collect();
        assert!(names.is_sorted());
        bare.set_vocabulary(field, recmill_core::features::Vocabulary::new(names).unwrap()).unwrap();
    }
    assert_eq!(bare, features);
    // What does not fit together is refused before it can be used.
    for (from, to) in [
        ("\"kind\":\"bag\"", "\"kind\":\"categorical\""),
        ("\"name\":\"price\",\"log\"", "\"name\":\"prize\",\"log\""),
        ("\"schema\":", "\"scheme\":"),
        ("\"fill\":30.0", "\"fill\":1e99"),
    ] {
        assert!(text.contains(from), "{from}: {text}");
        assert!(serde_json::from_str::<Features>(&text.replace(from, to)).is_err(), "{from}");
    }
}

#[test]
fn a_guessed_schema_is_the_same_after_its_toml() {
    let files = Files::of("small.csv", SMALL);
    let (schema, report) =
        infer_schema(&files.paths(), &ReadOptions::default(), &SchemaOptions::default()).unwrap();
    let kinds: Vec<&str> = schema.columns.iter().map(|column| column.kind.name()).collect();
    assert_eq!(kinds, ["label", "categorical", "bag", "numeric", "numeric"]);
    let text = schema.to_toml(&report);
    assert_eq!(Schema::from_toml("schema.toml", &text).unwrap(), schema, "{text}");
    assert_eq!(serde_json::from_str::<Schema>(&serde_json::to_string(&schema).unwrap()).unwrap(), schema);
    assert!(matches!(schema.column("genres").unwrap().kind, ColumnKind::Bag { .. }));
}

#[test]
fn a_vocabulary_without_room_says_so() {
    let mut text = String::from("label,c\n");
    (0..2_000)
        .for_each(|row| text.push_str(&format!("{},often{}\n{},once{row}\n", row % 2, row % 5, row % 2)));
    let files = Files::of("f.csv", text);
    let schema = "[[columns]]\nname = \"label\"\nkind = \"label\"\n[[columns]]\nname = \"c\"\nkind = \"categorical\"\n\
        max_size = 100\nmin_count = 1\n";
    let schema = Schema::from_toml("schema.toml", schema).unwrap();
    let (features, report) = Features::fit(&schema, &files.paths(), &ReadOptions::default()).unwrap();
    let (_, vocabulary) = features.vocabularies().next().unwrap();
    assert!(vocabulary.len() <= 100, "{}", vocabulary.len());
    (0..5).for_each(|often| assert!(vocabulary.get(&format!("often{often}")).is_some()));
    let [full] = &report.full[..] else { panic!("{:?}", report.full) };
    assert_eq!((full.column.as_str(), full.max_size), ("c", 100));
    assert_eq!(full.left_out as usize, 2_005 - vocabulary.len());
}

#[test]
fn columns_that_are_there_for_some_rows_only_are_refused() {
    let features = fit(&Files::of("small.csv", SMALL), SMALL_SCHEMA);
    let rows = |text: &str| {
        let files = Files::of("f.csv", text);
        let mut sources = Sources::open(&files.paths(), &ReadOptions::default()).unwrap();
        sources.next_source().unwrap().unwrap().next().unwrap().unwrap()
    };
    let (mut batch, mut report) = (FeatureBatch::default(), TransformReport::default());
    features.transform(&rows(SMALL), "small.csv", &mut batch, &mut report).unwrap();
    let before = batch.clone();
    let without = rows("colour,genres,price,age\nred,a,1,1\n");
    let told = features.transform(&without, "f.csv", &mut batch, &mut report).unwrap_err().to_string();
    assert_eq!(told, "inconsistent labels at `6`");
    let lacking = rows("label,colour,genres,price\n1,red,a,1\n");
    let told = features.transform(&lacking, "f.csv", &mut batch, &mut report).unwrap_err().to_string();
    assert_eq!(told, "f.csv: no column `age` among `label, colour, genres, price`");
    assert_eq!((batch, report.rows), (before, 6));
}

#[test]
fn a_type_that_is_no_value_names_its_column() {
    let features = fit(&Files::of("small.csv", SMALL), SMALL_SCHEMA);
    let lists = r#"{"label":1,"colour":["red"],"genres":["a"],"price":1,"age":2}"#;
    let files = Files::of("f.jsonl", format!("{lists}\n"));
    let mut reader =
        FeatureReader::open(&features, &files.paths(), &ReadOptions::default(), LabelUse::Ignored).unwrap();
    // Text formats give a list as its JSON, which is a category that training did not have.
    let mut batch = FeatureBatch::default();
    assert!(reader.next_batch(&mut batch).unwrap());
    assert_eq!((batch.fields[0].indices[0], reader.report().unseen[0]), (0, 1));
    let mut tags = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    tags.values().append_value("red");
    tags.append(true);
    let colour = std::sync::Arc::new(tags.finish()) as arrow::array::ArrayRef;
    let batch = arrow::array::RecordBatch::try_from_iter([("colour", colour)]).unwrap();
    let rows = Rows { batch, lines: Lines::from(1), bad: Vec::new() };
    let mut out = FeatureBatch::default();
    let told = features.transform(&rows, "f.parquet", &mut out, &mut TransformReport::default());
    let told = told.unwrap_err().to_string();
    assert!(told.starts_with("f.parquet: column `colour`: expected text or numbers, found `List"), "{told}");
}

#[test]
fn a_schema_that_is_none_is_refused_with_its_place() {
    let told = |text: &str| Schema::from_toml("schema.toml", text).unwrap_err().to_string();
    let column = "[[columns]]\nname = \"a\"\nkind = \"categorical\"\n";
    for (text, expected) in [
        (format!("{column}mincount = 3\n"), "unknown field `mincount`"),
        (
            format!("{column}transform = \"log\"\n"),
            "column `a`: `transform` does not go with what else is said of it",
        ),
        (format!("{column}min_count = 1\nhash_buckets = 9\n"), "column `a`: `min_count` does not go with"),
        (column.replace("categorical", "category"), "found `category`"),
        (column.replace("\"a\"", "7"), "schema.toml: TOML parse error at line 2"),
        (format!("{column}min_count = 0\n"), "min_count must be at least 1, not `0 (column a)`"),
        (
            String::new(),
            "columns must be a list with a categorical, a bag or a numeric one, not `no feature`",
        ),
    ] {
        let told = told(&text);
        assert!(told.contains(expected), "{expected}: {told}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic_the_schema_or_the_features(
        bytes in proptest::collection::vec(any::<u8>(), 0..300),
        cells in proptest::collection::vec("[ab1?.,|\"\\[\\]\n-]{0,6}", 0..60),
    ) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = Schema::from_toml("schema.toml", &text);
        let _ = serde_json::from_str::<Features>(&text);
        let features = fit(&Files::of("small.csv", SMALL), SMALL_SCHEMA);
        let read = ReadOptions { on_bad_row: OnBadRow::Skip, ..ReadOptions::default() };
        let mut hostile = SMALL.as_bytes().to_vec();
        hostile.extend(cells.join(",").into_bytes());
        hostile.extend(&bytes);
        let files = Files::of("f.csv", &hostile);
        if let Ok((examples, report)) = Examples::read(&features, &files.paths(), &read, 0) {
            prop_assert_eq!(examples.len() as u64, report.rows);
            let mut batch = FeatureBatch::default();
            examples.gather(&(0..examples.len() as u64).collect::<Vec<_>>(), &mut batch);
            for (values, field) in batch.fields.iter().zip(features.fields()) {
                prop_assert!(values.indices.iter().all(|&index| (index as usize) < field.rows()));
            }
            prop_assert!(batch.numeric.iter().all(|number| number.is_finite()));
        }
        if let Ok((schema, report)) = infer_schema(&files.paths(), &read, &SchemaOptions::default()) {
            prop_assert_eq!(Schema::from_toml("schema.toml", &schema.to_toml(&report)).unwrap(), schema.clone());
            let _ = Features::fit(&schema, &files.paths(), &read);
        }
        // Any bytes as a whole file, header included.
        let files = Files::of("f.csv", &bytes);
        if let Ok((schema, report)) = infer_schema(&files.paths(), &read, &SchemaOptions::default()) {
            prop_assert_eq!(Schema::from_toml("schema.toml", &schema.to_toml(&report)).unwrap(), schema);
        }
    }
}
