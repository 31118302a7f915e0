//! Data, models, metrics and the model directory: everything that training and serving share.
//!
//! Data flows one way through this crate: a [`data`] source becomes a [`Dataset`], a model of [`models`] answers a
//! [`Batch`], [`evaluate`] measures the answers, and a [`directory`] keeps the model.
//!
//! For rankers [`features`] makes numbers of whole rows; [`text`] tells what a text is about.
//!
//! Ids are text outside and [`UserIndex`] or [`ItemIndex`] inside.

mod audience;
mod batch;
mod csr;
pub mod data;
mod dataset;
pub mod dense;
pub mod directory;
mod error;
pub mod evaluate;
pub mod features;
mod fingerprint;
mod id_map;
mod index;
pub mod metrics;
pub mod models;
mod parameters;
pub mod rankers;
mod recommender;
pub mod text;

pub use audience::{Audience, Ids, Person, UserHistory};
pub use batch::{Batch, Query, Row, Workspace, tie_key};
pub use csr::{Csr, Values};
pub use dataset::{Dataset, DatasetParts};
pub use error::Error;
pub use id_map::IdMap;
pub use index::{ItemIndex, Side, UserIndex};
pub use parameters::{Parameter, Parameters};
pub use recommender::{Added, Answer, AnswerSource, Ask, AskWorkspace, LaterIds, Recommender, Who};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
