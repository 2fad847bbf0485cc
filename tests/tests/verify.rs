//! `dataset verify` on damaged datasets: whatever happened to a file, it is named, and where rows are lost, so are they.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use dataset::Dataset;
use dataset::Storage;
use dataset::image::GreyImage;
use dataset::manifest::Manifest;
use dataset::record::{ImageEncoding, Record};
use mrm_tests::{args, fails, folder, made_record, ok, phantom, write_dataset};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::file::metadata::PageIndexPolicy;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tempfile::TempDir;

const FIRST: &str = "shards/part-00000.parquet";
const SECOND: &str = "shards/part-00001.parquet";

/// A small dataset whose first shard has two row groups.
fn small_set(more: &[&str]) -> (TempDir, PathBuf) {
    let temporary = folder();
    let out = temporary.path().join("set");
    phantom(temporary.path(), 170);
    write_set(temporary.path(), &out, more);
    (temporary, out)
}

/// Ingests the phantom in `folder`.
fn write_set(folder: &Path, out: &Path, more: &[&str]) {
    let small = ["--rows-per-shard", "140", "--size", "24", "--vocab-size", "400"];
    let arguments = args!["mimic-cxr", folder.join("mimic-cxr"), out];
    ok("ingest", arguments.into_iter().chain(small.iter().chain(more).map(Into::into)));
}

/// Bytes of a shard, and what must be told of them when they are damaged.
struct Region {
    kind: &'static str,
    bytes: Range<u64>,
    told: String,
}

/// All regions of a shard, in its order, without a gap.
fn regions(out: &Path, name: &str) -> Vec<Region> {
    let bytes = bytes::Bytes::from(fs::read(out.join(name)).expect("a shard"));
    let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&bytes, options).expect("metadata");
    let metadata = metadata.metadata();
    let mut regions = vec![Region { kind: "magic", bytes: 0..4, told: name.to_owned() }];
    let mut first_row = 0;
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        let rows = row_group.num_rows() as usize;
        for (column, chunk) in row_group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            let path = chunk.column_path().string();
            if path == "image" {
                let index = metadata.page_index_for_row_group(group);
                for (row, page) in index.page_locations(column).expect("pages").iter().enumerate() {
                    let told = format!("{name}, row {}: `image` is damaged", first_row + row);
                    let (start, end) = (page.offset as u64, page.offset as u64 + page.compressed_page_size as u64);
                    // The page header takes some twenty bytes.
                    regions.push(Region { kind: "page header", bytes: start..start + 20, told: told.clone() });
                    regions.push(Region { kind: "image", bytes: start + 20..end, told });
                }
            } else {
                let told = format!("{name}, rows {first_row} to {}: `{path}` is damaged", first_row + rows - 1);
                regions.push(Region { kind: "column", bytes: start..start + length, told });
            }
        }
        first_row += rows;
    }
    let end = bytes.len() as u64;
    let length = u32::from_le_bytes(bytes[end as usize - 8..end as usize - 4].try_into().expect("four bytes"));
    let footer = end - 8 - u64::from(length);
    let pages_end = regions.last().expect("regions").bytes.end;
    for (kind, bytes) in [("page index", pages_end..footer), ("footer", footer..end - 8), ("tail", end - 8..end)] {
        regions.push(Region { kind, bytes, told: name.to_owned() });
    }
    assert!(regions.windows(2).all(|pair| pair[0].bytes.end == pair[1].bytes.start), "the regions leave no gap");
    regions
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).expect("a file");
    change(&mut bytes);
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_flipped_byte_is_named_wherever_it_lies() {
    for (more, each) in [(&[][..], 6), (&["--image-encoding", "png"], 2), (&["--compression", "zstd"], 2)] {
        let (_temporary, out) = small_set(more);
        assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
        let mut random = ChaCha8Rng::seed_from_u64(7);
        for name in [FIRST, SECOND] {
            let regions = regions(&out, name);
            let path = out.join(name);
            for kind in ["magic", "page header", "image", "column", "page index", "footer", "tail"] {
                let of_kind: Vec<&Region> =
                    regions.iter().filter(|region| region.kind == kind && !region.bytes.is_empty()).collect();
                for _ in 0..each {
                    let region = of_kind.choose(&mut random).expect("a region");
                    let (at, bit) = (random.random_range(region.bytes.clone()) as usize, random.random_range(0..8));
                    change(&path, |bytes| bytes[at] ^= 1 << bit);
                    let told = fails("dataset", 1, args!["verify", &out]);
                    let lines: Vec<&str> = told.lines().collect();
                    assert!(lines[0].starts_with(&region.told), "{kind}, byte {at}, bit {bit}:\n{told}");
                    assert_eq!(lines.len(), 2, "one line, and how many there are:\n{told}");
                    assert!(told.contains("restore it from a copy"), "{told}");
                    change(&path, |bytes| bytes[at] ^= 1 << bit);
                }
            }
        }
        assert!(ok("dataset", args!["verify", &out, "--threads", "1"]).contains("all whole"));
    }
}

