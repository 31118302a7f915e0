//! Progress on standard error: bars that move on a terminal, whole lines for everybody else.

use std::{
    borrow::Cow,
    io::{self, IsTerminal},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

static BARS: OnceLock<MultiProgress> = OnceLock::new();
static QUIET: AtomicBool = AtomicBool::new(false);

/// Shows no progress from here on.
pub(crate) fn silence() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether progress is not wanted.
pub(crate) fn is_silent() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Whether bars can move: standard error is a terminal, and progress is wanted.
pub(crate) fn is_live() -> bool {
    !is_silent() && io::stderr().is_terminal()
}

/// Runs `write` with the bars out of the way.
pub(crate) fn above_bars(write: impl FnOnce()) {
    match BARS.get() {
        Some(bars) => bars.suspend(write),
        None => write(),
    }
}

/// One bar, or nothing where bars cannot move; gone when dropped.
pub(crate) struct Bar(Option<ProgressBar>);

impl Bar {
    /// Shows a bar of `length` steps; `what` is what goes on.
    pub(crate) fn steps(what: impl Into<Cow<'static, str>>, length: u64) -> Self {
        Self::styled(what, Some(length), "{prefix} {bar:28} {pos}/{len}  {wide_msg} {eta:>5}")
    }

    /// Shows that something goes on whose end is not known.
    pub(crate) fn spinner(what: impl Into<Cow<'static, str>>) -> Self {
        Self::styled(what, None, "{prefix} {spinner}  {wide_msg} {elapsed:>5}")
    }

    fn styled(what: impl Into<Cow<'static, str>>, length: Option<u64>, template: &str) -> Self {
        if !is_live() {
            return Self(None);
        }
        let bar = match length {
            Some(length) => ProgressBar::new(length),
            None => ProgressBar::new_spinner(),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let bar = BARS.get_or_init(MultiProgress::new).add(bar.with_prefix(what));
        bar.enable_steady_tick(Duration::from_millis(120));
        Self(Some(bar))
    }

    /// Moves the bar to step `position`.
    pub(crate) fn at(&self, position: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(position);
        }
    }

    /// Shows `message` beside the bar.
    pub(crate) fn message(&self, message: impl Into<Cow<'static, str>>) {
        if let Some(bar) = &self.0 {
            bar.set_message(message);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
