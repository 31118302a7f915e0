//! Made-up interactions with a taste that a reader can see: for the demo, for tests, for benches; no file is needed.
//!
//! ```text
//! weight of item i for user u = exp( quality(i) + 2.2 taste(u, genre(i)) + theme(u, i) + era(u, year(i)) )
//! ```
//!
//! Every user draws items without replacement in proportion to these weights (by Gumbel noise: the `n` largest of
//! log-weight plus noise). Titles are composed of words of their genre and theme, so that a list of recommendations can
//! be judged by eye. The default size is that of MovieLens-1M. The same options give the same data on every run; a row
//! of numbers is drawn for each user from (seed, user), so the number of threads does not matter.
//!
//! Cost: `n_users * n_items` logarithms, about half a second on two cores at the default size.

mod titles;

use std::{cmp::Ordering, sync::Arc};

use arrow::{
    array::{ArrayRef, RecordBatch, StringArray, UInt16Array},
    error::ArrowError,
};
use rayon::prelude::*;

use crate::{Csr, Dataset, IdMap, Result};
use titles::{GENRES, TASTES};

/// How much to make up.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticOptions {
    /// Number of users.
    pub n_users: usize,
    /// Number of items.
    pub n_items: usize,
    /// Number of interactions, hit within a few percent.
    pub n_interactions: usize,
    /// The same seed gives the same data.
    pub seed: u64,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        Self { n_users: 6_040, n_items: 3_706, n_interactions: 1_000_000, seed: 0 }
    }
}

/// A made-up item.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticItem {
    /// Its id: `1`, `2` and so on.
    pub id: String,
    /// A title that sounds like its genre, with the year.
    pub title: String,
    /// Its genre.
    pub genre: &'static str,
    /// When it came out.
    pub year: u16,
    genre_index: usize,
    theme: usize,
    quality: f64,
}

/// A made-up user.
#[derive(Clone, Debug, PartialEq)]
pub struct SyntheticUser {
    /// The user's id: `1`, `2` and so on.
    pub id: String,
    /// The name of what the user likes, such as `far futures`.
    pub taste: &'static str,
    /// The genres of this taste, the best loved first.
    pub genres: [&'static str; 3],
    taste_index: usize,
    era: f64,
    n_interactions: usize,
}

/// One interaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SyntheticEvent {
    /// Position in [`Synthetic::users`].
    pub user: u32,
    /// Position in [`Synthetic::items`].
    pub item: u32,
    /// From 1 to 5, in whole steps.
    pub rating: f32,
    /// Seconds since 1970.
    pub time: i64,
}

/// Made-up users, items and the interactions between them.
#[derive(Clone, Debug)]
pub struct Synthetic {
    /// The users.
    pub users: Vec<SyntheticUser>,
    /// The items.
    pub items: Vec<SyntheticItem>,
    /// The interactions: user by user, within a user in time order; no pair twice.
    pub events: Vec<SyntheticEvent>,
}

/// The year 2000 in seconds since 1970; events spread over three years from there.
const FIRST_TIME: i64 = 946_684_800;
const TIME_SPAN: f64 = 3.0 * 365.0 * 86_400.0;
const YEARS: std::ops::Range<u16> = 1950..2001;

impl Synthetic {
    /// Makes up users, items and interactions.
    pub fn generate(options: &SyntheticOptions) -> Self {
        let items = make_items(options);
        let users = make_users(options);
        let events: Vec<Vec<SyntheticEvent>> = users
            .par_iter()
            .enumerate()
            .map_init(Vec::new, |keys, (index, user)| choose(options.seed, index, user, &items, keys))
            .collect();
        Self { users, items, events: events.concat() }
    }

    /// Returns the interactions as a dataset, the ratings as values.
    ///
    /// # Errors
    /// [`crate::Error::TooManyIds`] when there are more than 32 bits can number.
    pub fn dataset(&self) -> Result<Dataset> {
        self.dataset_of(&self.events)
    }

