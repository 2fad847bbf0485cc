//! The sizes of an encoder, from the shapes of its tensors and the JSON files beside them.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use dataset::store::files;
use serde_json::Value;
use tch::Tensor;

use crate::model::pos_embed::PosResize;
use crate::model::vit::{BlockConfig, MlpKind, Pooling, VitConfig};
use crate::weights::Tensors;
use crate::weights::foreign_vit::Family;

/// Length of the vectors of an attention head in DINOv2, CLIP and timm's models of these sizes.
const HEAD_DIM: i64 = 64;

/// Initial value of the factors of DINOv2's blocks, for a model that starts anew.
const LAYER_SCALE: f64 = 1e-5;

/// Mean and standard deviation of each channel, 0 to 1: ImageNet's, those of OpenAI's CLIP, and MIMIC-CXR's of MRM.
const IMAGENET: [[f64; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
const CLIP: [[f64; 3]; 2] = [[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]];
const MIMIC_CXR: [[f64; 3]; 2] = [[0.4978; 3], [0.2449; 3]];

/// Mean and standard deviation of each channel.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Statistics {
    /// Means, 0 to 1.
    pub means: Vec<f64>,
    /// Standard deviations, 0 to 1.
    pub stds: Vec<f64>,
}

impl Statistics {
    /// Whether all channels have the same.
    pub fn is_gray(&self) -> bool {
        [&self.means, &self.stds].into_iter().all(|values| values.iter().all(|value| value == &values[0]))
    }

    /// The mean over the channels.
    pub fn mean(&self) -> f64 {
        middle(&self.means)
    }

    /// The mean standard deviation of the channels.
    pub fn std(&self) -> f64 {
        middle(&self.stds)
    }
}

/// The mean of some values; the value itself where all are equal.
fn middle(values: &[f64]) -> f64 {
    if values.iter().all(|value| *value == values[0]) {
        return values[0];
    }
    values.iter().sum::<f64>() / values.len() as f64
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{:?}, {:?}", self.means, self.stds)
    }
}

/// The JSON files beside a checkpoint; null where there are none.
pub(super) struct Beside {
    /// `config.json`, or its `vision_config`.
    config: Value,
    /// `preprocessor_config.json`.
    preprocessor: Value,
}

impl Beside {
    /// Reads the files in the folder of a checkpoint.
    ///
    /// # Errors
    /// When one is there and is not JSON.
    pub fn of(checkpoint: &Path) -> Result<Self> {
        let folder = checkpoint.parent().unwrap_or_else(|| Path::new(""));
        let read = |name: &str| -> Result<Value> {
            let path = folder.join(name);
            if path.is_file() { Ok(files::read_json(&path)?) } else { Ok(Value::Null) }
        };
        let config = read("config.json")?;
        let config = config.get("vision_config").cloned().unwrap_or(config);
        Ok(Self { config, preprocessor: read("preprocessor_config.json")? })
    }

    /// The statistics of the preprocessing, for as many channels.
    fn statistics(&self, channels: usize) -> Option<Statistics> {
        let list = |key: &str| -> Option<Vec<f64>> {
            let values: Option<Vec<f64>> = self.preprocessor.get(key)?.as_array()?.iter().map(Value::as_f64).collect();
            values.filter(|values| values.len() == channels)
        };
        let (means, stds) = (list("image_mean")?, list("image_std")?);
        stds.iter().all(|std| *std > 0.0).then_some(Statistics { means, stds })
    }
}

/// What was read of an encoder.
pub(super) struct Read {
    /// Its sizes.
    pub vit: VitConfig,
    /// Statistics of its pixels.
    pub statistics: Statistics,
    /// What was assumed.
    pub notes: Vec<String>,
}

