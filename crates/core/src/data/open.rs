//! From a place to a [`Source`]: what compresses it, and which format it is in.
//!
//! The first bytes decide where they can: gzip, zstd, Parquet and Arrow begin with a mark of their own. Otherwise the
//! ending of the name does, else a first `{` means JSON lines and anything else CSV.

use std::io::{self, Read, Seek};

use super::columnar::Columnar;
use super::json_lines::JsonLines;
use super::locate::{Place, ending};
use super::source::Source;
use super::text::{TextFormat, TextSource};
use super::{Format, ReadOptions};
use crate::{Error, Result};

/// The bytes that are looked at.
const HEAD_BYTES: usize = 512;

/// Opens one file.
pub(super) fn open(place: &Place, options: &ReadOptions) -> Result<Box<dyn Source>> {
    let name = place.name();
    match place {
        Place::StandardInput => open_stream(&name, Box::new(io::stdin()), None, options),
        Place::Local(path) => {
            let file = fs_err::File::open(path)?.into_file();
            let again = file.try_clone().map_err(|error| failed(&name, &error))?;
            open_stream(&name, Box::new(file), Some(again), options)
        }
        Place::Kept(file) => {
            let mut file = file.try_clone().map_err(|error| failed(&name, &error))?;
            file.rewind().map_err(|error| failed(&name, &error))?;
            open_stream(&name, Box::new(file), None, options)
        }
        Place::Remote(remote) => open_stream(&name, Box::new(remote.open()?), None, options),
    }
}

/// Opens a stream; `file` is the same bytes where they can be read from anywhere.
pub(super) fn open_stream(
    name: &str,
    stream: Box<dyn Read + Send>,
    file: Option<std::fs::File>,
    options: &ReadOptions,
) -> Result<Box<dyn Source>> {
    let (mut head, mut stream) = peek(name, stream)?;
    let mut file = file;
    if head.starts_with(&[0x1f, 0x8b]) {
        (head, stream) = peek(name, Box::new(flate2::read::MultiGzDecoder::new(stream)))?;
        file = None;
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::Decoder::new(stream).map_err(|error| failed(name, &error))?;
        (head, stream) = peek(name, Box::new(decoder))?;
        file = None;
    }
    if head.is_empty() {
        return Err(Error::EmptyFile { path: name.to_owned() });
    }
    let format = options.format.unwrap_or_else(|| format_of(name, &head));
    let by_format = (format == Format::Tsv).then_some(b'\t');
    let delimiter = options.delimiter.map_or(by_format, |delimiter| u8::try_from(delimiter).ok());
    Ok(match format {
        Format::Csv | Format::Tsv => {
            let text = TextFormat { delimiter, no_header: options.no_header };
            Box::new(TextSource::open(name, stream, &text)?)
        }
        Format::Jsonl => Box::new(JsonLines::open(name, stream)?),
        Format::Parquet => Box::new(Columnar::parquet(name, seekable(name, stream, file)?)?),
        Format::Arrow if head.starts_with(b"ARROW1") => {
            Box::new(Columnar::arrow_file(name, seekable(name, stream, file)?)?)
        }
        Format::Arrow => Box::new(Columnar::arrow_stream(name, stream)?),
    })
}

fn format_of(name: &str, head: &[u8]) -> Format {
    if head.starts_with(b"PAR1") {
        return Format::Parquet;
    }
    if head.starts_with(b"ARROW1") || head.starts_with(&[0xff; 4]) {
        return Format::Arrow;
    }
    match ending(name) {
        Some("csv") => Format::Csv,
        Some("tsv" | "tab") => Format::Tsv,
        Some("json" | "jsonl" | "ndjson") => Format::Jsonl,
        Some("parquet" | "pq") => Format::Parquet,
        Some("arrow" | "arrows" | "ipc" | "feather") => Format::Arrow,
        _ if head.trim_ascii_start().starts_with(b"{") => Format::Jsonl,
        _ => Format::Csv,
    }
}

/// Returns the first bytes of a stream, and the whole stream again.
fn peek(name: &str, mut stream: Box<dyn Read + Send>) -> Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::new();
    (&mut stream).take(HEAD_BYTES as u64).read_to_end(&mut head).map_err(|error| failed(name, &error))?;
    Ok((head.clone(), Box::new(io::Cursor::new(head).chain(stream))))
}

/// Returns the file itself, or a copy of the stream that can be read from anywhere and is gone after its last use.
fn seekable(
    name: &str,
    mut stream: Box<dyn Read + Send>,
    file: Option<std::fs::File>,
) -> Result<std::fs::File> {
    let mut file = match file {
        Some(file) => file,
        None => {
            let mut copy = tempfile::tempfile().map_err(|error| failed(name, &error))?;
            io::copy(&mut stream, &mut copy).map_err(|error| failed(name, &error))?;
            copy
        }
    };
    file.rewind().map_err(|error| failed(name, &error))?;
    Ok(file)
}

fn failed(name: &str, error: &io::Error) -> Error {
    Error::BadFile { path: name.to_owned(), what: error.to_string() }
}