    /// Returns the interactions in two parts with the same users and items: without and with the newest `share` of each
    /// user's.
    ///
    /// # Errors
    /// As [`Synthetic::dataset`].
    pub fn split_newest(&self, share: f64) -> Result<(Dataset, Dataset)> {
        let (mut older, mut newer) = (Vec::new(), Vec::new());
        for row in self.events.chunk_by(|a, b| a.user == b.user) {
            let (old, new) = row.split_at(row.len() - (row.len() as f64 * share.clamp(0.0, 1.0)) as usize);
            older.extend_from_slice(old);
            newer.extend_from_slice(new);
        }
        Ok((self.dataset_of(&older)?, self.dataset_of(&newer)?))
    }

    /// Makes a dataset of all users and items and of `events`, which are user by user in time order.
    fn dataset_of(&self, events: &[SyntheticEvent]) -> Result<Dataset> {
        let mut users = IdMap::default();
        for user in &self.users {
            users.get_or_insert(&user.id)?;
        }
        let mut items = IdMap::default();
        for item in &self.items {
            items.get_or_insert(&item.id)?;
        }
        let (mut indptr, mut order) = (vec![0u64], Vec::with_capacity(events.len()));
        let mut sorted = Vec::with_capacity(events.len());
        for row in events.chunk_by(|a, b| a.user == b.user) {
            let user = row[0].user as usize;
            indptr.resize(user + 1, sorted.len() as u64);
            let mut by_item: Vec<u32> = (0..row.len() as u32).collect();
            by_item.sort_unstable_by_key(|&at| row[at as usize].item);
            let mut position = vec![0u32; row.len()];
            for (rank, &at) in by_item.iter().enumerate() {
                position[at as usize] = rank as u32;
            }
            sorted.extend(by_item.iter().map(|&at| row[at as usize]));
            order.extend(position);
        }
        indptr.resize(self.users.len() + 1, sorted.len() as u64);
        let csr = Csr::new(
            self.items.len(),
            indptr,
            sorted.iter().map(|event| event.item).collect(),
            sorted.iter().map(|event| event.rating).collect(),
        )?;
        Dataset::new(users, items, csr, Some(sorted.iter().map(|event| event.time).collect()), order)
    }

    /// Returns the items as a table with the columns `item_id`, `title`, `genre` and `year`.
    ///
    /// # Errors
    /// [`ArrowError`] when there are more items than one batch can hold.
    pub fn item_table(&self) -> std::result::Result<RecordBatch, ArrowError> {
        let text = |of: fn(&SyntheticItem) -> &str| -> ArrayRef {
            Arc::new(self.items.iter().map(|item| Some(of(item))).collect::<StringArray>())
        };
        RecordBatch::try_from_iter([
            ("item_id", text(|item| &item.id)),
            ("title", text(|item| &item.title)),
            ("genre", text(|item| item.genre)),
            ("year", Arc::new(self.items.iter().map(|item| item.year).collect::<UInt16Array>())),
        ])
    }
}

/// Which numbers a draw belongs to; streams do not overlap.
#[derive(Clone, Copy)]
enum Stream {
    Words = 1,
    Items,
    Users,
    Choices,
}

/// A small generator (splitmix64) that starts anywhere: from a seed, a stream and an index.
struct Draw(u64);

impl Draw {
    fn new(seed: u64, stream: Stream, index: usize) -> Self {
        let start = mix(mix(seed ^ 0x7265_636d_696c_6c00).wrapping_add(stream as u64));
        Self(mix(start.wrapping_add(index as u64)))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform over the open interval (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
    }

    /// Uniform over `0..n`.
    fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Standard normal, by Box and Muller.
    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }
}

fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

