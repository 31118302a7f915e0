//! The files, URLs and streams that some inputs stand for, opened one after the other.

use std::collections::VecDeque;

use super::ReadOptions;
use super::locate::{Place, locate};
use super::open::open;
use super::source::Source;
use crate::{Error, Result};

/// Sources whose columns the caller chooses; [`super::InteractionReader`] chooses them itself.
pub struct Sources {
    options: ReadOptions,
    places: VecDeque<Place>,
    made: VecDeque<Box<dyn Source>>,
}

impl Sources {
    /// Finds the files that `inputs` stand for; each is opened when its turn comes.
    ///
    /// Of `options` the format, the delimiter and the header matter.
    ///
    /// # Errors
    /// [`Error::NoFiles`] and [`Error::Io`] for what is not there; [`Error::BadOption`].
    pub fn open(inputs: &[String], options: &ReadOptions) -> Result<Self> {
        options.validate()?;
        let places: VecDeque<Place> = locate(inputs)?.into();
        for place in &places {
            if let Place::Local(path) = place {
                fs_err::metadata(path)?;
            }
        }
        Ok(Self { options: options.clone(), places, made: VecDeque::new() })
    }

    /// Takes sources that the caller made, in this order.
    pub fn of(made: Vec<Box<dyn Source>>) -> Self {
        Self { options: ReadOptions::default(), places: VecDeque::new(), made: made.into() }
    }

    /// Opens the next one; `None` after the last.
    ///
    /// # Errors
    /// [`Error::EmptyFile`], [`Error::BadFile`] and [`Error::Io`].
    pub fn next_source(&mut self) -> Result<Option<Box<dyn Source>>> {
        if let Some(source) = self.made.pop_front() {
            return Ok(Some(source));
        }
        match self.places.pop_front() {
            Some(place) => open(&place, &self.options).map(Some),
            None => Ok(None),
        }
    }
}

/// Refuses columns of which two have one name.
///
/// # Errors
/// [`Error::RepeatedColumn`] with the first such name.
pub(crate) fn each_once(path: &str, names: &[String]) -> Result<()> {
    match names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
        Some((_, name)) => Err(Error::RepeatedColumn { path: path.to_owned(), column: name.clone() }),
        None => Ok(()),
    }
}

/// Returns the column called `wanted`: as written, else whatever its case, else by its number from 1.
///
/// # Errors
/// [`Error::NoSuchColumn`].
pub(crate) fn column_named(path: &str, names: &[String], wanted: &str) -> Result<usize> {
    let exact = names.iter().position(|name| name == wanted);
    let any_case = || names.iter().position(|name| name.trim().eq_ignore_ascii_case(wanted.trim()));
    let by_number = || wanted.parse().ok().filter(|&n: &usize| n > 0 && n <= names.len()).map(|n| n - 1);
    exact.or_else(any_case).or_else(by_number).ok_or_else(|| Error::NoSuchColumn {
        path: path.to_owned(),
        column: wanted.to_owned(),
        known: names.join(", "),
    })
}
