use super::*;
use crate::eval::overlap::Overlap;
use crate::model::mrm::{Mrm, MrmConfig, Reconstruct};
use crate::model::segmentation_loss::HeadLoss;
use crate::train::distributed::ProcessGroup;
use crate::train::optimizer::{Optimizer, OptimizerConfig, parameters};
use crate::weights::load::load_state;
use tch::{Device, Kind};

fn small(head: Head, image_size: i64) -> SegmenterConfig {
    let vit =
        VitConfig { image_size, patch_size: 4, embed_dim: 16, num_layers: 2, num_heads: 2, ..VitConfig::default() };
    SegmenterConfig { vit, head, channels: 8, auxiliary_channels: 8, ..SegmenterConfig::default() }
}

fn segmenter(config: &SegmenterConfig) -> (nn::VarStore, Segmenter) {
    tch::manual_seed(1);
    let store = nn::VarStore::new(Device::Cpu);
    let model = Segmenter::new(&store.root(), config, &ProcessGroup::single()).unwrap();
    (store, model)
}

#[test]
fn both_heads_give_logits_of_every_pixel_on_odd_grids_too() {
    for head in [Head::Upernet, Head::Setr] {
        for image_size in [8, 12, 20, 32] {
            let (_store, model) = segmenter(&small(head, image_size));
            let image = Tensor::randn([2, 1, image_size, image_size], (Kind::Float, Device::Cpu));
            let evaluated = model.forward(&image, false).unwrap();
            let gray = model.forward(&image.repeat([1, 3, 1, 1]), false).unwrap().logits;
            assert!((gray - &evaluated.logits).abs().max().double_value(&[]) < 1e-5);
            assert_eq!(evaluated.logits.size(), [2, 2, image_size, image_size], "{head:?}");
            assert!(evaluated.auxiliary.is_none());
            let trained = model.forward(&image, true).unwrap();
            assert_eq!(trained.logits.size(), evaluated.logits.size());
            assert_eq!(
                trained.auxiliary.map(|logits| logits.size()),
                match head {
                    Head::Upernet => Some(vec![2, 2, image_size, image_size]),
                    Head::Setr => None,
                }
            );
        }
    }
}

#[test]
fn the_pyramid_has_four_sizes() {
    let store = nn::VarStore::new(Device::Cpu);
    let neck = Pyramid::new(&store.root(), 6, &ProcessGroup::single());
    let maps: Vec<Tensor> = (0..4).map(|_| Tensor::randn([1, 6, 5, 5], (Kind::Float, Device::Cpu))).collect();
    let sides = neck.forward(&maps, false).unwrap().map(|map| map.size()[2]);
    assert_eq!(sides, [20, 10, 5, 2]);
}

#[test]
fn the_recipes_blocks_are_spread_over_any_number_of_layers() {
    for (num_layers, expected) in [(12, [3, 5, 7, 11]), (24, [7, 11, 15, 23]), (4, [0, 1, 2, 3]), (1, [0; 4])] {
        let config =
            SegmenterConfig { vit: VitConfig { num_layers, ..VitConfig::default() }, ..SegmenterConfig::default() };
        assert_eq!(config.chosen_blocks(), expected);
        assert!(config.validate().is_ok());
    }
    let refused = |blocks: &[i64]| {
        let config = SegmenterConfig { blocks: blocks.to_vec(), ..SegmenterConfig::default() };
        config.validate().unwrap_err().to_string()
    };
    assert_eq!(refused(&[3, 5, 7, 12]), "blocks: must be 4 ascending numbers from 0 to 11, is [3, 5, 7, 12]");
    assert!(refused(&[3, 5]).starts_with("blocks:"));
    assert!(refused(&[7, 5, 3, 1]).starts_with("blocks:"));
}

