//! `recmill evaluate`: how well a model recommends, or predicts, what is in a test file.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    time::Instant,
};

use clap::Args;
use recmill_core::{
    Dataset,
    data::{ReadOptions, Repeats, read_dataset},
    directory::{ModelDirectory, Verify, replace_file},
    evaluate::{EvaluateOptions, Evaluation, Metrics, UnknownUsers},
};
use serde_json::{Value, json};

use crate::{
    arguments::Given,
    device_flag::DeviceFlag,
    failure::{Failure, Result},
    model::Model,
    output::{self, Out, count, counted, note, seconds},
    progress::Bar,
    ranking::{self, INTERACTION_FLAGS, refuse_flags},
    read_flags::ReadFlags,
    reading, texts,
};

/// Arguments of `recmill evaluate`.
#[derive(Args)]
#[command(after_help = "Protocols:\n  \
    full        ranks the whole catalogue minus what the user has had (the default)\n  \
    candidates  ranks the items listed for each user; history is not removed\n  \
    sampled     ranks the test items and N drawn ones; figures are higher than those of full, compare like with like\n  \
    rating      compares predicted and actual values, where the model predicts values (svd)\n  \
    binary      compares scores of rows with labels of 0 and 1, where the model scores rows (deepfm ..)\n  \
    classes     compares guesses with labels, where the model tells what texts are about (text)")]
pub(crate) struct Evaluate {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// Interactions, or rows with a label, that the model has not seen; repeatable.
    #[arg(long, value_name = "FILE", required = true)]
    test: Vec<String>,
    /// Lengths of lists to measure.
    #[arg(long, short, value_name = "N,N,...", value_delimiter = ',', default_value = "10,20",
        value_parser = clap::value_parser!(u32).range(1..))]
    k: Vec<u32>,
    /// Ranks only the items that this file lists for each user, by columns user and item.
    #[arg(long, value_name = "FILE", conflicts_with = "sampled_negatives")]
    candidates: Option<String>,
    /// Ranks the test items among this many others, drawn for each user by the seed.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sampled_negatives: Option<u32>,
    /// With --sampled-negatives: measures this many users, drawn by the seed.
    #[arg(long, value_name = "N", requires = "sampled_negatives", value_parser = clap::value_parser!(u32).range(1..))]
    sample_users: Option<u32>,
    /// With --sampled-negatives: writes what was ranked to this CSV file, which --candidates takes again.
    #[arg(long, value_name = "FILE", requires = "sampled_negatives")]
    write_candidates: Option<PathBuf>,
    /// What each user had done before the test; repeatable [default: the training data].
    #[arg(long, value_name = "FILE")]
    history: Vec<String>,
    /// What becomes of test users that neither the model nor a history knows.
    #[arg(long, value_name = "RULE", value_enum, default_value_t = UnknownUsers::Skip)]
    unknown_users: UnknownUsers,
    /// Orders equal scores and draws what is drawn.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// For scores of rows: the column whose groups, such as users, gauc is the mean over.
    #[arg(long, value_name = "COLUMN")]
    group: Option<String>,
    /// For texts: the least probability of a text that is in scope [default: as training chose it].
    #[arg(long, value_name = "PROBABILITY")]
    threshold: Option<f32>,
    /// Measures rankings also for a model that predicts values.
    #[arg(long)]
    ranking: bool,
    /// Where to compute: auto, cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t = DeviceFlag::Auto)]
    device: DeviceFlag,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reading: ReadFlags,
}

/// The flags that say how lists of items are measured, by the names of their fields.
const OF_LISTS: [&str; 9] = [
    "k",
    "candidates",
    "sampled_negatives",
    "sample_users",
    "write_candidates",
    "history",
    "unknown_users",
    "seed",
    "ranking",
];

