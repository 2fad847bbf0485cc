//! Self-distillation against PyTorch: losses, gradients, centers, teacher.

use std::collections::BTreeMap;

use helpers::{folder, python_output};
use serde_json::json;
use tch::{Device, Kind, Tensor};
use trainer::config::{DinoConfig, dino_preset, overlay};
use trainer::task::Distillation;
use trainer::task::dino::{Crops, PatchMasks};
use trainer::task::objective::Objective;
use trainer::train::distributed::Compute;
use training::golden::{GRADIENTS, check};
use training::torch_python;

/// The step that is computed, and those of the run.
const STEP: u64 = 30;
const STEPS: u64 = 100;

/// Images of a batch, and local crops of one.
const IMAGES: usize = 4;

fn config(settings: &[&str]) -> DinoConfig {
    let sizes = [
        "model.vit.image_size=32",
        "model.vit.embed_dim=24",
        "model.vit.num_layers=2",
        "model.vit.num_heads=2",
        "model.head={hidden_dim=20, bottleneck=12, prototypes=30}",
        "data.local_size=16",
        "data.local_crops=3",
        "loss.mask_ratio=[0.2, 0.6]",
        // In the middle of the warm-up.
        "teacher.temperature=0.07",
        "teacher.warmup_epochs=60.0",
    ];
    let settings: Vec<String> = sizes.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
    let config = overlay(&dino_preset("mrm-vit-tiny").expect("a preset"), None, &settings).expect("settings");
    config.validate().expect("possible");
    config
}

/// Masks, some of which hide nothing.
fn masks() -> Vec<Vec<bool>> {
    (0..2 * IMAGES)
        .map(|crop| (0..16).map(|patch| crop % 3 > 0 && (patch + crop) % (crop + 1) == 0).collect())
        .collect()
}

fn step_equals_pytorch(name: &str, settings: &[&str]) {
    let Some(mut python) = torch_python("distillation.py") else { return };
    tch::set_num_threads(1);
    tch::manual_seed(8);
    let temporary = folder();
    let config = config(settings);
    let objective = Distillation::new(&config, STEPS, &Compute::on(Device::Cpu)).expect("a model");
    // Teacher, student and centers that differ.
    let variables: BTreeMap<String, Tensor> = objective.store().variables().into_iter().collect();
    tch::no_grad(|| {
        for (name, variable) in &variables {
            let spread = if name.contains("center") { 0.02 } else { 0.1 };
            let _ = variable.shallow_clone().g_add_(&(Tensor::randn_like(variable) * spread));
        }
    });
    let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
    let masks = (config.loss.patch_weight > 0.0).then(|| PatchMasks::new(&masks(), Device::Cpu));
    let locals = config.data.local_crops as i64;
    let crops = Crops {
        global: random(&[2 * IMAGES as i64, 1, 32, 32]),
        local: (locals > 0).then(|| random(&[locals * IMAGES as i64, 1, 16, 16])),
        masks,
    };
    let mut inputs: Vec<(String, Tensor)> =
        variables.iter().map(|(name, tensor)| (format!("state.{name}"), tensor.detach().copy())).collect();
    inputs.push(("global".to_owned(), crops.global.copy()));
    inputs.extend(crops.local.iter().map(|local| ("local".to_owned(), local.copy())));
    inputs.extend(crops.masks.iter().map(|masks| ("mask".to_owned(), masks.mask.copy())));
    Tensor::write_safetensors(&inputs, temporary.path().join("case.safetensors")).expect("written");
    let mut case = serde_json::to_value(&config).expect("JSON");
    (case["step"], case["steps"]) = (json!(STEP), json!(STEPS));
    std::fs::write(temporary.path().join("case.json"), case.to_string()).expect("written");
    python_output(python.arg(temporary.path()));
    let expected = Tensor::read_safetensors(temporary.path().join("expected.safetensors")).expect("tensors");
    let expected: BTreeMap<String, Tensor> = expected.into_iter().collect();

    objective.before_step(STEP).expect("a step");
    let loss = objective.loss_of(&crops).expect("a loss");
    let mut compared = 0;
    for (part, value) in loss.parts.iter().filter(|(part, _)| part.starts_with("loss_")) {
        check(&format!("{name}: {part}"), value, &expected[*part], (1e-5, 1e-6));
        compared += 1;
    }
    check(&format!("{name}: total"), &loss.total, &expected["total"], (1e-5, 1e-6));
    loss.total.backward();
    objective.after_step(STEP, &Tensor::from(0.0_f32)).expect("a step");
    for (key, tensor) in &expected {
        if let Some(variable) = key.strip_prefix("grad.") {
            check(&format!("{name}: {key}"), &variables[&format!("student.{variable}")].grad(), tensor, GRADIENTS);
        } else if let Some(variable) = key.strip_prefix("after.") {
            check(&format!("{name}: {key}"), &variables[variable], tensor, (1e-5, 1e-6));
        } else {
            continue;
        }
        compared += 1;
    }
    // Every variable of the student has a gradient, and every other one was compared.
    assert_eq!(compared, variables.len() + loss.parts.iter().filter(|(part, _)| part.starts_with("loss_")).count());

    // A skipped step changes nothing.
    let before: Vec<Tensor> = variables.values().map(|variable| variable.detach().copy()).collect();
    objective.after_step(STEP, &Tensor::from(1.0_f32)).expect("a step");
    assert!(variables.values().zip(&before).all(|(variable, before)| variable.detach() == *before));
}

#[test]
fn golden_dino_with_centering() {
    step_equals_pytorch("center", &["loss.koleo_weight=0.0"]);
}

#[test]
fn golden_ibot_with_centering_and_a_head_of_its_own() {
    let variant = ["loss.patch_weight=0.7", "model.vit.register_tokens=2", "model.vit.layer_scale=0.5"];
    step_equals_pytorch("ibot", &variant);
}

#[test]
fn golden_ibot_with_sinkhorn_a_shared_head_and_koleo() {
    let settings =
        ["loss.patch_weight=1.0", "model.shared_head=true", "teacher.centering=sinkhorn", "loss.koleo_weight=0.1"];
    step_equals_pytorch("sinkhorn", &settings);
}

#[test]
fn golden_dino_without_local_crops() {
    step_equals_pytorch("global", &["data.local_crops=0", "loss.cls_weight=0.5", "loss.koleo_weight=0.3"]);
}
