//! What a join is about: its kind, its table, the dataset that it belongs to, and what was counted when it was made.

use std::fmt::{Display, Formatter};
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::format::manifest::{Manifest, ShardInfo};
use crate::format::record::ImageEncoding;
use crate::format::schema::{self, BOXES, LABELS, MASKS};
use crate::store::files;

/// What a join has of each record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum JoinKind {
    /// Labels of findings.
    Labels,
    /// Boxes with their labels (see --box-unit).
    ///
    /// A join has them in pixels of the stored image.
    Boxes,
    /// Masks by name.
    ///
    /// They have the size of the stored image.
    Masks,
    /// Texts by name, with token ids.
    Texts,
    /// Subsets: train, validate, test.
    Subset,
}

impl JoinKind {
    /// Name on the command line, and of the column of its file, which has the type of the shards' column of this name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Labels => LABELS,
            Self::Boxes => BOXES,
            Self::Masks => MASKS,
            Self::Texts => "texts",
            Self::Subset => "subset",
        }
    }

    /// Whether a record's value may be large, so that few rows of it are read at once.
    pub(crate) fn is_large(self) -> bool {
        matches!(self, Self::Masks | Self::Texts)
    }
}

/// What a reader sees in a record that no row of the table is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// Nothing: no label of these findings, no box, no mask or text of these names, no subset.
    #[default]
    Blank,
    /// What the dataset itself has.
    Keep,
}

impl Unmatched {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blank => "blank",
            Self::Keep => "keep",
        }
    }
}

/// What was counted when a join was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinCounts {
    /// Rows of the table.
    pub rows: u64,
    /// Rows that are about a record.
    pub matched: u64,
    /// Rows whose key no record has.
    pub unmatched: u64,
    /// Rows that are left out, since a value of a column is too small.
    pub filtered: u64,
    /// Rows that are left out, since a value cannot be read.
    pub unreadable: u64,
    /// Rows that are left out, since another row is about the same record.
    pub duplicates: u64,
    /// Records that a row is about.
    pub with: u64,
    /// The other records.
    pub without: u64,
}

/// What a join is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinFacts {
    /// What it has of each record.
    pub kind: JoinKind,
    /// The findings, or the names of masks or texts; empty for boxes and subsets.
    pub names: Vec<String>,
    /// What a reader sees in a record that no row is about.
    pub unmatched: Unmatched,
    /// Where the labels are from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_origin: Option<String>,
    /// Name of the table's file, without its folder.
    pub table: String,
    /// SHA-256 of the table.
    pub table_sha256: String,
    /// The column of the table by which rows belong to records.
    pub key: String,
    /// The column of the records that it was compared with.
    pub on: String,
    /// Digest of the shards of the dataset that it was made for ([`shards_sha256`]).
    pub dataset_sha256: String,
    /// The command that made it, without its folders.
    pub command: String,
    /// Program and version that wrote it.
    pub tool: String,
    /// What was counted.
    pub counts: JoinCounts,
}

impl JoinFacts {
    /// The columns of the join's file.
    pub fn schema(&self) -> Arc<Schema> {
        let findings = if self.kind == JoinKind::Labels { self.names.as_slice() } else { &[] };
        let stored = schema::schema(findings, &[], ImageEncoding::Raw);
        let kind = stored.field_with_name(self.kind.name()).map_or(DataType::Null, |field| field.data_type().clone());
        Arc::new(Schema::new(vec![
            Field::new("record_id", DataType::Utf8, false),
            Field::new(self.kind.name(), kind, true),
        ]))
    }
}

/// One line: kind, names, counts, table.
impl Display for JoinFacts {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let what = match (self.kind, self.names.as_slice()) {
            (JoinKind::Labels, names) if names.len() > 4 => format!("labels of {} findings", names.len()),
            (JoinKind::Labels, names) => format!("labels of {}", names.join(", ")),
            (kind, []) => kind.name().to_owned(),
            (kind, names) => format!("{} {}", kind.name(), names.join(", ")),
        };
        let JoinCounts { with, without, .. } = self.counts;
        write!(f, "{what}; {with} of {} records, from {} by {}", with + without, self.table, self.on)
    }
}

/// Digest of a dataset's shards, by which a join knows its dataset: SHA-256 over rows and SHA-256 of each shard, in their order.
pub fn shards_sha256(manifest: &Manifest) -> String {
    let line = |shard: &ShardInfo| format!("{} {}\n", shard.rows, shard.sha256);
    files::hex(&Sha256::digest(manifest.shards.iter().map(line).collect::<String>()))
}
