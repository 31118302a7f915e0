//! ALS: implicit-feedback matrix factorization, where every pair of user and item counts, observed or not.
//!
//! A user's score for an item is the dot product `x_u · y_i` of their factors. The factors minimise one of two
//! objectives, which are named and never mixed (`v` is the value of an interaction, `S` the observed pairs):
//!
//! ```text
//! --alpha A              Σ_all c (p - x_u·y_i)² + λ (Σ|x_u|² + Σ|y_i|²)     c = C + A |v|, p = 1 if v > 0 on S; c = 1, p = 0 off S
//! --unobserved-weight W  Σ_S |v| (p - x_u·y_i)² + W Σ_all (x_u·y_i)²
//!                          + λ (Σ (n_u + W n_items)^nu |x_u|² + Σ (n_i + W n_users)^nu |y_i|²)
//! ```
//!
//! With one side fixed both are a least-squares problem a row: `(G + Σ_S a y yᵀ + ridge I) x = Σ_S b y`, with the terms
//! that [`AlsConfig::terms`] gives.
//!
//! Fold-in: a history is solved exactly against the item factors, as training solves a user in its final pass. For a
//! user of the training data the factors agree with that pass to 1e-4.
//!
//! Source: Hu, Koren, Volinsky 2008 (first objective); Rendle, Krichene, Zhang, Koren 2021 (second).

use recmill_kernels::{Device, Table};
use serde::{Deserialize, Serialize};

use super::{Precision, Problems, Retriever, factors::FactorItems, factors::check_tables, fold_in};
use crate::{Batch, Parameter, Parameters, Query, Result, Workspace};

/// How a row's least-squares problem is solved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum AlsSolver {
    /// A few conjugate-gradient steps from the last iteration's factors: fastest, and close to exact after a few iterations.
    #[default]
    Cg,
    /// Exact, by Cholesky factorization: the cost grows with the cube of the factors.
    Cholesky,
    /// Block coordinate descent (iALS++): best for several hundred factors and more.
    Block,
}

/// Hyper-parameters of [`Als`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct AlsConfig {
    /// Length of a user's and an item's vector. More factors tell finer tastes apart, and cost time and memory in
    /// proportion; 32 to 256 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Lambda: how strongly long vectors are punished. Try powers of ten around the default; more for sparse data.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Nu, with --unobserved-weight only: regularization grows with (interactions of the row)^nu. 0 is the same for
    /// every row, 1 in proportion.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization_exponent))]
    pub regularization_exponent: f64,
    /// Weighs an observed pair 1 + alpha x value beside 1 for an unobserved one, instead of --unobserved-weight. 1 to
    /// 40 is usual: more when values are all 1 or small, with more --regularization.
    #[cfg_attr(feature = "clap", arg(long, conflicts_with = "unobserved_weight"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// C, with --alpha only: an observed pair weighs this + alpha x value beside 1 for an unobserved one. 1 is the paper's;
    /// the library implicit has 0.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().base_confidence))]
    #[serde(skip_serializing_if = "is_one")]
    pub base_confidence: f64,
    /// Weighs every pair with this much beside 1 x value for an observed one, instead of --alpha. Try 0.003 to 1: less
    /// for larger catalogues [default without --alpha: such that all pairs together weigh 10 times the observed
    /// values, at most half a mean value].
    #[cfg_attr(feature = "clap", arg(long))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unobserved_weight: Option<f64>,
    /// Passes over users and items. 8 to 20 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// How a row's least-squares problem is solved.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().solver))]
    pub solver: AlsSolver,
    /// Conjugate-gradient steps a row and iteration, with --solver cg. 3 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().cg_steps))]
    pub cg_steps: usize,
    /// Factors solved at once, with --solver block. 32 to 128 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().block_size))]
    pub block_size: usize,
    /// Standard deviation of a vector's length before training: its numbers are drawn from a normal distribution of
    /// deviation init-scale / sqrt(factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Ends with an exact pass over the users, so that a stored user and the same history folded in agree.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().final_user_pass, action = clap::ArgAction::Set))]
    pub final_user_pass: bool,
    /// Number type in which the factors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for AlsConfig {
    fn default() -> Self {
        Self {
            factors: 256,
            regularization: 0.005,
            regularization_exponent: 1.0,
            alpha: None,
            base_confidence: 1.0,
            unobserved_weight: None,
            iterations: 10,
            solver: AlsSolver::Cg,
            cg_steps: 3,
            block_size: 64,
            init_scale: 0.1,
            final_user_pass: true,
            precision: Precision::F32,
        }
    }
}

