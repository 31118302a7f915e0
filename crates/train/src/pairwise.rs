//! How bpr, lmf and warp learn: an epoch holds every interaction against drawn items, which the user does not have
//! unless those are asked for.
//!
//! The kernel cuts users and items into blocks by the data alone and runs disjoint cells in parallel, so that the bits do
//! not depend on the number of threads; with `hogwild` threads race instead. Only interactions of positive value count,
//! each once whatever its value; a dislike is an item that the user does not have.
//!
//! The loss is the mean over the epoch's comparisons, each taken before its own step, without regularization.

use recmill_core::{
    Dataset, Parameters,
    models::{Bpr, BprConfig, Lmf, LmfConfig, Negatives, Optimizer, Retriever, Warp, WarpConfig},
};
use recmill_kernels::{
    self as kernels, Buffer, Device, Mode, OnPositive, PairwiseEpoch, PairwiseLoss, PairwiseState, Table,
    pairwise_epoch, pairwise_epoch_bytes,
};

use crate::{
    Error, Learner, Prediction, Result,
    data::{Sizes, check_liked, sparse_rows},
    factors::{Normal, Stream, copy, on_cpu, take_over, take_over_bias},
    learned::{put_plain, take_plain},
};

/// What these models have in common, by the names of their configurations.
#[derive(Clone, Copy)]
pub(crate) struct Settings {
    factors: usize,
    learning_rate: f64,
    regularization: f64,
    loss: PairwiseLoss,
    per_positive: u32,
    negatives: Negatives,
    negatives_exponent: f64,
    verify_negatives: bool,
    optimizer: Optimizer,
    item_bias: bool,
    hogwild: bool,
    init_scale: f64,
}

/// The configuration of a model that learns from pairs.
pub(crate) trait PairwiseModel {
    fn settings(&self) -> Settings;

    /// Joins what was learnt to a model.
    fn join(&self, users: Table, items: Table, bias: Buffer<f32>) -> Result<Box<dyn Retriever>>;
}

/// [`Settings`] of a configuration, whose fields have the same names.
macro_rules! settings {
    ($config:expr, $loss:expr, $per_positive:expr) => {
        Settings {
            factors: $config.factors,
            learning_rate: $config.learning_rate,
            regularization: $config.regularization,
            loss: $loss,
            per_positive: $per_positive,
            negatives: $config.negatives,
            negatives_exponent: $config.negatives_exponent,
            verify_negatives: $config.verify_negatives,
            optimizer: $config.optimizer,
            item_bias: $config.item_bias,
            hogwild: $config.hogwild,
            init_scale: $config.init_scale,
        }
    };
}

impl PairwiseModel for BprConfig {
    fn settings(&self) -> Settings {
        settings!(self, PairwiseLoss::Bpr, 1)
    }

    fn join(&self, users: Table, items: Table, bias: Buffer<f32>) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Bpr::new(self.clone(), users, items, bias)?))
    }
}

impl PairwiseModel for LmfConfig {
    fn settings(&self) -> Settings {
        settings!(self, PairwiseLoss::Logistic, self.negatives_per_positive as u32)
    }

    fn join(&self, users: Table, items: Table, bias: Buffer<f32>) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Lmf::new(self.clone(), users, items, bias)?))
    }
}

impl PairwiseModel for WarpConfig {
    fn settings(&self) -> Settings {
        settings!(self, PairwiseLoss::Warp { max_draws: self.max_draws as u32 }, 1)
    }

    fn join(&self, users: Table, items: Table, bias: Buffer<f32>) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Warp::new(self.clone(), users, items, bias)?))
    }
}

impl Settings {
    fn mode(&self) -> Mode {
        if self.hogwild { Mode::Hogwild } else { Mode::Deterministic }
    }

    fn optimizer(&self) -> kernels::Optimizer {
        match self.optimizer {
            Optimizer::Sgd => kernels::Optimizer::Sgd,
            Optimizer::Adagrad => kernels::Optimizer::Adagrad,
        }
    }

    fn negatives(&self) -> kernels::Negatives {
        let popularity_exponent = match self.negatives {
            Negatives::Uniform => 0.0,
            Negatives::Popularity => self.negatives_exponent as f32,
        };
        let on_positive = if self.verify_negatives { OnPositive::Redraw } else { OnPositive::Keep };
        kernels::Negatives { popularity_exponent, per_positive: self.per_positive, on_positive }
    }
}

/// Factors of users and items, item biases, and the interactions they are learnt from.
pub(crate) struct PairwiseLearner<'a> {
    model: &'a dyn PairwiseModel,
    settings: Settings,
    data: &'a Dataset,
    seed: u64,
    users: Table,
    items: Table,
    item_bias: Vec<f32>,
    state: PairwiseState,
}

