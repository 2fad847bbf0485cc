//! The shards in other readers: pyarrow, polars, DuckDB and Hugging Face `datasets`.

use dataset::Dataset;
use dataset::format::record::ImageEncoding;
use helpers::{folder, ingest, ok, phantom, phantom_of, python, python_output};

/// Each reader prints rows, the sum of all pixels of the third record, its tokens, and the positives of one finding.
const READERS: &str = r#"
import glob, hashlib, json, sys
import duckdb, polars, pyarrow.dataset, pyarrow.parquet
root = sys.argv[1]
files = sorted(glob.glob(root + "/shards/*.parquet"))
names = [s["path"] for s in json.load(open(root + "/dataset.json"))["shards"]]
assert [f[len(root) + 1:] for f in files] == names, (files, names)

def show(reader, rows, record):
    print(reader, rows, record["record_id"], sum(record["image"]), record["height"] * record["width"],
          len(record["token_ids"]), hashlib.sha256(record["image"]).hexdigest()[:16])

table = pyarrow.dataset.dataset(files).to_table()
show("pyarrow", table.num_rows, table.slice(2, 1).to_pylist()[0])
encoding = pyarrow.parquet.read_schema(files[0]).metadata[b"image_encoding"]
assert encoding == b"raw", encoding

frame = polars.scan_parquet(files)
show("polars", frame.select(polars.len()).collect().item(), frame.slice(2, 1).collect().to_dicts()[0])
print("positives", frame.select((polars.col("labels").struct.field("Cardiomegaly") == 1).sum()).collect().item())

query = duckdb.sql(f"select * from read_parquet({files!r}) order by record_id limit 1 offset 2")
record = dict(zip(query.columns, query.fetchall()[0]))
rows = duckdb.sql(f"select count(*) from read_parquet({files!r})").fetchall()[0][0]
show("duckdb", rows, record)
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
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &[]);
    ok("dataset", helpers::args!["split", &out, "--name", "main"]);
    let printed = python_output(python().args(["-c", READERS]).arg(&out));

    let dataset = Dataset::open(&out).expect("a dataset");
    let record = dataset.record(2).expect("a record");
    let sum: u64 = record.image.iter().map(|&pixel| u64::from(pixel)).sum();
    let digest = {
        let path = temporary.path().join("image");
        std::fs::write(&path, &record.image).expect("written");
        dataset::store::files::sha256(&path).expect("a digest")
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
        assert!(printed.lines().any(|line| line == expected), "{expected}\n{printed}");
    }
    let at = dataset.findings().iter().position(|name| name == "Cardiomegaly").expect("a label");
    let positives = helpers::dataset_codes(&dataset).iter().filter(|codes| codes[at] == Some(1)).count();
    assert_eq!(printed.lines().filter(|line| *line == format!("positives {positives}")).count(), 2, "{printed}");
}

/// Loads the folders of datasets and prints every record; images as mode, size and sum of pixels.
const HUGGING_FACE: &str = r#"
import json, sys
import numpy, pyarrow.parquet
from datasets import load_dataset

def show(value):
    if value is None:
        return "none"
    if isinstance(value, bytes):
        return f"{len(value)} {sum(value)}"
    return f"{value.mode} {value.size[0]}x{value.size[1]} {numpy.asarray(value.convert('L'), dtype='u4').sum()}"

for root in sys.argv[1:]:
    data = load_dataset(root, split="train")
    assert data.column_names == pyarrow.parquet.read_schema(root + "/shards/part-00000.parquet").names
    for row in data:
        codes = ["null" if code is None else str(code) for code in row["labels"].values()]
        boxes = [f"{b['label']} {b['x']:.3f} {b['y']:.3f} {b['width']:.3f} {b['height']:.3f}" for b in row["boxes"]]
        print("|".join([row["record_id"], row["source_digest"].hex(), str(row["token_ids"]), ",".join(codes),
                        ";".join(boxes), str(row["age_years"] is None), show(row["image"]),
                        show(row["masks"][0]["png"] if row["masks"] else None)]))
"#;

