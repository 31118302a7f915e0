//! Every call that changes the disk, in one place, so that tests can make any of them fail, stop or be recorded.
//!
//! What differs between systems is here and nowhere else:
//!
//! | | Linux, macOS | Windows |
//! |---|---|---|
//! | replace a file | rename(2) | `MoveFileEx` with replacement, as std does |
//! | make a name durable | fsync of its folder | the file system's journal; folders cannot be flushed |
//! | lock | flock | `LockFileEx` |

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{Error, Result};

/// A call that is about to be made.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Call<'a> {
    /// Makes a folder.
    CreateDir(&'a Path),
    /// Makes a new file.
    CreateFile(&'a Path),
    /// Appends bytes to a file; half of them are there already when a hook sees this, as after a torn write.
    Write(&'a Path, &'a [u8]),
    /// Makes a file's contents durable.
    SyncFile(&'a Path),
    /// Makes the names in a folder durable.
    SyncDir(&'a Path),
    /// Renames, replacing a file of the new name.
    Rename(&'a Path, &'a Path),
    /// Removes a file.
    RemoveFile(&'a Path),
    /// Removes an empty folder.
    RemoveDir(&'a Path),
    /// Lists a folder.
    ReadDir(&'a Path),
    /// Takes the lock of a model directory.
    Lock(&'a Path),
}

/// Sees each call before it is made; an error becomes the call's result.
type Hook = Arc<dyn Fn(Call<'_>) -> io::Result<()> + Send + Sync>;

/// The file system that a model is written to.
#[derive(Clone)]
pub struct Disk {
    hook: Option<Hook>,
    /// How long to wait for another writer.
    patience: Duration,
}

impl Default for Disk {
    fn default() -> Self {
        Self { hook: None, patience: Duration::from_secs(60) }
    }
}

impl Disk {
    /// Returns the real disk with `hook` before every call, which may fail it, stop there, or take notes.
    pub fn with_hook(hook: impl Fn(Call<'_>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self { hook: Some(Arc::new(hook)), ..Self::default() }
    }

    /// Sets how long to wait for another writer of the same model; a minute unless set.
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    fn announce(&self, call: Call<'_>) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(call))
    }

    /// Makes `path` and the folders above it that are missing, durably.
    pub(crate) fn create_dir_all(&self, path: &Path) -> Result<()> {
        if path.as_os_str().is_empty() || fs_err::metadata(path).is_ok_and(|found| found.is_dir()) {
            return Ok(());
        }
        let parent = parent(path);
        self.create_dir_all(parent)?;
        self.announce(Call::CreateDir(path))?;
        match fs_err::create_dir(path) {
            // Another writer may have made it between the look and the call.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => self.sync_dir(parent),
        }
    }

    pub(crate) fn create_dir(&self, path: &Path) -> Result<()> {
        self.announce(Call::CreateDir(path))?;
        Ok(fs_err::create_dir(path)?)
    }

    /// Makes the new file `path`, with the mode that the user's umask gives.
    pub(crate) fn create_file(&self, path: &Path) -> Result<DiskFile<'_>> {
        self.announce(Call::CreateFile(path))?;
        let file = fs_err::OpenOptions::new().write(true).create_new(true).open(path)?;
        Ok(DiskFile { disk: self, file })
    }

    /// Renames `from` to `to`; a file of that name is replaced in one step.
    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.announce(Call::Rename(from, to))?;
        Ok(fs_err::rename(from, to)?)
    }

    /// Makes the names in folder `path` durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<()> {
        self.announce(Call::SyncDir(path))?;
        #[cfg(unix)]
        {
            let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
            match fs_err::File::open(path).and_then(|folder| folder.sync_all()) {
                // Some network file systems have no such call, and a folder above the model may be closed to reading;
                // the rename is then as durable as we can make it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::InvalidInput
                            | io::ErrorKind::Unsupported
                            | io::ErrorKind::PermissionDenied
                    ) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes `path` and what is in it, file by file; a link is removed, not followed.
    pub(crate) fn remove_all(&self, path: &Path) -> Result<()> {
        if !fs_err::symlink_metadata(path)?.is_dir() {
            self.announce(Call::RemoveFile(path))?;
            return Ok(fs_err::remove_file(path)?);
        }
        for name in self.names(path)? {
            self.remove_all(&path.join(name))?;
        }
        self.announce(Call::RemoveDir(path))?;
        Ok(fs_err::remove_dir(path)?)
    }

    /// Returns the names in folder `path` in order.
    pub(crate) fn names(&self, path: &Path) -> Result<Vec<std::ffi::OsString>> {
        self.announce(Call::ReadDir(path))?;
        let mut names = Vec::new();
        for entry in fs_err::read_dir(path)? {
            names.push(entry?.file_name());
        }
        names.sort();
        Ok(names)
    }

    /// Takes the lock at `path` for as long as the answer lives; `None` where the file system has no locks.
    ///
    /// # Errors
    /// [`Error::Busy`] naming `model` when another process keeps it.
    pub(crate) fn lock(&self, path: &Path, model: &Path) -> Result<Option<Lock>> {
        self.announce(Call::Lock(path))?;
        let file = fs_err::OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        let asked = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Lock { _file: file })),
                Err(std::fs::TryLockError::WouldBlock) if asked.elapsed() < self.patience => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(std::fs::TryLockError::WouldBlock) => {
                    return Err(Error::Busy { path: model.to_owned() });
                }
                Err(std::fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {
                    return Ok(None);
                }
                Err(std::fs::TryLockError::Error(error)) => return Err(error.into()),
            }
        }
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk").field("hooked", &self.hook.is_some()).finish()
    }
}

/// The lock of a model directory; released on drop, and by the system when the process ends in any way.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: fs_err::File,
}

/// A file being written.
#[derive(Debug)]
pub(crate) struct DiskFile<'a> {
    disk: &'a Disk,
    file: fs_err::File,
}

impl DiskFile<'_> {
    /// Makes the contents durable.
    pub(crate) fn sync(&self) -> Result<()> {
        self.disk.announce(Call::SyncFile(self.file.path()))?;
        Ok(self.file.sync_all()?)
    }
}

impl Write for DiskFile<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.disk.hook.is_some() {
            let half = bytes.len() / 2;
            self.file.write_all(&bytes[..half])?;
            self.disk.announce(Call::Write(self.file.path(), bytes))?;
            self.file.write_all(&bytes[half..])?;
            return Ok(bytes.len());
        }
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Returns the folder that `path` is in; empty for a bare name, which is in the working directory.
pub(crate) fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// Writes the file `path` whole or not at all: `write` fills a sibling, which is synced and takes the name.
///
/// A file of that name is replaced in one step; whoever has it open keeps what they opened. Behind a symbolic link it is the file that the
/// link leads to.
///
/// # Errors
/// What `write` returns, and [`Error::Io`], also for what is there and no file, such as a device or a pipe. It names `path` and no
/// sibling that the caller never heard of; the old file is then as it was.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>) -> Result<()> {
    let folder = parent(path);
    if !folder.as_os_str().is_empty() && !folder.is_dir() {
        let what = if folder.exists() { "is no folder" } else { "is not there" };
        let why = format!("`{}` {what}", folder.display());
        return Err(cannot_write(path, io::ErrorKind::NotADirectory, &why).into());
    }
    match fs_err::metadata(path) {
        Ok(there) if !there.is_file() && !there.is_dir() => {
            return Err(cannot_write(path, io::ErrorKind::InvalidInput, "it is there and no file").into());
        }
        _ => {}
    }
    let leads_to = match fs_err::symlink_metadata(path) {
        Ok(there) if there.is_symlink() => Some(
            fs_err::canonicalize(path)
                .map_err(|error| cannot_write(path, error.kind(), "it is a link to nothing"))?,
        ),
        _ => None,
    };
    let shown = path;
    let path = leads_to.as_deref().unwrap_or(path);
    let folder = parent(path);
    let mut staged_name = std::ffi::OsString::from(".");
    staged_name.push(path.file_name().unwrap_or_default());
    staged_name.push(unique_suffix());
    let mut of_caller = false;
    let replaced = replace_through(&Disk::default(), &folder.join(staged_name), path, |out| {
        write(&mut Named { out, path: shown }).inspect_err(|_| of_caller = true)
    });
    replaced.map_err(|error| match error {
        Error::Io(error) if !of_caller => cannot_write(shown, error.kind(), &error.kind().to_string()).into(),
        other => other,
    })
}

fn cannot_write(path: &Path, kind: io::ErrorKind, why: &str) -> io::Error {
    io::Error::new(kind, format!("cannot write `{}`: {why}", path.display()))
}

/// A file whose errors have the name that it will have.
struct Named<'a> {
    out: &'a mut (dyn Write + Send),
    path: &'a Path,
}

impl Named<'_> {
    fn named(&self, error: &io::Error) -> io::Error {
        cannot_write(self.path, error.kind(), &error.kind().to_string())
    }
}

impl Write for Named<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes).map_err(|error| self.named(&error))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush().map_err(|error| self.named(&error))
    }
}

/// As [`replace_file`], on `disk`, with the sibling's path given.
pub(crate) fn replace_through(
    disk: &Disk,
    staged: &Path,
    path: &Path,
    write: impl FnOnce(&mut (dyn Write + Send)) -> Result<()>,
) -> Result<()> {
    let fill = || {
        let mut out = io::BufWriter::with_capacity(1 << 20, disk.create_file(staged)?);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync()?;
        disk.rename(staged, path)
    };
    fill().inspect_err(|_| {
        // The first error is the one to report; what is left behind is swept by the next writer.
        let _ = disk.remove_all(staged);
    })?;
    disk.sync_dir(parent(path))
}

/// Returns text that no other writer on this machine uses now.
pub(crate) fn unique_suffix() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
    format!("-{}-{}-{nanos}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Returns `root/versions`.
pub(crate) fn versions(root: &Path) -> PathBuf {
    root.join("versions")
}
