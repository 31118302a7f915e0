//! LMF: logistic matrix factorization, which learns how likely a user is to take an item.
//!
//! A user takes an item with probability `σ(x_u · y_i + b_i)`. Over the pairs that were observed, and for each of them
//! `k` items drawn among those the user did not take, the parameters minimise
//!
//! ```text
//! Σ_(u,i) [-ln σ(s_ui) + λ/2 (|x_u|² + |y_i|² + b_i²)]  +  Σ_(u,j) [-ln σ(-s_uj) + λ/2 (|x_u|² + |y_j|² + b_j²)]
//! ```
//!
//! The paper's users have biases, too; here they have none, since one number for all of a user's items changes no list.
//! Each interaction of positive value counts once, whatever its value.
//!
//! Fold-in: `x` minimises the same objective with the items fixed, the negatives being a fixed sample of
//! [`FOLD_IN_NEGATIVES`](super::FOLD_IN_NEGATIVES) items spread evenly over the catalogue. It depends on the history alone.
//!
//! Source: Johnson 2014, "Logistic matrix factorization for implicit feedback data".

use serde::{Deserialize, Serialize};

use super::{
    Negatives, Optimizer, Precision, Problems,
    fold_in::{SolveScratch, logistic},
    not_theirs,
    pair_factors::{FoldIn, PairConfig, PairModel, pair_fields},
};
use crate::{ItemIndex, Result};

/// Hyper-parameters of [`Lmf`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct LmfConfig {
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
    /// Items that the user did not take, for each that they took. An epoch takes as many times longer.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().negatives_per_positive))]
    pub negatives_per_positive: usize,
    /// How the items that a user did not take are drawn.
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

impl Default for LmfConfig {
    fn default() -> Self {
        Self {
            factors: 128,
            learning_rate: 0.1,
            regularization: 0.015,
            iterations: 200,
            negatives_per_positive: 4,
            negatives: Negatives::Popularity,
            negatives_exponent: 0.5,
            verify_negatives: true,
            optimizer: Optimizer::Adagrad,
            item_bias: true,
            hogwild: false,
            init_scale: 0.1,
            precision: Precision::F32,
        }
    }
}

impl LmfConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("lmf");
        problems.dimension("factors", self.factors);
        self.optimizer.check_step(&mut problems, self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("iterations", self.iterations);
        if !(1..=1000).contains(&self.negatives_per_positive) {
            problems.add("negatives_per_positive", "from 1 to 1000", self.negatives_per_positive);
        }
        problems.negatives_exponent(self.negatives_exponent);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let bias = if self.item_bias { (" + b_i", " + b^2") } else { ("", "") };
        format!(
            "minimise sum over observed (u, i) of -ln sigmoid(s_ui) and over {} drawn j for each of -ln sigmoid(-s_uj), each \
             + lambda / 2 * (|x|^2 + |y|^2{}); s_ui = x_u . y_i{}; j drawn {}{}; lambda = {}",
            self.negatives_per_positive,
            bias.1,
            bias.0,
            self.negatives.drawn(self.negatives_exponent),
            not_theirs(self.verify_negatives),
            self.regularization
        )
    }
}

/// User factors, item factors and item biases that say how likely a user is to take an item.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, models::{Lmf, LmfConfig, Retriever}};
/// use recmill_kernels::{Buffer, Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "factors");
/// let config = LmfConfig { factors: 2, ..LmfConfig::default() };
/// let users = table(&[1.0, 0.0, 0.0, 1.0])?;
/// let items = table(&[0.9, 0.1, 0.2, 0.8, 0.7, 0.2])?;
/// let bias = Buffer::from_vec(vec![0.0, -0.5, 0.0], "biases")?;
/// let model = Lmf::new(config, users, items, bias)?;
///
/// // The second user: the log-odds that the item is taken.
/// let rows = vec![Row::new(Query::User(UserIndex(1)), 1)];
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows }, &mut workspace)?;
/// assert_eq!(workspace.answer(0), (&[ItemIndex(1)][..], &[0.3][..]));
/// # Ok::<(), recmill_core::Error>(())
/// ```
pub type Lmf = PairModel<LmfConfig>;

impl PairConfig for LmfConfig {
    pair_fields!();

    fn fold_in(
        &self,
        into: &FoldIn<'_>,
        history: &[(ItemIndex, f32)],
        scratch: &mut SolveScratch,
        vector: &mut [f32],
    ) -> Result<()> {
        let per_positive = self.negatives_per_positive as f64;
        logistic(into, self.regularization, per_positive, history, scratch, vector)
    }
}
