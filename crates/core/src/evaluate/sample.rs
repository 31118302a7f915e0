//! Negatives drawn for each test user: what they never had, by (seed, user).

use recmill_kernels::tie_hash;

use super::Resolve;
use crate::{Audience, Csr, Dataset, Error, IdMap, ItemIndex, Result, tie_key};

/// Lists for each test user the test items and `n` items of the catalogue outside the user's whole history, test included;
/// all there are where there are fewer. With `max_users` only as many users are kept, chosen by (seed, user).
///
/// The result is a data set of (user, item) pairs that can be written down and given as candidates again; it depends on
/// the seed, the ids and the catalogue alone.
///
/// # Errors
/// [`Error::TooManyIds`]; as [`crate::UserHistory::read`].
pub fn sample_candidates(
    audience: &Audience<'_>,
    resolve: &Resolve<'_>,
    test: &Dataset,
    n: usize,
    max_users: Option<usize>,
    seed: u64,
) -> Result<Dataset> {
    let n_items = audience.retriever.n_items();
    let test_items: Vec<Option<ItemIndex>> = test.items.iter().map(|id| resolve.item(id)).collect();
    let (mut users, mut items) = (IdMap::default(), IdMap::default());
    let (mut indptr, mut indices) = (vec![0u64], Vec::new());
    let mut history = Vec::new();
    let mut taken = vec![0u64; n_items.div_ceil(64)];
    for user in chosen(test, max_users, seed) {
        let id = test.users.name(user).unwrap_or_default();
        audience.question(resolve.person(id), &mut history)?;
        let (columns, _) = test.by_user().row(user as usize);
        taken.fill(0);
        let had = history.iter().map(|&(item, _)| item);
        let tested = columns.iter().filter_map(|&item| test_items[item as usize]);
        for item in had.chain(tested).filter(|item| item.at() < n_items) {
            taken[item.at() / 64] |= 1 << (item.at() % 64);
        }
        let start = indices.len();
        for &item in columns {
            indices.push(items.get_or_insert(test.items.name(item).unwrap_or_default())?);
        }
        draw(tie_key(seed, id), n, n_items, &mut taken, |item| {
            indices.push(items.get_or_insert(resolve.items.name(item.0).unwrap_or_default())?);
            Ok(())
        })?;
        users.get_or_insert(id)?;
        indices[start..].sort_unstable();
        indptr.push(indices.len() as u64);
    }
    let order = indptr.windows(2).flat_map(|ends| 0..(ends[1] - ends[0]) as u32).collect();
    let values = vec![1.0; indices.len()];
    let by_user = Csr::new(items.len(), indptr, indices, values)?;
    Dataset::new(users, items, by_user, None, order)
}

/// The test users that are kept, in the order of the test data.
fn chosen(test: &Dataset, max_users: Option<usize>, seed: u64) -> Vec<u32> {
    let mut users: Vec<u32> =
        (0..test.n_users() as u32).filter(|&user| !test.by_user().row(user as usize).0.is_empty()).collect();
    if let Some(max) = max_users
        && max < users.len()
    {
        // Another key than the one that draws a user's items, so that who is chosen says nothing about them.
        let key = |&user: &u32| tie_hash(tie_key(seed, test.users.name(user).unwrap_or_default()), u32::MAX);
        users.sort_by_cached_key(key);
        users.truncate(max);
        users.sort_unstable();
    }
    users
}

/// Gives `n` different items whose bit in `taken` is 0 to `give`, by the numbers that `key` addresses.
fn draw(
    key: u64,
    n: usize,
    n_items: usize,
    taken: &mut [u64],
    mut give: impl FnMut(ItemIndex) -> Result<()>,
) -> Result<()> {
    let n_taken: u32 = taken.iter().map(|word| word.count_ones()).sum();
    let free = n_items - n_taken as usize;
    if free <= 2 * n {
        // Few are left: rank them all by hash instead of drawing in vain.
        let is_free = |item: &u32| taken[*item as usize / 64] >> (item % 64) & 1 == 0;
        let mut all: Vec<u32> = (0..n_items as u32).filter(is_free).collect();
        all.sort_unstable_by_key(|&item| (tie_hash(key, item), item));
        return all.into_iter().take(n).try_for_each(|item| give(ItemIndex(item)));
    }
    let (mut given, mut counter) = (0, 0u32);
    while given < n {
        let random = tie_hash(key, counter);
        counter = counter.checked_add(1).ok_or(Error::TooManyIds)?;
        let item = ((u128::from(random) * n_items as u128) >> 64) as usize;
        let (word, bit) = (&mut taken[item / 64], 1 << (item % 64));
        if *word & bit == 0 {
            *word |= bit;
            given += 1;
            give(ItemIndex(item as u32))?;
        }
    }
    Ok(())
}
