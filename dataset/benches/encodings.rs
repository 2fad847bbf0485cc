//! What each encoding and compression of the images costs:
//! `cargo bench --profile release --workspace --bench encodings -- DATASET`.
//!
//! DATASET was ingested with raw images of 8 or of 16 bits (`ingest --bits 16`); those of 16 bits are written as `raw16` and
//! `png16`. They are written in each way and read back, decoded and as batches of random crops of 448 pixels, on one thread,
//! from the page cache; of several rounds the fastest counts, in seconds of the core, so waiting for a disk is left out. Prints
//! a table in Markdown.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use dataset::format::image_codec::{Gray16Pixels, GrayPixels};
use dataset::format::manifest::shard_path;
use dataset::format::record::{ImageEncoding, Record};
use dataset::format::schema::schema;
use dataset::format::shard::ShardWriter;
use dataset::random::Stream;
use dataset::transform::Transform;
use dataset::transform::window::words;
use dataset::{Dataset, Loader};
use parquet::basic::{Compression, ZstdLevel};

const ROUNDS: usize = 5;

/// Crops of this side in pixels make batches of so many.
const SIZE: u32 = 448;
const BATCH: usize = 64;

/// Seconds that this thread has spent on a core, as Linux counts them.
fn core_seconds() -> f64 {
    let times = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux");
    let nanoseconds = times.split(' ').next().and_then(|time| time.parse::<u64>().ok());
    nanoseconds.expect("a time") as f64 / 1e9
}

/// Seconds of the fastest round.
fn seconds(rounds: usize, mut work: impl FnMut()) -> f64 {
    let rounds = (0..rounds).map(|_| {
        let start = core_seconds();
        work();
        core_seconds() - start
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn main() {
    let Some(source) = std::env::args().skip(1).find(|argument| !argument.starts_with("--")) else {
        println!("give a dataset of raw images");
        return;
    };
    let source = Dataset::open(&source).expect("a dataset");
    let zstd = |level| Compression::ZSTD(ZstdLevel::try_new(level).expect("a level"));
    let (plain, lz4) = (("none", Compression::UNCOMPRESSED), ("lz4", Compression::LZ4_RAW));
    let zstds = [("zstd 1", zstd(1)), ("zstd 3", zstd(3)), ("zstd 9", zstd(9)), ("zstd 19", zstd(19))];
    let raw_ways = [plain, lz4].into_iter().chain(zstds);
    let ways: Vec<(ImageEncoding, (&str, Compression))> = match source.manifest().image.encoding {
        ImageEncoding::Raw => {
            let others = [(ImageEncoding::Png, plain), (ImageEncoding::Jpeg, plain)];
            raw_ways.map(|way| (ImageEncoding::Raw, way)).chain(others).collect()
        }
        ImageEncoding::Raw16 => {
            raw_ways.map(|way| (ImageEncoding::Raw16, way)).chain([(ImageEncoding::Png16, plain)]).collect()
        }
        other => {
            println!("the images of the dataset are {}, not raw", other.name());
            return;
        }
    };
    let records: Vec<Record> = (0..source.len()).map(|row| source.record(row).expect("a record")).collect();
    let raw: usize = records.iter().map(|record| record.image.len()).sum();
    println!("{} images of {:.0} kB raw\n", records.len(), raw as f64 / 1e3 / records.len() as f64);
    println!(
        "| encoding | compression | kB an image | share | write, images/s | read in order | read at random | batches |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for (encoding, (name, compression)) in ways {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("shards")).expect("a folder");
        let mut info = None;
        let written = seconds(1, || info = Some(write(folder.path(), &source, &records, encoding, compression)));
        let info = info.expect("a shard");
        let bytes = info.bytes as f64;
        let mut manifest = source.manifest().clone();
        (manifest.image.encoding, manifest.totals.bytes, manifest.shards) = (encoding, info.bytes, vec![info]);
        manifest.save(&dataset::Storage::folder(folder.path())).expect("saved");

        let dataset = Arc::new(Dataset::open(folder.path()).expect("a dataset"));
        let has_16_bits = encoding.bits() == 16;
        let read = |rows: &[usize]| {
            for &row in rows {
                if has_16_bits {
                    black_box(dataset.image16(row).expect("an image"));
                } else {
                    black_box(dataset.image(row).expect("an image"));
                }
            }
        };
        let mut rows: Vec<usize> = (0..records.len()).collect();
        let ordered = seconds(ROUNDS, || read(&rows));
        Stream::new(&[7]).shuffle(&mut rows);
        let random = seconds(ROUNDS, || read(&rows));
        let loader = Loader::builder(&dataset).transform(Transform::pretrain(SIZE)).batch_size(BATCH.min(rows.len()));
        let batches = loader.random_access().expect("a loader");
        let cropped = seconds(ROUNDS, || {
            (0..batches.batches()).for_each(|number| drop(black_box(batches.batch(0, number).expect("a batch"))));
        });
        let (images, encoding) = (records.len() as f64, encoding.name());
        println!(
            "| {encoding} | {name} | {:.1} | {:.2} | {:.0} | {:.0} | {:.0} | {:.0} |",
            bytes / 1e3 / images,
            bytes / raw as f64,
            images / written,
            images / ordered,
            images / random,
            images / cropped
        );
    }
}

/// Encodes and writes all records as one shard, synced.
fn write(
    folder: &Path,
    source: &Dataset,
    records: &[Record],
    encoding: ImageEncoding,
    compression: Compression,
) -> dataset::format::manifest::ShardInfo {
    let relative = shard_path(0);
    let schema = schema(source.findings(), &source.manifest().grades, encoding);
    let mut writer = ShardWriter::create(&folder.join(&relative), schema, compression).expect("a shard");
    for record in records {
        let (width, height) = (record.width.into(), record.height.into());
        let mut record = record.clone();
        let pixels = record.image;
        record.image = if encoding.bits() == 16 {
            Gray16Pixels { width, height, pixels: words(&pixels).collect() }.encode(encoding)
        } else {
            GrayPixels { width, height, pixels }.encode(encoding)
        }
        .expect("encoded");
        writer.write(std::slice::from_ref(&record)).expect("written");
    }
    writer.finish(&relative).expect("a whole shard")
}
