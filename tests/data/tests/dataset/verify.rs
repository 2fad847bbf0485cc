//! `dataset verify` on damaged datasets: it reports damaged files and lost rows.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dataset::format::image_codec::GrayPixels;
use dataset::format::manifest::Manifest;
use dataset::format::record::{BoundingBox, ImageEncoding, NamedMask, Record};
use dataset::{Dataset, Storage};
use helpers::{args, contents, edit, fails, flip_bit, folder, made_record, ok, phantom, write_dataset};
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

/// Bytes of a shard, and how `verify` names them when they are damaged.
struct Region {
    kind: &'static str,
    bytes: Range<u64>,
    place: String,
}

/// All regions of a shard, in order, without gaps.
fn regions(out: &Path, name: &str) -> Vec<Region> {
    let bytes = bytes::Bytes::from(fs::read(out.join(name)).expect("a shard"));
    let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Required);
    let metadata = ArrowReaderMetadata::load(&bytes, options).expect("metadata");
    let metadata = metadata.metadata();
    let mut regions = vec![Region { kind: "magic", bytes: 0..4, place: name.to_owned() }];
    let mut first_row = 0;
    for (group, row_group) in metadata.row_groups().iter().enumerate() {
        let rows = row_group.num_rows() as usize;
        for (column, chunk) in row_group.columns().iter().enumerate() {
            let (start, length) = chunk.byte_range();
            let path = chunk.column_path().string();
            if path == "image" {
                let index = metadata.page_index_for_row_group(group);
                for (row, page) in index.page_locations(column).expect("pages").iter().enumerate() {
                    let place = format!("{name}, row {}: `image` is damaged", first_row + row);
                    let (start, end) = (page.offset as u64, page.offset as u64 + page.compressed_page_size as u64);
                    // The page header takes some twenty bytes.
                    regions.push(Region { kind: "page header", bytes: start..start + 20, place: place.clone() });
                    regions.push(Region { kind: "image", bytes: start + 20..end, place });
                }
            } else {
                let place = format!("{name}, rows {first_row} to {}: `{path}` is damaged", first_row + rows - 1);
                regions.push(Region { kind: "column", bytes: start..start + length, place });
            }
        }
        first_row += rows;
    }
    let end = bytes.len() as u64;
    let length = u32::from_le_bytes(bytes[end as usize - 8..end as usize - 4].try_into().expect("four bytes"));
    let footer = end - 8 - u64::from(length);
    let pages_end = regions.last().expect("regions").bytes.end;
    for (kind, bytes) in [("page index", pages_end..footer), ("footer", footer..end - 8), ("tail", end - 8..end)] {
        regions.push(Region { kind, bytes, place: name.to_owned() });
    }
    assert!(regions.windows(2).all(|pair| pair[0].bytes.end == pair[1].bytes.start), "the regions have no gaps");
    regions
}

const KINDS: [&str; 7] = ["magic", "page header", "image", "column", "page index", "footer", "tail"];

/// Flips a bit in each region of each shard, `each` times a region, and tries what reads it. Returns how many of all the
/// attempts failed.
fn with_flipped_bits(
    out: &Path,
    seed: u64,
    each: usize,
    attempt: &mut dyn FnMut(&Region, &str) -> bool,
) -> (usize, usize) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut failed, mut tried) = (0, 0);
    for name in [FIRST, SECOND] {
        let (regions, path) = (regions(out, name), out.join(name));
        for kind in KINDS {
            let of_kind: Vec<&Region> =
                regions.iter().filter(|region| region.kind == kind && !region.bytes.is_empty()).collect();
            for _ in 0..each {
                let region = of_kind.choose(&mut random).expect("a region");
                let (at, bit) = (random.random_range(region.bytes.clone()) as usize, random.random_range(0..8));
                flip_bit(&path, at, bit);
                failed += usize::from(attempt(region, &format!("{name}, {kind}, byte {at}, bit {bit}")));
                tried += 1;
                flip_bit(&path, at, bit);
            }
        }
    }
    (failed, tried)
}

