//! Safe functions over a small C++ shim (`shim.cpp`) for what tch does not bind: fused optimizers, operations on many tensors
//! at once, autocast on any device, events, the state of random generators, peak memory of a device, losses that need little
//! memory, CUDA graphs.

pub(crate) mod cuda_graph;
pub(crate) mod in_place_loss;

use std::ffi::{c_char, c_int, c_void};

use tch::{Device, Tensor};
use torch_sys::C_tensor;

use super::error_text;
use crate::error::ModelError;

type Tensors = *const *mut C_tensor;

unsafe extern "C" {
    fn mrm_fused_adamw(
        parameters: Tensors,
        gradients: Tensors,
        means: Tensors,
        squares: Tensors,
        steps: Tensors,
        count: usize,
        lr: f64,
        beta1: f64,
        beta2: f64,
        decay: f64,
        epsilon: f64,
        skip: *const C_tensor,
    ) -> *mut c_char;
    fn mrm_fused_sgd(
        parameters: Tensors,
        gradients: Tensors,
        momenta: Tensors,
        count: usize,
        lr: f64,
        momentum: f64,
        decay: f64,
        skip: *const C_tensor,
    ) -> *mut c_char;
    fn mrm_norm(tensors: Tensors, count: usize, norm: *mut C_tensor) -> *mut c_char;
    fn mrm_scale(tensors: Tensors, count: usize, factor: *const C_tensor) -> *mut c_char;
    fn mrm_lerp(tensors: Tensors, targets: Tensors, count: usize, weight: f64) -> *mut c_char;
    fn mrm_pin(tensor: *const C_tensor, pinned: *mut C_tensor) -> *mut c_char;
    fn mrm_copy(tensors: Tensors, sources: Tensors, count: usize) -> *mut c_char;
    fn mrm_add(tensors: Tensors, others: Tensors, count: usize) -> *mut c_char;
    fn mrm_set_data(variables: Tensors, values: Tensors, count: usize) -> *mut c_char;
    fn mrm_drop_gradients(tensors: Tensors, count: usize) -> *mut c_char;
    fn mrm_set_gradient(tensor: *const C_tensor, gradient: *const C_tensor) -> *mut c_char;
    fn mrm_autocast_begin(cuda: c_int, kind: c_int, was_enabled: *mut c_int, was_kind: *mut c_int) -> *mut c_char;
    fn mrm_autocast_end(cuda: c_int, was_enabled: c_int, was_kind: c_int) -> *mut c_char;
    fn mrm_keep_freed_memory();
    fn mrm_event_record(index: c_int, event: *mut *mut c_void) -> *mut c_char;
    fn mrm_event_wait(event: *mut c_void) -> *mut c_char;
    fn mrm_event_drop(event: *mut c_void);
    fn mrm_random_state(cuda: c_int, index: c_int, state: *mut C_tensor) -> *mut c_char;
    fn mrm_set_random_state(cuda: c_int, index: c_int, state: *const C_tensor) -> *mut c_char;
    fn mrm_peak_memory(index: c_int, reset: c_int, bytes: *mut i64) -> *mut c_char;
}

/// Turns the error text of a call into an error.
fn checked(error: *mut c_char) -> Result<(), ModelError> {
    error_text::take(error).map_or(Ok(()), |text| Err(ModelError::Torch(tch::TchError::Torch(text))))
}

/// Pointers to tensors. Some functions of the shim change the tensors, which torch allows through any handle.
fn pointers<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<*mut C_tensor> {
    tensors.into_iter().map(|tensor| tensor.as_ptr().cast_mut()).collect()
}

fn pointer(tensor: Option<&Tensor>) -> *const C_tensor {
    tensor.map_or(std::ptr::null(), Tensor::as_ptr)
}

/// The tensors of an AdamW step, all in the same order; `steps` are float scalars that count steps.
pub(crate) struct AdamTensors<'a> {
    pub parameters: Vec<&'a Tensor>,
    pub gradients: Vec<&'a Tensor>,
    pub means: Vec<&'a Tensor>,
    pub squares: Vec<&'a Tensor>,
    pub steps: Vec<&'a Tensor>,
}

/// The constants of an AdamW step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamConstants {
    pub lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub decay: f64,
    pub epsilon: f64,
}

