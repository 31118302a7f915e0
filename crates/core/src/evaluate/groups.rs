//! Who is served badly: the metrics by how much a user had done, and by how popular what they wanted is.
//!
//! ```text
//! activity     users in order of the length of their history, cut into groups of as many users as can be; equal
//!              lengths are never parted, so there may be fewer groups
//! popularity   items from the most popular on: head until it has its share of all interactions, then middle, then tail
//!
//! recall@k  of a band    test rows of the band that are found / test rows of the band
//! places@k  of a band    places of all lists that items of the band take / all places
//! coverage@k of a band   items of the band that anybody is recommended / items of the band
//! ```
//!
//! What a band of items has is counted over rows, since a user's test items lie in several bands. Sums are kept by length
//! of history, so that memory does not grow with the users.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    Evaluation, Metrics,
    test_set::{Relevant, TestItem},
};
use crate::{ItemIndex, metrics::RankMetric};

/// Into which groups an evaluation is taken apart.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupOptions {
    /// Groups of users by the length of their history, at most.
    pub activity_groups: usize,
    /// Share of all interactions that the most popular items, the head, have.
    pub head_share: f64,
    /// Share of all interactions that the least popular items, the tail, have.
    pub tail_share: f64,
}

impl Default for GroupOptions {
    fn default() -> Self {
        Self { activity_groups: 4, head_share: 1.0 / 3.0, tail_share: 1.0 / 3.0 }
    }
}

/// Users whose histories are about as long.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ActivityGroup {
    /// Interactions of the shortest history.
    pub least: u64,
    /// Interactions of the longest history.
    pub most: u64,
    /// Users that the means are over.
    pub users: usize,
    /// The metrics of lists, by name and length.
    pub metrics: Metrics,
}

/// How popular an item is, beside the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Band {
    /// One of the few that most interactions are with.
    Head,
    /// In between.
    Middle,
    /// One of the many that few interactions are with.
    Tail,
}

impl Band {
    /// All of them, from the most popular on.
    pub const ALL: [Self; 3] = [Self::Head, Self::Middle, Self::Tail];

    /// Returns the name that commands print.
    pub fn name(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Middle => "middle",
            Self::Tail => "tail",
        }
    }
}

/// Items that are about as popular.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PopularityGroup {
    /// Which.
    pub band: Band,
    /// Items of the catalogue.
    pub items: usize,
    /// Training interactions with them.
    pub interactions: u64,
    /// Test rows of users that were measured.
    pub test_rows: usize,
    /// `recall@k`, `places@k` and `coverage@k`; what there is nothing to divide by is left out.
    pub metrics: Metrics,
}

/// An evaluation, taken apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GroupedEvaluation {
    /// Of all users.
    pub all: Evaluation,
    /// By activity, the least active first.
    pub by_activity: Vec<ActivityGroup>,
    /// By popularity: head, middle, tail.
    pub by_popularity: Vec<PopularityGroup>,
}

/// Which band each item is in.
#[derive(Clone, Debug, PartialEq)]
pub struct Bands {
    of: Vec<Band>,
    items: [usize; 3],
    interactions: [u64; 3],
}

impl Bands {
    /// Cuts the catalogue by the number of interactions that each item has; of equal ones the lower index comes first.
    pub fn new(popularity: &[f32], options: &GroupOptions) -> Self {
        let mut by_popularity: Vec<u32> = (0..popularity.len() as u32).collect();
        by_popularity.sort_by(|&a, &b| popularity[b as usize].total_cmp(&popularity[a as usize]));
        let all: f64 = popularity.iter().map(|&count| f64::from(count)).sum();
        let mut bands = Self { of: vec![Band::Tail; popularity.len()], items: [0; 3], interactions: [0; 3] };
        let mut before = 0.0;
        for item in by_popularity {
            let count = f64::from(popularity[item as usize]);
            let band = match before {
                before if before < options.head_share * all => Band::Head,
                before if before < (1.0 - options.tail_share) * all => Band::Middle,
                _ => Band::Tail,
            };
            before += count;
            bands.of[item as usize] = band;
            bands.items[band as usize] += 1;
            bands.interactions[band as usize] += count as u64;
        }
        bands
    }

    /// Returns the band of `item`, if it is of the catalogue.
    pub fn of(&self, item: ItemIndex) -> Option<Band> {
        self.of.get(item.at()).copied()
    }

    /// Returns how many items `band` has.
    pub fn items(&self, band: Band) -> usize {
        self.items[band as usize]
    }

    /// Returns how many interactions there are with the items of `band`.
    pub fn interactions(&self, band: Band) -> u64 {
        self.interactions[band as usize]
    }
}

/// Sums by group while an evaluation runs.
pub(super) struct GroupSums<'a> {
    bands: &'a Bands,
    k: &'a [usize],
    /// By length of history: users, and the sums of metric by metric, length by length.
    activity: BTreeMap<u64, (usize, Vec<f64>)>,
    test_rows: [usize; 3],
    /// By length of list and band.
    found: Vec<[u64; 3]>,
    places: Vec<[u64; 3]>,
}

