//! Losses that write their gradient over the prediction, and make no float32 copy of it.
//!
//! Torch's cross-entropy of 16-bit logits keeps a log-softmax in float32, and its backward pass makes two more tensors of that
//! size: 12 bytes for each logit at the peak. Here, float32 values exist for one chunk of rows at a time, and the backward
//! pass replaces the logits, which the model no longer needs: 2 bytes for each logit. The same holds for the squared error.
//!
//! Nothing else may read a prediction after the backward pass, and a second backward pass is an error.

use std::ffi::c_char;

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::checked;
use crate::error::ModelError;

/// Values of a chunk on a CUDA device: large enough that few kernels are launched, 64 MiB in float32.
const CUDA_CHUNK: i64 = 1 << 24;

/// Values of a chunk on a CPU: small enough for its caches.
const CPU_CHUNK: i64 = 1 << 18;

unsafe extern "C" {
    fn mrm_cross_entropy(
        logits: *const C_tensor,
        labels: *const C_tensor,
        chunk: i64,
        loss: *mut C_tensor,
    ) -> *mut c_char;
    fn mrm_squared_error(
        predicted: *const C_tensor,
        target: *const C_tensor,
        chunk: i64,
        loss: *mut C_tensor,
    ) -> *mut c_char;
}

/// The sum of the cross-entropies of logits `[N, V]` of any float type, and labels `[N]` (Int64): a float32 scalar. A row with
/// the label -100 adds nothing to the sum, and its gradient is zero.
///
/// # Errors
/// When the shapes do not fit, or, on a CPU, a label is not from 0 to `V - 1`.
pub(crate) fn cross_entropy(logits: &Tensor, labels: &Tensor) -> Result<Tensor, ModelError> {
    cross_entropy_in_chunks(logits, labels, rows(logits))
}

/// The mean squared error of predictions `[N, V, C]` of any float type, and targets `[N, V]` (float32), which are the same for
/// all `C`: a float32 scalar.
///
/// # Errors
/// When the shapes do not fit.
pub(crate) fn mean_squared_error(predicted: &Tensor, target: &Tensor) -> Result<Tensor, ModelError> {
    squared_error_in_chunks(predicted, target, rows(predicted))
}

/// Rows of a chunk of a prediction `[N, ..]`.
fn rows(prediction: &Tensor) -> i64 {
    let values = if prediction.device() == Device::Cpu { CPU_CHUNK } else { CUDA_CHUNK };
    let row: i64 = prediction.size().iter().skip(1).product();
    (values / row.max(1)).max(1)
}

fn cross_entropy_in_chunks(logits: &Tensor, labels: &Tensor, rows: i64) -> Result<Tensor, ModelError> {
    let mut loss = Tensor::new();
    // SAFETY: the tensors live through the call, and `loss` is a valid handle to write to.
    checked(unsafe { mrm_cross_entropy(logits.as_ptr(), labels.as_ptr(), rows, loss.as_mut_ptr()) })?;
    Ok(loss)
}