fn make_items(options: &SyntheticOptions) -> Vec<SyntheticItem> {
    // Every genre deals its (theme, word, noun) combinations in an order of its own, like cards.
    let decks: Vec<Vec<usize>> = GENRES
        .iter()
        .enumerate()
        .map(|(index, genre)| {
            let mut draw = Draw::new(options.seed, Stream::Words, index);
            let mut deck: Vec<usize> = (0..genre.themes.len() * 6 * genre.nouns.len()).collect();
            for last in (1..deck.len()).rev() {
                deck.swap(last, draw.below(last + 1));
            }
            deck
        })
        .collect();
    let mut dealt = [0usize; GENRES.len()];
    (0..options.n_items)
        .map(|index| {
            let mut draw = Draw::new(options.seed, Stream::Items, index);
            let genre_index = draw.below(GENRES.len());
            let (genre, deck) = (&GENRES[genre_index], &decks[genre_index]);
            let card = deck[dealt[genre_index] % deck.len()];
            let part = dealt[genre_index] / deck.len() + 1;
            dealt[genre_index] += 1;
            let (words, noun) = (card / genre.nouns.len(), genre.nouns[card % genre.nouns.len()]);
            let (theme, word) = (words / 6, genre.themes[words / 6][words % 6]);
            let article = if draw.below(3) == 0 { "The " } else { "" };
            // A deck that has been dealt once goes on with sequels, so that no title comes twice.
            let sequel = if part == 1 { String::new() } else { format!(" {part}") };
            // Half of all items are from the last decade or so: 1 - sqrt(u) leans to the end of the range.
            let age = (YEARS.len() as f64 * (1.0 - draw.uniform().sqrt())) as u16;
            let year = YEARS.end - 1 - age.min(YEARS.len() as u16 - 1);
            SyntheticItem {
                id: (index + 1).to_string(),
                title: format!("{article}{word} {noun}{sequel} ({year})"),
                genre: genre.name,
                year,
                genre_index,
                theme,
                quality: 1.1 * draw.normal(),
            }
        })
        .collect()
}

fn make_users(options: &SyntheticOptions) -> Vec<SyntheticUser> {
    let most = (options.n_items * 2 / 3).max(1);
    let fewest = 20.min(most);
    // Activity is log-normal beyond a floor, with the spread of MovieLens-1M.
    let mut activity: Vec<f64> = Vec::with_capacity(options.n_users);
    let mut users: Vec<SyntheticUser> = (0..options.n_users)
        .map(|index| {
            let mut draw = Draw::new(options.seed, Stream::Users, index);
            let taste_index = draw.below(TASTES.len());
            let (taste, genres) = TASTES[taste_index];
            activity.push((1.05 * draw.normal()).exp());
            let era = f64::from(YEARS.end) - 40.0 * draw.uniform();
            SyntheticUser {
                id: (index + 1).to_string(),
                taste,
                genres,
                taste_index,
                era,
                n_interactions: fewest,
            }
        })
        .collect();
    let beyond = options.n_interactions.saturating_sub(fewest * options.n_users) as f64;
    let scale = beyond / activity.iter().sum::<f64>().max(f64::MIN_POSITIVE);
    for (user, activity) in users.iter_mut().zip(activity) {
        user.n_interactions = (fewest + (scale * activity).round() as usize).min(most);
    }
    users
}

