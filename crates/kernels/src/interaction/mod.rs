//! How the fields of a row act on one another in deep rankers: factorization machine, pairwise dots, cross layer.
//!
//! ```text
//! fm_second_order   out[r]    = ½ Σ_d ((Σ_f x[r,f,d])² − Σ_f x[r,f,d]²)     =  Σ_{i>j} x_i . x_j
//!     backward      ∂x[r,f,d] = g[r] (Σ_f' x[r,f',d] − x[r,f,d])
//! pairwise_dots     out[r, p] = x_i . x_j      p = i (i − 1) / 2 + j,  i > j:  (1,0), (2,0), (2,1), (3,0), ..
//!     backward      ∂x_i      = Σ_{j ≠ i} g[r, p(i, j)] x_j
//! cross_layer       out       = x0 ⊙ u + x     u = W x + b, a product made elsewhere
//!     backward      ∂x0 = g ⊙ u,   ∂u = g ⊙ x0,   ∂x = g, which is there already and is not copied
//! ```
//!
//! # Layout
//!
//! | name          | shape                 | type | constraint                                        |
//! |---------------|-----------------------|------|---------------------------------------------------|
//! | `x`           | `[rows, fields, dim]` | f32  | row-major; as many rows as its length gives       |
//! | fm            | `[rows]`              | f32  |                                                   |
//! | pairs         | `[rows, pairs]`       | f32  | pairs = fields (fields − 1) / 2; none for 1 field |
//! | `x0`, `u`, .. | any                   | f32  | all as long as one another                        |
//!
//! Every operation stands here twice: over [`Buffer`]s on any device, and, named `.._into`, over slices of the CPU's memory
//! for those who own theirs.
//!
//! # Cost
//! fm and the cross layer are bound by memory: they read their operands once and write once. Pairwise dots are
//! `dim fields (fields − 1)` operations a row, twice that backward, over a row that stays in a first-level cache: at 27
//! fields of 16 values about as long in the arithmetic as in memory, from 64 on bound by arithmetic. On a GPU a work group
//! holds rows in shared memory where they fit.
//!
//! # Determinism
//! A row's result has the same bits alone and in any batch, for any number of threads: sums run over dimensions in vectors,
//! and over fields in order. CPU and GPU agree to rounding (their vectors differ in length).
//!
//! NaN and infinity in a row show in its result, and nowhere else.
//!
//! # Source
//! Rendle 2010, "Factorization machines", lemma 3.1; Naumov et al. 2019, "Deep learning recommendation model"; Wang et
//! al. 2021, "DCN V2", eq. (1).

mod cpu;
mod cpu_dots;
#[cfg(feature = "gpu")]
mod cube;
#[cfg(feature = "gpu")]
mod cube_dots;
mod reference;
mod shape;
#[cfg(test)]
mod tests;

pub use cpu::{
    cross_layer_backward_into, cross_layer_into, fm_second_order_backward_into, fm_second_order_into,
};
pub use cpu_dots::{pairwise_dots_backward_into, pairwise_dots_into};
pub use reference::{
    cross_layer_backward_reference, cross_layer_reference, fm_second_order_backward_reference,
    fm_second_order_reference, pairwise_dots_backward_reference, pairwise_dots_reference,
};

#[cfg(feature = "cuda-sources")]
use crate::cuda_sources::Instance;
use crate::{Buffer, Device, Error, Result, buffer::on_gpu};
use shape::{CROSS, DOTS, FM, Shape, same_len};

/// Returns the second-order term of a factorization machine of every row.
///
/// # Shapes
/// - `x`: `[rows, fields, dim]`
/// - returns: `[rows, 1]`, on the same device
///
/// # Errors
/// [`Error::Parameter`] for no fields or no dimensions; [`Error::Shape`] for a length that is no whole number of rows;
/// [`Error::OutOfMemory`], [`Error::BufferTooLarge`].
///
/// # Source
/// Rendle 2010, lemma 3.1.
pub fn fm_second_order(x: &Buffer<f32>, fields: usize, dim: usize) -> Result<Buffer<f32>> {
    let shape = Shape::new(FM, x.len(), fields, dim)?;
    match x.device() {
        Device::Cpu => filled(shape.rows, |out| fm_second_order_into(slice(x), fields, dim, out)),
        device => on_gpu!(FM, device, R => cube::fm::<R>(x, shape, device)),
    }
}

/// Returns the gradient of [`fm_second_order`]'s `x`.
///
/// # Shapes
/// - `x`: `[rows, fields, dim]`; `gradient`: `[rows]`, that of the output, on the same device
/// - returns: `[rows, fields, dim]`
///
/// # Errors
/// As [`fm_second_order`]; [`Error::MixedDevices`].
pub fn fm_second_order_backward(
    x: &Buffer<f32>,
    fields: usize,
    dim: usize,
    gradient: &Buffer<f32>,
) -> Result<Buffer<f32>> {
    let shape = Shape::new(FM, x.len(), fields, dim)?;
    same_len(FM, "gradient", shape.rows, gradient.len())?;
    same_device(FM, &[x, gradient])?;
    match x.device() {
        Device::Cpu => {
            filled(x.len(), |out| fm_second_order_backward_into(slice(x), fields, dim, slice(gradient), out))
        }
        device => on_gpu!(FM, device, R => cube::fm_backward::<R>(x, shape, gradient, device)),
    }
}

