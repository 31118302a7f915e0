//! The loss of every row on a GPU: that of its entries, a sum a task, and that of its own vector, a sum a row.

use cubecl::prelude::*;

use super::{AlsKept, AlsSystem, cube::Side};
use crate::{
    Buffer, Device, Error, Result, RowType, Rows, Table,
    buffer::cube::{Gpu, Queue, cubes},
    dense::cube::multiply,
    table::bound::{Bound, RowFloat, with_row_type},
};

/// Returns each row's loss, the parts of a row added up in f64.
pub(super) fn row_losses<R: Gpu>(
    op: &'static str,
    system: &AlsSystem<'_>,
    solution: &Table,
    kept: &mut AlsKept<'_>,
    device: Device,
) -> Result<Vec<f64>> {
    if system.rows.n_rows() == 0 {
        return Ok(Vec::new());
    }
    let queue = Queue::<R>::new(device)?;
    let fixed = Bound::new(op, &queue, system.fixed)?;
    with_row_type!(op, system.fixed, F => blocks::<R, F>(op, &queue, &fixed, system, solution, kept))
}

fn blocks<R: Gpu, F: RowFloat>(
    op: &'static str,
    queue: &Queue<R>,
    fixed: &Bound<'_, R>,
    system: &AlsSystem<'_>,
    solution: &Table,
    kept: &mut AlsKept<'_>,
) -> Result<Vec<f64>> {
    let side = Side::new(op, queue, system, fixed)?;
    let mut losses = Vec::with_capacity(system.rows.n_rows());
    side.each_block(solution, kept, |block| {
        let (rows, first) = solution.chunk_of(block.first as u64);
        let Rows::F32(x) = rows else {
            let got = solution.row_type();
            return Err(Error::RowType { op, what: "solution", expected: RowType::F32, got });
        };
        let of_entries = side.losses::<F>(block, (x, first))?;
        let own = own_losses(&side, &side.ridge(block)?, (x, first), block.n_rows)?;
        let ends = block.ends.to_vec()?;
        losses.extend(own.iter().zip(ends.windows(2)).map(|(&own, ends)| {
            let tasks = &of_entries[ends[0] as usize..ends[1] as usize];
            tasks.iter().fold(f64::from(own), |sum, &loss| sum + f64::from(loss))
        }));
        Ok(())
    })?;
    Ok(losses)
}

/// `xᵀ gram x + ridge xᵀx` of rows `first .. first + n_rows` of `x`.
fn own_losses<R: Gpu>(
    side: &Side<'_, R>,
    ridge: &Buffer<f32>,
    (x, first): (&Buffer<f32>, usize),
    n_rows: usize,
) -> Result<Vec<f32>> {
    let (queue, op, dim) = (side.queue, side.op, side.dim);
    let dense = queue.unwritten::<f32>(n_rows * dim, "products of a block")?;
    multiply(op, queue, (x, first), n_rows, (&side.gram, dim), &dense)?;
    let out = queue.unwritten::<f32>(n_rows, "losses of a block's rows")?;
    own_loss_kernel::launch::<R>(
        &queue.client,
        cubes(&queue.client, n_rows.div_ceil(64)),
        CubeDim::new_1d(64),
        queue.arg(op, x)?,
        queue.arg(op, &dense)?,
        queue.arg(op, ridge)?,
        queue.arg(op, &out)?,
        first as u32,
        dim,
    );
    out.to_vec()
}

#[cube(launch)]
fn own_loss_kernel(
    x: &Array<f32>,
    dense: &Array<f32>,
    ridge: &Array<f32>,
    out: &mut Array<f32>,
    first: u32,
    #[comptime] dim: usize,
) {
    let row = ABSOLUTE_POS;
    if row < out.len() {
        let mut sum = 0.0;
        for at in 0..dim {
            let value = x[(first as usize + row) * dim + at];
            sum += value * (dense[row * dim + at] + ridge[row] * value);
        }
        out[row] = sum;
    }
}
