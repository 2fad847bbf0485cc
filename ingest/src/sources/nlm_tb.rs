//! The tuberculosis sets of the National Library of Medicine, one or both below the raw directory: Montgomery County
//! (`MCUCXR_0001_0.png`) and Shenzhen (`CHNCXR_0001_0.png`). The last digit of a name is the label. Readings (`.txt`) have the
//! same name; masks of the lungs are in `leftMask/` and `rightMask/`, or named `…_mask.png`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dicom::header::years;
use crate::dicom::limits::MAX_REPORT_BYTES;
use crate::error::{Error, Result};
use crate::file_system::{failed, is_refusal, retry};
use crate::reject::{Reject, Stage};
use crate::run::hashing_reader::{self, Hashing};
use crate::run::plan::{MaskSource, Plan, PlannedMask, PlannedRecord, ReportSource, Source};
use crate::sources::shared::files_by_name::files_by;
use crate::sources::shared::table::decode_text;
use crate::sources::shared::walk::{Walk, stem};

const FINDING: &str = "Tuberculosis";
/// Masks and the folders or endings of names by which they are recognized.
const LEFT: &str = "left_lung";
const RIGHT: &str = "right_lung";
const BOTH: &str = "lungs";
const MASK_FOLDERS: [(&str, &str); 2] = [("leftMask", LEFT), ("rightMask", RIGHT)];
const MASK_ENDING: &str = "_mask";
/// Beginning of the names of folders with masks of findings, which are not read.
const ANNOTATIONS: &str = "Annotations";
const PREFIXES: [&str; 2] = ["MCUCXR_", "CHNCXR_"];

/// The source `nlm-tb`.
#[derive(Clone, Debug, Default)]
pub struct NlmTb {
    /// Make a record of each reading, without images.
    pub no_images: bool,
}

/// What a file is, by its path.
enum Kind {
    Image,
    Reading,
    Mask(&'static str),
    Other,
}

impl Source for NlmTb {
    fn name(&self) -> &'static str {
        "nlm-tb"
    }

    fn plan(&self, raw: &Path) -> Result<Plan> {
        let walk = Walk::of(raw, raw, &["png", "txt"])?;
        let mut plan = Plan { rejects: walk.rejects, findings: vec![FINDING.to_owned()], ..Plan::default() };
        let (mut images, mut readings) = (BTreeMap::new(), BTreeMap::new());
        let mut masks: HashMap<String, Vec<(&str, String)>> = HashMap::new();
        for (path, bytes) in walk.files {
            match kind(&path) {
                Kind::Image => drop(images.insert(path, bytes)),
                Kind::Reading => drop(readings.insert(path, bytes)),
                Kind::Mask(name) => {
                    let image = stem(&path);
                    let image = image.strip_suffix(MASK_ENDING).unwrap_or(&image);
                    masks.entry(image.to_owned()).or_default().push((name, path));
                }
                Kind::Other => {}
            }
        }
        let mut images = files_by(images, stem, &mut plan.rejects);
        let mut readings = files_by(readings, stem, &mut plan.rejects);
        if self.no_images {
            let bare = readings.keys().map(|name| (name.clone(), (format!("CXR_png/{name}.png"), 0)));
            images = bare.collect();
        }
        if images.is_empty() {
            return Err(Error::MissingTable {
                folder: raw.to_path_buf(),
                wanted: "image MCUCXR_*.png or CHNCXR_*.png".to_owned(),
                remedy: "give the directory of Montgomery's or Shenzhen's set, or one that contains both".to_owned(),
            });
        }
        let present =
            [LEFT, RIGHT, BOTH].into_iter().filter(|name| masks.values().flatten().any(|(own, _)| own == name));
        plan.masks = if self.no_images { Vec::new() } else { present.map(str::to_owned).collect() };
        for (name, (source_path, bytes)) in images {
            let record_id = format!("nlm-tb/{name}");
            let reading = match readings.remove(&name) {
                Some((path, _)) => match read(&raw.join(&path))? {
                    Ok(text) => reading(&text),
                    Err(error) => {
                        let (record_id, error) =
                            (Some(record_id.clone()), format!("{error}; its image is kept without text"));
                        plan.rejects.push(Reject { source_path: path, record_id, stage: Stage::Report, error });
                        Reading::default()
                    }
                },
                None => Reading::default(),
            };
            let Some((patient, code)) = label(&name) else {
                let error = "the name does not end with _0 or _1, so the image has no label".to_owned();
                plan.rejects.push(Reject { source_path, record_id: Some(record_id), stage: Stage::Plan, error });
                continue;
            };
            let own = if self.no_images { None } else { masks.remove(&name) };
            let mut own: Vec<PlannedMask> = own.into_iter().flatten().map(|(mask, path)| planned(mask, path)).collect();
            own.sort_by(|a, b| a.name.cmp(&b.name));
            own.dedup_by(|a, b| a.name == b.name);
            plan.records.push(PlannedRecord {
                record_id,
                patient_id: patient.to_owned(),
                study_id: patient.to_owned(),
                image_id: name.clone(),
                source_path,
                source_bytes: (!self.no_images).then_some(bytes),
                sex: reading.sex.map(str::to_owned),
                age_years: reading.age_years,
                labels: vec![Some(code)],
                language: Some("en".to_owned()),
                report: reading.text.map_or(ReportSource::None, |text| ReportSource::Text(Arc::from(text))),
                masks: own,
                ..PlannedRecord::default()
            });
        }
        if !self.no_images {
            let lone = masks.into_values().flatten().map(|(_, path)| path);
            let lone = lone.chain(readings.into_values().map(|(path, _)| path));
            let mut lone: Vec<Reject> = lone
                .map(|source_path| Reject {
                    source_path,
                    record_id: None,
                    stage: Stage::Plan,
                    error: "there is no image of this name, so it has no record".to_owned(),
                })
                .collect();
            lone.sort_by(|a, b| a.source_path.cmp(&b.source_path));
            plan.rejects.extend(lone);
        }
        plan.finalize();
        Ok(plan)
    }
}

