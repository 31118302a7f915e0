//! What is known of users and items besides what they did: tables whose first column is the id.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt32Array},
    compute::take_record_batch,
    datatypes::{DataType, Field, Schema},
    error::ArrowError,
};
use pyo3::{exceptions::PyValueError, prelude::*};
use recmill_core::{
    Error, IdMap, Ids, LaterIds, Side,
    data::{Attributes, OnBadRow},
    features::Described,
    models::Retriever,
};

use crate::{failure::Failure, frame::Frame};

/// Returns a row for each of `ids` in their order, with nothing but the id where the table has none.
pub(crate) fn of_ids(frame: &Frame, side: Side, ids: &IdMap) -> Result<RecordBatch, Failure> {
    let (described, rows) = each_once(frame, side)?.unknown_to(&IdMap::default())?;
    let wanted: UInt32Array = ids.iter().map(|id| described.get(id)).collect();
    let refused = |error: ArrowError| refused(side, error);
    let all = take_record_batch(&nullable(&rows, side)?, &wanted).map_err(refused)?;
    let mut columns = all.columns().to_vec();
    columns[0] = Arc::new(ids.iter().map(Some).collect::<StringArray>()) as ArrayRef;
    let mut fields: Vec<Field> = all.schema().fields().iter().map(|field| field.as_ref().clone()).collect();
    fields[0] = Field::new(fields[0].name(), DataType::Utf8, true);
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(refused)?)
}

/// Adds those of the table that `known` does not have to the model, and returns all ids.
pub(crate) fn grow(
    retriever: &mut dyn Retriever,
    side: Side,
    frame: &Frame,
    known: &Arc<dyn Ids>,
) -> Result<Arc<dyn Ids>, Failure> {
    let features = retriever.features(side).cloned();
    let features = features.ok_or(Error::NoFeatures { side: side.name() })?;
    let (later, rows) = each_once(frame, side)?.unknown_to(&**known)?;
    let described = Described::of(features, &rows, side.name(), OnBadRow::Fail)?;
    retriever.add(side, &described)?;
    Ok(Arc::new(LaterIds { first: known.clone(), later }))
}

/// Returns the table, whose ids are there and each once.
fn each_once(frame: &Frame, side: Side) -> Result<Attributes, Failure> {
    let whole = frame.whole()?;
    let (rows, attributes) = (whole.num_rows(), Attributes::new(whole));
    let (ids, _) = attributes.unknown_to(&IdMap::default())?;
    if ids.len() == rows && rows > 0 {
        return Ok(attributes);
    }
    let said = format!("{}: {rows} rows have {} different ids: each needs one, once", side.name(), ids.len());
    Err(PyValueError::new_err(said).into())
}

fn nullable(rows: &RecordBatch, side: Side) -> Result<RecordBatch, Failure> {
    let schema = rows.schema();
    let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    Ok(RecordBatch::try_new(schema, rows.columns().to_vec()).map_err(|error| refused(side, error))?)
}

fn refused(side: Side, error: ArrowError) -> PyErr {
    PyValueError::new_err(format!("{}: {error}", side.name()))
}
