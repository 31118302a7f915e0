//! Cutting interactions into training, validation and test files, with all their columns.
//!
//! A pair of a user and an item is in one file only, however often it is repeated: what is to be found in a test must not
//! be known from training. So the rows of a pair stay together where pairs are drawn; where time decides, the file of
//! one of its rows is chosen as the method says and its rows that belong elsewhere are left out and counted.
//!
//! The rows are read twice, once to decide and once to write, and never held: only ids, and what decides for each user or
//! pair, are in memory.

mod decide;

use std::io::Write;
use std::path::{Path, PathBuf};

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::csv::Writer;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use serde::Serialize;

use super::interactions::{InteractionReader, Interactions};
use super::locate::{Place, locate};
use super::{ReadOptions, ReadReport};
use crate::directory::replace_file;
use crate::{Error, Result};
use decide::Decider;

/// Which rows are held out.
#[derive(Clone, Debug, PartialEq)]
pub enum SplitMethod {
    /// Pairs of a user and an item are drawn by a hash of the seed, the user and the item.
    Random {
        /// The share of the pairs that goes to the test file.
        test: f64,
        /// The share of the pairs that goes to the validation file.
        valid: f64,
        /// Another seed draws other pairs.
        seed: u64,
        /// Whether the shares hold for each user, to the nearest whole pair, rather than for the whole. Every user then
        /// keeps at least one pair for training.
        per_user: bool,
    },
    /// A user's last event goes to the test file and the last event with another item to the validation file; users with
    /// fewer than 3 items stay in training. Other events with these two items are left out.
    ///
    /// Events of the same second, and all where there are no times, are in the order of the file.
    LeaveLastOut,
    /// Events from one time on, in seconds since 1970. A pair stays in the earliest file that it has an event for; its
    /// later events are left out.
    AtTime {
        /// From here to `test`: validation.
        valid: Option<i64>,
        /// From here on: test.
        test: i64,
    },
}

/// Where the rows went.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SplitReport {
    /// Rows of train.csv.
    pub train: u64,
    /// Rows of valid.csv; the file is not written where no validation was asked for.
    pub valid: u64,
    /// Rows of test.csv.
    pub test: u64,
    /// Rows in no file, because their pair is in another.
    pub left_out: u64,
    /// Users that have no row in test.csv.
    pub users_without_test: usize,
    /// The files written.
    pub files: Vec<PathBuf>,
    /// What reading found: columns, bad rows.
    pub read: ReadReport,
}

/// The file that a row goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Train,
    Valid,
    Test,
}

impl SplitMethod {
    /// Checks that shares and times make sense.
    ///
    /// # Errors
    /// [`Error::BadOption`] for a share outside 0 to 1, shares that leave nothing for training or for a test, and a
    /// validation time after the test's.
    pub fn validate(&self) -> Result<()> {
        let bad = |option, expected, found: f64| {
            Err(Error::BadOption { option, expected, found: found.to_string() })
        };
        match *self {
            Self::Random { test, .. } if !(test > 0.0 && test < 1.0) => {
                bad("test_fraction", "a share between 0 and 1", test)
            }
            Self::Random { valid, .. } if !(0.0..1.0).contains(&valid) => {
                bad("valid_fraction", "a share from 0 to below 1", valid)
            }
            Self::Random { test, valid, .. } if test + valid >= 1.0 => {
                bad("valid_fraction", "shares that leave rows for training", test + valid)
            }
            Self::AtTime { valid: Some(valid), test } if valid >= test => {
                bad("valid_from", "a time before the test's", valid as f64)
            }
            _ => Ok(()),
        }
    }

    fn has_valid(&self) -> bool {
        match self {
            Self::Random { valid, .. } => *valid > 0.0,
            Self::LeaveLastOut => true,
            Self::AtTime { valid, .. } => valid.is_some(),
        }
    }
}

