//! Guessing what each column of a file is, with a reason for every guess.
//!
//! The first 100,000 rows are looked at, fewer in files of more than 40 columns. In this order:
//!
//! | the column                                                              | is taken for                     |
//! |-------------------------------------------------------------------------|----------------------------------|
//! | is named by a flag                                                      | what the flag says               |
//! | has 0 and 1 alone under a header such as `label`, `click` or `target`   | the label, if none is named      |
//! | has no value, or one and the same in the whole file                     | nothing                          |
//! | has lists, or texts with `\|` or `;` between no more different parts      | a bag                            |
//! | has dates, or large numbers under a header such as `timestamp`          | the time; a second one nothing   |
//! | has texts or whole numbers of a kind that is different in every row: texts, under the header of an id, or ascending | nothing: an id |
//! | has whole numbers under the header of an id (`*_id`, `*ID`, user, item) | a category                       |
//! | has whole numbers that are mostly 1,000 or more and repeat: codes       | a category                       |
//! | has numbers                                                             | a number; by its logarithm where it is very lopsided |
//! | has texts of at most 256 bytes                                          | a category                       |
//!
//! A cell that is written as a number is one for the guess, also `inf`, `nan` and 1e39, which no feature can be: it is then named as a bad value
//! where the column is read, and does not make a column of texts out of one of numbers. A weight and a group are never guessed.

mod sample;

use sample::{SEPARATORS, Sample};

use super::column::{Column, Missing};
use super::report::{Guess, SchemaReport, SchemaWarning};
use super::schema::{ColumnKind, Encoding, FeatureColumn, Numeric, NumericTransform, Schema};
use crate::data::{
    BadRows, MAX_ID_BYTES, OnBadRow, ReadOptions, Source, Sources, column_named, each_once, is_id_name,
    is_time_name, plain,
};
use crate::{Error, Result};

/// The headers that a label is found by, letters and digits alone.
pub(super) const LABELS: [&str; 12] = [
    "label",
    "target",
    "click",
    "clicked",
    "isclick",
    "isclicked",
    "y",
    "isfraud",
    "converted",
    "conversion",
    "purchased",
    "response",
];

/// The rows that are looked at, where there are few columns.
const SAMPLE_ROWS: u64 = 100_000;

/// The cells that are looked at, where there are many.
const SAMPLE_CELLS: u64 = 4_000_000;

/// With fewer rows it says little that no value repeats.
const ROWS_FOR_UNIQUE: u64 = 100;

/// The least code that is large.
const LARGE: f64 = 1_000.0;

/// The buckets that a number has beside itself: with them a model learns thresholds (docs/quality.md).
const BUCKETS: u32 = 64;

/// What the caller knows of the columns. Names are those of the header, whatever their case, or numbers from 1.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SchemaOptions {
    /// Columns to learn, 0 or 1.
    pub label: Vec<String>,
    /// Columns that are categories.
    pub categorical: Vec<String>,
    /// Columns that are any number of categories.
    pub bag: Vec<String>,
    /// Columns that are numbers.
    pub numeric: Vec<String>,
    /// Columns that are nothing.
    pub ignore: Vec<String>,
    /// The column that says which rows belong together; it may be a feature too.
    pub group: Option<String>,
    /// The column that says how much a row counts.
    pub weight: Option<String>,
    /// The column that says when it was.
    pub time: Option<String>,
    /// Texts that mean that there is no value; where empty, those of [`Schema::default`].
    pub missing: Vec<String>,
    /// Categories in fewer rows share row 0; where absent, 2.
    pub min_count: Option<u32>,
    /// Categories are hashed into so many rows a column, without a vocabulary.
    pub hash_buckets: Option<u32>,
    /// The quantile buckets that a number has beside itself, 0 for none; where absent, 64.
    pub buckets: Option<u32>,
}

