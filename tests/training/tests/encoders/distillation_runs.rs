//! Runs of self-distillation.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use helpers::{args, fails, folder, ok};
use serde_json::Value;
use tch::Tensor;
use training::{dataset, finetuning, kill_after, numbers, weights};

/// A model of a few thousand weights.
const MINIATURE: [&str; 7] = [
    "model.vit.image_size=32",
    "model.vit.embed_dim=32",
    "model.vit.num_layers=1",
    "model.head={hidden_dim=32, bottleneck=16, prototypes=64}",
    "data.local_size=16",
    "data.local_crops=2",
    "run.log_every=1",
];

fn training(data: &Path, run: &Path, objective: &str, steps: u64, more: &[&str]) -> Vec<OsString> {
    let mut all =
        args!["pretrain", "--objective", objective, "--data", data, "--run", run, "--preset", "mrm-vit-tiny"].to_vec();
    all.extend(args!["--split", "main", "--device", "cpu", "--steps", steps.to_string(), "--batch-size", "8"]);
    for setting in MINIATURE.iter().chain(more) {
        all.extend(args!["--set", setting]);
    }
    all
}

fn state(run: &Path) -> BTreeMap<String, Tensor> {
    Tensor::read_safetensors(run.join("latest/model.safetensors")).expect("weights").into_iter().collect()
}

fn number(line: &Value, key: &str) -> f64 {
    line[key].as_f64().unwrap_or_else(|| panic!("{key} in {line}"))
}

#[test]
fn a_killed_run_continues_to_the_same_bytes() {
    let temporary = folder();
    let data = dataset(temporary.path(), 40);
    let at = |name: &str| temporary.path().join(name);
    for (kind, settings) in [
        ("center", &["loss.koleo_weight=0.1"][..]),
        ("sinkhorn", &["teacher.centering=sinkhorn", "optimizer.accumulation=2", "model.drop_path=0.2"]),
    ] {
        let more = [settings, &["run.checkpoint_every=5"]].concat();
        let (whole, killed) = (at(&format!("whole-{kind}")), at(&format!("killed-{kind}")));
        let run = |folder: &Path| training(&data, folder, "dino-ibot", 16, &more);
        let printed = ok("trainer", run(&whole));
        assert!(printed.contains("of 4 crops, "), "{printed}");
        kill_after(7, &killed, run(&killed));
        ok("trainer", run(&killed));
        assert_eq!(numbers(&killed), numbers(&whole));
        assert!(weights(&killed) == weights(&whole));
        let lines = numbers(&whole);
        assert!(lines.iter().all(|line| number(line, "loss_cls") > 0.0 && number(line, "loss_patch") > 0.0));
    }
    teacher_of(&at("whole-center"), &data, temporary.path());
}