/// Writes `train.csv`, `valid.csv` and `test.csv` in `folder` with all columns of `inputs`; nothing on an error.
///
/// Of `options` the columns, `min_rating` and what bad rows do matter.
///
/// # Errors
/// Those of [`super::read_dataset`]; [`Error::BadOption`] when an output would replace an input.
pub fn split(
    inputs: &[String],
    folder: &Path,
    method: &SplitMethod,
    options: &ReadOptions,
) -> Result<SplitReport> {
    method.validate()?;
    let places = locate(inputs)?.into_iter().map(Place::rereadable).collect::<Result<Vec<_>>>()?;
    let names: &[&str] = if method.has_valid() { &["train", "valid", "test"] } else { &["train", "test"] };
    let files: Vec<PathBuf> = names.iter().map(|name| folder.join(format!("{name}.csv"))).collect();
    refuse_to_replace(&places, &files)?;
    let mut decider = Decider::new(method);
    if decider.wants_to_look() {
        let mut reader = InteractionReader::of_places(places.clone(), options)?;
        while let Some((_, interactions)) = reader.next_rows()? {
            decider.look(&interactions, &reader)?;
        }
        decider.settle()?;
    }
    let made = !folder.is_dir();
    if made {
        fs_err::create_dir_all(folder)?;
    }
    let mut report = SplitReport { files: files.clone(), ..SplitReport::default() };
    let work = Work { places, options, decider, report: &mut report };
    // Each file is complete and on the disk before the first of them takes its name.
    let written = replace_file(&files[files.len() - 1], |test| match &files[..] {
        [train, valid, _] => {
            replace_file(valid, |valid| replace_file(train, |train| work.write(train, Some(valid), test)))
        }
        _ => replace_file(&files[0], |train| work.write(train, None, test)),
    });
    if written.is_err() && made {
        // Only an empty folder goes.
        let _ = fs_err::remove_dir(folder);
    }
    written.map(|()| report)
}

/// An output that is an input would be gone before it is read, or read after it is gone.
fn refuse_to_replace(places: &[Place], files: &[PathBuf]) -> Result<()> {
    let real = |path: &Path| fs_err::canonicalize(path).ok();
    for file in files.iter().filter_map(|file| real(file)) {
        let same = |place: &&Place| matches!(place, Place::Local(path) if real(path).as_ref() == Some(&file));
        if let Some(place) = places.iter().find(same) {
            return Err(Error::BadOption {
                option: "out",
                expected: "a folder without the input",
                found: place.name(),
            });
        }
    }
    Ok(())
}

/// What is left to do once it is decided where the rows go.
struct Work<'a> {
    places: Vec<Place>,
    options: &'a ReadOptions,
    decider: Decider,
    report: &'a mut SplitReport,
}

impl Work<'_> {
    fn write(
        mut self,
        train: &mut dyn Write,
        valid: Option<&mut dyn Write>,
        test: &mut dyn Write,
    ) -> Result<()> {
        let mut reader = InteractionReader::of_places_whole(self.places, self.options)?;
        let outputs: [Option<&mut dyn Write>; 3] =
            [Some(&mut *train), valid.map(|valid| valid as &mut dyn Write), Some(&mut *test)];
        let mut sorter = Sorter { outputs: outputs.map(|output| output.map(Writer::new)), schema: None };
        while let Some((batch, interactions)) = reader.next_rows()? {
            let sides = self.decider.sides(&interactions)?;
            sorter.write(&batch, &interactions, &sides, &reader, self.report)?;
        }
        self.report.read = reader.into_report();
        self.report.users_without_test = self.decider.users_without_test();
        Ok(())
    }
}

/// Writes the rows of a batch to their files.
struct Sorter<'a> {
    /// Training, validation, test.
    outputs: [Option<Writer<&'a mut dyn Write>>; 3],
    schema: Option<SchemaRef>,
}

impl Sorter<'_> {
    fn write(
        &mut self,
        batch: &RecordBatch,
        interactions: &Interactions,
        sides: &[Option<Side>],
        reader: &InteractionReader,
        report: &mut SplitReport,
    ) -> Result<()> {
        let refused = |error: ArrowError| Error::BadFile {
            path: reader.location().to_owned(),
            what: error.to_string(),
        };
        if self.schema.is_none() {
            for output in self.outputs.iter_mut().flatten() {
                output.write(&batch.slice(0, 0)).map_err(refused)?;
            }
        }
        let schema = self.schema.get_or_insert_with(|| batch.schema());
        let names =
            |schema: &SchemaRef| schema.fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
        if names(schema) != names(&batch.schema()) {
            let what = format!(
                "expected the columns `{}` of the first file, found `{}`",
                names(schema).join(", "),
                names(&batch.schema()).join(", ")
            );
            return Err(Error::BadFile { path: reader.location().to_owned(), what });
        }
        report.left_out += sides.iter().filter(|side| side.is_none()).count() as u64;
        for (side, count) in [
            (Side::Train, &mut report.train),
            (Side::Valid, &mut report.valid),
            (Side::Test, &mut report.test),
        ] {
            let chosen = sides.iter().enumerate().filter(|&(_, &chosen)| chosen == Some(side));
            let rows: UInt32Array = chosen.map(|(at, _)| interactions.row(at) as u32).collect();
            *count += rows.len() as u64;
            if let (Some(output), false) = (&mut self.outputs[side as usize], rows.is_empty()) {
                output.write(&take_record_batch(batch, &rows).map_err(refused)?).map_err(refused)?;
            }
        }
        Ok(())
    }
}
