//! A side's rows that stay on a GPU from one half-iteration to the next, so that they are sent once.

#[cfg(feature = "gpu")]
use super::cube::{self, Block};
use crate::SparseRows;
#[cfg(feature = "gpu")]
use crate::{AlsSystem, Device, Table};

/// What solvers have sent to a GPU of one side's rows, up to a number of bytes: the first ones, as whole blocks. What has no
/// room is sent again every time, so that interactions need not fit.
///
/// It borrows the rows, so they cannot change; with a system of other rows it is of no use, and does no harm.
#[derive(Debug, Default)]
pub struct AlsKept<'a> {
    rows: Option<SparseRows<'a>>,
    most: u64,
    /// Where the blocks are, and the rows of a chunk of the solution that they were cut for.
    #[cfg(feature = "gpu")]
    of: Option<(Device, u32)>,
    #[cfg(feature = "gpu")]
    blocks: Vec<Block>,
}

impl<'a> AlsKept<'a> {
    /// Keeps nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Keeps up to `bytes` bytes of `rows`; nothing on the CPU, where they are anyway.
    pub fn up_to(rows: SparseRows<'a>, bytes: u64) -> Self {
        let mut kept = Self::nothing();
        (kept.rows, kept.most) = (Some(rows), bytes);
        kept
    }
}

#[cfg(feature = "gpu")]
impl AlsKept<'_> {
    /// Returns whether what it keeps can be `system`'s; forgets what was cut for another solution.
    fn is_of(&mut self, system: &AlsSystem<'_>, solution: &Table) -> bool {
        let of = Some((solution.device(), solution.chunk_rows()));
        if self.of != of {
            self.blocks.clear();
            self.of = of;
        }
        self.rows.is_some_and(|own| {
            std::ptr::eq(own.indptr, system.rows.indptr)
                && std::ptr::eq(own.indices, system.rows.indices)
                && std::ptr::eq(own.values, system.rows.values)
        })
    }

    /// Keeps `block`, the one after those that are kept, where it has room.
    fn offer(&mut self, block: Block) {
        let used: u64 = self.blocks.iter().map(Block::bytes).sum();
        let next = self.blocks.last().map_or(0, |last| last.first + last.n_rows);
        if block.first == next && used + block.bytes() <= self.most {
            self.blocks.push(block);
        }
    }
}

#[cfg(feature = "gpu")]
impl<R: crate::buffer::cube::Gpu> cube::Side<'_, R> {
    /// Calls `work` with all rows, block by block in their order; those of `kept` are there, the others are sent and offered to it.
    pub(crate) fn each_block(
        &self,
        solution: &Table,
        kept: &mut AlsKept<'_>,
        mut work: impl FnMut(&Block) -> crate::Result<()>,
    ) -> crate::Result<()> {
        let keeps = kept.is_of(self.system, solution);
        let mut first = 0;
        for block in kept.blocks.iter().filter(|_| keeps) {
            work(block)?;
            first = block.first + block.n_rows;
        }
        for range in self.blocks(first, solution.chunk_rows() as usize)? {
            let block = self.block(range)?;
            work(&block)?;
            if keeps {
                kept.offer(block);
            }
        }
        Ok(())
    }
}

/// Returns the bytes that all of a side's rows take on a GPU, at most.
pub fn als_kept_bytes(n_rows: u64, nnz: u64) -> u64 {
    #[cfg(feature = "gpu")]
    return cube::kept_bytes(n_rows, nnz);
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (n_rows, nnz);
        0
    }
}
