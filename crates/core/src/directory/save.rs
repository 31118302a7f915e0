//! Writing a version: staged, synced, renamed, then named by CURRENT.
//!
//! ```text
//! lock versions/.lock
//! sweep what crashed writers left                    versions/.staged-*
//! write and sync every file                          versions/.staged-X/*
//! sync the folder, rename it                         versions/.staged-X  ->  versions/8
//! sync versions/
//! write and sync                                     versions/.staged-Y
//! rename it: the commit                              versions/.staged-Y  ->  CURRENT
//! sync the model directory
//! prune: rename to versions/.staged-Z, then remove   versions/5
//! ```
//! A crash between any two of these leaves the previous version current or the new one, each whole.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
    sync::LazyLock,
    time::Duration,
};

use arrow::record_batch::RecordBatch;
use parquet::errors::ParquetError;
use serde::Serialize;

use crate::{
    Dataset, Error, Parameter, Parameters, Result,
    directory::{
        Config, DataSummary, Disk, Epoch, FileRecord, Manifest,
        disk::{self, Lock, unique_suffix},
        hash::{HashedFile, sha256},
        history, ids,
        manifest::{CLASSES, CONFIG, CONFIG_HASH, FEATURES, FORMAT_VERSION},
        stored::{self, Sizes},
        tensors,
    },
    features::Features,
    text::Classes,
};

/// Names that begin so are unfinished or given up, and are swept by the next writer.
const STAGED: &str = ".staged";
const LOCK: &str = ".lock";
const CLAIM: &str = ".training";
const PROBE: &str = ".recmill-probe";

/// A model about to be written.
#[derive(Clone, Copy, Debug)]
pub struct Saved<'a> {
    /// What the trainer says of it.
    pub config: &'a Config,
    /// Factors, biases, neighbours: what the model has learned.
    pub parameters: &'a Parameters,
    /// The data it has learned from: ids and history.
    pub dataset: &'a Dataset,
    /// Attributes of the items, one row an item in the order of their indices.
    pub item_attributes: Option<&'a RecordBatch>,
    /// Attributes of the users, one row a user in the order of their indices.
    pub user_attributes: Option<&'a RecordBatch>,
    /// How training went.
    pub epochs: &'a [Epoch],
    /// How rows become features, for a model that scores rows; such a model has no users, items and history of its own.
    pub features: Option<&'a Features>,
    /// What texts can be about, for a model that tells it; such a model has no users, items and history either.
    pub classes: Option<&'a Classes>,
}

impl<'a> Saved<'a> {
    /// Describes a model that scores rows, which has no users, items and history of its own.
    pub fn ranker(
        config: &'a Config,
        features: &'a Features,
        parameters: &'a Parameters,
        epochs: &'a [Epoch],
    ) -> Self {
        Self { features: Some(features), ..Self::without_items(config, parameters, epochs) }
    }

    /// Describes a model that tells what texts are about, which has none of them either.
    pub fn text(
        config: &'a Config,
        classes: &'a Classes,
        parameters: &'a Parameters,
        epochs: &'a [Epoch],
    ) -> Self {
        Self { classes: Some(classes), ..Self::without_items(config, parameters, epochs) }
    }

    fn without_items(config: &'a Config, parameters: &'a Parameters, epochs: &'a [Epoch]) -> Self {
        static NONE: LazyLock<Dataset> = LazyLock::new(Dataset::default);
        Self {
            config,
            parameters,
            dataset: &NONE,
            item_attributes: None,
            user_attributes: None,
            epochs,
            features: None,
            classes: None,
        }
    }
}

/// Adds a version to the model directory `root`, which is made where there is none, and makes it current.
///
/// The newest `keep` versions stay (at least one), and the current one always. Nothing is held in memory but what is
/// there already, 4 bytes an id, and one row of history.
///
/// # Errors
/// [`Error::NotOurs`] when `root` holds something else, with nothing touched; [`Error::Busy`] when another process is
/// writing there; [`Error::Io`]. Whatever fails, the version that was current opens as before.
pub fn save(root: &Path, saved: &Saved<'_>, keep: usize) -> Result<PathBuf> {
    save_on(&Disk::default(), root, saved, keep)
}

