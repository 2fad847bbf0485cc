//! Damaged and hostile input: mutated real files. No input may cause a panic, end the process, hang, or take more memory than
//! the limits of `ingest::dicom::limits` allow.
//!
//! Each target tries three hundred cases, or as many as `MRM_FUZZ_SECONDS` leaves time for; a failure prints the number of its
//! case, which `MRM_FUZZ_CASE` runs alone. Inputs that failed before are in `tests/corpus/TARGET/NAME[.N]` (NAME is the
//! seed that they came from) and are tried first.

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, BinaryArray, RecordBatch, StringArray};
use dataset::format::byte_column::ByteColumn;
use dataset::format::image_codec::GrayPixels;
use dataset::format::manifest::Manifest;
use dataset::format::record::{ImageEncoding, NamedMask, Record};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use helpers::{args, contents, folder, golden_json, ok, phantom, phantom_of, real_data, tests_folder};
use ingest::dicom::limits::MAX_VALUES;
use ingest::image::intensity::Intensity;
use ingest::image::pipeline;
use ingest::image::pipeline::Scratch;
use ingest::image::resize::Resize;
use ingest::image::store16;
use ingest::report::tokenizer;
use ingest::run::plan::{MaskSource, Source};
use ingest::sources::TableOptions;
use ingest::sources::shared::table;
use ingest::{report, sources};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Memory that one image may take: eight bytes for each value of the largest image.
const IMAGE_BYTES: usize = 8 * MAX_VALUES as usize;
/// Memory that one small text or table may take.
const TEXT: usize = 128 << 20;

/// Counts what is allocated.
struct Counted;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(now, Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;
/// Place of a panic in this project's code, caught or not.
static OWN_PANIC: Mutex<Option<String>> = Mutex::new(None);

fn watch_panics() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let place = panic.location().map_or_else(String::new, ToString::to_string);
            let of_others = place.contains("/registry/") || place.contains("/rustc/");
            if place.contains("tests/data/") || place.contains("tests/helpers/") {
                usual(panic);
            } else if !of_others {
                *OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic.to_string());
            }
        }));
    });
}

/// What a target tries: the name of the seed, the bytes made of it, and a folder to work in.
type Try<'a> = &'a dyn Fn(&Path, &str, &[u8]);

/// Runs one input, and returns the memory that it took in addition.
fn measured(work: impl FnOnce()) -> usize {
    let before = NOW.load(Relaxed);
    PEAK.store(before, Relaxed);
    work();
    let own = OWN_PANIC.lock().unwrap_or_else(PoisonError::into_inner).take();
    assert!(own.is_none(), "{}", own.unwrap_or_default());
    PEAK.load(Relaxed).saturating_sub(before)
}

/// Prints the number of the failed case, and keeps its input.
struct Case<'a> {
    target: &'a str,
    number: String,
    seed: &'a str,
    input: &'a [u8],
}

impl Drop for Case<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { target, number, seed, input } = self;
            let name = format!("{}-{target}-{number}-{seed}", std::process::id()).replace('/', "_");
            let kept = std::env::temp_dir().join(name);
            let printed = match fs::write(&kept, input) {
                Ok(()) => format!("its input is {}", kept.display()),
                Err(error) => format!("its input could not be kept: {error}"),
            };
            eprintln!("{target}: MRM_FUZZ_CASE={number} ({seed}) failed; {printed}");
        }
    }
}

/// Mutations of each target, unless `MRM_FUZZ_SECONDS` is set.
const CASES: u64 = 300;
/// One target at a time: memory is counted for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn mutate_and_try(target: &str, seeds: &[(String, Vec<u8>)], place: &Path, limit: usize, attempt: Try<'_>) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let one = |number: String, seed: &str, input: &[u8]| {
        let case = Case { target, number, seed, input };
        let started = Instant::now();
        let peak = measured(|| attempt(place, seed, input));
        assert!(peak <= limit, "{} MiB for an input of {} bytes", peak >> 20, input.len());
        assert!(started.elapsed() < Duration::from_mins(1), "{:?}", started.elapsed());
        drop(case);
    };
    for (name, seed) in seeds {
        one("unchanged".to_owned(), name, seed);
    }
    let corpus = tests_folder().join("corpus").join(target);
    if corpus.is_dir() {
        for (name, input) in contents(&corpus) {
            let seed = seeds.iter().map(|(seed, _)| seed).filter(|seed| name.starts_with(seed.as_str()));
            one(format!("corpus/{name}"), seed.max_by_key(|seed| seed.len()).unwrap_or(&name), &input);
        }
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    if let Some(case) = number("MRM_FUZZ_CASE") {
        let (seed, input) = mutated(seeds, case);
        return one(case.to_string(), seed, &input);
    }
    // The number of cases is fixed, so that the result does not depend on the speed of the machine.
    let (most, seconds) = number("MRM_FUZZ_SECONDS").map_or((CASES, 600), |seconds| (u64::MAX, seconds));
    // Resets the largest resident size.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let resident = |field: &str| -> usize {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let kilobytes =
            status.lines().find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok());
        kilobytes.unwrap_or(0) << 10
    };
    let before = resident("VmRSS:");
    let started = Instant::now();
    // Written for a crash that ends the process.
    let mut trace = (most > CASES).then(|| {
        let path = std::env::temp_dir().join(format!("{}-{target}.case", std::process::id()));
        fs::File::create(path).expect("a trace")
    });
    let mut cases = 0;
    while cases < most && started.elapsed() < Duration::from_secs(seconds) {
        if let Some(trace) = &mut trace {
            writeln!(trace, "{cases}").expect("a trace");
        }
        let (seed, input) = mutated(seeds, cases);
        one(cases.to_string(), seed, &input);
        cases += 1;
    }
    // Includes the memory that decoders take from C's allocator.
    let grown = resident("VmHWM:").saturating_sub(before);
    eprintln!("{target}: {cases} cases, {} MiB resident at most", grown >> 20);
    assert!(grown < limit + (256 << 20), "{} MiB resident", grown >> 20);
    assert!(cases > 0);
}

