//! What is held out to find the best epoch by, where nobody gives interactions to validate on.

use recmill_core::{
    Csr, Dataset,
    models::{Gru4RecConfig, MfConfig, ModelConfig, NeuMfConfig, SasRecConfig, TwoTowerConfig},
};

use crate::{Result, gradient::Order};

/// Epochs without a better metric after which a model that stops by itself does.
pub const PATIENCE: u32 = 10;
/// Users of whom an event is held out to see that, at most.
pub const HELD_OUT_USERS: usize = 10_000;

/// Returns whether the model is to learn until what is held out is found no better, and not for a number of epochs.
pub fn stops_by_itself(config: &ModelConfig) -> bool {
    reads_order(config)
        || matches!(config, ModelConfig::Mf(_) | ModelConfig::NeuMf(_) | ModelConfig::TwoTower(_))
}

/// Returns whether the model learns from which event came first.
pub fn reads_order(config: &ModelConfig) -> bool {
    matches!(config, ModelConfig::SasRec(_) | ModelConfig::Gru4Rec(_))
}

/// Returns the same model, to be trained for so many epochs, where [`stops_by_itself`] holds.
pub fn for_epochs(config: &ModelConfig, epochs: u32) -> ModelConfig {
    let iterations = epochs as usize;
    match config {
        ModelConfig::SasRec(config) => ModelConfig::SasRec(SasRecConfig { iterations, ..config.clone() }),
        ModelConfig::Gru4Rec(config) => ModelConfig::Gru4Rec(Gru4RecConfig { iterations, ..config.clone() }),
        ModelConfig::Mf(config) => ModelConfig::Mf(MfConfig { iterations, ..config.clone() }),
        ModelConfig::NeuMf(config) => ModelConfig::NeuMf(NeuMfConfig { iterations, ..config.clone() }),
        ModelConfig::TwoTower(config) => {
            ModelConfig::TwoTower(TwoTowerConfig { iterations, ..config.clone() })
        }
        other => other.clone(),
    }
}

/// Which of a user's interactions is held out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeldEvent {
    /// The newest, as when the future is to be told from the past.
    Newest,
    /// One that is drawn, where the order may say nothing.
    Drawn,
}

impl HeldEvent {
    /// Returns which tells most of how good a model of `config` will be for the users of `data`.
    pub fn suited_to(config: &ModelConfig, data: &Dataset) -> Self {
        match reads_order(config) || data.times().is_some() {
            true => Self::Newest,
            // The order of a file may be any, such as that of the items.
            false => Self::Drawn,
        }
    }
}

/// Takes one interaction of positive value of at most `users` users out, each of whom keeps two or more such: what is left to learn
/// from, and what was taken, with the same ids. `None` where nobody has as many.
///
/// Which users is decided by the seed, and so is what is drawn.
///
/// # Errors
/// [`crate::Error::Core`] never for a sound data set.
pub fn hold_out(
    data: &Dataset,
    event: HeldEvent,
    users: usize,
    seed: u64,
) -> Result<Option<(Dataset, Dataset)>> {
    let taken = |user: usize| {
        let start = data.by_user().range(user).start;
        let places = data.order(user).iter().map(|&entry| start + entry as usize);
        let liked: Vec<usize> = places.filter(|&at| data.by_user().values()[at] > 0.0).collect();
        match (event, liked.len()) {
            (_, ..3) => None,
            (HeldEvent::Newest, n) => Some(liked[n - 1]),
            (HeldEvent::Drawn, n) => Some(liked[Order::new(n as u64, seed, user as u32).sample(0) as usize]),
        }
    };
    let eligible: Vec<usize> = (0..data.n_users()).filter(|&user| taken(user).is_some()).collect();
    if eligible.is_empty() || users == 0 {
        return Ok(None);
    }
    let mut chosen = vec![false; data.n_users()];
    let order = Order::new(eligible.len() as u64, seed, 0);
    for place in 0..eligible.len().min(users) as u64 {
        chosen[eligible[order.sample(place) as usize]] = true;
    }
    let part = |of_taken: bool| -> Result<Dataset> {
        let (mut indptr, mut indices, mut values) = (vec![0u64], Vec::new(), Vec::new());
        let (mut times, mut order) = (data.times().map(|_| Vec::new()), Vec::new());
        for (user, &chosen) in chosen.iter().enumerate() {
            let range = data.by_user().range(user);
            let held = taken(user).filter(|_| chosen);
            let kept = |at: &usize| (Some(*at) == held) == of_taken;
            // Where each entry that stays comes to stand in its row.
            let stays: Vec<usize> = range.clone().filter(kept).collect();
            for &at in &stays {
                indices.push(data.by_user().indices()[at]);
                values.push(data.by_user().values()[at]);
                if let (Some(times), Some(all)) = (&mut times, data.times()) {
                    times.push(all[at]);
                }
            }
            let places = data.order(user).iter().map(|&entry| range.start + entry as usize);
            order.extend(places.filter_map(|at| Some(stays.binary_search(&at).ok()? as u32)));
            indptr.push(indices.len() as u64);
        }
        let by_user = Csr::new(data.n_items(), indptr, indices, values)?;
        Ok(Dataset::new(data.users.clone(), data.items.clone(), by_user, times, order)?)
    };
    Ok(Some((part(false)?, part(true)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_whoever_has_three_is_held_out() {
        // The newest of user 0 is item 1; user 1 has two, and user 2 dislikes the newest of three.
        let by_user = Csr::new(
            4,
            vec![0, 3, 5, 8],
            vec![0, 1, 3, 0, 2, 1, 2, 3],
            vec![1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, -1.0],
        );
        let times = Some(vec![5, 9, 7, 1, 2, 1, 2, 3]);
        let order = vec![0, 2, 1, 0, 1, 0, 1, 2];
        let data =
            Dataset::new(crate::data::numbered(3), crate::data::numbered(4), by_user.unwrap(), times, order)
                .unwrap();
        let (left, held) = hold_out(&data, HeldEvent::Newest, 100, 0).unwrap().unwrap();
        assert_eq!((left.by_user().row(0), left.order(0)), ((&[0, 3][..], &[1.0, 1.0][..]), &[0, 1][..]));
        assert_eq!((left.by_user().nnz(), left.times().unwrap()), (7, &[5, 7, 1, 2, 1, 2, 3][..]));
        assert_eq!(held.by_user().row(0), (&[1][..], &[2.0][..]));
        assert_eq!((held.by_user().nnz(), held.times().unwrap()), (1, &[9][..]));
        let drawn = |seed| {
            hold_out(&data, HeldEvent::Drawn, 100, seed).unwrap().unwrap().1.by_user().row(0).0.to_vec()
        };
        let mut all: Vec<_> = (0..50).map(drawn).collect();
        assert_eq!(drawn(7), all[7]);
        all.sort();
        all.dedup();
        assert_eq!(all, [[0], [1], [3]], "any of them");
        assert!(hold_out(&data, HeldEvent::Newest, 0, 0).unwrap().is_none());
        assert!(hold_out(&held, HeldEvent::Newest, 9, 0).unwrap().is_none());
    }
}
