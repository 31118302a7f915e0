//! What a caller may say about reading interactions: columns, weights, repeats, filters, and what to do with bad rows.
//!
//! The fields' names are the flags' names (`--user-column`) and the keys of configuration files (`user_column`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How interactions are read.
///
/// A column is named as in the header, whatever its case, or by its number from 1. Columns that are not named are found
/// by the names that people give them; see [`super::columns`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadOptions {
    /// The column with the user's id.
    pub user_column: Option<String>,
    /// The column with the item's id.
    pub item_column: Option<String>,
    /// The column with the value; without one, and without events, every row counts 1.
    pub value_column: Option<String>,
    /// The column with the time: seconds or milliseconds since 1970, or RFC 3339 text.
    pub time_column: Option<String>,
    /// The column with the kind of event, which [`ReadOptions::event_weights`] turns into a weight.
    pub event_column: Option<String>,
    /// What an event of each kind counts; a value column, where there is one, is multiplied by it.
    pub event_weights: Option<EventWeights>,
    /// The age at which an event counts half, from the newest event of the data.
    pub half_life: Option<HalfLife>,
    /// What several rows of one user and one item become.
    pub repeats: Repeats,
    /// Users with fewer items are left out, again and again until none is left to leave out; 0 keeps all.
    pub min_user_interactions: usize,
    /// Items with fewer users are left out, likewise; 0 keeps all.
    pub min_item_interactions: usize,
    /// Rows with a lower value are left out, before anything else is made of them.
    pub min_rating: Option<f32>,
    /// Whether a value may be negative: a dislike.
    pub allow_negative: bool,
    /// What a bad row does.
    pub on_bad_row: OnBadRow,
    /// The format of the files, where neither their names nor their first bytes tell it.
    pub format: Option<Format>,
    /// What stands between two fields of a text file, where it is neither a comma nor a tab.
    pub delimiter: Option<char>,
    /// Whether text files begin with data at once. Columns then go by number: user 1, item 2, value 3 and time 4 where
    /// they exist.
    pub no_header: bool,
}

impl ReadOptions {
    /// Checks what one option means for another.
    ///
    /// # Errors
    /// [`Error::BadOption`] for the first that cannot be.
    pub fn validate(&self) -> Result<()> {
        match (&self.event_column, &self.event_weights) {
            (Some(column), None) => {
                return Err(bad("event_weights", "weights for the events of the event column", column));
            }
            (_, Some(weights)) if !self.allow_negative => {
                if let Some((kind, _)) = weights.iter().find(|&(_, weight)| weight < 0.0) {
                    return Err(bad(
                        "event_weights",
                        "weights that are not negative, or allow-negative",
                        kind,
                    ));
                }
            }
            _ => {}
        }
        if let Some(least) = self.min_rating.filter(|least| !least.is_finite()) {
            return Err(bad("min_rating", "a finite number", &least.to_string()));
        }
        match self.delimiter {
            Some(delimiter) if !delimiter.is_ascii() || "\"\r\n".contains(delimiter) => {
                Err(bad("delimiter", "one ASCII character", &delimiter.to_string()))
            }
            _ => Ok(()),
        }
    }
}

/// What several rows of one user and one item become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Repeats {
    /// Their values are added up. The time is the newest.
    #[default]
    Sum,
    /// The newest row counts (the last in the file where there are no times, or equal ones).
    Last,
    /// The largest value counts. The time is the newest.
    Max,
    /// The oldest row counts (the first in the file where there are no times, or equal ones).
    First,
    /// The mean of their values. The time is the newest.
    Mean,
}

/// What a bad row does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBadRow {
    /// It ends the reading with an error.
    #[default]
    Fail,
    /// It is left out, counted and reported.
    Skip,
}

/// How the rows of a file are written down; gzip or zstd around it is seen by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// Text with commas.
    Csv,
    /// Text with tabs.
    Tsv,
    /// One JSON object a line.
    Jsonl,
    /// Apache Parquet.
    Parquet,
    /// Apache Arrow IPC, as a file or as a stream.
    Arrow,
}

/// What an event of each kind counts, as `view=1,cart=3,purchase=10`.
#[derive(Clone, Debug, PartialEq)]
pub struct EventWeights(Vec<(String, f32)>);

/// The age at which an event counts half, as `30d`, `12h`, `90m`, `45s` or `2w`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HalfLife {
    seconds: f64,
}

impl EventWeights {
    /// Joins kinds and weights.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a kind that is there twice or a weight that is not finite.
    pub fn new(weights: Vec<(String, f32)>) -> Result<Self> {
        for (at, (kind, weight)) in weights.iter().enumerate() {
            if !weight.is_finite() || kind.is_empty() || weights[..at].iter().any(|(other, _)| other == kind)
            {
                return Err(bad("event_weights", "a finite weight, once for each kind", kind));
            }
        }
        Ok(Self(weights))
    }

    /// Returns what an event of kind `kind` counts.
    pub fn get(&self, kind: &str) -> Option<f32> {
        self.0.iter().find(|(name, _)| name == kind).map(|(_, weight)| *weight)
    }

