//! Tests of the model's own identities; the golden tests compare its numbers with the release.

use super::*;
use crate::model::bert::BertConfig;
use crate::model::mae_decoder::DecoderConfig;
use crate::model::vit::VitConfig;
use tch::Device;

mod partial;

/// A model of some thousand weights.
pub(crate) fn config() -> MrmConfig {
    MrmConfig {
        vit: VitConfig {
            image_size: 16,
            patch_size: 4,
            embed_dim: 16,
            num_layers: 2,
            num_heads: 2,
            ..VitConfig::default()
        },
        decoder: DecoderConfig { embed_dim: 8, num_layers: 1, num_heads: 2, mlp_ratio: 2.0 },
        bert: BertConfig {
            vocab_size: 30,
            embed_dim: 8,
            num_layers: 1,
            num_heads: 2,
            intermediate: 16,
            max_positions: 7,
            dropout: 0.0,
            ..BertConfig::default()
        },
        ..MrmConfig::default()
    }
}

struct Batch {
    image: Tensor,
    ids: Tensor,
    labels: Tensor,
    attention_mask: Tensor,
    noise: Tensor,
}

impl Batch {
    fn new() -> Self {
        tch::manual_seed(7);
        Self {
            image: Tensor::randn([2, 1, 32, 32], (Kind::Float, Device::Cpu)),
            ids: Tensor::from_slice(&[2_i64, 3, 9, 3, 3, 4, 0, 2, 5, 3, 6, 0, 0, 0]).view([2, 7]),
            labels: Tensor::from_slice(&[2_i64, 8, 9, 7, 6, 4, 0, 2, 5, 5, 6, 0, 0, 0]).view([2, 7]),
            attention_mask: Tensor::from_slice(&[1_i64, 1, 1, 1, 1, 1, 0, 1, 1, 1, 1, 0, 0, 0]).view([2, 7]),
            noise: Tensor::rand([2, 16], (Kind::Float, Device::Cpu)),
        }
    }

    fn report(&self) -> ReportBatch<'_> {
        ReportBatch {
            ids: &self.ids,
            labels: &self.labels,
            attention_mask: &self.attention_mask,
            type_ids: None,
            rows: None,
            weights: None,
            masked: None,
            padded: None,
        }
    }

    fn run(&self, model: &Mrm, train: bool) -> MrmOutput {
        model.forward(&self.image, Some(self.report()), Some(&self.noise), train).unwrap()
    }
}

fn model(config: &MrmConfig) -> (nn::VarStore, Mrm) {
    tch::manual_seed(1);
    let store = nn::VarStore::new(Device::Cpu);
    let model = Mrm::new(&store.root(), config).unwrap();
    (store, model)
}

fn number(tensor: Option<&Tensor>) -> f64 {
    tensor.unwrap().double_value(&[])
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-5 * b.abs().max(1.0), "{a} and {b}");
}

#[test]
fn a_gray_image_gives_what_three_equal_channels_give() {
    let batch = Batch::new();
    for norm_pix_loss in [true, false] {
        let (_store, model) = model(&MrmConfig { norm_pix_loss, ..config() });
        let gray = batch.run(&model, false);
        let image = batch.image.repeat([1, 3, 1, 1]);
        let repeated = model.forward(&image, Some(batch.report()), Some(&batch.noise), false).unwrap();
        close(number(gray.loss_image.as_ref()), number(repeated.loss_image.as_ref()));
        close(number(gray.loss_report.as_ref()), number(repeated.loss_report.as_ref()));
        let (a, b) = (gray.pred.unwrap(), repeated.pred.unwrap());
        let difference =
            model.reconstructed_image(&a, &batch.image).unwrap() - model.reconstructed_image(&b, &image).unwrap();
        assert!(difference.abs().max().double_value(&[]) < 1e-4);
    }
}

