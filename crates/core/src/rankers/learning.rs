//! How a ranker learns: what all networks have in common.

use std::fmt;

use recmill_kernels::{Products, RowType, SparseOptimizer, simd};
use serde::{Deserialize, Serialize};

use crate::models::Problems;

/// How the dense parameters are stepped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum DenseOptimizer {
    /// Plain stochastic gradient descent.
    Sgd,
    /// Steps that shrink with the sum of squared gradients.
    Adagrad,
    /// Steps by running means of gradients and their squares.
    #[default]
    Adam,
    /// Adam with weight decay apart from the gradient.
    Adamw,
}

/// How the rows of embedding tables are stepped: those that a batch touches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum TableOptimizer {
    /// Plain stochastic gradient descent; no memory beside the rows.
    Sgd,
    /// Steps that shrink with the sum of squared gradients, value by value.
    Adagrad,
    /// The same with one sum a row: a number of memory a row.
    RowWiseAdagrad,
    /// Adam whose means stand still while a row is not touched.
    #[default]
    Adam,
    /// Follow the regularized leader: rare categories stay at 0.
    Ftrl,
}

impl DenseOptimizer {
    /// Adds a problem where `rate`, of that name, is no step size to learn with.
    fn check_step(self, problems: &mut Problems, field: &'static str, rate: f64) {
        match self {
            Self::Sgd => problems.positive(field, rate),
            Self::Adagrad => problems.adagrad_step(field, rate),
            Self::Adam | Self::Adamw => problems.adam_step(field, rate),
        }
    }
}

impl TableOptimizer {
    /// Adds a problem where `rate`, of that name, is no step size to learn with.
    pub(crate) fn check_step(self, problems: &mut Problems, field: &'static str, rate: f64) {
        match self {
            Self::Sgd => problems.positive(field, rate),
            Self::Adagrad | Self::RowWiseAdagrad | Self::Ftrl => problems.adagrad_step(field, rate),
            Self::Adam => problems.adam_step(field, rate),
        }
    }

    /// Returns the optimizer with the numbers that it is commonly used with.
    pub fn sparse(self) -> SparseOptimizer {
        match self {
            Self::Sgd => SparseOptimizer::Sgd,
            Self::Adagrad => SparseOptimizer::Adagrad { initial: 0.0, epsilon: 1e-8 },
            Self::RowWiseAdagrad => SparseOptimizer::RowWiseAdagrad { initial: 0.0, epsilon: 1e-8 },
            Self::Adam => SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
            Self::Ftrl => SparseOptimizer::Ftrl { beta: 1.0, l1: 0.0 },
        }
    }
}

/// How the step size changes in the course of training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Not at all.
    Constant,
    /// Falls in a straight line to 0 at the last step.
    #[default]
    Linear,
    /// Falls along half a cosine to 0 at the last step.
    Cosine,
}

/// The number type of embedding rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum TablePrecision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// Half precision; rounded by chance in training.
    F16,
    /// The upper half of f32; rounded by chance in training.
    Bf16,
}

/// The number type of the factors in a network's products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum DensePrecision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// The upper half of f32, where the processor multiplies pairs of them (avx512_bf16); f32 elsewhere.
    Bf16,
}

impl DensePrecision {
    /// Returns what products are made of on this processor.
    pub fn products(self) -> Products {
        match self {
            DensePrecision::Bf16 if simd::has_bf16_products() => Products::Bf16,
            _ => Products::F32,
        }
    }
}

impl TablePrecision {
    /// Returns the row type of a table.
    pub fn row_type(self) -> RowType {
        match self {
            TablePrecision::F32 => RowType::F32,
            TablePrecision::F16 => RowType::F16,
            TablePrecision::Bf16 => RowType::Bf16,
        }
    }
}

macro_rules! shown {
    ($($type:ident { $($variant:ident: $name:literal),* })*) => {$(
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $($type::$variant => $name,)*
                })
            }
        }
    )*};
}

shown! {
    DenseOptimizer { Sgd: "sgd", Adagrad: "adagrad", Adam: "adam", Adamw: "adamw" }
    TableOptimizer { Sgd: "sgd", Adagrad: "adagrad", RowWiseAdagrad: "row-wise-adagrad", Adam: "adam", Ftrl: "ftrl" }
    Schedule { Constant: "constant", Linear: "linear", Cosine: "cosine" }
    TablePrecision { F32: "f32", F16: "f16", Bf16: "bf16" }
    DensePrecision { F32: "f32", Bf16: "bf16" }
}

