//! GRU4Rec: what a user did, in order, through gated recurrent units to a vector that is compared with every item's.
//!
//! A state goes from event to event and takes in one item at a time; what is left of it after the last, `h · y_i` turns into a score:
//!
//! ```text
//! x_t = Dropout(√d y_(item t))
//! s_t = GRU(x_t, s_(t-1))                each layer, over the Dropout of the states below; s_0 = 0
//! h_t = W_o Dropout(s_t) + b_o           score of item i after t = h_t · y_i
//! ```
//!
//! Items have one vector each, for what comes in and for what is scored. What it learns from, and how it is asked, is in `sequences`.
//! Longer histories than `max_length` are learned from in windows, each from a state of zeros, and read whole when it is asked: a session
//! costs one step an event, however long it gets.
//!
//! Source: Hidasi et al. 2016, "Session-based recommendations with recurrent neural networks"; Hidasi, Karatzoglou 2018, "Recurrent neural
//! networks with top-k gains for session-based recommendations", for losses over drawn items and for one vector an item. Their ranking losses
//! are not here, and sessions of one user are not told apart.

mod network;

pub use network::Gru4RecNetwork;

use serde::{Deserialize, Serialize};

use super::{
    Negatives, Precision, Problems, SequenceConfig, SequenceLoss, SequenceModel, SequenceSettings,
    sequences::{counted, sequence_settings},
};
use crate::{
    Result,
    dense::{DenseBackend, Initial, linear_parameters},
};

/// Hyper-parameters of [`Gru4Rec`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct Gru4RecConfig {
    /// Length of an item's vector.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Layers of recurrent units; 1 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().layers))]
    pub layers: usize,
    /// Values of each layer's state.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().hidden))]
    pub hidden: usize,
    /// Events of a history that are learned from in one run, from its end; longer ones are cut into several.
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

impl Default for Gru4RecConfig {
    fn default() -> Self {
        Self {
            factors: 64,
            layers: 1,
            hidden: 128,
            max_length: 50,
            loss: SequenceLoss::SampledSoftmax,
            n_negatives: 2048,
            negatives: Negatives::Uniform,
            negatives_exponent: 0.75,
            verify_negatives: true,
            gbce_calibration: 0.75,
            dropout: 0.5,
            learning_rate: 0.003,
            batch_size: 128,
            iterations: 100,
            init_scale: 0.16,
            precision: Precision::F32,
        }
    }
}

impl Gru4RecConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("gru4rec");
        self.settings().check(&mut problems);
        problems.at_least_one("layers", self.layers);
        problems.dimension("hidden", self.hidden);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        self.settings().objective(&format!("{} of {}", counted(self.layers, "layer"), self.hidden))
    }
}

/// Gated recurrent units over the vectors of items.
///
/// ```
/// use recmill_core::{
///     Batch, ItemIndex, Workspace,
///     dense::Initial,
///     models::{Gru4Rec, Gru4RecConfig, Retriever, SequenceConfig, Sessions},
/// };
/// use recmill_kernels::{Device, Table};
///
/// let config = Gru4RecConfig { factors: 2, hidden: 4, ..Gru4RecConfig::default() };
/// let items = Table::from_f32(&[1.0, 0.0, 0.0, 1.0, -1.0, 0.5], 2, Device::Cpu, "items")?;
/// let network = config.network(&mut Initial::new(0, &Default::default()));
/// let model = Gru4Rec::new(config, items, network)?;
///
/// // Event by event, and from the whole history at once.
/// let mut session = model.begin();
/// model.push(&mut session, ItemIndex(1), 1.0)?;
/// model.push(&mut session, ItemIndex(0), 1.0)?;
/// let batch = Batch { rows: vec![session.row(1)] };
/// let (mut live, mut whole) = (Workspace::default(), Workspace::default());
/// model.answer(&[&session], &batch, &mut live)?;
/// model.score(&batch, &mut whole)?;
/// assert_eq!(live.answer(0), whole.answer(0));
/// assert_eq!(live.answer(0).0, [ItemIndex(2)]);
/// # Ok::<(), recmill_core::Error>(())
/// ```
pub type Gru4Rec = SequenceModel<Gru4RecConfig>;

impl SequenceConfig for Gru4RecConfig {
    type Network<B: DenseBackend> = Gru4RecNetwork<B>;

    fn settings(&self) -> SequenceSettings {
        sequence_settings!(self)
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn network<B: DenseBackend>(&self, initial: &mut Initial<'_, B>) -> Gru4RecNetwork<B> {
        Gru4RecNetwork::new(self, initial)
    }

    fn reads_at_most(&self) -> Option<usize> {
        None
    }

    fn n_parameters(&self) -> u64 {
        let inputs = [self.factors].into_iter().chain(std::iter::repeat(self.hidden)).take(self.layers);
        let gates = 3 * self.hidden;
        let layers =
            inputs.map(|inputs| linear_parameters(inputs, gates) + linear_parameters(self.hidden, gates));
        layers.sum::<u64>() + linear_parameters(self.hidden, self.factors)
    }

    fn values_per_position(&self) -> usize {
        8 * self.factors + 18 * self.hidden * self.layers
    }
}
