//! Each model with made-up parameters: small, dense and different for every user and item.

use recmill_core::{
    Csr,
    dense::Initial,
    models::{
        Als, AlsConfig, Bpr, BprConfig, Ease, EaseConfig, Gru4Rec, Gru4RecConfig, ItemKnn, ItemKnnConfig,
        Lmf, LmfConfig, Mf, MfConfig, ModelConfig, MostPopular, MostPopularConfig, NeighboursOf, NeuMf,
        NeuMfConfig, NeuMfNetwork, Retriever, SasRec, SasRecConfig, SequenceConfig, Svd, SvdConfig,
        SvdFactors, Tower, TwoTower, TwoTowerConfig, ValueRange, Warp, WarpConfig,
    },
};
use recmill_kernels::{Buffer, Device, Table, tie_hash};

pub(crate) const N_USERS: usize = 23;
pub(crate) const N_ITEMS: usize = 131;
const FACTORS: usize = 12;

/// A number from -1 to 1, always the same for `key` and `at`.
fn number(key: u64, at: usize) -> f32 {
    (tie_hash(key, at as u32) >> 40) as f32 / (1 << 23) as f32 - 1.0
}

fn numbers(key: u64, n: usize) -> Vec<f32> {
    (0..n).map(|at| number(key, at)).collect()
}

fn table(key: u64, rows: usize, dim: usize) -> Table {
    Table::from_f32(&numbers(key, rows * dim), dim, Device::Cpu, "made-up factors").unwrap()
}

fn buffer(key: u64, n: usize) -> Buffer<f32> {
    Buffer::from_vec(numbers(key, n), "made-up numbers").unwrap()
}

pub(crate) fn models() -> Vec<(ModelConfig, Box<dyn Retriever>)> {
    let users = || table(1, N_USERS, FACTORS);
    let items = || table(2, N_ITEMS, FACTORS);
    let mut models: Vec<(ModelConfig, Box<dyn Retriever>)> = Vec::new();
    for unobserved_weight in [None, Some(0.2)] {
        let config = AlsConfig { factors: FACTORS, unobserved_weight, ..AlsConfig::default() };
        let model = Als::new(config.clone(), users(), items()).unwrap();
        models.push((ModelConfig::Als(config), Box::new(model)));
    }
    let config = BprConfig { factors: FACTORS, ..BprConfig::default() };
    let model = Bpr::new(config.clone(), users(), items(), buffer(3, N_ITEMS)).unwrap();
    models.push((ModelConfig::Bpr(config), Box::new(model)));

    let config = LmfConfig { factors: FACTORS, ..LmfConfig::default() };
    let model = Lmf::new(config.clone(), users(), items(), buffer(3, N_ITEMS)).unwrap();
    models.push((ModelConfig::Lmf(config), Box::new(model)));

    let config = WarpConfig { factors: FACTORS, ..WarpConfig::default() };
    let model = Warp::new(config.clone(), users(), items(), buffer(3, N_ITEMS)).unwrap();
    models.push((ModelConfig::Warp(config), Box::new(model)));

    let config = MfConfig { factors: FACTORS, ..MfConfig::default() };
    let model = Mf::new(config.clone(), users(), items(), buffer(3, N_ITEMS)).unwrap();
    models.push((ModelConfig::Mf(config), Box::new(model)));

    for (factors, hidden) in [(7, vec![20, 9]), (0, vec![6])] {
        let mlp_factors = FACTORS - factors;
        let config = NeuMfConfig { factors, mlp_factors, hidden, ..NeuMfConfig::default() };
        let network = NeuMfNetwork::new(&config, &mut Initial::new(7, &Default::default()));
        let model = NeuMf::new(config.clone(), users(), items(), network).unwrap();
        models.push((ModelConfig::NeuMf(config), Box::new(model)));
    }

    let config = TwoTowerConfig { factors: FACTORS, ..TwoTowerConfig::default() };
    let tower = |key, n_ids: usize| Tower::of_ids(&config, table(key, n_ids + 1, FACTORS)).unwrap();
    let model = TwoTower::new(config.clone(), tower(7, N_USERS), tower(8, N_ITEMS)).unwrap();
    models.push((ModelConfig::TwoTower(config), Box::new(model)));

    let config = SvdConfig { factors: FACTORS, ..SvdConfig::default() };
    let factors = SvdFactors {
        user_factors: users(),
        user_bias: buffer(4, N_USERS),
        item_factors: items(),
        item_bias: buffer(3, N_ITEMS),
        range: ValueRange { mean: 3.5, min: 1.0, max: 5.0 },
    };
    models.push((ModelConfig::Svd(config.clone()), Box::new(Svd::new(config, factors).unwrap())));

    for neighbours_of in [NeighboursOf::History, NeighboursOf::Candidate] {
        let config = ItemKnnConfig { neighbours_of, binary: false, ..ItemKnnConfig::default() };
        let mut lists = (vec![0u64], Vec::new());
        for item in 0..N_ITEMS {
            lists.1.extend((1..9).map(|n| ((item + n * n) % N_ITEMS) as u32));
            lists.0.push(lists.1.len() as u64);
        }
        let similarities = buffer(5, lists.1.len());
        let ends = Buffer::from_vec(lists.0, "ends").unwrap();
        let neighbours = Buffer::from_vec(lists.1, "neighbours").unwrap();
        let model = ItemKnn::new(config.clone(), ends, neighbours, similarities).unwrap();
        models.push((ModelConfig::ItemKnn(config), Box::new(model)));
    }

    let config = SasRecConfig { factors: FACTORS, heads: 3, max_length: 4, ..SasRecConfig::default() };
    let network = config.network(&mut Initial::new(7, &Default::default()));
    let model = SasRec::new(config.clone(), items(), network).unwrap();
    models.push((ModelConfig::SasRec(config), Box::new(model)));

    let config = Gru4RecConfig { factors: FACTORS, layers: 2, hidden: 10, ..Gru4RecConfig::default() };
    let network = config.network(&mut Initial::new(7, &Default::default()));
    let model = Gru4Rec::new(config.clone(), items(), network).unwrap();
    models.push((ModelConfig::Gru4Rec(config), Box::new(model)));

    let config = EaseConfig::default();
    let model = Ease::new(config.clone(), table(6, N_ITEMS, N_ITEMS)).unwrap();
    models.push((ModelConfig::Ease(config), Box::new(model)));

    let indptr = (0..=N_USERS as u64).map(|user| user * 4).collect();
    let indices = (0..N_USERS as u32).flat_map(|user| (0..4).map(move |n| user + n * n)).collect();
    let interactions = Csr::new(N_ITEMS, indptr, indices, vec![1.0; 4 * N_USERS]).unwrap();
    let config = MostPopularConfig::default();
    let model = MostPopular::fit(config.clone(), &interactions).unwrap();
    models.push((ModelConfig::MostPopular(config), Box::new(model)));
    models
}