/// Guesses what each column of the files is, from the first rows, and says why.
///
/// # Errors
/// [`Error::NoSuchColumn`] and [`Error::BadOption`] for the options; [`Error::RepeatedColumn`]; [`Error::BadRow`] for a row that cannot be read,
/// unless `read` leaves such rows out; [`Error::NoRows`]; those of [`Schema::validate`].
pub fn infer_schema(
    paths: &[String],
    read: &ReadOptions,
    options: &SchemaOptions,
) -> Result<(Schema, SchemaReport)> {
    infer_sources(Sources::open(paths, read)?, read, options)
}

/// Guesses what each column of sources is that the caller made, as [`infer_schema`] does of files.
///
/// # Errors
/// Those of [`infer_schema`].
pub fn infer_sources(
    sources: Sources,
    read: &ReadOptions,
    options: &SchemaOptions,
) -> Result<(Schema, SchemaReport)> {
    let found = guess(sources, read, options)?;
    found.0.validate()?;
    Ok(found)
}

/// As [`infer_sources`], whether or not there is anything to learn from.
pub(super) fn guess(
    mut sources: Sources,
    read: &ReadOptions,
    options: &SchemaOptions,
) -> Result<(Schema, SchemaReport)> {
    let mut schema = Schema::default();
    if !options.missing.is_empty() {
        schema.missing.clone_from(&options.missing);
    }
    let Some(first) = sources.next_source()? else { return Err(Error::NoRows { path: String::new() }) };
    let mut look = Look::new(first, options)?;
    look.through(&mut sources, read, &Missing::new(&schema.missing))?;
    if look.report.rows == 0 {
        return Err(BadRows::nothing_left(&look.report.bad_rows, look.location));
    }
    look.check_label();
    let mut has_time = options.time.is_some();
    for at in 0..look.samples.len() {
        let (kind, why) = look.kind(at, has_time, options);
        has_time |= kind == ColumnKind::Time;
        look.warn(at, &kind);
        let name = look.samples[at].name.clone();
        let flag = other_flag(&kind, &name);
        let stray = look.stray(at, &kind).map(str::to_owned);
        look.report.guesses.push(Guess {
            column: name.clone(),
            kind: kind.name().to_owned(),
            why,
            flag,
            stray,
        });
        schema.columns.push(FeatureColumn { name, kind });
    }
    schema.group = look.group.map(|at| look.samples[at].name.clone());
    if schema.labels().next().is_none() {
        let what = "no column looks like a label; name it with --label".to_owned();
        look.report.warnings.push(SchemaWarning { column: String::new(), what });
    }
    Ok((schema, look.report))
}

/// Returns the flag that makes something else of a column.
fn other_flag(kind: &ColumnKind, name: &str) -> String {
    let flag = match kind {
        ColumnKind::Categorical(_) => "--numeric",
        ColumnKind::Bag { .. } | ColumnKind::Numeric(_) | ColumnKind::Ignore => "--categorical",
        ColumnKind::Label | ColumnKind::Weight | ColumnKind::Time => "--ignore",
    };
    format!("{flag} {name}")
}

/// The first rows of all columns.
struct Look {
    source: Option<Box<dyn Source>>,
    location: String,
    samples: Vec<Sample>,
    /// What flags say of each column, and which.
    named: Vec<Option<(&'static str, &'static str)>>,
    group: Option<usize>,
    label: Option<usize>,
    report: SchemaReport,
}

