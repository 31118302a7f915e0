//! How scores are spread: those of the first and of the last place of some users' lists.

use std::collections::BinaryHeap;

use recmill_kernels::tie_hash;
use serde::Serialize;

use crate::{Audience, Batch, Person, Result, Row, UserIndex, Workspace};

/// Users that are scored together.
const BLOCK: usize = 1024;

/// Scores of lists.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct TopScores {
    /// Of every list the score of its first item.
    pub first: Vec<f32>,
    /// Of every list the score of its last item.
    pub last: Vec<f32>,
}

/// Chooses at most `n` of the users that the model learnt from, by the seed, ascending; those without a history are no
/// use to anybody and left out.
///
/// # Errors
/// As [`crate::UserHistory::read`].
pub fn sample_users(audience: &Audience<'_>, n: usize, seed: u64) -> Result<Vec<UserIndex>> {
    let mut chosen = BinaryHeap::with_capacity(n + 1);
    for user in 0..audience.learnt.n_users() as u32 {
        chosen.push((tie_hash(seed, user), user));
        if chosen.len() > n {
            chosen.pop();
        }
    }
    let mut users: Vec<UserIndex> = chosen.into_iter().map(|(_, user)| UserIndex(user)).collect();
    users.sort_unstable();
    let mut history = Vec::new();
    let mut kept = Vec::with_capacity(users.len());
    for user in users {
        audience.learnt.read(user, &mut history)?;
        if !history.is_empty() {
            kept.push(user);
        }
    }
    Ok(kept)
}

/// Asks for a list of `k` items that are new to each of `users`, and keeps the first and the last score.
///
/// # Errors
/// As [`crate::models::Retriever::score`].
pub fn top_scores(audience: &Audience<'_>, users: &[UserIndex], k: usize) -> Result<TopScores> {
    let mut scores = TopScores::default();
    let (mut batch, mut workspace, mut history) = (Batch::default(), Workspace::default(), Vec::new());
    for block in users.chunks(BLOCK) {
        batch.rows.clear();
        for &user in block {
            let person = Person { user: Some(user), given: None };
            if let Some(query) = audience.question(person, &mut history)? {
                let exclude = history.iter().map(|&(item, _)| item).collect();
                batch.rows.push(Row { exclude, ..Row::new(query, k) });
            }
        }
        audience.retriever.score(&batch, &mut workspace)?;
        for row in 0..workspace.n_rows() {
            let (_, list) = workspace.answer(row);
            scores.first.extend(list.first());
            scores.last.extend(list.last());
        }
    }
    Ok(scores)
}
