//! `ingest` as a user runs it: same bytes for any number of threads, kills, bad input, clear errors.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use dataset::{Dataset, Loader};
use dicom_core::{DataElement, PrimitiveValue, VR};
use dicom_dictionary_std::tags;
use helpers::{
    RejectRow, SMALL, args, command, contents, edit, fails, folder, gzip, ingest, ok, phantom, read_text, rejects,
};
use rand::{Rng, SeedableRng};
use serde_json::json;

#[test]
fn a_phantom_becomes_a_dataset() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let out = temporary.path().join("set");
    let printed = ingest("mimic-cxr", &raw, &out, &[]);
    let dataset = Dataset::open(&out).expect("a dataset");
    let images = contents(&raw.join("files")).keys().filter(|path| path.ends_with(".dcm")).count();
    assert_eq!(dataset.len(), images);
    assert!(printed.contains(&format!("{images} records of 40 studies")), "{printed}");
    assert_eq!(dataset.manifest().totals.records as usize, images);
    assert_eq!(rejects(&out), []);
    assert!(!out.join(".ingest").exists(), "the notes of the run are removed");

    // One record against its raw files.
    let record = dataset.record(3).expect("a record");
    assert!(record.source_path.starts_with(&format!(
        "files/p{}/p{}/s{}/",
        &record.patient_id[..2],
        record.patient_id,
        record.study_id
    )));
    assert_eq!(record.width.min(record.height), 64);
    assert_eq!(record.image.len(), usize::from(record.width) * usize::from(record.height));
    let bytes = fs::read(raw.join(&record.source_path)).expect("the raw file");
    assert_eq!(record.source_digest, *blake3::hash(&bytes).as_bytes());
    let gray = ingest::image::pipeline::decode(&bytes, ingest::image::intensity::Intensity::Voi).expect("an image");
    assert_eq!((gray.width, gray.height), (record.source_width, record.source_height));
    let text = fs::read_to_string(raw.join(format!(
        "files/p{}/p{}/s{}.txt",
        &record.patient_id[..2],
        record.patient_id,
        record.study_id
    )));
    assert_eq!(record.report.as_deref(), Some(text.expect("the report").trim()));
    assert_eq!(record.token_ids[0], 2, "[CLS] first");
    assert!(record.token_ids.len() <= 48);

    let page = ok("dataset", args!["inspect", &out, "--montage", temporary.path().join("m.png")]);
    assert!(page.contains("Pleural Effusion") && page.contains("PA"), "{page}");
    assert!(temporary.path().join("m.png").metadata().expect("a montage").len() > 10_000);
    let row = ok("dataset", args!["inspect", &out, "--row", &record.record_id]);
    assert!(row.contains(&record.source_path), "{row}");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
    // A second run has nothing to do and changes nothing.
    let before = contents(&out);
    assert!(ingest("mimic-cxr", &raw, &out, &[]).contains("nothing to do"));
    assert_eq!(contents(&out), before);
}

/// Rows, pixels, masked and true token ids.
type Batch = (Vec<u32>, Vec<f32>, Vec<i64>, Vec<i64>);

#[test]
fn any_number_of_threads_gives_the_same_bytes_and_batches() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 30);
    let sets: Vec<_> = ["1", "2", "4"]
        .iter()
        .map(|jobs| {
            let out = temporary.path().join(jobs);
            ingest("mimic-cxr", &raw, &out, &["--jobs", jobs]);
            contents(&out)
        })
        .collect();
    assert!(sets[0].len() >= 5);
    assert!(sets[0] == sets[1] && sets[0] == sets[2]);

    let dataset = std::sync::Arc::new(Dataset::open(temporary.path().join("1")).expect("a dataset"));
    let batches = |threads: usize, prefetch: usize| -> Vec<Batch> {
        let mut loader = Loader::builder(&dataset)
            .batch_size(7)
            .seed(3)
            .transform(dataset::transform::Transform::pretrain(32))
            .text(dataset::loader::TextOptions { tokens: 40, mask_ratio: 0.5 })
            .threads(threads)
            .prefetch(prefetch)
            .build()
            .expect("a loader");
        let mut all = Vec::new();
        for _ in 0..2 {
            for batch in loader.by_ref() {
                let batch = batch.expect("a batch");
                all.push((
                    batch.rows().to_vec(),
                    batch.images().to_vec(),
                    batch.token_ids().to_vec(),
                    batch.target_ids().to_vec(),
                ));
            }
        }
        all
    };
    let one = batches(1, 1);
    assert_eq!(one.len(), 2 * dataset.len().div_ceil(7));
    assert!(one == batches(2, 3) && one == batches(4, 16));
    assert_ne!(one[0].0, one[one.len() / 2].0, "another order in the second epoch");
}

