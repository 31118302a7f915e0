//! How item-kNN learns: in one pass, the most similar items of each item.
//!
//! Cost: `Σ_u n_u²` additions, `n_items * neighbours` pairs to keep; never items x items.

use std::borrow::Cow;

use recmill_core::{
    Dataset, Parameters,
    models::{ItemKnn, ItemKnnConfig, Measure, NeighboursOf, Retriever},
};
use recmill_kernels::{
    self as kernels, Buffer, Device, Direction, Neighbours, SimilarityOptions, similarity_on,
};

use crate::{
    Learner, Prediction, Result,
    data::{Sizes, binary, sparse_rows},
};

/// The neighbours, once they are computed.
pub(crate) struct ItemKnnLearner<'a> {
    config: &'a ItemKnnConfig,
    data: &'a Dataset,
    device: Device,
    neighbours: Neighbours,
}

impl<'a> ItemKnnLearner<'a> {
    pub(crate) fn new(config: &'a ItemKnnConfig, data: &'a Dataset, device: Device) -> Self {
        Self { config, data, device, neighbours: Neighbours::default() }
    }

    /// Returns the bytes of everything that [`ItemKnnLearner`] allocates, as if every list were full.
    pub(crate) fn predict(config: &ItemKnnConfig, sizes: &Sizes) -> Prediction {
        let list = 8 * (config.neighbours as u64).min(sizes.n_items) + 8;
        Prediction::default()
            .add("interactions by item", sizes.by_item_bytes())
            .add("weighted interactions", 8 * sizes.n_interactions)
            .add("neighbours", sizes.n_items * list)
            .add("the copy that is saved", sizes.n_items * list)
            .add("scratch", sizes.n_threads * 12 * sizes.n_items)
    }
}

impl ItemKnnLearner<'_> {
    /// Returns the bytes of it that are on a GPU, where one computes: both sides of the interactions, and a block of sums.
    pub(crate) fn predict_on_gpu(sizes: &Sizes) -> Prediction {
        Prediction::default()
            .add("interactions", 16 * sizes.n_interactions + 8 * (sizes.n_users + sizes.n_items))
            .add("sums of a block of items", (4 * sizes.n_items * sizes.n_items).min(256 << 20))
    }
}

impl Learner for ItemKnnLearner<'_> {
    fn epoch(&mut self, _epoch: u32) -> Result<Option<f64>> {
        let config = self.config;
        let (by_item, by_user) = match config.binary {
            true => (binary(self.data.by_item())?, binary(self.data.by_user())?),
            false => (Cow::Borrowed(self.data.by_item()), Cow::Borrowed(self.data.by_user())),
        };
        let options = SimilarityOptions {
            measure: match config.measure {
                Measure::Cosine => kernels::Measure::Cosine,
                Measure::Tfidf => kernels::Measure::Tfidf,
                Measure::Bm25 => kernels::Measure::Bm25 { k1: config.bm25_k1, b: config.bm25_b },
                Measure::Rp3beta => {
                    kernels::Measure::Rp3beta { alpha: config.rp3_alpha, beta: config.rp3_beta }
                }
            },
            k: config.neighbours,
            shrink: config.shrinkage,
            row_damping: config.user_damping,
            column_damping: config.item_damping,
            direction: match config.neighbours_of {
                NeighboursOf::History => Direction::From,
                NeighboursOf::Candidate => Direction::To,
            },
        };
        self.neighbours = similarity_on(self.device, sparse_rows(&by_item), sparse_rows(&by_user), &options)?;
        Ok(None)
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        model(self.config, self.neighbours.clone())
    }

    fn restore(&mut self, _parameters: Parameters) -> Result<()> {
        Ok(()) // computed anew from all the data
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
        model(self.config, self.neighbours)
    }
}

fn model(config: &ItemKnnConfig, neighbours: Neighbours) -> Result<Box<dyn Retriever>> {
    Ok(Box::new(ItemKnn::new(
        config.clone(),
        Buffer::from_vec(neighbours.indptr, "neighbours")?,
        Buffer::from_vec(neighbours.indices, "neighbours")?,
        Buffer::from_vec(neighbours.values, "neighbours")?,
    )?))
}
