//! The losses of student and teacher.
//!
//! Shapes: images `B`, crops `V`, prototypes `K`, masked patches `M`. Scores are cosines; all is float32.

use tch::{Kind, Tensor};

use super::head::unit;
use crate::error::ModelError;
use crate::train::distributed::ProcessGroup;

/// Added to distances and their logarithms' arguments (DINOv2's KoLeo).
const KOLEO_EPSILON: f64 = 1e-8;

/// `softmax((scores - center) / temperature)`: the teacher's distributions after centering (DINO). `[N, K]`, center `[1, K]`.
pub fn centered(scores: &Tensor, center: &Tensor, temperature: f64) -> Tensor {
    ((scores - center) / temperature).softmax(-1, Kind::Float)
}

/// The teacher's distributions by Sinkhorn–Knopp (SwAV, Caron et al. 2020; DINOv2): `exp(scores / temperature)`, scaled in turns so
/// that every prototype gets the same share of all samples of all processes, and every sample a distribution: `[N, K]`.
///
/// # Errors
/// When a process cannot be reached.
pub fn sinkhorn(
    scores: &Tensor,
    temperature: f64,
    iterations: u32,
    group: &ProcessGroup,
) -> Result<Tensor, ModelError> {
    let prototypes = scores.size()[1] as f64;
    let samples = Tensor::from(scores.size()[0] as f32).to_device(scores.device());
    group.sum(std::slice::from_ref(&samples))?;
    let mut q = (scores / temperature).exp(); // [N, K]
    for _ in 0..iterations {
        // Each prototype: its sum over the samples of all processes becomes 1/K.
        let sums = q.sum_dim_intlist([0_i64].as_slice(), true, Kind::Float);
        group.sum(std::slice::from_ref(&sums))?;
        q /= sums * prototypes;
        // Each sample: its sum over the prototypes becomes 1/N.
        let sums = q.sum_dim_intlist([1_i64].as_slice(), true, Kind::Float);
        q /= sums * &samples;
    }
    Ok(q * samples)
}

/// Cross-entropy between the teacher's distributions of global crops and the student's of all other crops of the same image:
/// the mean over images and pairs of crops.
///
/// `teacher` `[2, B, K]` are distributions, `global` `[2, B, K]` and `local` `[V, B, K]` the student's scores of the same global
/// and of the local crops.
pub fn crop_loss(teacher: &Tensor, global: &Tensor, local: Option<&Tensor>, temperature: f64) -> Tensor {
    let log = |scores: &Tensor| (scores / temperature).log_softmax(-1, Kind::Float);
    let others = log(global).flip([0]); // each teacher crop with the other global one
    let mut products = (teacher * others).sum(Kind::Float);
    let mut pairs = 2;
    if let Some(local) = local {
        // The same sum over V for both teacher crops: sums first, products once.
        let (teacher, sum) = (teacher.sum_dim_intlist([0_i64].as_slice(), false, Kind::Float), log(local));
        products += (teacher * sum.sum_dim_intlist([0_i64].as_slice(), false, Kind::Float)).sum(Kind::Float);
        pairs += 2 * local.size()[0];
    }
    -products / (pairs * teacher.size()[1]) as f64
}

/// Cross-entropy of masked patches: `teacher` `[M, K]` distributions, `student` `[M, K]` scores. `weights` `[M]` is 1 over the
/// number of masked patches of the same crop, so each crop with some counts alike; the sum is divided by `crops`, all of them
/// (DINOv2).
pub fn patch_loss(teacher: &Tensor, student: &Tensor, weights: &Tensor, crops: i64, temperature: f64) -> Tensor {
    let log = (student / temperature).log_softmax(-1, Kind::Float);
    let each = -(teacher * log).sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float); // [M]
    (each * weights).sum(Kind::Float) / crops as f64
}

/// Kozachenko–Leonenko regularizer (Sablayrolles et al. 2019; DINOv2): `-mean log ‖x - its nearest neighbor‖` over unit vectors,
/// which spreads them. `x` `[B, D]`; 0 for less than two vectors.
pub fn koleo(x: &Tensor) -> Tensor {
    let x = unit(&x.to_kind(Kind::Float));
    let count = x.size()[0];
    if count < 2 {
        return x.sum(Kind::Float) * 0.0;
    }
    let nearest = tch::no_grad(|| {
        let mut similar = x.matmul(&x.tr()).to_kind(Kind::Float); // [B, B]
        let _ = similar.fill_diagonal_(-2, false); // below every cosine
        similar.argmax(1, false) // [B]
    });
    let difference = &x - x.index_select(0, &nearest) + KOLEO_EPSILON;
    let distance = difference.square().sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float).sqrt();
    -(distance + KOLEO_EPSILON).log().mean(Kind::Float)
}

