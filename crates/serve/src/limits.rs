//! What a request may ask for, and how many may wait.

use std::time::Duration;

/// Limits of a server; the defaults are meant for plain use.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Items that one answer may have.
    pub max_k: usize,
    /// Bytes of a user's or an item's id.
    pub max_id_bytes: usize,
    /// Brackets within brackets of a JSON body.
    pub max_json_depth: usize,
    /// Items in each list of a request.
    pub max_list_items: usize,
    /// Requests that are scored at the same time.
    pub max_scoring: usize,
    /// Requests that are being scored or wait for it; the next one is refused.
    pub max_admitted: usize,
    /// How long a request may take from its place to its answer.
    pub request_timeout: Duration,
    /// How long accepted requests may take to end once the server is to stop.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            max_body_bytes: 2 << 20,
            max_k: 1_000,
            max_id_bytes: 256,
            max_json_depth: 32,
            max_list_items: 100_000,
            max_scoring: cores,
            max_admitted: 256 + cores,
            request_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_secs(20),
        }
    }
}
