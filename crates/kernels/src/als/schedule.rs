//! How the rows of a system are shared out: ranges of about equal work, taken in turn by whichever thread is free.
//!
//! A row's result does not depend on the range it is in, so any schedule gives the same bits.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use rayon::prelude::*;

use crate::{Error, Result, SparseRows, Table};

/// A run of rows and where their solutions go.
pub(crate) struct RowRange<'a> {
    /// The first row.
    pub(crate) first: usize,
    /// `[n, dim]`.
    pub(crate) solution: &'a mut [f32],
}

/// Cuts the rows of `solution` into ranges that each cost about `cost`: `per_entry` an entry and `per_row` a row.
pub(crate) fn row_ranges<'a>(
    rows: SparseRows<'_>,
    solution: &'a mut Table,
    (per_entry, per_row): (usize, usize),
    cost: usize,
) -> Vec<RowRange<'a>> {
    let dim = solution.dim();
    let mut ranges = Vec::new();
    for (first, mut rest) in solution.f32_chunks_mut() {
        let mut first = first as usize;
        while !rest.is_empty() {
            let (mut n, mut sum) = (0, 0);
            while n * dim < rest.len() && (n == 0 || sum < cost) {
                sum += per_row + per_entry * rows.row_len(first + n);
                n += 1;
            }
            let (solution, after) = rest.split_at_mut(n * dim);
            ranges.push(RowRange { first, solution });
            first += n;
            rest = after;
        }
    }
    ranges
}

/// Runs every task once, begun in order, on the threads of the current pool that are free.
pub(crate) fn run_in_turn<T: Send>(tasks: Vec<T>, run: impl Fn(T) + Sync) {
    if tasks.len() <= 1 {
        return tasks.into_iter().for_each(run);
    }
    let n = tasks.len();
    let tasks: Vec<Mutex<Option<T>>> = tasks.into_iter().map(|task| Mutex::new(Some(task))).collect();
    let next = AtomicUsize::new(0);
    let work = |_| {
        while let Some(task) = tasks.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(task) = task.lock().unwrap_or_else(PoisonError::into_inner).take() {
                run(task);
            }
        }
    };
    (0..n.min(rayon::current_num_threads())).into_par_iter().with_max_len(1).for_each(work);
}

/// The first row that failed, whatever the order in which rows are done.
pub(crate) struct FirstFailure(Mutex<Option<(usize, Error)>>);

impl FirstFailure {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    pub(crate) fn note(&self, row: usize, error: Error) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(known, _)| row < *known) {
            *first = Some((row, error));
        }
    }

    pub(crate) fn result(self) -> Result<()> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn ranges_cover_every_row_once_within_chunks() {
        let indptr: Vec<u64> = (0..=50)
            .map(|row| row * (row % 7))
            .scan(0, |sum, n| {
                *sum += n;
                Some(*sum)
            })
            .collect();
        let nnz = indptr[50] as usize;
        let rows = SparseRows { indptr: &indptr, indices: &vec![0; nnz], values: &vec![0.0; nnz] };
        let mut table = Table::zeros_in_chunks(50, 3, 8, Device::Cpu, "a test").unwrap();
        for cost in [1, 100, 1_000_000] {
            let mut next = 0;
            for range in row_ranges(rows, &mut table, (1, 10), cost) {
                assert_eq!(range.first, next);
                next += range.solution.len() / 3;
                assert!(range.first / 8 == (next - 1) / 8, "a range stays in its chunk");
            }
            assert_eq!(next, 50);
        }
    }

    #[test]
    fn every_task_runs_once_and_the_first_failure_is_told() {
        let sum = AtomicUsize::new(0);
        let failure = FirstFailure::new();
        run_in_turn((0..100).collect(), |task: usize| {
            sum.fetch_add(task, Ordering::Relaxed);
            if task % 30 == 29 {
                failure.note(task, Error::NotPositiveDefinite { op: "a test", row: task as u64 });
            }
        });
        assert_eq!(sum.into_inner(), 4950);
        assert_eq!(failure.result(), Err(Error::NotPositiveDefinite { op: "a test", row: 29 }));
    }
}
