//! What an optimizer keeps of a table: its moments beside the rows, and how many steps there were.

use super::{NOT_FINITE, OP, SparseOptimizer};
use crate::{Buffer, Error, Result, RowType, Rows, Table};

/// The state of an optimizer for one table, in chunks of the same rows.
#[derive(Debug)]
pub struct SparseState {
    optimizer: SparseOptimizer,
    steps: u64,
    /// Adagrad: `a`; row-wise Adagrad: `a` of each row; Adam: `m`, `v`; FTRL: `z`, `n`.
    pub(super) tables: Vec<Table>,
    /// The first row whose step was not finite; on a GPU in `reported`.
    pub(super) not_finite: Option<u64>,
    /// `[1]`: the lowest such row, or `u32::MAX`.
    #[cfg(feature = "gpu")]
    pub(super) reported: Option<Buffer<u32>>,
}

impl SparseState {
    /// Makes the state that `table` begins to learn with, on its device.
    ///
    /// # Errors
    /// [`Error::Parameter`] for numbers that the optimizer does not work with; [`Error::OutOfMemory`],
    /// [`Error::BufferTooLarge`].
    pub fn new(optimizer: SparseOptimizer, table: &Table) -> Result<Self> {
        let tables = optimizer
            .state_dims()
            .iter()
            .map(|of| {
                let dim = of.of(table.dim());
                Table::zeros_in_chunks(
                    table.rows(),
                    dim,
                    table.chunk_rows(),
                    table.device(),
                    "an optimizer's state",
                )
            })
            .collect::<Result<_>>()?;
        Self::from_tables(optimizer, 0, tables, table)
    }

    /// Puts a state that was read together again: what [`SparseState::tables`] and [`SparseState::steps`] gave.
    ///
    /// # Errors
    /// As [`SparseState::new`]; [`Error::Shape`], [`Error::RowType`], [`Error::MixedDevices`] for tables that are not
    /// those of the optimizer, or not in chunks of the same rows as `table`.
    pub fn from_tables(
        optimizer: SparseOptimizer,
        steps: u64,
        tables: Vec<Table>,
        table: &Table,
    ) -> Result<Self> {
        optimizer.check()?;
        let state = Self {
            optimizer,
            steps,
            tables,
            not_finite: None,
            #[cfg(feature = "gpu")]
            reported: match table.device() {
                crate::Device::Cpu => None,
                device => Some(Buffer::from_slice(&[u32::MAX], device, "rows that are not finite")?),
            },
        };
        state.check_table(table)?;
        Ok(state)
    }

    /// Returns the optimizer.
    pub fn optimizer(&self) -> SparseOptimizer {
        self.optimizer
    }

    /// Returns the steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn count_step(&mut self) {
        self.steps += 1;
    }

    /// Returns the state's tables, in the order of the formulas in the file's head.
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// Takes the state apart into its tables, in the order of the formulas in the file's head.
    pub fn into_tables(self) -> Vec<Table> {
        self.tables
    }

    /// Grows the state to the rows of `table`, which has as many or more, in chunks of the same size; new ones begin at 0.
    ///
    /// # Errors
    /// [`Error::Shape`] when the table has fewer rows, another dimension or other chunks; [`Error::OutOfMemory`],
    /// [`Error::BufferTooLarge`], [`Error::DeviceLost`]: then the state is as it was.
    pub fn extend(&mut self, table: &Table) -> Result<()> {
        let what = "an optimizer's state";
        for (own, of) in self.tables.iter_mut().zip(self.optimizer.state_dims()) {
            let dim = of.of(table.dim());
            let same = (own.dim(), own.chunk_rows()) == (dim, table.chunk_rows());
            if !same || table.rows() < own.rows() || own.device() != table.device() {
                let (expected, got) = (own.rows() as usize, table.rows() as usize);
                return Err(Error::Shape { op: OP, what: "table", expected, got });
            }
            if table.rows() == own.rows() {
                continue;
            }
            let (chunk_rows, device) = (u64::from(own.chunk_rows()), own.device());
            // A last chunk that is not full is copied into a longer one; full ones stay where they are.
            let full = (own.rows() / chunk_rows) as usize;
            let mut added = Vec::new();
            let mut first = full as u64 * chunk_rows;
            while first < table.rows() {
                let n = (table.rows() - first).min(chunk_rows) as usize;
                let begun = own.chunks().nth(full).filter(|_| added.is_empty()).map(|(_, rows)| rows);
                added.push(Rows::F32(match begun {
                    Some(Rows::F32(rows)) => {
                        let mut values = rows.to_vec()?;
                        values.resize(n * dim, 0.0);
                        Buffer::from_slice(&values, device, what)?
                    }
                    _ => Buffer::zeros(n * dim, device, what)?,
                }));
                first += n as u64;
            }
            let empty = Table::from_chunks(dim, own.chunk_rows(), RowType::F32, device, Vec::new())?;
            let mut chunks = std::mem::replace(own, empty).into_chunks();
            chunks.truncate(full);
            chunks.extend(added);
            *own = Table::from_chunks(dim, table.chunk_rows(), RowType::F32, device, chunks)?;
        }
        Ok(())
    }

    /// Says whether every step so far was finite; waits for a GPU.
    ///
    /// # Errors
    /// [`Error::NotFinite`] with the first row of the table, once and from then on; [`Error::DeviceLost`].
    pub fn check(&self) -> Result<()> {
        let not_finite = |row| Err(Error::NotFinite { op: OP, what: NOT_FINITE, row });
        #[cfg(feature = "gpu")]
        if let Some(reported) = &self.reported {
            let row = reported.to_vec()?[0];
            return if row == u32::MAX { Ok(()) } else { not_finite(row.into()) };
        }
        self.not_finite.map_or(Ok(()), not_finite)
    }

    /// Checks that the state is that of `table`.
    pub(super) fn check_table(&self, table: &Table) -> Result<()> {
        let dims = self.optimizer.state_dims();
        let misfit = |expected, got| Err(Error::Shape { op: OP, what: "state", expected, got });
        if self.tables.len() != dims.len() {
            return misfit(dims.len(), self.tables.len());
        }
        for (own, of) in self.tables.iter().zip(dims) {
            let expected = (table.rows(), of.of(table.dim()), table.chunk_rows());
            if (own.rows(), own.dim(), own.chunk_rows()) != expected {
                return misfit(expected.0 as usize * expected.1, own.rows() as usize * own.dim());
            }
            if own.row_type() != RowType::F32 {
                let (expected, got) = (RowType::F32, own.row_type());
                return Err(Error::RowType { op: OP, what: "state", expected, got });
            }
            if own.device() != table.device() {
                return Err(Error::MixedDevices { op: OP });
            }
        }
        #[cfg(feature = "gpu")]
        if self.reported.as_ref().map_or(crate::Device::Cpu, Buffer::device) != table.device() {
            return Err(Error::MixedDevices { op: OP });
        }
        Ok(())
    }
}
