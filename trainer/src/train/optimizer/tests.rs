//! Tests of the optimizers; their numbers are tested against PyTorch in `tests/training/tests/golden`.

use super::*;
use tch::Device;
use tch::nn::Init;

fn store() -> VarStore {
    tch::manual_seed(1);
    let store = VarStore::new(Device::Cpu);
    let root = store.root();
    let normal = Init::Randn { mean: 0.0, stdev: 1.0 };
    let weight = root.sub("layer").var("weight", &[3, 2], normal);
    let _ = root.sub("layer").var("bias", &[3], normal);
    let _ = root.var("unused", &[2, 2], normal);
    let _ = root.sub("tied").add("weight", weight, false);
    let _ = root.sub("fixed").add("weight", Tensor::ones([2, 2], (Kind::Float, Device::Cpu)), false);
    store
}

fn backward(store: &VarStore) {
    let variables = store.variables();
    let input = Tensor::from_slice(&[1.0_f32, -2.0]);
    let output = variables["layer.weight"].mv(&input) + &variables["layer.bias"];
    output.square().sum(Kind::Float).backward();
}

fn weights(store: &VarStore) -> Vec<f32> {
    let variables = store.variables();
    ["layer.weight", "layer.bias", "unused"]
        .iter()
        .flat_map(|&name| Vec::<f32>::try_from(variables[name].detach().flatten(0, -1)).unwrap())
        .collect()
}

const BOTH: [OptimizerConfig; 2] = [OptimizerConfig::PRETRAINING, OptimizerConfig::FINE_TUNING];

#[test]
fn parameters_are_listed_once_with_their_decay() {
    let listed: Vec<_> = parameters(&store()).into_iter().map(|p| (p.name, p.decays)).collect();
    let expected = [("layer.bias", false), ("layer.weight", true), ("unused", true)];
    assert_eq!(listed, expected.map(|(name, decays)| (name.to_owned(), decays)));
    assert!(decays("cls_token", &[1, 1, 8]));
    assert!(!decays("norm.weight", &[8]));
    assert!(!decays("odd.bias", &[8, 8]));
    assert!(!decays("bias", &[8, 8]));
}

#[test]
fn parameters_without_a_gradient_do_not_change() {
    for config in BOTH {
        let store = store();
        let before = weights(&store);
        let mut optimizer = Optimizer::new(config, 0.5, parameters(&store));
        backward(&store);
        optimizer.step(0.1, None).unwrap();
        let after = weights(&store);
        assert!(before[..9].iter().zip(&after[..9]).all(|(a, b)| a != b));
        assert_eq!(before[9..], after[9..]);
        assert!(!optimizer.save_state().iter().any(|(name, _)| name.contains("unused")));
    }
}

#[test]
fn a_loaded_state_continues_bit_for_bit() {
    for config in BOTH {
        let store = store();
        let mut whole = Optimizer::new(config, 0.1, parameters(&store));
        let mut resumed = Optimizer::new(config, 0.1, parameters(&store));
        for step in 0..6 {
            let optimizer = if step < 3 { &mut whole } else { &mut resumed };
            optimizer.drop_gradients().unwrap();
            backward(&store);
            optimizer.step(0.05, None).unwrap();
            if step == 2 {
                resumed.load_state(whole.save_state()).unwrap();
            }
        }
        let broken = weights(&store);

        let store = self::store();
        let mut optimizer = Optimizer::new(config, 0.1, parameters(&store));
        for _ in 0..6 {
            optimizer.drop_gradients().unwrap();
            backward(&store);
            optimizer.step(0.05, None).unwrap();
        }
        assert_eq!(broken, weights(&store));
    }
}

#[test]
fn a_configuration_names_an_optimizer_by_its_kind() {
    for (kind, name, config) in [
        (OptimizerKind::Sgd, "\"sgd\"", OptimizerConfig::FINE_TUNING),
        (OptimizerKind::AdamW, "\"adamw\"", OptimizerConfig::ADAMW),
    ] {
        assert_eq!(serde_json::to_string(&kind).unwrap(), name);
        assert_eq!(serde_json::from_str::<OptimizerKind>(name).unwrap(), kind);
        assert_eq!(kind.config(), config);
    }
}

#[test]
fn a_state_of_another_model_is_refused() {
    let store = store();
    let mut optimizer = Optimizer::new(OptimizerConfig::PRETRAINING, 0.0, parameters(&store));
    backward(&store);
    optimizer.step(0.1, None).unwrap();
    let mut state = optimizer.save_state();
    state.retain(|(name, _)| name != "exp_avg_sq.layer.bias");
    let message = optimizer.load_state(state).unwrap_err().to_string();
    assert_eq!(message, "the saved state has no tensor `exp_avg_sq.layer.bias`");
    let mut state = optimizer.save_state();
    state[0].1 = Tensor::zeros([5], (Kind::Float, Device::Cpu));
    assert!(optimizer.load_state(state).unwrap_err().to_string().starts_with("exp_avg.layer.bias"));
}