#[test]
fn a_flipped_bit_is_reported_with_its_place() {
    for (more, each) in [(&[][..], 6), (&["--image-encoding", "png"], 2), (&["--compression", "zstd"], 2)] {
        let (_temporary, out) = small_set(more);
        assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
        with_flipped_bits(&out, 7, each, &mut |region, flipped| {
            let message = fails("dataset", 1, args!["verify", &out]);
            let lines: Vec<&str> = message.lines().collect();
            assert!(lines[0].starts_with(&region.place), "{flipped}:\n{message}");
            assert_eq!(lines.len(), 2, "one line, and how many there are:\n{message}");
            assert!(message.contains("restore it from a copy"), "{message}");
            true
        });
        assert!(ok("dataset", args!["verify", &out, "--threads", "1"]).contains("all whole"));
    }
}

#[test]
fn every_lost_row_is_reported() {
    let (_temporary, out) = small_set(&[]);
    let regions = regions(&out, FIRST);
    let images: Vec<&Region> = regions.iter().filter(|region| region.kind == "image").collect();
    // Consecutive rows across the border of two row groups, one row, and a column.
    let column = regions.iter().find(|region| region.place.contains("rows 128 to 139: `report`")).expect("a column");
    let lost: Vec<u64> = [&images[120..132], &images[3..4]].concat().iter().map(|region| region.bytes.start).collect();
    edit(&out.join(FIRST), |bytes| {
        lost.iter().chain([&column.bytes.start]).for_each(|&at| bytes[at as usize] ^= 0xff);
    });
    let message = fails("dataset", 1, args!["verify", &out]);
    for line in ["row 3: `image`", "rows 120 to 131: `image`", "rows 128 to 139: `report`"] {
        assert!(message.contains(&format!("{FIRST}, {line} is damaged")), "{line}\n{message}");
    }
    assert!(message.contains("3 problems in"), "{message}");
}

#[test]
fn a_truncated_shard_is_reported() {
    let (_temporary, out) = small_set(&[]);
    let path = out.join(SECOND);
    let whole = fs::read(&path).expect("a shard");
    let mut random = ChaCha8Rng::seed_from_u64(8);
    let mut lengths = vec![0, 1, 3, 4, 8, 11, 12, 13, whole.len() - 1, whole.len() - 8, whole.len() - 9];
    lengths.extend((0..30).map(|_| random.random_range(0..whole.len())));
    for length in lengths {
        fs::write(&path, &whole[..length]).expect("written");
        let message = fails("dataset", 1, args!["verify", &out]);
        let expected = format!("{SECOND}: {length} bytes, the manifest says {}: it was cut off", whole.len());
        assert!(message.starts_with(&expected) && message.contains("1 problem in"), "{message}");
    }
    // As long as before, but zeros.
    fs::write(&path, vec![0; whole.len()]).expect("written");
    assert!(fails("dataset", 1, args!["verify", &out]).starts_with(SECOND));
    fs::write(&path, [whole.as_slice(), b"PAR1"].concat()).expect("written");
    assert!(fails("dataset", 1, args!["verify", &out]).contains("was written to"));
}

