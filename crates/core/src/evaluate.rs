//! How good a model is on interactions that it has not seen.
//!
//! | protocol          | ranks for each user                                | history            |
//! |-------------------|----------------------------------------------------|--------------------|
//! | full              | the whole catalogue                                | removed            |
//! | candidates        | the items listed for the user, as a set            | not removed        |
//! | sampled negatives | the test items and N drawn outside the whole history | not removed      |
//!
//! A test row of positive value is relevant. Test items that the model does not know count as misses in the first
//! protocol; in the others they are ranked below all known ones, by hash among themselves. Users that neither the model
//! nor a history knows are counted and left out, or counted as misses where [`UnknownUsers::Zero`] says so. Equal scores
//! are ordered by a hash of (seed, user, item), never in the model's favour.
//!
//! Users go through the model in blocks, so that memory does not grow with users x items; sums are in the order of the
//! users, so that the result has the same bits on any number of threads.

mod groups;
mod sample;
mod test_set;
mod top_scores;

use rayon::prelude::*;
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap};

pub use groups::{ActivityGroup, Band, Bands, GroupOptions, GroupedEvaluation, PopularityGroup};
pub use sample::sample_candidates;
pub use test_set::{Resolve, TestItem, TestSet};
pub use top_scores::{TopScores, sample_users, top_scores};

use crate::{
    Audience, Batch, Dataset, Error, ItemIndex, Result, Row, Workspace,
    metrics::{ErrorSums, RankMetric},
};
use groups::GroupSums;
use test_set::Relevant;

/// What becomes of test users that neither the model nor a history knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum UnknownUsers {
    /// They are counted, said and left out.
    #[default]
    Skip,
    /// They count as users for whom nothing is found.
    Zero,
}

/// How to evaluate.
#[derive(Clone, Debug, PartialEq)]
pub struct EvaluateOptions {
    /// The lengths of lists to measure, such as 10 and 20.
    pub k: Vec<usize>,
    /// Orders equal scores, with the user and the item.
    pub seed: u64,
    /// What becomes of unknown users.
    pub unknown_users: UnknownUsers,
    /// Users that are scored together.
    pub block_users: usize,
}

impl Default for EvaluateOptions {
    fn default() -> Self {
        Self { k: vec![10, 20], seed: 0, unknown_users: UnknownUsers::Skip, block_users: 1024 }
    }
}

/// Named numbers in the order in which they are printed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<(String, f64)>);

impl Metrics {
    /// Returns the metric called `name`, such as `ndcg@10`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// Returns all names and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, f64)> {
        self.0.iter().map(|(name, value)| (name.as_str(), *value))
    }

    /// Adds a metric at the end.
    pub fn push(&mut self, name: impl Into<String>, value: f64) {
        self.0.push((name.into(), value));
    }
}

impl Serialize for Metrics {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// What an evaluation found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Evaluation {
    /// The metrics, by name and length of list.
    pub metrics: Metrics,
    /// Users that the means are over.
    pub users: usize,
    /// Test users that neither the model nor a history knows.
    pub unknown_users: usize,
    /// Test users that were left out because there are no candidates for them.
    pub users_without_candidates: usize,
    /// Test rows whose item the model does not know.
    pub unknown_item_rows: usize,
    /// Test rows whose item is in the user's history, which is removed: they count as misses.
    pub seen_rows: usize,
    /// Test rows that were predicted, where values were.
    pub predicted_rows: u64,
}

/// Ranks for every user of `test` and measures where the relevant items stand.
///
/// With `candidates`, users and items by their text ids, only those are ranked; without, the whole catalogue minus the
/// user's history.
///
/// # Errors
/// [`Error::NothingToEvaluate`] when no user is left; [`Error::InvalidOption`] when a length of list is 0; as
/// [`crate::models::Retriever::score`].
pub fn evaluate(
    audience: &Audience<'_>,
    resolve: &Resolve<'_>,
    test: &Dataset,
    candidates: Option<&Dataset>,
    options: &EvaluateOptions,
) -> Result<Evaluation> {
    let (result, _) = run(audience, resolve, test, candidates, options, None)?;
    Ok(result)
}

