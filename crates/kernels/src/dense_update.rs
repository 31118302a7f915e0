//! One step of an optimizer on a run of numbers, all of them: the dense part of a model, on the CPU.
//!
//! ```text
//! w -= η λ' w                            g = scale x gradient + λ w
//!
//! SGD       w -= η g
//! Adagrad   a += g²                      w -= η g / (√(a₀ + a) + ε)
//! Adam      m = β₁ m + (1 - β₁) g        v = β₂ v + (1 - β₂) g²
//!           w -= η m̂ / (√v̂ + ε)          m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)
//! ```
//!
//! | name         | shape  | type | constraint                                       |
//! |--------------|--------|------|--------------------------------------------------|
//! | `parameters` | `[n]`  | f32  |                                                  |
//! | `gradient`   | `[n]`  | f32  |                                                  |
//! | `state`      | `[n]`  | f32  | none for SGD, `a` for Adagrad, `m`, `v` for Adam |
//!
//! The formulas are those of [`crate::sparse_update()`], so that a table and the layers behind it learn alike; `λ` pulls through
//! the gradient, `λ'` apart from it (AdamW).
//!
//! # Cost
//! One pass, memory-bound: 12 bytes a value for SGD, 20 for Adagrad, 28 for Adam.
//!
//! # Determinism
//! The same bits for any number of threads, and at every vector level.
//!
//! NaN and infinity in a gradient go into the parameter and its state: a loss that is not finite is to be found before.
//!
//! # Source
//! Duchi, Hazan, Singer 2011 (Adagrad, diagonal); Kingma, Ba 2015, algorithm 1 (Adam); Loshchilov, Hutter 2019 (AdamW).

use rayon::prelude::*;

use crate::{
    Error, Result,
    simd::{self, Kernel, Simd, dispatch},
};

const OP: &str = "dense_update";
/// Values that one task steps.
const TASK_VALUES: usize = 1 << 13;

/// Which optimizer, with what stays the same in a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DenseOptimizer {
    /// Plain steps; no state.
    Sgd,
    /// A step size for each value; commonly `initial` 0, `epsilon` 1e-8.
    Adagrad {
        /// `a₀`.
        initial: f32,
        /// `ε`.
        epsilon: f32,
    },
    /// Commonly 0.9, 0.999, 1e-8.
    Adam {
        /// `β₁`.
        beta1: f32,
        /// `β₂`.
        beta2: f32,
        /// `ε`.
        epsilon: f32,
    },
}

/// What may differ from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DenseStep {
    /// `η`.
    pub learning_rate: f32,
    /// `λ`, the weight of L2; 0 for none.
    pub l2: f32,
    /// `λ'`, weight decay apart from the gradient; 0 for none.
    pub decay: f32,
    /// What the gradient is multiplied by first, such as to clip it.
    pub gradient_scale: f32,
    /// `t`: which step this is, from 1.
    pub t: u64,
}

impl DenseStep {
    /// The `t`-th step, of this size, with no decay and the gradient as it is.
    pub fn new(learning_rate: f32, t: u64) -> Self {
        Self { learning_rate, l2: 0.0, decay: 0.0, gradient_scale: 1.0, t }
    }
}

impl DenseOptimizer {
    /// Returns how many numbers the optimizer keeps of each parameter.
    pub fn states(self) -> usize {
        match self {
            DenseOptimizer::Sgd => 0,
            DenseOptimizer::Adagrad { .. } => 1,
            DenseOptimizer::Adam { .. } => 2,
        }
    }

    fn check(self) -> Result<()> {
        let positive = |what, value: f32| within(what, value, "finite and above 0", value > 0.0);
        let beta =
            |what, value: f32| within(what, value, "at least 0 and below 1", (0.0..1.0).contains(&value));
        match self {
            DenseOptimizer::Sgd => Ok(()),
            DenseOptimizer::Adagrad { initial, epsilon } => {
                within("initial", initial, "finite and at least 0", initial >= 0.0)?;
                positive("epsilon", epsilon)
            }
            DenseOptimizer::Adam { beta1, beta2, epsilon } => {
                beta("beta1", beta1)?;
                beta("beta2", beta2)?;
                positive("epsilon", epsilon)
            }
        }
    }
}

