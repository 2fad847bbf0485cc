//! Exports a dataset, or a part of it, in the format of another tool: tar files of WebDataset, Parquet files of Hugging
//! Face, or a CSV table with image files.
//!
//! An export consists of pieces: one tar or Parquet file each, or some images with their rows of the table. A piece is
//! written under a temporary name and renamed, so that a killed export continues after its last complete piece when it is
//! started again. `.export/` contains what that needs; at the end, `.export.json` describes the export and `.export/` is
//! removed. The bytes depend on the dataset, the split and the options only, not on the number of threads.

mod csv;
mod hugging_face;
mod image_file;
mod json_columns;
mod output;
mod webdataset;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use image_file::Image;
use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::format::manifest::{MANIFEST, Manifest};
use crate::format::record::{ImageEncoding, Record};
use crate::progress::{OnProgress, Progress};
use crate::split::ratio::Ratio;
use crate::split::stored::Split;
use crate::split::types::{Subset, split_path};
use crate::store::files;

/// Default number of records in a tar or Parquet file: about 250 MB of 512-pixel PNGs.
pub const SHARD_SIZE: usize = 2048;

/// Records in memory for each thread.
const BLOCK_PER_THREAD: usize = 8;

/// Longest key of a sample in bytes: with its extension it fits into the 100 bytes of a plain tar header.
const KEY_BYTES: usize = 80;

/// The format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// Tar files of images, JSON and texts, for the package `webdataset`.
    Webdataset,
    /// Parquet files with images that `datasets.load_dataset` decodes, and a dataset card.
    Hf,
    /// One CSV table and a folder of images.
    Csv,
}

impl Format {
    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webdataset => "webdataset",
            Self::Hf => "hf",
            Self::Csv => "csv",
        }
    }
}

/// Options of an export.
#[derive(Clone, Debug)]
pub struct Options {
    /// The format.
    pub format: Format,
    /// Name of the split that divides the records. Records in none of its subsets are left out.
    pub split: Option<String>,
    /// Exports this subset of the split only.
    pub subset: Option<Subset>,
    /// Of the training subset, exports only records whose labels may be seen at this ratio.
    pub ratio: Option<Ratio>,
    /// Number of records in a tar or Parquet file.
    pub shard_size: usize,
    /// Leaves out the images (CSV only).
    pub no_images: bool,
    /// Replaces an export in the folder.
    pub overwrite: bool,
    /// Number of threads; 0 means one for each core.
    pub threads: usize,
}

/// The outcome of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Number of records.
    pub records: usize,
    /// Number of pieces that an earlier run completed.
    pub resumed: usize,
    /// Number of pieces.
    pub pieces: usize,
    /// Whether the folder contained this export already.
    pub already_done: bool,
}

/// One record as it is exported.
struct Sample {
    /// Unique in the dataset, safe as a file name, without dots.
    key: String,
    /// Its `image` is a PNG or JPEG file, or empty.
    record: Record,
    /// Its subset and smallest ratio in the split.
    membership: Option<(Option<Subset>, Option<Ratio>)>,
}

/// A mask that records of the dataset may have.
#[derive(Clone)]
struct ExportedMask {
    name: String,
    /// The name as a part of file names; unique in the dataset.
    key: String,
}

impl ExportedMask {
    fn all(dataset: &Dataset) -> Vec<Self> {
        let names = &dataset.manifest().masks;
        let keys = Keys::among(names.iter().map(String::as_str));
        names.iter().map(|name| Self { name: name.clone(), key: keys.key(name) }).collect()
    }

    /// The PNG of a record.
    fn of<'a>(&self, record: &'a Record) -> Option<&'a [u8]> {
        let mask = record.masks.iter().find(|mask| mask.name == self.name)?;
        Some(&mask.png)
    }
}

/// Rows of the dataset that are written as one file, or with one table.
struct Piece {
    /// Relative to the folder; a piece whose file exists is complete.
    path: String,
    rows: Vec<u32>,
}

