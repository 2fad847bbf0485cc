//! `dataset export`: other tools read the contents of the shards, for any number of threads, and after kills.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use helpers::{args, command, contents, fails, folder, ingest, ok, phantom, phantom_of, python, python_output};
use rand::{Rng, SeedableRng};

/// Common to the three readers: the rows of the shards, and the comparison of a record with its row.
const SHARED: &str = r#"
import csv, glob, io, json, os, sys, tarfile
import numpy, PIL.Image, pyarrow.dataset, pyarrow.parquet
root, out = sys.argv[1:3]
files = sorted(glob.glob(root + "/shards/*.parquet"))
encoding = pyarrow.parquet.read_schema(files[0]).metadata[b"image_encoding"].decode()
findings = json.load(open(root + "/dataset.json"))["labels"]
rows = {row["record_id"]: row for row in pyarrow.dataset.dataset(files).to_table().to_pylist()}
masks = json.load(open(root + "/dataset.json"))["masks"]
for row in rows.values():
    row["mask"] = row["masks"][0]["png"] if row["masks"] else None
of_mask = lambda found, form: found.get(form.format(*masks)) if masks else None
split = {}
if os.path.exists(root + "/splits/main.parquet"):
    split = {row["record_id"]: row for row in pyarrow.parquet.read_table(root + "/splits/main.parquet").to_pylist()}
texts = ["patient_id", "study_id", "image_id", "source_path", "subset", "view", "sex", "report", "findings", "impression"]
sides = ["height", "width", "source_height", "source_width"]
seen = {"images": 0, "masks": 0, "boxes": 0, "reports": 0, "positives": 0}

def gray(image):
    return numpy.asarray((PIL.Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image).convert("L"))

def same_image(row, image, mask):
    if isinstance(image, bytes) and encoding != "raw":
        assert image == row["image"]
    elif encoding == "raw":
        assert gray(image).shape == (row["height"], row["width"]) and gray(image).tobytes() == row["image"]
    else:
        assert (gray(image) == gray(row["image"])).all()
    assert (mask is None) == (row["mask"] is None), row["record_id"]
    if mask is not None:
        assert mask == row["mask"] if isinstance(mask, bytes) else (gray(mask) == gray(row["mask"])).all()
        seen["masks"] += 1
    seen["images"] += 1

def same_columns(row, found):
    for name in texts + sides:
        assert found[name] == row[name], (name, found[name], row[name])
    same_age = found["age_years"] == row["age_years"] or numpy.float32(found["age_years"]) == row["age_years"]
    assert same_age, (found["age_years"], row["age_years"])
    assert {name: found["labels"][name] for name in findings} == {name: row["labels"][name] for name in findings}
    edges = lambda boxes: [(b["label"], *(numpy.float32(b[n]) for n in ["x", "y", "width", "height"])) for b in boxes]
    assert edges(found["boxes"]) == edges(row["boxes"])
    if split:
        member = split[row["record_id"]]
        assert (found["split_subset"], found["split_ratio"]) == (member["subset"], member["ratio"])
    seen["boxes"] += len(row["boxes"])
    seen["reports"] += row["report"] is not None
    seen["positives"] += sum(row["labels"].get(name) == 1 for name in findings)
"#;

/// Reads tar files with `tarfile`, and again with `webdataset` (torch is optional for it).
const TARS: &str = r#"
sys.modules["torch"] = None
import webdataset
tars = sorted(glob.glob(out + "/**/*.tar", recursive=True))
samples = {}
for path in tars:
    with tarfile.open(path) as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644), member
            key, ending = member.name.split(".", 1)
            samples.setdefault((path, key), {})[ending] = tar.extractfile(member).read()
by_package = {}
for sample in webdataset.WebDataset(tars, shardshuffle=False, handler=webdataset.reraise_exception):
    names = [name for name in sample if not name.startswith("__")]
    by_package[(sample["__url__"], sample["__key__"])] = {name: sample[name] for name in names}
assert by_package == samples
decoded = next(iter(webdataset.WebDataset(tars, shardshuffle=False).decode("pil")))
assert isinstance(decoded["json"], dict) and any(isinstance(value, PIL.Image.Image) for value in decoded.values())
for (path, key), sample in samples.items():
    found = json.loads(sample["json"])
    row = rows[found["record_id"]]
    if split:
        assert path == f"{out}/{split[row['record_id']]['subset']}/" + os.path.basename(path)
    same_columns(row, found)
    assert found["token_ids"] == row["token_ids"] and found["source_digest"] == row["source_digest"].hex()
    same_image(row, sample["jpg" if encoding == "jpeg" else "png"], of_mask(sample, "mask.{}.png"))
    assert sample.get("txt", b"").decode() == (row["report"] or "") and ("txt" in sample) == (row["report"] is not None)
