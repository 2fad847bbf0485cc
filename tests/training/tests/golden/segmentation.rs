//! Losses and model of segmentation.

use tch::nn::VarStore;
use tch::{Kind, Tensor};
use trainer::model::segmentation_loss::{HeadLoss, dice, focal};
use trainer::model::segmenter::{Segmenter, SegmenterConfig};
use trainer::model::vit::VitConfig;
use training::golden::{
    FORWARD, GRADIENTS, Golden, Tolerance, check, check_gradients, check_number, check_output, computed, device,
};

/// A loss of logits and target.
type LossOf = fn(&Tensor, &Tensor) -> Tensor;

/// Sums over thousands of pixels that largely cancel: hence the absolute part.
const SUMMED_GRADIENTS: Tolerance = (1e-3, 1e-4);
/// Norm of a gradient's difference in bfloat16: batch normalizations over few values amplify roundings. Measured on a CPU: 15%.
const REDUCED_NORMALIZED: f64 = 0.25;
/// Running mean and variance of batch normalization.
const STATISTICS: Tolerance = (1e-5, 1e-6);

#[test]
fn golden_segmentation_losses() {
    let golden = Golden::read("seg_losses");
    let losses: [(&str, LossOf); 5] = [
        ("focal", focal),
        ("dice", |logits, target| dice(logits, target, [1.0, 1.0])),
        ("dice_front", |logits, target| dice(logits, target, HeadLoss::FOREGROUND_ONLY)),
        ("decode_head_total", |logits, target| HeadLoss::DECODE.of(logits, target).0),
        ("aux_head_total", |logits, target| HeadLoss::AUXILIARY.of(logits, target).0),
    ];
    let cases = golden.value("/cases").as_object().expect("cases");
    assert!(!cases.is_empty());
    for (case, facts) in cases {
        for (name, loss) in losses {
            let tensor = |part: &str| golden.tensor(&format!("{case}.{part}"));
            let logits = tensor("logits").copy().set_requires_grad(true);
            let value = loss(&logits, tensor("target"));
            value.backward();
            let stated = facts["values"][name].as_f64().expect("a value");
            check_number(&format!("{case} {name}"), value.double_value(&[]), stated, FORWARD);
            check(&format!("{case} {name}"), &value, &tensor(name).squeeze(), FORWARD);
            check(&format!("{case} {name}, gradient"), &logits.grad(), tensor(&format!("{name}.grad")), GRADIENTS);
        }
    }
}

#[test]
fn golden_upernet() {
    let golden = Golden::read("upernet");
    let int = |key: &str| golden.int(&format!("/{key}"));
    let config = SegmenterConfig {
        vit: VitConfig {
            image_size: int("image_size"),
            patch_size: int("patch_size"),
            embed_dim: int("width"),
            num_layers: int("depth"),
            num_heads: int("heads"),
            ..VitConfig::default()
        },
        blocks: serde_json::from_value(golden.value("/blocks").clone()).expect("numbers"),
        channels: int("channels"),
        auxiliary_channels: int("auxiliary_channels"),
        dropout: 0.0,
        drop_path: 0.0,
        ..SegmenterConfig::default()
    };
    let store = VarStore::new(device());
    let model =
        Segmenter::new(&store.root(), &config, &trainer::train::distributed::ProcessGroup::single()).expect("a model");
    golden.load_into(&store);

    let image = golden.tensor("in.image");
    let seen = computed(|| model.forward(image, false).expect("logits"));
    check_output("logits, evaluation", &seen.logits, golden.tensor("out.logits_eval"), FORWARD);
    let trained = computed(|| model.forward(image, true).expect("logits"));
    let auxiliary = trained.auxiliary.expect("an auxiliary head");
    check_output("logits", &trained.logits, golden.tensor("out.logits"), FORWARD);
    check_output("auxiliary logits", &auxiliary, golden.tensor("out.auxiliary"), FORWARD);
    let sum = |x: &Tensor, weight: &str| (x * golden.tensor(weight)).sum(Kind::Float);
    (sum(&trained.logits, "in.logits_weight") + sum(&auxiliary, "in.auxiliary_weight")).backward();
    let variables = store.variables();
    let gradients: Vec<_> =
        golden.group("grad.").map(|(name, expected)| (name, variables[name].grad(), expected)).collect();
    check_gradients(&gradients, SUMMED_GRADIENTS, REDUCED_NORMALIZED);
    assert_eq!(gradients.len(), store.trainable_variables().len());
    for (name, statistics) in golden.group("final.") {
        check_output(name, &variables[name], statistics, STATISTICS);
    }
}
