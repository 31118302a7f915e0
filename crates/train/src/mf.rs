//! How MF learns: batches of interactions, each told from the batch's other items and drawn ones, Adam for the rows that are touched.
//!
//! ```text
//! a = x / |x| τ^-½      ∂x = (∂a - (∂a · x̂) x̂) τ^-½ / |x|          with cosine similarity; a = x otherwise
//! ```
//!
//! With propagation the rows that are scored by are those of [`Propagation`], and every row is touched.
//!
//! Only interactions of positive value count, each once whatever its value. The loss is the mean over the epoch's interactions, each
//! taken before its own step.

use burn::tensor::Tensor;
use recmill_core::{
    Dataset, Parameters,
    dense::{DeviceBackend, SCORES_AT_ONCE, buffer_of, matrix_of},
    models::{Mf, MfConfig, MfLoss, Retriever, scale_to},
};
use recmill_kernels::{Buffer, Device, RowType, SparseStep, Table, gather};

use crate::{
    Learner, Prediction, Result,
    candidates::{Choosing, drawn},
    data::{Sizes, item_counts, liked},
    factors::{Normal, Stream, copy, on_cpu, take_over},
    gradient::{Order, rate_at},
    learned::{LearnedTable, put_parts, take_parts},
    propagation::Propagation,
};

/// Returns what learns on `device`.
pub(crate) fn learner<'a>(
    config: &'a MfConfig,
    data: &'a Dataset,
    seed: u64,
    device: Device,
) -> Result<Box<dyn Learner + 'a>> {
    on_backend!(device, B => Ok(Box::new(MfLearner::<B>::new(config, data, seed, device)?)))
}

/// Returns the bytes of everything that learning allocates.
pub(crate) fn predict(config: &MfConfig, sizes: &Sizes) -> Prediction {
    let tables = 4 * (sizes.n_users + sizes.n_items) * config.factors as u64;
    let batch = (config.batch_size as u64).min(sizes.n_interactions);
    let candidates = batch + config.n_negatives as u64;
    let scores = (batch * candidates).min(SCORES_AT_ONCE as u64);
    let propagation = match config.propagation_layers {
        0 => 0,
        _ => Propagation::bytes(sizes.n_interactions, tables),
    };
    Prediction::default()
        .add("factors", tables)
        .add("item biases", (1 + sizes.copies()) * 4 * sizes.n_items)
        .add("the optimizer's state", 2 * tables)
        .add("copies of the factors", (sizes.copies() + 1) * tables)
        .add("interactions", 8 * sizes.n_interactions)
        .add("propagation", propagation)
        .add("a batch", 8 * scores + 48 * candidates * config.factors as u64)
}

/// Returns the bytes of it that are on a GPU, where one computes.
pub(crate) fn predict_on_gpu(config: &MfConfig, sizes: &Sizes) -> Prediction {
    predict(config, sizes).without(&["item biases", "copies of the factors", "interactions"])
}

struct MfLearner<'a, B: DeviceBackend> {
    config: &'a MfConfig,
    seed: u64,
    device: Device,
    /// The interactions that count: user and item.
    liked: Vec<(u32, u32)>,
    choosing: Choosing<'a>,
    users: LearnedTable,
    items: LearnedTable,
    /// What is added to each item's score.
    item_bias: Vec<f32>,
    propagation: Option<Propagation>,
    /// The rows are a model's as they are: nothing has been learned since.
    restored: bool,
    backend: std::marker::PhantomData<B>,
}

impl<'a, B: DeviceBackend> MfLearner<'a, B> {
    fn new(config: &'a MfConfig, data: &'a Dataset, seed: u64, device: Device) -> Result<Self> {
        let liked = liked(data)?;
        let choosing = Choosing::new(data, seed, &drawn!(config))?;
        let (dim, scale) = (config.factors, config.init_scale);
        let draw = |rows, stream, what| Normal { rows, dim, scale, seed, stream }.on(device, what);
        let users = draw(data.n_users(), Stream::UserFactors, "user factors")?;
        let items = draw(data.n_items(), Stream::ItemFactors, "item factors")?;
        let propagation = match config.propagation_layers {
            0 => None,
            layers => Some(Propagation::new(layers, &liked, &users, &items)?),
        };
        let counts = item_counts(&liked, data.n_items());
        Ok(Self {
            item_bias: counts.into_iter().map(|n| config.item_bias(n)).collect(),
            propagation,
            restored: false,
            backend: std::marker::PhantomData,
            config,
            seed,
            device,
            liked,
            choosing,
            users: LearnedTable::new(users)?,
            items: LearnedTable::new(items)?,
        })
    }