#[test]
fn clipping_returns_the_norm_before_and_never_scales_up() {
    let store = store();
    let mut optimizer = Optimizer::new(OptimizerConfig::FINE_TUNING, 0.0, parameters(&store));
    assert_eq!(optimizer.clip_grad_norm(1.0, None).unwrap().double_value(&[]), 0.0);
    backward(&store);
    let norm = optimizer.clip_grad_norm(0.0, None).unwrap().double_value(&[]);
    assert!((optimizer.clip_grad_norm(norm * 2.0, None).unwrap().double_value(&[]) - norm).abs() < 1e-6);
    assert_eq!(optimizer.clip_grad_norm(0.0, None).unwrap().double_value(&[]), norm);
    let _ = optimizer.clip_grad_norm(norm / 4.0, None).unwrap();
    let clipped = optimizer.clip_grad_norm(0.0, None).unwrap().double_value(&[]);
    assert!((clipped - norm / 4.0).abs() < 1e-4, "{clipped}");
}

#[test]
fn the_lr_of_a_parameter_can_be_scaled() {
    let store = store();
    let mut listed = parameters(&store);
    listed[1].lr_scale = 0.0;
    let before = weights(&store);
    let mut optimizer = Optimizer::new(OptimizerConfig::PRETRAINING, 0.5, listed);
    backward(&store);
    optimizer.step(0.1, None).unwrap();
    let after = weights(&store);
    assert_eq!(before[..6], after[..6]); // layer.weight
    assert_ne!(before[6..9], after[6..9]);
}

#[test]
fn earlier_layers_have_a_lower_lr() {
    for (name, exponent) in
        [("pos_embed", 3), ("patch_embed.proj.weight", 3), ("blocks.0.norm1.bias", 2), ("blocks.1.mlp.fc1.weight", 1)]
    {
        assert!((layer_lr_scale(name, 2, 0.5) - 0.5_f64.powi(exponent)).abs() < 1e-12, "{name}");
    }
    assert_eq!(layer_lr_scale("head.weight", 2, 0.5), 1.0);
    assert_eq!(layer_lr_scale("fc_norm.weight", 12, 0.65), 1.0);
    for name in ["reg_token", "norm_pre.weight"] {
        assert_eq!(layer_lr_scale(name, 12, 0.65), layer_lr_scale("cls_token", 12, 0.65));
    }
}

/// BenchX's parameter groups: the encoder at a tenth, head and norm at the full learning rate; layer decay beneath it.
#[test]
fn the_encoders_factor_leaves_heads_and_their_norm() {
    use crate::model::classifier::{ClassifierConfig, VitClassifier};
    use crate::model::segmenter::{Segmenter, SegmenterConfig};
    use crate::model::vit::VitConfig;
    use crate::train::distributed::ProcessGroup;

    let vit =
        VitConfig { image_size: 16, patch_size: 4, embed_dim: 8, num_layers: 2, num_heads: 2, ..VitConfig::default() };
    let store = VarStore::new(Device::Cpu);
    let config = ClassifierConfig { vit: vit.clone(), classes: 3, ..ClassifierConfig::default() };
    let _classifier = VitClassifier::new(&store.root(), &config).unwrap();
    let scales = |decay| -> Vec<(String, f64)> {
        let all = encoder_and_head(&store, 2, decay, 0.1);
        all.into_iter().map(|parameter| (parameter.name, parameter.lr_scale)).collect()
    };
    let full = ["fc_norm.bias", "fc_norm.weight", "head.bias", "head.weight"];
    for (name, scale) in scales(1.0) {
        assert_eq!(scale, if full.contains(&name.as_str()) { 1.0 } else { 0.1 }, "{name}");
    }
    assert_eq!(scales(1.0).iter().filter(|(_, scale)| *scale < 1.0).count(), 4 + 2 * 12, "all of the encoder");
    let decayed = scales(0.5);
    let scale = |wanted: &str| decayed.iter().find(|(name, _)| name == wanted).unwrap().1;
    for (name, expected) in [
        ("head.weight", 1.0),
        ("blocks.1.attn.qkv.weight", 0.1 * 0.5),
        ("blocks.0.mlp.fc1.bias", 0.1 * 0.25),
        ("pos_embed", 0.1 * 0.125),
    ] {
        assert!((scale(name) - expected).abs() < 1e-12, "{name}");
    }

    let store = VarStore::new(Device::Cpu);
    let config = SegmenterConfig { vit, channels: 4, auxiliary_channels: 4, ..SegmenterConfig::default() };
    let _segmenter = Segmenter::new(&store.root(), &config, &ProcessGroup::single()).unwrap();
    for parameter in encoder_and_head(&store, 2, 1.0, 0.1) {
        let encoder =
            ["blocks.", "cls_token", "pos_embed", "patch_embed."].iter().any(|of| parameter.name.starts_with(of));
        assert_eq!(
            (is_of_encoder(&parameter.name), parameter.lr_scale < 1.0),
            (encoder, encoder),
            "{}",
            parameter.name
        );
    }
}
