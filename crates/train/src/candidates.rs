//! What the positions of a batch choose from: the batch's own items and drawn ones, without what their users have had.
//!
//! Items of the batch come by popularity, drawn ones mostly uniformly: both together are mixed negatives (Yang et al. 2020).

use std::collections::HashMap;

use burn::tensor::{Tensor, TensorData};
use recmill_core::{
    Dataset,
    dense::{Against, DeviceBackend, against, buffer_of},
    models::Negatives,
};
use recmill_kernels::{
    CandidateLoss, Candidates, Device,
    negative::{AliasTable, Distribution, popularity},
    philox::Draws,
};

use crate::{Error, NotFinite, Result, data::sparse_rows};

/// The streams of the drawn items, one an epoch, far from those of the first values.
const DRAWN: u64 = 1 << 39;

/// What is drawn, as configurations have it.
pub(crate) struct Drawn {
    pub(crate) n_negatives: usize,
    pub(crate) negatives: Negatives,
    pub(crate) exponent: f64,
    /// What the user has had is hidden from their positions.
    pub(crate) verify: bool,
}

/// [`Drawn`] of a configuration.
macro_rules! drawn {
    ($config:expr) => {
        $crate::candidates::Drawn {
            n_negatives: $config.n_negatives,
            negatives: $config.negatives,
            exponent: $config.negatives_exponent,
            verify: $config.verify_negatives,
        }
    };
}
pub(crate) use drawn;

/// How candidates are chosen.
pub(crate) struct Choosing<'a> {
    data: &'a Dataset,
    seed: u64,
    n_negatives: usize,
    verify: bool,
    distribution: Distribution,
    /// The chance of each item to be drawn once.
    drawn: Option<Vec<f32>>,
    /// The share of the interactions that each item has.
    frequency: Vec<f32>,
}

/// What a batch's positions choose from.
#[derive(Default)]
pub(crate) struct Choice {
    /// Items, each once.
    pub(crate) items: Vec<u32>,
    /// Added to their scores.
    pub(crate) bias: Vec<f32>,
    /// The candidate that is right, of each position.
    pub(crate) targets: Vec<u32>,
    /// Whose position each is.
    groups: Vec<u32>,
    /// The candidates that are hidden from each group.
    hidden: Vec<Vec<u32>>,
    /// How many were drawn, each item once.
    pub(crate) drawn: usize,
    /// The candidates of all positions, which are the first; the others are only right somewhere.
    common: usize,
}

/// Items that are candidates wherever a user is in the batch: as many for each user, but for those at the end of a short list.
#[derive(Default)]
pub(crate) struct Listed {
    /// Those of user `u` are `ends[u] .. ends[u + 1]`; empty where there are none for anyone.
    ends: Vec<usize>,
    items: Vec<u32>,
    /// Of each item the share of interactions whose user has it listed.
    frequency: Vec<f32>,
}

impl Listed {
    /// Takes the lists of all users, who have as many interactions as `weights` says, of a catalogue of `n_items`.
    pub(crate) fn new(ends: Vec<usize>, items: Vec<u32>, weights: &[u32], n_items: usize) -> Self {
        let mut counts = vec![0u64; n_items];
        for (user, &weight) in weights.iter().enumerate() {
            for &item in &items[ends[user]..ends[user + 1]] {
                counts[item as usize] += u64::from(weight);
            }
        }
        let all = weights.iter().map(|&weight| f64::from(weight)).sum::<f64>().max(1.0);
        let frequency = counts.into_iter().map(|count| (count as f64 / all) as f32).collect();
        Self { ends, items, frequency }
    }

    fn of(&self, user: u32) -> &[u32] {
        let user = user as usize;
        if self.ends.is_empty() { &[] } else { &self.items[self.ends[user]..self.ends[user + 1]] }
    }

    fn frequency(&self, item: u32) -> f32 {
        self.frequency.get(item as usize).copied().unwrap_or(0.0)
    }
}

