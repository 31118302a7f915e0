//! What kernels on matrix units share: which devices have them, and sums to begin with.
//!
//! A matrix unit multiplies 16 x 16 operands of 16 bits, exactly, and adds to 16 x 16 sums in f32; it may cut a sum where it
//! should round. A warp of 32 holds an operand together.

use cubecl::{
    cmma,
    ir::{ElemType, FloatKind, features::MmaConfig},
    prelude::*,
};

use crate::{
    RowType,
    buffer::cube::{Gpu, Queue},
};

/// Rows, columns and depth of the operands.
pub(crate) const UNIT: usize = 16;

/// Whether the device has matrix units for operands of such rows, and `shared_bytes` for a group.
pub(crate) fn fits<R: Gpu>(queue: &Queue<R>, row_type: RowType, shared_bytes: usize) -> bool {
    let kind = match row_type {
        RowType::F16 => FloatKind::F16,
        RowType::Bf16 => FloatKind::BF16,
        RowType::F32 | RowType::Int8 => return false,
    };
    let operand = ElemType::Float(kind).into();
    let sum = ElemType::Float(FloatKind::F32).into();
    let [m, n, k] = [UNIT as u32; 3];
    let unit = MmaConfig { a_type: operand, b_type: operand, cd_type: sum, m, n, k };
    let properties = queue.client.properties();
    properties.features.matmul.cmma.contains(&unit)
        && properties.hardware.plane_size_min == 32
        && properties.hardware.plane_size_max == 32
        && shared_bytes <= properties.hardware.max_shared_memory_size
}

/// A warp's 16 x 16 sums, zero.
#[cube]
pub(crate) fn zeros() -> cmma::Matrix<f32> {
    cmma::Matrix::<f32>::from_value(
        cmma::MatrixIdent::Accumulator,
        UNIT,
        UNIT,
        UNIT,
        cmma::MatrixLayout::Undefined,
        0.0,
    )
}

/// Writes sums to shared memory, `stride` numbers between two rows, from `begin` on.
#[cube]
pub(crate) fn put(
    to: &mut SharedMemory<f32>,
    sums: &cmma::Matrix<f32>,
    begin: usize,
    #[comptime] stride: usize,
) {
    let end = begin + comptime!((UNIT - 1) * stride + UNIT);
    cmma::store(&mut to.slice_mut(begin, end), sums, comptime!(stride as u32), cmma::MatrixLayout::RowMajor);
}
