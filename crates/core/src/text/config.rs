//! Hyper-parameters of the text classifier.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Result,
    models::{Precision, Problems},
    rankers::TableOptimizer,
};

/// Hyper-parameters of [`super::TextClassifier`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// The longest run of words that counts as one n-gram; 1 looks at single words.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().word_ngrams))]
    pub word_ngrams: usize,
    /// The shortest run of characters within a word that counts as an n-gram.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().min_characters))]
    pub min_characters: usize,
    /// The longest run of characters within a word; 0 looks at words only. Runs are what a misspelt word has in common with
    /// the right one.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().max_characters))]
    pub max_characters: usize,
    /// Buckets that n-grams are hashed into. Two that meet in one are taken for the same.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().buckets))]
    pub buckets: u32,
    /// Buckets in fewer texts than this are left out.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().min_texts))]
    pub min_texts: u32,
    /// Gives an n-gram more weight the fewer texts it is in.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().idf, action = clap::ArgAction::Set))]
    pub idf: bool,
    /// Epochs: each visits every text once.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().epochs))]
    pub epochs: usize,
    /// Texts a step.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Step size of the first step; it falls in a straight line to 0.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// How the weights of a batch's n-grams are stepped.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().optimizer))]
    pub optimizer: TableOptimizer,
    /// Lambda: how strongly large weights are punished, in each step.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// How far rare classes are made up for: a text of a class with n of N texts counts in proportion to (N / n) to this power. 0 counts all texts
    /// alike, 1 all classes.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().class_balance))]
    pub class_balance: f64,
    /// Share of a text's n-grams that are left out at random in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// The label of texts that are about none of the classes. No class is made of it: learning pulls such texts towards
    /// equal probabilities, and they help to choose the threshold.
    #[cfg_attr(feature = "clap", arg(long, value_name = "LABEL", default_value_t = Self::default().out_of_scope))]
    pub out_of_scope: String,
    /// Texts whose most likely class is less likely than this are out of scope [default: chosen on the texts to validate on,
    /// where some of them are out of scope; otherwise 0].
    #[cfg_attr(feature = "clap", arg(long, value_name = "PROBABILITY"))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
    /// Number type in which the weights are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for TextConfig {
    fn default() -> Self {
        Self {
            word_ngrams: 2,
            min_characters: 2,
            max_characters: 5,
            buckets: 1 << 18,
            min_texts: 1,
            idf: true,
            epochs: 15,
            batch_size: 64,
            learning_rate: 0.2,
            optimizer: TableOptimizer::Adagrad,
            regularization: 0.0,
            class_balance: 0.5,
            dropout: 0.0,
            out_of_scope: "oos".to_owned(),
            threshold: None,
            precision: Precision::F32,
        }
    }
}

/// The configuration with its model's name.
#[derive(Serialize, Deserialize)]
#[serde(tag = "model")]
enum Named {
    #[serde(rename = "text")]
    Text(TextConfig),
}

impl TextConfig {
    /// The model's name, as in commands and files.
    pub const NAME: &'static str = "text";

    /// Returns the configuration as config.json has it: one flat object, the key `model` among the others.
    ///
    /// # Errors
    /// None that a valid configuration has.
    pub fn to_json(&self) -> serde_json::Result<Value> {
        serde_json::to_value(Named::Text(self.clone()))
    }

    /// Reads what [`TextConfig::to_json`] wrote.
    ///
    /// # Errors
    /// Another model, an unknown key, a value of another type.
    pub fn from_json(json: Value) -> serde_json::Result<Self> {
        let Named::Text(config) = serde_json::from_value(json)?;
        Ok(config)
    }

    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new(Self::NAME);
        if self.word_ngrams > 8 {
            problems.add("word_ngrams", "from 0 to 8", self.word_ngrams);
        }
        if self.max_characters > 16 {
            problems.add("max_characters", "from 0 to 16", self.max_characters);
        }
        if self.max_characters > 0 && !(1..=self.max_characters).contains(&self.min_characters) {
            problems.add("min_characters", "from 1 to max_characters", self.min_characters);
        }
        if self.word_ngrams == 0 && self.max_characters == 0 {
            problems.add("word_ngrams", "at least 1 where max_characters is 0", 0);
        }
        if !(1..=1 << 28).contains(&self.buckets) {
            problems.add("buckets", "from 1 to 268435456", self.buckets);
        }
        problems.at_least_one("min_texts", self.min_texts as usize);
        if !(1..=1_000_000).contains(&self.epochs) {
            problems.add("epochs", "from 1 to 1000000", self.epochs);
        }
        if !(1..=1 << 20).contains(&self.batch_size) {
            problems.add("batch_size", "from 1 to 1048576", self.batch_size);
        }
        self.optimizer.check_step(&mut problems, "learning_rate", self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        if !(0.0..=1.0).contains(&self.class_balance) {
            problems.add("class_balance", "from 0 to 1", self.class_balance);
        }
        problems.share("dropout", self.dropout);
        if let Some(threshold) = self.threshold.filter(|threshold| !(0.0..=1.0).contains(threshold)) {
            problems.add("threshold", "from 0 to 1", threshold);
        }
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let l2 = match self.regularization > 0.0 {
            true => format!(" + {} / 2 x the squares of the rows that a batch touches", self.regularization),
            false => String::new(),
        };
        let weighed = match self.class_balance > 0.0 {
            true => format!(", weighed by (N / n_class)^{} over its mean", self.class_balance),
            false => String::new(),
        };
        format!(
            "minimise the mean of -ln softmax(z)_class{weighed}{l2}; z = b + sum of the rows of the text's n-grams, weighted by {}; of a text \
             labelled `{}` the mean of -ln softmax(z)_c over all classes c",
            if self.idf { "idf over its length" } else { "one over the root of their number" },
            self.out_of_scope
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_flat_names_the_model_and_refuses_unknown_keys() {
        let config = TextConfig { epochs: 3, threshold: Some(0.25), ..TextConfig::default() };
        let json = config.to_json().unwrap();
        assert_eq!((json["model"].as_str(), json["epochs"].as_u64()), (Some("text"), Some(3)));
        assert_eq!(TextConfig::from_json(json).unwrap(), config);
        assert!(TextConfig::from_json(serde_json::json!({"model": "text", "lambda": 1})).is_err());
        assert!(TextConfig::from_json(serde_json::json!({"model": "als"})).is_err());
    }

    #[test]
    fn all_problems_are_listed_at_once() {
        let config = TextConfig {
            word_ngrams: 9,
            min_characters: 6,
            buckets: 0,
            batch_size: 0,
            learning_rate: f64::NAN,
            class_balance: 1.5,
            dropout: 1.0,
            threshold: Some(1.5),
            ..TextConfig::default()
        };
        let told = config.validate().unwrap_err().to_string();
        for field in [
            "word_ngrams",
            "min_characters",
            "buckets",
            "batch_size",
            "learning_rate",
            "class_balance",
            "dropout",
            "threshold",
        ] {
            assert!(told.contains(field), "{field}: {told}");
        }
        TextConfig::default().validate().unwrap();
        let words_only = TextConfig { max_characters: 0, ..TextConfig::default() };
        words_only.validate().unwrap();
        assert!(TextConfig { word_ngrams: 0, ..words_only }.validate().is_err());
    }
}
