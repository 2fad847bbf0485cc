//! `trainer export`: a run's encoder as a folder that timm or Hugging Face's transformers loads.
//!
//! Only tensors are written with which the other library computes the same numbers; the others are listed, or the export
//! fails.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use dataset::store::files;
use serde_json::{Map, Value, json};
use tch::{Device, Kind};

use crate::config::{Encoder, PRESETS, PretrainConfig, preset_hint, pretrain_preset};
use crate::error::{ModelError, check_shape};
use crate::model::mae_decoder::DecoderConfig;
use crate::model::mrm::MrmConfig;
use crate::model::vit::{LAYER_NORM_EPSILON, Pooling, VitConfig};
use crate::task::{Contrast, Pretrain, Registry, Task, Views};
use crate::train::run_dir;
use crate::weights::Tensors;
use crate::weights::hugging_face::to_hugging_face;
use crate::weights::load::{families, shortened, write};
use crate::weights::source::read_weights;

/// Names of the targets.
pub const TARGETS: [&str; 3] = ["timm", "vit", "vit-mae"];

/// Filters, and Pillow's numbers of them, which Hugging Face writes.
const BILINEAR: (&str, u8) = ("bilinear", 2);
const BICUBIC: (&str, u8) = ("bicubic", 3);

/// What an export wrote.
#[derive(Debug)]
pub struct Exported {
    /// What loads the folder, as a line of Python.
    pub loaded_by: String,
    /// Number of tensors that were written.
    pub count: usize,
    /// Tensors of the source that were left out.
    pub left_out: Vec<String>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// The folder.
    pub out: PathBuf,
}

/// The weights to export, and the sizes of their model.
struct Source {
    tensors: Tensors,
    vit: VitConfig,
    /// The pre-training model; none for a classifier.
    mrm: Option<MrmConfig>,
    findings: Vec<String>,
    /// Mean and standard deviation that pixels are normalized with, 0..1.
    mean: f64,
    std: f64,
    /// Side of an evaluation's center crop, as a share of the image that it is cut from.
    crop_pct: f64,
    notes: Vec<String>,
}

/// Writes a run's weights, or those of a safetensors file, for `timm`, `vit` or `vit-mae`.
///
/// Sizes and pixel statistics are those of the run that the weights are in, unless `sizes` are given; for a file in no run
/// they are the first preset's.
///
/// # Errors
/// When the target computes something else than the model, the weights do not have the sizes of run or preset, or the
/// folder is not empty. Nothing is written then.
pub fn export(
    registry: &Registry,
    weights: &Path,
    target: &str,
    sizes: Option<PretrainConfig>,
    out: &Path,
) -> Result<Exported> {
    if out.is_file() || fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("{} is there already; give another --out", out.display());
    }
    let source = Source::open(registry, weights, sizes)?;
    if !source.is_plain() {
        bail!(
            "{} is a variant of ViT (register tokens, LayerScale, another MLP, norm or pooling), which these formats do not hold",
            weights.display()
        );
    }
    let (loaded_by, tensors, files) = match target {
        "timm" => source.timm(out)?,
        "vit" => source.vit(out)?,
        "vit-mae" => source.vit_mae(out)?,
        other => bail!("no target `{other}`; there are: {}", TARGETS.join(", ")),
    };
    let used = &tensors.used;
    let left_out = source.tensors.iter().map(|(name, _)| name.clone()).filter(|name| !used.contains(name)).collect();
    let count = tensors.renamed.len();
    publish(out, &tensors.renamed, &files)?;
    let notes = [source.notes, tensors.notes].concat();
    Ok(Exported { loaded_by, count, left_out, notes, out: out.to_path_buf() })
}

/// The tensors for a folder.
struct Chosen {
    /// Names in the source.
    used: Vec<String>,
    /// The tensors under the target's names.
    renamed: Tensors,
    notes: Vec<String>,
}

