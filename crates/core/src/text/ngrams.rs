//! A text as the buckets of its n-grams, and the buckets as rows of the table of weights.
//!
//! ```text
//! normal   " how are you ? "        lower case, one blank between words and at both ends
//! words    runs of letters and digits; any other sign that is no blank is a word
//! bucket   murmur3(bytes of the n-gram, seed) mod buckets; the seed is 1 for words, 2 for characters
//! ```
//! Runs of characters stay within a word and the blank on either side of it. What lies beyond [`MAX_TEXT_BYTES`] of a text is not
//! looked at.

use std::ops::{Range, RangeInclusive};

use rayon::prelude::*;
use recmill_kernels::{BagFeature, Buffer, Pooling, Table, murmur3};

use super::TextConfig;
use crate::{Error, Parameter, Parameters, Result};

/// The bytes of a text that are looked at.
pub const MAX_TEXT_BYTES: usize = 1 << 16;

const WORDS: u32 = 1;
const CHARACTERS: u32 = 2;

/// Takes texts apart; keeps its memory from text to text.
#[derive(Clone, Debug)]
pub struct NGrams {
    words: usize,
    characters: RangeInclusive<usize>,
    buckets: u32,
    normal: String,
    /// Where each word lies in `normal`.
    places: Vec<Range<usize>>,
    /// Where each character of a word with its blanks begins, and the end.
    starts: Vec<usize>,
    found: Vec<u32>,
}

impl NGrams {
    /// Takes texts apart as `config` says.
    pub fn new(config: &TextConfig) -> Self {
        Self {
            words: config.word_ngrams,
            characters: config.min_characters..=config.max_characters,
            buckets: config.buckets,
            normal: String::new(),
            places: Vec::new(),
            starts: Vec::new(),
            found: Vec::new(),
        }
    }

    /// Returns the buckets of a text's n-grams: each once, ascending.
    pub fn of(&mut self, text: &str) -> &[u32] {
        self.normalize(text);
        self.found.clear();
        let bucket = |bytes: &str, seed: u32| murmur3(bytes.as_bytes(), seed) % self.buckets;
        for (first, word) in self.places.iter().enumerate() {
            for last in &self.places[first..(first + self.words).min(self.places.len())] {
                self.found.push(bucket(&self.normal[word.start..last.end], WORDS));
            }
            if self.characters.is_empty() || *self.characters.end() == 0 {
                continue;
            }
            let with_blanks = word.start - 1..word.end + 1;
            self.starts.clear();
            self.starts.extend(
                self.normal[with_blanks.clone()].char_indices().map(|(at, _)| with_blanks.start + at),
            );
            self.starts.push(with_blanks.end);
            for n in self.characters.clone() {
                for run in self.starts.windows(n + 1) {
                    self.found.push(bucket(&self.normal[run[0]..run[n]], CHARACTERS));
                }
            }
        }
        self.found.sort_unstable();
        self.found.dedup();
        &self.found
    }

    fn normalize(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(MAX_TEXT_BYTES)];
        self.normal.clear();
        self.normal.push(' ');
        self.places.clear();
        let mut within = false;
        for c in text.chars() {
            let of_word = c.is_alphanumeric();
            if !(c.is_whitespace() || of_word && within) {
                // A word begins.
                if !self.places.is_empty() {
                    self.normal.push(' ');
                }
                self.places.push(self.normal.len()..self.normal.len());
            }
            if !c.is_whitespace() {
                self.normal.extend(c.to_lowercase());
                if let Some(place) = self.places.last_mut() {
                    place.end = self.normal.len();
                }
            }
            within = of_word;
        }
        self.normal.push(' ');
    }
}

/// Some texts as bags of rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Encoded {
    /// Text `i` has the places `offsets[i] .. offsets[i + 1]`.
    pub offsets: Vec<u32>,
    /// Rows of the table of weights.
    pub indices: Vec<u32>,
    /// The weight of each.
    pub weights: Vec<f32>,
}

impl Encoded {
    /// Removes all texts and keeps the memory.
    pub fn clear(&mut self) {
        self.offsets.clear();
        self.offsets.push(0);
        self.indices.clear();
        self.weights.clear();
    }

    /// Returns the number of texts.
    pub fn n_texts(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Returns what the kernels look up of `table`.
    pub fn bags(&self, table: &Table) -> BagFeature<'_> {
        BagFeature {
            table: 0,
            rows: 0..table.rows(),
            indices: &self.indices,
            offsets: &self.offsets,
            pooling: Pooling::Weighted(&self.weights),
        }
    }
}

