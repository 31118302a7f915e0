//! The configuration of any ranker: which network, and how it learns, under one name a hyper-parameter.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::{Map, Value};

use super::{
    AutoIntConfig, DcnConfig, DeepFmConfig, DlrmConfig, FinalMlpConfig, FmConfig, LearningConfig,
    LogisticConfig, MmoeConfig, Shape, SharedBottomConfig, TableDims, WideDeepConfig,
};
use crate::{Result, models::Problems};

/// Which network, and its hyper-parameters; in JSON and TOML the key `model` names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model")]
pub enum RankerModel {
    /// A weight for each category and each number.
    #[serde(rename = "logistic")]
    Logistic(LogisticConfig),
    /// A factorization machine.
    #[serde(rename = "fm")]
    Fm(FmConfig),
    /// A linear model beside a network.
    #[serde(rename = "wide-deep")]
    WideDeep(WideDeepConfig),
    /// A factorization machine beside a network.
    #[serde(rename = "deepfm")]
    DeepFm(DeepFmConfig),
    /// Explicit crosses of features, and a network.
    #[serde(rename = "dcn-v2")]
    Dcn(DcnConfig),
    /// Inner products of embeddings, and a network above them.
    #[serde(rename = "dlrm")]
    Dlrm(DlrmConfig),
    /// Fields that attend to each other.
    #[serde(rename = "autoint")]
    AutoInt(AutoIntConfig),
    /// Two gated networks joined by products.
    #[serde(rename = "finalmlp")]
    FinalMlp(FinalMlpConfig),
    /// Several labels from one network.
    #[serde(rename = "shared-bottom")]
    SharedBottom(SharedBottomConfig),
    /// Several labels from a mixture of experts.
    #[serde(rename = "mmoe")]
    Mmoe(MmoeConfig),
}

impl RankerModel {
    /// The names of all models.
    pub const NAMES: [&str; 10] = [
        "logistic",
        "fm",
        "wide-deep",
        "deepfm",
        "dcn-v2",
        "dlrm",
        "autoint",
        "finalmlp",
        "shared-bottom",
        "mmoe",
    ];

    /// Returns the defaults of the model called `name`.
    pub fn default_of(name: &str) -> Option<Self> {
        Some(match name {
            "logistic" => Self::Logistic(LogisticConfig::default()),
            "fm" => Self::Fm(FmConfig::default()),
            "wide-deep" => Self::WideDeep(WideDeepConfig::default()),
            "deepfm" => Self::DeepFm(DeepFmConfig::default()),
            "dcn-v2" => Self::Dcn(DcnConfig::default()),
            "dlrm" => Self::Dlrm(DlrmConfig::default()),
            "autoint" => Self::AutoInt(AutoIntConfig::default()),
            "finalmlp" => Self::FinalMlp(FinalMlpConfig::default()),
            "shared-bottom" => Self::SharedBottom(SharedBottomConfig::default()),
            "mmoe" => Self::Mmoe(MmoeConfig::default()),
            _ => return None,
        })
    }

    /// Returns the model's name, as in commands and files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Logistic(_) => "logistic",
            Self::Fm(_) => "fm",
            Self::WideDeep(_) => "wide-deep",
            Self::DeepFm(_) => "deepfm",
            Self::Dcn(_) => "dcn-v2",
            Self::Dlrm(_) => "dlrm",
            Self::AutoInt(_) => "autoint",
            Self::FinalMlp(_) => "finalmlp",
            Self::SharedBottom(_) => "shared-bottom",
            Self::Mmoe(_) => "mmoe",
        }
    }

    /// Returns the embedding tables that the model reads.
    pub fn tables(&self, shape: &Shape) -> TableDims {
        match self {
            Self::Logistic(config) => config.tables(shape),
            Self::Fm(config) => config.tables(shape),
            Self::WideDeep(config) => config.tables(shape),
            Self::DeepFm(config) => config.tables(shape),
            Self::Dcn(config) => config.tables(shape),
            Self::Dlrm(config) => config.tables(shape),
            Self::AutoInt(config) => config.tables(shape),
            Self::FinalMlp(config) => config.tables(shape),
            Self::SharedBottom(config) => config.tables(shape),
            Self::Mmoe(config) => config.tables(shape),
        }
    }

    /// Returns whether the model is made for several labels.
    pub fn takes_several_labels(&self) -> bool {
        matches!(self, Self::SharedBottom(_) | Self::Mmoe(_) | Self::Logistic(_))
    }

    fn has_batch_norm(&self) -> bool {
        match self {
            Self::Logistic(_) | Self::Fm(_) | Self::AutoInt(_) => false,
            Self::WideDeep(config) => config.batch_norm,
            Self::DeepFm(config) => config.batch_norm,
            Self::Dcn(config) => config.batch_norm,
            Self::Dlrm(config) => config.batch_norm,
            Self::FinalMlp(config) => config.batch_norm,
            Self::SharedBottom(config) => config.batch_norm,
            Self::Mmoe(config) => config.batch_norm,
        }
    }

    fn problems(&self, problems: &mut Problems) {
        match self {
            Self::Logistic(_) => {}
            Self::Fm(config) => config.problems(problems),
            Self::WideDeep(config) => config.problems(problems),
            Self::DeepFm(config) => config.problems(problems),
            Self::Dcn(config) => config.problems(problems),
            Self::Dlrm(config) => config.problems(problems),
            Self::AutoInt(config) => config.problems(problems),
            Self::FinalMlp(config) => config.problems(problems),
            Self::SharedBottom(config) => config.problems(problems),
            Self::Mmoe(config) => config.problems(problems),
        }
    }
}

