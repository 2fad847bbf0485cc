//! The table of a dataset: how many bytes it reads, and that it equals what Python's polars reads from the same shards.
//!
//! One test per process, since the bytes of the whole process are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use dataset::Dataset;
use helpers::{folder, ingest, phantom, python, python_output};
use polars::prelude::*;

const QUERIES: &str = r#"
import glob, sys
import polars as pl
frame = pl.scan_parquet(sorted(glob.glob(sys.argv[1] + "/shards/*.parquet")))
groups = frame.filter(pl.col("age_years") >= 50).group_by("view").agg(
    pl.len().alias("count"), pl.col("age_years").mean().alias("age")).sort("view").collect()
for view, count, age in groups.rows():
    print(view, count, f"{age:.3f}")
label = frame.filter(pl.col("labels").struct.field("Cardiomegaly") == 1).group_by("sex").agg(
    pl.len().alias("count")).sort("sex").collect()
for sex, count in label.rows():
    print(sex, count)
print(frame.select(pl.len()).collect().item())
print(",".join(frame.collect_schema().names()))
"#;

/// Bytes that this process has read so far.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("counters");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a counter");
    line.parse().expect("a number")
}

/// The result of some work, and the bytes that it reads.
fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = bytes_read();
    let given = work();
    (given, bytes_read() - before)
}

#[test]
fn metadata_reads_only_the_requested_columns_and_equals_polars() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    let dataset = Arc::new(Dataset::open(&out).expect("a dataset"));
    // Opens every shard.
    dataset.columns(&["height"]).expect("columns");

    let ((), needed) = counted(|| drop(dataset.columns(&["view", "age_years"]).expect("columns")));
    let (two, read) = counted(|| dataset.frame(&["view", "age_years"]).expect("a table"));
    let noise = 4096;
    assert!(read <= needed + noise, "{read} bytes read, two columns have {needed}");
    let (whole, read) = counted(|| dataset.metadata().expect("a table"));
    assert!(read > 4 * (needed + noise), "{read} bytes read for all columns");
    let (first, read) = counted(|| dataset.head(&["report", "has_mask"], 3).expect("a table"));
    let (_, every) = counted(|| dataset.columns(&["report", "masks"]).expect("columns"));
    assert!(read < every / 2 + noise, "{read} bytes read for three of {} rows, all have {every}", dataset.len());
    assert_eq!(first.shape(), (3, 2));

    let texts = |column: &Column| -> Vec<String> {
        column.str().expect("texts").iter().map(|value| value.unwrap_or("None").to_owned()).collect()
    };
    let mut printed = Vec::new();
    let mut by_view: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let ages = two.column("age_years").expect("ages").f32().expect("numbers");
    for (view, age) in texts(two.column("view").expect("views")).into_iter().zip(ages.iter()) {
        if let Some(age) = age.filter(|&age| age >= 50.0) {
            by_view.entry(view).or_default().push(f64::from(age));
        }
    }
    for (view, ages) in by_view {
        printed.push(format!("{view} {} {:.3}", ages.len(), ages.iter().sum::<f64>() / ages.len() as f64));
    }
    let labels = whole.column("labels").expect("labels").struct_().expect("findings");
    let labels = labels.field_by_name("Cardiomegaly").expect("a finding");
    let mut by_sex: BTreeMap<String, usize> = BTreeMap::new();
    for (sex, label) in texts(whole.column("sex").expect("sexes")).into_iter().zip(labels.i8().expect("codes").iter()) {
        if label == Some(1) {
            *by_sex.entry(sex).or_default() += 1;
        }
    }
    printed.extend(by_sex.into_iter().map(|(sex, count)| format!("{sex} {count}")));
    printed.push(whole.height().to_string());
    assert!(printed.len() > 4, "{printed:?}");

    let expected = python_output(python().args(["-c", QUERIES]).arg(&out));
    let mut expected: Vec<&str> = expected.lines().collect();
    let names = expected.pop().expect("names");
    assert_eq!(printed, expected);

    // All columns except those of bytes.
    let binary = ["image", "masks", "source_digest"];
    let names: Vec<&str> = names.split(',').filter(|name| !binary.contains(name)).chain(["has_mask"]).collect();
    assert_eq!(whole.get_column_names().iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(whole.height(), dataset.len());
}
