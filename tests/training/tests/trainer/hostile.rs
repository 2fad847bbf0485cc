//! Datasets, weights and runs with false or damaged values: `trainer` refuses them with one error that names shard and row,
//! shard and column, file or tensor.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use dataset::format::image_codec::GrayPixels;
use dataset::format::manifest::Manifest;
use dataset::format::record::{ImageEncoding, Record};
use dataset::{Dataset, Split, Storage, Subset};
use helpers::{
    args, contents, copy_folder, fails, folder, ingest, ok, phantom, records, retyped, rewrite_records, rewrite_shard,
    set_label_code, write_file,
};
use tch::Tensor;
use training::{dataset, finetuning, pretrained, pretraining, weights};

use crate::segmentation;

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

/// The shard of a record of the training subset, and its row there.
fn training_place(data: &Path, fits: impl Fn(&Record) -> bool) -> (usize, usize) {
    let opened = Dataset::open(data).expect("a manifest");
    let rows = Split::load(&opened, "main").expect("a split").rows(Subset::Train, None);
    let records = records(data);
    let mut row = rows.into_iter().map(|row| row as usize).find(|&row| fits(&records[row])).expect("a record");
    for (shard, info) in opened.manifest().shards.iter().enumerate() {
        let rows = info.rows as usize;
        if row < rows {
            return (shard, row);
        }
        row -= rows;
    }
    panic!("no shard has the row")
}

/// The arguments with batches of all training records, so that the first batch has the changed one.
fn in_one_batch(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let option = arguments.iter().position(|word| word == "--batch-size").expect("an option");
    arguments[option + 1] = "128".into();
    arguments
}

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
fn masks_of_another_size_or_cut_are_refused_with_shard_and_row() {
    let temporary = folder();
    let data = segmentation::dataset(temporary.path(), 20);
    let (whole, run) = (temporary.path().join("whole"), temporary.path().join("run"));
    copy_folder(&data, &whole);
    // Masks of the same images at another size.
    let small = temporary.path().join("small");
    ok("ingest", args!["siim", temporary.path().join("siim"), &small, "--size", "48"]);
    let other = records(&small).into_iter().find_map(|record| record.masks.into_iter().next()).expect("a mask");
    let (shard, row) = training_place(&data, |record| !record.masks.is_empty());
    let tune = |repeats: &str| in_one_batch(segmentation::finetuning(&data, &run, 2, &["--set", repeats]));
    let changes: [(Change<'_>, &str); 2] = [
        (&|record| record.masks[0].png.clone_from(&other.png), "its mask has another size ("),
        (&|record| record.masks[0].png.truncate(44), "its mask: image decoding: "),
    ];
    for (change, expected) in changes {
        rewrite_records(&data, shard, |records| change(&mut records[row]));
        // Where positives are repeated, masks are decoded before the first batch.
        for repeats in ["data.repeat_positives=1", "data.repeat_positives=10"] {
            let refused = error(tune(repeats));
            let expected = format!("shards/part-{shard:05}.parquet, row {row}: {expected}");
            assert!(refused.contains(&expected), "{repeats}: {refused}");
            assert!(!run.exists(), "nothing is left in the way of the next try");
        }
        copy_folder(&whole, &data);
    }
    ok("trainer", tune("data.repeat_positives=1"));
}

#[test]
fn images_of_another_format_or_depth_are_refused_with_shard_and_row() {
    let temporary = folder();
    let raw = phantom(temporary.path(), 16);
    let run = temporary.path().join("run");
    for (stored, encoding, expected) in [
        ("png", ImageEncoding::Png16, "its image is png of L16, the dataset's images are 8-bit gray png"),
        ("png", ImageEncoding::Jpeg, "its image is jpg of L8, the dataset's images are 8-bit gray png"),
        ("raw", ImageEncoding::Raw16, "the image page does not contain "),
    ] {
        let data = temporary.path().join(encoding.name());
        ingest("mimic-cxr", &raw, &data, &["--image-encoding", stored]);
        ok(
            "dataset",
            args!["split", &data, "--name", "main", "--ratios", "50,100", "--validation", "0.2", "--test", "0.3"],
        );
        let (shard, row) = training_place(&data, |record| record.report.is_some());
        rewrite_records(&data, shard, |records| {
            let record = &mut records[row];
            let (width, height) = (u32::from(record.width), u32::from(record.height));
            let pixels = vec![0; (width * height) as usize];
            record.image = GrayPixels { width, height, pixels }.encode(encoding).expect("encoded");
        });
        let refused = error(in_one_batch(pretraining(&data, &run, 3, &[])));
        let expected = format!("shards/part-{shard:05}.parquet, row {row}: {expected}");
        assert!(refused.contains(&expected), "{}: {refused}", encoding.name());
        assert!(!run.exists(), "nothing is left in the way of the next try");
    }
}

#[test]
fn token_ids_that_are_missing_or_of_another_type_are_refused_with_shard_and_column() {
    let temporary = folder();
    let missing = dataset(temporary.path(), 16);
    let (other_type, run) = (temporary.path().join("other"), temporary.path().join("run"));
    copy_folder(&missing, &other_type);
    rewrite_shard(&missing, 0, |batch| {
        let schema = batch.schema();
        let kept: Vec<usize> = (0..batch.num_columns()).filter(|&at| schema.field(at).name() != "token_ids").collect();
        batch.project(&kept).expect("a batch")
    });
    rewrite_shard(&other_type, 0, |batch| retyped(&batch, "token_ids", "boxes"));
    for (data, expected) in
        [(missing, "the column `token_ids` is missing"), (other_type, "column `token_ids` has type ")]
    {
        let refused = error(pretraining(&data, &run, 3, &[]));
        assert!(refused.contains(&format!("shards/part-00000.parquet: {expected}")), "{refused}");
        assert!(!run.exists(), "nothing is left in the way of the next try");
    }
}

#[test]
fn a_join_of_other_shards_and_labels_shifted_by_one_row_are_refused_at_the_start() {
    let temporary = folder();
    let data = dataset(temporary.path(), 16);
    let run = temporary.path().join("run");
    let table = temporary.path().join("hernia.csv");
    let rows: String = records(&data).iter().map(|record| format!("{},1\n", record.image_id)).collect();
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
        assert!(
            refused.contains("is damaged; delete this checkpoint's folder") && refused.contains("no numbers"),
            "{refused}"
        );
        fs::write(&latest, before).expect("written");
    }
    ok("trainer", pretraining(&data, &run, 6, &[]));
}

