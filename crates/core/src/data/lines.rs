//! Whole lines of a byte stream in blocks of bounded size.

use std::io::Read;

use crate::{Error, Result};

/// The bytes of a block; it only grows where a single record is longer.
const BLOCK_BYTES: usize = 1 << 18;

/// The longest record. A quote that is never closed ends here and not where memory does.
const MAX_RECORD_BYTES: usize = 1 << 26;

/// A stream that is seen through a window which begins at a line and ends after one.
pub(super) struct LineBlocks {
    location: String,
    reader: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    at_end: bool,
}

impl LineBlocks {
    pub(super) fn new(location: &str, reader: Box<dyn Read + Send>) -> Self {
        let buffer = vec![0; BLOCK_BYTES];
        Self { location: location.to_owned(), reader, buffer, start: 0, end: 0, at_end: false }
    }

    pub(super) fn location(&self) -> &str {
        &self.location
    }

    /// Returns whether the window reaches to the end of the stream.
    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// Returns the window: whole lines, or all that is left at the end of the stream.
    pub(super) fn window(&self) -> &[u8] {
        let bytes = &self.buffer[self.start..self.end];
        if self.at_end {
            return bytes;
        }
        &bytes[..memchr::memrchr(b'\n', bytes).map_or(0, |at| at + 1)]
    }

    /// Takes the first `n` bytes out of the window.
    pub(super) fn consume(&mut self, n: usize) {
        self.start += n;
    }

    /// Moves the window on; `more` says that what it holds is not yet a whole record.
    ///
    /// Returns whether there is anything in it.
    pub(super) fn advance(&mut self, more: bool) -> Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let mut wanted = if more { self.end + 1 } else { 0 };
        loop {
            if wanted > self.buffer.len() || self.end == self.buffer.len() {
                if self.buffer.len() >= MAX_RECORD_BYTES {
                    let what = format!("a record of more than {} MiB", MAX_RECORD_BYTES >> 20);
                    return Err(Error::BadFile { path: self.location.clone(), what });
                }
                self.buffer.resize(self.buffer.len() * 2, 0);
            }
            self.fill()?;
            if self.at_end {
                return Ok(self.end > 0);
            }
            if !self.window().is_empty() {
                return Ok(true);
            }
            wanted = self.buffer.len() + 1;
        }
    }

    fn fill(&mut self) -> Result<()> {
        while !self.at_end && self.end < self.buffer.len() {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.at_end = true,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::BadFile { path: self.location.clone(), what: error.to_string() });
                }
            }
        }
        Ok(())
    }
}
