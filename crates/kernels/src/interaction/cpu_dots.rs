//! Pairwise dots on the CPU.
//!
//! Forward, a tile is 2 fields by 4 (4 by 4 with 512-bit vectors): each vector of six fields is loaded once for eight
//! products, and the lanes of eight sums are added up together. Tiles begin at field 1, so that few of them pass the diagonal.
//! Backward, a tile is up to 4 fields by two vectors (four) of their gradient, and the pairs' gradients are read where they
//! lie: below the diagonal along a row of the triangle, above it down a column, four neighbours at a time.
//!
//! A dimension that is no whole number of vectors is copied into rows that are, zero behind.

#![expect(
    unsafe_code,
    reason = "loads and stores of whole vectors, without bounds checks in the inner loops"
)]

use rayon::prelude::*;

use super::shape::{DOTS, Shape, same_len};
use crate::{
    Result,
    simd::{self, Kernel, Level, Simd, dispatch},
};

/// As [`super::pairwise_dots`], over slices; `out`: `[rows, fields (fields − 1) / 2]`, overwritten.
///
/// # Errors
/// [`crate::Error::Parameter`], [`crate::Error::Shape`].
pub fn pairwise_dots_into(x: &[f32], fields: usize, dim: usize, out: &mut [f32]) -> Result<()> {
    let shape = Shape::new(DOTS, x.len(), fields, dim)?;
    same_len(DOTS, "out", shape.rows * shape.pairs(), out.len())?;
    if out.is_empty() {
        return Ok(());
    }
    let (level, at_once) = (simd::level(), shape.rows_of_task());
    let tasks = x.par_chunks(at_once * shape.row()).zip(out.par_chunks_mut(at_once * shape.pairs()));
    tasks.for_each(|(x, out)| {
        let mut padded = shape.padded(level);
        dispatch(level, Forward { x, shape, padded: &mut padded, out });
    });
    Ok(())
}

/// As [`super::pairwise_dots_backward`], over slices; `out`: `[rows, fields, dim]`, overwritten.
///
/// # Errors
/// [`crate::Error::Parameter`], [`crate::Error::Shape`].
pub fn pairwise_dots_backward_into(
    x: &[f32],
    fields: usize,
    dim: usize,
    gradient: &[f32],
    out: &mut [f32],
) -> Result<()> {
    let shape = Shape::new(DOTS, x.len(), fields, dim)?;
    same_len(DOTS, "gradient", shape.rows * shape.pairs(), gradient.len())?;
    same_len(DOTS, "out", x.len(), out.len())?;
    if gradient.is_empty() {
        out.fill(0.0);
        return Ok(());
    }
    let (level, at_once) = (simd::level(), shape.rows_of_task());
    let tasks = x.par_chunks(at_once * shape.row()).zip(gradient.par_chunks(at_once * shape.pairs()));
    tasks.zip(out.par_chunks_mut(at_once * shape.row())).for_each(|((x, gradient), out)| {
        let (mut padded, mut padded_out) = (shape.padded(level), shape.padded(level));
        let padded = (&mut padded[..], &mut padded_out[..]);
        dispatch(level, Backward { x, shape, gradient, padded, out });
    });
    Ok(())
}

impl Shape {
    /// Room for a row whose fields are whole vectors; empty where they are already.
    fn padded(self, level: Level) -> Vec<f32> {
        match self.dim.is_multiple_of(level.lanes()) {
            true => Vec::new(),
            false => vec![0.0; self.fields * self.dim.next_multiple_of(level.lanes())],
        }
    }
}

/// The row with fields `stride` apart, which are whole vectors: `x` itself, or a copy in `padded`.
#[inline(always)]
fn whole<'a>(x: &'a [f32], dim: usize, stride: usize, padded: &'a mut [f32]) -> &'a [f32] {
    if dim == stride {
        return x;
    }
    for (to, from) in padded.chunks_exact_mut(stride).zip(x.chunks_exact(dim)) {
        to[..dim].copy_from_slice(from);
    }
    padded
}

