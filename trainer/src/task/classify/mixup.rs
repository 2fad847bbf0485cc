//! Mixup (Zhang et al. 2018): a record is trained on as a mixture with another record of its batch.

use anyhow::Result;
use tch::{Kind, Tensor};

use crate::task::objective::send;

/// Records of a batch as they are trained on.
pub(super) struct Records {
    /// Pixels, `[B, 1, S, S]`.
    pub images: Tensor,
    /// Targets, 0 to 1, `[B, C]`.
    pub targets: Tensor,
    /// 1 where a target counts, else 0: `[B, C]`.
    pub counts: Tensor,
}

impl Records {
    /// Each record mixed with a partner: with a share `λ` of its own, drawn from Beta(`alpha`, `alpha`) for each record, images
    /// and targets become `λ x + (1 - λ) x'`. A target counts where those of both records do, since nothing is known of a
    /// mixture with an unknown label.
    ///
    /// # Errors
    /// When torch fails.
    pub fn mixed(&self, alpha: f64) -> Result<Self> {
        let (shares, partners) = draw(alpha, self.images.size()[0])?;
        self.mixed_with(&shares, &partners)
    }

    /// Each record mixed with a partner, by shares of its own `[B]` (float32) and positions of the partners `[B]` (Int64).
    fn mixed_with(&self, shares: &Tensor, partners: &Tensor) -> Result<Self> {
        let device = self.images.device();
        let (shares, partners) = (send(shares, device), send(partners, device));
        let mix = |values: &Tensor, shape: &[i64]| -> Result<Tensor> {
            let own = shares.f_view(shape)?.to_kind(values.kind());
            Ok(values * &own + values.f_index_select(0, &partners)? * (1.0 - &own))
        };
        Ok(Self {
            images: mix(&self.images, &[-1, 1, 1, 1])?,
            targets: mix(&self.targets, &[-1, 1])?,
            counts: &self.counts * self.counts.f_index_select(0, &partners)?,
        })
    }
}

/// Shares from Beta(`alpha`, `alpha`), `[B]`, as ratios of two gamma variates, and a permutation of the records. Both come from
/// torch's generator of the CPU, which the training loop seeds for each step.
fn draw(alpha: f64, records: i64) -> Result<(Tensor, Tensor)> {
    let gamma = Tensor::f_full([2, records], alpha, (Kind::Double, tch::Device::Cpu))?.f_internal_standard_gamma()?;
    let (own, other) = (gamma.get(0), gamma.get(1));
    let shares = (&own / (&own + other)).to_kind(Kind::Float);
    Ok((shares, Tensor::f_randperm(records, (Kind::Int64, tch::Device::Cpu))?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn images_targets_and_counts_are_mixed_as_by_plain_loops() {
        tch::manual_seed(3);
        let images = Tensor::randn([3, 1, 2, 2], (Kind::Float, Device::Cpu));
        let targets = [[1.0_f32, 0.0], [0.0, 0.0], [1.0, 1.0]];
        let counts = [[1.0_f32, 1.0], [1.0, 0.0], [1.0, 1.0]];
        let tensor = |rows: [[f32; 2]; 3]| Tensor::from_slice(&rows.concat()).view([3, 2]);
        let records = Records { images, targets: tensor(targets), counts: tensor(counts) };
        let (shares, partners) = ([0.25_f32, 1.0, 0.6], [1_i64, 2, 0]);
        let mixed = records.mixed_with(&Tensor::from_slice(&shares), &Tensor::from_slice(&partners)).unwrap();
        for record in 0..3 {
            let (share, partner) = (shares[record], partners[record] as usize);
            for finding in 0..2 {
                let at = [record as i64, finding as i64];
                let target = share * targets[record][finding] + (1.0 - share) * targets[partner][finding];
                assert!((mixed.targets.double_value(&at) - f64::from(target)).abs() < 1e-6);
                let count = counts[record][finding] * counts[partner][finding];
                assert_eq!(mixed.counts.double_value(&at), f64::from(count), "{at:?}");
            }
            for pixel in 0..4 {
                let pixel_of = |record: usize| records.images.double_value(&[record as i64, 0, pixel / 2, pixel % 2]);
                let expected = f64::from(share) * pixel_of(record) + f64::from(1.0 - share) * pixel_of(partner);
                let found = mixed.images.double_value(&[record as i64, 0, pixel / 2, pixel % 2]);
                assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
            }
        }
    }

    #[test]
    fn shares_have_the_moments_of_the_beta_distribution_and_partners_are_a_permutation() {
        for alpha in [0.2_f64, 1.0, 4.0] {
            let (shares, partners) = draw(alpha, 40_000).unwrap();
            let (mean, variance) = (shares.mean(Kind::Double), shares.to_kind(Kind::Double).var(true));
            assert!((mean.double_value(&[]) - 0.5).abs() < 0.01, "{alpha}");
            // Of Beta(a, a): 1 / (4 (2a + 1)).
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((variance.double_value(&[]) / expected - 1.0).abs() < 0.03, "{alpha}: {variance:?} for {expected}");
            let (sorted, _) = partners.sort(0, false);
            assert_eq!(sorted, Tensor::arange(40_000, (Kind::Int64, Device::Cpu)));
        }
    }
}
