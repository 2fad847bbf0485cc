//! The models. Parameter names are those of timm and of the MRM release.

pub mod batch_norm;
pub mod bert;
pub mod classifier;
pub mod contrast;
pub mod convolutions;
pub mod dino;
pub mod encoder;
pub mod layers;
pub mod mae_decoder;
pub mod mrm;
pub mod patches;
pub mod pos_embed;
pub mod segmentation_loss;
pub mod segmenter;
pub mod view_alignment;
pub mod vit;
pub mod vit_config;
