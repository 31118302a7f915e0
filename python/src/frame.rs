//! Tables of any library, as Arrow batches: by the Arrow C stream interface, or column by column where there is no Arrow.

use std::sync::Arc;

use arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Float32Array, Float64Array, Int64Array, RecordBatch,
        RecordBatchReader, StringArray, TimestampSecondArray,
    },
    compute::concat_batches,
    datatypes::SchemaRef,
    ffi_stream::{FFI_ArrowArrayStream, RecordBatchStreamReader},
};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::{
    exceptions::{PyTypeError, PyValueError},
    prelude::*,
    types::PyCapsule,
};
use recmill_core::{
    Dataset,
    data::{MemorySource, ReadOptions, Repeats, Source, Sources, read_sources},
    models::{ItemKnnConfig, ModelConfig},
};

use crate::{
    failure::{Failure, guarded},
    threads::apart,
};

/// What messages call a table.
const TABLE: &str = "the table";

/// Rows of a batch that is made of columns.
const BATCH_ROWS: usize = 1 << 16;

/// Batches that all have the columns of one schema.
pub(crate) struct Frame {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
}

impl Frame {
    /// Reads a capsule of the Arrow C stream interface, or a list of `(name, values)`: numpy's bool, int64, float32, float64,
    /// its datetime64 in seconds as `(int64,)`, or a list of texts with `None` for what is missing.
    pub(crate) fn of(table: &Bound<'_, PyAny>) -> Result<Self, Failure> {
        match table.cast::<PyCapsule>() {
            Ok(stream) => Self::of_stream(stream),
            Err(_) => Self::of_columns(table),
        }
    }

    fn of_stream(stream: &Bound<'_, PyCapsule>) -> Result<Self, Failure> {
        let pointer = stream.pointer_checked(Some(c"arrow_array_stream"))?.cast::<FFI_ArrowArrayStream>();
        // SAFETY: the name says that this is a stream of the C interface; taking it leaves a released one behind.
        #[expect(unsafe_code, reason = "the C interface is one of pointers")]
        let mut reader = unsafe { RecordBatchStreamReader::from_raw(pointer.as_ptr()) }.map_err(refused)?;
        let schema = reader.schema();
        // Whoever makes the batches in Python takes the interpreter for it.
        let batches = stream.py().detach(|| reader.by_ref().collect::<Result<Vec<_>, _>>());
        Ok(Self { schema, batches: batches.map_err(refused)? })
    }

    fn of_columns(table: &Bound<'_, PyAny>) -> Result<Self, Failure> {
        let columns: Vec<(String, Bound<'_, PyAny>)> = table.extract()?;
        let columns = columns
            .into_iter()
            .map(|(name, values)| column(&name, &values).map(|array| (name, array)))
            .collect::<PyResult<Vec<_>>>()?;
        if let Some((first, length)) = columns.first().map(|(name, array)| (name, array.len()))
            && let Some((name, array)) = columns.iter().find(|(_, array)| array.len() != length)
        {
            let found = array.len();
            return Err(
                refused(format!("column {name:?} has {found} rows, and {first:?} has {length}")).into()
            );
        }
        let whole = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        )
        .map_err(refused)?;
        let cut = |first| whole.slice(first, BATCH_ROWS.min(whole.num_rows() - first));
        let batches = (0..whole.num_rows()).step_by(BATCH_ROWS).map(cut).collect();
        Ok(Self { schema: whole.schema(), batches })
    }

    /// Returns the rows as one batch.
    pub(crate) fn whole(&self) -> Result<RecordBatch, Failure> {
        Ok(concat_batches(&self.schema, &self.batches).map_err(refused)?)
    }

    /// Returns the rows as the library reads them; may be asked for again.
    pub(crate) fn sources(&self) -> Sources {
        Sources::of(vec![self.source()])
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(MemorySource::new(TABLE, self.schema.clone(), self.batches.clone()))
    }

    /// Makes a dataset of columns `user`, `item`, and perhaps `value` and `time`.
    pub(crate) fn dataset(&self, config: &ModelConfig) -> Result<Dataset, Failure> {
        let has = |name: &str| self.schema.column_with_name(name).map(|_| name.to_owned());
        let options = ReadOptions {
            user_column: has("user"),
            item_column: has("item"),
            value_column: has("value"),
            time_column: has("time"),
            repeats: if matches!(config, ModelConfig::Svd(_)) { Repeats::Last } else { Repeats::Sum },
            ..ReadOptions::default()
        };
        let (dataset, _report) = read_sources(vec![self.source()], &options, None)?;
        Ok(dataset)
    }
}

/// The interactions of a table, each pair of user and item once, with the ids that they were known by.
#[pyclass(frozen, module = "recmill._recmill")]
pub(crate) struct Events {
    pub(crate) dataset: Arc<Dataset>,
}

/// Row pointers, columns, values and the number of columns of a sparse matrix.
type Matrix<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f32>>, usize);

#[pymethods]
impl Events {
    /// Returns the matrix of users by items, `(indptr, indices, values, n_items)`.
    fn matrix<'py>(&self, py: Python<'py>) -> Matrix<'py> {
        let csr = self.dataset.by_user();
        let indptr = PyArray1::from_iter(py, csr.indptr().iter().map(|&end| end as i64));
        let indices = PyArray1::from_iter(py, csr.indices().iter().map(|&item| item as i32));
        (indptr, indices, PyArray1::from_slice(py, csr.values()), csr.n_columns())
    }
}

/// Reads a table with columns `user`, `item` and perhaps `value` and `time`; see [`Frame::of`].
#[pyfunction]
pub(crate) fn read_events(py: Python<'_>, table: &Bound<'_, PyAny>) -> PyResult<Events> {
    guarded(|| {
        let frame = Frame::of(table)?;
        let config = ModelConfig::ItemKnn(ItemKnnConfig::default());
        let dataset = apart(py, || frame.dataset(&config))?;
        Ok(Events { dataset: Arc::new(dataset) })
    })
}

fn refused(error: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(format!("{TABLE}: {error}"))
}

/// Copies one column.
fn column(name: &str, values: &Bound<'_, PyAny>) -> PyResult<ArrayRef> {
    if let Ok(values) = values.extract::<PyReadonlyArray1<'_, i64>>() {
        return Ok(Arc::new(Int64Array::from_iter_values(values.as_array().iter().copied())));
    }
    if let Ok(values) = values.extract::<PyReadonlyArray1<'_, f64>>() {
        return Ok(Arc::new(Float64Array::from_iter_values(values.as_array().iter().copied())));
    }
    if let Ok(values) = values.extract::<PyReadonlyArray1<'_, f32>>() {
        return Ok(Arc::new(Float32Array::from_iter_values(values.as_array().iter().copied())));
    }
    if let Ok(values) = values.extract::<PyReadonlyArray1<'_, bool>>() {
        return Ok(Arc::new(values.as_array().iter().copied().map(Some).collect::<BooleanArray>()));
    }
    if let Ok((seconds,)) = values.extract::<(PyReadonlyArray1<'_, i64>,)>() {
        // What numpy calls not a time is the least number.
        let time = |&at: &i64| (at != i64::MIN).then_some(at);
        return Ok(Arc::new(seconds.as_array().iter().map(time).collect::<TimestampSecondArray>()));
    }
    match values.extract::<Vec<Option<String>>>() {
        Ok(texts) => Ok(Arc::new(StringArray::from(texts))),
        Err(error) => Err(PyTypeError::new_err(format!(
            "{TABLE}, column {name:?}: expected numbers, times or texts: {error}"
        ))),
    }
}
