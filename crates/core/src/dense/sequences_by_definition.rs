//! The operations on sequences and candidates as their formulas have them, out of burn's.
//!
//! Attention pads: every sequence becomes as long as the longest, behind its last row, where the causal mask hides what is padded.

use burn::tensor::{
    IndexingUpdateOp, Int, Tensor, TensorData,
    activation::{sigmoid, softmax},
    backend::Backend,
    ops::FloatTensor,
};
use recmill_kernels::{CandidateLoss, Candidates};

use super::{
    Activation, Against, Attention, DenseBackend, LayerNormGradients,
    backend::{NORM_EPSILON, primitive, runs, tensor},
};

/// `x̂` and `1 / √(v + ε)`.
fn normal<B: Backend>(x: Tensor<B, 2>) -> (Tensor<B, 2>, Tensor<B, 2>) {
    let centred = x.clone() - x.mean_dim(1);
    let variance = centred.clone().powi_scalar(2).mean_dim(1);
    let inverse = (variance + NORM_EPSILON).sqrt().recip();
    (centred * inverse.clone(), inverse)
}

pub(super) fn layer_norm<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    shift: FloatTensor<B>,
) -> FloatTensor<B> {
    let [scale, shift] = [scale, shift].map(|column| tensor::<B, 1>(column).unsqueeze::<2>());
    primitive(normal::<B>(tensor(x)).0 * scale + shift)
}

pub(super) fn layer_norm_backward<B: Backend>(
    x: FloatTensor<B>,
    scale: FloatTensor<B>,
    gradient: FloatTensor<B>,
) -> LayerNormGradients<B> {
    let (normal, inverse) = normal::<B>(tensor(x));
    let gradient = tensor::<B, 2>(gradient);
    let h = gradient.clone() * tensor::<B, 1>(scale).unsqueeze();
    let of_hx = (h.clone() * normal.clone()).mean_dim(1);
    let x = (h.clone() - h.mean_dim(1) - normal.clone() * of_hx) * inverse;
    let over_rows = |values: Tensor<B, 2>| primitive(values.sum_dim(0).squeeze_dim::<1>(0));
    LayerNormGradients {
        x: primitive(x),
        scale: over_rows(gradient.clone() * normal),
        shift: over_rows(gradient),
    }
}

/// Sequences of one length: which row each padded place is, which place each row has, and which places are rows.
struct Padded<B: Backend> {
    sequences: usize,
    length: usize,
    heads: usize,
    row_of: Tensor<B, 1, Int>,
    place_of: Tensor<B, 1, Int>,
    is_row: Tensor<B, 2>,
    /// 0 where a place sees another, and lower than any score where not: `[1, 1, length, length]`.
    mask: Tensor<B, 4>,
    /// What weights are multiplied by: `[sequences, heads, length, length]`.
    kept: Option<Tensor<B, 4>>,
}

impl<B: Backend> Padded<B> {
    fn new(of: &Attention, device: &B::Device) -> Self {
        let begins = [0].into_iter().chain(of.ends.iter().copied());
        let lengths: Vec<usize> =
            of.ends.iter().zip(begins).map(|(&end, begin)| (end - begin) as usize).collect();
        let length = lengths.iter().copied().max().unwrap_or(0);
        let (mut row_of, mut place_of, mut is_row) = (Vec::new(), Vec::new(), Vec::new());
        for (sequence, &own) in lengths.iter().enumerate() {
            for place in 0..length {
                let row = place_of.len();
                row_of.push(if place < own { row as i32 } else { 0 });
                is_row.push(if place < own { 1.0f32 } else { 0.0 });
                if place < own {
                    place_of.push((sequence * length + place) as i32);
                }
            }
        }
        let whole = |values: Vec<i32>| {
            let n = values.len();
            Tensor::from_data(TensorData::new(values, [n]), device)
        };
        let seen = |at: usize| if at % length <= at / length { 0.0f32 } else { -1e30 };
        let mask = TensorData::new((0..length * length).map(seen).collect(), [1, 1, length, length]);
        let places = is_row.len();
        Self {
            sequences: lengths.len(),
            length,
            heads: of.heads,
            row_of: whole(row_of),
            place_of: whole(place_of),
            is_row: Tensor::from_data(TensorData::new(is_row, [places, 1]), device),
            mask: Tensor::from_data(mask, device),
            kept: of.kept.as_deref().map(|kept| Self::pad_kept(kept, &lengths, of.heads, device)),
        }
    }

    fn pad_kept(kept: &[f32], lengths: &[usize], heads: usize, device: &B::Device) -> Tensor<B, 4> {
        let length = lengths.iter().copied().max().unwrap_or(0);
        let mut padded = vec![0.0; lengths.len() * heads * length * length];
        let mut kept = kept.iter().copied();
        for (block, n) in lengths.iter().flat_map(|&n| std::iter::repeat_n(n, heads)).enumerate() {
            for (i, j) in (0..n).flat_map(|i| (0..=i).map(move |j| (i, j))) {
                padded[(block * length + i) * length + j] = kept.next().unwrap_or(0.0);
            }
        }
        Tensor::from_data(TensorData::new(padded, [lengths.len(), heads, length, length]), device)
    }