/// The input of a case: a seed with one to four changes.
fn mutated(seeds: &[(String, Vec<u8>)], case: u64) -> (&str, Vec<u8>) {
    let mut random = ChaCha8Rng::seed_from_u64(case);
    let (name, seed) = seeds.choose(&mut random).expect("seeds");
    let mut bytes = seed.clone();
    for _ in 0..random.random_range(1..=4) {
        if bytes.is_empty() {
            bytes.push(random.random());
        }
        // Headers come first, and are changed more often than pixels.
        let reach = if random.random_bool(0.6) { bytes.len().min(2048) } else { bytes.len() };
        let at = random.random_range(0..reach);
        let to = (at + 1 + (random.random_range(0.0..1.0f64).powi(4) * 4096.0) as usize).min(bytes.len());
        match random.random_range(0..9) {
            0 => bytes[at] ^= 1 << random.random_range(0..8),
            1 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff, b',', b'"', b'\n', b':'].choose(&mut random).expect("bytes"),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..to)),
            4 => {
                let again = bytes[at..to].to_vec();
                bytes.splice(at..at, again);
            }
            5 => {
                let run = vec![random.random(); to - at];
                bytes.splice(at..at, run);
            }
            // A length or a size with an extreme value.
            6 => {
                let value = *[0u32, 1, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_fff0, 0xffff_ffff]
                    .choose(&mut random)
                    .expect("a value");
                let wide: &[u8] = match random.random_range(0..3) {
                    0 => &value.to_le_bytes(),
                    1 => &value.to_be_bytes(),
                    _ => &(value as u16).to_le_bytes(),
                };
                let end = (at + wide.len()).min(bytes.len());
                bytes[at..end].copy_from_slice(&wide[..end - at]);
            }
            // The rest of another seed.
            7 => {
                let (_, other) = seeds.choose(&mut random).expect("seeds");
                bytes.truncate(at);
                let from = random.random_range(0..=other.len().min(at + 64));
                bytes.extend_from_slice(&other[from..]);
            }
            _ => bytes[at..to].iter_mut().for_each(|byte| *byte = random.random()),
        }
    }
    (name, bytes)
}

fn named(contents: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    contents.into_iter().map(|(name, bytes)| (name.rsplit('/').next().unwrap_or(&name).to_owned(), bytes)).collect()
}

/// Small synthetic DICOM files, and all real ones.
fn dicom_files(temporary: &Path) -> Vec<(String, Vec<u8>)> {
    let dicom = |(name, _): &(String, Vec<u8>)| name.ends_with(".dcm");
    let mut files = named(contents(&phantom(temporary, 3)).into_iter().filter(dicom));
    if let Some(data) = real_data() {
        files.extend(named(contents(&data.join("dicom")).into_iter().filter(dicom)));
    }
    files
}

fn decode(bytes: &[u8]) -> Result<dataset::format::image_codec::GrayPixels, String> {
    let intensity = [Intensity::Voi, Intensity::Minmax, Intensity::MimicCxrJpg][bytes.len() % 3];
    let gray = pipeline::decode(bytes, intensity)?;
    assert_eq!(gray.pixels.len(), gray.width as usize * gray.height as usize);
    Ok(gray)
}

