//! Encoders of DINOv2 and CLIP under our names, which are timm's.
//!
//! | family | files |
//! | --- | --- |
//! | [`Family::Dinov2`] | transformers' `Dinov2Model` and `Dinov2WithRegistersModel` (RAD-DINO among them), saved or in memory |
//! | [`Family::Dinov2Hub`] | DINOv2's own: `blocks.0.ls1.gamma`, `register_tokens`, `mlp.w12` |
//! | [`Family::Clip`] | transformers' `CLIPVisionModel`, or the vision tower of `CLIPModel` |
//! | [`Family::OpenClip`] | OpenAI's and open_clip's `visual.*` |
//!
//! Biases that a model lacks are zero here: the same function with one set of variables for all.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::weights::load::Tensors;

/// Where an encoder comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// transformers' DINOv2.
    Dinov2,
    /// DINOv2's own names.
    Dinov2Hub,
    /// transformers' CLIP.
    Clip,
    /// OpenAI's and open_clip's CLIP.
    OpenClip,
    /// A plain ViT: timm, MAE, MRM, transformers' ViT.
    Vit,
}

impl Family {
    /// Its name in messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dinov2 | Self::Dinov2Hub => "DINOv2",
            Self::Clip | Self::OpenClip => "CLIP",
            Self::Vit => "ViT",
        }
    }

    /// The family that names belong to; none for a plain ViT and for anything else.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Option<Self> {
        names.into_iter().find_map(|name| match name {
            name if name.ends_with(".layer_scale1.lambda1") => Some(Self::Dinov2),
            name if name.ends_with(".ls1.gamma") => Some(Self::Dinov2Hub),
            name if name.ends_with("embeddings.class_embedding") => Some(Self::Clip),
            "visual.class_embedding" => Some(Self::OpenClip),
            _ => None,
        })
    }

    /// What may stand before the names of the encoder.
    fn prefixes(self) -> &'static [&'static str] {
        match self {
            Self::Dinov2 => &["dinov2.", "dinov2_with_registers."],
            Self::Dinov2Hub => &["backbone.", "teacher.backbone."],
            Self::Clip => &["vision_model."],
            Self::OpenClip => &["visual."],
            Self::Vit => &[],
        }
    }

    /// Names outside of the blocks, without `.weight` and `.bias`: theirs, ours.
    fn singles(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Dinov2 => &[
                ("embeddings.cls_token", "cls_token"),
                ("embeddings.position_embeddings", "pos_embed"),
                ("embeddings.register_tokens", "reg_token"),
                ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
                ("layernorm", "norm"),
            ],
            Self::Dinov2Hub => &[
                ("cls_token", "cls_token"),
                ("pos_embed", "pos_embed"),
                ("register_tokens", "reg_token"),
                ("reg_token", "reg_token"),
                ("patch_embed.proj", "patch_embed.proj"),
                ("norm", "norm"),
            ],
            Self::Clip => &[
                ("embeddings.class_embedding", "cls_token"),
                ("embeddings.position_embedding.weight", "pos_embed"),
                ("embeddings.patch_embedding", "patch_embed.proj"),
                ("pre_layrnorm", "norm_pre"),
                ("post_layernorm", "norm"),
            ],
            Self::OpenClip => &[
                ("class_embedding", "cls_token"),
                ("positional_embedding", "pos_embed"),
                ("conv1", "patch_embed.proj"),
                ("ln_pre", "norm_pre"),
                ("ln_post", "norm"),
            ],
            Self::Vit => &[],
        }
    }

    /// The prefix of the blocks.
    fn stack(self) -> &'static str {
        match self {
            Self::Dinov2 => "encoder.layer.",
            Self::Clip => "encoder.layers.",
            Self::OpenClip => "transformer.resblocks.",
            Self::Dinov2Hub | Self::Vit => "blocks.",
        }
    }

    /// Names within a block: theirs, ours, and which part of ours it is, of how many.
    fn parts(self) -> &'static [(&'static str, &'static str, usize, usize)] {
        match self {
            Self::Dinov2 => &[
                ("norm1", "norm1", 0, 1),
                ("norm2", "norm2", 0, 1),
                ("attention.attention.query", "attn.qkv", 0, 3),
                ("attention.attention.key", "attn.qkv", 1, 3),
                ("attention.attention.value", "attn.qkv", 2, 3),
                ("attention.q_proj", "attn.qkv", 0, 3),
                ("attention.k_proj", "attn.qkv", 1, 3),
                ("attention.v_proj", "attn.qkv", 2, 3),
                ("attention.output.dense", "attn.proj", 0, 1),
                ("attention.o_proj", "attn.proj", 0, 1),
                ("layer_scale1.lambda1", "ls1.gamma", 0, 1),
                ("layer_scale2.lambda1", "ls2.gamma", 0, 1),
                ("mlp.fc1", "mlp.fc1", 0, 1),
                ("mlp.fc2", "mlp.fc2", 0, 1),
                ("mlp.weights_in", "mlp.fc1", 0, 1),
                ("mlp.weights_out", "mlp.fc2", 0, 1),
                ("mlp.gate_proj", "mlp.fc1", 0, 2),
                ("mlp.up_proj", "mlp.fc1", 1, 2),
                ("mlp.down_proj", "mlp.fc2", 0, 1),
            ],
            Self::Dinov2Hub => &[
                ("norm1", "norm1", 0, 1),
                ("norm2", "norm2", 0, 1),
                ("attn.qkv", "attn.qkv", 0, 1),
                ("attn.proj", "attn.proj", 0, 1),
                ("ls1.gamma", "ls1.gamma", 0, 1),
                ("ls2.gamma", "ls2.gamma", 0, 1),
                ("mlp.fc1", "mlp.fc1", 0, 1),
                ("mlp.fc2", "mlp.fc2", 0, 1),
                ("mlp.w12", "mlp.fc1", 0, 1),
                ("mlp.w3", "mlp.fc2", 0, 1),
            ],
            Self::Clip => &[
                ("layer_norm1", "norm1", 0, 1),
                ("layer_norm2", "norm2", 0, 1),
                ("self_attn.q_proj", "attn.qkv", 0, 3),
                ("self_attn.k_proj", "attn.qkv", 1, 3),
                ("self_attn.v_proj", "attn.qkv", 2, 3),
                ("self_attn.out_proj", "attn.proj", 0, 1),
                ("mlp.fc1", "mlp.fc1", 0, 1),
                ("mlp.fc2", "mlp.fc2", 0, 1),
            ],
            Self::OpenClip => &[
                ("ln_1", "norm1", 0, 1),
                ("ln_2", "norm2", 0, 1),
                ("attn.in_proj_weight", "attn.qkv.weight", 0, 1),
                ("attn.in_proj_bias", "attn.qkv.bias", 0, 1),
                ("attn.out_proj", "attn.proj", 0, 1),
                ("ls_1.gamma", "ls1.gamma", 0, 1),
                ("ls_2.gamma", "ls2.gamma", 0, 1),
                ("mlp.c_fc", "mlp.fc1", 0, 1),
                ("mlp.c_proj", "mlp.fc2", 0, 1),
            ],
            Self::Vit => &[],
        }
    }

    /// Our name for one of theirs, with its part of ours.
    fn translate(self, name: &str) -> Option<(String, usize, usize)> {
        let bare = self.prefixes().iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name);
        let with_end = |name: &str, theirs: &str, ours: &str| {
            let end = name.strip_prefix(theirs)?;
            (end.is_empty() || end == ".weight" || end == ".bias").then(|| format!("{ours}{end}"))
        };
        if let Some(ours) = self.singles().iter().find_map(|(theirs, ours)| with_end(bare, theirs, ours)) {
            return Some((ours, 0, 1));
        }
        let (mut index, mut rest) = bare.strip_prefix(self.stack())?.split_once('.')?;
        // DINOv2's training divides the blocks into chunks: `blocks.1.13.norm1`.
        if let Some((number, inner)) = rest.split_once('.').filter(|(number, _)| number.parse::<u32>().is_ok()) {
            (index, rest) = (number, inner);
        }
        let part = |(theirs, ours, part, of): &(&str, &str, usize, usize)| {
            Some((format!("blocks.{index}.{}", with_end(rest, theirs, ours)?), *part, *of))
        };
        self.parts().iter().find_map(part)
    }
}

