//! Floating-point operations of a training step, from which `bench` computes the utilization of a device.

use super::{MrmConfig, ReportLoss};

/// Operations of one multiply-add.
const MULTIPLY_ADD: f64 = 2.0;
/// Forward and backward pass together: the backward pass has two products for each of the forward pass.
const WITH_BACKWARD: f64 = 3.0;

/// Multiply-adds of `num_layers` transformer layers over `tokens` tokens of `embed_dim`, with an MLP of `mlp_dim` values:
/// projections, MLP, and both products of attention.
fn transformer(num_layers: i64, tokens: f64, embed_dim: i64, mlp_dim: f64) -> f64 {
    let embed_dim = embed_dim as f64;
    let weights = 4.0 * embed_dim * embed_dim + 2.0 * embed_dim * mlp_dim;
    num_layers as f64 * (tokens * weights + 2.0 * tokens * tokens * embed_dim)
}

impl MrmConfig {
    /// Operations of the matrix products of training for one record, forward and backward, with reports of `tokens` tokens,
    /// of which `masked` are masked. Norms, activations and the resize are not counted, as usual. The input counts as one
    /// channel, since the channels of a radiograph are equal; the image decoder's output counts for masked patches only.
    pub fn training_flops(&self, tokens: i64, masked: f64) -> f64 {
        let (vit, decoder, bert) = (&self.vit, &self.decoder, &self.bert);
        let visible = self.visible_patches() as f64;
        let mut products = visible * (vit.patch_size * vit.patch_size * vit.embed_dim) as f64;
        products += transformer(vit.num_layers, visible + 1.0, vit.embed_dim, vit.embed_dim as f64 * vit.mlp_ratio);
        if self.reconstructs_image() {
            let patches = vit.patches() as f64;
            let values = (self.target_patch() * self.target_patch() * vit.in_channels) as f64;
            products += (visible + 1.0) * (vit.embed_dim * decoder.embed_dim) as f64;
            products += transformer(
                decoder.num_layers,
                patches + 1.0,
                decoder.embed_dim,
                decoder.embed_dim as f64 * decoder.mlp_ratio,
            );
            products += (patches - visible) * decoder.embed_dim as f64 * values;
        }
        if self.reconstructs_report() {
            let length = tokens as f64;
            let predicted = if self.report_loss == ReportLoss::All { length } else { masked };
            products += (vit.embed_dim * bert.embed_dim) as f64;
            products += transformer(bert.num_layers, length, bert.embed_dim, bert.intermediate as f64);
            products += predicted * bert.embed_dim as f64 * (bert.embed_dim + bert.vocab_size) as f64;
        }
        products * MULTIPLY_ADD * WITH_BACKWARD
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mrm::Reconstruct;

    #[test]
    fn the_papers_model_needs_what_a_count_by_hand_says() {
        let config = MrmConfig { reconstruct: Reconstruct::ImageOnly, ..MrmConfig::default() };
        // Encoder: 50 tokens; each of 12 blocks has 12 * 768^2 products per token, and attention.
        let encoder = 12.0 * (50.0 * 12.0 * 768.0 * 768.0 + 2.0 * 2500.0 * 768.0) + 49.0 * 256.0 * 768.0;
        let decoder = 4.0 * (197.0 * 12.0 * 768.0 * 768.0 + 2.0 * 197.0 * 197.0 * 768.0)
            + 50.0 * 768.0 * 768.0
            + 147.0 * 768.0 * 3072.0;
        assert_eq!(config.training_flops(100, 35.0), 6.0 * (encoder + decoder));
        let both = MrmConfig::default().training_flops(100, 35.0);
        assert!(both > config.training_flops(100, 35.0) * 1.2, "{both}");
        assert!((6e10..1.2e11).contains(&both), "{both}");
    }
}
