//! The step of an embedding table: on the rows that a batch touched, and on no other.

use recmill_core::{Parameter, Parameters};
use recmill_kernels::{
    Bags, Buffer, Segment, SparseOptimizer, SparseState, SparseStep, Table, embedding_bag_backward, segment,
    sparse_update,
};

use crate::Result;

/// What one table learns with.
#[derive(Debug)]
pub struct TableSteps {
    state: SparseState,
}

impl TableSteps {
    /// Begins with an empty memory of `table`'s gradients.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for it.
    pub fn new(optimizer: SparseOptimizer, table: &Table) -> Result<Self> {
        Ok(Self { state: SparseState::new(optimizer, table)? })
    }

    /// Gives away what is remembered, and how many steps there were.
    pub fn take(self) -> (Parameters, u64) {
        let steps = self.state.steps();
        let mut taken = Parameters::default();
        for (at, table) in self.state.into_tables().into_iter().enumerate() {
            taken.insert(&at_name(at), Parameter::Table(table));
        }
        (taken, steps)
    }

    /// Takes back what [`TableSteps::take`] gave.
    ///
    /// # Errors
    /// [`crate::Error::Core`], [`crate::Error::Kernel`] when it is not of this optimizer and this table.
    pub fn put(optimizer: SparseOptimizer, table: &Table, mut taken: Parameters, steps: u64) -> Result<Self> {
        let mut tables = Vec::new();
        while let Some(state) = taken.take(&at_name(tables.len())) {
            let Parameter::Table(state) = state else { continue };
            // The files' row ranges are as long as suits each table alone.
            let fits = (state.chunk_rows(), state.device()) == (table.chunk_rows(), table.device());
            let what = "an optimizer's state";
            tables.push(match fits {
                true => state,
                false => state.try_copy_in_chunks(table.chunk_rows(), table.device(), what)?,
            });
        }
        Ok(Self { state: SparseState::from_tables(optimizer, steps, tables, table)? })
    }

    /// Steps the rows that a lookup read, by the gradient of what it returned.
    ///
    /// # Shapes
    /// - `bags`: what was looked up; `segment`: its positions by row
    /// - `gradient`: `[batch, fields * dim]`, as the values that were returned, on the table's device
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] with the row when a gradient is not finite.
    pub fn step(
        &mut self,
        table: &mut Table,
        bags: &Bags,
        segment: &Segment,
        gradient: &Buffer<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        let by_position = embedding_bag_backward(bags, gradient)?;
        Ok(sparse_update(table, &mut self.state, segment, &by_position[0], step)?)
    }

    /// Steps `rows` of the table by one gradient each, those of a row that comes several times being added.
    ///
    /// # Shapes
    /// - `gradient`: `[rows, dim]`
    ///
    /// # Errors
    /// As [`TableSteps::step`].
    pub fn step_rows(
        &mut self,
        table: &mut Table,
        rows: &[u32],
        gradient: Vec<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        let gradient = Buffer::from_vec(gradient, "the gradient of embeddings")?;
        self.step_gathered(table, rows, &gradient, step)
    }

    /// As [`TableSteps::step_rows`], by gradients that are where the table is.
    ///
    /// # Errors
    /// As [`TableSteps::step`].
    pub fn step_gathered(
        &mut self,
        table: &mut Table,
        rows: &[u32],
        gradient: &Buffer<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        let segment = segment(rows, table.rows(), table.device())?;
        Ok(sparse_update(table, &mut self.state, &segment, gradient, step)?)
    }
}

/// The name of an optimizer's `at`-th table.
fn at_name(at: usize) -> String {
    format!("table_{at}")
}
