//! DCN-v2: explicit crosses of features of bounded degree, and a network, one beside or behind the other.
//!
//! ```text
//! x_0 = [e_1 .. e_F, x]        x_l+1 = x_0 ⊙ (W_l x_l + b_l) + x_l                       full rank
//!                              x_l+1 = Σ_k g_k(x_l) x_0 ⊙ (U_k tanh(C_k tanh(V_k x_l)) + b_l) + x_l    a mixture of low rank
//! parallel: log-odds = h · [x_L, MLP(x_0)]            stacked: log-odds = h · MLP(x_L)
//! ```
//!
//! Source: Wang et al. 2021, "DCN V2: improved deep & cross network"; its equations (1) and (2), (4).

use std::fmt;

use burn::{
    module::{Module, Param},
    tensor::{
        Tensor,
        activation::{softmax, tanh},
        backend::Backend,
    },
};
use serde::{Deserialize, Serialize};

use super::{Inputs, Network, Shape, TableDims};
use crate::{
    dense::{Activation, DenseBackend, Initial, Linear, Mlp, MlpOptions, beside, cross, product},
    models::Problems,
};

/// How the crosses and the network stand to each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum DcnStructure {
    /// Both see the input.
    #[default]
    Parallel,
    /// The network sees what the crosses make of it.
    Stacked,
}

impl fmt::Display for DcnStructure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DcnStructure::Parallel => "parallel",
            DcnStructure::Stacked => "stacked",
        })
    }
}

/// Hyper-parameters of [`Dcn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct DcnConfig {
    /// Length of a category's vector; 8 to 64 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().embedding_dim))]
    pub embedding_dim: usize,
    /// Cross layers: crosses of up to one feature more than there are layers.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().cross_layers))]
    pub cross_layers: usize,
    /// Whether the network stands beside the crosses or behind them.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().structure))]
    pub structure: DcnStructure,
    /// Rank of a cross layer's matrices; 0 for full rank. A quarter of the input's width costs half as much.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().rank))]
    pub rank: usize,
    /// Experts of each cross layer, with --rank.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().experts))]
    pub experts: usize,
    /// Widths of the hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_delimiter = ',', default_values_t = Self::default().hidden))]
    pub hidden: Vec<usize>,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Whether hidden layers are normalized by the statistics of the batch (Ioffe, Szegedy 2015). Rows of many categories are often
    /// learnt faster and better with it.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_norm, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true"))]
    pub batch_norm: bool,
}

impl Default for DcnConfig {
    fn default() -> Self {
        Self {
            embedding_dim: 16,
            cross_layers: 3,
            structure: DcnStructure::Parallel,
            rank: 0,
            experts: 4,
            hidden: vec![400, 400, 400],
            dropout: 0.2,
            batch_norm: false,
        }
    }
}

impl DcnConfig {
    fn between(&self) -> MlpOptions {
        MlpOptions { dropout: self.dropout, batch_norm: self.batch_norm }
    }

    pub(super) fn problems(&self, problems: &mut Problems) {
        problems.dimension("embedding_dim", self.embedding_dim);
        if !(1..=256).contains(&self.cross_layers) {
            problems.add("cross_layers", "from 1 to 256", self.cross_layers);
        }
        problems.at_least_one("experts", self.experts);
        problems.widths("hidden", &self.hidden);
        problems.share("dropout", self.dropout);
    }

    pub(super) fn tables(&self, _: &Shape) -> TableDims {
        TableDims { embedding: Some(self.embedding_dim), first_order: None }
    }
}

/// The network.
#[derive(Module, Debug)]
pub struct Dcn<B: Backend> {
    crosses: Vec<CrossLayer<B>>,
    deep: Mlp<B>,
    head: Linear<B>,
    stacked: bool,
}

#[derive(Module, Debug)]
struct CrossLayer<B: Backend> {
    full: Option<Linear<B>>,
    mixture: Option<Mixture<B>>,
}

/// Matrices of low rank, and who of them is asked.
#[derive(Module, Debug)]
struct Mixture<B: Backend> {
    gates: Linear<B>,
    /// `V`, `C`, `U` of each expert: `[width, rank]`, `[rank, rank]`, `[rank, width]`.
    down: Vec<Param<Tensor<B, 2>>>,
    within: Vec<Param<Tensor<B, 2>>>,
    up: Vec<Param<Tensor<B, 2>>>,
    bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> Dcn<B> {
    /// Makes the network with its first values.
    pub fn new(config: &DcnConfig, shape: &Shape, initial: &mut Initial<'_, B>) -> Self {
        let width = shape.flat_width(config.embedding_dim);
        let crosses = (0..config.cross_layers).map(|_| match config.rank {
            0 => CrossLayer { full: Some(Linear::glorot(width, width, initial)), mixture: None },
            rank => {
                CrossLayer { full: None, mixture: Some(Mixture::new(width, rank, config.experts, initial)) }
            }
        });
        let crosses = crosses.collect();
        let deep = Mlp::new(width, &config.hidden, config.between(), 0, initial);
        let stacked = config.structure == DcnStructure::Stacked;
        let deep_width = config.hidden.last().copied().unwrap_or(width);
        let head_width = if stacked { deep_width } else { width + deep_width };
        Self { crosses, deep, head: Linear::glorot(head_width, shape.n_labels, initial), stacked }
    }
}

impl<B: Backend> Mixture<B> {
    fn new(width: usize, rank: usize, experts: usize, initial: &mut Initial<'_, B>) -> Self {
        let bound = |from: usize, to: usize| (6.0 / (from + to) as f64).sqrt();
        let mut each =
            |from, to| (0..experts).map(|_| initial.uniform([from, to], bound(from, to))).collect();
        let (down, within, up) = (each(width, rank), each(rank, rank), each(rank, width));
        Self {
            gates: Linear::glorot(width, experts, initial),
            down,
            within,
            up,
            bias: initial.constant([width], 0.0),
        }
    }
}

impl<B: DenseBackend> Mixture<B> {
    fn forward(&self, x0: Tensor<B, 2>, x: Tensor<B, 2>) -> Tensor<B, 2> {
        let gates = softmax(self.gates.forward(x.clone(), Activation::Identity), 1);
        let rows = gates.dims()[0];
        let mut u: Option<Tensor<B, 2>> = None;
        for expert in 0..self.down.len() {
            let low = tanh(product(x.clone(), self.down[expert].val()));
            let low = tanh(product(low, self.within[expert].val()));
            let wide = product(low, self.up[expert].val()) + self.bias.val().unsqueeze();
            let weighed = wide * gates.clone().slice([0..rows, expert..expert + 1]);
            u = Some(u.map_or(weighed.clone(), |sum| sum + weighed));
        }
        match u {
            Some(u) => cross(x0, u, x),
            None => x,
        }
    }
}

impl<B: DenseBackend> Network<B> for Dcn<B> {
    fn forward(&self, inputs: &Inputs<B>) -> Tensor<B, 2> {
        let x0 = inputs.flat();
        let mut x = x0.clone();
        for layer in &self.crosses {
            x = match (&layer.full, &layer.mixture) {
                (Some(full), _) => cross(x0.clone(), full.forward(x.clone(), Activation::Identity), x),
                (None, Some(mixture)) => mixture.forward(x0.clone(), x),
                (None, None) => x,
            };
        }
        let training = inputs.training();
        let last = match self.stacked {
            true => self.deep.forward(x, training),
            false => beside(vec![x, self.deep.forward(x0, training)]),
        };
        self.head.forward(last, Activation::Identity)
    }
}
