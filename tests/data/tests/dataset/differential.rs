//! All readers see the same rows, and the order in which a file system lists files changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use dataset::Dataset;
use helpers::{args, command, contents, folder, ingest, ok, phantom_of, python, python_output, repository};
use sha2::{Digest, Sha256};

/// Prints a line for each row by each reader: its number, identifiers, view, age, sizes, digest of the image, tokens, labels,
/// digest of the report, texts.
const READERS: &str = r#"
import hashlib, json, sys, zlib
import duckdb, polars, pyarrow.dataset

root = sys.argv[1]
files = [f"{root}/{shard['path']}" for shard in json.load(open(root + "/dataset.json"))["shards"]]
findings = json.load(open(root + "/dataset.json"))["labels"]
COLUMNS = ["record_id", "patient_id", "study_id", "view", "age_years", "height", "width", "image", "token_ids", "labels",
           "report", "texts"]

def numbers(ids):
    return "none" if ids is None else ",".join(map(str, ids))

def digest(text):
    return hashlib.sha256((text or "").encode()).hexdigest()

def show(reader, row, record):
    codes = [(record["labels"] or {}).get(name) for name in findings]
    texts = [f"{text['name']}={digest(text['text'])}={numbers(text['token_ids'])}" for text in record["texts"]]
    print(reader, row, "|".join([
        record["record_id"], record["patient_id"], record["study_id"], str(record["view"]), str(record["age_years"]),
        f"{record['height']}x{record['width']}", hashlib.sha256(record["image"]).hexdigest(), numbers(record["token_ids"]),
        ",".join("none" if code is None else str(code) for code in codes), digest(record["report"]), ";".join(texts)]), sep="|")

for row, record in enumerate(pyarrow.dataset.dataset(files).to_table(columns=COLUMNS).to_pylist()):
    show("pyarrow", row, record)
    print("page", len(record["image"]), zlib.crc32(record["image"]))
for row, record in enumerate(polars.scan_parquet(files).select(COLUMNS).collect().to_dicts()):
    show("polars", row, record)
query = duckdb.sql(f"select {', '.join(COLUMNS)} from read_parquet({files!r})")
for row, values in enumerate(query.fetchall()):
    show("duckdb", row, dict(zip(COLUMNS, values)))
"#;

#[test]
fn all_readers_see_the_same_rows() {
    let temporary = folder();
    let joined = |ids: &[i32]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let (mut ages, mut texts) = (0, 0);
    for (source, more) in [
        ("mimic-cxr", &[][..]),
        ("mimic-cxr", &["--image-encoding", "png"]),
        ("mimic-cxr", &["--bits", "16"]),
        ("nih", &["--image-encoding", "jpeg"]),
    ] {
        let name = format!("{source}{}", more.concat());
        let raw = temporary.path().join(source);
        let raw = if raw.exists() { raw } else { phantom_of(source, temporary.path(), 30) };
        let out = temporary.path().join(format!("set-{name}"));
        ingest(source, &raw, &out, more);
        let dataset = Dataset::open(&out).expect("a dataset");
        let codes = helpers::dataset_codes(&dataset);
        let mut expected: BTreeMap<String, usize> = BTreeMap::new();
        for (row, codes) in codes.iter().enumerate() {
            let record = dataset.record(row).expect("a record");
            let labels: Vec<String> =
                (codes.iter()).map(|code| code.map_or_else(|| "none".to_owned(), |code| code.to_string())).collect();
            let sections: Vec<String> = (record.texts.iter())
                .map(|text| format!("{}={}={}", text.name, sha256(text.text.as_bytes()), joined(&text.token_ids)))
                .collect();
            (ages, texts) = (ages + usize::from(record.age_years.is_some()), texts + sections.len());
            let line = [
                row.to_string(),
                record.record_id.clone(),
                record.patient_id.clone(),
                record.study_id.clone(),
                record.view.clone().unwrap_or_else(|| "None".to_owned()),
                // Python has no numbers of 32 bits.
                record.age_years.map_or_else(|| "None".to_owned(), |age| format!("{:?}", f64::from(age))),
                format!("{}x{}", record.height, record.width),
                sha256(&record.image),
                joined(&record.token_ids),
                labels.join(","),
                sha256(record.report.as_deref().unwrap_or_default().as_bytes()),
                sections.join(";"),
            ];
            for reader in ["pyarrow", "polars", "duckdb"] {
                expected.insert(format!("{reader}|{}", line.join("|")), row);
            }
        }
        let printed = python_output(python().args(["-c", READERS]).arg(&out));
        let (pages, rows): (Vec<&str>, Vec<&str>) = printed.lines().partition(|line| line.starts_with("page "));
        assert_eq!((pages.len(), rows.len()), (dataset.len(), expected.len()), "{name}");
        for line in rows {
            assert!(expected.remove(line).is_some(), "{name}: not what Rust reads: {line}\n{expected:#?}");
        }
        // The reader without packages: the pages of images, which are uncompressed in all encodings.
        let printed = python_output(python().arg(repository().join("docs/reader.py")).arg(&out));
        let of_reader: Vec<String> = (printed.lines())
            .map(|line| format!("page {}", line.split(' ').skip(2).collect::<Vec<_>>().join(" ")))
            .collect();
        assert_eq!(of_reader, pages, "{name}");
    }
    assert!(ages > 0 && texts > 0, "{ages} ages, {texts} texts");
}

