//! `dataset.json`, the manifest of a dataset. It is written last: a dataset with a manifest is complete.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use arrow_schema::Schema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::format::grade::GradeScale;
use crate::format::record::{FORMAT_VERSION, ImageEncoding, OLDEST_VERSION};
use crate::format::schema::{self, SOURCE_DIGEST};
use crate::random;
use crate::store::storage::Storage;

/// Path of the manifest in a dataset.
pub const MANIFEST: &str = "dataset.json";
/// Path of the dataset card.
pub const CARD: &str = "README.md";
/// Path of the description in the format of MLCommons.
pub const CROISSANT: &str = "croissant.json";
/// Path of the tokenizer that made `token_ids`.
pub const TOKENIZER: &str = "tokenizer.json";
/// Path of the table of rejected inputs.
pub const REJECTS: &str = "rejects.parquet";

/// Name of the masks of datasets of older builds, whose records have one mask without a name.
pub const ONLY_MASK: &str = "mask";

/// Bits of a stored pixel in datasets of older builds.
const EIGHT_BITS: u8 = 8;

/// Algorithm of the digests of raw files in datasets of older builds.
pub const SHA256: &str = "sha256";

/// The manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the format that the dataset was written in.
    pub format_version: u32,
    /// Name of the source, as given to `ingest`.
    pub source: String,
    /// Program and version that wrote the dataset.
    pub tool: String,
    /// The arguments that determine the bytes of the shards, with defaults filled in.
    pub arguments: BTreeMap<String, serde_json::Value>,
    /// How the images were made and are stored.
    pub image: ImageSpec,
    /// How the token ids were made.
    pub text: TextSpec,
    /// The findings, in the order of the fields of `labels`.
    pub labels: Vec<String>,
    /// The scales of the grades, in the order of the fields of `grades`.
    #[serde(default)]
    pub grades: Vec<GradeScale>,
    /// The names that masks have, in the order in which records have them.
    #[serde(default = "only_mask")]
    pub masks: Vec<String>,
    /// Algorithm of the column `source_digest`.
    #[serde(default = "sha256")]
    pub source_digest: String,
    /// The shards, in the order of their rows.
    pub shards: Vec<ShardInfo>,
    /// Counts over the dataset.
    pub totals: Totals,
    /// Number of rejected inputs, by stage.
    pub rejects: BTreeMap<String, u64>,
    /// SHA-256 of `rejects.parquet`; empty in manifests of older builds.
    #[serde(default)]
    pub rejects_sha256: String,
}

/// How the images were made and are stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// Encoding of the column `image`.
    pub encoding: ImageEncoding,
    /// Bits of a stored pixel.
    #[serde(default = "eight_bits")]
    pub bits: u8,
    /// Compression of its pages: `none`, `lz4` or `zstd`.
    pub compression: String,
    /// Transform from raw values to 8-bit intensities: `voi`, `minmax` or `mimic-cxr-jpg`.
    pub intensity: String,
    /// How raw images were resized: `shorter`, `pad` or `stretch`.
    pub resize: String,
    /// Side in pixels that they were resized to.
    pub size: u32,
    /// Mean of all stored pixels, 0 to 1.
    pub mean: f64,
    /// Standard deviation of all stored pixels, 0 to 1.
    pub std: f64,
}

/// How the token ids were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TextSpec {
    /// The sections of the report that were tokenized.
    pub report_text: String,
    /// Largest number of token ids of a record.
    pub max_tokens: usize,
    /// Number of pieces of the vocabulary; 0 where the dataset has no tokenizer.
    pub vocabulary: usize,
    /// SHA-256 of `tokenizer.json`; empty where there is none.
    pub tokenizer_sha256: String,
}

/// One shard as it was written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Relative to the dataset.
    pub path: String,
    /// Number of records.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// SHA-256 of the file.
    pub sha256: String,
    /// Absent in manifests of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<Footer>,
}

/// The end of a shard, after its pages: page index, footer, its length and the magic number. It contains the checksums of
/// the pages, so that its own checksum is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footer {
    /// Number of bytes.
    pub bytes: u64,
    /// CRC-32 of these bytes.
    pub crc32: u32,
}

