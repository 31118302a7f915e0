//! From files and streams to a dataset.
//!
//! ```text
//! locate, open      which files and URLs; what compresses them, which format they are in
//! Source            raw rows as Arrow record batches: text, json_lines, columnar, or the caller's own
//! InteractionReader finds the columns, checks every row: user, item, value, time
//! DatasetBuilder    numbers the ids, merges repeats, leaves out what is too rare
//! read_dataset      all of it, with a ReadReport of what was done
//! ```
//!
//! [`Sources`] opens files for those who choose the columns themselves, such as [`crate::features`].
//! [`split`] cuts files into training and test files before; [`Attributes`] are what is known of items or users besides,
//! and a [`Predicate`] chooses among them.

mod attributes;
mod builder;
mod cells;
mod columnar;
pub mod columns;
mod distinct;
mod interactions;
mod json_lines;
mod lines;
mod locate;
mod merge;
mod number;
mod open;
mod options;
mod predicate;
mod read;
mod remote;
mod report;
mod source;
mod sources;
mod split;
pub mod synthetic;
mod text;
mod thin;

pub use attributes::{Attributes, AttributesReport};
pub use builder::{Built, DatasetBuilder};
pub(crate) use cells::Cells;
pub use columnar::is_guarded;
pub(crate) use columns::{is_id_name, is_time_name, plain};
pub use interactions::{Interaction, InteractionReader, Interactions};
pub use number::parse_time;
pub use options::{EventWeights, Format, HalfLife, OnBadRow, ReadOptions, Repeats};
pub use predicate::Predicate;
pub use read::{read_dataset, read_sources};
pub use report::{BadRow, BadRowKind, BadRows, ColumnUse, ReadReport};
pub use source::{Lines, MemorySource, Rows, Source};
pub use sources::Sources;
pub(crate) use sources::{column_named, each_once};
pub use split::{SplitMethod, SplitReport, split};

/// The longest id in bytes; a longer one is a bad row.
pub const MAX_ID_BYTES: usize = 256;