fn within(what: &'static str, value: f32, expected: &'static str, fits: bool) -> Result<()> {
    match fits && value.is_finite() {
        true => Ok(()),
        false => Err(Error::Parameter { op: OP, what, expected, got: value.into() }),
    }
}

fn same_len(what: &'static str, expected: usize, got: usize) -> Result<()> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::Shape { op: OP, what, expected, got }),
    }
}

/// Takes one step of `optimizer` on all of `parameters`; `state` is what it keeps of them, zeros before the first step.
///
/// # Errors
/// [`Error::Shape`] for a gradient or a state of another length, or another number of states; [`Error::Parameter`] for numbers
/// that the optimizer does not work with. Nothing has been changed then.
pub fn dense_update(
    optimizer: DenseOptimizer,
    parameters: &mut [f32],
    state: &mut [&mut [f32]],
    gradient: &[f32],
    step: &DenseStep,
) -> Result<()> {
    optimizer.check()?;
    let n = parameters.len();
    same_len("gradient", n, gradient.len())?;
    same_len("states", optimizer.states(), state.len())?;
    for values in &*state {
        same_len("state", n, values.len())?;
    }
    for (what, value) in [("learning_rate", step.learning_rate), ("l2", step.l2), ("decay", step.decay)] {
        within(what, value, "finite and at least 0", value >= 0.0)?;
    }
    let (level, step) = (simd::level(), *step);
    let tasks = parameters.par_chunks_mut(TASK_VALUES).zip(gradient.par_chunks(TASK_VALUES));
    match (optimizer, state) {
        (DenseOptimizer::Adagrad { initial, epsilon }, [squares]) => {
            tasks.zip(squares.par_chunks_mut(TASK_VALUES)).for_each(|((parameters, gradient), squares)| {
                dispatch(level, Adagrad { parameters, gradient, squares, step, initial, epsilon });
            });
        }
        (DenseOptimizer::Adam { beta1, beta2, epsilon }, [mean, square]) => {
            let scale = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(step.t as f64))) as f32;
            let (betas, scales) = ([beta1, beta2], [scale(beta1), scale(beta2)]);
            let moments = mean.par_chunks_mut(TASK_VALUES).zip(square.par_chunks_mut(TASK_VALUES));
            tasks.zip(moments).for_each(|((parameters, gradient), (mean, square))| {
                dispatch(level, Adam { parameters, gradient, mean, square, step, betas, scales, epsilon });
            });
        }
        _ => tasks.for_each(|(parameters, gradient)| dispatch(level, Sgd { parameters, gradient, step })),
    }
    Ok(())
}

impl DenseStep {
    /// Returns the gradient with decay and scale, and takes the decay that is apart.
    #[inline(always)]
    fn gradient(&self, w: &mut f32, gradient: f32) -> f32 {
        *w *= 1.0 - self.learning_rate * self.decay;
        self.gradient_scale * gradient + self.l2 * *w
    }
}

struct Sgd<'a> {
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    step: DenseStep,
}

impl Kernel for Sgd<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (w, g) in self.parameters.iter_mut().zip(self.gradient) {
            *w -= self.step.learning_rate * self.step.gradient(w, *g);
        }
    }
}

struct Adagrad<'a> {
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    squares: &'a mut [f32],
    step: DenseStep,
    initial: f32,
    epsilon: f32,
}

impl Kernel for Adagrad<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for ((w, g), a) in self.parameters.iter_mut().zip(self.gradient).zip(self.squares) {
            let g = self.step.gradient(w, *g);
            *a += g * g;
            *w -= self.step.learning_rate * g / ((self.initial + *a).sqrt() + self.epsilon);
        }
    }
}