/// Counts over the dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Number of records.
    pub records: u64,
    /// Number of studies.
    pub studies: u64,
    /// Number of patients.
    pub patients: u64,
    /// Number of records with a report.
    pub reports: u64,
    /// Size of all shards in bytes.
    pub bytes: u64,
}

fn only_mask() -> Vec<String> {
    vec![ONLY_MASK.to_owned()]
}

fn sha256() -> String {
    SHA256.to_owned()
}

fn eight_bits() -> u8 {
    EIGHT_BITS
}

/// Keys that version 2 renamed, in `image` and in `arguments`.
const RENAMED: [(&str, &str); 2] = [("tone", "intensity"), ("fit", "resize")];

/// Renames the keys of a version 1 manifest as version 2 has them.
fn rename_keys(manifest: &mut serde_json::Value) {
    for part in ["image", "arguments"] {
        let Some(keys) = manifest.get_mut(part).and_then(serde_json::Value::as_object_mut) else { continue };
        for (old, new) in RENAMED {
            if let Some(value) = keys.remove(old) {
                keys.insert(new.to_owned(), value);
            }
        }
    }
}

impl Manifest {
    /// Reads the manifest of the dataset in a storage. A manifest of version 1 gets the keys of version 2.
    ///
    /// # Errors
    /// When there is none, it cannot be read, or its version is unknown.
    pub fn load(storage: &Storage) -> Result<Self> {
        Self::load_if_there(storage)?.ok_or_else(|| Error::NotADataset { path: storage.path("") })
    }

    /// Reads the manifest of the dataset in a storage; `None` where there is none (yet).
    ///
    /// # Errors
    /// When it cannot be read, or its version is unknown.
    pub fn load_if_there(storage: &Storage) -> Result<Option<Self>> {
        Ok(Self::load_with_digest(storage)?.map(|(manifest, _)| manifest))
    }

    /// The manifest, and a digest of its text without white space. What a version adds to the manifest in memory does not change
    /// the digest of a dataset that is there.
    pub(crate) fn load_with_digest(storage: &Storage) -> Result<Option<(Self, u64)>> {
        let path = storage.path(MANIFEST);
        let Some(text) = storage.read_if_there(MANIFEST)? else { return Ok(None) };
        let mut value: serde_json::Value = serde_json::from_slice(&text).map_err(Error::json(&path))?;
        let version = value.get("format_version").and_then(serde_json::Value::as_u64).unwrap_or(0);
        let version = u32::try_from(version).unwrap_or(u32::MAX);
        match version {
            FORMAT_VERSION => {}
            OLDEST_VERSION => rename_keys(&mut value),
            _ => return Err(Error::Version { path, version }),
        }
        if value.get(SOURCE_DIGEST).is_none()
            && let Some(algorithm) = value.pointer("/arguments/source_digest").cloned()
        {
            value[SOURCE_DIGEST] = algorithm;
        }
        let manifest: Self = serde_json::from_value(value).map_err(Error::json(&path))?;
        if manifest.image.bits != manifest.image.encoding.bits() {
            let (bits, encoding) = (manifest.image.bits, manifest.image.encoding.name());
            return Err(Error::Invalid(format!(
                "{}: image.bits is {bits}, which images stored as {encoding} do not have; restore the manifest, or ingest again",
                path.display()
            )));
        }
        let is_inside = |shard: &&ShardInfo| {
            let mut parts = Path::new(&shard.path).components().peekable();
            parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
        };
        let refused =
            |what: &str| Error::Invalid(format!("{}: {what}; restore the manifest, or ingest again", path.display()));
        if let Some(shard) = manifest.shards.iter().find(|shard| !is_inside(shard)) {
            return Err(refused(&format!("the shard `{}` is outside of the dataset, so it is not read", shard.path)));
        }
        if let Some(twice) = repeated(manifest.shards.iter().map(|shard| Path::new(&shard.path))) {
            return Err(refused(&format!("the shard `{}` is listed twice", twice.display())));
        }
        let scales = manifest.grades.iter().map(|scale| &scale.name).collect();
        for (what, names) in [
            ("finding", manifest.labels.iter().collect::<Vec<_>>()),
            ("scale", scales),
            ("mask", manifest.masks.iter().collect()),
        ] {
            if let Some(twice) = repeated(names.into_iter()) {
                return Err(refused(&format!("the {what} `{twice}` is listed twice")));
            }
        }
        Ok(Some((manifest, Self::digest_of(&text))))
    }

