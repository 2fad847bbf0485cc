//! Student and teacher as an objective.

use std::cell::{Cell, RefCell};

use anyhow::{Context, Result};
use dataset::Batch;
use dataset::random::{Stream, digest};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::schedules::Schedules;
use crate::config::{Centering, DinoConfig};
use crate::error::check_shape;
use crate::model::dino::DinoNetwork;
use crate::model::dino::block_masks::block_masks;
use crate::model::dino::loss::{centered, crop_loss, entropy, koleo, patch_loss, sinkhorn};
use crate::model::encoder::Hidden;
use crate::task::objective::{Evaluation, Loss, Objective, crops, images, send};
use crate::train::distributed::{Compute, ProcessGroup};

/// What the student's variables begin with. The teacher's have the usual names, so that other runs start from its encoder.
const STUDENT: &str = "student";

/// A student that learns from its teacher.
///
/// The teacher and the centers are variables without a gradient: checkpoints have them.
pub struct Distillation {
    store: VarStore,
    group: ProcessGroup,
    config: DinoConfig,
    schedules: Schedules,
    student: DinoNetwork,
    teacher: DinoNetwork,
    mask_token: Option<Tensor>, // [1, 1, D]
    /// Each variable of the teacher with the student's.
    pairs: Vec<(Tensor, Tensor)>,
    center: Option<Center>,
    patch_center: Option<Center>,
    /// The step that is being made.
    step: Cell<u64>,
}

/// The moving average of the teacher's scores, and their sum in this step.
struct Center {
    value: Tensor, // [1, K]
    /// Sum of the scores `[1, K]`, and how many they are `[1]`.
    sums: RefCell<[Tensor; 2]>,
}

impl Center {
    fn new(store: &VarStore, name: &str, prototypes: i64) -> Self {
        let zeros = || Tensor::zeros([1, prototypes], (Kind::Float, store.device()));
        let count = Tensor::zeros([1], (Kind::Float, store.device()));
        Self { value: store.root().add(name, zeros(), false), sums: RefCell::new([zeros(), count]) }
    }

    /// Forgets the scores of a step.
    fn clear(&self) {
        self.sums.borrow_mut().iter_mut().for_each(|sum| {
            let _ = sum.zero_();
        });
    }

    /// Adds scores `[N, K]` of this step.
    fn add(&self, scores: &Tensor) {
        let [sum, count] = &mut *self.sums.borrow_mut();
        *sum += scores.sum_dim_intlist([0_i64].as_slice(), true, Kind::Float);
        *count += scores.size()[0] as f64;
    }

    /// Moves the center to the mean of the step's scores of all processes, unless the step was skipped or had none.
    fn follow(&self, momentum: f64, skipped: &Tensor, group: &ProcessGroup) -> Result<()> {
        let sums = self.sums.borrow();
        group.sum(&*sums)?;
        let [sum, count] = &*sums;
        let moved = &self.value * momentum + sum / count.clamp_min(1.0) * (1.0 - momentum);
        let stays = skipped.gt(0.5).logical_or(&count.lt(0.5));
        self.value.shallow_clone().copy_(&self.value.where_self(&stays, &moved));
        Ok(())
    }
}

/// The crops of a batch of `B` images on the device.
pub struct Crops {
    /// The first global crops of all images, then the second ones: `[2·B, 1, S, S]`.
    pub global: Tensor,
    /// The local crops in the same order: `[V·B, 1, s, s]`.
    pub local: Option<Tensor>,
    /// What the student does not see of the global crops.
    pub masks: Option<PatchMasks>,
}

/// Masked patches of global crops.
pub struct PatchMasks {
    /// True where a patch is hidden, `[2·B, L]`, Bool.
    pub mask: Tensor,
    /// The positions of the masked patches in the flattened mask, `[M]`, Int64.
    pub positions: Tensor,
    /// 1 over the number of masked patches of the same crop, `[M]`.
    pub weights: Tensor,
}

impl PatchMasks {
    /// From flags of the patches of each crop.
    pub fn new(masks: &[Vec<bool>], device: Device) -> Self {
        let patches = masks.first().map_or(0, Vec::len);
        let (mut positions, mut weights) = (Vec::new(), Vec::new());
        for (crop, mask) in masks.iter().enumerate() {
            let hidden = mask.iter().filter(|&&hidden| hidden).count();
            for at in (0..patches).filter(|&at| mask[at]) {
                positions.push((crop * patches + at) as i64);
                weights.push(1.0 / hidden as f32);
            }
        }
        let flags: Vec<bool> = masks.concat();
        Self {
            mask: send(&Tensor::from_slice(&flags).view([masks.len() as i64, patches as i64]), device),
            positions: send(&Tensor::from_slice(&positions), device),
            weights: send(&Tensor::from_slice(&weights), device),
        }
    }
}

/// Scores of the teacher as distributions.
struct Targets {
    /// Of global crops, `[2, B, K]`.
    crops: Tensor,
    /// Of masked patches, `[M, K]`.
    patches: Option<Tensor>,
}