#[test]
fn every_lost_row_is_named() {
    let (_temporary, out) = small_set(&[]);
    let regions = regions(&out, FIRST);
    let images: Vec<&Region> = regions.iter().filter(|region| region.kind == "image").collect();
    // One run of rows over the border of two row groups, one row, and a column.
    let column = regions.iter().find(|region| region.told.contains("rows 128 to 139: `report`")).expect("a column");
    let lost: Vec<u64> = [&images[120..132], &images[3..4]].concat().iter().map(|region| region.bytes.start).collect();
    change(&out.join(FIRST), |bytes| {
        lost.iter().chain([&column.bytes.start]).for_each(|&at| bytes[at as usize] ^= 0xff);
    });
    let told = fails("dataset", 1, args!["verify", &out]);
    for line in ["row 3: `image`", "rows 120 to 131: `image`", "rows 128 to 139: `report`"] {
        assert!(told.contains(&format!("{FIRST}, {line} is damaged")), "{line}\n{told}");
    }
    assert!(told.contains("3 problems in"), "{told}");
}

#[test]
fn a_truncated_shard_is_named() {
    let (_temporary, out) = small_set(&[]);
    let path = out.join(SECOND);
    let whole = fs::read(&path).expect("a shard");
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let mut lengths = vec![0, 1, 3, 4, 8, 11, 12, 13, whole.len() - 1, whole.len() - 8, whole.len() - 9];
    lengths.extend((0..30).map(|_| random.random_range(0..whole.len())));
    for length in lengths {
        fs::write(&path, &whole[..length]).expect("written");
        let told = fails("dataset", 1, args!["verify", &out]);
        let expected = format!("{SECOND}: {length} bytes, the manifest says {}: it was cut off", whole.len());
        assert!(told.starts_with(&expected) && told.contains("1 problems"), "{told}");
    }
    // As long as before, but zeros.
    fs::write(&path, vec![0; whole.len()]).expect("written");
    assert!(fails("dataset", 1, args!["verify", &out]).starts_with(SECOND));
    fs::write(&path, [whole.as_slice(), b"PAR1"].concat()).expect("written");
    assert!(fails("dataset", 1, args!["verify", &out]).contains("was written to"));
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let (temporary, out) = small_set(&[]);
    let (first, second) = (out.join(FIRST), out.join(SECOND));
    let verify = || fails("dataset", 1, args!["verify", &out]);
    let aside = temporary.path().join("aside");

    fs::rename(&second, &aside).expect("moved");
    assert!(verify().starts_with(&format!("{SECOND}: missing; restore")), "{}", verify());
    fs::copy(&first, &second).expect("copied");
    assert!(verify().contains(&format!("{SECOND}: holds the bytes of {FIRST}")), "{}", verify());
    fs::rename(&first, &second).expect("moved");
    fs::rename(&aside, &first).expect("moved");
    let told = verify();
    assert!(told.contains(&format!("{FIRST}: holds the bytes of {SECOND}")), "{told}");
    assert!(told.contains(&format!("{SECOND}: holds the bytes of {FIRST}")), "{told}");
    fs::rename(&first, &aside).expect("moved");
    fs::rename(&second, &first).expect("moved");
    fs::rename(&aside, &second).expect("moved");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));

    let foreign = out.join("shards/part-00002.parquet");
    fs::copy(&first, &foreign).expect("copied");
    assert!(verify().starts_with("shards/part-00002.parquet: not in the manifest"), "{}", verify());
    fs::remove_file(&foreign).expect("removed");

    for name in ["rejects.parquet", "tokenizer.json"] {
        let path = out.join(name);
        let whole = fs::read(&path).expect("a file");
        for at in [0, whole.len() / 2, whole.len() - 1] {
            change(&path, |bytes| bytes[at] ^= 1);
            assert!(verify().starts_with(name), "{}", verify());
            fs::write(&path, &whole).expect("written");
        }
        fs::remove_file(&path).expect("removed");
        assert!(verify().contains(name), "{}", verify());
        fs::write(&path, &whole).expect("written");
    }
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

