//! What the ranks of one training tell each other.
//!
//! ```text
//! all_to_all   rank i's part j            ->  rank j's part i
//! all_gather   rank i's values            ->  every rank has all of them, by rank
//! all_reduce   Σ_i rank i's values        ->  every rank has the sum, added in the order of the ranks
//! ```
//!
//! The last two are made of the first, so that whoever brings another way of sending brings one function. Every rank calls
//! the same functions in the same order; one that fails or leaves ends the others with [`Error::RankLost`].

use std::{
    ops::Range,
    sync::mpsc::{Receiver, Sender, channel},
};

use bytemuck::Pod;

use crate::{Error, Result};

/// One rank of several that train together.
pub trait Collective: Send {
    /// Returns which rank this is, from 0.
    fn rank(&self) -> usize;

    /// Returns how many ranks there are.
    fn size(&self) -> usize;

    /// Sends `parts[j]` to rank `j` and returns what rank `i` has sent here, at `i`.
    ///
    /// # Errors
    /// [`Error::RankLost`] when a rank has gone.
    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>>;
}

/// A training of one rank.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alone;

impl Collective for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        Ok(parts)
    }
}

/// A rank that is a thread beside the others in one process.
#[derive(Debug)]
pub struct ThreadRank {
    rank: usize,
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

impl ThreadRank {
    /// Returns `size` ranks that are connected with each other.
    pub fn connected(size: usize) -> Vec<Self> {
        let mut ranks: Vec<Self> =
            (0..size).map(|rank| Self { rank, to: Vec::new(), from: Vec::new() }).collect();
        for from in 0..size {
            for to in 0..size {
                let (sender, receiver) = channel();
                ranks[from].to.push(sender);
                // Receivers come in the order of the ranks that send, since `from` is the outer loop.
                ranks[to].from.push(receiver);
            }
        }
        ranks
    }
}

impl Collective for ThreadRank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.to.len()
    }

    fn all_to_all(&self, parts: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
        let lost = |rank| Error::RankLost { rank };
        for (rank, (to, part)) in self.to.iter().zip(parts).enumerate() {
            to.send(part).map_err(|_| lost(rank))?;
        }
        self.from.iter().enumerate().map(|(rank, from)| from.recv().map_err(|_| lost(rank))).collect()
    }
}

/// As [`Collective::all_to_all`], for numbers.
///
/// # Errors
/// As [`Collective::all_to_all`].
pub fn all_to_all<T: Pod>(ranks: &dyn Collective, parts: &[Vec<T>]) -> Result<Vec<Vec<T>>> {
    let sent = parts.iter().map(|part| bytemuck::cast_slice(part).to_vec()).collect();
    let received = ranks.all_to_all(sent)?;
    Ok(received.iter().map(|bytes| bytemuck::pod_collect_to_vec(bytes)).collect())
}

/// Returns the values of every rank, by rank.
///
/// # Errors
/// As [`Collective::all_to_all`].
pub fn all_gather<T: Pod>(ranks: &dyn Collective, values: &[T]) -> Result<Vec<Vec<T>>> {
    all_to_all(ranks, &vec![values.to_vec(); ranks.size()])
}

/// Replaces `values` by their sums over all ranks, which have as many each: the same bits on every rank.
///
/// # Errors
/// As [`Collective::all_to_all`].
pub fn all_reduce<T: Pod + std::ops::AddAssign>(ranks: &dyn Collective, values: &mut [T]) -> Result<()> {
    if ranks.size() == 1 {
        return Ok(());
    }
    // Each rank adds a part of the values up and tells the others.
    let parts = (0..ranks.size()).map(|rank| values[part(values.len(), rank, ranks.size())].to_vec());
    let mut received = all_to_all(ranks, &parts.collect::<Vec<_>>())?.into_iter();
    let mut sum = received.next().unwrap_or_default();
    for other in received {
        for (sum, value) in sum.iter_mut().zip(other) {
            *sum += value;
        }
    }
    let mut at = 0;
    for sums in all_gather(ranks, &sum)? {
        values[at..at + sums.len()].copy_from_slice(&sums);
        at += sums.len();
    }
    Ok(())
}

/// Returns rank `rank`'s part of `n` things that `size` ranks share, in order and as evenly as can be.
pub(super) fn part(n: usize, rank: usize, size: usize) -> Range<usize> {
    n * rank / size..n * (rank + 1) / size
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `each` on every rank and returns what they returned.
    fn on_ranks<R: Send>(size: usize, each: impl Fn(&ThreadRank) -> R + Sync) -> Vec<R> {
        std::thread::scope(|scope| {
            let ranks = ThreadRank::connected(size);
            let each = &each;
            let threads: Vec<_> = ranks.into_iter().map(|rank| scope.spawn(move || each(&rank))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn everyone_has_what_everyone_sent() {
        for size in [1, 2, 3, 5] {
            let received = on_ranks(size, |rank| {
                let parts =
                    (0..size).map(|to| vec![rank.rank() as u32 * 10 + to as u32; to]).collect::<Vec<_>>();
                all_to_all(rank, &parts).unwrap()
            });
            for (to, received) in received.into_iter().enumerate() {
                for (from, part) in received.into_iter().enumerate() {
                    assert_eq!(part, vec![from as u32 * 10 + to as u32; to]);
                }
            }
            let gathered = on_ranks(size, |rank| all_gather(rank, &[rank.rank() as u64]).unwrap());
            let expected: Vec<Vec<u64>> = (0..size as u64).map(|rank| vec![rank]).collect();
            assert!(gathered.into_iter().all(|gathered| gathered == expected));
        }
    }

    #[test]
    fn sums_are_the_same_bits_on_every_rank() {
        for (size, n) in [(1, 3), (2, 5), (4, 2), (3, 1000)] {
            let sums = on_ranks(size, |rank| {
                let mut values: Vec<f32> =
                    (0..n).map(|i| 0.1 + i as f32 * 1e-3 * (1 + rank.rank()) as f32).collect();
                all_reduce(rank, &mut values).unwrap();
                values
            });
            for (i, sum) in sums[0].iter().enumerate() {
                let expected: f32 = (1..=size).map(|rank| 0.1 + i as f32 * 1e-3 * rank as f32).sum();
                assert!((sum - expected).abs() <= 1e-6 * expected, "{sum} {expected}");
            }
            assert!(sums.iter().all(|other| *other == sums[0]));
        }
    }

    #[test]
    fn a_rank_that_leaves_ends_the_others() {
        let ended = on_ranks(3, |rank| match rank.rank() {
            1 => Ok(()),
            _ => all_reduce(rank, &mut [1.0, 2.0, 3.0]).and_then(|()| all_reduce(rank, &mut [1.0])),
        });
        assert!(ended[1].is_ok());
        for rank in [0, 2] {
            assert!(matches!(ended[rank], Err(Error::RankLost { .. })), "{:?}", ended[rank]);
        }
    }

    #[test]
    fn parts_cover_everything_once() {
        for (n, size) in [(0, 3), (1, 4), (10, 3), (12, 4)] {
            let parts: Vec<usize> = (0..size).flat_map(|rank| part(n, rank, size)).collect();
            assert!(parts.into_iter().eq(0..n));
        }
    }
}