impl Evaluate {
    /// Runs the command.
    pub(crate) fn run(self, given: &Given) -> Result<()> {
        let directory = ModelDirectory::open(&self.model, Verify::Quick)?;
        if directory.is_ranker() {
            refuse_flags(directory.kind(), &OF_LISTS, given)?;
            refuse_flags(directory.kind(), &INTERACTION_FLAGS, given)?;
            return self.rows(&directory);
        }
        if directory.is_text() {
            refuse_flags(directory.kind(), &OF_LISTS, given)?;
            refuse_flags(directory.kind(), &INTERACTION_FLAGS, given)?;
            refuse_flags(directory.kind(), &["group"], given)?;
            return self.texts(&directory);
        }
        if self.threshold.is_some() {
            return Err(Failure::usage("--threshold is for models that tell what texts are about"));
        }
        if self.group.is_some() {
            return Err(Failure::usage("--group is for models that score rows of features"));
        }
        let mut model = Model::open(&self.model)?;
        self.device.resolve()?;
        let reading = self.reading.options(Repeats::Last);
        let (test, has_values) = reading::held_out(&self.test, &reading)?;
        let lists = self.ranking || self.candidates.is_some() || self.sampled_negatives.is_some();
        let ratings = has_values && !lists && model.predicts()?;
        if ratings {
            self.device.resolve_for("predicting values")?;
        } else {
            model.score_on(self.device, "evaluating")?;
        }
        give_history(&mut model, &self.history, &self.reading)?;
        let started = Instant::now();
        let (evaluation, protocol) = self.measure(&model, &test, ratings, &reading)?;
        let taken = started.elapsed().as_secs_f64();
        let users = evaluation.users;
        note!(
            "{} in {}, {:.0} users/s",
            counted(users as u64, "user"),
            seconds(taken),
            users as f64 / taken.max(1e-9)
        );
        let mut out = Out::new();
        if self.json {
            out.json(&as_json(&evaluation, &protocol))?;
            return out.finish();
        }
        writeln!(out, "{protocol}")?;
        writeln!(out, "{}", population(&evaluation, self.unknown_users))?;
        writeln!(out)?;
        print_metrics(&mut out, &[(model.kind(), &evaluation.metrics)])?;
        out.finish()
    }

    /// Measures the scores of rows of features.
    fn rows(&self, directory: &ModelDirectory) -> Result<()> {
        let (mut ranker, device) = ranking::open(directory, self.device)?;
        if let Some(column) = &self.group {
            ranker.group_by(column);
        }
        let started = Instant::now();
        let measured = ranking::measure(&ranker, &self.test, &self.reading.options(Repeats::Last))?;
        let taken = started.elapsed().as_secs_f64();
        let rate = measured.rows as f64 / taken.max(1e-9);
        note!("{} in {} on {device}, {rate:.0} rows/s", counted(measured.rows, "row"), seconds(taken));
        let mut out = Out::new();
        if self.json {
            let protocol = "binary, scores of rows against labels of 0 and 1";
            out.json(&json!({"metrics": measured.metrics, "rows": measured.rows, "protocol": protocol}))?;
        } else {
            writeln!(out, "protocol: binary, scores of rows against labels of 0 and 1")?;
            writeln!(out, "rows: {}\n", count(measured.rows))?;
            ranking::print(&mut out, directory.kind(), &measured.metrics)?;
        }
        out.finish()
    }

    /// Measures what the model says of texts.
    fn texts(&self, directory: &ModelDirectory) -> Result<()> {
        let classifier = texts::open(directory, self.device, self.threshold)?;
        let started = Instant::now();
        let measured = texts::measure(&classifier, &self.test, &self.reading.options(Repeats::Last))?;
        let taken = started.elapsed().as_secs_f64();
        let n = measured.in_scope + measured.out_of_scope;
        note!("{} in {}, {:.0} texts/s", counted(n, "text"), seconds(taken), n as f64 / taken.max(1e-9));
        let threshold = classifier.classes().threshold;
        let mut out = Out::new();
        if self.json {
            let protocol = "classes, guesses against labels";
            out.json(&json!({
                "metrics": measured.metrics, "in_scope": measured.in_scope, "out_of_scope": measured.out_of_scope,
                "unknown_labels": measured.unknown, "threshold": threshold, "protocol": protocol,
            }))?;
        } else {
            writeln!(
                out,
                "protocol: classes, guesses against labels; below {threshold:.3} a text is out of scope"
            )?;
            writeln!(
                out,
                "texts: {} in scope, {} out of scope\n",
                count(measured.in_scope),
                count(measured.out_of_scope)
            )?;
            ranking::print(&mut out, directory.kind(), &measured.metrics)?;
        }
        out.finish()
    }

