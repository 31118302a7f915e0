//! Models that score rows of features: the whole way through the command, and what is told when it is used wrongly.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    datatypes::{Float32Type, UInt64Type},
};
use parquet::arrow::{ArrowWriter, arrow_reader::ParquetRecordBatchReaderBuilder};
use serde_json::Value;

use crate::screen::{Folder, assert_screen, filters};

/// A network that is trained in no time.
const TINY: &str = "--hidden 8 --embedding-dim 4 --epochs 2 --batch-size 32 --learning-rate 0.05";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Compares a screen with its snapshot, whose measured numbers are not the same on every processor.
pub(crate) fn assert_measured(name: &str, screen: String) {
    const METRICS: &str = "accuracy|auc|average_precision|calibration|expected_calibration_error|logloss";
    let row = format!(r"(?m)^( *(?:{METRICS}) +)[0-9.e-]+$");
    let mut filters: Vec<(&str, &str)> = filters();
    filters.push((r"\b(loss|auc) \d\.\d+", "$1 [NUMBER]"));
    filters.push((r"keeping epoch \d", "keeping epoch [N]"));
    filters.push((&row, "${1}[NUMBER]"));
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        insta::assert_snapshot!(name, screen);
    });
}

/// The folder, with a trained model in `model`.
fn trained() -> Folder {
    let folder = Folder::with_rows();
    folder.succeeds(&format!(
        "train deepfm rows.csv --label clicked --ignore bought --group user --out model --quiet {TINY}"
    ));
    folder
}

/// The lines and scores of CSV.
fn scores_of_csv(text: &str) -> Vec<(u64, f32)> {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("line,prediction"));
    let pair = |line: &str| {
        let (line, score) = line.split_once(',').unwrap();
        (line.parse().unwrap(), score.parse().unwrap())
    };
    lines.map(pair).collect()
}

fn scores_of_json(objects: &[Value]) -> Vec<(u64, f32)> {
    let pair = |row: &Value| (row["line"].as_u64().unwrap(), row["prediction"].as_f64().unwrap() as f32);
    objects.iter().map(pair).collect()
}

#[test]
fn a_first_session() {
    let folder = Folder::with_rows();
    let train =
        format!("train deepfm rows.csv --label clicked --ignore bought --out model --test rows.csv {TINY}");
    assert_measured("ranker-train", folder.screen(&train));
    assert_measured("ranker-evaluate", folder.screen("evaluate model --test rows.csv"));
    assert_measured("ranker-inspect", folder.screen("inspect model"));
    let plan =
        json(&folder.succeeds("train deepfm rows.csv --label clicked --ignore bought --dry-run --json"));
    assert_eq!(
        (plan["rows"].as_u64(), plan["fields"].as_u64(), plan["numeric"].as_u64()),
        (Some(400), Some(5), Some(1))
    );
    let inspected = json(&folder.succeeds("inspect model --verify --json"));
    assert_eq!(
        (&inspected["features"]["labels"][0], &inspected["verified"]),
        (&"clicked".into(), &true.into())
    );
    let fields = inspected["features"]["fields"].as_array().unwrap();
    assert_eq!(fields.iter().filter(|field| field["bag"] == true).count(), 1);
}

#[test]
fn every_form_of_output_has_the_same_scores() {
    let folder = trained();
    let wanted = scores_of_csv(&folder.succeeds("predict model rows.csv"));
    assert_eq!((wanted.len(), wanted[0].0, wanted[399].0), (400, 2, 401));
    assert!(wanted.iter().all(|(_, score)| (0.0..=1.0).contains(score)));
    assert!(wanted.iter().any(|(_, score)| *score != wanted[0].1), "all scores are equal");
    let lines = |text: &str| text.lines().map(json).collect::<Vec<Value>>();
    assert_eq!(scores_of_json(&lines(&folder.succeeds("predict model rows.csv --output jsonl"))), wanted);
    let object = json(&folder.succeeds("predict model rows.csv --json"));
    assert_eq!(scores_of_json(object["predictions"].as_array().unwrap()), wanted);
    assert_eq!(object["model_version"], "1");
    for name in ["scores.csv", "scores.jsonl", "scores.parquet"] {
        assert_eq!(folder.succeeds(&format!("predict model rows.csv --output {name}")), "");
    }
    let text = |name: &str| fs_err::read_to_string(folder.at(name)).unwrap();
    assert_eq!(scores_of_csv(&text("scores.csv")), wanted);
    assert_eq!(scores_of_json(&lines(&text("scores.jsonl"))), wanted);
    assert_eq!(scores_of_parquet(&folder, "scores.parquet"), wanted);
}

