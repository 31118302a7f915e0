//! Every device of this machine learns and ranks as the CPU does.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod rows;

use std::sync::atomic::AtomicBool;

use recmill_core::{
    Parameter,
    data::synthetic::{Synthetic, SyntheticOptions},
    directory::Config,
    models::{
        Gru4RecConfig, MfConfig, ModelConfig, NeuMfConfig, Retriever, SasRecConfig, SequenceLoss, Similarity,
        TwoTowerConfig,
    },
    rankers::{RankerConfig, RankerModel},
};
use recmill_kernels::{Device, RowType, conformance::devices};
use recmill_train::{
    EpochRecord, Training,
    conformance::cases,
    gradient::{Checkpoint, CheckpointOptions, RankTraining},
};
use serde_json::json;

use rows::{Data, bits, config, scores};

#[test]
fn every_device_learns_what_the_cpu_learns() {
    let mut failures = Vec::new();
    for device in devices() {
        for case in cases() {
            if let Err(failure) = (case.run)(device) {
                failures.push(format!("{} on {device}: {failure}", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn every_device_learns_against_candidates_as_the_cpu_does() {
    let options = SyntheticOptions { n_users: 60, n_items: 40, n_interactions: 700, seed: 5 };
    let data = Synthetic::generate(&options).dataset().unwrap();
    let small =
        SasRecConfig { factors: 8, heads: 2, max_length: 6, iterations: 2, ..SasRecConfig::default() };
    let of = |loss| ModelConfig::SasRec(SasRecConfig { loss, n_negatives: 5, ..small.clone() });
    let gru4rec = Gru4RecConfig {
        factors: 8,
        layers: 2,
        hidden: 12,
        max_length: 6,
        iterations: 2,
        ..Gru4RecConfig::default()
    };
    let mf = MfConfig { factors: 8, batch_size: 100, n_negatives: 9, iterations: 2, ..MfConfig::default() };
    let two_tower = TwoTowerConfig {
        factors: 8,
        batch_size: 100,
        n_negatives: 9,
        iterations: 2,
        ..TwoTowerConfig::default()
    };
    let neumf = NeuMfConfig {
        factors: 6,
        mlp_factors: 4,
        hidden: vec![12, 5],
        batch_size: 100,
        iterations: 2,
        ..NeuMfConfig::default()
    };
    let models = [
        ModelConfig::NeuMf(NeuMfConfig { factors: 0, dropout: 0.1, ..neumf.clone() }),
        ModelConfig::NeuMf(neumf),
        ModelConfig::TwoTower(TwoTowerConfig {
            hidden: vec![12],
            dropout: 0.1,
            similarity: Similarity::Dot,
            hard_negatives: 1,
            ..two_tower.clone()
        }),
        ModelConfig::TwoTower(two_tower),
        of(SequenceLoss::Softmax),
        of(SequenceLoss::SampledSoftmax),
        of(SequenceLoss::Gbce),
        ModelConfig::Gru4Rec(Gru4RecConfig { n_negatives: 5, ..gru4rec }),
        ModelConfig::Mf(MfConfig { similarity: Similarity::Dot, ..mf.clone() }),
        ModelConfig::Mf(MfConfig { propagation_layers: 2, ..mf.clone() }),
        ModelConfig::Mf(mf),
    ];
    for (device, config) in devices().into_iter().flat_map(|device| models.iter().map(move |c| (device, c))) {
        let learn = |device| {
            let training = Training { device, ..Training::new(config, &data) };
            let trained = training.run(None, &AtomicBool::new(false), &mut ()).unwrap();
            (trained.epochs.iter().map(|epoch| epoch.loss.unwrap()).collect::<Vec<_>>(), trained.model)
        };
        let ((expected, on_cpu), (found, on_device)) = (learn(Device::Cpu), learn(device));
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() < 2e-3, "{} on {device}: loss {a} beside {b}", config.objective());
        }
        let table = |model: &dyn Retriever| {
            let found = model.table("item_factors").or_else(|| model.table("item_vectors"));
            found.unwrap().to_f32().unwrap()
        };
        for (a, b) in table(&*on_device).iter().zip(table(&*on_cpu)) {
            assert!((a - b).abs() < 5e-3, "{} on {device}: {a} beside {b}", config.objective());
        }
    }
}

fn training<'a>(data: &'a Data, config: &'a RankerConfig, device: Device) -> RankTraining<'a> {
    let training = RankTraining::new(&config.learning, &data.features, &data.examples);
    RankTraining { valid: Some(data.all()), device, ..training }
}

#[test]
fn every_device_trains_every_ranker_as_the_cpu_does() {
    let data = Data::new(&["both"], 200);
    let batch = data.batch(&(0..200).collect::<Vec<u64>>());
    let stop = AtomicBool::new(false);
    let every = RankerModel::NAMES.map(|name| (name, json!({"epochs": 2, "dropout": 0.0})));
    let more = [
        ("deepfm", json!({"epochs": 2, "dropout": 0.0, "batch_norm": true, "embedding_l2": 0.1})),
        ("deepfm", json!({"epochs": 2, "dropout": 0.0, "table_precision": "f16"})),
        ("deepfm", json!({"epochs": 2, "accumulate": 3, "clip_norm": 0.1, "optimizer": "adagrad"})),
        ("dcn-v2", json!({"epochs": 2, "rank": 3, "structure": "stacked", "optimizer": "sgd"})),
    ];
    for device in devices().into_iter().filter(|&device| device != Device::Cpu) {
        for (name, learning) in every.iter().chain(&more) {
            let mut learning = learning.clone();
            if matches!(*name, "logistic" | "fm") {
                learning.as_object_mut().unwrap().remove("dropout");
            }
            let config = config(name, learning.clone());
            let learn = |device| {
                let training = training(&data, &config, device);
                training.run(&config, &stop, &mut Vec::<EpochRecord>::new()).unwrap()
            };
            let (expected, on_cpu) = learn(Device::Cpu);
            let (mut found, on_device) = learn(device);
            for (a, b) in on_device.epochs.iter().zip(&on_cpu.epochs) {
                let (a, b) = (a.loss.unwrap(), b.loss.unwrap());
                assert!((a - b).abs() < 2e-3, "{name} {learning} on {device}: loss {a} beside {b}");
            }
            let expected = scores(&expected, &batch);
            for place in [Device::Cpu, device] {
                found.score_on(place).unwrap();
                for (a, b) in scores(&found, &batch).iter().zip(&expected) {
                    assert!((a - b).abs() < 5e-3, "{name} {learning} on {device}: {a} beside {b}");
                }
            }
        }
    }
}

#[test]
fn a_device_goes_on_bit_by_bit_from_its_checkpoint_and_another_from_the_same() {
    let data = Data::new(&["both"], 200);
    let stop = AtomicBool::new(false);
    for device in devices() {
        let config = config("deepfm", json!({"epochs": 4, "batch_norm": true, "table_precision": "f16"}));
        let whole = training(&data, &config, device).run(&config, &stop, &mut ()).unwrap().0;
        let folder = tempfile::tempdir().unwrap();
        let about = Config { model: serde_json::to_value(&config).unwrap(), ..Config::default() };
        let checkpoints =
            CheckpointOptions { every_steps: Some(6), ..CheckpointOptions::new(folder.path(), about) };
        let written = RankTraining { checkpoints: Some(&checkpoints), ..training(&data, &config, device) };
        written.run(&config, &stop, &mut ()).unwrap();
        let checkpoint = Checkpoint::newest(folder.path()).unwrap();
        let go_on = |device| {
            let resumed = RankTraining { resume: Some(&checkpoint), ..training(&data, &config, device) };
            resumed.run(&config, &stop, &mut ()).unwrap().0
        };
        let resumed = go_on(device);
        assert_eq!(bits(resumed), bits(whole), "{device}");
        for place in [Device::Cpu, device] {
            let (_, _, parameters) = go_on(place).into_parts().unwrap();
            for (name, parameter) in parameters.iter() {
                let Parameter::Table(table) = parameter else { continue };
                assert_eq!(table.row_type(), RowType::F16, "{name}, from {device} to {place}");
            }
        }
    }
}

#[test]
fn several_ranks_are_refused_where_they_do_not_learn() {
    let data = Data::new(&["both"], 100);
    let config = config("deepfm", json!({"epochs": 1}));
    let training = training(&data, &config, Device::Wgpu(0));
    let refused = training.run_on_threads(&config, 2, &AtomicBool::new(false), &mut ()).unwrap_err();
    assert!(refused.to_string().contains("several ranks"), "{refused}");
}