fn images(_: &Path, _: &str, bytes: &[u8]) {
    if let Ok(gray) = decode(bytes) {
        let resize = [Resize::Shorter, Resize::Pad, Resize::Stretch][bytes.len() % 3];
        let stored = pipeline::store(bytes, Intensity::Voi, 64, resize, &mut Scratch::default()).expect("it decodes");
        assert_eq!(stored.source, (gray.width, gray.height));
    }
    let deep = store16::store(bytes, Intensity::Voi, 64, Resize::Shorter, &mut Scratch::default());
    if let Some(deep) = deep.ok().and_then(|stored| stored.deep) {
        let pixels = deep.pixels.width as usize * deep.pixels.height as usize;
        assert!(deep.pixels.pixels.len() == pixels && deep.window[0].is_finite() && deep.window[1] >= 1.0);
    }
    // Files of classes that are no radiographs as well.
    if let Ok(dicom) = ingest::dicom::read(bytes) {
        let mut gray = Vec::new();
        ingest::image::intensity::to_gray(&dicom, Intensity::Voi, &mut gray);
        assert_eq!(gray.len(), dicom.width as usize * dicom.height as usize);
    }
}

fn reports(_: &Path, _: &str, bytes: &[u8]) {
    let text = table::decode_text(bytes.to_vec());
    report::sections(&text);
    report::main_sections(&text);
    report::normalize_heading(&text);
}

fn tokenizers(place: &Path, _: &str, bytes: &[u8]) {
    let path = place.join("tokenizer.json");
    fs::write(&path, bytes).expect("written");
    if let Ok(tokenizer) = tokenizer::load(&path) {
        let printed =
            tokenizer::token_ids(&tokenizer, "The lungs are clear; no ___ effusion, heart is énlarged (12.5 cm).", 48);
        assert!(printed.is_err() || printed.is_ok_and(|ids| ids.len() <= 48));
    }
}

/// Plans a raw directory of which one table is replaced.
fn plans(source: &dyn Source, raw: &Path, name: &str, bytes: &[u8]) {
    let path = raw.join(name);
    let before = fs::read(&path).ok();
    fs::write(&path, bytes).expect("written");
    if let Ok(plan) = source.plan(raw) {
        assert!(plan.records.is_sorted_by(|a, b| a.record_id < b.record_id));
        assert!(plan.records.iter().all(|record| record.labels.len() == plan.findings.len()));
        assert!(plan.check().is_ok());
        for mask in plan.records.iter().flat_map(|record| &record.masks) {
            if let MaskSource::Runs(runs) = &mask.pixels {
                let drawn = runs.draw(64, 48);
                assert!(drawn.is_err() || drawn.is_ok_and(|mask| mask.len() == 64 * 48));
            }
        }
        plan.sha256();
    }
    match before {
        Some(before) => fs::write(&path, before).expect("written"),
        None => fs::remove_file(&path).expect("removed"),
    }
}

/// The tables, XML and JSON files and readings of a raw directory; gzipped tables also plain.
fn tables(raw: &Path) -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (name, bytes) in contents(raw) {
        if let Some(plain) = name.strip_suffix(".gz").filter(|name| name.ends_with(".csv")) {
            let mut text = Vec::new();
            std::io::copy(&mut flate2::read::GzDecoder::new(bytes.as_slice()), &mut text).expect("gzip");
            fs::remove_file(raw.join(&name)).expect("removed");
            fs::write(raw.join(plain), &text).expect("written");
            seeds.push((plain.to_owned(), text));
            seeds.push((name, bytes));
        } else if [".csv", "_list.txt", "_0.txt", "_1.txt", "_position.json", "0819.json", ".xml"]
            .iter()
            .any(|ending| name.ends_with(ending))
        {
            seeds.push((name, bytes));
        }
    }
    seeds
}

#[test]
fn dicom() {
    let temporary = folder();
    mutate_and_try("dicom", &dicom_files(temporary.path()), temporary.path(), IMAGE_BYTES, &images);
}

#[test]
fn rasters() {
    let temporary = folder();
    let gray = dataset::format::image_codec::GrayPixels {
        width: 40,
        height: 30,
        pixels: (0..1200).map(|at| (at % 251) as u8).collect(),
    };
    let encoded = |encoding| gray.clone().encode(encoding).expect("an image");
    let mut seeds = vec![
        ("gray.png".to_owned(), encoded(dataset::format::record::ImageEncoding::Png)),
        ("gray.jpg".to_owned(), encoded(dataset::format::record::ImageEncoding::Jpeg)),
    ];
    if let Some(data) = real_data() {
        let mut real = named(contents(&data.join("covid-chestxray/images")));
        real.sort_by_key(|(_, bytes)| bytes.len());
        real.truncate(20);
        seeds.extend(real);
        seeds.extend(named(contents(&data.join("nih-sample")).into_iter().filter(|(name, _)| name.ends_with(".png"))));
    }
    mutate_and_try("rasters", &seeds, temporary.path(), IMAGE_BYTES, &images);
}

