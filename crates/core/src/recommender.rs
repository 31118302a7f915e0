//! A model with everything that asking it by text ids needs: ids, histories, and an answer for unknown users.
//!
//! Commands, servers and bindings build their questions here, so that all of them mean the same by "seen", "allowed" and
//! "unknown".

use std::sync::{Arc, OnceLock};

use arrow::{
    array::{RecordBatch, UInt32Array},
    compute::take_record_batch,
    error::ArrowError,
};
use recmill_kernels::{Buffer, Device};

use crate::{
    Audience, Batch, Csr, Dataset, Error, IdMap, Ids, ItemIndex, Query, Result, Row, Side, UserHistory,
    UserIndex, Workspace,
    data::{Attributes, BadRows, OnBadRow},
    evaluate::{
        self, Bands, EvaluateOptions, Evaluation, GroupOptions, GroupedEvaluation, Resolve, TopScores,
    },
    features::Described,
    models::{MostPopular, MostPopularConfig, Retriever},
    tie_key,
};

/// Whom or what a question is about.
#[derive(Clone, Debug, PartialEq)]
pub enum Who<'a> {
    /// A user by id.
    User(&'a str),
    /// Anybody, by the ids of the items they have had and how much.
    History(Vec<(&'a str, f32)>),
    /// What is like this item.
    Item(&'a str),
}

/// One question by text ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask<'a> {
    /// Whom or what it is about.
    pub who: Who<'a>,
    /// How many items to answer with, at most.
    pub k: usize,
    /// Whether items that the user has had may be in the answer.
    pub allow_seen: bool,
    /// Items that must not be in the answer; unknown ids are ignored.
    pub exclude: Vec<&'a str>,
    /// Where given, the only items that may be in the answer; unknown ids are reported.
    pub candidates: Option<Vec<&'a str>>,
    /// Where given, one bit an item, as a `--where` makes it: only items whose bit is set may be in the answer.
    pub allow: Option<Arc<[u64]>>,
}

impl<'a> Ask<'a> {
    /// Asks for `k` items that are new to the user, with no other filter.
    pub fn new(who: Who<'a>, k: usize) -> Self {
        Self { who, k, allow_seen: false, exclude: Vec::new(), candidates: None, allow: None }
    }
}

/// What an answer was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerSource {
    /// The model's parameters for the user, or the item.
    Model,
    /// The user's history.
    History,
    /// What is most popular: neither the model nor a history knows the user.
    MostPopular,
}

impl AnswerSource {
    /// Returns the name that commands and servers print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::History => "history",
            Self::MostPopular => "most-popular",
        }
    }
}

/// The answer to one question.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What it was made from.
    pub source: AnswerSource,
    /// Items and their scores, best first.
    pub items: Vec<(ItemIndex, f32)>,
    /// Ids of the question's history and candidates that the model does not know, in the order given.
    pub unknown_items: Vec<String>,
}

/// Memory that answering needs, used again from call to call.
#[derive(Debug, Default)]
pub struct AskWorkspace {
    model: (Batch, Workspace),
    popular: (Batch, Workspace),
}

/// Histories that count instead of what the model learnt from.
struct Given {
    users: IdMap,
    histories: GivenHistories,
}

struct GivenHistories {
    by_user: Csr,
    /// For every row its entries from the oldest to the newest, counted from the row's start.
    order: Vec<u32>,
}

impl UserHistory for GivenHistories {
    fn n_users(&self) -> usize {
        self.by_user.n_rows()
    }

    fn read(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        self.by_user.read(user, out)
    }

    fn read_in_order(&self, user: UserIndex, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        let (items, values) = self.by_user.row(user.at());
        let entry = |&entry: &u32| (ItemIndex(items[entry as usize]), values[entry as usize]);
        out.clear();
        out.extend(self.order[self.by_user.range(user.at())].iter().map(entry));
        Ok(())
    }
}

/// The ids of training, and those that came later behind them.
pub struct LaterIds {
    /// Those of training.
    pub first: Arc<dyn Ids>,
    /// None of those.
    pub later: IdMap,
}

impl Ids for LaterIds {
    fn len(&self) -> usize {
        self.first.len() + self.later.len()
    }

    fn index(&self, id: &str) -> Option<u32> {
        self.first.index(id).or_else(|| Some(self.later.get(id)? + self.first.len() as u32))
    }

