//! Normal equations on the CPU, a row at a time.

use crate::{
    AlsSystem, Error, Result, Table,
    als::{
        fixed::FixedRows,
        normal::{Equations, Normal},
        schedule::{FirstFailure, row_ranges, run_in_turn},
    },
    scratch::Pool,
    simd,
};

use super::OP;

/// Multiply-adds of a task.
const TASK_COST: usize = 1 << 26;

pub(super) fn solve(system: &AlsSystem<'_>, solution: &mut Table) -> Result<()> {
    let dim = system.fixed.dim();
    let elsewhere = Error::NotOnDevice { op: OP, device: system.fixed.device() };
    let fixed = FixedRows::new(system.fixed).ok_or(elsewhere)?;
    let equations = Equations { system, fixed, level: simd::level() };
    let failure = FirstFailure::new();
    let out_of_memory = FirstFailure::new();
    let pool = Pool::new();
    let cost = (dim * dim / 2 + 1, dim * dim * dim / 6 + 1);
    run_in_turn(row_ranges(system.rows, solution, cost, TASK_COST), |range| {
        let done = pool.lend(
            || Normal::new(dim, equations.level),
            |normal| {
                for (at, x) in range.solution.chunks_exact_mut(dim).enumerate() {
                    let row = range.first + at;
                    if system.rows.row_len(row) == 0 {
                        x.fill(0.0);
                        continue;
                    }
                    match normal.solve(&equations, row, 0..dim, None, |_, _, b| b) {
                        None => failure.note(row, Error::NotPositiveDefinite { op: OP, row: row as u64 }),
                        Some(solved) => x.copy_from_slice(solved),
                    }
                    if !x.iter().all(|x| x.is_finite()) {
                        failure.note(row, Error::NotFinite { op: OP, what: "solution", row: row as u64 });
                    }
                }
            },
        );
        if let Err(error) = done {
            out_of_memory.note(0, error);
        }
    });
    out_of_memory.result()?;
    failure.result()
}
