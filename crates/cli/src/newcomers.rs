//! Users and items that came after training, which commands add to the model they ask.

use clap::Args;
use recmill_core::{Side, data::OnBadRow};

use crate::{failure::Result, model::Model, output::note};

/// Where they come from.
#[derive(Args)]
pub(crate) struct Newcomers {
    /// Columns of users that came after training, as training's --users: they are answered from these alone, by models that learned from such.
    #[arg(long, value_name = "FILE")]
    pub(crate) users: Option<String>,
    /// Columns of items that came after training, as training's --items: they are found beside the known ones.
    #[arg(long, value_name = "FILE")]
    items: Option<String>,
    /// What a bad row of --users or --items does: fail ends with an error, skip leaves it out and counts it [default: fail].
    #[arg(long, value_name = "fail|skip")]
    on_bad_row: Option<OnBadRow>,
}

impl Newcomers {
    /// Returns the files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.users.iter().chain(&self.items).map(String::as_str)
    }

    /// Adds them to `model`, and tells how many there are.
    pub(crate) fn join(&self, model: &mut Model) -> Result<()> {
        if self.on_bad_row.is_some() && self.files().next().is_none() {
            note!("--on-bad-row does nothing here: it is for --users and --items");
        }
        for (side, file) in [(Side::Users, &self.users), (Side::Items, &self.items)] {
            if let Some(file) = file {
                model.add(side, file, self.on_bad_row.unwrap_or(OnBadRow::Fail))?;
            }
        }
        Ok(())
    }
}