#[test]
fn a_manifest_that_says_otherwise_is_named() {
    let (_temporary, out) = small_set(&[]);
    let path = out.join("dataset.json");
    let whole = Manifest::load(&Storage::folder(&out)).expect("a manifest");
    let told = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = whole.clone();
        change(&mut manifest);
        manifest.save(&Storage::folder(&out)).expect("saved");
        fails("dataset", 1, args!["verify", &out])
    };
    let version = told(&|manifest| manifest.format_version = 2);
    assert!(version.contains("dataset.json: format version 2, this build reads version 1; ingest again"), "{version}");
    for (change, rows) in [(1, 141), (-1, 139)] {
        let wrong = told(&|manifest| {
            manifest.shards[0].rows = (140 + change) as u64;
            manifest.totals.records = manifest.totals.records.wrapping_add_signed(change);
        });
        assert!(wrong.starts_with(&format!("{FIRST}: 140 rows, the manifest says {rows}")), "{wrong}");
    }
    let total = told(&|manifest| manifest.totals.records += 1);
    assert!(total.starts_with("dataset.json: ") && total.contains("its shards add up to"), "{total}");
    let digest = told(&|manifest| manifest.shards[1].sha256 = "0".repeat(64));
    assert!(digest.starts_with(&format!("{SECOND}: its rows are as they were written")), "{digest}");
    let labels = told(&|manifest| manifest.labels.reverse());
    assert!(labels.contains(&format!("{FIRST}: other findings than the manifest's")), "{labels}");
    fs::write(&path, "{}").expect("written");
    assert!(fails("dataset", 1, args!["verify", &out]).contains("dataset.json"));
}

/// Shards as they were written before there were checksums.
#[test]
fn shards_without_checksums_are_verified_as_far_as_possible() {
    for more in [&[][..], &["--image-encoding", "png"]] {
        let (_temporary, out) = small_set(more);
        let mut manifest = Manifest::load(&Storage::folder(&out)).expect("a manifest");
        for shard in &mut manifest.shards {
            let path = out.join(&shard.path);
            change(&path, |bytes| {
                let key = dataset::CHECKSUMS_KEY.as_bytes();
                let at = bytes.windows(key.len()).rposition(|window| window == key).expect("the key");
                bytes[at] = b'_';
            });
            shard.sha256 = dataset::files::sha256(&path).expect("a digest");
        }
        manifest.rejects_sha256.clear();
        manifest.save(&Storage::folder(&out)).expect("saved");
        assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
        let regions = regions(&out, FIRST);
        let image = regions.iter().find(|region| region.kind == "image").expect("an image");
        change(&out.join(FIRST), |bytes| {
            // Within the length that stands before the pixels, and within the pixels.
            bytes[image.bytes.end as usize - 100] ^= 1;
            bytes[image.bytes.start as usize + 60] ^= 1;
        });
        let told = fails("dataset", 1, args!["verify", &out]);
        assert!(told.contains(&format!("{FIRST}: its SHA-256 is not the manifest's")), "{told}");
        assert_eq!(told.contains(&format!("{FIRST}, row 0")), !more.is_empty(), "{told}");
    }
}

#[test]
fn a_damaged_image_is_neither_shown_nor_exported() {
    let (temporary, out) = small_set(&[]);
    let regions = regions(&out, FIRST);
    let image = regions.iter().find(|region| region.kind == "image").expect("an image");
    let first = Dataset::open(&out).expect("a dataset").record(0).expect("a record").record_id;
    change(&out.join(FIRST), |bytes| bytes[image.bytes.end as usize - 7] ^= 4);
    let told = fails("dataset", 1, args!["inspect", &out, "--row", &first]);
    assert!(told.contains(&format!("{FIRST}, row 0: its image is damaged")), "{told}");
    let told = fails("dataset", 1, args!["export", &out, temporary.path().join("export"), "--to", "csv"]);
    assert!(told.contains(&format!("{FIRST}, row 0: its image is damaged")), "{told}");
    // The table alone needs no image.
    ok("dataset", args!["export", &out, temporary.path().join("table"), "--to", "csv", "--no-images"]);
}

