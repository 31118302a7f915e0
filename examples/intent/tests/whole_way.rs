//! The command from nothing to a log of replies, on a small cut, and what it refuses.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

fn intent(arguments: &[&str], out: &Path, typed: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recmill-example-intent"));
    command.args(arguments).arg("--out").arg(out);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn printed(output: &Output) -> String {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout.into_owned()
}

/// The number of the line that begins with `name`.
fn number(report: &str, name: &str) -> f64 {
    let line = report.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().last().unwrap().parse().unwrap()
}

#[test]
fn from_nothing_to_a_log_of_replies() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("made");
    let report = printed(&intent(&["--messages", "1800"], &out, ""));
    assert!(number(&report, "accuracy ") > 0.9, "{report}");
    assert!(number(&report, "out_of_scope_recall") > 0.6, "{report}");
    assert!(report.contains("handed over to a person") && report.contains("a second"), "{report}");
    let log = fs_err::read_to_string(out.join("dialogue.csv")).unwrap();
    assert_eq!(log.lines().next(), Some("turn,message,intent,confidence,decision,reply"));
    assert!(log.lines().count() > 300 && log.contains(",answered,") && log.contains(",handed over,"));

    // What was made up, read back from its files, and a talk of two messages.
    let replies = folder.path().join("replies.csv");
    fs_err::write(&replies, "pin,Press the key.\n").unwrap();
    let again = folder.path().join("again");
    let arguments = ["--data", out.to_str().unwrap(), "--replies", replies.to_str().unwrap(), "--talk"];
    let talked =
        printed(&intent(&arguments, &again, "please change the pin of my visa\n\nhow do volcanoes work\n"));
    assert_eq!(number(&talked, "accuracy "), number(&report, "accuracy "));
    assert!(talked.contains("[pin ") && talked.contains("Press the key."), "{talked}");
    assert!(talked.contains("[person ") && talked.contains("1 messages answered, 1 handed over"), "{talked}");
}

#[test]
fn what_cannot_be_done_is_a_message() {
    let folder = tempfile::tempdir().unwrap();
    let told = |arguments: &[&str]| {
        let output = intent(arguments, &folder.path().join("out"), "");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let missing = told(&["--data", "/nowhere"]);
    assert!(missing.contains("train.csv"), "{missing}");
    let none = told(&["--replies", "/nowhere/replies.csv"]);
    assert!(none.contains("replies.csv"), "{none}");
    let few = told(&["--messages", "3"]);
    assert!(few.contains("600"), "{few}");
}
