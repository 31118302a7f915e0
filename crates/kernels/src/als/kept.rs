//! A side's rows that stay on a GPU from one half-iteration to the next, so that they are sent once.

#[cfg(feature = "gpu")]
use super::cube::{self, Block};
#[cfg(feature = "gpu")]
use crate::{AlsSystem, Device, Table};

/// What [`crate::als_cg`] has sent of one side's rows, up to a number of bytes: the first ones, as whole blocks. What has no
/// room is sent again every time, so that interactions need not fit.
#[derive(Debug, Default)]
pub struct AlsKept {
    most: u64,
    #[cfg(feature = "gpu")]
    of: Option<Of>,
    #[cfg(feature = "gpu")]
    blocks: Vec<Block>,
}

/// Whose rows they are, as far as that can be told without reading them.
#[cfg(feature = "gpu")]
#[derive(Debug, PartialEq, Eq)]
struct Of {
    device: Device,
    indices: (usize, usize),
    ridge: (usize, usize),
    chunk_rows: u32,
}

impl AlsKept {
    /// Keeps nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Keeps up to `bytes` bytes; nothing on the CPU, where the rows are anyway.
    ///
    /// It belongs to the rows and the ridge of the first system that it is given with, whose numbers must not change.
    pub fn up_to(bytes: u64) -> Self {
        Self { most: bytes, ..Self::default() }
    }
}

#[cfg(feature = "gpu")]
impl AlsKept {
    /// Forgets what is not of this system.
    pub(crate) fn begin(&mut self, system: &AlsSystem<'_>, solution: &Table) {
        let place = |pointer: *const u8, len| (pointer as usize, len);
        let (indices, ridge) = (system.rows.indices, system.ridge);
        let of = Of {
            device: solution.device(),
            indices: place(indices.as_ptr().cast(), indices.len()),
            ridge: place(ridge.as_ptr().cast(), ridge.len()),
            chunk_rows: solution.chunk_rows(),
        };
        if self.of.as_ref() != Some(&of) {
            self.blocks.clear();
            self.of = Some(of);
        }
    }

    /// Returns the blocks of the first rows.
    pub(crate) fn blocks(&self) -> &[Block] {
        &self.blocks
    }

    /// Returns the first row that is not kept.
    pub(crate) fn end(&self) -> usize {
        self.blocks.last().map_or(0, |block| block.first + block.n_rows)
    }

    /// Keeps `block` where it is the next one and has room.
    pub(crate) fn offer(&mut self, block: Block) {
        let used: u64 = self.blocks.iter().map(Block::bytes).sum();
        if block.first == self.end() && used + block.bytes() <= self.most {
            self.blocks.push(block);
        }
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
