//! Names of a vision transformer's tensors: ours, which are those of timm and the release, and Hugging Face's.
//!
//! Hugging Face has separate tensors for query, key and value; timm and we concatenate them in `attn.qkv`. Safetensors files
//! have the names of transformers 4. In memory, a model of transformers 5 has shorter names, which a state dict saved by
//! `torch.save` contains. Both are read; the names of transformers 4 are written, since all versions read them.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::weights::load::Tensors;

/// A name that only a state dict of Hugging Face has.
const SIGNATURE: &str = "embeddings.patch_embeddings.projection.weight";

/// The parts of `attn.qkv` in their order: names in transformers 4 and 5.
const QKV: [[&str; 2]; 3] = [
    ["attention.attention.query", "attention.q_proj"],
    ["attention.attention.key", "attention.k_proj"],
    ["attention.attention.value", "attention.v_proj"],
];

/// Parts of a block: our name, those of transformers 4 and 5.
const BLOCK: [[&str; 3]; 5] = [
    ["norm1", "layernorm_before", "layernorm_before"],
    ["attn.proj", "attention.output.dense", "attention.o_proj"],
    ["norm2", "layernorm_after", "layernorm_after"],
    ["mlp.fc1", "intermediate.dense", "mlp.fc1"],
    ["mlp.fc2", "output.dense", "mlp.fc2"],
];

/// Names outside of the blocks: our name, Hugging Face's.
const SINGLE: [[&str; 2]; 13] = [
    ["cls_token", "embeddings.cls_token"],
    ["pos_embed", "embeddings.position_embeddings"],
    ["patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"],
    ["patch_embed.proj.bias", "embeddings.patch_embeddings.projection.bias"],
    ["norm.weight", "layernorm.weight"],
    ["norm.bias", "layernorm.bias"],
    ["head.weight", "classifier.weight"],
    ["head.bias", "classifier.bias"],
    ["mask_token", "decoder.mask_token"],
    ["decoder_pos_embed", "decoder.decoder_pos_embed"],
    ["decoder_embed", "decoder.decoder_embed"],
    ["decoder_norm", "decoder.decoder_norm"],
    ["decoder_pred", "decoder.decoder_pred"],
];

/// Prefixes of blocks: ours, and Hugging Face's; the first of these is written.
const STACKS: [(&str, &[&str]); 2] = [
    ("blocks", &["encoder.layer", "layers"]),
    ("decoder_blocks", &["decoder.decoder_layers", "decoder.decoder_encoder.layer"]),
];

/// Prefixes that wrappers add to every name: `DataParallel`, `torch.compile`, Lightning.
const WRAPPERS: [&str; 3] = ["module.", "_orig_mod.", "model."];

/// Removes the prefixes that wrappers add to every name.
pub fn unwrap(tensors: &mut Tensors) {
    let all_have = |tensors: &Tensors, prefix: &str| tensors.iter().all(|(name, _)| name.starts_with(prefix));
    while let Some(prefix) = WRAPPERS.iter().find(|prefix| !tensors.is_empty() && all_have(tensors, prefix)) {
        for (name, _) in &mut *tensors {
            name.drain(..prefix.len());
        }
    }
}

/// Whether these are the names of Hugging Face's ViT or ViTMAE.
pub fn is_hugging_face<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| bare(name) == SIGNATURE)
}

/// Hugging Face's tensors under our names, with query, key and value concatenated. Tensors without a counterpart keep their
/// names.
///
/// # Errors
/// When the parts of a projection have different shapes.
pub fn from_hugging_face(tensors: Tensors) -> Result<Tensors, tch::TchError> {
    let mut all = Vec::new();
    let mut parts: BTreeMap<String, [Option<(String, Tensor)>; 3]> = BTreeMap::new();
    for (name, tensor) in tensors {
        match translate(bare(&name)) {
            Some(Name::Whole(ours)) => all.push((ours, tensor)),
            Some(Name::Part(ours, part)) => parts.entry(ours).or_default()[part] = Some((name, tensor)),
            None => all.push((name, tensor)),
        }
    }
    for (ours, parts) in parts {
        match parts {
            [Some((_, query)), Some((_, key)), Some((_, value))] => {
                all.push((ours, Tensor::f_cat(&[query, key, value], 0)?));
            }
            incomplete => all.extend(incomplete.into_iter().flatten()),
        }
    }
    Ok(all)
}

/// Our tensors under Hugging Face's names, with `prefix`: `vit.` if the model has a head or a decoder. Tensors of the decoder
/// get no prefix. Tensors without a counterpart are left out.
pub fn to_hugging_face(tensors: &Tensors, prefix: &str) -> Tensors {
    let mut all = Vec::new();
    for (name, tensor) in tensors {
        let prefix = if name.starts_with("decoder_") || name == "mask_token" { "" } else { prefix };
        if let Some(theirs) = single(name, 0, 1) {
            all.push((format!("{prefix}{theirs}"), tensor.shallow_clone()));
            continue;
        }
        let Some((stack, index, rest)) = STACKS.iter().find_map(|(ours, theirs)| {
            let (index, rest) = name.strip_prefix(ours)?.strip_prefix('.')?.split_once('.')?;
            Some((theirs[0], index, rest))
        }) else {
            continue;
        };
        let block = format!("{prefix}{stack}.{index}");
        if let Some(last) = rest.strip_prefix("attn.qkv.") {
            let rows = tensor.size()[0] / 3; // [3·D, D] or [3·D]
            for (part, [name, _]) in QKV.iter().enumerate() {
                let part = tensor.narrow(0, part as i64 * rows, rows).copy();
                all.push((format!("{block}.{name}.{last}"), part));
            }
        } else if let Some((ours, last)) = rest.rsplit_once('.')
            && let Some([_, theirs, _]) = BLOCK.iter().find(|names| names[0] == ours)
        {
            all.push((format!("{block}.{theirs}.{last}"), tensor.shallow_clone()));
        }
    }
    all
}