assert len({key for _, key in samples}) == len(samples)
print(len(tars), json.dumps(seen, sort_keys=True))
"#;

/// Loads the folder, and one file by its own metadata.
const HUGGING_FACE: &str = r#"
import datasets
data = datasets.load_dataset(out)
assert list(data) == (["train", "validate", "test"] if split else ["train"]), data
for name, part in data.items():
    assert part.features["image"] == datasets.Image()
    assert all(part.features["mask_" + name] == datasets.Image() for name in masks)
    assert part.features["labels"] == {name: datasets.Value("int8") for name in findings or ["none"]}
    for found in part:
        row = rows[found["record_id"]]
        same_columns(row, found)
        assert found["token_ids"] == row["token_ids"] and found["source_digest"] == row["source_digest"]
        same_image(row, found["image"], of_mask(found, "mask_{}"))
        assert not split or split[row["record_id"]]["subset"] == name
files = sorted(glob.glob(out + "/data/*.parquet"))
alone = datasets.load_dataset("parquet", data_files=files[:1], split="train")
assert alone.features == part.features, (alone.features, part.features)
assert b"huggingface" in pyarrow.parquet.read_schema(files[0]).metadata
print(len(files), json.dumps(seen, sort_keys=True))
"#;

/// Reads the table, and loads the folder as `imagefolder`.
const TABLE: &str = r#"
import datasets
with open(out + "/metadata.csv", newline="") as file:
    table = list(csv.DictReader(file))
def typed(found):
    found = {name: None if text == "" else text for name, text in found.items()}
    found.update({name: int(found[name]) for name in sides})
    found.update({name: found[name] and float(found[name]) for name in ["age_years", "split_ratio"] if name in found})
    found["labels"] = {name: found[name] and int(found[name]) for name in findings}
    return found | {"boxes": json.loads(found["boxes"])}
images = 0
for line in table:
    found = typed(line)
    row = rows[found["record_id"]]
    same_columns(row, found)
    if "file_name" in line:
        mask = of_mask(found, "mask_{}_file_name")
        same_image(row, open(f"{out}/{found['file_name']}", "rb").read(), mask and open(f"{out}/{mask}", "rb").read())
        images += 1 + (mask is not None)
assert sum(len(names) for _, _, names in os.walk(out)) == images + 2, "the table, the note, and no other file"
if images:
    found = datasets.load_dataset("imagefolder", data_dir=out, split="train")
    assert found.num_rows == len(table)
    for shown in found:
        row = rows[shown["record_id"]]
        stored = numpy.frombuffer(row["image"], "uint8").reshape(row["height"], row["width"]) if encoding == "raw" else gray(row["image"])
        assert (gray(shown["image"]) == stored).all()
print(1, json.dumps(seen, sort_keys=True))
"#;

/// Compares an export with its dataset in Python, and returns the counts.
fn compare(script: &str, dataset: &Path, out: &Path) -> (usize, BTreeMap<String, usize>) {
    let mut command = python();
    command.args(["-c", &format!("{SHARED}{script}")]).args([dataset, out]);
    command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", out.with_extension("cache"));
    let printed = python_output(&mut command);
    let (files, seen) = printed.trim().split_once(' ').expect("a count of files, and what was seen");
    (files.parse().expect("a number"), serde_json::from_str(seen).expect("counts"))
}

/// A dataset with reports, one with masks, one with boxes, each with its number of records.
fn sets(folder: &Path) -> Vec<(PathBuf, usize)> {
    let sets = [("mimic-cxr", "raw", 40), ("siim", "png", 40), ("rsna", "jpeg", 14)];
    let made = sets.map(|(source, encoding, studies)| {
        let raw = phantom_of(source, folder, studies);
        let out = folder.join(encoding);
        ingest(source, &raw, &out, &["--image-encoding", encoding]);
        let records = dataset::Dataset::open(&out).expect("a dataset").len();
        (out, records)
    });
    ok("dataset", args!["split", &made[0].0, "--name", "main"]);
    made.into()
}

