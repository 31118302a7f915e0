//! SVD: biased matrix factorization, which predicts the value that a user gives an item, such as a rating.
//!
//! ```text
//! r̂_ui = m + b_u + b_i + x_u · y_i        minimises  Σ_observed [(r_ui - r̂_ui)² + λ (b_u² + b_i² + |x_u|² + |y_i|²)]
//! ```
//!
//! `m` is the mean of the training values. A predicted value is clipped to the range of the training values; the score
//! of a recommended item is the value before clipping, so that clipping makes no ties.
//!
//! Fold-in: `b` and `x` of a history minimise the same sum over the history with the items fixed, which is a ridge
//! regression of the residuals `r - m - b_i` and solved exactly.
//!
//! Source: Koren, Bell, Volinsky 2009; Funk 2006.

use recmill_kernels::{Buffer, Device, Table};
use serde::{Deserialize, Serialize};

use super::{Precision, Problems, Retriever, factors::FactorItems, factors::check_tables, fold_in};
use crate::{Batch, Error, ItemIndex, Parameter, Parameters, Query, Result, UserIndex, Workspace};

/// How the factors are learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SvdSolver {
    /// Stochastic gradient descent, one interaction at a time.
    #[default]
    Sgd,
    /// Alternating exact least squares, users and items in turn.
    Als,
}

/// Hyper-parameters of [`Svd`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct SvdConfig {
    /// Length of a user's and an item's vector. 20 to 200 is usual for ratings.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Step size, with --solver sgd. Halve it when the loss jumps, double it when the loss creeps.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// Lambda: how strongly biases and long vectors are punished, once for every rating. Try 0.01 to 0.1.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Passes over the data.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// How the factors are learnt.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().solver))]
    pub solver: SvdSolver,
    /// Standard deviation of a vector's length before training: its numbers are drawn from a normal distribution of
    /// deviation init-scale / sqrt(factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type in which the factors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for SvdConfig {
    fn default() -> Self {
        Self {
            factors: 100,
            learning_rate: 0.005,
            regularization: 0.02,
            iterations: 20,
            solver: SvdSolver::Sgd,
            init_scale: 1.0,
            precision: Precision::F32,
        }
    }
}

impl SvdConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("svd");
        problems.dimension("factors", self.factors);
        problems.positive("learning_rate", self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("iterations", self.iterations);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        format!(
            "minimise sum over observed (u, i) of [(value - r_ui)^2 + lambda * (b_u^2 + b_i^2 + |x_u|^2 + |y_i|^2)]; r_ui \
             = mean + b_u + b_i + x_u . y_i; lambda = {}",
            self.regularization
        )
    }
}

/// The values of the training data in three numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ValueRange {
    /// Mean of all values.
    pub mean: f32,
    /// Smallest value.
    pub min: f32,
    /// Largest value.
    pub max: f32,
}

/// Factors and biases that predict values.
///
/// ```
/// use recmill_core::{ItemIndex, UserIndex, models::{Retriever, Svd, SvdConfig, SvdFactors, ValueRange}};
/// use recmill_kernels::{Buffer, Device, Table};
///
/// let factors = SvdFactors {
///     user_factors: Table::from_f32(&[1.0, -1.0], 1, Device::Cpu, "users")?,
///     user_bias: Buffer::from_vec(vec![0.5, 0.0], "user biases")?,
///     item_factors: Table::from_f32(&[0.25, 1.0], 1, Device::Cpu, "items")?,
///     item_bias: Buffer::from_vec(vec![-0.5, 0.0], "item biases")?,
///     range: ValueRange { mean: 3.0, min: 1.0, max: 5.0 },
/// };
/// let model = Svd::new(SvdConfig { factors: 1, ..SvdConfig::default() }, factors)?;
///
/// // 3 + 0.5 - 0.5 + 0.25, and what is left when the user is not known.
/// let pairs = [(Some(UserIndex(0)), Some(ItemIndex(0))), (None, Some(ItemIndex(0)))];
/// let mut predicted = Vec::new();
/// assert!(model.predict(&pairs, &mut predicted)?);
/// assert_eq!(predicted, [3.25, 2.5]);
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Svd {
    config: SvdConfig,
    users: Table,
    user_bias: Buffer<f32>,
    items: FactorItems,
    range: ValueRange,
}

/// The learnt parts of [`Svd`].
///
/// # Shapes
/// - `user_factors`: `[n_users, factors]`, `user_bias`: `[n_users]`
/// - `item_factors`: `[n_items, factors]`, `item_bias`: `[n_items]`
#[derive(Debug)]
#[expect(missing_docs, reason = "the shapes above say what the fields are")]
pub struct SvdFactors {
    pub user_factors: Table,
    pub user_bias: Buffer<f32>,
    pub item_factors: Table,
    pub item_bias: Buffer<f32>,
    pub range: ValueRange,
}

