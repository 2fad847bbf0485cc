use std::process::Command;
use std::rc::Rc;

use tch::Kind;

use super::*;
use crate::model::bert::BertConfig;
use crate::model::mae_decoder::DecoderConfig;
use crate::model::mrm::{MrmConfig, ReportLoss};
use crate::model::vit::VitConfig;
use crate::task::pretrain::Pretraining;
use crate::train::distributed::Compute;
use crate::train::optimizer::{Optimizer, OptimizerConfig};
use crate::train::step::{StepMetrics, Stepper};

fn objective(report_loss: ReportLoss, in_place: bool) -> Pretraining {
    let vit =
        VitConfig { image_size: 16, patch_size: 4, embed_dim: 16, num_layers: 2, num_heads: 2, ..VitConfig::default() };
    let bert = BertConfig {
        vocab_size: 30,
        embed_dim: 8,
        num_layers: 1,
        num_heads: 2,
        intermediate: 16,
        max_positions: 24,
        ..BertConfig::default()
    };
    let decoder = DecoderConfig { embed_dim: 8, num_layers: 1, num_heads: 2, mlp_ratio: 2.0 };
    tch::manual_seed(1);
    let config = MrmConfig { vit, decoder, bert, report_loss, ..MrmConfig::default() };
    Pretraining::new(&config, &Compute::on(Device::Cpu)).unwrap().in_place_loss(in_place)
}

/// Whether this process has torch's generator to itself, of which a process has one; else the test has run in such a process.
fn alone(test: &str) -> bool {
    const VARIABLE: &str = "MRM_TEST_ALONE";
    if std::env::var_os(VARIABLE).is_some() {
        return true;
    }
    let mut itself = Command::new(std::env::current_exe().unwrap());
    let output = itself.args(["--exact", &format!("{}::{test}", module_path!().split_once("::").unwrap().1)]);
    let output = output.env(VARIABLE, "1").output().unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}");
    false
}

/// Loss, its parts, and the gradients of the parameters that have one.
fn gradients(objective: &Pretraining, loss: &Loss) -> (f64, Vec<f64>, Vec<(String, Tensor)>) {
    shim::drop_gradients(objective.store().variables().values()).unwrap();
    loss.total.backward();
    let variables = objective.store().variables().into_iter().filter(|(_, variable)| variable.grad().defined());
    let mut all: Vec<(String, Tensor)> = variables.map(|(name, variable)| (name, variable.grad().copy())).collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let parts = loss.parts.iter().map(|(_, part)| part.double_value(&[])).collect();
    (loss.total.double_value(&[]), parts, all)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} and {b}");
}

#[test]
fn the_staged_loss_and_its_gradients_are_those_of_the_plain_one() {
    if !alone("the_staged_loss_and_its_gradients_are_those_of_the_plain_one") {
        return;
    }
    // Each batch has other masked positions; 5 reports of 24 tokens are padded to multiples of 4.
    for (report_loss, in_place) in [(ReportLoss::All, false), (ReportLoss::Masked, false), (ReportLoss::Masked, true)] {
        let objective = objective(report_loss, in_place);
        let staged = objective.staged().unwrap();
        for seed in 0..4 {
            let batch = Batch::noise(5, 32, 24, 30, seed);
            let inputs = staged.stage(&batch).unwrap().unwrap();
            if report_loss == ReportLoss::Masked {
                let [.., positions, labels, count] = inputs.as_slice() else { panic!("{} inputs", inputs.len()) };
                let padding = labels.eq(-100).sum(Kind::Int64).int64_value(&[]);
                assert_eq!((positions.size(), positions.size()[0] % 4), (labels.size(), 0));
                assert!(padding < 4 && (positions.size()[0] - padding) as f64 == count.double_value(&[]));
            }
            tch::manual_seed(9);
            let (total, parts, expected) = gradients(&objective, &objective.loss(&batch).unwrap());
            tch::manual_seed(9);
            let (other_total, other_parts, got) = gradients(&objective, &staged.loss_of(&inputs).unwrap());
            close(other_total, total);
            assert_eq!((parts.len(), other_parts.len()), (2, 2));
            parts.iter().zip(&other_parts).for_each(|(a, b)| close(*b, *a));
            assert_eq!(got.len(), expected.len());
            for ((name, a), (_, b)) in got.iter().zip(&expected) {
                let (difference, largest) = ((a - b).abs().max().double_value(&[]), b.abs().max().double_value(&[]));
                // Rounding of float32; the padded rows of a product change the order of a sum.
                assert!(difference <= 1e-5 * largest.max(0.1), "{name}: {difference} of {largest}");
            }
        }
    }
}

