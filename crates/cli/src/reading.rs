//! Reading interactions and attributes, and telling what was read.

use std::{path::Path, time::Instant};

use arrow::array::RecordBatch;
use recmill_core::{
    Dataset, Error, IdMap,
    data::{Attributes, BadRows, ReadOptions, ReadReport, Repeats, read_dataset},
};

use crate::{
    failure::{Failure, Result},
    output::{count, counted, note, seconds, warning},
    progress::Bar,
    read_flags::ReadFlags,
};

/// Reads interactions and tells about them; they extend `base`.
pub(crate) fn interactions(
    files: &[String],
    options: &ReadOptions,
    base: Option<Dataset>,
) -> Result<(Dataset, ReadReport)> {
    let started = Instant::now();
    let bar = Bar::spinner("reading");
    let (data, report) = read_dataset(files, options, base).map_err(|error| nothing_left(error, options))?;
    drop(bar);
    let taken = started.elapsed().as_secs_f64();
    note!("read {} from {} in {}", counted(report.rows, "row"), report.sources.join(", "), seconds(taken));
    let columns: Vec<String> =
        report.columns.iter().map(|used| format!("{} `{}`", used.role, used.column)).collect();
    note!("columns: {}", columns.join(", "));
    tell_of_losses(&report);
    Ok((data, report))
}

/// Says which filters may have left nothing, where there were rows before them.
fn nothing_left(error: Error, options: &ReadOptions) -> Failure {
    let filters: Vec<String> = [
        ("--min-user-interactions", options.min_user_interactions as f64),
        ("--min-item-interactions", options.min_item_interactions as f64),
        ("--min-rating", options.min_rating.map_or(0.0, f64::from)),
    ]
    .iter()
    .filter(|(_, value)| *value != 0.0)
    .map(|(flag, value)| format!("{flag} {value}"))
    .collect();
    match error {
        Error::NoRows { path } if !filters.is_empty() => {
            Failure::failed(format!("{path}: no interaction is left after {}", filters.join(", ")))
                .hint("lower them; `recmill split` and `train --dry-run` say what they leave out")
        }
        error => error.into(),
    }
}

/// Takes an id as it is typed: without spaces around it, as ids of files are read.
pub(crate) fn typed_id(text: &str) -> std::result::Result<String, std::convert::Infallible> {
    Ok(text.trim_ascii().to_owned())
}

/// Ids as they are typed, commas between them; one that holds a comma stands in double quotes, as in CSV files.
#[derive(Clone, Debug)]
pub(crate) struct TypedIds(Vec<String>);

impl std::str::FromStr for TypedIds {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        const END: &str = "\u{1}";
        let mut reader = csv::ReaderBuilder::new();
        reader.has_headers(false).flexible(true).trim(csv::Trim::All);
        let mut ids = Vec::new();
        for record in reader.from_reader(format!("{text},{END}").as_bytes()).into_records() {
            ids.extend(record.map_err(|error| error.to_string())?.iter().map(str::to_owned));
        }
        // What stands behind an open quote belongs to its id.
        if ids.pop().as_deref() != Some(END) {
            return Err("a double quote is not closed".into());
        }
        if ids.iter().any(String::is_empty) {
            return Err("an id is empty".into());
        }
        Ok(Self(ids))
    }
}

impl TypedIds {
    /// Returns the ids of several of a flag, one after the other.
    pub(crate) fn all(several: &[Self]) -> impl Iterator<Item = &str> {
        several.iter().flat_map(|ids| &ids.0).map(String::as_str)
    }
}

/// Whether the values of what was read are the data's, and not 1 for each row for want of any.
pub(crate) fn has_values(report: &ReadReport, options: &ReadOptions) -> bool {
    options.event_weights.is_some() || report.columns.iter().any(|used| used.role == "value")
}