impl Look {
    fn new(mut source: Box<dyn Source>, options: &SchemaOptions) -> Result<Self> {
        let location = source.location().to_owned();
        let names: Vec<String> =
            source.columns()?.fields().iter().map(|field| field.name().clone()).collect();
        each_once(&location, &names)?;
        let mut named: Vec<Option<(&str, &str)>> = vec![None; names.len()];
        let one = |name: &Option<String>| name.iter().cloned().collect::<Vec<_>>();
        for (kind, flag, columns) in [
            ("label", "--label", options.label.clone()),
            ("categorical", "--categorical", options.categorical.clone()),
            ("bag", "--bag", options.bag.clone()),
            ("numeric", "--numeric", options.numeric.clone()),
            ("ignore", "--ignore", options.ignore.clone()),
            ("weight", "--weight-column", one(&options.weight)),
            ("time", "--time-column", one(&options.time)),
        ] {
            for column in columns {
                let at = column_named(&location, &names, &column)?;
                if named[at].replace((kind, flag)).is_some_and(|before| before.0 != kind) {
                    let expected = "one flag for each column";
                    return Err(Error::BadOption { option: &flag[2..], expected, found: column });
                }
            }
        }
        let group = options.group.as_ref().map(|group| column_named(&location, &names, group)).transpose()?;
        let by_flag = named.iter().position(|named| named.is_some_and(|(kind, _)| kind == "label"));
        let plain: Vec<String> = names.iter().map(|name| plain(name)).collect();
        let by_header = || {
            let free = |at: &usize| named[*at].is_none();
            LABELS.iter().find_map(|label| plain.iter().position(|name| name == label).filter(free))
        };
        let label = by_flag.or_else(by_header);
        let samples = names.iter().map(|name| Sample::new(name)).collect();
        Ok(Self {
            source: Some(source),
            location,
            samples,
            named,
            group,
            label,
            report: SchemaReport::default(),
        })
    }

    /// Reads as many rows as are looked at.
    fn through(&mut self, sources: &mut Sources, read: &ReadOptions, missing: &Missing<'_>) -> Result<()> {
        let most = (SAMPLE_CELLS / (self.samples.len() as u64).max(1)).clamp(1_000, SAMPLE_ROWS);
        while let Some(mut source) = self.source.take() {
            while let Some(rows) = source.next()? {
                let mut bad = rows.bad.clone();
                if !bad.is_empty() && read.on_bad_row == OnBadRow::Fail {
                    return Err(Error::BadRow(Box::new(bad.swap_remove(0))));
                }
                bad.iter().for_each(|bad| BadRows::count(&mut self.report.bad_rows, bad));
                let left = most - self.report.rows;
                if left == 0 {
                    self.report.more_rows = true;
                    return Ok(());
                }
                let n = left.min(rows.batch.num_rows() as u64) as usize;
                let location = source.location().to_owned();
                let mut labels = vec![None; n];
                if let Some(label) = self.label
                    && let Ok(Some(mut column)) =
                        Column::of(&rows, &location, &self.samples[label].name, false)
                {
                    labels.iter_mut().enumerate().for_each(|(row, label)| {
                        *label = column.label(row).ok().map(|label| label == 1.0);
                    });
                }
                for sample in &mut self.samples {
                    sample.add(&rows, &location, n, &labels, missing)?;
                }
                self.report.rows += n as u64;
                self.report.more_rows |= n < rows.batch.num_rows();
            }
            self.source = sources.next_source()?;
        }
        Ok(())
    }

    /// Takes a label that was found by its header back where it is none by its values.
    fn check_label(&mut self) {
        let Some(at) = self.label.filter(|&at| self.named[at].is_none()) else { return };
        let sample = &self.samples[at];
        let binary = sample.values.values().all(|seen| seen.labelled == seen.rows);
        if !binary || sample.missing > 0 || sample.filled == 0 {
            self.label = None;
            let what = "has the header of a label, but not 0 or 1 in every row; name the label with --label"
                .to_owned();
            self.report.warnings.push(SchemaWarning { column: sample.name.clone(), what });
        }
    }

    /// Returns what a column is, and why.
    fn kind(&self, at: usize, has_time: bool, options: &SchemaOptions) -> (ColumnKind, String) {
        let (kind, why) = self.guess(at, has_time, options);
        let kind = match kind {
            ColumnKind::Numeric(number) => {
                ColumnKind::Numeric(Numeric { buckets: options.buckets.unwrap_or(BUCKETS), ..number })
            }
            other => other,
        };
        (kind, why)
    }