/// As [`save`], on a disk that may have a hook.
///
/// # Errors
/// As [`save`], and what the hook returns.
pub fn save_on(disk: &Disk, root: &Path, saved: &Saved<'_>, keep: usize) -> Result<PathBuf> {
    save_in_sizes(disk, root, saved, keep, Sizes::default())
}

/// Succeeds when [`save`] may write to `root`: a model directory, an empty folder, or nothing yet.
///
/// Ask before hours of training.
///
/// # Errors
/// [`Error::NotOurs`] when it holds something else or a file is in the way; [`Error::Io`] when nothing can be made there.
pub fn check_destination(root: &Path) -> Result<()> {
    check_ours(&Disk::default(), root)?;
    let mut existing = root;
    while !existing.as_os_str().is_empty() && !existing.exists() {
        existing = disk::parent(existing);
    }
    if !existing.as_os_str().is_empty() && !existing.is_dir() {
        return Err(Error::NotOurs { path: existing.to_owned() });
    }
    // Permissions, quotas and read-only mounts are best asked by trying.
    let probe = existing.join(format!("{PROBE}{}", unique_suffix()));
    fs_err::OpenOptions::new().write(true).create_new(true).open(&probe).map_err(|error| {
        let folder = if existing.as_os_str().is_empty() { Path::new(".") } else { existing };
        let reason = error.kind();
        std::io::Error::new(reason, format!("cannot write in `{}`: {reason}", folder.display()))
    })?;
    Ok(fs_err::remove_file(&probe)?)
}

pub(crate) fn save_in_sizes(
    disk: &Disk,
    root: &Path,
    saved: &Saved<'_>,
    keep: usize,
    sizes: Sizes,
) -> Result<PathBuf> {
    check_ours(disk, root)?;
    let versions = disk::versions(root);
    disk.create_dir_all(&versions)?;
    let lock = disk.lock(&versions.join(LOCK), root)?;
    if lock.is_some() {
        sweep(disk, &versions);
    }
    let staged = versions.join(format!("{STAGED}{}", unique_suffix()));
    let committed = write_version(disk, &staged, saved, sizes).and_then(|()| commit(disk, root, &staged));
    let version = committed.inspect_err(|_| {
        // The first error is the one to report; what cannot be removed now is swept by the next writer.
        let _ = disk.remove_all(&staged);
    })?;
    prune(disk, &versions, &version, keep);
    Ok(versions.join(version.to_string()))
}

/// Refuses a folder that holds anything but a model directory, finished or not.
fn check_ours(disk: &Disk, root: &Path) -> Result<()> {
    // Joined to other names it would stand for the current folder, whatever that holds.
    if root.as_os_str().is_empty() {
        let reason = std::io::ErrorKind::InvalidInput;
        return Err(std::io::Error::new(reason, "the path of the model directory is empty").into());
    }
    let mut names = match fs_err::metadata(root) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
        Ok(found) if !found.is_dir() => return Err(Error::NotOurs { path: root.to_owned() }),
        Ok(_) => disk.names(root)?,
    };
    names.retain(|name| name != ".DS_Store" && !name.to_string_lossy().starts_with(PROBE));
    let has = |wanted: &str| names.iter().any(|name| name == wanted);
    let versions = disk::versions(root);
    let ours = if names.is_empty() || has("versions") && has("CURRENT") {
        true
    } else {
        // A writer may have crashed before its first version became current; anything else is somebody's.
        let unfinished = |name: &std::ffi::OsString| {
            name == LOCK
                || name == CLAIM
                || name.to_string_lossy().starts_with(STAGED)
                || is_version(&versions.join(name))
        };
        names == ["versions"] && versions.is_dir() && disk.names(&versions)?.iter().all(unfinished)
    };
    if ours { Ok(()) } else { Err(Error::NotOurs { path: root.to_owned() }) }
}

