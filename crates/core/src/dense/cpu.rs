//! The operations on the CPU: our kernels, over the memory of burn's tensors.
//!
//! A kernel that refuses, for want of memory, leaves the work to the definition out of burn's operations.

use std::{
    cell::Cell,
    sync::{Arc, Mutex},
};

use burn::tensor::{Shape, Tensor, TensorData};
use burn_flex::FlexTensor;
use rayon::prelude::*;
use recmill_kernels::{
    BatchNorm, BatchNormGradients as IntoNormGradients, Buffer, CandidateLoss, Candidates, CausalAttention,
    ColumnStatistics, Device, LayerNorm, LayerNormGradients as IntoLayerNorm, Linear,
    LinearGradients as IntoGradients, LinearScratch, Products, batch_norm, batch_norm_backward,
    candidate_loss, causal_attention, causal_attention_backward, causal_attention_last,
    cross_layer_backward_into, cross_layer_into, dense_update, fm_second_order_backward_into,
    fm_second_order_into, layer_norm, layer_norm_backward, linear, linear_backward, normalize,
    pairwise_dots_backward_into, pairwise_dots_into,
};

use super::{
    Activation, Against, Attention, BatchNormGradients, BatchNormState, BatchNormed, Cpu, CrossGradients,
    DenseBackend, DenseRule, DeviceBackend, GruGradients, LayerNormGradients, LinearGradients,
    OptimizerState, SCORES_AT_ONCE,
    backend::{NORM_EPSILON, by_definition, primitive, runs, tensor},
    gru, sequences_by_definition,
};
use crate::{Error, Result};

thread_local! {
    static PRODUCTS: Cell<Products> = const { Cell::new(Products::F32) };
}

/// Runs `work` with the products of linear layers on the CPU, those of this thread, made of `products`; parameters, sums and all
/// other operations stay f32.
pub fn with_products<R>(products: Products, work: impl FnOnce() -> R) -> R {
    struct Restore(Products);
    impl Drop for Restore {
        fn drop(&mut self) {
            PRODUCTS.set(self.0);
        }
    }
    let _restore = Restore(PRODUCTS.replace(products));
    work()
}

/// Working memory of the linear layers, one for each that runs at the same time.
static SCRATCH: Mutex<Vec<LinearScratch>> = Mutex::new(Vec::new());

pub(super) fn with_scratch<T>(work: impl FnOnce(&mut LinearScratch) -> T) -> T {
    let spare = SCRATCH.lock().ok().and_then(|mut spare| spare.pop());
    let mut scratch = spare.unwrap_or_default();
    let done = work(&mut scratch);
    if let Ok(mut spare) = SCRATCH.lock() {
        spare.push(scratch);
    }
    done
}

/// The values of a tensor, in order; a copy only where its memory is in another order.
pub(super) struct Values(pub(super) FlexTensor);

impl Values {
    pub(super) fn new(tensor: FlexTensor) -> Self {
        Self(if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() })
    }

    pub(super) fn get(&self) -> &[f32] {
        self.0.as_slice().unwrap_or_default()
    }

    /// The values, to be changed: a copy where somebody else has them, too.
    fn get_mut(&mut self) -> &mut [f32] {
        let n = self.get().len();
        let own = self.0.try_storage_mut::<f32>().is_some_and(|storage| storage.len() == n);
        if !own {
            let shape = self.0.layout().shape().clone();
            self.0 = FlexTensor::from_data(TensorData::new(self.get().to_vec(), shape));
        }
        self.0.storage_mut()
    }

    pub(super) fn dims<const D: usize>(&self) -> [usize; D] {
        self.0.layout().shape().dims()
    }
}

pub(super) fn made<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, Shape::from(shape)))
}

fn kind(activation: Activation) -> recmill_kernels::Activation {
    match activation {
        Activation::Identity => recmill_kernels::Activation::Identity,
        Activation::Relu => recmill_kernels::Activation::Relu,
    }
}

fn norm<'a>(scale: &'a Values, shift: &'a Values, activation: Activation) -> BatchNorm<'a> {
    let activation = kind(activation);
    BatchNorm { scale: scale.get(), shift: shift.get(), epsilon: NORM_EPSILON, activation }
}

