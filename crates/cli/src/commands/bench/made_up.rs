//! Interactions in the shape of MovieLens-20M, made up in seconds and the same on every machine.
//!
//! ```text
//! length of a user's row    20 + exp(3.87 + 1.38 z), z normal, at most a third of the items; scaled to 21.7 million draws
//! items of the row          drawn by popularity, which follows MovieLens-20M's by rank; repeats fall away
//! ```
//!
//! 138,493 users, 26,744 items and about 18 million values from 1 to 5, as in `benches/peers/ml20m.py`, whose draws differ.

use std::fmt::Write;

use rayon::prelude::*;
use recmill_core::{Csr, Dataset, IdMap};
use recmill_kernels::philox::{Draws, unit};

use super::Result;

pub(super) const N_USERS: usize = 138_493;
pub(super) const N_ITEMS: usize = 26_744;
const DRAWS: f64 = 21_700_000.0;
/// Values that items of these ranks have.
const POPULARITY: [(f64, f64); 9] = [
    (1.0, 67_000.0),
    (100.0, 30_000.0),
    (1000.0, 5200.0),
    (3000.0, 1150.0),
    (5000.0, 400.0),
    (10_000.0, 50.0),
    (13_400.0, 18.0),
    (20_000.0, 4.0),
    (26_744.0, 1.0),
];

/// Makes up `users` times as many users and `items` times as many items as MovieLens-20M has; a user has as many values.
pub(super) fn dataset(users: f64, items: f64) -> Result<Dataset> {
    let at_least_one = |n: f64| (n.round() as usize).max(1);
    let n_users = at_least_one(N_USERS as f64 * users);
    let n_items = at_least_one(N_ITEMS as f64 * items);
    let by_user = rows(n_users, n_items, DRAWS * n_users as f64 / N_USERS as f64)?;
    let order = (0..n_users).flat_map(|user| 0..by_user.range(user).len() as u32).collect();
    Ok(Dataset::new(ids(n_users)?, ids(n_items)?, by_user, None, order)?)
}

fn rows(n_users: usize, n_items: usize, draws: f64) -> Result<Csr> {
    let lengths: Vec<f64> = (0..n_users as u64)
        .into_par_iter()
        .map(|user| {
            let [a, b, ..] = Draws::new(0, 0).block(user);
            let radius = (-2.0 * f64::from(1.0 - unit(a)).ln()).sqrt();
            20.0 + (3.87 + 1.38 * radius * (std::f64::consts::TAU * f64::from(unit(b))).cos()).exp()
        })
        .collect();
    let scale = draws / lengths.iter().sum::<f64>();
    let most = (n_items / 3).max(1);
    let cumulative = cumulative_popularity(n_items);
    let total = cumulative.last().copied().unwrap_or(1.0);
    // Neighbours in rank are no neighbours in number: this is prime, and larger than any catalogue here.
    let scattered = |rank: usize| (rank as u64 * 2_147_483_647 % n_items as u64) as u32;
    let rows: Vec<Vec<u32>> = lengths
        .par_iter()
        .enumerate()
        .map(|(user, length)| {
            let mut words = vec![0; ((length * scale) as usize).clamp(1, most)];
            Draws::new(0, 1 + user as u64).fill(0, &mut words);
            let item = |word: u32| {
                let at = f64::from(word) / 4_294_967_296.0 * total;
                scattered(cumulative.partition_point(|&below| below <= at).min(n_items - 1))
            };
            let mut row: Vec<u32> = words.into_iter().map(item).collect();
            row.sort_unstable();
            row.dedup();
            row
        })
        .collect();
    let ends = rows.iter().scan(0, |end, row| {
        *end += row.len() as u64;
        Some(*end)
    });
    let indptr: Vec<u64> = [0].into_iter().chain(ends).collect();
    let indices = rows.concat();
    let values = indices.iter().zip(0u32..).map(|(item, at)| ((item ^ at) % 5 + 1) as f32).collect();
    Ok(Csr::new(n_items, indptr, indices, values)?)
}

/// Sums of the popularity of the items up to each rank.
fn cumulative_popularity(n_items: usize) -> Vec<f64> {
    let stretch = N_ITEMS as f64 / n_items as f64;
    let of_rank = |rank: f64| {
        let after = POPULARITY.partition_point(|&(known, _)| known < rank).clamp(1, POPULARITY.len() - 1);
        let ((r0, n0), (r1, n1)) = (POPULARITY[after - 1], POPULARITY[after]);
        let share = ((rank - r0) / (r1 - r0)).clamp(0.0, 1.0);
        (n0.ln() * (1.0 - share) + n1.ln() * share).exp()
    };
    (1..=n_items)
        .scan(0.0, |sum, rank| {
            *sum += of_rank(rank as f64 * stretch);
            Some(*sum)
        })
        .collect()
}

fn ids(n: usize) -> Result<IdMap> {
    let (mut map, mut text) = (IdMap::default(), String::new());
    for id in 1..=n {
        text.clear();
        // A string takes whatever is written.
        let _ = write!(text, "{id}");
        map.get_or_insert(&text)?;
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundredth_has_the_shape_of_a_hundredth() {
        let data = dataset(0.01, 0.5).unwrap();
        assert_eq!((data.n_users(), data.n_items()), (1385, 13_372));
        let nnz = data.by_user().nnz();
        assert!((130_000..220_000).contains(&nnz), "{nnz}");
        let lengths = (0..data.n_users()).map(|user| data.by_user().row(user).0.len());
        assert!(lengths.clone().min() >= Some(5) && lengths.max() >= Some(1000));
        assert_eq!(data.by_user().indices(), dataset(0.01, 0.5).unwrap().by_user().indices());
        assert_eq!(dataset(0.0, 0.0).unwrap().n_users(), 1);
    }
}