#[test]
fn training_computes_the_same_losses_and_gradients_from_less() {
    let batch = Batch::new();
    for report_loss in [ReportLoss::All, ReportLoss::Masked] {
        let (store, model) = model(&MrmConfig { report_loss, ..config() });
        let gradients = |train| {
            for (_, mut variable) in store.variables() {
                variable.zero_grad();
            }
            let output = batch.run(&model, train);
            output.total.backward();
            let mut gradients: Vec<_> = store.variables().into_iter().filter(|(_, v)| v.grad().defined()).collect();
            gradients.sort_by(|a, b| a.0.cmp(&b.0));
            (output, gradients.into_iter().map(|(_, v)| v.grad().copy()).collect::<Vec<_>>())
        };
        let (whole, expected) = gradients(false);
        let (trained, got) = gradients(true);
        assert!(trained.pred.is_none());
        assert_eq!(trained.mlm_logits.is_none(), report_loss == ReportLoss::Masked);
        close(number(trained.loss_image.as_ref()), number(whole.loss_image.as_ref()));
        close(number(trained.loss_report.as_ref()), number(whole.loss_report.as_ref()));
        assert_eq!(got.len(), expected.len());
        for (a, b) in got.iter().zip(&expected) {
            assert!((a - b).abs().max().double_value(&[]) < 1e-5);
        }
    }
}

#[test]
fn losses_in_place_have_the_same_gradients() {
    let batch = Batch::new();
    for report_loss in [ReportLoss::All, ReportLoss::Masked] {
        let (store, mut model) = model(&MrmConfig { report_loss, report_weight: 0.7, ..config() });
        let (image, report, expected) = losses_and_gradients(&store, &batch.run(&model, true));
        model.set_in_place_loss(true);
        let output = batch.run(&model, true);
        assert!(output.mlm_logits.is_none());
        let (other_image, other_report, got) = losses_and_gradients(&store, &output);
        close(other_image, image);
        close(other_report, report);
        assert_eq!(got.len(), expected.len());
        for ((name, a), (_, b)) in got.iter().zip(&expected) {
            let (difference, largest) = ((a - b).abs().max().double_value(&[]), b.abs().max().double_value(&[]));
            assert!(difference <= 1e-5 * largest.max(0.1), "{name}: {difference} of {largest}");
        }
        // An evaluation returns its logits, and computes as before.
        assert!(batch.run(&model, false).mlm_logits.is_some());
    }
}

#[test]
fn the_masked_report_loss_is_the_mean_over_masked_positions() {
    let batch = Batch::new();
    let (_store, model) = model(&MrmConfig { report_loss: ReportLoss::Masked, ..config() });
    let output = batch.run(&model, false);
    let likelihoods = output.mlm_logits.unwrap().log_softmax(-1, Kind::Float);
    let masked = [(0, 1), (0, 3), (0, 4), (1, 2)];
    let sum: f64 = masked
        .iter()
        .map(|&(row, column)| -likelihoods.double_value(&[row, column, batch.labels.int64_value(&[row, column])]))
        .sum();
    close(output.loss_report.unwrap().double_value(&[]), sum / 4.0);
}

#[test]
fn a_batch_without_masked_tokens_has_a_report_loss_of_zero() {
    let batch = Batch::new();
    let (_store, model) = model(&MrmConfig { report_loss: ReportLoss::Masked, ..config() });
    let report = ReportBatch { ids: &batch.labels, ..batch.report() };
    for train in [false, true] {
        let output = model.forward(&batch.image, Some(report), None, train).unwrap();
        assert_eq!(number(output.loss_report.as_ref()), 0.0);
        output.total.backward();
    }
}

/// Both losses, and all gradients of their sum, by name.
fn losses_and_gradients(store: &nn::VarStore, output: &MrmOutput) -> (f64, f64, Vec<(String, Tensor)>) {
    for (_, mut variable) in store.variables() {
        variable.zero_grad();
    }
    output.total.backward();
    let gradients = store.variables().into_iter().filter(|(_, variable)| variable.grad().defined());
    let mut gradients: Vec<_> = gradients.map(|(name, variable)| (name, variable.grad().copy())).collect();
    gradients.sort_by(|a, b| a.0.cmp(&b.0));
    (number(output.loss_image.as_ref()), number(output.loss_report.as_ref()), gradients)
}