/// Which bucket has which row of the table of weights, and how much it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct NGramRows {
    /// `[buckets]`: the row, counted from 1; 0 where there is none.
    rows: Vec<u32>,
    /// `[rows]`.
    idf: Vec<f32>,
}

impl NGramRows {
    /// Gives a row to each bucket that enough of `texts` have.
    ///
    /// With `idf` a bucket in `n` of `N` texts counts `1 + ln((1 + N) / (1 + n))`, otherwise each counts 1.
    pub fn fit<T: AsRef<str> + Sync>(config: &TextConfig, texts: &[T]) -> Self {
        let buckets = config.buckets as usize;
        let counts = texts
            .par_chunks(4096)
            .fold(
                || vec![0u32; buckets],
                |mut counts, texts| {
                    let mut ngrams = NGrams::new(config);
                    for text in texts {
                        ngrams.of(text.as_ref()).iter().for_each(|&bucket| counts[bucket as usize] += 1);
                    }
                    counts
                },
            )
            .reduce(
                || vec![0u32; buckets],
                |mut all, some| {
                    all.iter_mut().zip(some).for_each(|(all, some)| *all += some);
                    all
                },
            );
        let mut idf = Vec::new();
        let rows = counts
            .iter()
            .map(|&count| {
                if count < config.min_texts.max(1) {
                    return 0;
                }
                let rarity = (1.0 + texts.len() as f64) / (1.0 + f64::from(count));
                idf.push(if config.idf { (1.0 + rarity.ln()) as f32 } else { 1.0 });
                idf.len() as u32
            })
            .collect();
        Self { rows, idf }
    }

    /// Takes what [`NGramRows::put`] stored.
    ///
    /// # Errors
    /// [`Error::MissingParameter`]; [`Error::WrongSize`] for other buckets than `config` has; [`Error::Inconsistent`] for a row
    /// that is not there.
    pub fn take(config: &TextConfig, parameters: &mut Parameters) -> Result<Self> {
        let rows = parameters.take_u32("rows")?.to_vec()?;
        let idf = parameters.take_f32("idf")?.to_vec()?;
        let (expected, got) = (config.buckets as usize, rows.len());
        if expected != got {
            return Err(Error::WrongSize { what: "the rows of n-grams", side: "buckets", expected, got });
        }
        if let Some(at) = rows.iter().position(|&row| row as usize > idf.len()) {
            return Err(Error::Inconsistent { what: "row of an n-gram", at: at as u64 });
        }
        if let Some(at) = idf.iter().position(|idf| !idf.is_finite()) {
            return Err(Error::Inconsistent { what: "weight of an n-gram", at: at as u64 });
        }
        Ok(Self { rows, idf })
    }

    /// Adds both arrays to the parameters of a model.
    ///
    /// # Errors
    /// [`Error::Kernel`] when there is no memory for a copy.
    pub fn put(&self, parameters: &mut Parameters) -> Result<()> {
        let rows = Buffer::from_vec(self.rows.clone(), "the rows of n-grams")?;
        let idf = Buffer::from_vec(self.idf.clone(), "the weights of n-grams")?;
        parameters.insert("rows", Parameter::U32(rows));
        parameters.insert("idf", Parameter::F32(idf));
        Ok(())
    }

    /// Returns how many rows there are.
    pub fn n_rows(&self) -> usize {
        self.idf.len()
    }

