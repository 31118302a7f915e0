//! The operations of deep models that are worth a kernel of their own, each with a definition out of burn's operations.
//!
//! A backend without a kernel takes the definitions as they stand. Every operation has its gradient beside it, so that
//! `Autodiff` (see `autodiff`) calls one function backward, not one for each operation that it is made of.

use std::sync::Arc;

use burn::tensor::{Shape, Tensor, TensorPrimitive, activation::relu, backend::Backend, ops::FloatTensor};
use recmill_kernels::{Buffer, CandidateLoss, Candidates, Device};

use super::{DenseRule, OptimizerState, gru, sequences_by_definition};
use crate::Result;

/// What follows a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// `max(0, x)`.
    Relu,
}

/// The gradients of [`DenseBackend::linear_layer`].
pub struct LinearGradients<B: Backend> {
    /// Of the input, where it was asked for.
    pub x: Option<FloatTensor<B>>,
    /// Of the weight.
    pub weight: FloatTensor<B>,
    /// Of the bias.
    pub bias: FloatTensor<B>,
}

/// The gradients of [`DenseBackend::cross`].
pub struct CrossGradients<B: Backend> {
    /// Of the first layer's input.
    pub x0: FloatTensor<B>,
    /// Of the product.
    pub u: FloatTensor<B>,
    /// Of the layer's input.
    pub x: FloatTensor<B>,
}

/// What [`DenseBackend::batch_norm`] returns.
#[derive(Clone, Debug)]
pub struct BatchNormed<B: Backend> {
    /// The output.
    pub y: FloatTensor<B>,
    /// The mean of each column; no gradient goes through it.
    pub mean: FloatTensor<B>,
    /// The variance of each column; as the mean.
    pub variance: FloatTensor<B>,
}

/// What the gradients of [`DenseBackend::batch_norm`] are made of.
#[derive(Clone, Debug)]
pub struct BatchNormState<B: Backend> {
    /// The input.
    pub x: FloatTensor<B>,
    /// The scale of each column.
    pub scale: FloatTensor<B>,
    /// What came out.
    pub normed: BatchNormed<B>,
    /// What followed.
    pub activation: Activation,
}

/// The gradients of [`DenseBackend::batch_norm`].
pub struct BatchNormGradients<B: Backend> {
    /// Of the input.
    pub x: FloatTensor<B>,
    /// Of the scale.
    pub scale: FloatTensor<B>,
    /// Of the shift.
    pub shift: FloatTensor<B>,
}

/// The gradients of [`DenseBackend::normalize_rows`].
pub struct LayerNormGradients<B: Backend> {
    /// Of the input.
    pub x: FloatTensor<B>,
    /// Of the scale.
    pub scale: FloatTensor<B>,
    /// Of the shift.
    pub shift: FloatTensor<B>,
}

/// The gradients of [`DenseBackend::gru`].
pub struct GruGradients<B: Backend> {
    /// Of the input.
    pub x: FloatTensor<B>,
    /// Of the weight.
    pub weight: FloatTensor<B>,
    /// Of the bias.
    pub bias: FloatTensor<B>,
}

/// What [`DenseBackend::against`] returns.
#[derive(Debug)]
pub struct Against<B: Backend> {
    /// The loss of each row.
    pub losses: Tensor<B, 1>,
    /// The gradient of the rows, `[rows, width]`.
    pub rows: Tensor<B, 2>,
    /// The gradient of the candidates, `[candidates, width]`.
    pub candidates: Tensor<B, 2>,
}

/// Scores that are in memory at once, at most, but for those of one row.
pub const SCORES_AT_ONCE: usize = 1 << 24;

