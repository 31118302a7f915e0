//! Training that is killed, and goes on.

use crate::{
    rankers::assert_measured,
    running::{start, wait_for},
    screen::Folder,
};

const TRAIN: &str = "train deepfm rows.csv --label clicked --ignore bought --batch-size 32 --seed 7";
const TINY: &str = "--hidden 8 --embedding-dim 4 --epochs 3 --learning-rate 0.05 --dropout 0.2";

/// What training has made of the rows, whatever it was called.
fn learned(folder: &Folder, model: &str) -> [Vec<u8>; 2] {
    ["model.safetensors", "features.json"]
        .map(|name| fs_err::read(folder.at(model).join("versions/1").join(name)).unwrap())
}

/// Promises 9 and 11. With a checkpoint after each step most of the time goes into saving, so that is where the kill falls.
#[test]
fn a_training_that_is_killed_goes_on_to_the_same_model() {
    let folder = Folder::with_rows();
    let choice = "--valid-metric logloss --patience 0";
    folder.succeeds(&format!("{TRAIN} {TINY} {choice} --out whole"));
    let expected = learned(&folder, "whole");
    for (at, steps) in [1, 2, 5, 11, 12, 13, 30].into_iter().enumerate() {
        let (model, checkpoints) = (format!("model{at}"), format!("model{at}.checkpoints"));
        let (mut child, mut lines) =
            start(&folder, &format!("{TRAIN} {TINY} {choice} --out {model} --checkpoint-steps 1"));
        wait_for(&mut lines, &format!("checkpoint after {steps} step"));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        assert!(!folder.at(&model).exists());
        // Hyper-parameters, and what says which epoch is the best, are those of the checkpoint.
        folder.succeeds(&format!(
            "train deepfm rows.csv --label clicked --ignore bought --out {model} --resume {checkpoints}"
        ));
        assert_eq!(learned(&folder, &model), expected, "killed after {steps} steps");
    }
}

#[test]
fn wrong_ways_to_go_on() {
    let folder = Folder::with_rows();
    folder.succeeds(&format!("{TRAIN} {TINY} --out model --checkpoint-steps 10 --quiet"));
    let again = "train deepfm rows.csv --label clicked --ignore bought --out other";
    for (name, line) in [
        ("resume-nothing-there", format!("{again} --resume nowhere")),
        ("resume-finished-model", format!("{again} --resume model")),
        ("resume-another-network", format!("{again} --resume model.checkpoints --hidden 16")),
        ("resume-another-model", format!("{} --resume model.checkpoints", again.replace("deepfm", "fm"))),
        ("resume-another-metric", format!("{again} --resume model.checkpoints --valid-metric logloss")),
        ("resume-another-holdout", format!("{again} --resume model.checkpoints --holdout 0.2")),
        ("resume-other-columns", format!("{again} --resume model.checkpoints --ignore price")),
        (
            "resume-slower",
            format!("{again} --resume model.checkpoints --learning-rate 0.01 --epochs 4 --patience 0"),
        ),
        ("checkpoints-never", format!("{TRAIN} {TINY} --out other2 --checkpoints there")),
        (
            "checkpoints-in-the-model",
            format!("{TRAIN} {TINY} --out other2 --checkpoint-steps 10 --checkpoints other2"),
        ),
        ("checkpoints-at-no-steps", format!("{TRAIN} {TINY} --out other2 --checkpoint-steps 0")),
        ("checkpoints-at-no-minutes", format!("{TRAIN} {TINY} --out other2 --checkpoint-minutes=-1")),
        ("checkpoints-of-another-training", format!("{TRAIN} {TINY} --out model --checkpoint-steps 30")),
    ] {
        assert_measured(name, folder.screen(&line));
    }
    let damaged = folder.at("model.checkpoints/versions/5/model.safetensors");
    fs_err::write(&damaged, "not one").unwrap();
    assert_measured(
        "resume-damaged",
        folder.screen(&format!("{again} --resume model.checkpoints --epochs 5")),
    );
}

