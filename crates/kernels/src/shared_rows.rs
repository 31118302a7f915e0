//! A table's rows, handed out to several threads for writing; the one place that turns a table into raw pointers.
//!
//! Block-wise training ([`crate::cells`]) guarantees that no two threads hold the same row at once, which the borrow
//! checker cannot see. The racing variant reads and writes single values atomically instead.

#![expect(
    unsafe_code,
    reason = "rows of one table are written by several threads, each row by one at a time"
)]

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use crate::{Error, Result, RowType, Table};

/// Values of a walk over a cell ([`crate::cells`]) between the one at hand and the one whose rows are asked for from memory:
/// in a cell a row has two or three values, so that without asking nearly every value would wait for its row.
pub(crate) const AHEAD: usize = 8;

/// The rows of an f32 table on the CPU; borrows the table for writing.
pub(crate) struct SharedRows<'a> {
    chunks: Vec<*mut f32>,
    shift: u32,
    mask: u32,
    dim: usize,
    table: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointers come from an exclusive borrow that lives as long as the value; whoever takes a row vouches that
// nobody else has it.
unsafe impl Send for SharedRows<'_> {}
// SAFETY: as above.
unsafe impl Sync for SharedRows<'_> {}

impl<'a> SharedRows<'a> {
    /// Borrows `table` for writing by several threads.
    ///
    /// # Errors
    /// [`Error::NotOnDevice`], [`Error::RowType`] for other than f32 rows, [`Error::Shape`] for rows that are mapped from
    /// a file and hence never written.
    pub(crate) fn new(op: &'static str, what: &'static str, table: &'a mut Table) -> Result<Self> {
        let (dim, rows, device, got) = (table.dim(), table.rows(), table.device(), table.row_type());
        if device != crate::Device::Cpu {
            return Err(Error::NotOnDevice { op, device });
        }
        if got != RowType::F32 {
            return Err(Error::RowType { op, what, expected: RowType::F32, got });
        }
        let (shift, mask) = (table.chunk_rows().ilog2(), table.chunk_rows() - 1);
        let mut writable = 0;
        let mut pointer = |(_, values): (u64, &'a mut [f32])| {
            writable += values.len();
            values.as_mut_ptr()
        };
        let chunks = table.f32_chunks_mut().map(&mut pointer).collect();
        let expected = rows as usize * dim;
        if writable != expected {
            return Err(Error::Shape { op, what, expected, got: writable });
        }
        Ok(Self { chunks, shift, mask, dim, table: PhantomData })
    }

    /// Borrows `values` for writing by several threads, as rows of one value.
    pub(crate) fn of_slice(values: &'a mut [f32]) -> Self {
        Self { chunks: vec![values.as_mut_ptr()], shift: 31, mask: u32::MAX >> 1, dim: 1, table: PhantomData }
    }

    /// Returns row `row` for writing.
    ///
    /// # Safety
    /// `row` is a row of the table, and no other reference to it lives, on this thread or another.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "the caller vouches that the row is nobody else's")]
    pub(crate) unsafe fn row(&self, row: u32) -> &mut [f32] {
        // SAFETY: a row lies within its chunk; that it is ours alone is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer(row), self.dim) }
    }

    /// Returns row `row` as values that any thread may read and write at any time.
    ///
    /// # Safety
    /// `row` is a row of the table, and nobody holds it by [`SharedRows::row`].
    #[inline(always)]
    pub(crate) unsafe fn racing(&self, row: u32) -> Racing<'_> {
        // SAFETY: f32 and AtomicU32 have one size and alignment, and all concurrent access is atomic.
        Racing(unsafe { std::slice::from_raw_parts(self.pointer(row).cast::<AtomicU32>(), self.dim) })
    }

    /// Returns the first value of row `row`, read as one that any thread may write at any time.
    #[inline(always)]
    pub(crate) fn value(&self, row: u32) -> f32 {
        // SAFETY: only tables of one value a row are read so, and those never by `row`.
        f32::from_bits(unsafe { self.racing(row) }.0[0].load(Relaxed))
    }

    /// Writes the first value of row `row`, as one that any thread may read at any time.
    #[inline(always)]
    pub(crate) fn set_value(&self, row: u32, value: f32) {
        // SAFETY: as for `value`.
        unsafe { self.racing(row) }.0[0].store(value.to_bits(), Relaxed);
    }

    /// Asks the processor for row `row`, to be read or written soon; its first 512 bytes, after which processors see where a
    /// walk is going.
    #[inline(always)]
    pub(crate) fn prefetch(&self, row: u32) {
        #[cfg(target_arch = "x86_64")]
        for at in (0..self.dim.min(128)).step_by(16) {
            // SAFETY: a hint, which takes any address.
            unsafe {
                std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                    self.pointer(row).wrapping_add(at).cast(),
                );
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = row;
    }

    #[inline(always)]
    fn pointer(&self, row: u32) -> *mut f32 {
        self.chunks[(row >> self.shift) as usize].wrapping_add((row & self.mask) as usize * self.dim)
    }
}

/// A row that several threads read and write at once, value by value.
///
/// Relaxed atomic loads and stores: an update may be lost to another thread's, but a value is always one that somebody
/// wrote, and there is no undefined behaviour.
pub(crate) struct Racing<'a>(&'a [AtomicU32]);

impl Racing<'_> {
    /// Copies the row out.
    #[inline(always)]
    pub(crate) fn load(&self, out: &mut [f32]) {
        for (out, value) in out.iter_mut().zip(self.0) {
            *out = f32::from_bits(value.load(Relaxed));
        }
    }

    /// Writes the row back.
    #[inline(always)]
    pub(crate) fn store(&self, values: &[f32]) {
        for (value, new) in self.0.iter().zip(values) {
            value.store(new.to_bits(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn rows_are_found_in_their_chunks_and_written() {
        let values: Vec<f32> = (0..21).map(|i| i as f32).collect();
        let mut table = Table::from_f32_in_chunks(&values, 3, 2, Device::Cpu, "a test").unwrap();
        let rows = SharedRows::new("a test", "table", &mut table).unwrap();
        for row in 0..7 {
            // SAFETY: one reference at a time.
            unsafe {
                assert_eq!(rows.row(row), &values[row as usize * 3..][..3]);
                rows.row(row)[2] = -1.0;
                let mut copy = [0.0; 3];
                rows.racing(row).load(&mut copy);
                assert_eq!(copy[2], -1.0);
                copy[0] = 5.0;
                rows.racing(row).store(&copy);
            }
        }
        assert_eq!(table.f32_rows().unwrap().row(5), [5.0, 16.0, -1.0]);
    }

    #[test]
    fn tables_that_cannot_be_written_are_refused() {
        let table = Table::zeros(4, 2, Device::Cpu, "a test").unwrap();
        let mut half = table.to_row_type(RowType::F16, "a test").unwrap();
        assert!(matches!(SharedRows::new("a test", "table", &mut half), Err(Error::RowType { .. })));
        let mapped = crate::Buffer::from_mapped(crate::Mapped::new([0u8; 0]), 0, 0).unwrap();
        assert_eq!(mapped.cpu(), Some(&[0.0f32; 0][..]));
    }
}