/// The sizes of the encoder that some tensors are, under our names. A position table without a row for the class token gets
/// one of zeros.
///
/// # Errors
/// When a tensor is missing, or its shape is that of no encoder.
pub(super) fn sizes(family: Family, tensors: &mut Tensors, beside: &Beside) -> Result<Read> {
    let mut notes = Vec::new();
    let patches = shape(tensors, "patch_embed.proj.weight")?;
    let &[embed_dim, in_channels, patch_size, other] = patches.as_slice() else {
        bail!("patch_embed.proj.weight is {patches:?}, not [embed_dim, channels, patch, patch]");
    };
    if patch_size != other || in_channels < 1 {
        bail!("patch_embed.proj.weight is {patches:?}: patches must be square");
    }
    let grid = grid_of(tensors)?;
    let block = |name: &str| name.strip_prefix("blocks.")?.split('.').next()?.parse::<i64>().ok();
    let num_layers = tensors.iter().filter_map(|(name, _)| block(name)).collect::<BTreeSet<i64>>().len() as i64;
    let number = |key: &str| beside.config.get(key).and_then(Value::as_i64);
    let num_heads = match number("num_attention_heads") {
        Some(heads) => heads,
        None if embed_dim % HEAD_DIM == 0 => {
            notes.push(format!("no config.json says the number of heads: {} of {HEAD_DIM} each", embed_dim / HEAD_DIM));
            embed_dim / HEAD_DIM
        }
        None => bail!("no config.json says the number of heads of embed_dim {embed_dim}: --set model.vit.num_heads=N"),
    };
    let has = |name: &str| tensors.iter().any(|(other, _)| other == name);
    let is_foreign = family != Family::Vit;
    let registers = if has("reg_token") { shape(tensors, "reg_token")?.get(1).copied().unwrap_or(0) } else { 0 };
    let (mlp, mlp_ratio) = mlp(family, tensors, beside, embed_dim, &mut notes)?;
    let vit = VitConfig {
        image_size: grid * patch_size,
        patch_size,
        embed_dim,
        num_layers,
        num_heads,
        mlp_ratio,
        in_channels,
        mlp,
        register_tokens: registers,
        layer_scale: if has("blocks.0.ls1.gamma") { LAYER_SCALE } else { 0.0 },
        norm_epsilon: beside.config.get("layer_norm_eps").and_then(Value::as_f64).unwrap_or(match family {
            Family::Clip | Family::OpenClip => 1e-5,
            Family::Dinov2 | Family::Dinov2Hub | Family::Vit => 1e-6,
        }),
        pre_norm: has("norm_pre.weight"),
        final_norm: is_foreign,
        pooling: if is_foreign { Pooling::Cls } else { Pooling::Mean },
        pos_resize: match family {
            Family::Dinov2 | Family::Dinov2Hub if registers > 0 => PosResize::Antialias,
            Family::Dinov2Hub => PosResize::Offset,
            _ => PosResize::Bicubic,
        },
    };
    let statistics = beside.statistics(in_channels as usize);
    let statistics = statistics.unwrap_or_else(|| {
        let ([means, stds], whose) = match family {
            Family::Dinov2 | Family::Dinov2Hub => (IMAGENET, "ImageNet's"),
            Family::Clip | Family::OpenClip => (CLIP, "those of OpenAI's CLIP"),
            Family::Vit => (MIMIC_CXR, "MRM's"),
        };
        notes.push(format!(
            "no preprocessor_config.json says mean and standard deviation of the pixels: {whose}; --set data.mean=M --set data.std=S \
             gives others"
        ));
        let of = |values: [f64; 3]| values.into_iter().cycle().take(in_channels as usize).collect();
        Statistics { means: of(means), stds: of(stds) }
    });
    Ok(Read { vit, statistics, notes })
}

/// Kind and ratio of the MLP of the first block.
fn mlp(
    family: Family,
    tensors: &Tensors,
    beside: &Beside,
    embed_dim: i64,
    notes: &mut Vec<String>,
) -> Result<(MlpKind, f64)> {
    let first = shape(tensors, "blocks.0.mlp.fc1.weight")?[0];
    let last = shape(tensors, "blocks.0.mlp.fc2.weight")?.get(1).copied().unwrap_or(0);
    if first == 2 * last {
        let fits = |ratio: &f64| {
            let block = BlockConfig { mlp: MlpKind::Swiglu, ..BlockConfig::plain(embed_dim, 1, *ratio) };
            block.mlp_dim() == last
        };
        let ratio = [4.0, last as f64 * 1.5 / embed_dim as f64].into_iter().find(fits);
        return Ok((MlpKind::Swiglu, ratio.with_context(|| format!("a SwiGLU of {last} values fits no mlp_ratio"))?));
    }
    let ratio = first as f64 / embed_dim as f64;
    let activation = beside.config.get("hidden_act").and_then(Value::as_str);
    let kind = match (activation, family) {
        // transformers' CLIP has quick-GELU where its config.json does not say it.
        (Some("quick_gelu"), _) | (None, Family::Clip) => MlpKind::QuickGelu,
        (Some(other), _) if other != "gelu" => {
            bail!("an encoder with the activation `{other}` cannot be imported: only gelu and quick_gelu")
        }
        (None, Family::OpenClip) => {
            notes.push(
                "the activation is taken as GELU; --set model.vit.mlp=quick-gelu for OpenAI's weights and those trained with it"
                    .to_owned(),
            );
            MlpKind::Gelu
        }
        _ => MlpKind::Gelu,
    };
    Ok((kind, ratio))
}

