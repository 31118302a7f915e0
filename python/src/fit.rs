//! Training in a thread of its own: Python hears of every epoch, and Ctrl-C is answered at once.
//!
//! The caller's thread waits without the interpreter and wakes a few times a second to see whether a signal has come. After one it
//! leaves: training ends behind its back after the epoch that it is in, and its work is thrown away.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use pyo3::{exceptions::PyRuntimeError, prelude::*};
use recmill_core::{
    Csr, Dataset, DatasetParts, IdMap,
    models::{ModelConfig, Retriever},
};
use recmill_kernels::Device;
use recmill_train::{EpochRecord, Plan, Progress, Training};

use crate::{
    arrays::CsrArrays,
    failure::{Failure, guarded, of_panic},
    frame,
    model::{Model, Trained},
    threads::{apart, on_threads},
};

/// How often the caller's thread looks for a signal.
const LOOK: Duration = Duration::from_millis(50);

/// How a model is to be trained, beside its hyper-parameters.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct How {
    /// A device, or `auto`.
    device: String,
    seed: u64,
    /// 0 for as many as there are processors.
    threads: usize,
    /// Whether the loss of each epoch is computed where that is a pass of its own.
    loss: bool,
    /// Called with `(epoch, epochs, seconds, loss)` after every epoch, and with epoch 0 and the device before.
    told: Option<Py<PyAny>>,
}

/// Trains the model of `config` on a sparse matrix of users by items.
#[pyfunction]
pub(crate) fn fit(py: Python<'_>, config: &str, data: CsrArrays<'_>, how: How) -> PyResult<Model> {
    guarded(|| {
        let by_user = data.to_csr()?;
        let dataset = apart(py, || by_place(by_user))?;
        run(py, config, dataset, how, true)
    })
}

/// Trains the model of `config` on a table with columns `user`, `item` and perhaps `value` and `time`, given as an Arrow C
/// stream.
#[pyfunction]
pub(crate) fn fit_frame(
    py: Python<'_>,
    config: &str,
    stream: &Bound<'_, PyAny>,
    how: How,
) -> PyResult<Model> {
    guarded(|| {
        let parsed: ModelConfig = parse(config)?;
        let batches = frame::read(stream)?;
        let dataset = apart(py, || frame::dataset(batches, &parsed))?;
        run(py, config, dataset, how, false)
    })
}

/// Returns the ids `0`, `1` and so on.
pub(crate) fn numbered(n: usize) -> Result<IdMap, Failure> {
    let mut ids = IdMap::default();
    for index in 0..n {
        ids.get_or_insert(&index.to_string())?;
    }
    Ok(ids)
}

/// Returns the data set of a matrix whose users and items are known by their place.
pub(crate) fn by_place(by_user: Csr) -> Result<Dataset, Failure> {
    let (users, items) = (numbered(by_user.n_rows())?, numbered(by_user.n_columns())?);
    Ok(Dataset::without_times(users, items, by_user)?)
}

/// Reads a configuration.
pub(crate) fn parse(config: &str) -> Result<ModelConfig, Failure> {
    let parsed: ModelConfig = serde_json::from_str(config)
        .map_err(|error| pyo3::exceptions::PyValueError::new_err(error.to_string()))?;
    parsed.validate()?;
    Ok(parsed)
}

/// What the training thread says.
enum Told {
    Planned(u32, Device),
    Epoch(EpochRecord),
    Done(Box<PyResult<Trained>>),
}