#[test]
fn files_of_different_datasets_are_reported() {
    let (temporary, out) = small_set(&[]);
    let (first, second) = (out.join(FIRST), out.join(SECOND));
    let verify = || fails("dataset", 1, args!["verify", &out]);
    let aside = temporary.path().join("aside");

    fs::rename(&second, &aside).expect("moved");
    assert!(verify().starts_with(&format!("{SECOND}: missing; restore")), "{}", verify());
    fs::copy(&first, &second).expect("copied");
    assert!(verify().contains(&format!("{SECOND}: contains the bytes of {FIRST}")), "{}", verify());
    fs::rename(&first, &second).expect("moved");
    fs::rename(&aside, &first).expect("moved");
    let printed = verify();
    assert!(printed.contains(&format!("{FIRST}: contains the bytes of {SECOND}")), "{printed}");
    assert!(printed.contains(&format!("{SECOND}: contains the bytes of {FIRST}")), "{printed}");
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
            edit(&path, |bytes| bytes[at] ^= 1);
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
fn a_manifest_that_disagrees_with_the_shards_is_reported() {
    let (_temporary, out) = small_set(&[]);
    let path = out.join("dataset.json");
    let whole = Manifest::load(&Storage::folder(&out)).expect("a manifest");
    let printed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = whole.clone();
        change(&mut manifest);
        manifest.save(&Storage::folder(&out)).expect("saved");
        fails("dataset", 1, args!["verify", &out])
    };
    let version = printed(&|manifest| manifest.format_version = 3);
    assert!(version.contains("dataset.json: format version 3, this build reads versions 1 and 2; "), "{version}");
    for (change, rows) in [(1, 141), (-1, 139)] {
        let wrong = printed(&|manifest| {
            manifest.shards[0].rows = (140 + change) as u64;
            manifest.totals.records = manifest.totals.records.wrapping_add_signed(change);
        });
        assert!(wrong.starts_with(&format!("{FIRST}: 140 rows, the manifest says {rows}")), "{wrong}");
    }
    let total = printed(&|manifest| manifest.totals.records += 1);
    assert!(total.starts_with("dataset.json: ") && total.contains("but its shards have"), "{total}");
    let digest = printed(&|manifest| manifest.shards[1].sha256 = "0".repeat(64));
    assert!(digest.starts_with(&format!("{SECOND}: its rows are as they were written")), "{digest}");
    let labels = printed(&|manifest| manifest.labels.reverse());
    assert!(labels.contains(&format!("{FIRST}: other findings than the manifest's")), "{labels}");
    fs::write(&path, "{}").expect("written");
    assert!(fails("dataset", 1, args!["verify", &out]).contains("dataset.json"));
}

/// Shards as written by versions without checksums.
#[test]
fn shards_without_checksums_are_verified_as_far_as_possible() {
    for more in [&[][..], &["--image-encoding", "png"]] {
        let (_temporary, out) = small_set(more);
        let mut manifest = Manifest::load(&Storage::folder(&out)).expect("a manifest");
        for shard in &mut manifest.shards {
            let path = out.join(&shard.path);
            edit(&path, |bytes| {
                let key = dataset::CHECKSUMS_KEY.as_bytes();
                let at = bytes.windows(key.len()).rposition(|window| window == key).expect("the key");
                bytes[at] = b'_';
            });
            shard.footer = None;
            shard.sha256 = dataset::store::files::sha256(&path).expect("a digest");
        }
        manifest.rejects_sha256.clear();
        manifest.save(&Storage::folder(&out)).expect("saved");
        assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
        let regions = regions(&out, FIRST);
        let image = regions.iter().find(|region| region.kind == "image").expect("an image");
        edit(&out.join(FIRST), |bytes| {
            // In the length before the pixels, and in the pixels.
            bytes[image.bytes.end as usize - 100] ^= 1;
            bytes[image.bytes.start as usize + 60] ^= 1;
        });
        let message = fails("dataset", 1, args!["verify", &out]);
        assert!(message.contains(&format!("{FIRST}: its SHA-256 is not the manifest's")), "{message}");
        assert_eq!(message.contains(&format!("{FIRST}, row 0")), !more.is_empty(), "{message}");
    }
}

#[test]
fn a_damaged_image_is_neither_shown_nor_exported() {
    let (temporary, out) = small_set(&[]);
    let regions = regions(&out, FIRST);
    let image = regions.iter().find(|region| region.kind == "image").expect("an image");
    let first = Dataset::open(&out).expect("a dataset").record(0).expect("a record").record_id;
    edit(&out.join(FIRST), |bytes| bytes[image.bytes.end as usize - 7] ^= 4);
    let message = fails("dataset", 1, args!["inspect", &out, "--row", &first]);
    assert!(message.contains(&format!("{FIRST}, row 0: `image` is damaged")), "{message}");
    let message = fails("dataset", 1, args!["export", &out, temporary.path().join("export"), "--to", "csv"]);
    assert!(message.contains(&format!("{FIRST}, row 0: `image` is damaged")), "{message}");
    // The table without images can be exported.
    ok("dataset", args!["export", &out, temporary.path().join("table"), "--to", "csv", "--no-images"]);
}