fn scores_of_parquet(folder: &Folder, name: &str) -> Vec<(u64, f32)> {
    let file = fs_err::File::open(folder.at(name)).unwrap().into_file();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let mut scores = Vec::new();
    for batch in batches {
        let batch = batch.unwrap();
        let (lines, predictions) = (&batch["line"], &batch["prediction"]);
        let lines = lines.as_primitive::<UInt64Type>().values();
        let predictions = predictions.as_primitive::<Float32Type>().values();
        scores.extend(lines.iter().copied().zip(predictions.iter().copied()));
    }
    scores
}

#[test]
fn rows_score_the_same_from_every_format_in_any_order_of_columns_and_without_the_label() {
    let folder = trained();
    let text = fs_err::read_to_string(folder.at("rows.csv")).unwrap();
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(',').collect()).collect();
    let (mut csv, mut jsonl) = (String::from("member,new,tags,price,item,user\n"), String::new());
    for row in &rows {
        let [user, item, price, tags, member, ..] = row[..] else { panic!("{row:?}") };
        csv += &format!("{member},0,{tags},{price},{item},{user}\n");
        let tags: Vec<&str> = tags.split('|').filter(|tag| !tag.is_empty()).collect();
        let member: bool = member.parse().unwrap();
        let price: f64 = price.parse().unwrap();
        let object =
            serde_json::json!({"user": user, "item": item, "price": price, "tags": tags, "member": member});
        jsonl += &format!("{object}\n");
    }
    folder.write("other.csv", csv);
    folder.write("rows.jsonl", jsonl);
    let texts = |column: usize| -> ArrayRef {
        Arc::new(rows.iter().map(|row| Some(row[column])).collect::<StringArray>())
    };
    let prices: Float64Array = rows.iter().map(|row| row[2].parse::<f64>().ok()).collect();
    let members: BooleanArray = rows.iter().map(|row| row[4].parse::<bool>().ok()).collect();
    let clicked: Int64Array = rows.iter().map(|row| row[5].parse::<i64>().ok()).collect();
    let batch = RecordBatch::try_from_iter([
        ("clicked", Arc::new(clicked) as ArrayRef),
        ("member", Arc::new(members) as ArrayRef),
        ("user", texts(0)),
        ("item", texts(1)),
        ("price", Arc::new(prices) as ArrayRef),
        ("tags", texts(3)),
    ])
    .unwrap();
    let mut parquet = ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    parquet.write(&batch).unwrap();
    folder.write("rows.parquet", parquet.into_inner().unwrap());
    let scores = |name: &str| -> Vec<f32> {
        let printed = scores_of_csv(&folder.succeeds(&format!("predict model {name}")));
        printed.into_iter().map(|(_, score)| score).collect()
    };
    let wanted = scores("rows.csv");
    for name in ["other.csv", "rows.jsonl", "rows.parquet"] {
        assert!(scores(name) == wanted, "{name}");
    }
    // And they are learned from alike, where both have the same columns.
    folder.succeeds("train fm rows.parquet --label clicked --out other --embedding-dim 4 --epochs 1");
}

#[test]
fn what_is_printed_for_programs_has_the_metrics() {
    let folder = Folder::with_rows();
    let train = format!(
        "train deepfm rows.csv --label clicked --ignore bought --group user --out model --json {TINY}"
    );
    let trained = json(&folder.succeeds(&format!("{train} --test rows.csv --holdout 0.3")));
    assert_eq!((trained["version"].as_str(), trained["epochs"].as_u64()), (Some("1"), Some(2)));
    assert!(trained["loss"].as_f64() > Some(0.0), "{trained}");
    let evaluated = json(&folder.succeeds("evaluate model --test rows.csv --json"));
    assert_eq!(evaluated["rows"], 400);
    assert_eq!(evaluated["metrics"], trained["test"]);
    for metric in ["auc", "gauc", "accuracy", "average_precision", "expected_calibration_error"] {
        for metrics in [&trained["valid"], &evaluated["metrics"]] {
            assert!(
                metrics[metric].as_f64().is_some_and(|value| (0.0..=1.0).contains(&value)),
                "{metric} {metrics}"
            );
        }
    }
    assert!(evaluated["metrics"]["auc"].as_f64() > Some(0.6), "{evaluated}");
    let by_item = json(&folder.succeeds("evaluate model --test rows.csv --group item --json"));
    assert_eq!(by_item["metrics"]["auc"], evaluated["metrics"]["auc"]);
    assert_ne!(by_item["metrics"]["gauc"], evaluated["metrics"]["gauc"]);
}

