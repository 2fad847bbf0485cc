//! Files of a dataset: shards, and what is beside them.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use helpers::{args, folder, ok, phantom};

use crate::cases::{IMAGE_BYTES, TEXT, mutate_and_try};

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
