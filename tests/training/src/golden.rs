//! Golden numbers of reference implementations, and how near ours must be.

use helpers::golden;
use std::collections::HashMap;

use serde_json::Value;
use tch::nn::VarStore;
use tch::{Kind, Tensor};
use trainer::weights::load_state;

/// Relative and absolute tolerance.
pub type Tolerance = (f64, f64);

pub const FORWARD: Tolerance = (1e-4, 1e-5);
/// Position tables.
pub const TABLES: Tolerance = (1e-5, 1e-6);
pub const GRADIENTS: Tolerance = (1e-3, 1e-6);

/// The numbers of one file: its json, and its tensors if it has any.
pub struct Golden {
    pub json: Value,
    pub tensors: HashMap<String, Tensor>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let json = golden().join(format!("{name}.json"));
        let text = std::fs::read_to_string(&json).unwrap_or_else(|e| panic!("{}: {e}", json.display()));
        let tensors = golden().join(format!("{name}.safetensors"));
        let tensors = if tensors.exists() { Tensor::read_safetensors(tensors).unwrap() } else { Vec::new() };
        Self { json: serde_json::from_str(&text).unwrap(), tensors: tensors.into_iter().collect() }
    }

    pub fn tensor(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("no tensor {name}"))
    }

    pub fn value(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or_else(|| panic!("no value {pointer}"))
    }

    pub fn int(&self, pointer: &str) -> i64 {
        self.value(pointer).as_i64().unwrap_or_else(|| panic!("{pointer} is no integer"))
    }

    pub fn float(&self, pointer: &str) -> f64 {
        self.value(pointer).as_f64().unwrap_or_else(|| panic!("{pointer} is no number"))
    }

    pub fn bool(&self, pointer: &str) -> bool {
        self.value(pointer).as_bool().unwrap_or_else(|| panic!("{pointer} is neither true nor false"))
    }

    pub fn names(&self, pointer: &str) -> Vec<String> {
        let mut names: Vec<String> = serde_json::from_value(self.value(pointer).clone()).unwrap();
        names.sort();
        names
    }

    /// The tensors whose name starts with `prefix`, by the rest of their name.
    pub fn group(&self, prefix: &str) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().filter_map(move |(name, tensor)| Some((name.strip_prefix(prefix)?, tensor)))
    }

    /// Loads `state.*` into a model; every tensor of one must be in the other.
    pub fn load_into(&self, store: &VarStore) {
        let report = load_state(store, self.group("state.")).unwrap();
        assert!(report.is_complete() && report.unexpected.is_empty() && report.resized.is_empty(), "{report}");
    }
}

pub fn check(name: &str, got: &Tensor, expected: &Tensor, (relative, absolute): Tolerance) {
    assert_eq!(got.size(), expected.size(), "shape of {name}");
    let (got, expected) = (got.detach().to_kind(Kind::Double), expected.to_kind(Kind::Double));
    let difference = (&got - &expected).abs();
    let excess = (&difference - expected.abs() * relative - absolute).max().double_value(&[]);
    // Written so that NaN fails too.
    assert!(
        excess <= 0.0,
        "{name}: largest difference {:.3e}, {excess:.3e} more than allowed",
        difference.max().double_value(&[]),
    );
}

pub fn check_number(name: &str, got: f64, expected: f64, tolerance: Tolerance) {
    check(name, &Tensor::from(got), &Tensor::from(expected), tolerance);
}

/// For values computed in double precision on both sides.
pub const DOUBLE: Tolerance = (1e-12, 1e-12);
