//! Input that changes between two runs is reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use helpers::{SMALL, args, command, contents, copy_folder, fails, files_with, folder, ingest, ok, phantom};

fn arguments(raw: &Path, out: &Path) -> Vec<std::ffi::OsString> {
    let mut all = args!["mimic-cxr", raw, out, "--jobs", "1"].to_vec();
    all.extend(SMALL.iter().map(Into::into));
    all
}

/// A run that is killed after its first shard.
fn unfinished(raw: &Path, out: &Path) {
    let run = arguments(raw, out);
    for _ in 0..20 {
        let mut child =
            command("ingest").args(&run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let begun = Instant::now();
        while !out.join(".ingest/part-00000.json").exists() && begun.elapsed() < Duration::from_mins(1) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        if !out.join("dataset.json").exists() {
            return;
        }
        fs::remove_dir_all(out).expect("removed");
    }
    panic!("no run is killed in time");
}

/// A copy of an unfinished dataset, so that each change starts from the same state.
fn copied(from: &Path, to: &Path) -> PathBuf {
    copy_folder(from, to);
    to.to_path_buf()
}

/// A changed file, which is restored when this is dropped.
struct Changed(PathBuf, Vec<u8>);

impl Changed {
    fn one_bit(path: PathBuf) -> Self {
        let before = fs::read(&path).expect("a file");
        let mut bytes = before.clone();
        *bytes.last_mut().expect("bytes") ^= 1;
        fs::write(&path, bytes).expect("written");
        Self(path, before)
    }

    fn longer(path: PathBuf) -> Self {
        let before = fs::read(&path).expect("a file");
        fs::write(&path, [before.as_slice(), b"\0\0"].concat()).expect("written");
        Self(path, before)
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        fs::write(&self.0, &self.1).expect("written");
    }
}

#[test]
fn an_unfinished_run_reports_changed_input() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 40);
    let whole = temporary.path().join("whole");
    ingest("mimic-cxr", &raw, &whole, &[]);
    let killed = temporary.path().join("killed");
    unfinished(&raw, &killed);
    // Files of the first shard.
    let note = fs::read_to_string(killed.join(".ingest/part-00000.inputs")).expect("a note");
    let in_shard = |name: &String| note.contains(&format!("\"{name}\""));
    let image = files_with(&raw, ".dcm").into_iter().find(in_shard).expect("an image");
    let report = files_with(&raw, ".txt").into_iter().find(in_shard).expect("a report");
    let mut number = 0;
    let mut refused = |words: &[&str]| {
        number += 1;
        let out = copied(&killed, &temporary.path().join(format!("copy-{number}")));
        let before = contents(&out.join("shards"));
        let message = fails("ingest", 1, arguments(&raw, &out));
        assert!(words.iter().all(|word| message.contains(word)) && message.contains("--overwrite"), "{message}");
        assert!(contents(&out.join("shards")) == before, "nothing is written");
        ok("ingest", [arguments(&raw, &out), args!["--overwrite", "--max-reject-rate", "1"].to_vec()].concat());
    };
    let changed = Changed::one_bit(raw.join(&image));
    refused(&["1 file (", &image, "changed since it was read"]);
    drop(changed);
    let changed = Changed::one_bit(raw.join(&report));
    refused(&["1 file (", &report, "changed since it was read"]);
    drop(changed);
    let changed = Changed::longer(raw.join(&image));
    refused(&["1 file", &image, "of another size"]);
    drop(changed);
    let (path, bytes) = (raw.join(&image), fs::read(raw.join(&image)).expect("a file"));
    fs::remove_file(&path).expect("removed");
    refused(&["1 input", &image, "removed"]);
    fs::write(&path, bytes).expect("written");

    // Another modification time alone is no change.
    let file = fs::File::options().write(true).open(&path).expect("a file");
    file.set_modified(SystemTime::now() + Duration::from_hours(1)).expect("a time");
    assert!(ok("ingest", arguments(&raw, &killed)).contains("continued after"));
    assert!(contents(&killed) == contents(&whole), "and changes no byte");
}

