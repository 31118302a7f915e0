//! What can be wrong with data, a model or its directory.

use std::path::PathBuf;

use crate::directory::Damage;

/// The crate's one error type: variants carry values, not prose.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was refused.
    #[error(transparent)]
    Kernel(#[from] recmill_kernels::Error),
    /// A file could not be read or written; the message names it.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Parts of one thing contradict each other.
    #[error("inconsistent {what} at `{at}`")]
    Inconsistent {
        /// The part.
        what: &'static str,
        /// The row or position.
        at: u64,
    },
    /// More ids than 32 bits can number.
    #[error("more than 4,294,967,294 different ids")]
    TooManyIds,
    /// A model lacks one of its parts.
    #[error("the model has no parameter `{name}`")]
    MissingParameter {
        /// The part.
        name: &'static str,
    },
    /// A network lacks one of its parameters.
    #[error("the model has no parameter `{name}`")]
    MissingDense {
        /// The parameter.
        name: String,
    },
    /// Hyper-parameters have values that they may not have.
    #[error("invalid configuration of {model}: {}", list(problems))]
    InvalidConfig {
        /// The model.
        model: &'static str,
        /// All of them.
        problems: Vec<crate::models::ConfigProblem>,
    },
    /// A part has another size than what it belongs to.
    #[error("{what}: expected {expected} {side}, got `{got}`")]
    WrongSize {
        /// The part.
        what: &'static str,
        /// What is counted, such as users or items.
        side: &'static str,
        /// How many there must be.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// A question names a user or an item that the model does not have.
    #[error("row {row}: the model has {count} {side}, there is no `{index}`")]
    OutOfRange {
        /// Users or items.
        side: &'static str,
        /// The row of the batch.
        row: usize,
        /// The index asked for.
        index: u32,
        /// How many the model has.
        count: usize,
    },
    /// A question names a user, but the model answers histories only.
    #[error("row {row}: the model has no users of its own and answers from histories")]
    NeedsHistory {
        /// The row of the batch.
        row: usize,
    },
    /// Something that belongs to one model is given to another.
    #[error("{what} of another model")]
    OtherModel {
        /// What it is.
        what: &'static str,
    },
    /// A question is about an item that the model does not know.
    #[error("the model does not know the item `{id}`")]
    UnknownItem {
        /// The item asked for.
        id: String,
    },
    /// Users or items that came after training cannot be placed by what is known of them.
    #[error("the model has learned nothing of what {side} are like, so it cannot place new ones")]
    NoFeatures {
        /// Users or items.
        side: &'static str,
    },
    /// An evaluation has no user left to measure.
    #[error("no test user can be evaluated, `{unknown_users}` are unknown")]
    NothingToEvaluate {
        /// Test users that neither the model nor a history knows.
        unknown_users: usize,
    },
    /// An option of an evaluation has a value that it may not have.
    #[error("{name} must be {expected}")]
    InvalidOption {
        /// The option.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A question's filter is not ascending, or names an item twice.
    #[error("row {row}: {what} must ascend")]
    Unsorted {
        /// The filter.
        what: &'static str,
        /// The row of the batch.
        row: usize,
    },
    /// A file of a model directory is not what config.json says.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: Damage,
    },
    /// A folder holds something else than a model, so nothing is written there.
    #[error("{}: not empty and not a model directory", path.display())]
    NotOurs {
        /// The folder, or what stands in its place.
        path: PathBuf,
    },
    /// There is no model here.
    #[error("{}: no model here, neither `CURRENT` nor `config.json`", path.display())]
    NoModel {
        /// Where one was looked for.
        path: PathBuf,
    },
    /// A file stands where a model should be.
    #[error("{}: is a file, and a model is a directory", path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// Another process is writing this model.
    #[error("{}: another process is writing this model", path.display())]
    Busy {
        /// The model directory.
        path: PathBuf,
    },
    /// A row of the data cannot be used.
    #[error("{0}")]
    BadRow(Box<crate::data::BadRow>),
    /// A file of the data cannot be read to its end: truncated, damaged, or of another format than it says.
    #[error("{path}: {what}")]
    BadFile {
        /// The file or URL.
        path: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file of the data has nothing in it.
    #[error("{path}: expected a header and rows, found an empty file")]
    EmptyFile {
        /// The file or URL.
        path: String,
    },
    /// A file of the data has a header and nothing else, or everything was left out.
    #[error("{path}: expected rows, found none")]
    NoRows {
        /// The file or URL, or all of them.
        path: String,
    },
    /// Every row was left out as bad.
    #[error("{path}: no row can be used; {rows} bad, the first: {first}")]
    OnlyBadRows {
        /// The file or URL, or all of them.
        path: String,
        /// How many there are.
        rows: u64,
        /// The first of them.
        first: Box<crate::data::BadRow>,
    },
    /// A name with wildcards, or a directory, stands for no file.
    #[error("no data file at `{path}`")]
    NoFiles {
        /// The name.
        path: String,
    },
    /// A file is named twice, by its name or by a pattern or a directory that it is in.
    #[error("{path}: the file is named twice, and its rows would count twice")]
    RepeatedFile {
        /// The file or URL.
        path: String,
    },
    /// An option names a column that the file does not have.
    #[error("{path}: no column `{column}` among `{known}`")]
    NoSuchColumn {
        /// The file or URL.
        path: String,
        /// The column.
        column: String,
        /// The columns of the file.
        known: String,
    },
    /// Two columns have one name, so that nobody knows which is meant.
    #[error("{path}: two columns are called `{column}`")]
    RepeatedColumn {
        /// The file or URL.
        path: String,
        /// Their name.
        column: String,
    },
    /// No column of the file can be taken for the user, the item or the event.
    #[error("{path}: no column for the {role}: expected one of {accepted}.., found `{known}`")]
    NoColumnFor {
        /// The file or URL.
        path: String,
        /// `user`, `item` or `event`.
        role: &'static str,
        /// The first names that would have been taken.
        accepted: String,
        /// The columns of the file, which are data where the file has no header.
        known: String,
    },
    /// A prediction is no probability, so it cannot be measured as one.
    #[error("row {row}: expected a probability from 0 to 1, found `{found}`")]
    BadProbability {
        /// The row, from 0.
        row: u64,
        /// What was predicted.
        found: f32,
    },
    /// A label is the same in every row, so there is nothing to learn.
    #[error("{path}: column `{column}`: expected labels of both 0 and 1, found {rows} rows with `{value}`")]
    ConstantLabel {
        /// The file or URL, or all of them.
        path: String,
        /// The label.
        column: String,
        /// What it always is.
        value: &'static str,
        /// How many rows there are.
        rows: u64,
    },
    /// An option has a value that it cannot have.
    #[error("{}: expected {expected}, found `{found}`", option.replace('_', "-"))]
    BadOption {
        /// The field of the options, as spelled in Rust.
        option: &'static str,
        /// What it can be.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// A condition on attributes cannot be understood, or does not fit the columns.
    #[error("`{predicate}`: {what}")]
    BadPredicate {
        /// The condition.
        predicate: String,
        /// What is wrong with it.
        what: String,
    },
}

fn list(problems: &[crate::models::ConfigProblem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
