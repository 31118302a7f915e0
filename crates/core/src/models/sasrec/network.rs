//! The network of SASRec, over any backend.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};

use super::SasRecConfig;
use crate::dense::{Activation, Attention, DenseBackend, InTraining, Initial, LayerNorm, Linear, attend};

/// Histories behind each other, without padding.
#[derive(Clone, Debug)]
pub struct SequenceRows {
    /// Where each history's rows end.
    pub ends: Arc<[u32]>,
    /// The place of each row in its history, from 0; below `max_length`.
    pub places: Vec<u32>,
}

impl Default for SequenceRows {
    fn default() -> Self {
        Self { ends: Arc::new([]), places: Vec::new() }
    }
}

/// Blocks of attention over the vectors of a history's items.
#[derive(Module, Debug)]
pub struct SasRecNetwork<B: Backend> {
    /// `[max_length, factors]`.
    places: Param<Tensor<B, 2>>,
    blocks: Vec<Block<B>>,
    norm: LayerNorm<B>,
    heads: usize,
    dropout: f64,
}

#[derive(Module, Debug)]
struct Block<B: Backend> {
    before_attention: LayerNorm<B>,
    qkv: Linear<B>,
    out: Linear<B>,
    before_feed_forward: LayerNorm<B>,
    hidden: Linear<B>,
    back: Linear<B>,
}

impl<B: Backend> SasRecNetwork<B> {
    /// Makes the network with its first values.
    pub fn new(config: &SasRecConfig, initial: &mut Initial<'_, B>) -> Self {
        let (width, hidden) = (config.factors, config.feed_forward);
        let bound = config.init_scale * (3.0 / width as f64).sqrt();
        let places = initial.uniform([config.max_length, width], bound);
        let blocks = (0..config.layers).map(|_| Block {
            before_attention: LayerNorm::new(width, initial),
            qkv: Linear::new(width, 3 * width, initial),
            out: Linear::new(width, width, initial),
            before_feed_forward: LayerNorm::new(width, initial),
            hidden: Linear::new(width, hidden, initial),
            back: Linear::new(hidden, width, initial),
        });
        let blocks = blocks.collect();
        Self {
            places,
            blocks,
            norm: LayerNorm::new(width, initial),
            heads: config.heads,
            dropout: config.dropout,
        }
    }
}

impl<B: DenseBackend> SasRecNetwork<B> {
    /// Returns the state after each event.
    ///
    /// # Shapes
    /// - `items`: `[rows, factors]`, the vectors of the histories' items; at least one row
    /// - returns: as many
    pub fn forward(
        &self,
        items: Tensor<B, 2>,
        rows: &SequenceRows,
        training: Option<&InTraining<B>>,
    ) -> Tensor<B, 2> {
        let dropped = |x: Tensor<B, 2>, layer: u64| match training {
            Some(training) => training.dropout.apply(x, self.dropout, layer),
            None => x,
        };
        let [n, width] = items.dims();
        let places: Vec<i32> = rows.places.iter().map(|&place| place as i32).collect();
        let places = Tensor::<B, 1, Int>::from_data(TensorData::new(places, [n]), &items.device());
        let x = items * (width as f32).sqrt() + self.places.val().select(0, places);
        let attention = Attention { ends: Arc::clone(&rows.ends), heads: self.heads };
        let mut x = dropped(x, 0);
        for (block, layer) in self.blocks.iter().zip((1..).step_by(2)) {
            let qkv = block.qkv.forward(block.before_attention.forward(x.clone()), Activation::Identity);
            let attended = block.out.forward(attend(qkv, &attention), Activation::Identity);
            x = x + dropped(attended, layer);
            let hidden = block.hidden.forward(block.before_feed_forward.forward(x.clone()), Activation::Relu);
            x = x + dropped(block.back.forward(hidden, Activation::Identity), layer + 1);
        }
        self.norm.forward(x)
    }
}
