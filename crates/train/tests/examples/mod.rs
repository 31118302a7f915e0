//! Data and models that are small enough to reason about.
#![allow(dead_code, reason = "each test file uses some of it")]

use recmill_core::{
    Csr, Dataset, IdMap, ItemIndex, Parameter, Parameters,
    data::synthetic::{Synthetic, SyntheticOptions},
    models::{
        AlsConfig, AlsSolver, BprConfig, Gru4RecConfig, ItemKnnConfig, LmfConfig, MfConfig, ModelConfig,
        NeuMfConfig, SasRecConfig, SequenceLoss, SvdConfig, SvdSolver, TwoTowerConfig, WarpConfig,
    },
};
use recmill_kernels::Table;

/// Every model, and every way of learning that makes another model of it, small enough for small data.
pub(crate) fn all_models() -> Vec<ModelConfig> {
    let als = AlsConfig { factors: 8, iterations: 10, ..AlsConfig::default() };
    let svd = SvdConfig { factors: 4, iterations: 60, ..SvdConfig::default() };
    let sasrec = SasRecConfig {
        factors: 16,
        feed_forward: 16,
        heads: 2,
        max_length: 8,
        dropout: 0.1,
        learning_rate: 0.005,
        batch_size: 16,
        iterations: 40,
        ..SasRecConfig::default()
    };
    let gru4rec = Gru4RecConfig {
        factors: 16,
        hidden: 24,
        max_length: 8,
        dropout: 0.1,
        learning_rate: 0.005,
        batch_size: 16,
        iterations: 40,
        ..Gru4RecConfig::default()
    };
    let mf = MfConfig {
        factors: 8,
        batch_size: 64,
        n_negatives: 16,
        learning_rate: 0.01,
        iterations: 40,
        ..MfConfig::default()
    };
    let two_tower = TwoTowerConfig {
        factors: 8,
        batch_size: 64,
        n_negatives: 16,
        learning_rate: 0.01,
        iterations: 40,
        ..TwoTowerConfig::default()
    };
    let neumf = NeuMfConfig {
        factors: 8,
        mlp_factors: 8,
        hidden: vec![16, 8],
        learning_rate: 0.01,
        batch_size: 64,
        iterations: 20,
        ..NeuMfConfig::default()
    };
    vec![
        ModelConfig::Als(als.clone()),
        ModelConfig::Als(AlsConfig {
            solver: AlsSolver::Cholesky,
            unobserved_weight: Some(0.1),
            ..als.clone()
        }),
        ModelConfig::Als(AlsConfig { solver: AlsSolver::Block, block_size: 3, ..als }),
        ModelConfig::Bpr(BprConfig { factors: 8, iterations: 60, ..BprConfig::default() }),
        ModelConfig::Lmf(LmfConfig { factors: 8, iterations: 60, ..LmfConfig::default() }),
        ModelConfig::Warp(WarpConfig {
            factors: 8,
            regularization: 0.005,
            iterations: 60,
            ..WarpConfig::default()
        }),
        ModelConfig::Mf(MfConfig { propagation_layers: 2, ..mf.clone() }),
        ModelConfig::Mf(mf),
        ModelConfig::NeuMf(NeuMfConfig { factors: 0, dropout: 0.1, ..neumf.clone() }),
        ModelConfig::NeuMf(neumf),
        ModelConfig::ItemKnn(ItemKnnConfig { neighbours: 20, ..ItemKnnConfig::default() }),
        ModelConfig::default_of("ease").unwrap(),
        ModelConfig::default_of("most-popular").unwrap(),
        ModelConfig::Svd(svd.clone()),
        ModelConfig::Svd(SvdConfig { solver: SvdSolver::Als, iterations: 10, ..svd }),
        ModelConfig::SasRec(SasRecConfig { loss: SequenceLoss::Softmax, ..sasrec.clone() }),
        ModelConfig::SasRec(SasRecConfig { n_negatives: 8, ..sasrec.clone() }),
        ModelConfig::SasRec(SasRecConfig { loss: SequenceLoss::Gbce, n_negatives: 8, ..sasrec }),
        ModelConfig::Gru4Rec(Gru4RecConfig { loss: SequenceLoss::Softmax, ..gru4rec.clone() }),
        ModelConfig::Gru4Rec(Gru4RecConfig { layers: 2, n_negatives: 8, ..gru4rec }),
        ModelConfig::TwoTower(TwoTowerConfig { hidden: vec![16], hard_negatives: 2, ..two_tower.clone() }),
        ModelConfig::TwoTower(two_tower),
    ]
}