#[test]
fn hugging_face_datasets_decodes_the_images() {
    let temporary = folder();
    let sets = [("mimic-cxr", "raw"), ("siim", "png"), ("rsna", "jpeg")].map(|(source, encoding)| {
        let raw = phantom_of(source, temporary.path(), 12);
        let out = temporary.path().join(encoding);
        ingest(source, &raw, &out, &["--image-encoding", encoding]);
        out
    });
    let mut command = python();
    command.args(["-c", HUGGING_FACE]).args(&sets);
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", temporary.path().join("cache"));
    let printed = python_output(&mut command);
    let mut printed = printed.lines();
    let (mut boxes, mut masks) = (0, 0);
    for out in &sets {
        let dataset = Dataset::open(out).expect("a dataset");
        let encoding = dataset.manifest().image.encoding;
        for row in 0..dataset.len() {
            let line = printed.next().expect("a line for each record");
            let record = dataset.record(row).expect("a record");
            let codes: Vec<String> =
                record.labels.iter().map(|code| code.map_or("null".to_owned(), |code| code.to_string())).collect();
            let found: Vec<String> = record
                .boxes
                .iter()
                .map(|b| format!("{} {:.3} {:.3} {:.3} {:.3}", b.label, b.x, b.y, b.width, b.height))
                .collect();
            let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u64::from(byte)).sum::<u64>();
            let described = |bytes: &[u8], mode: &str| {
                let image = dataset::format::image_codec::decode(bytes).expect("an image");
                format!("{mode} {}x{} {}", image.width, image.height, sum(&image.pixels))
            };
            let image = match encoding {
                ImageEncoding::Raw => format!("{} {}", record.image.len(), sum(&record.image)),
                _ => described(&record.image, "L"),
            };
            let no_age = if record.age_years.is_none() { "True" } else { "False" };
            let fields: Vec<&str> = line.split('|').collect();
            let labels = if dataset.findings().is_empty() { "null".to_owned() } else { codes.join(",") };
            assert_eq!(fields[..2], [record.record_id.as_str(), &dataset::store::files::hex(&record.source_digest)]);
            assert_eq!(fields[2..6], [&format!("{:?}", record.token_ids), &labels, &found.join(";"), no_age]);
            if encoding == ImageEncoding::Jpeg {
                // JPEG decoders round differently.
                assert_eq!(
                    fields[6].rsplit_once(' ').map(|(kind, _)| kind),
                    image.rsplit_once(' ').map(|(kind, _)| kind)
                );
            } else {
                assert_eq!(fields[6], image);
            }
            assert_eq!(fields[7], record.masks.first().map_or("none".to_owned(), |mask| described(&mask.png, "1")));
            boxes += record.boxes.len();
            masks += record.masks.len();
        }
    }
    assert_eq!(printed.next(), None);
    assert!(boxes > 0 && masks > 0, "{boxes} boxes, {masks} masks");
}

/// A field of Croissant, or the innermost of its parts.
fn leaves(field: &serde_json::Value) -> Vec<&serde_json::Value> {
    match field.get("subField").and_then(serde_json::Value::as_array) {
        Some(parts) => parts.iter().flat_map(leaves).collect(),
        None => vec![field],
    }
}

/// Checks the structure; the `mlcroissant` package, which is large, is not used here.
#[test]
fn croissant_metadata_describes_the_files() {
    let temporary = folder();
    for (source, encoding) in [("rsna", "jpeg"), ("mimic-cxr", "raw")] {
        let raw = phantom_of(source, temporary.path(), 12);
        let out = temporary.path().join(encoding);
        ingest(source, &raw, &out, &["--image-encoding", encoding]);
        let dataset = Dataset::open(&out).expect("a dataset");
        let manifest = dataset.manifest();
        let found: serde_json::Value = dataset.storage().read_json("croissant.json").expect("JSON");
        assert_eq!(found["@type"], "sc:Dataset");
        assert_eq!(found["conformsTo"], "http://mlcommons.org/croissant/1.0");
        assert!(found["name"] == source && found.get("license").is_none());

        let files = found["distribution"].as_array().expect("files");
        assert_eq!(files.len(), manifest.shards.len() + 1);
        for (file, shard) in files.iter().zip(&manifest.shards) {
            assert_eq!(file["@type"], "cr:FileObject");
            assert!(file["contentUrl"] == shard.path && file["sha256"] == shard.sha256, "{file}");
            assert_eq!(file["contentSize"], format!("{} B", shard.bytes));
        }
        let all = files.last().expect("files");
        assert!(all["@type"] == "cr:FileSet" && all["includes"] == "shards/*.parquet");

        let records = &found["recordSet"][0];
        assert_eq!(records["key"]["@id"], "records/record_id");
        let fields = records["field"].as_array().expect("fields");
        let schema = manifest.schema();
        let mut ids = std::collections::HashSet::new();
        for (field, column) in fields.iter().zip(schema.fields()) {
            assert!(field["name"] == *column.name() && field["@type"] == "cr:Field");
            for leaf in leaves(field) {
                let id = leaf["@id"].as_str().expect("an identifier");
                assert!(ids.insert(id.to_owned()) && !id.contains(' '), "{id}");
                assert_eq!(leaf["source"]["fileSet"]["@id"], all["@id"]);
                assert_eq!(leaf["source"]["extract"]["column"], *column.name());
                assert!(leaf["dataType"].as_str().is_some_and(|kind| kind.starts_with("sc:")), "{leaf}");
            }
        }
        assert_eq!(fields.len(), schema.fields().len());
        let of = |name: &str| fields.iter().find(|field| field["name"] == name).expect("a field");
        let labels: Vec<&str> = of("labels")["subField"]
            .as_array()
            .expect("findings")
            .iter()
            .filter_map(|label| label["name"].as_str())
            .collect();
        assert_eq!(labels, manifest.labels);
        assert_eq!(of("image")["dataType"], if encoding == "raw" { "sc:Text" } else { "sc:ImageObject" });
        assert!(of("token_ids")["repeated"] == true && of("boxes")["repeated"] == true);
    }
}
