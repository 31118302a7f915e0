//! Whole iterations of training, and whole lists for users, as the commands do them.

use std::sync::atomic::AtomicBool;

use recmill_core::{
    Batch, Dataset, Query, Row, UserIndex, Workspace,
    models::{AlsConfig, BprConfig, ModelConfig, Retriever},
};
use recmill_kernels::Device;
use recmill_train::{EpochRecord, Training};

use super::{Result, kernels::Measured, timing};

/// Iterations, of which the first is not counted.
pub(super) const ITERATIONS: usize = 4;
const CG_STEPS: usize = 3;
/// Users that are answered together, and items in a list.
const USERS: usize = 4096;
const K: usize = 10;

/// The names, for `--only`.
pub(super) const NAMES: [&str; 3] = ["train_als", "train_bpr", "recommend"];

/// A whole's name and what became of it.
pub(super) type Outcome = (&'static str, Result<Measured>);

/// Measures those whose name `wanted` takes.
pub(super) fn measure(
    device: Device,
    data: &Dataset,
    factors: usize,
    wanted: impl Fn(&str) -> bool,
    mut say: impl FnMut(&str),
) -> Vec<Outcome> {
    let [als, bpr, recommend] = NAMES;
    let mut outcomes = Vec::new();
    if wanted(als) || wanted(recommend) {
        say(als);
        let config = AlsConfig {
            factors,
            cg_steps: CG_STEPS,
            iterations: ITERATIONS,
            final_user_pass: false,
            ..AlsConfig::default()
        };
        match train(device, data, &ModelConfig::Als(config)) {
            Err(problem) => outcomes.push((als, Err(problem))),
            Ok((seconds, mut model)) => {
                if wanted(als) {
                    outcomes.push((als, Ok(als_cost(data, factors, seconds))));
                }
                if wanted(recommend) {
                    say(recommend);
                    outcomes.push((recommend, lists(device, data, factors, &mut *model)));
                }
            }
        }
    }
    if wanted(bpr) {
        say(bpr);
        let config = BprConfig { factors, iterations: ITERATIONS, ..BprConfig::default() };
        let trained = train(device, data, &ModelConfig::Bpr(config));
        outcomes.push((bpr, trained.map(|(seconds, _)| bpr_cost(data, factors, seconds))));
    }
    outcomes
}

/// Returns the median seconds of an iteration after the first, and the model.
pub(super) fn train(
    device: Device,
    data: &Dataset,
    config: &ModelConfig,
) -> Result<(f64, Box<dyn Retriever>)> {
    let mut epochs: Vec<EpochRecord> = Vec::new();
    // What the first iteration would count against the others.
    data.by_item();
    let training = Training { device, loss: false, ..Training::new(config, data) };
    let trained = training.run(None, &AtomicBool::new(false), &mut epochs)?;
    let mut seconds: Vec<f64> = epochs.iter().skip(1).map(|epoch| epoch.seconds).collect();
    seconds.sort_by(f64::total_cmp);
    Ok((seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN), trained.model))
}

pub(super) fn shape(data: &Dataset, factors: usize) -> String {
    format!("{} x {}, {} values, {factors} factors", data.n_users(), data.n_items(), data.by_user().nnz())
}

fn als_cost(data: &Dataset, factors: usize, seconds: f64) -> Measured {
    let (d, nnz) = (factors as f64, data.by_user().nnz() as f64);
    let rows = (data.n_users() + data.n_items()) as f64;
    let passes = (CG_STEPS + 1) as f64;
    // Both sides, as the kernel, and a Gram matrix each.
    let operations = passes * (2.0 * rows * d * d + 8.0 * nnz * d) + rows * d * (d + 1.0);
    Measured {
        shape: format!("{}, {CG_STEPS} steps", shape(data, factors)),
        seconds,
        bytes: 2.0 * passes * (4.0 * d + 8.0) * nnz,
        operations,
        done: (1.0, "iterations"),
    }
}

fn bpr_cost(data: &Dataset, factors: usize, seconds: f64) -> Measured {
    let (d, nnz) = (factors as f64, data.by_user().nnz() as f64);
    Measured {
        shape: shape(data, factors),
        seconds,
        bytes: 24.0 * nnz * d,
        operations: 14.0 * nnz * d,
        done: (1.0, "iterations"),
    }
}

/// Measures lists of the best items that users have not had.
fn lists(device: Device, data: &Dataset, factors: usize, model: &mut dyn Retriever) -> Result<Measured> {
    model.score_on(device)?;
    let n_users = data.n_users().min(USERS);
    let rows = (0..n_users as u32).map(|user| {
        let seen = data.by_user().row(user as usize).0;
        Row {
            exclude: seen.iter().map(|&item| recmill_core::ItemIndex(item)).collect(),
            ..Row::new(Query::User(UserIndex(user)), K)
        }
    });
    let (batch, mut workspace) = (Batch { rows: rows.collect() }, Workspace::default());
    let seconds = timing::median(device, || Ok(model.score(&batch, &mut workspace)?))?;
    let (d, n_items) = (factors as f64, data.n_items() as f64);
    Ok(Measured {
        shape: format!(
            "{K} of {} items for {n_users} users, seen left out, {factors} factors",
            data.n_items()
        ),
        seconds,
        bytes: 4.0 * d * (n_items + n_users as f64),
        operations: 2.0 * n_users as f64 * n_items * d,
        done: (n_users as f64, "users"),
    })
}
