//! The configuration of any model, and how it is checked and opened.

use std::fmt;

use recmill_kernels::{RowType, Table};
use serde::{Deserialize, Serialize};

use super::{
    Als, AlsConfig, Bpr, BprConfig, Ease, EaseConfig, Gru4Rec, Gru4RecConfig, ItemKnn, ItemKnnConfig, Lmf,
    LmfConfig, Mf, MfConfig, MostPopular, MostPopularConfig, NeuMf, NeuMfConfig, Retriever, SasRec,
    SasRecConfig, Svd, SvdConfig, TwoTower, TwoTowerConfig, Warp, WarpConfig,
};
use crate::{Dataset, Error, Parameters, Result};

/// Which model, and its hyper-parameters; in JSON and TOML the key `model` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model", rename_all = "kebab-case")]
pub enum ModelConfig {
    /// Implicit-feedback matrix factorization by alternating least squares.
    Als(AlsConfig),
    /// Pairwise ranking by stochastic gradient descent.
    Bpr(BprConfig),
    /// Logistic matrix factorization by stochastic gradient descent.
    Lmf(LmfConfig),
    /// Matrix factorization that learns from the items that stand too high.
    Warp(WarpConfig),
    /// Matrix factorization that tells a user's items from all others at once.
    Mf(MfConfig),
    /// A product of vectors beside a network.
    #[serde(rename = "neumf")]
    NeuMf(NeuMfConfig),
    /// Item neighbourhoods.
    ItemKnn(ItemKnnConfig),
    /// A dense linear item model in closed form.
    Ease(EaseConfig),
    /// What most people took.
    MostPopular(MostPopularConfig),
    /// Biased matrix factorization for ratings.
    Svd(SvdConfig),
    /// Self-attention over what a user did, in order.
    #[serde(rename = "sasrec")]
    SasRec(SasRecConfig),
    /// Gated recurrent units over what a user did, in order.
    #[serde(rename = "gru4rec")]
    Gru4Rec(Gru4RecConfig),
    /// A tower of features for users and one for items.
    TwoTower(TwoTowerConfig),
}

impl ModelConfig {
    /// The names of all models.
    pub const NAMES: [&str; 13] = [
        "als",
        "bpr",
        "lmf",
        "warp",
        "mf",
        "neumf",
        "item-knn",
        "ease",
        "most-popular",
        "svd",
        "sasrec",
        "gru4rec",
        "two-tower",
    ];

    /// Returns the defaults of the model called `name`.
    pub fn default_of(name: &str) -> Option<Self> {
        Some(match name {
            "als" => Self::Als(AlsConfig::default()),
            "bpr" => Self::Bpr(BprConfig::default()),
            "lmf" => Self::Lmf(LmfConfig::default()),
            "warp" => Self::Warp(WarpConfig::default()),
            "mf" => Self::Mf(MfConfig::default()),
            "neumf" => Self::NeuMf(NeuMfConfig::default()),
            "item-knn" => Self::ItemKnn(ItemKnnConfig::default()),
            "ease" => Self::Ease(EaseConfig::default()),
            "most-popular" => Self::MostPopular(MostPopularConfig::default()),
            "svd" => Self::Svd(SvdConfig::default()),
            "sasrec" => Self::SasRec(SasRecConfig::default()),
            "gru4rec" => Self::Gru4Rec(Gru4RecConfig::default()),
            "two-tower" => Self::TwoTower(TwoTowerConfig::default()),
            _ => return None,
        })
    }