/// What is whole and was written so, but means nothing.
#[test]
fn codes_and_pictures_that_mean_nothing_are_named() {
    let temporary = folder();
    let told = |name: &str, encoding: ImageEncoding, change: &dyn Fn(&mut Record)| {
        let out = temporary.path().join(name);
        let mut records: Vec<Record> = (0..3).map(|row| made_record(row, (10, 14), 1)).collect();
        for record in &mut records {
            if encoding != ImageEncoding::Raw {
                let (width, height) = (record.width.into(), record.height.into());
                let pixels = std::mem::take(&mut record.image);
                record.image = GreyImage { width, height, pixels }.encode(encoding).expect("encoded");
            }
        }
        change(&mut records[1]);
        write_dataset(&out, &["A"], encoding, &[records]);
        fails("dataset", 1, args!["verify", &out])
    };
    let code = told("code", ImageEncoding::Raw, &|record| record.labels[0] = Some(3));
    assert!(code.contains("label code 3, which is none of 1, 0, -1"), "{code}");
    let token = told("token", ImageEncoding::Raw, &|record| record.token_ids[2] = 100);
    assert!(token.contains("token id 100, of a vocabulary of 100"), "{token}");
    let long = told("long", ImageEncoding::Raw, &|record| record.image.extend([250; 9]));
    assert!(long.contains("row 1: the image page does not hold 140 bytes"), "{long}");
    let turned = told("turned", ImageEncoding::Png, &|record| {
        (record.width, record.height) = (record.height, record.width);
    });
    assert!(turned.contains("row 1: image of 14×10, its columns say 10×14"), "{turned}");
}

/// Any image by its row, whatever lies around it.
#[test]
fn every_encoding_holds_the_same_pictures() {
    let (temporary, raw) = small_set(&[]);
    let expected = Dataset::open(&raw).expect("a dataset");
    for (at, more) in
        [["--compression", "lz4"], ["--compression", "zstd"], ["--image-encoding", "png"]].into_iter().enumerate()
    {
        let out = temporary.path().join(at.to_string());
        write_set(temporary.path(), &out, &more);
        let found = Dataset::open(&out).expect("a dataset");
        assert_eq!(found.len(), expected.len());
        for row in (0..expected.len()).rev() {
            let (mut wanted, record) = (expected.record(row).expect("a record"), found.record(row).expect("a record"));
            let picture = |dataset: &Dataset| dataset.image(row, wanted.height, wanted.width).expect("a picture");
            assert_eq!(picture(&found).pixels, picture(&expected).pixels, "{more:?}, row {row}");
            if more[1] == "png" {
                let decoded = dataset::image::decode(&record.image).expect("a picture");
                assert_eq!(decoded.pixels, wanted.image);
                wanted.image.clone_from(&record.image);
            }
            assert_eq!(record, wanted, "{more:?}, row {row}");
        }
    }
}

/// Pipes, devices and files without an end in the place of a dataset's files.
#[test]
fn files_that_never_end_are_told_and_not_waited_for() {
    let (_temporary, out) = small_set(&[]);
    ok("dataset", args!["split", &out, "--name", "main"]);
    let files = [FIRST, "tokenizer.json", "rejects.parquet", "splits/main.parquet", "splits/main.json", "dataset.json"];
    for name in files {
        let path = out.join(name);
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).expect("renamed");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let told = fails("dataset", 1, args!["verify", &out]);
        assert!(told.contains(name) && told.contains("no regular file"), "{name}: {told}");
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        let told = fails("dataset", 1, args!["verify", &out]);
        assert!(told.contains(name) && told.contains("no regular file"), "{name}: {told}");
        fs::remove_file(&path).expect("removed");
        // Of a terabyte, none of it written.
        fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        let told = fails("dataset", 1, args!["verify", &out]);
        assert!(told.contains(name) && told.contains("1099511627776 bytes"), "{name}: {told}");
        fs::rename(&kept, &path).expect("renamed");
    }
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

/// A manifest that claims more records than there are must not take memory for them.
#[test]
fn a_manifest_that_claims_too_many_rows_is_compared_with_the_footer() {
    let (temporary, out) = small_set(&[]);
    let storage = Storage::folder(&out);
    let mut manifest = Manifest::load(&storage).expect("a manifest");
    manifest.shards[0].rows = 4_294_967_000;
    manifest.save(&storage).expect("saved");
    let export = temporary.path().join("export");
    for arguments in [
        args!["bench", &out, "--seconds", "0.1"].to_vec(),
        args!["bench", &out, "--transform", "none", "--seconds", "0.1"].to_vec(),
        args!["export", &out, &export, "--to", "csv", "--no-images"].to_vec(),
        args!["inspect", &out, "--montage", temporary.path().join("look.png")].to_vec(),
        args!["verify", &out].to_vec(),
    ] {
        let mut shell = std::process::Command::new("bash");
        shell.args(["-c", "ulimit -v 8000000; exec \"$@\"", "bash"]).arg(mrm_tests::binary("dataset"));
        let output = shell.args(&arguments).output().expect("it runs");
        let told = mrm_tests::text(&output.stderr);
        let named = told.contains(FIRST) && told.contains("140 rows") && told.contains("4294967000");
        assert!(output.status.code() == Some(1) && named, "{arguments:?}: {told}");
    }
    assert!(!export.exists());
}