/// An export of a damaged dataset fails, or equals that of the undamaged one.
#[test]
fn no_export_has_flipped_bits() {
    let (temporary, out) = small_set(&[]);
    for (format, more, each) in
        [("csv", &[][..], 6), ("csv", &["--no-images"], 3), ("webdataset", &[], 2), ("hf", &[], 2)]
    {
        let run = |at: &Path| {
            let arguments = args!["export", &out, at, "--to", format];
            helpers::run("dataset", arguments.into_iter().chain(more.iter().map(Into::into)))
        };
        let whole = temporary.path().join("whole");
        assert!(run(&whole).status.success());
        let expected = contents(&whole);
        fs::remove_dir_all(&whole).expect("removed");
        let (failed, tried) = with_flipped_bits(&out, 11, each, &mut |_, flipped| {
            let export = temporary.path().join("export");
            let output = run(&export);
            let message = helpers::text(&output.stderr);
            if output.status.success() {
                assert!(contents(&export) == expected, "{format}: {flipped}: a different export");
            } else {
                assert_eq!(output.status.code(), Some(1), "{format}: {flipped}: {message}");
                assert!(message.contains("shards/part-0000") && !message.contains("panicked"), "{flipped}: {message}");
            }
            let _ = fs::remove_dir_all(&export);
            !output.status.success()
        });
        // Everything except the magic number at the beginning is read; the table without images reads no image.
        assert!(failed * 7 >= tried * if more.is_empty() { 6 } else { 4 }, "{format}: {failed} of {tried} failed");
    }
}

/// Name of a way to read a dataset, and the way.
type Read<'a> = (&'a str, &'a dyn Fn(&Arc<Dataset>) -> Result<String, String>);

