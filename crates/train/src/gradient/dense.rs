//! The step of a network's parameters.

use burn::{
    backend::Autodiff,
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    tensor::{Tensor, TensorData, backend::AutodiffBackend},
};
use recmill_core::{
    Parameter, Parameters,
    dense::{DenseBackend, DenseRule, OptimizerState},
    rankers::DenseOptimizer,
};
use recmill_kernels::Buffer;

use super::collective::{Collective, all_reduce};
use crate::Result;

/// Names of what is remembered of a parameter.
const FIRST: &str = "first";
const SECOND: &str = "second";

/// What a network learns with: a memory for each parameter, in the order of the network's fields.
#[derive(Debug)]
pub struct DenseSteps<B: DenseBackend> {
    optimizer: DenseOptimizer,
    weight_decay: f32,
    clip_norm: f32,
    steps: u64,
    states: Vec<OptimizerState<B>>,
}

/// The gradients of a network's parameters, flat, in the order of its fields.
#[derive(Debug, Default)]
pub struct DenseGradients<B: DenseBackend>(Vec<Option<Tensor<B, 1>>>);

impl<B: DenseBackend> DenseGradients<B> {
    /// Takes them out of what went backward.
    pub fn of<M: Module<Autodiff<B>>>(
        network: &M,
        gradients: &<Autodiff<B> as AutodiffBackend>::Gradients,
    ) -> Self {
        let mut reader = Reader { gradients, found: Vec::new() };
        network.visit(&mut reader);
        Self(reader.found)
    }

    /// Adds those of another piece of the batch.
    pub fn add(&mut self, other: Self) {
        if self.0.is_empty() {
            *self = other;
            return;
        }
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum = match (sum.take(), more) {
                (Some(a), Some(b)) => Some(a + b),
                (one, other) => one.or(other),
            };
        }
    }

    /// Adds those of the other ranks, for a network whose parameters have so many values.
    ///
    /// # Errors
    /// [`crate::Error::RankLost`].
    pub fn all_reduce(&mut self, ranks: &dyn Collective, sizes: &[usize], device: &B::Device) -> Result<()> {
        if ranks.size() == 1 {
            return Ok(());
        }
        // A rank without rows has no gradients; whether anyone has one of a parameter is summed behind the values.
        let mut values = Vec::with_capacity(sizes.iter().sum::<usize>() + sizes.len());
        let mut found = Vec::with_capacity(sizes.len());
        self.0.resize_with(sizes.len(), || None);
        for (gradient, &size) in self.0.drain(..).zip(sizes) {
            found.push(f32::from(u8::from(gradient.is_some())));
            let own = gradient.and_then(|gradient| gradient.into_data().into_vec::<f32>().ok());
            values.extend(own.unwrap_or_else(|| vec![0.0; size]));
        }
        values.extend(found);
        all_reduce(ranks, &mut values)?;
        let (mut values, found) = values.split_at(values.len() - sizes.len());
        for (&size, &found) in sizes.iter().zip(found) {
            let (own, rest) = values.split_at(size);
            values = rest;
            let gradient = || Tensor::from_data(TensorData::new(own.to_vec(), [size]), device);
            self.0.push((found > 0.0).then(gradient));
        }
        Ok(())
    }

    /// Returns the length of all of them as one vector.
    fn norm(&self) -> f32 {
        let squares = self.0.iter().flatten().map(|gradient| {
            let sum = gradient.clone().powi_scalar(2).sum().into_data().to_vec::<f32>();
            f64::from(sum.map_or(f32::NAN, |values| values[0]))
        });
        squares.sum::<f64>().sqrt() as f32
    }
}

impl<B: DenseBackend> DenseSteps<B> {
    /// Begins with an empty memory.
    pub fn new(optimizer: DenseOptimizer, weight_decay: f64, clip_norm: f64) -> Self {
        Self {
            optimizer,
            weight_decay: weight_decay as f32,
            clip_norm: clip_norm as f32,
            steps: 0,
            states: Vec::new(),
        }
    }

