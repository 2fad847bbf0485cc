//! Weights in 16 bits for the forward and backward passes, with float32 master weights for the optimizer.
//!
//! Autocast casts each float32 matrix and bias to 16 bits in every micro-batch, and each gradient back: two small kernels a
//! tensor. Here one call casts all of them once a step, and one call per micro-batch casts all gradients. Products, gradients
//! and sums are those of autocast to the bit: a gradient is a 16-bit product, and the sum over micro-batches is float32.
//!
//! Outside a step the model has its float32 weights, so the optimizer, the moving average, evaluations and checkpoints are
//! the same with and without it.

use std::collections::HashMap;

use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::error::ModelError;
use crate::torch::shim;

/// The trained weights and biases of the linear layers of a model, and their 16-bit copies.
#[derive(Debug)]
pub struct MasterWeights {
    /// The model's own handles. They have the memory of `copies` during the passes of a step, else that of `masters`.
    variables: Vec<Tensor>,
    masters: Vec<Tensor>,
    copies: Vec<Tensor>,
}

impl MasterWeights {
    /// Copies in a 16-bit type of the matrices that autocast would cast. Other parameters stay float32: norms, embeddings,
    /// tokens, convolutions and the patch projection.
    ///
    /// # Errors
    /// When torch fails, such as without memory.
    pub fn new(store: &VarStore, kind: Kind) -> Result<Self, ModelError> {
        let variables = linear_layers(store);
        let masters: Vec<Tensor> = variables.iter().map(Tensor::f_detach).collect::<Result<_, _>>()?;
        let copies = masters.iter().map(|master| master.f_to_kind(kind)).collect::<Result<_, _>>()?;
        Ok(Self { variables, masters, copies })
    }

    /// Refreshes the copies and gives them to the model, until the result is [finished](LoweredWeights::finish) or dropped.
    ///
    /// # Errors
    /// When torch fails.
    pub fn lower(&self) -> Result<LoweredWeights, ModelError> {
        shim::copy(&self.copies, &self.masters)?;
        let handles = |tensors: &[Tensor]| tensors.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
        let lowered = LoweredWeights {
            variables: handles(&self.variables),
            masters: handles(&self.masters),
            sums: self.variables.iter().map(|_| None).collect(),
            is_lowered: true,
        };
        shim::set_data(&lowered.variables, &self.copies)?;
        Ok(lowered)
    }
}

/// A model that has 16-bit weights. It gets its float32 weights back when this value is dropped.
#[derive(Debug)]
pub struct LoweredWeights {
    variables: Vec<Tensor>,
    masters: Vec<Tensor>,
    /// The float32 sums of the gradients so far; none where a weight had no gradient yet.
    sums: Vec<Option<Tensor>>,
    is_lowered: bool,
}

impl LoweredWeights {
    /// Adds the gradients of a backward pass to the float32 sums, and drops them.
    ///
    /// # Errors
    /// When torch fails.
    pub fn collect_gradients(&mut self) -> Result<(), ModelError> {
        let (mut gradients, mut casts) = (Vec::new(), Vec::new());
        let (mut sums, mut addends) = (Vec::new(), Vec::new());
        for (variable, sum) in self.variables.iter().zip(&mut self.sums) {
            let gradient = variable.f_grad()?;
            if !gradient.defined() {
                continue;
            }
            let cast = Tensor::f_empty(gradient.size(), (Kind::Float, gradient.device()))?;
            match sum {
                Some(sum) => {
                    sums.push(sum.shallow_clone());
                    addends.push(cast.shallow_clone());
                }
                None => *sum = Some(cast.shallow_clone()),
            }
            gradients.push(gradient);
            casts.push(cast);
        }
        shim::copy(&casts, &gradients)?;
        shim::add(&sums, &addends)?;
        shim::drop_gradients(&self.variables)
    }

    /// Gives the model its float32 weights back, with the sums as their gradients.
    ///
    /// # Errors
    /// When torch fails.
    pub fn finish(mut self) -> Result<(), ModelError> {
        self.restore()?;
        for (variable, sum) in self.variables.iter().zip(&self.sums) {
            if let Some(sum) = sum {
                shim::set_gradient(variable, sum)?;
            }
        }
        Ok(())
    }

    fn restore(&mut self) -> Result<(), ModelError> {
        self.is_lowered = false;
        shim::set_data(&self.variables, &self.masters)
    }
}