/// The pieces of an export.
struct Plan<'a> {
    dataset: &'a Dataset,
    split: Option<Split>,
    keys: Keys,
    masks: Vec<ExportedMask>,
    /// Whether images of 16 bits stay so; otherwise they are shown with their windows.
    keeps_16_bits: bool,
    /// Subsets with files of their own, and their numbers of records; one without a name where there is no split.
    sections: Vec<(Option<Subset>, usize)>,
    pieces: Vec<Piece>,
}

/// Exports a dataset into a folder. After a kill or a cancellation by `progress`, the same call continues.
///
/// # Errors
/// When the options contradict each other or the split, the folder contains something else, a record cannot be read, or
/// `progress` cancels.
pub fn run(dataset: &Dataset, out: impl AsRef<OsStr>, options: &Options, progress: &OnProgress) -> Result<Summary> {
    if !dataset.joined_names().is_empty() {
        return Err(Error::Invalid("an export is of the dataset as it is stored: open it without joins".to_owned()));
    }
    let out = output::folder(out.as_ref())?;
    let plan = Plan::new(dataset, options)?;
    let arguments = arguments(dataset, options)?;
    let records = plan.pieces.iter().map(|piece| piece.rows.len()).sum();
    let pieces = plan.pieces.len();
    let Some(_lock) = output::prepare(&out, &arguments, options.overwrite)? else {
        return Ok(Summary { records, resumed: pieces, pieces, already_done: true });
    };
    let is_done = |piece: &&Piece| out.join(&piece.path).is_file();
    let done: usize = plan.pieces.iter().filter(is_done).map(|piece| piece.rows.len()).sum();
    let resumed = plan.pieces.iter().filter(is_done).count();
    progress(Progress::Started { records: records as u64, done: done as u64 })?;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.threads)
        .build()
        .map_err(|error| Error::Invalid(error.to_string()))?;
    for piece in plan.pieces.iter().filter(|piece| !is_done(piece)) {
        pool.install(|| plan.write(&out, piece, options, progress))?;
    }
    match options.format {
        Format::Webdataset => {}
        Format::Hf => hugging_face::write_card(&out, &plan)?,
        Format::Csv => csv::join(&out, &plan, options)?,
    }
    output::finish(&out, &arguments)?;
    Ok(Summary { records, resumed, pieces, already_done: false })
}

/// Everything that determines the bytes of an export.
fn arguments(dataset: &Dataset, options: &Options) -> Result<Value> {
    let manifest = dataset.storage().read(MANIFEST)?;
    if Manifest::digest_of(&manifest) != dataset.digest() {
        let path = dataset.storage().path(MANIFEST);
        let message = "it is not what was read before: it was changed, or read wrongly; give the same command again";
        return Err(Error::Invalid(format!("{}: {message}", path.display())));
    }
    let digest = |bytes: &[u8]| files::hex(&Sha256::digest(bytes));
    let of_split = |name: &String| Ok::<_, Error>(digest(&dataset.storage().read(&split_path(name))?));
    let split_sha256 = options.split.as_ref().map(of_split).transpose()?;
    Ok(json!({
        "format": options.format.name(),
        "dataset_sha256": digest(&manifest),
        "split": options.split,
        "split_sha256": split_sha256,
        "subset": options.subset,
        "ratio": options.ratio,
        "shard_size": options.shard_size,
        "no_images": options.no_images,
    }))
}