/// Shards, verified and read without. Half of the seeds have their bytes reversed, since a footer comes last.
#[test]
fn shards() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let mut seeds = Vec::new();
    for (name, more) in [
        ("raw", &["--image-encoding", "raw"]),
        ("png", &["--image-encoding", "png"]),
        ("lz4", &["--compression", "lz4"]),
        ("zstd", &["--compression", "zstd"]),
    ] {
        let out = temporary.path().join(name);
        let small = args!["mimic-cxr", &raw, &out, "--size", "24", "--vocab-size", "400"];
        ok("ingest", small.into_iter().chain(more.map(Into::into)));
        // Checksums would reject the damaged bytes before the code under test.
        let storage = dataset::Storage::folder(&out);
        let mut manifest = dataset::format::manifest::Manifest::load(&storage).expect("a manifest");
        manifest.shards.iter_mut().for_each(|shard| shard.footer = None);
        manifest.save(&storage).expect("saved");
        let shard = fs::read(out.join("shards/part-00000.parquet")).expect("a shard");
        seeds.push((format!("{name}.reversed"), shard.iter().rev().copied().collect()));
        seeds.push((name.to_owned(), shard));
    }
    let attempt = |place: &Path, seed: &str, bytes: &[u8]| {
        let name = seed.trim_end_matches(".reversed");
        let mut shard = bytes.to_vec();
        if name != seed {
            shard.reverse();
        }
        let out = place.join(name);
        fs::write(out.join("shards/part-00000.parquet"), &shard).expect("written");
        let problems = dataset::commands::verify::verify(&out, &|_| Ok(())).expect("a manifest");
        let is_whole = seeds.iter().any(|(other, whole)| other == name && *whole == shard);
        assert_eq!(problems.is_empty(), is_whole, "{problems:?}");
        let dataset = dataset::Dataset::open(&out).expect("a manifest").without_checksums();
        for row in 0..dataset.len() {
            let _ = (dataset.record(row), dataset.image(row));
        }
        let _ = dataset.columns(&["image"]);
        let _ = dataset.metadata();
    };
    mutate_and_try("shards", &seeds, temporary.path(), IMAGE_BYTES, &attempt);
}

#[test]
fn report_texts() {
    let temporary = folder();
    let texts = contents(&phantom(temporary.path(), 20)).into_iter().filter(|(name, _)| name.ends_with(".txt"));
    let mut seeds = named(texts);
    let golden = golden_json("report_sections.json");
    let mut wait = vec![&golden];
    // Every longer text of the golden file.
    while let Some(value) = wait.pop() {
        match value {
            serde_json::Value::String(text) if text.len() > 200 && seeds.len() < 200 => {
                seeds.push((format!("golden-{}", seeds.len()), text.clone().into_bytes()));
            }
            serde_json::Value::Array(values) => wait.extend(values),
            serde_json::Value::Object(values) => wait.extend(values.values()),
            _ => {}
        }
    }
    mutate_and_try("report_texts", &seeds, temporary.path(), TEXT, &reports);
}

#[test]
fn tokenizer_files() {
    let temporary = folder();
    let texts: Vec<String> =
        (0..50).map(|i| format!("Small left pleural effusion, {i} cm. No pneumothorax.")).collect();
    let trained = tokenizer::train(&texts, 120).expect("trained").to_string(true).expect("JSON");
    // A large vocabulary is slow to read, so the real file alternates with small ones.
    let mut seeds: Vec<_> = (0..20).map(|i| (format!("trained-{i}"), trained.clone().into_bytes())).collect();
    if let Some(data) = real_data() {
        seeds.push(("real".to_owned(), fs::read(data.join("mimic_wordpiece.json")).expect("a tokenizer")));
    }
    mutate_and_try("tokenizer_files", &seeds, temporary.path(), TEXT, &tokenizers);
}

/// Mutates the tables (and XML files) of a source's raw directory, one at a time, and plans it.
fn source_tables(layout: &str, source: &dyn Source) {
    let temporary = folder();
    let raw = phantom_of(layout, temporary.path(), 6);
    mutate_and_try(&format!("{layout}_tables"), &tables(&raw), &raw, TEXT, &|raw, name, bytes| {
        plans(source, raw, name, bytes);
    });
}

#[test]
fn mimic_cxr_tables() {
    source_tables("mimic-cxr", &sources::MimicCxr::default());
}

#[test]
fn chexpert_tables() {
    source_tables("chexpert", &sources::Chexpert::default());
}

#[test]
fn nih_tables() {
    source_tables("nih", &sources::Nih { no_images: false });
}

#[test]
fn covid_tables() {
    source_tables("covid", &sources::Covid { no_images: false });
}

#[test]
fn rsna_tables() {
    source_tables("rsna", &sources::Rsna);
}

/// The run lengths of the masks are drawn too.
#[test]
fn siim_tables() {
    source_tables("siim", &sources::Siim);
}

/// Labels and boxes of readers.
#[test]
fn vindr_tables() {
    source_tables("vindr-cxr", &sources::VindrCxr::default());
}

