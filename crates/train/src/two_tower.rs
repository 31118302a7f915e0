//! How two-tower learns: batches of interactions, the users' tower against that of the candidates, Adam for both networks and the touched rows.
//!
//! ```text
//! rows of a batch -> looked up (leaf) -> network -> scaled -> loss -> back to the leaf and the network -> a step for each
//! ```
//!
//! Candidates are the batch's items, drawn ones and, from the second epoch on, those that stood highest for the batch's users before the
//! epoch. Only interactions of positive value count, each once whatever its value. The loss is the mean over the epoch's interactions,
//! each taken before its own step.

mod side;

use recmill_core::{
    Batch, Dataset, ItemIndex, Parameter, Parameters, Query, Row, Side, UserIndex, Workspace,
    dense::{DeviceBackend, Initial, SCORES_AT_ONCE},
    features::Described,
    models::{PairModel, Retriever, TwoTower, TwoTowerConfig},
};
use recmill_kernels::{Buffer, CandidateLoss, Device, Table};

use self::side::{At, SideLearner};
use crate::{
    Learner, Prediction, Result,
    candidates::{Choosing, Listed, drawn},
    data::{Sizes, item_counts, liked},
    factors::{copy, on_cpu},
    gradient::Order,
    learned::{put_parts, take_parts},
    mf::Scaled,
};

/// Users for whom hard negatives are looked up at a time.
const LISTED_AT_ONCE: usize = 1024;

/// Returns what learns on `device`, from what is known of users and items besides.
pub(crate) fn learner<'a>(
    config: &'a TwoTowerConfig,
    data: &'a Dataset,
    described: [Option<&'a Described>; 2],
    seed: u64,
    device: Device,
) -> Result<Box<dyn Learner + 'a>> {
    on_backend!(device, B => Ok(Box::new(TwoTowerLearner::<B>::new(config, data, described, seed, device)?)))
}

/// Returns the bytes of everything that learning allocates.
pub(crate) fn predict(config: &TwoTowerConfig, sizes: &Sizes) -> Prediction {
    let rows = sizes.n_users + sizes.n_items;
    let vectors = 4 * rows * config.factors as u64;
    let tables = 4 * (rows + sizes.described_rows + 2) * config.factors as u64;
    let batch = (config.batch_size as u64).min(sizes.n_interactions);
    let candidates = (batch * (1 + config.hard_negatives as u64)).min(sizes.n_items.max(batch))
        + config.n_negatives as u64;
    let width: u64 = config.hidden.iter().map(|&width| width as u64).sum();
    let scores = (batch * candidates).min(SCORES_AT_ONCE as u64);
    let of_side = |(fields, numbers)| config.n_parameters(fields, numbers);
    let network: u64 = sizes.described_columns.into_iter().map(of_side).sum();
    Prediction::default()
        .add("embeddings", tables)
        .add("item biases", (2 + sizes.copies()) * 4 * sizes.n_items)
        .add("the optimizer's state", 2 * tables)
        .add("copies of the embeddings, and vectors", (sizes.copies() + 1) * (tables + 2 * vectors))
        .add("the network and its optimizer", 16 * network)
        .add("copies of the network", sizes.copies() * 4 * network)
        .add("interactions", 8 * sizes.n_interactions)
        .add("hard negatives", 4 * sizes.n_users * config.hard_negatives as u64)
        .add("a batch", 8 * scores + (batch + candidates) * 4 * (12 * config.factors as u64 + 3 * width))
}

/// Returns the bytes of it that are on a GPU, where one computes.
pub(crate) fn predict_on_gpu(config: &TwoTowerConfig, sizes: &Sizes) -> Prediction {
    predict(config, sizes).without(&[
        "item biases",
        "copies of the embeddings, and vectors",
        "copies of the network",
        "interactions",
        "hard negatives",
    ])
}

