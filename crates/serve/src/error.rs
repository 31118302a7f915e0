//! What can go wrong with the server, and with a request; the one place where errors become status codes.

use std::net::SocketAddr;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Why the server does not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// Listening ended.
    #[error("the server stopped: {0}")]
    Stopped(#[source] std::io::Error),
    /// The model refused.
    #[error(transparent)]
    Core(#[from] recmill_core::Error),
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    /// It cannot be read: no such parameter, no JSON.
    Malformed(String),
    /// There is no such path.
    NoSuchPath(String),
    /// The path does not answer this method.
    WrongMethod,
    /// The body is larger than allowed.
    BodyTooLarge { limit: usize },
    /// It can be read, but a value is out of its range.
    InvalidValue(String),
    /// `/similar` was asked about an item that the model does not have.
    UnknownItem(String),
    /// All places are taken.
    Overloaded,
    /// The model is not ready yet, or the server is about to stop.
    NotReady,
    /// It took longer than allowed.
    Deadline,
    /// A bug of ours.
    Internal,
}

/// The body of every refusal.
#[derive(Serialize)]
struct Body<'a> {
    error: &'a str,
    code: &'static str,
    request_id: &'a str,
}

impl Refusal {
    fn status_code_text(&self) -> (StatusCode, &'static str, String) {
        match self {
            Refusal::Malformed(what) => (StatusCode::BAD_REQUEST, "malformed", what.clone()),
            Refusal::NoSuchPath(path) => {
                (StatusCode::NOT_FOUND, "not_found", format!("no such path: `{path}`"))
            }
            Refusal::WrongMethod => (
                StatusCode::METHOD_NOT_ALLOWED,
                "wrong_method",
                "the path does not answer this method".into(),
            ),
            Refusal::BodyTooLarge { limit } => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                format!("the body is larger than `{limit}` bytes"),
            ),
            Refusal::InvalidValue(what) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", what.clone()),
            Refusal::UnknownItem(item) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "unknown_item", format!("the model has no item `{item}`"))
            }
            Refusal::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "all places are taken".into())
            }
            Refusal::NotReady => {
                (StatusCode::SERVICE_UNAVAILABLE, "not_ready", "the server is starting or stopping".into())
            }
            Refusal::Deadline => {
                (StatusCode::GATEWAY_TIMEOUT, "deadline", "the request took longer than allowed".into())
            }
            Refusal::Internal => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "a bug of recmill; the log has more under this request_id".into(),
            ),
        }
    }

    /// Makes the answer to the request called `request_id`.
    pub(crate) fn answer(&self, request_id: &str) -> Response {
        let (status, code, error) = self.status_code_text();
        let mut response = (status, Json(Body { error: &error, code, request_id })).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
