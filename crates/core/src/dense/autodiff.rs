//! The gradients of [`DenseBackend`]'s operations, as burn's `Autodiff` asks for them.

use std::sync::Arc;

use burn::backend::autodiff::{
    Autodiff,
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::tensor::{backend::AutodiffBackend, ops::FloatTensor};

use super::{Activation, Attention, BatchNormState, BatchNormed, DenseBackend, backend::tensor};

#[derive(Debug)]
struct Linear;

impl<B: DenseBackend> Backward<B, 3> for Linear {
    /// `x`, the weight, `y`, and what followed the product.
    type State = (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>, Activation);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [of_x, of_weight, of_bias] = ops.parents;
        let gradient = grads.consume::<B>(&ops.node);
        let (x, weight, y, activation) = ops.state;
        let found = B::linear_layer_backward(x, weight, y, gradient, activation, of_x.is_some());
        if let (Some(node), Some(x)) = (of_x, found.x) {
            grads.register::<B>(node.id, x);
        }
        if let Some(node) = of_weight {
            grads.register::<B>(node.id, found.weight);
        }
        if let Some(node) = of_bias {
            grads.register::<B>(node.id, found.bias);
        }
    }
}

#[derive(Debug)]
struct SecondOrder;

impl<B: DenseBackend> Backward<B, 1> for SecondOrder {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::second_order_backward(x, gradient));
    }
}

#[derive(Debug)]
struct PairwiseDots;

impl<B: DenseBackend> Backward<B, 1> for PairwiseDots {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let x = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| B::pairwise_dots_backward(x, gradient));
    }
}

#[derive(Debug)]
struct Cross;

