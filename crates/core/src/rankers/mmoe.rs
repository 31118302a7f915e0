//! MMoE: several labels from shared experts, which each label mixes in its own way.
//!
//! ```text
//! x = [e_1 .. e_F, numbers]      f_k = Σ_i softmax(G_k x)_i MLP_expert,i(x)      log-odds_k = h_k · MLP_k(f_k)
//! ```
//!
//! Source: Ma et al. 2018, "Modeling task relationships in multi-task learning with multi-gate mixture-of-experts".

use burn::{
    module::Module,
    tensor::{Tensor, activation::softmax, backend::Backend},
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims, shared_bottom::Tower};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions, beside},
    models::Problems,
};

/// Hyper-parameters of [`Mmoe`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct MmoeConfig {
    /// Length of a category's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Experts that the labels share.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().experts))]
    pub experts: usize,
    /// Widths of each expert's hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().hidden))]
    pub hidden: Vec<usize>,
    /// Widths of the hidden layers of each label's tower.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().tower))]
    pub tower: Vec<usize>,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Whether hidden layers are normalized by the statistics of the batch (Ioffe, Szegedy 2015). Rows of many categories are often
    /// learnt faster and better with it.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_norm, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub batch_norm: bool,
}

impl Default for MmoeConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 16,
            experts: 4,
            hidden: vec![256, 128],
            tower: vec![64],
            dropout: 0.2,
            batch_norm: false,
        }
    }
}

impl MmoeConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        if !(1..=1024).contains(&self.experts) {
            problems.add("experts", "from 1 to 1024", self.experts);
        }
        problems.widths("hidden", &self.hidden);
        problems.widths("tower", &self.tower);
        problems.share("dropout", self.dropout);
    }

    pub(super) fn tables(&self, _: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: None }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Mmoe<B: Backend> {
    experts: Vec<Mlp<B>>,
    gates: Vec<Linear<B>>,
    towers: Vec<Tower<B>>,
}

impl<B: Backend> Mmoe<B> {
    /// Makes the network with its first values.
    pub fn new(config: &MmoeConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let width = shape.flat_width(config.embedding_dim);
        let experts = (0..config.experts as u64)
            .map(|at| Mlp::new(width, &config.hidden, config.between(), at, initial))
            .collect();
        let gates = (0..shape.n_labels).map(|_| Linear::glorot(width, config.experts, initial)).collect();
        let mixed = config.hidden.last().copied().unwrap_or(width);
        let towers = (0..shape.n_labels).map(|label| {
            Tower::new(mixed, &config.tower, config.between(), (config.experts + label) as u64, initial)
        });
        Self { experts, gates, towers: towers.collect() }
    }
}

impl<B: DenseBackend> Network<B> for Mmoe<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let x = inputs.flat();
        let training = inputs.training();
        let answers = self.experts.iter().map(|expert| expert.forward(x.clone(), training)).collect();
        let answers: Tensor<B, 3> = Tensor::stack(answers, 1);
        let of_label = |(gate, tower): (&Linear<B>, &Tower<B>)| {
            let shares = softmax(gate.forward(x.clone(), Activation::Identity), 1);
            let mixed = (answers.clone() * shares.unsqueeze_dim::<3>(2)).sum_dim(1).squeeze_dim::<2>(1);
            tower.forward(mixed, inputs)
        };
        beside(self.gates.iter().zip(&self.towers).map(of_label).collect())
    }
}
