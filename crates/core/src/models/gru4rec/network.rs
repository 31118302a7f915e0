//! The network of GRU4Rec, over any backend.

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};

use super::Gru4RecConfig;
use crate::{
    dense::{Activation, DenseBackend, Gru, InTraining, Initial, Linear},
    models::{SequenceNetwork, SequenceRows},
};

/// Gated recurrent units over the vectors of a history's items.
#[derive(Module, Debug)]
pub struct Gru4RecNetwork<B: Backend> {
    layers: Vec<Gru<B>>,
    out: Linear<B>,
    dropout: f64,
}

impl<B: Backend> Gru4RecNetwork<B> {
    /// Makes the network with its first values.
    pub fn new(config: &Gru4RecConfig, initial: &mut Initial<'_, B>) -> Self {
        let mut inputs = config.factors;
        let layers = (0..config.layers).map(|_| {
            let layer = Gru::new(inputs, config.hidden, initial);
            inputs = config.hidden;
            layer
        });
        let layers = layers.collect();
        Self { layers, out: Linear::new(config.hidden, config.factors, initial), dropout: config.dropout }
    }
}

impl<B: DenseBackend> Gru4RecNetwork<B> {
    /// Items as the first layer takes them.
    fn scaled(items: Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, width] = items.dims();
        items * (width as f32).sqrt()
    }
}

impl<B: DenseBackend> SequenceNetwork<B> for Gru4RecNetwork<B> {
    fn forward(
        &self,
        items: Tensor<B, 2>,
        rows: &SequenceRows,
        training: Option<&InTraining<B>>,
    ) -> Tensor<B, 2> {
        let dropped = |x: Tensor<B, 2>, layer: u64| match training {
            Some(training) => training.dropout.apply(x, self.dropout, layer),
            None => x,
        };
        let mut x = dropped(Self::scaled(items), 0);
        for (layer, at) in self.layers.iter().zip(1..) {
            x = dropped(layer.forward(x, &rows.ends), at);
        }
        self.out.forward(x, Activation::Identity)
    }

    /// The memory is each layer's state.
    fn advance(&self, item: Tensor<B, 2>, _: usize, memory: &mut Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let mut x = Self::scaled(item);
        let mut earlier = std::mem::take(memory).into_iter();
        for layer in &self.layers {
            x = layer.step(x, earlier.next());
            memory.push(x.clone());
        }
        self.out.forward(x, Activation::Identity)
    }
}
