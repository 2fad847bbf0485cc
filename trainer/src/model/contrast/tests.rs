//! Tests of the model's own identities; tests/training compares losses and gradients with PyTorch.

use tch::Device;
use tch::nn::VarStore;

use super::*;
use crate::model::mrm::{self, Reconstruct, ReportBatch};

fn config(reconstruct: Reconstruct, contrast: ContrastConfig) -> MrmConfig {
    MrmConfig { reconstruct, super_resolution: 1, mask_ratio: 0.5, contrast: Some(contrast), ..mrm::tests::config() }
}

fn model(config: &MrmConfig) -> (VarStore, ContrastModel) {
    tch::manual_seed(5);
    let store = VarStore::new(Device::Cpu);
    let model = ContrastModel::new(&store.root(), config).unwrap();
    (store, model)
}

fn largest(values: &Tensor) -> f64 {
    values.abs().max().double_value(&[])
}

fn reports() -> (Tensor, Tensor) {
    let ids = Tensor::from_slice(&[2_i64, 8, 9, 7, 0, 2, 5, 0, 0, 0, 2, 8, 9, 7, 0]).view([3, 5]);
    let attention_mask = ids.ne(0).to_kind(Kind::Int64);
    (ids, attention_mask)
}

#[test]
fn one_bert_reads_reports_for_reconstruction_and_contrast() {
    let contrast = ContrastConfig { projection: 6, ..ContrastConfig::default() };
    let (both, with_decoder) = model(&config(Reconstruct::Both, contrast.clone()));
    let (alone, without) = model(&config(Reconstruct::None, contrast));
    let names = |store: &VarStore| {
        let mut names: Vec<String> = store.variables().into_keys().collect();
        names.sort();
        names
    };
    let (both, alone) = (names(&both), names(&alone));
    assert!(alone.iter().all(|name| both.contains(name)), "{alone:?}");
    for name in [
        "image_projection.weight",
        "text_projection.bias",
        "logit_scale",
        "bert_encoder.model.bert.pooler.dense.weight",
    ] {
        assert!(alone.iter().any(|other| other == name), "{name}");
    }
    assert!(!alone.iter().any(|name| name.contains("cls.predictions") || name.starts_with("decoder")), "{alone:?}");
    assert!(Rc::ptr_eq(with_decoder.mrm().bert().unwrap(), &with_decoder.bert));
    assert!(without.mrm().bert().is_none());
    let none = MrmConfig { contrast: None, ..config(Reconstruct::None, ContrastConfig::default()) };
    assert!(ContrastModel::new(&VarStore::new(Device::Cpu).root(), &none).is_err());
}

#[test]
fn all_patches_give_the_vectors_of_a_pass_without_masks() {
    let unmasked = MrmConfig { mask_ratio: 0.0, ..config(Reconstruct::None, ContrastConfig::default()) };
    let (_store, model) = model(&unmasked);
    let image = Tensor::randn([3, 1, 16, 16], (Kind::Float, Device::Cpu));
    let shuffled = model.mrm().forward(&image, None, None, true).unwrap();
    let ordered = model.mrm().encode_all(&image).unwrap();
    assert_eq!(ordered.size(), [3, 17, 16]);
    let (a, b) = (model.image_vectors(&shuffled.latent).unwrap(), model.image_vectors(&ordered).unwrap());
    assert!(largest(&(&a - b)) < 1e-5);
    assert!(largest(&(a.square().sum_dim_intlist([1_i64].as_slice(), false, None) - 1.0)) < 1e-5);
}

