//! The model that tells what texts are about: the whole way through the command, and what is told when it is used wrongly.

use serde_json::Value;

use crate::screen::{Folder, assert_screen, filters};

const TINY: &str = "--epochs 6 --batch-size 16 --buckets 4096";

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Compares a screen with its snapshot, whose measured numbers are not the same on every processor.
fn assert_measured(name: &str, screen: String) {
    let mut filters: Vec<(&str, &str)> = filters();
    filters.push((r"\d\.\d{2,}", "[NUMBER]"));
    filters.push((r"keeping epoch \d", "keeping epoch [N]"));
    insta::with_settings!({ filters => filters, omit_expression => true }, {
        insta::assert_snapshot!(name, screen);
    });
}

fn trained() -> Folder {
    let folder = Folder::with_messages();
    folder.succeeds(&format!("train text messages.csv --out model --quiet {TINY}"));
    folder
}

#[test]
fn a_first_session() {
    let folder = Folder::with_messages();
    assert_measured(
        "text-train",
        folder.screen(&format!("train text messages.csv --out model --refit --test messages.csv {TINY}")),
    );
    assert_measured("text-evaluate", folder.screen("evaluate model --test messages.csv"));
    assert_measured("text-inspect", folder.screen("inspect model"));
    let plan = json(&folder.succeeds("train text messages.csv --dry-run --json"));
    assert_eq!((plan["texts"].as_u64(), plan["classes"].as_u64()), (Some(400), Some(3)));
    let inspected = json(&folder.succeeds("inspect model --verify --json"));
    assert_eq!(inspected["classes"]["names"][2], "weather");
    assert_eq!(inspected["verified"], true);
}

#[test]
fn what_a_text_is_about_and_when_it_is_about_nothing() {
    let folder = trained();
    folder.write("asked.csv", "message\nthe forecast please\nmy volcano\n\n\"\"\n");
    let csv = folder.succeeds("predict model asked.csv");
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["line", "prediction", "probability", "in_scope"]);
    assert_eq!([lines[1][0], lines[1][1], lines[1][3]], ["2", "weather", "true"]);
    assert_eq!((lines[2][0], lines[2][3]), ("3", "false"));
    assert!(lines.iter().skip(1).all(|line| (0.0..=1.0).contains(&line[2].parse::<f32>().unwrap())));

    let all = folder.succeeds("predict model asked.csv --threshold 0");
    assert!(!all.contains("false"), "{all}");
    let object = json(&folder.succeeds("predict model asked.csv --json"));
    assert_eq!(object["predictions"][0]["prediction"], "weather");
    assert_eq!(object["predictions"][1]["in_scope"], false);

    let measured = |flags: &str| {
        let text = folder.succeeds(&format!("evaluate model --test messages.csv --json {flags}"));
        json(&text)
    };
    let found = measured("");
    assert_eq!((found["in_scope"].as_u64(), found["out_of_scope"].as_u64()), (Some(300), Some(100)));
    assert!(found["metrics"]["accuracy"].as_f64() > Some(0.95), "{found}");
    assert!(found["metrics"]["out_of_scope_recall"].as_f64() > Some(0.95), "{found}");
    let none = measured("--threshold 0");
    assert_eq!(none["metrics"]["out_of_scope_recall"], 0.0);
}

#[test]
fn the_same_seed_gives_the_same_files() {
    let folder = trained();
    folder.succeeds(&format!("train text messages.csv --out again --quiet {TINY}"));
    let read = |name: &str| fs_err::read(folder.at(name)).unwrap();
    for name in ["model.safetensors", "classes.json"] {
        assert_eq!(read(&format!("model/versions/1/{name}")), read(&format!("again/versions/1/{name}")));
    }
}

#[test]
fn wrong_use_is_told() {
    let folder = trained();
    folder.write("one.csv", "text,label\nhello,a\nyou,a\n");
    folder.write("other.csv", "body,topic\nhello,a\n");
    folder.write("gap.csv", "text,label\nhello,a\n,b\n");
    folder.write("more.csv", "text,label\nyou,b\n");
    folder.write("empty.csv", "");
    folder.write("head.csv", "text,label\n");
    folder.write("strange.csv", "message,intent\nrain,weather\nrain,umbrellas\n");
    for (name, arguments) in [
        ("one-class", "train text one.csv --out m"),
        ("no-column", "train text other.csv --out m"),
        ("no-text", "train text gap.csv --out m"),
        ("empty", "train text empty.csv --out m"),
        ("no-rows", "train text head.csv --out m"),
        ("stdin", "train text - --out m"),
        ("wrong-values", "train text messages.csv --out m --dropout 1 --min-characters 9 --buckets 0"),
        ("wrong-metric", "train text messages.csv --out m --valid-metric auc"),
        ("refit-valid", "train text messages.csv --out m --refit --valid messages.csv"),
        ("wrong-threshold", "predict model messages.csv --threshold 2"),
        ("predict-column", "predict model one.csv"),
        ("unknown-label", "evaluate model --test strange.csv --json"),
        ("recommend", "recommend model --user a"),
        ("users", "inspect model --user-ids"),
        ("lists", "evaluate model --test messages.csv -k 5"),
    ] {
        assert_measured(&format!("text-wrong-{name}"), folder.screen(arguments));
    }
    assert!(!folder.at("m").exists());
    // What is left out is counted.
    assert_screen!(
        "text-skip",
        folder.screen("train text gap.csv more.csv --out m --on-bad-row skip --dry-run")
    );
}

#[test]
fn damage_is_named() {
    let folder = trained();
    let path = folder.at("model/versions/1/classes.json");
    let text = fs_err::read_to_string(&path).unwrap();
    fs_err::write(&path, text.replace("money", "honey")).unwrap();
    let screen = folder.screen("predict model messages.csv");
    assert!(screen.contains("classes.json") && screen.starts_with("status: 1"), "{screen}");
}