    /// Gives away what is remembered, one or two arrays a parameter that has been stepped, and how many steps there were.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for a copy.
    pub fn take(&mut self) -> Result<(Parameters, u64)> {
        let mut taken = Parameters::default();
        for (at, state) in std::mem::take(&mut self.states).into_iter().enumerate() {
            for (which, values) in [(FIRST, state.first), (SECOND, state.second)] {
                let Some(values) = values else { continue };
                let values = values.into_data().into_vec::<f32>().unwrap_or_default();
                let values = Buffer::from_vec(values, "an optimizer's state")?;
                taken.insert(&format!("{which}_{at}"), Parameter::F32(values));
            }
        }
        Ok((taken, self.steps))
    }

    /// Takes back what [`DenseSteps::take`] gave, for a network of `n` parameters.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when there is no memory for a copy.
    pub fn put(&mut self, mut taken: Parameters, steps: u64, n: usize, device: &B::Device) -> Result<()> {
        let mut values = |which: &str, at: usize| -> Result<Option<Tensor<B, 1>>> {
            let Ok(values) = taken.take_dense(&format!("{which}_{at}")) else { return Ok(None) };
            let values = values.to_vec()?;
            let n = values.len();
            Ok(Some(Tensor::from_data(TensorData::new(values, [n]), device)))
        };
        self.states = (0..n)
            .map(|at| Ok(OptimizerState { first: values(FIRST, at)?, second: values(SECOND, at)? }))
            .collect::<Result<_>>()?;
        self.steps = steps;
        Ok(())
    }

    /// Steps every parameter of `network` that has a gradient.
    pub fn step<M>(&mut self, network: M, gradients: DenseGradients<B>, learning_rate: f64) -> M
    where
        M: Module<Autodiff<B>>,
    {
        self.steps += 1;
        let mut scale = 1.0;
        if self.clip_norm > 0.0 {
            let norm = gradients.norm();
            if norm > self.clip_norm {
                scale = self.clip_norm / norm;
            }
        }
        let rule = DenseRule {
            optimizer: self.optimizer,
            learning_rate: learning_rate as f32,
            weight_decay: self.weight_decay,
            step: self.steps,
            gradient_scale: scale,
        };
        self.states.resize_with(gradients.0.len(), OptimizerState::default);
        let mut stepper =
            Stepper { rule, gradients: gradients.0.into_iter(), states: self.states.iter_mut() };
        network.map(&mut stepper)
    }
}

struct Reader<'a, B: DenseBackend> {
    gradients: &'a <Autodiff<B> as AutodiffBackend>::Gradients,
    found: Vec<Option<Tensor<B, 1>>>,
}

impl<B: DenseBackend> ModuleVisitor<Autodiff<B>> for Reader<'_, B> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<Autodiff<B>, D>>) {
        let flat = |gradient: Tensor<B, D>| {
            let n = gradient.shape().num_elements();
            gradient.reshape([n])
        };
        self.found.push(param.val().grad(self.gradients).map(flat));
    }
}

struct Stepper<'a, B: DenseBackend> {
    rule: DenseRule,
    gradients: std::vec::IntoIter<Option<Tensor<B, 1>>>,
    states: std::slice::IterMut<'a, OptimizerState<B>>,
}

impl<B: DenseBackend> ModuleMapper<Autodiff<B>> for Stepper<'_, B> {
    fn map_float<const D: usize>(
        &mut self,
        param: Param<Tensor<Autodiff<B>, D>>,
    ) -> Param<Tensor<Autodiff<B>, D>> {
        let (Some(gradient), Some(state)) = (self.gradients.next(), self.states.next()) else { return param };
        let Some(gradient) = gradient else { return param };
        let (id, tensor, mapper) = param.consume();
        let shape: [usize; D] = tensor.dims();
        let n: usize = shape.iter().product();
        let stepped = state.step(tensor.inner().reshape([n]), gradient, &self.rule);
        let tensor = Tensor::from_inner(stepped.reshape(shape)).require_grad();
        Param::from_mapped_value(id, tensor, mapper)
    }
}
