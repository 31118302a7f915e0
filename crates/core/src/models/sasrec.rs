//! SASRec: what a user did, in order, through self-attention to a vector that is compared with every item's.
//!
//! Each position of a history becomes its item's vector and its place's; blocks of causal self-attention and a feed-forward network turn
//! them into a state `h` that knows everything up to there, and `h · y_i` says how well item `i` comes next:
//!
//! ```text
//! x_t = √d y_(item t) + p_t
//! x ← x + Dropout(W_o attend(W_qkv LN(x)))          each block: normalized before, so that depth does not hurt
//! x ← x + Dropout(W_2 max(0, W_1 LN(x)))
//! h_t = LN(x_t)         score of item i after t = h_t · y_i
//! ```
//!
//! It learns to tell, at each position, the item that came next from others:
//!
//! ```text
//! softmax           ln Σ_c exp(h · y_c) - h · y_next                      c: all items
//! sampled-softmax   the same, c: the items that are right somewhere in the batch, and `n_negatives` drawn ones; h · y_c - ln q_c
//! bce               ln(1 + exp(-h · y_next)) + Σ_c ln(1 + exp(h · y_c)) / |c|        c: `n_negatives` drawn ones
//! gbce              as bce, the first term times β                        β = α (t (1 - 1/α) + 1/α),  α = |c| / n_items
//! ```
//!
//! `ln q_c` corrects for how likely an item is to be among the candidates; what the user has had is no negative for them, with no loss.
//!
//! There is nothing of a user in the model: everybody is answered from their history, also who came after training, and the newest event
//! counts at once. Histories have no padding: a batch costs the positions that it has. Longer histories than `max_length` are learned
//! from in windows, and answered from their newest part.
//!
//! Source: Kang, McAuley 2018, "Self-attentive sequential recommendation"; Petrov, Macdonald 2023 (gSASRec) for gbce.

mod network;

pub use network::{SasRecNetwork, SequenceRows};

use burn::{module::Module, tensor::Tensor};
use recmill_kernels::{Buffer, CandidateLoss, Device, Table};
use serde::{Deserialize, Serialize};

use super::{Negatives, Precision, Problems, Retriever, factors::FactorItems};
use crate::{
    Batch, Error, ItemIndex, Parameter, Parameters, Query, Result, Workspace,
    dense::{Cpu, Initial, buffer_of, load_parameters, matrix_of, put_parameters},
};

/// What each position learns to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SequenceLoss {
    /// The next item from all others.
    Softmax,
    /// The next item from those of the batch and some that are drawn.
    SampledSoftmax,
    /// The next item, and some that are drawn, each by itself.
    Bce,
    /// As bce, corrected for how few are drawn.
    Gbce,
}

impl SequenceLoss {
    fn name(self) -> &'static str {
        match self {
            Self::Softmax => "softmax",
            Self::SampledSoftmax => "sampled-softmax",
            Self::Bce => "bce",
            Self::Gbce => "gbce",
        }
    }
}

/// Hyper-parameters of [`SasRec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct SasRecConfig {
    /// Length of an item's vector and of a position's state.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Blocks of attention and feed-forward network; 1 to 4 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().layers))]
    pub layers: usize,
    /// Heads of attention, which share the factors evenly.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().heads))]
    pub heads: usize,
    /// Hidden values of each feed-forward network.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().feed_forward))]
    pub feed_forward: usize,
    /// Events of a history that are looked at, the newest ones; time grows with its square where histories are as long.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().max_length))]
    pub max_length: usize,
    /// What each position learns to tell apart. softmax costs time in proportion to the catalogue, the others do not.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().loss))]
    pub loss: SequenceLoss,
    /// Items that are drawn for each batch, which all its positions share; not with --loss softmax.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().n_negatives))]
    pub n_negatives: usize,
    /// How they are drawn.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().negatives))]
    pub negatives: Negatives,
    /// Power of an item's interactions, with --negatives popularity. 0 is uniform, 1 in proportion.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().negatives_exponent))]
    pub negatives_exponent: f64,
    /// How far gbce corrects: 0 is bce, 1 makes scores calibrated over the whole catalogue.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().gbce_calibration))]
    pub gbce_calibration: f64,
    /// Share of values that are dropped in training. Small data want much: try 0.2 to 0.6.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Step size of Adam.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// Histories, or windows of long ones, a step.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Epochs at most: each visits every event once.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// Deviation of the numbers of items' vectors before training, times sqrt(factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type in which the items' vectors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for SasRecConfig {
    fn default() -> Self {
        Self {
            factors: 64,
            layers: 2,
            heads: 1,
            feed_forward: 64,
            max_length: 50,
            loss: SequenceLoss::SampledSoftmax,
            n_negatives: 2048,
            negatives: Negatives::Uniform,
            negatives_exponent: 0.75,
            gbce_calibration: 0.75,
            dropout: 0.5,
            learning_rate: 0.001,
            batch_size: 128,
            iterations: 100,
            init_scale: 0.16,
            precision: Precision::F32,
        }
    }
}

