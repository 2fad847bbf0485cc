//! Images as sequences of patches, and back.
//!
//! There are two orders of a patch's values: (channel, row, column) for the patch projection, which is a convolution, and
//! (row, column, channel) for the targets of pre-training. For images of one channel they are the same.

use tch::Tensor;

/// Added to the variance of a target patch before the root (MAE, `norm_pix_loss`).
const VARIANCE_EPSILON: f64 = 1e-6;

/// Patches for a projection: image `[B, C, H, W]` → `[B, L, C·p·p]`, ordered (channel, row, column).
pub fn projection_patches(image: &Tensor, patch: i64) -> Tensor {
    cut(image, patch, [0, 2, 4, 1, 3, 5])
}

/// Target patches: image `[B, C, H, W]` → `[B, L, p·p·C]`, ordered (row, column, channel).
pub fn target_patches(image: &Tensor, patch: i64) -> Tensor {
    cut(image, patch, [0, 2, 4, 3, 5, 1])
}

/// Cuts an image `[B, C, H, W]` into patches `[B, L, C·p·p]`. `order` permutes (batch, channel, grid row, row, grid column,
/// column); its last three dimensions are the values of a patch.
fn cut(image: &Tensor, patch: i64, order: [i64; 6]) -> Tensor {
    let size = image.size();
    let (batch, channels, rows, columns) = (size[0], size[1], size[2] / patch, size[3] / patch);
    image.view([batch, channels, rows, patch, columns, patch]).permute(order).reshape([
        batch,
        rows * columns,
        channels * patch * patch,
    ])
}

/// Target patches back to an image: `[B, L, p·p·C]` of a square grid → `[B, C, H, W]`.
pub fn unpatchify(patches: &Tensor, patch: i64, channels: i64) -> Tensor {
    let size = patches.size();
    let (batch, grid) = (size[0], (size[1] as f64).sqrt().round() as i64);
    patches.view([batch, grid, grid, patch, patch, channels]).permute([0, 5, 1, 3, 2, 4]).reshape([
        batch,
        channels,
        grid * patch,
        grid * patch,
    ])
}

/// Mean and standard deviation of target patches `[.., p·p·C]`, each `[.., 1]`, with which pre-training normalizes a patch.
///
/// The standard deviation is √(variance + 1e-6) with the unbiased variance (MAE, `norm_pix_loss`). `repeats` is how often
/// the full target has each value: 3 for the patches of a one-channel image that is the target on three channels. The
/// unbiased variance depends on the number of values, so repeated values count.
pub fn patch_statistics(patches: &Tensor, repeats: i64) -> (Tensor, Tensor) {
    let values = (patches.size().last().copied().unwrap_or(1) * repeats) as f64;
    let mean = patches.mean_dim([-1_i64].as_slice(), true, None);
    let variance = patches.var_dim([-1_i64].as_slice(), false, true) * (values / (values - 1.0));
    (mean, (variance + VARIANCE_EPSILON).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// An image `[B, C, H, W]` whose values all differ.
    fn counted(size: [i64; 4]) -> Tensor {
        Tensor::arange(size.iter().product::<i64>(), (Kind::Float, Device::Cpu)).view(size)
    }

    fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
        assert_eq!(a.size(), b.size());
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn the_channel_is_slowest_for_a_projection_and_fastest_for_a_target() {
        let image = counted([1, 3, 4, 4]);
        let value = |channel, row, column| image.double_value(&[0, channel, row, column]);
        // Patch 2 is the lower left one; its pixel (0, 1) is pixel (2, 1) of the image.
        let projection = projection_patches(&image, 2).get(0).get(2);
        assert_eq!(projection.double_value(&[4 + 1]), value(1, 2, 1)); // 4 values a channel
        let target = target_patches(&image, 2).get(0).get(2);
        assert_eq!(target.double_value(&[3 + 1]), value(1, 2, 1)); // 3 values a pixel
    }

    #[test]
    fn unpatchify_inverts_target_patches() {
        let image = counted([2, 3, 8, 8]);
        assert_eq!(largest_difference(&unpatchify(&target_patches(&image, 4), 4, 3), &image), 0.0);
    }

    #[test]
    fn statistics_of_one_channel_equal_those_of_three_equal_channels() {
        let gray = counted([1, 1, 4, 4]).square();
        let repeated = target_patches(&gray.repeat([1, 3, 1, 1]), 2);
        let (mean, std) = patch_statistics(&target_patches(&gray, 2), 3);
        let (mean_of_three, std_of_three) = patch_statistics(&repeated, 1);
        assert!(largest_difference(&mean, &mean_of_three) < 1e-5);
        assert!(largest_difference(&std, &std_of_three) < 1e-4);
        // Torch computes the same.
        let expected = (repeated.var_dim([-1_i64].as_slice(), true, true) + 1e-6).sqrt();
        assert!(largest_difference(&std, &expected) < 1e-4);
    }
}
