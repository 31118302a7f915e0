//! Fraud in card transactions: from what was paid to what is stopped.
//!
//! ```text
//! generate or read  ->  features  ->  split by day  ->  learn (DCN-v2)  ->  decide at a threshold  ->  picture
//!
//! cargo run --release -p recmill-example-risk -- --out risk-out
//! ```

mod decide;
mod failure;
mod features;
mod generate;
mod learn;
mod picture;
mod report;
mod split;
mod transactions;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use recmill::{directory::check_destination, metrics::BinaryMetrics};

use crate::{
    decide::{Point, Scored, decide, precision_recall, threshold},
    failure::Result,
    generate::{World, generate},
    picture::Picture,
    split::{Days, Parts},
    transactions::Transaction,
};

/// Learns which card transactions are frauds, and decides which to stop.
#[derive(Parser)]
struct Arguments {
    /// Folder for the rows, the model, the decisions and the picture; what is there of the same names is replaced.
    #[arg(long, value_name = "DIRECTORY", default_value = "risk-out")]
    out: PathBuf,
    /// Days to make up.
    #[arg(long, default_value_t = 86, value_parser = clap::value_parser!(u32).range(21..=3650))]
    days: u32,
    /// Customers to make up.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    customers: u32,
    /// Terminals to make up.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    terminals: u32,
    /// Seed of all that is drawn at random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Share of the honest transactions that may be stopped.
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = rate)]
    false_positive_rate: f64,
    /// Reads transactions of this file instead of making them up; its columns are those of the Fraud Detection Handbook.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["days", "customers", "terminals"])]
    transactions: Option<PathBuf>,
}

fn rate(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate < 1.0 => Ok(rate),
        _ => Err("expected a share between 0 and 1".to_owned()),
    }
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

    let (transactions, rows) = match &arguments.transactions {
        Some(path) => {
            let content = transactions::read(path)?;
            (content.transactions, content.rows)
        }
        None => {
            let &Arguments { days, customers, terminals, seed, .. } = arguments;
            let transactions = generate(&World { days, customers, terminals, seed });
            transactions::write(&file("transactions.csv"), &transactions)?;
            (transactions, None)
        }
    };
    let first = transactions.first().map_or(0, Transaction::day);
    let n_days = transactions.last().map_or(0, |last| last.day() + 1 - first);
    let days = Days::cut(first, n_days, rows.is_some())?;
    let parts = Parts::of(&days, &transactions)?;
    let rows = rows.unwrap_or_else(|| features::rows(&transactions));
    report::data(out, &transactions, &days, &parts)?;

    let [train, validation, test] = ["train.csv", "validation.csv", "test.csv"].map(file);
    for (path, part) in [(&train, &parts.train), (&validation, &parts.validation), (&test, &parts.test)] {
        features::write(path, part.iter().map(|&at| (&rows[at], transactions[at].fraud)))?;
    }
    let descent = learn::train(&train, &validation, arguments.seed, &model)?;
    report::training(out, &descent)?;

    // What decides is what was saved: a server would open the same folder.
    let ranker = learn::open(&model)?;
    let scored = |path: &Path, part: &[usize]| -> Result<Vec<Scored>> {
        let scores = learn::score(&ranker, path)?;
        let pairs = part.iter().zip(scores);
        Ok(pairs.map(|(&at, score)| Scored { score, transaction: transactions[at] }).collect())
    };
    let (validation, test) = (scored(&validation, &parts.validation)?, scored(&test, &parts.test)?);
    report::quality(out, &measure(&validation)?, &measure(&test)?)?;

    let wanted = arguments.false_positive_rate;
    let chosen = threshold(&validation, wanted);
    report::rates(out, &validation, &test, wanted)?;
    report::decisions(out, &test, chosen)?;
    report::write_decisions(&file("decisions.csv"), &test, chosen)?;

    let decisions = decide(&test, chosen);
    let picture = Picture {
        title: "Precision and recall on the test days",
        curve: &precision_recall(&test),
        chosen: Point { recall: decisions.recall(), precision: decisions.precision() },
        label: &format!("threshold for {} false positives: {chosen:.3}", report::percent(wanted)),
        chance: decide::share(decisions.frauds, test.len() as u64),
    };
    picture.write(&file("precision-recall.svg"))?;
    writeln!(out, "\nwrote {}", arguments.out.display())?;
    Ok(())
}

fn measure(rows: &[Scored]) -> Result<BinaryMetrics> {
    let scores: Vec<f32> = rows.iter().map(|row| row.score).collect();
    let labels: Vec<f32> = rows.iter().map(|row| f32::from(u8::from(row.transaction.fraud))).collect();
    Ok(BinaryMetrics::of(&scores, &labels, &[], &[])?)
}
