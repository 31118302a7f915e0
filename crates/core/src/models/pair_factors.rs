//! Models of factors of users and of items, with a bias for each item: bpr, lmf, warp and mf, which differ in how they learn and how
//! they fold a history in; and what two-tower scores by.

use recmill_kernels::{Buffer, Device, Table};

use super::{
    Precision, Retriever,
    factors::{FactorItems, check_tables},
    fold_in::{Negatives, SolveScratch},
};
use crate::{Batch, ItemIndex, Parameter, Parameters, Query, Result, Side, Workspace};

/// Items that stand for all the others when a history is folded in.
pub const FOLD_IN_NEGATIVES: usize = 512;

/// What a history is folded into: the items as they are, and those that stand for all.
pub struct FoldIn<'a> {
    pub(crate) items: &'a Table,
    pub(crate) bias: &'a [f32],
    pub(crate) negatives: &'a Negatives,
    /// Leaves out of them what is in the history.
    pub(crate) verify_negatives: bool,
}

/// The configuration of a [`PairModel`].
pub trait PairConfig: Clone + Send + Sync {
    /// Length of the vectors.
    fn factors(&self) -> usize;

    /// Number type of the stored factors.
    fn precision(&self) -> Precision;

    /// Returns whether negatives leave out what the user has had.
    fn verify_negatives(&self) -> bool;

    /// Lists everything that is wrong with the values.
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`].
    fn check(&self) -> Result<()>;

    /// Writes the factors of a history, whose items ascend, to `vector`.
    ///
    /// # Errors
    /// [`crate::Error::Kernel`] when the solution is not finite.
    fn fold_in(
        &self,
        into: &FoldIn<'_>,
        history: &[(ItemIndex, f32)],
        scratch: &mut SolveScratch,
        vector: &mut [f32],
    ) -> Result<()>;
}

/// What every configuration says of itself in the same words: to stand in its [`PairConfig`].
macro_rules! pair_fields {
    () => {
        fn factors(&self) -> usize {
            self.factors
        }

        fn precision(&self) -> $crate::models::Precision {
            self.precision
        }

        fn verify_negatives(&self) -> bool {
            self.verify_negatives
        }

        fn check(&self) -> $crate::Result<()> {
            self.validate()
        }
    };
}
pub(super) use pair_fields;

/// Scales a vector to `length`; one of length 0 stays as it is.
pub fn scale_to(length: f64, vector: &mut [f32]) {
    let own = vector.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
    let scale = if own > 0.0 { length / own } else { 0.0 };
    vector.iter_mut().for_each(|x| *x = (f64::from(*x) * scale) as f32);
}

/// Factors and biases by which a user's score for an item is `x_u · y_i + b_i`.
#[derive(Debug)]
pub struct PairModel<C> {
    config: C,
    users: Table,
    items: FactorItems,
}

impl<C: PairConfig> PairModel<C> {
    /// Joins factors to a model.
    ///
    /// # Shapes
    /// - `user_factors`: `[n_users, factors]`
    /// - `item_factors`: `[n_items, factors]`
    /// - `item_bias`: `[n_items]`; zeros where the configuration has none
    ///
    /// # Errors
    /// [`crate::Error::InvalidConfig`]; [`crate::Error::WrongSize`] when a part does not fit.
    pub fn new(config: C, user_factors: Table, item_factors: Table, item_bias: Buffer<f32>) -> Result<Self> {
        config.check()?;
        check_tables(config.factors(), &user_factors, &item_factors)?;
        Ok(Self { config, users: user_factors, items: FactorItems::new(item_factors, Some(item_bias))? })
    }

    /// Opens a model from its parameters.
    ///
    /// # Errors
    /// [`crate::Error::MissingParameter`], and as [`PairModel::new`].
    pub fn open(config: &C, mut parameters: Parameters) -> Result<Self> {
        let users = parameters.take_table("user_factors")?;
        let items = parameters.take_table("item_factors")?;
        let bias = parameters.take_f32("item_bias")?;
        Self::new(config.clone(), users, items, bias)
    }

    /// Returns the hyper-parameters.
    pub fn config(&self) -> &C {
        &self.config
    }

    /// Returns the users' factors, `[n_users, factors]`.
    pub fn user_factors(&self) -> &Table {
        &self.users
    }

    /// Returns the items' factors, `[n_items, factors]`.
    pub fn item_factors(&self) -> &Table {
        self.items.table()
    }

    /// Returns the items' biases, `[n_items]`.
    pub fn item_bias(&self) -> &[f32] {
        self.items.bias()
    }
}

impl<C: PairConfig> PairModel<C> {
    /// Adds rows behind those that there are, items with the mean of the biases; scores on the CPU from then on.
    pub(super) fn add_rows(&mut self, side: Side, more: &Table) -> Result<()> {
        let table = match side {
            Side::Users => &self.users,
            Side::Items => self.items.table(),
        };
        let known = table.rows();
        let fill = |row: u64, values: &mut [f32]| match row.checked_sub(known) {
            None => table.read_row(row, values),
            Some(row) => more.read_row(row, values),
        };
        let all = Table::from_rows(
            known + more.rows(),
            table.dim(),
            table.row_type(),
            "factors and new ones",
            fill,
        )?;
        match side {
            Side::Users => self.users = all,
            Side::Items => {
                let mut bias = self.items.bias().to_vec();
                let sum: f64 = bias.iter().map(|&bias| f64::from(bias)).sum();
                bias.resize(all.rows() as usize, (sum / known.max(1) as f64) as f32);
                self.items = FactorItems::new(all, Some(Buffer::from_vec(bias, "item biases")?))?;
            }
        }
        Ok(())
    }
}

impl<C: PairConfig> Retriever for PairModel<C> {
    fn n_users(&self) -> usize {
        self.users.rows() as usize
    }

    fn n_items(&self) -> usize {
        self.items.n_items()
    }

    fn score(&self, batch: &Batch, workspace: &mut Workspace) -> Result<()> {
        self.items.score(batch, workspace, self.n_users(), |row, scratch, vector| {
            match &row.query {
                Query::User(user) => self.users.read_row(u64::from(user.0), vector)?,
                Query::History(history) => {
                    let negatives = self.items.negatives(FOLD_IN_NEGATIVES)?;
                    let into = FoldIn {
                        items: self.items.table(),
                        bias: self.items.bias(),
                        negatives,
                        verify_negatives: self.config.verify_negatives(),
                    };
                    let history = scratch.history.fill(history);
                    self.config.fold_in(&into, history, &mut scratch.solve, vector)?;
                }
                Query::Item(_) => {}
            }
            Ok(0.0)
        })
    }

    fn scores_on_gpu(&self) -> bool {
        true
    }

    fn score_on(&mut self, device: Device) -> Result<()> {
        self.items.score_on(device)
    }

    fn warm_up(&self) -> Result<()> {
        self.items.negatives(FOLD_IN_NEGATIVES)?;
        self.items.warm_up()
    }

    fn table(&self, name: &str) -> Option<&Table> {
        match name {
            "user_factors" => Some(&self.users),
            "item_factors" => Some(self.items.table()),
            _ => None,
        }
    }

    fn parameters(&self) -> Result<Parameters> {
        let precision = self.config.precision();
        let mut parameters = Parameters::default();
        parameters.insert("user_factors", Parameter::Table(precision.store(&self.users)?));
        parameters.insert("item_factors", Parameter::Table(precision.store(self.items.table())?));
        parameters.insert("item_bias", Parameter::F32(self.items.copy_bias()?));
        Ok(parameters)
    }
}