/// Metrics and weights of four steps of micro-batches that have 3, 4 or 5 records.
fn train(graphed: bool, precision: Precision, accumulation: usize, masters: bool) -> (Vec<StepMetrics>, Vec<Tensor>) {
    tch::set_num_threads(1);
    let objective = objective(ReportLoss::All, false);
    let optimizer = Optimizer::new(OptimizerConfig::PRETRAINING, 0.05, objective.parameters());
    let mut stepper = Stepper::new(&objective, optimizer, precision, 3);
    (stepper.accumulation, stepper.clip) = (accumulation, 1.0);
    if masters {
        stepper.keep_master_weights().unwrap();
    }
    if graphed {
        stepper.graph_passes();
    }
    let mut metrics = Vec::new();
    for number in 0..4 {
        let mut seed = 10 * number;
        let mut next = || {
            seed += 1;
            Ok(Rc::new(Batch::noise(3 + seed as usize % 3, 32, 24, 30, seed)))
        };
        metrics.push(stepper.step(number, 1e-2, &mut next).unwrap().metrics().unwrap());
    }
    let mut variables: Vec<(String, Tensor)> = objective.store().variables().into_iter().collect();
    variables.sort_by(|a, b| a.0.cmp(&b.0));
    (metrics, variables.into_iter().map(|(_, variable)| variable.detach().copy()).collect())
}

#[test]
fn steps_with_recorded_passes_are_those_without_to_the_bit() {
    if !alone("steps_with_recorded_passes_are_those_without_to_the_bit") {
        return;
    }
    for (precision, masters) in [
        (Precision::Fp32, false),
        (Precision::Bf16, false),
        (Precision::Bf16, true),
        (Precision::Fp16, false),
        (Precision::Fp16, true),
    ] {
        // Powers of two, by which products are exact.
        for accumulation in [1, 2, 4] {
            let (expected, weights) = train(false, precision, accumulation, masters);
            assert!(expected.iter().any(|step| !step.skipped && step.grad_norm > 0.0));
            let (metrics, others) = train(true, precision, accumulation, masters);
            assert_eq!(metrics, expected, "{precision:?}, {accumulation} micro-batches, master weights: {masters}");
            assert!(others.iter().zip(&weights).all(|(a, b)| a.equal(b)), "{precision:?}");
        }
    }
}

#[test]
fn each_shape_is_recorded_once_and_further_shapes_are_not() {
    let objective = objective(ReportLoss::All, false);
    let parameters = objective.parameters().iter().map(|parameter| parameter.tensor.shallow_clone()).collect();
    let mut passes = GraphedPasses::new(&objective, parameters);
    let compute = |passes: &mut GraphedPasses, records: usize| {
        let (batch, factor) = (Batch::noise(records, 32, 24, 30, 1), Tensor::from(1.0_f32));
        shim::drop_gradients(&passes.parameters).unwrap();
        let loss = passes.compute(&objective, Precision::Fp32, &batch, &factor, true).unwrap();
        (loss.is_some(), passes.recorded.len())
    };
    for records in 1..=MOST_GRAPHS {
        assert_eq!(compute(&mut passes, records), (true, records));
    }
    assert_eq!(compute(&mut passes, MOST_GRAPHS + 1), (false, MOST_GRAPHS));
    assert_eq!(compute(&mut passes, 2), (true, MOST_GRAPHS));
    let (batches, by_graphs, graphs) = (MOST_GRAPHS as u64 + 2, MOST_GRAPHS as u64 + 1, MOST_GRAPHS as u64);
    assert_eq!(passes.counts(), Counts { batches, by_graphs, graphs });
    // Other memory of the weights: what was recorded is of no use.
    let (_, variable) = objective.store().variables().into_iter().find(|(name, _)| name == "norm.weight").unwrap();
    shim::set_data(&[variable.shallow_clone()], &[variable.detach().copy()]).unwrap();
    assert_eq!(compute(&mut passes, 2), (true, 1));
}

#[test]
fn a_run_that_cannot_be_recorded_is_refused() {
    let message = check(&objective(ReportLoss::All, false), &ProcessGroup::single()).unwrap_err().to_string();
    assert_eq!(message, "run.cuda_graph: needs a CUDA device");
}