    /// Returns the model's name, as in commands and files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Als(_) => "als",
            Self::Bpr(_) => "bpr",
            Self::Lmf(_) => "lmf",
            Self::Warp(_) => "warp",
            Self::Mf(_) => "mf",
            Self::NeuMf(_) => "neumf",
            Self::ItemKnn(_) => "item-knn",
            Self::Ease(_) => "ease",
            Self::MostPopular(_) => "most-popular",
            Self::Svd(_) => "svd",
            Self::SasRec(_) => "sasrec",
            Self::Gru4Rec(_) => "gru4rec",
            Self::TwoTower(_) => "two-tower",
        }
    }

    /// Returns the configuration with what it leaves to the data decided: for als, the weighting
    /// ([`AlsConfig::suited_to`]). Commands do this before they train, so that what is stored is complete.
    pub fn suited_to(&self, data: &Dataset) -> Self {
        match self {
            Self::Als(config) => {
                let values = data.by_user().values();
                let sum = values.iter().map(|value| f64::from(value.abs())).sum();
                Self::Als(config.suited_to(data.n_users(), data.n_items(), values.len(), sum))
            }
            complete => complete.clone(),
        }
    }

    /// Returns whether the model learns from how large values are; the others, from which are above 0.
    pub fn weighs_values(&self) -> bool {
        match self {
            Self::Als(_) | Self::Svd(_) => true,
            Self::ItemKnn(config) => !config.binary,
            Self::MostPopular(config) => config.count == super::Count::Values,
            _ => false,
        }
    }

    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        match self {
            Self::Als(config) => config.validate(),
            Self::Bpr(config) => config.validate(),
            Self::Lmf(config) => config.validate(),
            Self::Warp(config) => config.validate(),
            Self::Mf(config) => config.validate(),
            Self::NeuMf(config) => config.validate(),
            Self::ItemKnn(config) => config.validate(),
            Self::Ease(config) => config.validate(),
            Self::MostPopular(config) => config.validate(),
            Self::Svd(config) => config.validate(),
            Self::SasRec(config) => config.validate(),
            Self::Gru4Rec(config) => config.validate(),
            Self::TwoTower(config) => config.validate(),
        }
    }

    /// Returns the objective in full, with its numbers, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        match self {
            Self::Als(config) => config.objective(),
            Self::Bpr(config) => config.objective(),
            Self::Lmf(config) => config.objective(),
            Self::Warp(config) => config.objective(),
            Self::Mf(config) => config.objective(),
            Self::NeuMf(config) => config.objective(),
            Self::ItemKnn(config) => config.objective(),
            Self::Ease(config) => config.objective(),
            Self::MostPopular(config) => config.objective(),
            Self::Svd(config) => config.objective(),
            Self::SasRec(config) => config.objective(),
            Self::Gru4Rec(config) => config.objective(),
            Self::TwoTower(config) => config.objective(),
        }
    }
}

/// Opens a model from its parameters, for a catalogue and users of these sizes.
///
/// # Errors
/// [`Error::MissingParameter`]; [`Error::WrongSize`] when the parameters are of other users or items than there are ids
/// for, with the side that differs.
pub fn open(
    config: &ModelConfig,
    parameters: Parameters,
    n_users: usize,
    n_items: usize,
) -> Result<Box<dyn Retriever>> {
    let retriever: Box<dyn Retriever> = match config {
        ModelConfig::Als(config) => Box::new(Als::open(config, parameters)?),
        ModelConfig::Bpr(config) => Box::new(Bpr::open(config, parameters)?),
        ModelConfig::Lmf(config) => Box::new(Lmf::open(config, parameters)?),
        ModelConfig::Warp(config) => Box::new(Warp::open(config, parameters)?),
        ModelConfig::Mf(config) => Box::new(Mf::open(config, parameters)?),
        ModelConfig::NeuMf(config) => Box::new(NeuMf::open(config, parameters)?),
        ModelConfig::ItemKnn(config) => Box::new(ItemKnn::open(config, parameters)?),
        ModelConfig::Ease(config) => Box::new(Ease::open(config, parameters)?),
        ModelConfig::MostPopular(config) => Box::new(MostPopular::open(config, parameters)?),
        ModelConfig::Svd(config) => Box::new(Svd::open(config, parameters)?),
        ModelConfig::SasRec(config) => Box::new(SasRec::open(config, parameters)?),
        ModelConfig::Gru4Rec(config) => Box::new(Gru4Rec::open(config, parameters)?),
        ModelConfig::TwoTower(config) => Box::new(TwoTower::open(config, parameters)?),
    };
    let what = "model parameters";
    if retriever.n_items() != n_items {
        return Err(Error::WrongSize { what, side: "items", expected: n_items, got: retriever.n_items() });
    }
    if retriever.n_users() != 0 && retriever.n_users() != n_users {
        return Err(Error::WrongSize { what, side: "users", expected: n_users, got: retriever.n_users() });
    }
    Ok(retriever)
}

/// The number type that parameters are stored in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// Half precision: half the size, about three digits.
    F16,
}

