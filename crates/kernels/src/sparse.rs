//! A borrowed sparse matrix by rows: what every operation on interactions takes.
//!
//! ```text
//! row r = indices[indptr[r] .. indptr[r + 1]]  with  values[ the same range ]
//! ```
//!
//! `indptr` of a part begins above zero: a run of rows of a larger matrix is the same two slices with a part of `indptr`.

use rayon::prelude::*;

use crate::{Error, Result};

/// Rows of (column, value) pairs that somebody else owns.
///
/// Operations that walk two rows at once need columns that ascend strictly ([`SparseRows::check`]); others take them in
/// any order and with repeats ([`SparseRows::check_bounds`]).
#[derive(Clone, Copy, Debug)]
pub struct SparseRows<'a> {
    /// Where each row begins, and the end: `[n_rows + 1]`.
    pub indptr: &'a [u64],
    /// Columns, row after row: `[nnz]`.
    pub indices: &'a [u32],
    /// Values, row after row: `[nnz]`.
    pub values: &'a [f32],
}

impl<'a> SparseRows<'a> {
    /// Returns the number of rows.
    pub fn n_rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Returns the number of stored values.
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// Returns the columns and values of row `row`.
    ///
    /// # Panics
    /// When `row` is past the last row, or the matrix has not passed [`SparseRows::check`].
    pub fn row(&self, row: usize) -> (&'a [u32], &'a [f32]) {
        let range = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Returns the number of values of row `row`.
    pub fn row_len(&self, row: usize) -> usize {
        (self.indptr[row + 1] - self.indptr[row]) as usize
    }

    /// Returns rows `first .. first + n` as a matrix of their own, without a copy.
    ///
    /// # Panics
    /// When they pass the last row.
    pub fn rows(&self, first: usize, n: usize) -> Self {
        Self { indptr: &self.indptr[first..=first + n], ..*self }
    }

    /// Succeeds when the row pointers ascend within the values and every column is below `n_columns`; columns may come
    /// in any order and repeat. Reads every index once, on all threads.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Parameter`]; [`Error::IndexOutOfRange`] with the first such position.
    pub fn check_bounds(&self, op: &'static str, n_columns: u64) -> Result<()> {
        let nnz = self.nnz();
        if self.values.len() != nnz {
            return Err(Error::Shape { op, what: "values", expected: nnz, got: self.values.len() });
        }
        let (Some(&first), Some(&last)) = (self.indptr.first(), self.indptr.last()) else {
            return Err(Error::Shape { op, what: "indptr", expected: 1, got: 0 });
        };
        if let Some(row) = self.indptr.windows(2).position(|ends| ends[0] > ends[1]) {
            let expected = "ascending row pointers";
            return Err(Error::Parameter { op, what: "indptr", expected, got: row as f64 });
        }
        if last > nnz as u64 {
            return Err(Error::Shape { op, what: "indptr's range", expected: nnz, got: last as usize });
        }
        let indices = &self.indices[first as usize..last as usize];
        // The largest of a part is found a vector at a time; which entry it is matters only when it is too large.
        let within = |part: &[u32]| part.iter().max().is_none_or(|&largest| u64::from(largest) < n_columns);
        if indices.par_chunks(1 << 16).all(within) {
            return Ok(());
        }
        let at = indices.iter().position(|&index| u64::from(index) >= n_columns).unwrap_or_default();
        let (position, index) = (first as usize + at, indices[at].into());
        Err(Error::IndexOutOfRange { op, position, rows: n_columns, index })
    }

    /// Succeeds when the row pointers ascend from 0 to the number of values, each row's columns ascend strictly below
    /// `n_columns`, and every value is finite. One pass over the matrix.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Parameter`], [`Error::IndexOutOfRange`], [`Error::NotFinite`].
    pub fn check(&self, op: &'static str, n_columns: u64) -> Result<()> {
        let nnz = self.nnz();
        if self.values.len() != nnz {
            return Err(Error::Shape { op, what: "values", expected: nnz, got: self.values.len() });
        }
        let last = self.indptr.last().map_or(usize::MAX, |&end| usize::try_from(end).unwrap_or(usize::MAX));
        if last != nnz || self.indptr.first() != Some(&0) {
            return Err(Error::Shape { op, what: "indptr's range", expected: nnz, got: last });
        }
        if let Some(row) = self.indptr.windows(2).position(|ends| ends[0] > ends[1]) {
            let expected = "ascending row pointers";
            return Err(Error::Parameter { op, what: "indptr", expected, got: row as f64 });
        }
        for row in 0..self.n_rows() {
            let (columns, values) = self.row(row);
            let ascending = columns.windows(2).all(|pair| pair[0] < pair[1]);
            if !ascending {
                let expected = "columns that ascend strictly in every row; broken in row";
                return Err(Error::Parameter { op, what: "indices", expected, got: row as f64 });
            }
            if let Some(&index) = columns.last()
                && u64::from(index) >= n_columns
            {
                let position = self.indptr[row + 1] as usize - 1;
                return Err(Error::IndexOutOfRange { op, position, rows: n_columns, index: index.into() });
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::NotFinite { op, what: "values", row: row as u64 });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_that_does_not_fit_is_refused_with_the_place() {
        let check = |indptr: &[u64], indices: &[u32], values: &[f32]| {
            SparseRows { indptr, indices, values }.check("a test", 4)
        };
        assert_eq!(check(&[0, 2, 2, 3], &[0, 3, 1], &[1.0; 3]), Ok(()));
        assert_eq!(check(&[0], &[], &[]), Ok(()));
        assert!(matches!(check(&[0, 2], &[0, 1, 2], &[1.0; 3]), Err(Error::Shape { .. })));
        assert!(matches!(check(&[], &[], &[]), Err(Error::Shape { .. })));
        assert!(matches!(check(&[0, 1], &[0], &[]), Err(Error::Shape { what: "values", .. })));
        assert!(matches!(check(&[0, 2, 1, 2], &[0, 1], &[1.0; 2]), Err(Error::Parameter { .. })));
        assert!(matches!(check(&[0, 2], &[1, 1], &[1.0; 2]), Err(Error::Parameter { .. })));
        let past = Error::IndexOutOfRange { op: "a test", position: 1, rows: 4, index: 4 };
        assert_eq!(check(&[0, 2], &[1, 4], &[1.0; 2]), Err(past));
        let nan = Error::NotFinite { op: "a test", what: "values", row: 1 };
        assert_eq!(check(&[0, 1, 2], &[0, 1], &[1.0, f32::NAN]), Err(nan));
    }

    #[test]
    fn a_part_is_a_view_and_may_repeat_columns() {
        let rows =
            SparseRows { indptr: &[0, 2, 2, 4], indices: &[4, 0, 1, 1], values: &[1.0, 2.0, 3.0, 4.0] };
        let last = rows.rows(2, 1);
        assert_eq!((last.n_rows(), last.row_len(0), last.row(0)), (1, 2, rows.row(2)));
        last.check_bounds("a test", 2).unwrap();
        rows.check_bounds("a test", 5).unwrap();
        let past = Error::IndexOutOfRange { op: "a test", position: 0, rows: 4, index: 4 };
        assert_eq!(rows.check_bounds("a test", 4), Err(past));
        let refused = |rows: SparseRows<'_>| rows.check_bounds("a test", 5).is_err();
        assert!(refused(SparseRows { values: &[1.0], ..rows }));
        assert!(refused(SparseRows { indptr: &[], ..rows }));
        assert!(refused(SparseRows { indptr: &[0, 2, 1], ..rows }));
        assert!(refused(SparseRows { indptr: &[0, 5], ..rows }));
    }
}
