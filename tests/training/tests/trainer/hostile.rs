//! Datasets and weights whose values lie: `trainer` refuses them with one error that names shard and row, file or tensor.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use dataset::format::manifest::Manifest;
use dataset::format::record::Record;
use dataset::{Dataset, Storage};
use helpers::{args, copy_folder, fails, folder, ok, rewrite_records, set_label_code, write_file};
use tch::Tensor;
use training::{dataset, finetuning, pretrained, pretraining};

/// The only error of a run that must fail.
fn error(arguments: Vec<OsString>) -> String {
    let message = fails("trainer", 1, arguments);
    assert!(!message.contains("internal error"), "{message}");
    let errors: Vec<&str> = message.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{message}");
    errors[0].to_owned()
}

/// Changes every record of a dataset.
fn rewrite(data: &Path, change: impl Fn(&mut Record)) {
    let shards = Dataset::open(data).expect("a manifest").manifest().shards.len();
    (0..shards).for_each(|shard| rewrite_records(data, shard, |records| records.iter_mut().for_each(&change)));
}

/// A change of a record.
type Change<'a> = &'a dyn Fn(&mut Record);

#[test]
fn datasets_whose_values_lie_are_refused_with_shard_and_row() {
    let temporary = folder();
    let whole = dataset(temporary.path(), 16);
    let copy = |name: &str| {
        let out = temporary.path().join(name);
        copy_folder(&whole, &out);
        out
    };
    let run = temporary.path().join("run");
    let vocabulary = Dataset::open(&whole).expect("a manifest").manifest().text.vocabulary as i32;
    let changes: [(&str, Change<'_>, &str); 4] = [
        ("tokens", &|record| record.token_ids[1] = vocabulary, "but the vocabulary has"),
        ("negative", &|record| record.token_ids[1] = i32::MIN, "token id -2147483648"),
        ("short", &|record| drop(record.image.split_off(9)), "the image page does not contain"),
        ("sides", &|record| (record.width, record.height) = (u16::MAX, u16::MAX), "the image page does not contain"),
    ];
    for (name, change, expected) in changes {
        let data = copy(name);
        rewrite(&data, change);
        let refused = error(pretraining(&data, &run, 3, &[]));
        let is_named = refused.contains("shards/part-0000") && refused.contains(", row ");
        assert!(is_named && refused.contains(expected), "{name}: {refused}");
        let _ = fs::remove_dir_all(&run);
    }
    // A code that is no label, of a finding that the run learns.
    let data = copy("codes");
    let finding = Dataset::open(&data).expect("a manifest").findings().iter().position(|name| name == "Edema");
    let finding = finding.expect("a finding");
    let labels = Dataset::open(&data).expect("a manifest").labels().expect("labels");
    let in_first = Dataset::open(&data).expect("a manifest").manifest().shards[0].rows as usize;
    let row = (0..in_first).find(|&row| labels[row][finding] == Some(dataset::Label::Negative)).expect("a negative");
    set_label_code(&data, 0, row, finding, 5);
    let mut finetune = args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--device", "cpu"].to_vec();
    finetune.extend(args!["--preset", "mrm-vit-tiny", "--task", "labels:Edema", "--steps", "2", "--batch-size", "4"]);
    let refused = error(finetune);
    assert!(refused.contains(&format!("shards/part-00000.parquet, row {row}: label code 5")), "{refused}");

    // The files beside the shards.
    let data = copy("tokenizer");
    let tokenizer = fs::read_to_string(data.join("tokenizer.json")).expect("a tokenizer");
    write_file(&data.join("tokenizer.json"), tokenizer.replacen("[MASK]", "[MASC]", 1));
    assert!(error(pretraining(&data, &run, 3, &[])).contains("not the tokenizer that made the token ids"));
    let data = copy("version");
    let storage = Storage::folder(&data);
    let mut manifest = Manifest::load(&storage).expect("a manifest");
    manifest.format_version = 3;
    manifest.save(&storage).expect("saved");
    let refused = error(pretraining(&data, &run, 3, &[]));
    assert!(
        refused.contains("format version 3, this build reads versions 1 and 2; use the build that wrote it"),
        "{refused}"
    );
    let data = copy("repeated");
    rewrite_records(&data, 0, |records| records[1] = records[0].clone());
    assert!(error(pretraining(&data, &run, 3, &[])).contains("it lacks record `"));
    let data = copy("other");
    fs::create_dir(temporary.path().join("more")).expect("a folder");
    let other = dataset(&temporary.path().join("more"), 20);
    fs::remove_dir_all(data.join("splits")).expect("removed");
    copy_folder(&other.join("splits"), &data.join("splits"));
    let refused = error(pretraining(&data, &run, 3, &[]));
    assert!(refused.contains("split `main`: it has ") && refused.contains("the dataset has"), "{refused}");
    assert!(!run.exists(), "nothing is left in the way of the next try");
}

#[test]
fn a_join_of_other_shards_and_labels_shifted_by_one_row_are_refused_at_the_start() {
    let temporary = folder();
    let data = dataset(temporary.path(), 16);
    let run = temporary.path().join("run");
    let table = temporary.path().join("hernia.csv");
    let rows: String = helpers::records(&data).iter().map(|record| format!("{},1\n", record.image_id)).collect();
    write_file(&table, format!("id,Hernia\n{rows}"));
    ok("ingest", args!["join", &data, "--table", &table, "--key", "id", "--as", "labels"]);
    let manifest = fs::read(data.join("dataset.json")).expect("a manifest");
    rewrite_records(&data, 0, |records| {
        let labels: Vec<_> = records.iter().map(|record| record.labels.clone()).collect();
        records.iter_mut().zip(labels.iter().cycle().skip(1)).for_each(|(record, next)| record.labels.clone_from(next));
    });
    let mut finetune = args!["finetune", "--data", &data, "--run", &run, "--split", "main", "--device", "cpu"].to_vec();
    finetune.extend(args!["--preset", "mrm-vit-tiny", "--task", "labels:Edema", "--steps", "2", "--batch-size", "4"]);
    let mut joined = finetune.clone();
    joined.extend(args!["--join", "hernia"]);
    let refused = error(joined);
    assert!(
        refused.contains("join `hernia`: the dataset was changed or replaced after the join was made"),
        "{refused}"
    );
    let refused = error(finetune.clone());
    assert!(refused.contains("the split or the dataset was changed after the split was made"), "{refused}");
    // With the manifest of before.
    write_file(&data.join("dataset.json"), manifest);
    assert!(error(finetune).contains("shards/part-00000.parquet"));
    assert!(!run.exists(), "nothing is left in the way of the next try");
}

/// A safetensors file of a header and zeros.
fn safetensors(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + bytes, 0);
    file
}

