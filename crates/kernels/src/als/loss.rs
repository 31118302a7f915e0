//! The loss of every row on the CPU: a few rows at a time, products in f32, sums in f64.

use rayon::prelude::*;

use crate::{
    AlsSystem, Error, Result, Table,
    dense::{Dots, Multiply},
    scratch::{Pool, Scratch},
    simd::{self, Level, dispatch},
};

use super::fixed::{FixedRows, Gather};

/// Rows whose products with `gram` are taken together.
const ROWS: usize = 8;
/// Entries that are gathered at once.
const ENTRIES: usize = 32;

/// What a thread works in.
struct Work {
    x: Scratch,
    gram_x: Scratch,
    gathered: Scratch,
    products: Scratch,
}

/// Returns the loss of each row.
pub(super) fn row_losses(op: &'static str, system: &AlsSystem<'_>, solution: &Table) -> Result<Vec<f64>> {
    let level = simd::level();
    let dim = system.fixed.dim();
    let stride = dim.next_multiple_of(level.lanes());
    let elsewhere = Error::NotOnDevice { op, device: system.fixed.device() };
    let fixed = FixedRows::new(system.fixed).ok_or(elsewhere)?;
    let mut gram = Scratch::new(dim * stride)?;
    for (to, from) in gram.chunks_exact_mut(stride).zip(system.gram.chunks_exact(dim)) {
        to[..dim].copy_from_slice(from);
    }
    let make = || {
        Ok(Work {
            x: Scratch::new(ROWS * stride)?,
            gram_x: Scratch::new(ROWS * stride)?,
            gathered: Scratch::new(ENTRIES * stride)?,
            products: Scratch::new(ENTRIES)?,
        })
    };
    let pool = Pool::new();
    let mut losses = vec![0.0; system.rows.n_rows()];
    losses.par_chunks_mut(ROWS).enumerate().try_for_each(|(n, losses)| {
        pool.lend(make, |work| {
            let values = losses.len() * stride;
            for (k, x) in work.x.chunks_exact_mut(stride).take(losses.len()).enumerate() {
                solution.read_row((n * ROWS + k) as u64, &mut x[..dim])?;
            }
            let (vectors, out) = (&work.x[..values], &mut work.gram_x[..values]);
            dispatch(level, Multiply { matrix: &gram, vectors, out, dim, stride });
            for (k, loss) in losses.iter_mut().enumerate() {
                *loss = work.row_loss(system, &fixed, n * ROWS + k, k, level);
            }
            Ok(())
        })?
    })?;
    Ok(losses)
}

impl Work {
    /// The loss of row `row`, whose `x` is the `k`th here.
    fn row_loss(
        &mut self,
        system: &AlsSystem<'_>,
        fixed: &FixedRows<'_>,
        row: usize,
        k: usize,
        level: Level,
    ) -> f64 {
        let dim = system.fixed.dim();
        let stride = self.x.len() / ROWS;
        let at = k * stride..(k + 1) * stride;
        let (x, gram_x) = (&self.x[at.clone()], &self.gram_x[at]);
        let ridge = f64::from(system.ridge[row]);
        let square = |(&x, &gx): (&f32, &f32)| f64::from(x) * (f64::from(gx) + ridge * f64::from(x));
        let mut loss: f64 = x.iter().zip(gram_x).map(square).sum();
        let (indices, values) = system.rows.row(row);
        let first = system.rows.indptr[row] as usize;
        for (n, values) in values.chunks(ENTRIES).enumerate() {
            let indices = &indices[n * ENTRIES..][..values.len()];
            let ahead = system.rows.indices.get(first + n * ENTRIES + 8..).unwrap_or_default();
            let to = &mut self.gathered[..values.len() * stride];
            let layout = (stride, stride);
            dispatch(level, Gather { fixed, indices, ahead, columns: 0..dim, to, layout });
            let out = &mut self.products[..values.len()];
            dispatch(level, Dots { rows: &self.gathered, stride, vector: x, out, add: false });
            for (&value, &s) in values.iter().zip(&*out) {
                let (a, b) = system.weights(value);
                let (a, b, s) = (f64::from(a), f64::from(b), f64::from(s));
                loss += a * s * s - 2.0 * b * s + b;
            }
        }
        loss
    }
}