/// One AdamW step of all parameters (torch's `_fused_adamw_`). If the float scalar `skip` is 1, nothing changes.
pub(crate) fn fused_adamw(
    tensors: &AdamTensors,
    constants: AdamConstants,
    skip: Option<&Tensor>,
) -> Result<(), ModelError> {
    let list = |tensors: &[&Tensor]| pointers(tensors.iter().copied());
    let (parameters, gradients, means) = (list(&tensors.parameters), list(&tensors.gradients), list(&tensors.means));
    let (squares, steps) = (list(&tensors.squares), list(&tensors.steps));
    let AdamConstants { lr, beta1, beta2, decay, epsilon } = constants;
    let _guard = tch::no_grad_guard();
    // SAFETY: the five lists have the same length, and their tensors live through the call.
    checked(unsafe {
        mrm_fused_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            means.as_ptr(),
            squares.as_ptr(),
            steps.as_ptr(),
            parameters.len(),
            lr,
            beta1,
            beta2,
            decay,
            epsilon,
            pointer(skip),
        )
    })
}

/// One step of stochastic gradient descent with momentum (torch's `_fused_sgd_`): parameter, gradient, momentum. If the float
/// scalar `skip` is 1, nothing changes.
pub(crate) fn fused_sgd(
    tensors: &[(&Tensor, &Tensor, &Tensor)],
    lr: f64,
    momentum: f64,
    decay: f64,
    skip: Option<&Tensor>,
) -> Result<(), ModelError> {
    let parameters = pointers(tensors.iter().map(|t| t.0));
    let gradients = pointers(tensors.iter().map(|t| t.1));
    let momenta = pointers(tensors.iter().map(|t| t.2));
    let _guard = tch::no_grad_guard();
    // SAFETY: the three lists have the same length, and their tensors live through the call.
    checked(unsafe {
        mrm_fused_sgd(
            parameters.as_ptr(),
            gradients.as_ptr(),
            momenta.as_ptr(),
            tensors.len(),
            lr,
            momentum,
            decay,
            pointer(skip),
        )
    })
}

/// The L2 norm of several tensors together, a float scalar on their device.
pub(crate) fn norm(tensors: &[Tensor]) -> Result<Tensor, ModelError> {
    let list = pointers(tensors);
    let mut norm = Tensor::new();
    let _guard = tch::no_grad_guard();
    // SAFETY: the tensors live through the call, and `norm` is a valid handle to write to.
    checked(unsafe { mrm_norm(list.as_ptr(), list.len(), norm.as_mut_ptr()) })?;
    Ok(norm)
}

/// A copy of a host tensor in pinned memory, which a CUDA device reads without the host waiting. tch's own call passes a
/// device, for which torch prints a warning each time.
pub(crate) fn pin(tensor: &Tensor) -> Result<Tensor, ModelError> {
    let mut pinned = Tensor::new();
    // SAFETY: the tensor lives through the call, and `pinned` is a valid handle to write to.
    checked(unsafe { mrm_pin(tensor.as_ptr(), pinned.as_mut_ptr()) })?;
    Ok(pinned)
}

/// Multiplies tensors, in place, by a scalar on their device.
pub(crate) fn scale(tensors: &[Tensor], factor: &Tensor) -> Result<(), ModelError> {
    let list = pointers(tensors);
    let _guard = tch::no_grad_guard();
    // SAFETY: the tensors and the scalar live through the call.
    checked(unsafe { mrm_scale(list.as_ptr(), list.len(), factor.as_ptr()) })
}

/// Interpolates tensors in place: `tensor += weight · (target - tensor)`, with targets of the same shapes.
pub(crate) fn lerp(tensors: &[Tensor], targets: &[Tensor], weight: f64) -> Result<(), ModelError> {
    assert_eq!(tensors.len(), targets.len(), "one target per tensor");
    let (list, targets) = (pointers(tensors), pointers(targets));
    let _guard = tch::no_grad_guard();
    // SAFETY: the two lists have the same length, and their tensors live through the call.
    checked(unsafe { mrm_lerp(list.as_ptr(), targets.as_ptr(), list.len(), weight) })
}

/// Copies `sources` to tensors of the same shapes, which may have another type.
pub(crate) fn copy(tensors: &[Tensor], sources: &[Tensor]) -> Result<(), ModelError> {
    assert_eq!(tensors.len(), sources.len(), "one source per tensor");
    if tensors.is_empty() {
        return Ok(());
    }
    let (list, sources) = (pointers(tensors), pointers(sources));
    let _guard = tch::no_grad_guard();
    // SAFETY: the two lists have the same length, and their tensors live through the call.
    checked(unsafe { mrm_copy(list.as_ptr(), sources.as_ptr(), list.len()) })
}

/// Adds `others` to tensors, in place.
pub(crate) fn add(tensors: &[Tensor], others: &[Tensor]) -> Result<(), ModelError> {
    assert_eq!(tensors.len(), others.len(), "one addend per tensor");
    if tensors.is_empty() {
        return Ok(());
    }
    let (list, others) = (pointers(tensors), pointers(others));
    let _guard = tch::no_grad_guard();
    // SAFETY: the two lists have the same length, and their tensors live through the call.
    checked(unsafe { mrm_add(list.as_ptr(), others.as_ptr(), list.len()) })
}

