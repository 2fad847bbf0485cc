//! `trainer import … --out FOLDER`: an encoder of DINOv2, CLIP or a plain ViT as a folder that serves where a run does, with its
//! weights, sizes and pixel statistics.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::store::files;
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};

use super::encoder_sizes::{Beside, Statistics, sizes};
use super::import::{Loaded, float32, load};
use crate::config::{ConfigFile, Encoder, IMPORTED, ImportedConfig, overlay};
use crate::model::encoder::VitEncoder;
use crate::train::checkpoint::MODEL;
use crate::train::run_dir::config_path;
use crate::weights::Tensors;
use crate::weights::foreign_vit::{Family, translate};
use crate::weights::hugging_face;
use crate::weights::load::{families, load_tensors, shortened, write};

/// Names of an encoder's tensors, or what they begin with.
const OF_ENCODER: [&str; 7] = ["cls_token", "pos_embed", "reg_token", "patch_embed.", "norm_pre.", "blocks.", "norm."];

/// The tensors of the patch projection.
const PROJECTION: [&str; 2] = ["patch_embed.proj.weight", "patch_embed.proj.bias"];

/// The result of an import.
#[derive(Debug)]
pub struct ImportedEncoder {
    /// The file, and its format.
    source: String,
    /// What was written beside the weights.
    pub config: ImportedConfig,
    /// Number of tensors that were written.
    pub count: usize,
    /// How many of them were converted to float32.
    pub converted: usize,
    /// Tensors that are not of the encoder.
    pub left_out: Vec<String>,
    /// What was assumed because no file says it, and what was changed.
    pub notes: Vec<String>,
    /// The folder that was written.
    pub out: PathBuf,
}

/// Writes the encoder of a checkpoint with its sizes. They follow from the tensors, from `config.json` and
/// `preprocessor_config.json` beside them, and from `settings` (`key=value`), the last of which count.
///
/// # Errors
/// When the checkpoint cannot be read, is not that of an encoder, or does not have the sizes; or when the folder is not empty.
/// Nothing is written then.
pub fn import_encoder(source: &Path, out: &Path, settings: &[String]) -> Result<ImportedEncoder> {
    if out.is_file() || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is there already; give another --out", out.display());
    }
    let Loaded { file, what, mut state } = load(source)?;
    let place = || file.display().to_string();
    let (family, mut tensors, left_out) = encoder_of(std::mem::take(&mut state.tensors)).with_context(place)?;
    let converted = float32(&mut tensors)?;
    let beside = Beside::of(&file)?;
    let mut read = sizes(family, &mut tensors, &beside).with_context(place)?;
    let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
    let statistics = read.statistics;
    let encoder = Encoder { vit: read.vit, mean: statistics.mean(), std: statistics.std() };
    let config = overlay(&ImportedConfig::new(&name, family.name(), encoder), None, settings)?;
    let chosen = settings.iter().any(|setting| setting.trim_start().starts_with("data."));
    if !chosen && !statistics.is_gray() {
        fold(&mut tensors, &statistics, config.data.mean, config.data.std)?;
        read.notes.push(format!(
            "the statistics of the channels differ ({statistics}): they are folded into the patch projection, so that a gray image \
             normalized with data.mean and data.std gives the same features"
        ));
    }
    check(&tensors, &config).with_context(place)?;
    publish(out, &tensors, &ConfigFile::of(IMPORTED, &config)?)?;
    let source = format!("{}: {what}", file.display());
    let (count, notes) = (tensors.len(), read.notes);
    Ok(ImportedEncoder { source, config, count, converted, left_out, notes, out: out.to_path_buf() })
}

/// The tensors of an encoder under our names, and the names of the others.
fn encoder_of(tensors: Tensors) -> Result<(Family, Tensors, Vec<String>)> {
    if let Some(family) = Family::of(tensors.iter().map(|(name, _)| name.as_str())) {
        let translated = translate(family, tensors)?;
        return Ok((family, translated.tensors, translated.left_out));
    }
    let is_theirs = hugging_face::is_hugging_face(tensors.iter().map(|(name, _)| name.as_str()));
    let tensors = if is_theirs { hugging_face::from_hugging_face(tensors)? } else { tensors };
    let is_encoder = |(name, _): &(String, Tensor)| OF_ENCODER.iter().any(|start| name.starts_with(start));
    let (mut kept, others): (Tensors, Tensors) = tensors.into_iter().partition(is_encoder);
    kept.sort_by(|a, b| a.0.cmp(&b.0));
    Ok((Family::Vit, kept, others.into_iter().map(|(name, _)| name).collect()))
}

