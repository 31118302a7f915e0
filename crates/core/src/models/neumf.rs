//! NeuMF: neural matrix factorization, the product of two vectors beside a network over two others.
//!
//! ```text
//! s_ui = h · [ p_u * q_i ; MLP([p'_u ; q'_i]) ] + b        a user's row is [p_u ; p'_u], an item's [q_i ; q'_i]
//! loss = Σ_i ln(1 + exp(-s_ui)) + Σ_j ln(1 + exp(s_uj))    j: `n_negatives` drawn ones for each i, which the user has not
//! ```
//!
//! `*` multiplies value by value: that half is the generalized matrix factorization of the paper (GMF), and the other its MLP. With
//! `factors` 0 the first is left out, which is the paper's NCF with an MLP alone. Both halves learn together, from the beginning; the paper's
//! pre-training of each by itself is not there.
//!
//! How a list is answered: the first layer is linear in `[p'_u ; q'_i]`, so its item half, with the bias, is computed once for all items
//! (`[n_items, hidden[0]]`, beside a copy of `q`), and its user half once a list. What is left for each pair are the later layers, which go
//! over the catalogue, or the candidates, in blocks of items. It costs some thousand multiplications a pair where a dot product has 64, so a
//! list takes many times as long as one of [`super::Mf`].
//!
//! Fold-in: Adam takes a fixed number of steps from a row of zeros down the loss of the history's items against items that are spread evenly over
//! the catalogue, all else being fixed. It depends on the history alone.
//!
//! Similar items are those of the highest cosine of `[q_i ; q'_i]`. A product of vectors is no score here, so the vectors are not exported.
//!
//! Source: He, Liao, Zhang, Nie, Hu, Chua 2017, "Neural collaborative filtering".

mod scoring;

use std::sync::OnceLock;

use burn::{
    module::Module,
    tensor::{Tensor, backend::Backend},
};
use recmill_kernels::Table;
use serde::{Deserialize, Serialize};

pub(crate) use scoring::NeuMfScratch;
use scoring::{Catalogue, Layers};

use super::{
    Precision, Problems, Retriever, dense,
    factors::{FactorItems, once},
    not_theirs,
};
use crate::{
    Batch, Error, Parameter, Parameters, Query, Result, Workspace,
    dense::{
        Activation, Cpu, DenseBackend, InTraining, Initial, Linear, Mlp, MlpOptions, beside,
        linear_parameters, load_parameters, mlp_parameters, put_parameters,
    },
};

/// Hyper-parameters of [`NeuMf`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct NeuMfConfig {
    /// Length of the vectors that are multiplied; 0 leaves that half out.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().factors))]
    pub factors: usize,
    /// Length of the vectors that the network reads, one of the user and one of the item.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().mlp_factors))]
    pub mlp_factors: usize,
    /// Widths of the network's hidden layers.
    #[cfg_attr(feature = "clap", arg(long, value_name = "WIDTH,...", value_delimiter = ',', default_values_t = Self::default().hidden))]
    pub hidden: Vec<usize>,
    /// Share of the hidden values that are dropped in training.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().dropout))]
    pub dropout: f64,
    /// Step size of Adam.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().learning_rate))]
    pub learning_rate: f64,
    /// Lambda: how strongly long vectors are punished, where they are touched; also in folding in.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Interactions a step, each with its negatives.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().batch_size))]
    pub batch_size: usize,
    /// Items that are drawn for each interaction, all alike.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().n_negatives))]
    pub n_negatives: usize,
    /// Leaves out, of the negatives, what the user has had. With `=false` they are as they come, which keeps a model from being too
    /// sure of what it was shown; try it where users have had much of the catalogue.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().verify_negatives, action = clap::ArgAction::Set))]
    pub verify_negatives: bool,
    /// Epochs at most: each visits every interaction once.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().iterations))]
    pub iterations: usize,
    /// Deviation of a vector's numbers before training, times sqrt(factors + mlp_factors).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().init_scale))]
    pub init_scale: f64,
    /// Number type in which the vectors are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for NeuMfConfig {
    fn default() -> Self {
        Self {
            factors: 32,
            mlp_factors: 32,
            hidden: vec![64, 32, 16],
            dropout: 0.0,
            learning_rate: 0.001,
            regularization: 0.0,
            batch_size: 512,
            n_negatives: 4,
            verify_negatives: true,
            iterations: 50,
            init_scale: 0.1,
            precision: Precision::F32,
        }
    }
}

