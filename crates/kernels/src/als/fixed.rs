//! The fixed side's rows as kernels read them: gathered by index into contiguous, padded f32.

#![expect(unsafe_code, reason = "whole-vector copies and prefetches")]

use std::ops::Range;

use half::{bf16, f16};

use crate::{
    Rows, Table,
    simd::{Kernel, Simd},
};

/// The rows of a table on the CPU.
pub(crate) struct FixedRows<'a> {
    chunks: Chunks<'a>,
    shift: u32,
    mask: usize,
    dim: usize,
}

enum Chunks<'a> {
    F32(Vec<&'a [f32]>),
    F16(Vec<&'a [f16]>),
    Bf16(Vec<&'a [bf16]>),
}

/// Copies `columns` of the rows `indices` to rows of `to`, zero behind the columns, and asks meanwhile for the rows that
/// will be gathered next.
pub(crate) struct Gather<'a> {
    pub(crate) fixed: &'a FixedRows<'a>,
    pub(crate) indices: &'a [u32],
    /// What comes next; only as many as `indices` are looked at.
    pub(crate) ahead: &'a [u32],
    pub(crate) columns: Range<usize>,
    pub(crate) to: &'a mut [f32],
    /// Numbers from one row of `to` to the next, and how many of them are written.
    pub(crate) layout: (usize, usize),
}

impl Kernel for Gather<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        self.fixed.gather(simd, self.indices, self.ahead, self.columns, self.to, self.layout);
    }
}

impl<'a> FixedRows<'a> {
    /// Views `table`; `None` for int8 rows and for a table on a GPU.
    pub(crate) fn new(table: &'a Table) -> Option<Self> {
        let mut chunks = match table.row_type() {
            crate::RowType::F32 => Chunks::F32(Vec::new()),
            crate::RowType::F16 => Chunks::F16(Vec::new()),
            crate::RowType::Bf16 => Chunks::Bf16(Vec::new()),
            crate::RowType::Int8 => return None,
        };
        for (_, rows) in table.chunks() {
            match (&mut chunks, rows) {
                (Chunks::F32(chunks), Rows::F32(buffer)) => chunks.push(buffer.cpu()?),
                (Chunks::F16(chunks), Rows::F16(buffer)) => chunks.push(buffer.cpu()?),
                (Chunks::Bf16(chunks), Rows::Bf16(buffer)) => chunks.push(buffer.cpu()?),
                _ => return None,
            }
        }
        let chunk_rows = table.chunk_rows();
        Some(Self { chunks, shift: chunk_rows.ilog2(), mask: chunk_rows as usize - 1, dim: table.dim() })
    }

    /// Returns rows `first .. first + n` where they are contiguous f32: within one chunk, each row exactly `dim` long.
    pub(crate) fn in_place(&self, first: usize, n: usize) -> Option<&'a [f32]> {
        match &self.chunks {
            Chunks::F32(chunks) if first >> self.shift == (first + n.max(1) - 1) >> self.shift => {
                let at = (first & self.mask) * self.dim;
                chunks.get(first >> self.shift)?.get(at..at + n * self.dim)
            }
            _ => None,
        }
    }

    /// Names the cache lines of row `index` to `ask`.
    #[inline(always)]
    pub(crate) fn lines(&self, index: u32, ask: impl Fn(*const u8)) {
        let (chunk, at) = (index as usize >> self.shift, (index as usize & self.mask) * self.dim);
        let (start, bytes) = match &self.chunks {
            Chunks::F32(chunks) => (chunks[chunk][at..].as_ptr().cast::<u8>(), 4 * self.dim),
            Chunks::F16(chunks) => (chunks[chunk][at..].as_ptr().cast(), 2 * self.dim),
            Chunks::Bf16(chunks) => (chunks[chunk][at..].as_ptr().cast(), 2 * self.dim),
        };
        for line in (0..bytes).step_by(64) {
            ask(start.wrapping_add(line));
        }
    }

    /// See [`Gather`].
    #[inline(always)]
    fn gather<S: Simd>(
        &self,
        simd: S,
        indices: &[u32],
        ahead: &[u32],
        columns: Range<usize>,
        to: &mut [f32],
        (stride, width): (usize, usize),
    ) {
        match &self.chunks {
            Chunks::F32(chunks) => self.copy(
                simd,
                // SAFETY: the loader reads `LANES` values of the type it is named for.
                (chunks, |at| unsafe { simd.load(at) }, |v| v),
                (indices, ahead),
                columns,
                to,
                (stride, width),
            ),
            Chunks::F16(chunks) => self.copy(
                simd,
                // SAFETY: the loader reads `LANES` values of the type it is named for.
                (chunks, |at| unsafe { simd.load_f16(at) }, f16::to_f32),
                (indices, ahead),
                columns,
                to,
                (stride, width),
            ),
            Chunks::Bf16(chunks) => self.copy(
                simd,
                // SAFETY: the loader reads `LANES` values of the type it is named for.
                (chunks, |at| unsafe { simd.load_bf16(at) }, bf16::to_f32),
                (indices, ahead),
                columns,
                to,
                (stride, width),
            ),
        }
    }

    #[inline(always)]
    fn copy<S: Simd, T: Copy>(
        &self,
        simd: S,
        (chunks, load, widen): (&[&[T]], impl Fn(*const T) -> S::F32, impl Fn(T) -> f32),
        (indices, ahead): (&[u32], &[u32]),
        columns: Range<usize>,
        to: &mut [f32],
        (stride, width): (usize, usize),
    ) {
        let n = columns.len();
        assert!(n <= width && width <= stride && to.len() + stride >= indices.len() * stride + width);
        let row = |index: u32| {
            let at = (index as usize & self.mask) * self.dim;
            &chunks[index as usize >> self.shift][at + columns.start..at + columns.end]
        };
        for (r, &index) in indices.iter().enumerate() {
            if let Some(&next) = ahead.get(r) {
                let next = row(next);
                for line in (0..size_of_val(next)).step_by(64) {
                    simd.prefetch(next.as_ptr().wrapping_byte_add(line));
                }
            }
            let from = row(index);
            // SAFETY: `from` has `n` values and row `r` of `to` has `width`, as asserted above.
            unsafe {
                let to = to.as_mut_ptr().add(r * stride);
                let mut at = 0;
                while at + 4 * S::LANES <= n {
                    let v: [S::F32; 4] = std::array::from_fn(|v| load(from.as_ptr().add(at + v * S::LANES)));
                    for (v, &value) in v.iter().enumerate() {
                        simd.store(to.add(at + v * S::LANES), value);
                    }
                    at += 4 * S::LANES;
                }
                while at + S::LANES <= n {
                    simd.store(to.add(at), load(from.as_ptr().add(at)));
                    at += S::LANES;
                }
                for at in at..width {
                    *to.add(at) = from.get(at).map_or(0.0, |&v| widen(v));
                }
            }
        }
    }
}