/// What is added to the scores of items of so many interactions. Where items are known by columns, one that nobody has had is as a new one,
/// which has the mean of the others.
fn item_biases(config: &TwoTowerConfig, counts: &[u64], described: bool) -> Vec<f32> {
    let mut biases: Vec<f32> = counts.iter().map(|&n| config.item_bias(n)).collect();
    if described {
        let known = counts.iter().filter(|&&n| n > 0).count().max(1);
        let mean = biases.iter().map(|&bias| f64::from(bias)).sum::<f64>() / known as f64;
        biases.iter_mut().zip(counts).filter(|&(_, &n)| n == 0).for_each(|(bias, _)| *bias = mean as f32);
    }
    biases
}

struct TwoTowerLearner<'a, B: DeviceBackend> {
    config: &'a TwoTowerConfig,
    data: &'a Dataset,
    seed: u64,
    device: Device,
    /// The interactions that count: user and item.
    liked: Vec<(u32, u32)>,
    choosing: Choosing<'a>,
    /// What is added to each item's score.
    item_bias: Vec<f32>,
    hard: Listed,
    users: SideLearner<'a, B>,
    items: SideLearner<'a, B>,
}

impl<'a, B: DeviceBackend> TwoTowerLearner<'a, B> {
    fn new(
        config: &'a TwoTowerConfig,
        data: &'a Dataset,
        [of_users, of_items]: [Option<&'a Described>; 2],
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        let liked = liked(data)?;
        let mut known_users = vec![false; data.n_users()];
        liked.iter().for_each(|&(user, _)| known_users[user as usize] = true);
        let counts = item_counts(&liked, data.n_items());
        let known_items = counts.iter().map(|&n| n > 0).collect();
        let choosing = Choosing::new(data, seed, &drawn!(config))?;
        let on = B::device(device)?;
        let mut initial = Initial::new(seed, &on);
        let mut side = |side, described, known| {
            SideLearner::new(config, side, described, known, (seed, device), &mut initial)
        };
        Ok(Self {
            users: side(Side::Users, of_users, known_users)?,
            items: side(Side::Items, of_items, known_items)?,
            hard: Listed::default(),
            item_bias: item_biases(config, &counts, of_items.is_some()),
            config,
            data,
            seed,
            device,
            liked,
            choosing,
        })
    }

    /// Takes one step and returns the sum of the losses.
    fn step(&mut self, samples: &[u64], epoch: u32, batch: u64) -> Result<f64> {
        let pairs = samples.iter().map(|&sample| self.liked[sample as usize]);
        let (users, next): (Vec<u32>, Vec<u32>) = pairs.unzip();
        let owners: Vec<(u32, usize)> = users.iter().map(|&user| (user, 1)).collect();
        let mut choice = self.choosing.choose_among(&next, &owners, Some(&self.hard), epoch, batch);
        choice.add_biases(&self.item_bias);
        let of_item = |&item: &u32| batch * self.data.n_items() as u64 + u64::from(item);
        let of_items: Vec<u64> = choice.items.iter().map(of_item).collect();
        let of_users = self.users.forward(&users, At { epoch, samples })?;
        let of_items = self.items.forward(&choice.items, At { epoch, samples: &of_items })?;

        let length = self.config.length();
        let x = Scaled::<B>::of(of_users.vectors.clone().inner(), length);
        let y = Scaled::<B>::of(of_items.vectors.clone().inner(), length);
        let (rows, candidates) = (x.scaled.clone(), y.scaled.clone());
        let (sum, found) = choice.compare(rows, candidates, CandidateLoss::Softmax, (epoch, self.device))?;
        self.users.step(of_users, x.back(found.rows))?;
        self.items.step(of_items, y.back(found.candidates))?;
        Ok(sum)
    }

    /// Lists for every user the items that score highest now and are not theirs.
    fn find_hard_negatives(&mut self) -> Result<()> {
        let [of_users, of_items] = self.vectors()?;
        let mut model = PairModel::new(self.config.clone(), of_users, of_items, self.biases()?)?;
        model.score_on(self.device)?;
        let (mut ends, mut items) = (vec![0], Vec::new());
        let mut workspace = Workspace::default();
        for first in (0..self.data.n_users()).step_by(LISTED_AT_ONCE) {
            let users = first..(first + LISTED_AT_ONCE).min(self.data.n_users());
            let row = |user: usize| {
                let had = self.data.by_user().row(user).0;
                let exclude = had.iter().map(|&item| ItemIndex(item)).collect();
                Row { exclude, ..Row::new(Query::User(UserIndex(user as u32)), self.config.hard_negatives) }
            };
            let batch = Batch { rows: users.map(row).collect() };
            model.score(&batch, &mut workspace)?;
            for row in 0..batch.rows.len() {
                items.extend(workspace.answer(row).0.iter().map(|item| item.0));
                ends.push(items.len());
            }
        }
        let mut weights = vec![0; self.data.n_users()];
        self.liked.iter().for_each(|&(user, _)| weights[user as usize] += 1);
        self.hard = Listed::new(ends, items, &weights, self.data.n_items());
        Ok(())
    }

    /// Returns the vectors of users and items as they are now.
    fn vectors(&self) -> Result<[Table; 2]> {
        Ok([self.users.vectors()?, self.items.vectors()?])
    }

    fn biases(&self) -> Result<Buffer<f32>> {
        Ok(Buffer::from_slice(&self.item_bias, Device::Cpu, "item biases")?)
    }

    /// Joins vectors and the towers' tables to a model.
    fn model(&self, [of_users, of_items]: [Table; 2], [users, items]: [Table; 2]) -> Result<TwoTower> {
        let mut parameters = Parameters::default();
        parameters.insert("user_factors", Parameter::Table(of_users));
        parameters.insert("item_factors", Parameter::Table(of_items));
        parameters.insert("item_bias", Parameter::F32(self.biases()?));
        self.users.put(users, &mut parameters)?;
        self.items.put(items, &mut parameters)?;
        Ok(TwoTower::open(self.config, parameters)?)
    }
}

impl<B: DeviceBackend> Learner for TwoTowerLearner<'_, B> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        if self.config.hard_negatives > 0 && epoch > 1 {
            self.find_hard_negatives().map_err(|error| error.diverged_in(epoch - 1))?;
        }
        let n = self.liked.len() as u64;
        let order = Order::new(n, self.seed, epoch);
        let mut loss = 0.0;
        for (batch, first) in (0..n).step_by(self.config.batch_size).enumerate() {
            let places = first..(first + self.config.batch_size as u64).min(n);
            let samples: Vec<u64> = places.map(|place| order.sample(place)).collect();
            loss += self.step(&samples, epoch, batch as u64).map_err(|error| error.diverged_in(epoch))?;
        }
        Ok(Some(loss / n as f64))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let users = copy(&self.users.embedding.table, "copy of the users' embeddings")?;
        let items = copy(&self.items.embedding.table, "copy of the items' embeddings")?;
        let mut model = self.model(self.vectors()?, [users, items])?;
        model.score_on(self.device)?;
        Ok(Box::new(model))
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        self.users.restore(&mut parameters)?;
        self.items.restore(&mut parameters)
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_parts([("users_", &mut self.users), ("items_", &mut self.items)])
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_parts(state, [("users_", &mut self.users), ("items_", &mut self.items)])
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Retriever>> {
        let vectors = self.vectors()?;
        let none = || Table::zeros(0, self.config.factors, Device::Cpu, "embeddings");
        let (no_users, no_items) = (none()?, none()?);
        let users =
            on_cpu(std::mem::replace(&mut self.users.embedding.table, no_users), "users' embeddings")?;
        let items =
            on_cpu(std::mem::replace(&mut self.items.embedding.table, no_items), "items' embeddings")?;
        Ok(Box::new(self.model(vectors, [users, items])?))
    }
}
