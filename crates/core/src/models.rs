//! What a model is, and how it answers: one file a model.
//!
//! A file opens with what the model is, its formula and its paper; then its configuration, its parameters and how it
//! scores. How a model learns is the business of another crate.

mod als;
mod bpr;
mod config;
mod dense;
mod ease;
mod factors;
mod fold_in;
mod gru4rec;
mod item_knn;
mod lmf;
mod mf;
mod most_popular;
mod neumf;
mod pair_factors;
mod sasrec;
mod sequences;
mod session;
mod svd;
mod two_tower;
mod warp;

pub use als::{Als, AlsConfig, AlsSolver, AlsTerms, AlsWeighting};
use bpr::not_theirs;
pub use bpr::{Bpr, BprConfig, Negatives, Optimizer};
pub use config::{ConfigProblem, ModelConfig, Precision, Problems, open};
pub use ease::{Ease, EaseConfig};
pub use gru4rec::{Gru4Rec, Gru4RecConfig, Gru4RecNetwork};
pub use item_knn::{ItemKnn, ItemKnnConfig, Measure, NeighboursOf};
pub use lmf::{Lmf, LmfConfig};
pub use mf::{Mf, MfConfig, MfLoss, Similarity};
pub use most_popular::{Count, MostPopular, MostPopularConfig};
pub use neumf::{NeuMf, NeuMfConfig, NeuMfNetwork, NeuMfRows};
pub use pair_factors::{FOLD_IN_NEGATIVES, PairModel, scale_to};
pub use sasrec::{SasRec, SasRecConfig, SasRecNetwork};
pub use sequences::{
    SequenceConfig, SequenceLoss, SequenceModel, SequenceNetwork, SequenceRows, SequenceSettings,
};
pub use session::{Session, Sessions};
pub use svd::{Svd, SvdConfig, SvdFactors, SvdSolver, ValueRange};
pub use two_tower::{
    Tower, TowerNetwork, TowerRows, TwoTower, TwoTowerConfig, numeric_of, put_tower, vectors_of,
};
pub use warp::{Warp, WarpConfig};

use std::sync::Arc;

use recmill_kernels::{Device, Table};

use crate::{
    Batch, ItemIndex, Parameters, Result, Side, UserIndex, Workspace,
    features::{Described, Features},
};

pub(crate) use dense::Lane;

/// A model that finds items: for users, for histories, or like another item.
///
/// Answers are in a [`Workspace`], so that scoring allocates nothing once it has grown. An answer has the same bits
/// whichever rows share its batch. Every item that the filters leave is ranked, so an answer is shorter than `k` only
/// when fewer are left; an item is never said to be similar to itself.
pub trait Retriever: Send + Sync {
    /// Returns the users that have parameters of their own; 0 where everyone is answered from their history.
    fn n_users(&self) -> usize;

    /// Returns the items of the catalogue.
    fn n_items(&self) -> usize;

    /// Returns whether it matters which item of a history came first: such a model is asked with histories from the oldest to the newest.
    fn reads_order(&self) -> bool {
        false
    }

    /// Returns the way of reading histories event by event, where the model has one.
    fn sessions(&self) -> Option<&dyn Sessions> {
        None
    }

    /// Answers every row of `batch` in `workspace`.
    ///
    /// # Errors
    /// [`crate::Error::OutOfRange`] when a row names a user or an item that the model does not have;
    /// [`crate::Error::Kernel`] when a score is not finite.
    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()>;

    /// Predicts the value that each user gives each item into `out`; false where the model predicts no values.
    ///
    /// A user or an item that the model does not know is `None` and predicted from what is left.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when parameters cannot be read.
    fn predict(&self, pairs: &[(Option<UserIndex>, Option<ItemIndex>)], out: &mut Vec<f32>) -> Result<bool> {
        let _ = (pairs, out);
        Ok(false)
    }

    /// Returns whether there is a way of scoring this model's lists on a GPU.
    fn scores_on_gpu(&self) -> bool {
        false
    }

    /// Scores lists on `device` from now on; the parameters themselves stay where they are.
    ///
    /// What is not a list for a vector, such as items like another item, is still computed on the CPU.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when the model has no way of scoring there, or the device has no room for a copy.
    fn score_on(&mut self, device: Device) -> Result<()> {
        match device {
            Device::Cpu => Ok(()),
            device => {
                Err(recmill_kernels::Error::NotOnDevice { op: "scoring with this model", device }.into())
            }
        }
    }

    /// Returns how columns of users, or of items, become what the model knows them by; `None` where it has learned nothing of what they are
    /// like.
    fn features(&self, side: Side) -> Option<&Arc<Features>> {
        let _ = side;
        None
    }

    /// Adds users or items that came after training behind the others, by what is known of them, made by [`Retriever::features`]. They are
    /// answered, and found, like all others. It is for asking: a model that was added to is not one to be stored.
    ///
    /// # Errors
    /// [`crate::Error::NoFeatures`] when the model has learned nothing of what they are like.
    fn add(&mut self, side: Side, described: &Described) -> Result<()> {
        let _ = described;
        Err(crate::Error::NoFeatures { side: side.name() })
    }

    /// Computes what scoring derives from the parameters, which otherwise the first batch does.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for it.
    fn warm_up(&self) -> Result<()> {
        Ok(())
    }

    /// Returns a table of the model where it lies, by its name in [`Retriever::parameters`]; `None` where it has none of this
    /// name.
    fn table(&self, name: &str) -> Option<&Table> {
        let _ = name;
        None
    }

    /// Returns what the model directory stores.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when parameters cannot be copied.
    fn parameters(&self) -> Result<Parameters>;
}
