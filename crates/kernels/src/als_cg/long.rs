//! Rows whose fixed rows do not fit a cache: many of them together, block by block of the fixed table.

use std::cmp::Reverse;

use crate::{Result, Table, scratch::Scratch};

use super::{
    cpu::{LONG_BYTES, Solver, Vectors},
    pass::Source,
};

/// Long rows that one thread takes through their steps together.
pub(super) struct LongRows {
    rows: Vec<usize>,
    /// Whether the columns of each row ascend, so that a block's entries are one run.
    ascending: Vec<bool>,
    vectors: Vectors,
}

impl LongRows {
    /// Shares the long rows out among the threads, the longest first to whoever has least, and copies where they start.
    pub(super) fn share_out(solver: &Solver<'_>, solution: &Table) -> Result<Vec<Self>> {
        let rows = solver.system.rows;
        let mut long: Vec<usize> = (0..rows.n_rows()).filter(|&row| solver.is_long(row)).collect();
        long.sort_by_key(|&row| (Reverse(rows.row_len(row)), row));
        let n = rayon::current_num_threads().min(long.len());
        let mut groups = vec![(0, Vec::new()); n];
        for row in long {
            if let Some((entries, group)) = groups.iter_mut().min_by_key(|(entries, _)| *entries) {
                *entries += rows.row_len(row);
                group.push(row);
            }
        }
        let group = |(_, group): (usize, Vec<usize>)| {
            let mut vectors = Vectors::new(group.len(), solver.stride)?;
            for (&row, x) in group.iter().zip(vectors.x.chunks_exact_mut(solver.stride)) {
                solution.read_row(row as u64, &mut x[..solver.dim])?;
            }
            let ascending = group.iter().map(|&row| rows.row(row).0.is_sorted()).collect();
            Ok(Self { rows: group, ascending, vectors })
        };
        groups.into_iter().map(group).collect()
    }

    /// Takes all steps.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`](crate::Error::OutOfMemory).
    pub(super) fn solve(&mut self, solver: &Solver<'_>) -> Result<()> {
        let (dim, stride) = (solver.dim, solver.stride);
        let rows = solver.system.rows;
        let n_fixed = solver.system.fixed.rows() as usize;
        // A power of two, so that no block lies across two chunks.
        let most = 1 << (LONG_BYTES / (stride * 4)).max(8).ilog2();
        let block = most.min(solver.system.fixed.chunk_rows() as usize);
        let segment = solver.segment();
        let mut gathered = Scratch::new(segment * stride)?;
        let Self { rows: group, ascending, vectors } = self;
        let mut cursors = vec![0; group.len()];
        solver.steps(group, vectors, |round, vectors| {
            cursors.fill(0);
            for first in (0..n_fixed).step_by(block) {
                let end = n_fixed.min(first + block);
                let in_place = solver.fixed.in_place(first, end - first).filter(|_| dim == stride);
                for (j, &row) in group.iter().enumerate() {
                    let (indices, values) = rows.row(row);
                    let from = cursors[j];
                    let rest = &indices[from..];
                    let n = match ascending[j] {
                        true => rest.iter().take_while(|&&index| (index as usize) < end).count(),
                        // All of such a row at once, with the last block.
                        false if end < n_fixed => 0,
                        false => rest.len(),
                    };
                    cursors[j] = from + n;
                    if vectors.done[j] {
                        continue;
                    }
                    let (indices, values) = (&indices[from..from + n], &values[from..from + n]);
                    for (indices, values) in indices.chunks(segment).zip(values.chunks(segment)) {
                        let source = match in_place.filter(|_| ascending[j]) {
                            Some(rows) => Source::InPlace { rows, first: first as u32, indices },
                            None => {
                                let to = &mut gathered[..indices.len() * stride];
                                solver.gather(indices, &[], to);
                                Source::Gathered(to)
                            }
                        };
                        solver.pass(source, values, round, vectors.operands(j, stride, round), &[]);
                    }
                }
            }
        });
        for (j, &row) in group.iter().enumerate() {
            solver.check(row, &vectors.x[j * stride..][..dim]);
        }
        Ok(())
    }

    /// Copies the solutions to their rows.
    pub(super) fn write(&self, solver: &Solver<'_>, solution: &mut Table) {
        let dim = solver.dim;
        for (first, chunk) in solution.f32_chunks_mut() {
            for (&row, x) in self.rows.iter().zip(self.vectors.x.chunks_exact(solver.stride)) {
                let at = (row as u64).checked_sub(first).map(|at| at as usize * dim);
                if let Some(to) = at.and_then(|at| chunk.get_mut(at..at + dim)) {
                    to.copy_from_slice(&x[..dim]);
                }
            }
        }
    }
}