impl DenseBackend for Cpu {
    fn linear_layer(
        x: FlexTensor,
        weight: FlexTensor,
        bias: FlexTensor,
        activation: Activation,
    ) -> FlexTensor {
        let (of_x, of_weight, of_bias) = (Values::new(x), Values::new(weight), Values::new(bias));
        let ([rows, inputs], [_, outputs]) = (of_x.dims(), of_weight.dims());
        let layer = Linear {
            inputs,
            outputs,
            weight: of_weight.get(),
            bias: Some(of_bias.get()),
            activation: kind(activation),
            products: PRODUCTS.get(),
        };
        let mut y = vec![0.0; rows * outputs];
        match with_scratch(|scratch| linear(&layer, of_x.get(), &mut y, scratch)) {
            Ok(()) => made(y, [rows, outputs]),
            Err(_) => by_definition::linear_layer::<Cpu>(of_x.0, of_weight.0, of_bias.0, activation),
        }
    }

    fn linear_layer_backward(
        x: FlexTensor,
        weight: FlexTensor,
        y: FlexTensor,
        gradient: FlexTensor,
        activation: Activation,
        wants_x: bool,
    ) -> LinearGradients<Self> {
        let [x, weight, y, mut gradient] = [x, weight, y, gradient].map(Values::new);
        let ([rows, inputs], [_, outputs]) = (x.dims(), weight.dims());
        let layer = Linear {
            inputs,
            outputs,
            weight: weight.get(),
            bias: None,
            activation: kind(activation),
            products: PRODUCTS.get(),
        };
        let (mut of_weight, mut of_bias) = (vec![0.0; inputs * outputs], vec![0.0; outputs]);
        let mut of_x = vec![0.0; if wants_x { rows * inputs } else { 0 }];
        let into = IntoGradients {
            weight: &mut of_weight,
            bias: Some(&mut of_bias),
            x: wants_x.then_some(&mut of_x[..]),
        };
        // Masked twice is masked: the definition may take over what the kernel has begun.
        let worked = with_scratch(|scratch| {
            linear_backward(&layer, x.get(), y.get(), gradient.get_mut(), into, scratch)
        });
        match worked {
            Ok(()) => LinearGradients {
                x: wants_x.then(|| made(of_x, [rows, inputs])),
                weight: made(of_weight, [inputs, outputs]),
                bias: made(of_bias, [outputs]),
            },
            Err(_) => by_definition::linear_layer_backward::<Cpu>(
                x.0, weight.0, y.0, gradient.0, activation, wants_x,
            ),
        }
    }

    fn second_order(x: FlexTensor) -> FlexTensor {
        let x = Values::new(x);
        let [rows, fields, dim] = x.dims();
        let mut out = vec![0.0; rows];
        match fm_second_order_into(x.get(), fields, dim, &mut out) {
            Ok(()) => made(out, [rows, 1]),
            Err(_) => by_definition::second_order::<Cpu>(x.0),
        }
    }

    fn second_order_backward(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let [x, gradient] = [x, gradient].map(Values::new);
        let [rows, fields, dim] = x.dims();
        let mut out = vec![0.0; rows * fields * dim];
        match fm_second_order_backward_into(x.get(), fields, dim, gradient.get(), &mut out) {
            Ok(()) => made(out, [rows, fields, dim]),
            Err(_) => by_definition::second_order_backward::<Cpu>(x.0, gradient.0),
        }
    }

    fn pairwise_dots(x: FlexTensor) -> FlexTensor {
        let x = Values::new(x);
        let [rows, fields, dim] = x.dims();
        let pairs = fields * fields.saturating_sub(1) / 2;
        let mut out = vec![0.0; rows * pairs];
        match pairwise_dots_into(x.get(), fields, dim, &mut out) {
            Ok(()) => made(out, [rows, pairs]),
            Err(_) => by_definition::pairwise_dots::<Cpu>(x.0),
        }
    }

    fn pairwise_dots_backward(x: FlexTensor, gradient: FlexTensor) -> FlexTensor {
        let [x, gradient] = [x, gradient].map(Values::new);
        let [rows, fields, dim] = x.dims();
        let mut out = vec![0.0; rows * fields * dim];
        match pairwise_dots_backward_into(x.get(), fields, dim, gradient.get(), &mut out) {
            Ok(()) => made(out, [rows, fields, dim]),
            Err(_) => by_definition::pairwise_dots_backward::<Cpu>(x.0, gradient.0),
        }
    }