#[test]
fn equal_reports_are_no_negatives_of_one_another() {
    for loss in [ContrastLoss::Clip, ContrastLoss::Siglip] {
        let contrast = ContrastConfig { loss, logit_bias: 0.0, ..ContrastConfig::default() };
        let (_store, model) = model(&config(Reconstruct::None, contrast));
        let (ids, attention_mask) = reports();
        let texts = model.text_vectors(&ids, &attention_mask, true).unwrap();
        assert!(largest(&(texts.get(0) - texts.get(2))) < 1e-6, "padding does not matter");
        let images = unit_vectors(&Tensor::randn([3, 512], (Kind::Float, Device::Cpu)));
        let of = |rows: &[i64], keys: &[i64]| {
            let rows = Tensor::from_slice(rows);
            let [images, texts] = [&images, &texts].map(|vectors| vectors.index_select(0, &rows));
            model.pair_loss(&images, &texts, None, &Tensor::from_slice(keys)).unwrap()
        };
        let value = |loss: &PairLoss, pair: i64| loss.each.double_value(&[pair]);
        // With one other pair: the pair of the same report changes nothing for the first pair's image.
        let (three, two) = (of(&[0, 1, 2], &[7, 8, 7]), of(&[0, 1], &[7, 8]));
        assert!((value(&three, 0) - value(&two, 0)).abs() < 1e-5, "{three:?} {two:?}");
        let negatives = of(&[0, 1, 2], &[7, 8, 9]);
        assert!(value(&negatives, 0) > value(&three, 0) + 1e-3, "{negatives:?}");
        // Nothing to compare: 0, with a gradient.
        let none = of(&[], &[]);
        assert_eq!((none.total.double_value(&[]), none.each.size()), (0.0, vec![0]));
    }
}

#[test]
fn a_learned_scale_stays_below_its_limit() {
    let (store, model) = model(&config(Reconstruct::None, ContrastConfig::default()));
    let mut scale = store.variables()["logit_scale"].shallow_clone();
    assert!((model.temperature().double_value(&[]) - 0.07).abs() < 1e-6);
    let _ = tch::no_grad(|| scale.fill_(9.0));
    model.limit_scale().unwrap();
    assert!((scale.double_value(&[]) - 100_f64.ln()).abs() < 1e-5 && scale.requires_grad());
    let fixed = ContrastConfig { learn_temperature: false, ..ContrastConfig::default() };
    let (store, _) = self::model(&config(Reconstruct::None, fixed));
    assert!(!store.variables()["logit_scale"].requires_grad());
}

#[test]
fn correlation_weights_begin_equal_and_learn_from_visible_patches() {
    let contrast = ContrastConfig { correlation: true, ..ContrastConfig::default() };
    let (store, model) = model(&config(Reconstruct::ImageOnly, contrast));
    let image = Tensor::randn([3, 1, 16, 16], (Kind::Float, Device::Cpu));
    let output = model.mrm().forward(&image, None, None, true).unwrap();
    let weights = model.correlation_weights(&output.mask).unwrap();
    assert_eq!(weights.size(), [3]);
    assert!(largest(&(&weights - std::f64::consts::LN_2)) < 1e-6);
    let (ids, attention_mask) = reports();
    let images = model.image_vectors(&output.latent).unwrap();
    let texts = model.text_vectors(&ids, &attention_mask, true).unwrap();
    let keys = Tensor::from_slice(&[1_i64, 2, 3]);
    (model.pair_loss(&images, &texts, Some(&weights), &keys).unwrap().total + output.total).backward();
    let gradient = store.variables()["correlation.weight"].grad();
    assert_eq!(gradient.size(), [1, 16]);
    assert!(largest(&gradient) > 0.0);
    for name in [
        "logit_scale",
        "image_projection.weight",
        "text_projection.weight",
        "decoder_pred.weight",
        "blocks.0.mlp.fc1.weight",
    ] {
        assert!(largest(&store.variables()[name].grad()) > 0.0, "{name}");
    }
}

#[test]
fn reconstruction_is_that_of_masked_record_modeling() {
    let both = config(Reconstruct::Both, ContrastConfig::default());
    let (store, model) = model(&both);
    let plain = VarStore::new(Device::Cpu);
    let mrm = Mrm::new(&plain.root(), &MrmConfig { contrast: None, ..both }).unwrap();
    let ours = store.variables();
    for (name, mut variable) in plain.variables() {
        tch::no_grad(|| variable.copy_(&ours[&name]));
    }
    let image = Tensor::randn([3, 1, 16, 16], (Kind::Float, Device::Cpu));
    let noise = Tensor::rand([3, 16], (Kind::Float, Device::Cpu));
    let (labels, attention_mask) = reports();
    let ids = labels.copy();
    let _ = ids.narrow(1, 1, 1).fill_(3);
    let report = ReportBatch {
        ids: &ids,
        labels: &labels,
        attention_mask: &attention_mask,
        type_ids: None,
        rows: None,
        weights: None,
        masked: None,
        padded: None,
    };
    let total = |mrm: &Mrm| mrm.forward(&image, Some(report), Some(&noise), true).unwrap().total.double_value(&[]);
    assert_eq!(total(model.mrm()), total(&mrm));
}