    /// Appends a text to `out`; `keep` says of a bucket whether it counts, which is for dropout.
    ///
    /// Weights are such that their squares add up to 1; a text without a known n-gram has none.
    pub fn encode(&self, ngrams: &mut NGrams, text: &str, keep: impl Fn(u32) -> bool, out: &mut Encoded) {
        if out.offsets.is_empty() {
            out.offsets.push(0);
        }
        let first = out.indices.len();
        let mut squares = 0.0f64;
        for &bucket in ngrams.of(text) {
            let Some(row) = self.rows[bucket as usize].checked_sub(1).filter(|_| keep(bucket)) else {
                continue;
            };
            let idf = self.idf[row as usize];
            out.indices.push(row);
            out.weights.push(idf);
            squares += f64::from(idf) * f64::from(idf);
        }
        let scale = squares.sqrt().max(f64::MIN_POSITIVE);
        out.weights[first..].iter_mut().for_each(|weight| *weight = (f64::from(*weight) / scale) as f32);
        out.offsets.push(out.indices.len() as u32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(config: &TextConfig, text: &str) -> Vec<u32> {
        NGrams::new(config).of(text).to_vec()
    }

    fn hashed(ngrams: &[(&str, u32)], buckets: u32) -> Vec<u32> {
        let mut hashed: Vec<u32> =
            ngrams.iter().map(|(text, seed)| murmur3(text.as_bytes(), *seed) % buckets).collect();
        hashed.sort_unstable();
        hashed.dedup();
        hashed
    }

    #[test]
    fn ngrams_by_hand() {
        let config = TextConfig {
            word_ngrams: 2,
            min_characters: 2,
            max_characters: 3,
            buckets: 1 << 20,
            ..TextConfig::default()
        };
        let expected = [
            ("hé", WORDS),
            ("hé ,", WORDS),
            (",", WORDS),
            (", ok", WORDS),
            ("ok", WORDS),
            (" h", CHARACTERS),
            ("hé", CHARACTERS),
            ("é ", CHARACTERS),
            (" hé", CHARACTERS),
            ("hé ", CHARACTERS),
            (" ,", CHARACTERS),
            (", ", CHARACTERS),
            (" , ", CHARACTERS),
            (" o", CHARACTERS),
            ("ok", CHARACTERS),
            ("k ", CHARACTERS),
            (" ok", CHARACTERS),
            ("ok ", CHARACTERS),
        ];
        assert_eq!(buckets(&config, "  HÉ,\tOk "), hashed(&expected, config.buckets));
        // A blank, a sign and a capital change nothing but what they are.
        assert_eq!(buckets(&config, "hé , ok"), buckets(&config, "HÉ,ok"));
        assert!(buckets(&config, " \n").is_empty());
    }

    #[test]
    fn words_alone_and_characters_alone() {
        let words = TextConfig { word_ngrams: 1, max_characters: 0, ..TextConfig::default() };
        assert_eq!(buckets(&words, "a b a"), hashed(&[("a", WORDS), ("b", WORDS)], words.buckets));
        let characters =
            TextConfig { word_ngrams: 0, min_characters: 3, max_characters: 3, ..TextConfig::default() };
        assert_eq!(
            buckets(&characters, "ab"),
            hashed(&[(" ab", CHARACTERS), ("ab ", CHARACTERS)], words.buckets)
        );
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let config = TextConfig { word_ngrams: 1, max_characters: 0, ..TextConfig::default() };
        let long = format!("a {}", "é".repeat(MAX_TEXT_BYTES));
        assert_eq!(buckets(&config, &long).len(), 2);
        let cut: String = long.chars().take(2 + (MAX_TEXT_BYTES - 2) / 2).collect();
        assert_eq!(buckets(&config, &long), buckets(&config, &cut));
    }

    #[test]
    fn rows_and_weights_by_hand() {
        let config = TextConfig { word_ngrams: 1, max_characters: 0, min_texts: 2, ..TextConfig::default() };
        let rows = NGramRows::fit(&config, &["a b", "b a b", "b c"]);
        // `c` is in one text only.
        assert_eq!(rows.n_rows(), 2);
        let (mut ngrams, mut out) = (NGrams::new(&config), Encoded::default());
        rows.encode(&mut ngrams, "a b c", |_| true, &mut out);
        rows.encode(&mut ngrams, "c", |_| true, &mut out);
        assert_eq!((out.n_texts(), &out.offsets[..]), (2, &[0, 2, 2][..]));
        let (idf_a, idf_b) = (1.0 + (4.0f64 / 3.0).ln(), 1.0 + (4.0f64 / 4.0).ln());
        let length = idf_a.hypot(idf_b);
        let mut expected = [(idf_a / length) as f32, (idf_b / length) as f32];
        if murmur3(b"a", WORDS) % config.buckets > murmur3(b"b", WORDS) % config.buckets {
            expected.reverse();
        }
        assert_eq!(out.weights, expected);

        let mut parameters = Parameters::default();
        rows.put(&mut parameters).unwrap();
        assert_eq!(NGramRows::take(&config, &mut parameters).unwrap(), rows);
        rows.put(&mut parameters).unwrap();
        let other = TextConfig { buckets: 7, ..config.clone() };
        assert!(matches!(NGramRows::take(&other, &mut parameters), Err(Error::WrongSize { .. })));
        // Without rarity all count alike.
        let plain = NGramRows::fit(&TextConfig { idf: false, ..config }, &["a b", "b a b"]);
        out.clear();
        plain.encode(&mut ngrams, "a b", |_| true, &mut out);
        assert_eq!(out.weights, [0.5f32.sqrt(); 2]);
    }
}
