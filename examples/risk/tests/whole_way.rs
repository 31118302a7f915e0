//! The command from nothing to a picture, on a small cut, and what it refuses.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    path::Path,
    process::{Command, Output},
};

fn risk(arguments: &[&str], out: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recmill-example-risk"));
    command.args(arguments).arg("--out").arg(out).output().unwrap()
}

fn printed(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

/// The numbers of the line that begins with `name`.
fn numbers(report: &str, name: &str) -> Vec<f64> {
    let line = report.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
    line.split_whitespace().filter_map(|word| word.trim_end_matches('%').parse().ok()).collect()
}

#[test]
fn from_nothing_to_decisions_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let made = folder.path().join("made");
    let small = ["--days", "70", "--customers", "500", "--terminals", "1000", "--seed", "1"];
    let report = printed(&risk(&small, &made));
    let auc = numbers(&report, "auc")[1];
    assert!(auc > 0.7, "{report}");
    let [recall, rate] = [3, 1].map(|column| numbers(&report, "> ")[column]);
    assert!(recall > 10.0 && rate < 5.0, "{report}");

    let picture = fs_err::read_to_string(made.join("precision-recall.svg")).unwrap();
    assert!(picture.starts_with("<svg ") && picture.len() < 100_000);
    assert!(picture.contains("threshold for 1% false positives"));
    let decisions = fs_err::read_to_string(made.join("decisions.csv")).unwrap();
    let rows = numbers(&report, "test ").into_iter().next_back().unwrap();
    assert!(rows > 0.0 && decisions.lines().count() > 100);

    // What was made up, read back from its file, ends in the same words.
    let read = folder.path().join("read");
    let transactions = made.join("transactions.csv");
    let again = ["--transactions", transactions.to_str().unwrap(), "--seed", "1"];
    let again = printed(&risk(&again, &read));
    let without_folder =
        |report: &str| report.lines().filter(|line| !line.starts_with("wrote")).collect::<String>();
    assert_eq!(without_folder(&again), without_folder(&report));
}

#[test]
fn what_cannot_be_done_is_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let output = risk(arguments, &folder.path().join("out"));
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(
        told(&["--transactions", "/nowhere.csv"]).starts_with("error: failed to open file `/nowhere.csv`")
    );
    assert!(told(&["--false-positive-rate", "1"]).contains("expected a share between 0 and 1"));
    assert!(told(&["--days", "20"]).contains("20 is not in 21..=3650"));
    let few = told(&["--days", "21", "--customers", "3", "--terminals", "3"]);
    assert!(few.contains("days hold 0 frauds"), "{few}");
}
