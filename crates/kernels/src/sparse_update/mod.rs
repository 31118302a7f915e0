//! One step of an optimizer on the rows that a batch touched, and on no other.
//!
//! ```text
//! g = Σ gradients of the row's positions + λ w          (FTRL-proximal keeps λ inside its own formula)
//!
//! SGD                w -= η g
//! Adagrad            a += g²                            w -= η g / (√(a₀ + a) + ε)
//! row-wise Adagrad   a += mean of g² over the row       w -= η g / (√(a₀ + a) + ε)       one `a` a row
//! lazy Adam          m = β₁ m + (1 - β₁) g              v = β₂ v + (1 - β₂) g²
//!                    w -= η m̂ / (√v̂ + ε)                m̂ = m / (1 - β₁ᵗ),  v̂ = v / (1 - β₂ᵗ)
//! FTRL-proximal      z += g - (√(n + g²) - √n) / η · w  n += g²
//!                    w = 0 where |z| <= λ₁, else -(z - sign(z) λ₁) / ((β + √n) / η + λ)
//! ```
//!
//! `t` counts the steps of the table, not of the row: a row's moments stand still while it is not touched. `a` and `n`
//! begin at 0, and `a₀` is added where they are read, so that new rows need no filling.
//!
//! # Layout
//!
//! | name        | shape         | type                          | constraint                                            |
//! |-------------|---------------|-------------------------------|-------------------------------------------------------|
//! | table       | `[rows, dim]` | f32, f16, bf16                | on a GPU 16-bit rows have an even `dim`               |
//! | state       | `[rows, dim]` | f32, 0 to 2 tables            | `[rows, 1]` for row-wise Adagrad; chunks as the table |
//! | segment     | of `[n]`      | indices of the batch          | [`crate::segment()`], [`crate::Bags::segment`]        |
//! | `gradients` | `[n, dim]`    | f32, on the table's device    | of each position                                      |
//!
//! # Order of sums
//! The gradients of a row are summed before its one step, in the order of positions: 128 of them one after the other, and
//! the sums of such pieces in turn. So a row that half the batch touches is many units' work and not one's.
//!
//! # 16-bit rows
//! Read as f32, stepped in f32, rounded back by chance (`rounding`): Philox under `seed` at step, row and column. Steps
//! smaller than a rounding are kept on average, and the same on every device.
//!
//! # What is not finite
//! A value whose step would make it or its state NaN or infinite stands still (in row-wise Adagrad its whole row does, if
//! the row's mean of squares is not finite), all others are stepped, and the row is reported: on the CPU by the call itself,
//! on a GPU, which the call does not wait for, by [`SparseState::check`].
//!
//! # Cost
//! Memory-bound: `4 n dim` bytes of gradients read; each of `u` rows and its state read and written: `2 u (row bytes +
//! state bytes)`. On a GPU a unit owns a vector of 4 values of a row; one launch a chunk, and one more for the pieces
//! beyond 128 positions, which holds `n dim / 16` bytes.
//!
//! # Determinism
//! The same bits for any number of threads and chunks; no atomics but a minimum, for the row reported. CPU and GPU agree
//! to rounding (a GPU may fuse the product and the sum).
//!
//! # Source
//! Duchi, Hazan, Singer 2011 (Adagrad, diagonal); Kingma, Ba 2015, algorithm 1 (Adam); McMahan et al. 2013, "Ad click
//! prediction: a view from the trenches", algorithm 1 (FTRL-proximal); row-wise Adagrad and one step after the sum of
//! gradients ("exact"): FBGEMM.

mod cpu;
#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "gpu")]
mod cube_row_wise;
mod state;
#[cfg(test)]
mod tests;

pub use state::SparseState;

#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::{Instance, table_of};
use crate::{Buffer, Device, Error, Result, RowType, Segment, Table, buffer::on_gpu, segment_reference};

const OP: &str = "sparse_update";
/// What is reported where a step would give NaN or infinity.
const NOT_FINITE: &str = "a gradient, or what its step gives,";