impl Precision {
    /// Returns the row type of a stored table.
    pub fn row_type(self) -> RowType {
        match self {
            Self::F32 => RowType::F32,
            Self::F16 => RowType::F16,
        }
    }

    /// Returns a copy of `table` in this precision.
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory for it, or a value is out of the type's range.
    pub fn store(self, table: &Table) -> Result<Table> {
        Ok(table.to_row_type(self.row_type(), "stored parameters")?)
    }
}

/// One value that a configuration may not have.
#[derive(Clone, Debug, PartialEq)]
pub struct ConfigProblem {
    /// The field.
    pub field: &'static str,
    /// What it must be.
    pub expected: &'static str,
    /// What it is.
    pub got: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} must be {}, not `{}`", self.field, self.expected, self.got)
    }
}

/// Collects what is wrong with a configuration, so that all of it is reported at once.
#[derive(Debug)]
pub struct Problems {
    model: &'static str,
    list: Vec<ConfigProblem>,
}

impl Problems {
    /// Begins with none.
    pub fn new(model: &'static str) -> Self {
        Self { model, list: Vec::new() }
    }

    /// Adds one.
    pub fn add(&mut self, field: &'static str, expected: &'static str, got: impl fmt::Display) {
        self.list.push(ConfigProblem { field, expected, got: got.to_string() });
    }

    /// Adds one unless `value` is finite and above 0, as a 32-bit number too, which it is computed with.
    pub fn positive(&mut self, field: &'static str, value: f64) {
        if !(value > 0.0 && value.is_finite()) {
            self.add(field, "a number above 0", value);
        } else if !(value as f32).is_normal() {
            self.add(field, "from 1.2e-38 to 3.4e38", format_args!("{value:e}"));
        }
    }

    /// Adds one unless `value` is a step size that Adam can learn with: it moves each number by about that, so that beyond 1 nothing is left of
    /// what was learned.
    pub fn adam_step(&mut self, field: &'static str, value: f64) {
        if value > 1.0 {
            self.add(field, "above 0 and at most 1", format_args!("{value:?}"));
        } else {
            self.positive(field, value);
        }
    }

    /// Adds one unless `value` is a step size that Adagrad can learn with: a number's first step is as long, whatever its gradient, and later
    /// ones take long to make good for it.
    pub fn adagrad_step(&mut self, field: &'static str, value: f64) {
        if value > 10.0 {
            self.add(field, "above 0 and at most 10", format_args!("{value:?}"));
        } else {
            self.positive(field, value);
        }
    }

    /// Adds one unless `value` is finite and at least 0, as a 32-bit number too, which it is computed with.
    pub fn not_negative(&mut self, field: &'static str, value: f64) {
        if !(value >= 0.0 && value.is_finite()) {
            self.add(field, "a number of at least 0", value);
        } else if !(value as f32).is_finite() {
            self.add(field, "at most 3.4e38", format_args!("{value:e}"));
        }
    }

    /// Adds one unless `value` is a power that any number of interactions can be taken to.
    pub fn negatives_exponent(&mut self, value: f64) {
        if !(0.0..=4.0).contains(&value) {
            self.add("negatives_exponent", "from 0 to 4", format_args!("{value:?}"));
        }
    }

    /// Adds one unless `value` is what the logarithm of an item's interactions can count.
    pub fn popularity_weight(&mut self, value: f64) {
        if !(0.0..=100.0).contains(&value) {
            self.add("popularity_weight", "from 0 to 100", value);
        }
    }

    /// Adds one unless `value` is a length that vectors can begin with: that of much longer ones has no square in single precision.
    pub fn init_scale(&mut self, value: f64) {
        if value > 1000.0 {
            self.add("init_scale", "above 0 and at most 1000", format_args!("{value:?}"));
        } else {
            self.positive("init_scale", value);
        }
    }

    /// Adds one when `value` is 0.
    pub fn at_least_one(&mut self, field: &'static str, value: usize) {
        if value == 0 {
            self.add(field, "at least 1", value);
        }
    }

    /// Adds one unless `value` can be the length of a vector.
    pub fn dimension(&mut self, field: &'static str, value: usize) {
        if !(1..=65_536).contains(&value) {
            self.add(field, "from 1 to 65536", value);
        }
    }

