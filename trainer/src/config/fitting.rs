//! Finds the preset that some weights belong to, by their shapes, for messages about weights that do not fit.

use std::collections::BTreeSet;

use tch::Tensor;

use super::{PRESETS, pretrain_preset};
use crate::model::vit::VitConfig;

/// Name of the preset whose encoder has the embedding length, number of blocks and patch size of these weights, if there is
/// one.
pub fn fitting_preset(tensors: &[(String, Tensor)]) -> Option<&'static str> {
    let (_, patches) = tensors.iter().find(|(name, _)| name == "patch_embed.proj.weight")?;
    let [width, channels, patch_size, _] = patches.size()[..] else { return None };
    let block = |name: &str| name.strip_prefix("blocks.")?.split('.').next()?.parse::<i64>().ok();
    let depth = tensors.iter().filter_map(|(name, _)| block(name)).collect::<BTreeSet<i64>>().len() as i64;
    let fits = |vit: &VitConfig| {
        (vit.embed_dim, vit.in_channels, vit.patch_size, vit.num_layers) == (width, channels, patch_size, depth)
    };
    PRESETS.into_iter().find(|preset| pretrain_preset(preset).is_ok_and(|config| fits(&config.model.vit)))
}

/// `; the sizes are those of --preset NAME` for a message about such weights; empty if no preset fits.
pub fn preset_hint(tensors: &[(String, Tensor)]) -> String {
    fitting_preset(tensors).map(|preset| format!("; the sizes are those of --preset {preset}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn the_preset_follows_from_the_shapes_of_the_weights() {
        let weights = |width: i64, patch: i64, depth: i64| -> Vec<(String, Tensor)> {
            let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
            let blocks = (0..depth).map(|block| (format!("blocks.{block}.norm1.weight"), zeros(&[width])));
            blocks.chain([("patch_embed.proj.weight".to_owned(), zeros(&[width, 3, patch, patch]))]).collect()
        };
        assert_eq!(fitting_preset(&weights(768, 16, 12)), Some("mrm-vit-b16"));
        assert_eq!(fitting_preset(&weights(384, 16, 12)), Some("mrm-vit-s16"));
        assert_eq!(fitting_preset(&weights(128, 8, 4)), Some("mrm-vit-tiny"));
        assert_eq!([fitting_preset(&weights(384, 14, 12)), fitting_preset(&weights(384, 16, 11))], [None, None]);
        assert_eq!(fitting_preset(&[]), None);
        assert_eq!(preset_hint(&weights(384, 16, 12)), "; the sizes are those of --preset mrm-vit-s16");
    }
}
