//! Item-kNN: an item is scored by how similar it is to what the user already has.
//!
//! ```text
//! s_uj = Σ_(i in history) v_ui sim(i, j)
//! ```
//!
//! `sim` keeps only the most similar items of each; similar items are those of one such list, best first. The model
//! has no users: everyone, known or new, is answered from their history, so folding in gives the same list.
//!
//! Source: Sarwar, Karypis, Konstan, Riedl 2001 (cosine); Deshpande, Karypis 2004 (damping); Robertson, Walker 1994
//! (BM25); Paudel, Christoffel, Newell, Bernstein 2017 (RP3beta).

use std::sync::OnceLock;

use recmill_kernels::{Buffer, Device};
use serde::{Deserialize, Serialize};

use super::{Problems, Retriever, dense};
use crate::{Batch, Error, Parameter, Parameters, Query, Result, Workspace};

/// How alike two items are, from who interacted with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The cosine of the items' columns, damped by --user-damping and --item-damping.
    #[default]
    Cosine,
    /// The cosine after rarer users weigh more (TF-IDF).
    Tfidf,
    /// The cosine after BM25 weights, with --bm25-k1 and --bm25-b.
    Bm25,
    /// A three-step random walk item, user, item, damped by popularity: --rp3-alpha and --rp3-beta.
    Rp3beta,
}

/// Whose list of most similar items is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum NeighboursOf {
    /// Each item of the history reaches the items most like it.
    History,
    /// Each candidate is reached by the items most like it.
    #[default]
    Candidate,
}

/// Hyper-parameters of [`ItemKnn`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
#[serde(default, deny_unknown_fields)]
pub struct ItemKnnConfig {
    /// How alike two items are.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().measure))]
    pub measure: Measure,
    /// Similar items kept for each item. 50 to 500 is usual; more costs memory and scoring time in proportion.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().neighbours))]
    pub neighbours: usize,
    /// Whose list of most similar items is kept.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Self::default().neighbours_of))]
    pub neighbours_of: NeighboursOf,
    /// Added to the denominator of a similarity, so that items with few users in common count less. 0 to 100.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().shrinkage))]
    pub shrinkage: f64,
    /// A user of n interactions weighs n^-damping: users who take everything say less. 0 is off, 0.5 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().user_damping))]
    pub user_damping: f64,
    /// An item of n interactions has its similarities multiplied by n^-damping: popular items come up less. 0 is off.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().item_damping))]
    pub item_damping: f64,
    /// Counts every interaction as 1, whatever its value.
    #[cfg_attr(feature = "clap", arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true",
        default_value_t = Self::default().binary, action = clap::ArgAction::Set))]
    pub binary: bool,
    /// With --measure bm25: how soon a repeated interaction stops counting more.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().bm25_k1))]
    pub bm25_k1: f64,
    /// With --measure bm25: how much a popular item is normalised, 0 to 1.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().bm25_b))]
    pub bm25_b: f64,
    /// With --measure rp3beta: power of the walk's probabilities. 1 is the plain walk.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().rp3_alpha))]
    pub rp3_alpha: f64,
    /// With --measure rp3beta: a reached item of n interactions is divided by n^beta. 0 is off; 0.3 to 0.8 is usual.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = Self::default().rp3_beta))]
    pub rp3_beta: f64,
}

impl Default for ItemKnnConfig {
    fn default() -> Self {
        Self {
            measure: Measure::Cosine,
            neighbours: 200,
            neighbours_of: NeighboursOf::Candidate,
            shrinkage: 10.0,
            user_damping: 0.7,
            item_damping: 0.47,
            binary: true,
            bm25_k1: 1.2,
            bm25_b: 0.75,
            rp3_alpha: 1.0,
            rp3_beta: 0.5,
        }
    }
}