    fn guess(&self, at: usize, has_time: bool, options: &SchemaOptions) -> (ColumnKind, String) {
        let sample = &self.samples[at];
        let Encoding::Vocabulary { min_count, max_size } = Encoding::default() else {
            return (ColumnKind::Ignore, String::new());
        };
        let encoding = match options.hash_buckets {
            Some(buckets) => Encoding::Hashed { buckets },
            None => Encoding::Vocabulary { min_count: options.min_count.unwrap_or(min_count), max_size },
        };
        let categorical = ColumnKind::Categorical(encoding);
        let bag = |separator: char| ColumnKind::Bag { encoding, separator: separator.to_string() };
        let separator = sample.separator();
        if let Some((kind, flag)) = self.named[at] {
            let kind = match kind {
                "label" => ColumnKind::Label,
                "categorical" => categorical,
                "bag" => bag(separator.unwrap_or(SEPARATORS[0])),
                "numeric" => sample.numeric().0,
                "weight" => ColumnKind::Weight,
                "time" => ColumnKind::Time,
                _ => ColumnKind::Ignore,
            };
            return (kind, format!("named by {flag}"));
        }
        let different = sample.different();
        let rows = sample.filled;
        let whole_file = !self.report.more_rows;
        if self.label == Some(at) {
            return (ColumnKind::Label, "0 and 1 alone, and the header names a label".to_owned());
        }
        if let Some(data_type) = &sample.unreadable {
            return (ColumnKind::Ignore, format!("of type {data_type}, which is not read"));
        }
        if rows == 0 {
            return (ColumnKind::Ignore, "no value in any row".to_owned());
        }
        if different == 1 && rows > 1 && sample.missing == 0 && whole_file {
            return (ColumnKind::Ignore, "the same value in every row".to_owned());
        }
        if sample.lists == rows {
            return (bag(SEPARATORS[0]), format!("lists, {different} different values"));
        }
        if sample.is_time() {
            return match has_time {
                false => (ColumnKind::Time, "dates or times".to_owned()),
                true => (ColumnKind::Ignore, "dates or times, and another column is the time".to_owned()),
            };
        }
        if sample.is_id() {
            return (
                ColumnKind::Ignore,
                "different in every row: an id, from which nothing can be learned".to_owned(),
            );
        }
        if sample.numbers == rows && sample.finite > 0 && sample.padded == 0 {
            if sample.whole == rows {
                if is_id_name(&sample.name) {
                    return (
                        categorical,
                        format!("whole numbers, {different} different, and the header names an id"),
                    );
                }
                if let Some(why) = sample.codes() {
                    return (categorical, why);
                }
            }
            return sample.numeric();
        }
        if let Some(separator) = separator {
            let parts = SEPARATORS
                .iter()
                .position(|&one| one == separator)
                .map_or(0, |at| sample.separated[at].1.len());
            return (bag(separator), format!("texts with `{separator}` between {parts} different parts"));
        }
        if sample.longest > MAX_ID_BYTES {
            return (ColumnKind::Ignore, format!("texts of up to {} bytes", sample.longest));
        }
        let what =
            if sample.padded > 0 && sample.numbers == rows { "numbers with zeros before" } else { "text" };
        (categorical, format!("{what}, {different} different"))
    }

    /// Returns the first text of a column that is nearly always a number, where the text made categories of it.
    fn stray(&self, at: usize, kind: &ColumnKind) -> Option<&str> {
        let sample = &self.samples[at];
        let mostly = sample.numbers < sample.filled && sample.numbers * 10 >= sample.filled * 9;
        let guessed = matches!(kind, ColumnKind::Categorical(_)) && self.named[at].is_none();
        sample.first_text.as_deref().filter(|_| mostly && guessed)
    }

