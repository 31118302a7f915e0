//! What two-tower learns of users and items besides their interactions: the columns of `--users` and `--items`.

use arrow::array::RecordBatch;
use recmill_core::{data::OnBadRow, directory::ModelDirectory, features::Described};

use crate::{
    commands::{train::Attributed, train_flags::TrainFlags},
    failure::Result,
    output::{note, warning},
    reading,
};

/// Columns as features; none of a side without columns that say anything.
#[derive(Default)]
pub(super) struct DescribedSides {
    pub(super) users: Option<Described>,
    pub(super) items: Option<Described>,
}

impl DescribedSides {
    /// Makes features of the columns, and says what was made of each; as for the model `from` where there is one.
    pub(super) fn of(
        attributes: &Attributed,
        from: Option<&ModelDirectory>,
        flags: &TrainFlags,
    ) -> Result<Self> {
        let side = |table: &Option<RecordBatch>, side, file: &Option<String>| {
            describe(table.as_ref(), side, file.as_deref(), from, flags.reading.on_bad_row)
        };
        let users = side(&attributes.users, "user", &flags.users)?;
        let items = side(&attributes.items, "item", &flags.items)?;
        if users.is_none() && items.is_none() {
            note!(
                "no column of users or items to learn from (--users, --items): ids alone, and nobody new can be placed"
            );
        }
        Ok(Self { users, items })
    }
}

fn describe(
    table: Option<&RecordBatch>,
    side: &str,
    file: Option<&str>,
    from: Option<&ModelDirectory>,
    on_bad_row: OnBadRow,
) -> Result<Option<Described>> {
    let Some(table) = table else { return Ok(None) };
    let what = format!("{side} columns");
    // Where the columns came with the model there is no file to name.
    let place = file.unwrap_or(&what);
    if let Some(from) = from {
        let Some(features) = from.parameters()?.take_features(&format!("{side}_features")) else {
            note!("{what}: not learned from, since the model that this goes on from has not");
            return Ok(None);
        };
        let described = Described::of(features, table, place, on_bad_row)?;
        tell_of_bad_rows(&described, place);
        return Ok(Some(described));
    }
    let (described, guesses) = Described::fit(table, place, on_bad_row)?;
    if let Some(described) = &described {
        tell_of_bad_rows(described, place);
    }
    let is_feature = |kind: &str| matches!(kind, "categorical" | "bag" | "numeric");
    let (learned, others): (Vec<_>, Vec<_>) = guesses.iter().partition(|guess| is_feature(&guess.kind));
    if !learned.is_empty() {
        let learned: Vec<String> =
            learned.iter().map(|guess| format!("{} ({})", guess.column, guess.kind)).collect();
        note!("{what} that are learned from: {}", learned.join(", "));
    }
    for guess in &guesses {
        if let Some(text) = &guess.stray {
            warning!(
                "{place}: {} is nearly always a number, but also `{text}`: each number is learned as a category of its own; empty the cell if there is no number",
                guess.column
            );
        }
    }
    for guess in others {
        note!("{what}: {} is not learned from: {}", guess.column, guess.why);
    }
    Ok(described)
}

/// Tells of which users or items nothing is known for a bad value.
fn tell_of_bad_rows(described: &Described, what: &str) {
    described.bad_rows().iter().for_each(|bad| reading::tell_of_bad_rows(bad, what));
}