    /// Returns the kinds and their weights as they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f32)> {
        self.0.iter().map(|(kind, weight)| (kind.as_str(), *weight))
    }
}

impl FromStr for EventWeights {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let pairs = text.split(',').map(|pair| {
            let (kind, weight) = pair.rsplit_once('=')?;
            Some((kind.trim().to_owned(), weight.trim().parse().ok()?))
        });
        let pairs: Option<Vec<_>> = pairs.collect();
        Self::new(pairs.ok_or_else(|| bad("event_weights", "kind=weight pairs, as in view=1,cart=3", text))?)
    }
}

impl fmt::Display for EventWeights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (kind, weight)) in self.iter().enumerate() {
            write!(f, "{}{kind}={weight}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl HalfLife {
    /// Returns the half-life of `seconds`.
    ///
    /// # Errors
    /// [`Error::BadOption`] when it is not positive and finite.
    pub fn from_seconds(seconds: f64) -> Result<Self> {
        if seconds.is_finite() && seconds > 0.0 {
            Ok(Self { seconds })
        } else {
            Err(bad("half_life", "a positive duration such as 30d, 12h, 90m or 45s", &seconds.to_string()))
        }
    }

    /// Returns the half-life in seconds.
    pub fn seconds(self) -> f64 {
        self.seconds
    }
}

impl FromStr for HalfLife {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let refused = || bad("half_life", "a positive duration such as 30d, 12h, 90m or 45s", text);
        let trimmed = text.trim();
        let unit_at = trimmed.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(refused)?;
        let (number, unit) = trimmed.split_at(unit_at);
        let unit_seconds = match unit {
            "s" => 1.0,
            "m" | "min" => 60.0,
            "h" => 3_600.0,
            "d" => 86_400.0,
            "w" => 604_800.0,
            _ => return Err(refused()),
        };
        let number: f64 = number.trim().parse().map_err(|_| refused())?;
        Self::from_seconds(number * unit_seconds).map_err(|_| refused())
    }
}

impl fmt::Display for HalfLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, seconds) in [("d", 86_400.0), ("h", 3_600.0), ("m", 60.0)] {
            if self.seconds >= seconds && self.seconds % seconds == 0.0 {
                return write!(f, "{}{unit}", self.seconds / seconds);
            }
        }
        write!(f, "{}s", self.seconds)
    }
}

/// Gives a type that has a text form that form in serde and, with the feature, on the command line.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

as_text!(EventWeights, HalfLife);

/// Gives an enum its kebab-case names as text.
macro_rules! named {
    ($type:ty, $option:literal, $expected:literal, $($name:literal => $variant:path),*) => {
        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                match text {
                    $($name => Ok($variant),)*
                    _ => Err(bad($option, $expected, text)),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $($variant => $name,)* })
            }
        }
    };
}

named!(Repeats, "repeats", "sum, last, max, first or mean",
    "sum" => Repeats::Sum, "last" => Repeats::Last, "max" => Repeats::Max, "first" => Repeats::First,
    "mean" => Repeats::Mean);
named!(OnBadRow, "on_bad_row", "fail or skip", "fail" => OnBadRow::Fail, "skip" => OnBadRow::Skip);
named!(Format, "format", "csv, tsv, jsonl, parquet or arrow",
    "csv" => Format::Csv, "tsv" => Format::Tsv, "jsonl" => Format::Jsonl, "parquet" => Format::Parquet,
    "arrow" => Format::Arrow);

fn bad(option: &'static str, expected: &'static str, found: &str) -> Error {
    Error::BadOption { option, expected, found: found.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_the_same_after_their_text_form() {
        let options = ReadOptions {
            event_weights: Some("view=1,cart=2.5,a=b=10".parse().unwrap()),
            half_life: Some("36h".parse().unwrap()),
            repeats: Repeats::Mean,
            on_bad_row: OnBadRow::Skip,
            ..ReadOptions::default()
        };
        let text = serde_json::to_string(&options).unwrap();
        assert!(text.contains("\"half_life\":\"36h\"") && text.contains("view=1,cart=2.5,a=b=10"), "{text}");
        assert_eq!(serde_json::from_str::<ReadOptions>(&text).unwrap(), options);
        assert!(serde_json::from_str::<ReadOptions>("{\"half_live\": \"3d\"}").is_err());
    }

    #[test]
    fn durations_and_weights_that_are_none_are_refused() {
        for text in ["", "30", "d", "-3d", "0d", "nand", "3 fortnights", "infs"] {
            assert!(text.parse::<HalfLife>().is_err(), "{text}");
        }
        assert_eq!("1.5d".parse::<HalfLife>().unwrap().seconds(), 129_600.0);
        for text in ["", "view", "view=x", "view=1,view=2", "view=nan", "=1"] {
            assert!(text.parse::<EventWeights>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_rules_are_their_text() {
        for rule in [Repeats::Sum, Repeats::Last, Repeats::Max, Repeats::First, Repeats::Mean] {
            assert_eq!(rule.to_string().parse::<Repeats>().unwrap(), rule);
            assert_eq!(serde_json::to_string(&rule).unwrap(), format!("\"{rule}\""));
        }
    }
}
