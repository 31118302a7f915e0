//! Our errors as Python's: the kind that a caller can act on, with our message; and a panic, which is a fault of ours, as an
//! error like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::{
    PyErr, PyResult,
    exceptions::{
        PyFileNotFoundError, PyIndexError, PyKeyError, PyMemoryError, PyOSError, PyRuntimeError, PyValueError,
    },
};
use recmill_core::Error as Core;
use recmill_kernels::Error as Kernel;
use recmill_train::Error as Train;

/// What a call into the library may fail with, on its way to Python.
#[derive(Debug)]
pub(crate) enum Failure {
    Train(Train),
    Python(PyErr),
}

impl From<Train> for Failure {
    fn from(error: Train) -> Self {
        Self::Train(error)
    }
}

impl From<Core> for Failure {
    fn from(error: Core) -> Self {
        Self::Train(error.into())
    }
}

impl From<Kernel> for Failure {
    fn from(error: Kernel) -> Self {
        Self::Train(error.into())
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Python(error) => error,
            Failure::Train(error) => of_train(error),
        }
    }
}

/// Runs `work`; an error becomes Python's, a panic a `RuntimeError`.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Failure>) -> PyResult<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(PyErr::from),
        Err(panic) => Err(of_panic(&*panic)),
    }
}

/// Says what a panic said.
pub(crate) fn of_panic(panic: &(dyn std::any::Any + Send)) -> PyErr {
    let said = panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_default();
    PyRuntimeError::new_err(format!("a fault in recmill, please report it: {said}"))
}

fn of_train(error: Train) -> PyErr {
    match error {
        Train::Core(error) => of_core(error),
        Train::Kernel(error) => of_kernel(error),
        error @ (Train::TooLarge { .. } | Train::TooLargeForDevice { .. }) => {
            PyMemoryError::new_err(error.to_string())
        }
        error @ (Train::RankLost { .. } | Train::Diverged { .. } | Train::NotFiniteLoss { .. }) => {
            PyRuntimeError::new_err(error.to_string())
        }
        error => PyValueError::new_err(error.to_string()),
    }
}

fn of_core(error: Core) -> PyErr {
    let said = error.to_string();
    match error {
        Core::Kernel(error) => of_kernel(error),
        Core::Io(error) => PyErr::from(error),
        Core::OutOfRange { .. } => PyIndexError::new_err(said),
        Core::UnknownItem { id } => PyKeyError::new_err(id),
        Core::NoModel { .. } | Core::NoFiles { .. } => PyFileNotFoundError::new_err(said),
        Core::Damaged { .. } | Core::NotOurs { .. } | Core::Busy { .. } | Core::BadFile { .. } => {
            PyOSError::new_err(said)
        }
        _ => PyValueError::new_err(said),
    }
}

fn of_kernel(error: Kernel) -> PyErr {
    let said = error.to_string();
    match error {
        Kernel::OutOfMemory { .. } | Kernel::BufferTooLarge { .. } => PyMemoryError::new_err(said),
        Kernel::Unavailable { .. } | Kernel::DeviceLost { .. } => PyRuntimeError::new_err(said),
        Kernel::IndexOutOfRange { .. } => PyIndexError::new_err(said),
        _ => PyValueError::new_err(said),
    }
}
