//! A batch of bags: checked, and copied to the tables' device once.
//!
//! ```text
//! indices   table 0: feature 0 | feature 2 | table 1: feature 1 | ..      rows of the tables, a place each
//! offsets   feature 0: [bags + 1] places | feature 1: ..                  in the caller's order of features
//! ```

use std::ops::Range;

use super::OP;
use crate::{
    Buffer, Device, Error, Result, Table,
    segment::{Segment, segment_checked},
};

/// How the rows of a bag become one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pooling<'a> {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The sum of each times its weight: one for each index.
    Weighted(&'a [f32]),
}

/// One feature: bags of a table's rows.
#[derive(Clone, Debug)]
pub struct BagFeature<'a> {
    /// Which of the tables.
    pub table: usize,
    /// The table's rows that are the feature's: index `i` means row `rows.start + i`. Commonly all.
    pub rows: Range<u64>,
    /// Bag after bag.
    pub indices: &'a [u32],
    /// Where each bag begins, and the end.
    pub offsets: &'a [u32],
    /// How the rows of a bag become one.
    pub pooling: Pooling<'a>,
}

impl BagFeature<'_> {
    /// The factor of position `p`, which is in bag `bag`.
    pub(super) fn weight(&self, bag: usize, p: usize) -> f64 {
        match self.pooling {
            Pooling::Sum => 1.0,
            Pooling::Mean => 1.0 / f64::from(self.offsets[bag + 1] - self.offsets[bag]),
            Pooling::Weighted(weights) => weights[p].into(),
        }
    }
}

/// A feature as the kernels see it.
#[derive(Clone, Debug)]
pub(super) struct Feature {
    pub(super) table: usize,
    /// Its first column of the output.
    pub(super) column: usize,
    pub(super) dim: usize,
    /// Its places among all.
    pub(super) places: Range<usize>,
    pub(super) mean: bool,
    pub(super) weighted: bool,
}

/// What a table must be like to be read by a batch, and what the batch reads of it.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    rows: u64,
    pub(super) dim: usize,
    /// Its places among all.
    pub(super) places: Range<usize>,
    largest: u32,
}

/// The bags of a batch, checked, on the tables' device.
#[derive(Debug)]
pub struct Bags {
    device: Device,
    n_bags: usize,
    width: usize,
    pub(super) features: Vec<Feature>,
    pub(super) tables: Vec<Shape>,
    /// `[nnz]`.
    pub(super) indices: Buffer<u32>,
    /// `[features, bags + 1]`.
    pub(super) offsets: Buffer<u32>,
    /// `[nnz]` where any feature is weighted, else empty.
    pub(super) weights: Buffer<f32>,
}

impl Bags {
    /// Checks `features` against `tables` and copies them to the tables' device.
    ///
    /// # Errors
    /// [`Error::Parameter`] for no features, a table that is not there, offsets that descend or end elsewhere than the
    /// indices, or `2^32` indices; [`Error::Shape`] for offsets of another number of bags, or weights of another number
    /// than the indices; [`Error::IndexOutOfRange`] for an index past its feature's rows or rows past the table's;
    /// [`Error::NotFinite`] for a weight, with its position; [`Error::MixedDevices`]; [`Error::OutOfMemory`],
    /// [`Error::BufferTooLarge`].
    pub fn new(tables: &[&Table], features: &[BagFeature]) -> Result<Self> {
        let (Some(first), Some(table)) = (features.first(), tables.first()) else {
            return Err(Error::Parameter { op: OP, what: "features", expected: "at least 1", got: 0.0 });
        };
        let device = table.device();
        if tables.iter().any(|table| table.device() != device) {
            return Err(Error::MixedDevices { op: OP });
        }
        let n_bags = first.offsets.len().saturating_sub(1);
        let nnz: usize = features.iter().map(|feature| feature.indices.len()).sum();
        if nnz >= u32::MAX as usize {
            let expected = "fewer than 2^32 - 1";
            return Err(Error::Parameter { op: OP, what: "indices", expected, got: nnz as f64 });
        }
        let (mut known, mut width) = (Vec::with_capacity(features.len()), 0);
        for feature in features {
            check(tables, feature, n_bags)?;
            let dim = tables[feature.table].dim();
            known.push(Feature {
                table: feature.table,
                column: width,
                dim,
                places: 0..0,
                mean: feature.pooling == Pooling::Mean,
                weighted: matches!(feature.pooling, Pooling::Weighted(_)),
            });
            width += dim;
        }
        let weighted = known.iter().any(|feature| feature.weighted);
        let mut indices = Vec::with_capacity(nnz);
        let mut weights = Vec::with_capacity(if weighted { nnz } else { 0 });
        let mut shapes = Vec::with_capacity(tables.len());
        for (at, table) in tables.iter().enumerate() {
            let begin = indices.len();
            for (feature, known) in features.iter().zip(&mut known).filter(|(feature, _)| feature.table == at)
            {
                known.places = indices.len()..indices.len() + feature.indices.len();
                let base = feature.rows.start as u32;
                indices.extend(feature.indices.iter().map(|&index| base + index));
                match feature.pooling {
                    Pooling::Weighted(own) => weights.extend_from_slice(own),
                    _ if weighted => weights.resize(indices.len(), 1.0),
                    _ => {}
                }
            }
            shapes.push(Shape {
                rows: table.rows(),
                dim: table.dim(),
                places: begin..indices.len(),
                largest: indices[begin..].iter().copied().max().unwrap_or(0),
            });
        }
        let mut offsets = Vec::with_capacity(features.len() * (n_bags + 1));
        for (feature, known) in features.iter().zip(&known) {
            let base = known.places.start as u32;
            offsets.extend(feature.offsets.iter().map(|&offset| base + offset));
        }
        Ok(Self {
            device,
            n_bags,
            width,
            features: known,
            tables: shapes,
            indices: owned(indices, device, "indices of bags")?,
            offsets: owned(offsets, device, "offsets of bags")?,
            weights: owned(weights, device, "weights of bags")?,
        })
    }

