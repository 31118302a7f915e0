//! What the text classifier promises: it learns, turns away what it does not know, and the same seed gives the same bytes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::atomic::AtomicBool;

use recmill_core::{
    Parameter,
    data::ReadOptions,
    rankers::TableOptimizer,
    text::{TextClassifier, TextColumns, TextConfig, TextMeasuring, TextRows, read_texts},
};
use recmill_kernels::{Device, conformance::devices};
use recmill_train::{
    Error,
    gradient::{Descent, SomeTexts, TextTraining},
};

const CLASSES: [(&str, [&str; 4]); 3] = [
    ("weather", ["rain", "sun", "forecast", "cold"]),
    ("money", ["account", "transfer", "balance", "euros"]),
    ("music", ["song", "play", "album", "band"]),
];
const FILLERS: [&str; 6] = ["please", "what", "is", "the", "my", "tomorrow"];
const ELSEWHERE: [&str; 4] = ["zebra", "quantum", "volcano", "recipe"];

/// `n` texts from number `first` on: of each class in turn, every fourth out of scope where asked for.
fn texts(first: usize, n: usize, with_out_of_scope: bool) -> TextRows {
    let mut csv = "text,label\n".to_owned();
    for at in first..first + n {
        let filler = |k: usize| FILLERS[(at * 7 + k * 5) % FILLERS.len()];
        let (label, word) = match with_out_of_scope && at % 4 == 3 {
            true => ("oos", ELSEWHERE[at / 4 % 4]),
            false => (CLASSES[at % 3].0, CLASSES[at % 3].1[at / 3 % 4]),
        };
        csv += &format!("{} {word} {} {},{label}\n", filler(0), filler(1), filler(at / 6));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("texts.csv");
    fs_err::write(&path, csv).unwrap();
    read_texts(&columns(), &[path.display().to_string()], &ReadOptions::default()).unwrap().0
}

fn columns() -> TextColumns {
    TextColumns { text: "text".into(), label: "label".into() }
}

fn train(
    config: &TextConfig,
    train: &TextRows,
    valid: Option<&TextRows>,
    seed: u64,
    device: Device,
) -> Result<(TextClassifier, Descent), Error> {
    let training = TextTraining {
        config,
        columns: &columns(),
        train: SomeTexts { rows: train, which: None },
        valid: valid.map(|rows| SomeTexts { rows, which: None }),
        seed,
        metric: "accuracy",
        patience: None,
        device,
    };
    training.run(&AtomicBool::new(false), &mut ())
}

fn small() -> TextConfig {
    TextConfig { epochs: 5, batch_size: 16, buckets: 4096, ..TextConfig::default() }
}

fn weights(classifier: &TextClassifier) -> Vec<u32> {
    let mut parameters = classifier.parameters().unwrap();
    let Some(Parameter::Table(table)) = parameters.take("weights") else { panic!("no weights") };
    table.to_f32().unwrap().iter().map(|value| value.to_bits()).collect()
}

#[test]
fn classes_are_learned_and_what_is_about_none_of_them_is_turned_away() {
    let (train_on, valid, test) = (texts(0, 300, false), texts(300, 200, true), texts(500, 200, true));
    let (classifier, descent) = train(&small(), &train_on, Some(&valid), 0, Device::Cpu).unwrap();
    assert_eq!(classifier.classes().names, ["money", "music", "weather"]);
    let losses: Vec<f64> = descent.epochs.iter().filter_map(|epoch| epoch.loss).collect();
    assert!(losses[4] < losses[0], "{losses:?}");
    assert!(classifier.classes().threshold > 0.0);

    let mut probabilities = Vec::new();
    classifier.probabilities(&test.texts, &mut probabilities).unwrap();
    assert!(probabilities.chunks(3).all(|row| (row.iter().sum::<f32>() - 1.0).abs() < 1e-5));
    let mut measuring = TextMeasuring::new(&classifier);
    measuring.add(&probabilities, &test.labels);
    let measured = measuring.finish();
    assert_eq!((measured.in_scope, measured.out_of_scope), (150, 50));
    assert!(measured.metrics["accuracy"] > 0.95, "{:?}", measured.metrics);
    assert!(measured.metrics["out_of_scope_recall"] > 0.8, "{:?}", measured.metrics);

    // A misspelt word has most of its parts.
    let guess = classifier.guess(&["forcast"]).unwrap()[0];
    assert_eq!(classifier.classes().names[guess.class], "weather");
}

#[test]
fn texts_that_are_known_to_be_about_nothing_are_learned_from() {
    let (with, without) = (texts(0, 300, true), texts(0, 300, false));
    let probability = |train_on: &TextRows| {
        let (classifier, _) = train(&small(), train_on, None, 0, Device::Cpu).unwrap();
        assert_eq!(classifier.classes().names.len(), 3);
        classifier.guess(&["is the volcano my"]).unwrap()[0].probability
    };
    let (learned, not_learned) = (probability(&with), probability(&without));
    assert!(learned < 0.5 && learned < not_learned, "{learned} {not_learned}");
}

#[test]
fn the_same_seed_gives_the_same_bytes_for_any_number_of_threads() {
    let data = texts(0, 120, true);
    let run = |threads: usize, seed: u64| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        weights(&pool.install(|| train(&small(), &data, Some(&data), seed, Device::Cpu).unwrap().0))
    };
    let first = run(1, 3);
    assert_eq!(first, run(3, 3));
    assert_ne!(first, run(1, 4));
}

