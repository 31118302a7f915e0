//! Files behind URLs: s3, gs, az, http and https, through the object_store crate.
//!
//! Keys and endpoints come from the environment, by the names that object_store documents (`AWS_ACCESS_KEY_ID`,
//! `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME`...). The transfer runs on a thread of its own, a few chunks ahead of
//! the reader, so that a caller may itself be part of an asynchronous program.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use url::Url;

use super::locate::ending;
use crate::{Error, Result};

/// Chunks that may wait for the reader.
const CHUNKS_AHEAD: usize = 4;

/// One object of a store.
#[derive(Clone)]
pub(super) struct Remote {
    name: String,
    store: Arc<dyn ObjectStore>,
    path: Path,
}

impl Remote {
    /// Names an object of a store that the caller has.
    pub(super) fn new(name: String, store: Arc<dyn ObjectStore>, path: Path) -> Self {
        Self { name, store, path }
    }

    /// Finds the objects that `input` stands for.
    pub(super) fn find(input: &str) -> Result<Vec<Self>> {
        let url = parse(input)?;
        if url.query().is_some() {
            return Err(failed(input, "a URL with a query cannot be read"));
        }
        let options = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)));
        // Plain http is what the user wrote; object_store wants to be told so.
        let plain = (url.scheme() == "http").then(|| ("allow_http".to_owned(), "true".to_owned()));
        let (store, path) = object_store::parse_url_opts(&url, options.chain(plain))
            .map_err(|error| failed(input, &error))?;
        Self::expand(input, Arc::from(store), path)
    }

    /// Finds the objects of `store` that `input`, whose path is `path`, stands for.
    pub(super) fn expand(input: &str, store: Arc<dyn ObjectStore>, path: Path) -> Result<Vec<Self>> {
        let wild = path.as_ref().find(['*', '?', '[']);
        if wild.is_none() && !input.ends_with('/') {
            return Ok(vec![Self::new(input.to_owned(), store, path)]);
        }
        let pattern = match wild {
            Some(_) => Some(glob::Pattern::new(path.as_ref()).map_err(|error| failed(input, &error))?),
            None => None,
        };
        // Stores list by whole path segments, so what is before the first wildcard is cut at its last `/`.
        let before = &path.as_ref()[..wild.unwrap_or(path.as_ref().len())];
        let prefix = match wild {
            Some(_) => Path::from(before.rsplit_once('/').map_or("", |(folder, _)| folder)),
            None => path.clone(),
        };
        let root = input.strip_suffix('/').unwrap_or(input);
        let root = root.strip_suffix(path.as_ref()).unwrap_or(root).to_owned();
        let listed = on_a_thread({
            let store = store.clone();
            move || async move { store.list(Some(&prefix)).collect::<Vec<_>>().await }
        });
        let mut found = Vec::new();
        for object in listed.map_err(|error| failed(input, &error))? {
            let path = object.map_err(|error| failed(input, &error))?.location;
            let fits = match &pattern {
                Some(pattern) => pattern.matches_with(
                    path.as_ref(),
                    glob::MatchOptions { require_literal_separator: true, ..glob::MatchOptions::default() },
                ),
                None => {
                    ending(path.as_ref()).is_some()
                        && !path.filename().unwrap_or_default().starts_with(['.', '_'])
                }
            };
            if fits {
                found.push(Self::new(format!("{root}{path}"), store.clone(), path));
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        match found.is_empty() {
            true => Err(Error::NoFiles { path: input.to_owned() }),
            false => Ok(found),
        }
    }

    /// Returns the path that a `file:` URL names.
    pub(super) fn local_path(input: &str) -> Result<PathBuf> {
        parse(input)?.to_file_path().map_err(|()| failed(input, "not the path of a file"))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Opens the object for reading from its beginning.
    pub(super) fn open(&self) -> Result<impl Read + Send + use<>> {
        let (sender, chunks) = sync_channel(CHUNKS_AHEAD);
        let (first, opened) = sync_channel(1);
        let (store, path) = (self.store.clone(), self.path.clone());
        let transfer = move || async move {
            let mut stream = match store.get(&path).await {
                Ok(object) => object.into_stream(),
                Err(error) => {
                    let _ = first.send(Err(error));
                    return;
                }
            };
            let _ = first.send(Ok(()));
            while let Some(chunk) = stream.next().await {
                // A reader that has gone wants no more.
                if sender.send(chunk.map_err(io::Error::other)).is_err() {
                    return;
                }
            }
        };
        let failed = |error: &dyn std::fmt::Display| failed(&self.name, error);
        std::thread::Builder::new()
            .name("transfer".to_owned())
            .spawn(move || run(transfer))
            .map_err(|error| failed(&error))?;
        match opened.recv() {
            Ok(Ok(())) => Ok(Chunks { chunks, current: Vec::new().into(), at: 0 }),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"the transfer did not start")),
        }
    }
}

struct Chunks<B: AsRef<[u8]>> {
    chunks: Receiver<io::Result<B>>,
    current: B,
    at: usize,
}

impl<B: AsRef<[u8]>> Read for Chunks<B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.at == self.current.as_ref().len() {
            match self.chunks.recv() {
                Ok(chunk) => (self.current, self.at) = (chunk?, 0),
                Err(_) => return Ok(0),
            }
        }
        let rest = &self.current.as_ref()[self.at..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.at += n;
        Ok(n)
    }
}

/// Runs asynchronous work to its end.
fn run<F: Future>(work: impl FnOnce() -> F) -> io::Result<F::Output> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(work()))
}

/// Runs asynchronous work where no runtime can be in the way.
fn on_a_thread<F: Future>(work: impl FnOnce() -> F + Send) -> io::Result<F::Output>
where
    F::Output: Send,
{
    std::thread::scope(|scope| {
        let joined = scope.spawn(|| run(work)).join();
        joined.unwrap_or_else(|_| Err(io::Error::other("the transfer ended early")))
    })
}

fn parse(input: &str) -> Result<Url> {
    Url::parse(input).map_err(|error| failed(input, &error))
}

fn failed(name: &str, error: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::BadFile { path: name.to_owned(), what: error.to_string() }
}