    /// Takes one step and returns the sum of the losses.
    fn step(&mut self, pairs: &[(u32, u32)], epoch: u32, batch: u64) -> Result<f64> {
        let (users, next): (Vec<u32>, Vec<u32>) = pairs.iter().copied().unzip();
        let owners: Vec<(u32, usize)> = users.iter().map(|&user| (user, 1)).collect();
        let in_batch = self.config.loss == MfLoss::SampledSoftmax;
        let mut choice = self.choosing.choose(&next, &owners, in_batch, epoch, batch);
        choice.add_biases(&self.item_bias);
        let propagated = match &self.propagation {
            Some(propagation) => Some(propagation.of::<B>(&self.users.table, &self.items.table)?),
            None => None,
        };
        let (of_users, of_items) =
            propagated.as_ref().map_or((&self.users.table, &self.items.table), |(u, i)| (u, i));
        let x = Scaled::<B>::new(gather(of_users, &users)?, self.config)?;
        let y = Scaled::<B>::new(gather(of_items, &choice.items)?, self.config)?;
        let loss = self.config.candidate_loss(choice.drawn);
        let (rows, candidates) = (x.scaled.clone(), y.scaled.clone());
        let (sum, found) = choice.compare(rows, candidates, loss, (epoch, self.device))?;
        let (l2, seed) = (self.config.regularization as f32, self.seed);
        let learning_rate = (self.rate(epoch, batch) * self.config.learning_rate) as f32;
        let step = SparseStep { learning_rate, l2, seed };
        let (of_users, of_items) = (x.back(found.rows), y.back(found.candidates));
        let [(users, of_users), (items, of_items)] = match &self.propagation {
            Some(propagation) => propagation.back((&users, of_users), (&choice.items, of_items))?,
            None => [(&users[..], buffer_of(of_users)?), (&choice.items[..], buffer_of(of_items)?)],
        };
        self.users.step_gathered(users, &of_users, &step)?;
        self.items.step_gathered(items, &of_items, &step)?;
        self.restored = false;
        Ok(sum)
    }

    /// Returns the factor of the step size of a batch, from 0, in an epoch, from 1.
    fn rate(&self, epoch: u32, batch: u64) -> f64 {
        let batches = (self.liked.len() as u64).div_ceil(self.config.batch_size as u64);
        let step = (u64::from(epoch) - 1) * batches + batch;
        rate_at(self.config.schedule, 0, step, batches * self.config.iterations as u64)
    }

    /// Returns the rows on the CPU after propagation, where there is some to be done.
    fn propagated(&self) -> Result<Option<(Table, Table)>> {
        let Some(propagation) = self.propagation.as_ref().filter(|_| !self.restored) else { return Ok(None) };
        let (users, items) = propagation.of::<B>(&self.users.table, &self.items.table)?;
        Ok(Some((on_cpu(users, "user factors")?, on_cpu(items, "item factors")?)))
    }

    /// Joins what is scored by to a model: rows of the length that cosines ask for.
    fn model(&self, users: Table, items: Table) -> Result<Box<dyn Retriever>> {
        let scaled = |table: Table, what| -> Result<Table> {
            let Some(length) = self.config.length().filter(|_| !self.restored) else { return Ok(table) };
            let fill = |row, values: &mut [f32]| {
                table.read_row(row, values)?;
                scale_to(length, values);
                Ok(())
            };
            Ok(Table::from_rows(table.rows(), table.dim(), RowType::F32, what, fill)?)
        };
        let bias = Buffer::from_slice(&self.item_bias, Device::Cpu, "item biases")?;
        let (users, items) = (scaled(users, "user factors")?, scaled(items, "item factors")?);
        Ok(Box::new(Mf::new(self.config.clone(), users, items, bias)?))
    }
}

/// Rows as they are scored by, and what leads back.
pub(crate) struct Scaled<B: DeviceBackend> {
    pub(crate) scaled: Tensor<B, 2>,
    /// The rows' directions, and what a row is multiplied by; none where it is scored by as it is.
    cosine: Option<(Tensor<B, 2>, Tensor<B, 2>)>,
}

impl<B: DeviceBackend> Scaled<B> {
    fn new(rows: Buffer<f32>, config: &MfConfig) -> Result<Self> {
        Ok(Self::of(matrix_of::<B>(rows, config.factors)?, config.length()))
    }

    /// Scales rows to `length`, where there is one.
    pub(crate) fn of(rows: Tensor<B, 2>, length: Option<f64>) -> Self {
        let Some(length) = length else { return Self { scaled: rows, cosine: None } };
        let inverse = rows.clone().powi_scalar(2).sum_dim(1).sqrt().clamp_min(1e-12).recip();
        let directions = rows * inverse.clone();
        let scaled = directions.clone() * length as f32;
        Self { scaled, cosine: Some((directions, inverse * length as f32)) }
    }

