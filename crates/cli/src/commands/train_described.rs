//! What two-tower learns of users and items besides their interactions: the columns of `--users` and `--items`.

use arrow::array::RecordBatch;
use recmill_core::{data::OnBadRow, directory::ModelDirectory, features::Described};

use crate::{commands::train::Attributed, failure::Result, output::note, reading};

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
        on_bad_row: OnBadRow,
    ) -> Result<Self> {
        let users = describe(attributes.users.as_ref(), "user", from, on_bad_row)?;
        let items = describe(attributes.items.as_ref(), "item", from, on_bad_row)?;
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
    from: Option<&ModelDirectory>,
    on_bad_row: OnBadRow,
) -> Result<Option<Described>> {
    let Some(table) = table else { return Ok(None) };
    let what = format!("{side} columns");
    if let Some(from) = from {
        let Some(features) = from.parameters()?.take_features(&format!("{side}_features")) else {
            note!("{what}: not learned from, since the model that this goes on from has not");
            return Ok(None);
        };
        let described = Described::of(features, table, &what, on_bad_row)?;
        tell_of_bad_rows(&described, &what);
        return Ok(Some(described));
    }
    let (described, guesses) = Described::fit(table, &what, on_bad_row)?;
    if let Some(described) = &described {
        tell_of_bad_rows(described, &what);
    }
    let is_feature = |kind: &str| matches!(kind, "categorical" | "bag" | "numeric");
    let (learned, others): (Vec<_>, Vec<_>) = guesses.iter().partition(|guess| is_feature(&guess.kind));
    if !learned.is_empty() {
        let learned: Vec<String> =
            learned.iter().map(|guess| format!("{} ({})", guess.column, guess.kind)).collect();
        note!("{what} that are learned from: {}", learned.join(", "));
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
