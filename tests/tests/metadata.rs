//! The lazy table of a dataset: what a query reads, and that it says what Python's polars says of the same shards.
//!
//! One test a process, since the bytes are those that the process reads.

use std::process::Command;
use std::sync::Arc;

use dataset::Dataset;
use mrm_tests::{folder, ingest, phantom, text};
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

/// Bytes that this process has read by now.
fn bytes_read() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").expect("counters");
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a counter");
    line.parse().expect("a number")
}

/// What a piece of work gives, and the bytes that it reads.
fn counted<T>(work: impl FnOnce() -> T) -> (T, u64) {
    let before = bytes_read();
    let given = work();
    (given, bytes_read() - before)
}

#[test]
fn a_query_reads_what_it_needs_and_says_what_polars_says() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    let dataset = Arc::new(Dataset::open(&out).expect("a dataset"));
    // Opens every shard.
    dataset.columns(&["height"]).expect("columns");

    let ((), needed) = counted(|| drop(dataset.columns(&["view", "age_years"]).expect("columns")));
    let all = || dataset.metadata().expect("a lazy frame");
    let (lazy, read) = counted(all);
    assert!(read < 4096, "{read} bytes to make a lazy frame");
    let (groups, read) = counted(|| {
        let query = lazy.filter(col("age_years").gt_eq(lit(50.0))).group_by([col("view")]);
        let query = query.agg([len().alias("count"), col("age_years").mean().alias("age")]);
        query.sort(["view"], SortMultipleOptions::default()).collect().expect("a result")
    });
    let noise = 4096;
    assert!(read <= needed + noise, "{read} bytes read, two columns have {needed}");
    let (whole, read) = counted(|| all().collect().expect("a table"));
    assert!(read > 4 * (needed + noise), "{read} bytes read for all columns");
    let (_, read) = counted(|| all().select([col("report"), col("has_mask")]).limit(3).collect().expect("a table"));
    let (_, every) = counted(|| dataset.columns(&["report", "mask"]).expect("columns"));
    assert!(read < every / 2 + noise, "{read} bytes read for three of {} rows, all have {every}", dataset.len());

    let mut told = Vec::new();
    let number = |column: &Column, row| column.get(row).expect("a value").extract::<f64>().expect("a number");
    for row in 0..groups.height() {
        let view = groups.column("view").expect("views").str().expect("texts").get(row).unwrap_or("None").to_owned();
        let columns = ["count", "age"].map(|name| number(groups.column(name).expect("a column"), row));
        told.push(format!("{view} {} {:.3}", columns[0], columns[1]));
    }
    let positive = col("labels").struct_().field_by_name("Cardiomegaly").eq(lit(1));
    let by_sex = all().filter(positive).group_by([col("sex")]).agg([len().alias("count")]);
    let by_sex = by_sex.sort(["sex"], SortMultipleOptions::default()).collect().expect("a result");
    for row in 0..by_sex.height() {
        let sex = by_sex.column("sex").expect("a column").str().expect("texts").get(row).unwrap_or("None").to_owned();
        told.push(format!("{sex} {}", number(by_sex.column("count").expect("counts"), row)));
    }
    told.push(all().select([len()]).collect().expect("a count").columns()[0].get(0).expect("a value").to_string());
    assert!(told.len() > 4, "{told:?}");

    let python = std::env::var("MRM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let output = Command::new(&python).args(["-c", QUERIES]).arg(&out).output().expect("python starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let expected = text(&output.stdout);
    let mut expected: Vec<&str> = expected.lines().collect();
    let names = expected.pop().expect("names");
    assert_eq!(told, expected);

    // All columns but those of bytes.
    let binary = ["image", "mask", "source_sha256"];
    let names: Vec<&str> = names.split(',').filter(|name| !binary.contains(name)).chain(["has_mask"]).collect();
    assert_eq!(whole.get_column_names().iter().map(|name| name.as_str()).collect::<Vec<_>>(), names);
    assert_eq!(whole.height(), dataset.len());
}
