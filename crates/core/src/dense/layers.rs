//! The layers that several models are made of, and where their first values come from.

use std::sync::{Arc, Mutex, PoisonError};

use burn::{
    module::{Module, Param, ParamId},
    tensor::{Tensor, TensorData, backend::Backend},
};
use rayon::prelude::*;
use recmill_kernels::{
    CandidateLoss, Candidates, n_attention_weights,
    philox::{Draws, unit},
};

use super::{
    Activation, Against, Attention, DenseBackend,
    backend::{primitive, tensor},
};

/// The streams that first values are drawn from, one a parameter; dropout's begin where they end.
const FIRST_VALUES: u64 = 1 << 37;
const DROPOUT: u64 = FIRST_VALUES + (1 << 20);

/// Draws the first values of parameters, one after the other.
#[derive(Debug)]
pub struct Initial<'a, B: Backend> {
    seed: u64,
    drawn: u64,
    device: &'a B::Device,
}

impl<'a, B: Backend> Initial<'a, B> {
    /// Begins under `seed`.
    pub fn new(seed: u64, device: &'a B::Device) -> Self {
        Self { seed, drawn: 0, device }
    }

    /// Draws a parameter from the uniform distribution over `-bound .. bound`.
    pub fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f64) -> Param<Tensor<B, D>> {
        let mut words = vec![0; shape.iter().product()];
        Draws::new(self.seed, FIRST_VALUES + self.drawn).fill(0, &mut words);
        self.drawn += 1;
        let value = |word| (bound * f64::from(2.0 * unit(word) - 1.0)) as f32;
        self.of(shape, words.into_iter().map(value).collect())
    }

    /// Makes a parameter of one value throughout.
    pub fn constant<const D: usize>(&mut self, shape: [usize; D], value: f32) -> Param<Tensor<B, D>> {
        self.of(shape, vec![value; shape.iter().product()])
    }

    /// Makes numbers that are no parameters: no optimizer steps them.
    fn remembered(&self, width: usize, value: f32) -> Param<Tensor<B, 1>> {
        let values = TensorData::new(vec![value; width], [width]);
        Param::initialized(ParamId::new(), Tensor::from_data(values, self.device))
    }

    fn of<const D: usize>(&self, shape: [usize; D], values: Vec<f32>) -> Param<Tensor<B, D>> {
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}

/// `activation(x weight + bias)`.
#[derive(Module, Debug)]
pub struct Linear<B: Backend> {
    weight: Param<Tensor<B, 2>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

/// Returns the number of parameters of a [`Linear`] layer with biases.
pub fn linear_parameters(inputs: usize, outputs: usize) -> u64 {
    (inputs as u64 + 1) * outputs as u64
}

/// Returns the number of parameters of an [`Mlp`] without batch norm.
pub fn mlp_parameters(inputs: usize, hidden: &[usize]) -> u64 {
    let widths = [inputs].into_iter().chain(hidden.iter().copied());
    widths.zip(hidden).map(|(inputs, &outputs)| linear_parameters(inputs, outputs)).sum()
}

impl<B: Backend> Linear<B> {
    /// Draws weights of variance `1 / (3 inputs)` and biases from as narrow a range (LeCun et al. 1998; what PyTorch does).
    pub fn new(inputs: usize, outputs: usize, initial: &mut Initial<'_, B>) -> Self {
        let bound = 1.0 / (inputs.max(1) as f64).sqrt();
        let (weight, bias) = (initial.uniform([inputs, outputs], bound), initial.uniform([outputs], bound));
        Self { weight, bias: Some(bias) }
    }

    /// Draws weights of variance `2 / (inputs + outputs)` and sets biases to 0 (Glorot, Bengio 2010).
    pub fn glorot(inputs: usize, outputs: usize, initial: &mut Initial<'_, B>) -> Self {
        let weights = Self::without_bias(inputs, outputs, initial);
        Self { bias: Some(initial.constant([outputs], 0.0)), ..weights }
    }

    /// As [`Linear::glorot`], without biases: for a layer before [`BatchNorm`], which takes them out again. One there has no gradient
    /// but what rounding leaves of it, and Adam, which knows only the sign of that, would drive it about.
    pub fn without_bias(inputs: usize, outputs: usize, initial: &mut Initial<'_, B>) -> Self {
        let bound = (6.0 / (inputs + outputs).max(1) as f64).sqrt();
        Self { weight: initial.uniform([inputs, outputs], bound), bias: None }
    }

