//! What `recmill train` refuses before hours of work, and what it says of flags and files that will not do what their user may expect.

use recmill_core::{
    Dataset,
    data::ReadReport,
    models::{
        AlsSolver, Gru4RecConfig, MfLoss, ModelConfig, Negatives, SasRecConfig, SequenceLoss, Similarity,
    },
};
use recmill_kernels::Device;
use recmill_train::{stops_by_itself, trains_on_gpu};

use crate::{
    arguments::Given,
    commands::train_flags::TrainFlags,
    failure::{Failure, Result},
    model::check_destination,
    output::{count, counted, note},
};

/// Refuses what cannot work before hours of reading and training; returns where to train.
pub(super) fn check(flags: &TrainFlags, config: &ModelConfig) -> Result<(Device, String)> {
    config.validate()?;
    let chosen = flags.device.choose_for(&format!("training {}", config.name()), trains_on_gpu(config))?;
    let holds_out = stops_by_itself(config) && flags.holdout != Some(0.0);
    if !stops_by_itself(config) && (flags.holdout.is_some() || flags.refit) {
        let flag = if flags.refit { "--refit" } else { "--holdout" };
        return Err(Failure::usage(format!(
            "{flag} is for mf, neumf, sasrec, gru4rec and two-tower; {} holds nothing out",
            config.name()
        )));
    }
    if flags.holdout.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
        return Err(Failure::usage("--holdout is a share from 0 to 1"));
    }
    if flags.refit && !flags.valid.is_empty() {
        return Err(Failure::usage("--refit learns from what it has held out itself, not from --valid")
            .hint("leave out --valid, and give its file as data"));
    }
    if flags.refit && !holds_out {
        return Err(Failure::usage(
            "--refit needs events to find the best epoch by, and --holdout 0 leaves none",
        ));
    }
    if flags.valid.is_empty() && !holds_out && (flags.patience.is_some() || flags.valid_metric.is_some()) {
        let failure = Failure::usage("--patience and --valid-metric need interactions to validate on");
        return Err(match flags.holdout {
            Some(_) => failure.hint("--holdout 0 leaves none: leave it out, or add --valid FILE"),
            None => failure.hint("add --valid FILE; `recmill split` makes one"),
        });
    }
    if flags.valid_metric.as_deref().is_some_and(|metric| matches!(metric, "rmse" | "mae"))
        && !matches!(config, ModelConfig::Svd(_))
    {
        return Err(Failure::usage(format!(
            "{} predicts no values that rmse and mae could measure",
            config.name()
        ))
        .hint("--valid-metric takes metrics of lists such as ndcg@10 or recall@20; svd predicts values"));
    }
    let length = flags.valid_metric.as_deref().and_then(|metric| metric.split_once('@'));
    if length.is_some_and(|(_, k)| k.parse() == Ok(0u64)) {
        return Err(Failure::usage("--valid-metric measures lists of at least 1 item, such as ndcg@10"));
    }
    if flags.patience == Some(0) {
        return Err(Failure::usage("--patience must be at least 1, not `0`"));
    }
    if flags.keep == 0 {
        return Err(Failure::usage("--keep must be at least 1, not `0`"));
    }
    let one_pass =
        matches!(config, ModelConfig::ItemKnn(_) | ModelConfig::Ease(_) | ModelConfig::MostPopular(_));
    if one_pass && (flags.checkpoints.are_written(flags.every()) || flags.checkpoints.resume.is_some()) {
        return Err(Failure::usage(format!(
            "checkpoints are for models that learn in epochs; {} learns in one pass",
            config.name()
        )));
    }
    if let Some(out) = &flags.out {
        check_destination(out, config.name())?;
    }
    Ok(chosen)
}

pub(super) fn without_values(files: &[String]) -> Failure {
    Failure::failed(format!("svd predicts values, and {} has none", files.join(", "))).hint(
        "name their column with --value-column; als, bpr, lmf, warp, item-knn and ease learn from what has no values",
    )
}