impl Choice {
    pub(crate) fn candidates(&self) -> Candidates<'_> {
        Candidates {
            n: self.items.len(),
            common: self.common,
            targets: &self.targets,
            groups: &self.groups,
            hidden: &self.hidden,
        }
    }

    /// Adds to each candidate's score what its item has in `of_items`.
    pub(crate) fn add_biases(&mut self, of_items: &[f32]) {
        for (bias, &item) in self.bias.iter_mut().zip(&self.items) {
            *bias += of_items[item as usize];
        }
    }

    /// Compares rows, one a position, with the candidates: the sum of the losses, and the gradients of their mean.
    pub(crate) fn compare<B: DeviceBackend>(
        &self,
        rows: Tensor<B, 2>,
        candidates: Tensor<B, 2>,
        loss: CandidateLoss,
        (epoch, device): (u32, Device),
    ) -> Result<(f64, Against<B>)> {
        let bias = TensorData::new(self.bias.clone(), [self.items.len()]);
        let bias = Tensor::<B, 1>::from_data(bias, &candidates.device());
        let share = 1.0 / self.targets.len() as f32;
        let found = against(rows, candidates, bias, &self.candidates(), loss, share);
        let losses = buffer_of(found.losses.clone())?.into_vec()?;
        B::check_answers(device)?;
        let sum: f64 = losses.iter().map(|&loss| f64::from(loss)).sum();
        match sum.is_finite() {
            true => Ok((sum, found)),
            false => Err(Error::Diverged { epoch, found: NotFinite::Loss(sum) }),
        }
    }
}

impl<'a> Choosing<'a> {
    pub(crate) fn new(data: &'a Dataset, seed: u64, drawn: &Drawn) -> Result<Self> {
        let Drawn { n_negatives, negatives, exponent, verify } = *drawn;
        let by_user = sparse_rows(data.by_user());
        let shares = |exponent: f32| {
            let mut weights = popularity(by_user, data.n_items(), exponent);
            let sum: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
            weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / sum.max(1e-30)) as f32);
            weights
        };
        let drawn = (negatives == Negatives::Popularity).then(|| shares(exponent as f32));
        let distribution = match &drawn {
            Some(weights) => Distribution::Weighted(AliasTable::new(weights)?),
            None => Distribution::Uniform(data.n_items() as u32),
        };
        Ok(Self { data, seed, n_negatives, verify, distribution, drawn, frequency: shares(1.0) })
    }

    /// As [`Choosing::choose`] with all items for candidates.
    pub(crate) fn all(&self, next: &[u32], owners: &[(u32, usize)]) -> Choice {
        let n_items = self.data.n_items();
        let (groups, hidden) = self.hidden(owners, Some);
        Choice {
            items: (0..n_items as u32).collect(),
            bias: vec![0.0; n_items],
            targets: next.to_vec(),
            groups,
            hidden,
            drawn: 0,
            common: n_items,
        }
    }

    /// Chooses for positions whose items are `next`, runs of which belong to `owners`: a user and how many. The owners' own items
    /// are no negatives of theirs where that is verified. Where `in_batch`, the batch's items are candidates of all its positions, and the bias is
    /// -ln of how often an item is expected among the candidates; otherwise only the drawn ones are.
    pub(crate) fn choose(
        &self,
        next: &[u32],
        owners: &[(u32, usize)],
        in_batch: bool,
        epoch: u32,
        batch: u64,
    ) -> Choice {
        self.choose_among(next, owners, in_batch.then_some(&Listed::default()), epoch, batch)
    }

    /// As [`Choosing::choose`], where the batch's items, if they are candidates, are joined by those that are listed for its owners.
    pub(crate) fn choose_among(
        &self,
        next: &[u32],
        owners: &[(u32, usize)],
        in_batch: Option<&Listed>,
        epoch: u32,
        batch: u64,
    ) -> Choice {
        let mut choice = Choice::default();
        let mut column_of = HashMap::new();
        let mut column = |item: u32, items: &mut Vec<u32>| {
            *column_of.entry(item).or_insert_with(|| {
                items.push(item);
                items.len() as u32 - 1
            })
        };
        let mut words = vec![0; 2 * self.n_negatives];
        let draws = Draws::new(self.seed, DRAWN + u64::from(epoch));
        draws.fill(batch * words.len() as u64, &mut words);
        for words in words.as_chunks::<2>().0 {
            column(self.distribution.pick(*words), &mut choice.items);
        }
        choice.drawn = choice.items.len();
        choice.targets.extend(next.iter().map(|&item| column(item, &mut choice.items)));
        for &(user, _) in owners {
            for &item in in_batch.map_or(&[][..], |listed| listed.of(user)) {
                column(item, &mut choice.items);
            }
        }
        let uniform = 1.0 / self.data.n_items() as f32;
        choice.bias.extend(choice.items.iter().map(|&item| {
            let of_draw = self.drawn.as_ref().map_or(uniform, |drawn| drawn[item as usize]);
            let Some(listed) = in_batch else { return 0.0 };
            let of_batch = self.frequency[item as usize] + listed.frequency(item);
            let expected = next.len() as f32 * of_batch + self.n_negatives as f32 * of_draw;
            -expected.clamp(1e-9, 1.0).ln()
        }));
        choice.common = if in_batch.is_some() { choice.items.len() } else { choice.drawn };
        (choice.groups, choice.hidden) = self.hidden(owners, |item| column_of.get(&item).copied());
        choice
    }

    /// Returns the group of each position, one a user, and the candidates that are hidden from each group.
    fn hidden(
        &self,
        owners: &[(u32, usize)],
        column_of: impl Fn(u32) -> Option<u32>,
    ) -> (Vec<u32>, Vec<Vec<u32>>) {
        if !self.verify {
            return (Vec::new(), Vec::new());
        }
        let (groups, users) = groups(owners);
        let hidden = users.iter().map(|&user| {
            let had = self.data.by_user().row(user as usize).0;
            had.iter().filter_map(|&item| column_of(item)).collect()
        });
        (groups, hidden.collect())
    }
}

