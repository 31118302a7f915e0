//! How NeuMF learns: batches of interactions, each with negatives of its own, Adam for the network and the rows that are touched.
//!
//! ```text
//! rows of users and items -> looked up (leaves) -> network -> scores -> loss -> back to the leaves and the network -> a step for each
//! ```
//!
//! Only interactions of positive value count, each once whatever its value. Negatives are drawn anew in each epoch, by (seed, epoch,
//! interaction) alone; whoever has all items has none. The loss is the mean over the epoch's pairs, each taken before its own step.

use burn::{backend::Autodiff, module::AutodiffModule, tensor::Tensor};
use recmill_core::{
    Dataset, Parameter, Parameters,
    dense::{DeviceBackend, Dropout, InTraining, Initial, beside, buffer_of, matrix_of, put_parameters},
    models::{NeuMf, NeuMfConfig, NeuMfNetwork, NeuMfRows, Retriever},
};
use recmill_kernels::{
    Buffer, Device, SparseStep, Table, gather,
    negative::{self, Distribution},
    philox::Draws,
};

use crate::{
    Error, Learner, Prediction, Result,
    data::{Sizes, liked},
    error::NotFinite,
    factors::{Normal, Stream, copy, on_cpu, take_over, take_over_network},
    gradient::{DenseGradients, Order},
    learned::{LearnedNetwork, LearnedTable, put_parts, take_parts},
};

/// The streams that negatives are drawn from, one an epoch.
const NEGATIVES: u64 = 1 << 39;

/// Returns what learns on `device`.
pub(crate) fn learner<'a>(
    config: &'a NeuMfConfig,
    data: &'a Dataset,
    seed: u64,
    device: Device,
) -> Result<Box<dyn Learner + 'a>> {
    on_backend!(device, B => Ok(Box::new(NeuMfLearner::<B>::new(config, data, seed, device)?)))
}

/// Returns the bytes of everything that learning allocates.
pub(crate) fn predict(config: &NeuMfConfig, sizes: &Sizes) -> Prediction {
    let length = config.row_length() as u64;
    let tables = 4 * (sizes.n_users + sizes.n_items) * length;
    let pairs = (config.batch_size as u64).min(sizes.n_interactions) * (1 + config.n_negatives as u64);
    let hidden: u64 = config.hidden.iter().map(|&width| width as u64).sum();
    let network = config.n_parameters();
    Prediction::default()
        .add("vectors", tables)
        .add("the optimizer's state", 2 * tables)
        .add("copies of the vectors", (sizes.copies() + 1) * tables)
        .add(
            "what lists keep of the items",
            sizes.copies() * 4 * sizes.n_items * config.prepared_length() as u64,
        )
        .add("the network and its optimizer", 16 * network)
        .add("copies of the network", sizes.copies() * 4 * network)
        .add("interactions", 8 * sizes.n_interactions)
        .add("a batch", 4 * pairs * (10 * length + 4 * hidden))
}

/// Returns the bytes of it that are on a GPU, where one computes.
pub(crate) fn predict_on_gpu(config: &NeuMfConfig, sizes: &Sizes) -> Prediction {
    predict(config, sizes).without(&[
        "copies of the vectors",
        "copies of the network",
        "what lists keep of the items",
        "interactions",
    ])
}

struct NeuMfLearner<'a, B: DeviceBackend> {
    config: &'a NeuMfConfig,
    data: &'a Dataset,
    seed: u64,
    device: Device,
    /// The interactions that count: user and item.
    liked: Vec<(u32, u32)>,
    users: LearnedTable,
    items: LearnedTable,
    network: LearnedNetwork<B, NeuMfNetwork<Autodiff<B>>>,
}

/// Pairs to learn from: a user and an item each, and whether it was observed.
#[derive(Default)]
struct Pairs {
    users: Vec<u32>,
    items: Vec<u32>,
    observed: Vec<bool>,
    /// What each is a sample of, for dropout.
    samples: Vec<u64>,
}

impl<'a, B: DeviceBackend> NeuMfLearner<'a, B> {
    fn new(config: &'a NeuMfConfig, data: &'a Dataset, seed: u64, device: Device) -> Result<Self> {
        let liked = liked(data)?;
        let (dim, scale) = (config.row_length(), config.init_scale);
        let side = |rows, stream, what| {
            LearnedTable::new(Normal { rows, dim, scale, seed, stream }.on(device, what)?)
        };
        let on = B::device(device)?;
        Ok(Self {
            users: side(data.n_users(), Stream::UserFactors, "user vectors")?,
            items: side(data.n_items(), Stream::ItemFactors, "item vectors")?,
            network: LearnedNetwork::new(NeuMfNetwork::new(config, &mut Initial::new(seed, &on))),
            config,
            data,
            seed,
            device,
            liked,
        })
    }

    /// Puts interactions and their negatives together.
    fn pairs(&self, samples: impl Iterator<Item = u64>, epoch: u32) -> Pairs {
        let n = self.config.n_negatives as u64;
        let draws = Draws::new(self.seed, NEGATIVES + u64::from(epoch));
        let all = Distribution::Uniform(self.data.n_items() as u32);
        let mut pairs = Pairs::default();
        for sample in samples {
            let (user, item) = self.liked[sample as usize];
            let own = [item];
            let had = match self.config.verify_negatives {
                true => self.data.by_user().row(user as usize).0,
                false => &own,
            };
            let drawn = (0..n).map(|at| negative::one(had, &all, sample * n + at, draws));
            for (at, (item, observed)) in
                (0..).zip([(item, true)].into_iter().chain(drawn.flatten().map(|item| (item, false))))
            {
                pairs.users.push(user);
                pairs.items.push(item);
                pairs.observed.push(observed);
                pairs.samples.push(sample * (n + 1) + at);
            }
        }
        pairs
    }

