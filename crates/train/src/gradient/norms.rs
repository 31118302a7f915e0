//! What batch normalization remembers of the batches: a moving average, which serves after training.
//!
//! ```text
//! remembered <- 9/10 remembered + 1/10 Σ_pieces n s / Σ_pieces n        s: a piece's statistic, n: its rows
//! ```
//!
//! Pieces are what is computed at once: the batch, a part of it with `accumulate`, a rank's part with several ranks. Each is
//! normalized by its own statistics, so that a network with batch normalization is not trained alike by another number of them.

use std::{collections::HashMap, marker::PhantomData};

use burn::{
    backend::Autodiff,
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};
use recmill_core::dense::DenseBackend;

use super::collective::{Collective, all_reduce};
use crate::Result;

/// How much of what is remembered is a step's.
const NEW: f64 = 0.1;

/// The statistics of a step's pieces, by the parameter that remembers them: sums over rows, and the rows.
#[derive(Debug, Default)]
pub(super) struct BatchStatistics<B: DenseBackend>(HashMap<ParamId, (Tensor<B, 1>, f32)>);

impl<B: DenseBackend> BatchStatistics<B> {
    /// Adds those of a piece of so many rows.
    pub(super) fn add(&mut self, found: Vec<(ParamId, Tensor<Autodiff<B>, 1>)>, rows: usize) {
        for (id, statistic) in found {
            let of_piece = (statistic.inner() * rows as f32, rows as f32);
            let sum = match self.0.remove(&id) {
                Some((sum, n)) => (sum + of_piece.0, n + of_piece.1),
                None => of_piece,
            };
            self.0.insert(id, sum);
        }
    }

    /// Adds those of the other ranks, which train the same `network`.
    ///
    /// # Errors
    /// [`crate::Error::RankLost`].
    pub(super) fn all_reduce<M: Module<Autodiff<B>>>(
        &mut self,
        ranks: &dyn Collective,
        network: &M,
        device: &B::Device,
    ) -> Result<()> {
        let mut remembered = Remembered(Vec::new());
        network.visit(&mut remembered);
        if ranks.size() == 1 || remembered.0.is_empty() {
            return Ok(());
        }
        let mut values = Vec::new();
        for &(id, width) in &remembered.0 {
            let own = self.0.remove(&id);
            let rows = own.as_ref().map_or(0.0, |(_, rows)| *rows);
            let sum = own.and_then(|(sum, _)| sum.into_data().into_vec::<f32>().ok());
            values.extend(sum.unwrap_or_else(|| vec![0.0; width]));
            values.push(rows);
        }
        all_reduce(ranks, &mut values)?;
        let mut values = values.into_iter();
        for (id, width) in remembered.0 {
            let sum: Vec<f32> = values.by_ref().take(width).collect();
            if let Some(rows) = values.next().filter(|rows| *rows > 0.0) {
                self.0.insert(id, (Tensor::from_data(TensorData::new(sum, [width]), device), rows));
            }
        }
        Ok(())
    }

    /// Returns `network` with this step's share in what it remembers.
    pub(super) fn apply<M: AutodiffModule<Autodiff<B>>>(self, network: M) -> M {
        match self.0.is_empty() {
            true => network,
            false => network.map(&mut Remember { statistics: self, backend: PhantomData }),
        }
    }
}

/// Whatever a network has that is stepped by no gradient.
struct Remembered(Vec<(ParamId, usize)>);

impl<B: DenseBackend> ModuleVisitor<Autodiff<B>> for Remembered {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        if !param.is_require_grad() {
            self.0.push((param.id, param.lazy_shape().num_elements()));
        }
    }
}

struct Remember<B: DenseBackend> {
    statistics: BatchStatistics<B>,
    backend: PhantomData<B>,
}

impl<B: DenseBackend> ModuleMapper<Autodiff<B>> for Remember<B> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Autodiff<B>, D>>,
    ) -> Param<Tensor<Autodiff<B>, D>> {
        let Some((sum, rows)) = self.statistics.0.remove(&param.id) else { return param };
        param.map(|old| {
            let shape: [usize; D] = old.dims();
            let new = (sum / rows).reshape(shape);
            Tensor::from_inner(old.inner() * (1.0 - NEW) + new * NEW)
        })
    }
}