    /// Returns where the bags live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Returns the bags that every feature has.
    pub fn n_bags(&self) -> usize {
        self.n_bags
    }

    /// Returns the columns of the output: the dimensions of all features.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Groups the positions of table `table` by row; they are those of [`crate::embedding_bag_backward`].
    ///
    /// # Errors
    /// [`Error::Parameter`] when there is no such table; as [`crate::segment()`].
    pub fn segment(&self, table: usize) -> Result<Segment> {
        let Some(shape) = self.tables.get(table) else {
            return Err(no_table(table));
        };
        segment_checked(&self.indices, shape.places.clone(), shape.largest, shape.rows)
    }

    pub(super) fn check_tables(&self, tables: &[&Table]) -> Result<()> {
        let misfit = |expected, got| Err(Error::Shape { op: OP, what: "table", expected, got });
        if tables.len() != self.tables.len() {
            return misfit(self.tables.len(), tables.len());
        }
        for (table, shape) in tables.iter().zip(&self.tables) {
            if table.device() != self.device {
                return Err(Error::MixedDevices { op: OP });
            }
            if (table.rows(), table.dim()) != (shape.rows, shape.dim) {
                return misfit(shape.rows as usize * shape.dim, table.rows() as usize * table.dim());
            }
        }
        Ok(())
    }

    pub(super) fn check_gradient(&self, gradient: &Buffer<f32>) -> Result<()> {
        let (expected, got) = (self.n_bags * self.width, gradient.len());
        if gradient.device() != self.device {
            return Err(Error::MixedDevices { op: OP });
        }
        match expected == got {
            true => Ok(()),
            false => Err(Error::Shape { op: OP, what: "gradient", expected, got }),
        }
    }
}

/// On the CPU the values themselves, on a GPU a copy.
fn owned<T: bytemuck::Pod>(values: Vec<T>, device: Device, what: &'static str) -> Result<Buffer<T>> {
    match device {
        Device::Cpu => Buffer::from_vec(values, what),
        device => Buffer::from_slice(&values, device, what),
    }
}

fn no_table(table: usize) -> Error {
    let expected = "the place of one of the tables";
    Error::Parameter { op: OP, what: "table", expected, got: table as f64 }
}

fn check(tables: &[&Table], feature: &BagFeature, n_bags: usize) -> Result<()> {
    let table = tables.get(feature.table).ok_or_else(|| no_table(feature.table))?;
    let rows = table.rows().min(1 << 32);
    if feature.rows.start > feature.rows.end || feature.rows.end > rows {
        return Err(Error::IndexOutOfRange { op: OP, position: 0, rows, index: feature.rows.end });
    }
    let own = feature.rows.end - feature.rows.start;
    if let Some(position) = feature.indices.iter().position(|&index| u64::from(index) >= own) {
        let index = feature.indices[position].into();
        return Err(Error::IndexOutOfRange { op: OP, position, rows: own, index });
    }
    let (offsets, nnz) = (feature.offsets, feature.indices.len());
    if offsets.len() != n_bags + 1 {
        return Err(Error::Shape { op: OP, what: "offsets", expected: n_bags + 1, got: offsets.len() });
    }
    let wrong = |expected, got: u32| Error::Parameter { op: OP, what: "offsets", expected, got: got.into() };
    if let Some(pair) = offsets.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(wrong("not descending", pair[1]));
    }
    if offsets[0] != 0 || offsets[n_bags] as usize != nnz {
        let bad = if offsets[0] != 0 { offsets[0] } else { offsets[n_bags] };
        return Err(wrong("from 0 to the number of indices", bad));
    }
    if let Pooling::Weighted(weights) = feature.pooling {
        if weights.len() != nnz {
            return Err(Error::Shape { op: OP, what: "weights", expected: nnz, got: weights.len() });
        }
        if let Some(row) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::NotFinite { op: OP, what: "weights", row: row as u64 });
        }
    }
    Ok(())
}
