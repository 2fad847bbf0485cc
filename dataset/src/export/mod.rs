//! A dataset, or a part of it, in a format that another tool reads: tar files of WebDataset, Parquet of Hugging Face,
//! a CSV table with picture files.
//!
//! An export is made of pieces: one tar or Parquet file each, or some pictures with their rows of the table. A
//! piece is written under a temporary name and renamed, so a killed export, started again, goes on after its last whole
//! piece. `.export/` holds what that needs; when all is done, `.export.json` says what the folder holds, and `.export/`
//! goes. What is written follows from the dataset, the split and the options alone, not from the number of threads.

mod csv;
mod hugging_face;
mod output;
mod webdataset;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::commands::progress::Progress;
use crate::dataset::Dataset;
use crate::error::{Error, Result, guarded};
use crate::format::image_codec::GrayPixels;
use crate::format::manifest::MANIFEST;
use crate::format::record::{ImageEncoding, Record};
use crate::split::stored::Split;
use crate::split::types::{Subset, split_path};
use crate::store::files;

/// Records of a tar or Parquet file where nothing else is asked for: about 250 MB of 512-pixel PNGs.
pub const SHARD_SIZE: usize = 2048;

/// Records that each thread has in memory at a time.
const BLOCK_PER_THREAD: usize = 8;

/// Longest key of a sample in bytes: with its ending it fits the plainest tar header, which holds 100.
const KEY_BYTES: usize = 80;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Tar files of pictures, JSON and texts, for the `webdataset` package.
    Webdataset,
    /// Parquet files with pictures that `datasets.load_dataset` decodes, and a dataset card.
    Hf,
    /// One CSV table, and a folder of pictures.
    Csv,
}

impl Format {
    /// Name as it is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webdataset => "webdataset",
            Self::Hf => "hf",
            Self::Csv => "csv",
        }
    }
}

/// What to export, and how.
#[derive(Clone, Debug)]
pub struct Options {
    pub format: Format,
    /// Name of the split that divides the records. Those in none of its subsets are left out.
    pub split: Option<String>,
    /// This subset of the split alone.
    pub subset: Option<Subset>,
    /// Of the training subset, only records whose labels may be seen at this ratio in percent.
    pub ratio: Option<f64>,
    /// Records of a tar or Parquet file.
    pub shard_size: usize,
    /// Leave the pictures out (CSV alone).
    pub no_images: bool,
    /// Replace the export that the folder holds.
    pub overwrite: bool,
    /// Threads; decides no byte.
    pub threads: usize,
}

/// What came of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    pub records: usize,
    /// Pieces that an earlier run had finished.
    pub resumed: usize,
    pub pieces: usize,
    /// The folder held this very export already.
    pub already_done: bool,
}

/// One record as it is exported.
struct Sample {
    /// Unique in the dataset, safe as a file name, without dots.
    key: String,
    /// `image` holds PNG or JPEG bytes; it is empty where there is no picture.
    record: Record,
    membership: Option<(Option<Subset>, Option<f64>)>,
}

/// Some rows of the dataset that are written as one file, or with one table.
struct Piece {
    /// Relative to the folder; where it stands, the piece is whole.
    path: String,
    rows: Vec<u32>,
}

/// What is written where.
struct Plan<'a> {
    dataset: &'a Dataset,
    split: Option<Split>,
    keys: Keys,
    /// Subsets that get files of their own, with their records; one without a name where there is no split.
    sections: Vec<(Option<Subset>, usize)>,
    pieces: Vec<Piece>,
}

