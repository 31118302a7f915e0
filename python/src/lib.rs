//! The native part of the Python package: converts, lets go of the interpreter, calls the library, maps errors.
//!
//! ```text
//! arrays      numpy's numbers as ours, and back
//! frame       tables of any library, by the Arrow C stream or by column
//! failure     our errors as Python's, and panics as errors
//! threads     where work runs: pools that a fork leaves behind
//! background  training in a thread of its own, while Python stays responsive
//! fit         training a model that finds items
//! filters     which items may be in an answer
//! model       a model that finds items: asked by index or by id, saved, opened
//! pairs       items by items, as the neighbourhood recommenders of implicit define them
//! ranker      a model that scores rows: trained, asked, saved, opened
//! unpacked    a model's files in memory, for pickles
//! ```
//!
//! What people type is in the Python files beside this crate; nothing here is meant to be called by them.

mod arrays;
mod background;
mod failure;
mod filters;
mod fit;
mod frame;
mod known;
mod model;
mod pairs;
mod ranker;
mod text;
mod threads;
mod unpacked;

use pyo3::prelude::*;
use recmill_core::directory::{ModelDirectory, Verify};
use recmill_kernels::{About, Device};

/// Name, description, whether it can be used, why not, whether it is software.
type Found = (String, String, bool, String, bool);

/// Returns what computes here, the processor first.
#[pyfunction]
fn devices(py: Python<'_>) -> PyResult<Vec<Found>> {
    failure::guarded(|| {
        Ok(py.detach(|| {
            let mut all = vec![("cpu".to_owned(), "the processor".to_owned(), true, String::new(), false)];
            for About { device, about, software, .. } in Device::gpus() {
                let refused = device.check().err().map(|error| error.to_string());
                let (usable, why) = (refused.is_none(), refused.unwrap_or_default());
                all.push((device.to_string(), about, usable, why, software));
            }
            all
        }))
    })
}

/// Opens a model directory, or one version of it: a model that finds items, one that scores rows, or one that tells what texts are about.
#[pyfunction]
#[pyo3(signature = (path, verify = false))]
fn open(py: Python<'_>, path: std::path::PathBuf, verify: bool) -> PyResult<Py<PyAny>> {
    failure::guarded(|| {
        let verify = if verify { Verify::Full } else { Verify::Quick };
        let directory = threads::apart(py, || Ok(ModelDirectory::open(path, verify)?))?;
        if directory.is_text() {
            return Ok(Py::new(py, text::Texts::opened(py, directory, None)?)?.into_any());
        }
        Ok(match directory.is_ranker() {
            true => Py::new(py, ranker::Ranker::opened(py, directory, None)?)?.into_any(),
            false => Py::new(py, model::Model::opened(py, directory, None)?)?.into_any(),
        })
    })
}

#[pymodule]
fn _recmill(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<model::Model>()?;
    module.add_class::<ranker::Ranker>()?;
    module.add_class::<text::Texts>()?;
    module.add_class::<frame::Events>()?;
    module.add_function(wrap_pyfunction!(open, module)?)?;
    module.add_function(wrap_pyfunction!(devices, module)?)?;
    module.add_function(wrap_pyfunction!(fit::fit, module)?)?;
    module.add_function(wrap_pyfunction!(fit::fit_frame, module)?)?;
    module.add_function(wrap_pyfunction!(frame::read_events, module)?)?;
    module.add_function(wrap_pyfunction!(pairs::all_pairs_knn, module)?)?;
    module.add_function(wrap_pyfunction!(ranker::fit_ranker, module)?)?;
    module.add_function(wrap_pyfunction!(ranker::ranker_defaults, module)?)?;
    module.add_function(wrap_pyfunction!(text::fit_texts, module)?)?;
    module.add_function(wrap_pyfunction!(text::text_defaults, module)?)?;
    Ok(())
}
