//! `recmill inspect`: what is in a model directory.

use std::{io::Write, path::PathBuf};

use clap::Args;
use recmill_core::directory::{Config, FileCheck, MappedIds, ModelDirectory, Verify, list_versions};
use recmill_train::gradient::Position;
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Result},
    output::{Out, bytes, count, counted, note},
    report::findings::learned,
};

/// What is said of a model that learned from what had been held out too.
const REFITTED: &str = "; then trained again for as many, on what had been held out too (--refit)";

/// Arguments of `recmill inspect`.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Model directory, or one of its versions such as model/versions/7.
    model: PathBuf,
    /// Reads every byte and compares it with the hashes of training.
    #[arg(long)]
    verify: bool,
    /// Prints the users' ids, one a line, and nothing else.
    #[arg(long, conflicts_with_all = ["item_ids", "verify", "json"])]
    user_ids: bool,
    /// Prints the items' ids, one a line, and nothing else.
    #[arg(long, conflicts_with_all = ["verify", "json"])]
    item_ids: bool,
    /// Prints one JSON object.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    /// Runs the command.
    pub(crate) fn run(self) -> Result<()> {
        let directory = ModelDirectory::open(&self.model, Verify::Quick)?;
        let mut out = Out::new();
        if !directory.finds_items() && (self.user_ids || self.item_ids) {
            let does =
                if directory.is_text() { "tell what texts are about" } else { "score rows of features" };
            return Err(Failure::usage(format!(
                "{} models {does} and have no users or items",
                directory.kind()
            )));
        }
        if self.user_ids || self.item_ids {
            let ids: &MappedIds = if self.user_ids { directory.users() } else { directory.items() };
            for id in ids.iter() {
                writeln!(out, "{id}")?;
            }
            return out.finish();
        }
        let checks = self.verify.then(|| directory.verify());
        if self.json {
            out.json(&as_json(&directory, checks.as_deref())?)?;
        } else {
            self.print(&directory, &mut out)?;
        }
        out.finish()?;
        match checks {
            Some(checks) => self.verdict(&checks),
            None => Ok(()),
        }
    }

    fn verdict(&self, checks: &[FileCheck]) -> Result<()> {
        let damaged: Vec<String> = checks
            .iter()
            .filter_map(|check| check.result.as_ref().err().map(|damage| format!("{}: {damage}", check.name)))
            .collect();
        if damaged.is_empty() {
            let total: u64 = checks.iter().map(|check| check.bytes).sum();
            note!("verified {} in {} files: as written", bytes(total), checks.len());
            return Ok(());
        }
        Err(Failure::failed(format!("{}: damaged\n  {}", self.model.display(), damaged.join("\n  ")))
            .hint("train again, or use another version of this model directory"))
    }

    fn print(&self, directory: &ModelDirectory, out: &mut Out) -> Result<()> {
        let manifest = directory.manifest();
        let config = &manifest.config;
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut line = |name: &str, value: String| rows.push((name.to_owned(), value));
        line("model", config.model["model"].as_str().unwrap_or("unknown").to_owned());
        line("version", version_line(&self.model, directory));
        if let Ok(position) = serde_json::from_value::<Position>(config.progress.clone()) {
            let done = counted(position.done.len() as u64, "epoch");
            line("checkpoint", format!("of a training that goes on after {done} with --resume"));
        }
        if !directory.finds_items()
            && let Some(rows) = config.schema["rows"].as_u64()
        {
            line(if directory.is_text() { "texts" } else { "rows" }, learned_of(config, rows));
        }
        if directory.is_text() {
            match directory.classes() {
                Ok(classes) => {
                    line("classes", count(classes.names.len() as u64));
                    line("columns", format!("{} -> {}", classes.columns.text, classes.columns.label));
                    line("temperature", plain(&json!(classes.temperature)));
                    line("threshold", plain(&json!(classes.threshold)));
                }
                Err(error) => line("classes", error.to_string()),
            }
        }
        match directory.is_ranker().then(|| directory.features()) {
            None if directory.is_text() => {}
            None => {
                line("users", count(manifest.data.users));
                line("items", count(manifest.data.items));
                line("interactions", interactions(directory));
            }
            Some(Ok(features)) => {
                line("labels", features.labels().join(", "));
                line("fields", count(features.fields().len() as u64));
                let table_rows: usize = features.fields().iter().map(|field| field.rows()).sum();
                line("table rows", count(table_rows as u64));
                for field in features.fields() {
                    let of = if field.is_bag() { " of a bag" } else { "" };
                    line(&format!("  {}", field.name()), format!("{}{of}", count(field.rows() as u64)));
                }
                let numeric: Vec<&str> = features.numeric().iter().map(|column| column.name()).collect();
                line(
                    "numeric columns",
                    if numeric.is_empty() { "none".to_owned() } else { numeric.join(", ") },
                );
                if let Some(group) = &features.schema().group {
                    line("group", group.clone());
                }
            }
            // What else there is to tell is told, the more so with --verify.
            Some(Err(error)) => line("features", error.to_string()),
        }
        line("objective", config.objective.clone());
        for (name, value) in
            config.model.as_object().into_iter().flatten().filter(|(name, _)| *name != "model")
        {
            line(&format!("  {name}"), plain(value));
        }
        line("seed", config.seed.to_string());
        let epochs = directory.epochs()?.len();
        if let Some(epoch) = config.kept_epoch.filter(|_| epochs > 1) {
            let refitted = if config.refitted { REFITTED } else { "" };
            line("kept epoch", format!("{epoch} of {epochs}{refitted}"));
        }
        for (name, value) in config.metrics.as_object().into_iter().flatten() {
            line(&format!("  {name}"), plain(value));
        }
        for (name, batch) in
            [("item columns", directory.item_attributes()?), ("user columns", directory.user_attributes()?)]
        {
            if let Some(batch) = batch {
                let names: Vec<String> =
                    batch.schema().fields().iter().map(|field| field.name().clone()).collect();
                line(name, names.join(", "));
            }
        }
        // That of others is of the interactions they do not have.
        if directory.finds_items() {
            line("data fingerprint", manifest.data.fingerprint.clone());
        }
        line(
            "written by",
            format!("recmill {}, format {}", manifest.library_version, manifest.format_version),
        );
        let total: u64 = manifest.files.values().map(|file| file.bytes).sum();
        line("files", format!("{} in {}", bytes(total), directory.path().display()));
        for (name, file) in &manifest.files {
            line(&format!("  {name}"), bytes(file.bytes));
        }
        let wide = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in rows {
            writeln!(out, "{name:wide$}  {value}")?;
        }
        Ok(())
    }
}

