//! numpy's numbers as ours, without a copy where they lie as we need them, and ours as numpy's.

use std::sync::Arc;

use numpy::{Element, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::{exceptions::PyValueError, prelude::*};
use rayon::prelude::*;
use recmill_core::{Csr, Values};

use crate::threads::on_threads;

/// Values that are worth other threads.
const MANY: usize = 1 << 18;

/// An array of numpy that stays where it is, and is kept alive for as long as somebody reads it.
///
/// Whoever changes its numbers while a model is fitted gets a model of mixed numbers, as with any library that reads in
/// place.
struct Kept<T> {
    _array: Py<PyAny>,
    first: *const T,
    len: usize,
}

// SAFETY: the numbers are only read, and the reference to the array is only dropped, which PyO3 puts off until a thread has
// the interpreter.
#[expect(unsafe_code, reason = "a pointer into an array that is kept alive")]
unsafe impl<T: Sync> Send for Kept<T> {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a pointer into an array that is kept alive")]
unsafe impl<T: Sync> Sync for Kept<T> {}

impl<T> AsRef<[T]> for Kept<T> {
    fn as_ref(&self) -> &[T] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: the array is contiguous, has `len` numbers of a type of this layout, and is alive.
        #[expect(unsafe_code, reason = "a pointer into an array that is kept alive")]
        unsafe {
            std::slice::from_raw_parts(self.first, self.len)
        }
    }
}

/// A sparse matrix as Python hands it over: `indptr`, `indices`, `values` and the number of columns.
///
/// `indices` are int32 or int64, `values` float32; columns ascend in each row.
pub(crate) struct CsrArrays<'py> {
    pub(crate) indptr: PyReadonlyArray1<'py, i64>,
    pub(crate) indices: Bound<'py, PyAny>,
    pub(crate) values: Bound<'py, PyArray1<f32>>,
    pub(crate) n_columns: usize,
}

impl<'py> FromPyObject<'_, 'py> for CsrArrays<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (indptr, indices, values, n_columns) = object.extract()?;
        Ok(Self { indptr, indices, values, n_columns })
    }
}

impl CsrArrays<'_> {
    /// Returns the matrix, whose columns and values stay where they are if they can.
    pub(crate) fn to_csr(&self) -> PyResult<Csr> {
        let indptr = self.indptr.as_slice()?.iter().map(|&end| end as u64).collect();
        let values = shared::<f32, f32>(&self.values)?;
        let indices = match self.indices.cast::<PyArray1<i32>>() {
            // A column below 0 becomes one that is past all columns, and is refused as such.
            Ok(indices) => shared::<i32, u32>(indices)?,
            Err(_) => {
                let indices: PyReadonlyArray1<'_, i64> = self.indices.extract()?;
                let narrow = |&column: &i64| u32::try_from(column).unwrap_or(u32::MAX);
                Values::from(indices.as_array().iter().map(narrow).collect::<Vec<_>>())
            }
        };
        let csr = Csr::of(self.n_columns, indptr, indices, values)
            .map_err(|error| PyValueError::new_err(format!("not a sparse matrix by rows: {error}")))?;
        let wrong = match csr.nnz() {
            0..MANY => csr.values().iter().position(|value| !value.is_finite()),
            _ => on_threads(0, || csr.values().par_iter().position_first(|value| !value.is_finite()))?,
        };
        if let Some(at) = wrong {
            let row = csr.indptr().partition_point(|&end| end <= at as u64) - 1;
            return Err(PyValueError::new_err(format!(
                "row {row}, column {}: expected a finite number, found `{}`",
                csr.indices()[at],
                csr.values()[at]
            )));
        }
        Ok(csr)
    }
}

/// Returns the numbers of `array` where they are, or a copy where they are not one after the other. `U` is as wide as `T`.
fn shared<T: Element + Copy, U: Copy + Send + Sync + 'static>(
    array: &Bound<'_, PyArray1<T>>,
) -> PyResult<Values<U>> {
    assert!(size_of::<T>() == size_of::<U>() && align_of::<T>() == align_of::<U>());
    let packed = match array.is_contiguous() {
        true => array.clone(),
        false => PyArray1::from_iter(array.py(), array.readonly().as_array().iter().copied()),
    };
    let kept =
        Kept::<U> { len: packed.len(), first: packed.data().cast(), _array: packed.into_any().unbind() };
    Ok(Values::Shared(Arc::new(kept)))
}

/// Returns an array of `rows` rows.
pub(crate) fn matrix<'py, T: Element>(
    py: Python<'py>,
    values: Vec<T>,
    rows: usize,
    columns: usize,
) -> PyResult<Bound<'py, PyArray2<T>>> {
    PyArray1::from_vec(py, values).reshape([rows, columns])
}