    fn cross(x0: FlexTensor, u: FlexTensor, x: FlexTensor) -> FlexTensor {
        let [x0, u, x] = [x0, u, x].map(Values::new);
        let [rows, width] = x.dims();
        let mut out = vec![0.0; rows * width];
        match cross_layer_into(x0.get(), u.get(), x.get(), &mut out) {
            Ok(()) => made(out, [rows, width]),
            Err(_) => by_definition::cross::<Cpu>(x0.0, u.0, x.0),
        }
    }

    fn cross_backward(x0: FlexTensor, u: FlexTensor, gradient: FlexTensor) -> CrossGradients<Self> {
        let [x0, u, gradient] = [x0, u, gradient].map(Values::new);
        let shape: [usize; 2] = x0.dims();
        let (mut of_x0, mut of_u) = (vec![0.0; shape[0] * shape[1]], vec![0.0; shape[0] * shape[1]]);
        match cross_layer_backward_into(x0.get(), u.get(), gradient.get(), &mut of_x0, &mut of_u) {
            Ok(()) => CrossGradients { x0: made(of_x0, shape), u: made(of_u, shape), x: gradient.0 },
            Err(_) => by_definition::cross_backward::<Cpu>(x0.0, u.0, gradient.0),
        }
    }

    fn batch_norm(
        x: FlexTensor,
        scale: FlexTensor,
        shift: FlexTensor,
        activation: Activation,
    ) -> BatchNormed<Self> {
        let [x, scale, shift] = [x, scale, shift].map(Values::new);
        let [rows, width] = x.dims();
        let [mut mean, mut variance, mut y] = [width, width, rows * width].map(|n| vec![0.0; n]);
        match batch_norm(&norm(&scale, &shift, activation), x.get(), &mut y, &mut mean, &mut variance) {
            Ok(()) => {
                let [mean, variance] = [mean, variance].map(|column| made(column, [width]));
                BatchNormed { y: made(y, [rows, width]), mean, variance }
            }
            Err(_) => by_definition::batch_norm::<Cpu>(x.0, scale.0, shift.0, activation),
        }
    }

    fn batch_norm_backward(state: BatchNormState<Self>, gradient: FlexTensor) -> BatchNormGradients<Self> {
        let BatchNormState { x, scale, normed, activation } = state;
        let [x, scale, gradient] = [x, scale, gradient].map(Values::new);
        let [y, mean, variance] = [normed.y, normed.mean, normed.variance].map(Values::new);
        let [rows, width] = x.dims();
        let [mut of_x, mut of_scale, mut of_shift] = [rows * width, width, width].map(|n| vec![0.0; n]);
        // The shift has no part in the gradients.
        let norm = norm(&scale, &scale, activation);
        let statistics = ColumnStatistics { mean: mean.get(), variance: variance.get() };
        let into = IntoNormGradients { x: &mut of_x, scale: &mut of_scale, shift: &mut of_shift };
        match batch_norm_backward(&norm, x.get(), statistics, y.get(), gradient.get(), into) {
            Ok(()) => BatchNormGradients {
                x: made(of_x, [rows, width]),
                scale: made(of_scale, [width]),
                shift: made(of_shift, [width]),
            },
            Err(_) => {
                let normed = BatchNormed { y: y.0, mean: mean.0, variance: variance.0 };
                let state = BatchNormState { x: x.0, scale: scale.0, normed, activation };
                by_definition::batch_norm_backward::<Cpu>(state, gradient.0)
            }
        }
    }

    fn normalize(
        x: FlexTensor,
        parameters: [FlexTensor; 2],
        statistics: [FlexTensor; 2],
        activation: Activation,
    ) -> FlexTensor {
        let x = Values::new(x);
        let [[scale, shift], [mean, variance]] = [parameters, statistics].map(|pair| pair.map(Values::new));
        let shape: [usize; 2] = x.dims();
        let mut y = vec![0.0; shape[0] * shape[1]];
        let statistics = ColumnStatistics { mean: mean.get(), variance: variance.get() };
        match normalize(&norm(&scale, &shift, activation), x.get(), statistics, &mut y) {
            Ok(()) => made(y, shape),
            Err(_) => {
                by_definition::normalize::<Cpu>(x.0, [scale.0, shift.0], [mean.0, variance.0], activation)
            }
        }
    }

    fn normalize_rows(x: FlexTensor, scale: FlexTensor, shift: FlexTensor) -> FlexTensor {
        let [x, scale, shift] = [x, scale, shift].map(Values::new);
        let shape: [usize; 2] = x.dims();
        let mut y = vec![0.0; shape[0] * shape[1]];
        let norm = LayerNorm { scale: scale.get(), shift: shift.get(), epsilon: NORM_EPSILON };
        match layer_norm(&norm, x.get(), &mut y) {
            Ok(()) => made(y, shape),
            Err(_) => sequences_by_definition::layer_norm::<Cpu>(x.0, scale.0, shift.0),
        }
    }