/// Gives variables the memory and the type of `values`, for all handles of each variable, and drops their gradients.
pub(crate) fn set_data(variables: &[Tensor], values: &[Tensor]) -> Result<(), ModelError> {
    assert_eq!(variables.len(), values.len(), "one value per variable");
    let (list, values) = (pointers(variables), pointers(values));
    // SAFETY: the two lists have the same length, and their tensors live through the call.
    checked(unsafe { mrm_set_data(list.as_ptr(), values.as_ptr(), list.len()) })
}

/// Drops the gradients: the next backward pass writes new ones instead of adding to them.
pub(crate) fn drop_gradients<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<(), ModelError> {
    let list = pointers(tensors);
    // SAFETY: the tensors live through the call.
    checked(unsafe { mrm_drop_gradients(list.as_ptr(), list.len()) })
}

/// Sets the gradient of a leaf tensor, which must have its shape.
pub(crate) fn set_gradient(tensor: &Tensor, gradient: &Tensor) -> Result<(), ModelError> {
    // SAFETY: both tensors live through the call.
    checked(unsafe { mrm_set_gradient(tensor.as_ptr(), gradient.as_ptr()) })
}

/// A 16-bit type for [`autocast`]; the values are those of torch's `ScalarType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduced {
    Half = 5,
    BFloat16 = 15,
}

/// Runs `body` with torch's autocast on a device: matrix products in that type, sums and norms in float32.
pub(crate) fn autocast<T>(device: Device, kind: Reduced, body: impl FnOnce() -> T) -> Result<T, ModelError> {
    /// Restores the previous autocast settings, also on a panic.
    struct Guard {
        cuda: c_int,
        was_enabled: c_int,
        was_kind: c_int,
    }
    impl Drop for Guard {
        fn drop(&mut self) {
            // SAFETY: the call takes numbers only.
            let _ = checked(unsafe { mrm_autocast_end(self.cuda, self.was_enabled, self.was_kind) });
        }
    }
    let mut guard = Guard { cuda: c_int::from(device.is_cuda()), was_enabled: 0, was_kind: 0 };
    let (was_enabled, was_kind) = (&raw mut guard.was_enabled, &raw mut guard.was_kind);
    // SAFETY: both pointers are valid for one write. After an error there is nothing to undo.
    if let Err(error) = checked(unsafe { mrm_autocast_begin(guard.cuda, kind as c_int, was_enabled, was_kind) }) {
        std::mem::forget(guard);
        return Err(error);
    }
    Ok(body())
}

/// Makes the allocator keep freed memory. On a CPU, torch allocates every activation again in each step; glibc would return
/// the large ones to the system each time, which then clears their pages: 8% of a pre-training step of ViT-B/16.
pub fn keep_freed_memory() {
    // SAFETY: the call sets options of glibc's allocator, which locks them.
    unsafe { mrm_keep_freed_memory() }
}

/// A device for the shim: whether it is a CUDA device, and its index.
fn device_numbers(device: Device) -> (c_int, c_int) {
    match device {
        Device::Cuda(index) => (1, index as c_int),
        _ => (0, 0),
    }
}

/// The state of the default random generator of the CPU or of a CUDA device, a tensor of bytes on the host.
pub(crate) fn random_state(device: Device) -> Result<Tensor, ModelError> {
    let (cuda, index) = device_numbers(device);
    let mut state = Tensor::new();
    // SAFETY: `state` is a valid handle to write to.
    checked(unsafe { mrm_random_state(cuda, index, state.as_mut_ptr()) })?;
    Ok(state)
}

/// Gives the default random generator a state that [`random_state`] has returned for this device.
pub(crate) fn set_random_state(device: Device, state: &Tensor) -> Result<(), ModelError> {
    let (cuda, index) = device_numbers(device);
    // SAFETY: the tensor lives through the call.
    checked(unsafe { mrm_set_random_state(cuda, index, state.as_ptr()) })
}

/// A point in the work queue of a CUDA device.
pub(crate) struct Event(*mut c_void);

impl Event {
    /// The point after all work that is queued so far.
    pub(crate) fn record(index: usize) -> Result<Self, ModelError> {
        let mut event = std::ptr::null_mut();
        // SAFETY: the pointer is valid for one write.
        checked(unsafe { mrm_event_record(index as c_int, &raw mut event) })?;
        Ok(Self(event))
    }

