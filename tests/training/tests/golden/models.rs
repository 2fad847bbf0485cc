//! Models, losses, gradients and training steps.

use std::collections::{HashMap, HashSet};

use tch::nn::VarStore;
use tch::{Kind, Tensor};
use trainer::model::bert::BertConfig;
use trainer::model::classifier::{ClassifierConfig, VitClassifier};
use trainer::model::mae_decoder::DecoderConfig;
use trainer::model::mrm::{Mrm, MrmConfig, MrmOutput, ReportBatch};
use trainer::model::pos_embed::{PosEmbed, PosResize, resize_table, sin_cos_table};
use trainer::model::vit::VitConfig;
use trainer::train::amp::Precision;
use trainer::train::lr_schedule::WarmupCosine;
use trainer::train::optimizer::{Optimizer, OptimizerConfig, Parameter, parameters};
use training::golden::{
    DOUBLE, FORWARD, GRADIENTS, Golden, REDUCED_GRADIENTS, TABLES, Tolerance, check, check_gradients, check_number,
    check_output, computed, device, precision,
};

const SGD_WEIGHTS: Tolerance = (1e-5, 2e-6);
const TRAIN_LOSSES: Tolerance = (1e-5, 5e-5);
/// Weights after AdamW steps, where their gradients are above rounding ([`AdamReference`]).
const ADAM_WEIGHTS: Tolerance = (0.0, 2e-5);
/// Moments against the same steps in double precision: relative, also to the largest one of a tensor.
const MOMENTS: f64 = 1e-6;
/// Weights against the same steps in double precision.
const OWN_WEIGHTS: Tolerance = (1e-6, 1e-6);
/// Rounding of a gradient in single precision, relative to the largest gradient of its tensor.
const GRADIENT_ROUNDING: f64 = 1e-6;
/// The same where all gradients of a tensor are rounding, as those of a key bias, on which attention does not depend.
const LEAST_ROUNDING: f64 = 1e-8;
/// Largest share of weights whose gradients are mostly rounding: more would make the comparison of weights worthless.
const MOST_UNDETERMINED: f64 = 0.01;

/// The record batch of `mrm_tiny`, and a model of its sizes.
struct Pretraining(Golden);

impl Pretraining {
    fn read() -> Self {
        Self(Golden::read("mrm_tiny"))
    }

    fn config(&self, antialias: bool, norm_pix_loss: bool) -> MrmConfig {
        let golden = &self.0;
        check_number("epsilon", trainer::model::vit::LAYER_NORM_EPSILON, golden.float("/mrm/layer_norm_eps"), DOUBLE);
        MrmConfig {
            vit: VitConfig {
                image_size: golden.int("/mrm/img_size"),
                patch_size: golden.int("/mrm/patch_size"),
                embed_dim: golden.int("/mrm/embed_dim"),
                num_layers: golden.int("/mrm/depth"),
                num_heads: golden.int("/mrm/num_heads"),
                mlp_ratio: golden.float("/mrm/mlp_ratio"),
                in_channels: golden.int("/mrm/in_chans"),
                ..VitConfig::default()
            },
            decoder: DecoderConfig {
                embed_dim: golden.int("/mrm/decoder_embed_dim"),
                num_layers: golden.int("/mrm/decoder_depth"),
                num_heads: golden.int("/mrm/decoder_num_heads"),
                mlp_ratio: golden.float("/mrm/mlp_ratio"),
            },
            bert: BertConfig {
                vocab_size: golden.int("/bert/vocab_size"),
                embed_dim: golden.int("/bert/hidden_size"),
                num_layers: golden.int("/bert/num_hidden_layers"),
                num_heads: golden.int("/bert/num_attention_heads"),
                intermediate: golden.int("/bert/intermediate_size"),
                max_positions: golden.int("/bert/max_position_embeddings"),
                type_vocab: golden.int("/bert/type_vocab_size"),
                dropout: 0.0,
            },
            super_resolution: golden.int("/mrm/big_image") / golden.int("/mrm/img_size"),
            mask_ratio: golden.float("/mask_ratio"),
            norm_pix_loss,
            antialias,
            ..MrmConfig::default()
        }
    }

    fn model(&self, config: &MrmConfig) -> (VarStore, Mrm) {
        let store = VarStore::new(device());
        let model = Mrm::new(&store.root(), config).unwrap();
        // The position tables of the state are computed by the model as well.
        for table in ["pos_embed", "decoder_pos_embed"] {
            check(table, &store.variables()[table], self.0.tensor(&format!("state.{table}")), FORWARD);
        }
        self.0.load_into(&store);
        (store, model)
    }