fn planned(name: &str, path: String) -> PlannedMask {
    PlannedMask { name: name.to_owned(), pixels: MaskSource::File(PathBuf::from(path)) }
}

/// The kind of a file by its name and the folders above it.
fn kind(path: &str) -> Kind {
    let name = stem(path);
    let folders: Vec<&str> = path.split('/').collect();
    let is_in = |wanted: &dyn Fn(&str) -> bool| folders[..folders.len() - 1].iter().any(|folder| wanted(folder));
    if !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || is_in(&|folder| folder.starts_with(ANNOTATIONS)) {
        return Kind::Other;
    }
    if path.to_ascii_lowercase().ends_with(".txt") {
        return Kind::Reading;
    }
    if let Some((_, mask)) = MASK_FOLDERS.into_iter().find(|(wanted, _)| is_in(&|folder| folder == *wanted)) {
        return Kind::Mask(mask);
    }
    if name.ends_with(MASK_ENDING) { Kind::Mask(BOTH) } else { Kind::Image }
}

/// Patient and label of `MCUCXR_0001_0`: each image is of another patient.
fn label(name: &str) -> Option<(&str, i8)> {
    match name.rsplit_once('_')? {
        (patient, "0") => Some((patient, 0)),
        (patient, "1") => Some((patient, 1)),
        _ => None,
    }
}

/// The text of a reading; the inner error says why it cannot be used.
fn read(path: &Path) -> Result<Result<String, String>> {
    match retry(|| hashing_reader::read(path, MAX_REPORT_BYTES, Hashing::default())) {
        Ok((bytes, _)) => Ok(Ok(decode_text(bytes))),
        Err(error) if is_refusal(&error) => Err(failed(path)(error)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

/// Sex, age and what the reader found.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    sex: Option<&'static str>,
    age_years: Option<f32>,
    text: Option<String>,
}

/// Parses a reading. Its first lines are `Patient's Sex: F` and `Patient's Age: 027Y`, or `female 45yrs`, with typing errors.
fn reading(text: &str) -> Reading {
    let mut reading = Reading::default();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty()).peekable();
    while let Some(line) = lines.peek() {
        let words = line.to_lowercase().replace("patient's", " ").replace([',', ':', '.'], " ");
        let words: Vec<&str> = words.split_whitespace().collect();
        let sex = words.iter().find_map(|word| sex(word));
        let ages: Vec<f32> = (0..words.len()).filter_map(|at| age(words[at], words.get(at + 1).copied())).collect();
        let is_head = words.iter().enumerate().all(|(at, word)| {
            let is_unit = at > 0 && unit(word).is_some() && words[at - 1].bytes().all(|byte| byte.is_ascii_digit());
            sex_word(word)
                || is_unit
                || age(word, words.get(at + 1).copied()).is_some()
                || ["sex", "age"].contains(word)
        });
        if !is_head {
            break;
        }
        reading.sex = reading.sex.or(sex);
        reading.age_years = reading.age_years.or(ages.first().copied());
        lines.next();
    }
    let rest = lines.collect::<Vec<_>>().join("\n");
    reading.text = (!rest.is_empty()).then_some(rest);
    reading
}

fn sex_word(word: &str) -> bool {
    sex(word).is_some()
}

fn sex(word: &str) -> Option<&'static str> {
    match word {
        "f" | "female" | "femal" | "woman" => Some("F"),
        "m" | "male" | "mal" | "man" => Some("M"),
        _ => None,
    }
}

/// DICOM's letter of a unit of time.
fn unit(word: &str) -> Option<char> {
    match word {
        "y" | "yr" | "yrs" | "year" | "years" => Some('Y'),
        "m" | "month" | "months" => Some('M'),
        "d" | "day" | "days" => Some('D'),
        _ => None,
    }
}

/// An age of one word (`45yrs`, `027y`) or of two (`45 yrs`), in years.
fn age(word: &str, next: Option<&str>) -> Option<f32> {
    let end = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (digits, rest) = word.split_at(end);
    let unit = if rest.is_empty() { next.and_then(unit) } else { unit(rest) };
    if digits.is_empty() { None } else { years(&format!("{digits}{}", unit?)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_of_both_sets_are_parsed() {
        let parsed = |text: &str| {
            let Reading { sex, age_years, text } = reading(text);
            (sex, age_years.map(|age| (age * 100.0).round() / 100.0), text)
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(parsed("Patient's Sex: F\nPatient's Age: 027Y\nnormal\n"), (Some("F"), Some(27.0), text("normal")));
        assert_eq!(parsed("male 45yrs\nnormal"), (Some("M"), Some(45.0), text("normal")));
        assert_eq!(
            parsed("Male , 24 yrs \r\n\r\n1.bilateral PTB;\r\n2.right pleuritis"),
            (Some("M"), Some(24.0), text("1.bilateral PTB;\n2.right pleuritis"))
        );
        assert_eq!(parsed("femal 32yrs\nSTB"), (Some("F"), Some(32.0), text("STB")));
        assert_eq!(parsed("male 16month\nnormal"), (Some("M"), Some(1.33), text("normal")));
        assert_eq!(parsed("female 64days\nnormal"), (Some("F"), Some(0.18), text("normal")));
        assert_eq!(parsed("right upper 2 nodules"), (None, None, text("right upper 2 nodules")));
        assert_eq!(parsed(""), (None, None, None));
    }
}