/// Promises 9 and 11 of models of users and items, in each way that they learn.
#[test]
fn a_training_by_epochs_that_is_killed_goes_on_to_the_same_model() {
    let folder = Folder::with_ratings();
    for (model, flags) in [
        ("als", "--factors 4 --iterations 60"),
        ("bpr", "--factors 4 --iterations 60 --valid-metric recall@5 --patience 60"),
        ("mf", "--factors 4 --iterations 60 --batch-size 16 --n-negatives 4 --patience 60 --refit"),
        ("sasrec", "--factors 4 --heads 1 --iterations 60 --holdout 0.5 --patience 60"),
    ] {
        let train = format!("train {model} ratings.csv --seed 3 {flags} --device cpu");
        let validated = if model == "bpr" { "--valid ratings.csv" } else { "" };
        folder.succeeds(&format!("{train} {validated} --out {model}-whole"));
        let file = |name: &str| {
            let folder = folder.at(name).join("versions/1");
            let entries = fs_err::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
            let mut tensors: Vec<_> =
                entries.filter(|path| path.extension().is_some_and(|end| end == "safetensors")).collect();
            tensors.sort();
            tensors.into_iter().map(|path| fs_err::read(path).unwrap()).collect::<Vec<_>>()
        };
        let expected = file(&format!("{model}-whole"));
        let (out, checkpoints) = (format!("{model}-killed"), format!("{model}-killed.checkpoints"));
        let (mut child, mut lines) =
            start(&folder, &format!("{train} {validated} --out {out} --checkpoint-epochs 1"));
        wait_for(&mut lines, "checkpoint after 7 epochs");
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success());
        // A checkpoint is a model that answers.
        folder.succeeds(&format!("recommend {checkpoints} --user u1 --k 2"));
        // What is not typed is as it was.
        folder.succeeds(&format!("train {model} --out {out} --resume {checkpoints}"));
        assert_eq!(file(&out), expected, "{model}");
    }
    let again = "train bpr ratings.csv --out other --resume bpr-killed.checkpoints";
    folder.write("fewer.csv", "user_id,item_id,rating,timestamp\nu1,b1,3,7\nu2,a2,3,7\n");
    folder.write(
        "resume.toml",
        "data = \"ratings.csv\"\nout = \"other\"\nresume = \"bpr-killed.checkpoints\"\n",
    );
    for (command, told) in [
        (format!("{again} --factors 5"), "the checkpoint has --factors 4, not `5`"),
        (format!("{again} --seed 4 --valid ratings.csv"), "seed: the checkpoint has `3`, this training `4`"),
        (
            format!("{again} --valid-metric recall@6"),
            "the checkpoint has --valid-metric recall@5, not `recall@6`",
        ),
        (format!("{again} --min-rating 4"), "rows to learn from: the checkpoint has"),
        (format!("{again} --valid fewer.csv"), "the hash of what is validated on: the checkpoint has"),
        (format!("{again} --iterations 3"), "epochs: the checkpoint has"),
        (again.replace("other", "bpr-killed.checkpoints"), "must be two directories"),
        (format!("{again} --config resume.toml"), "`resume` is typed, and no file says it"),
        ("train als ratings.csv --out m --checkpoint-epochs 0".to_owned(), "must be at least 1"),
        ("train ease ratings.csv --out m --checkpoint-epochs 1".to_owned(), "ease learns in one pass"),
        (
            "train mf ratings.csv --out m --resume bpr-killed.checkpoints".to_owned(),
            "is a model of kind `bpr`",
        ),
        ("train als ratings.csv --out m --resume als-whole".to_owned(), "is a finished model"),
    ] {
        let screen = folder.screen(&command);
        assert!(!screen.starts_with("status: 0") && screen.contains(told), "{command}: {screen}");
    }
}