/// List literals.
#[test]
fn padchest_tables() {
    source_tables("padchest", &sources::Padchest { no_images: false, min_label_count: 2 });
}

/// JSON and a table.
#[test]
fn padchest_gr_tables() {
    source_tables("padchest-gr", &sources::PadchestGr::default());
}

/// JSON.
#[test]
fn rexgradient_tables() {
    source_tables("rexgradient", &sources::Rexgradient::default());
}

#[test]
fn taix_ray_tables() {
    source_tables("taix-ray", &sources::TaixRay { no_images: false, fold: 0, threshold: 1 });
}

/// The run lengths of the masks are drawn too.
#[test]
fn candid_ptx_tables() {
    source_tables("candid-ptx", &sources::CandidPtx::default());
}

/// Literals of dictionaries.
#[test]
fn siim_covid_tables() {
    source_tables("siim-covid", &sources::SiimCovid);
}

/// Readings.
#[test]
fn nlm_tb_readings() {
    source_tables("nlm-tb", &sources::NlmTb::default());
}

/// XML reports.
#[test]
fn openi_reports() {
    source_tables("openi", &sources::OpenI { reports_alone: false });
}

#[test]
fn folder_tables() {
    let column = |name: &str| Some(name.to_owned());
    let source = |raw: &Path| {
        let table = TableOptions {
            table: raw.join("films.csv"),
            image_column: "file".to_owned(),
            report_column: column("report"),
            patient_column: column("patient"),
            study_column: column("study"),
            view_column: column("view"),
            subset_column: column("subset"),
            label_columns: vec!["Edema".to_owned()],
            class_columns: vec!["Pneumonia".to_owned()],
            ..TableOptions::default()
        };
        sources::Folder { table: Some(table), ..sources::Folder::default() }
    };
    let temporary = folder();
    let raw = phantom_of("folder", temporary.path(), 6);
    mutate_and_try("folder_tables", &tables(&raw), &raw, TEXT, &|raw, name, bytes| {
        plans(&source(raw), raw, name, bytes);
    });
}

/// Parquet files with images, in pages of both kinds.
#[test]
fn image_tables() {
    let temporary = folder();
    let radiographs = contents(&phantom_of("taix-ray", temporary.path(), 5));
    let images: Vec<&[u8]> =
        radiographs.iter().filter(|(name, _)| name.ends_with(".png")).map(|(_, bytes)| bytes.as_slice()).collect();
    let column: ArrayRef = Arc::new(images.iter().map(|bytes| Some(*bytes)).chain([None]).collect::<BinaryArray>());
    let names: ArrayRef = Arc::new((0..=images.len()).map(|number| Some(number.to_string())).collect::<StringArray>());
    let batch =
        RecordBatch::try_from_iter_with_nullable([("id", names, true), ("image", column, true)]).expect("a batch");
    let seeds = [(true, Compression::SNAPPY), (false, Compression::UNCOMPRESSED)].map(|(dictionary, compression)| {
        let properties = WriterProperties::builder().set_compression(compression).set_dictionary_enabled(dictionary);
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties.build())).expect("a table");
        writer.write(&batch).expect("written");
        (format!("{compression}.parquet"), writer.into_inner().expect("a table"))
    });
    mutate_and_try("image_tables", &seeds, temporary.path(), TEXT, &|place, name, bytes| {
        let path = place.join(name);
        fs::write(&path, bytes).expect("written");
        let table = TableOptions { table: path.clone(), image_column: "image".to_owned(), ..TableOptions::default() };
        let source = sources::Folder { table: Some(table), ..sources::Folder::default() };
        let _ = source.plan(place);
        let read = || -> std::io::Result<()> {
            let column = ByteColumn::open(&path, "image")?;
            for row in 0..column.rows().min(20) {
                if let Ok(place) = column.place(row) {
                    let _ = column.read(place).map(|values| values.get(row).map(<[u8]>::len));
                    let _ = column.read_again(place, row);
                }
            }
            Ok(())
        };
        // The library may panic; who reads files catches that.
        let _ = std::panic::catch_unwind(read);
    });
}

/// A small file that claims a large size must be refused before memory is allocated.
fn refused(name: &str, bytes: &[u8], words: &str, limit: usize) {
    let mut printed = None;
    let raster = bytes.starts_with(&[0xff, 0xd8]) || bytes.starts_with(b"\x89PNG");
    let peak = measured(|| printed = if raster { decode(bytes).err() } else { ingest::dicom::read(bytes).err() });
    let printed = printed.unwrap_or_else(|| panic!("{name} is believed"));
    assert!(printed.contains(words), "{name}: {printed}");
    assert!(peak <= limit, "{name}: {} MiB", peak >> 20);
}

/// Writes bytes `offset` behind the first place of `mark`.
#[track_caller]
fn patch(bytes: &mut [u8], mark: &[u8], offset: usize, patch: &[u8]) {
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the mark") + offset;
    bytes[at..at + patch.len()].copy_from_slice(patch);
}