impl SasRecConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("sasrec");
        problems.dimension("factors", self.factors);
        if self.layers > 64 {
            problems.add("layers", "at most 64", self.layers);
        }
        if self.heads == 0 || !self.factors.is_multiple_of(self.heads) {
            problems.add("heads", "a divisor of factors", self.heads);
        }
        problems.dimension("feed_forward", self.feed_forward);
        problems.dimension("max_length", self.max_length);
        problems.dimension("n_negatives", self.n_negatives);
        problems.not_negative("negatives_exponent", self.negatives_exponent);
        if !(0.0..=1.0).contains(&self.gbce_calibration) {
            problems.add("gbce_calibration", "from 0 to 1", self.gbce_calibration);
        }
        problems.share("dropout", self.dropout);
        problems.positive("learning_rate", self.learning_rate);
        problems.at_least_one("batch_size", self.batch_size);
        problems.at_least_one("iterations", self.iterations);
        problems.positive("init_scale", self.init_scale);
        problems.finish()
    }

    /// Returns what the kernels compute for a catalogue of `n_items`, of which `drawn` are negatives.
    pub fn candidate_loss(&self, drawn: usize, n_items: usize) -> CandidateLoss {
        let negative = 1.0 / drawn.max(1) as f32;
        match self.loss {
            SequenceLoss::Softmax | SequenceLoss::SampledSoftmax => CandidateLoss::Softmax,
            SequenceLoss::Bce => CandidateLoss::Logistic { positive: 1.0, negative },
            SequenceLoss::Gbce => {
                let alpha = (drawn as f64 / (n_items.max(2) - 1) as f64).min(1.0);
                let beta = alpha * (self.gbce_calibration * (1.0 - 1.0 / alpha) + 1.0 / alpha);
                CandidateLoss::Logistic { positive: beta as f32, negative }
            }
        }
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let loss = match self.loss {
            SequenceLoss::Softmax => "ln sum over all items c of exp(h . y_c) - h . y_next".to_owned(),
            SequenceLoss::SampledSoftmax => format!(
                "ln sum over the batch's items and {} drawn ones c of exp(h . y_c - ln q_c) - h . y_next + ln q_next",
                self.n_negatives
            ),
            loss => format!(
                "{}ln(1 + exp(-h . y_next)) + mean over {} drawn items c of ln(1 + exp(h . y_c))",
                if loss == SequenceLoss::Gbce { "beta * " } else { "" },
                self.n_negatives
            ),
        };
        format!(
            "minimise the mean over positions of {loss}; loss = {}, {} layers, {} heads, max_length = {}, dropout = {}",
            self.loss.name(),
            self.layers,
            self.heads,
            self.max_length,
            self.dropout
        )
    }
}

/// A network over the vectors of items.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, Workspace, models::{Retriever, SasRec, SasRecConfig}};
/// use recmill_kernels::{Device, Table};
///
/// // Without a block, the state is the last item's vector and its place's, normalized.
/// let config = SasRecConfig { factors: 2, layers: 0, ..SasRecConfig::default() };
/// let items = Table::from_f32(&[10.0, -10.0, -10.0, 10.0, 3.0, -3.0], 2, Device::Cpu, "items")?;
/// let model = SasRec::new(config.clone(), items, config.network(0))?;
///
/// let rows = vec![Row::new(Query::History(vec![(ItemIndex(1), 1.0), (ItemIndex(2), 1.0)]), 1)];
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows }, &mut workspace)?;
/// assert_eq!(workspace.answer(0).0, [ItemIndex(0)]);
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct SasRec {
    config: SasRecConfig,
    network: SasRecNetwork<Cpu>,
    items: FactorItems,
}

impl SasRecConfig {
    /// Makes the network with its first values, on the CPU.
    pub fn network(&self, seed: u64) -> SasRecNetwork<Cpu> {
        SasRecNetwork::new(self, &mut Initial::new(seed, &Default::default()))
    }
}