impl NeuMfConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("neumf");
        if self.factors > 65_536 {
            problems.add("factors", "at most 65536", self.factors);
        }
        problems.dimension("mlp_factors", self.mlp_factors);
        problems.widths("hidden", &self.hidden);
        if self.hidden.is_empty() {
            problems.add("hidden", "at least one width", "none");
        }
        problems.share("dropout", self.dropout);
        problems.adam_step("learning_rate", self.learning_rate);
        problems.not_negative("regularization", self.regularization);
        problems.at_least_one("batch_size", self.batch_size);
        problems.dimension("n_negatives", self.n_negatives);
        problems.at_least_one("iterations", self.iterations);
        problems.init_scale(self.init_scale);
        problems.finish()
    }

    /// Returns the number of the network's parameters.
    pub fn n_parameters(&self) -> u64 {
        let last = self.hidden.last().copied().unwrap_or(0);
        mlp_parameters(2 * self.mlp_factors, &self.hidden) + linear_parameters(self.factors + last, 1)
    }

    /// Returns the length of a user's and an item's row: both vectors, one behind the other.
    pub fn row_length(&self) -> usize {
        self.factors + self.mlp_factors
    }

    /// Returns the numbers that lists keep of each item beside its row.
    pub fn prepared_length(&self) -> usize {
        self.factors + self.hidden.first().copied().unwrap_or(0)
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let product = match self.factors {
            0 => String::new(),
            _ => "p_u * q_i ; ".to_owned(),
        };
        format!(
            "minimise the mean over observed (u, i), and {} drawn uniform j each{}, of ln(1 + exp(-s_ui)) and \
             ln(1 + exp(s_uj)); s_ui = h . [{product}MLP(p'_u, q'_i)] + b, hidden = {:?}, dropout = {}; lambda = {}",
            self.n_negatives,
            not_theirs(self.verify_negatives),
            self.hidden,
            self.dropout,
            self.regularization
        )
    }
}

/// Rows of users or of items, cut in two.
#[derive(Clone, Debug)]
pub struct NeuMfRows<B: Backend> {
    /// `[rows, factors]`: what is multiplied; none where `factors` is 0.
    pub multiplied: Option<Tensor<B, 2>>,
    /// `[rows, mlp_factors]`: what the network reads.
    pub read: Tensor<B, 2>,
}

impl<B: Backend> NeuMfRows<B> {
    /// Cuts `[rows, row_length]`.
    pub fn cut(rows: Tensor<B, 2>, config: &NeuMfConfig) -> Self {
        let [n, length] = rows.dims();
        let multiplied = (config.factors > 0).then(|| rows.clone().slice([0..n, 0..config.factors]));
        Self { multiplied, read: rows.slice([0..n, config.factors..length]) }
    }
}

/// From the rows of pairs to their scores.
#[derive(Module, Debug)]
pub struct NeuMfNetwork<B: Backend> {
    hidden: Mlp<B>,
    out: Linear<B>,
}

impl<B: Backend> NeuMfNetwork<B> {
    /// Makes the network with its first values.
    pub fn new(config: &NeuMfConfig, initial: &mut Initial<'_, B>) -> Self {
        let between = MlpOptions { dropout: config.dropout, batch_norm: false };
        let hidden = Mlp::new(2 * config.mlp_factors, &config.hidden, between, 0, initial);
        let last = config.hidden.last().copied().unwrap_or(0);
        Self { hidden, out: Linear::glorot(config.factors + last, 1, initial) }
    }
}

impl<B: DenseBackend> NeuMfNetwork<B> {
    /// Returns the scores of pairs, `[rows, 1]`: row by row a user and an item.
    pub fn forward(
        &self,
        users: NeuMfRows<B>,
        items: NeuMfRows<B>,
        training: Option<&InTraining<B>>,
    ) -> Tensor<B, 2> {
        let read = self.hidden.forward(beside(vec![users.read, items.read]), training);
        let product = users.multiplied.zip(items.multiplied).map(|(p, q)| p * q);
        self.out.forward(beside(product.into_iter().chain([read]).collect()), Activation::Identity)
    }
}

/// Rows of users and items, and the network that says how well two of them go together.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, UserIndex, Workspace, dense::{Initial, load_parameters}};
/// use recmill_core::{Parameter, Parameters, models::{NeuMf, NeuMfConfig, NeuMfNetwork, Retriever}};
/// use recmill_kernels::{Buffer, Device, Table};
///
/// let table = |values: &[f32]| Table::from_f32(values, 2, Device::Cpu, "rows");
/// let config = NeuMfConfig { factors: 1, mlp_factors: 1, hidden: vec![1], ..NeuMfConfig::default() };
/// // s = 2 p q - 2 max(0, p' + 2 q' - 1) + 0.5
/// let mut values = Parameters::default();
/// for (name, value) in [
///     ("dense_hidden_layers_0_weight", vec![1.0, 2.0]),
///     ("dense_hidden_layers_0_bias", vec![-1.0]),
///     ("dense_out_weight", vec![2.0, -2.0]),
///     ("dense_out_bias", vec![0.5]),
/// ] {
///     values.insert(name, Parameter::F32(Buffer::from_vec(value, "a parameter")?));
/// }
/// let network = NeuMfNetwork::new(&config, &mut Initial::new(0, &Default::default()));
/// let network = load_parameters(network, &mut values)?;
/// let model = NeuMf::new(config, table(&[3.0, 1.0])?, table(&[1.0, 0.0, 2.0, 1.0])?, network)?;
///
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows: vec![Row::new(Query::User(UserIndex(0)), 2)] }, &mut workspace)?;
/// // 2 * 3 * 2 - 2 * 2 + 0.5, and 2 * 3 * 1 - 2 * 0 + 0.5
/// assert_eq!(workspace.answer(0), (&[ItemIndex(1), ItemIndex(0)][..], &[8.5, 6.5][..]));
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct NeuMf {
    config: NeuMfConfig,
    users: Table,
    items: FactorItems,
    network: NeuMfNetwork<Cpu>,
    layers: Layers,
    catalogue: OnceLock<Catalogue>,
}

