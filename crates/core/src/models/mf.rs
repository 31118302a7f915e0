//! MF: matrix factorization that learns to tell each of a user's items from many others at once.
//!
//! A user's score for an item is `u · v_i`. With cosine similarity both vectors have length `τ^-½`, so that a score is a cosine over the
//! temperature `τ`; what is stored are those vectors. For each interaction of a batch, `c` goes over the candidates, which are without the user's own items
//! unless those are asked for:
//!
//! ```text
//! sampled-softmax   ln Σ_c exp(s_uc - ln q_c) - s_ui + ln q_i      c: the batch's items and `n_negatives` drawn ones
//! bpr               Σ_c ln(1 + exp(s_uc - s_ui)) / |c|             c: `n_negatives` drawn ones
//! contrastive       1 - s_ui + w Σ_c max(0, s_uc - m) / |c|        the same; s: cosines, τ = 1
//! ```
//!
//! A cosine cannot say that all like an item. So where it is a cosine over `τ` learned by a softmax, `w ln(1 + n_i)` is part of the score of an
//! item of `n_i` interactions, in learning, too: the vectors then have to say only what its popularity does not.
//!
//! With propagation (LightGCN) a vector of the model is the mean of what was learned for the row itself and of what its neighbours along the
//! interactions come to, up to `L` steps away, at every step of learning; `n` counts a row's interactions:
//!
//! ```text
//! E = (E_0 + .. + E_L) / (L + 1)      E_k+1 = Â E_k      Â_ui = Â_iu = 1 / sqrt(n_u n_i) where u has had i, else 0
//! ```
//!
//! `q_c` is how often `c` is expected among the candidates: it makes the first a softmax over the whole catalogue, however the candidates
//! came about, so popular items are not pushed down for being in many batches. Negatives that score high push hardest there, and with
//! contrastive those above the margin `m` alone; pairs (bpr) saturate sooner.
//!
//! Fold-in: a fixed fit of one row to the history's items against a fixed sample, as in bpr ([`super::Bpr`]), by the items' stored
//! vectors. It depends on the history alone.
//!
//! Source: Bengio, Senécal 2008 for the correction; Wu et al. 2022, "On the effectiveness of sampled softmax loss for item recommendation";
//! Rendle et al. 2009 (BPR); Mao et al. 2021 (SimpleX) for the contrastive loss; He et al. 2020 (LightGCN) for the propagation.

use recmill_kernels::CandidateLoss;
use serde::{Deserialize, Serialize};

use super::{
    Negatives, Precision, Problems,
    fold_in::{SolveScratch, pairwise},
    not_theirs,
    pair_factors::{FoldIn, PairConfig, PairModel, pair_fields},
};
use crate::{ItemIndex, Result, rankers::Schedule};

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

/// What each interaction of an [`Mf`] learns to tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum MfLoss {
    /// The item from those of the batch and some that are drawn, all at once.
    #[default]
    SampledSoftmax,
    /// The item from each of some that are drawn.
    Bpr,
    /// How near the item is, and each drawn one that is too near; with --similarity cosine.
    Contrastive,
}

/// Hyper-parameters of [`Mf`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct MfConfig {
    /// Length of a user's and an item's vector.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// What each interaction learns to tell apart.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().loss))]
    pub loss: MfLoss,
    /// How a user's vector and an item's become a score.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().similarity))]
    pub similarity: Similarity,
    /// What cosines are divided by: the smaller, the more the hardest negatives count. Try 0.05 to 0.3; not read with --similarity
    /// dot or --loss contrastive.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().temperature))]
    pub temperature: f64,
    /// Cosine up to which a drawn item is no loss, with --loss contrastive. Try 0 to 0.9.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().margin, allow_negative_numbers = true))]
    pub margin: f64,
    /// What the mean over the drawn items counts beside the item, with --loss contrastive. Try 10 to 1000.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().negative_weight))]
    pub negative_weight: f64,
    /// What the logarithm of an item's interactions counts in its score, which cosines leave out; with --loss sampled-softmax and
    /// --similarity cosine. Try 0 to 1: more where the popular is right more often.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().popularity_weight))]
    pub popularity_weight: f64,
    /// How many steps along the interactions vectors are averaged over, in each step of learning (LightGCN); 0 for none. Try 1 to 3. A
    /// step costs a pass over all interactions then, so batches should be large: 8192 and more. With --from, the averages that the model
    /// keeps are what learning starts from, and are averaged again.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().propagation_layers))]
    pub propagation_layers: usize,
    /// Step size of Adam.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// How the step size changes in the course of training. What falls goes by --iterations, so ask for as many as are to be done.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().schedule))]
    pub schedule: Schedule,
    /// Lambda: how strongly long vectors are punished, where they are touched. Matters with --similarity dot, and for folding in.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Interactions a step; with --loss sampled-softmax their items are candidates of each other.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Items that are drawn for each step, beside those of the batch; 0 for none, with --loss sampled-softmax.
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
            loss: MfLoss::SampledSoftmax,
            similarity: Similarity::Cosine,
            temperature: 0.1,
            margin: 0.4,
            negative_weight: 150.0,
            popularity_weight: 0.6,
            propagation_layers: 0,
            learning_rate: 0.003,
            schedule: Schedule::Constant,
            regularization: 0.0,
            batch_size: 2048,
            n_negatives: 1024,
            negatives: Negatives::Uniform,
            negatives_exponent: 0.75,
            verify_negatives: true,
            iterations: 100,
            init_scale: 0.1,
            precision: Precision::F32,
        }
    }
}

