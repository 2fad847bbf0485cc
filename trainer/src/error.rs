//! Errors of models: an impossible configuration, a tensor of the wrong shape, or an error of torch.

/// An error of a model, its weights or its optimizer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// A configuration value that no model can have.
    #[error("{key}: {problem}")]
    Config {
        /// The configuration key, as in the file.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// A tensor of another shape than expected.
    #[error("{tensor}: expected {expected}, got {got:?}")]
    Shape {
        /// Name of the tensor.
        tensor: String,
        /// The expected shape, in words.
        expected: String,
        /// The actual shape.
        got: Vec<i64>,
    },
    /// A tensor that a saved state lacks.
    #[error("the saved state has no tensor `{name}`")]
    MissingState {
        /// Name of the missing tensor.
        name: String,
    },
    /// An error of libtorch.
    #[error(transparent)]
    Torch(#[from] tch::TchError),
    /// Another process of the job cannot be reached.
    #[error(transparent)]
    Collective(#[from] crate::torch::c10d::C10dError),
}

impl ModelError {
    /// A configuration error.
    pub(crate) fn config(key: &'static str, problem: impl Into<String>) -> Self {
        Self::Config { key, problem: problem.into() }
    }
}

/// An error unless `tensor` has exactly the dimensions `expected`, where a negative one means any size.
pub(crate) fn check_shape(name: &str, tensor: &tch::Tensor, expected: &[i64]) -> Result<(), ModelError> {
    let got = tensor.size();
    let fits = got.len() == expected.len() && got.iter().zip(expected).all(|(&g, &e)| e < 0 || g == e);
    if fits {
        return Ok(());
    }
    let sizes: Vec<String> = expected.iter().map(|&e| if e < 0 { "any".to_owned() } else { e.to_string() }).collect();
    Err(ModelError::Shape { tensor: name.to_owned(), expected: format!("[{}]", sizes.join(", ")), got })
}

/// An error unless `value` is at least one.
pub(crate) fn check_positive(key: &'static str, value: i64) -> Result<(), ModelError> {
    if value >= 1 { Ok(()) } else { Err(ModelError::config(key, format!("must be at least 1, is {value}"))) }
}

/// An error unless `value` is from 1 to `most`. The bounds are far above any model in use; they stop a wrong or hostile
/// configuration before memory is allocated for it.
pub(crate) fn check_size(key: &'static str, value: i64, most: i64) -> Result<(), ModelError> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    Err(ModelError::config(key, format!("must be from 1 to {most}, is {value}")))
}

/// Largest side of an image or patch in pixels.
pub(crate) const MAX_SIDE: i64 = 8192;
/// Largest length of a vector, number of channels or of classes.
pub(crate) const MAX_DIM: i64 = 65_536;
/// Largest number of blocks or layers.
pub(crate) const MAX_LAYERS: i64 = 1024;
/// Largest number of positions, of token ids, or of values between the layers of an MLP.
pub(crate) const MAX_POSITIONS: i64 = 1 << 24;
/// Largest number of values in a table of positions.
pub(crate) const MAX_TABLE: i64 = 1 << 28;

/// An error unless a table `[positions, embed_dim]` has at most [`MAX_TABLE`] values.
pub(crate) fn check_table(key: &'static str, positions: i64, embed_dim: i64) -> Result<(), ModelError> {
    if positions.saturating_mul(embed_dim) <= MAX_TABLE {
        return Ok(());
    }
    Err(ModelError::config(
        key,
        format!("{positions} positions of embed_dim {embed_dim} are more than {MAX_TABLE} values"),
    ))
}

/// An error unless `num_heads` divides `embed_dim`.
pub(crate) fn check_heads(key: &'static str, num_heads: i64, embed_dim: i64) -> Result<(), ModelError> {
    check_positive(key, num_heads)?;
    if embed_dim % num_heads == 0 {
        return Ok(());
    }
    Err(ModelError::config(key, format!("{num_heads} heads do not divide embed_dim {embed_dim}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn shape_errors_name_the_tensor_and_both_shapes() {
        let image = Tensor::zeros([2, 3, 8, 8], (Kind::Float, Device::Cpu));
        assert!(check_shape("image", &image, &[-1, 3, 8, 8]).is_ok());
        let message = check_shape("image", &image, &[-1, 3, 16, 16]).unwrap_err().to_string();
        assert_eq!(message, "image: expected [any, 3, 16, 16], got [2, 3, 8, 8]");
    }

    #[test]
    fn heads_must_divide_the_embedding() {
        assert!(check_heads("num_heads", 4, 48).is_ok());
        assert_eq!(
            check_heads("num_heads", 5, 48).unwrap_err().to_string(),
            "num_heads: 5 heads do not divide embed_dim 48"
        );
        assert!(check_heads("num_heads", 0, 48).is_err());
    }

    #[test]
    fn sizes_have_bounds_that_the_error_names() {
        assert!(check_size("num_layers", 12, MAX_LAYERS).is_ok());
        let message = check_size("num_layers", 1_000_000_000, MAX_LAYERS).unwrap_err().to_string();
        assert_eq!(message, "num_layers: must be from 1 to 1024, is 1000000000");
        assert!(check_table("image_size", 196, 768).is_ok());
        assert!(check_table("image_size", i64::MAX, 768).unwrap_err().to_string().starts_with("image_size: "));
    }
}
