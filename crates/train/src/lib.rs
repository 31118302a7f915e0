//! How models learn: one file a model, one loop for all.
//!
//! A [`Training`] is one training, of any model. [`fit`] is the loop. A [`Learner`] is a model's way of learning; it is told nothing but the data, the configuration
//! and the seed. [`Prediction`] says beforehand what memory it will take. The crate prints nothing: it tells a
//! [`Progress`].

#[macro_use]
mod on_backend;

mod als;
mod candidates;
pub mod conformance;
mod data;
mod ease;
mod epoch_checkpoint;
mod error;
mod factors;
mod fit;
pub mod gradient;
mod holdout;
mod item_knn;
mod learned;
mod learner;
pub mod memory;
mod mf;
mod most_popular;
mod neumf;
mod pairwise;
mod progress;
mod propagation;
mod sequences;
mod svd;
mod svd_als;
mod training;
mod two_tower;
mod validation;

pub use als::solve_als;
pub use data::Sizes;
pub use epoch_checkpoint::EpochCheckpoints;
pub use error::{Error, NotFinite};
pub use fit::{Ended, FitOptions, Trained, Validation, fit};
pub use holdout::{HELD_OUT_USERS, HeldEvent, PATIENCE, for_epochs, hold_out, reads_order, stops_by_itself};
pub use learner::Learner;
pub use memory::Prediction;
pub use progress::{EpochRecord, Plan, Progress};
pub use training::{Training, predict, trains_on_gpu};
pub use validation::HeldOut;

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