/// Times that a run is killed.
const KILLS: usize = 50;

#[test]
fn a_run_killed_again_and_again_gives_the_same_bytes() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let arguments = |out: &Path| {
        let mut all = args!["mimic-cxr", &raw, out, "--jobs", "1"].to_vec();
        all.extend(SMALL.iter().map(Into::into));
        all
    };
    let whole = temporary.path().join("whole");
    let started = std::time::Instant::now();
    ok("ingest", arguments(&whole));
    let span = started.elapsed();
    let whole = contents(&whole);

    // Kills at random moments; a run that ends before its kill is compared, and a new one is started.
    let out = temporary.path().join("killed");
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(1);
    let (mut killed, mut landed) = (0, std::collections::BTreeMap::<&str, usize>::new());
    while killed < KILLS {
        let mut child = command("ingest")
            .args(arguments(&out))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it starts");
        std::thread::sleep(span.mul_f64(random.random_range(0.0..1.1)));
        child.kill().expect("SIGKILL");
        let finished = child.wait().expect("it ends").success();
        let has = |name: &str| out.join(name).exists();
        assert!(!finished || has("dataset.json"));
        if !finished {
            killed += 1;
            let phase = match () {
                () if has("dataset.json") => "after the manifest",
                () if has(".ingest/part-00000.json") => "between shards",
                () if has("tokenizer.json") => "first shard",
                () if has(".ingest/arguments.json") => "tokenizer",
                () => "plan",
            };
            *landed.entry(phase).or_default() += 1;
            // Continued runs are soon past their beginning, so sometimes a new run is started.
            if random.random_bool(0.25) && out.exists() {
                fs::remove_dir_all(&out).expect("removed");
                continue;
            }
        }
        if has("dataset.json") {
            ok("ingest", arguments(&out));
            assert!(whole == contents(&out));
            fs::remove_dir_all(&out).expect("removed");
        }
    }
    eprintln!("{killed} kills: {landed:?}");
    assert_eq!(killed, KILLS);
    assert!(landed.len() >= 3 && landed.values().all(|count| *count < KILLS * 4 / 5), "{landed:?}");
    ok("ingest", arguments(&out));
    assert!(whole == contents(&out));

    // A run with `--overwrite` continues too, and does not start from the beginning each time.
    let mut arguments = arguments(&out);
    arguments.push("--overwrite".into());
    let mut child =
        command("ingest").args(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let begun = std::time::Instant::now();
    // On a busy machine the run may end before it is observed.
    while !out.join(".ingest/part-00001.json").exists() && child.try_wait().expect("a child").is_none() {
        assert!(begun.elapsed().as_secs() < 60, "no shard is finished");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let _ = child.kill();
    child.wait().expect("it ends");
    let in_time = !out.join("dataset.json").exists();
    let printed = ok("ingest", &arguments);
    assert!(!in_time || printed.contains("continued after"), "{printed}");
    assert!(whole == contents(&out));
}

#[test]
fn bad_input_becomes_reject_rows() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 30);
    let files: Vec<String> = contents(&raw).into_keys().collect();
    let images: Vec<&String> = files.iter().filter(|path| path.ends_with(".dcm")).collect();
    let reports: Vec<&String> = files.iter().filter(|path| path.ends_with(".txt")).collect();
    // Each image is of another study, so that the faults can be distinguished.
    let of_study =
        |report: &str| *images.iter().find(|image| image.starts_with(&report.replace(".txt", "/"))).expect("an image");
    let (truncated, no_dicom, missing, bomb) =
        (of_study(reports[0]), of_study(reports[1]), of_study(reports[2]), of_study(reports[3]));
    edit(&raw.join(truncated), |bytes| bytes.truncate(bytes.len() / 2));
    fs::write(raw.join(no_dicom), "this is a letter, not a radiograph").expect("written");
    fs::remove_file(raw.join(missing)).expect("removed");
    let mut huge = dicom_object::open_file(raw.join(bomb)).expect("a DICOM file");
    for tag in [tags::ROWS, tags::COLUMNS] {
        huge.put(DataElement::new(tag, VR::US, PrimitiveValue::from(60_000u16)));
    }
    huge.write_to_file(raw.join(bomb)).expect("written");
    fs::remove_file(raw.join(reports[4])).expect("removed");
    fs::write(raw.join(reports[5]), "Clear lungs without any known heading.").expect("written");
    fs::write(raw.join("files/p10/stray.dcm"), "not in a table").expect("written");
    let table = raw.join("mimic-cxr-2.0.0-metadata.csv.gz");
    let text = read_text(&table);
    let lines = text.lines().count();
    fs::write(&table, gzip(format!("{text}only,two\n"))).expect("written");

    let out = temporary.path().join("set");
    let mut arguments = args!["mimic-cxr", &raw, &out].to_vec();
    arguments.extend(SMALL.iter().map(Into::into));
    let message = fails("ingest", 3, &arguments);
    assert!(message.contains("--max-reject-rate"), "{message}");
    let found = rejects(&out);
    let of = |path: &str| -> &RejectRow {
        let matching: Vec<_> = found.iter().filter(|reject| reject.source_path == path).collect();
        assert_eq!(matching.len(), 1, "{path}: {matching:?}");
        matching[0]
    };
    let says = |path: &str, stage: &str, words: &str| {
        let reject = of(path);
        assert!(reject.stage == stage && reject.error.contains(words), "{reject:?}");
    };
    says(truncated, "decode", "");
    says(no_dicom, "decode", "not a DICOM file");
    says(missing, "read", "listed, but the file is missing");
    says(bomb, "decode", "60000×60000 pixels: more than a radiograph has");
    // A missing report gives a reject for each image of its study; the first one is checked.
    let lost: Vec<_> = found.iter().filter(|reject| reject.source_path == *reports[4]).collect();
    assert!(
        !lost.is_empty() && lost.iter().all(|r| r.stage == "report" && r.error.contains("no report file")),
        "{lost:?}"
    );
    says("files/p10/stray.dcm", "plan", "no table lists this file, so it has no record");
    says("mimic-cxr-2.0.0-metadata.csv.gz", "table", &format!("line {}: 2 fields, the header has 12", lines + 1));

    let dataset = Dataset::open(&out).expect("a dataset");
    assert_eq!(dataset.len(), images.len() - 4, "the other images are ingested");
    let headless = dataset.row_of(&format!("mimic-cxr/{}", stem(of_study(reports[5])))).expect("kept");
    assert_eq!(
        dataset.record(headless).expect("a record").report.as_deref(),
        Some("Clear lungs without any known heading.")
    );
    let textless = dataset.row_of(&format!("mimic-cxr/{}", stem(of_study(reports[4])))).expect("kept");
    assert_eq!(dataset.record(textless).expect("a record").report, None);
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
}

