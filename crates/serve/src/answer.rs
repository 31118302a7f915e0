//! Answers as they leave, and the seam to whatever computes them.

use serde::Serialize;

use crate::{
    error::Refusal,
    question::{Recommend, Similar},
};

/// An item and its score.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Scored {
    pub(crate) item_id: String,
    pub(crate) score: f32,
}

/// The answer to [`Recommend`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Recommended {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_id: Option<String>,
    pub(crate) recommendations: Vec<Scored>,
    /// What the answer is made of where neither the user nor the history is known: `most_popular`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fallback: Option<&'static str>,
    /// Items of the request's history that the model does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) unknown_items: Vec<String>,
    pub(crate) model_version: String,
}

/// The answer to [`Similar`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct SimilarItems {
    pub(crate) item_id: String,
    pub(crate) similar: Vec<Scored>,
    pub(crate) model_version: String,
}

/// Computes answers; called from threads that may block, several at a time.
pub(crate) trait Answers: Send + Sync {
    /// Answers a question for recommendations.
    fn recommend(&self, question: Recommend) -> Result<Recommended, Refusal>;

    /// Answers a question for similar items.
    fn similar(&self, question: Similar) -> Result<SimilarItems, Refusal>;
}

#[cfg(test)]
pub(crate) mod gated {
    //! A model whose answers wait for a test.

    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Answers nothing until its gate is open.
    #[derive(Default)]
    pub(crate) struct Gated {
        open: Mutex<bool>,
        waiting: Mutex<usize>,
        changed: Condvar,
    }

    impl Gated {
        pub(crate) fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.changed.notify_all();
        }

        /// Returns how many questions have come to the gate.
        pub(crate) fn arrived(&self) -> usize {
            *self.waiting.lock().unwrap()
        }

        /// Waits until `n` questions stand at the gate.
        pub(crate) fn wait_for(&self, n: usize) {
            let waiting = self.waiting.lock().unwrap();
            drop(self.changed.wait_while(waiting, |waiting| *waiting < n).unwrap());
        }
    }

    impl Answers for Gated {
        fn recommend(&self, question: Recommend) -> Result<Recommended, Refusal> {
            assert_ne!(question.k(), 13, "the panic that a test asks for");
            *self.waiting.lock().unwrap() += 1;
            self.changed.notify_all();
            drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
            Ok(Recommended {
                user_id: question.user_id.map(|id| id.0),
                recommendations: Vec::new(),
                fallback: None,
                unknown_items: Vec::new(),
                model_version: "1".into(),
            })
        }

        fn similar(&self, question: Similar) -> Result<SimilarItems, Refusal> {
            Err(Refusal::UnknownItem(question.item_id))
        }
    }
}
