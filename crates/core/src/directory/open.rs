//! Opening a version: everything is checked that can be checked without reading the data, then the files are mapped.

use std::{
    io::BufRead,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::record_batch::RecordBatch;
use rayon::prelude::*;
use recmill_kernels::Mapped;

use crate::{
    Dataset, Error, Parameter, Parameters, Result,
    directory::{
        Damage, Disk, Epoch, FileRecord, Manifest, MappedHistory, MappedIds, disk,
        manifest::{CONFIG, CONFIG_HASH, FEATURES_OF, plain_file, read_small},
        map::map,
        save,
        stored::Stored,
        tensors::TensorFile,
    },
};

/// How much is checked when a model is opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verify {
    /// config.json whole; of the other files the lengths, headers and exact cover.
    #[default]
    Quick,
    /// Every byte of every file.
    Full,
}

/// One version of a model, open for reading.
///
/// It stays as it was opened, whatever is written to the directory later.
#[derive(Debug)]
pub struct ModelDirectory {
    path: PathBuf,
    version: String,
    sha256: String,
    manifest: Manifest,
    users: Arc<MappedIds>,
    items: Arc<MappedIds>,
    history: Arc<MappedHistory>,
    stored: Stored,
}

/// What checking one file found.
#[derive(Debug)]
pub struct FileCheck {
    /// The file's name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// Whether it is what was written.
    pub result: std::result::Result<(), Damage>,
}

impl ModelDirectory {
    /// Opens the current version of the model `path`, or the version `path`, such as `model/versions/7`.
    ///
    /// # Errors
    /// [`Error::NoModel`] when there is none, [`Error::NoDirectory`] for a file; [`Error::Damaged`] with file and reason when it is not as written.
    pub fn open(path: impl AsRef<Path>, verify: Verify) -> Result<Self> {
        let path = path.as_ref();
        if path.is_file() {
            return Err(Error::NoDirectory { path: path.to_owned() });
        }
        if fs_err::symlink_metadata(path.join(CONFIG)).is_ok() {
            return Self::open_version(path, verify);
        }
        // Between reading CURRENT and opening what it names, a writer may have moved on and pruned that version.
        loop {
            let current = current(path)?;
            match Self::open_version(&disk::versions(path).join(&current), verify) {
                Err(error) if self::current(path)? == current => return Err(error),
                Err(_) => {}
                opened => return opened,
            }
        }
    }

    fn open_version(path: &Path, verify: Verify) -> Result<Self> {
        if !fs_err::metadata(path).is_ok_and(|found| found.is_dir()) {
            return Err(Damage::Missing.at(path));
        }
        let (manifest, sha256) = Manifest::read(path)?;
        check_names(path, &manifest)?;
        let file = |name: &str| -> Result<(PathBuf, Mapped)> {
            let path = path.join(name);
            let record = manifest.files.get(name).ok_or_else(|| Damage::Missing.at(&path))?;
            let mapped = map(&path)?;
            let check = match verify {
                Verify::Quick => record.check_length(mapped.bytes().len() as u64),
                Verify::Full => record.check(mapped.bytes()),
            };
            check.map_err(|damage| damage.at(&path))?;
            Ok((path, mapped))
        };
        if verify == Verify::Full {
            for name in manifest.files.keys() {
                file(name)?;
            }
        }
        let ids = |side: &str, expected: u64| -> Result<MappedIds> {
            let (fst, names) = (file(&format!("{side}.fst"))?, file(&format!("{side}.names"))?);
            let path = names.0.clone();
            let ids = MappedIds::open(fst, names)?;
            if ids.len() as u64 != expected {
                return Err(Damage::contradiction("number of ids", ids.len().to_string()).at(path));
            }
            Ok(ids)
        };
        let users = ids("users", manifest.data.users)?;
        let items = ids("items", manifest.data.items)?;
        let (history_path, mapped) = file("history.safetensors")?;
        let tensors = TensorFile::new(&history_path, mapped)?;
        let history = MappedHistory::open(history_path, &tensors, users.len(), items.len())?;
        let mut mapped = Vec::new();
        for name in manifest.files.keys().filter(|name| is_model_file(name)) {
            mapped.push((name.clone(), file(name)?.1));
        }
        let stored = Stored::open(path, mapped, &manifest.tables, &manifest.arrays)?;
        Ok(Self {
            version: version_name(path),
            path: path.to_owned(),
            sha256,
            manifest,
            users: Arc::new(users),
            items: Arc::new(items),
            history: Arc::new(history),
            stored,
        })
    }

    /// Returns the folder of the version.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the version's name, such as `7`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns the sha256 of config.json, which holds those of all other files: equal text, equal model.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Returns config.json.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the model's parameters, read in place.
    ///
    /// # Errors
    /// [`Error::Damaged`] when they are not as config.json says.
    pub fn parameters(&self) -> Result<Parameters> {
        let mut parameters = self.stored.parameters()?;
        for file in self.manifest.files.keys() {
            if let Some(name) = file.strip_suffix(".json").filter(|name| name.ends_with(FEATURES_OF)) {
                parameters.insert(name, Parameter::Features(Arc::new(self.json(file, "features")?)));
            }
        }
        Ok(parameters)
    }

    /// Returns the users' ids.
    pub fn users(&self) -> &Arc<MappedIds> {
        &self.users
    }

    /// Returns the items' ids.
    pub fn items(&self) -> &Arc<MappedIds> {
        &self.items
    }

    /// Returns what users did in the training data.
    pub fn history(&self) -> &Arc<MappedHistory> {
        &self.history
    }