fn stem(path: &str) -> String {
    Path::new(path).file_stem().expect("a name").to_string_lossy().into_owned()
}

#[test]
fn impossible_runs_are_refused_with_one_line() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 6);
    let path = temporary.path();
    let says = |arguments: &[std::ffi::OsString], words: &str| {
        let message = fails("ingest", 1, arguments);
        assert!(message.starts_with("error: ") || message.contains("\nerror: "), "{message}");
        assert!(message.contains(words), "{message}");
    };
    says(&args!["mimic-cxr", path.join("nowhere"), path.join("x")], "is no directory");
    fs::create_dir(path.join("empty")).expect("a folder");
    says(
        &args!["mimic-cxr", path.join("empty"), path.join("x")],
        "no mimic-cxr-*-metadata.csv[.gz] or cxr-record-list.csv[.gz]; give the directory",
    );
    says(&args!["covid", path.join("empty"), path.join("x")], "no metadata.csv[.gz]; give the directory");
    // An unusable tokenizer is reported before anything is planned or written.
    let tokenizer = |name: &str, more: &[&str], words: &str| {
        let mut arguments = args!["mimic-cxr", &raw, path.join("x"), "--tokenizer", path.join(name)].to_vec();
        arguments.extend(more.iter().map(Into::into));
        says(&arguments, words);
        assert!(!path.join("x").exists(), "no partial output");
    };
    tokenizer("none.json", &[], "none.json");
    fs::write(path.join("bad.json"), "{}").expect("written");
    tokenizer("bad.json", &[], "tokenizer");
    tokenizer("bad.json", &["--dry-run"], "tokenizer");
    let vocabulary: Vec<_> = ["[PAD]", "[UNK]", "[CLS]", "[MASK]", "the"].map(|word| (word, 0)).into();
    let no_unknown = json!({ "version": "1.0", "model": { "type": "Unigram", "unk_id": null, "vocab": vocabulary } });
    fs::write(path.join("no-unknown.json"), no_unknown.to_string()).expect("written");
    tokenizer("no-unknown.json", &[], "a text cannot be encoded");

    // A folder with other files, and a dataset of other arguments.
    fs::create_dir(path.join("mine")).expect("a folder");
    fs::write(path.join("mine/thesis.txt"), "years of work").expect("written");
    says(&args!["mimic-cxr", &raw, path.join("mine")], "is neither empty nor a dataset");
    let set = path.join("set");
    ingest("mimic-cxr", &raw, &set, &[]);
    let before = contents(&set);
    let other = args!["mimic-cxr", &raw, &set, "--size", "32", "--max-tokens", "48"];
    says(
        &other,
        "holds another dataset: --rows-per-shard was 16, is 2048; --size was 64, is 32; --tokenizer was train (",
    );
    assert_eq!(contents(&set), before);
    ingest("mimic-cxr", &raw, &set, &["--overwrite"]);
    assert_eq!(contents(&set), before);

    // A table without a column it needs.
    let table = raw.join("mimic-cxr-2.0.0-metadata.csv.gz");
    let text = read_text(&table).replacen("dicom_id", "image", 1);
    fs::write(&table, gzip(&text)).expect("written");
    says(&args!["mimic-cxr", &raw, path.join("x3")], "no column `dicom_id` (the table has: image, subject_id");
    assert!(!path.join("x3").exists(), "no partial output");
    // Wrong usage.
    assert!(fails("ingest", 2, args!["mimic-cxr"]).contains("Usage"));
    assert!(fails("dataset", 1, args!["inspect", path.join("mine")]).contains("is not a dataset"));
}

