//! Why the example ends early.

use std::path::PathBuf;

/// What every step returns.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A reason, as it is told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A file could not be read or written.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The library refused data or a model.
    #[error(transparent)]
    Library(#[from] recmill::Error),
    /// Training failed.
    #[error(transparent)]
    Training(#[from] recmill::train::Error),
    /// The configuration has no JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// A file is no CSV.
    #[error("{}: {source}", path.display())]
    Csv { path: PathBuf, source: csv::Error },
    /// A file lacks a column.
    #[error("{}: there is no column `{column}`", path.display())]
    NoColumn { path: PathBuf, column: &'static str },
    /// A file holds nothing.
    #[error("{}: there is no transaction", path.display())]
    Empty { path: PathBuf },
    /// A cell of a file is not what it should be.
    #[error("{}, line {line}, column {column}: expected {expected}, found `{found}`", path.display())]
    BadCell { path: PathBuf, line: u64, column: String, expected: &'static str, found: String },
    /// There are too few days to split.
    #[error("expected at least {least} days, found `{found}`")]
    FewDays { least: u32, found: u32 },
    /// A part of the days does not hold both frauds and others.
    #[error(
        "the {part} days hold {frauds} frauds in {rows} transactions, and both kinds are needed; take more days or customers"
    )]
    OneKind { part: &'static str, frauds: usize, rows: usize },
    /// The picture could not be drawn.
    #[error("the picture could not be drawn: {reason}")]
    Picture { reason: String },
}
