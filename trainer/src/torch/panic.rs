//! Failures as one line. Models call torch in its panicking form, and torch's messages contain a C++ backtrace; this module
//! reduces them to the message, and a remedy where there is one.

use std::any::Any;
use std::sync::Mutex;

/// Source location of the last panic.
static LOCATION: Mutex<Option<String>> = Mutex::new(None);

/// Installs a panic hook that prints nothing; [`of_panic`] reports the panic.
pub fn install_hook() {
    std::panic::set_hook(Box::new(|info| {
        if let Ok(mut location) = LOCATION.lock() {
            *location = info.location().map(ToString::to_string);
        }
    }));
}

/// The message of an error, as one line where torch's message has a backtrace.
pub fn of_error(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if is_out_of_memory(&text) {
        return OUT_OF_MEMORY.to_owned();
    }
    // Torch appends the location in its source.
    text.split("\nException raised from").next().unwrap_or_default().trim_end().to_owned()
}

/// The message of a panic, as one line.
pub fn of_panic(panic: &(dyn Any + Send)) -> String {
    // `catch_unwind` returns a box that contains the message.
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
    let location = LOCATION.lock().ok().and_then(|location| location.clone()).unwrap_or_default();
    format!("internal error (a bug in mrm): {first} ({location})")
}

const OUT_OF_MEMORY: &str = "not enough memory for this model and batch: lower --batch-size (raise optimizer.accumulation to \
                             keep the effective batch) or prediction.batch_size, or use a smaller preset";

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
        assert!(message(|| panic!("no such index")).starts_with("internal error (a bug in mrm): no such index"));
    }
}