#[test]
fn a_second_run_into_the_same_folder_is_refused() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 4);
    let out = temporary.path().join("set");
    fs::create_dir_all(out.join(".ingest")).expect("a folder");
    let lock = fs::File::create(out.join(".ingest/lock")).expect("a folder");
    lock.lock().expect("locked");
    let message = fails("ingest", 1, args!["mimic-cxr", &raw, &out]);
    assert!(message.contains("another ingest is writing to it"), "{message}");
    drop(lock);
    ingest("mimic-cxr", &raw, &out, &[]);
}

#[test]
fn a_failed_run_without_shards_can_be_replaced() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 20);
    let (out, whole) = (temporary.path().join("set"), temporary.path().join("whole"));
    ingest("mimic-cxr", &raw, &whole, &[]);
    let noted = |arguments: &str| {
        fs::create_dir_all(out.join(".ingest")).expect("a folder");
        fs::write(out.join(".ingest/arguments.json"), arguments).expect("written");
    };
    noted("{\"size\": 9}");
    fs::write(out.join("tokenizer.json"), "of other reports").expect("written");
    ingest("mimic-cxr", &raw, &out, &[]);
    assert!(contents(&out) == contents(&whole));
    // A dataset that another run completed meanwhile is not written again, and its notes are removed.
    noted("{}");
    assert!(ingest("mimic-cxr", &raw, &out, &[]).contains("nothing to do"));
    assert!(!out.join(".ingest").exists());

    // Shards of another version are not mixed with those of this one.
    fs::remove_file(out.join("dataset.json")).expect("removed");
    noted("{\"tool\": \"mrm ingest 0.0.1\"}");
    let message = fails("ingest", 1, args!["mimic-cxr", &raw, &out]);
    assert!(
        message.contains("an unfinished dataset that mrm ingest 0.0.1 began, and this is mrm ingest "),
        "{message}"
    );
    ingest("mimic-cxr", &raw, &out, &["--overwrite"]);
    assert!(contents(&out) == contents(&whole));
}

#[test]
fn a_record_with_an_unreadable_report_keeps_its_image() {
    let temporary = folder();
    let raw = temporary.path().join("covid");
    fs::create_dir(&raw).expect("a folder");
    let table = "patientid,offset,finding,view,modality,filename,clinical_notes\n\
                 1,0,todo,PA,X-ray,a.jpg,clear\n2,0,todo,PA,X-ray,b.jpg,fieberüber\n";
    fs::write(raw.join("metadata.csv"), table).expect("written");
    // Exactly the characters of the probe, and no unknown token.
    let special = ["[PAD]", "[UNK]", "[CLS]", "[MASK]"].map(str::to_owned);
    let characters = (' '..='~').chain("éß☃肺▁".chars()).map(|c| c.to_string());
    let vocabulary: Vec<_> = special.clone().into_iter().chain(characters).map(|word| (word, -1.0)).collect();
    let added: Vec<_> = (0..4)
        .map(|id| {
            json!({ "id": id, "content": special[id], "single_word": false,
        "lstrip": false, "rstrip": false, "normalized": false, "special": true })
        })
        .collect();
    let tokenizer = json!({ "version": "1.0", "added_tokens": added,
        "model": { "type": "Unigram", "unk_id": null, "vocab": vocabulary } });
    let path = temporary.path().join("tokenizer.json");
    fs::write(&path, tokenizer.to_string()).expect("written");
    let out = temporary.path().join("set");
    let printed = ok("ingest", args!["covid", &raw, &out, "--no-images", "--tokenizer", &path]);
    assert!(printed.contains("2 records"), "{printed}");
    let dataset = Dataset::open(&out).expect("a dataset");
    let report = |row| dataset.record(row).expect("a record").report;
    assert_eq!((report(0).as_deref(), report(1)), (Some("clear"), None));
    let found = rejects(&out);
    assert!(found.len() == 1 && found[0].stage == "report", "{found:?}");
    assert!(found[0].error.ends_with("; its image is kept without text"), "{found:?}");
}