    /// Returns the data set that the model was trained on, such as to extend it.
    ///
    /// # Errors
    /// [`Error::Damaged`] and [`Error::Inconsistent`] when it is not what was written.
    pub fn to_dataset(&self) -> Result<Dataset> {
        self.history.to_dataset(&self.users, &self.items)
    }

    /// Returns the attributes of the items, one row an item; `None` where training was given none.
    ///
    /// # Errors
    /// [`Error::Damaged`]: the file is checked in full before it is decoded.
    pub fn item_attributes(&self) -> Result<Option<RecordBatch>> {
        self.attributes("items.parquet", self.items.len())
    }

    /// Returns the attributes of the users, one row a user; `None` where training was given none.
    ///
    /// # Errors
    /// As [`ModelDirectory::item_attributes`].
    pub fn user_attributes(&self) -> Result<Option<RecordBatch>> {
        self.attributes("users.parquet", self.users.len())
    }

    /// Returns how training went, epoch by epoch.
    ///
    /// # Errors
    /// [`Error::Damaged`] when `history.jsonl` is not as written.
    pub fn epochs(&self) -> Result<Vec<Epoch>> {
        let name = "history.jsonl";
        let Some(record) = self.manifest.files.get(name) else { return Ok(Vec::new()) };
        let path = self.path.join(name);
        let bytes = read_small(&path, record.bytes)?;
        record.check(&bytes).map_err(|damage| damage.at(&path))?;
        let mut epochs = Vec::new();
        for line in bytes.lines() {
            let epoch =
                serde_json::from_str(&line?).map_err(|error| Damage::malformed("epoch", error).at(&path))?;
            epochs.push(epoch);
        }
        Ok(epochs)
    }

    /// Reads every byte of every file and returns what each was found to be.
    pub fn verify(&self) -> Vec<FileCheck> {
        let check = |(name, record): (&String, &FileRecord)| {
            let path = self.path.join(name);
            let result = plain_file(&path)
                .and_then(|_| map(&path))
                .and_then(|mapped| record.check(mapped.bytes()).map_err(|damage| damage.at(&path)));
            FileCheck { name: name.clone(), bytes: record.bytes, result: result.map_err(damage_of) }
        };
        let mut checks: Vec<FileCheck> = self.manifest.files.par_iter().map(check).collect();
        let bytes = fs_err::metadata(self.path.join(CONFIG)).map_or(0, |found| found.len());
        let config = Manifest::read(&self.path).map(|_| ()).map_err(damage_of);
        checks.insert(0, FileCheck { name: CONFIG.to_owned(), bytes, result: config });
        checks
    }

    fn attributes(&self, name: &str, rows: usize) -> Result<Option<RecordBatch>> {
        use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
        let Some(record) = self.manifest.files.get(name) else { return Ok(None) };
        let path = self.path.join(name);
        let read = || -> std::result::Result<RecordBatch, Box<dyn std::error::Error + Send + Sync>> {
            let builder =
                ParquetRecordBatchReaderBuilder::try_new(fs_err::File::open(&path)?.into_parts().0)?;
            let schema = builder.schema().clone();
            let batches = builder.build()?.collect::<std::result::Result<Vec<_>, _>>()?;
            Ok(arrow::compute::concat_batches(&schema, &batches)?)
        };
        record.check(map(&path)?.bytes()).map_err(|damage| damage.at(&path))?;
        let batch = read().map_err(|error| Damage::malformed("parquet file", error).at(&path))?;
        if batch.num_rows() != rows {
            return Err(Damage::contradiction("number of rows", batch.num_rows().to_string()).at(path));
        }
        Ok(Some(batch))
    }
}

fn damage_of(error: Error) -> Damage {
    match error {
        Error::Damaged { what, .. } => what,
        other => Damage::malformed("readable file", other),
    }
}

/// Whether `name` is a file of parameters.
fn is_model_file(name: &str) -> bool {
    name.starts_with("model") && name.ends_with(".safetensors")
}

/// Returns the folder's own name, or the whole path where it has none.
fn version_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// Returns the name of the current version of the model at `root`.
fn current(root: &Path) -> Result<String> {
    let path = root.join("CURRENT");
    if fs_err::symlink_metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Err(Error::NoModel { path: root.to_owned() });
    }
    let bytes = read_small(&path, 100)?;
    let text = String::from_utf8_lossy(&bytes);
    match text.trim_end().parse::<u64>() {
        Ok(number) => Ok(number.to_string()),
        Err(_) => Err(Damage::malformed("version number", text.trim_end()).at(path)),
    }
}

/// Returns the versions of the model at `root`, oldest first, and which of them is current.
///
/// # Errors
/// [`Error::NoModel`] when there is none.
pub fn list_versions(root: &Path) -> Result<(Vec<u64>, Option<u64>)> {
    let versions = disk::versions(root);
    if !versions.is_dir() {
        return Err(Error::NoModel { path: root.to_owned() });
    }
    let numbers = save::numbers(&Disk::default(), &versions)?;
    let current = current(root).ok().and_then(|current| current.parse().ok());
    Ok((numbers, current))
}

/// Checks that the folder holds the files that config.json lists, with their lengths, and no other.
///
/// Hidden files are passed over: file managers and network file systems leave some.
fn check_names(path: &Path, manifest: &Manifest) -> Result<()> {
    for entry in fs_err::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_symlink() {
            return Err(Damage::Symlink.at(entry.path()));
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.')
            && ![CONFIG, CONFIG_HASH].contains(&&*name)
            && !manifest.files.contains_key(&*name)
        {
            return Err(Damage::Unlisted.at(entry.path()));
        }
    }
    for (name, record) in &manifest.files {
        let path = path.join(name);
        let length = plain_file(&path)?;
        record.check_length(length).map_err(|damage| damage.at(path))?;
    }
    Ok(())
}