impl<'a> Plan<'a> {
    fn new(dataset: &'a Dataset, options: &Options) -> Result<Self> {
        let split = options.split.as_ref().map(|name| Split::load(dataset, name)).transpose()?;
        if options.shard_size == 0 {
            return Err(Error::Invalid("a file needs at least one record: give a larger --shard-size".to_owned()));
        }
        let sections = sections(dataset, split.as_ref(), options)?;
        if sections.is_empty() {
            return Err(Error::Invalid("no record to export: the chosen part is empty".to_owned()));
        }
        let counts = sections.iter().map(|(subset, rows)| (*subset, rows.len())).collect();
        let pieces = match options.format {
            Format::Webdataset => webdataset::pieces(sections, options.shard_size),
            Format::Hf => hugging_face::pieces(sections, options.shard_size),
            Format::Csv => csv::pieces(sections),
        };
        Ok(Self {
            dataset,
            split,
            keys: Keys::of(dataset)?,
            masks: ExportedMask::all(dataset),
            keeps_16_bits: options.format != Format::Csv,
            sections: counts,
            pieces,
        })
    }

    /// Writes one piece, a block of records at a time.
    fn write(&self, out: &Path, piece: &Piece, options: &Options, progress: &OnProgress) -> Result<()> {
        let path = out.join(&piece.path);
        if let Some(folder) = path.parent() {
            files::make_folder(folder)?;
        }
        let mut writer: Box<dyn PieceWriter> = match options.format {
            Format::Webdataset => Box::new(webdataset::Writer::create(&path, self)?),
            Format::Hf => Box::new(hugging_face::Writer::create(&path, self)?),
            Format::Csv => Box::new(csv::Writer::create(out, &path, self, options)?),
        };
        for rows in piece.rows.chunks(BLOCK_PER_THREAD * rayon::current_num_threads()) {
            let pages = if options.no_images { vec![None; rows.len()] } else { self.dataset.image_pages(rows)? };
            let samples = rows
                .par_iter()
                .enumerate()
                .map(|(at, &row)| self.sample(row, pages[at].as_ref(), options.no_images))
                .collect::<Result<Vec<_>>>()?;
            writer.write(samples)?;
            progress(Progress::Advanced(rows.len() as u64))?;
        }
        writer.finish()
    }

    fn sample(&self, row: u32, page: Option<&bytes::Bytes>, no_images: bool) -> Result<Sample> {
        let row = row as usize;
        let damaged = "a shard is damaged: `dataset verify` says where";
        let mut record = guarded(damaged, || {
            if no_images { self.dataset.record_without_image(row) } else { self.dataset.record_from(page, row) }
        })?;
        let (height, width) = (record.height.into(), record.width.into());
        if !record.image.is_empty() {
            let stored = std::mem::take(&mut record.image);
            let stored = Image { bytes: stored, width, height, encoding: self.dataset.manifest().image.encoding };
            let (shard, local) = self.dataset.locate(row)?;
            let made = guarded(damaged, || stored.file(self.keeps_16_bits, record.window));
            record.image = made.map_err(|error| shard.row_error(local, error))?;
        }
        let of_row = |split: &Split| (split.members[row].subset, split.members[row].ratio);
        Ok(Sample { key: self.keys.key(&record.record_id), record, membership: self.split.as_ref().map(of_row) })
    }

    /// Extension of the image files.
    fn ending(&self) -> &'static str {
        match self.dataset.manifest().image.encoding {
            ImageEncoding::Jpeg => "jpg",
            _ => "png",
        }
    }
}

/// Writes a piece under a temporary name.
trait PieceWriter {
    fn write(&mut self, samples: Vec<Sample>) -> Result<()>;
    /// Syncs the piece and gives it its name.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Subsets with their rows, in the order of the dataset, without empty ones.
type Sections = Vec<(Option<Subset>, Vec<u32>)>;

fn sections(dataset: &Dataset, split: Option<&Split>, options: &Options) -> Result<Sections> {
    let Some(split) = split else {
        if options.subset.is_some() || options.ratio.is_some() {
            return Err(Error::Invalid("a subset or ratio needs a split: give --split NAME".to_owned()));
        }
        let all = dataset.all_rows()?;
        return Ok(if all.is_empty() { Vec::new() } else { vec![(None, all)] });
    };
    if let Some(ratio) = options.ratio {
        if options.subset.is_some_and(|subset| subset != Subset::Train) {
            return Err(Error::Invalid("a ratio applies to training records: use --subset train".to_owned()));
        }
        split.check_ratio(ratio)?;
    }
    let wanted = Subset::ALL.into_iter().filter(|subset| options.subset.is_none_or(|only| only == *subset));
    let rows = wanted.map(|subset| (Some(subset), split.rows(subset, options.ratio)));
    Ok(rows.filter(|(_, rows)| !rows.is_empty()).collect())
}

/// Keys of records: identifiers as file names.
struct Keys {
    /// Safe identifiers, in lower case, that more than one record has.
    shared: HashMap<String, u32>,
}

impl Keys {
    fn of(dataset: &Dataset) -> Result<Self> {
        let ids = dataset.texts("record_id")?;
        Ok(Self::among(ids.iter().flatten().map(String::as_str)))
    }