impl<'a> GroupSums<'a> {
    pub(super) fn new(bands: &'a Bands, k: &'a [usize]) -> Self {
        let none = vec![[0; 3]; k.len()];
        Self { bands, k, activity: BTreeMap::new(), test_rows: [0; 3], found: none.clone(), places: none }
    }

    /// Adds a user with the answer and the ranks of what is relevant in it, ascending.
    pub(super) fn add(&mut self, user: &Relevant, history: usize, answer: &[ItemIndex], ranks: &[usize]) {
        let n = RankMetric::ALL.len() * self.k.len();
        let (users, sums) = self.activity.entry(history as u64).or_insert_with(|| (0, vec![0.0; n]));
        *users += 1;
        for (metric, sums) in RankMetric::ALL.iter().zip(sums.chunks_mut(self.k.len())) {
            for (sum, &k) in sums.iter_mut().zip(self.k) {
                *sum += metric.at(k, ranks, user.n_relevant());
            }
        }
        for item in user.relevant() {
            if let TestItem::Known(item) = item
                && let Some(band) = self.bands.of(*item)
            {
                self.test_rows[band as usize] += 1;
            }
        }
        for ((found, places), &k) in self.found.iter_mut().zip(&mut self.places).zip(self.k) {
            for band in answer.iter().take(k).filter_map(|&item| self.bands.of(item)) {
                places[band as usize] += 1;
            }
            // What stands behind the answer are candidates that the model does not know.
            let hits = ranks.iter().take_while(|&&rank| rank <= k).filter_map(|&rank| answer.get(rank - 1));
            for band in hits.filter_map(|&item| self.bands.of(item)) {
                found[band as usize] += 1;
            }
        }
    }

    /// Joins lengths of history to at most `groups` groups of about as many users.
    pub(super) fn by_activity(&self, groups: usize) -> Vec<ActivityGroup> {
        let all: usize = self.activity.values().map(|(users, _)| users).sum();
        let mut joined: Vec<(usize, u64, u64, usize, Vec<f64>)> = Vec::new();
        let mut before = 0;
        for (&length, (users, sums)) in &self.activity {
            // Where the middle of these users lies decides where they all go.
            let group = groups.max(1) * (2 * before + users) / (2 * all).max(1);
            before += users;
            match joined.last_mut() {
                Some(last) if last.0 == group => {
                    last.2 = length;
                    last.3 += users;
                    last.4.iter_mut().zip(sums).for_each(|(sum, more)| *sum += more);
                }
                _ => joined.push((group, length, length, *users, sums.clone())),
            }
        }
        let group = |(_, least, most, users, sums): (usize, u64, u64, usize, Vec<f64>)| {
            let mut metrics = Metrics::default();
            for (metric, sums) in RankMetric::ALL.iter().zip(sums.chunks(self.k.len())) {
                for (sum, k) in sums.iter().zip(self.k) {
                    metrics.push(format!("{}@{k}", metric.name()), sum / users as f64);
                }
            }
            ActivityGroup { least, most, users, metrics }
        };
        joined.into_iter().map(group).collect()
    }

    /// Returns what each band has; `covered` has, for each length, a bit for each item that was recommended to anybody.
    pub(super) fn by_popularity(&self, covered: &[Vec<u64>]) -> Vec<PopularityGroup> {
        let group = |band: Band| {
            let at = band as usize;
            let mut metrics = Metrics::default();
            let mut share = |name: &str, k: usize, part: u64, whole: u64| {
                if whole > 0 {
                    metrics.push(format!("{name}@{k}"), part as f64 / whole as f64);
                }
            };
            for (found, &k) in self.found.iter().zip(self.k) {
                share("recall", k, found[at], self.test_rows[at] as u64);
            }
            for (places, &k) in self.places.iter().zip(self.k) {
                share("places", k, places[at], places.iter().sum());
            }
            for (bits, &k) in covered.iter().zip(self.k) {
                let is_covered = |item: usize| bits[item / 64] >> (item % 64) & 1 == 1;
                let mine = (0..self.bands.of.len()).filter(|&item| self.bands.of[item] == band);
                share(
                    "coverage",
                    k,
                    mine.filter(|&item| is_covered(item)).count() as u64,
                    self.bands.items[at] as u64,
                );
            }
            PopularityGroup {
                band,
                items: self.bands.items[at],
                interactions: self.bands.interactions[at],
                test_rows: self.test_rows[at],
                metrics,
            }
        };
        Band::ALL.into_iter().map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_have_their_share_of_the_interactions() {
        // 12 interactions: 6 are half of them, so the head is one item; the tail begins once two thirds are gone.
        let bands = Bands::new(&[1.0, 6.0, 2.0, 2.0, 1.0, 0.0], &GroupOptions::default());
        let of: Vec<&str> = (0..6).filter_map(|item| bands.of(ItemIndex(item))).map(Band::name).collect();
        assert_eq!(of, ["tail", "head", "middle", "tail", "tail", "tail"]);
        assert_eq!(
            Band::ALL.map(|band| (bands.items(band), bands.interactions(band))),
            [(1, 6), (1, 2), (4, 4)]
        );
        assert_eq!(bands.of(ItemIndex(6)), None);
        assert_eq!(Bands::new(&[0.0], &GroupOptions::default()).items(Band::Tail), 1);
    }
}