    /// Takes one step and returns the sum of the losses.
    fn step(&mut self, pairs: Pairs, epoch: u32) -> Result<f64> {
        let of_users = look_up::<B>(&self.users.table, &pairs.users, self.config)?;
        let of_items = look_up::<B>(&self.items.table, &pairs.items, self.config)?;
        let dropout = Dropout { seed: self.seed, epoch, samples: pairs.samples };
        let training = InTraining::new(dropout);
        let scores = self.network.network.forward(of_users.clone(), of_items.clone(), Some(&training));
        let found = buffer_of(scores.clone().inner())?.into_vec()?;
        B::check_answers(self.device)?;
        let (mut sum, mut slopes) = (0.0, Vec::with_capacity(found.len()));
        for (&score, &observed) in found.iter().zip(&pairs.observed) {
            let (s, y) = (f64::from(score), f64::from(u8::from(observed)));
            sum += s.max(0.0) - y * s + (-s.abs()).exp().ln_1p();
            slopes.push(((1.0 / (1.0 + (-s).exp()) - y) / found.len() as f64) as f32);
        }
        if !sum.is_finite() {
            return Err(Error::Diverged { epoch, found: NotFinite::Loss(sum) });
        }
        let slopes = matrix_of::<B>(Buffer::from_slice(&slopes, self.device, "slopes")?, 1)?;
        let gradients = (scores * Tensor::from_inner(slopes)).sum().backward();
        let of_network = DenseGradients::of(&self.network.network, &gradients);
        self.network.step(of_network, self.config.learning_rate);
        let (learning_rate, l2) = (self.config.learning_rate as f32, self.config.regularization as f32);
        let step = SparseStep { learning_rate, l2, seed: self.seed };
        for (side, leaves, rows) in
            [(&mut self.users, of_users, &pairs.users), (&mut self.items, of_items, &pairs.items)]
        {
            let halves = leaves.multiplied.iter().chain([&leaves.read]);
            let gradient = beside(halves.filter_map(|leaf| leaf.grad(&gradients)).collect());
            side.step_gathered(rows, &buffer_of(gradient)?, &step)?;
        }
        Ok(sum)
    }

    /// Joins tables and the network to a model.
    fn model(&self, users: Table, items: Table) -> Result<Box<dyn Retriever>> {
        let mut parameters = Parameters::default();
        put_parameters(&self.network.network.valid(), &mut parameters)?;
        parameters.insert("user_vectors", Parameter::Table(users));
        parameters.insert("item_vectors", Parameter::Table(items));
        Ok(Box::new(NeuMf::open(self.config, parameters)?))
    }
}

/// Looks rows up, as leaves of a graph.
fn look_up<B: DeviceBackend>(
    table: &Table,
    rows: &[u32],
    config: &NeuMfConfig,
) -> Result<NeuMfRows<Autodiff<B>>> {
    let values = matrix_of::<B>(gather(table, rows)?, config.row_length())?;
    let halves = NeuMfRows::cut(values, config);
    let leaf = |values| Tensor::<Autodiff<B>, 2>::from_inner(values).require_grad();
    Ok(NeuMfRows { multiplied: halves.multiplied.map(leaf), read: leaf(halves.read) })
}

impl<B: DeviceBackend> Learner for NeuMfLearner<'_, B> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        let n = self.liked.len() as u64;
        let order = Order::new(n, self.seed, epoch);
        let (mut loss, mut n_pairs) = (0.0, 0);
        for first in (0..n).step_by(self.config.batch_size) {
            let places = first..(first + self.config.batch_size as u64).min(n);
            let pairs = self.pairs(places.map(|place| order.sample(place)), epoch);
            n_pairs += pairs.users.len();
            loss += self.step(pairs, epoch).map_err(|error| error.diverged_in(epoch))?;
        }
        Ok(Some(loss / n_pairs as f64))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let users = copy(&self.users.table, "copy of the user vectors")?;
        let items = copy(&self.items.table, "copy of the item vectors")?;
        self.model(users, items)
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.users.table, &parameters.take_table("user_vectors")?, "user vectors")?;
        take_over(&mut self.items.table, &parameters.take_table("item_vectors")?, "item vectors")?;
        let layers = (self.config.hidden.len(), "hidden layers");
        let network = self.network.network.clone();
        self.network.network = take_over_network(network, &mut parameters, layers)?;
        Ok(())
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_parts([
            ("users_", &mut self.users),
            ("items_", &mut self.items),
            ("network_", &mut self.network),
        ])
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_parts(
            state,
            [("users_", &mut self.users), ("items_", &mut self.items), ("network_", &mut self.network)],
        )
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Retriever>> {
        let none = || Table::zeros(0, self.config.row_length(), Device::Cpu, "vectors");
        let (no_users, no_items) = (none()?, none()?);
        let users = on_cpu(std::mem::replace(&mut self.users.table, no_users), "user vectors")?;
        let items = on_cpu(std::mem::replace(&mut self.items.table, no_items), "item vectors")?;
        self.model(users, items)
    }
}
