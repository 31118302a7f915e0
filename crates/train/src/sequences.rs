//! How models of sequences learn: batches of histories, each position against candidates, Adam for the network and for the touched items' vectors.
//!
//! A user's history is cut from its end into windows of at most `max_length` events that each have a next one. Batches are windows in an
//! order of (seed, epoch). All positions of a batch share the candidates: all items, or the batch's own next items and `n_negatives`
//! drawn ones, of which each is hidden from whoever has had it. A dislike (a value of 0 or less) is no part of a history.
//!
//! The loss is the mean over the epoch's positions, each taken before its own step.

use std::sync::Arc;

use burn::{backend::Autodiff, tensor::Tensor};
use recmill_core::{
    Dataset, Parameter, Parameters,
    dense::{
        Against, DeviceBackend, Dropout, InTraining, Initial, SCORES_AT_ONCE, buffer_of, matrix_of,
        put_parameters,
    },
    models::{
        Retriever, SequenceConfig, SequenceLoss, SequenceModel, SequenceNetwork, SequenceRows,
        SequenceSettings,
    },
};
use recmill_kernels::{Device, SparseStep, Table, gather};

use crate::{
    Error, Learner, Prediction, Result,
    candidates::{Choice, Choosing, drawn},
    data::Sizes,
    factors::{Normal, Stream, copy, on_cpu, take_over, take_over_network},
    gradient::{DenseGradients, Order},
    learned::{LearnedNetwork, LearnedTable, put_parts, take_parts},
};

/// Returns what learns on `device`.
pub(crate) fn learner<'a, C: SequenceConfig>(
    config: &'a C,
    data: &'a Dataset,
    seed: u64,
    device: Device,
) -> Result<Box<dyn Learner + 'a>> {
    on_backend!(device, B => Ok(Box::new(SequenceLearner::<C, B>::new(config, data, seed, device)?)))
}

/// Returns the bytes of everything that learning allocates.
pub(crate) fn predict(config: &impl SequenceConfig, sizes: &Sizes) -> Prediction {
    let settings = config.settings();
    let table = 4 * sizes.n_items * settings.factors as u64;
    let positions = (settings.batch_size as u64 * settings.max_length as u64).min(sizes.n_interactions);
    let candidates = match settings.loss {
        SequenceLoss::Softmax => sizes.n_items,
        _ => positions.min(sizes.n_items) + settings.n_negatives as u64,
    };
    let network = config.n_parameters();
    Prediction::default()
        .add("item factors", table)
        .add("the optimizer's state", 2 * table)
        .add("copies of the item factors", sizes.copies() * table)
        .add("the network and its optimizer", 16 * network)
        .add("copies of the network", sizes.copies() * 4 * network)
        .add("histories", 8 * sizes.n_interactions)
        .add("a batch", 4 * positions * config.values_per_position() as u64)
        .add(
            "scores of a batch",
            8 * (positions * candidates).min(SCORES_AT_ONCE as u64)
                + 12 * candidates * settings.factors as u64,
        )
}

/// Returns the bytes of it that are on a GPU, where one computes.
pub(crate) fn predict_on_gpu(config: &impl SequenceConfig, sizes: &Sizes) -> Prediction {
    predict(config, sizes).without(&["copies of the item factors", "copies of the network", "histories"])
}

/// A run of a user's history: events that each have a next one.
#[derive(Clone, Copy)]
struct Window {
    user: u32,
    /// Of the items of all histories.
    begin: usize,
    /// Events, without the last one's next.
    len: u32,
}

struct SequenceLearner<'a, C: SequenceConfig, B: DeviceBackend> {
    config: &'a C,
    settings: SequenceSettings,
    data: &'a Dataset,
    seed: u64,
    device: Device,
    /// Liked items of all users, oldest first, user after user.
    items_in_order: Vec<u32>,
    windows: Vec<Window>,
    choosing: Choosing<'a>,
    items: LearnedTable,
    network: LearnedNetwork<B, C::Network<Autodiff<B>>>,
}