/// Keeps other trainings from writing their checkpoints to a folder, for as long as it lives.
#[derive(Debug)]
pub struct Claim {
    _lock: Option<Lock>,
}

impl Claim {
    /// Claims `root`, a model directory or none yet, for the checkpoints of one training.
    ///
    /// # Errors
    /// [`Error::Busy`] where another training has it, [`Error::NotOurs`] where something else lies there, [`Error::Io`].
    pub fn on(disk: &Disk, root: &Path) -> Result<Self> {
        check_ours(disk, root)?;
        let versions = disk::versions(root);
        disk.create_dir_all(&versions)?;
        Ok(Self { _lock: disk.clone().patience(Duration::ZERO).lock(&versions.join(CLAIM), root)? })
    }
}

/// Whether a version lies at `path`: nothing else is ever pruned.
fn is_version(path: &Path) -> bool {
    [CONFIG, CONFIG_HASH].iter().all(|name| fs_err::symlink_metadata(path.join(name)).is_ok())
}

/// Removes what crashed writers left; the lock makes sure that none of them is alive.
fn sweep(disk: &Disk, versions: &Path) {
    for name in disk.names(versions).unwrap_or_default() {
        if name.to_string_lossy().starts_with(STAGED)
            && let Err(error) = disk.remove_all(&versions.join(&name))
        {
            tracing::warn!("an unfinished version could not be removed: {error}");
        }
    }
}

/// Writes all files of a version to the new folder `staged` and makes them durable.
fn write_version(disk: &Disk, staged: &Path, saved: &Saved<'_>, sizes: Sizes) -> Result<()> {
    disk.create_dir(staged)?;
    let mut files = BTreeMap::new();
    let file =
        |name: &str| -> Result<HashedFile<'_>> { Ok(HashedFile::new(disk.create_file(&staged.join(name))?)) };
    for (side, ids) in [("users", &saved.dataset.users), ("items", &saved.dataset.items)] {
        let name = format!("{side}.names");
        let mut out = file(&name)?;
        ids::write_names(ids, &mut out)?;
        files.insert(name, out.finish()?);
        let name = format!("{side}.fst");
        let mut out = file(&name)?;
        ids::write_fst(ids, &mut out)?;
        files.insert(name, out.finish()?);
    }
    let name = "history.safetensors";
    files.insert(name.to_owned(), tensors::write(file(name)?, &mut history::tensors(saved.dataset))?);
    let fingerprint = fingerprint(&files);

    let mut plan = stored::plan(saved.parameters, sizes)?;
    for (at, tensors) in plan.files.iter_mut().enumerate() {
        let name = stored::file_name(at);
        files.insert(name.clone(), tensors::write(file(&name)?, tensors)?);
    }
    for (name, rows, attributes) in [
        ("users.parquet", saved.dataset.n_users(), saved.user_attributes),
        ("items.parquet", saved.dataset.n_items(), saved.item_attributes),
    ] {
        let Some(attributes) = attributes else { continue };
        if attributes.num_rows() != rows {
            return Err(Error::Inconsistent {
                what: "number of attribute rows",
                at: attributes.num_rows() as u64,
            });
        }
        let mut out = file(name)?;
        write_parquet(attributes, &mut out)?;
        files.insert(name.to_owned(), out.finish()?);
    }
    if let Some(features) = saved.features {
        files.insert(FEATURES.to_owned(), write_json(file(FEATURES)?, features)?);
    }
    for (name, parameter) in saved.parameters.iter() {
        if let Parameter::Features(features) = parameter {
            let name = format!("{name}.json");
            files.insert(name.clone(), write_json(file(&name)?, &**features)?);
        }
    }
    if let Some(classes) = saved.classes {
        files.insert(CLASSES.to_owned(), write_json(file(CLASSES)?, classes)?);
    }
    let name = "history.jsonl";
    let mut out = file(name)?;
    for epoch in saved.epochs {
        serde_json::to_writer(&mut out, epoch).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    }
    files.insert(name.to_owned(), out.finish()?);

    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        library_version: env!("CARGO_PKG_VERSION").to_owned(),
        config: saved.config.clone(),
        data: DataSummary {
            users: saved.dataset.n_users() as u64,
            items: saved.dataset.n_items() as u64,
            interactions: saved.dataset.by_user().nnz() as u64,
            fingerprint,
        },
        tables: plan.tables,
        arrays: plan.arrays,
        files,
    };
    let (config, hash) = manifest.to_files()?;
    for (name, bytes) in [(CONFIG, &config[..]), (CONFIG_HASH, hash.as_bytes())] {
        let mut out = file(name)?;
        out.write_all(bytes)?;
        out.finish()?;
    }
    disk.sync_dir(staged)
}

