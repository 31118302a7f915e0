//! What every model's way of learning looks like to the loop.

use recmill_core::{Parameters, models::Retriever};

use crate::Result;

/// Parameters that get better epoch by epoch.
///
/// The same data, seed and configuration give the same bits after every epoch, whatever the number of threads.
pub trait Learner {
    /// Goes once through the data and returns the loss where the pass yields it for nothing.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when an operation is refused or finds a value that is not finite.
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>>;

    /// Computes the loss of the present parameters, where that takes a pass of its own.
    ///
    /// # Errors
    /// As [`Learner::epoch`].
    fn loss(&mut self) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Returns a model of the present parameters: a copy, which later epochs leave alone.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for the copy.
    fn snapshot(&self) -> Result<Box<dyn Retriever>>;

    /// Goes back to the parameters of an earlier [`Learner::snapshot`].
    ///
    /// # Errors
    /// [`crate::Error::Core`] when they are not of this model.
    fn restore(&mut self, parameters: Parameters) -> Result<()>;

    /// Gives away all that later epochs depend on, for as long as a checkpoint is written: the learner is worth nothing until
    /// [`Learner::put_state`] gives it back. A model that is learned in one pass has none.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for a copy of what is on a GPU.
    fn take_state(&mut self) -> Result<Parameters> {
        Ok(Parameters::default())
    }

    /// Takes the state of [`Learner::take_state`] for its own: that of this learner, or of one of the same configuration, data and seed.
    ///
    /// # Errors
    /// [`crate::Error::Resume`] and [`crate::Error::Core`] when it is of another model.
    fn put_state(&mut self, _state: Parameters) -> Result<()> {
        Ok(())
    }

    /// Returns the model as it is kept, after the last step that some models take once.
    ///
    /// # Errors
    /// As [`Learner::epoch`].
    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>>;
}