#[test]
fn sizes_in_headers_are_checked_before_memory_is_allocated() {
    const SMALL: usize = 32 << 20;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let temporary = folder();
    let radiographs = contents(&phantom(temporary.path(), 1));
    let is_explicit = |bytes: &[u8]| bytes.windows(20).any(|window| window == b"1.2.840.10008.1.2.1\0");
    let (name, radiograph) = radiographs
        .iter()
        .find(|(name, bytes)| name.ends_with(".dcm") && is_explicit(bytes))
        .expect("an explicit radiograph");
    let path = temporary.path().join("mimic-cxr").join(name);
    let write = |object: &dicom_object::DefaultDicomObject| {
        let mut bytes = Vec::new();
        object.write_all(&mut bytes).expect("written");
        bytes
    };
    let huge = |path: &Path| {
        let mut object = dicom_object::open_file(path).expect("a DICOM file");
        for tag in [tags::ROWS, tags::COLUMNS] {
            object.put(DataElement::new(tag, VR::US, PrimitiveValue::from(60_000u16)));
        }
        write(&object)
    };
    refused("native", &huge(&path), "60000×60000 pixels: more than a radiograph has", SMALL);

    // A length field, in the data set and in the meta group.
    let mut long = radiograph.clone();
    patch(&mut long, &[0x28, 0x00, 0x10, 0x00], 0, &[0x28, 0x00, 0x10, 0x00, b'U', b'N', 0, 0, 0xf0, 0xff, 0xff, 0x7f]);
    refused("long value", &long, "claims more bytes than the file holds", SMALL);
    let mut long = radiograph.clone();
    patch(&mut long, &[0x02, 0x00, 0x01, 0x00, b'O', b'B'], 8, &[0xf0, 0xff, 0xff, 0x7f]);
    refused("long value in the meta group", &long, "claims more bytes than the file holds", SMALL);

    // Sequences within sequences, each of undefined length.
    let group = u32::from_le_bytes([radiograph[140], radiograph[141], radiograph[142], radiograph[143]]) as usize;
    let mut deep = radiograph[..144 + group].to_vec();
    for _ in 0..200_000 {
        deep.extend([0x08, 0x00, 0x40, 0x11, b'S', b'Q', 0, 0, 0xff, 0xff, 0xff, 0xff]);
        deep.extend([0xfe, 0xff, 0x00, 0xe0, 0xff, 0xff, 0xff, 0xff]);
    }
    refused("nested sequences", &deep, "levels of sequences", SMALL);

    // A deflated data set that inflates to 260 MiB.
    let mut deflated = radiograph[..144 + group].to_vec();
    let at = deflated.windows(20).position(|w| w == b"1.2.840.10008.1.2.1\0").expect("a syntax");
    deflated.splice(at - 2..at + 20, [22u8, 0].into_iter().chain(*b"1.2.840.10008.1.2.1.99"));
    deflated[140..144].copy_from_slice(&(group as u32 + 2).to_le_bytes());
    let mut encoder = flate2::write::DeflateEncoder::new(deflated, flate2::Compression::fast());
    encoder.write_all(&[0x09, 0x00, 0x10, 0x10, b'O', b'B', 0, 0, 0, 0, 0, 0x20]).expect("deflated");
    for _ in 0..260 {
        encoder.write_all(&vec![0; 1 << 20]).expect("deflated");
    }
    let bomb = encoder.finish().expect("deflated");
    refused("deflated", &bomb, "the deflated data set is larger than 256 MiB", 1 << 30);

    // Rasters.
    let gray = dataset::format::image_codec::GrayPixels { width: 40, height: 30, pixels: vec![7; 1200] };
    let mut png = gray.clone().encode(dataset::format::record::ImageEncoding::Png).expect("a PNG");
    let side = 60_000u32.to_be_bytes();
    png[16..20].copy_from_slice(&side);
    png[20..24].copy_from_slice(&side);
    let mut check = flate2::Crc::new();
    check.update(&png[12..29]);
    png[29..33].copy_from_slice(&check.sum().to_be_bytes());
    refused("PNG", &png, "60000×60000 pixels: more than a radiograph has", SMALL);
    let side = 60_000u16.to_be_bytes();
    let mut jpeg = gray.encode(dataset::format::record::ImageEncoding::Jpeg).expect("a JPEG");
    patch(&mut jpeg, &[0xff, 0xc0], 5, &[side, side].concat());
    refused("JPEG", &jpeg, "60000×60000 pixels: more than a radiograph has", SMALL);

    // Compressed pixels with another size than the header states.
    let Some(data) = real_data() else { return };
    let real = |name: &str| data.join("dicom").join(name);
    refused("RLE", &huge(&real("MR_small_RLE.dcm")), "60000×60000 pixels: more than a radiograph has", SMALL);
    for (name, mark, offset, claim) in [
        ("SC_rgb_small_odd_jpeg.dcm", &[0xff, 0xc0][..], 5, [side, side].concat()),
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", &[0xff, 0xc3], 5, [side, side].concat()),
        ("NM1_JPLY.dcm", &[0xff, 0xc1], 5, [side, side].concat()),
        ("JPEG2000.dcm", &[0xff, 0x4f, 0xff, 0x51], 8, [60_000u32.to_be_bytes(); 2].concat()),
        ("HTJ2K_08_RGB.dcm", &[0xff, 0x4f, 0xff, 0x51], 8, [60_000u32.to_be_bytes(); 2].concat()),
    ] {
        let mut bytes = fs::read(real(name)).expect("a file");
        patch(&mut bytes, mark, offset, &claim);
        refused(name, &bytes, "the compressed pixels are 60000×60000", SMALL);
    }
    // An RLE header that counts four billion segments.
    let mut segments = fs::read(real("MR_small_RLE.dcm")).expect("a file");
    let count = [&2u32.to_le_bytes()[..], &64u32.to_le_bytes()].concat();
    patch(&mut segments, &count, 0, &[0xff, 0xff, 0xff, 0xff]);
    refused("segments", &segments, "4294967295 segments", SMALL);
    let mut tiles = fs::read(real("JPEG2000.dcm")).expect("a file");
    patch(&mut tiles, &[0xff, 0x4f, 0xff, 0x51], 24, &[1u32.to_be_bytes(); 2].concat());
    refused("tiles", &tiles, "tiles: more than a radiograph may have", SMALL);
}

