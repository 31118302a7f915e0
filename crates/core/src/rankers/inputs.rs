//! What a network is given of a batch, and the parts of networks that only rearrange it.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, backend::Backend},
};

use super::Shape;
use crate::dense::{Activation, DenseBackend, InTraining, Initial, Linear, beside};

/// A batch as a network sees it. What a model's configuration does not ask for, or the data do not have, is absent.
#[derive(Clone, Debug)]
pub struct Inputs<B: Backend> {
    /// `[rows, fields, dim]`: the embedding of each categorical field.
    pub embedded: Option<Tensor<B, 3>>,
    /// `[rows, fields * labels]`: first-order weights of each categorical field.
    pub first_order: Option<Tensor<B, 2>>,
    /// `[rows, numeric]`: the numeric columns.
    pub numeric: Option<Tensor<B, 2>>,
    /// In training, what is told then.
    pub training: Option<Arc<InTraining<B>>>,
}

impl<B: DenseBackend> Inputs<B> {
    /// Returns what is told in training.
    pub fn training(&self) -> Option<&InTraining<B>> {
        self.training.as_deref()
    }

    /// Returns `[rows, fields * dim + numeric]`: all that there is of a row, side by side.
    pub fn flat(&self) -> Tensor<B, 2> {
        let embedded = self.embedded.clone().map(|x| x.flatten::<2>(1, 2));
        beside(embedded.into_iter().chain(self.numeric.clone()).collect())
    }
}

/// A vector for each numeric column, stretched by the row's number, beside the embeddings: `[rows, fields + numeric, dim]`.
#[derive(Module, Debug)]
pub(super) struct Vectors<B: Backend> {
    of_numeric: Option<Param<Tensor<B, 2>>>,
}

impl<B: Backend> Vectors<B> {
    pub(super) fn new(shape: &Shape, dim: usize, initial: &mut Initial<'_, B>) -> Self {
        // About as long as the embeddings are at first, so that products of them begin near 0.
        let of_numeric = (shape.n_numeric > 0).then(|| initial.uniform([shape.n_numeric, dim], 0.02));
        Self { of_numeric }
    }
}

impl<B: DenseBackend> Vectors<B> {
    pub(super) fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 3> {
        let stretched = self.of_numeric.as_ref().zip(inputs.numeric.clone());
        let stretched =
            stretched.map(|(vectors, x)| x.unsqueeze_dim::<3>(2) * vectors.val().unsqueeze_dim::<3>(0));
        beside(inputs.embedded.clone().into_iter().chain(stretched).collect())
    }
}

/// `Σ_f w_f + x · v + b`: the first-order part of a model, `[rows, labels]`.
#[derive(Module, Debug)]
pub(super) struct FirstOrder<B: Backend> {
    of_numeric: Option<Linear<B>>,
    bias: Param<Tensor<B, 1>>,
    n_labels: usize,
}

impl<B: Backend> FirstOrder<B> {
    pub(super) fn new(shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let of_numeric =
            (shape.n_numeric > 0).then(|| Linear::zeros(shape.n_numeric, shape.n_labels, initial));
        let bias = initial.constant([shape.n_labels], 0.0);
        Self { of_numeric, bias, n_labels: shape.n_labels }
    }
}

impl<B: DenseBackend> FirstOrder<B> {
    pub(super) fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let of_fields = inputs.first_order.clone().map(|weights| {
            let [rows, columns] = weights.dims();
            let by_field = weights.reshape([rows, columns / self.n_labels, self.n_labels]);
            by_field.sum_dim(1).squeeze_dim::<2>(1)
        });
        let of_numeric = self.of_numeric.as_ref().zip(inputs.numeric.clone());
        let of_numeric = of_numeric.map(|(linear, x)| linear.forward(x, Activation::Identity));
        let sum = match (of_fields, of_numeric) {
            (Some(fields), Some(numeric)) => fields + numeric,
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => return self.bias.val().unsqueeze(),
        };
        sum + self.bias.val().unsqueeze()
    }
}