impl Drop for LoweredWeights {
    fn drop(&mut self) {
        if self.is_lowered {
            let _ = self.restore();
        }
    }
}

/// The trained matrices `P.weight` `[outputs, inputs]` with a `P.bias` `[outputs]`, and these biases, sorted by name. A tensor
/// with two names is listed once.
fn linear_layers(store: &VarStore) -> Vec<Tensor> {
    let variables: HashMap<String, Tensor> = store.variables();
    let is_trained = |tensor: &Tensor| tensor.requires_grad() && tensor.kind() == Kind::Float;
    let mut found: Vec<(&str, &Tensor)> = Vec::new();
    for (name, weight) in variables.iter().filter(|(_, weight)| is_trained(weight) && weight.dim() == 2) {
        let Some(path) = name.strip_suffix(".weight") else { continue };
        let Some(bias) = variables.get(&format!("{path}.bias")) else { continue };
        if is_trained(bias) && bias.size() == weight.size()[..1] {
            found.extend([(name.as_str(), weight), (path, bias)]);
        }
    }
    found.sort_by(|a, b| a.0.cmp(b.0));
    let mut seen = std::collections::HashSet::new();
    found.retain(|(_, tensor)| seen.insert(tensor.data_ptr()));
    found.into_iter().map(|(_, tensor)| tensor.shallow_clone()).collect()
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use dataset::Batch;
    use tch::Device;
    use tch::nn::{self, Init};

    use super::*;
    use crate::model::bert::BertConfig;
    use crate::model::mae_decoder::DecoderConfig;
    use crate::model::mrm::MrmConfig;
    use crate::model::vit::VitConfig;
    use crate::task::objective::Objective;
    use crate::task::pretrain::Pretraining;
    use crate::train::amp::Precision;
    use crate::train::distributed::Compute;
    use crate::train::ema::Ema;
    use crate::train::optimizer::{Optimizer, OptimizerConfig};
    use crate::train::step::{StepMetrics, Stepper};

    fn objective() -> Pretraining {
        let vit = VitConfig {
            image_size: 16,
            patch_size: 4,
            embed_dim: 16,
            num_layers: 2,
            num_heads: 2,
            ..VitConfig::default()
        };
        let bert = BertConfig {
            vocab_size: 30,
            embed_dim: 8,
            num_layers: 1,
            num_heads: 2,
            intermediate: 16,
            max_positions: 7,
            ..BertConfig::default()
        };
        let decoder = DecoderConfig { embed_dim: 8, num_layers: 1, num_heads: 2, mlp_ratio: 2.0 };
        tch::manual_seed(1);
        Pretraining::new(&MrmConfig { vit, decoder, bert, ..MrmConfig::default() }, &Compute::on(Device::Cpu)).unwrap()
    }

    /// Four steps of two micro-batches; the key is switched after step `switch`.
    fn train(precision: Precision, before: bool, switch: u64) -> (Vec<StepMetrics>, Vec<(String, Tensor)>) {
        tch::set_num_threads(1);
        let objective = objective();
        let optimizer = Optimizer::new(OptimizerConfig::PRETRAINING, 0.05, objective.parameters());
        let mut stepper = Stepper::new(&objective, optimizer, precision, 3);
        (stepper.accumulation, stepper.clip) = (2, 1.0);
        let mut ema = Ema::new(objective.store(), 0.5);
        let mut metrics = Vec::new();
        for number in 0..4 {
            stepper.master_weights = None;
            if before == (number < switch) {
                stepper.keep_master_weights().unwrap();
            }
            let mut seed = 10 * number;
            let mut next = || {
                seed += 1;
                Ok(Rc::new(Batch::noise(3, 32, 7, 30, seed)))
            };
            metrics.push(stepper.step(number, 1e-2, &mut next).unwrap().metrics().unwrap());
            ema.update(number).unwrap();
        }
        let mut tensors = ema.tensors(objective.store());
        tensors
            .extend(objective.store().variables().into_iter().map(|(name, tensor)| (format!("last.{name}"), tensor)));
        tensors.extend(stepper.optimizer.save_state());
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        (metrics, tensors.into_iter().map(|(name, tensor)| (name, tensor.detach().copy())).collect())
    }

    #[test]
    fn the_numbers_are_those_of_autocast_to_the_bit() {
        for precision in [Precision::Bf16, Precision::Fp16] {
            let (expected, tensors) = train(precision, false, 4);
            assert!(expected.iter().any(|step| !step.skipped && step.grad_norm > 0.0));
            // With master weights throughout, and with the key switched on or off in the middle.
            for (before, switch) in [(true, 4), (false, 2), (true, 2)] {
                let (metrics, others) = train(precision, before, switch);
                assert_eq!(metrics, expected, "{precision:?}");
                assert_eq!(others.len(), tensors.len());
                for ((name, a), (_, b)) in others.iter().zip(&tensors) {
                    assert_eq!(a.kind(), b.kind(), "{name}");
                    assert!(a.equal(b), "{precision:?}: {name}");
                }
            }
        }
    }

    #[test]
    fn the_model_has_16_bit_weights_within_the_passes_only() {
        let objective = objective();
        let store = objective.store();
        let before = store.variables()["blocks.0.mlp.fc1.weight"].copy();
        let masters = MasterWeights::new(store, Kind::BFloat16).unwrap();
        let kind = |name: &str| store.variables()[name].kind();
        let mut lowered = masters.lower().unwrap();
        let (matrix, bias) = ("blocks.0.mlp.fc1.weight", "bert_encoder.model.cls.predictions.decoder.bias");
        assert_eq!([kind(matrix), kind(bias)], [Kind::BFloat16; 2]);
        for name in ["norm.weight", "cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias"] {
            assert_eq!(kind(name), Kind::Float, "{name}");
        }
        assert_eq!(kind("bert_encoder.model.bert.embeddings.word_embeddings.weight"), Kind::Float);
        let batch = Batch::noise(2, 32, 7, 30, 1);
        let loss = Precision::Bf16.run(Device::Cpu, || objective.loss(&batch)).unwrap().unwrap();
        loss.total.backward();
        assert_eq!(store.variables()[matrix].grad().kind(), Kind::BFloat16);
        lowered.collect_gradients().unwrap();
        assert!(!store.variables()[matrix].grad().defined());
        lowered.finish().unwrap();
        assert_eq!([kind(matrix), store.variables()[matrix].grad().kind()], [Kind::Float; 2]);
        assert!(store.variables()[matrix].equal(&before));
    }

    #[test]
    fn an_error_within_a_step_gives_the_weights_back() {
        let objective = objective();
        let optimizer = Optimizer::new(OptimizerConfig::PRETRAINING, 0.05, objective.parameters());
        let mut stepper = Stepper::new(&objective, optimizer, Precision::Bf16, 3);
        stepper.keep_master_weights().unwrap();
        assert!(stepper.step(0, 1e-3, &mut || anyhow::bail!("no batch")).is_err());
        assert!(objective.store().variables().values().all(|tensor| tensor.kind() != Kind::BFloat16));
    }

    #[test]
    fn layers_are_matrices_with_a_bias_and_are_listed_once() {
        let store = VarStore::new(Device::Cpu);
        let root = store.root();
        let layer = |name: &str, dims: &[i64], bias: i64| {
            let path = root.sub(name);
            (path.var("weight", dims, Init::Const(1.0)), path.var("bias", &[bias], Init::Const(0.0)))
        };
        let (weight, bias) = layer("dense", &[3, 2], 3);
        let _ = (layer("norm", &[3], 3), layer("convolution", &[3, 2, 1, 1], 3), layer("other", &[3, 2], 2));
        let _ = root.sub("table").var("weight", &[9, 3], Init::Const(1.0));
        let _ = root.sub("tied").add("weight", weight.shallow_clone(), false);
        let _ = root.sub("tied").add("bias", bias.shallow_clone(), false);
        let _ = root.sub("frozen").add("weight", weight.detach(), false);
        let _ = root.sub("frozen").add("bias", bias.detach(), false);
        let listed: Vec<*mut std::ffi::c_void> = linear_layers(&store).iter().map(Tensor::data_ptr).collect();
        assert_eq!(listed.len(), 2);
        assert!(listed.contains(&weight.data_ptr()) && listed.contains(&bias.data_ptr()));
        assert!(linear_layers(&nn::VarStore::new(Device::Cpu)).is_empty());
        MasterWeights::new(&nn::VarStore::new(Device::Cpu), Kind::Half).unwrap().lower().unwrap().finish().unwrap();
    }
}