    fn measure(
        &self,
        model: &Model,
        test: &Dataset,
        ratings: bool,
        reading: &ReadOptions,
    ) -> Result<(Evaluation, String)> {
        let options = EvaluateOptions {
            k: sorted(&self.k),
            seed: self.seed,
            unknown_users: self.unknown_users,
            ..EvaluateOptions::default()
        };
        let nobody = |evaluation: recmill_core::Result<Evaluation>| {
            evaluation.map_err(|error| explain(error, &self.test, &self.model))
        };
        let bar = Bar::spinner("evaluating");
        if let Some(file) = &self.candidates {
            let (candidates, _) = read_dataset(
                std::slice::from_ref(file),
                &ReadOptions { min_rating: None, ..reading.clone() },
                None,
            )?;
            let evaluation = nobody(model.recommender.evaluate(test, Some(&candidates), &options))?;
            return Ok((
                evaluation,
                format!("protocol: candidates, the items of {file} for each user; history is not removed"),
            ));
        }
        if let Some(n) = self.sampled_negatives {
            let users = self.sample_users.map(|n| n as usize);
            let candidates = model.recommender.sample_candidates(test, n as usize, users, self.seed)?;
            if let Some(path) = &self.write_candidates {
                write_pairs(path, &candidates)?;
                drop(bar);
                note!("wrote {}", path.display());
            }
            let evaluation = nobody(model.recommender.evaluate(test, Some(&candidates), &options))?;
            let protocol =
                format!("protocol: sampled, the test items among {} drawn by seed {}", count(n), self.seed);
            return Ok((evaluation, protocol));
        }
        if ratings && let Some(evaluation) = model.recommender.evaluate_ratings(test)? {
            return Ok((evaluation, "protocol: rating, predicted against actual values".to_owned()));
        }
        let evaluation = nobody(model.recommender.evaluate(test, None, &options))?;
        Ok((evaluation, format!("protocol: {}", full(&self.history))))
    }
}

/// Counts `files` as what users had done before the test, where there are some.
pub(crate) fn give_history(model: &mut Model, files: &[String], reading: &ReadFlags) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let (history, _) = read_dataset(files, &reading.options(Repeats::Sum), None)?;
    let left_out = model.recommender.set_history(history)?;
    if left_out > 0 {
        note!(
            "{} of the history are of items that the model does not know",
            counted(left_out, "interaction")
        );
    }
    Ok(())
}

/// The protocol that ranks the whole catalogue, with what each user had done before.
pub(crate) fn full(history: &[String]) -> String {
    let history = if history.is_empty() { "the training data".to_owned() } else { history.join(", ") };
    format!("full, the whole catalogue minus each user's history ({history})")
}

/// What an error of measuring means to whoever named the files.
pub(crate) fn explain(error: recmill_core::Error, test: &[String], model: &Path) -> Failure {
    let nobody = matches!(error, recmill_core::Error::NothingToEvaluate { .. });
    let failure = Failure::from(error);
    if !nobody {
        return failure;
    }
    failure.hint(format!(
        "are the ids of {} those of the training data? `recmill inspect {} --user-ids` lists them",
        test.join(", "),
        model.display()
    ))
}

/// The lengths of lists, ascending and each once.
pub(crate) fn sorted(k: &[u32]) -> Vec<usize> {
    let mut k: Vec<usize> = k.iter().map(|&k| k as usize).collect();
    k.sort_unstable();
    k.dedup();
    k
}

/// Whom the means are over, and who and what is missing from them.
fn population(evaluation: &Evaluation, unknown_users: UnknownUsers) -> String {
    let mut text = format!("users: {}", count(evaluation.users as u64));
    if evaluation.predicted_rows > 0 {
        text.push_str(&format!("; {} predicted", counted(evaluation.predicted_rows, "row")));
    }
    if evaluation.unknown_users > 0 {
        let counted_as = match (evaluation.predicted_rows, unknown_users) {
            (1.., _) => "predicted from the items alone",
            (0, UnknownUsers::Zero) => "counted as misses",
            (0, UnknownUsers::Skip) => "left out",
        };
        text.push_str(&format!("; {} unknown, {counted_as}", count(evaluation.unknown_users as u64)));
    }
    if evaluation.users_without_candidates > 0 {
        text.push_str(&format!(
            "; {} left out without candidates",
            count(evaluation.users_without_candidates as u64)
        ));
    }
    if evaluation.unknown_item_rows > 0 {
        let rows = counted(evaluation.unknown_item_rows as u64, "test row");
        let meaning = if evaluation.predicted_rows > 0 {
            "predicted from the users alone"
        } else {
            "which count as misses"
        };
        text.push_str(&format!("; {rows} of items that the model does not know, {meaning}"));
    }
    if evaluation.seen_rows > 0 {
        text.push_str(&format!(
            "; {} in the history already, which are never recommended and count as misses",
            counted(evaluation.seen_rows as u64, "test row")
        ));
    }
    text
}