    /// Sets weights and biases to 0: for a layer whose output is a score, so that all scores begin as equal.
    pub fn zeros(inputs: usize, outputs: usize, initial: &mut Initial<'_, B>) -> Self {
        let (weight, bias) = (initial.constant([inputs, outputs], 0.0), initial.constant([outputs], 0.0));
        Self { weight, bias: Some(bias) }
    }
}

impl<B: DenseBackend> Linear<B> {
    /// Maps `[rows, inputs]` to `[rows, outputs]`.
    pub fn forward(&self, x: Tensor<B, 2>, activation: Activation) -> Tensor<B, 2> {
        let weight = self.weight.val();
        let none = || Tensor::zeros([weight.dims()[1]], &x.device());
        let bias = self.bias.as_ref().map_or_else(none, Param::val);
        tensor(B::linear_layer(primitive(x), primitive(weight), primitive(bias), activation))
    }
}

/// Returns `x weight`, every row alone as in any batch, which burn's own product does not promise.
///
/// # Shapes
/// `x` `[rows, inputs]`, `weight` `[inputs, outputs]`; returns `[rows, outputs]`.
pub fn product<B: DenseBackend>(x: Tensor<B, 2>, weight: Tensor<B, 2>) -> Tensor<B, 2> {
    let bias = Tensor::<B, 1>::zeros([weight.dims()[1]], &x.device());
    tensor(B::linear_layer(primitive(x), primitive(weight), primitive(bias), Activation::Identity))
}

/// Who is dropped: a function of the seed, the epoch and the sample, whatever the batch and the thread.
#[derive(Clone, Debug)]
pub struct Dropout {
    /// Source of every choice.
    pub seed: u64,
    /// The pass through the data.
    pub epoch: u32,
    /// The sample of each row.
    pub samples: Vec<u64>,
}

impl Dropout {
    /// Sets values to zero with probability `share` and makes the others as much larger.
    ///
    /// `layer` tells the network's layers apart.
    pub fn apply<B: Backend>(&self, x: Tensor<B, 2>, share: f64, layer: u64) -> Tensor<B, 2> {
        if share <= 0.0 {
            return x;
        }
        let [rows, width] = x.dims();
        let (keep, larger) = ((1.0 - share) as f32, (1.0 / (1.0 - share)) as f32);
        let draws = Draws::new(self.seed, DROPOUT + u64::from(self.epoch) * 1024 + layer);
        let mut mask = vec![0.0f32; rows * width];
        mask.par_chunks_mut(width.max(1)).zip(&self.samples).for_each_init(
            || vec![0; width],
            |words, (mask, &sample)| {
                draws.fill(sample * width as u64, words);
                for (mask, &word) in mask.iter_mut().zip(&*words) {
                    *mask = if unit(word) < keep { larger } else { 0.0 };
                }
            },
        );
        x.clone() * Tensor::from_data(TensorData::new(mask, [rows, width]), &x.device())
    }

    /// Draws what the weights of attention are multiplied by, as [`Attention`] has it, for sequences of `longest` rows at most;
    /// nothing where none are dropped.
    ///
    /// `layer` tells the network's layers apart, those of [`Dropout::apply`] too.
    pub fn of_attention(
        &self,
        ends: &[u32],
        (heads, longest): (usize, usize),
        share: f64,
        layer: u64,
    ) -> Option<Arc<[f32]>> {
        if share <= 0.0 {
            return None;
        }
        let (keep, larger) = ((1.0 - share) as f32, (1.0 / (1.0 - share)) as f32);
        let draws = Draws::new(self.seed, DROPOUT + u64::from(self.epoch) * 1024 + layer);
        let mut kept = vec![0.0f32; n_attention_weights(ends, heads)];
        let mut rest = &mut kept[..];
        let begins = [0].into_iter().chain(ends.iter().map(|&end| end as usize));
        let sequences: Vec<_> = begins
            .zip(ends)
            .map(|(begin, &end)| {
                let samples = &self.samples[begin..end as usize];
                let (own, after) = std::mem::take(&mut rest)
                    .split_at_mut(n_attention_weights(&[samples.len() as u32], heads));
                rest = after;
                (own, samples)
            })
            .collect();
        sequences.into_par_iter().for_each_init(
            || vec![0; heads * longest],
            |words, (own, samples)| {
                let of_head = n_attention_weights(&[samples.len() as u32], 1);
                for (i, &sample) in samples.iter().enumerate() {
                    draws.fill(sample * words.len() as u64, words);
                    for (own, words) in own.chunks_exact_mut(of_head).zip(words.chunks_exact(longest)) {
                        let own = &mut own[n_attention_weights(&[i as u32], 1)..][..=i];
                        for (kept, &word) in own.iter_mut().zip(words) {
                            *kept = if unit(word) < keep { larger } else { 0.0 };
                        }
                    }
                }
            },
        );
        Some(kept.into())
    }
}

/// What a network is told in training, and what it tells: its statistics of the batch.
#[derive(Debug)]
pub struct InTraining<B: Backend> {
    /// Who is dropped.
    pub dropout: Dropout,
    found: Mutex<Vec<(ParamId, Tensor<B, 1>)>>,
}

impl<B: Backend> InTraining<B> {
    /// Begins a pass in which `dropout` says who is dropped.
    pub fn new(dropout: Dropout) -> Self {
        Self { dropout, found: Mutex::default() }
    }