/// Reads interactions to measure on: nothing is left out of them but bad rows. Returns with them whether they have values.
pub(crate) fn held_out(files: &[String], options: &ReadOptions) -> Result<(Dataset, bool)> {
    let options = ReadOptions {
        min_user_interactions: 0,
        min_item_interactions: 0,
        half_life: None,
        repeats: Repeats::Last,
        ..options.clone()
    };
    let bar = Bar::spinner("reading");
    let (data, report) = read_dataset(files, &options, None)?;
    drop(bar);
    report.bad_rows.iter().for_each(|bad| tell_of_bad_rows(bad, &files.join(", ")));
    let has_values = has_values(&report, &options);
    Ok((data, has_values))
}

/// Tells which rows of a file were left out.
pub(crate) fn tell_of_bad_rows(bad: &BadRows, file: &str) {
    warning!("{file}: skipped {} ({}), first {}", counted(bad.rows, "bad row"), bad.kind, bad.first);
}

/// What an error of reading columns of users or items means to whoever named the file.
pub(crate) fn of_attributes(error: Error) -> Failure {
    match error {
        Error::EmptyFile { .. } | Error::NoRows { .. } => Failure::failed(error.to_string())
            .hint("is it the right file? its first column holds the ids, the others what is known of each"),
        error => error.into(),
    }
}

/// Reads the columns that belong to `ids`, and tells how many have none.
pub(crate) fn attributes(file: &str, ids: &IdMap, side: &str, flags: &ReadFlags) -> Result<RecordBatch> {
    let options = ReadOptions { on_bad_row: flags.on_bad_row, ..ReadOptions::default() };
    let (attributes, report) = Attributes::read(file, ids, &options).map_err(of_attributes)?;
    report.bad_rows.iter().for_each(|bad| tell_of_bad_rows(bad, file));
    note!("{file}: columns for {} of {}", count(report.described as u64), counted(ids.len() as u64, side));
    if report.described == 0 {
        warning!("no id of {file} is an id of the interactions; its first column must hold the {side} ids");
    }
    Ok(attributes.table().clone())
}

/// Refuses to write over a file that is read.
pub(crate) fn not_an_input<'a>(
    output: Option<&Path>,
    mut inputs: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let Some(output) = output.and_then(|output| fs_err::canonicalize(output).ok()) else { return Ok(()) };
    match inputs.find(|input| fs_err::canonicalize(input).is_ok_and(|input| input == output)) {
        Some(input) => Err(Failure::usage(format!("--output would replace {input}, which is read"))
            .hint("name another file")),
        None => Ok(()),
    }
}

/// What was merged, skipped or left out.
fn tell_of_losses(report: &ReadReport) {
    if report.repeated_rows > 0 {
        let repeat = if report.repeated_rows == 1 { "repeats" } else { "repeat" };
        note!(
            "{} {repeat} a pair of user and item; such rows become one by the rule `{}` (--repeats)",
            counted(report.repeated_rows, "row"),
            report.repeats
        );
    }
    for bad in &report.bad_rows {
        warning!("skipped {} ({}), first {}", counted(bad.rows, "bad row"), bad.kind, bad.first);
    }
    if report.rows_below_min_rating > 0 {
        note!("left out {} below --min-rating", counted(report.rows_below_min_rating, "row"));
    }
    if report.dropped_users + report.dropped_items > 0 {
        note!(
            "left out {} and {} with too few interactions, {} in all",
            counted(report.dropped_users as u64, "user"),
            counted(report.dropped_items as u64, "item"),
            counted(report.dropped_interactions as u64, "interaction")
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_ids_are_those_of_a_row_of_csv() {
        for (typed, expected) in [
            ("17,4", &["17", "4"][..]),
            (" 17 , four words ", &["17", "four words"]),
            (r#""Milk, whole",17"#, &["Milk, whole", "17"]),
            (r#"12"#, &["12"]),
            (r#"3" nail,"a ""b""""#, &[r#"3" nail"#, r#"a "b""#]),
            ("a\nb,c", &["a", "b", "c"]),
        ] {
            let ids: TypedIds = typed.parse().unwrap();
            assert_eq!(TypedIds::all(&[ids]).collect::<Vec<_>>(), expected, "{typed}");
        }
        for wrong in ["", ",", "a,,b", r#""a,b"#, r#"a,"b"#] {
            assert!(wrong.parse::<TypedIds>().is_err(), "{wrong}");
        }
    }
}
