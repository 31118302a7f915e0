//! BPR: matrix factorization that learns the order of pairs: what a user took before what they did not.
//!
//! A user's score for an item is `x_u · y_i + b_i`. Over triples of a user, an item they took and one they did not, the
//! parameters minimise
//!
//! ```text
//! Σ_(u,i,j) -ln σ(s_ui - s_uj) + λ/2 (|x_u|² + |y_i|² + |y_j|² + b_i² + b_j²)
//! ```
//!
//! Fold-in: `x` minimises the same objective with the items fixed, each item of the history against a fixed sample of
//! [`FOLD_IN_NEGATIVES`](super::FOLD_IN_NEGATIVES) items spread evenly over the catalogue, whatever the negatives of training. It depends on the
//! history alone.
//!
//! Source: Rendle, Freudenthaler, Gantner, Schmidt-Thieme 2009.

use serde::{Deserialize, Serialize};

use super::{
    Precision, Problems,
    fold_in::{SolveScratch, pairwise},
    pair_factors::{FoldIn, PairConfig, PairModel, pair_fields},
};
use crate::{ItemIndex, Result};

/// How the item that a user did not take is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Negatives {
    /// Every item alike.
    Uniform,
    /// In proportion to the item's interactions, to the power of --negatives-exponent.
    #[default]
    Popularity,
}

impl Negatives {
    /// Says it within an objective.
    pub(crate) fn drawn(self, exponent: f64) -> String {
        match self {
            Self::Uniform => "uniformly".to_owned(),
            Self::Popularity => format!("by popularity^{exponent}"),
        }
    }
}

/// Says within an objective what is no negative of a user.
pub(crate) fn not_theirs(verify_negatives: bool) -> &'static str {
    if verify_negatives { ", without those of u" } else { "" }
}

/// How a gradient becomes a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// Plain stochastic gradient descent.
    Sgd,
    /// Steps that shrink with the sum of a parameter's squared gradients.
    #[default]
    Adagrad,
}

impl Optimizer {
    /// Adds a problem where `rate` is no step size to learn with.
    pub(super) fn check_step(self, problems: &mut Problems, rate: f64) {
        match self {
            Self::Sgd => problems.positive("learning_rate", rate),
            Self::Adagrad => problems.adagrad_step("learning_rate", rate),
        }
    }
}

/// Hyper-parameters of [`Bpr`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct BprConfig {
    /// Length of a user's and an item's vector. More factors tell finer tastes apart, and cost time and memory in
    /// proportion; 32 to 256 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Step size. Halve it when the loss jumps, double it when the loss creeps.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// Lambda: how strongly long vectors are punished, in each step. Try 0.0001 to 0.1.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Epochs: each visits every interaction once.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// How the item that a user did not take is drawn.
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
    /// How a gradient becomes a step.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().optimizer))]
    pub optimizer: Optimizer,
    /// Gives each item a number of its own for its popularity.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().item_bias, action = clap::ArgAction::Set))]
    pub item_bias: bool,
    /// Lets threads race on shared rows instead of working on blocks of their own: no longer the same bytes each time,
    /// and slower on two cores; measure it on many.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().hogwild, action = clap::ArgAction::Set))]
    pub hogwild: bool,
    /// Standard deviation of a vector's length before training: its numbers are drawn from a normal distribution of
    /// deviation init-scale / sqrt(factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type in which the factors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for BprConfig {
    fn default() -> Self {
        Self {
            factors: 256,
            learning_rate: 0.05,
            regularization: 0.005,
            iterations: 320,
            negatives: Negatives::Popularity,
            negatives_exponent: 0.5,
            verify_negatives: true,
            optimizer: Optimizer::Adagrad,
            item_bias: false,
            hogwild: false,
            init_scale: 0.1,
            precision: Precision::F32,
        }
    }
}

impl BprConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("bpr");
        problems.dimension("factors", self.factors);
        self.optimizer.check_step(&mut problems, self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("iterations", self.iterations);
        problems.negatives_exponent(self.negatives_exponent);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let bias = if self.item_bias { (" + b_i", " + b_i^2 + b_j^2") } else { ("", "") };
        let drawn = self.negatives.drawn(self.negatives_exponent);
        format!(
            "minimise sum over observed (u, i) and drawn j of -ln sigmoid(s_ui - s_uj) + lambda / 2 * (|x_u|^2 + |y_i|^2 \
             + |y_j|^2{}); s_ui = x_u . y_i{}; j drawn {drawn}{}; lambda = {}",
            bias.1,
            bias.0,
            not_theirs(self.verify_negatives),
            self.regularization
        )
    }
}

/// User factors, item factors and item biases that order what was taken before what was not.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, models::{Bpr, BprConfig, Retriever}};
/// use recmill_kernels::{Buffer, Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "factors");
/// let config = BprConfig { factors: 2, ..BprConfig::default() };
/// let users = table(&[1.0, 0.0, 0.0, 1.0])?;
/// let items = table(&[0.9, 0.1, 0.2, 0.8, 0.7, 0.2])?;
/// let bias = Buffer::from_vec(vec![0.0; 3], "biases")?;
/// let model = Bpr::new(config, users, items, bias)?;
///
/// // The second user, and somebody new who had the second item.
/// let history = vec![(ItemIndex(1), 1.0)];
/// let rows = vec![Row::new(Query::User(UserIndex(1)), 1), Row::new(Query::History(history), 1)];
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows }, &mut workspace)?;
/// assert_eq!(workspace.answer(0), (&[ItemIndex(1)][..], &[0.8][..]));
/// assert_eq!(workspace.answer(1).0, [ItemIndex(1)]);
/// # Ok::<(), recmill_core::Error>(())
/// ```
pub type Bpr = PairModel<BprConfig>;

impl PairConfig for BprConfig {
    pair_fields!();

    fn fold_in(
        &self,
        into: &FoldIn<'_>,
        history: &[(ItemIndex, f32)],
        scratch: &mut SolveScratch,
        vector: &mut [f32],
    ) -> Result<()> {
        pairwise(into, self.regularization, history, scratch, vector)
    }
}