/// A ranker's network and how it learns; one flat object in JSON and TOML.
#[derive(Clone, Debug, PartialEq)]
pub struct RankerConfig {
    /// The network.
    pub model: RankerModel,
    /// How it learns.
    pub learning: LearningConfig,
}

impl RankerConfig {
    /// Returns the model's name, as in commands and files.
    pub fn name(&self) -> &'static str {
        self.model.name()
    }

    /// Fills in what suits the model where the configuration leaves it open; docs/quality.md says how it was found.
    pub fn suited(mut self) -> Self {
        let (rate, l2) = match self.model {
            RankerModel::Logistic(_) => (0.01, 0.0),
            // Nothing but the embeddings says what two categories say together.
            RankerModel::Fm(_) => (self.learning.learning_rate(), 1e-4),
            _ => (self.learning.learning_rate(), self.learning.embedding_l2()),
        };
        self.learning.learning_rate.get_or_insert(rate);
        self.learning.embedding_l2.get_or_insert(l2);
        self
    }

    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new(self.name());
        self.model.problems(&mut problems);
        self.learning.problems(&mut problems);
        // The statistics of one row say nothing of the others.
        if self.model.has_batch_norm() && self.learning.batch_size == 1 {
            problems.add("batch_size", "at least 2 with batch_norm", 1);
        }
        problems.finish()
    }

    /// Returns the objective in full, with its numbers, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let decay = match self.learning.weight_decay > 0.0 {
            true => format!(", {} x the squares of the dense parameters a step", self.learning.weight_decay),
            false => String::new(),
        };
        let l2 = self.learning.embedding_l2();
        let l2 = match l2 > 0.0 {
            true => format!(", {l2} / 2 x the squares of the embeddings that a batch touches"),
            false => String::new(),
        };
        format!("log loss of each label, weighted mean over rows{decay}{l2}")
    }
}

impl Serialize for RankerConfig {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let object = |value: serde_json::Result<Value>| match value {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(S::Error::custom("a configuration is an object")),
            Err(error) => Err(S::Error::custom(error)),
        };
        let mut all = object(serde_json::to_value(&self.model))?;
        all.extend(object(serde_json::to_value(&self.learning))?);
        all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RankerConfig {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let (learning, model) = LearningConfig::take_from(Map::deserialize(deserializer)?);
        Ok(Self {
            model: serde_json::from_value(model.into()).map_err(D::Error::custom)?,
            learning: serde_json::from_value(learning.into()).map_err(D::Error::custom)?,
        })
    }
}

impl LearningConfig {
    /// Takes the keys that are of learning out of a flat object; what is left is the network's.
    pub fn take_from(all: Map<String, Value>) -> (Map<String, Value>, Map<String, Value>) {
        let known = serde_json::to_value(Self::default()).unwrap_or_default();
        all.into_iter().partition(|(name, _)| known.get(name).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rankers::{DenseOptimizer, FmConfig, TableOptimizer};

    #[test]
    fn json_is_flat_names_the_model_and_refuses_unknown_keys() {
        for name in RankerModel::NAMES {
            let model = RankerModel::default_of(name).unwrap();
            assert_eq!(model.name(), name);
            let learning = LearningConfig { epochs: 7, ..LearningConfig::default() };
            let config = RankerConfig { model, learning };
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert!(text.starts_with(&format!("{{\"model\":\"{name}\"")), "{text}");
            assert_eq!(serde_json::from_str::<RankerConfig>(&text).unwrap(), config);
            let partial = format!("{{\"model\":\"{name}\",\"epochs\":7}}");
            assert_eq!(serde_json::from_str::<RankerConfig>(&partial).unwrap(), config);
            let unknown = format!("{{\"model\":\"{name}\",\"lambda\":1}}");
            assert!(serde_json::from_str::<RankerConfig>(&unknown).is_err(), "{name}");
            assert!(!config.objective().is_empty());
        }
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let model = RankerModel::DeepFm(DeepFmConfig {
            embedding_dim: 0,
            hidden: vec![8, 0],
            dropout: 1.0,
            batch_norm: false,
        });
        let learning =
            LearningConfig { batch_size: 0, learning_rate: Some(f64::NAN), ..LearningConfig::default() };
        let told = RankerConfig { model, learning }.validate().unwrap_err().to_string();
        let normed = DeepFmConfig { batch_norm: true, ..DeepFmConfig::default() };
        let learning = LearningConfig { batch_size: 1, ..LearningConfig::default() };
        let normed = RankerConfig { model: RankerModel::DeepFm(normed), learning }.validate().unwrap_err();
        assert!(normed.to_string().contains("batch_size must be at least 2 with batch_norm"), "{normed}");
        for field in ["embedding_dim", "hidden", "dropout", "batch_size", "learning_rate"] {
            assert!(told.contains(field), "{field}: {told}");
        }
    }

    #[test]
    fn a_step_size_is_one_that_its_optimizer_can_learn_with() {
        let told = |learning: LearningConfig| {
            let model = RankerModel::Fm(FmConfig::default());
            RankerConfig { model, learning }.validate().err().map(|error| error.to_string())
        };
        let of = |optimizer, table_optimizer, rate| LearningConfig {
            optimizer,
            table_optimizer,
            learning_rate: Some(rate),
            ..LearningConfig::default()
        };
        let (sgd, adam) = (DenseOptimizer::Sgd, DenseOptimizer::Adam);
        assert_eq!(told(of(sgd, TableOptimizer::Sgd, 50.0)), None);
        assert!(
            told(of(adam, TableOptimizer::Sgd, 50.0))
                .is_some_and(|told| told.contains("learning_rate must be above 0 and at most 1"))
        );
        let told = told(of(sgd, TableOptimizer::Adagrad, 50.0)).unwrap();
        assert!(told.contains("table_learning_rate must be above 0 and at most 10, not `50.0`"), "{told}");
    }
}
