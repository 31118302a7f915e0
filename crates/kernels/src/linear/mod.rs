//! A dense layer on the CPU, product, bias and activation in one, forward and backward.
//!
//! ```text
//! y  = act(x W + b)              act: identity, or the larger of 0 and the sum
//! dz = dy where y > 0, else 0    (identity: dy)
//! dW = xᵗ dz      db = Σ_rows dz      dx = dz Wᵗ
//! ```
//!
//! # Layout
//!
//! | name           | shape               | type | constraint                                          |
//! |----------------|---------------------|------|-----------------------------------------------------|
//! | `x`, `dx`      | `[batch, inputs]`   | f32  | row-major; as many rows as `x` has                  |
//! | `weight`, `dW` | `[inputs, outputs]` | f32  | row-major, as burn's `Linear` keeps it              |
//! | `bias`, `db`   | `[outputs]`         | f32  | may be left out                                     |
//! | `y`, `dy`      | `[batch, outputs]`  | f32  | `dy` becomes `dz`, in place                         |
//!
//! GPUs have products of their own; this is for the memory of a CPU backend that somebody else owns, so it takes slices.
//!
//! # How
//! A tile of 6 rows by two vectors (12 by two with 512-bit vectors) of the result stays in registers while it goes down the
//! inner dimension, 256 at a time at most. The right operand is copied into panels as wide as a tile (from 32
//! rows of a batch on), the left one is read as it lies where its rows are rows, else in panels, too. Bias and activation are applied when a tile is written
//! for the last time. dW sums over the batch: every 512 rows (or a sixteenth of the batch) are a sum of their own, and the
//! sums are added in order.
//!
//! # Cost
//! `2 batch inputs outputs` operations forward, twice that backward. Working memory ([`LinearScratch`]) of a copy of `W`
//! forward, and backward of the partial sums of dW: up to 16, 64 MiB at most.
//!
//! # Determinism
//! The same bits for any number of threads, with the same [`Products`]. A row of `y` and of `dx` has the same bits alone and in any batch: each value is
//! one chain of multiply-adds a block of the inner dimension, and how it is cut follows from the layer alone.
//!
//! NaN and infinity go through to what depends on them; a unit whose `y` is NaN passes no gradient.
//!
//! # Source
//! Goto, van de Geijn 2008, "Anatomy of high-performance matrix multiplication", for the blocks.

mod gradient;
mod panels;
mod product;
#[cfg(test)]
mod tests;
mod tile;

use crate::{
    Error, Result,
    scratch::{Pool, Scratch},
    simd::{self, Level},
};
use panels::{Matrix, Panels};
use product::{Finish, product, product_of_pairs};

const OP: &str = "linear";
/// Rows of a batch from which on the weight is copied: before, a copy costs more than it saves.
const COPIED_ROWS: usize = 32;

/// What a layer does to its sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// Nothing.
    Identity,
    /// The larger of 0 and the sum; NaN stays NaN.
    Relu,
}

/// What the factors of a layer's products are rounded to; sums are f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Products {
    /// Not at all.
    #[default]
    F32,
    /// To the nearest bf16: 8 bits of each factor count. Twice as fast where [`crate::simd::has_bf16_products`], slower than f32
    /// elsewhere.
    Bf16,
}

/// A dense layer's parameters.
#[derive(Clone, Copy, Debug)]
pub struct Linear<'a> {
    /// Columns of `x`.
    pub inputs: usize,
    /// Columns of `y`.
    pub outputs: usize,
    /// `[inputs, outputs]`.
    pub weight: &'a [f32],
    /// `[outputs]`.
    pub bias: Option<&'a [f32]>,
    /// What is done to the sums.
    pub activation: Activation,
    /// What products are made of; the sum of the bias's gradient has none.
    pub products: Products,
}

/// Where [`linear_backward`] writes; all of it is overwritten.
#[derive(Debug)]
pub struct LinearGradients<'a> {
    /// `[inputs, outputs]`.
    pub weight: &'a mut [f32],
    /// `[outputs]`.
    pub bias: Option<&'a mut [f32]>,
    /// `[batch, inputs]`; left out where nothing before the layer learns.
    pub x: Option<&'a mut [f32]>,
}