fn write_json(mut out: HashedFile<'_>, value: &impl Serialize) -> Result<FileRecord> {
    serde_json::to_writer(&mut out, value).map_err(std::io::Error::from)?;
    out.finish()
}

/// Hashes the hashes of everything that the data alone decide.
fn fingerprint(files: &BTreeMap<String, FileRecord>) -> String {
    let mut text = String::new();
    for name in ["history.safetensors", "items.names", "users.names"] {
        text.push_str(name);
        for sum in files.get(name).iter().flat_map(|record| &record.sha256) {
            text.push(' ');
            text.push_str(sum);
        }
        text.push('\n');
    }
    sha256(text.as_bytes())
}

/// Writes `items.parquet` or `users.parquet`.
fn write_parquet(batch: &RecordBatch, out: &mut (impl Write + Send)) -> Result<()> {
    let io = |error| match error {
        ParquetError::External(inner) => match inner.downcast::<std::io::Error>() {
            Ok(error) => *error,
            Err(other) => std::io::Error::other(other),
        },
        other => std::io::Error::other(other),
    };
    let mut writer = parquet::arrow::ArrowWriter::try_new(out, batch.schema(), None).map_err(io)?;
    writer.write(batch).map_err(io)?;
    writer.close().map_err(io)?;
    Ok(())
}

/// Gives the staged version its number and makes it current.
fn commit(disk: &Disk, root: &Path, staged: &Path) -> Result<u64> {
    let versions = disk::versions(root);
    let newest = numbers(disk, &versions)?.last().copied().unwrap_or(0);
    let number = newest.checked_add(1).ok_or(Error::Inconsistent { what: "version number", at: newest })?;
    // A folder that another writer has filled in the meantime is not replaced: rename fails, and so do we.
    disk.rename(staged, &versions.join(number.to_string()))?;
    disk.sync_dir(&versions)?;
    set_current(disk, root, number)?;
    Ok(number)
}

fn set_current(disk: &Disk, root: &Path, number: u64) -> Result<()> {
    let staged = disk::versions(root).join(format!("{STAGED}{}", unique_suffix()));
    disk::replace_through(disk, &staged, &root.join("CURRENT"), |out| Ok(writeln!(out, "{number}")?))
}

/// Returns the numbers of the versions in folder `versions`, ascending.
pub(crate) fn numbers(disk: &Disk, versions: &Path) -> Result<Vec<u64>> {
    let mut numbers: Vec<u64> = disk
        .names(versions)?
        .iter()
        .filter_map(|name| name.to_str())
        .filter_map(|name| name.parse().ok().filter(|number: &u64| number.to_string() == name))
        .collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// Removes all versions but the newest `keep` and the current one; each disappears in one step.
fn prune(disk: &Disk, versions: &Path, current: &u64, keep: usize) {
    let numbers = numbers(disk, versions).unwrap_or_default();
    let old = &numbers[..numbers.len().saturating_sub(keep.max(1))];
    for number in
        old.iter().filter(|&number| number != current && is_version(&versions.join(number.to_string())))
    {
        let given_up = versions.join(format!("{STAGED}{}", unique_suffix()));
        let remove = || {
            disk.rename(&versions.join(number.to_string()), &given_up)
                .and_then(|()| disk.remove_all(&given_up))
        };
        // The new version is safe already; an old one that stays costs space and nothing else.
        if let Err(error) = remove() {
            tracing::warn!("version {number} could not be removed: {error}");
        }
    }
}