    fn normalize_rows_backward(
        x: FlexTensor,
        scale: FlexTensor,
        gradient: FlexTensor,
    ) -> LayerNormGradients<Self> {
        let [x, scale, gradient] = [x, scale, gradient].map(Values::new);
        let shape: [usize; 2] = x.dims();
        let width = shape[1];
        let [mut of_x, mut of_scale, mut of_shift] = [shape[0] * width, width, width].map(|n| vec![0.0; n]);
        // The shift has no part in the gradients.
        let norm = LayerNorm { scale: scale.get(), shift: scale.get(), epsilon: NORM_EPSILON };
        let into = IntoLayerNorm { x: &mut of_x, scale: &mut of_scale, shift: &mut of_shift };
        match layer_norm_backward(&norm, x.get(), gradient.get(), into) {
            Ok(()) => LayerNormGradients {
                x: made(of_x, shape),
                scale: made(of_scale, [width]),
                shift: made(of_shift, [width]),
            },
            Err(_) => sequences_by_definition::layer_norm_backward::<Cpu>(x.0, scale.0, gradient.0),
        }
    }

    fn causal_attention(qkv: FlexTensor, of: &Attention) -> FlexTensor {
        let qkv = Values::new(qkv);
        let [rows, width] = qkv.dims();
        let kernel =
            CausalAttention { ends: &of.ends, width: width / 3, heads: of.heads, kept: of.kept.as_deref() };
        let mut y = vec![0.0; rows * (width / 3)];
        match causal_attention(&kernel, qkv.get(), &mut y) {
            Ok(()) => made(y, [rows, width / 3]),
            Err(_) => sequences_by_definition::causal_attention::<Cpu>(qkv.0, of),
        }
    }

    fn causal_attention_backward(qkv: FlexTensor, gradient: FlexTensor, of: &Attention) -> FlexTensor {
        let [qkv, gradient] = [qkv, gradient].map(Values::new);
        let [rows, width] = qkv.dims();
        let kernel =
            CausalAttention { ends: &of.ends, width: width / 3, heads: of.heads, kept: of.kept.as_deref() };
        let mut out = vec![0.0; rows * width];
        match causal_attention_backward(&kernel, qkv.get(), gradient.get(), &mut out) {
            Ok(()) => made(out, [rows, width]),
            Err(_) => sequences_by_definition::causal_attention_backward::<Cpu>(qkv.0, gradient.0, of),
        }
    }

    fn attend_last(qkv: FlexTensor, heads: usize) -> FlexTensor {
        let qkv = Values::new(qkv);
        let [rows, width] = qkv.dims();
        let kernel = CausalAttention { ends: &[rows as u32], width: width / 3, heads, kept: None };
        let mut y = vec![0.0; width / 3];
        match causal_attention_last(&kernel, qkv.get(), &mut y) {
            Ok(()) => made(y, [1, width / 3]),
            Err(_) => sequences_by_definition::attend_last::<Cpu>(qkv.0, heads),
        }
    }

    fn gru(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, ends: &Arc<[u32]>) -> FlexTensor {
        gru::on_cpu(x, weight, bias, ends)
    }

    fn gru_backward(
        x: FlexTensor,
        parameters: [FlexTensor; 2],
        states: FlexTensor,
        gradient: FlexTensor,
        ends: &Arc<[u32]>,
    ) -> GruGradients<Self> {
        gru::backward_on_cpu(x, parameters, states, gradient, ends)
    }

    fn gru_step(x: FlexTensor, parameters: [FlexTensor; 2], state: FlexTensor) -> FlexTensor {
        gru::step_on_cpu(x, parameters, state)
    }

    fn against(
        x: FlexTensor,
        candidates: FlexTensor,
        bias: FlexTensor,
        of: &Candidates<'_>,
        loss: CandidateLoss,
        scale: f32,
    ) -> Against<Self> {
        let [x, candidates, bias] = [x, candidates, bias].map(Values::new);
        match scored(x.get(), candidates.get(), bias.get(), x.dims(), of, loss, scale) {
            Ok(found) => found,
            Err(_) => sequences_by_definition::against::<Cpu>([x.0, candidates.0, bias.0], of, loss, scale),
        }
    }

