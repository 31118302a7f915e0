//! The training of a ranker: what it is given, on how many ranks, and what comes out.
//!
//! A [`RankTraining`] says what is trained of what; `rank_learner.rs` takes the steps.

use std::sync::atomic::AtomicBool;

use burn::{backend::Autodiff, module::AutodiffModule};
use recmill_core::{
    Parameters,
    dense::{Cpu, DeviceBackend, guarded, load_parameters, put_parameters},
    features::{Examples, Features},
    rankers::{AnyNetwork, EmbeddingTables, LearningConfig, Network, Ranker, RankerConfig, Shape, TableDims},
};
use recmill_kernels::{Device, Table};

use super::{
    checkpoint::{Checkpoint, CheckpointOptions, Fingerprints},
    collective::{Alone, Collective, ThreadRank},
    descend::{Checkpoints, Descent, DescentOptions, descend},
    rank_learner::{RankLearner, RankTask},
    rank_memory::rank_memory,
    shards::gather_shards,
};
use crate::{Error, Progress, Result};

/// Rows of a set of examples; all of them where none are listed.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    /// The examples.
    pub examples: &'a Examples,
    /// Which of them.
    pub rows: Option<&'a [u64]>,
}

impl Rows<'_> {
    /// Returns how many rows there are.
    pub fn len(&self) -> u64 {
        self.rows.map_or(self.examples.len(), <[u64]>::len) as u64
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the row of the examples that is sample `sample`.
    pub(super) fn row(&self, sample: u64) -> u64 {
        self.rows.map_or(sample, |rows| rows[sample as usize])
    }
}

/// One training of a ranker.
pub struct RankTraining<'a> {
    /// How it learns.
    pub learning: &'a LearningConfig,
    /// How rows became features.
    pub features: &'a Features,
    /// What it learns from.
    pub train: Rows<'a>,
    /// What it is measured on after each epoch.
    pub valid: Option<Rows<'a>>,
    /// The source of every random number.
    pub seed: u64,
    /// The metric that decides which epoch is kept.
    pub metric: &'a str,
    /// Stop after so many epochs in a row that did not improve the metric.
    pub patience: Option<u32>,
    /// Threads that make batches ready.
    pub loader_threads: usize,
    /// Where tables and network are while they learn; several ranks learn on the CPU.
    pub device: Device,
    /// Where checkpoints are written, if any are.
    pub checkpoints: Option<&'a CheckpointOptions>,
    /// The checkpoint to go on from.
    pub resume: Option<&'a Checkpoint>,
}

/// A network and its tables after training, and how it came about.
pub struct TrainedNetwork<N> {
    /// The network.
    pub network: N,
    /// The embedding tables.
    pub tables: EmbeddingTables,
    /// Epochs and what was kept.
    pub descent: Descent,
}

impl<'a> RankTraining<'a> {
    /// Describes a training on all of `examples` with seed 0, all epochs, and no validation.
    pub fn new(learning: &'a LearningConfig, features: &'a Features, examples: &'a Examples) -> Self {
        Self {
            learning,
            features,
            train: Rows { examples, rows: None },
            valid: None,
            seed: 0,
            metric: "auc",
            patience: None,
            loader_threads: 1,
            device: Device::Cpu,
            checkpoints: None,
            resume: None,
        }
    }