    /// Adds one unless every value can be the width of a layer, of which there may be 32.
    pub fn widths(&mut self, field: &'static str, values: &[usize]) {
        if values.len() > 32 || values.iter().any(|width| !(1..=65_536).contains(width)) {
            let got = values.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            self.add(field, "at most 32 widths from 1 to 65536", got);
        }
    }

    /// Adds one unless `value` is at least 0 and below 1.
    pub fn share(&mut self, field: &'static str, value: f64) {
        if !(0.0..1.0).contains(&value) {
            self.add(field, "at least 0 and below 1", value);
        }
    }

    /// Succeeds when there are none.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`] with all of them.
    pub fn finish(self) -> Result<()> {
        if self.list.is_empty() {
            return Ok(());
        }
        Err(Error::InvalidConfig { model: self.model, problems: self.list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_the_model_and_refuses_unknown_keys() {
        for name in ModelConfig::NAMES {
            let config = ModelConfig::default_of(name).unwrap();
            assert_eq!(config.name(), name);
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert!(text.starts_with(&format!("{{\"model\":\"{name}\"")), "{text}");
            assert_eq!(serde_json::from_str::<ModelConfig>(&text).unwrap(), config);
            let partial = format!("{{\"model\":\"{name}\"}}");
            assert_eq!(
                serde_json::from_str::<ModelConfig>(&partial).unwrap(),
                config,
                "absent keys are defaults"
            );
            let unknown = format!("{{\"model\":\"{name}\",\"lambda\":1}}");
            assert!(serde_json::from_str::<ModelConfig>(&unknown).is_err(), "{name}");
            assert!(!config.objective().is_empty());
        }
    }

    #[test]
    fn als_weighs_unobserved_pairs_by_how_many_there_are_unless_told() {
        let config = AlsConfig::default();
        let suited = config.suited_to(1000, 500, 3000, 6172.0);
        assert_eq!((suited.alpha, suited.unobserved_weight), (None, Some(0.12)));
        assert_eq!(suited.suited_to(10, 10, 50, 100.0), suited);
        assert_eq!(
            config.suited_to(10, 10, 50, 100.0).unobserved_weight,
            Some(1.0),
            "half a mean value of 2"
        );
        let told = AlsConfig { alpha: Some(2.0), ..config.clone() };
        assert_eq!(told.suited_to(1000, 500, 3000, 6172.0), told);
        assert_eq!(config.suited_to(0, 500, 0, 0.0), config);
    }

    #[test]
    fn powers_and_first_lengths_that_single_precision_cannot_hold_are_refused() {
        let problems = |add: &dyn Fn(&mut Problems)| {
            let mut problems = Problems::new("mf");
            add(&mut problems);
            problems.finish().err().map(|error| error.to_string())
        };
        for value in [0.0, 0.75, 4.0] {
            assert_eq!(problems(&|problems| problems.negatives_exponent(value)), None);
        }
        for value in [-0.1, 4.1, 1e38, f64::NAN, f64::INFINITY] {
            assert!(problems(&|problems| problems.negatives_exponent(value)).is_some(), "{value}");
        }
        assert_eq!(problems(&|problems| problems.init_scale(1000.0)), None);
        for value in [0.0, -1.0, 1000.1, 1e38, f64::NAN, f64::INFINITY] {
            assert!(problems(&|problems| problems.init_scale(value)).is_some(), "{value}");
        }
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let config = AlsConfig {
            factors: 0,
            alpha: Some(1.0),
            unobserved_weight: Some(f64::NAN),
            init_scale: -1.0,
            ..AlsConfig::default()
        };
        let error = config.validate().unwrap_err();
        let Error::InvalidConfig { model: "als", problems } = &error else { panic!("{error}") };
        let fields: Vec<_> = problems.iter().map(|problem| problem.field).collect();
        assert_eq!(fields, ["factors", "unobserved_weight", "unobserved_weight", "init_scale"]);
        assert_eq!(
            error.to_string(),
            "invalid configuration of als: factors must be from 1 to 65536, not `0`; unobserved_weight must be absent when \
             alpha is given, not `both`; unobserved_weight must be a number of at least 0, not `NaN`; init_scale must be a \
             number above 0, not `-1`"
        );
    }
}
