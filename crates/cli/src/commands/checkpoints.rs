//! Checkpoints on the command line: when they are written, and how a training goes on from one.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use recmill_core::{
    directory::{self, Config, ModelDirectory, Verify},
    features::Features,
};
use recmill_train::{
    Error,
    gradient::{Checkpoint, CheckpointOptions, Position},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    arguments::Given,
    commands::train_flags::TrainingFlags,
    failure::{Failure, Result},
    output::{count, counted, note, warning},
};

/// When checkpoints are written, and where.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CheckpointFlags {
    /// Writes a checkpoint whenever so many minutes have passed, from which --resume goes on; of models of users and items at the end of an epoch.
    #[arg(long, value_name = "MINUTES")]
    checkpoint_minutes: Option<f64>,
    /// Where checkpoints go [default: beside the model directory, .checkpoints behind its name].
    #[arg(long, value_name = "DIRECTORY")]
    checkpoints: Option<PathBuf>,
    /// Checkpoints to keep; older ones are removed.
    #[arg(long, value_name = "N", default_value_t = kept())]
    #[serde(default = "kept")]
    keep_checkpoints: usize,
    /// Goes on from the newest whole checkpoint in this directory, on the same data; files, hyper-parameters, seed and all other flags but
    /// --out and --device are those of the checkpoint where they are not typed. What comes out is what would have without the interruption.
    #[arg(long, value_name = "DIRECTORY")]
    #[serde(skip)]
    pub(crate) resume: Option<PathBuf>,
}

fn kept() -> usize {
    2
}

/// What checkpoints are counted in, and after how many of it one is written.
#[derive(Clone, Copy)]
pub(crate) struct Every {
    /// `step` or `epoch`.
    pub(crate) what: &'static str,
    pub(crate) n: Option<u64>,
}

/// Hyper-parameters that a training of a model of users and items may go on with in another way than it began.
pub(super) const MAY_CHANGE_BETWEEN_EPOCHS: [&str; 1] = ["iterations"];

/// Those of a ranker.
pub(super) const MAY_CHANGE: [&str; 10] = [
    "accumulate",
    "clip_norm",
    "dropout",
    "embedding_l2",
    "epochs",
    "learning_rate",
    "schedule",
    "table_learning_rate",
    "warmup_steps",
    "weight_decay",
];

impl CheckpointFlags {
    /// Refuses flags that contradict each other.
    pub(super) fn check(&self, every: Every, given: &Given, out: Option<&Path>) -> Result<()> {
        if let Some(out) = out {
            let model = place(out);
            let resumed = self.resume.as_deref().map(|folder| ("--resume", folder.to_owned()));
            let written = self.are_written(every).then(|| ("--checkpoints", self.folder(out)));
            for (flag, folder) in resumed.into_iter().chain(written) {
                let folder = place(&folder);
                if folder.starts_with(&model) || model.starts_with(&folder) {
                    return Err(Failure::usage(format!(
                        "{flag} and --out must be two directories, none within the other"
                    ))
                    .hint("without --checkpoints they go beside the model"));
                }
            }
        }
        if every.n == Some(0) {
            return Err(Failure::usage(format!("--checkpoint-{}s must be at least 1, not `0`", every.what)));
        }
        // A training of a century has other worries.
        if let Some(minutes) = self.checkpoint_minutes.filter(|minutes| !(*minutes > 0.0 && *minutes < 1e8)) {
            return Err(Failure::usage(format!(
                "--checkpoint-minutes must be above 0 and below 1e8, not `{minutes:?}`"
            )));
        }
        if self.keep_checkpoints == 0 {
            return Err(Failure::usage("--keep-checkpoints must be at least 1, not `0`"));
        }
        let asks =
            self.checkpoints.is_some() || given.has("keep_checkpoints") || self.keep_checkpoints != kept();
        if asks && !self.are_written(every) && self.resume.is_none() {
            return Err(Failure::usage("nothing says when a checkpoint is to be written")
                .hint(format!("--checkpoint-minutes 10 or --checkpoint-{}s N does", every.what)));
        }
        Ok(())
    }

    /// Where checkpoints go.
    fn folder(&self, out: &Path) -> PathBuf {
        let beside = || {
            // A name such as `.` has none of its own.
            let out = if out.file_name().is_some() { out.to_owned() } else { place(out) };
            let mut name = out.file_name().unwrap_or_default().to_owned();
            name.push(".checkpoints");
            out.with_file_name(name)
        };
        self.checkpoints.clone().or_else(|| self.resume.clone()).unwrap_or_else(beside)
    }