#[test]
fn names_are_those_of_mmsegmentation_beside_timms() {
    let (store, _model) = segmenter(&small(Head::Upernet, 16));
    let names = store.variables();
    for (name, shape) in [
        ("blocks.1.attn.qkv.weight", vec![48, 16]),
        ("neck.upsample_4x.3.weight", vec![16, 16, 2, 2]),
        ("neck.upsample_4x.1.running_var", vec![16]),
        ("decode_head.psp_modules.3.1.conv.weight", vec![8, 16, 1, 1]),
        ("decode_head.bottleneck.conv.weight", vec![8, 16 + 4 * 8, 3, 3]),
        ("decode_head.lateral_convs.2.bn.running_mean", vec![8]),
        ("decode_head.fpn_convs.0.conv.weight", vec![8, 8, 3, 3]),
        ("decode_head.fpn_bottleneck.conv.weight", vec![8, 32, 3, 3]),
        ("decode_head.conv_seg.bias", vec![2]),
        ("auxiliary_head.convs.0.conv.weight", vec![8, 16, 3, 3]),
    ] {
        assert_eq!(names.get(name).map(Tensor::size), Some(shape), "{name}");
    }
}

#[test]
fn a_pretrained_encoder_loads_on_the_larger_grid() {
    let pretrained = nn::VarStore::new(Device::Cpu);
    let config =
        MrmConfig { vit: small(Head::Setr, 16).vit, reconstruct: Reconstruct::ImageOnly, ..MrmConfig::default() };
    let _ = Mrm::new(&pretrained.root(), &config).unwrap();
    let (store, _model) = segmenter(&small(Head::Setr, 32));
    let state = pretrained.variables();
    let report = load_state(&store, state.iter().map(|(name, tensor)| (name.as_str(), tensor))).unwrap();
    assert!(report.missing.iter().all(|name| name.starts_with("decode_head.")), "{report}");
    assert!(report.mismatched.is_empty() && report.resized.len() == 1, "{report}");
}

/// Bright squares on noise: images `[B, 1, S, S]` and targets `[B, S, S]`; the last image has no square.
fn squares(count: i64, size: i64) -> (Tensor, Tensor) {
    let image = Tensor::randn([count, 1, size, size], (Kind::Float, Device::Cpu)) * 0.3;
    let target = Tensor::zeros([count, size, size], (Kind::Int64, Device::Cpu));
    for i in 0..count - 1 {
        let (top, left) = (3 + i * 5 % 12, 2 + i * 7 % 14);
        let _ = target.get(i).narrow(0, top, 10).narrow(1, left, 12).fill_(1);
    }
    (image + target.unsqueeze(1).to_kind(Kind::Float) * 2.0, target)
}

#[test]
fn both_heads_can_memorize_squares() {
    tch::set_num_threads(1); // tensors this small only wait for other threads
    for head in [Head::Upernet, Head::Setr] {
        let (store, model) = segmenter(&SegmenterConfig { drop_path: 0.0, ..small(head, 32) });
        let (image, target) = squares(6, 32);
        let config = OptimizerConfig::AdamW { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 };
        let mut optimizer = Optimizer::new(config, 0.0, parameters(&store));
        let steps = 40;
        for step in 0..steps {
            optimizer.drop_gradients().unwrap();
            let output = model.forward(&image, true).unwrap();
            let mut loss = HeadLoss::DECODE.of(&output.logits, &target).0;
            if let Some(auxiliary) = output.auxiliary {
                loss += HeadLoss::AUXILIARY.of(&auxiliary, &target).0;
            }
            loss.backward();
            optimizer.step(1e-2 * (1.0 - f64::from(step) / f64::from(steps)), None).unwrap();
        }
        let logits = model.forward(&image, false).unwrap().logits;
        let foreground = logits.softmax(1, None).select(1, FOREGROUND).gt(0.5).to_kind(Kind::Uint8);
        let bytes = |x: &Tensor| Vec::<u8>::try_from(&x.to_kind(Kind::Uint8).flatten(0, -1)).unwrap();
        let (foreground, target) = (bytes(&foreground), bytes(&target));
        let images = foreground.chunks(32 * 32).zip(target.chunks(32 * 32));
        let dice = images.map(|(prediction, target)| Overlap::of(prediction, target).dice()).sum::<f64>() / 6.0;
        assert!(dice > 0.8, "{head:?}: {dice}");
    }
}
