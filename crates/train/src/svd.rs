//! How SVD learns: by steps down the gradient of one rating at a time, or by solving users and items in turn.
//!
//! | solver | an epoch                                                     | bits                              |
//! |--------|--------------------------------------------------------------|-----------------------------------|
//! | sgd    | every rating once, in cells of disjoint rows and columns     | the same for any number of threads |
//! | als    | every user exactly, then every item exactly (`svd_als`)      | the same for any number of threads |
//!
//! The loss is the mean squared error of the training values as predicted after the epoch.

use rayon::prelude::*;
use recmill_core::{
    Dataset, Parameters,
    models::{Retriever, Svd, SvdConfig, SvdFactors, SvdSolver, ValueRange},
};
use recmill_kernels::{Buffer, Device, RatingEpoch, RatingFactors, Table, rating_epoch, rating_epoch_bytes};

use crate::{
    Error, Learner, Prediction, Result,
    data::{Sizes, sparse_rows},
    factors::{Normal, Stream, copy, take_over, take_over_bias},
    learned::{put_plain, take_plain},
    svd_als::{Fixed, solve},
};

/// Factors and biases of users and items, and the ratings they are learnt from.
pub(crate) struct SvdLearner<'a> {
    config: &'a SvdConfig,
    data: &'a Dataset,
    seed: u64,
    users: Table,
    items: Table,
    user_bias: Vec<f32>,
    item_bias: Vec<f32>,
    range: ValueRange,
}

impl<'a> SvdLearner<'a> {
    pub(crate) fn new(config: &'a SvdConfig, data: &'a Dataset, seed: u64) -> Result<Self> {
        let (dim, scale) = (config.factors, config.init_scale);
        let draw = |rows, stream, what| Normal { rows, dim, scale, seed, stream }.on(Device::Cpu, what);
        Ok(Self {
            users: draw(data.n_users(), Stream::UserFactors, "user factors")?,
            items: draw(data.n_items(), Stream::ItemFactors, "item factors")?,
            user_bias: vec![0.0; data.n_users()],
            item_bias: vec![0.0; data.n_items()],
            range: value_range(data.by_user().values()),
            config,
            data,
            seed,
        })
    }

    /// Returns the bytes of everything that [`SvdLearner`] allocates.
    pub(crate) fn predict(config: &SvdConfig, sizes: &Sizes) -> Prediction {
        let row = 4 * (config.factors as u64 + 1);
        let rows = sizes.n_users + sizes.n_items;
        let (by_item, scratch) = match config.solver {
            SvdSolver::Als => {
                (sizes.by_item_bytes(), 8 * sizes.n_threads * (config.factors as u64 + 1).pow(2))
            }
            SvdSolver::Sgd => (0, rating_epoch_bytes(sizes.n_users, sizes.n_items, sizes.n_interactions)),
        };
        Prediction::default()
            .add("interactions by item", by_item)
            .add("user factors", sizes.n_users * row)
            .add("item factors", sizes.n_items * row)
            .add("copies of the factors", sizes.copies() * rows * row)
            .add("scratch", scratch)
    }

    /// Visits every rating once.
    fn step_down(&mut self, number: u32) -> Result<()> {
        let epoch = RatingEpoch {
            rows: sparse_rows(self.data.by_user()),
            mean: self.range.mean,
            learning_rate: self.config.learning_rate as f32,
            regularization: self.config.regularization as f32,
            bias_regularization: self.config.regularization as f32,
            seed: self.seed,
            epoch: u64::from(number),
        };
        let mut factors = RatingFactors {
            row_factors: &mut self.users,
            column_factors: &mut self.items,
            row_bias: &mut self.user_bias,
            column_bias: &mut self.item_bias,
        };
        rating_epoch(&epoch, &mut factors).map_err(|error| Error::from(error).diverged_in(number))?;
        Ok(())
    }

