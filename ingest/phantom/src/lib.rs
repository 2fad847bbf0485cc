//! Phantoms: synthetic raw directories in the layouts of the public data sets, to try the whole pipeline without a license.
//!
//! Image and report of a study are made from the same random plan, so a model can learn from them as from real data. None of
//! it is medical data, and a model that was trained on it has no clinical use.
//!
//! | module | content |
//! | --- | --- |
//! | `patient`, `disease`, `syndrome` | the plan: who, when, which views; which findings, where, how severe |
//! | `canvas` | raster primitives |
//! | `anatomy`, `frontal`, `lateral` | the healthy chest |
//! | `findings`, `devices` | findings and devices |
//! | `radiograph` | positioning, exposure, noise; 12-bit values |
//! | `report`, `wording`, `phrase`, `remarks`, `page` | text, and the labels that follow from it |
//! | `dicom` | the DICOM file of an image |
//! | `region` | boxes of findings |
//! | `table` | CSV files |
//! | `truth` | boxes and masks of the findings that were drawn |
//! | `files` | image files; the loop over all studies |
//! | `spanish` | the findings in the words of PadChest |
//! | `mimic_cxr`, `chexpert`, `nih` … `folder`: see [`Layout`] | the layouts: paths, identifiers and tables |

#![warn(missing_docs, clippy::undocumented_unsafe_blocks)]

mod anatomy;
mod candid_ptx;
mod canvas;
mod chexpert;
mod covid;
mod devices;
mod dicom;
mod disease;
mod files;
mod findings;
mod folder;
mod frontal;
mod kermany;
mod lateral;
mod mimic_cxr;
mod nih;
mod nlm_tb;
mod openi;
mod padchest;
mod padchest_gr;
mod page;
mod patient;
mod phrase;
mod radiograph;
mod region;
mod remarks;
mod report;
mod rexgradient;
mod rsna;
mod siim;
mod siim_covid;
mod spanish;
mod syndrome;
mod table;
mod taix_ray;
mod truth;
mod vindr;
mod wording;

pub use truth::run_lengths;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use dataset::progress::{Canceled, OnProgress, Progress};
use serde::{Deserialize, Serialize};

/// Default of [`Options::size`]: a fifth of the size of real radiographs.
pub const DEFAULT_SIZE: usize = 512;

/// Smallest and largest [`Options::size`]. Sizes vary around it, and the largest must be below the 16-bit limit of DICOM.
pub const SIZES: std::ops::RangeInclusive<usize> = 32..=8192;

/// File with the arguments, by which a second run recognizes the directory of the same command.
const RECORD: &str = "phantom.json";

/// Raise it when the same options give other bytes than before.
const VERSION: u32 = 1;

/// The data set whose layout is written.
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
    /// VinDr-CXR: DICOM, labels and boxes of three readers.
    VindrCxr,
    /// VinDr-PCXR: DICOM, labels and boxes of one reader.
    VindrPcxr,
    /// PadChest: 16-bit PNG, Spanish reports.
    Padchest,
    /// PadChest-GR: 16-bit PNG, sentences with boxes.
    PadchestGr,
    /// ReXGradient-160K: PNG, reports in sections.
    Rexgradient,
    /// TAIX-Ray: PNG, grades, folds.
    TaixRay,
    /// CANDID-PTX: DICOM, reports, run-length masks of three kinds.
    CandidPtx,
    /// SIIM-FISABIO-RSNA COVID-19 Detection: DICOM, appearances, boxes.
    SiimCovid,
    /// Montgomery and Shenzhen: PNG, readings, masks of the lungs.
    NlmTb,
    /// Children's pneumonia (Kermany): JPEG, labels in names and folders.
    Kermany,
    /// A directory of DICOM and PNG files, text files beside them, and a table.
    Folder,
}

/// Options of a phantom. The same options give the same bytes, for any number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Number of studies. A larger set begins with the patients of a smaller one.
    pub studies: usize,
    /// Seed of all random numbers.
    pub seed: u64,
    /// Nominal shorter side of the images in pixels; sizes vary around it.
    pub size: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { studies: 100, seed: 0, size: DEFAULT_SIZE }
    }
}

/// Counts of a phantom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Patients.
    pub patients: usize,
    /// Studies.
    pub studies: usize,
    /// Images.
    pub images: usize,
}