    /// The digest of a manifest's text.
    pub(crate) fn digest_of(text: &[u8]) -> u64 {
        random::digest(&without_white_space(&String::from_utf8_lossy(text)))
    }

    /// The columns of the shards.
    pub fn schema(&self) -> Schema {
        schema::schema(&self.labels, &self.grades, self.image.encoding)
    }

    /// Writes the manifest, whole or not at all.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, storage: &Storage) -> Result<()> {
        storage.write_json(MANIFEST, self)
    }
}

/// JSON without what is between its tokens.
fn without_white_space(json: &str) -> String {
    let (mut is_inside, mut is_escaped) = (false, false);
    let is_kept = |character: &char| {
        if is_escaped {
            is_escaped = false;
        } else {
            is_escaped = is_inside && *character == '\\';
            is_inside ^= *character == '"';
        }
        is_inside || !character.is_ascii_whitespace()
    };
    json.chars().filter(is_kept).collect()
}

/// The first item that occurs a second time.
fn repeated<T: Copy + Eq + std::hash::Hash>(items: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = HashSet::new();
    items.into_iter().find(|&item| !seen.insert(item))
}

/// Relative path of shard `index`.
pub fn shard_path(index: usize) -> PathBuf {
    PathBuf::from(format!("shards/part-{index:05}.parquet"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_removed_outside_of_texts_only() {
        for value in [
            serde_json::json!({"a b": ["c\td", "say \"e f\" \\", 1.5, null], "g": {"h": []}}),
            serde_json::json!("\\\" i"),
        ] {
            let pretty = serde_json::to_string_pretty(&value).expect("JSON");
            assert_eq!(without_white_space(&pretty), value.to_string());
        }
    }

    #[test]
    fn version_1_has_other_keys_and_other_versions_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let storage = Storage::folder(folder.path());
        let manifest = |version: u32, intensity: &str, resize: &str| {
            serde_json::json!({
                "format_version": version, "source": "x", "tool": "x", "arguments": {intensity: "voi", resize: "pad", "size": 8},
                "image": {"encoding": "raw", "compression": "none", intensity: "voi", resize: "pad", "size": 8,
                          "mean": 0.5, "std": 0.25},
                "text": {"report_text": "all", "max_tokens": 8, "vocabulary": 0, "tokenizer_sha256": ""},
                "labels": [], "shards": [], "rejects": {},
                "totals": {"records": 0, "studies": 0, "patients": 0, "reports": 0, "bytes": 0},
            })
        };
        let read = |value: &serde_json::Value| {
            storage.write_json(MANIFEST, value).expect("written");
            Manifest::load(&storage)
        };
        let old = read(&manifest(1, "tone", "fit")).expect("version 1");
        let new = read(&manifest(2, "intensity", "resize")).expect("version 2");
        assert_eq!((old.format_version, new.format_version), (1, 2));
        assert_eq!((&old.image, &old.arguments), (&new.image, &new.arguments));
        assert_eq!((new.image.intensity.as_str(), new.image.resize.as_str()), ("voi", "pad"));
        assert_eq!((new.masks, new.grades, new.source_digest), (vec!["mask".to_owned()], vec![], "sha256".to_owned()));
        for version in [0, 3] {
            let message = read(&manifest(version, "intensity", "resize")).unwrap_err().to_string();
            assert!(message.contains(&format!("format version {version}")), "{message}");
            assert!(message.contains("reads versions 1 and 2"), "{message}");
        }
    }
}
