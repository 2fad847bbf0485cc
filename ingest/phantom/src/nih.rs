//! The layout of NIH ChestX-ray14: square frontal PNG files in numbered folders, the entry table, the official lists and
//! the boxes of some test images.

use std::io::Cursor;
use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::progress::{OnProgress, Progress};
use image::ImageEncoder;
use rayon::prelude::*;

use crate::disease::{Finding, Kind};
use crate::patient::{Image, Patient, Study, Subset, View};
use crate::report::{self, Report};
use crate::table::Table;
use crate::{Error, Summary, radiograph, region, write_file};

/// Header of `Data_Entry_2017_v2020.csv`: two of its names hold a comma, so it has eleven cells.
pub const ENTRY_COLUMNS: [&str; 11] = [
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
    "OriginalImage[Width",
    "Height]",
    "OriginalImagePixelSpacing[x",
    "y]",
];

/// Header of `BBox_List_2017.csv`: nine cells over rows of six.
pub const BOX_COLUMNS: [&str; 9] = ["Image Index", "Finding Label", "Bbox [x", "y", "w", "h]", "", "", ""];

/// Images in one folder; the real ones hold thousands.
const IN_FOLDER: usize = 300;
/// One image in so many is stored with four channels, as a few of the real ones are.
const WITH_ALPHA: u32 = 12;
/// Findings milder than this are not boxed.
const VISIBLE: f32 = 0.3;

/// Writes the whole set. Files that exist are complete and are kept.
pub(crate) fn write(out: &Path, plan: &[Patient], size: usize, progress: &OnProgress) -> Result<Summary, Error> {
    let entries = entries(plan, size);
    let mut studies: Vec<(&Patient, &Study)> = entries.iter().map(|entry| (entry.patient, entry.study)).collect();
    studies.dedup_by_key(|(_, study)| study.index);
    let reports: Vec<Report> = studies
        .par_iter()
        .map(|(patient, study)| report::write(patient, study, &radiograph::anatomy(patient, study)))
        .collect();
    let of: std::collections::HashMap<usize, &Report> =
        studies.iter().map(|(_, study)| study.index).zip(&reports).collect();
    entries.par_iter().enumerate().try_for_each(|(number, entry)| {
        let folder = out.join(format!("images_{:03}", number / IN_FOLDER + 1)).join("images");
        entry.write(&folder.join(entry.name()))?;
        // The progress counts studies: a study is done with its first image.
        Ok::<_, Error>(progress(if entry.first { Progress::Advanced(1) } else { Progress::Working })?)
    })?;
    let mut table = Table::new(&out.join("Data_Entry_2017_v2020.csv"), &ENTRY_COLUMNS)?;
    let mut boxes = Table::new(&out.join("BBox_List_2017.csv"), &BOX_COLUMNS)?;
    let (mut train, mut test) = (String::new(), String::new());
    for entry in &entries {
        entry.rows(&mut table, &mut boxes, of[&entry.study.index])?;
        let list = if entry.patient.subset == Subset::Test { &mut test } else { &mut train };
        list.push_str(&entry.name());
        list.push('\n');
    }
    table.finish()?;
    boxes.finish()?;
    write_file(&out.join("train_val_list.txt"), train.as_bytes())?;
    write_file(&out.join("test_list.txt"), test.as_bytes())?;
    Ok(Summary { patients: plan.len(), studies: studies.len(), images: entries.len() })
}

/// One image: each is a follow-up of its own.
struct Entry<'a> {
    patient: &'a Patient,
    study: &'a Study,
    /// As drawn: square, whatever the detector was.
    image: Image,
    /// Width and height of the original.
    original: (usize, usize),
    follow_up: usize,
    /// Whether it is its study's first.
    first: bool,
}

/// The frontal images; the set has no others.
fn entries(plan: &[Patient], size: usize) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    for patient in plan {
        let frontal = patient.studies.iter().flat_map(|study| {
            let images = study.images.iter().filter(|image| image.view != View::Lateral);
            images.enumerate().map(move |(number, image)| (study, image, number == 0))
        });
        entries.extend(frontal.enumerate().map(|(follow_up, (study, image, first))| Entry {
            patient,
            study,
            image: Image { rows: size, columns: size, ..*image },
            original: (image.columns, image.rows),
            follow_up,
            first,
        }));
    }
    entries
}