/// Working memory that layers may share and a training keeps: it grows to the largest need and stays.
#[derive(Default)]
pub struct LinearScratch {
    panels: Option<Scratch>,
    sums: Option<Scratch>,
    bias: Vec<f32>,
    blocks: Pool<Scratch>,
    /// Rows as pairs.
    rows: Pool<Scratch>,
}

impl std::fmt::Debug for LinearScratch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lens =
            [&self.panels, &self.sums].map(|scratch| scratch.as_ref().map_or(0, |scratch| scratch.len()));
        write!(f, "LinearScratch[{} + {} values]", lens[0], lens[1])
    }
}

/// The first `len` values of `kept`, which grows where it is shorter.
fn grown(kept: &mut Option<Scratch>, len: usize) -> Result<&mut [f32]> {
    if kept.as_ref().is_none_or(|scratch| scratch.len() < len) {
        // The old one goes first: its bytes may be needed.
        *kept = None;
        *kept = Some(Scratch::new(len)?);
    }
    Ok(kept.as_mut().map_or(&mut [][..], |scratch| &mut scratch[..len]))
}

impl Linear<'_> {
    /// Returns the rows of `x`.
    fn check(&self, x: &[f32], y: usize) -> Result<usize> {
        for (what, value) in [("inputs", self.inputs), ("outputs", self.outputs)] {
            if value == 0 {
                return Err(Error::Parameter { op: OP, what, expected: "at least 1", got: 0.0 });
            }
        }
        let batch = x.len() / self.inputs;
        same_len("x", batch * self.inputs, x.len())?;
        same_len("weight", self.inputs.saturating_mul(self.outputs), self.weight.len())?;
        same_len("bias", self.outputs, self.bias.map_or(self.outputs, <[f32]>::len))?;
        same_len("y", batch.saturating_mul(self.outputs), y)?;
        Ok(batch)
    }

    /// The level that all of the layer's operands are packed for.
    fn level(&self) -> Level {
        match self.products {
            Products::F32 => simd::level(),
            Products::Bf16 => simd::level_of_pairs(simd::level()),
        }
    }

    /// `W`, and its transpose.
    fn matrices(&self) -> [Matrix<'_>; 2] {
        let (values, outputs) = (self.weight, self.outputs);
        [
            Matrix { values, rows: self.inputs, columns: outputs, row: outputs, column: 1 },
            Matrix { values, rows: outputs, columns: self.inputs, row: 1, column: outputs },
        ]
    }
}

fn same_len(what: &'static str, expected: usize, got: usize) -> Result<()> {
    match expected == got {
        true => Ok(()),
        false => Err(Error::Shape { op: OP, what, expected, got }),
    }
}

/// Writes `act(x W + b)` to `y`.
///
/// # Shapes
/// - `x`: `[batch, inputs]`; `y`: `[batch, outputs]`
///
/// # Errors
/// [`Error::Parameter`] for a layer without inputs or outputs; [`Error::Shape`]; [`Error::OutOfMemory`] for working memory.
///
/// # Determinism
/// A row has the same bits alone and in any batch, for any number of threads.
pub fn linear(layer: &Linear<'_>, x: &[f32], y: &mut [f32], scratch: &mut LinearScratch) -> Result<()> {
    let batch = layer.check(x, y.len())?;
    let (level, [weight, _]) = (layer.level(), layer.matrices());
    let finish = Finish { bias: layer.bias, relu: layer.activation == Activation::Relu };
    if layer.products == Products::Bf16 {
        let panels = Panels::copied_pairs(level, weight, &mut scratch.panels)?;
        return product_of_pairs(level, x, layer.inputs, &panels, y, finish, &scratch.rows);
    }
    let panels = match batch {
        ..COPIED_ROWS => Panels::in_place(level, weight, &mut scratch.panels)?,
        _ => Panels::copied(level, weight, &mut scratch.panels)?,
    };
    product(level, x, &panels, y, finish, &mut scratch.bias);
    Ok(())
}