    /// Weights as values are taken by them.
    fn dropped(&self, weights: Tensor<B, 4>) -> Tensor<B, 4> {
        match &self.kept {
            Some(kept) => weights * kept.clone(),
            None => weights,
        }
    }

    /// `[rows, heads * dim]` to `[sequences, heads, length, dim]`, zeros where it is padded.
    fn pad(&self, rows: Tensor<B, 2>) -> Tensor<B, 4> {
        let dim = rows.dims()[1] / self.heads;
        let padded = rows.select(0, self.row_of.clone()) * self.is_row.clone();
        padded.reshape([self.sequences, self.length, self.heads, dim]).swap_dims(1, 2)
    }

    /// Back to rows.
    fn rows(&self, padded: Tensor<B, 4>) -> Tensor<B, 2> {
        let [_, _, _, dim] = padded.dims();
        let places = padded.swap_dims(1, 2).reshape([self.sequences * self.length, self.heads * dim]);
        places.select(0, self.place_of.clone())
    }

    /// Queries, keys and values.
    fn parts(&self, qkv: Tensor<B, 2>) -> [Tensor<B, 4>; 3] {
        let [rows, width] = qkv.dims();
        let width = width / 3;
        [0, 1, 2].map(|part| self.pad(qkv.clone().slice([0..rows, part * width..(part + 1) * width])))
    }

    fn weights(&self, q: Tensor<B, 4>, k: Tensor<B, 4>) -> Tensor<B, 4> {
        let scale = 1.0 / (q.dims()[3] as f32).sqrt();
        softmax(q.matmul(k.swap_dims(2, 3)) * scale + self.mask.clone(), 3)
    }
}

pub(super) fn causal_attention<B: Backend>(qkv: FloatTensor<B>, of: &Attention) -> FloatTensor<B> {
    let qkv = tensor::<B, 2>(qkv);
    let [rows, width] = qkv.dims();
    if rows == 0 {
        return primitive(Tensor::<B, 2>::zeros([0, width / 3], &qkv.device()));
    }
    let padded = Padded::<B>::new(of, &qkv.device());
    let [q, k, v] = padded.parts(qkv);
    primitive(padded.rows(padded.dropped(padded.weights(q, k)).matmul(v)))
}

pub(super) fn attend_last<B: DenseBackend>(qkv: FloatTensor<B>, heads: usize) -> FloatTensor<B> {
    let [rows, width] = tensor::<B, 2>(qkv.clone()).dims();
    let whole = Attention { ends: [rows as u32].into(), heads, kept: None };
    let attended = tensor::<B, 2>(B::causal_attention(qkv, &whole));
    primitive(attended.slice([rows - 1..rows, 0..width / 3]))
}

pub(super) fn causal_attention_backward<B: Backend>(
    qkv: FloatTensor<B>,
    gradient: FloatTensor<B>,
    of: &Attention,
) -> FloatTensor<B> {
    let qkv = tensor::<B, 2>(qkv);
    if qkv.dims()[0] == 0 {
        return primitive(qkv);
    }
    let padded = Padded::<B>::new(of, &qkv.device());
    let [q, k, v] = padded.parts(qkv);
    let scale = 1.0 / (q.dims()[3] as f32).sqrt();
    let gradient = padded.pad(tensor(gradient));
    let weights = padded.weights(q.clone(), k.clone());
    let of_weights = padded.dropped(gradient.clone().matmul(v.swap_dims(2, 3)));
    let mean = (weights.clone() * of_weights.clone()).sum_dim(3);
    let of_scores = weights.clone() * (of_weights - mean) * scale;
    let of_q = of_scores.clone().matmul(k);
    let of_k = of_scores.swap_dims(2, 3).matmul(q);
    let of_v = padded.dropped(weights).swap_dims(2, 3).matmul(gradient);
    primitive(Tensor::cat([of_q, of_k, of_v].map(|part| padded.rows(part)).into(), 1))
}

