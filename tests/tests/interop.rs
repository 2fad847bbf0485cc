//! The shards as others read them: pyarrow, polars and DuckDB.

use std::process::Command;

use dataset::Dataset;
use mrm_tests::{folder, ingest, ok, phantom, text};

/// Each reader prints rows, the sum of all pixels of the third record, its tokens, and the positives of one finding.
const READERS: &str = r#"
import glob, hashlib, json, sys
import duckdb, polars, pyarrow.dataset, pyarrow.parquet
root = sys.argv[1]
files = sorted(glob.glob(root + "/shards/*.parquet"))
names = [s["path"] for s in json.load(open(root + "/dataset.json"))["shards"]]
assert [f[len(root) + 1:] for f in files] == names, (files, names)

def tell(reader, rows, record):
    print(reader, rows, record["record_id"], sum(record["image"]), record["height"] * record["width"],
          len(record["token_ids"]), hashlib.sha256(record["image"]).hexdigest()[:16])

table = pyarrow.dataset.dataset(files).to_table()
tell("pyarrow", table.num_rows, table.slice(2, 1).to_pylist()[0])
encoding = pyarrow.parquet.read_schema(files[0]).metadata[b"image_encoding"]
assert encoding == b"raw", encoding

frame = polars.scan_parquet(files)
tell("polars", frame.select(polars.len()).collect().item(), frame.slice(2, 1).collect().to_dicts()[0])
print("positives", frame.select((polars.col("labels").struct.field("Cardiomegaly") == 1).sum()).collect().item())

query = duckdb.sql(f"select * from read_parquet({files!r}) order by record_id limit 1 offset 2")
record = dict(zip(query.columns, query.fetchall()[0]))
rows = duckdb.sql(f"select count(*) from read_parquet({files!r})").fetchall()[0][0]
tell("duckdb", rows, record)
print("positives", duckdb.sql(f"select count(*) from read_parquet({files!r}) where labels.Cardiomegaly = 1").fetchall()[0][0])

# One image a data page: as many pages as rows.
meta = pyarrow.parquet.ParquetFile(files[0])
assert meta.metadata.row_group(0).column(meta.schema_arrow.get_field_index("image")).compression == "UNCOMPRESSED"
split = polars.read_parquet(root + "/splits/main.parquet")
assert split.columns == ["record_id", "subset", "ratio"] and split.height == rows, split
assert set(split["subset"].unique()) == {"train", "validate", "test"}
"#;

#[test]
fn python_reads_the_shards() {
    let python = std::env::var("MRM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    ok("dataset", mrm_tests::args!["split", &out, "--name", "main"]);
    let output = Command::new(&python).args(["-c", READERS]).arg(&out).output().expect("python starts");
    let (told, complaint) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{complaint}\n(MRM_PYTHON names a Python with pyarrow, polars, duckdb)");

    let dataset = Dataset::open(&out).expect("a dataset");
    let record = dataset.record(2).expect("a record");
    let sum: u64 = record.image.iter().map(|&pixel| u64::from(pixel)).sum();
    let digest = {
        let path = temporary.path().join("image");
        std::fs::write(&path, &record.image).expect("written");
        dataset::files::sha256(&path).expect("a digest")
    };
    for reader in ["pyarrow", "polars", "duckdb"] {
        let expected = format!(
            "{reader} {} {} {sum} {} {} {}",
            dataset.len(),
            record.record_id,
            record.image.len(),
            record.token_ids.len(),
            &digest[..16]
        );
        assert!(told.lines().any(|line| line == expected), "{expected}\n{told}");
    }
    let at = dataset.findings().iter().position(|name| name == "Cardiomegaly").expect("a label");
    let positives = dataset.labels().expect("labels").iter().filter(|codes| codes[at] == Some(1)).count();
    assert_eq!(told.lines().filter(|line| *line == format!("positives {positives}")).count(), 2, "{told}");
}

/// Runs the code cells of a notebook as one script.
const CELLS: &str = r#"
import json, sys
cells = json.load(open(sys.argv[1]))["cells"]
exec("".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code"), {})
"#;

#[test]
fn the_notebook_runs() {
    let python = std::env::var("MRM_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    let notebook = concat!(env!("CARGO_MANIFEST_DIR"), "/../notebooks/explore.ipynb");
    let output =
        Command::new(&python).args(["-c", CELLS, notebook]).env("MRM_DATASET", &out).output().expect("python starts");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(
        told.contains("mimic-cxr {'records'") && told.contains("Pleural Effusion") && told.contains("uint8"),
        "{told}"
    );
}
