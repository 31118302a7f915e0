//! Whole trainings on a device beside the same on the CPU: the metrics must be equal to three decimals.
//!
//! The data are made up: users with tastes, the newest fifth of each one's interactions held out. `tests/devices.rs` runs the
//! cases on every device of the machine, and `recmill doctor` on a user's.

use std::{collections::BTreeMap, sync::atomic::AtomicBool};

use recmill_core::{
    Dataset,
    data::synthetic::{Synthetic, SyntheticOptions},
    evaluate::EvaluateOptions,
    models::{AlsConfig, AlsSolver, BprConfig, ItemKnnConfig, LmfConfig, ModelConfig, WarpConfig},
};
use recmill_kernels::{
    Device,
    conformance::{Case, Failure, Outcome},
};

use crate::{Error, HeldOut, Result, Training, Validation};

/// How far apart a metric of two devices may be.
const TOLERANCE: f64 = 5e-4;

/// Returns every case: the kernels' own form, so that both lists are run alike.
pub fn cases() -> Vec<Case> {
    vec![
        Case { name: "whole/als by conjugate gradients", run: |device| compare(device, &als(AlsSolver::Cg)) },
        Case { name: "whole/als by Cholesky", run: |device| compare(device, &als(AlsSolver::Cholesky)) },
        Case { name: "whole/als by blocks", run: |device| compare(device, &als(AlsSolver::Block)) },
        Case { name: "whole/bpr", run: |device| compare(device, &bpr()) },
        Case { name: "whole/lmf", run: |device| compare(device, &lmf()) },
        Case { name: "whole/warp", run: |device| compare(device, &warp()) },
        Case { name: "whole/item-knn", run: |device| compare(device, &item_knn()) },
    ]
}

fn als(solver: AlsSolver) -> ModelConfig {
    let weighting = AlsConfig { unobserved_weight: Some(0.1), ..AlsConfig::default() };
    ModelConfig::Als(AlsConfig { factors: 24, iterations: 4, block_size: 8, solver, ..weighting })
}

fn bpr() -> ModelConfig {
    ModelConfig::Bpr(BprConfig { factors: 24, iterations: 8, ..BprConfig::default() })
}

fn lmf() -> ModelConfig {
    ModelConfig::Lmf(LmfConfig { factors: 24, iterations: 8, ..LmfConfig::default() })
}

fn warp() -> ModelConfig {
    ModelConfig::Warp(WarpConfig { factors: 24, iterations: 8, ..WarpConfig::default() })
}

fn item_knn() -> ModelConfig {
    ModelConfig::ItemKnn(ItemKnnConfig { neighbours: 30, ..ItemKnnConfig::default() })
}

fn compare(device: Device, config: &ModelConfig) -> std::result::Result<Outcome, Failure> {
    let broken = |error: Error| match error {
        Error::Kernel(got) => Failure::Refused { what: config.name().to_owned(), got },
        other => Failure::Broken { what: config.name().to_owned(), got: other.to_string() },
    };
    let expected = metrics(Device::Cpu, config).map_err(broken)?;
    let got = metrics(device, config).map_err(broken)?;
    let mut worst = 0f64;
    for (at, ((name, &expected), &got)) in expected.iter().zip(got.values()).enumerate() {
        let off = (got - expected).abs() / TOLERANCE;
        if off.is_nan() || off > 1.0 {
            let what = format!("{} {name}", config.name());
            return Err(Failure::Differs { what, at, expected, got, tolerance: TOLERANCE });
        }
        worst = worst.max(off);
    }
    Ok(Outcome::Agrees { worst })
}

/// Trains on `device` and measures the lists that the model makes there.
fn metrics(device: Device, config: &ModelConfig) -> Result<BTreeMap<String, f64>> {
    let (data, test): (Dataset, Dataset) = Synthetic::generate(&SyntheticOptions {
        n_users: 300,
        n_items: 200,
        n_interactions: 9_000,
        ..SyntheticOptions::default()
    })
    .split_newest(0.2)?;
    let mut training = Training::new(config, &data);
    (training.device, training.loss) = (device, false);
    let mut model = training.run(None, &AtomicBool::new(false), &mut ())?.model;
    if model.scores_on_gpu() {
        model.score_on(device)?;
    }
    HeldOut::new(&data, &test, "ndcg@10", EvaluateOptions::default()).measure(&*model)
}