/// The weighting that a configuration names.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AlsWeighting {
    /// An observed pair weighs `base_confidence + alpha * value`, an unobserved one 1.
    Alpha(f64),
    /// An observed pair weighs `1 * value` on top of this much on every pair.
    UnobservedWeight(f64),
}

/// The numbers of a row's problem: observed pairs have `a = base + scale * |v|` and `b = offset + a` (0 where `v <= 0`), and the
/// Gram matrix of the fixed side enters `gram_weight` times.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlsTerms {
    /// What the Gram matrix is multiplied by.
    pub gram_weight: f32,
    /// Weight of an observed pair beside its value.
    pub base: f32,
    /// Weight of an observed pair for each unit of value.
    pub scale: f32,
    /// What a positive pair's right-hand side has beyond its weight.
    pub offset: f32,
}

/// Whether a value need not be stored.
fn is_one(value: &f64) -> bool {
    *value == 1.0
}

/// How many times the observed values all pairs together weigh, where neither weighting is named.
const WEIGHT_OF_ALL_PAIRS: f64 = 10.0;
/// The most that a pair weighs then beside the mean observed value: what was not seen says less than what was.
const MOST_OF_A_VALUE: f64 = 0.5;

impl AlsConfig {
    /// Returns the configuration with the weighting that suits a matrix, where it names none: the weight that makes all
    /// pairs together weigh 10 times the observed values, at most half a mean value.
    ///
    /// How much an unobserved pair should count depends on how many there are: with one number for every matrix, a set
    /// that is 60 times as sparse as another comes out a third worse (docs/quality.md).
    pub fn suited_to(&self, n_users: usize, n_items: usize, n_observed: usize, sum_of_values: f64) -> Self {
        let named = self.alpha.is_some() || self.unobserved_weight.is_some() || self.base_confidence != 1.0;
        if named || n_observed == 0 {
            return self.clone();
        }
        let density = n_observed as f64 / (n_users as f64 * n_items as f64);
        let share = (WEIGHT_OF_ALL_PAIRS * density).min(MOST_OF_A_VALUE);
        // Two digits, so that it can be read and typed again.
        let weight = share * sum_of_values / n_observed as f64;
        let weight = format!("{weight:.1e}").parse().unwrap_or(weight);
        Self { unobserved_weight: Some(weight), ..self.clone() }
    }

    /// Returns the weighting: `alpha`, 1 unless given, where there is no `unobserved_weight`.
    pub fn weighting(&self) -> AlsWeighting {
        match self.unobserved_weight {
            Some(weight) => AlsWeighting::UnobservedWeight(weight),
            None => AlsWeighting::Alpha(self.alpha.unwrap_or(1.0)),
        }
    }

    /// Returns the terms of a row's problem.
    pub fn terms(&self) -> AlsTerms {
        match self.weighting() {
            AlsWeighting::Alpha(alpha) => {
                let base = (self.base_confidence - 1.0) as f32;
                AlsTerms { gram_weight: 1.0, base, scale: alpha as f32, offset: 1.0 }
            }
            AlsWeighting::UnobservedWeight(weight) => {
                AlsTerms { gram_weight: weight as f32, base: 0.0, scale: 1.0, offset: 0.0 }
            }
        }
    }

    /// Returns the ridge of a row with `n_observed` pairs when the other side has `n_other` rows.
    pub fn ridge(&self, n_observed: usize, n_other: usize) -> f32 {
        match self.weighting() {
            AlsWeighting::Alpha(_) => self.regularization as f32,
            AlsWeighting::UnobservedWeight(weight) => {
                let pairs = n_observed as f64 + weight * n_other as f64;
                (self.regularization * pairs.powf(self.regularization_exponent)) as f32
            }
        }
    }

    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("als");
        problems.dimension("factors", self.factors);
        problems.not_negative("regularization", self.regularization);
        problems.not_negative("regularization_exponent", self.regularization_exponent);
        if let Some(alpha) = self.alpha {
            problems.positive("alpha", alpha);
            if self.unobserved_weight.is_some() {
                problems.add("unobserved_weight", "absent when alpha is given", "both");
            }
        }
        problems.not_negative("base_confidence", self.base_confidence);
        if let Some(weight) = self.unobserved_weight {
            if self.base_confidence != 1.0 {
                problems.add("base_confidence", "1 when unobserved_weight is given", self.base_confidence);
            }
            problems.not_negative("unobserved_weight", weight);
        }
        problems.at_least_one("iterations", self.iterations);
        problems.at_least_one("cg_steps", self.cg_steps);
        problems.at_least_one("block_size", self.block_size);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let lambda = self.regularization;
        match self.weighting() {
            AlsWeighting::Alpha(alpha) => format!(
                "minimise sum over all (user, item) of c * (p - x_u . y_i)^2 + lambda * (sum |x_u|^2 + sum |y_i|^2); \
                 observed: c = {} + alpha * |value|, p = 1 if value > 0 else 0; unobserved: c = 1, p = 0; \
                 alpha = {alpha}, lambda = {lambda}",
                self.base_confidence
            ),
            AlsWeighting::UnobservedWeight(weight) => format!(
                "minimise sum over observed (user, item) of |value| * (p - x_u . y_i)^2 + w * sum over all (user, item) \
                 of (x_u . y_i)^2 + lambda * (sum (n_u + w * n_items)^nu * |x_u|^2 + sum (n_i + w * n_users)^nu * \
                 |y_i|^2); p = 1 if value > 0 else 0; w = {weight}, lambda = {lambda}, nu = {}",
                self.regularization_exponent
            ),
        }
    }
}