/// Changes the patch projection from images normalized by channel to those that are normalized with one mean and standard
/// deviation: channel `c` had `(x - m_c) / s_c = (s · y + m - m_c) / s_c` for the new input `y`, so its weights are multiplied by
/// `s / s_c`, and the bias grows by their sum times `(m - m_c) / s_c`.
fn fold(tensors: &mut Tensors, statistics: &Statistics, mean: f64, std: f64) -> Result<()> {
    let at = |tensors: &Tensors, name: &str| {
        let position = tensors.iter().position(|(other, _)| other == name);
        position.with_context(|| format!("no tensor `{name}`"))
    };
    let [weight_at, bias_at] = [at(tensors, PROJECTION[0])?, at(tensors, PROJECTION[1])?];
    let weight = tensors[weight_at].1.f_to_kind(Kind::Double)?; // [D, C, p, p]
    let channels = weight.size()[1];
    let column = |value: &dyn Fn(usize) -> f64| -> Result<Tensor> {
        let values: Vec<f64> = (0..channels as usize).map(value).collect();
        Ok(Tensor::f_from_slice(&values)?.f_view([1, channels, 1, 1])?)
    };
    let Statistics { means, stds } = statistics;
    let shift = column(&|c| (mean - means[c]) / stds[c])?;
    let added = (&weight * shift).f_sum_dim_intlist([1_i64, 2, 3].as_slice(), false, Kind::Double)?;
    let scaled = &weight * column(&|c| std / stds[c])?;
    tensors[bias_at].1 = (tensors[bias_at].1.f_to_kind(Kind::Double)? + added).f_to_kind(Kind::Float)?;
    tensors[weight_at].1 = scaled.f_to_kind(Kind::Float)?;
    Ok(())
}

/// An error unless an encoder of the configuration gets all its variables.
fn check(tensors: &Tensors, config: &ImportedConfig) -> Result<()> {
    config.model.vit.validate()?;
    let store = VarStore::new(Device::Cpu);
    let _encoder = VitEncoder::new(&store.root(), &config.model.vit, 0.0);
    let report = load_tensors(&store, tensors)?;
    if report.is_complete() {
        return Ok(());
    }
    bail!("the tensors are not those of an encoder of these sizes; --set model.vit.KEY=VALUE corrects one\n{report}")
}

/// Writes the folder under a temporary name, then gives it its own.
fn publish(out: &Path, tensors: &Tensors, config: &ConfigFile) -> Result<()> {
    let temporary = files::temporary(out);
    let _ = fs::remove_dir_all(&temporary);
    let written = (|| -> Result<()> {
        files::make_folder(&temporary)?;
        write(tensors, &temporary.join(MODEL))?;
        files::write_atomic(&config_path(&temporary), config.text().as_bytes())?;
        files::sync_folder(&temporary)?;
        let _ = fs::remove_dir(out); // an empty one
        Ok(files::publish(&temporary, out)?)
    })();
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.with_context(|| format!("{} was not written", out.display()))
}

impl fmt::Display for ImportedEncoder {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let ImportedConfig { family, model, data, .. } = &self.config;
        let vit = &model.vit;
        write!(f, "{}; {} tensors of a {family} encoder", self.source, self.count)?;
        if self.converted > 0 {
            write!(f, ", {} made float32", self.converted)?;
        }
        write!(
            f,
            "\n{} layers of embed_dim {}, {} heads; patches of {} in images of {} pixels",
            vit.num_layers, vit.embed_dim, vit.num_heads, vit.patch_size, vit.image_size
        )?;
        if vit.register_tokens > 0 {
            write!(f, "; {} register tokens", vit.register_tokens)?;
        }
        write!(f, "; pixels of mean {} and standard deviation {}", data.mean, data.std)?;
        if !self.left_out.is_empty() {
            write!(f, "\nleft out: {} ({})", self.left_out.len(), shortened(&families(&self.left_out)))?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        write!(f, "\nwritten to {0}: give it to --init and --weights", self.out.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_statistics_give_the_same_projection_of_a_gray_image() {
        tch::manual_seed(3);
        let random = |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu));
        let (weight, bias) = (random(&[4, 3, 2, 2]), random(&[4]));
        let statistics = Statistics { means: vec![0.485, 0.456, 0.406], stds: vec![0.229, 0.224, 0.225] };
        let gray = Tensor::rand([2, 1, 6, 6], (Kind::Float, Device::Cpu));
        let channels = (0..3).map(|c| (&gray - statistics.means[c]) / statistics.stds[c]).collect::<Vec<_>>();
        let expected = Tensor::cat(&channels, 1).conv2d(&weight, Some(&bias), [2, 2], [0, 0], [1, 1], 1);
        let (mean, std) = (statistics.mean(), statistics.std());
        let mut tensors: Tensors =
            PROJECTION.iter().zip([weight, bias]).map(|(name, tensor)| ((*name).to_owned(), tensor)).collect();
        fold(&mut tensors, &statistics, mean, std).unwrap();
        let ours = ((gray - mean) / std).expand([2, 3, 6, 6], false);
        let found = ours.conv2d(&tensors[0].1, Some(&tensors[1].1), [2, 2], [0, 0], [1, 1], 1);
        assert!((found - expected).abs().max().double_value(&[]) < 1e-5);
    }
}
