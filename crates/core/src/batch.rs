//! Questions to a retriever, many at a time, and room for the answers.
//!
//! The single call, the command, HTTP and Python all build a [`Batch`]. Its cost is known before any work, and scoring
//! it allocates nothing once a [`Workspace`] has grown to its size. A row's answer does not depend on the rows beside it.

use std::sync::Arc;

use recmill_kernels::{TopkAnswers, TopkQuery, TopkScratch};

use crate::{ItemIndex, UserIndex, models::Lane};

/// Whom or what a row asks about.
#[derive(Clone, Debug, PartialEq)]
pub enum Query {
    /// A user of the training data.
    User(UserIndex),
    /// Anybody, by the items they have had and how much, such as a user that came after training.
    History(Vec<(ItemIndex, f32)>),
    /// The items most like this one.
    Item(ItemIndex),
}

/// One question.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Whom or what it is about.
    pub query: Query,
    /// How many items to answer with, at most.
    pub k: usize,
    /// Items that must not be in the answer, ascending, such as those already seen.
    pub exclude: Vec<ItemIndex>,
    /// Where given, the only items that may be in the answer, ascending.
    pub candidates: Option<Vec<ItemIndex>>,
    /// Where given, one bit an item, 64 to a word, lowest first: only items whose bit is set may be in the answer.
    pub allow: Option<Arc<[u64]>>,
    /// Orders items of equal score, by a hash of (key, item); made of the seed and the user.
    pub tie_key: u64,
}

impl Row {
    /// Asks for `k` items with no filter.
    pub fn new(query: Query, k: usize) -> Self {
        Self { query, k, exclude: Vec::new(), candidates: None, allow: None, tie_key: 0 }
    }
}

/// Returns the key that orders items of equal score for one user: made of the seed and the user's id, the same on every
/// machine.
pub fn tie_key(seed: u64, user_id: &str) -> u64 {
    // FNV-1a over the id, begun at the seed and mixed by the finalizer of SplitMix64.
    let mut hash = 0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for &byte in user_id.as_bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Questions that are answered together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The questions.
    pub rows: Vec<Row>,
}

impl Batch {
    /// Returns the number of (row, item) pairs that a catalogue of `n_items` makes it score.
    pub fn cost(&self, n_items: usize) -> u64 {
        self.rows.iter().map(|row| row.candidates.as_ref().map_or(n_items, Vec::len) as u64).sum()
    }
}

/// Answers, and the scratch memory that scoring needs; used again from batch to batch.
#[derive(Debug, Default)]
pub struct Workspace {
    /// Row `r`'s answer is `ends[r - 1] .. ends[r]` of `items` and `scores`.
    pub(crate) ends: Vec<usize>,
    pub(crate) items: Vec<ItemIndex>,
    pub(crate) scores: Vec<f32>,
    pub(crate) lanes: Vec<Lane>,
    /// `[n_rows, dim]`: what the rows are scored by, and what is added to their scores.
    pub(crate) vectors: Vec<f32>,
    pub(crate) offsets: Vec<f32>,
    pub(crate) queries: Vec<TopkQuery<'static>>,
    pub(crate) topk: TopkScratch,
    pub(crate) answers: TopkAnswers,
}

impl Workspace {
    /// Forgets the answers and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.ends.clear();
        self.items.clear();
        self.scores.clear();
    }

    /// Adds each row's offset to its scores.
    pub(crate) fn add_offsets(&mut self) {
        let mut start = 0;
        for (&end, &offset) in self.ends.iter().zip(&self.offsets) {
            self.scores[start..end].iter_mut().for_each(|score| *score += offset);
            start = end;
        }
    }

    /// Returns the items and scores that answer row `row`, best first; nothing past the last row.
    pub fn answer(&self, row: usize) -> (&[ItemIndex], &[f32]) {
        let Some(&end) = self.ends.get(row) else { return (&[], &[]) };
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        (&self.items[start..end], &self.scores[start..end])
    }

    /// Returns how many rows are answered.
    pub fn n_rows(&self) -> usize {
        self.ends.len()
    }
}
