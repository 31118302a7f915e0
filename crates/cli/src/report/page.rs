//! The page as a whole, and its sections about the data, the configuration and the size.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use crate::{
    output::{bytes, count},
    report::{
        findings::{Data, Findings},
        results, training, users,
    },
};

const STYLE: &str = include_str!("style.css");
/// Nothing may be loaded or run, whatever an id or a title says.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
/// What tells a report of ours from other files.
const GENERATOR: &str = "recmill report";

/// A part of the page with its place in the table of contents.
pub(super) struct Section {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) body: Markup,
}

/// Writes the page about the model that is called `name`.
pub(crate) fn page(found: &Findings, name: &str) -> String {
    let sections: Vec<Section> = [
        Some(results::result(found)),
        results::activity(found),
        results::groups(found),
        results::popularity(found),
        Some(training::training(found)),
        training::scores(found),
        users::users(found),
        Some(data(found)),
        Some(configuration(found)),
        Some(size(found)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="generator" content=(GENERATOR);
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                link rel="icon" href="data:,";
                title { (found.model) " · " (name) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p.kicker { "recmill report" }
                    h1 { (name) }
                    p.lead { (results::lead(found)) }
                    (results::tiles(found))
                }
                nav aria-label="Contents" {
                    ol { @for section in &sections { li { a href=(format!("#{}", section.id)) { (section.title) } } } }
                }
                main {
                    @for section in &sections {
                        section id=(section.id) aria-labelledby=(format!("{}-head", section.id)) {
                            h2 id=(format!("{}-head", section.id)) { (section.title) }
                            (section.body)
                            @for gap in found.not_measured.iter().filter(|gap| gap.section == section.id) {
                                p.note { (gap.why) }
                            }
                        }
                    }
                }
                footer { "Model version " (found.version) ", sha256 " code { (found.sha256) } ". Written by recmill " (env!("CARGO_PKG_VERSION")) "." }
            }
        }
    };
    markup.into_string()
}

/// Whether a file that begins with `head` is a report of ours.
pub(crate) fn is_report(head: &[u8]) -> bool {
    String::from_utf8_lossy(head).contains(&format!("<meta name=\"generator\" content=\"{GENERATOR}\">"))
}

/// A table of names and values.
pub(super) fn pairs(caption: &str, rows: &[(String, String)]) -> Markup {
    html! {
        div.scroll { table {
            @if !caption.is_empty() { caption { (caption) } }
            tbody { @for (name, value) in rows { tr { th scope="row" { (name) } td { (value) } } } }
        } }
    }
}

fn data(found: &Findings) -> Section {
    let mut rows: Vec<(String, String)> = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let list = |names: &[String]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    match &found.data {
        Data::Interactions { users, items, interactions, fingerprint } => {
            row("users", count(*users));
            row("items", count(*items));
            row("interactions", count(*interactions));
            let pairs = *users as f64 * *items as f64;
            if pairs > 0.0 {
                row("of all pairs", format!("{:.3}%", 100.0 * *interactions as f64 / pairs));
                row("per user", format!("{:.1}", *interactions as f64 / *users as f64));
                row("per item", format!("{:.1}", *interactions as f64 / *items as f64));
            }
            row("fingerprint", fingerprint.clone());
        }
        Data::Rows { rows: n, labels, fields, numeric, table_rows } => {
            if let Some(n) = n {
                row("rows", count(*n));
            }
            row("labels", list(labels));
            row("categorical fields", count(fields.len() as u64));
            row("table rows", count(*table_rows));
            row("numeric columns", list(numeric));
        }
        Data::Texts { rows: n, classes, text, label, temperature, threshold } => {
            if let Some(n) = n {
                row("texts", count(*n));
            }
            row("classes", count(classes.len() as u64));
            row("columns", format!("{text} -> {label}"));
            row("temperature", temperature.to_string());
            row("out of scope below", threshold.to_string());
        }
    }
    let schema = &found.schema;
    for (name, key) in [("learned from", "data"), ("validated on", "valid"), ("goes on from", "from")] {
        let named = match &schema[key] {
            Value::Array(files) => files.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
            Value::String(file) => file.clone(),
            _ => String::new(),
        };
        if !named.is_empty() {
            row(name, named);
        }
    }
    if let Some(held_out) = schema["held_out"].as_u64().filter(|&n| n > 0) {
        let learned = if found.refitted { ", and learned from in the end" } else { ", and not learned from" };
        row("held out to validate on", format!("{}{learned}", count(held_out)));
    }
    let body = html! {
        (pairs("", &rows))
        @match &found.data {
            Data::Rows { fields, .. } if !fields.is_empty() => {
                details {
                    summary { "Fields" }
                    div.scroll { table {
                        thead { tr { th { "field" } th.n { "table rows" } } }
                        tbody { @for field in fields { tr { th scope="row" { (field.name) } td.n { (count(field.table_rows)) } } } }
                    } }
                }
            }
            Data::Texts { classes, .. } => { details { summary { "Classes" } p { (classes.join(", ")) } } }
            _ => {}
        }
    };
    Section { id: "data", title: "Data", body }
}

fn configuration(found: &Findings) -> Section {
    let mut rows: Vec<(String, String)> =
        found.hyper_parameters.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    rows.push(("seed".to_owned(), found.seed.to_string()));
    rows.push(("written by".to_owned(), format!("recmill {}", found.library_version)));
    let schema = serde_json::to_string_pretty(&found.schema).unwrap_or_default();
    let body = html! {
        @if !found.objective.is_empty() { pre { (found.objective) } }
        (pairs("", &rows))
        @if !found.schema.is_null() { details { summary { "How the data was read" } pre { (schema) } } }
    };
    Section { id: "configuration", title: "Configuration", body }
}

fn size(found: &Findings) -> Section {
    let parameters: u64 = found.parameters.iter().map(|one| one.bytes).sum();
    let files: u64 = found.files.iter().map(|file| file.bytes).sum();
    let body = html! {
        p { "The parameters take " (bytes(parameters)) " in memory, all files " (bytes(files)) " on disk; a server maps the files." }
        div.scroll { table {
            caption { "Parameters" }
            thead { tr { th { "name" } th.n { "rows" } th.n { "numbers a row" } th { "type" } th.n { "size" } } }
            tbody { @for one in &found.parameters { tr {
                th scope="row" { (one.name) } td.n { (count(one.rows)) } td.n { (count(one.dim)) } td { (one.dtype) }
                td.n { (bytes(one.bytes)) }
            } } }
        } }
        div.scroll { table {
            caption { "Files" }
            thead { tr { th { "name" } th.n { "size" } } }
            tbody { @for file in &found.files { tr { th scope="row" { (file.name) } td.n { (bytes(file.bytes)) } } } }
        } }
    };
    Section { id: "size", title: "Memory and files", body }
}

/// A value without the quotes of JSON.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_told_from_other_files() {
        assert!(is_report(b"<!DOCTYPE html><html><head><meta charset=\"utf-8\"><meta name=\"generator\" content=\"recmill report\">"));
        assert!(!is_report(b"<!DOCTYPE html><title>recmill report</title>") && !is_report(&[0xff, 0, 1]));
    }

    #[test]
    fn the_style_asks_for_nothing() {
        assert!(!STYLE.contains("url(") && !STYLE.contains("@import") && !STYLE.contains("</"));
    }
}
