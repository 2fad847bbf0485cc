//! An exponential moving average (EMA) of the weights. Evaluation and later runs use it in place of the last weights.

use std::collections::HashMap;

use tch::nn::VarStore;
use tch::{Kind, Tensor};

use crate::error::ModelError;
use crate::torch::shim;
use crate::weights::Tensors;

/// The average of a store's float variables. Step `n`, from 0, moves it by `1 - min(decay, (1 + n) / (10 + n))` of its
/// distance to the weights. The second term is the warm-up of TensorFlow's and timm's averages: the initialization loses
/// its influence early.
#[derive(Debug)]
pub struct Ema {
    decay: f64,
    weights: Vec<Tensor>,
    average: Vec<Tensor>,
}

impl Ema {
    /// An average that starts at the present weights.
    pub fn new(store: &VarStore, decay: f64) -> Self {
        let mut weights: Vec<(String, Tensor)> =
            store.variables().into_iter().filter(|(_, tensor)| tensor.kind() == Kind::Float).collect();
        weights.sort_by(|a, b| a.0.cmp(&b.0));
        let mut seen = std::collections::HashSet::new();
        weights.retain(|(_, tensor)| seen.insert(tensor.data_ptr())); // a tensor with two names counts once
        let weights: Vec<Tensor> = weights.into_iter().map(|(_, tensor)| tensor.detach()).collect();
        let average = tch::no_grad(|| weights.iter().map(Tensor::copy).collect());
        Self { decay, weights, average }
    }

    /// Moves the average after step `step`, from 0.
    ///
    /// # Errors
    /// When torch fails.
    pub fn update(&mut self, step: u64) -> Result<(), ModelError> {
        let warm = (1.0 + step as f64) / (10.0 + step as f64);
        shim::lerp(&self.average, &self.weights, 1.0 - self.decay.min(warm))
    }

    /// All variables of the store by name, sorted; an averaged variable has the value of its average.
    pub fn tensors(&self, store: &VarStore) -> Tensors {
        let averages: HashMap<_, _> =
            self.weights.iter().zip(&self.average).map(|(weight, average)| (weight.data_ptr(), average)).collect();
        let mut tensors: Tensors = store
            .variables()
            .into_iter()
            .map(|(name, tensor)| {
                let average = averages.get(&tensor.data_ptr()).map(|average| average.shallow_clone());
                (name, average.unwrap_or(tensor))
            })
            .collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    }

    /// Loads an average that [`tensors`](Self::tensors) returned.
    ///
    /// # Errors
    /// When a tensor is missing, or has another shape than the variable.
    pub fn load(&mut self, store: &VarStore, saved: Tensors) -> Result<(), ModelError> {
        let saved: HashMap<String, Tensor> = saved.into_iter().collect();
        let positions: HashMap<_, _> =
            self.weights.iter().enumerate().map(|(position, weight)| (weight.data_ptr(), position)).collect();
        let _guard = tch::no_grad_guard();
        for (name, variable) in store.variables() {
            let Some(&position) = positions.get(&variable.data_ptr()) else { continue };
            let tensor = saved.get(&name).ok_or_else(|| ModelError::MissingState { name: name.clone() })?;
            crate::error::check_shape(&name, tensor, &variable.size())?;
            self.average[position].f_copy_(tensor)?;
        }
        Ok(())
    }

    /// Runs `body` while the model has the averaged weights.
    pub fn in_place<T>(&mut self, body: impl FnOnce() -> T) -> T {
        self.exchange();
        let result = body();
        self.exchange();
        result
    }

    fn exchange(&mut self) {
        let _guard = tch::no_grad_guard();
        for (weight, average) in self.weights.iter_mut().zip(&mut self.average) {
            let before = weight.copy();
            weight.copy_(average);
            average.copy_(&before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, nn::Init};

    fn store() -> VarStore {
        let store = VarStore::new(Device::Cpu);
        let weight = store.root().sub("layer").var("weight", &[2], Init::Const(1.0));
        let _ = store.root().sub("tied").add("weight", weight, false);
        let _ = store.root().add("numbers", Tensor::from_slice(&[1_i64, 2]), false);
        store
    }

    fn set(store: &VarStore, value: f64) {
        tch::no_grad(|| {
            let _ = store.variables().get_mut("layer.weight").unwrap().fill_(value);
        });
    }

    #[test]
    fn the_average_moves_slowly_and_can_replace_the_weights() {
        let store = store();
        let mut ema = Ema::new(&store, 0.9);
        set(&store, 2.0);
        ema.update(1000).unwrap(); // after the warm-up: a tenth of the distance
        let value = |tensors: &Tensors, name: &str| {
            tensors.iter().find(|(known, _)| known == name).unwrap().1.double_value(&[0])
        };
        let saved: Tensors = ema.tensors(&store).into_iter().map(|(name, tensor)| (name, tensor.copy())).collect();
        assert!((value(&saved, "layer.weight") - 1.1).abs() < 1e-6);
        assert!((value(&saved, "tied.weight") - 1.1).abs() < 1e-6 && saved.len() == 3);
        let inside = ema.in_place(|| store.variables()["tied.weight"].double_value(&[0]));
        assert!((inside - 1.1).abs() < 1e-6);
        assert_eq!(store.variables()["layer.weight"].double_value(&[0]), 2.0);

        let mut again = Ema::new(&store, 0.9);
        again.load(&store, saved).unwrap();
        assert!((value(&again.tensors(&store), "layer.weight") - 1.1).abs() < 1e-6);
        assert!(again.load(&store, Vec::new()).unwrap_err().to_string().contains("weight"));
        ema.update(0).unwrap(); // first step: nine tenths
        assert!((value(&ema.tensors(&store), "layer.weight") - 1.91).abs() < 1e-6);
    }
}