#[test]
fn a_printed_schema_and_flags_train_the_same_model() {
    let folder = Folder::with_rows();
    let columns = "--label clicked --ignore bought --categorical price --min-count 3";
    folder.write("schema.toml", folder.succeeds(&format!("schema rows.csv {columns}")));
    folder.succeeds(&format!("train deepfm rows.csv {columns} --out flags {TINY}"));
    folder.succeeds(&format!("train deepfm rows.csv --schema schema.toml --out schema {TINY}"));
    let config = "data = \"rows.csv\"\nlabel = \"clicked\"\nignore = [\"bought\"]\ncategorical = \"price\"\nmin_count = 3\n\
        hidden = [8]\nembedding_dim = 4\nepochs = 5\nbatch_size = 32\nlearning_rate = 0.05\nout = \"config\"\n";
    folder.write("config.toml", config);
    folder.succeeds("train deepfm --config config.toml --epochs 2");
    let scores =
        ["flags", "schema", "config"].map(|model| folder.succeeds(&format!("predict {model} rows.csv")));
    assert!(scores[0] == scores[1] && scores[1] == scores[2]);
}

#[test]
fn what_is_learned_again_is_learned_from_all_rows() {
    let folder = Folder::with_rows();
    let train = format!("train deepfm rows.csv --label clicked --ignore bought --patience 0 {TINY}");
    let told = folder.screen(&format!("{train} --refit --out refit"));
    assert!(told.contains("learning once more from all 400 rows"), "{told}");
    let kept = json(&folder.succeeds("inspect refit --json"))["config"]["model"]["epochs"].clone();
    let epochs = kept.as_u64().unwrap_or_else(|| panic!("{kept}"));
    let all = train.replace("--epochs 2", &format!("--epochs {epochs}")).replace(" --patience 0", "");
    folder.succeeds(&format!("{all} --holdout 0 --out all"));
    assert_eq!(folder.succeeds("predict refit rows.csv"), folder.succeeds("predict all rows.csv"));
}

#[test]
fn two_labels_have_two_predictions() {
    let folder = Folder::with_rows();
    let train =
        "train mmoe rows.csv --label clicked,bought --out model --embedding-dim 4 --epochs 2 --batch-size 32";
    folder.succeeds(&format!("{train} --valid-metric logloss/bought"));
    let printed = folder.succeeds("predict model rows.csv");
    assert!(printed.starts_with("line,prediction_clicked,prediction_bought\n2,"), "{printed}");
    let metrics = json(&folder.succeeds("evaluate model --test rows.csv --json"))["metrics"].clone();
    let value = |name: &str| metrics[name].as_f64().unwrap_or_else(|| panic!("{metrics}"));
    let mean = (value("auc/clicked") + value("auc/bought")) / 2.0;
    assert!((value("auc") - mean).abs() < 1e-9, "{metrics}");
    assert_screen!(
        "ranker-two-labels-one-learned",
        folder.screen("train deepfm rows.csv --label clicked,bought --out other --quiet")
    );
}

#[test]
fn every_model_is_trained_and_asked() {
    let folder = Folder::with_rows();
    for model in
        ["logistic", "fm", "wide-deep", "dcn-v2", "dlrm", "autoint", "finalmlp", "shared-bottom", "mmoe"]
    {
        let train =
            format!("train {model} rows.csv --label clicked --ignore bought --out {model} --epochs 1 --json");
        let trained = json(&folder.succeeds(&train));
        let predicted = scores_of_csv(&folder.succeeds(&format!("predict {model} rows.csv")));
        assert!(trained["valid"]["auc"].is_f64() && predicted.len() == 400, "{model} {trained}");
    }
}

#[test]
fn no_rows_to_score_are_no_scores() {
    let folder = trained();
    folder.write("none.csv", "user,item,price,tags,member\n");
    assert_eq!(folder.succeeds("predict model none.csv"), "line,prediction\n");
    folder.succeeds("predict model none.csv --output none.parquet");
    assert!(scores_of_parquet(&folder, "none.parquet").is_empty());
}

#[test]
fn rows_of_one_label_have_no_auc() {
    let folder = trained();
    folder
        .write("ones.csv", "user,item,price,tags,member,clicked\nu1,i1,3,red,true,1\nu99,i1,3,red,true,1\n");
    assert_measured("ranker-evaluate-one-class", folder.screen("evaluate model --test ones.csv"));
}

