//! From a file of rows to the numbers that a ranker learns from, and the same again for every row it is asked about.
//!
//! ```text
//! infer_schema   what each column is: category, bag, number, label ..; every guess with its reason
//! Features::fit  one pass: vocabularies, means, quantiles; part of the model from then on
//! transform      rows of any Arrow batch -> a FeatureBatch of indices and f32, by what was fitted
//! Examples       all rows of a training file so transformed, in memory or in a mapped temporary file
//! Described      all users, or all items, of a model so transformed, from their attributes
//! ```
//!
//! Row 0 of a vocabulary is for categories that training did not have. A category that is missing is one of its own (the
//! empty text), and goes to row 0 where it was too rare. Everything is deterministic: the same files give the same bytes.
//! Files are read once for each step, so standard input must be copied to a file first.
//!
//! ```
//! use recmill_core::data::ReadOptions;
//! use recmill_core::features::{Examples, FeatureBatch, Features, SchemaOptions, infer_schema};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let path = folder.path().join("clicks.csv");
//! std::fs::write(&path, "city,price,click\nOslo,3,1\nOslo,4,0\nBergen,5,0\n")?;
//! let (paths, read) = ([path.display().to_string()], ReadOptions::default());
//!
//! let (schema, _) = infer_schema(&paths, &read, &SchemaOptions::default())?;
//! let (features, _) = Features::fit(&schema, &paths, &read)?;
//! let (examples, _) = Examples::read(&features, &paths, &read, 1 << 30)?;
//!
//! let mut batch = FeatureBatch::default();
//! examples.gather(&[2, 0], &mut batch);
//! // Bergen is there once, so it has no row of its own; 4 is the mean of the prices.
//! assert_eq!(batch.fields[0].indices, [0, 1]);
//! assert_eq!(batch.numeric[0], -batch.numeric[1]);
//! assert_eq!(batch.labels, [0.0, 1.0]);
//! # Ok(())
//! # }
//! ```

mod batch;
mod column;
mod described;
mod examples;
mod fit;
mod fitted;
mod hash;
mod infer;
mod json_rows;
mod numbers;
mod reader;
mod report;
mod schema;
mod schema_text;
mod store;
mod transform;
mod vocabulary;

pub use batch::{FeatureBatch, FieldValues};
pub use described::Described;
pub use examples::{Examples, holdout};
pub use fitted::{Encoder, Features, Field, NumericField};
pub use hash::hash_category;
pub use infer::{SchemaOptions, infer_schema, infer_sources};
pub(crate) use reader::RowReader;
pub use reader::{FeatureReader, LabelUse};
pub use report::{
    FitReport, FullVocabulary, Guess, LabelCount, SchemaReport, SchemaWarning, TransformReport,
};
pub use schema::{ColumnKind, Encoding, FeatureColumn, Fill, Numeric, NumericTransform, Schema};
pub use vocabulary::Vocabulary;