impl SasRec {
    /// Joins the items' vectors and a network to a model.
    ///
    /// # Shapes
    /// - `item_factors`: `[n_items, factors]`
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::WrongSize`] when the rows are not `factors` long.
    pub fn new(config: SasRecConfig, item_factors: Table, network: SasRecNetwork<Cpu>) -> Result<Self> {
        config.validate()?;
        if item_factors.dim() != config.factors {
            let (expected, got) = (config.factors, item_factors.dim());
            return Err(Error::WrongSize { what: "item_factors", side: "factors", expected, got });
        }
        Ok(Self { config, network: network.no_grad(), items: FactorItems::new(item_factors, None)? })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::MissingDense`], and as [`SasRec::new`].
    pub fn open(config: &SasRecConfig, mut parameters: Parameters) -> Result<Self> {
        config.validate()?;
        let items = parameters.take_table("item_factors")?;
        let network = load_parameters(config.network(0), &mut parameters)?;
        Self::new(config.clone(), items, network)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &SasRecConfig {
        &self.config
    }

    /// Returns the items' vectors, `[n_items, factors]`.
    pub fn item_factors(&self) -> &Table {
        self.items.table()
    }

    /// Writes the state after each history, oldest event first, behind each other; zeros after one without a liked item.
    ///
    /// # Shapes
    /// - `out`: `[histories, factors]`
    fn states<'a>(
        &self,
        histories: impl Iterator<Item = &'a [(ItemIndex, f32)]>,
        out: &mut [f32],
    ) -> Result<()> {
        let dim = self.config.factors;
        let (mut items, mut rows) = (Vec::new(), SequenceRows::default());
        let mut ends = Vec::new();
        for history in histories {
            let liked = || history.iter().filter(|&&(_, value)| value > 0.0).map(|&(item, _)| item);
            let skipped = liked().count().saturating_sub(self.config.max_length);
            let begin = items.len();
            items.extend(liked().skip(skipped));
            rows.places.extend(0..(items.len() - begin) as u32);
            ends.push(items.len() as u32);
        }
        out.fill(0.0);
        if items.is_empty() {
            return Ok(());
        }
        rows.ends = ends.clone().into();
        let mut vectors = vec![0.0; items.len() * dim];
        for (item, vector) in items.iter().zip(vectors.chunks_exact_mut(dim)) {
            self.items.table().read_row(u64::from(item.0), vector)?;
        }
        let vectors: Tensor<Cpu, 2> = matrix_of(Buffer::from_vec(vectors, "a history's vectors")?, dim)?;
        let states = buffer_of(self.network.forward(vectors, &rows, None))?.into_vec()?;
        let mut begin = 0;
        for (&end, out) in ends.iter().zip(out.chunks_exact_mut(dim)) {
            if end > begin {
                out.copy_from_slice(&states[(end as usize - 1) * dim..][..dim]);
            }
            begin = end;
        }
        Ok(())
    }
}

impl Retriever for SasRec {
    fn n_users(&self) -> usize {
        0
    }

    fn n_items(&self) -> usize {
        self.items.n_items()
    }

    fn reads_order(&self) -> bool {
        true
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        self.items.score_together(batch, workspace, |rows, vectors| {
            let histories = rows.iter().map(|row| match &row.query {
                Query::History(history) => &history[..],
                _ => &[],
            });
            self.states(histories, vectors)
        })
    }

    fn scores_on_gpu(&self) -> bool {
        true
    }

    fn score_on(&mut self, device: Device) -> Result<()> {
        self.items.score_on(device)
    }

    fn warm_up(&self) -> Result<()> {
        self.items.warm_up()
    }

    fn table(&self, name: &str) -> Option<&Table> {
        (name == "item_factors").then(|| self.items.table())
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        parameters.insert("item_factors", Parameter::Table(self.config.precision.store(self.items.table())?));
        put_parameters(&self.network, &mut parameters)?;
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gbce_is_bce_without_calibration_and_weighs_the_right_one_less_with_it() {
        let config = SasRecConfig { loss: SequenceLoss::Gbce, ..SasRecConfig::default() };
        let positive = |calibration: f64| {
            let config = SasRecConfig { gbce_calibration: calibration, ..config.clone() };
            match config.candidate_loss(100, 1001) {
                CandidateLoss::Logistic { positive, negative: 0.01 } => positive,
                loss => panic!("{loss:?}"),
            }
        };
        assert_eq!(positive(0.0), 1.0);
        assert!((positive(1.0) - 0.1).abs() < 1e-6);
    }
}
