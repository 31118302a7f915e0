//! EASE: a linear model in which every item's score is a learnt weighted sum over the items of the history.
//!
//! ```text
//! s_uj = Σ_(i in history) B_ij      B minimises |X - X B|² + λ |B|², diag(B) = 0
//! B = I - P diag(1 / diag P)        P = (XᵀX + λ I)⁻¹
//! ```
//!
//! `X` is 1 where there is an interaction of positive value. `B` is `n_items x n_items` and dense, which bounds the
//! catalogue: 20,000 items take 1.6 GB. Similar items to `i` are the largest weights of row `i`. The model has no
//! users: everyone, known or new, is answered from their history, so folding in gives the same list.
//!
//! Source: Steck 2019.

use recmill_kernels::Table;
use serde::{Deserialize, Serialize};

use super::{Precision, Problems, Retriever, dense};
use crate::{Batch, Error, Parameter, Parameters, Query, Result, Workspace};

/// Hyper-parameters of [`Ease`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct EaseConfig {
    /// Lambda: how strongly large weights are punished. 100 to 2000 is usual; more for sparser data.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().regularization))]
    pub regularization: f64,
    /// Number type in which the weights are stored.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().precision))]
    pub precision: Precision,
}

impl Default for EaseConfig {
    fn default() -> Self {
        Self { regularization: 500.0, precision: Precision::F32 }
    }
}

impl EaseConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("ease");
        problems.positive("regularization", self.regularization);
        problems.finish()
    }

    /// Returns the objective in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        format!(
            "minimise |X - X B|^2 + lambda * |B|^2 with diag(B) = 0; X = 1 where value > 0; lambda = {}",
            self.regularization
        )
    }
}

/// A weight from each item to each other.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, Workspace, models::{Ease, EaseConfig, Retriever}};
/// use recmill_kernels::{Device, Table};
///
/// let weights = Table::from_f32(&[0.0, 0.5, 0.25, 0.5, 0.0, 0.125, 0.25, 0.125, 0.0], 3, Device::Cpu, "weights")?;
/// let model = Ease::new(EaseConfig::default(), weights)?;
/// // Somebody who had the third item and is not to get it again.
/// let query = Query::History(vec![(ItemIndex(2), 1.0)]);
/// let row = Row { exclude: vec![ItemIndex(2)], ..Row::new(query, 10) };
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows: vec![row] }, &mut workspace)?;
/// assert_eq!(workspace.answer(0), (&[ItemIndex(0), ItemIndex(1)][..], &[0.25, 0.125][..]));
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Ease {
    config: EaseConfig,
    weights: Table,
}

impl Ease {
    /// Makes a model of its weights.
    ///
    /// # Shapes
    /// - `weights`: `[n_items, n_items]`; row `i` is what item `i` in a history adds to each score
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::WrongSize`] when the table is not square.
    pub fn new(config: EaseConfig, weights: Table) -> Result<Self> {
        config.validate()?;
        let (expected, got) = (weights.dim(), weights.rows() as usize);
        if expected != got {
            return Err(Error::WrongSize { what: "weights", side: "items", expected, got });
        }
        Ok(Self { config, weights })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], and as [`Ease::new`].
    pub fn open(config: &EaseConfig, mut parameters: Parameters) -> Result<Self> {
        Self::new(config.clone(), parameters.take_table("weights")?)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &EaseConfig {
        &self.config
    }

    /// Returns the weights, `[n_items, n_items]`.
    pub fn weights(&self) -> &Table {
        &self.weights
    }
}

impl Retriever for Ease {
    fn n_users(&self) -> usize {
        0
    }

    fn n_items(&self) -> usize {
        self.weights.dim()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        let rows = self.weights.f32_rows();
        dense::score(batch, workspace, (0, self.n_items()), |row, scratch, scores| match &row.query {
            Query::History(history) => {
                for &(item, value) in scratch.history.fill(history) {
                    if value <= 0.0 {
                        continue;
                    }
                    let weights = match &rows {
                        Some(rows) => rows.row(item.at()),
                        None => {
                            scratch.row.resize(self.n_items(), 0.0);
                            self.weights.read_row(u64::from(item.0), &mut scratch.row)?;
                            &scratch.row[..]
                        }
                    };
                    for (score, weight) in scores.iter_mut().zip(weights) {
                        *score += weight;
                    }
                }
                Ok(())
            }
            Query::Item(item) => Ok(self.weights.read_row(u64::from(item.0), scores)?),
            Query::User(_) => Ok(()),
        })
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        parameters.insert("weights", Parameter::Table(self.config.precision.store(&self.weights)?));
        Ok(parameters)
    }
}