    /// Returns the gradient of the rows, from that of what they were scaled to.
    pub(crate) fn back(self, gradient: Tensor<B, 2>) -> Tensor<B, 2> {
        let Some((directions, slope)) = self.cosine else { return gradient };
        let along = (gradient.clone() * directions.clone()).sum_dim(1);
        (gradient - directions * along) * slope
    }
}

impl<B: DeviceBackend> Learner for MfLearner<'_, B> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        let n = self.liked.len() as u64;
        let order = Order::new(n, self.seed, epoch);
        let mut loss = 0.0;
        for (batch, first) in (0..n).step_by(self.config.batch_size).enumerate() {
            let places = first..(first + self.config.batch_size as u64).min(n);
            let pairs: Vec<_> = places.map(|place| self.liked[order.sample(place) as usize]).collect();
            loss += self.step(&pairs, epoch, batch as u64).map_err(|error| error.diverged_in(epoch))?;
        }
        Ok(Some(loss / n as f64))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let (users, items) = match self.propagated()? {
            Some(propagated) => propagated,
            None => {
                let users = copy(&self.users.table, "copy of the user factors")?;
                (users, copy(&self.items.table, "copy of the item factors")?)
            }
        };
        let mut model = self.model(users, items)?;
        model.score_on(self.device)?;
        Ok(model)
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.users.table, &parameters.take_table("user_factors")?, "user factors")?;
        self.restored = true;
        take_over(&mut self.items.table, &parameters.take_table("item_factors")?, "item factors")
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_parts([("users_", &mut self.users), ("items_", &mut self.items)])
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_parts(state, [("users_", &mut self.users), ("items_", &mut self.items)])
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Retriever>> {
        if let Some((users, items)) = self.propagated()? {
            return self.model(users, items);
        }
        let none = || Table::zeros(0, self.config.factors, Device::Cpu, "factors");
        let (no_users, no_items) = (none()?, none()?);
        let users = on_cpu(std::mem::replace(&mut self.users.table, no_users), "user factors")?;
        let items = on_cpu(std::mem::replace(&mut self.items.table, no_items), "item factors")?;
        self.model(users, items)
    }
}

#[cfg(test)]
mod tests {
    use recmill_core::{Csr, dense::Cpu, rankers::Schedule};

    use super::*;

    #[test]
    fn a_step_size_that_falls_goes_by_all_epochs() {
        let by_user = Csr::new(4, vec![0, 3, 5], vec![0, 1, 2, 1, 3], vec![1.0; 5]).unwrap();
        let data = Dataset::new(
            crate::data::numbered(2),
            crate::data::numbered(4),
            by_user,
            None,
            vec![0, 1, 2, 0, 1],
        )
        .unwrap();
        // Three batches an epoch.
        let config = MfConfig {
            factors: 2,
            batch_size: 2,
            iterations: 2,
            schedule: Schedule::Linear,
            ..MfConfig::default()
        };
        let rates = |config: &MfConfig| {
            let learner = MfLearner::<Cpu>::new(config, &data, 0, Device::Cpu).unwrap();
            [(1, 0), (1, 2), (2, 0), (2, 2)].map(|(epoch, batch)| (learner.rate(epoch, batch) * 6.0).round())
        };
        assert_eq!(rates(&config), [6.0, 4.0, 3.0, 1.0]);
        assert_eq!(rates(&MfConfig { schedule: Schedule::Constant, ..config }), [6.0; 4]);
    }

    #[test]
    fn the_way_back_through_the_length_is_the_derivative() {
        let config = MfConfig { factors: 3, temperature: 0.25, ..MfConfig::default() };
        let (x, g) = ([0.3f32, -0.8, 0.5], [0.7f32, 0.2, -1.1]);
        let weighed = |x: [f32; 3]| {
            let length = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            x.iter().zip(g).map(|(&x, g)| 2.0 * f64::from(x) / length * f64::from(g)).sum::<f64>()
        };
        let rows = Buffer::from_vec(x.to_vec(), "a test").unwrap();
        let scaled = Scaled::<Cpu>::new(rows, &config).unwrap();
        let gradient = Buffer::from_vec(g.to_vec(), "a test").unwrap();
        let back = scaled.back(matrix_of(gradient, 3).unwrap());
        for (at, ours) in buffer_of(back).unwrap().into_vec().unwrap().into_iter().enumerate() {
            let moved = |by: f32| {
                let mut x = x;
                x[at] += by;
                weighed(x)
            };
            let expected = (moved(1e-3) - moved(-1e-3)) / 2e-3;
            assert!((f64::from(ours) - expected).abs() < 1e-3, "{ours} for {expected}");
        }
    }
}
