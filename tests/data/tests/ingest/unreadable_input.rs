//! Input that cannot be listed or read: a run ends or records a reject, and leaves nothing out silently.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use helpers::faults::{Call, EACCES, EIO, Faults};
use helpers::{
    SMALL, args, binary, command, contents, copy_folder, fails, files_with, folder, ingest, ok, phantom, phantom_of,
    rejects, text,
};
use rand::{Rng, SeedableRng};

/// A command that ingests a MIMIC-CXR directory with small settings.
fn ingest_command(raw: &Path, out: &Path, more: &[&str]) -> Command {
    let mut run = command("ingest");
    run.args(args!["mimic-cxr", raw, out, "--max-reject-rate", "1", "--jobs", "2"]).args(SMALL).args(more);
    run
}

/// Runs a command that must succeed, and returns its standard output.
fn done(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    assert!(status.success(), "{status}\n{}\n{}", text(&stdout), text(&stderr));
    text(&stdout)
}

/// Runs a command that must fail with exit code 1, and returns its standard error.
fn ended(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("the binary starts");
    assert_eq!(status.code(), Some(1), "{}\n{}", text(&stdout), text(&stderr));
    text(&stderr)
}

/// Moves the tables of a MIMIC-CXR directory to a folder of their own.
fn tables_apart(raw: &Path) -> PathBuf {
    let tables = raw.join("tables");
    fs::create_dir(&tables).expect("a folder");
    for name in files_with(raw, ".csv.gz") {
        fs::rename(raw.join(&name), tables.join(&name)).expect("moved");
    }
    tables
}

#[test]
fn a_folder_that_cannot_be_listed_ends_the_run() {
    let temporary = folder();
    let Some(faults) = Faults::new(temporary.path()) else { return };
    let raw = |layout: &str| phantom_of(layout, temporary.path(), 8);
    let mimic = raw("mimic-cxr");
    // The list of images stays in its place; the labels and the subsets are in a separate folder.
    fs::create_dir(mimic.join("tables")).expect("a folder");
    for name in files_with(&mimic, ".csv.gz").iter().filter(|name| !name.contains("metadata")) {
        fs::rename(mimic.join(name), mimic.join("tables").join(name)).expect("moved");
    }
    let patient = files_with(&mimic, ".dcm")[0].rsplitn(3, '/').last().expect("a folder").to_owned();
    let siim = raw("siim");
    fs::create_dir(siim.join("tables")).expect("a folder");
    fs::rename(siim.join("train-rle.csv"), siim.join("tables/train-rle.csv")).expect("moved");
    let cases: [(&str, &Path, Call, &str); 15] = [
        ("mimic-cxr", &mimic, Call::OpenFolder, "tables"),
        ("mimic-cxr", &mimic, Call::OpenFolder, "files"),
        ("mimic-cxr", &mimic, Call::OpenFolder, &patient),
        ("mimic-cxr", &mimic, Call::Stat, "tables/mimic-cxr-2.0.0-chexpert.csv.gz"),
        ("chexpert", &raw("chexpert"), Call::OpenFolder, "CheXpert-v1.0-small"),
        ("nih", &raw("nih"), Call::OpenFolder, "images_001/images"),
        ("nih", &temporary.path().join("nih"), Call::Stat, "test_list.txt"),
        ("rsna", &raw("rsna"), Call::Stat, "stage_2_detailed_class_info.csv"),
        ("siim", &siim, Call::OpenFolder, "tables"),
        ("covid", &raw("covid"), Call::OpenFolder, "images"),
        ("openi", &raw("openi"), Call::OpenFolder, "ecgen-radiology"),
        ("vindr-cxr", &raw("vindr-cxr"), Call::Stat, "annotations/annotations_test.csv"),
        ("padchest", &raw("padchest"), Call::OpenFolder, "0"),
        ("rexgradient", &raw("rexgradient"), Call::Stat, "metadata/valid_metadata_view_position.json"),
        ("nlm-tb", &raw("nlm-tb"), Call::OpenFolder, "ChinaSet_AllFiles/ClinicalReadings"),
    ];
    for (number, (source, raw, call, ending)) in cases.into_iter().enumerate() {
        let errno = if number % 2 == 0 { EACCES } else { EIO };
        let planned = |times: Option<usize>| {
            let mut run = command("ingest");
            run.args(args![source, raw, "out", "--dry-run"]);
            if times != Some(0) {
                faults.inject(&mut run, call, errno, &[&format!("/{ending}")], times);
            }
            run
        };
        let undisturbed = done(planned(Some(0)));
        let message = ended(planned(None));
        let path = raw.join(ending);
        let remedy = "make it readable for this user";
        let said = message.contains(&format!("{}: ", path.display())) && message.contains(remedy);
        assert!(said, "{source} {ending}: {message}");
        assert_eq!(done(planned(Some(1))), undisturbed, "{source} {ending}: a temporary error changes nothing");
    }
}

