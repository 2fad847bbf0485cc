//! What the tests share: the built binaries, small raw directories and datasets, and ways to look at what was written.
//! Nothing here needs libtorch.

pub mod allocations;
pub mod faults;
mod files;
pub mod help;
pub mod object_store;
pub mod pages;
pub mod power_loss;
mod python;
mod secrets;
pub mod slurm;
pub mod splits;
pub mod storage_calls;
pub mod store_faults;
pub mod volume;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int8Array, RecordBatch, StringArray, StructArray};
use dataset::format::grade::GradeScale;
use dataset::format::manifest::{self, ImageSpec, Manifest, TextSpec, Totals};
use dataset::format::pixel_sums::PixelSums;
use dataset::format::record::{FORMAT_VERSION, ImageEncoding, Record};
use dataset::format::schema::schema;
use dataset::format::shard::{ImageCompression, Shard, ShardWriter};
use dataset::random::Stream;
use dataset::{Dataset, Label};

pub use files::{
    contents, copy_folder, edit, empty_folder, files_with, flip_bit, folder, gzip, read_text, rename, repository,
    tests_folder, write_file, write_png,
};
pub use python::{cluster_python, python, python_output, requires_cluster};
pub use secrets::{SECRETS, assert_without_secrets, with_secrets};

/// A built binary of the workspace; test executables are one folder below it.
pub fn binary(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("a test executable has a path");
    let folder = here.parent().and_then(Path::parent).expect("test executables lie in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: cargo build --release --workspace --bins", path.display());
    path
}

/// A command of one of the binaries, with one torch thread (tests run in parallel).
pub fn command(name: &str) -> Command {
    let mut command = Command::new(binary(name));
    command.env("OMP_NUM_THREADS", "1");
    command
}

/// Runs a binary and returns its output and exit code.
pub fn run<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(name: &str, arguments: I) -> Output {
    command(name).args(arguments).output().expect("the binary starts")
}

/// Runs a binary that must succeed, and returns its standard output.
pub fn ok<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(name: &str, arguments: I) -> String {
    let output = run(name, arguments);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{name}: {}\n{out}\n{err}", output.status);
    out
}

/// Runs a binary that must fail with an exit code, without a panic, and returns its standard error.
pub fn fails<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(name: &str, code: i32, arguments: I) -> String {
    let output = run(name, arguments);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{name}: {}\n{err}", text(&output.stdout));
    assert!(!err.contains("panicked"), "{err}");
    err
}

/// Whether a program is installed; prints a line if it is not, since what needs it is skipped.
pub fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Arguments from words and paths.
#[macro_export]
macro_rules! args {
    ($($argument:expr),* $(,)?) => { [$(::std::ffi::OsString::from($argument)),*] };
}

/// Writes a small synthetic MIMIC-CXR directory.
pub fn phantom(folder: &Path, studies: usize) -> PathBuf {
    phantom_of("mimic-cxr", folder, studies)
}

/// Writes a small synthetic directory in the layout of a source.
pub fn phantom_of(layout: &str, folder: &Path, studies: usize) -> PathBuf {
    let raw = folder.join(layout);
    ok("ingest", args!["phantom", layout, &raw, "--studies", studies.to_string(), "--size", "96", "--seed", "7"]);
    raw
}

/// Ingests a raw directory with small settings.
pub fn ingest(source: &str, raw: &Path, out: &Path, more: &[&str]) -> String {
    let mut arguments = vec![source.into(), raw.into(), out.into()];
    arguments.extend(SMALL.iter().chain(more).map(Into::into));
    ok::<_, std::ffi::OsString>("ingest", arguments)
}

/// Small settings of `ingest`.
pub const SMALL: [&str; 8] = ["--size", "64", "--vocab-size", "400", "--max-tokens", "48", "--rows-per-shard", "16"];

/// The records of a dataset, in its order.
pub fn records(out: &Path) -> Vec<Record> {
    let dataset = Dataset::open(out).expect("a dataset");
    (0..dataset.len()).map(|row| dataset.record(row).expect("a record")).collect()
}

/// The records of a dataset by identifier.
pub fn records_by_id(out: &Path) -> BTreeMap<String, Record> {
    records(out).into_iter().map(|record| (record.record_id.clone(), record)).collect()
}

