//! Losses and gradients of contrastive objectives against the same computation in PyTorch, with timm's blocks and transformers'
//! BERT (`tests/python/contrast.py`).

use std::collections::HashMap;

use dataset::Batch;
use helpers::{folder, python_output};
use tch::{Device, Kind, Tensor};
use trainer::config::{contrast_preset, overlay};
use trainer::task::Contrasting;
use trainer::task::objective::Objective;
use trainer::train::distributed::Compute;
use training::torch_python;

/// Relative difference of losses, and of gradients relative to the largest one, in float32.
const TOLERANCE: f64 = 1e-5;

const SIZES: [&str; 12] = [
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
    "model.contrast.projection=16",
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

#[test]
fn golden_contrast_losses_and_gradients() {
    let Some(mut python) = torch_python("contrast.py") else { return };
    tch::set_num_threads(1);
    let temporary = folder();
    // Weights of the parts differ from 1 and from one another.
    let weights = ["model.image_weight=0.5", "model.report_weight=2.0", "model.contrast.weight=0.7"];
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
        let settings: Vec<String> =
            SIZES.iter().chain(&weights).chain(*more).map(|setting| (*setting).to_owned()).collect();
        let config = overlay(&contrast_preset("mrm-vit-tiny", objective).unwrap(), None, &settings).unwrap();
        config.validate().unwrap();
        tch::manual_seed(7);
        let contrasting = Contrasting::new(&config.model, &Compute::on(Device::Cpu)).unwrap();
        let variables = contrasting.store().variables();
        // Biases, norms and correlation weights away from 0 and 1.
        let mut names: Vec<&String> = variables.keys().filter(|name| variables[*name].requires_grad()).collect();
        names.sort();
        for name in names.iter().filter(|name| variables[**name].dim() > 0) {
            let mut variable = variables[*name].shallow_clone();
            let _ = tch::no_grad(|| variable.f_add_(&(variable.randn_like() * 0.05))).unwrap();
        }
        let side = config.model.input_size() as usize;
        let batch = batch(side);
        let patches = config.model.vit.patches();
        // The first random numbers of a forward pass.
        tch::manual_seed(11);
        let noise = Tensor::rand([RECORDS as i64, patches], (Kind::Float, Device::Cpu));
        tch::manual_seed(11);
        let loss = contrasting.loss(&batch).unwrap();
        loss.total.backward();

        let table = |ids: &[i64]| Tensor::from_slice(ids).view([RECORDS as i64, TOKENS as i64]);
        let mut tensors: HashMap<String, Tensor> = HashMap::new();
        let image = Tensor::from_slice(batch.images()).view([RECORDS as i64, 1, side as i64, side as i64]);
        tensors.insert("in.image".to_owned(), image);
        tensors.insert("in.noise".to_owned(), noise);
        tensors.insert("in.ids".to_owned(), table(batch.token_ids()));
        tensors.insert("in.labels".to_owned(), table(batch.target_ids()));
        tensors.insert("in.attention_mask".to_owned(), table(batch.attention_mask()));
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
        trainer::weights::write(&all, &temporary.path().join(format!("{name}.safetensors"))).unwrap();
        let json = serde_json::to_string(&config).unwrap();
        std::fs::write(temporary.path().join(format!("{name}.json")), json).unwrap();
    }
    let printed = python_output(python.arg(temporary.path()));
    let differences: HashMap<&str, f64> = printed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, value)| (name, value.trim().parse().expect("a number")))
        .collect();
    let count = |part: &str| differences.keys().filter(|name| name.ends_with(part)).count();
    assert_eq!(
        [".total", ".gradients", ".loss_contrast", ".loss_image", ".loss_report"].map(count),
        [cases.len(), cases.len(), cases.len(), 3, 2],
        "{printed}"
    );
    for (name, difference) in &differences {
        assert!(*difference < TOLERANCE, "{name}: {difference}\n{printed}");
    }
}