impl ItemKnnConfig {
    /// Lists everything that is wrong with the values, at once.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`].
    pub fn validate(&self) -> Result<()> {
        let mut problems = Problems::new("item-knn");
        problems.at_least_one("neighbours", self.neighbours);
        problems.not_negative("shrinkage", self.shrinkage);
        problems.not_negative("user_damping", self.user_damping);
        problems.not_negative("item_damping", self.item_damping);
        problems.not_negative("bm25_k1", self.bm25_k1);
        if !(0.0..=1.0).contains(&self.bm25_b) {
            problems.add("bm25_b", "from 0 to 1", self.bm25_b);
        }
        problems.not_negative("rp3_alpha", self.rp3_alpha);
        problems.not_negative("rp3_beta", self.rp3_beta);
        problems.finish()
    }

    /// Returns what the model computes in full, as config.json and `inspect` print it.
    pub fn objective(&self) -> String {
        let measure = match self.measure {
            Measure::Cosine => "cosine".to_owned(),
            Measure::Tfidf => "tf-idf cosine".to_owned(),
            Measure::Bm25 => format!("bm25 cosine (k1 = {}, b = {})", self.bm25_k1, self.bm25_b),
            Measure::Rp3beta => format!("rp3beta (alpha = {}, beta = {})", self.rp3_alpha, self.rp3_beta),
        };
        let values = if self.binary { "1" } else { "value" };
        let whose = match self.neighbours_of {
            NeighboursOf::History => "history item",
            NeighboursOf::Candidate => "candidate",
        };
        format!(
            "no training objective: score(u, j) = sum over history i of {values} * sim(i, j), sim = {measure}, the {} most \
             similar of each {whose}, shrinkage {}, users damped by degree^-{}, items by degree^-{}",
            self.neighbours, self.shrinkage, self.user_damping, self.item_damping
        )
    }
}

/// The most similar items of each item.
///
/// ```
/// use recmill_core::{Batch, ItemIndex, Query, Row, Workspace, models::{ItemKnn, ItemKnnConfig, Retriever}};
/// use recmill_kernels::Buffer;
///
/// // Item 0 is like 1 and 2, the others like 0.
/// let ends = Buffer::from_vec(vec![0, 2, 3, 4], "ends")?;
/// let neighbours = Buffer::from_vec(vec![1, 2, 0, 0], "neighbours")?;
/// let similarities = Buffer::from_vec(vec![0.5, 0.75, 0.5, 0.75], "similarities")?;
/// let model = ItemKnn::new(ItemKnnConfig::default(), ends, neighbours, similarities)?;
/// let row = Row::new(Query::Item(ItemIndex(0)), 10);
/// let mut workspace = Workspace::default();
/// model.score(&Batch { rows: vec![row] }, &mut workspace)?;
/// assert_eq!(workspace.answer(0), (&[ItemIndex(2), ItemIndex(1)][..], &[0.75, 0.5][..]));
/// # Ok::<(), recmill_core::Error>(())
/// ```
#[derive(Debug)]
pub struct ItemKnn {
    config: ItemKnnConfig,
    indptr: Buffer<u64>,
    indices: Buffer<u32>,
    values: Buffer<f32>,
    /// For each history item the candidates it reaches, where those are not its own neighbours.
    reached: OnceLock<Reached>,
}

/// The lists by the other end: item `i` has `items[ends[i] .. ends[i + 1]]`, those that have `i` among their neighbours.
#[derive(Debug)]
struct Reached {
    ends: Vec<usize>,
    items: Vec<u32>,
    similarities: Vec<f32>,
}

impl Reached {
    fn by(&self, item: usize) -> (&[u32], &[f32]) {
        let range = self.ends[item]..self.ends[item + 1];
        (&self.items[range.clone()], &self.similarities[range])
    }
}

