//! Rows of a request, as a server gets them: JSON objects, one a row.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema};
use serde_json::{Map, Value};

use super::fitted::Features;
use crate::data::{Lines, Rows};
use crate::{Error, Result};

impl Features {
    /// Makes rows for [`Features::transform`] of JSON objects whose keys are columns; their lines are counted from 1.
    ///
    /// A key that is absent is a missing value, as null is. Keys of columns that are no feature are passed over, so that a
    /// line of the training file can be sent as it is; a key that the schema does not have is an error, since it is
    /// more likely misspelt than meant.
    ///
    /// # Errors
    /// [`Error::NoSuchColumn`], with `location` for the path.
    pub fn rows_of_json(&self, objects: &[Map<String, Value>], location: &str) -> Result<Rows> {
        let names: Vec<&str> = self.feature_columns().collect();
        for key in objects.iter().flat_map(Map::keys) {
            if !names.contains(&key.as_str()) && self.schema.column(key).is_none() {
                return Err(Error::NoSuchColumn {
                    path: location.to_owned(),
                    column: key.clone(),
                    known: names.join(", "),
                });
            }
        }
        let column = |name: &&str| {
            let mut cells = StringBuilder::new();
            for object in objects {
                match object.get(*name) {
                    None | Some(Value::Null) => cells.append_null(),
                    Some(Value::String(text)) => cells.append_value(text),
                    Some(other) => cells.append_value(other.to_string()),
                }
            }
            Arc::new(cells.finish()) as ArrayRef
        };
        let columns = names.iter().map(column).collect();
        let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(objects.len()));
        let schema = Arc::new(ArrowSchema::new(fields));
        let batch = RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::BadFile { path: location.to_owned(), what: error.to_string() })?;
        Ok(Rows { batch, lines: Lines::from(1), bad: Vec::new() })
    }
}