/// How many interactions there are, and how many the model learned from where some were held out.
fn interactions(directory: &ModelDirectory) -> String {
    let manifest = directory.manifest();
    learned_of(&manifest.config, manifest.data.interactions)
}

/// A number of rows, and how many of them the model learned from where some were held out.
fn learned_of(config: &Config, all: u64) -> String {
    match learned(config, all) {
        learned if learned < all => {
            format!("{}, {} learned from, {} held out", count(all), count(learned), count(all - learned))
        }
        _ => count(all),
    }
}

fn version_line(model: &std::path::Path, directory: &ModelDirectory) -> String {
    let versions = match list_versions(model) {
        Ok((versions, _)) if versions.len() > 1 => {
            let others: Vec<String> = versions.iter().map(u64::to_string).collect();
            format!(" of {}", others.join(", "))
        }
        _ => String::new(),
    };
    format!("{}{versions}", directory.version())
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => other.to_string(),
    }
}

fn as_json(directory: &ModelDirectory, checks: Option<&[FileCheck]>) -> Result<Value> {
    let failed = |error: serde_json::Error| Failure::failed(error.to_string());
    let mut object = json!({
        "path": directory.path(),
        "version": directory.version(),
        "sha256": directory.sha256(),
        "config": serde_json::to_value(directory.manifest()).map_err(failed)?,
        "epochs": serde_json::to_value(directory.epochs()?).map_err(failed)?,
    });
    if directory.is_text() {
        object["classes"] = match directory.classes() {
            Ok(classes) => json!(classes),
            Err(error) => json!({"damage": error.to_string()}),
        };
    }
    if directory.is_ranker() {
        object["features"] = match directory.features() {
            Ok(features) => {
                let fields: Vec<Value> = features
                    .fields()
                    .iter()
                    .map(|field| json!({"name": field.name(), "table_rows": field.rows(), "bag": field.is_bag()}))
                    .collect();
                let numeric: Vec<&str> = features.numeric().iter().map(|column| column.name()).collect();
                json!({
                    "labels": features.labels(), "fields": fields, "numeric": numeric, "group": features.schema().group,
                    "table_rows": features.fields().iter().map(|field| field.rows()).sum::<usize>(),
                })
            }
            Err(error) => json!({"damage": error.to_string()}),
        };
    }
    if let Some(checks) = checks {
        let files: Vec<Value> = checks
            .iter()
            .map(|check| {
                let damage = check.result.as_ref().err().map(ToString::to_string);
                json!({"name": check.name, "bytes": check.bytes, "ok": damage.is_none(), "damage": damage})
            })
            .collect();
        object["verified"] = json!(checks.iter().all(|check| check.result.is_ok()));
        object["files"] = json!(files);
    }
    Ok(object)
}
