//! From stored values to the image of a record: intensity transform, resize, masks.

pub mod deep;
pub mod intensity;
pub mod mask;
pub(crate) mod mask_file;
pub mod pipeline;
pub mod projection;
pub mod resize;
pub mod shades;
pub mod store16;
