//! All readers see the same rows, and the order in which a file system lists files changes nothing.

use std::collections::BTreeMap;
use std::path::Path;

use dataset::Dataset;
use helpers::{args, command, contents, folder, ingest, ok, phantom_of, python, python_output, repository};
use sha2::{Digest, Sha256};

/// Prints a line for each row by each reader: its number, identifiers, sizes, digest of the image, tokens, labels, report.
const READERS: &str = r#"
import hashlib, json, sys, zlib
import duckdb, polars, pyarrow.dataset

root = sys.argv[1]
files = [f"{root}/{shard['path']}" for shard in json.load(open(root + "/dataset.json"))["shards"]]
findings = json.load(open(root + "/dataset.json"))["labels"]
COLUMNS = ["record_id", "patient_id", "view", "height", "width", "image", "token_ids", "labels", "report"]

def show(reader, row, record):
    tokens = "none" if record["token_ids"] is None else ",".join(map(str, record["token_ids"]))
    codes = [(record["labels"] or {}).get(name) for name in findings]
    print(reader, row, "|".join([
        record["record_id"], record["patient_id"], str(record["view"]), f"{record['height']}x{record['width']}",
        hashlib.sha256(record["image"]).hexdigest(), tokens, ",".join("none" if code is None else str(code) for code in codes),
        hashlib.sha256((record["report"] or "").encode()).hexdigest()]), sep="|")

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
            let tokens: Vec<String> = record.token_ids.iter().map(ToString::to_string).collect();
            let labels: Vec<String> =
                (codes.iter()).map(|code| code.map_or_else(|| "none".to_owned(), |code| code.to_string())).collect();
            let line = [
                row.to_string(),
                record.record_id.clone(),
                record.patient_id.clone(),
                record.view.clone().unwrap_or_else(|| "None".to_owned()),
                format!("{}x{}", record.height, record.width),
                sha256(&record.image),
                tokens.join(","),
                labels.join(","),
                sha256(record.report.as_deref().unwrap_or_default().as_bytes()),
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
        for seed in [1, 2, 3] {
            let got = made(&out(&format!("shuffled-{seed}")), Some(seed));
            let differing: Vec<&String> =
                expected.keys().filter(|name| got.get(*name) != expected.get(*name)).collect();
            assert!(differing.is_empty() && got.len() == expected.len(), "{source}, order {seed}: {differing:?}");
        }
    }
}
