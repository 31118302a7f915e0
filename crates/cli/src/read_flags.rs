//! The flags that say how interactions are read, on every command that reads some.

use clap::Args;
use recmill_core::data::{EventWeights, Format, HalfLife, OnBadRow, ReadOptions, Repeats};
use serde::{Deserialize, Serialize};

/// How interactions are read.
#[derive(Args, Clone, Debug, Default, Serialize, Deserialize)]
#[command(next_help_heading = "Reading")]
#[serde(default)]
pub(crate) struct ReadFlags {
    /// Column with the user's id, by name or number from 1 [default: user, user_id, userId, customer_id ...].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) user_column: Option<String>,
    /// Column with the item's id [default: item, item_id, movieId, product_id ...].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) item_column: Option<String>,
    /// Column with the value [default: rating, value, weight; without one every row counts 1].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) value_column: Option<String>,
    /// Column with the time, as seconds or milliseconds since 1970 or as a date [default: timestamp, time].
    #[arg(long, value_name = "COLUMN")]
    pub(crate) time_column: Option<String>,
    /// Column with the kind of event, for --event-weights.
    #[arg(long, value_name = "COLUMN")]
    pub(crate) event_column: Option<String>,
    /// What an event of each kind counts.
    #[arg(long, value_name = "view=1,cart=3,...")]
    pub(crate) event_weights: Option<EventWeights>,
    /// Age at which an event counts half, such as 30d or 12h, from the newest event on [default: all count alike].
    #[arg(long, value_name = "DURATION")]
    pub(crate) half_life: Option<HalfLife>,
    /// What several rows of one user and item become: sum, last, max, first or mean [default: sum; last for svd].
    #[arg(long, value_name = "RULE")]
    pub(crate) repeats: Option<Repeats>,
    /// Leaves out users with fewer items.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_user_interactions: usize,
    /// Leaves out items with fewer users; both limits are applied until neither leaves anything out.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) min_item_interactions: usize,
    /// Leaves out rows with a lower value.
    #[arg(long, value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) min_rating: Option<f32>,
    /// Takes negative values as dislikes instead of refusing them.
    #[arg(long)]
    pub(crate) allow_negative: bool,
    /// What a bad row does: fail ends with an error, skip leaves it out and counts it.
    #[arg(long, value_name = "fail|skip", default_value_t = OnBadRow::Fail)]
    pub(crate) on_bad_row: OnBadRow,
    /// Format of the files: csv, tsv, jsonl, parquet or arrow [default: by name and first bytes].
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<Format>,
    /// What stands between two fields of a text file [default: a comma, or a tab in .tsv].
    #[arg(long, value_name = "CHARACTER")]
    pub(crate) delimiter: Option<char>,
    /// Says that text files have no header: columns are then user, item, value, time in this order.
    #[arg(long)]
    pub(crate) no_header: bool,
}

impl ReadFlags {
    /// Returns the options, with `repeats` unless the flag says otherwise.
    pub(crate) fn options(&self, repeats: Repeats) -> ReadOptions {
        let flags = self.clone();
        ReadOptions {
            user_column: flags.user_column,
            item_column: flags.item_column,
            value_column: flags.value_column,
            time_column: flags.time_column,
            event_column: flags.event_column,
            event_weights: flags.event_weights,
            half_life: flags.half_life,
            repeats: flags.repeats.unwrap_or(repeats),
            min_user_interactions: flags.min_user_interactions,
            min_item_interactions: flags.min_item_interactions,
            min_rating: flags.min_rating,
            allow_negative: flags.allow_negative,
            on_bad_row: flags.on_bad_row,
            format: flags.format,
            delimiter: flags.delimiter,
            no_header: flags.no_header,
        }
    }
}