#[test]
fn images_without_a_report_are_in_the_image_loss_alone() {
    tch::set_num_threads(1); // the order of summation of several threads differs between batch sizes
    let batch = Batch::new();
    for report_loss in [ReportLoss::All, ReportLoss::Masked] {
        let (store, model) = model(&MrmConfig { report_loss, ..config() });
        // The second image is the only one with a report.
        let (ids, labels, attention_mask) =
            (batch.ids.narrow(0, 1, 1), batch.labels.narrow(0, 1, 1), batch.attention_mask.narrow(0, 1, 1));
        let one = ReportBatch {
            ids: &ids,
            labels: &labels,
            attention_mask: &attention_mask,
            type_ids: None,
            rows: None,
            weights: None,
            masked: None,
            padded: None,
        };
        let row = Tensor::from_slice(&[1_i64]);
        let both = model.forward(&batch.image, Some(ReportBatch { rows: Some(&row), ..one }), Some(&batch.noise), true);
        let (image, report, gradients) = losses_and_gradients(&store, &both.unwrap());
        // Its report loss is that of a batch without the first image; the image loss is that of both images.
        let (second, noise) = (batch.image.narrow(0, 1, 1), batch.noise.narrow(0, 1, 1));
        let (_, expected, alone) =
            losses_and_gradients(&store, &model.forward(&second, Some(one), Some(&noise), true).unwrap());
        close(report, expected);
        close(image, number(batch.run(&model, true).loss_image.as_ref()));
        let of_report = |gradients: &[(String, Tensor)]| -> Vec<(String, Tensor)> {
            let gradients = gradients.iter().filter(|(name, _)| name.starts_with("bert"));
            gradients.map(|(name, gradient)| (name.clone(), gradient.shallow_clone())).collect()
        };
        let (got, expected) = (of_report(&gradients), of_report(&alone));
        assert!(got.len() > 10 && got.len() == expected.len());
        for ((name, a), (_, b)) in got.iter().zip(&expected) {
            let difference = (a - b).abs().max().double_value(&[]);
            assert!(difference < 1e-6, "{name}: {difference} of {}", b.abs().max().double_value(&[]));
        }
    }
}

#[test]
fn a_batch_without_any_report_has_a_report_loss_of_zero_and_does_not_train_the_report_decoder() {
    let batch = Batch::new();
    let none = Tensor::zeros([0, 7], (Kind::Int64, Device::Cpu));
    let rows = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
    let report = ReportBatch {
        ids: &none,
        labels: &none,
        attention_mask: &none,
        type_ids: None,
        rows: Some(&rows),
        weights: None,
        masked: Some(&rows),
        padded: None,
    };
    for report_loss in [ReportLoss::All, ReportLoss::Masked] {
        for reconstruct in [Reconstruct::Both, Reconstruct::ReportOnly] {
            let (store, model) = model(&MrmConfig { reconstruct, report_loss, ..config() });
            let output = model.forward(&batch.image, Some(report), Some(&batch.noise), true).unwrap();
            assert_eq!(number(output.loss_report.as_ref()), 0.0);
            output.total.backward();
            for (name, variable) in store.variables() {
                let gradient = variable.grad();
                assert!(!(gradient.defined() && name.starts_with("bert")), "{name}");
                assert!(!gradient.defined() || gradient.isfinite().all().int64_value(&[]) == 1, "{name}");
            }
        }
    }
}

#[test]
fn ablations_leave_out_their_part() {
    let batch = Batch::new();
    let (store, image_only) = model(&MrmConfig { reconstruct: Reconstruct::ImageOnly, ..config() });
    assert!(!store.variables().keys().any(|name| name.starts_with("bert")));
    let output = image_only.forward(&batch.image, None, None, true).unwrap();
    assert!(output.loss_report.is_none());
    close(output.total.double_value(&[]), number(output.loss_image.as_ref()));

    let unmasked = MrmConfig { reconstruct: Reconstruct::ReportOnly, mask_ratio: 0.0, report_weight: 0.5, ..config() };
    let (store, report_only) = model(&unmasked);
    assert!(!store.variables().keys().any(|name| name.starts_with("decoder") || name == "mask_token"));
    let output = batch.run(&report_only, true);
    assert!(output.loss_image.is_none());
    assert_eq!(output.latent.size(), [2, 17, 16]);
    close(output.total.double_value(&[]), 0.5 * number(output.loss_report.as_ref()));
}

#[test]
fn without_super_resolution_the_image_is_not_resized() {
    let batch = Batch::new();
    let mut config = MrmConfig { super_resolution: 1, ..config() };
    config.vit.image_size = 32;
    config.vit.patch_size = 8;
    let (_store, model) = model(&config);
    let output = batch.run(&model, false);
    assert_eq!(output.image_small, batch.image);
    assert_eq!(output.pred.unwrap().size(), [2, 16, 8 * 8 * 3]);
}