/// Which optimizer, with what stays the same in a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SparseOptimizer {
    /// Plain steps; no state.
    Sgd,
    /// A step size for each value; commonly `initial` 0, `epsilon` 1e-8.
    Adagrad {
        /// `a₀`.
        initial: f32,
        /// `ε`.
        epsilon: f32,
    },
    /// A step size for each row: the state of a row is one number.
    RowWiseAdagrad {
        /// `a₀`.
        initial: f32,
        /// `ε`.
        epsilon: f32,
    },
    /// Adam on touched rows; commonly 0.9, 0.999, 1e-8.
    Adam {
        /// `β₁`.
        beta1: f32,
        /// `β₂`.
        beta2: f32,
        /// `ε`.
        epsilon: f32,
    },
    /// FTRL-proximal: weights that are worth less than `l1` are zero; commonly `beta` 1.
    Ftrl {
        /// `β`.
        beta: f32,
        /// `λ₁`.
        l1: f32,
    },
}

/// What may differ from step to step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SparseStep {
    /// `η`.
    pub learning_rate: f32,
    /// `λ`, the weight of L2; 0 for none. Touched rows alone decay.
    pub l2: f32,
    /// Seed of the rounding of 16-bit rows; not read for f32 rows.
    pub seed: u64,
}

/// A step's numbers, by the letters of the formulas.
#[derive(Clone, Copy, Debug)]
enum Rule {
    Sgd,
    Adagrad { initial: f32, epsilon: f32 },
    RowWise { initial: f32, epsilon: f32 },
    Adam { beta1: f32, beta2: f32, epsilon: f32, scale1: f32, scale2: f32 },
    Ftrl { beta: f32, l1: f32 },
}

impl Rule {
    /// The rule of step `t`, which counts from 1.
    fn of(optimizer: SparseOptimizer, t: u64) -> Self {
        match optimizer {
            SparseOptimizer::Sgd => Rule::Sgd,
            SparseOptimizer::Adagrad { initial, epsilon } => Rule::Adagrad { initial, epsilon },
            SparseOptimizer::RowWiseAdagrad { initial, epsilon } => Rule::RowWise { initial, epsilon },
            SparseOptimizer::Adam { beta1, beta2, epsilon } => {
                let scale = |beta: f32| (1.0 / (1.0 - f64::from(beta).powf(t as f64))) as f32;
                Rule::Adam { beta1, beta2, epsilon, scale1: scale(beta1), scale2: scale(beta2) }
            }
            SparseOptimizer::Ftrl { beta, l1 } => Rule::Ftrl { beta, l1 },
        }
    }
}

impl SparseOptimizer {
    /// Returns how many values are remembered of a row of `dim` values.
    pub fn state_values(self, dim: usize) -> usize {
        self.state_dims().iter().map(|state| state.of(dim)).sum()
    }

