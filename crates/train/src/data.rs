//! The training data as learners take them.

use std::borrow::Cow;

use recmill_core::{Csr, Dataset};
use recmill_kernels::SparseRows;

use crate::{Error, Result};

/// The sizes that decide how much memory training takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Users there are.
    pub n_users: u64,
    /// Items there are.
    pub n_items: u64,
    /// Pairs of user and item that have a value.
    pub n_interactions: u64,
    /// Rows of the tables of what is known of users and items besides.
    pub described_rows: u64,
    /// Columns of users and of items that have vectors, and those that are numbers.
    pub described_columns: [(usize, usize); 2],
    /// Threads that work at once.
    pub n_threads: u64,
    /// Whether each epoch is validated, which takes copies of the parameters.
    pub validated: bool,
}

impl Sizes {
    /// Returns the sizes of `data`, for the threads that there are.
    pub fn new(data: &Dataset, validated: bool) -> Self {
        Self {
            n_users: data.n_users() as u64,
            n_items: data.n_items() as u64,
            n_interactions: data.by_user().nnz() as u64,
            described_rows: 0,
            described_columns: [(0, 0); 2],
            n_threads: rayon::current_num_threads() as u64,
            validated,
        }
    }

    /// Bytes of the interactions by item, which nobody but training needs.
    pub(crate) fn by_item_bytes(&self) -> u64 {
        8 * self.n_interactions + 16 * self.n_items
    }

    /// Copies of the parameters beside those that are trained: the epoch that is validated and the best one, or the one
    /// that is saved.
    pub(crate) fn copies(&self) -> u64 {
        if self.validated { 2 } else { 1 }
    }
}

/// Returns user and item of each interaction of positive value, the users ascending.
///
/// # Errors
/// [`Error::NoData`] when there is none.
pub(crate) fn liked(data: &Dataset) -> Result<Vec<(u32, u32)>> {
    check_liked(data)?;
    let mut liked = Vec::with_capacity(data.by_user().nnz());
    for user in 0..data.n_users() {
        let (items, values) = data.by_user().row(user);
        let positive = items.iter().zip(values).filter(|&(_, &value)| value > 0.0);
        liked.extend(positive.map(|(&item, _)| (user as u32, item)));
    }
    Ok(liked)
}

/// Checks that there is an interaction of positive value.
///
/// # Errors
/// [`Error::NoData`] when there is none.
pub(crate) fn check_liked(data: &Dataset) -> Result<()> {
    match data.by_user().values().iter().any(|&value| value > 0.0) {
        true => Ok(()),
        false => Err(Error::NoData { what: "interactions of positive value" }),
    }
}

/// Counts the interactions of each of `n_items`.
pub(crate) fn item_counts(pairs: &[(u32, u32)], n_items: usize) -> Vec<u64> {
    let mut counts = vec![0; n_items];
    pairs.iter().for_each(|&(_, item)| counts[item as usize] += 1);
    counts
}

/// Lends a matrix to an operation.
pub(crate) fn sparse_rows(csr: &Csr) -> SparseRows<'_> {
    SparseRows { indptr: csr.indptr(), indices: csr.indices(), values: csr.values() }
}

/// Returns the interactions of positive value, each as 1: what models see that know no more and no less.
pub(crate) fn binary(csr: &Csr) -> Result<Cow<'_, Csr>> {
    if csr.values().iter().all(|&value| value == 1.0) {
        return Ok(Cow::Borrowed(csr));
    }
    let mut indptr = vec![0u64];
    let mut indices = Vec::with_capacity(csr.nnz());
    for row in 0..csr.n_rows() {
        let (columns, values) = csr.row(row);
        indices
            .extend(columns.iter().zip(values).filter(|&(_, &value)| value > 0.0).map(|(&column, _)| column));
        indptr.push(indices.len() as u64);
    }
    let ones = vec![1.0; indices.len()];
    Ok(Cow::Owned(Csr::new(csr.n_columns(), indptr, indices, ones)?))
}

/// Returns the ids 0 to `n`, for tests.
#[cfg(test)]
pub(crate) fn numbered(n: usize) -> recmill_core::IdMap {
    let mut ids = recmill_core::IdMap::default();
    (0..n).for_each(|id| drop(ids.get_or_insert(&id.to_string())));
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dislikes_are_left_out_and_ones_are_not_copied() {
        let csr = Csr::new(3, vec![0, 2, 3], vec![0, 2, 1], vec![2.0, -1.0, 1.0]).unwrap();
        let ones = binary(&csr).unwrap();
        assert_eq!((ones.row(0), ones.row(1)), ((&[0][..], &[1.0][..]), (&[1][..], &[1.0][..])));
        assert!(matches!(binary(&ones).unwrap(), Cow::Borrowed(_)));
    }
}
