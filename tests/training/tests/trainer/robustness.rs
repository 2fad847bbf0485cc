//! Faults that training survives, and settings that it refuses with one line.

use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use dataset::{Dataset, Loader, Split, Subset};
use helpers::{args, contents, fails, folder, is_installed, ok, text};
use training::{checkpoints, damage_image, dataset, numbers, pretraining, weights};

#[test]
fn threads_follow_the_cpus_of_the_process() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let run = temporary.path().join("run");
    // More steps each time: the number of threads is not part of the configuration.
    let mut steps = 0;
    let mut says = |program: &[&str], variables: &[(&str, &str)], more: &[&str], words: &str| {
        steps += 1;
        let mut words_of_command: Vec<OsString> = program.iter().map(Into::into).collect();
        words_of_command.push(helpers::binary("trainer").into());
        words_of_command.extend(pretraining(&data, &run, steps, more));
        let mut command = Command::new(&words_of_command[0]);
        command.args(&words_of_command[1..]).env_remove("OMP_NUM_THREADS").env_remove("SLURM_CPUS_PER_TASK");
        let output = command.envs(variables.iter().copied()).output().expect("it runs");
        let message = text(&output.stdout);
        assert!(output.status.success() && message.contains(words), "{words}: {message}{}", text(&output.stderr));
    };
    says(&[], &[("OMP_NUM_THREADS", "2")], &[], "on cpu with 2 threads (OMP_NUM_THREADS) and 1 of the loader");
    says(&[], &[("OMP_NUM_THREADS", "2")], &["--threads", "1"], "on cpu with 1 thread (--threads or run.threads)");
    says(&[], &[], &["--set", "run.threads=8"], "with 8 threads (--threads or run.threads) and 2 of the loader");
    if is_installed("taskset") {
        says(&["taskset", "-c", "0"], &[], &[], "on cpu with 1 thread (cores that this process may use)");
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > 1) {
        says(&[], &[("SLURM_CPUS_PER_TASK", "1")], &[], "on cpu with 1 thread (SLURM_CPUS_PER_TASK)");
    }
    // Several threads do not spin for milliseconds, unless the user sets how they wait.
    let spins = |variables: &[(&str, &str)], threads: &str| {
        let mut all = args!["bench", "--preset", "mrm-vit-tiny", "--device", "cpu", "--threads", threads].to_vec();
        all.extend(args!["--steps", "1", "--warmup", "1", "--batch-size", "2", "--set", "model.bert.vocab_size=100"]);
        let mut command = Command::new(helpers::binary("trainer"));
        command.args(all).env("OMP_DISPLAY_ENV", "verbose").env_remove("OMP_NUM_THREADS");
        let output = command.envs(variables.iter().copied()).output().expect("it runs");
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stderr).contains("GOMP_SPINCOUNT = '1000'")
    };
    assert!(spins(&[], "2") && !spins(&[], "1") && !spins(&[("OMP_WAIT_POLICY", "active")], "2"));

    let message = fails("trainer", 2, pretraining(&data, &run, 9, &["--threads", "0"]));
    assert!(message.contains("give a number from 1 to 1024"), "{message}");
}

#[test]
fn bfloat16_reaches_about_the_loss_of_float32() {
    let temporary = folder();
    let data = dataset(temporary.path(), 30);
    let last = |precision: &str| {
        let run = temporary.path().join(precision);
        ok("trainer", pretraining(&data, &run, 20, &["--set", &format!("run.precision={precision}")]));
        numbers(&run)[19]["loss"].as_f64().expect("a loss")
    };
    let (float, half) = (last("fp32"), last("bf16"));
    assert!(float != half && (float - half).abs() < 0.02 * float, "{float} and {half}");
}

#[test]
fn nonfinite_losses_are_skipped_reported_and_end_the_run() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let run = temporary.path().join("run");
    let explode = ["--set", "optimizer.base_lr=1e38", "--set", "run.skip_limit=3", "--set", "run.checkpoint_every=1"];
    let message = fails("trainer", 1, pretraining(&data, &run, 40, &explode));
    assert!(message.contains("skipped; records mimic-cxr/"), "{message}");
    assert!(message.contains("3 steps in a row without a finite loss (run.skip_limit)"), "{message}");
    let state: serde_json::Value =
        dataset::store::files::read_json(&run.join("latest/state.json")).expect("the newest state");
    let skipped = state["skipped"].as_u64().expect("a count");
    assert!(skipped == 2 && state["skipped_in_a_row"] == skipped, "{state}");
    // Skipped steps did not change the weights.
    let tensors = tch::Tensor::read_safetensors(run.join("latest/model.safetensors")).expect("weights");
    assert!(tensors.iter().all(|(name, tensor)| {
        let finite = tensor.to_kind(tch::Kind::Float).isfinite().all().int64_value(&[]) == 1;
        assert!(finite, "{name}");
        finite
    }));
}