    /// Returns how many values of state each row has in each of the optimizer's tables.
    fn state_dims(self) -> &'static [StateDim] {
        match self {
            SparseOptimizer::Sgd => &[],
            SparseOptimizer::Adagrad { .. } => &[StateDim::Values],
            SparseOptimizer::RowWiseAdagrad { .. } => &[StateDim::One],
            SparseOptimizer::Adam { .. } | SparseOptimizer::Ftrl { .. } => {
                &[StateDim::Values, StateDim::Values]
            }
        }
    }

    /// # Errors
    /// [`Error::Parameter`].
    fn check(self) -> Result<()> {
        let at_least_0 = |what, value: f32| within(what, value, "finite and at least 0", value >= 0.0);
        let positive = |what, value: f32| within(what, value, "finite and above 0", value > 0.0);
        let beta =
            |what, value: f32| within(what, value, "at least 0 and below 1", (0.0..1.0).contains(&value));
        match self {
            SparseOptimizer::Sgd => Ok(()),
            SparseOptimizer::Adagrad { initial, epsilon }
            | SparseOptimizer::RowWiseAdagrad { initial, epsilon } => {
                at_least_0("initial", initial)?;
                // A gradient of zero is stepped by 0 / (0 + epsilon).
                if initial > 0.0 { at_least_0("epsilon", epsilon) } else { positive("epsilon", epsilon) }
            }
            SparseOptimizer::Adam { beta1, beta2, epsilon } => {
                beta("beta1", beta1)?;
                beta("beta2", beta2)?;
                positive("epsilon", epsilon)
            }
            SparseOptimizer::Ftrl { beta, l1 } => {
                at_least_0("beta", beta)?;
                at_least_0("l1", l1)
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

/// The dimension of a state table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StateDim {
    /// As the rows.
    Values,
    One,
}

impl StateDim {
    fn of(self, dim: usize) -> usize {
        if self == StateDim::Values { dim } else { 1 }
    }
}

/// Takes one step of `state`'s optimizer on the rows of `table` that `segment` names.
///
/// On a GPU the work is queued and not waited for.
///
/// # Shapes
/// - `table`: `[rows, dim]`; `segment`: of `n` indices below `rows`; `gradients`: `[n, dim]`, all on one device
///
/// # Errors
/// [`Error::Shape`], [`Error::MixedDevices`], [`Error::Parameter`], [`Error::RowType`] for operands that do not fit, and
/// then nothing is changed; [`Error::NotOnDevice`] for mapped rows. [`Error::NotFinite`] with the first row, on the CPU:
/// see the file's head for what has been changed then.
///
/// # Determinism
/// The same bits for any number of threads and chunks.
pub fn sparse_update(
    table: &mut Table,
    state: &mut SparseState,
    segment: &Segment,
    gradients: &Buffer<f32>,
    step: &SparseStep,
) -> Result<()> {
    let dim = table.dim();
    state.check_table(table)?;
    if segment.device() != table.device() || gradients.device() != table.device() {
        return Err(Error::MixedDevices { op: OP });
    }
    if segment.bound() > table.rows() {
        let expected = "of indices below the table's rows";
        return Err(Error::Parameter { op: OP, what: "segment", expected, got: segment.bound() as f64 });
    }
    let expected = segment.n().saturating_mul(dim);
    if gradients.len() != expected {
        return Err(Error::Shape { op: OP, what: "gradients", expected, got: gradients.len() });
    }
    if table.row_type() == RowType::Int8 {
        let (expected, got) = (RowType::F32, RowType::Int8);
        return Err(Error::RowType { op: OP, what: "table", expected, got });
    }
    within("learning_rate", step.learning_rate, "finite and above 0", step.learning_rate > 0.0)?;
    within("l2", step.l2, "finite and at least 0", step.l2 >= 0.0)?;
    let rule = Rule::of(state.optimizer(), state.steps() + 1);
    match table.device() {
        Device::Cpu => cpu::update(table, state, segment, gradients, step, rule),
        device => on_gpu!(OP, device, R => cube::update::<R>(table, state, segment, gradients, step, rule)),
    }
}

/// The definition of [`sparse_update`]: the rows and each state table afterwards; naive, in f64, without rounding rows.
///
/// # Errors
/// [`Error::DeviceLost`] when what is on a GPU cannot be read.
pub fn sparse_update_reference(
    table: &Table,
    state: &SparseState,
    indices: &[u32],
    gradients: &[f32],
    step: &SparseStep,
) -> Result<(Vec<f64>, Vec<Vec<f64>>)> {
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<f64>>();
    let dim = table.dim();
    let mut rows = wide(table.to_f32()?);
    let mut states =
        state.tables().iter().map(|table| Ok(wide(table.to_f32()?))).collect::<Result<Vec<_>>>()?;
    let (rate, l2) = (f64::from(step.learning_rate), f64::from(step.l2));
    let t = (state.steps() + 1) as f64;
    let touched = segment_reference(indices);
    for (slot, &row) in touched.unique.iter().enumerate() {
        let mut sum = vec![0.0; dim];
        for at in touched.offsets[slot]..touched.offsets[slot + 1] {
            let gradient = &gradients[touched.positions[at as usize] as usize * dim..][..dim];
            sum.iter_mut().zip(gradient).for_each(|(sum, &g)| *sum += f64::from(g));
        }
        let values = row as usize * dim..(row as usize + 1) * dim;
        let proximal = matches!(state.optimizer(), SparseOptimizer::Ftrl { .. });
        let decay = if proximal { 0.0 } else { l2 };
        sum.iter_mut().zip(&rows[values.clone()]).for_each(|(g, w)| *g += decay * w);
        if let SparseOptimizer::RowWiseAdagrad { .. } = state.optimizer() {
            states[0][row as usize] += sum.iter().map(|g| g * g).sum::<f64>() / dim as f64;
        }
        for (at, g) in values.zip(sum) {
            let w = &mut rows[at];
            match state.optimizer() {
                SparseOptimizer::Sgd => *w -= rate * g,
                SparseOptimizer::Adagrad { initial, epsilon } => {
                    states[0][at] += g * g;
                    *w -= rate * g / ((f64::from(initial) + states[0][at]).sqrt() + f64::from(epsilon));
                }
                SparseOptimizer::RowWiseAdagrad { initial, epsilon } => {
                    let a = states[0][row as usize];
                    *w -= rate * g / ((f64::from(initial) + a).sqrt() + f64::from(epsilon));
                }
                SparseOptimizer::Adam { beta1, beta2, epsilon } => {
                    let (b1, b2) = (f64::from(beta1), f64::from(beta2));
                    states[0][at] = b1 * states[0][at] + (1.0 - b1) * g;
                    states[1][at] = b2 * states[1][at] + (1.0 - b2) * g * g;
                    let m = states[0][at] / (1.0 - b1.powf(t));
                    let v = states[1][at] / (1.0 - b2.powf(t));
                    *w -= rate * m / (v.sqrt() + f64::from(epsilon));
                }
                SparseOptimizer::Ftrl { beta, l1 } => {
                    let (n, l1) = (states[1][at], f64::from(l1));
                    states[0][at] += g - ((n + g * g).sqrt() - n.sqrt()) / rate * *w;
                    states[1][at] = n + g * g;
                    let z = states[0][at];
                    let denominator = (f64::from(beta) + states[1][at].sqrt()) / rate + l2;
                    *w = if z.abs() <= l1 { 0.0 } else { -(z - z.signum() * l1) / denominator };
                }
            }
        }
    }
    Ok((rows, states))
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    let of = |(row_type, dim, optimizer): (RowType, usize, SparseOptimizer)| {
        Instance::new(format!("sparse_update, {row_type:?}, dim {dim}, {optimizer:?}"), move |device| {
            let mut table = table_of(row_type, 1000, dim, device)?;
            let mut state = SparseState::new(optimizer, &table)?;
            // One row at more positions than a piece has.
            let indices: Vec<u32> = (0..300).map(|at| if at < 200 { 5 } else { at }).collect();
            let segment = crate::segment(&indices, 1000, device)?;
            let gradients = Buffer::zeros(indices.len() * dim, device, "an instance")?;
            let step = SparseStep { learning_rate: 0.1, l2: 0.0, seed: 1 };
            sparse_update(&mut table, &mut state, &segment, &gradients, &step)
        })
    };
    let (initial, epsilon) = (0.0, 1e-8);
    [
        (RowType::F32, 16, SparseOptimizer::Sgd),
        (RowType::F32, 128, SparseOptimizer::Adagrad { initial, epsilon }),
        (RowType::F32, 33, SparseOptimizer::RowWiseAdagrad { initial, epsilon }),
        (RowType::F16, 64, SparseOptimizer::RowWiseAdagrad { initial, epsilon }),
        (RowType::F32, 64, SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon }),
        (RowType::Bf16, 64, SparseOptimizer::Adam { beta1: 0.9, beta2: 0.999, epsilon }),
        (RowType::F32, 16, SparseOptimizer::Ftrl { beta: 1.0, l1: 0.1 }),
    ]
    .map(of)
    .into()
}