    /// Gives away the statistics that were found, by what remembers them.
    pub fn take_statistics(&self) -> Vec<(ParamId, Tensor<B, 1>)> {
        std::mem::take(&mut self.found.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Batch normalization of columns and what follows it: see [`DenseBackend::batch_norm`].
///
/// In training by the statistics of the rows at hand; what is remembered of all of them serves ever after. It is remembered by
/// whoever takes the steps, out of [`InTraining::take_statistics`].
#[derive(Module, Debug)]
pub struct BatchNorm<B: Backend> {
    scale: Param<Tensor<B, 1>>,
    shift: Param<Tensor<B, 1>>,
    mean: Param<Tensor<B, 1>>,
    variance: Param<Tensor<B, 1>>,
}

impl<B: Backend> BatchNorm<B> {
    /// Begins with what changes nothing.
    pub fn new(width: usize, initial: &mut Initial<'_, B>) -> Self {
        Self {
            scale: initial.constant([width], 1.0),
            shift: initial.constant([width], 0.0),
            mean: initial.remembered(width, 0.0),
            variance: initial.remembered(width, 1.0),
        }
    }
}

impl<B: DenseBackend> BatchNorm<B> {
    /// Maps `[rows, width]` to as many.
    pub fn forward(
        &self,
        x: Tensor<B, 2>,
        activation: Activation,
        training: Option<&InTraining<B>>,
    ) -> Tensor<B, 2> {
        let [scale, shift, mean, variance] =
            [&self.scale, &self.shift, &self.mean, &self.variance].map(|values| primitive(values.val()));
        let Some(training) = training else {
            return tensor(B::normalize(primitive(x), [scale, shift], [mean, variance], activation));
        };
        let normed = B::batch_norm(primitive(x), scale, shift, activation);
        let found = [(self.mean.id, tensor(normed.mean)), (self.variance.id, tensor(normed.variance))];
        training.found.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
        tensor(normed.y)
    }
}

/// What stands between the layers of an [`Mlp`].
#[derive(Clone, Copy, Debug)]
pub struct MlpOptions {
    /// Share of each layer's values that are dropped in training.
    pub dropout: f64,
    /// Whether each layer is normalized before its activation.
    pub batch_norm: bool,
}

/// Linear layers with `max(0, x)` after each, and dropout; normalized between the two where asked for.
#[derive(Module, Debug)]
pub struct Mlp<B: Backend> {
    layers: Vec<Linear<B>>,
    norms: Vec<BatchNorm<B>>,
    dropout: f64,
    first_layer: u64,
}

impl<B: Backend> Mlp<B> {
    /// Makes a layer of each width in `hidden`, for `inputs` values a row; `tower` tells a network's towers apart.
    pub fn new(
        inputs: usize,
        hidden: &[usize],
        options: MlpOptions,
        tower: u64,
        initial: &mut Initial<'_, B>,
    ) -> Self {
        let mut width = inputs;
        let layers = hidden.iter().map(|&outputs| {
            let layer = match options.batch_norm {
                true => Linear::without_bias(width, outputs, initial),
                false => Linear::glorot(width, outputs, initial),
            };
            width = outputs;
            layer
        });
        let layers = layers.collect();
        let normed = if options.batch_norm { hidden } else { &[] };
        let norms = normed.iter().map(|&width| BatchNorm::new(width, initial)).collect();
        Self { layers, norms, dropout: options.dropout, first_layer: tower * 32 }
    }
}

impl<B: Backend> Mlp<B> {
    /// Returns whether there is no layer, so that [`Mlp::forward`] gives back its input.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

impl<B: DenseBackend> Mlp<B> {
    /// Maps `[rows, inputs]` to `[rows, last of hidden]`.
    pub fn forward(&self, mut x: Tensor<B, 2>, training: Option<&InTraining<B>>) -> Tensor<B, 2> {
        for (at, layer) in self.layers.iter().enumerate() {
            x = match self.norms.get(at) {
                Some(norm) => {
                    norm.forward(layer.forward(x, Activation::Identity), Activation::Relu, training)
                }
                None => layer.forward(x, Activation::Relu),
            };
            if let Some(training) = training {
                x = training.dropout.apply(x, self.dropout, self.first_layer + at as u64);
            }
        }
        x
    }
}

/// Layer normalization of rows: see [`DenseBackend::normalize_rows`].
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    scale: Param<Tensor<B, 1>>,
    shift: Param<Tensor<B, 1>>,
}

impl<B: Backend> LayerNorm<B> {
    /// Begins with what changes nothing else.
    pub fn new(width: usize, initial: &mut Initial<'_, B>) -> Self {
        Self { scale: initial.constant([width], 1.0), shift: initial.constant([width], 0.0) }
    }
}

impl<B: DenseBackend> LayerNorm<B> {
    /// Maps `[rows, width]` to as many.
    pub fn forward(&self, x: Tensor<B, 2>) -> Tensor<B, 2> {
        tensor(B::normalize_rows(primitive(x), primitive(self.scale.val()), primitive(self.shift.val())))
    }
}

/// As [`DenseBackend::causal_attention`], on burn's tensors.
pub fn attend<B: DenseBackend>(qkv: Tensor<B, 2>, of: &Attention) -> Tensor<B, 2> {
    tensor(B::causal_attention(primitive(qkv), of))
}

/// As [`DenseBackend::attend_last`], on burn's tensors.
pub fn attend_last<B: DenseBackend>(qkv: Tensor<B, 2>, heads: usize) -> Tensor<B, 2> {
    tensor(B::attend_last(primitive(qkv), heads))
}

/// As [`DenseBackend::against`], on burn's tensors.
///
/// # Shapes
/// `x` `[rows, width]`, `candidates` `[candidates, width]`, `bias` `[candidates]`; at least one row.
pub fn against<B: DenseBackend>(
    x: Tensor<B, 2>,
    candidates: Tensor<B, 2>,
    bias: Tensor<B, 1>,
    of: &Candidates<'_>,
    loss: CandidateLoss,
    scale: f32,
) -> Against<B> {
    B::against(primitive(x), primitive(candidates), primitive(bias), of, loss, scale)
}

/// Joins tensors along their second dimension, as [`DenseBackend::join`] does rows; they agree in the others.
///
/// # Panics
/// For no parts.
pub fn beside<B: DenseBackend, const D: usize>(parts: Vec<Tensor<B, D>>) -> Tensor<B, D> {
    let join = |a: Tensor<B, D>, b: Tensor<B, D>| {
        let mut shape: [usize; D] = a.dims();
        shape[1] += b.dims()[1];
        let rows = |x: Tensor<B, D>| primitive(x.flatten::<2>(1, D - 1));
        tensor::<B, 2>(B::join(rows(a), rows(b))).reshape(shape)
    };
    parts.into_iter().reduce(join).unwrap_or_else(|| panic!("nothing to join"))
}

/// As [`DenseBackend::second_order`], on burn's tensors.
pub fn second_order<B: DenseBackend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    tensor(B::second_order(primitive(x)))
}

/// As [`DenseBackend::pairwise_dots`], on burn's tensors.
pub fn pairwise_dots<B: DenseBackend>(x: Tensor<B, 3>) -> Tensor<B, 2> {
    tensor(B::pairwise_dots(primitive(x)))
}

/// As [`DenseBackend::cross`], on burn's tensors.
pub fn cross<B: DenseBackend>(x0: Tensor<B, 2>, u: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
    tensor(B::cross(primitive(x0), primitive(u), primitive(x)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_attention_are_dropped_by_sample_whatever_the_batch() {
        let dropout = |samples: &[u64]| Dropout { seed: 3, epoch: 1, samples: samples.to_vec() };
        let samples: Vec<u64> = (0..70).map(|at| 1000 + at * 3).collect();
        let together = dropout(&samples).of_attention(&[30, 30, 70], (2, 50), 0.25, 7).unwrap();
        assert_eq!(together.len(), n_attention_weights(&[30, 30, 70], 2));
        let alone = dropout(&samples[30..]).of_attention(&[40], (2, 50), 0.25, 7).unwrap();
        assert_eq!(together[n_attention_weights(&[30], 2)..], alone[..]);
        let [one, other] = [&alone[..820], &alone[820..]];
        assert_ne!(one, other, "heads drop by themselves");
        assert_ne!(alone, dropout(&samples[30..]).of_attention(&[40], (2, 50), 0.25, 8).unwrap());
        assert!(together.iter().all(|&kept| kept == 0.0 || kept == 4.0 / 3.0));
        let dropped = together.iter().filter(|&&kept| kept == 0.0).count() as f64 / together.len() as f64;
        assert!((dropped - 0.25).abs() < 0.03, "{dropped}");
        assert!(dropout(&samples).of_attention(&[70], (2, 70), 0.0, 7).is_none());
    }
}
