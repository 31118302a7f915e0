//! Products and factorizations of small dense matrices inside a row's work: the whole matrix in one core's cache.
//!
//! Rows are padded with zeros to whole vectors. Every result is a fixed sequence of operations on its own operands, so a
//! vector that is multiplied alone and in a batch has the same bits.

#![expect(
    unsafe_code,
    reason = "loads and stores of whole vectors, without bounds checks in the inner loops"
)]

mod cholesky;
#[cfg(feature = "gpu")]
pub(crate) mod cube;
mod gathered;
mod multiply;
mod syrk;

pub(crate) use cholesky::{Solve, SolveArgs};
pub(crate) use gathered::{Dots, Weigh};
pub(crate) use multiply::Multiply;
pub(crate) use syrk::{Syrk, Update};
