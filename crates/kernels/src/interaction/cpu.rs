//! Factorization machine and cross layer on the CPU: tasks of whole rows, each read once.

#![expect(
    unsafe_code,
    reason = "loads and stores of whole vectors, without bounds checks in the inner loops"
)]

use rayon::prelude::*;

use super::shape::{CROSS, FM, Shape, same_len};
use crate::{
    Result,
    simd::{self, Kernel, Simd, dispatch},
};

/// Values that one task reads.
pub(super) const TASK_VALUES: usize = 1 << 14;

/// As [`super::fm_second_order`], over slices; `out`: `[rows]`, overwritten.
///
/// # Errors
/// [`crate::Error::Parameter`], [`crate::Error::Shape`].
pub fn fm_second_order_into(x: &[f32], fields: usize, dim: usize, out: &mut [f32]) -> Result<()> {
    let shape = Shape::new(FM, x.len(), fields, dim)?;
    same_len(FM, "out", shape.rows, out.len())?;
    let (level, at_once) = (simd::level(), shape.rows_of_task());
    x.par_chunks(at_once * shape.row()).zip(out.par_chunks_mut(at_once)).for_each(|(x, out)| {
        dispatch(level, Forward { x, shape, out });
    });
    Ok(())
}

/// As [`super::fm_second_order_backward`], over slices; `out`: `[rows, fields, dim]`, overwritten.
///
/// # Errors
/// [`crate::Error::Parameter`], [`crate::Error::Shape`].
pub fn fm_second_order_backward_into(
    x: &[f32],
    fields: usize,
    dim: usize,
    gradient: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let shape = Shape::new(FM, x.len(), fields, dim)?;
    same_len(FM, "gradient", shape.rows, gradient.len())?;
    same_len(FM, "out", x.len(), out.len())?;
    let (level, at_once) = (simd::level(), shape.rows_of_task());
    let tasks = x.par_chunks(at_once * shape.row()).zip(gradient.par_chunks(at_once));
    tasks.zip(out.par_chunks_mut(at_once * shape.row())).for_each(|((x, gradient), out)| {
        dispatch(level, Backward { x, shape, gradient, out });
    });
    Ok(())
}

/// As [`super::cross_layer`], over slices; `out` is overwritten.
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn cross_layer_into(x0: &[f32], u: &[f32], x: &[f32], out: &mut [f32]) -> Result<()> {
    for (what, got) in [("u", u.len()), ("x", x.len()), ("out", out.len())] {
        same_len(CROSS, what, x0.len(), got)?;
    }
    let level = simd::level();
    let operands = x0.par_chunks(TASK_VALUES).zip(u.par_chunks(TASK_VALUES)).zip(x.par_chunks(TASK_VALUES));
    operands.zip(out.par_chunks_mut(TASK_VALUES)).for_each(|(((x0, u), x), out)| {
        dispatch(level, Cross { x0, u, x, out });
    });
    Ok(())
}

/// As [`super::cross_layer_backward`], over slices; `of_x0` and `of_u` are overwritten.
///
/// # Errors
/// [`crate::Error::Shape`].
pub fn cross_layer_backward_into(
    x0: &[f32],
    u: &[f32],
    gradient: &[f32],
    of_x0: &mut [f32],
    of_u: &mut [f32],
) -> Result<()> {
    let lens = [("u", u.len()), ("gradient", gradient.len()), ("of_x0", of_x0.len()), ("of_u", of_u.len())];
    for (what, got) in lens {
        same_len(CROSS, what, x0.len(), got)?;
    }
    let level = simd::level();
    let operands =
        x0.par_chunks(TASK_VALUES).zip(u.par_chunks(TASK_VALUES)).zip(gradient.par_chunks(TASK_VALUES));
    let out = of_x0.par_chunks_mut(TASK_VALUES).zip(of_u.par_chunks_mut(TASK_VALUES));
    operands.zip(out).for_each(|(((x0, u), gradient), (of_x0, of_u))| {
        dispatch(level, CrossBackward { x0, u, gradient, of_x0, of_u });
    });
    Ok(())
}

impl Shape {
    /// Rows that one task handles.
    pub(super) fn rows_of_task(self) -> usize {
        (TASK_VALUES / self.row()).max(1)
    }
}

/// The `n` values at `from` as `V` vectors, zero behind.
#[inline(always)]
unsafe fn load_some<S: Simd, const V: usize>(simd: S, from: *const f32, n: usize) -> [S::F32; V] {
    let mut values = [[0.0f32; 16]; V];
    // SAFETY: the caller vouches for `n` values, no more than `V` vectors of at most 16.
    unsafe {
        if n == V * S::LANES {
            return std::array::from_fn(|v| simd.load(from.add(v * S::LANES)));
        }
        for at in 0..n {
            values[at / S::LANES][at % S::LANES] = *from.add(at);
        }
        std::array::from_fn(|v| simd.load(values[v].as_ptr()))
    }
}

