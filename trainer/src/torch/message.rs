//! Failures as one line. Models call torch in its panicking form, and torch's messages contain a C++ backtrace; this module
//! reduces them to the message, and a remedy where there is one.

/// The message of an error, as one line where torch's message has a backtrace. The error may be that of a caught panic.
pub fn of_error(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    if ["out of memory", "can't allocate memory", "not enough memory"].iter().any(|words| text.contains(words)) {
        return OUT_OF_MEMORY.to_owned();
    }
    if let Some((_, message)) = text.split_once("Torch(\"") {
        return format!("torch: {}", message.split("\\n").next().unwrap_or_default());
    }
    // Torch appends the location in its source.
    text.split("\nException raised from").next().unwrap_or_default().trim_end().to_owned()
}

const OUT_OF_MEMORY: &str = "not enough memory for this model and batch: lower --batch-size (raise optimizer.accumulation to \
                             keep the effective batch) or prediction.batch_size, or use a smaller preset";

#[cfg(test)]
mod tests {
    use dataset::commands::cli::caught;

    use super::*;

    fn message(body: impl FnOnce()) -> String {
        let work = || {
            body();
            Ok(())
        };
        of_error(&caught(work).unwrap_err())
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
        let bug = message(|| panic!("no such index"));
        assert!(bug.starts_with("internal error (a bug in mrm) at ") && bug.contains("no such index"), "{bug}");
    }

    #[test]
    fn a_library_out_of_memory_is_no_bug() {
        let zstd = message(|| panic!("zstd returned null pointer when creating new context"));
        assert!(zstd.starts_with("not enough memory"), "{zstd}");
    }
}