    /// Says what looks wrong with a column that was taken for `kind`.
    fn warn(&mut self, at: usize, kind: &ColumnKind) {
        let sample = &self.samples[at];
        let name = &sample.name;
        let mut found = Vec::new();
        if sample.is_id()
            && (kind.is_feature() || self.named[at].is_none())
            && *kind != ColumnKind::Time
            && *kind != ColumnKind::Label
        {
            found.push(match kind.is_feature() {
                true => "is different in every row, as an id is: a model can learn it by heart and nothing from it".to_owned(),
                false => format!("is different in every row and was taken for an id, not for a feature; --categorical {name} makes it one"),
            });
        } else if kind.is_feature() && self.label.is_some_and(|label| label != at) && sample.predicts_label()
        {
            found.push(format!("predicts the label almost without error: if it is not known before the label is, leave it out with --ignore {name}"));
        }
        if let Some(text) = self.stray(at, kind) {
            found.push(format!("is nearly always a number, but also `{text}`: if that means a missing one, add it to --missing"));
        }
        let warnings = found.into_iter().map(|what| SchemaWarning { column: name.clone(), what });
        self.report.warnings.extend(warnings);
    }
}

/// Returns a number in as few digits as tell it.
fn shown(number: f64) -> String {
    match number.abs() {
        0.0 | 1e-4..1e15 => number.to_string(),
        _ => format!("{number:e}"),
    }
}

fn number(transform: NumericTransform) -> ColumnKind {
    ColumnKind::Numeric(Numeric { transform, ..Numeric::default() })
}

impl Sample {
    /// Returns whether no value repeats in a column that could name the rows.
    fn is_id(&self) -> bool {
        let unique = self.filled >= ROWS_FOR_UNIQUE
            && self.different() == self.filled
            && self.missing == 0
            && !self.is_time();
        let text = self.numbers < self.filled;
        let whole = self.whole == self.filled;
        unique
            && self.lists == 0
            && (text || (whole && (self.ascends || self.descends || is_id_name(&self.name))))
    }

    /// Returns whether the column says when: dates, or numbers from 1973 on under the header of a time.
    fn is_time(&self) -> bool {
        let seconds = self.numbers == self.filled && self.least >= 1e8;
        self.moments || self.dates == self.filled || (is_time_name(&self.name) && seconds)
    }

    /// Returns why whole numbers are codes, where they are: mostly large, and repeating.
    fn codes(&self) -> Option<String> {
        let large = self.share(|number| number.abs() >= LARGE);
        // People round amounts; nobody rounds codes.
        let round = self.share(|number| number % 10.0 == 0.0);
        let repeat = self.different() * 2 <= self.filled;
        (large > 0.5 && repeat && round < 0.9).then(|| {
            format!(
                "whole numbers that look like codes: {:.0}% are 1,000 or more, {} different in {} rows",
                large * 100.0,
                self.different(),
                self.filled
            )
        })
    }

    /// Returns a number's kind, and why.
    fn numeric(&self) -> (ColumnKind, String) {
        let what = if self.whole == self.finite { "whole numbers" } else { "numbers" };
        let range = match self.finite {
            0 => "no number".to_owned(),
            _ => {
                let (least, greatest) = (shown(self.least), shown(self.greatest));
                format!("{what} from {least} to {greatest}, {} different", self.different())
            }
        };
        if self.least >= 0.0 && self.finite > 0 && self.skewness() > 3.0 {
            return (number(NumericTransform::Log), format!("{range}, most of them far below the largest"));
        }
        (number(NumericTransform::Standardize), range)
    }

    /// Returns what stands between the parts of texts, where there are no more different parts than texts.
    fn separator(&self) -> Option<char> {
        let found = SEPARATORS.iter().zip(&self.separated).find(|(_, (cells, parts))| {
            *cells * 10 >= self.filled.max(1) && parts.len() as u64 <= self.different()
        });
        found.map(|(separator, _)| *separator)
    }
}
