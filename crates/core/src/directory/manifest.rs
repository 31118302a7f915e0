//! config.json: what a version is, and what every other file of it must look like.
//!
//! Beside it lies `config.sha256`, one line as `sha256sum` writes it, so that config.json itself is checked before a word
//! of it is believed: `sha256sum -c config.sha256`.

use std::{collections::BTreeMap, io::Read, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    directory::{Damage, FileRecord, hash::sha256},
};

/// The newest format this library writes and reads.
pub(crate) const FORMAT_VERSION: u64 = 1;
/// A config.json of a model of 100 million users and 100 GB takes about 200 kB.
pub(crate) const MAX_CONFIG_BYTES: u64 = 16 << 20;
pub(crate) const CONFIG: &str = "config.json";
/// How rows become features, of a model that scores rows.
pub(crate) const FEATURES: &str = "features.json";
/// How the names of features among a model's parameters end, each of which has a file of its own.
pub(crate) const FEATURES_OF: &str = "_features";
/// What texts can be about, of a model that tells it.
pub(crate) const CLASSES: &str = "classes.json";
pub(crate) const CONFIG_HASH: &str = "config.sha256";

/// What the trainer says of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// The model's kind, under `model`, and its hyper-parameters.
    pub model: serde_json::Value,
    /// The objective in full, for readers.
    #[serde(default)]
    pub objective: String,
    /// How the interactions were read: columns, event weights, the rule for repeats, filters.
    #[serde(default)]
    pub schema: serde_json::Value,
    /// Metrics of the epoch that was kept, by name.
    #[serde(default)]
    pub metrics: serde_json::Value,
    /// The epoch whose parameters were kept, from 1; not there where nobody said, as in models of earlier libraries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_epoch: Option<u64>,
    /// Whether the parameters are not those of that epoch but of training once more, for as many epochs, on what had been held
    /// out too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub refitted: bool,
    /// The seed of every random choice.
    #[serde(default)]
    pub seed: u64,
    /// How far training had come, in a checkpoint; null in a finished model.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub progress: serde_json::Value,
}

/// The interactions a model was trained on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataSummary {
    /// Users with an index.
    pub users: u64,
    /// Items with an index.
    pub items: u64,
    /// Stored (user, item) pairs.
    pub interactions: u64,
    /// A sha256 over ids, values, times and order: equal data, equal text.
    pub fingerprint: String,
}

/// A table of rows, kept as tensors of row ranges.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableRecord {
    /// Rows in all.
    pub rows: u64,
    /// Values a row has.
    pub dim: u64,
    /// The number type of the rows, as safetensors spells it; rows of `I8` have a tensor `.../scale` too.
    pub dtype: String,
    /// Rows of every range but the last, a power of two.
    pub chunk_rows: u64,
    /// Where each range lies.
    pub ranges: Vec<RangeRecord>,
}

/// Rows `first .. first + rows` of a table: tensor `name/k` for the `k`-th range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeRecord {
    /// The first row.
    pub first: u64,
    /// How many rows.
    pub rows: u64,
    /// The file of the tensor.
    pub file: String,
}

/// A plain array, kept as one tensor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrayRecord {
    /// Values in all.
    pub len: u64,
    /// The number type, as safetensors spells it.
    pub dtype: String,
    /// The file of the tensor.
    pub file: String,
}

/// All of config.json.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The format of the directory.
    pub format_version: u64,
    /// The recmill that wrote it.
    pub library_version: String,
    /// What the trainer says.
    #[serde(flatten)]
    pub config: Config,
    /// What it was trained on.
    pub data: DataSummary,
    /// Tables by name.
    pub tables: BTreeMap<String, TableRecord>,
    /// Plain arrays by name.
    pub arrays: BTreeMap<String, ArrayRecord>,
    /// Every other file but `config.sha256`.
    pub files: BTreeMap<String, FileRecord>,
}

/// Whether `name` is a plain file name that a version may list.
pub(crate) fn is_file_name(name: &str) -> bool {
    !name.starts_with('.')
        && (1..=100).contains(&name.len())
        && ![CONFIG, CONFIG_HASH].contains(&name)
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

impl Manifest {
    /// Reads, checks and parses config.json of the version at `path`; also returns its sha256.
    pub(crate) fn read(path: &Path) -> Result<(Self, String)> {
        let (config_path, hash_path) = (path.join(CONFIG), path.join(CONFIG_HASH));
        let hash_text = read_small(&hash_path, 1024)?;
        let text = read_small(&config_path, MAX_CONFIG_BYTES)?;
        let expected = parse_hash(&hash_text).map_err(|damage| damage.at(&hash_path))?;
        let sum = sha256(&text);
        if sum != expected {
            return Err(Damage::Hash { at: 0, block_bytes: text.len() as u64 }.at(config_path));
        }
        let manifest = Self::parse(&text).map_err(|damage| damage.at(&config_path))?;
        Ok((manifest, sum))
    }

    /// Understands the bytes of a config.json.
    pub(crate) fn parse(text: &[u8]) -> std::result::Result<Self, Damage> {
        let malformed = |error: serde_json::Error| Damage::malformed("config.json", error);
        /// All that every format has in common.
        #[derive(Deserialize)]
        struct Head {
            format_version: u64,
        }
        let head: Head = serde_json::from_slice(text).map_err(malformed)?;
        if head.format_version > FORMAT_VERSION {
            return Err(Damage::Newer { known: FORMAT_VERSION, got: head.format_version });
        }
        let manifest: Self = serde_json::from_slice(text).map_err(malformed)?;
        if let Some(name) = manifest.files.keys().find(|name| !is_file_name(name)) {
            return Err(Damage::malformed("file name", name));
        }
        Ok(manifest)
    }

    /// Returns the bytes of config.json and of config.sha256.
    pub(crate) fn to_files(&self) -> Result<(Vec<u8>, String)> {
        let mut text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from)?;
        text.push(b'\n');
        let hash = format!("{}  {CONFIG}\n", sha256(&text));
        Ok((text, hash))
    }
}

fn parse_hash(text: &[u8]) -> std::result::Result<&str, Damage> {
    let malformed = || Damage::malformed("sha256 line", String::from_utf8_lossy(text).trim_end());
    let text = std::str::from_utf8(text).map_err(|_| malformed())?;
    match text.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [sum, CONFIG] if sum.len() == 64 => Ok(sum),
        _ => Err(malformed()),
    }
}

/// Reads a file that must be plain and of at most `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let found = plain_file(path)?;
    if found > limit {
        return Err(Damage::Limit { what: "length in bytes", limit, got: found }.at(path));
    }
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Returns the length of the file at `path`, which must be there, plain and no link.
pub(crate) fn plain_file(path: &Path) -> Result<u64> {
    let found = match fs_err::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(Damage::Missing.at(path)),
        other => other?,
    };
    if found.is_symlink() {
        return Err(Damage::Symlink.at(path));
    }
    if !found.is_file() {
        return Err(Damage::NotAFile.at(path));
    }
    Ok(found.len())
}
