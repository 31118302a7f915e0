//! From a file of rows to the numbers that a ranker learns from, and the same again for every row it is asked about.
//!
//! ```text
//! infer_schema   what each column is: category, bag, number, label ..; every guess with its reason
//! Features::fit  one pass: vocabularies, means, quantiles; part of the model from then on
//! transform      rows of any Arrow batch -> a FeatureBatch of indices and f32, by what was fitted
//! Examples       all rows of a training file so transformed, in memory or in a mapped temporary file
//! ```
//!
//! Row 0 of a vocabulary is for categories that training did not have. A category that is missing is one of its own (the
//! empty text), and goes to row 0 where it was too rare. Everything is deterministic: the same files give the same bytes.

mod batch;
mod column;
mod examples;
mod fit;
mod fitted;
mod hash;
mod infer;
mod numbers;
mod reader;
mod report;
mod schema;
mod schema_text;
mod store;
mod transform;
mod vocabulary;

pub use batch::{FeatureBatch, FieldValues};
pub use examples::Examples;
pub use fitted::{Encoder, Features, Field, NumericField};
pub use hash::{hash_category, murmur3};
pub use infer::{SchemaOptions, infer_schema, infer_sources};
pub use reader::{FeatureReader, LabelUse};
pub use report::{
    FitReport, FullVocabulary, Guess, LabelCount, SchemaReport, SchemaWarning, TransformReport,
};
pub use schema::{ColumnKind, Encoding, FeatureColumn, Fill, Numeric, NumericTransform, Schema};
pub use vocabulary::Vocabulary;