impl Entry<'_> {
    fn name(&self) -> String {
        format!("{:08}_{:03}.png", self.patient.index + 1, self.follow_up)
    }

    fn write(&self, path: &Path) -> Result<(), Error> {
        if path.is_file() {
            return Ok(());
        }
        let gray = radiograph::render(self.patient, self.study, &self.image).gray();
        let bytes = if self.image.id[4].is_multiple_of(WITH_ALPHA) {
            four_channels(&gray)
        } else {
            gray.encode(dataset::format::record::ImageEncoding::Png)
        };
        write_file(path, &bytes.map_err(|source| Error::Image { path: path.to_owned(), source })?)
    }

    fn rows(&self, table: &mut Table, boxes: &mut Table, report: &Report) -> Result<(), Error> {
        let named = labels(self.study, report);
        let labels = if named.is_empty() { "No Finding".to_owned() } else { named.join("|") };
        let number = |number: usize| number.to_string();
        let spacing = if self.study.portable() { "0.139" } else { "0.143" };
        table.row(&[
            &self.name(),
            &labels,
            &number(self.follow_up),
            &number(self.patient.index + 1),
            &self.patient.age_at(self.study).to_string(),
            self.patient.sex.letter(),
            self.image.view.name(),
            &number(self.original.0),
            &number(self.original.1),
            spacing,
            spacing,
        ])?;
        if self.patient.subset != Subset::Test {
            return Ok(());
        }
        for finding in self.study.findings.iter().filter(|finding| finding.severity >= VISIBLE) {
            let Some(label) = name(finding).filter(|label| named.contains(label)) else { continue };
            for (x, y, width, height) in region::boxes(self.patient, self.study, &self.image, finding) {
                // The box list has another name of this finding than the entry table.
                let label = if label == "Infiltration" { "Infiltrate" } else { label };
                let text = |number: f32| format!("{number:.6}");
                boxes.row(&[&self.name(), label, &text(x), &text(y), &text(width), &text(height)])?;
            }
        }
        Ok(())
    }
}

/// The data set's name of a finding; `None` where it has none.
fn name(finding: &Finding) -> Option<&'static str> {
    match finding.kind {
        Kind::Atelectasis => Some("Atelectasis"),
        Kind::Cardiomegaly => Some("Cardiomegaly"),
        Kind::Consolidation => Some("Consolidation"),
        Kind::Edema => Some("Edema"),
        Kind::LungLesion if finding.centimeters >= 3.0 => Some("Mass"),
        Kind::LungLesion => Some("Nodule"),
        Kind::LungOpacity => Some("Infiltration"),
        Kind::PleuralEffusion => Some("Effusion"),
        Kind::PleuralOther => Some("Pleural_Thickening"),
        Kind::Pneumonia => Some("Pneumonia"),
        Kind::Pneumothorax => Some("Pneumothorax"),
        Kind::EnlargedCardiomediastinum | Kind::Fracture | Kind::SupportDevices => None,
    }
}

/// The findings that the report asserts, sorted.
fn labels(study: &Study, report: &Report) -> Vec<&'static str> {
    let reported = study.findings.iter().filter(|finding| report.label(finding.kind) == Some(1));
    let mut named: Vec<&str> = reported.filter_map(name).collect();
    if report.text.contains("yperinflated") {
        named.push("Emphysema");
    }
    named.sort_unstable();
    named.dedup();
    named
}

/// The image as red, green, blue and an opaque alpha channel.
fn four_channels(gray: &GrayPixels) -> dataset::Result<Vec<u8>> {
    let pixels: Vec<u8> = gray.pixels.iter().flat_map(|&value| [value, value, value, u8::MAX]).collect();
    let mut bytes = Cursor::new(Vec::new());
    image::codecs::png::PngEncoder::new(&mut bytes)
        .write_image(&pixels, gray.width, gray.height, image::ExtendedColorType::Rgba8)
        .map_err(|error| dataset::Error::Invalid(format!("image encoding: {error}")))?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::patient;

    #[test]
    fn names_number_the_images_of_each_patient() {
        let plan = patient::plan(200, 0, 64);
        let entries = entries(&plan, 64);
        assert_eq!(entries[0].name(), "00000001_000.png");
        let names: std::collections::BTreeSet<String> = entries.iter().map(Entry::name).collect();
        assert_eq!(names.len(), entries.len());
        assert!(entries.iter().all(|entry| entry.image.view != View::Lateral && entry.image.rows == 64));
        assert_eq!(entries.iter().filter(|entry| entry.first).count(), 200, "every study has a frontal image");
        let with_alpha = entries.iter().filter(|entry| entry.image.id[4].is_multiple_of(WITH_ALPHA)).count();
        assert!((5..40).contains(&with_alpha), "{with_alpha}");
    }
}