    fn report(&self) -> ReportBatch<'_> {
        ReportBatch {
            ids: self.0.tensor("in.ids"),
            labels: self.0.tensor("in.labels"),
            attention_mask: self.0.tensor("in.attention_mask"),
            type_ids: Some(self.0.tensor("in.type_ids")),
            rows: None,
            weights: None,
            masked: None,
            padded: None,
        }
    }

    /// Runs the model in a precision.
    fn run(&self, model: &Mrm, train: bool, precision: Precision) -> MrmOutput {
        let (image, noise) = (self.0.tensor("in.image"), self.0.tensor("in.noise"));
        precision.run(device(), || model.forward(image, Some(self.report()), Some(noise), train)).unwrap().unwrap()
    }

    fn check(&self, name: &str, got: Option<&Tensor>) {
        let got = got.unwrap_or_else(|| panic!("the model gives no {name}"));
        check_output(name, got, self.0.tensor(&format!("out.{name}")), FORWARD);
    }
}

#[test]
fn golden_mrm_outputs() {
    let golden = Pretraining::read();
    let (_store, model) = golden.model(&golden.config(true, golden.0.bool("/mrm/norm_pix_loss")));
    assert_eq!(model.config().vit.patches(), golden.0.int("/num_patches"));
    assert_eq!(model.config().visible_patches(), golden.0.int("/len_keep"));

    let output = golden.run(&model, false, precision());
    golden.check("image_small", Some(&output.image_small));
    golden.check("patch_embed", Some(&computed(|| model.patch_embed().forward(&output.image_small))));
    golden.check("latent", Some(&output.latent));
    golden.check("mask", Some(&output.mask));
    golden.check("ids_restore", Some(&output.ids_restore));
    golden.check("pred", output.pred.as_ref());
    golden.check("report_latent", output.report_latent.as_ref());
    golden.check("bert_hidden", output.report_hidden.as_ref());
    golden.check("mlm_logits", output.mlm_logits.as_ref());
    golden.check("loss_image", output.loss_image.as_ref());
    golden.check("loss_report", output.loss_report.as_ref());

    let (bert, report) = (model.bert().unwrap(), golden.report());
    let embedded = computed(|| bert.embed(report.ids, report.type_ids, output.report_latent.as_ref(), false));
    golden.check("bert_embed_plus_latent", Some(&embedded));
    let sum = golden.0.tensor("out.loss_image") + golden.0.tensor("out.loss_report");
    check_output("total", &output.total, &sum, FORWARD);
}

#[test]
fn golden_mrm_without_antialias() {
    let golden = Pretraining::read();
    let (_store, model) = golden.model(&golden.config(false, golden.0.bool("/mrm/norm_pix_loss")));
    let output = golden.run(&model, false, precision());
    golden.check("image_small_noaa", Some(&output.image_small));
    golden.check("latent_noaa", Some(&output.latent));
    golden.check("loss_image_noaa", output.loss_image.as_ref());
    golden.check("loss_report_noaa", output.loss_report.as_ref());
}

#[test]
fn golden_mrm_without_patch_normalization() {
    let golden = Pretraining::read();
    for (antialias, name) in [(true, "loss_image_nonorm"), (false, "loss_image_nonorm_noaa")] {
        let (_store, model) = golden.model(&golden.config(antialias, false));
        golden.check(name, golden.run(&model, false, precision()).loss_image.as_ref());
    }
}

#[test]
fn golden_mrm_gradients() {
    let golden = Pretraining::read();
    let with_gradient = golden.0.names("/parameters_with_a_gradient");
    let without_gradient = golden.0.names("/parameters_without_gradient");
    assert_eq!(golden.0.group("grad.").count(), with_gradient.len());
    // Evaluation computes all outputs, training only those that the losses need; the gradients are equal.
    for train in [false, true] {
        let (store, model) = golden.model(&golden.config(true, golden.0.bool("/mrm/norm_pix_loss")));
        golden.run(&model, train, precision()).total.backward();
        let variables = store.variables();
        let gradient = |name: &str| variables[name].grad();
        let expected = |name: &str| golden.0.tensor(&format!("grad.{name}"));
        let gradients: Vec<_> =
            with_gradient.iter().map(|name| (name.as_str(), gradient(name), expected(name))).collect();
        check_gradients(&gradients, GRADIENTS, REDUCED_GRADIENTS);
        for name in &without_gradient {
            assert!(!variables[name].grad().defined(), "{name} has a gradient");
        }
    }
}