    fn solve_both(&mut self) -> Result<()> {
        let (mean, regularization) = (self.range.mean, self.config.regularization);
        let on_cpu = || Error::Unsupported { what: "explicit als", reason: "its factors are not on the cpu" };
        let fixed = Fixed {
            values: self.data.by_user(),
            factors: self.items.f32_rows().ok_or_else(on_cpu)?,
            bias: &self.item_bias,
            mean,
            regularization,
        };
        solve(&fixed, &mut self.users, &mut self.user_bias)?;
        let fixed = Fixed {
            values: self.data.by_item(),
            factors: self.users.f32_rows().ok_or_else(on_cpu)?,
            bias: &self.user_bias,
            mean,
            regularization,
        };
        solve(&fixed, &mut self.items, &mut self.item_bias)
    }

    fn factors(&self) -> Result<SvdFactors> {
        Ok(SvdFactors {
            user_factors: copy(&self.users, "copy of the user factors")?,
            user_bias: Buffer::from_slice(&self.user_bias, Device::Cpu, "copy of the user biases")?,
            item_factors: copy(&self.items, "copy of the item factors")?,
            item_bias: Buffer::from_slice(&self.item_bias, Device::Cpu, "copy of the item biases")?,
            range: self.range,
        })
    }
}

impl Learner for SvdLearner<'_> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        match self.config.solver {
            SvdSolver::Als => self.solve_both(),
            SvdSolver::Sgd => self.step_down(epoch),
        }?;
        Ok(None)
    }

    fn loss(&mut self) -> Result<Option<f64>> {
        let (Some(users), Some(items)) = (self.users.f32_rows(), self.items.f32_rows()) else {
            return Ok(None);
        };
        let values = self.data.by_user();
        // One sum a user, added in the order of the users: the same bits for any number of threads.
        let sums: Vec<f64> = (0..values.n_rows())
            .into_par_iter()
            .map(|user| {
                let x = users.row(user);
                let (columns, row) = values.row(user);
                let errors = columns.iter().zip(row).map(|(&item, &value)| {
                    let dot: f32 = x.iter().zip(items.row(item as usize)).map(|(a, b)| a * b).sum();
                    let bias = self.range.mean + self.user_bias[user] + self.item_bias[item as usize];
                    f64::from(value - bias - dot).powi(2)
                });
                errors.sum()
            })
            .collect();
        Ok(Some(sums.iter().sum::<f64>() / values.nnz() as f64))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        Ok(Box::new(Svd::new(self.config.clone(), self.factors()?)?))
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.users, &parameters.take_table("user_factors")?, "user factors")?;
        take_over(&mut self.items, &parameters.take_table("item_factors")?, "item factors")?;
        take_over_bias(&mut self.user_bias, &parameters.take_f32("user_bias")?)?;
        take_over_bias(&mut self.item_bias, &parameters.take_f32("item_bias")?)
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_plain(
            [("users", &mut self.users), ("items", &mut self.items)],
            [("user_bias", &mut self.user_bias), ("item_bias", &mut self.item_bias)],
        )
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_plain(
            state,
            [("users", &mut self.users), ("items", &mut self.items)],
            [("user_bias", &mut self.user_bias), ("item_bias", &mut self.item_bias)],
        )
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Retriever>> {
        let factors = SvdFactors {
            user_factors: self.users,
            user_bias: Buffer::from_vec(self.user_bias, "user biases")?,
            item_factors: self.items,
            item_bias: Buffer::from_vec(self.item_bias, "item biases")?,
            range: self.range,
        };
        Ok(Box::new(Svd::new(self.config.clone(), factors)?))
    }
}

fn value_range(values: &[f32]) -> ValueRange {
    let sum: f64 = values.iter().map(|&value| f64::from(value)).sum();
    ValueRange {
        mean: (sum / values.len().max(1) as f64) as f32,
        min: values.iter().copied().fold(f32::INFINITY, f32::min),
        max: values.iter().copied().fold(f32::NEG_INFINITY, f32::max),
    }
}