    fn join(a: FlexTensor, b: FlexTensor) -> FlexTensor {
        let [a, b] = [a, b].map(Values::new);
        let ([rows, n], [_, m]) = (a.dims(), b.dims());
        let mut out = vec![0.0; rows * (n + m)];
        out.par_chunks_mut((n + m).max(1) * JOINED_ROWS).enumerate().for_each(|(piece, out)| {
            let first = piece * JOINED_ROWS;
            for (row, out) in out.chunks_exact_mut(n + m).enumerate() {
                let row = first + row;
                out[..n].copy_from_slice(&a.get()[row * n..][..n]);
                out[n..].copy_from_slice(&b.get()[row * m..][..m]);
            }
        });
        made(out, [rows, n + m])
    }

    fn join_backward(gradient: FlexTensor, n: usize) -> [FlexTensor; 2] {
        let gradient = Values::new(gradient);
        let [rows, width] = gradient.dims();
        let columns = |first: usize, n: usize| {
            let mut out = vec![0.0; rows * n];
            out.par_chunks_mut(n.max(1) * JOINED_ROWS).enumerate().for_each(|(piece, out)| {
                for (row, out) in out.chunks_exact_mut(n).enumerate() {
                    let from = (piece * JOINED_ROWS + row) * width + first;
                    out.copy_from_slice(&gradient.get()[from..][..n]);
                }
            });
            made(out, [rows, n])
        };
        [columns(0, n), columns(n, width - n)]
    }

    fn optimizer_step(
        parameter: Tensor<Cpu, 1>,
        gradient: Tensor<Cpu, 1>,
        state: &mut OptimizerState<Cpu>,
        rule: &DenseRule,
    ) -> Tensor<Cpu, 1> {
        let of_gradient = Values::new(primitive(gradient.clone()));
        let mut values = Values::new(primitive(parameter.clone())).get().to_vec();
        let n = values.len();
        let (optimizer, step) = rule.kernel();
        let states = [&mut state.first, &mut state.second].into_iter().take(optimizer.states());
        let mut memory: Vec<FlexTensor> = states.map(|state| remembered(state, n)).collect();
        let mut slices: Vec<&mut [f32]> = memory.iter_mut().map(FlexTensor::storage_mut::<f32>).collect();
        let worked = dense_update(optimizer, &mut values, &mut slices, of_gradient.get(), &step);
        let mut memory = memory.into_iter().map(tensor::<Cpu, 1>);
        (state.first, state.second) = (memory.next(), memory.next());
        match worked {
            Ok(()) => tensor(made(values, [n])),
            Err(_) => state.step_by_definition(parameter, gradient, rule),
        }
    }
}

/// [`DenseBackend::against`] by our kernels; the scores become their gradients in place.
fn scored(
    x: &[f32],
    candidates: &[f32],
    bias: &[f32],
    [n, width]: [usize; 2],
    of: &Candidates<'_>,
    loss: CandidateLoss,
    scale: f32,
) -> recmill_kernels::Result<Against<Cpu>> {
    let weight = turned(candidates, width);
    let layer = Linear {
        inputs: width,
        outputs: of.n,
        weight: &weight,
        bias: Some(bias),
        activation: recmill_kernels::Activation::Identity,
        products: PRODUCTS.get(),
    };
    let (mut losses, mut rows) = (vec![0.0; n], vec![0.0; n * width]);
    let mut sum = vec![0.0; weight.len()];
    let (mut scores, mut of_weight) = (Vec::new(), Vec::new());
    // What an identity gave is not looked at: memory that is never touched.
    let not_read = vec![0.0; n.min(SCORES_AT_ONCE / of.n.max(1) + 1) * of.n];
    for (run, own) in runs(of) {
        scores.resize(run.len() * of.n, 0.0);
        let (x, rows) =
            (&x[run.start * width..run.end * width], &mut rows[run.start * width..run.end * width]);
        with_scratch(|scratch| {
            linear(&layer, x, &mut scores, scratch)?;
            candidate_loss(loss, &own, scale, &mut scores, &mut losses[run])?;
            let first = of_weight.is_empty();
            of_weight.resize(weight.len(), 0.0);
            let into = IntoGradients { weight: &mut of_weight, bias: None, x: Some(rows) };
            linear_backward(&layer, x, &not_read[..scores.len()], &mut scores, into, scratch)?;
            match first {
                true => std::mem::swap(&mut sum, &mut of_weight),
                false => sum.par_iter_mut().zip(&of_weight).for_each(|(sum, more)| *sum += more),
            }
            Ok::<_, recmill_kernels::Error>(())
        })?;
    }
    let candidates = turned(&sum, of.n);
    Ok(Against {
        losses: tensor(made(losses, [n])),
        rows: tensor(made(rows, [n, width])),
        candidates: tensor(made(candidates, [of.n, width])),
    })
}