    fn name(&self, index: u32) -> Option<&str> {
        match index.checked_sub(self.first.len() as u32) {
            None => self.first.name(index),
            Some(index) => self.later.name(index),
        }
    }
}

/// Who or what was added to a [`Recommender`].
#[derive(Debug)]
pub struct Added {
    /// The ids that the model did not have.
    pub ids: IdMap,
    /// What is known of them, a row each.
    pub rows: RecordBatch,
    /// How many values of which column training did not have: nothing is known from those.
    pub unseen: Vec<(String, u64)>,
    /// Rows that were left out as bad, by kind.
    pub bad_rows: Vec<BadRows>,
}

/// Leaves some rows out, and their ids.
fn without(left_out: &[u32], ids: &IdMap, rows: &RecordBatch, what: &str) -> Result<(IdMap, RecordBatch)> {
    let kept: Vec<u32> = (0..ids.len() as u32).filter(|row| left_out.binary_search(row).is_err()).collect();
    let mut others = IdMap::default();
    for id in kept.iter().filter_map(|&row| ids.name(row)) {
        others.get_or_insert(id)?;
    }
    let rows = take_record_batch(rows, &UInt32Array::from(kept));
    let refused = |error: ArrowError| Error::BadFile { path: what.to_owned(), what: error.to_string() };
    Ok((others, rows.map_err(refused)?))
}

/// A model, its ids, and what its users have had.
pub struct Recommender {
    retriever: Box<dyn Retriever>,
    users: Arc<dyn Ids>,
    items: Arc<dyn Ids>,
    learnt: Arc<dyn UserHistory>,
    given: Option<Given>,
    popular: OnceLock<MostPopular>,
    seed: u64,
}

impl Recommender {
    /// Joins a model, the ids of its users and items, and the interactions it learnt from.
    ///
    /// # Errors
    /// [`Error::WrongSize`] when the model, the ids and the histories are not of as many users and items; the message
    /// says which side differs.
    pub fn new(
        retriever: Box<dyn Retriever>,
        users: Arc<dyn Ids>,
        items: Arc<dyn Ids>,
        learnt: Arc<dyn UserHistory>,
        seed: u64,
    ) -> Result<Self> {
        let wrong = |what, side, expected, got| Err(Error::WrongSize { what, side, expected, got });
        if retriever.n_items() != items.len() {
            return wrong("model", "items", items.len(), retriever.n_items());
        }
        if retriever.n_users() != 0 && retriever.n_users() != users.len() {
            return wrong("model", "users", users.len(), retriever.n_users());
        }
        if learnt.n_users() != users.len() {
            return wrong("histories", "users", users.len(), learnt.n_users());
        }
        Ok(Self { retriever, users, items, learnt, given: None, popular: OnceLock::new(), seed })
    }

    /// Scores on `device` from now on.
    ///
    /// # Errors
    /// As [`Retriever::score_on`].
    pub fn score_on(&mut self, device: Device) -> Result<()> {
        self.retriever.score_on(device)
    }

    /// Adds users or items that came after training, placed by what is known of them: each row of `attributes` that the model has no
    /// id for, which the first column holds. What they have had, if anything, is for [`Recommender::set_history`] to say,
    /// later. Lists are scored on the CPU until [`Recommender::score_on`].
    ///
    /// `what` names the rows in messages, such as their file; `on_bad_row` says what a bad one does.
    ///
    /// # Errors
    /// [`Error::NoFeatures`] when the model learned nothing of what they are like; [`Error::BadFile`] when the first column holds no ids;
    /// [`Error::NoSuchColumn`] and [`Error::BadRow`] for columns that are not as those of training.
    pub fn add(
        &mut self,
        side: Side,
        attributes: &Attributes,
        what: &str,
        on_bad_row: OnBadRow,
    ) -> Result<Added> {
        let known = match side {
            Side::Users => &mut self.users,
            Side::Items => &mut self.items,
        };
        let features = self.retriever.features(side).cloned();
        let features = features.ok_or(Error::NoFeatures { side: side.name() })?;
        let (mut ids, mut rows) = attributes.unknown_to(&**known)?;
        let mut described = Described::of(features.clone(), &rows, what, on_bad_row)?;
        let bad_rows = described.bad_rows().to_vec();
        if !bad_rows.is_empty() {
            (ids, rows) = without(described.left_out(), &ids, &rows, what)?;
            described = Described::of(features, &rows, what, on_bad_row)?;
        }
        self.retriever.add(side, &described)?;
        *known = Arc::new(LaterIds { first: known.clone(), later: ids.clone() });
        if side == Side::Items {
            self.popular = OnceLock::new();
        }
        let unseen = described.unseen().map(|(column, n)| (column.to_owned(), n)).collect();
        Ok(Added { ids, rows, unseen, bad_rows })
    }