/// As [`evaluate`], and also by groups of users who did as much, and of items in the same band of `bands`.
///
/// # Errors
/// As [`evaluate`].
pub fn evaluate_groups(
    audience: &Audience<'_>,
    resolve: &Resolve<'_>,
    test: &Dataset,
    candidates: Option<&Dataset>,
    options: &EvaluateOptions,
    (groups, bands): (&GroupOptions, &Bands),
) -> Result<GroupedEvaluation> {
    let sums = GroupSums::new(bands, &options.k);
    let (all, run) = run(audience, resolve, test, candidates, options, Some(sums))?;
    let (sums, covered) = (run.groups.as_ref(), &run.covered);
    Ok(GroupedEvaluation {
        all,
        by_activity: sums.map(|sums| sums.by_activity(groups.activity_groups)).unwrap_or_default(),
        by_popularity: sums.map(|sums| sums.by_popularity(covered)).unwrap_or_default(),
    })
}

/// Ranks for every user; returns what was found of all, and the sums behind it.
fn run<'a>(
    audience: &'a Audience<'a>,
    resolve: &Resolve<'_>,
    test: &Dataset,
    candidates: Option<&Dataset>,
    options: &'a EvaluateOptions,
    groups: Option<GroupSums<'a>>,
) -> Result<(Evaluation, Run<'a>)> {
    if options.k.is_empty() || options.k.contains(&0) {
        return Err(Error::InvalidOption { name: "k", expected: "lengths of lists of at least 1" });
    }
    let test_set = TestSet::new(test, resolve, candidates, options.seed);
    let mut run = Run {
        audience,
        options,
        max_k: options.k.iter().copied().max().unwrap_or(0),
        sums: vec![0.0; RankMetric::ALL.len() * options.k.len()],
        covered: options.k.iter().map(|_| vec![0; audience.retriever.n_items().div_ceil(64)]).collect(),
        groups,
        result: Evaluation {
            users_without_candidates: test_set.users_without_candidates,
            unknown_item_rows: test_set.unknown_item_rows,
            ..Evaluation::default()
        },
    };
    let mut workspace = Workspace::default();
    let mut batch = Batch::default();
    for block in test_set.users.chunks(options.block_users.max(1)) {
        run.block(block, &mut batch, &mut workspace)?;
    }
    Ok((run.finish()?, run))
}

/// Predicts the value of every row of `test`; none where the model predicts no values.
///
/// # Errors
/// [`Error::NothingToEvaluate`] when there are no rows; as [`crate::models::Retriever::predict`].
pub fn evaluate_ratings(
    audience: &Audience<'_>,
    resolve: &Resolve<'_>,
    test: &Dataset,
) -> Result<Option<Evaluation>> {
    let mut sums = ErrorSums::default();
    let mut result = Evaluation::default();
    let items: Vec<Option<ItemIndex>> = test.items.iter().map(|id| resolve.item(id)).collect();
    let (mut pairs, mut predicted) = (Vec::new(), Vec::new());
    for (user, id) in test.users.iter().enumerate() {
        let person = resolve.person(id);
        let (columns, values) = test.by_user().row(user);
        if columns.is_empty() {
            continue;
        }
        pairs.clear();
        pairs.extend(columns.iter().map(|&item| (person.user, items[item as usize])));
        if !audience.retriever.predict(&pairs, &mut predicted)? {
            return Ok(None);
        }
        result.users += 1;
        result.unknown_users += usize::from(person.user.is_none());
        result.unknown_item_rows += pairs.iter().filter(|(_, item)| item.is_none()).count();
        for (&predicted, &actual) in predicted.iter().zip(values) {
            sums.add(predicted, actual);
        }
    }
    if sums.n() == 0 {
        return Err(Error::NothingToEvaluate { unknown_users: 0 });
    }
    result.metrics.push("rmse", sums.rmse());
    result.metrics.push("mae", sums.mae());
    result.predicted_rows = sums.n();
    Ok(Some(result))
}

