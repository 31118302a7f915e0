//! The gated recurrent unit: the layer, the operation as its formula has it out of burn's, and on the CPU by our kernel.
//!
//! The formula stands in [`recmill_kernels::gru`]. Out of burn's operations it goes step by step, over the sequences that are still running:
//! the longest come first, so that they are the first rows of a step, and nothing is padded.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{
        Int, Tensor, TensorData,
        activation::{sigmoid, tanh},
        backend::Backend,
        ops::FloatTensor,
    },
};
use burn_flex::FlexTensor;
use recmill_kernels::{self as kernels, GruGradients as IntoGru};

use super::{
    Activation, Cpu, DenseBackend, GruGradients, Initial, Linear,
    backend::{primitive, tensor},
    cpu::{Values, made, with_scratch},
};

/// Reads sequences by a state that goes from row to row: see [`DenseBackend::gru`].
#[derive(Module, Debug)]
pub struct Gru<B: Backend> {
    input: Linear<B>,
    weight: Param<Tensor<B, 2>>,
    bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Gru<B> {
    /// Makes a layer with a state of `width` values; all weights begin as [`Linear::new`] draws them.
    pub fn new(inputs: usize, width: usize, initial: &mut Initial<'_, B>) -> Self {
        let bound = 1.0 / (width.max(1) as f64).sqrt();
        Self {
            input: Linear::new(inputs, 3 * width, initial),
            weight: initial.uniform([width, 3 * width], bound),
            bias: initial.uniform([3 * width], bound),
        }
    }
}

impl<B: DenseBackend> Gru<B> {
    /// Maps `[rows, inputs]` to the state after each row, `[rows, width]`; sequences end at `ends`, and begin with a state of zeros.
    pub fn forward(&self, x: Tensor<B, 2>, ends: &Arc<[u32]>) -> Tensor<B, 2> {
        let x = self.input.forward(x, Activation::Identity);
        tensor(B::gru(primitive(x), primitive(self.weight.val()), primitive(self.bias.val()), ends))
    }

    /// Returns the states after one more row of each sequence, whose states are `state`: no gradient goes through it.
    ///
    /// # Shapes
    /// `x` `[sequences, inputs]`; `state` `[sequences, width]`, zeros where there is none; returns as many
    pub fn step(&self, x: Tensor<B, 2>, state: Option<Tensor<B, 2>>) -> Tensor<B, 2> {
        let x = self.input.forward(x, Activation::Identity);
        let ([rows, _], [width, _]) = (x.dims(), self.weight.dims());
        let state = state.unwrap_or_else(|| Tensor::zeros([rows, width], &x.device()));
        let [weight, bias] = [primitive(self.weight.val()), primitive(self.bias.val())];
        tensor(B::gru_step(primitive(x), [weight, bias], primitive(state)))
    }
}

/// Which rows each step goes over, and where they come from.
struct Steps {
    /// The rows of each step, those of the longest sequences first.
    rows: Vec<Vec<i32>>,
    /// Where each row stands, step after step.
    place_of: Vec<i32>,
    /// The row before each, itself where there is none.
    before: Vec<i32>,
    /// 1 where there is one.
    has_before: Vec<f32>,
}

impl Steps {
    fn new(ends: &[u32]) -> Self {
        let begins = [0].into_iter().chain(ends.iter().copied());
        let mut sequences: Vec<(u32, u32)> = begins.zip(ends.iter().copied()).collect();
        sequences.sort_by_key(|&(begin, end)| std::cmp::Reverse(end - begin));
        let longest = sequences.first().map_or(0, |&(begin, end)| end - begin);
        let running = |step: u32| sequences.iter().take_while(move |&&(begin, end)| step < end - begin);
        let rows: Vec<Vec<i32>> = (0..longest)
            .map(|step| running(step).map(|&(begin, _)| (begin + step) as i32).collect())
            .collect();
        let n = ends.last().map_or(0, |&end| end as usize);
        let (mut place_of, mut before, mut has_before) = (vec![0; n], vec![0; n], vec![1.0; n]);
        for (place, &row) in rows.iter().flatten().enumerate() {
            place_of[row as usize] = place as i32;
            before[row as usize] = row - 1;
        }
        for &row in rows.first().into_iter().flatten() {
            (before[row as usize], has_before[row as usize]) = (row, 0.0);
        }
        Self { rows, place_of, before, has_before }
    }
}

fn whole<B: Backend>(values: &[i32], device: &B::Device) -> Tensor<B, 1, Int> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), device)
}

/// `r`, `z` and `n`, and the part of the state's product that `r` weighs.
fn gates<B: Backend>(x: Tensor<B, 2>, sums: Tensor<B, 2>) -> [Tensor<B, 2>; 4] {
    let [rows, width] = x.dims();
    let width = width / 3;
    let part = |of: &Tensor<B, 2>, at: usize| of.clone().slice([0..rows, at * width..(at + 1) * width]);
    let r = sigmoid(part(&x, 0) + part(&sums, 0));
    let z = sigmoid(part(&x, 1) + part(&sums, 1));
    let weighed = part(&sums, 2);
    let n = tanh(part(&x, 2) + r.clone() * weighed.clone());
    [r, z, n, weighed]
}

