//! A long run of u32 words, in memory or in a temporary file that has no name any more and is mapped.

use std::fs::File;
use std::io::{BufWriter, Write};

use recmill_kernels::Mapped;

use crate::directory::map_unnamed;
use crate::{Error, Result};

/// The words that are written at a time.
const BUFFER_BYTES: usize = 1 << 20;

/// Words that are being written.
#[derive(Default)]
pub(super) struct WordsWriter {
    memory: Vec<u32>,
    file: Option<BufWriter<File>>,
    len: u64,
}

/// Words that can be read at any place.
#[derive(Debug)]
pub(super) enum Words {
    Memory(Vec<u32>),
    Mapped(Mapped),
}

impl WordsWriter {
    /// Returns the number of words.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Appends words.
    pub(super) fn push(&mut self, words: &[u32]) -> Result<()> {
        self.len += words.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(bytemuck::cast_slice(words)).map_err(|error| failed(&error)),
            None => {
                self.memory.extend_from_slice(words);
                Ok(())
            }
        }
    }

    /// Moves what is in memory to a temporary file; nothing where it is there already.
    pub(super) fn spill(&mut self) -> Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        let file = tempfile::tempfile().map_err(|error| failed(&error))?;
        let mut file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let memory = std::mem::take(&mut self.memory);
        file.write_all(bytemuck::cast_slice(&memory)).map_err(|error| failed(&error))?;
        self.file = Some(file);
        Ok(())
    }

    /// Ends the writing.
    pub(super) fn finish(self) -> Result<Words> {
        let Some(file) = self.file else { return Ok(Words::Memory(self.memory)) };
        let file = file.into_inner().map_err(|error| failed(error.error()))?;
        if self.len == 0 {
            return Ok(Words::Memory(Vec::new()));
        }
        Ok(Words::Mapped(map_unnamed(file).map_err(|error| failed(&error))?))
    }
}

impl Words {
    /// Returns all of them.
    pub(super) fn all(&self) -> &[u32] {
        match self {
            Self::Memory(words) => words,
            // A mapping begins at a page and holds whole words, so this cannot fail.
            Self::Mapped(mapped) => bytemuck::try_cast_slice(mapped.bytes()).unwrap_or_default(),
        }
    }
}

fn failed(error: &std::io::Error) -> Error {
    let path = format!("temporary file in {}", std::env::temp_dir().display());
    Error::BadFile { path, what: error.to_string() }
}