struct Run<'a> {
    audience: &'a Audience<'a>,
    options: &'a EvaluateOptions,
    max_k: usize,
    /// Metric by metric, length by length.
    sums: Vec<f64>,
    /// For each length a bit for each item that was recommended to anybody.
    covered: Vec<Vec<u64>>,
    groups: Option<GroupSums<'a>>,
    result: Evaluation,
}

impl Run<'_> {
    fn block(&mut self, users: &[Relevant], batch: &mut Batch, workspace: &mut Workspace) -> Result<()> {
        let rows: Vec<Option<(Row, usize)>> =
            users.par_iter().map(|user| self.row(user)).collect::<Result<_>>()?;
        let seen = |(user, row): (&Relevant, &Option<(Row, usize)>)| {
            row.as_ref().map_or(0, |(row, _)| user.among(&row.exclude))
        };
        self.result.seen_rows += users.iter().zip(&rows).map(seen).sum::<usize>();
        let had: Vec<Option<usize>> = rows.iter().map(|row| row.as_ref().map(|(_, had)| *had)).collect();
        batch.rows.clear();
        batch.rows.extend(rows.into_iter().flatten().map(|(row, _)| row));
        self.audience.retriever.score(batch, workspace)?;
        let mut answers = 0..workspace.n_rows();
        let mut ranks = Vec::new();
        for (user, had) in users.iter().zip(had) {
            ranks.clear();
            let mut items: &[ItemIndex] = &[];
            if had.is_some() {
                (items, _) = workspace.answer(answers.next().unwrap_or_default());
                self.cover(items);
                user.ranks(items, self.max_k, &mut ranks);
            } else {
                self.result.unknown_users += 1;
                if self.options.unknown_users == UnknownUsers::Skip {
                    continue;
                }
            }
            self.result.users += 1;
            if let Some(groups) = &mut self.groups {
                groups.add(user, had.unwrap_or(0), items, &ranks);
            }
            let lengths = self.options.k.len();
            for (metric, sums) in RankMetric::ALL.iter().zip(self.sums.chunks_mut(lengths)) {
                for (sum, &k) in sums.iter_mut().zip(&self.options.k) {
                    *sum += metric.at(k, &ranks, user.n_relevant());
                }
            }
        }
        Ok(())
    }

    /// The question about a user, and how long their history is; none where nobody knows them.
    fn row(&self, user: &Relevant) -> Result<Option<(Row, usize)>> {
        let mut history = Vec::new();
        let Some(query) = self.audience.question(user.person, &mut history)? else { return Ok(None) };
        let candidates = user.known_candidates();
        let exclude = match candidates {
            Some(_) => Vec::new(),
            None => history.iter().map(|&(item, _)| item).collect(),
        };
        let row = Row { query, k: self.max_k, exclude, candidates, allow: None, tie_key: user.tie_key };
        Ok(Some((row, history.len())))
    }

    fn cover(&mut self, items: &[ItemIndex]) {
        for (bits, &k) in self.covered.iter_mut().zip(&self.options.k) {
            for item in &items[..k.min(items.len())] {
                bits[item.at() / 64] |= 1 << (item.at() % 64);
            }
        }
    }

    fn finish(&mut self) -> Result<Evaluation> {
        if self.result.users == 0 {
            return Err(Error::NothingToEvaluate { unknown_users: self.result.unknown_users });
        }
        let lengths = self.options.k.len();
        for (metric, sums) in RankMetric::ALL.iter().zip(self.sums.chunks(lengths)) {
            for (sum, k) in sums.iter().zip(&self.options.k) {
                self.result.metrics.push(format!("{}@{k}", metric.name()), sum / self.result.users as f64);
            }
        }
        let n_items = self.audience.retriever.n_items().max(1) as f64;
        for (bits, k) in self.covered.iter().zip(&self.options.k) {
            let covered: u32 = bits.iter().map(|word| word.count_ones()).sum();
            self.result.metrics.push(format!("coverage@{k}"), f64::from(covered) / n_items);
        }
        Ok(std::mem::take(&mut self.result))
    }
}
