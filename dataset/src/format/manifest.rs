//! `dataset.json`: what a dataset is, written last, so that its presence says that the dataset is whole.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::record::{FORMAT_VERSION, ImageEncoding};
use crate::store::storage::Storage;

/// Name of the manifest in a dataset.
pub const MANIFEST: &str = "dataset.json";
/// Name of the dataset card.
pub const CARD: &str = "README.md";
/// Name of the description in MLCommons' terms.
pub const CROISSANT: &str = "croissant.json";
/// Name of the tokenizer that made `token_ids`.
pub const TOKENIZER: &str = "tokenizer.json";
/// Name of the table of inputs that did not get in.
pub const REJECTS: &str = "rejects.parquet";

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub format_version: u32,
    /// Name of the source, as given to `ingest`.
    pub source: String,
    /// Program and version that wrote the dataset.
    pub tool: String,
    /// The arguments that decide the bytes, resolved.
    pub arguments: BTreeMap<String, serde_json::Value>,
    pub image: ImageSpec,
    pub text: TextSpec,
    /// The findings, in the order of the fields of `labels`.
    pub labels: Vec<String>,
    pub shards: Vec<ShardInfo>,
    pub totals: Totals,
    /// Inputs that did not get in, by stage.
    pub rejects: BTreeMap<String, u64>,
    /// SHA-256 of `rejects.parquet`; empty in manifests of before there was one.
    #[serde(default)]
    pub rejects_sha256: String,
}

/// How the images were made and are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSpec {
    pub encoding: ImageEncoding,
    pub compression: String,
    /// Tone mapping from stored values to 8 bit.
    pub tone: String,
    pub fit: String,
    pub size: u32,
    /// Mean of all stored pixels, 0..1.
    pub mean: f64,
    /// Standard deviation of all stored pixels, 0..1.
    pub std: f64,
}

/// How the token ids were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextSpec {
    pub report_text: String,
    pub max_tokens: usize,
    /// 0 where the dataset has no tokenizer.
    pub vocabulary: usize,
    /// SHA-256 of `tokenizer.json`, empty where there is none.
    pub tokenizer_sha256: String,
}

/// One shard as it was when it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Relative to the dataset.
    pub path: String,
    pub rows: u64,
    pub bytes: u64,
    pub sha256: String,
    /// Absent in manifests of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<Footer>,
}

/// What follows the pages of a shard: page index, footer, its length and the magic number. The checksums of the pages
/// are part of it, so that it has one of its own here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    pub bytes: u64,
    pub crc32: u32,
}

/// Counts over the dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    pub records: u64,
    pub studies: u64,
    pub patients: u64,
    pub reports: u64,
    pub bytes: u64,
}

impl Manifest {
    /// Reads the manifest of the dataset in a place.
    pub fn load(storage: &Storage) -> Result<Self> {
        Self::load_if_there(storage)?.ok_or_else(|| Error::NotADataset { path: storage.path("") })
    }

    /// Reads the manifest of the dataset in a place; `None` where there is none (yet).
    pub fn load_if_there(storage: &Storage) -> Result<Option<Self>> {
        let path = storage.path(MANIFEST);
        let Some(text) = storage.read_if_there(MANIFEST)? else { return Ok(None) };
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(Error::json(&path))?;
        let found = value.get("format_version").and_then(serde_json::Value::as_u64).unwrap_or(0) as u32;
        if found != FORMAT_VERSION {
            return Err(Error::Version { path, found, expected: FORMAT_VERSION });
        }
        let manifest: Self = serde_json::from_value(value).map_err(Error::json(&path))?;
        let is_inside = |shard: &&ShardInfo| {
            let mut parts = Path::new(&shard.path).components().peekable();
            parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        match manifest.shards.iter().find(|shard| !is_inside(shard)) {
            None => Ok(Some(manifest)),
            Some(shard) => Err(Error::Invalid(format!(
                "{}: the shard `{}` lies outside of the dataset, so it is not read; restore the manifest, or ingest again",
                path.display(),
                shard.path
            ))),
        }
    }

    /// Writes the manifest in one step.
    pub fn save(&self, storage: &Storage) -> Result<()> {
        storage.write_json(MANIFEST, self)
    }
}

/// Relative path of shard `index`.
pub fn shard_path(index: usize) -> PathBuf {
    PathBuf::from(format!("shards/part-{index:05}.parquet"))
}