#[test]
fn a_full_disk_keeps_the_previous_checkpoint() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let run = temporary.path().join("run");
    ok("trainer", pretraining(&data, &run, 4, &["--set", "run.checkpoint_every=2"]));
    let before = contents(&run.join("checkpoints"));
    let state = fs::read(run.join("latest/state.json")).expect("a state");
    assert!(String::from_utf8_lossy(&state).contains("\"step\": 4"));

    // A limit on the file size acts as a full disk: the write fails in the middle of the weights.
    let size = fs::metadata(run.join("latest/model.safetensors")).expect("weights").len();
    let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", size / 2 / 1024);
    let go_on = |limit: Option<&str>| {
        let mut shell = Command::new("bash");
        shell.args(["-c", limit.unwrap_or("exec \"$@\""), "bash"]).arg(helpers::binary("trainer"));
        let arguments = pretraining(&data, &run, 6, &["--set", "run.checkpoint_every=2"]);
        shell.args(arguments).env("OMP_NUM_THREADS", "1").output().expect("it runs")
    };
    let output = go_on(Some(&limited));
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the checkpoint of step 6 was not written; the one before is whole"), "{message}");
    assert_eq!(contents(&run.join("checkpoints")), before);
    assert!(go_on(None).status.success());
    assert_eq!(checkpoints(&run), ["step-4", "step-6"]);
    assert!(numbers(&run).len() == 6);
}