#[test]
fn a_table_that_unpacks_to_too_many_bytes_is_refused() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let temporary = folder();
    let path = temporary.path().join("metadata.csv.gz");
    let gzip = |line: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(b"Path,Sex\n").expect("gzip");
        let block = line.repeat((1 << 20) / line.len());
        for _ in 0..32 {
            encoder.write_all(&block).expect("gzip");
        }
        encoder.finish().expect("gzip")
    };
    for (line, words) in
        [(&b"a,\n"[..], "larger than a table may be"), (b"a\n", "rows differ"), (b"x", "a row is longer than 8 MiB")]
    {
        fs::write(&path, gzip(line)).expect("written");
        let mut printed = String::new();
        let peak = measured(|| {
            printed = table::Table::read(temporary.path(), &path, &["Path"]).err().expect("refused").to_string();
        });
        assert!(printed.contains(words), "{printed}");
        assert!(peak < 2 << 30, "{} MiB", peak >> 20);
    }
}

/// Images, masks and pages of a dataset that claim to be larger than its columns say: `verify`, a record and a loader refuse them
/// with shard and row, before memory is allocated for them.
#[test]
fn sizes_in_shards_are_checked_before_memory_is_allocated() {
    const SMALL: usize = 96 << 20;
    const SIDE: u32 = 16_000;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    watch_panics();
    let temporary = folder();
    let gray = || GrayPixels { width: 10, height: 14, pixels: vec![7; 140] };
    // A PNG with another size in its header.
    let enlarged = |mut png: Vec<u8>| {
        png[16..20].copy_from_slice(&SIDE.to_be_bytes());
        png[20..24].copy_from_slice(&SIDE.to_be_bytes());
        let mut check = flate2::Crc::new();
        check.update(&png[12..29]);
        png[29..33].copy_from_slice(&check.sum().to_be_bytes());
        png
    };
    let mut jpeg = gray().encode(ImageEncoding::Jpeg).expect("a JPEG");
    patch(&mut jpeg, &[0xff, 0xc0], 5, &[(SIDE as u16).to_be_bytes(); 2].concat());
    let mut mask = Vec::new();
    let mut encoder = png::Encoder::new(&mut mask, 10, 14);
    encoder.set_depth(png::BitDepth::One);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&[0; 28])).expect("a PNG");
    let mask = vec![NamedMask { name: "mask".to_owned(), png: enlarged(mask) }];
    let png = enlarged(gray().encode(ImageEncoding::Png).expect("a PNG"));
    let claimed = "image of 16000×16000, its columns say 14×10";
    let cases: [(&str, ImageEncoding, &str, Record); 5] = [
        ("png", ImageEncoding::Png, claimed, Record { image: png, ..Record::default() }),
        ("jpeg", ImageEncoding::Jpeg, claimed, Record { image: jpeg, ..Record::default() }),
        (
            "mask",
            ImageEncoding::Raw,
            "its mask has another size (16000 × 16000)",
            Record { image: vec![7; 140], masks: mask, ..Record::default() },
        ),
        // Pages that are a few kilobytes before they are decompressed.
        (
            "pixels",
            ImageEncoding::Raw,
            "states 256000004 bytes after decompression, not 144 at most",
            Record { image: vec![7; 256_000_000], ..Record::default() },
        ),
        (
            "report",
            ImageEncoding::Raw,
            "bytes after decompression, more than the 268435456 allowed",
            Record { image: vec![7; 140], report: Some("a".repeat(280_000_000)), ..Record::default() },
        ),
    ];
    for (name, encoding, expected, hostile) in cases {
        let out = temporary.path().join(name);
        let mut made = helpers::made_record(0, (10, 14), 1);
        if encoding != ImageEncoding::Raw {
            made.image = gray().encode(encoding).expect("encoded");
        }
        let hostile = Record { record_id: "made/1".to_owned(), source_height: 14, source_width: 10, ..hostile };
        let hostile = Record { height: 14, width: 10, labels: vec![None], ..hostile };
        helpers::write_dataset(&out, &["A"], encoding, &[vec![made]]);
        let storage = dataset::Storage::folder(&out);
        let mut manifest = Manifest::load(&storage).expect("a manifest");
        manifest.image.compression = "zstd".to_owned();
        manifest.masks = vec!["mask".to_owned()];
        manifest.save(&storage).expect("saved");
        helpers::rewrite_records(&out, 0, |records| records.push(hostile));
        let mut manifest = Manifest::load(&storage).expect("a manifest");
        (manifest.shards[0].rows, manifest.totals.records) = (2, 2);
        manifest.save(&storage).expect("saved");
        assert!(fs::metadata(out.join("shards/part-00000.parquet")).expect("a shard").len() < 1 << 20, "{name}");
        let row = if name == "report" { "rows 0 to 1: `report` cannot be decoded" } else { "row 1: " };
        let check = |what: &str, printed: &str, peak: usize| {
            let is_named = printed.contains("shards/part-00000.parquet") && printed.contains(row);
            assert!(is_named && printed.contains(expected), "{name}, {what}: {printed}");
            assert!(peak <= SMALL, "{name}, {what}: {} MiB", peak >> 20);
        };
        let mut printed = String::new();
        let peak = measured(|| {
            printed = dataset::commands::verify::verify(&out, &|_| Ok(())).expect("a manifest").concat();
        });
        check("verify", &printed, peak);
        let peak = measured(|| {
            let dataset = Arc::new(dataset::Dataset::open(&out).expect("a manifest"));
            let loader = dataset::Loader::builder(&dataset).masks(true).batch_size(2).threads(1);
            let loader = loader.transform(dataset::transform::Transform::evaluate(16));
            let made = loader.build().expect("a loader").next_batch();
            printed = made.err().map_or_else(|| "a batch".to_owned(), |error| error.to_string());
            if name == "report" {
                assert_eq!(printed, "a batch", "a loader reads no reports");
                printed = dataset.record(0).expect_err("refused").to_string();
            }
        });
        check("loader", &printed, peak);
    }
}

