//! Losses and gradients of objectives beside masked record modeling against the same computation in PyTorch, with timm's blocks
//! and transformers' BERT (`tests/python/objectives.py`).

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use dataset::loader::{Loader, StudyOptions, TextOptions, ViewChoice};
use dataset::transform::Transform;
use dataset::{Batch, Dataset};
use helpers::{folder, python_output};
use tch::{Device, Kind, Tensor};
use trainer::config::{PretrainConfig, objective_preset, overlay};
use trainer::task::objective::Objective;
use trainer::task::{Contrasting, ViewModeling};
use trainer::train::distributed::Compute;
use training::torch_python;

/// Relative difference of losses, and of gradients relative to the largest one, in float32.
const TOLERANCE: f64 = 1e-5;

const SIZES: [&str; 11] = [
    "model.vit.image_size=32",
    "model.vit.embed_dim=32",
    "model.vit.num_layers=2",
    "model.decoder.embed_dim=32",
    "model.bert.embed_dim=24",
    "model.bert.num_heads=2",
    "model.bert.intermediate=48",
    "model.bert.max_positions=12",
    "model.bert.vocab_size=40",
    "model.bert.dropout=0",
    "data.tokens=12",
];

/// Records of the batch.
const RECORDS: usize = 6;
/// Tokens of its reports.
const TOKENS: usize = 12;

/// A batch of noise in which two records have the same report, and one has none.
fn batch(side: usize) -> Batch {
    let mut batch = Batch::noise(RECORDS, side, TOKENS, 40, 3);
    let mut arrays = batch.arrays_mut();
    let text = &mut arrays.texts[0];
    for table in [&mut *text.target_ids, &mut *text.attention_mask] {
        let (first, rest) = table.split_at_mut(TOKENS);
        rest[2 * TOKENS..3 * TOKENS].copy_from_slice(first); // record 3 is as record 0
    }
    text.token_ids[3 * TOKENS..4 * TOKENS].copy_from_slice(&text.target_ids[3 * TOKENS..4 * TOKENS]);
    text.token_ids[3 * TOKENS + 2] = 3;
    for table in [&mut *text.token_ids, &mut *text.target_ids, &mut *text.attention_mask] {
        table[4 * TOKENS + 1..5 * TOKENS].fill(0); // record 4 has [CLS] alone
    }
    batch
}

/// The configuration of an objective at small sizes.
fn configured(objective: &str, settings: &[&str]) -> PretrainConfig {
    let settings: Vec<String> = SIZES.iter().chain(settings).map(|setting| (*setting).to_owned()).collect();
    let config = overlay(&objective_preset("mrm-vit-tiny", objective).unwrap(), None, &settings).unwrap();
    config.validate().unwrap();
    config
}

/// Computes the loss of a batch with `images` images and its gradients, and writes them with batch and weights for the script.
fn write(folder: &Path, name: &str, config: &PretrainConfig, objective: &dyn Objective, batch: &Batch, images: i64) {
    let variables = objective.store().variables();
    // Biases, norms and correlation weights away from 0 and 1.
    let mut names: Vec<&String> = variables.keys().filter(|name| variables[*name].requires_grad()).collect();
    names.sort();
    for name in names.iter().filter(|name| variables[**name].dim() > 0) {
        let mut variable = variables[*name].shallow_clone();
        let _ = tch::no_grad(|| variable.f_add_(&(variable.randn_like() * 0.05))).unwrap();
    }
    // The first random numbers of a forward pass.
    tch::manual_seed(11);
    let noise = Tensor::rand([images, config.model.vit.patches()], (Kind::Float, Device::Cpu));
    tch::manual_seed(11);
    let loss = objective.loss(batch).unwrap();
    loss.total.backward();

    let (samples, slots, side) = (batch.len() as i64, batch.slots() as i64, batch.size() as i64);
    let table = |values: &[i64]| Tensor::from_slice(values).view([samples, -1]);
    let mut tensors: HashMap<String, Tensor> = HashMap::new();
    let pixels = Tensor::from_slice(batch.images()).view([samples * slots, 1, side, side]);
    tensors.insert("in.image".to_owned(), pixels);
    tensors.insert("in.noise".to_owned(), noise);
    tensors.insert("in.ids".to_owned(), table(batch.token_ids()));
    tensors.insert("in.labels".to_owned(), table(batch.target_ids()));
    tensors.insert("in.attention_mask".to_owned(), table(batch.attention_mask()));
    if slots > 1 {
        tensors.insert("in.view_mask".to_owned(), Tensor::from_slice(batch.view_mask()).view([samples, slots]));
        tensors.insert("in.view_codes".to_owned(), table(batch.view_codes()));
    }
    tensors.insert("out.total".to_owned(), loss.total.detach());
    for (part, value) in loss.parts.iter().filter(|(part, _)| *part != "temperature") {
        tensors.insert(format!("out.{part}"), value.shallow_clone());
    }
    for (name, variable) in &variables {
        tensors.insert(format!("state.{name}"), variable.detach().copy());
        if variable.requires_grad() && variable.grad().defined() {
            tensors.insert(format!("grad.{name}"), variable.grad());
        }
    }
    let all: Vec<(String, Tensor)> = tensors.into_iter().map(|(name, t)| (name, t.contiguous())).collect();
    trainer::weights::write(&all, &folder.join(format!("{name}.safetensors"))).unwrap();
    std::fs::write(folder.join(format!("{name}.json")), serde_json::to_string(config).unwrap()).unwrap();
}