    /// Counts `history` as what its users have had, instead of what the model learnt from; returns how many of its
    /// interactions were left out because the model does not know their item.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] never for a sound data set.
    pub fn set_history(&mut self, history: Dataset) -> Result<u64> {
        let items: Vec<Option<u32>> = history.items.iter().map(|id| self.items.index(id)).collect();
        let (mut indptr, mut pairs, mut order) = (vec![0u64], Vec::new(), Vec::new());
        let (mut own, mut places) = (Vec::new(), Vec::new());
        for user in 0..history.n_users() {
            let (columns, values) = history.by_user().row(user);
            let known = |&entry: &u32| {
                let entry = entry as usize;
                Some((items[columns[entry] as usize]?, values[entry]))
            };
            own.clear();
            own.extend(history.order(user).iter().filter_map(known));
            places.clear();
            places.extend(0..own.len() as u32);
            places.sort_unstable_by_key(|&place| own[place as usize].0);
            pairs.extend(places.iter().map(|&place| own[place as usize]));
            let start = order.len();
            order.resize(start + own.len(), 0);
            for (entry, &place) in places.iter().enumerate() {
                order[start + place as usize] = entry as u32;
            }
            indptr.push(pairs.len() as u64);
        }
        let left_out = (history.by_user().nnz() - pairs.len()) as u64;
        let (indices, values) = pairs.into_iter().unzip();
        let by_user = Csr::new(self.items.len(), indptr, indices, values)?;
        let histories = GivenHistories { by_user, order };
        self.given = Some(Given { users: history.users, histories });
        Ok(left_out)
    }

    /// Returns the model.
    pub fn retriever(&self) -> &dyn Retriever {
        &*self.retriever
    }

    /// Returns the ids of the users that the model learnt from.
    pub fn users(&self) -> &dyn Ids {
        &*self.users
    }

    /// Returns the ids of the catalogue.
    pub fn items(&self) -> &dyn Ids {
        &*self.items
    }