/// Whether order is what the model knows, and all that it knows.
pub(crate) fn reads_order(config: &ModelConfig) -> bool {
    matches!(config, ModelConfig::SasRec(_) | ModelConfig::Gru4Rec(_))
}

/// Joins entries `(user, item, value)` to a dataset; ids are `u0`, `i0` and so on.
pub(crate) fn dataset(n_users: usize, n_items: usize, entries: &[(usize, usize, f32)]) -> Dataset {
    let ids = |prefix: &str, n: usize| {
        let mut ids = IdMap::default();
        for at in 0..n {
            ids.get_or_insert(&format!("{prefix}{at}")).unwrap();
        }
        ids
    };
    let mut entries = entries.to_vec();
    entries.sort_by_key(|&(user, item, _)| (user, item));
    let mut indptr = vec![0u64; n_users + 1];
    entries.iter().for_each(|&(user, ..)| indptr[user + 1] += 1);
    (0..n_users).for_each(|user| indptr[user + 1] += indptr[user]);
    let order = indptr.windows(2).flat_map(|ends| 0..(ends[1] - ends[0]) as u32).collect();
    let indices = entries.iter().map(|&(_, item, _)| item as u32).collect();
    let values = entries.iter().map(|&(.., value)| value).collect();
    let by_user = Csr::new(n_items, indptr, indices, values).unwrap();
    Dataset::new(ids("u", n_users), ids("i", n_items), by_user, None, order).unwrap()
}

/// Users who took these items one after the other, none of them twice.
pub(crate) fn walks(n_items: usize, walks: &[Vec<usize>]) -> Dataset {
    let entries: Vec<_> = walks
        .iter()
        .enumerate()
        .flat_map(|(user, items)| items.iter().map(move |&item| (user, item, 1.0)))
        .collect();
    let parts = dataset(walks.len(), n_items, &entries).into_parts();
    let place = |items: &[usize], item: usize| items.iter().filter(|&&other| other < item).count() as u32;
    let order = walks.iter().flat_map(|items| items.iter().map(|&item| place(items, item))).collect();
    Dataset::new(parts.users, parts.items, parts.by_user, None, order).unwrap()
}

/// Users of two kinds: even ones have the even items, odd ones the odd items, but for one item each, which comes back
/// as the second value. `rated` adds the items of the other kind with a low value, two of them left out.
pub(crate) fn checkerboard(n_users: usize, n_items: usize, rated: bool) -> (Dataset, Vec<ItemIndex>) {
    let half = n_items / 2;
    let withheld: Vec<usize> = (0..n_users).map(|user| (user / 2 % half) * 2 + user % 2).collect();
    let mut entries = Vec::new();
    for (user, &own) in withheld.iter().enumerate() {
        for item in 0..n_items {
            let left_out = [own, own ^ 1, (own + 3) % n_items];
            let value = match (user % 2 == item % 2, rated) {
                (true, true) => 5.0,
                (true, false) | (false, true) => 1.0,
                (false, false) => continue,
            };
            if !left_out.contains(&item) {
                entries.push((user, item, value));
            }
        }
    }
    (dataset(n_users, n_items, &entries), withheld.into_iter().map(|item| ItemIndex(item as u32)).collect())
}

/// Users and items with tastes, about 12 interactions a user, with ratings as values.
pub(crate) fn taste_groups(n_users: usize, n_items: usize) -> Dataset {
    let options = SyntheticOptions { n_users, n_items, n_interactions: 12 * n_users, seed: 5 };
    Synthetic::generate(&options).dataset().unwrap()
}

/// Returns what a user has had.
pub(crate) fn history(data: &Dataset, user: usize) -> Vec<(ItemIndex, f32)> {
    let (items, values) = data.by_user().row(user);
    items.iter().map(|&item| ItemIndex(item)).zip(values.iter().copied()).collect()
}

/// Returns all parameters as the bytes they are made of, with their names.
pub(crate) fn bytes(parameters: &Parameters) -> Vec<(String, Vec<u8>)> {
    let bits = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let table = |table: &Table| bits(&table.to_f32().unwrap());
    parameters
        .iter()
        .map(|(name, parameter)| {
            let bytes = match parameter {
                Parameter::Table(rows) => table(rows),
                Parameter::F32(values) => bits(values.cpu().unwrap()),
                Parameter::U32(values) => {
                    values.cpu().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()
                }
                Parameter::U64(values) => {
                    values.cpu().unwrap().iter().flat_map(|v| v.to_le_bytes()).collect()
                }
                Parameter::Features(features) => serde_json::to_vec(&**features).unwrap(),
            };
            (name.to_owned(), bytes)
        })
        .collect()
}
