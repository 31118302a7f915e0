//! The step of an embedding table: on the rows that a batch touched, and on no other.

use recmill_core::rankers::Lookup;
use recmill_kernels::{
    Buffer, SparseOptimizer, SparseState, SparseStep, Table, embedding_bag_backward, sparse_update,
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

    /// Steps the rows that `lookup` read, by the gradient of what it returned.
    ///
    /// # Shapes
    /// - `gradient`: `[batch, fields * dim]`, as `lookup.values`
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] with the row when a gradient is not finite.
    pub fn step(
        &mut self,
        table: &mut Table,
        lookup: &Lookup,
        gradient: Vec<f32>,
        step: &SparseStep,
    ) -> Result<()> {
        let gradient = Buffer::from_vec(gradient, "the gradient of embeddings")?;
        let by_position = embedding_bag_backward(&lookup.bags, &gradient)?;
        let segment = lookup.bags.segment(0)?;
        Ok(sparse_update(table, &mut self.state, &segment, &by_position[0], step)?)
    }
}