#[test]
fn the_patches_with_the_smallest_noise_are_visible() {
    let noise = Tensor::from_slice(&[0.9_f32, 0.1, 0.8, 0.2]).unsqueeze(0);
    let mask = PatchMask::new(&noise, 2);
    assert_eq!(Vec::<i64>::try_from(mask.visible.flatten(0, 1)).unwrap(), [1, 3]);
    assert_eq!(Vec::<i64>::try_from(mask.masked.flatten(0, 1)).unwrap(), [2, 0]);
    assert_eq!(Vec::<f32>::try_from(mask.mask().flatten(0, 1)).unwrap(), [1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn a_perfect_prediction_is_denormalized_to_the_image() {
    let batch = Batch::new();
    let (_store, model) = model(&config());
    let image = batch.image.repeat([1, 3, 1, 1]);
    let perfect = model.normalized(&target_patches(&image, 8));
    let reconstructed = model.reconstructed_image(&perfect, &image).unwrap();
    assert!((reconstructed - &image).abs().max().double_value(&[]) < 1e-5);
    let shown = model.mask_image(&Tensor::ones([2, 16], (Kind::Float, Device::Cpu))).unwrap();
    assert_eq!(shown.size(), [2, 1, 32, 32]);
}

#[test]
fn the_mask_follows_the_seed() {
    let batch = Batch::new();
    let (_store, model) = model(&config());
    let mask = |seed| {
        tch::manual_seed(seed);
        model.forward(&batch.image, Some(batch.report()), None, true).unwrap().mask
    };
    assert_eq!(mask(5), mask(5));
    assert_ne!(mask(5), mask(6));
}

#[test]
fn wrong_shapes_are_refused_with_the_tensors_name() {
    let batch = Batch::new();
    let (_store, model) = model(&config());
    let message = |result: Result<MrmOutput, ModelError>| result.unwrap_err().to_string();
    let small = batch.image.narrow(2, 0, 16);
    assert!(message(model.forward(&small, Some(batch.report()), None, false)).starts_with("image:"));
    assert!(message(model.forward(&batch.image, None, None, false)).starts_with("report:"));
    assert!(message(model.forward(&batch.image, Some(batch.report()), Some(&small), false)).starts_with("noise:"));
    let long = Tensor::zeros([2, 8], (Kind::Int64, Device::Cpu));
    let report = ReportBatch { ids: &long, ..batch.report() };
    assert!(message(model.forward(&batch.image, Some(report), None, false)).starts_with("ids:"));

    for (mask_ratio, valid) in
        [(1.0, false), (-0.1, false), (0.99, false), (0.0, false), (0.5, true), (f64::NAN, false)]
    {
        assert_eq!(MrmConfig { mask_ratio, ..config() }.validate().is_ok(), valid, "{mask_ratio}");
    }
}

#[test]
fn the_losses_of_records_make_the_loss_of_the_batch_and_change_no_number() {
    let batch = Batch::new();
    for (report_loss, counted) in [(ReportLoss::All, [7.0, 7.0]), (ReportLoss::Masked, [3.0, 1.0])] {
        for in_place in [false, true] {
            let (_store, mut model) = model(&MrmConfig { report_loss, ..config() });
            model.set_in_place_loss(in_place);
            let plain = batch.run(&model, true);
            assert!(plain.image_losses.is_none() && plain.report_losses.is_none());
            model.set_record_losses(true);
            let output = batch.run(&model, true);
            let losses = |output: &MrmOutput| [output.loss_image.as_ref(), output.loss_report.as_ref()].map(number);
            assert_eq!(losses(&output), losses(&plain));
            let images = Vec::<f32>::try_from(output.image_losses.as_ref().unwrap()).unwrap();
            close(f64::from(images[0] + images[1]) / 2.0, losses(&output)[0]);
            assert!((images[0] - images[1]).abs() > 1e-3);
            let ReportLosses { sums, counts } = output.report_losses.as_ref().unwrap();
            assert_eq!(Vec::<f32>::try_from(counts).unwrap(), counted);
            close(
                sums.sum(Kind::Float).double_value(&[]) / counts.sum(Kind::Float).double_value(&[]),
                losses(&output)[1],
            );
            assert!(!images.is_empty() && !sums.requires_grad());
        }
    }
}