impl<'a> PairwiseLearner<'a> {
    pub(crate) fn new(
        model: &'a dyn PairwiseModel,
        data: &'a Dataset,
        seed: u64,
        device: Device,
    ) -> Result<Self> {
        check_liked(data)?;
        let settings = model.settings();
        let (dim, scale) = (settings.factors, settings.init_scale);
        let draw = |rows, stream, what| Normal { rows, dim, scale, seed, stream }.on(device, what);
        Ok(Self {
            users: draw(data.n_users(), Stream::UserFactors, "user factors")?,
            items: draw(data.n_items(), Stream::ItemFactors, "item factors")?,
            item_bias: vec![0.0; data.n_items()],
            state: PairwiseState::new(settings.optimizer(), data.n_users(), data.n_items()),
            model,
            settings,
            data,
            seed,
        })
    }

    /// Returns the bytes of everything that [`PairwiseLearner`] allocates.
    pub(crate) fn predict(model: &dyn PairwiseModel, sizes: &Sizes) -> Prediction {
        let settings = model.settings();
        let row = 4 * settings.factors as u64;
        let (n_users, n_items) = (sizes.n_users, sizes.n_items);
        let epoch = pairwise_epoch_bytes(settings.mode(), n_users, n_items, sizes.n_interactions);
        let state = if settings.optimizer == Optimizer::Adagrad { 4 * (n_users + 2 * n_items) } else { 0 };
        Prediction::default()
            .add("user factors", n_users * row)
            .add("item factors", n_items * (row + 4))
            .add("copies of the factors", sizes.copies() * (n_users + n_items) * row)
            .add("the optimizer's state", state)
            .add("the order of an epoch", epoch)
    }

    /// Returns the bytes of it that are on a GPU, where one computes.
    pub(crate) fn predict_on_gpu(model: &dyn PairwiseModel, sizes: &Sizes) -> Prediction {
        let row = 4 * model.settings().factors as u64;
        let (n_users, n_items) = (sizes.n_users, sizes.n_items);
        Prediction::default()
            .add("user factors", n_users * row)
            .add("item factors", n_items * row)
            .add("the rows of a round", (n_users + n_items) * row)
            .add("the order of an epoch", 16 * sizes.n_interactions + 8 * n_users + 24 * n_items)
    }
}

impl Learner for PairwiseLearner<'_> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        let settings = &self.settings;
        let walk = PairwiseEpoch {
            rows: sparse_rows(self.data.by_user()),
            loss: settings.loss,
            optimizer: settings.optimizer(),
            learning_rate: settings.learning_rate as f32,
            regularization: settings.regularization as f32,
            bias_regularization: settings.regularization as f32,
            negatives: settings.negatives(),
            seed: self.seed,
            epoch: u64::from(epoch),
            mode: settings.mode(),
        };
        let bias = settings.item_bias.then_some(&mut self.item_bias[..]);
        let stats = pairwise_epoch(&walk, &mut self.users, &mut self.items, bias, &mut self.state);
        let stats = stats.map_err(|error| Error::from(error).diverged_in(epoch))?;
        Ok(Some(stats.loss))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let users = copy(&self.users, "copy of the user factors")?;
        let items = copy(&self.items, "copy of the item factors")?;
        let bias = Buffer::from_slice(&self.item_bias, Device::Cpu, "copy of the item biases")?;
        let mut model = self.model.join(users, items, bias)?;
        model.score_on(self.users.device())?;
        Ok(model)
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.users, &parameters.take_table("user_factors")?, "user factors")?;
        take_over(&mut self.items, &parameters.take_table("item_factors")?, "item factors")?;
        take_over_bias(&mut self.item_bias, &parameters.take_f32("item_bias")?)
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_plain(
            [("users", &mut self.users), ("items", &mut self.items)],
            [
                ("item_bias", &mut self.item_bias),
                ("user_sums", &mut self.state.rows),
                ("item_sums", &mut self.state.columns),
                ("bias_sums", &mut self.state.biases),
            ],
        )
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_plain(
            state,
            [("users", &mut self.users), ("items", &mut self.items)],
            [
                ("item_bias", &mut self.item_bias),
                ("user_sums", &mut self.state.rows),
                ("item_sums", &mut self.state.columns),
                ("bias_sums", &mut self.state.biases),
            ],
        )
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
        let bias = Buffer::from_vec(self.item_bias, "item biases")?;
        let users = on_cpu(self.users, "user factors")?;
        let items = on_cpu(self.items, "item factors")?;
        self.model.join(users, items, bias)
    }
}