#[test]
fn weights_whose_headers_lie_or_that_are_no_numbers_are_refused() {
    let temporary = folder();
    let (data, run) = pretrained(temporary.path(), 16);
    let (path, out) = (temporary.path().join("lies.safetensors"), temporary.path().join("out.safetensors"));
    let tuned = temporary.path().join("tuned");
    let refused = |expected: &str| {
        let finetune = finetuning(&data, &tuned, &path, &["--preset", "mrm-vit-tiny"]);
        let features = temporary.path().join("features.parquet");
        let embed = args!["embed", "--data", &data, "--weights", &path, "--preset", "mrm-vit-tiny", "--out", features];
        for arguments in [finetune, embed.to_vec(), args!["import", &path, "--out", &out].to_vec()] {
            let refused = error(arguments);
            assert!(refused.contains("lies.safetensors") && refused.contains(expected), "{refused}");
        }
        assert!(!tuned.exists() && !out.exists(), "{expected}");
    };
    let one = |shape: &str, place: &str| format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{place}}}}}"#);
    let mut long = safetensors(&one("[2]", "[0,8]"), 8);
    long[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    let mut beyond = safetensors(&one("[2]", "[0,8]"), 8);
    beyond[..8].copy_from_slice(&90_000_000_u64.to_le_bytes());
    let overlapping = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    for file in [
        long,
        beyond,
        safetensors(overlapping, 12),
        safetensors(&one("[2]", "[0,800000000000]"), 8),
        safetensors(&one("[4611686018427387904,4]", "[0,0]"), 0),
        safetensors(&one("[200000]", "[0,8]"), 8),
        safetensors(&one("[-2]", "[0,8]"), 8),
        safetensors(&"[".repeat(100_000), 0),
        safetensors(&format!("{{\"a\":{}", "{\"b\":".repeat(100_000)), 0),
    ] {
        fs::write(&path, file).expect("written");
        refused("");
    }

    // One value of a real model. Without the check, the run would skip all of its steps, and features would be no numbers.
    let tensors = Tensor::read_safetensors(run.join("latest/model.safetensors")).expect("weights");
    for value in [f64::NAN, f64::INFINITY] {
        let changed: Vec<(String, Tensor)> = tensors
            .iter()
            .map(|(name, tensor)| {
                let tensor = tensor.copy();
                if name == "blocks.0.norm1.weight" {
                    let _ = tensor.view(-1).get(3).fill_(value);
                }
                (name.clone(), tensor)
            })
            .collect();
        Tensor::write_safetensors(&changed, &path).expect("written");
        refused("the tensor `blocks.0.norm1.weight` has values that are infinite or no numbers");
        // A checkpoint of a run.
        let latest = run.join("latest/model.safetensors");
        let before = fs::read(&latest).expect("weights");
        fs::copy(&path, &latest).expect("copied");
        let refused = error(pretraining(&data, &run, 6, &[]));
        assert!(refused.contains("is damaged; delete this folder") && refused.contains("no numbers"), "{refused}");
        fs::write(&latest, before).expect("written");
    }
    ok("trainer", pretraining(&data, &run, 6, &[]));
}