/// One reject row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectRow {
    pub source_path: String,
    pub record_id: Option<String>,
    pub stage: String,
    pub error: String,
}

/// The rows of `rejects.parquet`.
pub fn rejects(dataset: &Path) -> Vec<RejectRow> {
    let batches = dataset::format::table::read_table(&dataset.join("rejects.parquet")).expect("rejects.parquet");
    let mut rows = Vec::new();
    for batch in batches {
        let column = |name| dataset::format::table::column::<StringArray>(&batch, name).expect("a text column");
        for row in 0..batch.num_rows() {
            let id = column("record_id");
            rows.push(RejectRow {
                source_path: column("source_path").value(row).to_owned(),
                record_id: id.is_valid(row).then(|| id.value(row).to_owned()),
                stage: column("stage").value(row).to_owned(),
                error: column("error").value(row).to_owned(),
            });
        }
    }
    rows
}

/// The folder of larger real data; `None`, with a line that says so, if there is none.
///
/// # Panics
/// With `MRM_REQUIRE_TEST_DATA=1` if there is none.
pub fn real_data() -> Option<PathBuf> {
    let beside = || repository().join("../shared/data");
    let path = std::env::var_os("MRM_TEST_DATA").map_or_else(beside, PathBuf::from);
    if path.is_dir() {
        return Some(path);
    }
    assert!(std::env::var("MRM_REQUIRE_TEST_DATA").as_deref() != Ok("1"), "no real data at {}", path.display());
    eprintln!("skipped: no real data at {} (set MRM_TEST_DATA)", path.display());
    None
}

/// The folder of the golden numbers.
pub fn golden() -> PathBuf {
    let beside = || tests_folder().join("golden");
    std::env::var_os("MRM_GOLDEN_DIR").map_or_else(beside, PathBuf::from)
}

/// A golden JSON file.
pub fn golden_json(name: &str) -> serde_json::Value {
    let path = golden().join(name);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("golden files are JSON")
}

/// Writes a dataset of made-up records, a shard for each list; `token_ids` are of a vocabulary of 100 tokens, every third of
/// which continues a word: 5 is `word5`, 6 `##6`.
pub fn write_dataset(folder: &Path, findings: &[&str], encoding: ImageEncoding, shards: &[Vec<Record>]) {
    write_graded_dataset(folder, findings, &[], encoding, shards);
}

/// As [`write_dataset`], with grades. The manifest names the masks of the records.
pub fn write_graded_dataset(
    folder: &Path,
    findings: &[&str],
    grades: &[GradeScale],
    encoding: ImageEncoding,
    shards: &[Vec<Record>],
) {
    let findings: Vec<String> = findings.iter().map(|name| (*name).to_owned()).collect();
    std::fs::create_dir_all(folder.join("shards")).expect("a folder");
    let infos = shards.iter().enumerate().map(|(index, records)| {
        let relative = manifest::shard_path(index);
        let path = folder.join(&relative);
        let mut writer = ShardWriter::create(&path, schema(&findings, grades, encoding), ImageCompression::None)
            .expect("a shard begins");
        writer.write(records).expect("written");
        writer.finish(&relative).expect("finished")
    });
    let infos: Vec<_> = infos.collect();
    let piece = |id: usize| match id {
        2 => "[CLS]".to_owned(),
        4.. if id.is_multiple_of(3) => format!("##{id}"),
        _ => format!("word{id}"),
    };
    let vocabulary: BTreeMap<String, usize> = (0..100).map(|id| (piece(id), id)).collect();
    let tokenizer = serde_json::json!({ "version": "1.0", "pre_tokenizer": { "type": "WhitespaceSplit" }, "model": {
        "type": "WordPiece", "unk_token": "word1", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": vocabulary,
    }});
    let tokenizer = tokenizer.to_string();
    std::fs::write(folder.join(manifest::TOKENIZER), &tokenizer).expect("written");
    dataset::format::table::write_table(
        &folder.join(manifest::REJECTS),
        vec![("source_path", Arc::new(StringArray::from(Vec::<&str>::new())), false)],
    )
    .expect("written");
    let first = shards.iter().flatten().next();
    let mut masks: Vec<String> = Vec::new();
    for mask in shards.iter().flatten().flat_map(|record| &record.masks) {
        if !masks.contains(&mask.name) {
            masks.push(mask.name.clone());
        }
    }
    let mut manifest = Manifest {
        format_version: FORMAT_VERSION,
        source: "made".to_owned(),
        tool: "tests".to_owned(),
        arguments: BTreeMap::new(),
        image: ImageSpec {
            encoding,
            bits: encoding.bits(),
            compression: ImageCompression::None.name().to_owned(),
            intensity: "voi".to_owned(),
            resize: "shorter".to_owned(),
            size: first.map_or(0, |record| u32::from(record.height.min(record.width))),
            mean: 0.5,
            std: 0.25,
        },
        text: TextSpec {
            report_text: "all".to_owned(),
            max_tokens: 100,
            vocabulary: vocabulary.len(),
            tokenizer_sha256: dataset::store::files::sha256(&folder.join(manifest::TOKENIZER)).expect("a digest"),
        },
        labels: findings,
        grades: grades.to_vec(),
        masks,
        source_digest: manifest::SHA256.to_owned(),
        totals: totals(shards, infos.iter().map(|info| info.bytes).sum()),
        shards: infos,
        rejects: BTreeMap::new(),
        rejects_sha256: String::new(),
    };
    let storage = dataset::Storage::folder(folder);
    manifest.save(&storage).expect("written");
    (manifest.image.mean, manifest.image.std) = moments(folder);
    manifest.save(&storage).expect("written");
}

