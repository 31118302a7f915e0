//! Ctrl-C and SIGTERM: the one place that knows how a platform asks a program to end.
//!
//! | command | first                                              | second     |
//! |---------|----------------------------------------------------|------------|
//! | train   | the epoch or step ends, the model is saved         | ends at once |
//! | serve   | no new requests; accepted ones are answered        | ends at once |

use std::{
    future::Future,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use recmill_serve::Shutdown;

use crate::{
    failure::{Failure, Result},
    output::note,
};

static ASKED_TO_STOP: AtomicBool = AtomicBool::new(false);

/// What shells expect of a process that an interrupt ended: 128 + SIGINT.
const INTERRUPTED: i32 = 130;

/// Returns the flag that the first Ctrl-C (or SIGTERM) sets from here on; `last` is what is still done then.
pub(crate) fn stop_flag(last: &'static str) -> Result<&'static AtomicBool> {
    ctrlc::set_handler(move || {
        if ASKED_TO_STOP.swap(true, Ordering::Relaxed) {
            std::process::exit(INTERRUPTED);
        }
        note!("\nstopping after this {last}, then saving; once more ends at once and saves nothing");
    })
    .map_err(|error| Failure::failed(format!("interrupts cannot be caught: {error}")))?;
    Ok(&ASKED_TO_STOP)
}

/// Returns what ends a server: at once after Ctrl-C, with `grace` after SIGTERM, by which orchestrators announce that
/// they are about to send requests elsewhere.
pub(crate) fn server_stop(grace: Duration) -> Result<impl Future<Output = Shutdown> + Send + 'static> {
    let mut terminated = terminate()?;
    Ok(async move {
        let shutdown = tokio::select! {
            _ = tokio::signal::ctrl_c() => Shutdown::default(),
            () = terminated.next() => Shutdown { grace },
        };
        note!("stopping; once more ends at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                () = terminated.next() => {}
            }
            std::process::exit(INTERRUPTED);
        });
        shutdown
    })
}

#[cfg(unix)]
struct Terminate(tokio::signal::unix::Signal);

#[cfg(unix)]
impl Terminate {
    async fn next(&mut self) {
        self.0.recv().await;
    }
}

#[cfg(unix)]
fn terminate() -> Result<Terminate> {
    let signal = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
    signal.map(Terminate).map_err(|error| Failure::failed(format!("SIGTERM cannot be caught: {error}")))
}

/// Other platforms end a program by Ctrl-C or without asking.
#[cfg(not(unix))]
struct Terminate;

#[cfg(not(unix))]
impl Terminate {
    async fn next(&mut self) {
        std::future::pending().await
    }
}

#[cfg(not(unix))]
fn terminate() -> Result<Terminate> {
    Ok(Terminate)
}
