//! From a configuration and data to a trained model: the one entrance for every model.

use std::sync::atomic::AtomicBool;

use recmill_core::{
    Dataset, Parameters, dense::guarded, features::Described, models::ModelConfig, rankers::EmbeddingTables,
};
use recmill_kernels::{Device, TOPK_BYTES_ON_GPU, Table};

use crate::{
    EpochCheckpoints, Error, FitOptions, Learner, Plan, Prediction, Progress, Result, Trained, Validation,
    als::AlsLearner,
    data::Sizes,
    ease::EaseLearner,
    epoch_checkpoint::EpochWriter,
    fit::{Begun, Course, go_on},
    gradient::{Checkpoint, Position},
    item_knn::ItemKnnLearner,
    memory::MemoryPlan,
    mf,
    most_popular::MostPopularLearner,
    neumf,
    pairwise::PairwiseLearner,
    sequences,
    svd::SvdLearner,
    two_tower,
};

/// One training: what of, what from, and how to decide when it is done.
pub struct Training<'a> {
    /// The model and its hyper-parameters.
    pub config: &'a ModelConfig,
    /// What it learns from.
    pub data: &'a Dataset,
    /// The parameters of an earlier model of the same kind, whose users and items are the first of `data`.
    ///
    /// Models in closed form ignore it: they are computed anew from all the data.
    pub start: Option<Parameters>,
    /// What is known of the users besides, for models that learn from it: two-tower.
    pub users: Option<&'a Described>,
    /// What is known of the items besides.
    pub items: Option<&'a Described>,
    /// Where the parameters are trained.
    pub device: Device,
    /// The source of every random number.
    pub seed: u64,
    /// With validation: stop after so many epochs in a row that did not improve the metric.
    pub patience: Option<u32>,
    /// Whether to compute the loss of each epoch where that takes a pass of its own.
    pub loss: bool,
    /// Where checkpoints are written, if they are; models that learn in one pass write none.
    pub checkpoints: Option<&'a EpochCheckpoints<'a>>,
    /// The checkpoint to go on from, of the same configuration, data and seed; more `iterations` are allowed.
    pub resume: Option<&'a Checkpoint>,
}

impl<'a> Training<'a> {
    /// Describes the training of `config` on `data` on the CPU with seed 0, all epochs, and the loss of each.
    pub fn new(config: &'a ModelConfig, data: &'a Dataset) -> Self {
        Self {
            config,
            data,
            start: None,
            users: None,
            items: None,
            device: Device::Cpu,
            seed: 0,
            patience: None,
            loss: true,
            checkpoints: None,
            resume: None,
        }
    }

    /// Returns what is known before training: its size, and the memory it will take beside what there is.
    pub fn plan(&self, validated: bool) -> Plan {
        let table_rows = |described: &&Described| EmbeddingTables::rows(described.features());
        let described_rows = self.users.iter().chain(&self.items).map(table_rows).sum();
        let described_columns = [self.users, self.items].map(|described| {
            let features = described.map(Described::features);
            features.map_or((0, 0), |of| (of.fields().len(), of.numeric().len()))
        });
        let sizes = Sizes { described_rows, described_columns, ..Sizes::new(self.data, validated) };
        Plan {
            model: self.config.name(),
            epochs: epochs(self.config),
            n_interactions: sizes.n_interactions,
            n_users: sizes.n_users,
            n_items: sizes.n_items,
            memory: MemoryPlan::new(
                self.config.name(),
                self.predict_on_host(&sizes),
                self.device,
                self.predict_on_device(&sizes).filter(|_| self.device != Device::Cpu),
            ),
        }
    }