/// User and item factors that minimise a weighted squared error over all pairs.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, models::{Als, AlsConfig, Retriever}};
/// use recmill_kernels::{Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "factors");
/// let config = AlsConfig { factors: 2, ..AlsConfig::default() };
/// let users = table(&[1.0, 0.0, 0.0, 1.0])?;
/// let items = table(&[0.9, 0.1, 0.2, 0.8, 0.7, 0.2])?;
/// let model = Als::new(config, users, items)?;
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
#[derive(Debug)]
pub struct Als {
    config: AlsConfig,
    users: Table,
    items: FactorItems,
}

impl Als {
    /// Joins factors to a model.
    ///
    /// # Shapes
    /// - `user_factors`: `[n_users, factors]`
    /// - `item_factors`: `[n_items, factors]`
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`]; [`crate::Error::WrongSize`] when a table's rows are not `factors` long.
    pub fn new(config: AlsConfig, user_factors: Table, item_factors: Table) -> Result<Self> {
        config.validate()?;
        check_tables(config.factors, &user_factors, &item_factors)?;
        Ok(Self { config, users: user_factors, items: FactorItems::new(item_factors, None)? })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`crate::Error::MissingParameter`], and as [`Als::new`].
    pub fn open(config: &AlsConfig, mut parameters: Parameters) -> Result<Self> {
        let users = parameters.take_table("user_factors")?;
        let items = parameters.take_table("item_factors")?;
        Self::new(config.clone(), users, items)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &AlsConfig {
        &self.config
    }

    /// Returns the users' factors, `[n_users, factors]`.
    pub fn user_factors(&self) -> &Table {
        &self.users
    }

    /// Returns the items' factors, `[n_items, factors]`.
    pub fn item_factors(&self) -> &Table {
        self.items.table()
    }

    /// Returns the users' and items' factors, to train on.
    pub fn into_factors(self) -> (Table, Table) {
        (self.users, self.items.into_parts().0)
    }
}

impl Retriever for Als {
    fn n_users(&self) -> usize {
        self.users.rows() as usize
    }

    fn n_items(&self) -> usize {
        self.items.n_items()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        let terms = self.config.terms();
        let gram = self.items.gram()?;
        self.items.score(batch, workspace, self.n_users(), |row, scratch, vector| match &row.query {
            Query::User(user) => {
                self.users.read_row(u64::from(user.0), vector)?;
                Ok(0.0)
            }
            Query::History(history) => {
                let history = scratch.history.fill(history);
                let problem = fold_in::Problem {
                    gram,
                    gram_weight: terms.gram_weight,
                    ridge: self.config.ridge(history.len(), self.n_items()),
                };
                let pair = |value: f32| {
                    let weight = terms.scale.mul_add(value.abs(), terms.base);
                    (weight, if value > 0.0 { terms.offset + weight } else { 0.0 })
                };
                let pairs = history.iter().map(|&(item, value)| (item, pair(value)));
                fold_in::solve(&problem, self.items.table(), pairs, &mut scratch.solve, vector)?;
                Ok(0.0)
            }
            Query::Item(_) => Ok(0.0),
        })
    }

    fn scores_on_gpu(&self) -> bool {
        true
    }

    fn score_on(&mut self, device: Device) -> Result<()> {
        self.items.score_on(device)
    }

    fn warm_up(&self) -> Result<()> {
        self.items.gram()?;
        self.items.warm_up()
    }

    fn table(&self, name: &str) -> Option<&Table> {
        match name {
            "user_factors" => Some(&self.users),
            "item_factors" => Some(self.items.table()),
            _ => None,
        }
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        parameters.insert("user_factors", Parameter::Table(self.config.precision.store(&self.users)?));
        parameters.insert("item_factors", Parameter::Table(self.config.precision.store(self.items.table())?));
        Ok(parameters)
    }
}