#[test]
fn the_best_epoch_is_kept() {
    let (train_on, valid) = (texts(0, 200, false), texts(200, 60, true));
    let config = TextConfig { learning_rate: 5.0, epochs: 8, ..small() };
    let (_, descent) = train(&config, &train_on, Some(&valid), 0, Device::Cpu).unwrap();
    let best = descent.epochs.iter().map(|epoch| epoch.metrics["accuracy"]).fold(0.0, f64::max);
    assert_eq!(descent.epochs[descent.kept_epoch as usize - 1].metrics["accuracy"], best);
}

#[test]
fn what_cannot_be_learned_from_is_refused() {
    let mut one = texts(0, 30, false);
    one.labels.fill("money".into());
    let told = train(&small(), &one, None, 0, Device::Cpu).unwrap_err().to_string();
    assert!(told.contains("two different classes"), "{told}");
    let rare = TextConfig { min_texts: 1000, ..small() };
    let told = train(&rare, &texts(0, 30, false), None, 0, Device::Cpu).unwrap_err().to_string();
    assert!(told.contains("min_texts"), "{told}");
    let wild = TextConfig { learning_rate: 3e38, batch_size: 1, optimizer: TableOptimizer::Sgd, ..small() };
    let told = train(&wild, &texts(0, 30, false), None, 0, Device::Cpu).unwrap_err().to_string();
    assert!(told.contains("not finite") && told.contains("texts.csv:"), "{told}");
    let wild = TextConfig { regularization: 1.0, ..wild };
    let told = train(&wild, &texts(0, 30, false), None, 0, Device::Cpu).unwrap_err().to_string();
    assert!(told.starts_with("training diverged in epoch 1: a gradient"), "{told}");
}

#[test]
fn every_device_learns_and_tells_as_the_cpu_does() {
    let (train_on, valid) = (texts(0, 120, true), texts(120, 60, true));
    let of = |classifier: &TextClassifier| {
        let mut probabilities = Vec::new();
        classifier.probabilities(&valid.texts, &mut probabilities).unwrap();
        probabilities
    };
    let on = |device| train(&small(), &train_on, Some(&valid), 0, device).unwrap().0;
    let mut on_cpu = on(Device::Cpu);
    let expected = of(&on_cpu);
    for device in devices().into_iter().filter(|&device| device != Device::Cpu) {
        let close = |found: &[f32], by: f32| found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < by);
        assert!(close(&of(&on(device)), 1e-3), "training on {device}");
        on_cpu.score_on(device).unwrap();
        assert!(close(&of(&on_cpu), 1e-5), "scoring on {device}");
    }
}
