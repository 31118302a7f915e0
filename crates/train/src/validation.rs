//! Validation on a held-out file: the same protocols and numbers as `evaluate`.

use std::collections::BTreeMap;

use recmill_core::{
    Audience, Dataset,
    evaluate::{EvaluateOptions, Resolve, evaluate, evaluate_ratings},
    models::Retriever,
};

use crate::{Result, Validation};

/// Interactions of users that the model does not learn from.
pub struct HeldOut<'a> {
    data: &'a Dataset,
    test: &'a Dataset,
    candidates: Option<&'a Dataset>,
    metric: String,
    options: EvaluateOptions,
}

impl<'a> HeldOut<'a> {
    /// Ranks the catalogue minus each user's training data, or predicts values where `metric` is `rmse` or `mae`.
    ///
    /// `metric` names what decides, such as `ndcg@10`; a length of list in it joins those of `options`.
    pub fn new(data: &'a Dataset, test: &'a Dataset, metric: &str, mut options: EvaluateOptions) -> Self {
        if let Some(k) = metric.rsplit_once('@').and_then(|(_, k)| k.parse().ok())
            && !options.k.contains(&k)
        {
            options.k.push(k);
        }
        Self { data, test, candidates: None, metric: metric.to_owned(), options }
    }

    /// Ranks only the items listed for each user.
    pub fn among(self, candidates: &'a Dataset) -> Self {
        Self { candidates: Some(candidates), ..self }
    }
}

impl Validation for HeldOut<'_> {
    fn metric(&self) -> &str {
        &self.metric
    }

    fn smaller_is_better(&self) -> bool {
        matches!(self.metric.as_str(), "rmse" | "mae")
    }

    fn fingerprint(&self) -> String {
        let candidates = self.candidates.map(|candidates| format!("-{}", candidates.fingerprint()));
        self.test.fingerprint() + &candidates.unwrap_or_default()
    }

    fn measure(&mut self, model: &dyn Retriever) -> Result<BTreeMap<String, f64>> {
        let audience = Audience { retriever: model, learnt: self.data, given: None };
        let resolve = Resolve { users: &self.data.users, items: &self.data.items, given_users: None };
        let evaluation = if self.smaller_is_better() {
            evaluate_ratings(&audience, &resolve, self.test)?.unwrap_or_default()
        } else {
            evaluate(&audience, &resolve, self.test, self.candidates, &self.options)?
        };
        Ok(evaluation.metrics.iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}