    /// Trains the network of `config`, with the same first values on every device.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TooLargeForDevice`] before anything large is allocated; as [`RankTraining::run_network`].
    pub fn run(
        &self,
        config: &RankerConfig,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<(Ranker, Descent)> {
        rank_memory(config, self.features, self.valid.is_some(), self.device).check()?;
        guarded(
            self.device,
            "training",
            || on_backend!(self.device, B => self.run_on::<B>(config, stop, progress)),
        )
    }

    fn run_on<B: DeviceBackend>(
        &self,
        config: &RankerConfig,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<(Ranker, Descent)> {
        let shape = Shape::of(self.features);
        let device = B::device(self.device)?;
        let network = AnyNetwork::<Autodiff<B>>::new(&config.model, &shape, self.seed, &device);
        let dims = config.model.tables(&shape);
        let trained = self.run_network::<B, _>(network, dims, stop, progress)?;
        let mut parameters = Parameters::default();
        put_parameters(&trained.network, &mut parameters)?;
        let network = AnyNetwork::<Cpu>::new(&config.model, &shape, self.seed, &Default::default());
        let network = load_parameters(network, &mut parameters)?;
        let ranker = Ranker::new(config.clone(), self.features.clone(), trained.tables, network);
        Ok((ranker, trained.descent))
    }

    /// As [`RankTraining::run`], by so many threads that share each batch and the rows of the tables, as several devices would.
    ///
    /// # Errors
    /// As [`RankTraining::run_network`].
    pub fn run_on_threads(
        &self,
        config: &RankerConfig,
        n_ranks: usize,
        stop: &AtomicBool,
        progress: &mut (dyn Progress + Send),
    ) -> Result<(Ranker, Descent)> {
        let shape = Shape::of(self.features);
        let dims = config.model.tables(&shape);
        let run = |ranks: ThreadRank, progress: &mut dyn Progress| {
            let network =
                AnyNetwork::<Autodiff<Cpu>>::new(&config.model, &shape, self.seed, &Default::default());
            self.run_network_as::<Cpu, _>(&ranks, network, dims, stop, progress)
        };
        let mut first = Some(progress);
        let ended = std::thread::scope(|scope| {
            let threads: Vec<_> = ThreadRank::connected(n_ranks.max(1))
                .into_iter()
                .map(|rank| {
                    let progress = first.take();
                    scope.spawn(move || match progress {
                        Some(progress) => run(rank, progress),
                        None => run(rank, &mut ()),
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join()).collect::<Vec<_>>()
        });
        let mut trained = None;
        let mut lost = None;
        for ended in ended {
            match ended {
                Ok(Ok(network)) => trained = trained.or(Some(network)),
                // Who is left alone knows less than who left.
                Ok(Err(error @ Error::RankLost { .. })) => lost = Some(error),
                Ok(Err(error)) => return Err(error),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        match (trained, lost) {
            (Some(trained), None) => {
                let features = self.features.clone();
                let ranker = Ranker::new(config.clone(), features, trained.tables, trained.network);
                Ok((ranker, trained.descent))
            }
            (_, Some(error)) => Err(error),
            (None, None) => Err(Error::RankLost { rank: 0 }),
        }
    }

    /// Returns hashes of what is learned from and validated on, where a checkpoint asks for them: they cost a pass over all rows.
    fn fingerprints(&self) -> Fingerprints {
        match (self.checkpoints, self.resume) {
            (None, None) => Fingerprints::default(),
            _ => Fingerprints {
                data: self.train.examples.fingerprint(self.train.rows),
                valid: self.valid.map_or_else(String::new, |valid| valid.examples.fingerprint(valid.rows)),
            },
        }
    }

    /// Trains any network, such as one of the caller's own, over tables of these dimensions.
    ///
    /// # Errors
    /// [`Error::NoData`]; [`Error::NotFiniteLoss`] with the step, the rows and the last checkpoint; [`Error::UnknownMetric`];
    /// [`Error::Resume`], [`Error::Core`] for a checkpoint of another training; [`Error::Core`] when one cannot be written;
    /// [`Error::Kernel`] when there is no memory.
    ///
    /// # Determinism
    /// The same bits for the same seed and data on one device, whatever the loader's threads, resumed or not.
    pub fn run_network<B: DeviceBackend, N>(
        &self,
        network: N,
        dims: TableDims,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<TrainedNetwork<N::InnerModule>>
    where
        N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
        N::InnerModule: Network<B>,
    {
        self.run_network_as(&Alone, network, dims, stop, progress)
    }

    /// As [`RankTraining::run_network`], as one rank of several that share each batch and the rows of the tables.
    ///
    /// Every rank is given the same training and begins with the same network. Rank 0 decides when to stop, writes the
    /// checkpoints, and is returned the whole tables; the others are returned the rows that they hold.
    ///
    /// # Errors
    /// As [`RankTraining::run_network`]; [`Error::RankLost`] when another rank has failed.
    ///
    /// # Determinism
    /// The same bits for as many ranks; close to that for another number, by which sums are added in another order.
    pub fn run_network_as<B: DeviceBackend, N>(
        &self,
        ranks: &dyn Collective,
        network: N,
        dims: TableDims,
        stop: &AtomicBool,
        progress: &mut dyn Progress,
    ) -> Result<TrainedNetwork<N::InnerModule>>
    where
        N: Network<Autodiff<B>> + AutodiffModule<Autodiff<B>>,
        N::InnerModule: Network<B>,
    {
        if self.train.is_empty() {
            return Err(Error::NoData { what: "rows" });
        }
        if ranks.size() > 1 && self.device != Device::Cpu {
            let op = "a training by several ranks";
            return Err(recmill_kernels::Error::NotOnDevice { op, device: self.device }.into());
        }
        let task = RankTask { train: self.train };
        let mut learner = RankLearner::<B, N>::new(self, network, dims, ranks)?;
        let options = DescentOptions {
            epochs: self.learning.epochs as u32,
            batch_size: self.learning.batch_size,
            seed: self.seed,
            metric: self.metric.to_owned(),
            patience: self.patience,
            loader_threads: self.loader_threads,
        };
        let checkpoints = Checkpoints {
            write: self.checkpoints.map(|options| (options, self.features)),
            resume: self.resume,
            of: self.fingerprints(),
        };
        let descent = descend(&task, &mut learner, &options, checkpoints, ranks, stop, progress)?;
        B::check_answers(self.device)?;
        let mut tables = learner.tables;
        for table in [&mut tables.embedding, &mut tables.first_order] {
            let what = "an embedding table";
            // A device may have had another type than was asked for: see `copy_to`.
            let row_type = self.learning.table_precision.row_type();
            let gather = |shard: Table| -> Result<Table> {
                let table = gather_shards(shard.moved_to(Device::Cpu, what)?, ranks, what)?;
                Ok(if table.row_type() == row_type { table } else { table.to_row_type(row_type, what)? })
            };
            *table = table.take().map(gather).transpose()?;
        }
        Ok(TrainedNetwork { network: learner.network.valid(), tables, descent })
    }
}
