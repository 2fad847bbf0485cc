//! Phantoms: synthetic raw directories in the layouts of the public sets, to try the whole road on without a license.
//!
//! The picture and the report of a study follow the same plan, drawn from a seed, so that reports can be learned from
//! pictures as from real ones. Nothing here is medical data, and nothing learned from it is worth anything in a clinic.
//!
//! | room | holds |
//! | --- | --- |
//! | `patient`, `disease`, `syndrome` | the plan: who, when, which views; which findings, where, how severe |
//! | `canvas` | raster primitives |
//! | `anatomy`, `frontal`, `lateral` | the healthy chest |
//! | `findings`, `devices` | what is ill, and what is implanted |
//! | `film` | positioning, exposure, noise; 12-bit values |
//! | `report`, `wording`, `phrase`, `remarks`, `page` | text, and the labels that follow from it |
//! | `dicom` | the file of one picture |
//! | `region` | where on a picture a finding lies |
//! | `table` | CSV files |
//! | `truth` | boxes and masks of what was drawn |
//! | `files` | pictures as files, for every study at once |
//! | `mimic_cxr`, `chexpert`, `nih`, `covid`, `rsna`, `siim`, `openi`, `folder` | the layouts: paths, identifiers and tables |

mod anatomy;
mod canvas;
mod chexpert;
mod covid;
mod devices;
mod dicom;
mod disease;
mod files;
mod film;
mod findings;
mod folder;
mod frontal;
mod lateral;
mod mimic_cxr;
mod nih;
mod openi;
mod page;
mod patient;
mod phrase;
mod region;
mod remarks;
mod report;
mod rsna;
mod siim;
mod syndrome;
mod table;
mod truth;
mod wording;

pub use truth::run_lengths;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Default of `Options::size`: a fifth of the real thing.
pub const DEFAULT_SIZE: usize = 512;

/// Smallest and largest `Options::size`; the largest leaves room for the variation within DICOM's 16-bit sizes.
pub const SIZES: std::ops::RangeInclusive<usize> = 32..=8192;

/// Records the arguments in the directory, so that a second run knows its own.
const RECORD: &str = "phantom.json";

/// Raised when the same options give other bytes than before.
const VERSION: u32 = 1;

/// The set whose directory is imitated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// MIMIC-CXR 2.0.0: DICOM, reports, metadata, split and CheXpert tables.
    MimicCxr,
    /// CheXpert-v1.0-small: JPEG, `train.csv`, `valid.csv`.
    Chexpert,
    /// NIH ChestX-ray14: PNG, entry table, lists, boxes.
    Nih,
    /// COVID-19 Image Data Collection: JPEG, `metadata.csv` with clinical notes.
    Covid,
    /// RSNA Pneumonia Detection Challenge: DICOM, boxes, classes.
    Rsna,
    /// SIIM-ACR Pneumothorax: DICOM, run-length masks.
    Siim,
    /// Open-i: PNG, XML reports.
    Openi,
    /// A directory of DICOM and PNG files, text files beside them, and a table.
    Folder,
}

/// What to write. The same options give the same bytes, whatever the number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Number of studies; a larger set begins with the patients of the smaller one.
    pub studies: usize,
    /// Seed of everything.
    pub seed: u64,
    /// Nominal shorter side of the pictures in pixels; sizes vary around it.
    pub size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { studies: 100, seed: 0, size: DEFAULT_SIZE }
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Summary {
    pub patients: usize,
    pub studies: usize,
    pub images: usize,
}

/// Why a phantom could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory holds something else.
    #[error("{} is not empty and not a phantom; name an empty or a new directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds a phantom of other arguments.
    #[error("{} holds another phantom ({difference}); name another directory, or delete it", path.display())]
    Other {
        /// The directory.
        path: PathBuf,
        /// What it has, and what was asked for.
        difference: String,
    },
    /// The size is out of range.
    #[error("size {size} is out of range: {} to {}", SIZES.start(), SIZES.end())]
    Size {
        /// The size asked for.
        size: usize,
    },
    /// The directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A picture cannot be encoded as PNG or JPEG.
    #[error("cannot encode {}", path.display())]
    Picture {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: dataset::Error,
    },
    /// A picture cannot be encoded as DICOM.
    #[error("cannot encode {}", path.display())]
    Dicom {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dicom_object::WriteError>,
    },
}

/// What `RECORD` holds.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    layout: Layout,
    #[serde(flatten)]
    options: Options,
}

/// Writes a phantom into `out`, a new or empty directory or one that an earlier run of the same arguments left.
///
/// Calls `progress(1)` after each study, from any thread.
pub fn write(layout: Layout, out: &Path, options: &Options, progress: impl Fn(u64) + Sync) -> Result<Summary, Error> {
    if !SIZES.contains(&options.size) {
        return Err(Error::Size { size: options.size });
    }
    claim(out, &Record { version: VERSION, layout, options: *options })?;
    let plan = patient::plan(options.studies, options.seed, options.size);
    match layout {
        Layout::MimicCxr => mimic_cxr::write(out, &plan, &progress),
        Layout::Chexpert => chexpert::write(out, &plan, &progress),
        Layout::Nih => nih::write(out, &plan, options.size, &progress),
        Layout::Covid => covid::write(out, &plan, &progress),
        Layout::Rsna => rsna::write(out, &plan, &progress),
        Layout::Siim => siim::write(out, &plan, &progress),
        Layout::Openi => openi::write(out, &plan, &progress),
        Layout::Folder => folder::write(out, &plan, &progress),
    }
}

/// What a record has otherwise than it was asked for: `studies 30, not 31`.
fn difference(found: &[u8], asked: &str) -> String {
    let asked: serde_json::Map<String, serde_json::Value> = serde_json::from_str(asked).unwrap_or_default();
    let Ok(found) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(found) else {
        return format!("its {RECORD} is damaged");
    };
    let has = |key: &str| found.get(key).map_or("not stated".to_owned(), serde_json::Value::to_string);
    let other = asked.iter().filter(|(key, value)| found.get(*key) != Some(*value));
    other.map(|(key, value)| format!("{key} {}, not {value}", has(key))).collect::<Vec<_>>().join("; ")
}

/// Takes possession of the directory, or finds it to be our own.
fn claim(out: &Path, record: &Record) -> Result<(), Error> {
    let asked = serde_json::to_string(record).expect("a record is plain data");
    let path = out.join(RECORD);
    match fs::read(&path) {
        Ok(bytes) if serde_json::from_slice::<Record>(&bytes).is_ok_and(|found| found == *record) => {
            return Ok(());
        }
        Ok(bytes) => {
            return Err(Error::Other { path: out.to_owned(), difference: difference(&bytes, &asked) });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path, source }),
    }
    match fs::read_dir(out) {
        // A run killed before its record was in place leaves the temporary file alone.
        Ok(entries) => {
            let foreign = entries.flatten().any(|entry| entry.path() != temporary(&path));
            if foreign {
                return Err(Error::Foreign { path: out.to_owned() });
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Error::Read { path: out.to_owned(), source });
        }
    }
    write_file(&path, format!("{asked}\n").as_bytes())
}

/// Hidden, unlike the names of `dataset::store::files`: what a killed run leaves must look like no picture to any source.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

/// Writes a file under a temporary name, then gives it its own: what has its name is complete. It is not synced: there are
/// many, and a phantom can be made again.
fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let part = temporary(path);
    let attempt = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = fs::File::create(&part)?;
        file.write_all(bytes)?;
        fs::rename(&part, path)
    };
    attempt().map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
