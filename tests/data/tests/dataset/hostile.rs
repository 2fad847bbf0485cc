//! Well-formed shards of another author whose values lie; all checksums are those of the files. `dataset verify` names shard and
//! row, a loader refuses what it reads, nothing panics, and memory is bounded.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use arrow_array::{Array, ArrayRef, RecordBatch, make_array};
use dataset::format::image_codec::GrayPixels;
use dataset::format::manifest::Manifest;
use dataset::format::record::{BoundingBox, ImageEncoding, NamedMask, NamedText, Record};
use dataset::format::shard::Shard;
use dataset::loader::TextOptions;
use dataset::transform::Transform;
use dataset::{Dataset, Loader, Storage};
use helpers::{args, fails, folder, made_record, ok, retyped, rewrite_shard, text, with_column, write_dataset};

const SECOND: &str = "shards/part-00001.parquet";
/// Width and height.
const SIDES: (u16, u16) = (10, 14);

/// Two shards of three records; row 1 of the second one is changed.
fn written(out: &Path, encoding: ImageEncoding, change: &dyn Fn(&mut Record)) {
    let mut shards: Vec<Vec<Record>> =
        (0..2).map(|shard| (0..3).map(|row| made_record(shard * 3 + row, SIDES, 2)).collect()).collect();
    for record in shards.iter_mut().flatten().filter(|_| encoding != ImageEncoding::Raw) {
        let pixels = std::mem::take(&mut record.image);
        let image = GrayPixels { width: SIDES.0.into(), height: SIDES.1.into(), pixels };
        record.image = image.encode(encoding).expect("encoded");
    }
    change(&mut shards[1][1]);
    write_dataset(out, &["A", "B"], encoding, &shards);
}

/// What `dataset verify` prints with little memory. It fails, and does not panic.
fn verified(out: &Path) -> String {
    let mut shell = Command::new("bash");
    shell.args(["-c", "ulimit -v 4000000; exec \"$@\"", "bash"]).arg(helpers::binary("dataset"));
    let output = shell.args(args!["verify", out, "--threads", "2"]).output().expect("it runs");
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{}{message}", text(&output.stdout));
    assert!(!message.contains("panicked") && !message.contains("internal error"), "{message}");
    message
}

/// The error of a loader of all records with boxes, masks and reports; none where it gives them.
fn loaded(out: &Path) -> Option<String> {
    let open = || -> dataset::Result<usize> {
        let dataset = Arc::new(Dataset::open(out)?);
        let loader = Loader::builder(&dataset).batch_size(6).threads(1).boxes(true).masks(true);
        let loader = loader.transform(Transform::evaluate(8)).text(TextOptions { tokens: 16, mask_ratio: 0.0 });
        Ok(loader.build()?.next_batch()?.len())
    };
    match open() {
        Ok(records) => {
            assert_eq!(records, 6);
            None
        }
        Err(error) => Some(error.to_string()),
    }
}

fn png(depth: png::BitDepth, (width, height): (u16, u16)) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width.into(), height.into());
    encoder.set_depth(depth);
    let bits = if depth == png::BitDepth::One { 1 } else { 8 };
    let bytes = (usize::from(width) * bits).div_ceil(8) * usize::from(height);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(&vec![0; bytes])).expect("a PNG");
    file
}

#[test]
fn a_record_without_rows_has_no_image() {
    let temporary = folder();
    written(temporary.path(), ImageEncoding::Raw, &|record| {
        record.height = 0;
        record.image.clear();
    });
    let message = loaded(temporary.path()).expect("refused");
    assert!(message.contains("row 1: the record has no image"), "{message}");
}

/// Who refuses a value: `verify` always, a loader where it reads it.
enum By {
    Both,
    Verify,
}

type Case<'a> = (&'a str, ImageEncoding, By, &'a dyn Fn(&mut Record));