fn run(py: Python<'_>, config: &str, dataset: Dataset, how: How, by_index: bool) -> Result<Model, Failure> {
    let config = parse(config)?;
    let device = py.detach(|| chosen(&how.device, &config))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (sender, receiver) = mpsc::channel();
    let receiver = Mutex::new(receiver);
    let work = {
        let (config, stop, sender, seed, loss) = (config, stop.clone(), sender.clone(), how.seed, how.loss);
        move || -> Result<Trained, Failure> {
            let mut training = Training::new(&config, &dataset);
            (training.device, training.seed, training.loss) = (device, seed, loss);
            let done = training.run(None, &stop, &mut Teller(sender))?;
            let model: Box<dyn Retriever> = done.model;
            Ok(Trained {
                config,
                model,
                dataset: owned(dataset, by_index)?,
                epochs: done.epochs,
                seed,
                by_index,
            })
        }
    };
    let threads = how.threads;
    std::thread::Builder::new()
        .name("recmill-fit".into())
        .spawn(move || {
            let done = catch_unwind(AssertUnwindSafe(|| on_threads(threads, work)));
            let done = match done {
                Ok(Ok(Ok(trained))) => Ok(trained),
                Ok(Ok(Err(failure))) => Err(PyErr::from(failure)),
                Ok(Err(error)) => Err(error),
                Err(panic) => Err(of_panic(&*panic)),
            };
            // Nobody listens any more after a signal.
            let _ = sender.send(Told::Done(Box::new(done)));
        })
        .map_err(|error| PyRuntimeError::new_err(format!("a thread cannot be started: {error}")))?;
    let ended = wait(py, &receiver, how.told.as_ref());
    if ended.is_err() {
        stop.store(true, Ordering::Relaxed);
    }
    Model::fitted(ended?)
}

fn wait(
    py: Python<'_>,
    receiver: &Mutex<mpsc::Receiver<Told>>,
    told: Option<&Py<PyAny>>,
) -> PyResult<Trained> {
    let mut epochs = 0;
    let tell = |arguments: (u32, u32, f64, Option<f64>, Option<String>)| match told {
        Some(told) => told.call1(py, arguments).map(drop),
        None => Ok(()),
    };
    loop {
        match py.detach(|| match receiver.lock() {
            Ok(receiver) => receiver.recv_timeout(LOOK),
            Err(_) => Err(mpsc::RecvTimeoutError::Disconnected),
        }) {
            Ok(Told::Planned(planned, device)) => {
                epochs = planned;
                tell((0, epochs, 0.0, None, Some(device.to_string())))?;
            }
            Ok(Told::Epoch(record)) => tell((record.epoch, epochs, record.seconds, record.loss, None))?,
            Ok(Told::Done(done)) => return *done,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err("the training thread is gone"));
            }
        }
        py.check_signals()?;
    }
}

struct Teller(mpsc::Sender<Told>);

impl Progress for Teller {
    fn planned(&mut self, plan: &Plan) {
        let _ = self.0.send(Told::Planned(plan.epochs, plan.device));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let _ = self.0.send(Told::Epoch(record.clone()));
    }
}

/// Returns the same data in memory of its own: the caller's arrays may change once the model is there. What else was derived
/// from them is dropped before.
pub(crate) fn owned(dataset: Dataset, by_index: bool) -> Result<Dataset, Failure> {
    let DatasetParts { users, items, by_user, times, order } = dataset.into_parts();
    if !by_index {
        return Ok(Dataset::new(users, items, by_user, times, order)?);
    }
    drop(order);
    let (n_columns, indptr, indices, values) = by_user.into_parts();
    Ok(Dataset::without_times(users, items, Csr::new(n_columns, indptr, indices, values)?)?)
}

/// Returns the device that `device` names; for `auto` the first GPU that can be used where the model learns on one, hardware
/// only, and otherwise the processor.
fn chosen(device: &str, config: &ModelConfig) -> Result<Device, Failure> {
    let on_gpu = recmill_train::trains_on_gpu(config);
    if device == "auto" {
        let usable = |about: &recmill_kernels::About| !about.software && about.device.check().is_ok();
        let gpu = if on_gpu { Device::gpus().into_iter().find(usable) } else { None };
        return Ok(gpu.map_or(Device::Cpu, |about| about.device));
    }
    let device: Device = device.parse().map_err(|_: recmill_kernels::Error| {
        let names = "auto, cpu, cuda, cuda:N, wgpu or wgpu:N";
        pyo3::exceptions::PyValueError::new_err(format!("device: expected {names}, found `{device}`"))
    })?;
    device.check()?;
    Ok(device)
}
