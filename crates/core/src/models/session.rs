//! A live session: a history that grows event by event, and what its model remembers of it, so that one more event need not cost all before it.

use std::fmt;

use burn::tensor::Tensor;

use crate::{Batch, Error, ItemIndex, Query, Result, Row, Workspace, dense::Cpu};

/// What somebody did so far, as one model has read it. Made and read by the [`Sessions`] of that model, and of no other.
#[derive(Clone)]
pub struct Session {
    model: u64,
    pub(super) history: Vec<(ItemIndex, f32)>,
    /// How many of the events the network has read: the liked ones.
    pub(super) read: usize,
    /// What the network remembers.
    pub(super) memory: Vec<Tensor<Cpu, 2>>,
    /// What items are compared with; zeros before the first liked item.
    pub(super) state: Vec<f32>,
}

impl Session {
    pub(super) fn new(model: u64, factors: usize) -> Self {
        Self { model, history: Vec::new(), read: 0, memory: Vec::new(), state: vec![0.0; factors] }
    }

    /// Refuses a session of another model.
    pub(super) fn check(&self, model: u64) -> Result<()> {
        match self.model == model {
            true => Ok(()),
            false => Err(Error::OtherModel { what: "a session" }),
        }
    }

    /// Returns the events, from the oldest to the newest.
    pub fn history(&self) -> &[(ItemIndex, f32)] {
        &self.history
    }

    /// Asks for `k` items that are new to it: a row that both [`Sessions::answer`] and [`super::Retriever::score`] answer, in the same bits.
    pub fn row(&self, k: usize) -> Row {
        let mut exclude: Vec<ItemIndex> = self.history.iter().map(|&(item, _)| item).collect();
        exclude.sort_unstable();
        exclude.dedup();
        Row { exclude, ..Row::new(Query::History(self.history.clone()), k) }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session of {} events", self.history.len())
    }
}

/// A model that reads histories event by event.
///
/// [`super::Retriever::sessions`] gives it, where a model has it.
pub trait Sessions: Send + Sync {
    /// Begins a session without events.
    fn begin(&self) -> Session;

    /// Adds an event to the end of a session; one of value 0 or less is a dislike, which excludes the item and changes nothing else.
    ///
    /// gru4rec takes one step, whatever the length. sasrec attends from the new event to those before it; past `max_length` events of
    /// positive value it reads its window anew, since everything in it has moved by one place.
    ///
    /// # Errors
    /// [`Error::OtherModel`]; [`Error::OutOfRange`] for an item that the model does not have; [`Error::Inconsistent`] for a value that is
    /// not finite. The session is as it was.
    fn push(&self, session: &mut Session, item: ItemIndex, value: f32) -> Result<()>;

    /// Answers every row of `batch` from the session at its place in `sessions`; a row's filters count, and what it asks about does not,
    /// unless that is an item. The answer has the same bits as [`super::Retriever::score`] gives the session's whole history.
    ///
    /// # Errors
    /// [`Error::OtherModel`]; [`Error::WrongSize`] unless there are as many sessions as rows; as [`super::Retriever::score`].
    fn answer(&self, sessions: &[&Session], batch: &Batch, workspace: &mut Workspace) -> Result<()>;
}