/// Mean and standard deviation of the first images of a dataset that can be decoded.
fn moments(folder: &Path) -> (f64, f64) {
    const IMAGES: usize = 256;
    let dataset = Dataset::open(folder).expect("a manifest");
    let mut sums = PixelSums::default();
    for image in (0..dataset.len().min(IMAGES)).filter_map(|row| dataset.image(row).ok()) {
        sums.add(PixelSums::of(&image.pixels));
    }
    sums.moments()
}

fn totals(shards: &[Vec<Record>], bytes: u64) -> Totals {
    let all = || shards.iter().flatten();
    let patients: BTreeSet<&str> = all().map(|record| record.patient_id.as_str()).collect();
    let studies: BTreeSet<_> = all().map(|record| (&record.patient_id, &record.study_id)).collect();
    Totals {
        records: all().count() as u64,
        studies: studies.len() as u64,
        patients: patients.len() as u64,
        reports: all().filter(|record| record.report.is_some()).count() as u64,
        bytes,
    }
}

/// The labels of made-up records.
const LABELS: [Option<Label>; 4] = [None, Some(Label::Negative), Some(Label::Positive), Some(Label::Uncertain)];

/// The label codes of a record.
pub fn label_codes(record: &Record) -> Vec<Option<i8>> {
    record.labels.iter().map(|label| label.map(Label::code)).collect()
}

/// The label codes of all records of a dataset.
pub fn dataset_codes(dataset: &Dataset) -> Vec<Vec<Option<i8>>> {
    let codes = |row: Vec<Option<Label>>| row.into_iter().map(|label| label.map(Label::code)).collect();
    dataset.labels().expect("labels").into_iter().map(codes).collect()
}

/// Writes a shard of a dataset again with other columns, and the manifest for it: all checksums are those of the new file. `change`
/// gets all rows in one batch.
pub fn rewrite_shard(folder: &Path, shard: usize, change: impl FnOnce(RecordBatch) -> RecordBatch) {
    let storage = dataset::Storage::folder(folder);
    let manifest = Manifest::load(&storage).expect("a manifest");
    let opened = Shard::open(&storage, &manifest.shards[shard]).expect("a shard");
    let names: Vec<&str> = opened.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let batch = opened.columns(&names).expect("columns").remove(0);
    let schema = Arc::new(opened.schema().clone());
    let batch = change(RecordBatch::try_new(schema, batch.columns().to_vec()).expect("a batch"));
    let path = folder.join(&manifest.shards[shard].path);
    let schema = batch.schema().as_ref().clone();
    let mut writer = ShardWriter::create(&path, schema, compression(&manifest)).expect("a shard");
    writer.write_batch(&batch).expect("written");
    replace(&storage, manifest, shard, writer);
}