/// Returns the runs of `rows` rows whose scores of `candidates` are in memory together, and the candidates of each.
pub(super) fn runs<'a>(
    of: &'a Candidates<'a>,
) -> impl Iterator<Item = (std::ops::Range<usize>, Candidates<'a>)> {
    let (rows, at_once) = (of.targets.len(), (SCORES_AT_ONCE / of.n.max(1)).max(1));
    (0..rows).step_by(at_once).map(move |first| {
        let run = first..(first + at_once).min(rows);
        let groups = if of.groups.is_empty() { &[] } else { &of.groups[run.clone()] };
        let own = Candidates { targets: &of.targets[run.clone()], groups, ..*of };
        (run, own)
    })
}

/// Rows that are sequences, one behind the other, and how they attend.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Where each sequence's rows end, ascending to the number of rows.
    pub ends: Arc<[u32]>,
    /// Heads, which share a row's values evenly.
    pub heads: usize,
    /// What each weight is multiplied by after the softmax, in the order of `recmill_kernels::CausalAttention`; in training with dropout.
    pub kept: Option<Arc<[f32]>>,
}

/// Attention of which some weights are dropped.
#[cfg(test)]
pub(super) fn some_dropped(ends: &[u32], heads: usize) -> Attention {
    let kept = (0..recmill_kernels::n_attention_weights(ends, heads))
        .map(|at| if at * 7 % 5 < 2 { 0.0 } else { 1.5 });
    Attention { ends: ends.into(), heads, kept: Some(kept.collect()) }
}

/// Added to variances before their root is taken.
pub(super) const NORM_EPSILON: f32 = 1e-5;

