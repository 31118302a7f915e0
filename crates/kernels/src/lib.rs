//! Compute kernels: each file is one operation, on every device.
//!
//! This crate knows no user, item, model or file. It knows numbers in memory ([`Buffer`], [`Table`]), where they live
//! ([`Device`]), how much of it there may be ([`memory`]), and operations on them. Every operation is one file in this
//! order: formula, layout and cost; the public function; a naive reference; the CPU; the GPU launch and its kernel.
#![cfg_attr(
    not(feature = "gpu"),
    expect(unused_variables, reason = "of operations whose GPU part is left out")
)]
#![warn(missing_docs)]

mod als;
mod als_block;
mod als_cg;
mod als_cholesky;
mod batch_norm;
mod buffer;
mod candidate_loss;
mod causal_attention;
mod cells;
pub mod conformance;
#[cfg(feature = "cuda-sources")]
pub mod cuda_sources;
mod dense;
mod dense_update;
mod device;
mod embedding_bag;
mod error;
mod exp;
mod gather;
mod gram;
mod gru;
mod hash;
mod interaction;
mod lanes;
mod layer_norm;
mod linear;
#[cfg(feature = "gpu")]
mod matrix_unit;
pub mod memory;
pub mod negative;
mod pairwise_update;
pub mod peak;
pub mod philox;
mod rating_update;
mod rounding;
#[cfg(feature = "gpu")]
mod row_words;
mod score_topk;
mod scratch;
mod segment;
mod sequences;
mod shared_rows;
pub mod simd;
mod similarity;
mod sparse;
mod sparse_update;
mod spd_inverse;
mod table;

pub use als::{
    AlsKept, AlsSystem, als_block_bytes, als_gram_bytes, als_kept_bytes, als_loss, als_loss_keeping,
    als_loss_reference, als_penalty,
};
pub use als_block::{als_block, als_block_reference};
pub use als_cg::{als_cg, als_cg_keeping, als_cg_reference};
pub use als_cholesky::{als_cholesky, als_cholesky_reference};
pub use batch_norm::{
    BatchNorm, BatchNormGradients, ColumnStatistics, batch_norm, batch_norm_backward, batch_norm_reference,
    normalize,
};
#[cfg(feature = "cuda")]
pub use buffer::cuda::CudaRuntime;
#[cfg(feature = "gpu")]
pub use buffer::shared::{GpuRuntime, Shared, check_answers, refuse_answers};
#[cfg(feature = "wgpu")]
pub use buffer::wgpu::WgpuRuntime;
pub use buffer::{Buffer, Mapped};
pub use candidate_loss::{CandidateLoss, Candidates, candidate_loss, candidate_loss_reference};
pub use causal_attention::{
    CausalAttention, causal_attention, causal_attention_backward, causal_attention_last,
    causal_attention_reference, n_attention_weights,
};
pub use dense_update::{DenseOptimizer, DenseStep, dense_update, dense_update_reference};
pub use device::{About, Device, Features};
pub use embedding_bag::{
    BagFeature, Bags, Pooling, embedding_bag, embedding_bag_backward, embedding_bag_backward_reference,
    embedding_bag_reference, embedding_bag_weights_backward,
};
pub use error::Error;
pub use gather::{RowIndices, gather, gather_at, gather_reference, scatter_add, scatter_add_reference};
pub use gram::{gram, gram_reference};
pub use gru::{Gru, GruGradients, gru, gru_backward, gru_reference};
pub use hash::{FeatureHash, HashKey, hash_features, hash_features_reference, murmur3, murmur3_key};
pub use interaction::{
    cross_layer, cross_layer_backward, cross_layer_backward_into, cross_layer_backward_reference,
    cross_layer_into, cross_layer_reference, fm_second_order, fm_second_order_backward,
    fm_second_order_backward_into, fm_second_order_backward_reference, fm_second_order_into,
    fm_second_order_reference, pairwise_dots, pairwise_dots_backward, pairwise_dots_backward_into,
    pairwise_dots_backward_reference, pairwise_dots_into, pairwise_dots_reference,
};
pub use layer_norm::{LayerNorm, LayerNormGradients, layer_norm, layer_norm_backward, layer_norm_reference};
pub use linear::{
    Activation, Linear, LinearGradients, LinearScratch, Products, linear, linear_backward,
    linear_backward_reference, linear_reference,
};
pub use pairwise_update::{
    Mode, Negatives, OnPositive, Optimizer, PairwiseEpoch, PairwiseLoss, PairwiseState, PairwiseStats,
    pairwise_epoch, pairwise_epoch_bytes,
};
pub use rating_update::{
    RatingEpoch, RatingFactors, RatingStats, rating_epoch, rating_epoch_bytes, rating_epoch_reference,
};
pub use score_topk::{
    TOPK_BYTES_ON_GPU, TopkAnswers, TopkPrepared, TopkQuery, TopkScratch, score_topk, score_topk_reference,
    tie_hash, topk_of_scores,
};
pub use segment::{HostSegment, Segment, segment, segment_buffer, segment_reference};
pub use similarity::{
    Direction, Measure, Neighbours, SimilarityOptions, similarity, similarity_on, similarity_reference,
};
pub use sparse::SparseRows;
pub use sparse_update::{SparseOptimizer, SparseState, SparseStep, sparse_update, sparse_update_reference};
pub use spd_inverse::{spd_inverse, spd_inverse_reference};
pub use table::{F32Rows, RowType, Rows, Table};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
