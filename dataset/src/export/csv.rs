//! One table, `metadata.csv`, and a folder of images, for spreadsheets, pandas, and tools that read single files.
//! `load_dataset("imagefolder", data_dir=OUT)` reads it, too.
//!
//! The rows of each piece are in `.export/` until all images are written; then they are joined into the table.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use ::csv::{Writer as Table, WriterBuilder};
use rayon::prelude::*;

use super::output::NOTES;
use super::{ExportedMask, Options, Piece, PieceWriter, Plan, Sample, Sections, TemporaryFile, json_columns};
use crate::error::{Error, Result};
use crate::split::types::Subset;
use crate::store::files;

/// Records of a piece, which a killed export may repeat.
const PIECE: usize = 128;

/// Path of the table.
const TABLE: &str = "metadata.csv";

/// Columns before the findings; the names of files come first.
const COLUMNS: [&str; 19] = [
    "record_id",
    "patient_id",
    "study_id",
    "image_id",
    "source_path",
    "source_digest",
    "subset",
    "study_datetime",
    "study_order",
    "view",
    "sex",
    "age_years",
    "height",
    "width",
    "source_height",
    "source_width",
    "pixel_spacing_row",
    "pixel_spacing_column",
    "language",
];
/// Columns after the findings.
const TEXTS: [&str; 7] = ["label_origin", "report", "findings", "impression", "texts", "readings", "boxes"];
const FILE: &str = "file_name";
const MEMBERSHIP: [&str; 2] = ["split_subset", "split_ratio"];

/// Pieces of images, in the order of the dataset.
pub(super) fn pieces(sections: Sections) -> Vec<Piece> {
    let mut rows: Vec<u32> = sections.into_iter().flat_map(|(_, rows)| rows).collect();
    rows.sort_unstable();
    let piece =
        |(index, rows): (usize, &[u32])| Piece { path: format!("{NOTES}/part-{index:05}.csv"), rows: rows.to_vec() };
    rows.chunks(PIECE).enumerate().map(piece).collect()
}

fn header(plan: &Plan, options: &Options) -> Vec<String> {
    let membership = if plan.split.is_some() { &MEMBERSHIP[..] } else { &[] };
    let mut header: Vec<String> = Vec::new();
    if !options.no_images {
        header.push(FILE.to_owned());
        header.extend(plan.masks.iter().map(|mask| format!("mask_{}_{FILE}", mask.name)));
    }
    header.extend([&COLUMNS, membership].concat().iter().map(ToString::to_string));
    header.extend(plan.dataset.manifest().grades.iter().map(|scale| format!("grade_{}", scale.name)));
    // A finding with the name of a column gets a prefix.
    let is_taken = |name: &String| {
        header.contains(name) || [FILE].iter().chain(&MEMBERSHIP).chain(&TEXTS).any(|taken| taken == name)
    };
    let findings = plan.dataset.findings().iter();
    let findings: Vec<String> =
        findings.map(|name| if is_taken(name) { format!("label_{name}") } else { name.clone() }).collect();
    header.into_iter().chain(findings).chain(TEXTS.map(str::to_owned)).collect()
}

/// Writes rows of the table, and their images.
pub(super) struct Writer {
    table: Table<TemporaryFile>,
    path: PathBuf,
    out: PathBuf,
    ending: &'static str,
    findings: Vec<String>,
    masks: Vec<ExportedMask>,
    no_images: bool,
}

impl Writer {
    pub(super) fn create(out: &Path, path: &Path, plan: &Plan, options: &Options) -> Result<Self> {
        if !options.no_images {
            let folder = out.join("images");
            files::make_folder(&folder)?;
        }
        Ok(Self {
            table: WriterBuilder::new().has_headers(false).from_writer(TemporaryFile::create(path)?),
            path: path.to_path_buf(),
            out: out.to_path_buf(),
            ending: plan.ending(),
            findings: plan.dataset.findings().to_vec(),
            masks: plan.masks.clone(),
            no_images: options.no_images,
        })
    }

