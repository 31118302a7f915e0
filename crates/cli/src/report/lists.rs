//! What a report measures of a model that finds items: test lists, the spread of scores, and a few users.

use recmill_core::{
    Ask, AskWorkspace, Dataset, UserIndex, Who,
    evaluate::{EvaluateOptions, GroupOptions, TopScores},
};

use crate::{
    failure::Result,
    model::Model,
    report::findings::{Findings, ListTest, Scores, ShownItem, ShownUser},
    titles::Titles,
};

/// Users whose lists the spread of scores is taken from, at most.
const SCORED_USERS: usize = 2000;
/// Bars of the histogram of scores.
const BINS: usize = 24;
/// Items of a history or a list that are shown.
const SHOWN_ITEMS: usize = 10;

/// What lists are asked for, and whom they are shown of.
pub(crate) struct Lists<'a> {
    pub(crate) model: &'a Model,
    pub(crate) options: EvaluateOptions,
    pub(crate) shown_users: usize,
}

impl Lists<'_> {
    /// Measures the model and the most popular items on `test`; whether its rows have values decides whether those are compared.
    pub(crate) fn test(&self, test: &Dataset, has_values: bool) -> recmill_core::Result<ListTest> {
        let recommender = &self.model.recommender;
        let groups = GroupOptions::default();
        let model = recommender.evaluate_groups(test, None, &self.options, &groups)?;
        let most_popular = recommender.evaluate_popular_groups(test, None, &self.options, &groups)?;
        let ratings = if has_values { recommender.evaluate_ratings(test)? } else { None };
        let k = self.options.k.clone();
        Ok(ListTest { files: Vec::new(), protocol: String::new(), k, model, most_popular, ratings })
    }

    /// Adds the spread of scores and a few users to `found`.
    pub(crate) fn describe(&self, found: &mut Findings, test: Option<&Dataset>) -> Result<()> {
        let recommender = &self.model.recommender;
        let seed = self.options.seed;
        let k = self.options.k.first().copied().unwrap_or(SHOWN_ITEMS);
        let users = recommender.sample_users(SCORED_USERS, seed)?;
        found.scores = spread(&recommender.top_scores(&users, k)?, k);
        if found.scores.is_none() {
            found.gap("scores", "No user has an item left to be recommended.");
        }
        let titles = self.model.titles()?;
        found.item_columns = titles.names().map(str::to_owned).collect();
        for user in recommender.sample_users(self.shown_users, seed)? {
            found.users.extend(self.shown(user, &titles, test)?);
        }
        if self.shown_users > 0 && found.users.is_empty() {
            found.gap("users", "No user of the training data has a history.");
        } else if found.item_columns.is_empty() {
            found.gap("users", "Items have no titles: the model was trained without --items.");
        }
        Ok(())
    }

    fn shown(&self, user: UserIndex, titles: &Titles, test: Option<&Dataset>) -> Result<Option<ShownUser>> {
        let recommender = &self.model.recommender;
        let Some(id) = recommender.users().name(user.0) else { return Ok(None) };
        let tested = test.and_then(|test| Some((test, test.by_user().row(test.users.get(id)? as usize))));
        let is_hit = |item_id: &str| {
            tested.is_some_and(|(test, (items, values))| {
                let wanted = items.iter().zip(values).filter(|&(_, &value)| value > 0.0);
                wanted.into_iter().any(|(&item, _)| test.items.name(item) == Some(item_id))
            })
        };
        let item = |index: u32| ShownItem {
            item_id: self.model.item_id(index).to_owned(),
            about: titles.of(index),
            score: None,
            hit: false,
        };
        let mut had = Vec::new();
        self.model.recommender.audience().learnt.read_in_order(user, &mut had)?;
        let history = had.iter().rev().take(SHOWN_ITEMS).map(|&(index, _)| item(index.0)).collect();
        let ask = Ask::new(Who::User(id), SHOWN_ITEMS);
        let answers = recommender.ask(&[ask], &mut AskWorkspace::default())?;
        let recommended = answers.iter().flat_map(|answer| &answer.items).map(|&(index, score)| {
            let item = item(index.0);
            ShownItem { score: Some(score), hit: is_hit(&item.item_id), ..item }
        });
        let recommended = recommended.collect();
        Ok(Some(ShownUser { user_id: id.to_owned(), had: had.len(), history, recommended }))
    }
}

/// Counts scores by bins of equal width; none where there are no scores.
fn spread(scores: &TopScores, k: usize) -> Option<Scores> {
    let all = || scores.first.iter().chain(&scores.last).copied();
    let (low, high) = (all().reduce(f32::min)?, all().reduce(f32::max)?);
    let (low, high) = (f64::from(low), f64::from(high));
    // Scores that are all the same have a bin around them.
    let (low, high) = if high > low { (low, high) } else { (low - 0.5, low + 0.5) };
    let width = (high - low) / BINS as f64;
    let counted = |scores: &[f32]| {
        let mut bins = vec![0; BINS];
        for &score in scores {
            bins[(((f64::from(score) - low) / width) as usize).min(BINS - 1)] += 1;
        }
        bins
    };
    let quantiles = |scores: &[f32]| {
        let mut sorted = scores.to_vec();
        sorted.sort_by(f32::total_cmp);
        [0, sorted.len() / 2, sorted.len().saturating_sub(1)].map(|at| sorted.get(at).copied().unwrap_or(0.0))
    };
    Some(Scores {
        users: scores.first.len(),
        k,
        edges: (0..=BINS).map(|edge| low + width * edge as f64).collect(),
        first: counted(&scores.first),
        last: counted(&scores.last),
        first_quantiles: quantiles(&scores.first),
        last_quantiles: quantiles(&scores.last),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_score_is_in_a_bin() {
        let scores = TopScores { first: vec![3.0, 2.0, 2.5], last: vec![1.0, 1.0, 2.0] };
        let spread = spread(&scores, 10).unwrap();
        assert_eq!((spread.first.iter().sum::<usize>(), spread.last.iter().sum::<usize>()), (3, 3));
        assert_eq!((spread.last[0], spread.first[BINS - 1]), (2, 1));
        assert_eq!((spread.edges[0], spread.edges[BINS]), (1.0, 3.0));
        assert_eq!(spread.first_quantiles, [2.0, 2.5, 3.0]);
    }

    #[test]
    fn equal_scores_have_one_bin_and_no_scores_none() {
        let same = TopScores { first: vec![1.0; 4], last: vec![1.0; 4] };
        let spread_of_same = spread(&same, 10).unwrap();
        assert_eq!(spread_of_same.first.iter().filter(|&&n| n > 0).count(), 1);
        assert!(spread(&TopScores::default(), 10).is_none());
    }
}
