//! What each encoding and compression of the images costs:
//! `cargo bench --profile release --workspace --bench encodings -- DATASET`.
//!
//! DATASET was ingested with raw images. They are written in each way and read back decoded, on one thread, from
//! the page cache; of several rounds the fastest counts, in seconds of the core, so waiting for a disk is left out. Prints
//! a table in Markdown.

use std::hint::black_box;
use std::path::Path;

use dataset::Dataset;
use dataset::format::image_codec::GrayPixels;
use dataset::format::manifest::shard_path;
use dataset::format::record::{ImageEncoding, Record};
use dataset::format::schema::schema;
use dataset::format::shard::ShardWriter;
use dataset::random::Stream;
use parquet::basic::{Compression, ZstdLevel};

const ROUNDS: usize = 5;

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
    assert_eq!(source.manifest().image.encoding, ImageEncoding::Raw, "the images of the dataset are raw");
    let records: Vec<Record> = (0..source.len()).map(|row| source.record(row).expect("a record")).collect();
    let raw: usize = records.iter().map(|record| record.image.len()).sum();
    println!("{} images of {:.0} kB raw\n", records.len(), raw as f64 / 1e3 / records.len() as f64);
    println!("| encoding | compression | kB an image | share | write, images/s | read in order | read at random |");
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let zstd = |level| Compression::ZSTD(ZstdLevel::try_new(level).expect("a level"));
    for (encoding, name, compression) in [
        (ImageEncoding::Raw, "none", Compression::UNCOMPRESSED),
        (ImageEncoding::Raw, "lz4", Compression::LZ4_RAW),
        (ImageEncoding::Raw, "zstd 1", zstd(1)),
        (ImageEncoding::Raw, "zstd 3", zstd(3)),
        (ImageEncoding::Raw, "zstd 9", zstd(9)),
        (ImageEncoding::Raw, "zstd 19", zstd(19)),
        (ImageEncoding::Png, "none", Compression::UNCOMPRESSED),
        (ImageEncoding::Jpeg, "none", Compression::UNCOMPRESSED),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("shards")).expect("a folder");
        let mut info = None;
        let written = seconds(1, || info = Some(write(folder.path(), &source, &records, encoding, compression)));
        let info = info.expect("a shard");
        let bytes = info.bytes as f64;
        let mut manifest = source.manifest().clone();
        (manifest.image.encoding, manifest.totals.bytes, manifest.shards) = (encoding, info.bytes, vec![info]);
        manifest.save(&dataset::Storage::folder(folder.path())).expect("saved");

        let dataset = Dataset::open(folder.path()).expect("a dataset");
        let read = |rows: &[usize]| {
            for &row in rows {
                black_box(dataset.image(row).expect("an image"));
            }
        };
        let mut rows: Vec<usize> = (0..records.len()).collect();
        let ordered = seconds(ROUNDS, || read(&rows));
        Stream::new(&[7]).shuffle(&mut rows);
        let random = seconds(ROUNDS, || read(&rows));
        let (images, encoding) = (records.len() as f64, encoding.name());
        println!(
            "| {encoding} | {name} | {:.1} | {:.2} | {:.0} | {:.0} | {:.0} |",
            bytes / 1e3 / images,
            bytes / raw as f64,
            images / written,
            images / ordered,
            images / random
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
        record.image = GrayPixels { width, height, pixels: record.image }.encode(encoding).expect("encoded");
        writer.write(std::slice::from_ref(&record)).expect("written");
    }
    writer.finish(&relative).expect("a whole shard")
}
