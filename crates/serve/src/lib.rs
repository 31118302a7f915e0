//! How a model is asked over HTTP: a first, thin server.
//!
//! ```text
//! connection -> admission (a place, or 503) -> body within limits -> parse -> score (a core, or 504) -> answer
//! ```
//!
//! | request                              | answer                                                                  |
//! |--------------------------------------|-------------------------------------------------------------------------|
//! | `GET /recommend?user_id=U&k=N`       | `{"user_id", "recommendations": [{"item_id", "score"}], "model_version"}` |
//! | `POST /recommend` with JSON          | the same, from `user_id`, `history`, `exclude`, `include`, `k`            |
//! | `GET /similar?item_id=I&k=N`         | `{"item_id", "similar": [{"item_id", "score"}], "model_version"}`         |
//! | `GET /health/live`, `/health/ready`  | 200 or 503; no work is done                                             |
//!
//! A user that the model does not know, and whose history it does not know either, is given the most popular items, and
//! the answer says so: `"fallback": "most_popular"`. Errors are `{"error", "code", "request_id"}`.
//!
//! Memory is bounded: a request takes its place before its body is read, bodies are limited, and as many requests are
//! scored at once as there are places to score.
#![warn(missing_docs)]

mod admission;
mod answer;
mod error;
mod limits;
mod model;
mod question;
mod routes;
mod server;

pub use error::Error;
pub use limits::Limits;
pub use server::{Server, Shutdown};

/// What every fallible function of this crate returns.
pub type Result<T> = std::result::Result<T, Error>;
