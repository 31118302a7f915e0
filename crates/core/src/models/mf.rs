//! MF with softmax: matrix factorization that learns to tell a user's items from all others at once.
//!
//! A user's score for an item is `u · v_i`. With cosine similarity both vectors have length `τ^-½`, so that a score is a cosine over the
//! temperature `τ`; what is stored are those vectors. For each interaction of a batch the item is told from the batch's other items and
//! `n_negatives` drawn ones:
//!
//! ```text
//! ln Σ_c exp(s_uc - ln q_c) - s_ui + ln q_i        c: candidates, but for those that u has; q_c: how often c is expected among them
//! ```
//!
//! The correction by `q` makes it a softmax over the whole catalogue, however the candidates came about, so popular items are not
//! pushed down for being in many batches. Negatives that score high push hardest, which is what plain pairs do not do.
//!
//! Fold-in: a fixed fit of one row to the history's items against a fixed sample, as in bpr ([`super::Bpr`]), by the items' stored
//! vectors. It depends on the history alone.
//!
//! Source: Bengio, Senécal 2008 for the correction; Wu et al. 2022, "On the effectiveness of sampled softmax loss for item recommendation".

use serde::{Deserialize, Serialize};

use super::{
    Negatives, Precision, Problems,
    fold_in::{SolveScratch, pairwise},
    pair_factors::{FoldIn, PairConfig, PairModel},
};
use crate::{ItemIndex, Result};

/// How a user's vector and an item's become a score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Similarity {
    /// The cosine of the angle between them, over the temperature.
    #[default]
    Cosine,
    /// Their product.
    Dot,
}

/// Hyper-parameters of [`Mf`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct MfConfig {
    /// Length of a user's and an item's vector.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// How a user's vector and an item's become a score.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().similarity))]
    pub similarity: Similarity,
    /// What cosines are divided by: the smaller, the more the hardest negatives count. Try 0.05 to 0.3; not read with --similarity dot.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().temperature))]
    pub temperature: f64,
    /// Step size of Adam.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// Lambda: how strongly long vectors are punished, where they are touched. Matters with --similarity dot, and for folding in.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Interactions a step; their items are candidates of each other.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Items that are drawn for each step, beside those of the batch.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().n_negatives))]
    pub n_negatives: usize,
    /// How they are drawn.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().negatives))]
    pub negatives: Negatives,
    /// Power of an item's interactions, with --negatives popularity. 0 is uniform, 1 in proportion.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().negatives_exponent))]
    pub negatives_exponent: f64,
    /// Epochs at most: each visits every interaction once.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// Deviation of a vector's numbers before training, times sqrt(factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type in which the factors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for MfConfig {
    fn default() -> Self {
        Self {
            factors: 64,
            similarity: Similarity::Cosine,
            temperature: 0.1,
            learning_rate: 0.001,
            regularization: 0.0,
            batch_size: 2048,
            n_negatives: 1024,
            negatives: Negatives::Uniform,
            negatives_exponent: 0.75,
            iterations: 100,
            init_scale: 0.1,
            precision: Precision::F32,
        }
    }
}

impl MfConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("mf");
        problems.dimension("factors", self.factors);
        problems.positive("temperature", self.temperature);
        problems.positive("learning_rate", self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("batch_size", self.batch_size);
        problems.dimension("n_negatives", self.n_negatives);
        problems.not_negative("negatives_exponent", self.negatives_exponent);
        problems.at_least_one("iterations", self.iterations);
        problems.positive("init_scale", self.init_scale);
        problems.finish()
    }

    /// Returns the length that the vectors are scaled to; none with [`Similarity::Dot`].
    pub fn length(&self) -> Option<f64> {
        (self.similarity == Similarity::Cosine).then(|| self.temperature.sqrt().recip())
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let score = match self.similarity {
            Similarity::Cosine => format!("cos(x_u, y_i) / {}", self.temperature),
            Similarity::Dot => "x_u . y_i".to_owned(),
        };
        format!(
            "minimise the mean over observed (u, i) of ln sum over c of exp(s_uc - ln q_c) - s_ui + ln q_i; s_ui = {score}; c: the \
             items of {} interactions and {} drawn {}, without those of u; lambda = {}",
            self.batch_size,
            self.n_negatives,
            self.negatives.drawn(self.negatives_exponent),
            self.regularization
        )
    }
}

/// User and item vectors whose product says how well they go together.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, models::{Mf, MfConfig, Retriever}};
/// use recmill_kernels::{Buffer, Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "factors");
/// let config = MfConfig { factors: 2, ..MfConfig::default() };
/// let items = table(&[3.0, 0.0, 0.0, 3.0, 2.1, 2.1])?;
/// let model = Mf::new(config, table(&[0.0, 3.0])?, items, Buffer::from_vec(vec![0.0; 3], "biases")?)?;
///
/// let rows = vec![Row::new(Query::User(UserIndex(0)), 1), Row::new(Query::History(vec![(ItemIndex(0), 1.0)]), 1)];
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows }, &mut workspace)?;
/// assert_eq!((workspace.answer(0).0, workspace.answer(1).0), (&[ItemIndex(1)][..], &[ItemIndex(0)][..]));
/// # Ok::<(), recmill_core::Error>(())
/// ```
pub type Mf = PairModel<MfConfig>;

/// Added to the regularization where a row is fitted to few items, which alone would make it longer without an end.
const FOLD_IN_REGULARIZATION: f64 = 0.01;

impl PairConfig for MfConfig {
    fn factors(&self) -> usize {
        self.factors
    }

    fn precision(&self) -> Precision {
        self.precision
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }

    fn fold_in(
        &self,
        into: &FoldIn<'_>,
        history: &[(ItemIndex, f32)],
        scratch: &mut SolveScratch,
        vector: &mut [f32],
    ) -> Result<()> {
        pairwise(into, self.regularization + FOLD_IN_REGULARIZATION, history, scratch, vector)
    }
}
