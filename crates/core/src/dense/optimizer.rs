//! The steps of dense parameters.
//!
//! ```text
//! g = scale x gradient + λ w                                   (AdamW: λ apart, w -= η λ w)
//! SGD      w -= η g
//! Adagrad  a += g²                      w -= η g / (√a + 1e-10)
//! Adam     m = .9 m + .1 g              v = .999 v + .001 g²       w -= η m̂ / (√v̂ + 1e-8)
//! ```
//!
//! Source: Duchi, Hazan, Singer 2011; Kingma, Ba 2015; Loshchilov, Hutter 2019 (AdamW). Constants as in PyTorch.

use burn::tensor::Tensor;
use recmill_kernels::DenseStep;

use super::DenseBackend;
use crate::rankers::DenseOptimizer;

const BETA1: f32 = 0.9;
const BETA2: f32 = 0.999;
const ADAM_EPSILON: f32 = 1e-8;
const ADAGRAD_EPSILON: f32 = 1e-10;

/// One step's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseRule {
    /// Which formula.
    pub optimizer: DenseOptimizer,
    /// `η`.
    pub learning_rate: f32,
    /// `λ`.
    pub weight_decay: f32,
    /// The step, from 1.
    pub step: u64,
    /// What gradients are multiplied by first.
    pub gradient_scale: f32,
}

impl DenseRule {
    /// Returns the rule as our kernel takes it.
    pub(super) fn kernel(&self) -> (recmill_kernels::DenseOptimizer, DenseStep) {
        let optimizer = match self.optimizer {
            DenseOptimizer::Sgd => recmill_kernels::DenseOptimizer::Sgd,
            DenseOptimizer::Adagrad => {
                recmill_kernels::DenseOptimizer::Adagrad { initial: 0.0, epsilon: ADAGRAD_EPSILON }
            }
            DenseOptimizer::Adam | DenseOptimizer::Adamw => {
                recmill_kernels::DenseOptimizer::Adam { beta1: BETA1, beta2: BETA2, epsilon: ADAM_EPSILON }
            }
        };
        let apart = self.optimizer == DenseOptimizer::Adamw;
        let step = DenseStep {
            l2: if apart { 0.0 } else { self.weight_decay },
            decay: if apart { self.weight_decay } else { 0.0 },
            gradient_scale: self.gradient_scale,
            ..DenseStep::new(self.learning_rate, self.step)
        };
        (optimizer, step)
    }

    /// Returns what Adam's means are multiplied by to be unbiased.
    fn adam_scales(&self) -> [f32; 2] {
        [BETA1, BETA2].map(|beta| (1.0 / (1.0 - f64::from(beta).powf(self.step as f64))) as f32)
    }
}

/// What an optimizer remembers of one parameter.
#[derive(Clone, Debug)]
pub struct OptimizerState<B: DenseBackend> {
    /// Adagrad: `a`; Adam: `m`.
    pub first: Option<Tensor<B, 1>>,
    /// Adam: `v`.
    pub second: Option<Tensor<B, 1>>,
}

impl<B: DenseBackend> Default for OptimizerState<B> {
    fn default() -> Self {
        Self { first: None, second: None }
    }
}

impl<B: DenseBackend> OptimizerState<B> {
    /// Returns `parameter` after one step.
    pub fn step(
        &mut self,
        parameter: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        rule: &DenseRule,
    ) -> Tensor<B, 1> {
        B::optimizer_step(parameter, gradient, self, rule)
    }

    /// The definition of [`DenseBackend::optimizer_step`], out of burn's operations.
    pub(super) fn step_by_definition(
        &mut self,
        mut parameter: Tensor<B, 1>,
        gradient: Tensor<B, 1>,
        rule: &DenseRule,
    ) -> Tensor<B, 1> {
        let rate = rule.learning_rate;
        let mut g = gradient.mul_scalar(rule.gradient_scale);
        if rule.optimizer == DenseOptimizer::Adamw {
            parameter = parameter.mul_scalar(1.0 - rate * rule.weight_decay);
        } else if rule.weight_decay > 0.0 {
            g = g + parameter.clone().mul_scalar(rule.weight_decay);
        }
        let step = match rule.optimizer {
            DenseOptimizer::Sgd => g.mul_scalar(rate),
            DenseOptimizer::Adagrad => {
                let a = self.first.take().unwrap_or_else(|| g.zeros_like()) + g.clone().powi_scalar(2);
                let step = g.mul_scalar(rate) / (a.clone().sqrt() + ADAGRAD_EPSILON);
                self.first = Some(a);
                step
            }
            DenseOptimizer::Adam | DenseOptimizer::Adamw => {
                let [scale1, scale2] = rule.adam_scales();
                let mean = |old: Option<Tensor<B, 1>>, new: Tensor<B, 1>, beta: f32| {
                    let old = old.unwrap_or_else(|| new.zeros_like());
                    old.mul_scalar(beta) + new.mul_scalar(1.0 - beta)
                };
                let m = mean(self.first.take(), g.clone(), BETA1);
                let v = mean(self.second.take(), g.powi_scalar(2), BETA2);
                let step = m.clone().mul_scalar(rate * scale1)
                    / (v.clone().mul_scalar(scale2).sqrt() + ADAM_EPSILON);
                (self.first, self.second) = (Some(m), Some(v));
                step
            }
        };
        parameter - step
    }
}