/// The group of each position, one a user, and the user of each group.
fn groups(owners: &[(u32, usize)]) -> (Vec<u32>, Vec<u32>) {
    let (mut groups, mut users, mut group_of) = (Vec::new(), Vec::new(), HashMap::new());
    for &(user, n) in owners {
        let group = *group_of.entry(user).or_insert_with(|| {
            users.push(user);
            users.len() as u32 - 1
        });
        groups.extend(std::iter::repeat_n(group, n));
    }
    (groups, users)
}

#[cfg(test)]
mod tests {
    use recmill_core::Csr;

    use super::*;

    #[test]
    fn listed_items_join_the_batch_and_are_corrected_for_how_often_they_do() {
        // User 0 has items 0 and 1, user 1 has item 2.
        let by_user = Csr::new(6, vec![0, 2, 3], vec![0, 1, 2], vec![1.0; 3]).unwrap();
        let data =
            Dataset::new(crate::data::numbered(2), crate::data::numbered(6), by_user, None, vec![0, 1, 0])
                .unwrap();
        let drawn = |verify| Drawn { n_negatives: 0, negatives: Negatives::Uniform, exponent: 1.0, verify };
        let choosing = Choosing::new(&data, 0, &drawn(true)).unwrap();
        // Hard for user 0 are 2 and 5, for user 1 it is 5.
        let listed = Listed::new(vec![0, 2, 3], vec![2, 5, 5], &[2, 1], 6);
        let choice = choosing.choose_among(&[1], &[(0, 1)], Some(&listed), 1, 0);
        assert_eq!((&choice.items[..], &choice.targets[..]), (&[1, 2, 5][..], &[0][..]));
        // A batch of one: 1 comes for a third of interactions; 2 for a third by itself and for two by user 0's list; 5 always.
        let expected = [1f32 / 3.0, 1.0, 1.0];
        for (bias, expected) in choice.bias.iter().zip(expected) {
            assert!((bias + expected.ln()).abs() < 1e-6, "{bias} for {expected}");
        }
        assert_eq!(choice.candidates().hidden, [vec![0]], "what the user has had");
        assert_eq!(choosing.choose(&[1], &[(0, 1)], true, 1, 0).items, [1]);
        assert_eq!(choosing.all(&[1], &[(0, 1)]).candidates().hidden, [vec![0, 1]]);
        let as_they_come = Choosing::new(&data, 0, &drawn(false)).unwrap();
        let choice = as_they_come.choose_among(&[1], &[(0, 1)], Some(&listed), 1, 0);
        assert!(choice.candidates().hidden.is_empty() && choice.candidates().groups.is_empty());
        assert!(as_they_come.all(&[1], &[(0, 1)]).candidates().hidden.is_empty());
    }
}