/// Exports a dataset into a folder.
///
/// # Errors
/// When the options contradict each other or the split, the folder holds something else, or a record cannot be read.
pub fn run(
    dataset: &Dataset,
    out: impl AsRef<OsStr>,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Summary> {
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
    progress(Progress::Started { records: records as u64, done: done as u64 });
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

/// What decides the bytes of an export.
fn arguments(dataset: &Dataset, options: &Options) -> Result<Value> {
    let digest = |name: &str| -> Result<String> { Ok(files::hex(&Sha256::digest(dataset.storage().read(name)?))) };
    let split_sha256 = options.split.as_ref().map(|name| digest(&split_path(name))).transpose()?;
    Ok(json!({
        "format": options.format.name(),
        "dataset_sha256": digest(MANIFEST)?,
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
            return Err(Error::Invalid("a file needs at least one record (--shard-size)".to_owned()));
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
        Ok(Self { dataset, split, keys: Keys::of(dataset)?, sections: counts, pieces })
    }

    /// Writes one piece, a block of records at a time.
    fn write(&self, out: &Path, piece: &Piece, options: &Options, progress: &(dyn Fn(Progress) + Sync)) -> Result<()> {
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
            let pages = if options.no_images { Vec::new() } else { self.dataset.image_pages(rows)? };
            let samples = rows
                .par_iter()
                .enumerate()
                .map(|(at, &row)| self.sample(row, pages.get(at), options.no_images))
                .collect::<Result<Vec<_>>>()?;
            writer.write(samples)?;
            progress(Progress::Advanced(rows.len() as u64));
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
        if self.dataset.manifest().image.encoding == ImageEncoding::Raw && !record.image.is_empty() {
            let pixels = std::mem::take(&mut record.image);
            record.image = GrayPixels { width, height, pixels }.encode(ImageEncoding::Png)?;
        }
        let of_row = |split: &Split| (split.members[row].subset, split.members[row].ratio);
        Ok(Sample { key: self.keys.key(&record.record_id), record, membership: self.split.as_ref().map(of_row) })
    }

    /// Ending of the picture files.
    fn ending(&self) -> &'static str {
        match self.dataset.manifest().image.encoding {
            ImageEncoding::Raw | ImageEncoding::Png => "png",
            ImageEncoding::Jpeg => "jpg",
        }
    }
}

/// A piece that grows under a temporary name.
trait PieceWriter {
    fn write(&mut self, samples: Vec<Sample>) -> Result<()>;
    /// Syncs the piece and gives it its name.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Subsets with their rows, in the order of the dataset; empty ones are left out.
type Sections = Vec<(Option<Subset>, Vec<u32>)>;

fn sections(dataset: &Dataset, split: Option<&Split>, options: &Options) -> Result<Sections> {
    let Some(split) = split else {
        if options.subset.is_some() || options.ratio.is_some() {
            return Err(Error::Invalid("a subset or ratio is one of a split: name it (--split NAME)".to_owned()));
        }
        let all = dataset.all_rows()?;
        return Ok(if all.is_empty() { Vec::new() } else { vec![(None, all)] });
    };
    if let Some(ratio) = options.ratio {
        if options.subset.is_some_and(|subset| subset != Subset::Train) {
            return Err(Error::Invalid("a ratio chooses among training records: take --subset train".to_owned()));
        }
        split.check_ratio(ratio)?;
    }
    let wanted = Subset::ALL.into_iter().filter(|subset| options.subset.is_none_or(|only| only == *subset));
    let rows = wanted.map(|subset| (Some(subset), split.rows(subset, options.ratio)));
    Ok(rows.filter(|(_, rows)| !rows.is_empty()).collect())
}

/// Keys of records: identifiers made safe as file names.
struct Keys {
    /// Safe identifiers that more than one record has, in small letters.
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
            // Some file systems do not tell capitals from small letters.
            *shared.entry(safe(id).to_lowercase()).or_default() += 1;
        }
        shared.retain(|_, count| *count > 1);
        Self { shared }
    }

    /// Letters, digits, `-` and `_` stay; where this makes two identifiers the same, or one is too long, 16 digits of
    /// its SHA-256 follow.
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

/// Bytes that become a file with a temporary name first; dropping it removes that.
struct Growing {
    file: Option<std::io::BufWriter<std::fs::File>>,
    path: PathBuf,
}

impl Growing {
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

impl std::io::Write for Growing {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(buffer))
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), std::io::Write::flush)
    }
}

impl Drop for Growing {
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
