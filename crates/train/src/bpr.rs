//! How BPR learns: an epoch compares every interaction with an item drawn from those the user does not have.
//!
//! The kernel cuts users and items into blocks by the data alone and runs disjoint cells in parallel, so that the bits do
//! not depend on the number of threads; with `hogwild` threads race instead. Only interactions of positive value count,
//! each once whatever its value; a dislike is an item that the user does not have.
//!
//! The loss is the mean over the epoch's comparisons, each taken before its own step, without regularization.

use recmill_core::{
    Dataset, Parameters,
    models::{Bpr, BprConfig, Negatives, Optimizer, Retriever},
};
use recmill_kernels::{
    self as kernels, Buffer, Device, Mode, PairwiseEpoch, PairwiseLoss, PairwiseState, Table, pairwise_epoch,
    pairwise_epoch_bytes,
};

use crate::{
    Learner, Prediction, Result,
    data::{Sizes, sparse_rows},
    factors::{Normal, Stream, copy, on_cpu, take_over, take_over_bias},
};

/// Factors of users and items, item biases, and the interactions they are learnt from.
pub(crate) struct BprLearner<'a> {
    config: &'a BprConfig,
    data: &'a Dataset,
    seed: u64,
    users: Table,
    items: Table,
    item_bias: Vec<f32>,
    state: PairwiseState,
}

impl<'a> BprLearner<'a> {
    pub(crate) fn new(config: &'a BprConfig, data: &'a Dataset, seed: u64, device: Device) -> Result<Self> {
        let (dim, scale) = (config.factors, config.init_scale);
        let draw = |rows, stream, what| Normal { rows, dim, scale, seed, stream }.on(device, what);
        Ok(Self {
            users: draw(data.n_users(), Stream::UserFactors, "user factors")?,
            items: draw(data.n_items(), Stream::ItemFactors, "item factors")?,
            item_bias: vec![0.0; data.n_items()],
            state: PairwiseState::new(optimizer(config), data.n_users(), data.n_items()),
            config,
            data,
            seed,
        })
    }

    /// Returns the bytes of everything that [`BprLearner`] allocates.
    pub(crate) fn predict(config: &BprConfig, sizes: &Sizes) -> Prediction {
        let row = 4 * config.factors as u64;
        let (n_users, n_items) = (sizes.n_users, sizes.n_items);
        let epoch = pairwise_epoch_bytes(mode(config), n_users, n_items, sizes.n_interactions);
        let state = if config.optimizer == Optimizer::Adagrad { 4 * (n_users + 2 * n_items) } else { 0 };
        Prediction::default()
            .add("user factors", n_users * row)
            .add("item factors", n_items * (row + 4))
            .add("copies of the factors", sizes.copies() * (n_users + n_items) * row)
            .add("the optimizer's state", state)
            .add("the order of an epoch", epoch)
    }

    /// Returns the bytes of it that are on a GPU, where one computes.
    pub(crate) fn predict_on_gpu(config: &BprConfig, sizes: &Sizes) -> Prediction {
        let row = 4 * config.factors as u64;
        let (n_users, n_items) = (sizes.n_users, sizes.n_items);
        Prediction::default()
            .add("user factors", n_users * row)
            .add("item factors", n_items * row)
            .add("the rows of a round", (n_users + n_items) * row)
            .add("the order of an epoch", 16 * sizes.n_interactions + 8 * n_users + 24 * n_items)
    }
}

fn mode(config: &BprConfig) -> Mode {
    if config.hogwild { Mode::Hogwild } else { Mode::Deterministic }
}

fn optimizer(config: &BprConfig) -> kernels::Optimizer {
    match config.optimizer {
        Optimizer::Sgd => kernels::Optimizer::Sgd,
        Optimizer::Adagrad => kernels::Optimizer::Adagrad,
    }
}

impl Learner for BprLearner<'_> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        let popularity_exponent = match self.config.negatives {
            Negatives::Uniform => 0.0,
            Negatives::Popularity => self.config.negatives_exponent as f32,
        };
        let epoch = PairwiseEpoch {
            rows: sparse_rows(self.data.by_user()),
            loss: PairwiseLoss::Bpr,
            optimizer: optimizer(self.config),
            learning_rate: self.config.learning_rate as f32,
            regularization: self.config.regularization as f32,
            bias_regularization: self.config.regularization as f32,
            negatives: kernels::Negatives { popularity_exponent, ..kernels::Negatives::default() },
            seed: self.seed,
            epoch: u64::from(epoch),
            mode: mode(self.config),
        };
        let bias = self.config.item_bias.then_some(&mut self.item_bias[..]);
        let stats = pairwise_epoch(&epoch, &mut self.users, &mut self.items, bias, &mut self.state)?;
        Ok(Some(stats.loss))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let users = copy(&self.users, "copy of the user factors")?;
        let items = copy(&self.items, "copy of the item factors")?;
        let bias = Buffer::from_slice(&self.item_bias, Device::Cpu, "copy of the item biases")?;
        let mut model = Bpr::new(self.config.clone(), users, items, bias)?;
        model.score_on(self.users.device())?;
        Ok(Box::new(model))
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.users, &parameters.take_table("user_factors")?, "user factors")?;
        take_over(&mut self.items, &parameters.take_table("item_factors")?, "item factors")?;
        take_over_bias(&mut self.item_bias, &parameters.take_f32("item_bias")?)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
        let bias = Buffer::from_vec(self.item_bias, "item biases")?;
        let users = on_cpu(self.users, "user factors")?;
        let items = on_cpu(self.items, "item factors")?;
        Ok(Box::new(Bpr::new(self.config.clone(), users, items, bias)?))
    }
}