impl NeuMf {
    /// Joins rows and a network to a model.
    ///
    /// # Shapes
    /// - `user_vectors`: `[n_users, factors + mlp_factors]`
    /// - `item_vectors`: `[n_items, factors + mlp_factors]`
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::WrongSize`] when a part does not fit.
    pub fn new(
        config: NeuMfConfig,
        user_vectors: Table,
        item_vectors: Table,
        network: NeuMfNetwork<Cpu>,
    ) -> Result<Self> {
        config.validate()?;
        for (what, table) in [("user_vectors", &user_vectors), ("item_vectors", &item_vectors)] {
            let (expected, got) = (config.row_length(), table.dim());
            if expected != got {
                return Err(Error::WrongSize { what, side: "factors", expected, got });
            }
        }
        let network = network.no_grad();
        Ok(Self {
            layers: Layers::of(&config, &network)?,
            users: user_vectors,
            items: FactorItems::new(item_vectors, None)?,
            catalogue: OnceLock::new(),
            config,
            network,
        })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], [`Error::MissingDense`], and as [`NeuMf::new`].
    pub fn open(config: &NeuMfConfig, mut parameters: Parameters) -> Result<Self> {
        config.validate()?;
        let users = parameters.take_table("user_vectors")?;
        let items = parameters.take_table("item_vectors")?;
        let first = NeuMfNetwork::new(config, &mut Initial::new(0, &Default::default()));
        let network = load_parameters(first, &mut parameters)?;
        Self::new(config.clone(), users, items, network)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &NeuMfConfig {
        &self.config
    }

    /// Returns the network.
    pub fn network(&self) -> &NeuMfNetwork<Cpu> {
        &self.network
    }

    /// Returns what lists keep of the items; computed at the first call.
    fn catalogue(&self) -> Result<&Catalogue> {
        once(&self.catalogue, || Catalogue::new(&self.layers, self.items.table()))
    }
}

impl Retriever for NeuMf {
    fn n_users(&self) -> usize {
        self.users.rows() as usize
    }

    fn n_items(&self) -> usize {
        self.items.n_items()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        let (sizes, f32_rows) = ((self.n_users(), self.n_items()), self.items.table().f32_rows());
        dense::score(batch, workspace, sizes, |row, scratch, scores| {
            match &row.query {
                Query::Item(item) => {
                    return self.items.cosines(*item, f32_rows.as_ref(), &mut scratch.row, scores);
                }
                Query::User(user) => {
                    scratch.row.resize(self.config.row_length(), 0.0);
                    self.users.read_row(u64::from(user.0), &mut scratch.row)?;
                }
                Query::History(history) => {
                    let history = scratch.history.fill(history);
                    let catalogue = self.catalogue()?;
                    scratch.neumf.pose(catalogue, history, &self.config);
                    self.layers.fold_in(catalogue, &mut scratch.neumf, &mut scratch.row)?;
                }
            }
            let catalogue = self.catalogue()?;
            self.layers.score(catalogue, &scratch.row, row.candidates.as_deref(), &mut scratch.neumf, scores)
        })
    }

    fn warm_up(&self) -> Result<()> {
        self.catalogue()?;
        self.items.norms().map(drop)
    }

    fn table(&self, name: &str) -> Option<&Table> {
        match name {
            "user_vectors" => Some(&self.users),
            "item_vectors" => Some(self.items.table()),
            _ => None,
        }
    }

    fn parameters(&self) -> Result<Parameters> {
        let precision = self.config.precision;
        let mut parameters = Parameters::default();
        parameters.insert("user_vectors", Parameter::Table(precision.store(&self.users)?));
        parameters.insert("item_vectors", Parameter::Table(precision.store(self.items.table())?));
        put_parameters(&self.network, &mut parameters)?;
        Ok(parameters)
    }
}

#[cfg(test)]
mod tests {
    use burn::module::Module;

    use super::*;

    #[test]
    fn parameters_are_counted_without_the_network() {
        for (factors, mlp_factors, hidden) in [(0, 3, vec![5]), (4, 3, vec![5, 2, 7])] {
            let config = NeuMfConfig { factors, mlp_factors, hidden, ..NeuMfConfig::default() };
            let network = NeuMfNetwork::<Cpu>::new(&config, &mut Initial::new(0, &Default::default()));
            assert_eq!(network.num_params() as u64, config.n_parameters(), "{config:?}");
        }
    }
}