impl ItemKnn {
    /// Joins neighbour lists to a model: item `i` has the neighbours `indices[indptr[i] .. indptr[i + 1]]`, in any order,
    /// with their similarities in `values`.
    ///
    /// # Errors
    /// [`Error::InvalidConfig`]; [`Error::Inconsistent`] when the lists are no lists of items.
    pub fn new(
        config: ItemKnnConfig,
        indptr: Buffer<u64>,
        indices: Buffer<u32>,
        values: Buffer<f32>,
    ) -> Result<Self> {
        config.validate()?;
        let broken = |what, at: usize| Error::Inconsistent { what, at: at as u64 };
        let (Some(ends), Some(items), Some(_)) = (indptr.cpu(), indices.cpu(), values.cpu()) else {
            return Err(broken("device of the neighbours", 0));
        };
        if ends.first() != Some(&0)
            || ends.last() != Some(&(items.len() as u64))
            || values.len() != items.len()
        {
            return Err(broken("number of neighbours", items.len()));
        }
        if let Some(row) = ends.windows(2).position(|pair| pair[0] > pair[1]) {
            return Err(broken("neighbour list", row));
        }
        let n_items = ends.len() - 1;
        if let Some(at) = items.iter().position(|&item| item as usize >= n_items) {
            return Err(broken("neighbour", at));
        }
        Ok(Self { config, indptr, indices, values, reached: OnceLock::new() })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`Error::MissingParameter`], and as [`ItemKnn::new`].
    pub fn open(config: &ItemKnnConfig, mut parameters: Parameters) -> Result<Self> {
        let indptr = parameters.take_u64("neighbour_ends")?;
        let indices = parameters.take_u32("neighbour_items")?;
        let values = parameters.take_f32("neighbour_values")?;
        Self::new(config.clone(), indptr, indices, values)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &ItemKnnConfig {
        &self.config
    }

    /// Returns the neighbours of `item` and their similarities.
    pub fn neighbours(&self, item: usize) -> (&[u32], &[f32]) {
        let ends = self.indptr.cpu().unwrap_or(&[]);
        let range = ends[item] as usize..ends[item + 1] as usize;
        (&self.indices.cpu().unwrap_or(&[])[range.clone()], &self.values.cpu().unwrap_or(&[])[range])
    }

    fn reached(&self) -> &Reached {
        self.reached.get_or_init(|| {
            let n_items = self.n_items();
            let mut ends = vec![0; n_items + 1];
            for j in 0..n_items {
                for &i in self.neighbours(j).0 {
                    ends[i as usize + 1] += 1;
                }
            }
            for i in 0..n_items {
                ends[i + 1] += ends[i];
            }
            let mut next = ends.clone();
            let n = self.indices.len();
            let mut reached = Reached { ends, items: vec![0; n], similarities: vec![0.0; n] };
            for j in 0..n_items {
                let (neighbours, similarities) = self.neighbours(j);
                for (&i, &similarity) in neighbours.iter().zip(similarities) {
                    let at = next[i as usize];
                    reached.items[at] = j as u32;
                    reached.similarities[at] = similarity;
                    next[i as usize] += 1;
                }
            }
            reached
        })
    }
}

impl Retriever for ItemKnn {
    fn n_users(&self) -> usize {
        0
    }

    fn n_items(&self) -> usize {
        self.indptr.len().saturating_sub(1)
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        let reached = (self.config.neighbours_of == NeighboursOf::Candidate).then(|| self.reached());
        dense::score(batch, workspace, (0, self.n_items()), |row, scratch, scores| {
            let mut add = |(items, similarities): (&[u32], &[f32]), value: f32| {
                for (&item, &similarity) in items.iter().zip(similarities) {
                    scores[item as usize] += value * similarity;
                }
            };
            match &row.query {
                Query::History(history) => {
                    for &(item, value) in scratch.history.fill(history) {
                        let value = if self.config.binary { f32::from(value > 0.0) } else { value };
                        match reached {
                            Some(reached) => add(reached.by(item.at()), value),
                            None => add(self.neighbours(item.at()), value),
                        }
                    }
                }
                Query::Item(item) => add(self.neighbours(item.at()), 1.0),
                Query::User(_) => {}
            }
            Ok(())
        })
    }

    fn warm_up(&self) -> Result<()> {
        if self.config.neighbours_of == NeighboursOf::Candidate {
            self.reached();
        }
        Ok(())
    }

    fn parameters(&self) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        let what = "neighbours";
        parameters.insert("neighbour_ends", Parameter::U64(self.indptr.try_copy(Device::Cpu, what)?));
        parameters.insert("neighbour_items", Parameter::U32(self.indices.try_copy(Device::Cpu, what)?));
        parameters.insert("neighbour_values", Parameter::F32(self.values.try_copy(Device::Cpu, what)?));
        Ok(parameters)
    }
}
