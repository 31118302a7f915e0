//! The fitted features: what training saw, and serving applies.

use serde::{Deserialize, Serialize};

use super::hash::hash_category;
use super::schema::{ColumnKind, Encoding, Schema};
use super::vocabulary::Vocabulary;
use crate::{Error, Result};

/// How rows become numbers, as fitted on the training file; part of the model.
///
/// Fields and numeric columns are in the order of the schema.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct Features {
    pub(super) schema: Schema,
    pub(super) fields: Vec<Field>,
    pub(super) numeric: Vec<NumericField>,
    pub(super) labels: Vec<String>,
}

/// A column that becomes rows of an embedding table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub(super) name: String,
    /// For a bag: what stands between two categories of one text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) separator: Option<String>,
    pub(super) encoder: Encoder,
}

/// How a cell becomes an index of its field.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Encoder {
    /// A category's place in the list, from 1; 0 for what is not in it.
    Vocabulary(Vocabulary),
    /// [`hash_category`] with seed 0.
    Hashed {
        /// The size of the table.
        buckets: u32,
    },
    /// A number's bucket, from 1; 0 where it is missing. A bound belongs to the bucket above it.
    Quantiles {
        /// The ascending bounds between buckets.
        bounds: Vec<f64>,
    },
}

/// A column that becomes one dense number.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumericField {
    pub(super) name: String,
    /// Whether the number is first replaced by `sign(x) ln(1 + |x|)`.
    pub(super) log: bool,
    /// What is subtracted then.
    pub(super) center: f64,
    /// What the difference is multiplied by; 0 for a column that was constant in training.
    pub(super) scale: f64,
    /// What a missing number becomes.
    pub(super) fill: f32,
}

impl Features {
    /// Returns the columns that become rows of tables, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Returns the columns that become dense numbers, in order.
    pub fn numeric(&self) -> &[NumericField] {
        &self.numeric
    }

    /// Returns the columns that are labels, in order.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Returns the schema that was fitted.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Takes groups from `column` from now on.
    pub fn group_by(&mut self, column: &str) {
        self.schema.group = Some(column.to_owned());
    }

    /// Returns the vocabularies by field, for those that have one, so that they can be stored by themselves.
    pub fn vocabularies(&self) -> impl Iterator<Item = (usize, &Vocabulary)> {
        self.fields.iter().enumerate().filter_map(|(at, field)| match &field.encoder {
            Encoder::Vocabulary(vocabulary) => Some((at, vocabulary)),
            _ => None,
        })
    }

    /// Returns the same features with empty vocabularies, to be stored beside [`Features::vocabularies`].
    pub fn without_vocabularies(&self) -> Self {
        let bare = |field: &Field| match &field.encoder {
            Encoder::Vocabulary(_) => Field {
                name: field.name.clone(),
                separator: field.separator.clone(),
                encoder: Encoder::Vocabulary(Vocabulary::default()),
            },
            _ => field.clone(),
        };
        Self {
            schema: self.schema.clone(),
            fields: self.fields.iter().map(bare).collect(),
            numeric: self.numeric.clone(),
            labels: self.labels.clone(),
        }
    }

    /// Puts a vocabulary that was stored by itself back into its field.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the field has none.
    pub fn set_vocabulary(&mut self, field: usize, vocabulary: Vocabulary) -> Result<()> {
        match self.fields.get_mut(field).map(|field| &mut field.encoder) {
            Some(Encoder::Vocabulary(place)) => *place = vocabulary,
            _ => return Err(Error::Inconsistent { what: "field without a vocabulary", at: field as u64 }),
        }
        Ok(())
    }

    /// Returns the columns that every row must have.
    pub(super) fn feature_columns(&self) -> impl Iterator<Item = &str> {
        let features = self.schema.columns.iter().filter(|column| column.kind.is_feature());
        features.map(|column| column.name.as_str())
    }
}