/// Every way to read a dataset gives what was written, or an error.
#[test]
fn no_reader_returns_flipped_bits() {
    for more in [&[][..], &["--image-encoding", "png"], &["--compression", "zstd"]] {
        let (_temporary, out) = small_set(more);
        let message = |error: dataset::Error| error.to_string();
        let texts = |dataset: &Arc<Dataset>| -> Result<String, String> {
            let found = ["record_id", "patient_id", "report", "view"].map(|name| dataset.texts(name));
            Ok(format!("{:?}", found.into_iter().collect::<Result<Vec<_>, _>>().map_err(message)?))
        };
        let labels = |dataset: &Arc<Dataset>| -> Result<String, String> {
            Ok(format!("{:?}", dataset.labels().map_err(message)?))
        };
        let table = |dataset: &Arc<Dataset>| -> Result<String, String> {
            let frame = dataset.metadata().map_err(message)?;
            Ok(format!("{:?}", (0..frame.height()).map(|row| frame.get(row)).collect::<Vec<_>>()))
        };
        let records = |dataset: &Arc<Dataset>| -> Result<String, String> {
            let records: Result<Vec<Record>, _> = (0..dataset.len()).map(|row| dataset.record(row)).collect();
            Ok(format!("{:?}", records.map_err(message)?))
        };
        let page = |dataset: &Arc<Dataset>| -> Result<String, String> {
            dataset::commands::inspect::summary(dataset).map_err(message)
        };
        let readers: [Read<'_>; 5] =
            [("texts", &texts), ("labels", &labels), ("table", &table), ("records", &records), ("summary", &page)];
        let open = || Dataset::open(&out).map(Arc::new).expect("a manifest");
        let expected = readers.map(|(_, read)| read(&open()).expect("a whole dataset"));
        let (failed, _) = with_flipped_bits(&out, 12, 4, &mut |_, flipped| {
            let failed = readers.iter().zip(&expected).filter(|((reader, read), expected)| match read(&open()) {
                Ok(found) => {
                    assert!(found == **expected, "{reader}: {flipped}");
                    false
                }
                Err(error) => {
                    assert!(error.contains("shards/part-0000"), "{reader}: {flipped}: {error}");
                    true
                }
            });
            failed.count() > 0
        });
        assert!(failed > 40, "{failed}");
        // `without_checksums` reads without the check.
        let image = regions(&out, FIRST).into_iter().find(|region| region.kind == "image").expect("an image");
        edit(&out.join(FIRST), |bytes| bytes[image.bytes.end as usize - 1] ^= 1);
        assert!(matches!(open().record(0), Err(dataset::Error::Damaged { .. })));
        let unchecked = Dataset::open(&out).expect("a manifest").without_checksums();
        assert!(!matches!(unchecked.record(0), Err(dataset::Error::Damaged { .. })));
    }
}

/// Undamaged files with invalid values.
#[test]
fn invalid_codes_and_images_are_reported() {
    let temporary = folder();
    let printed = |name: &str, encoding: ImageEncoding, change: &dyn Fn(&mut Record)| {
        let out = temporary.path().join(name);
        let mut records: Vec<Record> = (0..3).map(|row| made_record(row, (10, 14), 1)).collect();
        for record in &mut records {
            if encoding != ImageEncoding::Raw {
                let (width, height) = (record.width.into(), record.height.into());
                let pixels = std::mem::take(&mut record.image);
                record.image = GrayPixels { width, height, pixels }.encode(encoding).expect("encoded");
            }
        }
        change(&mut records[1]);
        write_dataset(&out, &["A"], encoding, &[records]);
        fails("dataset", 1, args!["verify", &out])
    };
    let out = temporary.path().join("coded");
    let records: Vec<Record> = (0..3).map(|row| made_record(row, (10, 14), 1)).collect();
    write_dataset(&out, &["A"], ImageEncoding::Raw, &[records]);
    helpers::set_label_code(&out, 0, 1, 0, 3);
    let code = fails("dataset", 1, args!["verify", &out]);
    assert!(code.contains("label code 3, which is none of 1, 0, -1"), "{code}");
    let token = printed("token", ImageEncoding::Raw, &|record| record.token_ids[2] = 100);
    assert!(token.contains("token id 100, but the vocabulary has 100 pieces"), "{token}");
    let long = printed("long", ImageEncoding::Raw, &|record| record.image.extend([250; 9]));
    assert!(long.contains("row 1: the image page does not contain 140 bytes"), "{long}");
    let turned = printed("turned", ImageEncoding::Png, &|record| {
        (record.width, record.height) = (record.height, record.width);
        (record.source_width, record.source_height) = (record.source_height, record.source_width);
    });
    assert!(turned.contains("row 1: image of 14×10, its columns say 10×14"), "{turned}");
    for printed in [&code, &token, &long, &turned] {
        assert!(printed.starts_with(&format!("{FIRST}, row 1: ")) && printed.contains("1 problem in"), "{printed}");
    }
    let many = printed("many", ImageEncoding::Raw, &|record| record.token_ids.resize(101, 5));
    assert!(many.starts_with(&format!("{FIRST}, row 1: 101 token ids, the manifest says 100 at most")), "{many}");
    for (at, place) in
        [[f32::NAN, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 16.0], [1.0, 1.0, f32::INFINITY, 2.0]].iter().enumerate()
    {
        let [x, y, width, height] = *place;
        let boxed = printed(&format!("box {at}"), ImageEncoding::Raw, &|record| {
            record.boxes = vec![BoundingBox { label: "A".to_owned(), x, y, width, height, ..BoundingBox::default() }];
        });
        assert!(boxed.starts_with(&format!("{FIRST}, row 1: a box at ")), "{boxed}");
        assert!(boxed.contains("which is not inside its image of 10 × 14"), "{boxed}");
    }
    let png = |color, depth, (width, height): (u32, u32), bytes: usize| {
        let mut png = Vec::new();
        let mut encoder = png::Encoder::new(&mut png, width, height);
        encoder.set_color(color);
        encoder.set_depth(depth);
        encoder.write_header().and_then(|mut writer| writer.write_image_data(&vec![0; bytes])).expect("a PNG");
        png
    };
    let gray = png::ColorType::Grayscale;
    for (at, (mask, expected)) in [
        (png(gray, png::BitDepth::One, (14, 10), 20), "its mask has another size (14 × 10) than its image (10 × 14)"),
        (png(gray, png::BitDepth::Eight, (10, 14), 140), "its mask is not a 1-bit gray PNG"),
        (png(png::ColorType::Rgb, png::BitDepth::Eight, (10, 14), 420), "its mask is not a 1-bit gray PNG"),
        (b"no PNG".to_vec(), "its mask is not a 1-bit gray PNG"),
    ]
    .into_iter()
    .enumerate()
    {
        let mask = printed(&format!("mask {at}"), ImageEncoding::Raw, &|record| {
            record.masks = vec![NamedMask { name: "mask".to_owned(), png: mask.clone() }];
        });
        assert!(mask.starts_with(&format!("{FIRST}, row 1: {expected}")), "{mask}");
    }
    for (at, image) in [
        png(png::ColorType::Rgb, png::BitDepth::Eight, (10, 14), 420),
        GrayPixels { width: 10, height: 14, pixels: vec![7; 140] }.encode(ImageEncoding::Jpeg).expect("encoded"),
    ]
    .into_iter()
    .enumerate()
    {
        let other = printed(&format!("image {at}"), ImageEncoding::Png, &|record| record.image.clone_from(&image));
        assert!(other.starts_with(&format!("{FIRST}, row 1: its image is ")), "{other}");
        assert!(other.contains("the dataset's images are 8-bit gray png"), "{other}");
    }
    let named = printed("control", ImageEncoding::Raw, &|record| record.patient_id = "p\u{1b}[2J".to_owned());
    assert!(
        named.starts_with(&format!("{FIRST}, row 1: `patient_id` contains the control character U+001B")),
        "{named}"
    );
    let named = printed("long id", ImageEncoding::Raw, &|record| record.image_id = "x".repeat(1 << 20));
    assert!(named.starts_with(&format!("{FIRST}, row 1: `image_id` has 1048576 bytes, the most is 4096")), "{named}");
    let twice = printed("twice", ImageEncoding::Raw, &|record| record.record_id = "made/00000".to_owned());
    assert!(
        twice.starts_with(&format!("{FIRST}, row 1: record `made/00000` is also that of {FIRST}, row 0")),
        "{twice}"
    );
}

/// A manifest, a tokenizer and a shard that contradict each other, with correct checksums.
#[test]
fn files_that_contradict_each_other_are_reported() {
    let temporary = folder();
    let out = temporary.path().join("set");
    let records: Vec<Record> = (0..3).map(|row| made_record(row, (10, 14), 1)).collect();
    write_dataset(&out, &["A"], ImageEncoding::Raw, &[records]);
    let storage = Storage::folder(&out);
    let whole = Manifest::load(&storage).expect("a manifest");
    let printed = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = whole.clone();
        change(&mut manifest);
        manifest.save(&storage).expect("saved");
        fails("dataset", 1, args!["verify", &out])
    };

    // Shards outside of the dataset are not read.
    let beside = temporary.path().join("part.parquet");
    fs::copy(out.join(FIRST), &beside).expect("copied");
    for path in ["../part.parquet", "shards/../../part.parquet", beside.to_str().expect("UTF-8"), "", "."] {
        let elsewhere = printed(&|manifest| path.clone_into(&mut manifest.shards[0].path));
        assert!(elsewhere.contains(&format!("the shard `{path}` is outside of the dataset")), "{elsewhere}");
        assert!(fails("dataset", 1, args!["inspect", &out]).contains("is outside of the dataset"));
    }

    let encoding = printed(&|manifest| manifest.image.encoding = ImageEncoding::Png);
    assert!(encoding.starts_with(&format!("{FIRST}: its images are raw, the manifest says png")), "{encoding}");
    let vocabulary = printed(&|manifest| manifest.text.vocabulary = 101);
    assert!(vocabulary.contains("tokenizer.json: a vocabulary of 100 pieces, the manifest says 101"), "{vocabulary}");
    let footer = printed(&|manifest| manifest.shards[0].footer.as_mut().expect("a footer").crc32 ^= 1);
    assert!(footer.starts_with(&format!("{FIRST}, its page index or footer is damaged")), "{footer}");

    let tokenizer = out.join("tokenizer.json");
    let kept = fs::read(&tokenizer).expect("a tokenizer");
    fs::write(&tokenizer, "{").expect("written");
    let digest = dataset::store::files::sha256(&tokenizer).expect("a digest");
    let unread = printed(&|manifest| manifest.text.tokenizer_sha256.clone_from(&digest));
    assert!(unread.contains("tokenizer.json: ") && unread.contains("1 problem in"), "{unread}");
    fs::write(&tokenizer, kept).expect("written");

    // A writer whose schema allows nulls where the format does not.
    let shard = dataset::format::shard::Shard::open(&storage, &whole.shards[0]).expect("a shard");
    let mut schema = shard.schema().clone();
    let names: Vec<&str> = shard.schema().fields.iter().map(|field| field.name().as_str()).collect();
    let batch = shard.columns(&names).expect("columns").remove(0);
    let columns = batch.columns().iter().zip(&names).map(|(column, &name)| {
        let nulls = (name == "labels").then(|| vec![true, true, false].into());
        let data = column.to_data().into_builder();
        let data = if nulls.is_some() { data.nulls(nulls) } else { data };
        arrow_array::make_array(data.build().expect("an array"))
    });
    let columns = columns.collect();
    schema.fields =
        schema.fields.iter().map(|field| field.as_ref().clone().with_nullable(field.name() != "image")).collect();
    let schema = Arc::new(schema);
    let batch = arrow_array::RecordBatch::try_new(schema.clone(), columns).expect("a batch");
    let image = parquet::schema::types::ColumnPath::from("image");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_write_batch_size(1)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_data_page_row_count_limit(image, 1)
        .build();
    let file = fs::File::create(out.join(FIRST)).expect("a file");
    let mut writer = parquet::arrow::ArrowWriter::try_new(file, schema, Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    let foreign = |manifest: &mut Manifest| {
        let shard = &mut manifest.shards[0];
        shard.bytes = fs::metadata(out.join(FIRST)).expect("a file").len();
        shard.sha256 = dataset::store::files::sha256(&out.join(FIRST)).expect("a digest");
        shard.footer = None;
    };
    let null = printed(&foreign);
    assert!(null.starts_with(&format!("{FIRST}, row 2: `labels` is null")), "{null}");
    let dataset = Dataset::open(&out).expect("a dataset");
    assert!(dataset.labels().is_err());
    assert_eq!(dataset.texts("record_id").expect("a column").len(), 3, "its other columns are readable");
}

/// Reading any image by its row, in every encoding.
#[test]
fn every_encoding_holds_the_same_images() {
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
            let image = |dataset: &Dataset| dataset.image(row).expect("an image");
            assert_eq!(image(&found).pixels, image(&expected).pixels, "{more:?}, row {row}");
            if more[1] == "png" {
                let decoded = dataset::format::image_codec::decode(&record.image).expect("an image");
                assert_eq!(decoded.pixels, wanted.image);
                wanted.image.clone_from(&record.image);
            }
            assert_eq!(record, wanted, "{more:?}, row {row}");
        }
    }
}