    /// Trains the model; validates each epoch by `validation`, ends after the epoch in which `stop` is set.
    ///
    /// # Errors
    /// [`Error::Core`] when the configuration is not valid; [`Error::NoData`]; [`Error::TooLarge`] before anything
    /// large is allocated; [`Error::Value`], [`Error::Start`], [`Error::Resume`], and as [`crate::fit`].
    ///
    /// # Determinism
    /// The same configuration, data, start and seed give the same bytes, whatever the number of threads; a model whose
    /// configuration asks for races is the one exception. A training that goes on from a checkpoint ends as one that was not interrupted.
    pub fn run(
        self,
        validation: Option<&mut dyn Validation>,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<Trained> {
        self.config.validate()?;
        let nothing = [
            ("users", self.data.n_users()),
            ("items", self.data.n_items()),
            ("interactions", self.data.by_user().nnz()),
        ];
        if let Some(&(what, _)) = nothing.iter().find(|(_, n)| *n == 0) {
            return Err(Error::NoData { what });
        }
        guarded(self.device, "training", || self.learn(validation, stop, progress))
    }

    fn learn(
        self,
        validation: Option<&mut dyn Validation>,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<Trained> {
        self.check_tables()?;
        let plan = self.plan(validation.is_some());
        progress.planned(&plan);
        plan.memory.check()?;
        let mut learner = self.learner(plan.memory.part_on_device(KEPT))?;
        let begun = (self.checkpoints.is_some() || self.resume.is_some())
            .then(|| Position::of_epochs(&self, validation.as_deref()));
        if let Some(start) = self.start {
            learner.restore(start)?;
        }
        let options = FitOptions { epochs: plan.epochs, patience: self.patience, loss: self.loss };
        let mut course = Course { options: &options, begun: Begun::default(), writer: None };
        if let Some(begun) = begun {
            if let Some(checkpoint) = self.resume {
                let (config, epochs) = (self.config, plan.epochs);
                course.begun = checkpoint.resume_epochs(&mut *learner, config, self.data, &begun, epochs)?;
            }
            course.writer = self.checkpoints.map(|to| EpochWriter::new(to, begun)).transpose()?;
        }
        go_on(learner, course, validation, stop, progress)
    }

    /// Returns what training takes of main memory: on a GPU not what each thread of the processor computes in.
    fn predict_on_host(&self, sizes: &Sizes) -> Prediction {
        let all = predict(self.config, sizes);
        if self.device == Device::Cpu { all } else { all.without(&["scratch"]) }
    }

    /// Returns what training takes of a GPU's memory, for models that learn there.
    fn predict_on_device(&self, sizes: &Sizes) -> Option<Prediction> {
        let learned = predict_on_gpu(self.config, sizes)?;
        let Some(factors) = factors_of_lists(self.config) else { return Some(learned) };
        let copy = |rows| Table::bound_copy_bytes(rows, factors, self.device).unwrap_or(0);
        // What is read by index: of als both sides in turn, of lists the items.
        let bound = match self.config {
            ModelConfig::Als(_) => copy(sizes.n_users).max(copy(sizes.n_items)),
            _ if sizes.validated => copy(sizes.n_items),
            _ => 0,
        };
        let lists = 4 * sizes.n_items * factors as u64 + TOPK_BYTES_ON_GPU;
        let lists = if sizes.validated { lists } else { 0 };
        let needed = learned
            .add("lists to validate with", lists)
            .add("a table in chunks that are bound at once", bound);
        let kept = self.keeps_on_device(sizes, &needed);
        Some(needed.add(KEPT, kept))
    }

    /// Returns the bytes of what als keeps on a GPU from one iteration to the next, beside what it needs there: all
    /// interactions, or nothing where they do not fit.
    fn keeps_on_device(&self, sizes: &Sizes, needed: &Prediction) -> u64 {
        let ModelConfig::Als(config) = self.config else { return 0 };
        let kept = AlsLearner::kept_bytes(config, sizes).iter().sum::<u64>();
        let free = recmill_kernels::memory::available(self.device);
        if needed.bytes().saturating_add(kept) <= free { kept } else { 0 }
    }

    /// Refuses tables that kernels on the device cannot read by index.
    fn check_tables(&self) -> Result<()> {
        let Some(factors) = factors_of_lists(self.config) else { return Ok(()) };
        let users = if matches!(self.config, ModelConfig::Als(_)) { self.data.n_users() } else { 0 };
        for rows in [self.data.n_items(), users] {
            Table::bound_copy_bytes(rows as u64, factors, self.device)?;
        }
        Ok(())
    }

    /// Makes what learns; it may keep as many bytes of interactions on the device.
    fn learner(&self, keep: u64) -> Result<Box<dyn Learner + 'a>> {
        let (data, seed, device) = (self.data, self.seed, self.device);
        if device != Device::Cpu && !trains_on_gpu(self.config) {
            return Err(recmill_kernels::Error::NotOnDevice { op: self.config.name(), device }.into());
        }
        Ok(match self.config {
            ModelConfig::Als(config) => Box::new(AlsLearner::new(config, data, seed, device, keep)?),
            ModelConfig::Bpr(config) => Box::new(PairwiseLearner::new(config, data, seed, device)?),
            ModelConfig::Lmf(config) => Box::new(PairwiseLearner::new(config, data, seed, device)?),
            ModelConfig::Warp(config) => Box::new(PairwiseLearner::new(config, data, seed, device)?),
            ModelConfig::Mf(config) => mf::learner(config, data, seed, device)?,
            ModelConfig::NeuMf(config) => neumf::learner(config, data, seed, device)?,
            ModelConfig::ItemKnn(config) => Box::new(ItemKnnLearner::new(config, data, device)),
            ModelConfig::Ease(config) => Box::new(EaseLearner::new(config, data)?),
            ModelConfig::MostPopular(config) => Box::new(MostPopularLearner::new(config, data)),
            ModelConfig::Svd(config) => Box::new(SvdLearner::new(config, data, seed)?),
            ModelConfig::SasRec(config) => sequences::learner(config, data, seed, device)?,
            ModelConfig::Gru4Rec(config) => sequences::learner(config, data, seed, device)?,
            ModelConfig::TwoTower(config) => {
                two_tower::learner(config, data, [self.users, self.items], seed, device)?
            }
        })
    }
}

/// What als keeps on a GPU from one iteration to the next.
const KEPT: &str = "interactions that stay there";

/// Returns the length of the vectors that lists are made of on a GPU; nothing where they are on the CPU.
fn factors_of_lists(config: &ModelConfig) -> Option<usize> {
    match config {
        ModelConfig::Als(config) => Some(config.factors),
        ModelConfig::Bpr(config) => Some(config.factors),
        ModelConfig::Lmf(config) => Some(config.factors),
        ModelConfig::Warp(config) => Some(config.factors),
        ModelConfig::Mf(config) => Some(config.factors),
        ModelConfig::SasRec(config) => Some(config.factors),
        ModelConfig::Gru4Rec(config) => Some(config.factors),
        ModelConfig::TwoTower(config) => Some(config.factors),
        _ => None,
    }
}

/// Returns the bytes that training `config` on data of these sizes will allocate, part by part.
pub fn predict(config: &ModelConfig, sizes: &Sizes) -> Prediction {
    match config {
        ModelConfig::Als(config) => AlsLearner::predict(config, sizes),
        ModelConfig::Bpr(config) => PairwiseLearner::predict(config, sizes),
        ModelConfig::Lmf(config) => PairwiseLearner::predict(config, sizes),
        ModelConfig::Warp(config) => PairwiseLearner::predict(config, sizes),
        ModelConfig::Mf(config) => mf::predict(config, sizes),
        ModelConfig::NeuMf(config) => neumf::predict(config, sizes),
        ModelConfig::ItemKnn(config) => ItemKnnLearner::predict(config, sizes),
        ModelConfig::Ease(_) => EaseLearner::predict(sizes),
        ModelConfig::MostPopular(_) => MostPopularLearner::predict(sizes),
        ModelConfig::Svd(config) => SvdLearner::predict(config, sizes),
        ModelConfig::SasRec(config) => sequences::predict(config, sizes),
        ModelConfig::Gru4Rec(config) => sequences::predict(config, sizes),
        ModelConfig::TwoTower(config) => two_tower::predict(config, sizes),
    }
}

/// Returns whether the model has a way of learning on a GPU.
pub fn trains_on_gpu(config: &ModelConfig) -> bool {
    use ModelConfig::{Als, Bpr, Gru4Rec, ItemKnn, Lmf, Mf, NeuMf, SasRec, TwoTower, Warp};
    matches!(
        config,
        Als(_)
            | Bpr(_)
            | Lmf(_)
            | Warp(_)
            | Mf(_)
            | NeuMf(_)
            | ItemKnn(_)
            | SasRec(_)
            | Gru4Rec(_)
            | TwoTower(_)
    )
}

/// Returns the bytes that training allocates on a GPU, for models that learn there.
fn predict_on_gpu(config: &ModelConfig, sizes: &Sizes) -> Option<Prediction> {
    match config {
        ModelConfig::Als(config) => Some(AlsLearner::predict_on_gpu(config, sizes)),
        ModelConfig::Bpr(config) => Some(PairwiseLearner::predict_on_gpu(config, sizes)),
        ModelConfig::Lmf(config) => Some(PairwiseLearner::predict_on_gpu(config, sizes)),
        ModelConfig::Warp(config) => Some(PairwiseLearner::predict_on_gpu(config, sizes)),
        ModelConfig::Mf(config) => Some(mf::predict_on_gpu(config, sizes)),
        ModelConfig::NeuMf(config) => Some(neumf::predict_on_gpu(config, sizes)),
        ModelConfig::ItemKnn(_) => Some(ItemKnnLearner::predict_on_gpu(sizes)),
        ModelConfig::SasRec(config) => Some(sequences::predict_on_gpu(config, sizes)),
        ModelConfig::Gru4Rec(config) => Some(sequences::predict_on_gpu(config, sizes)),
        ModelConfig::TwoTower(config) => Some(two_tower::predict_on_gpu(config, sizes)),
        _ => None,
    }
}

/// Returns how often the configuration goes through the data; models in closed form do it once.
fn epochs(config: &ModelConfig) -> u32 {
    let iterations = match config {
        ModelConfig::Als(config) => config.iterations,
        ModelConfig::Bpr(config) => config.iterations,
        ModelConfig::Lmf(config) => config.iterations,
        ModelConfig::Warp(config) => config.iterations,
        ModelConfig::Svd(config) => config.iterations,
        ModelConfig::Mf(config) => config.iterations,
        ModelConfig::NeuMf(config) => config.iterations,
        ModelConfig::SasRec(config) => config.iterations,
        ModelConfig::Gru4Rec(config) => config.iterations,
        ModelConfig::TwoTower(config) => config.iterations,
        ModelConfig::ItemKnn(_) | ModelConfig::Ease(_) | ModelConfig::MostPopular(_) => 1,
    };
    u32::try_from(iterations).unwrap_or(u32::MAX)
}
