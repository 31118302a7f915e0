//! Interactions to a [`Dataset`], in bounded memory.

use super::distinct::DistinctPairs;
use super::interactions::Interactions;
use super::merge::{Block, MergeRule, Merged};
use super::thin::thin;
use super::{HalfLife, Repeats};
use crate::{Csr, Dataset, Error, IdMap, Result};

/// Rows in hand that may be repeats without being merged early; part of the constant that memory is bounded by.
const UNMERGED_ROWS: usize = 1 << 21;

/// Rows in hand for each different pair at which repeats are merged early.
const ROWS_PER_PAIR: f64 = 1.4;

/// Takes interactions one after the other and makes a dataset of them.
///
/// Users and items are numbered in the order of their first appearance, after those of a dataset that is extended. At its
/// peak it uses less than twice the memory of the finished dataset, rows by item included, plus a constant.
///
/// # Determinism
/// The same interactions in the same order give the same bits, however many threads there are.
pub struct DatasetBuilder {
    users: IdMap,
    items: IdMap,
    base: (usize, usize),
    repeats: Repeats,
    half_life: Option<HalfLife>,
    merged: Merged,
    blocks: Vec<Block>,
    distinct: DistinctPairs,
    /// Whether there are times; not known before the first interaction.
    with_times: Option<bool>,
    /// The newest time, and the one that the merged values are counted from.
    newest: i64,
    counted_from: i64,
    rows: u64,
    base_pairs: u64,
    dropped_times: bool,
}

/// A finished dataset, and what became of its rows.
#[derive(Debug)]
pub struct Built {
    /// The dataset.
    pub dataset: Dataset,
    /// Rows that were merged into another of the same user and item.
    pub repeated_rows: u64,
    /// Users left out for too few items.
    pub dropped_users: usize,
    /// Items left out for too few users.
    pub dropped_items: usize,
    /// Pairs left out with them.
    pub dropped_interactions: usize,
    /// Whether times were dropped, because some interactions had none.
    pub dropped_times: bool,
}

impl DatasetBuilder {
    /// Begins a dataset, or the extension of `base`.
    ///
    /// # Errors
    /// [`Error::BadOption`] for what cannot be carried on: a mean, as a dataset does not keep how many rows a value is
    /// the mean of, and a half-life without times.
    pub fn new(repeats: Repeats, half_life: Option<HalfLife>, base: Option<Dataset>) -> Result<Self> {
        let mut builder = Self {
            users: IdMap::default(),
            items: IdMap::default(),
            base: (0, 0),
            repeats,
            half_life,
            merged: Merged::default(),
            blocks: Vec::new(),
            distinct: DistinctPairs::new(),
            with_times: None,
            newest: i64::MIN,
            counted_from: i64::MIN,
            rows: 0,
            base_pairs: 0,
            dropped_times: false,
        };
        let Some(base) = base else { return Ok(builder) };
        if repeats == Repeats::Mean {
            let expected = "sum, last, max or first where a dataset is extended";
            return Err(Error::BadOption { option: "repeats", expected, found: repeats.to_string() });
        }
        if half_life.is_some() && base.times().is_none() {
            return Err(no_times(half_life));
        }
        builder.base = (base.n_users(), base.n_items());
        let parts = base.into_parts();
        let (_, indptr, items, values) = parts.by_user.into_parts();
        for (user, ends) in indptr.windows(2).enumerate() {
            for &item in &items[ends[0] as usize..ends[1] as usize] {
                builder.distinct.insert(user as u32, item);
            }
        }
        builder.newest = parts.times.iter().flatten().copied().max().unwrap_or(i64::MIN);
        builder.counted_from = builder.newest;
        builder.with_times = (!items.is_empty()).then_some(parts.times.is_some());
        builder.base_pairs = items.len() as u64;
        (builder.users, builder.items) = (parts.users, parts.items);
        builder.merged =
            Merged { indptr, items, values, times: parts.times, counts: None, order: parts.order };
        Ok(builder)
    }