fn as_json(evaluation: &Evaluation, protocol: &str) -> Value {
    let mut object = json!(evaluation);
    object["protocol"] = json!(protocol.trim_start_matches("protocol: "));
    object
}

/// Prints metrics side by side: one row a metric, one column for each length of list and model.
pub(crate) fn print_metrics(out: &mut impl Write, models: &[(&str, &Metrics)]) -> io::Result<()> {
    let mut names: Vec<&str> = Vec::new();
    let mut lengths: Vec<&str> = Vec::new();
    for (name, _) in models.iter().flat_map(|(_, metrics)| metrics.iter()) {
        let (name, length) = name.split_once('@').unwrap_or((name, ""));
        if !names.contains(&name) {
            names.push(name);
        }
        if !lengths.contains(&length) {
            lengths.push(length);
        }
    }
    let full = |name: &str, length: &str| {
        if length.is_empty() { name.to_owned() } else { format!("{name}@{length}") }
    };
    let mut head = vec!["metric".to_owned()];
    for (model, _) in models {
        for length in &lengths {
            let label = if length.is_empty() { String::new() } else { format!("@{length}") };
            head.push(match models {
                [_] if !label.is_empty() => label,
                _ => format!("{model} {label}").trim_end().to_owned(),
            });
        }
    }
    let rows: Vec<Vec<String>> = names
        .iter()
        .map(|name| {
            let mut row = vec![(*name).to_owned()];
            for (_, metrics) in models {
                for length in &lengths {
                    let value = metrics.get(&full(name, length));
                    row.push(value.map_or("-".to_owned(), |value| format!("{value:.4}")));
                }
            }
            row
        })
        .collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    output::columns(out, &head, &rows)
}

/// Writes the pairs of `data` as CSV.
fn write_pairs(path: &Path, data: &Dataset) -> Result<()> {
    let text = |error: csv::Error| recmill_core::Error::from(io::Error::other(error));
    Ok(replace_file(path, |out| {
        let mut writer = csv::Writer::from_writer(out);
        writer.write_record(["user_id", "item_id"]).map_err(text)?;
        for (user, id) in data.users.iter().enumerate() {
            for &item in data.by_user().row(user).0 {
                writer.write_record([id, data.items.name(item).unwrap_or_default()]).map_err(text)?;
            }
        }
        writer.flush()?;
        Ok(())
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_stand_in_columns_of_length_and_model() {
        let metrics = |offset: f64| {
            let mut metrics = Metrics::default();
            for (name, value) in [("recall@5", 0.1), ("ndcg@5", 0.2), ("recall@10", 0.3), ("ndcg@10", 0.4)] {
                metrics.push(name, value + offset);
            }
            metrics
        };
        let print = |models: &[(&str, &Metrics)]| {
            let mut text = Vec::new();
            print_metrics(&mut text, models).unwrap();
            String::from_utf8(text).unwrap()
        };
        let (one, other) = (metrics(0.0), metrics(0.5));
        assert_eq!(
            print(&[("als", &one)]),
            "metric      @5     @10\nrecall  0.1000  0.3000\nndcg    0.2000  0.4000\n"
        );
        assert_eq!(
            print(&[("als", &one), ("popular", &other)]),
            "metric  als @5  als @10  popular @5  popular @10\n\
             recall  0.1000   0.3000      0.6000       0.8000\n\
             ndcg    0.2000   0.4000      0.7000       0.9000\n"
        );
        let mut errors = Metrics::default();
        errors.push("rmse", 0.93);
        assert_eq!(print(&[("svd", &errors)]), "metric     svd\nrmse    0.9300\n");
    }
}