fn squared_error_in_chunks(predicted: &Tensor, target: &Tensor, rows: i64) -> Result<Tensor, ModelError> {
    let mut loss = Tensor::new();
    // SAFETY: the tensors live through the call, and `loss` is a valid handle to write to.
    checked(unsafe { mrm_squared_error(predicted.as_ptr(), target.as_ptr(), rows, loss.as_mut_ptr()) })?;
    Ok(loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Kind, Reduction};

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!((a.size(), a.kind()), (b.size(), b.kind()));
        (a - b).abs().max().double_value(&[])
    }

    /// Loss, and gradients of hidden values, weight and bias of a linear layer that gives the logits, for a loss scale of 3.
    fn through_a_layer(kind: Kind, loss: impl Fn(&Tensor, &Tensor) -> Tensor) -> (f64, [Tensor; 3]) {
        tch::manual_seed(5);
        let leaf = |dims: &[i64]| Tensor::randn(dims, (Kind::Float, Device::Cpu)).to_kind(kind).set_requires_grad(true);
        let (hidden, weight, bias) = (leaf(&[11, 6]), leaf(&[40, 6]), leaf(&[40]));
        let labels = Tensor::randint(40, [11], (Kind::Int64, Device::Cpu));
        let sum = loss(&hidden.linear(&weight, Some(&bias)), &labels);
        (&sum * 3.0).backward();
        (sum.double_value(&[]), [hidden.grad(), weight.grad(), bias.grad()])
    }

    #[test]
    fn cross_entropy_and_gradients_are_those_of_torch() {
        let plain = |logits: &Tensor, labels: &Tensor| {
            logits.to_kind(Kind::Float).cross_entropy_loss::<Tensor>(labels, None, Reduction::Sum, -100, 0.0)
        };
        // Tolerance: float32 rounding of values up to about 100; for 16-bit types one rounding of the type.
        for (kind, tolerance) in [(Kind::Float, 1e-5), (Kind::BFloat16, 0.1), (Kind::Half, 0.02)] {
            let (expected, gradients) = through_a_layer(kind, plain);
            for rows in [1, 4, 11, 100] {
                let (loss, others) =
                    through_a_layer(kind, |logits, labels| cross_entropy_in_chunks(logits, labels, rows).unwrap());
                assert!((loss - expected).abs() < 1e-5 * expected, "{kind:?}: {loss} and {expected}");
                for (a, b) in others.iter().zip(&gradients) {
                    let difference = largest_difference(a, b);
                    assert!(difference <= tolerance, "{kind:?}, {rows} rows: {difference}");
                    assert!(b.abs().max().double_value(&[]) > 1.0);
                }
            }
        }
    }

    #[test]
    fn rows_without_a_label_add_nothing() {
        tch::manual_seed(7);
        let logits = Tensor::randn([4, 9], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let gradient = |rows: &[i64], labels: &[i64]| {
            let logits = logits.index_select(0, &Tensor::from_slice(rows));
            let loss = cross_entropy_in_chunks(&logits, &Tensor::from_slice(labels), 3).unwrap();
            (loss.double_value(&[]), Tensor::run_backward(&[&loss], &[&logits], false, false).remove(0))
        };
        let (loss, all) = gradient(&[0, 1, 2, 3], &[5, -100, 2, -100]);
        let (expected, labelled) = gradient(&[0, 2], &[5, 2]);
        assert!((loss - expected).abs() < 1e-6, "{loss} and {expected}");
        assert!(all.index_select(0, &Tensor::from_slice(&[0_i64, 2])).equal(&labelled));
        assert_eq!(all.index_select(0, &Tensor::from_slice(&[1_i64, 3])).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        let logits = Tensor::from_slice(&[1e4_f32, -1e4, 0.0, 88.0, 90.0, 89.0]).view([2, 3]).set_requires_grad(true);
        let labels = Tensor::from_slice(&[0_i64, 1]);
        let copy = logits * 1.0;
        let loss = cross_entropy(&copy, &labels).unwrap();
        assert!((loss.double_value(&[]) - 0.407_606).abs() < 1e-5, "{loss:?}");
        loss.backward();
        assert_eq!(copy.isfinite().all().int64_value(&[]), 1);
        assert!((copy.double_value(&[1, 1]) - (0.665_241 - 1.0)).abs() < 1e-5, "the gradient replaced the logits");
    }

    #[test]
    fn a_second_backward_pass_and_wrong_shapes_are_errors() {
        let logits = Tensor::ones([2, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let labels = Tensor::from_slice(&[0_i64, 2]);
        let loss = cross_entropy(&(&logits * 1.0), &labels).unwrap();
        let gradient = || Tensor::f_run_backward(&[&loss], &[&logits], true, false);
        assert!(gradient().is_ok());
        let message = gradient().unwrap_err().to_string();
        assert!(message.contains("modified by an inplace operation"), "{message}");
        assert!(cross_entropy(&logits.get(0), &labels).is_err());
        assert!(cross_entropy(&logits, &Tensor::from_slice(&[0_i64, 3])).is_err());
    }

    #[test]
    fn squared_error_and_gradients_are_those_of_torch() {
        tch::manual_seed(6);
        let random = |dims: &[i64]| Tensor::randn(dims, (Kind::Float, Device::Cpu));
        let (values, target) = (random(&[7, 5, 3]), random(&[7, 5]));
        // Tolerance: float32 rounding of values up to about 4; for bfloat16 one rounding of a gradient below 1.
        for (kind, tolerance) in [(Kind::Float, 1e-7), (Kind::BFloat16, 0.004)] {
            let run = |loss: &dyn Fn(&Tensor) -> Tensor| {
                let leaf = values.detach().to_kind(kind).set_requires_grad(true);
                let mean = loss(&(&leaf * 1.0));
                (&mean * 30.0).backward();
                (mean.double_value(&[]), leaf.grad())
            };
            let plain = |x: &Tensor| (x.to_kind(Kind::Float) - target.unsqueeze(-1)).square().mean(Kind::Float);
            let (expected, gradient) = run(&plain);
            assert!(gradient.abs().max().double_value(&[]) > 0.5);
            for rows in [1, 3, 7, 100] {
                let (mean, other) = run(&|x| squared_error_in_chunks(x, &target, rows).unwrap());
                assert!((mean - expected).abs() < 1e-6 * expected, "{kind:?}: {mean} and {expected}");
                let difference = largest_difference(&other, &gradient);
                assert!(difference <= tolerance, "{kind:?}, {rows} rows: {difference}");
            }
        }
        assert!(mean_squared_error(&values, &target.narrow(0, 0, 6)).is_err());
        assert!(mean_squared_error(&values, &target.to_kind(Kind::Double)).is_err());
    }

    #[test]
    fn no_rows_have_a_loss_of_zero() {
        let logits = Tensor::zeros([0, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let labels = Tensor::zeros([0], (Kind::Int64, Device::Cpu));
        let loss = cross_entropy(&(&logits * 1.0), &labels).unwrap();
        loss.backward();
        assert_eq!((loss.double_value(&[]), logits.grad().size()), (0.0, vec![0, 3]));
    }
}