#[test]
fn exports_read_by_other_libraries_equal_the_shards() {
    let temporary = folder();
    for (at, (set, records)) in sets(temporary.path()).into_iter().enumerate() {
        let split: &[&str] = if at == 0 { &["--split", "main"] } else { &[] };
        for (format, script) in [("webdataset", TARS), ("hf", HUGGING_FACE), ("csv", TABLE)] {
            let out = temporary.path().join(format!("{at}-{format}"));
            let size: &[&str] = if format == "csv" { &[] } else { &["--shard-size", "9"] };
            let arguments = args!["export", &set, "--to", format, &out].into_iter();
            let printed = ok("dataset", arguments.chain(split.iter().chain(size).map(Into::into)));
            assert!(printed.contains(&format!("{records} records")), "{printed}");
            let (files, seen) = compare(script, &set, &out);
            assert_eq!(seen["images"], records);
            assert!(seen["positives"] > 0, "{seen:?}");
            let wanted = ["reports", "masks", "boxes"][at];
            assert!(seen[wanted] > 0, "{format}: {seen:?}");
            if format != "csv" && at > 0 {
                assert_eq!(files, records.div_ceil(9));
            }
        }
    }
}

#[test]
fn an_export_of_a_subset_has_exactly_its_records() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let set = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &set, &[]);
    ok("dataset", args!["split", &set, "--name", "main", "--ratios", "10,50,100"]);
    let opened = dataset::Dataset::open(&set).expect("a dataset");
    let split = dataset::Split::load(&opened, "main").expect("a split");
    let rows = |subset, ratio| split.rows(subset, ratio).len();
    let cases = [
        (&["--subset", "test"][..], rows(dataset::Subset::Test, None)),
        (&["--subset", "train", "--ratio", "10"], rows(dataset::Subset::Train, Some(dataset::Ratio::TEN))),
        (
            &["--ratio", "50"],
            rows(dataset::Subset::Train, Some("50".parse().expect("a ratio")))
                + rows(dataset::Subset::Validate, None)
                + rows(dataset::Subset::Test, None),
        ),
    ];
    for (at, (part, expected)) in cases.into_iter().enumerate() {
        assert!(expected > 0 && expected < opened.len());
        let out = temporary.path().join(at.to_string());
        let arguments = args!["export", &set, "--to", "csv", "--no-images", &out, "--split", "main"];
        ok("dataset", arguments.into_iter().chain(part.iter().map(Into::into)));
        let lines = compare(TABLE, &set, &out);
        assert_eq!(lines.1["images"], 0);
        let table = fs::read_to_string(out.join("metadata.csv")).expect("a table");
        assert_eq!(table.matches("\nmimic-cxr/").count(), expected);
        assert!(!out.join("images").exists());
    }
}

/// Arguments of an export in all three formats.
fn exports(set: &Path, out: &Path, format: &str, more: &[&str]) -> Vec<std::ffi::OsString> {
    let size: &[&str] = if format == "csv" { &[] } else { &["--shard-size", "24"] };
    args!["export", set, "--to", format, out].into_iter().chain(size.iter().chain(more).map(Into::into)).collect()
}

/// Whether a file is a finished file of an export.
fn is_piece(name: &String) -> bool {
    let name = Path::new(name);
    let is_part = name.file_name().is_some_and(|name| name.to_string_lossy().contains('-'));
    is_part && name.extension().is_some_and(|kind| kind == "tar" || kind == "parquet" || kind == "csv")
}