    /// Returns whether anything says when one is to be written.
    pub(super) fn are_written(&self, every: Every) -> bool {
        every.n.is_some() || self.checkpoint_minutes.is_some()
    }

    /// Returns where and when checkpoints are written, if they are.
    pub(super) fn options(
        &self,
        every: Every,
        out: &Path,
        about: &Config,
        flags: &impl Serialize,
    ) -> Result<Option<CheckpointOptions>> {
        if !self.are_written(every) {
            return Ok(None);
        }
        let failed = |error: serde_json::Error| Failure::failed(error.to_string());
        let mut about = about.clone();
        about.schema["flags"] = serde_json::to_value(flags).map_err(failed)?;
        let folder = self.folder(out);
        directory::check_destination(&folder).map_err(|error| {
            Failure::failed(error.to_string()).hint("nothing has been written; choose another --checkpoints")
        })?;
        let versions = directory::list_versions(&folder).map(|(versions, _)| versions).unwrap_or_default();
        let finished = |version: &u64| {
            let path = folder.join("versions").join(version.to_string());
            let opened = ModelDirectory::open(&path, Verify::Quick);
            opened.is_ok_and(|model| {
                serde_json::from_value::<Position>(model.manifest().config.progress.clone()).is_err()
            })
        };
        if versions.iter().any(finished) {
            return Err(Failure::usage(format!(
                "{} holds a finished model, whose place checkpoints would take",
                folder.display()
            ))
            .hint("choose another --checkpoints"));
        }
        let has_some = !versions.is_empty();
        if has_some && self.resume.is_none() {
            warning!(
                "{} has checkpoints of an earlier training, and new ones will take their place; --resume {} goes on from them",
                folder.display(),
                folder.display()
            );
        }
        Ok(Some(CheckpointOptions {
            every_steps: every.n,
            every: self.checkpoint_minutes.map(|minutes| Duration::from_secs_f64(60.0 * minutes)),
            keep: self.keep_checkpoints,
            ..CheckpointOptions::new(folder, about)
        }))
    }
}

/// Tells of the last checkpoint of a training that has failed.
pub(super) fn tell_of_last(last: &Path, folder: &Path) {
    note!("the last checkpoint is {}: --resume {} goes on from it", last.display(), folder.display());
}

/// Returns where a path leads, whether or not there is anything yet.
fn place(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let known = whole.ancestors().find_map(|known| Some((known, fs_err::canonicalize(known).ok()?)));
    match known {
        Some((known, canonical)) => {
            whole.strip_prefix(known).map_or(canonical.clone(), |rest| canonical.join(rest))
        }
        None => whole,
    }
}

/// Goes on as the checkpoint's training was told to, where nothing else is typed: from the same files, read in the same way.
pub(super) fn as_begun<F: TrainingFlags>(flags: F, checkpoint: &Checkpoint, given: &Given) -> Result<F> {
    /// What a training that goes on has of its own.
    const OWN: [&str; 2] = ["out", "device"];
    const CHOICE: [&str; 2] = ["valid", "holdout"];
    if flags.file().is_some() {
        return Err(Failure::usage(
            "--resume goes on as its training was told to, and --config cannot change that",
        )
        .hint("leave one of the two out; what is to be different is typed"));
    }
    let failed = |error: serde_json::Error| Failure::failed(format!("the checkpoint: {error}"));
    let mut now = serde_json::to_value(&flags).map_err(failed)?;
    let was = &checkpoint.directory.manifest().config.schema["flags"];
    // Who names other rows to validate on, or how many to hold out, has chosen between the two.
    let choice = CHOICE.iter().any(|name| given.has(name));
    for (name, value) in was.as_object().into_iter().flatten() {
        let chosen = choice && CHOICE.contains(&name.as_str());
        if !given.has(name) && !OWN.contains(&name.as_str()) && !chosen {
            now[name] = value.clone();
        }
    }
    let mut begun: F = serde_json::from_value(now).map_err(failed)?;
    begun.take_transient(&flags);
    Ok(begun)
}

