//! Messages to an assistant: what is each about, and who answers it?
//!
//! ```text
//! make up or read  ->  learn (text)  ->  recognise, with a confidence  ->  reply, or hand over to a person  ->  log
//!
//! cargo run --release -p recmill-example-intent -- --out intent-out
//! ```

mod failure;
mod generate;
mod learn;
mod reply;
mod speed;

use std::{
    io::{self, BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use recmill::{
    directory::check_destination,
    text::{TextClassifier, TextMeasuring, TextRows},
};

use crate::{
    failure::Result,
    learn::{Message, OUT_OF_SCOPE},
    reply::{Replies, Turn},
};

/// Learns what messages are about, and answers those that it recognises.
#[derive(Parser)]
struct Arguments {
    /// Folder for the messages, the model and the log; what is there of the same names is replaced.
    #[arg(long, value_name = "DIRECTORY", default_value = "intent-out")]
    out: PathBuf,
    /// Messages to make up, of which a sixth are to validate on and a sixth to test on.
    #[arg(long, default_value_t = 6000, value_parser = clap::value_parser!(u64).range(600..=1_000_000))]
    messages: u64,
    /// Seed of all that is drawn at random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Reads train.csv, val.csv and test.csv of this folder instead, and oos_train.csv, oos_val.csv and oos_test.csv where they
    /// are; each with the columns text and label, and the label oos where a message is about nothing that can be answered.
    #[arg(long, value_name = "DIRECTORY", conflicts_with = "messages")]
    data: Option<PathBuf>,
    /// Replies by intent: a CSV file of an intent and a reply a line.
    #[arg(long, value_name = "FILE")]
    replies: Option<PathBuf>,
    /// Answers what is typed, or comes from a pipe, instead of the first messages of the test: a message a line.
    #[arg(long)]
    talk: bool,
}

#[expect(clippy::print_stderr, reason = "this is a command")]
fn main() -> ExitCode {
    match run(&Arguments::parse(), &mut io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Goes the whole way; `out` is told about it.
fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<()> {
    let file = |name: &str| arguments.out.join(name);
    let model = file("model");
    fs_err::create_dir_all(&arguments.out)?;
    check_destination(&model)?;
    let mut replies = Replies::built_in();
    if let Some(path) = &arguments.replies {
        replies.add_from(path)?;
    }

    let folder = match &arguments.data {
        Some(folder) => folder,
        None => {
            let part = arguments.messages / 6;
            let sizes = [("train", 0, 4 * part), ("val", 4 * part, part), ("test", 5 * part, part)];
            for (name, first, n) in sizes {
                let made: Vec<Message> = generate::messages(arguments.seed, first, n);
                learn::write(&file(&format!("{name}.csv")), &made)?;
            }
            &arguments.out
        }
    };
    let [train, valid, test] = ["train", "val", "test"].map(|part| learn::read(&learn::files(folder, part)));
    let (train, valid, test) = (train?, valid?, test?);
    writeln!(out, "            messages  out of scope")?;
    for (name, part) in [("training", &train), ("validation", &valid), ("test", &test)] {
        let elsewhere = part.labels.iter().filter(|label| *label == OUT_OF_SCOPE).count();
        writeln!(out, "{name:<12}{:>8}{elsewhere:>14}", part.texts.len())?;
    }
    let descent = learn::train(&train, &valid, arguments.seed, &model)?;

    // What answers is what was saved: a server would open the same folder.
    let classifier = learn::open(&model)?;
    let classes = classifier.classes();
    writeln!(
        out,
        "\n{} intents, {} n-grams; kept epoch {} of {}; out of scope below {:.3}\n",
        classes.names.len(),
        classifier.n_rows(),
        descent.kept_epoch,
        descent.epochs.len(),
        classes.threshold
    )?;
    for (name, value) in measure(&classifier, &test)? {
        writeln!(out, "{name:<28}{value:>7.4}")?;
    }
    writeln!(out)?;
    let turns = match arguments.talk {
        true => talk(&replies, &classifier, out)?,
        false => {
            let turns = replies.answer(&classifier, &test.texts)?;
            let (answered, handed_over) = examples(&turns);
            reply::print(out, &answered)?;
            reply::print(out, &handed_over)?;
            turns
        }
    };
    reply::write_log(&file("dialogue.csv"), &turns)?;
    let over = turns.iter().filter(|turn| turn.handed_over).count();
    writeln!(out, "\n{} messages answered, {over} handed over to a person", turns.len() - over)?;
    if let Some(speed) = speed::measure(&classifier, &test.texts)? {
        let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
        writeln!(
            out,
            "one message: {:.0} us, 99 of 100 within {:.0} us; many at a time: {:.0} a second",
            micros(speed.median),
            micros(speed.p99),
            speed.rate
        )?;
    }
    writeln!(out, "wrote {}", arguments.out.display())?;
    Ok(())
}

fn measure(classifier: &TextClassifier, test: &TextRows) -> Result<Vec<(String, f64)>> {
    let mut probabilities = Vec::new();
    classifier.probabilities(&test.texts, &mut probabilities)?;
    let mut measuring = TextMeasuring::new(classifier);
    measuring.add(&probabilities, &test.labels);
    Ok(measuring.finish().metrics.into_iter().collect())
}

/// Returns the first few turns that were answered, and the first few that were not.
fn examples(turns: &[Turn]) -> (Vec<Turn>, Vec<Turn>) {
    let first = |over: bool, n: usize| -> Vec<Turn> {
        turns.iter().filter(|turn| turn.handed_over == over).take(n).cloned().collect()
    };
    (first(false, 4), first(true, 3))
}

/// Answers line by line, until there are no more.
fn talk(replies: &Replies, classifier: &TextClassifier, out: &mut dyn Write) -> Result<Vec<Turn>> {
    if io::stdin().is_terminal() {
        writeln!(out, "type a message and Enter; Ctrl-D ends")?;
    }
    let mut turns = Vec::new();
    for line in io::stdin().lock().lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let turn = replies.answer(classifier, &[line])?;
        reply::print(out, &turn)?;
        turns.extend(turn);
    }
    Ok(turns)
}
