//! Tables of any library that speaks the Arrow C stream interface, read as interactions.

use arrow::{
    array::{RecordBatch, RecordBatchReader},
    datatypes::SchemaRef,
    ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader},
};
use pyo3::{exceptions::PyValueError, prelude::*, types::PyCapsule};
use recmill_core::{
    Dataset,
    data::{MemorySource, ReadOptions, Repeats, Source, read_sources},
    models::ModelConfig,
};

use crate::failure::Failure;

/// What messages call a table.
const TABLE: &str = "the table";

/// Takes the batches out of a capsule of the Arrow C stream interface.
pub(crate) fn read(stream: &Bound<'_, PyAny>) -> Result<(SchemaRef, Vec<RecordBatch>), Failure> {
    let refused = |error: &dyn std::fmt::Display| PyValueError::new_err(format!("{TABLE}: {error}"));
    let capsule = stream.cast::<PyCapsule>().map_err(|error| refused(&error))?;
    let pointer = capsule.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
    // SAFETY: the name says that this is a stream of the C interface; taking it leaves a released one behind.
    #[expect(unsafe_code, reason = "the C interface is one of pointers")]
    let mut reader =
        unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr()) }.map_err(|error| refused(&error))?;
    let schema = reader.schema();
    let batches = reader.by_ref().collect::<Result<Vec<_>, _>>().map_err(|error| refused(&error))?;
    Ok((schema, batches))
}

/// Makes a dataset of a table with columns `user`, `item`, and perhaps `value` and `time`.
pub(crate) fn dataset(
    (schema, batches): (SchemaRef, Vec<RecordBatch>),
    config: &ModelConfig,
) -> Result<Dataset, Failure> {
    let has = |name: &str| schema.column_with_name(name).map(|_| name.to_owned());
    let options = ReadOptions {
        user_column: has("user"),
        item_column: has("item"),
        value_column: has("value"),
        time_column: has("time"),
        repeats: if matches!(config, ModelConfig::Svd(_)) { Repeats::Last } else { Repeats::Sum },
        ..ReadOptions::default()
    };
    let source: Box<dyn Source> = Box::new(MemorySource::new(TABLE, schema, batches));
    let (dataset, _report) = read_sources(vec![source], &options, None)?;
    Ok(dataset)
}