/// The columns of `[.., columns]` as rows.
fn turned(values: &[f32], columns: usize) -> Vec<f32> {
    let rows = values.len() / columns.max(1);
    let mut out = vec![0.0; values.len()];
    // Few rows of the result at a time, so that what is read of a row is in the cache for the next.
    out.par_chunks_mut(rows.max(1) * TURNED_ROWS).enumerate().for_each(|(task, out)| {
        for row in 0..rows {
            let own = &values[row * columns + task * TURNED_ROWS..];
            for (value, out) in own.iter().zip(out.chunks_exact_mut(rows)) {
                out[row] = *value;
            }
        }
    });
    out
}

/// Rows of a turned matrix that one task writes.
const TURNED_ROWS: usize = 16;

impl DeviceBackend for Cpu {
    fn device(device: Device) -> Result<Self::Device> {
        match device {
            Device::Cpu => Ok(Default::default()),
            device => Err(recmill_kernels::Error::NotOnDevice { op: "a network on the CPU", device }.into()),
        }
    }

    fn from_buffer(buffer: Buffer<f32>, shape: Shape) -> Result<FlexTensor> {
        Ok(FlexTensor::from_data(TensorData::new(buffer.into_vec()?, shape)))
    }

    fn into_buffer(tensor: FlexTensor) -> Result<Buffer<f32>> {
        let values = tensor.into_data().into_vec::<f32>();
        let values = values.map_err(|_| Error::Inconsistent { what: "tensor", at: 0 })?;
        Ok(Buffer::from_vec(values, "a tensor")?)
    }

    fn check_answers(_: Device) -> Result<()> {
        Ok(())
    }
}

/// Rows that one task copies.
const JOINED_ROWS: usize = 256;