#[test]
fn golden_train_steps() {
    let start = Pretraining::read();
    let golden = Golden::read("train_steps");
    let schedule = WarmupCosine {
        peak: golden.float("/schedule/base_lr"),
        floor: golden.float("/schedule/min_lr"),
        warmup: golden.float("/schedule/warmup_epochs"),
        total: golden.float("/schedule/epochs"),
    };
    let per_epoch = golden.float("/schedule/steps_per_epoch");
    let config = OptimizerConfig::AdamW {
        beta1: golden.float("/optimizer/betas/0"),
        beta2: golden.float("/optimizer/betas/1"),
        epsilon: golden.float("/optimizer/eps"),
    };
    for train in [false, true] {
        let (store, model) = start.model(&start.config(golden.bool("/antialias"), golden.bool("/norm_pix_loss")));
        let weight_decay = golden.float("/optimizer/weight_decay");
        let mut optimizer = Optimizer::new(config, weight_decay, parameters(&store));
        for (decays, group) in [(true, "/optimizer/decay_group"), (false, "/optimizer/no_decay_group")] {
            let listed = optimizer.parameters().iter().filter(|p| p.decays == decays);
            assert_eq!(listed.map(|p| p.name.clone()).collect::<Vec<_>>(), golden.names(group), "{group}");
        }
        let mut references: Vec<AdamReference> = optimizer
            .parameters()
            .iter()
            .map(|parameter| AdamReference::new(&parameter.tensor, if parameter.decays { weight_decay } else { 0.0 }))
            .collect();

        for step in 0..golden.tensor("lr").size()[0] {
            let expected = |name: &str| golden.tensor(name).double_value(&[step]);
            let lr = schedule.in_epochs(step as u64, per_epoch);
            check_number("lr", lr, expected("lr"), DOUBLE);
            optimizer.drop_gradients().unwrap();
            let output = start.run(&model, train, Precision::Fp32);
            check_losses(&output, expected("loss_image"), expected("loss_report"));
            output.total.backward();
            if step == 0 {
                for (name, expected) in start.0.group("grad.") {
                    check(name, &store.variables()[name].grad(), expected, GRADIENTS);
                }
            }
            let norm = optimizer.clip_grad_norm(0.0, None).unwrap().double_value(&[]);
            check_number("grad_norm", norm, expected("grad_norm"), FORWARD);
            for (reference, parameter) in references.iter_mut().zip(optimizer.parameters()) {
                reference.step(&parameter.tensor.grad(), lr, config);
            }
            optimizer.step(lr, None).unwrap();
            let moments: HashMap<String, Tensor> = optimizer.save_state().into_iter().collect();
            for (reference, parameter) in references.iter().zip(optimizer.parameters()) {
                reference.check(parameter, &moments);
            }
        }
        let after = start.run(&model, train, Precision::Fp32);
        let expected = |name: &str| golden.float(&format!("/float32/after_last_step/{name}"));
        check_losses(&after, expected("loss_image"), expected("loss_report"));

        let trained: HashMap<&str, &AdamReference> =
            optimizer.parameters().iter().map(|parameter| parameter.name.as_str()).zip(&references).collect();
        let variables = store.variables();
        let listed: HashSet<&str> = golden.group("final.").map(|(name, _)| name).collect();
        let missing: Vec<_> = trained.keys().filter(|name| !listed.contains(*name)).collect();
        assert!(missing.is_empty(), "no final weights of {missing:?}");
        let (mut weights, mut undetermined) = (0, 0);
        for (name, expected) in golden.group("final.") {
            let Some(reference) = trained.get(name) else {
                check(name, &variables[name], expected, ADAM_WEIGHTS); // a second name, or never trained
                continue;
            };
            // Where a gradient is zero apart from rounding, AdamW divides the rounding by its own size.
            let loose = reference.slack.clamp_min(ADAM_WEIGHTS.1);
            let difference = (variables[name].detach().to_kind(Kind::Double) - expected.to_kind(Kind::Double)).abs();
            let excess = (&difference - &loose).max().double_value(&[]);
            assert!(excess <= 0.0, "{name}: {excess:.3e} more than rounding explains");
            weights += expected.numel();
            undetermined += reference.slack.gt(ADAM_WEIGHTS.1).sum(Kind::Int64).int64_value(&[]) as usize;
        }
        let share = undetermined as f64 / weights as f64;
        println!("gradients of {undetermined} of {weights} weights are mostly rounding");
        assert!(share < MOST_UNDETERMINED, "{undetermined} of {weights} weights");
    }
}