/// The side of the position table's grid. A table of patches alone gets a row of zeros for the class token.
fn grid_of(tensors: &mut Tensors) -> Result<i64> {
    let table = shape(tensors, "pos_embed")?;
    let &[1, rows, width] = table.as_slice() else { bail!("pos_embed is {table:?}, not [1, rows, embed_dim]") };
    let side = |area: i64| {
        let side = (area as f64).sqrt().round() as i64;
        (area > 0 && side * side == area).then_some(side)
    };
    if let Some(grid) = side(rows - 1) {
        return Ok(grid);
    }
    let grid = side(rows).with_context(|| format!("pos_embed has {rows} rows, which are no square grid"))?;
    for (_, tensor) in tensors.iter_mut().filter(|(name, _)| name == "pos_embed") {
        let zeros = Tensor::f_zeros([1, 1, width], (tensor.kind(), tensor.device()))?;
        *tensor = Tensor::f_cat(&[&zeros, tensor], 1)?;
    }
    Ok(grid)
}

fn shape(tensors: &Tensors, name: &str) -> Result<Vec<i64>> {
    let found = tensors.iter().find(|(other, _)| other == name);
    let (_, tensor) = found.with_context(|| format!("no tensor `{name}`: not the encoder of a vision transformer"))?;
    Ok(tensor.size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// An encoder of one block of embed_dim 128 on 2 × 2 patches of 14 pixels.
    fn encoder(rows: i64, fc1: i64, fc2: i64) -> Tensors {
        [
            ("patch_embed.proj.weight", vec![128, 3, 14, 14]),
            ("pos_embed", vec![1, rows, 128]),
            ("blocks.0.mlp.fc1.weight", vec![fc1, 128]),
            ("blocks.0.mlp.fc2.weight", vec![128, fc2]),
            ("blocks.0.ls1.gamma", vec![128]),
        ]
        .into_iter()
        .map(|(name, size)| (name.to_owned(), Tensor::ones(size, (Kind::Float, Device::Cpu))))
        .collect()
    }

    fn nothing() -> Beside {
        Beside { config: Value::Null, preprocessor: Value::Null }
    }

    #[test]
    fn shapes_give_the_sizes() {
        let read = sizes(Family::Dinov2Hub, &mut encoder(5, 512, 512), &nothing()).unwrap();
        let vit = &read.vit;
        assert_eq!((vit.image_size, vit.patch_size, vit.num_layers, vit.num_heads), (28, 14, 1, 2));
        assert_eq!((vit.mlp, vit.mlp_ratio, vit.pos_resize), (MlpKind::Gelu, 4.0, PosResize::Offset));
        assert!(vit.final_norm && vit.layer_scale > 0.0 && vit.pooling == Pooling::Cls);
        assert!(!read.statistics.is_gray() && read.notes.len() == 2, "{:?}", read.notes);
        let swiglu = sizes(Family::Dinov2, &mut encoder(5, 2 * 344, 344), &nothing()).unwrap().vit;
        assert_eq!((swiglu.mlp, swiglu.mlp_ratio), (MlpKind::Swiglu, 4.0));
    }

    #[test]
    fn a_table_without_a_class_row_gets_one_of_zeros() {
        let mut tensors = encoder(4, 512, 512);
        let read = sizes(Family::Dinov2Hub, &mut tensors, &nothing()).unwrap();
        let table = tensors.iter().find(|(name, _)| name == "pos_embed").unwrap().1.shallow_clone();
        assert_eq!((read.vit.image_size, table.size()), (28, vec![1, 5, 128]));
        assert_eq!(table.sum(Kind::Float).double_value(&[]), 4.0 * 128.0);
        assert!(sizes(Family::Dinov2, &mut encoder(7, 512, 512), &nothing()).is_err());
    }

    #[test]
    fn the_files_beside_decide_where_they_say_something() {
        let config =
            serde_json::json!({ "num_attention_heads": 4, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu" });
        let preprocessor = serde_json::json!({ "image_mean": vec![0.5307; 3], "image_std": vec![0.2583; 3] });
        let read = sizes(Family::Clip, &mut encoder(5, 512, 512), &Beside { config, preprocessor }).unwrap();
        assert_eq!((read.vit.num_heads, read.vit.norm_epsilon, read.vit.mlp), (4, 1e-5, MlpKind::QuickGelu));
        assert!(read.statistics.is_gray() && read.notes.is_empty());
        assert_eq!((read.statistics.mean(), read.statistics.std()), (0.5307, 0.2583));
        let config = serde_json::json!({ "hidden_act": "relu" });
        let beside = Beside { config, preprocessor: Value::Null };
        let error = sizes(Family::Clip, &mut encoder(5, 512, 512), &beside).err().unwrap();
        assert!(error.to_string().contains("`relu`"), "{error}");
    }
}
