//! Two-tower: what is known of a user and what is known of an item, each through a tower of its own to a vector; their product is the score.
//!
//! ```text
//! x = e_id + Σ_f e_f + N n                             without hidden layers: e_f a field's vector, n the numeric columns
//! x = O MLP([e_id, e_1 .. e_F, n])                     with hidden layers
//! u, v = x_user, x_item  τ^-½ / |x|                    with cosine similarity, τ the temperature; u, v = x with dot
//! score = u · v + w ln(1 + n_i)                        n_i: the item's interactions among those learned from; w = 0 with dot
//! ```
//!
//! Columns of `--users` and `--items` become fields as those of a ranker do. Without them a tower is the id's vector, and the model is MF with
//! softmax ([`super::Mf`]). It learns as that does: each interaction's item is told from the batch's other items, `n_negatives` drawn ones
//! and, where asked for, `hard_negatives` a user, which are what an index of the epoch before finds for the batch's users:
//!
//! ```text
//! ln Σ_c exp(s_uc - ln q_c) - s_ui + ln q_i            c: candidates, but for those that u has
//! q_c = B p_c + N d_c + B h_c                          p: share of interactions, d: chance of a draw, h: share of interactions whose user
//!                                                      has c among their hard ones; B: batch, N: drawn. At most 1
//! ```
//!
//! `q_c` is how often `c` is expected among the candidates, so hard negatives change which items the loss is estimated from and not what
//! it estimates: a softmax over the catalogue.
//!
//! Cold start: row 0 of the ids stands for whoever is new. Where a side has features, an id is replaced by it in a share `id_dropout` of training's
//! lookups, so that fields learn to speak for themselves; users and items of later ([`Retriever::add`]), and those that nothing was learned
//! from, are placed so. How popular such an item will be is not known: the mean of the others' `w ln(1 + n_i)` stands for its own.
//!
//! What scores is precomputed: a vector for each user and item. Fold-in is that of [`super::Mf`]: a fixed fit of one row to the
//! history's items, by the items' vectors; it depends on the history alone, not on features.
//!
//! Source: Yi et al. 2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations"; Volkovs, Yu, Poutanen 2017, "DropoutNet";
//! the sum of fields is that of Kula 2015 (LightFM).

mod tower;

pub use tower::{Tower, TowerNetwork, TowerRows, numeric_of, put_tower, vectors_of};

use std::sync::Arc;

use recmill_kernels::{Buffer, Device, Table};
use serde::{Deserialize, Serialize};

use super::{
    Negatives, Precision, Problems, Retriever, Similarity,
    fold_in::{SolveScratch, pairwise},
    mf::{FOLD_IN_REGULARIZATION, popularity},
    not_theirs,
    pair_factors::{FoldIn, PairConfig, PairModel, pair_fields},
};
use crate::{
    Batch, Error, ItemIndex, Parameters, Result, Side, Workspace,
    dense::{MlpOptions, linear_parameters, mlp_parameters},
    features::{Described, Features},
};