/// Writes the first `n` values of `V` vectors.
#[inline(always)]
unsafe fn store_some<S: Simd, const V: usize>(simd: S, to: *mut f32, v: [S::F32; V], n: usize) {
    let mut values = [[0.0f32; 16]; V];
    // SAFETY: as for `load_some`.
    unsafe {
        for (at, v) in v.into_iter().enumerate() {
            match n == V * S::LANES {
                true => simd.store(to.add(at * S::LANES), v),
                false => simd.store(values[at].as_mut_ptr(), v),
            }
        }
        for at in 0..n * usize::from(n < V * S::LANES) {
            *to.add(at) = values[at / S::LANES][at % S::LANES];
        }
    }
}

/// Goes over the columns of rows of `dim` values: two whole vectors at a time, then one, then what is left of one.
macro_rules! over_columns {
    ($simd:ident: $S:ident, $dim:expr, $columns:ident($($argument:expr),*)) => {
        let mut column = 0;
        while column < $dim {
            let n = match $dim - column {
                left if left >= 2 * $S::LANES => 2 * $S::LANES,
                left => left.min($S::LANES),
            };
            // SAFETY: `n` columns from `column` on are within each of the row's fields.
            unsafe {
                match n > $S::LANES {
                    true => $columns::<$S, 2>($simd, column, n, $($argument),*),
                    false => $columns::<$S, 1>($simd, column, n, $($argument),*),
                }
            }
            column += n;
        }
    };
}

struct Forward<'a> {
    x: &'a [f32],
    shape: Shape,
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = self.shape;
        for (x, out) in self.x.chunks_exact(shape.row()).zip(self.out) {
            let mut total = simd.splat(0.0);
            over_columns!(simd: S, shape.dim, forward(x, shape, &mut total));
            *out = 0.5 * simd.sum(total);
        }
    }
}

/// Adds the squares of sums, less the sums of squares, of `V` vectors of columns.
#[inline(always)]
unsafe fn forward<S: Simd, const V: usize>(
    simd: S,
    column: usize,
    n: usize,
    x: &[f32],
    shape: Shape,
    total: &mut S::F32,
) {
    let (mut sums, mut squares) = ([simd.splat(0.0); V], [simd.splat(0.0); V]);
    for field in 0..shape.fields {
        // SAFETY: the caller vouches for `n` columns of every field.
        let values: [S::F32; V] = unsafe { load_some(simd, x.as_ptr().add(field * shape.dim + column), n) };
        for v in 0..V {
            sums[v] = simd.add(sums[v], values[v]);
            squares[v] = simd.fma(values[v], values[v], squares[v]);
        }
    }
    for v in 0..V {
        let square = simd.fma(sums[v], sums[v], simd.mul(squares[v], simd.splat(-1.0)));
        *total = simd.add(*total, square);
    }
}

struct Backward<'a> {
    x: &'a [f32],
    shape: Shape,
    gradient: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (shape, row) = (self.shape, self.shape.row());
        let rows = self.x.chunks_exact(row).zip(self.out.chunks_exact_mut(row));
        for ((x, out), &gradient) in rows.zip(self.gradient) {
            over_columns!(simd: S, shape.dim, backward(x, shape, gradient, out));
        }
    }
}

/// Writes the gradient of `V` vectors of columns: the row is in the first-level cache when it is read again.
#[inline(always)]
unsafe fn backward<S: Simd, const V: usize>(
    simd: S,
    column: usize,
    n: usize,
    x: &[f32],
    shape: Shape,
    gradient: f32,
    out: &mut [f32],
) {
    let (g, minus_one, mut sums) = (simd.splat(gradient), simd.splat(-1.0), [simd.splat(0.0); V]);
    // SAFETY: the caller vouches for `n` columns of every field, and `out` is as long as `x`.
    unsafe {
        let field =
            |field: usize| -> [S::F32; V] { load_some(simd, x.as_ptr().add(field * shape.dim + column), n) };
        for at in 0..shape.fields {
            let values = field(at);
            for v in 0..V {
                sums[v] = simd.add(sums[v], values[v]);
            }
        }
        for at in 0..shape.fields {
            let values = field(at);
            let others = std::array::from_fn(|v| simd.mul(g, simd.fma(values[v], minus_one, sums[v])));
            store_some::<S, V>(simd, out.as_mut_ptr().add(at * shape.dim + column), others, n);
        }
    }
}

struct Cross<'a> {
    x0: &'a [f32],
    u: &'a [f32],
    x: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Cross<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (((out, x0), u), x) in self.out.iter_mut().zip(self.x0).zip(self.u).zip(self.x) {
            *out = x0 * u + x;
        }
    }
}

struct CrossBackward<'a> {
    x0: &'a [f32],
    u: &'a [f32],
    gradient: &'a [f32],
    of_x0: &'a mut [f32],
    of_u: &'a mut [f32],
}

impl Kernel for CrossBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let out = self.of_x0.iter_mut().zip(self.of_u);
        for ((((of_x0, of_u), x0), u), g) in out.zip(self.x0).zip(self.u).zip(self.gradient) {
            *of_x0 = g * u;
            *of_u = g * x0;
        }
    }
}