#[test]
fn flags_that_contradict_each_other() {
    let folder = trained();
    let train = |flags: &str| {
        folder.screen(&format!("train deepfm rows.csv --label clicked --out m --quiet {flags}"))
    };
    for (name, flags) in [
        ("metric-unknown", "--valid-metric acu"),
        ("metric-gauc", "--valid-metric gauc"),
        ("metric-of-one-label", "--valid-metric auc/clicked"),
        ("holdout-too-large", "--holdout 0.9"),
        ("holdout-and-valid", "--holdout 0.2 --valid rows.csv"),
        ("refit-and-valid", "--refit --valid rows.csv"),
        ("refit-of-nothing", "--refit --holdout 0"),
        ("keep-none", "--keep 0"),
        ("bad-values", "--hidden 0 --dropout 1 --learning-rate 0 --batch-size 0 --epochs 0"),
        ("from", "--from model"),
        ("batch-norm-of-one", "--batch-norm --batch-size 1"),
        ("checkpoints-of-model", "--checkpoint-steps 5 --checkpoints model"),
        ("checkpoints-of-file", "--checkpoint-steps 5 --checkpoints rows.csv"),
        ("schema-and-label", "--schema schema.toml"),
    ] {
        assert_screen!(format!("ranker-{name}"), train(flags));
    }
    assert_screen!("ranker-stdin", folder.screen("train deepfm - --label clicked --out m"));
    folder.write("type.toml", "data = \"rows.csv\"\nout = \"m\"\nhidden = 8\n");
    assert_screen!("ranker-config-type", folder.screen("train deepfm --config type.toml"));
    folder.write("other.toml", "model = \"deepfm\"\nhidden = [8]\n");
    assert_screen!("ranker-config-other", folder.screen("train fm --config other.toml"));
    folder.write("bare.toml", "epochs = 2\n");
    assert_screen!("ranker-config-bare", folder.screen("train deepfm --config bare.toml"));
    assert!(!folder.at("m").exists());
}

#[test]
fn files_that_nothing_can_be_learned_from() {
    let folder = trained();
    folder.write("empty.csv", "");
    folder.write("header.csv", "user,price,clicked\n");
    folder.write("fields.csv", "user,clicked\nu1,1\nu2\n");
    folder.write("values.csv", "user,clicked\nu1,1\nu2,5\n");
    folder.write("constant.csv", "user,clicked\nu1,1\nu2,1\n");
    folder.write("label.csv", "clicked\n1\n0\n");
    folder.write("few.csv", "user,clicked\nu1,1\nu2,0\nu1,1\nu3,1\nu4,1\nu5,1\nu6,1\n");
    for name in ["nowhere", "empty", "header", "fields", "values", "constant", "label"] {
        let screen = folder.screen(&format!("train deepfm {name}.csv --label clicked --out m --quiet"));
        assert_screen!(format!("ranker-data-{name}"), screen);
    }
    let few = "train deepfm few.csv --label clicked --out m --quiet";
    assert_screen!("ranker-data-few", folder.screen(few));
    assert_screen!(
        "ranker-data-without-label",
        folder.screen("train deepfm rows.csv --label click --out m --quiet")
    );
    assert!(!folder.at("m").exists());
    let train = "train deepfm rows.csv --label clicked --out m --quiet";
    assert_screen!("ranker-valid-lacks-a-column", folder.screen(&format!("{train} --valid values.csv")));
    assert_screen!("ranker-test-missing", folder.screen(&format!("{train} --test nowhere.csv")));
    assert_screen!(
        "ranker-valid-header",
        folder.screen(&format!("{train} --ignore item,tags,member,bought --valid header.csv"))
    );
    assert!(!folder.at("m").exists());
    // With another metric, or with nothing to validate on, a few rows are enough.
    folder.succeeds(&format!("{few} --valid-metric logloss --epochs 1"));
    let told = folder.screen("train fm few.csv --label clicked --out m --epochs 1 --holdout 0.0001");
    assert!(told.contains("warning: --holdout 0.0001 of 7 rows is none"), "{told}");
}

#[test]
fn numbers_that_explode_are_told() {
    let folder = Folder::with_rows();
    let train = "train fm rows.csv --label clicked --out m --quiet --embedding-dim 4 --epochs 2 --learning-rate 1e30 --optimizer sgd --table-optimizer sgd";
    let told = folder.screen(train);
    assert!(told.starts_with("status: 1") && told.contains("hint: a smaller --learning-rate"), "{told}");
    assert!(!folder.at("m").exists());
}