/// An encoder under our names.
#[derive(Debug)]
pub struct Translated {
    /// The tensors of the encoder.
    pub tensors: Tensors,
    /// Names that are not of the encoder, such as a text tower, a head or a mask token.
    pub left_out: Vec<String>,
}

/// Translates the encoder of a family. The parts of a projection are concatenated, and biases that the model lacks are zeros.
///
/// # Errors
/// When a part is missing, or parts have shapes that do not fit.
pub fn translate(family: Family, tensors: Tensors) -> anyhow::Result<Translated> {
    let mut found: BTreeMap<String, Vec<Option<Tensor>>> = BTreeMap::new();
    let mut left_out = Vec::new();
    for (name, tensor) in tensors {
        match family.translate(&name) {
            Some((ours, part, of)) => {
                let parts = found.entry(ours).or_insert_with(|| (0..of).map(|_| None).collect());
                match parts.get_mut(part) {
                    Some(place @ None) => *place = Some(tensor),
                    _ => anyhow::bail!("`{name}` is there twice, under the names of two versions"),
                }
            }
            None => left_out.push(name),
        }
    }
    let mut all = Tensors::new();
    for (name, parts) in found {
        let count = parts.len();
        let whole: Vec<Tensor> = parts.into_iter().flatten().collect();
        if whole.len() != count {
            anyhow::bail!("`{name}` has only {} of its {count} parts", whole.len());
        }
        all.push((name, Tensor::f_cat(&whole, 0)?));
    }
    for (name, tensor) in &mut all {
        *tensor = match (name.as_str(), tensor.size().as_slice()) {
            ("cls_token", &[width]) => tensor.f_view([1, 1, width])?,
            ("pos_embed", &[_, _]) => tensor.f_unsqueeze(0)?,
            _ => continue,
        };
    }
    let lacks_bias = |(name, weight): &(String, Tensor)| {
        let bias = format!("{}bias", name.strip_suffix("weight")?);
        let is_linear = weight.dim() >= 2 && name.contains('.');
        (is_linear && !all.iter().any(|(other, _)| *other == bias)).then(|| (bias, weight.size()[0], weight.kind()))
    };
    let biases: Vec<(String, i64, tch::Kind)> = all.iter().filter_map(lacks_bias).collect();
    for (name, rows, kind) in biases {
        all.push((name, Tensor::f_zeros([rows], (kind, tch::Device::Cpu))?));
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    left_out.sort();
    Ok(Translated { tensors: all, left_out })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn ones(size: &[i64]) -> Tensor {
        Tensor::ones(size, (Kind::Float, Device::Cpu))
    }

    #[test]
    fn names_of_each_family_are_known() {
        let ours = |family: Family, name: &str| family.translate(name);
        let whole = |name: &str| Some((name.to_owned(), 0, 1));
        assert_eq!(
            ours(Family::Dinov2, "encoder.layer.3.attention.attention.key.bias"),
            Some(("blocks.3.attn.qkv.bias".to_owned(), 1, 3))
        );
        assert_eq!(
            ours(Family::Dinov2, "dinov2.encoder.layer.3.mlp.up_proj.weight"),
            Some(("blocks.3.mlp.fc1.weight".to_owned(), 1, 2))
        );
        assert_eq!(ours(Family::Dinov2, "encoder.layer.0.layer_scale2.lambda1"), whole("blocks.0.ls2.gamma"));
        assert_eq!(ours(Family::Dinov2, "embeddings.mask_token"), None);
        assert_eq!(ours(Family::Dinov2Hub, "blocks.2.17.mlp.w12.weight"), whole("blocks.17.mlp.fc1.weight"));
        assert_eq!(ours(Family::Dinov2Hub, "norm.bias"), whole("norm.bias"));
        assert_eq!(ours(Family::Clip, "vision_model.pre_layrnorm.weight"), whole("norm_pre.weight"));
        assert_eq!(ours(Family::Clip, "text_model.encoder.layers.0.mlp.fc1.weight"), None);
        assert_eq!(
            ours(Family::OpenClip, "visual.transformer.resblocks.7.attn.in_proj_bias"),
            whole("blocks.7.attn.qkv.bias")
        );
        assert_eq!(ours(Family::OpenClip, "visual.proj"), None);
        assert_eq!(Family::of(["a", "blocks.0.ls1.gamma"].into_iter()), Some(Family::Dinov2Hub));
        assert_eq!(Family::of(["blocks.0.norm1.weight", "cls_token"].into_iter()), None);
    }

    #[test]
    fn parts_are_concatenated_in_their_order_and_missing_biases_are_zero() {
        let named = |name: &str, tensor: Tensor| (format!("vision_model.{name}"), tensor);
        let tensors = vec![
            named("embeddings.class_embedding", ones(&[4])),
            named("embeddings.position_embedding.weight", ones(&[5, 4])),
            named("embeddings.patch_embedding.weight", ones(&[4, 3, 2, 2])),
            named("encoder.layers.0.self_attn.v_proj.weight", ones(&[4, 4]) * 3.0),
            named("encoder.layers.0.self_attn.k_proj.weight", ones(&[4, 4]) * 2.0),
            named("encoder.layers.0.self_attn.q_proj.weight", ones(&[4, 4])),
            ("visual_projection.weight".to_owned(), ones(&[2, 4])),
        ];
        let Translated { tensors, left_out } = translate(Family::Clip, tensors).unwrap();
        let all: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        assert_eq!((all["cls_token"].size(), all["pos_embed"].size()), (vec![1, 1, 4], vec![1, 5, 4]));
        let rows = [0, 4, 8].map(|row| all["blocks.0.attn.qkv.weight"].double_value(&[row, 0]));
        assert_eq!(rows, [1.0, 2.0, 3.0]);
        assert_eq!(all["patch_embed.proj.bias"], ones(&[4]) * 0.0);
        assert_eq!(all["blocks.0.attn.qkv.bias"].size(), [12]);
        assert_eq!(left_out, ["visual_projection.weight"]);
    }

    #[test]
    fn a_name_of_two_versions_at_once_is_refused() {
        let both = ["attention.q_proj.bias", "attention.attention.query.bias"]
            .map(|name| (format!("encoder.layer.0.{name}"), ones(&[4])));
        assert!(translate(Family::Dinov2, both.into()).unwrap_err().to_string().contains("twice"));
    }
}
