//! The dense part of deep models: burn tensors, and the operations that a backend may compute in one piece.
//!
//! Models are written over `B: DenseBackend`, which is any backend of burn. [`Cpu`] is what the library computes with on
//! the CPU, `Gpu` on any other device; training wraps a backend in burn's `Autodiff`. Embedding tables do not live here: see `rankers`.

mod autodiff;
mod backend;
mod cpu;
#[cfg(feature = "gpu")]
mod gpu;
mod gru;
mod guarded;
mod layers;
mod optimizer;
mod parameters;
mod sequences_by_definition;

pub use backend::{
    Activation, Against, Attention, BatchNormGradients, BatchNormState, BatchNormed, CrossGradients,
    DenseBackend, DeviceBackend, GruGradients, LayerNormGradients, LinearGradients, SCORES_AT_ONCE,
    buffer_of, matrix_of,
};
pub use cpu::with_products;
#[cfg(feature = "gpu")]
pub use gpu::Gpu;
pub use gru::Gru;
pub use guarded::guarded;
pub use layers::{
    BatchNorm, Dropout, InTraining, Initial, LayerNorm, Linear, Mlp, MlpOptions, against, attend,
    attend_last, beside, cross, linear_parameters, mlp_parameters, pairwise_dots, product, second_order,
};
pub use optimizer::{DenseRule, OptimizerState};
pub use parameters::{copy_values, load_parameters, put_parameters};

/// What is computed with on the CPU.
pub type Cpu = burn_flex::Flex;
