//! Why an operation was refused. Nothing has been computed when one of these is returned, unless it says so.

use crate::Device;

/// The crate's one error type: variants carry values, not prose.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A buffer's length does not fit the shape the operation expects.
    #[error("{op}: {what} has {got} values, expected `{expected}`")]
    Shape {
        /// The operation that refused.
        op: &'static str,
        /// The operand.
        what: &'static str,
        /// Values expected.
        expected: usize,
        /// Values found.
        got: usize,
    },
    /// An index points past the rows of its table.
    #[error("{op}: index at position {position} is past the {rows} rows: `{index}`")]
    IndexOutOfRange {
        /// The operation that refused.
        op: &'static str,
        /// Where in the index buffer.
        position: usize,
        /// Rows there are.
        rows: u64,
        /// The index found.
        index: u64,
    },
    /// A parameter is outside its range.
    #[error("{op}: {what} must be {expected}, not `{got}`")]
    Parameter {
        /// The operation that refused.
        op: &'static str,
        /// The parameter.
        what: &'static str,
        /// The range in words.
        expected: &'static str,
        /// The value found.
        got: f64,
    },
    /// A table's rows are of another type than the operation takes.
    #[error("{op}: {what} must hold {expected:?} rows, not `{got:?}`")]
    RowType {
        /// The operation that refused.
        op: &'static str,
        /// The operand.
        what: &'static str,
        /// The type the operation takes.
        expected: crate::RowType,
        /// The type found.
        got: crate::RowType,
    },
    /// The operands live on different devices.
    #[error("{op}: operands must be on one device")]
    MixedDevices {
        /// The operation that refused.
        op: &'static str,
    },
    /// The operation has no variant for this device yet.
    #[error("{op}: not available on `{device}`")]
    NotOnDevice {
        /// The operation that refused.
        op: &'static str,
        /// The device asked for.
        device: Device,
    },
    /// A result or an operand holds NaN or infinity.
    #[error("{op}: {what} is not finite in row `{row}`")]
    NotFinite {
        /// The operation that found it.
        op: &'static str,
        /// The operand or result.
        what: &'static str,
        /// The first such row.
        row: u64,
    },
    /// The normal matrix of a row is not positive definite.
    #[error("{op}: the normal matrix is not positive definite in row `{row}`")]
    NotPositiveDefinite {
        /// The operation that found it.
        op: &'static str,
        /// The first such row.
        row: u64,
    },
    /// An allocation would pass the device's byte budget.
    #[error("{device}: {asked} bytes asked for {what}, `{available}` bytes available")]
    OutOfMemory {
        /// The device asked.
        device: Device,
        /// What the bytes were for.
        what: &'static str,
        /// Bytes asked for.
        asked: u64,
        /// Bytes left of the budget.
        available: u64,
    },
    /// One allocation is larger than the device allows a single buffer to be.
    #[error(
        "{device}: one buffer of {asked} bytes asked for {what}, the device binds at most `{limit}` at once"
    )]
    BufferTooLarge {
        /// The device asked.
        device: Device,
        /// What the bytes were for.
        what: &'static str,
        /// Bytes asked for.
        asked: u64,
        /// Bytes that one buffer may have.
        limit: u64,
    },
    /// The device is not there, or this build cannot reach it.
    #[error("{device} cannot be used: {reason}")]
    Unavailable {
        /// The device asked for.
        device: Device,
        /// Why.
        reason: String,
    },
    /// The device stopped answering; what it held is gone.
    #[error("{device} was lost while {doing}")]
    DeviceLost {
        /// The device.
        device: Device,
        /// What was under way.
        doing: &'static str,
    },
    /// Text that names no device.
    #[error("expected cpu, cuda, cuda:N, wgpu or wgpu:N, found `{text}`")]
    UnknownDevice {
        /// The text found.
        text: String,
    },
}