/// Draws the interactions of one user; `keys` is scratch memory.
fn choose(
    seed: u64,
    index: usize,
    user: &SyntheticUser,
    items: &[SyntheticItem],
    keys: &mut Vec<(f64, u32)>,
) -> Vec<SyntheticEvent> {
    let mut draw = Draw::new(seed, Stream::Choices, index);
    let loved = &TASTES[user.taste_index].1;
    let affinity: Vec<[f64; 3]> = GENRES
        .iter()
        .map(|genre| {
            let rank = loved.iter().position(|&name| name == genre.name);
            let taste = rank.map_or(0.0, |rank| 2.2 - 0.4 * rank as f64) + 0.35 * draw.normal();
            std::array::from_fn(|_| taste + 0.8 * draw.normal())
        })
        .collect();
    let liking = |item: &SyntheticItem| {
        let era = (f64::from(item.year) - user.era) / 18.0;
        affinity[item.genre_index][item.theme] + item.quality - 0.5 * era * era
    };
    keys.clear();
    keys.extend(items.iter().enumerate().map(|(index, item)| {
        let gumbel = -(-draw.uniform().ln()).ln();
        (liking(item) + gumbel, index as u32)
    }));
    let n = user.n_interactions.min(keys.len());
    if n == 0 {
        return Vec::new();
    }
    let descending = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
    keys.select_nth_unstable_by(n - 1, descending);
    let chosen = &mut keys[..n];
    chosen.sort_unstable_by_key(|&(_, item)| item);
    let first = FIRST_TIME as f64 + TIME_SPAN * 0.8 * draw.uniform();
    let mut events: Vec<SyntheticEvent> = chosen
        .iter()
        .map(|&(_, item)| {
            let rating = 2.6 + 0.45 * liking(&items[item as usize]) + 0.6 * draw.normal();
            SyntheticEvent {
                user: index as u32,
                item,
                rating: rating.round().clamp(1.0, 5.0) as f32,
                time: (first + TIME_SPAN * 0.2 * draw.uniform()) as i64,
            }
        })
        .collect();
    events.sort_unstable_by(|a, b| match a.time.cmp(&b.time) {
        Ordering::Equal => a.item.cmp(&b.item),
        other => other,
    });
    events
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn small(seed: u64) -> Synthetic {
        Synthetic::generate(&SyntheticOptions { n_users: 200, n_items: 500, n_interactions: 8_000, seed })
    }

    #[test]
    fn the_same_seed_gives_the_same_data_and_another_seed_other_data() {
        assert_eq!(small(1).events, small(1).events);
        assert_ne!(small(1).events, small(2).events);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
        assert_eq!(pool.install(|| small(1)).events, small(1).events);
    }

    #[test]
    fn titles_are_unique_even_when_the_words_run_out() {
        let options = SyntheticOptions { n_users: 1, n_items: 12_000, n_interactions: 1, seed: 0 };
        let items = Synthetic::generate(&options).items;
        let plain = |title: &str| title.trim_start_matches("The ").split(" (").next().map(str::to_owned);
        let titles: HashSet<_> = items.iter().map(|item| (item.genre, plain(&item.title))).collect();
        assert_eq!(titles.len(), items.len());
    }

    #[test]
    fn users_choose_more_of_what_they_like() {
        let data = small(3);
        let loved = data
            .events
            .iter()
            .filter(|event| {
                data.users[event.user as usize].genres.contains(&data.items[event.item as usize].genre)
            })
            .count();
        // Three genres of seventeen would be 18% without a taste.
        assert!(loved as f64 > 0.4 * data.events.len() as f64, "{loved} of {}", data.events.len());
    }

    #[test]
    fn the_dataset_holds_every_event_in_time_order() {
        let data = small(4);
        let dataset = data.dataset().unwrap();
        assert_eq!(
            (dataset.n_users(), dataset.n_items(), dataset.by_user().nnz()),
            (200, 500, data.events.len())
        );
        let of_user: Vec<u32> = data.events.iter().filter(|e| e.user == 7).map(|e| e.item).collect();
        let items = dataset.by_user().row(7).0;
        let in_order: Vec<u32> = dataset.order(7).iter().map(|&at| items[at as usize]).collect();
        assert_eq!(in_order, of_user);
    }

    #[test]
    fn the_newest_are_split_off_user_by_user() {
        let data = small(5);
        let (older, newer) = data.split_newest(0.25).unwrap();
        assert_eq!(older.by_user().nnz() + newer.by_user().nnz(), data.events.len());
        for user in 0..data.users.len() {
            let n = older.by_user().row(user).0.len() + newer.by_user().row(user).0.len();
            assert_eq!(newer.by_user().row(user).0.len(), n / 4);
            let time = |data: &Dataset| data.times().unwrap()[data.by_user().range(user)].to_vec();
            assert!(time(&older).iter().max() <= time(&newer).iter().min());
        }
    }

    #[test]
    fn every_taste_names_genres_that_exist() {
        for (_, genres) in TASTES {
            for name in genres {
                assert!(GENRES.iter().any(|genre| genre.name == name), "{name}");
            }
        }
    }

    #[test]
    fn sizes_of_zero_and_one_are_fine() {
        for (n_users, n_items) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let options = SyntheticOptions { n_users, n_items, n_interactions: 5, seed: 0 };
            let data = Synthetic::generate(&options);
            assert_eq!(data.dataset().unwrap().n_users(), n_users);
        }
    }
}