    /// Waits until the device has reached this point.
    pub(crate) fn wait(&self) -> Result<(), ModelError> {
        // SAFETY: the event lives as long as `self`.
        checked(unsafe { mrm_event_wait(self.0) })
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: `mrm_event_record` made the event, and it is dropped once.
        unsafe { mrm_event_drop(self.0) }
    }
}

/// Peak memory in bytes: of a CUDA device since the last reset, else of this process since its start. None if it cannot be
/// read. `reset` starts a new measurement on a CUDA device.
pub fn peak_memory(device: Device, reset: bool) -> Option<u64> {
    if let Device::Cuda(index) = device {
        let mut bytes = 0;
        // SAFETY: the pointer is valid for one write.
        checked(unsafe { mrm_peak_memory(index as c_int, c_int::from(reset), &raw mut bytes) }).ok()?;
        return Some(bytes as u64);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Kind;

    fn floats(values: &[f32]) -> Tensor {
        Tensor::from_slice(values)
    }

    #[test]
    fn many_tensors_at_once() {
        let tensors = [floats(&[3.0, 0.0]), floats(&[4.0])];
        assert_eq!(norm(&tensors).unwrap().double_value(&[]), 5.0);
        scale(&tensors, &Tensor::from(0.5_f32)).unwrap();
        assert_eq!(tensors[1].double_value(&[0]), 2.0);
        lerp(&tensors, &[floats(&[0.0, 1.0]), floats(&[4.0])], 0.5).unwrap();
        assert_eq!((tensors[0].double_value(&[1]), tensors[1].double_value(&[0])), (0.5, 3.0));
    }

    #[test]
    fn random_numbers_continue_from_a_state() {
        let draw = || Vec::<f32>::try_from(Tensor::rand([40], (Kind::Float, Device::Cpu))).unwrap();
        let state = random_state(Device::Cpu).unwrap();
        let (first, second) = (draw(), draw());
        set_random_state(Device::Cpu, &state).unwrap();
        assert_eq!(draw(), first);
        assert_ne!(first, second);
    }

    #[test]
    fn a_skipped_step_changes_nothing() {
        let (parameter, gradient) = (floats(&[1.0, 2.0]), floats(&[0.5, f32::NAN]));
        let zeros = || floats(&[0.0, 0.0]);
        let (mean, square, step) = (zeros(), zeros(), floats(&[0.0]).get(0));
        let tensors = AdamTensors {
            parameters: vec![&parameter],
            gradients: vec![&gradient],
            means: vec![&mean],
            squares: vec![&square],
            steps: vec![&step],
        };
        let constants = AdamConstants { lr: 0.1, beta1: 0.9, beta2: 0.95, decay: 0.0, epsilon: 1e-8 };
        fused_adamw(&tensors, constants, Some(&Tensor::from(1.0_f32))).unwrap();
        assert_eq!((parameter.double_value(&[1]), step.double_value(&[]), mean.double_value(&[0])), (2.0, 0.0, 0.0));
        fused_adamw(&tensors, constants, Some(&Tensor::from(0.0_f32))).unwrap();
        assert!((parameter.double_value(&[0]) - 0.9).abs() < 1e-6 && step.double_value(&[]) == 1.0);
    }

    #[test]
    fn autocast_multiplies_in_its_type_and_ends() {
        let x = Tensor::ones([4, 4], (Kind::Float, Device::Cpu));
        let inside = autocast(Device::Cpu, Reduced::BFloat16, || x.matmul(&x).kind()).unwrap();
        assert_eq!((inside, x.matmul(&x).kind()), (Kind::BFloat16, Kind::Float));
        let nested = || {
            let inner = autocast(Device::Cpu, Reduced::Half, || x.matmul(&x).kind()).unwrap();
            (inner, x.matmul(&x).kind())
        };
        let nested = autocast(Device::Cpu, Reduced::BFloat16, nested).unwrap();
        assert_eq!(nested, (Kind::Half, Kind::BFloat16));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            autocast(Device::Cpu, Reduced::BFloat16, || panic!("inside"))
        }));
        assert!(panicked.is_err());
        assert_eq!(x.matmul(&x).kind(), Kind::Float);
    }

    #[test]
    fn gradients_are_dropped_and_errors_have_a_message() {
        let x = floats(&[1.0]).set_requires_grad(true);
        (&x * 2.0).sum(Kind::Float).backward();
        assert!(x.grad().defined());
        drop_gradients([&x]).unwrap();
        assert!(!x.grad().defined());
        let message = norm(&[]).unwrap_err().to_string();
        assert!(message.to_lowercase().contains("tensor"), "{message}");
        assert!(peak_memory(Device::Cpu, false).unwrap() > 1 << 20);
    }
}