/// Mean entropy of distributions `[.., K]`: `ln K` where the teacher prefers no prototype.
pub fn entropy(p: &Tensor) -> Tensor {
    -(p * p.clamp_min(f64::from(f32::MIN_POSITIVE)).log())
        .sum_dim_intlist([-1_i64].as_slice(), false, Kind::Float)
        .mean(Kind::Float)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::distributed::tests::in_group;
    use tch::Device;

    fn random(size: &[i64]) -> Tensor {
        Tensor::randn(size, (Kind::Float, Device::Cpu))
    }

    fn rows(tensor: &Tensor) -> Vec<Vec<f64>> {
        Vec::<Vec<f64>>::try_from(tensor.to_kind(Kind::Double)).unwrap()
    }

    #[test]
    fn sinkhorn_gives_distributions_that_use_all_prototypes_alike() {
        tch::manual_seed(1);
        let q = sinkhorn(&random(&[12, 4]), 0.5, 50, &ProcessGroup::single()).unwrap();
        let close = |sums: Tensor, expected: f64| (sums - expected).abs().max().double_value(&[]) < 1e-4;
        assert!(close(q.sum_dim_intlist([1_i64].as_slice(), false, Kind::Float), 1.0));
        assert!(close(q.sum_dim_intlist([0_i64].as_slice(), false, Kind::Float), 3.0));
        assert_eq!(sinkhorn(&random(&[0, 4]), 0.5, 3, &ProcessGroup::single()).unwrap().size(), [0, 4]);
    }

    #[test]
    fn sinkhorn_of_several_processes_is_that_of_all_their_samples() {
        tch::manual_seed(3);
        let all = Vec::<f32>::try_from(random(&[7, 4]).view([-1])).unwrap();
        let of = |samples: &[f32], group: &ProcessGroup| {
            let q = sinkhorn(&Tensor::from_slice(samples).view([-1, 4]), 0.5, 3, group)?;
            Ok(Vec::<f32>::try_from(q.reshape([-1]))?)
        };
        let expected = of(&all, &ProcessGroup::single()).unwrap();
        // One process has no masked patches.
        let shares = [&all[..20], &[], &all[20..]];
        let found = in_group(3, |group| of(shares[group.rank()], group));
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [20, 0, 8]);
        assert!(found.concat().iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    }

    #[test]
    fn the_crop_loss_is_the_mean_over_all_pairs_of_different_crops() {
        tch::manual_seed(2);
        let (images, prototypes, locals, temperature) = (3, 5, 2, 0.1);
        let teacher = random(&[2, images, prototypes]).softmax(-1, Kind::Float);
        let (global, local) = (random(&[2, images, prototypes]), random(&[locals, images, prototypes]));
        let log = |scores: Tensor| rows(&(scores / temperature).log_softmax(-1, Kind::Float));
        let (mut sum, mut pairs) = (0.0, 0);
        for target in 0..2 {
            let p = rows(&teacher.get(target));
            let others = (0..2).filter(|crop| *crop != target).map(|crop| log(global.get(crop)));
            for q in others.chain((0..locals).map(|crop| log(local.get(crop)))) {
                pairs += 1;
                sum -= p.iter().flatten().zip(q.iter().flatten()).map(|(p, q)| p * q).sum::<f64>();
            }
        }
        let expected = sum / f64::from(pairs) / images as f64;
        let found = crop_loss(&teacher, &global, Some(&local), temperature).double_value(&[]);
        assert!((found - expected).abs() < 1e-5 * expected, "{found} {expected}");
        let alone = crop_loss(&teacher, &global, None, temperature).double_value(&[]);
        assert!(alone > 0.0 && (alone - found).abs() > 1e-4);
    }

    #[test]
    fn crops_with_many_and_few_hidden_patches_count_alike() {
        let teacher = Tensor::from_slice2(&[[1.0_f32, 0.0], [1.0, 0.0], [0.0, 1.0]]);
        let student = Tensor::from_slice2(&[[0.0_f32, 0.0], [1.0, 0.0], [0.0, 2.0]]);
        let weights = Tensor::from_slice(&[0.5_f32, 0.5, 1.0]);
        let cross = |right: f64, wrong: f64| (right.exp() + wrong.exp()).ln() - right;
        let expected = (0.5 * cross(0.0, 0.0) + 0.5 * cross(1.0, 0.0) + cross(2.0, 0.0)) / 4.0;
        let found = patch_loss(&teacher, &student, &weights, 4, 1.0).double_value(&[]);
        assert!((found - expected).abs() < 1e-6);
    }

    #[test]
    fn koleo_falls_as_vectors_spread() {
        let near = Tensor::from_slice2(&[[1.0_f32, 0.0], [1.0, 0.1], [1.0, 0.2]]);
        let far = Tensor::from_slice2(&[[1.0_f32, 0.0], [-1.0, 1.0], [-1.0, -1.0]]);
        let of = |x: &Tensor| koleo(x).double_value(&[]);
        assert!(of(&near) > of(&far));
        assert_eq!(of(&near.narrow(0, 0, 1)), 0.0);
        // Two opposite vectors are 2 apart.
        let opposite = Tensor::from_slice2(&[[3.0_f32, 0.0], [-5.0, 0.0]]);
        assert!((of(&opposite) + 2.0_f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn entropies_are_from_zero_to_that_of_the_uniform_distribution() {
        let uniform = Tensor::ones([3, 8], (Kind::Float, Device::Cpu)) / 8.0;
        assert!((entropy(&uniform).double_value(&[]) - 8.0_f64.ln()).abs() < 1e-6);
        let certain = Tensor::from_slice2(&[[1.0_f32, 0.0], [0.0, 1.0]]);
        assert_eq!(entropy(&certain).double_value(&[]), 0.0);
    }
}