#[test]
fn a_finished_dataset_is_checked_against_its_input() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 20);
    let out = temporary.path().join("set");
    fails("ingest", 1, args!["mimic-cxr", &raw, &out, "--check-input"]);
    ingest("mimic-cxr", &raw, &out, &["--report-text", "impression"]);
    let before = contents(&out);
    let check = || args!["mimic-cxr", &raw, &out, "--check-input"];
    let says = |words: &[&str]| {
        let output = helpers::run("ingest", check());
        let message = helpers::text(&output.stdout) + &helpers::text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    };
    assert!(ok("ingest", check()).contains("the input is unchanged"));
    let image = files_with(&raw, ".dcm").remove(1);
    let changed = Changed::one_bit(raw.join(&image));
    says(&[&format!("{image}: has other bytes"), "1 input of the dataset changed"]);
    drop(changed);
    let report = raw.join(files_with(&raw, ".txt").remove(0));
    let text = fs::read_to_string(&report).expect("a report");
    fs::write(&report, text.replace("IMPRESSION:", "IMPRESSION: New.")).expect("written");
    says(&["has another report"]);
    fs::write(&report, text).expect("written");
    let bytes = fs::read(raw.join(&image)).expect("a file");
    fs::remove_file(raw.join(&image)).expect("removed");
    says(&[&format!("{image}: cannot be read any more")]);
    // Without the check only the plan is compared: sizes and names.
    let message = fails("ingest", 1, [arguments(&raw, &out), args!["--report-text", "impression"].to_vec()].concat());
    assert!(message.contains("--check-input lists each changed"), "{message}");
    fs::write(raw.join(&image), bytes).expect("written");
    assert!(ok("ingest", check()).contains("the input is unchanged"));
    assert!(contents(&out) == before, "a check writes nothing");
}

/// Gives a dataset the manifest of format 1, whose options have their former names, with this digest of its input.
fn to_format_1(out: &Path, input: &str) {
    let path = out.join("dataset.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).expect("read")).expect("a manifest");
    manifest["format_version"] = 1.into();
    manifest["arguments"]["input_sha256"] = input.into();
    for part in ["arguments", "image"] {
        let fields = manifest[part].as_object_mut().expect("an object");
        for (former, name) in [("tone", "intensity"), ("fit", "resize")] {
            if let Some(value) = fields.remove(name) {
                fields.insert(former.to_owned(), value);
            }
        }
    }
    fs::write(&path, manifest.to_string()).expect("written");
}

#[test]
fn a_dataset_of_format_1_is_checked_and_not_continued() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 12);
    let out = temporary.path().join("set");
    ok("ingest", arguments(&raw, &out));
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(out.join("dataset.json")).expect("read")).expect("a manifest");
    let with = |option: &str| [arguments(&raw, &out), args![option].to_vec()].concat();
    to_format_1(&out, manifest["arguments"]["input_sha256"].as_str().expect("a digest"));
    assert!(ok("ingest", arguments(&raw, &out)).contains("nothing to do"));
    // The digest of the input may depend on the version.
    to_format_1(&out, "0");
    for run in [arguments(&raw, &out), with("--retry-rejects")] {
        let message = fails("ingest", 1, run);
        assert!(message.contains("in format version 1, whose digest") && message.contains("--overwrite"), "{message}");
    }
    assert!(ok("ingest", with("--check-input")).contains("the input is unchanged"));
    ok("ingest", with("--overwrite"));
    assert!(ok("ingest", arguments(&raw, &out)).contains("nothing to do"));

    let killed = temporary.path().join("killed");
    unfinished(&raw, &killed);
    let notes = killed.join(".ingest/arguments.json");
    let text = fs::read_to_string(&notes).expect("notes").replace("\"intensity\"", "\"tone\"");
    fs::write(&notes, text.replace("\"resize\"", "\"fit\"")).expect("written");
    let message = fails("ingest", 1, arguments(&raw, &killed));
    assert!(message.contains("an unfinished dataset that an earlier version began"), "{message}");
    ok("ingest", [arguments(&raw, &killed), args!["--overwrite"].to_vec()].concat());
}