/// Pipes, devices and endless files in place of the files of a dataset.
#[test]
fn named_pipes_are_reported_and_not_read() {
    let (_temporary, out) = small_set(&[]);
    ok("dataset", args!["split", &out, "--name", "main"]);
    let files = [FIRST, "tokenizer.json", "rejects.parquet", "splits/main.parquet", "splits/main.json", "dataset.json"];
    for name in files {
        let path = out.join(name);
        let kept = path.with_extension("kept");
        fs::rename(&path, &kept).expect("renamed");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let message = fails("dataset", 1, args!["verify", &out]);
        assert!(message.contains(name) && message.contains("not a regular file"), "{name}: {message}");
        fs::remove_file(&path).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &path).expect("a link");
        let message = fails("dataset", 1, args!["verify", &out]);
        assert!(message.contains(name) && message.contains("not a regular file"), "{name}: {message}");
        fs::remove_file(&path).expect("removed");
        // A sparse file of a terabyte.
        fs::File::create(&path).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
        let message = fails("dataset", 1, args!["verify", &out]);
        assert!(message.contains(name) && message.contains("1099511627776 bytes"), "{name}: {message}");
        fs::rename(&kept, &path).expect("renamed");
    }
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

/// A manifest that states too many records must not cause an allocation for them.
#[test]
fn a_manifest_with_too_many_rows_is_compared_with_the_footer() {
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
        shell.args(["-c", "ulimit -v 8000000; exec \"$@\"", "bash"]).arg(helpers::binary("dataset"));
        let output = shell.args(&arguments).output().expect("it runs");
        let message = helpers::text(&output.stderr);
        let named = message.contains(FIRST) && message.contains("140 rows") && message.contains("4294967000");
        assert!(output.status.code() == Some(1) && named, "{arguments:?}: {message}");
    }
    assert!(!export.exists());
}