/// Opens the checkpoint that `folder` goes on from, and tells of it.
pub(super) fn open(folder: &Path) -> Result<Checkpoint> {
    let checkpoint = Checkpoint::newest(folder).map_err(|error| match error {
        Error::Core(recmill_core::Error::NoModel { path }) => {
            Failure::failed(format!("{}: no checkpoint here", path.display()))
                .hint("--checkpoint-minutes, --checkpoint-epochs and, of rankers, --checkpoint-steps write some in the course of training")
        }
        error => error.into(),
    })?;
    for (path, error) in &checkpoint.damaged {
        warning!("{} is passed over: {error}", path.display());
    }
    let position = &checkpoint.position;
    let path = checkpoint.directory.path().display();
    let epochs = counted(position.done.len() as u64, "epoch");
    match position.batches {
        _ if checkpoint.directory.finds_items() => note!("going on from {path}, after {epochs}"),
        1 => note!("going on from {path}, after {epochs} and 1 step of the next"),
        steps => note!("going on from {path}, after {epochs} and {} steps of the next", count(steps)),
    }
    Ok(checkpoint)
}

/// Refuses to go on with another model, optimizer or batch; tells of what else is different.
pub(super) fn compare(checkpoint: &Checkpoint, config: &impl Serialize, may_change: &[&str]) -> Result<()> {
    let was = &checkpoint.directory.manifest().config.model;
    let now = serde_json::to_value(config).map_err(|error| Failure::failed(error.to_string()))?;
    compare_models(was, &now, may_change)
}

fn compare_models(was: &Value, now: &Value, may_change: &[&str]) -> Result<()> {
    let (Some(was), Some(now)) = (was.as_object(), now.as_object()) else { return Ok(()) };
    for (name, now) in now {
        let was = was.get(name);
        if was == Some(now) {
            continue;
        }
        if !may_change.contains(&&name[..]) {
            let flag = name.replace('_', "-");
            let Some(was) = was else {
                let told = format!(
                    "the checkpoint is of a version that had no --{flag}, and may have learned otherwise"
                );
                return Err(Failure::usage(told).hint("train from the beginning without --resume"));
            };
            return Err(Failure::usage(format!("the checkpoint has --{flag} {was}, not `{now}`"))
                .hint(format!("leave --{flag} out, or train from the beginning without --resume")));
        }
        let was = was.map_or("none".to_owned(), Value::to_string);
        note!("going on with {name} {now}; the checkpoint has {was}");
    }
    Ok(())
}

/// Goes on with the checkpoint's choice of the best epoch; refuses another metric, which would compare what it did not measure.
pub(super) fn inherit_choice(
    checkpoint: &Checkpoint,
    metric: &mut String,
    patience: &mut u32,
    given: &Given,
) -> Result<()> {
    let was = &checkpoint.position;
    if !given.has("valid_metric") {
        metric.clone_from(&was.metric);
    } else if *metric != was.metric {
        return Err(Failure::usage(format!(
            "the checkpoint has --valid-metric {}, not `{metric}`",
            was.metric
        ))
        .hint("leave --valid-metric out, or train from the beginning without --resume"));
    }
    let of_checkpoint = was.patience.unwrap_or(0);
    if !given.has("patience") {
        *patience = of_checkpoint;
    } else if *patience != of_checkpoint {
        note!("going on with patience {patience}; the checkpoint has {of_checkpoint}");
    }
    Ok(())
}

/// Refuses to go on with rows that are not those of the checkpoint, as far as their features tell.
pub(super) fn compare_features(checkpoint: &Checkpoint, features: &Features) -> Result<()> {
    if checkpoint.directory.features()? != *features {
        return Err(Failure::failed(
            "the rows have other features than those that the checkpoint learned from",
        )
        .hint("give the same files and the same --schema, --ignore and other flags of columns"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_checkpoint_says_of_its_model_has_to_be_what_is_asked_for() {
        let now = json!({"factors": 4, "popularity_weight": 0.6});
        let told = |was: Value, may_change: &[&str]| {
            compare_models(&was, &now, may_change).map_err(|failure| format!("{failure:?}"))
        };
        assert!(told(now.clone(), &[]).is_ok());
        let other = json!({"factors": 4, "popularity_weight": 0.2});
        assert!(told(other.clone(), &["popularity_weight"]).is_ok());
        let refused = told(other, &[]).unwrap_err();
        assert!(refused.contains("the checkpoint has --popularity-weight 0.2, not `0.6`"), "{refused}");
        let without = json!({"factors": 4});
        assert!(told(without.clone(), &["popularity_weight"]).is_ok());
        let refused = told(without, &[]).unwrap_err();
        assert!(refused.contains("of a version that had no --popularity-weight"), "{refused}");
    }
}