/// How a ranker learns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct LearningConfig {
    /// Passes over the rows, at most: training stops before when validation no longer improves.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().epochs))]
    pub epochs: usize,
    /// Rows a step.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Pieces that a batch is computed in, one after the other: as many times less memory, and the same step, except with
    /// --batch-norm, which normalizes each piece by itself.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().accumulate))]
    pub accumulate: usize,
    /// Step size of the dense parameters. Halve it when the loss jumps, double it when it creeps [default: 0.003; 0.01 for
    /// logistic].
    #[cfg_attr(feature = "clap", arg(long))]
    pub learning_rate: Option<f64>,
    /// Step size of the embedding tables [default: as --learning-rate].
    #[cfg_attr(feature = "clap", arg(long))]
    pub table_learning_rate: Option<f64>,
    /// How the dense parameters are stepped.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().optimizer))]
    pub optimizer: DenseOptimizer,
    /// How the rows of embedding tables are stepped.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().table_optimizer))]
    pub table_optimizer: TableOptimizer,
    /// How the step size changes in the course of training.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().schedule))]
    pub schedule: Schedule,
    /// Steps in which the step size grows from 0.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().warmup_steps))]
    pub warmup_steps: usize,
    /// How strongly the dense parameters are pulled to 0 in each step.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().weight_decay))]
    pub weight_decay: f64,
    /// How strongly the embedding rows that a batch touches are pulled to 0; first-order weights are not, but those of logistic.
    /// Try a third and three times as much [default: 0.05; 0.0001 for fm, 0 for logistic].
    #[cfg_attr(feature = "clap", arg(long))]
    pub embedding_l2: Option<f64>,
    /// Dense gradients of a longer norm are shortened to it; 0 never.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().clip_norm))]
    pub clip_norm: f64,
    /// Standard deviation of embedding rows before training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type of the embedding rows, in training and as stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().table_precision))]
    pub table_precision: TablePrecision,
    /// Number type of the factors in the network's products while it learns; parameters and sums are f32 in any case.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().dense_precision))]
    pub dense_precision: DensePrecision,
}

impl Default for LearningConfig {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch_size: 1024,
            accumulate: 1,
            learning_rate: None,
            table_learning_rate: None,
            optimizer: DenseOptimizer::Adam,
            table_optimizer: TableOptimizer::Adam,
            schedule: Schedule::Linear,
            warmup_steps: 0,
            weight_decay: 0.0,
            embedding_l2: None,
            clip_norm: 0.0,
            init_scale: 0.01,
            table_precision: TablePrecision::F32,
            dense_precision: DensePrecision::F32,
        }
    }
}

impl LearningConfig {
    /// Returns the step size of the dense parameters; where none is given, what suits networks.
    pub fn learning_rate(&self) -> f64 {
        self.learning_rate.unwrap_or(0.003)
    }

    /// Returns the weight of the embeddings' squares; where none is given, what suits networks.
    pub fn embedding_l2(&self) -> f64 {
        self.embedding_l2.unwrap_or(0.05)
    }

    /// Returns the optimizer of the embedding tables, with the numbers that it is commonly used with.
    pub fn sparse_optimizer(&self) -> SparseOptimizer {
        self.table_optimizer.sparse()
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.at_least_one("epochs", self.epochs);
        problems.at_least_one("batch_size", self.batch_size);
        if self.accumulate == 0 || self.accumulate > self.batch_size.max(1) {
            problems.add("accumulate", "from 1 to batch_size", self.accumulate);
        }
        if let Some(rate) = self.learning_rate {
            self.optimizer.check_step(problems, "learning_rate", rate);
        }
        // What suits SGD is handed on to tables that learn otherwise.
        let handed_on = self.learning_rate.filter(|_| self.optimizer == DenseOptimizer::Sgd);
        if let Some(rate) = self.table_learning_rate.or(handed_on) {
            self.table_optimizer.check_step(problems, "table_learning_rate", rate);
        }
        problems.not_negative("weight_decay", self.weight_decay);
        if let Some(l2) = self.embedding_l2 {
            problems.not_negative("embedding_l2", l2);
        }
        problems.not_negative("clip_norm", self.clip_norm);
        problems.not_negative("init_scale", self.init_scale);
    }
}