/// Why a phantom could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The directory has other files.
    #[error("{} is neither empty nor a phantom; give an empty or a new directory", path.display())]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// The directory has a phantom of other arguments.
    #[error("{} holds another phantom ({difference}); give another directory, or delete it", path.display())]
    Other {
        /// The directory.
        path: PathBuf,
        /// The arguments that differ, with both values.
        difference: String,
    },
    /// The size is out of range.
    #[error("size {size} is out of range; give {} to {}", SIZES.start(), SIZES.end())]
    Size {
        /// The size that was given.
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
    /// An image cannot be encoded as PNG or JPEG.
    #[error("cannot encode {}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: dataset::Error,
    },
    /// An image cannot be encoded as DICOM.
    #[error("cannot encode {}", path.display())]
    Dicom {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Box<dicom_object::WriteError>,
    },
    /// The caller canceled the work.
    #[error(transparent)]
    Canceled(#[from] Canceled),
}

/// Content of the file `RECORD`.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    layout: Layout,
    #[serde(flatten)]
    options: Options,
}

/// Writes a phantom into `out`: a new or empty directory, or that of an earlier run with the same arguments, which is
/// completed.
///
/// `progress` counts studies in place of records.
///
/// # Errors
/// When the size is out of range, `out` has other content, a file cannot be written, or `progress` cancels.
pub fn write(layout: Layout, out: &Path, options: &Options, progress: &OnProgress) -> Result<Summary, Error> {
    if !SIZES.contains(&options.size) {
        return Err(Error::Size { size: options.size });
    }
    claim(out, &Record { version: VERSION, layout, options: *options })?;
    progress(Progress::Started { records: options.studies as u64, done: 0 })?;
    let plan = patient::plan(options.studies, options.seed, options.size);
    match layout {
        Layout::MimicCxr => mimic_cxr::write(out, &plan, progress),
        Layout::Chexpert => chexpert::write(out, &plan, progress),
        Layout::Nih => nih::write(out, &plan, options.size, progress),
        Layout::Covid => covid::write(out, &plan, progress),
        Layout::Rsna => rsna::write(out, &plan, progress),
        Layout::Siim => siim::write(out, &plan, progress),
        Layout::Openi => openi::write(out, &plan, progress),
        Layout::VindrCxr => vindr::write_cxr(out, &plan, progress),
        Layout::VindrPcxr => vindr::write_pcxr(out, &plan, progress),
        Layout::Padchest => padchest::write(out, &plan, progress),
        Layout::PadchestGr => padchest_gr::write(out, &plan, progress),
        Layout::Rexgradient => rexgradient::write(out, &plan, progress),
        Layout::TaixRay => taix_ray::write(out, &plan, progress),
        Layout::CandidPtx => candid_ptx::write(out, &plan, progress),
        Layout::SiimCovid => siim_covid::write(out, &plan, progress),
        Layout::NlmTb => nlm_tb::write(out, &plan, progress),
        Layout::Kermany => kermany::write(out, &plan, progress),
        Layout::Folder => folder::write(out, &plan, progress),
    }
}

/// The arguments in which a record differs from the given ones: `studies 30, not 31`.
fn difference(found: &[u8], given: &str) -> String {
    let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(given).unwrap_or_default();
    let Ok(found) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(found) else {
        return format!("its {RECORD} is damaged");
    };
    let has = |key: &str| found.get(key).map_or("not stated".to_owned(), serde_json::Value::to_string);
    let other = given.iter().filter(|(key, value)| found.get(*key) != Some(*value));
    other.map(|(key, value)| format!("{key} {}, not {value}", has(key))).collect::<Vec<_>>().join("; ")
}

/// Checks that the directory may be written, and records the arguments in it.
fn claim(out: &Path, record: &Record) -> Result<(), Error> {
    let given = serde_json::to_string(record).expect("a record is plain data");
    let path = out.join(RECORD);
    match fs::read(&path) {
        Ok(bytes) if serde_json::from_slice::<Record>(&bytes).is_ok_and(|found| found == *record) => {
            return Ok(());
        }
        Ok(bytes) => {
            return Err(Error::Other { path: out.to_owned(), difference: difference(&bytes, &given) });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => return Err(Error::Read { path, source }),
    }
    match fs::read_dir(out) {
        // A run that was killed before it wrote the record leaves only the temporary file.
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
    write_file(&path, format!("{given}\n").as_bytes())
}

/// The temporary name of a file. It is hidden, unlike those of `dataset::store::files`, so that no source takes what a killed
/// run leaves for an image.
fn temporary(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.part"))
}

/// Writes a file under a temporary name, then renames it, so that a file with its final name is complete. It is not synced:
/// there are many files, and a phantom can be written again.
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
