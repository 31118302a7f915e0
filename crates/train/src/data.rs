//! The training data as learners take them.

use std::borrow::Cow;

use recmill_core::{Csr, Dataset};
use recmill_kernels::SparseRows;

use crate::{Result, gradient::Order};

/// The sizes that decide how much memory training takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Users there are.
    pub n_users: u64,
    /// Items there are.
    pub n_items: u64,
    /// Pairs of user and item that have a value.
    pub n_interactions: u64,
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

/// Takes the newest interaction of positive value of at most `users` users out, each of whom keeps two or more such: what is left to learn
/// from, and what was taken, with the same ids. `None` where nobody has as many.
///
/// Which users is decided by the seed.
///
/// # Errors
/// [`crate::Error::Core`] never for a sound data set.
pub fn hold_out_newest(data: &Dataset, users: usize, seed: u64) -> Result<Option<(Dataset, Dataset)>> {
    let newest = |user: usize| {
        let start = data.by_user().range(user).start;
        let places = data.order(user).iter().map(|&entry| start + entry as usize);
        let mut liked = places.filter(|&at| data.by_user().values()[at] > 0.0);
        liked.next_back().filter(|_| liked.nth(1).is_some())
    };
    let eligible: Vec<usize> = (0..data.n_users()).filter(|&user| newest(user).is_some()).collect();
    if eligible.is_empty() || users == 0 {
        return Ok(None);
    }
    let mut chosen = vec![false; data.n_users()];
    let order = Order::new(eligible.len() as u64, seed, 0);
    for place in 0..eligible.len().min(users) as u64 {
        chosen[eligible[order.sample(place) as usize]] = true;
    }
    let part = |taken: bool| -> Result<Dataset> {
        let (mut indptr, mut indices, mut values) = (vec![0u64], Vec::new(), Vec::new());
        let (mut times, mut order) = (data.times().map(|_| Vec::new()), Vec::new());
        for (user, &chosen) in chosen.iter().enumerate() {
            let range = data.by_user().range(user);
            let held = newest(user).filter(|_| chosen);
            let kept = |at: &usize| (Some(*at) == held) == taken;
            // Where each entry that stays comes to stand in its row.
            let stays: Vec<usize> = range.clone().filter(kept).collect();
            for &at in &stays {
                indices.push(data.by_user().indices()[at]);
                values.push(data.by_user().values()[at]);
                if let (Some(times), Some(all)) = (&mut times, data.times()) {
                    times.push(all[at]);
                }
            }
            let places = data.order(user).iter().map(|&entry| range.start + entry as usize);
            order.extend(places.filter_map(|at| Some(stays.binary_search(&at).ok()? as u32)));
            indptr.push(indices.len() as u64);
        }
        let by_user = Csr::new(data.n_items(), indptr, indices, values)?;
        Ok(Dataset::new(data.users.clone(), data.items.clone(), by_user, times, order)?)
    };
    Ok(Some((part(false)?, part(true)?)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_whoever_has_three_is_held_out() {
        let ids = |n: usize| {
            let mut ids = recmill_core::IdMap::default();
            (0..n).for_each(|id| drop(ids.get_or_insert(&id.to_string())));
            ids
        };
        // The newest of user 0 is item 1; user 1 has two, and user 2 dislikes the newest of three.
        let by_user = Csr::new(
            4,
            vec![0, 3, 5, 8],
            vec![0, 1, 3, 0, 2, 1, 2, 3],
            vec![1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0],
        );
        let times = Some(vec![5, 9, 7, 1, 2, 1, 2, 3]);
        let order = vec![0, 2, 1, 0, 1, 0, 1, 2];
        let data = Dataset::new(ids(3), ids(4), by_user.unwrap(), times, order).unwrap();
        let (left, held) = hold_out_newest(&data, 100, 0).unwrap().unwrap();
        assert_eq!((left.by_user().row(0), left.order(0)), ((&[0, 3][..], &[1.0, 1.0][..]), &[0, 1][..]));
        assert_eq!((left.by_user().nnz(), left.times().unwrap()), (7, &[5, 7, 1, 2, 1, 2, 3][..]));
        assert_eq!(held.by_user().row(0), (&[1][..], &[2.0][..]));
        assert_eq!((held.by_user().nnz(), held.times().unwrap()), (1, &[9][..]));
        assert!(hold_out_newest(&data, 0, 0).unwrap().is_none());
        assert!(hold_out_newest(&held, 9, 0).unwrap().is_none());
    }

    #[test]
    fn dislikes_are_left_out_and_ones_are_not_copied() {
        let csr = Csr::new(3, vec![0, 2, 3], vec![0, 2, 1], vec![2.0, -1.0, 1.0]).unwrap();
        let ones = binary(&csr).unwrap();
        assert_eq!((ones.row(0), ones.row(1)), ((&[0][..], &[1.0][..]), (&[1][..], &[1.0][..])));
        assert!(matches!(binary(&ones).unwrap(), Cow::Borrowed(_)));
    }
}