impl<'a, C: SequenceConfig, B: DeviceBackend> SequenceLearner<'a, C, B> {
    fn new(config: &'a C, data: &'a Dataset, seed: u64, device: Device) -> Result<Self> {
        let settings = config.settings();
        let (items_in_order, windows) = windows(data, settings.max_length);
        if windows.is_empty() {
            return Err(Error::NoData { what: "users with two events of positive value" });
        }
        let choosing = Choosing::new(data, seed, &drawn!(settings))?;
        let (rows, dim, scale) = (data.n_items(), settings.factors, settings.init_scale);
        let drawn = Normal { rows, dim, scale, seed, stream: Stream::ItemFactors };
        let items = drawn.on(device, "item factors")?;
        let on = B::device(device)?;
        Ok(Self {
            network: LearnedNetwork::new(config.network(&mut Initial::new(seed, &on))),
            config,
            settings,
            data,
            seed,
            device,
            items_in_order,
            windows,
            choosing,
            items: LearnedTable::new(items)?,
        })
    }

    /// Says what the positions of `windows` choose from, whose next items are `next`.
    fn choose(&self, windows: &[(u64, Window)], next: &[u32], epoch: u32, batch: u64) -> Choice {
        let owners: Vec<(u32, usize)> =
            windows.iter().map(|(_, window)| (window.user, window.len as usize)).collect();
        match self.settings.loss {
            SequenceLoss::Softmax => self.choosing.all(next, &owners),
            loss => {
                let in_batch = loss == SequenceLoss::SampledSoftmax;
                self.choosing.choose(next, &owners, in_batch, epoch, batch)
            }
        }
    }

    /// Takes one step and returns the sum of the positions' losses, and how many there were.
    fn step(&mut self, windows: &[(u64, Window)], epoch: u32, batch: u64) -> Result<(f64, usize)> {
        let dim = self.settings.factors;
        let (mut items, mut next, mut rows, mut ends) =
            (Vec::new(), Vec::new(), SequenceRows::default(), Vec::new());
        let mut samples = Vec::new();
        for &(at, window) in windows {
            let range = window.begin..window.begin + window.len as usize;
            items.extend_from_slice(&self.items_in_order[range.clone()]);
            next.extend_from_slice(&self.items_in_order[range.start + 1..range.end + 1]);
            rows.places.extend(0..window.len);
            samples
                .extend((0..u64::from(window.len)).map(|place| at * self.settings.max_length as u64 + place));
            ends.push(items.len() as u32);
        }
        rows.ends = Arc::from(ends);
        let n = items.len();
        let choice = self.choose(windows, &next, epoch, batch);

        let leaf =
            Tensor::<Autodiff<B>, 2>::from_inner(matrix_of::<B>(gather(&self.items.table, &items)?, dim)?);
        let leaf = leaf.require_grad();
        let training = InTraining::new(Dropout { seed: self.seed, epoch, samples });
        let states = self.network.network.forward(leaf.clone(), &rows, Some(&training));
        let candidates = matrix_of::<B>(gather(&self.items.table, &choice.items)?, dim)?;
        let loss = self.settings.candidate_loss(choice.drawn, self.data.n_items());
        let compared = choice.compare(states.clone().inner(), candidates, loss, (epoch, self.device))?;
        let (sum, Against { rows: of_states, candidates: of_candidates, .. }) = compared;
        let gradients = (states * Tensor::from_inner(of_states)).sum().backward();
        let of_network = DenseGradients::of(&self.network.network, &gradients);
        self.network.step(of_network, self.settings.learning_rate);
        let of_leaf =
            leaf.grad(&gradients).unwrap_or_else(|| Tensor::zeros([n, dim], &of_candidates.device()));
        let gradient = buffer_of(Tensor::cat(vec![of_leaf, of_candidates], 0))?;
        items.extend_from_slice(&choice.items);
        let step = SparseStep { learning_rate: self.settings.learning_rate as f32, l2: 0.0, seed: self.seed };
        self.items.step_gathered(&items, &gradient, &step)?;
        Ok((sum, n))
    }

    fn model(&self, items: Table) -> Result<Box<dyn Retriever>> {
        let mut parameters = Parameters::default();
        put_parameters(&self.network.network, &mut parameters)?;
        parameters.insert("item_factors", Parameter::Table(items));
        Ok(Box::new(SequenceModel::open(self.config, parameters)?))
    }
}

