//! Time of each stage of a radiograph: `cargo bench --profile release --workspace --bench stages -- FILE…`.
//!
//! Prints for each DICOM or JPEG file the milliseconds of every stage on one thread (the fastest of several rounds), the bytes
//! that it reads and writes, and their rate as a share of the memory bandwidth, which is measured with a large copy.

use std::fs::File;
use std::hint::black_box;
use std::io::Read;
use std::time::Instant;

use dataset::format::record::{ImageEncoding, Record};
use dataset::format::schema::schema;
use dataset::format::shard::{ImageCompression, ShardWriter};
use ingest::image::intensity::{self, Intensity};
use ingest::image::pipeline::{self, Scratch};
use ingest::image::resize::Resize;
use ingest::image::store16;

const ROUNDS: usize = 9;

/// Seconds of the fastest round.
fn seconds(mut work: impl FnMut()) -> f64 {
    work();
    let rounds = (0..ROUNDS).map(|_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    });
    rounds.fold(f64::INFINITY, f64::min)
}

fn main() {
    let files: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if files.is_empty() {
        println!("give the paths of DICOM or JPEG files");
        return;
    }
    let (from, mut to) = (vec![1u8; 64 << 20], vec![0u8; 64 << 20]);
    let copy = seconds(|| {
        to.copy_from_slice(black_box(&from));
        black_box(&mut to);
    });
    let bandwidth = 2.0 * from.len() as f64 / copy;
    println!("memory bandwidth (copy, bytes read and written): {:.1} GB/s", bandwidth / 1e9);
    for path in files {
        println!("\n{path}");
        println!("{:<34} {:>8} {:>9} {:>8} {:>10}", "stage", "ms", "MB", "GB/s", "bandwidth");
        let print = |stage: &str, seconds: f64, bytes: usize| {
            let rate = bytes as f64 / seconds;
            let share = 100.0 * rate / bandwidth;
            let (milliseconds, megabytes, rate) = (seconds * 1e3, bytes as f64 / 1e6, rate / 1e9);
            println!("{stage:<34} {milliseconds:>8.2} {megabytes:>9.2} {rate:>8.2} {share:>9.0}%");
        };
        let mut bytes = Vec::new();
        let read = seconds(|| {
            bytes.clear();
            let found = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            found.expect("the file can be read");
        });
        print("read (page cache)", read, 2 * bytes.len());
        let hashing = seconds(|| {
            black_box(blake3::hash(&bytes));
        });
        print("hash (BLAKE3)", hashing, bytes.len());
        let mut scratch = Scratch::default();
        let mut gray = Vec::new();
        if bytes.starts_with(&[0xFF, 0xD8]) {
            let whole = pipeline::decode(&bytes, Intensity::Voi).expect("an image");
            let decoded = || drop(black_box(pipeline::decode(&bytes, Intensity::Voi)));
            print("decode at full size (not used)", seconds(decoded), bytes.len() + whole.pixels.len());
        } else {
            let decode = || ingest::dicom::read_radiograph(&bytes, Vec::new()).expect("a radiograph");
            let pixels = decode().width as usize * decode().height as usize;
            let mut words = Vec::new();
            let decoding = seconds(|| {
                let dicom = ingest::dicom::read_radiograph(&bytes, std::mem::take(&mut words)).expect("a radiograph");
                words = dicom.pixels.into_words();
            });
            print("parse, decode", decoding, bytes.len() + 2 * pixels);
            let dicom = decode();
            print("intensity transform", seconds(|| intensity::to_gray(&dicom, Intensity::Voi, &mut gray)), 3 * pixels);
        }
        let mut store =
            || pipeline::store(&bytes, Intensity::Voi, 512, Resize::Shorter, &mut scratch).expect("an image");
        let stored = store();
        let mut deep_scratch = Scratch::default();
        let mut deep =
            || store16::store(&bytes, Intensity::Voi, 512, Resize::Shorter, &mut deep_scratch).expect("an image");
        let stored_bytes = stored.image.pixels.len();
        print("parse, decode, transform, resize", seconds(|| drop(black_box(store()))), bytes.len() + stored_bytes);
        print("the same to 16 bits", seconds(|| drop(black_box(deep()))), bytes.len() + 2 * stored_bytes);
        let folder = tempfile::tempdir().expect("a folder");
        for compression in [ImageCompression::None, ImageCompression::Lz4, ImageCompression::Zstd] {
            let record = |i: usize| Record {
                record_id: format!("bench/{i}"),
                height: stored.image.height as u16,
                width: stored.image.width as u16,
                image: stored.image.pixels.clone(),
                ..Record::default()
            };
            let records: Vec<Record> = (0..64).map(record).collect();
            let written = seconds(|| {
                let path = folder.path().join("part.parquet");
                let mut writer =
                    ShardWriter::create(&path, schema(&[], &[], ImageEncoding::Raw), compression).expect("a shard");
                writer.write(&records).expect("rows");
                writer.finish("part.parquet".as_ref()).expect("a whole shard");
            });
            let stage = format!("write, hash, sync ({})", compression.name());
            print(&stage, written / records.len() as f64, stored_bytes);
        }
    }
}
