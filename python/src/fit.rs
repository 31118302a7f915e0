//! Training a model that finds items, from a matrix or a table.

use std::sync::Arc;

use arrow::array::RecordBatch;
use pyo3::prelude::*;
use recmill_core::{
    Csr, Dataset, DatasetParts, IdMap, Side,
    data::OnBadRow,
    evaluate::EvaluateOptions,
    features::Described,
    models::{ModelConfig, Retriever},
};
use recmill_kernels::Device;
use recmill_train::{
    HELD_OUT_USERS, HeldEvent, HeldOut, PATIENCE, Training, Validation, for_epochs, hold_out,
};

use crate::{
    arrays::CsrArrays,
    background::in_background,
    failure::{Failure, guarded},
    frame::Frame,
    known::of_ids,
    model::{Model, Trained},
    threads::apart,
};

/// How a model is to be trained, beside its hyper-parameters.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct How {
    /// A device, or `auto`.
    pub(crate) device: String,
    pub(crate) seed: u64,
    /// 0 for as many as there are processors.
    pub(crate) threads: usize,
    /// Whether the loss of each epoch is computed where that is a pass of its own.
    loss: bool,
    /// The share of users an event of whom is held out to find the best epoch by; 0 goes through all epochs.
    pub(crate) holdout: f64,
    /// Whether to learn from all events in the end, for as many epochs.
    pub(crate) refit: bool,
    /// See [`in_background`].
    pub(crate) told: Option<Py<PyAny>>,
}

/// Trains the model of `config` on a sparse matrix of users by items.
#[pyfunction]
pub(crate) fn fit(py: Python<'_>, config: &str, data: CsrArrays<'_>, how: How) -> PyResult<Model> {
    guarded(|| {
        let by_user = data.to_csr()?;
        let dataset = apart(py, || by_place(by_user))?;
        run(py, config, dataset, [None, None], how, true)
    })
}

/// Trains the model of `config` on a table with columns `user`, `item` and perhaps `value` and `time`; see [`Frame::of`]. `users` and `items`
/// are tables of what is known of them, whose first column is the id.
#[pyfunction]
#[pyo3(signature = (config, table, how, users = None, items = None))]
pub(crate) fn fit_frame(
    py: Python<'_>,
    config: &str,
    table: &Bound<'_, PyAny>,
    how: How,
    users: Option<&Bound<'_, PyAny>>,
    items: Option<&Bound<'_, PyAny>>,
) -> PyResult<Model> {
    guarded(|| {
        let parsed: ModelConfig = parse(config)?;
        let frame = Frame::of(table)?;
        let [users, items] = [users, items].map(|table| table.map(Frame::of).transpose());
        let (users, items) = (users?, items?);
        let (dataset, known) = apart(py, || {
            let dataset = frame.dataset(&parsed)?;
            let of = |side, frame: &Option<Frame>, ids| {
                frame.as_ref().map(|frame| of_ids(frame, side, ids)).transpose()
            };
            let known = [of(Side::Users, &users, &dataset.users)?, of(Side::Items, &items, &dataset.items)?];
            Ok((dataset, known))
        })?;
        drop(frame);
        run(py, config, dataset, known, how, false)
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

fn run(
    py: Python<'_>,
    config: &str,
    dataset: Dataset,
    known: [Option<RecordBatch>; 2],
    how: How,
    by_index: bool,
) -> Result<Model, Failure> {
    let config = parse(config)?;
    let on_gpu = recmill_train::trains_on_gpu(&config);
    let device = py.detach(|| chosen(&how.device, on_gpu))?;
    let (seed, loss, holdout, refit) = (how.seed, how.loss, how.holdout, how.refit);
    let trained = in_background(py, how.threads, how.told.as_ref(), move |stop, teller| {
        let described = |side: Side, table: &Option<RecordBatch>| -> Result<Option<Described>, Failure> {
            let Some(table) = table else { return Ok(None) };
            Ok(Described::fit(table, side.name(), OnBadRow::Fail)?.0)
        };
        let (users_described, items_described) =
            (described(Side::Users, &known[0])?, described(Side::Items, &known[1])?);
        let beside = [users_described.as_ref(), items_described.as_ref()];
        let event = HeldEvent::suited_to(&config, &dataset);
        let users = (holdout * dataset.n_users() as f64).ceil() as usize;
        let split = hold_out(&dataset, event, users.min(HELD_OUT_USERS), seed)?;
        let learnt = split.as_ref().map_or(&dataset, |(learnt, _)| learnt);
        let options = EvaluateOptions { seed, ..EvaluateOptions::default() };
        let mut held = split.as_ref().map(|(_, held)| HeldOut::new(learnt, held, "ndcg@10", options));
        let mut training = Training::new(&config, learnt);
        (training.device, training.seed, training.loss) = (device, seed, loss);
        [training.users, training.items] = beside;
        training.patience = held.is_some().then_some(PATIENCE);
        let mut done = training.run(held.as_mut().map(|held| held as &mut dyn Validation), stop, teller)?;
        if refit && split.is_some() {
            let config = for_epochs(&config, done.kept_epoch);
            let mut training = Training::new(&config, &dataset);
            (training.device, training.seed, training.loss) = (device, seed, false);
            [training.users, training.items] = beside;
            done.model = training.run(None, stop, teller)?.model;
        }
        drop(split);
        let model: Box<dyn Retriever> = done.model;
        let dataset = Arc::new(owned(dataset, by_index)?);
        Ok(Trained { config, model, dataset, known, epochs: done.epochs, seed, by_index })
    })?;
    Model::fitted(trained)
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

/// Returns the device that `device` names; for `auto` the first GPU that can be used where `on_gpu` says that the model learns on
/// one, hardware only, and otherwise the processor.
pub(crate) fn chosen(device: &str, on_gpu: bool) -> Result<Device, Failure> {
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
