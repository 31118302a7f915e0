//! Models that score rows of features: clicks, purchases, fraud. One file a model.
//!
//! Embedding tables live outside the network, so that a step of training costs the rows that a batch touches:
//!
//! ```text
//! categories -> embedding_bag over the tables -> [rows, fields, dim] ┐
//! numbers ----------------------------------> [rows, numeric]       ├-> Network -> log-odds [rows, labels] -> σ
//! ```
//!
//! A file opens with what the model is, its formula and its paper; then its configuration and its network, written over any
//! backend. [`RankerConfig`] is the configuration of any of them, [`AnyNetwork`] the network, [`Ranker`] a trained model.

mod autoint;
mod config;
mod dcn;
mod deepfm;
mod dlrm;
mod final_mlp;
mod fm;
mod inputs;
mod learning;
mod logistic;
mod measured;
mod mmoe;
mod network;
mod placed;
mod ranker;
mod shared_bottom;
mod tables;
mod wide_deep;

pub use autoint::{AutoInt, AutoIntConfig};
pub use config::{RankerConfig, RankerModel};
pub use dcn::{Dcn, DcnConfig, DcnStructure};
pub use deepfm::{DeepFm, DeepFmConfig};
pub use dlrm::{Dlrm, DlrmConfig};
pub use final_mlp::{FinalMlp, FinalMlpConfig};
pub use fm::{Fm, FmConfig};
pub use inputs::Inputs;
pub use learning::{
    DenseOptimizer, DensePrecision, LearningConfig, Schedule, TableOptimizer, TablePrecision,
};
pub use logistic::{Logistic, LogisticConfig};
pub use measured::{Measured, Measuring, ScoreGroup};
pub use mmoe::{Mmoe, MmoeConfig};
pub use network::{AnyNetwork, Network, Shape};
pub use ranker::{Ranker, log_odds, log_odds_of, sigmoid};
pub use shared_bottom::{SharedBottom, SharedBottomConfig};
pub use tables::{EmbeddingTables, Lookup, TableDims, copy_to, look_up};
pub use wide_deep::{WideDeep, WideDeepConfig};