/// Hyper-parameters of [`TwoTower`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct TwoTowerConfig {
    /// Length of a user's and an item's vector, and of that of each id and category.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Widths of each tower's hidden layers, such as 128,64. Without, the vectors of id and columns are added up.
    #[cfg_attr(feature = "clap", arg(long, value_name = "WIDTH,...", value_delimiter = ','))]
    pub hidden: Vec<usize>,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Share of ids that training takes for unknown, where there are columns: the larger, the more columns say of whoever is new.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().id_dropout))]
    pub id_dropout: f64,
    /// How a user's vector and an item's become a score.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().similarity))]
    pub similarity: Similarity,
    /// What cosines are divided by: the smaller, the more the hardest negatives count. Try 0.05 to 0.3; not read with --similarity dot.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().temperature))]
    pub temperature: f64,
    /// What the logarithm of an item's interactions counts in its score, which cosines leave out; not read with --similarity dot. Try 0 to
    /// 1: more where the popular is right more often. A new item counts as much as the mean of the others.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().popularity_weight))]
    pub popularity_weight: f64,
    /// Step size of Adam.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// Lambda: how strongly long vectors of ids and categories are punished, where they are touched; also in folding in.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Interactions a step; their items are candidates of each other.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Items that are drawn for each step, beside those of the batch; 0 for none.
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
    /// Candidates for each user of a batch that scored highest before the epoch and are not theirs, from the second epoch on. Costs lists for
    /// all users an epoch.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().hard_negatives))]
    pub hard_negatives: usize,
    /// Epochs at most: each visits every interaction once.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// Deviation of a vector's numbers before training, times sqrt(factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type in which vectors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for TwoTowerConfig {
    fn default() -> Self {
        Self {
            factors: 64,
            hidden: Vec::new(),
            dropout: 0.0,
            id_dropout: 0.1,
            similarity: Similarity::Cosine,
            temperature: 0.1,
            popularity_weight: 0.6,
            learning_rate: 0.001,
            regularization: 0.0,
            batch_size: 2048,
            n_negatives: 1024,
            negatives: Negatives::Uniform,
            negatives_exponent: 0.75,
            verify_negatives: true,
            hard_negatives: 0,
            iterations: 100,
            init_scale: 0.1,
            precision: Precision::F32,
        }
    }
}

impl TwoTowerConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("two-tower");
        problems.dimension("factors", self.factors);
        problems.widths("hidden", &self.hidden);
        problems.share("dropout", self.dropout);
        problems.share("id_dropout", self.id_dropout);
        problems.positive("temperature", self.temperature);
        problems.popularity_weight(self.popularity_weight);
        problems.adam_step("learning_rate", self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("batch_size", self.batch_size);
        for (field, n) in [("n_negatives", self.n_negatives), ("hard_negatives", self.hard_negatives)] {
            if n > 65_536 {
                problems.add(field, "at most 65536", n);
            }
        }
        problems.negatives_exponent(self.negatives_exponent);
        problems.at_least_one("iterations", self.iterations);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the length that vectors are scaled to; none with [`Similarity::Dot`].
    pub fn length(&self) -> Option<f64> {
        (self.similarity == Similarity::Cosine).then(|| self.temperature.sqrt().recip())
    }

    /// Returns what is added to the score of an item of `n` interactions.
    pub fn item_bias(&self, n: u64) -> f32 {
        match self.similarity {
            Similarity::Cosine => popularity(self.popularity_weight, n),
            Similarity::Dot => 0.0,
        }
    }

    /// Returns the number of the parameters of one side's network, which looks up a vector for each of `fields` columns and the id and
    /// has `numbers` beside.
    pub fn n_parameters(&self, fields: usize, numbers: usize) -> u64 {
        let inputs = (fields + 1) * self.factors + numbers;
        match self.hidden.last() {
            Some(&last) => mlp_parameters(inputs, &self.hidden) + linear_parameters(last, self.factors),
            None => (numbers * self.factors) as u64,
        }
    }

    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: false }
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let score = match self.similarity {
            Similarity::Cosine => {
                format!("cos(x_u, y_i) / {} + {} ln(1 + n_i)", self.temperature, self.popularity_weight)
            }
            Similarity::Dot => "x_u . y_i".to_owned(),
        };
        let hard = match self.hard_negatives {
            0 => String::new(),
            n => format!(", {n} a user of the highest scores"),
        };
        let tower = match &self.hidden[..] {
            [] => "the sum of the vectors of id and columns".to_owned(),
            hidden => format!("a network of {hidden:?} over the vectors of id and columns"),
        };
        format!(
            "minimise the mean over observed (u, i) of ln sum over c of exp(s_uc - ln q_c) - s_ui + ln q_i; s_ui = {score}; x, y: {tower}; \
             c: the items of {} interactions, {} drawn {}{hard}{}; lambda = {}",
            self.batch_size,
            self.n_negatives,
            self.negatives.drawn(self.negatives_exponent),
            not_theirs(self.verify_negatives),
            self.regularization
        )
    }
}

