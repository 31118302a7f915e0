//! How long one message takes, and how many there are a second.

use std::time::{Duration, Instant};

use recmill::text::TextClassifier;

use crate::failure::Result;

/// What was measured.
pub(crate) struct Speed {
    /// Of one message alone: half of them took at most this long.
    pub(crate) median: Duration,
    /// And 99 of 100 this long.
    pub(crate) p99: Duration,
    /// Messages a second, many at a time.
    pub(crate) rate: f64,
}

/// Asks about each message alone, then about all at once.
pub(crate) fn measure(classifier: &TextClassifier, messages: &[String]) -> Result<Option<Speed>> {
    let mut alone = Vec::with_capacity(messages.len());
    for message in messages {
        let begun = Instant::now();
        classifier.guess(&[message])?;
        alone.push(begun.elapsed());
    }
    alone.sort_unstable();
    let begun = Instant::now();
    classifier.guess(messages)?;
    let rate = messages.len() as f64 / begun.elapsed().as_secs_f64().max(1e-9);
    let at =
        |share: f64| alone.get(((alone.len() as f64 * share) as usize).min(alone.len().saturating_sub(1)));
    Ok(at(0.5).zip(at(0.99)).map(|(&median, &p99)| Speed { median, p99, rate }))
}