impl<C: SequenceConfig, B: DeviceBackend> Learner for SequenceLearner<'_, C, B> {
    fn epoch(&mut self, epoch: u32) -> Result<Option<f64>> {
        let n = self.windows.len() as u64;
        let order = Order::new(n, self.seed, epoch);
        let (mut loss, mut positions) = (0.0, 0);
        for (batch, first) in (0..n).step_by(self.settings.batch_size).enumerate() {
            let places = first..(first + self.settings.batch_size as u64).min(n);
            let windows: Vec<(u64, Window)> = places
                .map(|place| order.sample(place))
                .map(|sample| (sample, self.windows[sample as usize]))
                .collect();
            let step = self.step(&windows, epoch, batch as u64);
            let (sum, n) = step.map_err(|error| error.diverged_in(epoch))?;
            loss += sum;
            positions += n;
        }
        Ok(Some(loss / positions.max(1) as f64))
    }

    fn snapshot(&self) -> Result<Box<dyn Retriever>> {
        let mut model = self.model(copy(&self.items.table, "copy of the item factors")?)?;
        model.score_on(self.device)?;
        Ok(model)
    }

    fn restore(&mut self, mut parameters: Parameters) -> Result<()> {
        take_over(&mut self.items.table, &parameters.take_table("item_factors")?, "item factors")?;
        let layers = (self.settings.layers, "layers");
        let network = self.network.network.clone();
        self.network.network = take_over_network(network, &mut parameters, layers)?;
        Ok(())
    }

    fn take_state(&mut self) -> Result<Parameters> {
        take_parts([("items_", &mut self.items), ("network_", &mut self.network)])
    }

    fn put_state(&mut self, state: Parameters) -> Result<()> {
        put_parts(state, [("items_", &mut self.items), ("network_", &mut self.network)])
    }

    fn finish(mut self: Box<Self>) -> Result<Box<dyn Retriever>> {
        let none = Table::zeros(0, self.settings.factors, Device::Cpu, "item factors")?;
        let items = on_cpu(std::mem::replace(&mut self.items.table, none), "item factors")?;
        self.model(items)
    }
}

/// Returns the liked items of all users in order, and the windows of each, from a history's end.
fn windows(data: &Dataset, max_length: usize) -> (Vec<u32>, Vec<Window>) {
    let (mut items, mut all) = (Vec::new(), Vec::new());
    for user in 0..data.n_users() {
        let (columns, values) = data.by_user().row(user);
        let begin = items.len();
        let liked = data.order(user).iter().map(|&entry| entry as usize).filter(|&entry| values[entry] > 0.0);
        items.extend(liked.map(|entry| columns[entry]));
        // Where the next item of the window's last event lies.
        let mut last = items.len().saturating_sub(1);
        while last > begin {
            let len = (last - begin).min(max_length);
            all.push(Window { user: user as u32, begin: last - len, len: len as u32 });
            last -= len;
        }
    }
    (items, all)
}

#[cfg(test)]
mod tests {
    use recmill_core::Csr;

    use super::*;

    #[test]
    fn windows_cover_every_event_that_has_a_next_one_once() {
        // User 0 took 3, 0, 2, 1 in this order and disliked 4; user 1 took one item; user 2 none.
        let by_user =
            Csr::new(5, vec![0, 5, 6, 6], vec![0, 1, 2, 3, 4, 2], vec![1.0, 1.0, 1.0, 1.0, -1.0, 1.0])
                .unwrap();
        let data = Dataset::new(
            crate::data::numbered(3),
            crate::data::numbered(5),
            by_user,
            None,
            vec![3, 4, 0, 2, 1, 0],
        )
        .unwrap();
        let pairs = |max_length| {
            let (items, windows) = windows(&data, max_length);
            assert!(windows.iter().all(|window| window.user == 0 && window.len as usize <= max_length));
            let mut pairs: Vec<_> = windows
                .iter()
                .flat_map(|window| window.begin..window.begin + window.len as usize)
                .map(|at| (items[at], items[at + 1]))
                .collect();
            pairs.sort();
            (windows.len(), pairs)
        };
        let all = vec![(0, 2), (2, 1), (3, 0)];
        assert_eq!(pairs(50), (1, all.clone()));
        assert_eq!(pairs(3), (1, all.clone()));
        assert_eq!(pairs(2), (2, all.clone()));
        assert_eq!(pairs(1), (3, all));
    }
}