/// AdamW (Loshchilov and Hutter 2019) written out in double precision for one parameter, on the gradients that the model
/// gives; and how far the rounding of these gradients can move each weight.
///
/// Let each gradient be off by at most `d`. The first moment is a mean of gradients and the root of the second one a norm
/// of them, so both are off by at most `d`, and the step `lr · m / (s + epsilon)` by at most
/// `lr · d · (1 + |m| / (s + epsilon)) / (s + epsilon - d)`. Where `s` is not above `d`, nothing is known but that no step
/// is longer than `lr` times a constant of the betas (Cauchy and Schwarz, see [`AdamReference::longest`]).
struct AdamReference {
    weight: Tensor,
    first: Tensor,
    second: Tensor,
    decay: f64,
    steps: i32,
    /// Largest difference that rounding can have made so far, a weight.
    slack: Tensor,
}

impl AdamReference {
    fn new(weight: &Tensor, decay: f64) -> Self {
        let weight = weight.detach().to_kind(Kind::Double).copy();
        let zeros = || weight.zeros_like();
        Self { first: zeros(), second: zeros(), slack: zeros(), weight, decay, steps: 0 }
    }

    fn step(&mut self, gradient: &Tensor, lr: f64, config: OptimizerConfig) {
        let OptimizerConfig::AdamW { beta1, beta2, epsilon } = config else { panic!("the golden run is AdamW's") };
        if !gradient.defined() {
            return; // the optimizer skips such a parameter, too
        }
        let gradient = gradient.detach().to_kind(Kind::Double);
        self.steps += 1;
        self.first = &self.first * beta1 + &gradient * (1.0 - beta1);
        self.second = &self.second * beta2 + gradient.square() * (1.0 - beta2);
        let mean = &self.first / (1.0 - beta1.powi(self.steps));
        let root = (&self.second / (1.0 - beta2.powi(self.steps))).sqrt() + epsilon;
        let direction = &mean / &root;
        self.weight = &self.weight * (1.0 - lr * self.decay) - &direction * lr;

        // Exact zeros, as for the embedding of an unused token, have no rounding.
        let size = (GRADIENT_ROUNDING * gradient.abs().max().double_value(&[])).max(LEAST_ROUNDING);
        let rounding = gradient.not_equal(0.0).to_kind(Kind::Double) * size;
        let known = (direction.abs() + 1.0) * &rounding / (&root - &rounding).clamp_min(f64::MIN_POSITIVE);
        self.slack = &self.slack + known.clamp_max(2.0 * Self::longest(beta1, beta2, self.steps)) * lr;
    }

    /// Longest step there can be, in learning rates.
    fn longest(beta1: f64, beta2: f64, steps: i32) -> f64 {
        let weight = |beta: f64, age: i32| (1.0 - beta) * beta.powi(age) / (1.0 - beta.powi(steps));
        (0..steps).map(|age| weight(beta1, age).powi(2) / weight(beta2, age)).sum::<f64>().sqrt()
    }

    /// Checks the optimizer's moments and the parameter's weights.
    fn check(&self, parameter: &Parameter, moments: &HashMap<String, Tensor>) {
        let name = &parameter.name;
        for (moment, expected) in [("exp_avg", &self.first), ("exp_avg_sq", &self.second)] {
            match moments.get(&format!("{moment}.{name}")) {
                Some(got) => check(name, got, expected, (MOMENTS, MOMENTS * expected.abs().max().double_value(&[]))),
                None => assert_eq!(self.steps, 0, "no {moment} of {name}"),
            }
        }
        check(name, &parameter.tensor, &self.weight, OWN_WEIGHTS);
    }
}

fn check_losses(output: &MrmOutput, image: f64, report: f64) {
    for (name, got, expected) in [("image", &output.loss_image, image), ("report", &output.loss_report, report)] {
        check_number(name, got.as_ref().unwrap().double_value(&[]), expected, TRAIN_LOSSES);
    }
}

fn classifier(golden: &Golden) -> (VarStore, VitClassifier) {
    let config = ClassifierConfig {
        vit: VitConfig {
            image_size: golden.int("/model/img_size"),
            patch_size: golden.int("/model/patch_size"),
            embed_dim: golden.int("/model/embed_dim"),
            num_layers: golden.int("/model/depth"),
            num_heads: golden.int("/model/num_heads"),
            mlp_ratio: golden.float("/model/mlp_ratio"),
            in_channels: golden.int("/model/in_chans"),
            ..VitConfig::default()
        },
        classes: golden.int("/model/num_classes"),
        drop_path: golden.float("/model/drop_path_rate"),
        ..ClassifierConfig::default()
    };
    let store = VarStore::new(device());
    let model = VitClassifier::new(&store.root(), &config).unwrap();
    golden.load_into(&store);
    (store, model)
}