struct Adam<'a> {
    parameters: &'a mut [f32],
    gradient: &'a [f32],
    mean: &'a mut [f32],
    square: &'a mut [f32],
    step: DenseStep,
    betas: [f32; 2],
    /// `1 / (1 - βᵗ)`.
    scales: [f32; 2],
    epsilon: f32,
}

impl Kernel for Adam<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let ([beta1, beta2], [scale1, scale2]) = (self.betas, self.scales);
        let moments = self.mean.iter_mut().zip(self.square);
        for ((w, g), (m, v)) in self.parameters.iter_mut().zip(self.gradient).zip(moments) {
            let g = self.step.gradient(w, *g);
            *m = beta1 * *m + (1.0 - beta1) * g;
            *v = beta2 * *v + (1.0 - beta2) * (g * g);
            *w -= self.step.learning_rate * (scale1 * *m) / ((scale2 * *v).sqrt() + self.epsilon);
        }
    }
}

/// The definition of [`dense_update`], in f64.
pub fn dense_update_reference(
    optimizer: DenseOptimizer,
    parameters: &mut [f64],
    state: &mut [Vec<f64>],
    gradient: &[f32],
    step: &DenseStep,
) {
    let [rate, l2, decay, scale] =
        [step.learning_rate, step.l2, step.decay, step.gradient_scale].map(f64::from);
    for (at, w) in parameters.iter_mut().enumerate() {
        *w -= rate * decay * *w;
        let g = scale * f64::from(gradient[at]) + l2 * *w;
        *w -= match optimizer {
            DenseOptimizer::Sgd => rate * g,
            DenseOptimizer::Adagrad { initial, epsilon } => {
                state[0][at] += g * g;
                rate * g / ((f64::from(initial) + state[0][at]).sqrt() + f64::from(epsilon))
            }
            DenseOptimizer::Adam { beta1, beta2, epsilon } => {
                let (beta1, beta2) = (f64::from(beta1), f64::from(beta2));
                state[0][at] = beta1 * state[0][at] + (1.0 - beta1) * g;
                state[1][at] = beta2 * state[1][at] + (1.0 - beta2) * g * g;
                let unbiased = |moment: f64, beta: f64| moment / (1.0 - beta.powf(step.t as f64));
                rate * unbiased(state[0][at], beta1)
                    / (unbiased(state[1][at], beta2).sqrt() + f64::from(epsilon))
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Comparison, Numbers, on_threads, same_bits};

    const OPTIMIZERS: [DenseOptimizer; 4] = [
        DenseOptimizer::Sgd,
        DenseOptimizer::Adagrad { initial: 0.0, epsilon: 1e-8 },
        DenseOptimizer::Adagrad { initial: 0.25, epsilon: 1e-6 },
        DenseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 },
    ];

    /// Zeros for an optimizer to begin with.
    fn states(optimizer: DenseOptimizer, n: usize) -> Vec<Vec<f32>> {
        vec![vec![0.0; n]; optimizer.states()]
    }

    fn update(
        optimizer: DenseOptimizer,
        w: &mut [f32],
        state: &mut [Vec<f32>],
        g: &[f32],
        step: DenseStep,
    ) -> Result<()> {
        let mut state: Vec<&mut [f32]> = state.iter_mut().map(Vec::as_mut_slice).collect();
        dense_update(optimizer, w, &mut state, g, &step)
    }

    #[test]
    fn first_steps_by_hand() {
        // The first step of Adagrad from nothing, and of Adam, is the learning rate in the gradient's direction.
        let expected = [[0.0, 1.5], [0.5, 0.5], [0.0; 2], [0.5, 0.5]];
        for (optimizer, expected) in OPTIMIZERS.into_iter().zip(expected) {
            let mut w = [1.0, 0.0];
            update(optimizer, &mut w, &mut states(optimizer, 2), &[2.0, -3.0], DenseStep::new(0.5, 1))
                .unwrap();
            let expected = if optimizer == OPTIMIZERS[2] {
                // 1 - 0.5 · 2 / √4.25 and 0.5 · 3 / √9.25
                [1.0 - 1.0 / 4.25f32.sqrt(), 1.5 / 9.25f32.sqrt()]
            } else {
                expected
            };
            for (w, expected) in w.iter().zip(expected) {
                assert!((w - expected).abs() < 2e-6, "{optimizer:?}: {w}, expected {expected}");
            }
        }
        let of_one = |step| {
            let mut w = [1.0];
            update(DenseOptimizer::Sgd, &mut w, &mut [], &[2.0], step).unwrap();
            w[0]
        };
        let step = DenseStep::new(0.25, 1);
        // 1 - 0.25 (2 + 2 · 1); 1 - 0.25 · 2 · 1 - 0.25 · 2; 1 - 0.25 · 0.5 · 2.
        assert_eq!(of_one(DenseStep { l2: 2.0, ..step }), 0.0);
        assert_eq!(of_one(DenseStep { decay: 2.0, ..step }), 0.0);
        assert_eq!(of_one(DenseStep { gradient_scale: 0.5, ..step }), 0.75);
    }

    #[test]
    fn ten_steps_agree_with_the_reference_at_every_level_for_any_threads() {
        for optimizer in OPTIMIZERS {
            for n in [0, 1, 31, 32, 33, 2 * TASK_VALUES + 5] {
                let begin: Vec<f32> = {
                    let mut numbers = Numbers::new(n as u64);
                    (0..n).map(|_| numbers.unit()).collect()
                };
                let step =
                    |t| DenseStep { l2: 0.01, decay: 0.02, gradient_scale: 0.7, ..DenseStep::new(0.1, t) };
                let gradient = |t: u64| -> Vec<f32> {
                    let mut numbers = Numbers::new(1000 + t);
                    (0..n).map(|_| numbers.unit()).collect()
                };
                let mut exact: Vec<f64> = begin.iter().map(|&w| w.into()).collect();
                let mut state = vec![vec![0.0; n]; 2];
                (1..=10).for_each(|t| {
                    dense_update_reference(optimizer, &mut exact, &mut state, &gradient(t), &step(t));
                });
                let run = |level| {
                    simd::with_level(level, || {
                        let (mut w, mut state) = (begin.clone(), states(optimizer, n));
                        for t in 1..=10 {
                            update(optimizer, &mut w, &mut state, &gradient(t), step(t)).unwrap();
                        }
                        w
                    })
                };
                let first = run(simd::Level::Portable);
                let what = || format!("{optimizer:?}, {n}");
                Comparison::default().close_above(what, &first, &exact, 1.0, 1e-5).unwrap();
                for level in simd::levels() {
                    same_bits(what, &on_threads(3, || run(level)), &first).unwrap();
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut state = states(OPTIMIZERS[1], 2);
        let mut w = [0.5; 3];
        let step = DenseStep::new(0.1, 1);
        let error = update(OPTIMIZERS[1], &mut w[..2], &mut state, &[1.0; 3], step).unwrap_err();
        assert_eq!(error, Error::Shape { op: OP, what: "gradient", expected: 2, got: 3 });
        let error = update(OPTIMIZERS[1], &mut w, &mut state, &[1.0; 3], step).unwrap_err();
        assert_eq!(error, Error::Shape { op: OP, what: "state", expected: 3, got: 2 });
        let error = update(OPTIMIZERS[3], &mut w[..2], &mut state, &[1.0; 2], step).unwrap_err();
        assert_eq!(error, Error::Shape { op: OP, what: "states", expected: 2, got: 1 });
        let error = update(OPTIMIZERS[1], &mut w[..2], &mut state, &[1.0; 2], DenseStep::new(-1.0, 1));
        assert!(matches!(error, Err(Error::Parameter { what: "learning_rate", .. })));
        let adam = DenseOptimizer::Adam { beta1: 1.0, beta2: 0.9, epsilon: 1e-8 };
        let error = update(adam, &mut w[..2], &mut states(adam, 2), &[1.0; 2], step);
        assert!(matches!(error, Err(Error::Parameter { what: "beta1", .. })));
        assert_eq!((w, state), ([0.5; 3], states(OPTIMIZERS[1], 2)));
    }
}