pub(super) fn against<B: DenseBackend>(
    [x, candidates, bias]: [FloatTensor<B>; 3],
    of: &Candidates<'_>,
    loss: CandidateLoss,
    scale: f32,
) -> Against<B> {
    let x = tensor::<B, 2>(x);
    let [n, width] = x.dims();
    let weight = tensor::<B, 2>(candidates).transpose();
    let (mut losses, mut rows, mut of_weight) = (Vec::new(), Vec::new(), weight.zeros_like());
    for (run, own) in runs(of) {
        let x = if run.len() == n { x.clone() } else { x.clone().slice([run, 0..width]) };
        let [x, weight] = [primitive(x), primitive(weight.clone())];
        let scores = B::linear_layer(x.clone(), weight.clone(), bias.clone(), Activation::Identity);
        let [gradient, of_run] = candidate_loss::<B>(scores, &own, loss, scale);
        let (y, identity) = (gradient.clone(), Activation::Identity);
        let back = B::linear_layer_backward(x, weight, y, gradient, identity, true);
        losses.push(tensor::<B, 1>(of_run));
        rows.extend(back.x.map(tensor::<B, 2>));
        of_weight = of_weight + tensor(back.weight);
    }
    Against { losses: Tensor::cat(losses, 0), rows: Tensor::cat(rows, 0), candidates: of_weight.transpose() }
}

/// `scale` times the gradients of the scores, and the losses.
fn candidate_loss<B: Backend>(
    scores: FloatTensor<B>,
    of: &Candidates<'_>,
    loss: CandidateLoss,
    scale: f32,
) -> [FloatTensor<B>; 2] {
    let scores = tensor::<B, 2>(scores);
    let ([rows, n], device) = (scores.dims(), scores.device());
    let targets: Vec<i32> = of.targets.iter().map(|&target| target as i32).collect();
    let targets = Tensor::<B, 2, Int>::from_data(TensorData::new(targets, [rows, 1]), &device);
    let at_target = |value: Tensor<B, 2>| {
        Tensor::<B, 2>::zeros([rows, n], &device).scatter(1, targets.clone(), value, IndexingUpdateOp::Add)
    };
    let ones = Tensor::<B, 2>::ones([rows, 1], &device);
    let is_target = at_target(ones.clone());
    // 1 for what counts: everything where nothing is hidden.
    let is_hidden = !of.groups.is_empty() && of.hidden.iter().any(|hidden| !hidden.is_empty());
    let counts = (is_hidden || of.common < n).then(|| {
        let mut counts = vec![1.0f32; rows * n];
        for (row, &target) in of.targets.iter().enumerate() {
            counts[row * n..][of.common..n].fill(0.0);
            counts[row * n + target as usize] = 1.0;
        }
        for (row, (&group, &target)) in of.groups.iter().zip(of.targets).enumerate() {
            let hidden = of.hidden[group as usize].iter().filter(|&&column| column != target);
            hidden.for_each(|&column| counts[row * n + column as usize] = 0.0);
        }
        Tensor::<B, 2>::from_data(TensorData::new(counts, [rows, n]), &device)
    });
    let counted = |values: Tensor<B, 2>| match &counts {
        Some(counts) => values * counts.clone(),
        None => values,
    };
    let own = scores.clone().gather(1, targets.clone());
    // ln(1 + exp(x)) without an exponential that is too large.
    let softplus = |x: Tensor<B, 2>| x.clone().clamp_min(0.0) + x.abs().neg().exp().log1p();
    let (gradient, losses) = match loss {
        CandidateLoss::Softmax => {
            let most = scores.clone().max_dim(1);
            let powers = counted((scores - most.clone()).exp());
            let sum = powers.clone().sum_dim(1);
            (powers / sum.clone() - is_target, sum.log() + most - own)
        }
        CandidateLoss::Logistic { positive, negative } => {
            let is_other = counted(ones - is_target);
            let of_others = (softplus(scores.clone()) * is_other.clone()).sum_dim(1) * negative;
            let gradient = sigmoid(scores) * is_other * negative;
            let of_own = sigmoid(own.clone().neg()) * -positive;
            (gradient + at_target(of_own), softplus(own.neg()) * positive + of_others)
        }
        CandidateLoss::Pairwise { negative } => {
            let is_other = counted(ones - is_target) * negative;
            let apart = scores - own;
            let gradient = sigmoid(apart.clone()) * is_other.clone();
            let of_own = gradient.clone().sum_dim(1).neg();
            (gradient + at_target(of_own), (softplus(apart) * is_other).sum_dim(1))
        }
        CandidateLoss::Contrastive { negative, margin } => {
            let above = (scores - margin).clamp_min(0.0);
            let is_other = counted(ones - is_target.clone()) * negative;
            let gradient = above.clone().greater_elem(0.0).float() * is_other.clone();
            (gradient - is_target, (above * is_other).sum_dim(1) - own + 1.0)
        }
    };
    [primitive(gradient * scale), primitive(losses.squeeze_dim::<1>(1))]
}

/// One of each kind, for tests.
#[cfg(test)]
pub(super) const LOSSES: [CandidateLoss; 4] = [
    CandidateLoss::Softmax,
    CandidateLoss::Logistic { positive: 0.5, negative: 0.25 },
    CandidateLoss::Pairwise { negative: 0.25 },
    CandidateLoss::Contrastive { negative: 0.25, margin: 0.1 },
];