impl<B: DenseBackend> Backward<B, 3> for Cross {
    /// `x0` and `u`.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x0, u) = ops.state;
        let found = B::cross_backward(x0, u, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([found.x0, found.u, found.x]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Norm;

impl<B: DenseBackend> Backward<B, 3> for Norm {
    type State = BatchNormState<B>;

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let found = B::batch_norm_backward(ops.state, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([found.x, found.scale, found.shift]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct RowNorm;

impl<B: DenseBackend> Backward<B, 3> for RowNorm {
    /// `x` and the scale.
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, scale) = ops.state;
        let found = B::normalize_rows_backward(x, scale, gradient);
        for (node, gradient) in ops.parents.into_iter().zip([found.x, found.scale, found.shift]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Attend;

impl<B: DenseBackend> Backward<B, 1> for Attend {
    type State = (FloatTensor<B>, Attention);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (qkv, of) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |gradient| {
            B::causal_attention_backward(qkv, gradient, &of)
        });
    }
}

#[derive(Debug)]
struct Recur;

impl<B: DenseBackend> Backward<B, 3> for Recur {
    /// `x`, the weight and the bias, the states, and where sequences end.
    type State = (FloatTensor<B>, [FloatTensor<B>; 2], FloatTensor<B>, Arc<[u32]>);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let (x, parameters, states, ends) = ops.state;
        let found = B::gru_backward(x, parameters, states, gradient, &ends);
        for (node, gradient) in ops.parents.into_iter().zip([found.x, found.weight, found.bias]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

#[derive(Debug)]
struct Join;

impl<B: DenseBackend> Backward<B, 2> for Join {
    /// Columns of the first.
    type State = usize;

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let gradient = grads.consume::<B>(&ops.node);
        let found = B::join_backward(gradient, ops.state);
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let Some(node) = node {
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}

impl<B: DenseBackend, C: CheckpointStrategy> DenseBackend for Autodiff<B, C> {
    fn linear_layer(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        activation: Activation,
    ) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), weight.node.clone(), bias.node.clone()];
        match Linear.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (x, weight) = (x.primitive, weight.primitive);
                let y = B::linear_layer(x.clone(), weight.clone(), bias.primitive, activation);
                prepared.finish((x, weight, y.clone(), activation), y)
            }
            OpsKind::UnTracked(prepared) => {
                prepared.finish(B::linear_layer(x.primitive, weight.primitive, bias.primitive, activation))
            }
        }
    }

    fn second_order(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match SecondOrder.prepare::<C>([x.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x.primitive.clone(), B::second_order(x.primitive)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::second_order(x.primitive)),
        }
    }

    fn pairwise_dots(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match PairwiseDots.prepare::<C>([x.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(x.primitive.clone(), B::pairwise_dots(x.primitive)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::pairwise_dots(x.primitive)),
        }
    }

    fn batch_norm(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        activation: Activation,
    ) -> BatchNormed<Self> {
        let nodes = [x.node.clone(), scale.node.clone(), shift.node.clone()];
        let (x, scale, shift) = (x.primitive, scale.primitive, shift.primitive);
        let normed = B::batch_norm(x.clone(), scale.clone(), shift, activation);
        let BatchNormed { y, mean, variance } = normed.clone();
        let y = match Norm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(BatchNormState { x, scale, normed, activation }, y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        };
        let [mean, variance] = [mean, variance].map(<Self as AutodiffBackend>::from_inner);
        BatchNormed { y, mean, variance }
    }

    fn normalize(
        x: FloatTensor<Self>,
        parameters: [FloatTensor<Self>; 2],
        statistics: [FloatTensor<Self>; 2],
        activation: Activation,
    ) -> FloatTensor<Self> {
        let [parameters, statistics] = [parameters, statistics].map(|pair| pair.map(|x| x.primitive));
        <Self as AutodiffBackend>::from_inner(B::normalize(x.primitive, parameters, statistics, activation))
    }

    fn normalize_rows(
        x: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        shift: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), scale.node.clone(), shift.node.clone()];
        let (x, scale, shift) = (x.primitive, scale.primitive, shift.primitive);
        match RowNorm.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let y = B::normalize_rows(x.clone(), scale.clone(), shift);
                prepared.finish((x, scale), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::normalize_rows(x, scale, shift)),
        }
    }

    fn causal_attention(qkv: FloatTensor<Self>, of: &Attention) -> FloatTensor<Self> {
        match Attend.prepare::<C>([qkv.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let y = B::causal_attention(qkv.primitive.clone(), of);
                prepared.finish((qkv.primitive, of.clone()), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::causal_attention(qkv.primitive, of)),
        }
    }

    fn attend_last(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        <Self as AutodiffBackend>::from_inner(B::attend_last(qkv.primitive, heads))
    }

    fn gru(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        ends: &Arc<[u32]>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node.clone(), weight.node.clone(), bias.node.clone()];
        let (x, weight, bias) = (x.primitive, weight.primitive, bias.primitive);
        match Recur.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let states = B::gru(x.clone(), weight.clone(), bias.clone(), ends);
                prepared.finish((x, [weight, bias], states.clone(), Arc::clone(ends)), states)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::gru(x, weight, bias, ends)),
        }
    }

    fn gru_step(
        x: FloatTensor<Self>,
        parameters: [FloatTensor<Self>; 2],
        state: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let states = B::gru_step(x.primitive, parameters.map(|x| x.primitive), state.primitive);
        <Self as AutodiffBackend>::from_inner(states)
    }

    fn join(a: FloatTensor<Self>, b: FloatTensor<Self>) -> FloatTensor<Self> {
        match Join.prepare::<C>([a.node.clone(), b.node.clone()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let [_, n] = tensor::<B, 2>(a.primitive.clone()).dims();
                prepared.finish(n, B::join(a.primitive, b.primitive))
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::join(a.primitive, b.primitive)),
        }
    }

    fn cross(x0: FloatTensor<Self>, u: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [x0.node.clone(), u.node.clone(), x.node.clone()];
        match Cross.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => {
                let (x0, u) = (x0.primitive, u.primitive);
                let y = B::cross(x0.clone(), u.clone(), x.primitive);
                prepared.finish((x0, u), y)
            }
            OpsKind::UnTracked(prepared) => prepared.finish(B::cross(x0.primitive, u.primitive, x.primitive)),
        }
    }
}
