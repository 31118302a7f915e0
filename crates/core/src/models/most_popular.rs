//! Most popular: everyone gets the items that most people took. The baseline, and the answer for unknown users.
//!
//! ```text
//! s_uj = number of users with j          --count users
//! s_uj = Σ_u max(v_uj, 0)                --count values
//! ```
//!
//! The model has no users and ignores histories, so folding in gives the same list; asked for similar items it knows
//! nothing better than the same list without the item.

use recmill_kernels::{Buffer, Device};
use serde::{Deserialize, Serialize};

use super::{Retriever, dense};
use crate::{Batch, Csr, Error, Parameter, Parameters, Result, Workspace};

/// What makes an item popular.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Count {
    /// The number of users who interacted with it.
    #[default]
    Users,
    /// The sum of the positive values of its interactions.
    Values,
}

/// Hyper-parameters of [`MostPopular`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct MostPopularConfig {
    /// What makes an item popular.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().count))]
    pub count: Count,
}

impl MostPopularConfig {
    /// Succeeds: no value can be wrong.
    ///
    /// # Errors
    /// None; the signature is that of every model.
    pub fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Returns what the model computes in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        match self.count {
            Count::Users => "no training objective: score(j) = number of users with j".to_owned(),
            Count::Values => "no training objective: score(j) = sum of the positive values of j".to_owned(),
        }
    }
}

/// One number an item.
///
/// ```
/// use recmill_core::{Batch, Csr, ItemIndex, Query, Row, Workspace};
/// use recmill_core::models::{MostPopular, MostPopularConfig, Retriever};
///
/// // Two users had item 1, one of them item 0 too.
/// let interactions = Csr::new(2, vec![0, 2, 3], vec![0, 1, 1], vec![1.0, 1.0, 1.0])?;
/// let model = MostPopular::fit(MostPopularConfig::default(), &interactions)?;
/// let row = Row::new(Query::History(Vec::new()), 10);
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows: vec![row] }, &mut workspace)?;
/// assert_eq!(workspace.answer(0), (&[ItemIndex(1), ItemIndex(0)][..], &[2.0, 1.0][..]));
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct MostPopular {
    config: MostPopularConfig,
    popularity: Buffer<f32>,
}

impl MostPopular {
    /// Makes a model of each item's popularity.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] when the numbers are not on the CPU or one is not finite.
    pub fn new(config: MostPopularConfig, popularity: Buffer<f32>) -> Result<Self> {
        let broken = |at| Error::Inconsistent { what: "popularity", at: at as u64 };
        let values = popularity.cpu().ok_or(broken(0))?;
        if let Some(at) = values.iter().position(|value| !value.is_finite()) {
            return Err(broken(at));
        }
        Ok(Self { config, popularity })
    }

    /// Counts `interactions`, `[n_users, n_items]`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory for one number an item.
    pub fn fit(config: MostPopularConfig, interactions: &Csr) -> Result<Self> {
        let mut popularity = vec![0f64; interactions.n_columns()];
        for (&item, &value) in interactions.indices().iter().zip(interactions.values()) {
            popularity[item as usize] += match config.count {
                Count::Users => f64::from(u8::from(value > 0.0)),
                Count::Values => f64::from(value.max(0.0)),
            };
        }
        let popularity = popularity.into_iter().map(|sum| sum as f32).collect();
        Self::new(config, Buffer::from_vec(popularity, "popularity")?)
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], and as [`MostPopular::new`].
    pub fn open(config: &MostPopularConfig, mut parameters: Parameters) -> Result<Self> {
        Self::new(config.clone(), parameters.take_f32("popularity")?)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &MostPopularConfig {
        &self.config
    }

    /// Returns each item's popularity.
    pub fn popularity(&self) -> &[f32] {
        self.popularity.cpu().unwrap_or(&[])
    }
}

impl Retriever for MostPopular {
    fn n_users(&self) -> usize {
        0
    }

    fn n_items(&self) -> usize {
        self.popularity.len()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        dense::score(batch, workspace, (0, self.n_items()), |_, _, scores| {
            scores.copy_from_slice(self.popularity());
            Ok(())
        })
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        let copy = self.popularity.try_copy(Device::Cpu, "popularity")?;
        parameters.insert("popularity", Parameter::F32(copy));
        Ok(parameters)
    }
}
