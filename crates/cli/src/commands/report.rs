//! `recmill report`: one page that says what a model is, how well it does, and for whom it does not.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::Args;
use recmill_core::{
    Dataset,
    data::Repeats,
    directory::{ModelDirectory, Verify, replace_file},
    evaluate::EvaluateOptions,
    rankers::{Measuring, Ranker},
    text::TextMeasured,
};

use crate::{
    arguments::Given,
    commands::evaluate::{explain, full, give_history, sorted},
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    model::Model,
    output::{Out, bytes, count, counted, note},
    progress::Bar,
    ranking::{self, INTERACTION_FLAGS, refuse_flags},
    read_flags::ReadFlags,
    reading,
    report::{
        findings::{CountedTest, Findings, Groups, LabelGroups, Test},
        is_report,
        lists::Lists,
        page,
    },
    texts,
};

/// Where the page goes where nobody says.
const DEFAULT_OUT: &str = "report.html";
/// Bytes at the beginning of a file that tell whether it is a report.
const HEAD: u64 = 512;
/// Groups of rows by their score.
const SCORE_GROUPS: usize = 10;
/// The flags that are about users and lists of items, by the names of their fields.
const OF_LISTS: [&str; 4] = ["k", "history", "users", "seed"];

/// Arguments of `recmill report`.
#[derive(Args)]
#[command(
    after_help = "The page stands alone: it loads nothing, so it can be sent, archived and opened without a network. What is measured on \
    --test is beside what recommending the most popular items would reach. Metrics are those of `recmill evaluate`, by the protocol `full`.\n\n\
    Example: recmill report model --test parts/test.csv --out report.html"
)]
pub(crate) struct Report {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// Where to write the page [default: report.html; with --json none is written unless this is given].
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Replaces --out also where it is no report.
    #[arg(long)]
    force: bool,
    /// Interactions, or rows with a label, that the model has not seen; repeatable.
    #[arg(long, value_name = "FILE")]
    test: Vec<String>,
    /// Lengths of lists to measure; charts show the shortest.
    #[arg(long, short, value_name = "N,N,...", value_delimiter = ',', default_value = "10,20",
        value_parser = clap::value_parser!(u32).range(1..))]
    k: Vec<u32>,
    /// What each user had done before the test; repeatable [default: the training data].
    #[arg(long, value_name = "FILE", requires = "test")]
    history: Vec<String>,
    /// Users to show with their history and what they are recommended.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(..=100))]
    users: u32,
    /// Chooses the users that are shown or scored, and orders equal scores.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Prints the numbers behind the page as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: ReadFlags,
}

impl Report {
    /// Runs the command.
    pub(crate) fn run(self, given: &Given) -> Result<()> {
        let out = match (&self.out, self.json) {
            (Some(out), _) => Some(out.as_path()),
            (None, false) => Some(Path::new(DEFAULT_OUT)),
            (None, true) => None,
        };
        if out == Some(Path::new("-")) {
            return Err(Failure::usage("--out names a file; the page goes to no standard output")
                .hint("--json prints the numbers behind it"));
        }
        let directory = ModelDirectory::open(&self.model, Verify::Quick)?;
        if let Some(out) = out.filter(|_| !self.force) {
            check_destination(out)?;
        }
        let of_lists = directory.finds_items();
        if !of_lists {
            refuse_flags(directory.kind(), &OF_LISTS, given)?;
            refuse_flags(directory.kind(), &INTERACTION_FLAGS, given)?;
        }
        let mut found = Findings::of(&directory)?;
        found.test = match of_lists {
            true => self.lists(directory, &mut found)?,
            false => self.counted(&directory)?,
        };
        for label in found.constant_labels() {
            found.gap("result", format!("In all test rows `{label}` is the same, so nothing can be said of how well they are told apart."));
        }
        if found.test.is_none() {
            for (section, why) in without_test(of_lists) {
                found.gap(section, why);
            }
        }
        if let Some(out) = out {
            let text = page(&found, &self.model.display().to_string());
            replace_file(out, |file| Ok(file.write_all(text.as_bytes())?))?;
            note!("wrote {} in {}", out.display(), bytes(text.len() as u64));
        }
        let mut stdout = Out::new();
        if self.json {
            stdout.json(&found)?;
        }
        stdout.finish()
    }

    /// Measures and describes a model that finds items.
    fn lists(&self, directory: ModelDirectory, found: &mut Findings) -> Result<Option<Test>> {
        let mut model = Model::of(directory)?;
        // A few lists are there before a GPU has been opened.
        let device = if self.test.is_empty() { self.device.or_cpu() } else { self.device };
        model.score_on(device, "reporting")?;
        let reading = self.reading.options(Repeats::Last);
        let test: Option<(Dataset, bool)> = match &self.test[..] {
            [] => None,
            files => Some(reading::held_out(files, &reading)?),
        };
        // Users are shown with what the model learned from, whatever they had done before the test.
        self.lists_of(&model).describe(found, test.as_ref().map(|(data, _)| data))?;
        let Some((test, has_values)) = test else { return Ok(None) };
        give_history(&mut model, &self.history, &self.reading)?;
        let bar = Bar::spinner("evaluating");
        let mut measured = self
            .lists_of(&model)
            .test(&test, has_values)
            .map_err(|error| explain(error, &self.test, &self.model))?;
        drop(bar);
        let (rows, seen) = (test.by_user().nnz(), measured.model.all.seen_rows);
        if seen > 0 && 2 * seen >= rows {
            note!(
                "{} of {} in the history already, which are never recommended and count as misses; is it the right --test?",
                count(seen as u64),
                counted(rows as u64, "test row")
            );
        }
        (measured.files, measured.protocol) = (self.test.clone(), full(&self.history));
        Ok(Some(Test::Lists(Box::new(measured))))
    }