    /// Adds interactions.
    ///
    /// # Errors
    /// [`Error::TooManyIds`]; [`Error::BadOption`] for a half-life without times.
    pub fn push(&mut self, interactions: &Interactions) -> Result<()> {
        let with_times = self.agree_on_times(interactions.times.is_some())?;
        let mut at = 0;
        while at < interactions.len() {
            if self.blocks.last().is_none_or(|block| block.room() == 0) {
                self.merge_early();
                self.blocks.push(Block::new(with_times));
            }
            let Some(block) = self.blocks.last_mut() else { break };
            let stretch = at..(at + block.room()).min(interactions.len());
            at = stretch.end;
            for row in stretch.map(|at| interactions.row(at)) {
                let user = self.users.get_or_insert(interactions.users.value(row))?;
                let item = self.items.get_or_insert(interactions.items.value(row))?;
                self.distinct.insert(user, item);
                block.users.push(user);
                block.items.push(item);
                block.values.push(interactions.values.as_ref().map_or(1.0, |values| values[row]));
                if let (true, Some(times)) = (with_times, &interactions.times) {
                    block.times.push(times[row]);
                    self.newest = self.newest.max(times[row]);
                }
            }
        }
        self.rows += interactions.len() as u64;
        Ok(())
    }

    /// Adds one interaction.
    ///
    /// # Errors
    /// Those of [`DatasetBuilder::push`].
    pub fn push_one(&mut self, user: &str, item: &str, value: f32, time: Option<i64>) -> Result<()> {
        self.push(&Interactions {
            users: vec![user].into(),
            items: vec![item].into(),
            values: Some(vec![value]),
            times: time.map(|time| vec![time]),
            kept: None,
        })
    }

    /// Finishes the dataset without the users and items that have too few of the other; those of the extended dataset stay.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] never, unless there is a fault in this crate.
    pub fn finish(mut self, min_user_interactions: usize, min_item_interactions: usize) -> Result<Built> {
        self.merge();
        self.merged.divide();
        let repeated_rows = self.base_pairs + self.rows - self.merged.items.len() as u64;
        let thinned = thin(
            &mut self.merged,
            (&mut self.users, &mut self.items),
            self.base,
            (min_user_interactions, min_item_interactions),
        );
        let Merged { indptr, items, values, times, order, .. } = self.merged;
        let by_user = Csr::new(self.items.len(), indptr, items, values)?;
        let dataset = Dataset::new(self.users, self.items, by_user, times, order)?;
        Ok(Built {
            dataset,
            repeated_rows,
            dropped_users: thinned.users,
            dropped_items: thinned.items,
            dropped_interactions: thinned.interactions,
            dropped_times: self.dropped_times,
        })
    }

    fn rows_in_blocks(&self) -> usize {
        self.blocks.iter().map(|block| block.users.len()).sum()
    }

    /// Times are kept while every interaction has one.
    fn agree_on_times(&mut self, offered: bool) -> Result<bool> {
        if self.half_life.is_some() && !offered {
            return Err(no_times(self.half_life));
        }
        let kept = self.with_times.is_none_or(|kept| kept) && offered;
        if self.with_times == Some(true) && !kept {
            self.merged.times = None;
            self.blocks.iter_mut().for_each(|block| block.times = Vec::new());
        }
        self.dropped_times |= offered != kept || (self.with_times == Some(true) && !kept);
        self.with_times = Some(kept);
        Ok(kept)
    }

    fn merge_early(&mut self) {
        let in_hand = self.merged.items.len() + self.rows_in_blocks();
        if in_hand > UNMERGED_ROWS && in_hand as f64 > ROWS_PER_PAIR * self.distinct.estimate() {
            self.merge();
        }
    }

    fn merge(&mut self) {
        let rule = MergeRule {
            repeats: self.repeats,
            n_users: self.users.len(),
            with_times: self.with_times == Some(true),
            decay: self.half_life.map(|half_life| (half_life.seconds(), self.counted_from, self.newest)),
        };
        self.merged = std::mem::take(&mut self.merged).merge(std::mem::take(&mut self.blocks), &rule);
        self.counted_from = self.newest;
    }
}

fn no_times(half_life: Option<HalfLife>) -> Error {
    let found = half_life.map_or_else(String::new, |half_life| half_life.to_string());
    Error::BadOption { option: "half_life", expected: "a time column, or no half-life", found }
}