/// A backend with the operations of deep models.
///
/// Shapes are `[rows, ..]`, contiguous or not, f32.
pub trait DenseBackend: Backend {
    /// Returns `activation(x weight + bias)`.
    ///
    /// # Shapes
    /// `x` `[rows, inputs]`, `weight` `[inputs, outputs]`, `bias` `[outputs]`; returns `[rows, outputs]`.
    fn linear_layer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        by_definition::linear_layer::<Self>(x, weight, bias, activation)
    }

    /// Returns the gradients of [`DenseBackend::linear_layer`], which gave `y`; that of `x` only where `wants_x`.
    fn linear_layer_backward(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        y: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        activation: Activation,
        wants_x: bool,
    ) -> LinearGradients<Self> {
        by_definition::linear_layer_backward::<Self>(x, weight, y, gradient, activation, wants_x)
    }

    /// Returns the second-order term of a factorization machine, `½ Σ_d ((Σ_f x)² - Σ_f x²)` (Rendle 2010).
    ///
    /// # Shapes
    /// `x` `[rows, fields, dim]`; returns `[rows, 1]`.
    fn second_order(x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_definition::second_order::<Self>(x)
    }

    /// Returns the gradient of [`DenseBackend::second_order`]: `gradient (Σ_f x - x)`.
    fn second_order_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        by_definition::second_order_backward::<Self>(x, gradient)
    }

    /// Returns the inner product of every two fields (Naumov et al. 2019).
    ///
    /// # Shapes
    /// `x` `[rows, fields, dim]`; returns `[rows, fields (fields - 1) / 2]`: (1, 0), (2, 0), (2, 1), ..
    fn pairwise_dots(x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_definition::pairwise_dots::<Self>(x)
    }

    /// Returns the gradient of [`DenseBackend::pairwise_dots`].
    fn pairwise_dots_backward(x: FloatTensor<Self>, gradient: FloatTensor<Self>) -> FloatTensor<Self> {
        by_definition::pairwise_dots_backward::<Self>(x, gradient)
    }

    /// Returns a layer of a cross network after its product `u`: `x0 u + x`, value by value (Wang et al. 2021).
    ///
    /// # Shapes
    /// All `[rows, width]`.
    fn cross(x0: FloatTensor<Self>, u: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_definition::cross::<Self>(x0, u, x)
    }

    /// Returns the gradients of [`DenseBackend::cross`].
    fn cross_backward(
        x0: FloatTensor<Self>,
        u: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> CrossGradients<Self> {
        by_definition::cross_backward::<Self>(x0, u, gradient)
    }

    /// Returns the rows of `a` with those of `b` behind them.
    ///
    /// # Shapes
    /// `a` `[rows, n]`, `b` `[rows, m]`; returns `[rows, n + m]`.
    fn join(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        by_definition::join::<Self>(a, b)
    }

    /// Returns the gradients of [`DenseBackend::join`]: the first `n` columns, and the others.
    fn join_backward(gradient: FloatTensor<Self>, n: usize) -> [FloatTensor<Self>; 2] {
        by_definition::join_backward::<Self>(gradient, n)
    }

    /// Normalizes columns by the statistics of these rows: `activation(scale (x - mean) / √(variance + 1e-5) + shift)` (Ioffe,
    /// Szegedy 2015).
    ///
    /// # Shapes
    /// `x` `[rows, width]`, at least one row; `scale`, `shift` `[width]`.
    fn batch_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        activation: Activation,
    ) -> BatchNormed<Self> {
        by_definition::batch_norm::<Self>(x, scale, shift, activation)
    }

    /// Returns the gradients of [`DenseBackend::batch_norm`].
    fn batch_norm_backward(
        state: BatchNormState<Self>,
        gradient: FloatTensor<Self>,
    ) -> BatchNormGradients<Self> {
        by_definition::batch_norm_backward::<Self>(state, gradient)
    }

    /// As [`DenseBackend::batch_norm`], with statistics that are known: every row alone. No gradient goes through it.
    fn normalize(
        x: FloatTensor<Self>,
        [scale, shift]: [FloatTensor<Self>; 2],
        [mean, variance]: [FloatTensor<Self>; 2],
        activation: Activation,
    ) -> FloatTensor<Self> {
        by_definition::normalize::<Self>(x, [scale, shift], [mean, variance], activation)
    }

    /// Normalizes every row by its own mean and variance: `scale (x - mean) / √(variance + 1e-5) + shift` (Ba, Kiros, Hinton 2016).
    ///
    /// # Shapes
    /// `x` `[rows, width]`; `scale`, `shift` `[width]`.
    fn normalize_rows(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        sequences_by_definition::layer_norm::<Self>(x, scale, shift)
    }

    /// Returns the gradients of [`DenseBackend::normalize_rows`].
    fn normalize_rows_backward(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
    ) -> LayerNormGradients<Self> {
        sequences_by_definition::layer_norm_backward::<Self>(x, scale, gradient)
    }

    /// Lets each position of each sequence attend to itself and those before it (Vaswani et al. 2017).
    ///
    /// # Shapes
    /// `qkv` `[rows, 3 width]`: queries, keys and values, each of all heads; returns `[rows, width]`.
    fn causal_attention(qkv: FloatTensor<Self>, of: &Attention) -> FloatTensor<Self> {
        sequences_by_definition::causal_attention::<Self>(qkv, of)
    }

    /// Returns the gradient of [`DenseBackend::causal_attention`] with regard to `qkv`.
    fn causal_attention_backward(
        qkv: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        of: &Attention,
    ) -> FloatTensor<Self> {
        sequences_by_definition::causal_attention_backward::<Self>(qkv, gradient, of)
    }

    /// As [`DenseBackend::causal_attention`] for one sequence, of which only the last row is asked for: no gradient goes through it.
    ///
    /// # Shapes
    /// `qkv` `[rows, 3 width]`, at least one row; returns `[1, width]`.
    fn attend_last(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        sequences_by_definition::attend_last::<Self>(qkv, heads)
    }

    /// Lets a state go through each sequence, from zeros, and returns it after each row (Cho et al. 2014): see [`recmill_kernels::gru`].
    ///
    /// # Shapes
    /// `x` `[rows, 3 width]`, `weight` `[width, 3 width]`, `bias` `[3 width]`; returns `[rows, width]`.
    fn gru(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        ends: &Arc<[u32]>,
    ) -> FloatTensor<Self> {
        gru::by_definition::<Self>(x, weight, bias, ends)
    }

    /// Returns the gradients of [`DenseBackend::gru`], which gave `states`.
    fn gru_backward(
        x: FloatTensor<Self>,
        [weight, bias]: [FloatTensor<Self>; 2],
        states: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        ends: &Arc<[u32]>,
    ) -> GruGradients<Self> {
        gru::backward_by_definition::<Self>(x, [weight, bias], states, gradient, ends)
    }

    /// Returns the states after one more row of each sequence: no gradient goes through it.
    ///
    /// # Shapes
    /// `x` `[sequences, 3 width]`, parameters as for [`DenseBackend::gru`], `state` `[sequences, width]`; returns as many.
    fn gru_step(
        x: FloatTensor<Self>,
        [weight, bias]: [FloatTensor<Self>; 2],
        state: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        gru::step_by_definition::<Self>(x, [weight, bias], state)
    }

    /// Scores each row against all candidates by `x · c + bias`, and returns the losses and `scale` times their gradients; some rows at a
    /// time, so that the scores never take more than [`SCORES_AT_ONCE`] values. See [`recmill_kernels::candidate_loss`].
    ///
    /// # Shapes
    /// `x` `[rows, width]`, `candidates` `[candidates, width]`, `bias` `[candidates]`; at least one row.
    fn against(
        x: FloatTensor<Self>,
        candidates: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        of: &Candidates<'_>,
        loss: CandidateLoss,
        scale: f32,
    ) -> Against<Self> {
        sequences_by_definition::against::<Self>([x, candidates, bias], of, loss, scale)
    }

    /// Returns `parameter` after one step of `rule`'s optimizer.
    fn optimizer_step(
        parameter: Tensor<Self, 1>,
        gradient: Tensor<Self, 1>,
        state: &mut OptimizerState<Self>,
        rule: &DenseRule,
    ) -> Tensor<Self, 1> {
        state.step_by_definition(parameter, gradient, rule)
    }
}