#[test]
fn impossible_runs_are_refused_with_one_line() {
    let temporary = folder();
    let data = dataset(temporary.path(), 60);
    let run = |name: &str| temporary.path().join(name);
    let exits = |code: i32, arguments: Vec<std::ffi::OsString>, words: &str| {
        let message = fails("trainer", code, arguments);
        let error: Vec<&str> = message.lines().filter(|line| line.starts_with("error: ")).collect();
        assert!(error.len() == 1 && error[0].contains(words), "{message}");
    };
    let says = |arguments: Vec<std::ffi::OsString>, words: &str| exits(1, arguments, words);
    let misused = |arguments: Vec<std::ffi::OsString>, words: &str| exits(2, arguments, words);
    ok("trainer", pretraining(&data, &run("mrm"), 2, &[]));
    // A model that is too large for any machine.
    says(
        pretraining(
            &data,
            &run("huge"),
            2,
            &[
                "--set",
                "model.vit.embed_dim=65536",
                "--set",
                "model.vit.image_size=8192",
                "--set",
                "model.vit.patch_size=4096",
            ],
        ),
        "not enough memory for this model and batch: lower --batch-size",
    );
    let finetune = |more: &[&str]| {
        let mut all =
            args!["finetune", "--data", &data, "--run", run("f"), "--split", "main", "--device", "cpu"].to_vec();
        all.extend(args!["--task", "labels:Edema", "--steps", "2", "--batch-size", "4"]);
        all.extend(more.iter().map(Into::into));
        all
    };
    let mrm = run("mrm").to_string_lossy().into_owned();
    says(finetune(&["--init", &mrm, "--preset", "mrm-vit-b16"]), "is of a run of preset mrm-vit-tiny, not mrm-vit-b16");
    // A weights file in a run has the sizes of the run; outside of a run it has none.
    let file = run("mrm").join("latest/model.safetensors");
    let inside = file.to_string_lossy().into_owned();
    says(
        finetune(&["--init", &inside, "--set", "model.vit.num_layers=2"]),
        "holds an encoder with another number of layers",
    );
    let outside = run("alone.safetensors");
    fs::copy(&file, &outside).expect("a copy");
    let outside = outside.to_string_lossy().into_owned();
    says(finetune(&["--init", &outside, "--preset", "mrm-vit-tiny"]), "holds weights of another size");
    let other = run("other.safetensors");
    tch::Tensor::write_safetensors(&[("x", tch::Tensor::from(1.0_f32))], &other).expect("written");
    says(finetune(&["--init", &other.to_string_lossy(), "--preset", "mrm-vit-tiny"]), "holds no weights of an encoder");
    says(finetune(&["--init", "nowhere"]), "nowhere does not exist");
    // Weights outside of a run are identified by their shapes.
    let small = run("small.safetensors");
    let tensors: Vec<(String, tch::Tensor)> = (0..12)
        .map(|block| (format!("blocks.{block}.norm1.weight"), tch::Tensor::ones([384], tch::kind::FLOAT_CPU)))
        .chain([("patch_embed.proj.weight".to_owned(), tch::Tensor::ones([384, 3, 16, 16], tch::kind::FLOAT_CPU))])
        .collect();
    tch::Tensor::write_safetensors(&tensors, &small).expect("written");
    let small = small.to_string_lossy().into_owned();
    let named = "; choose the --preset they were made with; the sizes are those of --preset mrm-vit-s16";
    says(finetune(&["--init", &small, "--preset", "mrm-vit-tiny"]), named);
    let embed = args!["embed", "--data", &data, "--weights", &small, "--out", run("x.parquet")].to_vec();
    says(embed, "no run says the sizes; the sizes are those of --preset mrm-vit-s16");
    misused(finetune(&["--preset", "mrm-vit-tiny", "--set", "optimizer.layer_decay=1.5"]), "optimizer.layer_decay");
    misused(finetune(&["--preset", "mrm-vit-tiny", "--set", "ratio=50"]), "`ratio` is no setting of the recipe");
    misused(finetune(&["--preset", "mrm-vit-tiny", "--set", "data.flip=2.0"]), "data.flip: must be from 0 to 1");
    misused(finetune(&["--preset", "mrm-vit-tiny", "--set", "lr=1e-3"]), "no key `lr`; did you mean `optimizer.lr`?");
    misused(pretraining(&data, &run("e"), 2, &["--set", "run.ema=1.0"]), "run.ema: must be from 0 to below 1");
    misused(pretraining(&data, &run("p"), 2, &["--set", "run.precision=fp8"]), "fp8");
    let masters = ["--set", "run.master_weights=true"];
    misused(pretraining(&data, &run("m"), 2, &masters), "run.master_weights: needs run.precision=bf16 or fp16");
    misused(finetune(&["--init", "random"]), "leave --init out for random initialization");
    let folder_of_runs = temporary.path().to_string_lossy().into_owned();
    let words = format!("it has no config.toml; did you mean {mrm}?");
    says(args!["evaluate", "--data", &data, "--run", &folder_of_runs, "--split", "main"].to_vec(), &words);
    for (typed, wrong, words) in [("cpu", "gpu", "give auto, cpu or cuda:N"), ("labels:Edema", "nih", "no task `nih`")]
    {
        let words_of = finetune(&[]).into_iter();
        misused(words_of.map(|word| if word == typed { wrong.into() } else { word }).collect(), words);
    }
    // A dataset without reports.
    let raw = helpers::phantom_of("chexpert", temporary.path(), 12);
    let silent = run("silent");
    helpers::ingest("chexpert", &raw, &silent, &[]);
    let mut all = args!["pretrain", "--data", &silent, "--run", run("s"), "--preset", "mrm-vit-tiny"].to_vec();
    all.extend(args!["--device", "cpu", "--steps", "2"]);
    says(all, "this dataset has no reports to reconstruct: set model.reconstruct=image-only");
    for name in ["f", "s", "e", "p"] {
        assert!(!run(name).exists(), "{name}: nothing is left in the way of the next try");
    }
}