/// Beyond this, all vectors are nearly the same.
const MAX_PROPAGATION_LAYERS: usize = 16;

impl MfConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("mf");
        problems.dimension("factors", self.factors);
        problems.positive("temperature", self.temperature);
        if !(-1.0..1.0).contains(&self.margin) {
            problems.add("margin", "at least -1 and below 1", self.margin);
        }
        problems.not_negative("negative_weight", self.negative_weight);
        problems.popularity_weight(self.popularity_weight);
        if self.propagation_layers > MAX_PROPAGATION_LAYERS {
            problems.add("propagation_layers", "at most 16", self.propagation_layers);
        }
        if self.loss == MfLoss::Contrastive && self.similarity == Similarity::Dot {
            problems.add("similarity", "cosine when loss is contrastive", "dot");
        }
        problems.adam_step("learning_rate", self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("batch_size", self.batch_size);
        // A batch has candidates of its own where it is a softmax over it.
        match self.loss {
            MfLoss::SampledSoftmax if self.n_negatives == 0 => {}
            _ => problems.dimension("n_negatives", self.n_negatives),
        }
        problems.negatives_exponent(self.negatives_exponent);
        problems.at_least_one("iterations", self.iterations);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the length that the vectors are scaled to; none with [`Similarity::Dot`].
    pub fn length(&self) -> Option<f64> {
        let temperature = if self.loss == MfLoss::Contrastive { 1.0 } else { self.temperature };
        (self.similarity == Similarity::Cosine).then(|| temperature.sqrt().recip())
    }

    /// Returns what is added to the score of an item of `n` interactions.
    pub fn item_bias(&self, n: u64) -> f32 {
        let has_one = self.loss == MfLoss::SampledSoftmax && self.similarity == Similarity::Cosine;
        if has_one { popularity(self.popularity_weight, n) } else { 0.0 }
    }

    /// Returns what the kernels compute where `drawn` items are negatives.
    pub fn candidate_loss(&self, drawn: usize) -> CandidateLoss {
        let share = 1.0 / drawn.max(1) as f32;
        match self.loss {
            MfLoss::SampledSoftmax => CandidateLoss::Softmax,
            MfLoss::Bpr => CandidateLoss::Pairwise { negative: share },
            MfLoss::Contrastive => {
                let negative = self.negative_weight as f32 * share;
                CandidateLoss::Contrastive { negative, margin: self.margin as f32 }
            }
        }
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let score = match self.length() {
            Some(length) => format!("cos(x_u, y_i) * {}", (length * length) as f32),
            None => "x_u . y_i".to_owned(),
        };
        let drawn = format!("{} drawn {}", self.n_negatives, self.negatives.drawn(self.negatives_exponent));
        let (loss, candidates) = match self.loss {
            MfLoss::SampledSoftmax => (
                "ln sum over c of exp(s_uc - ln q_c) - s_ui + ln q_i".to_owned(),
                format!("the items of {} interactions and {drawn}", self.batch_size),
            ),
            MfLoss::Bpr => ("mean over c of ln(1 + exp(s_uc - s_ui))".to_owned(), drawn),
            MfLoss::Contrastive => {
                let (w, m) = (self.negative_weight, self.margin);
                (format!("1 - s_ui + {w} * mean over c of max(0, s_uc - {m})"), drawn)
            }
        };
        let popularity = match self.item_bias(1) > 0.0 {
            true => format!(" + {} ln(1 + n_i)", self.popularity_weight),
            false => String::new(),
        };
        let propagated = match self.propagation_layers {
            0 => String::new(),
            layers => {
                format!(
                    "; x, y: the mean of layers 0 to {layers} of E_k+1 = A E_k, A_ui = 1 / sqrt(n_u n_i) where observed"
                )
            }
        };
        format!(
            "minimise the mean over observed (u, i) of {loss}; s_ui = {score}{popularity}; c: {candidates}{}; lambda = {}{propagated}",
            not_theirs(self.verify_negatives),
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

/// What an item of `n` interactions is scored by, beside a cosine.
pub(super) fn popularity(weight: f64, n: u64) -> f32 {
    (weight * (n as f64).ln_1p()) as f32
}

/// Added to the regularization where a row is fitted to few items, which alone would make it longer without an end.
pub(super) const FOLD_IN_REGULARIZATION: f64 = 0.01;

impl PairConfig for MfConfig {
    pair_fields!();

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