/// A backend whose tensors and our buffers can be each other, so that tables and networks meet without a copy.
pub trait DeviceBackend: DenseBackend {
    /// Returns what the backend calls `device`.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when it is none of the backend's.
    fn device(device: Device) -> Result<Self::Device>;

    /// Makes a tensor of a buffer on such a device; `shape` has as many values.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] for a buffer on another.
    fn from_buffer(buffer: Buffer<f32>, shape: Shape) -> Result<FloatTensor<Self>>;

    /// Makes a buffer of a tensor: its values in order.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory, or the device no longer answers.
    fn into_buffer(tensor: FloatTensor<Self>) -> Result<Buffer<f32>>;

    /// Waits for all that was asked of the device, and says whether it was done: only then are the numbers to be believed.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when it no longer answers.
    fn check_answers(device: Device) -> Result<()>;
}

/// Makes a tensor `[rows, columns]` of a buffer.
///
/// # Errors
/// As [`DeviceBackend::from_buffer`].
pub fn matrix_of<B: DeviceBackend>(buffer: Buffer<f32>, columns: usize) -> Result<Tensor<B, 2>> {
    let shape = Shape::new([buffer.len() / columns.max(1), columns]);
    Ok(tensor(B::from_buffer(buffer, shape)?))
}

/// Makes a buffer of a tensor's values.
///
/// # Errors
/// As [`DeviceBackend::into_buffer`].
pub fn buffer_of<B: DeviceBackend, const D: usize>(values: Tensor<B, D>) -> Result<Buffer<f32>> {
    B::into_buffer(primitive(values))
}

/// Wraps a backend's own tensor.
pub(super) fn tensor<B: Backend, const D: usize>(primitive: FloatTensor<B>) -> Tensor<B, D> {
    Tensor::from_primitive(TensorPrimitive::Float(primitive))
}

/// Unwraps a backend's own tensor.
pub(super) fn primitive<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> FloatTensor<B> {
    tensor.into_primitive().tensor()
}

