//! Tar files for the package `webdataset`: the files of a sample follow each other and share their name up to the first
//! dot.
//!
//! `KEY.png` or `KEY.jpg` is the image, `KEY.json` has all other columns, `KEY.txt` is the report and `KEY.mask.NAME.png` a
//! mask, where there are any. Headers have no owner and no time, so that equal records are equal bytes.

use std::path::Path;

use tar::{Builder, EntryType, Header};

use super::json_columns::Columns;
use super::{ExportedMask, Piece, PieceWriter, Plan, Sample, Sections, TemporaryFile};
use crate::error::{Error, Result};
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
    grades: Vec<String>,
    masks: Vec<ExportedMask>,
}

impl Writer {
    pub(super) fn create(path: &Path, plan: &Plan) -> Result<Self> {
        Ok(Self {
            tar: Builder::new(TemporaryFile::create(path)?),
            path: path.to_path_buf(),
            ending: plan.ending(),
            findings: plan.dataset.findings().to_vec(),
            masks: plan.masks.clone(),
            grades: plan.dataset.manifest().grades.iter().map(|scale| scale.name.clone()).collect(),
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
            let columns =
                files::json(&Columns::of(sample, &self.findings, &self.grades)).map_err(Error::json(&self.path))?;
            self.append(&format!("{key}.json"), &columns)?;
            let named = |mask: &ExportedMask| Some((format!("{key}.mask.{}.png", mask.key), mask.of(record)?));
            let masks: Vec<(String, &[u8])> = self.masks.iter().filter_map(named).collect();
            masks.into_iter().try_for_each(|(name, png)| self.append(&name, png))?;
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
