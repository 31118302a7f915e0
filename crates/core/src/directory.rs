//! The model directory: what training writes is what the server maps into memory.
//!
//! ```text
//! model/CURRENT                the number of the current version; its atomic replacement is the commit
//! model/versions/7/            immutable once it is there
//!   config.json                format, model, hyper-parameters, objective, schema, metrics, seed, data; tables and arrays;
//!                              of every other file the length and the sha256 of each 64 MiB
//!   config.sha256              the sha256 of config.json, as `sha256sum -c` reads it
//!   model.safetensors ..       tables by row range: `user_factors/0`, `user_factors/1` ..; plain arrays whole
//!   users.fst, users.names     id -> index, index -> id; items.* likewise
//!   items.parquet              item columns given in training; users.parquet likewise
//!   history.safetensors        what each user did, in time order
//!   history.jsonl              one object an epoch
//! ```
//!
//! [`save`] adds a version, [`ModelDirectory::open`] reads one. Opening touches config.json, headers and lengths; tables
//! and ids are read in place from the mapped files. Hidden files are ignored, anything else that config.json does not
//! list is refused, links too.

mod ask;
mod damage;
mod disk;
mod epoch;
mod fst_walk;
mod hash;
mod history;
#[cfg(test)]
mod identity;
mod ids;
mod manifest;
mod map;
mod open;
mod save;
mod stored;
mod tensors;

pub use damage::Damage;
pub use disk::{Call, Disk, replace_file};
pub use epoch::Epoch;
pub use hash::FileRecord;
pub use history::{HistoryRow, MappedHistory};
pub use ids::MappedIds;
pub use manifest::{ArrayRecord, Config, DataSummary, Manifest, RangeRecord, TableRecord};
pub(crate) use map::map_unnamed;
pub use open::{FileCheck, ModelDirectory, Verify, list_versions};
pub use save::{Claim, Saved, check_destination, save, save_on};