/// Asserts that PyTorch computes the same, and returns how many cases have each of these parts.
fn compare<const N: usize>(mut python: std::process::Command, folder: &Path, parts: [&str; N]) -> [usize; N] {
    let printed = python_output(python.arg(folder));
    let differences: HashMap<&str, f64> = printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name, value.trim().parse().expect("a number")))
        .collect();
    for (name, difference) in &differences {
        assert!(*difference < TOLERANCE, "{name}: {difference}\n{printed}");
    }
    parts.map(|part| differences.keys().filter(|name| name.ends_with(part)).count())
}

#[test]
fn golden_contrast_losses_and_gradients() {
    let Some(python) = torch_python("objectives.py") else { return };
    tch::set_num_threads(1);
    let temporary = folder();
    // Weights of the parts differ from 1 and from one another.
    let weights = [
        "model.image_weight=0.5",
        "model.report_weight=2.0",
        "model.contrast.weight=0.7",
        "model.contrast.projection=16",
    ];
    let cases: [(&str, &[&str]); 6] = [
        ("clip", &[]),
        ("siglip", &["model.contrast.logit_bias=-2.0"]),
        ("maco", &[]),
        ("mrm-clip", &[]),
        // The same model with another loss, masks and positions: settings of one configuration.
        ("clip-masked", &["model.mask_ratio=0.5", "model.super_resolution=2"]),
        ("mrm-siglip", &["model.reconstruct=both", "model.mask_ratio=0.75", "model.report_loss=all"]),
    ];
    for (name, more) in &cases {
        let objective = match *name {
            "clip-masked" => "clip",
            "mrm-siglip" => "siglip",
            other => other,
        };
        let config = configured(objective, &[&weights[..], more].concat());
        tch::manual_seed(7);
        let contrasting = Contrasting::new(&config.model, &Compute::on(Device::Cpu)).unwrap();
        let batch = batch(config.model.input_size() as usize);
        write(temporary.path(), name, &config, &contrasting, &batch, RECORDS as i64);
    }
    let parts = [".total", ".gradients", ".loss_contrast", ".loss_image", ".loss_report"];
    assert_eq!(compare(python, temporary.path(), parts), [cases.len(), cases.len(), cases.len(), 3, 2]);
}

#[test]
fn golden_losses_and_gradients_of_several_views() {
    let Some(python) = torch_python("objectives.py") else { return };
    tch::set_num_threads(1);
    let temporary = folder();
    let data = training::dataset(temporary.path(), 30);
    let data = Arc::new(Dataset::open(&data).unwrap());
    let weights =
        ["model.image_weight=0.5", "model.report_weight=2.0", "model.views.align_weight=50.0", "data.studies=3"];
    let cases: [(&str, &[&str]); 3] = [
        ("mvmae", &[]),
        ("mvmae-v2t", &[]),
        ("mvmae-v2t-all", &["model.report_loss=all", "model.norm_pix_loss=false", "model.views.align_ramp=0.25"]),
    ];
    for (name, more) in &cases {
        let config = configured(name.trim_end_matches("-all"), &[&weights[..], more].concat());
        tch::manual_seed(7);
        let objective = ViewModeling::new(&config.model, 40, &Compute::on(Device::Cpu)).unwrap();
        objective.before_step(5).unwrap();
        let size = config.model.input_size() as u32;
        let mut loader = Loader::builder(&data)
            .batch_size(12)
            .seed(2)
            .transform(Transform::pretrain(size))
            .studies(StudyOptions { views: 3, choose: ViewChoice::Random, prior: 0 })
            .text(TextOptions { tokens: TOKENS, mask_ratio: 0.5 })
            .build()
            .unwrap();
        let mut batch = loader.next_batch().unwrap();
        // Token ids within the small vocabulary; one study has [CLS] alone.
        let text = &mut batch.arrays_mut().texts[0];
        for table in [&mut *text.token_ids, &mut *text.target_ids] {
            table.iter_mut().for_each(|id| *id %= 40);
        }
        for table in [&mut *text.token_ids, &mut *text.target_ids, &mut *text.attention_mask] {
            table[4 * TOKENS + 1..5 * TOKENS].fill(0);
        }
        let images = batch.view_mask().iter().filter(|&&has| has > 0).count();
        assert!((13..36).contains(&images), "{images} of 36 slots");
        write(temporary.path(), name, &config, &objective, &batch, images as i64);
    }
    let parts = [".total", ".gradients", ".loss_alignment", ".loss_image", ".loss_report"];
    assert_eq!(compare(python, temporary.path(), parts), [3, 3, 3, 3, 2]);
}