/// Writes the gradients of a layer's parameters and of its `x`, and makes `gradient` that of the sums.
///
/// # Shapes
/// - `x`: `[batch, inputs]`; `y`, what [`linear`] gave, and `gradient`, that of `y`: `[batch, outputs]`
///
/// # Errors
/// As [`linear`]; `gradient` is unchanged then, but for [`Error::OutOfMemory`].
///
/// # Determinism
/// The same bits for any number of threads; a row of the gradient of `x` also alone and in any batch.
pub fn linear_backward(
    layer: &Linear<'_>,
    x: &[f32],
    y: &[f32],
    gradient: &mut [f32],
    into: LinearGradients<'_>,
    scratch: &mut LinearScratch,
) -> Result<()> {
    let batch = layer.check(x, y.len())?;
    same_len("gradient", y.len(), gradient.len())?;
    same_len("gradient of weight", layer.weight.len(), into.weight.len())?;
    same_len("gradient of bias", layer.outputs, into.bias.as_ref().map_or(layer.outputs, |bias| bias.len()))?;
    same_len("gradient of x", x.len(), into.x.as_ref().map_or(x.len(), |x| x.len()))?;
    let (level, [_, transposed]) = (layer.level(), layer.matrices());
    gradient::of_sums(level, layer, y, gradient, into.bias, &mut scratch.sums)?;
    let left = Matrix { values: x, rows: layer.inputs, columns: batch, row: 1, column: layer.inputs };
    let right =
        Matrix { values: gradient, rows: batch, columns: layer.outputs, row: layer.outputs, column: 1 };
    let (sums, blocks) = (&mut scratch.sums, &scratch.blocks);
    gradient::of_weight(level, left, right, into.weight, layer.products, sums, blocks)?;
    if let Some(of_x) = into.x {
        if layer.products == Products::Bf16 {
            let panels = Panels::copied_pairs(level, transposed, &mut scratch.panels)?;
            let finish = Finish { bias: None, relu: false };
            return product_of_pairs(level, gradient, layer.outputs, &panels, of_x, finish, &scratch.rows);
        }
        let panels = Panels::copied(level, transposed, &mut scratch.panels)?;
        let finish = Finish { bias: None, relu: false };
        product(level, gradient, &panels, of_x, finish, &mut scratch.bias);
    }
    Ok(())
}

/// The definition of [`linear`]: naive, in f64.
pub fn linear_reference(layer: &Linear<'_>, x: &[f32]) -> Vec<f64> {
    let mut y = Vec::new();
    for x in x.chunks_exact(layer.inputs) {
        for j in 0..layer.outputs {
            let products =
                (0..layer.inputs).map(|i| f64::from(x[i]) * f64::from(layer.weight[i * layer.outputs + j]));
            let sum = products.sum::<f64>() + layer.bias.map_or(0.0, |bias| bias[j].into());
            y.push(match layer.activation {
                Activation::Identity => sum,
                Activation::Relu => sum.max(0.0),
            });
        }
    }
    y
}

/// The definition of [`linear_backward`]: the gradients of weight, bias and `x`.
pub fn linear_backward_reference(
    layer: &Linear<'_>,
    x: &[f32],
    y: &[f32],
    gradient: &[f32],
) -> [Vec<f64>; 3] {
    let (inputs, outputs) = (layer.inputs, layer.outputs);
    let mut of_weight = vec![0.0; inputs * outputs];
    let (mut of_bias, mut of_x) = (vec![0.0; outputs], vec![0.0; x.len()]);
    for row in 0..x.len() / inputs {
        for j in 0..outputs {
            let at = row * outputs + j;
            let passes = layer.activation == Activation::Identity || y[at] > 0.0;
            if !passes {
                continue;
            }
            let dz = f64::from(gradient[at]);
            of_bias[j] += dz;
            for i in 0..inputs {
                of_weight[i * outputs + j] += dz * f64::from(x[row * inputs + i]);
                of_x[row * inputs + i] += dz * f64::from(layer.weight[i * outputs + j]);
            }
        }
    }
    [of_weight, of_bias, of_x]
}
