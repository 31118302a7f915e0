//! Which items may be in an answer: what Python asks for, checked, and the questions that are made of it.

use numpy::PyReadonlyArray1;
use pyo3::{exceptions::PyIndexError, prelude::*};
use recmill_core::{ItemIndex, Query, Row};

/// Which items may be in an answer, and how many.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Wanted<'py> {
    n: usize,
    /// Whether the items of the row's history are left out.
    only_new: bool,
    /// Items that are left out, ascending.
    exclude: Option<PyReadonlyArray1<'py, i64>>,
    /// The only items, ascending.
    only: Option<PyReadonlyArray1<'py, i64>>,
    threads: usize,
}

/// As [`Wanted`], checked.
pub(crate) struct Filters {
    pub(crate) n: usize,
    pub(crate) only_new: bool,
    pub(crate) exclude: Vec<ItemIndex>,
    pub(crate) only: Option<Vec<ItemIndex>>,
    pub(crate) threads: usize,
}

impl Filters {
    pub(crate) fn new(wanted: &Wanted<'_>, what: &str, count: usize) -> PyResult<Self> {
        let indices = |array: &PyReadonlyArray1<'_, i64>| -> PyResult<Vec<ItemIndex>> {
            checked(array.as_slice()?, what, count).map(|all| all.into_iter().map(ItemIndex).collect())
        };
        Ok(Self {
            n: wanted.n,
            only_new: wanted.only_new,
            exclude: wanted.exclude.as_ref().map(indices).transpose()?.unwrap_or_default(),
            only: wanted.only.as_ref().map(indices).transpose()?,
            threads: wanted.threads,
        })
    }

    /// Returns the question with these filters, and without `seen` where only what is new is wanted.
    pub(crate) fn row(
        &self,
        query: Query,
        seen: impl ExactSizeIterator<Item = ItemIndex>,
        n_items: usize,
    ) -> Row {
        let mut row = Row::new(query, self.n.min(n_items));
        match self.only_new && seen.len() > 0 {
            false => row.exclude.clone_from(&self.exclude),
            true if self.exclude.is_empty() => row.exclude.extend(seen),
            true => {
                row.exclude.extend(seen.chain(self.exclude.iter().copied()));
                row.exclude.sort_unstable();
                row.exclude.dedup();
            }
        }
        row.candidates.clone_from(&self.only);
        row
    }
}

/// Returns indices of which there are `count`.
pub(crate) fn checked(indices: &[i64], what: &str, count: usize) -> PyResult<Vec<u32>> {
    let checked = |&index: &i64| match usize::try_from(index) {
        Ok(at) if at < count => Ok(at as u32),
        _ => Err(PyIndexError::new_err(format!(
            "{what} {index} is out of range: the model has {count} {what}s"
        ))),
    };
    indices.iter().map(checked).collect()
}
