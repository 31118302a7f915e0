//! Recommender models, from a file of interactions to answers: train, keep, evaluate, recommend, serve.
//!
//! This crate is the one to depend on. It only re-exports: [`data`] reads files, [`models`] says what each model is,
//! [`train`] learns, [`directory`] keeps, [`evaluate`] measures, [`Recommender`] answers by text ids, [`serve`] does so over
//! HTTP, and [`kernels`] is the arithmetic below all of them.
//!
//! The whole path, on made-up data:
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use recmill::{
//!     Ask, AskWorkspace, Who,
//!     data::synthetic::{Synthetic, SyntheticOptions},
//!     directory::{Config, ModelDirectory, Saved, Verify, save},
//!     models::{AlsConfig, ModelConfig, Retriever},
//!     train::Training,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Usually read from files; here 200 users with tastes of their own.
//! let options = SyntheticOptions { n_users: 200, n_items: 120, n_interactions: 6_000, seed: 7 };
//! let data = Synthetic::generate(&options).dataset()?;
//!
//! let config = ModelConfig::Als(AlsConfig { factors: 16, iterations: 5, ..AlsConfig::default() });
//! let trained = Training::new(&config, &data).run(None, &AtomicBool::new(false), &mut ())?;
//!
//! // What training writes is what a server maps.
//! let folder = tempfile::tempdir()?;
//! let saved = Saved {
//!     config: &Config { model: serde_json::to_value(&config)?, ..Config::default() },
//!     parameters: &trained.model.parameters()?,
//!     dataset: &data,
//!     item_attributes: None,
//!     user_attributes: None,
//!     epochs: &[],
//!     features: None,
//!     classes: None,
//! };
//! save(&folder.path().join("model"), &saved, 3)?;
//! let recommender = ModelDirectory::open(folder.path().join("model"), Verify::Full)?.recommender()?;
//!
//! // A user of the data, and one who came later and is known by two items only.
//! let asks = [
//!     Ask::new(Who::User(data.users.name(0).unwrap()), 5),
//!     Ask::new(Who::History(vec![(data.items.name(3).unwrap(), 1.0), (data.items.name(8).unwrap(), 1.0)]), 5),
//! ];
//! let answers = recommender.ask(&asks, &mut AskWorkspace::default())?;
//! assert!(answers.iter().all(|answer| answer.items.len() == 5));
//! # Ok(())
//! # }
//! ```
//!
//! A live session costs one step an event, and answers as the whole history would:
//!
//! ```
//! use std::sync::atomic::AtomicBool;
//!
//! use recmill::{
//!     Batch, ItemIndex, Workspace,
//!     data::synthetic::{Synthetic, SyntheticOptions},
//!     models::{Gru4RecConfig, ModelConfig, Retriever},
//!     train::Training,
//! };
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = SyntheticOptions { n_users: 100, n_items: 60, n_interactions: 1_500, seed: 7 };
//! let data = Synthetic::generate(&options).dataset()?;
//! let config = Gru4RecConfig { factors: 8, hidden: 16, iterations: 2, ..Gru4RecConfig::default() };
//! let config = ModelConfig::Gru4Rec(config);
//! let model = Training::new(&config, &data).run(None, &AtomicBool::new(false), &mut ())?.model;
//!
//! let sessions = model.sessions().ok_or("a model of sequences")?;
//! let (mut session, mut workspace) = (sessions.begin(), Workspace::default());
//! for item in [3, 8, 21] {
//!     sessions.push(&mut session, ItemIndex(item), 1.0)?;
//!     let batch = Batch { rows: vec![session.row(5)] };
//!     sessions.answer(&[&session], &batch, &mut workspace)?;
//!     let mut whole = Workspace::default();
//!     model.score(&batch, &mut whole)?;
//!     assert_eq!(workspace.answer(0), whole.answer(0));
//! }
//! assert_eq!(workspace.answer(0).0.len(), 5);
//! # Ok(())
//! # }
//! ```

pub use recmill_core::*;

/// Operations on numbers in memory, on every device.
pub mod kernels {
    pub use recmill_kernels::*;
}

/// How models learn.
pub mod train {
    pub use recmill_train::*;
}

/// How a model is asked over HTTP.
pub mod serve {
    pub use recmill_serve::*;
}