/// Names of the files of an export; their bytes are not read, since files may be removed meanwhile.
fn names(out: &Path) -> Vec<String> {
    let below = |name: &str| fs::read_dir(out.join(name)).into_iter().flatten().flatten();
    let files = ["", "data", ".export"].into_iter().flat_map(below);
    files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn threads_and_kills_do_not_change_the_bytes() {
    let temporary = folder();
    let raw = temporary.path().join("raw");
    ok("ingest", args!["phantom", "mimic-cxr", &raw, "--studies", "120", "--size", "160"]);
    let set = temporary.path().join("set");
    let small = args!["mimic-cxr", &raw, &set, "--size", "144", "--vocab-size", "400", "--rows-per-shard", "64"];
    ok("ingest", small);
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(3);
    for format in ["webdataset", "hf", "csv"] {
        let whole = temporary.path().join(format!("{format}-whole"));
        let started = Instant::now();
        ok("dataset", exports(&set, &whole, format, &["--threads", "1"]));
        let span = started.elapsed();
        let expected = contents(&whole);
        assert!(expected.keys().all(|name| !name.ends_with(".tmp") && !name.starts_with(".export/")));
        let threads = temporary.path().join(format!("{format}-threads"));
        ok("dataset", exports(&set, &threads, format, &["--threads", "4"]));
        assert!(expected == contents(&threads), "{format}");
        assert!(ok("dataset", exports(&set, &threads, format, &[])).contains("nothing to do"));

        let out = temporary.path().join(format!("{format}-killed"));
        let (mut killed, mut resumed) = (0, 0);
        while killed < 10 {
            let mut child = command("dataset")
                .args(exports(&set, &out, format, &["--threads", "1"]))
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("it starts");
            std::thread::sleep(span.mul_f64(random.random_range(0.05..0.8)));
            let between_pieces = killed % 2 == 1;
            if between_pieces {
                let began = Instant::now();
                while !names(&out).iter().any(is_piece) && began.elapsed() < 2 * span {
                    std::thread::yield_now();
                }
            }
            child.kill().expect("SIGKILL");
            let output = child.wait_with_output().expect("it ends");
            killed += usize::from(!output.status.success());
            if out.is_dir() {
                // A file with its final name is complete.
                let left = contents(&out);
                for name in left.keys().filter(|name| is_piece(name) || name.starts_with("images/")) {
                    let serves_going_on = name.ends_with(".tmp") || name.starts_with(".export/");
                    assert!(serves_going_on || left[name] == expected[name], "{name}");
                }
            }
            if output.status.success() || between_pieces || random.random_bool(0.3) {
                let printed = ok("dataset", exports(&set, &out, format, &[]));
                resumed += usize::from(printed.contains("continued after"));
                assert!(expected == contents(&out), "{format}");
                fs::remove_dir_all(&out).expect("removed");
            }
        }
        ok("dataset", exports(&set, &out, format, &[]));
        assert!(expected == contents(&out), "{format}");
        assert!(resumed > 0, "{format}: no run was killed between two files");
        eprintln!("{format}: {killed} kills, {resumed} times gone on after a whole piece, {span:?} a run");
    }
}

#[test]
fn impossible_exports_are_refused_with_one_line() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let (set, out) = (temporary.path().join("set"), temporary.path().join("out"));
    ingest("mimic-cxr", &raw, &set, &[]);
    ok("dataset", args!["split", &set, "--name", "main"]);
    let refused = |code: i32, format: &str, out: &Path, more: &[&str], words: &str| {
        let message = fails("dataset", code, exports(&set, out, format, more));
        assert!(message.contains(words), "{words}\n{message}");
        assert!(code == 2 || message.trim().lines().count() == 1, "{message}");
    };
    refused(2, "hf", &out, &["--subset", "train"], "--split");
    refused(2, "hf", &out, &["--no-images"], "csv");
    refused(2, "csv", &out, &["--shard-size", "3"], "one table");
    refused(1, "hf", &out, &["--split", "none"], "there are: main");
    refused(1, "hf", &out, &["--split", "main", "--ratio", "7"], "there are: 1, ");
    refused(2, "hf", &out, &["--split", "main", "--ratio", "1", "--subset", "test"], "--subset train");
    refused(1, "hf", Path::new("s3://bucket/out"), &[], "is no folder");
    assert!(!out.exists(), "a refused export writes nothing");

    let foreign = temporary.path().join("foreign");
    fs::create_dir(&foreign).expect("a folder");
    fs::write(foreign.join("letter.txt"), "mine").expect("written");
    refused(1, "hf", &foreign, &[], "is not empty and not an export");
    refused(1, "hf", &foreign, &["--overwrite"], "is not empty and not an export");
    refused(1, "csv", &set, &[], "is not empty and not an export");
    assert_eq!(contents(&foreign).len(), 1);

    ok("dataset", exports(&set, &out, "hf", &[]));
    fs::write(out.join("letter.txt"), "mine").expect("written");
    refused(1, "webdataset", &out, &[], "contains another export; give another OUT or --overwrite");
    fs::create_dir(out.join("images")).expect("a folder");
    fs::write(out.join("images/mine.png"), "mine").expect("written");
    ok("dataset", exports(&set, &out, "webdataset", &["--overwrite", "--split", "main"]));
    let left = contents(&out);
    assert!(left.contains_key("images/mine.png"), "no hf export writes images/: {:?}", left.keys());
    assert!(left.keys().any(|name| name.starts_with("validate/part-")), "{:?}", left.keys());
    assert!(left.contains_key("letter.txt") && !left.keys().any(|name| name.starts_with("data/")), "{:?}", left.keys());
    // Another split of the same name is another export.
    ok("dataset", args!["split", &set, "--name", "main", "--test", "0.4", "--overwrite"]);
    refused(1, "webdataset", &out, &["--split", "main"], "contains another export");

    let shard = set.join("shards/part-00001.parquet");
    let mut bytes = fs::read(&shard).expect("a shard");
    bytes.truncate(bytes.len() - 1);
    fs::write(&shard, bytes).expect("written");
    let damaged = temporary.path().join("damaged");
    refused(1, "webdataset", &damaged, &[], "shards/part-00001.parquet");
}
