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
//! Longer histories than `max_length` are learned from in windows, and answered from their newest part. What it learns from, and how it is
//! asked, is in `sequences`. Dropout is behind the embedding and behind both halves of a block; the weights of attention have one of their own,
//! which is the same in the paper's code and none here by default.
//!
//! Source: Kang, McAuley 2018, "Self-attentive sequential recommendation".

mod network;

pub use network::SasRecNetwork;

use serde::{Deserialize, Serialize};

use super::{
    Negatives, Precision, Problems, SequenceConfig, SequenceLoss, SequenceModel, SequenceSettings,
    sequences::{counted, sequence_settings},
};
use crate::{
    Result,
    dense::{DenseBackend, Initial, linear_parameters},
};

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
    /// Leaves out, of the negatives, what the user has had. With `=false` they are as they come, which keeps a model from being too
    /// sure of what it was shown; try it where users have had much of the catalogue.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().verify_negatives, action = clap::ArgAction::Set))]
    pub verify_negatives: bool,
    /// How far gbce corrects: 0 is bce, 1 makes scores calibrated over the whole catalogue.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().gbce_calibration))]
    pub gbce_calibration: f64,
    /// Share of values that are dropped in training. Small data want much: try 0.2 to 0.6.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Share of the weights of attention that are dropped in training, beside --dropout.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().attention_dropout))]
    pub attention_dropout: f64,
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
            verify_negatives: true,
            gbce_calibration: 0.75,
            dropout: 0.5,
            attention_dropout: 0.0,
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
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("sasrec");
        self.settings().check(&mut problems);
        if self.heads == 0 || !self.factors.is_multiple_of(self.heads) {
            problems.add("heads", "a divisor of factors", self.heads);
        }
        problems.dimension("feed_forward", self.feed_forward);
        problems.share("attention_dropout", self.attention_dropout);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        self.settings().objective(&format!(
            "{}, {}",
            counted(self.layers, "layer"),
            counted(self.heads, "head")
        ))
    }
}

/// Blocks of attention over the vectors of items.
///
/// ```
/// use recmill_core::{
///     Batch, ItemIndex, Query, Row, Workspace,
///     dense::Initial,
///     models::{Retriever, SasRec, SasRecConfig, SequenceConfig},
/// };
/// use recmill_kernels::{Device, Table};
///
/// // Without a block, the state is the last item's vector and its place's, normalized.
/// let config = SasRecConfig { factors: 2, layers: 0, ..SasRecConfig::default() };
/// let items = Table::from_f32(&[10.0, -10.0, -10.0, 10.0, 3.0, -3.0], 2, Device::Cpu, "items")?;
/// let network = config.network(&mut Initial::new(0, &Default::default()));
/// let model = SasRec::new(config, items, network)?;
///
/// let rows = vec![Row::new(Query::History(vec![(ItemIndex(1), 1.0), (ItemIndex(2), 1.0)]), 1)];
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows }, &mut workspace)?;
/// assert_eq!(workspace.answer(0).0, [ItemIndex(0)]);
/// # Ok::<(), recmill_core::Error>(())
/// ```
pub type SasRec = SequenceModel<SasRecConfig>;

impl SequenceConfig for SasRecConfig {
    type Network<B: DenseBackend> = SasRecNetwork<B>;

    fn settings(&self) -> SequenceSettings {
        sequence_settings!(self)
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn network<B: DenseBackend>(&self, initial: &mut Initial<'_, B>) -> SasRecNetwork<B> {
        SasRecNetwork::new(self, initial)
    }

    fn reads_at_most(&self) -> Option<usize> {
        Some(self.max_length)
    }

    fn n_parameters(&self) -> u64 {
        let (width, hidden) = (self.factors, self.feed_forward);
        let norm = 2 * width as u64;
        let attention = linear_parameters(width, 3 * width) + linear_parameters(width, width);
        let feed_forward = linear_parameters(width, hidden) + linear_parameters(hidden, width);
        let block = 2 * norm + attention + feed_forward;
        self.max_length as u64 * width as u64 + self.layers as u64 * block + norm
    }

    fn values_per_position(&self) -> usize {
        let kept = if self.attention_dropout > 0.0 { self.heads * self.max_length * self.layers } else { 0 };
        (self.factors * 12 + self.feed_forward * 3) * (self.layers + 1) + kept
    }
}