impl Svd {
    /// Joins factors and biases to a model.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::WrongSize`] when a part does not fit.
    pub fn new(config: SvdConfig, factors: SvdFactors) -> Result<Self> {
        config.validate()?;
        check_tables(config.factors, &factors.user_factors, &factors.item_factors)?;
        let (expected, got) = (factors.user_factors.rows() as usize, factors.user_bias.len());
        if expected != got {
            return Err(Error::WrongSize { what: "user_bias", side: "users", expected, got });
        }
        Ok(Self {
            config,
            users: factors.user_factors,
            user_bias: factors.user_bias,
            items: FactorItems::new(factors.item_factors, Some(factors.item_bias))?,
            range: factors.range,
        })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], and as [`Svd::new`].
    pub fn open(config: &SvdConfig, mut parameters: Parameters) -> Result<Self> {
        let user_factors = parameters.take_table("user_factors")?;
        let item_factors = parameters.take_table("item_factors")?;
        let user_bias = parameters.take_f32("user_bias")?;
        let item_bias = parameters.take_f32("item_bias")?;
        let range = match parameters.take_f32("value_range")?.to_vec()?[..] {
            [mean, min, max] => ValueRange { mean, min, max },
            _ => return Err(Error::MissingParameter { name: "value_range" }),
        };
        if range.min.is_nan() || range.max.is_nan() || range.min > range.max || !range.mean.is_finite() {
            return Err(Error::Inconsistent { what: "range of training values", at: 0 });
        }
        let factors = SvdFactors { user_factors, user_bias, item_factors, item_bias, range };
        Self::new(config.clone(), factors)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &SvdConfig {
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

    /// Returns the training values' mean and range.
    pub fn range(&self) -> ValueRange {
        self.range
    }

    /// Returns factors and biases, to train on.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the biases cannot be copied.
    pub fn into_factors(self) -> Result<SvdFactors> {
        let item_bias = self.items.copy_bias()?;
        let (item_factors, _) = self.items.into_parts();
        Ok(SvdFactors {
            user_factors: self.users,
            user_bias: self.user_bias,
            item_factors,
            item_bias,
            range: self.range,
        })
    }

    fn bias_of(&self, user: UserIndex) -> f32 {
        self.user_bias.cpu().and_then(|bias| bias.get(user.at())).copied().unwrap_or(0.0)
    }

    /// Solves for a history's bias and factors; the bias comes back.
    fn fold_in(
        &self,
        history: &[(ItemIndex, f32)],
        scratch: &mut fold_in::SolveScratch,
        vector: &mut [f32],
    ) -> Result<f32> {
        let bias = self.items.bias();
        let residual = |item: ItemIndex, value| value - self.range.mean - bias[item.at()];
        let ridge = self.config.regularization as f32 * history.len().max(1) as f32;
        let pairs = history.iter().map(|&(item, value)| (item, residual(item, value)));
        fold_in::ridge_with_bias(self.items.table(), pairs, ridge, scratch, vector)
    }
}

impl Retriever for Svd {
    fn n_users(&self) -> usize {
        self.users.rows() as usize
    }

    fn n_items(&self) -> usize {
        self.items.n_items()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        self.items.score(batch, workspace, self.n_users(), |row, scratch, vector| {
            let bias = match &row.query {
                Query::User(user) => {
                    self.users.read_row(u64::from(user.0), vector)?;
                    self.bias_of(*user)
                }
                Query::History(history) => {
                    let history = scratch.history.fill(history);
                    self.fold_in(history, &mut scratch.solve, vector)?
                }
                Query::Item(_) => 0.0,
            };
            Ok(self.range.mean + bias)
        })
    }

    fn predict(&self, pairs: &[(Option<UserIndex>, Option<ItemIndex>)], out: &mut Vec<f32>) -> Result<bool> {
        let (mut x, mut y) = (vec![0.0; self.config.factors], vec![0.0; self.config.factors]);
        let item_bias = self.items.bias();
        let ValueRange { mean, min, max } = self.range;
        out.clear();
        for &(user, item) in pairs {
            let user = user.filter(|user| user.at() < self.n_users());
            let item = item.filter(|item| item.at() < self.n_items());
            let mut value = mean + user.map_or(0.0, |user| self.bias_of(user));
            if let Some(item) = item {
                value += item_bias[item.at()];
                if let Some(user) = user {
                    self.users.read_row(u64::from(user.0), &mut x)?;
                    self.items.table().read_row(u64::from(item.0), &mut y)?;
                    value += x.iter().zip(&y).map(|(a, b)| a * b).sum::<f32>();
                }
            }
            out.push(value.clamp(min, max));
        }
        Ok(true)
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
        match name {
            "user_factors" => Some(&self.users),
            "item_factors" => Some(self.items.table()),
            _ => None,
        }
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        let precision = self.config.precision;
        parameters.insert("user_factors", Parameter::Table(precision.store(&self.users)?));
        parameters.insert("item_factors", Parameter::Table(precision.store(self.items.table())?));
        let user_bias = self.user_bias.try_copy(Device::Cpu, "user biases")?;
        parameters.insert("user_bias", Parameter::F32(user_bias));
        parameters.insert("item_bias", Parameter::F32(self.items.copy_bias()?));
        let ValueRange { mean, min, max } = self.range;
        let range = Buffer::from_vec(vec![mean, min, max], "value range")?;
        parameters.insert("value_range", Parameter::F32(range));
        Ok(parameters)
    }
}