pub(super) fn step_by_definition<B: DenseBackend>(
    x: FloatTensor<B>,
    [weight, bias]: [FloatTensor<B>; 2],
    state: FloatTensor<B>,
) -> FloatTensor<B> {
    let sums = B::linear_layer(state.clone(), weight, bias, Activation::Identity);
    let [_, z, n, _] = gates::<B>(tensor(x), tensor(sums));
    primitive(n.clone() + z * (tensor::<B, 2>(state) - n))
}

pub(super) fn by_definition<B: DenseBackend>(
    x: FloatTensor<B>,
    weight: FloatTensor<B>,
    bias: FloatTensor<B>,
    ends: &[u32],
) -> FloatTensor<B> {
    let x = tensor::<B, 2>(x);
    let (device, width) = (x.device(), x.dims()[1] / 3);
    let steps = Steps::new(ends);
    let sequences = steps.rows.first().map_or(0, Vec::len);
    let mut state = Tensor::<B, 2>::zeros([sequences, width], &device);
    let mut states = Vec::new();
    for rows in &steps.rows {
        let own = x.clone().select(0, whole(rows, &device));
        let before = state.slice([0..rows.len(), 0..width]);
        let parameters = [weight.clone(), bias.clone()];
        state = tensor(B::gru_step(primitive(own), parameters, primitive(before)));
        states.push(state.clone());
    }
    match states.is_empty() {
        true => primitive(Tensor::<B, 2>::zeros([0, width], &device)),
        false => primitive(Tensor::cat(states, 0).select(0, whole(&steps.place_of, &device))),
    }
}

pub(super) fn backward_by_definition<B: DenseBackend>(
    x: FloatTensor<B>,
    [weight, bias]: [FloatTensor<B>; 2],
    states: FloatTensor<B>,
    gradient: FloatTensor<B>,
    ends: &[u32],
) -> GruGradients<B> {
    let [of_x, states, gradient] = [x.clone(), states, gradient].map(tensor::<B, 2>);
    let ([rows, width], device) = (states.dims(), states.device());
    let u = tensor::<B, 2>(weight.clone());
    if rows == 0 {
        let of_bias = tensor::<B, 1>(bias).zeros_like();
        return GruGradients { x, weight: primitive(u.zeros_like()), bias: primitive(of_bias) };
    }
    let steps = Steps::new(ends);
    let has_before = Tensor::from_data(TensorData::new(steps.has_before.clone(), [rows, 1]), &device);
    let before = states.select(0, whole(&steps.before, &device)) * has_before;
    let sums = B::linear_layer(primitive(before.clone()), weight, bias, Activation::Identity);
    let [r, z, n, weighed] = gates::<B>(of_x, tensor(sums));
    // What the gradient of a state is multiplied by, for each of what it is made of.
    let to_n = (z.clone().neg() + 1.0) * (n.clone().powi_scalar(2).neg() + 1.0);
    let to_z = (before.clone() - n) * z.clone() * (z.clone().neg() + 1.0);
    let to_r = to_n.clone() * weighed * r.clone() * (r.clone().neg() + 1.0);
    let to_gates = Tensor::cat(vec![to_r.clone(), to_z.clone(), to_n.clone()], 1);
    let to_sums = Tensor::cat(vec![to_r, to_z, to_n * r], 1);
    let (mut of_gates, mut of_sums) = (Vec::new(), Vec::new());
    let mut later: Option<Tensor<B, 2>> = None;
    for rows in steps.rows.iter().rev() {
        let own = whole(rows, &device);
        let at = |of: &Tensor<B, 2>| of.clone().select(0, own.clone());
        let mut g = at(&gradient);
        if let Some(later) = later {
            let [n, _] = later.dims();
            g = match rows.len() - n {
                0 => g + later,
                ended => g + Tensor::cat(vec![later, Tensor::zeros([ended, width], &device)], 0),
            };
        }
        let three = Tensor::cat(vec![g.clone(), g.clone(), g.clone()], 1);
        let of_step = three.clone() * at(&to_sums);
        later = Some(g * at(&z) + of_step.clone().matmul(u.clone().transpose()));
        of_gates.push(three * at(&to_gates));
        of_sums.push(of_step);
    }
    let places = whole(&steps.place_of, &device);
    let [of_gates, of_sums] = [of_gates, of_sums].map(|steps| {
        let in_order = steps.into_iter().rev().collect();
        Tensor::cat(in_order, 0).select(0, places.clone())
    });
    GruGradients {
        x: primitive(of_gates),
        bias: primitive(of_sums.clone().sum_dim(0).squeeze_dim::<1>(0)),
        weight: primitive(before.transpose().matmul(of_sums)),
    }
}

