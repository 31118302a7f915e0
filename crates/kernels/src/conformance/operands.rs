//! Operands that several operations' cases share: sparse matrices with awkward rows, factors that are never zero, and tables
//! of other row types and on other devices.

use super::Numbers;
use crate::{Buffer, Device, RowType, Rows, SparseRows, Table};

/// A sparse matrix of a case's own.
#[derive(Clone)]
pub(super) struct Sparse {
    pub(super) indptr: Vec<u64>,
    pub(super) indices: Vec<u32>,
    pub(super) values: Vec<f32>,
    pub(super) n_columns: usize,
}

impl Sparse {
    /// Rows that hold one column in `one_in`, their values from `value`.
    ///
    /// Row 2 of every 7 is empty and row 5 of every 31 has all columns but one; column 1 has no value in any row, and low
    /// columns are the popular ones.
    pub(super) fn new(
        n_rows: usize,
        n_columns: usize,
        one_in: usize,
        value: impl Fn(&mut Numbers) -> f32,
    ) -> Self {
        let mut numbers = Numbers::new((n_rows * 1009 + n_columns) as u64);
        let mut out = Self { indptr: vec![0], indices: Vec::new(), values: Vec::new(), n_columns };
        for row in 0..n_rows {
            for column in 0..n_columns {
                let chance = one_in * (2 * column + n_columns) / (2 * n_columns);
                let wanted = if row % 31 == 5 { column > 0 } else { numbers.below(chance.max(1)) == 0 };
                if wanted && row % 7 != 2 && column != 1 {
                    out.indices.push(column as u32);
                    out.values.push(value(&mut numbers));
                }
            }
            out.indptr.push(out.indices.len() as u64);
        }
        out
    }

    /// The same matrix, column after column.
    pub(super) fn transposed(&self) -> Self {
        let mut entries: Vec<(u32, u32, f32)> = (0..self.indptr.len() - 1)
            .flat_map(|row| {
                let (columns, values) = self.rows().row(row);
                columns.iter().zip(values).map(move |(&column, &value)| (column, row as u32, value))
            })
            .collect();
        entries.sort_by_key(|&(column, row, _)| (column, row));
        let begin = |column: usize| entries.partition_point(|entry| (entry.0 as usize) < column) as u64;
        Self {
            indptr: (0..=self.n_columns).map(begin).collect(),
            indices: entries.iter().map(|entry| entry.1).collect(),
            values: entries.iter().map(|entry| entry.2).collect(),
            n_columns: self.indptr.len() - 1,
        }
    }

    pub(super) fn rows(&self) -> SparseRows<'_> {
        SparseRows { indptr: &self.indptr, indices: &self.indices, values: &self.values }
    }
}

/// A table of factors between 1/16 and 3/4 in magnitude: none is zero, so that no gradient is.
pub(super) fn factors(
    numbers: &mut Numbers,
    rows: usize,
    dim: usize,
    chunk_rows: u32,
    device: Device,
) -> crate::Result<Table> {
    let mut factor = || {
        let size = (numbers.below(89) + 8) as f32 / 128.0;
        if numbers.below(2) == 0 { size } else { -size }
    };
    let values: Vec<f32> = (0..rows * dim).map(|_| factor()).collect();
    Table::from_f32_in_chunks(&values, dim, chunk_rows, device, "a conformance case")
}

/// The table with rows of `row_type`, on the CPU; int8 rows with the scale that their largest value needs.
pub(super) fn narrow(table: &Table, row_type: RowType) -> crate::Result<Table> {
    if row_type != RowType::Int8 {
        return table.to_row_type(row_type, "a conformance case");
    }
    let values = table.to_f32()?;
    let rows_of = |values: &[f32]| {
        let (mut quantized, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks(table.dim()) {
            let scale = row.iter().fold(f32::MIN_POSITIVE, |most, value| most.max(value.abs())) / 127.0;
            quantized.extend(row.iter().map(|value| (value / scale).round() as i8));
            scales.push(scale);
        }
        let quantized = Buffer::from_vec(quantized, "a conformance case")?;
        Ok(Rows::Int8(quantized, Buffer::from_vec(scales, "a conformance case")?))
    };
    let chunks = values
        .chunks(table.chunk_rows() as usize * table.dim())
        .map(rows_of)
        .collect::<crate::Result<Vec<_>>>()?;
    Table::from_chunks(table.dim(), table.chunk_rows(), row_type, Device::Cpu, chunks)
}

/// A copy of the table on `device`, chunk by chunk.
pub(super) fn on_device(table: &Table, device: Device) -> crate::Result<Table> {
    let what = "a conformance case";
    let copy = |rows: &Rows| {
        Ok(match rows {
            Rows::F32(buffer) => Rows::F32(buffer.try_copy(device, what)?),
            Rows::F16(buffer) => Rows::F16(buffer.try_copy(device, what)?),
            Rows::Bf16(buffer) => Rows::Bf16(buffer.try_copy(device, what)?),
            Rows::Int8(buffer, scale) => {
                Rows::Int8(buffer.try_copy(device, what)?, scale.try_copy(device, what)?)
            }
        })
    };
    let chunks = table.chunks().map(|(_, rows)| copy(rows)).collect::<crate::Result<Vec<_>>>()?;
    Table::from_chunks(table.dim(), table.chunk_rows(), table.row_type(), device, chunks)
}