struct Forward<'a> {
    x: &'a [f32],
    shape: Shape,
    padded: &'a mut [f32],
    out: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Shape { fields, dim, .. } = self.shape;
        let stride = dim.next_multiple_of(S::LANES);
        let rows = self.x.chunks_exact(self.shape.row()).zip(self.out.chunks_exact_mut(self.shape.pairs()));
        for (x, out) in rows {
            let x = whole(x, dim, stride, self.padded);
            assert!(x.len() == fields * stride);
            // SAFETY: the row has `fields` fields of whole vectors, as just asserted.
            unsafe {
                match S::ACCUMULATORS {
                    16 => triangle::<S, 4>(simd, x.as_ptr(), fields, stride, out),
                    _ => triangle::<S, 2>(simd, x.as_ptr(), fields, stride, out),
                }
            }
        }
    }
}

/// All pairs of a row, `I` fields by 4 at a time.
///
/// # Safety
/// `x` has `fields` fields of `stride` values, whole vectors.
#[inline(always)]
unsafe fn triangle<S: Simd, const I: usize>(
    simd: S,
    x: *const f32,
    fields: usize,
    stride: usize,
    out: &mut [f32],
) {
    assert!(out.len() == fields * (fields - 1) / 2);
    let field = |at: usize| {
        // SAFETY: the caller vouches for all fields; those past the last stand for nothing, and are read from the last.
        unsafe { x.add(at.min(fields - 1) * stride) }
    };
    for first in (1..fields).step_by(I) {
        let left: [*const f32; I] = std::array::from_fn(|i| field(first + i));
        let begins: [usize; I] = std::array::from_fn(|i| (first + i) * (first + i - 1) / 2);
        // Tiles that lie below the diagonal whole have no field past the last, either: theirs come before `first`.
        let whole = if first + I <= fields { first / 4 * 4 } else { 0 };
        let mut column = 0;
        while column < whole {
            // SAFETY: four fields from `column` on come before `first`, and row `i` of the triangle has `i` pairs.
            unsafe {
                let right = x.add(column * stride);
                let right = [right, right.add(stride), right.add(2 * stride), right.add(3 * stride)];
                let dots = tile::<S, I>(simd, left, right, stride);
                for (begin, dots) in begins.into_iter().zip(dots.chunks_exact(4)) {
                    let to = out.as_mut_ptr().add(begin + column);
                    std::ptr::copy_nonoverlapping(dots.as_ptr(), to, 4);
                }
            }
            column += 4;
        }
        let end = (first + I).min(fields);
        while column < end - 1 {
            let right = std::array::from_fn(|j| field(column + j));
            // SAFETY: every pointer is to a field, of `stride` values.
            let dots = unsafe { tile::<S, I>(simd, left, right, stride) };
            for i in first..end {
                // Four questions, and no copy of a length that is not known: that would be a call.
                for j in 0..4 {
                    if column + j < i {
                        out[i * (i - 1) / 2 + column + j] = dots[4 * (i - first) + j];
                    }
                }
            }
            column += 4;
        }
    }
}

/// The dots of `I` fields with 4.
///
/// # Safety
/// Every pointer is to `stride` values, whole vectors.
#[inline(always)]
unsafe fn tile<S: Simd, const I: usize>(
    simd: S,
    left: [*const f32; I],
    right: [*const f32; 4],
    stride: usize,
) -> [f32; 16] {
    let mut sums = [[simd.splat(0.0); 4]; I];
    let mut dots = [0.0f32; 16];
    // SAFETY: the caller's promise; `dots` holds the sums of up to four fields.
    unsafe {
        let mut at = 0;
        while at < stride {
            let right = right.map(|right| simd.load(right.add(at)));
            for i in 0..I {
                let left = simd.load(left[i].add(at));
                for j in 0..4 {
                    sums[i][j] = simd.fma(left, right[j], sums[i][j]);
                }
            }
            at += S::LANES;
        }
        for pair in 0..I / 2 {
            let [[a, b, c, d], [e, f, g, h]] = [sums[2 * pair], sums[2 * pair + 1]];
            simd.store_x8(dots.as_mut_ptr().add(8 * pair), simd.sums([a, b, c, d, e, f, g, h]));
        }
    }
    dots
}