/// Changes the records of a shard of a dataset; all checksums are those of the new file.
pub fn rewrite_records(folder: &Path, shard: usize, change: impl FnOnce(&mut Vec<Record>)) {
    let dataset = Dataset::open(folder).expect("a dataset");
    let manifest = dataset.manifest().clone();
    let first: u64 = manifest.shards[..shard].iter().map(|shard| shard.rows).sum();
    let rows = first..first + manifest.shards[shard].rows;
    let mut records: Vec<Record> = rows.map(|row| dataset.record(row as usize).expect("a record")).collect();
    change(&mut records);
    let path = folder.join(&manifest.shards[shard].path);
    let mut writer = ShardWriter::create(&path, manifest.schema(), compression(&manifest)).expect("a shard");
    writer.write(&records).expect("written");
    replace(dataset.storage(), manifest, shard, writer);
}

fn compression(manifest: &Manifest) -> ImageCompression {
    let all = [ImageCompression::None, ImageCompression::Lz4, ImageCompression::Zstd];
    all.into_iter().find(|known| known.name() == manifest.image.compression).expect("a compression")
}

/// Finishes a shard in place of another one.
fn replace(storage: &dataset::Storage, mut manifest: Manifest, shard: usize, writer: ShardWriter) {
    let relative = manifest.shards[shard].path.clone();
    manifest.shards[shard] = writer.finish(Path::new(&relative)).expect("written");
    manifest.totals.bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
    manifest.save(storage).expect("written");
}

/// A batch with another column in place of one.
pub fn with_column(batch: &RecordBatch, name: &str, change: impl FnOnce(&ArrayRef) -> ArrayRef) -> RecordBatch {
    let at = batch.schema().index_of(name).expect("a column");
    let mut columns = batch.columns().to_vec();
    columns[at] = change(&columns[at]);
    RecordBatch::try_new(batch.schema(), columns).expect("a batch")
}

/// A batch in which a column has the values and the type of another one.
pub fn retyped(batch: &RecordBatch, name: &str, other: &str) -> RecordBatch {
    let [at, from] = [name, other].map(|name| batch.schema().index_of(name).expect("a column"));
    let mut schema = batch.schema().as_ref().clone();
    let field = schema.field(from).clone().with_name(name);
    let fields = schema.fields.iter().enumerate();
    schema.fields =
        fields.map(|(own, before)| if own == at { field.clone() } else { before.as_ref().clone() }).collect();
    let mut columns = batch.columns().to_vec();
    columns[at] = columns[from].clone();
    RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
}

/// Writes a shard of a dataset again with another label code, valid or not, in one row.
pub fn set_label_code(folder: &Path, shard: usize, row: usize, finding: usize, code: i8) {
    rewrite_shard(folder, shard, |batch| {
        with_column(&batch, "labels", |labels| {
            let labels = labels.as_any().downcast_ref::<StructArray>().expect("a struct");
            let (fields, mut columns, _) = labels.clone().into_parts();
            let codes = columns[finding].as_any().downcast_ref::<Int8Array>().expect("codes");
            let changed = codes.iter().enumerate().map(|(at, old)| if at == row { Some(code) } else { old });
            columns[finding] = Arc::new(changed.collect::<Int8Array>());
            Arc::new(StructArray::try_new(fields, columns, None).expect("labels"))
        })
    });
}

/// A made-up record; `row` decides its pixels, tokens and labels.
pub fn made_record(row: usize, (width, height): (u16, u16), findings: usize) -> Record {
    let mut random = Stream::new(&[row as u64, 0x5EED]);
    let tokens = 5 + random.below(20);
    Record {
        record_id: format!("made/{row:05}"),
        patient_id: format!("p{}", row / 2),
        study_id: format!("s{row}"),
        image_id: format!("i{row}"),
        source_path: format!("{row}.png"),
        height,
        width,
        source_height: height.into(),
        source_width: width.into(),
        image: (0..usize::from(width) * usize::from(height)).map(|_| random.below(256) as u8).collect(),
        token_ids: std::iter::once(2).chain((1..tokens).map(|_| 4 + random.below(96) as i32)).collect(),
        labels: (0..findings).map(|_| LABELS[random.below(4) as usize]).collect(),
        ..Record::default()
    }
}