/// What an optimizer remembers, to be changed in place; zeros at first.
fn remembered(state: &mut Option<Tensor<Cpu, 1>>, n: usize) -> FlexTensor {
    state.take().map_or_else(|| made(vec![0.0; n], [n]), primitive)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dense::{backend::some_dropped, sequences_by_definition::LOSSES},
        rankers::DenseOptimizer,
    };

    fn values(tensor: FlexTensor) -> Vec<f32> {
        Values::new(tensor).get().to_vec()
    }

    fn close(ours: FlexTensor, definition: FlexTensor, what: &str) {
        let (ours, definition) = (values(ours), values(definition));
        assert_eq!(ours.len(), definition.len(), "{what}");
        for (a, b) in ours.into_iter().zip(definition) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{what}: {a} beside {b}");
        }
    }

    fn some<const D: usize>(shape: [usize; D], salt: usize) -> FlexTensor {
        let n = shape.iter().product();
        made((0..n).map(|at| ((at * 37 + salt * 11) % 23) as f32 / 11.0 - 1.0).collect(), shape)
    }

    #[test]
    fn kernels_agree_with_their_definitions() {
        for (rows, inputs, outputs) in [(1, 1, 1), (7, 5, 3), (40, 33, 18), (3, 1, 70)] {
            for activation in [Activation::Identity, Activation::Relu] {
                let (x, w, b) = (some([rows, inputs], 1), some([inputs, outputs], 2), some([outputs], 3));
                let y = Cpu::linear_layer(x.clone(), w.clone(), b.clone(), activation);
                let expected = by_definition::linear_layer::<Cpu>(x.clone(), w.clone(), b, activation);
                close(y.clone(), expected, "linear");
                let g = some([rows, outputs], 4);
                let ours =
                    Cpu::linear_layer_backward(x.clone(), w.clone(), y.clone(), g.clone(), activation, true);
                assert_eq!(values(g.clone()), values(some([rows, outputs], 4)), "somebody else's gradient");
                let definition = by_definition::linear_layer_backward::<Cpu>(x, w, y, g, activation, true);
                close(ours.weight, definition.weight, "weight");
                close(ours.bias, definition.bias, "bias");
                close(ours.x.unwrap(), definition.x.unwrap(), "x");
            }
        }
        for (rows, fields, dim) in [(1, 1, 1), (5, 2, 3), (9, 27, 16), (3, 4, 33)] {
            let x = some([rows, fields, dim], 5);
            close(Cpu::second_order(x.clone()), by_definition::second_order::<Cpu>(x.clone()), "fm");
            let g = some([rows, 1], 6);
            close(
                Cpu::second_order_backward(x.clone(), g.clone()),
                by_definition::second_order_backward::<Cpu>(x.clone(), g),
                "fm backward",
            );
            if fields > 1 {
                close(Cpu::pairwise_dots(x.clone()), by_definition::pairwise_dots::<Cpu>(x.clone()), "dots");
                let g = some([rows, fields * (fields - 1) / 2], 7);
                close(
                    Cpu::pairwise_dots_backward(x.clone(), g.clone()),
                    by_definition::pairwise_dots_backward::<Cpu>(x, g),
                    "dots backward",
                );
            }
        }
        for (rows, width) in [(2, 3), (70, 16), (33, 1)] {
            let x = || some([rows, width], 20);
            let parameters = || [21, 22].map(|salt| some([width], salt));
            for activation in [Activation::Identity, Activation::Relu] {
                let [scale, shift] = parameters();
                let ours = Cpu::batch_norm(x(), scale, shift, activation);
                let [scale, shift] = parameters();
                let definition = by_definition::batch_norm::<Cpu>(x(), scale, shift, activation);
                let statistics = || [ours.mean.clone(), ours.variance.clone()];
                close(
                    Cpu::normalize(x(), parameters(), statistics(), activation),
                    by_definition::normalize::<Cpu>(x(), parameters(), statistics(), activation),
                    "normalize",
                );
                close(ours.y.clone(), definition.y, "batch_norm");
                close(ours.mean.clone(), definition.mean, "mean");
                close(ours.variance.clone(), definition.variance, "variance");
                let state = || {
                    let [y, mean, variance] = [&ours.y, &ours.mean, &ours.variance].map(Clone::clone);
                    let normed = BatchNormed { y, mean, variance };
                    BatchNormState { x: x(), scale: some([width], 21), normed, activation }
                };
                let gradient = || some([rows, width], 23);
                let found = Cpu::batch_norm_backward(state(), gradient());
                let definition = by_definition::batch_norm_backward::<Cpu>(state(), gradient());
                close(found.x, definition.x, "gradient of x");
                close(found.scale, definition.scale, "gradient of scale");
                close(found.shift, definition.shift, "gradient of shift");
            }
        }
        for (rows, width) in [(1, 4), (70, 16), (33, 6)] {
            let (x, scale, g) = (some([rows, width], 30), some([width], 31), some([rows, width], 33));
            close(
                Cpu::normalize_rows(x.clone(), scale.clone(), some([width], 32)),
                sequences_by_definition::layer_norm::<Cpu>(x.clone(), scale.clone(), some([width], 32)),
                "normalize_rows",
            );
            let ours = Cpu::normalize_rows_backward(x.clone(), scale.clone(), g.clone());
            let definition = sequences_by_definition::layer_norm_backward::<Cpu>(x, scale, g);
            close(ours.x, definition.x, "gradient of rows");
            close(ours.scale, definition.scale, "gradient of their scale");
            close(ours.shift, definition.shift, "gradient of their shift");
        }
        for (ends, width, heads) in [(&[3][..], 4, 2), (&[0, 2, 2, 9, 10], 6, 1), (&[40, 41], 8, 4)] {
            let rows = ends[ends.len() - 1] as usize;
            let (qkv, g) = (some([rows, 3 * width], 34), some([rows, width], 35));
            for of in [Attention { ends: ends.into(), heads, kept: None }, some_dropped(ends, heads)] {
                close(
                    Cpu::causal_attention(qkv.clone(), &of),
                    sequences_by_definition::causal_attention::<Cpu>(qkv.clone(), &of),
                    "attention",
                );
                close(
                    Cpu::causal_attention_backward(qkv.clone(), g.clone(), &of),
                    sequences_by_definition::causal_attention_backward::<Cpu>(qkv.clone(), g.clone(), &of),
                    "attention backward",
                );
            }
            close(
                Cpu::attend_last(qkv.clone(), heads),
                sequences_by_definition::attend_last::<Cpu>(qkv.clone(), heads),
                "attention of the last row",
            );
        }
        let hidden = [vec![0, 2], vec![]];
        let groups = [0, 1, 0];
        for (groups, hidden) in [(&groups[..], &hidden[..]), (&[], &[])] {
            let common = if groups.is_empty() { 3 } else { 5 };
            let of = Candidates { n: 5, common, targets: &[2, 0, 4], groups, hidden };
            for loss in LOSSES {
                let operands = || [some([3, 7], 36), some([5, 7], 37), some([5], 38)];
                let [x, candidates, bias] = operands();
                let ours = Cpu::against(x, candidates, bias, &of, loss, 0.5);
                let definition = sequences_by_definition::against::<Cpu>(operands(), &of, loss, 0.5);
                close(primitive(ours.losses), primitive(definition.losses), "losses");
                close(primitive(ours.rows), primitive(definition.rows), "gradient of rows");
                close(primitive(ours.candidates), primitive(definition.candidates), "of candidates");
            }
        }
        let many = SCORES_AT_ONCE / 2 - 1;
        let of = Candidates { n: many, common: many, targets: &[0, 1, 2, 3, 4], groups: &[], hidden: &[] };
        let all = runs(&of).map(|(run, own)| (run, own.targets.to_vec())).collect::<Vec<_>>();
        assert_eq!(all, [(0..2, vec![0, 1]), (2..4, vec![2, 3]), (4..5, vec![4])]);
        for (rows, n, m) in [(1, 1, 1), (7, 3, 5), (600, 16, 1), (5, 2, 40)] {
            // Columns of a wider tensor, and rows that were columns: memory in another order.
            let a = tensor::<Cpu, 2>(some([rows, n + 3], 12)).slice([0..rows, 2..n + 2]);
            let b = tensor::<Cpu, 2>(some([m, rows], 13)).transpose();
            let [a, b] = [a, b].map(primitive);
            let joined = Cpu::join(a.clone(), b.clone());
            close(joined.clone(), by_definition::join::<Cpu>(a.clone(), b.clone()), "join");
            let parts = Cpu::join_backward(joined, n);
            for (part, whole) in parts.into_iter().zip([a, b]) {
                assert_eq!(values(part), values(whole), "what was joined comes apart again");
            }
        }
        let [x0, u, x, g] = [8, 9, 10, 11].map(|salt| some([6, 35], salt));
        let (ours, definition) = (
            Cpu::cross(x0.clone(), u.clone(), x.clone()),
            by_definition::cross::<Cpu>(x0.clone(), u.clone(), x),
        );
        close(ours, definition, "cross");
        let ours = Cpu::cross_backward(x0.clone(), u.clone(), g.clone());
        let definition = by_definition::cross_backward::<Cpu>(x0, u, g);
        close(ours.x0, definition.x0, "x0");
        close(ours.u, definition.u, "u");
        close(ours.x, definition.x, "x");
    }

    #[test]
    fn steps_agree_with_their_definition_and_adam_by_hand() {
        for optimizer in
            [DenseOptimizer::Sgd, DenseOptimizer::Adagrad, DenseOptimizer::Adam, DenseOptimizer::Adamw]
        {
            let (mut ours, mut definition) = (OptimizerState::<Cpu>::default(), OptimizerState::default());
            let start = || tensor::<Cpu, 1>(some([50], 12));
            let (mut a, mut b) = (start(), start());
            for step in 1..=4 {
                let rule = DenseRule {
                    optimizer,
                    learning_rate: 0.1,
                    weight_decay: 0.02,
                    step,
                    gradient_scale: 0.5,
                };
                let g = || tensor::<Cpu, 1>(some([50], 12 + step as usize));
                a = Cpu::optimizer_step(a, g(), &mut ours, &rule);
                b = definition.step_by_definition(b, g(), &rule);
            }
            close(primitive(a), primitive(b), "a step");
        }
        // One step of Adam from nothing moves by the learning rate against the gradient's sign.
        let rule = DenseRule {
            optimizer: DenseOptimizer::Adam,
            learning_rate: 0.25,
            weight_decay: 0.0,
            step: 1,
            gradient_scale: 1.0,
        };
        let parameter = tensor::<Cpu, 1>(made(vec![1.0, 1.0], [2]));
        let gradient = tensor::<Cpu, 1>(made(vec![3.0, -0.5], [2]));
        let stepped = Cpu::optimizer_step(parameter, gradient, &mut OptimizerState::default(), &rule);
        close(primitive(stepped), made(vec![0.75, 1.25], [2]), "Adam");
    }
}
