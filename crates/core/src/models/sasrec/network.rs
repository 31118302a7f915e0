//! The network of SASRec, over any backend.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Int, Tensor, TensorData, backend::Backend},
};

use super::SasRecConfig;
use crate::{
    dense::{
        Activation, Attention, DenseBackend, InTraining, Initial, LayerNorm, Linear, attend, attend_last,
    },
    models::{SequenceNetwork, SequenceRows},
};

/// Where the layers begin whose dropout is that of weights of attention; there are fewer others.
const OF_WEIGHTS: u64 = 512;

/// Blocks of attention over the vectors of a history's items.
#[derive(Module, Debug)]
pub struct SasRecNetwork<B: Backend> {
    /// `[max_length, factors]`.
    places: Param<Tensor<B, 2>>,
    blocks: Vec<Block<B>>,
    norm: LayerNorm<B>,
    heads: usize,
    dropout: f64,
    attention_dropout: f64,
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
            attention_dropout: config.attention_dropout,
        }
    }
}

impl<B: DenseBackend> SasRecNetwork<B> {
    /// Items in their places.
    fn placed(&self, items: Tensor<B, 2>, places: Tensor<B, 2>) -> Tensor<B, 2> {
        let [_, width] = items.dims();
        items * (width as f32).sqrt() + places
    }
}

impl<B: DenseBackend> Block<B> {
    fn qkv(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        self.qkv.forward(self.before_attention.forward(x), Activation::Identity)
    }

    fn out(&self, attended: Tensor<B, 2>) -> Tensor<B, 2> {
        self.out.forward(attended, Activation::Identity)
    }

    fn feed_forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let hidden = self.hidden.forward(self.before_feed_forward.forward(x), Activation::Relu);
        self.back.forward(hidden, Activation::Identity)
    }
}

impl<B: DenseBackend> SequenceNetwork<B> for SasRecNetwork<B> {
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
        let places: Vec<i32> = rows.places.iter().map(|&place| place as i32).collect();
        let places = TensorData::new(places, [items.dims()[0]]);
        let places = Tensor::<B, 1, Int>::from_data(places, &items.device());
        let x = self.placed(items, self.places.val().select(0, places));
        let [longest, _] = self.places.dims();
        let kept = |layer| {
            let shape = (self.heads, longest);
            training?.dropout.of_attention(&rows.ends, shape, self.attention_dropout, OF_WEIGHTS + layer)
        };
        let mut x = dropped(x, 0);
        for (block, layer) in self.blocks.iter().zip((1..).step_by(2)) {
            let attention = Attention { ends: Arc::clone(&rows.ends), heads: self.heads, kept: kept(layer) };
            let attended = block.out(attend(block.qkv(x.clone()), &attention));
            x = x + dropped(attended, layer);
            let more = block.feed_forward(x.clone());
            x = x + dropped(more, layer + 1);
        }
        self.norm.forward(x)
    }

    /// The memory is each block's queries, keys and values of the events so far.
    fn advance(&self, item: Tensor<B, 2>, place: usize, memory: &mut Vec<Tensor<B, 2>>) -> Tensor<B, 2> {
        let [_, width] = item.dims();
        let mut x = self.placed(item, self.places.val().slice([place..place + 1, 0..width]));
        let mut earlier = std::mem::take(memory).into_iter();
        for block in &self.blocks {
            let own = block.qkv(x.clone());
            let all = match earlier.next() {
                Some(earlier) => Tensor::cat(vec![earlier, own], 0),
                None => own,
            };
            memory.push(all.clone());
            x = x + block.out(attend_last(all, self.heads));
            let more = block.feed_forward(x.clone());
            x = x + more;
        }
        self.norm.forward(x)
    }
}