/// Says which flags that were typed have no effect, beside the others.
pub(super) fn tell_what_does_nothing(
    flags: &TrainFlags,
    config: &ModelConfig,
    report: &ReadReport,
    given: &Given,
) {
    let mut idle = idle_in_model(config, flags);
    if let Some(Negatives::Uniform) = negatives(config) {
        idle.push(("negatives_exponent", "it is for --negatives popularity"));
    }
    let has_values =
        flags.reading.event_column.is_some() || report.columns.iter().any(|used| used.role == "value");
    if !has_values {
        idle.push(("min_rating", "the data has no values, so each row counts 1; --value-column names them"));
    }
    for (flag, why) in idle.into_iter().filter(|(flag, _)| given.has(flag)) {
        note!("--{} does nothing here: {why}", flag.replace('_', "-"));
    }
    let weighing = ["value_column", "event_weights", "half_life"].into_iter().find(|flag| given.has(flag));
    if let Some(flag) = weighing.filter(|_| !config.weighs_values()) {
        note!(
            "--{}: {} learns from what is above 0, and not from how much it is; als, item-knn and svd do",
            flag.replace('_', "-"),
            config.name()
        );
    }
    if flags.users.is_some() && !matches!(config, ModelConfig::TwoTower(_)) {
        note!(
            "columns of users are kept with the model; {} does not learn from them, two-tower does",
            config.name()
        );
    }
}

/// The flags of a model that others of its flags leave without effect, and why.
fn idle_in_model(config: &ModelConfig, flags: &TrainFlags) -> Vec<(&'static str, &'static str)> {
    let mut idle = Vec::new();
    match config {
        ModelConfig::Als(als) => {
            if als.solver != AlsSolver::Cg {
                idle.push(("cg_steps", "it is for --solver cg"));
            }
            if als.solver != AlsSolver::Block {
                idle.push(("block_size", "it is for --solver block"));
            }
            if als.alpha.is_some() {
                idle.push(("regularization_exponent", "it is for --unobserved-weight, and not for --alpha"));
            } else {
                idle.push(("base_confidence", "it is for --alpha"));
            }
        }
        ModelConfig::Mf(mf) => {
            let cosine = mf.similarity == Similarity::Cosine;
            if !(cosine && mf.loss == MfLoss::SampledSoftmax) {
                idle.push(("popularity_weight", "it is for --loss sampled-softmax with --similarity cosine"));
            }
            if !cosine || mf.loss == MfLoss::Contrastive {
                idle.push(("temperature", "it is for --similarity cosine, and not for --loss contrastive"));
            }
            if mf.loss != MfLoss::Contrastive {
                idle.extend(["margin", "negative_weight"].map(|flag| (flag, "it is for --loss contrastive")));
            }
        }
        ModelConfig::TwoTower(tower) => {
            if tower.similarity == Similarity::Dot {
                idle.extend(
                    ["temperature", "popularity_weight"].map(|flag| (flag, "it is for --similarity cosine")),
                );
            }
            if tower.hidden.is_empty() {
                idle.push(("dropout", "it is for the layers of --hidden, and there are none"));
            }
            if flags.users.is_none() && flags.items.is_none() && flags.from.is_none() {
                idle.push(("id_dropout", "it is for users and items with columns (--users, --items)"));
            }
        }
        ModelConfig::SasRec(SasRecConfig { loss, .. }) | ModelConfig::Gru4Rec(Gru4RecConfig { loss, .. }) => {
            if *loss == SequenceLoss::Softmax {
                idle.push(("n_negatives", "--loss softmax compares with all items"));
            }
            if *loss != SequenceLoss::Gbce {
                idle.push(("gbce_calibration", "it is for --loss gbce"));
            }
        }
        _ => {}
    }
    idle
}

/// How a model draws the items that it compares with, where it can be told to.
fn negatives(config: &ModelConfig) -> Option<Negatives> {
    match config {
        ModelConfig::Bpr(config) => Some(config.negatives),
        ModelConfig::Lmf(config) => Some(config.negatives),
        ModelConfig::Warp(config) => Some(config.negatives),
        ModelConfig::Mf(config) => Some(config.negatives),
        ModelConfig::SasRec(config) => Some(config.negatives),
        ModelConfig::Gru4Rec(config) => Some(config.negatives),
        ModelConfig::TwoTower(config) => Some(config.negatives),
        _ => None,
    }
}

/// Says so where half or more of what was named to measure by is learned from: it is never recommended then.
pub(super) fn tell_what_is_learned_from(held: &Dataset, data: &Dataset, flag: &str) {
    let items: Vec<_> = held.items.iter().map(|id| data.items.get(id)).collect();
    let mut seen = 0;
    for (user, id) in held.users.iter().enumerate() {
        let Some(known) = data.users.get(id) else { continue };
        let had = data.by_user().row(known as usize).0;
        let named = held.by_user().row(user).0.iter().filter_map(|&item| items[item as usize]);
        seen += named.filter(|item| had.binary_search(item).is_ok()).count();
    }
    let rows = held.by_user().nnz();
    if seen > 0 && 2 * seen >= rows {
        note!(
            "{} of {} of --{flag} are learned from, so they are never recommended and count as misses; is it the right file?",
            count(seen as u64),
            counted(rows as u64, "row")
        );
    }
}