/// The operations as their formulas have them, out of burn's.
pub(super) mod by_definition {
    use super::*;

    pub(in crate::dense) fn linear_layer<B: Backend>(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        bias: FloatTensor<B>,
        activation: Activation,
    ) -> FloatTensor<B> {
        let y = tensor::<B, 2>(x).matmul(tensor(weight)) + tensor::<B, 1>(bias).unsqueeze();
        primitive(match activation {
            Activation::Identity => y,
            Activation::Relu => relu(y),
        })
    }

    pub(in crate::dense) fn linear_layer_backward<B: Backend>(
        x: FloatTensor<B>,
        weight: FloatTensor<B>,
        y: FloatTensor<B>,
        gradient: FloatTensor<B>,
        activation: Activation,
        wants_x: bool,
    ) -> LinearGradients<B> {
        let mut gradient = tensor::<B, 2>(gradient);
        if activation == Activation::Relu {
            gradient = gradient.mask_fill(tensor::<B, 2>(y).lower_equal_elem(0.0), 0.0);
        }
        let x = tensor::<B, 2>(x);
        LinearGradients {
            x: wants_x.then(|| primitive(gradient.clone().matmul(tensor::<B, 2>(weight).transpose()))),
            bias: primitive::<B, 1>(gradient.clone().sum_dim(0).squeeze_dim(0)),
            weight: primitive(x.transpose().matmul(gradient)),
        }
    }

