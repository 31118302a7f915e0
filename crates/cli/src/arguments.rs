//! The command line: its subcommands, the flags that all of them have, and how a run starts and ends.

use std::{collections::BTreeSet, ffi::OsString, process::ExitCode};

use clap::{ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};

use crate::{
    commands::{
        bench, demo, devices, doctor, evaluate, export, inspect, predict, recommend, report, schema, serve,
        similar, split, train,
    },
    failure::{Failure, Result},
    output::LogWriter,
    progress,
};

/// Trains and serves recommender models.
///
/// Data goes to standard output, everything else to standard error. Exit status: 0 done, 1 the work failed, 2 used
/// wrongly.
#[derive(Parser)]
#[command(name = "recmill", version, max_term_width = 100)]
#[command(after_help = "Start with `recmill demo`: it needs no data and shows every step.")]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Threads to compute with [default: one for each processor]. Results do not depend on it.
    #[arg(long, global = true, value_name = "N", env = "RECMILL_THREADS", hide_env = true)]
    threads: Option<usize>,

    /// Says more about what goes on; twice for everything.
    #[arg(long, short, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// Shows no progress, only warnings and errors.
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Trains on made-up data, evaluates and recommends: the whole way in one command, no file needed.
    Demo(demo::Demo),
    /// Trains a model and writes it to a directory.
    #[command(subcommand)]
    Train(Box<train::Train>),
    /// Cuts interactions into training, validation and test files.
    Split(split::Split),
    /// Guesses what each column of a file is to a ranker, and writes it down to be edited.
    Schema(Box<schema::SchemaCommand>),
    /// Measures how well a model recommends, or predicts, what is in a test file.
    Evaluate(evaluate::Evaluate),
    /// Recommends items to one user or to a file of users.
    Recommend(recommend::Recommend),
    /// Lists the items most like one item.
    Similar(similar::Similar),
    /// Writes the vectors of a model's items and users, as Parquet.
    Export(export::Export),
    /// Scores each row of a file, or predicts the value of each (user, item) row.
    Predict(predict::Predict),
    /// Tells what is in a model directory.
    Inspect(inspect::Inspect),
    /// Writes a page on a model: its data, its metrics, and who is served badly.
    Report(report::Report),
    /// Answers requests over HTTP.
    Serve(serve::Serve),
    /// Lists the processors that can be used.
    Devices(devices::Devices),
    /// Checks that a device computes what it should.
    Doctor(doctor::Doctor),
    /// Measures how fast a device is at recmill's operations.
    Bench(bench::Bench),
}

/// More processors than machines have; a typing error beyond it would take minutes to start.
const MOST_THREADS: usize = 1024;

/// Which flags were typed, by name, as opposed to those that have their default.
pub(crate) struct Given(BTreeSet<String>);

impl Given {
    fn of(mut matches: &ArgMatches) -> Self {
        while let Some((_, inner)) = matches.subcommand() {
            matches = inner;
        }
        let typed = |id: &&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        // Groups have ids as well; they are no flags and have no source of their own.
        let ids = matches.ids().map(clap::Id::as_str).filter(|id| matches.try_contains_id(id).is_ok());
        Self(ids.filter(typed).map(str::to_owned).collect())
    }

    /// Whether the flag of field `name` was typed.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Runs the command line of this process.
pub(crate) fn run() -> ExitCode {
    // A reader of a damaged file may panic; that becomes an error, and its words are nobody's business.
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !recmill_core::data::is_guarded() {
            default_hook(panic);
        }
    }));
    let (cli, given) = match parse(std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help that nobody reads to its end (`--help | head`) is no failure.
            drop(error.print());
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    match prepare(&cli).and_then(|()| dispatch(cli.command, &given)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn parse(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<(Cli, Given), clap::Error> {
    let matches = with_negative_numbers(Cli::command()).try_get_matches_from(arguments)?;
    Ok((Cli::from_arg_matches(&matches)?, Given::of(&matches)))
}

/// Takes `-1` for a value and not for a flag, everywhere, so that the flag can say what it expects.
fn with_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|argument| match argument.get_action().takes_values() {
        true => argument.allow_negative_numbers(true),
        false => argument,
    });
    command.mut_subcommands(with_negative_numbers)
}

fn prepare(cli: &Cli) -> Result<()> {
    if cli.quiet {
        progress::silence();
    }
    let level = match (cli.quiet, cli.verbose) {
        // Vulkan's loader reports as an error that there is no driver, which is no news to a machine without.
        (true, _) => "error,wgpu_hal::vulkan::instance=off",
        (false, 0) => "warn,wgpu_hal::vulkan::instance=off",
        (false, 1) => "warn,recmill=info,recmill_core=info,recmill_train=info,recmill_serve=info",
        (false, _) => "info,recmill=debug,recmill_core=debug,recmill_train=debug,recmill_serve=debug",
    };
    let filter = match std::env::var("RECMILL_LOG") {
        Ok(directives) => tracing_subscriber::EnvFilter::try_new(&directives).map_err(|error| {
            Failure::usage(format!("RECMILL_LOG `{directives}`: {error}"))
                .hint("use a level such as `debug`, or one for each crate as in `info,recmill_train=debug`")
        })?,
        Err(_) => tracing_subscriber::EnvFilter::new(level),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| LogWriter)
        .with_ansi(false)
        .without_time()
        .with_target(cli.verbose > 1)
        .init();
    if let Some(threads) = cli.threads {
        if threads == 0 {
            return Err(Failure::usage("--threads must be at least 1, not `0`"));
        }
        if threads > MOST_THREADS {
            return Err(Failure::usage(format!("--threads must be at most {MOST_THREADS}, not `{threads}`"))
                .hint("more threads than processors do not make anything faster"));
        }
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .map_err(|error| Failure::failed(format!("{threads} threads cannot be started: {error}")))?;
    }
    Ok(())
}

fn dispatch(command: Command, given: &Given) -> Result<()> {
    match command {
        Command::Demo(command) => command.run(),
        Command::Train(command) => command.run(given),
        Command::Split(command) => command.run(),
        Command::Schema(command) => command.run(),
        Command::Evaluate(command) => command.run(given),
        Command::Recommend(command) => command.run(),
        Command::Similar(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Predict(command) => command.run(given),
        Command::Inspect(command) => command.run(),
        Command::Report(command) => command.run(given),
        Command::Serve(command) => command.run(),
        Command::Devices(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Bench(command) => command.run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn typed_flags_are_told_from_defaults() {
        let line = ["recmill", "train", "als", "a.csv", "--out", "m", "--cg-steps", "5"];
        let (_, given) = parse(line.map(OsString::from)).unwrap();
        assert!(given.has("cg_steps") && given.has("out") && given.has("data"));
        assert!(!given.has("factors") && !given.has("seed"));
    }
}
