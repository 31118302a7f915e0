//! Leaving out users and items with too few of the other, until all that are left have enough (a k-core).
//!
//! Every user or item that goes takes one from the counts of those it was with, which may send these as well. Each goes
//! once, so the work is one look at every entry from either side, whatever the length of such a chain.

use super::merge::Merged;
use crate::IdMap;

/// What was left out.
pub(super) struct Thinned {
    pub(super) users: usize,
    pub(super) items: usize,
    pub(super) interactions: usize,
}

/// Leaves out users with fewer than `least.0` items and items with fewer than `least.1` users.
///
/// The first `base.0` users and `base.1` items stay whatever happens, so that indices keep their meaning.
pub(super) fn thin(
    merged: &mut Merged,
    ids: (&mut IdMap, &mut IdMap),
    base: (usize, usize),
    least: (usize, usize),
) -> Thinned {
    let (n_users, n_items) = (ids.0.len(), ids.1.len());
    if least.0 <= 1 && least.1 <= 1 {
        return Thinned { users: 0, items: 0, interactions: 0 };
    }
    let by_item = users_of_items(merged, n_items);
    let mut user_counts: Vec<u32> = merged.indptr.windows(2).map(|ends| (ends[1] - ends[0]) as u32).collect();
    let mut item_counts: Vec<u32> = by_item.0.windows(2).map(|ends| (ends[1] - ends[0]) as u32).collect();
    let mut keep_user = vec![true; n_users];
    let mut keep_item = vec![true; n_items];
    let goes = |counts: &[u32], base: usize, least: usize| -> Vec<u32> {
        (base..counts.len()).filter(|&at| (counts[at] as usize) < least).map(|at| at as u32).collect()
    };
    let mut users = goes(&user_counts, base.0, least.0);
    let mut items = goes(&item_counts, base.1, least.1);
    users.iter().for_each(|&user| keep_user[user as usize] = false);
    items.iter().for_each(|&item| keep_item[item as usize] = false);
    while !users.is_empty() || !items.is_empty() {
        for user in std::mem::take(&mut users) {
            for &item in &merged.items[stretch(&merged.indptr, user)] {
                let (count, keep) = (&mut item_counts[item as usize], &mut keep_item[item as usize]);
                *count -= 1;
                if *keep && (*count as usize) < least.1 && item as usize >= base.1 {
                    *keep = false;
                    items.push(item);
                }
            }
        }
        for item in std::mem::take(&mut items) {
            for &user in &by_item.1[stretch(&by_item.0, item)] {
                let (count, keep) = (&mut user_counts[user as usize], &mut keep_user[user as usize]);
                *count -= 1;
                if *keep && (*count as usize) < least.0 && user as usize >= base.0 {
                    *keep = false;
                    users.push(user);
                }
            }
        }
    }
    drop(by_item);
    let before = merged.items.len();
    let new_items = number(&keep_item);
    keep_entries(merged, &keep_user, &new_items);
    let thinned = Thinned {
        users: keep_user.iter().filter(|&&keep| !keep).count(),
        items: keep_item.iter().filter(|&&keep| !keep).count(),
        interactions: before - merged.items.len(),
    };
    ids.0.retain(&keep_user);
    ids.1.retain(&keep_item);
    thinned
}

fn stretch(indptr: &[u64], row: u32) -> std::ops::Range<usize> {
    indptr[row as usize] as usize..indptr[row as usize + 1] as usize
}

fn users_of_items(merged: &Merged, n_items: usize) -> (Vec<u64>, Vec<u32>) {
    let mut indptr = vec![0u64; n_items + 1];
    for &item in &merged.items {
        indptr[item as usize + 1] += 1;
    }
    for item in 0..n_items {
        indptr[item + 1] += indptr[item];
    }
    let mut next = indptr.clone();
    let mut users = vec![0u32; merged.items.len()];
    for user in 0..merged.indptr.len() - 1 {
        for &item in &merged.items[stretch(&merged.indptr, user as u32)] {
            let next = &mut next[item as usize];
            users[*next as usize] = user as u32;
            *next += 1;
        }
    }
    (indptr, users)
}

/// Gives the kept ones new numbers in their order.
fn number(keep: &[bool]) -> Vec<Option<u32>> {
    let mut next = 0;
    let one = |&keep: &bool| {
        keep.then(|| {
            next += 1;
            next - 1
        })
    };
    keep.iter().map(one).collect()
}

/// Moves the kept entries of the kept rows together.
fn keep_entries(merged: &mut Merged, keep_user: &[bool], new_items: &[Option<u32>]) {
    let mut to = 0;
    let mut kept_rows = 0;
    // For each entry of a row its new place among the kept ones.
    let mut moved: Vec<Option<u32>> = Vec::new();
    let mut order = Vec::new();
    for (user, _) in keep_user.iter().enumerate().filter(|(_, keep)| **keep) {
        let range = stretch(&merged.indptr, user as u32);
        let row = to;
        moved.clear();
        for from in range.clone() {
            let new_item = new_items[merged.items[from] as usize];
            moved.push(new_item.map(|_| (to - row) as u32));
            if let Some(item) = new_item {
                merged.items[to] = item;
                merged.values[to] = merged.values[from];
                if let Some(times) = &mut merged.times {
                    times[to] = times[from];
                }
                to += 1;
            }
        }
        order.clear();
        order.extend(merged.order[range].iter().filter_map(|&entry| moved[entry as usize]));
        merged.order[row..to].copy_from_slice(&order);
        merged.indptr[kept_rows] = row as u64;
        kept_rows += 1;
    }
    merged.indptr.truncate(kept_rows);
    merged.indptr.push(to as u64);
    merged.shrink(to);
}