    fn among<'i>(ids: impl Iterator<Item = &'i str>) -> Self {
        let mut shared: HashMap<String, u32> = HashMap::new();
        for id in ids {
            // Some file systems ignore case.
            *shared.entry(safe(id).to_lowercase()).or_default() += 1;
        }
        shared.retain(|_, count| *count > 1);
        Self { shared }
    }

    /// Keeps letters, digits, `-` and `_`. Where two identifiers become equal, or one is too long, 16 digits of its SHA-256
    /// are added.
    fn key(&self, record_id: &str) -> String {
        let safe = safe(record_id);
        if safe.len() <= KEY_BYTES && !self.shared.contains_key(&safe.to_lowercase()) {
            return safe;
        }
        let digest = files::hex(&Sha256::digest(record_id));
        let most = safe.len().min(KEY_BYTES - 17);
        format!("{}-{}", &safe[..most], &digest[..16])
    }
}

fn safe(record_id: &str) -> String {
    record_id.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_') { c } else { '_' }).collect()
}

/// A file under a temporary name, which dropping removes.
struct TemporaryFile {
    file: Option<std::io::BufWriter<std::fs::File>>,
    path: PathBuf,
}

impl TemporaryFile {
    fn create(path: &Path) -> Result<Self> {
        let file = std::fs::File::create(files::temporary(path)).map_err(Error::io(path))?;
        Ok(Self { file: Some(std::io::BufWriter::with_capacity(1 << 20, file)), path: path.to_path_buf() })
    }

    /// Syncs the file and gives it its name.
    fn publish(mut self) -> Result<()> {
        if let Some(file) = self.file.take() {
            let synced =
                file.into_inner().map_err(std::io::IntoInnerError::into_error).and_then(|file| file.sync_all());
            if let Err(source) = synced {
                let _ = std::fs::remove_file(files::temporary(&self.path));
                return Err(Error::Io { path: self.path.clone(), cause: source });
            }
            files::publish(&files::temporary(&self.path), &self.path)?;
        }
        Ok(())
    }
}

impl std::io::Write for TemporaryFile {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(buffer))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), std::io::Write::flush)
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(files::temporary(&self.path));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_and_unique() {
        let long = format!("folder/{}", "x".repeat(300));
        let ids = [
            "nih/00000001_000.png",
            "folder/a.b",
            "folder/a/b",
            "folder/A-b",
            "folder/ä",
            "folder/ö",
            &long,
            "case/B",
            "case/b",
        ];
        let keys = Keys::among(ids.into_iter());
        let made: Vec<String> = ids.iter().map(|id| keys.key(id)).collect();
        assert_eq!(made[0], "nih_00000001_000_png");
        assert_eq!(made[3], "folder_A-b");
        assert!(made[1].starts_with("folder_a_b-") && made[2].starts_with("folder_a_b-"), "{made:?}");
        for key in &made {
            assert!(key.len() <= KEY_BYTES && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)));
        }
        let different: std::collections::HashSet<String> = made.iter().map(|key| key.to_lowercase()).collect();
        assert_eq!(different.len(), ids.len());
    }
}