#[test]
fn a_folder_of_another_user_ends_the_run() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 6);
    let tables = tables_apart(&raw);
    // Root may read everything, so as root the run is started as another user, who must be able to reach the binary.
    let program = temporary.path().join("ingest");
    fs::copy(binary("ingest"), &program).expect("copied");
    fs::set_permissions(temporary.path(), fs::Permissions::from_mode(0o755)).expect("set");
    let is_root = fs::metadata("/proc/self").is_ok_and(|found| found.uid() == 0);
    let run = |mode: u32| {
        fs::set_permissions(&tables, fs::Permissions::from_mode(mode)).expect("set");
        let mut run = Command::new(&program);
        run.args(args!["mimic-cxr", &raw, "out", "--dry-run"]).current_dir(temporary.path());
        if is_root {
            run.uid(65534).gid(65534);
        }
        run
    };
    let printed = done(run(0o755));
    assert!(printed.contains("Pleural Effusion"), "{printed}");
    let refused = ended(run(if is_root { 0o700 } else { 0 }));
    assert!(refused.contains(&format!("{}: Permission denied", tables.display())), "{refused}");
    // A folder that can be listed, but whose files cannot be examined.
    let refused = ended(run(if is_root { 0o704 } else { 0o400 }));
    assert!(refused.contains("tables/mimic-cxr-2.0.0-") && refused.contains("Permission denied"), "{refused}");
    fs::set_permissions(&tables, fs::Permissions::from_mode(0o755)).expect("set");
    // Folders of the system are not part of the data.
    for name in ["lost+found", ".Trash-0"] {
        fs::create_dir(raw.join(name)).expect("a folder");
        fs::set_permissions(raw.join(name), fs::Permissions::from_mode(0o0)).expect("set");
    }
    assert_eq!(done(run(0o755)), printed);
    // Tables are found in a folder of any name.
    let named = raw.join(OsStr::from_bytes(b"R\xf6ntgen"));
    fs::create_dir(&named).expect("a folder");
    for name in files_with(&tables, ".csv.gz") {
        fs::rename(tables.join(&name), named.join(&name)).expect("moved");
    }
    assert_eq!(done(run(0o755)), printed);
}

#[test]
fn a_table_that_is_a_dead_link_ends_the_run() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 4);
    let table = raw.join("mimic-cxr-2.0.0-chexpert.csv.gz");
    fs::remove_file(&table).expect("removed");
    symlink("annex/objects/gone", &table).expect("linked");
    let message = fails("ingest", 1, args!["mimic-cxr", &raw, "out", "--dry-run"]);
    assert!(message.contains("chexpert.csv.gz: the target of this link is missing"), "{message}");
}

#[test]
fn an_unreadable_file_that_planning_needs_ends_the_run() {
    let temporary = folder();
    let Some(faults) = Faults::new(temporary.path()) else { return };
    let raw = phantom_of("folder", temporary.path(), 6);
    let image = files_with(&raw, ".dcm").remove(0);
    // Without an extension the first bytes say what a file is.
    let bare = image.trim_end_matches(".dcm").to_owned();
    fs::rename(raw.join(&image), raw.join(&bare)).expect("moved");
    let other = files_with(&raw, ".dcm").remove(0);
    let run = |more: &[&str], path: &str| {
        let mut run = command("ingest");
        run.args(args!["folder", &raw, temporary.path().join("out")]).args(SMALL).args(more);
        faults.inject(&mut run, Call::Open, EIO, &[path], None);
        run
    };
    let message = ended(run(&["--dry-run"], &bare));
    assert!(message.contains(&format!("{bare}: Input/output error")), "{message}");
    let message = ended(run(&["--dry-run", "--patient-from-header"], &other));
    assert!(message.contains(&format!("{other}: Input/output error")), "{message}");
    // A link whose target is missing may be an image, and the system's own folder holds none.
    symlink("nowhere", raw.join("dead-link")).expect("linked");
    fs::create_dir(raw.join("lost+found")).expect("a folder");
    let mut last = run(&["--max-reject-rate", "1"], "");
    faults.inject(&mut last, Call::OpenFolder, EACCES, &["/lost+found"], None);
    done(last);
    let found = rejects(&temporary.path().join("out"));
    let paths: Vec<&str> = found.iter().map(|reject| reject.source_path.as_str()).collect();
    assert_eq!(paths, ["dead-link", "lost+found"]);
    assert!(found.iter().all(|reject| reject.stage == "plan"), "{found:?}");
}