#[test]
fn an_unreadable_record_loses_no_steps() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let (whole, lost) = (temporary.path().join("a"), temporary.path().join("b"));
    let settings = ["--set", "optimizer.accumulation=2"];
    ok("trainer", pretraining(&data, &whole, 6, &settings));
    // A record of the second batch of the second step: the first step is done, and no checkpoint is due.
    let opened = Arc::new(Dataset::open(&data).expect("a dataset"));
    let rows = Split::load(&opened, "main").expect("a split").rows(Subset::Train, None);
    let mut loader = Loader::builder(&opened).rows(rows).batch_size(8).drop_last(true).build().expect("a loader");
    let batches: Vec<u32> = (0..4).map(|_| loader.next_batch().expect("a batch").rows()[5]).collect();
    assert!(loader.batches() >= 4, "the batches of one epoch");
    let (shard, before) = damage_image(&data, batches[3] as usize);
    let message = fails("trainer", 1, pretraining(&data, &lost, 6, &settings));
    let made = numbers(&lost).len();
    assert!(made == 1 && message.contains("saved a checkpoint after step 1: the same command continues"), "{message}");
    assert!(
        message.lines().last().is_some_and(|line| line.contains("shards/part-") && line.contains("row ")),
        "{message}"
    );
    assert_eq!(checkpoints(&lost), ["step-1"]);
    // It fails again, without anything new to save.
    let message = fails("trainer", 1, pretraining(&data, &lost, 6, &settings));
    assert!(!message.contains("saved a checkpoint"), "{message}");
    fs::write(&shard, before).expect("written");
    ok("trainer", pretraining(&data, &lost, 6, &settings));
    assert_eq!(numbers(&lost), numbers(&whole));
    assert!(weights(&lost) == weights(&whole));
}

#[test]
fn sizes_out_of_bounds_are_refused_by_key_before_memory_is_allocated() {
    let temporary = folder();
    let data = dataset(temporary.path(), 20);
    let run = temporary.path().join("run");
    ok("trainer", pretraining(&data, &run, 1, &[]));
    // Too large for the memory limit; the process must still report it.
    let limited = |arguments: Vec<OsString>| {
        let mut shell = Command::new("bash");
        shell.args(["-c", "ulimit -v 12000000; exec \"$@\"", "bash"]).arg(helpers::binary("trainer"));
        let output = shell.args(arguments).env("OMP_NUM_THREADS", "1").output().expect("it runs");
        (output.status.code(), text(&output.stderr))
    };
    let preset = trainer::config::pretrain_preset("mrm-vit-tiny").expect("a preset");
    for (key, value) in [
        ("model.vit.num_layers", "1000000000"),
        ("model.vit.embed_dim", "1000000000"),
        ("model.vit.image_size", "1000000000"),
        ("model.vit.mlp_ratio", "1e300"),
        ("model.decoder.num_layers", "1000000000"),
        ("model.bert.num_layers", "1000000000"),
        ("model.bert.max_positions", "1000000000"),
        ("optimizer.batch_size", "1000000000"),
        ("optimizer.accumulation", "1000000000"),
        ("optimizer.epochs", "1e300"),
        ("run.loader_threads", "1000000"),
    ] {
        let settings = ["model.bert.vocab_size=100".to_owned(), format!("{key}={value}")];
        let config = trainer::config::overlay(&preset, None, &settings).expect("a configuration");
        let message = config.validate().expect_err(key).to_string();
        let last = key.rsplit('.').next().expect("a key");
        assert!(message.contains(last) && message.contains("must "), "{key}: {message}");
    }
    let mut epochs = pretraining(&data, &temporary.path().join("new"), 1, &[]);
    let steps = epochs.iter().position(|argument| argument == "--steps").expect("named");
    epochs.splice(steps..steps + 2, args!["--epochs", "1e300"]);
    let (code, message) = limited(epochs);
    assert!(code == Some(2) && message.contains("optimizer.epochs: must be at most 1000000"), "{message}");

    // The configuration of another person's run.
    let config = fs::read_to_string(run.join("config.toml")).expect("a configuration");
    let embed = args![
        "embed",
        "--data",
        &data,
        "--weights",
        &run,
        "--device",
        "cpu",
        "--out",
        temporary.path().join("f.parquet")
    ];
    let reconstruct = args!["reconstruct", "--data", &data, "--weights", &run, "--device", "cpu"];
    for (before, after, key) in [
        ("num_layers = 1", "num_layers = 1000000000", "num_layers: "),
        ("max_positions = 64", "max_positions = 1000000000", "max_positions: "),
        ("tokens = 64", "tokens = 1000000000", "data.tokens: "),
    ] {
        assert!(config.contains(before), "{config}");
        fs::write(run.join("config.toml"), config.replacen(before, after, 1)).expect("written");
        for arguments in [embed.to_vec(), reconstruct.to_vec()] {
            let (code, message) = limited(arguments);
            assert!(code == Some(1) && message.contains("run/config.toml: ") && message.contains(key), "{message}");
        }
    }
}
