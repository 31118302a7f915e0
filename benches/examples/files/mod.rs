//! Numbers as the scripts of `benches/peers` write them: a sparse matrix, and tables of factors.

use fs_err as fs;
use recmill_kernels::SparseRows;

use super::Result;

/// A sparse matrix by row.
pub(crate) struct Sparse {
    pub(crate) n_columns: usize,
    pub(crate) indptr: Vec<u64>,
    pub(crate) indices: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Sparse {
    /// Reads three u64 (rows, columns, non-zeros), row pointers u64, columns u32, values f32.
    pub(crate) fn read(path: &str) -> Result<Self> {
        let bytes = fs::read(path)?;
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap_or_default());
        let (n_rows, n_columns, nnz) = (word(0) as usize, word(1) as usize, word(2) as usize);
        let indptr = (0..=n_rows).map(|row| word(3 + row)).collect();
        let fours = &bytes[(4 + n_rows) * 8..];
        let four = |at: usize| fours[at * 4..at * 4 + 4].try_into().unwrap_or_default();
        let indices = (0..nnz).map(|at| u32::from_le_bytes(four(at))).collect();
        let values = (nnz..2 * nnz).map(|at| f32::from_le_bytes(four(at))).collect();
        Ok(Self { n_columns, indptr, indices, values })
    }

    pub(crate) fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }
}

/// Reads f32 until the file ends.
pub(crate) fn read_f32(path: &str) -> Result<Vec<f32>> {
    let bytes = fs::read(path)?;
    Ok(bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap_or_default())).collect())
}

/// Writes f32 one after the other.
pub(crate) fn write_f32(path: &str, values: &[f32]) -> Result<()> {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Ok(fs::write(path, bytes)?)
}
