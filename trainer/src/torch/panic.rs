//! Failures in one line. Models call torch in its panicking form, and torch's messages carry a C++ backtrace: here they
//! become what a user can act on.

use std::any::Any;
use std::sync::Mutex;

/// Where the last panic happened.
static PLACE: Mutex<Option<String>> = Mutex::new(None);

/// Lets panics be told by [`of_panic`] alone.
pub fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut place) = PLACE.lock() {
            *place = info.location().map(ToString::to_string);
        }
    }));
}

/// The line for an error.
pub fn of_error(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if is_out_of_memory(&text) {
        return OUT_OF_MEMORY.to_owned();
    }
    // After torch's own line stands where in its source that was.
    text.split("\nException raised from").next().unwrap_or_default().trim_end().to_owned()
}

/// The line for a panic.
pub fn of_panic(panic: &(dyn Any + Send)) -> String {
    // `catch_unwind` hands over a box; its content is the message.
    let panic = panic.downcast_ref::<Box<dyn Any + Send>>().map_or(panic, AsRef::as_ref);
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without a message");
    if is_out_of_memory(text) {
        return OUT_OF_MEMORY.to_owned();
    }
    let first = text.replace("\\n", "\n");
    let first = first.lines().next().unwrap_or_default();
    if let Some((_, message)) = first.split_once("Torch(\"") {
        return format!("torch: {message}");
    }
    let place = PLACE.lock().ok().and_then(|place| place.clone()).unwrap_or_default();
    format!("a bug in the trainer: {first} ({place})")
}

const OUT_OF_MEMORY: &str = "not enough memory for this model and batch: lower --batch-size (optimizer.accumulation keeps \
                             the effective batch) or prediction.batch_size, or take a smaller preset";

fn is_out_of_memory(text: &str) -> bool {
    ["out of memory", "can't allocate memory", "not enough memory"].iter().any(|words| text.contains(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: impl FnOnce() + std::panic::UnwindSafe) -> String {
        of_panic(std::panic::catch_unwind(body).unwrap_err().as_ref())
    }

    #[test]
    fn a_panic_of_torch_is_one_line() {
        let shapes = message(|| {
            let x = tch::Tensor::from_slice(&[1.0_f32, 2.0]);
            let _ = x.matmul(&tch::Tensor::from_slice(&[1.0_f32, 2.0, 3.0]));
        });
        assert!(shapes.starts_with("torch: ") && !shapes.contains('\n'), "{shapes}");
        let memory = message(|| drop(tch::Tensor::zeros([1 << 50], tch::kind::FLOAT_CPU)));
        assert!(memory.starts_with("not enough memory"), "{memory}");
    }

    #[test]
    fn other_panics_are_bugs() {
        assert!(message(|| panic!("no such index")).starts_with("a bug in the trainer: no such index"));
    }
}