impl Distillation {
    /// Student and teacher, which begin alike, for a run of so many steps.
    ///
    /// # Errors
    /// When no model has this configuration.
    pub fn new(config: &DinoConfig, steps: u64, compute: &Compute) -> Result<Self> {
        config.model.validate()?;
        let store = VarStore::new(compute.device);
        let (root, model) = (store.root(), &config.model);
        let patches = config.loss.patch_weight > 0.0;
        let teacher = DinoNetwork::new(&root, model, 0.0, patches);
        let of_teacher = store.variables();
        for variable in of_teacher.values() {
            let _ = variable.set_requires_grad(false);
        }
        let path = root.sub(STUDENT);
        let student = DinoNetwork::new(&path, model, model.drop_path, patches);
        let mask_token = patches.then(|| path.zeros("mask_token", &[1, 1, model.vit.embed_dim]));
        let variables = store.variables();
        let mut names: Vec<&String> = of_teacher.keys().collect();
        names.sort();
        let pair = |name: &String| {
            let student = variables.get(&format!("{STUDENT}.{name}")).context("a variable of the teacher alone")?;
            Ok((of_teacher[name].shallow_clone(), student.shallow_clone()))
        };
        let pairs = names.into_iter().map(pair).collect::<Result<Vec<_>>>()?;
        let center = |name, has: bool| {
            (has && config.teacher.centering == Centering::Center)
                .then(|| Center::new(&store, name, model.head.prototypes))
        };
        let (center, patch_center) = (center("center", true), center("patch_center", patches));
        let (group, schedules) = (compute.group.clone(), Schedules::new(config, steps));
        let (config, step) = (config.clone(), Cell::new(0));
        let made =
            Self { store, group, config, schedules, student, teacher, mask_token, pairs, center, patch_center, step };
        made.student_from_teacher();
        Ok(made)
    }

    /// The schedules of the run.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// The loss of some crops.
    ///
    /// # Errors
    /// When the crops do not fit the model, or a process cannot be reached.
    pub fn loss_of(&self, crops: &Crops) -> Result<Loss> {
        let (loss, step) = (&self.config.loss, self.step.get());
        let (frozen, temperature) = (self.schedules.is_frozen(step), loss.student_temperature);
        let side = self.config.model.vit.image_size;
        check_shape("global crops", &crops.global, &[-1, 1, side, side])?;
        let (count, prototypes) = (crops.global.size()[0], self.config.model.head.prototypes);
        let targets = {
            let _guard = tch::no_grad_guard();
            self.targets(crops)?
        };

        let hidden = crops.masks.as_ref().zip(self.mask_token.as_ref());
        let hidden = hidden.map(|(masks, token)| Hidden { mask: &masks.mask, token });
        let tokens = self.student.tokens(&crops.global, hidden, true)?; // [2·B, 1 + R + L, D]
        let cls = tokens.select(1, 0); // [2·B, D]
        let mut all = vec![cls.shallow_clone()];
        if let Some(local) = &crops.local {
            all.push(self.student.tokens(local, None, true)?.select(1, 0));
        }
        let scores = self.student.scores(&Tensor::cat(&all, 0), frozen); // [(2 + V)·B, K]
        let scores = scores.view([-1, count / 2, prototypes]); // [2 + V, B, K]
        let (global, locals) = (scores.narrow(0, 0, 2), scores.size()[0] - 2);
        let local = (locals > 0).then(|| scores.narrow(0, 2, locals));

        let loss_cls = crop_loss(&targets.crops, &global, local.as_ref(), temperature);
        let mut total = &loss_cls * loss.cls_weight;
        let mut parts = vec![("loss_cls", loss_cls.detach())];
        if let (Some(masks), Some(teacher)) = (&crops.masks, &targets.patches) {
            let seen = self.student.patches(&tokens).index_select(0, &masks.positions); // [M, D]
            let student = self.student.patch_scores(&seen, frozen);
            let loss_patch = patch_loss(teacher, &student, &masks.weights, count, temperature);
            total += &loss_patch * loss.patch_weight;
            parts.push(("loss_patch", loss_patch.detach()));
        }
        if loss.koleo_weight > 0.0 {
            let [first, second] = [0, 1].map(|crop| koleo(&cls.narrow(0, crop * (count / 2), count / 2)));
            let loss_koleo = first + second;
            total += &loss_koleo * loss.koleo_weight;
            parts.push(("loss_koleo", loss_koleo.detach()));
        }
        let mean = targets.crops.mean_dim([0_i64, 1].as_slice(), false, Kind::Float); // [K]
        parts.push(("teacher_entropy", entropy(&targets.crops)));
        parts.push(("teacher_spread", entropy(&mean)));
        Ok(Loss { total, parts, by_record: Vec::new() })
    }

