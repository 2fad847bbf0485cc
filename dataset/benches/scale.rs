//! How long a large dataset takes to open, and its loader to give the first batch:
//! `cargo bench --profile release --workspace --bench scale -- [--rows 100000] [--shards 1000]`.
//!
//! Writes a synthetic dataset of small images (16 × 16), with reports of 90 tokens and 14 findings, into a temporary
//! folder. Every figure is the median of several rounds with the files in the page cache.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use dataset::format::manifest::{self, ImageSpec, Manifest, TextSpec, Totals};
use dataset::format::record::{FORMAT_VERSION, ImageEncoding, Record};
use dataset::format::schema::schema;
use dataset::format::shard::{ImageCompression, ShardWriter};
use dataset::loader::TextOptions;
use dataset::random::Stream;
use dataset::transform::Transform;
use dataset::{Dataset, Label, Loader, Storage};
use rayon::prelude::*;

const ROUNDS: usize = 7;
const SIDE: u16 = 16;
const TOKENS: usize = 90;
const FINDINGS: usize = 14;

fn record(row: usize) -> Record {
    let mut random = Stream::new(&[row as u64]);
    let tokens = 2..(TOKENS / 2 + random.below(TOKENS as u64) as usize);
    Record {
        record_id: format!("bench/p{}/s{row}/{row:08x}-0000-4000-8000-{row:012x}", row / 3),
        patient_id: format!("p{}", row / 3),
        study_id: format!("s{row}"),
        image_id: format!("{row:08x}"),
        source_path: format!("files/p{}/s{row}/{row:08x}.dcm", row / 3),
        height: SIDE,
        width: SIDE,
        source_height: 3056,
        source_width: 2544,
        image: (0..usize::from(SIDE) * usize::from(SIDE)).map(|_| random.below(256) as u8).collect(),
        report: Some("The lungs are clear. No effusion.".repeat(4)),
        token_ids: tokens.map(|_| random.below(30_000) as i32).collect(),
        labels: (0..FINDINGS)
            .map(|_| [None, Some(Label::Negative), Some(Label::Positive)][random.below(3) as usize])
            .collect(),
        ..Record::default()
    }
}

fn write(folder: &Path, rows: usize, shards: usize) {
    let findings: Vec<String> = (0..FINDINGS).map(|index| format!("finding {index}")).collect();
    std::fs::create_dir_all(folder.join("shards")).expect("a folder");
    let infos: Vec<_> = (0..shards)
        .into_par_iter()
        .map(|index| {
            let relative = manifest::shard_path(index);
            let path = folder.join(&relative);
            let mut writer =
                ShardWriter::create(&path, schema(&findings, &[], ImageEncoding::Raw), ImageCompression::None)
                    .expect("a shard begins");
            let records: Vec<Record> = (rows * index / shards..rows * (index + 1) / shards).map(record).collect();
            writer.write(&records).expect("written");
            writer.finish(&relative).expect("finished")
        })
        .collect();
    let pieces: BTreeMap<String, usize> = (0..30_000).map(|id| (format!("piece{id}"), id)).collect();
    let tokenizer = serde_json::json!({
        "version": "1.0", "model": { "type": "WordPiece", "unk_token": "piece1", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": pieces },
    });
    std::fs::write(folder.join(manifest::TOKENIZER), tokenizer.to_string()).expect("written");
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        source: "bench".to_owned(),
        tool: "bench".to_owned(),
        arguments: BTreeMap::new(),
        image: ImageSpec {
            encoding: ImageEncoding::Raw,
            bits: 8,
            compression: "none".to_owned(),
            intensity: "voi".to_owned(),
            resize: "shorter".to_owned(),
            size: u32::from(SIDE),
            mean: 0.5,
            std: 0.25,
        },
        text: TextSpec {
            report_text: "all".to_owned(),
            max_tokens: 100,
            vocabulary: 30_000,
            tokenizer_sha256: String::new(),
        },
        labels: findings,
        grades: Vec::new(),
        masks: Vec::new(),
        source_digest: manifest::SHA256.to_owned(),
        totals: Totals { records: rows as u64, ..Totals::default() },
        shards: infos,
        rejects: BTreeMap::new(),
        rejects_sha256: String::new(),
    };
    manifest.save(&Storage::folder(folder)).expect("written");
}

/// Median milliseconds of several rounds.
fn milliseconds(mut work: impl FnMut()) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |name: &str, default: usize| {
        let at = arguments.iter().position(|argument| argument == name);
        at.and_then(|at| arguments.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let rows = number("--rows", 100_000);
    println!(
        "| rows | shards | open (ms) | open, and the footers of all shards (ms) | open to first batch of 64 (ms) |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for shards in [rows.div_ceil(1024), number("--shards", 1000)] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), rows, shards);
        let open = || Dataset::open(folder.path()).expect("a dataset");
        let alone = milliseconds(|| drop(open()));
        let footers = milliseconds(|| {
            let dataset = open();
            (0..shards).into_par_iter().for_each(|index| assert!(dataset.shard(index).expect("a shard").rows() > 0));
        });
        let first = milliseconds(|| {
            let mut loader = Loader::builder(&Arc::new(open()))
                .transform(Transform::pretrain(448))
                .text(TextOptions { tokens: 100, mask_ratio: 0.5 })
                .build()
                .expect("a loader");
            assert_eq!(loader.next_batch().expect("a batch").len(), 64);
        });
        println!("| {rows} | {shards} | {alone:.1} | {footers:.0} | {first:.0} |");
    }
}