/// Returns the dot products of all pairs of fields of every row.
///
/// # Shapes
/// - `x`: `[rows, fields, dim]`
/// - returns: `[rows, fields (fields − 1) / 2]`, on the same device: the strict lower triangle, row after row
///
/// # Errors
/// As [`fm_second_order`].
///
/// # Source
/// Naumov et al. 2019.
pub fn pairwise_dots(x: &Buffer<f32>, fields: usize, dim: usize) -> Result<Buffer<f32>> {
    let shape = Shape::new(DOTS, x.len(), fields, dim)?;
    match x.device() {
        Device::Cpu => {
            let len = shape.rows.saturating_mul(shape.pairs());
            filled(len, |out| pairwise_dots_into(slice(x), fields, dim, out))
        }
        device => on_gpu!(DOTS, device, R => cube_dots::dots::<R>(x, shape, device)),
    }
}

/// Returns the gradient of [`pairwise_dots`]'s `x`.
///
/// # Shapes
/// - `x`: `[rows, fields, dim]`; `gradient`: `[rows, fields (fields − 1) / 2]`, on the same device
/// - returns: `[rows, fields, dim]`
///
/// # Errors
/// As [`fm_second_order`]; [`Error::MixedDevices`].
pub fn pairwise_dots_backward(
    x: &Buffer<f32>,
    fields: usize,
    dim: usize,
    gradient: &Buffer<f32>,
) -> Result<Buffer<f32>> {
    let shape = Shape::new(DOTS, x.len(), fields, dim)?;
    same_len(DOTS, "gradient", shape.rows * shape.pairs(), gradient.len())?;
    same_device(DOTS, &[x, gradient])?;
    match x.device() {
        Device::Cpu => {
            filled(x.len(), |out| pairwise_dots_backward_into(slice(x), fields, dim, slice(gradient), out))
        }
        device => on_gpu!(DOTS, device, R => cube_dots::backward::<R>(x, shape, gradient, device)),
    }
}

/// Returns `x0 ⊙ u + x`: a cross layer whose product `u = W x + b` has been made elsewhere.
///
/// # Shapes
/// - `x0`, `u`, `x` and what is returned: as long as one another, on one device
///
/// # Errors
/// [`Error::Shape`], [`Error::MixedDevices`]; [`Error::OutOfMemory`], [`Error::BufferTooLarge`].
///
/// # Source
/// Wang et al. 2021, eq. (1).
pub fn cross_layer(x0: &Buffer<f32>, u: &Buffer<f32>, x: &Buffer<f32>) -> Result<Buffer<f32>> {
    same_len(CROSS, "u", x0.len(), u.len())?;
    same_len(CROSS, "x", x0.len(), x.len())?;
    same_device(CROSS, &[x0, u, x])?;
    match x0.device() {
        Device::Cpu => filled(x0.len(), |out| cross_layer_into(slice(x0), slice(u), slice(x), out)),
        device => on_gpu!(CROSS, device, R => cube::cross::<R>(x0, u, x, device)),
    }
}

/// Returns the gradients of [`cross_layer`]'s `x0` and `u`; that of its `x` is `gradient` itself.
///
/// # Shapes
/// - `x0`, `u`, `gradient` and both that are returned: as long as one another, on one device
///
/// # Errors
/// As [`cross_layer`].
pub fn cross_layer_backward(
    x0: &Buffer<f32>,
    u: &Buffer<f32>,
    gradient: &Buffer<f32>,
) -> Result<(Buffer<f32>, Buffer<f32>)> {
    same_len(CROSS, "u", x0.len(), u.len())?;
    same_len(CROSS, "gradient", x0.len(), gradient.len())?;
    same_device(CROSS, &[x0, u, gradient])?;
    match x0.device() {
        Device::Cpu => {
            let mut of_u = Buffer::zeros(x0.len(), Device::Cpu, "gradients of a cross layer")?;
            let of_x0 = filled(x0.len(), |of_x0| {
                let of_u = of_u.cpu_mut().unwrap_or_default();
                cross_layer_backward_into(slice(x0), slice(u), slice(gradient), of_x0, of_u)
            })?;
            Ok((of_x0, of_u))
        }
        device => on_gpu!(CROSS, device, R => cube::cross_backward::<R>(x0, u, gradient, device)),
    }
}

/// A buffer on the CPU that `fill` writes.
fn filled(len: usize, fill: impl FnOnce(&mut [f32]) -> Result<()>) -> Result<Buffer<f32>> {
    let mut out = Buffer::zeros(len, Device::Cpu, "interactions")?;
    fill(out.cpu_mut().unwrap_or_default())?;
    Ok(out)
}

/// The values of a buffer that is on the CPU.
fn slice(buffer: &Buffer<f32>) -> &[f32] {
    buffer.cpu().unwrap_or_default()
}

fn same_device(op: &'static str, buffers: &[&Buffer<f32>]) -> Result<()> {
    match buffers.windows(2).all(|pair| pair[0].device() == pair[1].device()) {
        true => Ok(()),
        false => Err(Error::MixedDevices { op }),
    }
}

/// Calls whose kernels are compiled for CUDA where there is none.
#[cfg(feature = "cuda-sources")]
pub(crate) fn instances() -> Vec<Instance> {
    let of = |(fields, dim): (usize, usize)| {
        Instance::new(format!("interaction, {fields} fields, dim {dim}"), move |device| {
            let zeros = |len| Buffer::<f32>::zeros(len, device, "an instance");
            let (rows, pairs) = (100, fields * (fields - 1) / 2);
            let (x, of_rows, of_pairs) = (zeros(rows * fields * dim)?, zeros(rows)?, zeros(rows * pairs)?);
            fm_second_order(&x, fields, dim)?;
            fm_second_order_backward(&x, fields, dim, &of_rows)?;
            pairwise_dots(&x, fields, dim)?;
            pairwise_dots_backward(&x, fields, dim, &of_pairs)?;
            cross_layer(&x, &x, &x)?;
            cross_layer_backward(&x, &x, &x).map(drop)
        })
    };
    [(27, 16), (27, 128), (13, 33), (300, 64)].map(of).into()
}