    fn lists_of<'a>(&self, model: &'a Model) -> Lists<'a> {
        let options = EvaluateOptions { k: sorted(&self.k), seed: self.seed, ..EvaluateOptions::default() };
        Lists { model, options, shown_users: self.users as usize }
    }

    /// Measures a model that scores rows or texts.
    fn counted(&self, directory: &ModelDirectory) -> Result<Option<Test>> {
        if self.test.is_empty() {
            return Ok(None);
        }
        let read = self.reading.options(Repeats::Last);
        let test = if directory.is_text() {
            of_texts(&texts::measure(&texts::open(directory, self.device, None)?, &self.test, &read)?)
        } else {
            let (ranker, _) = ranking::open(directory, self.device)?;
            of_rows(&ranker, ranking::scored(&ranker, &self.test, &read)?)?
        };
        Ok(Some(Test::Counted(CountedTest { files: self.test.clone(), ..test })))
    }
}

/// What guesses about texts amount to, beside always guessing one class.
fn of_texts(measured: &TextMeasured) -> CountedTest {
    let counts = [
        ("texts in scope", measured.in_scope),
        ("texts out of scope", measured.out_of_scope),
        ("of unknown classes", measured.unknown),
    ];
    let accuracy = measured.accuracy_of_most_frequent();
    CountedTest {
        files: Vec::new(),
        protocol: "classes, guesses against labels".to_owned(),
        metrics: measured.metrics.clone(),
        counts: counts.into_iter().filter(|(_, n)| *n > 0).collect(),
        baseline: "most frequent class",
        baseline_metrics: accuracy.map(|accuracy| ("accuracy".to_owned(), accuracy)).into_iter().collect(),
        groups: Groups::ByClass(measured.classes.clone()),
    }
}

/// What scores of rows amount to, beside predicting the share of ones for all.
fn of_rows(ranker: &Ranker, measuring: Measuring) -> Result<CountedTest> {
    let labels = ranker.features().labels().iter().enumerate();
    let groups = labels
        .map(|(at, label)| LabelGroups { label: label.clone(), groups: measuring.by_score(at, SCORE_GROUPS) })
        .collect();
    let mut baseline_metrics = measuring.constant()?.metrics;
    // A constant is as good at ranking as chance, and its calibration is perfect for it knows the answer.
    baseline_metrics.retain(|name, _| !name.contains("calibration"));
    let measured = measuring.finish()?;
    // Where a label is the same in all rows, always predicting it is right, and says nothing of the model.
    if !measured.metrics.contains_key("auc") {
        baseline_metrics.clear();
    }
    Ok(CountedTest {
        files: Vec::new(),
        protocol: "binary, scores of rows against labels of 0 and 1".to_owned(),
        counts: [("rows", measured.rows)].into(),
        metrics: measured.metrics,
        baseline: "share of ones for all",
        baseline_metrics,
        groups: Groups::ByScore(groups),
    })
}

/// Says what a report lacks without a test file, section by section.
fn without_test(finds_items: bool) -> Vec<(&'static str, &'static str)> {
    let mut gaps = vec![(
        "result",
        match finds_items {
            true => {
                "Neither the model nor the most-popular baseline was measured on unseen data: what was validated on is not stored in \
                 the model, and no test file was given (--test FILE)."
            }
            false => "The model was not measured on unseen data: no test file was given (--test FILE).",
        },
    )];
    if finds_items {
        gaps.push((
            "activity",
            "Metrics by user activity and by item popularity were not measured: they need a test file (--test FILE).",
        ));
    }
    gaps
}

/// Refuses to replace what is no report, before any work.
fn check_destination(out: &Path) -> Result<()> {
    let Ok(meta) = fs_err::metadata(out) else { return Ok(()) };
    if meta.is_dir() {
        return Err(Failure::usage(format!("{}: is a directory", out.display()))
            .hint("--out names the file to write, such as report.html"));
    }
    if !meta.is_file() {
        return Err(Failure::usage(format!("{}: is there and no file", out.display()))
            .hint("--out names the file to write, such as report.html"));
    }
    let mut head = Vec::new();
    let file = fs_err::File::open(out).map_err(|error| Failure::failed(error.to_string()))?;
    file.take(HEAD).read_to_end(&mut head)?;
    if head.is_empty() || is_report(&head) {
        return Ok(());
    }
    Err(Failure::usage(format!("{}: is there already and no report", out.display()))
        .hint("--force replaces it, --out names another file"))
}