/// As the kernels know it.
fn kernel<'a>(weight: &'a Values, bias: &'a Values, ends: &'a [u32]) -> kernels::Gru<'a> {
    let [width, _] = weight.dims();
    kernels::Gru { ends, width, weight: weight.get(), bias: bias.get() }
}

pub(super) fn on_cpu(x: FlexTensor, weight: FlexTensor, bias: FlexTensor, ends: &[u32]) -> FlexTensor {
    let [x, weight, bias] = [x, weight, bias].map(Values::new);
    let of = kernel(&weight, &bias, ends);
    let [rows, _] = x.dims::<2>();
    let shape = [rows, of.width];
    let mut states = vec![0.0; rows * of.width];
    match kernels::gru(&of, x.get(), None, &mut states) {
        Ok(()) => made(states, shape),
        Err(_) => by_definition::<Cpu>(x.0, weight.0, bias.0, ends),
    }
}

pub(super) fn step_on_cpu(x: FlexTensor, [weight, bias]: [FlexTensor; 2], state: FlexTensor) -> FlexTensor {
    let [x, weight, bias, state] = [x, weight, bias, state].map(Values::new);
    let [rows, width] = state.dims();
    let ends: Vec<u32> = (1..=rows as u32).collect();
    let mut states = vec![0.0; rows * width];
    match kernels::gru(&kernel(&weight, &bias, &ends), x.get(), Some(state.get()), &mut states) {
        Ok(()) => made(states, [rows, width]),
        Err(_) => step_by_definition::<Cpu>(x.0, [weight.0, bias.0], state.0),
    }
}

pub(super) fn backward_on_cpu(
    x: FlexTensor,
    parameters: [FlexTensor; 2],
    states: FlexTensor,
    gradient: FlexTensor,
    ends: &[u32],
) -> GruGradients<Cpu> {
    let [x, states, gradient] = [x, states, gradient].map(Values::new);
    let [weight, bias] = parameters.map(Values::new);
    let of = kernel(&weight, &bias, ends);
    let (rows, width) = (x.dims::<2>()[0], of.width);
    let [mut of_x, mut of_weight, mut of_bias] =
        [rows * 3 * width, 3 * width * width, 3 * width].map(|n| vec![0.0; n]);
    let into = IntoGru { x: &mut of_x, weight: &mut of_weight, bias: &mut of_bias };
    let worked = with_scratch(|scratch| {
        kernels::gru_backward(&of, x.get(), states.get(), gradient.get(), into, scratch)
    });
    match worked {
        Ok(()) => GruGradients {
            x: made(of_x, [rows, 3 * width]),
            weight: made(of_weight, [width, 3 * width]),
            bias: made(of_bias, [3 * width]),
        },
        Err(_) => backward_by_definition::<Cpu>(x.0, [weight.0, bias.0], states.0, gradient.0, ends),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some<const D: usize>(shape: [usize; D], salt: usize) -> FlexTensor {
        let n = shape.iter().product();
        made((0..n).map(|at| ((at * 37 + salt * 11) % 23) as f32 / 11.0 - 1.0).collect(), shape)
    }

    fn close(ours: FlexTensor, definition: FlexTensor, what: &str) {
        let (ours, definition) = (Values::new(ours), Values::new(definition));
        assert_eq!(ours.get().len(), definition.get().len(), "{what}");
        for (a, b) in ours.get().iter().zip(definition.get()) {
            assert!((a - b).abs() <= 1e-5 * (1.0 + b.abs()), "{what}: {a} beside {b}");
        }
    }

    #[test]
    fn the_kernel_agrees_with_the_definition() {
        for (ends, width) in [(&[3][..], 4), (&[0, 2, 2, 9, 10], 6), (&[0], 3), (&[7, 12, 13, 20, 21], 17)] {
            let rows = ends[ends.len() - 1] as usize;
            let x = || some([rows, 3 * width], 1);
            let parameters = || [some([width, 3 * width], 2), some([3 * width], 3)];
            let [weight, bias] = parameters();
            let states = Cpu::gru(x(), weight.clone(), bias.clone(), &ends.into());
            close(states.clone(), by_definition::<Cpu>(x(), weight, bias, ends), "states");
            let gradient = || some([rows, width], 4);
            let ours = Cpu::gru_backward(x(), parameters(), states.clone(), gradient(), &ends.into());
            let definition = backward_by_definition::<Cpu>(x(), parameters(), states, gradient(), ends);
            close(ours.x, definition.x, "gradient of x");
            close(ours.weight, definition.weight, "gradient of the weight");
            close(ours.bias, definition.bias, "gradient of the bias");
        }
        let (x, state) = (|| some([5, 12], 5), || some([5, 4], 6));
        let parameters = || [some([4, 12], 2), some([12], 3)];
        close(
            Cpu::gru_step(x(), parameters(), state()),
            step_by_definition::<Cpu>(x(), parameters(), state()),
            "a step",
        );
    }
}
