//! What fits what: the sizes of a batch of rows of fields.

use crate::{Error, Result};

pub(super) const FM: &str = "fm_second_order";
pub(super) const DOTS: &str = "pairwise_dots";
pub(super) const CROSS: &str = "cross_layer";

/// The sizes of `[rows, fields, dim]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) rows: usize,
    pub(super) fields: usize,
    pub(super) dim: usize,
}

impl Shape {
    /// # Errors
    /// [`Error::Parameter`], [`Error::Shape`].
    pub(super) fn new(op: &'static str, len: usize, fields: usize, dim: usize) -> Result<Self> {
        for (what, value) in [("fields", fields), ("dim", dim)] {
            if value == 0 {
                return Err(Error::Parameter { op, what, expected: "at least 1", got: 0.0 });
            }
        }
        let row = fields.saturating_mul(dim);
        match len.is_multiple_of(row) {
            true => Ok(Self { rows: len / row, fields, dim }),
            false => {
                Err(Error::Shape { op, what: "x", expected: (len / row + 1).saturating_mul(row), got: len })
            }
        }
    }

    /// Kernels count values in 32 bits.
    ///
    /// # Errors
    /// [`Error::Parameter`].
    #[cfg(feature = "gpu")]
    pub(super) fn check_gpu(self, op: &'static str) -> Result<()> {
        let values = self.rows.saturating_mul(self.row().max(self.pairs()));
        match u32::try_from(values) {
            Ok(_) => Ok(()),
            Err(_) => {
                let expected = "fewer than 2^32 on a GPU";
                Err(Error::Parameter { op, what: "values", expected, got: values as f64 })
            }
        }
    }

    /// Values of a row.
    pub(super) fn row(self) -> usize {
        self.fields * self.dim
    }

    /// Pairs of fields.
    pub(super) fn pairs(self) -> usize {
        self.fields * (self.fields - 1) / 2
    }
}

/// # Errors
/// [`Error::Shape`].
pub(super) fn same_len(op: &'static str, what: &'static str, expected: usize, got: usize) -> Result<()> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::Shape { op, what, expected, got }),
    }
}
