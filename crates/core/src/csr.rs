//! A sparse matrix by rows: for each row the columns that have a value, ascending, and the values.
//!
//! ```text
//! row r = indices[indptr[r] .. indptr[r + 1]]  with  values[ the same range ]
//! ```

use std::{ops::Deref, sync::Arc};

use crate::{Error, Result};

/// Numbers that a matrix owns, or that somebody else keeps for it unchanged, such as an array of numpy.
#[derive(Clone)]
pub enum Values<T> {
    /// The matrix's own.
    Owned(Vec<T>),
    /// Somebody else's.
    Shared(Arc<dyn AsRef<[T]> + Send + Sync>),
}

impl<T> Deref for Values<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match self {
            Self::Owned(values) => values,
            Self::Shared(values) => (**values).as_ref(),
        }
    }
}

impl<T: Clone> Values<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::Owned(values) => values,
            Self::Shared(values) => (*values).as_ref().to_vec(),
        }
    }
}

impl<T> Default for Values<T> {
    fn default() -> Self {
        Self::Owned(Vec::new())
    }
}

impl<T> From<Vec<T>> for Values<T> {
    fn from(values: Vec<T>) -> Self {
        Self::Owned(values)
    }
}

impl<T: PartialEq> PartialEq for Values<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: std::fmt::Debug> std::fmt::Debug for Values<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        (**self).fmt(f)
    }
}

/// Rows of (column, value) pairs; within a row the columns ascend and none is repeated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Csr {
    n_columns: usize,
    indptr: Vec<u64>,
    indices: Values<u32>,
    values: Values<f32>,
}

impl Csr {
    /// Joins the three arrays into a matrix.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when `indptr` does not ascend from 0 to the number of values, or a row's columns do not
    /// ascend strictly within `n_columns`.
    pub fn new(n_columns: usize, indptr: Vec<u64>, indices: Vec<u32>, values: Vec<f32>) -> Result<Self> {
        Self::of(n_columns, indptr, indices.into(), values.into())
    }

    /// As [`Csr::new`], of numbers that may be somebody else's.
    ///
    /// # Errors
    /// As [`Csr::new`].
    pub fn of(n_columns: usize, indptr: Vec<u64>, indices: Values<u32>, values: Values<f32>) -> Result<Self> {
        let broken = |what, row| Error::Inconsistent { what, at: row as u64 };
        if indices.len() != values.len() {
            return Err(broken("number of csr values", values.len()));
        }
        if indptr.first() != Some(&0) || indptr.last() != Some(&(indices.len() as u64)) {
            return Err(broken("csr row pointers", 0));
        }
        for (row, ends) in indptr.windows(2).enumerate() {
            if ends[0] > ends[1] || ends[1] > indices.len() as u64 {
                return Err(broken("csr row pointers", row));
            }
            let columns = &indices[ends[0] as usize..ends[1] as usize];
            if columns.windows(2).any(|pair| pair[0] >= pair[1]) {
                return Err(broken("order of csr columns", row));
            }
            if columns.last().is_some_and(|&column| column as usize >= n_columns) {
                return Err(broken("csr column", row));
            }
        }
        Ok(Self { n_columns, indptr, indices, values })
    }

    /// Returns the number of columns, the row pointers, the columns and the values.
    pub fn into_parts(self) -> (usize, Vec<u64>, Vec<u32>, Vec<f32>) {
        (self.n_columns, self.indptr, self.indices.into_vec(), self.values.into_vec())
    }

    /// Returns the number of rows.
    pub fn n_rows(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    /// Returns the number of columns.
    pub fn n_columns(&self) -> usize {
        self.n_columns
    }

    /// Returns the number of stored values.
    pub fn nnz(&self) -> usize {
        self.indices.len()
    }

    /// Returns where each row begins, and the end: `[n_rows + 1]`.
    pub fn indptr(&self) -> &[u64] {
        &self.indptr
    }

    /// Returns all columns, row after row: `[nnz]`.
    pub fn indices(&self) -> &[u32] {
        &self.indices
    }

    /// Returns all values, row after row: `[nnz]`.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the columns and values of row `row`; nothing past the last row.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.range(row);
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Returns where row `row` lies in [`Csr::indices`] and [`Csr::values`]; empty past the last row.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        match self.indptr.get(row..row + 2) {
            Some(ends) => ends[0] as usize..ends[1] as usize,
            None => 0..0,
        }
    }

    /// Returns the same values by columns: row `c` of the result is column `c` of this.
    ///
    /// Cost: one pass to count and one to place, `8 * nnz + 8 * n_columns` bytes.
    pub fn transpose(&self) -> Self {
        let mut indptr = vec![0u64; self.n_columns + 1];
        for &column in self.indices.iter() {
            indptr[column as usize + 1] += 1;
        }
        for column in 0..self.n_columns {
            indptr[column + 1] += indptr[column];
        }
        let mut next = indptr.clone();
        let mut indices = vec![0u32; self.nnz()];
        let mut values = vec![0f32; self.nnz()];
        for row in 0..self.n_rows() {
            let (columns, row_values) = self.row(row);
            for (&column, &value) in columns.iter().zip(row_values) {
                let at = &mut next[column as usize];
                indices[*at as usize] = row as u32;
                values[*at as usize] = value;
                *at += 1;
            }
        }
        Self { n_columns: self.n_rows(), indptr, indices: indices.into(), values: values.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transpose_twice_is_the_identity() {
        let csr = Csr::new(3, vec![0, 2, 2, 3], vec![0, 2, 1], vec![1.0, 2.0, 3.0]).unwrap();
        let by_column = csr.transpose();
        assert_eq!(by_column.row(1), (&[2u32][..], &[3.0f32][..]));
        assert_eq!(by_column.transpose(), csr);
    }

    #[test]
    fn a_matrix_that_is_none_is_refused() {
        assert!(Csr::new(3, vec![0, 1], vec![3], vec![1.0]).is_err());
        assert!(Csr::new(3, vec![0, 2], vec![1, 1], vec![1.0, 1.0]).is_err());
        assert!(Csr::new(3, vec![0, 2, 1], vec![1], vec![1.0]).is_err());
        assert!(Csr::new(3, vec![], vec![], vec![]).is_err());
    }

    #[test]
    fn numbers_that_somebody_else_keeps_are_as_good_as_its_own() {
        let (indices, values) = (vec![0u32, 2, 1], vec![1.0f32, 2.0, 3.0]);
        let own = Csr::new(3, vec![0, 2, 2, 3], indices.clone(), values.clone()).unwrap();
        let shared = |values: Vec<f32>| Values::Shared(Arc::new(values));
        let kept = Csr::of(3, vec![0, 2, 2, 3], Values::Shared(Arc::new(indices)), shared(values)).unwrap();
        assert_eq!((&own, own.transpose()), (&kept, kept.transpose()));
        assert_eq!(own.into_parts(), kept.into_parts());
        assert!(Csr::of(3, vec![0, 1], vec![3].into(), shared(vec![1.0])).is_err());
    }
}
