//! Factors of users and of items, with a bias for each item: what bpr and lmf are made of, which differ in how they learn
//! and how they fold a history in.

use recmill_kernels::{Buffer, Device, Table};

use super::{
    Precision,
    factors::{FactorItems, check_tables},
    fold_in::{Negatives, SolveScratch},
};
use crate::{Batch, ItemIndex, Parameter, Parameters, Query, Result, Workspace};

/// Items that stand for all the others when a history is folded in.
pub const FOLD_IN_NEGATIVES: usize = 512;

/// A user's score for an item is `x_u · y_i + b_i`.
#[derive(Debug)]
pub(crate) struct PairFactors {
    pub(crate) users: Table,
    pub(crate) items: FactorItems,
}

/// What a history is folded into: the items as they are, and those that stand for all.
pub(crate) struct FoldIn<'a> {
    pub(crate) items: &'a Table,
    pub(crate) bias: &'a [f32],
    pub(crate) negatives: &'a Negatives,
}

impl PairFactors {
    pub(crate) fn new(dim: usize, users: Table, items: Table, item_bias: Buffer<f32>) -> Result<Self> {
        check_tables(dim, &users, &items)?;
        Ok(Self { users, items: FactorItems::new(items, Some(item_bias))? })
    }

    pub(crate) fn open(dim: usize, mut parameters: Parameters) -> Result<Self> {
        let users = parameters.take_table("user_factors")?;
        let items = parameters.take_table("item_factors")?;
        let bias = parameters.take_f32("item_bias")?;
        Self::new(dim, users, items, bias)
    }

    pub(crate) fn n_users(&self) -> usize {
        self.users.rows() as usize
    }

    /// Answers `batch`; `fold_in` writes the factors of a history, whose items ascend.
    pub(crate) fn score(
        &self,
        batch: &Batch,
        workspace: &mut Workspace,
        fold_in: impl Fn(&FoldIn<'_>, &[(ItemIndex, f32)], &mut SolveScratch, &mut [f32]) -> Result<()> + Sync,
    ) -> Result<()> {
        self.items.score(batch, workspace, self.n_users(), |row, scratch, vector| {
            match &row.query {
                Query::User(user) => self.users.read_row(u64::from(user.0), vector)?,
                Query::History(history) => {
                    let negatives = self.items.negatives(FOLD_IN_NEGATIVES)?;
                    let into = FoldIn { items: self.items.table(), bias: self.items.bias(), negatives };
                    fold_in(&into, scratch.history.fill(history), &mut scratch.solve, vector)?;
                }
                Query::Item(_) => {}
            }
            Ok(0.0)
        })
    }

    pub(crate) fn score_on(&mut self, device: Device) -> Result<()> {
        self.items.score_on(device)
    }

    pub(crate) fn warm_up(&self) -> Result<()> {
        self.items.negatives(FOLD_IN_NEGATIVES)?;
        self.items.warm_up()
    }

    pub(crate) fn table(&self, name: &str) -> Option<&Table> {
        match name {
            "user_factors" => Some(&self.users),
            "item_factors" => Some(self.items.table()),
            _ => None,
        }
    }

    pub(crate) fn parameters(&self, precision: Precision) -> Result<Parameters> {
        let mut parameters = Parameters::default();
        parameters.insert("user_factors", Parameter::Table(precision.store(&self.users)?));
        parameters.insert("item_factors", Parameter::Table(precision.store(self.items.table())?));
        parameters.insert("item_bias", Parameter::F32(self.items.copy_bias()?));
        Ok(parameters)
    }
}