#[test]
fn a_run_with_a_damaged_configuration_or_checkpoint_is_refused_and_not_changed() {
    let temporary = folder();
    let data = dataset(temporary.path(), 16);
    let run = temporary.path().join("run");
    let again = || pretraining(&data, &run, 2, &["--set", "run.checkpoint_every=1"]);
    ok("trainer", again());
    let config = fs::read_to_string(run.join("config.toml")).expect("a configuration");
    let lr = config.lines().find(|line| line.starts_with("base_lr = ")).expect("a learning rate");
    let with_lr = |line: &str| config.replacen(lr, line, 1).into_bytes();
    let (state_file, optimizer_file) = ("checkpoints/step-2/state.json", "checkpoints/step-2/optimizer.safetensors");
    let state = fs::read(run.join(state_file)).expect("a state");
    let optimizer = fs::read(run.join(optimizer_file)).expect("the optimizer's state");
    let tensors = Tensor::read_safetensors(run.join(optimizer_file)).expect("tensors");
    let other_shape = |(name, _): (String, Tensor)| (name, Tensor::zeros([1, 1, 1, 1], tch::kind::FLOAT_CPU));
    let tensors: Vec<(String, Tensor)> = tensors.into_iter().map(other_shape).collect();
    let reshaped = temporary.path().join("reshaped.safetensors");
    Tensor::write_safetensors(&tensors, &reshaped).expect("written");
    let reshaped = fs::read(reshaped).expect("tensors");

    let no_config = "run/config.toml is not the configuration of a run: ";
    let deep = format!("deep = {}{}\n{config}", "[".repeat(2000), "]".repeat(2000));
    let [damaged_state, damaged_optimizer] = [state_file, optimizer_file].map(|file| format!("run/{file}: "));
    for (what, file, bytes, expected) in [
        ("malformed", "config.toml", format!("{config}[[").into_bytes(), no_config),
        ("a key twice", "config.toml", with_lr(&format!("{lr}\n{lr}")), no_config),
        ("deep", "config.toml", deep.into_bytes(), no_config),
        ("empty", "config.toml", Vec::new(), no_config),
        ("zeros", "config.toml", vec![0; config.len()], no_config),
        ("no number", "config.toml", with_lr("base_lr = nan"), "was nan); take another directory"),
        ("cut", state_file, state[..state.len() / 2].to_vec(), &*damaged_state),
        ("empty", state_file, Vec::new(), &*damaged_state),
        ("zeros", state_file, vec![0; state.len()], &*damaged_state),
        ("a list", state_file, [&b"["[..], &state[..], b"]"].concat(), &*damaged_state),
        ("cut", optimizer_file, optimizer[..optimizer.len() / 2].to_vec(), &*damaged_optimizer),
        ("empty", optimizer_file, Vec::new(), &*damaged_optimizer),
        ("zeros", optimizer_file, vec![0; optimizer.len()], &*damaged_optimizer),
        (
            "another shape",
            optimizer_file,
            reshaped,
            "optimizer.safetensors does not fit this run; delete this checkpoint's folder",
        ),
    ] {
        let path = run.join(file);
        let whole = fs::read(&path).expect("a file");
        fs::write(&path, bytes).expect("written");
        let before = contents(&run);
        let refused = error(again());
        assert!(refused.contains(expected), "{file}, {what}: {refused}");
        assert!(contents(&run) == before, "{file}, {what}: the run was changed");
        fs::write(&path, whole).expect("written");
    }
    ok("trainer", again());
}

#[test]
fn a_checkpoint_with_the_state_of_another_step_is_refused_and_not_changed() {
    let temporary = folder();
    let data = dataset(temporary.path(), 16);
    let run = temporary.path().join("run");
    let again = || pretraining(&data, &run, 2, &["--set", "run.checkpoint_every=1"]);
    ok("trainer", again());
    let last = weights(&run);
    let [first, second] = ["step-1", "step-2"].map(|name| run.join("checkpoints").join(name));
    fs::copy(first.join("state.json"), second.join("state.json")).expect("a copy");
    let before = contents(&run);
    let refused = error(again());
    let problem =
        "checkpoints/step-2/state.json is the state after step 1, not after step 2; delete this checkpoint's folder";
    assert!(refused.contains(problem), "{refused}");
    assert!(contents(&run) == before, "the run was changed");
    assert_eq!(fs::read_link(run.join("latest")).expect("a link"), Path::new("checkpoints/step-2"));
    // What the message advises.
    fs::remove_dir_all(second).expect("removed");
    ok("trainer", again());
    assert!(weights(&run) == last);
}