struct Backward<'a> {
    x: &'a [f32],
    shape: Shape,
    gradient: &'a [f32],
    padded: (&'a mut [f32], &'a mut [f32]),
    out: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Shape { fields, dim, .. } = self.shape;
        let (row, stride) = (self.shape.row(), dim.next_multiple_of(S::LANES));
        let (padded, padded_out) = self.padded;
        let rows = self.x.chunks_exact(row).zip(self.out.chunks_exact_mut(row));
        for ((x, out), gradient) in rows.zip(self.gradient.chunks_exact(self.shape.pairs())) {
            let x = whole(x, dim, stride, padded);
            let to: &mut [f32] = if dim == stride { &mut *out } else { &mut *padded_out };
            assert!(x.len() == fields * stride && to.len() == x.len());
            assert!(gradient.len() == fields * (fields - 1) / 2);
            let work = Operands { x: x.as_ptr(), gradient: gradient.as_ptr(), fields, stride };
            let mut first = 0;
            while first < fields {
                // SAFETY: the lengths asserted above are those of `fields` fields and their pairs.
                unsafe {
                    first += match fields - first {
                        4.. => columns::<S, 4>(simd, work, first, to.as_mut_ptr()),
                        2.. => columns::<S, 2>(simd, work, first, to.as_mut_ptr()),
                        _ => columns::<S, 1>(simd, work, first, to.as_mut_ptr()),
                    };
                }
            }
            if dim != stride {
                for (to, from) in out.chunks_exact_mut(dim).zip(padded_out.chunks_exact(stride)) {
                    to.copy_from_slice(&from[..dim]);
                }
            }
        }
    }
}

#[derive(Clone, Copy)]
struct Operands {
    x: *const f32,
    gradient: *const f32,
    fields: usize,
    stride: usize,
}

/// All columns of fields `first .. first + I`; returns `I`.
#[inline(always)]
unsafe fn columns<S: Simd, const I: usize>(simd: S, work: Operands, first: usize, out: *mut f32) -> usize {
    let mut column = 0;
    while column < work.stride {
        // SAFETY: the caller vouches for the fields; the columns are within the stride.
        unsafe {
            column += match ((work.stride - column) / S::LANES, S::ACCUMULATORS) {
                (4.., 16) => gradients::<S, I, 4>(simd, work, first, column, out),
                (2.., _) => gradients::<S, I, 2>(simd, work, first, column, out),
                _ => gradients::<S, I, 1>(simd, work, first, column, out),
            };
        }
    }
    I
}

/// `V` vectors of the gradient of fields `first .. first + I`: the others in order, each times its pair's gradient.
#[inline(always)]
unsafe fn gradients<S: Simd, const I: usize, const V: usize>(
    simd: S,
    work: Operands,
    first: usize,
    column: usize,
    out: *mut f32,
) -> usize {
    let Operands { x, gradient, fields, stride } = work;
    let mut sums = [[simd.splat(0.0); V]; I];
    // SAFETY: the caller vouches for `I` fields at `first` and `V` vectors at `column`; pair `i > j` is at `i (i - 1) / 2 + j`.
    unsafe {
        let x = x.add(column);
        let others = |k: usize| -> [S::F32; V] {
            std::array::from_fn(|v| simd.load(x.add(k * stride + v * S::LANES)))
        };
        let rows: [*const f32; I] = std::array::from_fn(|i| {
            let field = first + i;
            gradient.add(field * field.saturating_sub(1) / 2)
        });
        for k in 0..first {
            let other = others(k);
            for (sums, row) in sums.iter_mut().zip(rows) {
                let g = simd.splat(*row.add(k));
                for v in 0..V {
                    sums[v] = simd.fma(g, other[v], sums[v]);
                }
            }
        }
        for k in first..first + I {
            let other = others(k);
            for (i, sums) in sums.iter_mut().enumerate() {
                let (high, low) = (k.max(first + i), k.min(first + i));
                if high > low {
                    let g = simd.splat(*gradient.add(high * (high - 1) / 2 + low));
                    for v in 0..V {
                        sums[v] = simd.fma(g, other[v], sums[v]);
                    }
                }
            }
        }
        for k in first + I..fields {
            let other = others(k);
            let row = gradient.add(k * (k - 1) / 2 + first);
            for (i, sums) in sums.iter_mut().enumerate() {
                let g = simd.splat(*row.add(i));
                for v in 0..V {
                    sums[v] = simd.fma(g, other[v], sums[v]);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                simd.store(out.add((first + i) * stride + column + v * S::LANES), sum);
            }
        }
    }
    V * S::LANES
}
