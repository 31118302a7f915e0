//! Rows of a table on a GPU as words of 32 bits, so that one kernel reads f32, f16 and bf16 rows on every device.
//!
//! | rows | values a word | a vector of 4 values is |
//! |------|---------------|-------------------------|
//! | f32  | 1             | 4 words                 |
//! | f16  | 2, low first  | 2 words                 |
//! | bf16 | 2, low first  | 2 words                 |
//!
//! Narrow values are widened by integer arithmetic: no device has to know their type, and every one gives the same bits,
//! those of f16's subnormal numbers too. A row of 16-bit values must be a whole number of words.

use cubecl::prelude::*;

use crate::{
    Error, Result, RowType, Rows, Table,
    buffer::cube::{Gpu, Queue, vector_width},
};

/// Rows whose words are the values.
pub(crate) const F32: u32 = 0;
/// Rows of f16 pairs.
pub(crate) const F16: u32 = 1;
/// Rows of bf16 pairs.
pub(crate) const BF16: u32 = 2;

/// How a kernel reads a table's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowWords {
    /// [`F32`], [`F16`] or [`BF16`].
    pub(crate) format: u32,
    /// Values a unit takes at once.
    pub(crate) width: usize,
    /// Words that these are.
    pub(crate) words: usize,
    /// Vectors of `width` values a row.
    pub(crate) row_vectors: usize,
}

impl RowWords {
    /// Returns how `table` is read.
    ///
    /// # Errors
    /// [`Error::RowType`] for int8 rows; [`Error::Parameter`] for 16-bit rows of an odd dimension.
    pub(crate) fn of(op: &'static str, table: &Table) -> Result<Self> {
        let dim = table.dim();
        let (format, in_word) = match table.row_type() {
            RowType::F32 => (F32, 1),
            RowType::F16 => (F16, 2),
            RowType::Bf16 => (BF16, 2),
            RowType::Int8 => {
                return Err(Error::RowType { op, what: "table", expected: RowType::F32, got: RowType::Int8 });
            }
        };
        if !dim.is_multiple_of(in_word) {
            let expected = "even for rows of 16-bit values on a GPU";
            return Err(Error::Parameter { op, what: "dim", expected, got: dim as f64 });
        }
        let width = vector_width(dim);
        Ok(Self { format, width, words: width / in_word, row_vectors: dim / width })
    }

    /// Returns `rows` as a kernel's argument of vectors of `words` words.
    ///
    /// # Errors
    /// [`Error::MixedDevices`].
    pub(crate) fn arg<R: Gpu>(self, op: &'static str, queue: &Queue<R>, rows: &Rows) -> Result<ArrayArg<R>> {
        match rows {
            Rows::F32(buffer) => queue.whole_words_arg(op, buffer),
            Rows::F16(buffer) => queue.whole_words_arg(op, buffer),
            Rows::Bf16(buffer) => queue.whole_words_arg(op, buffer),
            Rows::Int8(buffer, _) => queue.whole_words_arg(op, buffer),
        }
    }
}

/// Returns the rows of a chunk.
pub(crate) fn n_rows(rows: &Rows, dim: usize) -> usize {
    let values = match rows {
        Rows::F32(buffer) => buffer.len(),
        Rows::F16(buffer) => buffer.len(),
        Rows::Bf16(buffer) => buffer.len(),
        Rows::Int8(buffer, _) => buffer.len(),
    };
    values / dim
}

/// The values that `words` hold.
#[cube]
pub(crate) fn widen<N: Size, W: Size>(words: Vector<u32, W>, #[comptime] format: u32) -> Vector<f32, N> {
    let mut values = Vector::<f32, N>::empty();
    if comptime!(format == F32) {
        #[unroll]
        for k in 0..W::value() {
            values[k] = f32::reinterpret(words[k]);
        }
    } else {
        #[unroll]
        for k in 0..W::value() {
            let word = words[k];
            values[2 * k] = widen_half(word & 0xffff, format);
            values[2 * k + 1] = widen_half(word >> 16, format);
        }
    }
    values
}

#[cube]
fn widen_half(bits: u32, #[comptime] format: u32) -> f32 {
    if comptime!(format == BF16) {
        f32::reinterpret(bits << 16)
    } else {
        let (sign, exponent, fraction) = ((bits & 0x8000) << 16, (bits >> 10) & 31, bits & 0x3ff);
        let mut wide = (bits & 0x7fff) << 13;
        if exponent == 0 {
            // Subnormal: the fraction counts steps of 2^-24.
            wide = u32::reinterpret(f32::cast_from(fraction) * f32::new(5.960_464_5e-8));
        } else if exponent == 31 {
            wide |= 0x7f80_0000;
        } else {
            wide += 112 << 23;
        }
        f32::reinterpret(sign | wide)
    }
}

/// Whether a value is neither NaN nor infinite; by its bits, since compilers may take every number for finite.
#[cube]
pub(crate) fn is_finite(value: f32) -> bool {
    (u32::reinterpret(value) & 0x7f80_0000) != 0x7f80_0000
}