    /// The teacher's distributions.
    fn targets(&self, crops: &Crops) -> Result<Targets> {
        let tokens = self.teacher.tokens(&crops.global, None, false)?;
        let scores = self.teacher.scores(&tokens.select(1, 0), false); // [2·B, K]
        let whole = self.distributions(&scores, self.center.as_ref())?;
        let patches = match &crops.masks {
            Some(masks) if self.config.loss.patch_weight > 0.0 => {
                let hidden = self.teacher.patches(&tokens).index_select(0, &masks.positions); // [M, D]
                let scores = self.teacher.patch_scores(&hidden, false);
                Some(self.distributions(&scores, self.patch_center.as_ref())?)
            }
            _ => None,
        };
        let (count, prototypes) = (crops.global.size()[0], self.config.model.head.prototypes);
        Ok(Targets { crops: whole.view([2, count / 2, prototypes]), patches })
    }

    /// Distributions of scores `[N, K]`, which the center follows after the step.
    fn distributions(&self, scores: &Tensor, center: Option<&Center>) -> Result<Tensor> {
        let temperature = self.schedules.temperature(self.step.get());
        let Some(center) = center else {
            return Ok(sinkhorn(scores, temperature, self.config.teacher.sinkhorn_iterations, &self.group)?);
        };
        center.add(scores);
        Ok(centered(scores, &center.value, temperature))
    }

    /// The crops of a batch, with new masks.
    fn crops(&self, batch: &Batch) -> Result<Crops> {
        let device = self.store.device();
        let second = crops(batch, 0, device).context("the loader makes no second global crop")?;
        let global = Tensor::f_cat(&[images(batch, device), second], 0)?;
        let masks = (self.config.loss.patch_weight > 0.0).then(|| {
            // Drawn by torch's generator of the CPU, which is seeded for each step.
            let seed = Tensor::empty([1], (Kind::Int64, Device::Cpu)).random_from_(i64::MIN, None).int64_value(&[0]);
            let mut random = Stream::new(&[seed as u64, digest("block masks")]);
            let (crops, grid) = (2 * batch.len(), self.config.model.vit.grid() as usize);
            let loss = &self.config.loss;
            PatchMasks::new(&block_masks(crops, grid, loss.mask_probability, loss.mask_ratio, &mut random), device)
        });
        Ok(Crops { global, local: crops(batch, 1, device), masks })
    }

    fn student_from_teacher(&self) {
        let _guard = tch::no_grad_guard();
        self.pairs.iter().for_each(|(teacher, student)| student.shallow_clone().copy_(teacher));
    }

    fn centers(&self) -> impl Iterator<Item = &Center> {
        self.center.iter().chain(&self.patch_center)
    }
}

impl Objective for Distillation {
    fn store(&self) -> &VarStore {
        &self.store
    }

    /// Before the first step, the student becomes what the teacher was initialized with.
    fn before_step(&self, step: u64) -> Result<()> {
        self.step.set(step);
        self.centers().for_each(Center::clear);
        if step == 0 {
            self.student_from_teacher();
        }
        Ok(())
    }

    fn weight_decay(&self, step: u64) -> Option<f64> {
        Some(self.schedules.weight_decay(step))
    }

    fn loss(&self, batch: &Batch) -> Result<Loss> {
        self.loss_of(&self.crops(batch)?)
    }

    /// Teacher and centers follow.
    fn after_step(&self, step: u64, skipped: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        // A skipped step has the weight 0.
        let weight = (1.0 - skipped) * (1.0 - self.schedules.momentum(step));
        for (teacher, student) in &self.pairs {
            let _ = teacher.shallow_clone().f_lerp_tensor_(student, &weight)?;
        }
        let momentum = self.config.teacher.center_momentum;
        self.centers().try_for_each(|center| center.follow(momentum, skipped, &self.group))
    }

    fn evaluate(&self) -> Result<Option<Evaluation>> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::distributed::tests::in_group;

    #[test]
    fn a_center_follows_the_mean_of_the_scores_of_all_processes() {
        let shares: [&[f32]; 3] = [&[1.0, 2.0, 3.0, 4.0], &[], &[5.0, 9.0]];
        let of = |group: &ProcessGroup| {
            let store = VarStore::new(Device::Cpu);
            let center = Center::new(&store, "center", 2);
            // Scores; then a step that was skipped; then a step without masked patches.
            for (shares, skipped) in [(shares, 0.0_f32), (shares, 1.0), ([&[] as &[f32]; 3], 0.0)] {
                center.clear();
                center.add(&Tensor::from_slice(shares[group.rank()]).view([-1, 2]));
                center.follow(0.9, &Tensor::from(skipped), group)?;
            }
            Ok(Vec::<f32>::try_from(center.value.view([-1]))?)
        };
        for found in in_group(3, of) {
            // A tenth of the means 3 and 5.
            assert!((found[0] - 0.3).abs() < 1e-6 && (found[1] - 0.5).abs() < 1e-6, "{found:?}");
        }
    }
}
