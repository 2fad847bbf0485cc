//! Tar files for the package `webdataset`: the files of a sample follow each other and share their name up to the first
//! dot.
//!
//! `KEY.png` or `KEY.jpg` is the image, `KEY.json` has all other columns, `KEY.txt` is the report and `KEY.mask.png` the
//! mask, where there are any. Headers have no owner and no time, so that equal records are equal bytes.

use std::path::Path;

use serde::{Serialize, Serializer};
use tar::{Builder, EntryType, Header};

use super::{Piece, PieceWriter, Plan, Sample, Sections, TemporaryFile};
use crate::error::{Error, Result};
use crate::format::label::Label;
use crate::format::record::Record;
use crate::split::ratio::Ratio;
use crate::split::types::Subset;
use crate::store::files;

/// One tar file each: `part-00000.tar`, in a folder of its subset where there is one.
pub(super) fn pieces(sections: Sections, shard_size: usize) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for (subset, rows) in sections {
        let folder = subset.map_or(String::new(), |subset| format!("{}/", subset.name()));
        for (index, rows) in rows.chunks(shard_size).enumerate() {
            pieces.push(Piece { path: format!("{folder}part-{index:05}.tar"), rows: rows.to_vec() });
        }
    }
    pieces
}

/// Writes a tar file.
pub(super) struct Writer {
    tar: Builder<TemporaryFile>,
    path: std::path::PathBuf,
    ending: &'static str,
    findings: Vec<String>,
}

impl Writer {
    pub(super) fn create(path: &Path, plan: &Plan) -> Result<Self> {
        Ok(Self {
            tar: Builder::new(TemporaryFile::create(path)?),
            path: path.to_path_buf(),
            ending: plan.ending(),
            findings: plan.dataset.findings().to_vec(),
        })
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut header = Header::new_ustar();
        let named = header.set_path(name);
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        header.set_cksum();
        named.and_then(|()| self.tar.append(&header, bytes)).map_err(Error::io(&self.path))
    }
}

impl PieceWriter for Writer {
    fn write(&mut self, samples: Vec<Sample>) -> Result<()> {
        for sample in &samples {
            let (key, record) = (&sample.key, &sample.record);
            if !record.image.is_empty() {
                self.append(&format!("{key}.{}", self.ending), &record.image)?;
            }
            let columns = files::json(&Columns::of(sample, &self.findings)).map_err(Error::json(&self.path))?;
            self.append(&format!("{key}.json"), &columns)?;
            if let Some(mask) = &record.mask {
                self.append(&format!("{key}.mask.png"), mask)?;
            }
            if let Some(report) = &record.report {
                self.append(&format!("{key}.txt"), report.as_bytes())?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        // This appends the two empty blocks at the end.
        self.tar.into_inner().map_err(Error::io(&self.path))?.publish()
    }
}

/// All columns of a record but the images.
#[derive(Serialize)]
struct Columns<'a> {
    record_id: &'a str,
    patient_id: &'a str,
    study_id: &'a str,
    image_id: &'a str,
    source_path: &'a str,
    source_sha256: String,
    subset: Option<&'a str>,
    view: Option<&'a str>,
    sex: Option<&'a str>,
    age_years: Option<f32>,
    height: u16,
    width: u16,
    source_height: u32,
    source_width: u32,
    report: Option<&'a str>,
    findings: Option<&'a str>,
    impression: Option<&'a str>,
    token_ids: &'a [i32],
    labels: Labels<'a>,
    boxes: Vec<NamedBox<'a>>,
    #[serde(flatten)]
    membership: Option<Membership>,
}

#[derive(Serialize)]
struct Membership {
    split_subset: Option<Subset>,
    split_ratio: Option<Ratio>,
}

impl<'a> Columns<'a> {
    fn of(sample: &'a Sample, findings: &'a [String]) -> Self {
        let record = &sample.record;
        Self {
            record_id: &record.record_id,
            patient_id: &record.patient_id,
            study_id: &record.study_id,
            image_id: &record.image_id,
            source_path: &record.source_path,
            source_sha256: files::hex(&record.source_sha256),
            subset: record.subset.as_deref(),
            view: record.view.as_deref(),
            sex: record.sex.as_deref(),
            age_years: record.age_years,
            height: record.height,
            width: record.width,
            source_height: record.source_height,
            source_width: record.source_width,
            report: record.report.as_deref(),
            findings: record.findings.as_deref(),
            impression: record.impression.as_deref(),
            token_ids: &record.token_ids,
            labels: Labels { findings, labels: &record.labels },
            boxes: boxes(record),
            membership: sample.membership.map(|(split_subset, split_ratio)| Membership { split_subset, split_ratio }),
        }
    }
}

/// An object of findings with their codes, null where they are not mentioned.
struct Labels<'a> {
    findings: &'a [String],
    labels: &'a [Option<Label>],
}

impl Serialize for Labels<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.findings.iter().zip(self.labels))
    }
}

/// A box in JSON.
#[derive(Serialize)]
pub(super) struct NamedBox<'a> {
    label: &'a str,
    x: f32,
    y: f32,
    width: f32,
    height: f32,
}

/// The boxes of a record for JSON.
pub(super) fn boxes(record: &Record) -> Vec<NamedBox<'_>> {
    let named =
        record.boxes.iter().map(|b| NamedBox { label: &b.label, x: b.x, y: b.y, width: b.width, height: b.height });
    named.collect()
}