/// JSON files by name.
type Files = Vec<(&'static str, Value)>;

impl Source {
    fn open(registry: &Registry, weights: &Path, sizes: Option<PretrainConfig>) -> Result<Self> {
        let mut tensors = read_weights(weights)?;
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        let run = if sizes.is_some() { None } else { run_dir::run_of(weights).ok() };
        if tensors.iter().any(|(name, _)| name.starts_with("decode_head.")) {
            bail!("{} is of a segmentation run, which these formats do not hold", weights.display());
        }
        match run.as_deref().map(|run| registry.load(run)).transpose()? {
            Some(file) if [Pretrain.kind(), Contrast.kind(), Views.kind()].contains(&file.kind()) => {
                return Ok(Self::of_pretraining(tensors, file.read()?, Vec::new()));
            }
            Some(file) => {
                let Encoder { vit, mean, std } = file.common()?.encoder;
                let names = file.get("findings").and_then(toml::Value::as_array).into_iter().flatten();
                let findings = names.filter_map(|name| Some(name.as_str()?.to_owned())).collect();
                let has_margin = file.get("data.crop").and_then(toml::Value::as_str) == Some("random");
                let crop_pct = if has_margin { 7.0 / 8.0 } else { 1.0 };
                return Ok(Self { tensors, vit, mrm: None, findings, mean, std, crop_pct, notes: Vec::new() });
            }
            None if weights.is_dir() => bail!("{} is no run", weights.display()),
            None => {}
        }
        let sizes = sizes.map_or_else(|| pretrain_preset(PRESETS[0]), Ok)?;
        let note = format!("heads, mean and std are those of {}, since no run says otherwise", sizes.preset);
        Ok(Self::of_pretraining(tensors, sizes, vec![note]))
    }

    fn of_pretraining(tensors: Tensors, config: PretrainConfig, notes: Vec<String>) -> Self {
        Self {
            tensors,
            vit: config.model.vit.clone(),
            mrm: Some(config.model),
            findings: Vec::new(),
            mean: config.data.mean,
            std: config.data.std,
            crop_pct: 1.0,
            notes,
        }
    }

    /// Whether the formats hold the encoder, and the pooling before its head.
    fn is_plain(&self) -> bool {
        let has_other_head = self.vit.final_norm || self.vit.pooling != Pooling::Mean;
        self.vit.is_plain() && !(self.has("head.weight") && has_other_head)
    }

    /// Whether the weights are a classifier's, which normalizes after its pooling.
    fn is_classifier(&self) -> bool {
        self.has("fc_norm.weight")
    }

    /// The filter that resizes images to the encoder's size, as in training.
    fn filter(&self) -> (&'static str, u8) {
        if self.is_classifier() { BILINEAR } else { BICUBIC }
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.iter().any(|(other, _)| other == name)
    }

    /// The tensors of these names and shapes, as float32.
    fn take(&self, wanted: &[(String, Vec<i64>)]) -> Result<Tensors> {
        let advice = || {
            let hint = preset_hint(&self.tensors);
            format!("the weights do not have the sizes of their run or preset; --preset names another{hint}")
        };
        wanted
            .iter()
            .map(|(name, shape)| {
                let found = self.tensors.iter().find(|(other, _)| other == name);
                let (_, tensor) = found.ok_or_else(|| ModelError::MissingState { name: name.clone() })?;
                check_shape(name, tensor, shape)?;
                Ok((name.clone(), tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?))
            })
            .collect::<Result<_, ModelError>>()
            .with_context(advice)
    }

    /// The encoder with its final norm, as pre-training has it.
    fn encoder(&self) -> Result<Tensors> {
        let width = self.vit.embed_dim;
        let mut wanted = encoder_shapes(&self.vit);
        wanted.extend([("norm.weight".to_owned(), vec![width]), ("norm.bias".to_owned(), vec![width])]);
        self.take(&wanted)
    }

    fn timm(&self, out: &Path) -> Result<(String, Chosen, Files)> {
        let vit = &self.vit;
        let pooled = self.is_classifier();
        if !pooled && self.has("head.weight") && !self.has("norm.weight") {
            bail!("a classifier without a norm before its head (model.head_norm=false) has no counterpart in timm");
        }
        let mut tensors = if pooled {
            let mut wanted = encoder_shapes(vit);
            wanted.extend(["weight", "bias"].map(|last| (format!("fc_norm.{last}"), vec![vit.embed_dim])));
            self.take(&wanted)?
        } else {
            self.encoder()?
        };
        let mut classes = 0;
        if self.has("head.weight") {
            let head =
                self.take(&[("head.weight".to_owned(), vec![-1, vit.embed_dim]), ("head.bias".to_owned(), vec![-1])])?;
            classes = head[0].1.size()[0];
            tensors.extend(head);
        }
        let (architecture, mut arguments) = timm_architecture(vit);
        let pool = if pooled { "avg" } else { "token" };
        if pooled {
            arguments.insert("global_pool".to_owned(), json!(pool)); // with it, timm puts the norm after the pooling
        }
        let channels = |value: f64| vec![value; vit.in_channels as usize];
        let mut pretrained = json!({
            "tag": "mrm",
            "input_size": [vit.in_channels, vit.image_size, vit.image_size],
            "fixed_input_size": true,
            "interpolation": self.filter().0,
            "crop_pct": self.crop_pct,
            "crop_mode": "center",
            "mean": channels(self.mean),
            "std": channels(self.std),
            "num_classes": classes,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        });
        if classes as usize == self.findings.len() && classes > 0 {
            pretrained["label_names"] = json!(self.findings);
        }
        let mut config = json!({
            "architecture": architecture,
            "num_classes": classes,
            "num_features": vit.embed_dim,
            "global_pool": pool,
            "pretrained_cfg": pretrained,
        });
        if !arguments.is_empty() {
            config["model_args"] = Value::Object(arguments);
        }
        let used = tensors.iter().map(|(name, _)| name.clone()).collect();
        let loaded_by = format!("timm.create_model(\"local-dir:{}\", pretrained=True)", out.display());
        Ok((loaded_by, Chosen { used, renamed: tensors, notes: Vec::new() }, vec![("config.json", config)]))
    }

    /// An error for a classifier: Hugging Face's models pool in another way.
    fn refuse_classifier(&self, target: &str) -> Result<()> {
        if self.is_classifier() {
            bail!(
                "a classifier here takes the mean over patch tokens and normalizes it (fc_norm), which Hugging Face's \
                 {target} does not; export it with --to timm, or export the pretrained run"
            );
        }
        Ok(())
    }

    fn vit(&self, out: &Path) -> Result<(String, Chosen, Files)> {
        self.refuse_classifier("ViT")?;
        let tensors = self.encoder()?;
        let config = self.hugging_face_config("vit", "ViTModel");
        let chosen = Chosen {
            used: tensors.iter().map(|(name, _)| name.clone()).collect(),
            renamed: to_hugging_face(&tensors, ""),
            notes: vec![
                "ViTModel adds a pooler of its own, randomly initialized; pass add_pooling_layer=False".to_owned(),
            ],
        };
        let loaded_by = format!("ViTModel.from_pretrained(\"{}\", add_pooling_layer=False)", out.display());
        Ok((loaded_by, chosen, vec![("config.json", config), ("preprocessor_config.json", self.preprocessor())]))
    }

    fn vit_mae(&self, out: &Path) -> Result<(String, Chosen, Files)> {
        self.refuse_classifier("ViTMAE")?;
        let mut tensors = self.encoder()?;
        let decoder = self.decoder();
        let class = if decoder.is_ok() { "ViTMAEForPreTraining" } else { "ViTMAEModel" };
        let mut config = self.hugging_face_config("vit_mae", class);
        let mut notes = Vec::new();
        let prefix = match decoder {
            Ok((sizes, decoder)) => {
                tensors.extend(decoder);
                config["decoder_hidden_size"] = json!(sizes.embed_dim);
                config["decoder_num_hidden_layers"] = json!(sizes.num_layers);
                config["decoder_num_attention_heads"] = json!(sizes.num_heads);
                config["decoder_intermediate_size"] = json!(hidden(sizes.embed_dim, sizes.mlp_ratio));
                "vit."
            }
            Err(why) => {
                notes.push(format!("the encoder alone: {why}"));
                ""
            }
        };
        if let Some(mrm) = &self.mrm {
            config["mask_ratio"] = json!(mrm.mask_ratio);
            config["norm_pix_loss"] = json!(mrm.norm_pix_loss);
        }
        let chosen = Chosen {
            used: tensors.iter().map(|(name, _)| name.clone()).collect(),
            renamed: to_hugging_face(&tensors, prefix),
            notes,
        };
        let loaded_by = format!("{class}.from_pretrained(\"{}\")", out.display());
        Ok((loaded_by, chosen, vec![("config.json", config), ("preprocessor_config.json", self.preprocessor())]))
    }

    /// The image decoder if it has the form of MAE's, else the reason why not.
    fn decoder(&self) -> Result<(DecoderConfig, Tensors), String> {
        let Some(mrm) = self.mrm.as_ref().filter(|_| self.has("decoder_pred.weight")) else {
            return Err("there is no image decoder".to_owned());
        };
        let values = self.vit.patch_size * self.vit.patch_size * self.vit.in_channels;
        let predicted = self
            .tensors
            .iter()
            .find(|(name, _)| name == "decoder_pred.weight")
            .and_then(|(_, t)| t.size().first().copied());
        if predicted != Some(values) {
            return Err(format!(
                "the image decoder predicts {} values a patch (super-resolution), ViTMAE's {values}",
                predicted.unwrap_or_default()
            ));
        }
        let tensors = self.take(&decoder_shapes(&mrm.decoder, &self.vit, values));
        tensors.map(|tensors| (mrm.decoder.clone(), tensors)).map_err(|error| {
            format!("the image decoder does not have the sizes of run or preset ({})", error.root_cause())
        })
    }

    fn hugging_face_config(&self, model_type: &str, class: &str) -> Value {
        let vit = &self.vit;
        json!({
            "architectures": [class],
            "model_type": model_type,
            "hidden_size": vit.embed_dim,
            "num_hidden_layers": vit.num_layers,
            "num_attention_heads": vit.num_heads,
            "intermediate_size": hidden(vit.embed_dim, vit.mlp_ratio),
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "initializer_range": 0.02,
            "layer_norm_eps": LAYER_NORM_EPSILON,
            "image_size": vit.image_size,
            "patch_size": vit.patch_size,
            "num_channels": vit.in_channels,
            "qkv_bias": true,
            "torch_dtype": "float32",
        })
    }

    /// Preprocessing as in evaluation: resize of the shorter side, center crop. CLIP's processor does that; ViT's stretches
    /// the whole image to a square.
    fn preprocessor(&self) -> Value {
        let side = self.vit.image_size;
        let channels = |value: f64| vec![value; self.vit.in_channels as usize];
        json!({
            "image_processor_type": "CLIPImageProcessor",
            "do_convert_rgb": self.vit.in_channels == 3,
            "do_resize": true,
            "size": { "shortest_edge": side },
            "resample": self.filter().1,
            "do_center_crop": true,
            "crop_size": { "height": side, "width": side },
            "do_rescale": true,
            "rescale_factor": 1.0 / 255.0,
            "do_normalize": true,
            "image_mean": channels(self.mean),
            "image_std": channels(self.std),
        })
    }
}

/// Names and shapes of an encoder without its final norm.
fn encoder_shapes(vit: &VitConfig) -> Vec<(String, Vec<i64>)> {
    let (width, patch) = (vit.embed_dim, vit.patch_size);
    let mut shapes = vec![
        ("cls_token".to_owned(), vec![1, 1, width]),
        ("pos_embed".to_owned(), vec![1, 1 + vit.patches(), width]),
        ("patch_embed.proj.weight".to_owned(), vec![width, vit.in_channels, patch, patch]),
        ("patch_embed.proj.bias".to_owned(), vec![width]),
    ];
    shapes.extend(block_shapes("blocks", vit.num_layers, width, vit.mlp_ratio));
    shapes
}

/// Names and shapes of an image decoder.
fn decoder_shapes(decoder: &DecoderConfig, vit: &VitConfig, values: i64) -> Vec<(String, Vec<i64>)> {
    let width = decoder.embed_dim;
    let single = [
        ("mask_token", vec![1, 1, width]),
        ("decoder_pos_embed", vec![1, 1 + vit.patches(), width]),
        ("decoder_embed.weight", vec![width, vit.embed_dim]),
        ("decoder_embed.bias", vec![width]),
        ("decoder_norm.weight", vec![width]),
        ("decoder_norm.bias", vec![width]),
        ("decoder_pred.weight", vec![values, width]),
        ("decoder_pred.bias", vec![values]),
    ];
    let mut shapes: Vec<(String, Vec<i64>)> =
        single.into_iter().map(|(name, shape)| (name.to_owned(), shape)).collect();
    shapes.extend(block_shapes("decoder_blocks", decoder.num_layers, width, decoder.mlp_ratio));
    shapes
}

/// Names and shapes of a stack of blocks.
fn block_shapes(folder: &str, depth: i64, width: i64, mlp_ratio: f64) -> Vec<(String, Vec<i64>)> {
    let hidden = hidden(width, mlp_ratio);
    let parts = [
        ("norm1.weight", vec![width]),
        ("norm1.bias", vec![width]),
        ("attn.qkv.weight", vec![3 * width, width]),
        ("attn.qkv.bias", vec![3 * width]),
        ("attn.proj.weight", vec![width, width]),
        ("attn.proj.bias", vec![width]),
        ("norm2.weight", vec![width]),
        ("norm2.bias", vec![width]),
        ("mlp.fc1.weight", vec![hidden, width]),
        ("mlp.fc1.bias", vec![hidden]),
        ("mlp.fc2.weight", vec![width, hidden]),
        ("mlp.fc2.bias", vec![width]),
    ];
    (0..depth)
        .flat_map(|block| parts.iter().map(move |(name, shape)| (format!("{folder}.{block}.{name}"), shape.clone())))
        .collect()
}

/// Hidden width of an MLP.
fn hidden(width: i64, mlp_ratio: f64) -> i64 {
    (width as f64 * mlp_ratio) as i64
}

/// The architecture of timm's with these sizes, and the arguments in which it differs from them.
fn timm_architecture(vit: &VitConfig) -> (&'static str, Map<String, Value>) {
    let known = [
        ("vit_tiny_patch16_224", 192, 12, 3),
        ("vit_small_patch16_224", 384, 12, 6),
        ("vit_base_patch16_224", 768, 12, 12),
        ("vit_large_patch16_224", 1024, 24, 16),
    ];
    let sizes = (vit.embed_dim, vit.num_layers, vit.num_heads);
    let same = known.into_iter().find(|&(_, width, depth, heads)| (width, depth, heads) == sizes);
    let (name, width, depth, heads) = same.unwrap_or(known[2]);
    let all = [
        ("img_size", json!(vit.image_size), json!(224)),
        ("patch_size", json!(vit.patch_size), json!(16)),
        ("in_chans", json!(vit.in_channels), json!(3)),
        ("embed_dim", json!(vit.embed_dim), json!(width)),
        ("depth", json!(vit.num_layers), json!(depth)),
        ("num_heads", json!(vit.num_heads), json!(heads)),
        ("mlp_ratio", json!(vit.mlp_ratio), json!(4.0)),
    ];
    let differing = all.into_iter().filter(|(_, value, usual)| value != usual);
    (name, differing.map(|(key, value, _)| (key.to_owned(), value)).collect())
}

/// Writes a folder under a temporary name, then gives it its own.
fn publish(out: &Path, tensors: &Tensors, json_files: &Files) -> Result<()> {
    let temporary = files::temporary(out);
    let _ = fs::remove_dir_all(&temporary);
    let written = (|| -> Result<()> {
        files::make_folder(&temporary)?;
        write(tensors, &temporary.join("model.safetensors"))?;
        for (name, value) in json_files {
            files::write_json(&temporary.join(name), value)?;
        }
        files::sync_folder(&temporary)?;
        Ok(files::publish(&temporary, out)?)
    })();
    if written.is_err() {
        let _ = fs::remove_dir_all(&temporary);
    }
    written.with_context(|| format!("{} was not written", out.display()))
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} tensors, loaded by {}", self.count, self.loaded_by)?;
        if !self.left_out.is_empty() {
            write!(f, "\nleft out: {} ({})", self.left_out.len(), shortened(&families(&self.left_out)))?;
        }
        for note in &self.notes {
            write!(f, "\nnote: {note}")?;
        }
        write!(f, "\nwritten to {}", self.out.display())
    }
}
