//! Items by items, as implicit defines it: the `k` largest sums of products of every item's column with all columns, its own
//! among them.
//!
//! ```text
//! s_ij = Σ_u x_ui x_uj         the k largest of each row i, where s is not 0
//! ```
//!
//! A sum runs over the users in ascending order in f64, so it has the same bits for any number of threads.
//! Cost: `Σ_u n_u²` additions; 8 bytes an item and thread.

use std::ops::Range;

use numpy::{IntoPyArray, PyArray1, PyReadonlyArray1};
use pyo3::{exceptions::PyValueError, prelude::*};
use rayon::prelude::*;

use crate::{failure::guarded, threads::on_threads};

/// Items between two looks for a signal; more of a catalogue that is large.
const ITEMS_AT_ONCE: usize = 64;

type Lists<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<i32>>, Bound<'py, PyArray1<f64>>);

/// Columns of a sparse matrix with values in f64.
struct ByColumn {
    ends: Vec<usize>,
    rows: Vec<u32>,
    values: Vec<f64>,
}

/// Returns `indptr`, `indices` and `values` of the `k` largest products of each column, best first.
#[pyfunction]
pub(crate) fn all_pairs_knn<'py>(
    py: Python<'py>,
    indptr: PyReadonlyArray1<'py, i64>,
    indices: PyReadonlyArray1<'py, i64>,
    values: PyReadonlyArray1<'py, f64>,
    n_columns: usize,
    k: usize,
    threads: usize,
) -> PyResult<Lists<'py>> {
    guarded(|| {
        let (indptr, indices, values) = (indptr.as_slice(), indices.as_slice(), values.as_slice());
        let (indptr, indices, values) =
            (indptr.map_err(PyErr::from)?, indices.map_err(PyErr::from)?, values.map_err(PyErr::from)?);
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(
                PyValueError::new_err(format!("value {at}: not a finite number: `{}`", values[at])).into()
            );
        }
        let in_order = indptr.first() == Some(&0) && indptr.windows(2).all(|pair| pair[0] <= pair[1]);
        let n = indices.len();
        if !in_order || indptr.last() != Some(&(n as i64)) || values.len() != n {
            return Err(
                PyValueError::new_err("not a sparse matrix by rows: its row pointers do not fit").into()
            );
        }
        if let Some(column) = indices.iter().find(|&&column| column < 0 || column >= n_columns as i64) {
            let said = format!("column {column} is out of range: there are {n_columns}");
            return Err(PyValueError::new_err(said).into());
        }
        let by_column = py.detach(|| transpose(indptr, indices, values, n_columns));
        let pairs = Pairs { indptr, indices, values, n_columns, k, by_column: &by_column };
        let mut found = Vec::new();
        let step = ITEMS_AT_ONCE.max(n_columns / 256);
        for first in (0..n_columns).step_by(step) {
            let items = first..(first + step).min(n_columns);
            found.append(&mut py.detach(|| on_threads(threads, || pairs.lists(items)))?);
            py.check_signals()?;
        }
        let ends = found.iter().scan(0, |end, list| {
            *end += list.len() as i64;
            Some(*end)
        });
        let ends: Vec<i64> = std::iter::once(0).chain(ends).collect();
        let items: Vec<i32> = found.iter().flatten().map(|&(_, item)| item as i32).collect();
        let similarities: Vec<f64> = found.iter().flatten().map(|&(value, _)| value).collect();
        Ok((ends.into_pyarray(py), items.into_pyarray(py), similarities.into_pyarray(py)))
    })
}

/// A sparse matrix by rows and by columns, and how many products of each column are kept.
struct Pairs<'a> {
    indptr: &'a [i64],
    indices: &'a [i64],
    values: &'a [f64],
    n_columns: usize,
    k: usize,
    by_column: &'a ByColumn,
}

impl Pairs<'_> {
    /// Returns the `k` largest products of each of `items` with all columns, best first.
    fn lists(&self, items: Range<usize>) -> Vec<Vec<(f64, u32)>> {
        let Self { indptr, indices, values, n_columns, k, by_column } = *self;
        items
            .into_par_iter()
            .map_init(
                || (vec![0.0; n_columns], Vec::new()),
                |(sums, touched): &mut (Vec<f64>, Vec<u32>), item| {
                    for at in by_column.ends[item]..by_column.ends[item + 1] {
                        let (user, value) = (by_column.rows[at] as usize, by_column.values[at]);
                        for other in indptr[user] as usize..indptr[user + 1] as usize {
                            let column = indices[other] as usize;
                            if sums[column] == 0.0 {
                                touched.push(column as u32);
                            }
                            sums[column] += value * values[other];
                        }
                    }
                    // A sum that came back to 0 on its way stands here twice, and is 0 the second time.
                    let take = |column: u32| (std::mem::take(&mut sums[column as usize]), column);
                    let mut list: Vec<_> = touched.drain(..).map(take).filter(|pair| pair.0 != 0.0).collect();
                    let better = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
                    if list.len() > k {
                        list.select_nth_unstable_by(k, better);
                        list.truncate(k);
                    }
                    list.sort_unstable_by(better);
                    list
                },
            )
            .collect()
    }
}

fn transpose(indptr: &[i64], indices: &[i64], values: &[f64], n_columns: usize) -> ByColumn {
    let mut ends = vec![0; n_columns + 1];
    indices.iter().for_each(|&column| ends[column as usize + 1] += 1);
    (0..n_columns).for_each(|column| ends[column + 1] += ends[column]);
    let mut next = ends.clone();
    let mut by_column = ByColumn { ends, rows: vec![0; indices.len()], values: vec![0.0; indices.len()] };
    for (row, pair) in indptr.windows(2).enumerate() {
        for at in pair[0] as usize..pair[1] as usize {
            let to = &mut next[indices[at] as usize];
            (by_column.rows[*to], by_column.values[*to]) = (row as u32, values[at]);
            *to += 1;
        }
    }
    by_column
}
