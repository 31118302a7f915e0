//! What batch normalization remembers of the batches: a moving average, which serves after training.
//!
//! ```text
//! remembered <- (1 - a) remembered + a Σ_pieces n s / Σ_pieces n        s: a piece's statistic, n: its rows
//! a = 1/10 Σ_pieces n / batch size, so that the few rows at an epoch's end count for no more than they are
//! ```
//!
//! Pieces are what is computed at once: the batch, a part of it with `accumulate`, a rank's part with several ranks. Each is
//! normalized by its own statistics, so that a network with batch normalization is not trained alike by another number of them.

use std::collections::HashMap;

use burn::{
    backend::Autodiff,
    module::{AutodiffModule, Module, ModuleMapper, ModuleVisitor, Param, ParamId},
    tensor::{Tensor, TensorData},
};
use recmill_core::dense::DenseBackend;

use super::collective::{Collective, all_reduce};
use crate::Result;

/// How much of what is remembered is a whole batch's.
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
        if ranks.size() == 1 {
            return Ok(());
        }
        let mut remembered = Remembered(Vec::new());
        network.visit(&mut remembered);
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
    pub(super) fn apply<M: AutodiffModule<Autodiff<B>>>(self, network: M, batch_size: usize) -> M {
        match self.0.is_empty() {
            true => network,
            false => network.map(&mut Remember { statistics: self, batch_size }),
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
    batch_size: usize,
}

impl<B: DenseBackend> ModuleMapper<Autodiff<B>> for Remember<B> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Autodiff<B>, D>>,
    ) -> Param<Tensor<Autodiff<B>, D>> {
        let Some((sum, rows)) = self.statistics.0.remove(&param.id) else { return param };
        param.map(|old| {
            let shape: [usize; D] = old.dims();
            let share = NEW * f64::from(rows) / self.batch_size as f64;
            let new = (sum / rows).reshape(shape);
            Tensor::from_inner(old.inner() * (1.0 - share) + new * share)
        })
    }
}

#[cfg(test)]
mod tests {
    use recmill_core::dense::{BatchNorm, Cpu, Initial, copy_values};

    use super::*;

    #[test]
    fn half_a_batch_in_two_pieces_by_hand() {
        let device = Default::default();
        let norm = BatchNorm::<Autodiff<Cpu>>::new(2, &mut Initial::new(0, &device));
        let mut remembered = Remembered(Vec::new());
        norm.visit(&mut remembered);
        let [(mean, 2), (variance, 2)] = remembered.0[..] else { panic!("{:?}", remembered.0) };
        let mut statistics = BatchStatistics::<Cpu>::default();
        let mut add = |of_mean: [f32; 2], of_variance: [f32; 2], rows| {
            let [of_mean, of_variance] =
                [of_mean, of_variance].map(|values| Tensor::from_floats(values, &device));
            statistics.add(vec![(mean, of_mean), (variance, of_variance)], rows);
        };
        add([1.0, 2.0], [3.0, 3.0], 3);
        add([5.0, 2.0], [1.0, 3.0], 1);
        // The pieces' means are (2, 2), their variances (2.5, 3); 4 rows of 8 count for 1/20.
        let values = copy_values(&statistics.apply(norm, 8)).into_iter().flat_map(|(_, values)| values);
        let expected = [1.0, 1.0, 0.0, 0.0, 0.1, 0.1, 1.075, 1.1];
        for (value, expected) in values.zip(expected) {
            assert!((value - expected).abs() < 1e-6, "{value} {expected}");
        }
    }
}