#[test]
fn limit_counts_rejects_of_the_records_it_takes() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 20);
    for number in 0..5 {
        fs::write(raw.join(format!("files/p10/stray{number}.dcm")), "not in a table").expect("written");
    }
    let out = temporary.path().join("set");
    let mut arguments = args!["mimic-cxr", &raw, &out, "--limit", "8"].to_vec();
    arguments.extend(SMALL.iter().map(Into::into));
    for _ in 0..2 {
        assert!(ok("ingest", &arguments).contains("8 records"));
    }
    assert_eq!(rejects(&out).len(), 5);
    let dry = ok("ingest", args!["mimic-cxr", &raw, &out, "--limit", "3", "--dry-run"]);
    assert!(dry.contains("to be ingested: 3 radiographs") && dry.matches("patient ").count() == 3, "{dry}");
    let radiograph = contents(&raw).into_keys().find(|path| path.ends_with(".dcm") && !path.contains("stray"));
    fs::write(raw.join(radiograph.expect("a radiograph")), "no radiograph").expect("written");
    let taken = args!["mimic-cxr", &raw, temporary.path().join("spoilt"), "--limit", "1000"];
    fails("ingest", 3, taken);
}

#[test]
fn a_run_continues_after_a_full_disk() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 60);
    let disk = temporary.path().join("disk");
    fs::create_dir(&disk).expect("a folder");
    let mount = |size: &str, how: &str| {
        let options = format!("{how}size={size}");
        Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&disk).stderr(Stdio::null()).status()
    };
    if !mount("256k", "").is_ok_and(|status| status.success()) {
        eprintln!("skipped: mounting a small disk is not permitted");
        return;
    }
    let out = disk.join("set");
    let mut arguments = args!["mimic-cxr", &raw, &out].to_vec();
    arguments.extend(SMALL.iter().map(Into::into));
    let message = fails("ingest", 1, &arguments);
    let half = contents(&out).into_keys().filter(|path| path.ends_with(".tmp")).collect::<Vec<_>>();
    let opened = Dataset::open(&out).is_ok();
    // With more space, the same command continues.
    let grown = mount("64m", "remount,").is_ok_and(|status| status.success());
    let again = grown.then(|| helpers::run("ingest", &arguments));
    let bytes = contents(&out);
    let unmounted = Command::new("umount").arg(&disk).status().is_ok_and(|status| status.success());
    assert!(message.contains("No space left on device"), "{message}");
    assert_eq!(half, [] as [String; 0]);
    assert!(!opened && grown && unmounted);
    assert!(again.is_some_and(|output| output.status.success()));
    let whole = temporary.path().join("whole");
    ingest("mimic-cxr", &raw, &whole, &[]);
    assert!(bytes == contents(&whole));
}

#[test]
fn an_unreadable_folder_is_a_reject() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    // Not even root can read a link that points to itself.
    std::os::unix::fs::symlink("loop.dcm", raw.join("files/p10/loop.dcm")).expect("linked");
    let out = temporary.path().join("set");
    ingest("mimic-cxr", &raw, &out, &["--max-reject-rate", "1"]);
    let found = rejects(&out);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].source_path == "files/p10/loop.dcm" && found[0].stage == "plan", "{found:?}");
}

#[test]
fn ingest_and_dataset_are_not_linked_to_libtorch() {
    let names = |binary: &str| {
        let bytes = fs::read(helpers::binary(binary)).expect("a binary");
        bytes.windows(8).any(|window| window == b"libtorch")
    };
    assert!(!names("ingest") && !names("dataset"));
}