/// Our name for one of Hugging Face's.
enum Name {
    /// The name of the tensor.
    Whole(String),
    /// Query, key or value: the name of the concatenated tensor, and the index in it.
    Part(String, usize),
}

/// The name without the prefix `vit.` of a model with a head or a decoder.
fn bare(name: &str) -> &str {
    name.strip_prefix("vit.").unwrap_or(name)
}

/// Translates a name outside of the blocks from one column of [`SINGLE`] to the other.
fn single(name: &str, from: usize, to: usize) -> Option<String> {
    SINGLE.iter().find_map(|names| {
        let rest = name.strip_prefix(names[from])?;
        (rest.is_empty() || rest.starts_with('.')).then(|| format!("{}{rest}", names[to]))
    })
}

fn translate(name: &str) -> Option<Name> {
    if let Some(ours) = single(name, 1, 0) {
        return Some(Name::Whole(ours));
    }
    let (stack, index, rest) = STACKS.iter().find_map(|(ours, theirs)| {
        let rest = theirs.iter().find_map(|stack| name.strip_prefix(stack)?.strip_prefix('.'))?;
        let (index, rest) = rest.split_once('.')?;
        Some((*ours, index, rest))
    })?;
    let (inner, last) = rest.rsplit_once('.')?;
    if let Some(part) = QKV.iter().position(|names| names.contains(&inner)) {
        return Some(Name::Part(format!("{stack}.{index}.attn.qkv.{last}"), part));
    }
    let [ours, ..] = BLOCK.iter().find(|names| names[1..].contains(&inner))?;
    Some(Name::Whole(format!("{stack}.{index}.{ours}.{last}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::mae_decoder::DecoderConfig;
    use crate::model::mrm::{Mrm, MrmConfig, Reconstruct};
    use crate::model::vit::VitConfig;
    use tch::{Device, nn::VarStore};

    fn ours() -> Tensors {
        let store = VarStore::new(Device::Cpu);
        let config = MrmConfig {
            vit: VitConfig {
                image_size: 16,
                patch_size: 4,
                embed_dim: 16,
                num_layers: 2,
                num_heads: 2,
                ..VitConfig::default()
            },
            decoder: DecoderConfig { embed_dim: 8, num_layers: 1, num_heads: 2, mlp_ratio: 2.0 },
            reconstruct: Reconstruct::ImageOnly,
            ..MrmConfig::default()
        };
        let _model = Mrm::new(&store.root(), &config).unwrap();
        let mut tensors: Tensors =
            store.variables().into_iter().map(|(name, tensor)| (name, tensor.detach())).collect();
        tensors.sort_by(|a, b| a.0.cmp(&b.0));
        tensors
    }

    #[test]
    fn the_round_trip_changes_nothing() {
        for prefix in ["", "vit."] {
            let ours = ours();
            let theirs = to_hugging_face(&ours, prefix);
            assert!(is_hugging_face(theirs.iter().map(|(name, _)| name.as_str())));
            assert!(!is_hugging_face(ours.iter().map(|(name, _)| name.as_str())));
            assert_eq!(theirs.len(), ours.len() + 3 * 2 * 2, "two more tensors for weight and bias of three blocks");
            let mut back = from_hugging_face(theirs).unwrap();
            back.sort_by(|a, b| a.0.cmp(&b.0));
            assert_eq!(back, ours);
        }
    }

    #[test]
    fn prefixes_of_wrappers_are_removed_if_all_names_have_them() {
        let named = |names: &[&str]| -> Tensors {
            names.iter().map(|name| ((*name).to_owned(), Tensor::from_slice(&[0.0_f32]))).collect()
        };
        let mut tensors = named(&["module._orig_mod.cls_token", "module._orig_mod.norm.bias"]);
        unwrap(&mut tensors);
        assert_eq!(tensors, named(&["cls_token", "norm.bias"]));
        let mut tensors = named(&["module.cls_token", "norm.bias"]);
        unwrap(&mut tensors);
        assert_eq!(tensors[0].0, "module.cls_token");
    }

    #[test]
    fn names_of_both_versions_are_known() {
        let whole = |name: &str| match translate(name) {
            Some(Name::Whole(ours)) => ours,
            Some(Name::Part(ours, part)) => format!("{ours} {part}"),
            None => String::new(),
        };
        assert_eq!(whole("encoder.layer.3.attention.attention.key.bias"), "blocks.3.attn.qkv.bias 1");
        assert_eq!(whole("layers.3.attention.v_proj.weight"), "blocks.3.attn.qkv.weight 2");
        assert_eq!(whole("layers.11.mlp.fc2.weight"), "blocks.11.mlp.fc2.weight");
        assert_eq!(whole("decoder.decoder_layers.0.output.dense.bias"), "decoder_blocks.0.mlp.fc2.bias");
        assert_eq!(whole("decoder.decoder_encoder.layer.0.attention.o_proj.bias"), "decoder_blocks.0.attn.proj.bias");
        assert_eq!(whole("decoder.decoder_embed.weight"), "decoder_embed.weight");
        assert_eq!(whole("pooler.dense.weight"), "");
    }

    #[test]
    fn incomplete_parts_keep_their_names() {
        let query = Tensor::from_slice(&[1.0_f32]);
        let name = "vit.encoder.layer.0.attention.attention.query.bias";
        let kept = from_hugging_face(vec![(name.to_owned(), query)]).unwrap();
        assert_eq!(kept[0].0, name);
    }
}
