//! How EASE learns: in closed form, by one inverse.
//!
//! ```text
//! P = (XᵀX + λ I)⁻¹      B[i,j] = -P[i,j] / P[j,j]      B[i,i] = 0
//! ```
//!
//! The matrix of the counts, its inverse and the weights are one table, rewritten in place.
//!
//! Cost: `4 * n_items²` bytes, `Σ n_u²` additions for the counts and `n_items³` multiply-adds for the inverse.

use rayon::prelude::*;
use recmill_core::{
    Csr, Dataset, Parameters,
    models::{Ease, EaseConfig, Retriever},
};
use recmill_kernels::{Device, Table, spd_inverse};

use crate::{
    Learner, Prediction, Result,
    data::{Sizes, binary},
    factors::copy,
};

/// The weights, once they are computed.
pub(crate) struct EaseLearner<'a> {
    config: &'a EaseConfig,
    data: &'a Dataset,
    weights: Table,
}

impl<'a> EaseLearner<'a> {
    pub(crate) fn new(config: &'a EaseConfig, data: &'a Dataset) -> Result<Self> {
        let n_items = data.n_items();
        Ok(Self {
            config,
            data,
            weights: Table::zeros(n_items as u64, n_items, Device::Cpu, "item-item weights")?,
        })
    }

    pub(crate) fn predict(sizes: &Sizes) -> Prediction {
        let square = 4 * sizes.n_items * sizes.n_items;
        Prediction::default()
            .add("interactions by item", sizes.by_item_bytes())
            .add("interactions as ones", 16 * sizes.n_interactions)
            .add("item-item weights", square)
            .add("the copy that is saved", square)
            .add("scratch", 8 * 128 * sizes.n_items)
    }
}

impl Learner for EaseLearner<'_> {
    fn epoch(&mut self, _epoch: u32) -> Result<Option<f64>> {
        let by_user = binary(self.data.by_user())?;
        let by_item = binary(self.data.by_item())?;
        count_pairs(&by_user, &by_item, self.config.regularization as f32, &mut self.weights);
        spd_inverse(&mut self.weights)?;
        let mut diagonal = vec![0f32; self.data.n_items()];
        let mut row = vec![0f32; self.data.n_items()];
        for (item, value) in diagonal.iter_mut().enumerate() {
            self.weights.read_row(item as u64, &mut row)?;
            *value = row[item];
        }
        divide_by_diagonal(&mut self.weights, &diagonal);
        Ok(None)
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Ease::new(self.config.clone(), copy(&self.weights, "copy of the weights")?)?))
    }

    fn restore(&mut self, _parameters: Parameters) -> Result<()> {
        Ok(()) // computed anew from all the data
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Ease::new(self.config.clone(), self.weights)?))
    }
}

/// Writes the lower triangle of `XᵀX + λ I`: how many users have both items.
fn count_pairs(by_user: &Csr, by_item: &Csr, regularization: f32, counts: &mut Table) {
    let n_items = by_item.n_rows();
    for (first, rows) in counts.f32_chunks_mut() {
        // Popular items cost a thousand times more than rare ones, so that work is handed out row by row.
        rows.par_chunks_mut(n_items).enumerate().with_max_len(1).for_each(|(row, counts)| {
            let item = first as usize + row;
            counts.fill(0.0);
            for &user in by_item.row(item).0 {
                let items = by_user.row(user as usize).0;
                let up_to = items.partition_point(|&other| other as usize <= item);
                items[..up_to].iter().for_each(|&other| counts[other as usize] += 1.0);
            }
            counts[item] += regularization;
        });
    }
}

/// Turns `P` into `B`.
fn divide_by_diagonal(table: &mut Table, diagonal: &[f32]) {
    for (first, rows) in table.f32_chunks_mut() {
        rows.par_chunks_mut(diagonal.len()).enumerate().for_each(|(row, values)| {
            for (value, diagonal) in values.iter_mut().zip(diagonal) {
                *value /= -diagonal;
            }
            values[first as usize + row] = 0.0;
        });
    }
}