#[test]
fn what_a_ranker_cannot_do_and_what_it_alone_can() {
    let folder = trained();
    folder.write("lacks.csv", "user,price,clicked\nu1,3,1\n");
    folder.write("header.csv", "user,item,price,tags,member,clicked\n");
    folder.write("label.csv", "user,item,price,tags,member,clicked\nu1,i1,3,red,true,2\n");
    for (name, command) in [
        ("recommend", "recommend model --user u1"),
        ("similar", "similar model --item i1"),
        ("serve", "serve model --bind 127.0.0.1:0"),
        ("user-ids", "inspect model --user-ids"),
        ("evaluate-lists", "evaluate model --test rows.csv --k 5"),
        ("evaluate-no-rows", "evaluate model --test header.csv"),
        ("evaluate-label", "evaluate model --test label.csv"),
        ("evaluate-no-group", "evaluate model --test rows.csv --group nothing"),
        ("predict-lacks", "predict model lacks.csv"),
        ("predict-user-column", "predict model rows.csv --user-column user"),
        ("predict-nowhere", "predict model rows.csv --output nowhere/scores.csv"),
    ] {
        assert_screen!(format!("ranker-{name}"), folder.screen(command));
    }
    let ratings = Folder::with_ratings();
    ratings.succeeds("train als ratings.csv --out model --factors 2 --iterations 1");
    assert_screen!("list-model-predict-output", ratings.screen("predict model ratings.csv --output s.csv"));
    assert_screen!(
        "list-model-evaluate-group",
        ratings.screen("evaluate model --test ratings.csv --group user_id")
    );
}

#[test]
fn a_gpu_learns_and_scores_as_the_cpu_does() {
    if let Err(reason) = recmill_kernels::Device::Wgpu(0).check() {
        assert!(std::env::var_os("RECMILL_REQUIRE_WGPU").is_none(), "{reason}");
        eprintln!("skipped: {reason}");
        return;
    }
    let folder = trained();
    let learn =
        format!("train deepfm rows.csv --label clicked --ignore bought --group user --out gpu {TINY}");
    let said =
        folder.screen(&format!("{learn} --device wgpu:0 --table-precision f16 --dense-precision bf16"));
    assert!(said.contains("training on a GPU has no products of bf16"), "{said}");
    for model in ["model", "gpu"] {
        let score = |device: &str| folder.succeeds(&format!("predict {model} rows.csv --device {device}"));
        let (on_cpu, on_gpu) = (scores_of_csv(&score("cpu")), scores_of_csv(&score("wgpu:0")));
        assert!(!on_cpu.is_empty() && on_cpu.len() == on_gpu.len());
        for (a, b) in on_cpu.iter().zip(&on_gpu) {
            assert!(a.0 == b.0 && (a.1 - b.1).abs() < 1e-4, "{model}: {a:?} beside {b:?}");
        }
        let auc = |device: &str| {
            let evaluated =
                folder.succeeds(&format!("evaluate {model} --test rows.csv --json --device {device}"));
            json(&evaluated)["metrics"]["auc"].as_f64().unwrap()
        };
        assert!((auc("cpu") - auc("wgpu:0")).abs() < 1e-3, "{model}");
    }
    // What runs on the processor alone is not done there where another device was named.
    let ratings = Folder::with_ratings();
    ratings.succeeds("train svd ratings.csv --iterations 2 --out svd");
    for asked in ["evaluate svd --test ratings.csv", "predict svd ratings.csv"] {
        let told = ratings.screen(&format!("{asked} --device wgpu:0"));
        assert!(
            told.starts_with("status: 1") && told.contains("predicting values does not run on `wgpu:0`"),
            "{told}"
        );
    }
}

#[test]
fn damaged_features_are_named() {
    let folder = trained();
    let path = folder.at("model/versions/1/features.json");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, text.replacen("clicked", "clicket", 1)).unwrap();
    assert_screen!("ranker-damage-predict", folder.screen("predict model rows.csv"));
    let verified = folder.screen("inspect model --verify");
    assert!(verified.starts_with("status: 1"), "{verified}");
    let told = verified.split("----- stderr -----").last().unwrap_or_default();
    assert!(told.contains("features.json: "), "{verified}");
    fs_err::write(&path, &text[..40]).unwrap();
    assert_screen!("ranker-damage-truncated", folder.screen("predict model rows.csv"));
    fs_err::remove_file(&path).unwrap();
    assert_screen!("ranker-damage-missing", folder.screen("inspect model --verify"));
}
