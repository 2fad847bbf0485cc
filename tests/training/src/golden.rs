//! Golden numbers of reference implementations, and how near ours must be.
//!
//! | variable | chooses |
//! | --- | --- |
//! | `MRM_TEST_DEVICE` | the device of models and tensors: `cpu` (default), `cuda:N` |
//! | `MRM_TEST_PRECISION` | the precision of forward passes whose outputs and gradients are compared: `fp32` (default), `bf16`. Training steps are always float32 |
//! | `MRM_TEST_TOLERANCE` | a factor on the tolerances of float32 (default 1), for a device that sums in another order |

use helpers::golden;
use std::collections::HashMap;
use std::env;

use serde_json::Value;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use trainer::train::amp::Precision;
use trainer::weights::load_state;

/// Relative and absolute tolerance.
pub type Tolerance = (f64, f64);

/// Norm of the difference, relative to the norm of the expected tensor, that outputs may have in bfloat16, whose roundings are
/// up to 0.4%. Measured on a CPU: up to 0.7%.
const REDUCED_OUTPUTS: f64 = 0.02;
/// The same for gradients. Measured on a CPU: up to 1.9%.
pub const REDUCED_GRADIENTS: f64 = 0.05;
/// Norm of the difference of a gradient, relative to the norm of all gradients: for those that are mostly rounding.
const REDUCED_ROUNDING: f64 = 2e-3;

/// The value of a variable, if it is set.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The device of `MRM_TEST_DEVICE`.
pub fn device() -> Device {
    trainer::commands::device(variable("MRM_TEST_DEVICE").as_deref().unwrap_or("cpu")).expect("MRM_TEST_DEVICE")
}

/// The precision of `MRM_TEST_PRECISION`.
pub fn precision() -> Precision {
    match variable("MRM_TEST_PRECISION").as_deref() {
        None | Some("fp32") => Precision::Fp32,
        Some("bf16") => Precision::Bf16,
        Some(other) => panic!("MRM_TEST_PRECISION is {other}: give fp32 or bf16"),
    }
}

/// The factor of `MRM_TEST_TOLERANCE`.
fn factor() -> f64 {
    variable("MRM_TEST_TOLERANCE").map_or(1.0, |value| value.parse().expect("MRM_TEST_TOLERANCE is a number"))
}

/// Runs a forward pass in the precision of the tests.
pub fn computed<T>(forward: impl FnOnce() -> T) -> T {
    precision().run(device(), forward).expect("autocast")
}

pub const FORWARD: Tolerance = (1e-4, 1e-5);
/// Position tables.
pub const TABLES: Tolerance = (1e-5, 1e-6);
pub const GRADIENTS: Tolerance = (1e-3, 1e-6);

/// The numbers of one file: its json, and its tensors, on the device of the tests, if it has any.
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
        let device = device();
        let tensors = tensors.into_iter().map(|(name, tensor)| (name, tensor.to_device(device))).collect();
        Self { json: serde_json::from_str(&text).unwrap(), tensors }
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

/// Both as doubles on the CPU; they must have one shape.
fn doubles(name: &str, got: &Tensor, expected: &Tensor) -> (Tensor, Tensor) {
    assert_eq!(got.size(), expected.size(), "shape of {name}");
    let double = |x: &Tensor| x.detach().to_device(Device::Cpu).to_kind(Kind::Double);
    (double(got), double(expected))
}

pub fn check(name: &str, got: &Tensor, expected: &Tensor, (relative, absolute): Tolerance) {
    let (got, expected) = doubles(name, got, expected);
    let (relative, absolute) = (relative * factor(), absolute * factor());
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

/// Checks an output of [`computed`]: in float32 as [`check`], in less by the norm of the difference.
pub fn check_output(name: &str, got: &Tensor, expected: &Tensor, tolerance: Tolerance) {
    if precision() == Precision::Fp32 {
        return check(name, got, expected, tolerance);
    }
    let (got, expected) = doubles(name, got, expected);
    check_norm(name, &got, &expected, REDUCED_OUTPUTS * norm(&expected));
}

/// Checks the gradients of a loss of [`computed`], by name: in float32 as [`check`], in less by the norm of the difference, which
/// may be `reduced` of the expected gradient's.
pub fn check_gradients(gradients: &[(&str, Tensor, &Tensor)], tolerance: Tolerance, reduced: f64) {
    let all: f64 = gradients.iter().map(|(_, _, expected)| norm(expected).powi(2)).sum::<f64>().sqrt();
    for (name, got, expected) in gradients {
        if precision() == Precision::Fp32 {
            check(name, got, expected, tolerance);
            continue;
        }
        let (got, expected) = doubles(name, got, expected);
        check_norm(name, &got, &expected, reduced * norm(&expected) + REDUCED_ROUNDING * all);
    }
}

fn norm(x: &Tensor) -> f64 {
    x.to_kind(Kind::Double).norm().double_value(&[])
}

fn check_norm(name: &str, got: &Tensor, expected: &Tensor, allowed: f64) {
    let difference = norm(&(got - expected));
    // Written so that NaN fails too.
    assert!(difference <= allowed, "{name}: norm of the difference {difference:.3e}, allowed {allowed:.3e}");
}

/// For values computed in double precision on both sides.
pub const DOUBLE: Tolerance = (1e-12, 1e-12);
