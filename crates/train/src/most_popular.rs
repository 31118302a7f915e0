//! How most-popular learns: it counts.

use recmill_core::{
    Dataset, Parameters,
    models::{MostPopular, MostPopularConfig, Retriever},
};

use crate::{Learner, Prediction, Result, data::Sizes};

/// The counts, once the data have been gone through.
pub(crate) struct MostPopularLearner<'a> {
    config: &'a MostPopularConfig,
    data: &'a Dataset,
}

impl<'a> MostPopularLearner<'a> {
    pub(crate) fn new(config: &'a MostPopularConfig, data: &'a Dataset) -> Self {
        Self { config, data }
    }

    pub(crate) fn predict(sizes: &Sizes) -> Prediction {
        // One f64 and one f32 an item, and the copy that is saved.
        Prediction::default().add("popularity", 16 * sizes.n_items)
    }

    fn model(&self) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(MostPopular::fit(self.config.clone(), self.data.by_user())?))
    }
}

impl Learner for MostPopularLearner<'_> {
    fn epoch(&mut self, _epoch: u32) -> Result<Option<f64>> {
        Ok(None)
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        self.model()
    }

    fn restore(&mut self, _parameters: Parameters) -> Result<()> {
        Ok(()) // counted anew from all the data
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
        self.model()
    }
}