    /// Returns the model together with what its users have had.
    pub fn audience(&self) -> Audience<'_> {
        Audience {
            retriever: &*self.retriever,
            learnt: &*self.learnt,
            given: self.given.as_ref().map(|given| &given.histories as &dyn UserHistory),
        }
    }

    /// Returns how text ids become indices.
    pub fn resolve(&self) -> Resolve<'_> {
        Resolve {
            users: &*self.users,
            items: &*self.items,
            given_users: self.given.as_ref().map(|given| &given.users as &dyn Ids),
        }
    }

    /// Writes what `user_id` has had to `out`, items ascending; nothing for an unknown user.
    ///
    /// # Errors
    /// As [`UserHistory::read`].
    pub fn history(&self, user_id: &str, out: &mut Vec<(ItemIndex, f32)>) -> Result<()> {
        self.audience().question(self.resolve().person(user_id), out).map(|_| ())
    }

    /// Returns the most popular items of the interactions that the model learnt from; counted at the first call.
    ///
    /// # Errors
    /// As [`UserHistory::read`].
    pub fn popular(&self) -> Result<&MostPopular> {
        if let Some(popular) = self.popular.get() {
            return Ok(popular);
        }
        let mut counts = vec![0f64; self.items.len()];
        let mut history = Vec::new();
        for user in 0..self.learnt.n_users() as u32 {
            self.learnt.read(UserIndex(user), &mut history)?;
            for &(item, value) in &history {
                counts[item.at()] += f64::from(u8::from(value > 0.0));
            }
        }
        let counts = counts.into_iter().map(|count| count as f32).collect();
        let popular =
            MostPopular::new(MostPopularConfig::default(), Buffer::from_vec(counts, "popularity")?)?;
        Ok(self.popular.get_or_init(|| popular))
    }

    /// Computes what the first answers would otherwise compute, and asks for one of each kind: a GPU's kernels are compiled then.
    ///
    /// # Errors
    /// As [`Retriever::warm_up`], [`Recommender::popular`] and [`Recommender::ask`].
    pub fn warm_up(&self) -> Result<()> {
        const K: usize = 10;
        self.popular()?;
        self.retriever.warm_up()?;
        let Some(item) = self.items().name(0) else { return Ok(()) };
        let new = Who::History(vec![(item, 1.0)]);
        let among = Ask { candidates: Some(vec![item]), ..Ask::new(new.clone(), K) };
        let known = self.users().name(0).map(|user| Ask::new(Who::User(user), K));
        for ask in [Ask::new(new, K), among].into_iter().chain(known) {
            // One by one, as requests are answered.
            self.ask(&[ask], &mut AskWorkspace::default())?;
        }
        Ok(())
    }

    /// Answers every question, in order.
    ///
    /// # Errors
    /// [`Error::UnknownItem`] when a question is about an item that the model does not know; as [`Retriever::score`].
    pub fn ask(&self, asks: &[Ask<'_>], workspace: &mut AskWorkspace) -> Result<Vec<Answer>> {
        let AskWorkspace { model, popular } = workspace;
        model.0.rows.clear();
        popular.0.rows.clear();
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let (row, answer) = self.row(ask)?;
            match answer.source {
                AnswerSource::MostPopular => popular.0.rows.push(row),
                _ => model.0.rows.push(row),
            }
            answers.push(answer);
        }
        self.retriever.score(&model.0, &mut model.1)?;
        if !popular.0.rows.is_empty() {
            self.popular()?.score(&popular.0, &mut popular.1)?;
        }
        let (mut of_model, mut of_popular) = (0.., 0..);
        for answer in &mut answers {
            let (items, scores) = match answer.source {
                AnswerSource::MostPopular => popular.1.answer(of_popular.next().unwrap_or_default()),
                _ => model.1.answer(of_model.next().unwrap_or_default()),
            };
            answer.items.extend(items.iter().copied().zip(scores.iter().copied()));
        }
        Ok(answers)
    }

    /// Turns a question into a row, and the answer that is still without items. The rows of answers from
    /// [`AnswerSource::MostPopular`] are for [`Recommender::popular`], all others for the model.
    ///
    /// # Errors
    /// [`Error::UnknownItem`]; as [`UserHistory::read`].
    pub fn row(&self, ask: &Ask<'_>) -> Result<(Row, Answer)> {
        let resolve = self.resolve();
        let mut unknown_items = Vec::new();
        let mut seen = Vec::new();
        let mut lookup = |id: &str| {
            let item = resolve.item(id);
            if item.is_none() {
                unknown_items.push(id.to_owned());
            }
            item
        };
        let (query, key) = match &ask.who {
            Who::User(id) => (self.audience().question(resolve.person(id), &mut seen)?, *id),
            Who::History(history) => {
                let known = history.iter().filter_map(|&(id, value)| Some((lookup(id)?, value)));
                seen.extend(known);
                ((!seen.is_empty()).then(|| Query::History(seen.clone())), "")
            }
            Who::Item(id) => {
                let item = resolve.item(id).ok_or_else(|| Error::UnknownItem { id: (*id).to_owned() })?;
                (Some(Query::Item(item)), *id)
            }
        };
        let candidates = ask.candidates.as_ref().map(|ids| {
            let mut items: Vec<ItemIndex> = ids.iter().filter_map(|id| lookup(id)).collect();
            items.sort_unstable();
            items.dedup();
            items
        });
        let mut exclude: Vec<ItemIndex> = ask.exclude.iter().filter_map(|id| resolve.item(id)).collect();
        if !ask.allow_seen {
            exclude.extend(seen.iter().map(|&(item, _)| item));
        }
        exclude.sort_unstable();
        exclude.dedup();
        let source = match &query {
            None => AnswerSource::MostPopular,
            Some(Query::History(_)) => AnswerSource::History,
            Some(_) => AnswerSource::Model,
        };
        let row = Row {
            query: query.unwrap_or(Query::History(Vec::new())),
            k: ask.k,
            exclude,
            candidates,
            allow: ask.allow.clone(),
            tie_key: tie_key(self.seed, key),
        };
        Ok((row, Answer { source, items: Vec::new(), unknown_items }))
    }

    /// Measures the model's rankings on `test`; with `candidates`, only those are ranked.
    ///
    /// # Errors
    /// As [`evaluate::evaluate`].
    pub fn evaluate(
        &self,
        test: &Dataset,
        candidates: Option<&Dataset>,
        options: &EvaluateOptions,
    ) -> Result<Evaluation> {
        evaluate::evaluate(&self.audience(), &self.resolve(), test, candidates, options)
    }

    /// Measures on the same users what recommending the most popular items to everyone would reach.
    ///
    /// # Errors
    /// As [`evaluate::evaluate`].
    pub fn evaluate_popular(
        &self,
        test: &Dataset,
        candidates: Option<&Dataset>,
        options: &EvaluateOptions,
    ) -> Result<Evaluation> {
        let audience = Audience { retriever: self.popular()?, ..self.audience() };
        evaluate::evaluate(&audience, &self.resolve(), test, candidates, options)
    }

    /// As [`Recommender::evaluate`], and also by groups of users who did as much and of items that are as popular; popular is
    /// what the model learnt from most often.
    ///
    /// # Errors
    /// As [`evaluate::evaluate`].
    pub fn evaluate_groups(
        &self,
        test: &Dataset,
        candidates: Option<&Dataset>,
        options: &EvaluateOptions,
        groups: &GroupOptions,
    ) -> Result<GroupedEvaluation> {
        let bands = self.bands(groups)?;
        let parts = (groups, &bands);
        evaluate::evaluate_groups(&self.audience(), &self.resolve(), test, candidates, options, parts)
    }

    /// As [`Recommender::evaluate_popular`], by the same groups.
    ///
    /// # Errors
    /// As [`evaluate::evaluate`].
    pub fn evaluate_popular_groups(
        &self,
        test: &Dataset,
        candidates: Option<&Dataset>,
        options: &EvaluateOptions,
        groups: &GroupOptions,
    ) -> Result<GroupedEvaluation> {
        let bands = self.bands(groups)?;
        let audience = Audience { retriever: self.popular()?, ..self.audience() };
        let parts = (groups, &bands);
        evaluate::evaluate_groups(&audience, &self.resolve(), test, candidates, options, parts)
    }

    /// Returns which items are popular among those that the model learnt from, and which are not.
    ///
    /// # Errors
    /// As [`UserHistory::read`].
    pub fn bands(&self, groups: &GroupOptions) -> Result<Bands> {
        Ok(Bands::new(self.popular()?.popularity(), groups))
    }

    /// Chooses at most `n` of the users that the model learnt from, by the seed; see [`evaluate::sample_users`].
    ///
    /// # Errors
    /// As [`evaluate::sample_users`].
    pub fn sample_users(&self, n: usize, seed: u64) -> Result<Vec<UserIndex>> {
        evaluate::sample_users(&self.audience(), n, seed)
    }

    /// Returns the first and the last scores of the lists of `k` items of `users`; see [`evaluate::top_scores`].
    ///
    /// # Errors
    /// As [`evaluate::top_scores`].
    pub fn top_scores(&self, users: &[UserIndex], k: usize) -> Result<TopScores> {
        evaluate::top_scores(&self.audience(), users, k)
    }

    /// Measures the model's predictions on `test`; none where the model predicts no values.
    ///
    /// # Errors
    /// As [`evaluate::evaluate_ratings`].
    pub fn evaluate_ratings(&self, test: &Dataset) -> Result<Option<Evaluation>> {
        evaluate::evaluate_ratings(&self.audience(), &self.resolve(), test)
    }

    /// Draws `n` negatives for each test user; see [`evaluate::sample_candidates`].
    ///
    /// # Errors
    /// As [`evaluate::sample_candidates`].
    pub fn sample_candidates(
        &self,
        test: &Dataset,
        n: usize,
        max_users: Option<usize>,
        seed: u64,
    ) -> Result<Dataset> {
        evaluate::sample_candidates(&self.audience(), &self.resolve(), test, n, max_users, seed)
    }

    /// Predicts the value that a user gives an item; none where the model predicts no values.
    ///
    /// # Errors
    /// As [`Retriever::predict`].
    pub fn predict(&self, pairs: &[(&str, &str)], out: &mut Vec<f32>) -> Result<bool> {
        let resolve = self.resolve();
        let index = |&(user, item): &(&str, &str)| (resolve.person(user).user, resolve.item(item));
        let pairs: Vec<_> = pairs.iter().map(index).collect();
        self.retriever.predict(&pairs, out)
    }
}

impl std::fmt::Debug for Recommender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recommender of {} users and {} items", self.users.len(), self.items.len())
    }
}