/// SHA-256 in hexadecimal digits.
fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Gives the entries of each folder in another order, which `SHUFFLE` chooses.
const SHUFFLED: &str = r#"
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct listing { DIR *dir; size_t count, next; struct dirent64 *entries; struct listing *rest; };
static struct listing *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

struct dirent64 *readdir64(DIR *dir) {
    struct dirent64 *(*real)(DIR *) = dlsym(RTLD_NEXT, "readdir64");
    pthread_mutex_lock(&lock);
    struct listing *found = all;
    while (found && found->dir != dir) found = found->rest;
    if (!found) {
        found = calloc(1, sizeof *found);
        found->dir = dir;
        found->rest = all;
        all = found;
        for (struct dirent64 *entry; (entry = real(dir));) {
            found->entries = realloc(found->entries, (found->count + 1) * sizeof *entry);
            memcpy(&found->entries[found->count++], entry, sizeof *entry < entry->d_reclen ? sizeof *entry : entry->d_reclen);
        }
        unsigned long long state = strtoull(getenv("SHUFFLE"), NULL, 10);
        for (size_t last = found->count; last > 1; last--) {
            state = state * 6364136223846793005ULL + 1442695040888963407ULL;
            size_t other = (state >> 33) % last;
            struct dirent64 entry = found->entries[last - 1];
            found->entries[last - 1] = found->entries[other];
            found->entries[other] = entry;
        }
    }
    struct dirent64 *entry = found->next < found->count ? &found->entries[found->next++] : NULL;
    pthread_mutex_unlock(&lock);
    return entry;
}

/* The same for programs that name it so. */
struct dirent *readdir(DIR *dir) {
    return (struct dirent *)readdir64(dir);
}

int closedir(DIR *dir) {
    int (*real)(DIR *) = dlsym(RTLD_NEXT, "closedir");
    pthread_mutex_lock(&lock);
    for (struct listing **at = &all; *at; at = &(*at)->rest)
        if ((*at)->dir == dir) {
            struct listing *gone = *at;
            *at = gone->rest;
            free(gone->entries);
            free(gone);
            break;
        }
    pthread_mutex_unlock(&lock);
    return real(dir);
}
"#;

#[test]
fn the_order_of_listings_changes_no_byte() {
    let temporary = folder();
    let Some(library) = helpers::faults::compiled(temporary.path(), "shuffled", SHUFFLED) else { return };
    for source in ["mimic-cxr", "nih", "kermany", "openi", "folder"] {
        let of_folder = source == "folder";
        let raw = if of_folder { temporary.path().join("nih") } else { phantom_of(source, temporary.path(), 25) };
        let out = |name: &str| temporary.path().join(format!("{source}-{name}"));
        let made = |out: &Path, shuffle: Option<u32>| {
            let mut run = command("ingest");
            run.args(args![source, &raw, out, "--size", "64", "--rows-per-shard", "16", "--tokenizer", "none"]);
            if let Some(seed) = shuffle {
                run.env("LD_PRELOAD", &library).env("SHUFFLE", seed.to_string());
            }
            let output = run.output().expect("it starts");
            assert!(output.status.success(), "{source}: {}", helpers::text(&output.stderr));
            ok("dataset", args!["split", out, "--name", "main"]);
            contents(out)
        };
        let expected = made(&out("as-listed"), None);
        assert!(expected.len() > 3, "{source}: {:?}", expected.keys());
        let walk = || {
            let mut walk = python();
            walk.args(["-c", "import os, sys; print(list(os.walk(sys.argv[1])))"]).arg(&raw);
            walk
        };
        let mut orders = BTreeSet::from([python_output(&mut walk())]);
        for seed in [1, 2, 3] {
            let order = python_output(walk().env("LD_PRELOAD", &library).env("SHUFFLE", seed.to_string()));
            assert!(orders.insert(order), "{source}, order {seed}: it is that of another one");
            let got = made(&out(&format!("shuffled-{seed}")), Some(seed));
            let differing: Vec<&String> =
                expected.keys().filter(|name| got.get(*name) != expected.get(*name)).collect();
            assert!(differing.is_empty() && got.len() == expected.len(), "{source}, order {seed}: {differing:?}");
        }
    }
}
