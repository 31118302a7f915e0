//! A model directory's files in memory and back: what pickles are made of.

use std::path::{Path, PathBuf};

use pyo3::{
    exceptions::PyValueError,
    prelude::*,
    types::{PyBytes, PyDict},
};

use crate::{failure::Failure, threads::apart};

/// Returns the files, by name, of the version that `save` writes to a folder and names.
pub(crate) fn files_of<'py>(
    py: Python<'py>,
    save: impl FnOnce(&Path) -> Result<PathBuf, Failure> + Send,
) -> Result<Bound<'py, PyDict>, Failure> {
    let read = apart(py, || -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let folder = tempfile::tempdir().map_err(PyErr::from)?;
        let version = save(&folder.path().join("model"))?;
        let mut read = Vec::new();
        for entry in fs_err::read_dir(version).map_err(PyErr::from)? {
            let entry = entry.map_err(PyErr::from)?;
            let bytes = fs_err::read(entry.path()).map_err(PyErr::from)?;
            read.push((entry.file_name().to_string_lossy().into_owned(), bytes));
        }
        Ok(read)
    })?;
    let files = PyDict::new(py);
    for (name, bytes) in read {
        files.set_item(name, PyBytes::new(py, &bytes))?;
    }
    Ok(files)
}

/// Writes such files to a folder of their own.
pub(crate) fn unpack(files: &Bound<'_, PyDict>) -> Result<tempfile::TempDir, Failure> {
    let folder = tempfile::tempdir().map_err(PyErr::from)?;
    for (name, bytes) in files {
        let (name, bytes): (String, Vec<u8>) = (name.extract()?, bytes.extract()?);
        if Path::new(&name).file_name().is_none_or(|file| file.to_str() != Some(&name)) {
            return Err(PyValueError::new_err(format!("`{name}` is no name of a file")).into());
        }
        fs_err::write(folder.path().join(name), bytes).map_err(PyErr::from)?;
    }
    Ok(folder)
}
