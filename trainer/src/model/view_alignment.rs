//! The alignment of the views of a study: their encoded patches shall say the same (MVMAE, Laguna et al. 2025).

use tch::{Kind, Tensor};

use crate::error::{ModelError, check_shape};
use crate::model::layers::unit_vectors;

/// The loss of pairs of views.
#[derive(Debug)]
pub struct ViewAlignment {
    /// The mean over the pairs, a scalar; 0 without a pair.
    pub total: Tensor,
    /// That of each pair, `[N]`.
    pub each: Tensor,
}

/// 1 − cosine of the angle between the mean patches of two views, of each pair: encoded tokens of images `[I, 1 + K, D]` (class
/// token, visible patches) and the images of each pair, `[N, 2]` (Int64).
///
/// # Errors
/// When a tensor has the wrong shape.
pub fn align_views(latent: &Tensor, pairs: &Tensor) -> Result<ViewAlignment, ModelError> {
    check_shape("latent", latent, &[-1, -1, -1])?;
    check_shape("pairs", pairs, &[-1, 2])?;
    let patches = latent.narrow(1, 1, latent.size()[1] - 1);
    let means = patches.mean_dim([1_i64].as_slice(), false, None); // [I, D]
    if pairs.size()[0] == 0 {
        // A sum over nothing has a gradient, which is zero.
        let none = means.narrow(0, 0, 0);
        return Ok(ViewAlignment { total: none.sum(Kind::Float), each: none.sum_dim_intlist(1, false, Kind::Float) });
    }
    let units = unit_vectors(&means);
    let [first, second] = [0, 1].map(|side| units.index_select(0, &pairs.select(1, side)));
    let each: Tensor = 1.0 - (first * second).sum_dim_intlist(1, false, Kind::Float); // [N]
    Ok(ViewAlignment { total: each.mean(Kind::Float), each })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn equal_views_are_at_0_and_opposite_ones_at_2() {
        tch::manual_seed(3);
        let one = Tensor::randn([1, 1 + 4, 8], (Kind::Float, Device::Cpu));
        let latent = Tensor::cat(&[&one, &(&one * 3.0), &-&one], 0).set_requires_grad(true);
        let pairs = Tensor::from_slice(&[0_i64, 1, 0, 2]).view([2, 2]);
        let loss = align_views(&latent, &pairs).unwrap();
        let each = Vec::<f32>::try_from(&loss.each).unwrap();
        assert!(each[0].abs() < 1e-6 && (each[1] - 2.0).abs() < 1e-6, "{each:?}");
        loss.total.backward();
        // The class tokens take no part.
        assert_eq!(latent.grad().select(1, 0).abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn without_a_pair_loss_and_gradient_are_zero() {
        let latent = Tensor::randn([2, 3, 4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let loss = align_views(&latent, &Tensor::zeros([0, 2], (Kind::Int64, Device::Cpu))).unwrap();
        assert_eq!((loss.total.double_value(&[]), loss.each.size()), (0.0, vec![0]));
        loss.total.backward();
        assert_eq!(latent.grad().abs().max().double_value(&[]), 0.0);
    }
}