impl Field {
    /// Returns the column's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the rows of the field's table: indices are below it.
    pub fn rows(&self) -> usize {
        match &self.encoder {
            Encoder::Vocabulary(vocabulary) => vocabulary.len() + 1,
            Encoder::Hashed { buckets } => *buckets as usize,
            Encoder::Quantiles { bounds } => bounds.len() + 2,
        }
    }

    /// Returns whether a row has any number of categories.
    pub fn is_bag(&self) -> bool {
        self.separator.is_some()
    }

    /// Returns how a cell becomes an index.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// Returns the index of a category, and whether it is one that training did not have.
    pub(super) fn index(&self, category: &str) -> (u32, bool) {
        match &self.encoder {
            Encoder::Vocabulary(vocabulary) => match vocabulary.get(category) {
                Some(place) => (place + 1, false),
                None => (0, true),
            },
            Encoder::Hashed { buckets } => (hash_category(category.as_bytes(), 0, *buckets), false),
            Encoder::Quantiles { .. } => (0, true),
        }
    }
}

impl NumericField {
    /// Returns the column's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what a number becomes.
    pub fn value(&self, number: f64) -> f32 {
        let number = if self.log { signed_log(number) } else { number };
        ((number - self.center) * self.scale) as f32
    }

    /// Returns what a missing number becomes.
    pub fn fill(&self) -> f32 {
        self.fill
    }
}

/// Returns `sign(x) ln(1 + |x|)`.
pub(super) fn signed_log(x: f64) -> f64 {
    x.abs().ln_1p().copysign(x)
}

/// Features as they are written, before it is known that their parts fit together.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: Schema,
    fields: Vec<Field>,
    numeric: Vec<NumericField>,
}

impl From<Features> for Stored {
    fn from(features: Features) -> Self {
        Self { schema: features.schema, fields: features.fields, numeric: features.numeric }
    }
}

impl TryFrom<Stored> for Features {
    type Error = String;

    fn try_from(stored: Stored) -> std::result::Result<Self, String> {
        let Stored { schema, fields, numeric } = stored;
        schema.validate().map_err(|error| error.to_string())?;
        let (mut next_field, mut next_numeric) = (fields.iter(), numeric.iter());
        for column in &schema.columns {
            let mut field_fits = |kind: &ColumnKind| {
                next_field.next().is_some_and(|field| {
                    let encoding = match kind {
                        ColumnKind::Categorical(encoding) | ColumnKind::Bag { encoding, .. } => {
                            Some(encoding)
                        }
                        _ => None,
                    };
                    let encoder = match (encoding, &field.encoder) {
                        (None, Encoder::Quantiles { bounds }) => bounds.is_sorted(),
                        (Some(Encoding::Hashed { buckets: said }), Encoder::Hashed { buckets }) => {
                            said == buckets
                        }
                        (Some(Encoding::Vocabulary { .. }), Encoder::Vocabulary(_)) => true,
                        _ => false,
                    };
                    let separator = match kind {
                        ColumnKind::Bag { separator, .. } => Some(separator),
                        _ => None,
                    };
                    encoder && field.name == column.name && field.separator.as_ref() == separator
                })
            };
            let mut number_fits = || {
                next_numeric.next().is_some_and(|numeric| {
                    let numbers = [numeric.center, numeric.scale, f64::from(numeric.fill)];
                    numeric.name == column.name && numbers.iter().all(|number| number.is_finite())
                })
            };
            let fits = match &column.kind {
                ColumnKind::Numeric(number) => {
                    (number.field_buckets().is_none() || field_fits(&column.kind))
                        && (!number.is_dense() || number_fits())
                }
                kind => !kind.is_feature() || field_fits(kind),
            };
            if !fits {
                return Err(format!("what was fitted for column `{}` does not fit its kind", column.name));
            }
        }
        if next_field.next().is_some() || next_numeric.next().is_some() {
            return Err("more columns were fitted than the schema has".to_owned());
        }
        let labels = schema.labels().map(str::to_owned).collect();
        Ok(Self { schema, fields, numeric, labels })
    }
}