/// The teacher differs from the student, and other runs start from it.
fn teacher_of(run: &Path, data: &Path, folder: &Path) {
    let trained = state(run);
    let differs = |name: &str| trained[name] != trained[&format!("student.{name}")];
    assert!(differs("blocks.0.attn.qkv.weight") && differs("norm.bias") && differs("dino_head.mlp.0.weight"));
    assert!(trained["center"].abs().max().double_value(&[]) > 0.0);

    let finetuned = folder.join("finetuned");
    let mut all = finetuning(data, &finetuned, run, &[]);
    let steps = all.iter().position(|word| word == "--steps").expect("an option");
    all[steps + 1] = "1".into();
    all.extend(args!["--set", "optimizer.lr=0"]);
    let message = ok("trainer", all);
    assert!(message.contains("missing, left at their initialization: 2 (head.* (2))"), "{message}");
    let start = state(&finetuned);
    for name in ["blocks.0.attn.qkv.weight", "norm.weight", "pos_embed", "cls_token"] {
        assert_eq!(start[name], trained[name], "{name}");
    }

    // A second stage on larger crops begins with the teacher's encoder and heads.
    let second = folder.join("second");
    let mut all =
        training(data, &second, "dino", 1, &["model.vit.image_size=48", "optimizer.base_lr=0", "optimizer.min_lr=0"]);
    all.extend(args!["--init", run]);
    let message = ok("trainer", all);
    assert!(message.contains("resized: pos_embed [1, 17, 32] -> [1, 37, 32]"), "{message}");
    let start = state(&second);
    for name in ["blocks.0.attn.qkv.weight", "dino_head.mlp.4.weight"] {
        let largest = |other: &Tensor| (other - &trained[name]).abs().max().double_value(&[]);
        assert!(largest(&start[name]) < 1e-6 && largest(&start[&format!("student.{name}")]) < 1e-6, "{name}");
    }

    // A timm folder of the teacher; embed takes its class token.
    let exported = ok("trainer", args!["export", run, "--to", "timm", "--out", folder.join("timm")]);
    assert!(exported.contains("student.*"), "{exported}");
    let out = folder.join("features.parquet");
    let message = ok("trainer", args!["embed", "--data", data, "--weights", run, "--device", "cpu", "--out", &out]);
    assert!(message.contains("32 features each"), "{message}");
    ok("trainer", args!["report", run, "--out", folder.join("report.html")]);
}

#[test]
fn prototypes_are_frozen_at_first_and_the_schedules_move() {
    let temporary = folder();
    let data = dataset(temporary.path(), 24);
    let at = |name: &str| temporary.path().join(name);
    let prototypes = |run: &Path| state(run)["student.dino_head.last_layer.weight"].shallow_clone();
    // Two steps of a run of 100 epochs, of which all but the last two are frozen.
    let frozen = ["optimizer.freeze_epochs=99.0"];
    ok("trainer", training(&data, &at("one"), "dino", 1, &frozen));
    ok("trainer", training(&data, &at("frozen"), "dino", 12, &frozen));
    ok("trainer", training(&data, &at("free"), "dino", 12, &["optimizer.freeze_epochs=0.0"]));
    assert_eq!(prototypes(&at("one")), prototypes(&at("frozen")));
    assert_ne!(prototypes(&at("one")), prototypes(&at("free")));

    let refused = fails("trainer", 2, training(&data, &at("no"), "dino", 1, &["run.ema=0.99"]));
    assert!(refused.contains("run.ema: not with self-distillation"), "{refused}");
    let refused = fails("trainer", 2, training(&data, &at("no"), "ibot", 1, &[]));
    assert!(refused.contains("no objective `ibot`") && refused.contains("dino-ibot"), "{refused}");
    assert!(!at("no").exists());
}

#[test]
fn the_teacher_neither_collapses_to_one_prototype_nor_to_all() {
    let temporary = folder();
    let data = dataset(temporary.path(), 80);
    let at = |name: &str| temporary.path().join(name);
    let uniform = 64.0_f64.ln();
    for centering in ["center", "sinkhorn"] {
        let setting = format!("teacher.centering={centering}");
        let mut all = training(&data, &at(centering), "dino-ibot", 100, &[&setting]);
        let batch = all.iter().position(|word| word == "--batch-size").expect("an option");
        all[batch + 1] = "32".into();
        ok("trainer", all);
        let lines = numbers(&at(centering));
        let mean = |key: &str| lines[80..].iter().map(|line| number(line, key)).sum::<f64>() / 20.0;
        let (entropy, spread) = (mean("teacher_entropy") / uniform, mean("teacher_spread") / uniform);
        println!("{centering}: entropy {entropy:.3}, spread {spread:.3} of the uniform distribution's");
        // Distributions prefer some prototypes, and different images different ones.
        assert!((0.1..0.95).contains(&entropy), "{centering}: {entropy}");
        assert!(spread > 0.4 && spread > entropy + 0.05, "{centering}: {spread}");
        assert!(lines.iter().all(|line| line["loss"].as_f64().is_some_and(f64::is_finite)));
    }
}