/// The JSON files and tables beside the shards: a split and a join are refused or as they were.
#[test]
fn manifests_and_splits() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let out = temporary.path().join("set");
    ok("ingest", args!["mimic-cxr", &raw, &out, "--size", "24", "--vocab-size", "400"]);
    ok("dataset", args!["split", &out, "--name", "main"]);
    let table = temporary.path().join("hernia.csv");
    let rows: String = helpers::records(&out).iter().map(|record| format!("{},1\n", record.image_id)).collect();
    fs::write(&table, format!("id,Hernia\n{rows}")).expect("written");
    ok("ingest", args!["join", &out, "--table", &table, "--key", "id", "--as", "labels"]);
    let names = [
        "dataset.json",
        "splits/main.json",
        "splits/main.parquet",
        "joins/hernia.parquet",
        "tokenizer.json",
        "rejects.parquet",
    ];
    let seeds = names.map(|name| (name.to_owned(), fs::read(out.join(name)).expect("a file")));
    let attempt = |out: &Path, name: &str, bytes: &[u8]| {
        fs::write(out.join(name), bytes).expect("written");
        if let Ok(dataset) = dataset::Dataset::open(out) {
            let dataset = Arc::new(dataset);
            let _ = dataset::commands::verify::verify(out, &|_| Ok(()));
            if let Ok(split) = dataset::Split::load(&dataset, "main") {
                assert!(split.members.len() == dataset.len());
                let loader = dataset::Loader::builder(&dataset).rows(split.rows(dataset::Subset::Train, None));
                let _ = loader.batch_size(2).threads(1).build().map(|mut loader| loader.next_batch().map(drop));
            }
            let _ = dataset.tokenizer();
            let _ = dataset.joined(&["hernia"]).map(|seen| seen.labels());
        }
        let (_, whole) = seeds.iter().find(|(seed, _)| seed == name).expect("a seed");
        fs::write(out.join(name), whole).expect("written");
    };
    mutate_and_try("manifests_and_splits", &seeds, &out, TEXT, &attempt);
}