fn classification_loss(golden: &Golden, logits: &Tensor) -> Tensor {
    let labels = golden.tensor("in.labels");
    logits.binary_cross_entropy_with_logits::<Tensor>(labels, None, None, tch::Reduction::Mean)
}

#[test]
fn golden_vit_cls_outputs_and_gradients() {
    let golden = Golden::read("vit_cls");
    let (store, model) = classifier(&golden);
    let image = golden.tensor("in.image");
    let features = computed(|| model.features(image, false).unwrap());
    check_output("features", &features, golden.tensor("out.features"), FORWARD);
    let logits = computed(|| model.logits(image, false).unwrap());
    check_output("logits", &logits, golden.tensor("out.logits"), FORWARD);
    let loss = computed(|| classification_loss(&golden, &logits));
    check_output("loss", &loss, golden.tensor("out.loss"), FORWARD);

    loss.backward();
    let variables = store.variables();
    assert_eq!(golden.group("grad.").count(), variables.len());
    let gradients: Vec<_> =
        golden.group("grad.").map(|(name, expected)| (name, variables[name].grad(), expected)).collect();
    check_gradients(&gradients, GRADIENTS, REDUCED_GRADIENTS);
}

#[test]
fn golden_vit_cls_training() {
    let golden = Golden::read("vit_cls");
    let (store, model) = classifier(&golden);
    let schedule = WarmupCosine {
        peak: golden.float("/optimizer/lr"),
        floor: 0.0,
        warmup: golden.float("/schedule/warmup_steps"),
        total: golden.float("/schedule/t_total"),
    };
    let config = OptimizerConfig::Sgd { momentum: golden.float("/optimizer/momentum") };
    let mut optimizer = Optimizer::new(config, golden.float("/optimizer/weight_decay"), parameters(&store));
    let loss = || classification_loss(&golden, &model.logits(golden.tensor("in.image"), true).unwrap());
    for step in 0..golden.tensor("train.loss").size()[0] {
        let expected = |name: &str| golden.tensor(name).double_value(&[step]);
        optimizer.drop_gradients().unwrap();
        let loss = loss();
        check_number("loss", loss.double_value(&[]), expected("train.loss"), FORWARD);
        loss.backward();
        let norm = optimizer.clip_grad_norm(golden.float("/grad_clip/max_norm"), None).unwrap();
        check_number("norm", norm.double_value(&[]), expected("train.grad_norm_before_clip"), FORWARD);
        let lr = schedule.in_steps(step as u64);
        check_number("lr", lr, expected("train.lr"), DOUBLE);
        optimizer.step(lr, None).unwrap();
    }
    check_number("loss", loss().double_value(&[]), golden.float("/float32/loss_after_last_step"), FORWARD);
    let variables = store.variables();
    assert_eq!(golden.group("final.").count(), variables.len());
    for (name, expected) in golden.group("final.") {
        check(name, &variables[name], expected, SGD_WEIGHTS);
    }
}

#[test]
fn golden_pos_embed() {
    let golden = Golden::read("pos_embed");
    for (name, entry) in golden.json.as_object().unwrap() {
        let size = |key: &str| entry[key].as_i64().unwrap_or_else(|| panic!("{name} has no {key}"));
        if name.starts_with("resize") {
            let table = golden.tensor(&format!("{name}.in"));
            assert_eq!(table.size()[1], 1 + size("from_grid") * size("from_grid"));
            let resized = resize_table(table, size("to_grid"), PosResize::Bicubic).unwrap();
            check(name, &resized, golden.tensor(&format!("{name}.out")), TABLES);
            continue;
        }
        let table = sin_cos_table(size("dim"), size("grid"), PosEmbed::Release).unwrap();
        for (part, expected) in golden.group(&format!("{name}.")) {
            let rows = expected.size()[0];
            let first = if part.starts_with("last") { table.size()[0] - rows } else { 0 };
            check(&format!("{name}.{part}"), &table.narrow(0, first, rows), expected, TABLES);
        }
        assert!(golden.group(&format!("{name}.")).count() > 0, "{name}");
        let table = table.to_kind(Kind::Double);
        for (key, got) in
            [("sum", table.sum(Kind::Double)), ("abs_sum", table.abs().sum(Kind::Double)), ("l2", table.norm())]
        {
            check_number(key, got.double_value(&[]), entry[key].as_f64().unwrap(), TABLES);
        }
    }
}