    /// Writes an image file, whole or not at all.
    fn write_image(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.out.join(name);
        let temporary = files::temporary(&path);
        let written = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)
        };
        written().map_err(Error::io(&path))
    }

    /// Writes the files of a sample; returns their paths in the table, empty where there is none.
    fn images(&self, sample: &Sample) -> Result<Vec<String>> {
        let mut names = vec![String::new()];
        if !sample.record.image.is_empty() {
            names[0] = format!("images/{}.{}", sample.key, self.ending);
            self.write_image(&names[0], &sample.record.image)?;
        }
        for mask in &self.masks {
            let mut name = String::new();
            if let Some(png) = mask.of(&sample.record) {
                files::make_folder(&self.out.join("masks"))?;
                name = format!("masks/{}.{}.png", sample.key, mask.key);
                self.write_image(&name, png)?;
            }
            names.push(name);
        }
        Ok(names)
    }
}

impl PieceWriter for Writer {
    fn write(&mut self, samples: Vec<Sample>) -> Result<()> {
        let names: Vec<Vec<String>> = if self.no_images {
            Vec::new()
        } else {
            samples.par_iter().map(|sample| self.images(sample)).collect::<Result<_>>()?
        };
        for (at, sample) in samples.iter().enumerate() {
            let row = row(sample, names.get(at), &self.findings).map_err(Error::json(&self.path))?;
            self.table.write_record(row).map_err(bad_table(&self.path))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        let Self { table, path, out, .. } = *self;
        // The folders of the images are synced before the piece, whose presence means that they are written.
        for folder in ["images", "masks"].map(|name| out.join(name)) {
            if folder.is_dir() {
                files::sync_folder(&folder)?;
            }
        }
        let file = table.into_inner().map_err(::csv::IntoInnerError::into_error);
        file.map_err(Error::io(&path))?.publish()
    }
}

fn row(sample: &Sample, names: Option<&Vec<String>>, findings: &[String]) -> serde_json::Result<Vec<String>> {
    let record = &sample.record;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let mut row: Vec<String> = names.cloned().unwrap_or_default();
    row.extend([record.record_id.clone(), record.patient_id.clone(), record.study_id.clone(), record.image_id.clone()]);
    row.extend([record.source_path.clone(), files::hex(&record.source_digest)]);
    row.extend([text(&record.subset), text(&record.study_datetime)]);
    row.push(record.study_order.map_or(String::new(), |order| order.to_string()));
    row.extend([text(&record.view), text(&record.sex)]);
    row.push(record.age_years.map_or(String::new(), |age| age.to_string()));
    row.extend([record.height, record.width].map(|side| side.to_string()));
    row.extend([record.source_height, record.source_width].map(|side| side.to_string()));
    row.extend([0, 1].map(|at| record.pixel_spacing.map_or(String::new(), |spacing| spacing[at].to_string())));
    row.push(text(&record.language));
    if let Some((subset, ratio)) = sample.membership {
        row.push(subset.map_or("", Subset::name).to_owned());
        row.push(ratio.map_or(String::new(), |ratio| ratio.to_string()));
    }
    row.extend(record.grades.iter().map(|grade| grade.map_or(String::new(), |grade| grade.to_string())));
    let labels = record.labels.iter().take(findings.len());
    row.extend(labels.map(|code| code.map_or(String::new(), |code| code.to_string())));
    row.push(text(&record.label_origin));
    row.extend([text(&record.report), text(&record.findings), text(&record.impression)]);
    row.push(serde_json::to_string(&json_columns::texts(record))?);
    row.push(serde_json::to_string(&json_columns::readings(record, findings))?);
    row.push(serde_json::to_string(&record.boxes)?);
    Ok(row)
}

/// Joins the rows of all pieces under one header.
pub(super) fn join(out: &Path, plan: &Plan, options: &Options) -> Result<()> {
    let path = out.join(TABLE);
    let mut table = WriterBuilder::new().has_headers(false).from_writer(TemporaryFile::create(&path)?);
    table.write_record(header(plan, options)).map_err(bad_table(&path))?;
    let mut file = table.into_inner().map_err(|error| Error::Io { path: path.clone(), cause: error.into_error() })?;
    for piece in &plan.pieces {
        let part = out.join(&piece.path);
        let mut rows = File::open(&part).map_err(Error::io(&part))?;
        std::io::copy(&mut rows, &mut file).map_err(Error::io(&path))?;
    }
    file.publish()
}

fn bad_table(path: &Path) -> impl FnOnce(::csv::Error) -> Error + '_ {
    move |error| Error::Io { path: path.to_path_buf(), cause: error.into() }
}
