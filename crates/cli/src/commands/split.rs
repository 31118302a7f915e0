//! `recmill split`: interactions into training, validation and test files.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use recmill_core::data::{Repeats, SplitMethod, parse_time, split};

use crate::{
    failure::{Failure, Result},
    output::{Out, count, note},
    progress::Bar,
    read_flags::ReadFlags,
};

/// Arguments of `recmill split`.
#[derive(Args)]
#[command(group = ArgGroup::new("method").required(true).args(["leave_last_out", "at", "fraction"]))]
#[command(
    after_help = "Writes train.csv, valid.csv and test.csv with all columns of the data. No pair of a user and an \
    item is in more than one of them.\n\n\
    Example: recmill split ratings.csv --out parts --leave-last-out"
)]
pub(crate) struct Split {
    /// Interactions: files, directories, patterns such as 'data/*.csv', URLs, or - for standard input.
    #[arg(required = true)]
    data: Vec<String>,
    /// Folder to write to.
    #[arg(long, short, value_name = "FOLDER")]
    out: PathBuf,
    /// A user's last event goes to test, the last but one to valid; users with fewer than 3 stay in train.
    #[arg(long)]
    leave_last_out: bool,
    /// Events from this time on go to test: seconds since 1970, or a date such as 2024-05-01.
    #[arg(long, value_name = "TIME", allow_negative_numbers = true)]
    at: Option<String>,
    /// This share of the pairs, drawn at random, goes to test.
    #[arg(long, value_name = "SHARE")]
    fraction: Option<f64>,
    /// Events from this time up to --at go to valid [default: none do].
    #[arg(long, value_name = "TIME", requires = "at", allow_negative_numbers = true)]
    valid_at: Option<String>,
    /// This share of the pairs goes to valid [default: as much as --fraction].
    #[arg(long, value_name = "SHARE", requires = "fraction")]
    valid_fraction: Option<f64>,
    /// The shares hold for each user rather than for the whole.
    #[arg(long, requires = "fraction")]
    per_user: bool,
    /// Seed of the draw.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: ReadFlags,
}

impl Split {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let method = self.method()?;
        let bar = Bar::spinner("splitting");
        let report = split(&self.data, &self.out, &method, &self.reading.options(Repeats::Sum))?;
        drop(bar);
        if self.json {
            let mut out = Out::new();
            out.json(&report)?;
            return out.finish();
        }
        for path in &report.files {
            let rows = match path.file_stem().and_then(|stem| stem.to_str()) {
                Some("train") => report.train,
                Some("valid") => report.valid,
                _ => report.test,
            };
            note!("{}: {} rows", path.display(), count(rows));
        }
        if report.left_out > 0 {
            note!(
                "{} rows are in no file: their pair is in a held-out file, or was there before",
                count(report.left_out)
            );
        }
        Ok(())
    }

    fn method(&self) -> Result<SplitMethod> {
        if let Some(test) = self.fraction {
            let valid = self.valid_fraction.unwrap_or(test);
            let fits = |share: f64| (0.0..1.0).contains(&share);
            if !(fits(test) && test > 0.0 && fits(valid) && test + valid < 1.0) {
                return Err(Failure::usage(format!(
                    "--fraction and --valid-fraction must leave something to train on: `{test}` and `{valid}`"
                ))
                .hint("--fraction 0.2 --valid-fraction 0.1 keeps 70% for training"));
            }
            return Ok(SplitMethod::Random { test, valid, seed: self.seed, per_user: self.per_user });
        }
        let Some(at) = &self.at else { return Ok(SplitMethod::LeaveLastOut) };
        let (test, valid) = (time("--at", at)?, self.valid_at.as_deref());
        let valid = valid.map(|text| time("--valid-at", text)).transpose()?;
        if valid.is_some_and(|valid| valid >= test) {
            return Err(Failure::usage("--valid-at must be before --at"));
        }
        Ok(SplitMethod::AtTime { valid, test })
    }
}

/// Reads the time that `flag` was given.
fn time(flag: &str, text: &str) -> Result<i64> {
    parse_time(text).ok_or_else(|| {
        Failure::usage(format!("{flag}: no time: `{text}`")).hint(
            "seconds since 1970 such as 964982703, or a date such as 2024-05-01 or 2024-05-01T12:00:00Z",
        )
    })
}