#[test]
fn lying_values_are_refused_with_shard_and_row() {
    use ImageEncoding::{Jpeg, Png, Raw};
    let boxed = |record: &mut Record, [x, y, width, height]: [f32; 4]| {
        record.boxes = vec![BoundingBox { label: "A".to_owned(), x, y, width, height, ..BoundingBox::default() }];
    };
    let masked = |record: &mut Record, png: Vec<u8>| record.masks = vec![NamedMask { name: "mask".to_owned(), png }];
    let section = |record: &mut Record, token: i32| {
        record.texts =
            vec![NamedText { name: "findings".to_owned(), text: "word5".to_owned(), token_ids: vec![2, token] }];
    };
    let (nan, infinite) = (f32::NAN, f32::INFINITY);
    let cases: [Case<'_>; 24] = [
        ("the image page does not contain 140 bytes", Raw, By::Both, &|record| record.image.truncate(139)),
        ("the image page does not contain 0 bytes", Raw, By::Both, &|record| (record.width, record.height) = (0, 0)),
        ("the image page does not contain 4294836225 bytes", Raw, By::Both, &|record| {
            (record.width, record.height) = (u16::MAX, u16::MAX);
        }),
        ("an image of 14 × 10 pixels, which does not become of one of 10 × 14", Raw, By::Verify, &|record| {
            (record.width, record.height) = (record.height, record.width);
        }),
        ("image of 14×10, its columns say 60000×60000", Png, By::Both, &|record| {
            (record.width, record.height) = (60_000, 60_000);
            (record.source_width, record.source_height) = (60_000, 60_000);
        }),
        ("image of 14×10, its columns say 14×11", Jpeg, By::Both, &|record| record.width = 11),
        ("the dataset's images are 8-bit gray png", Png, By::Both, &|record| {
            let mut file = Vec::new();
            let mut encoder = png::Encoder::new(&mut file, SIDES.0.into(), SIDES.1.into());
            encoder.set_color(png::ColorType::Rgba);
            encoder.set_depth(png::BitDepth::Sixteen);
            encoder.write_header().and_then(|mut writer| writer.write_image_data(&[0; 140 * 8])).expect("a PNG");
            record.image = file;
        }),
        ("image decoding: ", Png, By::Both, &|record| record.image.truncate(60)),
        ("token id 100, but the vocabulary has 100 pieces", Raw, By::Both, &|record| record.token_ids[1] = 100),
        ("token id -1, but the vocabulary has 100 pieces", Raw, By::Both, &|record| record.token_ids[1] = -1),
        ("token id 2147483647, but the vocabulary has 100", Raw, By::Verify, &|record| section(record, i32::MAX)),
        ("token ids of `findings` that the tokenizer does not make", Raw, By::Verify, &|record| section(record, 7)),
        ("a box at NaN, 1", Raw, By::Both, &|record| boxed(record, [nan, 1.0, 2.0, 2.0])),
        ("a box at 1, 1 of inf × 2", Raw, By::Both, &|record| boxed(record, [1.0, 1.0, infinite, 2.0])),
        ("a box at 1, -inf", Raw, By::Both, &|record| boxed(record, [1.0, -infinite, 2.0, 2.0])),
        ("a box at 6, 1 of 8 × 2", Raw, By::Both, &|record| boxed(record, [6.0, 1.0, 8.0, 2.0])),
        ("a box at 6, 6 of -3 × -3", Raw, By::Both, &|record| boxed(record, [6.0, 6.0, -3.0, -3.0])),
        ("its mask has another size (14 × 10) than its image (10 × 14)", Raw, By::Both, &|record| {
            masked(record, png(png::BitDepth::One, (14, 10)));
        }),
        ("its mask is not a 1-bit gray PNG", Raw, By::Both, &|record| masked(record, png(png::BitDepth::Eight, SIDES))),
        ("its mask: image decoding: ", Raw, By::Both, &|record| {
            let mut file = png(png::BitDepth::One, SIDES);
            file.truncate(44);
            masked(record, file);
        }),
        ("an age of NaN years", Raw, By::Verify, &|record| record.age_years = Some(nan)),
        ("an age of -1 years", Raw, By::Verify, &|record| record.age_years = Some(-1.0)),
        ("unknown subset \"training?\"", Raw, By::Verify, &|record| record.subset = Some("training?".to_owned())),
        ("a pixel spacing of 0 and inf mm", Raw, By::Verify, &|record| record.pixel_spacing = Some([0.0, infinite])),
    ];
    for (at, (expected, encoding, by, change)) in cases.into_iter().enumerate() {
        let temporary = folder();
        let out = temporary.path().join(at.to_string());
        written(&out, encoding, change);
        let printed = verified(&out);
        let line = printed.lines().find(|line| line.contains(expected)).unwrap_or_default();
        assert!(line.starts_with(&format!("{SECOND}, row 1: ")), "{expected}: {printed}");
        assert!(printed.lines().all(|line| line.starts_with(SECOND) || line.contains("problem")), "{printed}");
        match (by, loaded(&out)) {
            (By::Both, Some(error)) => {
                let is_named = error.contains(expected) || error.contains("the record has no image");
                assert!(error.starts_with(&format!("{SECOND}, row 1: ")) && is_named, "{error}");
            }
            (By::Verify, None) => {}
            (_, found) => panic!("{expected}: the loader says {found:?}"),
        }
    }
    // The codes of labels, in every finding.
    for code in [2, -2, i8::MAX, i8::MIN] {
        let temporary = folder();
        written(temporary.path(), ImageEncoding::Raw, &|_| {});
        helpers::set_label_code(temporary.path(), 1, 1, 1, code);
        for message in [verified(temporary.path()), loaded(temporary.path()).expect("refused")] {
            let expected = format!("{SECOND}, row 1: label code {code}, which is none of 1, 0, -1");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
}

/// The same record in one shard, in two shards, and the same shard twice.
#[test]
fn repeated_records_are_named() {
    for first in [0, 3] {
        let temporary = folder();
        written(temporary.path(), ImageEncoding::Raw, &|record| record.record_id = format!("made/{first:05}"));
        let place = if first == 0 { "shards/part-00000.parquet" } else { SECOND };
        let expected = format!("{SECOND}, row 1: record `made/{first:05}` is also that of {place}, row 0");
        let printed = verified(temporary.path());
        assert!(printed.lines().any(|line| line.starts_with(&expected)), "{printed}");
        // A split cannot be made, or was made before and does not fit.
        let refused = fails("dataset", 1, args!["split", temporary.path(), "--name", "main"]);
        assert!(refused.contains(&format!("made/{first:05}")), "{refused}");
    }
    let temporary = folder();
    written(temporary.path(), ImageEncoding::Raw, &|_| {});
    let storage = Storage::folder(temporary.path());
    let mut manifest = Manifest::load(&storage).expect("a manifest");
    manifest.shards.push(manifest.shards[0].clone());
    manifest.save(&storage).expect("saved");
    for printed in [verified(temporary.path()), loaded(temporary.path()).expect("refused")] {
        assert!(printed.contains("the shard `shards/part-00000.parquet` is listed twice"), "{printed}");
    }
}

/// A link to a file elsewhere is read where its bytes are those of the manifest, and refused where they are not.
#[test]
fn links_out_of_the_folder_lead_to_the_right_bytes_or_are_refused() {
    let temporary = folder();
    let out = temporary.path().join("set");
    written(&out, ImageEncoding::Raw, &|_| {});
    let (shard, elsewhere) = (out.join(SECOND), temporary.path().join("elsewhere"));
    fs::rename(&shard, &elsewhere).expect("moved");
    std::os::unix::fs::symlink(&elsewhere, &shard).expect("a link");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
    assert_eq!(loaded(&out), None);
    let other = temporary.path().join("other");
    written(&other, ImageEncoding::Raw, &|record| record.patient_id = "another".to_owned());
    for target in [other.join(SECOND), other.join("dataset.json")] {
        fs::remove_file(&shard).expect("removed");
        std::os::unix::fs::symlink(&target, &shard).expect("a link");
        for message in [verified(&out), loaded(&out).expect("refused")] {
            assert!(message.starts_with(SECOND), "{}: {message}", target.display());
        }
    }
}

#[test]
fn schemas_that_differ_are_refused_and_further_columns_ignored() {
    let made = |change: &dyn Fn(RecordBatch) -> RecordBatch| {
        let temporary = folder();
        written(temporary.path(), ImageEncoding::Raw, &|_| {});
        rewrite_shard(temporary.path(), 1, change);
        temporary
    };
    // Every column that the first versions had is needed.
    for name in ["record_id", "patient_id", "height", "token_ids", "labels", "boxes", "source_digest", "report"] {
        let missing = made(&|batch| {
            let kept: Vec<usize> =
                (0..batch.num_columns()).filter(|&at| batch.schema().field(at).name() != name).collect();
            batch.project(&kept).expect("a batch")
        });
        for message in [verified(missing.path()), loaded(missing.path()).expect("refused")] {
            let expected = format!("{SECOND}: the column `{name}` is missing");
            assert!(message.starts_with(&expected), "{message}");
        }
    }
    // The values of another column under the name of one.
    for (name, other) in
        [("height", "source_height"), ("record_id", "image"), ("token_ids", "boxes"), ("age_years", "view")]
    {
        let other_type = made(&|batch| retyped(&batch, name, other));
        for message in [verified(other_type.path()), loaded(other_type.path()).expect("refused")] {
            assert!(message.starts_with(&format!("{SECOND}: column `{name}` has type ")), "{message}");
        }
    }
    let further = made(&|batch| {
        let at = batch.schema().index_of("report").expect("a column");
        let mut schema = batch.schema().as_ref().clone();
        let field = schema.field(at).clone().with_name("further");
        schema.fields = schema.fields.iter().map(|field| field.as_ref().clone()).chain([field]).collect();
        let columns = batch.columns().iter().chain([batch.column(at)]).cloned().collect();
        RecordBatch::try_new(Arc::new(schema), columns).expect("a batch")
    });
    assert!(ok("dataset", args!["verify", further.path()]).contains("all whole"));
    assert_eq!(loaded(further.path()), None);
    // Nulls where none may be.
    for name in ["record_id", "patient_id", "height", "width", "labels", "token_ids", "boxes", "masks", "source_digest"]
    {
        let null = made(&|batch| {
            let mut schema = batch.schema().as_ref().clone();
            let nullable = |field: &str| field == name;
            schema.fields = schema
                .fields
                .iter()
                .map(|field| field.as_ref().clone().with_nullable(field.is_nullable() || nullable(field.name())))
                .collect();
            let columns = batch.columns().to_vec();
            let batch = RecordBatch::try_new(Arc::new(schema), columns).expect("a batch");
            with_column(&batch, name, second_null)
        });
        let expected = format!("{SECOND}, row 1: `{name}` is null");
        let message = verified(null.path());
        assert!(message.starts_with(&expected), "{message}");
        let refused = loaded(null.path());
        let is_read = !["patient_id", "source_digest"].contains(&name);
        assert_eq!(refused.is_some_and(|refused| refused.starts_with(&expected)), is_read, "{name}");
    }
}

fn second_null(column: &ArrayRef) -> ArrayRef {
    let valid: Vec<bool> = (0..column.len()).map(|row| row != 1).collect();
    let data = column.to_data().into_builder().nulls(Some(valid.into()));
    make_array(data.build().expect("an array"))
}

/// Writes the second shard as another program does, without compression and checksums, and changes bytes of the file. Each of
/// `changes` is what is searched and what takes its place.
fn patched(out: &Path, changes: &[(&[u8], &[u8])]) {
    let storage = Storage::folder(out);
    let manifest = Manifest::load(&storage).expect("a manifest");
    let shard = Shard::open(&storage, &manifest.shards[1]).expect("a shard");
    let names: Vec<&str> = shard.schema().fields.iter().map(|field| field.name().as_str()).collect();
    let batch = shard.columns(&names).expect("columns").remove(0);
    let image = parquet::schema::types::ColumnPath::from("image");
    let properties = parquet::file::properties::WriterProperties::builder()
        .set_write_batch_size(1)
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .set_column_dictionary_enabled(image.clone(), false)
        .set_column_data_page_row_count_limit(image, 1)
        .build();
    let schema = Arc::new(shard.schema().clone());
    let batch = RecordBatch::try_new(schema.clone(), batch.columns().to_vec()).expect("a batch");
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, schema, Some(properties)).expect("a writer");
    writer.write(&batch).expect("written");
    writer.close().expect("closed");
    for (before, after) in changes {
        let at = bytes.windows(before.len()).position(|window| window == *before).expect("the bytes");
        bytes.splice(at..at + before.len(), after.iter().copied());
    }
    replaced(out, &bytes);
}

/// Puts other bytes in the place of the second shard, with a manifest that was made of them.
fn replaced(out: &Path, bytes: &[u8]) {
    let (storage, path) = (Storage::folder(out), out.join(SECOND));
    let mut manifest = Manifest::load(&storage).expect("a manifest");
    fs::write(&path, bytes).expect("written");
    let info = &mut manifest.shards[1];
    (info.bytes, info.footer) = (bytes.len() as u64, None);
    info.sha256 = dataset::store::files::sha256(&path).expect("a digest");
    manifest.totals.bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
    manifest.save(&storage).expect("saved");
}

#[test]
fn pages_whose_values_cannot_be_decoded_are_named_by_rows_and_column() {
    let made = |changes: &[(&[u8], &[u8])]| {
        let temporary = folder();
        written(temporary.path(), ImageEncoding::Raw, &|_| {});
        // Reports of no token ids, so that these are what the loader reads; all token lists have two ids.
        helpers::rewrite_records(temporary.path(), 1, |records| {
            for (row, record) in records.iter_mut().enumerate() {
                record.token_ids = vec![2, 4 + row as i32];
                record.view = Some(format!("VIEW{row}"));
            }
        });
        patched(temporary.path(), changes);
        temporary
    };
    let whole = made(&[]);
    assert!(ok("dataset", args!["verify", whole.path()]).contains("all whole"));
    assert_eq!(loaded(whole.path()), None);

    // A text that is not UTF-8.
    let undecodable = made(&[(b"VIEW1", b"VI\xff\xfe1")]);
    let message = verified(undecodable.path());
    assert!(message.starts_with(&format!("{SECOND}: rows 0 to 2: `view` cannot be decoded: ")), "{message}");
    assert_eq!(loaded(undecodable.path()), None, "the loader does not read it");
    let undecodable = made(&[(b"made/00004", b"made/\xff\xff\xff04")]);
    for message in [verified(undecodable.path()), loaded(undecodable.path()).expect("refused")] {
        assert!(
            message.contains(SECOND) && message.contains("rows 0 to 2: `record_id` cannot be decoded: "),
            "{message}"
        );
    }

    // Numbers of dictionary entries 0, 1, 2 in two bits each become 3, which the dictionary does not have.
    let page: &[u8] = &[2, 3, 0b10_01_00, 0];
    let outside = made(&[(page, &[2, 3, 0xff, 0xff])]);
    for message in [verified(outside.path()), loaded(outside.path()).expect("refused")] {
        assert!(
            message.contains(SECOND) && message.contains("rows 0 to 2: `record_id` cannot be decoded: "),
            "{message}"
        );
    }

    // The repetition levels of three lists of two token ids: the last list becomes a part of the one before, or the first one is
    // cut in two, so that all rows after it would have the ids of others.
    let levels: &[u8] = &[2, 0, 0, 0, 3, 0b10_10_10];
    for (lists, rows) in [(0b11_10_10_u8, 2), (0b10_10_00, 4)] {
        let lied = made(&[(levels, &[2, 0, 0, 0, 3, lists])]);
        let expected = format!("{SECOND}: rows 0 to 2: `token_ids` cannot be decoded: {rows} rows, not 3");
        let message = verified(lied.path());
        assert!(message.starts_with(&expected), "{message}");
        let refused = loaded(lied.path()).expect("refused");
        assert!(refused.contains(SECOND) && refused.contains(&format!("{rows} rows, not 3")), "{refused}");
        let columns = Dataset::open(lied.path()).expect("a manifest").columns(&["token_ids"]);
        assert!(columns.is_err_and(|error| error.to_string() == expected));
    }
}

/// Files that are no shards: a few, and those of Apache's parquet-testing where MRM_PARQUET_TESTING names a copy of that repository.
fn files_of_others() -> Vec<(String, Vec<u8>)> {
    let temporary = folder();
    written(temporary.path(), ImageEncoding::Raw, &|_| {});
    let whole = fs::read(temporary.path().join(SECOND)).expect("a file");
    let index: Vec<u8> = {
        let split = ok("dataset", args!["split", temporary.path(), "--name", "main", "--ratios", "100"]);
        assert!(!split.is_empty());
        fs::read(temporary.path().join("splits/main.parquet")).expect("a file")
    };
    let encrypted = [&whole[..whole.len() - 4], b"PARE"].concat();
    let mut all = vec![
        ("empty".to_owned(), Vec::new()),
        ("nothing but the magic number".to_owned(), b"PAR1PAR1".to_vec()),
        ("without its end".to_owned(), whole[..whole.len() / 2].to_vec()),
        ("an encrypted footer".to_owned(), encrypted),
        ("a split".to_owned(), index),
    ];
    let Some(copy) = std::env::var_os("MRM_PARQUET_TESTING") else { return all };
    let copy = Path::new(&copy);
    let found: Vec<_> = ["bad_data", "data"]
        .iter()
        .flat_map(|part| {
            helpers::contents(&copy.join(part)).into_iter().map(move |(name, bytes)| (format!("{part}/{name}"), bytes))
        })
        .filter(|(name, _)| name.ends_with(".parquet") || name.ends_with(".encrypted"))
        .collect();
    assert!(found.len() > 50, "{} files in {}", found.len(), copy.display());
    all.extend(found);
    all
}

#[test]
fn files_of_others_in_place_of_a_shard_are_refused() {
    let all = files_of_others();
    for (name, bytes) in &all {
        let temporary = folder();
        let out = temporary.path();
        written(out, ImageEncoding::Raw, &|_| {});
        fs::write(out.join(SECOND), bytes).expect("written");
        let refused = verified(out);
        assert!(refused.starts_with(SECOND), "{name}: {refused}");
        replaced(out, bytes);
        for refused in [verified(out), loaded(out).unwrap_or_else(|| panic!("{name} was loaded"))] {
            assert!(refused.starts_with(SECOND), "{name}: {refused}");
        }
        // As a table of labels.
        let table = out.join("table.parquet");
        fs::write(&table, bytes).expect("written");
        let before = helpers::contents(out);
        let refused =
            fails("ingest", 1, args!["join", out, "--table", table, "--key", "no such column", "--as", "labels"]);
        assert!(!refused.contains("panicked") && !refused.contains("internal error"), "{name}: {refused}");
        assert!(helpers::contents(out) == before, "{name}: the dataset was changed");
    }
    eprintln!("{} files", all.len());
}

/// Lies of the manifest that need no shard.
#[test]
fn a_manifest_of_impossible_values_is_refused() {
    let temporary = folder();
    written(temporary.path(), ImageEncoding::Raw, &|_| {});
    let path = temporary.path().join("dataset.json");
    let whole: serde_json::Value = dataset::store::files::read_json(&path).expect("a manifest");
    for (place, value, expected) in [
        ("/format_version", serde_json::json!(3), "format version 3, this build reads versions 1 and 2"),
        // The number of a version in more than 32 bits.
        ("/format_version", serde_json::json!(4_294_967_298_u64), "this build reads versions 1 and 2"),
        ("/labels", serde_json::json!(["A", "A"]), "the finding `A` is listed twice"),
        ("/masks", serde_json::json!(["a", "b", "a"]), "the mask `a` is listed twice"),
        ("/shards/0/path", serde_json::json!("shards/part-00001.parquet"), "is listed twice"),
        ("/shards/0/path", serde_json::json!("shards/./part-00001.parquet"), "is listed twice"),
        ("/shards/0/path", serde_json::json!("../part.parquet"), "is outside of the dataset"),
        ("/shards/0/path", serde_json::json!("/dev/zero"), "is outside of the dataset"),
        ("/shards/0/rows", serde_json::json!(-1), "dataset.json: "),
        ("/shards/0/rows", serde_json::json!(u64::MAX), "more than 4294967295 records"),
        ("/image/bits", serde_json::json!(16), "image.bits is 16"),
        ("/totals/records", serde_json::json!(7), "dataset.json: 7 records in total, but its shards have 6"),
        ("/totals/patients", serde_json::json!(7), "dataset.json: 7 patients in total, but its shards have 3"),
        ("/totals/studies", serde_json::json!(0), "dataset.json: 0 studies in total, but its shards have 6"),
        ("/totals/reports", serde_json::json!(9), "dataset.json: 9 reports in total, but its shards have 0"),
        ("/image/mean", serde_json::json!(0.9), "dataset.json: pixels of mean 0.9000 and standard deviation"),
        ("/image/std", serde_json::json!(1e300), "dataset.json: pixels of mean "),
    ] {
        let mut changed = whole.clone();
        *changed.pointer_mut(place).expect("a key") = value;
        fs::write(&path, changed.to_string()).expect("written");
        let printed = verified(temporary.path());
        assert!(printed.contains(expected), "{place}: {printed}");
    }
}