    pub(in crate::dense) fn second_order<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
        let x = tensor::<B, 3>(x);
        let of_sum = x.clone().sum_dim(1).powi_scalar(2);
        let of_each = x.powi_scalar(2).sum_dim(1);
        primitive((of_sum - of_each).sum_dim(2).mul_scalar(0.5).squeeze_dim::<2>(1))
    }

    pub(in crate::dense) fn second_order_backward<B: Backend>(
        x: FloatTensor<B>,
        gradient: FloatTensor<B>,
    ) -> FloatTensor<B> {
        let x = tensor::<B, 3>(x);
        let gradient = tensor::<B, 2>(gradient).unsqueeze_dim::<3>(2);
        primitive((x.clone().sum_dim(1) - x) * gradient)
    }

    pub(in crate::dense) fn pairwise_dots<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
        let x = tensor::<B, 3>(x);
        let [rows, fields, _] = x.dims();
        if fields < 2 {
            return primitive(Tensor::<B, 2>::zeros([rows, 0], &x.device()));
        }
        let dots = x.clone().matmul(x.swap_dims(1, 2));
        let rows_of_triangle = (1..fields)
            .map(|field| dots.clone().slice([0..rows, field..field + 1, 0..field]).squeeze_dim::<2>(1))
            .collect();
        primitive(Tensor::cat(rows_of_triangle, 1))
    }

    pub(in crate::dense) fn pairwise_dots_backward<B: Backend>(
        x: FloatTensor<B>,
        gradient: FloatTensor<B>,
    ) -> FloatTensor<B> {
        let x = tensor::<B, 3>(x);
        let gradient = tensor::<B, 2>(gradient);
        let [rows, fields, _] = x.dims();
        if fields < 2 {
            return primitive(x.zeros_like());
        }
        // The symmetric matrix whose lower triangle is the gradient, row by row.
        let mut lower = vec![Tensor::<B, 2>::zeros([rows, fields], &x.device())];
        let mut first = 0;
        for field in 1..fields {
            let known = gradient.clone().slice([0..rows, first..first + field]);
            lower.push(Tensor::cat(vec![known, Tensor::zeros([rows, fields - field], &x.device())], 1));
            first += field;
        }
        let lower: Tensor<B, 3> = Tensor::stack(lower, 1);
        primitive((lower.clone() + lower.swap_dims(1, 2)).matmul(x))
    }

    pub(in crate::dense) fn batch_norm<B: Backend>(
        x: FloatTensor<B>,
        scale: FloatTensor<B>,
        shift: FloatTensor<B>,
        activation: Activation,
    ) -> BatchNormed<B> {
        let values = tensor::<B, 2>(x.clone());
        let mean = values.clone().mean_dim(0);
        let variance = (values - mean.clone()).powi_scalar(2).mean_dim(0);
        let [mean, variance] = [mean, variance].map(|column| primitive(column.squeeze_dim::<1>(0)));
        let y = normalize::<B>(x, [scale, shift], [mean.clone(), variance.clone()], activation);
        BatchNormed { y, mean, variance }
    }

    pub(in crate::dense) fn normalize<B: Backend>(
        x: FloatTensor<B>,
        [scale, shift]: [FloatTensor<B>; 2],
        [mean, variance]: [FloatTensor<B>; 2],
        activation: Activation,
    ) -> FloatTensor<B> {
        let [scale, shift, mean, variance] = [scale, shift, mean, variance].map(tensor::<B, 1>);
        let slope = scale / (variance + NORM_EPSILON).sqrt();
        let offset = shift - slope.clone() * mean;
        let y = tensor::<B, 2>(x) * slope.unsqueeze() + offset.unsqueeze();
        primitive(match activation {
            Activation::Identity => y,
            Activation::Relu => relu(y),
        })
    }

    pub(in crate::dense) fn batch_norm_backward<B: Backend>(
        state: BatchNormState<B>,
        gradient: FloatTensor<B>,
    ) -> BatchNormGradients<B> {
        let BatchNormState { x, scale, normed, activation } = state;
        let [x, y, gradient] = [x, normed.y, gradient].map(tensor::<B, 2>);
        let [scale, mean, variance] = [scale, normed.mean, normed.variance].map(tensor::<B, 1>);
        let gradient = match activation {
            Activation::Identity => gradient,
            Activation::Relu => gradient.mask_fill(y.lower_equal_elem(0.0), 0.0),
        };
        let inverse = (variance + NORM_EPSILON).sqrt().recip();
        let normal = (x - mean.unsqueeze()) * inverse.clone().unsqueeze();
        let of_scale = (gradient.clone() * normal.clone()).sum_dim(0);
        let of_shift = gradient.clone().sum_dim(0);
        let share = 1.0 / gradient.dims()[0].max(1) as f64;
        let centred =
            gradient - of_shift.clone().mul_scalar(share) - normal * of_scale.clone().mul_scalar(share);
        BatchNormGradients {
            x: primitive(centred * (scale * inverse).unsqueeze()),
            scale: primitive(of_scale.squeeze_dim::<1>(0)),
            shift: primitive(of_shift.squeeze_dim::<1>(0)),
        }
    }

    pub(in crate::dense) fn join<B: Backend>(a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
        primitive(Tensor::cat(vec![tensor::<B, 2>(a), tensor(b)], 1))
    }

    pub(in crate::dense) fn join_backward<B: Backend>(
        gradient: FloatTensor<B>,
        n: usize,
    ) -> [FloatTensor<B>; 2] {
        let gradient = tensor::<B, 2>(gradient);
        let [rows, width] = gradient.dims();
        [0..n, n..width].map(|columns| primitive(gradient.clone().slice([0..rows, columns])))
    }

    pub(in crate::dense) fn cross<B: Backend>(
        x0: FloatTensor<B>,
        u: FloatTensor<B>,
        x: FloatTensor<B>,
    ) -> FloatTensor<B> {
        primitive(tensor::<B, 2>(x0) * tensor(u) + tensor(x))
    }

    pub(in crate::dense) fn cross_backward<B: Backend>(
        x0: FloatTensor<B>,
        u: FloatTensor<B>,
        gradient: FloatTensor<B>,
    ) -> CrossGradients<B> {
        let of = tensor::<B, 2>(gradient);
        CrossGradients {
            x0: primitive(of.clone() * tensor(u)),
            u: primitive(of.clone() * tensor(x0)),
            x: primitive(of),
        }
    }
}
