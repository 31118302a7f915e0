//! The embedding tables of a ranker: the rows of all fields behind one another, and a batch's lookup.
//!
//! ```text
//! rows      field 0: 0 .. r_0 | field 1: r_0 .. r_0 + r_1 | ..         one table a dimension, the same rows in each
//! embedding    [rows, dim]           first_order  [rows, labels]
//! lookup       [batch, fields, dim]               [batch, fields, labels]
//! ```
//!
//! One table for all fields means one segment and one update for a batch. A bag of categories is the mean of its rows; an
//! empty one is zeros.

use std::ops::Range;

use recmill_kernels::{BagFeature, Bags, Buffer, Device, Pooling, RowType, Table, embedding_bag};

use crate::{
    Parameter, Parameters, Result,
    features::{FeatureBatch, Features},
};

/// The dimensions of the tables that a model reads; none where it reads no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableDims {
    /// Of the embeddings.
    pub embedding: Option<usize>,
    /// Of the first-order weights: one a label.
    pub first_order: Option<usize>,
}

/// The tables, and which of their rows are whose.
#[derive(Debug)]
pub struct EmbeddingTables {
    /// Field `f` has rows `starts[f] .. starts[f + 1]`.
    starts: Vec<u64>,
    /// By what they are for; a network's layout knows these two.
    pub embedding: Option<Table>,
    /// Weights of the categories alone.
    pub first_order: Option<Table>,
}

/// What a batch reads of the tables.
#[derive(Debug)]
pub struct Lookup {
    /// Which rows; for the gradient.
    pub bags: Bags,
    /// `[batch, fields * dim]`.
    pub values: Buffer<f32>,
}

impl EmbeddingTables {
    /// Puts tables together that have the rows of all of `features`' fields.
    pub fn new(features: &Features, embedding: Option<Table>, first_order: Option<Table>) -> Self {
        Self { starts: starts(features), embedding, first_order }
    }

    /// Returns the rows that the tables of `features` have.
    pub fn rows(features: &Features) -> u64 {
        starts(features).last().copied().unwrap_or(0)
    }

    /// Takes the tables that [`EmbeddingTables::put`] stored.
    ///
    /// # Errors
    /// [`crate::Error::MissingParameter`]; [`crate::Error::WrongSize`] for other rows or another dimension.
    pub fn take(features: &Features, dims: TableDims, parameters: &mut Parameters) -> Result<Self> {
        Self::take_rows(features, Self::rows(features), dims, parameters)
    }

    /// As [`EmbeddingTables::take`], for tables with `rows` of all rows.
    ///
    /// # Errors
    /// As [`EmbeddingTables::take`].
    pub fn take_rows(
        features: &Features,
        rows: u64,
        dims: TableDims,
        parameters: &mut Parameters,
    ) -> Result<Self> {
        let mut take = |name, dim: Option<usize>| {
            let Some(dim) = dim.filter(|_| rows > 0) else { return Ok(None) };
            let table = parameters.take_table(name)?;
            if (table.rows(), table.dim()) != (rows, dim) {
                let (expected, got) = (rows as usize * dim, table.rows() as usize * table.dim());
                let what = "an embedding table";
                return Err(crate::Error::WrongSize { what, side: "values", expected, got });
            }
            Ok(Some(table))
        };
        let embedding = take("embedding", dims.embedding)?;
        let first_order = take("first_order", dims.first_order)?;
        Ok(Self { starts: starts(features), embedding, first_order })
    }

    /// Gives the tables to `parameters`.
    pub fn put(self, parameters: &mut Parameters) {
        for (name, table) in [("embedding", self.embedding), ("first_order", self.first_order)] {
            if let Some(table) = table {
                parameters.insert(name, Parameter::Table(table));
            }
        }
    }

    /// Returns which rows of each table are those of field `field`.
    pub fn rows_of(&self, field: usize) -> Range<u64> {
        self.starts[field]..self.starts[field + 1]
    }

    /// Looks the rows of `batch` up in `table`, which is one of these.
    ///
    /// # Errors
    /// As [`look_up`].
    pub fn look_up(&self, table: &Table, batch: &FeatureBatch) -> Result<Lookup> {
        look_up(table, batch, |field| self.rows_of(field))
    }
}

/// Looks the categories of `batch` up in a table in which field `f` has the rows `rows_of(f)`.
///
/// # Errors
/// [`crate::Error::Kernel`] when an index is past its field, or there is no memory.
pub fn look_up(table: &Table, batch: &FeatureBatch, rows_of: impl Fn(usize) -> Range<u64>) -> Result<Lookup> {
    let one_each: Vec<u32> = (0..=batch.rows as u32).collect();
    let features: Vec<BagFeature<'_>> = batch
        .fields
        .iter()
        .enumerate()
        .map(|(at, field)| BagFeature {
            table: 0,
            rows: rows_of(at),
            indices: &field.indices,
            offsets: field.offsets.as_deref().unwrap_or(&one_each),
            pooling: if field.offsets.is_some() { Pooling::Mean } else { Pooling::Sum },
        })
        .collect();
    let bags = Bags::new(&[table], &features)?;
    let values = embedding_bag(&[table], &bags)?;
    Ok(Lookup { bags, values })
}

/// Copies a table to `device` as the kernels there read it: on a GPU values of 16 bits come in pairs, so that a table of an odd
/// dimension, such as one label's first-order weights, becomes f32.
///
/// # Errors
/// [`crate::Error::Kernel`] when the device cannot be used, or has not the memory.
pub fn copy_to(table: &Table, device: Device, what: &'static str) -> Result<Table> {
    let of_16_bits = matches!(table.row_type(), RowType::F16 | RowType::Bf16);
    let copied = match of_16_bits && table.dim() % 2 == 1 && device != Device::Cpu {
        true => table.to_row_type(RowType::F32, what)?.try_copy(device, what),
        false => table.try_copy(device, what),
    };
    Ok(copied?)
}

fn starts(features: &Features) -> Vec<u64> {
    let mut starts = vec![0];
    for field in features.fields() {
        starts.push(starts[starts.len() - 1] + field.rows() as u64);
    }
    starts
}
