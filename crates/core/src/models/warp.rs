//! WARP: matrix factorization that learns from the items that stand too high.
//!
//! A user's score for an item is `x_u · y_i + b_i`. For an item `i` that a user took, items that they did not take are drawn until one
//! of them, `j`, scores within a margin of 1 of it; that it took `t` draws says about how many of the `n` items do. The parameters are
//! moved along
//!
//! ```text
//! Σ_(u,i) w(rank) max(0, 1 - s_ui + s_uj) + λ/2 (|x_u|² + |y_i|² + |y_j|² + b_i² + b_j²)      rank = ⌊(n - 1) / t⌋
//! w(rank) = H(rank) / H(n)                                                             H: harmonic numbers
//! ```
//!
//! Where many items stand above `i` the step is long; where none is found among `max_draws` there is none. So it works on the top of
//! each list, and an epoch takes longer the better the model is.
//!
//! Fold-in: as in bpr ([`super::Bpr`]): the history's items against a fixed sample, by the smooth loss of that model, since ranks
//! among a sample say little. It depends on the history alone.
//!
//! Source: Weston, Bengio, Usunier 2011, "WSABIE: Scaling up to large vocabulary image annotation".

use serde::{Deserialize, Serialize};

use super::{
    Negatives, Optimizer, Precision, Problems,
    fold_in::{SolveScratch, pairwise},
    not_theirs,
    pair_factors::{FoldIn, PairConfig, PairModel, pair_fields},
};
use crate::{ItemIndex, Result};

/// Hyper-parameters of [`Warp`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct WarpConfig {
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
    /// Items that are drawn for each that a user took until one scores nearly as high or higher. More of them find what
    /// stands too high also where little does, and cost time in proportion.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().max_draws))]
    pub max_draws: usize,
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

impl Default for WarpConfig {
    fn default() -> Self {
        Self {
            factors: 128,
            learning_rate: 0.05,
            regularization: 0.05,
            iterations: 30,
            max_draws: 16,
            negatives: Negatives::Uniform,
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

impl WarpConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("warp");
        problems.dimension("factors", self.factors);
        self.optimizer.check_step(&mut problems, self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("iterations", self.iterations);
        if !(1..=1000).contains(&self.max_draws) {
            problems.add("max_draws", "from 1 to 1000", self.max_draws);
        }
        problems.negatives_exponent(self.negatives_exponent);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let bias = if self.item_bias { (" + b_i", " + b_i^2 + b_j^2") } else { ("", "") };
        format!(
            "minimise sum over observed (u, i) of H(rank) / H(n) * max(0, 1 - s_ui + s_uj) + lambda / 2 * (|x_u|^2 + |y_i|^2 \
             + |y_j|^2{}); s_ui = x_u . y_i{}; j the first of {} drawn {}{} with s_uj > s_ui - 1, \
             rank = (n - 1) / draws; lambda = {}",
            bias.1,
            bias.0,
            self.max_draws,
            self.negatives.drawn(self.negatives_exponent),
            not_theirs(self.verify_negatives),
            self.regularization
        )
    }
}

/// User factors, item factors and item biases that put what was taken on top.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, models::{Warp, WarpConfig, Retriever}};
/// use recmill_kernels::{Buffer, Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "factors");
/// let config = WarpConfig { factors: 2, ..WarpConfig::default() };
/// let users = table(&[1.0, 0.0, 0.0, 1.0])?;
/// let items = table(&[0.9, 0.1, 0.2, 0.8, 0.7, 0.2])?;
/// let bias = Buffer::from_vec(vec![0.0; 3], "biases")?;
/// let model = Warp::new(config, users, items, bias)?;
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
pub type Warp = PairModel<WarpConfig>;

impl PairConfig for WarpConfig {
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