#[test]
fn an_unreadable_report_does_not_change_the_tokenizer() {
    let temporary = folder();
    let Some(faults) = Faults::new(temporary.path()) else { return };
    let raw = phantom(temporary.path(), 20);
    let whole = temporary.path().join("whole");
    ingest("mimic-cxr", &raw, &whole, &["--max-reject-rate", "1"]);
    let report = files_with(&raw, ".txt").remove(3);
    let run = |out: &Path, times| {
        let mut run = ingest_command(&raw, out, &[]);
        faults.inject(&mut run, Call::Open, EIO, &[&report], times);
        run
    };
    let out = temporary.path().join("set");
    let message = ended(run(&out, None));
    assert!(
        message.contains(&format!("{report}: Input/output error")) && message.contains("--tokenizer FILE"),
        "{message}"
    );
    assert!(!out.join("tokenizer.json").exists() && !out.join("dataset.json").exists(), "no partial output");
    // The same command continues the run.
    done(ingest_command(&raw, &out, &[]));
    assert!(contents(&out) == contents(&whole));
    // A temporary error changes nothing.
    let again = temporary.path().join("again");
    done(run(&again, Some(1)));
    assert!(contents(&again) == contents(&whole));
    // A missing report is a reject, as in other runs.
    fs::remove_file(raw.join(&report)).expect("removed");
    let without = temporary.path().join("without");
    done(ingest_command(&raw, &without, &[]));
    assert!(rejects(&without).iter().all(|reject| reject.source_path == report && reject.stage == "report"));
}

/// A raw directory, a tokenizer, the dataset of an undisturbed run, and the paths of an image and of a report.
struct Disturbed {
    faults: Faults,
    raw: PathBuf,
    tokenizer: String,
    whole: PathBuf,
    image: String,
    report: String,
}

impl Disturbed {
    fn new(temporary: &Path) -> Option<Self> {
        let faults = Faults::new(temporary)?;
        let raw = phantom(temporary, 30);
        let trained = temporary.join("trained");
        ingest("mimic-cxr", &raw, &trained, &[]);
        let tokenizer = trained.join("tokenizer.json").display().to_string();
        // An image of the first shard, and the report of one in the last.
        let by_name = |path: &String| Path::new(path).file_name().map(ToOwned::to_owned);
        let image = files_with(&raw, ".dcm").into_iter().min_by_key(by_name).expect("an image");
        let last = files_with(&raw, ".dcm").into_iter().max_by_key(by_name).expect("an image");
        let report = format!("{}.txt", last.rsplit_once('/').expect("a folder").0);
        let new = Self { faults, raw, tokenizer, whole: temporary.join("whole"), image, report };
        done(new.command(&new.whole, &[]));
        Some(new)
    }

    fn command(&self, out: &Path, more: &[&str]) -> Command {
        ingest_command(&self.raw, out, &[&["--tokenizer", &self.tokenizer], more].concat())
    }

    /// A run that cannot open the image, the report and the other named files.
    fn faulty(&self, out: &Path, more: &[&str], others: &[&str]) -> Command {
        let mut run = self.command(out, more);
        self.faults.inject(&mut run, Call::Open, EIO, &[&[&*self.image, &*self.report], others].concat(), None);
        run
    }

    fn is_whole(&self, out: &Path) -> bool {
        contents(out) == contents(&self.whole)
    }
}

/// The files of a dataset except the notes of the run.
fn dataset_files(out: &Path) -> Vec<(String, Vec<u8>)> {
    contents(out).into_iter().filter(|(name, _)| !name.starts_with(".ingest/")).collect()
}