impl PairConfig for TwoTowerConfig {
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

/// The vectors of users and items, and the towers that they come from.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, models::{Retriever, Tower, TwoTower, TwoTowerConfig}};
/// use recmill_kernels::{Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "vectors");
/// let config = TwoTowerConfig { factors: 2, ..TwoTowerConfig::default() };
/// // Ids alone; the first row stands for whoever is new.
/// let users = Tower::of_ids(&config, table(&[0.0, 0.0, 0.0, 3.0])?)?;
/// let items = Tower::of_ids(&config, table(&[0.0, 0.0, 3.0, 0.0, 0.0, 3.0])?)?;
/// let model = TwoTower::new(config, users, items)?;
///
/// let rows = vec![Row::new(Query::User(UserIndex(0)), 1)];
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows }, &mut workspace)?;
/// assert_eq!(workspace.answer(0), (&[ItemIndex(1)][..], &[10.0][..]), "the cosine over a temperature of 0.1");
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct TwoTower {
    pairs: PairModel<TwoTowerConfig>,
    users: Tower,
    items: Tower,
}

impl TwoTower {
    /// Makes a model of towers without features, whose vectors are computed from the ids, and of items that are all as popular.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::NoFeatures`] when a tower has features, so that its ids alone are not enough.
    pub fn new(config: TwoTowerConfig, users: Tower, items: Tower) -> Result<Self> {
        let vectors = |side: Side, tower: &Tower| -> Result<Table> {
            if tower.rows.features().is_some() {
                return Err(Error::NoFeatures { side: side.name() });
            }
            let ids: Vec<u32> = (1..=tower.n_ids() as u32).collect();
            tower.vectors(&config, None, &ids)
        };
        let (of_users, of_items) = (vectors(Side::Users, &users)?, vectors(Side::Items, &items)?);
        let bias = Buffer::from_vec(vec![0.0; of_items.rows() as usize], "item biases")?;
        Ok(Self { pairs: PairModel::new(config, of_users, of_items, bias)?, users, items })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::MissingDense`]; [`Error::WrongSize`] when they do not fit each other.
    pub fn open(config: &TwoTowerConfig, mut parameters: Parameters) -> Result<Self> {
        config.validate()?;
        let users = Tower::take(config, Side::Users, &mut parameters)?;
        let items = Tower::take(config, Side::Items, &mut parameters)?;
        let pairs = PairModel::open(config, parameters)?;
        for (what, side, tower, table) in [
            ("user_embedding", "users", &users, pairs.user_factors()),
            ("item_embedding", "items", &items, pairs.item_factors()),
        ] {
            let (expected, got) = (table.rows() as usize, tower.n_ids());
            if expected != got {
                return Err(Error::WrongSize { what, side, expected, got });
            }
        }
        Ok(Self { pairs, users, items })
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &TwoTowerConfig {
        self.pairs.config()
    }

    /// Returns the tower of one side.
    pub fn tower(&self, side: Side) -> &Tower {
        match side {
            Side::Users => &self.users,
            Side::Items => &self.items,
        }
    }
}

impl Retriever for TwoTower {
    fn n_users(&self) -> usize {
        self.pairs.n_users()
    }

    fn n_items(&self) -> usize {
        self.pairs.n_items()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        self.pairs.score(batch, workspace)
    }

    fn scores_on_gpu(&self) -> bool {
        true
    }

    fn score_on(&mut self, device: Device) -> Result<()> {
        self.pairs.score_on(device)
    }

    fn features(&self, side: Side) -> Option<&Arc<Features>> {
        self.tower(side).rows.features()
    }

    fn add(&mut self, side: Side, described: &Described) -> Result<()> {
        if self.features(side).is_none() {
            return Err(Error::NoFeatures { side: side.name() });
        }
        let unknown = vec![0; described.rows().rows];
        let vectors = self.tower(side).vectors(self.config(), Some(described), &unknown)?;
        self.pairs.add_rows(side, &vectors)
    }

    fn warm_up(&self) -> Result<()> {
        self.pairs.warm_up()
    }

    fn table(&self, name: &str) -> Option<&Table> {
        self.pairs.table(name)
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = self.pairs.parameters()?;
        for side in [Side::Users, Side::Items] {
            self.tower(side).put(side, self.config().precision, &mut parameters)?;
        }
        Ok(parameters)
    }
}