#[test]
fn refused_inputs_are_ingested_by_a_retry() {
    let temporary = folder();
    let Some(set) = Disturbed::new(temporary.path()) else { return };
    let out = temporary.path().join("set");
    let advice = "could not be read";
    let message = done(set.faulty(&out, &[], &[]));
    assert!(message.contains(advice) && message.contains("--retry-rejects"), "{message}");
    let found = rejects(&out);
    let said = |path: &str, stage: &str| {
        let of = |reject: &&helpers::RejectRow| reject.source_path == path && reject.stage == stage;
        found.iter().filter(of).all(|reject| reject.error.starts_with("cannot be read: Input/output error"))
            && found.iter().any(|reject| of(&reject))
    };
    assert!(said(&set.image, "read") && said(&set.report, "report"), "{found:?}");
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));
    let before = contents(&out);
    assert!(!set.is_whole(&out));

    // The same command does nothing, and neither does a retry while nothing can be read.
    for message in [done(set.command(&out, &[])), done(set.faulty(&out, &["--retry-rejects"], &[]))] {
        assert!(message.contains("nothing to do") && message.contains(advice), "{message}");
        assert!(contents(&out) == before);
    }
    // Other changed input is reported before the dataset is changed.
    let other = set.raw.join(files_with(&set.raw, ".dcm").remove(9));
    let bytes = fs::read(&other).expect("a file");
    let mut changed = bytes.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    fs::write(&other, changed).expect("written");
    let message = ended(set.command(&out, &["--retry-rejects"]));
    assert!(message.contains("1 file (") && message.contains("changed since it was read"), "{message}");
    assert!(contents(&out) == before);
    fs::write(&other, bytes).expect("written");
    let message = ended(set.command(&out, &["--retry-rejects", "--intensity", "minmax"]));
    assert!(message.contains("holds another dataset"), "{message}");

    // Only a part can be read now.
    let mut half = set.command(&out, &["--retry-rejects"]);
    set.faults.inject(&mut half, Call::Open, EACCES, &[&set.report], None);
    let message = done(half);
    assert!(message.contains("continued after") && message.contains(advice), "{message}");
    assert!(rejects(&out).iter().all(|reject| reject.source_path == set.report));
    assert!(ok("dataset", args!["verify", &out]).contains("all whole"));

    let message = done(set.command(&out, &["--retry-rejects"]));
    assert!(message.contains("continued after") && !message.contains(advice), "{message}");
    assert!(set.is_whole(&out), "the bytes of a run without faults, and no notes");
    assert!(done(set.command(&out, &["--retry-rejects"])).contains("nothing to do"));
}

#[test]
fn a_retry_without_its_notes_is_refused() {
    let temporary = folder();
    let Some(set) = Disturbed::new(temporary.path()) else { return };
    let out = temporary.path().join("set");
    done(set.faulty(&out, &[], &[]));
    fs::remove_dir_all(out.join(".ingest")).expect("removed");
    let before = contents(&out);
    assert!(done(set.command(&out, &[])).contains("nothing to do"));
    let message = ended(set.command(&out, &["--retry-rejects"]));
    assert!(message.contains("--retry-rejects") && message.contains("--overwrite"), "{message}");
    assert!(contents(&out) == before);
    done(set.command(&out, &["--overwrite"]));
    assert!(set.is_whole(&out));
}

#[test]
fn an_unfinished_run_retries_refused_inputs() {
    let temporary = folder();
    let Some(set) = Disturbed::new(temporary.path()) else { return };
    let out = temporary.path().join("set");
    let message = ended(set.faulty(&out, &[], &["part-00001.parquet.tmp"]));
    assert!(message.contains("part-00001.parquet"), "{message}");
    assert!(out.join(".ingest/part-00000.json").exists(), "the shard with the image is finished");
    done(set.command(&out, &[]));
    assert!(set.is_whole(&out));
}

#[test]
fn a_stopped_retry_continues() {
    let temporary = folder();
    let Some(set) = Disturbed::new(temporary.path()) else { return };
    let made = temporary.path().join("made");
    done(set.faulty(&made, &[], &[]));
    let (before, after) = (dataset_files(&made), dataset_files(&set.whole));
    let retry = |out: &Path| set.command(out, &["--retry-rejects"]);
    // It fails after the first shard was replaced.
    let shards = fs::read_dir(made.join("shards")).expect("a folder").count();
    let failed = temporary.path().join("failed");
    copy_folder(&made, &failed);
    let mut run = retry(&failed);
    let last = format!("part-{:05}.parquet.tmp", shards - 1);
    set.faults.inject(&mut run, Call::Open, EIO, &[&last], None);
    ended(run);
    assert!(!failed.join("dataset.json").exists(), "no manifest names a shard that was replaced");
    fails("dataset", 1, args!["verify", &failed]);
    done(set.command(&failed, &[]));
    assert!(set.is_whole(&failed));

    // After a kill at any moment there is the old dataset, the new one, or an unfinished one that the same command completes.
    let timed = temporary.path().join("timed");
    copy_folder(&made, &timed);
    let started = Instant::now();
    done(retry(&timed));
    let span = started.elapsed();
    let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(5);
    for round in 0..12 {
        let out = temporary.path().join(format!("killed-{round}"));
        copy_folder(&made, &out);
        let mut child = retry(&out).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        std::thread::sleep(span.mul_f64(random.random_range(0.0..1.1)));
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        if out.join("dataset.json").exists() {
            let left = dataset_files(&out);
            let is_old = left.iter().filter(|(name, _)| !name.ends_with(".tmp")).eq(&before);
            assert!(is_old || left == after, "round {round}");
        }
        done(if round % 2 == 0 { retry(&out) } else { set.command(&out, &[]) });
        done(retry(&out));
        assert!(set.is_whole(&out), "round {round}");
    }
}
